"""What a server under Trio is made of. A part of :mod:`sshproto_io.trio`, loaded when it is first needed."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import trio

from sshproto.operations.serving import Handler, serve
from sshproto.server import ServerConnection
from sshproto_io import _async
from sshproto_io._async import BaseServer, at_one_port
from sshproto_io._trio_nursery import PlainNursery
from sshproto_io._trio_pump import Peer
from sshproto_io._trio_socket import Carrier, drop, taken
from sshproto_io._trio_streams import Reader, Stream, Writer
from sshproto_io.sockets import world

if TYPE_CHECKING:
    from sshproto.config import ServerConfig

_LOG = logging.getLogger("sshproto_io.trio")


class ServerSession(_async.ServerSession[Reader, Writer]):
    """A session at the server, as its handler sees it."""

    __slots__ = ()

    READER = Reader
    WRITER = Writer


class Incoming(Peer[ServerConnection]):
    """A connection that has come to a server.

    Attributes:
        hub: The connection's events.
        conn: The connection itself.
        peer, local: The addresses of who dialled, and of what was dialled; None if they are not known.
    """

    def __init__(self, config: ServerConfig, carrier: Carrier) -> None:
        super().__init__(ServerConnection(config, trio.current_time()), carrier, None, config.timeouts.linger)
        self.hub.face = self
        self.peer: Any = None
        self.local: Any = None
        sock = carrier.socket if isinstance(carrier, trio.SocketStream) else carrier
        if not isinstance(sock, trio.abc.Stream):
            with contextlib.suppress(OSError):  # it is gone already
                self.peer = sock.getpeername()
                self.local = sock.getsockname()


class _Directly:
    """A nursery in which what is to be served has nothing around it, for it is closed there in any case."""

    def __init__(self, nursery: trio.Nursery, serve: Callable[[Carrier], Awaitable[object]]) -> None:
        self._nursery = nursery
        self._serve = serve

    def start_soon(self, _: object, stream: trio.SocketStream, __: object) -> None:
        self._nursery.start_soon(self._serve, taken(stream))


class Server(BaseServer[Incoming]):
    """Listens, and serves who comes. Made by :func:`listen`.

    What goes wrong with one connection ends that one alone.

    Attributes:
        config: The server's decisions.
        handler: Makes the handler of a connection.
        connections: Those that there are.
        addresses: Where it listens.
    """

    def __init__(
        self,
        config: ServerConfig,
        handler: Callable[[Incoming], Handler],
        max_connections: int,
        max_strangers: int,
        on_bug: Callable[[Exception], object],
        listeners: list[trio.SocketListener],
    ) -> None:
        super().__init__(config, handler, max_connections, max_strangers, on_bug)
        self._world = world(trio.socket.getaddrinfo, ServerSession, Stream, on_bug)
        self._listeners = listeners
        self.listens(listener.socket for listener in listeners)
        self._listening = trio.CancelScope()
        self._closed = trio.Event()

    async def accept(self, nursery: trio.Nursery) -> None:
        """Accept connections, until closed; each is served in a task of ``nursery``."""
        try:
            with self._listening:
                await trio.serve_listeners(
                    self.serve, self._listeners, handler_nursery=cast("trio.Nursery", _Directly(nursery, self._serve))
                )
        finally:
            self._closed.set()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve whoever has come over ``stream``, until that connection ends.

        :func:`listen` has this done for all who dial; others may come otherwise.
        """
        await self._serve(stream)

    async def _serve(self, carrier: Carrier) -> None:
        incoming: Incoming | None = None
        try:
            incoming = Incoming(self.config, carrier)
            if self._listening.cancel_called or not self.admit(incoming):
                incoming.abort()
            else:
                self._attend(incoming)
            await incoming._carry_alone()
        except Exception as error:  # noqa: BLE001  it must not take the other connections with it
            self.on_bug(error)
        finally:
            if incoming is None:
                await drop(carrier)
            else:
                self.forget(incoming)

    def _attend(self, incoming: Incoming) -> None:
        try:
            handler = self.handler(incoming)
        except BaseException as error:  # noqa: BLE001  it is raised when the client was told
            incoming.failed(error)
        else:
            incoming.spawn(serve(incoming.hub, handler, self._world))

    async def serve_forever(self) -> None:
        """Wait until it is closed."""
        await self._closed.wait()

    async def aclose(self, description: str = "the server is stopping") -> None:
        """Listen no more, disconnect who is there, and wait until that is done. Repeated calls do nothing."""
        self._listening.cancel()
        async with PlainNursery() as nursery:
            for connection in tuple(self.connections):
                nursery.start_soon(connection.aclose, description)
        await self._closed.wait()


def _report(error: Exception) -> None:
    _LOG.error("what served an SSH connection has failed", exc_info=error)


def _ports(listeners: list[trio.SocketListener]) -> list[int]:
    return [listener.socket.getsockname()[1] for listener in listeners]


async def _closed(listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        listener.socket.close()


@contextlib.asynccontextmanager
async def start(
    host: str | None,
    port: int,
    config: ServerConfig,
    handler: Callable[[Incoming], Handler],
    limits: tuple[int, int],
    backlog: int,
    on_bug: Callable[[Exception], object] | None,
) -> AsyncIterator[Server]:
    """Listen, and serve who comes; the arguments are those of :func:`sshproto_io.trio.listen`."""
    opened = functools.partial(trio.open_tcp_listeners, host=host or None, backlog=backlog)
    listeners = await at_one_port(port, opened, _ports, _closed)
    server = Server(config, handler, *limits, on_bug or _report, listeners)
    async with PlainNursery() as nursery:
        nursery.start_soon(server.accept, nursery)
        try:
            yield server
        finally:
            await server.aclose()
