"""The dictionary: names that mean something to somebody who speaks SSH, and numbers at the edges."""

from __future__ import annotations

from sshproto import algorithms
from sshproto.auth.methods import FORMS
from sshproto.channels.requests import CHANNEL_REQUESTS, GLOBAL_REQUESTS, KINDS
from sshproto.transport.negotiation import PSEUDO

SERVICES = ("ssh-userauth", "ssh-connection")
EXTENSIONS = (
    "server-sig-algs",
    "delay-compression",
    "no-flow-control",
    "elevation",
    "publickey-hostbound@openssh.com",
    "ping@openssh.com",
    "ext-info-in-auth@openssh.com",
    "global-requests-ok",
)
ALGORITHMS = tuple(sorted({name for names in algorithms.KNOWN.values() for name in names} | PSEUDO))
REQUESTS = (*KINDS, *CHANNEL_REQUESTS, *GLOBAL_REQUESTS)
METHODS = tuple(FORMS)
SIGNALS = ("TERM", "KILL", "USR1", "x@example.org")

NAMES: tuple[str, ...] = (*ALGORITHMS, *REQUESTS, *METHODS, *SERVICES, *EXTENSIONS, *SIGNALS, "", "x@example.org")
"""Names of algorithms, methods, services, requests and extensions."""

NUMBERS: tuple[int, ...] = (
    *(0, 1, 2, 5, 22, 255, 256, 1000, 2048, 8192, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x40000),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF),
)
"""What a uint32 may do harm with."""

WORDS: list[bytes] = [
    *(name.encode() for name in NAMES if name),
    *(len(name).to_bytes(4, "big") + name.encode() for name in NAMES),
    *(number.to_bytes(4, "big") for number in NUMBERS),
    *(b"SSH-2.0-", b"SSH-1.99-", b"SSH-1.5-", b"\r\n", b"\n", b"\r", b"\0", b",", b" ", b"#", b"@", b":", b"[", b"]"),
    *(b"@revoked ", b"@cert-authority ", b"|1|", b"from=", b"command=", b"restrict", b'"', b"\\", b"*", b"!", b"?"),
    *(b"-----BEGIN ", b"-----END ", b"OPENSSH PRIVATE KEY-----", b"RSA PRIVATE KEY-----", b"openssh-key-v1\0"),
    *(b"SHARED_SECRET", b"PRIVATE_KEY", b"ssh://", b"none", b"localhost", b"{", b"}", b"null", b"1e400", b"\\u0000"),
]
"""The dictionary of bytes."""
