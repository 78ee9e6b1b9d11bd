"""What the two asynchronous faces share: connections, processes and streams whose methods are ``async``.

Nothing here knows which of the two it runs under; that is a :class:`Link`.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

from sshproto.channels.requests import Exec, ExitSignal, PtyRequest, Shell, Subsystem
from sshproto.errors import ChannelEnded, ConnectionLoss, LimitReached
from sshproto.operations import forwarding, session
from sshproto.operations.channel import LINE_LIMIT, Channel
from sshproto.operations.forwarding import Address
from sshproto.operations.session import Completed, octets
from sshproto.operations.socks import forward_dynamic
from sshproto.operations.steps import Operation, Wait
from sshproto_io import LINGER
from sshproto_io.sockets import Resolve, SocketStream, dial, listen_at

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelRequestData
    from sshproto.client import ClientConnection
    from sshproto.config import ServerConfig
    from sshproto.operations.hub import Hub
    from sshproto.operations.serving import Handler, ServedSession
    from sshproto.server import ServerConnection
    from sshproto.wire.codec import Buffer

T = TypeVar("T")

ENDED = (ChannelEnded, ConnectionLoss)
"""The other end is gone."""


def parts(error: BaseException | None) -> tuple[Exception, ...]:
    """What is in a group of errors; nothing if it is none."""
    if not isinstance(error, ExceptionGroup):
        return ()
    found: tuple[Exception, ...] = cast(Any, error).exceptions
    return found


class Closing(Protocol):
    """What has an end."""

    async def aclose(self) -> None: ...


X = TypeVar("X", bound=Closing)


class Opening(Generic[X]):
    """Something that takes a while to get: ``await`` it and close it yourself, or use it with ``async with``."""

    def __init__(self, get: Callable[[], Awaitable[X]]) -> None:
        self._get = get
        self._got: X | None = None

    def __await__(self) -> Generator[Any, Any, X]:
        return self._get().__await__()

    async def __aenter__(self) -> X:
        self._got = await self._get()
        return self._got

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._got is not None:
            await self._got.aclose()


class Link(ABC):
    """A connection that operations run on.

    Attributes:
        resolve: Looks names up.
    """

    resolve: Resolve

    _STEPS: ClassVar[dict[type, Callable[[Any, Any], Awaitable[Any]]]]
    """How each kind of step is done."""
    _WRAPPERS: ClassVar[tuple[type[Exception], ...]] = ()
    """Exceptions that say in this world that the other end is gone; why is chained."""

    async def perform(self, operation: Operation[T]) -> T:
        """Run an operation on this connection.

        Raises:
            Exception: What the operation raises.
        """
        return await self._run(operation, operation.send)

    async def _run(self, operation: Operation[T], advance: Callable[[Any], Any]) -> T:
        argument: Any = None
        try:
            while True:
                step = advance(argument)
                try:
                    argument = await self._STEPS[type(step)](self, step)
                    advance = operation.send
                except Exception as error:  # noqa: BLE001  it is the operation's
                    argument = self._told(error)
                    advance = operation.throw
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            operation.close()
            self.flush()

    def _told(self, error: Exception) -> Exception:
        """What an operation hears of an error: that the other end is gone, if a function of ours has met only that."""
        reasons = [self._told(part) for part in parts(error)]
        if reasons:
            return reasons[0] if all(isinstance(reason, ENDED) for reason in reasons) else error
        cause = error.__cause__
        return cause if isinstance(error, self._WRAPPERS) and isinstance(cause, ENDED) else error

    @abstractmethod
    def spawn(self, operation: Operation[Any]) -> Callable[[], object]:
        """Run an operation in the background until the connection ends; see :class:`Spawn`.

        Returns:
            A function that cancels it.
        """

    @abstractmethod
    def flush(self) -> None:
        """Send what there is. To be called after any command to the connection that is not an operation's."""

    async def shut(self, channel: Channel) -> None:
        """Close a channel at once, both directions."""
        channel.close()
        self.flush()


class Beginning:
    """The first step of an operation, which it takes now; a call gives it out when there is a task that can do it.

    Args:
        operation: A new one.
    """

    def __init__(self, operation: Operation[Any]) -> None:
        self._operation = operation
        self._step: Any = None
        self._problem: Exception | None = None
        self._fired = False
        try:
            self._step = operation.send(None)
        except Exception as error:  # noqa: BLE001  its end, or it is the operation's
            self._problem = error
        self._wait = self._step if isinstance(self._step, Wait) else getattr(self._step, "until", None)
        if self._wait is not None:
            self._wait.subscribe(self._fire)

    def _fire(self) -> None:
        self._fired = True

    def __call__(self, _: object) -> Any:
        if self._wait is not None:
            self._wait.unsubscribe(self._fire)
        if self._problem is not None:
            raise self._problem
        return self._operation.send(None) if self._fired else self._step


