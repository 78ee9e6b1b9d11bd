"""Windows that grow: over a long line in virtual time, and rule by rule."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sshproto import events as ev
from sshproto.channels import requests as r
from sshproto.channels.windows import STEP
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.support.pair import HOST_KEY, End, Pair, client_answers

KIB = 1024
FAST = Preferences(kex=("curve25519-sha256",), cipher=("aes128-gcm@openssh.com",))


# -------------------------------------------------------------------------------------------------------------- a line


@attrs.define
class Line:
    """One stream over a line with a delay and a rate, in virtual time.

    Attributes:
        rate: Bytes a second that the line takes.
        reads: Bytes a second that the reader takes; None for all that comes.
        limits: The reader's.
        upload: The server reads, not the client.
        named: The window that the reader names.
    """

    rate: float
    limits: Limits
    reads: float | None = None
    upload: bool = False
    named: int | None = None
    delay: float = 0.05
    tick: float = 0.005
    sent: int = 0
    held: int = 0
    """Ticks in which the sender had to wait for its window."""
    widest: int = 0
    most_unread: int = 0

    def run(self, seconds: float) -> Line:
        pair = self.opened()
        reader, sender = (pair.server, pair.client) if self.upload else (pair.client, pair.server)
        assert reader.conn.channels == sender.conn.channels == (0,)
        channel = reader.conn._engine.mux._channels[0]
        reader.auto_credit = self.reads is None
        until, allowance = pair.now + seconds, 0.0
        while pair.now < until:
            room = min(sender.conn.sendable(0), int(self.rate * self.tick))
            self.held += room < int(self.rate * self.tick)
            self.sent += sender.conn.send(0, bytes(room))
            if self.reads is not None:
                allowance = min(allowance + self.reads * self.tick, channel.unread)
                reader.conn.credit(0, int(allowance))
                allowance -= int(allowance)
            step(pair)
            self.widest = max(self.widest, channel.offered)
            self.most_unread = max(self.most_unread, channel.unread)
            assert channel.receive_window + channel.unread + channel.consumed == channel.offered
            pair.now += self.tick
        return self

    def opened(self) -> Pair:
        """One session of the client, on channel 0."""

        def accept(conn: Any, question: ev.Question) -> None:
            if isinstance(question, ev.ChannelOpenRequested):
                conn.accept_channel(question, window=self.named if self.upload else None)
            else:
                conn.accept_auth(question)

        def log_in(conn: Any, question: ev.Question) -> None:
            if isinstance(question, ev.CredentialNeeded):
                conn.auth_none(question)
            else:
                client_answers(conn, question)

        pair = Pair.make(
            ClientConfig(user="alice", preferences=FAST, limits=self.limits, debug_raise=True),
            ServerConfig(
                host_keys=(HOST_KEY,),
                preferences=FAST,
                limits=self.limits,
                ask_none=True,
                auth_methods=(),
                debug_raise=True,
            ),
            latency=self.delay,
            client_answer=log_in,
            server_answer=accept,
        ).login()
        pair.client.conn.open_channel(r.Session(), window=None if self.upload else self.named)
        pair.run()
        return pair


def step(pair: Pair) -> None:
    """Let what is due at this moment arrive, and no more."""
    ends: list[tuple[End, End]] = [(pair.client, pair.server), (pair.server, pair.client)]
    for end, peer in ends:
        while end.flight and end.flight[0][0] <= pair.now:
            end.conn.receive_data(end.flight.popleft()[1], pair.now)
        if data := end.drain():
            peer.flight.append((pair.now + pair.latency, data))


# A line of 10 MB/s and 100 ms has 1 MB in flight; the window that it begins with lets a sixteenth of that through.
SMALL = Limits(window=64 * KIB, window_max=4096 * KIB, window_pool=8192 * KIB)
RATE = 10e6
UPLOAD = pytest.mark.parametrize("upload", [False, True], ids=["download", "upload"])


@UPLOAD
def test_a_fast_reader_fills_a_long_line(upload: bool) -> None:
    line = Line(RATE, SMALL, upload=upload).run(2.0)
    assert line.sent > RATE * 2.0 * 0.6  # it takes a while to grow
    assert line.held < 0.5 * 2.0 / line.tick
    assert 1024 * KIB < line.widest <= 4096 * KIB
    stiff = Line(RATE, attrs.evolve(SMALL, window_max=0), upload=upload).run(2.0)
    assert stiff.widest == 64 * KIB
    assert stiff.sent < line.sent / 8


def test_growth_stops_when_the_line_is_full() -> None:
    """Three round trips' worth are enough, and what was doubled to get there."""
    line = Line(RATE, attrs.evolve(SMALL, window_max=2**31 - 1, window_pool=2**31)).run(3.0)
    assert line.widest < 6 * RATE * 0.1


