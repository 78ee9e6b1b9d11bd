"""A connection under asyncio: the pump, and what runs operations.

It is a protocol of the event loop, and has no task of its own; operations run in the tasks of their callers, or as jobs
in the turns of the connection.  What all of them have to send in one turn of the loop leaves in one write.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar
from weakref import WeakKeyDictionary

from sshproto.connection import Connection
from sshproto.operations.hub import Hub
from sshproto.operations.steps import Call, Ready, Sleep, Spawn, Together, Wait
from sshproto_io import LINGER
from sshproto_io._async_link import Cancels, Errand, Job, Link, not_done
from sshproto_io._asyncio_socket import SocketTransport
from sshproto_io._asyncio_tasks import begin

if TYPE_CHECKING:
    from sshproto.events import Event
    from sshproto.operations.steps import Operation, Step

C = TypeVar("C", bound=Connection[Any])
T = TypeVar("T")

_MUCH = 256 * 1024  # bytes that are bulk data
_TURN = 4 * 1024 * 1024  # bytes of bulk data that leave in one turn of the loop


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


class Share:
    """What all connections of a loop may send in one of its turns.

    Whoever has little to send waits as long as a turn takes: with hundreds that each send a megabyte, a third of a
    second. So they do that one after the other, a few in each turn.
    """

    __slots__ = ("_called", "_line", "_spent")

    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Share]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._spent = 0
        self._line: dict[Peer[Any], int] = {}
        self._called: set[Peer[Any]] = set()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Share:
        """The loop's."""
        share = cls._all.get(loop)
        if share is None:
            share = cls._all[loop] = cls()
        return share

    def take(self, peer: Peer[Any], size: int, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether ``peer`` may send so much now. If not, it will be told to go on."""
        if peer in self._called:
            self._called.discard(peer)
            return True
        if self._spent >= _TURN or self._line:
            self._line.setdefault(peer, size)
            return False
        if not self._spent:
            loop.call_soon(self._over, loop)
        self._spent += size
        return True

    def _over(self, loop: asyncio.AbstractEventLoop) -> None:
        """A turn is over: as many go on as may in the next."""
        self._spent = 0
        self._called.clear()
        while self._line and self._spent < _TURN:
            peer = next(iter(self._line))
            self._spent += self._line.pop(peer)
            self._called.add(peer)
            peer.flush()
        if self._spent:
            loop.call_soon(self._over, loop)


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

    __slots__ = ("_peer", "future")

    def __init__(self, peer: Peer[Any], future: asyncio.Future[None]) -> None:
        self._peer = peer
        self.future = future

    def __call__(self) -> None:
        self._peer.woken = True
        if not self.future.done():
            self.future.set_result(None)


class _Waiting(asyncio.Future[None]):
    """What a task waits for until something fires, with no frame around it: most of all tasks do nothing else."""

    __slots__ = ("_peer", "_step")

    def __init__(self, peer: Peer[Any], step: Wait) -> None:
        super().__init__(loop=peer._loop)
        self._peer = peer
        self._step = step

    def __call__(self) -> None:
        self._peer.woken = True
        if not self.done():
            self.set_result(None)

    def cancel(self, msg: Any = None) -> bool:
        """The task does not wait any more."""
        self._step.unsubscribe(self)
        return super().cancel(msg)


async def _now(result: T) -> T:
    """What there is to wait for where a function was none to be awaited."""
    return result


class Peer(asyncio.Protocol, Link, Generic[C]):
    """One connection, of either side: the pump, and what runs operations."""

    def __init__(self, conn: C, linger: float | None, on_event: Callable[[Event], None] | None = None) -> None:
        Link.__init__(self)
        self._loop = asyncio.get_running_loop()
        self.conn = conn
        self._linger = linger
        self.hub = Hub(conn, on_event)
        self.resolve = self._loop.getaddrinfo
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._blocked = False
        self._now = self._loop.time
        self._room = self.hub.limits.output_high
        self._ending = False
        self._flushing = True  # a turn has begun, or will soon; the first one when there is where to send
        self.woken = False  # tasks of ours go on after this turn
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None  # the one that was looked at last
        self.tasks: dict[asyncio.Task[Any], Cancels] = {}  # of the background, and what cancels them
        self._at_end: Callable[[asyncio.Task[Any]], None] | None = None
        self._gone = Wait()  # fires when it is over

    # --------------------------------------------------------------------------------------------- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._connected(transport)

    def _connected(self, transport: asyncio.BaseTransport) -> None:
        """There is where to send."""
        self._pump()

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        self.hub.wire.receive_data(data, self._now())
        self._flushing = True
        self.woken = False
        try:
            self.turn()
            if self.woken:  # whoever was woken will have something to send as well
                self._loop.call_soon(self._pump)
                return
            transport = self._transport
            if transport is not None:
                self._send(transport, answering=True)
            self._flushing = False
        except BaseException:
            self._flushing = False
            raise

    def eof_received(self) -> bool:
        if not self._ending:
            self.conn.receive_eof(self._now())
            self._pump()
        return not self._ending

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        try:
            if not self._ending:
                self.conn.receive_eof(self._now())
                self._pump()
        except BaseException:
            self.hub.on_event = None  # it has failed, and others wait for what follows
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.end_jobs()
            for task in tuple(self.tasks.values()):
                task.cancel()
            self._at_end = None  # it knows this, and this knew it
            self._gone.fire()

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self.flush()

    # --------------------------------------------------------------------------------------------------------- the pump

    def flush(self) -> None:
        """Send what there is, and see what follows from it; see the base class."""
        if not self._flushing and (self.conn.output_size or self._due or self.hub.behind):
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
        self._flushing = True
        try:
            self.turn()
            transport = self._transport
            if transport is not None:
                self._send(transport)
        finally:
            self._flushing = False

    def _send(self, transport: asyncio.Transport, *, answering: bool = False) -> None:
        conn, wire = self.conn, self.hub.wire
        while (size := conn.output_size) and not self._blocked:
            if size >= _MUCH and not Share.of(self._loop).take(self, size, self._loop):
                break
            transport.write(wire.data_to_send())
            if size < self._room:
                break
            self.turn()  # there was no room for more, and now there is
        if conn.should_close:
            self._end(transport, answering)
            return
        if wire.want_read is not self._reading:
            self._reading = not self._reading
            (transport.resume_reading if self._reading else transport.pause_reading)()
        deadline = wire.next_deadline()
        if deadline is not self._deadline:  # it was set again, be it to the same moment
            self._deadline = deadline
            self._arm(deadline)

    def _arm(self, deadline: float | None) -> None:
        timer = self._timer
        # A timer that comes too early does no harm, and most deadlines are moved back before they come.
        if deadline is not None and (timer is None or deadline < timer.when()):
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._expired)

    def _expired(self) -> None:
        self._timer = self._deadline = None
        self.conn.handle_timeout(self._now())
        self._pump()

    def _end(self, transport: asyncio.Transport, answering: bool) -> None:
        """The connection has ended: have the last bytes leave, and give the peer a moment to read them."""
        if self._ending:
            return
        self._ending = True
        if not self._reading:
            transport.resume_reading()
        if data := self.conn.data_to_send():
            transport.write(data)  # all that is left, even if the peer is slow
        if answering and isinstance(transport, SocketTransport) and transport.at_end():
            transport.close()  # as it is after the peer's own goodbye
            return
        until = math.inf if self._linger is None else self._loop.time() + self._linger
        self._part(transport, until, transport.get_write_buffer_size())
        if transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:  # the peer has reset the connection
                transport.abort()

    def _part(self, transport: asyncio.Transport, until: float, left: int) -> None:
        """Half a second more for the peer; and again, while it has not read what is ``left`` to be sent."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(LINGER, self._parted, transport, until, left)

    def _parted(self, transport: asyncio.Transport, until: float, left: int) -> None:
        if left and self._loop.time() < until:
            self._part(transport, until, transport.get_write_buffer_size())
        else:
            transport.abort()

    # ------------------------------------------------------------------------------------------------------- operations

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

    def adopt(self, operation: Operation[Any], step: Step) -> Cancels | None:
        """Go on with an operation in a task; see the base class."""
        job = self._run(operation, step)
        if self._over:
            job.close()
            operation.close()
            not_done(step)
            return None
        task = begin(self._loop, job, getattr(operation, "__qualname__", None))
        if task.done():
            self._task_ended(task)
            return None
        begun = _begun(job)
        self.woken |= not begun
        self.tasks[task] = what = task if begun else _Unbegun(task, job, operation, step)
        if self._at_end is None:
            self._at_end = self._task_ended  # one for all of them
        task.add_done_callback(self._at_end)
        return what

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

    # ---------------------------------------------------------------------------------------------------------- closing

    async def aclose(self, description: str = "") -> None:
        """Disconnect, and wait until everything of this connection has ended. Repeated calls do nothing.

        Args:
            description: Words for the peer.
        """
        self.conn.disconnect(description)
        self._pump()
        try:
            while not self._over:
                await self._wait(self._gone, pumped=True)
            current = asyncio.current_task()
            tasks = [task for task in self.tasks if task is not current]
            if tasks:
                await asyncio.gather(*tasks, return_exceptions=True)
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Close the connection at once, without a word."""
        if self._transport is not None:
            self._transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
