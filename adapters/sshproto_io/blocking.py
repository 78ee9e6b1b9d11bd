"""SSH over blocking sockets: dial and run a command; listen and serve.

:func:`connect` and :class:`Client` are for who dials, :func:`listen` and :class:`Server` for who is dialled.  Bytes are
moved by a :class:`~sshproto_io.driver.Driver`, and pass between channels and descriptors through
:mod:`sshproto_io.relays`.

There is no background thread for a client; a server has one thread for each connection.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import attrs

from sshproto.channels.requests import EndOfWrite, Exec, ExitSignal, ExitStatus, Session
from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, ServerConfig
from sshproto.errors import ConnectionLoss, InvalidArgument, UsageError
from sshproto.events import (
    Authenticated,
    AuthSucceeded,
    ChannelClosed,
    ChannelNotified,
    ChannelOpened,
    ChannelOpenFailed,
    ChannelWritable,
    ConnectionLost,
    CredentialNeeded,
    DataReceived,
    EofReceived,
    Event,
    HostKeyOffered,
    PasswordExpired,
    PromptsReceived,
    Question,
    RequestFailed,
    RequestSucceeded,
    SignatureNeeded,
)
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.server import ServerConnection
from sshproto_io import ConnectFailed, OpenRefused, RequestRefused
from sshproto_io.driver import READ, Driver, Selector, ignore
from sshproto_io.relays import Collector, Feeder, Sink, Source, nonblocking

_EOW_PATIENCE = 1.0  # seconds that a peer has to heed eow@openssh.com
_ACCEPT_PAUSE = 0.1

__all__ = [
    "Client",
    "Completed",
    "Credentials",
    "Driver",
    "Handler",
    "Server",
    "SimpleCredentials",
    "connect",
    "dial",
    "listen",
]


# --------------------------------------------------------------------------------------------------------------- client


class Credentials(Protocol):
    """Who answers the questions of a login: ``CredentialNeeded``, ``PromptsReceived``, ``PasswordExpired`` and
    ``SignatureNeeded``."""

    def __call__(self, conn: ClientConnection, question: Question) -> None:
        """Answer ``question``; ``conn.refuse(question)`` if there is no answer."""


class SimpleCredentials:
    """Keys in their order, then a password.

    Args:
        keys: To be tried one after the other.
        password: For ``password``, or for a ``keyboard-interactive`` login with a single prompt that does not echo.
    """

    def __init__(self, keys: Sequence[PrivateKey] = (), password: str | None = None) -> None:
        self._keys = deque(keys)
        self._password = password
        self._untried = ["password", "keyboard-interactive"] if password is not None else []

    def __repr__(self) -> str:
        return f"<SimpleCredentials {len(self._keys)} keys{', a password' if self._password is not None else ''}>"

    def __call__(self, conn: ClientConnection, question: Question) -> None:
        if isinstance(question, CredentialNeeded):
            self._credential(conn, question)
        elif isinstance(question, PromptsReceived):
            single = len(question.prompts) == 1 and not question.prompts[0].echo
            conn.answer_prompts(question, [self._password or "" if single else ""] * len(question.prompts))
        else:
            conn.refuse(question)

    def _credential(self, conn: ClientConnection, question: CredentialNeeded) -> None:
        while self._keys and (not question.methods or "publickey" in question.methods):
            key: PrivateKey | PublicKey = self._keys.popleft()
            try:
                conn.auth_public_key(question, key)
            except InvalidArgument:  # it makes no signature that the server takes
                continue
            return
        for method in [name for name in self._untried if name in question.methods]:
            self._untried.remove(method)
            if method == "password":
                conn.auth_password(question, self._password or "")
            else:
                conn.auth_keyboard_interactive(question)
            return
        if question.methods or not self._untried:
            conn.give_up(question)
        else:
            conn.auth_none(question)


@attrs.frozen(kw_only=True)
class Completed:
    """How a command ended.

    Attributes:
        stdout, stderr: What it wrote, unless that went to a descriptor.
        exit_status: Its status, 0 to 255 in practice; None if none came.
        exit_signal: The signal that ended it, or None.
        reader_left: Nobody read its standard output to the end (EPIPE).
    """

    stdout: bytes = attrs.field(default=b"", repr=False)
    stderr: bytes = attrs.field(default=b"", repr=False)
    exit_status: int | None
    exit_signal: ExitSignal | None
    reader_left: bool = False


class _Command:
    """One command on a channel of its own."""

    def __init__(
        self,
        driver: Driver[ClientConnection],
        command: bytes,
        stdin: bytes | int,
        stdout: int | None,
        stderr: int | None,
    ) -> None:
        self._driver = driver
        self._command = command
        self._request = 0
        self.channel = driver.conn.open_channel(Session())
        self.closed = False
        self.eof = False
        self.failure: Exception | None = None
        self.exit_status: int | None = None
        self.exit_signal: ExitSignal | None = None
        self._source: Source | Feeder
        if isinstance(stdin, bytes):
            self._source = Feeder(driver, self.channel, stdin)
        else:
            self._source = Source(driver, self.channel, stdin, self._input_ended)
        first = self._sink(stdout)
        self.sinks = (first, first if stderr is not None and stderr == stdout else self._sink(stderr))
        self.broken_at: float | None = None
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            ChannelOpened: self._opened,
            ChannelOpenFailed: self._open_failed,
            RequestSucceeded: self._started,
            RequestFailed: self._refused,
            DataReceived: self._data,
            ChannelWritable: self._writable,
            EofReceived: self._eof,
            ChannelNotified: self._notified,
            ChannelClosed: self._closed,
        }

    @property
    def done(self) -> bool:
        return (self.closed or self.failure is not None) and all(sink.idle for sink in self.sinks)

    def handle(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def lost(self, error: ConnectionLoss) -> None:
        """The connection has ended. What has come is still written."""
        self._source.stop()
        complete = self.eof and (self.exit_status is not None or self.exit_signal is not None)
        if not self.closed and not complete:
            self.failure = self.failure or error
        self.closed = True

    def stop(self) -> None:
        self._source.stop()
        for sink in self.sinks:
            if isinstance(sink, Sink):
                sink.stop()

    def _sink(self, descriptor: int | None) -> Sink | Collector:
        if descriptor is None:
            return Collector(self._driver, self.channel)
        return Sink(self._driver, self.channel, descriptor, self._output_broken)

    def _opened(self, event: ChannelOpened) -> None:
        self._request = self._driver.conn.request(self.channel, Exec(self._command))

    def _open_failed(self, event: ChannelOpenFailed) -> None:
        self.failure = OpenRefused("a session", event.reason, event.description)

    def _started(self, event: RequestSucceeded) -> None:
        self._source.resume()

    def _refused(self, event: RequestFailed) -> None:
        self.failure = RequestRefused("the server refused to run the command")
        self._driver.conn.close_channel(self.channel)

    def _data(self, event: DataReceived) -> None:
        sink = self.sinks[event.stream]
        sink.feed(event.data)
        if sink is self.sinks[0] and self.broken_at is not None and time.monotonic() > self.broken_at + _EOW_PATIENCE:
            # The peer does not know eow, and its program would never learn that nobody reads.
            with contextlib.suppress(UsageError):
                self._driver.conn.close_channel(self.channel)

    def _writable(self, event: ChannelWritable) -> None:
        self._source.resume()

    def _eof(self, event: EofReceived) -> None:
        self.eof = True

    def _notified(self, event: ChannelNotified) -> None:
        match event.notice:
            case ExitStatus(status=status):
                self.exit_status = status
            case ExitSignal() as notice:
                self.exit_signal = notice
            case EndOfWrite():
                if not self._source.ended:
                    self._source.stop()
                    self._driver.conn.send_eof(self.channel)
            case _:
                pass

    def _closed(self, event: ChannelClosed) -> None:
        self.closed = True
        self._source.stop()

    def _input_ended(self, problem: OSError | None) -> None:
        if problem is not None:
            self.failure = self.failure or _named(problem, "standard input")
        with contextlib.suppress(UsageError):  # the channel has closed just now
            self._driver.conn.send_eof(self.channel)

    def _output_broken(self, problem: OSError) -> None:
        stdout = self.sinks[0]
        first = isinstance(stdout, Sink) and stdout.broken is problem
        if problem.errno != errno.EPIPE:
            self.failure = self.failure or _named(problem, "standard output" if first else "standard error")
        if first:
            self.broken_at = time.monotonic()
            with contextlib.suppress(UsageError):
                self._driver.conn.request(self.channel, EndOfWrite(), want_reply=False)


def _named(problem: OSError, what: str) -> OSError:
    return OSError(problem.errno, problem.strerror, what)


class Client:
    """A connection to a server, logged in. Made by :func:`connect`; to be used from one thread.

    Attributes:
        driver: What moves the bytes.
        conn: The connection itself.
    """

    def __init__(
        self,
        sock: socket.socket,
        config: ClientConfig,
        *,
        host_key: Callable[[HostKeyOffered], bool],
        credentials: Credentials,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._host_key = host_key
        self._credentials = credentials
        self._observe = on_event
        self._commands: dict[int, _Command] = {}
        self._ready = False
        self._lost: ConnectionLoss | None = None
        self.driver = Driver(sock, ClientConnection(config, time.monotonic()), self._on_event)
        self.conn = self.driver.conn

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def login(self, check: Callable[[], None] | None = None) -> None:
        """Wait until we are logged in.

        Args:
            check: See :meth:`run`.

        Raises:
            ConnectionLoss: We will not be.
        """
        while not self._ready:
            self._check()
            self.driver.step()
            if check is not None:
                check()

    def run(
        self,
        command: str | bytes,
        *,
        input: bytes | int = b"",
        stdout: int | None = None,
        stderr: int | None = None,
        check: Callable[[], None] | None = None,
    ) -> Completed:
        """Run a command to its end.

        Args:
            command: For the user's shell at the server; text is sent as UTF-8.
            input: Its standard input: bytes, or a descriptor to read.
            stdout, stderr: Descriptors to write its output to; None collects it in memory. Descriptors are used without
                blocking and left as they were found; they are not closed.
            check: Called again and again; what it raises ends the wait, and the command with its channel.

        Raises:
            OpenRefused, RequestRefused: The server does not run it.
            ConnectionLoss: The connection ended before the command did.
            OSError: A descriptor failed, other than by EPIPE: a reader that has left is no error. The command has
                ended all the same.
        """
        text = command.encode("utf-8", "surrogateescape") if isinstance(command, str) else command
        self._check()
        with contextlib.ExitStack() as stack:
            stack.enter_context(nonblocking([fd for fd in (input, stdout, stderr) if isinstance(fd, int)]))
            job = _Command(self.driver, text, input, stdout, stderr)
            self._commands[job.channel] = job
            stack.callback(self._forget, job)
            while not job.done:
                self.driver.step()
                if check is not None:
                    check()
        if job.failure is not None:
            raise job.failure
        collected = [bytes(sink.data) if isinstance(sink, Collector) else b"" for sink in job.sinks]
        return Completed(
            stdout=collected[0],
            stderr=collected[1],
            exit_status=job.exit_status,
            exit_signal=job.exit_signal,
            reader_left=job.broken_at is not None,
        )

    def close(self, description: str = "") -> None:
        """Disconnect and close. Repeated calls do nothing."""
        if not self.driver.closed:
            self.driver.finish(description)

    def _forget(self, job: _Command) -> None:
        job.stop()
        self._commands.pop(job.channel, None)
        if not job.closed:
            with contextlib.suppress(UsageError):  # it is closing
                self.conn.close_channel(job.channel)

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _on_event(self, event: Event) -> None:
        if self._observe is not None:
            self._observe(event)
        match event:
            case HostKeyOffered():
                if self._host_key(event):
                    self.conn.accept_host_key(event)
                else:
                    self.conn.reject_host_key(event)
            case CredentialNeeded() | PromptsReceived() | PasswordExpired() | SignatureNeeded():
                self._credentials(self.conn, event)
            case Question():
                self.conn.refuse(event)  # nothing that a server may ask for is offered here
            case AuthSucceeded():
                self._ready = True
            case ConnectionLost(error=error):
                self._lost = error
                for job in tuple(self._commands.values()):
                    job.lost(error)
            case _:
                job_of = self._commands.get(getattr(event, "channel", -1))
                if job_of is not None:
                    job_of.handle(event)
                elif isinstance(event, DataReceived):
                    self.conn.credit(event.channel, len(event.data))


def dial(host: str, port: int, timeout: float | None = 30.0) -> socket.socket:
    """A TCP connection; the arguments are :func:`connect`'s.

    Raises:
        ConnectFailed: Nobody can be reached.
    """
    try:
        return socket.create_connection((host, port), timeout)
    except (OSError, UnicodeError) as error:  # the latter from names that no resolver can take
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConnectFailed(f"cannot connect to {host} port {port}: {reason}") from error


def connect(
    host: str,
    port: int,
    config: ClientConfig,
    *,
    host_key: Callable[[HostKeyOffered], bool],
    credentials: Credentials,
    on_event: Callable[[Event], None] | None = None,
    timeout: float | None = 30.0,
) -> Client:
    """Dial a server and log in.

    Args:
        host: A name or an address; all addresses of a name are tried in turn.
        port: Its port.
        config: The client's decisions.
        host_key: Whether the key that the server has proved to hold is the server's.
        credentials: Who answers the questions of the login.
        on_event: Called with every event, before it is dealt with.
        timeout: Seconds for each address; what follows has the deadlines of ``config.timeouts``.

    Raises:
        ConnectFailed: Nobody can be reached.
        ConnectionLoss: The connection ended before we were logged in; a subclass says why.
    """
    sock = dial(host, port, timeout)
    client = Client(sock, config, host_key=host_key, credentials=credentials, on_event=on_event)
    try:
        client.login()
    except BaseException:
        client.close()  # the last message to the server still has to leave
        raise
    return client


# --------------------------------------------------------------------------------------------------------------- server


def listen(host: str | None, port: int, backlog: int = 128) -> socket.socket:
    """A listening socket.

    Args:
        host: A name or an address to listen at; None for all, IPv6 and IPv4.
        port: 0 lets the system choose; ``getsockname()`` tells.

    Raises:
        OSError: It cannot be had.
    """
    if host is None and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return socket.create_server(address[:2], family=family, backlog=backlog)


class Handler(Protocol):
    """What a server does with one connection. All calls come from the connection's own thread."""

    def on_event(self, event: Event) -> None:
        """Something happened on the connection; questions are to be answered."""

    def closed(self) -> None:
        """The connection has ended, and ``on_event`` will not be called again."""


