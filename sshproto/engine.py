"""What runs on top of the transport: login, then channels (RFC 4252, RFC 4254).

An :class:`Engine` is a :class:`~sshproto.transport.link.Link` with its upper half filled in: it routes the
messages 50 to 79 to the authentication machine of its role and 80 to 100 to the channel multiplexer, opens the
connection when the login has succeeded, and asks a silent peer whether it is still there.  It is what runs inside a
:class:`~sshproto.connection.Connection`, which is what applications hold.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from sshproto.channels.inbound import BRIEF, WHOLE
from sshproto.channels.mux import Mux
from sshproto.channels.requests import Keepalive
from sshproto.errors import ProtocolViolation, TimedOut
from sshproto.events import GlobalFailed, GlobalSucceeded, PongReceived
from sshproto.timers import Timer
from sshproto.transport.extensions import PING
from sshproto.transport.link import Handler, Link, Phase
from sshproto.wire import messages
from sshproto.wire.messages import ChannelData, ChannelWindowAdjust, Ping, ServiceAccept, ServiceRequest
from sshproto.wire.table import State, message_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from sshproto.channels.inbound import Inbound
    from sshproto.config import Config
    from sshproto.errors import ConnectionLoss
    from sshproto.events import Event, SignatureNeeded
    from sshproto.wire.codec import Buffer
    from sshproto.wire.messages import Message

USERAUTH = "ssh-userauth"
"""The service that logs in (RFC 4252 section 4)."""

WANTED, GRANTED = ServiceRequest(USERAUTH), ServiceAccept(USERAUTH)
WANTED_PAYLOAD, GRANTED_PAYLOAD = WANTED.encode(), GRANTED.encode()
"""What begins every login, the same in each."""

_KEEPALIVE = b"sshproto keepalive"
"""Data of the PINGs that ask whether the peer is there; their answers are nobody else's business."""

_NOBODY: frozenset[int] = frozenset()


def _whole(take: Callable[[Inbound, Buffer], Event | None]) -> Handler:
    """Has ``take`` get the whole payload of a message of the connection protocol."""

    def handle(engine: Engine[Any], payload: Buffer) -> Event | None:
        return take(engine.mux.inbound, payload)

    return handle


def _brief(message: type[Message], take: Callable[[Inbound, int], Event | None]) -> Handler:
    """Has ``take`` get what is in a message of one number and nothing else."""
    unpack = struct.Struct(">BI").unpack

    def handle(engine: Engine[Any], payload: Buffer) -> Event | None:
        try:
            _, number = unpack(payload)
        except struct.error:
            message.parse(payload)  # which says what is wrong with it
            raise
        return take(engine.mux.inbound, number)

    return handle


class LoginMachine(Protocol):
    """What the authentication machines of the two roles have in common.

    Attributes:
        context: The method that gives the numbers 60 to 79 their meaning.
        lost: Why the connection must end, if it must.
    """

    lost: ConnectionLoss | None

    @property
    def context(self) -> str: ...

    def receive(self, message: Message) -> None:
        """Take one message of the peer."""


A = TypeVar("A", bound=LoginMachine)


