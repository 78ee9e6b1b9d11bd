"""Keys and algorithms that processes of one test have in common without telling each other."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sshproto.config import Preferences
from sshproto.keys.certificates import Certificate
from sshproto.keys.grants import FOREVER, CertificateKind
from sshproto.keys.private import PrivateKey

HOST = "127.0.0.1"
USER = "guest"


def key(seed: str) -> PrivateKey:
    """An ed25519 key, the same for the same seed: good for tests, and for nothing else."""
    handle = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return PrivateKey.load(handle.private_bytes(pem, form, serialization.NoEncryption()))


HOST_KEY = key("host")
USER_KEY = key("user")
AUTHORITY_KEY = key("authority")

USER_CERTIFICATE = Certificate.issue(
    AUTHORITY_KEY,
    USER_KEY.public_key,
    CertificateKind.USER,
    key_id="alice's",
    principals=["alice"],
    valid_before=FOREVER,
    entropy=lambda count, label: bytes(count),
)
"""A certificate for the user's key."""

QUICK = Preferences(kex=("curve25519-sha256",), cipher=("aes128-gcm@openssh.com",))
"""Algorithms that cost little."""
