"""Captures that were cut, flipped, spliced, or written to do harm: a documented error or none, and in time.

What is cut off is missing, and nothing else is otherwise.
"""

from __future__ import annotations

import gzip
import random
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import capture
from fuzz.running import mutate
from sshproto.replay.analysis import Analysis
from sshproto.replay.capture.reader import CaptureError
from sshproto.replay.events import PacketOpened, Side
from tests.replay.sessions import told
from tests.support import captures as c

SEEDS = capture.seeds()[:9]
NAMES = [
    "pcap",
    "pcap, the other order",
    "long records",
    "pcapng",
    "VLAN",
    "fragments",
    "IPv6",
    "pcapng of all",
    "gzip",
]


def opened(data: bytes) -> tuple[str, list[tuple[list[int], list[int]]]]:
    """What is wrong with a file, and the message numbers of both sides of each connection."""
    analysis = Analysis(keep=True)
    analysis.secrets.add_key_log(capture._TRAFFIC.key_log)
    found = []
    error = ""
    try:
        found += analysis.read([data])
    except CaptureError as problem:
        error = str(problem)
    found += analysis.finish()
    found.sort(key=lambda it: it.connection.number)
    return error, [
        ([it.number for it in told(each.events, PacketOpened, Side.DIALLER)],
         [it.number for it in told(each.events, PacketOpened, Side.DIALLED)])
        for each in found
    ]  # fmt: skip


@pytest.mark.parametrize("turn", range(8))
def test_cut_at_every_byte(turn: int) -> None:
    """No error, and the beginning of what the whole file gives."""
    records = capture._records()[:14]
    for write in (c.pcap, c.pcapng):
        data = write(records)
        _, whole = opened(data)
        assert len(whole) >= 1
        for stop in range(4 + turn, len(data), 8):
            error, found = opened(data[:stop])
            assert error == "", stop
            for each, complete in zip(found, whole, strict=False):
                for mine, all_of_them in zip(each, complete, strict=True):
                    assert mine == all_of_them[: len(mine)], stop


@pytest.mark.parametrize("stop", range(4))
def test_less_than_tells_what_it_is(stop: int) -> None:
    assert opened(SEEDS[0][:stop]) == ("", [])


@settings(max_examples=100)
@given(data=st.data())
def test_cut_anywhere(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(SEEDS))
    error, found = opened(whole[: data.draw(st.integers(4, len(whole)))])
    assert error == ""
    assert len(found) <= 8


@pytest.mark.parametrize("name", NAMES)
def test_bits_flipped(name: str) -> None:
    """One bit each time, over the whole file."""
    whole = SEEDS[NAMES.index(name)]
    rng = random.Random(name)
    for _ in range(25):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        opened(bytes(damaged))


def test_files_of_the_lab(shared: Path) -> None:
    """The same for real recordings: cut and changed at random places."""
    files = [path.read_bytes() for path in sorted((shared / "captures").rglob("*.pcap*"))]
    files = [data for data in files if len(data) < 60_000]
    assert len(files) > 20
    rng = random.Random(3)
    for data in files:
        error, _ = opened(data[: rng.randrange(4, len(data))])
        assert error == ""
        for _ in range(3):
            opened(mutate(data, files, rng))


# ------------------------------------------------------------------------------------------------- written to do harm

NG = c.section() + c.interface()


def block(kind: int, total: int, body: bytes, tail: int | None = None) -> bytes:
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total if tail is None else tail)


def option(code: int, length: int, data: bytes = b"") -> bytes:
    return struct.pack("<HH", code, length) + data


HARM: dict[str, tuple[bytes, str]] = {
    "a block of no length": (NG + block(6, 0, b""), "total length"),
    "a block that is no multiple of 4": (NG + block(6, 13, bytes(8)), "total length"),
    "a block of 4 GiB": (NG + block(6, 0xFFFFFFFC, bytes(100)), "total length"),
    "a length that its end denies": (NG + block(5, 28, bytes(16), 32), "total length"),
    "a packet longer than its block": (
        NG + block(6, 36, struct.pack("<IIIII", 0, 0, 0, 0xFFFFFFFF, 4) + bytes(4)), "captured length"
    ),
    "a packet of no interface": (NG + block(6, 36, struct.pack("<IIIII", 7, 0, 0, 4, 4) + bytes(4)), "interface"),
    "a simple packet before any interface": (c.section() + c.simple(bytes(4)), "interfaces"),
    "an option longer than its block": (c.section() + c.interface(options=option(2, 60000)), "option"),
    "secrets longer than their block": (
        NG + block(10, 24, struct.pack("<II", 0x5353484B, 1 << 30) + bytes(4)), "secrets length"
    ),
    "a record of 4 GiB": (c.pcap([])[:24] + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 0xFFFFFFFF), "captured length"),
    "a section of version 9": (c.section(major=9), "version"),
    "no byte order": (b"\x0a\x0d\x0d\x0a" + bytes(24), "byte-order"),
}  # fmt: skip
"""Lengths and numbers that lie, and which field the error names."""


