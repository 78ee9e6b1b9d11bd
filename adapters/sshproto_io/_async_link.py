"""What runs operations, for both asynchronous faces: connections are a :class:`Link`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from sshproto.errors import ChannelEnded, ConnectionLoss
from sshproto.operations.channel import Channel
from sshproto.operations.steps import Operation, Wait
from sshproto_io.sockets import Resolve

T = TypeVar("T")

ENDED = (ChannelEnded, ConnectionLoss)
"""The other end is gone."""


def parts(error: BaseException | None) -> tuple[Exception, ...]:
    """What is in a group of errors; nothing if it is none."""
    if not isinstance(error, ExceptionGroup):
        return ()
    found: tuple[Exception, ...] = cast(Any, error).exceptions
    return found


class Closing(Protocol):
    """What has an end."""

    async def aclose(self) -> None: ...


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
        resolve: Looks names up.
    """

    resolve: Resolve

    _STEPS: ClassVar[dict[type, Callable[[Any, Any], Awaitable[Any]]]]
    """How each kind of step is done."""
    _WRAPPERS: ClassVar[tuple[type[Exception], ...]] = ()
    """Exceptions that say in this world that the other end is gone; why is chained."""

    async def perform(self, operation: Operation[T]) -> T:
        """Run an operation on this connection.

        Raises:
            Exception: What the operation raises.
        """
        return await self._run(operation, operation.send)

    async def _run(self, operation: Operation[T], advance: Callable[[Any], Any]) -> T:
        argument: Any = None
        try:
            while True:
                step = advance(argument)
                try:
                    argument = await self._STEPS[type(step)](self, step)
                    advance = operation.send
                except Exception as error:  # noqa: BLE001  it is the operation's
                    argument = self._told(error)
                    advance = operation.throw
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            operation.close()
            self.flush()

    def _told(self, error: Exception) -> Exception:
        """What an operation hears of an error: that the other end is gone, if a function of ours has met only that."""
        reasons = [self._told(part) for part in parts(error)]
        if reasons:
            return reasons[0] if all(isinstance(reason, ENDED) for reason in reasons) else error
        cause = error.__cause__
        return cause if isinstance(error, self._WRAPPERS) and isinstance(cause, ENDED) else error

    @abstractmethod
    def spawn(self, operation: Operation[Any]) -> Callable[[], object]:
        """Run an operation in the background until the connection ends; see :class:`Spawn`.

        Returns:
            A function that cancels it.
        """

    @abstractmethod
    def flush(self) -> None:
        """Send what there is. To be called after any command to the connection that is not an operation's."""

    async def shut(self, channel: Channel) -> None:
        """Close a channel at once, both directions."""
        channel.close()
        self.flush()


class Beginning:
    """The first step of an operation, which it takes now; a call gives it out when there is a task that can do it.

    Args:
        operation: A new one.
    """

    def __init__(self, operation: Operation[Any]) -> None:
        self._operation = operation
        self._step: Any = None
        self._problem: Exception | None = None
        self._fired = False
        try:
            self._step = operation.send(None)
        except Exception as error:  # noqa: BLE001  its end, or it is the operation's
            self._problem = error
        self._wait = self._step if isinstance(self._step, Wait) else getattr(self._step, "until", None)
        if self._wait is not None:
            self._wait.subscribe(self._fire)

    def _fire(self) -> None:
        self._fired = True

    def __call__(self, _: object) -> Any:
        if self._wait is not None:
            self._wait.unsubscribe(self._fire)
        if self._problem is not None:
            raise self._problem
        return self._operation.send(None) if self._fired else self._step
