"""Where connections wait that are quiet: one thread polls them all, and none of them needs one of its own."""

from __future__ import annotations

import heapq
import os
import selectors
import threading
import time
from collections.abc import Callable

from sshproto_io.poller import bell
from sshproto_io.workers import workers

_PAUSE = 0.1  # seconds until the next attempt to start a thread where there were too many
_STALE = 64  # deadlines that are not needed any more, and may be kept beside those that are


class Place:
    """One connection that waits.

    Args:
        descriptor: Its socket's.
        deadline: When it is to be waited for no more, by ``time.monotonic``.
        go_on: Called in a thread of its own when there is something to read, the time has come, or it was fetched.
    """

    __slots__ = ("deadline", "descriptor", "go_on", "since")

    def __init__(self, descriptor: int, deadline: float | None, go_on: Callable[[], object]) -> None:
        self.descriptor = descriptor
        self.deadline = deadline
        self.go_on = go_on
        self.since = time.monotonic()

    def __lt__(self, other: Place) -> bool:  # for a heap of pairs, where times are equal
        return self.descriptor < other.descriptor


class Lot:
    """Places, and a thread while there are any."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """This process is a fork, in which there is no such thread, and nobody waits."""
        self._lock = threading.Lock()
        self._places: dict[int, Place] = {}
        self._leaving: list[Place] = []
        self._deadlines: list[tuple[float, Place]] = []
        self._until: float | None = None  # when the thread wakes up by itself
        self._selector: selectors.BaseSelector | None = None  # while there is a thread

    def park(self, place: Place) -> None:
        """Wait.

        Raises:
            OSError, RuntimeError: The system has no descriptor or thread to spare.
        """
        with self._lock:
            selector = self._selector or self._open()
            selector.register(place.descriptor, selectors.EVENT_READ)
            self._places[place.descriptor] = place
            ring = isinstance(selector, selectors.SelectSelector)  # the others see at once what is new
            if place.deadline is not None:
                heapq.heappush(self._deadlines, (place.deadline, place))
                ring = ring or self._until is None or place.deadline < self._until
            if ring:
                self._bell.ring()

    def fetch(self, place: Place) -> None:
        """Wait no more, and let it go on, unless it does already. Its descriptor may be closed after this."""
        with self._lock:
            if self._leave(place):
                self._bell.ring()

    def _leave(self, place: Place) -> bool:
        if self._selector is None or self._places.get(place.descriptor) is not place:
            return False
        del self._places[place.descriptor]
        self._selector.unregister(place.descriptor)
        self._leaving.append(place)
        return True

    def _open(self) -> selectors.BaseSelector:
        selector = selectors.DefaultSelector()
        try:
            self._bell = bell()
            try:
                selector.register(self._bell.descriptor, selectors.EVENT_READ)
                self._selector = selector
                threading.Thread(target=self._watch, args=(selector,), name="ssh connections", daemon=True).start()
            except BaseException:
                self._bell.close()
                raise
        except BaseException:
            self._selector = None
            selector.close()
            raise
        return selector

    def _watch(self, selector: selectors.BaseSelector) -> None:
        pause: float | None = None
        while True:
            with self._lock:
                leaving, self._leaving = self._leaving, []
                if not leaving and not self._places:
                    self._selector = None
                    self._deadlines.clear()
                    selector.close()
                    self._bell.close()
                    return
                self._until = self._next_deadline()
                seconds = None if self._until is None else max(0.0, self._until - time.monotonic())
            if leaving:
                pause = self._let_go(leaving)
                if pause is None:
                    continue
            found = selector.select(seconds if pause is None else pause)
            pause = None
            with self._lock:
                for key, _ in found:
                    place = self._places.get(key.fd)
                    if place is not None:
                        self._leave(place)
                    elif key.fd == self._bell.descriptor:
                        self._bell.hush()
                now = time.monotonic()
                while self._deadlines and self._deadlines[0][0] <= now:
                    self._leave(heapq.heappop(self._deadlines)[1])

    def _next_deadline(self) -> float | None:
        deadlines, places = self._deadlines, self._places
        if len(deadlines) > 2 * len(places) + _STALE:
            deadlines[:] = [(moment, place) for moment, place in deadlines if places.get(place.descriptor) is place]
            heapq.heapify(deadlines)
        while deadlines and places.get(deadlines[0][1].descriptor) is not deadlines[0][1]:
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def _let_go(self, leaving: list[Place]) -> float | None:
        """Let them go on; seconds to wait before the next attempt, if there can be no more threads now."""
        while leaving:
            try:
                workers.start(leaving[-1].go_on)
            except RuntimeError:
                with self._lock:
                    self._leaving += leaving
                return _PAUSE
            leaving.pop()
        return None


lot = Lot()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lot.forget)
