"""What connections under asyncio are made of. A part of :mod:`sshproto_io.asyncio`, loaded when it is first needed."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sshproto.client import ClientConnection
from sshproto.connection import Connection
from sshproto.operations.login import log_in
from sshproto.operations.serving import Handler, serve
from sshproto.server import ServerConnection
from sshproto_io import ConnectFailed, Setup, TimeoutExpired, _async, _async_streams
from sshproto_io._async import BaseServer, ClientLink, at_one_port
from sshproto_io._async_link import Opening
from sshproto_io._async_streams import Reader, Stream, Writer
from sshproto_io._asyncio_link import Late, Peer, by
from sshproto_io._asyncio_socket import Listener, SocketTransport
from sshproto_io.sockets import connect, world

if TYPE_CHECKING:
    from sshproto.config import ClientConfig, ServerConfig
    from sshproto.events import Event
    from sshproto.keys.known_hosts import KnownHosts
    from sshproto.keys.public import PublicKey
    from sshproto.operations.host_keys import HostKeyCheck
    from sshproto.operations.login import Credentials, LoginKey
    from sshproto.operations.serving import World
    from sshproto.operations.steps import Operation


C = TypeVar("C", bound=Connection[Any])
T = TypeVar("T")


# --------------------------------------------------------------------------------------------------------------- client


class Process(_async_streams.Process[Reader, Writer]):
    """A program that runs at the server."""

    READER = Reader
    WRITER = Writer


class Client(Peer[ClientConnection], ClientLink[Process, Stream]):
    """A connection to a server, logged in. Made by :func:`connect`. To be used from the loop's thread.

    Attributes:
        hub: The connection's events.
        conn: The connection itself.
    """

    PROCESS = Process
    STREAM = Stream

    async def within(self, seconds: float | None, operation: Operation[T], what: str) -> T:
        """Run an operation and give up after ``seconds``; see the base class."""
        if seconds is None:
            return await self.complete(operation)
        try:
            return await self._complete_by(self._loop.time() + seconds, operation)
        except Late as error:
            raise TimeoutExpired(what, seconds) from error

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
    ) -> Opening[Client]:
        """Connect to a host that this server can reach, through this connection.

        The arguments are those of :func:`connect`. Closing this connection ends the other.
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
        return Opening(functools.partial(dial_and_log_in, setup, timeout, on_event, self))


async def dial_and_log_in(
    setup: Setup,
    seconds: float | None,
    on_event: Callable[[Event], None] | None,
    through: Client | None,
    sock: socket.socket | None = None,
) -> Client:
    loop = asyncio.get_running_loop()
    until = None if seconds is None else loop.time() + seconds
    client: Client | None = None
    try:
        if through is not None:
            sock = await by(until, through.tunnel(setup.host, setup.port))
        conn = ClientConnection(setup.config, loop.time())
        dialled = Client(conn, setup.config.timeouts.linger, on_event)
        await _dial(dialled, setup, sock, until)
        client = dialled
        await client._complete_by(until, log_in(client.hub, setup.host_key, setup.credentials))
    except BaseException as error:
        if client is not None:
            await client.aclose()  # the last message to the server still has to leave
        if isinstance(error, Late) and seconds is not None:
            raise TimeoutExpired(f"connecting to {setup.host} port {setup.port}", seconds) from error
        raise
    return client


async def _dial(client: Client, setup: Setup, sock: socket.socket | None, until: float | None) -> None:
    if sock is None:
        # Not by the loop's own "happy eyeballs", which loses a socket when it is cancelled at the wrong moment.
        dialling = connect((setup.host, setup.port), client.resolve)
        try:
            sock = await client._complete_by(until, dialling)
        except Late:
            raise
        except OSError as error:
            raise ConnectFailed.to(setup.host, setup.port, error) from error
    loop = asyncio.get_running_loop()
    try:
        try:
            SocketTransport(loop, sock, client)
        except NotImplementedError:
            await by(until, loop.create_connection(lambda: client, sock=sock))
    except BaseException:
        sock.close()
        raise


