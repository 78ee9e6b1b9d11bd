"""Agents in threads; see :mod:`sshproto_io.blocking`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sshproto.errors import discreet
from sshproto.operations import agents
from sshproto.operations.agents import AgentService
from sshproto_io import TimeoutExpired
from sshproto_io.agents import agent_socket, reach, steady_clock
from sshproto_io.runner import Runner

if TYPE_CHECKING:
    from sshproto.agent import AgentEvent, ConfirmNeeded, DestinationConstraint, Identity, Keyring
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.private import PrivateKey
    from sshproto.keys.public import PublicKey
    from sshproto.operations.steps import Operation
    from sshproto_io.agents import AgentListener

T = TypeVar("T")


class _Turns:
    """What a login needs of an agent, as operations: they end when the login does."""

    def __init__(self, agent: agents.Agent, lock: threading.Lock) -> None:
        self._agent = agent
        self._lock = lock

    def identities(self) -> Operation[tuple[Identity, ...]]:
        with self._lock:
            return (yield from self._agent.identities())

    def sign(self, key: bytes, data: bytes, algorithm: str | None = None) -> Operation[bytes]:
        with self._lock:
            return (yield from self._agent.sign(key, data, algorithm))

    def bind(
        self, host_key: bytes, session_id: bytes, signature: bytes, *, forwarding: bool = False
    ) -> Operation[None]:
        with self._lock:
            yield from self._agent.bind(host_key, session_id, signature, forwarding=forwarding)


class Agent:
    """A connection to an agent. Made by :func:`open_agent`; may be used from many threads at once, which take turns.

    Methods raise, besides what they say, :class:`~sshproto.agent.AgentRefused`,
    :class:`~sshproto.agent.AgentUnavailable`, :class:`~sshproto.agent.AgentMessageError` (see
    :class:`sshproto.operations.agents.Agent`), and :class:`~sshproto_io.TimeoutExpired`.
    """

    def __init__(self, agent: agents.Agent, timeout: float | None = None) -> None:
        self._agent = agent
        self._timeout = timeout
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return repr(self._agent)

    @property
    def closed(self) -> bool:
        """Whether there is nobody to ask any more."""
        return self._agent.closed

    def _run(self, operation: Operation[T], timeout: float | None = None) -> T:
        timeout = self._timeout if timeout is None else timeout
        started = time.monotonic()
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            operation.close()
            raise TimeoutExpired("the agent", timeout or 0.0)
        try:
            left = None if timeout is None else max(0.0, timeout - (time.monotonic() - started))
            return Runner().run(operation, left, "the agent")
        except TimeoutExpired:  # which says how long the caller gave, and not what was left of it
            raise TimeoutExpired("the agent", timeout or 0.0) from None
        finally:
            self._lock.release()

    @property
    def operations(self) -> _Turns:
        """The same for a login, whose time counts then, and not that of each request."""
        return _Turns(self._agent, self._lock)

    def identities(self) -> tuple[Identity, ...]:
        """The keys and certificates that it holds and shows here. A locked agent shows none."""
        return self._run(self._agent.identities())

    def sign(self, key: Identity | PublicKey | Certificate | bytes, data: bytes, algorithm: str | None = None) -> bytes:
        """Have something signed; see :meth:`sshproto.operations.agents.Agent.sign`."""
        return self._run(self._agent.sign(key, data, algorithm))

    def add(
        self,
        key: PrivateKey,
        certificate: Certificate | None = None,
        *,
        comment: str | None = None,
        lifetime: int | None = None,
        confirm: bool = False,
        destinations: Iterable[DestinationConstraint] = (),
    ) -> None:
        """Have a key held; see :meth:`sshproto.operations.agents.Agent.add`."""
        self._run(
            self._agent.add(
                key, certificate, comment=comment, lifetime=lifetime, confirm=confirm, destinations=destinations
            )
        )

    def remove(self, key: Identity | PublicKey | Certificate | bytes) -> None:
        """Have a key, or a certificate, forgotten."""
        self._run(self._agent.remove(key))

    def remove_all(self) -> None:
        """Have all keys forgotten."""
        self._run(self._agent.remove_all())

    @discreet
    def lock(self, passphrase: bytes) -> None:
        """Have it do nothing until it is unlocked."""
        self._run(self._agent.lock(passphrase))

    @discreet
    def unlock(self, passphrase: bytes) -> None:
        """Unlock it."""
        self._run(self._agent.unlock(passphrase))

    def extension(self, name: str, contents: bytes = b"") -> bytes:
        """Ask what only some agents know; see :meth:`sshproto.operations.agents.Agent.extension`."""
        return self._run(self._agent.extension(name, contents))

    def query(self) -> tuple[str, ...]:
        """The names of the extensions that it knows, as far as it tells."""
        return self._run(self._agent.query())

    def bind(self, host_key: bytes, session_id: bytes, signature: bytes, *, forwarding: bool = False) -> None:
        """Bind this connection to an SSH connection; see :meth:`sshproto.operations.agents.Agent.bind`."""
        self._run(self._agent.bind(host_key, session_id, signature, forwarding=forwarding))

    def close(self) -> None:
        """Close the connection, once who asks something has its answer. Repeated calls do nothing."""
        with self._lock:
            self._agent.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_one(path: str | os.PathLike[str] | None, timeout: float | None) -> Agent:
    """Connect to an agent; see :func:`sshproto_io.blocking.open_agent`."""
    return Agent(Runner().run(reach(path), timeout, "the agent"), timeout)


class ServedAgent:
    """An agent that is served. Made by :func:`serve_agent`; closed, or left by ``with``, it is gone.

    Attributes:
        keyring: What it holds.
        path: Its socket.
    """

    def __init__(self, service: AgentService, listener: AgentListener) -> None:
        self.keyring = service.keyring
        self.path = listener.path
        self._listener = listener
        self._runner = Runner()
        self._thread = threading.Thread(target=self._serve, args=(service,), name="ssh agent", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<ServedAgent at {self.path}>"

    def _serve(self, service: AgentService) -> None:
        try:
            self._runner.run(service.listen(self._listener))
        finally:
            self._listener.close()

    def close(self) -> None:
        """Serve no more: connections end, and the socket is removed. Repeated calls do nothing."""
        self._runner.soon(self._listener.close)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def serve_one(
    keyring: Keyring,
    path: str | os.PathLike[str] | None,
    confirm: Callable[[ConfirmNeeded], Any] | None,
    on_event: Callable[[AgentEvent], object] | None,
    clock: Callable[[], float] | None,
) -> ServedAgent:
    """Be an agent; see :func:`sshproto_io.blocking.serve_agent`."""
    service = AgentService(keyring, clock or steady_clock(), confirm=confirm, on_event=on_event)
    return ServedAgent(service, agent_socket(path))
