"""Channels as blocking file objects, so that ``csv``, ``json`` or ``tarfile`` read from them and write to them.

All of it may be used from any thread, and by several at once.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

from sshproto.channels.requests import Exec, ExitSignal, PtyRequest, Subsystem
from sshproto.errors import ChannelEnded, ConnectionLoss, InvalidArgument
from sshproto.operations import session
from sshproto.operations.forwarding import Address, origin_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from sshproto.channels.requests import ChannelRequestData
    from sshproto.operations.channel import Channel
    from sshproto.operations.serving import ServedSession
    from sshproto.operations.steps import Operation

_BUFFER = 64 * 1024

T = TypeVar("T")


class Link(Protocol):
    """What gives the calling thread access to a connection. Who holds it keeps the connection."""

    def perform(self, operation: Operation[T], timeout: float | None = None, what: str = ...) -> T: ...

    def apply(self, function: Callable[[], T]) -> T: ...


class _Inward(io.RawIOBase):
    """What comes on a channel, without a buffer."""

    def __init__(self, link: Link, channel: Channel, stream: int, at_close: Callable[[], None] | None) -> None:
        self._link = link
        self._channel = channel
        self._stream = stream
        self._at_close = at_close or self._discard

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._checkOpen()
        view = memoryview(buffer).cast("B")
        data = self._link.perform(self._channel.read(len(view), self._stream))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        self._checkOpen()
        return self._link.perform(self._channel.read_all(self._stream))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._at_close()

    def _discard(self) -> None:
        self._link.apply(self._channel.inbox(self._stream).discard)

    def _checkOpen(self) -> None:  # noqa: N802  as io calls it
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def __del__(self) -> None:
        """Nothing: a finalizer may run anywhere, and must not use the connection."""


class Reader(io.BufferedReader):
    """What comes on a channel, as a binary file. Closing it says that nobody reads: what comes is thrown away.

    Besides what files raise, reading raises a :class:`~sshproto.errors.ConnectionLoss` if the connection has ended
    before the stream did.
    """

    def __init__(
        self, link: Link, channel: Channel, stream: int = 0, at_close: Callable[[], None] | None = None
    ) -> None:
        super().__init__(_Inward(link, channel, stream, at_close), _BUFFER)

    def __del__(self) -> None:
        """Nothing, see above."""


class Writer(io.RawIOBase):
    """What goes out on a channel, as a binary file without a buffer: ``write`` sends everything. Closing sends EOF.

    Besides what files raise, writing raises a :class:`~sshproto.errors.ChannelEnded` if nobody reads any more, and a
    :class:`~sshproto.errors.ConnectionLoss` if the connection has ended.
    """

    def __init__(
        self, link: Link, channel: Channel, stream: int = 0, at_close: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self._link = link
        self._channel = channel
        self._stream = stream
        self._at_close = at_close or self._send_eof

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Send all of ``data``, as fast as the peer takes it, and say how much that was."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        view = memoryview(data).cast("B")
        self._link.perform(self._channel.write(view, self._stream))
        return len(view)

    def close(self) -> None:
        """Send EOF: on no stream of this channel is more sent. That nobody listens is no error."""
        if not self.closed:
            super().close()
            self._at_close()

    def _send_eof(self) -> None:
        with contextlib.suppress(ChannelEnded, ConnectionLoss):
            self._link.perform(self._channel.send_eof())

    def __del__(self) -> None:
        """Nothing, see above."""


class _Closing:
    """What ``with`` closes."""

    channel: Channel
    _link: Link

    def close(self) -> None:
        """Close the channel at once, both directions. Repeated calls do nothing."""
        self._link.apply(self.channel.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._link.apply(self.channel.close)


class Stream(_Closing):
    """Both directions of a channel, such as a TCP connection; has the methods of a socket that ``http.client`` uses.

    Attributes:
        channel: The channel.
    """

    def __init__(self, link: Link, channel: Channel) -> None:
        self._link = link
        self.channel = channel
        self._files = 1  # that are open, and one for the stream itself
        self._closed = False

    def __repr__(self) -> str:
        return f"<Stream on {self.channel!r}>"

    @property
    def origin(self) -> Address:
        """Where the connection comes from, as far as the peer has said."""
        return origin_of(self.channel.kind)

    def read(self, limit: int = -1) -> bytes:
        """At least one byte and at most ``limit``, ``b""`` at the end; everything up to the end if ``limit`` is -1.

        Raises:
            ConnectionLoss: The connection has ended before the stream did.
        """
        return self._link.perform(self.channel.read_all() if limit < 0 else self.channel.read(limit))

    recv = read

    def write(self, data: ReadableBuffer) -> None:
        """Send all of ``data``, as fast as the peer takes it.

        Raises:
            ChannelEnded: The channel is closed, or the peer reads no more.
            ChannelStateError: EOF was sent.
            ConnectionLoss: The connection has ended.
        """
        self._link.perform(self.channel.write(memoryview(data).cast("B")))

    sendall = write

    def send_eof(self) -> None:
        """Send no more. Repeated calls do nothing.

        Raises:
            ConnectionLoss: The connection has ended.
        """
        self._link.perform(self.channel.send_eof())

    def close(self) -> None:
        """Close the channel, both directions; as sockets do, when the last of its files is closed as well. Leaving
        ``with`` does not wait for them."""
        if not self._closed:
            self._closed = True
            self._release()

    def _release(self) -> None:
        self._link.apply(self._count_down)

    def _count_down(self) -> None:
        self._files -= 1
        if not self._files:
            self.channel.close()

    def makefile(
        self,
        mode: str = "r",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.BufferedReader | io.BufferedWriter | io.BufferedRWPair | io.TextIOWrapper:
        """A file over the stream, as sockets have it. Closing the file leaves the stream open.

        Args:
            mode: ``"r"``, ``"w"`` or ``"rw"``, with ``"b"`` for bytes.
            encoding, errors, newline: Of text; see :func:`open`.
        """
        kind = "".join(sorted(mode.replace("b", "")))
        if kind not in {"r", "w", "rw"}:
            raise InvalidArgument(f"the mode of a file is 'r', 'w' or 'rw', and 'b' for bytes, not {mode!r}")
        self._files += len(kind)
        if kind == "r":
            raw: Any = Reader(self._link, self.channel, 0, self._release)
        elif kind == "w":
            raw = io.BufferedWriter(Writer(self._link, self.channel, 0, self._release), _BUFFER)
        else:
            inward = _Inward(self._link, self.channel, 0, self._release)
            raw = io.BufferedRWPair(inward, Writer(self._link, self.channel, 0, self._release), _BUFFER)
        if "b" in mode:
            return cast(io.BufferedReader, raw)
        return io.TextIOWrapper(raw, encoding, errors, newline)


class Process(_Closing):
    """A program that runs at the server. Closing it closes its channel: a program that still runs is hung up on.

    Attributes:
        channel: Its session.
        stdin: What it reads.
        stdout, stderr: What it writes. Standard error comes apart only if there is no pseudo-terminal.
    """

    # Files are made when they are first asked for: there may be many processes, and a reader has a buffer.
    _stdin: Writer | None = None
    _stdout: Reader | None = None
    _stderr: Reader | None = None

    def __init__(self, link: Link, channel: Channel) -> None:
        self._link = link
        self.channel = channel

    @property
    def stdin(self) -> Writer:
        if self._stdin is None:
            self._stdin = Writer(self._link, self.channel)
        return self._stdin

    @property
    def stdout(self) -> Reader:
        if self._stdout is None:
            self._stdout = Reader(self._link, self.channel)
        return self._stdout

    @property
    def stderr(self) -> Reader:
        if self._stderr is None:
            self._stderr = Reader(self._link, self.channel, 1)
        return self._stderr

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

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the program's end: its status, or None if a signal ended it or the server did not say.

        A program that writes more than the window holds does not end before that is read.

        Args:
            timeout: Seconds after which to give up. The program goes on.

        Raises:
            TimeoutExpired: It took too long.
            ConnectionLoss: The connection has ended before.
        """
        self._link.perform(self.channel.until_exit(), timeout, "waiting for the program")
        return self.channel.exit_status

    def send_signal(self, name: str) -> None:
        """Send it a signal (RFC 4254 section 6.9): ``"TERM"``, without ``SIG``. Not all servers obey.

        Raises:
            ChannelEnded: It has ended.
        """
        self._link.perform(session.send_signal(self.channel, name))

    def resize(self, columns: int, rows: int, width: int = 0, height: int = 0) -> None:
        """Tell it the size of its terminal, in characters and in pixels.

        Raises:
            ChannelEnded: It has ended.
        """
        self._link.perform(session.resize(self.channel, columns, rows, width, height))


