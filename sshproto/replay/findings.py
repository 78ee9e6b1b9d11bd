"""What is wrong with a connection, from what an observer tells of it: each with a reference, and with frames.

What is thought of algorithms and keys stands in :mod:`sshproto.weaknesses`, and is shared with ``sshproto scan``.
Attacks are recognised by what they can't hide: to cut messages off the beginning of the encrypted stream (Terrapin,
CVE-2023-48795) others have to be put in before NEWKEYS, in clear; so has a message that the peer is to believe that it
came encrypted (CVE-2023-46445, CVE-2023-46446).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import attrs

from sshproto.auth import methods
from sshproto.config import Limits
from sshproto.errors import ConnectionLoss, KeyFormatError, WireError
from sshproto.events import AuthSucceeded, VersionReceived
from sshproto.keys.public import blob_type
from sshproto.replay.events import KexSeen, Observed, OfferSeen, PacketOpened, RolesSeen, Side, Ssh1Packet
from sshproto.text import printable
from sshproto.transport import negotiation
from sshproto.transport.kex.gex import MINIMUM_BITS
from sshproto.transport.kex.groups import strong_prime
from sshproto.transport.negotiation import Negotiated
from sshproto.values import define, frozen
from sshproto.weaknesses import Standing, judge, judge_key
from sshproto.wire import messages as m
from sshproto.wire.codec import Reader
from sshproto.wire.table import Role, message_name

_FRAMES = 16
_FINDINGS = 1000
_NAMES = 256
"""So many names of a list are judged; more are a finding of their own."""

_KEPT = 1 << 16
"""So many things are remembered, so as to know them when they come again."""

_EXCHANGE = frozenset((1, 20, 21, *range(30, 50)))
"""What belongs before NEWKEYS. DISCONNECT may come at any time."""

_HARMLESS = frozenset((2, 3, 4))
"""What may come before NEWKEYS without the strict key exchange, and hardly ever does (RFC 4253 section 11)."""

_IGNORE, _UNIMPLEMENTED, _EXT_INFO, _PING, _PONG = 2, 3, 7, 192, 193
_AUTH_REQUEST = 50
_LONG_PACKET = 35_000
_LONGEST_PACKET = 256 * 1024

_TERRAPIN = "CVE-2023-48795"
_STRICT_KEX = "OpenSSH PROTOCOL section 1.9"


class Severity(Enum):
    """How bad it is."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@frozen(kw_only=True)
class Finding:
    """Something that is wrong with a connection.

    Attributes:
        code: What kind of thing, in a word that does not change from version to version.
        severity: How bad it is.
        words: What, for people.
        reference: The section of the standard, or the advisory.
        frames: The numbers of the first frames that show it.
        side: Whose doing it is; None if it concerns both.
    """

    code: str
    severity: Severity
    words: str
    reference: str
    frames: tuple[int, ...] = ()
    side: Side | None = None


@frozen(kw_only=True)
class Policy:
    """What is expected of connections. What is None is not looked at.

    Attributes:
        kex, host_key, cipher, mac, compression: Names that may be negotiated.
        minimum_rsa_bits: Of host keys.
        minimum_group_bits: Of the groups of group exchange.
        strict_kex: The strict key exchange must be agreed.
    """

    kex: tuple[str, ...] | None = None
    host_key: tuple[str, ...] | None = None
    cipher: tuple[str, ...] | None = None
    mac: tuple[str, ...] | None = None
    compression: tuple[str, ...] | None = None
    minimum_rsa_bits: int | None = None
    minimum_group_bits: int | None = None
    strict_kex: bool = False


