"""Channels as Trio's streams.

What Trio's interfaces name (``send_all``, ``receive_some``, ``send_eof``, ``aclose``) does as they say and raises what
they say, with the reason chained.  The other methods are those of all faces and raise what they raise there.
"""

from __future__ import annotations

import contextlib
import operator
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from sshproto.operations.channel import Channel
from sshproto.operations.steps import Operation
from sshproto_io import _async_streams
from sshproto_io._async_link import ENDED, Link
from sshproto_io._trio_link import Waiter

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sshproto.wire.codec import Buffer

_PIECE = 256 * 1024

T = TypeVar("T")


class Gate:
    """One direction of a stream, for Trio's methods: one task at a time, until it is closed."""

    __slots__ = ("_busy", "_waiter", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._busy = False
        self._waiter: Waiter | None = None

    async def perform(self, link: Any, operation: Operation[T]) -> T:
        """Run an operation as the one task. It only reads or writes, and so waits for nothing but its connection."""
        if self.closed or self._busy:
            operation.close()
            if self.closed:
                raise trio.ClosedResourceError("this stream is closed")
            raise trio.BusyResourceError("another task is using this stream")
        self._busy = True
        try:
            # Most have nothing to wait for, and then all this is about the checkpoint. There is no frame but this one.
            await trio.lowlevel.checkpoint_if_cancelled()
            step: Any = operation.send(None)
            while True:
                self._waiter = waiter = Waiter(link, step)
                try:
                    await waiter.rest()
                finally:
                    waiter.end()
                if self.closed:
                    raise trio.ClosedResourceError("this stream was closed")
                step = operation.send(None)
        except StopIteration as end:
            link._moved()
            if self._waiter is None:  # nobody else has run
                await trio.lowlevel.cancel_shielded_checkpoint()
            result: T = end.value
        except BaseException as error:
            operation.close()  # which may not have begun
            link.flush()
            if isinstance(error, ENDED):
                raise trio.BrokenResourceError(str(error)) from error
            raise
        finally:
            self._busy = False
            self._waiter = None
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")
        return result

    def close(self) -> None:
        """Let nobody pass any more, and send away who is inside."""
        self.closed = True
        if self._waiter is not None:
            self._waiter()


class Reader(_async_streams.Reader, trio.abc.ReceiveStream):
    """One direction of a channel: what comes from the peer.

    Cancelling a read loses nothing.  Iterating gives pieces, iterating over :meth:`lines` gives lines.
    """

    def __init__(self, link: Link, channel: Channel, stream: int = 0) -> None:
        _async_streams.Reader.__init__(self, link, channel, stream)
        self._receiving = Gate()

    def receive_some(  # pyright: ignore[reportIncompatibleMethodOverride]  to it, nothing else is a coroutine function
        self, max_bytes: int | None = None
    ) -> Coroutine[Any, Any, bytes]:
        """At least one byte and at most ``max_bytes``, ``b""`` at the end.

        Raises:
            BrokenResourceError: The connection has ended before the stream did.
            ClosedResourceError: It was closed on this side.
            BusyResourceError: Another task is receiving.
        """
        limit = _PIECE if max_bytes is None else operator.index(max_bytes)
        if limit < 1:
            raise ValueError("max_bytes must be at least 1")
        return self._receiving.perform(self._link, self._channel.read(limit, self._stream))

    async def aclose(self) -> None:
        """Read no more: what comes is thrown away."""
        self._receiving.close()
        self._channel.inbox(self._stream).discard()
        self._link.flush()
        await trio.lowlevel.checkpoint()


class Writer(_async_streams.Writer, trio.abc.SendStream):
    """One direction of a channel: what goes to the peer."""

    def __init__(self, link: Link, channel: Channel, stream: int = 0) -> None:
        _async_streams.Writer.__init__(self, link, channel, stream)
        self._sending = Gate()

    async def send_all(self, data: Buffer) -> None:
        """Send all of ``data``, as fast as the peer takes it.

        Raises:
            BrokenResourceError: The other end is gone, or reads no more.
            ClosedResourceError: It was closed on this side, or EOF was sent.
            BusyResourceError: Another task is sending.
        """
        if self._channel.eof_sent and not self._sending.closed:
            raise trio.ClosedResourceError("EOF was sent")
        await self._sending.perform(self._link, self._channel.write(data, self._stream))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room.

        Raises:
            BrokenResourceError, ClosedResourceError, BusyResourceError: See :meth:`send_all`.
        """
        if self._channel.eof_sent and not self._sending.closed:
            raise trio.ClosedResourceError("EOF was sent")
        await self._sending.perform(self._link, _until_room(self._channel, self._stream))

    async def send_eof(self) -> None:
        """Send no more data, on no stream of this channel. Repeated calls do nothing.

        Raises:
            BrokenResourceError: The connection has ended.
            ClosedResourceError: It was closed on this side.
            BusyResourceError: Another task is sending.
        """
        await self._sending.perform(self._link, self._channel.send_eof())

    async def aclose(self) -> None:
        """Send EOF, and no more data, on no stream of this channel. It is no error if nobody listens."""
        if not self._sending.closed:
            self._sending.close()
            self._link.spawn(_end(self._channel))  # in the background: it may have to wait, and we must not
            self._link.flush()
        await trio.lowlevel.checkpoint()


class Stream(  # pyright: ignore[reportIncompatibleMethodOverride]  as above
    Reader, Writer, _async_streams.Stream, trio.abc.HalfCloseableStream
):
    """Both directions of a channel, such as a TCP connection."""

    def __init__(self, link: Link, channel: Channel) -> None:
        _async_streams.Stream.__init__(self, link, channel)
        self._receiving = Gate()
        self._sending = Gate()

    async def aclose(self) -> None:
        """Close it at once, both directions."""
        self._receiving.close()
        self._sending.close()
        await self._link.shut(self._channel)


def _until_room(channel: Channel, stream: int) -> Operation[None]:
    conn = channel.hub.conn
    while True:
        yield from channel.write(b"", stream)  # raises what more of it would raise
        if conn.sendable(channel.number):
            return
        conn.send(channel.number, b"-", stream)  # takes nothing now, but has the room told when there is some
        yield channel.writable


def _end(channel: Channel) -> Operation[None]:
    with contextlib.suppress(*ENDED):
        yield from channel.send_eof()
