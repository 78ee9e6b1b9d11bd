"""Writing pcapng (draft-ietf-opsawg-pcapng, -ng below), as far as key logs are put into captures and taken out.

:class:`Rewriter` goes through a capture as it comes, piece by piece, and gives a pcapng with a Decryption Secrets Block
in front (-ng section 4.7), without those that stood there if that is wanted.  What is pcapng already stays as it is,
block by block: comments, names, statistics.  pcap becomes pcapng with the same packets at the same times.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import attrs

from sshproto.replay.capture.inflate import MAGIC_SIZE, InflateError, Inflater, compression_of
from sshproto.replay.capture.reader import SECRETS_SSH, CaptureError, CaptureLimits, CaptureReader, Packet
from sshproto.values import define

_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_PACKET = 6
_SECRETS = 10

_MAGIC = 0x1A2B3C4D
_MAGIC_BYTES = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_SECTION_BYTES = b"\x0a\x0d\x0d\x0a"
_UNSPECIFIED = -1
_LENGTH_PLACE = 16  # of the section's length, in its header

_END, _RESOLUTION = 0, 9

_HEAD = 8
_SHORTEST = 12


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A block (-ng section 3.1).

    Args:
        kind: Its type.
        body: Filled up to a multiple of 4 bytes.
        order: ``"<"`` for little-endian, ``">"`` for big-endian: that of its section.
    """
    body += bytes(-len(body) & 3)
    total = len(body) + _SHORTEST
    return b"".join((struct.pack(order + "II", kind, total), body, struct.pack(order + "I", total)))


def option(code: int, value: bytes, order: str = "<") -> bytes:
    """An option (-ng section 3.5)."""
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) & 3)


def section_header(order: str = "<") -> bytes:
    """A Section Header Block (-ng section 4.1) for a section of any length."""
    return block(_SECTION, struct.pack(order + "IHHq", _MAGIC, 1, 0, _UNSPECIFIED), order)


def interface_description(link_type: int, snaplen: int = 0, digits: int = 6, order: str = "<") -> bytes:
    """An Interface Description Block (-ng section 4.2).

    Args:
        link_type: What its packets begin with.
        snaplen: At most so many bytes of each are there; 0 for no bound.
        digits: Timestamps count in units of ``10 ** -digits`` seconds.
        order: The section's byte order.
    """
    options = option(_RESOLUTION, bytes((digits,)), order) + option(_END, b"", order)
    return block(_INTERFACE, struct.pack(order + "HHI", link_type, 0, snaplen) + options, order)


