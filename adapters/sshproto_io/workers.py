"""Threads for functions of the application: one for each that runs, and who is done waits a while for the next."""

from __future__ import annotations

import contextlib
import contextvars
import os
import queue
import threading
from collections.abc import Callable

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
            threading.Thread(target=self._work, args=(function,), name="ssh call", daemon=True).start()
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


workers = Workers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.forget)
