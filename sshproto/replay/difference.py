"""The first protocol difference between two connections, and then the others.

Why does one client get in, and the other does not?  What did somebody in the middle change?  A :class:`Portrait`
collects of one connection what belongs to the protocol and not to chance: no cookies, no ephemeral keys, no padding, no
sequence numbers, no channel numbers, no sizes of windows, no data.  :func:`compare` lays two of them side by side, each
side's messages beside the same side's of the other connection.

What came encrypted is compared only if it could be opened in both.  Two connections with the same cookies are the two
legs of one that somebody relays: there the sizes of what is encrypted can be compared as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from math import inf
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
from sshproto.wire import messages as m
from sshproto.wire.table import Role, message_name

STAGES = ("identification", "offer", "negotiation", "key exchange", "host key", "encrypted", "messages", "ending")
"""What is compared, in the order of the protocol."""

_STEPS = 2048
"""So many messages of each side are compared."""

_NOISE = frozenset({2, 4, 93, 94, 95, 97, 192, 193})
"""Encrypted messages that say nothing of the protocol, or come when somebody likes: IGNORE, DEBUG, windows, data, PING;
and CHANNEL_CLOSE, which answers another."""

_FROM_EVENTS = frozenset({1, *range(90, 101)})
"""Messages that are known better from what they tell: channels have the same number on both sides there."""

_EXCHANGE = frozenset({20, 21, *range(30, 50)})

_CHANNEL = "channel"
"""The field that says which channel. It follows from how many there were before: alone it is no difference."""

_CHANCE = frozenset({"originator_port", "originator_address"})
"""Fields that depend on who dialled from where."""

_LISTS = {
    "kex_algorithms": "key exchange",
    "server_host_key_algorithms": "host key",
    "encryption_algorithms_client_to_server": "cipher, client to server",
    "encryption_algorithms_server_to_client": "cipher, server to client",
    "mac_algorithms_client_to_server": "MAC, client to server",
    "mac_algorithms_server_to_client": "MAC, server to client",
    "compression_algorithms_client_to_server": "compression, client to server",
    "compression_algorithms_server_to_client": "compression, server to client",
    "languages_client_to_server": "languages, client to server",
    "languages_server_to_client": "languages, server to client",
}


@attrs.frozen
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


@attrs.frozen(kw_only=True)
class Difference:
    """One difference.

    Attributes:
        stage: One of :data:`STAGES`.
        role: Whose doing it is; None if it concerns both.
        what: What is different.
        a, b: How it is in the one and in the other: text, names in their order, a number; None if it is not there.
        frames_a, frames_b: Where, as far as known.
        lone: It is a message that only one of them has.
    """

    stage: str
    role: Role | None
    what: str
    a: Any
    b: Any
    frames_a: tuple[int, ...] = ()
    frames_b: tuple[int, ...] = ()
    lone: bool = False

    @property
    def words(self) -> str:
        """The difference on one line, not yet fit for a terminal."""
        whose = f"the {self.role.value}'s " if self.role is not None else ""
        if self.lone:
            said = self.a if self.b is None else self.b
            return f"{whose}{self.what}: only in {'B' if self.a is None else 'A'}{f' ({said})' if said else ''}"
        return f"{whose}{self.what}: {_contrast(self.a, self.b)}"

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        values = attrs.asdict(self)
        values["role"] = self.role.value if self.role is not None else None
        return values


@attrs.frozen(kw_only=True)
class Comparison:
    """What :func:`compare` has found.

    Attributes:
        differences: In the order of the protocol: the first is the first.
        relayed: Both are legs of one connection: somebody in the middle has passed on their cookies.
        notes: What could not be compared, and why.
    """

    differences: tuple[Difference, ...]
    relayed: bool
    notes: tuple[str, ...]


@attrs.define(eq=False)
class _SideSeen:
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
        self._sides = {side: _SideSeen() for side in Side}
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
                    self._host_key = kind, fingerprint_of(kex.host_key_blob)
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

    def side(self, role: Role) -> _SideSeen:
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
        side: _SideSeen,
        seen: Observed,
        name: str,
        details: Iterable[tuple[str, Any]] = (),
        *,
        size: int = 0,
    ) -> None:
        self._place += 1
        if len(steps) < _STEPS:
            steps.append(Step(name, tuple(details), seen.frames, self._place, size))
        else:
            side.more = True

    # --------------------------------------------------------------------------------------------------------- messages

    def _packet(self, side: _SideSeen, seen: Observed, packet: PacketOpened) -> None:
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

    def _upper(self, side: _SideSeen, seen: Observed, event: Any) -> None:
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
            shown.append((_CHANNEL, channel))
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
        case methods.KeyboardInteractive(submethods=submethods):
            return message.method, [*details, ("submethods", submethods)]
        case _:
            return message.method, details


def _count(value: Any) -> Any:
    return len(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType]


def _names(text: str) -> str | tuple[str, ...]:
    return tuple(text.split(",")) if "," in text else text


# ----------------------------------------------------------------------------------------------------------- comparing


def compare(a: Portrait, b: Portrait) -> Comparison:
    """What is different between two connections.

    Args:
        a, b: Portraits that nothing more is added to.
    """
    found: list[Difference] = []
    notes: list[str] = []
    relayed = a is not b and bool(a.cookies & b.cookies)
    found += _versions(a, b)
    found += _offers(a, b)
    found += _chosen(a, b)
    found += _aligned("key exchange", a, b, "clear")
    if a.host_key != b.host_key and (a.host_key is not None and b.host_key is not None):
        found.append(
            Difference(
                stage="host key",
                role=Role.SERVER,
                what="host key",
                a=" ".join(a.host_key),
                b=" ".join(b.host_key),
                frames_a=a.kex_frames,
                frames_b=b.kex_frames,
            )
        )
    if not a.sealed and not b.sealed:
        found += _aligned("messages", a, b, "opened")
    elif a.sealed and b.sealed:
        exact = all(portrait.side(role).exact for portrait in (a, b) for role in Role)
        if relayed:
            found += _aligned("encrypted", a, b, "sealed")
        notes.append(
            "neither could be opened: of what came encrypted only the sizes were compared"
            if relayed
            else "neither could be opened: what came encrypted was not compared"
        )
        if relayed and not exact:
            notes.append("these are sizes of what came at once, which need not be one packet")
    else:
        notes.append(f"only {'B' if a.sealed else 'A'} could be opened: what came encrypted was not compared")
    if any(portrait.side(role).more for portrait in (a, b) for role in Role):
        notes.append(f"of each side the first {_STEPS} messages were compared")
    found += _endings(a, b)
    return Comparison(differences=tuple(found), relayed=relayed, notes=tuple(notes))


def _versions(a: Portrait, b: Portrait) -> Iterable[Difference]:
    for role in Role:
        one, other = a.side(role), b.side(role)
        if one.version != other.version:
            yield Difference(
                stage="identification",
                role=role,
                what="identification",
                a=one.version,
                b=other.version,
                frames_a=one.version_frames,
                frames_b=other.version_frames,
            )


def _offers(a: Portrait, b: Portrait) -> Iterable[Difference]:
    for role in Role:
        one, other = a.side(role), b.side(role)
        if one.offer is None or other.offer is None:
            continue  # that it is not there is seen from the messages
        for field, what in {**_LISTS, "first_kex_packet_follows": "guess that follows"}.items():
            values = getattr(one.offer, field), getattr(other.offer, field)
            if values[0] != values[1]:
                yield Difference(
                    stage="offer",
                    role=role,
                    what=f"KEXINIT, {what}",
                    a=values[0],
                    b=values[1],
                    frames_a=one.offer_frames,
                    frames_b=other.offer_frames,
                )


def _chosen(a: Portrait, b: Portrait) -> Iterable[Difference]:
    one, other = a.negotiated, b.negotiated
    if one is None and other is None:
        return
    names = [field.name for field in attrs.fields(Negotiated)]
    values = [attrs.asdict(each) if each is not None else dict.fromkeys(names) for each in (one, other)]
    if one is None or other is None:
        names = ["kex"]
    for name in names:
        if values[0][name] != values[1][name]:
            yield Difference(
                stage="negotiation",
                role=None,
                what=f"negotiated {name.replace('_', ' ')}",
                a=values[0][name],
                b=values[1][name],
                frames_a=a.kex_frames,
                frames_b=b.kex_frames,
            )


def _endings(a: Portrait, b: Portrait) -> Iterable[Difference]:
    if a.exchanges != b.exchanges:
        yield Difference(stage="ending", role=None, what="key exchanges in all", a=a.exchanges, b=b.exchanges)
    for role in Role:
        one, other = a.side(role).ending, b.side(role).ending
        if one != other:
            yield Difference(stage="ending", role=role, what="end", a=one, b=other)


def _aligned(stage: str, a: Portrait, b: Portrait, which: str) -> list[Difference]:
    """Both sides' messages laid side by side; the differences in the order of time."""
    placed: list[tuple[float, Difference]] = []
    for role in Role:
        one: list[Step] = getattr(a.side(role), which)
        other: list[Step] = getattr(b.side(role), which)
        placed += _beside(stage, role, one, other)
    return [difference for _, difference in sorted(placed, key=lambda each: each[0])]


