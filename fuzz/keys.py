"""Keys, whatever is in them: private keys in OpenSSH's format, PEM and PuTTY's; public keys; signatures; any files.

The first byte of an input chooses what the rest is.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fuzz.clear import constant, fit_to_show
from fuzz.running import main
from fuzz.running import mutate as mutate_bytes
from sshproto.config import UNATTENDED
from sshproto.errors import KeyFormatError, SignatureInvalid
from sshproto.keys.contents import identify
from sshproto.keys.openssh import BEGIN
from sshproto.keys.private import PassphraseNeeded, PassphraseWrong, PrivateKey
from sshproto.keys.private_fields import COMPOSITE
from sshproto.keys.public import PublicKey
from sshproto.wire.codec import Reader, string
from tests.support import ppk
from tests.support.postquantum import HAS_MLDSA44
from tests.support.seeds import USER_KEY

MODULES = ("sshproto.keys.private", "sshproto.keys.private_fields", "sshproto.keys.public", "sshproto.keys.openssh",
           "sshproto.keys.pem", "sshproto.keys.ppk", "sshproto.keys.rfc4716", "sshproto.keys.security_keys",
           "sshproto.keys.signatures", "sshproto.keys.contents", "sshproto.keys.composite")  # fmt: skip
_SIGNED = b"what was signed"
_OPENSSH_END = "-----END OPENSSH PRIVATE KEY-----"


def _check(key: PublicKey) -> None:
    again = PublicKey.from_blob(key.blob)
    if again != key or PublicKey.parse(key.openssh()) != key:
        raise AssertionError(f"written it is another: {key!r}")
    again = PublicKey.parse(key.rfc4716())
    bare = key.application is not None or key.type == COMPOSITE  # these have no such form
    same = bare or PublicKey.parse(key.pkcs8()) == key
    if again != key or again.rfc4716() != key.rfc4716() or not same:
        raise AssertionError(f"in another form it is another: {key!r}")
    fit_to_show(repr(key), 12_000)
    key.fingerprint()


def _private(data: bytes) -> None:
    for passphrase in (None, b"xyzzy"):
        try:
            key = PrivateKey.load(data, passphrase)
        except (PassphraseNeeded, PassphraseWrong):
            continue
        _check(key.public_key)
        key.public_key.verify(key.sign(_SIGNED), _SIGNED, key.public_key.signature_algorithms[0])
        return


def _container(data: bytes) -> None:
    lines = base64.encodebytes(data).decode("ascii")
    _private(f"{BEGIN}\n{lines}{_OPENSSH_END}\n".encode())


def _signature(data: bytes) -> None:
    for key in _KEYS:
        for algorithm in key.public_key.signature_algorithms:
            good = _GOOD[key.public_key.type, algorithm]
            try:
                key.public_key.verify(data, _SIGNED, algorithm)
            except SignatureInvalid:
                if data == good:
                    raise AssertionError("a good signature is refused") from None
            else:
                if data != good and key.public_key.type == "ssh-ed25519":
                    raise AssertionError("a second signature for the same data")


def _signature_of_other_data(data: bytes) -> None:
    for key in _KEYS:
        for algorithm in key.public_key.signature_algorithms:
            try:
                key.public_key.verify(data, b"what was not signed", algorithm)
            except SignatureInvalid:
                continue
            raise AssertionError("a forgery")


def _assertion(data: bytes) -> None:
    """A signature of a security key: whatever is changed, what the token says besides is that which it has signed."""
    for key, signed, good in _ASSERTIONS:
        name = Reader(good, "signature").name()
        rest = Reader(good, "signature")
        rest.string()
        rest.string()
        try:
            assertion = key.verify(data, signed, name, policy=UNATTENDED)
        except SignatureInvalid:
            if data == good:
                raise AssertionError("a good signature is refused") from None
        else:
            if assertion is None or not data.endswith(rest.rest()):
                raise AssertionError(f"a second signature for the same data: {assertion!r}")
            fit_to_show(repr(assertion), 12_000)


def _contents(data: bytes) -> None:
    """Whoever shows files sees in one what those see who use it, and more."""
    used: list[PublicKey] = []
    for read in (lambda: PublicKey.parse(data), lambda: PrivateKey.load(data).public_key):
        with contextlib.suppress(KeyFormatError):
            used.append(read())
    found = identify(data)
    for entry in found.entries:
        fit_to_show(entry.problem)
        if entry.key is not None and (entry.key.blob, entry.key.type) != (entry.blob, entry.type):
            raise AssertionError(f"the blob of another key: {entry!r}")
    for _, problem in found.problems:
        fit_to_show(problem)
    keys = [entry.key for entry in found.entries]
    if any(key not in keys for key in used):
        raise AssertionError(f"{used} can be used, {keys} are shown")


_WHAT: tuple[Callable[[bytes], object], ...] = (
    _private,
    _container,
    lambda data: _check(PublicKey.parse(data)),
    lambda data: _check(PublicKey.from_blob(data)),
    _signature,
    _signature_of_other_data,
    _assertion,
    _contents,
)


def fuzz(data: bytes) -> None:
    """Read ``data`` as what its first byte says."""
    try:
        _WHAT[(data[0] if data else 0) % len(_WHAT)](data[1:])
    except KeyFormatError as error:
        fit_to_show(error)


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change bytes; those that base64 hides as well."""
    if data[:1] == b"\0" and b"BEGIN" in data and rng.randrange(2):
        lines = data[1:].split(b"\n")
        letters = b"".join(line for line in lines if b"-" not in line and b":" not in line)
        try:
            body = base64.b64decode(letters)
        except binascii.Error:
            body = letters
        edges = [line for line in lines if b"-" in line or b":" in line]
        changed = base64.b64encode(mutate_bytes(body, [body, *rng.sample(others, 1)], rng))
        parts = [changed[place : place + 64] for place in range(0, len(changed), 64)]
        return b"\0" + b"\n".join([*edges[:1], *parts, *edges[-1:], b""])
    return mutate_bytes(data, others, rng)


