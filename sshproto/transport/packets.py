"""The binary packet protocol (RFC 4253 section 6): one object for each direction of traffic.

An :class:`Opener` turns bytes into payloads (framing, decryption, MAC, sequence number, inflation), a :class:`Sealer`
payloads into bytes.  A live connection has one of each; a passive observer has two openers.  Neither knows messages:
who switches keys, and when, is the key exchange's business.

Invariants:

* A length is checked as soon as its bytes are there, before anything is waited for.
* No byte of a payload is handed out before the tag of its packet was verified.
* After an error an opener is dead: it keeps raising that error, and keeps no input.
* Feeding costs by the bytes fed, however they are cut; nothing is ever sliced off the front of the input.

How input is kept: packets are read from one view at an offset.  ``bytes`` that come when nothing is left over are not
even copied, and let go when they are read.  Where a packet straddles two feeds, only that packet is put together, in a
store, and reading goes on in the second feed; all else falls back to appending to the store.

A short message is dearer by what surrounds its encryption than by that, so what nearly all of them are, a whole packet
under AES-GCM and not compressed, is opened and sealed right here; :mod:`sshproto.transport.ciphers` does all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from cryptography.exceptions import InvalidTag

from sshproto.config import Entropy
from sshproto.errors import ConnectionLoss, ProtocolViolation
from sshproto.transport.ciphers import (
    BYTE,
    GCM_BLOCK,
    GCM_OVERHEAD,
    SMALL_OPEN,
    SMALL_SEAL,
    PlainOpening,
    PlainSealing,
    bad_tag,
    opening,
    pack_length,
    sealing,
    unpack_length,
)
from sshproto.transport.compression import Deflater, Inflater, deflater, inflater
from sshproto.transport.suites import DirectionKeys
from sshproto.wire.codec import Buffer

if TYPE_CHECKING:
    from sshproto.transport.halves import Crypt, Opening, Sealing, View

_MASK32 = 0xFFFFFFFF

_CONCEALING = 128
"""What the size of a packet is rounded up to where it must not tell a password's length; a multiple of every block."""

_PADDING_POOL = 448
"""Bytes of padding drawn at a time. Padding is no secret that would have to be fresh: it only has to be unguessable
for who does not see it, so a pool is fine even if a process forks (whose two halves can't share a connection)."""

_GCM_LEAST = GCM_OVERHEAD + GCM_BLOCK
"""The size of the smallest packet under AES-GCM."""

_GCM_SHORT = frozenset(range(GCM_BLOCK, SMALL_OPEN + 1, GCM_BLOCK))
"""What packet_length is in a packet under AES-GCM that is opened the short way."""

LEAST = 16
"""The size of the smallest packet, whatever protects it (RFC 4253 section 6)."""

_NO_AEAD: tuple[Iterator[bytes], None] = (iter(()), None)
"""What stands for an :data:`~sshproto.transport.halves.Aead` where packets go the long way."""

_SMALL_FEED = 4096
"""Up to this size input is read as it is: to copy what is cut out of it costs less than to view it."""


class _Dead(PlainOpening):
    """What is left of an opener after an error."""

    __slots__ = ("_error",)

    clear: bool = False
    prefix: int = 0

    def __init__(self, error: ConnectionLoss) -> None:
        super().__init__()
        self._error = error

    def length(self, view: View, offset: int, sequence: int) -> NoReturn:
        raise self._error


_NOTHING = memoryview(b"")


class _Numbered:
    """Packets of one direction, which are numbered through (RFC 4253 section 6.4)."""

    __slots__ = ("_first", "packets")

    def __init__(self) -> None:
        self.packets = 0
        self._first = 0  # the sequence number of the first packet under the current keys

    @property
    def sequence_number(self) -> int:
        """That of the next packet; it wraps at 2**32."""
        return (self._first + self.packets) & _MASK32

    @sequence_number.setter
    def sequence_number(self, number: int) -> None:
        self._first = number - self.packets


