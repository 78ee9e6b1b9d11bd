"""A server in threads: one that accepts, one for each connection on which something happens, one for all others, and
one for each function of a handler that runs for more than a moment: until then it runs in its connection's."""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sshproto.operations.hub import Hub
from sshproto.operations.serving import Handler, serve
from sshproto.operations.steps import Operation, Sleep
from sshproto.server import ServerConnection
from sshproto_io.driver import Connected
from sshproto_io.files import ServerSession, Stream
from sshproto_io.runner import Runner
from sshproto_io.sockets import SocketListener, listen_at, world
from sshproto_io.workers import report, workers

if TYPE_CHECKING:
    from sshproto.config import ServerConfig

_ACCEPT_PAUSE = 0.1


class Incoming(Connected[ServerConnection]):
    """A connection that has come to a server.

    Attributes:
        hub, conn: The connection itself; for operations, and see :meth:`apply`.
        peer, local: The addresses of who dialled and of what was dialled, as the socket gives them.
        driver: What moves its bytes.
    """

    def __init__(self, sock: socket.socket, config: ServerConfig) -> None:
        self.peer: Any = sock.getpeername()
        self.local: Any = sock.getsockname()
        super().__init__(sock, Hub(ServerConnection(config, time.monotonic())))
        self.hub.face = self


class Server:
    """Listens, and serves each connection in a thread of its own while something happens on it. Made by :func:`listen`.

    It accepts connections while :meth:`serve_forever` runs, or in a thread, which ``with`` starts.

    Attributes:
        addresses: Where it listens.
    """

    def __init__(
        self,
        listener: SocketListener,
        config: ServerConfig,
        handler: Callable[[Incoming], Handler],
        *,
        max_connections: int,
        max_strangers: int,
        on_bug: Callable[[Exception], None],
    ) -> None:
        self.addresses = listener.addresses
        self._listener = listener
        self._config = config
        self._handler = handler
        self._max_connections = max_connections
        self._max_strangers = max_strangers
        self._on_bug = on_bug
        self._world = world(socket.getaddrinfo, ServerSession, Stream, on_bug)
        self._acceptor = Runner()
        self._thread: threading.Thread | None = None
        self._done = threading.Event()  # no more is accepted
        self._lock = threading.Lock()
        self._connections: set[Incoming] = set()
        self._gone = threading.Condition(self._lock)
        self._strangers: set[Incoming] = set()
        self._stopping = False

    @property
    def port(self) -> int:
        """The port of the first of :attr:`addresses`."""
        return int(self.addresses[0][1])

    def serve_forever(self) -> None:
        """Serve until :meth:`stop` or :meth:`close` is called, and close."""
        try:
            if self._thread is None:
                self._run()
            else:
                self._done.wait()  # and not join(), which Ctrl-C would make believe that the thread has ended
        finally:
            self.close()

    def start(self) -> None:
        """Accept connections in a thread. Repeated calls do nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ssh server", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Accept no more; :meth:`serve_forever` then closes the server. From any thread, or a signal handler."""
        self._stopping = True
        self._acceptor.soon(self._listener.close)

    def close(self, description: str = "the server is stopping", patience: float = 10.0) -> None:
        """Listen no more, disconnect who is there, and wait until that is done. Repeated calls do nothing.

        Args:
            description: Words for the peers.
            patience: Seconds to wait for the connections' threads; after that, they are closed without a word.
        """
        self.stop()
        if self._thread is not None:
            self._done.wait(patience)
        with self._acceptor.lock:
            self._listener.close()
        with self._lock:
            running = [incoming for incoming in self._connections if not incoming.driver.served_here]
        for incoming in running:
            incoming.apply(lambda conn=incoming.conn: conn.disconnect(description))  # type: ignore[misc]
        with self._lock:
            self._gone.wait_for(lambda: self._connections.isdisjoint(running), patience)
            left = self._connections.intersection(running)
        for incoming in left:
            incoming.abort()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._acceptor.run(self._accept())
        finally:
            self._done.set()

    def _accept(self) -> Operation[None]:
        while not self._stopping:
            try:
                sock = yield from self._listener.accept_socket()
            except OSError:  # the listener is closed; or the system has a problem, maybe not for long
                if not self._stopping:
                    yield Sleep(_ACCEPT_PAUSE)
                continue
            if len(self._strangers) >= self._max_strangers or len(self._connections) >= self._max_connections:
                sock.close()
                continue
            try:
                self._take(Incoming(sock, self._config))
            except (OSError, RuntimeError):  # it is gone again; or there are too many threads
                sock.close()

    def _take(self, incoming: Incoming) -> None:
        incoming.hub.opened.subscribe(functools.partial(self._known, incoming))
        with self._lock:
            self._connections.add(incoming)
            self._strangers.add(incoming)
        try:
            workers.start(functools.partial(self._attend, incoming, functools.partial(self._serve, incoming)))
        except RuntimeError:
            incoming.abort()
            self._forget(incoming)
            raise

    def _attend(self, incoming: Incoming, serve: Callable[[], bool]) -> None:
        """Serve a connection in this thread, until it has ended or nothing happens."""
        thread = threading.current_thread()
        before, thread.name = thread.name, f"ssh {incoming.peer}"
        words, over = "", True
        try:
            over = serve()
        except Exception as error:  # noqa: BLE001  one connection must not take the others with it
            words = "internal error"
            self._on_bug(error)
        finally:
            try:
                if over:
                    incoming.close(words)
            finally:
                if over:
                    self._forget(incoming)
                thread.name = before

    def _serve(self, incoming: Incoming) -> bool:
        handler = self._handler(incoming)
        resume = functools.partial(self._attend, incoming, incoming.driver.serve_on)
        return incoming.driver.serve(serve(incoming.hub, handler, self._world), resume)

    def _known(self, incoming: Incoming) -> None:
        with self._lock:
            self._strangers.discard(incoming)

    def _forget(self, incoming: Incoming) -> None:
        with self._lock:
            self._connections.discard(incoming)
            self._strangers.discard(incoming)
            self._gone.notify_all()


def start(
    host: str | None,
    port: int,
    config: ServerConfig,
    handler: Callable[[Incoming], Handler],
    limits: tuple[int, int],
    backlog: int,
    on_bug: Callable[[Exception], None] | None,
) -> Server:
    """Listen; the arguments are those of :func:`sshproto_io.blocking.listen`."""
    listener = Runner().run(listen_at((host or "", port), backlog=backlog))
    connections, strangers = limits
    return Server(
        listener,
        config,
        handler,
        max_connections=connections,
        max_strangers=strangers,
        on_bug=on_bug or report,
    )
