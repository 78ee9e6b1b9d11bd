"""A connection under Trio: what runs operations.

They run in the tasks of their callers, or as jobs in the turns of the connection; those in the background have a task
in its nursery once they need one.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import trio

from sshproto.operations.steps import Call, Ready, Sleep, Spawn, Together, Wait
from sshproto_io import LINGER
from sshproto_io._async_link import Errand, given
from sshproto_io._trio_nursery import PlainNursery, without_cancelled
from sshproto_io._trio_pump import C, Pump

if TYPE_CHECKING:
    from sshproto.operations.channel import Channel
    from sshproto.operations.steps import Operation, Step

T = TypeVar("T")


class Waiter:
    """Wakes a task when something fires. Less than an event.

    Args:
        peer: The connection that it waits on.
        step: What it waits for.
    """

    __slots__ = ("_peer", "_step", "_task", "fired")

    def __init__(self, peer: Peer[Any], step: Wait | Errand) -> None:
        self.fired = False
        self._peer = peer
        self._step = step
        self._task: trio.lowlevel.Task | None = None

    def __call__(self) -> None:
        if self.fired:
            return
        self.fired = True
        self._peer._awake += 1
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def rest(self) -> Awaitable[object]:
        """Sleep until it fires. To be awaited at once, and ended in any case; there is no frame of this meanwhile."""
        self._step.subscribe(self)
        self._peer.flush()  # after subscribing: it may be what this waits for that makes it happen
        self._peer._waits += 1
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
            self._peer._awake -= 1


class Peer(Pump[C]):
    """One connection, of either side: what runs operations."""

    __slots__ = ()

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
                await self._until_over(errand)
            result: T = errand.result() if errand.step is None else await self._run(operation, errand.step)
        except BaseException:
            errand.give_up()
            self.flush()
            raise
        if self._waits == waits:  # nobody has waited, so nobody else has run
            self.flush()
            await trio.lowlevel.cancel_shielded_checkpoint()
        elif self.conn.output_size:
            self._stir()  # the operation's last words can leave with what this task does next
        return result

    async def _wait(self, step: Wait | Errand) -> None:
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
    def _late(self, awaitable: Awaitable[T]) -> Generator[Any, Any, T]:
        """Await a function of the application, and flush when it first waits: one that does not has more to send."""
        steps = awaitable.__await__()
        try:
            trap = next(steps)
            self.flush()
            while True:
                try:
                    answer = yield trap
                except BaseException as error:  # noqa: BLE001  it is the function's
                    trap = steps.throw(error)
                else:
                    trap = steps.send(answer)
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

    def adopt(self, operation: Operation[Any], step: Step) -> trio.CancelScope:
        """Go on with an operation in a task, in the connection's nursery; see the base class."""
        scope = trio.CancelScope()
        self._start(self._foster, scope, operation, step, name=getattr(operation, "__qualname__", None))
        if self._adopted is None:
            self._adopted = set()
        self._adopted.add(scope)
        self._awake += 1
        return scope

    async def _foster(self, scope: trio.CancelScope, operation: Operation[Any], step: Step) -> None:
        self._awake -= 1
        try:
            with scope:
                # A session is in this step for as long as it lasts, and has no frame of _run beside this one.
                argument: Any = None
                try:
                    argument, advance = await self._STEPS[type(step)](self, step), operation.send
                except Exception as error:  # noqa: BLE001  it is the operation's
                    argument, advance = self.told(error), operation.throw
                try:
                    step = advance(argument)
                except StopIteration:
                    return
                await self._run(operation, step)
        except Exception:
            self._broken = True
            raise
        finally:
            operation.close()
            self.flush()
            if self._adopted is not None:
                self._adopted.discard(scope)

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

    # ---------------------------------------------------------------------------------------------------------- closing

    async def aclose(self, description: str = "") -> None:
        """Disconnect, and wait until the peer has taken leave as well. Repeated calls do nothing.

        If this is cancelled, the last message still leaves, but the peer gets little time for its own.

        Args:
            description: Words for the peer.
        """
        self.conn.disconnect(description)
        self.flush()
        try:
            if self._gone is None:
                self._gone = trio.Event()
                if self._over:
                    self._gone.set()
            await self._gone.wait()
        except trio.Cancelled:
            self._limit(min(self._end_at, trio.current_time() + LINGER))
            raise

    def abort(self) -> None:
        """Close the connection at once, without a word."""
        self._cut_off()
