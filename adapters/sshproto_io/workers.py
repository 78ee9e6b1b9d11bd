"""Threads for functions of the application: one for each that runs, and who is done waits a while for the next.

A function that returns at once is cheaper to call where one is, than to pass to another thread; a :class:`Watch` tells
of those that do not return.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import queue
import threading
import time
from collections.abc import Callable

NAME = "ssh call"
"""The name of a thread that calls a function of the application."""

_TICK = 0.01  # seconds after which, or twice that, a call is late
_REST = 20  # ticks without a call, after which there is no thread any more
_IDLE = 0.1  # seconds that a thread waits for its next call: who asks more seldom can afford a new one


def report(error: BaseException) -> None:
    """Tell about an exception that nobody is there to catch, as threads do."""
    args = threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    with contextlib.suppress(Exception):  # the hook may be the application's
        threading.excepthook(args)


class Workers:
    """Threads that call functions."""

    def __init__(self) -> None:
        self._idle: list[queue.SimpleQueue[Callable[[], object]]] = []

    def start(self, function: Callable[[], object]) -> None:
        """Call ``function`` in a thread.

        Raises:
            RuntimeError: There can be no more threads.
        """
        try:
            work = self._idle.pop()  # the last one: so those that are not needed become old
        except IndexError:
            threading.Thread(target=self._work, args=(function,), name=NAME, daemon=True).start()
        else:
            work.put(function)

    def _work(self, function: Callable[[], object]) -> None:
        work: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        while True:
            contextvars.Context().run(function)  # what one sets is not the next one's
            del function  # it knows what it was called for
            self._idle.append(work)
            try:
                function = work.get(timeout=_IDLE)
            except queue.Empty:
                try:
                    self._idle.remove(work)
                except ValueError:  # it was taken just now
                    function = work.get()
                else:
                    return

    def forget(self) -> None:
        """This process is a fork, in which there are none of the threads."""
        self._idle = []


class Watch:
    """Sees which calls take long: one thread looks again and again while there are calls, and nobody wakes it."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """This process is a fork, in which there is no such thread."""
        self._lock = threading.Lock()
        self._calls: dict[object, Callable[[], object]] = {}
        self._begun = 0
        self._running = False

    def begin(self, call: object, late: Callable[[], object]) -> None:
        """A call begins; ``late`` is to be called in a thread of its own if it takes long.

        Raises:
            RuntimeError: There can be no more threads.
        """
        with self._lock:
            if not self._running:
                threading.Thread(target=self._look, name="ssh calls", daemon=True).start()
                self._running = True
            self._calls[call] = late
            self._begun += 1

    def end(self, call: object) -> None:
        """It has ended; if it was late already, that does no harm."""
        self._calls.pop(call, None)

    def _look(self) -> None:
        seen: list[object] = []
        begun, quiet = -1, 0
        while True:
            time.sleep(_TICK)
            with self._lock:
                late = [(call, self._calls.pop(call, None)) for call in seen]
                quiet = quiet + 1 if begun == self._begun and not self._calls else 0
                begun, seen = self._begun, list(self._calls)
                if quiet >= _REST and not any(function for _, function in late):
                    self._running = False
                    return
            for call, function in late:
                if function is not None:
                    try:
                        workers.start(function)
                    except RuntimeError:  # there are too many
                        with self._lock:
                            self._calls[call] = function


workers = Workers()
watch = Watch()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.forget)
    os.register_at_fork(after_in_child=watch.forget)
