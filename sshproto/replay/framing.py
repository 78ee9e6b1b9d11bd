"""One direction of somebody else's traffic: what is known of it, packet sizes, whether keys fit, where zlib begins."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sshproto.config import Limits
from sshproto.errors import ConnectionLoss, WireError
from sshproto.events import Event
from sshproto.replay.events import Integrity, Missing, Observed, Side
from sshproto.replay.secrets import DerivedKeys
from sshproto.transport.compression import Inflater
from sshproto.transport.ident import IdentReader
from sshproto.transport.macs import MACS, OBSERVED_MACS, MacSpec
from sshproto.transport.packets import Opener
from sshproto.transport.suites import CIPHERS, OBSERVED_CIPHERS, CipherSpec, DirectionKeys, key_sizes, verifies
from sshproto.values import define, frozen
from sshproto.wire import messages
from sshproto.wire.codec import Buffer
from sshproto.wire.table import Role

if TYPE_CHECKING:
    from sshproto.replay.kexwatch import Round
    from sshproto.replay.ssh1 import Ssh1Reader

PACKET_LIMIT = 1024 * 1024
"""The largest packet that is believed, in bytes; what a live side accepts is less."""

SEARCH_PACKETS = 1 << 16
"""So many packets back the initialization vector of a first packet is searched for, where it counts packets."""

SEARCH_BLOCKS = 1 << 20
"""So many blocks back the same is searched for, where it counts blocks."""

MARKS = 1 << 16
"""So many pieces of a side are remembered by time and frame; beyond that neighbours are taken together."""

IDENT_LIMITS = Limits(preamble_lines=1024, preamble_bytes=64 * 1024)
"""What is read of a side in search of its identification."""

_ENOUGH = 4
"""So many packets are looked at if no tag tells whether a key is the right one."""

_FLIMSY = frozenset((2, 3, 4, 8, 21, 52, 81, 82, 91, 92, 96, 97, 99, 100))
"""Messages with little in them, or anything: that a packet can be read as one of these does not say much."""

_GCM_TAG = 16
_BLOCK = 16
_MASK64 = 2**64 - 1
_MASK128 = 2**128 - 1


def cipher_spec(name: str | None) -> CipherSpec | None:
    """The cipher of that name, if it is known at least to an observer."""
    return CIPHERS.get(name or "") or OBSERVED_CIPHERS.get(name or "")


def mac_spec(name: str | None) -> MacSpec | None:
    """The MAC of that name, if at least its sizes are known."""
    return MACS.get(name or "") or OBSERVED_MACS.get(name or "")


# ---------------------------------------------------------------------------------------------------------------- sizes


class Framing:
    """Cuts one direction of ciphertext into packets, if their lengths are clear, or takes it as it comes.

    Args:
        overhead: Bytes of a packet beyond packet_length; None if lengths are not clear.
        alignment: What packet_length is a multiple of.

    Attributes:
        exact: Whether lengths are clear (AES-GCM, and encrypt-then-MAC).
    """

    def __init__(self, overhead: int | None, alignment: int = 1) -> None:
        self.exact = overhead is not None
        self._overhead = overhead or 0
        self._alignment = alignment
        self._left = bytearray()

    @property
    def left(self) -> int:
        """Bytes of a packet that is not complete."""
        return len(self._left)

    def feed(self, data: Buffer) -> list[tuple[int, bool]]:
        """Take ciphertext.

        Returns:
            Sizes: with True those of packets that are complete now, with False of what is no packet, or came at once.
        """
        if not self.exact:
            return [(len(data), False)] if len(data) else []
        buffer = self._left
        buffer += data
        sizes: list[tuple[int, bool]] = []
        offset = 0
        while len(buffer) - offset >= 4:
            length = int.from_bytes(buffer[offset : offset + 4], "big")
            if not 5 <= length <= PACKET_LIMIT or length % self._alignment:
                self.exact = False  # not a length: bytes are missing, or the algorithms are others
                sizes.append((len(buffer) - offset, False))
                offset = len(buffer)
                break
            size = length + self._overhead
            if len(buffer) - offset < size:
                break
            sizes.append((size, True))
            offset += size
        del buffer[:offset]
        return sizes


def framing(cipher: str | None, mac: str | None) -> Framing:
    """The framing of a cipher and a MAC; None for those that are not known."""
    spec = cipher_spec(cipher)
    if spec is not None and spec.mode == "gcm":
        return Framing(4 + _GCM_TAG, spec.block_size)
    tag = mac_spec(mac)
    if tag is not None and tag.etm and (spec is None or not spec.aead):
        return Framing(4 + tag.tag_size, spec.block_size if spec is not None else 8)
    return Framing(None)


# ---------------------------------------------------------------------------------------------------------- compression


class LateInflater(Inflater):
    """Inflates the payloads of one direction from wherever compression begins.

    ``zlib@openssh.com`` begins after the login: in what the server sends, right after USERAUTH_SUCCESS; in what the
    client sends, when it has got that, which the packets don't tell. But a stream of zlib has a header (RFC 1950
    section 2.2), which is no beginning of any message.
    """

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        super().__init__()
        self._begun = False

    def inflate(self, payload: Buffer, limit: int) -> bytes:
        """See :meth:`Inflater.inflate <sshproto.transport.compression.Inflater.inflate>`."""
        if not self._begun and not _begins_zlib(payload):
            return bytes(payload)
        self._begun = True
        return super().inflate(payload, limit)


def _begins_zlib(payload: Buffer) -> bool:
    if len(payload) < 2:
        return False
    method, flags = payload[0], payload[1]
    # Deflate, with a window of 512 bytes or more (zlib makes no smaller ones), and without a dictionary.
    return method & 0x8F == 8 and method >= 0x18 and not flags & 0x20 and (method << 8 | flags) % 31 == 0


# ----------------------------------------------------------------------------------------------------------------- keys


@frozen(kw_only=True)
class Lock:
    """What a key has to open: one direction of traffic, from a NEWKEYS on.

    Attributes:
        cipher, mac: What was negotiated.
        compression: The same.
        sequence_number: Of the first packet.
    """

    cipher: str
    mac: str | None
    compression: str
    sequence_number: int

    @property
    def unknown(self) -> str:
        """Which of its algorithms is not known here, in words; ``""`` if all are."""
        cipher = cipher_spec(self.cipher)
        if cipher is None:
            return f"the cipher {self.cipher!r} is not known here"
        if not cipher.aead and mac_spec(self.mac) is None:
            return f"the MAC {self.mac!r} is not known here"
        if self.compression not in ("none", "zlib", "zlib@openssh.com"):
            return f"the compression {self.compression!r} is not known here"
        return ""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The bytes of IV, key and MAC key; nothing may be unknown."""
        return key_sizes(self.cipher, self.mac, passive=True)

    def verifies(self, keys: DirectionKeys) -> bool:
        """Whether tags are verified with these keys."""
        return verifies(self.cipher, self.mac, keys)

    def turn(self, opener: Opener, keys: DirectionKeys) -> None:
        """Let ``opener`` use ``keys``, of the sizes above, for what it has not opened yet."""
        opener.switch(self.cipher, self.mac, keys, reset_sequence=False, passive=True)
        opener.sequence_number = self.sequence_number
        if self.compression == "zlib@openssh.com":
            opener.inflate_with(LateInflater())
        else:
            opener.set_compression(self.compression, authenticated=False)

    def fits(self, keys: DirectionKeys, data: bytes) -> bool | None:
        """Whether keys open ``data``, which begins with the first packet; None if it takes more of it to tell.

        If no tag tells (with encrypt-then-MAC none tells what was decrypted), the first packets must be messages
        without a flaw, and one of them such that chance would not have made it.
        """
        opener = Opener(packet_limit=PACKET_LIMIT)
        self.turn(opener, keys)
        opener.feed(data)
        spec, tag = cipher_spec(self.cipher), mac_spec(self.mac)
        etm = tag is not None and tag.etm and not (spec is not None and spec.aead)
        proved = self.verifies(keys) and not etm
        try:
            for _ in range(_ENOUGH):
                payload = opener.next_packet()
                if payload is None:
                    return None
                message = None if proved else messages.decode(payload)
                if proved or (message is not None and payload[0] not in _FLIMSY):
                    return True
        except (ConnectionLoss, WireError):
            pass
        return False

    def search(self, derived: DerivedKeys, data: bytes) -> DirectionKeys | bool:
        """The keys that open ``data``, which begins with the first packet, if the given ones do.

        The initialization vector may be one of later packets. It counts packets or blocks, so that the first one can
        be found. With CBC it can't.

        Returns:
            The keys with the first initialization vector; False if they don't open it; True if it takes more of
            ``data`` to tell.
        """
        iv_size, key_size, mac_size = self.sizes
        key, iv, mac_key = derived.key[:key_size], derived.iv[:iv_size], derived.mac_key[:mac_size]
        if len(key) != key_size or len(iv) != iv_size:
            return False
        keys = DirectionKeys(iv=iv, key=key, mac_key=mac_key if len(mac_key) == mac_size else b"")
        verdict = self.fits(keys, data)
        if verdict is not False:
            return keys if verdict else True
        if derived.cookies:  # these are known to be the first ones
            return False
        spec = cipher_spec(self.cipher)
        mode = spec.mode if spec is not None else ""
        if mode == "gcm":
            return self._search_packets(keys, data)
        return self._search_blocks(keys, data) if mode == "ctr" else False

    def wanted(self, data: Buffer) -> int:
        """How many bytes the first packet of ``data`` has, all of which it takes to try a key; 0 if that is sealed."""
        spec = cipher_spec(self.cipher)
        if spec is None or spec.mode != "gcm" or len(data) < 4:
            return 0
        size = int.from_bytes(data[:4], "big") + _GCM_TAG
        return 4 + size if size <= PACKET_LIMIT else 0

    def _search_packets(self, keys: DirectionKeys, data: bytes) -> DirectionKeys | bool:
        size = int.from_bytes(data[:4], "big") + _GCM_TAG
        if len(data) < 4 + size:
            return size <= PACKET_LIMIT
        sealed, clear = data[4 : 4 + size], data[:4]
        decrypt = AESGCM(keys.key).decrypt
        fixed, counter = keys.iv[:4], int.from_bytes(keys.iv[4:], "big")
        for back in range(1, SEARCH_PACKETS):
            nonce = fixed + ((counter - back) & _MASK64).to_bytes(8, "big")
            try:
                decrypt(nonce, sealed, clear)
            except InvalidTag:
                continue
            return attrs.evolve(keys, iv=nonce)
        return False

    def _search_blocks(self, keys: DirectionKeys, data: bytes) -> DirectionKeys | bool:
        tag = mac_spec(self.mac)
        etm = tag is not None and tag.etm
        block = data[4 * etm : 4 * etm + _BLOCK]
        if len(block) < _BLOCK:
            return True
        first = (int.from_bytes(keys.iv, "big") - SEARCH_BLOCKS) & _MASK128
        stream = Cipher(algorithms.AES(keys.key), modes.CTR(first.to_bytes(_BLOCK, "big"))).encryptor()
        pads = stream.update(bytes(_BLOCK * SEARCH_BLOCKS))
        # Two bytes that are zero if all is well: of packet_length, or, where that is clear, of whatever follows the
        # message number, which is a uint32 in all that can be the first message, or begins with one.
        zeros = 2 * etm
        at = pads.find(block[zeros : zeros + 2])
        more = False
        while at >= 0:
            place, offset = divmod(at, _BLOCK)
            if offset == zeros:
                found = attrs.evolve(keys, iv=((first + place) & _MASK128).to_bytes(_BLOCK, "big"))
                verdict = self.fits(found, data)
                if verdict:
                    return found
                more |= verdict is None
            at = pads.find(block[zeros : zeros + 2], at + 1)
        return more


