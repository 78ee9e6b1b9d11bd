"""What a server under asyncio is made of. A part of :mod:`sshproto_io.asyncio`, loaded when it is first needed."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sshproto.operations.serving import Handler, serve
from sshproto.server import ServerConnection
from sshproto_io import _async
from sshproto_io._async import BaseServer, at_one_port
from sshproto_io._async_link import Closing
from sshproto_io._async_streams import Reader, Stream, Writer
from sshproto_io._asyncio_pump import Peer
from sshproto_io._asyncio_socket import Listener, SocketTransport
from sshproto_io.sockets import world

if TYPE_CHECKING:
    from sshproto.config import ServerConfig
    from sshproto.operations.serving import World
    from sshproto.operations.steps import Operation

T = TypeVar("T")


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


class Server(BaseServer[Incoming], Closing):
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