# --------------------------------------------------------------------------------------------------------------- server


class ServerSession(_async.ServerSession[Reader, Writer]):
    """A session at the server, as its handler sees it."""

    __slots__ = ()

    READER = Reader
    WRITER = Writer


@functools.lru_cache(64)
def _once(address: T) -> T:
    """What is equal for many connections, and so the same."""
    return address


class Incoming(Peer[ServerConnection]):
    """A connection that has come to a server.

    Attributes:
        hub: The connection's events.
        conn: The connection itself.
        peer, local: The addresses of who dialled, and of what was dialled.
    """

    def __init__(self, server: Server) -> None:
        conn = ServerConnection(server.config, asyncio.get_running_loop().time())
        super().__init__(conn, server.config.timeouts.linger)
        self._server = server
        self.hub.face = self
        self.peer: Any = None
        self.local: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.peer = transport.get_extra_info("peername")
        self.local = _once(transport.get_extra_info("sockname"))
        if not self._server.admit(self):
            transport.abort()  # type: ignore[attr-defined]
            return
        super().connection_made(transport)

    def _connected(self, transport: asyncio.BaseTransport) -> None:
        self.spawn(self._serve())
        # Most clients speak first. What such a one has said is answered with our own first words, in one piece.
        if not (isinstance(transport, SocketTransport) and transport.look()):
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._server.forget(self)

    def _serve(self) -> Operation[None]:
        try:
            handler = self._server.handler(self)
            yield from serve(self.hub, handler, self._server._world)
        except Exception as error:  # noqa: BLE001  it must not take the other connections with it
            self._server.on_bug(error)
            self.conn.disconnect("internal error")
            self.flush()


class Server(BaseServer[Incoming]):
    """Listens, and serves who comes. Made by :func:`listen`.

    Attributes:
        config: The server's decisions.
        handler: Makes the handler of a connection.
        connections: Those that there are.
        addresses: Where it listens.
    """

    _world: World
    _listener: Listener | asyncio.Server | None = None

    async def start(self, host: str | None, port: int, backlog: int) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._world = world(loop.getaddrinfo, ServerSession, Stream, self.on_bug)
        opened = functools.partial(
            loop.create_server, lambda: Incoming(self), host or None, backlog=backlog, start_serving=False
        )
        server = await at_one_port(port, lambda port: opened(port=port), _ports, _closed)
        self.listens(server.sockets)
        listener = Listener(loop, [sock.dup() for sock in server.sockets], backlog, self._came)
        try:
            listener.start()
        except NotImplementedError:
            listener.close()
            self._listener = server
            await server.start_serving()
        except BaseException:
            listener.close()
            server.close()
            raise
        else:
            self._listener = listener
            server.close()

    def _came(self, sock: socket.socket, address: Any) -> None:
        SocketTransport(asyncio.get_running_loop(), sock, Incoming(self), address)

    async def serve_forever(self) -> None:
        """Serve until cancelled, or closed."""
        if self._listener is not None:
            await self._listener.serve_forever()

    async def aclose(self, description: str = "the server is stopping") -> None:
        """Listen no more, disconnect who is there, and wait until that is done."""
        if self._listener is not None:
            self._listener.close()
        await asyncio.gather(*(connection.aclose(description) for connection in tuple(self.connections)))
        if isinstance(self._listener, asyncio.Server):
            await self._listener.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _ports(listener: asyncio.Server) -> list[int]:
    return [sock.getsockname()[1] for sock in listener.sockets]


async def _closed(listener: asyncio.Server) -> None:
    listener.close()


def _report(error: Exception) -> None:
    context = {"message": "what served an SSH connection has failed", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)


async def start(
    host: str | None,
    port: int,
    config: ServerConfig,
    handler: Callable[[Incoming], Handler],
    limits: tuple[int, int],
    backlog: int,
    on_bug: Callable[[Exception], object] | None,
) -> Server:
    """Listen; the arguments are those of :func:`sshproto_io.asyncio.listen`."""
    server = Server(config, handler, *limits, on_bug or _report)
    await server.start(host, port, backlog)
    return server
