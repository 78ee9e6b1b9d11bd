"""The composite of ML-DSA-44 and Ed25519, ``ssh-mldsa44-ed25519@openssh.com``: two keys that sign together.

A signature counts if both do, so that it stands as long as one of the two algorithms does.  The form is that of OpenSSH
10.5, after draft-miller-sshm-mldsa44-ed25519-composite-sigs-00, which takes the composite from
draft-ietf-lamps-pq-composite-sigs.  None of that is a standard yet, and nothing offers it unless it is named.

What both sign is a prefix, a label, an empty context and the SHA-512 of the message; ML-DSA has the label for a
context, too. Keys are ``string mldsa || ed25519``, private ones of the two seeds; so are signatures.

ML-DSA draws random bytes from the backend for each signature.  It is in `cryptography` from 48 on; its 47 knows the
names, but packages of it that are linked with OpenSSL do not do it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Self

from sshproto.errors import KeyFormatError
from sshproto.values import frozen
from sshproto.wire.codec import Buffer, Reader, string, text

TYPE = "ssh-mldsa44-ed25519@openssh.com"

PUBLIC_SIZE = 1312 + 32
PRIVATE_SIZE = 32 + 32
SIGNATURE_SIZE = 2420 + 64

_MLDSA_PUBLIC, _MLDSA_SIGNATURE, _SEED = 1312, 2420, 32
_PREFIX = b"CompositeAlgorithmSignatures2025"
_LABEL = b"COMPSIG-MLDSA44-Ed25519-SHA512"


def _signed(data: Buffer) -> bytes:
    """What both keys sign."""
    return _PREFIX + _LABEL + b"\0" + hashlib.sha512(data).digest()


def _mldsa(make: str, name: str, *arguments: bytes) -> Any:
    """A key of ML-DSA-44.

    Raises:
        KeyFormatError: The backend has no such keys.
    """
    import cryptography
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import mldsa

    try:
        return getattr(getattr(mldsa, make), name)(*arguments)
    except UnsupportedAlgorithm:
        raise KeyFormatError(
            f"unsupported key type {TYPE}: it takes ML-DSA-44, which `cryptography` {cryptography.__version__} has not "
            "got here; 48 and later have"
        ) from None


@frozen
class CompositePublicKey:
    """Two public keys.

    Attributes:
        mldsa: `cryptography`'s, of ML-DSA-44.
        ed25519: `cryptography`'s, of Ed25519.
    """

    mldsa: Any
    ed25519: Any

    @property
    def blob(self) -> bytes:
        """The key as it travels."""
        return text(TYPE) + string(self.mldsa.public_bytes_raw() + self.ed25519.public_bytes_raw())

    def verify(self, signature: bytes, data: Buffer) -> None:
        """Check a signature of the right size by both; raises what the backend raises."""
        signed = _signed(data)
        self.mldsa.verify(signature[:_MLDSA_SIGNATURE], signed, _LABEL)
        self.ed25519.verify(signature[_MLDSA_SIGNATURE:], signed)


@frozen(repr=False)
class CompositePrivateKey:
    """Two private keys.

    Attributes:
        mldsa: `cryptography`'s, of ML-DSA-44.
        ed25519: `cryptography`'s, of Ed25519.
    """

    mldsa: Any
    ed25519: Any

    @classmethod
    def generate(cls) -> Self:
        """Make new ones.

        Raises:
            KeyFormatError: The backend has no ML-DSA-44.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(_mldsa("MLDSA44PrivateKey", "generate"), Ed25519PrivateKey.generate())

    @classmethod
    def from_seeds(cls, seeds: bytes) -> Self:
        """The keys of two seeds, one behind the other.

        Raises:
            KeyFormatError: They have another size, or the backend has no ML-DSA-44.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(seeds) != PRIVATE_SIZE:
            raise KeyFormatError(f"{TYPE} private key of {len(seeds)} bytes: it has {PRIVATE_SIZE}")
        mldsa = _mldsa("MLDSA44PrivateKey", "from_seed_bytes", seeds[:_SEED])
        return cls(mldsa, Ed25519PrivateKey.from_private_bytes(seeds[_SEED:]))

    @property
    def seeds(self) -> bytes:
        """The two seeds, one behind the other."""
        raw: bytes = self.mldsa.private_bytes_raw() + self.ed25519.private_bytes_raw()
        return raw

    def public_key(self) -> CompositePublicKey:
        """The public halves."""
        return CompositePublicKey(self.mldsa.public_key(), self.ed25519.public_key())

    def sign(self, data: Buffer) -> bytes:
        """Both signatures, one behind the other."""
        signed = _signed(data)
        made: bytes = self.mldsa.sign(signed, _LABEL) + self.ed25519.sign(signed)
        return made

    def __repr__(self) -> str:
        return "<CompositePrivateKey>"


def read_public(reader: Reader, ed25519: Any) -> CompositePublicKey:
    """Read what follows the type in the blob of a key.

    Args:
        reader: Stands there.
        ed25519: Makes an Ed25519 key of its 32 bytes, and checks it.

    Raises:
        KeyFormatError: It is no such key, or the backend has no ML-DSA-44.
        WireError: It is malformed.
    """
    both = reader.string("key")
    reader.end()
    if len(both) != PUBLIC_SIZE:
        raise KeyFormatError(f"{TYPE} key of {len(both)} bytes: it has {PUBLIC_SIZE}")
    mldsa = _mldsa("MLDSA44PublicKey", "from_public_bytes", both[:_MLDSA_PUBLIC])
    return CompositePublicKey(mldsa, ed25519(both[_MLDSA_PUBLIC:]))


def read_private(reader: Reader) -> CompositePrivateKey:
    """Read what follows the public half of a private key, or a certificate for it.

    Raises:
        KeyFormatError: It is no such key, or the backend has no ML-DSA-44.
        WireError: It is malformed.
    """
    return CompositePrivateKey.from_seeds(reader.string("private"))
