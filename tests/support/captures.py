"""Writes captures: files, packets and TCP conversations, right ones and wrong ones."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Sequence

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

CLIENT, SERVER = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
CLIENT6, SERVER6 = bytes(15) + b"\1", bytes(15) + b"\2"

# ---------------------------------------------------------------------------------------------------------------- files

Record = tuple[int, bytes]
"""When, in nanoseconds since 1970, and the packet."""


def pcap(
    records: Iterable[Record], *, order: str = "<", nano: bool = True, link_type: int = 1, longer: bool = False
) -> bytes:
    """A pcap file; ``longer`` has Kuznetzov's record headers, which know microseconds only."""
    magic = 0xA1B2CD34 if longer else 0xA1B23C4D if nano else 0xA1B2C3D4
    tick = 1 if nano and not longer else 1000
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)]
    for time, data in records:
        seconds, rest = divmod(time, 1_000_000_000)
        parts.append(struct.pack(order + "IIII", seconds, rest // tick, len(data), len(data)))
        parts += [bytes(8) if longer else b"", data]
    return b"".join(parts)


def block(kind: int, body: bytes, *, order: str = "<") -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) & 3)
    total = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + total + body + total


def option(code: int, value: bytes, *, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) & 3)


def section(*, order: str = "<", major: int = 1) -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, major, 0, -1), order=order)


def interface(link_type: int = 1, *, order: str = "<", snaplen: int = 0, options: bytes = b"") -> bytes:
    return block(1, struct.pack(order + "HHI", link_type, 0, snaplen) + options, order=order)


def enhanced(ticks: int, data: bytes, *, order: str = "<", number: int = 0, length: int | None = None) -> bytes:
    fields = (number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data) if length is None else length)
    return block(6, struct.pack(order + "IIIII", *fields) + data, order=order)


