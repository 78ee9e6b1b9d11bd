"""The connection object: bytes and answers in, events and bytes out.

Methods come in four kinds.

* *Inputs*: ``receive_data``, ``receive_eof``, ``handle_timeout``.  They never raise for what the peer did, and never
  call back.
* *Outputs*: ``next_event``, ``data_to_send``, ``next_deadline``.
* *Getters*: ``phase``, ``negotiated``, ``questions``, ``want_read``, ``should_close`` and so on.
* *Commands and answers*: everything else.  They queue bytes, or raise a :class:`~sshproto.errors.UsageError` and
  change nothing.

**The pump rule**, all that an integrator must know.  After any input, command or answer::

    while True:
        while (event := conn.next_event()) is not None:
            ...  # use it; if it is a question, answer it now or later
        if not (data := conn.data_to_send()):
            break
        ...  # send all of it
    ...  # wait for input, or until conn.next_deadline()

Packets are parsed lazily, one for each ``next_event``, so what the getters show is the state as of the last event
returned.  The peer's faults are data: one :class:`~sshproto.events.ConnectionLost`, always the last event, with the
DISCONNECT already queued.

Behind this interface works an :class:`~sshproto.engine.Engine`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from sshproto.channels.requests import OpenFailure, UnknownOpen
from sshproto.engine import Engine
from sshproto.errors import DisconnectCode, UnknownChannel, UsageError
from sshproto.events import ChannelOpenRequested, ChannelRequested, GlobalRequested, Question, SignatureNeeded
from sshproto.transport.link import Phase

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelOpenData, ChannelRequestData, GlobalRequestData
    from sshproto.config import Config
    from sshproto.errors import ConnectionLoss
    from sshproto.events import Event, VersionReceived
    from sshproto.keys.public import PublicKey
    from sshproto.transport.negotiation import Negotiated
    from sshproto.wire.codec import Buffer
    from sshproto.wire.table import Role

E = TypeVar("E", bound=Engine[Any])

_OPEN, _CLOSED = Phase.OPEN, Phase.CLOSED  # a global is found faster than a member
_REQUESTED = (ChannelRequested, GlobalRequested)


class Connection(Generic[E]):
    """What clients and servers share: :class:`~sshproto.client.ClientConnection` and
    :class:`~sshproto.server.ServerConnection`."""

    def __init__(self, make: Callable[[Any, float], E], config: Config, now: float) -> None:
        self._engine: E = make(config, now) if config.record is None else config.record(self, make, config, now)

    def __repr__(self) -> str:
        engine = self._engine
        return f"<{type(self).__name__} in the phase of {engine.phase.value}, {len(engine.mux.channels)} channels>"

    # ----------------------------------------------------------------------------------------------------------- inputs

    def receive_data(self, data: Buffer, now: float) -> None:
        """Bytes from the peer.

        Args:
            data: Any number of them; copied. None at all is not the end, that is :meth:`receive_eof`.
            now: The time in seconds, in the clock that the constructor was given.
        """
        self._engine.receive_data(data, now)

    def receive_eof(self, now: float) -> None:
        """The peer will send no more bytes.

        What came before is still processed, unless a question holds it up: nobody is left to hear the answer.
        Repeated calls do nothing.
        """
        self._engine.receive_eof(now)

    def handle_timeout(self, now: float) -> None:
        """The time of :meth:`next_deadline` has come. Calls that come early or late do no harm."""
        self._engine.handle_timeout(now)

    # ---------------------------------------------------------------------------------------------------------- outputs

    def next_event(self) -> Event | None:
        """The next thing that happened, or None until there is more input, an answer, or room in the output.

        None as well while an unanswered question holds up the input, see :attr:`blocked_on`.
        """
        return self._engine.next_event()

    def data_to_send(self) -> bytes:
        """Everything that waits to be sent, to be written to the transport in this order; ``b""`` if nothing does.

        Taking it makes room, which may bring new events: ask :meth:`next_event` again afterwards.
        """
        return self._engine.data_to_send()

    def next_deadline(self) -> float | None:
        """When :meth:`handle_timeout` should be called, in the clock of ``now``; None if never.

        A command brings no time.  A deadline that one has set counts from the next input on, and may lie in the past
        until then: call :meth:`handle_timeout` all the same, it sets it right.
        """
        return self._engine.timers.earliest

    # ---------------------------------------------------------------------------------------------------------- getters

    @property
    def role(self) -> Role:
        """Whether this is a client or a server."""
        return self._engine.role

    @property
    def phase(self) -> Phase:
        """How far the connection has come."""
        return self._engine.phase

    @property
    def peer_version(self) -> VersionReceived | None:
        """The peer's identification, once read."""
        return self._engine.peer_version

    @property
    def peer_extensions(self) -> dict[str, bytes]:
        """The extensions that the peer has announced (RFC 8308): name to value."""
        return dict(self._engine.extensions.peer)

    @property
    def negotiated(self) -> Negotiated | None:
        """The algorithms in use; None before the first key exchange is complete."""
        return self._engine.kex.negotiated

    @property
    def session_id(self) -> bytes | None:
        """The exchange hash of the first key exchange (RFC 4253 section 7.2); None before."""
        return self._engine.kex.session_id

    @property
    def host_key(self) -> PublicKey | None:
        """The server's host key, once proved and, on a client, accepted; of a certificate the key that is certified."""
        return self._engine.kex.host_key

    @property
    def host_key_blob(self) -> bytes | None:
        """The server's host key, or its certificate, as it was sent in the first key exchange; None before.

        What else is bound to the session names the server by it (OpenSSH's ``publickey-hostbound-v00@openssh.com`` and
        ``session-bind@openssh.com``). A client has it as soon as it is proved, accepted or not.
        """
        return self._engine.kex.host_key_blob

    @property
    def host_key_signature(self) -> bytes | None:
        """The server's signature of :attr:`session_id`, as it was sent in the first key exchange; None before."""
        return self._engine.kex.host_key_signature

    @property
    def rekeying(self) -> bool:
        """Whether a key exchange is under way; ``send`` takes nothing until our NEWKEYS has been sent."""
        return self._engine.kex.active

    @property
    def questions(self) -> tuple[Question, ...]:
        """The questions that the application owes an answer to, oldest first."""
        return self._engine.questions.owed

    @property
    def blocked_on(self) -> Question | None:
        """The question that holds up all input, or None."""
        return self._engine.blocked_on

    @property
    def channels(self) -> tuple[int, ...]:
        """The numbers of all channels that are not closed."""
        return self._engine.mux.channels

    @property
    def output_size(self) -> int:
        """Bytes that :meth:`data_to_send` would return."""
        return self._engine.outbox.size

    @property
    def want_read(self) -> bool:
        """False when reading from the transport should pause: enough waits here already."""
        return self._engine.want_read

    @property
    def should_close(self) -> bool:
        """True once the connection has ended: send what is left, then close the transport.

        When sending takes longer than ``Timeouts.linger``, what is left is dropped, so that a peer that has stopped
        reading can't hold the transport open.
        """
        return self._engine.phase is _CLOSED

    @property
    def error(self) -> ConnectionLoss | None:
        """Why the connection has ended, or None."""
        return self._engine.error

    # --------------------------------------------------------------------------------------------------------- channels

    # There are channels only in their phase.  So the phase is looked at where there is no such channel: that it is the
    # wrong one is the better error then.

    def open_channel(self, kind: ChannelOpenData, *, window: int | None = None, max_packet: int | None = None) -> int:
        """Ask the peer for a channel (RFC 4254 section 5.1). ``ChannelOpened`` or ``ChannelOpenFailed`` follows.

        Args:
            kind: What for, see :mod:`sshproto.channels.requests`.
            window: Bytes that the peer may send before we give credit; None for ``Limits.window``, or less when
                ``Limits.window_pool`` is used up.
            max_packet: Most bytes of data in one packet; ``Limits.channel_packet`` if None.

        Returns:
            The channel's number, never used again in this connection.

        Raises:
            WrongPhase: Nobody is logged in, or the connection has ended.
            InvalidArgument: The kind cannot be sent, or not by this role; a size is out of range.
            LimitReached: ``Limits.channels_from_us`` are open, or too much waits for a key exchange.
        """
        self._engine.need(_OPEN, "open a channel")
        return self._engine.mux.open_channel(kind, window=window, max_packet=max_packet)

    def accept_channel(
        self, question: ChannelOpenRequested, *, window: int | None = None, max_packet: int | None = None
    ) -> None:
        """Let the peer have its channel; it is open at once.

        Args:
            question: Which.
            window, max_packet: See :meth:`open_channel`.

        Raises:
            InvalidArgument: A size is out of range.
            LimitReached: Too much waits for the end of a key exchange.
        """
        engine = self._engine
        engine.answer(question, (ChannelOpenRequested,), engine.mux.accept_channel, question, window, max_packet)

    def reject_channel(
        self,
        question: ChannelOpenRequested,
        reason: int = OpenFailure.ADMINISTRATIVELY_PROHIBITED,
        description: str = "administratively prohibited",
    ) -> None:
        """Refuse the peer its channel.

        Args:
            question: Which.
            reason: A code, see :class:`~sshproto.channels.requests.OpenFailure`.
            description: Words for the peer's user.

        Raises:
            InvalidArgument: The reason or the description cannot be sent.
            LimitReached: Too much waits for the end of a key exchange.
        """
        engine = self._engine
        engine.answer(question, (ChannelOpenRequested,), engine.mux.reject_channel, question, reason, description)

    def request(self, channel: int, request: ChannelRequestData, *, want_reply: bool = True) -> int:
        """Ask something of the other end of a channel (RFC 4254 section 5.4).

        Returns:
            A number by which ``RequestSucceeded`` or ``RequestFailed`` names the request. No such event comes
            without ``want_reply``, nor for what by its nature has no reply: window-change, signal, exit-status,
            exit-signal, xon-xoff, eow@openssh.com.

        Raises:
            UnknownChannel, ChannelStateError: There is no such channel, or it is not open.
            InvalidArgument: The request cannot be sent, or not by this role or on this kind of channel.
            LimitReached: ``Limits.requests_pending`` wait for their replies.
        """
        try:
            return self._engine.mux.request(channel, request, want_reply=want_reply)
        except UnknownChannel:
            self._engine.need(_OPEN, "send a channel request")
            raise

    def global_request(self, request: GlobalRequestData, *, want_reply: bool = True) -> int:
        """Ask something of the peer itself (RFC 4254 section 4). ``GlobalSucceeded`` or ``GlobalFailed`` follows.

        Returns:
            A number by which those events name the request; they come only with ``want_reply``.

        Raises:
            InvalidArgument: The request cannot be sent, or not by this role.
            LimitReached: ``Limits.requests_pending`` wait for their replies.
        """
        self._engine.need(_OPEN, "send a global request")
        return self._engine.mux.global_request(request, want_reply=want_reply)

    def succeed(self, question: ChannelRequested | GlobalRequested, data: bytes = b"") -> None:
        """Grant a request. Answers may be given in any order; the replies leave in the requests' order.

        Args:
            question: Which. If the peer wants no reply, nothing happens.
            data: What the reply to a global request carries.
        """
        engine = self._engine
        engine.answer(question, _REQUESTED, engine.mux.succeed, question, data)

    def fail(self, question: ChannelRequested | GlobalRequested) -> None:
        """Refuse a request. If the peer wants no reply, it hears nothing; a forward gives back its place."""
        engine = self._engine
        if not engine.answer(question, _REQUESTED, engine.mux.fail, question) and not question.want_reply:
            engine.mux.fail(question)

    def send(self, channel: int, data: Buffer, stream: int = 0) -> int:
        """Send data on a channel (RFC 4254 section 5.2).

        Args:
            channel: Its number.
            data: Any number of bytes; copied.
            stream: 0 for data, 1 for standard error, which only a server's session has.

        Returns:
            How many bytes were taken: as many as the peer's window and our output have room for, 0 from our KEXINIT to
            our NEWKEYS. If not all, ``ChannelWritable`` tells when to go on.

        Raises:
            UnknownChannel, ChannelStateError: There is no such channel, or it takes no data.
            WrongPhase: Nobody is logged in, or the connection has ended.
        """
        try:
            return self._engine.mux.send(channel, data, stream)
        except UnknownChannel:
            self._engine.need(_OPEN, "send data")
            raise

    def send_eof(self, channel: int) -> None:
        """Send no more data on a channel; the peer still may (RFC 4254 section 5.3).

        Raises:
            UnknownChannel, ChannelStateError: There is no such channel, it is not open, or EOF was sent.
            LimitReached: Too much waits for the end of a key exchange.
        """
        try:
            self._engine.mux.send_eof(channel)
        except UnknownChannel:
            self._engine.need(_OPEN, "send EOF")
            raise

    def close_channel(self, channel: int) -> None:
        """Close a channel, both directions. ``ChannelClosed`` follows when the peer has closed it as well.

        Raises:
            UnknownChannel, ChannelStateError: There is no such channel, it is closed already, or it is the peer's and
                not decided on.
            LimitReached: Too much waits for the end of a key exchange.
        """
        try:
            self._engine.mux.close_channel(channel)
        except UnknownChannel:
            self._engine.need(_OPEN, "close a channel")
            raise

    def credit(self, channel: int, count: int) -> None:
        """Give the peer room for ``count`` more bytes: so many were used, or thrown away.

        After the channel has closed it does nothing.

        Raises:
            InvalidArgument: More than was received.
            UnknownChannel: There never was such a channel.
        """
        self._engine.mux.credit(channel, count)

    def sendable(self, channel: int) -> int:
        """How many bytes :meth:`send` would take now.

        Raises:
            UnknownChannel: There is no such channel.
            WrongPhase: Nobody is logged in, or the connection has ended.
        """
        try:
            return self._engine.mux.sendable(channel)
        except UnknownChannel:
            self._engine.need(_OPEN, "ask what may be sent")
            raise

    # -------------------------------------------------------------------------------------------------------- transport

    def rekey(self) -> None:
        """Start a key exchange (RFC 4253 section 9); nothing happens if one is under way.

        Raises:
            WrongPhase: Nobody is logged in, or the connection has ended.
        """
        self._engine.rekey()

    def ping(self, data: bytes = b"") -> None:
        """Ask for a ``PongReceived`` with the same data (OpenSSH PROTOCOL section 1.8).

        Raises:
            WrongPhase: Nobody is logged in, or the peer has not said that it answers.
        """
        self._engine.ping(data)

    def ignore(self, data: bytes = b"") -> None:
        """Send SSH_MSG_IGNORE, which the peer throws away (RFC 4253 section 11.2)."""
        self._engine.ignore(data)

    def debug(self, message: str, *, always_display: bool = False) -> None:
        """Send SSH_MSG_DEBUG (RFC 4253 section 11.3)."""
        self._engine.debug(message, always_display=always_display)

    def disconnect(self, description: str = "", *, code: int = DisconnectCode.BY_APPLICATION) -> None:
        """End the connection. ``ConnectionLost`` is the last event.

        What was sent before still leaves, except for what waits for the end of a key exchange (:attr:`rekeying`).

        Args:
            description: Words for the peer.
            code: A code, see :class:`~sshproto.errors.DisconnectCode`.
        """
        self._engine.disconnect(description, code)

    # ---------------------------------------------------------------------------------------------------------- answers

    def sign(self, question: SignatureNeeded, signature: bytes) -> None:
        """The signature that was asked for, in SSH form (RFC 4253 section 6.6).

        Raises:
            InvalidArgument: It does not verify; the question stays open.
        """
        engine = self._engine
        engine.answer(question, (SignatureNeeded,), engine.sign, question, signature)

    def decline_sign(self, question: SignatureNeeded) -> None:
        """There will be no signature: a login goes on to the next method, a key exchange fails."""
        engine = self._engine
        engine.answer(question, (SignatureNeeded,), engine.decline_sign, question)

    def refuse(self, question: Question) -> None:
        """Give ``question``, of whatever kind, its safe answer: no."""
        for kind, answer in self._REFUSALS.items():
            if isinstance(question, kind):
                answer(self, question)
                return
        raise UsageError(f"a {type(question).__name__} is not a question of this connection")

    def _refuse_channel(self, question: ChannelOpenRequested) -> None:
        if isinstance(question.kind, UnknownOpen):
            self.reject_channel(question, OpenFailure.UNKNOWN_CHANNEL_TYPE, "unknown channel type")
        else:
            self.reject_channel(question)

    _REFUSALS: ClassVar[dict[type[Question], Callable[[Any, Any], None]]] = {
        ChannelOpenRequested: _refuse_channel,
        ChannelRequested: fail,
        GlobalRequested: fail,
        SignatureNeeded: decline_sign,
    }
    """The safe answer to each kind of question; each role adds its own."""
