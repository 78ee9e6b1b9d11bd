"""What runs operations, for both asynchronous faces: connections are a :class:`Link`.

An operation runs in the task of who wants its result, or as a :class:`Job`, which needs no task while it waits for
nothing but its connection: it goes on in the very turn in which its event has come, and so its answer leaves at once.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

from sshproto.errors import ChannelEnded, ConnectionLoss
from sshproto.operations.channel import Channel
from sshproto.operations.steps import Call, Operation, Spawn, Step, Wait
from sshproto_io.sockets import Resolve

if TYPE_CHECKING:
    from sshproto.operations.hub import Hub

T = TypeVar("T")

_PLAIN = (bool, type(None))  # what functions of the application return most often, and that is nothing to be awaited

ENDED = (ChannelEnded, ConnectionLoss)
"""The other end is gone."""


def parts(error: BaseException | None) -> tuple[Exception, ...]:
    """What is in a group of errors; nothing if it is none."""
    if not isinstance(error, ExceptionGroup):
        return ()
    found: tuple[Exception, ...] = cast(Any, error).exceptions
    return found


class Closing(ABC):
    """What has an end, that of ``async with`` at the latest."""

    __slots__ = ()

    @abstractmethod
    async def aclose(self) -> None:
        """Bring it about, and wait until it has come."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class Cancels(Protocol):
    """What can be cancelled: a task, or a scope."""

    def cancel(self) -> object: ...


X = TypeVar("X", bound=Closing)


class Opening(Generic[X]):
    """Something that takes a while to get: ``await`` it and close it yourself, or use it with ``async with``."""

    def __init__(self, get: Callable[[], Awaitable[X]]) -> None:
        self._get = get
        self._got: X | None = None

    def __await__(self) -> Generator[Any, Any, X]:
        return self._get().__await__()

    async def __aenter__(self) -> X:
        self._got = await self._get()
        return self._got

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._got is not None:
            await self._got.aclose()


class Link(ABC):
    """A connection that operations run on.

    Attributes:
        hub: Its events.
        resolve: Looks names up.
    """

    # An idle connection should take little memory. Those of applications have a dict besides.
    __slots__ = ("_due", "_jobs", "_over", "hub", "resolve")

    hub: Hub[Any]
    resolve: Resolve

    _STEPS: ClassVar[dict[type, Callable[[Any, Any], Awaitable[Any]]]]
    """How each kind of step is done in a task."""
    _WRAPPERS: ClassVar[tuple[type[Exception], ...]] = ()
    """Exceptions that say in this world that the other end is gone; why is chained."""

    def __init__(self) -> None:
        self._due: list[Job] = []
        self._jobs: dict[Background, None] = {}
        self._over = False

    # -------------------------------------------------------------------------------------------------------- in a task

    def perform(self, operation: Operation[T]) -> Coroutine[Any, Any, T]:
        """Run an operation on this connection, in this task; to be awaited.

        Raises:
            Exception: What the operation raises.
        """
        return self._run(operation)

    @abstractmethod
    async def complete(self, operation: Operation[T]) -> T:
        """Run an operation whose result is nothing to be lost: this task is not woken before its end.

        Being cancelled at that very moment throws the result away.

        Raises:
            Exception: What the operation raises.
        """

    async def _run(self, operation: Operation[T], step: Any = None) -> T:
        """Run an operation, from a step that it has come to, or from its beginning."""
        # As few variables as can be: a session at a server is in here for as long as it lasts.
        argument: Any = None
        failed = False
        try:
            if step is None:
                step = next(operation)
            while True:
                try:
                    step = self._STEPS[type(step)](self, step)
                    argument, failed = await step, False
                except Exception as error:  # noqa: BLE001  it is the operation's
                    argument, failed = self.told(error), True
                step = operation.throw(argument) if failed else operation.send(argument)
        except StopIteration as end:
            return cast("T", end.value)
        finally:
            operation.close()
            self.flush()

    def told(self, error: Exception) -> Exception:
        """What an operation hears of an error: that the other end is gone, if a function of ours has met only that."""
        reasons = [self.told(part) for part in parts(error)]
        if reasons:
            return reasons[0] if all(isinstance(reason, ENDED) for reason in reasons) else error
        cause = error.__cause__
        return cause if isinstance(error, self._WRAPPERS) and isinstance(cause, ENDED) else error

    # --------------------------------------------------------------------------------------------------- without a task

    def spawn(self, operation: Operation[Any]) -> Callable[[], object]:
        """Run an operation in the background until the connection ends; see :class:`Spawn`.

        Returns:
            A function that cancels it.
        """
        job = Background(self, operation)
        self._jobs[job] = None
        job.go_on()
        if self._over:
            job()
            job.go_on()  # to its end, and now
        return job

    def end_jobs(self) -> None:
        """The connection has ended: cancel what still runs in the background, and what is yet to come."""
        self._over = True
        for job in tuple(self._jobs):
            job()
        self.turn()

    def turn(self) -> None:
        """Hand out the events, and let every job go on that they have woken, until nothing more happens."""
        drain = self.hub.drain
        drain()
        while self._due:
            due, self._due = self._due, []
            for job in due:
                job.go_on()
            drain()

    def due(self, job: Job) -> None:
        """Let a job go on in the next turn, which comes soon."""
        self._due.append(job)
        self.soon()

    def forget(self, job: Background) -> None:
        """A job has ended."""
        self._jobs.pop(job, None)

    @abstractmethod
    def soon(self) -> None:
        """Have a turn soon, unless there is one now."""

    @abstractmethod
    def adopt(self, job: Background, step: Step) -> None:
        """Go on with a job's operation in a task, from a step that it has come to, until the connection ends.

        What cancels it is to be the job's :attr:`~Background.task`, as long as there is something to be cancelled.
        """

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Something in the background has raised an error that nobody is there to catch."""

    @abstractmethod
    def flush(self) -> None:
        """Send what there is. To be called after any command to the connection that is not an operation's."""

    async def shut(self, channel: Channel) -> None:
        """Close a channel at once, both directions."""
        channel.close()
        self.flush()


