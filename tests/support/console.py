"""A terminal with a program on it, and somebody who types and reads: for tests of what people do by hand."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.support.peers import SECONDS

_ON_A_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execvpe(sys.argv[1], sys.argv[1:], os.environ)\n"
)
"""Makes standard input the controlling terminal of a new session."""


class Console:
    """A pseudo-terminal, and a program that has it for its own. Made by :func:`console`.

    Attributes:
        process: The program.
        before: The terminal's modes as the program found them.
        seen: All that stood on the terminal.
    """

    def __init__(self, argv: Sequence[str], env: dict[str, str], columns: int, rows: int, stty: Sequence[str]) -> None:
        self._terminal, self._slave = os.openpty()
        self.resize(columns, rows)
        if stty:
            subprocess.run(["stty", *stty], stdin=self._slave, check=True, timeout=SECONDS)
        self.before = self.modes()
        self.seen = b""
        self._looked_at = 0
        os.set_blocking(self._terminal, False)
        words = [sys.executable, "-I", "-S", "-c", _ON_A_TERMINAL, *argv]
        self.process = subprocess.Popen(
            words, stdin=self._slave, stdout=self._slave, stderr=self._slave, env=env, start_new_session=True
        )

    def modes(self) -> list[Any]:
        """The terminal's modes, as ``termios.tcgetattr`` gives them."""
        return termios.tcgetattr(self._slave)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size. The system tells the programs on it."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str | bytes) -> None:
        """Type, however long that takes: what comes meanwhile is read."""
        left = memoryview(text.encode() if isinstance(text, str) else text)
        end = time.monotonic() + SECONDS
        while left:
            if time.monotonic() > end:
                self._fail(f"it does not read what is typed; {len(left)} bytes are left")
            self._read(0.0)
            if select.select([], [self._terminal], [], 0.1)[1]:
                with contextlib.suppress(BlockingIOError):
                    left = left[os.write(self._terminal, left[:512]) :]

    def expect(self, pattern: str, seconds: float = SECONDS) -> re.Match[bytes]:
        """Wait for something to come that was not expected before, and what that is.

        Args:
            pattern: A regular expression.
            seconds: How long.
        """
        end = time.monotonic() + seconds
        while True:
            found = re.compile(pattern.encode(), re.DOTALL).search(self.seen, self._looked_at)
            if found:
                self._looked_at = found.end()
                return found
            if time.monotonic() > end:
                self._fail(f"{pattern!r} does not come")
            if not self._read(0.1) and self.process.poll() is not None:
                self._fail(f"{pattern!r} does not come: it has ended with {self.process.returncode}")

    def silent(self, seconds: float) -> None:
        """Read what comes, until nothing has come for a while."""
        end = time.monotonic() + SECONDS
        while self._read(seconds):
            if time.monotonic() > end:
                self._fail("it does not stop writing")

    def wait(self, seconds: float = SECONDS) -> int:
        """Wait for the program's end: its status, as ``subprocess`` has it."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > end:
                self._fail("it does not end")
            self._read(0.05)
        while self._read(0.0):
            pass
        return self.process.returncode

    @property
    def text(self) -> str:
        """All that stood on the terminal."""
        return self.seen.decode(errors="replace")

    def close(self) -> None:
        """End the program, if it has not ended, and what it left on the terminal."""
        if self.process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(SECONDS)
        os.close(self._slave)
        os.close(self._terminal)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._terminal], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # nobody has the other side open
            return False
        self.seen += data
        return bool(data)

    def _fail(self, problem: str) -> None:
        pytest.fail(f"{problem}; the last that came: {self.seen[-600:]!r}", pytrace=False)


@contextlib.contextmanager
def console(
    argv: Sequence[str], env: dict[str, str], columns: int = 80, rows: int = 24, stty: Sequence[str] = ()
) -> Iterator[Console]:
    """Run a program on a terminal of its own until the block is left.

    Args:
        argv: The program and its arguments.
        env: Its environment.
        columns, rows: The size of the terminal.
        stty: Modes to set before, in the words of that program.
    """
    made = Console(argv, env, columns, rows, stty)
    try:
        yield made
    finally:
        made.close()
