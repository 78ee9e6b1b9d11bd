"""What operations are made of.

An operation is a generator.  It gives commands to a connection and yields a *step* whenever it can't go on: something
to wait for, or something that only the world outside can do.  Whoever runs it does the step, sends the result back in,
and so on until the operation returns; all steps there are stand in this module.  So the operation is written once, and
runs wherever somebody does the steps: under asyncio, trio, in threads, or in a test that does them one by one.

Rules for who writes one:

* After a :class:`Wait` look again: waking up says that something may have changed, not what.
* What was begun is undone in ``finally`` or ``except``, without a yield: :meth:`generator.close`, at whatever step, is
  how an operation is cancelled.

Rules for who runs one:

* What an operation has given to the connection is to be sent before waiting, and *after* subscribing to what is waited
  for: sending makes room, which may be the very thing.
* An exception of a step is thrown into the operation; if running it is given up, the operation is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeGuard, TypeVar

from sshproto.values import frozen

T = TypeVar("T")

Waker = Callable[[], object]


class Several(list[Waker]):
    """Those who wait for the same: called as one."""

    __slots__ = ()

    def __call__(self) -> None:
        for wake in self:
            wake()


class Wait:
    """Something to wait for. As a step: go on when it has fired. Nothing is sent back.

    Whoever waits subscribes a function, which is called once, when it fires next.

    Attributes:
        wakers: What calls those functions: None if nobody waits, the function itself if only one does.
    """

    __slots__ = ("wakers",)

    def __init__(self) -> None:
        # There are many that nobody waits for, and then mostly one does.
        self.wakers: Waker | Several | None = None

    def __repr__(self) -> str:
        wakers = self.wakers
        return f"<Wait, {len(wakers) if isinstance(wakers, Several) else int(wakers is not None)} wait>"

    @property
    def wanted(self) -> bool:
        """Whether anybody waits."""
        return self.wakers is not None

    def subscribe(self, wake: Waker) -> None:
        """Have ``wake`` called when it fires next. It must not raise, nor run operations."""
        wakers = self.wakers
        if wakers is None:
            self.wakers = wake
        elif isinstance(wakers, Several):
            wakers.append(wake)
        else:
            self.wakers = Several((wakers, wake))

    def unsubscribe(self, wake: Waker) -> None:
        """Take ``wake`` back; nothing happens if it was called already."""
        wakers = self.wakers
        if isinstance(wakers, Several):
            if wake in wakers:
                wakers.remove(wake)
                if not wakers:
                    self.wakers = None
        elif wakers == wake:
            self.wakers = None

    def fire(self) -> None:
        """Wake everybody who waits now."""
        wakers = self.wakers
        if wakers is not None:
            self.wakers = None
            wakers()


@frozen
class Sleep:
    """As a step: go on after some time, or before that if something fires. Nothing is sent back.

    Attributes:
        seconds: How long.
        until: What ends the sleep early.
    """

    seconds: float
    until: Wait | None = None


@frozen
class Ready:
    """As a step: go on when a descriptor can be read or written. Nothing is sent back.

    Descriptors that can't be waited for, such as those of regular files, are always ready.

    Attributes:
        descriptor: Which. At most one operation waits for the same thing of the same descriptor.
        writing: Wait for room to write, not for something to read.
        until: What ends the waiting early.
    """

    descriptor: int
    writing: bool = False
    until: Wait | None = None


class Call:
    """As a step: call a function of the application and send its result back.

    Where functions may be asynchronous, an awaitable result is awaited first.  While the call lasts, nothing else
    has to stand still: a face that has several operations to run may make the call in another thread.
    """

    __match_args__ = ("function", "args")
    __slots__ = ("args", "function")

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function = function
        self.args = args


class Together:
    """As a step: run operations at the same time and send back the tuple of their results.

    If one raises, the others are cancelled, and when they have ended, the first exception is thrown into the operation.
    """

    __match_args__ = ("operations",)
    __slots__ = ("operations",)

    def __init__(self, *operations: Operation[Any]) -> None:
        self.operations = operations


class Spawn:
    """As a step: start an operation that runs beside this one, and send back a function that cancels it.

    It is run up to its first step at once, before anything else can happen: what it was given is safe with it then.  It
    belongs to the connection and is cancelled when that is closed.  It has to deal with its own errors.
    """

    __match_args__ = ("operation",)
    __slots__ = ("operation",)

    def __init__(self, operation: Operation[Any]) -> None:
        self.operation = operation


Step = Wait | Sleep | Ready | Call | Together | Spawn
"""What an operation may yield."""

Operation = Generator[Step, Any, T]
"""A job of several steps, whose result is a ``T``."""


def hand_over(operation: Operation[Any], undo: Callable[[], object]) -> Operation[Callable[[], object]]:
    """Start an operation that takes over something that would have to be undone.

    Args:
        operation: What :class:`Spawn` is to start.
        undo: Called if that was not done.

    Returns:
        What cancels it.
    """
    try:
        cancel: Callable[[], object] = yield Spawn(operation)
    except BaseException:
        undo()
        raise
    return cancel


_PLAIN = (int, bool, type(None))  # what they return most often; to ask whether that is a Generator takes longer


def is_operation(value: object) -> TypeGuard[Operation[Any]]:
    """Whether ``value``, which a function of the application has returned, is an operation to be run."""
    return type(value) not in _PLAIN and isinstance(value, Generator)


def call(function: Callable[..., Any], *args: Any) -> Operation[Any]:
    """Call a function of the application, which may be an operation itself.

    Returns:
        Its result, or, if that is a generator, the result of running it.
    """
    result: Any = yield Call(function, *args)
    return (yield from result) if is_operation(result) else result


def within(operation: Operation[T], seconds: float, late: Exception) -> Operation[T]:
    """The result of an operation, if it ends in time; else it is cancelled.

    Args:
        operation: What to run.
        seconds: How long at most.
        late: What is raised if that is over.
    """
    over = Wait()
    ended = False

    def run() -> Operation[T]:
        nonlocal ended
        result = yield from operation
        ended = True
        over.fire()
        return result

    def watch() -> Operation[None]:
        if not ended:
            yield Sleep(seconds, over)
        if not ended:
            raise late

    results: tuple[T, None] = yield Together(run(), watch())
    return results[0]
