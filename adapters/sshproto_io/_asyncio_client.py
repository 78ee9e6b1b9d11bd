"""What a client under asyncio is made of. A part of :mod:`sshproto_io.asyncio`, loaded when it is first needed."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from sshproto.client import ClientConnection
from sshproto.operations.login import log_in
from sshproto_io import ConnectFailed, Setup, TimeoutExpired, _async_streams
from sshproto_io._async import ClientLink
from sshproto_io._async_link import Opening
from sshproto_io._async_streams import Reader, Stream, Writer
from sshproto_io._asyncio_link import Late, by
from sshproto_io._asyncio_pump import Peer
from sshproto_io._asyncio_socket import SocketTransport
from sshproto_io.sockets import connect

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
    """A connection to a server, logged in. Made by :func:`connect`. To be used from the loop's thread.

    Attributes:
        hub: The connection's events.
        conn: The connection itself.
    """

    PROCESS = Process
    STREAM = Stream

    async def within(self, seconds: float, operation: Operation[T], what: str) -> T:
        """Run an operation and give up after ``seconds``; see the base class."""
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
