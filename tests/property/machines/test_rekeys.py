"""Keys exchanged anew by either side at any moment, crossing, delivered byte by byte, while data flows both ways."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sshproto import events as ev
from sshproto.channels.requests import UnknownOpen
from sshproto.config import Limits, Preferences, Timeouts
from sshproto.transport.link import Phase
from tests.support.joined import PATIENCE, SIDES, Joined, budget, log_in

SIDE = st.sampled_from(SIDES)
SUITES = (
    ("aes128-gcm@openssh.com", "hmac-sha2-256"),
    ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes128-ctr", "hmac-sha2-256"),
    ("aes128-cbc", "hmac-sha2-256-etm@openssh.com"),
)


class Rekeys(RuleBasedStateMachine):
    """One channel, two streams of bytes, and exchanges that must not show in them."""

    @initialize(
        suite=st.sampled_from(SUITES),
        strict=st.booleans(),
        compression=st.sampled_from(["none", "zlib@openssh.com", "zlib"]),
        every=st.sampled_from([1 << 30, 1000, 300]),
    )
    def start(self, suite: tuple[str, str], strict: bool, compression: str, every: int) -> None:
        cipher, mac = suite
        options = {
            "preferences": Preferences(
                kex=("curve25519-sha256",),
                cipher=(cipher,),
                mac=(mac,),
                compression=(compression,),
                strict_kex=strict,
                allow_terrapin=True,
            ),
            "limits": Limits(peer_rekeys=10_000, rekey_bytes=every),
            "timeouts": Timeouts(rekey=100.0, kex=10_000.0, keepalive=30.0, keepalive_count=100_000),
        }
        self.sent = [bytearray(), bytearray()]
        self.received = [bytearray(), bytearray()]
        self.asked = [0, 0]
        self.exchanges = [0, 0]
        self.joined = Joined(self.observe, client=options, server=options)
        self.answers = log_in(self.joined)
        self.joined.settle()
        assert all(side.conn.phase is Phase.OPEN for side in self.joined.sides)
        self.joined.sides[0].conn.open_channel(UnknownOpen("x@example.org"), window=1 << 20)
        self.joined.settle()

    def observe(self, side: int, event: Any) -> None:
        conn = self.joined.sides[side].conn if hasattr(self, "joined") else None
        if conn is None or self.answers(side, event):
            return
        match event:
            case ev.ChannelOpenRequested():
                conn.accept_channel(event, window=1 << 20)
            case ev.DataReceived():
                self.received[side] += event.data
                conn.credit(event.channel, len(event.data))
            case ev.KeysExchanged():
                self.exchanges[side] += not event.first
                assert event.session_id == conn.session_id
            case ev.ConnectionLost():
                raise AssertionError(f"the connection was lost: {event.error}")
            case _:
                pass

    @rule(side=SIDE)
    def rekey(self, side: int) -> None:
        conn = self.joined.sides[side].conn
        self.asked[side] += not conn.rekeying
        conn.rekey()
        self.joined.pump(side)

    @rule(side=SIDE, size=st.integers(1, 700))
    def write(self, side: int, size: int) -> None:
        conn = self.joined.sides[side].conn
        data = bytes((len(self.sent[side]) + index) % 251 for index in range(size))
        room = conn.sendable(0)
        taken = conn.send(0, data)
        assert taken == min(room, size)
        self.sent[side] += data[:taken]
        self.joined.pump(side)

    @rule(side=SIDE, count=st.one_of(st.just(1), st.integers(1, 100), st.integers(1, 5000)))
    def deliver(self, side: int, count: int) -> None:
        self.joined.deliver(side, count)

    @rule(side=SIDE)
    def wait(self, side: int) -> None:
        """Until something is due: a keepalive, or the age of a key."""
        self.joined.sleep(side)

    @invariant()
    def what_came_is_what_was_sent(self) -> None:
        if hasattr(self, "joined"):
            for side in SIDES:
                got = self.received[1 - side]
                assert self.sent[side][: len(got)] == got

    def teardown(self) -> None:
        if not hasattr(self, "joined"):
            return
        self.joined.settle()
        self.joined.at_rest()
        client, server = self.joined.sides
        assert self.received == [self.sent[1], self.sent[0]]
        assert self.exchanges[0] == self.exchanges[1]
        assert self.exchanges[0] >= max(self.asked)
        assert client.conn.session_id == server.conn.session_id
        assert not client.conn.rekeying
        assert not server.conn.rekeying
        assert client.conn.send(0, b"and on it goes") == 14
        self.joined.settle()
        assert self.received[1].endswith(b"and on it goes")


TestRekeys = Rekeys.TestCase
TestRekeys.settings = budget(0.5)
TestRekeys.pytestmark = [
    PATIENCE,
    pytest.mark.slow,
    pytest.mark.covers("R34", "R42", "R43", "R164", "V13", "P6", "P8", "P16", "P20", "P21"),
]
