"""Sessions of our own, made in memory, as somebody sees them who taps the wire; and what an observer tells of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from sshproto import events as ev
from sshproto.channels.requests import Exec, PtyRequest, Session, Shell
from sshproto.config import ClientConfig, Preferences, ServerConfig
from sshproto.replay.events import Missing, Observed, PacketOpened, Problem, Side
from sshproto.replay.observer import Observer
from sshproto.replay.secrets import Secrets
from sshproto.transport.packets import Opener, Sealer
from tests.support.pair import HOST_KEY, Pair, client_answers, seeded, server_answers, whole

Wire = list[tuple[Side, bytes]]


@attrs.define
class Recording:
    """What went over a wire.

    Attributes:
        wire: Pieces, in the order in which they were sent.
        key_log: Lines.
        pair: Both ends.
        drawn: What each end has drawn of its entropy: what for, and the bytes.
    """

    wire: Wire
    key_log: list[str]
    pair: Pair
    drawn: dict[Side, list[tuple[str, bytes]]]

    def drawn_for(self, side: Side, label: str) -> list[bytes]:
        return [value for each, value in self.drawn[side] if each == label]

    @property
    def sides(self) -> dict[Side, bytes]:
        return {side: b"".join(data for sender, data in self.wire if sender is side) for side in Side}

    @property
    def secrets(self) -> Secrets:
        return secrets(*self.key_log)

    def payloads(self, side: Side) -> list[bytes]:
        """What a side has sent, as the other side's opener would give it: asked of a run with the right keys."""
        return [event.payload for event in told(observe(self.wire, self.secrets), PacketOpened, side)]


def secrets(*lines: str) -> Secrets:
    found = Secrets()
    found.add_key_log("\n".join(lines))
    return found


def record(
    client: ClientConfig | None = None,
    server: ServerConfig | None = None,
    *,
    preferences: Preferences | None = None,
    server_preferences: Preferences | None = None,
    client_answer: Any = client_answers,
    server_answer: Any = server_answers,
) -> Recording:
    """A pair whose wire is tapped; it has not started. The configurations get a key log and seeded entropy."""
    lines: list[str] = []
    common: dict[str, Any] = {"preferences": preferences or Preferences(), "debug_raise": True}
    client = client or ClientConfig(user="alice", **common)
    server = server or ServerConfig(
        host_keys=(HOST_KEY,), **{**common, "preferences": server_preferences or common["preferences"]}
    )
    drawn: dict[Side, list[tuple[str, bytes]]] = {side: [] for side in Side}
    pair = Pair.make(
        attrs.evolve(client, key_log=lines.append, entropy=_overheard("client", drawn[Side.DIALLER])),
        attrs.evolve(server, entropy=_overheard("server", drawn[Side.DIALLED])),
        client_answer=client_answer,
        server_answer=server_answer,
    )
    wire: Wire = []

    def tap(side: Side) -> Any:
        def chunker(data: bytes) -> Iterable[bytes]:
            wire.append((side, data))
            return whole(data)

        return chunker

    pair.client.chunker, pair.server.chunker = tap(Side.DIALLED), tap(Side.DIALLER)
    return Recording(wire, lines, pair, drawn)


def _overheard(seed: str, drawn: list[tuple[str, bytes]]) -> Callable[[int, str], bytes]:
    source = seeded(seed)

    def entropy(count: int, label: str) -> bytes:
        value = source(count, label)
        drawn.append((label, value))
        return value

    return entropy


