"""What has come on a channel and was not read yet.

Window credit goes back when bytes are taken or thrown away, never before somebody asked for them: what waits here is
bounded by the channel's window, however slow the reader is.

Large pieces are passed on as they came, and no byte is looked at more than a few times, in however small pieces it
comes or is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sshproto.errors import InvalidArgument, LimitReached
from sshproto.operations.steps import Wait

if TYPE_CHECKING:
    from sshproto.connection import Connection

_SMALL = 1024
"""Chunks of less than so many bytes are joined: else a window full of single bytes would take many times its size."""


class Credit:
    """Gives the peer room on a channel. It does not know who reads there, who knows it: what knows each other is longer
    in memory."""

    __slots__ = ("_conn", "_number")

    def __init__(self, conn: Connection[Any], number: int) -> None:
        self._conn = conn
        self._number = number

    def __call__(self, count: int) -> None:
        self._conn.credit(self._number, count)


class Inbox:
    """One stream of a channel, from the peer.

    Args:
        credit: Gives the peer room for so many bytes.

    Attributes:
        arrived: Fires when there is more to read, or nothing more to come.
        size: Bytes that wait to be read.
        passed: Bytes that were taken so far.
        ended: Nothing more will come.
    """

    __slots__ = ("_ahead", "_chunks", "_credit", "_gathered", "_open", "_start", "arrived", "ended", "passed", "size")

    def __init__(self, credit: Callable[[int], None]) -> None:
        self.arrived = Wait()
        self.size = 0
        self.passed = 0
        self.ended = False
        self._credit = credit
        self._chunks: deque[bytes] | None = None  # while there are some
        self._start = 0  # where in the first chunk what waits begins
        self._gathered: bytearray | None = None
        self._open = True
        self._ahead = 0  # bytes that wait and are credited already

    def __repr__(self) -> str:
        return f"<Inbox, {self.size} bytes{', ended' if self.ended else ''}>"

    # ------------------------------------------------------------------------------------------------- from the channel

    def feed(self, data: bytes) -> None:
        """Data has come."""
        if self._gathered is not None:
            self._gathered += data
            self._credit(len(data))
        elif self._open:
            chunks = self._chunks
            if chunks is None:
                self._chunks = deque((data,))
            elif chunks and len(data) < _SMALL and len(chunks[-1]) < _SMALL:
                chunks[-1] += data
            else:
                chunks.append(data)
            self.size += len(data)
            self.arrived.fire()
        else:
            self._credit(len(data))

    def finish(self) -> None:
        """Nothing more will come."""
        if not self.ended:
            self.ended = True
            self.arrived.fire()

    def over(self, *, cut_off: bool) -> None:
        """The channel has ended; if what was to come is ``cut_off``, the stream has no end."""
        if cut_off:
            self.arrived.fire()
        else:
            self.finish()

    # ------------------------------------------------------------------------------------------------------ to readers

    def take(self, limit: int) -> bytes:
        """At most ``limit`` of the bytes that wait; ``b""`` if none do."""
        chunks = self._chunks
        count = left = min(limit, self.size)
        if chunks is None or count <= 0:
            return b""
        pieces: list[bytes] = []
        while left:
            chunk, start = chunks[0], self._start
            if left < len(chunk) - start:
                pieces.append(chunk[start : start + left])
                self._start += left
                break
            pieces.append(chunk[start:])
            left -= len(chunk) - start
            chunks.popleft()
            self._start = 0
        if not chunks:
            self._chunks = None
        self._taken(count)
        return b"".join(pieces)

    def take_chunk(self, limit: int) -> bytes:
        """As many of the bytes that wait as cost nothing to take: what came in one packet, at most ``limit``."""
        return self.take(min(limit, len(self._chunks[0]) - self._start) if self._chunks else 0)

    def find(self, separator: bytes, limit: int, start: int = 0) -> int:
        """Where the first ``separator`` ends.

        Args:
            separator: At least one byte.
            limit: What is to be found in the first so many bytes.
            start: Nothing was found before, and so many bytes were there.

        Returns:
            The number of bytes up to and including it, or 0 if it has not come yet.

        Raises:
            LimitReached: It is not among the first ``limit`` bytes.
        """
        if not separator:
            raise InvalidArgument("a separator has at least one byte")
        end = self._search(separator, max(0, start - len(separator) + 1), limit)
        if 0 < end <= limit:
            return end
        if self.size >= limit:
            raise LimitReached(f"no {separator!r} in the first {limit} bytes")
        return 0

    def _search(self, separator: bytes, start: int, limit: int) -> int:
        """Where the first ``separator`` ends that begins at ``start`` or later; 0 if nowhere, or past ``limit``."""
        chunks = self._chunks
        if chunks is None:
            return 0
        overlap = len(separator) - 1
        index, position = 0, -self._start  # of a chunk, and where its first byte stands
        if start > self.size // 2:  # from the nearer end, so that a long line that grows is not walked again and again
            index, position = len(chunks), self.size
            while position > start:
                index -= 1
                position -= len(chunks[index])
        before = b""  # the last bytes of the chunks before: a separator may begin there
        while index < len(chunks) and position < limit:
            chunk = chunks[index]
            skip = max(0, start - position)
            if skip < len(chunk):
                if before and (found := (before + chunk[:overlap]).find(separator)) >= 0:
                    return position - len(before) + found + len(separator)
                if (found := chunk.find(separator, skip)) >= 0:
                    return position + found + len(separator)
                if overlap:
                    before = (before + chunk[max(skip, len(chunk) - overlap) :])[-overlap:]
            index += 1
            position += len(chunk)
        return 0

    def expect(self, count: int) -> None:
        """Somebody waits for ``count`` bytes in one piece: let the peer send them, even past its window."""
        ahead = min(count, self.size)
        if ahead > self._ahead:
            self._credit(ahead - self._ahead)
            self._ahead = ahead

    def gather(self) -> bytearray:
        """Take everything, now and in future, without bound.

        Returns:
            What has come; it grows until the stream has ended, or until :meth:`release`.
        """
        if self._gathered is None:
            self._gathered = bytearray(self.take(self.size))
        return self._gathered

    def release(self) -> None:
        """Gather no more: what is left of what was gathered waits to be read again."""
        gathered, self._gathered = self._gathered, None
        if gathered:
            self._chunks = deque((bytes(gathered),))
            self.size = self._ahead = len(gathered)
            self.arrived.fire()

    def discard(self) -> None:
        """Throw away what has come, and what will."""
        self._open = False
        self._gathered = None
        self.take(self.size)

    def _taken(self, count: int) -> None:
        self.size -= count
        self.passed += count
        ahead = min(count, self._ahead)
        self._ahead -= ahead
        if count > ahead:
            self._credit(count - ahead)
