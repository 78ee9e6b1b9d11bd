"""Streams and processes whose methods are ``async``, for both asynchronous faces."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sshproto.channels.requests import ExitSignal
from sshproto.errors import LimitReached
from sshproto.operations import forwarding, session
from sshproto.operations.channel import LINE_LIMIT, Channel
from sshproto.operations.forwarding import Address
from sshproto_io._async_link import ENDED, Closing, Link

if TYPE_CHECKING:
    from sshproto.wire.codec import Buffer


# What only performs an operation is an ordinary function that gives what is to be awaited: there may be many tasks that
# wait in one, and each would have a frame of it.


class Reader:
    """One direction of a channel: what comes from the peer.

    Cancelling a read loses nothing.  Iterating over :meth:`lines` gives lines.
    """

    __slots__ = ("_channel", "_link", "_stream")

    def __init__(self, link: Link, channel: Channel, stream: int = 0) -> None:
        self._link = link
        self._channel = channel
        self._stream = stream

    def read(self, limit: int = -1) -> Coroutine[Any, Any, bytes]:
        """At least one byte and at most ``limit``, ``b""`` at the end; everything up to the end if ``limit`` is -1.

        Raises:
            ConnectionLoss: The connection has ended before the stream did.
        """
        if limit < 0:
            return self._link.perform(self._channel.read_all(self._stream))
        return self._link.perform(self._channel.read(limit, self._stream))

    def read_exactly(self, count: int) -> Coroutine[Any, Any, bytes]:
        """``count`` bytes; fewer only at the end.

        Raises:
            ConnectionLoss: The connection has ended before the stream did.
        """
        return self._link.perform(self._channel.read_exactly(count, self._stream))

    def read_until(self, separator: bytes, limit: int = LINE_LIMIT) -> Coroutine[Any, Any, bytes]:
        """Everything up to the next ``separator``, and that; at the end whatever is left.

        Raises:
            LimitReached: It is not among the first ``limit`` bytes, which can still be read.
            ConnectionLoss: The connection has ended before the stream did.
        """
        return self._link.perform(self._channel.read_until(separator, limit, self._stream))

    def read_line(self, limit: int = LINE_LIMIT) -> Coroutine[Any, Any, bytes]:
        """A line with its LF; see :meth:`read_until`."""
        return self.read_until(b"\n", limit)

    def lines(self, limit: int = LINE_LIMIT) -> AsyncIterator[bytes]:
        """The lines, each with its LF; a longer one than ``limit`` comes in pieces."""
        return _Lines(self, limit)

    async def aclose(self) -> None:
        """Read no more: what comes is thrown away."""
        self._channel.inbox(self._stream).discard()
        self._link.flush()


class _Lines(AsyncIterator[bytes]):
    """No asynchronous generator, since who stops in the midst would have to close that."""

    def __init__(self, reader: Reader, limit: int) -> None:
        self._reader = reader
        self._limit = limit

    async def __anext__(self) -> bytes:
        try:
            line = await self._reader.read_line(self._limit)
        except LimitReached:
            line = await self._reader.read(self._limit)
        if not line:
            raise StopAsyncIteration
        return line


class Writer:
    """One direction of a channel: what goes to the peer."""

    def __init__(self, link: Link, channel: Channel, stream: int = 0) -> None:
        self._link = link
        self._channel = channel
        self._stream = stream

    def write(self, data: Buffer) -> Coroutine[Any, Any, None]:
        """Send all of ``data``, as fast as the peer takes it.

        Raises:
            ChannelEnded: The channel is closed, or the peer reads no more.
            ChannelStateError: EOF was sent.
            ConnectionLoss: The connection has ended.
        """
        return self._link.perform(self._channel.write(data, self._stream))

    async def send_eof(self) -> None:
        """Send no more data, on no stream of this channel. Repeated calls do nothing."""
        await self._link.complete(self._channel.send_eof())

    async def aclose(self) -> None:
        """The same as :meth:`send_eof`, and never an error: nobody listens, then."""
        with contextlib.suppress(*ENDED):
            await self.send_eof()


class Stream(Reader, Writer, Closing):
    """Both directions of a channel, such as a TCP connection."""

    channel: Channel

    def __init__(self, link: Link, channel: Channel) -> None:
        Reader.__init__(self, link, channel)
        self.channel = channel

    @property
    def origin(self) -> Address:
        """Where the connection comes from, as far as the peer has said."""
        return forwarding.origin_of(self._channel.kind)

    async def aclose(self) -> None:
        """Close it at once, both directions."""
        await self._link.shut(self._channel)


R = TypeVar("R", bound=Reader)
W = TypeVar("W", bound=Writer)


class Process(Closing, Generic[R, W]):
    """A program that runs at the server.

    Attributes:
        channel: Its session.
        stdin: What it reads.
        stdout, stderr: What it writes.
    """

    READER: type[R]
    WRITER: type[W]

    def __init__(self, link: Link, channel: Channel) -> None:
        self._link = link
        self.channel = channel

    # Made when they are asked for: there may be many processes of which nobody uses all.

    @functools.cached_property
    def stdin(self) -> W:
        return self.WRITER(self._link, self.channel)

    @functools.cached_property
    def stdout(self) -> R:
        return self.READER(self._link, self.channel)

    @functools.cached_property
    def stderr(self) -> R:
        return self.READER(self._link, self.channel, 1)

    def __repr__(self) -> str:
        return f"<Process on channel {self.channel.number}, status {self.exit_status}>"

    @property
    def exit_status(self) -> int | None:
        """Its status, once the server has told."""
        return self.channel.exit_status

    @property
    def exit_signal(self) -> ExitSignal | None:
        """The signal that ended it, once the server has told."""
        return self.channel.exit_signal

    async def wait(self) -> int | None:
        """Wait for the program's end: its status, or None if a signal ended it or the server did not say.

        A program that writes more than the window holds does not end before that is read.

        Raises:
            ConnectionLoss: The connection has ended before.
        """
        await self._link.complete(self.channel.until_exit())
        return self.channel.exit_status

    async def send_signal(self, name: str) -> None:
        """Send it a signal (RFC 4254 section 6.9): ``"TERM"``, without ``SIG``. Not all servers obey.

        Raises:
            ChannelEnded: It has ended.
        """
        await self._link.perform(session.send_signal(self.channel, name))

    async def resize(self, columns: int, rows: int, width: int = 0, height: int = 0) -> None:
        """Tell it the size of its terminal, in characters and in pixels.

        Raises:
            ChannelEnded: It has ended.
        """
        await self._link.perform(session.resize(self.channel, columns, rows, width, height))

    async def aclose(self) -> None:
        """Close its channel. A program that still runs is hung up on."""
        await self._link.shut(self.channel)
