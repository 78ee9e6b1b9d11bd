"""Between descriptors and channels.

Window credit goes back when a descriptor has taken the bytes; a descriptor is read no faster than the channel takes:
memory stays flat, whoever is slow.  Descriptors are never closed here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sshproto.errors import UsageError
from sshproto_io.driver import READ, WRITE, Driver

_CHUNK = 64 * 1024
_TERMINAL_CHUNK = 1024


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


class Source:
    """From a descriptor to a channel.

    Args:
        driver: The driver.
        channel: The channel's number.
        descriptor: What to read; not closed here.
        on_end: Called at most once, with None at the end of the input, or with the error that reading it met.
        stream: 0 for data, 1 for standard error.
    """

    def __init__(
        self,
        driver: Driver[Any],
        channel: int,
        descriptor: int,
        on_end: Callable[[OSError | None], None],
        *,
        stream: int = 0,
    ) -> None:
        self._driver = driver
        self._channel = channel
        self.descriptor = descriptor
        self._on_end = on_end
        self._stream = stream
        self._left = memoryview(b"")
        self._draining = False
        self.ended = False

    def resume(self) -> None:
        """Start, or go on: the channel has room."""
        self._push()
        if self._draining:
            self._drain()

    def _push(self) -> None:
        if self.ended:
            return
        if self._left:
            try:
                self._left = self._left[self._driver.conn.send(self._channel, self._left, self._stream) :]
            except UsageError:  # the channel has closed just now
                self.stop()
                return
        self._driver.watch(self.descriptor, 0 if self._left else READ, self._readable)

    def stop(self) -> None:
        """Read no more; ``on_end`` is not called."""
        if not self.ended:
            self.ended = True
            self._left = memoryview(b"")
            self._driver.watch(self.descriptor, 0, self._readable)

    def drain(self) -> None:
        """Relay what can be read without waiting, and take that as the end of the input."""
        self._draining = True
        self._drain()

    def _drain(self) -> None:
        while not self.ended and not self._left:
            if not self._read():
                self.stop()
                self._on_end(None)

    def _readable(self, mask: int) -> None:
        self._read()

    def _read(self) -> bool:
        """Read once and send; False if there is nothing now."""
        problem = None
        try:
            data = os.read(self.descriptor, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            data = b""
            if error.errno != errno.EIO:  # a pseudo-terminal whose other side is closed
                problem = error
        if data:
            self._left = memoryview(data)
            self._push()
        else:
            self.stop()
            self._on_end(problem)
        return True


class Feeder:
    """From memory to a channel, and then EOF."""

    def __init__(self, driver: Driver[Any], channel: int, data: bytes) -> None:
        self._driver = driver
        self._channel = channel
        self._left = memoryview(data)
        self.ended = False

    def resume(self) -> None:
        if self.ended:
            return
        with contextlib.suppress(UsageError):  # the channel has closed just now
            self._left = self._left[self._driver.conn.send(self._channel, self._left) :]
            if not self._left:
                self.ended = True
                self._driver.conn.send_eof(self._channel)

    def stop(self) -> None:
        self.ended = True


class Sink:
    """From a channel to a descriptor.

    Args:
        driver: The driver.
        channel: The channel's number.
        descriptor: What to write to; not closed here.
        on_broken: Called once with the error if the descriptor takes no more; all that comes later is thrown away.
        on_end: Called once when everything before :meth:`finish` is written or thrown away.
    """

    def __init__(
        self,
        driver: Driver[Any],
        channel: int,
        descriptor: int,
        on_broken: Callable[[OSError], None],
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._driver = driver
        self._channel = channel
        self._descriptor = descriptor
        self._on_broken = on_broken
        self._on_end = on_end
        self._waiting: deque[memoryview] = deque()
        self._finishing = False
        self._terminal = os.isatty(descriptor)
        self.broken: OSError | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._waiting

    def feed(self, data: bytes) -> None:
        """Data of the channel, at most its window."""
        if self.broken is not None:
            self._driver.conn.credit(self._channel, len(data))
            return
        self._waiting.append(memoryview(data))
        if len(self._waiting) > 1:
            return
        if self._terminal:  # blocks: to be written only when it is known to have room
            self._driver.watch(self._descriptor, WRITE, self._writable)
        else:
            self._flush()

    def finish(self) -> None:
        """There will be no more data."""
        self._finishing = True
        self._end_if_idle()

    def stop(self) -> None:
        """Write no more; ``on_end`` is not called."""
        self._on_end = None
        self._discard()

    def _writable(self, mask: int) -> None:
        self._flush()

    def _flush(self) -> None:
        done = 0
        try:
            while self._waiting:
                piece = self._waiting[0]
                count = os.write(self._descriptor, piece[:_TERMINAL_CHUNK] if self._terminal else piece)
                done += count
                if count == len(piece):
                    self._waiting.popleft()
                else:
                    self._waiting[0] = piece[count:]
                if self._terminal:
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self.broken = error
        self._driver.conn.credit(self._channel, done)
        if self.broken is not None:
            self._discard()
            self._on_broken(self.broken)
        else:
            self._driver.watch(self._descriptor, WRITE if self._waiting else 0, self._writable)
        self._end_if_idle()

    def _discard(self) -> None:
        self._driver.watch(self._descriptor, 0, self._writable)
        self._driver.conn.credit(self._channel, sum(map(len, self._waiting)))
        self._waiting.clear()

    def _end_if_idle(self) -> None:
        if self._finishing and not self._waiting and self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end()


class Collector:
    """From a channel to memory, without bound."""

    idle = True

    def __init__(self, driver: Driver[Any], channel: int) -> None:
        self._driver = driver
        self._channel = channel
        self.data = bytearray()

    def feed(self, data: bytes) -> None:
        self.data += data
        self._driver.conn.credit(self._channel, len(data))