def session(*, rekeys: str = "", **options: Any) -> Recording:
    """A whole session: a login, a command with data both ways, a shell, the end.

    Args:
        rekeys: For each letter a key exchange in the middle, begun by the client (``c``), the server (``s``) or both
            (``b``).
        options: See :func:`record`.
    """
    recording = record(**options)
    pair = recording.pair.login()
    client, server = pair.client.conn, pair.server.conn
    channel = client.open_channel(Session())
    pair.run()
    client.request(channel, Exec(b"cat"))
    pair.run()
    client.send(channel, b"how do you do? " * 40)
    pair.run()
    for letter in rekeys:
        if letter in "cb":
            client.rekey()
        if letter in "sb":
            server.rekey()
        client.send(channel, b"going on, " * 9)
        pair.run()
    for text in (b"fine, thank you", b"warning"):
        server.send(0, text * 30, stream=int(text == b"warning"))
        pair.run()
    server.send_eof(0)
    server.close_channel(0)
    pair.run()
    second = client.open_channel(Session())
    pair.run()
    client.request(second, PtyRequest("xterm", 80, 24, 0, 0, {}))
    client.request(second, Shell())
    pair.run()
    client.disconnect("bye")
    pair.run()
    return recording


def observe(wire: Iterable[tuple[Side, bytes]], found: Secrets | None = None, **options: Any) -> list[Observed]:
    """All that an observer tells of a wire."""
    observer = Observer(found, **options)
    for frame, (side, data) in enumerate(wire, 1):
        observer.feed(side, data, time=frame / 8, frame=frame)
    observer.finish()
    return drain(observer)


def drain(observer: Observer) -> list[Observed]:
    events: list[Observed] = []
    while (event := observer.next_event()) is not None:
        events.append(event)
    return events


def told(events: Iterable[Observed], kind: type[Any], side: Side | None = None) -> list[Any]:
    """The events of one kind, and of one side."""
    return [seen.event for seen in events if isinstance(seen.event, kind) and side in (None, seen.side)]


def troubles(events: Iterable[Observed]) -> list[str]:
    """What was missing, or could not be followed."""
    return [f"{seen.side.value}: {seen.event.problem}" for seen in events if isinstance(seen.event, (Missing, Problem))]


def packets(events: Iterable[Observed], side: Side, *, meaning: bool = True) -> list[tuple[Any, ...]]:
    """What was opened of a side, but for where it was found."""
    return [
        (it.sequence_number, it.epoch, it.number, it.payload, it.size, it.offset, it.integrity, it.guessed)
        + ((it.message, it.context) if meaning else ())
        for it in told(events, PacketOpened, side)
    ]


def data_of(events: Iterable[Observed], side: Side) -> dict[tuple[int, int], bytes]:
    """What a side has sent on channels."""
    found: dict[tuple[int, int], bytes] = {}
    for event in told(events, ev.DataReceived, side):
        key = event.channel, event.stream
        found[key] = found.get(key, b"") + event.data
    return found


def bytewise(wire: Wire) -> Iterator[tuple[Side, bytes]]:
    for side, data in wire:
        for place in range(len(data)):
            yield side, data[place : place + 1]


class Scribe:
    """Writes one side of a connection by hand: what no honest program would send."""

    def __init__(self, side: Side, ident: bytes | None = None) -> None:
        self.side = side
        self.sealer = Sealer(entropy=seeded(side.value))
        self.written = b"" if ident is None else ident + b"\r\n"

    def send(self, *payloads: bytes) -> Scribe:
        for payload in payloads:
            self.written += self.sealer.seal(payload)
        return self

    @property
    def piece(self) -> tuple[Side, bytes]:
        """What was written since this was asked last."""
        data, self.written = self.written, b""
        return self.side, data


def split(wire: Wire, side: Side) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    """A side's identification line with its end, and its packets in clear up to NEWKEYS: where, how long, payload."""
    data = b"".join(piece for sender, piece in wire if sender is side)
    stop = data.index(b"\n") + 1
    opener = Opener(packet_limit=1 << 20)
    opener.feed(data[stop:])
    place, found = stop, []
    while True:
        before = opener.buffered
        payload = bytes(opener.next_packet() or b"")
        size = before - opener.buffered
        found.append((place, size, payload))
        place += size
        if payload == b"\x15":
            return data[:stop], found