def _beside(stage: str, role: Role, one: Sequence[Step], other: Sequence[Step]) -> list[tuple[float, Difference]]:
    """The differences of one side, each with its place in A; what A does not have where it would stand."""
    matcher = SequenceMatcher(None, [step.name for step in one], [step.name for step in other], autojunk=False)
    placed: list[tuple[float, Difference]] = []
    lone_a: list[tuple[float, int]] = []
    lone_b: list[tuple[float, int]] = []
    shift = 0.0
    for kind, start, stop, start_b, stop_b in matcher.get_opcodes():
        if kind == "equal":
            for mine, theirs in zip(one[start:stop], other[start_b:stop_b], strict=True):
                shift = mine.place - theirs.place
                if _said(mine) != _said(theirs):
                    placed += ((mine.place, each) for each in _details(stage, role, mine, theirs))
        elif not 0 < _size(one[start:stop]) == _size(other[start_b:stop_b]):  # the same bytes, cut elsewhere
            lone_a += ((one[index].place, index) for index in range(start, stop))
            latest = one[stop].place - 0.5 if stop < len(one) else inf
            lone_b += ((min(other[index].place + shift + 0.5, latest), index) for index in range(start_b, stop_b))
    for place, index in lone_a:
        mine = one[index]
        moved = next((each for each in lone_b if _same(other[each[1]], mine)), None)
        if moved is None:
            placed.append((place, _lone(stage, role, mine, in_a=True)))
        else:
            lone_b.remove(moved)
            placed.append((min(place, moved[0]), _moved(stage, role, one, index, other, moved[1])))
    placed += ((place, _lone(stage, role, other[index], in_a=False)) for place, index in lone_b)
    return placed


