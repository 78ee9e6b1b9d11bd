"""Private keys in PEM: PKCS#1 (``RSA PRIVATE KEY``), SEC 1 (``EC PRIVATE KEY``) and PKCS#8 (``PRIVATE KEY``).

RFC 7468, RFC 8017 appendix A, RFC 5915, RFC 5958.  `cryptography` reads them; here is what has to be known before it
may: which block of the file it is, whether it is encrypted, and that the work to decrypt it is bounded (the file says
how often PBKDF2 or scrypt shall be repeated).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

import attrs

from sshproto.errors import KeyFormatError
from sshproto.values import frozen

MAXIMUM_PEM = 24 * 1024
"""Longest block that is looked at, in characters; an RSA key of 16384 bits has some 13000."""

MAXIMUM_ITERATIONS = 10_000_000
"""Most repetitions of PBKDF2 (OpenSSL writes 2048), and the largest other number among the parameters."""

MAXIMUM_SCRYPT = 2**23
"""Largest N * r * p of scrypt: 1 GiB of memory."""

_BLOCK = re.compile("-----BEGIN ((?:[A-Z0-9]+ )*)PRIVATE KEY-----")
_LABELS = ("", "ENCRYPTED ", "RSA ", "EC ")
_HEADERS = re.compile(r"[ \t]*\r?\nProc-Type: 4,ENCRYPTED\r?\nDEK-Info: ([A-Z0-9-]+),([0-9A-Fa-f]*)\r?\n[ \t]*\r?\n")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")  # the object identifier 1.3.6.1.4.1.11591.4.11


@frozen
class Block:
    """One private key of a PEM file.

    Attributes:
        label: ``"RSA PRIVATE KEY"`` and so on.
        encrypted: Whether it takes a passphrase.
        text: The block, from BEGIN to END.
    """

    label: str
    encrypted: bool
    text: bytes = attrs.field(repr=False)


def find(content: str) -> Block | None:
    """The first private key in ``content``, or None if there is none.

    Raises:
        KeyFormatError: It is of a kind that is not supported, cut short, too long or too costly to decrypt.
    """
    match = _BLOCK.search(content)
    if match is None:
        return None
    label = match.group(1) + "PRIVATE KEY"
    if match.group(1) not in _LABELS:
        have = ", ".join(kind + "PRIVATE KEY" for kind in ("OPENSSH ", *_LABELS))
        why = ": DSA is too weak (1024 bits, SHA-1)" if match.group(1) == "DSA " else ""
        raise KeyFormatError(f"unsupported kind of private key {label}{why}; supported are {have}")
    end = f"-----END {label}-----"
    stop = content.find(end, match.end())
    if stop < 0:
        raise KeyFormatError(f"{label}: the file is cut short, {end!r} is missing")
    block = content[match.start() : stop + len(end)]
    if len(block) > MAXIMUM_PEM:
        raise KeyFormatError(f"{label}: {len(block)} characters; at most {MAXIMUM_PEM} are accepted")
    body = content[match.end() : stop]
    if label == "ENCRYPTED PRIVATE KEY":
        _check_cost(body)
        encrypted = True
    else:
        encrypted = "Proc-Type: 4,ENCRYPTED" in body
        if encrypted:
            _check_headers(label, body)
    return Block(label, encrypted, block.encode("utf-8", "surrogateescape") + b"\n")


def _check_headers(label: str, body: str) -> None:
    """Check what RFC 1421 section 4.6.1 puts before an encrypted block: the backend panics on an IV that is short."""
    headers = _HEADERS.match(body)
    if headers is None:
        raise KeyFormatError(f"{label}: it is encrypted, and has not the two headers of RFC 1421 that say how")
    cipher, iv = headers.groups()
    digits = 32 if cipher.startswith("AES-") else 16
    if len(iv) != digits:
        raise KeyFormatError(f"{label}: an IV of {len(iv)} hexadecimal digits for {cipher}, expected {digits}")


def _elements(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The DER elements that ``data`` consists of: tag, content, and the whole element."""
    at = 0
    while at < len(data):
        start = at
        tag, length, at = data[at], data[at + 1], at + 2
        if length >= 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if at + length > len(data):
            raise IndexError
        yield tag, data[at : at + length], data[start : at + length]
        at += length


def _numbers(data: bytes) -> Iterator[int]:
    """All INTEGERs within the nested SEQUENCEs of ``data``."""
    for tag, content, _ in _elements(data):
        if tag == 0x30:
            yield from _numbers(content)
        elif tag == 0x02:
            yield int.from_bytes(content, "big", signed=True)


def _check_cost(body: str) -> None:
    """Bound the work that the parameters of an EncryptedPrivateKeyInfo (RFC 5958 section 3) ask for."""
    label = "ENCRYPTED PRIVATE KEY"
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
        outer = next(_elements(der))[1]
        algorithm = next(_elements(outer))[1]
        numbers = list(_numbers(algorithm))
    except (binascii.Error, ValueError, IndexError, StopIteration, RecursionError):
        raise KeyFormatError(f"{label}: not the base64 of an EncryptedPrivateKeyInfo (RFC 5958)") from None
    if any(not 0 < number <= MAXIMUM_ITERATIONS for number in numbers):
        raise KeyFormatError(
            f"{label}: the passphrase is to be hashed {max(numbers, key=abs)} times; "
            f"1 to {MAXIMUM_ITERATIONS} are accepted"
        )
    if _SCRYPT in algorithm and len(numbers) >= 3 and numbers[0] * numbers[1] * numbers[2] > MAXIMUM_SCRYPT:
        raise KeyFormatError(f"{label}: scrypt with N, r, p = {numbers[:3]} needs too much memory")
