"""What runs operations under Trio.

They run in the tasks of their callers, or as jobs in the turns of the connection; those in the background have a task
in its nursery once they need one.

Whoever was woken (``_awake``) flushes when it goes on, whatever becomes of it: what little there is to be sent waits
for it, and so do events that a command has brought.
"""

from __future__ import annotations

import inspect
import operator
import types
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import trio

from sshproto.operations.steps import Call, Ready, Sleep, Spawn, Together, Wait
from sshproto_io._async_link import Errand, Link, given
from sshproto_io._trio_nursery import PlainNursery, without_cancelled

if TYPE_CHECKING:
    from sshproto.operations.channel import Channel
    from sshproto.operations.steps import Operation, Step
    from sshproto_io._async_link import Background

T = TypeVar("T")

Others = list[tuple[Context, "Background", "Step"]]
"""Jobs whose operations have come to a step, and in what contexts."""

Run = Callable[..., Any]
"""Calls a function with arguments."""


class Waiter:
    """Wakes a task when something fires. Less than an event.

    Args:
        link: What it waits on.
        step: What it waits for.
    """

    __slots__ = ("_link", "_step", "_task", "fired")

    def __init__(self, link: TrioLink, step: Wait | Errand) -> None:
        self.fired = False
        self._link = link
        self._step = step
        self._task: trio.lowlevel.Task | None = None

    def __call__(self) -> None:
        if self.fired:
            return
        self.fired = True
        self._link._awake += 1
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def rest(self) -> Awaitable[object]:
        """Sleep until it fires. To be awaited at once, and ended in any case; there is no frame of this meanwhile."""
        self._step.subscribe(self)
        self._link._settle()  # after subscribing: it may be what this waits for that makes it happen
        self._link._waits += 1
        if self.fired:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105  it is awaited at once
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def end(self) -> None:
        """The task goes on."""
        self._step.unsubscribe(self)
        if self.fired:
            self._link._awake -= 1


