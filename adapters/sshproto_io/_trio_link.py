"""A connection under Trio: the pump, and what runs operations.

In a connection's nursery are the task that moves its bytes and whatever it has in the background.  Operations run in
the tasks of their callers, and leave what they have to send to the one task that writes: whoever is cancelled, no
packet is torn.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import trio

from sshproto.connection import Connection
from sshproto.operations.hub import Hub
from sshproto.operations.steps import Call, Ready, Sleep, Spawn, Together, Wait
from sshproto_io import LINGER
from sshproto_io._async_link import Link

if TYPE_CHECKING:
    from sshproto.events import Event
    from sshproto.operations.channel import Channel
    from sshproto.operations.steps import Operation, Step

C = TypeVar("C", bound=Connection[Any])
T = TypeVar("T")

_PIECE = 256 * 1024
_MUCH = 16 * 1024  # bytes to send at which more are to be expected
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


@contextlib.asynccontextmanager
async def plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that its users need not know of: an error that comes alone is not wrapped into a group."""
    try:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            yield nursery
        return
    except BaseExceptionGroup as group:
        rest = without_cancelled(group)
        problem = rest.exceptions[0] if len(rest.exceptions) == 1 else rest
    raise problem


def without_cancelled(group: BaseExceptionGroup[Any]) -> BaseExceptionGroup[Any]:
    """What else is in a group, if there is anything: of being cancelled, the next checkpoint will tell again."""
    cancelled, rest = group.split(trio.Cancelled)
    return group if cancelled is None or rest is None else rest


