"""What moves the bytes of one connection over a socket, and sleeps until its deadline.

A :class:`Driver` follows the pump rule of :mod:`sshproto.connection` and knows nothing else about the protocol.  While
it waits for the socket it also watches local descriptors, which is how data get in and out, see
:mod:`sshproto_io.relays`.  It belongs to the thread that steps it; only ``call`` may be used from others.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from sshproto.connection import Connection
from sshproto.events import Event

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

_RECEIVE = 256 * 1024
_LINGER = 0.5

# Not epoll or kqueue: they refuse regular files, which standard input and output often are.
Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)

C = TypeVar("C", bound=Connection[Any])


def ignore(event: object) -> None:
    """What hears of events that nobody wants to hear of."""


class Driver(Generic[C]):
    """A socket and a connection.

    Args:
        sock: A connected stream socket; it belongs to the driver from now on.
        conn: The connection.
        on_event: Called with every event, from within :meth:`step`. It answers questions and gives commands through
            ``conn``, and never steps the driver itself.

    Attributes:
        conn: The connection.
        on_event: As above; may be replaced.
    """

    def __init__(self, sock: socket.socket, conn: C, on_event: Callable[[Event], None] | None = None) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # not TCP
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.conn = conn
        self.on_event = on_event or ignore
        self._sock = sock
        self._selector = Selector()
        self._input = memoryview(bytearray(_RECEIVE))
        self._unsent = memoryview(b"")
        self._eof = False
        self._mute = False  # the socket takes nothing any more
        self._calls: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._waker, self._alarm = socket.socketpair()
        self._waker.setblocking(False)
        self._alarm.setblocking(False)
        self.watch(self._alarm.fileno(), READ, self._woken)

    @property
    def closed(self) -> bool:
        """Whether the socket is closed."""
        return self._closed

    @property
    def finished(self) -> bool:
        """Whether the connection has ended and all that was to be sent is sent, or never will be."""
        return self.conn.should_close and not self._unsent and not self.conn.output_size

    def addresses(self) -> tuple[Any, Any]:
        """The peer's address and ours, as the socket gives them; None for what it does not know (any more)."""
        found: list[Any] = []
        for ask in (self._sock.getpeername, self._sock.getsockname):
            try:
                found.append(ask())
            except OSError:
                found.append(None)
        return found[0], found[1]

    def watch(self, descriptor: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call ``callback`` from :meth:`step` when ``descriptor`` is ready, until told otherwise.

        Args:
            descriptor: Any but the connection's socket.
            mask: ``READ``, ``WRITE`` or both; 0 to watch it no longer.
            callback: Called with what it is ready for.
        """
        registered = descriptor in self._selector.get_map()
        if not mask:
            if registered:
                self._selector.unregister(descriptor)
        elif registered:
            key = self._selector.get_key(descriptor)
            if key.events != mask or key.data != callback:
                self._selector.modify(descriptor, mask, callback)
        else:
            self._selector.register(descriptor, mask, callback)

    def call(self, function: Callable[[], None]) -> bool:
        """Have ``function`` called from within :meth:`step`, which stops waiting. From any thread or signal handler.

        Returns:
            False if the driver is closed: it will not be called.
        """
        if self._closed:
            return False
        self._calls.append(function)
        with contextlib.suppress(OSError):  # full: it will wake up anyway
            self._waker.send(b"\0")
        return not self._closed

    def step(self, timeout: float | None = None) -> None:
        """Pump, wait for the socket, a descriptor, a call or the deadline, and deal with what came.

        Args:
            timeout: Seconds to wait at most.
        """
        before = self.finished
        self.pump()
        if self.finished and not before:
            return  # there may be nothing left to wait for
        deadline = self.conn.next_deadline()
        if deadline is not None:
            left = max(0.0, deadline - time.monotonic())
            timeout = left if timeout is None else min(timeout, left)
        reading = self.conn.want_read and not self._eof
        self.watch(self._sock.fileno(), (READ if reading else 0) | (WRITE if self._unsent else 0), self._transfer)
        ready = self._selector.select(timeout)
        now = time.monotonic()
        if deadline is not None and deadline <= now:
            self.conn.handle_timeout(now)
            if self.conn.should_close:
                self._unsent = memoryview(b"")  # as the connection does with what it has not handed out yet
        # The socket first: whoever is called back then knows the newest state.
        ready.sort(key=lambda pair: pair[0].fd != self._sock.fileno())
        for key, mask in ready:
            current = self._selector.get_map().get(key.fd)
            if current is not None and current.data == key.data:  # else an earlier callback is done with it
                key.data(mask & current.events)
                self.pump()

    def pump(self) -> None:
        """Hand out all events and send what the socket takes."""
        while True:
            while (event := self.conn.next_event()) is not None:
                self.on_event(event)
            # As long as the socket has not taken all, what follows stays where the connection counts it.
            if not self._unsent:
                self._unsent = memoryview(self.conn.data_to_send())
            if not self._unsent or not self._write():
                return

    def _transfer(self, mask: int) -> None:
        if mask & WRITE:
            self._write()
        if mask & READ:
            self._read()

    def _read(self) -> None:
        try:
            count = self._sock.recv_into(self._input)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset by the peer, or unreachable
            count = 0
        now = time.monotonic()
        if count:
            self.conn.receive_data(self._input[:count], now)
        else:
            self._eof = True
            self.conn.receive_eof(now)

    def _write(self) -> bool:
        """Send what is there; False if the socket does not take all of it now."""
        while self._unsent and not self._mute:
            try:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self._mute = True  # what has come in before may still be worth reading; its end will follow
        self._unsent = memoryview(b"")
        return True

    def _woken(self, mask: int) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            self._alarm.recv(4096)
        while self._calls:
            self._calls.popleft()()

    def finish(self, description: str = "", linger: float = _LINGER) -> None:
        """End the connection, send what is left, and close.

        Args:
            description: Words for the peer, if it is this side that ends the connection.
            linger: Seconds to wait for the peer to close as well. Closing a socket with input unread takes away from
                the peer what it has not read yet (RFC 1122 section 4.2.2.13), the reason for the end included.
        """
        self.conn.disconnect(description)
        while not self.finished:
            self.step()
        deadline = time.monotonic() + linger
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            while not self._eof and (left := deadline - time.monotonic()) > 0:
                self._sock.settimeout(left)
                self._eof = not self._sock.recv_into(self._input)
        self.close()

    def close(self) -> None:
        """Close the socket, whatever state it is in."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._selector.close()
        for sock in (self._sock, self._waker, self._alarm):
            sock.close()
        while self._calls:  # who got True is called
            self._calls.popleft()()
