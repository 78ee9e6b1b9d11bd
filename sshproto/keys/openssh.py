"""The container of OpenSSH's private key files, ``-----BEGIN OPENSSH PRIVATE KEY-----`` (OpenSSH PROTOCOL.key).

This module knows the container and its encryption; what is inside is :mod:`sshproto.keys.private`'s business.  It is
read here and not by `cryptography` because the container tells more than a key: the public key of an encrypted file,
the comment, whether the passphrase was wrong or the file is damaged; and because the number of bcrypt rounds, which
the file sets and the reader pays for, has to be bounded before the work starts.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from typing import Any

import attrs

from sshproto.errors import KeyFormatError, WireError
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Reader, string, text, uint32

MAGIC = b"openssh-key-v1\0"
BEGIN = "-----BEGIN OPENSSH PRIVATE KEY-----"
END = "-----END OPENSSH PRIVATE KEY-----"

MAXIMUM_ROUNDS = 2048
"""Most bcrypt rounds that are accepted, some 20 seconds of work; ``ssh-keygen`` uses 16 or 24."""

WRITE_ROUNDS = 24
WRITE_CIPHER = "aes256-ctr"
SALT_SIZE = 16


# Each turns key, IV and data into data and tag, or back. Where there is no tag it is empty.
_Seal = Callable[[bytes, bytes, bytes], tuple[bytes, bytes]]
_Open = Callable[[bytes, bytes, bytes, bytes], bytes]


def _block(name: str, mode: str) -> tuple[_Seal, _Open]:
    """A block cipher in CTR or CBC mode."""

    def cipher(key: bytes, iv: bytes) -> Any:
        from cryptography.hazmat.primitives.ciphers import Cipher, modes

        return Cipher(_algorithm(name)(key), modes.CTR(iv) if mode == "ctr" else modes.CBC(iv))

    def run(context: Any, data: bytes) -> bytes:
        done: bytes = context.update(data) + context.finalize()
        return done

    def seal(key: bytes, iv: bytes, data: bytes) -> tuple[bytes, bytes]:
        return run(cipher(key, iv).encryptor(), data), b""

    def unseal(key: bytes, iv: bytes, data: bytes, tag: bytes) -> bytes:
        return run(cipher(key, iv).decryptor(), data)

    return seal, unseal


def _algorithm(name: str) -> Any:
    if name == "3des":
        from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES

        return TripleDES
    from cryptography.hazmat.primitives.ciphers.algorithms import AES

    return AES


def _seal_gcm(key: bytes, iv: bytes, data: bytes) -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sealed = AESGCM(key).encrypt(iv, data, None)
    return sealed[:-16], sealed[-16:]


def _open_gcm(key: bytes, iv: bytes, data: bytes, tag: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).decrypt(iv, data + tag, None)


def _chacha(key: bytes, block: int, data: bytes) -> bytes:
    """As in packets (OpenSSH PROTOCOL.chacha20poly1305), with sequence number 0 and without a length."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    return Cipher(ChaCha20(key[:32], block.to_bytes(8, "little") + bytes(8)), None).encryptor().update(data)


def _seal_chacha(key: bytes, iv: bytes, data: bytes) -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    sealed = _chacha(key, 1, data)
    return sealed, Poly1305.generate_tag(_chacha(key, 0, bytes(32)), sealed)


def _open_chacha(key: bytes, iv: bytes, data: bytes, tag: bytes) -> bytes:
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    Poly1305.verify_tag(_chacha(key, 0, bytes(32)), data, tag)
    return _chacha(key, 1, data)


@frozen
class _FileCipher:
    key_size: int
    iv_size: int
    block_size: int
    tag_size: int
    seal: _Seal
    open: _Open


