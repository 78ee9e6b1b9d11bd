"""Keys: public and private, their file formats, signatures, ``known_hosts`` and ``authorized_keys``.

All mathematics are `cryptography`'s; it is imported when the first key of a kind is met, not before;
and each name here when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.lazy import lazily

if TYPE_CHECKING:
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

_HOMES = {
    "SIGNATURES": "sshproto.keys.signatures",
    "AuthorizedKey": "sshproto.keys.authorized_keys",
    "AuthorizedKeys": "sshproto.keys.authorized_keys",
    "HostEntry": "sshproto.keys.known_hosts",
    "KnownHosts": "sshproto.keys.known_hosts",
    "Match": "sshproto.keys.known_hosts",
    "PassphraseNeeded": "sshproto.keys.private",
    "PassphraseWrong": "sshproto.keys.private",
    "PrivateKey": "sshproto.keys.private",
    "PublicKey": "sshproto.keys.public",
    "SignatureAlgorithm": "sshproto.keys.signatures",
    "Trust": "sshproto.keys.known_hosts",
    "signature_algorithms": "sshproto.keys.signatures",
}

__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
