"""How packets flow, both ways: identification, framing, keys, the legality table, and the end (RFC 4253).

A :class:`Link` is the lowest floor of a connection.  It owns the bytes both ways and the time, parses lazily, looks
every packet up in the legality table before anything else happens to it, holds back what must not leave during a key
exchange, and turns whatever the peer did wrong into one last :class:`~sshproto.events.ConnectionLost`.  It knows no
message by itself: :class:`~sshproto.transport.layer.TransportLayer` fills in the numbers 1 to 49, and
:class:`~sshproto.session.Session` those from 50 on, by overriding the methods under "for what is on top".

The way of a packet in: ``receive_data`` → :class:`~sshproto.transport.packets.Opener` (framing, decryption, integrity,
decompression) → :data:`~sshproto.wire.table.VERDICTS` → the handler of its number.  The way out: ``send`` (or
``send_data``, the fast way of channel data) → held back while a key exchange is under way →
:class:`~sshproto.transport.packets.Sealer` → ``data_to_send``.  A packet is sealed whole as it is queued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from sshproto.config import Trace
from sshproto.errors import (
    ConnectionLoss,
    InternalError,
    InvalidArgument,
    LimitExceeded,
    LimitReached,
    LocalClose,
    PeerDisconnected,
    ProtocolViolation,
    UnexpectedEof,
    VersionUnsupported,
    WireError,
    WrongPhase,
)
from sshproto.events import (
    ConnectionLost,
    KeysExchanged,
)
from sshproto.questions import Questions
from sshproto.timers import Timer, TimerTable
from sshproto.transport import ident
from sshproto.transport.keyexchange import KeyExchange
from sshproto.transport.packets import Opener, Sealer
from sshproto.wire import messages
from sshproto.wire.messages import Disconnect, Message, Unimplemented
from sshproto.wire.table import VERDICTS, Role, State, Verdict, message_name

if TYPE_CHECKING:
    from sshproto.config import Config
    from sshproto.events import Event, Question, VersionReceived
    from sshproto.wire.codec import Buffer

_CHANNEL_DATA = 94
_KEX_NUMBERS = range(20, 50)
_TAGS_KEPT = 64

SAFE_PAYLOAD = 32768
"""What every peer accepts in one packet (RFC 4253 section 6.1)."""

LARGEST_PAYLOAD = 256 * 1024 - 1024
"""What may be sent in one packet besides channel data: what OpenSSH accepts, with room for framing."""

_CONCEALED = frozenset((50, 61))  # USERAUTH_REQUEST and USERAUTH_INFO_RESPONSE: passwords may be in them


class Phase(Enum):
    """How far a connection has come."""

    IDENT = "identification"
    KEX = "key exchange"
    AUTH = "authentication"
    OPEN = "connection"
    CLOSED = "closed"


class Link:
    """The transport half of a connection; see :class:`~sshproto.connection.Connection` for how to use one.

    Args:
        config: What the application has decided.
        now: The time, in seconds of any monotonic clock; the same clock for all later inputs.

    Attributes:
        role: The side that this object plays.
        phase: How far the connection has come; it agrees with the last event returned.
        peer_version: The peer's identification, once read.
        error: Why the connection has ended, or None.
    """

    role: ClassVar[Role]

    def __init__(self, config: Config, now: float) -> None:
        self.config = config
        self.now = now
        self.phase = Phase.IDENT
        self.peer_version: VersionReceived | None = None
        self.error: ConnectionLoss | None = None
        self.opener = Opener(packet_limit=config.limits.packet_before_auth)
        self.sealer = Sealer(entropy=config.entropy)
        self._rekey_bytes = config.limits.rekey_bytes
        self._rekey_packets = config.limits.rekey_packets
        self._trace = config.trace
        self.kex = KeyExchange(self.role, config, self)
        self.questions = Questions()
        self._timers = TimerTable()
        self._untimed: dict[Timer, float] = {}
        self._drained = False
        self._events: deque[Event] = deque()
        # way in
        self._ident: ident.IdentReader | None = ident.IdentReader(receiver=self.role, limits=config.limits)
        self._ident_input = bytearray()
        self._state = State.FIRST_KEX
        self._verdicts = VERDICTS[self.role][State.FIRST_KEX]
        self._eof = False
        self._received = 0
        self._packets_before_auth = 0
        self._ignored = 0
        # way out
        self._out: list[Buffer] = []
        self.output_size = 0
        self._deferred: deque[tuple[Message, bytes, int | None]] = deque()
        self._deferred_size = 0
        self._tags: dict[int, int] = {}

        line = ident.our_line(config.software, config.comments)
        self.kex.idents[self.role] = line
        self._queue(line + b"\r\n")

    # ----------------------------------------------------------------------------------------------------------- inputs

    def receive_data(self, data: Buffer, now: float) -> None:
        """Bytes from the peer; see :meth:`Connection.receive_data`."""
        self._advance(now)
        if self.phase is Phase.CLOSED or self._eof or not len(data):
            return
        self._heard()
        waiting = self.opener.buffered + len(self._ident_input)
        if waiting > self.config.limits.input_hard:
            self.lose(LimitExceeded(f"input went on while {waiting} bytes waited unprocessed", "input_hard"))
            return
        self._received += len(data)
        if self._ident is None:
            self.opener.feed(data)
        else:
            self._ident_input += data

    def receive_eof(self, now: float) -> None:
        """The peer will send no more bytes."""
        self._advance(now)
        self._eof = True

    def handle_timeout(self, now: float) -> None:
        """The time of :meth:`next_deadline` has come, or will come, or has long been over."""
        self._advance(now)
        for timer in self._timers.expired(self.now):
            if self.phase is not Phase.CLOSED or timer is Timer.LINGER:
                self._guard(self._expired, timer)

    # ---------------------------------------------------------------------------------------------------------- outputs

    def next_event(self) -> Event | None:
        """The pump: open packets one after the other until one of them means something to the application."""
        events = self._events
        while not events:
            if self.phase is Phase.CLOSED:
                self._drained = True
                return None
            if self._blocked():
                if not self._eof:
                    self._drained = True
                    return None
                # Nobody is left whom the answer could reach; the application should not wait for it.
                self.lose(self._unexpected_eof())
                continue
            try:
                if self._ident is not None:
                    if not self._read_ident(self._ident):
                        self._drained = True
                        return None
                    continue
                payload = self.opener.next_packet()
                if payload is None:
                    if self._eof:
                        raise self._unexpected_eof()
                    self._drained = True
                    return None
                number = payload[0]
                if self._trace is not None:
                    self._traced(bytes(payload), sent=False)
                if number == _CHANNEL_DATA and self._verdicts[_CHANNEL_DATA] is Verdict.HANDLE:
                    event = self._channel_data(payload)
                    if self.opener.bytes >= self._rekey_bytes or self.opener.packets >= self._rekey_packets:
                        self._consider_rekey()
                    if event is not None:
                        return event
                    continue
                self._dispatch(number, payload)
            except ConnectionLoss as error:
                self.lose(error)
            except WireError as error:
                self.lose(ProtocolViolation(str(error)))
            except Exception as error:  # noqa: BLE001  a bug of ours must not tear the caller's loop
                self._bug(error)
        return events.popleft()

    def data_to_send(self) -> bytes:
        """Everything that waits to be sent, and room for more."""
        out = self._out
        if not out:
            return b""
        data = bytes(out[0]) if len(out) == 1 else b"".join(out)
        out.clear()
        was_full = self.output_size >= self.config.limits.output_high
        self.output_size = 0
        if was_full and self.room():
            self._guard(self._writable)
        return data

    def next_deadline(self) -> float | None:
        """When :meth:`handle_timeout` should be called."""
        return self._timers.next()

    # ---------------------------------------------------------------------------------------------------------- getters

    @property
    def blocked_on(self) -> Question | None:
        """The question that holds up all input, or None."""
        return self.kex.blocked

    @property
    def want_read(self) -> bool:
        """Whether there is room for more input; see :attr:`Connection.want_read`."""
        limits = self.config.limits
        return (
            self.phase is not Phase.CLOSED
            and not self._eof
            and self.output_size < limits.output_high
            and self.opener.buffered <= limits.packet + 65536
        )

    # --------------------------------------------------------------------------------------------------------- commands

    def disconnect(self, description: str, code: int) -> None:
        """End the connection on purpose."""
        message = Disconnect(code, description)
        if len(message.encode()) > SAFE_PAYLOAD:  # what does not fit is refused before anything changes
            raise InvalidArgument(f"a description of {len(description)} characters is too long for a DISCONNECT")
        self.lose(LocalClose(description, code), message)

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

    # --------------------------------------------------------------------------------------- the outlet of the machines

    def send(self, message: Message, tag: int | None = None) -> None:
        """Queue ``message``; see :class:`~sshproto.outlet.Outlet`."""
        payload = message.encode()
        size = len(payload)
        if size > LARGEST_PAYLOAD:
            raise InvalidArgument(f"a {type(message).__name__} of {size} bytes: at most {LARGEST_PAYLOAD} can be sent")
        if not self.kex.holds_output:
            self._seal(message, payload, tag)
            return
        limits = self.config.limits
        if len(self._deferred) >= limits.deferred_packets or self._deferred_size + size > limits.deferred_bytes:
            raise LimitReached(f"{len(self._deferred)} messages wait for the end of the key exchange already")
        self._deferred.append((message, payload, tag))
        self._deferred_size += size

    def send_now(self, message: Message) -> None:
        """Queue a message of the key exchange, past everything that waits for its end."""
        self._seal(message, message.encode(), None)

    def send_data(self, head: bytes, body: Buffer) -> None:
        """Queue the payload ``head + body``."""
        if self._trace is not None:
            self._traced(b"".join((head, body)), sent=True)
        sealer = self.sealer
        packet = sealer.seal(head, body)
        self._out.append(packet)
        self.output_size += len(packet)
        if sealer.bytes >= self._rekey_bytes or sealer.packets >= self._rekey_packets:
            self._consider_rekey()

    def room(self) -> int:
        """Bytes of data that may be queued now."""
        if self.phase is not Phase.OPEN or self.kex.holds_output:
            return 0
        return max(0, self.config.limits.output_high - self.output_size)

    def emit(self, event: Event) -> None:
        """Hand ``event`` to the application."""
        if isinstance(event, KeysExchanged):
            self._keys_exchanged(event)
        self._events.append(event)

    def ask(self, question: Question) -> None:
        """Hand ``question`` to the application and note that an answer is owed."""
        self.questions.add(question)
        self._events.append(question)

    def question_id(self) -> int:
        """A number for a new question."""
        return self.questions.new_id()

    def withdraw(self, question_id: int) -> None:
        """The question is void."""
        self.questions.withdraw(question_id)

    @contextmanager
    def answering(self, question: Question, *kinds: type[Question]) -> Iterator[bool]:
        """Around the carrying out of an answer: True if it is due, False if it came too late to matter.

        The question is settled if the answer goes through; an error of the application's leaves it open.

        Raises:
            UsageError: The question is of another kind, or has been answered.
        """
        due = self.questions.check(question, *kinds)
        try:
            yield due
        except ConnectionLoss as error:
            self.lose(error)
        if due:
            self.questions.settle(question)

    # ----------------------------------------------------------------------------------------------- for what is on top

    def _dispatch_transport(self, number: int, payload: bytes) -> None:
        """A legal packet numbered 1 to 49, or above 100."""
        raise NotImplementedError

    def _dispatch_upper(self, number: int, payload: Buffer) -> None:
        """A legal packet numbered 50 to 100."""
        raise NotImplementedError

    def _channel_data(self, payload: Buffer) -> Event | None:
        """A legal CHANNEL_DATA."""
        raise NotImplementedError

    def _consider_rekey(self) -> None:
        """A key has reached its limit."""

    def _expired(self, timer: Timer) -> None:
        """A deadline has passed."""

    def new_keys_sent(self) -> None:
        """Our NEWKEYS has left: what is sent from now on is under new keys."""

    def _keys_exchanged(self, event: KeysExchanged) -> None:
        """Both directions use new keys."""

    def _upper_context(self) -> str:
        """The authentication method that gives the numbers 60 to 79 their meaning."""
        return ""

    def _message_sealed(self, message: Message) -> None:
        """``message`` has left for the output, under the keys and compression of now."""

    def _writable(self) -> None:
        """There is room for data again."""

    def _heard(self) -> None:
        """The peer has sent something."""

    def _ended(self) -> None:
        """The connection has ended."""

    def _blocked(self) -> bool:
        """Whether a question holds up the input."""
        return self.kex.blocked is not None

    # ---------------------------------------------------------------------------------------------------------- way out

    def _queue(self, data: Buffer) -> None:
        self._out.append(data)
        self.output_size += len(data)

    def _seal(self, message: Message, payload: bytes, tag: int | None) -> None:
        sealer = self.sealer
        if tag is not None:
            self._tags[sealer.sequence_number] = tag
            if len(self._tags) > _TAGS_KEPT:
                del self._tags[next(iter(self._tags))]
        if self._trace is not None:
            self._traced(payload, sent=True, message=message)
        self._queue(sealer.seal(payload, conceal=message.number in _CONCEALED))
        self._message_sealed(message)
        if sealer.bytes >= self._rekey_bytes or sealer.packets >= self._rekey_packets:
            self._consider_rekey()

    def _traced(self, payload: bytes, *, sent: bool, message: Message | None = None) -> None:
        if self._trace is None:
            return
        if message is None:
            try:
                message = messages.decode(payload, self._context(payload[0]))
            except WireError:
                message = None  # what is wrong with it will be said where it is used
        number = self.sealer.sequence_number if sent else (self.opener.sequence_number - 1) & 0xFFFFFFFF
        self._trace(Trace(sent=sent, sequence_number=number, message=message, number=payload[0], length=len(payload)))

    def _context(self, number: int) -> str:
        return self.kex.context if number in _KEX_NUMBERS else self._upper_context()

    def _after_kex_step(self) -> None:
        """The key exchange has moved: let go what waited for it, if it may go now."""
        if self.kex.holds_output or self.phase is Phase.CLOSED:
            return
        while self._deferred and not self.kex.holds_output:
            message, payload, tag = self._deferred.popleft()
            self._deferred_size -= len(payload)
            self._seal(message, payload, tag)
        if self.room():
            self._writable()

    # ----------------------------------------------------------------------------------------------------------- way in

    def _advance(self, now: float) -> None:
        self.now = max(self.now, now)
        self._drained = False
        if self._untimed:
            for timer, seconds in self._untimed.items():
                if self._timers.runs(timer):
                    self._timers.set(timer, self.now + seconds)
            self._untimed.clear()

    def _guard(self, action: Callable[..., object], *args: Any) -> None:
        """Do ``action``; what the peer did wrong ends the connection, and nothing comes out."""
        try:
            action(*args)
        except ConnectionLoss as error:
            self.lose(error)
        except WireError as error:
            self.lose(ProtocolViolation(str(error)))
        except Exception as error:  # noqa: BLE001  see next_event
            self._bug(error)

    def _read_ident(self, reader: ident.IdentReader) -> bool:
        """Look for the peer's identification in the input; False if there is nothing to be done yet."""
        if not self._ident_input:
            if self._eof:
                raise self._unexpected_eof()
            return False
        data = bytes(self._ident_input)
        self._ident_input.clear()
        try:
            version = reader.feed(data)
        except VersionUnsupported:
            if reader.version is not None:
                self.peer_version = reader.version
                self._events.append(reader.version)
            raise
        if version is None:
            return True
        self._ident = None
        self.kex.idents[self.role.peer] = reader.line
        self.opener.feed(reader.rest)
        self.peer_version = version
        self.phase = Phase.KEX
        self._events.append(version)
        if self.kex.ours is None:
            self.kex.start()
        return True

    def _column(self) -> State:
        """The column of the legality table that holds now."""
        if self._state is State.FIRST_KEX:
            return State.FIRST_KEX_STRICT if self.kex.strict else State.FIRST_KEX
        return State.REKEY if self.kex.holds_input else self._state

    def _update_verdicts(self) -> None:
        self._verdicts = VERDICTS[self.role][self._column()]

    def _dispatch(self, number: int, payload: Buffer) -> None:
        """One packet other than legal CHANNEL_DATA."""
        if self.phase is not Phase.OPEN:
            self._count_before_auth()
        verdict = self._verdicts[number]
        if verdict is Verdict.HANDLE:
            try:
                if 50 <= number <= 100:
                    self._dispatch_upper(number, payload)
                else:
                    self._dispatch_transport(number, bytes(payload))
            except LimitReached as error:  # a reply that the peer provoked finds no room
                raise LimitExceeded(str(error), "deferred_packets") from error
            if self.opener.bytes >= self._rekey_bytes or self.opener.packets >= self._rekey_packets:
                self._consider_rekey()
        elif verdict is Verdict.IGNORE:
            self._ignored += 1
            if self._ignored > self.config.limits.ignored_messages:
                name = message_name(number, self._context(number))
                raise LimitExceeded(f"too many messages came too late, the last is {name}", "ignored_messages")
        elif verdict is Verdict.UNIMPLEMENTED:
            self.not_implemented()
        else:
            name = message_name(number, self._context(number))
            raise ProtocolViolation(f"{name} ({number}) came, which is not allowed {self._situation()}")
        if self.output_size > self.config.limits.output_hard:
            raise LimitExceeded("the peer makes us answer and does not read", "output_hard")

    def not_implemented(self) -> None:
        """Answer that the packet just received means nothing to us. That is allowed during a key exchange, too."""
        self.send_now(Unimplemented((self.opener.sequence_number - 1) & 0xFFFFFFFF))

    def _situation(self) -> str:
        column = self._column()
        return {
            State.FIRST_KEX_STRICT: "during a strict first key exchange",
            State.FIRST_KEX: "before the first key exchange is complete",
            State.TRANSPORT: "before a service is accepted",
            State.AUTH: f"from a {self.role.peer.value} before login",
            State.OPEN: f"from a {self.role.peer.value} after login",
            State.REKEY: "between KEXINIT and NEWKEYS",
        }[column]

    def _count_before_auth(self) -> None:
        limits = self.config.limits
        self._packets_before_auth += 1
        if self._packets_before_auth > limits.packets_before_auth:
            raise LimitExceeded(f"more than {limits.packets_before_auth} packets before login", "packets_before_auth")
        taken = self._received - self.opener.buffered
        if taken > limits.input_before_auth:
            raise LimitExceeded(f"more than {limits.input_before_auth} bytes before login", "input_before_auth")

    def _unexpected_eof(self) -> UnexpectedEof:
        if self._ident is not None:
            what = "in the middle of its identification" if self._ident.started else "before it identified itself"
            return UnexpectedEof(f"the peer closed the connection {what}", Phase.IDENT.value)
        if self.opener.buffered and not self._blocked():
            return UnexpectedEof("the peer closed the connection in the middle of a packet", "packet")
        return UnexpectedEof(
            f"the peer closed the connection without a DISCONNECT, in the phase of {self.phase.value}", self.phase.value
        )

    # ------------------------------------------------------------------------------------------------ time, and the end

    def _arm(self, timer: Timer, seconds: float | None) -> None:
        """Set a deadline, or none.

        Commands bring no time.  Once the events of an input have been drained, that input may be long ago, and the
        seconds of a deadline that a command sets count from the next input on.

        Args:
            timer: Which.
            seconds: How long from now; None means never.
        """
        self._untimed.pop(timer, None)
        if seconds is None:
            self._timers.stop(timer)
        else:
            self._timers.set(timer, self.now + seconds)
            if self._drained:
                self._untimed[timer] = seconds

    def _bug(self, error: Exception) -> None:
        if self.config.debug_raise:
            raise error
        loss = InternalError(f"internal error: {type(error).__name__}")
        loss.__cause__ = error
        self.lose(loss)

    def lose(self, error: ConnectionLoss, goodbye: Disconnect | None = None) -> None:
        """End the connection: say why to the peer, and to the application as the last event."""
        if self.error is not None:
            return
        self.error = error
        self.phase = (
            Phase.CLOSED
        )  # before the DISCONNECT, which may bring a key to its limit and must be the last packet
        if goodbye is None and error.code is not None and not isinstance(error, PeerDisconnected):
            # The peer learns what was wrong, not what this side is like inside.
            goodbye = Disconnect(error.code, str(error) if not isinstance(error, InternalError) else "internal error")
        if goodbye is not None:
            self._seal(goodbye, goodbye.encode(), None)
        self._deferred.clear()
        self._ident_input.clear()
        self.questions.end()
        self._ended()
        self._timers.clear()
        self._arm(Timer.LINGER, self.config.timeouts.linger)
        self._events.append(ConnectionLost(error))
