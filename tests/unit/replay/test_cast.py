"""Recordings of terminal sessions: what each event becomes, in time, and always something that players take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto import events as ev
from sshproto.channels.requests import (
    Env,
    Exec,
    ExitSignal,
    ExitStatus,
    PtyRequest,
    Session,
    Shell,
    Subsystem,
    WindowChange,
)
from sshproto.replay.cast import Cast
from sshproto.replay.channels import Channels
from sshproto.replay.events import Observed, Side
from tests.support import asciicast

CLIENT, SERVER = Side.DIALLER, Side.DIALLED


class Tape:
    """Events by hand, each a second after the other, and the lines that come of them."""

    def __init__(self, *requests, **options):
        self.lines = ""
        self.time = 1000.0
        self.cast = Cast(SERVER, **options)
        self.channels = Channels(tell=self.take)
        self.say(CLIENT, ev.ChannelOpenRequested(id=1, channel=0, kind=Session()))
        self.say(SERVER, ev.ChannelOpened(0))
        for request in requests:
            self.say(CLIENT, ev.ChannelRequested(id=2, channel=0, request=request, want_reply=False))

    def take(self, channel, seen):
        self.lines += self.cast.add(channel, seen)

    def say(self, side, event, *, after=1.0):
        self.time += after
        self.channels.add(Observed(side=side, time=self.time, frames=(), event=event))
        return self

    def out(self, data, stream=0, **options):
        return self.say(SERVER, ev.DataReceived(0, data, stream), **options)

    def typed(self, data, **options):
        return self.say(CLIENT, ev.DataReceived(0, data), **options)

    def tell(self, notice, **options):
        return self.say(CLIENT, ev.ChannelNotified(0, notice), **options)

    @property
    def found(self):
        return asciicast.read((self.lines + self.cast.finish(self.channels.all[0])).encode("ascii"))

    @property
    def events(self):
        return self.found[1]


PTY = PtyRequest("vt100", 90, 25)


def test_the_header():
    tape = Tape(Env("LANG", b"C"), PTY, Shell(), idle=2.5, title="work")
    head, _ = tape.out(b"$ ").found
    assert head == {
        "version": 3,
        "term": {"cols": 90, "rows": 25, "type": "vt100"},
        "timestamp": 1005,
        "idle_time_limit": 2.5,
        "title": "work",
        "env": {"LANG": "C"},
    }
    assert not tape.cast.assumed


def test_a_command_and_a_subsystem():
    assert Tape(PTY, Exec(b"top \xff")).found[0]["command"] == "top \ufffd"
    assert Tape(Subsystem("sftp")).found[0]["command"] == "sftp"
    assert "command" not in Tape(PTY, Shell()).found[0]


@pytest.mark.parametrize(("columns", "rows"), [(0, 0), (80, 0), (0, 24), (65536, 24), (80, 2**32 - 1)])
def test_a_size_that_says_nothing(columns, rows):
    tape = Tape(PtyRequest("vt100", columns, rows), Shell()).out(b"x").tell(WindowChange(columns, rows))
    head, events = tape.found
    assert head["term"] == {"cols": 80, "rows": 24, "type": "vt100"}
    assert tape.cast.assumed
    assert events == [(2.0 - 1.0, "o", "x")]


def test_a_size_before_anything_was_shown():
    head, events = Tape(PTY, Shell()).tell(WindowChange(100, 50)).out(b"x").found
    assert head["term"]["cols"] == 100
    assert [code for _, code, _ in events] == ["o"]


def test_times_are_since_the_event_before():
    tape = Tape(PTY, Shell()).out(b"a", after=0.25).tell(WindowChange(1, 2), after=0.5).out(b"b", after=0.125)
    assert tape.tell(ExitStatus(0), after=2).events == [
        (0.25, "o", "a"),
        (0.5, "r", "1x2"),
        (0.125, "o", "b"),
        (2.0, "x", "0"),
    ]


def test_rounding_does_not_add_up():
    tape = Tape(PTY, Shell())
    for _ in range(3000):
        tape.out(b"x", after=1 / 3)
    assert asciicast.at(tape.events)[-1][0] == pytest.approx(1000, abs=1e-5)


def test_time_never_goes_back():
    tape = Tape(PTY, Shell()).out(b"a").out(b"b", after=-5).out(b"c", after=5.5)
    assert tape.events == [(1.0, "o", "a"), (0.0, "o", "b"), (0.5, "o", "c")]


def test_very_short_intervals_are_plain_numbers():
    tape = Tape(PTY, Shell()).out(b"a").out(b"b", after=0.000019)
    assert tape.lines.endswith('[0.000019, "o", "b"]\n')


def test_no_time_at_all():
    channels = Channels(tell=lambda channel, seen: lines.append(cast.add(channel, seen)))
    cast, lines = Cast(SERVER), list[str]()
    for event in (ev.ChannelOpenRequested(id=1, channel=0, kind=Session()), ev.DataReceived(0, b"x")):
        channels.add(Observed(side=SERVER, time=None, frames=(), event=event))
    head, events = asciicast.read("".join(lines).encode())
    assert "timestamp" not in head
    assert events == [(0.0, "o", "x")]


# ----------------------------------------------------------------------------------------------------------------- text


def test_a_character_that_was_cut():
    tape = Tape(PTY, Shell())
    for byte in "ä€😀".encode():
        tape.out(bytes((byte,)))
    assert tape.events == [(2.0, "o", "ä"), (3.0, "o", "€"), (4.0, "o", "😀")]


def test_what_is_no_utf_8():
    assert Tape(PTY, Shell()).out(b"a\xffb").events == [(1.0, "o", "a\ufffdb")]
    assert Tape(PTY, Shell()).out(b"a\xe2\x82").events == [(1.0, "o", "a"), (0.0, "o", "\ufffd")]


def test_streams_are_decoded_apart():
    tape = Tape(PTY, Shell()).out(b"\xc3").out(b"\xc3", 1).out(b"\xa4").out(b"\xb6", 1)
    assert [data for _, _, data in tape.events] == ["ä", "ö"]


def test_lines_without_a_terminal_begin_at_the_left():
    tape = Tape(Exec(b"ls")).out(b"a\nb\r\nc\r").out(b"\nd\n").out(b"e\n", 1)
    assert [data for _, _, data in tape.events] == ["a\r\nb\r\nc\r", "\nd\r\n", "e\r\n"]
    assert tape.found[0]["term"] == {"cols": 80, "rows": 24}
    assert tape.cast.assumed


def test_lines_of_a_terminal_stay_as_they_are():
    assert Tape(PTY, Shell()).out(b"a\nb\r\n").events == [(1.0, "o", "a\nb\r\n")]


def test_a_terminal_type_that_is_no_text():
    assert Tape(PtyRequest("vt\udcff"), Shell()).found[0]["term"]["type"] == "vt\ufffd"


# ---------------------------------------------------------------------------------------------------------------- input


def test_what_was_typed_is_left_out():
    tape = Tape(PTY, Shell()).out(b"Password: ").typed(b"secret\r").out(b"\r\n")
    assert tape.events == [(1.0, "o", "Password: "), (2.0, "o", "\r\n")]
    assert "secret" not in tape.lines


def test_what_was_typed():
    tape = Tape(PTY, Shell(), keys=True).typed(b"l").out(b"l").typed(b"\xc3").typed(b"\xa4")
    assert tape.events == [(1.0, "i", "l"), (1.0, "o", "l"), (2.0, "i", "ä")]


# ------------------------------------------------------------------------------------------------------------------ end


def test_the_exit_status_comes_last():
    tape = Tape(PTY, Shell()).out(b"a").tell(ExitStatus(7)).tell(ExitStatus(8)).out(b"late")
    assert tape.events == [(1.0, "o", "a"), (3.0, "o", "late"), (0.0, "x", "7")]


@pytest.mark.parametrize(("name", "status"), [("TERM", "143"), ("KILL", "137"), ("odd@example.com", "128")])
def test_a_signal(name, status):
    tape = Tape(PTY, Shell()).tell(ExitSignal(name))
    assert tape.events == [(1.0, "m", f"ended by signal {name}"), (0.0, "x", status)]


def test_nothing_happened():
    head, events = Tape(PTY, Shell()).found
    assert head["term"]["cols"] == 90
    assert events == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from([CLIENT, SERVER]),
            st.binary(min_size=1, max_size=8),
            st.integers(0, 2),
            st.floats(-1, 1e6, allow_nan=False),
        ),
        max_size=8,
    ),
    st.booleans(),
    st.text(max_size=5),
)
def test_whatever_comes_it_is_a_recording(parts, keys, title):
    tape = Tape(PTY, Shell(), keys=keys, title=title)
    for side, data, stream, after in parts:
        tape.say(side, ev.DataReceived(0, data, stream), after=after)
    _, events = tape.found
    for code, side in (("o", SERVER), ("i", CLIENT)):
        if keys or code == "o":
            sizes = sum(len(data) for who, data, _, _ in parts if who is side)
            assert sum(len(text.encode()) for _, kind, text in events if kind == code) <= 3 * sizes
