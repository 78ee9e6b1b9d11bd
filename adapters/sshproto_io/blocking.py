"""SSH in threads: :func:`connect` for who dials, :func:`listen` for who is dialled.

Everything here may be used from many threads at once.  A client has no thread of its own: whoever waits deals with what
comes, for all (see :mod:`~sshproto_io.driver`); while nobody waits, nothing happens, not even an answer to the
server's question whether we are still there.  :meth:`Client.start_thread` starts a thread for that.  Forwards and jumps
need one, and start it.  A server has one thread for each connection on which something happens, one for all that are
quiet, and one for each function of a handler that runs for more than a moment.

What a connection is made of is loaded when :func:`connect` or :func:`listen` is first called, or a class first named: a
program that only may connect does not pay for it at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.lazy import lazily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from os import PathLike
    from typing import Any

    from sshproto.agent import AgentEvent, ConfirmNeeded, Keyring
    from sshproto.config import ClientConfig, ServerConfig
    from sshproto.events import Event
    from sshproto.keys.known_hosts import KnownHosts
    from sshproto.keys.public import PublicKey
    from sshproto.operations.host_keys import HostKeyCheck
    from sshproto.operations.login import Credentials, LoginKey
    from sshproto.operations.serving import Handler
    from sshproto_io._blocking_agents import Agent, ServedAgent
    from sshproto_io._blocking_client import Client, Forward
    from sshproto_io.files import Process, Reader, ServerSession, Stream, Writer
    from sshproto_io.server import Incoming, Server

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
    "Agent": "sshproto_io._blocking_agents",
    "Client": "sshproto_io._blocking_client",
    "Forward": "sshproto_io._blocking_client",
    "Handler": "sshproto.operations.serving",
    "Incoming": "sshproto_io.server",
    "Process": "sshproto_io.files",
    "Reader": "sshproto_io.files",
    "ServedAgent": "sshproto_io._blocking_agents",
    "Server": "sshproto_io.server",
    "ServerSession": "sshproto_io.files",
    "Stream": "sshproto_io.files",
    "Writer": "sshproto_io.files",
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
) -> Client:
    """Dial a server and log in.

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
        timeout: Seconds for all of it, without those that ``host_key`` and ``credentials`` take, which may ask
            somebody; None leaves it to the deadlines of ``config.timeouts``.
        on_event: Called with every event of the connection; to look only, and not for long.

    Raises:
        ConnectFailed: Nobody can be reached.
        TimeoutExpired: It took too long.
        ConnectionLoss: The connection ended before we were logged in; a subclass says why.
        InvalidArgument: The arguments do not go together.
    """
    from sshproto_io._blocking_client import dial_and_log_in
    from sshproto_io._setup import Setup

    setup = Setup.of(
        host, port, user=user, host_key=host_key, keys=keys, password=password, credentials=credentials, config=config
    )
    del password  # the plan has it now; a traceback keeps the variables of its frames
    return dial_and_log_in(setup, timeout, on_event, None)


def listen(
    host: str | None,
    port: int,
    config: ServerConfig,
    handler: Callable[[Incoming], Handler],
    *,
    max_connections: int = 512,
    max_strangers: int = 64,
    on_bug: Callable[[Exception], None] | None = None,
    backlog: int = 128,
) -> Server:
    """Listen; ``with`` the server, or :meth:`Server.serve_forever`, serves who comes.

    Args:
        host: A name or an address to listen at; None or ``""`` for all.
        port: 0 lets the system choose; ``Server.addresses`` tells.
        config: The server's decisions.
        handler: Makes the handler of a connection that has come. The handler's functions run in threads, several at
            once, except for those of the login, which come one after the other.
        max_connections: Connections at once; more are closed as they come.
        max_strangers: Of those, how many may be waiting for their login.
        on_bug: Called with what ``handler`` raised, and with what the handler's methods raised unless it has a method
            ``bug`` of its own. If None, that is shown as threads show what they raise.
        backlog: Connections that may wait to be accepted.

    Raises:
        OSError: It cannot listen there.
    """
    from sshproto_io import server

    return server.start(host, port, config, handler, (max_connections, max_strangers), backlog, on_bug)


def open_agent(path: str | PathLike[str] | None = None, *, timeout: float | None = None) -> Agent:
    """Connect to an agent.

    Args:
        path: Its socket; what ``SSH_AUTH_SOCK`` says if None.
        timeout: Seconds for each request, and to connect; None for as many as it takes, as somebody may be asked.

    Raises:
        AgentUnavailable: There is none.
        TimeoutExpired: It does not answer.
    """
    from sshproto_io import _blocking_agents

    return _blocking_agents.open_one(path, timeout)


def serve_agent(
    keyring: Keyring,
    path: str | PathLike[str] | None = None,
    *,
    confirm: Callable[[ConfirmNeeded], Any] | None = None,
    on_event: Callable[[AgentEvent], object] | None = None,
    clock: Callable[[], float] | None = None,
) -> ServedAgent:
    """Be an agent, at a socket that is for this user alone. A thread does that.

    Args:
        keyring: What it holds. It is the thread's while it is served: other threads reach it by :func:`open_agent`.
        path: The socket; None makes one in a directory of its own.
        confirm: Asks whether a key that needs it may be used: takes a :class:`~sshproto.agent.ConfirmNeeded` and
            returns True or False, in a thread of its own. Without it such keys are refused.
        on_event: Called with what is signed and what is refused; to look only.
        clock: The time in seconds since 1970; one that goes steadily if None.

    Raises:
        OSError: There can be no such socket.
    """
    from sshproto_io import _blocking_agents

    return _blocking_agents.serve_one(keyring, path, confirm, on_event, clock)
