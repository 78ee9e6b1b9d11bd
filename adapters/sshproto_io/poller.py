"""Waits for descriptors in a thread that others can wake."""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import sys
import threading
from collections.abc import Iterable
from typing import Any

from sshproto.operations.steps import Waker

READ = 1
WRITE = 2

Found = Iterable[tuple[int, int]]
"""Descriptors, each with what it is ready for: ``READ``, ``WRITE`` or both."""


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


bell: type[_Bell | _Counter] = _Counter if sys.platform == "linux" else _Bell
"""What wakes who polls."""


def _selectable(descriptor: int) -> bool:
    try:
        select.select([descriptor], [], [], 0)
    except (OSError, ValueError):
        return False
    return True


class _Select:
    """``select.poll`` for systems that have none."""

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}

    def register(self, descriptor: int, mask: int) -> None:
        self._masks[descriptor] = mask

    def unregister(self, descriptor: int) -> None:
        del self._masks[descriptor]

    def poll(self, milliseconds: float | None) -> list[tuple[int, int]]:
        masks = dict(self._masks)
        reading = [descriptor for descriptor, mask in masks.items() if mask & _IN]
        writing = [descriptor for descriptor, mask in masks.items() if mask & _OUT]
        # Windows tells of a connection that has failed only here.
        seconds = None if milliseconds is None else milliseconds / 1000
        try:
            readable, writable, failed = select.select(reading, writing, writing, seconds)
        except (OSError, ValueError):  # one of them is none, or is closed: whatever is done with it next will say why
            return [(descriptor, _IN | _OUT) for descriptor in masks if not _selectable(descriptor)]
        found = dict.fromkeys(readable, _IN)
        for descriptor in (*writable, *failed):
            found[descriptor] = found.get(descriptor, 0) | _OUT
        return list(found.items())


# Not epoll or kqueue: they refuse regular files, which standard input and output often are.
_poll: Any = getattr(select, "poll", _Select)
_IN: int = getattr(select, "POLLIN", READ)
_OUT: int = getattr(select, "POLLOUT", WRITE)
_MASKS = (0, _IN, _OUT, _IN | _OUT)


class Poller:
    """Waits for descriptors. Another thread, or a signal handler, may wake it.

    Attributes:
        wakers: Those who wait for a descriptor and an event, if there are any.
    """

    __slots__ = ("_bell", "_masks", "_poll", "wakers")

    def __init__(self) -> None:
        self._poll = _poll()
        self._masks: dict[int, int] = {}
        self.wakers: dict[tuple[int, int], Waker] | None = None
        self._bell = bell()
        self._poll.register(self._bell.descriptor, _IN)

    def watch(self, descriptor: int, event: int, wake: Waker) -> None:
        """Have :meth:`fire` call ``wake``.

        Raises:
            OSError, ValueError: The descriptor can't be waited for.
        """
        self.choose(descriptor, self._masks.get(descriptor, 0) | event)
        if self.wakers is None:
            self.wakers = {}
        self.wakers[descriptor, event] = wake

    def unwatch(self, descriptor: int, event: int, wake: Waker) -> None:
        """Take ``wake`` back."""
        if self.wakers and self.wakers.get((descriptor, event)) == wake:
            del self.wakers[descriptor, event]
            self.choose(descriptor, self._masks.get(descriptor, 0) & ~event)

    def choose(self, descriptor: int, mask: int) -> None:
        """What :meth:`wait` waits for at a descriptor: ``READ``, ``WRITE``, both, or 0 for nothing."""
        before = self._masks.get(descriptor, 0)
        if mask == before:
            return
        if mask:
            self._poll.register(descriptor, _MASKS[mask])
            self._masks[descriptor] = mask
        else:
            self._poll.unregister(descriptor)
            del self._masks[descriptor]

    def wait(self, timeout: float | None) -> Found:
        """Wait for descriptors, for :meth:`ring`, or for some time. The lock is not to be held."""
        found: list[tuple[int, int]] = []
        bell = self._bell
        for descriptor, events in self._poll.poll(None if timeout is None else math.ceil(timeout * 1000)):
            if descriptor == bell.descriptor:
                bell.hush()
            elif events == _IN:
                found.append((descriptor, READ))
            else:  # what is neither is an error or an end, and both ways will show it
                found.append((descriptor, (READ if events & ~_OUT else 0) | (WRITE if events & ~_IN else 0)))
        return found

    def fire(self, found: Found) -> None:
        """Call those who wait for what was found, if they still do."""
        wakers = self.wakers
        if not wakers:
            return
        for descriptor, mask in found:
            for event in (READ, WRITE):
                wake = wakers.get((descriptor, event)) if mask & event else None
                if wake is not None:
                    wake()

    def ring(self) -> None:
        """Have :meth:`wait` return, now or the next time."""
        self._bell.ring()

    def close(self) -> None:
        self._bell.close()
