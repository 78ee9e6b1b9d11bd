"""Keys: public and private, their file formats, signatures, ``known_hosts`` and ``authorized_keys``.

All mathematics are `cryptography`'s; it is imported when the first key of a kind is met, not before.
"""

from __future__ import annotations

from sshproto.keys.authorized_keys import AuthorizedKey, AuthorizedKeys
from sshproto.keys.known_hosts import HostEntry, KnownHosts, Match, Trust
from sshproto.keys.private import PassphraseNeeded, PassphraseWrong, PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.keys.signatures import SIGNATURES, SignatureAlgorithm, signature_algorithms

__all__ = [
    "SIGNATURES",
    "AuthorizedKey",
    "AuthorizedKeys",
    "HostEntry",
    "KnownHosts",
    "Match",
    "PassphraseNeeded",
    "PassphraseWrong",
    "PrivateKey",
    "PublicKey",
    "SignatureAlgorithm",
    "Trust",
    "signature_algorithms",
]