def _pem(handle: Any, form: s.PrivateFormat, passphrase: bytes | None = None) -> bytes:
    encryption = s.NoEncryption() if passphrase is None else s.BestAvailableEncryption(passphrase)
    made: bytes = handle.private_bytes(s.Encoding.PEM, form, encryption)
    return made


# The same in every run: an EC key of a number, and an RSA key of two primes.
_EC = ec.derive_private_key(0x1234567890ABCDEF, ec.SECP256R1())


def _prime(label: str, more: int) -> int:
    return (int.from_bytes(constant(128, label), "big") | 3 << 1022 | 1) + more


def _rsa() -> rsa.RSAPrivateKey:
    p, q = _prime("p", 816), _prime("q", 114)
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPublicNumbers(65537, p * q)
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), numbers).private_key()


_HANDLES = (_EC, _rsa())
_KEYS = (USER_KEY, *(PrivateKey.load(_pem(handle, s.PrivateFormat.PKCS8)) for handle in _HANDLES))
_GOOD = {
    (key.public_key.type, name): key.sign(_SIGNED, name)
    for key in _KEYS
    for name in key.public_key.signature_algorithms
}


def _vector(name: str) -> tuple[PublicKey, bytes, bytes]:
    """The key, what was signed, and the signature of a SSHSIG file of OpenSSH's."""
    lines = (_VECTORS / f"{name}.sig").read_bytes().split(b"\n")
    reader = Reader(base64.b64decode(b"".join(lines[1:-2])), "SSHSIG", 10)
    key = PublicKey.from_blob(reader.string())
    namespace, _, hash_name, signature = reader.string(), reader.string(), reader.string(), reader.string()
    digest = hashlib.sha512(b"This is a test, this is only a test").digest()
    return key, b"SSHSIG" + string(namespace) + string(b"") + string(hash_name) + string(digest), signature


_VECTORS = Path(__file__).parents[1] / "tests" / "vectors" / "openssh-sk"
_ASSERTIONS = [_vector(name) for name in ("ed25519_sk", "ecdsa_sk", "ecdsa_sk_webauthn")]


def seeds() -> list[bytes]:
    """Keys of each type in each format."""
    files = [key.openssh() for key in _KEYS]
    files = [it.encode() if isinstance(it, str) else it for it in files]
    bodies = [base64.b64decode(b"".join(it.split(b"\n")[1:-2])) for it in files]
    forms = (s.PrivateFormat.PKCS8, s.PrivateFormat.TraditionalOpenSSL)
    pems = [_pem(handle, form) for handle in _HANDLES for form in forms]
    pems += [_pem(_EC, form, b"xyzzy") for form in forms]
    pems += [ppk.write(key, version=version) for key in _KEYS for version in (2, 3)]
    pems += [ppk.write(USER_KEY, b"xyzzy", version=2)]  # of version 3 the file would set what an input costs
    lines = [f"{key.public_key.openssh()} comment".encode() for key in _KEYS]
    return [
        *(b"\0" + it for it in (*files, *pems)),
        *(b"\1" + it for it in bodies),
        *(b"\2" + it for it in (*lines, b"ssh-rsa AAAA", b"1024 35 1234 x", b"---- BEGIN SSH2 PUBLIC KEY ----")),
        *(b"\2" + form.encode() for key in _KEYS for form in (key.public_key.rfc4716(), key.public_key.pkcs8())),
        *(b"\3" + key.public_key.blob for key in _KEYS),
        *(bytes((4,)) + it for it in _GOOD.values()),
        *(bytes((5,)) + it for it in _GOOD.values()),
        *(b"\2" + key.openssh().encode() for key, _, _ in _ASSERTIONS[1:]),
        *(b"\3" + key.blob for key, _, _ in _ASSERTIONS),
        *(bytes((6,)) + it for _, _, it in _ASSERTIONS),
        *(b"\7" + it for it in (*files, *pems[:2], pems[-1], *lines)),
        b"\7@revoked *,!a " + lines[0] + b"\nb " + lines[1] + b'\nno-pty,command="a\\"b" ' + lines[0] + b"\n#\nx",
        *_composite_seeds(),
    ]


def _composite_seeds() -> list[bytes]:
    """Of the experimental composite, where the backend has it."""
    if not HAS_MLDSA44:
        return []
    from sshproto.keys.composite import CompositePrivateKey

    handle = CompositePrivateKey.from_seeds(constant(64, "composite"))
    key = PrivateKey(handle, PublicKey.from_blob(handle.public_key().blob))
    container = base64.b64decode(b"".join(key.openssh(entropy=lambda count, label: bytes(count)).split(b"\n")[1:-2]))
    return [b"\1" + container, b"\3" + key.public_key.blob]


if __name__ == "__main__":
    main("keys", fuzz, seeds, mutate, MODULES)