@pytest.mark.parametrize("name", HARM)
def test_lies_are_errors(name: str) -> None:
    data, field = HARM[name]
    analysis = Analysis()
    with pytest.raises(CaptureError, match=field):
        list(analysis.read([data]))
    assert list(analysis.finish()) == []


@pytest.mark.parametrize("resolution", [0, 9, 18, 0x7F, 0x80, 0x80 | 63, 0xFF])
def test_any_resolution(resolution: int) -> None:
    """Of clocks: up to ten to the power of 127 ticks a second, and two to the same."""
    options = c.option(9, bytes((resolution,))) + c.option(14, struct.pack("<q", -(2**63)))
    packets = b"".join(c.enhanced(2**64 - 1, data) for _, data in capture._records()[:14])
    error, found = opened(c.section() + c.interface(options=options) + packets)
    assert error == ""
    assert len(found) >= 1


RECORD = capture._records()[5][1]  # of Ethernet, with data

PACKETS: dict[str, bytes] = {
    "IPv4 header of 4 bytes": RECORD[:14] + b"\x41" + RECORD[15:],
    "IPv4 header of 60 bytes": RECORD[:14] + b"\x4f" + RECORD[15:],
    "IPv4 shorter than its header": RECORD[:16] + b"\0\x10" + RECORD[18:],
    "IPv4 longer than the packet": RECORD[:16] + b"\xff\xff" + RECORD[18:],
    "TCP header of 4 bytes": RECORD[:46] + b"\x10" + RECORD[47:],
    "TCP header of 60 bytes": RECORD[:46] + b"\xf0" + RECORD[47:],
    "TCP options of no length": RECORD[:54] + b"\x08\0" + RECORD[56:],
    "TCP options of 255 bytes": RECORD[:54] + b"\x08\xff" + RECORD[56:],
    "a fragment beyond 64 KiB": RECORD[:20] + b"\x1f\xff" + RECORD[22:],
    "a first fragment": RECORD[:20] + b"\x20\0" + RECORD[22:],
    "MPLS without end": c.ethernet(bytes(60), 0x8847),
    "VLAN in VLAN in VLAN": c.ethernet(b"\0\1\x81\0" * 300, 0x8100),
    "IPv6 headers without end": c.ethernet(c.ipv6(b"\0\0" * 400, protocol=0), 0x86DD),
    "IP in IP in IP": c.ethernet(b"".join(c.ipv4(bytes(4000 - 20 * n), protocol=4)[:20] for n in range(100))),
}


@pytest.mark.parametrize("name", PACKETS)
def test_packets_that_lie(name: str) -> None:
    """They are counted, and the rest of the capture is what it was."""
    records = capture._records()[:14]
    _, whole = opened(c.pcap(records))
    for place in (0, 7, 14):
        lying = [*records[:place], (records[0][0], PACKETS[name]), *records[place:]]
        assert opened(c.pcap(lying)) == ("", whole) or "TCP" in name or "fragment" in name or "IPv4" in name
        error, found = opened(c.pcap(lying))
        assert error == ""
        assert len(found) >= len(whole)


def costs(data: bytes) -> tuple[float, int]:
    """Seconds of the processor's, and the most bytes, that a file takes."""
    tracemalloc.start()
    start = time.process_time()
    try:
        opened(data)
        return time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def many(count: int, make: Any) -> bytes:
    return c.pcap((n, make(n)) for n in range(count))


EXPENSIVE: dict[str, Any] = {
    "fragments that never end": lambda: many(
        5000, lambda n: c.ethernet(c.ipv4(bytes(24), ident=n & 0xFFFF, fragment=0x2000 | n >> 16))
    ),
    "fragments of one byte's overlap": lambda: many(
        5000, lambda n: c.ethernet(c.ipv4(bytes(16), ident=7, fragment=0x2000 | n))
    ),
    "connections without end": lambda: many(
        3000, lambda n: c.ethernet(c.ipv4(c.tcp(1, 0, 2), addresses=(struct.pack(">I", n), c.SERVER)))
    ),
    "segments with holes": lambda: many(
        6000, lambda n: c.ethernet(c.ipv4(c.tcp(n * 3, 1, 16, b"x", ports=(5, 22))))
    ),
    "segments backwards": lambda: many(
        6000, lambda n: c.ethernet(c.ipv4(c.tcp(100_000 - n, 1, 16, b"xy", ports=(5, 22))))
    ),
    "interfaces": lambda: c.section() + c.interface() * 4000,
    "empty key logs": lambda: NG + c.secrets(b"") * 20_000,
    "a key log of one long line": lambda: NG + c.secrets(b"0" * 1_000_000),
    "a bomb": lambda: gzip.compress(c.pcap([])[:24] + bytes(3_000_000)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPENSIVE)
def test_what_is_written_to_cost_much(name: str) -> None:
    """Under tracemalloc everything takes some times as long as otherwise."""
    seconds, most = costs(EXPENSIVE[name]())
    assert seconds < 10
    assert most < 60_000_000
