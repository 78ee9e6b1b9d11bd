"""Which lines and branches of sshproto a run reaches: cheap where Python monitors (3.12 and later), slow before.

Only what is reached for the first time is told of, so after a while it costs next to nothing.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_PACKAGES = ("sshproto", "sshproto_cli")
_TOOL = 4  # of sys.monitoring; coverage measures under 1, profilers under 2


class Reached:
    """A context in which what is reached counts.

    Args:
        modules: Of which to count lines: names of modules, or of packages with all that is in them.

    Attributes:
        more: Whether anything new was reached in the last context.
    """

    def __init__(self, modules: Iterable[str]) -> None:
        self._roots = tuple(str(path) for name in _PACKAGES for path in _folders(name))
        self._known: dict[CodeType, bool] = {}
        self._reached: set[tuple[Any, ...]] = set()
        self._ways: dict[tuple[Any, ...], set[int]] = {}
        self._files = {str(path) for name in modules for path in _sources(name)}
        self._monitoring = getattr(sys, "monitoring", None)
        self.more = False
        self._before = 0
        self._traced_before: Any = None
        if self._monitoring is not None:
            if self._monitoring.get_tool(_TOOL) is None:
                self._monitoring.use_tool_id(_TOOL, "fuzz")
            self._monitoring.restart_events()
            self._monitoring.register_callback(_TOOL, self._monitoring.events.LINE, self._line)
            self._monitoring.register_callback(_TOOL, self._monitoring.events.BRANCH, self._branch)
            # For good: what is told of once is not told of again, and to switch it costs more than that.
            self._monitoring.set_events(_TOOL, self._monitoring.events.LINE | self._monitoring.events.BRANCH)

    def __enter__(self) -> None:
        self._before = len(self._reached)
        if self._monitoring is None:
            self._traced_before = sys.gettrace()
            sys.settrace(self._call)

    def __exit__(self, *exception: object) -> None:
        if self._monitoring is None:
            sys.settrace(self._traced_before)
        self.more = len(self._reached) > self._before

    def _ours(self, code: CodeType) -> bool:
        known = self._known.get(code)
        if known is None:
            known = self._known[code] = code.co_filename.startswith(self._roots)
        return known

    def _line(self, code: CodeType, line: int) -> Any:
        if self._ours(code):
            self._reached.add((code.co_filename, line))
        return self._monitoring.DISABLE if self._monitoring is not None else None

    def _branch(self, code: CodeType, offset: int, destination: int) -> Any:
        disable = self._monitoring.DISABLE if self._monitoring is not None else None
        if not self._ours(code):
            return disable
        taken = (code.co_filename, code.co_firstlineno, offset)
        ways = self._ways.setdefault(taken, set())
        ways.add(destination)
        self._reached.add((*taken, destination))
        return disable if len(ways) > 1 else None

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._traced if self._ours(frame.f_code) else None

    def _traced(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self._reached.add((frame.f_code.co_filename, frame.f_lineno))
        return self._traced

    def missing(self) -> Iterator[str]:
        """The lines that were not reached, module by module."""
        for name in sorted(self._files):
            lines = sorted({line for line in _lines(name) if (name, line) not in self._reached})
            if lines:
                yield f"{name}: {', '.join(map(str, lines))}"

    def __str__(self) -> str:
        lines = {where for where in self._reached if len(where) == 2 and where[0] in self._files}
        there = {(name, line) for name in self._files for line in _lines(name)}
        share = f"{len(lines & there)} of {len(there)} lines" if there else f"{len(self._reached)} places"
        branches = sum(len(where) > 2 and where[0] in self._files for where in self._reached)
        return f"{share}, {branches} branches" if branches else share


def _folders(name: str) -> Iterator[str]:
    spec = find_spec(name)
    yield from (spec.submodule_search_locations or ()) if spec is not None else ()


def _sources(name: str) -> Iterator[Path]:
    spec = find_spec(name)
    if spec is not None and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            yield from Path(folder).rglob("*.py")
    elif spec is not None and spec.origin is not None:
        yield Path(spec.origin)


def _lines(name: str) -> Iterator[int]:
    """The lines of functions: what is outside of them runs at import, before anybody looks."""
    waiting = [compile(Path(name).read_bytes(), name, "exec")]
    while waiting:
        code = waiting.pop()
        waiting += [it for it in code.co_consts if isinstance(it, CodeType)]
        if code.co_flags & inspect.CO_OPTIMIZED:
            yield from {line for _, _, line in code.co_lines() if line and line != code.co_firstlineno}
