"""SSHFP records: fingerprints of host keys in the DNS (RFC 4255, RFC 6594, RFC 7479, RFC 8709), as data.

Asking the DNS is not done here, and what it says is worth as much as the way by which it came: without DNSSEC, which
the caller has to check, a record that matches is a hint for whoever decides, and no more.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Iterable
from typing import Self

from sshproto.errors import KeyFormatError
from sshproto.keys.known_hosts import Trust
from sshproto.keys.public import PublicKey
from sshproto.text import printable
from sshproto.values import frozen

RECORD_TYPE = 44
"""The number of the record type in the DNS."""

ALGORITHMS: dict[str, int] = {
    "ssh-rsa": 1,
    "ssh-dss": 2,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "ssh-ed25519": 4,
    "ssh-ed448": 6,
}
"""The number of each key type; ECDSA keys of all curves have the same."""

DIGESTS: dict[int, str] = {1: "sha1", 2: "sha256"}
"""The hash of each type of fingerprint."""

_LARGEST = 256  # bytes of a fingerprint, of whatever type
_LONGEST = 4096  # characters of a record's text


@frozen
class Sshfp:
    """One record.

    Attributes:
        algorithm: The number of the key's algorithm, see :data:`ALGORITHMS`; others are kept, and match nothing.
        kind: The number of the fingerprint's type, see :data:`DIGESTS`; the same.
        fingerprint: The digest of the key's blob.
    """

    algorithm: int
    kind: int
    fingerprint: bytes

    @classmethod
    def of(cls, key: PublicKey) -> tuple[Self, ...]:
        """The records for a key, one for each type of fingerprint: what ``ssh-keygen -r`` prints.

        Raises:
            KeyFormatError: There is no number for keys of this type, such as security keys.
        """
        number = ALGORITHMS.get(key.type)
        if number is None:
            raise KeyFormatError(f"SSHFP has no number for keys of type {key.type}; it has for {', '.join(ALGORITHMS)}")
        return tuple(cls(number, kind, _hashed(name, key)) for kind, name in DIGESTS.items())

    @classmethod
    def from_rdata(cls, rdata: bytes) -> Self:
        """Read the data of a record as the DNS has it (RFC 4255 section 3.1).

        Raises:
            KeyFormatError: It is none.
        """
        if not 2 < len(rdata) <= 2 + _LARGEST:
            raise KeyFormatError(f"SSHFP record of {len(rdata)} bytes; it has two and then a fingerprint")
        algorithm, kind, fingerprint = rdata[0], rdata[1], bytes(rdata[2:])
        expected = hashlib.new(DIGESTS[kind]).digest_size if kind in DIGESTS else len(fingerprint)
        if len(fingerprint) != expected:
            raise KeyFormatError(
                f"SSHFP record: a fingerprint of type {kind} has {expected} bytes, this one {len(fingerprint)}"
            )
        return cls(algorithm, kind, fingerprint)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a record as a zone file has it: ``4 2 bf94...``, or all of the line, or RFC 3597's ``\\# 34 0402bf...``.

        Raises:
            KeyFormatError: It is none.
        """
        if len(text) > _LONGEST:
            raise KeyFormatError(f"SSHFP record of {len(text)} characters; at most {_LONGEST} are accepted")
        upper = [word.upper() for word in text.split()]
        for kind in ("SSHFP", f"TYPE{RECORD_TYPE}"):
            if kind in upper:
                upper = upper[upper.index(kind) + 1 :]
                break
        try:
            if upper[:1] == ["\\#"]:
                rdata = binascii.unhexlify("".join(upper[2:]))
                if int(upper[1]) != len(rdata):
                    raise ValueError(f"it says {int(upper[1])} bytes, there are {len(rdata)}")
            else:
                numbers = [int(word) for word in upper[:2] if word.isascii() and word.isdigit()]
                rdata = bytes(numbers) + binascii.unhexlify("".join(upper[2:]))
                if len(numbers) != 2:
                    raise ValueError("two numbers and a fingerprint in hexadecimal are expected")
        except (ValueError, IndexError) as error:
            raise KeyFormatError(f"not an SSHFP record: {printable(text, 64)!r}: {printable(str(error))}") from None
        return cls.from_rdata(rdata)

    @property
    def rdata(self) -> bytes:
        """The data of the record as the DNS has it."""
        return bytes((self.algorithm, self.kind)) + self.fingerprint

    def text(self, name: str = "", *, generic: bool = False) -> str:
        """The record as a zone file has it.

        Args:
            name: The owner, to get the whole line ``name IN SSHFP ...``; ``""`` for the data alone.
            generic: In the form for programs that do not know the type (RFC 3597; ``ssh-keygen -g``).
        """
        kind = f"TYPE{RECORD_TYPE}" if generic else "SSHFP"
        if generic:
            data = f"\\# {len(self.rdata)} {self.algorithm:02x} {self.kind:02x} {self.fingerprint.hex()}"
        else:
            data = f"{self.algorithm} {self.kind} {self.fingerprint.hex()}"
        return f"{name} IN {kind} {data}" if name else data

    def matches(self, key: PublicKey) -> bool:
        """Whether it is a fingerprint of ``key``."""
        name = DIGESTS.get(self.kind)
        if name is None or self.algorithm != ALGORITHMS.get(key.type):
            return False
        return self.fingerprint == _hashed(name, key)


def _hashed(name: str, key: PublicKey) -> bytes:
    return hashlib.new(name, key.blob).digest()


def compare(records: Iterable[Sshfp], key: PublicKey) -> Trust:
    """What the records of a host say about a key being its.

    SHA-1 fingerprints do not count where there are SHA-256 ones for the same algorithm.

    Returns:
        ``MATCH`` if one is the key's; ``CHANGED`` if there are some for the algorithm, but of other keys; else
        ``UNKNOWN``.
    """
    mine = [it for it in records if it.algorithm == ALGORITHMS.get(key.type) and it.kind in DIGESTS]
    best = max((it.kind for it in mine), default=0)
    usable = [it for it in mine if it.kind == best]
    if not usable:
        return Trust.UNKNOWN
    return Trust.MATCH if any(it.matches(key) for it in usable) else Trust.CHANGED
