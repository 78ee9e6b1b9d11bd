"""The user's own terminal while it belongs to a program at the other end: raw, and watched for changes of its size.

What is typed goes to the remote side as it is: this side's terminal neither echoes it nor edits lines nor makes signals
of control characters. However that ends, the terminal is afterwards as it was: :class:`RawMode` is a context manager,
and signals that end the process become exceptions by :class:`~sshproto_cli.terminal.Interrupts`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from sshproto.channels.requests import PtyRequest, WindowChange
from sshproto_cli.terminal import Bell, read_modes

_IFLAG, _OFLAG, _LFLAG, _CC = 0, 1, 3, 6  # of what termios.tcgetattr returns

_RAW_IFLAG = ("ISTRIP", "INLCR", "IGNCR", "ICRNL", "IUCLC", "IXON", "IXANY", "IXOFF")
_RAW_LFLAG = ("ISIG", "ICANON", "ECHO", "ECHOE", "ECHOK", "ECHONL", "IEXTEN")


def pty_request(descriptor: int, term: str | None = None) -> PtyRequest:
    """What to ask of a server: a terminal like this one. To be made before this one is raw.

    Args:
        descriptor: The terminal.
        term: What kind it is; None for the environment's TERM.

    Raises:
        OSError, termios.error: It is no terminal.
        InvalidArgument: TERM is too long.
    """
    size = window_change(descriptor)
    return PtyRequest(
        os.environ.get("TERM", "") if term is None else term,
        size.columns,
        size.rows,
        size.width,
        size.height,
        read_modes(descriptor),
    )


def window_change(descriptor: int) -> WindowChange:
    """The size of a terminal, as a server is told of it; what the terminal does not know is 0.

    Raises:
        OSError: It is no terminal.
    """
    rows, columns, width, height = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))
    return WindowChange(columns, rows, width, height)


class RawMode:
    """Makes a terminal raw inside the block.

    Args:
        descriptor: The terminal, standard input mostly.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """Make it raw. Nothing happens if it is.

        Raises:
            termios.error: It is no terminal, or not any more.
        """
        if self._before is not None:
            return
        self._before = before = termios.tcgetattr(self._descriptor)
        try:
            _set(self._descriptor, _raw(before))
        except BaseException:  # a signal may have come just behind the change
            self.leave()
            raise

    def leave(self) -> None:
        """Make it what it was. Nothing happens if it is, or if it is gone."""
        try:
            self._restore()
        except BaseException:  # a signal has come before it was done
            self._restore()
            raise

    def suspend(self) -> WindowChange:
        """Restore the terminal and stop, as control-Z makes other programs do; once continued, make it raw again.

        All of the process group stops, since a shell waits for all of it. A group that nobody could continue is not
        stopped by the system. To be called in the main thread, which is the one that is sure to stop here.

        Returns:
            The size of the terminal, which may have changed meanwhile.

        Raises:
            OSError, termios.error: The terminal is gone.
        """
        self.leave()
        os.kill(0, signal.SIGTSTP)
        self.enter()
        return window_change(self._descriptor)

    def _restore(self) -> None:
        if self._before is not None and not self._elsewhere():
            with contextlib.suppress(termios.error):
                _set(self._descriptor, self._before)
        self._before = None

    def _elsewhere(self) -> bool:
        """Whether the terminal is in use by others, while we run in the background: they have set it up for themselves,
        and a change of ours would stop us."""
        try:
            return os.tcgetpgrp(self._descriptor) != os.getpgrp()
        except OSError:  # it isn't the terminal that controls this process
            return False


def _raw(before: list[Any]) -> list[Any]:
    state = list(before)
    state[_CC] = list(before[_CC])
    state[_IFLAG] = (state[_IFLAG] & ~_bits(_RAW_IFLAG)) | termios.IGNPAR
    state[_OFLAG] &= ~termios.OPOST
    state[_LFLAG] &= ~_bits(_RAW_LFLAG)
    state[_CC][termios.VMIN] = 1
    state[_CC][termios.VTIME] = 0
    return state


def _bits(names: tuple[str, ...]) -> int:
    bits = 0
    for name in names:
        bits |= getattr(termios, name, 0)
    return bits


def _set(descriptor: int, state: list[Any]) -> None:
    """Set the modes once what was written is out."""
    while True:
        try:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, state)
        except termios.error as error:
            if error.args[0] == errno.EINTR:  # by a signal that is no reason to give up
                continue
            raise
        return


@contextlib.contextmanager
def resizes() -> Iterator[Bell]:
    """SIGWINCH, which says that the size of the terminal has changed, as a bell that rings inside the block.

    Whoever waits for its descriptor clears it, and asks for the size then. Only the main thread can enter the block.
    """
    bell = Bell()

    def ring(number: int, frame: FrameType | None) -> None:
        bell.ring()

    before = signal.signal(signal.SIGWINCH, ring)
    try:
        yield bell
    finally:
        signal.signal(signal.SIGWINCH, before)
        bell.close()
