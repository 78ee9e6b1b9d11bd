"""What moves the bytes of a connection under asyncio.

It is a protocol of the event loop, and has no task of its own.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from weakref import WeakKeyDictionary

from sshproto.connection import Connection
from sshproto.operations.hub import Hub
from sshproto.operations.steps import Wait
from sshproto_io import LINGER
from sshproto_io._async_link import Closing
from sshproto_io._asyncio_link import AsyncioLink
from sshproto_io._asyncio_socket import SocketTransport

if TYPE_CHECKING:
    from sshproto.events import Event

C = TypeVar("C", bound=Connection[Any])

_MUCH = 256 * 1024  # bytes that are bulk data
_TURN = 4 * 1024 * 1024  # bytes of bulk data that leave in one turn of the loop


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


class Peer(asyncio.Protocol, AsyncioLink, Closing, Generic[C]):
    """One connection, of either side."""

    def __init__(self, conn: C, linger: float | None, on_event: Callable[[Event], None] | None = None) -> None:
        super().__init__()
        self.conn = conn
        self._linger = linger
        self.hub = Hub(conn, on_event)
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._blocked = False
        self._now = self._loop.time
        self._room = self.hub.limits.output_high
        self._ending = False
        self._flushing = True  # the first turn comes when there is where to send
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None  # the one that was looked at last
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
