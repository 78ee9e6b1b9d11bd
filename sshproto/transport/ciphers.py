"""Packet ciphers: what turns a framed packet into bytes on the wire, and back (RFC 4253 sections 6 and 6.3).

Four ways of protecting a packet, each with an opening and a sealing half:

* AES-GCM (RFC 5647, as ``aes*-gcm@openssh.com``): the length is clear and authenticated, the nonce counts packets.
* ChaCha20-Poly1305 (OpenSSH PROTOCOL.chacha20poly1305): the length is encrypted under a key of its own, the nonce is
  the sequence number.
* Encrypt-then-MAC (OpenSSH PROTOCOL 1.5): clear length, CTR (RFC 4344) or CBC, HMAC over the ciphertext.
* Encrypt-and-MAC (RFC 4253 section 6.4): all is encrypted, HMAC over the plaintext.

Invariants: the first three touch no ciphertext before its tag was verified; the fourth has to decrypt first, and hands
nothing out but the length.  Plaintext whose tag was wrong is wiped.  Tags are compared in constant time.

This is the hot path.  Contexts live as long as their keys, nothing is allocated that need not be.  Small packets go
through ``bytes``, where creating views would cost more than copying; large ones are decrypted into a scratch buffer,
and encrypted in place in the packet that leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count, repeat
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.poly1305 import Poly1305

from sshproto.errors import InvalidArgument, MacError
from sshproto.transport.macs import Mac, MacSpec, Unchecked
from sshproto.transport.suites import CipherSpec, DirectionKeys, specs
from sshproto.wire.codec import Buffer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

    from sshproto.transport.halves import Aead, Opening, Sealing, View

_LENGTH = Struct(">I")
pack_length = _LENGTH.pack
unpack_length = _LENGTH.unpack_from
_pack_nonce = Struct(">QQ").pack  # ChaCha20: block counter (little-endian, always 0 here), sequence number
_GCM_NONCE = Struct(">4sQ")  # the fixed part, the packet counter
_pack_gcm_nonce = _GCM_NONCE.pack  # bound once: all connections share it

BYTE = [bytes((value,)) for value in range(256)]
"""Each byte by its value."""

SMALL_OPEN = 1024
"""Up to this packet_length a packet is decrypted to new ``bytes``."""

PLAIN_ALIGNMENT = 8
"""What a packet's size is a multiple of while there is no cipher (RFC 4253 section 6)."""

SMALL_SEAL = 8192
"""Up to this packet_length a packet is sealed by joining ``bytes``."""


# ----------------------------------------------------------------------------------------------------------- the halves


def bad_tag(protection: str, sequence: int) -> MacError:
    """The error for a packet whose tag is wrong."""
    return MacError(f"the packet with sequence number {sequence} fails its integrity check ({protection})")


_NO_ROOM = memoryview(b"")