class Job:
    """An operation that takes its steps in the turns of a link, for as long as it needs no task.

    Args:
        link: Where it runs.
        operation: A new one.

    Attributes:
        operation: What runs.
        over: It has ended, or goes on elsewhere.
    """

    __slots__ = ("_link", "_wait", "operation", "over")

    def __init__(self, link: Link, operation: Operation[Any]) -> None:
        self._link = link
        self.operation = operation
        self._wait: Wait | None = None
        self.over = False

    def _advance(self) -> None:
        """Take as many steps as can be taken now."""
        if self.over:
            return
        self._wait = None
        operation = self.operation
        advance: Callable[[Any], Any] = operation.send
        argument: Any = None
        try:
            while type(step := advance(argument)) is not Wait:
                advance = operation.send
                if type(step) is Spawn:
                    argument = self._link.spawn(step.operation)
                elif type(step) is Call:
                    try:
                        argument = step.function(*step.args)
                    except Exception as error:  # noqa: BLE001  it is the operation's
                        argument = self._link.told(error)
                        advance = operation.throw
                    else:
                        if type(argument) not in _PLAIN and inspect.isawaitable(argument):
                            step = Call(given, argument)
                            break
                else:
                    break
            else:
                self._wait = step
                step.subscribe(self._woken)
                return
        except StopIteration as end:
            self._end(end.value, None)
        except Exception as error:  # noqa: BLE001  it is whose who wants the result
            self._end(None, error)
        else:
            self._leave(step)

    go_on = _advance  # which one of the background does only if it was not cancelled

    def _woken(self) -> None:
        self._link.due(self)

    def _withdraw(self) -> None:
        """Wait for nothing any more, and close the operation."""
        if self._wait is not None:
            self._wait.unsubscribe(self._woken)
            self._wait = None
        self.over = True
        self.operation.close()

    def _end(self, result: Any, error: Exception | None) -> None:
        """The operation has ended."""
        raise NotImplementedError

    def _leave(self, step: Step) -> None:
        """The operation has come to a step that only a task can do."""
        raise NotImplementedError


class Errand(Job):
    """A job that somebody waits for.

    Attributes:
        on_end: Called when it is over.
        step: What it has come to, if only a task can go on with it.
    """

    __slots__ = ("_error", "_result", "on_end", "step")

    def __init__(self, link: Link, operation: Operation[Any]) -> None:
        super().__init__(link, operation)
        self.on_end: Callable[[], object] | None = None
        self.step: Step | None = None
        self._result: Any = None
        self._error: Exception | None = None

    # It is waited for like a :class:`Wait`.

    def subscribe(self, wake: Callable[[], object]) -> None:
        """Have ``wake`` called when it is over."""
        self.on_end = wake

    def unsubscribe(self, _: Callable[[], object]) -> None:
        """Have nobody called."""
        self.on_end = None

    def _end(self, result: Any, error: Exception | None) -> None:
        self.over = True
        self._result, self._error = result, error
        if self.on_end is not None:
            self.on_end()

    def _leave(self, step: Step) -> None:
        self.over = True
        self.step = step
        if self.on_end is not None:
            self.on_end()

    def result(self) -> Any:
        """What the operation has returned.

        Raises:
            Exception: What it has raised.
        """
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._result
        finally:
            del error  # it knows this frame, and this frame knew it

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        self._withdraw()
        if self.step is not None:
            not_done(self.step)


class Background(Job):
    """A job that nobody waits for. It is called to cancel it.

    Attributes:
        cancelled: It was.
        task: What cancels what goes on with it.
    """

    __slots__ = ("cancelled", "task")

    def __init__(self, link: Link, operation: Operation[Any]) -> None:
        super().__init__(link, operation)
        self.cancelled = False
        self.task: Cancels | None = None

    def go_on(self) -> None:
        """Take as many steps as can be taken now, or end, if it was cancelled."""
        if not self.cancelled or self.over:
            self._advance()
            return
        self._link.forget(self)
        try:
            self._withdraw()
        except Exception as error:  # noqa: BLE001  others are to be cancelled as well
            self._link.failed(error)

    def __call__(self) -> None:
        """End it: soon, for this may be called from within the operation itself."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()
        elif not self.over:
            self._link.due(self)

    def _end(self, result: Any, error: Exception | None) -> None:
        self.over = True
        self._link.forget(self)
        if error is not None:
            self._link.failed(error)

    def _leave(self, step: Step) -> None:
        self.over = True
        self._link.forget(self)
        self._link.adopt(self, step)
        if self.cancelled and self.task is not None:
            self.task.cancel()


def given(value: Any) -> Any:
    """A function of the application was called already; what it has returned is to be awaited."""
    return value


def not_done(step: Step) -> None:
    """Nobody will do a step, or go on with it: a coroutine that was :func:`given` is closed."""
    if isinstance(step, Call) and inspect.iscoroutine(step.args[0]):
        step.args[0].close()
