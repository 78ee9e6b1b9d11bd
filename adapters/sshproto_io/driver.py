"""What moves the bytes of one connection over a socket, for all threads that use it.

A :class:`Driver` follows the pump rule of :mod:`sshproto.connection` and knows nothing else about the protocol.  It has
no thread of its own: threads run operations (:mod:`~sshproto_io.runner`), and of those that have to wait, one is the
*leader*, which waits for the socket and deals for all with what comes: it takes the steps of all operations that can go
on.  The others, the *followers*, sleep until their operation has ended, or the leader leaves and passes the lead on.
So while nobody waits, nothing happens: input stays in the system's buffers, and no question whether the peer is still
there is asked or answered.  Who wants that done starts a thread that always waits, by :meth:`Driver.start_thread`.

One lock guards the connection, the hub and every operation.  It is held for computing only, never while anybody waits:
the socket never blocks, and what it does not take is left to the leader, who waits for reading and for writing.  A
signal handler may have interrupted who holds it: there, nothing of a connection may be used; raise an exception.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from sshproto.connection import Connection
from sshproto.errors import UsageError
from sshproto.operations.hub import Hub
from sshproto.operations.steps import Operation, Sleep, Wait
from sshproto_io import LINGER
from sshproto_io.lot import Place, lot
from sshproto_io.poller import READ, WRITE, Found, Poller
from sshproto_io.runner import Runner
from sshproto_io.sockets import no_delay

if TYPE_CHECKING:
    from sshproto.wire.codec import Buffer
    from sshproto_io.runner import Task

_RECEIVE = 256 * 1024
_PATIENCE = 0.02  # seconds without input after which a server's connection has no thread any more; what it begins with
_LONG = 1.0  # the same at most, for one that never has long to wait
_MORE = getattr(socket, "MSG_MORE", 0)  # the system keeps it until there is more, or for 0.2 seconds (Linux)
_JOIN = 5.0  # seconds for the thread to end; it has nothing left to wait for

C = TypeVar("C", bound=Connection[Any])
T = TypeVar("T")


class Driver(Generic[C]):
    """A socket, a connection, and the threads that use it.

    Args:
        sock: A connected stream socket; it belongs to the driver from now on.
        hub: The connection's.

    Attributes:
        hub, conn: The connection; to be used under the lock only, see :meth:`apply`.
        lock: Held by who uses the connection; they see to :attr:`holder`, too.
        holder: The thread that has the lock, or 0.
        due: Operations that can go on.
        deadline: When the leader is to wake up.
    """

    def __init__(self, sock: socket.socket, hub: Hub[C]) -> None:
        sock.setblocking(False)
        no_delay(sock)
        self.hub = hub
        self.conn = hub.conn
        self.lock = threading.Lock()
        self.holder = 0
        self.due: deque[Task] = deque()
        self.deadline: float | None = None
        self._full = hub.limits.output_high
        self._sock = sock
        self._descriptor = sock.fileno()
        self._unsent: Buffer = b""
        self._eof = False
        self._mute = False  # the socket takes nothing any more
        self._patience = _PATIENCE
        self._parting = False
        self._closed = False
        self._abandoned = False
        self._flushed = Wait()  # fires when it is finished
        self._left = Wait()  # fires when the peer has closed
        self._leader: Runner | None = None
        self._watched = 0
        self._followers: dict[Runner, None] = {}
        self._service: Runner | None = None
        self._thread: threading.Thread | None = None
        self._pollers: list[Poller] = []

    @property
    def closed(self) -> bool:
        """Whether the socket is closed."""
        return self._closed

    @property
    def finished(self) -> bool:
        """Whether the connection has ended and all that was to be sent is sent, or never will be."""
        return self.conn.should_close and not self._unsent and not self.conn.output_size

    # ---------------------------------------------------------------------------------------------------- for everybody

    def perform(
        self,
        operation: Operation[T],
        timeout: float | None = None,
        what: str = "the operation",
        *,
        inline: bool | None = None,
        unhurried: bool = False,
    ) -> T:
        """Run an operation in this thread; the arguments are those of :meth:`Runner.run`.

        Raises:
            TimeoutExpired: The time was over before it ended.
            UsageError: This thread is inside of an operation or of ``on_event``, which must not wait.
            BaseException: What the operation raises.
        """
        self._enter()
        return Runner(self).run(operation, timeout, what, inline=inline, unhurried=unhurried)

    def apply(self, function: Callable[[], T]) -> T:
        """Call a function that gives the connection commands, and send what they bring.

        Raises:
            UsageError: See :meth:`perform`.
            BaseException: What it raises.
        """
        self._enter()
        with self.lock:
            self.holder = threading.get_ident()
            try:
                try:
                    return function()
                finally:
                    self.settle()
            finally:
                self.holder = 0

    def serve(self, operation: Operation[Any], resume: Callable[[], object]) -> bool:
        """Run an operation in this thread, and with it all that is spawned, until it ends, or nothing happens for a
        while.

        Args:
            operation: What to run.
            resume: Called in another thread when something has happened. It is to call :meth:`serve_on`.

        Returns:
            Whether it has ended. If not, this thread is not needed any more.

        Raises:
            BaseException: What the operation raises.
        """
        with self.lock:
            runner = self._service = Runner(self)
        return runner.attend(operation, resume)

    def serve_on(self) -> bool:
        """Go on where the thread of :meth:`serve` has left; see there."""
        return self._service is None or self._service.go_on()

    @property
    def served_here(self) -> bool:
        """Whether this is the thread of :meth:`serve` at the moment, and no other can be."""
        return self._service is not None and self._service.needs_me()

    def start_thread(self) -> None:
        """Have a thread that deals with what comes while nobody waits. Repeated calls do nothing."""

        def start() -> None:
            if self.hub.lost is None:
                self._serviced()

        self.apply(start)

    def close(self, description: str = "") -> None:
        """Disconnect, send what is left, and close. Everybody who still waits gets an error. Repeated calls do nothing.

        This takes at most ``Timeouts.linger`` while the peer does not read, and then half a second while it does not
        close.

        Args:
            description: Words for the peer.

        Raises:
            UsageError: They are too long.
        """
        self._enter()
        with self.lock:
            self.holder = threading.get_ident()
            try:
                if self._parting:
                    return
                there = self._begin_to_part(description)
            finally:
                self.holder = 0
        try:
            if there:  # else nobody is, who would have to be waited for
                with contextlib.suppress(OSError):  # there are no descriptors left to wait with
                    Runner(self).run(self._part())
        finally:
            self.abort()
            thread = self._thread
            if thread is not None and thread is not threading.current_thread():
                thread.join(_JOIN)

    def abort(self) -> None:
        """Close the socket, whatever state it is in. Everybody who still waits gets an error."""
        self.apply(self._abort)

    def abandon(self) -> None:
        """Nobody will use it any more. For finalizers: it never waits, and may be called whoever holds the lock."""
        self._abandoned = True
        if self._thread is None or not self._thread.is_alive():  # it ends with the connection
            self._shut()
        else:  # the thread sees that and ends
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    # ------------------------------------------------------------------------------------- for runners, under the lock

    def drain(self) -> None:
        """Hand out the events."""
        try:
            self.hub.drain()
        except BaseException:
            self._break()
            raise

    def settle(self, brief: Sequence[object] = ()) -> None:
        """Hand out all events, let every operation go on that can, send what the socket takes, and see that the leader
        knows what to wait for. To be done before the lock is given back.

        Args:
            brief: If there is anything in it then, the caller will come back at once, with more to send.
        """
        conn, due, drain = self.conn, self.due, self.hub.drain
        while True:
            try:
                drain()
            except BaseException:
                self._break()
                raise
            if due:  # what one operation did the next one knows
                task = due.popleft()
                if not task.ended:
                    task.runner.advance(task)
                continue
            if brief:
                return
            # As long as the socket has not taken all, what follows stays where the connection counts it.
            full = bool(self._unsent)
            if not full and (conn.output_size or conn.should_close):  # who records waits for the last call
                self._unsent = self.hub.wire.data_to_send()
                full = len(self._unsent) >= self._full
            if self._unsent and self._write() and full:  # that has made room
                continue
            if not self._parting or not self._flushed.wanted or not self.finished:
                break
            self._flushed.fire()
        leader = self._leader
        if leader is not None and leader.asleep:
            deadline = self.hub.wire.next_deadline()
            sooner = deadline is not None and (self.deadline is None or deadline < self.deadline)
            if sooner or self._wanted() & ~self._watched:
                leader.rouse()

    def struck(self, thread: int, task: Task) -> None:
        """Ctrl-C has hit an operation that ``thread`` waits for.

        Raises:
            KeyboardInterrupt: It was meant for another, who took the step. What it interrupted is lost.
        """
        error = task.error
        if error is None or thread == self.holder or threading.current_thread() is not threading.main_thread():
            return
        self._break()
        task.error = self.hub.lost
        raise error

    def spawn(self, operation: Operation[Any]) -> Callable[[], None]:
        """Run an operation beside everything else until it, or the connection, ends.

        It runs in the thread that :meth:`serve` was called in, or else in the one that :meth:`start_thread` starts.

        Returns:
            A function that cancels it, under the lock.

        Raises:
            RuntimeError: No thread can be started.
        """
        return self._serviced().spawn(operation)

    def appoint(self, runner: Runner) -> bool:
        """Whether ``runner``, which is about to sleep, is to lead."""
        leader = self._leader
        if leader is not None and leader is not runner and runner.resume is not None and not self._closed:
            leader.rouse()  # to follow: the others have no thread to wait for, and can leave it to the lot
        elif self._closed or leader not in (None, runner):
            self._followers[runner] = None
            if runner.poller is not None:
                runner.poller.choose(self._descriptor, 0)
            return False
        watched = self._wanted()
        if leader is not runner or watched != self._watched or runner.poller is None:  # the lot has watched meanwhile
            runner.need_poller().choose(self._descriptor, watched)
            self._leader = runner
            self._watched = watched
        self.deadline = self.hub.wire.next_deadline()
        return True

    def woken(self, runner: Runner, found: Found) -> None:
        """``runner`` does not sleep any more, and has found something. If it leads, it goes on to."""
        if self._leader is not runner:
            self._followers.pop(runner, None)
            return
        if self._closed:
            self._leader = None
            return
        now, mine = time.monotonic(), self._descriptor
        try:
            for descriptor, mask in found:
                if descriptor == mine and mask & READ:
                    self._read(now)
            if self.deadline is not None and self.deadline <= now:
                self._take_time(now)
        except BaseException:
            self._break()
            raise

    def dismiss(self, runner: Runner) -> None:
        """``runner`` does not wait here any more."""
        self._followers.pop(runner, None)
        if self._leader is runner:
            self._leader = None

    @property
    def patience(self) -> float | None:
        """How long a leader is to sleep itself, for which the lot can wait; None if it can't."""
        return self._patience if self._watched == READ else None

    def park(self, resume: Callable[[], object]) -> Place | None:
        """Have the lot watch the socket in the place of the leader, if it can."""
        place = Place(self._descriptor, self.deadline, resume)
        try:
            lot.park(place)
        except (OSError, RuntimeError):
            return None
        return place

    def unparked(self, place: Place) -> None:
        """The leader is back. Who comes back soon stays longer the next time."""
        self._watched = 0  # by nobody at the moment
        soon = time.monotonic() - place.since < _LONG
        self._patience = min(_LONG, 2 * self._patience) if soon else _PATIENCE

    def hand_over(self) -> None:
        """Have somebody lead, if there is anybody who sleeps."""
        if self._leader is None and self._followers:
            service = self._service
            (service if service in self._followers else next(iter(self._followers))).rouse()

    def lend_poller(self) -> Poller:
        """A poller that nobody uses."""
        return self._pollers.pop() if self._pollers else Poller()

    def take_back(self, poller: Poller) -> None:
        """Nobody uses it any more."""
        if self._closed:
            poller.close()
        else:
            self._pollers.append(poller)

    # --------------------------------------------------------------------------------------------------------- internal

    def _enter(self) -> None:
        if self.holder == threading.get_ident():
            raise UsageError("operations, and functions that are told of events, can't wait for a connection's lock")

    def _serviced(self) -> Runner:
        """The runner of what is spawned."""
        runner = self._service
        if runner is None:
            runner = Runner(self)
            thread = threading.Thread(target=self._run_service, args=(runner,), name="ssh connection", daemon=True)
            thread.start()
            self._service, self._thread = runner, thread
        return runner

    def _run_service(self, runner: Runner) -> None:
        runner.run(self.hub.until_ended())
        if self._abandoned:
            self.abort()

    def _wanted(self) -> int:
        """What to wait for at the socket."""
        reading = not self._eof and (self._parting or self.hub.wire.want_read)
        return (READ if reading else 0) | (WRITE if self._unsent else 0)

    def _take_time(self, now: float) -> None:
        """See what has become of a deadline that is over."""
        self.drain()  # what was in time is not late
        deadline = self.hub.wire.next_deadline()
        if deadline is not None and deadline <= now:
            if self.conn.should_close:
                self._unsent = b""  # as the connection does with what it has not handed out yet
            self.conn.handle_timeout(now)

    def _read(self, now: float) -> None:
        try:
            data = self._sock.recv(_RECEIVE)  # bytes, which the connection does not copy
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset by the peer, or unreachable
            data = b""
        if data:
            self.hub.wire.receive_data(data, now)
        else:
            self._eof = True
            self.conn.receive_eof(now)
            self._left.fire()

    def _write(self) -> bool:
        """Send what is there; False if the socket does not take all of it now."""
        leader = self._leader
        alone = leader is not None and leader.parting and not self._followers and self._service is None
        flags = _MORE if alone or self._parting else 0  # who parts has the end of all follow
        while self._unsent and not self._mute:
            try:
                sent = self._sock.send(self._unsent, flags)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self._mute = True  # what has come in before may still be worth reading; its end will follow
            else:
                if sent == len(self._unsent):
                    break
                self._unsent = memoryview(self._unsent)[sent:]
        self._unsent = b""
        return True

    def _begin_to_part(self, description: str) -> bool:
        """Say that this is the end. Whether the peer may still be there, and has to be waited for."""
        gone = self.conn.should_close
        self.conn.disconnect(description)
        self._parting = True
        self.settle()
        if gone and self.finished and not self._eof:
            self._read(time.monotonic())  # who was the first to go has closed by now, mostly
        return not (self._eof and self.finished)

    def _abort(self) -> None:
        if self._closed:
            return
        self._closed = self._parting = self._mute = True
        try:
            self.conn.disconnect()
            self.drain()
        finally:
            self._flushed.fire()
            self._left.fire()
            if self._leader is not None:
                self._leader.rouse()
            self._shut()

    def _part(self) -> Operation[None]:
        """Have the last bytes leave, and give the peer a moment to read them."""
        while not self.finished and not self._closed:
            yield self._flushed
        deadline = time.monotonic() + LINGER
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            while not self._eof and not self._closed and (left := deadline - time.monotonic()) > 0:
                yield Sleep(left, self._left)

    def _break(self) -> None:
        """Something came between, Ctrl-C or a bug, and nobody knows what was lost: nothing may go on."""
        self._mute = True
        with contextlib.suppress(Exception):
            self.conn.disconnect()
            self.hub.drain()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _shut(self) -> None:
        self._sock.close()
        while self._pollers:
            self._pollers.pop().close()


