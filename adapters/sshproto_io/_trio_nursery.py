"""Nurseries under Trio that nobody has to know of."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import trio


class PlainNursery:
    """A nursery that its users need not know of: an error that comes alone is not wrapped into a group."""

    # No asynchronous generator, which takes more memory than the nursery, and Trio keeps track of it.
    __slots__ = ("_manager",)

    def __init__(self) -> None:
        self._manager = trio.open_nursery(strict_exception_groups=True)

    async def __aenter__(self) -> trio.Nursery:
        return await self._manager.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            rest = without_cancelled(group)
            problem = rest.exceptions[0] if len(rest.exceptions) == 1 else rest
        if problem is error:
            return False
        raise problem


def without_cancelled(group: BaseExceptionGroup[Any]) -> BaseExceptionGroup[Any]:
    """What else is in a group, if there is anything: of being cancelled, the next checkpoint will tell again."""
    cancelled, rest = group.split(trio.Cancelled)
    return group if cancelled is None or rest is None else rest
