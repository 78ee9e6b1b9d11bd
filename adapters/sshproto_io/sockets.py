"""Sockets as operations: what forwarding has at its far end, in every face.

Waiting is the face's (:class:`~sshproto.operations.steps.Ready`), the rest is written here once.  Names are looked up
by a function of the face's, since the system's own blocks.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import time
from collections.abc import Callable, Iterable
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from sshproto.operations.forwarding import Address, show
from sshproto.operations.steps import Operation, Ready, Sleep, Together, Wait, call

if TYPE_CHECKING:
    from sshproto.operations.channel import Channel
    from sshproto.operations.handler import ServedSession
    from sshproto.operations.serving import World

ATTEMPT_DELAY = 0.25
"""Seconds after which the next address is tried beside those that have not answered (RFC 8305 section 8)."""

# Every face reads into a new block of 256 KiB each time. glibc's malloc has each block of 128 KiB or more mapped by the
# system, page by page, and unmapped when it is freed, until it has seen a larger one freed: this one.
bytes(4 * 1024 * 1024)

Resolve = Callable[..., Any]
"""``socket.getaddrinfo``, or something asynchronous with the same arguments and result."""

_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN)
PORT_CHOICES = 16
"""How often the system chooses a port before it counts that the one it chose is taken at another address."""

_NO_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_ACCEPT_PAUSE = 0.1
_LAST_PORT = 65535

NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What fails for a lack that passes."""


class Closable:
    """Descriptors that operations wait for, and that can be closed at any time.

    A descriptor must not be closed while somebody waits for it: its number may be another's a moment later.  So who
    waits is woken first, and the last one closes.
    """

    def __init__(self) -> None:
        self.closed = False
        self._closing = Wait()
        self._waiting = 0

    def wait(self, descriptor: int, *, writing: bool = False) -> Operation[None]:
        self._check()
        self._waiting += 1
        try:
            yield Ready(descriptor, writing, self._closing)
        finally:
            self._waiting -= 1
            if self.closed and not self._waiting:
                self._close()
        self._check()

    def _check(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "closed on this side")

    def close(self) -> None:
        """Close it now, or as soon as nobody waits for it. Repeated calls do nothing."""
        if not self.closed:
            self.closed = True
            if self._waiting:
                self._closing.fire()
            else:
                self._close()

    def _close(self) -> None:
        raise NotImplementedError


class SocketStream(Closable):
    """A connected stream socket, as a :class:`~sshproto.operations.forwarding.ByteStream`.

    Args:
        sock: It belongs to the stream from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        sock.setblocking(False)
        no_delay(sock)
        self._sock = sock

    def __repr__(self) -> str:
        return f"<SocketStream {'closed' if self.closed else self._sock.fileno()}>"

    @property
    def origin(self) -> Address:
        """The peer's address."""
        try:
            return _address(self._sock.getpeername())
        except OSError:
            return "", 0

    def receive(self, limit: int) -> Operation[bytes]:
        """At least one byte and at most ``limit``; ``b""`` at the end.

        Raises:
            OSError: The connection is broken, or closed on this side.
        """
        while True:
            with contextlib.suppress(BlockingIOError, InterruptedError):
                return self._sock.recv(limit)
            yield from self.wait(self._sock.fileno())

    def send(self, data: bytes) -> Operation[None]:
        """Send all of ``data``.

        Raises:
            OSError: The connection is broken, or closed on this side.
        """
        view = memoryview(data)
        while view:
            with contextlib.suppress(BlockingIOError, InterruptedError):
                view = view[self._sock.send(view) :]
                continue
            yield from self.wait(self._sock.fileno(), writing=True)

    def send_eof(self) -> Operation[None]:
        """Send no more."""
        with contextlib.suppress(OSError):  # the peer has gone meanwhile, which reading will show
            self._sock.shutdown(socket.SHUT_WR)
        yield from ()

    def detach(self) -> socket.socket:
        """The socket, which is its caller's from now on."""
        self.closed = True
        return self._sock

    def _close(self) -> None:
        self._sock.close()


