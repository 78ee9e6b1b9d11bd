"""From the messages of somebody else's connection to the events that their receiver would have been told.

Each side numbers channels by itself, so one channel has two numbers, and numbers are used again.  Events of a recording
number channels in the order in which they were asked for, from 0; -1 is a channel that was never seen opened.

A message often means something only together with one that the other side has sent before: a reply with its request, a
channel's number with the message that gave it.  :meth:`Interpreter.ready` says whether that one has been seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import attrs

from sshproto.auth import methods
from sshproto.channels.requests import (
    UnknownGlobal,
    UnknownOpen,
    UnknownRequest,
    decode_global,
    decode_open,
    decode_request,
)
from sshproto.config import UNATTENDED
from sshproto.errors import KeyFormatError, PeerDisconnected, SignatureInvalid, WireError
from sshproto.events import (
    AuthFailed,
    AuthSucceeded,
    BannerReceived,
    ChannelClosed,
    ChannelNotified,
    ChannelOpened,
    ChannelOpenFailed,
    ChannelOpenRequested,
    ChannelRequested,
    ConnectionLost,
    DataReceived,
    DebugReceived,
    EofReceived,
    Event,
    ExtInfoReceived,
    GlobalFailed,
    GlobalRequested,
    GlobalSucceeded,
    InteractiveAuth,
    KeyAuth,
    KeyProbe,
    NoneAuth,
    PasswordAuth,
    PasswordExpired,
    PongReceived,
    Prompt,
    PromptsAnswered,
    PromptsReceived,
    RequestFailed,
    RequestSucceeded,
    UnimplementedReceived,
)
from sshproto.keys.public import LOWEST_RSA_BITS, PublicKey
from sshproto.keys.signatures import SIGNATURES
from sshproto.replay.events import Side
from sshproto.text import multiline, printable
from sshproto.values import define
from sshproto.wire import messages as m
from sshproto.wire.codec import Reader
from sshproto.wire.table import message_name

if TYPE_CHECKING:
    from sshproto.keys.certificates import Certificate

_KEPT = 1024
"""Requests of one channel or side that are remembered until their replies come; more are not matched."""

_CHANNELS = 1 << 16
"""Channels at a time; more are not followed."""

_AUTH_REQUEST = m.UserauthRequest.number
_AUTH_ENDS = (m.UserauthFailure.number, m.UserauthSuccess.number)


def of_method(number: int) -> bool:
    """Whether a message number gets its meaning from an authentication method."""
    return 60 <= number <= 79


def decode(payload: bytes, context: str) -> tuple[m.Message | None, str]:
    """A message, and what is wrong with it, in words; bytes that are left over do not count as much as for a receiver.

    Args:
        payload: Message number and fields.
        context: See :func:`sshproto.wire.messages.lookup`.
    """
    kind = m.lookup(payload[0], context)
    if kind is None:
        return None, ""
    name = message_name(payload[0], context)
    reader = Reader(payload, name, 1)
    try:
        message = kind.read(reader)
    except WireError as error:
        return None, f"{name} does not decode: {error}"
    return message, f"{name} has {reader.remaining} bytes too many at its end" if reader.remaining else ""


def _read_shown(algorithm: str, blob: bytes) -> PublicKey | Certificate:
    """The key or the certificate in a login's request.

    Raises:
        KeyFormatError: It is no good.
    """
    if algorithm in SIGNATURES:
        return PublicKey.from_blob(blob, minimum_rsa_bits=LOWEST_RSA_BITS)
    from sshproto.keys.certificates import Certificate

    return Certificate.from_blob(blob, minimum_rsa_bits=LOWEST_RSA_BITS, authority_algorithms=tuple(SIGNATURES))


class _Logins:
    """Which of the client's messages the server answers: each gets one answer, in order (RFC 4252 section 5).

    Dialogs of GSSAPI (RFC 4462 section 3) don't keep to that; there only the last answer counts.

    Attributes:
        method: What the client last asked to log in with.
    """

    def __init__(self) -> None:
        self.method = ""
        self._asked: deque[tuple[str, bool]] = deque()
        self._skip = False

    def ask(self, number: int) -> None:
        if len(self._asked) < _KEPT:
            self._asked.append((self.method, number == _AUTH_REQUEST))

    @property
    def asked(self) -> bool:
        """Whether there is a message to answer."""
        while self._skip and self._asked and not self._asked[0][1]:
            self._asked.popleft()
        return bool(self._asked)

    @property
    def answered(self) -> str:
        """The method that the next answer is about."""
        return self._asked[0][0] if self.asked else self.method

    def answer(self, number: int) -> None:
        if not self.asked:
            return
        ends = number in _AUTH_ENDS
        if ends or not self._asked[0][0].startswith("gssapi"):
            self._asked.popleft()
        self._skip = ends


@define(eq=False)
class _Channel:
    number: int
    keys: list[tuple[Side, int]]
    closed: set[Side] = attrs.Factory(set[Side])
    requests: dict[Side, deque[int]] = attrs.field(factory=lambda: {side: deque(maxlen=_KEPT) for side in Side})


class Interpreter:
    """What the messages of one connection mean.

    Attributes:
        client: Who is the client; None if that is not known.
        session_id: The exchange hash of the first key exchange; None if that is not known.
        user: The name that the client last asked to log in with, printable.
    """

    def __init__(self) -> None:
        self.client: Side | None = None
        self.session_id: bytes | None = None
        self.user = ""
        self._logins = _Logins()
        self._ids = dict.fromkeys(Side, 0)
        self._channels: dict[tuple[Side, int], _Channel] = {}
        self._opened = 0
        self._globals: dict[Side, deque[int]] = {side: deque(maxlen=_KEPT) for side in Side}
        self._handlers: dict[type[m.Message], Callable[[Side, Any], Iterable[Event]]] = {
            m.Disconnect: lambda _, it: [ConnectionLost(PeerDisconnected(it.reason, it.description))],
            m.Unimplemented: lambda _, it: [UnimplementedReceived(it.sequence_number)],
            m.Debug: lambda _, it: [DebugReceived(printable(it.message), it.always_display)],
            m.ExtInfo: lambda _, it: [ExtInfoReceived(tuple(it.extensions))],
            m.Pong: lambda _, it: [PongReceived(it.data)],
            m.UserauthRequest: self._auth_request,
            m.UserauthFailure: self._auth_failure,
            m.UserauthSuccess: self._auth_success,
            m.UserauthBanner: lambda _, it: [BannerReceived(multiline(it.message), it.message, it.language)],
            m.UserauthPasswdChangereq: lambda side, it: [
                PasswordExpired(id=self._id(side), prompt=printable(it.prompt))
            ],
            m.UserauthInfoRequest: self._prompts,
            m.UserauthInfoResponse: lambda side, it: [
                PromptsAnswered(id=self._id(side), user=self.user, answers=tuple(it.responses))
            ],
            m.GlobalRequest: self._global_request,
            m.RequestSuccess: lambda side, it: [GlobalSucceeded(self._global_replied(side), it.payload)],
            m.RequestFailure: lambda side, _: [GlobalFailed(self._global_replied(side))],
            m.ChannelOpen: self._open,
            m.ChannelOpenConfirmation: self._confirmation,
            m.ChannelOpenFailure: self._open_failure,
            m.ChannelData: lambda side, it: [DataReceived(self._number(side, it), it.data)],
            m.ChannelExtendedData: lambda side, it: [DataReceived(self._number(side, it), it.data, it.data_type)],
            m.ChannelEof: lambda side, it: [EofReceived(self._number(side, it))],
            m.ChannelClose: self._close,
            m.ChannelRequest: self._request,
            m.ChannelSuccess: lambda side, it: [RequestSucceeded(*self._replied(side, it))],
            m.ChannelFailure: lambda side, it: [RequestFailed(*self._replied(side, it))],
        }

    # --------------------------------------------------------------------------------------------------------- messages

    def context(self, side: Side, number: int) -> str:
        """The authentication method that gives a message its meaning; ``""`` if it has its own."""
        if not of_method(number):
            return ""
        return self._logins.method if side is self.client else self._logins.answered

    def ready(self, side: Side, payload: bytes) -> bool:
        """Whether all has been seen of the other side that a message of ``side`` needs to be understood."""
        number = payload[0]
        if side is not self.client and (of_method(number) or number in _AUTH_ENDS):
            return self._logins.asked
        if number in (81, 82):
            return bool(self._globals[side.other])
        if 90 <= number <= 100 and len(payload) >= 5:
            if number == 90:
                return (side, _sender_channel(payload)) not in self._channels
            channel = self._channels.get((side.other, int.from_bytes(payload[1:5], "big")))
            return channel is not None and (number < 99 or bool(channel.requests[side.other]))
        return True

    def events(self, side: Side, message: m.Message) -> Iterable[Event]:
        """What ``message``, sent by ``side``, tells its receiver; mostly one event, or none."""
        handler = self._handlers.get(type(message))
        return handler(side, message) if handler is not None else ()

    def passed(self, side: Side, number: int, message: m.Message | None) -> None:
        """A message of ``side`` has been dealt with, even if it has told nothing, or did not decode."""
        if side is self.client:
            if number == _AUTH_REQUEST or of_method(number):
                if number == _AUTH_REQUEST and message is None:
                    self._logins.method = ""
                self._logins.ask(number)
        elif number in _AUTH_ENDS or of_method(number):
            self._logins.answer(number)

    def _id(self, sender: Side) -> int:
        """The number of what the receiver of a message is asked, or asks: each side counts by itself."""
        self._ids[sender] += 1
        return self._ids[sender]

    # --------------------------------------------------------------------------------------------------- authentication

    def _auth_request(self, side: Side, it: m.UserauthRequest) -> Iterable[Event]:
        self._logins.method = printable(methods.listed(it.method))
        self.user = printable(it.user)
        try:
            form = methods.parse(it.method, it.payload)
        except WireError:
            return ()
        match form:
            case methods.NoneForm():
                return [NoneAuth(id=self._id(side), user=self.user)]
            case methods.Password():
                return [PasswordAuth(id=self._id(side), user=self.user, password=form.password)]
            case methods.PasswordChange():
                return [PasswordAuth(id=self._id(side), user=self.user, password=form.old, new_password=form.new)]
            case methods.KeyboardInteractive():
                return [InteractiveAuth(id=self._id(side), user=self.user, submethods=printable(form.submethods))]
            case (
                methods.PublicKeyQuery()
                | methods.PublicKeySigned()
                | methods.HostBoundQuery()
                | methods.HostBoundSigned()
            ):
                return self._key_request(side, it, form)
            case _:
                return ()

    def _key_request(
        self, side: Side, it: m.UserauthRequest, form: methods.KeyQuery | methods.KeySigned
    ) -> Iterable[Event]:
        """A key or a certificate is offered, or used; told only if it is of a kind that is known, and the signature is
        good."""
        name, bound = form.algorithm, methods.bound_to(form)
        try:
            shown = _read_shown(name, form.key)
            certificate = None if isinstance(shown, PublicKey) else shown
            key = shown if isinstance(shown, PublicKey) else shown.key
            if isinstance(form, methods.PublicKeyQuery | methods.HostBoundQuery):
                number = self._id(side)
                return [KeyProbe(id=number, user=self.user, key=key, algorithm=name, certificate=certificate)]
            data = methods.signed_data(self.session_id or b"", it.user, it.service, name, form.key, bound)
            assertion = shown.verify(form.signature, data, name, policy=UNATTENDED)
        except (KeyFormatError, SignatureInvalid, ValueError):
            return ()
        return [
            KeyAuth(
                id=self._id(side),
                user=self.user,
                key=key,
                algorithm=name,
                assertion=assertion,
                certificate=certificate,
            )
        ]

    def _auth_failure(self, side: Side, it: m.UserauthFailure) -> Iterable[Event]:
        return [AuthFailed(self._logins.answered, tuple(it.methods), it.partial_success)]

    def _auth_success(self, side: Side, it: m.UserauthSuccess) -> Iterable[Event]:
        method = self._logins.answered
        return [AuthSucceeded(method, method == methods.NONE)]

    def _prompts(self, side: Side, it: m.UserauthInfoRequest) -> Iterable[Event]:
        prompts = tuple(Prompt(text=printable(text), echo=echo) for text, echo in it.prompts)
        name, instruction = printable(it.name), multiline(it.instruction)
        return [PromptsReceived(id=self._id(side), name=name, instruction=instruction, prompts=prompts)]

    # -------------------------------------------------------------------------------------------------- global requests

    def _global_request(self, side: Side, it: m.GlobalRequest) -> Iterable[Event]:
        number = self._id(side)
        if it.want_reply:
            self._globals[side].append(number)
        try:
            request = decode_global(it)
        except WireError:
            request = UnknownGlobal(it.request_type, it.payload)
        return [GlobalRequested(id=number, request=request, want_reply=it.want_reply)]

    def _global_replied(self, side: Side) -> int:
        waiting = self._globals[side.other]
        return waiting.popleft() if waiting else 0

    # --------------------------------------------------------------------------------------------------------- channels

    def _channel(self, sender: Side, it: Any) -> _Channel | None:
        """The channel that ``sender`` means by its receiver's number."""
        return self._channels.get((sender.other, it.recipient_channel))

    def _number(self, sender: Side, it: Any) -> int:
        channel = self._channel(sender, it)
        return channel.number if channel is not None else -1

    def _name(self, channel: _Channel, key: tuple[Side, int]) -> None:
        """A side has given a channel its number."""
        old = self._channels.get(key)
        if old is not None:
            old.keys.remove(key)
        elif len(self._channels) >= 2 * _CHANNELS:
            return
        self._channels[key] = channel
        channel.keys.append(key)

    def _forget(self, channel: _Channel) -> None:
        for key in channel.keys:
            del self._channels[key]
        channel.keys.clear()

    def _open(self, side: Side, it: m.ChannelOpen) -> Iterable[Event]:
        channel = _Channel(self._opened, [])
        self._opened += 1
        self._name(channel, (side, it.sender_channel))
        try:
            kind = decode_open(it)
        except WireError:
            kind = UnknownOpen(it.channel_type, it.payload)
        return [ChannelOpenRequested(id=self._id(side), channel=channel.number, kind=kind)]

    def _confirmation(self, side: Side, it: m.ChannelOpenConfirmation) -> Iterable[Event]:
        channel = self._channel(side, it)
        if channel is None:
            return [ChannelOpened(-1, it.payload)]
        self._name(channel, (side, it.sender_channel))
        return [ChannelOpened(channel.number, it.payload)]

    def _open_failure(self, side: Side, it: m.ChannelOpenFailure) -> Iterable[Event]:
        channel = self._channel(side, it)
        if channel is not None:
            self._forget(channel)
        number = channel.number if channel is not None else -1
        return [ChannelOpenFailed(number, it.reason, printable(it.description))]

    def _close(self, side: Side, it: m.ChannelClose) -> Iterable[Event]:
        channel = self._channel(side, it)
        if channel is None:
            return ()
        channel.closed.add(side)
        if len(channel.closed) < len(Side):
            return ()
        self._forget(channel)
        return [ChannelClosed(channel.number)]

    def _request(self, side: Side, it: m.ChannelRequest) -> Iterable[Event]:
        channel = self._channel(side, it)
        number = channel.number if channel is not None else -1
        try:
            request = decode_request(it)
        except WireError:
            request = UnknownRequest(it.request_type, it.payload)
        request_id = self._id(side)
        if it.want_reply and channel is not None:
            channel.requests[side].append(request_id)
        if request.notice:
            return [ChannelNotified(number, request)]
        return [ChannelRequested(id=request_id, channel=number, request=request, want_reply=it.want_reply)]

    def _replied(self, side: Side, it: Any) -> tuple[int, int]:
        channel = self._channel(side, it)
        if channel is None:
            return -1, 0
        waiting = channel.requests[side.other]
        return channel.number, waiting.popleft() if waiting else 0


def _sender_channel(payload: bytes) -> int:
    """Of a CHANNEL_OPEN."""
    start = 5 + int.from_bytes(payload[1:5], "big")
    return int.from_bytes(payload[start : start + 4], "big") if start + 4 <= len(payload) else -1
