"""Runs operations in a thread: does their steps, and sleeps until the first of what they wait for.

A :class:`Runner` belongs to the thread that wants the result of one operation, and to what comes of that.  With a
:class:`~sshproto_io.driver.Driver` they work on a connection, which other threads' runners share: then whoever has the
lock when an operation can go on takes its step, whosever it is, and a thread is woken only when the result that it
waits for is there.  Without one they are jobs of their own, such as dialling.

Everything here happens under the lock, except for sleeping and for calls of the application's functions.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sshproto.errors import ConnectionLoss, InternalError, InvalidArgument
from sshproto.operations.steps import Call, Operation, Ready, Sleep, Spawn, Step, Together, Wait
from sshproto_io import TimeoutExpired
from sshproto_io.lot import Place, lot
from sshproto_io.poller import READ, WRITE, Found, Poller
from sshproto_io.workers import NAME, report, watch, workers

if TYPE_CHECKING:
    from sshproto_io.driver import Driver

_SWIFT = 0.001  # seconds that a call may take that others wait for
_DOUBT = 64  # calls that are made in threads of their own after one that took longer
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


_NO_CALLS: list[tuple[Task, Call]] = []


class Runner:
    """Runs an operation, and others that come of it, for the thread that calls :meth:`run`, which is done once.

    Args:
        driver: The connection's, if there is one.

    Attributes:
        lock: Held by who changes anything here.
        due: Operations that can go on; with a driver, all of the connection's.
        poller: Where it waits for descriptors, once it does.
        thread: In which it runs, if there is one.
    """

    __slots__ = (
        "_asleep",
        "_begun",
        "_bell",
        "_brief",
        "_call",
        "_deadline",
        "_doubt",
        "_driver",
        "_expired",
        "_hurried",
        "_inline",
        "_over",
        "_parked",
        "_patient",
        "_polling",
        "_resume",
        "_root",
        "_soon",
        "_tasks",
        "_timers",
        "_turning",
        "due",
        "lock",
        "poller",
        "thread",
    )

    def __init__(self, driver: Driver[Any] | None = None) -> None:
        self.lock: Any
        self.due: deque[Task]
        if driver is None:
            self.lock, self.due = threading.Lock(), deque()
        else:
            self.lock, self.due = driver.lock, driver.due
        self._driver = driver
        self._root: Task | None = None
        self._tasks: set[Task] = set()
        self._timers: dict[Task, float] = {}
        self._soon: deque[Callable[[], object]] | None = None
        self.poller: Poller | None = None
        self._bell: Any = None
        self._asleep = False
        self._polling = False
        self._inline = False
        self.thread = 0
        self._call: tuple[Task, Call] | None = None
        self._brief = _NO_CALLS  # that are made here as well, one after the other, if it is attended
        self._doubt = 0
        self._hurried = False  # the call is one of those
        self._turning = False
        self._deadline: float | None = None
        self._begun = False
        self._expired = False
        self._over = False
        self._resume: Callable[[], object] | None = None
        self._patient = False  # it sleeps for so long that it should rather wait in the lot then
        self._parked: Place | None = None

    @property
    def attended(self) -> bool:
        """Whether the lot can wait in its thread's place."""
        return self._resume is not None

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
        root = self._root = Task(self, operation)
        try:
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
        self._inline = True
        self._brief = []
        self._root = Task(self, operation)
        self._resume = resume
        return self.go_on()

    def go_on(self) -> bool:
        """Go on where the thread of :meth:`attend` has left; see there."""
        root, parked = self._root, False
        if root is None:
            return True
        try:
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
        driver = self._driver
        thread = threading.get_ident()
        found: Found = ()
        while True:
            with self.lock:
                if driver is not None:
                    driver.holder = thread
                try:
                    if self._patient and self._asleep and not found and self._park():
                        return True
                    self.thread = thread
                    self._get_up(found)
                    self._turn()
                    call, seconds = self._call, None
                    if root.ended:
                        self._clear_away()
                        return False
                    if self._deadline is not None and time.monotonic() >= self._deadline:
                        self._expired = True
                        self._clear_away()  # now: else another thread might take it to an end that nobody hears of
                        return False
                    if call is not None:
                        if driver is not None:
                            driver.hand_over()
                    elif self._brief:
                        call = self._call = self._brief.pop(0)
                        self._hurried = True
                    else:
                        seconds = self._lie_down()
                finally:
                    if driver is not None:
                        driver.holder = 0
            found = ()
            if call is not None:
                if not self._make(*call, brief=self._hurried):
                    return True
            else:
                found = self._rest(seconds)

    def _outcome(self, root: Task) -> Any:
        error, root.error = root.error, None
        try:
            if error is not None:
                raise error
            return root.result
        finally:
            del error  # it knows this frame, and this frame knew it

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
        self._tasks.add(task)
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
        self._tasks.discard(task)
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
        if self._asleep:
            self._asleep = False
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
        self._tasks.add(task)
        self.due.append(task)

    def _turn(self) -> None:
        """Let everybody go on who can."""
        if self._driver is not None:
            self._turning = self._resume is not None
            try:
                self._driver.settle(self._brief)
            finally:
                self._turning = False
            return
        root, due = self._root, self.due
        while due and not (root is not None and root.ended):
            task = due.popleft()
            if not task.ended:
                self.advance(task)

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
        elif not task.spawned:
            if isinstance(error, KeyboardInterrupt) and self._driver is not None:
                self._driver.struck(self.thread, task)
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
        moment, driver = self._deadline, self._driver
        self._patient = False
        if self._timers:
            first = min(self._timers.values())
            moment = first if moment is None else min(moment, first)
        if driver is None:
            self._polling = True
            self.need_poller()
        elif driver.appoint(self):
            self._polling = True
            if driver.deadline is not None and (moment is None or driver.deadline < moment):
                moment = driver.deadline
        else:
            self._polling = self.poller is not None and self.poller.wanted
            if not self._polling:
                if self._bell is None:
                    self._bell = threading.Lock()
                self._bell.acquire(False)  # it has rung for the last sleep, or not at all
        self._asleep = True
        if self._soon:
            return 0.0
        seconds = None if moment is None else min(_LONGEST, max(0.0, moment - time.monotonic()))
        if self._resume is not None and driver is not None and not self._timers:
            patience = driver.patience(self)
            self._patient = patience is not None and (seconds is None or patience < seconds)
            if self._patient:
                return patience
        return seconds

    def _rest(self, seconds: float | None) -> Found:
        """Sleep, without the lock."""
        if self._polling and self.poller is not None:
            return self.poller.wait(seconds)
        self._bell.acquire(True, -1 if seconds is None else seconds)
        return ()

    def _park(self) -> bool:
        """Let the lot watch the connection, in this thread's place."""
        self._patient = False
        if self._driver is not None and self._resume is not None:
            self._parked = self._driver.park(self._resume)
        if self._parked is None:
            return False
        if self.poller is not None:
            self.poller.close()
            self.poller = None
        self.thread = 0
        return True

    def _get_up(self, found: Found) -> None:
        """See what has come."""
        root = self._root
        if root is not None and not self._begun:
            self._begun = True
            self._add(root)
        if self._parked is not None:
            parked, self._parked = self._parked, None
            if self._driver is not None:
                self._driver.unparked(parked)
        self._asleep = False
        if self._driver is not None:
            self._driver.dismiss(self, found)  # the connection first: whoever is woken then knows the newest state
        if found and self.poller is not None and self.poller.wanted:
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
        self._asleep = False
        driver, poller = self._driver, self.poller
        if driver is not None:
            driver.dismiss(self, ())
        rest = bool(self._tasks)
        self._over = True
        while self._tasks:
            self.cancel(next(iter(self._tasks)))
        self._call = self.poller = None
        self._brief.clear()
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
        if self._inline and len(self._tasks) == 1:
            self._call = task, step
            self.rouse()
        elif not self._turning or step.function is socket.getaddrinfo:
            self._make_elsewhere(task, step)
        elif self._doubt:
            self._doubt -= 1
            self._make_elsewhere(task, step)
        else:
            self._brief.append((task, step))

    def _make_elsewhere(self, task: Task, step: Call) -> None:
        try:
            workers.start(functools.partial(self._make, task, step))
        except RuntimeError as error:  # there are too many
            task.resume(None, error)

    def _distrust(self) -> None:
        """A call takes long here: those that others would wait for get threads of their own."""
        self._doubt = _DOUBT
        brief, self._brief = self._brief, []
        for task, step in brief:
            self._make_elsewhere(task, step)

    def _relieve(self, task: Task) -> None:
        """Serve in the place of the thread that makes a brief call for ``task``, if it still does."""
        with self.lock:
            resume = self._resume
            if resume is None or self._call is None or self._call[0] is not task:
                return
            self._call, self._hurried = None, False
            self.thread = 0
            self._distrust()
        resume()

    def needs_me(self) -> bool:
        """Whether the calling thread is the one that serves. If all that it does is a brief call, another will."""
        here = threading.get_ident()
        if self.thread != here:
            return False
        call = self._call
        if call is not None and self._hurried:
            try:
                workers.start(functools.partial(self._relieve, call[0]))
            except RuntimeError:
                return True
            return False
        return self.thread == here  # and was not relieved just now

    def _make(self, task: Task, step: Call, *, brief: bool = False) -> bool:
        """Call a function of the application, without the lock.

        Args:
            task: Whose step it is.
            step: What to call.
            brief: It has to be quick: what others wait for waits for it.

        Returns:
            False if meanwhile another thread does what this one did.
        """
        started = time.monotonic()
        result, problem = None, None
        try:
            result = self._make_briefly(task, step) if brief else step.function(*step.args)
            if inspect.isawaitable(result):  # it would count as true
                if inspect.iscoroutine(result):
                    result.close()
                name = getattr(step.function, "__qualname__", type(step.function).__name__)
                raise InvalidArgument(f"{name} is asynchronous, and nobody here would wait for it")
        except BaseException as error:  # noqa: BLE001  it is the operation's
            problem = error
        driver, here, here_still = self._driver, threading.get_ident(), True
        with self.lock:
            if self._call is not None and self._call[0] is task:
                self._call, self._hurried = None, False
                if self._deadline is not None:
                    self._deadline += time.monotonic() - started
                if brief and time.monotonic() - started > _SWIFT:
                    self._distrust()
            else:
                here_still = False
            task.resume(result, problem)  # which has no effect if the operation was cancelled meanwhile
            if driver is None:
                self.rouse()
            elif here != self.thread:  # who waits for what follows need not be woken for this
                driver.holder = here
                try:
                    driver.settle()
                finally:
                    driver.holder = 0
        del problem
        return here_still

    def _make_briefly(self, task: Task, step: Call) -> Any:
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