class Connected(Generic[C]):
    """A connection of either side."""

    def __init__(self, sock: socket.socket, hub: Hub[C]) -> None:
        self.hub = hub
        self.conn = hub.conn
        self.driver = Driver(sock, hub)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {'closed' if self.driver.closed else repr(self.conn)}>"

    def perform(
        self,
        operation: Operation[T],
        timeout: float | None = None,
        what: str = "the operation",
        *,
        unhurried: bool = False,
    ) -> T:
        """Run an operation of your own on this connection.

        Args:
            operation: See :mod:`sshproto.operations`.
            timeout: Seconds after which it is cancelled. With one, functions that it calls run in threads of their own.
            what: What it is, for the error.
            unhurried: What it sends as it ends may leave a moment later, with what is sent next.

        Raises:
            TimeoutExpired: It took too long.
            BaseException: What the operation raises.
        """
        return self.driver.perform(operation, timeout, what, unhurried=unhurried)

    def apply(self, function: Callable[[], T]) -> T:
        """Call a function that uses :attr:`conn` or :attr:`hub`, while no other thread does, and send what it queued.

        Raises:
            BaseException: What it raises.
        """
        return self.driver.apply(function)

    def close(self, description: str = "") -> None:
        """Disconnect and close; see :meth:`Driver.close`.

        Args:
            description: Words for the peer.
        """
        self.driver.close(description)

    def abort(self) -> None:
        """Close the connection at once, without a word."""
        self.driver.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
