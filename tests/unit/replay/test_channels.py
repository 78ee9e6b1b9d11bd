"""What channels carried: collected from what an observer tells, whole, in part and made up."""

from __future__ import annotations

import json

import pytest

from sshproto import events as ev
from sshproto.channels.requests import (
    DirectTcpip,
    Env,
    Exec,
    ExitSignal,
    ExitStatus,
    PtyRequest,
    Session,
    Shell,
    Signal,
    UnknownRequest,
    WindowChange,
    X11Request,
)
from sshproto.replay import channels as room
from sshproto.replay.channels import Channels, Opening, plain, stream_name
from sshproto.replay.events import (
    Ended,
    Integrity,
    KeysMissing,
    Missing,
    Observed,
    PacketOpened,
    Problem,
    Reopened,
    RolesSeen,
    Side,
)
from sshproto.wire import messages as m
from tests.replay.sessions import data_of, observe, record, session

CLIENT, SERVER = Side.DIALLER, Side.DIALLED


def collect(events, **options):
    channels = Channels(**options)
    for seen in events:
        channels.add(seen)
    return channels


class Script:
    """Events by hand, one second after the other."""

    def __init__(self, **options):
        self.channels = Channels(**options)
        self.time = 0.0

    def say(self, side, event):
        self.time += 1
        self.channels.add(Observed(side=side, time=self.time, frames=(int(self.time),), event=event))
        return self

    def packet(self, side, message):
        return self.say(
            side,
            PacketOpened(
                sequence_number=0,
                epoch=1,
                number=message.number,
                message=message,
                payload=b"",
                offset=0,
                size=0,
                integrity=Integrity.VERIFIED,
            ),
        )

    def open_asked(self, number=0, kind=None):
        return self.say(CLIENT, ev.ChannelOpenRequested(id=1, channel=number, kind=kind or Session()))

    def open(self, number=0, kind=None):
        self.open_asked(number, kind)
        return self.say(SERVER, ev.ChannelOpened(number))

    def ask(self, number, request, *, id=2, want_reply=False):
        return self.say(CLIENT, ev.ChannelRequested(id=id, channel=number, request=request, want_reply=want_reply))


# ------------------------------------------------------------------------------------------------------ whole sessions


def test_a_session_with_two_channels():
    recording = session()
    events = observe(recording.wire, recording.secrets)
    channels = collect(events, keep=1 << 20)
    assert sorted(channels.all) == [0, 1]
    assert channels.client is CLIENT
    assert channels.opened
    assert channels.obstacles == {}
    first, second = channels
    assert isinstance(first.kind, Session)
    assert first.opener is CLIENT
    assert first.opening is Opening.OPENED
    assert first.program == Exec(b"cat")
    assert [(asked.request, asked.granted) for asked in first.requests] == [(Exec(b"cat"), True)]
    assert {key: first.data(*key) for key in first.streams} == {
        (side, stream): data for side in Side for (number, stream), data in data_of(events, side).items() if number == 0
    }
    assert first.data(SERVER, 1) == b"warning" * 30
    assert first.size(SERVER) == len(first.data(SERVER)) + 210
    assert first.size(SERVER, 1) == 210
    assert first.eof == {SERVER}
    assert first.closed == set(Side)
    assert first.complete
    assert second.terminal == PtyRequest("xterm", 80, 24)
    assert isinstance(second.program, Shell)
    assert second.streams == {}
    assert second.closed == set()
    assert second.complete, "the client has disconnected"


def test_numbers_of_both_sides_and_their_use_again():
    script = Script()
    for number in range(2):
        script.packet(CLIENT, m.ChannelOpen("session", 7, 1, 1)).open_asked(number)
        script.packet(SERVER, m.ChannelOpenConfirmation(7, 9, 1, 1)).say(SERVER, ev.ChannelOpened(number))
        script.packet(CLIENT, m.ChannelClose(9))
        if not number:
            script.packet(SERVER, m.ChannelClose(7))
    script.packet(SERVER, m.ChannelClose(1000))
    first, second = script.channels
    assert first.numbers == second.numbers == {CLIENT: 7, SERVER: 9}
    assert first.closed == set(Side)
    assert second.closed == {CLIENT}
    assert second.ended == script.time - 1


def test_one_side_closes():
    recording = record()
    pair = recording.pair.login()
    channel = pair.client.conn.open_channel(Session())
    pair.run()
    pair.client.conn.close_channel(channel)
    heard = len(recording.wire)
    pair.run()
    [found] = collect(observe(recording.wire[: heard + 1], recording.secrets))
    assert found.closed == {CLIENT}
    assert found.missing == ("its end",)


