"""What the two asynchronous faces share: connections, forwards, sessions and servers whose methods are ``async``.

Nothing here knows which of the two it runs under; that is a :class:`~sshproto_io._async_link.Link`.
"""

from __future__ import annotations

import errno
import functools
import socket
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from sshproto.channels.requests import Exec, PtyRequest, Shell, Subsystem
from sshproto.errors import ConnectionLoss
from sshproto.operations import forwarding, session
from sshproto.operations.forwarding import Address
from sshproto.operations.session import Completed, octets
from sshproto.operations.socks import forward_dynamic
from sshproto.operations.steps import Operation, Wait
from sshproto_io import LINGER
from sshproto_io._async_link import Closing, Link, Opening
from sshproto_io._async_streams import Process, Reader, Stream, Writer
from sshproto_io.sockets import PORT_CHOICES, SocketStream, dial, listen_at

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelRequestData
    from sshproto.client import ClientConnection
    from sshproto.config import ServerConfig
    from sshproto.keys.permits import Permit
    from sshproto.operations.channel import Channel
    from sshproto.operations.granting import GrantedDisplay
    from sshproto.operations.hub import Hub
    from sshproto.operations.serving import Handler, ServedSession
    from sshproto.operations.x11 import X11Forwarding
    from sshproto.server import ServerConnection
    from sshproto.wire.codec import Buffer
    from sshproto_io.offers import ForwardedAgent

T = TypeVar("T")
R = TypeVar("R", bound=Reader)
W = TypeVar("W", bound=Writer)


class Forward(Closing):
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
    async def within(self, seconds: float, operation: Operation[T], what: str) -> T:
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
        agent: ForwardedAgent = None,
        x11: X11Forwarding | None = None,
    ) -> Completed:
        """Run a command to its end, with all it writes kept in memory.

        Args:
            command: For the user's shell at the server; text is sent as UTF-8.
            input: Its standard input.
            check: Raise if its status is not 0.
            timeout: Seconds after which to give up, and hang up on it.
            pty: The pseudo-terminal that it is to have.
            env: Environment variables; servers take few, and do not say which.
            agent: The agent that it is to have: True for the one that ``SSH_AUTH_SOCK`` names, the path of its socket,
                or an :class:`~sshproto.operations.agent_forwarding.AgentForwarding`.
            x11: The display that it is to have, from :func:`sshproto_io.displays.display`.

        Raises:
            CommandFailed: ``check``, and it has failed.
            TimeoutExpired: It took too long.
            OpenRefused, RequestRefused: The server will not run it.
            ConnectionLoss: The connection ended before the command did.
            UsageError: It cannot be asked for.
        """
        job = session.run(
            self.hub,
            command,
            input=input,
            check=check,
            pty=pty,
            env=env,
            **self._offers(agent, x11),
        )
        return await (self.complete(job) if timeout is None else self.within(timeout, job, "the command"))

    def start(
        self,
        command: str | bytes,
        *,
        pty: PtyRequest | None = None,
        env: Mapping[str, str | bytes] | None = None,
        agent: ForwardedAgent = None,
        x11: X11Forwarding | None = None,
    ) -> Opening[P]:
        """Start a command: a :class:`Process`, by ``await`` or ``async with``. The arguments are :meth:`run`'s.

        Raises:
            OpenRefused, RequestRefused: The server will not run it.
            ConnectionLoss: The connection has ended.
            UsageError: It cannot be asked for.
        """
        return self._begin(Exec(octets(command)), pty, env, agent, x11)

    def shell(
        self,
        *,
        pty: PtyRequest | None = None,
        env: Mapping[str, str | bytes] | None = None,
        agent: ForwardedAgent = None,
        x11: X11Forwarding | None = None,
    ) -> Opening[P]:
        """Start the user's shell; see :meth:`start`."""
        return self._begin(Shell(), pty, env, agent, x11)

    def subsystem(self, name: str, *, env: Mapping[str, str | bytes] | None = None) -> Opening[P]:
        """Start a subsystem, such as ``"sftp"``; see :meth:`start`."""
        return self._begin(Subsystem(name), None, env)

    def _begin(
        self,
        program: session.Program,
        pty: PtyRequest | None,
        env: Mapping[str, str | bytes] | None,
        agent: ForwardedAgent = None,
        x11: X11Forwarding | None = None,
    ) -> Opening[P]:
        offers = self._offers(agent, x11)

        async def get() -> P:
            starting = session.start(self.hub, program, pty=pty, env=env, **offers)
            return self.PROCESS(self, await self.perform(starting))

        return Opening(get)

    def _offers(self, agent: ForwardedAgent, x11: X11Forwarding | None) -> dict[str, Any]:
        """What a session offers to the server, as arguments of operations."""
        if agent is None and x11 is None:
            return {}
        from sshproto_io.offers import agent_forwarding, x11_forwarding  # few offer anything

        return {"agent": agent_forwarding(agent), "x11": x11_forwarding(x11, self.resolve)}

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
        permit: What the login may do.
        provided: Variables for the program that come from this side: ``SSH_AUTH_SOCK``, ``DISPLAY``.
        display: The display that was granted, or None.
        pty: The pseudo-terminal that was granted, or None.
        stdin: What the client sends.
        stdout, stderr: What the client gets.
    """

    READER: type[R]
    WRITER: type[W]

    __slots__ = ("_link", "_served", "_stderr", "_stdin", "_stdout")

    def __init__(self, link: Link, served: ServedSession) -> None:
        self._link = link
        self._served = served
        # Made when they are asked for: there may be many sessions that use but one, or are idle.
        self._stdin: R | None = None
        self._stdout: W | None = None
        self._stderr: W | None = None

    @property
    def channel(self) -> Channel:
        return self._served.channel

    @property
    def user(self) -> str:
        return self._served.user

    @property
    def program(self) -> Exec | Shell | Subsystem:
        return self._served.program

    @property
    def env(self) -> dict[str, bytes]:
        return self._served.env

    @property
    def permit(self) -> Permit:
        return self._served.permit

    @property
    def provided(self) -> dict[str, str]:
        return self._served.provided

    @property
    def display(self) -> GrantedDisplay | None:
        return self._served.display

    @property
    def pty(self) -> PtyRequest | None:
        return self._served.pty

    @property
    def stdin(self) -> R:
        if self._stdin is None:
            self._stdin = self.READER(self._link, self.channel)
        return self._stdin

    @property
    def stdout(self) -> W:
        if self._stdout is None:
            self._stdout = self.WRITER(self._link, self.channel)
        return self._stdout

    @property
    def stderr(self) -> W:
        if self._stderr is None:
            self._stderr = self.WRITER(self._link, self.channel, 1)
        return self._stderr

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


async def at_one_port(
    port: int,
    opened: Callable[[int], Awaitable[T]],
    ports: Callable[[T], Iterable[int]],
    close: Callable[[T], Awaitable[object]],
) -> T:
    """Listen with the same port at all addresses, where a system that may choose gives each one of its own.

    Args:
        port: Which; 0 if the system chooses.
        opened: Listens, and returns what does.
        ports: Where that listens.
        close: Ends that.

    Raises:
        OSError: It cannot listen.
    """
    choices = PORT_CHOICES
    while True:
        listener = await opened(port)
        chosen = tuple(ports(listener))
        if len(set(chosen)) < 2:
            return listener
        await close(listener)
        choices -= 1
        try:
            return await opened(chosen[0])
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not choices:
                raise


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
