"""The container of PuTTY's private key files, ``PuTTY-User-Key-File-2`` and ``-3`` (PuTTY's manual, appendix C).

Like :mod:`sshproto.keys.openssh` this module knows the container, its encryption and its MAC; what is inside is
:mod:`sshproto.keys.private`'s business.  What the file asks of its reader, Argon2's memory and passes, is bounded
before any work.  A MAC covers everything, of unencrypted files too, and is checked before the private part is read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Any

import attrs

from sshproto.errors import KeyFormatError
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import string, text

BEGIN = "PuTTY-User-Key-File-"

MAXIMUM_MEMORY = 2**20
"""Most memory that Argon2 is given, in KiB: 1 GiB. PuTTY uses 8 MiB unless told otherwise."""

MAXIMUM_WORK = 2**24
"""Largest product of Argon2's memory in KiB and its passes: some 20 seconds of work."""

MAXIMUM_LANES = 64

MAXIMUM_SALT = 1024

_BLOCK = 16
_CIPHERS = ("aes256-cbc", "none")
_FLAVOURS = ("Argon2id", "Argon2i", "Argon2d")
_START = re.compile(f"^{BEGIN}", re.MULTILINE)
_WORD = "PuTTY private key"


@frozen
class Argon2:
    """Argon2's parameters, within bounds."""

    flavour: str
    memory: int
    passes: int
    lanes: int
    salt: bytes


@frozen
class Container:
    """What can be read of a file without its passphrase.

    Attributes:
        version: 2 or 3.
        type: The key type that the file names.
        cipher: ``"none"`` or ``"aes256-cbc"``.
        comment: Unverified until the MAC is.
        public_blob: The public key.
        kdf: Of an encrypted file of version 3, else None.
        sealed: The private part as it stands in the file.
        mac: Over all of it.
    """

    version: int
    type: str
    cipher: str
    comment: str
    public_blob: bytes
    kdf: Argon2 | None
    sealed: bytes = attrs.field(repr=False)
    mac: bytes = attrs.field(repr=False)

    @property
    def encrypted(self) -> bool:
        return self.cipher != "none"


class _Lines:
    """The lines of a file, taken one after the other."""

    def __init__(self, content: str) -> None:
        self._lines = [line.removesuffix("\r") for line in content.split("\n")]
        self._at = 0

    def line(self, what: str) -> str:
        if self._at >= len(self._lines):
            raise KeyFormatError(f"{_WORD}: the file is cut short, {what} is missing")
        self._at += 1
        return self._lines[self._at - 1]

    def header(self, name: str) -> str:
        found, colon, value = self.line(name).partition(":")
        if not colon or found != name:
            raise KeyFormatError(f"{_WORD}: line {self._at} is {printable(found, 40)!r}, expected the header {name}")
        return value.removeprefix(" ")

    def number(self, name: str, least: int, most: int) -> int:
        value = self.header(name)
        if not re.fullmatch("[0-9]{1,10}", value) or not least <= int(value) <= most:
            raise KeyFormatError(f"{_WORD}: {name} is {printable(value, 40)}; {least} to {most} are accepted")
        return int(value)

    def hexadecimal(self, name: str) -> bytes:
        value = self.header(name)
        if not re.fullmatch("(?:[0-9A-Fa-f]{2})*", value):
            raise KeyFormatError(f"{_WORD}: {name} is not hexadecimal")
        return bytes.fromhex(value)

    def blob(self, name: str) -> bytes:
        count = self.number(name, 1, len(self._lines))
        encoded = "".join(self.line(f"a line of {name}") for _ in range(count))
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise KeyFormatError(f"{_WORD}: the lines after {name} are not base64: {error}") from None

    def end(self) -> None:
        if any(line.strip() for line in self._lines[self._at :]):
            raise KeyFormatError(f"{_WORD}: line {self._at + 1} comes after the end")


def is_ppk(content: str) -> bool:
    """Whether ``content`` is such a file, of whatever version."""
    return _START.search(content) is not None


