"""What is to be thought of the algorithms and keys that a server offers: weak and why, sound, or not known.

All of it is in the tables here. Patterns are those of :mod:`fnmatch`; every pattern that a name fits adds its reason.
Sources: RFC 9142 (key exchange), RFC 8758 (RC4), RFC 8270 (groups), RFC 8332 (SHA-1 signatures), CVE-2008-5161 (CBC),
CVE-2016-2183 (blocks of 64 bits), CVE-2023-48795 (Terrapin).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

from sshproto import algorithms
from sshproto.transport.negotiation import PSEUDO
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.wire.messages import KexInit

_SHA1 = "SHA-1"
_SMALL = "a group of 1024 bits"
_RC4 = "RC4"
_CBC = "CBC mode"
_BLOCKS = "blocks of 64 bits"
_SHORT_TAG = "a tag of {} bits"

WEAK: dict[str, tuple[tuple[str, str], ...]] = {
    "kex": (
        ("*group1-*", _SMALL),
        ("diffie-hellman-group-exchange-sha1", "groups from 1024 bits on"),
        ("gss-gex-sha1-*", "groups from 1024 bits on"),
        ("rsa1024-*", "RSA of 1024 bits"),
        ("ecdh-sha2-nistp192", "a curve of 192 bits"),
        ("ecdh-sha2-1.2.840.10045.3.1.1", "a curve of 192 bits"),
        ("ecdh-sha2-1.3.132.0.1", "a curve of 163 bits"),
        ("sntrup4591761x25519-*", "an experiment that was withdrawn"),
        ("*-sha1", _SHA1),
        ("gss-*-sha1-*", _SHA1),
        ("none", "no key exchange"),
    ),
    "signature": (
        ("ssh-dss*", "DSA of 1024 bits"),
        ("x509v3-s*-dss*", "DSA of 1024 bits"),
        ("ssh-dss", _SHA1),
        ("ssh-dss-cert-v0?@openssh.com", _SHA1),
        ("ssh-rsa", _SHA1),
        ("ssh-rsa-cert-v0?@openssh.com", _SHA1),
        ("x509v3-ssh-*", _SHA1),
        ("x509v3-sign-*-sha1", _SHA1),
        ("x509v3-sign-rsa", _SHA1),
        ("x509v3-sign-dss", _SHA1),
        ("null", "no signature"),
        ("none", "no signature"),
    ),
    "cipher": (
        ("none", "no encryption"),
        ("arcfour*", _RC4),
        ("des-*", "DES"),
        ("des", "DES"),
        ("3des-*", _BLOCKS),
        ("blowfish-*", _BLOCKS),
        ("cast128-*", _BLOCKS),
        ("idea-*", _BLOCKS),
        ("*-cbc", _CBC),
        ("*-cbc@*", _CBC),
        ("*-ecb", "ECB mode"),
        ("*-cfb", "CFB mode"),
        ("*-ofb", "OFB mode"),
    ),
    "mac": (
        ("none", "no integrity"),
        ("hmac-md5*", "MD5"),
        ("hmac-sha1", _SHA1),
        ("hmac-sha1-*", _SHA1),
        ("hmac-sha1@*", _SHA1),
        ("hmac-ripemd*", "RIPEMD-160"),
        ("*-96", _SHORT_TAG.format(96)),
        ("*-96-etm@*", _SHORT_TAG.format(96)),
        ("umac-64*", _SHORT_TAG.format(64)),
    ),
    "compression": (),
}
"""By category: patterns of names, and what is wrong with what they name."""

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "kex": (
        "sntrup761x25519-sha512",
        "sntrup761x25519-sha512@openssh.com",
        "curve448-sha512@libssh.org",
        "ecdh-sha2-1.*",
        "diffie-hellman-group1[4-8]-sha[235]*",
        "diffie-hellman-group-exchange-sha[235]*",
        "gss-group1[4-8]-sha[235]*",
        "gss-curve*-sha[235]*",
        "gss-nistp*-sha[235]*",
        "rsa2048-sha256",
    ),
    "signature": (
        "ssh-ed25519-cert-v01@openssh.com",
        "ssh-ed448",
        "ecdsa-sha2-nistp*-cert-v01@openssh.com",
        "ecdsa-sha2-1.3.132.0.10",
        "rsa-sha2-*-cert-v01@openssh.com",
        "ssh-rsa-sha[235]*@ssh.com",
        "sk-*@openssh.com",
        "webauthn-sk-*@openssh.com",
        "ssh-mldsa44-ed25519@openssh.com",
        "ssh-mldsa44-ed25519-cert-v01@openssh.com",
        "x509v3-ecdsa-sha2-*",
        "x509v3-rsa2048-sha256",
        "x509v3-sign-rsa-sha[235]*",
    ),
    "cipher": (
        "AEAD_AES_*_GCM",
        "aes128-gcm",
        "aes256-gcm",
        "chacha20-poly1305",
        "twofish*-ctr",
        "serpent*-ctr",
        "camellia*-ctr*",
        "seed-ctr@ssh.com",
    ),
    "mac": (
        "AEAD_AES_*_GCM",
        "umac-128@openssh.com",
        "umac-128-etm@openssh.com",
        "hmac-sha2-*",
        "hmac-sha[235]*@ssh.com",
    ),
    "compression": (),
}
"""By category: patterns of names that others have and we don't. What is weak among them stands above."""