class Engine(Link, Generic[A]):
    """The engine of one live connection; the roles are in :mod:`sshproto.client` and :mod:`sshproto.server`.

    Attributes:
        mux: The channels.
        auth: The authentication machine, from the moment its service is accepted until it has let somebody in.
    """

    __slots__ = ("_heard", "_keepalives", "_unanswered", "auth", "mux")

    def __init__(self, config: Config, now: float) -> None:
        self.auth: A | None = None
        super().__init__(config, now)
        self.mux = Mux(self.role, config, self)
        self._keepalives = _NOBODY
        self._unanswered = 0  # keepalives, since the peer was last heard
        self._heard = 0  # bytes of the peer that had come when the last one was sent

    # ---------------------------------------------------------------------------------------------------------- routing

    def _on_login(self, payload: Buffer) -> None:
        message = messages.decode(payload, self._upper_context())
        if message is None:
            raise ProtocolViolation(f"{message_name(payload[0])} means nothing to the authentication method of now")
        if self.auth is not None:
            self.auth.receive(message)
            self.login_step()

    def _on_adjust(self, payload: Buffer) -> None:
        self.mux.adjust(payload)

    def _on_data(self, payload: Buffer) -> Event | None:
        return self.mux.data(payload)

    def _upper_context(self) -> str:
        return self.auth.context if self.auth is not None else ""

    def _unimplemented(self, tag: int) -> None:
        self.mux.unimplemented(tag)

    def _writable(self) -> None:
        self.mux.writable()

    def _ended(self) -> None:
        self.mux.lost()

    def _concerns(self, event: Event) -> bool:
        if isinstance(event, PongReceived) and event.data == _KEEPALIVE:
            return False
        if isinstance(event, (GlobalSucceeded, GlobalFailed)) and event.request_id in self._keepalives:
            # Either answer shows that the peer is there.
            self._keepalives = self._keepalives - {event.request_id} or _NOBODY
            return False
        return super()._concerns(event)

    _WATCHED = Link._WATCHED | {PongReceived, GlobalSucceeded, GlobalFailed}

    _HANDLERS: ClassVar[dict[int, Handler]] = {
        **Link._HANDLERS,
        **dict.fromkeys(range(50, 80), _on_login),
        **{message.number: _whole(take) for message, take in WHOLE.items()},
        **{message.number: _brief(message, take) for message, take in BRIEF.items()},
        ChannelWindowAdjust.number: _on_adjust,
        ChannelData.number: _on_data,
    }

    # ------------------------------------------------------------------------------------------------------------ login

    def _transport_ready(self) -> None:
        self.timers.arm(Timer.AUTH, self.config.timeouts.auth)

    def login_step(self) -> None:
        """The login has moved, by a message or by an answer."""
        auth = self.auth
        if auth is not None and auth.lost is not None:
            self.lose(auth.lost)

    def _logged_in(self) -> None:
        """USERAUTH_SUCCESS has just passed: everything behind it is the connection protocol."""
        self.phase = Phase.OPEN
        self.auth = None
        self._enter(State.OPEN)
        self._take_care()
        self.opener.packet_limit = self.config.limits.packet
        self.kex.login_passed()
        self.timers.stop(Timer.AUTH)
        self._last_heard = self.timers.now
        self.timers.arm(Timer.KEEPALIVE, self.config.timeouts.keepalive)

    def sign(self, question: SignatureNeeded, signature: bytes) -> None:
        """The application has signed what it was asked to sign."""
        raise NotImplementedError

    def decline_sign(self, question: SignatureNeeded) -> None:
        """The application will not sign."""
        raise NotImplementedError

    # -------------------------------------------------------------------------------------------------------- keepalive

    def _expired(self, timer: Timer) -> None:
        if timer is not Timer.KEEPALIVE:
            super()._expired(timer)
            return
        interval = self.config.timeouts.keepalive
        if interval is None or self.phase is not Phase.OPEN:
            return
        due = self._last_heard + interval
        if self.timers.now < due:
            self.timers.arm_at(timer, due)
            return
        self.timers.arm(timer, interval)
        if self.outbox.held or self.blocked_on is not None:
            return  # a key exchange has a deadline of its own; and a peer that waits for our answer need not speak
        if self.opener.fed != self._heard:
            self._heard = self.opener.fed
            self._unanswered = 0
        if self._unanswered >= self.config.timeouts.keepalive_count:
            silence = self.timers.now - self._last_heard
            raise TimedOut(f"the peer has been silent for {silence:.0f} seconds", timer.value)
        self._unanswered += 1
        if PING in self.extensions.peer:
            self.send(Ping(_KEEPALIVE))
        elif not self.mux.awaits_reply:  # else it owes us one already
            self._keepalives = self._keepalives | {self.mux.global_request(Keepalive())}