def test_a_window_stops_at_its_maximum() -> None:
    line = Line(RATE, attrs.evolve(SMALL, window_max=300 * KIB)).run(1.5)
    assert line.widest == 300 * KIB


@UPLOAD
@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.3])
def test_a_slow_reader_never_makes_a_window_grow(upload: bool, share: float) -> None:
    """It reads a share of what its window would let through."""
    line = Line(RATE, SMALL, reads=share * 64 * KIB / 0.1, upload=upload).run(3.0)
    assert line.widest == 64 * KIB
    assert line.most_unread <= 64 * KIB


def test_a_slow_sender_never_makes_a_window_grow() -> None:
    line = Line(200e3, SMALL).run(3.0)
    assert line.widest == 64 * KIB
    assert line.held == 0


def test_a_short_line_never_makes_a_window_grow() -> None:
    line = Line(2e6, SMALL, delay=0.001, tick=0.001).run(1.0)
    assert line.widest == 64 * KIB
    assert line.held == 0


@UPLOAD
def test_a_named_window_stays_as_it_is(upload: bool) -> None:
    assert Line(RATE, SMALL, upload=upload, named=50_000).run(1.0).widest == 50_000


# -------------------------------------------------------------------------------------------------------- rule by rule

LIMITS = Limits(window=1000, window_max=6000, window_pool=10_000, window_floor=100)


@attrs.define
class Reader:
    """A multiplexer whose application reads, and the peer's data for it."""

    side: Any

    def open(self, *, after: float = 0.1) -> int:
        """A session of ours, confirmed ``after`` some seconds."""
        number: int = self.side.mux.open_channel(r.Session())
        self.side.outlet.now += after
        self.side.feed(m.ChannelOpenConfirmation(number, 50 + number, 1000, 1000))
        self.side.take()
        return number

    def channel(self, number: int) -> Any:
        return self.side.mux._channels[number]

    @property
    def windows(self) -> Any:
        return self.side.mux._registry.windows

    def pass_window(self, number: int, seconds: float) -> list[int]:
        """A whole window of data comes and is read. Returns what was given back."""
        left = self.channel(number).offered
        self.side.outlet.now += seconds
        given: list[int] = []
        while left:
            size = min(left, 100, self.channel(number).receive_window)
            self.side.feed(m.ChannelData(number, bytes(size)))
            left -= size
            self.side.mux.credit(number, size)
            given += [message.bytes_to_add for message in self.side.take()]
        return given


@pytest.fixture
def make_reader(make_side: Any) -> Callable[..., Reader]:
    return lambda limits=LIMITS, role=Role.CLIENT: Reader(make_side(role, limits))


def test_it_doubles_when_used_up_in_less_than_three_round_trips(make_reader: Any) -> None:
    reader = make_reader()
    number = reader.open(after=0.1)
    assert reader.windows.round_trip == pytest.approx(0.1)
    assert reader.pass_window(number, 0.3) == [500, 500]  # not less
    assert reader.pass_window(number, 0.05) == [500, 1500]
    assert reader.channel(number).offered == reader.windows.promised == 2000
    assert reader.pass_window(number, 0.31) == [1000, 1000]
    assert reader.pass_window(number, 0.29) == [1000, 3000]
    assert reader.pass_window(number, 0.1) == [2000, 4000]  # to the maximum
    assert reader.channel(number).offered == 6000
    assert reader.pass_window(number, 0.1) == [3000, 3000]