def read(content: str) -> Container:
    """Take the text of a file apart.

    Raises:
        KeyFormatError: It is malformed, of a version or with encryption that is not supported, or too costly to open.
    """
    start = _START.search(content)
    lines = _Lines(content[start.start() if start else 0 :])
    first, colon, kind = lines.line("the first line").partition(": ")
    version = first.removeprefix(BEGIN)
    if version not in ("2", "3") or not colon:
        raise KeyFormatError(f"{_WORD}: version {printable(version, 40)}; versions 2 and 3 are supported")
    cipher = lines.header("Encryption")
    if cipher not in _CIPHERS:
        have = ", ".join(_CIPHERS)
        raise KeyFormatError(f"{_WORD}: unsupported encryption {printable(cipher, 40)}; supported are {have}")
    comment = lines.header("Comment")
    public_blob = lines.blob("Public-Lines")
    kdf = _read_kdf(lines) if version == "3" and cipher != "none" else None
    sealed, mac = lines.blob("Private-Lines"), lines.hexadecimal("Private-MAC")
    lines.end()
    size = 32 if version == "3" else 20
    if len(mac) != size:
        raise KeyFormatError(f"{_WORD}: Private-MAC has {len(mac)} bytes, expected {size}")
    if cipher != "none" and (not sealed or len(sealed) % _BLOCK):
        raise KeyFormatError(f"{_WORD}: the private part has {len(sealed)} bytes, expected a multiple of {_BLOCK}")
    return Container(int(version), kind, cipher, comment, public_blob, kdf, sealed, mac)


def _read_kdf(lines: _Lines) -> Argon2:
    flavour = lines.header("Key-Derivation")
    if flavour not in _FLAVOURS:
        have = ", ".join(_FLAVOURS)
        raise KeyFormatError(f"{_WORD}: unsupported Key-Derivation {printable(flavour, 40)}; supported are {have}")
    memory = lines.number("Argon2-Memory", 8, MAXIMUM_MEMORY)
    passes = lines.number("Argon2-Passes", 1, MAXIMUM_WORK // memory)
    lanes = lines.number("Argon2-Parallelism", 1, min(MAXIMUM_LANES, memory // 8))
    salt = lines.hexadecimal("Argon2-Salt")
    if not 8 <= len(salt) <= MAXIMUM_SALT:
        raise KeyFormatError(f"{_WORD}: Argon2-Salt has {len(salt)} bytes; 8 to {MAXIMUM_SALT} are accepted")
    return Argon2(flavour, memory, passes, lanes, salt)


def _stretch(kdf: Argon2, passphrase: bytes) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf import argon2

    flavours = {"Argon2id": argon2.Argon2id, "Argon2i": argon2.Argon2i, "Argon2d": argon2.Argon2d}
    made: Any = flavours[kdf.flavour]
    try:
        derivation = made(salt=kdf.salt, length=80, iterations=kdf.passes, lanes=kdf.lanes, memory_cost=kdf.memory)
    except UnsupportedAlgorithm:
        raise KeyFormatError(f"{_WORD}: it needs {kdf.flavour}, which cryptography's OpenSSL here lacks") from None
    material: bytes = derivation.derive(passphrase)
    return material


def _sha1(*parts: bytes) -> bytes:
    return hashlib.sha1(b"".join(parts), usedforsecurity=False).digest()


def _keys(container: Container, passphrase: bytes) -> tuple[bytes, bytes, bytes]:
    """The cipher's key and IV, and the MAC's key."""
    if container.version == 2:
        material = b"".join(_sha1(bytes((0, 0, 0, number)), passphrase) for number in range(2))
        return material[:32], bytes(_BLOCK), _sha1(b"putty-private-key-file-mac-key", passphrase)
    if container.kdf is None:
        return b"", b"", b""
    material = _stretch(container.kdf, passphrase)
    return material[:32], material[32:48], material[48:]


def open_private(container: Container, passphrase: bytes) -> bytes | None:
    """The private part, decrypted, with padding if it was encrypted; None if the passphrase does not fit.

    Raises:
        KeyFormatError: A file that is not encrypted is damaged.
    """
    key, iv, mac_key = _keys(container, passphrase if container.encrypted else b"")
    plain = container.sealed
    if container.encrypted:
        from cryptography.hazmat.primitives.ciphers import Cipher, modes
        from cryptography.hazmat.primitives.ciphers.algorithms import AES

        context = Cipher(AES(key), modes.CBC(iv)).decryptor()
        plain = context.update(plain) + context.finalize()
    covered = text(container.type) + text(container.cipher)
    covered += string(container.comment.encode("utf-8", "surrogateescape"))
    covered += string(container.public_blob) + string(plain)
    name = "sha256" if container.version == 3 else "sha1"
    if hmac.compare_digest(hmac.digest(mac_key, covered, name), container.mac):
        return plain
    if container.encrypted:
        return None
    raise KeyFormatError(f"{_WORD}: the MAC does not fit, the file is damaged")


def check_padding(rest: bytes, encrypted: bool) -> None:
    """Check that no more is left of the private part than fills a block; what it is the MAC has said."""
    if len(rest) >= (_BLOCK if encrypted else 1):
        raise KeyFormatError(f"{_WORD}: {len(rest)} bytes follow the private key")
