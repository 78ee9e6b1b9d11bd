"""A channel as operations see it (RFC 4254 section 5)."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from sshproto.channels.requests import Break, EndOfWrite, ExitSignal, ExitStatus, WindowChange
from sshproto.errors import ChannelEnded, LimitReached, OpenRefused, RequestRefused
from sshproto.events import (
    ChannelClosed,
    ChannelNotified,
    ChannelOpened,
    ChannelOpenFailed,
    ChannelRequested,
    ChannelWritable,
    DataReceived,
    EofReceived,
    Event,
    RequestFailed,
    RequestSucceeded,
)
from sshproto.operations.pending import UNASKED, Writers, unasked
from sshproto.operations.steps import Operation, Wait
from sshproto.streams import Credit, Inbox

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelOpenData, ChannelRequestData
    from sshproto.operations.hub import Hub
    from sshproto.wire.codec import Buffer

LINE_LIMIT = 64 * 1024
"""Bytes that a line may have if nothing else is said."""

_NOTICES_KEPT = 64
_READ = 256 * 1024


class Channel:
    """One channel.

    Operations of one kind on one stream take turns: what one of them writes is in one piece, and two that read get
    different bytes.  Cancelling one that reads loses nothing; cancelling one that writes leaves it open how much of it
    was sent.

    Attributes:
        number: Its number in the connection.
        kind: What it is for.
        data, errors: What has come, of data and of standard error; None while nothing has and nobody reads.
        changed: Fires when any of the attributes has changed, or what the peer asks, tells and answers.
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
        "_gathering",
        "_notices",
        "_refusal",
        "_replies",
        "_requests",
        "_unasked",
        "breaks",
        "changed",
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
        self.changed = Wait()
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
        self.writers: Writers | None = None
        self._refusal: OpenRefused | None = None
        self._replies: dict[int, bool | None] | None = None
        self._requests: list[ChannelRequested] | None = None
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
        inbox = Inbox(Credit(self.hub.conn, self.number))
        inbox.ended = self.input_ended
        if self.closed:
            inbox.discard()  # closed here, what still comes is not wanted
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
        if self.writers is None:
            self.writers = Writers()
        return self.writers.watched

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

    def request(self, request: ChannelRequestData, *, required: bool = False) -> Operation[bool]:
        """Ask something and wait for the reply: whether it was granted.

        Args:
            request: What.
            required: It must be.

        Raises:
            RequestRefused: It is not, but ``required``.
            ChannelEnded: The channel is closed.
            ConnectionLoss: The connection has ended.
            UsageError: It cannot be asked.
        """
        try:
            number = self._ask(request)
        except LimitReached:
            number = yield from self.hub.command(partial(self._ask, request))
        replies = self._replies
        if replies is None:
            replies = self._replies = {}
        replies[number] = None
        try:
            while True:
                yield self.changed
                granted = replies[number]
                if granted is not None:
                    break
                self.check()
        finally:
            del replies[number]
            if not replies:
                self._replies = None
        if required and not granted:
            raise RequestRefused(f"the peer refused the request {request.type!r}")
        return granted

    def require(self, request: ChannelRequestData) -> Operation[bool]:
        """Ask something that must be granted; see :meth:`request`."""
        return self.request(request, required=True)

    def notify(self, request: ChannelRequestData) -> Operation[None]:
        """Tell something that needs no reply.

        Raises:
            ChannelEnded: The channel is closed.
            ConnectionLoss: The connection has ended.
            UsageError: It cannot be told.
        """
        try:
            self._tell(request)
        except LimitReached:
            yield from self.hub.command(partial(self._tell, request))

    def next_request(self) -> Operation[ChannelRequested | None]:
        """The peer's next request, to be granted or refused; None when the channel has ended, or its serving has."""
        while not self._requests:
            if self.closed or not self.serving:
                return None
            yield self.changed
        question = self._requests.pop(0)
        if not question.want_reply:
            self._unasked -= unasked(question)
        return question

    def stop_serving(self) -> None:
        """Refuse what the peer asks from now on."""
        self.serving = False
        requests, self._requests = self._requests, None
        if requests:
            for question in requests:
                self.hub.refuse(question)
            self._unasked = 0
        self.changed.fire()

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
            self._end()
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

    # ----------------------------------------------------------------------------------------------------- from the hub

    def _confirmed(self, _: ChannelOpened) -> None:
        self.opened = True
        self.changed.fire()

    def _refused(self, event: ChannelOpenFailed) -> None:
        self._refusal = OpenRefused(f"a {self.kind.type!r} channel", event.reason, event.description)
        self._over(event)

    def _fed(self, event: DataReceived) -> None:
        inbox = self.errors if event.stream else self.data
        if inbox is None:
            inbox = self._make_inbox(event.stream)
        inbox.feed(event.data)

    def _input_ended(self, _: EofReceived) -> None:
        self.eof_received = True
        if self.data is not None:
            self.data.finish()
        if self.errors is not None:
            self.errors.finish()
        self.changed.fire()

    def _has_room(self, _: ChannelWritable) -> None:
        writers = self.writers
        if writers is not None:
            writers.watched.fire()
            if writers.room.wanted:
                self.hub.stand_in_line(writers)

    def _notified(self, event: ChannelNotified) -> None:
        notice = event.notice
        if isinstance(notice, ExitStatus):
            self.exit_status = notice.status
        elif isinstance(notice, ExitSignal):
            self.exit_signal = notice
        elif isinstance(notice, EndOfWrite):
            self.peer_reads = False
            if self.writers is not None:
                self.writers.end()
        else:
            self._keep(notice)
        self.changed.fire()

    def _asked(self, question: ChannelRequested) -> None:
        if self.serving:
            # What wants no reply is let go when too much waits: it can be refused in silence.
            if not question.want_reply:
                size = unasked(question)
                if self._unasked + size > UNASKED:
                    return
                self._unasked += size
            if self._requests is None:
                self._requests = [question]
            else:
                self._requests.append(question)
            self.changed.fire()
        elif self.breaks and isinstance(question.request, Break):
            self._keep(question.request)
            self.changed.fire()
            self.hub.grant(question)
        else:
            self.hub.refuse(question)

    def _replied(self, event: RequestSucceeded | RequestFailed) -> None:
        number, replies = event.request_id, self._replies
        if replies is not None and number in replies:  # somebody still waits
            replies[number] = type(event) is RequestSucceeded
            self.changed.fire()

    def _over(self, _: ChannelClosed | ChannelOpenFailed) -> None:
        del self.hub.channels[self.number]
        if not self.closed:
            self._end()

    ROUTES: ClassVar[dict[type[Event], Callable[[Any, Any], None]]] = {
        ChannelOpened: _confirmed,
        ChannelOpenFailed: _refused,
        DataReceived: _fed,
        EofReceived: _input_ended,
        ChannelWritable: _has_room,
        ChannelNotified: _notified,
        ChannelRequested: _asked,
        RequestSucceeded: _replied,
        RequestFailed: _replied,
        ChannelClosed: _over,
    }
    """What takes each event of a channel."""

    def cut_off(self) -> None:
        """The connection has ended."""
        if not self.closed:
            self._end()

    # --------------------------------------------------------------------------------------------------------- internal

    def _end(self) -> None:
        """Nothing more will happen."""
        self.closed = True
        self.lost = self.hub.lost is not None  # also if it is another channel's end that has closed this one
        if self.data is not None:
            self.data.over(cut_off=self.lost)
        if self.errors is not None:
            self.errors.over(cut_off=self.lost)
        if self.writers is not None:
            self.writers.end()
        self.changed.fire()
        if self.on_end is not None:
            self.on_end()

    def _keep(self, notice: ChannelRequestData) -> None:
        """Keep what the peer has told until somebody asks for it."""
        notices = self._notices
        if notices is None:
            notices = self._notices = deque(maxlen=_NOTICES_KEPT)
        if notices and isinstance(notice, WindowChange) and isinstance(notices[-1], WindowChange):
            notices[-1] = notice
        else:
            notices.append(notice)

    def _ask(self, request: ChannelRequestData) -> int:
        if self.closed:
            self.check()
        number: int = self.hub.conn.request(self.number, request)
        return number

    def _tell(self, request: ChannelRequestData) -> None:
        if self.closed:
            self.check()
        self.hub.conn.request(self.number, request, want_reply=False)

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
