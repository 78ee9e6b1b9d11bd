"""Sockets under asyncio, watched by the loop itself: what carries a connection, and what listens.

asyncio's own transports and servers do as much, and more.  They take a task, two futures and three turns of the loop to
begin, one more to end, and three calls for whatever comes: for connections that live for a command or two, as much as
SSH itself.  They serve where a loop can't watch descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from sshproto_io.sockets import NO_DESCRIPTORS, no_delay

_PIECE = 256 * 1024  # bytes that are read at once
_PIECES = 64  # buffers that are written at once
_HIGH = 64 * 1024  # bytes that wait to be written: that is enough,
_LOW = 16 * 1024  # and here it is not any more
_PAUSE = 1.0  # seconds until the next attempt to accept, where there were no descriptors

_NOTHING_YET = (BlockingIOError, InterruptedError)


class SocketTransport(asyncio.Transport):
    """A connected socket: of what asyncio's transports do, what a :class:`~sshproto_io._asyncio_pump.Peer` asks for.

    Args:
        loop: What watches it.
        sock: It belongs to the transport from now on.
        protocol: Whom to tell what happens, first of the connection, and at once.
        peer: The address at its other end, if that is known.

    Raises:
        NotImplementedError: The loop can't watch descriptors.
    """

    # Of many connections most are idle: nothing is kept here that they do not need.
    __slots__ = (
        "_busy",
        "_closing",
        "_descriptor",
        "_full",
        "_half",
        "_loop",
        "_over",
        "_peer",
        "_protocol",
        "_reading",
        "_reason",
        "_size",
        "_sock",
        "_waiting",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.Protocol, peer: Any = None
    ) -> None:
        if sock.gettimeout() != 0:
            sock.setblocking(False)
        no_delay(sock)
        self._loop = loop
        self._sock = sock
        self._descriptor = sock.fileno()
        self._protocol = protocol
        self._peer = peer
        self._reading = False  # the loop watches it for something to read
        self._waiting: deque[memoryview] | None = None  # to be written
        self._size = 0  # of that
        self._full = False  # the protocol was told that it is enough
        self._half = False  # nothing more will be written
        self._busy = False  # the protocol is told of something; of the end, if that follows, it is told right after
        self._closing = False
        self._reason: BaseException | None = None
        self._over = False
        self._watch(True)
        self._tell(protocol.connection_made, self)

    def __repr__(self) -> str:
        return f"<SocketTransport {'closed' if self._over else self._descriptor}>"

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return self._sock
        if name == "peername":
            return self._peer
        if name == "sockname":
            try:
                return self._sock.getsockname()
            except OSError:  # it is closed
                pass
        return default

    def _tell(self, happened: Callable[..., object], *what: Any) -> None:
        """Tell the protocol, and of the end after that."""
        busy, self._busy = self._busy, True
        try:
            happened(*what)
        except BaseException as error:  # noqa: BLE001  it is nobody else's
            self._fail(error)
        finally:
            self._busy = busy
        if self._closing and not busy:
            self._end()

    def _fail(self, error: BaseException) -> None:
        """The protocol has failed, which ends the connection."""
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error
        context = {
            "message": "a protocol has failed",
            "exception": error,
            "transport": self,
            "protocol": self._protocol,
        }
        self._loop.call_exception_handler(context)
        self._break(error)

    # ---------------------------------------------------------------------------------------------------------- reading

    def _watch(self, reading: bool) -> None:
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self._loop.add_reader(self._descriptor, self._readable)
            else:
                self._loop.remove_reader(self._descriptor)

    def _readable(self) -> bool:
        try:
            data = self._sock.recv(_PIECE)
        except _NOTHING_YET:
            return False
        except OSError as error:
            self._break(error)
            return True
        busy, self._busy = self._busy, True  # as in _tell, without a call: each message comes here
        try:
            if data:
                self._protocol.data_received(data)
            elif self._protocol.eof_received():
                self._watch(False)  # nothing more comes, but more may be sent
            else:
                self.close()
        except BaseException as error:  # noqa: BLE001  it is nobody else's
            self._fail(error)
        finally:
            self._busy = busy
        if self._closing and not busy:
            self._end()
        return True

    def look(self) -> bool:
        """Hand on what has come before the loop has looked; False if nothing has."""
        return self._readable()

    def at_end(self) -> bool:
        """Whether nothing waits to be written, and the peer says nothing more. What it has said is thrown away."""
        try:
            return not self._waiting and not self._sock.recv(_PIECE)
        except _NOTHING_YET:
            return False
        except OSError:
            return True

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._watch(False)

    def resume_reading(self) -> None:
        self._watch(not self._closing)

    # ---------------------------------------------------------------------------------------------------------- writing

    def write(self, data: Any) -> None:
        if self._closing:
            return
        sent = 0
        if not self._waiting:
            try:
                sent = self._sock.send(data)
            except _NOTHING_YET:
                pass
            except OSError as error:
                self._break(error)
                return
            if sent == len(data):
                return
            self._loop.add_writer(self._descriptor, self._writable)
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(memoryview(data)[sent:])
        self._size += len(data) - sent
        if self._size > _HIGH and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def _writable(self) -> None:
        waiting = self._waiting
        if waiting is None:
            return
        try:
            sent = self._sock.sendmsg(itertools.islice(waiting, _PIECES))
        except _NOTHING_YET:
            return
        except OSError as error:
            self._break(error)
            return
        self._size -= sent
        while waiting and sent >= len(waiting[0]):
            sent -= len(waiting.popleft())
        if sent:
            waiting[0] = waiting[0][sent:]
        if not waiting:
            self._waiting = None
            self._loop.remove_writer(self._descriptor)
            if self._half and not self._closing:
                self._shut()
        if self._full and self._size <= _LOW:
            self._full = False
            self._tell(self._protocol.resume_writing)
        if self._closing:
            self._end()

    def get_write_buffer_size(self) -> int:
        return self._size

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._half and not self._closing:
            self._half = True
            if not self._waiting:
                self._shut()

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # the peer has reset the connection
            self._break(error)

    # ---------------------------------------------------------------------------------------------------------- the end

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Write what waits, and end."""
        if not self._closing:
            self._closing = True
            self._watch(False)
            self._end_soon()

    def abort(self) -> None:
        """End at once."""
        self._break(None)

    def _break(self, reason: BaseException | None) -> None:
        if self._waiting:
            self._waiting = None
            self._size = 0
            self._loop.remove_writer(self._descriptor)
        if self._reason is None:
            self._reason = reason
        self._closing = True
        self._watch(False)
        self._end_soon()

    def _end_soon(self) -> None:
        """Not before who has asked for it has gone on."""
        if not self._busy and not self._waiting:
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        if self._over or self._waiting:
            return
        self._over = True
        try:
            self._protocol.connection_lost(self._reason)  # type: ignore[arg-type]
        finally:
            self._sock.close()


