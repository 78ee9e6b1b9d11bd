"""A channel as operations see it (RFC 4254 section 5)."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sshproto.channels.requests import EndOfWrite, ExitSignal, ExitStatus, WindowChange
from sshproto.errors import ChannelEnded, LimitReached, OpenRefused, RequestRefused
from sshproto.operations.steps import Operation, Wait
from sshproto.streams import Inbox

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelOpenData, ChannelRequestData
    from sshproto.connection import Connection
    from sshproto.events import ChannelRequested, GlobalRequested
    from sshproto.operations.hub import Hub
    from sshproto.wire.codec import Buffer

LINE_LIMIT = 64 * 1024
"""Bytes that a line may have if nothing else is said."""

_NOTICES_KEPT = 64
_READ = 256 * 1024
UNASKED = 1024 * 1024
"""Bytes of requests that want no reply, waiting for who answers them; the core bounds the others."""
_LEAST = 64  # what any request counts for


class _Credit:
    """Gives the peer room. It does not know its channel, which knows it: what knows each other is longer in memory."""

    __slots__ = ("_conn", "_number")

    def __init__(self, conn: Connection[Any], number: int) -> None:
        self._conn = conn
        self._number = number

    def __call__(self, count: int) -> None:
        self._conn.credit(self._number, count)


class Writers:
    """Those who write on a channel, from when not all of it could be sent at once.

    Attributes:
        queue: Who writes, and behind it who waits to.
        turn: Fires when one of them is done.
        room: What the first waits for: that there is room, or never will be; one channel after the other.
        called: That has fired, and who writes has not had its turn yet.
        missed: It had, but found no room.
    """

    __slots__ = ("called", "missed", "queue", "room", "turn")

    def __init__(self) -> None:
        self.queue: list[object] = []
        self.turn = Wait()
        self.room = Wait()
        self.called = False
        self.missed = False


class Channel:
    """One channel.

    Operations of one kind on one stream take turns: what one of them writes is in one piece, and two that read get
    different bytes.  Cancelling one that reads loses nothing; cancelling one that writes leaves it open how much of it
    was sent.

    Attributes:
        number: Its number in the connection.
        kind: What it is for.
        data, errors: What has come, of data and of standard error; None while nothing has and nobody reads.
        opened: The peer has confirmed it, or we have.
        closed: Nothing more can come or be sent: by both sides' CLOSE, or by ours, or with the connection.
        lost: The connection has ended, and this channel with it: what came may be cut off.
        exit_status, exit_signal: How the program ended, once the peer has said so.
        peer_reads: False when the peer has said that it reads no more data (eow@openssh.com). Standard error it may
            still read.
        eof_sent, eof_received: Which directions have been ended by EOF.
        writers: Who writes, once there was not room for all at once.
        on_end: Called when the channel has ended, unless by :meth:`close`; never from within an operation.
        breaks: The peer's ``Break`` requests are granted and passed on as notices.
        serving: The peer's requests wait for :meth:`next_request`; otherwise they are refused.
    """

    # There may be many of them that nobody uses at the moment: what is seldom needed is made when it is. And many that
    # live for one command, on which not a byte may come: what its end has to touch is only what there is.
    __slots__ = (
        "_changed",
        "_gathering",
        "_notices",
        "_refusal",
        "_replies",
        "_requests",
        "_unasked",
        "_unwanted",
        "_writable",
        "breaks",
        "closed",
        "data",
        "eof_received",
        "eof_sent",
        "errors",
        "exit_signal",
        "exit_status",
        "hub",
        "kind",
        "lost",
        "number",
        "on_end",
        "opened",
        "peer_reads",
        "serving",
        "writers",
    )

    def __init__(self, hub: Hub[Any], number: int, kind: ChannelOpenData) -> None:
        self.hub = hub
        self.number = number
        self.kind = kind
        self.data: Inbox | None = None
        self.errors: Inbox | None = None
        self._gathering = False
        self._unwanted = False
        self.opened = False
        self.closed = False
        self.lost = False
        self.exit_status: int | None = None
        self.exit_signal: ExitSignal | None = None
        self.peer_reads = True
        self.serving = False
        self.breaks = False
        self.on_end: Callable[[], object] | None = None
        self.eof_sent = False
        self.eof_received = False
        self._writable: Wait | None = None
        self.writers: Writers | None = None
        self._changed: Wait | None = None
        self._refusal: OpenRefused | None = None
        self._replies: dict[int, bool | None] | None = None
        self._requests: deque[ChannelRequested] | None = None
        self._unasked = 0
        self._notices: deque[ChannelRequestData] | None = None

    def __repr__(self) -> str:
        return f"<Channel {self.number}, {self.kind.type}{', closed' if self.closed else ''}>"

    # ------------------------------------------------------------------------------------------ made when they are used

    def inbox(self, stream: int) -> Inbox:
        """What has come on a stream: 0 is data, 1 is standard error."""
        found = self.errors if stream else self.data
        return self._make_inbox(stream) if found is None else found

    def _make_inbox(self, stream: int) -> Inbox:
        inbox = Inbox(_Credit(self.hub.conn, self.number))
        inbox.ended = self.input_ended
        if self._unwanted:
            inbox.discard()
        elif self._gathering:
            inbox.gather()
        if stream:
            self.errors = inbox
        else:
            self.data = inbox
        return inbox

    @property
    def writable(self) -> Wait:
        """Fires when there is room to send, or never will be."""
        if self._writable is None:
            self._writable = Wait()
        return self._writable

    @property
    def changed(self) -> Wait:
        """Fires when any of the attributes has changed, or what the peer asks, tells and answers."""
        if self._changed is None:
            self._changed = Wait()
        return self._changed

    @property
    def input_ended(self) -> bool:
        """Nothing more will come, and nothing that came was cut off."""
        return self.eof_received or (self.closed and not self.lost)

    @property
    def exited(self) -> bool:
        """The peer has said how the program ended."""
        return self.exit_status is not None or self.exit_signal is not None

    def check(self) -> None:
        """See that it is open, or may yet be.

        Raises:
            OpenRefused: The peer does not want it.
            ChannelEnded: It is closed.
            ConnectionLoss: The connection has ended.
        """
        if not self.closed:
            return
        if self._refusal is not None:
            raise copy.copy(self._refusal)  # each raise leaves its traceback in the exception
        if self.lost:
            self.hub.check()
        raise ChannelEnded(f"channel {self.number} is closed")

    # ------------------------------------------------------------------------------------------------------- operations

    def read(self, limit: int = _READ, stream: int = 0) -> Operation[bytes]:
        """At least one byte and at most ``limit``; ``b""`` at the end.

        Raises:
            ConnectionLoss: The connection has ended before the stream did.
        """
        inbox = self.inbox(stream)
        while not inbox.size:
            if self._at_end(inbox) or limit <= 0:
                return b""
            yield inbox.arrived
        return inbox.take(limit)

    def read_all(self, stream: int = 0) -> Operation[bytes]:
        """Everything up to the end, without bound.

        Raises:
            ConnectionLoss: The connection has ended before the stream did.
        """
        inbox = self.inbox(stream)
        try:
            while True:
                gathered = inbox.gather()
                if self._at_end(inbox):
                    break
                yield inbox.arrived
            data = bytes(gathered)
            gathered.clear()
            return data
        finally:
            inbox.release()

    def read_exactly(self, count: int, stream: int = 0) -> Operation[bytes]:
        """``count`` bytes; fewer only at the end.

        Raises:
            ConnectionLoss: The connection has ended before the stream did.
        """
        inbox = self.inbox(stream)
        while inbox.size < count:
            if self._at_end(inbox):
                break
            inbox.expect(count)
            yield inbox.arrived
        return inbox.take(count)

    def read_until(self, separator: bytes, limit: int = LINE_LIMIT, stream: int = 0) -> Operation[bytes]:
        """Everything up to the next ``separator``, and that; at the end whatever is left, maybe ``b""``.

        Args:
            separator: At least one byte.
            limit: Most bytes to wait for.
            stream: Which.

        Raises:
            LimitReached: It is not among the first ``limit`` bytes, which can still be read.
            ConnectionLoss: The connection has ended before the stream did.
        """
        inbox = self.inbox(stream)
        searched = 0
        while True:
            end = inbox.find(separator, limit, searched)
            if end:
                return inbox.take(end)
            if self._at_end(inbox):
                return inbox.take(inbox.size)
            searched, passed = inbox.size, inbox.passed
            inbox.expect(limit)
            yield inbox.arrived
            searched = max(0, searched - (inbox.passed - passed))  # somebody else may have read meanwhile

    def read_line(self, limit: int = LINE_LIMIT, stream: int = 0) -> Operation[bytes]:
        """A line with its LF; see :meth:`read_until`."""
        return self.read_until(b"\n", limit, stream)

    def write(self, data: Buffer, stream: int = 0) -> Operation[None]:
        """Send all of ``data``, as fast as the peer takes it.

        Args:
            data: Any number of bytes; not to be changed until this has ended.
            stream: 0, or 1 for standard error, which only a server's session has.

        Raises:
            ChannelEnded: The channel is closed, or the peer has said that it reads no more of stream 0.
            ChannelStateError: EOF was sent.
            ConnectionLoss: The connection has ended.
        """
        writers = self.writers
        if writers is None or not writers.queue:
            rest = self._send_some(data, stream)
            if rest is None:
                return
            data = rest
        if writers is None:
            writers = self.writers = Writers()
        ticket, queue = object(), writers.queue
        queue.append(ticket)  # in order: who writes without pause would keep the others out
        try:
            while queue[0] is not ticket:
                yield writers.turn
            while (rest := self._send_some(data, stream)) is not None:
                writers.missed = writers.called and len(rest) == len(data)
                data = rest
                self._had_turn(writers)
                yield writers.room
        finally:
            self._had_turn(writers)
            queue.remove(ticket)
            writers.turn.fire()

    def _had_turn(self, writers: Writers) -> None:
        """If the hub has called the one who writes, let it call the next."""
        if writers.called:
            writers.called = False
            self.hub.had_turn()

    def send_eof(self) -> Operation[None]:
        """Send no more data; what is being written is sent first. Nothing happens if EOF was sent or nobody listens.

        Raises:
            ConnectionLoss: The connection has ended.
        """
        while self.writers is not None and self.writers.queue:
            yield self.writers.turn
        if self.eof_sent:
            return
        if self.closed:
            if self.lost:
                self.hub.check()
            return
        self.eof_sent = True
        conn = self.hub.conn
        try:
            try:
                conn.send_eof(self.number)
            except LimitReached:
                yield from self.hub.command(lambda: None if self.closed else conn.send_eof(self.number))
        except BaseException:
            self.eof_sent = False
            raise

    def request(self, request: ChannelRequestData) -> Operation[bool]:
        """Ask something and wait for the reply: whether it was granted.

        Raises:
            ChannelEnded: The channel is closed.
            ConnectionLoss: The connection has ended.
            UsageError: It cannot be asked.
        """
        try:
            number = self._send_request(request, want_reply=True)
        except LimitReached:
            number = yield from self.hub.command(lambda: self._send_request(request, want_reply=True))
        replies = self._replies = self._replies or {}
        replies[number] = None
        try:
            while (granted := replies[number]) is None:
                self.check()
                yield self.changed
        finally:
            del replies[number]
            if not replies:
                self._replies = None
        return granted

    def require(self, request: ChannelRequestData) -> Operation[None]:
        """Ask something that must be granted.

        Raises:
            RequestRefused: It is not.
            ChannelEnded, ConnectionLoss, UsageError: See :meth:`request`.
        """
        if not (yield from self.request(request)):
            raise RequestRefused(f"the peer refused the request {request.type!r}")

    def notify(self, request: ChannelRequestData) -> Operation[None]:
        """Tell something that needs no reply.

        Raises:
            ChannelEnded: The channel is closed.
            ConnectionLoss: The connection has ended.
            UsageError: It cannot be told.
        """
        try:
            self._send_request(request, want_reply=False)
        except LimitReached:
            yield from self.hub.command(lambda: self._send_request(request, want_reply=False))

    def next_request(self) -> Operation[ChannelRequested | None]:
        """The peer's next request, to be granted or refused; None when the channel has ended, or its serving has."""
        while self.serving and not self._requests:
            if self.closed:
                return None
            yield self.changed
        if not self.serving or not self._requests:
            return None
        question = self._requests.popleft()
        if not question.want_reply:
            self._unasked -= unasked(question)
        return question

    def stop_serving(self) -> None:
        """Refuse what the peer asks from now on."""
        self.serving = False
        requests, self._requests = self._requests, None
        for question in requests or ():
            self.hub.refuse(question)
        self._unasked = 0
        changed, self._changed = self._changed, None  # while the program runs, it may be that nobody waits for that
        if changed is not None:
            changed.fire()

    def next_notice(self) -> Operation[ChannelRequestData | None]:
        """The next thing that the peer tells: a signal, a new size of its terminal; None when the channel has ended.

        Of those that nobody asked for, the newest are kept; of sizes, only the last.
        """
        while not self._notices:
            if self.closed:
                return None
            yield self.changed
        return self._notices.popleft()

    def until_exit(self) -> Operation[None]:
        """Wait until the peer has said how the program ended, or has closed the channel.

        Raises:
            ConnectionLoss: The connection has ended before.
        """
        while not (self.exited or self.closed):
            yield self.changed
        if self.lost and not self.exited:
            self.hub.check()

    def until_closed(self) -> Operation[None]:
        """Wait until the channel is closed."""
        while not self.closed:
            yield self.changed

    def close(self) -> None:
        """Close it at once, both directions. What has come and was not read is thrown away."""
        self.on_end = None  # it is not the peer that ends it
        if not self.closed:
            self.hub.close_channel(self.number)
            self.ended()
        self._unwanted = True
        if self.data is not None:
            self.data.discard()
        if self.errors is not None:
            self.errors.discard()

    def gather(self) -> None:
        """Take everything that comes, now and in future, without bound; see :meth:`gathered`."""
        self._gathering = True
        if self.data is not None:
            self.data.gather()
        if self.errors is not None:
            self.errors.gather()

    def gathered(self, stream: int = 0) -> bytes:
        """What was gathered."""
        inbox = self.errors if stream else self.data
        return b"" if inbox is None else bytes(inbox.gather())

    def fire(self) -> None:
        """Wake who waits for a change."""
        changed = self._changed
        if changed is not None and changed.wakers is not None:
            changed.fire()

    # ----------------------------------------------------------------------------------------------------- from the hub

    def end_input(self) -> None:
        """EOF has come."""
        self.eof_received = True
        if self.data is not None:
            self.data.finish()
        if self.errors is not None:
            self.errors.finish()
        self.fire()

    def has_room(self) -> None:
        """There is room to send."""
        if self._writable is not None:
            self._writable.fire()

    def notified(self, notice: ChannelRequestData) -> None:
        """The peer has told something."""
        match notice:
            case ExitStatus(status=status):
                self.exit_status = status
            case ExitSignal():
                self.exit_signal = notice
            case EndOfWrite():
                self.peer_reads = False
                self._nobody_listens()
            case WindowChange() if self._notices and isinstance(self._notices[-1], WindowChange):
                self._notices[-1] = notice
            case _:
                if self._notices is None:
                    self._notices = deque(maxlen=_NOTICES_KEPT)
                self._notices.append(notice)
        self.fire()

    def asked(self, question: ChannelRequested) -> None:
        """The peer asks something. What wants no reply is let go when too much waits: it can be refused in silence."""
        if not question.want_reply:
            size = unasked(question)
            if self._unasked + size > UNASKED:
                return
            self._unasked += size
        if self._requests is None:
            self._requests = deque()
        self._requests.append(question)
        self.fire()

    def replied(self, number: int, *, granted: bool) -> None:
        """The reply to our request has come."""
        if self._replies is not None and number in self._replies:
            self._replies[number] = granted
            self.fire()

    def refused(self, reason: int, description: str) -> None:
        """The peer does not want the channel."""
        self._refusal = OpenRefused(f"a {self.kind.type!r} channel", reason, description)
        self.ended()

    def ended(self) -> None:
        """Nothing more will happen."""
        if self.closed:
            return
        self.closed = True
        self.lost = self.hub.lost is not None
        if self.data is not None:
            self.data.over(cut_off=self.lost)
        if self.errors is not None:
            self.errors.over(cut_off=self.lost)
        writers = self.writers
        if self._writable is not None or writers is not None:
            self._nobody_listens()
        self.fire()
        if writers is not None:
            writers.turn.fire()
        if self.on_end is not None:
            self.on_end()

    # --------------------------------------------------------------------------------------------------------- internal

    def _nobody_listens(self) -> None:
        self.has_room()
        if self.writers is not None:
            self.writers.room.fire()

    def _send_request(self, request: ChannelRequestData, *, want_reply: bool) -> int:
        self.check()
        number: int = self.hub.conn.request(self.number, request, want_reply=want_reply)
        return number

    def _send_some(self, data: Buffer, stream: int) -> memoryview | None:
        """Send what there is room for: what is left, or None if nothing is."""
        self._check_writable(stream)
        taken: int = self.hub.conn.send(self.number, data, stream)
        view = memoryview(data)
        return None if taken == view.nbytes else view.cast("B")[taken:]

    def _at_end(self, inbox: Inbox) -> bool:
        if not inbox.ended and self.closed:
            self.hub.check()
        return inbox.ended

    def _check_writable(self, stream: int) -> None:
        self.check()
        if not self.peer_reads and not stream:  # it is said of the data alone (OpenSSH PROTOCOL 2.1)
            raise ChannelEnded(f"the peer does not read channel {self.number} any more")


def unasked(question: ChannelRequested | GlobalRequested) -> int:
    """What a request that wants no reply counts for; 0 if it wants one."""
    return 0 if question.want_reply else _LEAST + len(question.request.encode())
