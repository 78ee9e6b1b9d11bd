"""The packets of a capture: pcap and pcapng, from bytes, a memory map or chunks of a stream.

A :class:`CaptureReader` is fed and gives packets in batches; it keeps what one incomplete record needs, and no more, so
that the size of the file does not matter.  Compressed captures are inflated on the way
(:mod:`sshproto.replay.capture.inflate`).

pcap is draft-ietf-opsawg-pcap, with the variants that are met: both byte orders, micro- and nanoseconds, Kuznetzov's
longer records.  pcapng is draft-ietf-opsawg-pcapng (-ng below): several sections, each with its own byte order and
interfaces; Enhanced, Simple and obsolete Packet Blocks; Interface Statistics for what was lost; Decryption Secrets.
Every other block is skipped.

A capture that stops in the middle of a record is common (the program was killed, the disk was full): what stands whole
is given, and :attr:`CaptureReader.cut` says where it stops.  One that is damaged raises :class:`CaptureError`, after
all that stands whole before the damage has been given.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Protocol, TypeAlias

import attrs

from sshproto.errors import WireError
from sshproto.replay.capture.inflate import MAGIC_SIZE, InflateError, InflateLimits, Inflater, compression_of
from sshproto.values import frozen
from sshproto.wire.codec import Buffer

Packet: TypeAlias = tuple[int, int, int, bytes, int, int, int]
"""A captured packet: ``(frame, time, link_type, data, start, stop, length)``. A plain tuple, for speed.

* ``frame``: its number in the capture, from 1, as other tools count.
* ``time``: nanoseconds since 1970, UTC; whatever the file says, which need not ascend nor even be positive.
* ``link_type``: what the packet begins with, a LINKTYPE number.
* ``data[start:stop]``: the packet as far as it was captured. ``data`` holds its neighbours, too: cut out what is kept.
* ``length``: how long it was on the wire, in bytes, as the file says.
"""

CHUNK = 256 * 1024
"""Long buffers are read in pieces of so many bytes."""

SECRETS_SSH = 0x5353484B
"""The type of SSH key logs in a Decryption Secrets Block (-ng section 4.7)."""


class CaptureError(WireError):
    """A capture file that is damaged, or that is none.

    Attributes:
        where: The record or block.
        field: The field of it, or ``""``.
        offset: Where in the capture the record or block starts, in bytes; with "inflated" in ``where``, where in what
            the file inflates to. For damaged compressed data, how much of the file had gone in when it was seen.
        problem: What came, and what was expected.
    """


class Sliceable(Protocol):
    """Bytes that can be cut: ``bytes``, ``bytearray``, ``memoryview`` of bytes, ``mmap``."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> Buffer: ...


def _positive(default: int) -> int:
    value: int = attrs.field(default=default, validator=attrs.validators.ge(1))
    return value


@frozen
class CaptureLimits:
    """Bounds on what a file may make the reader do.

    Attributes:
        packet: Longest captured packet, in bytes. tcpdump's own bound is 256 KiB; what the network card is left to cut
            into segments can be 512 KiB long.
        block: Longest pcapng block that is looked into, in bytes; longer ones of no interest are skipped.
        interfaces: Most interfaces in all sections.
        secrets: Most bytes of SSH key logs in all blocks.
        inflate: For compressed files.
    """

    packet: int = _positive(1 << 20)
    block: int = _positive(1 << 24)
    interfaces: int = _positive(4096)
    secrets: int = _positive(1 << 24)
    inflate: InflateLimits = attrs.field(factory=InflateLimits)


@frozen
class Interface:
    """Where packets were captured.

    Attributes:
        section: In which section of a pcapng, from 0.
        number: Its number there, from 0.
        link_type: What its packets begin with (LINKTYPE).
        snaplen: At most so many bytes of each packet were captured; 0 for no bound. Files lie here: it is not enforced.
        ticks: Units of its timestamps in a second.
        offset: Seconds to add to its timestamps.
        name: Its name, if the file has one: the file's words.
    """

    section: int
    number: int
    link_type: int
    snaplen: int
    ticks: int = 1_000_000
    offset: int = 0
    name: str = ""