class Peer(Link, Generic[C]):
    """One connection, of either side: the pump, and what runs operations."""

    def __init__(
        self,
        conn: C,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        linger: float | None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        super().__init__()
        self.conn = conn
        self.hub = Hub(conn, on_event)
        self.resolve = trio.socket.getaddrinfo
        self._stream = stream
        self._nursery = nursery
        self._linger = linger
        self._life = trio.CancelScope(shield=True)
        self._alarm = trio.CancelScope()
        self._output = trio.Event()  # there is something to send, or the connection has ended
        self._room = trio.Event()  # there is room for input, or the connection has ended
        self._finished = trio.Event()  # nothing more comes from the peer
        self._gone = trio.Event()
        self._waits = 0
        self._turning = False
        self._adopted: set[trio.CancelScope] = set()
        nursery.start_soon(self._carry)

    # --------------------------------------------------------------------------------------------------------- the pump

    def flush(self) -> None:
        if self._turning:
            return
        self._turning = True
        try:
            self.turn()
        finally:
            self._turning = False
        conn = self.conn
        ended = conn.should_close
        if ended and self._life.deadline == math.inf:
            patience = math.inf if self._linger is None else self._linger
            self._life.deadline = trio.current_time() + patience + LINGER
        if ended or conn.output_size:
            self._output.set()
        if ended or conn.want_read:
            self._room.set()
        # An alarm that comes too early does no harm, and most deadlines are moved back before they come.
        deadline = conn.next_deadline()
        if deadline is not None and deadline < self._alarm.deadline:
            self._alarm.deadline = deadline

    def soon(self) -> None:
        # Not now: what has woken a job may not be done yet.
        if not self._turning:
            self._output.set()

    async def _carry(self) -> None:
        """Move bytes until the connection has ended; then have the last ones leave, and give the peer a moment."""
        try:
            # Shielded, so that who is cancelled can still take leave: that has a deadline of its own.
            with self._life:
                async with plain_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._watch)
                    with contextlib.suppress(*_BROKEN):
                        await self._write()
                        if isinstance(self._stream, trio.abc.HalfCloseableStream):
                            await self._stream.send_eof()
                    with trio.move_on_after(LINGER):
                        await self._finished.wait()
                    nursery.cancel_scope.cancel()
        finally:
            try:
                await trio.aclose_forcefully(self._stream)
            finally:
                self.conn.receive_eof(trio.current_time())
                self.flush()
                self._gone.set()
                self.end_jobs()
                for scope in self._adopted:
                    scope.cancel()

    async def _write(self) -> None:
        conn = self.conn
        while True:
            if self._due:
                self.flush()
            if conn.output_size >= _MUCH:
                await self._gather()
            if data := conn.data_to_send():
                self.flush()  # taking it has made room
                await self._stream.send_all(data)
            elif conn.should_close:
                return
            else:
                self._output = trio.Event()
                await self._output.wait()

    async def _gather(self) -> None:
        """Let a task that writes much go on: all its writes yield, and would leave one by one."""
        conn = self.conn
        size = 0
        while size < conn.output_size < _PIECE:
            size = conn.output_size
            await trio.lowlevel.checkpoint()

    async def _read(self) -> None:
        conn = self.conn
        with contextlib.suppress(*_BROKEN):
            while data := await self._stream.receive_some(_PIECE):
                conn.receive_data(data, trio.current_time())
                self.flush()
                while not (conn.want_read or conn.should_close):
                    self._room = trio.Event()
                    await self._room.wait()
        conn.receive_eof(trio.current_time())
        self.flush()
        self._finished.set()

    async def _watch(self) -> None:
        while True:
            deadline = self.conn.next_deadline()
            with trio.CancelScope(deadline=math.inf if deadline is None else deadline) as self._alarm:
                await trio.sleep_forever()
            self.conn.handle_timeout(trio.current_time())
            self.flush()

    # ------------------------------------------------------------------------------------------------------- operations

    async def perform(self, operation: Operation[T]) -> T:
        """Run an operation on this connection, in this task. It is a checkpoint in any case.

        Raises:
            Exception: What the operation raises.
        """
        return await self._checked(super().perform(operation))

    async def complete(self, operation: Operation[T]) -> T:
        """Run an operation whose result is nothing to be lost; see the base class. It is a checkpoint in any case.

        Raises:
            Exception: What the operation raises.
        """
        return await self._checked(super().complete(operation))

    async def _checked(self, job: Coroutine[Any, Any, T]) -> T:
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            waits = self._waits
            result = await job
        finally:
            job.close()  # which may not have begun
        if self._waits == waits:  # nobody has waited, so nobody else has run
            await trio.lowlevel.cancel_shielded_checkpoint()
        return result

    async def _wait(self, step: Wait) -> None:
        fired = trio.Event()
        step.subscribe(fired.set)
        self.flush()  # after subscribing: it may be what this waits for that makes it happen
        self._waits += 1
        try:
            await fired.wait()
        finally:
            step.unsubscribe(fired.set)

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

    async def _call(self, step: Call) -> Any:
        self.flush()
        try:
            result = step.function(*step.args)
            return await result if inspect.isawaitable(result) else result
        except BaseExceptionGroup as group:
            problem = without_cancelled(group)
        raise problem

    async def _together(self, step: Together) -> tuple[Any, ...]:
        results: list[Any] = [None] * len(step.operations)
        problems: list[Exception] = []

        async def run(number: int, operation: Operation[Any]) -> None:
            try:
                results[number] = await self._run(operation, operation.send)
            except Exception as error:  # noqa: BLE001  it is the operation's
                problems.append(error)
                nursery.cancel_scope.cancel()

        self._waits += 1
        async with plain_nursery() as nursery:
            for number, operation in enumerate(step.operations):
                nursery.start_soon(run, number, operation)
        if problems:
            raise problems[0]
        return tuple(results)

    async def _spawn(self, step: Spawn) -> Callable[[], object]:
        return self.spawn(step.operation)

    def adopt(self, operation: Operation[Any], step: Step) -> Callable[[], object]:
        """Go on with an operation in a task, in the connection's nursery; see the base class."""
        scope = trio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    await self._run(operation, lambda _: step)
            finally:
                self._adopted.discard(scope)

        self._adopted.add(scope)
        self._nursery.start_soon(run, name=getattr(operation, "__qualname__", None))
        return scope.cancel

    def failed(self, error: Exception) -> None:
        """Something in the background has failed, and with it the connection's nursery; see the base class."""

        async def fail() -> None:
            raise error

        self._nursery.start_soon(fail)

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
            await self._gone.wait()
        except trio.Cancelled:
            self._life.deadline = min(self._life.deadline, trio.current_time() + LINGER)
            raise

    def abort(self) -> None:
        """Close the connection at once, without a word."""
        self._life.cancel()
