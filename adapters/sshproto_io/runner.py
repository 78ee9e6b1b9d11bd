"""Runs operations in a thread: does their steps, and sleeps until the first of what they wait for.

A :class:`Runner` belongs to the thread that wants the result of one operation, and to what comes of that.  With a
:class:`~sshproto_io.driver.Driver` they work on a connection, which other threads' runners share: then whoever has the
lock when an operation can go on takes its step, whosever it is, and a thread is woken only when the result that it
waits for is there.  Without one they are jobs of their own, such as dialling.

Everything here happens under the lock, except for sleeping and for calls of the application's functions.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sshproto.errors import ConnectionLoss, InternalError
from sshproto.operations.steps import Call, Operation, Ready, Sleep, Spawn, Step, Together, Wait
from sshproto_io import TimeoutExpired
from sshproto_io.calls import Calls
from sshproto_io.lot import Place, lot
from sshproto_io.poller import READ, WRITE, Found, Poller
from sshproto_io.workers import report

if TYPE_CHECKING:
    from sshproto_io.driver import Driver

_LONGEST = 24 * 3600.0  # seconds of one sleep; the system's calls have limits of their own

T = TypeVar("T")


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
        self.children: tuple[Task, ...] = ()
        self.ended = False
        self.waiting = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.until: Wait | None = None
        self.watched: tuple[int, int] | None = None

    def fired(self) -> None:
        """The one thing that it waits for has come."""
        if self.waiting:
            self.waiting = False
            self.until = None
            self.runner.due.append(self)

    def wake(self) -> None:
        """The first of what it waits for has come."""
        self.resume(None, None)

    def resume(self, result: Any, error: BaseException | None) -> None:
        """Its step is done: it can go on."""
        if self.waiting:
            self.result, self.error = result, error
            self.runner.forget(self)
            self.runner.due.append(self)


class Runner:
    """Runs an operation, and others that come of it, for the thread that calls :meth:`run`, which is done once.

    Args:
        driver: The connection's, if there is one.

    Attributes:
        lock: Held by who changes anything here.
        due: Operations that can go on; with a driver, all of the connection's.
        tasks: Operations that run here.
        poller: Where it waits for descriptors, once it does.
        thread: In which it runs, if there is one.
        asleep: That sleeps, and may have to be roused.
        deadline: When its time is over.
        inline: It calls functions of the application in its own thread, if that has nothing else to do.
        parting: Its operation has ended, and nobody waits for what comes of what it sent last.
        resume: Has a thread go on, if it can do without one meanwhile; then the lot can wait in its place.
    """

    __slots__ = (
        "_bell",
        "_calls",
        "_driver",
        "_expired",
        "_over",
        "_parked",
        "_patient",
        "_polling",
        "_root",
        "_soon",
        "_timers",
        "_unhurried",
        "asleep",
        "deadline",
        "due",
        "inline",
        "lock",
        "parting",
        "poller",
        "resume",
        "tasks",
        "thread",
    )

    def __init__(self, driver: Driver[Any] | None = None) -> None:
        self.lock: Any
        self.due: deque[Task]
        if driver is None:
            self.lock, self.due = threading.Lock(), deque()
        else:
            self.lock, self.due = driver.lock, driver.due
        self.tasks: set[Task] = set()
        self.poller: Poller | None = None
        self.thread = 0
        self.asleep = False
        self.deadline: float | None = None
        self.inline = False
        self.parting = False
        self.resume: Callable[[], object] | None = None
        self._driver = driver
        self._root: Task | None = None
        self._expired = False
        self._over = False
        self._timers: dict[Task, float] = {}
        self._soon: deque[Callable[[], object]] | None = None
        self._calls: Calls | None = None
        self._unhurried = False
        self._bell: Any = None
        self._polling = False
        self._patient = False  # it sleeps for so long that it should rather wait in the lot then
        self._parked: Place | None = None

    # ---------------------------------------------------------------------------------------------------------- outside

    def run(
        self,
        operation: Operation[T],
        timeout: float | None = None,
        what: str = "the operation",
        *,
        inline: bool | None = None,
        unhurried: bool = False,
    ) -> T:
        """Run an operation. When it ends, others that still run here are cancelled.

        Args:
            operation: What to run.
            timeout: Seconds after which it is cancelled.
            what: What it is, for the error.
            inline: While there is no other operation here, call the application's functions in this thread. The
                timeout stands still meanwhile. If None, do so when there is no timeout.
            unhurried: What it sends as it ends may leave a moment later, with what is sent next.

        Raises:
            TimeoutExpired: The time was over before it ended.
            BaseException: What the operation raises.
        """
        self.inline = timeout is None if inline is None else inline
        self._unhurried = unhurried
        if timeout is not None:
            self.deadline = time.monotonic() + timeout
        root = self._root = Task(self, operation)
        try:
            with self.lock:
                self._add(root)
            self._loop(root)
            if self._expired:
                raise TimeoutExpired(what, timeout or 0.0)
        finally:
            if not self._over:
                self._leave()
        result: T = self._outcome(root)
        return result

    def attend(self, operation: Operation[Any], resume: Callable[[], object]) -> bool:
        """Run an operation that may take long, mostly waiting: while its connection is quiet, without a thread.

        Args:
            operation: What to run.
            resume: Called in another thread when something has come. It is to call :meth:`go_on`.

        Returns:
            Whether it has ended. If not, this thread is not needed any more.

        Raises:
            BaseException: What the operation raises.
        """
        self.inline = True
        self.resume = resume
        self._calls = Calls(self)
        root = self._root = Task(self, operation)
        with self.lock:
            self._add(root)
        return self.go_on()

    def go_on(self) -> bool:
        """Go on where the thread of :meth:`attend` has left; see there."""
        root, parked = self._root, False
        if root is None:
            return True
        try:
            if self._parked is not None:
                self._come_back()
            parked = self._loop(root)
        finally:
            if not parked and not self._over:
                self._leave()
        if not parked:
            self._outcome(root)
        return not parked

    def _loop(self, root: Task) -> bool:
        """Take steps until ``root`` has ended, or its time is over. True: the connection waits in the lot, or another
        thread serves it by now."""
        driver, calls, thread = self._driver, self._calls, threading.get_ident()
        found: Found = ()
        while True:
            seconds = None
            with self.lock:
                if driver is not None:
                    driver.holder = thread
                try:
                    if not found and self._patient and self.asleep and self._park():
                        return True
                    self.thread = thread
                    self.asleep = False
                    if driver is None:
                        self._look_around(found)
                        self._turn(root)
                    else:
                        driver.woken(self, found)  # the connection first: who is woken next knows its newest state
                        if self._timers or (found and self.poller is not None and self.poller.wakers):
                            self._look_around(found)
                        if calls is None:
                            driver.settle()
                        else:
                            calls.serving = self.resume is not None
                            driver.settle(calls.brief)
                            calls.serving = False
                    if root.ended:
                        self._clear_away()
                        return False
                    if self.deadline is not None and time.monotonic() >= self.deadline:
                        self._expired = True
                        self._clear_away()  # now: else another thread might take it to an end that nobody hears of
                        return False
                    calls = self._calls  # there may be some by now
                    call = None if calls is None else calls.next()
                    if call is None:
                        seconds = self._lie_down()
                    elif driver is not None:
                        driver.dismiss(self)
                        if calls is not None and not calls.hurried:
                            driver.hand_over()
                finally:
                    if driver is not None:
                        driver.holder = 0
            if call is not None and calls is not None:
                if not calls.make(*call):
                    return True
                found = ()
            elif self._polling and self.poller is not None:
                found = self.poller.wait(seconds)
            else:
                self._bell.acquire(True, -1 if seconds is None else seconds)
                found = ()

    def _outcome(self, root: Task) -> Any:
        error, root.error = root.error, None
        try:
            if error is not None:
                raise error
            return root.result
        finally:
            del error  # it knows this frame, and this frame knew it

    def needs_me(self) -> bool:
        """Whether the calling thread is the one that serves. If all that it does is a brief call, another will."""
        here = threading.get_ident()
        if self.thread != here or (self._calls is not None and self._calls.spare()):
            return False
        return self.thread == here  # and was not relieved just now

    def soon(self, function: Callable[[], object]) -> None:
        """Have a runner without a driver call ``function`` under the lock. From any thread, or a signal handler."""
        if self._soon is None:
            self._soon = deque()
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
        self.tasks.add(task)
        self.advance(task)
        if self._over:
            self.cancel(task)
        return functools.partial(self.cancel, task)

    def cancel(self, task: Task) -> None:
        """Close an operation, and those that it waits for."""
        if task.ended:
            return
        task.ended = True
        self.forget(task)
        self.tasks.discard(task)
        for child in task.children:
            self.cancel(child)
        try:
            task.operation.close()
        except Exception as error:  # noqa: BLE001  others are to be cancelled as well
            report(error)

    def forget(self, task: Task) -> None:
        """A task waits for nothing any more."""
        task.waiting = False
        if self._timers:
            self._timers.pop(task, None)
        if task.until is not None:
            task.until.unsubscribe(task.wake)
            task.until.unsubscribe(task.fired)
            task.until = None
        if task.watched is not None:
            if self.poller is not None:
                self.poller.unwatch(*task.watched, task.wake)
            task.watched = None
            self.rouse()  # while somebody polls a descriptor, closing it has no effect

    def rouse(self) -> None:
        """Wake the thread, if it sleeps."""
        if self.asleep:
            self.asleep = False
            if self._parked is not None:
                lot.fetch(self._parked)
            elif self._polling and self.poller is not None:
                self.poller.ring()
            else:
                self._bell.release()

    def need_poller(self) -> Poller:
        """Where this runner waits for descriptors.

        Raises:
            OSError: The system has none to spare.
        """
        if self.poller is None:
            self.poller = Poller() if self._driver is None else self._driver.lend_poller()
        return self.poller

    def settle(self) -> None:
        """Let those go on who can, in a thread that is not this runner's."""
        driver = self._driver
        if driver is None:
            self.rouse()
            return
        driver.holder = threading.get_ident()
        try:
            driver.settle()
        finally:
            driver.holder = 0

    def advance(self, task: Task) -> None:
        """One step of one operation."""
        result, error = task.result, task.error
        task.result = task.error = None
        task.children = ()
        try:
            step = task.operation.send(result) if error is None else task.operation.throw(error)
        except StopIteration as end:
            self._end(task, end.value, None)
        except BaseException as problem:  # noqa: BLE001  it is whose who wants the result
            self._end(task, None, problem)
        else:
            task.waiting = True
            if type(step) is Wait:
                task.until = step
                step.subscribe(task.fired)
            else:
                self._begin(task, step)
        finally:
            del error

    # ------------------------------------------------------------------------------------------------ steps of the loop

    def _add(self, task: Task) -> None:
        self.tasks.add(task)
        self.due.append(task)

    def _turn(self, root: Task) -> None:
        """Let everybody go on who can, without a driver, which would see to that."""
        due = self.due
        while due and not root.ended:
            task = due.popleft()
            if not task.ended:
                self.advance(task)

    def _end(self, task: Task, result: Any, error: BaseException | None) -> None:
        """An operation has come to its end."""
        task.ended = True
        task.result, task.error = result, error
        self.tasks.discard(task)
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
        elif not task.spawned:
            if isinstance(error, KeyboardInterrupt) and self._driver is not None:
                self._driver.struck(self.thread, task)
            # What another thread sends before this one wakes is in a hurry.
            self.parting = self._unhurried and error is None and self.thread == threading.get_ident()
            self.rouse()
        elif error is not None:
            task.error = None
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise error
            # That the connection has ended is known to whoever wants to know it; and threads end by SystemExit.
            if isinstance(error, InternalError) or not isinstance(error, (ConnectionLoss, SystemExit)):
                report(error)

    def _lie_down(self) -> float | None:
        """Get ready to sleep, and say for how long."""
        moment, driver, timers, patience = self.deadline, self._driver, self._timers, None
        self._patient = False
        if timers:
            first = min(timers.values())
            moment = first if moment is None else min(moment, first)
        self._polling = True
        if driver is None:
            self.need_poller()
        elif driver.appoint(self):
            if driver.deadline is not None and (moment is None or driver.deadline < moment):
                moment = driver.deadline
            if self.resume is not None and not timers and not (self.poller is not None and self.poller.wakers):
                patience = driver.patience
        elif self.poller is None or not self.poller.wakers:
            self._polling = False
            if self._bell is None:
                self._bell = threading.Lock()
            self._bell.acquire(False)  # it has rung for the last sleep, or not at all
        self.asleep = True
        if self._soon:
            return 0.0
        seconds = None
        if moment is not None:
            seconds = moment - time.monotonic()
            if seconds < 0.0:
                return 0.0
            seconds = min(seconds, _LONGEST)
        if patience is not None and (seconds is None or patience < seconds):
            self._patient = True
            return patience
        return seconds

    def _park(self) -> bool:
        """Let the lot watch the connection, in this thread's place."""
        self._patient = False
        if self._driver is not None and self.resume is not None:
            self._parked = self._driver.park(self.resume)
        if self._parked is None:
            return False
        if self.poller is not None:
            self.poller.close()
            self.poller = None
        self.thread = 0
        return True

    def _come_back(self) -> None:
        """The lot watches it no more."""
        with self.lock:
            if self._parked is not None and self._driver is not None:
                self._driver.unparked(self._parked)
            self._parked = None
            self.asleep = False

    def _look_around(self, found: Found) -> None:
        """See what has come besides a connection's bytes."""
        if found and self.poller is not None:
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
            self._depart()
        except BaseException:
            self._depart()  # a second Ctrl-C: others must not wait for this thread for ever
            raise

    def _depart(self) -> None:
        with self.lock:
            driver = self._driver
            if driver is not None:
                driver.holder = self.thread
            try:
                self._clear_away()
            finally:
                if driver is not None:
                    driver.holder = 0

    def _clear_away(self) -> None:
        self.asleep = False
        driver, poller = self._driver, self.poller
        if driver is not None:
            driver.dismiss(self)
        rest = bool(self.tasks)
        self._over = True
        while self.tasks:
            self.cancel(next(iter(self.tasks)))
        self.poller = None
        if self._calls is not None:
            self._calls.clear()
        if driver is None:
            if poller is not None:
                poller.close()
            return
        if poller is not None:
            driver.take_back(poller)
        driver.hand_over()
        if rest:
            driver.settle()

    # ------------------------------------------------------------------------------------------------------------ steps

    def _begin(self, task: Task, step: Step) -> None:
        begin = self._STEPS.get(type(step))
        if begin is None:
            task.resume(None, TypeError(f"an operation yields steps, not {step!r}"))
        else:
            begin(self, task, step)

    def _wait(self, task: Task, step: Wait) -> None:
        task.until = step
        step.subscribe(task.wake)

    def _sleep(self, task: Task, step: Sleep) -> None:
        self._timers[task] = time.monotonic() + step.seconds
        if step.until is not None:
            self._wait(task, step.until)
        self.rouse()  # it may be another thread that is here

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
        else:
            task.watched = step.descriptor, event
            if step.until is not None:
                self._wait(task, step.until)
        self.rouse()

    def _make_call(self, task: Task, step: Call) -> None:
        if self._calls is None:
            self._calls = Calls(self)
        self._calls.begin(task, step)

    def _together(self, task: Task, step: Together) -> None:
        task.children = tuple(Task(self, operation, task) for operation in step.operations)
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
