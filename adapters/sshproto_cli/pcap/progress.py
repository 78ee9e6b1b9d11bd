"""How far long work has come, on one line of a terminal's standard error that goes away again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

_PATIENCE = 0.7  # seconds: what takes less needs no words
_PERIOD = 0.2
_SHORTEST = 1e-3
_ERASE = "\r\x1b[K"


def size(number: float) -> str:
    """So many bytes, in decimal units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 99.5 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


class Progress:
    """Shows how much has been read.

    Args:
        shown: Whether to; otherwise it is silent.
        clock: What time it is, in seconds.
    """

    def __init__(self, *, shown: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._shown = shown
        self._clock = clock
        self._started = clock()
        self._next = self._started + _PATIENCE
        self._visible = False

    @staticmethod
    def wanted() -> bool:
        """Whether standard error is a terminal on which a line can be erased."""
        return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __call__(self, done: int, total: int | None = None) -> None:
        """Note how far it has come.

        Args:
            done: Bytes that have been read.
            total: How many there are; None if nobody knows.
        """
        if not self._shown or (now := self._clock()) < self._next:
            return
        self._next = now + _PERIOD
        rate = f"{size(done / max(now - self._started, _SHORTEST))}/s"
        if total:
            words = f"{size(done)} of {size(total)}, {min(100, 100 * done // total)} %, {rate}"
        else:
            words = f"{size(done)}, {rate}"
        self._visible = True
        _write(f"{_ERASE}{words}")

    def clear(self) -> None:
        """Take the line away: something else is to be written."""
        if self._visible:
            self._visible = False
            _write(_ERASE)


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
