"""What an application decides about a connection before it starts: frozen values, safe by default.

Nothing here reads a file, an environment variable or a clock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import attrs

from sshproto import algorithms
from sshproto.errors import InvalidArgument
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.private import PrivateKey
    from sshproto.keys.public import PublicKey
    from sshproto.wire.messages import Message

VERSION = "0.1.0"
"""The version of sshproto, also sent in the identification string."""

Entropy = Callable[[int, str], bytes]
"""``entropy(n, label)`` returns ``n`` unpredictable bytes; ``label`` says what for: ``"cookie"``, ``"padding"``, ..."""

Oracle = Callable[[str, Callable[[], bytes]], bytes]
"""``oracle(label, compute)`` returns ``compute()``.

What a crypto backend randomises by itself (an ML-KEM encapsulation) passes through it, so that a recording can
replay it.  What passes is secret."""

Record = Callable[[Any, Any, Any, float], Any]
"""``record(connection, make, config, now)`` returns the connection's engine: ``make(config, now)``, with whatever it
puts around ``config`` and the methods of ``connection`` to see what goes in and what comes out."""


def system_entropy(count: int, label: str) -> bytes:
    """The operating system's randomness."""
    return os.urandom(count)


def compute_now(label: str, compute: Callable[[], bytes]) -> bytes:
    """The oracle of a connection that nobody records."""
    return compute()


def _known(*categories: str) -> Callable[[Any, attrs.Attribute[Any], tuple[str, ...] | None], None]:
    known = frozenset[str]().union(*(algorithms.KNOWN[category] for category in categories))

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: tuple[str, ...] | None) -> None:
        if value is None and attribute.default is None:
            return
        if not value:
            raise InvalidArgument(f"Preferences.{attribute.name} is empty: at least one algorithm is needed")
        for name in value:
            if name not in known:
                have = ", ".join(sorted(known))
                raise InvalidArgument(f"Preferences.{attribute.name}: {name!r} is not implemented; there are {have}")
        if len(set(value)) != len(value):
            raise InvalidArgument(f"Preferences.{attribute.name} names an algorithm twice: {', '.join(value)}")

    return validate


