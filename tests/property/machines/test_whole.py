"""The pair as a whole: from the first byte to the last, with somebody in the middle now and then.

Login, channels, keys, time, ends: all in any order.  As long as nobody meddles, neither side accuses the other (R164);
whatever happens, nothing raises, each side ends at most once and is silent then, and the monitors of both are content.
And told the same byte by byte, each side does the same (R163).
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from sshproto import events as ev
from sshproto.channels import requests as r
from sshproto.config import Limits, Preferences, Timeouts
from sshproto.errors import AuthExhausted, LocalClose, PeerDisconnected, UnexpectedEof, UsageError
from sshproto.transport.link import Phase
from sshproto.wire import messages as m
from tests.support.joined import PATIENCE, SIDES, Joined, budget
from tests.support.rogue import frame
from tests.support.seeds import USER_KEY

SIDE = st.sampled_from(SIDES)
PICK = st.integers(0, 10**6)
FLOW = st.sampled_from([0, 0, 50, 1 << 20])
"""How much of what a side has in flight arrives behind a command or an answer of its."""
OURS = (AuthExhausted, LocalClose, PeerDisconnected, UnexpectedEof)
"""Ends that nobody is to blame for."""

COMMANDS = st.tuples(
    st.sampled_from(["open", *["send"] * 6, "eof", "close", *["request"] * 2, "global", *["rekey"] * 2]),
    PICK,
    st.integers(1, 3000),
)
SLIPPED = (
    m.Ignore(b"").encode(),
    m.Debug(False, "").encode(),
    m.Unimplemented(0).encode(),
    b"\x1d",
    b"\x32" + bytes(9),
)


class Whole(RuleBasedStateMachine):
    """Two applications that do anything, and a network that does a little more than it should."""

    @initialize(
        strict=st.booleans(),
        eager=st.booleans(),
        methods=st.sampled_from([("publickey",), ("password", "publickey"), ("keyboard-interactive", "password")]),
        compression=st.sampled_from(["none", "zlib@openssh.com"]),
        stage=st.sampled_from(["nothing", "keys", "login", "channel", "channel"]),
    )
    def start(self, strict: bool, eager: bool, methods: tuple[str, ...], compression: str, stage: str) -> None:
        options = {
            "preferences": Preferences(
                kex=("curve25519-sha256",),
                cipher=("chacha20-poly1305@openssh.com",),
                compression=(compression,),
                strict_kex=strict,
                allow_terrapin=True,
            ),
            "limits": Limits(peer_rekeys=1000, requests_pending=8),
            "timeouts": Timeouts(keepalive=20.0, keepalive_count=100_000, rekey=200.0),
        }
        self.honest = True
        self.slipped = False
        self.tokens = 0
        self.questions: list[tuple[int, Any]] = []
        self.losses: list[list[Any]] = [[], []]
        self.received: list[int] = [0, 0]
        self.sent: list[int] = [0, 0]
        self.joined = Joined(
            self.observe,
            client={**options, "eager": eager},
            server={**options, "auth_methods": methods, "ask_none": True},
        )
        for side in SIDES:
            self.joined.pump(side)
        if stage != "nothing":
            self.come_to(stage)

    def come_to(self, stage: str) -> None:
        """Begin further on, as it would be in most examples' lives."""
        self.joined.settle()
        self.answer(0, True, 0, 0)
        self.joined.settle()
        if stage == "keys":
            return
        while self.questions:
            self.answer(0, True, 3 if "publickey" in self.conn(1)._engine.config.auth_methods else 1, 0)
            self.joined.settle()
        assert all(self.conn(side).phase is Phase.OPEN for side in SIDES)
        for side in SIDES if stage == "channel" else ():
            self.conn(side).open_channel(r.UnknownOpen("x@example.org"), window=2000)
            self.joined.settle()
            self.answer(0, True, 0, 0)
            self.joined.settle()

    def flow(self, side: int, count: int) -> None:
        self.joined.pump(side)
        if count:
            self.joined.deliver(side, count)

    def conn(self, side: int) -> Any:
        return self.joined.sides[side].conn

    def observe(self, side: int, event: Any) -> None:
        assert not self.losses[side], "an event after the end"
        if isinstance(event, ev.ConnectionLost):
            self.losses[side].append(event.error)
            self.questions = [entry for entry in self.questions if entry[0] != side]
            if self.honest:
                assert isinstance(event.error, OURS), f"side {side}: {event.error!r}"
        elif isinstance(event, ev.Question):
            self.questions.append((side, event))
        elif isinstance(event, ev.DataReceived):
            self.received[side] += len(event.data)
            self.conn(side).credit(event.channel, len(event.data))

    # ----------------------------------------------------------------------------------------------------- applications

    @precondition(lambda self: self.questions)
    @rule(which=PICK, yes=st.sampled_from([True, True, True, False]), how=st.integers(0, 4), flow=FLOW)
    def answer(self, which: int, yes: bool, how: int, flow: int) -> None:
        """Mostly a yes, of one kind or another."""
        side, question = self.questions.pop(which % len(self.questions))
        conn = self.conn(side)
        with contextlib.suppress(UsageError):
            if isinstance(question, (ev.HostKeyOffered, ev.CredentialNeeded, ev.PromptsReceived)):
                self._log_in(conn, question, how)
            elif isinstance(question, ev.AuthQuestion):
                self._let_in(conn, question, yes, how)
            elif not yes:
                conn.refuse(question)
            elif isinstance(question, ev.ChannelOpenRequested):
                conn.accept_channel(question, window=2000)
            elif isinstance(question, (ev.ChannelRequested, ev.GlobalRequested)):
                conn.succeed(question)
            else:
                conn.refuse(question)
        self.flow(side, flow)

    def _log_in(self, conn: Any, question: Any, how: int) -> None:
        if isinstance(question, ev.HostKeyOffered):
            self.joined.sides[0].monitor.trusted = True
            conn.accept_host_key(question)
        elif isinstance(question, ev.PromptsReceived):
            conn.answer_prompts(question, ["x"] * len(question.prompts))
        elif how == 0:
            conn.auth_none(question)
        elif how == 1:
            conn.auth_password(question, "secret")
        elif how == 2:
            conn.auth_keyboard_interactive(question)
        else:
            conn.auth_public_key(question, USER_KEY, probe=how == 3)

    def _let_in(self, conn: Any, question: Any, yes: bool, how: int) -> None:
        try:
            if isinstance(question, ev.KeyProbe) and yes:
                conn.offer_key(question)
            elif isinstance(question, ev.InteractiveAuth) and how:
                conn.prompt(question, [ev.Prompt(text="?", echo=True)] * (how - 1))
            elif yes:
                conn.accept_auth(question)
            else:
                conn.reject_auth(question, partial=how == 4)
        except UsageError:
            conn.reject_auth(question)

    @rule(side=SIDE, commands=st.lists(COMMANDS, min_size=1, max_size=4), flow=FLOW)
    def act(self, side: int, commands: list[tuple[str, int, int]], flow: int) -> None:
        """Commands. What cannot be is refused, and nothing else happens."""
        conn = self.conn(side)
        for what, which, size in commands:
            before = conn.output_size
            try:
                self.command(side, what, which, size)
            except UsageError:
                assert conn.output_size == before
        self.flow(side, flow)

    def command(self, side: int, what: str, which: int, size: int) -> None:
        conn = self.conn(side)
        number = conn.channels[which % len(conn.channels)] if conn.channels else 0
        match what:
            case "open":
                kind = r.Session() if side == 0 and size % 2 else r.UnknownOpen("x@example.org")
                conn.open_channel(kind, window=2000)
            case "send":
                self.sent[side] += conn.send(number, bytes(size))
            case "eof":
                conn.send_eof(number)
            case "close":
                conn.close_channel(number)
            case "request":
                conn.request(number, r.UnknownRequest("q@example.org"))
            case "global":
                conn.global_request(r.UnknownGlobal("g@example.org"))
            case _:
                conn.rekey()

    # ---------------------------------------------------------------------------------------------------------- network

    @rule(side=SIDE, count=st.one_of(st.integers(1, 50), st.integers(1, 3000), st.just(1 << 20)))
    def deliver(self, side: int, count: int) -> None:
        self.joined.deliver(side, count)

    @rule(side=SIDE)
    def wait(self, side: int) -> None:
        """Time passes until something is due. Who waits so long for a login gives up, and nobody is to blame."""
        if any(self.conn(end).phase is not Phase.OPEN or self.conn(end).rekeying for end in SIDES):
            return
        self.joined.settle()
        if not self.questions:
            self.joined.sleep(side)
            self.joined.settle()

    @precondition(lambda self: self.sent[0] + self.sent[1] > 2000)
    @rule(side=SIDE, how=st.sampled_from(["disconnect", "eof"]))
    def end(self, side: int, how: str) -> None:
        if how == "disconnect":
            self.conn(side).disconnect("that is all")
        else:
            self.conn(side).receive_eof(self.joined.now)
        self.joined.pump(side)

    @precondition(lambda self: self.joined.sides[0].monitor.sent[21] == 0)
    @rule(side=SIDE, payload=st.sampled_from(SLIPPED), sure=st.sampled_from([False, False, False, True]))
    def slip(self, side: int, payload: bytes, sure: bool) -> None:
        """Somebody in the middle adds a packet before the keys; in a strict exchange that ends it (P14, P15)."""
        here = self.joined.sides[side]
        if sure and not here.monitor.sent[21]:
            self.honest = False
            self.slipped = True
            here.conn._engine.outbox.raw(frame(payload))
            self.joined.pump(side)

    @rule(side=SIDE, place=PICK, bit=st.integers(0, 7), sure=st.sampled_from([False] * 9 + [True]))
    def damage(self, side: int, place: int, bit: int, sure: bool) -> None:
        """... or changes a bit of what is under way."""
        flight = self.joined.sides[side].flight
        if sure and flight:
            self.honest = False
            flight[place % len(flight)] ^= 1 << bit

    # -------------------------------------------------------------------------------------------------------------- end

    def teardown(self) -> None:
        if not hasattr(self, "joined"):
            return
        self.joined.settle()
        for _ in range(200):
            if not self.questions:
                break
            self.answer(0, True, self.tokens % 5, 0)
            self.tokens += 1
            self.joined.settle()
        if self.slipped:
            return
        for side in SIDES:
            self.conn(side).replay_bytewise()
        if not self.honest or any(self.losses):
            return
        self.joined.at_rest()
        client, server = (side.monitor for side in self.joined.sides)
        assert client.strict == server.strict
        if self.conn(0).phase is Phase.OPEN:
            assert self.conn(1).phase is Phase.OPEN


TestWhole = Whole.TestCase
TestWhole.settings = budget(0.5)
TestWhole.pytestmark = [
    PATIENCE,
    pytest.mark.slow,
    pytest.mark.covers(
        *("R163", "R164", "R165", "V01", "V03"),
        *(
            "P1",
            "P3",
            "P4",
            "P5",
            "P6",
            "P7",
            "P8",
            "P9",
            "P10",
            "P11",
            "P12",
            "P13",
            "P14",
            "P15",
            "P16",
            "P17",
            "P18",
            "P21",
        ),
    ),
]