class Reader:
    """One direction of a channel: what comes from the peer.

    Cancelling a read loses nothing.  Iterating over :meth:`lines` gives lines.
    """

    def __init__(self, link: Link, channel: Channel, stream: int = 0) -> None:
        self._link = link
        self._channel = channel
        self._stream = stream

    async def read(self, limit: int = -1) -> bytes:
        """At least one byte and at most ``limit``, ``b""`` at the end; everything up to the end if ``limit`` is -1.

        Raises:
            ConnectionLoss: The connection has ended before the stream did.
        """
        if limit < 0:
            return await self._link.perform(self._channel.read_all(self._stream))
        return await self._link.perform(self._channel.read(limit, self._stream))

    async def read_exactly(self, count: int) -> bytes:
        """``count`` bytes; fewer only at the end.

        Raises:
            ConnectionLoss: The connection has ended before the stream did.
        """
        return await self._link.perform(self._channel.read_exactly(count, self._stream))

    async def read_until(self, separator: bytes, limit: int = LINE_LIMIT) -> bytes:
        """Everything up to the next ``separator``, and that; at the end whatever is left.

        Raises:
            LimitReached: It is not among the first ``limit`` bytes, which can still be read.
            ConnectionLoss: The connection has ended before the stream did.
        """
        return await self._link.perform(self._channel.read_until(separator, limit, self._stream))

    async def read_line(self, limit: int = LINE_LIMIT) -> bytes:
        """A line with its LF; see :meth:`read_until`."""
        return await self.read_until(b"\n", limit)

    def lines(self, limit: int = LINE_LIMIT) -> AsyncIterator[bytes]:
        """The lines, each with its LF; a longer one than ``limit`` comes in pieces."""
        return _Lines(self, limit)

    async def aclose(self) -> None:
        """Read no more: what comes is thrown away."""
        self._channel.inboxes[self._stream].discard()
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

    async def write(self, data: Buffer) -> None:
        """Send all of ``data``, as fast as the peer takes it.

        Raises:
            ChannelEnded: The channel is closed, or the peer reads no more.
            ChannelStateError: EOF was sent.
            ConnectionLoss: The connection has ended.
        """
        await self._link.perform(self._channel.write(data, self._stream))

    async def send_eof(self) -> None:
        """Send no more data, on no stream of this channel. Repeated calls do nothing."""
        await self._link.perform(self._channel.send_eof())

    async def aclose(self) -> None:
        """The same as :meth:`send_eof`, and never an error: nobody listens, then."""
        with contextlib.suppress(*ENDED):
            await self.send_eof()


class Stream(Reader, Writer):
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


R = TypeVar("R", bound=Reader)
W = TypeVar("W", bound=Writer)


class Process(Generic[R, W]):
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
        self.stdin = self.WRITER(link, channel)
        self.stdout = self.READER(link, channel)
        self.stderr = self.READER(link, channel, 1)

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
        await self._link.perform(self.channel.until_exit())
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


class Forward:
    """Something that listens, here or at the server, and what comes is taken to the other side.

    Attributes:
        addresses: Where it listens.
    """

    def __init__(self, link: Link, addresses: tuple[Address, ...], operation: Operation[None]) -> None:
        self._link = link
        self.addresses = addresses
        self._over = False
        self._ended = Wait()
        self._cancel = link.spawn(self._run(operation))

    def __repr__(self) -> str:
        return f"<Forward from {', '.join(map(forwarding.show, self.addresses))}>"

    @property
    def address(self) -> Address:
        """Where it listens, or the first of several."""
        return self.addresses[0]

    @property
    def port(self) -> int:
        """The port of :attr:`address`; 0 if that is a path."""
        return 0 if isinstance(self.address, str) else self.address[1]

    def close(self) -> None:
        """Listen no more. Connections that came before go on."""
        self._cancel()

    async def aclose(self) -> None:
        """The same as :meth:`close`, and wait until that is done here."""
        self.close()
        await self._link.perform(self._until_over())

    def _run(self, operation: Operation[None]) -> Operation[None]:
        try:
            yield from operation
        finally:
            self._over = True
            self._ended.fire()

    def _until_over(self) -> Operation[None]:
        while not self._over:
            yield self._ended


P = TypeVar("P", bound=Process[Any, Any])
S = TypeVar("S", bound=Stream)


