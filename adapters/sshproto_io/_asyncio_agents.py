"""Agents under asyncio; see :mod:`sshproto_io.asyncio`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from sshproto_io._async_agents import Agent, Alone, ServedAgent, opened, prepared
from sshproto_io._asyncio_link import AsyncioLink

if TYPE_CHECKING:
    import os

    from sshproto.agent import AgentEvent, ConfirmNeeded, Keyring


class World(AsyncioLink):
    """Runs operations that belong to no connection."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = cast(Any, Alone())

    async def aclose(self, description: str = "") -> None:
        """End what runs in the background, and wait until that is done."""
        self.end_jobs()
        tasks = [task for task in self.tasks if task is not asyncio.current_task()]
        for task in tasks:
            self.tasks[task].cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)


async def open_one(path: str | os.PathLike[str] | None) -> Agent:
    """Connect to an agent; see :func:`sshproto_io.asyncio.open_agent`."""
    return await opened(World(), path)


async def serve_one(
    keyring: Keyring,
    path: str | os.PathLike[str] | None,
    confirm: Callable[[ConfirmNeeded], Any] | None,
    on_event: Callable[[AgentEvent], object] | None,
    clock: Callable[[], float] | None,
) -> ServedAgent:
    """Be an agent; see :func:`sshproto_io.asyncio.serve_agent`."""
    service, listener = prepared(keyring, path, confirm, on_event, clock)
    world = World()
    world.spawn(service.listen(listener))

    async def close() -> None:
        listener.close()
        await world.aclose()

    return ServedAgent(service, listener, close)
