"""Capture files: what is written reads back, in whatever form and pieces; what is damaged is refused, or stated."""

from __future__ import annotations

import gzip
import itertools
import mmap
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto.errors import SSHError, WireError
from sshproto.replay.capture.inflate import InflateLimits
from sshproto.replay.capture.reader import CaptureError, CaptureLimits, CaptureReader
from tests.support import captures as c

ORDERS = ("<", ">")
TIMES = st.integers(0, (1 << 32) * 1_000_000_000 - 1)
RECORDS = st.lists(st.tuples(TIMES, st.binary(max_size=100)), max_size=12)
SOME = [(1_700_000_000_123_456_789 + n * 1000, bytes([n]) * (n * 7 % 23)) for n in range(9)]

FORMS = {
    f"{name}{order}": lambda records, order=order, writer=writer: writer(records, order=order)
    for order in ORDERS
    for name, writer in {
        "pcap": c.pcap,
        "micro": lambda records, order: c.pcap(records, order=order, nano=False),
        "longer": lambda records, order: c.pcap(records, order=order, longer=True),
        "pcapng": c.pcapng,
    }.items()
}


def zstd_compress(data: bytes) -> bytes:
    try:
        from compression import zstd
    except ImportError:
        zstd = pytest.importorskip("backports.zstd", reason="zstd comes with: pip install 'sshproto[zstd]'")
    return zstd.compress(data)


def read(data: bytes, *, cuts: list[int] | None = None, limits: CaptureLimits | None = None):
    """The packets, the reader, and the error at the end."""
    reader = CaptureReader(limits)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts or ()), len(data)]
    packets, error = [], None
    try:
        for batch in reader.read(data[a:b] for a, b in itertools.pairwise(places)):
            assert batch
            packets += [(frame, time, link, d[a:b], length) for frame, time, link, d, a, b, length in batch]
    except CaptureError as caught:
        error = caught
    return packets, reader, error


def good(data: bytes, **options):
    packets, reader, error = read(data, **options)
    assert error is None
    assert reader.cut is None
    return packets, reader


def bad(data: bytes, **options) -> CaptureError:
    _, _, error = read(data, **options)
    assert error is not None
    assert isinstance(error, WireError)
    return error


# ----------------------------------------------------------------------------------------------------------- reads back


