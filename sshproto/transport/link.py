"""The transport protocol as one object: how packets flow, both ways, and the messages 1 to 49 (RFC 4253).

A :class:`Link` is the lower half of a connection.  It owns the bytes and the time, parses lazily, looks every packet up
in the legality table before anything else happens to it, runs the key exchange, and turns whatever the peer did wrong
into one last :class:`~sshproto.events.ConnectionLost`.  The upper half, :class:`~sshproto.engine.Engine`, adds the
numbers from 50 on by overriding the methods under "for the upper half".

The way of a packet in: ``receive_data`` → :class:`~sshproto.transport.packets.Opener` (framing, decryption, integrity,
decompression) → :data:`~sshproto.wire.table.VERDICTS`, of which each state has made its handlers → the handler of its
number.  The way out: ``send``, ``send_payload`` for what was never a value, or ``send_data``, the fast way of channel
data → :class:`~sshproto.transport.outbox.Outbox`, which holds back what must not leave during a key exchange →
:class:`~sshproto.transport.packets.Sealer` → ``data_to_send``.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from sshproto.config import Trace
from sshproto.errors import (
    ClosedEarly,
    ConnectionLoss,
    InternalError,
    LimitExceeded,
    LimitReached,
    LocalClose,
    PeerDisconnected,
    ProtocolViolation,
    TimedOut,
    UnexpectedEof,
    VersionUnsupported,
    WireError,
    WrongPhase,
    forget_frames,
    is_panic,
)
from sshproto.events import (
    ConnectionLost,
    DebugReceived,
    ExtInfoReceived,
    KeysExchanged,
    PongReceived,
    Question,
    UnimplementedReceived,
)
from sshproto.questions import Questions
from sshproto.text import printable
from sshproto.timers import Timer, Timers
from sshproto.transport import ident
from sshproto.transport.extensions import PING, Extensions
from sshproto.transport.keyexchange import KeyExchange
from sshproto.transport.outbox import Outbox
from sshproto.transport.packets import LEAST, Opener
from sshproto.transport.quota import Quota
from sshproto.wire import messages
from sshproto.wire.messages import (
    LARGEST_PAYLOAD,
    ChannelData,
    Debug,
    Disconnect,
    Ignore,
    Message,
    Ping,
    Pong,
    Unimplemented,
)
from sshproto.wire.table import VERDICTS, Role, State, Verdict, message_name

if TYPE_CHECKING:
    from sshproto.config import Config
    from sshproto.events import Event, VersionReceived
    from sshproto.transport.extensions import Announced
    from sshproto.wire.codec import Buffer

_KEX_NUMBERS = range(20, 50)
_HARD_PACKETS = 2**32 - 2**16  # no key may ever see a sequence number twice, whatever the peer does (RFC 4344 3.1)
_READ_AHEAD = 65536  # beyond one packet, what may wait unprocessed before reading pauses
_WORDS = 4096  # of a DISCONNECT: what others show of it, and far from what they must accept

# Where a message is not allowed, for the error.
_SITUATIONS = {
    State.FIRST_KEX_STRICT: "during a strict first key exchange",
    State.FIRST_KEX: "before the first key exchange is complete",
    State.TRANSPORT: "before a service is accepted",
    State.AUTH: "from a {} before login",
    State.OPEN: "from a {} after login",
    State.REKEY: "between KEXINIT and NEWKEYS",
}


_NO_INPUT = bytearray()  # of who has identified itself: it stays empty


class Phase(Enum):
    """How far a connection has come."""

    IDENT = "identification"
    KEX = "key exchange"
    AUTH = "authentication"
    OPEN = "connection"
    CLOSED = "closed"


_OPEN = Phase.OPEN
_CLOSED = Phase.CLOSED
_FIRST_KEX = State.FIRST_KEX

Handler = Callable[[Any, "Buffer"], "Event | None"]
"""What takes a legal packet: a function of the connection and the payload, which is valid only until it returns. If it
returns an event, that is handed to the application at once, before what was emitted."""


class Link:
    """The transport half of a connection; see :class:`~sshproto.connection.Connection` for how to use one.

    Args:
        config: What the application has decided.
        now: The time, in seconds of any monotonic clock; the same clock for all later inputs.

    Attributes:
        role: The side that this object plays.
        phase: How far the connection has come; it agrees with the last event returned.
        peer_version: The peer's identification, once read.
        extensions: What both sides have announced (RFC 8308).
        error: Why the connection has ended, or None.
        blocked_on: The question that holds up all input, or None.
        questions: The answers that the application owes.
        idle: No packet can be read before there is more input.
        events: What :meth:`next_event` is to return; while there is none and it is ``idle``, that need not be asked.
    """

    # A connection that does nothing should take little memory. Who patches an instance gives it a dict.
    __slots__ = (
        "__dict__",
        "_careful",
        "_column",
        "_eof",
        "_exchanges",
        "_handlers",
        "_ident",
        "_ident_input",
        "_ident_size",
        "_last_heard",
        "_limits",
        "_look_at",
        "_near_limit",
        "_quota",
        "_state",
        "_trace",
        "blocked_on",
        "config",
        "error",
        "events",
        "extensions",
        "idle",
        "kex",
        "opener",
        "outbox",
        "peer_version",
        "phase",
        "questions",
        "send_data",
        "send_payload",
        "timers",
    )

    role: ClassVar[Role]

    def __init__(self, config: Config, now: float) -> None:
        self.config = config
        self.phase = Phase.IDENT
        self.peer_version: VersionReceived | None = None
        self.extensions = Extensions()
        self.error: ConnectionLoss | None = None
        self.blocked_on: Question | None = None
        self.questions = Questions()
        self.timers = Timers(now)
        self.opener = Opener(packet_limit=config.limits.packet_before_auth)
        self.outbox = Outbox(config, self)
        self.send_payload = self.outbox.send_payload
        self.send_data = self.outbox.send_data
        self.kex = KeyExchange(self.role, config, self)
        self._limits = limits = config.limits
        self._quota = Quota(limits, now)
        self._trace = config.trace
        self.events: list[Event] = []  # seldom more than one or two
        self._ident: ident.IdentReader | None = ident.IdentReader(receiver=self.role, limits=limits)
        self._ident_input = bytearray()
        self._ident_size = 0
        self._enter(State.FIRST_KEX)
        self._eof = False
        self.idle = False
        self._careful = True  # more is to be asked of packets than who handles them, see _take_care
        self._near_limit = False  # a limit may be reached with the next packet, see _watch_limits
        self._look_at = min(limits.rekey_bytes, limits.rekey_packets * LEAST)  # what was fed when that may be so
        self._last_heard = now
        self._exchanges = 0

        line = ident.our_line(config.software, config.comments)
        self.kex.identified(self.role, line)
        self.outbox.raw(line + b"\r\n")
        self.timers.arm(Timer.HANDSHAKE, config.timeouts.handshake)

    # ----------------------------------------------------------------------------------------------------------- inputs

    def receive_data(self, data: Buffer, now: float) -> None:
        """Bytes from the peer; see :meth:`Connection.receive_data`."""
        timers = self.timers  # what follows is advance(), for the input that comes most often
        if now > timers.now:  # noqa: PLR1730
            timers.now = now
        timers.settled = False
        if timers.untimed:
            timers.retime()
        if not data or (self._careful and (self._eof or self.phase is _CLOSED)):
            self._settle()
            return
        self._last_heard = timers.now
        self.idle = False
        if self._ident is None:
            opener = self.opener
            if opener.buffered and self._too_much(opener.buffered):
                return
            opener.feed(data)
            if opener.fed >= self._look_at:
                self._near_limit = True
        elif not self._ident_input or not self._too_much(len(self._ident_input)):
            self._ident_input += data

    def _too_much(self, waiting: int) -> bool:
        """Whether more input comes although so much waits already; that ends the connection."""
        if waiting <= self._limits.input_hard:
            return False
        self.lose(LimitExceeded(f"input went on while {waiting} bytes waited unprocessed", "input_hard"))
        return True

    def receive_eof(self, now: float) -> None:
        """The peer will send no more bytes."""
        self.timers.advance(now)
        self._eof = True
        self._careful = True
        self.idle = self.phase is _CLOSED

    def handle_timeout(self, now: float) -> None:
        """The time of :meth:`next_deadline` has come, or will come, or has long been over."""
        self.timers.advance(now)
        for timer in self.timers.expired():
            if self.phase is not Phase.CLOSED or timer is Timer.LINGER:
                self._guard(self._expired, timer)
        self._settle()

    def _settle(self) -> None:
        """An input is over. If nothing follows from it, :meth:`next_event` need not be asked, and won't notice."""
        if self.idle and not self.events:
            self.timers.settled = True

    # ---------------------------------------------------------------------------------------------------------- outputs

    def next_event(self) -> Event | None:
        """The pump: open packets one after the other until one of them means something to the application."""
        events = self.events
        while not events:
            if self.idle:
                break
            try:
                opener = self.opener
                if not self._careful:
                    payload = opener.next_packet()
                    if payload is None:
                        self.idle = True
                        break
                    self.idle = not opener.buffered
                elif self._ident is not None:
                    self._read_ident(self._ident)
                    continue
                elif self.blocked_on is not None and not self._eof:
                    break
                else:
                    payload = opener.next_packet() if self.blocked_on is None else None
                    if payload is None:
                        if self._eof:  # nobody is left whom the answer to a question could reach, either
                            raise self._unexpected_eof()
                        self.idle = True
                        break
                    self.idle = not opener.buffered and not self._eof
                    if self._trace is not None:
                        self._trace_received(bytes(payload))
                    if self.phase is not _OPEN:
                        quota, limits = self._quota, self._limits
                        quota.packets += 1
                        received = self._ident_size + opener.fed - opener.buffered
                        if quota.packets > limits.packets_before_auth or received > limits.input_before_auth:
                            quota.too_much_before_login(received)
                        if not opener.sequence_number:
                            self._run_round()
                handler = self._handlers[payload[0]]
                if handler is None:
                    self._not_handled(payload[0])
                    continue
                event = handler(self, payload)
                if self._near_limit:
                    if event is not None:
                        events.insert(0, event)  # before the end that a limit may bring, and what was emitted
                        event = None
                    self._watch_limits(handler)
                if event is not None:
                    # It was the last of this input; or the application may take its time before it answers.
                    if (self.idle and not events) or isinstance(event, Question):
                        self.timers.settled = True
                    return event
            except ConnectionLoss as error:
                self.lose(error)
            except WireError as error:
                self.lose(ProtocolViolation(str(error)))
            except LimitReached as error:  # a reply that the peer provoked finds no room
                loss = LimitExceeded(str(error), "deferred_packets")
                loss.__cause__ = error
                self.lose(loss)
            except BaseException as error:  # noqa: BLE001  a bug of ours must not tear the caller's loop
                self._bug(error)
        else:
            event = events.pop(0)
            if (self.idle and not events) or isinstance(event, Question):
                self.timers.settled = True
            return event
        self.timers.settled = True
        return None

    def _take_care(self) -> None:
        """See whether more is to be asked of packets than who handles them."""
        self._careful = self._trace is not None or self.blocked_on is not None or self._eof or self.phase is not _OPEN

    def data_to_send(self) -> bytes:
        """Everything that waits to be sent, and room for more."""
        outbox = self.outbox
        size = outbox.size
        if not size:
            return b""
        data = outbox.take()
        if size >= self._limits.output_high and self.room():
            self._guard(self._writable)
        return data

    def next_deadline(self) -> float | None:
        """When :meth:`handle_timeout` should be called."""
        return self.timers.earliest

    # --------------------------------------------------------------------------------------------- getters and commands

    @property
    def want_read(self) -> bool:
        """Whether there is room for more input; see :attr:`Connection.want_read`."""
        buffered = self.opener.buffered
        return (
            self.outbox.size < self._limits.output_high
            and (not buffered or buffered <= self._limits.packet + _READ_AHEAD)
            and not (self._careful and (self._eof or self.phase is _CLOSED))
        )

    def need(self, phase: Phase, what: str) -> None:
        """Refuse a command outside its phase.

        Args:
            phase: The phase that the command belongs to.
            what: The command, for the error: ``can't {what} ...``.
        """
        if self.phase is phase:
            return
        if self.error is not None:
            raise WrongPhase(f"can't {what}: the connection has ended: {self.error}")
        raise WrongPhase(f"can't {what} in the phase of {self.phase.value}, only in that of {phase.value}")

    def rekey(self) -> None:
        """Start a key exchange, unless one is under way."""
        self.need(Phase.OPEN, "rekey")
        if not self.kex.active:
            self._start_rekey()

    def ping(self, data: bytes) -> None:
        """Send a PING, if the peer answers them."""
        self.need(Phase.OPEN, "ping")
        if PING not in self.extensions.peer:
            raise WrongPhase(f"can't ping: the peer does not offer {PING}")
        self._send_small(Ping(data))

    def ignore(self, data: bytes) -> None:
        """Send an IGNORE."""
        self.need(Phase.OPEN, "send IGNORE")
        self._send_small(Ignore(data))

    def debug(self, message: str, *, always_display: bool) -> None:
        """Send a DEBUG."""
        self.need(Phase.OPEN, "send DEBUG")
        self._send_small(Debug(always_display, message))

    def _send_small(self, message: Message) -> None:
        self.outbox.send(message, payload=messages.check_size(message))

    def disconnect(self, description: str, code: int) -> None:
        """End the connection on purpose."""
        message = Disconnect(code, description)
        payload = messages.check_size(message)  # what does not fit is refused before anything changes
        self.lose(LocalClose(description, code), message, payload)

    def answer(
        self, question: Question, kinds: tuple[type[Question], ...], act: Callable[..., object], *args: Any
    ) -> bool:
        """Carry out an answer, ``act(*args)``, if it is due: False if it came too late to matter.

        The question is settled if the answer goes through; an error of the application's leaves it open.

        Raises:
            UsageError: The question is of another kind, or has been answered.
        """
        questions = self.questions
        if not questions.check(question, kinds):
            return False
        try:
            act(*args)
        except ConnectionLoss as error:
            self.lose(error)
        questions.settle(question)
        blocked_on = self.blocked_on
        if blocked_on is not None and blocked_on.id == question.id:
            self.blocked_on = None
            self._take_care()
        return True

    # --------------------------------------------------------------------------------------- the outlet of the machines

    def send(self, message: Message, tag: int | None = None, payload: bytes | None = None) -> None:
        """Queue ``message``; see :class:`~sshproto.outlet.Outlet`."""
        self.outbox.send(message, tag, payload)

    def room(self) -> int:
        """Bytes of data that may be queued now."""
        outbox = self.outbox
        if self.phase is not _OPEN or outbox.held:
            return 0
        return max(0, self._limits.output_high - outbox.size)

    def emit(self, event: Event) -> None:
        """Hand ``event`` to the application."""
        if type(event) not in self._WATCHED or self._concerns(event):
            self.events.append(event)

    def _concerns(self, event: Event) -> bool:
        """Whether an event of one of the classes in ``_WATCHED`` concerns the application, too."""
        if isinstance(event, KeysExchanged):
            self._keys_exchanged(event)
        return True

    _WATCHED: ClassVar[frozenset[type[Event]]] = frozenset({KeysExchanged})
    """The events that mean something to the connection itself."""

    def ask(self, question: Question, *, hold: bool = False, size: int = 0) -> None:
        """Hand ``question`` to the application and note that an answer is owed."""
        self.questions.add(question, size)
        self.events.append(question)
        if hold:
            self.blocked_on = question
            self._careful = True

    # ----------------------------------------------------------------------------------------------- for the upper half

    def _dispatch_service(self, payload: Buffer) -> None:
        """A legal SERVICE_REQUEST or SERVICE_ACCEPT, whichever this role receives."""
        raise NotImplementedError

    def _upper_context(self) -> str:
        """The authentication method that gives the numbers 60 to 79 their meaning."""
        return ""

    def _our_extensions(self) -> Announced:
        """What our EXT_INFO says; none, and it is not sent."""
        return ()

    def _extensions_changed(self) -> None:
        """The peer has announced something."""

    def _transport_ready(self) -> None:
        """The first key exchange is complete."""

    def _unimplemented(self, tag: int) -> None:
        """The peer does not know the message that was sent with ``tag``."""

    def _writable(self) -> None:
        """There is room for data again."""

    def _ended(self) -> None:
        """The connection has ended."""

    def _expired(self, timer: Timer) -> None:
        """A deadline has passed. The upper half takes its own timers and leaves the others to this."""
        if timer is Timer.LINGER:
            self.outbox.take()
        elif timer is Timer.REKEY:
            if self.phase is not Phase.OPEN:
                self.timers.arm(timer, self.config.timeouts.rekey)
            elif not self.kex.active:
                self._start_rekey()
        else:
            raise TimedOut(f"the time for {timer.value} is over", timer.value)

    # ----------------------------------------------------------------------------------------------------------- way in

    def _read_ident(self, reader: ident.IdentReader) -> None:
        """Look for the peer's identification in the input."""
        if not self._ident_input:
            if self._eof:
                raise self._unexpected_eof()
            self.idle = True
            return
        data = bytes(self._ident_input)
        self._ident_input.clear()
        self._ident_size += len(data)
        try:
            version = reader.feed(data)
        except VersionUnsupported:
            if reader.version is not None:
                self.peer_version = reader.version
                self.events.append(reader.version)
            raise
        if version is None:
            return
        self._ident = None
        self._ident_input = _NO_INPUT
        self.kex.identified(self.role.peer, reader.line)
        self._ident_size -= len(reader.rest)
        self.opener.feed(reader.rest)
        self.peer_version = version
        self.phase = Phase.KEX
        self.events.append(version)
        if not self.kex.active:
            self.kex.start()

    def _enter(self, state: State) -> None:
        """Go on to another column of the legality table; a key exchange has one of its own, see :meth:`_look_up`."""
        self._state = state
        self._look_up()

    def _look_up(self) -> None:
        """To be called whenever another column of the legality table may hold."""
        column = self._state
        if column is _FIRST_KEX:
            if self.kex.strict:
                column = State.FIRST_KEX_STRICT
        elif self.kex.holds_input:
            column = State.REKEY
        self._column = column
        self._handlers = self._columns.get(column) or self._add_column(column)

    _columns: ClassVar[dict[State, tuple[Handler | None, ...]]]
    """The columns of the legality table as connections of one role go by them: who takes each number; nobody if it is
    not simply handled. Each is made once, so that a packet costs one look."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._columns = {}

    @classmethod
    def _add_column(cls, state: State) -> tuple[Handler | None, ...]:
        handlers = cls._HANDLERS
        verdicts = enumerate(VERDICTS[cls.role][state])
        column = tuple(handlers[number] if verdict is Verdict.HANDLE else None for number, verdict in verdicts)
        cls._columns[state] = column
        return column

    def _run_round(self) -> None:
        """All sequence numbers have been used."""
        if not self._exchanges:  # whatever Limits.packets_before_auth allows
            raise ProtocolViolation("the sequence numbers have run round before the first keys")

    def _not_handled(self, number: int) -> None:
        """A packet came that no handler may take now."""
        verdict = VERDICTS[self.role][self._column][number]
        name = message_name(number, self._context(number))
        if verdict is Verdict.UNIMPLEMENTED:
            self._not_implemented()
        elif verdict is Verdict.IGNORE:
            self._quota.ignored(name)
        else:
            situation = _SITUATIONS[self._column].format(self.role.peer.value)
            raise ProtocolViolation(f"{name} ({number}) came, which is not allowed {situation}")
        self._check_output()

    def _context(self, number: int) -> str:
        return self.kex.context if number in _KEX_NUMBERS else self._upper_context()

    def _sequence_number(self) -> int:
        """That of the packet just received."""
        return (self.opener.sequence_number - 1) & 0xFFFFFFFF

    def _trace_received(self, payload: bytes) -> None:
        if self._trace is None:
            return
        try:
            message = messages.decode(payload, self._context(payload[0]))
        except WireError:
            message = None  # what is wrong with it will be said where it is used
        number = self._sequence_number()
        self._trace(Trace(sent=False, sequence_number=number, message=message, number=payload[0], length=len(payload)))

    # ------------------------------------------------------------------------------ the messages of the transport layer

    def _on_disconnect(self, payload: Buffer) -> None:
        message = Disconnect.parse(payload)
        raise PeerDisconnected(message.reason, message.description)

    def _on_ignore(self, payload: Buffer) -> None:
        Ignore.parse(payload)

    def _on_unimplemented(self, payload: Buffer) -> None:
        number = Unimplemented.parse(payload).sequence_number
        tag = self.outbox.tag(number)
        if tag is not None:
            self._unimplemented(tag)
        self.emit(UnimplementedReceived(number))

    def _on_debug(self, payload: Buffer) -> None:
        message = Debug.parse(payload)
        self.emit(DebugReceived(printable(message.message, _WORDS), message.always_display))

    def _on_service(self, payload: Buffer) -> None:
        self._dispatch_service(payload)

    def _on_ext_info(self, payload: Buffer) -> None:
        """RFC 8308 section 2.4: right after NEWKEYS, and to a client once more before or with the end of login."""
        if self._state is State.TRANSPORT and (self._exchanges != 1 or self.opener.packets != 1):
            raise ProtocolViolation("EXT_INFO came late: it must be the first packet after the first NEWKEYS")
        announced = self.extensions.receive(payload)
        self._extensions_changed()
        self.emit(ExtInfoReceived(announced))

    def _on_kexinit(self, payload: Buffer) -> None:
        if self.kex.session_id is not None:
            if not self.kex.active:
                if self.phase is not Phase.OPEN:
                    self._quota.rekey_before_login()
                self._quota.peer_rekey(self.timers.now, self._ident_size + self.opener.fed)
            self.timers.arm(Timer.KEX, self.config.timeouts.kex)
        self.kex.receive_init(bytes(payload), self._sequence_number())
        self._look_up()

    def _on_new_keys(self, payload: Buffer) -> None:
        state = self._state
        self.kex.receive_new_keys(bytes(payload))
        if self._state is state:  # or that has been looked up
            self._look_up()
        self.kex_moved()

    def _on_kex_method(self, payload: Buffer) -> None:
        self.kex.receive_method(bytes(payload))
        self.kex_moved()

    def _on_ping(self, payload: Buffer) -> None:
        message = Ping.parse(payload)
        if self.extensions.ping_offered and len(payload) <= LARGEST_PAYLOAD:  # a PONG is no larger
            self.outbox.send(Pong(message.data))
        else:
            self._not_implemented()

    def _on_pong(self, payload: Buffer) -> None:
        self.emit(PongReceived(Pong.parse(payload).data))

    def _not_implemented(self) -> None:
        """Say that the packet just received means nothing to us. That is allowed during a key exchange, too."""
        self.outbox.send_now(Unimplemented(self._sequence_number()))

    _HANDLERS: ClassVar[dict[int, Handler]] = {
        1: _on_disconnect,
        2: _on_ignore,
        3: _on_unimplemented,
        4: _on_debug,
        5: _on_service,
        6: _on_service,
        7: _on_ext_info,
        20: _on_kexinit,
        21: _on_new_keys,
        **dict.fromkeys(range(30, 50), _on_kex_method),
        192: _on_ping,
        193: _on_pong,
    }
    """What handles a message, where the table lets it be handled."""

    # ----------------------------------------------------------------------------------------------- keys and their age

    def new_keys_sent(self) -> None:
        """RFC 8308 section 2.4: our EXT_INFO is the very next packet after our first NEWKEYS."""
        extensions = self._our_extensions()
        if not self._exchanges and extensions and self.kex.peer_reads_extensions:
            message, payload = self.extensions.announce(extensions)
            self.outbox.send(message, None, payload)

    def kex_moved(self) -> None:
        """The key exchange has moved: let go what waited for it, if it may go now."""
        if self.phase is not Phase.CLOSED and not self.outbox.held:
            self.outbox.release()
            if self.room():
                self._writable()

    def _keys_exchanged(self, event: KeysExchanged) -> None:
        self._exchanges += 1
        self.timers.stop(Timer.HANDSHAKE if event.first else Timer.KEX)
        self.timers.arm(Timer.REKEY, self.config.timeouts.rekey)
        if event.first:
            self.phase = Phase.AUTH
            self._enter(State.TRANSPORT)
            self._transport_ready()

    def _start_rekey(self) -> None:
        self.timers.arm(Timer.KEX, self.config.timeouts.kex)
        self.kex.start()

    def _watch_limits(self, handler: Handler) -> None:
        """The packet just handled may have reached a limit: see to it, and after how much more input one can be."""
        limits = self._limits
        opener = self.opener
        key = min(limits.rekey_bytes - opener.served, (limits.rekey_packets - opener.packets) * LEAST)
        if key <= 0:
            self.key_worn()
        if handler is not self._HANDLERS[ChannelData.number]:
            self._check_output()
        self._look_at = opener.fed - opener.buffered + key
        self._near_limit = opener.fed >= self._look_at or self.outbox.size > limits.output_hard

    def output_full(self) -> None:
        """Whether too much waits is looked at when the peer makes us answer."""
        self._near_limit = True

    def _check_output(self) -> None:
        """To be called when a packet that calls for no data has been handled."""
        if self.outbox.size > self._limits.output_hard:
            raise LimitExceeded("the peer makes us answer and does not read", "output_hard")

    def key_worn(self) -> None:
        """A key has reached its limit."""
        if max(self.outbox.sealer.packets, self.opener.packets) >= _HARD_PACKETS:
            self.lose(LimitExceeded("a key has served as many packets as it safely can", "rekey_packets"))
        elif self.phase is Phase.OPEN and not self.kex.active:
            self._start_rekey()

    # ---------------------------------------------------------------------------------------------------------- the end

    def _guard(self, action: Callable[..., object], *args: Any) -> None:
        """Do ``action``; what the peer did wrong ends the connection, and nothing comes out."""
        try:
            action(*args)
        except ConnectionLoss as error:
            self.lose(error)
        except WireError as error:
            self.lose(ProtocolViolation(str(error)))
        except BaseException as error:  # noqa: BLE001  see next_event
            self._bug(error)

    def _unexpected_eof(self) -> UnexpectedEof:
        if self._ident is not None:
            if words := self._ident.words:
                what = f"without identifying itself as SSH; it said: '{printable(words)}'"
            else:
                what = "before it identified itself"
            return ClosedEarly(f"the peer closed the connection {what}", Phase.IDENT.value)
        if self.opener.buffered and self.blocked_on is None:
            return UnexpectedEof("the peer closed the connection in the middle of a packet", "packet")
        return UnexpectedEof(
            f"the peer closed the connection without a DISCONNECT, in the phase of {self.phase.value}", self.phase.value
        )

    def _bug(self, error: BaseException) -> None:
        if self.config.debug_raise or not (isinstance(error, Exception) or is_panic(error)):
            raise error
        details = "".join(traceback.format_exception(error))
        loss = InternalError(f"internal error: {type(error).__name__}", details)
        loss.__cause__ = error
        self.lose(loss)

    def lose(self, error: ConnectionLoss, goodbye: Disconnect | None = None, payload: bytes | None = None) -> None:
        """End the connection: say why to the peer, and to the application as the last event."""
        if self.error is not None:
            return
        forget_frames(error)
        self.error = error
        # Before the DISCONNECT, which may bring a key to its limit, and must be the last packet.
        self.phase = Phase.CLOSED
        self.idle = self._careful = True
        if goodbye is None and error.code is not None and not isinstance(error, PeerDisconnected):
            # The peer learns what was wrong, not what this side is like inside.
            words = "internal error" if isinstance(error, InternalError) else printable(str(error), _WORDS)
            goodbye = Disconnect(error.code, words)
        try:
            if goodbye is not None:
                self.outbox.send_now(goodbye, payload)
        finally:  # an entropy source or a trace may raise, and the rest is owed all the same
            self.outbox.drop_deferred()
            self.opener.drop()
            self._ident_input.clear()
            self.questions.end()
            self.blocked_on = None
            self._ended()
            self.timers.clear()
            self.timers.arm(Timer.LINGER, self.config.timeouts.linger)
            self.events.append(ConnectionLost(error))
