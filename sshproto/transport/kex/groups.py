"""The MODP groups (RFC 2409 section 6.2, RFC 3526), computed from the formula that defines them.

p = 2^n - 2^(n-64) - 1 + 2^64 * (floor(2^(n-130) * pi) + c), where c is the smallest number that makes p a safe prime.
Computing them takes some milliseconds and happens only for groups that are used.  The generator of all is 2.
"""

from __future__ import annotations

from functools import cache

from sshproto.values import frozen

GENERATOR = 2


@frozen
class Group:
    """A MODP group.

    Attributes:
        name: Its name in key-exchange methods.
        bits: The size of its prime.
        addend: The formula's c.
    """

    name: str
    bits: int
    addend: int

    @property
    def prime(self) -> int:
        return _prime(self.bits, self.addend)


GROUP1 = Group("group1", 1024, 129093)
GROUP14 = Group("group14", 2048, 124476)
GROUP15 = Group("group15", 3072, 1690314)
GROUP16 = Group("group16", 4096, 240904)
GROUP17 = Group("group17", 6144, 929484)
GROUP18 = Group("group18", 8192, 4743158)

STRONG: tuple[Group, ...] = (GROUP14, GROUP15, GROUP16, GROUP17, GROUP18)
"""The groups of at least 2048 bits, smallest first."""


def strong_prime(prime: int) -> bool:
    """Whether ``prime`` is that of one of the :data:`STRONG` groups."""
    return any(group.bits == prime.bit_length() and group.prime == prime for group in STRONG)


@cache
def _prime(bits: int, addend: int) -> int:
    return (1 << bits) - (1 << (bits - 64)) - 1 + ((_pi(bits - 130) + addend) << 64)


def _pi(bits: int) -> int:
    """floor(2^bits * pi), by Machin's formula with 64 bits to spare for the rounding of every term."""
    one = 1 << (bits + 64)
    return 4 * (4 * _arccot(5, one) - _arccot(239, one)) >> 64


def _arccot(x: int, one: int) -> int:
    """arctan(1/x) * one, by its power series."""
    power = total = one // x
    divisor, sign = 1, -1
    while power:
        power //= x * x
        divisor += 2
        total += sign * (power // divisor)
        sign = -sign
    return total
