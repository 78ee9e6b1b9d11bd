"""From KEXINIT to NEWKEYS, the first time and every time after (RFC 4253 sections 7 to 9).

One :class:`KeyExchange` lives as long as its connection.  It holds no bytes: the connection hands it the messages
20, 21 and 30 to 49, and it switches the connection's sealer and opener when their NEWKEYS pass.  Its state is a vector,
because the two directions change keys independently:

* ``ours`` is our KEXINIT once it is sent; until our NEWKEYS nothing else may leave (:attr:`KeyExchange.holds_output`);
* ``theirs`` is the peer's KEXINIT once it came; until its NEWKEYS nothing else may arrive
  (:attr:`KeyExchange.holds_input`, the column ``R`` of :mod:`sshproto.wire.table`).

The order of checks is the order of trust: sizes, then negotiation, then the public values, then the host's signature,
and only then is the application asked about the host key.  NEWKEYS leaves after its answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from sshproto.config import ClientConfig, Config, ServerConfig
from sshproto.errors import (
    HostKeyRejected,
    HostKeySignatureInvalid,
    InvalidArgument,
    KeyExchangeFailed,
    KeyFormatError,
    ProtocolViolation,
    SignatureInvalid,
)
from sshproto.events import HostKeyOffered, KeysExchanged, Question, SignatureNeeded
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.outlet import Outlet
from sshproto.transport import kex, negotiation
from sshproto.transport.ciphers import DirectionKeys, key_sizes
from sshproto.transport.compression import COMPRESSIONS
from sshproto.transport.keyschedule import direction_keys, exchange_hash
from sshproto.wire.messages import KexDhGexReply, KexDhReply, KexEcdhReply, KexInit, Message, NewKeys
from sshproto.wire.table import Role, message_name

if TYPE_CHECKING:
    from sshproto.transport.negotiation import Negotiated
    from sshproto.transport.packets import Opener, Sealer


Reply = KexDhReply | KexEcdhReply | KexDhGexReply
"""The messages that end a method: host key, the server's public value, signature."""


class KexOutlet(Outlet, Protocol):
    """What the key exchange may do to its connection, on top of what every machine may."""

    sealer: Sealer
    opener: Opener

    def send_now(self, message: Message) -> None:
        """Queue a message of the key exchange itself, past everything that waits for its end."""

    def new_keys_sent(self) -> None:
        """Our NEWKEYS has left, and the sealer has switched."""


@attrs.frozen
class _Agreed:
    """What a finished exchange yields, waiting for the two NEWKEYS."""

    hash_name: str = attrs.field(repr=False)
    secret: bytes = attrs.field(repr=False)
    exchange_hash: bytes = attrs.field(repr=False)


