"""Tasks that begin at once: what they have to say then leaves with what has made them begin."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

Coro = Coroutine[Any, Any, Any]


def begin(loop: asyncio.AbstractEventLoop, coroutine: Coro, name: str | None) -> asyncio.Task[Any]:
    """A new task, which has taken its first step, unless the application has tasks made by a factory of its own.

    Args:
        loop: Which runs.
        coroutine: What it does.
        name: Its name.
    """
    if loop.get_task_factory() is not None:
        return loop.create_task(coroutine, name=name)
    return _begun(loop, coroutine, name)


if sys.version_info >= (3, 12):

    def _begun(loop: asyncio.AbstractEventLoop, coroutine: Coro, name: str | None) -> asyncio.Task[Any]:
        return asyncio.Task(coroutine, loop=loop, name=name, eager_start=True)

else:

    def _begun(loop: asyncio.AbstractEventLoop, coroutine: Coro, name: str | None) -> asyncio.Task[Any]:
        """Python 3.11 has no such tasks. A task gives its first step to the loop; here that is caught, and taken."""
        own: dict[str, Any] | None = getattr(loop, "__dict__", None)
        if own is None or "call_soon" in own or asyncio.current_task(loop) is not None:  # tasks do not nest
            return loop.create_task(coroutine, name=name)
        steps: list[Callable[[], object]] = []
        its_own = copy_context()

        def catch(callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
            if context is not its_own:  # of all moments, a signal handler or a finalizer has chosen this one
                return type(loop).call_soon(loop, callback, *args, context=context)
            steps.append(callback)
            return None

        own["call_soon"] = catch
        try:
            task = asyncio.Task(coroutine, loop=loop, name=name, context=its_own)
        finally:
            del own["call_soon"]
        for step in steps:
            its_own.run(step)
        return task
