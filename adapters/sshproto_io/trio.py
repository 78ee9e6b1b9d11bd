"""SSH under Trio: :func:`connect` for who dials, :func:`listen` for who is dialled.

Both are asynchronous context managers, which open a nursery: when they end, nothing of the connection or the server is
left.  An error that goes through them alone comes out alone, not in a group.

What a connection is made of, and Trio with it, is loaded when :func:`connect` or :func:`listen` is first called, or a
class first named: a program that only may connect does not pay for it at once.  All tasks stand still meanwhile, some
tenth of a second; who can't have that names :class:`Client` beforehand.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from sshproto.lazy import lazily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from os import PathLike
    from typing import Any

    import trio

    from sshproto.agent import AgentEvent, ConfirmNeeded, Keyring
    from sshproto.config import ClientConfig, ServerConfig
    from sshproto.events import Event
    from sshproto.keys.known_hosts import KnownHosts
    from sshproto.keys.public import PublicKey
    from sshproto.operations.host_keys import HostKeyCheck
    from sshproto.operations.login import Credentials, LoginKey
    from sshproto.operations.serving import Handler
    from sshproto_io._async import Forward
    from sshproto_io._async_agents import Agent, ServedAgent
    from sshproto_io._async_link import Opening
    from sshproto_io._trio_client import Client, Process
    from sshproto_io._trio_server import Incoming, Server, ServerSession
    from sshproto_io._trio_streams import Reader, Stream, Writer

__all__ = [
    "Agent",
    "Client",
    "Forward",
    "Handler",
    "Incoming",
    "Process",
    "Reader",
    "ServedAgent",
    "Server",
    "ServerSession",
    "Stream",
    "Writer",
    "connect",
    "listen",
    "open_agent",
    "serve_agent",
]

_HOMES = {
    "Agent": "sshproto_io._async_agents",
    "Client": "sshproto_io._trio_client",
    "Forward": "sshproto_io._async",
    "Handler": "sshproto.operations.serving",
    "Incoming": "sshproto_io._trio_server",
    "Process": "sshproto_io._trio_client",
    "Reader": "sshproto_io._trio_streams",
    "ServedAgent": "sshproto_io._async_agents",
    "Server": "sshproto_io._trio_server",
    "ServerSession": "sshproto_io._trio_server",
    "Stream": "sshproto_io._trio_streams",
    "Writer": "sshproto_io._trio_streams",
}

__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)


def connect(
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
    stream: trio.abc.Stream | None = None,
) -> AbstractAsyncContextManager[Client]:
    """Dial a server and log in: a :class:`Client`, by ``async with``.

    Args:
        host: A name or an address; all addresses of a name are tried, IPv6 and IPv4 in turn.
        port: Its port.
        user: Whom to log in as; what ``config`` says if None.
        host_key: Who the server is: keys that are known, the one key that is good, or a function that decides
            (see :data:`~sshproto.operations.host_keys.HostKeyCheck`).
        keys: Private keys to log in with, in the order in which they are tried; or pairs of one and a certificate.
        password: The password, tried after the keys.
        credentials: Who answers the questions of the login, in the place of ``keys`` and ``password``; a
            :class:`~sshproto.operations.login.LoginPlan`, or a function.
        config: The client's decisions; the usual ones if None.
        timeout: Seconds for all of it; None leaves it to the deadlines of ``config.timeouts``.
        on_event: Called with every event of the connection; to look only.
        stream: What leads to the server already, in the place of dialling; the connection closes it.

    Raises:
        ConnectFailed: Nobody can be reached.
        TimeoutExpired: It took too long.
        ConnectionLoss: The connection ended before we were logged in; a subclass says why.
        InvalidArgument: The arguments do not go together.
    """
    from sshproto_io._setup import Setup
    from sshproto_io._trio_client import Connecting

    setup = Setup.of(
        host, port, user=user, host_key=host_key, keys=keys, password=password, credentials=credentials, config=config
    )
    return Connecting(setup, timeout, on_event, stream=stream)


def listen(
    host: str | None,
    port: int,
    config: ServerConfig,
    handler: Callable[[Incoming], Handler],
    *,
    max_connections: int = 512,
    max_strangers: int = 64,
    backlog: int = 128,
    on_bug: Callable[[Exception], object] | None = None,
) -> AbstractAsyncContextManager[Server]:
    """Listen, and serve who comes: a :class:`Server`, by ``async with``.

    Args:
        host: A name or an address to listen at; None or ``""`` for all.
        port: 0 lets the system choose; ``Server.addresses`` tells.
        config: The server's decisions.
        handler: Makes the handler of a connection that has come.
        max_connections: Connections at once; more are closed as they come.
        max_strangers: Of those, how many may be waiting for their login.
        backlog: Connections that may wait to be accepted.
        on_bug: Called with what ``handler`` raised, and with what the handler's methods raised unless it has a method
            ``bug`` of its own; unless given, it is logged.

    Raises:
        OSError: It cannot listen there.
    """
    from sshproto_io import _trio_server

    return _trio_server.start(host, port, config, handler, (max_connections, max_strangers), backlog, on_bug)


def open_agent(path: str | PathLike[str] | None = None) -> Opening[Agent]:
    """Connect to an agent: an :class:`Agent`, by ``await`` or ``async with``.

    Args:
        path: Its socket; what ``SSH_AUTH_SOCK`` says if None.

    Raises:
        AgentUnavailable: There is none.
    """
    from sshproto_io import _async_link, _trio_agents

    return _async_link.Opening(functools.partial(_trio_agents.open_one, path))


def serve_agent(
    keyring: Keyring,
    path: str | PathLike[str] | None = None,
    *,
    confirm: Callable[[ConfirmNeeded], Any] | None = None,
    on_event: Callable[[AgentEvent], object] | None = None,
    clock: Callable[[], float] | None = None,
) -> AbstractAsyncContextManager[ServedAgent]:
    """Be an agent, at a socket that is for this user alone: a :class:`ServedAgent`, by ``async with``.

    Args:
        keyring: What it holds.
        path: The socket; None makes one in a directory of its own.
        confirm: Asks whether a key that needs it may be used: takes a :class:`~sshproto.agent.ConfirmNeeded` and
            returns True or False; may be asynchronous. Without it such keys are refused.
        on_event: Called with what is signed and what is refused; to look only.
        clock: The time in seconds since 1970; one that goes steadily if None.

    Raises:
        OSError: There can be no such socket.
    """
    from sshproto_io import _trio_agents

    return _trio_agents.serve_one(keyring, path, confirm, on_event, clock)