class TrioLink(Link):
    """What operations run on.

    Args:
        nursery: Where its tasks are; None if there is none yet.
    """

    __slots__ = ("_adopted", "_awake", "_broken", "_next", "_nursery", "_others", "_turning", "_waits")

    def __init__(self, nursery: trio.Nursery | None) -> None:
        super().__init__()
        self.resolve = trio.socket.getaddrinfo
        self._nursery = nursery
        self._turning = False
        # Tasks that something has woken and that have not had their turn: little that is to be sent waits for them, who
        # will have more, and send it before they do anything else.
        self._awake = 0
        self._waits = 0
        self._adopted: set[Background] | None = None  # what has a task, or will soon
        self._next: Background | None = None  # what a task will take up that has not begun
        self._others: Others | None = None  # what it will take up after that
        self._broken = False  # something in the background has failed, and takes the others with it

    def _start(self, function: Callable[..., Awaitable[object]], *args: Any, name: str | None = None) -> None:
        """Have something done in a task of its own.

        Raises:
            RuntimeError: There is no nursery.
        """
        if self._nursery is None:
            raise RuntimeError("nothing runs in the background here")
        self._nursery.start_soon(function, *args, name=name)

    def failed(self, error: BaseException) -> None:
        """Something in the background has failed, and with it the nursery; see the base class."""

        async def fail() -> None:
            raise error

        self._broken = True
        self._start(fail)

    def _settle(self) -> None:
        """Send what there is, unless others will go on at once: the last of them does it for all."""
        self.flush()

    def _follow(self) -> None:
        """Have what there is leave with what this task does next, or soon."""
        self.flush()

    def _later(self) -> None:
        """Send what there is, by a task that is about to wait. Nothing happens here that could wake it: it would go on
        before Trio knows that it waits."""
        if self._due:
            self.soon()

    async def _flush_now(self) -> None:
        """In a task of its own."""
        self.flush()

    def _abandon(self) -> None:
        """Cancel what was adopted."""
        for job in tuple(self._adopted or ()):
            job()

    async def perform(self, operation: Operation[T]) -> T:
        """Run an operation on this connection, in this task. It is a checkpoint in any case.

        Raises:
            Exception: What the operation raises.
        """
        # Most have nothing to wait for, and then all this is about the checkpoint.
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            step = operation.send(None)
        except StopIteration as end:
            self.flush()
            await trio.lowlevel.cancel_shielded_checkpoint()
            done: T = end.value
            return done
        except BaseException:
            operation.close()  # which may not have begun
            self.flush()
            raise
        waits = self._waits
        result: T = await self._run(operation, step)
        if self._waits == waits:  # nobody has waited, so nobody else has run
            await trio.lowlevel.cancel_shielded_checkpoint()
        return result

    async def complete(self, operation: Operation[T]) -> T:
        """Run an operation whose result is nothing to be lost; see the base class. It is a checkpoint in any case.

        Raises:
            Exception: What the operation raises.
        """
        errand = Errand(self, operation)
        waits = self._waits
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            errand.go_on()
            if not errand.over:
                waiter = Waiter(self, errand)
                try:
                    await waiter.rest()
                finally:
                    waiter.end()
            result: T = errand.result() if errand.step is None else await self._run(operation, errand.step)
        except BaseException:
            errand.give_up()
            self.flush()
            raise
        if self._waits == waits:  # nobody has waited, so nobody else has run
            self.flush()
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            self._follow()
        return result

    async def _wait(self, step: Wait) -> None:
        waiter = Waiter(self, step)
        try:
            await waiter.rest()
        finally:
            waiter.end()

    async def _sleep(self, step: Sleep) -> None:
        with trio.move_on_after(step.seconds):
            await self._wait(step.until or Wait())

    async def _ready(self, step: Ready) -> None:
        until = step.until or Wait()
        ready = trio.lowlevel.wait_writable if step.writing else trio.lowlevel.wait_readable
        with trio.CancelScope() as scope:
            until.subscribe(scope.cancel)
            self.flush()
            self._waits += 1
            try:
                await ready(step.descriptor)
            except PermissionError:  # a regular file
                await trio.lowlevel.checkpoint()
            finally:
                until.unsubscribe(scope.cancel)

    def _call(self, step: Call) -> Awaitable[Any]:
        return self._late(step.args[0]) if step.function is given else self._called(step)

    async def _called(self, step: Call) -> Any:
        self.flush()
        try:
            result = step.function(*step.args)
            return await result if inspect.isawaitable(result) else result
        except BaseExceptionGroup as group:
            problem = without_cancelled(group)
        raise problem

    @types.coroutine
    def _late(
        self, awaitable: Awaitable[T], others: Others | None = None, run: Run = operator.call
    ) -> Generator[Any, Any, T]:
        """Await a function of the application, and send what there is when it first waits: else it has more to send.

        Args:
            awaitable: What it has returned.
            others: Those that this task would take up next. If it waits, they do not.
            run: Runs each step.
        """
        steps = awaitable.__await__()
        try:
            trap = run(next, steps)
            if others:
                self._part_from(others)
            self._later()
            while True:
                try:
                    answer = yield trap
                except BaseException as error:  # noqa: BLE001  it is the function's
                    trap = run(steps.throw, error)
                else:
                    trap = run(steps.send, answer)
        except StopIteration as end:
            result: T = end.value
            return result
        except BaseExceptionGroup as group:
            problem = without_cancelled(group)
        raise problem

    async def _together(self, step: Together) -> tuple[Any, ...]:
        results: list[Any] = [None] * len(step.operations)
        problems: list[Exception] = []

        async def run(number: int, operation: Operation[Any]) -> None:
            try:
                results[number] = await self._run(operation)
            except Exception as error:  # noqa: BLE001  it is the operation's
                problems.append(error)
                nursery.cancel_scope.cancel()

        self._waits += 1
        async with PlainNursery() as nursery:
            for number, operation in enumerate(step.operations):
                nursery.start_soon(run, number, operation)
        if problems:
            raise problems[0]
        return tuple(results)

    async def _spawn(self, step: Spawn) -> Callable[[], object]:
        return self.spawn(step.operation)

    def adopt(self, job: Background, step: Step) -> None:
        """Go on with a job's operation in a task, in the connection's nursery; see the base class."""
        if not (type(step) is Call and step.function is given):  # which waits in any case
            self._foster(job, step)
        elif self._next is None:
            self._foster(job, step)
            self._next = job
        elif self._others is None:
            self._others = [(copy_context(), job, step)]
        else:
            self._others.append((copy_context(), job, step))
        if self._adopted is None:
            self._adopted = set()
        self._adopted.add(job)
        self._awake += 1

    def _foster(self, job: Background, step: Step) -> None:
        """Have a task for it."""
        self._start(self._bring_up, job, step, name=getattr(job.operation, "__qualname__", None))

    def _part_from(self, others: Others) -> None:
        """Have a task for each of them, since the one that they were to share has to wait."""
        for context, job, step in others:
            context.run(self._foster, job, step)
        others.clear()

    async def _bring_up(self, job: Background, step: Step) -> None:
        """Go on with an operation, and then with others, until one has to wait: tasks and scopes are dear."""
        others: Others | None = None
        run: Run = operator.call
        if self._next is job:
            others, self._others, self._next = self._others, None, None
        try:
            with trio.CancelScope() as scope:
                while True:
                    self._awake -= 1
                    job.task = scope
                    if job.cancelled:
                        scope.cancel()
                    try:
                        # A session is in this step for as long as it lasts, and has no frame of _run beside this one.
                        argument: Any = None
                        try:
                            if others is None:
                                argument = await self._STEPS[type(step)](self, step)
                            else:
                                argument = await self._late(cast("Call", step).args[0], others, run)
                            advance: Callable[[Any], Any] = job.operation.send
                        except Exception as error:  # noqa: BLE001  it is the operation's
                            argument, advance = self.told(error), job.operation.throw
                        try:
                            step = run(advance, argument)
                        except StopIteration:
                            pass
                        else:
                            if others is None:
                                await self._run(job.operation, step)
                            else:
                                self._part_from(others)
                                await self._late(self._run(job.operation, step), None, run)
                    except Exception:
                        self._broken = True
                        raise
                    finally:
                        job.operation.close()
                        job.task = None
                        if self._adopted is not None:
                            self._adopted.discard(job)
                        self._settle()
                    if not others or job.cancelled:
                        break
                    context, job, step = others.pop(0)
                    run = context.run
        finally:
            if others:
                self._part_from(others)

    _WRAPPERS = (trio.BrokenResourceError,)
    _STEPS: ClassVar[dict[type, Callable[[Any, Any], Awaitable[Any]]]] = {
        Wait: _wait,
        Sleep: _sleep,
        Ready: _ready,
        Call: _call,
        Together: _together,
        Spawn: _spawn,
    }

    async def shut(self, channel: Channel) -> None:
        """Close a channel at once, both directions."""
        await super().shut(channel)
        await trio.lowlevel.checkpoint()
