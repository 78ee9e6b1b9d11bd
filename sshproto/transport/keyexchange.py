"""From KEXINIT to NEWKEYS, the first time and every time after (RFC 4253 sections 7 to 9).

One :class:`KeyExchange` lives as long as its connection.  It holds no bytes: the connection hands it the messages
20, 21 and 30 to 49, and it switches the connection's sealer and opener when their NEWKEYS pass.  Its state is a vector,
because the two directions change keys independently:

* ``ours`` is our KEXINIT once it is sent; until our NEWKEYS nothing else may leave (:attr:`Outbox.held
  <sshproto.transport.outbox.Outbox>`);
* once the peer's KEXINIT has come there is a :class:`_Round`; until the peer's NEWKEYS nothing else may arrive
  (:attr:`KeyExchange.holds_input`, the column ``R`` of :mod:`sshproto.wire.table`).

The order of checks is the order of trust: sizes, then negotiation, then the public values, then the host's signature,
and only then is the application asked about the host key.  NEWKEYS leaves after its answer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import attrs

from sshproto.algorithms import KNOWN
from sshproto.config import UNATTENDED, ClientConfig, Config, Preferences, ServerConfig
from sshproto.errors import (
    HostKeyRejected,
    HostKeySignatureInvalid,
    InternalError,
    InvalidArgument,
    KeyExchangeFailed,
    KeyFormatError,
    ProtocolViolation,
    SignatureInvalid,
)
from sshproto.events import HostKeyOffered, KeysExchanged, SignatureNeeded
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.keys.signatures import SIGNATURES
from sshproto.transport import kex, negotiation
from sshproto.transport.compression import COMPRESSIONS
from sshproto.transport.keyschedule import direction_keys, exchange_hash
from sshproto.transport.suites import DirectionKeys, key_sizes
from sshproto.values import define, frozen
from sshproto.wire.messages import KexDhGexReply, KexDhReply, KexEcdhReply, KexInit, NewKeys
from sshproto.wire.table import Role, message_name

if TYPE_CHECKING:
    from typing import Protocol

    from sshproto.keys.certificates import Certificate
    from sshproto.outlet import Outlet
    from sshproto.transport.negotiation import Negotiated
    from sshproto.transport.outbox import Outbox
    from sshproto.transport.packets import Opener

    class KexOutlet(Outlet, Protocol):
        """What the key exchange may do to its connection, on top of what every machine may."""

        outbox: Outbox
        opener: Opener

        def new_keys_sent(self) -> None:
            """Our NEWKEYS has left, and the sealer has switched."""


Reply = KexDhReply | KexEcdhReply | KexDhGexReply
"""The messages that end a method: host key, the server's public value, signature."""


@frozen
class _Secrets:
    """What a finished method yields, for the two NEWKEYS."""

    secret: bytes = attrs.field(repr=False)
    exchange_hash: bytes = attrs.field(repr=False)


@frozen
class _Shown:
    """What a server shows for one algorithm.

    Attributes:
        key: The host key that signs.
        blob: It, or its certificate, as it is sent.
        signature: The algorithm of the signature.
    """

    key: PrivateKey | PublicKey
    blob: bytes
    signature: str


@define(eq=False)
class _Round:
    """One key exchange, from the moment that both KEXINITs are known.

    Attributes:
        chosen: The algorithms.
        method: The key-exchange method among them.
        exchange: Our half of it.
        client_kexinit, server_kexinit: The payloads, for the exchange hash.
        skip_guess: The next packet of the method follows a wrong guess and is ignored.
        shown: What a server shows: its key, or the certificate.
        signing: The server's reply without its signature, while the application makes that; and its secrets.
        secrets: Known once the method is complete; on a client, once the signature has been verified.
    """

    chosen: Negotiated
    method: kex.KexMethod
    exchange: kex.ClientExchange | kex.ServerExchange
    client_kexinit: bytes
    server_kexinit: bytes
    skip_guess: bool
    shown: _Shown | None = None
    signing: tuple[Reply, _Secrets] | None = None
    secrets: _Secrets | None = None
    sent_new_keys: bool = False
    received_new_keys: bool = False


