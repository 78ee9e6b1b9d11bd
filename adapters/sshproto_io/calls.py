"""Where a runner's calls of the application's functions are made, so that they hold up nobody for long.

There are three places:

* *here*, in the runner's own thread, if the call is all that it has to do; another thread leads meanwhile,
* *elsewhere*, in a thread of :data:`~sshproto_io.workers.workers`,
* *briefly*, in a thread that serves a connection, though others wait for it: passing a call to another thread costs
  more than most calls take.  A :data:`~sshproto_io.workers.watch` sees those that do take long.  Then another thread
  serves in the place of this one, which is left with the call alone, and for a while calls are made elsewhere.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from sshproto.errors import InvalidArgument
from sshproto_io.workers import NAME, watch, workers

if TYPE_CHECKING:
    from sshproto.operations.steps import Call
    from sshproto_io.runner import Runner, Task

_SWIFT = 0.001  # seconds that a brief call may take
_DOUBT = 64  # calls that are made elsewhere after one that took longer


class Calls:
    """The calls of one runner. All of it happens under the runner's lock, except for the calls.

    Args:
        runner: Whose tasks want them.

    Attributes:
        serving: The runner's thread takes the steps of now, and there is one that can take its place.
        brief: Calls that are to be made briefly, one after the other.
        hurried: The call that the runner's thread makes is one of those.
    """

    __slots__ = ("_doubt", "_now", "_runner", "brief", "hurried", "serving")

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._now: tuple[Task, Call] | None = None
        self._doubt = 0
        self.serving = False
        self.brief: list[tuple[Task, Call]] = []
        self.hurried = False

    def begin(self, task: Task, step: Call) -> None:
        """Have a call made."""
        runner = self._runner
        if runner.inline and len(runner.tasks) == 1:
            self._now = task, step
            runner.rouse()  # it may be another thread that is here
        elif not self.serving or step.function is socket.getaddrinfo:
            self._make_elsewhere(task, step)
        elif self._doubt:
            self._doubt -= 1
            self._make_elsewhere(task, step)
        else:
            self.brief.append((task, step))

    def next(self) -> tuple[Task, Call] | None:
        """The call that the runner's thread is to :meth:`make` now."""
        if self._now is None and self.brief:
            self._now = self.brief.pop(0)
            self.hurried = True
        return self._now

    def make(self, task: Task, step: Call) -> bool:
        """Call a function of the application, without the lock.

        Args:
            task: Whose step it is.
            step: What to call.

        Returns:
            False if it was made elsewhere, or another thread does by now what this one did.
        """
        runner, now = self._runner, self._now
        brief = self.hurried and now is not None and now[0] is task
        started = time.monotonic()
        result, problem = None, None
        try:
            result = self.make_briefly(task, step) if brief else step.function(*step.args)
            if inspect.isawaitable(result):  # it would count as true
                if inspect.iscoroutine(result):
                    result.close()
                name = getattr(step.function, "__qualname__", type(step.function).__name__)
                raise InvalidArgument(f"{name} is asynchronous, and nobody here would wait for it")
        except BaseException as error:  # noqa: BLE001  it is the operation's
            problem = error
        with runner.lock:
            now = self._now
            here = now is not None and now[0] is task
            if here:
                self._now, self.hurried = None, False
                took = time.monotonic() - started
                if runner.deadline is not None:
                    runner.deadline += took
                if brief and took > _SWIFT:
                    self._distrust()
            task.resume(result, problem)  # which has no effect if the operation was cancelled meanwhile
            if threading.get_ident() != runner.thread:
                runner.settle()  # who waits for what follows need not be woken for this
        del problem
        return here

    def make_briefly(self, task: Task, step: Call) -> Any:
        """Make a call as if in a thread of its own, and be relieved if it takes long."""
        thread = threading.current_thread()
        before, thread.name = thread.name, NAME
        relieve = functools.partial(self._relieve, task)  # of this call alone: the task's next one is not late with it
        try:
            watch.begin(relieve, relieve)
            return contextvars.Context().run(step.function, *step.args)
        finally:
            watch.end(relieve)
            thread.name = before

    def spare(self) -> bool:
        """Have another thread take the place of the runner's, if all that it does is a brief call; False if not."""
        now = self._now
        if now is None or not self.hurried:
            return False
        try:
            workers.start(functools.partial(self._relieve, now[0]))
        except RuntimeError:
            return False
        return True

    def clear(self) -> None:
        """The runner is done: nothing waits for their results any more."""
        self._now, self.serving = None, False
        self.brief.clear()

    def _make_elsewhere(self, task: Task, step: Call) -> None:
        try:
            workers.start(functools.partial(self.make, task, step))
        except RuntimeError as error:  # there are too many
            task.resume(None, error)

    def _distrust(self) -> None:
        """A call takes long: those that would be made briefly are made elsewhere."""
        self._doubt = _DOUBT
        brief, self.brief = self.brief, []
        for task, step in brief:
            self._make_elsewhere(task, step)

    def _relieve(self, task: Task) -> None:
        """Serve in the place of the thread that makes a brief call for ``task``, if it still does."""
        runner = self._runner
        with runner.lock:
            resume = runner.resume
            if resume is None or self._now is None or self._now[0] is not task:
                return
            self._now, self.hurried = None, False
            runner.thread = 0
            self._distrust()
        resume()