@pytest.mark.parametrize("form", FORMS)
@given(records=RECORDS, cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_what_is_written_reads_back(form, records, cuts):
    packets, reader = good(FORMS[form](records), cuts=cuts)
    tick = 1000 if form[:-1] in {"micro", "longer"} else 1
    assert [(time, data) for _, time, _, data, _ in packets] == [(t // tick * tick, data) for t, data in records]
    assert [frame for frame, *_ in packets] == list(range(1, len(records) + 1))
    assert {link for _, _, link, _, _ in packets} <= {1}
    assert reader.frames == len(records)
    assert reader.form == ("pcapng" if form.startswith("pcapng") else "pcap")


@pytest.mark.parametrize("form", FORMS)
def test_one_byte_at_a_time(form):
    data = FORMS[form](SOME)
    whole, _ = good(data)
    assert good(data, cuts=list(range(len(data))))[0] == whole


def test_from_any_kind_of_buffer():
    data = c.pcap(SOME)
    whole, _ = good(data)
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = data
        for buffer in (bytearray(data), memoryview(data), mapped):
            packets = [p for batch in CaptureReader().read([buffer]) for p in batch]
            assert [(p[0], p[1], p[2], p[3][p[4] : p[5]], p[6]) for p in packets] == whole


def test_frames_go_on_from_where_another_file_ended():
    reader = CaptureReader(frames=10)
    assert [packet[0] for batch in reader.read([c.pcap(SOME)]) for packet in batch] == list(range(11, 20))


def test_the_link_type_is_the_lower_half():
    data = bytearray(c.pcap(SOME, link_type=113))
    data[23] = 0x5C  # frames have check sequences of 4 bytes
    packets, reader = good(bytes(data))
    assert {link for _, _, link, _, _ in packets} == {113}
    assert [i.link_type for i in reader.interfaces] == [113]


def test_lengths_on_the_wire_are_told():
    file = c.section() + c.interface(snaplen=3) + c.enhanced(5, b"abc", length=1500) + c.simple(b"abcd", length=9)
    packets, reader = good(file)
    assert [(data, length) for *_, data, length in packets] == [(b"abc", 1500), (b"abc", 9)]
    assert reader.interfaces[0].snaplen == 3


@pytest.mark.parametrize("order", ORDERS)
def test_all_kinds_of_packet_blocks(order):
    resolution = c.option(9, b"\x03", order=order) + c.option(0, b"", order=order)
    file = (
        c.section(order=order)
        + c.interface(101, order=order, options=resolution)
        + c.interface(1, order=order)
        + c.simple(b"no time", order=order)
        + c.obsolete(5000, b"old", order=order)
        + c.simple(b"time of the one before", order=order)
        + c.enhanced(7_000_001, b"new", order=order, number=1)
    )
    packets, _ = good(file)
    assert [packet[1:4] for packet in packets] == [
        (0, 101, b"no time"),
        (5_000_000_000, 101, b"old"),
        (5_000_000_000, 101, b"time of the one before"),
        (7_000_001_000, 1, b"new"),
    ]


@pytest.mark.parametrize(
    ("resolution", "ticks", "time"),
    [
        (b"\x00", 3, 3_000_000_000),
        (b"\x06", 3, 3_000),
        (b"\x09", 3, 3),
        (b"\x0c", 12_345, 12),
        (b"\x7f", 1 << 63, 0),
        (b"\x80", 3, 3_000_000_000),
        (b"\x8a", 1024, 1_000_000_000),
        (b"\xff", 1 << 63, 0),
        (b"", 3, 3_000),
    ],
)
def test_resolutions(resolution, ticks, time):
    offset = c.option(14, struct.pack("<q", -2))
    file = c.section() + c.interface(options=c.option(9, resolution) + offset) + c.enhanced(ticks, b"")
    packets, _ = good(file)
    assert packets[0][1] == time - 2_000_000_000


def test_sections_have_their_own_order_and_interfaces():
    first, second = c.pcapng(SOME, order="<"), c.pcapng(SOME, order=">", link_type=113)
    packets, reader = good(first + second)
    assert [packet[2] for packet in packets] == [1] * 9 + [113] * 9
    assert [packet[0] for packet in packets] == list(range(1, 19))
    assert [(i.section, i.number) for i in reader.interfaces] == [(0, 0), (1, 0)]
    error = bad(c.section() + c.interface() + c.section() + c.enhanced(0, b""))
    assert error.field == "interface"


def test_what_else_stands_in_a_pcapng():
    file = (
        c.section()
        + c.interface(options=c.option(2, b"eth0"))
        + c.secrets(b"line 1\n")
        + c.block(4, b"names")
        + c.secrets(b"CLIENT_RANDOM", kind=0x544C534B)
        + c.block(0x0BAD, b"custom")
        + c.enhanced(0, b"x")
        + c.secrets(b"line 2\n")
        + c.statistics(5)
        + c.statistics(7)
    )
    packets, reader = good(file)
    assert len(packets) == 1
    assert reader.secrets == [b"line 1\n", b"line 2\n"]
    assert reader.skipped == 3
    assert reader.dropped == 7
    assert reader.interfaces[0].name == "eth0"
    assert good(c.pcapng(SOME))[1].dropped is None


# ----------------------------------------------------------------------------------------------------------- compressed


@pytest.mark.parametrize("form", ["pcap<", "pcapng>"])
@given(records=RECORDS, cuts=st.lists(st.integers(0, 10_000), max_size=8), split=st.integers(0, 2000))
def test_gzip_reads_back(form, records, cuts, split):
    data = FORMS[form](records)
    whole, _ = good(data)
    members = gzip.compress(data[:split]) + gzip.compress(data[split:]) + bytes(split % 5)
    packets, reader = good(members, cuts=cuts)
    assert packets == whole
    assert reader.compression == "gzip"


@pytest.mark.parametrize("split", [0, 5, 24, 100, 10_000])
def test_zstd_reads_back(split):
    data = c.pcap(SOME)
    whole, _ = good(data)
    skippable = struct.pack("<II", 0x184D2A53, 3) + b"any"
    for file in (
        zstd_compress(data[:split]) + zstd_compress(data[split:]),
        skippable + zstd_compress(data),
        zstd_compress(data) + skippable,
    ):
        for cuts in ([], list(range(len(file)))):
            packets, reader = good(file, cuts=cuts)
            assert packets == whole
            assert reader.compression == "zstd"


def test_without_zstd(monkeypatch):
    import builtins

    real = builtins.__import__

    def refuse(name, *rest):
        if name in {"compression", "backports"}:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    error = bad(b"\x28\xb5\x2f\xfd" + bytes(20))
    assert "sshproto[zstd]" in str(error)


@pytest.mark.parametrize("compress", [gzip.compress, zstd_compress], ids=["gzip", "zstd"])
def test_a_compressed_file_that_is_cut(compress):
    data = compress(c.pcap([(n, bytes([n % 251]) * 50) for n in range(500)]))
    for size in range(4, len(data), 7):
        packets, reader, error = read(data[:size])
        assert error is None
        assert reader.cut is not None
        assert len(packets) < 501
    assert "middle of a member" in str(reader.cut)


def test_gzip_that_is_damaged():
    data = bytearray(gzip.compress(c.pcap(SOME)))
    data[-5] ^= 1  # of the checksum
    error = bad(bytes(data))
    assert error.where == "gzip data"
    assert "incorrect data check" in error.problem
    assert "another member" in str(bad(gzip.compress(c.pcap(SOME)) + b"more than that"))


def big(count: int) -> bytes:
    """A capture in gzip that inflates to ``count`` megabytes, of zeros for the most part."""
    record = struct.pack("<IIII", 0, 0, 65536, 65536) + bytes(65536)
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(c.pcap([]))]
    parts += [packer.compress(record * 16) for _ in range(count)]
    return b"".join(parts) + packer.flush()


def test_what_inflates_too_far():
    data = big(100)
    assert "at most 400 for one" in str(bad(data))
    assert "more than 10000000 bytes" in str(bad(data, limits=CaptureLimits(inflate=InflateLimits(total=10_000_000))))
    generous = CaptureLimits(inflate=InflateLimits(ratio=2000))
    packets, reader = good(big(5), limits=generous)
    assert len(packets) == 80 == reader.frames


def test_memory_stays_flat():
    data = big(60)
    reader = CaptureReader()
    tracemalloc.start()
    try:
        for batch in reader.read([data]):
            assert batch
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reader.frames == 960
    assert peak < 4_000_000


# ------------------------------------------------------------------------------------------------------ cut and damaged


@pytest.mark.parametrize("form", FORMS)
def test_cut_at_every_byte(form):
    data = FORMS[form](SOME)
    whole, _ = good(data)
    ends = set()
    for size in range(len(data)):
        packets, reader, error = read(data[:size])
        assert error is None
        assert packets == whole[: len(packets)]
        if reader.cut is None:
            ends.add(len(packets))
        else:
            assert reader.cut.offset <= size
            assert str(reader.cut.offset) in str(reader.cut)
    assert ends == set(range(9))  # between any two packets, and nowhere else


def test_a_cut_is_stated():
    reader = read(c.pcap(SOME)[:-3])[1]
    assert reader.cut is not None
    assert reader.cut.where == "pcap after frame 8"
    assert "ends 23 bytes in, 26 or more were expected" in str(reader.cut)


def test_an_empty_file_is_cut():
    reader = CaptureReader()
    assert list(reader.read([])) == []
    assert "ends 0 bytes in" in str(reader.cut)


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.2\r\n", bytes(24), b"\x0a\x0d\x0d\x0a" + bytes(24)])
def test_what_is_no_capture(data):
    error = bad(data)
    assert error.offset == 0
    assert "magic" in str(error)


def test_after_damage_the_error_stays():
    data = c.pcap(SOME) + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 1)
    reader = CaptureReader()
    seen = 0
    with pytest.raises(CaptureError) as caught:
        for batch in reader.feed(data):
            seen += len(batch)
    assert seen == 9  # what stands before is given
    assert caught.value.where == "pcap record 10"
    assert caught.value.field == "captured length"
    assert caught.value.offset == len(data) - 16
    assert "4294967295, at most 1048576" in str(caught.value)
    for again in (lambda: list(reader.feed(b"more")), reader.finish):
        with pytest.raises(CaptureError) as second:
            again()
        assert second.value is caught.value


IDB = c.section() + c.interface()


@pytest.mark.parametrize(
    ("data", "where", "field"),
    [
        (c.pcap([])[:4] + b"\x03" + c.pcap([])[5:], "pcap header", "version"),
        (c.section(major=2), "pcapng Section Header Block", "version"),
        (c.section()[:8] + b"\x1a\x2b\x3c\x4e" + bytes(20), "pcapng Section Header Block", "byte-order magic"),
        (c.block(0x0A0D0D0A, b"\x4d\x3c\x2b\x1a"), "pcapng Section Header Block", "total length"),
        (IDB + struct.pack("<III", 6, 11, 0), "pcapng Enhanced Packet Block", "total length"),
        (IDB + struct.pack("<IIII", 6, 13, 0, 0), "pcapng Enhanced Packet Block", "total length"),
        (IDB + struct.pack("<IIII", 6, 16, 0, 12), "pcapng Enhanced Packet Block", "total length"),
        (IDB + c.block(6, bytes(16)), "pcapng Enhanced Packet Block", "total length"),
        (IDB + c.block(6, struct.pack("<IIIII", 0, 0, 0, 1, 1)), "pcapng Enhanced Packet Block", "captured length"),
        (IDB + c.block(6, struct.pack("<IIIII", 1, 0, 0, 0, 1)), "pcapng Enhanced Packet Block", "interface"),
        (IDB + struct.pack("<III", 6, 0x7FFFFFFC, 0), "pcapng Enhanced Packet Block", "total length"),
        (IDB + c.block(2, bytes(16)), "pcapng Packet Block", "total length"),
        (IDB + c.block(2, struct.pack("<HHIIII", 0, 0, 0, 0, 9, 9)), "pcapng Packet Block", "captured length"),
        (IDB + c.block(2, struct.pack("<HHIIII", 1, 0, 0, 0, 0, 0)), "pcapng Packet Block", "interface"),
        (c.section() + c.simple(b""), "pcapng Simple Packet Block", ""),
        (IDB + c.block(3, b""), "pcapng Simple Packet Block", ""),
        (c.section() + c.block(1, b"1234"), "pcapng Interface Description Block", "total length"),
        (c.section() + c.interface(options=b"\x09\0\x05\0"), "pcapng Interface Description Block", "option"),
        (c.section() + c.block(10, b"1234"), "pcapng Decryption Secrets Block", "total length"),
        (c.section() + c.block(10, struct.pack("<II", 1, 1)), "pcapng Decryption Secrets Block", "secrets length"),
        (IDB + c.block(5, b""), "pcapng Interface Statistics Block", "total length"),
    ],
)
def test_damage_is_named(data, where, field):
    error = bad(data + bytes(100))
    assert (error.where, error.field) == (where, field)
    assert bad(data + bytes(100), cuts=list(range(len(data) + 100))).args == error.args


def test_floods_are_bounded():
    assert "one more than the 4096" in str(bad(c.section() + c.interface() * 4097))
    error = bad(c.section() + c.secrets(b"") * 1000, limits=CaptureLimits(secrets=10_000))
    assert error.field == "secrets length"
    error = bad(c.section() + c.interface() + c.enhanced(0, bytes(5000)), limits=CaptureLimits(packet=4999))
    assert error.field == "captured length"
    error = bad(c.section() + c.interface() + c.simple(bytes(5000)), limits=CaptureLimits(packet=4999))
    assert error.field == "captured length"
    assert len(good(c.pcapng([(0, bytes(5000))]), limits=CaptureLimits(packet=5000))[0]) == 1


@pytest.mark.parametrize("cuts", [[], list(range(1000))])
def test_long_blocks_of_no_interest_are_skipped(cuts):
    file = IDB + c.block(0x0BAD, bytes(400)) + c.enhanced(0, b"x")
    packets, reader = good(file, cuts=cuts, limits=CaptureLimits(block=100))
    assert len(packets) == reader.skipped == 1
    reader = read(file[:200], cuts=cuts, limits=CaptureLimits(block=100))[1]
    assert reader.cut is not None
    assert "total length" in str(bad(IDB + c.secrets(bytes(200)), cuts=cuts, limits=CaptureLimits(block=100)))


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
@settings(max_examples=200)
def test_flipped_bits(form, data):
    file = bytearray(FORMS[form](SOME))
    for place in data.draw(st.lists(st.integers(0, len(file) * 8 - 1), min_size=1, max_size=5)):
        file[place // 8] ^= 1 << place % 8
    cuts = data.draw(st.lists(st.integers(0, len(file)), max_size=3))
    packets, _, error = read(bytes(file))
    again, _, error2 = read(bytes(file), cuts=cuts)
    assert packets == again
    assert (error and error.args) == (error2 and error2.args)
    assert sum(len(packet[3]) for packet in packets) <= 9 * 23 + 100


@given(flips=st.lists(st.integers(0, 10_000), min_size=1, max_size=5), cuts=st.lists(st.integers(0, 1000), max_size=3))
def test_flipped_bits_in_gzip(flips, cuts):
    file = bytearray(gzip.compress(c.pcap(SOME)))
    for place in flips:
        file[place // 8 % len(file)] ^= 1 << place % 8
    packets, _, _ = read(bytes(file))
    again, _, _ = read(bytes(file), cuts=cuts)  # zlib keeps for itself what it inflated just before it saw the damage
    assert packets[: len(again)] == again[: len(packets)]


@given(start=st.sampled_from([c.pcap([]), IDB, c.section(order=">"), b"\x1f\x8b\x08\0", b""]), rest=st.binary())
def test_any_bytes(start, rest):
    read(start + rest)


# ----------------------------------------------------------------------------------------------------------- recordings


def test_recordings(shared):
    """Each capture of the lab stands there twice; with its key log inside, the packets are the same."""
    for path in sorted((shared / "captures" / "lab").glob("*.pcap")):
        packets, _ = good(path.read_bytes())
        again, reader = good(path.with_suffix(".dsb.pcapng").read_bytes())
        assert packets == again
        assert b"".join(reader.secrets).split() == path.with_suffix(".keylog").read_bytes().split()


def test_public_captures(shared):
    count = 0
    for path in sorted((shared / "captures" / "public").rglob("*.pcap*")):
        data = path.read_bytes()
        packets, reader = good(data)
        assert packets, path
        assert good(data, cuts=list(range(0, len(data), 1000)))[0] == packets
        assert reader.compression == ("gzip" if path.suffix == ".gz" else "")
        count += 1
    assert count


def test_errors_are_ours():
    assert issubclass(CaptureError, SSHError)
    error = CaptureError("pcap record 3", "captured length", 99, "is 5, expected 4")
    assert str(error) == "pcap record 3.captured length at offset 99: is 5, expected 4"