# ------------------------------------------------------------------------------------------------------------ one side


class Marks:
    """Which bytes of a side came when, and in which frames."""

    def __init__(self) -> None:
        self.size = 0
        self._ends: list[int] = []
        self._values: list[tuple[float | None, int | None]] = []

    def add(self, size: int, time: float | None, frame: int | None) -> None:
        self.size += size
        if len(self._ends) < MARKS:
            self._ends.append(self.size)
            self._values.append((time, frame))
        else:
            self._ends[-1], self._values[-1] = self.size, (time, frame)

    def where(self, start: int, stop: int) -> tuple[float | None, tuple[int, ...]]:
        """When the last of these bytes came, and in which frames they came."""
        ends, values = self._ends, self._values
        index = bisect_right(ends, start)
        time: float | None = None
        frames: dict[int, None] = {}
        while index < len(ends):
            time, frame = values[index]
            if frame is not None:
                frames[frame] = None
            if ends[index] >= stop:
                break
            index += 1
        return time, tuple(frames)

    def pieces(self, start: int, data: Buffer) -> list[Buffer]:
        """``data``, which begin at ``start``, as they came."""
        stop = start + len(data)
        inner = self._ends[bisect_right(self._ends, start) : bisect_left(self._ends, stop)]
        cuts = pairwise((start, *inner, stop)) if data else ()
        return [data[begin - start : end - start] for begin, end in cuts]

    def forget(self, start: int) -> None:
        """Nobody will ask for what is before ``start``."""
        index = bisect_right(self._ends, start)
        if index > 1024 or index == len(self._ends):  # not each time: it costs by what is left
            del self._ends[:index], self._values[:index]


