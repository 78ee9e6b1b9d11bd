"""Descriptors as operations: standard input and output, pipes, terminals.

What is read from one goes to a channel no faster than the channel takes it, and the other way round, so memory stays
flat whoever is slow.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from sshproto.operations.steps import Operation, Ready
from sshproto_io.sockets import Closable

_TERMINAL_PIECE = 1024


def is_terminal_or_file(descriptor: int) -> bool:
    """Whether a descriptor is better left in blocking mode.

    That mode belongs to the open file, which other processes share: a shell whose terminal was left non-blocking gets
    errors.  A regular file never blocks for long, and a terminal is asked before each small write.
    """
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode) or os.isatty(descriptor)


@contextlib.contextmanager
def nonblocking(descriptors: Sequence[int]) -> Iterator[None]:
    """Make pipes and sockets among ``descriptors`` non-blocking, and afterwards what they were."""
    with contextlib.ExitStack() as stack:
        for descriptor in descriptors:
            if not is_terminal_or_file(descriptor):
                stack.callback(_restore, descriptor, os.get_blocking(descriptor))
                os.set_blocking(descriptor, False)
        yield


def _restore(descriptor: int, blocking: bool) -> None:
    with contextlib.suppress(OSError):
        os.set_blocking(descriptor, blocking)


class Descriptor(Closable):
    """A descriptor that operations read and write.

    Args:
        number: The descriptor; non-blocking, unless :func:`is_terminal_or_file`.
        owned: Close it in the end; otherwise it is only let go.
    """

    def __init__(self, number: int, *, owned: bool = False) -> None:
        super().__init__()
        self.number = number
        self._owned = owned
        self._careful = is_terminal_or_file(number)
        self._terminal = self._careful and os.isatty(number)

    def __repr__(self) -> str:
        return f"<Descriptor {self.number}{', closed' if self.closed else ''}>"

    def read(self, limit: int) -> Operation[bytes]:
        """At least one byte and at most ``limit``; ``b""`` at the end, or if the other side of a terminal is closed.

        Raises:
            OSError: It cannot be read, or is closed on this side.
        """
        if self._careful:
            yield from self.wait(self.number)
        while True:
            data = self.read_now(limit)
            if data is not None:
                return data
            yield from self.wait(self.number)

    def read_now(self, limit: int) -> bytes | None:
        """The same without waiting; None if there is nothing now.

        Raises:
            OSError: It cannot be read.
        """
        try:
            return os.read(self.number, limit)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            if error.errno == errno.EIO:  # a pseudo-terminal whose other side is closed
                return b""
            raise

    def write(self, data: bytes) -> Operation[None]:
        """Write all of ``data``.

        Raises:
            OSError: It takes no more, or is closed on this side.
        """
        view = memoryview(data)
        while view:
            if self._terminal:  # blocks: to be written only when it is known to have room
                yield from self.wait(self.number, writing=True)
            try:
                view = view[os.write(self.number, view[:_TERMINAL_PIECE] if self._terminal else view) :]
            except (BlockingIOError, InterruptedError):
                yield from self.wait(self.number, writing=True)

    def _close(self) -> None:
        if self._owned:
            os.close(self.number)


def readable(descriptor: int) -> Operation[None]:
    """Wait until a descriptor can be read."""
    yield Ready(descriptor)