def obsolete(ticks: int, data: bytes, *, order: str = "<", number: int = 0) -> bytes:
    fields = (number, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(2, struct.pack(order + "HHIIII", *fields) + data, order=order)


def simple(data: bytes, *, order: str = "<", length: int | None = None) -> bytes:
    return block(3, struct.pack(order + "I", len(data) if length is None else length) + data, order=order)


def secrets(text: bytes, *, order: str = "<", kind: int = 0x5353484B) -> bytes:
    return block(10, struct.pack(order + "II", kind, len(text)) + text, order=order)


def statistics(drops: int, *, order: str = "<", number: int = 0) -> bytes:
    return block(
        5,
        struct.pack(order + "III", number, 0, 0) + option(5, struct.pack(order + "Q", drops), order=order),
        order=order,
    )


def pcapng(records: Iterable[Record], *, order: str = "<", link_type: int = 1) -> bytes:
    """A pcapng file with one section and one interface, in nanoseconds."""
    resolution = option(9, b"\x09", order=order)
    parts = [section(order=order), interface(link_type, order=order, options=resolution)]
    return b"".join(parts + [enhanced(time, data, order=order) for time, data in records])


# -------------------------------------------------------------------------------------------------------------- packets


def tcp(
    seq: int, ack: int, flags: int, data: bytes = b"", *, ports: tuple[int, int] = (40000, 22), options: bytes = b""
) -> bytes:
    size = 20 + len(options)
    fields = (*ports, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, size // 4 << 4, flags, 1024, 0, 0)
    return struct.pack(">HHIIBBHHH", *fields) + options + data


def udp(data: bytes, *, ports: tuple[int, int] = (40000, 53)) -> bytes:
    return struct.pack(">HHHH", *ports, 8 + len(data), 0) + data


def ipv4(
    payload: bytes,
    *,
    protocol: int = 6,
    addresses: tuple[bytes, bytes] = (CLIENT, SERVER),
    options: bytes = b"",
    ident: int = 0,
    fragment: int = 0x4000,
    total: int | None = None,
) -> bytes:
    size = 20 + len(options)
    length = size + len(payload) if total is None else total
    head = struct.pack(">BBHHHBBH", 0x40 | size // 4, 0, length, ident, fragment, 64, protocol, 0)
    return head + b"".join(addresses) + options + payload


def ipv6(
    payload: bytes, *, protocol: int = 6, addresses: tuple[bytes, bytes] = (CLIENT6, SERVER6), total: int | None = None
) -> bytes:
    length = len(payload) if total is None else total
    return struct.pack(">IHBB", 0x60000000, length, protocol, 64) + b"".join(addresses) + payload


def fragments4(payload: bytes, cuts: Sequence[int], *, ident: int = 7) -> list[bytes]:
    """An IPv4 packet in fragments, cut at multiples of 8."""
    places = [0, *sorted({cut & ~7 for cut in cuts if 0 < cut & ~7 < len(payload)}), len(payload)]
    return [
        ipv4(payload[a:b], ident=ident, fragment=a // 8 | (0x2000 if b < len(payload) else 0))
        for a, b in itertools.pairwise(places)
    ]


def fragments6(payload: bytes, cuts: Sequence[int], *, ident: int = 7) -> list[bytes]:
    places = [0, *sorted({cut & ~7 for cut in cuts if 0 < cut & ~7 < len(payload)}), len(payload)]
    return [
        ipv6(struct.pack(">BBHI", 6, 0, a | (b < len(payload)), ident) + payload[a:b], protocol=44)
        for a, b in itertools.pairwise(places)
    ]


def ethernet(payload: bytes, kind: int = 0x0800) -> bytes:
    return bytes(12) + struct.pack(">H", kind) + payload


# -------------------------------------------------------------------------------------------------------- conversations

Segment = tuple[int, int, bytes, int, int, int, bytes, int, int, int]

FLOW = CLIENT + SERVER + struct.pack(">HH", 40000, 22)
REVERSE = SERVER + CLIENT + struct.pack(">HH", 22, 40000)
SECOND = 1_000_000_000


class Talk:
    """A TCP conversation: segments as :mod:`sshproto.replay.capture.network` gives them, a millisecond between them.

    ``sent`` has what each side has sent so far, ``segments`` the segments.
    """

    def __init__(self, *, isns: tuple[int, int] = (1000, 5000), flows: tuple[bytes, bytes] = (FLOW, REVERSE)) -> None:
        self.flows = flows
        self.isns = isns
        self.sent = [bytearray(), bytearray()]
        self.fins = [0, 0]
        self.segments: list[Segment] = []

    def __iter__(self):
        return iter(self.segments)

    def add(
        self,
        side: int,
        flags: int,
        data: bytes = b"",
        *,
        seq: int | None = None,
        ack: int | None = None,
        missing: int = 0,
    ) -> Segment:
        """Any segment; ``seq`` and ``ack`` are offsets into what is sent, by default the right ones."""
        place = len(self.sent[side]) + self.fins[side] if seq is None else seq
        seen = len(self.sent[1 - side]) + self.fins[1 - side] if ack is None else ack
        segment = (
            len(self.segments) + 1,
            (len(self.segments) + 1) * 1_000_000,
            self.flows[side],
            (self.isns[side] + 1 + place) & 0xFFFFFFFF,
            (self.isns[1 - side] + 1 + seen) & 0xFFFFFFFF if flags & ACK else 0,
            flags,
            b"before" + data + b"behind",
            6,
            6 + len(data),
            missing,
        )
        self.segments.append(segment)
        return segment

    def dial(self) -> Talk:
        self.add(0, SYN, seq=-1)
        self.add(1, SYN | ACK, seq=-1, ack=0)
        self.add(0, ACK)
        return self

    def send(self, side: int, data: bytes) -> Segment:
        segment = self.add(side, ACK | PSH, data)
        self.sent[side] += data
        return segment

    def ack(self, side: int) -> Segment:
        return self.add(side, ACK)

    def finish(self, side: int) -> Segment:
        segment = self.add(side, FIN | ACK)
        self.fins[side] = 1
        return segment

    def hang_up(self) -> Talk:
        self.finish(0)
        self.finish(1)
        self.ack(0)
        return self

    def records(self) -> list[Record]:
        """The segments as Ethernet packets, for a file."""
        return [record(segment) for segment in self.segments]


def record(segment: Segment) -> Record:
    _, time, flow, seq, ack, flags, data, start, stop, _ = segment
    ports: tuple[int, int] = struct.unpack(">HH", flow[-4:])
    payload = tcp(seq, ack, flags, data[start:stop], ports=ports)
    size = (len(flow) - 4) // 2
    addresses = flow[:size], flow[size : 2 * size]
    if size == 4:
        return time, ethernet(ipv4(payload, addresses=addresses))
    return time, ethernet(ipv6(payload, addresses=addresses), 0x86DD)
