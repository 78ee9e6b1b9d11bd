"""A connection under Trio: the pump, and what runs operations.

In a connection's nursery are the task that reads and whatever it has in the background.  Operations run in the tasks of
their callers.  What they have to send leaves at once, if it is small and the socket takes it; all else is left to the
one task that writes, which there is once it is needed: whoever is cancelled, no packet is torn.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import socket
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import trio

from sshproto.connection import Connection
from sshproto.operations.hub import Hub
from sshproto.operations.steps import Call, Ready, Sleep, Spawn, Together, Wait
from sshproto_io import LINGER
from sshproto_io._async_link import Errand, Link, given

if TYPE_CHECKING:
    from sshproto.events import Event
    from sshproto.operations.channel import Channel
    from sshproto.operations.steps import Operation, Step
    from sshproto.wire.codec import Buffer

C = TypeVar("C", bound=Connection[Any])
T = TypeVar("T")

_PIECE = 256 * 1024
_MUCH = 16 * 1024  # bytes that are worth a call of their own
_SWIFT = 3  # times that less is sent without the writer, until it has come to its turn or something was received
_HEAP = 512 * 1024  # bytes that are gathered at most
_PATIENCE = 2  # turns without another piece, until those that were gathered leave
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


def _alias(sock: trio.socket.SocketType) -> socket.socket:
    """The same socket, to be used without waiting. It is not to be closed."""
    alias = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.fileno())
    alias.setblocking(False)  # it does not know, and waits if there is a default timeout
    # Trio has the system take 16 KiB more than can leave now, so that what goes next is decided late. Packets are in
    # order already, and would go bit by bit.
    with contextlib.suppress(AttributeError, OSError):  # not every system has that, nor every kind of socket
        alias.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, 0)
    return alias


class Waiter:
    """Wakes a task when something fires. Less than an event.

    Args:
        peer: The connection that it waits on.
        step: What it waits for.
    """

    __slots__ = ("_peer", "_step", "_task", "fired")

    def __init__(self, peer: Peer[Any], step: Wait) -> None:
        self.fired = False
        self._peer = peer
        self._step = step
        self._task: trio.lowlevel.Task | None = None

    def fire(self) -> None:
        if self.fired:
            return
        self.fired = True
        self._peer._awake += 1
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def rest(self) -> Awaitable[object]:
        """Sleep until it fires. To be awaited at once, and ended in any case; there is no frame of this meanwhile."""
        self._step.subscribe(self.fire)
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
        self._step.unsubscribe(self.fire)
        if self.fired:
            self._peer._awake -= 1


class Peer(Link, Generic[C]):
    """One connection, of either side: the pump, and what runs operations."""

    __slots__ = (
        "_adopted",
        "_alarm",
        "_awake",
        "_busy",
        "_carrying",
        "_clock",
        "_cut",
        "_deaf",
        "_end_at",
        "_finished",
        "_gathering",
        "_gone",
        "_grown",
        "_life",
        "_linger",
        "_nursery",
        "_parted",
        "_pen",
        "_rings",
        "_room",
        "_sock",
        "_stream",
        "_swift",
        "_turning",
        "_unsent",
        "_waits",
        "_writer",
        "conn",
    )

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
        self._sock: socket.socket | None = None  # the stream's own, if it has one
        self._nursery = nursery
        self._linger = linger
        # What reads is shielded, so that who is cancelled can still take leave: that has a deadline of its own.
        self._end_at = math.inf
        self._cut = False  # it is to end at once
        self._life: trio.CancelScope | None = None  # around what is not about the alarm as well
        self._alarm: trio.CancelScope | None = None
        self._rings = math.inf  # when that does
        self._writer: trio.lowlevel.Task | None = None  # while it waits for something to send, or for the end
        self._room: trio.Event | None = None  # there is room for input, or the connection has ended
        self._deaf = False  # nothing more comes from the peer
        self._parted = False  # nothing more goes to it
        self._finished: trio.Event | None = None  # fires then
        self._gone: trio.Event | None = None  # fires when it is over, for who waits for that
        # Tasks that something has woken and that have not had their turn: little that is to be sent waits for them, who
        # will have more, and send it before they do anything else.
        self._awake = 0
        self._waits = 0
        self._turning = False
        # The writer has a scope once there is need for it. It is a task of the same nursery, and so is what watches the
        # time, where the reader can't.
        self._carrying = False  # there may be one
        self._pen: trio.CancelScope | None = None
        self._clock: trio.CancelScope | None = None
        self._busy = True  # it writes what did not fit; or nobody can yet
        self._swift = _SWIFT
        self._unsent: Buffer = b""
        self._gathering = False  # pieces wait for others; the writer looks in each turn whether there are any
        self._grown = False  # one has come since it looked
        self._adopted: dict[trio.CancelScope, None] = {}
        nursery.start_soon(self._carry)

    # --------------------------------------------------------------------------------------------------------- the pump

    def flush(self) -> None:
        self._flush()

    def _flush(self, *, at_once: bool = False) -> None:
        if self._turning:
            return
        self._turning = True
        conn = self.conn
        try:
            self.turn()
            ended = conn.should_close
            if self._sock is not None and not self._busy:
                self._send(self._sock, at_once=ended or at_once)
        finally:
            self._turning = False
        if ended:
            self._end()
        elif self._unsent or (conn.output_size and not self._awake):
            self._stir()
        if self._room is not None and (ended or conn.want_read):
            self._room.set()
        # An alarm that comes too early does no harm, and most deadlines are moved back before they come.
        deadline = conn.next_deadline()
        if deadline is not None and deadline < self._rings:
            self._ring_at(deadline)

    def soon(self) -> None:
        # Not now: what has woken a job may not be done yet.
        if not self._turning:
            self._stir()

    def moved(self) -> None:
        """Data was read or written: what :meth:`flush` does, but nothing has happened that brings an event."""
        if self._turning or self._busy or self._sock is None:
            self.flush()
            return
        self._turning = True
        try:
            self._send(self._sock)
        finally:
            self._turning = False
        if self._unsent or (self.conn.output_size and not self._awake):
            self._stir()
        if self._room is not None and self.conn.want_read:
            self._room.set()
        deadline = self.conn.next_deadline()
        if deadline is not None and deadline < self._rings:  # the key is worn out, and is exchanged
            self._ring_at(deadline)

    def _end(self) -> None:
        """The connection has ended: have the last bytes leave, and give the peer a moment."""
        now, end_at = trio.current_time(), self._end_at
        if end_at == math.inf:
            end_at = now + LINGER + (math.inf if self._linger is None else self._linger)
        if self._sock is None or self._busy or self.conn.output_size:
            self._limit(end_at)
            self._stir()
        elif not self._parted:
            self._parted = True
            with contextlib.suppress(OSError):  # the peer has reset the connection, which reading will show
                self._sock.shutdown(socket.SHUT_WR)
            self._limit(min(end_at, now + LINGER))

    def _stir(self) -> None:
        """Let the writer have its turn."""
        writer, self._writer = self._writer, None
        if writer is not None:
            trio.lowlevel.reschedule(writer)
        elif self._carrying and self._pen is None:
            self._pen = trio.CancelScope(shield=True, deadline=self._end_at)
            self._nursery.start_soon(self._write_all, self._pen)

    def _limit(self, deadline: float) -> None:
        """It is to be over then."""
        if deadline == self._end_at:
            return
        self._end_at = deadline
        if deadline < self._rings:
            self._ring_at(deadline)
        for scope in (self._life, self._pen):
            if scope is not None:
                scope.deadline = deadline

    def _ring_at(self, deadline: float) -> None:
        self._rings = deadline
        if self._alarm is not None:
            self._alarm.deadline = deadline

    def _cut_off(self) -> None:
        """It is to be over now."""
        self._cut = True
        for scope in (self._life, self._alarm):
            if scope is not None:
                scope.cancel()

    def _send(self, sock: socket.socket, *, at_once: bool = False) -> None:
        """Send what there is, as far as the socket takes it."""
        size = self.conn.output_size
        if size < _MUCH and not at_once:
            # Who has sent little a few times since something came may be one of many tasks, whose packets leave
            # together if they are left to the writer.
            if not size or self._awake or not self._swift:
                return
            self._swift -= 1
        elif not at_once:
            self._grown = True
            if not self._gathering:  # the first does not wait
                self._gathering = True
                self._stir()
            elif size < _HEAP and size < self.hub.limits.output_high:
                return
        data = self.conn.data_to_send()  # though there be nothing: who records waits for the last call
        if not data:
            return
        try:
            sent = sock.send(data)
        except OSError:  # it is full; or broken, which the writer will see
            sent = 0
        if sent < size:
            self._unsent = memoryview(data)[sent:]
            self._busy = True
        if size >= self.hub.limits.output_high:  # taking it has made room
            self.turn()

    async def _carry(self) -> None:
        """Move bytes until the connection has ended; then have the last ones leave, and give the peer a moment."""
        try:
            if self._cut:  # who is turned away gets not a word
                return
            self._carrying = True
            if isinstance(self._stream, trio.SocketStream) and self._stream.socket.fileno() >= 0:
                self._busy = False
                sock = self._sock = _alias(self._stream.socket)
                self.flush()
                if await self._read_socket(sock):
                    await self._until_written()
            else:
                self.flush()
                self._clock = trio.CancelScope(shield=True)
                self._nursery.start_soon(self._watch, self._clock)
                with trio.CancelScope(shield=True, deadline=self._end_at) as self._life:
                    await self._read()
                if not self._life.cancelled_caught:
                    await self._until_written()
        finally:
            self._carrying = False
            for scope in (self._pen, self._clock):
                if scope is not None:
                    scope.cancel()
            try:
                if self._sock is not None and isinstance(self._stream, trio.SocketStream):
                    sock, self._sock = self._sock, None
                    sock.detach()
                    self._stream.socket.close()
                else:
                    await trio.aclose_forcefully(self._stream)
            finally:
                self.conn.receive_eof(trio.current_time())
                self.flush()
                if self._gone is not None:
                    self._gone.set()
                self.end_jobs()
                for scope in self._adopted:
                    scope.cancel()

    async def _until_written(self) -> None:
        """Nothing more comes: have the last bytes leave."""
        self.conn.receive_eof(trio.current_time())
        self._deaf = True
        self.flush()
        if self._finished is not None:
            self._finished.set()
        if self._pen is not None and not self._parted and not self._cut:
            with trio.CancelScope(shield=True, deadline=self._end_at) as self._life:
                await trio.sleep_forever()  # the writer will end it

    async def _write_all(self, pen: trio.CancelScope) -> None:
        """Write until the connection has ended, and give the peer a moment to see that."""
        try:
            with pen:
                with contextlib.suppress(*_BROKEN):
                    await self._write()
                    if isinstance(self._stream, trio.abc.HalfCloseableStream):
                        await self._stream.send_eof()
                if not self._deaf:
                    self._finished = trio.Event()
                    with trio.move_on_after(LINGER):
                        await self._finished.wait()
        finally:
            self._cut_off()

    async def _write(self) -> None:
        conn = self.conn
        quiet = 0
        while True:
            self._swift = _SWIFT
            if self._due:
                self.flush()
            if self._unsent:
                data, self._unsent = self._unsent, b""
                await self._stream.send_all(data)
                self._busy = self._sock is None
            elif self._gathering and quiet < _PATIENCE:
                quiet = 0 if self._grown else quiet + 1
                self._grown = False
                await trio.lowlevel.cancel_shielded_checkpoint()
            elif self._gathering:
                self._gathering = False
                quiet = 0
            elif conn.output_size:
                if self._sock is not None:
                    self._flush(at_once=True)
                    if not self._unsent:
                        await trio.lowlevel.cancel_shielded_checkpoint()
                else:
                    self._unsent = conn.data_to_send()
                    self.flush()  # taking it has made room
            elif conn.should_close:
                return
            else:
                self._writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._stop_writing)

    def _stop_writing(self, _: object) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _read(self) -> None:
        conn = self.conn
        with contextlib.suppress(*_BROKEN):
            while data := await self._stream.receive_some(_PIECE):
                conn.receive_data(data, trio.current_time())
                await self._received()

    async def _read_socket(self, sock: socket.socket) -> bool:
        """The same for a socket, without a second task for the time: who waits for it can be interrupted.

        Returns:
            Whether nothing more comes. If not, the connection is to end at once.
        """
        conn, descriptor = self.conn, sock.fileno()
        while not self._cut:
            with trio.CancelScope(shield=True, deadline=self._next_ring()) as self._alarm:
                await self._until_room()  # in the midst of which the last alarm may have rung
                while True:
                    try:
                        await trio.lowlevel.wait_readable(descriptor)
                        data = sock.recv(_PIECE)
                    except (BlockingIOError, InterruptedError):
                        continue
                    except (OSError, trio.ClosedResourceError):  # reset by the peer, or unreachable
                        return True
                    if not data:
                        return True
                    conn.receive_data(data, trio.current_time())
                    await self._received()
            now = trio.current_time()
            if self._cut or now >= self._end_at:
                break
            conn.handle_timeout(now)
            self.flush()
        return False

    def _next_ring(self) -> float:
        """When the alarm is to ring next."""
        deadline = self.conn.next_deadline()
        self._rings = self._end_at if deadline is None else min(deadline, self._end_at)
        return self._rings

    async def _received(self) -> None:
        """Something has come."""
        self._swift = _SWIFT
        self.flush()
        await self._until_room()

    async def _until_room(self) -> None:
        """Wait until there is room for more, or the connection has ended."""
        conn = self.conn
        while not (conn.want_read or conn.should_close):
            self._room = trio.Event()
            await self._room.wait()
            self._room = None

    async def _watch(self, clock: trio.CancelScope) -> None:
        with clock:
            while True:
                with trio.CancelScope(deadline=self._next_ring()) as self._alarm:
                    await trio.sleep_forever()
                self.conn.handle_timeout(trio.current_time())
                self.flush()

    # ------------------------------------------------------------------------------------------------------- operations

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

    async def _call(self, step: Call) -> Any:
        try:
            if step.function is given:
                return await self._late(step.args[0])
            self.flush()
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
            trap = steps.send(None)
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
        self._adopted[scope] = None
        name: str | None = getattr(operation, "__qualname__", None)
        self._nursery.start_soon(self._foster, scope, operation, step, name=name)
        self._awake += 1
        return scope.cancel

    async def _foster(self, scope: trio.CancelScope, operation: Operation[Any], step: Step) -> None:
        self._awake -= 1
        try:
            with scope:
                await self._run(operation, step)
        finally:
            self._adopted.pop(scope, None)

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
