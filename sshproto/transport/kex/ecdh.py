"""Elliptic-curve Diffie-Hellman: RFC 5656 section 4 (NIST curves) and RFC 8731 (Curve25519, Curve448).

The public values are checked here, before and around the backend: exact lengths; for NIST curves the uncompressed
form only (RFC 5656 section 4 lets a peer refuse compression, and one accepted form means one transcript), a point on
the curve, not infinity; for Montgomery curves no all-zero secret (RFC 8731 section 3).  The secret enters the hash as
an mpint of its big-endian reading, so that leading zero bytes vanish (RFC 8731 section 3.1, RFC 5656 section 4).
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

from sshproto.config import Entropy, Oracle
from sshproto.errors import KeyExchangeFailed
from sshproto.transport.kex.base import ENTROPY_LABEL, ClientExchange, Family, KexMethod, ServerExchange
from sshproto.values import frozen
from sshproto.wire.codec import mpint, string
from sshproto.wire.messages import KexEcdhInit, KexEcdhReply, Message


class Ephemeral:
    """A private value for one exchange, and the public one that goes with it.

    Attributes:
        share: The public value as it is sent.
    """

    __slots__ = ("_agree", "share")

    def __init__(self, share: bytes, agree: Callable[[bytes], bytes]) -> None:
        self.share = share
        self._agree = agree

    def agree(self, share: bytes) -> bytes:
        """The secret shared with the peer whose public value is ``share``, of the curve's fixed size.

        Raises:
            KeyExchangeFailed: ``share`` is not an acceptable public value.
        """
        return self._agree(share)


@frozen
class Curve(ABC):
    """A curve.

    Attributes:
        name: For errors.
        size: Bytes of a coordinate, and of the secret.
    """

    name: str
    size: int

    @property
    @abstractmethod
    def share_size(self) -> int:
        """Bytes of a public value."""

    @abstractmethod
    def ephemeral(self, entropy: Entropy) -> Ephemeral:
        """A fresh private value, made of ``entropy``."""

    @abstractmethod
    def restore(self, private: bytes) -> Ephemeral | None:
        """The ephemeral whose private value is known; None if it is no private value of this curve."""

    def _check_length(self, share: bytes) -> None:
        if len(share) != self.share_size:
            raise KeyExchangeFailed(
                f"the peer's {self.name} public value has {len(share)} bytes, it must have {self.share_size}"
            )


@frozen
class Montgomery(Curve):
    """Curve25519 and Curve448 (RFC 7748)."""

    @property
    def share_size(self) -> int:
        return self.size

    def ephemeral(self, entropy: Entropy) -> Ephemeral:
        return self._ephemeral(entropy(self.size, ENTROPY_LABEL))

    def restore(self, private: bytes) -> Ephemeral | None:
        return self._ephemeral(private) if len(private) == self.size else None

    def _ephemeral(self, seed: bytes) -> Ephemeral:
        mine, exchange = _x25519(seed) if self.size == 32 else _x448(seed)

        def agree(share: bytes) -> bytes:
            self._check_length(share)
            try:
                secret = exchange(share)
            except ValueError:  # the backend refuses an all-zero secret by itself
                secret = bytes(self.size)
            if hmac.compare_digest(secret, bytes(self.size)):
                raise KeyExchangeFailed(f"the peer's {self.name} public value is a point of small order")
            return secret

        return Ephemeral(mine, agree)


def _x25519(seed: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    private = X25519PrivateKey.from_private_bytes(seed)
    return (
        private.public_key().public_bytes_raw(),
        lambda share: private.exchange(X25519PublicKey.from_public_bytes(share)),
    )


def _x448(seed: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey

    private = X448PrivateKey.from_private_bytes(seed)
    return (
        private.public_key().public_bytes_raw(),
        lambda share: private.exchange(X448PublicKey.from_public_bytes(share)),
    )


@frozen
class Weierstrass(Curve):
    """The NIST curves (RFC 5656 section 10.1).

    Attributes:
        order: The order of the base point.
    """

    order: int

    @property
    def share_size(self) -> int:
        return 1 + 2 * self.size

    def ephemeral(self, entropy: Entropy) -> Ephemeral:
        # 64 bits more than needed make the reduction's bias negligible (FIPS 186-5 A.2.1); unlike trying again until
        # a number fits, this ends whatever a test's or a fuzzer's entropy gives.
        extra = int.from_bytes(entropy(self.size + 8, ENTROPY_LABEL), "big")
        return self._ephemeral(extra % (self.order - 1) + 1)

    def restore(self, private: bytes) -> Ephemeral | None:
        scalar = int.from_bytes(private, "big")
        return self._ephemeral(scalar) if 0 < scalar < self.order else None

    def _ephemeral(self, scalar: int) -> Ephemeral:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        curves: dict[int, ec.EllipticCurve] = {32: ec.SECP256R1(), 48: ec.SECP384R1(), 66: ec.SECP521R1()}
        curve = curves[self.size]
        private = ec.derive_private_key(scalar, curve)
        mine = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

        def agree(share: bytes) -> bytes:
            self._check_length(share)
            if share[0] != 4:
                raise KeyExchangeFailed(
                    f"the peer's {self.name} public value starts with {share[0]:02x}, not 04: only the uncompressed"
                    " form is accepted"
                )
            try:
                return private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(curve, share))
            except ValueError:
                raise KeyExchangeFailed(f"the peer's {self.name} public value is not a point of the curve") from None

        return Ephemeral(mine, agree)


CURVE25519 = Montgomery("X25519", 32)
CURVE448 = Montgomery("X448", 56)
NISTP256 = Weierstrass("nistp256", 32, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551)
NISTP384 = Weierstrass(
    "nistp384",
    48,
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
)
NISTP521 = Weierstrass(
    "nistp521",
    66,
    (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
)


def hash_fields(messages: Sequence[Message]) -> bytes:
    """Q_C and Q_S, as strings (RFC 5656 section 4); also the hybrid methods' C_INIT and S_REPLY."""
    init, reply = cast("tuple[KexEcdhInit, KexEcdhReply]", messages)
    return string(init.share) + string(reply.share)