# Per interface: link type, nanoseconds in a tick (0: not a whole number), ticks in a second, offset in nanoseconds.
_Clock: TypeAlias = tuple[int, int, int, int]

_PCAP_HEADER = 24
_PCAP_MAGICS: dict[bytes, tuple[str, int, int]] = {  # byte order, size of a record header, nanoseconds in a tick
    b"\xd4\xc3\xb2\xa1": ("<", 16, 1000),
    b"\xa1\xb2\xc3\xd4": (">", 16, 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 16, 1),
    b"\xa1\xb2\x3c\x4d": (">", 16, 1),
    b"\x34\xcd\xb2\xa1": ("<", 24, 1000),  # Kuznetzov's patch, in old Red Hats: 8 more bytes in each record
    b"\xa1\xb2\xcd\x34": (">", 24, 1000),
}

_SECTION = 0x0A0D0D0A  # the same in either byte order
_INTERFACE = 1
_OBSOLETE_PACKET = 2
_SIMPLE_PACKET = 3
_STATISTICS = 5
_PACKET = 6
_SECRETS = 10

_SECTION_BYTES = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}

_END, _NAME, _RESOLUTION, _OFFSET = 0, 2, 9, 14  # options of an interface
_INTERFACE_DROPS, _SYSTEM_DROPS = 5, 7  # options of statistics

_BLOCK_NAMES = {
    _SECTION: "Section Header Block",
    _INTERFACE: "Interface Description Block",
    _OBSOLETE_PACKET: "Packet Block",
    _SIMPLE_PACKET: "Simple Packet Block",
    _STATISTICS: "Interface Statistics Block",
    _PACKET: "Enhanced Packet Block",
    _SECRETS: "Decryption Secrets Block",
}

_BILLION = 1_000_000_000

_Unpack: TypeAlias = Callable[[bytes, int], tuple[int, ...]]


def _structs(order: str) -> tuple[_Unpack, _Unpack, _Unpack]:
    """Readers, in a byte order, for a block's head, its tail, and what follows the head of an Enhanced Packet Block."""
    head, tail, packet = (struct.Struct(order + fields) for fields in ("II", "I", "IIIII"))
    return head.unpack_from, tail.unpack_from, packet.unpack_from