class SocketListener(Closable):
    """Listening sockets, as one :class:`~sshproto.operations.forwarding.Listener`.

    Args:
        socks: At least one; they belong to the listener from now on.
        unlink: The path of a socket to be removed at the end.
        directory: Where that is, to be removed as well.
    """

    def __init__(self, socks: Iterable[socket.socket], unlink: str | None = None, directory: str | None = None) -> None:
        super().__init__()
        self._socks = list(socks)
        self._unlink = unlink
        self._directory = directory
        for sock in self._socks:
            sock.setblocking(False)

    def __repr__(self) -> str:
        return f"<SocketListener {'closed' if self.closed else ', '.join(map(show, self.addresses))}>"

    @property
    def address(self) -> Address:
        """Where the first socket listens."""
        return _address(self._socks[0].getsockname())

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where all sockets listen."""
        return tuple(_address(sock.getsockname()) for sock in self._socks)

    def accept(self) -> Operation[SocketStream]:
        """The next connection.

        Raises:
            OSError: The listener is closed.
        """
        return SocketStream((yield from self.accept_socket()))

    def accept_socket(self) -> Operation[socket.socket]:
        """The socket of the next connection.

        Raises:
            OSError: The listener is closed.
        """
        while True:
            for sock in self._socks:
                try:
                    return sock.accept()[0]
                except (BlockingIOError, InterruptedError, ConnectionError):
                    continue
                except OSError as error:
                    if error.errno not in NO_DESCRIPTORS:
                        raise
                    yield Sleep(_ACCEPT_PAUSE, self._closing)
            yield from self._any()

    def _any(self) -> Operation[None]:
        if len(self._socks) == 1:
            yield from self.wait(self._socks[0].fileno())
            return
        with contextlib.suppress(_Came):
            yield Together(*(self._one(sock.fileno()) for sock in self._socks))

    def _one(self, descriptor: int) -> Operation[None]:
        yield from self.wait(descriptor)
        raise _Came

    def _close(self) -> None:
        for sock in self._socks:
            sock.close()
        if self._unlink is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._unlink)  # noqa: PTH108  pathlib would not take every path that sockets do
        if self._directory is not None:
            with contextlib.suppress(OSError):
                os.rmdir(self._directory)  # noqa: PTH106


class _Came(Exception):
    """One of several sockets is ready."""


def _address(name: Any) -> Address:
    return os.fsdecode(name) if isinstance(name, str | bytes) else (str(name[0]), int(name[1]))


def no_delay(sock: socket.socket) -> None:
    """Have small writes leave at once: SSH gathers its packets itself."""
    try:  # noqa: SIM105  each connection comes here
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:  # a socket of another family has no such thing
        pass


# ------------------------------------------------------------------------------------------------------------- dialling


def dial(
    address: Address, resolve: Resolve = socket.getaddrinfo, *, family: int = 0, source: str | None = None
) -> Operation[SocketStream]:
    """Connect.

    All addresses of a name are tried, IPv6 and IPv4 in turn; one that does not answer soon is not waited for before
    the next is tried beside it ("happy eyeballs", RFC 8305).

    Args:
        address: Where to.
        resolve: Looks names up.
        family: ``AF_INET`` or ``AF_INET6`` if only such addresses will do.
        source: The address of this machine to connect from, or a name for it; the system's choice if None.

    Raises:
        OSError: Nobody can be reached.
    """
    return SocketStream((yield from connect(address, resolve, family=family, source=source)))


def connect(
    address: Address, resolve: Resolve = socket.getaddrinfo, *, family: int = 0, source: str | None = None
) -> Operation[socket.socket]:
    """The same as :func:`dial`, for the socket itself. It does not block."""
    if isinstance(address, str):
        return (yield from _connect(socket.AF_UNIX, socket.SOCK_STREAM, 0, address))
    host, port = address
    literal = family_of(host)
    if literal is not None and 0 <= port <= _LAST_PORT and source is None and family in (0, literal):
        return (yield from _connect(literal, socket.SOCK_STREAM, 0, (host, port)))
    found = yield from _look_up(resolve, host, port, family)
    sources: dict[int, Any] = {}
    if source is not None:
        sources = {one[0]: one[4] for one in reversed((yield from _look_up(resolve, source, 0, family)))}
        found = [one for one in found if one[0] in sources]
    race = _Race(sources)
    try:
        with contextlib.suppress(_Won):
            yield from race.run(_interleaved(found))
    except BaseException:
        race.give_up()
        raise
    return race.result()


def _look_up(resolve: Resolve, host: str, port: int, family: int) -> Operation[list[Any]]:
    try:
        found: Any = yield from call(functools.partial(resolve, type=socket.SOCK_STREAM, family=family), host, port)
    except UnicodeError as error:  # from names that no resolver can take
        raise OSError(errno.EINVAL, f"not a host name: {error}") from None
    return list(found)


def family_of(host: str) -> int | None:
    """The family of what is an address already, and needs no looking up, which may take a thread; None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return family
    return None


