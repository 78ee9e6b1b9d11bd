"""TCP connections as a capture shows them, and what is told of them.

:class:`~sshproto.replay.capture.Reassembler` makes these; its output is lists of :data:`Item`.  All are to be taken
as immutable, except for :attr:`Connection.context`, which is the reader's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from enum import Enum
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

from sshproto.replay.events import Side
from sshproto.values import frozen

_MASK = 0xFFFFFFFF
_HALF = 0x80000000


class Start(Enum):
    """How much of a connection's beginning was captured."""

    SYN = "syn"
    """The dialler's SYN."""
    SYN_ACK = "syn-ack"
    """Not the SYN, but the answer to it: it is known who dialled, and no byte is missing."""
    MIDDLE = "middle"
    """None of it: who sent first is taken for the dialler, and what it sent first for the first byte."""


class Cause(Enum):
    """Why bytes are missing."""

    ACKNOWLEDGED = "acknowledged"
    """Their receiver has acknowledged them: the capture lacks them, the connection did not."""
    UNSEEN = "unseen"
    """Nobody has acknowledged them, and later ones had to be given since the capture ended, or a limit was reached."""
    CUT = "cut"
    """The capture has only the beginning of the packet ("snaplen")."""


class Ending(Enum):
    """Why nothing more will come of a connection."""

    FINISHED = "finished"
    """Both sides have ended their streams."""
    RESET = "reset"
    """A side has sent RST, and nothing came for a while."""
    REUSED = "reused"
    """Another connection between the same ports has begun."""
    EVICTED = "evicted"
    """There were more connections than the limit, and nothing had come of this one for long."""
    CAPTURE = "capture"
    """The capture has ended."""