def test_json():
    recording = session()
    channels = collect(observe(recording.wire, recording.secrets))
    first = channels.all[0].as_dict(channels.client)
    assert json.loads(json.dumps(first)) == first
    assert first["channel"] == 0
    assert first["type"] == "session"
    assert first["opened_by"] == "client"
    assert first["numbers"] == {"client": 0, "server": 0}
    assert first["program"] == {"type": "exec", "command": "cat"}
    assert [(each["from"], each["stream"], each["bytes"]) for each in first["streams"]] == [
        ("client", "data", 600),
        ("server", "data", 450),
        ("server", "stderr", 210),
    ]
    assert first["closed"] == ["client", "server"]
    assert first["eof"] == ["server"]
    assert first["complete"] is True
    turned = channels.all[0].as_dict(SERVER)
    assert turned["opened_by"] == "server"
    second = channels.all[1].as_dict()
    assert second["terminal"]["columns"] == 80
    assert [each["type"] for each in second["requests"]] == ["pty-req", "shell"]


# --------------------------------------------------------------------------------------------------------------- bounds


def test_nothing_is_kept_unless_asked_for_and_all_is_told():
    recording = session()
    events = observe(recording.wire, recording.secrets)
    told = []
    channels = collect(events, tell=lambda channel, seen: told.append((channel.number, seen.event)))
    assert all(not each.data for channel in channels for each in channel.streams.values())
    data = b"".join(event.data for number, event in told if number == 0 and isinstance(event, ev.DataReceived))
    assert len(data) == channels.all[0].size(CLIENT) + channels.all[0].size(SERVER)
    assert any(isinstance(event, ev.ChannelOpenRequested) for _, event in told)
    assert any(isinstance(event, ev.RequestSucceeded) for _, event in told)


@pytest.mark.parametrize("keep", [0, 1, 4, 5, 9])
def test_what_is_kept_is_bounded_over_all_channels(keep):
    script = Script(keep=keep).open(0).open(1)
    for number in (0, 1, 0):
        script.say(SERVER, ev.DataReceived(number, b"abcd"))
    kept = [channel.data(SERVER) for channel in script.channels]
    assert sum(map(len, kept)) == keep
    assert b"abcdabcd".startswith(kept[0])
    assert [channel.size(SERVER) for channel in script.channels] == [8, 4]
    assert [channel.streams[SERVER, 0].whole for channel in script.channels] == [False, keep >= 8]


def test_a_stream_is_not_kept_with_a_hole():
    script = Script(keep=6).open(0)
    for _ in range(2):
        script.say(SERVER, ev.DataReceived(0, b"abcd"))
    script.channels._keep = 100  # whatever may be kept later
    script.say(SERVER, ev.DataReceived(0, b"efgh"))
    assert script.channels.all[0].data(SERVER) == b"abcdab"


def test_requests_are_bounded_but_not_the_exit_status(monkeypatch):
    monkeypatch.setattr(room, "_REQUESTS", 4)
    script = Script().open()
    for _ in range(5):
        script.ask(0, Env("A", b"b"))
    script.say(SERVER, ev.ChannelNotified(0, ExitStatus(7)))
    script.say(SERVER, ev.ChannelNotified(0, ExitStatus(8)))
    channel = script.channels.all[0]
    assert [asked.request for asked in channel.requests] == [*[Env("A", b"b")] * 3, ExitStatus(7)]
    assert channel.more_requests == 3
    assert channel.exit == ExitStatus(7)


def test_text_is_bounded(monkeypatch):
    monkeypatch.setattr(room, "_TEXT", 100)
    script = Script().open().ask(0, Exec(b"x" * 101)).ask(0, Exec(b"y" * 99))
    assert [asked.request for asked in script.channels.all[0].requests] == [Exec(b"y" * 99)]


def test_channels_are_bounded(monkeypatch):
    monkeypatch.setattr(room, "_CHANNELS", 2)
    script = Script().open(0).open(1).open(2)
    script.say(SERVER, ev.DataReceived(2, b"lost"))
    assert sorted(script.channels.all) == [0, 1]
    assert script.channels.more == 1


def test_types_of_extended_data_are_bounded():
    script = Script().open()
    for stream in range(1000):
        script.say(SERVER, ev.DataReceived(0, b"x", stream))
    assert len(script.channels.all[0].streams) <= 64


# ------------------------------------------------------------------------------------------------ what it was


def test_replies_belong_to_their_requests():
    script = Script().open()
    script.ask(0, PtyRequest("vt100", 10, 5), id=2, want_reply=True)
    script.ask(0, Exec(b"one"), id=3, want_reply=True).ask(0, Exec(b"two"), id=4, want_reply=True)
    script.say(SERVER, ev.RequestFailed(0, 2)).say(SERVER, ev.RequestFailed(0, 3)).say(
        SERVER, ev.RequestSucceeded(0, 4)
    )
    script.say(SERVER, ev.RequestSucceeded(0, 77))
    channel = script.channels.all[0]
    assert [asked.granted for asked in channel.requests] == [False, False, True]
    assert channel.terminal is None, "it was refused"
    assert channel.program == Exec(b"two")


