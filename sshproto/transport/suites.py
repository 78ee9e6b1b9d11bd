"""The packet ciphers by name, and what key material they take (RFC 4253 sections 6.3 and 7.2).

What they do with it is in :mod:`sshproto.transport.ciphers`.
"""

from __future__ import annotations

from functools import lru_cache

import attrs

from sshproto.errors import InvalidArgument
from sshproto.transport.macs import MACS, OBSERVED_MACS, MacSpec
from sshproto.values import frozen


@frozen
class CipherSpec:
    """A cipher.

    Attributes:
        name: Its name on the wire.
        mode: ``"gcm"``, ``"chacha20"``, ``"ctr"`` or ``"cbc"``; of :data:`OBSERVED_CIPHERS` also ``"rc4"`` and
            ``"none"``.
        key_size: Bytes of key to derive.
        iv_size: Bytes of initialization vector to derive.
        block_size: What packet lengths are aligned to: the cipher's block, at least 8.
        aead: It authenticates by itself; the negotiated MAC is void.
    """

    name: str
    mode: str
    key_size: int
    iv_size: int
    block_size: int
    aead: bool


CIPHERS: dict[str, CipherSpec] = {
    spec.name: spec
    for spec in (
        CipherSpec("chacha20-poly1305@openssh.com", "chacha20", 64, 0, 8, aead=True),
        CipherSpec("aes256-gcm@openssh.com", "gcm", 32, 12, 16, aead=True),
        CipherSpec("aes128-gcm@openssh.com", "gcm", 16, 12, 16, aead=True),
        CipherSpec("aes256-ctr", "ctr", 32, 16, 16, aead=False),
        CipherSpec("aes192-ctr", "ctr", 24, 16, 16, aead=False),
        CipherSpec("aes128-ctr", "ctr", 16, 16, 16, aead=False),
        CipherSpec("aes256-cbc", "cbc", 32, 16, 16, aead=False),
        CipherSpec("aes192-cbc", "cbc", 24, 16, 16, aead=False),
        CipherSpec("aes128-cbc", "cbc", 16, 16, 16, aead=False),
        CipherSpec("3des-cbc", "cbc", 24, 8, 8, aead=False),
    )
}
"""Every cipher by its name."""

OBSERVED_CIPHERS: dict[str, CipherSpec] = {
    spec.name: spec
    for spec in (
        CipherSpec("AEAD_AES_256_GCM", "gcm", 32, 12, 16, aead=True),
        CipherSpec("AEAD_AES_128_GCM", "gcm", 16, 12, 16, aead=True),
        CipherSpec("rijndael-cbc@lysator.liu.se", "cbc", 32, 16, 16, aead=False),
        CipherSpec("blowfish-cbc", "cbc", 16, 8, 8, aead=False),
        CipherSpec("cast128-cbc", "cbc", 16, 8, 8, aead=False),
        CipherSpec("idea-cbc", "cbc", 16, 8, 8, aead=False),
        CipherSpec("seed-cbc@ssh.com", "cbc", 16, 16, 16, aead=False),
        CipherSpec("camellia256-cbc", "cbc", 32, 16, 16, aead=False),
        CipherSpec("camellia192-cbc", "cbc", 24, 16, 16, aead=False),
        CipherSpec("camellia128-cbc", "cbc", 16, 16, 16, aead=False),
        CipherSpec("arcfour256", "rc4", 32, 0, 8, aead=False),
        CipherSpec("arcfour128", "rc4", 16, 0, 8, aead=False),
        CipherSpec("arcfour", "rc4", 16, 0, 8, aead=False),
        CipherSpec("none", "none", 0, 0, 8, aead=False),
    )
}
"""Ciphers that nobody can negotiate here, for who merely watches (RFC 4253 section 6.3, RFC 4345, RFC 5647)."""


@frozen
class DirectionKeys:
    """The key material of one direction (RFC 4253 section 7.2). It is secret, and not in the ``repr``."""

    iv: bytes = attrs.field(repr=False)
    key: bytes = attrs.field(repr=False)
    mac_key: bytes = attrs.field(repr=False)


@lru_cache(256)  # who asks names what was negotiated; what there is not is not remembered
def specs(cipher: str, mac: str | None, *, passive: bool = False) -> tuple[CipherSpec, MacSpec | None]:
    """A cipher, and the MAC that goes with it; arguments and errors are those of :func:`key_sizes`."""
    cipher_spec = CIPHERS.get(cipher) or (OBSERVED_CIPHERS.get(cipher) if passive else None)
    if cipher_spec is None:
        raise InvalidArgument(f"no such cipher: {cipher!r}; there are {', '.join(CIPHERS)}")
    if cipher_spec.aead:
        return cipher_spec, None
    if mac is None:
        raise InvalidArgument(f"{cipher} needs a MAC")
    mac_spec = MACS.get(mac) or (OBSERVED_MACS.get(mac) if passive else None)
    if mac_spec is None:
        raise InvalidArgument(f"no such MAC: {mac!r}; there are {', '.join(MACS)}")
    return cipher_spec, mac_spec


@lru_cache(256)
def key_sizes(cipher: str, mac: str | None, *, passive: bool = False) -> tuple[int, int, int]:
    """The bytes to derive for one direction: initialization vector, key, MAC key.

    Args:
        cipher: A name of :data:`CIPHERS`.
        mac: A name of :data:`~sshproto.transport.macs.MACS`; not looked at if the cipher brings its own.
        passive: Names of :data:`OBSERVED_CIPHERS` and :data:`~sshproto.transport.macs.OBSERVED_MACS` will do as well.

    Raises:
        InvalidArgument: A name is unknown, or the cipher needs a MAC and there is none.
    """
    cipher_spec, mac_spec = specs(cipher, mac, passive=passive)
    return cipher_spec.iv_size, cipher_spec.key_size, mac_spec.key_size if mac_spec else 0


def verifies(cipher: str, mac: str | None, keys: DirectionKeys) -> bool:
    """Whether a passive :func:`opening` with these verifies tags. Arguments and errors are as there."""
    _, mac_spec = specs(cipher, mac, passive=True)
    return mac_spec is None or bool(mac_spec.hash and keys.mac_key)