class KeyExchange:
    """The key-exchange machine of one live side.

    Attributes:
        session_id: The exchange hash of the first key exchange; None before.
        negotiated: The algorithms of the latest complete exchange.
        host_key: The server's key, once accepted; of a certificate the key that is certified.
        host_key_blob: The key or the certificate as it was sent in the first key exchange; None before.
        host_key_signature: The server's signature of :attr:`session_id`; None before.
        strict: Whether the strict key exchange was agreed (OpenSSH PROTOCOL section 1.9).
        peer_reads_extensions: The peer has said that it reads EXT_INFO (RFC 8308 section 2.1).
        ours: Our KEXINIT of the exchange that is under way, but for its cookie.
        authenticated: Whether USERAUTH_SUCCESS has passed, so that delayed compression runs.
    """

    __slots__ = (
        "_client_ident",
        "_config",
        "_our_payload",
        "_outlet",
        "_role",
        "_round",
        "_server_ident",
        "authenticated",
        "host_key",
        "host_key_blob",
        "host_key_signature",
        "negotiated",
        "ours",
        "peer_reads_extensions",
        "session_id",
        "strict",
    )

    def __init__(self, role: Role, config: Config, outlet: KexOutlet) -> None:
        self._role = role
        self._config = config
        self._outlet = outlet
        self._round: _Round | None = None
        self._client_ident = self._server_ident = b""
        self.session_id: bytes | None = None
        self.negotiated: Negotiated | None = None
        self.host_key: PublicKey | None = None
        self.host_key_blob: bytes | None = None
        self.host_key_signature: bytes | None = None
        self.strict = False
        self.peer_reads_extensions = False
        self.ours: KexInit | None = None
        self._our_payload = b""
        self.authenticated = False

    # ------------------------------------------------------------------------------------------------------------ state

    def identified(self, role: Role, line: bytes) -> None:
        """A side has sent its identification, or we have sent ours."""
        if role is Role.CLIENT:
            self._client_ident = line
        else:
            self._server_ident = line

    @property
    def active(self) -> bool:
        """Whether a key exchange is under way."""
        return self.ours is not None

    @property
    def holds_input(self) -> bool:
        """Whether the peer may send nothing but messages 1 to 4 and the exchange's own."""
        return self._round is not None and not self._round.received_new_keys

    @property
    def context(self) -> str:
        """The family that gives the numbers 30 to 49 their meaning, or ``""``."""
        return self._round.method.family.context if self._round is not None else ""

    def _current(self) -> _Round:
        if self._round is None:
            raise InternalError("the key exchange was driven although none is under way")
        return self._round

    # ---------------------------------------------------------------------------------------------------------- KEXINIT

    def start(self) -> KexInit:
        """Send our KEXINIT. Only when no exchange is under way."""
        config = self._config
        preferences = config.preferences
        names = _able(config) if isinstance(config, ServerConfig) else preferences.host_key
        self.ours, rest = _offer(preferences, self._role, names, self.session_id is None)
        cookie = config.entropy(16, "cookie")
        self._our_payload = payload = _HEAD + cookie + rest
        message = self.ours if config.trace is None else attrs.evolve(self.ours, cookie=cookie)
        self._outlet.outbox.send_now(message, payload)
        self._outlet.outbox.hold()
        return self.ours

    def receive_init(self, payload: bytes, sequence_number: int) -> None:
        """The peer's KEXINIT, received as packet number ``sequence_number``."""
        read, check, negotiate = _HABITS if len(payload) <= _LONGEST_REMEMBERED else _ONCE
        theirs = read(payload)
        if self._round is not None:  # in the first key exchange the legality table leaves that to us
            raise ProtocolViolation("a second KEXINIT came while a key exchange is under way")
        config = self._config
        check(theirs, config.limits)
        ours = self.ours or self.start()
        client, server = (ours, theirs) if self._role is Role.CLIENT else (theirs, ours)
        if self.session_id is None:
            self.peer_reads_extensions = negotiation.EXT_INFO[self._role.peer] in theirs.kex_algorithms
            self.strict = config.preferences.strict_kex and negotiation.strict_agreed(client, server)
            if self.strict and sequence_number != 0:
                # Whoever put packets before the KEXINIT shifted the sequence numbers: the Terrapin attack.
                raise ProtocolViolation(
                    f"strict key exchange: KEXINIT came as packet {sequence_number}, it must be the first"
                )
        chosen = negotiate(client, server, us=self._role, preferences=config.preferences, strict=self.strict)
        method = kex.METHODS[chosen.kex]
        mine = self._our_payload
        shown = _shown(config, chosen.host_key) if isinstance(config, ServerConfig) else None
        self._round = _Round(
            chosen=chosen,
            method=method,
            exchange=self._half(method, shown),
            shown=shown,
            client_kexinit=mine if self._role is Role.CLIENT else payload,
            server_kexinit=payload if self._role is Role.CLIENT else mine,
            skip_guess=theirs.first_kex_packet_follows and not negotiation.guess_is_right(client, server),
        )
        if isinstance(self._round.exchange, kex.ClientExchange):
            self._outlet.outbox.send_now(self._round.exchange.start())

    def _half(self, method: kex.KexMethod, shown: _Shown | None) -> kex.ClientExchange | kex.ServerExchange:
        """Our half of the method. A server creates no key before it is asked for one."""
        config = self._config
        if isinstance(config, ClientConfig):
            return kex.client_exchange(method, entropy=config.entropy, oracle=config.oracle, gex_bits=config.gex_bits)
        blob = _given(shown).blob
        return kex.server_exchange(method, entropy=config.entropy, oracle=config.oracle, host_key=blob)

    # -------------------------------------------------------------------------------------------- the method's messages

    def receive_method(self, payload: bytes) -> None:
        """A message numbered 30 to 49."""
        now = self._round
        if now is None or now.secrets is not None or now.signing is not None:
            raise ProtocolViolation(f"{message_name(payload[0], self.context)} came, but no key exchange waits for it")
        if now.skip_guess:
            # RFC 4253 section 7.1: the packet that followed a wrong guess is ignored, that one and no other.
            now.skip_guess = False
            return
        exchange = now.exchange
        expected = exchange.expects
        if expected is None or payload[0] != expected.number:
            wanted = "nothing more" if expected is None else message_name(expected.number, self.context)
            raise ProtocolViolation(f"key exchange: {message_name(payload[0], self.context)} came, expected {wanted}")
        message = expected.parse(payload)
        answer = exchange.receive(message)
        if exchange.secret is None:
            if answer is not None:
                self._outlet.outbox.send_now(answer)
        elif isinstance(answer, Reply):
            self._sign(now, answer, exchange.secret)
        elif isinstance(message, Reply):
            self._verify(now, message, exchange.secret)

    def _hash(self, now: _Round, host_key: bytes, secret: bytes) -> _Secrets:
        digest = exchange_hash(
            now.method.hash_name,
            client_ident=self._client_ident,
            server_ident=self._server_ident,
            client_kexinit=now.client_kexinit,
            server_kexinit=now.server_kexinit,
            host_key=host_key,
            fields=now.method.family.hash_fields(now.exchange.transcript),
            secret=secret,
        )
        return _Secrets(secret, digest)

    # ---------------------------------------------------------------------------------------------------- client's half

    def _verify(self, now: _Round, reply: Reply, secret: bytes) -> None:
        """The server's reply: check its host key and signature, then ask about the key."""
        limits = self._config.limits
        if len(reply.host_key) > limits.host_key:
            size = len(reply.host_key)
            raise KeyExchangeFailed(f"the host key has {size} bytes, at most {limits.host_key} are accepted")
        if len(reply.signature) > limits.signature:
            size = len(reply.signature)
            raise KeyExchangeFailed(f"the signature has {size} bytes, at most {limits.signature} are accepted")
        algorithm = now.chosen.host_key
        try:
            shown = _read_shown(algorithm, reply.host_key, limits.minimum_rsa_bits)
        except KeyFormatError as error:
            raise KeyExchangeFailed(f"host key: {error}") from error
        secrets = self._hash(now, reply.host_key, secret)
        try:
            shown.verify(reply.signature, secrets.exchange_hash, algorithm, policy=UNATTENDED)
        except SignatureInvalid as error:
            raise HostKeySignatureInvalid(f"the server's signature of the key exchange is invalid: {error}") from error
        self._agree(now, secrets, reply.host_key, reply.signature)
        key, certificate = (shown, None) if isinstance(shown, PublicKey) else (shown.key, shown)
        if self.host_key is None:
            question = HostKeyOffered(
                id=self._outlet.questions.new_id(), key=key, algorithm=algorithm, certificate=certificate
            )
            self._outlet.ask(question, hold=True)
        elif self.host_key.blob == key.blob:
            self._send_new_keys(now)
        else:
            raise HostKeyRejected(
                "the server changed its host key while rekeying: "
                f"{self.host_key.fingerprint()} became {key.fingerprint()}"
            )

    def accept_host_key(self, question: HostKeyOffered) -> None:
        """The application says that it is the server's key."""
        self.host_key = question.key
        self._send_new_keys(self._current())

    # ---------------------------------------------------------------------------------------------------- server's half

    def _sign(self, now: _Round, reply: Reply, secret: bytes) -> None:
        shown = _given(now.shown)
        key = shown.key
        secrets = self._hash(now, shown.blob, secret)
        if isinstance(key, PrivateKey):
            try:
                signature = key.sign(secrets.exchange_hash, shown.signature)
            except SignatureInvalid as error:  # our own signature did not verify: a faulty one gives the key away
                raise KeyExchangeFailed(f"the host key made a bad signature: {error}") from error
            self._reply(now, reply, secrets, signature)
            return
        now.signing = reply, secrets
        question = SignatureNeeded(
            id=self._outlet.questions.new_id(),
            key=key,
            algorithm=shown.signature,
            data=secrets.exchange_hash,
            purpose="host key",
        )
        self._outlet.ask(question, hold=True)

    def sign(self, question: SignatureNeeded, signature: bytes) -> None:
        """The application's signature; verified before it leaves, since a faulty one can give the key away.

        Raises:
            InvalidArgument: It does not verify; the question stays open.
        """
        try:
            question.key.verify(signature, question.data, question.algorithm, policy=UNATTENDED)
        except SignatureInvalid as error:
            raise InvalidArgument(f"the signature is not sent, it does not verify: {error}") from None
        now = self._current()
        if now.signing is not None:
            reply, secrets = now.signing
            now.signing = None
            self._reply(now, reply, secrets, signature)

    def _reply(self, now: _Round, reply: Reply, secrets: _Secrets, signature: bytes) -> None:
        self._outlet.outbox.send_now(_signed(reply, signature))
        shown = _given(now.shown)
        self.host_key = _public(shown.key)
        self._agree(now, secrets, shown.blob, signature)
        self._send_new_keys(now)

    # ---------------------------------------------------------------------------------------------------------- NEWKEYS

    def _agree(self, now: _Round, secrets: _Secrets, host_key: bytes, signature: bytes) -> None:
        now.secrets = secrets
        if self._config.key_log is not None:
            cookie = now.client_kexinit[1:17]
            self._config.key_log(f"{cookie.hex()} SHARED_SECRET {secrets.secret[4:].hex()}")
        if self.session_id is None:
            self.session_id = secrets.exchange_hash
            self.host_key_blob, self.host_key_signature = host_key, signature

    def _direction(self, now: _Round, sender: Role) -> tuple[str, str | None, str, DirectionKeys]:
        """Cipher, MAC, compression and keys of what ``sender`` sends."""
        chosen, secrets, session_id = now.chosen, now.secrets, self.session_id
        if secrets is None or session_id is None:
            raise InternalError("keys were wanted before they are known")
        if sender is Role.CLIENT:
            cipher, mac = chosen.cipher_client_to_server, chosen.mac_client_to_server
            compression = chosen.compression_client_to_server
        else:
            cipher, mac = chosen.cipher_server_to_client, chosen.mac_server_to_client
            compression = chosen.compression_server_to_client
        keys = direction_keys(
            now.method.hash_name,
            secrets.secret,
            secrets.exchange_hash,
            session_id,
            sender=sender,
            sizes=key_sizes(cipher, mac),
        )
        return cipher, mac, compression, keys

    def _send_new_keys(self, now: _Round) -> None:
        outbox = self._outlet.outbox
        cipher, mac, compression, keys = self._direction(now, self._role)
        outbox.send_now(NewKeys())
        outbox.switch(cipher, mac, keys, reset_sequence=self.strict)
        outbox.sealer.set_compression(compression, authenticated=self.authenticated)
        now.sent_new_keys = True
        self._outlet.new_keys_sent()
        self._finish(now)

    def receive_new_keys(self, payload: bytes) -> None:
        """The peer's NEWKEYS."""
        NewKeys.parse(payload)
        now = self._round
        if now is None or now.secrets is None or now.received_new_keys or now.skip_guess:
            raise ProtocolViolation("NEWKEYS came before the key exchange was complete")
        opener = self._outlet.opener
        cipher, mac, compression, keys = self._direction(now, self._role.peer)
        opener.switch(cipher, mac, keys, reset_sequence=self.strict)
        opener.set_compression(compression, authenticated=self.authenticated)
        now.received_new_keys = True
        self._finish(now)

    def _finish(self, now: _Round) -> None:
        if not (now.sent_new_keys and now.received_new_keys):
            return
        if self.host_key is None or self.session_id is None:
            raise InternalError("NEWKEYS passed without a host key")
        first = self.negotiated is None
        self.negotiated = now.chosen
        self.ours = None
        self._our_payload = b""
        self._round = None
        self._outlet.emit(
            KeysExchanged(negotiated=now.chosen, session_id=self.session_id, host_key=self.host_key, first=first)
        )

    def login_passed(self) -> None:
        """USERAUTH_SUCCESS was just sent or received: start the compression that waits for it, both ways."""
        self.authenticated = True
        negotiated = self.negotiated
        if negotiated is None:
            return
        mine, other = negotiated.compression_client_to_server, negotiated.compression_server_to_client
        if self._role is Role.SERVER:
            mine, other = other, mine
        if COMPRESSIONS[mine].delayed:
            self._outlet.outbox.sealer.set_compression(mine, authenticated=True)
        if COMPRESSIONS[other].delayed:
            self._outlet.opener.set_compression(other, authenticated=True)