def _size(steps: Iterable[Step]) -> int:
    return sum(step.size for step in steps)


def _same(one: Step, other: Step) -> bool:
    return one.name == other.name and _said(one) == _said(other) and not one.size


def _said(step: Step) -> dict[str, Any]:
    return {name: value for name, value in step.details if name != _CHANNEL}


def _lone(stage: str, role: Role, step: Step, *, in_a: bool) -> Difference:
    """A message that only one of them has."""
    said = ", ".join(
        f"{name.replace('_', ' ')} {_shown(value)}" for name, value in step.details if value not in ("", None, (), [])
    )
    return Difference(
        stage=stage,
        role=role,
        what=step.name,
        a=said if in_a else None,
        b=None if in_a else said,
        frames_a=step.frames if in_a else (),
        frames_b=() if in_a else step.frames,
        lone=True,
    )


def _moved(stage: str, role: Role, one: Sequence[Step], at: int, other: Sequence[Step], at_b: int) -> Difference:
    """A message that both have, at different places."""
    before, before_b = (
        f"after {steps[index - 1].name}" if index else "first" for steps, index in ((one, at), (other, at_b))
    )
    return Difference(
        stage=stage,
        role=role,
        what=f"{one[at].name}, its place",
        a=before,
        b=before_b,
        frames_a=one[at].frames,
        frames_b=other[at_b].frames,
    )


def _details(stage: str, role: Role, mine: Step, theirs: Step) -> Iterable[Difference]:
    ours, others = _said(mine), _said(theirs)
    for name in dict.fromkeys([*ours, *others]):
        if ours.get(name) != others.get(name):
            yield Difference(
                stage=stage,
                role=role,
                what=f"{mine.name}, {name.replace('_', ' ')}",
                a=ours.get(name),
                b=others.get(name),
                frames_a=mine.frames,
                frames_b=theirs.frames,
            )


# --------------------------------------------------------------------------------------------------------------- words


def _contrast(a: Any, b: Any) -> str:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return _lists(a, b)  # pyright: ignore[reportUnknownArgumentType]
    return f"A {_shown(a)}; B {_shown(b)}"


def _lists(a: tuple[Any, ...], b: tuple[Any, ...]) -> str:
    """Two lists: what only one of them has, or that the order is another."""
    parts = [
        f"only {name} has {_shown(lone)}"
        for name, lone in (
            ("A", tuple(each for each in a if each not in b)),
            ("B", tuple(each for each in b if each not in a)),
        )
        if lone
    ]
    if [each for each in a if each in b] != [each for each in b if each in a]:
        parts.append(f"in another order: A {_shown(a)}; B {_shown(b)}" if not parts else "the rest in another order")
    return "; ".join(parts)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(_shown(each) for each in cast("Iterable[Any]", value)) or "nothing"
    return f"{value}" if value != "" else "nothing"