class Opener(_Numbered):
    """One direction of traffic, from bytes to payloads.

    Args:
        packet_limit: See the attribute.
        passive: Take packets in clear whatever their size is a multiple of; for who merely watches.

    Attributes:
        fed: Bytes that were ever fed.
        buffered: Those that were not opened yet.
        packets: Packets opened under the current keys.
    """

    __slots__ = (
        "_before",
        "_cipher",
        "_dead",
        "_decrypt",
        "_inflater",
        "_length",
        "_next",
        "_next_offset",
        "_nonces",
        "_offset",
        "_packet_limit",
        "_store",
        "_view",
        "buffered",
        "fed",
    )

    _nonces: Iterator[bytes]
    _decrypt: Crypt | None

    def __init__(self, *, packet_limit: int, passive: bool = False) -> None:
        self._packet_limit = packet_limit
        self.fed = 0
        self._before = 0  # of these, what came before the current keys, or was dropped
        self.buffered = 0
        super().__init__()
        self._inflater: Inflater | None = None
        self._use(PlainOpening(1) if passive else PlainOpening())
        self._dead = False
        self._store = bytearray()  # empty, unless _view is of it
        self._view: View = _NOTHING  # of _store, or of bytes that were fed, or these themselves
        self._offset = 0  # where in _view the next packet starts
        self._length = 0  # packet_length of the packet at _offset; 0: not known yet
        # Input that follows _view. While there is some, _view holds exactly one packet, and all of it.
        self._next: bytes | None = None
        self._next_offset = 0

    def _use(self, cipher: Opening) -> None:
        self._cipher = cipher
        self._shorten()

    def _shorten(self) -> None:
        """See whether small packets can take the short way."""
        plain = self._inflater is None and self._packet_limit >= SMALL_OPEN
        self._nonces, self._decrypt = (plain and self._cipher.aead) or _NO_AEAD

    @property
    def packet_limit(self) -> int:
        """The largest packet_length accepted from now on, in bytes, and the largest inflated payload."""
        return self._packet_limit

    @packet_limit.setter
    def packet_limit(self, limit: int) -> None:
        before = self._packet_limit
        self._packet_limit = limit
        if min(before, limit) < SMALL_OPEN:
            self._shorten()

    @property
    def served(self) -> int:
        """Bytes opened under the current keys, as they were on the wire."""
        return self.fed - self.buffered - self._before

    def feed(self, data: Buffer) -> None:
        """Take bytes from the wire. A ``bytes`` object is kept until it is read, anything else is copied."""
        if self._dead or not data:
            return
        size = len(data)
        self.fed += size
        if type(data) is bytes:
            if not self.buffered:
                self._view = data if size <= _SMALL_FEED else memoryview(data)
                self.buffered = size
                return
            length = self._length
            if length and self._next is None:
                missing = length + self._cipher.overhead - self.buffered
                if 0 < missing < size:
                    self._append(memoryview(data)[:missing])
                    self._next = data
                    self._next_offset = missing
                    self.buffered += size
                    return
        self._gather()
        self._append(data)
        self.buffered += size

    def _append(self, data: Buffer) -> None:
        """Put what is unread and ``data`` together in the store."""
        store = self._store
        view = self._view
        offset = self._offset
        if store and isinstance(view, memoryview):
            view.release()
            if offset:
                del store[:offset]  # moves a pointer, not the bytes
        else:
            store += view[offset:]
        store += data
        self._view = memoryview(store)
        self._offset = 0

    def _gather(self) -> None:
        """Make the input one piece again."""
        if self._next is not None:
            rest = memoryview(self._next)[self._next_offset :]
            self._next = None
            self._append(rest)

    def next_packet(self) -> memoryview | bytes | None:
        """Open one packet.

        Returns:
            Its payload, at least one byte, valid only until the next call of any method; None if more input is needed.

        Raises:
            ProtocolViolation: Length, alignment or padding is wrong.
            MacError: The integrity check failed.
            CompressionError: The payload does not inflate.
        """
        view = self._view
        offset = self._offset
        available = self.buffered  # some of it may be in _next, but then there is a whole packet before it
        decrypt = self._decrypt
        length = 0  # it was not read yet
        plain: memoryview | bytes
        try:
            if (
                decrypt is not None
                and available >= _GCM_LEAST
                and (size := (length := unpack_length(view, offset)[0]) + GCM_OVERHEAD) <= available
                and length in _GCM_SHORT
            ):  # a whole packet, and a short one
                sealed = offset + 4
                try:
                    plain = decrypt(next(self._nonces), view[sealed : offset + size], view[offset:sealed])
                except InvalidTag:
                    raise bad_tag(self._cipher.name, self.sequence_number) from None
            else:  # all that is not so plain, errors among it
                cipher = self._cipher
                sequence = (self._first + self.packets) & _MASK32
                if self._length:
                    length = self._length
                else:
                    if not length:
                        if available < cipher.prefix:
                            return None
                        clear = cipher.clear
                        length = unpack_length(view, offset)[0] if clear else cipher.length(view, offset, sequence)
                    if not 5 <= length <= self._packet_limit or (length + cipher.counted) % cipher.alignment:
                        length = self._refuse(length)
                size = length + cipher.overhead
                if available < size:
                    self._length = length
                    return None
                plain = cipher.open(view, offset, length, sequence)
            padding = plain[0]
            end = length - padding
            if padding < 4 or end < 2:
                raise ProtocolViolation(
                    f"packet {self.sequence_number}: a padding_length of {padding} in a packet_length of {length}; "
                    "it is at least 4 and leaves at least one byte of payload (RFC 4253 section 6)"
                )
            payload: memoryview | bytes = plain[1:end]
            if decrypt is None and self._inflater is not None:
                payload = self._inflater.inflate(payload, self._packet_limit)
        except ConnectionLoss as error:
            plain = payload = b""  # a traceback keeps the variables of its frames
            self._die(error)
            raise
        self.packets += 1
        self.buffered = left = available - size
        if self._store:
            self._move_on(size, left)
        elif left:  # nothing is put together, so no length was read ahead either
            self._offset = offset + size
        else:
            self._view = _NOTHING
            self._offset = 0
        return payload

    def _move_on(self, size: int, left: int) -> None:
        """A packet of so many bytes was read from what had been put together, and so many are left."""
        self._length = 0
        if left and self._next is None:
            self._offset += size
            return
        # Nothing is kept of what was read: a connection that falls silent need not hold on to its last input.
        if isinstance(self._view, memoryview):
            self._view.release()
        self._store.clear()
        self._view = _NOTHING
        self._offset = 0
        if self._next is not None:
            self._view = memoryview(self._next)
            self._offset = self._next_offset
            self._next = None

    def _refuse(self, length: int) -> int:
        """What to do about a bad packet_length: an error, or a length to wait for before there is one."""
        cipher = self._cipher
        if cipher.conceals:
            cipher.doom()
            longest = self._packet_limit - (self._packet_limit + cipher.counted) % cipher.alignment
            return max(longest, 2 * cipher.alignment - cipher.counted)
        sequence = self.sequence_number
        if length < 5:
            raise ProtocolViolation(
                f"packet {sequence}: a packet_length of {length}; "
                "padding_length and padding alone take 5 (RFC 4253 section 6)"
            )
        if length > self._packet_limit:
            raise ProtocolViolation(
                f"packet {sequence}: a packet_length of {length}; at most {self._packet_limit} is accepted now"
            )
        raise ProtocolViolation(
            f"packet {sequence}: a packet_length of {length}; with the {cipher.counted} bytes of the length that count "
            f"it is no multiple of {cipher.alignment} (RFC 4253 section 6)"
        )

    def _die(self, error: ConnectionLoss) -> None:
        self._dead = True
        self._inflater = None
        self._use(_Dead(error))
        self.drop()

    def drop(self) -> None:
        """Forget what was fed and not opened: nobody will ask for it."""
        # Not clear(): whoever is at work on the last packet, or the frames of an error, may still hold views.
        self._store = bytearray()
        self._view = _NOTHING
        self._before += self.buffered
        self._offset = self._length = self.buffered = 0
        self._next = None

    def switch(
        self, cipher: str, mac: str | None, keys: DirectionKeys, *, reset_sequence: bool, passive: bool = False
    ) -> None:
        """Use new keys for what has not been opened yet; for the moment after the peer's NEWKEYS.

        Compression goes on as it is: :meth:`set_compression` starts it anew.

        Args:
            cipher: A name of :data:`~sshproto.transport.suites.CIPHERS`.
            mac: A name of :data:`~sshproto.transport.macs.MACS`; None for a cipher that brings its own.
            keys: The key material, of the sizes that :func:`~sshproto.transport.suites.key_sizes` tells.
            reset_sequence: Strict key exchange (OpenSSH PROTOCOL section 1.9): count from 0 again.
            passive: For who merely watches, see :func:`~sshproto.transport.ciphers.opening`.

        Raises:
            InvalidArgument: A name is unknown or a size is wrong; nothing was changed.
        """
        new = opening(cipher, mac, keys, passive=passive)
        if self._dead:
            return
        self._use(new)
        self._length = 0  # what the old keys said about the next packet is void
        self._gather()
        self._first = 0 if reset_sequence else self.sequence_number
        self.packets = 0
        self._before = self.fed - self.buffered

    def inflate_with(self, inflater: Inflater) -> None:
        """Inflate what has not been opened yet, in whatever way ``inflater`` does; for who merely watches."""
        self._inflater = inflater
        self._shorten()

    def rest(self) -> bytes:
        """Give back the bytes that were fed and not opened; only between two packets."""
        self._gather()
        rest = bytes(self._view[self._offset :])
        self.drop()
        return rest

    def set_compression(self, name: str, *, authenticated: bool) -> None:
        """Inflate what has not been opened yet, from the start of a new stream.

        To be called at every NEWKEYS, and at USERAUTH_SUCCESS for a delayed method only: each call starts anew.

        Args:
            name: A name of :data:`~sshproto.transport.compression.COMPRESSIONS`.
            authenticated: USERAUTH_SUCCESS has passed; a delayed method does nothing before.

        Raises:
            InvalidArgument: The name is unknown.
        """
        self._inflater = inflater(name, authenticated=authenticated)
        self._shorten()


