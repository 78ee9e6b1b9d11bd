"""What of a connection belongs to the protocol, and not to chance.

A :class:`Portrait` collects it: identifications, offers, what was chosen, and each side's messages with what they say;
but no cookies, no ephemeral keys, no padding, no sequence numbers, no sizes of windows, no data.
:mod:`sshproto.replay.difference` lays two of them side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import attrs

from sshproto.auth import methods
from sshproto.channels.requests import UnknownGlobal, decode_global
from sshproto.errors import DisconnectCode, PeerDisconnected, WireError
from sshproto.events import (
    ChannelNotified,
    ChannelOpened,
    ChannelOpenFailed,
    ChannelOpenRequested,
    ChannelRequested,
    ConnectionLost,
    EofReceived,
    RequestFailed,
    RequestSucceeded,
    VersionReceived,
)
from sshproto.keys.public import fingerprint_of
from sshproto.replay.channels import plain
from sshproto.replay.events import (
    Ended,
    KexSeen,
    KeysMissing,
    Missing,
    Observed,
    OfferSeen,
    PacketOpened,
    PacketSealed,
    Problem,
    Reopened,
    RolesSeen,
    Side,
    Ssh1Packet,
)
from sshproto.transport.negotiation import Negotiated
from sshproto.values import define, frozen
from sshproto.wire import messages as m
from sshproto.wire.table import Role, message_name

STEPS = 2048
"""So many messages of each side are compared."""

_NOISE = frozenset({2, 4, 192, 193})
"""Encrypted messages that come when somebody likes, and say nothing of the protocol: IGNORE, DEBUG, PING and PONG."""

_FROM_EVENTS = frozenset({1, *range(90, 101)})
"""Messages that are known better from what they tell: channels have the same number on both sides there. Of windows
nothing is told, and CHANNEL_CLOSE, which answers another, is left out."""

_EXCHANGE = frozenset({20, 21, *range(30, 50)})

CHANNEL = "channel"
"""The field that says which channel. It follows from how many there were before: alone it is no difference."""

_CHANCE = frozenset({"originator_port", "originator_address"})
"""Fields that depend on who dialled from where."""


@frozen
class Step:
    """A message, or something that was seen.

    Attributes:
        name: What kind of message; those of the same name are laid beside one another.
        details: What else makes it what it is.
        frames: What brought it.
        place: When it came, counted over both sides.
        size: Of encrypted bytes, how many.
    """

    name: str
    details: tuple[tuple[str, Any], ...] = ()
    frames: tuple[int, ...] = ()
    place: int = 0
    size: int = 0


@define(eq=False)
class SideSeen:
    """What one side has sent.

    Attributes:
        version, offer: Its identification, and its first KEXINIT.
        version_frames, offer_frames: What brought them.
        clear: Its messages before its first NEWKEYS, that included.
        opened: Those after it, as far as they could be opened and are no noise.
        sealed: What could not be opened, by its size.
        exact: These are packets; otherwise what came at once.
        closed: Something could not be opened.
        exchanges: How many key exchanges it has completed, if it is the server.
        ending: How it ended.
        more: There were more messages than are kept.
    """

    version: str | None = None
    offer: m.KexInit | None = None
    offer_frames: tuple[int, ...] = ()
    version_frames: tuple[int, ...] = ()
    clear: list[Step] = attrs.Factory(list[Step])
    opened: list[Step] = attrs.Factory(list[Step])
    sealed: list[Step] = attrs.Factory(list[Step])
    exact: bool = True
    closed: bool = False
    exchanges: int = 0
    ending: str = "the recording ends"
    more: bool = False


class Portrait:
    """Collects what belongs to the protocol, of one connection.

    Attributes:
        client: Who is the client; None if that is not known.
        negotiated: What the first key exchange chose.
        cookies: Of the first KEXINITs.
    """

    def __init__(self) -> None:
        self.client: Side | None = None
        self.negotiated: Negotiated | None = None
        self.cookies: set[bytes] = set()
        self._kex_frames: tuple[int, ...] = ()
        self._host_key: tuple[str, str] | None = None
        self._sides = {side: SideSeen() for side in Side}
        self._place = 0

    def add(self, seen: Observed, /) -> None:
        """Take one of the observer's events, in their order."""
        side = self._sides[seen.side]
        match seen.event:
            case PacketOpened() as packet:
                self._packet(side, seen, packet)
            case PacketSealed(size=size, exact=exact):
                side.exact &= exact
                self._note(side.sealed, side, seen, f"{size} encrypted bytes", size=size)
            case VersionReceived(line=line):
                side.version, side.version_frames = line, seen.frames
            case OfferSeen(kexinit=kexinit):
                if side.offer is None:
                    side.offer, side.offer_frames = kexinit, seen.frames
                    self.cookies.add(kexinit.cookie)
            case RolesSeen(client=client):
                self.client = client
            case KexSeen(negotiated=negotiated) as kex:
                side.exchanges += 1
                if self.negotiated is None:
                    self.negotiated, self._kex_frames = negotiated, seen.frames
                if self._host_key is None and kex.host_key_blob:
                    kind = kex.host_key.type if kex.host_key is not None else "of a type that is not known"
                    self._host_key = kind, kex.fingerprint
            case Ssh1Packet(name=name):
                self._note(side.clear, side, seen, name)
            case KeysMissing():
                side.closed = True
            case Reopened():
                side.closed = False
                side.sealed.clear()
                side.ending = "the recording ends"
            case Ended():
                side.ending = "its stream ends"
            case Missing(problem=problem):
                side.ending = f"something is missing: {problem}"
            case Problem(problem=problem, fatal=True):
                side.ending = f"it can't be read further: {problem}"
            case event:
                self._upper(side, seen, event)

    def side(self, role: Role) -> SideSeen:
        """What is known of a side."""
        client = self.client or Side.DIALLER
        return self._sides[client if role is Role.CLIENT else client.other]

    @property
    def sealed(self) -> bool:
        """Whether something could not be opened."""
        return any(side.closed for side in self._sides.values())

    @property
    def host_key(self) -> tuple[str, str] | None:
        """The type of the server's key, and its fingerprint."""
        return self._host_key

    @property
    def exchanges(self) -> int:
        """How many key exchanges there were."""
        return sum(side.exchanges for side in self._sides.values())

    @property
    def kex_frames(self) -> tuple[int, ...]:
        """What brought the last message of the first key exchange."""
        return self._kex_frames

    def _note(
        self,
        steps: list[Step],
        side: SideSeen,
        seen: Observed,
        name: str,
        details: Iterable[tuple[str, Any]] = (),
        *,
        size: int = 0,
    ) -> None:
        self._place += 1
        if len(steps) < STEPS:
            steps.append(Step(name, tuple(details), seen.frames, self._place, size))
        else:
            side.more = True

    # --------------------------------------------------------------------------------------------------------- messages

    def _packet(self, side: SideSeen, seen: Observed, packet: PacketOpened) -> None:
        number, message = packet.number, packet.message
        name = message_name(number, packet.context)
        if not packet.epoch:
            if packet.guessed:
                name = f"{name}, a wrong guess"
            self._note(side.clear, side, seen, name, _of_exchange(message))
            return
        if number in _EXCHANGE or number in _NOISE or (number in _FROM_EVENTS and message is not None):
            return
        if message is None:
            self._note(side.opened, side, seen, name)
            return
        extra, details = _words(message)
        self._note(side.opened, side, seen, f"{name} {extra}".rstrip(), details)

    def _upper(self, side: SideSeen, seen: Observed, event: Any) -> None:
        name, details = "", dict[str, Any]()
        match event:
            case ChannelOpenRequested(kind=kind):
                name, details = f"CHANNEL_OPEN {kind.type}", plain(kind)
            case ChannelOpened():
                name = "CHANNEL_OPEN_CONFIRMATION"
            case ChannelOpenFailed(reason=reason, description=description):
                name, details = "CHANNEL_OPEN_FAILURE", {"reason": reason, "description": description}
            case ChannelRequested(request=request, want_reply=want_reply):
                name, details = f"CHANNEL_REQUEST {request.type}", {**plain(request), "want_reply": want_reply}
            case ChannelNotified(notice=notice):
                name, details = f"CHANNEL_REQUEST {notice.type}", plain(notice)
            case RequestSucceeded():
                name = "CHANNEL_SUCCESS"
            case RequestFailed():
                name = "CHANNEL_FAILURE"
            case EofReceived():
                name = "CHANNEL_EOF"
            case ConnectionLost(error=PeerDisconnected(code=code, description=description)):
                name, details = "DISCONNECT", {"reason": _reason(code), "description": description}
            case _:
                return
        shown = [(key, value) for key, value in details.items() if key not in _CHANCE]
        channel: int | None = getattr(cast(Any, event), "channel", None)
        if channel is not None:
            shown.append((CHANNEL, channel))
        self._note(side.opened, side, seen, name, shown)