def _interleaved(found: Iterable[Any]) -> list[Any]:
    """Addresses with the families in turn, that of the first one first."""
    families: dict[Any, list[Any]] = {}
    for one in found:
        families.setdefault(one[0], []).append(one)
    return [one for one in chain.from_iterable(zip_longest(*families.values())) if one is not None]


class _Won(Exception):
    """An attempt has succeeded: the others are not needed."""


class _Race:
    """Attempts to connect, one beside the other.

    Args:
        sources: What to connect from, by family; what is not there is the system's choice.
    """

    def __init__(self, sources: dict[int, Any]) -> None:
        self._sources = sources
        self._winner: socket.socket | None = None
        self._problems: list[OSError] = []

    def run(self, candidates: list[Any]) -> Operation[None]:
        if not candidates:
            return
        failed = Wait()
        attempt = self._attempt(candidates[0], failed)
        if len(candidates) == 1:
            yield from attempt
        else:
            yield Together(attempt, self._later(candidates[1:], failed))

    def _attempt(self, candidate: Any, failed: Wait) -> Operation[None]:
        family, kind, protocol, _, address = candidate
        try:
            sock = yield from _connect(family, kind, protocol, address, self._sources.get(family))
        except OSError as error:
            self._problems.append(error)
            failed.fire()
            return
        if self._winner is not None:
            sock.close()
            return
        self._winner = sock
        raise _Won

    def _later(self, candidates: list[Any], failed: Wait) -> Operation[None]:
        if not self._problems:
            yield Sleep(ATTEMPT_DELAY, failed)
        yield from self.run(candidates)

    def give_up(self) -> None:
        """Nobody wants the result; there may be one already."""
        if self._winner is not None:
            self._winner.close()

    def result(self) -> socket.socket:
        """The socket of the attempt that succeeded."""
        if self._winner is not None:
            return self._winner
        first = self._problems[0] if self._problems else OSError(errno.EADDRNOTAVAIL, "the name has no address")
        reasons = list(dict.fromkeys(problem.strerror or str(problem) for problem in self._problems))
        raise OSError(first.errno, "; ".join(reasons) or first.strerror) from first


def _connect(family: int, kind: int, protocol: int, address: Any, source: Any = None) -> Operation[socket.socket]:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        if source is not None:
            sock.bind(source)
        problem = sock.connect_ex(address)
        while problem == errno.EAGAIN and family == socket.AF_UNIX:  # its backlog is full
            yield Sleep(_ACCEPT_PAUSE)
            problem = sock.connect_ex(address)
        if problem not in _UNDER_WAY:
            raise OSError(problem, os.strerror(problem))
        if problem and not _has_answered(sock):
            yield Ready(sock.fileno(), writing=True)
            problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem:
                raise OSError(problem, os.strerror(problem))
    except BaseException:
        sock.close()
        raise
    return sock


