"""Agents under Trio; see :mod:`sshproto_io.trio`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, cast

import trio

from sshproto_io._async_agents import Agent, Alone, ServedAgent, opened, prepared
from sshproto_io._trio_link import TrioLink
from sshproto_io._trio_nursery import PlainNursery

if TYPE_CHECKING:
    import os

    from sshproto.agent import AgentEvent, ConfirmNeeded, Keyring


class World(TrioLink):
    """Runs operations that belong to no connection.

    Args:
        nursery: For what runs in the background; without one nothing can.
    """

    def __init__(self, nursery: trio.Nursery | None = None) -> None:
        super().__init__(nursery)
        self.hub = cast(Any, Alone())

    def flush(self) -> None:
        """Let who can go on do so; there is nothing to send."""
        if not self._turning:
            self._turning = True
            try:
                self.turn()
            finally:
                self._turning = False

    def soon(self) -> None:
        """Have a turn soon; see the base class."""
        if not self._turning:
            self._start(self._flush_now)

    async def aclose(self, description: str = "") -> None:
        """End what runs in the background."""
        self.end_jobs()
        self._abandon()
        await trio.lowlevel.checkpoint()


async def open_one(path: str | os.PathLike[str] | None) -> Agent:
    """Connect to an agent; see :func:`sshproto_io.trio.open_agent`."""
    return await opened(World(), path)


@contextlib.asynccontextmanager
async def serve_one(
    keyring: Keyring,
    path: str | os.PathLike[str] | None,
    confirm: Callable[[ConfirmNeeded], Any] | None,
    on_event: Callable[[AgentEvent], object] | None,
    clock: Callable[[], float] | None,
) -> AsyncIterator[ServedAgent]:
    """Be an agent; see :func:`sshproto_io.trio.serve_agent`."""
    service, listener = prepared(keyring, path, confirm, on_event, clock)
    try:
        async with PlainNursery() as nursery:
            world = World(nursery)

            async def close() -> None:
                listener.close()
                await world.aclose()

            nursery.start_soon(world.perform, service.listen(listener))
            try:
                yield ServedAgent(service, listener, close)
            finally:
                with trio.CancelScope(shield=True):
                    await close()
    finally:
        listener.close()
