"""Puts TCP streams together again: segments in, pieces of streams in order out.

A :class:`Reassembler` knows what a receiver knows (RFC 9293), and in addition that it is no receiver: the capture may
have lost packets, have them twice or out of order, show one direction only, begin in the middle or end there, and
hold packets that were forged.  The rules:

* **In order.** Of each stream the bytes are given once, in order; what came first counts.  Bytes that come again are
  compared with those that were given, as long as these are remembered; a difference is stated (:class:`Conflict`).
* **Cause before effect.** A segment acknowledges what its sender had received before.  So it waits until that much of
  the other stream was given: what is given is in an order in which both programs could have read and written it, even
  if the capture has the packets in another.
* **Gaps are stated** (:class:`Gap`), never papered over.  Bytes that are missing but acknowledged are waited for for a
  moment, since captures on several queues put packets out of order; unacknowledged ones are sure to be sent again, and
  are waited for until the end, unless only one direction was captured, so that no acknowledgement can be seen.
* **Doubt is cheap, desynchronisation is not.** A SYN on a connection that goes on begins another only when something
  answers to it; RST is stated, but what follows is still given; sequence numbers far off count when two agree.
* **Bounds.** What waits is bounded for each connection and in all, and so is the number of connections; what has to
  give way is given with its gaps, or stated as closed.

The short way through :meth:`Reassembler.feed`, for a segment that is just the next one, does all of this in a few
comparisons; everything else takes :meth:`Reassembler._slow`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from sshproto.replay.capture.flows import (
    Closed,
    Connection,
    Ending,
    Item,
    Opened,
    Piece,
    Reset,
    Start,
    Stream,
)
from sshproto.replay.capture.network import ACK, FIN, RST, SYN, Segment
from sshproto.replay.capture.ordering import Ordering, ReassemblyLimits

__all__ = ["Reassembler", "ReassemblyLimits"]

_MASK = 0xFFFFFFFF
_HALF = 0x80000000

_FAST, _SLOW, _IGNORED, _ENDED = range(4)
"""How segments of a connection are dealt with, kept in each stream for the short way."""

_SWEEP = 1 << 16
"""Ended connections are forgotten after so many frames: retransmissions of their last segments are over by then."""

_WAKE = 1 << 12
"""Connections that wait for missing bytes are looked at every so many segments, even if nothing of them comes."""

# What Piece(...) comes down to, in a third less time.
_new_piece: Callable[[type[Piece], tuple[Stream, int, bytes, int, int]], Piece]
_new_piece = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


class Reassembler:
    """Puts the streams of all TCP connections of a capture together.

    Args:
        limits: Bounds.
        connections: Number of the connection before the first.

    Attributes:
        connections: Number of the last connection that was seen.
        strays: Segments without data that belong to no known connection.
    """

    def __init__(self, limits: ReassemblyLimits | None = None, *, connections: int = 0) -> None:
        self.connections = connections
        self.strays = 0
        self._limits = limits or ReassemblyLimits()
        self._streams: dict[bytes, Stream] = {}
        self._ordering = Ordering(self._limits)
        self._frame = 0
        self._time = 0
        self._count = 0
        self._next_sweep = _SWEEP
        self._next_wake = _WAKE

    @property
    def held(self) -> int:
        """Bytes that wait, and what that costs."""
        return self._ordering.held

    def feed(self, segments: Collection[Segment]) -> list[Item]:
        """What ``segments`` add.

        Args:
            segments: In the order of the capture.

        Returns:
            Pieces, and what else there is to say. Those of different connections are in the order of the capture.
        """
        history = self._ordering.history
        history.rotate()
        items = history.items
        begin, append, streams, new, volume = len(items), items.append, self._streams, _new_piece, 0
        frame = time = 0
        for segment in segments:
            frame, time, flow, seq, ack, flags, data, start, stop, missing = segment
            stream = streams.get(flow)
            if stream is not None:
                # Nothing but ACK (and PSH): the next bytes of this side, which acknowledge nothing that was not given.
                if (
                    flags & 0x17 == ACK
                    and seq == stream._next
                    and not missing
                    and stream._mode == _FAST
                    and (stream.peer._next - ack) & _MASK < _HALF
                ):
                    stream.frame = frame
                    if start != stop:
                        append(new(Piece, (stream, stream.offset, data[start:stop], frame, time)))
                        count = stop - start
                        stream.offset += count
                        stream._next = (seq + count) & _MASK
                        volume += count
                    continue
                if stream._mode == _IGNORED and not flags & 7:
                    stream.frame = frame
                    continue
            self._slow(stream, segment)
        history.volume += volume
        if segments:
            self._frame, self._time = frame, time
            self._count += len(segments)
            if self._count >= self._next_wake:
                self._next_wake = self._count + _WAKE
                self._wake(time)
            if self._count >= self._next_sweep:
                self._next_sweep = self._count + _SWEEP
                self._sweep()
        return items[begin:]

    def wake(self, time: int) -> list[Item]:
        """What need not be waited for any longer, if it is ``time`` now (nanoseconds since 1970, as captured).

        Only who reads a capture while it is made needs this; :meth:`feed` looks at the packets' own times.
        """
        begin = len(self._ordering.history.items)
        self._wake(time)
        return self._ordering.history.items[begin:]

    def finish(self) -> list[Item]:
        """The capture has ended: all that waits is given, and all connections are closed."""
        history = self._ordering.history
        begin = len(history.items)
        connections = {stream.connection: None for stream in self._streams.values() if stream._mode < _IGNORED}
        for connection in sorted(connections, key=lambda connection: connection.number):
            self._close(connection, Ending.RESET if connection.reset else Ending.CAPTURE, 0, self._time)
        self._streams.clear()
        items = history.items[begin:]
        self._ordering = Ordering(self._limits)
        return items

    def ignore(self, connection: Connection) -> None:
        """Nothing of ``connection`` is wanted any more: it costs next to nothing from now on, and is not closed."""
        for stream in connection.streams:
            stream._held.clear()
            stream._mode = _ENDED if connection.ending else _IGNORED
        connection._reborn = None
        self._ordering.recount(connection, -connection._charge)

    def _say(self, item: Item) -> None:
        self._ordering.history.items.append(item)

    # ------------------------------------------------------------------------------------------------------ connections

    def _open(self, segment: Segment) -> Stream:
        """A connection that was not seen before; the stream of this segment's sender."""
        frame, time, flow, _, _, flags, *_ = segment
        if len(self._streams) >= 2 * self._limits.connections:
            self._evict()
        start = Start.MIDDLE
        if flags & SYN:
            start = Start.SYN_ACK if flags & ACK else Start.SYN
        self.connections += 1
        if start is Start.SYN_ACK:
            flow = _reverse(flow)
        connection = Connection(self.connections, flow, start, frame, time)
        self._streams[_reverse(flow)] = connection.streams[1]
        self._streams[flow] = connection.streams[0]
        for stream in connection.streams:
            stream._mode = _SLOW
            stream.frame = frame
        self._say(Opened(connection, frame, time))
        return connection.streams[start is Start.SYN_ACK]

    def _close(self, connection: Connection, ending: Ending, frame: int, time: int) -> None:
        """Give what is left, and say that it was all."""
        while any(stream._held for stream in connection.streams):
            self._ordering.force(connection, frame, time)
        for stream in connection.streams:
            if stream._acked > stream.offset + stream._slack and not stream.finished:
                self._ordering.skip(stream, stream._acked, frame, time)
            if stream._acked > stream.offset and not stream.finished:
                stream._fin = (stream.offset, frame, time)  # not captured
                self._ordering.finish_if_due(stream)
            stream._mode = _ENDED
        connection.ending = ending
        connection._reborn = None
        self._ordering.recount(connection, -connection._charge)
        self._say(Closed(connection, frame, time))

    def _forget(self, connection: Connection) -> None:
        for flow in (connection.flow, _reverse(connection.flow)):
            stream = self._streams.get(flow)
            if stream is not None and stream.connection is connection:
                del self._streams[flow]

    def _evict(self) -> None:
        """Make room: an eighth of the connections go, first those without data, and those that were quiet for long."""
        connections = list({stream.connection: None for stream in self._streams.values()})
        connections.sort(key=_worth)
        for connection in connections[: len(connections) // 8 + 1]:
            if connection.streams[0]._mode < _IGNORED:
                self._close(connection, Ending.EVICTED, self._frame, self._time)
            self._forget(connection)

    def _sweep(self) -> None:
        """Forget connections that have ended some time ago."""
        for connection in list({stream.connection: None for stream in self._streams.values()}):
            dialler, dialled = connection.streams
            over = connection.ending or connection.reset or dialler.finished or dialled.finished
            if over and max(dialler.frame, dialled.frame) < self._frame - _SWEEP:
                if connection.ending is None and dialler._mode != _IGNORED:
                    if not connection.reset:
                        continue  # half closed, and alive as far as anyone knows
                    self._close(connection, Ending.RESET, self._frame, self._time)
                self._forget(connection)

    def _wake(self, time: int) -> None:
        for connection in list(self._ordering.holding):
            self._ordering.hasten(connection, self._frame, time)
            self._settle(connection, self._frame, time)

    # --------------------------------------------------------------------------------------------------------- segments

    def _slow(self, stream: Stream | None, segment: Segment) -> None:
        """A segment that is not just the next one."""
        frame, time, flow, seq, ack, flags, data, start, stop, missing = segment
        if stream is None:
            if flags & RST or not (flags & SYN or start != stop or missing):
                self.strays += 1
                return
            stream = self._open(segment)
        connection, peer = stream.connection, stream.peer
        stream.frame = frame
        connection._ticks += 1
        if stream._mode >= _IGNORED:
            self._after_end(stream, segment)
            return
        if connection._reborn is not None:
            if self._confirms(connection._reborn, stream, segment):
                self._replace(connection, connection._reborn[1], segment)
                return
            if stream is connection._reborn[0] and seq == stream._next and start != stop:
                connection._reborn = None  # it goes on as if nothing had been
        first = seq
        if flags & SYN:
            first = (seq + 1) & _MASK
            if stream._isn < 0 and (not stream._known or stream._soft or stream._origin == first) and not stream.offset:
                stream._origin, stream._isn, stream._known, stream._soft, stream.whole = first, seq, True, False, True
                stream._acked = 0
                peer.whole |= connection.start is not Start.MIDDLE  # it has not sent anything before this
            elif stream._isn != seq:
                if connection.reset or (stream.finished and peer.finished):
                    self._replace(connection, segment, None)
                else:
                    # On a connection that goes on: wait whether anybody takes it seriously.
                    copy = (frame, time, flow, seq, ack, flags, data[start:stop], 0, stop - start, missing)
                    connection._reborn = stream, copy
                    stream._mode = peer._mode = _SLOW
                return
        stream.seen = True
        if not stream._known:
            stream._origin, stream._known = first, True
        need = self._acknowledge(peer, ack, time) if flags & ACK else 0
        place = stream._place(first)
        if flags & RST:
            self._reset(stream, place, frame, time)
        else:
            end = place + stop - start + missing
            if start != stop or missing:
                self._ordering.data(stream, place, bytes(data[start:stop]), missing, need, frame, time)
            if flags & FIN and stream._fin is None and end >= stream.offset:
                stream._fin, stream._soft = (end, frame, time), False
                self._ordering.finish_if_due(stream)
        self._ordering.release(connection)
        self._ordering.hasten(connection, frame, time)
        for touched in (*self._ordering.bound(connection, frame, time), connection):
            self._settle(touched, frame, time)

    def _acknowledge(self, stream: Stream, ack: int, time: int) -> int:
        """``stream``'s receiver has received it up to sequence number ``ack``. The offset; 0 if it is not believed."""
        if not stream._known:
            stream._origin, stream._known = ack, True
        reach = stream._place(ack)
        if stream._fin is not None:
            reach = min(reach, stream._fin[0])
        if reach <= stream._acked:
            return max(0, reach)
        if stream._soft and stream.seen and not stream.whole and not stream.offset:
            # Only segments without data were seen, and these may be probes, whose sequence number is one too low.
            stream._origin = ack
            return 0
        limit = self._limits.ahead
        if reach > max(stream.offset, stream._acked) + limit and not 0 <= reach - stream._wild <= limit:
            stream._wild = reach
            return 0
        if stream._acked <= stream.offset < reach:
            stream._since = (time, stream.connection._ticks, stream.offset)
        stream._acked = reach
        return reach

    def _reset(self, stream: Stream, place: int, frame: int, time: int) -> None:
        connection = stream.connection
        if abs(place - stream.offset) > self._limits.ahead:
            stream.discarded += 1
        elif not connection.reset:
            while any(each._held for each in connection.streams):
                self._ordering.force(connection, frame, time)
            connection.reset = True
            self._say(Reset(stream, frame, time))

    def _after_end(self, stream: Stream, segment: Segment) -> None:
        """A segment of a connection that has ended, or that nobody wants."""
        _, _, _, seq, _, flags, _, start, stop, _ = segment
        connection = stream.connection
        far = abs(stream._place(seq) - stream.offset) > self._limits.ahead
        if stream._mode == _IGNORED and flags & (SYN | ACK) == SYN | ACK and stream._isn < 0:
            stream._isn = seq  # the answer to a SYN after which nobody wanted more
        elif (flags & SYN and seq != stream._isn) or (stream._mode == _ENDED and start != stop and far):
            self._forget(connection)
            self._slow(None, segment)
        elif flags & (FIN | RST):
            stream.finished = True
        else:
            stream.discarded += stop - start

    def _confirms(self, reborn: tuple[Stream, Segment], stream: Stream, segment: Segment) -> bool:
        """Whether a segment shows that a SYN on a connection that seemed alive has begun another."""
        sender, (_, _, _, isn, _, _, _, start, stop, _) = reborn
        _, _, _, seq, ack, flags, _, _, _, _ = segment
        if stream is sender:
            return not flags & (SYN | RST) and seq == (isn + 1) & _MASK and seq != stream._next
        return bool(flags & ACK) and 1 <= (ack - isn) & _MASK <= 1 + stop - start

    def _replace(self, connection: Connection, first: Segment, then: Segment | None) -> None:
        """Another connection between the same ports: ``first`` is its SYN."""
        self._close(connection, Ending.REUSED, first[0], first[1])
        self._forget(connection)
        self._slow(None, first)
        if then is not None:
            self._slow(self._streams.get(then[2]), then)

    def _settle(self, connection: Connection, frame: int, time: int) -> None:
        """After a segment that took the long way: may the next take the short one?"""
        if connection.ending is not None:
            return
        mode = _FAST if connection._reborn is None and not connection.reset else _SLOW
        for stream in connection.streams:
            waits = stream._held or stream._acked > stream.offset + stream._slack
            if waits and stream._since[2] != stream.offset:
                stream._since = (time, connection._ticks, stream.offset)
            if stream._held or stream._fin is not None or not stream._known:
                mode = _SLOW
            stream._next = (stream._origin + stream.offset + stream.finished) & _MASK
        for stream in connection.streams:
            stream._mode = mode
        if all(stream.finished for stream in connection.streams):
            self._close(connection, Ending.FINISHED, frame, time)


def _reverse(flow: bytes) -> bytes:
    """The same addresses and ports, as the other side has them."""
    size = (len(flow) - 4) // 2
    return flow[size : 2 * size] + flow[:size] + flow[2 * size + 2 :] + flow[2 * size : 2 * size + 2]


def _worth(connection: Connection) -> tuple[bool, bool, int]:
    """The less, the sooner a connection has to go."""
    dialler, dialled = connection.streams
    return connection.ending is None, dialler.offset + dialled.offset > 0, max(dialler.frame, dialled.frame)
