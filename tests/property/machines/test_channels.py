"""Channels between two live connections: any command of either application, delivered in any pieces, at any time.

The multiplexers by themselves have a machine of their own in tests/unit/channels; here keys are exchanged anew in the
midst of everything, packets are cut anywhere, and monitors watch both sides.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from sshproto import events as ev
from sshproto.channels import requests as r
from sshproto.config import Limits
from sshproto.errors import LimitReached, UsageError
from sshproto.transport.link import Phase
from tests.support.joined import PATIENCE, SIDES, Joined, budget, log_in

LIMITS = Limits(requests_pending=4, channels_from_us=6, channels_from_peer=6, opens_pending=6, peer_rekeys=1000)
SIDE = st.sampled_from(SIDES)
PICK = st.integers(0, 10**6)
FLOW = st.sampled_from([0, 0, 40, 5000])
"""How much of what a side has in flight arrives behind a command of its."""


@attrs.define(eq=False)
class End:
    """One end of a channel, as the model sees it."""

    side: int
    number: int
    other: End | None = None
    open: bool = False
    closed: bool = False
    eof: bool = False
    sent: dict[int, bytearray] = attrs.field(factory=lambda: {0: bytearray(), 1: bytearray()})
    received: dict[int, bytearray] = attrs.field(factory=lambda: {0: bytearray(), 1: bytearray()})
    unread: int = 0
    wants_room: bool = False
    requests: deque[tuple[int, bytes]] = attrs.field(factory=deque)


class Channels(RuleBasedStateMachine):
    """Both applications, the network, and a model of what each must be told."""

    @initialize(windows=st.tuples(st.integers(0, 300), st.integers(0, 300)))
    def start(self, windows: tuple[int, int]) -> None:
        self.joined = Joined(self.observe, client={"limits": LIMITS}, server={"limits": LIMITS})
        self.answers = log_in(self.joined)
        self.ends: list[dict[int, End]] = [{}, {}]
        self.tokens: dict[bytes, End] = {}
        self.count = 0
        self.questions: list[tuple[int, Any]] = []
        self.decided: dict[bytes, bool] = {}
        self.globals: list[deque[tuple[int, bytes]]] = [deque(), deque()]
        self.joined.settle()
        assert all(side.conn.phase is Phase.OPEN for side in self.joined.sides)
        for side, window in enumerate(windows):
            self.open(side, window, 64, 0)
            self.joined.settle()
            self.decide(0, True, window, 0)
            self.joined.settle()

    def conn(self, side: int) -> Any:
        return self.joined.sides[side].conn

    def token(self) -> bytes:
        self.count += 1
        return b"%d" % self.count

    def flow(self, side: int, count: int) -> None:
        self.joined.pump(side)
        if count:
            self.joined.deliver(side, count)

    def pick(self, side: int, which: int) -> End | None:
        found = [end for end in self.ends[side].values() if end.open and not end.closed]
        return found[which % len(found)] if found else None

    # --------------------------------------------------------------------------------------------------------- commands

    @rule(flow=FLOW, side=SIDE, window=st.integers(0, 300), packet=st.integers(64, 100))
    def open(self, side: int, window: int, packet: int, flow: int) -> None:
        token = self.token()
        with contextlib.suppress(LimitReached):
            number = self.conn(side).open_channel(
                r.UnknownOpen("x@example.org", token), window=window, max_packet=packet
            )
            assert number not in self.ends[side]
            self.ends[side][number] = self.tokens[token] = End(side, number)
        self.flow(side, flow)

    @precondition(lambda self: self.questions)
    @rule(flow=FLOW, which=PICK, yes=st.booleans(), window=st.integers(0, 300))
    def decide(self, which: int, yes: bool, window: int, flow: int) -> None:
        side, question = self.questions.pop(which % len(self.questions))
        conn = self.conn(side)
        if isinstance(question, ev.ChannelOpenRequested):
            kind: Any = question.kind
            other = self.tokens[kind.payload]
            if yes:
                conn.accept_channel(question, window=window)
                end = self.ends[side][question.channel] = End(side, question.channel, other, open=True)
                other.other = end
            else:
                conn.reject_channel(question)
        else:
            (conn.succeed if yes else conn.fail)(question)
            self.decided[question.request.payload] = yes
        self.flow(side, flow)

    @rule(flow=FLOW, side=SIDE, which=PICK, size=st.integers(1, 400), stream=st.sampled_from([0, 0, 1]))
    def send(self, side: int, which: int, size: int, stream: int, flow: int) -> None:
        end = self.pick(side, which)
        if end is None or end.eof:
            return
        data = bytes((len(end.sent[stream]) + index) % 251 for index in range(size))
        room = self.conn(side).sendable(end.number)
        taken = self.conn(side).send(end.number, data, stream)
        assert taken == min(room, size)
        end.sent[stream] += data[:taken]
        end.wants_room = end.wants_room or taken < size
        self.flow(side, flow)

    @rule(flow=FLOW, side=SIDE, which=PICK, part=st.one_of(st.just(10_000), st.integers(0, 300)))
    def credit(self, side: int, which: int, part: int, flow: int) -> None:
        end = self.pick(side, which)
        if end is not None:
            count = min(end.unread, part)
            self.conn(side).credit(end.number, count)
            end.unread -= count
            self.flow(side, flow)

    @rule(flow=FLOW, side=SIDE, which=PICK, sure=st.sampled_from([False, False, True]))
    def send_eof(self, side: int, which: int, sure: bool, flow: int) -> None:
        end = self.pick(side, which)
        if sure and end is not None and not end.eof:
            self.conn(side).send_eof(end.number)
            end.eof = True
            end.wants_room = False
            self.flow(side, flow)

    @rule(flow=FLOW, side=SIDE, which=PICK, sure=st.sampled_from([False, False, True]))
    def close(self, side: int, which: int, sure: bool, flow: int) -> None:
        if not sure:
            return
        found = [end for end in self.ends[side].values() if not end.closed]
        if found:
            end = found[which % len(found)]
            self.conn(side).close_channel(end.number)
            end.closed = True
            end.wants_room = False
            self.forget_questions(side)
            self.flow(side, flow)

    @rule(flow=FLOW, side=SIDE, which=PICK, want_reply=st.booleans())
    def request(self, side: int, which: int, want_reply: bool, flow: int) -> None:
        end = self.pick(side, which)
        if end is None:
            return
        token = self.token()
        with contextlib.suppress(LimitReached):
            number = self.conn(side).request(
                end.number, r.UnknownRequest("q@example.org", token), want_reply=want_reply
            )
            if want_reply:
                end.requests.append((number, token))
        self.flow(side, flow)

    @rule(flow=FLOW, side=SIDE)
    def global_request(self, side: int, flow: int) -> None:
        token = self.token()
        with contextlib.suppress(LimitReached):
            number = self.conn(side).global_request(r.UnknownGlobal("g@example.org", token))
            self.globals[side].append((number, token))
        self.flow(side, flow)

    @rule(flow=FLOW, side=SIDE)
    def rekey(self, side: int, flow: int) -> None:
        self.conn(side).rekey()
        self.flow(side, flow)

    @rule(flow=FLOW, side=SIDE, what=st.sampled_from(["ping", "ignore", "debug"]))
    def talk(self, side: int, what: str, flow: int) -> None:
        getattr(self.conn(side), what)("x" if what == "debug" else b"x")
        self.flow(side, flow)

    @rule(side=SIDE, count=st.one_of(st.integers(1, 60), st.integers(1, 4000)))
    def deliver(self, side: int, count: int) -> None:
        self.joined.deliver(side, count)

    @rule(side=SIDE, number=st.integers(-1, 9), command=st.sampled_from(["send_eof", "close_channel", "sendable"]))
    def misuse(self, side: int, number: int, command: str) -> None:
        """A command to a channel that is not there leaves no trace."""
        if number not in self.conn(side).channels:
            before = self.conn(side).output_size
            with pytest.raises(UsageError):
                getattr(self.conn(side), command)(number)
            assert self.conn(side).output_size == before

    # --------------------------------------------------------------------------------------------- what each side tells

    def forget_questions(self, side: int) -> None:
        owed = {question.id for question in self.conn(side).questions}
        self.questions = [
            entry
            for entry in self.questions
            if entry[0] != side or entry[1].id in owed or not getattr(entry[1], "want_reply", True)
        ]

    def observe(self, side: int, event: Any) -> None:
        if self.answers(side, event):
            return
        end = self.ends[side].get(getattr(event, "channel", -1))
        match event:
            case ev.ChannelOpenRequested():
                self.questions.append((side, event))
            case ev.ChannelRequested() | ev.GlobalRequested():
                if event.want_reply:
                    self.questions.append((side, event))
            case ev.ChannelOpened():
                assert end is not None
                assert not end.open
                assert not end.closed
                end.open = True
            case ev.ChannelOpenFailed():
                assert end is not None
                assert not end.open
                del self.ends[side][end.number]
            case ev.DataReceived():
                assert end is not None
                assert end.other is not None
                assert not end.closed
                end.received[event.stream] += event.data
                got = end.received[event.stream]
                assert end.other.sent[event.stream][: len(got)] == got
                end.unread += len(event.data)
            case ev.EofReceived():
                assert end is not None
                assert end.other is not None
                assert end.other.eof
                assert end.received == end.other.sent
            case ev.ChannelClosed():
                assert end is not None
                if not end.closed:
                    assert end.other is not None
                    assert end.received == end.other.sent
                del self.ends[side][end.number]
                self.forget_questions(side)
            case ev.ChannelWritable():
                assert end is not None
                assert end.wants_room
                assert self.conn(side).sendable(end.number) > 0
                end.wants_room = False
            case ev.RequestSucceeded() | ev.RequestFailed():
                assert end is not None
                number, token = end.requests.popleft()
                assert event.request_id == number
                assert self.decided.pop(token) is isinstance(event, ev.RequestSucceeded)
            case ev.GlobalSucceeded() | ev.GlobalFailed():
                number, token = self.globals[side].popleft()
                assert event.request_id == number
                assert self.decided.pop(token) is isinstance(event, ev.GlobalSucceeded)
            case ev.ConnectionLost():
                raise AssertionError(f"the connection was lost: {event.error}")
            case _:
                pass

    def teardown(self) -> None:
        """All is delivered and answered: every byte that was taken has arrived, every reply has come."""
        if not hasattr(self, "joined"):
            return
        self.joined.settle()
        while self.questions:
            self.decide(0, True, 100, 0)
            self.joined.settle()
        self.joined.at_rest()
        for side in SIDES:
            assert not self.globals[side]
            for end in self.ends[side].values():
                assert end.other is not None
                if end.open and not end.closed and not end.other.closed:
                    assert end.received == end.other.sent
                    assert not end.requests


TestChannels = Channels.TestCase
TestChannels.settings = budget(0.5)
TestChannels.pytestmark = [
    PATIENCE,
    pytest.mark.slow,
    pytest.mark.covers(
        "R164", "V16", "V29", "R42", "R84", "R89", "R93", "R95", "P4", "P6", "P8", "P13", "P16", "P17", "P20", "P21"
    ),
]
