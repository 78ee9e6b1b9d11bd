"""What a client in threads is made of. A part of :mod:`sshproto_io.blocking`, loaded when it is first needed."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sshproto.channels.requests import Exec, PtyRequest, Shell, Subsystem
from sshproto.client import ClientConnection
from sshproto.errors import ConnectionLoss, OpenRefused
from sshproto.operations import forwarding, session
from sshproto.operations.forwarding import Address
from sshproto.operations.hub import Hub
from sshproto.operations.login import log_in
from sshproto.operations.session import Completed, octets
from sshproto.operations.socks import forward_dynamic
from sshproto.operations.steps import Operation, Spawn
from sshproto.text import printable
from sshproto_io import LINGER, ConnectFailed, Setup, TimeoutExpired
from sshproto_io.driver import Connected, Driver
from sshproto_io.files import Process, Stream
from sshproto_io.runner import Runner
from sshproto_io.sockets import SocketListener, SocketStream, dial, listen_at
from sshproto_io.sockets import connect as connect_to
from sshproto_io.workers import report

if TYPE_CHECKING:
    from sshproto.config import ClientConfig
    from sshproto.events import Event
    from sshproto.keys.known_hosts import KnownHosts
    from sshproto.keys.public import PublicKey
    from sshproto.operations.host_keys import HostKeyCheck
    from sshproto.operations.login import Credentials, LoginKey
    from sshproto.operations.x11 import X11Forwarding
    from sshproto.wire.codec import Buffer
    from sshproto_io.offers import ForwardedAgent

_SHOWN = 60  # characters of a command

L = TypeVar("L", SocketListener, forwarding.Invited)


class Forward:
    """Something that listens, here or at the server, and what comes is taken to the other side.

    Attributes:
        addresses: Where it listens.
    """

    def __init__(self, client: Client, addresses: tuple[Address, ...], cancel: Callable[[], None]) -> None:
        self.addresses = addresses
        self._client = client
        self._cancel = cancel

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
        """Listen no more. Connections that came before go on. Repeated calls do nothing."""
        self._client.apply(self._cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Client(Connected[ClientConnection]):
    """A connection to a server. :func:`connect` makes one that is logged in.

    Args:
        sock: A connected stream socket; it belongs to the client from now on.
        config: The client's decisions.
        on_event: Called with every event of the connection; to look only, and not for long.
        through: The client whose connection this one runs through.

    Attributes:
        hub, conn: The connection itself; for operations, and see :meth:`apply`.
        driver: What moves its bytes.
    """

    def __init__(
        self,
        sock: socket.socket,
        config: ClientConfig,
        on_event: Callable[[Event], None] | None = None,
        through: Client | None = None,
    ) -> None:
        super().__init__(sock, Hub(ClientConnection(config, time.monotonic()), _guarded(on_event)))
        self._through = through

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        driver: Driver[ClientConnection] | None = getattr(self, "driver", None)
        if driver is not None and not driver.closed:
            warn(f"unclosed {type(self).__name__}", ResourceWarning, source=self)
            driver.abandon()

    def start_thread(self) -> None:
        """Have a thread that deals with what comes while nobody waits: keepalives, rekeys, data up to the windows.

        It ends with the connection. Repeated calls do nothing.
        """
        self.driver.start_thread()

    def run(
        self,
        command: str | bytes,
        *,
        input: Buffer = b"",
        check: bool = False,
        timeout: float | None = None,
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
                or an :class:`~sshproto.operations.agent_forwarding.AgentForwarding`. A thread of the client's passes
                its bytes, and a display's.
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
        shown = octets(command).decode(errors="replace")
        # What it sends last, once the server has closed its channel, is that it is closed.
        return self.perform(job, timeout, f"the command '{printable(shown, _SHOWN)}'", unhurried=True)

    def start(
        self,
        command: str | bytes,
        *,
        pty: PtyRequest | None = None,
        env: Mapping[str, str | bytes] | None = None,
        agent: ForwardedAgent = None,
        x11: X11Forwarding | None = None,
    ) -> Process:
        """Start a command. The arguments are :meth:`run`'s.

        Raises:
            OpenRefused, RequestRefused: The server will not run it.
            ConnectionLoss: The connection has ended.
            UsageError: It cannot be asked for.
        """
        return self._start(Exec(octets(command)), pty, env, agent, x11)

    def shell(
        self,
        *,
        pty: PtyRequest | None = None,
        env: Mapping[str, str | bytes] | None = None,
        agent: ForwardedAgent = None,
        x11: X11Forwarding | None = None,
    ) -> Process:
        """Start the user's shell; see :meth:`start`."""
        return self._start(Shell(), pty, env, agent, x11)

    def subsystem(self, name: str, *, env: Mapping[str, str | bytes] | None = None) -> Process:
        """Start a subsystem, such as ``"sftp"``; see :meth:`start`."""
        return self._start(Subsystem(name), None, env)

    def _start(
        self,
        program: session.Program,
        pty: PtyRequest | None,
        env: Mapping[str, str | bytes] | None,
        agent: ForwardedAgent = None,
        x11: X11Forwarding | None = None,
    ) -> Process:
        offers = self._offers(agent, x11)
        return Process(
            self,
            self.perform(session.start(self.hub, program, pty=pty, env=env, **offers)),
        )

    def _offers(self, agent: ForwardedAgent, x11: X11Forwarding | None) -> dict[str, Any]:
        """What a session offers to the server, as arguments of operations."""
        if agent is None and x11 is None:
            return {}
        from sshproto_io.offers import agent_forwarding, x11_forwarding  # few offer anything

        return {"agent": agent_forwarding(agent), "x11": x11_forwarding(x11, socket.getaddrinfo)}

    def open_tcp(self, host: str, port: int) -> Stream:
        """A TCP connection that the server makes.

        Raises:
            OpenRefused: The server will not, or can't reach it.
            ConnectionLoss: The connection has ended.
            InvalidArgument: It cannot be asked for.
        """
        return Stream(self, self.perform(forwarding.open_to(self.hub, (host, port))))

    def open_unix(self, path: str) -> Stream:
        """A connection that the server makes to a Unix-domain socket; see :meth:`open_tcp`."""
        return Stream(self, self.perform(forwarding.open_to(self.hub, path)))

    def forward_local(self, listen: Address, target: Address) -> Forward:
        """Listen here, and have what comes connected by the server. A thread of the client's does that.

        Args:
            listen: A host and a port to listen at, 0 to have one chosen; or the path of a socket to be made.
            target: Where the server is to connect to: a host and a port, or a path.

        Raises:
            OSError: It cannot listen there.
            ConnectionLoss: The connection has ended.
        """
        listening = listen_at(listen)
        return self._forward_here(listening, lambda listener: forwarding.forward_local(self.hub, listener, target))

    def forward_dynamic(self, listen: Address) -> Forward:
        """Listen here as a SOCKS proxy (4, 4a and 5), and have the server make the connections.

        The arguments and errors are :meth:`forward_local`'s.
        """
        return self._forward_here(listen_at(listen), lambda listener: forward_dynamic(self.hub, listener))

    def _forward_here(
        self, listening: Operation[SocketListener], carry: Callable[[SocketListener], Operation[None]]
    ) -> Forward:
        self.hub.check()
        listener, cancel = self.perform(_started(listening, carry))
        return Forward(self, listener.addresses, cancel)

    def forward_remote(self, listen: Address, target: Address) -> Forward:
        """Have the server listen, and connect what comes from here. A thread of the client's does that.

        Args:
            listen: An address of the server (``""`` for all, ``"localhost"``) and a port, 0 to have one chosen; or the
                path of a socket that it makes.
            target: Where to connect to: a host and a port, or a path.

        Raises:
            RequestRefused: The server will not.
            ConnectionLoss: The connection has ended.
            InvalidArgument: It cannot be asked for.
        """

        def carry(invited: forwarding.Invited) -> Operation[None]:
            return forwarding.forward_remote(self.hub, invited, lambda _: dial(target))

        invited, cancel = self.perform(_started(forwarding.listen(self.hub, listen), carry))
        return Forward(self, (invited.address,), cancel)

    def jump(
        self,
        host: str,
        port: int = 22,
        *,
        user: str | None = None,
        host_key: KnownHosts | PublicKey | HostKeyCheck,
        keys: Iterable[LoginKey] = (),
        password: str | None = None,
        credentials: Credentials | None = None,
        config: ClientConfig | None = None,
        timeout: float | None = 30.0,
        on_event: Callable[[Event], None] | None = None,
    ) -> Client:
        """A connection to another server through this one, which must stay open. The arguments are :func:`connect`'s.

        The bytes between the two are passed on by a thread of this client's.

        Raises:
            ConnectFailed: This server will not, or can't reach it.
            ConnectionLoss: One of the two connections has ended.
            TimeoutExpired, InvalidArgument: See :func:`connect`.
        """
        setup = Setup.of(
            host,
            port,
            user=user,
            host_key=host_key,
            keys=keys,
            password=password,
            credentials=credentials,
            config=config,
        )
        del password  # the plan has it now; a traceback keeps the variables of its frames
        return dial_and_log_in(setup, timeout, on_event, self)

    def rekey(self) -> None:
        """Exchange keys, and wait until that is done.

        Raises:
            ConnectionLoss: The connection has ended.
        """
        self.perform(self.hub.rekey())

    def until_ended(self, timeout: float | None = None) -> ConnectionLoss:
        """Wait for the end of the connection, and say why it came.

        Raises:
            TimeoutExpired: It did not come in so many seconds.
        """
        return self.perform(self.hub.until_ended(), timeout, "waiting for the end of the connection")