class Version(Enum):
    """Which protocol a side speaks, as far as that can be told."""

    UNKNOWN = 0
    SSH1 = 1
    SSH2 = 2


@frozen
class Packet:
    """A packet that may have to wait for the other side."""

    payload: bytes
    sequence_number: int
    size: int


@define(eq=False)
class Sealed:
    """What a side sends after a NEWKEYS for which no key is known yet.

    Attributes:
        found: The key exchange.
        lock: What a key has to open; None if nothing was negotiated, or nothing that is known here.
        data: All of it, for a key that comes late; None if it has become too much.
        framing: Set once it was told that no key is known.
        offset: Where in the stream the next :class:`PacketSealed` begins.
        trial: With so many bytes unproven keys are tried again; -1 if all are known not to fit.
        problem: Why no key is known, if it is not simply missing.
    """

    found: Round | None
    lock: Lock | None
    data: bytearray | None
    offset: int
    framing: Framing | None = None
    trial: int = 0
    problem: str = ""


class Half:
    """What one side sends."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.reader = IdentReader(receiver=Role.CLIENT, limits=IDENT_LIMITS)
        self.protocol: str | None = None
        self.version = Version.UNKNOWN
        self.first = b""  # the first bytes after the identification
        self.opener = Opener(packet_limit=PACKET_LIMIT, passive=True)
        self.ssh1: Ssh1Reader | None = None
        self.pending: Packet | None = None
        self.dry = False  # there is no packet before more is fed
        self.release = False  # the pending packet has waited for the other side in vain
        self.round = -1  # the number of its latest KEXINIT
        self.epoch = 0
        self.integrity = Integrity.NONE
        self.sealed: Sealed | None = None
        self.gap: Missing | None = None  # what comes after all that was fed
        self.gap_at: tuple[float | None, tuple[int, ...]] = (None, ())  # when and where that was seen
        self.gap_end = 0  # where in the stream that ends
        self.rest = 0  # where in the stream that begins of what follows, which was not told yet
        self.lost = False  # all before the gap has been read
        self.over = False  # nothing more is read
        self.ended = False
        self.closed = False  # what is left over at the end was told
        self.marks = Marks()
        self.read = 0  # where in the stream the next packet begins
        self.at: tuple[float | None, tuple[int, ...]] = (None, ())  # when and where what is told now was seen

    @property
    def left(self) -> int:
        """Bytes of a packet that is not complete."""
        if self.ssh1 is not None:
            return self.ssh1.left
        framing = self.sealed.framing if self.sealed is not None else None
        return framing.left if framing is not None else self.opener.buffered

    @property
    def held(self) -> int:
        """Bytes that are kept for a key that may come late."""
        return len(self.sealed.data or b"") if self.sealed is not None else 0

    def let_go(self) -> None:
        """Keep them no more."""
        if self.sealed is not None and self.sealed.framing is not None:
            self.sealed.data = None


class Told:
    """What was seen, with when and where, and nobody has asked for yet.

    Attributes:
        events: The oldest first.
    """

    def __init__(self, halves: Mapping[Side, Half]) -> None:
        self.events: deque[Observed] = deque()
        self._halves = halves

    def __call__(self, side: Side, *events: Event) -> None:
        """Events that were seen in what ``side`` has sent, where it is now."""
        time, frames = self._halves[side].at
        for event in events:
            self.events.append(Observed(side=side, time=time, frames=frames, event=event))


def words(data: bytes) -> str:
    """What the first bytes say that are no packet, if they are words."""
    line = data.partition(b"\n")[0].strip()
    text = line.decode("ascii", "replace")
    return f"; the bytes read {text!r}" if len(line) > 3 and text.isascii() and text.isprintable() else ""