# What two sides say to each other in KEXINIT is, the cookies apart, what others have said before, so it is remembered:
# in values whose cookie is nothing but zeros.

_REMEMBERED = 64
_LONGEST_REMEMBERED = 4096  # bytes of a KEXINIT: nobody should fill the memory with what is never said again
_HEAD = bytes((KexInit.number,))
_COOKIE = bytes(16)
_BEHIND_COOKIE = len(_HEAD) + len(_COOKIE)


@lru_cache(_REMEMBERED)
def _offer(
    preferences: Preferences, role: Role, host_key_algorithms: tuple[str, ...], first: bool
) -> tuple[KexInit, bytes]:
    """Our KEXINIT, and what is behind the cookie in its payload."""
    made = negotiation.offer(preferences, role, cookie=_COOKIE, host_key_algorithms=host_key_algorithms, first=first)
    return made, made.encode()[_BEHIND_COOKIE:]


def _read_offer(payload: bytes) -> KexInit:
    """The peer's KEXINIT, but for its cookie."""
    if len(payload) < _BEHIND_COOKIE:
        return KexInit.parse(payload)  # which says what is missing
    return _read_rest(payload[_BEHIND_COOKIE:])


@lru_cache(_REMEMBERED)
def _read_rest(rest: bytes) -> KexInit:
    return KexInit.parse(_HEAD + _COOKIE + rest)


