"""Diffie-Hellman in a group that the server picks (RFC 4419, RFC 8270).

The client asks for sizes; a group outside of them, under 2048 or over 8192 bits, or visibly no group at all, is
refused.  Whether p is a safe prime is not proved: that takes seconds, RFC 4419 does not ask for it, and p is covered by
the server's signature, so only the server itself could cheat, which has the secret anyway.

Our server has the MODP groups 14 to 18 (RFC 3526) and no moduli file.  The old request of one number (RFC 4419
section 5) is not taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sshproto.config import Entropy, Oracle
from sshproto.errors import KeyExchangeFailed
from sshproto.transport.kex.base import ClientExchange, Family, KexMethod, ServerExchange
from sshproto.transport.kex.dh import DhEphemeral, check_public
from sshproto.transport.kex.groups import GENERATOR, STRONG, Group
from sshproto.values import frozen
from sshproto.wire.codec import mpint, uint32
from sshproto.wire.messages import (
    KexDhGexGroup,
    KexDhGexInit,
    KexDhGexReply,
    KexDhGexRequest,
    KexDhGexRequestOld,
    Message,
)

MINIMUM_BITS = 2048
"""Smallest group that is accepted, whatever was asked for (RFC 8270)."""

MAXIMUM_BITS = 8192
"""Largest group that is accepted (RFC 4419 section 3)."""


def hash_fields(messages: Sequence[Message]) -> bytes:
    """min, n, max, p, g, e and f, all as they were sent (RFC 4419 section 3).

    An observer may also see the old request: then n stands for the three sizes (section 5).
    """
    request, group, init, reply = cast(
        "tuple[KexDhGexRequest | KexDhGexRequestOld, KexDhGexGroup, KexDhGexInit, KexDhGexReply]", messages
    )
    if isinstance(request, KexDhGexRequestOld):
        sizes = uint32(request.bits)
    else:
        sizes = uint32(request.minimum) + uint32(request.preferred) + uint32(request.maximum)
    return sizes + mpint(group.p) + mpint(group.g) + mpint(init.e) + mpint(reply.f)


GEX = Family("gex", (KexDhGexRequest, KexDhGexGroup, KexDhGexInit, KexDhGexReply), hash_fields)


@frozen
class GexMethod(KexMethod):
    """Group exchange; the hash is the only choice."""

    family = GEX

    def client(self, entropy: Entropy, oracle: Oracle, gex_bits: tuple[int, int, int]) -> ClientExchange:
        return GexClient(self, entropy, gex_bits)

    def server(self, entropy: Entropy, oracle: Oracle, host_key: bytes) -> ServerExchange:
        return GexServer(self, entropy, host_key)


class GexClient(ClientExchange):
    """A client's run of group exchange."""

    __slots__ = ("_bits", "_ephemeral", "_prime")

    family = GEX

    def __init__(self, method: GexMethod, entropy: Entropy, gex_bits: tuple[int, int, int]) -> None:
        super().__init__(method.name, entropy)
        self._bits = gex_bits
        self._prime = 0
        self._ephemeral: DhEphemeral | None = None

    def _first(self) -> Message:
        return KexDhGexRequest(*self._bits)

    def _answer(self, message: KexDhGexGroup | KexDhGexReply) -> Message | None:
        if isinstance(message, KexDhGexGroup):
            check_group(message.p, message.g, self._bits)
            self._prime = message.p
            self._ephemeral = DhEphemeral(message.p, message.g, self._entropy)
            return KexDhGexInit(self._ephemeral.public)
        ephemeral, self._ephemeral = self._ephemeral, None
        check_public(message.f, self._prime, "the server's")
        if ephemeral is not None:  # a reply is not taken before a group
            self.secret = ephemeral.agree(message.f)
        return None


class GexServer(ServerExchange):
    """A server's run of group exchange."""

    __slots__ = ("_group",)

    family = GEX

    def __init__(self, method: GexMethod, entropy: Entropy, host_key: bytes) -> None:
        super().__init__(method.name, entropy, host_key)
        self._group: Group = STRONG[0]

    def _answer(self, message: KexDhGexRequest | KexDhGexInit) -> Message:
        if isinstance(message, KexDhGexRequest):
            self._group = choose_group(message.minimum, message.preferred, message.maximum)
            return KexDhGexGroup(p=self._group.prime, g=GENERATOR)
        prime = self._group.prime
        check_public(message.e, prime, "the client's")
        ephemeral = DhEphemeral(prime, GENERATOR, self._entropy)
        self.secret = ephemeral.agree(message.e)
        return KexDhGexReply(host_key=self._host_key, f=ephemeral.public, signature=b"")


def choose_group(minimum: int, preferred: int, maximum: int) -> Group:
    """The smallest group of at least ``preferred`` bits within the bounds, or else the largest within them.

    Raises:
        KeyExchangeFailed: The sizes are not in order, or we have no group of such a size.
    """
    asked = f"{minimum} to {maximum} bits, preferably {preferred}"
    if not minimum <= preferred <= maximum:
        raise KeyExchangeFailed(f"the client asks for a group of {asked}: that is not in order")
    within = [group for group in STRONG if minimum <= group.bits <= maximum]
    if not within:
        have = ", ".join(str(group.bits) for group in STRONG)
        raise KeyExchangeFailed(f"the client asks for a group of {asked}: we have {have}")
    return next((group for group in within if group.bits >= preferred), within[-1])


def check_group(prime: int, generator: int, bits: tuple[int, int, int]) -> None:
    """Check a group that a server has picked.

    Args:
        prime: p.
        generator: g.
        bits: What we asked for: smallest, preferred and largest size.

    Raises:
        KeyExchangeFailed: It is not of an acceptable size, p is even or negative, or g is trivial.
    """
    least, most = max(bits[0], MINIMUM_BITS), min(bits[2], MAXIMUM_BITS)
    size = prime.bit_length()
    if prime < 0 or not least <= size <= most:
        sign = "negative " if prime < 0 else ""
        raise KeyExchangeFailed(f"the server's group has a {sign}prime of {size} bits, asked were {least} to {most}")
    if prime % 2 == 0:
        raise KeyExchangeFailed("the server's group has an even number for its prime")
    if not 1 < generator < prime - 1:
        raise KeyExchangeFailed("the server's group has a trivial generator: it is not between 1 and p - 1")


METHODS: tuple[GexMethod, ...] = (
    GexMethod("diffie-hellman-group-exchange-sha256", "sha256"),
    GexMethod("diffie-hellman-group-exchange-sha1", "sha1"),
)