class CaptureReader:
    """Reads one capture.

    Feed it chunks and :meth:`finish`, or let :meth:`read` do both::

        for packets in reader.read([data]):
            for frame, time, link_type, data, start, stop, length in packets:
                ...

    Args:
        limits: Bounds.
        frames: Number of the frame before the first: so that a capture in several files has one row of numbers.

    Attributes:
        form: ``"pcap"`` or ``"pcapng"``; ``""`` while nothing is known.
        compression: ``"gzip"``, ``"zstd"`` or ``""``.
        frames: Number of the last frame that was read.
        interfaces: All that were announced so far.
        secrets: SSH key logs that stood in the file so far (-ng section 4.7), as they stood there: text, one line for
            each key exchange. The caller may take them out.
        dropped: Packets that the capturing program says it lost; None if it does not say.
        skipped: Blocks that were not looked into.
        cut: Where the capture stops in the middle of something; known after :meth:`finish`.
    """

    def __init__(self, limits: CaptureLimits | None = None, *, frames: int = 0) -> None:
        self.form = ""
        self.compression = ""
        self.frames = frames
        self.interfaces: list[Interface] = []
        self.secrets: list[bytes] = []
        self.skipped = 0
        self.cut: CaptureError | None = None
        self._limits = limits or CaptureLimits()
        self._head: bytes | None = b""  # the file's first bytes, until they tell whether it is compressed
        self._inflater: Inflater | None = None
        self._error: CaptureError | None = None
        self._step: Callable[[bytes, int, list[Packet]], int] = self._magic
        self._rest = bytearray()  # the beginning of what is not whole yet
        self._need = 4  # so many bytes are worth another look
        self._skip = 0  # bytes still to come that nobody wants
        self._offset = 0  # where in the capture the rest starts
        self._order = "<"
        self._record = struct.Struct("<IIII")
        self._record_size = 16
        self._tick = 1000
        self._link_type = 0
        self._section = -1
        self._structs = _structs("<")
        self._clocks: list[_Clock] = []
        self._time = 0  # of the last packet
        self._secret_bytes = 0
        self._drops: dict[int, int] = {}  # by interface

    @property
    def dropped(self) -> int | None:
        return sum(self._drops.values()) if self._drops else None

    # ---------------------------------------------------------------------------------------------------------- feeding

    def read(self, chunks: Iterable[Sliceable]) -> Iterator[list[Packet]]:
        """All packets of a capture, in batches that are never empty.

        Args:
            chunks: The file, cut in any way; ``[data]`` for one that is at hand as a whole.

        Raises:
            CaptureError: The capture is damaged, or there is none; everything before has been given.
        """
        for chunk in chunks:
            yield from self.feed(chunk)
        self.finish()

    def feed(self, data: Sliceable) -> Iterator[list[Packet]]:
        """The packets that ``data`` make whole, in batches that are never empty. All of them are to be taken.

        Args:
            data: What comes next in the file; any number of bytes. Nothing of it is kept but what is copied.

        Raises:
            CaptureError: The capture is damaged, or there is none; everything before has been given.
        """
        for place in range(0, len(data), CHUNK):
            for raw in self._plain(bytes(data[place : place + CHUNK])):
                packets: list[Packet] = []
                if self._error is None:
                    try:
                        self._take(raw, packets)
                    except CaptureError as error:
                        self._error = error
                if packets:
                    yield packets
                if self._error is not None:
                    raise self._error

    def finish(self) -> None:
        """Nothing more will come.

        Raises:
            CaptureError: The capture is damaged. (One that is cut short is not; see :attr:`cut`.)
        """
        if self._error is not None:
            raise self._error
        if self._head is not None:  # less than tells what it is
            self._rest += self._head
            self._head = None
        inflater = self._inflater
        if inflater is not None and inflater.unfinished:
            problem = "the file ends in the middle of a member"
            self.cut = CaptureError(f"{inflater.name} data", "", inflater.taken, problem)
        elif self._rest or self._skip or self._step not in {self._records, self._blocks}:
            problem = f"the file ends {len(self._rest)} bytes in, {self._need + self._skip} or more were expected"
            self.cut = self._problem(f"{self.form or 'capture'} after frame {self.frames}", "", self._offset, problem)

    def _plain(self, data: bytes) -> Iterator[bytes]:
        """``data``, inflated if need be."""
        if self._head is not None:
            data = self._head + data
            if len(data) < MAGIC_SIZE:
                self._head = data
                return
            self._head = None
            self.compression = compression_of(data)
            if self.compression:
                self._inflater = Inflater(self.compression, self._limits.inflate)
        inflater = self._inflater
        if inflater is None:
            yield data
            return
        try:
            yield from inflater.feed(data)
        except InflateError as error:
            self._error = CaptureError(f"{inflater.name} data", "", inflater.taken, str(error))
            yield b""  # for feed() to raise it

    def _take(self, data: bytes, packets: list[Packet]) -> None:
        """One more piece of the capture."""
        if self._skip:
            count = min(self._skip, len(data))
            self._skip -= count
            self._offset += count
            data = data[count:]
        if self._rest:
            # Joined only when that will help: else a long record in short pieces would be copied for each of them.
            if len(self._rest) + len(data) < self._need:
                self._rest += data
                return
            data = b"".join((self._rest, data))
            self._rest.clear()
        place = 0
        try:
            step = None
            while step is not self._step:
                step = self._step
                place = step(data, place, packets)
        finally:
            self.frames += len(packets)
            if packets:
                self._time = packets[-1][1]
        if place > len(data):
            self._skip = place - len(data)
            self._offset += len(data)
        else:
            self._rest += data[place:]
            self._offset += place

    def _problem(self, where: str, field: str, offset: int, problem: str) -> CaptureError:
        return CaptureError(f"inflated {where}" if self._inflater else where, field, offset, problem)

    # ------------------------------------------------------------------------------------------------------------- pcap

    def _magic(self, data: bytes, place: int, packets: list[Packet]) -> int:
        magic = data[place : place + 4]
        if len(magic) < 4:
            return place
        if magic == _SECTION_BYTES:
            self.form = "pcapng"
            self._need = 12
            self._step = self._blocks
            return place
        known = _PCAP_MAGICS.get(magic)
        if known is None:
            problem = f"the file begins with {magic.hex()}: not pcap, nor pcapng, nor one of them in gzip or zstd"
            raise self._problem("capture", "magic number", self._offset + place, problem)
        self.form = "pcap"
        self._order, self._record_size, self._tick = known
        self._need = _PCAP_HEADER
        self._step = self._header
        return place

    def _header(self, data: bytes, place: int, packets: list[Packet]) -> int:
        if len(data) - place < _PCAP_HEADER:
            return place
        _, major, minor, _, _, snaplen, network = struct.unpack_from(self._order + "IHHiIII", data, place)
        if major != 2:
            raise self._problem("pcap header", "version", self._offset + place, f"is {major}.{minor}, expected 2.4")
        self._link_type = (
            network & 0xFFFF
        )  # the upper bits tell of frame check sequences, which lie behind what we read
        self.interfaces.append(Interface(0, 0, self._link_type, snaplen, _BILLION // self._tick))
        self._record = struct.Struct(self._order + "IIII")
        self._need = self._record_size
        self._step = self._records
        return place + _PCAP_HEADER

    def _records(self, data: bytes, place: int, packets: list[Packet]) -> int:
        unpack, size, tick, link_type = self._record.unpack_from, self._record_size, self._tick, self._link_type
        longest, end, frame, append = self._limits.packet, len(data), self.frames, packets.append
        while place + size <= end:
            seconds, fraction, captured, length = unpack(data, place)
            if captured > longest:
                problem = f"is {captured}, at most {longest} bytes are accepted"
                raise self._problem(f"pcap record {frame + 1}", "captured length", self._offset + place, problem)
            start = place + size
            stop = start + captured
            if stop > end:
                self._need = size + captured
                return place
            frame += 1
            append((frame, seconds * 1_000_000_000 + fraction * tick, link_type, data, start, stop, length))
            place = stop
        self._need = size
        return place

    # ----------------------------------------------------------------------------------------------------------- pcapng

    def _blocks(self, data: bytes, place: int, packets: list[Packet]) -> int:
        head, tail, body = self._structs
        longest, longest_block = self._limits.packet, self._limits.block
        end, frame, append, clocks = len(data), self.frames, packets.append, self._clocks
        while end - place >= 12:  # the shortest block there can be
            kind, total = head(data, place)
            if kind == _SECTION:
                # Its byte order is its own, so even its length can't be read before.
                order = _BYTE_ORDERS.get(data[place + 8 : place + 12])
                if order is None:
                    problem = f"is {data[place + 8 : place + 12].hex()}, expected 1a2b3c4d in either order"
                    raise self._block_problem(kind, "byte-order magic", place, problem)
                self._structs = head, tail, body = _structs(order)
                self._order = order
                kind, total = head(data, place)
            if total < 12 or total & 3:
                problem = f"is {total}, expected a multiple of 4 from 12 on"
                raise self._block_problem(kind, "total length", place, problem)
            stop = place + total
            if total > longest_block:
                if kind in _BLOCK_NAMES:
                    problem = f"is {total}, at most {longest_block} bytes are accepted"
                    raise self._block_problem(kind, "total length", place, problem)
                self.skipped += 1
                place = stop
                continue
            if stop > end:
                self._need = total
                return place
            if tail(data, stop - 4)[0] != total:
                problem = f"is {tail(data, stop - 4)[0]} at the block's end, {total} at its start"
                raise self._block_problem(kind, "total length", place, problem)
            if kind == _PACKET:
                if total < 32:
                    raise self._block_problem(kind, "total length", place, f"is {total}, expected 32 or more")
                number, high, low, captured, length = body(data, place + 8)
                if captured > total - 32 or captured > longest:
                    problem = f"is {captured}; the block has room for {total - 32}, and {longest} are accepted"
                    raise self._block_problem(kind, "captured length", place, problem)
                if number >= len(clocks):
                    problem = f"is {number}, of {len(clocks)} in this section"
                    raise self._block_problem(kind, "interface", place, problem)
                link_type, tick, ticks, offset = clocks[number]
                time = (high << 32 | low) * tick if tick else (high << 32 | low) * 1_000_000_000 // ticks
                frame += 1
                append((frame, time + offset, link_type, data, place + 28, place + 28 + captured, length))
            else:
                handler = self._HANDLERS.get(kind)
                if handler is None:
                    self.skipped += 1
                else:
                    handler(self, data, place, stop, packets)
                    frame, clocks = self.frames + len(packets), self._clocks
            place = stop
        self._need = 12
        return place

    def _block_problem(self, kind: int, field: str, place: int, problem: str) -> CaptureError:
        name = _BLOCK_NAMES.get(kind, f"block of type {kind:#x}")
        return self._problem(f"pcapng {name}", field, self._offset + place, problem)

    def _read_section(self, data: bytes, place: int, stop: int, packets: list[Packet]) -> None:
        if stop - place < 28:
            raise self._block_problem(_SECTION, "total length", place, f"is {stop - place}, expected 28 or more")
        major, minor = struct.unpack_from(self._order + "HH", data, place + 12)
        if major != 1:
            raise self._block_problem(_SECTION, "version", place, f"is {major}.{minor}, expected 1.0")
        self._section += 1
        self._clocks = []

    def _read_interface(self, data: bytes, place: int, stop: int, packets: list[Packet]) -> None:
        if stop - place < 20:
            raise self._block_problem(_INTERFACE, "total length", place, f"is {stop - place}, expected 20 or more")
        if len(self.interfaces) >= self._limits.interfaces:
            problem = f"is one more than the {self._limits.interfaces} that are accepted"
            raise self._block_problem(_INTERFACE, "", place, problem)
        link_type, _, snaplen = struct.unpack_from(self._order + "HHI", data, place + 8)
        ticks, offset, name = 1_000_000, 0, ""
        for code, value in self._options(_INTERFACE, data, place, place + 16, stop - 4):
            if code == _NAME:
                name = value[:256].decode("utf-8", "surrogateescape")
            elif code == _RESOLUTION and value:  # a negative power of 10, or with the top bit set of 2
                ticks = 1 << (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
            elif code == _OFFSET and len(value) == 8:
                (offset,) = struct.unpack(self._order + "q", value)
        self.interfaces.append(Interface(self._section, len(self._clocks), link_type, snaplen, ticks, offset, name))
        tick = 0 if _BILLION % ticks else _BILLION // ticks
        self._clocks.append((link_type, tick, ticks, offset * _BILLION))

    def _read_simple_packet(self, data: bytes, place: int, stop: int, packets: list[Packet]) -> None:
        if stop - place < 16 or not self._clocks:
            problem = (
                f"has {stop - place} bytes and {len(self._clocks)} interfaces before it, expected 16 and 1 or more"
            )
            raise self._block_problem(_SIMPLE_PACKET, "", place, problem)
        (length,) = struct.unpack_from(self._order + "I", data, place + 8)
        snaplen = self.interfaces[len(self.interfaces) - len(self._clocks)].snaplen
        captured = min(length, stop - place - 16, snaplen or length)
        # It has no time of its own: it is given that of the packet before, so that time goes on.
        time = packets[-1][1] if packets else self._time
        self._add(_SIMPLE_PACKET, (time, self._clocks[0][0], place + 12, captured, length), data, place, packets)

    def _read_obsolete_packet(self, data: bytes, place: int, stop: int, packets: list[Packet]) -> None:
        if stop - place < 32:
            raise self._block_problem(
                _OBSOLETE_PACKET, "total length", place, f"is {stop - place}, expected 32 or more"
            )
        number: int
        number, _, high, low, captured, length = struct.unpack_from(self._order + "HHIIII", data, place + 8)
        if captured > stop - place - 32:
            problem = f"is {captured}, the block has room for {stop - place - 32}"
            raise self._block_problem(_OBSOLETE_PACKET, "captured length", place, problem)
        if number >= len(self._clocks):
            problem = f"is {number}, of {len(self._clocks)} in this section"
            raise self._block_problem(_OBSOLETE_PACKET, "interface", place, problem)
        link_type, _, ticks, offset = self._clocks[number]
        time = (high << 32 | low) * _BILLION // ticks + offset
        self._add(_OBSOLETE_PACKET, (time, link_type, place + 28, captured, length), data, place, packets)

    def _add(
        self, kind: int, packet: tuple[int, int, int, int, int], data: bytes, place: int, packets: list[Packet]
    ) -> None:
        time, link_type, start, captured, length = packet
        if captured > self._limits.packet:
            problem = f"is {captured}, at most {self._limits.packet} bytes are accepted"
            raise self._block_problem(kind, "captured length", place, problem)
        packets.append((self.frames + len(packets) + 1, time, link_type, data, start, start + captured, length))

    def _read_statistics(self, data: bytes, place: int, stop: int, packets: list[Packet]) -> None:
        if stop - place < 24:
            raise self._block_problem(_STATISTICS, "total length", place, f"is {stop - place}, expected 24 or more")
        (number,) = struct.unpack_from(self._order + "I", data, place + 8)
        first = len(self.interfaces) - len(self._clocks)
        if number >= len(self._clocks):
            return  # statistics of nothing hurt nobody
        drops = 0
        told = False
        for code, value in self._options(_STATISTICS, data, place, place + 20, stop - 4):
            if code in {_INTERFACE_DROPS, _SYSTEM_DROPS} and len(value) == 8:
                drops += int.from_bytes(value, "little" if self._order == "<" else "big")
                told = True
        if told:
            self._drops[first + number] = drops  # counted from the start: the last word counts

    def _read_secrets(self, data: bytes, place: int, stop: int, packets: list[Packet]) -> None:
        if stop - place < 20:
            raise self._block_problem(_SECRETS, "total length", place, f"is {stop - place}, expected 20 or more")
        kind, length = struct.unpack_from(self._order + "II", data, place + 8)
        if length > stop - place - 20:
            problem = f"is {length}, the block has room for {stop - place - 20}"
            raise self._block_problem(_SECRETS, "secrets length", place, problem)
        if kind != SECRETS_SSH:
            self.skipped += 1
            return
        self._secret_bytes += length + 64  # what even an empty one costs
        if self._secret_bytes > self._limits.secrets:
            problem = f"makes {self._secret_bytes} bytes of key logs, at most {self._limits.secrets} are accepted"
            raise self._block_problem(_SECRETS, "secrets length", place, problem)
        self.secrets.append(data[place + 16 : place + 16 + length])

    def _options(self, kind: int, data: bytes, place: int, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """The options between ``start`` and ``stop`` (-ng section 3.5), up to the one that says it is the last."""
        while stop - start >= 4:
            code, length = struct.unpack_from(self._order + "HH", data, start)
            start += 4
            if code == _END:
                return
            if length > stop - start:
                problem = f"of type {code} has {length} bytes, {stop - start} are left"
                raise self._block_problem(kind, "option", place, problem)
            yield code, data[start : start + length]
            start += length + (-length & 3)

    _HANDLERS: ClassVar[dict[int, Callable[[CaptureReader, bytes, int, int, list[Packet]], None]]] = {
        _SECTION: _read_section,
        _INTERFACE: _read_interface,
        _OBSOLETE_PACKET: _read_obsolete_packet,
        _SIMPLE_PACKET: _read_simple_packet,
        _STATISTICS: _read_statistics,
        _SECRETS: _read_secrets,
    }
