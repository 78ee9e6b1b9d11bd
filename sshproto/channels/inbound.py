"""What the peer says about channels, other than data and window adjusts, and our reaction to it.

A message that :data:`~sshproto.channels.channel.CHANNEL_MESSAGES` does not allow ends the connection.  Opens that we
do not want are refused; requests that make no sense here fail, or are ignored if no reply is wanted (RFC 4254
sections 5.1 and 5.4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from sshproto.channels import payloads
from sshproto.channels.channel import CLOSE_OUT, EOF_IN, OPEN, STDERR, Channel, Reply, handling
from sshproto.channels.global_requests import GlobalRequests
from sshproto.channels.registry import OPENED_AT, REQUESTED_OF, Registry
from sshproto.channels.requests import (
    CHANNEL_REQUESTS,
    ChannelOpenData,
    ChannelRequestData,
    Env,
    KeepaliveChannel,
    Kind,
    OpenFailure,
    Session,
    Signal,
    UnknownOpen,
    UnknownRequest,
    kind_of,
    request_of,
)
from sshproto.errors import LimitExceeded, ProtocolViolation, WireError
from sshproto.events import (
    ChannelClosed,
    ChannelNotified,
    ChannelOpened,
    ChannelOpenFailed,
    ChannelOpenRequested,
    ChannelRequested,
    DataReceived,
    EofReceived,
    Event,
    RequestFailed,
    RequestSucceeded,
)
from sshproto.text import printable
from sshproto.wire.codec import Buffer, is_name
from sshproto.wire.messages import (
    ChannelClose,
    ChannelEof,
    ChannelExtendedData,
    ChannelFailure,
    ChannelOpen,
    ChannelOpenConfirmation,
    ChannelOpenFailure,
    ChannelRequest,
    ChannelSuccess,
    GlobalRequest,
    Message,
    RequestFailure,
    RequestSuccess,
)
from sshproto.wire.table import Role

# In which states they are handled, as is nearly always so. When it is not, the registry says what to do; the answer to
# an open, and a CLOSE, are never ignored.
_CONFIRMABLE = handling(ChannelOpenConfirmation)
_REFUSABLE = handling(ChannelOpenFailure)
_ENDABLE = handling(ChannelEof)
_CLOSABLE = handling(ChannelClose)
_REPLIABLE = handling(ChannelSuccess)
_REQUESTABLE = handling(ChannelRequest)


class Inbound:
    """The peer's side of the multiplexer.

    What takes a message returns what there is to tell of it, which is one event at most.
    """

    __slots__ = ("_global", "_limits", "_openable", "_outlet", "_registry", "_requestable", "_role")

    def __init__(self, registry: Registry, global_requests: GlobalRequests) -> None:
        self._registry = registry
        self._global = global_requests
        self._role = registry.role
        self._limits = registry.config.limits
        self._outlet = registry.outlet
        self._openable = OPENED_AT[self._role]
        self._requestable = REQUESTED_OF[self._role]

    def _global_request(self, payload: Buffer) -> None:
        self._global.requested(GlobalRequest.parse(payload))

    def _global_success(self, payload: Buffer) -> None:
        self._global.replied(True, RequestSuccess.parse(payload).payload)

    def _global_failure(self, payload: Buffer) -> None:
        RequestFailure.parse(payload)
        self._global.replied(False, b"")

    def _open(self, payload: Buffer) -> Event | None:
        channel_type, peer_number, window, packet, particulars = payloads.read_open(payload)
        registry = self._registry
        if peer_number in registry.peer_numbers:
            raise ProtocolViolation(f"CHANNEL_OPEN with number {peer_number}, which another channel of the peer has")
        kind = self._wanted(channel_type, packet, particulars)
        if isinstance(kind, tuple):
            reason, description = kind
            registry.tell(ChannelOpenFailure(peer_number, reason, description).encode())
            return None
        channel = registry.add(kind, ours=False)
        registry.named(channel, peer_number, window, packet)
        if registry.invitations.x11:
            registry.invitations.used(kind)
        questions = self._outlet.questions
        question = ChannelOpenRequested(id=questions.new_id(), channel=channel.number, kind=kind)
        questions.add(question, len(particulars))
        return question

    def _wanted(self, channel_type: str, packet: int, particulars: bytes) -> ChannelOpenData | tuple[OpenFailure, str]:
        """The kind of a channel that may be asked for, or why it may not."""
        registry, limits = self._registry, self._limits
        try:
            kind = kind_of(channel_type, particulars)
        except WireError as error:
            return OpenFailure.ADMINISTRATIVELY_PROHIBITED, f"malformed: {error.problem}"
        cls = type(kind)
        if cls not in self._openable:
            return OpenFailure.ADMINISTRATIVELY_PROHIBITED, f"not at a {self._role.value}"
        if cls is Session:
            if self._global.no_more_sessions:
                return OpenFailure.ADMINISTRATIVELY_PROHIBITED, "no more sessions were wanted"
        elif isinstance(kind, UnknownOpen):
            if not is_name(kind.type):
                return OpenFailure.UNKNOWN_CHANNEL_TYPE, "that is no name"
        elif not registry.invitations.covers(kind):
            return OpenFailure.ADMINISTRATIVELY_PROHIBITED, "not requested"
        elif _longest(kind) > limits.host_name:
            return OpenFailure.ADMINISTRATIVELY_PROHIBITED, "host name or address too long"
        if packet < limits.smallest_channel_packet:
            return OpenFailure.RESOURCE_SHORTAGE, f"packets of less than {limits.smallest_channel_packet} bytes"
        if len(registry.channels) - registry.by_us >= limits.channels_from_peer:
            return OpenFailure.RESOURCE_SHORTAGE, "too many channels"
        if cls is Session and registry.sessions >= limits.sessions:
            return OpenFailure.RESOURCE_SHORTAGE, "too many sessions"
        if registry.asked >= limits.opens_pending:
            return OpenFailure.RESOURCE_SHORTAGE, "too many channels are being opened"
        if particulars and not registry.has_room(particulars):
            return OpenFailure.RESOURCE_SHORTAGE, "too much waits to be decided"
        return kind

    def _confirmation(self, payload: Buffer) -> Event | None:
        number, peer_number, window, packet, data = payloads.read_confirmation(payload)
        registry = self._registry
        channel = registry.channels.get(number)
        if channel is None or channel.state not in _CONFIRMABLE:
            raise registry.violation(ChannelOpenConfirmation, number)
        registry.windows.answered(channel, self._outlet.timers.now)
        if peer_number in registry.peer_numbers:
            raise ProtocolViolation(
                f"CHANNEL_OPEN_CONFIRMATION with number {peer_number}, which another channel of the peer has",
            )
        smallest = self._limits.smallest_channel_packet
        if packet < smallest:
            raise LimitExceeded(
                f"CHANNEL_OPEN_CONFIRMATION allows packets of {packet} bytes, "
                f"at least {smallest} are needed (Limits.smallest_channel_packet)",
                "smallest_channel_packet",
            )
        registry.named(channel, peer_number, window, packet)
        if channel.abandoned:
            registry.tell(payloads.close(peer_number))
            channel.move(CLOSE_OUT)
            return None
        channel.move(OPEN)
        return ChannelOpened(number, data)

    def _open_failure(self, payload: Buffer) -> Event | None:
        message = ChannelOpenFailure.parse(payload)
        number = message.recipient_channel
        registry = self._registry
        channel = registry.channels.get(number)
        if channel is None or channel.state not in _REFUSABLE:
            raise registry.violation(ChannelOpenFailure, number)
        registry.forget(channel)
        return ChannelOpenFailed(number, message.reason, printable(message.description, 4096))

    def _extended_data(self, payload: Buffer) -> Event | None:
        message = ChannelExtendedData.parse(payload)
        number = message.recipient_channel
        length = len(message.data)
        channel = self._registry.channels.get(number)
        if channel is None or not channel.receiving:
            self._registry.unreceivable(ChannelExtendedData, number, length)
            return None
        if not length:
            self._registry.empty(channel)
            return None
        channel.take(length)
        if message.data_type != STDERR or (self._role is Role.SERVER and isinstance(channel.kind, Session)):
            # Nobody will read it, so nobody else would give its room back.
            channel.consumed += length
            if channel.consumed >= channel.give_back_at:
                self._registry.give_back(channel)
            return None
        channel.unread += length
        return DataReceived(number, message.data, STDERR)

    def _eof(self, number: int) -> Event | None:
        channel = self._registry.channels.get(number)
        if channel is None or channel.state not in _ENDABLE:
            self._registry.admit(ChannelEof, number)
            return None
        channel.move(EOF_IN)
        return EofReceived(number)

    def _close(self, number: int) -> Event | None:
        registry = self._registry
        channel = registry.channels.get(number)
        if channel is None or channel.state not in _CLOSABLE:
            raise registry.violation(ChannelClose, number)
        if channel.state is not CLOSE_OUT:
            registry.tell(payloads.close(channel.peer_number))
            registry.closing(channel)
        registry.forget(channel)
        return ChannelClosed(number)

    def _request(self, payload: Buffer) -> Event | None:
        number, request_type, want_reply, particulars = payloads.read_request(payload)
        registry = self._registry
        channel = registry.channels.get(number)
        if channel is None or channel.state not in _REQUESTABLE:
            registry.admit(ChannelRequest, number)
            return None
        if not channel.ours:  # else it may have nothing to do with what we asked
            registry.windows.answered(channel, self._outlet.timers.now)
        if want_reply and len(channel.owed) >= self._limits.requests_pending:
            raise LimitExceeded(
                f"{len(channel.owed)} requests on channel {number} are unanswered (Limits.requests_pending)",
                "requests_pending",
            )
        request = self._heard(channel, request_type, particulars)
        if request is not None:
            if request.notice:
                notified = ChannelNotified(number, request)
                if not want_reply:  # nor should it be
                    return notified
                self._outlet.emit(notified)
            elif not want_reply or registry.has_room(particulars):
                questions = self._outlet.questions
                question_id = questions.new_id()
                if request.starts:
                    channel.started = True
                question = ChannelRequested(id=question_id, channel=number, request=request, want_reply=want_reply)
                if want_reply:
                    channel.owed += (Reply(question_id, None),)
                    questions.add(question, len(particulars))
                return question
        if want_reply:
            channel.owed += (Reply(None, False),)
            if not registry.flush(channel):
                raise LimitExceeded("too many replies wait for the end of a key exchange", "deferred_packets")
        return None

    def _heard(self, channel: Channel, request_type: str, particulars: bytes) -> ChannelRequestData | None:
        """The request, if the application should hear of it: None if it makes no sense here, or is malformed."""
        cls = CHANNEL_REQUESTS.get(request_type, UnknownRequest)
        if cls not in self._requestable:
            return None
        if cls.session_only and type(channel.kind) is not Session and not channel.session_like:
            return None
        if cls.starts and channel.started:
            return None
        try:
            request = request_of(request_type, particulars)
        except WireError:
            return None
        check = self._CHECKS.get(cls)
        return request if check is None or check(self, channel, request) else None

    def _few(self, channel: Channel, request: Env) -> bool:
        channel.environment += 1
        return channel.environment <= self._limits.environment

    def _is_signal(self, channel: Channel, request: Signal) -> bool:
        return is_name(request.name)  # what is no name is no signal

    def _is_request(self, channel: Channel, request: UnknownRequest) -> bool:
        return is_name(request.type)

    def _never(self, channel: Channel, request: KeepaliveChannel) -> bool:
        return False  # failure is what OpenSSH answers, and any reply will do

    _CHECKS: ClassVar[dict[type, Callable[[Any, Channel, Any], bool]]] = {
        Env: _few,
        Signal: _is_signal,
        UnknownRequest: _is_request,
        KeepaliveChannel: _never,
    }
    """What else there is to be said about a request."""

    def _success(self, number: int) -> Event | None:
        reply = self._reply(ChannelSuccess, number)
        return None if reply is None else RequestSucceeded(number, reply[0])

    def _failure(self, number: int) -> Event | None:
        reply = self._reply(ChannelFailure, number)
        if reply is None:
            return None
        if reply[1].invites:
            self._registry.invitations.refused_on(number, reply[1])
        return RequestFailed(number, reply[0])

    def _reply(self, message: type[Message], number: int) -> tuple[int, ChannelRequestData] | None:
        """What the reply that came on a channel is to, if it is to something."""
        registry = self._registry
        channel = registry.channels.get(number)
        if channel is None or channel.state not in _REPLIABLE:
            registry.admit(message, number)
            return None
        if not channel.requested:
            self._global.count_unsolicited()
            return None
        registry.windows.answered(channel, self._outlet.timers.now)
        reply = channel.requested[0]
        channel.requested = channel.requested[1:]
        return reply

    _WHOLE: ClassVar[dict[type[Message], Callable[[Any, Buffer], Event | None]]] = {
        GlobalRequest: _global_request,
        RequestSuccess: _global_success,
        RequestFailure: _global_failure,
        ChannelOpen: _open,
        ChannelOpenConfirmation: _confirmation,
        ChannelOpenFailure: _open_failure,
        ChannelExtendedData: _extended_data,
        ChannelRequest: _request,
    }
    _BRIEF: ClassVar[dict[type[Message], Callable[[Any, int], Event | None]]] = {
        ChannelEof: _eof,
        ChannelClose: _close,
        ChannelSuccess: _success,
        ChannelFailure: _failure,
    }


WHOLE = Inbound._WHOLE
"""What takes the payload of each message."""
BRIEF = Inbound._BRIEF
"""What takes those that say nothing but a channel's number, which is what it gets. They are half of all."""


def _longest(kind: Kind) -> int:
    """Bytes of the longest text in it: where to or from where, which is kept for as long as the channel lives."""
    texts = [value for field, _ in kind.codecs() if isinstance(value := getattr(kind, field), str)]
    return max((len(text.encode("utf-8", "surrogateescape")) for text in texts), default=0)
