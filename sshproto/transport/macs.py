"""Message authentication codes of the binary packet protocol (RFC 4253 section 6.4, RFC 6668, OpenSSH PROTOCOL 1.5).

All are HMACs over the sequence number and the packet: over its plaintext, or, in the ``-etm@openssh.com`` forms
(encrypt-then-MAC), over its clear length and its ciphertext.  Which of the two is the business of
:mod:`sshproto.transport.ciphers`; here is only the tag.
"""

from __future__ import annotations

from hmac import compare_digest
from struct import Struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from sshproto.errors import InvalidArgument
from sshproto.values import frozen
from sshproto.wire.codec import Buffer

_SEQUENCE = Struct(">I").pack

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha256": hashes.SHA256,
    "sha512": hashes.SHA512,
}


@frozen
class MacSpec:
    """A MAC algorithm.

    Attributes:
        name: Its name on the wire.
        key_size: Bytes of key to derive.
        tag_size: Bytes of tag that follow each packet; the ``-96`` forms cut it off.
        etm: Encrypt-then-MAC: the length is sent in clear and the tag covers the ciphertext.
        hash: The hash function's name; ``""`` if tags can't be verified here.
    """

    name: str
    key_size: int
    tag_size: int
    etm: bool
    hash: str


def _both(name: str, key_size: int, tag_size: int, hash_name: str) -> tuple[MacSpec, MacSpec]:
    return (
        MacSpec(name, key_size, tag_size, False, hash_name),
        MacSpec(f"{name}-etm@openssh.com", key_size, tag_size, True, hash_name),
    )


MACS: dict[str, MacSpec] = {
    spec.name: spec
    for spec in (
        *_both("hmac-sha2-256", 32, 32, "sha256"),
        *_both("hmac-sha2-512", 64, 64, "sha512"),
        *_both("hmac-sha1", 20, 20, "sha1"),
        *_both("hmac-sha1-96", 20, 12, "sha1"),
        *_both("hmac-md5", 16, 16, "md5"),
    )
}
"""Every MAC by its name."""


OBSERVED_MACS: dict[str, MacSpec] = {
    spec.name: spec
    for spec in (
        *_both("hmac-md5-96", 16, 12, "md5"),
        *_both("hmac-sha2-256-96", 32, 12, "sha256"),
        *_both("hmac-sha2-512-96", 64, 12, "sha512"),
        *_both("hmac-ripemd160", 20, 20, ""),
        MacSpec("hmac-ripemd160@openssh.com", 20, 20, False, ""),
        MacSpec("umac-64@openssh.com", 16, 8, False, ""),
        MacSpec("umac-64-etm@openssh.com", 16, 8, True, ""),
        MacSpec("umac-128@openssh.com", 16, 16, False, ""),
        MacSpec("umac-128-etm@openssh.com", 16, 16, True, ""),
        MacSpec("hmac-sha224@ssh.com", 28, 28, False, ""),
        MacSpec("hmac-sha256@ssh.com", 32, 32, False, ""),
        MacSpec("hmac-sha256-2@ssh.com", 32, 32, False, ""),
        MacSpec("hmac-sha384@ssh.com", 48, 48, False, ""),
        MacSpec("hmac-sha512@ssh.com", 64, 64, False, ""),
        MacSpec("none", 0, 0, False, ""),
    )
}
"""MACs that nobody can negotiate here, for who merely watches: tags that can't be verified can be stepped over."""


class Unchecked:
    """What stands for a MAC whose tags can't be verified."""

    __slots__ = ("name", "size")

    def __init__(self, spec: MacSpec) -> None:
        self.name = spec.name
        self.size = spec.tag_size

    def verify(self, sequence: int, data: Buffer, tag: Buffer) -> bool:
        """True: nobody can say otherwise."""
        return True


class Mac:
    """One direction's MAC under one key.

    The keyed state is made once and copied for each packet, which costs a third of making it anew.

    Raises:
        InvalidArgument: ``key`` has the wrong size.
    """

    __slots__ = ("_copy", "name", "size")

    def __init__(self, spec: MacSpec, key: bytes) -> None:
        if len(key) != spec.key_size:
            raise InvalidArgument(f"{spec.name} needs a key of {spec.key_size} bytes, not {len(key)}")
        self._copy = HMAC(key, _HASHES[spec.hash]()).copy
        self.name = spec.name
        self.size = spec.tag_size

    def tag(self, sequence: int, data: Buffer) -> bytes:
        """The tag of packet number ``sequence`` whose authenticated bytes are ``data``."""
        state = self._copy()
        state.update(_SEQUENCE(sequence))
        state.update(data)
        return state.finalize()[: self.size]

    def verify(self, sequence: int, data: Buffer, tag: Buffer) -> bool:
        """Whether ``tag`` is the tag of ``data``, in constant time."""
        return compare_digest(self.tag(sequence, data), tag)
