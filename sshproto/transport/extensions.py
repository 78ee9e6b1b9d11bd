"""What the two sides of a connection can do besides, as they announce it in EXT_INFO (RFC 8308)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from sshproto.errors import ProtocolViolation
from sshproto.wire.messages import ExtInfo

if TYPE_CHECKING:
    from sshproto.wire.codec import Buffer

PING = "ping@openssh.com"
EXT_INFO_IN_AUTH = "ext-info-in-auth@openssh.com"
SERVER_SIG_ALGS = "server-sig-algs"
HOST_BOUND = "publickey-hostbound@openssh.com"
"""The extension; the login method has the version in its name, see :mod:`sshproto.auth.methods`."""

Announced = tuple[tuple[str, bytes], ...]
"""What one EXT_INFO says: names and values, in its order."""

_NONE: Mapping[str, bytes] = {}
_MOST = 2  # a server's: after its first NEWKEYS, and before or with the end of the login (RFC 8308 section 2.4)
_LONGEST_REMEMBERED = 1024  # bytes of an EXT_INFO: nobody should fill the memory with what is never said again


@lru_cache(64)
def _read(payload: bytes) -> tuple[Announced, Mapping[str, bytes]]:
    """What an EXT_INFO says, which is what many peers say, and that by name; of two of a name the first counts."""
    announced = ExtInfo.parse(payload).extensions
    return announced, dict(reversed(announced))


@lru_cache(64)
def _ext_info(announced: Announced) -> tuple[ExtInfo, bytes, bool]:
    """The EXT_INFO that says so, its payload, and whether it offers PING: the same for all connections of a
    configuration."""
    message = ExtInfo(announced)
    return message, message.encode(), any(name == PING for name, _ in announced)


class Extensions:
    """The extensions of one connection.

    Attributes:
        peer: Those that the peer has announced: name to value.
        ping_offered: We have announced that we answer PING.
    """

    __slots__ = ("_received", "peer", "ping_offered")

    def __init__(self) -> None:
        self.peer = _NONE
        self.ping_offered = False
        self._received = 0

    def announce(self, extensions: Announced) -> tuple[ExtInfo, bytes]:
        """The EXT_INFO with what we can do, and its payload; it will be sent."""
        message, payload, self.ping_offered = _ext_info(extensions)
        return message, payload

    def receive(self, payload: Buffer) -> Announced:
        """Take an EXT_INFO of the peer, and say what is in it. It replaces what an earlier one said of a name.

        Raises:
            ProtocolViolation: There were enough before.
            WireError: It is malformed.
        """
        read = _read if len(payload) <= _LONGEST_REMEMBERED else _read.__wrapped__
        announced, found = read(bytes(payload))
        self._received += 1
        if self._received > _MOST:
            raise ProtocolViolation("a third EXT_INFO came")
        self.peer = {**self.peer, **found} if self.peer else found
        return announced