class Listener:
    """Sockets that listen.

    Args:
        loop: What watches them.
        socks: They are bound, and belong to the listener from now on.
        backlog: Connections that may wait to be accepted.
        came: Called with the socket of a connection that has come, which is its own from now on, and its address.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socks: Iterable[socket.socket],
        backlog: int,
        came: Callable[[socket.socket, Any], object],
    ) -> None:
        self._loop = loop
        self._socks = list(socks)
        self._backlog = backlog
        self._came = came
        self._closed = False
        self._forever: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            NotImplementedError: The loop can't watch descriptors.
            OSError: They can't.
        """
        for sock in self._socks:
            sock.setblocking(False)
            sock.listen(self._backlog)
            self._watch(sock)

    def _watch(self, sock: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(sock, self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(max(1, self._backlog)):  # who comes in the meantime waits for the next turn
            if self._closed:
                return
            try:
                connection, address = sock.accept()
            except (*_NOTHING_YET, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in NO_DESCRIPTORS:
                    raise
                message = "socket.accept() out of system resource"
                self._loop.call_exception_handler({"message": message, "exception": error, "socket": sock})
                self._loop.remove_reader(sock)
                self._loop.call_later(_PAUSE, self._watch, sock)
                return
            try:
                self._came(connection, address)
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        socks, self._socks = self._socks, []
        for sock in socks:
            with contextlib.suppress(NotImplementedError):  # it was closed for just that
                self._loop.remove_reader(sock)
            sock.close()
        if self._forever is not None:
            self._forever.cancel()

    async def serve_forever(self) -> None:
        """Listen until cancelled, or closed; which is the same to who waits, as with asyncio's own servers."""
        if self._closed or self._forever is not None:
            raise RuntimeError("it is closed, or served already")
        self._forever = self._loop.create_future()
        try:
            await self._forever
        finally:
            self._forever = None
            self.close()