class ClientLink(Link, Generic[P, S]):
    """A client's connection, logged in.

    Attributes:
        hub: Its events.
        conn: The connection itself.
    """

    PROCESS: type[P]
    STREAM: type[S]

    hub: Hub[ClientConnection]
    conn: ClientConnection

    @abstractmethod
    async def within(self, seconds: float | None, operation: Operation[T], what: str) -> T:
        """Run an operation and give up after ``seconds``.

        Raises:
            TimeoutExpired: It took longer; ``what`` says what did.
        """

    async def run(
        self,
        command: str | bytes,
        *,
        input: Buffer = b"",
        check: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  as in all faces
        pty: PtyRequest | None = None,
        env: Mapping[str, str | bytes] | None = None,
    ) -> Completed:
        """Run a command to its end, with all it writes kept in memory.

        Args:
            command: For the user's shell at the server; text is sent as UTF-8.
            input: Its standard input.
            check: Raise if its status is not 0.
            timeout: Seconds after which to give up, and hang up on it.
            pty: The pseudo-terminal that it is to have.
            env: Environment variables; servers take few, and do not say which.

        Raises:
            CommandFailed: ``check``, and it has failed.
            TimeoutExpired: It took too long.
            OpenRefused, RequestRefused: The server will not run it.
            ConnectionLoss: The connection ended before the command did.
            UsageError: It cannot be asked for.
        """
        job = session.run(self.hub, command, input=input, check=check, pty=pty, env=env)
        return await self.within(timeout, job, "the command")

    def start(
        self,
        command: str | bytes,
        *,
        pty: PtyRequest | None = None,
        env: Mapping[str, str | bytes] | None = None,
    ) -> Opening[P]:
        """Start a command: a :class:`Process`, by ``await`` or ``async with``. The arguments are :meth:`run`'s.

        Raises:
            OpenRefused, RequestRefused: The server will not run it.
            ConnectionLoss: The connection has ended.
            UsageError: It cannot be asked for.
        """
        return self._begin(Exec(octets(command)), pty, env)

    def shell(self, *, pty: PtyRequest | None = None, env: Mapping[str, str | bytes] | None = None) -> Opening[P]:
        """Start the user's shell; see :meth:`start`."""
        return self._begin(Shell(), pty, env)

    def subsystem(self, name: str, *, env: Mapping[str, str | bytes] | None = None) -> Opening[P]:
        """Start a subsystem, such as ``"sftp"``; see :meth:`start`."""
        return self._begin(Subsystem(name), None, env)

    def _begin(
        self, program: session.Program, pty: PtyRequest | None, env: Mapping[str, str | bytes] | None
    ) -> Opening[P]:
        async def get() -> P:
            return self.PROCESS(self, await self.perform(session.start(self.hub, program, pty=pty, env=env)))

        return Opening(get)

    def open_tcp(self, host: str, port: int) -> Opening[S]:
        """A TCP connection that the server makes: a :class:`Stream`, by ``await`` or ``async with``.

        Raises:
            OpenRefused: The server will not, or can't reach it.
            ConnectionLoss: The connection has ended.
            InvalidArgument: It cannot be asked for.
        """
        return self._open((host, port))

    def open_unix(self, path: str) -> Opening[S]:
        """A connection that the server makes to a Unix-domain socket; see :meth:`open_tcp`."""
        return self._open(path)

    def _open(self, target: Address) -> Opening[S]:
        async def get() -> S:
            return self.STREAM(self, await self.perform(forwarding.open_to(self.hub, target)))

        return Opening(get)

    def forward_local(self, listen: Address, target: Address) -> Opening[Forward]:
        """Listen here, and have what comes connected by the server.

        Args:
            listen: A host and a port to listen at, 0 to have one chosen; or the path of a socket to be made.
            target: Where the server is to connect to: a host and a port, or a path.

        Raises:
            OSError: It cannot listen there.
        """
        return self._forward(listen, lambda listener: forwarding.forward_local(self.hub, listener, target))

    def forward_dynamic(self, listen: Address) -> Opening[Forward]:
        """Listen here as a SOCKS proxy (4, 4a and 5), and have the server make the connections.

        Args:
            listen: See :meth:`forward_local`.

        Raises:
            OSError: It cannot listen there.
        """
        return self._forward(listen, lambda listener: forward_dynamic(self.hub, listener))

    def _forward(self, listen: Address, serve: Callable[[Any], Operation[None]]) -> Opening[Forward]:
        async def get() -> Forward:
            self.hub.check()
            listener = await self.perform(listen_at(listen, self.resolve))
            return Forward(self, listener.addresses, serve(listener))

        return Opening(get)

    def forward_remote(self, listen: Address, target: Address) -> Opening[Forward]:
        """Have the server listen, and connect what comes from here.

        Args:
            listen: An address of the server (``""`` for all, ``"localhost"``) and a port, 0 to have one chosen; or the
                path of a socket that it makes.
            target: Where to connect to: a host and a port, or a path.

        Raises:
            RequestRefused: The server will not.
            ConnectionLoss: The connection has ended.
            InvalidArgument: It cannot be asked for.
        """

        async def get() -> Forward:
            invited = await self.perform(forwarding.listen(self.hub, listen))
            job = forwarding.forward_remote(self.hub, invited, lambda _: dial(target, self.resolve))
            return Forward(self, (invited.address,), job)

        return Opening(get)

    async def tunnel(self, host: str, port: int) -> socket.socket:
        """A socket that leads to ``host``, by a connection that the server makes.

        Raises:
            OpenRefused: The server will not, or can't reach it.
            ConnectionLoss: The connection has ended.
        """
        channel = await self.perform(forwarding.open_to(self.hub, (host, port)))
        ours, theirs = socket.socketpair()
        self.spawn(forwarding.relay(channel, SocketStream(theirs), LINGER))
        return ours

    async def rekey(self) -> None:
        """Exchange keys, and wait until that is done.

        Raises:
            ConnectionLoss: The connection has ended.
        """
        await self.perform(self.hub.rekey())

    async def until_ended(self) -> ConnectionLoss:
        """Wait for the end of the connection, and say why it came."""
        return await self.perform(self.hub.until_ended())