class _Opening:
    """What the opening halves have in common: the attributes of :class:`~sshproto.transport.halves.Opening`, as most
    have them, and a buffer for decrypted packets that grows on demand and is overwritten by each."""

    __slots__ = ("_scratch",)

    clear: bool = True
    prefix: int = 4
    counted: int = 0
    conceals: bool = False
    name: str = ""

    def __init__(self) -> None:
        self._scratch = _NO_ROOM

    @property
    def aead(self) -> Aead | None:
        return None

    def _grow(self, size: int) -> memoryview:
        self._scratch = memoryview(bytearray(-(-size // 4096) * 4096))
        return self._scratch

    def length(self, view: View, offset: int, sequence: int) -> int:
        raise NotImplementedError  # the length is clear

    def doom(self) -> None:
        raise NotImplementedError  # a bad length may be refused openly


# --------------------------------------------------------------------------------------------- before the first NEWKEYS


class PlainOpening(_Opening):
    """No protection: the first key exchange.

    Args:
        alignment: See :class:`~sshproto.transport.halves.Opening`.
    """

    __slots__ = ("alignment",)

    overhead: int = 4
    counted: int = 4

    def __init__(self, alignment: int = PLAIN_ALIGNMENT) -> None:
        super().__init__()
        self.alignment = alignment

    def open(self, view: View, offset: int, length: int, sequence: int) -> bytes:
        return bytes(view[offset + 4 : offset + 4 + length])


class PlainSealing:
    """No protection: the first key exchange."""

    __slots__ = ()

    alignment: int = PLAIN_ALIGNMENT
    counted: int = 4
    aead: Aead | None = None

    def seal(self, length: int, head: bytes, body: Buffer, padding: bytes, sequence: int) -> bytes:
        return b"".join((pack_length(length), BYTE[len(padding)], head, body, padding))


# -------------------------------------------------------------------------------------------------------------- AES-GCM

GCM_BLOCK = 16
GCM_OVERHEAD = 20
"""Bytes of a packet beyond packet_length: the length itself and the tag."""

_GCM_TAG = 16
_GCM_TAG_ROOM = bytes(_GCM_TAG)
_NEAR_WRAPPING = 2**64 - 2**48  # no key sees so many packets that a counter from below would reach its end


def _gcm_nonces(iv: bytes) -> Iterator[bytes]:
    """The nonces in order: 4 fixed bytes and a packet counter of 8, which wraps (RFC 5647 section 7.1)."""
    fixed, first = _GCM_NONCE.unpack(iv)
    counter: Iterator[int] = count(first)
    if first > _NEAR_WRAPPING:
        counter = chain(range(first, 1 << 64), count())
    return map(_pack_gcm_nonce, repeat(fixed), counter)


class GcmOpening(_Opening):
    """AES-GCM. The nonce counts packets."""

    __slots__ = ("_key", "_nonces", "name")

    alignment: int = GCM_BLOCK
    overhead: int = GCM_OVERHEAD

    def __init__(self, spec: CipherSpec, keys: DirectionKeys) -> None:
        self._scratch = _NO_ROOM
        self._key = AESGCM(keys.key)
        self._nonces = _gcm_nonces(keys.iv)
        self.name = spec.name

    @property
    def aead(self) -> Aead:
        return self._nonces, self._key.decrypt

    def open(self, view: View, offset: int, length: int, sequence: int) -> memoryview | bytes:
        nonce = next(self._nonces)
        clear = view[offset : offset + 4]
        sealed = view[offset + 4 : offset + GCM_OVERHEAD + length]
        try:
            if length <= SMALL_OPEN:
                return self._key.decrypt(nonce, sealed, clear)
            scratch = self._scratch
            if len(scratch) < length:
                scratch = self._grow(length)
            self._key.decrypt_into(nonce, sealed, clear, scratch[:length])
        except InvalidTag:
            if length > SMALL_OPEN:  # decrypt_into leaves what it decrypted in the buffer
                self._scratch[:] = bytes(len(self._scratch))
            raise bad_tag(self.name, sequence) from None
        return scratch


class GcmSealing:
    """AES-GCM, see :class:`GcmOpening`."""

    __slots__ = ("_key", "_nonces")

    alignment: int = GCM_BLOCK
    counted: int = 0

    def __init__(self, spec: CipherSpec, keys: DirectionKeys) -> None:
        self._key = AESGCM(keys.key)
        self._nonces = _gcm_nonces(keys.iv)

    @property
    def aead(self) -> Aead:
        return self._nonces, self._key.encrypt

    def seal(self, length: int, head: bytes, body: Buffer, padding: bytes, sequence: int) -> bytes | bytearray:
        nonce = next(self._nonces)
        clear = pack_length(length)
        if length <= SMALL_SEAL:
            return clear + self._key.encrypt(nonce, b"".join((BYTE[len(padding)], head, body, padding)), clear)
        packet = bytearray().join((clear, BYTE[len(padding)], head, body, padding, _GCM_TAG_ROOM))
        view = memoryview(packet)[4:]
        self._key.encrypt_into(nonce, view[:-_GCM_TAG], clear, view)
        return packet


# ---------------------------------------------------------------------------------------------------- ChaCha20-Poly1305

_POLY_TAG = 16
_POLY_TAG_ROOM = bytes(_POLY_TAG)
_BLOCK_ZERO = bytes(64)
_CHACHA_BLOCK = 8


def _chacha20(key: bytes) -> CipherContext:
    """A kept context; each use starts with ``reset_nonce``. Encryption and decryption are the same."""
    return Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()


class ChaChaOpening(_Opening):
    """chacha20-poly1305@openssh.com.

    The first half of the key is K_2, for the packet; the second is K_1, for its length. The first 32 bytes of K_2's
    block 0 are the packet's Poly1305 key. Taking the whole block leaves the context at block 1, where the packet's
    own key stream begins, so that one reset serves both.
    """

    __slots__ = ("_length", "_packet", "name")

    clear: bool = False
    alignment: int = _CHACHA_BLOCK
    overhead: int = 4 + _POLY_TAG

    def __init__(self, spec: CipherSpec, keys: DirectionKeys) -> None:
        super().__init__()
        self._packet = _chacha20(keys.key[:32])
        self._length = _chacha20(keys.key[32:])
        self.name = spec.name

    def length(self, view: View, offset: int, sequence: int) -> int:
        context = self._length
        context.reset_nonce(_pack_nonce(0, sequence))
        length: int = unpack_length(context.update(view[offset : offset + 4]))[0]
        return length

    def open(self, view: View, offset: int, length: int, sequence: int) -> memoryview | bytes:
        context = self._packet
        context.reset_nonce(_pack_nonce(0, sequence))
        key = context.update(_BLOCK_ZERO)[:32]
        end = offset + 4 + length
        try:
            Poly1305.verify_tag(key, view[offset:end], bytes(view[end : end + _POLY_TAG]))
        except InvalidSignature:
            del key  # a traceback keeps the variables of its frames
            raise bad_tag(self.name, sequence) from None
        if length <= SMALL_OPEN:
            return context.update(view[offset + 4 : end])
        scratch = self._scratch
        if len(scratch) < length:
            scratch = self._grow(length)
        context.update_into(view[offset + 4 : end], scratch)
        return scratch


class ChaChaSealing:
    """chacha20-poly1305@openssh.com, see :class:`ChaChaOpening`."""

    __slots__ = ("_length", "_packet")

    alignment: int = _CHACHA_BLOCK
    counted: int = 0
    aead: Aead | None = None

    def __init__(self, spec: CipherSpec, keys: DirectionKeys) -> None:
        self._packet = _chacha20(keys.key[:32])
        self._length = _chacha20(keys.key[32:])

    def seal(self, length: int, head: bytes, body: Buffer, padding: bytes, sequence: int) -> bytes | bytearray:
        nonce = _pack_nonce(0, sequence)
        context = self._length
        context.reset_nonce(nonce)
        concealed = context.update(pack_length(length))
        context = self._packet
        context.reset_nonce(nonce)
        key = context.update(_BLOCK_ZERO)[:32]
        if length <= SMALL_SEAL:
            sealed = concealed + context.update(b"".join((BYTE[len(padding)], head, body, padding)))
            return sealed + Poly1305.generate_tag(key, sealed)
        packet = bytearray().join((concealed, BYTE[len(padding)], head, body, padding, _POLY_TAG_ROOM))
        view = memoryview(packet)
        inner = view[4:-_POLY_TAG]
        context.update_into(inner, inner)
        view[-_POLY_TAG:] = Poly1305.generate_tag(key, view[:-_POLY_TAG])
        return packet


# ---------------------------------------------------------------------------------------------------------- CTR and CBC


class _Context(Protocol):
    """What is used of a cipher's context."""

    def update(self, data: Buffer, /) -> bytes: ...

    def update_into(self, data: Buffer, buf: Buffer, /) -> int: ...


class _Clear:
    """The context of the cipher "none"."""

    def update(self, data: Buffer) -> bytes:
        return bytes(data)

    def update_into(self, data: Buffer, buf: Buffer) -> int:
        memoryview(buf)[: len(data)] = data
        return len(data)


_RC4_SKIPPED = 1536  # bytes of key stream that arcfour128 and arcfour256 leave out (RFC 4345 section 4)


def _block_cipher(spec: CipherSpec, keys: DirectionKeys) -> Cipher[modes.CTR] | Cipher[modes.CBC]:
    if spec.mode == "ctr":
        return Cipher(algorithms.AES(keys.key), modes.CTR(keys.iv))
    if spec.name.startswith(("aes", "rijndael")):
        return Cipher(algorithms.AES(keys.key), modes.CBC(keys.iv))
    from cryptography.hazmat.decrepit.ciphers import algorithms as decrepit

    name = {"3des": "TripleDES", "cast128": "CAST5", "blowfish": "Blowfish", "idea": "IDEA", "seed": "SEED"}
    kind: type[Any] = getattr(decrepit, name.get(spec.name.partition("-")[0], "Camellia"))
    return Cipher(kind(keys.key), modes.CBC(keys.iv))


def _decryptor(spec: CipherSpec, keys: DirectionKeys) -> _Context:
    if spec.mode == "none":
        return _Clear()
    if spec.mode == "rc4":
        from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4

        context = Cipher(ARC4(keys.key), None).decryptor()
        context.update(bytes(0 if spec.name == "arcfour" else _RC4_SKIPPED))
        return context
    return _block_cipher(spec, keys).decryptor()


class _BlockOpening(_Opening):
    """What CTR and CBC have in common, whichever way they are authenticated."""

    __slots__ = (
        "_context",
        "_mac",
        "_slack",
        "alignment",
        "clear",
        "conceals",
        "counted",
        "name",
        "overhead",
        "prefix",
    )

    def __init__(self, spec: CipherSpec, mac_spec: MacSpec, keys: DirectionKeys, *, passive: bool = False) -> None:
        super().__init__()
        self.alignment = spec.block_size
        self.overhead = 4 + mac_spec.tag_size
        self.clear = mac_spec.etm
        self.prefix = spec.block_size if spec.mode == "cbc" and not mac_spec.etm else 4
        self.counted = 0 if mac_spec.etm else 4
        # Who merely watches answers nobody, and so conceals nothing.
        self.conceals = not mac_spec.etm and not passive
        self._context = _decryptor(spec, keys)
        unchecked = passive and not (mac_spec.hash and keys.mac_key)
        self._mac = Unchecked(mac_spec) if unchecked else Mac(mac_spec, keys.mac_key)
        self.name = f"{spec.name} with {mac_spec.name}"
        # update_into wants this much more room than it fills.
        self._slack = spec.block_size - 1 if spec.mode == "cbc" else 0


class EtmOpening(_BlockOpening):
    """Encrypt-then-MAC: clear length, tag over length and ciphertext, verified before anything is decrypted."""

    __slots__ = ()

    def open(self, view: View, offset: int, length: int, sequence: int) -> memoryview | bytes:
        end = offset + 4 + length
        if not self._mac.verify(sequence, view[offset:end], view[end : offset + self.overhead + length]):
            raise bad_tag(self.name, sequence)
        if length <= SMALL_OPEN:
            return self._context.update(view[offset + 4 : end])
        scratch = self._scratch
        if len(scratch) < length + self._slack:
            scratch = self._grow(length + self._slack)
        self._context.update_into(view[offset + 4 : end], scratch)
        return scratch


class EncryptAndMacOpening(_BlockOpening):
    """Encrypt-and-MAC: all is encrypted, tag over the plaintext.

    The length is used before it is authenticated; there is no other way. What an attacker could learn from that is
    kept small: a bad length is answered as a bad tag is, after as many bytes as a packet may have.
    """

    __slots__ = ("_doomed", "_first")

    def __init__(self, spec: CipherSpec, mac_spec: MacSpec, keys: DirectionKeys, *, passive: bool = False) -> None:
        super().__init__(spec, mac_spec, keys, passive=passive)
        self._first = b""
        self._doomed = False

    def length(self, view: View, offset: int, sequence: int) -> int:
        first = self._first = self._context.update(view[offset : offset + self.prefix])
        length: int = unpack_length(first)[0]
        return length

    def doom(self) -> None:
        self._doomed = True

    def open(self, view: View, offset: int, length: int, sequence: int) -> memoryview | bytes:
        first = self._first
        prefix = len(first)
        size = 4 + length
        end = offset + size
        if length <= SMALL_OPEN:
            plain = first + self._context.update(view[offset + prefix : end])
            sound = self._mac.verify(sequence, plain, view[end : offset + self.overhead + length])
            if not sound or self._doomed:
                self._first = first = plain = b""  # a traceback keeps the variables of its frames
                raise bad_tag(self.name, sequence)
            return plain[4:]
        scratch = self._scratch
        if len(scratch) < size + self._slack:
            scratch = self._grow(size + self._slack)
        scratch[:prefix] = first
        self._context.update_into(view[offset + prefix : end], scratch[prefix:])
        sound = self._mac.verify(sequence, scratch[:size], view[end : offset + self.overhead + length])
        if not sound or self._doomed:
            scratch[:] = bytes(len(scratch))
            self._first = first = b""
            raise bad_tag(self.name, sequence)
        return scratch[4:]


class _BlockSealing:
    __slots__ = ("_context", "_mac", "_stream", "_tag_room", "alignment", "counted")

    aead: Aead | None = None

    def __init__(self, spec: CipherSpec, mac_spec: MacSpec, keys: DirectionKeys) -> None:
        self._context = _block_cipher(spec, keys).encryptor()
        self._mac = Mac(mac_spec, keys.mac_key)
        self._stream = spec.mode == "ctr"
        self._tag_room = bytes(mac_spec.tag_size)
        self.alignment = spec.block_size
        self.counted = 0


class EtmSealing(_BlockSealing):
    """Encrypt-then-MAC, see :class:`EtmOpening`."""

    __slots__ = ()

    def seal(self, length: int, head: bytes, body: Buffer, padding: bytes, sequence: int) -> bytes | bytearray:
        clear = pack_length(length)
        if length <= SMALL_SEAL or not self._stream:
            sealed = clear + self._context.update(b"".join((BYTE[len(padding)], head, body, padding)))
            return sealed + self._mac.tag(sequence, sealed)
        packet = bytearray().join((clear, BYTE[len(padding)], head, body, padding, self._tag_room))
        view = memoryview(packet)
        end = 4 + length
        inner = view[4:end]
        self._context.update_into(inner, inner)
        view[end:] = self._mac.tag(sequence, view[:end])
        return packet


class EncryptAndMacSealing(_BlockSealing):
    """Encrypt-and-MAC, see :class:`EncryptAndMacOpening`."""

    __slots__ = ()

    def __init__(self, spec: CipherSpec, mac_spec: MacSpec, keys: DirectionKeys) -> None:
        super().__init__(spec, mac_spec, keys)
        self.counted = 4

    def seal(self, length: int, head: bytes, body: Buffer, padding: bytes, sequence: int) -> bytes | bytearray:
        if length <= SMALL_SEAL or not self._stream:
            plain = b"".join((pack_length(length), BYTE[len(padding)], head, body, padding))
            return self._context.update(plain) + self._mac.tag(sequence, plain)
        packet = bytearray().join((pack_length(length), BYTE[len(padding)], head, body, padding, self._tag_room))
        view = memoryview(packet)
        inner = view[: 4 + length]
        view[4 + length :] = self._mac.tag(sequence, inner)
        self._context.update_into(inner, inner)
        return packet


# ------------------------------------------------------------------------------------------------------------ factories


def _check_keys(spec: CipherSpec, keys: DirectionKeys) -> None:
    if len(keys.iv) != spec.iv_size or len(keys.key) != spec.key_size:
        raise InvalidArgument(
            f"{spec.name} needs an initialization vector of {spec.iv_size} bytes and a key of {spec.key_size}, "
            f"not {len(keys.iv)} and {len(keys.key)}"
        )


def opening(cipher: str, mac: str | None, keys: DirectionKeys, *, passive: bool = False) -> Opening:
    """The receiving half of a cipher and a MAC.

    Args:
        cipher, mac, passive: See :func:`key_sizes`.
        keys: The key material. If ``passive``, the MAC key may be ``b""``: then tags are not verified.

    Raises:
        InvalidArgument: A name is unknown, a MAC is missing, or keys have the wrong size.
    """
    spec, mac_spec = specs(cipher, mac, passive=passive)
    _check_keys(spec, keys)
    if mac_spec is None:
        return GcmOpening(spec, keys) if spec.mode == "gcm" else ChaChaOpening(spec, keys)
    kind = EtmOpening if mac_spec.etm else EncryptAndMacOpening
    return kind(spec, mac_spec, keys, passive=passive)


def sealing(cipher: str, mac: str | None, keys: DirectionKeys) -> Sealing:
    """The sending half, as :func:`opening`."""
    spec, mac_spec = specs(cipher, mac)
    _check_keys(spec, keys)
    if mac_spec is None:
        return GcmSealing(spec, keys) if spec.mode == "gcm" else ChaChaSealing(spec, keys)
    return EtmSealing(spec, mac_spec, keys) if mac_spec.etm else EncryptAndMacSealing(spec, mac_spec, keys)
