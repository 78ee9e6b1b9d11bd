"""What moves the bytes of a connection under Trio.

One task does: it reads, and keeps the time.  What it and others have to send leaves at once, if it is small and the
socket takes it; all else is left to the one task that writes, which there is once it is needed: whoever is cancelled,
no packet is torn.

How a connection ends: nothing more comes from the peer (``_deaf``, for which the writer may wait: ``_finished``),
nothing more goes to it (``_parted``), or it is to be over at once (``_cut``); what carries it is closed (``_carrying``
no more); the jobs are cancelled (``_over``), and who waits for that goes on (``_gone``); no nursery will be opened any
more (``_done``).
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import trio

from sshproto.connection import Connection
from sshproto.operations.hub import Hub
from sshproto_io import LINGER
from sshproto_io._trio_link import TrioLink
from sshproto_io._trio_nursery import PlainNursery
from sshproto_io._trio_socket import Carrier, close, drop, send_all, socket_of

if TYPE_CHECKING:
    from sshproto.events import Event
    from sshproto.wire.codec import Buffer

C = TypeVar("C", bound=Connection[Any])

_PIECE = 256 * 1024
_MUCH = 16 * 1024  # bytes that are worth a call of their own
_SWIFT = 3  # times that less is sent without the writer, until it has come to its turn or something was received
_HEAP = 512 * 1024  # bytes that are gathered at most
_PATIENCE = 2  # turns without another piece, until those that were gathered leave
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class Peer(TrioLink, Generic[C]):
    """One connection, of either side.

    Args:
        conn: The connection.
        carrier: A stream, or a socket that does not block; it belongs to the connection from now on.
        nursery: Where its tasks are, one that carries it among them. If it is None, somebody has to call
            :meth:`_carry_alone`, and there will be one once something else needs a task.
        linger: Seconds that the peer may take to read the last bytes; None for ever.
        on_event: See :class:`~sshproto.operations.hub.Hub`.
    """

    __slots__ = (
        "_alarm",
        "_busy",
        "_carrier",
        "_carrying",
        "_clock",
        "_cut",
        "_deaf",
        "_done",
        "_end_at",
        "_finished",
        "_gathering",
        "_gone",
        "_grown",
        "_life",
        "_linger",
        "_needed",
        "_parted",
        "_pen",
        "_rings",
        "_room",
        "_shielded",
        "_sock",
        "_stirred",
        "_swift",
        "_unsent",
        "_writer",
        "conn",
    )

    def __init__(
        self,
        conn: C,
        carrier: Carrier,
        nursery: trio.Nursery | None,
        linger: float | None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        super().__init__(nursery)
        self.conn = conn
        self.hub = Hub(conn, on_event)
        self._carrier = carrier
        self._sock: socket.socket | None = None  # what carries, if it is a socket
        self._linger = linger
        self._end_at = math.inf
        self._cut = False  # it is to end at once
        self._life: trio.CancelScope | None = None  # around what is not about the alarm as well
        self._alarm: trio.CancelScope | None = None
        self._rings = math.inf  # when that does
        self._writer: trio.lowlevel.Task | None = None  # while it waits for something to send, or for the end
        self._room: trio.Event | None = None  # there is room for input, or the connection has ended
        self._deaf = False  # nothing more comes from the peer
        self._parted = False  # nothing more goes to it
        self._finished: trio.Event | None = None  # nothing more comes, for the writer
        self._gone: trio.Event | None = None  # fires when it is over, for who waits for that
        # The writer has a scope once there is need for it. It is a task of the same nursery, and so is what watches the
        # time, where the reader can't.
        self._carrying = False  # there may be one
        self._pen: trio.CancelScope | None = None
        self._clock: trio.CancelScope | None = None
        self._stirred = False  # its turn comes, and then it flushes
        self._busy = True  # it writes what did not fit; or nobody can yet
        self._swift = _SWIFT
        self._unsent: Buffer = b""
        self._gathering = False  # pieces wait for others; the writer looks in each turn whether there are any
        self._grown = False  # one has come since it looked
        # What waits for a nursery to be opened.
        self._needed: list[tuple[Callable[..., Awaitable[object]], tuple[Any, ...], str | None]] | None = None
        self._done = False  # there is none, nor will there be
        # Who opened a nursery takes leave when it is cancelled, and what reads is shielded against that until then.
        self._shielded = nursery is not None
        if nursery is not None:
            nursery.start_soon(self._carry)

    # ----------------------------------------------------------------------------------------------- what is to be sent

    def flush(self) -> None:
        self._flush()

    def _settle(self) -> None:
        """Send what there is, unless others go on at once, the last of whom does it for all; see the base class."""
        if not (self._awake or self._stirred):
            self._flush()

    def _later(self) -> None:
        """Send what there is, by a task that is about to wait; see the base class."""
        if self._turning or self._awake or self._stirred:
            return
        size = self.conn.output_size
        if self._due or self.hub.behind or size >= min(_MUCH, self.hub.limits.output_high):
            self.soon()
        elif size and not self._busy:
            self._moved()
        else:
            self._see_what_follows()

    def _follow(self) -> None:
        """Have what there is leave with what this task does next; see the base class."""
        if self.hub.behind:
            self._flush()
        elif self.conn.output_size:
            self._stir()

    def _flush(self, *, at_once: bool = False) -> None:
        if self._turning:
            return
        self._turning = True
        try:
            self.turn()
            ended = self.conn.should_close
            if not self._busy:
                self._send(at_once=ended or at_once)
        finally:
            self._turning = False
        if ended:
            self._end()
        self._see_what_follows()

    def soon(self) -> None:
        # Not now: what has woken a job may not be done yet.
        if self._turning:
            return
        if self._busy and self._carrying and self._pen is not None and self._writer is None and not self._stirred:
            self._start(self._flush_now)  # the writer writes, and may have to wait for the peer
        else:
            self._stir()

    def _moved(self) -> None:
        """Data was read or written: what :meth:`flush` does, but nothing has happened that brings an event."""
        if self._turning or self._busy or self.hub.behind:  # somebody who was woken beside this may have brought it
            self.flush()
            return
        self._turning = True
        try:
            self._send()
        finally:
            self._turning = False
        self._see_what_follows()  # such as a key that is worn out, and is exchanged

    def _see_what_follows(self) -> None:
        """The writer may have to have its turn, there may be room, and time may be short."""
        if self.conn.output_size and not self._awake:  # what did not fit is the writer's already
            self._stir()
        if self._room is not None and (self.hub.wire.want_read or self.conn.should_close):
            self._room.set()
        # An alarm that comes too early does no harm, and most deadlines are moved back before they come.
        deadline = self.hub.wire.next_deadline()
        if deadline is not None and deadline < self._rings:
            self._ring_at(deadline)

    def _send(self, *, at_once: bool = False) -> None:
        """Send what there is, as far as the socket takes it."""
        size = self.conn.output_size
        if size < _MUCH and not at_once:
            # Who has sent little a few times since something came may be one of many tasks, whose packets leave
            # together if they are left to the writer.
            if not size or self._awake or not self._swift:
                return
            self._swift -= 1
        elif not at_once:
            # Who writes piece by piece has a turn after each. Large writes cost less, also those who read them, than to
            # look in each turn whether there is more.
            self._grown = True
            if not self._gathering:  # the first does not wait
                self._gathering = True
                self._stir()
            elif size < _HEAP and size < self.hub.limits.output_high:
                return
        data = self.hub.wire.data_to_send()  # though there be nothing: who records waits for the last call
        if not data:
            return
        try:
            sent = self._sock.send(data)  # type: ignore[union-attr]  # there is one, if nobody else writes
        except OSError:  # it is full; or broken, which the writer will see
            sent = 0
        if sent < size:
            self._unsent = memoryview(data)[sent:]
            self._busy = True
            self._stir()
        if size >= self.hub.limits.output_high:  # taking it has made room
            self.turn()

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
            self._stirred = True
            trio.lowlevel.reschedule(writer)
        elif self._carrying and self._pen is None:
            self._pen = trio.CancelScope(shield=True, deadline=self._end_at)
            self._start(self._write_all, self._pen)

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

    # ------------------------------------------------------------------------------------------------------------ tasks

    def _start(self, function: Callable[..., Awaitable[object]], *args: Any, name: str | None = None) -> None:
        """Have something done in a task of its own, in the nursery; who carries opens one if there is none."""
        if self._nursery is not None:
            super()._start(function, *args, name=name)
            return
        if self._done:
            raise RuntimeError("this connection has ended")
        if self._needed is None:
            self._needed = []
        self._needed.append((function, args, name))
        if self._alarm is not None:
            self._alarm.cancel()

    async def _carry_alone(self) -> None:
        """Move bytes until the connection has ended; then have the last ones leave, and give the peer a moment.

        For who has given it no nursery.

        Raises:
            BaseException: Something in the background has failed; or more, in a group.
        """
        try:
            await self._move()
            if self._needed is None:
                await self._finish()
        except BaseException as error:  # noqa: BLE001  it is raised in the nursery, beside what waits for that
            self._cut = True
            self.failed(error)
        if self._needed is not None:
            async with PlainNursery() as self._nursery:
                needed, self._needed = self._needed, None
                for function, args, name in needed:
                    self._nursery.start_soon(function, *args, name=name)
                if not self._over:
                    await self._carry()
        self._done = True
        await trio.lowlevel.checkpoint_if_cancelled()  # it may have been, and then nobody knows yet

    async def _carry(self) -> None:
        try:
            await self._move()
        finally:
            await self._finish()

    def _move(self) -> Coroutine[Any, Any, None]:
        """Move bytes until nothing more does, or until a task is needed and there is no nursery; to be awaited."""
        if not self._carrying and not self._cut:  # who is turned away gets not a word
            self._carrying = True
            self._sock = socket_of(self._carrier)
            self._busy = self._sock is None
            self.flush()
            if self._sock is None:
                self._clock = trio.CancelScope(shield=self._shielded)
                self._start(self._watch, self._clock)
        if self._deaf:
            return self._until_written()
        return self._read() if self._sock is None else self._read_socket(self._sock)

    async def _finish(self) -> None:
        """Nothing moves any more: close what carries it, and have everything end."""
        self._carrying = False
        for scope in (self._pen, self._clock):
            if scope is not None:
                scope.cancel()
        self._stirred = False  # it has no turn any more
        sock, self._sock = self._sock, None
        self._busy = True  # nobody can write any more
        try:
            if sock is not None:
                close(sock, self._carrier)
            else:
                await drop(self._carrier)
        finally:
            self.conn.receive_eof(trio.current_time())
            try:
                self.flush()
            except BaseException:
                self.hub.on_event = None  # it has failed, and others wait for what follows
                raise
            finally:
                if self._gone is not None:
                    self._gone.set()
                self.end_jobs()
                self._abandon()

    def _leave(self) -> None:
        """Who carries is cancelled: say good bye, and do not stay for long."""
        self._shielded = True
        self.conn.disconnect("internal error" if self._broken else "the server is stopping")
        self._limit(min(self._end_at, trio.current_time() + LINGER))
        self.flush()

    # ---------------------------------------------------------------------------------------------------------- reading

    async def _read_socket(self, sock: socket.socket) -> None:
        """Read, and keep the time: who waits for the socket can be interrupted."""
        conn, descriptor = self.conn, sock.fileno()
        while not self._cut and not self._deaf and self._needed is None:
            try:
                with trio.CancelScope(shield=self._shielded, deadline=self._next_ring()) as self._alarm:
                    await self._until_room()  # in the midst of which the last alarm may have rung
                    while self._needed is None:
                        try:
                            await trio.lowlevel.wait_readable(descriptor)
                            data = sock.recv(_PIECE)
                        except (BlockingIOError, InterruptedError):
                            continue
                        except (OSError, trio.ClosedResourceError):  # reset by the peer, or unreachable
                            data = b""
                        if not data:
                            self._deaf = True
                            break
                        self.hub.wire.receive_data(data, trio.current_time())
                        del data  # there is nothing to be kept of it while nothing happens
                        self._swift = _SWIFT
                        self.flush()
                        if not self.hub.wire.want_read:
                            await self._until_room()
            except trio.Cancelled:
                self._leave()
                continue
            now = trio.current_time()
            if now >= self._end_at:
                self._cut = True
            if not self._cut and not self._deaf:
                conn.handle_timeout(now)
                self.flush()
        await self._until_written()

    async def _read(self) -> None:
        """The same from any other stream, whose reading can't be interrupted; another task keeps the time."""
        if self._cut or self._needed is not None:
            return
        stream = cast("trio.abc.Stream", self._carrier)
        with trio.CancelScope(shield=True, deadline=self._end_at) as self._life:
            while not self._deaf:
                try:
                    data = await stream.receive_some(_PIECE)
                except _BROKEN:
                    data = b""
                if not data:
                    self._deaf = True
                    break
                self.hub.wire.receive_data(data, trio.current_time())
                self._swift = _SWIFT
                self.flush()
                await self._until_room()
        await self._until_written()

    async def _watch(self, clock: trio.CancelScope) -> None:
        """Keep the time, and see whether who carries is cancelled."""
        with clock:
            while True:
                try:
                    with trio.CancelScope(deadline=self._next_ring()) as self._alarm:
                        await trio.sleep_forever()
                except trio.Cancelled:
                    if clock.cancel_called:  # it is over
                        raise
                    clock.shield = True
                    self._leave()
                    continue
                self.conn.handle_timeout(trio.current_time())
                self.flush()

    def _next_ring(self) -> float:
        """When the alarm is to ring next."""
        deadline = self.hub.wire.next_deadline()
        self._rings = self._end_at if deadline is None else min(deadline, self._end_at)
        return self._rings

    async def _until_room(self) -> None:
        """Wait until there is room for more, or the connection has ended."""
        conn = self.conn
        while not (self.hub.wire.want_read or conn.should_close):
            self._room = trio.Event()
            await self._room.wait()
            self._room = None

    # ---------------------------------------------------------------------------------------------------------- writing

    async def _write_all(self, pen: trio.CancelScope) -> None:
        """Write until the connection has ended, and give the peer a moment to see that."""
        try:
            with pen:
                with contextlib.suppress(*_BROKEN):
                    await self._write()
                    await self._write_eof()
                if not self._deaf:
                    self._finished = trio.Event()
                    with trio.move_on_after(LINGER):
                        await self._finished.wait()
        finally:
            self._cut_off()

    async def _write(self) -> None:
        conn = self.conn
        quiet = 0
        while self._carrying:  # it may be over though nothing here has met that it is cancelled
            self._swift = _SWIFT
            if self._stirred or self._due:
                self._stirred = False
                self.flush()
            if self._unsent:
                data, self._unsent = self._unsent, b""
                if self._sock is not None:
                    await send_all(self._sock, data)
                else:
                    await self._carrier.send_all(data)  # type: ignore[union-attr]
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
                    self._unsent = self.hub.wire.data_to_send()
                    self.flush()  # taking it has made room
            elif conn.should_close:
                return
            else:
                self._writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._stop_writing)

    def _stop_writing(self, _: object) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def _write_eof(self) -> None:
        if self._sock is not None:
            with contextlib.suppress(OSError):  # the peer has reset the connection
                self._sock.shutdown(socket.SHUT_WR)
        elif isinstance(self._carrier, trio.abc.HalfCloseableStream):
            await self._carrier.send_eof()

    async def _until_written(self) -> None:
        """If nothing more comes: have the last bytes leave."""
        if not self._deaf:  # it is to be over now; or goes on in a nursery
            return
        self.conn.receive_eof(trio.current_time())
        self.flush()
        if self._finished is not None:
            self._finished.set()
        while self._pen is not None and self._needed is None and not self._parted and not self._cut:
            try:
                with trio.CancelScope(shield=self._shielded, deadline=self._end_at) as self._life:
                    await trio.sleep_forever()  # the writer will end it
                break
            except trio.Cancelled:
                self._leave()

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