def _has_answered(sock: socket.socket) -> bool:
    """Whether a connection is there already, as it is to who is near: that need not be waited for."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


# ------------------------------------------------------------------------------------------------------------ listening


def listen_at(address: Address, resolve: Resolve = socket.getaddrinfo, backlog: int = 128) -> Operation[SocketListener]:
    """Listen.

    Args:
        address: A path; or a host and a port. ``""`` and ``"*"`` are all addresses of this machine, a name is all that
            it stands for (``localhost``: IPv4 and IPv6). Port 0 lets the system choose one.
        resolve: Looks names up.
        backlog: Connections that may wait to be accepted.

    Raises:
        OSError: It cannot be had.
    """
    if isinstance(address, str):
        return _listen_unix(address, backlog)
    host, port = address
    if host in ("", "*") and socket.has_dualstack_ipv6():
        return SocketListener(
            [socket.create_server(("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)]
        )
    try:
        found = yield from call(
            functools.partial(resolve, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE), host or None, port
        )
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"not a host name: {error}") from None
    return SocketListener(_listen_all(found, port, backlog))


def listen_privately(backlog: int = 128) -> Operation[SocketListener]:
    """Listen at a new path, in a directory that only this user may enter. Both are removed at the end.

    Args:
        backlog: Connections that may wait to be accepted.

    Raises:
        OSError: It cannot be had.
    """
    import shutil
    import tempfile

    yield from ()
    directory = tempfile.mkdtemp(prefix="ssh-")  # mode 0700
    try:
        return _listen_unix(f"{directory}/agent.{os.getpid()}", backlog, directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _listen_unix(path: str, backlog: int, directory: str | None = None) -> SocketListener:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101  see above; nobody can connect before it listens
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return SocketListener([sock], path, directory)


def _listen_all(found: Iterable[Any], port: int, backlog: int) -> list[socket.socket]:
    """A socket for each address, all with the same port; addresses that this machine does not have are left out."""
    places = list(dict.fromkeys((one[0], one[4][0]) for one in found))
    for _ in range(0 if port else PORT_CHOICES - 1):
        try:
            return _listen_each(places, port, backlog)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _listen_each(places, port, backlog)


def _listen_each(places: list[tuple[int, str]], port: int, backlog: int) -> list[socket.socket]:
    socks: list[socket.socket] = []
    problem: OSError | None = None
    for family, address in places:
        try:
            sock = socket.create_server((address, port), family=family, backlog=backlog)
        except OSError as error:
            if error.errno not in _NO_ADDRESS:
                for other in socks:
                    other.close()
                raise
            problem = problem or error
            continue
        socks.append(sock)
        port = port or sock.getsockname()[1]
    if not socks:
        raise problem or OSError(errno.EADDRNOTAVAIL, "the name has no address")
    return socks


def world(
    resolve: Resolve,
    session: Callable[[Any, ServedSession], Any],
    stream: Callable[[Any, Channel], Any],
    bug: Callable[[Exception], object],
) -> World:
    """The sockets that serving needs, with a face's own look-up, sessions and streams: one for all of a server.

    Args:
        resolve: Looks names up.
        session, stream: Make what handlers get, for the connection that :attr:`Hub.face` is.
        bug: Told of what handlers raise.
    """
    from sshproto.operations.serving import World  # clients have no use for it

    return World(
        dial=lambda address: dial(address, resolve),
        listen=lambda address: listen_at(address, resolve),
        session=lambda served: session(served.channel.hub.face, served),
        stream=lambda channel: stream(channel.hub.face, channel),
        now=time.time,
        listen_privately=listen_privately,
        bug=bug,
    )