class ServerSession:
    """A session at the server, as its handler sees it.

    Attributes:
        channel: The channel.
        user: Who is logged in.
        program: What to run: ``Exec``, ``Shell`` or ``Subsystem``.
        env: The variables that the client sent. Use only those known to be harmless.
        permit: What the login may do.
        provided: Variables for the program that come from this side: ``SSH_AUTH_SOCK``, ``DISPLAY``.
        display: The display that was granted, or None.
        pty: The pseudo-terminal that was granted, or None.
        stdin: What the client sends.
        stdout, stderr: What the client gets.
    """

    _stdin: Reader | None = None
    _stdout: Writer | None = None
    _stderr: Writer | None = None

    def __init__(self, link: Link, served: ServedSession) -> None:
        self._link = link
        self._served = served
        self.channel = served.channel
        self.user = served.user
        self.program = served.program
        self.env = served.env
        self.permit = served.permit
        self.provided = served.provided
        self.display = served.display
        self.pty: PtyRequest | None = served.pty

    @property
    def stdin(self) -> Reader:
        if self._stdin is None:
            self._stdin = Reader(self._link, self.channel)
        return self._stdin

    @property
    def stdout(self) -> Writer:
        if self._stdout is None:
            self._stdout = Writer(self._link, self.channel)
        return self._stdout

    @property
    def stderr(self) -> Writer:
        if self._stderr is None:
            self._stderr = Writer(self._link, self.channel, 1)
        return self._stderr

    @property
    def command(self) -> bytes | None:
        """The command to run, if it is one."""
        return self.program.command if isinstance(self.program, Exec) else None

    @property
    def subsystem(self) -> str | None:
        """The subsystem to run, if it is one."""
        return self.program.name if isinstance(self.program, Subsystem) else None

    def next_notice(self, timeout: float | None = None) -> ChannelRequestData | None:
        """The next ``WindowChange``, ``Signal`` or ``Break`` of the client; None when the channel is closed.

        Raises:
            TimeoutExpired: None came in so many seconds.
        """
        return self._link.perform(self._served.next_notice(), timeout, "waiting for a notice")