class Memory:
    """What should not come twice, over all connections that share it: cookies, public values, groups."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, bytes], None] = {}

    def again(self, kind: str, value: bytes) -> bool:
        """Whether ``value`` was here before; from now on it was."""
        key = (kind, hashlib.sha256(value).digest()[:16])
        if key in self._seen:
            return True
        if len(self._seen) >= _KEPT:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = None
        return False


_BAD = {
    Severity.HIGH: (
        "no encryption", "no integrity", "no key exchange", "no signature", "RC4", "DES", "a group of 1024 bits",
        "RSA of 1024 bits", "DSA of 1024 bits", "a curve of 163 bits", "an experiment that was withdrawn",
    ),
    Severity.LOW: ("a tag of", "under 3072 bits"),
}  # fmt: skip
"""How bad a reason is for which something is weak, by its words; all others are in the middle."""

_SOURCES: dict[str, tuple[tuple[str, str], ...]] = {
    "kex": (("", "RFC 9142"),),
    "signature": (("SHA-1", "RFC 8332 section 1"), ("", "RFC 8332")),
    "cipher": (
        ("RC4", "RFC 8758"),
        ("64 bits", "CVE-2016-2183"),
        ("CBC", "CVE-2008-5161"),
        ("", "RFC 4253 section 6.3"),
    ),
    "mac": (("MD5", "RFC 6151"), ("SHA-1", "RFC 6194"), ("", "RFC 4253 section 6.4")),
    "compression": (("", "RFC 4253 section 6.2"),),
}
"""Where it stands why something is weak: by category, and by a word in the reason."""


def _severity(reason: str) -> Severity:
    for severity, words in _BAD.items():
        if any(word in reason for word in words):
            return severity
    return Severity.MEDIUM


def _source(category: str, reason: str) -> str:
    return next(source for word, source in _SOURCES[category] if word in reason)


def _slots(chosen: Negotiated) -> list[tuple[str, str, str, Role | None]]:
    """What was negotiated: category, what for, name, and who sends what it protects."""
    slots: list[tuple[str, str, str, Role | None]] = [
        ("kex", "key exchange", chosen.kex, None),
        ("signature", "host key", chosen.host_key, Role.SERVER),
    ]
    for role, way in ((Role.CLIENT, "client_to_server"), (Role.SERVER, "server_to_client")):
        for kind in ("cipher", "mac", "compression"):
            name: str | None = getattr(chosen, f"{kind}_{way}")
            if name is not None:
                slots.append((kind, f"{kind} {way.replace('_', ' ')}", name, role))
    return slots


def _terrapin_form(chosen: Negotiated, role: Role) -> str:
    """Which form of the Terrapin attack works on what a side sends; ``""`` if none does."""
    way = "client_to_server" if role is Role.CLIENT else "server_to_client"
    cipher: str = getattr(chosen, f"cipher_{way}")
    mac: str | None = getattr(chosen, f"mac_{way}")
    if cipher.startswith("chacha20-poly1305"):
        return "ChaCha20-Poly1305"
    if "-cbc" in cipher and mac is not None and "-etm@" in mac:
        return "CBC with encrypt-then-MAC"
    return ""


@define(eq=False)
class _Extra:
    """A message in clear that does not belong there."""

    number: int
    sequence_number: int
    frames: tuple[int, ...]


@define(eq=False)
class _SideSeen:
    offer: tuple[m.KexInit, tuple[int, ...]] | None = None
    extras: list[_Extra] = attrs.Factory(list["_Extra"])
    first: tuple[int, tuple[int, ...]] | None = None  # the first encrypted message
    newkeys: tuple[int, ...] = ()
    protocol: str = ""
    ssh1: tuple[int, ...] | None = None


class Findings:
    """Collects what is wrong with one connection.

    Args:
        policy: What is expected.
        memory: Shared with other connections, to find what came there, too.
    """

    def __init__(self, policy: Policy | None = None, memory: Memory | None = None) -> None:
        self._policy = policy or Policy()
        self._memory = memory or Memory()
        self._client: Side | None = None
        self._sides = {side: _SideSeen() for side in Side}
        self._chosen: Negotiated | None = None
        self._authenticated = False
        self._found: dict[tuple[str, str, Side | None], Finding] = {}
        self._handlers: dict[type[m.Message], Callable[[Observed, Any], None]] = {
            m.KexDhGexGroup: self._group,
            m.KexDhGexRequest: lambda seen, it: self._group_asked(seen, it.maximum),
            m.KexDhGexRequestOld: lambda seen, it: self._group_asked(seen, it.bits),
            m.UserauthRequest: self._login,
        }
        for kind in (m.KexDhInit, m.KexDhReply, m.KexEcdhInit, m.KexEcdhReply, m.KexDhGexInit, m.KexDhGexReply):
            self._handlers[kind] = self._public_value

    def add(self, seen: Observed) -> None:
        """Take one of the observer's events, in their order."""
        side = self._sides[seen.side]
        match seen.event:
            case PacketOpened() as packet:
                self._packet(seen, side, packet)
            case OfferSeen(kexinit=kexinit, epoch=epoch):
                self._offer(seen, side, kexinit, first=epoch == 0)
            case RolesSeen(client=client):
                self._client = client
            case KexSeen() as kex:
                self._chosen = self._chosen or kex.negotiated
                self._exchange(kex, seen.frames)
            case VersionReceived(protocol=protocol):
                side.protocol = protocol
                if protocol == "1.99":
                    words = "it also speaks version 1 of SSH, which is broken"
                    self._find("ssh-1-offered", Severity.LOW, words, "RFC 4253 section 5.1", seen.frames, seen.side)
            case Ssh1Packet():
                words = "version 1 of SSH is spoken, which is broken"
                self._find("ssh-1", Severity.HIGH, words, "RFC 4253 section 5.1", seen.frames)
            case AuthSucceeded(trivial=trivial):
                self._authenticated = True
                if trivial:
                    words = "the server let the user in without any proof"
                    self._find("no-proof", Severity.MEDIUM, words, "RFC 4252 section 5.2", seen.frames, seen.side)
            case _:
                pass

    def finish(self) -> list[Finding]:
        """What was found, the worst first. Call it once, after the observer's last event."""
        if self._chosen is not None:
            self._before_newkeys(self._chosen)
            self._missing_extensions()
        worst = list(Severity)
        return sorted(self._found.values(), key=lambda finding: -worst.index(finding.severity))

    def _find(
        self,
        code: str,
        severity: Severity,
        words: str,
        reference: str,
        frames: Iterable[int] = (),
        side: Side | None = None,
    ) -> None:
        """Note a finding; of the same only the first is kept."""
        if len(self._found) < _FINDINGS:
            finding = Finding(
                code=code,
                severity=severity,
                words=words,
                reference=reference,
                frames=tuple(frames)[:_FRAMES],
                side=side,
            )
            self._found.setdefault((code, words, side), finding)

    # ---------------------------------------------------------------------------------------------------------- packets

    def _packet(self, seen: Observed, side: _SideSeen, packet: PacketOpened) -> None:
        number = packet.number
        if not packet.epoch:
            if number not in _EXCHANGE and len(side.extras) < _FINDINGS:
                side.extras.append(_Extra(number, packet.sequence_number, seen.frames))
            if packet.size > _LONG_PACKET:
                words = f"a packet of {packet.size} bytes before anything is agreed; {_LONG_PACKET} is what all accept"
                self._find("oversize", Severity.LOW, words, "RFC 4253 section 6.1", seen.frames, seen.side)
        elif side.first is None:
            side.first = number, seen.frames
        if packet.size > _LONGEST_PACKET:
            words = f"a packet of more than {_LONGEST_PACKET} bytes"
            self._find("oversize", Severity.LOW, words, "RFC 4253 section 6.1", seen.frames, seen.side)
        server = self._sides[(self._client or Side.DIALLER).other]
        # If the server can't be read, nobody knows.
        if packet.epoch and 80 <= number < 192 and not self._authenticated and server.first is not None:
            words = f"{message_name(number)} before the login has succeeded"
            self._find("data-before-login", Severity.HIGH, words, "RFC 4252 section 6", seen.frames, seen.side)
        handler = self._handlers.get(type(packet.message)) if packet.message is not None else None
        if handler is not None:
            handler(seen, packet.message)

    def _offer(self, seen: Observed, side: _SideSeen, kexinit: m.KexInit, *, first: bool) -> None:
        if first:
            side.offer = kexinit, seen.frames
        if self._memory.again("cookie", kexinit.cookie):
            words = "the cookie of a KEXINIT came before: its maker has no randomness, or somebody relays"
            self._find("repeated-cookie", Severity.HIGH, words, "RFC 4253 section 7.1", seen.frames, seen.side)
        elif len(set(kexinit.cookie)) == 1:
            words = f"the cookie of a KEXINIT is {kexinit.cookie.hex()}, which is not random"
            self._find("repeated-cookie", Severity.HIGH, words, "RFC 4253 section 7.1", seen.frames, seen.side)
        try:
            negotiation.check_offer(kexinit, Limits())
        except ConnectionLoss as error:
            self._find("oversize", Severity.MEDIUM, f"{error}", "RFC 4251 section 6", seen.frames, seen.side)
        weak = dict.fromkeys(
            name
            for category, names in _offered(kexinit)
            for name in names[:_NAMES]
            if judge(category, name).standing is Standing.WEAK
        )
        if weak and first:
            words = f"it offers what is weak: {printable(', '.join(weak), 1024)}"
            self._find("weak-offer", Severity.INFO, words, "RFC 9142", seen.frames, seen.side)

    def _public_value(self, seen: Observed, it: Any) -> None:
        value = next(getattr(it, name) for name in ("share", "e", "f") if hasattr(it, name))
        data = value if isinstance(value, bytes) else f"{value:x}".encode("ascii")
        if self._memory.again("public value", data):
            words = "the public value of a key exchange came before: it is not ephemeral, or somebody relays"
            self._find("repeated-value", Severity.MEDIUM, words, "RFC 4253 section 8", seen.frames, seen.side)

    def _group(self, seen: Observed, it: m.KexDhGexGroup) -> None:
        bits = it.p.bit_length()
        enough = self._policy.minimum_group_bits
        if bits < MINIMUM_BITS:
            severity = Severity.HIGH if bits <= 1024 else Severity.MEDIUM
            words = f"the server gives a group of {bits} bits, {MINIMUM_BITS} are needed"
            self._find("small-group", severity, words, "RFC 8270", seen.frames, seen.side)
        if enough is not None and bits < enough:
            words = f"a group of {bits} bits; the policy wants {enough}"
            self._find("policy", Severity.HIGH, words, "policy: minimum_group_bits", seen.frames, seen.side)
        if self._memory.again("group", f"{it.p:x}".encode("ascii")) and not strong_prime(it.p):
            words = f"the server gives a group of {bits} bits that came before: who breaks it once has all"
            self._find("repeated-group", Severity.INFO, words, "RFC 4419 section 6", seen.frames, seen.side)

    def _group_asked(self, seen: Observed, most: int) -> None:
        if most < MINIMUM_BITS:
            words = f"the client asks for a group of at most {most} bits, {MINIMUM_BITS} are needed"
            self._find("small-group-asked", Severity.MEDIUM, words, "RFC 8270", seen.frames, seen.side)

    def _login(self, seen: Observed, it: m.UserauthRequest) -> None:
        try:
            form = methods.parse(it.method, it.payload)
        except WireError:
            return
        if isinstance(form, methods.PublicKeySigned | methods.HostBoundSigned):
            verdict = judge("signature", form.algorithm)
            if verdict.standing is Standing.WEAK:
                words = f"the user signs with {printable(form.algorithm)}: {verdict.reason}"
                code = "sha1-signature" if "SHA-1" in verdict.reason else "weak-signature"
                source = _source("signature", verdict.reason)
                self._find(code, _severity(verdict.reason), words, source, seen.frames, seen.side)

    # ----------------------------------------------------------------------------------------------------- key exchange

    def _exchange(self, kex: KexSeen, frames: tuple[int, ...]) -> None:
        """What was negotiated, and the host key."""
        client = self._client or Side.DIALLER
        for category, what, name, role in _slots(kex.negotiated):
            side = None if role is None else client if role is Role.CLIENT else client.other
            verdict = judge(category, name)
            shown = printable(name)
            if verdict.standing is Standing.WEAK:
                code = f"weak-{category}"
                if category == "signature" and "SHA-1" in verdict.reason:
                    code = "sha1-signature"
                words = f"{what}: {shown}: {verdict.reason}"
                self._find(code, _severity(verdict.reason), words, _source(category, verdict.reason), frames, side)
            elif verdict.standing is Standing.UNKNOWN:
                words = f"{what}: {shown}, of which nothing is known"
                self._find("unknown-algorithm", Severity.INFO, words, _source(category, ""), frames, side)
            field = "host_key" if category == "signature" else category
            allowed: tuple[str, ...] | None = getattr(self._policy, field)
            if allowed is not None and name not in allowed:
                words = f"{what}: {shown}; the policy allows {', '.join(allowed) or 'nothing'}"
                self._find("policy", Severity.HIGH, words, f"policy: {field}", frames, side)
        self._host_key(kex.host_key_blob, frames, client.other)
        if kex.epoch == 0 and not kex.negotiated.strict_kex:
            self._not_strict(kex.negotiated, frames)

    def _not_strict(self, chosen: Negotiated, frames: tuple[int, ...]) -> None:
        forms = dict.fromkeys(form for role in Role if (form := _terrapin_form(chosen, role)))
        client = self._client or Side.DIALLER
        lacking = [
            "the client" if side is client else "the server"
            for side, seen in self._sides.items()
            if seen.offer is not None and not _offers_strict(seen.offer[0])
        ]
        whose = f"{lacking[0]} does not offer it" if len(lacking) == 1 else "neither side offers it"
        words = f"no strict key exchange, since {whose}"
        severity, reference = Severity.LOW, _STRICT_KEX
        if forms:
            words += f": open to the Terrapin attack, with {' and '.join(forms)}"
            severity, reference = Severity.MEDIUM, f"{_TERRAPIN}, {_STRICT_KEX}"
        self._find("no-strict-kex", severity, words, reference, frames)
        if self._policy.strict_kex:
            words = "no strict key exchange; the policy wants it"
            self._find("policy", Severity.HIGH, words, "policy: strict_kex", frames)

    def _host_key(self, blob: bytes, frames: tuple[int, ...], server: Side) -> None:
        try:
            kind = blob_type(blob)
            reader = Reader(blob, "host key")
            reader.string("type")
            if kind == "ssh-rsa-cert-v01@openssh.com":  # the nonce; then the key that is certified
                kind = "ssh-rsa"
                reader.string("nonce")
            bits = None
            if kind == "ssh-rsa":
                reader.mpint("e")
                bits = reader.mpint("n").bit_length()
        except (KeyFormatError, WireError):
            return
        verdict = judge_key(kind, bits)
        if verdict.standing is Standing.WEAK:
            words = f"the host key is {printable(kind)} of {bits} bits: {verdict.reason}"
            severity = Severity.HIGH if bits is not None and bits <= 1024 else _severity(verdict.reason)
            self._find("weak-host-key", severity, words, "NIST SP 800-131A", frames, server)
        enough = self._policy.minimum_rsa_bits
        if enough is not None and bits is not None and bits < enough:
            words = f"the host key has {bits} bits; the policy wants {enough}"
            self._find("policy", Severity.HIGH, words, "policy: minimum_rsa_bits", frames, server)

    # ------------------------------------------------------------------------------------------- messages in clear

    def _before_newkeys(self, chosen: Negotiated) -> None:
        client = self._client or Side.DIALLER
        for side, seen in self._sides.items():
            role = Role.CLIENT if side is client else Role.SERVER
            extras = _without_answers(seen.extras, self._sides[side.other].extras)
            frames = tuple(dict.fromkeys(frame for extra in extras for frame in extra.frames))
            names = ", ".join(dict.fromkeys(message_name(extra.number) for extra in extras))
            numbers = {extra.number for extra in extras}
            if not extras:
                continue
            if chosen.strict_kex:
                words = f"{names} before NEWKEYS, although the strict key exchange is agreed"
                self._find("strict-kex-broken", Severity.HIGH, words, _STRICT_KEX, frames, side)
                continue
            rogue = False
            if _EXT_INFO in numbers:
                rogue = True
                words = "EXT_INFO in clear before NEWKEYS: a client that takes it has its extensions from anybody"
                self._find("rogue-extension", Severity.CRITICAL, words, "CVE-2023-46445", frames, side)
            if _AUTH_REQUEST in numbers:
                rogue = True
                words = (
                    "USERAUTH_REQUEST in clear before NEWKEYS: a server that takes it logs in whom an attacker wants"
                )
                self._find("rogue-session", Severity.CRITICAL, words, "CVE-2023-46446", frames, side)
            form = _terrapin_form(chosen, role)
            if form:
                words = (
                    f"{names} before NEWKEYS, with {form} and no strict key exchange: sequence numbers are shifted, so"
                    " that as many messages can be cut off unnoticed after NEWKEYS (Terrapin)"
                )
                self._find("terrapin", Severity.CRITICAL, words, _TERRAPIN, frames, side)
            elif not rogue:
                severity = Severity.LOW if numbers <= _HARMLESS else Severity.HIGH
                words = f"{names} before NEWKEYS"
                self._find("message-before-newkeys", severity, words, "RFC 4253 section 7.1", frames, side)

    def _missing_extensions(self) -> None:
        """A server that offers EXT_INFO to a client that wants it sends it first (RFC 8308 section 2.4)."""
        client = self._client or Side.DIALLER
        mine, theirs = self._sides[client], self._sides[client.other]
        if mine.offer is None or theirs.offer is None or theirs.first is None:
            return
        both = (
            negotiation.EXT_INFO[Role.CLIENT] in mine.offer[0].kex_algorithms
            and negotiation.EXT_INFO[Role.SERVER] in theirs.offer[0].kex_algorithms
        )
        number, frames = theirs.first
        if both and number != _EXT_INFO:
            words = f"both sides offer EXT_INFO, but the server's first encrypted message is {message_name(number)}"
            reference = f"RFC 8308 section 2.4, {_TERRAPIN}"
            self._find("ext-info-missing", Severity.LOW, words, reference, frames, client.other)


def _offers_strict(kexinit: m.KexInit) -> bool:
    names = {*negotiation.STRICT_KEX.values(), "kex-strict-c", "kex-strict-s"}
    return not names.isdisjoint(kexinit.kex_algorithms)


def _offered(kexinit: m.KexInit) -> Iterable[tuple[str, tuple[str, ...]]]:
    yield "kex", kexinit.kex_algorithms
    yield "signature", kexinit.server_host_key_algorithms
    yield "cipher", kexinit.encryption_algorithms_client_to_server
    yield "cipher", kexinit.encryption_algorithms_server_to_client
    yield "mac", kexinit.mac_algorithms_client_to_server
    yield "mac", kexinit.mac_algorithms_server_to_client


def _without_answers(extras: list[_Extra], others: list[_Extra]) -> list[_Extra]:
    """Leave out what only answers what the other side should not have sent: its sender was provoked."""
    provoked = sum(other.number not in _HARMLESS for other in others)
    left: list[_Extra] = []
    for extra in extras:
        if provoked and extra.number in (_UNIMPLEMENTED, _PONG):
            provoked -= 1
        else:
            left.append(extra)
    return left
