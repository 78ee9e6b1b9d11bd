"""Signature algorithms: which name goes with which key type and hash, and the bytes of a signature.

RFC 4253 section 6.6 (``ssh-rsa``), RFC 8332 (``rsa-sha2-*``), RFC 5656 section 3.1.2 (ECDSA), RFC 8709 (Ed25519),
OpenSSH's PROTOCOL.u2f (``sk-*``, see :mod:`sshproto.keys.security_keys`); experimental, :mod:`sshproto.keys.composite`.

A signature travels as ``string name, string body``, that of a security key with more behind.  Three names have to agree
before any arithmetic: the algorithm that was negotiated or requested, the type of the key, and the name inside the
signature (RFC 8332 section 3.2).  :data:`SIGNATURES` is the one table of the triples; nothing is derived from a prefix
or a suffix of a name.

ECDSA signs deterministically (RFC 6979): no random nonce, hence none that can be biased.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sshproto.errors import SignatureInvalid, WireError, is_panic
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Buffer, Reader, mpint, string, text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

    from sshproto.config import SecurityKeyPolicy
    from sshproto.keys.security_keys import Assertion


@frozen
class SignatureAlgorithm:
    """One way to sign.

    Attributes:
        name: The algorithm's name, in negotiation and inside the signature.
        key_type: The type of the keys that can do it, the name inside the key blob.
        hash: ``"sha256"`` and so on; ``""`` where the algorithm hashes by itself.
    """

    name: str
    key_type: str
    hash: str


SIGNATURES: dict[str, SignatureAlgorithm] = {
    name: SignatureAlgorithm(name, key_type, hash_name)
    for name, key_type, hash_name in (
        ("ssh-ed25519", "ssh-ed25519", ""),
        ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", "sha256"),
        ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384", "sha384"),
        ("ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521", "sha512"),
        ("sk-ssh-ed25519@openssh.com", "sk-ssh-ed25519@openssh.com", ""),
        ("sk-ecdsa-sha2-nistp256@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com", "sha256"),
        ("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com", "sha256"),
        ("rsa-sha2-512", "ssh-rsa", "sha512"),
        ("rsa-sha2-256", "ssh-rsa", "sha256"),
        ("ssh-rsa", "ssh-rsa", "sha1"),
        ("ssh-mldsa44-ed25519@openssh.com", "ssh-mldsa44-ed25519@openssh.com", ""),
    )
}
"""Every signature algorithm by name; of those for one key type the best stands first."""


@functools.cache
def signature_algorithms(key_type: str) -> tuple[str, ...]:
    """The algorithms that keys of ``key_type`` can do, best first; none for a type that is unknown."""
    return tuple(name for name, algorithm in SIGNATURES.items() if algorithm.key_type == key_type)


def pack(name: str, body: bytes) -> bytes:
    """A signature blob."""
    return text(name) + string(body)


_ED25519 = text("ssh-ed25519") + (64).to_bytes(4, "big")
_ED25519_SIZE = len(_ED25519) + 64
"""How an Ed25519 signature blob starts, which is what most are, and how long it is."""


def unpack(signature: Buffer) -> tuple[str, bytes]:
    """The name and the body of a signature blob.

    Raises:
        SignatureInvalid: It is not one.
    """
    name, body, reader = _unpack(signature)
    _end(reader)
    return name, body


def _end(reader: Reader) -> None:
    try:
        reader.end()
    except WireError as error:
        raise SignatureInvalid(f"not a signature blob: {error}") from None


def _unpack(signature: Buffer) -> tuple[str, bytes, Reader]:
    reader = Reader(signature, "signature")
    try:
        return reader.name("algorithm"), reader.string("body"), reader
    except WireError as error:
        raise SignatureInvalid(f"not a signature blob: {error}") from None


@functools.cache
def _hash(name: str) -> HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    made: dict[str, HashAlgorithm] = {
        "sha1": hashes.SHA1(),
        "sha256": hashes.SHA256(),
        "sha384": hashes.SHA384(),
        "sha512": hashes.SHA512(),
    }
    return made[name]


def sign_body(algorithm: SignatureAlgorithm, handle: Any, data: Buffer) -> bytes:
    """Sign ``data`` with `cryptography`'s private key ``handle``, which is of the algorithm's key type."""
    if algorithm.key_type in ("ssh-ed25519", "ssh-mldsa44-ed25519@openssh.com"):
        body: bytes = handle.sign(data)
    elif algorithm.key_type == "ssh-rsa":
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        body = handle.sign(data, PKCS1v15(), _hash(algorithm.hash))
    else:
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        der = handle.sign(data, ec.ECDSA(_hash(algorithm.hash), deterministic_signing=True))
        r, s = utils.decode_dss_signature(der)
        body = mpint(r) + mpint(s)
    return body


def _ed25519_arguments(algorithm: SignatureAlgorithm, handle: Any, body: bytes, data: Buffer) -> tuple[Any, ...]:
    if len(body) != 64:
        raise SignatureInvalid(f"an Ed25519 signature has 64 bytes, this one {len(body)}")
    return body, data


def _composite_arguments(algorithm: SignatureAlgorithm, handle: Any, body: bytes, data: Buffer) -> tuple[Any, ...]:
    from sshproto.keys.composite import SIGNATURE_SIZE

    if len(body) != SIGNATURE_SIZE:
        raise SignatureInvalid(f"a {algorithm.name} signature has {SIGNATURE_SIZE} bytes, this one {len(body)}")
    return body, data


def _rsa_arguments(algorithm: SignatureAlgorithm, handle: Any, body: bytes, data: Buffer) -> tuple[Any, ...]:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    size = (handle.key_size + 7) // 8
    if len(body) > size:
        raise SignatureInvalid(f"an RSA signature by this key has {size} bytes, this one {len(body)}")
    # Some implementations strip leading zeros, as from an mpint; RFC 8332 section 3 does not want it, peers do it.
    return body.rjust(size, b"\0"), data, PKCS1v15(), _hash(algorithm.hash)


def _ecdsa_arguments(algorithm: SignatureAlgorithm, handle: Any, body: bytes, data: Buffer) -> tuple[Any, ...]:
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    reader = Reader(body, "ECDSA signature")
    try:
        r, s = reader.mpint("r"), reader.mpint("s")
        reader.end()
    except WireError as error:
        raise SignatureInvalid(str(error)) from None
    for name, value in (("r", r), ("s", s)):
        if value <= 0 or value.bit_length() > handle.key_size:
            raise SignatureInvalid(f"{name} of the ECDSA signature is outside 1 to 2^{handle.key_size}")
    return utils.encode_dss_signature(r, s), data, ec.ECDSA(_hash(algorithm.hash))


_SECURITY_KEYS = frozenset(("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"))
_ARGUMENTS = {
    "ssh-ed25519": _ed25519_arguments,
    "sk-ssh-ed25519@openssh.com": _ed25519_arguments,
    "ssh-rsa": _rsa_arguments,
    "ssh-mldsa44-ed25519@openssh.com": _composite_arguments,
}


def verify_signature(
    handle: Any,
    key_type: str,
    signature: Buffer,
    data: Buffer,
    algorithm: str,
    policy: SecurityKeyPolicy | None = None,
) -> Assertion | None:
    """Check that ``signature`` is one over ``data`` by the key behind ``handle``, `cryptography`'s or a security key's.

    Returns:
        What a security key says besides; None of other keys.

    Raises:
        SignatureInvalid: It is not, or algorithm, key type and signature do not belong together, or a security key has
            not done what ``policy`` asks for.
    """
    known = SIGNATURES.get(algorithm)
    if known is None:
        have = ", ".join(SIGNATURES)
        raise SignatureInvalid(f"unknown signature algorithm {printable(algorithm)}; there are {have}")
    if known.key_type != key_type:
        raise SignatureInvalid(f"a key of type {key_type} cannot sign as {algorithm}, which needs {known.key_type}")
    head = signature[: len(_ED25519)]
    if algorithm == "ssh-ed25519" and len(signature) == _ED25519_SIZE and head == _ED25519:
        _verify(known, handle, bytes(signature[len(_ED25519) :]), data)  # its form is as it must be
        return None
    name, body, rest = _unpack(signature)
    if name != algorithm:
        raise SignatureInvalid(f"the signature is made with {printable(name)}, {algorithm} was agreed on")
    if known.key_type in _SECURITY_KEYS:
        from sshproto.keys.security_keys import check, read

        assertion, signed = read(rest, algorithm, handle.application, data)
        _verify(known, handle.key, body, signed)
        check(assertion, policy)
        return assertion
    _end(rest)
    _verify(known, handle, body, data)
    return None


def _verify(algorithm: SignatureAlgorithm, handle: Any, body: bytes, data: Buffer) -> None:
    arguments = _ARGUMENTS.get(algorithm.key_type, _ecdsa_arguments)(algorithm, handle, body, data)
    try:
        handle.verify(*arguments)
    except BaseException as error:  # whatever a backend raises: the signature was not found valid
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise SignatureInvalid(f"the {algorithm.name} signature does not verify ({type(error).__name__})") from None
