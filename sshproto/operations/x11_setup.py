"""The first bytes of an X11 connection: who may use the display is decided by them alone (X Window System Protocol,
appendix B, "Connection Setup").

A program begins with a byte that tells the order of its numbers, its version of the protocol, and what proves that it
may: the name of an authorization protocol and a secret.  Here that is read out of whatever pieces it comes in, and
written anew with another secret.  Nobody waits for more than the first twelve bytes when these want too much.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Literal

import attrs

from sshproto.errors import SSHError
from sshproto.operations.displays import MAXIMUM_COOKIE, MAXIMUM_PROTOCOL, Cookie
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.wire.codec import Buffer

_ORDERS: dict[int, Literal["big", "little"]] = {0x42: "big", 0x6C: "little"}
_BYTES = {order: byte for byte, order in _ORDERS.items()}
_HEAD = 12

MAXIMUM_SETUP = _HEAD + MAXIMUM_PROTOCOL + MAXIMUM_COOKIE
"""The longest setup that is read, in bytes. Both bounds are multiples of 4, as the parts with their padding are."""


class SetupRefused(SSHError):
    """What came is no beginning of an X11 connection, or of none that may be."""


@frozen
class Setup:
    """How an X11 connection begins.

    Attributes:
        order: Of the bytes in numbers.
        major, minor: The version of the protocol.
        protocol: The name of the authorization protocol; empty if there is no authorization.
        data: The secret.
        size: How many bytes all of this took.
    """

    order: Literal["big", "little"]
    major: int
    minor: int
    protocol: bytes
    data: bytes = attrs.field(repr=False)
    size: int

    def shows(self, cookie: Cookie) -> bool:
        """Whether it has this cookie. How long that takes does not tell how much of it was right."""
        right = hmac.compare_digest(self.data, cookie.data)
        return self.protocol == cookie.protocol.encode("ascii", "replace") and right

    def encode(self, cookie: Cookie | None) -> bytes:
        """The same beginning with another cookie, or with none."""
        protocol, data = (b"", b"") if cookie is None else (cookie.protocol.encode("ascii", "replace"), cookie.data)
        numbers = (self.major, self.minor, len(protocol), len(data), 0)
        head = bytes((_BYTES[self.order], 0)) + b"".join(number.to_bytes(2, self.order) for number in numbers)
        return head + _padded(protocol) + _padded(data)

    def failure(self, reason: str) -> bytes:
        """The answer of a display that lets nobody in, which the program tells its user.

        Args:
            reason: At most 255 characters of ASCII.
        """
        words = reason.encode("ascii", "replace")[:255]
        padded = _padded(words)
        numbers = (self.major, self.minor, len(padded) // 4)
        return bytes((0, len(words))) + b"".join(number.to_bytes(2, self.order) for number in numbers) + padded


def read_setup(data: Buffer) -> Setup | None:
    """The beginning of an X11 connection; None while more of it has to come.

    Args:
        data: All that has come so far, and maybe what follows the beginning.

    Raises:
        SetupRefused: It is none, or longer than :data:`MAXIMUM_SETUP`.
    """
    data = bytes(data[:MAXIMUM_SETUP])
    if not data:
        return None
    order = _ORDERS.get(data[0])
    if order is None:
        raise SetupRefused(f"an X11 connection begins with 0x42 or 0x6c, not with 0x{data[0]:02x}")
    if len(data) < _HEAD:
        return None
    major, minor, name, secret = (int.from_bytes(data[start : start + 2], order) for start in (2, 4, 6, 8))
    if name > MAXIMUM_PROTOCOL or secret > MAXIMUM_COOKIE:
        raise SetupRefused(
            f"an X11 connection begins with {name} bytes for the name of an authorization protocol and {secret} of"
            f" data, at most {MAXIMUM_PROTOCOL} and {MAXIMUM_COOKIE} are read"
        )
    start = _HEAD + name + -name % 4
    size = start + secret + -secret % 4
    if len(data) < size:
        return None
    return Setup(order, major, minor, data[_HEAD : _HEAD + name], data[start : start + secret], size)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
