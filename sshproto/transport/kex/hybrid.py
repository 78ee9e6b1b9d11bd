"""Hybrid methods: ML-KEM (FIPS 203) and ECDH side by side (draft-ietf-sshm-mlkem-hybrid-kex).

The messages are ECDH's with both public values in one string: C_INIT is the client's ML-KEM public key, then its ECDH
value; S_REPLY is the server's ML-KEM ciphertext, then its ECDH value.  K is HASH(K_PQ || K_CL), both of fixed size, and
enters the exchange hash and the key derivation as a *string*, not as an mpint.  A ciphertext that was tampered with is
not noticed here: ML-KEM then gives another secret, and the signature of the exchange hash does not verify.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sshproto.config import Entropy, Oracle
from sshproto.errors import KeyExchangeFailed
from sshproto.transport.kex.base import ENTROPY_LABEL, ClientExchange, KexMethod, ServerExchange
from sshproto.transport.kex.ecdh import CURVE25519, ECDH, NISTP256, NISTP384, Curve, Ephemeral
from sshproto.values import frozen
from sshproto.wire.codec import string
from sshproto.wire.messages import KexEcdhInit, KexEcdhReply, Message

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import mlkem

    KemPrivateKey = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey

ORACLE_LABEL = "mlkem encapsulation"
"""What the oracle is asked for: the shared secret, then the ciphertext. The backend takes no randomness of ours."""

_SEED_SIZE = 64
_SECRET_SIZE = 32


@frozen
class Kem:
    """An ML-KEM parameter set (FIPS 203 table 3).

    Attributes:
        name: For errors.
        public_size: Bytes of a public key.
        ciphertext_size: Bytes of a ciphertext.
    """

    name: str
    public_size: int
    ciphertext_size: int

    def private(self, entropy: Entropy) -> KemPrivateKey:
        """A fresh private key, made of ``entropy``."""
        from cryptography.hazmat.primitives.asymmetric import mlkem

        seed = entropy(_SEED_SIZE, ENTROPY_LABEL)
        if self is MLKEM768:
            return mlkem.MLKEM768PrivateKey.from_seed_bytes(seed)
        return mlkem.MLKEM1024PrivateKey.from_seed_bytes(seed)

    def encapsulate(self, public: bytes, oracle: Oracle) -> tuple[bytes, bytes]:
        """A secret and its ciphertext for the holder of ``public``.

        Raises:
            KeyExchangeFailed: ``public`` is not a public key (FIPS 203 section 7.2).
        """
        from cryptography.hazmat.primitives.asymmetric import mlkem

        key: mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey
        try:
            if self is MLKEM768:
                key = mlkem.MLKEM768PublicKey.from_public_bytes(public)
            else:
                key = mlkem.MLKEM1024PublicKey.from_public_bytes(public)
        except ValueError:
            raise KeyExchangeFailed(f"the client's {self.name} public key has a coefficient out of range") from None
        result = oracle(ORACLE_LABEL, lambda: b"".join(key.encapsulate()))
        return result[:_SECRET_SIZE], result[_SECRET_SIZE:]


MLKEM768 = Kem("ML-KEM-768", 1184, 1088)
MLKEM1024 = Kem("ML-KEM-1024", 1568, 1568)


@frozen
class HybridMethod(KexMethod):
    """One KEM with one curve."""

    kem: Kem
    curve: Curve

    family = ECDH

    def client(self, entropy: Entropy, oracle: Oracle, gex_bits: tuple[int, int, int]) -> ClientExchange:
        return HybridClient(self, entropy)

    def server(self, entropy: Entropy, oracle: Oracle, host_key: bytes) -> ServerExchange:
        return HybridServer(self, entropy, oracle, host_key)

    def split(self, share: bytes, message: str, kem_size: int) -> tuple[bytes, bytes]:
        """The KEM's and the curve's part of ``share``.

        Raises:
            KeyExchangeFailed: It has not exactly the size of both.
        """
        size = kem_size + self.curve.share_size
        if len(share) != size:
            raise KeyExchangeFailed(f"{self.name}: {message} has {len(share)} bytes, it must have {size}")
        return share[:kem_size], share[kem_size:]

    def combine(self, post_quantum: bytes, classical: bytes) -> bytes:
        """K from both secrets, encoded."""
        return string(hashlib.new(self.hash_name, post_quantum + classical).digest())


class HybridClient(ClientExchange):
    """A client's run of a hybrid method."""

    __slots__ = ("_method", "_private")

    family = ECDH

    def __init__(self, method: HybridMethod, entropy: Entropy) -> None:
        super().__init__(method.name, entropy)
        self._method = method
        self._private: tuple[KemPrivateKey, Ephemeral] | None = None

    def _first(self) -> Message:
        self._private = key, ephemeral = (
            self._method.kem.private(self._entropy),
            self._method.curve.ephemeral(self._entropy),
        )
        return KexEcdhInit(key.public_key().public_bytes_raw() + ephemeral.share)

    def _answer(self, message: KexEcdhReply) -> None:
        private, self._private = self._private, None
        if private is None:  # a reply is not taken before start()
            return
        key, ephemeral = private
        method = self._method
        ciphertext, share = method.split(message.share, "S_REPLY", method.kem.ciphertext_size)
        classical = ephemeral.agree(share)
        try:
            post_quantum = key.decapsulate(ciphertext)
        except ValueError:
            raise KeyExchangeFailed(f"the server's {method.kem.name} ciphertext is not acceptable") from None
        self.secret = method.combine(post_quantum, classical)


class HybridServer(ServerExchange):
    """A server's run of a hybrid method."""

    __slots__ = ("_method", "_oracle")

    family = ECDH

    def __init__(self, method: HybridMethod, entropy: Entropy, oracle: Oracle, host_key: bytes) -> None:
        super().__init__(method.name, entropy, host_key)
        self._method = method
        self._oracle = oracle

    def _answer(self, message: KexEcdhInit) -> Message:
        method = self._method
        public, share = method.split(message.share, "C_INIT", method.kem.public_size)
        ephemeral = method.curve.ephemeral(self._entropy)
        classical = ephemeral.agree(share)
        post_quantum, ciphertext = method.kem.encapsulate(public, self._oracle)
        self.secret = method.combine(post_quantum, classical)
        return KexEcdhReply(host_key=self._host_key, share=ciphertext + ephemeral.share, signature=b"")


METHODS: tuple[HybridMethod, ...] = (
    HybridMethod("mlkem768x25519-sha256", "sha256", MLKEM768, CURVE25519),
    HybridMethod("mlkem768nistp256-sha256", "sha256", MLKEM768, NISTP256),
    HybridMethod("mlkem1024nistp384-sha384", "sha384", MLKEM1024, NISTP384),
)
