"""All codes of findings, with what they mean: for rules in SARIF, and for ``docs/reference/findings.md``."""

from __future__ import annotations

from sshproto.replay.findings import Severity
from sshproto.values import frozen


@frozen
class Rule:
    """A kind of finding.

    Attributes:
        severities: Those that its findings may have, the lowest first.
        title: What it is, in short.
        meaning: What that means, and what to do.
        references: Where it stands.
    """

    severities: tuple[Severity, ...]
    title: str
    meaning: str
    references: tuple[str, ...]


_INFO, _LOW, _MEDIUM, _HIGH, _CRITICAL = Severity

RULES: dict[str, Rule] = {
    "terrapin": Rule(
        (_CRITICAL,),
        "Terrapin attack",
        "Messages that do not belong there came in clear before NEWKEYS, on a connection that a Terrapin attack works"
        " on: they shift sequence numbers, so that as many messages can be cut off the beginning of the encrypted"
        " stream unnoticed. Somebody is in the middle. Both sides need the strict key exchange.",
        ("CVE-2023-48795",),
    ),
    "rogue-extension": Rule(
        (_CRITICAL,),
        "EXT_INFO in clear",
        "EXT_INFO came in clear before NEWKEYS. A client that takes it (AsyncSSH before 2.14.1) has its extensions from"
        " whoever is in the middle.",
        ("CVE-2023-46445",),
    ),
    "rogue-session": Rule(
        (_CRITICAL,),
        "USERAUTH_REQUEST in clear",
        "USERAUTH_REQUEST came in clear before NEWKEYS. A server that takes it (AsyncSSH before 2.14.1) logs the user"
        " in to the account of whoever is in the middle.",
        ("CVE-2023-46446",),
    ),
    "strict-kex-broken": Rule(
        (_HIGH,),
        "Stray message in a strict key exchange",
        "The strict key exchange is agreed, and yet a message came that it does not allow. Its receiver must end the"
        " connection.",
        ("OpenSSH PROTOCOL section 1.9",),
    ),
    "message-before-newkeys": Rule(
        (_LOW, _HIGH),
        "Stray message before NEWKEYS",
        "A message that is not of the key exchange came in clear before NEWKEYS. It is low if IGNORE, UNIMPLEMENTED or"
        " DEBUG, which the standard allows and hardly anybody sends.",
        ("RFC 4253 section 7.1",),
    ),
    "ext-info-missing": Rule(
        (_LOW,),
        "EXT_INFO missing",
        "Both sides offer EXT_INFO, and the server's first encrypted message is another. That is allowed, and it is"
        " also what a Terrapin attack leaves behind. It takes a key to see it.",
        ("RFC 8308 section 2.4", "CVE-2023-48795"),
    ),
    "no-strict-kex": Rule(
        (_LOW, _MEDIUM),
        "No strict key exchange",
        "The strict key exchange was not agreed. It is medium if what was negotiated is open to the Terrapin attack:"
        " ChaCha20-Poly1305, or CBC with a MAC over the ciphertext.",
        ("CVE-2023-48795", "OpenSSH PROTOCOL section 1.9"),
    ),
    "data-before-login": Rule(
        (_HIGH,),
        "Data before the login",
        "A message of the connection protocol came before the login has succeeded.",
        ("RFC 4252 section 6",),
    ),
    "no-proof": Rule(
        (_MEDIUM,),
        "Login without proof",
        "The server let the user in without a password, a signature or anything else: the method was none.",
        ("RFC 4252 section 5.2",),
    ),
    "repeated-cookie": Rule(
        (_HIGH,),
        "Repeated cookie",
        "The cookie of a KEXINIT came before in what was read, or all of its bytes are the same. Either its maker has"
        " no randomness, or somebody relays the connection: both legs of such a one have the same cookies.",
        ("RFC 4253 section 7.1",),
    ),
    "repeated-value": Rule(
        (_MEDIUM,),
        "Repeated public value",
        "The ephemeral public value of a key exchange came before in what was read: it is not ephemeral, or somebody"
        " relays the connection.",
        ("RFC 4253 section 8",),
    ),
    "repeated-group": Rule(
        (_INFO,),
        "Repeated group",
        "Group exchange gave the same group again, and it is none of those that are known to be good: who breaks it"
        " once has all connections that use it.",
        ("RFC 4419 section 6",),
    ),
    "small-group": Rule(
        (_MEDIUM, _HIGH),
        "Small group",
        "Group exchange gave a group of less than 2048 bits; it is high from 1024 bits down.",
        ("RFC 8270",),
    ),
    "small-group-asked": Rule(
        (_MEDIUM,),
        "Small group asked for",
        "The client asks group exchange for a group of less than 2048 bits at most.",
        ("RFC 8270",),
    ),
    "weak-kex": Rule(
        (_MEDIUM, _HIGH),
        "Weak key exchange",
        "A weak key-exchange method was negotiated: SHA-1, a small group or curve.",
        ("RFC 9142",),
    ),
    "weak-cipher": Rule(
        (_MEDIUM, _HIGH),
        "Weak cipher",
        "A weak cipher was negotiated: none, RC4, DES, blocks of 64 bits, CBC, CFB, OFB or ECB mode.",
        ("RFC 4253 section 6.3", "RFC 8758", "CVE-2008-5161", "CVE-2016-2183"),
    ),
    "weak-mac": Rule(
        (_LOW, _MEDIUM, _HIGH),
        "Weak MAC",
        "A weak MAC was negotiated: none, MD5, SHA-1, RIPEMD-160, or a short tag, which is low.",
        ("RFC 4253 section 6.4", "RFC 6151", "RFC 6194"),
    ),
    "weak-host-key": Rule(
        (_LOW, _MEDIUM, _HIGH),
        "Weak host key",
        "The server's host key is weak: DSA, or RSA that is too short. It is low for RSA from 2048 bits up to 3072, and"
        " high from 1024 bits down.",
        ("NIST SP 800-131A",),
    ),
    "sha1-signature": Rule(
        (_MEDIUM, _HIGH),
        "Signature with SHA-1",
        "The server or the user signs with SHA-1: ssh-rsa, or ssh-dss, which is high since it is of 1024 bits.",
        ("RFC 8332 section 1",),
    ),
    "weak-signature": Rule(
        (_MEDIUM, _HIGH),
        "Weak signature",
        "The server or the user signs with a weak algorithm.",
        ("RFC 8332",),
    ),
    "unknown-algorithm": Rule(
        (_INFO,),
        "Unknown algorithm",
        "An algorithm was negotiated that nothing is known of here.",
        ("RFC 4253 section 6.2", "RFC 4253 section 6.3", "RFC 4253 section 6.4", "RFC 8332", "RFC 9142"),
    ),
    "weak-offer": Rule(
        (_INFO,),
        "Weak offer",
        "A side offers weak algorithms. They were not negotiated unless another finding says so.",
        ("RFC 9142",),
    ),
    "ssh-1": Rule(
        (_HIGH,),
        "SSH-1",
        "Version 1 of the protocol is spoken, which is broken.",
        ("RFC 4253 section 5.1",),
    ),
    "ssh-1-offered": Rule(
        (_LOW,),
        "SSH-1 offered",
        "A side also speaks version 1 of the protocol, which is broken.",
        ("RFC 4253 section 5.1",),
    ),
    "oversize": Rule(
        (_LOW, _MEDIUM),
        "Oversize",
        "A packet or a list of names is larger than all implementations accept: it may be meant to make its receiver"
        " work. It is medium for names and lists.",
        ("RFC 4251 section 6", "RFC 4253 section 6.1"),
    ),
    "policy": Rule(
        (_HIGH,),
        "Breach of the policy",
        "The connection is not what the policy expects. The reference is the policy's key.",
        (
            "policy: kex", "policy: host_key", "policy: cipher", "policy: mac", "policy: compression",
            "policy: minimum_rsa_bits", "policy: minimum_group_bits", "policy: strict_kex",
        ),
    ),
}  # fmt: skip
"""By code. A finding's own words say what exactly was seen."""