_CIPHERS: dict[str, _FileCipher] = {
    **{f"aes{bits}-{mode}": _FileCipher(bits // 8, 16, 16, 0, *_block("aes", mode))
       for mode in ("ctr", "cbc") for bits in (256, 192, 128)},
    **{f"aes{bits}-gcm@openssh.com": _FileCipher(bits // 8, 12, 16, 16, _seal_gcm, _open_gcm) for bits in (256, 128)},
    "chacha20-poly1305@openssh.com": _FileCipher(64, 0, 8, 16, _seal_chacha, _open_chacha),
    "3des-cbc": _FileCipher(24, 8, 8, 0, *_block("3des", "cbc")),
}  # fmt: skip

CIPHERS = tuple(_CIPHERS)
"""The names of the ciphers: all that OpenSSH has."""


@frozen
class Container:
    """What can be read of a file without its passphrase.

    Attributes:
        public_blob: The public key.
        cipher: ``"none"`` or the name of the cipher.
        salt: bcrypt's.
        rounds: bcrypt's, within bounds.
        sealed: The private part as it stands in the file.
        tag: Of an AEAD cipher.
    """

    public_blob: bytes
    cipher: str
    salt: bytes
    rounds: int
    sealed: bytes = attrs.field(repr=False)
    tag: bytes = attrs.field(repr=False)

    @property
    def encrypted(self) -> bool:
        return self.cipher != "none"


def read(content: str) -> Container:
    """Take the text of a file apart.

    Raises:
        KeyFormatError: It is malformed, or uses a cipher or KDF that is not supported.
    """
    start = content.index(BEGIN) + len(BEGIN)
    stop = content.find(END, start)
    if stop < 0:
        raise KeyFormatError(f"OpenSSH private key: the file is cut short, {END!r} is missing")
    try:
        data = base64.b64decode("".join(content[start:stop].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyFormatError(f"OpenSSH private key: not base64: {error}") from None
    if not data.startswith(MAGIC):
        raise KeyFormatError(f"OpenSSH private key: starts with {data[: len(MAGIC)]!r}, expected {MAGIC!r}")
    reader = Reader(data, "OpenSSH private key", len(MAGIC))
    try:
        return _read_fields(reader)
    except WireError as error:
        raise KeyFormatError(f"malformed {error}") from None


def _read_fields(reader: Reader) -> Container:
    cipher, kdf = reader.name("ciphername"), reader.name("kdfname")
    options = Reader(reader.string("kdfoptions"), "OpenSSH private key.kdfoptions")
    known = _CIPHERS.get(cipher)
    if cipher != "none" and known is None:
        have = ", ".join(_CIPHERS)
        raise KeyFormatError(f"OpenSSH private key: unsupported cipher {printable(cipher)}; supported are {have}")
    if kdf not in ("none", "bcrypt") or (kdf == "none") != (cipher == "none"):
        raise KeyFormatError(
            f"OpenSSH private key: unsupported KDF {printable(kdf)} with cipher {cipher}; "
            "expected bcrypt with a cipher, or none and none"
        )
    salt, rounds = b"", 0
    if kdf == "bcrypt":
        salt, rounds = options.string("salt", 1024), options.uint32("rounds")
        if not salt or not 1 <= rounds <= MAXIMUM_ROUNDS:
            raise KeyFormatError(
                f"OpenSSH private key: bcrypt with {rounds} rounds and a salt of {len(salt)} bytes; "
                f"1 to {MAXIMUM_ROUNDS} rounds are accepted, and a salt that is not empty"
            )
    options.end()
    count = reader.uint32("number of keys")
    if count != 1:
        raise KeyFormatError(f"OpenSSH private key: the file has {count} keys, expected 1")
    public_blob, sealed = reader.string("public key"), reader.string("private keys")
    tag = reader.raw(known.tag_size, "tag") if known else b""
    reader.end()
    block = known.block_size if known else 8
    if not sealed or len(sealed) % block:
        raise KeyFormatError(
            f"OpenSSH private key: the private part has {len(sealed)} bytes, expected a multiple of {block}"
        )
    return Container(public_blob, cipher, salt, rounds, sealed, tag)


def _derive(passphrase: bytes, salt: bytes, rounds: int, size: int) -> bytes:
    try:
        from bcrypt import kdf
    except ImportError:
        raise KeyFormatError(
            "encrypted OpenSSH private keys need the package bcrypt, which is not installed: "
            "pip install 'sshproto[encrypted-keys]'"
        ) from None
    return kdf(passphrase, salt, size, rounds, ignore_few_rounds=True)


def open_private(container: Container, passphrase: bytes) -> bytes | None:
    """The private part, decrypted, from the key type on; None if the passphrase does not fit.

    Raises:
        KeyFormatError: A file that is not encrypted is damaged.
    """
    plain = container.sealed
    if container.encrypted:
        from cryptography.exceptions import InvalidSignature, InvalidTag

        cipher = _CIPHERS[container.cipher]
        material = _derive(passphrase, container.salt, container.rounds, cipher.key_size + cipher.iv_size)
        try:
            plain = cipher.open(material[: cipher.key_size], material[cipher.key_size :], plain, container.tag)
        except (InvalidTag, InvalidSignature):
            return None
    if len(plain) < 8 or not hmac.compare_digest(plain[:4], plain[4:8]):
        if container.encrypted:
            return None
        raise KeyFormatError("OpenSSH private key: the two check numbers differ, the file is damaged")
    return plain[8:]


def check_padding(reader: Reader) -> None:
    """Check that only 01 02 03 ... is left."""
    rest = reader.rest()
    if len(rest) > 255 or rest != bytes(range(1, len(rest) + 1)):
        raise KeyFormatError("OpenSSH private key: the padding is not 01 02 03 ..., the file is damaged")


def write(
    public_blob: bytes,
    private: bytes,
    comment: str,
    passphrase: bytes | None,
    check: bytes,
    salt: bytes,
    rounds: int,
    cipher: str = WRITE_CIPHER,
) -> bytes:
    """The text of a file.

    Args:
        public_blob: The public key.
        private: The private key from its type on, without the comment.
        comment: Goes into the encrypted part.
        passphrase: None writes the key unencrypted.
        check: Four random bytes.
        salt: ``SALT_SIZE`` random bytes; not used without a passphrase.
        rounds: bcrypt's.
        cipher: One of :data:`CIPHERS`; not used without a passphrase.
    """
    plain = check + check + private + text(comment)
    spec = None if passphrase is None else _CIPHERS[cipher]
    plain += bytes(range(1, -len(plain) % (spec.block_size if spec else 8) + 1))
    named, kdf, options, tag = "none", "none", b"", b""
    if passphrase is not None and spec is not None:
        named, kdf, options = cipher, "bcrypt", string(salt) + uint32(rounds)
        material = _derive(passphrase, salt, rounds, spec.key_size + spec.iv_size)
        plain, tag = spec.seal(material[: spec.key_size], material[spec.key_size :], plain)
    data = MAGIC + text(named) + text(kdf) + string(options) + uint32(1) + string(public_blob) + string(plain) + tag
    encoded = base64.b64encode(data).decode("ascii")
    lines = [BEGIN, *(encoded[at : at + 70] for at in range(0, len(encoded), 70)), END, ""]
    return "\n".join(lines).encode("ascii")