def _names(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        raise InvalidArgument(f"a sequence of names is needed, not one string: {value!r}")
    try:
        return None if value is None else tuple(value)
    except TypeError:
        raise InvalidArgument(f"a sequence of names is needed, not {value!r}") from None


def _algorithms(category: str, default: tuple[str, ...] | None, *more: str) -> Any:
    return attrs.field(default=default, converter=_names, validator=_known(category, *more))


@frozen(kw_only=True, cache_hash=True)
class Preferences:
    """Algorithms to offer, best first. The names are :mod:`sshproto.algorithms`'.

    Attributes:
        kex: Key-exchange methods.
        host_key: Signature algorithms for the server's host key, and certificate algorithms, which ask for a
            certificate of it; by default there are none. A server offers those that its keys and certificates can do;
            one that has certificates and names no certificate algorithm here puts those that go with these in front.
        signature: Signature algorithms for public-key login: what a server accepts (and says in ``server-sig-algs``,
            RFC 8308 section 3.1), what a client is willing to sign with.
        cipher, mac, compression: For both directions, or client to server only where the next three say otherwise.
        cipher_server_to_client, mac_server_to_client, compression_server_to_client: None means as the other direction.
        strict_kex: Offer the strict key exchange of OpenSSH (PROTOCOL section 1.9), which closes the Terrapin attack.
            Without it on both sides the vulnerable modes are refused, see ``allow_terrapin``.
        allow_terrapin: Accept ChaCha20-Poly1305, or CBC with encrypt-then-MAC, although the peer has no strict key
            exchange (CVE-2023-48795).
    """

    kex: tuple[str, ...] = _algorithms("kex", algorithms.KEX_DEFAULT)
    host_key: tuple[str, ...] = _algorithms("signature", algorithms.SIGNATURE_DEFAULT, "certificate")
    signature: tuple[str, ...] = _algorithms("signature", algorithms.SIGNATURE_DEFAULT)
    cipher: tuple[str, ...] = _algorithms("cipher", algorithms.CIPHER_DEFAULT)
    mac: tuple[str, ...] = _algorithms("mac", algorithms.MAC_DEFAULT)
    compression: tuple[str, ...] = _algorithms("compression", algorithms.COMPRESSION_DEFAULT)
    cipher_server_to_client: tuple[str, ...] | None = _algorithms("cipher", None)
    mac_server_to_client: tuple[str, ...] | None = _algorithms("mac", None)
    compression_server_to_client: tuple[str, ...] | None = _algorithms("compression", None)
    strict_kex: bool = True
    allow_terrapin: bool = False


def _not_negative(instance: Any, attribute: attrs.Attribute[Any], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidArgument(f"Limits.{attribute.name} must be a number from 0 on, not {value!r}")


def _one_or_more(instance: Any, attribute: attrs.Attribute[Any], value: int) -> None:
    _not_negative(instance, attribute, value)
    if not value:
        raise InvalidArgument(f"Limits.{attribute.name} must be a number from 1 on")


def _at_most(largest: int) -> Callable[[Any, attrs.Attribute[Any], int], None]:
    """For a bound that there is below as well: more could be configured, and would have no effect, or a bad one."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: int) -> None:
        _not_negative(instance, attribute, value)
        if value > largest:
            raise InvalidArgument(f"Limits.{attribute.name} can be at most {largest}, not {value}")

    return validate


def _rsa_bits(instance: Any, attribute: attrs.Attribute[Any], value: int) -> None:
    if not isinstance(value, int) or not _WEAKEST_RSA <= value <= _STRONGEST_RSA:
        raise InvalidArgument(f"Limits.{attribute.name} must be from {_WEAKEST_RSA} to {_STRONGEST_RSA}, not {value!r}")


def _checked_limits(kind: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    return [field.evolve(validator=field.validator or _not_negative) for field in fields]


def _positive(instance: Any, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
        raise InvalidArgument(f"Timeouts.{attribute.name} must be more than 0 seconds, or None, not {value!r}")


def _count(instance: Any, attribute: attrs.Attribute[Any], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgument(f"Timeouts.{attribute.name} must be a number from 1 on, not {value!r}")


def _checked_timeouts(kind: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    return [field.evolve(validator=field.validator or _positive) for field in fields]


_WEAKEST_RSA = 1024
_STRONGEST_RSA = 16384


@frozen(kw_only=True, cache_hash=True, field_transformer=_checked_limits)
class Limits:
    """Bounds on everything that a peer can make grow. Sizes are bytes; each bound is the most that is still accepted.

    The defaults allow every well-behaved peer known and keep an unauthenticated one small.
    """

    ident_line: int = 255
    """The identification line with its CR LF (RFC 4253 section 4.2)."""
    preamble_lines: int = 1024
    """Lines that a server may send before its identification; a client may send none."""
    preamble_bytes: int = 64 * 1024
    packet_before_auth: int = 35_000
    """packet_length before login; RFC 4253 section 6.1 requires 35000."""
    packet: int = 256 * 1024
    """packet_length after login, and the size of a decompressed payload."""
    input_before_auth: int = 8 * 1024 * 1024
    packets_before_auth: int = 20_000
    rekeys_before_auth: int = 4
    """Key exchanges that the peer may start between the first one and the end of login: hardly anybody does."""
    name_list: int = 16 * 1024
    """One name-list of a KEXINIT."""
    names: int = 256
    """Names in one name-list of a KEXINIT."""
    host_key: int = attrs.field(default=16 * 1024, validator=_at_most(16 * 1024))
    """A public key or certificate, in key exchange and in login."""
    signature: int = 4 * 1024
    minimum_rsa_bits: int = attrs.field(default=2048, validator=_rsa_bits)
    """The shortest RSA key that is believed, in key exchange and in login; 1024 is the least that can be asked for."""
    output_high: int = 1024 * 1024
    """Unsent output at which ``send()`` takes no more and ``want_read`` turns False."""
    input_hard: int = 16 * 1024 * 1024
    """Input that may wait unprocessed when ``want_read`` is False and the application reads on all the same."""
    output_hard: int = 16 * 1024 * 1024
    """Unsent output at which the connection is given up: the peer makes us answer and does not read."""
    deferred_packets: int = 4096
    deferred_bytes: int = 2 * 1024 * 1024
    """What may wait for the end of a key exchange that is under way."""
    rekey_bytes: int = attrs.field(default=1024**3, validator=_one_or_more)
    """Bytes under one key, either direction, after which we start a key exchange (RFC 4253 section 9)."""
    rekey_packets: int = attrs.field(default=2**31, validator=[_one_or_more, _at_most(2**32 - 2**16)])
    """Packets under one key, either direction, after which we start a key exchange (RFC 4344 section 3.1)."""
    peer_rekeys: int = 100
    """Key exchanges that the peer may start in a minute, over and above one for each ``peer_rekey_bytes`` moved."""
    peer_rekey_bytes: int = 256 * 1024
    ignored_messages: int = 64
    """Messages that are ignored for the protocol's sake (a late login request, an unsolicited reply)."""
    service_requests: int = 4
    auth_failures: int = 6
    """Failed logins, the first ``none`` not counted."""
    auth_requests: int = 128
    """Login requests in all, key queries and ``none`` included."""
    client_auth_attempts: int = 64
    """Login attempts of a client, all methods together."""
    user_name: int = 1024
    password: int = 1024
    info_rounds: int = 32
    """INFO_REQUESTs in one keyboard-interactive login."""
    prompts: int = attrs.field(default=32, validator=_at_most(100))
    banners: int = 16
    banner_bytes: int = 64 * 1024
    channels_from_peer: int = 256
    sessions: int = 10
    """Session channels at once; OpenSSH's MaxSessions."""
    opens_pending: int = 256
    """Channels that the peer has asked for and the application has not decided on."""
    undecided_bytes: int = 1024 * 1024
    """The particulars of all channels and requests together that the peer has asked for and the application has not
    decided on."""
    channels_from_us: int = 1024
    window: int = 2 * 1024 * 1024
    """Receive window of a channel, the default of ``open_channel`` and ``accept_channel``."""
    window_max: int = attrs.field(default=14 * 1024 * 1024, validator=_at_most(2**31 - 1))
    """What such a window grows to on a long line, see :mod:`sshproto.channels.windows`. It does not if this is no more
    than ``window``, or if the application names the window."""
    window_pool: int = 16 * 1024 * 1024
    """All receive windows together, beyond which new channels get ``window_floor``; a window that the application
    names is not cut."""
    window_floor: int = 64 * 1024
    """The least receive window of a channel whose opener names none."""
    channel_packet: int = 32 * 1024
    """Data in one packet that we offer to receive (RFC 4254 section 5.2)."""
    smallest_channel_packet: int = 64
    """A peer that wants its data in smaller pieces is refused the channel."""
    requests_pending: int = attrs.field(default=64, validator=_one_or_more)
    """Unanswered requests of one channel, or global ones, of either side."""
    empty_adjusts: int = 1024
    """Window adjusts by nothing, and data packets of no bytes, on one channel."""
    unsolicited_replies: int = 64
    environment: int = 128
    """``env`` requests on one channel."""
    forwards: int = 64
    """Listeners that the peer may have us keep."""
    forwarded_pending: int = attrs.field(default=32, validator=_one_or_more)
    """Connections to one of those listeners that the peer has not decided on; of all of them, four times as many."""
    host_name: int = 255
    """Host names and addresses in forwarding requests."""
    host_keys_announced: int = 64
    """Keys in one hostkeys-00@openssh.com announcement."""


@frozen(kw_only=True, field_transformer=_checked_timeouts)
class Timeouts:
    """Deadlines in seconds; None means never."""

    handshake: float | None = 60.0
    """The whole first key exchange, from the first moment on; a client's clock stands while its user is asked."""
    auth: float | None = 120.0
    """On a server, from the first key exchange to a successful login; on a client, each answer of the server."""
    kex: float | None = 60.0
    """A rekeying."""
    rekey: float | None = 3600.0
    """Age of a key at which we start a key exchange (RFC 4253 section 9)."""
    keepalive: float | None = None
    """Silence of the peer after which we ask whether it is there."""
    keepalive_count: int = attrs.field(default=3, validator=_count)
    """Questions without any sign of life after which the connection is given up."""
    linger: float | None = 5.0
    """How long ``should_close`` may wait for unsent output once the connection has ended."""


_IDENT_LINE = 255  # with CR LF (RFC 4253 section 4.2)
_SOFTWARE = re.compile(r"[!-,.-~]+")
_CONTROLS = re.compile("[\x00-\x1f\x7f]")
_BANNER_BYTES = 32 * 1024  # a message that every peer must accept (RFC 4253 section 6.1)
_AUTH_METHODS = ("publickey", "password", "keyboard-interactive")
_COMMENTS = re.compile(r"[ -~]*")


def _identification(instance: Any, attribute: attrs.Attribute[Any], value: str) -> None:
    pattern = _SOFTWARE if attribute.name == "software" else _COMMENTS
    if not isinstance(value, str) or not pattern.fullmatch(value):
        kind = "printable US-ASCII without space or '-'" if attribute.name == "software" else "printable US-ASCII"
        raise InvalidArgument(f"{attribute.name} must be {kind} (RFC 4253 section 4.2), not {value!r}")
    length = len("SSH-2.0-") + len(instance.software) + len("\r\n")
    if instance.comments:
        length += len(" ") + len(instance.comments)
    if length > _IDENT_LINE:
        raise InvalidArgument(f"software and comments make a line of {length} bytes, at most {_IDENT_LINE} are allowed")


@frozen(kw_only=True)
class Trace:
    """One packet, for who watches a connection from inside.

    Attributes:
        sent: True if this side sent it.
        sequence_number: The packet's (RFC 4253 section 6.4).
        message: The message, or None if its number means nothing here.
        number: The message number.
        length: Bytes of the payload.
    """

    sent: bool
    sequence_number: int
    message: Message | None
    number: int
    length: int


def _instance(kind: type) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, kind):
            raise InvalidArgument(f"{attribute.name} must be of the class {kind.__name__}, not {value!r}")

    return validate


@frozen(kw_only=True)
class Config:
    """What both roles decide.

    Attributes:
        preferences: Algorithms.
        limits: Bounds.
        timeouts: Deadlines.
        software, comments: This side's identification: ``SSH-2.0-software[ comments]``.
        entropy: Source of cookies, padding and ephemeral keys.
        oracle: See :data:`Oracle`.
        trace: Called with every packet, sent or received; it must not call into the connection. Passwords and
            responses are in the messages, but not in their ``repr``.
        key_log: Called with a line of a key log at each key exchange: whoever has it can read a recording of the
            connection. None, as it should be, unless that is what you want.
        record: Called once, as the connection is made, to watch it: a
            :class:`~sshproto.replay.trace.recording.Recorder`.
        debug_raise: Raise a bug of sshproto instead of ending the connection with
            :class:`~sshproto.errors.InternalError`; for tests and fuzzing.
    """

    preferences: Preferences = attrs.field(default=Preferences(), validator=_instance(Preferences))
    limits: Limits = attrs.field(default=Limits(), validator=_instance(Limits))
    timeouts: Timeouts = attrs.field(default=Timeouts(), validator=_instance(Timeouts))
    software: str = attrs.field(default=f"sshproto_{VERSION}", validator=_identification)
    comments: str = attrs.field(default="", validator=_identification)
    entropy: Entropy = attrs.field(default=system_entropy, repr=False)
    oracle: Oracle = attrs.field(default=compute_now, repr=False)
    trace: Callable[[Trace], None] | None = attrs.field(default=None, repr=False)
    key_log: Callable[[str], None] | None = attrs.field(default=None, repr=False)
    record: Record | None = attrs.field(default=None, repr=False)
    debug_raise: bool = False


def _gex_bits(instance: Any, attribute: attrs.Attribute[Any], value: tuple[int, int, int]) -> None:
    try:
        smallest, preferred, largest = value
        rising = 2048 <= smallest <= preferred <= largest <= 8192
    except (TypeError, ValueError):
        raise InvalidArgument(f"gex_bits must be three sizes, not {value!r}") from None
    if not rising:
        raise InvalidArgument(f"gex_bits must be three rising sizes from 2048 to 8192 (RFC 8270), not {value}")


def _user(instance: Any, attribute: attrs.Attribute[Any], value: str) -> None:
    try:
        size = len(value.encode())
    except (UnicodeEncodeError, AttributeError):
        raise InvalidArgument("user is not text that UTF-8 can carry") from None
    if not value or size > instance.limits.user_name or _CONTROLS.search(value):
        raise InvalidArgument(f"user must be 1 to {instance.limits.user_name} bytes without control characters")


@frozen(kw_only=True)
class ClientConfig(Config):
    """What a client decides.

    Attributes:
        user: The name to log in as, at most 1024 bytes of UTF-8 without control characters.
        eager: Send KEXINIT together with the identification, without waiting for the server's. Saves a round trip;
            a few old servers lose what arrives before they have sent their own identification.
        gex_bits: Smallest, preferred and largest group for diffie-hellman-group-exchange, in bits (RFC 8270).
        allow_trivial_auth: Accept a login that the server granted without any proof from us (CVE-2021-36368).
    """

    user: str = attrs.field(validator=_user)
    eager: bool = True
    gex_bits: tuple[int, int, int] = attrs.field(default=(2048, 3072, 8192), validator=_gex_bits)
    allow_trivial_auth: bool = True


@frozen(kw_only=True)
class SecurityKeyPolicy:
    """What a security key (a FIDO token) must have done for its signature to count.

    Attributes:
        user_presence: Somebody has touched it; as in OpenSSH, which lets ``no-touch-required`` waive it.
        user_verification: It has found out who that was, by a PIN or a fingerprint: OpenSSH's ``verify-required``.
    """

    user_presence: bool = True
    user_verification: bool = False


UNATTENDED = SecurityKeyPolicy(user_presence=False)
"""For signatures that need no person: a host's (as OpenSSH has it), and what others are to judge or have judged."""


def _keys(value: Iterable[PrivateKey | PublicKey]) -> tuple[PrivateKey | PublicKey, ...]:
    try:
        return tuple(value)
    except TypeError:
        raise InvalidArgument(f"host_keys must be a sequence of keys, not {value!r}") from None


def _strings(value: Iterable[str]) -> tuple[str, ...]:
    return _names(value) or ()


def _host_keys(instance: Any, attribute: attrs.Attribute[Any], value: tuple[Any, ...]) -> None:
    if not value:
        raise InvalidArgument("a server needs at least one host key")
    types = [getattr(getattr(key, "public_key", key), "type", None) for key in value]
    if None in types:
        raise InvalidArgument(f"host_keys must be private or public keys, not {value[types.index(None)]!r}")
    twice = {name for name in types if types.count(name) > 1}
    if twice:
        raise InvalidArgument(
            f"a server has one host key of a type; there are several of {', '.join(sorted(map(str, twice)))}"
        )


def _certificates(value: Iterable[Certificate]) -> tuple[Certificate, ...]:
    try:
        return tuple(value)
    except TypeError:
        raise InvalidArgument(f"host_certificates must be a sequence of certificates, not {value!r}") from None


def _host_certificates(instance: Any, attribute: attrs.Attribute[Any], value: tuple[Any, ...]) -> None:
    keys = [getattr(key, "public_key", key) for key in instance.host_keys]
    seen: set[PublicKey] = set()
    for each in value:
        if not hasattr(each, "authority"):
            raise InvalidArgument(f"host_certificates must be certificates, not {each!r}")
        if each.kind.name != "HOST":
            raise InvalidArgument(f"a host shows a certificate for hosts; this is one for a user: {each!r}")
        if each.key not in keys:
            raise InvalidArgument(f"the certificate is for none of the host keys: {each!r}")
        if each.key in seen:
            raise InvalidArgument(f"a host key has one certificate; there are several for {each.fingerprint()}")
        seen.add(each.key)


def _auth_methods(instance: Any, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    unknown = [name for name in value if name not in _AUTH_METHODS]
    if unknown or (not value and not instance.ask_none):
        raise InvalidArgument(f"auth_methods must be some of {', '.join(_AUTH_METHODS)}, not {value!r}")


def _banner(instance: Any, attribute: attrs.Attribute[Any], value: str) -> None:
    try:
        size = len(value.encode())
    except (UnicodeEncodeError, AttributeError):
        raise InvalidArgument("banner is not text that UTF-8 can carry") from None
    if size > _BANNER_BYTES:
        raise InvalidArgument(f"banner has {size} bytes, at most {_BANNER_BYTES} can be sent")


@frozen(kw_only=True)
class ServerConfig(Config):
    """What a server decides.

    Attributes:
        host_keys: One for each key type; a :class:`~sshproto.keys.public.PublicKey` means that its signatures are
            asked for with a ``SignatureNeeded`` question.
        host_certificates: Certificates of host keys, at most one for each, which clients get that ask for them. Whether
            they are still valid is the clients' to judge.
        announce_host_keys: Tell clients of all host keys after login, and prove them to those that ask, so that they
            can learn new ones in time (OpenSSH PROTOCOL section 2.5). It is done by what serves with a handler
            (:func:`~sshproto.operations.serving.serve`, the faces); who answers a connection's questions itself has
            ``announce_host_keys`` and ``prove_host_keys`` of :class:`~sshproto.server.ServerConnection`.
        auth_methods: What a client may log in with, of ``"publickey"``, ``"password"``, ``"keyboard-interactive"``.
            A method that is not here is refused without a question.
        ask_none: Ask the application whether a user may in without any proof (a ``NoneAuth`` question).
        banner: Text to show before login (RFC 4252 section 5.4); lines end with LF.
        security_keys: What the signatures of security keys must show, or they fail without a question. Who asks more of
            some keys than of others demands here what all must show, and looks at ``KeyAuth.assertion``.
    """

    host_keys: tuple[PrivateKey | PublicKey, ...] = attrs.field(converter=_keys, validator=_host_keys)
    host_certificates: tuple[Certificate, ...] = attrs.field(
        default=(), converter=_certificates, validator=_host_certificates
    )
    announce_host_keys: bool = True
    auth_methods: tuple[str, ...] = attrs.field(default=("publickey",), converter=_strings, validator=_auth_methods)
    ask_none: bool = False
    banner: str = attrs.field(default="", validator=_banner)
    security_keys: SecurityKeyPolicy = SecurityKeyPolicy()