def _guarded(on_event: Callable[[Event], None] | None) -> Callable[[Event], None] | None:
    """What watches must not end the connection, nor what another thread is doing."""
    if on_event is None:
        return None

    def tell(event: Event) -> None:
        try:
            on_event(event)
        except Exception as error:  # noqa: BLE001  it is nobody's who waits here
            report(error)

    return tell


def _started(listening: Operation[L], carry: Callable[[L], Operation[None]]) -> Operation[tuple[L, Callable[[], None]]]:
    """Listen, have what comes carried, and say how to end that."""
    listener = yield from listening
    try:
        cancel: Callable[[], None] = yield Spawn(carry(listener))
    except BaseException:
        listener.close()
        raise
    return listener, cancel


def dial_and_log_in(
    setup: Setup, timeout: float | None, on_event: Callable[[Event], None] | None, through: Client | None
) -> Client:
    started = time.monotonic()
    try:
        sock = _dial(setup, timeout) if through is None else _tunnel(setup, timeout, through)
        try:
            client = Client(sock, setup.config, on_event, through)
        except BaseException:
            sock.close()
            raise
        try:
            left = None if timeout is None else timeout - (time.monotonic() - started)
            client.driver.perform(log_in(client.hub, setup.host_key, setup.credentials), left, inline=True)
        except TimeoutExpired:
            client.abort()
            raise
        except BaseException:
            client.close()  # the last message to the server still has to leave
            raise
    except TimeoutExpired:
        raise TimeoutExpired(f"connecting to {setup.host} port {setup.port}", timeout or 0.0) from None
    return client


def _dial(setup: Setup, timeout: float | None) -> socket.socket:
    try:
        return Runner().run(connect_to((setup.host, setup.port)), timeout, inline=False)
    except TimeoutExpired:  # which is an OSError as well
        raise
    except OSError as error:
        raise ConnectFailed.to(setup.host, setup.port, error) from error


def _tunnel(setup: Setup, timeout: float | None, through: Client) -> socket.socket:
    def tunnel() -> Operation[socket.socket]:
        channel = yield from forwarding.open_to(through.hub, (setup.host, setup.port))
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            channel.close()
            raise
        stream = SocketStream(theirs)
        try:
            yield Spawn(forwarding.relay(channel, stream, LINGER))
        except BaseException:
            ours.close()
            stream.close()
            channel.close()
            raise
        return ours

    try:
        return through.perform(tunnel(), timeout)
    except OpenRefused as error:
        raise ConnectFailed(f"cannot connect to {setup.host} port {setup.port}: {error}") from error
