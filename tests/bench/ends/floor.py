"""The floor: packets of the same sizes, each sealed and opened by one call of ``cryptography``, and nothing else.

There is no protocol: keys are fixed, nothing is looked at but the length and the first byte, which says what the packet
stands for.  A login is its public-key operations and packets of the sizes that SSH has in their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac, poly1305
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import CTR

from tests.bench.ends import BLOCK

LARGE = 9 + len(BLOCK)
SMALL = 40
ROOM = 512 * 1024
BATCH = 4
"""Packets in one write."""

_LENGTH = Struct(">I")


class Gcm:
    """aes128-gcm@openssh.com (RFC 5647)."""

    tag = 16

    def __init__(self) -> None:
        self._aead = AESGCM(bytes(16))
        self._count = 0

    def _nonce(self) -> bytes:
        self._count += 1
        return b"\0\0\0\0" + self._count.to_bytes(8, "big")

    def seal(self, plain: bytes | bytearray, out: memoryview) -> None:
        header = out[:4]
        _LENGTH.pack_into(out, 0, len(plain))
        self._aead.encrypt_into(self._nonce(), plain, header, out[4:])

    def length(self, header: memoryview) -> int:
        return int(_LENGTH.unpack(header)[0])

    def open(self, packet: memoryview, out: memoryview) -> None:
        self._aead.decrypt_into(self._nonce(), packet[4:], packet[:4], out)


class ChaCha:
    """chacha20-poly1305@openssh.com (OpenSSH's PROTOCOL.chacha20poly1305): two contexts that are kept."""

    tag = 16

    def __init__(self) -> None:
        self._data = Cipher(ChaCha20(bytes(32), bytes(16)), None).encryptor()
        self._lengths = Cipher(ChaCha20(bytes(31) + b"\1", bytes(16)), None).encryptor()
        self._count = 0
        self._nonce = b""

    def _next(self) -> bytes:
        """The key of Poly1305; the cipher then stands at its second block."""
        self._data.reset_nonce(self._nonce)
        return self._data.update(bytes(64))[:32]

    def _step(self) -> None:
        self._count += 1
        self._nonce = bytes(8) + self._count.to_bytes(8, "big")
        self._lengths.reset_nonce(self._nonce)

    def seal(self, plain: bytes | bytearray, out: memoryview) -> None:
        self._step()
        self._lengths.update_into(_LENGTH.pack(len(plain)), out)
        key = self._next()
        end = 4 + len(plain)
        self._data.update_into(plain, out[4:])
        out[end:] = poly1305.Poly1305.generate_tag(key, out[:end])

    def length(self, header: memoryview) -> int:
        self._step()
        return int(_LENGTH.unpack(self._lengths.update(header))[0])

    def open(self, packet: memoryview, out: memoryview) -> None:
        key = self._next()
        poly1305.Poly1305.verify_tag(key, packet[:-16], bytes(packet[-16:]))
        self._data.update_into(packet[4:-16], out)


class CtrEtm:
    """aes256-ctr with hmac-sha2-256-etm@openssh.com: a context that is kept, and a copy of one that has the key."""

    tag = 32

    def __init__(self) -> None:
        self._cipher = Cipher(AES256(bytes(32)), CTR(bytes(16))).encryptor()
        self._mac = hmac.HMAC(bytes(32), hashes.SHA256())
        self._count = 0

    def _digest(self, data: memoryview) -> Any:
        mac = self._mac.copy()
        mac.update(_LENGTH.pack(self._count))
        mac.update(data)
        self._count += 1
        return mac

    def seal(self, plain: bytes | bytearray, out: memoryview) -> None:
        end = 4 + len(plain)
        _LENGTH.pack_into(out, 0, len(plain))
        self._cipher.update_into(plain, out[4:])
        out[end:] = self._digest(out[:end]).finalize()

    def length(self, header: memoryview) -> int:
        return int(_LENGTH.unpack(header)[0])

    def open(self, packet: memoryview, out: memoryview) -> None:
        self._digest(packet[:-32]).verify(bytes(packet[-32:]))
        self._cipher.update_into(packet[4:-32], out)


CIPHERS = {"aes128-gcm": Gcm, "chacha20": ChaCha, "aes256-ctr+etm": CtrEtm}


def padded(size: int) -> int:
    """The length of a packet with so large a payload: with the byte that says how much padding it has, and that."""
    return (1 + size + 4 + 15) // 16 * 16


class Wire:
    """What both directions of a connection are sealed with.

    Attributes:
        room: Where what comes is read to; the next bytes to :meth:`space`.
    """

    def __init__(self, cipher: str) -> None:
        self._out = CIPHERS[cipher]()
        self._in = CIPHERS[cipher]()
        self.room = memoryview(bytearray(ROOM))
        self._end = 0
        self._scratch = memoryview(bytearray(padded(LARGE) + 64))
        self._need = 0
        self._plain: dict[tuple[bytes, int], bytes] = {}

    def space(self) -> memoryview:
        return self.room[self._end :]

    def packets(self, kind: bytes, size: int, count: int = 1, text: bytes = b"") -> bytearray:
        """So many packets, sealed."""
        plain = self._plain.get((kind, size))
        if plain is None:
            plain = self._plain[kind, size] = kind.ljust(padded(size), b"\0")
        if text:
            plain = (kind + text).ljust(padded(size), b"\0")
        whole = len(plain) + 4 + self._out.tag
        wire = bytearray(whole * count)
        view = memoryview(wire)
        for start in range(0, whole * count, whole):
            self._out.seal(plain, view[start : start + whole])
        return wire

    def took(self, count: int) -> Iterator[memoryview]:
        """The packets that are whole, now that so many bytes more have come, each in the clear."""
        end = self._end + count
        start, room, opener, scratch = 0, self.room, self._in, self._scratch
        while True:
            need = self._need
            if not need:
                if end - start < 4:
                    break
                length = opener.length(room[start : start + 4])
                need = self._need = 4 + length + opener.tag
            if end - start < need:
                break
            opener.open(room[start : start + need], scratch[: need - 4 - opener.tag])
            self._need = 0
            start += need
            yield scratch
        rest = end - start
        if start and rest:
            room[:rest] = room[start:end]
        self._end = rest


class Keys:
    """The public-key operations of a login, one side's of each."""

    def __init__(self) -> None:
        self._own = Ed25519PrivateKey.from_private_bytes(bytes(32))
        self._public = self._own.public_key().public_bytes_raw()
        self._signature = self._own.sign(bytes(32))
        self._peer = X25519PrivateKey.generate().public_key().public_bytes_raw()

    def agree(self) -> None:
        mine = X25519PrivateKey.generate()
        mine.public_key().public_bytes_raw()
        mine.exchange(X25519PublicKey.from_public_bytes(self._peer))

    def sign(self) -> None:
        self._own.sign(bytes(32))

    def verify(self) -> None:
        Ed25519PublicKey.from_public_bytes(self._public).verify(self._signature, bytes(32))


# What a server answers: the number of packets, and their sizes, by the first byte of what it gets.  The letters stand
# for a message each: identification and KEXINIT, key exchange, service, login; a channel and a program in it.
KEXINIT, EXCHANGE, SERVICE, LOGIN, OPEN, PROGRAM, CLOSE, FETCH, DATA, DONE = (bytes((byte,)) for byte in b"KESLOPCFDZ")
SIZES = {KEXINIT: (1000, 1), EXCHANGE: (280, 1), SERVICE: (20, 1), LOGIN: (1, 1), OPEN: (16, 1), PROGRAM: (24, 4)}


def answer(wire: Wire, keys: Keys, kind: bytes) -> bytearray | None:
    """What a server sends for a packet, after the operations of its keys; None for a client that only tells."""
    if kind not in SIZES:
        return None
    if kind == EXCHANGE:
        keys.agree()
        keys.sign()
    elif kind == LOGIN:
        keys.verify()
    return wire.packets(kind, *SIZES[kind])


def batches(wire: Wire, amount: int) -> Iterator[bytearray]:
    """Large packets for so many bytes, as many as go into one write."""
    left = amount // len(BLOCK)
    while left:
        count = min(left, BATCH)
        left -= count
        yield wire.packets(DATA, LARGE, count)
