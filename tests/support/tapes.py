"""Connections of our own, made in memory at times that a test chooses, as capture files have them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sshproto.channels.requests import (
    Env,
    Exec,
    ExitStatus,
    PtyRequest,
    Session,
    Shell,
    WindowChange,
)
from sshproto.replay.events import Side
from tests.replay.sessions import Recording, record
from tests.support import captures
from tests.support.captures import CLIENT, SERVER, Record, Talk

START = 1_700_000_000
"""When connections begin, in seconds since 1970."""

_SEGMENT = 1400


class Show:
    """A connection that is logged in, and when which piece of it went over the wire."""

    def __init__(self, **options: Any) -> None:
        self.recording: Recording = record(**options)
        self.pair = self.recording.pair
        self.times: list[float] = []
        self.pair.login()
        self.run()

    @property
    def client(self) -> Any:
        return self.pair.client.conn

    @property
    def server(self) -> Any:
        return self.pair.server.conn

    @property
    def key_log(self) -> bytes:
        return "".join(f"{line}\n" for line in self.recording.key_log).encode()

    def run(self) -> Show:
        """Let both ends do what they can now."""
        self.pair.run()
        self.times += [self.pair.now] * (len(self.recording.wire) - len(self.times))
        return self

    def wait(self, seconds: float) -> Show:
        self.pair.now += seconds
        return self

    def open(self, kind: Any = None) -> int:
        channel: int = self.client.open_channel(kind or Session())
        self.run()
        return channel

    def ask(self, channel: int, *requests: Any) -> Show:
        """Requests of the client."""
        for request in requests:
            self.client.request(channel, request, want_reply=not request.notice)
        return self.run()

    def type(self, channel: int, data: bytes) -> Show:
        self.client.send(channel, data)
        return self.run()

    def print(self, channel: int, data: bytes, stream: int = 0) -> Show:
        self.server.send(channel, data, stream)
        return self.run()

    def exit(self, channel: int, how: Any = None) -> Show:
        """The program ends, and so does the channel."""
        self.server.request(channel, how or ExitStatus(0), want_reply=False)
        self.server.send_eof(channel)
        self.server.close_channel(channel)
        return self.run()

    def bye(self) -> Show:
        self.client.disconnect("bye")
        return self.run()

    def segments(self, number: int = 1, *, lost: Collection[int] = ()) -> list[Record]:
        """Its packets.

        Args:
            number: Of which connection of the capture: each has a port of its own, and a time.
            lost: Indexes of pieces of the wire that were not captured.
        """
        port = 40000 + number
        ends = CLIENT + SERVER + port.to_bytes(2, "big") + (22).to_bytes(2, "big")
        back = SERVER + CLIENT + (22).to_bytes(2, "big") + port.to_bytes(2, "big")
        talk = Talk(flows=(ends, back)).dial()
        stamps = [0.0] * 3
        gone: set[int] = set()
        for index, ((side, data), time) in enumerate(zip(self.recording.wire, self.times, strict=True)):
            for start in range(0, len(data), _SEGMENT):
                if index in lost:
                    gone.add(len(talk.segments))
                talk.send(int(side is Side.DIALLED), data[start : start + _SEGMENT])
                stamps.append(time)
        talk.hang_up()
        stamps += [self.pair.now] * 3
        packets = zip(talk.records(), stamps, strict=True)
        begin = START + 1000 * (number - 1)
        return [
            (int((begin + time) * 1_000_000) * 1000, packet)
            for index, ((_, packet), time) in enumerate(packets)
            if index not in gone
        ]


def tape(
    *shows: Show, key_log: bool = True, form: str = "pcapng", lost: Collection[int] = (), late: bool = False
) -> bytes:
    """A capture of connections, one after the other.

    Args:
        shows: The connections.
        key_log: It has the keys inside; pcap can't.
        form: ``"pcapng"`` or ``"pcap"``.
        lost: See :meth:`Show.segments`.
        late: The keys stand at the end.
    """
    records = [each for number, show in enumerate(shows, 1) for each in show.segments(number, lost=lost)]
    if form == "pcap":
        return captures.pcap(records)
    keys = captures.secrets(b"".join(show.key_log for show in shows)) if key_log else b""
    data = captures.pcapng(records)
    head = len(captures.section())
    return data + keys if late else data[:head] + keys + data[head:]


def shell(**options: Any) -> Show:
    """A user at a terminal, one second a step from 10 seconds on: a prompt, two keys, a resize, an umlaut that is cut
    in two, the end."""
    show = Show(**options)
    channel = show.open()
    show.wait(10).ask(channel, Env("LANG", b"C.UTF-8"), PtyRequest("xterm", 100, 30), Shell())
    show.wait(1).print(channel, b"$ ")
    for key in (b"l", b"s"):
        show.wait(1).type(channel, key).wait(0.25).print(channel, key)
    show.wait(1).ask(channel, WindowChange(120, 40))
    show.wait(1).print(channel, "\r\nB\u00e4r\r\n".encode()[:4]).wait(1).print(channel, "\r\nB\u00e4r\r\n".encode()[4:])
    show.wait(1).exit(channel, ExitStatus(3))
    return show.bye()


def command(line: bytes = b"make", **options: Any) -> Show:
    """A command without a terminal: output, errors, a failure."""
    show = Show(**options)
    channel = show.open()
    show.ask(channel, Exec(line)).wait(1).type(channel, b"input")
    show.wait(1).print(channel, b"one\ntwo\n").print(channel, b"oops\n", 1)
    return show.wait(1).exit(channel, ExitStatus(2)).bye()