def _reason(code: int | None) -> str:
    try:
        return "none" if code is None else f"{DisconnectCode(code).name.lower().replace('_', ' ')} ({code})"
    except ValueError:
        return f"code {code}"


def _of_exchange(message: m.Message | None) -> list[tuple[str, Any]]:
    """What of a message of a key exchange is no chance."""
    match message:
        case m.KexDhGexGroup(p=p, g=g):
            return [("bits", p.bit_length()), ("generator", g)]
        case m.KexDhGexRequest(minimum=minimum, preferred=preferred, maximum=maximum):
            return [("bits", f"{minimum} to {maximum}, best {preferred}")]
        case m.KexDhGexRequestOld(bits=bits):
            return [("bits", bits)]
        case m.ExtInfo() | m.ServiceRequest() | m.UserauthRequest():
            return list(_words(message)[1])
        case _:
            return []


def _words(message: m.Message) -> tuple[str, Sequence[tuple[str, Any]]]:
    """What a message is to be called beyond its name, and what it says; nothing secret."""
    match message:
        case m.ServiceRequest(service=service) | m.ServiceAccept(service=service):
            return service, ()
        case m.ExtInfo(extensions=extensions):
            return "", [(name, _names(value.decode("utf-8", "backslashreplace"))) for name, value in extensions]
        case m.UserauthRequest():
            return _login(message)
        case m.UserauthFailure(methods=names, partial_success=partial):
            return "", [("can continue", tuple(names)), ("partial success", partial)]
        case m.UserauthBanner(message=text):
            return "", [("text", text)]
        case m.UserauthPkOk(algorithm=algorithm, key=key):
            return "", [("algorithm", algorithm), ("key", fingerprint_of(key))]
        case m.UserauthInfoRequest(prompts=prompts):
            return "", [("prompts", tuple(text for text, _ in prompts))]
        case m.GlobalRequest(request_type=name, want_reply=want_reply):
            try:
                request = decode_global(message)
            except WireError:
                request = UnknownGlobal(name, message.payload)
            # Of lists of keys the number is enough.
            values = {key: _count(value) for key, value in plain(request).items()}
            return name, [*values.items(), ("want_reply", want_reply)]
        case _:
            return "", ()


