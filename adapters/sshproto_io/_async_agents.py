"""Agents in the two asynchronous faces: the methods, and what runs operations that belong to no connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sshproto.operations import agents
from sshproto.operations.agents import AgentService
from sshproto_io._async_link import Closing
from sshproto_io.agents import agent_socket, reach, steady_clock

if TYPE_CHECKING:
    import os

    from sshproto.agent import AgentEvent, ConfirmNeeded, DestinationConstraint, Identity, Keyring
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.private import PrivateKey
    from sshproto.keys.public import PublicKey
    from sshproto.operations.steps import Operation
    from sshproto_io.agents import AgentListener

T = TypeVar("T")


class Alone:
    """In the place of a hub, for links without a connection: there are no events."""

    def drain(self) -> None:
        """There is nothing to hand out."""


class World(Protocol):
    """What runs operations."""

    def perform(self, operation: Operation[T]) -> Coroutine[Any, Any, T]: ...

    async def aclose(self) -> None: ...


class Agent(Closing):
    """A connection to an agent. Made by ``open_agent``; may be used by many tasks at once, which take turns.

    Methods raise, besides what they say, :class:`~sshproto.agent.AgentRefused`,
    :class:`~sshproto.agent.AgentUnavailable` and :class:`~sshproto.agent.AgentMessageError`; see
    :class:`sshproto.operations.agents.Agent`.
    """

    def __init__(self, world: World, agent: agents.Agent) -> None:
        self._world = world
        self._agent = agent

    def __repr__(self) -> str:
        return repr(self._agent)

    @property
    def closed(self) -> bool:
        """Whether there is nobody to ask any more."""
        return self._agent.closed

    async def identities(self) -> tuple[Identity, ...]:
        """The keys and certificates that it holds and shows here. A locked agent shows none."""
        return await self._world.perform(self._agent.identities())

    async def sign(
        self, key: Identity | PublicKey | Certificate | bytes, data: bytes, algorithm: str | None = None
    ) -> bytes:
        """Have something signed; see :meth:`sshproto.operations.agents.Agent.sign`."""
        return await self._world.perform(self._agent.sign(key, data, algorithm))

    async def add(
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
        job = self._agent.add(
            key, certificate, comment=comment, lifetime=lifetime, confirm=confirm, destinations=destinations
        )
        await self._world.perform(job)

    async def remove(self, key: Identity | PublicKey | Certificate | bytes) -> None:
        """Have a key, or a certificate, forgotten."""
        await self._world.perform(self._agent.remove(key))

    async def remove_all(self) -> None:
        """Have all keys forgotten."""
        await self._world.perform(self._agent.remove_all())

    def lock(self, passphrase: bytes) -> Coroutine[Any, Any, None]:
        """Have it do nothing until it is unlocked."""
        return self._world.perform(self._agent.lock(passphrase))  # whose frames do not keep it

    def unlock(self, passphrase: bytes) -> Coroutine[Any, Any, None]:
        """Unlock it."""
        return self._world.perform(self._agent.unlock(passphrase))  # whose frames do not keep it

    async def extension(self, name: str, contents: bytes = b"") -> bytes:
        """Ask what only some agents know; see :meth:`sshproto.operations.agents.Agent.extension`."""
        return await self._world.perform(self._agent.extension(name, contents))

    async def query(self) -> tuple[str, ...]:
        """The names of the extensions that it knows, as far as it tells."""
        return await self._world.perform(self._agent.query())

    async def bind(self, host_key: bytes, session_id: bytes, signature: bytes, *, forwarding: bool = False) -> None:
        """Bind this connection to an SSH connection; see :meth:`sshproto.operations.agents.Agent.bind`."""
        await self._world.perform(self._agent.bind(host_key, session_id, signature, forwarding=forwarding))

    async def aclose(self) -> None:
        """Close the connection. Who still waits for an answer gets none. Repeated calls do nothing."""
        self._agent.close()
        await self._world.aclose()


async def opened(world: World, path: str | os.PathLike[str] | None) -> Agent:
    """Connect to an agent; see ``open_agent`` of the faces."""
    return Agent(world, await world.perform(reach(path)))


class ServedAgent(Closing):
    """An agent that is served. Made by ``serve_agent``; closed, or left by ``async with``, it is gone.

    Attributes:
        keyring: What it holds.
        path: Its socket.
    """

    def __init__(self, service: AgentService, listener: AgentListener, close: Callable[[], Awaitable[None]]) -> None:
        self.keyring = service.keyring
        self.path = listener.path
        self._close = close

    def __repr__(self) -> str:
        return f"<ServedAgent at {self.path}>"

    async def aclose(self) -> None:
        """Serve no more: connections end, and the socket is removed. Repeated calls do nothing."""
        await self._close()


def prepared(
    keyring: Keyring,
    path: str | os.PathLike[str] | None,
    confirm: Callable[[ConfirmNeeded], Any] | None,
    on_event: Callable[[AgentEvent], object] | None,
    clock: Callable[[], float] | None,
) -> tuple[AgentService, AgentListener]:
    """An agent, and its socket; the arguments are those of ``serve_agent``."""
    service = AgentService(keyring, clock or steady_clock(), confirm=confirm, on_event=on_event)
    return service, agent_socket(path)
