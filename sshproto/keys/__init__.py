"""Keys: public and private, their file formats, signatures, certificates, revocation, ``known_hosts`` and so on.

All mathematics are `cryptography`'s; it is imported when the first key of a kind is met, not before;
and each name here when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.lazy import lazily

if TYPE_CHECKING:
    from sshproto.keys.authorized_keys import AuthorizedKey, AuthorizedKeys
    from sshproto.keys.certificates import (
        CERTIFICATE_ALGORITHMS,
        Certificate,
        CertificateAlgorithm,
        certificate_algorithms,
    )
    from sshproto.keys.grants import FOREVER, CertificateGrant, CertificateKind, CertificateRefused, address_allowed
    from sshproto.keys.known_hosts import HostEntry, KnownHosts, Match, Trust
    from sshproto.keys.krl import KRL, RevokedCertificates
    from sshproto.keys.permits import Permit
    from sshproto.keys.private import PassphraseNeeded, PassphraseWrong, PrivateKey
    from sshproto.keys.public import PublicKey
    from sshproto.keys.security_keys import Assertion
    from sshproto.keys.signatures import SIGNATURES, SignatureAlgorithm, signature_algorithms
    from sshproto.keys.validity import parse_validity

__all__ = [
    "CERTIFICATE_ALGORITHMS",
    "FOREVER",
    "KRL",
    "SIGNATURES",
    "Assertion",
    "AuthorizedKey",
    "AuthorizedKeys",
    "Certificate",
    "CertificateAlgorithm",
    "CertificateGrant",
    "CertificateKind",
    "CertificateRefused",
    "HostEntry",
    "KnownHosts",
    "Match",
    "PassphraseNeeded",
    "PassphraseWrong",
    "Permit",
    "PrivateKey",
    "PublicKey",
    "RevokedCertificates",
    "SignatureAlgorithm",
    "Trust",
    "address_allowed",
    "certificate_algorithms",
    "parse_validity",
    "signature_algorithms",
]

_HOMES = {
    "CERTIFICATE_ALGORITHMS": "sshproto.keys.certificates",
    "FOREVER": "sshproto.keys.grants",
    "KRL": "sshproto.keys.krl",
    "SIGNATURES": "sshproto.keys.signatures",
    "Assertion": "sshproto.keys.security_keys",
    "AuthorizedKey": "sshproto.keys.authorized_keys",
    "AuthorizedKeys": "sshproto.keys.authorized_keys",
    "Certificate": "sshproto.keys.certificates",
    "CertificateAlgorithm": "sshproto.keys.certificates",
    "CertificateGrant": "sshproto.keys.grants",
    "CertificateKind": "sshproto.keys.grants",
    "CertificateRefused": "sshproto.keys.grants",
    "HostEntry": "sshproto.keys.known_hosts",
    "KnownHosts": "sshproto.keys.known_hosts",
    "Match": "sshproto.keys.known_hosts",
    "PassphraseNeeded": "sshproto.keys.private",
    "PassphraseWrong": "sshproto.keys.private",
    "Permit": "sshproto.keys.permits",
    "PrivateKey": "sshproto.keys.private",
    "PublicKey": "sshproto.keys.public",
    "RevokedCertificates": "sshproto.keys.krl",
    "SignatureAlgorithm": "sshproto.keys.signatures",
    "Trust": "sshproto.keys.known_hosts",
    "address_allowed": "sshproto.keys.grants",
    "certificate_algorithms": "sshproto.keys.certificates",
    "parse_validity": "sshproto.keys.validity",
    "signature_algorithms": "sshproto.keys.signatures",
}

__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
