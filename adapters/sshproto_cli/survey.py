"""Asks a server what it offers, for ``sshproto scan``.

One connection shows the server's identification and its KEXINIT (RFC 4253 sections 4.2 and 7.1), and one for each type
of host key shows the key, which the server proves to hold.  No connection goes beyond that: the key is never accepted,
so that nothing is sent under new keys, no request for a login either.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

import attrs

from sshproto import algorithms
from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, Limits, Preferences, Timeouts
from sshproto.errors import Incompatible, KeyFormatError, TimedOut, WireError
from sshproto.events import ConnectionLost, HostKeyOffered, VersionReceived
from sshproto.keys.public import LOWEST_RSA_BITS, PublicKey, blob_type
from sshproto.keys.signatures import SIGNATURES, signature_algorithms
from sshproto.text import printable
from sshproto.values import define, frozen
from sshproto.weaknesses import SOUND, Standing, Verdict, judge, judge_key, judge_strictness, offers_strict
from sshproto.wire.codec import Reader
from sshproto.wire.messages import KexDhGexReply, KexDhReply, KexEcdhReply, KexInit
from sshproto_cli.options import Failure, fingerprint, reason

if TYPE_CHECKING:
    from sshproto.config import Trace
    from sshproto.errors import ConnectionLoss
    from sshproto.keys.certificates import Certificate

_USER = "nobody"  # every client has one; it is never sent
_PIECE = 64 * 1024
_BITS = {
    "ssh-ed25519": 256,
    "ecdsa-sha2-nistp256": 256,
    "ecdsa-sha2-nistp384": 384,
    "ecdsa-sha2-nistp521": 521,
    "sk-ssh-ed25519@openssh.com": 256,
    "sk-ecdsa-sha2-nistp256@openssh.com": 256,
}

_LISTS = {  # field of KEXINIT: our name of the list, category
    "kex_algorithms": ("kex", "kex"),
    "server_host_key_algorithms": ("host_key", "signature"),
    "encryption_algorithms_client_to_server": ("cipher_client_to_server", "cipher"),
    "encryption_algorithms_server_to_client": ("cipher_server_to_client", "cipher"),
    "mac_algorithms_client_to_server": ("mac_client_to_server", "mac"),
    "mac_algorithms_server_to_client": ("mac_server_to_client", "mac"),
    "compression_algorithms_client_to_server": ("compression_client_to_server", "compression"),
    "compression_algorithms_server_to_client": ("compression_server_to_client", "compression"),
    "languages_client_to_server": ("languages_client_to_server", ""),
    "languages_server_to_client": ("languages_server_to_client", ""),
}


@frozen
class Offer:
    """A name in a list of KEXINIT, and what is to be thought of it."""

    name: str
    verdict: Verdict


@frozen(kw_only=True)
class HostKey:
    """A host key.

    Attributes:
        type: Its type.
        bits: Its size; None if that is not known.
        fingerprint: ``SHA256:...``; ``""`` if no key came.
        public: Its one-line form; ``""`` if it is not usable, or was not proved to be the server's.
        verdict: What is to be thought of it.
        problem: Why it was not shown, or is not usable, or ``""``.
    """

    type: str
    bits: int | None = None
    fingerprint: str = ""
    public: str = ""
    verdict: Verdict = SOUND
    problem: str = ""


@frozen
class Finding:
    """Something that is weak.

    Attributes:
        what: ``"kex"``, ``"host_key_algorithm"``, ``"cipher"``, ``"mac"``, ``"compression"``, ``"host_key"`` or
            ``"strict_kex"``.
        name: Which one.
        reason: Why.
    """

    what: str
    name: str
    reason: str


@frozen(kw_only=True)
class Report:
    """What a server offers.

    Attributes:
        host, port: Where it was asked.
        version: Its identification.
        lists: The lists of its KEXINIT by name, as they came.
        strict: Whether it offers the strict key exchange.
        strictness: What is to be thought of that.
        keys: Its host keys, in the order of its list.
        problem: Why the key exchange came to nothing, if it did for all keys.
    """

    host: str
    port: int
    version: VersionReceived
    lists: dict[str, tuple[Offer, ...]]
    strict: bool
    strictness: Verdict
    keys: tuple[HostKey, ...]
    problem: str = ""

    @property
    def weak(self) -> tuple[Finding, ...]:
        """What is weak, each once, in the order of the report."""
        found: dict[Finding, None] = {}
        if self.strictness.standing is Standing.WEAK:
            found[Finding("strict_kex", "", self.strictness.reason)] = None
        for name, offers in self.lists.items():
            what = "host_key_algorithm" if name == "host_key" else name.partition("_")[0]
            for offer in offers:
                if offer.verdict.standing is Standing.WEAK:
                    found[Finding(what, offer.name, offer.verdict.reason)] = None
        for key in self.keys:
            if key.verdict.standing is Standing.WEAK:
                found[Finding("host_key", key.type, key.verdict.reason)] = None
        return tuple(found)


def survey(host: str, port: int, timeout: float) -> Report:
    """Ask a server what it offers.

    Args:
        host, port: Where it is.
        timeout: Seconds for each address of ``host`` to answer, and then for each connection to show a host key.

    Raises:
        Failure: There is no server, or it does not come as far as its KEXINIT.
    """
    first = look(host, port, timeout)
    if first.version is None or first.kexinit is None:
        raise Failure(f"{host} port {port}: {first.problem}")
    keys: dict[str, HostKey] = {}
    if first.blob:
        key = _host_key(first)
        keys[key.type] = key
    if not isinstance(first.error, Incompatible):
        _ask_for_keys(host, port, timeout, first, keys)
    offered = _key_types(first.kexinit)
    return Report(
        host=host,
        port=port,
        version=first.version,
        lists=judged(first.kexinit),
        strict=offers_strict(first.kexinit),
        strictness=judge_strictness(first.kexinit),
        keys=tuple(sorted(keys.values(), key=lambda key: offered.index(key.type) if key.type in offered else 0)),
        problem="" if any(key.fingerprint for key in keys.values()) else first.problem,
    )


def _ask_for_keys(host: str, port: int, timeout: float, first: Glimpse, keys: dict[str, HostKey]) -> None:
    """Fill ``keys`` with those that the first connection did not show."""
    if first.kexinit is None:
        return
    problem = ""
    for kind in _key_types(first.kexinit):
        if kind in keys:
            continue
        if not problem:
            try:
                glimpse = look(host, port, timeout, signature_algorithms(kind))
            except Failure as failure:
                problem = str(failure)
            else:
                keys[kind] = attrs.evolve(_host_key(glimpse), type=kind)
                if isinstance(glimpse.error, TimedOut):  # it would not be faster next time
                    problem = "not asked for, since the server had become slow"
                continue
        keys[kind] = HostKey(type=kind, problem=problem)


def _key_types(kexinit: KexInit) -> list[str]:
    """The types of the host keys that a server offers and we know, in its order."""
    names = kexinit.server_host_key_algorithms
    return list(dict.fromkeys(SIGNATURES[name].key_type for name in names if name in SIGNATURES))


def judged(kexinit: KexInit) -> dict[str, tuple[Offer, ...]]:
    """The lists of a KEXINIT by our names for them, with what is to be thought of what is in them."""
    return {
        ours: tuple(Offer(name, judge(category, name) if category else SOUND) for name in getattr(kexinit, field))
        for field, (ours, category) in _LISTS.items()
    }


def _host_key(glimpse: Glimpse) -> HostKey:
    """The host key that was seen, or why there is none."""
    blob, key = glimpse.blob, glimpse.key
    if not blob:
        return HostKey(type="", problem=glimpse.problem)
    kind, bits = _measure(blob)
    return HostKey(
        type=kind,
        bits=bits,
        fingerprint=fingerprint(blob),
        public="" if key is None else key.openssh(),
        verdict=judge_key(kind, bits),
        problem="" if key is not None else glimpse.problem,
    )


def _measure(blob: bytes) -> tuple[str, int | None]:
    """Type and size of a key, also of one that is too short to be used."""
    try:
        kind = blob_type(blob)
        if kind != "ssh-rsa":
            return printable(kind), _BITS.get(kind)
        reader = Reader(blob, "RSA key")
        reader.string("type")
        reader.mpint("e")
        return kind, reader.mpint("n").bit_length()
    except (KeyFormatError, WireError):
        return "unreadable", None


# ------------------------------------------------------------------------------------------------------- one connection


@define
class Glimpse:
    """What one connection has shown.

    Attributes:
        version: The server's identification.
        kexinit: Its KEXINIT.
        blob: The host key that it sent.
        key: The same, once proved to be the server's; of a certificate the key that is certified.
        certificate: The certificate, if it was one.
        error: How the connection ended, if not by our own rejection of the key.
        problem: The same in words.
    """

    version: VersionReceived | None = None
    kexinit: KexInit | None = None
    blob: bytes = b""
    key: PublicKey | None = None
    certificate: Certificate | None = None
    error: ConnectionLoss | None = None
    problem: str = ""

    def trace(self, packet: Trace) -> None:
        """See a packet of the connection."""
        if packet.sent:
            return
        match packet.message:
            case KexInit() as message if self.kexinit is None:
                self.kexinit = message
            case KexDhReply(host_key=blob) | KexEcdhReply(host_key=blob) | KexDhGexReply(host_key=blob):
                self.blob = self.blob or blob
            case _:
                pass


def look(host: str, port: int, timeout: float, host_key: tuple[str, ...] | None = None) -> Glimpse:
    """Connect, and go on until the server has shown a host key, or has ended the connection.

    Args:
        host, port: Where to.
        timeout: Seconds for each address to answer, and then for all that the server has to send.
        host_key: The host key algorithms to ask for; None for all signature algorithms that we have.

    Raises:
        Failure: Nobody can be reached.
    """
    glimpse = Glimpse()
    config = ClientConfig(
        user=_USER,
        preferences=_everything(host_key),
        limits=Limits(minimum_rsa_bits=LOWEST_RSA_BITS),
        timeouts=Timeouts(handshake=timeout),
        eager=False,  # old servers may lose what comes before they have identified themselves
        trace=glimpse.trace,
    )
    said = b""
    try:
        stream = socket.create_connection((host, port), timeout)
    except (OSError, UnicodeError) as error:  # the latter from names that no resolver can take
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Failure(f"cannot connect to {host} port {port}: {why}") from None
    with stream:
        conn = ClientConnection(config, time.monotonic())
        while True:
            while (event := conn.next_event()) is not None:
                match event:
                    case VersionReceived():
                        glimpse.version = event
                    case HostKeyOffered():
                        glimpse.key, glimpse.certificate = event.key, event.certificate
                        conn.reject_host_key(event)
                    case ConnectionLost(error=loss) if glimpse.key is None:
                        glimpse.error = loss
                        glimpse.problem = _why(loss, glimpse, said, timeout)
                    case _:
                        pass
            deadline = conn.next_deadline()
            now = time.monotonic()
            stream.settimeout(timeout if deadline is None else max(deadline - now, 0.001))
            if data := conn.data_to_send():
                with contextlib.suppress(OSError):  # a server that has gone may have said something first
                    stream.sendall(data)
                continue
            if conn.should_close:
                return glimpse
            try:
                data = stream.recv(_PIECE)
            except TimeoutError:
                conn.handle_timeout(time.monotonic())
                continue
            except OSError:
                data = b""
            if data:
                said = said or data
                conn.receive_data(data, time.monotonic())
            else:
                conn.receive_eof(time.monotonic())


def _everything(host_key: tuple[str, ...] | None) -> Preferences:
    """All that we have, weak algorithms included: what the server can do is to be seen."""
    return Preferences(
        kex=algorithms.KEX_DEFAULT + algorithms.KEX_EXTRA + algorithms.KEX_LEGACY,
        host_key=host_key or algorithms.SIGNATURE_DEFAULT + algorithms.SIGNATURE_LEGACY,
        cipher=algorithms.CIPHER_DEFAULT + algorithms.CIPHER_LEGACY,
        mac=algorithms.MAC_DEFAULT + algorithms.MAC_LEGACY,
        compression=algorithms.COMPRESSION_DEFAULT + algorithms.COMPRESSION_EXTRA,
        allow_terrapin=True,
    )


def _why(loss: ConnectionLoss, glimpse: Glimpse, said: bytes, timeout: float) -> str:
    """How a connection ended, in words for the user."""
    if isinstance(loss, Incompatible):  # its own words are longer, and what the server offers is shown anyway
        return f"there is no {loss.category} algorithm that it offers and sshproto has"
    if not isinstance(loss, TimedOut):
        return reason(loss)
    if glimpse.version is None:
        line = said.partition(b"\n")[0].rstrip(b"\r")
        words = f"; it said: '{printable(line)}'" if said else ""
        return f"the server has not identified itself as SSH within {timeout:g} seconds{words}"
    what = "sent no KEXINIT" if glimpse.kexinit is None else "shown no host key"
    return f"the server has {what} within {timeout:g} seconds ({glimpse.version.line})"