class Sealer(_Numbered):
    """One direction of traffic, from payloads to bytes.

    Args:
        entropy: Where padding comes from (label ``"padding"``), a block at a time.

    Attributes:
        packets: Packets sealed under the current keys.
    """

    __slots__ = (
        "_cipher",
        "_deflater",
        "_encrypt",
        "_entropy",
        "_nonces",
        "_pool",
        "_pool_offset",
    )

    _nonces: Iterator[bytes]
    _encrypt: Crypt | None

    def __init__(self, *, entropy: Entropy) -> None:
        super().__init__()
        self._entropy = entropy
        self._deflater: Deflater | None = None
        self._use(PlainSealing())
        self._pool = b""
        self._pool_offset = _PADDING_POOL  # all of it is used up

    def _use(self, cipher: Sealing) -> None:
        self._cipher = cipher
        self._shorten()

    def _shorten(self) -> None:
        """See whether small packets can take the short way."""
        self._nonces, self._encrypt = (self._deflater is None and self._cipher.aead) or _NO_AEAD

    def seal(self, head: bytes, body: Buffer = b"", conceal: bool = False) -> bytes | bytearray:
        """The packet with the payload ``head + body``, finished; the caller owns it.

        Args:
            head: The beginning of the payload.
            body: The rest of it; handing over the two apart saves a copy.
            conceal: Pad generously, so that the packet's size does not tell the length of what is in it.
        """
        # padding_length, payload and the least padding; then what more of that aligns them.
        length = 5 + len(head) + len(body)
        encrypt = self._encrypt
        if encrypt is not None and length <= SMALL_SEAL and not conceal:
            extra = -length % GCM_BLOCK
            start = self._pool_offset
            stop = start + 4 + extra
            if stop > _PADDING_POOL:
                start, stop = self._draw(4 + extra)
            self._pool_offset = stop
            self.packets += 1
            clear = pack_length(length + extra)
            plain = b"".join((BYTE[4 + extra], head, body, self._pool[start:stop]))
            return clear + encrypt(next(self._nonces), plain, clear)
        if self._deflater is not None:
            head = self._deflater.deflate(head, body)
            body = b""
            length = 5 + len(head)
        cipher = self._cipher
        extra = -(length + cipher.counted) % (_CONCEALING if conceal else cipher.alignment)
        start = self._pool_offset
        stop = start + 4 + extra
        if stop > _PADDING_POOL:
            start, stop = self._draw(4 + extra)
        self._pool_offset = stop
        sequence = (self._first + self.packets) & _MASK32
        self.packets += 1
        return cipher.seal(length + extra, head, body, self._pool[start:stop], sequence)

    def _draw(self, count: int) -> tuple[int, int]:
        """Fill the pool anew: where in it so many bytes begin and end."""
        self._pool = self._entropy(_PADDING_POOL, "padding")
        return 0, count

    def switch(self, cipher: str, mac: str | None, keys: DirectionKeys, *, reset_sequence: bool) -> None:
        """Use new keys from the next packet on; for the moment after our NEWKEYS. As :meth:`Opener.switch`."""
        self._use(sealing(cipher, mac, keys))
        self._first = 0 if reset_sequence else self.sequence_number
        self.packets = 0

    def set_compression(self, name: str, *, authenticated: bool) -> None:
        """Compress from the next packet on, in a new stream. As :meth:`Opener.set_compression`."""
        self._deflater = deflater(name, authenticated=authenticated)
        self._shorten()
