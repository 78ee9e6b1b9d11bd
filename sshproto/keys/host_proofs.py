"""Proofs that host keys are a server's, given inside a session (OpenSSH's ``hostkeys-prove-00@openssh.com``).

A server announces all its host keys after login (``hostkeys-00@openssh.com``, OpenSSH PROTOCOL section 2.5); a client
that does not know one of them asks for a proof before it believes it: a signature over the name of the request, the
identifier of the session, so that it proves nothing elsewhere, and the key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from sshproto.config import UNATTENDED
from sshproto.errors import SignatureInvalid, WireError
from sshproto.keys.private import PrivateKey
from sshproto.keys.signatures import SIGNATURES
from sshproto.text import printable
from sshproto.wire.codec import Reader, string

if TYPE_CHECKING:
    from sshproto.keys.public import PublicKey

REQUEST = "hostkeys-prove-00@openssh.com"


def proof_input(session_id: bytes, key: bytes) -> bytes:
    """What is signed to prove the host key whose blob is ``key``."""
    return string(REQUEST.encode("ascii")) + string(session_id) + string(key)


def prove(
    keys: Iterable[PrivateKey | PublicKey], wanted: Sequence[bytes], session_id: bytes, algorithms: Sequence[str]
) -> bytes | None:
    """The answer to the request: a signature for each key that is wanted.

    Args:
        keys: The server's host keys.
        wanted: The blobs of the request.
        session_id: The exchange hash of the first key exchange.
        algorithms: Signature algorithms, best first; an RSA key has several.

    Returns:
        The data of the reply; None if it is to be refused, since nothing is wanted, or one key twice, or one whose
        private half is not there, or that makes no signature among ``algorithms``.

    Raises:
        SignatureInvalid: A key has made a bad signature; see :meth:`PrivateKey.sign
            <sshproto.keys.private.PrivateKey.sign>`.
    """
    own = {key.public_key.blob: key for key in keys if isinstance(key, PrivateKey)}
    if not wanted or len(set(wanted)) < len(wanted):
        return None
    proofs: list[bytes] = []
    for blob in wanted:
        key = own.get(blob)
        able = () if key is None else key.public_key.signature_algorithms
        chosen = next((name for name in algorithms if name in able), None)
        if key is None or chosen is None:
            return None
        proofs.append(string(key.sign(proof_input(session_id, blob), chosen)))
    return b"".join(proofs)


def check_proofs(data: bytes, keys: Sequence[PublicKey], session_id: bytes, algorithms: Collection[str]) -> None:
    """Check a server's answer to the request.

    Args:
        data: The data of the reply.
        keys: The keys that were asked about, in order.
        session_id: The exchange hash of the first key exchange.
        algorithms: The signature algorithms that may have been used.

    Raises:
        SignatureInvalid: There are more or fewer signatures than keys, or one does not verify.
    """
    reader = Reader(data, REQUEST)
    try:
        proofs = [reader.string("signature") for _ in keys]
        reader.end()
        names = [Reader(proof, "signature").name("algorithm") for proof in proofs]
    except WireError as error:
        raise SignatureInvalid(f"not proofs of {len(keys)} host keys: {error}") from None
    for key, proof, name in zip(keys, proofs, names, strict=True):
        if name not in algorithms or name not in SIGNATURES:
            raise SignatureInvalid(f"the proof of {key.type} {key.fingerprint()} is made with {printable(name, 64)}")
        try:
            key.verify(proof, proof_input(session_id, key.blob), name, policy=UNATTENDED)
        except SignatureInvalid as error:
            raise SignatureInvalid(f"the proof of {key.type} {key.fingerprint()} is no good: {error}") from None
