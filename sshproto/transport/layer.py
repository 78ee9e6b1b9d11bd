"""The transport protocol's own messages (RFC 4253 sections 9 to 11), the age of keys, and the deadlines.

:class:`TransportLayer` fills in what a :class:`~sshproto.transport.link.Link` leaves open for the messages 1 to 49 and
OpenSSH's 192 and 193, decides when keys are old, and keeps a peer from making us exchange keys all day.  What runs on
top of it, :class:`~sshproto.session.Session`, fills in the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from sshproto.errors import InvalidArgument, LimitExceeded, PeerDisconnected, ProtocolViolation, TimedOut, WrongPhase
from sshproto.events import DebugReceived, ExtInfoReceived, KeysExchanged, PongReceived, UnimplementedReceived
from sshproto.timers import Timer
from sshproto.transport.link import SAFE_PAYLOAD, Link, Phase
from sshproto.wire.messages import Debug, Disconnect, ExtInfo, Ignore, Ping, Pong, Unimplemented
from sshproto.wire.table import Role, State

if TYPE_CHECKING:
    from sshproto.config import Config
    from sshproto.wire.codec import Buffer
    from sshproto.wire.messages import Message

PING = "ping@openssh.com"
EXT_INFO_IN_AUTH = "ext-info-in-auth@openssh.com"

_HARD_PACKETS = 2**32 - 2**16  # no key may ever see a sequence number twice, whatever the peer does (RFC 4344 3.1)
_MINUTE = 60.0


class TransportLayer(Link):
    """A link that speaks all of RFC 4253.

    Attributes:
        peer_extensions: The extensions that the peer has announced (RFC 8308): name to value.
    """

    def __init__(self, config: Config, now: float) -> None:
        super().__init__(config, now)
        self.peer_extensions: dict[str, bytes] = {}
        self._exchanges = 0
        self._ext_infos = 0
        self._ping_offered = False
        self._peer_rekeys = float(config.limits.peer_rekeys)
        self._peer_rekeys_at = now
        self._peer_rekeys_received = 0
        self._arm(Timer.HANDSHAKE, config.timeouts.handshake)

    # --------------------------------------------------------------------------------------------------------- commands

    def rekey(self) -> None:
        """Start a key exchange, unless one is under way."""
        self.need(Phase.OPEN, "rekey")
        if not self.kex.active:
            self._start_rekey()

    def ping(self, data: bytes) -> None:
        """Send a PING, if the peer answers them."""
        self.need(Phase.OPEN, "ping")
        if PING not in self.peer_extensions:
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
        size = len(message.encode())
        if size > SAFE_PAYLOAD:
            raise InvalidArgument(f"{size} bytes of payload: a peer need not accept more than {SAFE_PAYLOAD}")
        self.send(message)

    # ----------------------------------------------------------------------------------------------- for what is on top

    def _our_extensions(self) -> tuple[tuple[str, bytes], ...]:
        """What our EXT_INFO says; none, and it is not sent."""
        return ()

    def _extensions_changed(self) -> None:
        """``peer_extensions`` has new entries."""

    def _transport_ready(self) -> None:
        """The first key exchange is complete."""

    def _dispatch_service(self, number: int, payload: Buffer) -> None:
        """A legal SERVICE_REQUEST or SERVICE_ACCEPT."""
        raise NotImplementedError

    def _unimplemented(self, tag: int) -> None:
        """The peer does not know the message that was sent with ``tag``."""

    # --------------------------------------------------------------------------------------------------------- messages

    def _on_disconnect(self, payload: bytes) -> None:
        message = Disconnect.parse(payload)
        raise PeerDisconnected(message.reason, message.description)

    def _on_ignore(self, payload: bytes) -> None:
        Ignore.parse(payload)

    def _on_unimplemented(self, payload: bytes) -> None:
        number = Unimplemented.parse(payload).sequence_number
        tag = self._tags.pop(number, None)
        if tag is not None:
            self._unimplemented(tag)
        self.emit(UnimplementedReceived(number))

    def _on_debug(self, payload: bytes) -> None:
        message = Debug.parse(payload)
        self.emit(DebugReceived(message.message, message.always_display))

    def _on_service(self, payload: bytes) -> None:
        self._dispatch_service(payload[0], payload)
        self._update_verdicts()

    def _on_ext_info(self, payload: bytes) -> None:
        """RFC 8308 section 2.4: right after NEWKEYS, and to a client once more before or with the end of login."""
        message = ExtInfo.parse(payload)
        if self._state is State.TRANSPORT and (self._exchanges != 1 or self.opener.packets != 1):
            raise ProtocolViolation("EXT_INFO came late: it must be the first packet after the first NEWKEYS")
        self._ext_infos += 1
        if self._ext_infos > 2:
            raise ProtocolViolation("a third EXT_INFO came")
        for name, value in reversed(message.extensions):  # of two of a name the first counts
            self.peer_extensions[name] = value
        self._extensions_changed()
        self.emit(ExtInfoReceived(message.extensions))

    def _on_kexinit(self, payload: bytes) -> None:
        if self.kex.session_id is not None:
            if not self.kex.active:
                self._charge_peer_rekey()
            self._arm(Timer.KEX, self.config.timeouts.kex)
        self.kex.receive_init(payload, (self.opener.sequence_number - 1) & 0xFFFFFFFF)
        self._update_verdicts()

    def _on_new_keys(self, payload: bytes) -> None:
        self.kex.receive_new_keys(payload)
        self._update_verdicts()
        self._after_kex_step()

    def _on_kex_method(self, payload: bytes) -> None:
        self.kex.receive_method(payload)
        self._after_kex_step()

    def _dispatch_transport(self, number: int, payload: bytes) -> None:
        self._TRANSPORT[number](self, payload)

    def _on_ping(self, payload: bytes) -> None:
        message = Ping.parse(payload)
        if self._ping_offered:
            self.send(Pong(message.data))
        else:
            self.not_implemented()

    def _on_pong(self, payload: bytes) -> None:
        self.emit(PongReceived(Pong.parse(payload).data))

    _TRANSPORT: ClassVar[dict[int, Callable[[Any, bytes], None]]] = {
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

    # ----------------------------------------------------------------------------------------------- keys and their age

    def _keys_exchanged(self, event: KeysExchanged) -> None:
        self._exchanges += 1
        self._timers.stop(Timer.KEX)
        self._arm(Timer.REKEY, self.config.timeouts.rekey)
        if not event.first:
            return
        self._timers.stop(Timer.HANDSHAKE)
        self.phase = Phase.AUTH
        self._state = State.TRANSPORT
        self._transport_ready()

    def new_keys_sent(self) -> None:
        """RFC 8308 section 2.4: our EXT_INFO is the very next packet after our first NEWKEYS."""
        if self._exchanges:
            return
        offer = self.kex.peer_offer
        wanted = "ext-info-s" if self.role is Role.CLIENT else "ext-info-c"
        extensions = self._our_extensions()
        if extensions and offer is not None and wanted in offer.kex_algorithms:
            self._ping_offered = any(name == PING for name, _ in extensions)
            self.send(ExtInfo(extensions))

    def _start_rekey(self) -> None:
        self._arm(Timer.KEX, self.config.timeouts.kex)
        self.kex.start()

    def _consider_rekey(self) -> None:
        """A key has reached its limit."""
        if max(self.sealer.packets, self.opener.packets) >= _HARD_PACKETS:
            self.lose(LimitExceeded("a key has served as many packets as it safely can", "rekey_packets"))
        elif self.phase is Phase.OPEN and not self.kex.active:
            self._start_rekey()

    def _charge_peer_rekey(self) -> None:
        """Key exchanges are dear; a peer may start them as it moves data, and some more."""
        limits = self.config.limits
        earned = (self.now - self._peer_rekeys_at) / _MINUTE * limits.peer_rekeys
        earned += (self._received - self._peer_rekeys_received) / limits.peer_rekey_bytes
        self._peer_rekeys_at = self.now
        self._peer_rekeys_received = self._received
        self._peer_rekeys = min(self._peer_rekeys + earned, float(limits.peer_rekeys)) - 1.0
        if self._peer_rekeys < 0:
            raise LimitExceeded("the peer rekeys too often", "peer_rekeys")

    # ----------------------------------------------------------------------------------------------------------- timers

    def _expired(self, timer: Timer) -> None:
        """A deadline has passed. The upper half takes its own timers and leaves the others to this."""
        if timer is Timer.LINGER:
            self._out.clear()
            self.output_size = 0
        elif timer is Timer.REKEY:
            if self.phase is not Phase.OPEN:
                self._arm(timer, self.config.timeouts.rekey)
            elif not self.kex.active:
                self._start_rekey()
        else:
            raise TimedOut(f"the time for {timer.value} is over", timer.value)
