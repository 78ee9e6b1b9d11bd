"""Keys in PEM: PKCS#1 (``RSA PRIVATE KEY``), SEC 1 (``EC PRIVATE KEY``) and PKCS#8 (``PRIVATE KEY``); public ones as
PKCS#1 (``RSA PUBLIC KEY``) and as SubjectPublicKeyInfo (``PUBLIC KEY``), which goes by the name of PKCS#8.

RFC 7468, RFC 8017 appendix A, RFC 5915, RFC 5958.  `cryptography` reads them; here is what has to be known before it
may: which block of the file it is, whether it is encrypted in a way that it knows, and that the work to decrypt it is
bounded (the file says how often PBKDF2 or scrypt shall be repeated).

Encrypted PKCS#8 is written here (RFC 8018: PBES2 with PBKDF2), since `cryptography` repeats PBKDF2 2048 times only and
cannot be told otherwise.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

import attrs

from sshproto.errors import KeyFormatError
from sshproto.text import printable
from sshproto.values import frozen

MAXIMUM_PEM = 24 * 1024
"""Longest block that is looked at, in characters; an RSA key of 16384 bits has some 13000."""

MAXIMUM_ITERATIONS = 10_000_000
"""Most repetitions of PBKDF2 (OpenSSL writes 2048), and the largest other number among the parameters."""

MAXIMUM_SCRYPT = 2**23
"""Largest N * r * p of scrypt: 1 GiB of memory."""

_BLOCK = re.compile("-----BEGIN ((?:[A-Z0-9]{1,32} ){0,4})PRIVATE KEY-----")
_PUBLIC = re.compile("-----BEGIN ((?:RSA )?)PUBLIC KEY-----")
_LABELS = ("", "ENCRYPTED ", "RSA ", "EC ")
_HEADERS = re.compile(r"[ \t]*\r?\nProc-Type: 4,ENCRYPTED\r?\nDEK-Info: ([A-Z0-9-]+),([0-9A-Fa-f]*)\r?\n[ \t]*\r?\n")
_HEADER_CIPHERS = ("AES-256-CBC", "AES-128-CBC", "DES-EDE3-CBC")

# Object identifiers (RFC 8018 appendix C, RFC 7914, RFC 7292 appendix C, NIST's of AES).
_RSADSI = "1.2.840.113549."
_PBES2, _PBKDF2, _HMAC_SHA256 = _RSADSI + "1.5.13", _RSADSI + "1.5.12", _RSADSI + "2.9"
_SCRYPT = "1.3.6.1.4.1.11591.4.11"
_AES = "2.16.840.1.101.3.4.1."
_AES_256_CBC = _AES + "42"
_ALGORITHMS = frozenset((
    _PBES2, _PBKDF2, _SCRYPT, *(_RSADSI + f"2.{hmac}" for hmac in range(7, 12)),  # HMAC with SHA-1 and SHA-2
    _RSADSI + "3.2", _RSADSI + "3.7", *(_AES + mode for mode in ("2", "22", "42")),  # RC2, 3DES, AES in CBC mode
    _RSADSI + "1.5.3", *(_RSADSI + f"1.12.1.{scheme}" for scheme in (1, 3, 6)),  # PBES1 with DES, RC4, 3DES, RC2
))  # fmt: skip
"""What an encrypted PKCS#8 key may be encrypted with: that which `cryptography` knows."""

_CIPHER_NAMES = {_RSADSI + "3.2": "RC2", _RSADSI + "3.7": "DES-EDE3-CBC"} | {
    _AES + mode: f"AES-{bits}-CBC" for mode, bits in (("2", 128), ("22", 192), ("42", 256))
}

WRITE_ITERATIONS = 600_000
"""How often PBKDF2 is repeated in what is written: some 0.2 seconds of work."""

SALT_SIZE = 16
IV_SIZE = 16


@frozen
class Block:
    """One key of a PEM file.

    Attributes:
        label: ``"RSA PRIVATE KEY"`` and so on.
        encryption: How it is encrypted, in words; ``""`` if it is not.
        text: The block, from BEGIN to END.
    """

    label: str
    encryption: str
    text: bytes = attrs.field(repr=False)

    @property
    def encrypted(self) -> bool:
        """Whether it takes a passphrase."""
        return bool(self.encryption)


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
    block, body = _cut(content, match, label)
    if label == "ENCRYPTED PRIVATE KEY":
        encryption = _check_cost(body)
    else:
        encryption = _check_headers(label, body) if "Proc-Type: 4,ENCRYPTED" in body else ""
    return Block(label, encryption, block.encode("utf-8", "surrogateescape") + b"\n")


def find_public(content: str) -> Block | None:
    """The first public key in ``content``, or None if there is none.

    Raises:
        KeyFormatError: It is cut short, or too long.
    """
    match = _PUBLIC.search(content)
    if match is None:
        return None
    label = match.group(1) + "PUBLIC KEY"
    block, _ = _cut(content, match, label)
    return Block(label, "", block.encode("utf-8", "surrogateescape") + b"\n")