@pytest.mark.parametrize(("unread", "given"), [(250, [500, 1500]), (251, [500, 500])])
def test_it_does_not_while_much_waits_to_be_read(make_reader: Any, unread: int, given: list[int]) -> None:
    reader = make_reader()
    number = reader.open()
    for size in (500, 500 + unread):
        reader.side.feed(m.ChannelData(number, bytes(size)))
        reader.side.mux.credit(number, 500)
    assert [message.bytes_to_add for message in reader.side.take()] == given


def test_a_time_in_which_nothing_came_is_no_reason(make_reader: Any) -> None:
    """What counts is how long a whole window took, not its last part."""
    reader = make_reader()
    number = reader.open()
    for _ in range(5):
        for seconds in (1.0, 0.0):
            reader.side.outlet.now += seconds
            reader.side.feed(m.ChannelData(number, bytes(500)))
            reader.side.mux.credit(number, 500)
    assert reader.channel(number).offered == 1000


def test_growth_leaves_something_for_the_next_channel(make_reader: Any) -> None:
    reader = make_reader(attrs.evolve(LIMITS, window_max=100_000))
    first = reader.open()
    for _ in range(6):
        reader.pass_window(first, 0.0)
    assert reader.channel(first).offered == 10_000 * 8 // 9
    assert reader.channel(reader.open()).offered == 1000


def test_what_is_large_gives_way(make_reader: Any) -> None:
    """Half of what was read is kept back at most, and no window becomes smaller than the floor."""
    reader = make_reader(attrs.evolve(LIMITS, window_max=100_000))
    first = reader.open()
    for _ in range(6):
        reader.pass_window(first, 0.0)
    assert reader.channel(first).offered == 8888
    reader.open()
    reader.pass_window(first, 0.0)
    assert reader.channel(first).offered == 8000  # eight times what the second leaves
    named = reader.side.mux.open_channel(r.Session(), window=50_000)
    reader.side.take()
    reader.pass_window(first, 0.0)
    assert 4000 <= reader.channel(first).offered < 8000
    for _ in range(20):
        reader.pass_window(first, 0.0)
    assert reader.channel(first).offered == 100
    assert reader.channel(named).offered == 50_000
    reader.side.feed(m.ChannelOpenFailure(named, 1, "no"))
    for _ in range(10):
        reader.pass_window(first, 0.0)
    assert reader.channel(first).offered == 8000


@pytest.mark.parametrize(("count", "seconds"), [(2, 0.0), (5, 0.0), (20, 0.0), (20, 1.0), (70, 1.0)])
def test_busy_channels_share_alike(make_reader: Any, count: int, seconds: float) -> None:
    """Whoever came first has no more than the others."""
    reader = make_reader(attrs.evolve(LIMITS, window_max=100_000))
    numbers = [reader.open() for _ in range(count)]
    order = random.Random(count)
    for _ in range(60):
        for number in order.sample(numbers, count):
            reader.pass_window(number, seconds)
    windows = [reader.channel(number).offered for number in numbers]
    assert max(windows) <= 10_000 * 8 / (8 * count + 1) * 1.2
    assert min(windows) >= 10_000 * 8 / (8 * count + 1) * 0.8
    assert reader.windows.promised <= 10_000


def test_a_channel_that_came_too_late_grows_when_there_is_room(make_reader: Any) -> None:
    reader = make_reader()
    full = reader.side.mux.open_channel(r.Session(), window=10_000)
    late = reader.open()
    assert reader.channel(late).offered == 100
    assert sum(reader.pass_window(late, 0.0)) == 100
    reader.side.feed(m.ChannelOpenFailure(full, 1, "no"))
    for _ in range(10):
        reader.pass_window(late, 0.0)
    assert reader.channel(late).offered == 6000


