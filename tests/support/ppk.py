"""PuTTY private key files, written after PuTTY's manual (appendix C) for tests: sshproto itself only reads them."""

from __future__ import annotations

import base64
import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.argon2 import Argon2d, Argon2i, Argon2id

from sshproto.keys.private import PrivateKey
from sshproto.wire.codec import mpint, string, text

ARGON2 = {"Argon2id": Argon2id, "Argon2i": Argon2i, "Argon2d": Argon2d}


def private_blob(key: PrivateKey) -> bytes:
    """The private part of a file."""
    handle = key._handle
    if isinstance(handle, ed25519.Ed25519PrivateKey):
        return string(handle.private_bytes_raw().rstrip(b"\0"))
    if isinstance(handle, ec.EllipticCurvePrivateKey):
        return mpint(handle.private_numbers().private_value)
    assert isinstance(handle, rsa.RSAPrivateKey)
    numbers = handle.private_numbers()
    return b"".join(map(mpint, (numbers.d, numbers.p, numbers.q, numbers.iqmp)))


def _lines(data: bytes) -> list[str]:
    encoded = base64.b64encode(data).decode()
    lines = [encoded[at : at + 64] for at in range(0, len(encoded), 64)]
    return [str(len(lines)), *lines]


def write(
    key: PrivateKey,
    passphrase: bytes = b"",
    *,
    version: int = 3,
    flavour: str = "Argon2id",
    memory: int = 8,
    passes: int = 1,
    lanes: int = 1,
    salt: bytes = b"saltsaltsaltsalt",
    private: bytes | None = None,
    padding: bytes | None = None,
    comment: str | None = None,
) -> bytes:
    """The content of a file."""
    plain = private_blob(key) if private is None else private
    cipher = "aes256-cbc" if passphrase else "none"
    size = -len(plain) % 16 if passphrase else 0
    plain += hashlib.sha1(plain).digest()[:size] if padding is None else padding
    kdf: list[str] = []
    secret, iv, mac_key = b"", bytes(16), b""
    if version == 2:
        mac_key = hashlib.sha1(b"putty-private-key-file-mac-key" + passphrase).digest()
        secret = b"".join(hashlib.sha1(bytes((0, 0, 0, n)) + passphrase).digest() for n in (0, 1))[:32]
    elif passphrase:
        made = ARGON2[flavour](salt=salt, length=80, iterations=passes, lanes=lanes, memory_cost=memory)
        material = made.derive(passphrase)
        secret, iv, mac_key = material[:32], material[32:48], material[48:]
        kdf = [f"Key-Derivation: {flavour}", f"Argon2-Memory: {memory}", f"Argon2-Passes: {passes}",
               f"Argon2-Parallelism: {lanes}", f"Argon2-Salt: {salt.hex()}"]  # fmt: skip
    words = key.comment if comment is None else comment
    covered = text(key.public_key.type) + text(cipher) + text(words) + string(key.public_key.blob) + string(plain)
    mac = hmac.digest(mac_key, covered, "sha256" if version == 3 else "sha1")
    sealed = plain
    if passphrase:
        encryptor = Cipher(AES(secret), modes.CBC(iv)).encryptor()
        sealed = encryptor.update(plain) + encryptor.finalize()
    public, private_lines = _lines(key.public_key.blob), _lines(sealed)
    return "\n".join([
        f"PuTTY-User-Key-File-{version}: {key.public_key.type}", f"Encryption: {cipher}", f"Comment: {words}",
        f"Public-Lines: {public[0]}", *public[1:], *kdf,
        f"Private-Lines: {private_lines[0]}", *private_lines[1:], f"Private-MAC: {mac.hex()}", "",
    ]).encode()  # fmt: skip
