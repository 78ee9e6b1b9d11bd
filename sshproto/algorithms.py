"""The names of all algorithms that sshproto has, by category and by standing.

``*_DEFAULT`` is offered when nothing else is said, in this order of preference.  ``*_EXTRA`` is sound but not offered
by default.  ``*_LEGACY`` is weak (RFC 9142, RFC 8758; SHA-1, CBC, MD5, groups under 2048 bits): it is here because old
devices speak nothing else, and an application gets it only by naming it::

    Preferences(kex=KEX_DEFAULT + KEX_LEGACY, cipher=CIPHER_DEFAULT + CIPHER_LEGACY)

What an algorithm *is* stands where it is done: :mod:`sshproto.transport.kex`, :mod:`sshproto.transport.suites`,
:mod:`sshproto.transport.macs`, :mod:`sshproto.transport.compression`, :mod:`sshproto.keys.signatures` and
:mod:`sshproto.keys.certificates`; a test holds those registries and these names together.
"""

from __future__ import annotations

KEX_DEFAULT: tuple[str, ...] = (
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group14-sha256",
)
KEX_EXTRA: tuple[str, ...] = (
    "mlkem768nistp256-sha256",
    "mlkem1024nistp384-sha384",
    "curve448-sha512",
    "diffie-hellman-group15-sha512",
    "diffie-hellman-group17-sha512",
)
KEX_LEGACY: tuple[str, ...] = (
    "diffie-hellman-group14-sha1",
    "diffie-hellman-group-exchange-sha1",
    "diffie-hellman-group1-sha1",
)

SIGNATURE_DEFAULT: tuple[str, ...] = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
# Experimental, and not the standard's yet: keys.composite.
SIGNATURE_EXTRA: tuple[str, ...] = ("ssh-mldsa44-ed25519@openssh.com",)
SIGNATURE_LEGACY: tuple[str, ...] = ("ssh-rsa",)

# A host's certificate is asked for where an authority is trusted to vouch for it: operations.host_keys.prefer_known.
CERTIFICATE_EXTRA: tuple[str, ...] = (
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "webauthn-sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
    "ssh-mldsa44-ed25519-cert-v01@openssh.com",
)
CERTIFICATE_LEGACY: tuple[str, ...] = ("ssh-rsa-cert-v01@openssh.com",)

# AES-GCM first: it is by far the fastest, and ChaCha20-Poly1305 is not safe with a peer without strict key exchange.
CIPHER_DEFAULT: tuple[str, ...] = (
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
CIPHER_LEGACY: tuple[str, ...] = ("aes256-cbc", "aes192-cbc", "aes128-cbc", "3des-cbc")

MAC_DEFAULT: tuple[str, ...] = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)
MAC_LEGACY: tuple[str, ...] = (
    "hmac-sha1-etm@openssh.com",
    "hmac-sha1-96-etm@openssh.com",
    "hmac-md5-etm@openssh.com",
    "hmac-sha1",
    "hmac-sha1-96",
    "hmac-md5",
)

COMPRESSION_DEFAULT: tuple[str, ...] = ("none", "zlib@openssh.com")
COMPRESSION_EXTRA: tuple[str, ...] = ("zlib",)

KNOWN: dict[str, frozenset[str]] = {
    "kex": frozenset(KEX_DEFAULT + KEX_EXTRA + KEX_LEGACY),
    "signature": frozenset(SIGNATURE_DEFAULT + SIGNATURE_EXTRA + SIGNATURE_LEGACY),
    "certificate": frozenset(CERTIFICATE_EXTRA + CERTIFICATE_LEGACY),
    "cipher": frozenset(CIPHER_DEFAULT + CIPHER_LEGACY),
    "mac": frozenset(MAC_DEFAULT + MAC_LEGACY),
    "compression": frozenset(COMPRESSION_DEFAULT + COMPRESSION_EXTRA),
}
"""Every name that is implemented, by category."""
