"""What an observer must know of a key-exchange method: its messages, its hash, and how its secret is hashed.

The methods that the live roles run are taken from them.  An observer is given the secret, so it can follow others too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sshproto.errors import ConnectionLoss
from sshproto.transport.kex import METHODS, Family, KexMethod
from sshproto.transport.kex.dh import DH, DhMethod
from sshproto.transport.kex.ecdh import ECDH, Curve, EcdhMethod
from sshproto.transport.kex.gex import GEX, MAXIMUM_BITS
from sshproto.transport.kex.groups import GENERATOR, GROUP14, GROUP15, GROUP16, GROUP18, Group
from sshproto.transport.kex.hybrid import HybridMethod
from sshproto.values import frozen
from sshproto.wire.codec import mpint, string
from sshproto.wire.messages import (
    KexDhGexGroup,
    KexDhGexInit,
    KexDhGexReply,
    KexDhInit,
    KexDhReply,
    KexEcdhInit,
    KexEcdhReply,
    Message,
)

_SEED = 64
_KEM_SECRET = 32


@frozen
class ObservedMethod:
    """A method as it is seen from outside.

    Attributes:
        name: Its name in KEXINIT.
        hash_name: Its hash, as :mod:`hashlib` calls it.
        family: Its messages and the way they enter the exchange hash.
        hybrid: Its secret is hashed as a string, not as an mpint.
        group: Its group, if it has a fixed one.
    """

    name: str
    hash_name: str
    family: Family
    hybrid: bool = False
    group: Group | None = None

    def encode(self, secret: bytes) -> bytes:
        """A secret as it is hashed.

        Args:
            secret: The bytes of a key log: of an unsigned number, big-endian, or, for a hybrid, the string.
        """
        return string(secret) if self.hybrid else mpint(int.from_bytes(secret, "big"))


class Unfit(Exception):
    """A private value does not lead to the secret; the words say why."""


def agree(method: ObservedMethod, private: bytes, transcript: Sequence[Message]) -> bytes:
    """The shared secret that a private value of either side gives, as a key log has it.

    Args:
        method: The method.
        private: The private value as a key log has it: of a curve its scalar, of a group its exponent, big-endian. Of
            a hybrid with ML-KEM both parts are needed, one after the other: the client's seed (64 bytes), or the secret
            that the server has encapsulated (32 bytes); then the curve's scalar.
        transcript: The method's messages.

    Raises:
        Unfit: It gives none.
    """
    live = METHODS.get(method.name)
    first, last = transcript[0], transcript[-1]
    if isinstance(first, KexEcdhInit) and isinstance(last, KexEcdhReply):
        if isinstance(live, EcdhMethod):
            return _on_curve(live.curve, private, first.share, last.share)
        if isinstance(live, HybridMethod):
            return _hybrid(live, private, first.share, last.share)
        raise Unfit(f"private values of {method.name} are not understood here")
    return _in_group(method, private, transcript)


def _on_curve(curve: Curve, private: bytes, client: bytes, server: bytes) -> bytes:
    try:
        ephemeral = curve.restore(private)
        if ephemeral is None:
            raise Unfit(f"it has {len(private)} bytes: that is no private value of {curve.name}")
        if ephemeral.share not in (client, server):
            raise Unfit("neither side's public value belongs to it")
        return ephemeral.agree(server if ephemeral.share == client else client)
    except (ConnectionLoss, ValueError) as error:
        raise Unfit(f"{error}") from None


def _hybrid(method: HybridMethod, private: bytes, client: bytes, server: bytes) -> bytes:
    """A hybrid's secret is the hash of two. A curve's scalar gives only the second, as nobody can compute the first."""
    kem = method.kem
    try:
        (public, client_share), (ciphertext, server_share) = (
            method.split(client, "C_INIT", kem.public_size),
            method.split(server, "S_REPLY", kem.ciphertext_size),
        )
    except ConnectionLoss as error:
        raise Unfit(f"{error}") from None
    for size in (_SEED, _KEM_SECRET):
        if len(private) != size + method.curve.size:
            continue
        classical = _on_curve(method.curve, private[size:], client_share, server_share)
        post_quantum = private[:size]
        if size == _SEED:
            try:
                key = kem.private(lambda count, _: private[:count])
                if key.public_key().public_bytes_raw() != public:
                    raise Unfit(f"the client's {kem.name} public key does not belong to it")
                post_quantum = key.decapsulate(ciphertext)
            except ValueError as error:
                raise Unfit(f"{error}") from None
        return hashlib.new(method.hash_name, post_quantum + classical).digest()
    _on_curve(method.curve, private, client_share, server_share)  # says so, if it is not even that
    raise Unfit(
        f"it is the private value of {method.curve.name} alone; the secret is the hash of what that gives and of what"
        f" {kem.name} gives, for which the client's seed is needed, or the secret that the server has encapsulated"
    )


def _in_group(method: ObservedMethod, private: bytes, transcript: Sequence[Message]) -> bytes:
    prime, base, shares = _group(method, transcript)
    exponent = int.from_bytes(private, "big")
    if prime.bit_length() > MAXIMUM_BITS or prime < 5 or not 0 < exponent.bit_length() <= prime.bit_length():
        raise Unfit(f"it has {exponent.bit_length()} bits, and the group {prime.bit_length()}")
    mine = pow(base, exponent, prime)
    if mine not in shares:
        raise Unfit("neither side's public value belongs to it")
    other = shares[1 - shares.index(mine)]
    secret = pow(other, exponent, prime)
    return secret.to_bytes((secret.bit_length() + 7) // 8, "big")


def _group(method: ObservedMethod, transcript: Sequence[Message]) -> tuple[int, int, tuple[int, int]]:
    """Prime, generator and the two public values; zeros if the method has none."""
    first, last = transcript[-2], transcript[-1]
    if isinstance(first, KexDhInit) and isinstance(last, KexDhReply) and method.group is not None:
        return method.group.prime, GENERATOR, (first.e, last.f)
    group = transcript[1]
    if isinstance(first, KexDhGexInit) and isinstance(last, KexDhGexReply) and isinstance(group, KexDhGexGroup):
        return group.p, group.g, (first.e, last.f)
    return 0, 0, (0, 0)


def _observed(method: KexMethod) -> ObservedMethod:
    hybrid = isinstance(method, HybridMethod)
    group = method.group if isinstance(method, DhMethod) else None
    return ObservedMethod(method.name, method.hash_name, method.family, hybrid, group)


_OTHERS = (
    ObservedMethod("sntrup761x25519-sha512", "sha512", ECDH, hybrid=True),
    ObservedMethod("sntrup761x25519-sha512@openssh.com", "sha512", ECDH, hybrid=True),
    ObservedMethod("sntrup4591761x25519-sha512@tinyssh.org", "sha512", ECDH, hybrid=True),
    ObservedMethod("curve448-sha512@libssh.org", "sha512", ECDH),
    ObservedMethod("ecdh-sha2-1.3.132.0.10", "sha256", ECDH),  # secp256k1
    ObservedMethod("diffie-hellman-group14-sha224@ssh.com", "sha224", DH, group=GROUP14),
    ObservedMethod("diffie-hellman-group14-sha256@ssh.com", "sha256", DH, group=GROUP14),
    ObservedMethod("diffie-hellman-group15-sha256", "sha256", DH, group=GROUP15),
    ObservedMethod("diffie-hellman-group15-sha256@ssh.com", "sha256", DH, group=GROUP15),
    ObservedMethod("diffie-hellman-group15-sha384@ssh.com", "sha384", DH, group=GROUP15),
    ObservedMethod("diffie-hellman-group16-sha256", "sha256", DH, group=GROUP16),
    ObservedMethod("diffie-hellman-group16-sha384@ssh.com", "sha384", DH, group=GROUP16),
    ObservedMethod("diffie-hellman-group16-sha512@ssh.com", "sha512", DH, group=GROUP16),
    ObservedMethod("diffie-hellman-group18-sha512@ssh.com", "sha512", DH, group=GROUP18),
    ObservedMethod("diffie-hellman-group-exchange-sha224@ssh.com", "sha224", GEX),
    ObservedMethod("diffie-hellman-group-exchange-sha384@ssh.com", "sha384", GEX),
    ObservedMethod("diffie-hellman-group-exchange-sha512@ssh.com", "sha512", GEX),
)

OBSERVED: dict[str, ObservedMethod] = {method.name: method for method in (*map(_observed, METHODS.values()), *_OTHERS)}
"""Every method that can be followed, by its name."""