class Server:
    """Serves each connection in a thread of its own.

    Args:
        listener: A listening socket; it belongs to the server from now on.
        config: The server's decisions.
        handler: Makes the handler of a connection, of its driver and the peer's address.
        max_strangers: Connections that may be waiting for their login at once; more are closed as they come.
        max_connections: Connections at once.
        on_bug: Called with what a handler raised; its connection is ended.
    """

    def __init__(
        self,
        listener: socket.socket,
        config: ServerConfig,
        handler: Callable[[Driver[ServerConnection], Any], Handler],
        *,
        max_strangers: int = 64,
        max_connections: int = 512,
        on_bug: Callable[[Exception], None] | None = None,
    ) -> None:
        self._listener = listener
        self._config = config
        self._handler = handler
        self._max_strangers = max_strangers
        self._max_connections = max_connections
        self._on_bug = on_bug or ignore
        self._lock = threading.Lock()
        self._threads: dict[threading.Thread, Driver[ServerConnection]] = {}
        self._strangers: set[Driver[ServerConnection]] = set()
        self._stopping = False
        self._waker, self._alarm = socket.socketpair()
        self._waker.setblocking(False)
        listener.setblocking(False)

    def stop(self) -> None:
        """Make :meth:`serve` end. From any thread, or a signal handler."""
        self._stopping = True
        with contextlib.suppress(OSError):  # full, or closed
            self._waker.send(b"\0")

    def serve(self, patience: float = 10.0) -> None:
        """Accept connections until :meth:`stop`, then disconnect those that are left.

        Args:
            patience: Seconds to wait for them.
        """
        with Selector() as selector, self._waker, self._alarm:
            selector.register(self._alarm, READ)
            with self._listener:
                selector.register(self._listener, READ)
                while not self._stopping:
                    selector.select()
                    if not self._accept():
                        time.sleep(_ACCEPT_PAUSE)
            with self._lock:
                running = dict(self._threads)
            for driver in running.values():
                driver.call(lambda driver=driver: driver.conn.disconnect("the server is stopping"))  # type: ignore[misc]
            deadline = time.monotonic() + patience
            for thread in running:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> bool:
        """Take what the listener has; False if there are no descriptors or threads for it now."""
        try:
            sock, address = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return True
        except OSError:
            return False
        with self._lock:
            if len(self._strangers) >= self._max_strangers or len(self._threads) >= self._max_connections:
                sock.close()
                return True
        try:
            driver = Driver(sock, ServerConnection(self._config, time.monotonic()))
        except OSError:
            sock.close()
            return False
        thread = threading.Thread(target=self._run, args=(driver, address), name=f"ssh {address[0]}", daemon=True)
        with self._lock:
            self._threads[thread] = driver
            self._strangers.add(driver)
        try:
            thread.start()
        except RuntimeError:
            self._gone(thread, driver)
            driver.close()
            return False
        return True

    def _run(self, driver: Driver[ServerConnection], address: Any) -> None:
        try:
            handler = self._handler(driver, address)
            driver.on_event = functools.partial(self._on_event, driver, handler)
            try:
                while not driver.finished:
                    driver.step()
            finally:
                handler.closed()
            driver.finish()
        except Exception as error:  # noqa: BLE001  one connection must not take the others with it
            self._on_bug(error)
            driver.on_event = ignore
            driver.finish("internal error")
        finally:
            driver.close()
            self._gone(threading.current_thread(), driver)

    def _on_event(self, driver: Driver[ServerConnection], handler: Handler, event: Event) -> None:
        if isinstance(event, Authenticated):
            with self._lock:
                self._strangers.discard(driver)
        handler.on_event(event)

    def _gone(self, thread: threading.Thread, driver: Driver[ServerConnection]) -> None:
        with self._lock:
            self._threads.pop(thread, None)
            self._strangers.discard(driver)
