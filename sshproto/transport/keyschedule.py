"""From a shared secret to keys: the exchange hash and the key derivation (RFC 4253 sections 7.2 and 8).

Pure functions of the public transcript and the secret, so that client, server and passive observer run the same code.
``secret`` is always K *as it is hashed*: an mpint for the Diffie-Hellman families, a string for the hybrid methods.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

from sshproto.transport.suites import DirectionKeys
from sshproto.wire.table import Role

if TYPE_CHECKING:
    from _hashlib import HASH

_LENGTH = struct.Struct(">I")

_LETTERS: dict[Role, tuple[bytes, bytes, bytes]] = {Role.CLIENT: (b"A", b"C", b"E"), Role.SERVER: (b"B", b"D", b"F")}
"""IV, key and MAC key, by who sends (RFC 4253 section 7.2)."""


def derive(hash_name: str, secret: bytes, exchange_hash: bytes, session_id: bytes, letter: bytes, size: int) -> bytes:
    """One derived value (RFC 4253 section 7.2).

    Args:
        hash_name: The method's hash, as :mod:`hashlib` calls it.
        secret: K, encoded.
        exchange_hash: H of this exchange.
        session_id: H of the connection's first exchange.
        letter: One of ``b"A"`` to ``b"F"``.
        size: Bytes wanted; more than one hash gives are made by hashing on.
    """
    return _extend(hashlib.new(hash_name, secret + exchange_hash), letter + session_id, size)


def _extend(base: HASH, first: bytes, size: int) -> bytes:
    """As many bytes as are wanted, from a hash that has taken K and H."""
    if not size:
        return b""
    block = base.copy()
    block.update(first)
    output = block.digest()
    while len(output) < size:
        block = base.copy()
        block.update(output)
        output += block.digest()
    return output[:size]


def direction_keys(
    hash_name: str,
    secret: bytes,
    exchange_hash: bytes,
    session_id: bytes,
    *,
    sender: Role,
    sizes: tuple[int, int, int],
) -> DirectionKeys:
    """The keys of what ``sender`` sends.

    Args:
        hash_name, secret, exchange_hash, session_id: As for :func:`derive`.
        sender: Whose direction.
        sizes: Bytes of IV, key and MAC key.
    """
    base = hashlib.new(hash_name, secret + exchange_hash)
    iv, key, mac_key = _LETTERS[sender]
    iv_size, key_size, mac_key_size = sizes
    return DirectionKeys(
        _extend(base, iv + session_id, iv_size),
        _extend(base, key + session_id, key_size),
        _extend(base, mac_key + session_id, mac_key_size),
    )


def exchange_hash(
    hash_name: str,
    *,
    client_ident: bytes,
    server_ident: bytes,
    client_kexinit: bytes,
    server_kexinit: bytes,
    host_key: bytes,
    fields: bytes,
    secret: bytes,
) -> bytes:
    """H, which the server signs (RFC 4253 section 8).

    Args:
        hash_name: The method's hash, as :mod:`hashlib` calls it.
        client_ident, server_ident: The identification lines without CR LF.
        client_kexinit, server_kexinit: The payloads of the two KEXINITs, exactly as they were sent.
        host_key: The server's public key blob.
        fields: The method's own part, encoded: :attr:`Family.hash_fields <sshproto.transport.kex.Family>`.
        secret: K, encoded.
    """
    pack = _LENGTH.pack
    parts = (
        *(pack(len(client_ident)), client_ident, pack(len(server_ident)), server_ident),
        *(pack(len(client_kexinit)), client_kexinit, pack(len(server_kexinit)), server_kexinit),
        *(pack(len(host_key)), host_key, fields, secret),
    )
    return hashlib.new(hash_name, b"".join(parts)).digest()
