"""Packages whose names are loaded when they are first asked for (PEP 562), so that an import costs what is used of it.

Type checkers are told where the names come from by imports under ``TYPE_CHECKING``; what runs is a table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazily(
    package: str, homes: Mapping[str, str], public: Iterable[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of a package.

    Args:
        package: Its ``__name__``.
        homes: For each name the module that has it, and if it is called otherwise there, its name after a colon. A
            name that *is* a module has that module.
        public: Its ``__all__``.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807  PEP 562's own name
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place, _, called = home.partition(":")
        module = import_module(place)
        value = module if place == f"{package}.{name}" else getattr(module, called or name)
        setattr(sys.modules[package], name, value)  # asked for once
        return value

    return __getattr__, lambda: sorted({*vars(sys.modules[package]), *public})
