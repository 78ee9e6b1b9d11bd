"""The bytes of two streams in an order in which both ends could have read them.

What can be given at once is; what can't is held: since bytes before it have not come, or since its sender had received
bytes of the other stream which have not been given.  :mod:`sshproto.replay.capture.reassembly` has the rules.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter

import attrs

from sshproto.replay.capture.flows import Cause, Conflict, Connection, Finished, Gap, Held, History, Piece, Stream
from sshproto.values import frozen

_BILLION = 1_000_000_000

_OVERHEAD = 256
"""What a held segment costs beside its bytes."""

_held_offset = itemgetter(0)


def _positive(default: int) -> int:
    value: int = attrs.field(default=default, validator=attrs.validators.ge(1))
    return value


@frozen
class ReassemblyLimits:
    """Bounds on what is kept, and on how long something is waited for.

    Attributes:
        connections: Most connections at a time; the one of which nothing came for the longest time gives way.
        held: Most bytes out of order, or waiting for the other side, of one connection; a little is added for each.
        held_total: The same of all connections.
        history: So many bytes that were given are remembered, to compare repetitions with; up to twice as many.
        ahead: So many bytes ahead of all that is known can a sequence number be, and be believed at once. The largest
            windows that are met.
        patience: How long bytes that were acknowledged, but not seen, are waited for, in nanoseconds.
        lone_patience: The same for bytes that are missing when only their direction was captured.
        ticks: How many unusual segments of the connection end either wait, whatever their times say.
    """

    connections: int = _positive(1 << 16)
    held: int = _positive(8 << 20)
    held_total: int = _positive(128 << 20)
    history: int = _positive(4 << 20)
    ahead: int = _positive(16 << 20)
    patience: int = _positive(_BILLION // 2)
    lone_patience: int = _positive(5 * _BILLION)
    ticks: int = _positive(1024)


class Ordering:
    """Gives the bytes of all connections in order, and holds what has to wait.

    Args:
        limits: Bounds.

    Attributes:
        history: What was given; whatever there is to say is appended to its items.
        held: What waits, in bytes, and what that costs.
        holding: The connections of which something waits, that which has waited longest first.
    """

    def __init__(self, limits: ReassemblyLimits) -> None:
        self.history = History(limits.history)
        self.held = 0
        self._limits = limits
        self.holding: dict[Connection, None] = {}

    def data(self, stream: Stream, place: int, data: bytes, missing: int, need: int, frame: int, time: int) -> None:
        """Bytes of a stream have come.

        Args:
            stream: The stream.
            place: Where in it.
            data: The bytes.
            missing: So many that follow were not captured.
            need: So many of the other stream's bytes their sender had received.
            frame: The frame.
            time: When.
        """
        if len(data) == 1 and place == stream.offset - 1:
            stream.probes += 1  # whose byte is anything (RFC 9293 section 3.8.4)
            return
        stream._soft = False
        stream._slack = int(stream.finished)
        old = min(len(data), max(0, stream.offset - place))
        if old:
            self._repeated(stream, place, data[:old], frame, time)
        missing -= max(0, min(missing, stream.offset - place - len(data)))
        place, data = max(place, stream.offset), data[old:]
        if stream.finished:
            stream.discarded += len(data)
            return
        if not data and not missing:
            return
        peer = stream.peer
        if not stream._held and place == stream.offset and (need <= peer.offset + peer._slack or not peer.seen):
            self._give(stream, data, missing, frame, time)
        else:
            self._hold(stream, Held(place, data, missing, need, frame, time))

    def _repeated(self, stream: Stream, place: int, data: bytes, frame: int, time: int) -> None:
        """Bytes that were given before: are they the same?"""
        before = min(len(data), max(0, -place))
        stream.discarded += before
        stream.repeated += len(data) - before
        unchecked = len(data) - before
        for piece in list(self.history.find(stream, place, place + len(data))):
            begin, end = max(place, piece.offset), min(place + len(data), piece.offset + len(piece.data))
            kept, other = piece.data[begin - piece.offset : end - piece.offset], data[begin - place : end - place]
            self._compare(stream, begin, kept, other, piece.frame, frame, time)
            unchecked -= end - begin
        stream.unchecked += unchecked

    def _compare(
        self, stream: Stream, offset: int, kept: bytes, other: bytes, kept_frame: int, frame: int, time: int
    ) -> None:
        if kept != other:
            stream.conflicts += 1
            self.history.items.append(Conflict(stream, offset, kept, other, kept_frame, frame, time))

    def _hold(self, stream: Stream, new: Held) -> None:
        """Keep what can't be given yet; where something is kept already, that counts."""
        held, data = stream._held, new.data
        place, stop = new.offset, new.offset + len(data)
        index = bisect_right(held, place, key=_held_offset)
        if index and held[index - 1].offset + len(held[index - 1].data) > place:
            index -= 1
        charge = 0
        while place < stop or new.missing:
            end = stop
            if index < len(held):
                known = held[index]
                known_end = known.offset + len(known.data)
                if known_end <= place:
                    index += 1
                    continue
                if known.offset <= place:
                    end = min(stop, known_end)
                    kept = known.data[place - known.offset : end - known.offset]
                    other = data[place - new.offset : end - new.offset]
                    self._compare(stream, place, kept, other, known.frame, new.frame, new.time)
                    stream.repeated += end - place
                    place = end
                    if place >= stop:
                        break
                    continue
                end = min(stop, known.offset)
            part = data[place - new.offset : end - new.offset]
            held.insert(index, new._replace(offset=place, data=part, missing=new.missing if end == stop else 0))
            charge += len(part) + _OVERHEAD
            index += 1
            place = end
            if place >= stop:
                break
        self.recount(stream.connection, charge)

    def _give(self, stream: Stream, data: bytes, missing: int, frame: int, time: int) -> None:
        if stream._fin is not None:
            left = max(0, stream._fin[0] - stream.offset)
            stream.discarded += max(0, len(data) - left)
            data = data[:left]
            missing = min(missing, left - len(data))
        if data:
            self.history.items.append(Piece(stream, stream.offset, data, frame, time))
            self.history.volume += len(data)
            stream.offset += len(data)
        if stream._held:
            missing = min(missing, stream._held[0].offset - stream.offset)
        if missing > 0:
            self._gap(stream, missing, Cause.CUT, frame, time)
        self.finish_if_due(stream)

    def _gap(self, stream: Stream, length: int, cause: Cause, frame: int, time: int) -> None:
        self.history.items.append(Gap(stream, stream.offset, length, cause, frame, time))
        stream.offset += length
        stream.missing += length
        self.finish_if_due(stream)

    def finish_if_due(self, stream: Stream) -> None:
        """State the stream's end, if it is known and reached."""
        if stream._fin is not None and stream.offset >= stream._fin[0] and not stream.finished:
            stream.finished = True
            stream._slack = 1
            self.history.items.append(Finished(stream, *stream._fin[1:]))
            while stream._held:
                stream.discarded += len(stream._held[0].data)
                self._drop_head(stream)

    def release(self, connection: Connection) -> None:
        """Give all that can be given by now."""
        moved = bool(connection._charge)
        while moved:
            moved = False
            for stream in connection.streams:
                held, peer = stream._held, stream.peer
                while held and held[0].offset <= stream.offset:
                    _, data, missing, need, frame, time = held[0]
                    if need > peer.offset + peer._slack and peer.seen:
                        break
                    self._drop_head(stream)
                    self._give(stream, data, missing, frame, time)
                    moved = True

    def hasten(self, connection: Connection, frame: int, time: int) -> None:
        """State as missing what was waited for for long enough."""
        for stream in connection.streams:
            while target := self._overdue(stream, time):
                self.skip(stream, target, frame, time)
                stream._lost = stream.offset
                self.release(connection)

    def _overdue(self, stream: Stream, time: int) -> int:
        """Up to where bytes of ``stream`` are needed, and were waited for for long enough; 0 if there are none."""
        limits, peer, held = self._limits, stream.peer, stream._held
        if held and held[0].offset > stream.offset:
            target = held[0].offset
        elif peer._held and not held:
            target = peer._held[0].need
        else:
            return 0
        if stream._acked > stream.offset + stream._slack:
            target, patience = min(target, stream._acked), limits.patience
        elif held and not peer.seen:
            patience = limits.lone_patience
        else:
            return 0
        if stream.finished or target <= stream.offset:
            return 0
        since, ticks, offset = stream._since
        waited = time - since >= patience or stream.connection._ticks - ticks >= limits.ticks
        return target if (waited and offset == stream.offset) or stream._lost == stream.offset else 0

    def bound(self, connection: Connection, frame: int, time: int) -> list[Connection]:
        """Give what waits, with its gaps, until no more waits than may. The other connections that this concerned."""
        limits = self._limits
        touched: list[Connection] = []
        if connection._charge > limits.held:
            while connection._charge > limits.held // 2:
                self.force(connection, frame, time)
        while self.held > limits.held_total:
            longest = next(iter(self.holding))
            while longest._charge:
                self.force(longest, frame, time)
            touched.append(longest)
        return touched

    def force(self, connection: Connection, frame: int, time: int) -> None:
        """One step towards holding nothing: what came first is given, and what it waits for is stated as missing."""
        stream = min((each for each in connection.streams if each._held), key=_first_frame)
        peer, head = stream.peer, stream._held[0]
        if head.offset > stream.offset:
            if peer.seen and head.offset > max(stream.offset, stream._acked) + self._limits.ahead:
                stream.discarded += len(head.data)  # nobody has seen anything that leads there
                self._drop_head(stream)
            else:
                self.skip(stream, head.offset, frame, time)
        elif peer.finished or (peer._held and peer._held[0].offset <= peer.offset):
            # Each waits for the other, which can't be among the honest: then in the order of the capture.
            stream._held[0] = head._replace(need=0)
        else:
            self.skip(peer, min(head.need, peer._held[0].offset) if peer._held else head.need, frame, time)
        self.release(connection)

    def skip(self, stream: Stream, target: int, frame: int, time: int) -> None:
        """State as missing all up to ``target``, which is more than was given."""
        if stream._fin is not None:
            target = min(target, stream._fin[0])
        cause = Cause.ACKNOWLEDGED if stream._acked >= target else Cause.UNSEEN
        if stream._acked == target == stream.offset + 1 and stream._fin is None and not stream._held:
            stream._slack = 1  # a FIN counts as one byte: that is what is missing, unless more of the stream comes
        else:
            self._gap(stream, target - stream.offset, cause, frame, time)

    def _drop_head(self, stream: Stream) -> None:
        head = stream._held.pop(0)
        self.recount(stream.connection, -len(head.data) - _OVERHEAD)

    def recount(self, connection: Connection, change: int) -> None:
        """``connection`` holds that much more."""
        connection._charge += change
        self.held += change
        if not connection._charge:
            self.holding.pop(connection, None)
        elif change > 0:
            self.holding.setdefault(connection)


def _first_frame(stream: Stream) -> int:
    return stream._held[0].frame