def test_nothing_changes_when_the_adjust_cannot_be_sent(make_reader: Any) -> None:
    reader = make_reader()
    number = reader.open()
    reader.side.feed(m.ChannelData(number, bytes(1000)))
    reader.side.outlet.full = True
    reader.side.mux.credit(number, 1000)
    channel = reader.channel(number)
    assert (channel.offered, channel.consumed, channel.receive_window, channel.counted) == (1000, 1000, 0, 0)
    reader.side.outlet.full = False
    reader.side.mux.writable()
    assert [message.bytes_to_add for message in reader.side.take()] == [2000]
    assert channel.offered == reader.windows.promised == 2000


def test_large_windows_are_given_back_in_steps(make_reader: Any) -> None:
    reader = make_reader(Limits(window_pool=1 << 30))
    number = reader.side.mux.open_channel(r.Session(), window=16 * STEP)
    reader.side.feed(m.ChannelOpenConfirmation(number, 50, 1000, 1000))
    reader.side.take()
    for _ in range(STEP // 32768):
        reader.side.feed(m.ChannelData(number, bytes(32768)))
        reader.side.mux.credit(number, 32768)
    assert reader.side.take() == [m.ChannelWindowAdjust(50, STEP)]


def test_a_channel_that_came_too_late_gets_its_window_at_any_speed(make_reader: Any) -> None:
    reader = make_reader()
    full = reader.side.mux.open_channel(r.Session(), window=9900)
    late = reader.open()
    reader.side.feed(m.ChannelOpenFailure(full, 1, "no"))
    for _ in range(10):
        reader.pass_window(late, 3600.0)
    assert reader.channel(late).offered == 1000


def test_all_who_wait_to_send_have_their_turn(make_side: Any) -> None:
    """Each time there is room, another is the first to hear of it."""
    side = make_side(Role.CLIENT, Limits())
    for number in range(3):
        side.mux.open_channel(r.Session())
        side.feed(m.ChannelOpenConfirmation(number, 50 + number, 1 << 20, 1000))
    side.told()
    turns = [0, 1, 2]
    sent = []
    for _ in range(6):
        side.outlet.free = 1000
        side.mux.writable()
        turns = [event.channel for event in side.told()] or turns
        sent += [number for number in turns if side.mux.send(number, bytes(2000))]
    assert sent == [0, 1, 2, 0, 1, 2]


# --------------------------------------------------------------------------------------------------------- round trips


def test_a_round_trip_from_confirmation_to_the_first_request(make_reader: Any) -> None:
    reader = make_reader(role=Role.SERVER)
    side = reader.side
    side.feed(m.ChannelOpen("session", 7, 1000, 1000, b""))
    side.outlet.now = 5.0
    side.mux.accept_channel(side.told()[0])
    side.outlet.now = 5.25
    side.feed(m.ChannelRequest(0, "env", False, b""))
    assert reader.windows.round_trip == 0.25
    side.outlet.now = 5.26
    side.feed(m.ChannelRequest(0, "env", False, b""))
    assert reader.windows.round_trip == 0.25  # it answers nothing


def test_a_round_trip_from_confirmation_to_the_first_data(make_reader: Any) -> None:
    reader = make_reader(role=Role.SERVER)
    side = reader.side
    side.feed(m.ChannelOpen("session", 7, 1000, 1000, b""))
    side.mux.accept_channel(side.told()[0])
    side.outlet.now = 0.5
    side.feed(m.ChannelData(0, bytes(500)))
    side.mux.credit(0, 500)
    assert reader.windows.round_trip == 0.5


def test_a_round_trip_from_a_request_to_its_reply(make_reader: Any) -> None:
    reader = make_reader()
    side = reader.side
    number = reader.open(after=30.0)  # the time of the last input may be long ago
    side.mux.request(number, r.Env("A", b""), want_reply=False)
    side.mux.request(number, r.PtyRequest("vt100"))
    side.outlet.now += 0.1
    side.mux.request(number, r.Shell())  # behind another: its own reply would be the next but one
    side.outlet.now += 0.1
    side.feed(m.ChannelRequest(number, "exit-status", False, bytes(4)))  # nothing to do with it
    assert reader.windows.round_trip == 30.0
    side.feed(m.ChannelSuccess(number))
    assert reader.windows.round_trip == pytest.approx(0.2)
    side.outlet.now += 0.05
    side.feed(m.ChannelSuccess(number))
    assert reader.windows.round_trip == pytest.approx(0.2)
    side.mux.request(number, r.Shell())
    side.outlet.now += 0.15
    side.feed(m.ChannelFailure(number))
    assert reader.windows.round_trip == pytest.approx(0.15)


# ------------------------------------------------------------------------------------------------------------ whatever

OPENS = st.tuples(st.just("open"), st.sampled_from([None, None, None, 0, 700]))
OTHERS = st.tuples(
    st.sampled_from(["data", "read", "data", "read", "close", "full", "free"]),
    st.integers(0, 7),
    st.integers(1, 3000),
)
WAITS = st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.5, 100.0]))