class KeyExchange:
    """The key-exchange machine of one live side.

    Attributes:
        idents: Both identification lines, filled in by the connection.
        session_id: The exchange hash of the first key exchange; None before.
        negotiated: The algorithms of the latest complete exchange.
        host_key: The server's key, once accepted.
        strict: Whether the strict key exchange was agreed (OpenSSH PROTOCOL section 1.9).
        peer_offer: The peer's first KEXINIT, for its pseudo-algorithms.
        blocked: The question that holds up all input, if one does.
        authenticated: Whether USERAUTH_SUCCESS has passed, so that delayed compression runs.
    """

    def __init__(self, role: Role, config: Config, outlet: KexOutlet) -> None:
        self._role = role
        self._config = config
        self._outlet = outlet
        self.idents: dict[Role, bytes] = {}
        self.session_id: bytes | None = None
        self.negotiated: Negotiated | None = None
        self.host_key: PublicKey | None = None
        self.strict = False
        self.peer_offer: KexInit | None = None
        self.blocked: Question | None = None
        self.authenticated = False
        self._reset()

    def _reset(self) -> None:
        self.ours: KexInit | None = None
        self.theirs: KexInit | None = None
        self._payloads: dict[Role, bytes] = {}
        self._method: kex.KexMethod | None = None
        self._next: Negotiated | None = None
        self._exchange: kex.ClientExchange | kex.ServerExchange | None = None
        self._skip_guess = False
        self._agreed: _Agreed | None = None
        self._signing: tuple[Reply, bytes, bytes] | None = None
        self._sent_new_keys = False
        self._received_new_keys = False

    # ------------------------------------------------------------------------------------------------------------ state

    @property
    def active(self) -> bool:
        """Whether a key exchange is under way."""
        return self.ours is not None or self.theirs is not None

    @property
    def holds_output(self) -> bool:
        """Whether only messages 1 to 4 and the exchange's own may be sent (RFC 4253 section 7.1)."""
        return self.ours is not None and not self._sent_new_keys

    @property
    def holds_input(self) -> bool:
        """Whether the peer may send nothing but messages 1 to 4 and the exchange's own."""
        return self.theirs is not None and not self._received_new_keys

    @property
    def context(self) -> str:
        """The family that gives the numbers 30 to 49 their meaning, or ``""``."""
        return self._method.family.context if self._method is not None else ""

    # ---------------------------------------------------------------------------------------------------------- KEXINIT

    def start(self) -> None:
        """Send our KEXINIT. Only when no exchange of ours is under way."""
        config = self._config
        preferences = config.preferences
        names = preferences.host_key
        if isinstance(config, ServerConfig):
            able = {name for key in config.host_keys for name in _public(key).signature_algorithms}
            names = tuple(name for name in names if name in able)
        self.ours = negotiation.offer(
            preferences,
            self._role,
            cookie=config.entropy(16, "cookie"),
            host_key_algorithms=names,
            first=self.session_id is None,
        )
        self._payloads[self._role] = self.ours.encode()
        self._outlet.send_now(self.ours)

    def receive_init(self, payload: bytes, sequence_number: int) -> None:
        """The peer's KEXINIT, received as packet number ``sequence_number``."""
        theirs = KexInit.parse(payload)
        if self.theirs is not None:
            raise ProtocolViolation("a second KEXINIT came while a key exchange is under way")
        negotiation.check_offer(theirs, self._config.limits)
        self.theirs = theirs
        self._payloads[self._role.peer] = payload
        if self.ours is None:
            self.start()
        ours = self.ours
        if ours is None:  # start() has set it
            raise ProtocolViolation("no KEXINIT of ours")
        client, server = (ours, theirs) if self._role is Role.CLIENT else (theirs, ours)
        if self.session_id is None:
            self.peer_offer = theirs
            self.strict = self._config.preferences.strict_kex and negotiation.strict_agreed(client, server)
            if self.strict and sequence_number != 0:
                # Whoever put packets before the KEXINIT shifted the sequence numbers: the Terrapin attack.
                raise ProtocolViolation(
                    f"strict key exchange: KEXINIT came as packet {sequence_number}, it must be the first"
                )
        self._next = negotiation.negotiate(
            client, server, us=self._role, preferences=self._config.preferences, strict=self.strict
        )
        self._method = kex.METHODS[self._next.kex]
        self._skip_guess = theirs.first_kex_packet_follows and not negotiation.guess_is_right(client, server)
        self._begin()

    def _begin(self) -> None:
        """Set up our half of the negotiated method. A server creates no key before it is asked for one."""
        method, chosen, config = self._method, self._next, self._config
        if method is None or chosen is None:
            raise ProtocolViolation("nothing has been negotiated")
        if isinstance(config, ClientConfig):
            exchange = kex.client_exchange(
                method, entropy=config.entropy, oracle=config.oracle, gex_bits=config.gex_bits
            )
            self._exchange = exchange
            self._outlet.send_now(exchange.start())
        elif isinstance(config, ServerConfig):
            blob = _public(_key_for(config, chosen.host_key)).blob
            self._exchange = kex.server_exchange(method, entropy=config.entropy, oracle=config.oracle, host_key=blob)

    # -------------------------------------------------------------------------------------------- the method's messages

    def receive_method(self, payload: bytes) -> None:
        """A message numbered 30 to 49."""
        exchange = self._exchange
        if exchange is None or self._agreed is not None or self._signing is not None:
            raise ProtocolViolation(f"{message_name(payload[0], self.context)} came, but no key exchange waits for it")
        if self._skip_guess:
            # RFC 4253 section 7.1: the packet that followed a wrong guess is ignored, that one and no other.
            self._skip_guess = False
            return
        expected = exchange.expects
        if expected is None or payload[0] != expected.number:
            wanted = "nothing more" if expected is None else message_name(expected.number, self.context)
            raise ProtocolViolation(f"key exchange: {message_name(payload[0], self.context)} came, expected {wanted}")
        message = expected.parse(payload)
        answer = exchange.receive(message)
        if exchange.secret is not None and isinstance(answer, Reply):
            self._sign(exchange, answer, exchange.secret)
        elif exchange.secret is not None and isinstance(message, Reply):
            self._verify(exchange, message, exchange.secret)
        elif answer is not None:
            self._outlet.send_now(answer)

    def _hash(self, exchange: kex.Exchange, host_key: bytes, secret: bytes) -> bytes:
        method = self._method
        if method is None:
            raise KeyExchangeFailed("no method has been negotiated")
        return exchange_hash(
            method.hash_name,
            client_ident=self.idents[Role.CLIENT],
            server_ident=self.idents[Role.SERVER],
            client_kexinit=self._payloads[Role.CLIENT],
            server_kexinit=self._payloads[Role.SERVER],
            host_key=host_key,
            fields=method.family.hash_fields(exchange.transcript),
            secret=secret,
        )

    def _agree(self, secret: bytes, digest: bytes) -> None:
        method = self._method
        if method is None:
            raise KeyExchangeFailed("no method has been negotiated")
        self._agreed = _Agreed(method.hash_name, secret, digest)
        self._exchange = None
        if self.session_id is None:
            self.session_id = digest

    # ---------------------------------------------------------------------------------------------------- client's half

    def _verify(self, exchange: kex.Exchange, reply: Reply, secret: bytes) -> None:
        """The server's reply: check its host key and signature, then ask about the key."""
        blob, signature = reply.host_key, reply.signature
        limits = self._config.limits
        if len(blob) > limits.host_key:
            raise KeyExchangeFailed(f"the host key has {len(blob)} bytes, at most {limits.host_key} are accepted")
        if len(signature) > limits.signature:
            raise KeyExchangeFailed(
                f"the signature has {len(signature)} bytes, at most {limits.signature} are accepted"
            )
        algorithm = self._chosen().host_key
        try:
            key = PublicKey.from_blob(blob, minimum_rsa_bits=limits.minimum_rsa_bits)
        except KeyFormatError as error:
            raise KeyExchangeFailed(f"host key: {error}") from error
        digest = self._hash(exchange, blob, secret)
        try:
            key.verify(signature, digest, algorithm)
        except SignatureInvalid as error:
            raise HostKeySignatureInvalid(f"the server's signature of the key exchange is invalid: {error}") from error
        self._agree(secret, digest)
        if self.host_key is None:
            question = HostKeyOffered(id=self._outlet.question_id(), key=key, algorithm=algorithm)
            self.blocked = question
            self._outlet.ask(question)
        elif self.host_key.blob == key.blob:
            self._send_new_keys()
        else:
            raise HostKeyRejected(
                "the server changed its host key while rekeying: "
                f"{self.host_key.fingerprint()} became {key.fingerprint()}"
            )

    def accept_host_key(self, question: HostKeyOffered) -> None:
        self.blocked = None
        self.host_key = question.key
        self._send_new_keys()

    # ---------------------------------------------------------------------------------------------------- server's half

    def _sign(self, exchange: kex.Exchange, reply: Reply, secret: bytes) -> None:
        config = self._config
        if not isinstance(config, ServerConfig):
            raise KeyExchangeFailed("only a server signs")
        algorithm = self._chosen().host_key
        key = _key_for(config, algorithm)
        public = _public(key)
        digest = self._hash(exchange, public.blob, secret)
        if isinstance(key, PrivateKey):
            try:
                signature = key.sign(digest, algorithm)
            except SignatureInvalid as error:  # our own signature did not verify: a faulty one gives the key away
                raise KeyExchangeFailed(f"the host key made a bad signature: {error}") from error
            self._reply(reply, signature, secret, digest)
            return
        self._signing = (reply, secret, digest)
        self.blocked = question = SignatureNeeded(
            id=self._outlet.question_id(), key=public, algorithm=algorithm, data=digest, purpose="host key"
        )
        self._outlet.ask(question)

    def sign(self, question: SignatureNeeded, signature: bytes) -> None:
        """The application's signature; verified before it leaves, since a faulty one can give the key away.

        Raises:
            InvalidArgument: It does not verify; the question stays open.
        """
        try:
            question.key.verify(signature, question.data, question.algorithm)
        except SignatureInvalid as error:
            raise InvalidArgument(f"the signature is not sent, it does not verify: {error}") from None
        if self._signing is None:
            return
        reply, secret, digest = self._signing
        self._signing = None
        self.blocked = None
        self._reply(reply, signature, secret, digest)

    def _reply(self, reply: Reply, signature: bytes, secret: bytes, digest: bytes) -> None:
        self._outlet.send_now(attrs.evolve(reply, signature=signature))
        self.host_key = _public(_key_for(self._config, self._chosen().host_key))
        self._agree(secret, digest)
        self._send_new_keys()

    # ---------------------------------------------------------------------------------------------------------- NEWKEYS

    def _chosen(self) -> Negotiated:
        if self._next is None:
            raise KeyExchangeFailed("nothing has been negotiated")
        return self._next

    def _keys(self, sender: Role, cipher: str, mac: str | None) -> DirectionKeys:
        agreed, session_id = self._agreed, self.session_id
        if agreed is None or session_id is None:
            raise ProtocolViolation("NEWKEYS before the keys are known")
        return direction_keys(
            agreed.hash_name,
            agreed.secret,
            agreed.exchange_hash,
            session_id,
            sender=sender,
            sizes=key_sizes(cipher, mac),
        )

    def _direction(self, sender: Role) -> tuple[str, str | None, str]:
        """Cipher, MAC and compression of what ``sender`` sends."""
        chosen = self._chosen()
        if sender is Role.CLIENT:
            return chosen.cipher_client_to_server, chosen.mac_client_to_server, chosen.compression_client_to_server
        return chosen.cipher_server_to_client, chosen.mac_server_to_client, chosen.compression_server_to_client

    def _send_new_keys(self) -> None:
        cipher, mac, compression = self._direction(self._role)
        keys = self._keys(self._role, cipher, mac)
        self._outlet.send_now(NewKeys())
        self._outlet.sealer.switch(cipher, mac, keys, reset_sequence=self.strict)
        self._outlet.sealer.set_compression(compression, authenticated=self.authenticated)
        self._sent_new_keys = True
        self._outlet.new_keys_sent()
        self._finish()

    def receive_new_keys(self, payload: bytes) -> None:
        """The peer's NEWKEYS."""
        NewKeys.parse(payload)
        if self._agreed is None or self._received_new_keys or self._skip_guess:
            raise ProtocolViolation("NEWKEYS came before the key exchange was complete")
        cipher, mac, compression = self._direction(self._role.peer)
        keys = self._keys(self._role.peer, cipher, mac)
        self._outlet.opener.switch(cipher, mac, keys, reset_sequence=self.strict)
        self._outlet.opener.set_compression(compression, authenticated=self.authenticated)
        self._received_new_keys = True
        self._finish()

    def _finish(self) -> None:
        if not (self._sent_new_keys and self._received_new_keys):
            return
        negotiated, host_key, session_id = self._chosen(), self.host_key, self.session_id
        if host_key is None or session_id is None:
            raise ProtocolViolation("NEWKEYS without a host key")
        first = self.negotiated is None
        self.negotiated = negotiated
        self._reset()
        self._outlet.emit(KeysExchanged(negotiated=negotiated, session_id=session_id, host_key=host_key, first=first))

    # ------------------------------------------------------------------------------------------------------ compression

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
            self._outlet.sealer.set_compression(mine, authenticated=True)
        if COMPRESSIONS[other].delayed:
            self._outlet.opener.set_compression(other, authenticated=True)


def _public(key: PrivateKey | PublicKey) -> PublicKey:
    return key.public_key if isinstance(key, PrivateKey) else key


def _key_for(config: Config, algorithm: str) -> PrivateKey | PublicKey:
    """The host key of a server that makes signatures of ``algorithm``."""
    for key in config.host_keys if isinstance(config, ServerConfig) else ():
        if algorithm in _public(key).signature_algorithms:
            return key
    raise KeyExchangeFailed(f"no host key makes {algorithm} signatures")