def test_what_was_refused_is_complete():
    script = Script().say(CLIENT, ev.ChannelOpenRequested(id=1, channel=0, kind=DirectTcpip("h", 80)))
    script.say(SERVER, ev.ChannelOpenFailed(0, 2, "no way"))
    channel = script.channels.all[0]
    assert channel.opening is Opening.REFUSED
    assert channel.complete
    found = channel.as_dict()
    assert found["failure"] == {"code": 2, "reason": "connect_failed", "description": "no way"}
    assert found["target"]["host"] == "h"
    assert found["target"]["port"] == 80


def test_how_a_program_ended():
    script = Script().open().ask(0, Signal("TERM")).say(SERVER, ev.ChannelNotified(0, ExitSignal("TERM")))
    assert script.channels.all[0].as_dict()["exit_signal"] == "TERM"
    script = Script().open().say(SERVER, ev.ChannelNotified(0, ExitStatus(3)))
    assert script.channels.all[0].as_dict()["exit_status"] == 3


def test_environment():
    script = Script().open().ask(0, Env("LANG", b"C")).ask(0, Env("X", b"\xff")).ask(0, WindowChange(1, 2))
    assert script.channels.all[0].environment == {"LANG": "C", "X": "\\xff"}


def test_times():
    script = Script().open()
    for _ in range(2):
        script.say(SERVER, ev.DataReceived(0, b"x"))
    carried = script.channels.all[0].streams[SERVER, 0]
    assert (script.channels.all[0].time, carried.first, carried.last, carried.pieces) == (1.0, 3.0, 4.0, 2)


def test_plain_values_show_no_secret():
    assert plain(X11Request(False, "MIT", "0123", 1)) == {
        "single_connection": False,
        "protocol": "MIT",
        "cookie": "<4 bytes>",
        "screen": 1,
    }
    assert plain(UnknownRequest("odd", b"123")) == {"payload": "<3 bytes>"}


def test_names_of_streams():
    assert [stream_name(number) for number in (0, 1, 5)] == ["data", "stderr", "extended data 5"]


# -------------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    "event",
    [
        Missing(size=9, problem="9 bytes are missing"),
        Problem(problem="the packet has a bad MAC", fatal=True),
        KeysMissing(epoch=2, exact=True, problem="no key is known"),
    ],
)
def test_a_gap_is_of_the_channels_that_are_open(event):
    script = Script().say(CLIENT, RolesSeen(client=CLIENT, sure=True))
    script.say(CLIENT, ev.ChannelOpenRequested(id=1, channel=0, kind=Session()))
    script.say(SERVER, ev.ChannelOpenFailed(0, 1, ""))
    recording = session()
    channels = Channels()
    for seen in observe(recording.wire, recording.secrets):
        if isinstance(seen.event, ev.DataReceived):
            channels.add(Observed(side=SERVER, time=1.0, frames=(), event=event))
        channels.add(seen)
    assert channels.obstacles == {SERVER: event.problem}
    assert channels.all[0].missing == (f"dialled: {event.problem}",)
    assert channels.all[1].missing == (f"dialled: {event.problem}",), "it was opened after the gap"


def test_a_problem_that_does_not_matter_is_no_gap():
    script = Script().open().say(SERVER, Problem(problem="a word", fatal=False))
    assert script.channels.obstacles == {}


def test_late_keys_fill_the_gap():
    script = Script().say(SERVER, KeysMissing(epoch=1, exact=True, problem="no key is known")).open()
    assert not script.channels.all[0].complete
    script.say(SERVER, Reopened(epoch=1)).say(CLIENT, Ended()).say(SERVER, Ended())
    assert script.channels.obstacles == {}
    assert script.channels.all[0].complete


def test_a_recording_that_ends():
    script = Script().say(CLIENT, ev.ChannelOpenRequested(id=1, channel=0, kind=Session()))
    assert script.channels.all[0].missing == ("whether it was opened", "its end")
    script.say(SERVER, ev.ChannelOpened(0))
    assert script.channels.all[0].missing == ("its end",)
    script.say(CLIENT, Ended())
    assert script.channels.all[0].missing == ("its end",)
    script.say(SERVER, Ended())
    assert script.channels.all[0].complete


def test_what_was_never_seen_opened():
    script = Script().say(SERVER, ev.DataReceived(-1, b"x"))
    script.say(SERVER, ev.ChannelNotified(-1, ExitStatus(1)))
    assert script.channels.all[-1].size(SERVER) == 1
    assert script.channels.all[-1].missing == ("its beginning", "its end")
    assert script.channels.all[-1].as_dict()["type"] is None