@pytest.mark.covers("B26", "P21")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(st.one_of(OPENS, OTHERS, OTHERS, OTHERS, WAITS), max_size=80))
def test_whatever_happens_the_windows_stay_in_the_pool(make_side: Any, actions: list[Any]) -> None:
    """In any order and at any time: what the peer may send is the sum of the windows, and that is bounded as it was
    before windows could grow."""
    side = make_side(Role.CLIENT, LIMITS)
    reader = Reader(side)
    named = 0
    begun: dict[int, int] = {}
    given: dict[int, int] = {}
    taken: dict[int, int] = {}

    def look() -> None:
        for message in side.take():
            if isinstance(message, m.ChannelWindowAdjust):
                assert message.bytes_to_add > 0
                given[message.recipient_channel - 50] += message.bytes_to_add

    for action in actions:
        channels = list(side.mux._channels)
        match action:
            case ("open", window):
                number = side.mux.open_channel(r.Session(), window=window) if not side.outlet.full else None
                if number is not None:
                    side.feed(m.ChannelOpenConfirmation(number, 50 + number, 1000, 1000))
                    begun[number] = reader.channel(number).offered
                    given[number] = taken[number] = 0
                    named += window or 0
            case ("wait", seconds):
                side.outlet.now += seconds
            case (what, which, size) if channels:
                number = channels[which % len(channels)]
                channel = reader.channel(number)
                match what:
                    case "data" if min(size, channel.receive_window):
                        data = bytes(min(size, channel.receive_window, channel.receive_packet))
                        side.feed(m.ChannelData(number, data))
                    case "read":
                        count = min(size, channel.unread)
                        side.mux.credit(number, count)
                        taken[number] += count
                    case "close" if not side.outlet.full:
                        side.feed(m.ChannelClose(number))
                    case "full":
                        side.outlet.full = True
                    case "free":
                        side.outlet.full = False
                        side.mux.writable()
        before = {number: channel.offered for number, channel in side.mux._channels.items()}
        look()
        registry = side.mux._registry
        assert reader.windows.promised == sum(before.values())
        assert reader.windows.promised <= LIMITS.window_pool + len(begun) * LIMITS.window_floor + named
        for number, channel in registry.channels.items():
            assert channel.receive_window + channel.unread + channel.consumed == channel.offered
            assert channel.offered <= max(begun[number], LIMITS.window_max)
            assert channel.offered >= begun[number] or not channel.elastic or channel.offered >= LIMITS.window
            assert given[number] == taken[number] - channel.consumed + channel.offered - begun[number]
            if not channel.elastic:
                assert channel.offered == begun[number]
