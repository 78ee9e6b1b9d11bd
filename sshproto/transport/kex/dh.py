"""Diffie-Hellman over finite fields (RFC 4253 section 8, RFC 8268), with the arithmetic that group exchange shares.

Public values must lie strictly between 1 and p - 1 (RFC 8268 section 4) and have at least four bits set, as OpenSSH
wants; the same is asked of the secret's range (RFC 4419 section 3).

The private exponent is drawn from ``entropy``, not made by the backend and passed through ``oracle``: a recording then
needs to hold no more for these methods than for the others.  It has 512 bits, twice the strength of the strongest
cipher, and its highest bit is set, so that its length tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import cast

from sshproto.config import Entropy, Oracle
from sshproto.errors import KeyExchangeFailed
from sshproto.transport.kex.base import ENTROPY_LABEL, ClientExchange, Family, KexMethod, ServerExchange
from sshproto.transport.kex.groups import (
    GENERATOR,
    GROUP1,
    GROUP14,
    GROUP15,
    GROUP16,
    GROUP17,
    GROUP18,
    Group,
    strong_prime,
)
from sshproto.values import frozen
from sshproto.wire.codec import mpint
from sshproto.wire.messages import KexDhInit, KexDhReply, Message

_EXPONENT_SIZE = 64
_LEAST_BITS_SET = 4


class DhEphemeral:
    """A private exponent for one exchange, and the public value that goes with it.

    Attributes:
        public: e or f.

    Raises:
        KeyExchangeFailed: The group gives no acceptable public value.
    """

    __slots__ = ("_exponent", "_prime", "public")

    def __init__(self, prime: int, generator: int, entropy: Entropy) -> None:
        self._prime = prime
        exponent = int.from_bytes(entropy(_EXPONENT_SIZE, ENTROPY_LABEL), "big")
        self._exponent = exponent | 1 << (_EXPONENT_SIZE * 8 - 1)
        self.public = _power(generator, self._exponent, prime)
        check_public(self.public, prime, "our")  # wrong only in a group that a hostile server has made up

    def agree(self, public: int) -> bytes:
        """K, encoded. ``public`` must have been checked.

        Raises:
            KeyExchangeFailed: K is trivial.
        """
        secret = _power(public, self._exponent, self._prime)
        if not 1 < secret < self._prime - 1:
            raise KeyExchangeFailed("the Diffie-Hellman secret is trivial: it is not between 1 and p - 1")
        return mpint(secret)


def check_public(value: int, prime: int, whose: str) -> None:
    """Check a public value.

    Args:
        value: e or f.
        prime: The group's.
        whose: Its owner, for the error: ``"the client's"``, ``"the server's"``.

    Raises:
        KeyExchangeFailed: It is not strictly between 1 and p - 1, or almost all of its bits are zero.
    """
    if not 1 < value < prime - 1:
        raise KeyExchangeFailed(f"{whose} Diffie-Hellman value is out of range: it must be between 1 and p - 1")
    if value.bit_count() < _LEAST_BITS_SET:
        raise KeyExchangeFailed(f"{whose} Diffie-Hellman value has fewer than {_LEAST_BITS_SET} bits set")


def _backend() -> ModuleType | None:
    """cryptography's finite-field Diffie-Hellman, or None if it has gone.

    cryptography 50 deprecates it by warnings on the public names of its ``dh`` module.  They concern us, not our users,
    and filtering warnings is not safe among threads; so the classes are taken from where they live.
    """
    try:
        from cryptography.hazmat.bindings._rust import openssl

        return openssl.dh
    except (ImportError, AttributeError):
        return None


def _power(base: int, exponent: int, prime: int) -> int:
    """``base ** exponent % prime`` for a secret exponent: the only place that knows how.

    OpenSSL does it in constant time, so it does it for the groups that it knows.  For any other prime it would first
    prove that the prime is safe, which takes seconds (half a minute at 8192 bits), so the groups of group exchange
    that a server made by itself, and group 1, are left to Python's ``pow``.  That is not constant time; the exponent
    is used twice in its life, which leaves a remote listener nothing to average over.
    """
    backend = _backend() if strong_prime(prime) else None
    if backend is None:
        return pow(base, exponent, prime)
    # The public half of the private key is not used by exchange(): any valid value does.
    public = backend.DHPublicNumbers(base, backend.DHParameterNumbers(prime, GENERATOR))
    try:
        shared = backend.DHPrivateNumbers(exponent, public).private_key().exchange(public.public_key())
    except ValueError:
        raise KeyExchangeFailed("the backend refused a Diffie-Hellman value") from None
    return int.from_bytes(shared, "big")


def hash_fields(messages: Sequence[Message]) -> bytes:
    """e and f (RFC 4253 section 8)."""
    init, reply = cast("tuple[KexDhInit, KexDhReply]", messages)
    return mpint(init.e) + mpint(reply.f)


DH = Family("dh", (KexDhInit, KexDhReply), hash_fields)


@frozen
class DhMethod(KexMethod):
    """Diffie-Hellman in one fixed group."""

    group: Group

    family = DH

    def client(self, entropy: Entropy, oracle: Oracle, gex_bits: tuple[int, int, int]) -> ClientExchange:
        return DhClient(self, entropy)

    def server(self, entropy: Entropy, oracle: Oracle, host_key: bytes) -> ServerExchange:
        return DhServer(self, entropy, host_key)


class DhClient(ClientExchange):
    """A client's run in a fixed group."""

    __slots__ = ("_ephemeral", "_group")

    family = DH

    def __init__(self, method: DhMethod, entropy: Entropy) -> None:
        super().__init__(method.name, entropy)
        self._group = method.group
        self._ephemeral: DhEphemeral | None = None

    def _first(self) -> Message:
        self._ephemeral = DhEphemeral(self._group.prime, GENERATOR, self._entropy)
        return KexDhInit(self._ephemeral.public)

    def _answer(self, message: KexDhReply) -> None:
        ephemeral, self._ephemeral = self._ephemeral, None
        check_public(message.f, self._group.prime, "the server's")
        if ephemeral is not None:  # a reply is not taken before start()
            self.secret = ephemeral.agree(message.f)


class DhServer(ServerExchange):
    """A server's run in a fixed group."""

    __slots__ = ("_group",)

    family = DH

    def __init__(self, method: DhMethod, entropy: Entropy, host_key: bytes) -> None:
        super().__init__(method.name, entropy, host_key)
        self._group = method.group

    def _answer(self, message: KexDhInit) -> Message:
        check_public(message.e, self._group.prime, "the client's")
        ephemeral = DhEphemeral(self._group.prime, GENERATOR, self._entropy)
        self.secret = ephemeral.agree(message.e)
        return KexDhReply(host_key=self._host_key, f=ephemeral.public, signature=b"")


METHODS: tuple[DhMethod, ...] = (
    DhMethod("diffie-hellman-group14-sha256", "sha256", GROUP14),
    DhMethod("diffie-hellman-group15-sha512", "sha512", GROUP15),
    DhMethod("diffie-hellman-group16-sha512", "sha512", GROUP16),
    DhMethod("diffie-hellman-group17-sha512", "sha512", GROUP17),
    DhMethod("diffie-hellman-group18-sha512", "sha512", GROUP18),
    DhMethod("diffie-hellman-group14-sha1", "sha1", GROUP14),
    DhMethod("diffie-hellman-group1-sha1", "sha1", GROUP1),
)
