"""Waits for descriptors in a thread that others can wake."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Iterable

from sshproto.operations.steps import Waker

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Found = Iterable[tuple[int, int]]
"""Descriptors, each with what it is ready for: ``READ``, ``WRITE`` or both."""

# Not epoll or kqueue: they refuse regular files, which standard input and output often are.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Poller:
    """Waits for descriptors. Another thread, or a signal handler, may wake it."""

    def __init__(self) -> None:
        self._selector = _Selector()
        self._masks: dict[int, int] = {}
        self._wakers: dict[tuple[int, int], Waker] = {}
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._selector.register(self._alarm, READ)

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
            if key.fileobj is self._alarm:
                with contextlib.suppress(BlockingIOError, InterruptedError):
                    self._alarm.recv(4096)
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
        with contextlib.suppress(OSError):  # full: it will wake up anyway; or closed
            self._bell.send(b"\0")

    def close(self) -> None:
        self._selector.close()
        self._alarm.close()
        self._bell.close()
