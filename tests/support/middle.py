"""Somebody in the middle of a pair: sees every packet that goes by, and may keep, change or add some.

Before the keys he does as he likes.  Afterwards he has sizes and order only; that the rules here are told the message
number of an encrypted packet is for the tests' sake, who want to say which one is to be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, ServerConfig
from sshproto.server import ServerConnection
from sshproto.wire.messages import Message
from tests.support.pair import End, Pair, client_answers, seeded, server_answers
from tests.support.rogue import frame
from tests.support.seeds import HOST_KEY


@attrs.frozen
class Packet:
    """One packet on its way.

    Attributes:
        data: Its bytes.
        number: Its message number.
        clear: It is not encrypted.
        index: How many of the same sender came before it, since the beginning or since its first NEWKEYS.
    """

    data: bytes
    number: int
    clear: bool
    index: int


Rule = Callable[[Packet], Iterable[bytes]]
"""What is delivered in a packet's place."""


def passing(packet: Packet) -> Iterable[bytes]:
    """Nobody is in the middle."""
    yield packet.data


def alone(role: str, **changes: Any) -> Any:
    """A connection whose peer is whoever feeds it."""
    if role == "client":
        return ClientConnection(ClientConfig(user="alice", debug_raise=True, **changes), 0.0)
    return ServerConnection(ServerConfig(host_keys=(HOST_KEY,), debug_raise=True, **changes), 0.0)


def clear(message: Message | bytes) -> bytes:
    """A packet before the keys."""
    return frame(message if isinstance(message, bytes) else message.encode())


class _Noting:
    """A sealer that tells what it has sealed."""

    def __init__(self, sealer: Any) -> None:
        self._sealer = sealer
        self.sealed: list[tuple[int, int]] = []  # size and message number of what was encrypted
        self.switched = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sealer, name)

    def seal(self, head: bytes, body: Any = b"", **options: Any) -> Any:
        packet = self._sealer.seal(head, body, **options)
        if self.switched:
            self.sealed.append((len(packet), head[0]))
        return packet

    def switch(self, *arguments: Any, **options: Any) -> None:
        self._sealer.switch(*arguments, **options)
        self.switched = True


@attrs.define(eq=False)
class _Way:
    """What one end sends, cut into packets."""

    sender: End
    receiver: End
    rule: Rule
    noting: _Noting
    rest: bytes = b""
    idents: int = 0
    encrypted: bool = False
    count: int = 0

    def carry(self, now: float) -> bool:
        """Deliver what has left; False if nothing has."""
        self.rest += self.sender.drain()
        if not self.rest:
            return False
        while self.rest:
            if not self.idents:
                line, end, self.rest = self.rest.partition(b"\n")
                self.idents = 1
                delivered: Iterable[bytes] = (line + end,)
            else:
                delivered = tuple(self.rule(self._packet()))
            for data in delivered:
                if data:
                    self.receiver.conn.receive_data(data, now)
        return True

    def _packet(self) -> Packet:
        if self.encrypted:
            size, number = self.noting.sealed.pop(0)
        else:
            size, number = 4 + int.from_bytes(self.rest[:4], "big"), self.rest[5]
        data, self.rest = self.rest[:size], self.rest[size:]
        packet = Packet(data, number, not self.encrypted, self.count)
        self.count += 1
        if not self.encrypted and number == 21:
            self.encrypted = True
            self.count = 0
        return packet


class Middle:
    """A pair with somebody in the middle.

    Args:
        client, server: Changes of the configurations.
        to_server, to_client: What he does to the packets of the client, and of the server.
        client_answer, server_answer: As for :class:`~tests.support.pair.Pair`.

    Attributes:
        client, server: The ends.
    """

    def __init__(
        self,
        *,
        client: dict[str, Any] | None = None,
        server: dict[str, Any] | None = None,
        to_server: Rule = passing,
        to_client: Rule = passing,
        client_answer: Any = client_answers,
        server_answer: Any = server_answers,
    ) -> None:
        common = {"debug_raise": True}
        self.pair = Pair.make(
            ClientConfig(**{**common, "user": "alice", "entropy": seeded("client"), **(client or {})}),
            ServerConfig(**{**common, "host_keys": (HOST_KEY,), "entropy": seeded("server"), **(server or {})}),
            client_answer=client_answer,
            server_answer=server_answer,
        )
        self.client, self.server = self.pair.client, self.pair.server
        self._ways = [
            _Way(self.client, self.server, to_server, self._note(self.client)),
            _Way(self.server, self.client, to_client, self._note(self.server)),
        ]

    @staticmethod
    def _note(end: End) -> _Noting:
        outbox = end.conn._engine.outbox
        outbox.sealer = noting = _Noting(outbox.sealer)
        return noting

    def end(self, role: str) -> End:
        """The client or the server."""
        return self.client if role == "client" else self.server

    def run(self) -> Middle:
        """Go on until nothing moves."""
        for _ in range(10_000):
            moved = [way.carry(self.pair.now) for way in self._ways]  # both, whatever the first says
            if not any(moved):
                return self
        raise AssertionError("it did not come to rest")
