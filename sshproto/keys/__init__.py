"""Keys: public and private, their file formats, signatures, certificates, revocation, ``known_hosts`` and so on.

All mathematics are `cryptography`'s; it is imported when the first key of a kind is met, not before;
and each name here when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.lazy import lazily

if TYPE_CHECKING:
    from sshproto.keys.allowed_signers import AllowedSigner, AllowedSigners, SignerRefused, VerifiedSignature
    from sshproto.keys.authorized_keys import (
        AuthorizedKey,
        AuthorizedKeys,
        AuthorizedPrincipal,
        AuthorizedPrincipals,
        LoginRefused,
    )
    from sshproto.keys.certificates import (
        CERTIFICATE_ALGORITHMS,
        Certificate,
        CertificateAlgorithm,
        certificate_algorithms,
    )
    from sshproto.keys.contents import Content, ContentKind, Contents, identify
    from sshproto.keys.grants import FOREVER, CertificateGrant, CertificateKind, CertificateRefused, address_allowed
    from sshproto.keys.known_hosts import HostEntry, KnownHosts, Match, Trust
    from sshproto.keys.krl import KRL, RevokedCertificates
    from sshproto.keys.listing import certificate_text, krl_text
    from sshproto.keys.permits import Permit
    from sshproto.keys.private import PassphraseNeeded, PassphraseWrong, PrivateKey
    from sshproto.keys.public import PublicKey
    from sshproto.keys.revocation import read_revoked
    from sshproto.keys.security_keys import Assertion
    from sshproto.keys.signatures import SIGNATURES, SignatureAlgorithm, signature_algorithms
    from sshproto.keys.specification import revoke_specified
    from sshproto.keys.sshsig import FileSignature, MessageHash, SignatureRequest
    from sshproto.keys.timestamps import read_timestamp
    from sshproto.keys.validity import parse_validity

__all__ = [
    "CERTIFICATE_ALGORITHMS",
    "FOREVER",
    "KRL",
    "SIGNATURES",
    "AllowedSigner",
    "AllowedSigners",
    "Assertion",
    "AuthorizedKey",
    "AuthorizedKeys",
    "AuthorizedPrincipal",
    "AuthorizedPrincipals",
    "Certificate",
    "CertificateAlgorithm",
    "CertificateGrant",
    "CertificateKind",
    "CertificateRefused",
    "Content",
    "ContentKind",
    "Contents",
    "FileSignature",
    "HostEntry",
    "KnownHosts",
    "LoginRefused",
    "Match",
    "MessageHash",
    "PassphraseNeeded",
    "PassphraseWrong",
    "Permit",
    "PrivateKey",
    "PublicKey",
    "RevokedCertificates",
    "SignatureAlgorithm",
    "SignatureRequest",
    "SignerRefused",
    "Trust",
    "VerifiedSignature",
    "address_allowed",
    "certificate_algorithms",
    "certificate_text",
    "identify",
    "krl_text",
    "parse_validity",
    "read_revoked",
    "read_timestamp",
    "revoke_specified",
    "signature_algorithms",
]

_HOMES = {
    "AllowedSigner": "sshproto.keys.allowed_signers",
    "AllowedSigners": "sshproto.keys.allowed_signers",
    "Assertion": "sshproto.keys.security_keys",
    "AuthorizedKey": "sshproto.keys.authorized_keys",
    "AuthorizedKeys": "sshproto.keys.authorized_keys",
    "AuthorizedPrincipal": "sshproto.keys.authorized_keys",
    "AuthorizedPrincipals": "sshproto.keys.authorized_keys",
    "CERTIFICATE_ALGORITHMS": "sshproto.keys.certificates",
    "Certificate": "sshproto.keys.certificates",
    "CertificateAlgorithm": "sshproto.keys.certificates",
    "CertificateGrant": "sshproto.keys.grants",
    "CertificateKind": "sshproto.keys.grants",
    "CertificateRefused": "sshproto.keys.grants",
    "Content": "sshproto.keys.contents",
    "ContentKind": "sshproto.keys.contents",
    "Contents": "sshproto.keys.contents",
    "FOREVER": "sshproto.keys.grants",
    "FileSignature": "sshproto.keys.sshsig",
    "HostEntry": "sshproto.keys.known_hosts",
    "KRL": "sshproto.keys.krl",
    "KnownHosts": "sshproto.keys.known_hosts",
    "LoginRefused": "sshproto.keys.authorized_keys",
    "Match": "sshproto.keys.known_hosts",
    "MessageHash": "sshproto.keys.sshsig",
    "PassphraseNeeded": "sshproto.keys.private",
    "PassphraseWrong": "sshproto.keys.private",
    "Permit": "sshproto.keys.permits",
    "PrivateKey": "sshproto.keys.private",
    "PublicKey": "sshproto.keys.public",
    "RevokedCertificates": "sshproto.keys.krl",
    "SIGNATURES": "sshproto.keys.signatures",
    "SignatureAlgorithm": "sshproto.keys.signatures",
    "SignatureRequest": "sshproto.keys.sshsig",
    "SignerRefused": "sshproto.keys.allowed_signers",
    "Trust": "sshproto.keys.known_hosts",
    "VerifiedSignature": "sshproto.keys.allowed_signers",
    "address_allowed": "sshproto.keys.grants",
    "certificate_algorithms": "sshproto.keys.certificates",
    "certificate_text": "sshproto.keys.listing",
    "identify": "sshproto.keys.contents",
    "krl_text": "sshproto.keys.listing",
    "parse_validity": "sshproto.keys.validity",
    "read_revoked": "sshproto.keys.revocation",
    "read_timestamp": "sshproto.keys.timestamps",
    "revoke_specified": "sshproto.keys.specification",
    "signature_algorithms": "sshproto.keys.signatures",
}

__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
