"""The fields of private keys: what stands in files, and what agents pass on, made keys of `cryptography`'s and back.

OpenSSH's files and agents have the same fields; PuTTY's files, and agents behind a certificate, have only those that
are private.  Each reader sees to it that the halves belong together as far as the fields say so; for the rest whoever
calls compares what comes out with the public key.  No error shows what was read.
"""

from __future__ import annotations

import hmac
from typing import Any

from sshproto.errors import KeyFormatError
from sshproto.keys.public import PublicKey, curve
from sshproto.wire.codec import Reader, mpint, string, text

COMPOSITE = "ssh-mldsa44-ed25519@openssh.com"


def write_fields(public_key: PublicKey, handle: Any) -> bytes:
    """The private key as OpenSSH's format and the agent protocol write it, from its type on, without the comment."""
    kind = public_key.type
    if kind == "ssh-ed25519":
        point = public_key.blob[-32:]
        return public_key.blob + string(handle.private_bytes_raw() + point)
    if kind == COMPOSITE:
        return public_key.blob + string(handle.seeds)
    numbers = handle.private_numbers()
    if kind == "ssh-rsa":
        public = numbers.public_numbers
        values = (public.n, public.e, numbers.d, numbers.iqmp, numbers.p, numbers.q)
        return text(kind) + b"".join(map(mpint, values))
    return public_key.blob + mpint(numbers.private_value)


def mismatch(kind: str, what: str = "OpenSSH private key") -> KeyFormatError:
    """The error for halves of different keys."""
    return KeyFormatError(f"{what}: the private and the public part are different {kind} keys")


def _private_ed25519(reader: Reader, public: PublicKey, minimum: int) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    point, both = reader.string("public"), reader.string("private")
    if len(both) != 64:
        raise KeyFormatError(f"Ed25519 private key of {len(both)} bytes: seed and public key have 64")
    if not hmac.compare_digest(both[32:], point) or not hmac.compare_digest(point, public.blob[-32:]):
        raise mismatch(public.type)
    return Ed25519PrivateKey.from_private_bytes(both[:32])


def _private_ecdsa(reader: Reader, public: PublicKey, minimum: int) -> Any:
    name, point, value = reader.name("curve"), reader.string("Q"), reader.mpint("d")
    if text(public.type) + text(name) + string(point) != public.blob:
        raise mismatch(public.type)
    return _make_ecdsa(public, value)


def _make_ecdsa(public: PublicKey, value: int) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    name = public.type.removeprefix("ecdsa-sha2-")
    if value <= 0:
        raise KeyFormatError("ECDSA private key: the private value is not positive")
    try:
        return ec.derive_private_key(value, curve(name))
    except ValueError:  # its words might show the value
        raise KeyFormatError(f"ECDSA private key: the private value is out of range for {name}") from None


def _private_rsa(reader: Reader, public: PublicKey, minimum: int) -> Any:
    n, e, d, iqmp, p, q = (reader.mpint(name) for name in ("n", "e", "d", "iqmp", "p", "q"))
    if text("ssh-rsa") + mpint(e) + mpint(n) != public.blob:
        raise mismatch("ssh-rsa")
    return _make_rsa(n, e, d, iqmp, p, q)


def _make_rsa(n: int, e: int, d: int, iqmp: int, p: int, q: int) -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa

    if p <= 2 or q <= 2 or p * q != n or not 1 < d < n or not 0 < iqmp < p:
        raise KeyFormatError("RSA private key: the private numbers do not fit the modulus")
    try:
        return rsa.RSAPrivateNumbers(
            p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), iqmp, rsa.RSAPublicNumbers(e, n)
        ).private_key()
    except ValueError:
        raise KeyFormatError("RSA private key: the private numbers do not belong together") from None


def _private_composite(reader: Reader, public: PublicKey, minimum: int) -> Any:
    if text(public.type) + string(reader.string("public")) != public.blob:
        raise mismatch(public.type)
    return _half_composite(reader, public)


FIELDS = {
    "ssh-ed25519": _private_ed25519,
    "ecdsa-sha2-nistp256": _private_ecdsa,
    "ecdsa-sha2-nistp384": _private_ecdsa,
    "ecdsa-sha2-nistp521": _private_ecdsa,
    "ssh-rsa": _private_rsa,
    COMPOSITE: _private_composite,
}
"""Readers of what follows the type in OpenSSH's files; they take the public key and the smallest RSA modulus, too."""


def _ppk_ed25519(reader: Reader, public: PublicKey) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    seed = reader.string("private", 32)  # a number, least significant byte first: PuTTY has left out zeros at the end
    return Ed25519PrivateKey.from_private_bytes(seed.ljust(32, b"\0"))


def _ppk_ecdsa(reader: Reader, public: PublicKey) -> Any:
    return _make_ecdsa(public, reader.mpint("d"))


def _ppk_rsa(reader: Reader, public: PublicKey) -> Any:
    known = Reader(public.blob, "public key")
    known.string()
    e, n = known.mpint(), known.mpint()
    d, p, q, iqmp = (reader.mpint(name) for name in ("d", "p", "q", "iqmp"))
    return _make_rsa(n, e, d, iqmp, p, q)


def _half_rsa(reader: Reader, public: PublicKey) -> Any:
    known = Reader(public.blob, "public key")
    known.string()
    e, n = known.mpint(), known.mpint()
    d, iqmp, p, q = (reader.mpint(name) for name in ("d", "iqmp", "p", "q"))
    return _make_rsa(n, e, d, iqmp, p, q)


def _half_ed25519(reader: Reader, public: PublicKey) -> Any:
    return _private_ed25519(reader, public, 0)


def _half_composite(reader: Reader, public: PublicKey) -> Any:
    from sshproto.keys.composite import read_private

    return read_private(reader)


HALVES = {
    "ssh-ed25519": _half_ed25519,
    "ecdsa-sha2-nistp256": _ppk_ecdsa,
    "ecdsa-sha2-nistp384": _ppk_ecdsa,
    "ecdsa-sha2-nistp521": _ppk_ecdsa,
    "ssh-rsa": _half_rsa,
    COMPOSITE: _half_composite,
}
"""Readers of what an agent passes on behind a certificate."""

PPK = {
    "ssh-ed25519": _ppk_ed25519,
    "ecdsa-sha2-nistp256": _ppk_ecdsa,
    "ecdsa-sha2-nistp384": _ppk_ecdsa,
    "ecdsa-sha2-nistp521": _ppk_ecdsa,
    "ssh-rsa": _ppk_rsa,
}
"""Readers of the private part of PuTTY's files."""