def _login(message: m.UserauthRequest) -> tuple[str, Sequence[tuple[str, Any]]]:
    details: list[tuple[str, Any]] = [("user", message.user), ("service", message.service)]
    try:
        form = methods.parse(message.method, message.payload)
    except WireError:
        return f"{message.method}, malformed", details
    match form:
        case methods.PublicKeyQuery(algorithm=algorithm, key=key):
            return "publickey, a query", [*details, ("algorithm", algorithm), ("key", fingerprint_of(key))]
        case methods.PublicKeySigned(algorithm=algorithm, key=key):
            return "publickey, signed", [*details, ("algorithm", algorithm), ("key", fingerprint_of(key))]
        case methods.HostBoundQuery() | methods.HostBoundSigned():
            how = "a query" if isinstance(form, methods.HostBoundQuery) else "signed"
            shown = [("algorithm", form.algorithm), ("key", fingerprint_of(form.key))]
            return f"publickey, bound to the host, {how}", [
                *details,
                *shown,
                ("host key", fingerprint_of(form.host_key)),
            ]
        case methods.KeyboardInteractive(submethods=submethods):
            return message.method, [*details, ("submethods", submethods)]
        case _:
            return message.method, details


def _count(value: Any) -> Any:
    return len(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType]


def _names(text: str) -> str | tuple[str, ...]:
    return tuple(text.split(",")) if "," in text else text
