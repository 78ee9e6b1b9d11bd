"""One lively session on the in-memory pair, with both applications reacting to events only.

Each end is then a pure function of the bytes that reach it, so whatever happens on the wire in between (chunking,
latency) must leave the events and the output of both ends as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from sshproto import events as ev
from sshproto.channels.requests import Exec, ExitStatus, Session
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig
from tests.support.pair import HOST_KEY, Chunker, Pair, seeded, whole

UPLOAD = bytes(range(256)) * 300
DOWNLOAD = bytes(reversed(range(256))) * 200
ERRORS = b"warning: all is well\n"


class Tape:
    """An oracle that records in its first run and replays in all later ones."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def recorder(self) -> Callable[[str, Callable[[], bytes]], bytes]:
        def oracle(label: str, compute: Callable[[], bytes]) -> bytes:
            self.values.append(compute())
            return self.values[-1]

        return oracle

    def player(self) -> Callable[[str, Callable[[], bytes]], bytes]:
        values = iter(self.values)
        return lambda label, compute: next(values)


@attrs.define
class Outbox:
    """Data that an application still has to send on a channel."""

    data: bytes
    stream: int = 0

    def push(self, conn: Any, channel: int) -> bool:
        """Send what goes; True when all is sent."""
        if self.data:
            taken = conn.send(channel, self.data, self.stream)
            self.data = self.data[taken:]
        return not self.data


class ClientApp:
    """Opens a session, runs a command, uploads, rekeys in the middle, ends the connection when the command has."""

    def __init__(self, *, rekey: bool = True) -> None:
        self.outbox = Outbox(UPLOAD)
        self.rekey = rekey
        self.eof = False
        self.received = 0

    def __call__(self, conn: Any, event: ev.Event) -> None:
        if isinstance(event, ev.AuthSucceeded):
            conn.open_channel(Session(), window=16_000, max_packet=9_000)
        elif isinstance(event, ev.ChannelOpened) and event.channel == 0:
            conn.request(event.channel, Exec(b"transform"))
        elif isinstance(event, (ev.RequestSucceeded, ev.ChannelWritable)) and event.channel == 0:
            if self.outbox.push(conn, event.channel) and not self.eof:
                self.eof = True
                conn.send_eof(event.channel)
        elif isinstance(event, ev.DataReceived):
            self.received += len(event.data)
            if self.rekey and self.received > 20_000:
                self.rekey = False
                conn.rekey()
        elif isinstance(event, ev.ChannelClosed) and event.channel == 0:
            conn.disconnect("all done")


class ServerApp:
    """Runs every command: reads all of its input, then answers with output, errors and an exit status."""

    def __init__(self) -> None:
        self.boxes: dict[int, list[Outbox]] = {}

    def __call__(self, conn: Any, event: ev.Event) -> None:
        if isinstance(event, ev.EofReceived):
            self.boxes[event.channel] = [Outbox(ERRORS, 1), Outbox(DOWNLOAD)]
            self.push(conn, event.channel)
        elif isinstance(event, ev.ChannelWritable):
            self.push(conn, event.channel)

    def push(self, conn: Any, channel: int) -> None:
        boxes = self.boxes.get(channel)
        if boxes is None:
            return
        while boxes and boxes[0].push(conn, channel):
            boxes.pop(0)
        if not boxes:
            del self.boxes[channel]
            conn.request(channel, ExitStatus(0), want_reply=False)
            conn.send_eof(channel)
            conn.close_channel(channel)


def make(
    *,
    tape: Tape | None = None,
    replay: bool = False,
    chunker: Chunker = whole,
    preferences: Preferences | None = None,
    limits: Limits | None = None,
    rekey: bool = True,
    latency: float = 0.0,
) -> Pair:
    """A pair that will run the whole session by :meth:`Pair.run`, the same each time.

    Args:
        tape: What the crypto backend randomises by itself.
        replay: Play the tape instead of recording it.
        chunker, latency: See :class:`Pair`.
        preferences: Of both ends.
        limits: Of both ends.
        rekey: Whether the client rekeys in the middle.
    """
    tape = tape or Tape()
    oracle = tape.player() if replay else tape.recorder()
    common: dict[str, Any] = {
        "preferences": preferences or Preferences(),
        "limits": limits or Limits(),
        "oracle": oracle,
        "debug_raise": True,
    }
    pair = Pair.make(
        ClientConfig(user="alice", entropy=seeded("client"), **common),
        ServerConfig(host_keys=(HOST_KEY,), entropy=seeded("server"), **common),
        chunker=chunker,
        latency=latency,
    )
    pair.client.react = ClientApp(rekey=rekey)
    pair.server.react = ServerApp()
    return pair


def check_complete(pair: Pair) -> None:
    """The session did all that it should have done."""
    client, server = pair.client, pair.server
    assert bytes(server.data[0, 0]) == UPLOAD
    assert bytes(client.data[0, 0]) == DOWNLOAD
    assert bytes(client.data[0, 1]) == ERRORS
    assert any(isinstance(event.notice, ExitStatus) for event in client.of(ev.ChannelNotified))
    assert len(client.of(ev.ConnectionLost)) == len(server.of(ev.ConnectionLost)) == 1
    assert isinstance(client.events[-1], ev.ConnectionLost)
    assert isinstance(server.events[-1], ev.ConnectionLost)
