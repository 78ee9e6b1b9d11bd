"""Which algorithms: what we offer in KEXINIT, and what two KEXINITs add up to (RFC 4253 section 7.1).

Pure functions of the two messages, used by both live roles and by the passive observer.  The rule is the same for every
slot: the first name on the client's list that the server has, too.  Names that are no algorithms but say something
about the sender (RFC 8308 section 2.1, OpenSSH PROTOCOL section 1.9) stand in the kex list; they never match and never
count as a guess.  Policy is applied to the outcome, not to the offer, because our offer is often sent before the
peer's is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from sshproto.config import Limits, Preferences
from sshproto.errors import DisconnectCode, Incompatible, KeyExchangeFailed, LimitExceeded
from sshproto.text import printable
from sshproto.transport.macs import MACS
from sshproto.transport.suites import CIPHERS
from sshproto.values import frozen
from sshproto.wire.codec import MAX_NAME_LENGTH
from sshproto.wire.messages import KexInit
from sshproto.wire.table import Role

EXT_INFO: dict[Role, str] = {Role.CLIENT: "ext-info-c", Role.SERVER: "ext-info-s"}
"""What a side says to show that it can take EXT_INFO (RFC 8308 section 2.1)."""

STRICT_KEX: dict[Role, str] = {Role.CLIENT: "kex-strict-c-v00@openssh.com", Role.SERVER: "kex-strict-s-v00@openssh.com"}
"""What a side says to offer the strict key exchange (OpenSSH PROTOCOL section 1.9)."""

_STRICT_KEX_DRAFT: dict[Role, str] = {Role.CLIENT: "kex-strict-c", Role.SERVER: "kex-strict-s"}

PSEUDO: frozenset[str] = frozenset(
    name for names in (EXT_INFO, STRICT_KEX, _STRICT_KEX_DRAFT) for name in names.values()
)
"""Names in the kex list that are no algorithms."""

_LISTS: tuple[str, ...] = (
    "kex_algorithms",
    "server_host_key_algorithms",
    "encryption_algorithms_client_to_server",
    "encryption_algorithms_server_to_client",
    "mac_algorithms_client_to_server",
    "mac_algorithms_server_to_client",
    "compression_algorithms_client_to_server",
    "compression_algorithms_server_to_client",
    "languages_client_to_server",
    "languages_server_to_client",
)


@frozen(kw_only=True)
class Negotiated:
    """The algorithms of one key exchange.

    Attributes:
        kex: The key-exchange method.
        host_key: The signature algorithm of the server's host key, or the certificate algorithm of its certificate.
        cipher_client_to_server, cipher_server_to_client: The ciphers.
        mac_client_to_server, mac_server_to_client: The MACs; None where the cipher brings its own.
        compression_client_to_server, compression_server_to_client: The compressions.
        strict_kex: Whether the strict key exchange is in force (OpenSSH PROTOCOL section 1.9).
    """

    kex: str
    host_key: str
    cipher_client_to_server: str
    cipher_server_to_client: str
    mac_client_to_server: str | None
    mac_server_to_client: str | None
    compression_client_to_server: str
    compression_server_to_client: str
    strict_kex: bool


def offer(
    preferences: Preferences, role: Role, *, cookie: bytes, host_key_algorithms: tuple[str, ...], first: bool
) -> KexInit:
    """Our KEXINIT.

    Args:
        preferences: What to offer.
        role: Our side.
        cookie: 16 random bytes.
        host_key_algorithms: The host key algorithms, best first: a server's are limited by the keys it has.
        first: Whether this is the first key exchange; only there the pseudo names mean something
            (RFC 8308 section 2.1, OpenSSH PROTOCOL section 1.9).
    """
    kex = preferences.kex
    if first:
        kex += (EXT_INFO[role],)
        if preferences.strict_kex:
            kex += (STRICT_KEX[role],)
    return KexInit(
        cookie=cookie,
        kex_algorithms=kex,
        server_host_key_algorithms=host_key_algorithms,
        encryption_algorithms_client_to_server=preferences.cipher,
        encryption_algorithms_server_to_client=preferences.cipher_server_to_client or preferences.cipher,
        mac_algorithms_client_to_server=preferences.mac,
        mac_algorithms_server_to_client=preferences.mac_server_to_client or preferences.mac,
        compression_algorithms_client_to_server=preferences.compression,
        compression_algorithms_server_to_client=preferences.compression_server_to_client or preferences.compression,
    )


def check_offer(kexinit: KexInit, limits: Limits) -> None:
    """Check the sizes of a peer's KEXINIT, before anything is done with its names.

    Raises:
        LimitExceeded: A list has too many names or bytes, or a name has more than 64 characters
            (RFC 4251 section 6).
    """
    for field in _LISTS:
        names: tuple[str, ...] = getattr(kexinit, field)
        if len(names) > limits.names:
            raise _too_much(field, f"has {len(names)} names, at most {limits.names} are accepted", "names")
        size = sum(map(len, names)) + max(len(names) - 1, 0)
        if size > limits.name_list:
            raise _too_much(field, f"has {size} bytes, at most {limits.name_list} are accepted", "name_list")
        for name in names:
            if len(name) > MAX_NAME_LENGTH:
                problem = f"has a name of {len(name)} characters, at most {MAX_NAME_LENGTH} are legal"
                raise KeyExchangeFailed(f"KEXINIT: {field} {problem}: {printable(name, MAX_NAME_LENGTH)}")


def _too_much(field: str, problem: str, limit: str) -> LimitExceeded:
    return LimitExceeded(f"the peer's KEXINIT.{field} {problem}", limit, DisconnectCode.KEY_EXCHANGE_FAILED)


def negotiate(
    client: KexInit, server: KexInit, *, us: Role, preferences: Preferences | None, strict: bool
) -> Negotiated:
    """What the two KEXINITs agree on.

    Args:
        client: The client's.
        server: The server's.
        us: Whose list is called ours in an error.
        preferences: Our policy for the outcome; None for an observer, who has none.
        strict: Whether the strict key exchange is in force for this connection.

    Raises:
        Incompatible: A slot has no name in common.
        KeyExchangeFailed: The outcome is open to the Terrapin attack (CVE-2023-48795), and ``preferences`` do not
            allow that.
    """

    def slot(category: str, field: str) -> str:
        return _first_match(category, _real(getattr(client, field)), _real(getattr(server, field)), us)

    kex = slot("kex", "kex_algorithms")
    host_key = slot("host key", "server_host_key_algorithms")
    ciphers: dict[str, str] = {}
    macs: dict[str, str | None] = {}
    compressions: dict[str, str] = {}
    for way in ("client_to_server", "server_to_client"):
        words = way.replace("_", " ")
        ciphers[way] = cipher = slot(f"cipher {words}", f"encryption_algorithms_{way}")
        # The MAC lists do not count for a cipher that authenticates by itself: they need not even overlap
        # (RFC 5647 section 5.1 as OpenSSH reads it, PROTOCOL section 1.6).
        macs[way] = None if _authenticates(cipher) else slot(f"mac {words}", f"mac_algorithms_{way}")
        compressions[way] = slot(f"compression {words}", f"compression_algorithms_{way}")
        if preferences is not None and not strict and not preferences.allow_terrapin:
            _refuse_terrapin(words, cipher, macs[way], preferences)
    return Negotiated(
        kex=kex,
        host_key=host_key,
        cipher_client_to_server=ciphers["client_to_server"],
        cipher_server_to_client=ciphers["server_to_client"],
        mac_client_to_server=macs["client_to_server"],
        mac_server_to_client=macs["server_to_client"],
        compression_client_to_server=compressions["client_to_server"],
        compression_server_to_client=compressions["server_to_client"],
        strict_kex=strict,
    )


def strict_agreed(client: KexInit, server: KexInit) -> bool:
    """Whether both *first* KEXINITs offer the strict key exchange (OpenSSH PROTOCOL section 1.9).

    The two names must be of one kind: a side that says only the draft's name does not look for OpenSSH's.
    """
    for names in (STRICT_KEX, _STRICT_KEX_DRAFT):
        if names[Role.CLIENT] in client.kex_algorithms and names[Role.SERVER] in server.kex_algorithms:
            return True
    return False


def guess_is_right(client: KexInit, server: KexInit) -> bool:
    """Whether a packet that was sent along with one of the KEXINITs on a guess counts (RFC 4253 section 7.1).

    It does if both sides prefer the same key-exchange method and the same host key algorithm.
    """
    guesses = (
        (_real(client.kex_algorithms), _real(server.kex_algorithms)),
        (_real(client.server_host_key_algorithms), _real(server.server_host_key_algorithms)),
    )
    return all(mine and other and mine[0] == other[0] for mine, other in guesses)


def _real(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in PSEUDO)


def _first_match(category: str, client: tuple[str, ...], server: tuple[str, ...], us: Role) -> str:
    known = frozenset(server)
    for name in client:
        if name in known:
            return name
    ours, theirs = (client, server) if us is Role.CLIENT else (server, client)
    raise Incompatible(category, ours, theirs)


def _authenticates(cipher: str) -> bool:
    spec = CIPHERS.get(cipher)  # an observer also sees ciphers that we do not have
    return spec is not None and spec.aead


def _refuse_terrapin(way: str, cipher: str, mac: str | None, preferences: Preferences) -> None:
    mode = CIPHERS[cipher].mode
    if mode == "chacha20":
        chosen = cipher
    elif mode == "cbc" and mac is not None and MACS[mac].etm:
        chosen = f"{cipher} with {mac}"
    else:
        return
    whose = "the peer has" if preferences.strict_kex else "Preferences.strict_kex is off: there is"
    raise KeyExchangeFailed(
        f"{way}, {chosen} was negotiated, which is open to the Terrapin attack (CVE-2023-48795) because {whose} no"
        " strict key exchange; offer other ciphers, or accept the risk with Preferences.allow_terrapin"
    )