_HABITS = (
    _read_offer,
    lru_cache(_REMEMBERED)(negotiation.check_offer),
    lru_cache(_REMEMBERED)(negotiation.negotiate),
)
"""How a KEXINIT is read, checked and negotiated that others may send as well."""

_ONCE = KexInit.parse, negotiation.check_offer, negotiation.negotiate
"""And how one is of which nothing should be kept."""


def _signed(reply: Reply, signature: bytes) -> Reply:
    if isinstance(reply, KexEcdhReply):  # as nearly always
        return KexEcdhReply(reply.host_key, reply.share, signature)
    return attrs.evolve(reply, signature=signature)


def _public(key: PrivateKey | PublicKey) -> PublicKey:
    return key.public_key if isinstance(key, PrivateKey) else key


# A server shows a key, or a certificate of it; either way the key signs, under a plain algorithm (PROTOCOL.certkeys).


def _given(shown: _Shown | None) -> _Shown:
    if shown is None:
        raise InternalError("a client was to show a host key")
    return shown


def _shown(config: ServerConfig, algorithm: str) -> _Shown:
    """What a server shows for an algorithm that it has offered."""
    for key in config.host_keys:
        if algorithm in _public(key).signature_algorithms:
            return _Shown(key, _public(key).blob, algorithm)
    for certificate in config.host_certificates:
        if algorithm in certificate.signature_algorithms:
            key = next(key for key in config.host_keys if _public(key) == certificate.key)
            return _Shown(key, certificate.blob, _plain(algorithm))
    raise KeyExchangeFailed(f"no host key makes {algorithm} signatures")