MARKERS: dict[str, str] = {
    "ext-info-s": "takes EXT_INFO (RFC 8308)",
    "kex-strict-s-v00@openssh.com": "strict key exchange",
    "kex-strict-s": "strict key exchange",
    "kexguess2@matt.ucc.asn.au": "another rule for guesses",
}
"""Names in the kex list that are no algorithms, and what they say about the server."""

_SHORT_RSA = ((2048, "under 2048 bits"), (3072, "under 3072 bits"))
_TERRAPIN = "open to the Terrapin attack (CVE-2023-48795)"


class Standing(Enum):
    """What is to be thought of a name."""

    SOUND = "sound"
    WEAK = "weak"
    UNKNOWN = "unknown"
    MARKER = "marker"
    """It is no algorithm but says something about its sender."""


@frozen
class Verdict:
    """What is to be thought of something that a server offers.

    Attributes:
        standing: In one word.
        reason: Why it is weak, or what a marker says; else ``""``.
    """

    standing: Standing
    reason: str = ""


SOUND = Verdict(Standing.SOUND)

_LONGEST_NAME = 64
"""The longest name of an algorithm (RFC 4251 section 6)."""


def judge(category: str, name: str) -> Verdict:
    """What is to be thought of an algorithm.

    Args:
        category: ``"kex"``, ``"signature"``, ``"cipher"``, ``"mac"`` or ``"compression"``.
        name: Its name.
    """
    # Who looks at many connections meets the same names all the time. Longer ones are not allowed, and not remembered.
    return (_judge if len(name) <= _LONGEST_NAME else _judge.__wrapped__)(category, name)


@lru_cache(maxsize=4096)
def _judge(category: str, name: str) -> Verdict:
    if category == "kex" and (name in MARKERS or name in PSEUDO):
        return Verdict(Standing.MARKER, MARKERS.get(name, "meant for clients"))
    reasons = dict.fromkeys(reason for pattern, reason in WEAK[category] if fnmatchcase(name, pattern))
    if reasons:
        return Verdict(Standing.WEAK, ", ".join(reasons))
    if name in algorithms.KNOWN[category] or any(fnmatchcase(name, pattern) for pattern in ELSEWHERE[category]):
        return SOUND
    return Verdict(Standing.UNKNOWN)


def judge_key(kind: str, bits: int | None) -> Verdict:
    """What is to be thought of a host key.

    Args:
        kind: Its type.
        bits: Its size; None if that is not known.
    """
    if kind == "ssh-rsa" and bits is not None:
        for enough, reason in _SHORT_RSA:
            if bits < enough:
                return Verdict(Standing.WEAK, reason)
    return SOUND


def offers_strict(kexinit: KexInit) -> bool:
    """Whether a server's first KEXINIT offers the strict key exchange (OpenSSH PROTOCOL section 1.9)."""
    return any(name in kexinit.kex_algorithms for name in ("kex-strict-s-v00@openssh.com", "kex-strict-s"))


def judge_strictness(kexinit: KexInit) -> Verdict:
    """What is to be thought of a server's having the strict key exchange or not.

    Without it the Terrapin attack cuts messages off the start of a connection that uses one of the ciphers for which
    that goes unnoticed: ChaCha20-Poly1305, and CBC with encrypt-then-MAC.
    """
    if offers_strict(kexinit):
        return SOUND
    ways = (
        (kexinit.encryption_algorithms_client_to_server, kexinit.mac_algorithms_client_to_server),
        (kexinit.encryption_algorithms_server_to_client, kexinit.mac_algorithms_server_to_client),
    )
    risks = dict.fromkeys(risk for ciphers, macs in ways for risk in _at_risk(ciphers, macs))
    return Verdict(Standing.WEAK, f"{_TERRAPIN} with {' and '.join(risks)}") if risks else SOUND


def _at_risk(ciphers: Iterable[str], macs: Iterable[str]) -> Iterable[str]:
    names = list(ciphers)
    if any(name.startswith("chacha20-poly1305") for name in names):
        yield "ChaCha20-Poly1305"
    if any("-cbc" in name for name in names) and any("-etm@" in name for name in macs):
        yield "CBC and encrypt-then-MAC"
