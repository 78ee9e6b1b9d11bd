"""Two connections joined in memory, for who measures the core alone: no socket, no loop, no clock."""

from __future__ import annotations

from typing import Any

import attrs

from sshproto import events as ev
from sshproto.channels.requests import Session
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig, system_entropy
from tests.bench.ends import CIPHERS, KEX
from tests.support.pair import HOST_KEY, USER_KEY, Pair, seeded

MOST = 1100
"""Channels at once."""


def configs(cipher: str, *, chance: bool = False) -> tuple[ClientConfig, ServerConfig]:
    """Those of both ends: the defaults, but for algorithms and room for many channels; and, unless ``chance``, the same
    bytes on every run for what should be unpredictable."""
    name, mac = CIPHERS[cipher]
    preferences = Preferences(kex=(KEX,), cipher=(name,), **({"mac": (mac,)} if mac else {}))
    limits = Limits(sessions=MOST, channels_from_peer=MOST, channels_from_us=MOST, opens_pending=MOST)
    client, server = (system_entropy, system_entropy) if chance else (seeded("client"), seeded("server"))
    return (
        ClientConfig(user="alice", preferences=preferences, limits=limits, entropy=client),
        ServerConfig(host_keys=(HOST_KEY,), preferences=preferences, limits=limits, entropy=server),
    )


@attrs.define
class Flow:
    """Channels from a sender, who is the server, to a receiver.

    Attributes:
        sender, receiver: The connections.
        there: The sender's numbers of the channels.
        here: The receiver's.
    """

    sender: Any
    receiver: Any
    there: list[int]
    here: list[int]

    @classmethod
    def make(cls, cipher: str, channels: int = 1, *, chance: bool = False) -> Flow:
        both = Pair.make(*configs(cipher, chance=chance)).login()
        here = [both.client.conn.open_channel(Session()) for _ in range(channels)]
        both.run()
        assert len(both.server.conn.channels) == channels
        return cls(both.server.conn, both.client.conn, list(both.server.conn.channels), here)

    def send(self, channel: int, block: bytes, count: int = 1) -> bytes:
        """So many packets on a channel, as bytes."""
        send = self.sender.send
        for _ in range(count):
            taken = send(channel, block)
            assert taken == len(block)
        return bytes(self.sender.data_to_send())

    def receive(self, data: bytes) -> int:
        """Take all that has come, and give its room back; how many bytes it was."""
        receiver, count = self.receiver, 0
        receiver.receive_data(data, 0.0)
        next_event = receiver.next_event
        while (event := next_event()) is not None:
            if type(event) is ev.DataReceived:
                size = len(event.data)
                count += size
                receiver.credit(event.channel, size)
        return count

    def settle(self) -> None:
        """What the receiver has to say reaches the sender: room, if anything."""
        data = self.receiver.data_to_send()
        if data:
            self.sender.receive_data(data, 0.0)
            while self.sender.next_event() is not None:
                pass


__all__ = ["MOST", "USER_KEY", "Flow", "configs"]