def _able(config: ServerConfig) -> tuple[str, ...]:
    """The host key algorithms that a server offers, best first."""
    wanted = config.preferences.host_key
    able = {name for key in config.host_keys for name in _public(key).signature_algorithms}
    if config.host_certificates:
        certified = {name for each in config.host_certificates for name in each.signature_algorithms}
        if KNOWN["certificate"].isdisjoint(wanted):
            by_plain = {_plain(name): name for name in certified}
            wanted = tuple(by_plain[name] for name in wanted if name in by_plain) + wanted
        able |= certified
    return tuple(name for name in wanted if name in able)


def _plain(algorithm: str) -> str:
    """The algorithm with which the key of a certificate signs."""
    from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS  # who meets no certificate does not load them

    return CERTIFICATE_ALGORITHMS[algorithm].signature


def _read_shown(algorithm: str, blob: bytes, minimum_rsa_bits: int) -> PublicKey | Certificate:
    """What the server has shown for an algorithm; KeyFormatError if it is no good."""
    if algorithm in SIGNATURES:
        return PublicKey.from_blob(blob, minimum_rsa_bits=minimum_rsa_bits)
    from sshproto.keys.certificates import Certificate

    return Certificate.from_blob(blob, minimum_rsa_bits=minimum_rsa_bits)
