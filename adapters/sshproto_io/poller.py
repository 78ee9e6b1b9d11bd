"""Waits for descriptors in a thread that others can wake."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import threading
from collections.abc import Iterable

from sshproto.operations.steps import Waker

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Found = Iterable[tuple[int, int]]
"""Descriptors, each with what it is ready for: ``READ``, ``WRITE`` or both."""

# Not epoll or kqueue: they refuse regular files, which standard input and output often are.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class _Bell:
    """Something to be polled that another thread, or a signal handler, can make readable: a pair of sockets."""

    def __init__(self) -> None:
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        self.descriptor = self._inner.fileno()

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # full: it rings anyway; or closed
            self._outer.send(b"\0")

    def hush(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            self._inner.recv(4096)

    def close(self) -> None:
        self._inner.close()
        self._outer.close()


class _Counter:
    """The same as one descriptor, where the system has such (Linux)."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Who rings must not meet the number when it is another file's; a signal handler may come in between.
        self._lock = threading.RLock()

    def ring(self) -> None:
        with self._lock:
            if self.descriptor >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_write(self.descriptor, 1)

    def hush(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            os.eventfd_read(self.descriptor)

    def close(self) -> None:
        with self._lock:
            descriptor, self.descriptor = self.descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)


class Poller:
    """Waits for descriptors. Another thread, or a signal handler, may wake it."""

    def __init__(self) -> None:
        self._selector = _Selector()
        self._masks: dict[int, int] = {}
        self._wakers: dict[tuple[int, int], Waker] = {}
        self._bell = _Counter() if sys.platform == "linux" else _Bell()
        self._selector.register(self._bell.descriptor, READ)

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for a descriptor."""
        return bool(self._wakers)

    def watch(self, descriptor: int, event: int, wake: Waker) -> None:
        """Have :meth:`fire` call ``wake``.

        Raises:
            OSError, ValueError: The descriptor can't be waited for.
        """
        self.choose(descriptor, self._masks.get(descriptor, 0) | event)
        self._wakers[descriptor, event] = wake

    def unwatch(self, descriptor: int, event: int, wake: Waker) -> None:
        """Take ``wake`` back."""
        if self._wakers.get((descriptor, event)) == wake:
            del self._wakers[descriptor, event]
            self.choose(descriptor, self._masks.get(descriptor, 0) & ~event)

    def choose(self, descriptor: int, mask: int) -> None:
        """What :meth:`wait` waits for at a descriptor: ``READ``, ``WRITE``, both, or 0 for nothing."""
        before = self._masks.get(descriptor, 0)
        if mask == before:
            return
        if not mask:
            self._selector.unregister(descriptor)
            del self._masks[descriptor]
            return
        if before:
            self._selector.modify(descriptor, mask)
        else:
            self._selector.register(descriptor, mask)
        self._masks[descriptor] = mask

    def wait(self, timeout: float | None) -> Found:
        """Wait for descriptors, for :meth:`ring`, or for some time. The lock is not to be held."""
        found: list[tuple[int, int]] = []
        for key, mask in self._selector.select(timeout):
            if key.fd == self._bell.descriptor:
                self._bell.hush()
            else:
                found.append((key.fd, mask))
        return found

    def fire(self, found: Found) -> None:
        """Call those who wait for what was found, if they still do."""
        for descriptor, mask in found:
            for event in (READ, WRITE):
                wake = self._wakers.get((descriptor, event)) if mask & event else None
                if wake is not None:
                    wake()

    def ring(self) -> None:
        """Have :meth:`wait` return, now or the next time."""
        self._bell.ring()

    def close(self) -> None:
        self._selector.close()
        self._bell.close()
