"""Runs operations in a thread: does their steps, and sleeps until the first of what they wait for.

A :class:`Runner` belongs to the thread that runs it, and its operations take turns in it.  With a
:class:`~sshproto_io.driver.Driver` they work on a connection, which other threads' runners share; without one they are
jobs of their own, such as dialling.

Everything here happens under the lock, except for sleeping and for calls of the application's functions.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sshproto.errors import ConnectionLoss, InternalError, InvalidArgument
from sshproto.operations.steps import Call, Operation, Ready, Sleep, Spawn, Step, Together, Wait
from sshproto_io import TimeoutExpired
from sshproto_io.poller import READ, WRITE, Found, Poller

if TYPE_CHECKING:
    from sshproto_io.driver import Driver

_LONGEST = 24 * 3600.0  # seconds of one sleep; the system's calls have limits of their own
_IDLE = 0.1  # seconds that a thread waits for its next call: who asks more seldom can afford a new one

T = TypeVar("T")


def report(error: BaseException) -> None:
    """Tell about an exception that nobody is there to catch, as threads do."""
    args = threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    with contextlib.suppress(Exception):  # the hook may be the application's
        threading.excepthook(args)


class _Workers:
    """Threads for functions of the application: one for each that runs, and who is done waits a while for the next."""

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


_workers = _Workers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.forget)


class Task:
    """An operation that is being run.

    Attributes:
        ended: It has returned, raised, or was cancelled.
        result, error: What it is told next; what it has come to, once it has ended.
    """

    __slots__ = (
        "children",
        "ended",
        "error",
        "operation",
        "parent",
        "result",
        "runner",
        "spawned",
        "until",
        "waiting",
        "watched",
    )

    def __init__(
        self, runner: Runner, operation: Operation[Any], parent: Task | None = None, *, spawned: bool = False
    ) -> None:
        self.runner = runner
        self.operation = operation
        self.parent = parent
        self.spawned = spawned
        self.children: list[Task] = []
        self.ended = False
        self.waiting = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.until: Wait | None = None
        self.watched: tuple[int, int] | None = None

    def wake(self) -> None:
        """What it waits for has come."""
        self.resume(None, None)

    def resume(self, result: Any, error: BaseException | None) -> None:
        """Its step is done: let it go on, in its own thread."""
        if self.waiting:
            self.result, self.error = result, error
            self.runner.go_on(self)


class Runner:
    """Runs an operation, and others that come of it, in the thread that calls :meth:`run`, which is done once.

    Args:
        driver: The connection's, if there is one.

    Attributes:
        lock: Held by who changes anything here.
        poller: Where it waits for descriptors, once it does.
    """

    def __init__(self, driver: Driver[Any] | None = None) -> None:
        self.lock = threading.Lock() if driver is None else driver.lock
        self._driver = driver
        self._tasks: set[Task] = set()
        self._due: deque[Task] = deque()
        self._timers: dict[Task, float] = {}
        self._soon: deque[Callable[[], object]] = deque()
        self.poller: Poller | None = None
        self._bell = threading.Event()
        self._asleep = False
        self._polling = False
        self._inline = False
        self._call: tuple[Task, Call] | None = None
        self._deadline: float | None = None
        self._over = False

    # ---------------------------------------------------------------------------------------------------------- outside

    def run(
        self,
        operation: Operation[T],
        timeout: float | None = None,
        what: str = "the operation",
        *,
        inline: bool | None = None,
    ) -> T:
        """Run an operation. When it ends, others that still run here are cancelled.

        Args:
            operation: What to run.
            timeout: Seconds after which it is cancelled.
            what: What it is, for the error.
            inline: While there is no other operation here, call the application's functions in this thread. The
                timeout stands still meanwhile. If None, do so when there is no timeout.

        Raises:
            TimeoutExpired: The time was over before it ended.
            BaseException: What the operation raises.
        """
        self._inline = timeout is None if inline is None else inline
        if timeout is not None:
            self._deadline = time.monotonic() + timeout
        root = Task(self, operation)
        found: Found = ()
        try:
            with self.lock:
                self._add(root)
            while True:
                with self.lock:
                    self._get_up(found)
                    self._turn(root)
                    if root.ended:
                        break
                    if timeout is not None and self._deadline is not None and time.monotonic() >= self._deadline:
                        raise TimeoutExpired(what, timeout)
                    call, seconds = self._call, None
                    if call is None:
                        seconds = self._lie_down()
                    elif self._driver is not None:
                        self._driver.hand_over()
                found = ()
                if call is not None:
                    self._make(*call)
                else:
                    found = self._rest(seconds)
        finally:
            self._leave()
        error, root.error = root.error, None
        try:
            if error is not None:
                raise error
            result: T = root.result
            return result
        finally:
            del error  # it knows this frame, and this frame knew it

    def soon(self, function: Callable[[], object]) -> None:
        """Have a runner without a driver call ``function`` under the lock. From any thread, or a signal handler."""
        self._soon.append(function)
        if self.poller is not None:
            self.poller.ring()

    # --------------------------------------------------------------------------------- from any thread, under the lock

    def spawn(self, operation: Operation[Any]) -> Callable[[], None]:
        """Run one more, which takes its first step at once.

        Returns:
            A function that cancels it, under the lock.
        """
        task = Task(self, operation, spawned=True)
        self._add(task)
        self._due.remove(task)
        self._advance(task)
        if self._over:
            self.cancel(task)
        self.rouse()
        return lambda: self.cancel(task)

    def cancel(self, task: Task) -> None:
        """Close an operation, and those that it waits for."""
        if task.ended:
            return
        task.ended = True
        self._forget(task)
        self._tasks.discard(task)
        for child in task.children:
            self.cancel(child)
        before = self._hold(threading.get_ident())
        try:
            task.operation.close()
        except Exception as error:  # noqa: BLE001  others are to be cancelled as well
            report(error)
        finally:
            self._hold(before)

    def go_on(self, task: Task) -> None:
        """It is a task's turn."""
        self._forget(task)
        self._due.append(task)
        self.rouse()

    def rouse(self) -> None:
        """Wake the thread, if it sleeps."""
        if self._asleep:
            self._asleep = False
            if self._polling and self.poller is not None:
                self.poller.ring()
            else:
                self._bell.set()

    def need_poller(self) -> Poller:
        """Where this runner waits for descriptors.

        Raises:
            OSError: The system has none to spare.
        """
        if self.poller is None:
            self.poller = Poller() if self._driver is None else self._driver.lend_poller()
        return self.poller

    # ------------------------------------------------------------------------------------------------ steps of the loop

    def _add(self, task: Task) -> None:
        self._tasks.add(task)
        self._due.append(task)

    def _turn(self, root: Task) -> None:
        """Let everybody go on who can."""
        while True:
            while self._due and not root.ended:
                task = self._due.popleft()
                if not task.ended:
                    self._advance(task)
            if self._driver is not None:
                self._driver.pump()
            if not self._due or root.ended:
                return

    def _advance(self, task: Task) -> None:
        """One step of one operation."""
        result, error = task.result, task.error
        task.result = task.error = None
        task.children = []
        before = self._hold(threading.get_ident())
        try:
            step = task.operation.send(result) if error is None else task.operation.throw(error)
        except StopIteration as end:
            self._end(task, end.value, None)
        except BaseException as problem:  # noqa: BLE001  it is whose who wants the result
            self._end(task, None, problem)
        else:
            task.waiting = True
            self._begin(task, step)
        finally:
            del error
            self._hold(before)
        if self._driver is not None:
            self._driver.drain()

    def _hold(self, thread: int) -> int:
        return 0 if self._driver is None else self._driver.hold(thread)

    def _end(self, task: Task, result: Any, error: BaseException | None) -> None:
        """An operation has come to its end."""
        task.ended = True
        task.result, task.error = result, error
        self._tasks.discard(task)
        parent = task.parent
        if parent is not None:
            children = parent.children
            if error is not None:
                task.error = None
                for child in children:
                    self.cancel(child)
                parent.resume(None, error)
            elif all(child.ended for child in children):
                parent.resume(tuple(child.result for child in children), None)
        elif task.spawned and error is not None:
            task.error = None
            if isinstance(error, KeyboardInterrupt):
                raise error
            # That the connection has ended is known to whoever wants to know it; and threads end by SystemExit.
            if isinstance(error, InternalError) or not isinstance(error, (ConnectionLoss, SystemExit)):
                report(error)

    def _lie_down(self) -> float | None:
        """Get ready to sleep, and say for how long."""
        moments = list(self._timers.values())
        if self._deadline is not None:
            moments.append(self._deadline)
        self._polling = self.poller is not None and self.poller.wanted
        if self._driver is None:
            self._polling = True
            self.need_poller()
        elif self._driver.appoint(self):
            self._polling = True
            if self._driver.deadline is not None:
                moments.append(self._driver.deadline)
        self._asleep = True
        self._bell.clear()
        if self._soon:
            return 0.0
        return min(_LONGEST, max(0.0, min(moments) - time.monotonic())) if moments else None

    def _rest(self, seconds: float | None) -> Found:
        """Sleep, without the lock."""
        if self._polling and self.poller is not None:
            return self.poller.wait(seconds)
        self._bell.wait(seconds)
        return ()

    def _get_up(self, found: Found) -> None:
        """See what has come."""
        self._asleep = False
        if self._driver is not None:
            self._driver.dismiss(self, found)  # the connection first: whoever is woken then knows the newest state
        if self.poller is not None:
            self.poller.fire(found)
        if self._timers:
            now = time.monotonic()
            for task in [task for task, moment in self._timers.items() if moment <= now]:
                task.wake()
        while self._soon:
            self._soon.popleft()()

    def _leave(self) -> None:
        """Cancel what still runs, and let others have what this runner had."""
        try:
            self._clear_away()
        except BaseException:
            self._clear_away()  # a second Ctrl-C: others must not wait for this thread for ever
            raise

    def _clear_away(self) -> None:
        with self.lock:
            self._asleep = False
            self._over = True
            driver, poller = self._driver, self.poller
            if driver is not None:
                driver.dismiss(self, ())
            while self._tasks:
                self.cancel(next(iter(self._tasks)))
            self._call = self.poller = None
            if driver is None:
                if poller is not None:
                    poller.close()
                return
            if poller is not None:
                driver.take_back(poller)
            driver.hand_over()
            driver.pump()

    # ------------------------------------------------------------------------------------------------------------ steps

    def _begin(self, task: Task, step: Step) -> None:
        begin = self._STEPS.get(type(step))
        if begin is None:
            task.resume(None, TypeError(f"an operation yields steps, not {step!r}"))
        else:
            begin(self, task, step)

    def _forget(self, task: Task) -> None:
        """A task waits for nothing any more."""
        task.waiting = False
        self._timers.pop(task, None)
        if task.until is not None:
            task.until.unsubscribe(task.wake)
            task.until = None
        if task.watched is not None:
            if self.poller is not None:
                self.poller.unwatch(*task.watched, task.wake)
            task.watched = None
            self.rouse()  # while somebody polls a descriptor, closing it has no effect

    def _wait(self, task: Task, step: Wait) -> None:
        task.until = step
        step.subscribe(task.wake)

    def _sleep(self, task: Task, step: Sleep) -> None:
        self._timers[task] = time.monotonic() + step.seconds
        if step.until is not None:
            self._wait(task, step.until)

    def _ready(self, task: Task, step: Ready) -> None:
        event = WRITE if step.writing else READ
        try:
            poller = self.need_poller()
        except OSError as error:  # there are no descriptors left
            task.resume(None, error)
            return
        try:
            poller.watch(step.descriptor, event, task.wake)
        except (OSError, ValueError, KeyError):  # it can't be waited for: whatever is done with it next will say why
            self._timers[task] = 0.0
            return
        task.watched = step.descriptor, event
        if step.until is not None:
            self._wait(task, step.until)

    def _make_call(self, task: Task, step: Call) -> None:
        if self._inline and len(self._tasks) == 1:
            self._call = task, step
            return
        try:
            _workers.start(functools.partial(self._make, task, step))
        except RuntimeError as error:  # there are too many
            task.resume(None, error)

    def _make(self, task: Task, step: Call) -> None:
        """Call a function of the application, without the lock."""
        started = time.monotonic()
        result, problem = None, None
        try:
            result = step.function(*step.args)
            if inspect.isawaitable(result):  # it would count as true
                if inspect.iscoroutine(result):
                    result.close()
                name = getattr(step.function, "__qualname__", type(step.function).__name__)
                raise InvalidArgument(f"{name} is asynchronous, and nobody here would wait for it")
        except BaseException as error:  # noqa: BLE001  it is the operation's
            problem = error
        with self.lock:
            if self._call is not None and self._call[0] is task:
                self._call = None
                if self._deadline is not None:
                    self._deadline += time.monotonic() - started
            task.resume(result, problem)  # which has no effect if the operation was cancelled meanwhile
        del problem

    def _together(self, task: Task, step: Together) -> None:
        task.children = [Task(self, operation, task) for operation in step.operations]
        if not task.children:
            task.resume((), None)
        for child in task.children:
            self._add(child)

    def _spawn(self, task: Task, step: Spawn) -> None:
        try:
            cancel = (self if self._driver is None else self._driver).spawn(step.operation)
        except Exception as error:  # noqa: BLE001  there are no threads left
            step.operation.close()
            task.resume(None, error)
        else:
            task.resume(cancel, None)

    _STEPS: ClassVar[dict[type, Callable[[Any, Task, Any], None]]] = {
        Wait: _wait,
        Sleep: _sleep,
        Ready: _ready,
        Call: _make_call,
        Together: _together,
        Spawn: _spawn,
    }
