"""Files that say which keys are revoked: a revocation list (KRL), or a plain list of keys and certificates.

OpenSSH takes either for ``RevokedKeys`` (sshd_config(5)), ``RevokedHostKeys`` (ssh_config(5)) and ``-r`` of
``ssh-keygen -Y verify``.  A plain list has lines ``type base64 [comment]``; a certificate in it stands for the key that
it certifies.  A key that is listed takes with it every certificate for it, and every one that it has signed.

A line that cannot be read makes the whole list unreadable, and who cannot read a list should let nobody in.
"""

from __future__ import annotations

from sshproto.errors import KeyFormatError
from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS, Certificate
from sshproto.keys.krl import KRL, MAGIC, MAXIMUM_ENTRIES, MAXIMUM_SIZE
from sshproto.keys.public import (
    KEY_TYPES,
    LOWEST_RSA_BITS,
    PublicKey,
    blob_type,
    decode_base64,
    decode_text,
    describe,
    split_words,
)
from sshproto.keys.signatures import SIGNATURES
from sshproto.text import printable
from sshproto.wire.codec import Buffer

_CERTIFICATE_TYPES = frozenset(algorithm.type for algorithm in CERTIFICATE_ALGORITHMS.values())


def read_revoked(data: str | Buffer) -> KRL:
    """What a file of revoked keys revokes, whichever of the two forms it has.

    An empty file is a plain list without keys. Keys of types that are not known here are kept as they are.

    Args:
        data: The content, at most 16 MiB and 500,000 entries.

    Raises:
        KeyFormatError: It is neither, or a line of it cannot be read, or it is too large.
    """
    if len(data) > MAXIMUM_SIZE:
        raise KeyFormatError(f"a list of revoked keys of {len(data)} bytes; at most {MAXIMUM_SIZE} are accepted")
    if not isinstance(data, str) and bytes(data[: len(MAGIC)]) == MAGIC:
        return KRL.parse(data)
    keys: set[bytes] = set()
    for number, line in enumerate(decode_text(data).split("\n"), 1):
        words = split_words(line)
        if not words or words[0].startswith("#"):
            continue
        if len(keys) == MAXIMUM_ENTRIES:
            raise KeyFormatError(f"a list of revoked keys of more than {MAXIMUM_ENTRIES} keys")
        try:
            keys.add(_blob(words))
        except KeyFormatError as error:
            raise KeyFormatError(f"list of revoked keys, line {number}: {error}") from None
    return KRL(keys=frozenset(keys))


def _blob(words: list[str]) -> bytes:
    """The blob of the key in a line; of a certificate, of the key in that."""
    kind = words[0]
    if kind.startswith("-----"):
        raise KeyFormatError(f"this is {describe(' '.join(words))}; expected 'type base64 [comment]'")
    if len(words) < 2:
        raise KeyFormatError(f"one word came, {printable(kind, 40)!r}; expected 'type base64 [comment]'")
    blob = decode_base64(words[1], f"{printable(kind, 64)} key")
    inner = blob_type(blob)
    if inner != kind:
        raise KeyFormatError(f"the line says {printable(kind, 64)}, the key in it is of type {printable(inner, 64)}")
    if kind in KEY_TYPES:
        return PublicKey.from_blob(blob, minimum_rsa_bits=LOWEST_RSA_BITS).blob
    if kind in _CERTIFICATE_TYPES:
        certificate = Certificate.from_blob(
            blob, minimum_rsa_bits=LOWEST_RSA_BITS, authority_algorithms=tuple(SIGNATURES)
        )
        return certificate.key.blob
    if "-cert-v0" in kind:
        raise KeyFormatError(f"a certificate of type {printable(kind, 64)}, which is not known: there is no key in it")
    return blob