class Endpoint(NamedTuple):
    """An address and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Connection:
    """A TCP connection.

    Attributes:
        number: Its number in the capture, from 1.
        flow: Addresses and ports as a :data:`~sshproto.replay.capture.network.Segment` of the dialler has them.
        start: How much of its beginning was captured.
        frame: The first frame that was seen of it.
        time: When that was, in nanoseconds since 1970.
        streams: The dialler's and the dialled's.
        reset: A side has sent RST.
        ending: Why nothing more will come; None while something may.
        context: Whatever its reader wants to keep with it.
    """

    __slots__ = (
        "_charge", "_reborn", "_ticks", "context", "ending", "flow", "frame", "number", "reset", "start", "streams",
        "time",
    )  # fmt: skip

    def __init__(self, number: int, flow: bytes, start: Start, frame: int, time: int) -> None:
        self.number = number
        self.flow = flow
        self.start = start
        self.frame = frame
        self.time = time
        dialler, dialled = Stream(self, Side.DIALLER), Stream(self, Side.DIALLED)
        dialler.peer, dialled.peer = dialled, dialler
        self.streams = (dialler, dialled)
        self.reset = False
        self.ending: Ending | None = None
        self.context: Any = None
        self._ticks = 0  # segments that did not take the short way
        self._charge = 0  # bytes that are held, and what holding them costs
        self._reborn: tuple[Stream, Any] | None = None  # a SYN that may begin another connection

    def __repr__(self) -> str:
        return f"<Connection {self.number}, {self.dialler} to {self.dialled}>"

    @property
    def dialler(self) -> Endpoint:
        """Who dialled, or with :attr:`Start.MIDDLE` who was seen to send first."""
        return _endpoint(self.flow, 0)

    @property
    def dialled(self) -> Endpoint:
        return _endpoint(self.flow, 1)


def _endpoint(flow: bytes, which: int) -> Endpoint:
    from ipaddress import ip_address

    size = (len(flow) - 4) // 2
    port = flow[2 * size + 2 * which : 2 * size + 2 * which + 2]
    return Endpoint(str(ip_address(flow[which * size : (which + 1) * size])), int.from_bytes(port, "big"))


class Stream:
    """What one side of a connection sends.

    Attributes:
        connection: The connection.
        side: Who sends.
        peer: The other side's stream.
        offset: So many bytes were given or stated as missing: where the next item of it begins.
        seen: Whether any packet of this side was seen: otherwise the capture has one direction only.
        whole: Whether the first byte that was sent is at offset 0, so far as anyone can know: otherwise the capture
            begins in the middle.
        finished: Whether it has ended (FIN).
        missing: Bytes stated as missing.
        repeated: Bytes that came again after they had been given.
        unchecked: How many of these were not compared with what was given, since that was too long ago.
        conflicts: How often other bytes came for the same place.
        probes: Keep-alive probes.
        discarded: Bytes that can't belong to the stream: before its beginning, after its end, far out of sequence.
        frame: The last frame that was seen of it.
    """

    __slots__ = (
        "_acked", "_fin", "_held", "_isn", "_known", "_lost", "_mode", "_next", "_origin", "_since", "_slack", "_soft",
        "_wild", "conflicts", "connection", "discarded", "finished", "frame", "missing", "offset", "peer", "probes",
        "repeated", "seen", "side", "unchecked", "whole",
    )  # fmt: skip

    peer: Stream

    def __init__(self, connection: Connection, side: Side) -> None:
        self.connection = connection
        self.side = side
        self.offset = 0
        self.seen = False
        self.whole = False
        self.finished = False
        self.missing = 0
        self.repeated = 0
        self.unchecked = 0
        self.conflicts = 0
        self.probes = 0
        self.discarded = 0
        self.frame = 0
        self._mode = 0
        self._next = -1  # the sequence number of the next byte; -1 is none
        self._origin = 0  # the sequence number of offset 0
        self._known = False  # whether _origin is
        self._soft = True  # whether _origin may still move, if nothing was given yet: it is a guess
        self._isn = -1  # the SYN's sequence number; -1 if none was seen
        self._acked = 0  # the offset up to which the receiver has acknowledged
        self._wild = -1  # an acknowledgement too far off to be believed at once, as an offset
        self._fin: tuple[int, int, int] | None = None  # offset, frame, time
        self._slack = 0  # 1 if it has ended or may have ended: acknowledgements may go so far beyond its bytes
        self._held: list[Held] = []  # what can't be given yet; in order, without overlaps
        self._since: tuple[int, int, int] = (0, 0, -1)  # at which time, ticks and offset waiting began
        self._lost = -1  # up to this offset bytes were missing: as long as none come there, no more are waited for

    def __repr__(self) -> str:
        return f"<Stream of the {self.side.value} of connection {self.connection.number}, {self.offset} bytes>"

    def _place(self, seq: int) -> int:
        """The offset of a sequence number: that one of the many it may be which is nearest to what came last."""
        reference = max(self.offset, self._acked)
        delta = (seq - self._origin - reference) & _MASK
        return reference + (delta if delta < _HALF else delta - _MASK - 1)


class Held(NamedTuple):
    """A segment that can't be given yet.

    Attributes:
        offset: Where in the stream.
        data: The bytes.
        missing: So many that follow were not captured.
        need: Its sender had received so many bytes of the other side.
        frame: The frame that brought it.
        time: When.
    """

    offset: int
    data: bytes
    missing: int
    need: int
    frame: int
    time: int


# ------------------------------------------------------------------------------------------------------- what is told


@frozen(eq=False)
class Opened:
    """A connection was seen for the first time.

    Attributes:
        connection: The connection.
        frame: The frame.
        time: When, in nanoseconds since 1970.
    """

    connection: Connection
    frame: int
    time: int


class Piece(NamedTuple):
    """Bytes of a stream, in order.

    Attributes:
        stream: The stream.
        offset: Where in it.
        data: The bytes, not empty. They came in one packet.
        frame: The frame that brought them.
        time: When that was captured, in nanoseconds since 1970. Frames that were out of order are given later than they
            came, so that this need not ascend; the receiver could read them at the latest time so far.
    """

    stream: Stream
    offset: int
    data: bytes
    frame: int
    time: int


@frozen(eq=False)
class Gap:
    """Bytes that the capture does not have.

    Attributes:
        stream: The stream.
        offset: Where in it.
        length: How many bytes. At a stream's end this may be one too many: a FIN that was not captured.
        cause: Why.
        frame: The frame that showed it; 0 for the capture's end.
        time: When that was captured.
    """

    stream: Stream
    offset: int
    length: int
    cause: Cause
    frame: int
    time: int


@frozen(eq=False)
class Conflict:
    """Two packets brought different bytes for the same place: one of them is forged, or damaged.

    The first were given; the receiver may have taken the others.

    Attributes:
        stream: The stream.
        offset: Where in it.
        kept: The bytes that came first.
        other: As many bytes that came later.
        kept_frame: The frame that came first.
        frame: The frame that came later.
        time: When that was captured.
    """

    stream: Stream
    offset: int
    kept: bytes
    other: bytes
    kept_frame: int
    frame: int
    time: int


@frozen(eq=False)
class Finished:
    """A stream has ended in order (FIN): every byte of it was given, or stated as missing.

    Attributes:
        stream: The stream.
        frame: The frame with the FIN, or one that shows that there was one; 0 for the capture's end.
        time: When that was captured.
    """

    stream: Stream
    frame: int
    time: int


@frozen(eq=False)
class Reset:
    """A side has broken the connection off (RST). It may be forged: if the connection goes on, so do its pieces.

    Attributes:
        stream: The stream of who sent it, or for whom it was forged.
        frame: The frame.
        time: When that was captured.
    """

    stream: Stream
    frame: int
    time: int


@frozen(eq=False)
class Closed:
    """Nothing more will come of a connection; :attr:`Connection.ending` says why.

    Attributes:
        connection: The connection.
        frame: The frame that showed it; 0 for the capture's end.
        time: When that was captured, or the time of the last packet before.
    """

    connection: Connection
    frame: int
    time: int


Item: TypeAlias = Opened | Piece | Gap | Conflict | Finished | Reset | Closed

_offset = attrgetter("offset")


class History:
    """The pieces that were given last, to compare repetitions with.

    They cost nothing until a repetition comes; then the pieces since the last one are sorted by stream.

    Args:
        limit: How many bytes are kept, roughly; pieces are kept for another time as long.

    Attributes:
        items: What was given; the caller appends.
        volume: How many bytes in pieces; the caller counts.
    """

    __slots__ = ("_index", "_indexed", "_limit", "_older", "items", "volume")

    def __init__(self, limit: int) -> None:
        self.items: list[Item] = []
        self.volume = 0
        self._limit = limit
        self._index: dict[Stream, list[Piece]] = {}
        self._indexed = 0
        self._older: tuple[list[Item], dict[Stream, list[Piece]], int] = ([], {}, 0)

    def rotate(self) -> None:
        """Forget what is old, if there is enough that is new."""
        if self.volume + 256 * len(self.items) > self._limit:
            self._older = self.items, self._index, self._indexed
            self.items, self._index, self._indexed, self.volume = [], {}, 0, 0

    def find(self, stream: Stream, start: int, stop: int) -> Iterator[Piece]:
        """The pieces of ``stream`` that have bytes from ``start`` to ``stop``, as far as they are still there."""
        items, index, indexed = self._older
        self._older = items, index, self._sort(items, index, indexed)
        self._indexed = self._sort(self.items, self._index, self._indexed)
        for each in (index, self._index):
            pieces = each.get(stream, [])
            for place in range(max(0, bisect_right(pieces, start, key=_offset) - 1), len(pieces)):
                piece = pieces[place]
                if piece.offset >= stop:
                    break
                if piece.offset + len(piece.data) > start:
                    yield piece

    @staticmethod
    def _sort(items: list[Item], index: dict[Stream, list[Piece]], indexed: int) -> int:
        for item in items[indexed:] if indexed < len(items) else ():
            if type(item) is Piece:
                index.setdefault(item.stream, []).append(item)
        return len(items)
