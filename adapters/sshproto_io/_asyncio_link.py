"""What runs operations under asyncio.

They run in the tasks of their callers, or as jobs in the turns of the connection.  What all of them have to send in one
turn of the loop leaves in one write.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sshproto.operations.steps import Call, Ready, Sleep, Spawn, Together, Wait
from sshproto_io._async_link import Background, Cancels, Errand, Job, Link, not_done
from sshproto_io._asyncio_tasks import begin

if TYPE_CHECKING:
    from sshproto.operations.steps import Operation, Step

T = TypeVar("T")


class Late(TimeoutError):
    """The time is up."""


def _late(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(Late())


async def by(until: float | None, job: Awaitable[T]) -> T:
    """What a job returns, if that is before a moment in the loop's time.

    Raises:
        Late: It is not.
    """
    limit = asyncio.timeout_at(until)
    try:
        async with limit:
            return await job
    except TimeoutError as error:
        if limit.expired():
            raise Late from error
        raise


class _Unbegun:
    """A task of the background that has not begun: the application makes its tasks itself, and they begin later."""

    __slots__ = ("_job", "_operation", "_step", "_task")

    def __init__(
        self, task: asyncio.Task[Any], job: Coroutine[Any, Any, Any], operation: Operation[Any], step: Step
    ) -> None:
        self._task = task
        self._job = job
        self._operation = operation
        self._step = step

    def cancel(self) -> None:
        """End it."""
        self._task.cancel()
        if not _begun(self._job):  # nor will it ever
            self._operation.close()
            not_done(self._step)


def _begun(job: Coroutine[Any, Any, Any]) -> bool:
    """Whether a task has taken its first step."""
    return inspect.getcoroutinestate(job) != inspect.CORO_CREATED


class _Wake:
    """Lets a task go on when what it waits for has happened."""

    __slots__ = ("_link", "future")

    def __init__(self, link: AsyncioLink, future: asyncio.Future[None]) -> None:
        self._link = link
        self.future = future

    def __call__(self) -> None:
        self._link.woken = True
        if not self.future.done():
            self.future.set_result(None)


class _Waiting(asyncio.Future[None]):
    """What a task waits for until something fires, with no frame around it: most of all tasks do nothing else."""

    __slots__ = ("_link", "_step")

    def __init__(self, link: AsyncioLink, step: Wait) -> None:
        super().__init__(loop=link._loop)
        self._link = link
        self._step = step

    def __call__(self) -> None:
        self._link.woken = True
        if not self.done():
            self.set_result(None)

    def cancel(self, msg: Any = None) -> bool:
        """The task does not wait any more."""
        self._step.unsubscribe(self)
        return super().cancel(msg)


async def _now(result: T) -> T:
    """What there is to wait for where a function was none to be awaited."""
    return result


class AsyncioLink(Link):
    """What operations run on.

    Attributes:
        woken: Tasks of ours go on after this turn.
        tasks: Those of the background, and what cancels each.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.resolve = self._loop.getaddrinfo
        self._flushing = False  # a turn has begun, or will soon
        self.woken = False
        self.tasks: dict[asyncio.Task[Any], Cancels] = {}
        self._at_end: tuple[Callable[[asyncio.Task[Any]], None], Context] | None = None

    # ------------------------------------------------------------------------------------------------------------ turns

    def flush(self) -> None:
        """Let go on who was woken; see the base class."""
        self.soon()

    def soon(self) -> None:
        # Soon, not now: what other operations give to the connection in the same turn of the loop leaves with it.
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._pump)

    def due(self, job: Job) -> None:
        """Let a job go on in the next turn; see the base class."""
        self._due.append(job)
        if not self._flushing:
            self.soon()

    def _pump(self) -> None:
        """Have a turn."""
        self._flushing = True
        try:
            self.turn()
        finally:
            self._flushing = False

    # ------------------------------------------------------------------------------------------------------- operations

    async def complete(self, operation: Operation[T]) -> T:
        """Run an operation whose result is nothing to be lost; see the base class.

        Raises:
            Exception: What the operation raises.
        """
        errand = Errand(self, operation)
        try:
            errand.go_on()
            if not errand.over:
                await self._until_over(errand)
            return errand.result() if errand.step is None else await self._run(operation, errand.step)
        finally:
            errand.give_up()
            self.flush()

    async def _until_over(self, errand: Errand, until: float | None = None) -> None:
        errand.on_end = wake = _Wake(self, self._loop.create_future())
        self.flush()
        if until is None:
            await wake.future
            return
        timer = self._loop.call_at(until, _late, wake.future)
        try:
            await wake.future
        finally:
            timer.cancel()

    async def _complete_by(self, until: float | None, operation: Operation[T]) -> T:
        """The same as :meth:`complete`, up to a moment in the loop's time.

        Raises:
            Late: It has come.
        """
        if until is None:
            return await self.complete(operation)
        errand = Errand(self, operation)
        try:
            errand.go_on()
            if not errand.over:
                await self._until_over(errand, until)
            if errand.step is None:
                result: T = errand.result()
                return result
            return await by(until, self._run(operation, errand.step))
        finally:
            errand.give_up()
            self.flush()

    def _wait(self, step: Wait, *, pumped: bool = False) -> Awaitable[None]:
        waiting = _Waiting(self, step)
        step.subscribe(waiting)
        if not pumped:
            self.flush()  # after subscribing: it may be what this waits for that makes it happen
        return waiting

    async def _sleep(self, step: Sleep) -> None:
        wake = _Wake(self, self._loop.create_future())
        timer = self._loop.call_later(step.seconds, wake)
        if step.until is not None:
            step.until.subscribe(wake)
        self.flush()
        try:
            await wake.future
        finally:
            timer.cancel()
            if step.until is not None:
                step.until.unsubscribe(wake)

    async def _ready(self, step: Ready) -> None:
        wake = _Wake(self, self._loop.create_future())
        add, remove = self._loop.add_reader, self._loop.remove_reader
        if step.writing:
            add, remove = self._loop.add_writer, self._loop.remove_writer
        try:
            add(step.descriptor, wake)
        except PermissionError:  # a regular file
            self.flush()
            await asyncio.sleep(0)
            return
        if step.until is not None:
            step.until.subscribe(wake)
        self.flush()
        try:
            await wake.future
        finally:
            remove(step.descriptor)
            if step.until is not None:
                step.until.unsubscribe(wake)

    def _call(self, step: Call) -> Awaitable[Any]:
        self.flush()
        result = step.function(*step.args)
        return result if inspect.isawaitable(result) else _now(result)

    async def _together(self, step: Together) -> tuple[Any, ...]:
        tasks = [self._loop.create_task(self.perform(operation)) for operation in step.operations]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failed = [task for task in tasks if task.done() and not task.cancelled() and task.exception() is not None]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in failed:
            task.result()
        return tuple(task.result() for task in tasks)

    async def _spawn(self, step: Spawn) -> Callable[[], object]:
        return self.spawn(step.operation)

    def adopt(self, job: Background, step: Step) -> None:
        """Go on with a job's operation in a task; see the base class."""
        operation = job.operation
        run = self._run(operation, step)
        if self._over:
            run.close()
            operation.close()
            not_done(step)
            return
        task = begin(self._loop, run, getattr(operation, "__qualname__", None))
        if task.done():
            self._task_ended(task)
            return
        begun = _begun(run)
        self.woken |= not begun
        self.tasks[task] = job.task = task if begun else _Unbegun(task, run, operation, step)
        if self._at_end is None:  # one for all of them, with one context: each that is idle should take little memory
            self._at_end = self._task_ended, copy_context()
        callback, context = self._at_end
        task.add_done_callback(callback, context=context)

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        """One of the background has."""
        self.tasks.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):  # nobody else is there to catch it
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """Something in the background has failed; see the base class."""
        message = "what ran in the background of an SSH connection failed"
        self._loop.call_exception_handler({"message": message, "exception": error})

    _STEPS: ClassVar[dict[type, Callable[[Any, Any], Awaitable[Any]]]] = {
        Wait: _wait,
        Sleep: _sleep,
        Ready: _ready,
        Call: _call,
        Together: _together,
        Spawn: _spawn,
    }