def _cut(content: str, begin: re.Match[str], label: str) -> tuple[str, str]:
    """A block with its two marks, and what is between them."""
    end = f"-----END {label}-----"
    stop = content.find(end, begin.end())
    if stop < 0:
        raise KeyFormatError(f"{label}: the file is cut short, {end!r} is missing")
    block = content[begin.start() : stop + len(end)]
    if len(block) > MAXIMUM_PEM:
        raise KeyFormatError(f"{label}: {len(block)} characters; at most {MAXIMUM_PEM} are accepted")
    return block, content[begin.end() : stop]


def _check_headers(label: str, body: str) -> str:
    """Check what RFC 1421 section 4.6.1 puts before an encrypted block: the backend panics on an IV that is short.

    Returns:
        How it is encrypted, in words.
    """
    headers = _HEADERS.match(body)
    if headers is None:
        raise KeyFormatError(f"{label}: it is encrypted, and has not the two headers of RFC 1421 that say how")
    cipher, iv = headers.groups()
    if cipher not in _HEADER_CIPHERS:
        have = ", ".join(_HEADER_CIPHERS)
        raise KeyFormatError(f"{label}: unsupported cipher {printable(cipher, 40)}; supported are {have}")
    digits = 32 if cipher.startswith("AES-") else 16
    if len(iv) != digits:
        raise KeyFormatError(f"{label}: an IV of {len(iv)} hexadecimal digits for {cipher}, expected {digits}")
    return f"{cipher}, MD5 once"


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


def _leaves(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of all that is within the nested SEQUENCEs of ``data``."""
    for tag, content, _ in _elements(data):
        if tag == 0x30:
            yield from _leaves(content)
        else:
            yield tag, content


def _dotted(content: bytes) -> str:
    """An OBJECT IDENTIFIER as it is written in texts."""
    arcs: list[int] = []
    value = 0
    for octet in content:
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def _check_cost(body: str) -> str:
    """Bound the work that the parameters of an EncryptedPrivateKeyInfo (RFC 5958 section 3) ask for.

    Returns:
        How it is encrypted, in words.
    """
    label = "ENCRYPTED PRIVATE KEY"
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
        outer = next(_elements(der))[1]
        algorithm = next(_elements(outer))[1]
        leaves = list(_leaves(algorithm))
        numbers = [int.from_bytes(content, "big", signed=True) for tag, content in leaves if tag == 0x02]
        named = [_dotted(content) for tag, content in leaves if tag == 0x06]
    except (binascii.Error, ValueError, IndexError, StopIteration, RecursionError):
        raise KeyFormatError(f"{label}: not the base64 of an EncryptedPrivateKeyInfo (RFC 5958)") from None
    unknown = [name for name in named if name not in _ALGORITHMS]
    if unknown:
        raise KeyFormatError(f"{label}: unsupported encryption, the object identifier {unknown[0][:80]}")
    if any(not 0 < number <= MAXIMUM_ITERATIONS for number in numbers):
        raise KeyFormatError(
            f"{label}: the passphrase is to be hashed {max(numbers, key=abs)} times; "
            f"1 to {MAXIMUM_ITERATIONS} are accepted"
        )
    if _SCRYPT in named and len(numbers) >= 3 and numbers[0] * numbers[1] * numbers[2] > MAXIMUM_SCRYPT:
        raise KeyFormatError(f"{label}: scrypt with N, r, p = {numbers[:3]} needs too much memory")
    ciphers = [_CIPHER_NAMES[name] for name in named if name in _CIPHER_NAMES]
    count = f" with {numbers[0]}" if numbers else ""
    kdf = f"scrypt{count}" if _SCRYPT in named else f"PBKDF2{count} iterations" if _PBKDF2 in named else "PBES1"
    return ", ".join((*ciphers, kdf))


# -------------------------------------------------------------------------------------------------------------- writing


def armour(label: str, der: bytes) -> bytes:
    """A PEM block (RFC 7468)."""
    encoded = base64.b64encode(der).decode("ascii")
    lines = (encoded[at : at + 64] for at in range(0, len(encoded), 64))
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode("ascii")


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    long = b"" if size < 0x80 else size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(long)) if long else (tag, size)) + long + content


def _identifier(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    content = bytearray()
    for arc in (40 * first + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.insert(0, arc & 0x7F | 0x80)
        content += bytes(groups)
    return _der(0x06, bytes(content))


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def encrypt(der: bytes, passphrase: bytes, salt: bytes, iv: bytes, iterations: int) -> bytes:
    """A PrivateKeyInfo as an EncryptedPrivateKeyInfo, in PEM: PBKDF2 with HMAC-SHA-256, and AES-256-CBC."""
    from cryptography.hazmat.primitives.ciphers import Cipher, modes
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    key = PBKDF2HMAC(SHA256(), 32, salt, iterations).derive(passphrase)
    padding = 16 - len(der) % 16
    context = Cipher(AES(key), modes.CBC(iv)).encryptor()
    sealed = context.update(der + bytes((padding,)) * padding) + context.finalize()
    prf = _der(0x30, _identifier(_HMAC_SHA256), _der(0x05))
    kdf = _der(0x30, _identifier(_PBKDF2), _der(0x30, _der(0x04, salt), _integer(iterations), prf))
    cipher = _der(0x30, _identifier(_AES_256_CBC), _der(0x04, iv))
    algorithm = _der(0x30, _identifier(_PBES2), _der(0x30, kdf, cipher))
    return armour("ENCRYPTED PRIVATE KEY", _der(0x30, algorithm, _der(0x04, sealed)))
