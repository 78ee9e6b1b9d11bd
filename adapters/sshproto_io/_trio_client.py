"""What a client under Trio is made of. A part of :mod:`sshproto_io.trio`, loaded when it is first needed."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from sshproto.client import ClientConnection
from sshproto.operations.login import log_in
from sshproto_io import ConnectFailed, Setup, TimeoutExpired, _async_streams
from sshproto_io._async import ClientLink
from sshproto_io._async_link import parts
from sshproto_io._trio_nursery import PlainNursery
from sshproto_io._trio_pump import Peer
from sshproto_io._trio_socket import taken
from sshproto_io._trio_streams import Reader, Stream, Writer
from sshproto_io.sockets import family_of

if TYPE_CHECKING:
    from sshproto.config import ClientConfig
    from sshproto.events import Event
    from sshproto.keys.known_hosts import KnownHosts
    from sshproto.keys.public import PublicKey
    from sshproto.operations.host_keys import HostKeyCheck
    from sshproto.operations.login import Credentials, LoginKey
    from sshproto.operations.steps import Operation

T = TypeVar("T")


class Process(_async_streams.Process[Reader, Writer]):
    """A program that runs at the server."""

    READER = Reader
    WRITER = Writer


class Client(Peer[ClientConnection], ClientLink[Process, Stream]):
    """A connection to a server, logged in. Made by :func:`connect`.

    Attributes:
        hub: The connection's events.
        conn: The connection itself.
    """

    PROCESS = Process
    STREAM = Stream

    async def within(self, seconds: float, operation: Operation[T], what: str) -> T:
        """Run an operation and give up after ``seconds``; see the base class."""
        with _limit(seconds, what):
            return await self.complete(operation)

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
    ) -> AbstractAsyncContextManager[Client]:
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
        return Connecting(setup, timeout, on_event, self)


class Connecting:
    """Dials a server and logs in, by ``async with``, which disconnects at its end.

    Args:
        setup: Whom to dial, and how to log in.
        seconds: For all of it.
        on_event: See :func:`sshproto_io.trio.connect`.
        through: Who reaches the server.
        stream: What leads to it already.
    """

    # No asynchronous generator, which takes more memory for as long as the connection lasts.
    __slots__ = ("_client", "_nursery", "_wanted")

    def __init__(
        self,
        setup: Setup,
        seconds: float | None,
        on_event: Callable[[Event], None] | None,
        through: Client | None = None,
        stream: trio.abc.Stream | None = None,
    ) -> None:
        self._wanted: Any = (setup, seconds, on_event, through, stream)
        self._nursery = PlainNursery()
        self._client: Client | None = None

    async def __aenter__(self) -> Client:
        wanted, self._wanted = self._wanted, None
        nursery = await self._nursery.__aenter__()
        try:
            return await self._connect(nursery, *wanted)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    async def _connect(
        self,
        nursery: trio.Nursery,
        setup: Setup,
        seconds: float | None,
        on_event: Callable[[Event], None] | None,
        through: Client | None,
        stream: trio.abc.Stream | None,
    ) -> Client:
        with _limit(seconds, f"connecting to {setup.host} port {setup.port}"):
            if through is not None:
                stream = await through.open_tcp(setup.host, setup.port)
            carrier = taken(await _dial(setup.host, setup.port)) if stream is None else stream
            conn = ClientConnection(setup.config, trio.current_time())
            self._client = client = Client(conn, carrier, nursery, setup.config.timeouts.linger, on_event)
            await client.complete(log_in(client.hub, setup.host_key, setup.credentials))
        return client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.aclose()
            except BaseException as failure:
                await self._nursery.__aexit__(type(failure), failure, failure.__traceback__)
                raise
        return await self._nursery.__aexit__(kind, error, traceback)


async def _dial(host: str, port: int) -> trio.SocketStream:
    try:
        family = family_of(host)
        if family is None:
            return await trio.open_tcp_stream(host, port)
        return await _dial_address(family, host, port)
    except (OSError, UnicodeError) as error:  # the latter of names that no resolver can take
        problem: OSError | UnicodeError = error
        attempts = [part for part in parts(error.__cause__) if isinstance(part, OSError)]  # one for each address
        if attempts:
            numbers = dict.fromkeys(attempt.errno for attempt in attempts)
            problem = OSError(0, "; ".join(os.strerror(number) for number in numbers if number))
        raise ConnectFailed.to(host, port, problem) from error


async def _dial_address(family: int, host: str, port: int) -> trio.SocketStream:
    """Dial the one address that there is: nothing has to be looked up, and no other is tried beside it."""
    sock = trio.socket.socket(family)
    try:
        await sock.connect((host, port))
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno:  # Trio has put the address into the words
            raise OSError(error.errno, os.strerror(error.errno)) from error
        raise
    return trio.SocketStream(sock)


@contextlib.contextmanager
def _limit(seconds: float | None, what: str) -> Iterator[None]:
    deadline = math.inf if seconds is None else trio.current_time() + seconds
    with trio.CancelScope(deadline=deadline) as scope:
        yield
    if seconds is not None and scope.cancelled_caught:
        raise TimeoutExpired(what, seconds)