class ServerSession(Generic[R, W]):
    """A session at the server, as its handler sees it.

    Attributes:
        channel: The channel.
        user: Who is logged in.
        program: What to run: ``Exec``, ``Shell`` or ``Subsystem``.
        env: The variables that the client sent. Use only those known to be harmless.
        pty: The pseudo-terminal that was granted, or None.
        stdin: What the client sends.
        stdout, stderr: What the client gets.
    """

    READER: type[R]
    WRITER: type[W]

    def __init__(self, link: Link, served: ServedSession) -> None:
        self._link = link
        self._served = served
        self.channel = served.channel
        self.user = served.user
        self.program = served.program
        self.env = served.env
        self.pty = served.pty
        self.stdin = self.READER(link, served.channel)
        self.stdout = self.WRITER(link, served.channel)
        self.stderr = self.WRITER(link, served.channel, 1)

    @property
    def command(self) -> bytes | None:
        """The command to run, if it is one."""
        return self.program.command if isinstance(self.program, Exec) else None

    @property
    def subsystem(self) -> str | None:
        """The subsystem to run, if it is one."""
        return self.program.name if isinstance(self.program, Subsystem) else None

    async def next_notice(self) -> ChannelRequestData | None:
        """The next ``WindowChange``, ``Signal`` or ``Break`` of the client; None when the channel is closed."""
        return await self._link.perform(self._served.next_notice())


class Guest(Protocol):
    """A connection that has come to a server."""

    @property
    def hub(self) -> Hub[ServerConnection]: ...


G = TypeVar("G", bound=Guest)


class BaseServer(Generic[G]):
    """Who is at a server, and how many that may be.

    Attributes:
        config: The server's decisions.
        handler: Makes the handler of a connection.
        connections: Those that there are.
        addresses: Where it listens.
        on_bug: Told of what the handlers raise.
    """

    def __init__(
        self,
        config: ServerConfig,
        handler: Callable[[G], Handler],
        max_connections: int,
        max_strangers: int,
        on_bug: Callable[[Exception], object],
    ) -> None:
        self.config = config
        self.handler = handler
        self.on_bug = on_bug
        self.connections: set[G] = set()
        self.addresses: tuple[tuple[str, int], ...] = ()
        self._max_connections = max_connections
        self._max_strangers = max_strangers
        self._strangers: set[G] = set()

    @property
    def port(self) -> int:
        """The port of the first of :attr:`addresses`."""
        return self.addresses[0][1]

    def listens(self, socks: Iterable[Any]) -> None:
        """It has these sockets to listen with."""
        names = [sock.getsockname() for sock in socks]
        self.addresses = tuple((str(name[0]), int(name[1])) for name in names)

    def admit(self, connection: G) -> bool:
        """Whether there is room for one more."""
        if len(self.connections) >= self._max_connections or len(self._strangers) >= self._max_strangers:
            return False
        self.connections.add(connection)
        self._strangers.add(connection)
        connection.hub.opened.subscribe(functools.partial(self._strangers.discard, connection))
        return True

    def forget(self, connection: G) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self._strangers.discard(connection)
