"""Two multiplexers joined in memory, and a model that knows what each must tell, in whatever order things happen."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sshproto.channels import requests as r
from sshproto.channels.channel import MAX_WINDOW, ChannelState
from sshproto.config import Limits
from sshproto.errors import UsageError
from sshproto.events import (
    ChannelClosed,
    ChannelOpened,
    ChannelOpenFailed,
    ChannelOpenRequested,
    ChannelRequested,
    ChannelWritable,
    DataReceived,
    EofReceived,
    GlobalFailed,
    GlobalRequested,
    GlobalSucceeded,
    RequestFailed,
    RequestSucceeded,
)

LIMITS = Limits(
    smallest_channel_packet=1,
    requests_pending=4,
    channels_from_us=6,
    channels_from_peer=6,
    opens_pending=6,
    empty_adjusts=10**6,
)
SIDES = st.sampled_from([0, 1])
PICK = st.integers(0, 10**6)
SIZES = st.integers(1, 40)
KINDS = ["x@example.org", "session"]


class Link:
    """One end of a channel, as the model sees it."""

    def __init__(self, side: int, number: int, window: int) -> None:
        self.side = side
        self.number = number
        self.window = window
        self.other: Link | None = None
        self.open = False
        self.closed_by_us = False
        self.eof_sent = False
        self.eof_received = False
        self.sent = bytearray()
        self.received: dict[int, bytearray] = {0: bytearray(), 1: bytearray()}
        self.sent_on: dict[int, bytearray] = {0: bytearray(), 1: bytearray()}
        self.unread = 0
        self.wants_room = False
        self.requests: deque[tuple[int, bytes]] = deque()


class Machine(RuleBasedStateMachine):
    """The commands of both applications and the delivery of packets, at random."""

    pair_class: Any

    @initialize()
    def start(self) -> None:
        self.pair = self.pair_class(LIMITS)
        self.sides = [self.pair.client, self.pair.server]
        self.links: list[dict[int, Link]] = [{}, {}]
        self.gone: list[set[int]] = [set(), set()]
        self.tokens: dict[bytes, Link] = {}
        self.counter = 0
        self.questions: list[tuple[int, Any]] = []
        self.decided: dict[bytes, bool] = {}
        self.globals: list[deque[tuple[int, bytes]]] = [deque(), deque()]
        self.asked: dict[tuple[int, int], list[bytes]] = defaultdict(list)

    def token(self) -> bytes:
        self.counter += 1
        return b"%d" % self.counter

    def pick(self, side: int, number: int, *, open_only: bool = True) -> Link | None:
        found = [link for link in self.links[side].values() if link.open or not open_only]
        return found[number % len(found)] if found else None

    # commands

    @rule(side=SIDES, window=st.one_of(st.integers(0, 60), st.just(MAX_WINDOW)), packet=st.integers(1, 20))
    def open(self, side: int, window: int, packet: int) -> None:
        token = self.token()
        try:
            number = self.sides[side].mux.open_channel(
                r.UnknownOpen("x@example.org", token), window=window, max_packet=packet
            )
        except UsageError:
            assert len(list(self.links[side].values())) >= LIMITS.channels_from_us
            return
        assert number not in self.links[side]
        assert number not in self.gone[side]
        self.links[side][number] = self.tokens[token] = Link(side, number, window)

    @precondition(lambda self: self.questions)
    @rule(which=PICK, yes=st.booleans(), window=st.integers(0, 60), packet=st.integers(1, 20))
    def answer(self, which: int, yes: bool, window: int, packet: int) -> None:
        side, question = self.questions.pop(which % len(self.questions))
        here = self.sides[side]
        here.outlet.owed.pop(question.id, None)
        if isinstance(question, ChannelOpenRequested):
            assert isinstance(question.kind, r.UnknownOpen)
            other = self.tokens[question.kind.payload]
            if yes:
                here.mux.accept_channel(question, window=window, max_packet=packet)
                link = self.links[side][question.channel] = Link(side, question.channel, window)
                link.open = True
                link.other = other
                other.other = link
            else:
                here.mux.reject_channel(question, 2, "no")
                self.gone[side].add(question.channel)
            return
        token = question.request.payload
        if yes:
            here.mux.succeed(question)
        else:
            here.mux.fail(question)
        self.decided[token] = yes

    @rule(side=SIDES, which=PICK, size=SIZES, stream=st.sampled_from([0, 0, 1]))
    def send(self, side: int, which: int, size: int, stream: int) -> None:
        link = self.pick(side, which)
        if link is None or link.eof_sent or link.closed_by_us:
            return
        data = bytes((len(link.sent_on[stream]) + index) % 251 for index in range(size))
        here = self.sides[side]
        room = here.mux.sendable(link.number)
        taken = here.mux.send(link.number, data, stream)
        assert taken == min(room, size)
        link.sent_on[stream] += data[:taken]
        link.wants_room = link.wants_room or taken < size

    @rule(side=SIDES, which=PICK, part=st.integers(0, 100))
    def credit(self, side: int, which: int, part: int) -> None:
        link = self.pick(side, which)
        if link is not None:
            count = min(link.unread, part)
            self.sides[side].mux.credit(link.number, count)
            link.unread -= count

    @rule(side=SIDES, which=PICK)
    def send_eof(self, side: int, which: int) -> None:
        link = self.pick(side, which)
        if link is None:
            return
        if link.eof_sent or link.closed_by_us:
            with pytest.raises(UsageError):
                self.sides[side].mux.send_eof(link.number)
            return
        self.sides[side].mux.send_eof(link.number)
        link.eof_sent = True
        link.wants_room = False

    @rule(side=SIDES, which=PICK)
    def close(self, side: int, which: int) -> None:
        link = self.pick(side, which, open_only=False)
        if link is None:
            return
        if link.closed_by_us:
            with pytest.raises(UsageError):
                self.sides[side].mux.close_channel(link.number)
            return
        self.sides[side].mux.close_channel(link.number)
        link.closed_by_us = True
        link.wants_room = False
        self.withdraw(side)

    @rule(side=SIDES, which=PICK, want_reply=st.booleans())
    def request(self, side: int, which: int, want_reply: bool) -> None:
        link = self.pick(side, which)
        if link is None or link.closed_by_us:
            return
        token = self.token()
        data = r.UnknownRequest("q@example.org", token)
        if want_reply and len(link.requests) >= LIMITS.requests_pending:
            with pytest.raises(UsageError):
                self.sides[side].mux.request(link.number, data)
            return
        number = self.sides[side].mux.request(link.number, data, want_reply=want_reply)
        if want_reply:
            link.requests.append((number, token))

    @rule(side=SIDES)
    def global_request(self, side: int) -> None:
        if len(self.globals[side]) >= LIMITS.requests_pending:
            with pytest.raises(UsageError):
                self.sides[side].mux.global_request(r.UnknownGlobal("g@example.org"))
            return
        token = self.token()
        number = self.sides[side].mux.global_request(r.UnknownGlobal("g@example.org", token))
        self.globals[side].append((number, token))

    # the world

    @rule(side=SIDES, room=st.sampled_from([0, 0, 3, 1 << 20]))
    def key_exchange(self, side: int, room: int) -> None:
        """A key exchange stops data, and its end lets it flow again."""
        here = self.sides[side]
        here.outlet.free = room
        here.mux.writable()
        self.observe(side)

    @rule(side=SIDES, full=st.booleans())
    def outlet_is_full(self, side: int, full: bool) -> None:
        """Replies and credit may have to wait; commands are not given meanwhile."""
        here = self.sides[side]
        here.outlet.full = full
        if full:
            link = self.pick(side, 0)
            if link is not None and link.unread:
                here.mux.credit(link.number, link.unread)
                link.unread = 0
            here.outlet.full = False
        here.mux.writable()
        self.observe(side)

    @rule(side=SIDES, count=st.integers(1, 10))
    def deliver(self, side: int, count: int) -> None:
        """Packets of ``side`` reach the other side."""
        queue = self.sides[side].outlet.sent
        for _ in range(min(count, len(queue))):
            self.sides[1 - side].feed(queue.popleft())
            self.observe(1 - side)

    @rule(
        side=SIDES,
        number=st.integers(-1, 12),
        command=st.sampled_from(["send", "send_eof", "close_channel", "credit", "request", "sendable"]),
        extra=st.sampled_from([None, b"", b"x", -1, 10**9, "x", r.Shell(), r.ExitStatus(0), r.Keepalive()]),
    )
    def misuse(self, side: int, number: int, command: str, extra: Any) -> None:
        """What raises has changed nothing. (What would not raise is not tried.)"""
        here = self.sides[side]
        link = self.links[side].get(number)
        usable = link is not None and link.open and not link.closed_by_us
        if command in ("send_eof", "sendable"):
            if (usable and link is not None and not link.eof_sent) or command == "sendable":
                return
            arguments: tuple[Any, ...] = (number,)
        elif command == "close_channel":
            if link is not None and not link.closed_by_us:
                return
            arguments = (number,)
        else:
            valid = {"send": (bytes,), "credit": (), "request": (r.Shell, r.ExitStatus)}[command]
            if isinstance(extra, valid) and usable:
                return
            if command == "credit" and number in self.gone[side]:
                return
            arguments = (number, extra)
        before = here.state()
        with pytest.raises(UsageError):
            getattr(here.mux, command)(*arguments)
        assert here.state() == before

    # what each side tells

    def withdraw(self, side: int) -> None:
        void = set(self.sides[side].outlet.withdrawn)
        self.questions = [entry for entry in self.questions if entry[0] != side or entry[1].id not in void]

    def observe(self, side: int) -> None:
        for event in self.sides[side].told():
            link = self.links[side].get(getattr(event, "channel", -1))
            match event:
                case ChannelOpenRequested():
                    assert event.channel not in self.links[side]
                    self.questions.append((side, event))
                case ChannelRequested():
                    assert link is not None
                    assert not link.closed_by_us
                    self.asked[side, link.number].append(event.request.payload)
                    if event.want_reply:
                        self.questions.append((side, event))
                case GlobalRequested():
                    self.questions.append((side, event))
                case ChannelOpened():
                    assert link is not None
                    assert not link.open
                    assert not link.closed_by_us
                    link.open = True
                case ChannelOpenFailed():
                    assert link is not None
                    assert not link.open
                    self.forget(side, link)
                case DataReceived():
                    assert link is not None
                    assert link.open
                    assert not link.closed_by_us
                    assert not link.eof_received
                    assert link.other is not None
                    got = link.received[event.stream]
                    got += event.data
                    assert event.data
                    assert link.other.sent_on[event.stream][: len(got)] == got
                    link.unread += len(event.data)
                case EofReceived():
                    assert link is not None
                    assert link.other is not None
                    assert link.other.eof_sent
                    assert not link.eof_received
                    assert link.received == link.other.sent_on
                    link.eof_received = True
                case ChannelClosed():
                    assert link is not None
                    assert link.other is not None
                    assert link.other.closed_by_us or link.closed_by_us
                    if not link.closed_by_us:
                        assert link.received == link.other.sent_on
                    self.withdraw(side)
                    self.forget(side, link)
                case ChannelWritable():
                    assert link is not None
                    assert link.wants_room
                    assert self.sides[side].mux.sendable(link.number) > 0
                    link.wants_room = False
                case RequestSucceeded() | RequestFailed():
                    assert link is not None
                    number, token = link.requests.popleft()
                    assert event.request_id == number
                    assert self.decided.pop(token) == isinstance(event, RequestSucceeded)
                case GlobalSucceeded() | GlobalFailed():
                    number, token = self.globals[side].popleft()
                    assert event.request_id == number
                    assert self.decided.pop(token) == isinstance(event, GlobalSucceeded)
                case _:
                    pytest.fail(f"unexpected {event}")

    def forget(self, side: int, link: Link) -> None:
        del self.links[side][link.number]
        self.gone[side].add(link.number)
        assert link.number not in self.sides[side].mux.channels

    @invariant()
    def windows(self) -> None:
        for side in (0, 1):
            for number, link in self.links[side].items():
                channel = self.sides[side].mux._channels[number]
                assert 0 <= channel.send_window <= MAX_WINDOW
                assert 0 <= channel.receive_window <= MAX_WINDOW
                assert channel.unread == link.unread
                if channel.state is not ChannelState.CLOSE_OUT:
                    assert channel.receive_window + channel.unread + channel.consumed == link.window
                assert channel.receive_window <= link.window
                # Who waits to send is not forgotten.
                if link.wants_room and link.open:
                    assert channel.waiting
                    room = self.sides[side].outlet.free
                    assert (
                        not channel.send_window or not room or number in (self.sides[side].mux._registry.blocked or ())
                    )

    @invariant()
    def no_channel_is_left_over(self) -> None:
        for side in (0, 1):
            asked = {q.channel for at, q in self.questions if at == side and isinstance(q, ChannelOpenRequested)}
            assert set(self.sides[side].mux.channels) == set(self.links[side]) | asked

    def teardown(self) -> None:
        """Whatever happened: everything can be ended, and then nothing is left."""
        if not hasattr(self, "pair"):
            return
        for side in (0, 1):
            self.sides[side].outlet.free = 1 << 20
        for _ in range(4):
            for side in (0, 1):
                self.deliver(side, 10**6)
            while self.questions:
                self.answer(0, self.counter % 2 == 0, 10, 10)
        assert self.globals == [deque(), deque()]
        for index, link in enumerate([*self.links[0].values(), *self.links[1].values()]):
            assert link.open or link.closed_by_us
            assert not link.requests or link.closed_by_us
            if index % 3 and not link.closed_by_us:
                self.sides[link.side].mux.close_channel(link.number)
                link.closed_by_us = True
                self.withdraw(link.side)
        for _ in range(2):
            for side in (0, 1):
                self.deliver(side, 10**6)
        for link in [*self.links[0].values(), *self.links[1].values()]:
            if not link.closed_by_us:
                self.sides[link.side].mux.close_channel(link.number)
                link.closed_by_us = True
        for _ in range(2):
            for side in (0, 1):
                self.deliver(side, 10**6)
        for side in self.sides:
            registry = side.mux._registry
            assert side.mux.channels == ()
            assert not registry.peer_numbers
            assert not registry.blocked
            assert not registry.late
            assert (registry.by_us, registry.asked, registry.sessions) == (0, 0, 0)
            assert not side.outlet.owed or all(isinstance(q, GlobalRequested) for q in side.outlet.owed.values())


@pytest.mark.covers("R84", "R89", "R95", "R97", "P13", "P17", "P20")
def test_machine(make_pair: Any) -> None:
    class Joined(Machine):
        pair_class = make_pair

    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Joined,
        settings=settings(
            max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