ECDH = Family("ecdh", (KexEcdhInit, KexEcdhReply), hash_fields)


@frozen
class EcdhMethod(KexMethod):
    """ECDH over one curve."""

    curve: Curve

    family = ECDH

    def client(self, entropy: Entropy, oracle: Oracle, gex_bits: tuple[int, int, int]) -> ClientExchange:
        return EcdhClient(self, entropy)

    def server(self, entropy: Entropy, oracle: Oracle, host_key: bytes) -> ServerExchange:
        return EcdhServer(self, entropy, host_key)


class EcdhClient(ClientExchange):
    """A client's run of ECDH."""

    __slots__ = ("_curve", "_ephemeral")

    family = ECDH

    def __init__(self, method: EcdhMethod, entropy: Entropy) -> None:
        super().__init__(method.name, entropy)
        self._curve = method.curve
        self._ephemeral: Ephemeral | None = None

    def _first(self) -> Message:
        self._ephemeral = self._curve.ephemeral(self._entropy)
        return KexEcdhInit(self._ephemeral.share)

    def _answer(self, message: KexEcdhReply) -> None:
        ephemeral, self._ephemeral = self._ephemeral, None
        if ephemeral is not None:  # a reply is not taken before start()
            self.secret = _encoded(ephemeral.agree(message.share))


class EcdhServer(ServerExchange):
    """A server's run of ECDH."""

    __slots__ = ("_curve",)

    family = ECDH

    def __init__(self, method: EcdhMethod, entropy: Entropy, host_key: bytes) -> None:
        super().__init__(method.name, entropy, host_key)
        self._curve = method.curve

    def _answer(self, message: KexEcdhInit) -> Message:
        ephemeral = self._curve.ephemeral(self._entropy)
        self.secret = _encoded(ephemeral.agree(message.share))
        return KexEcdhReply(host_key=self._host_key, share=ephemeral.share, signature=b"")


def _encoded(secret: bytes) -> bytes:
    return mpint(int.from_bytes(secret, "big"))


METHODS: tuple[EcdhMethod, ...] = (
    EcdhMethod("curve25519-sha256", "sha256", CURVE25519),
    EcdhMethod("curve25519-sha256@libssh.org", "sha256", CURVE25519),
    EcdhMethod("curve448-sha512", "sha512", CURVE448),
    EcdhMethod("ecdh-sha2-nistp256", "sha256", NISTP256),
    EcdhMethod("ecdh-sha2-nistp384", "sha384", NISTP384),
    EcdhMethod("ecdh-sha2-nistp521", "sha512", NISTP521),
)