def enhanced_packet(interface: int, ticks: int, data: bytes, length: int, order: str = "<") -> bytes:
    """An Enhanced Packet Block (-ng section 4.3).

    Args:
        interface: The number of its interface.
        ticks: When, in the interface's units since 1970.
        data: The packet, as far as it was captured.
        length: How long it was.
        order: The section's byte order.
    """
    fields = struct.pack(order + "IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(data), length)
    return block(_PACKET, fields + data, order)


def decryption_secrets(text: bytes, order: str = "<", kind: int = SECRETS_SSH) -> bytes:
    """A Decryption Secrets Block (-ng section 4.7).

    Args:
        text: The key log; it gets a line's end if it has none.
        order: The section's byte order.
        kind: What kind of secrets.
    """
    if text and not text.endswith(b"\n"):
        text += b"\n"
    return block(_SECRETS, struct.pack(order + "II", kind, len(text)) + text, order)


@define
class _Blocks:
    """Cuts pcapng into blocks."""

    longest: int
    order: str = "<"
    offset: int = 0
    _rest: bytearray = attrs.Factory(bytearray)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Type and bytes of each block that ``data`` make whole.

        Raises:
            CaptureError: A block is damaged.
        """
        self._rest += data
        rest, place = self._rest, 0
        try:
            while len(rest) - place >= _SHORTEST:
                if rest[place : place + 4] == _SECTION_BYTES:
                    order = _MAGIC_BYTES.get(bytes(rest[place + 8 : place + 12]))
                    if order is None:
                        came = rest[place + 8 : place + 12].hex()
                        raise self._problem(place, "byte-order magic", f"is {came}, expected 1a2b3c4d in either order")
                    self.order = order
                kind, total = struct.unpack_from(self.order + "II", rest, place)
                if total < _SHORTEST or total & 3:
                    raise self._problem(place, "total length", f"is {total}, expected a multiple of 4 from 12 on")
                if total > self.longest:
                    raise self._problem(place, "total length", f"is {total}, at most {self.longest} bytes are accepted")
                if len(rest) - place < total:
                    break
                (again,) = struct.unpack_from(self.order + "I", rest, place + total - 4)
                if again != total:
                    problem = f"is {again} at the block's end, {total} at its start"
                    raise self._problem(place, "total length", problem)
                yield kind, bytes(rest[place : place + total])
                place += total
        finally:
            self.offset += place
            del rest[:place]

    def _problem(self, place: int, field: str, problem: str) -> CaptureError:
        return CaptureError("pcapng block", field, self.offset + place, problem)

    @property
    def left(self) -> int:
        """Bytes of a block that is not whole."""
        return len(self._rest)


class Rewriter:
    """Puts a key log into a capture, or takes those out that stand in it.

    Feed it the capture, and write what it gives; memory stays flat however long that is.

    Args:
        key_log: Put in front, as a Decryption Secrets Block; ``b""`` for none.
        remove: Leave out the SSH key logs that stand in the capture.
        limits: Bounds.

    Attributes:
        removed: How many key logs were left out.
        frames: How many packets there are, where it was pcap.
        cut: Where the capture stops in the middle of something, which is left out; known after :meth:`finish`.
    """

    def __init__(self, key_log: bytes = b"", *, remove: bool = False, limits: CaptureLimits | None = None) -> None:
        self.removed = 0
        self.cut: CaptureError | None = None
        self._key_log = key_log
        self._remove = remove
        self._limits = limits or CaptureLimits()
        self._head: bytes | None = b""
        self._start: bytes | None = b""  # of what came out of decompression, until it shows what it is
        self._inflater: Inflater | None = None
        self._blocks: _Blocks | None = None
        self._reader: CaptureReader | None = None
        self._began = False
        self._unit = 1000

    @property
    def frames(self) -> int:
        return self._reader.frames if self._reader is not None else 0

    def rewrite(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The new file, in pieces.

        Args:
            chunks: The capture, cut in any way.

        Raises:
            CaptureError: It is damaged, or there is none.
        """
        for chunk in chunks:
            yield from self.feed(chunk)
        yield from self.finish()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes of a piece of the capture. All of it is to be taken.

        Raises:
            CaptureError: It is damaged, or there is none.
        """
        if self._head is not None:
            data = self._head + data
            self._head = data
            if len(data) < MAGIC_SIZE:
                return
            self._head = None
            if name := compression_of(data):
                self._inflater = Inflater(name, self._limits.inflate)
        if self._inflater is None:
            yield from self._take(data)
            return
        try:
            for piece in self._inflater.feed(data):
                yield from self._take(piece)
        except InflateError as error:
            raise CaptureError(f"{self._inflater.name} data", "", self._inflater.taken, f"{error}") from None

    def finish(self) -> Iterator[bytes]:
        """There is no more of it.

        Raises:
            CaptureError: There was no capture at all.
        """
        if self._reader is not None:
            self._reader.finish()
            self.cut = self._reader.cut
            if not self._began:  # a capture without a packet
                yield self._preamble(self._reader)
        elif self._blocks is None or not self._began:
            problem = "there is no capture in it: it is too short"
            raise CaptureError("capture", "magic number", 0, problem)
        elif self._blocks.left:
            problem = f"the file ends {self._blocks.left} bytes in"
            self.cut = CaptureError("pcapng block", "", self._blocks.offset, problem)
        if self._inflater is not None and self._inflater.unfinished:
            problem = "the file ends in the middle of a member"
            self.cut = CaptureError(f"{self._inflater.name} data", "", self._inflater.taken, problem)

    def _take(self, data: bytes) -> Iterator[bytes]:
        """A piece that is not compressed."""
        if self._start is not None:
            data = self._start + data
            self._start = data
            if len(data) < MAGIC_SIZE:
                return
            self._start = None
            if data.startswith(_SECTION_BYTES):
                self._blocks = _Blocks(self._limits.block)
            else:
                self._reader = CaptureReader(self._limits)
        if self._blocks is not None:
            pieces = [piece for kind, whole in self._blocks.feed(data) for piece in self._block(kind, whole)]
            if pieces:
                yield b"".join(pieces)
        elif self._reader is not None:
            for packets in self._reader.feed(data):
                yield self._convert(self._reader, packets)

    def _block(self, kind: int, whole: bytes) -> Iterator[bytes]:
        order = self._blocks.order if self._blocks is not None else "<"
        if kind == _SECTION:
            if len(whole) < _LENGTH_PLACE + _SHORTEST:
                problem = f"is {len(whole)}, expected 28 or more"
                raise CaptureError("pcapng Section Header Block", "total length", 0, problem)
            # What is put in or left out changes its length, so that it is not told.
            length = struct.pack(order + "q", _UNSPECIFIED)
            yield whole[:_LENGTH_PLACE] + length + whole[_LENGTH_PLACE + len(length) :]
            if not self._began and self._key_log:
                yield decryption_secrets(self._key_log, order)
            self._began = True
            return
        if kind == _SECRETS and self._remove and len(whole) >= _SHORTEST + 8:
            (secrets,) = struct.unpack_from(order + "I", whole, _HEAD)
            if secrets == SECRETS_SSH:
                self.removed += 1
                return
        yield whole

    def _preamble(self, reader: CaptureReader) -> bytes:
        """What stands before the packets of a former pcap."""
        if not reader.interfaces:
            raise CaptureError("pcap header", "", 0, "there is no capture in it: it is too short")
        interface = reader.interfaces[0]
        digits = 9 if interface.ticks > 1_000_000 else 6
        self._unit = 10 ** (9 - digits)
        self._began = True
        parts = [section_header()]
        if self._key_log:
            parts.append(decryption_secrets(self._key_log))
        parts.append(interface_description(interface.link_type, interface.snaplen, digits))
        return b"".join(parts)

    def _convert(self, reader: CaptureReader, packets: list[Packet]) -> bytes:
        parts = [] if self._began else [self._preamble(reader)]
        for _, time, _, data, start, stop, length in packets:
            parts.append(enhanced_packet(0, time // self._unit, data[start:stop], length))
        return b"".join(parts)
