"""Captures with key logs put in and taken out: the packets stay, whatever form they came in, and all else too."""

from __future__ import annotations

import gzip
import struct

import pytest

from sshproto.replay.capture.pcapng import Rewriter, block, decryption_secrets, enhanced_packet, interface_description
from sshproto.replay.capture.reader import CaptureError, CaptureLimits, CaptureReader
from tests.support import captures

LOG = b"00112233445566778899aabbccddeeff SHARED_SECRET 0102\n"
RECORDS = [(1_700_000_000_123_456_000, b"one"), (1_700_000_001_000_000_000, b"packet two"), (5_000, b"")]


def rewrite(data, key_log=LOG, *, size=None, **options):
    rewriter = Rewriter(key_log, **options)
    size = size or len(data) or 1
    return b"".join(rewriter.rewrite(data[place : place + size] for place in range(0, len(data), size))), rewriter


def read(data):
    reader = CaptureReader()
    packets = [
        (time, link_type, bytes(raw[start:stop]), length)
        for batch in reader.read([data])
        for _, time, link_type, raw, start, stop, length in batch
    ]
    return packets, reader


def blocks(data, order="<"):
    place, found = 0, []
    while place < len(data):
        kind, total = struct.unpack_from(order + "II", data, place)
        found.append((kind, data[place : place + total]))
        place += total
    return found


# ----------------------------------------------------------------------------------------------------------------- pcap


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nano", [True, False])
@pytest.mark.parametrize("link_type", [1, 113, 276])
def test_pcap_becomes_pcapng(order, nano, link_type):
    data = captures.pcap(RECORDS, order=order, nano=nano, link_type=link_type)
    out, _ = rewrite(data)
    packets, reader = read(out)
    assert packets == read(data)[0]
    assert reader.form == "pcapng"
    assert reader.secrets == [LOG]
    assert reader.cut is None
    [interface] = reader.interfaces
    assert (interface.link_type, interface.snaplen) == (link_type, 65535)
    assert interface.ticks == (1_000_000_000 if nano else 1_000_000)
    assert [kind for kind, _ in blocks(out)] == [0x0A0D0D0A, 10, 1, 6, 6, 6]


def test_pcap_with_longer_records():
    data = captures.pcap(RECORDS, longer=True)
    assert read(rewrite(data)[0])[0] == read(data)[0]


def test_what_was_not_captured_is_still_known():
    data = bytearray(captures.pcap(RECORDS[:1]))
    data[36:40] = struct.pack("<I", 1500)
    assert read(rewrite(bytes(data))[0])[0][0][3] == 1500


def test_pcap_without_packets():
    packets, reader = read(rewrite(captures.pcap([]))[0])
    assert packets == []
    assert reader.secrets == [LOG]
    assert reader.interfaces[0].link_type == 1


def test_nothing_to_put_in():
    packets, reader = read(rewrite(captures.pcap(RECORDS), b"")[0])
    assert len(packets) == 3
    assert reader.secrets == []


# --------------------------------------------------------------------------------------------------------------- pcapng


@pytest.mark.parametrize("order", "<>")
def test_pcapng_stays_as_it_is(order):
    other = block(0x0BAD, b"whatever it is", order)
    data = captures.pcapng(RECORDS, order=order) + other + captures.statistics(5, order=order)
    out, _ = rewrite(data)
    before, after = blocks(data, order), blocks(out, order)
    assert after[0] == before[0]
    assert after[1][1] == captures.secrets(LOG, order=order)
    assert after[2:] == before[1:]
    assert read(out)[1].secrets == [LOG]


def test_the_length_of_a_section_is_not_told_any_more():
    data = bytearray(captures.pcapng(RECORDS))
    data[16:24] = struct.pack("<q", len(data) - 28)
    out, _ = rewrite(bytes(data))
    assert out[16:24] == b"\xff" * 8
    assert out[28:] == rewrite(captures.pcapng(RECORDS))[0][28:]


def test_several_sections_in_several_orders():
    data = captures.pcapng(RECORDS) + captures.pcapng(RECORDS, order=">")
    out, _ = rewrite(data)
    packets, reader = read(out)
    assert packets == read(data)[0]
    assert reader.secrets == [LOG]
    assert len(reader.interfaces) == 2


def test_removed():
    tls = captures.secrets(b"CLIENT_RANDOM 00 11\n", kind=0x544C534B)
    plain = captures.pcapng(RECORDS)
    head = len(captures.section())
    data = plain[:head] + captures.secrets(b"old\n") + tls + plain[head:] + captures.secrets(b"older\n")
    out, rewriter = rewrite(data, b"", remove=True)
    assert out == plain[:head] + tls + plain[head:]
    assert rewriter.removed == 2
    out, rewriter = rewrite(data, remove=True)
    assert read(out)[1].secrets == [LOG]
    out, rewriter = rewrite(data)
    assert read(out)[1].secrets == [LOG, b"old\n", b"older\n"]
    assert rewriter.removed == 0


def test_a_line_gets_its_end():
    assert decryption_secrets(LOG[:-1]) == decryption_secrets(LOG) == captures.secrets(LOG)


# ------------------------------------------------------------------------------------------------- any cut, any packing


@pytest.mark.parametrize("form", [captures.pcap, captures.pcapng])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 31, 64])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_any_cut(form, size, pack):
    data = form(RECORDS)
    assert rewrite(pack(data), size=size)[0] == rewrite(data)[0]


@pytest.mark.parametrize("form", [captures.pcap, captures.pcapng])
def test_cut_short_anywhere(form):
    data = form(RECORDS)
    whole, _ = rewrite(data)
    for stop in range(len(data)):
        try:
            out, rewriter = rewrite(data[:stop])
        except CaptureError:
            assert stop < 28
            continue
        assert whole.startswith(out)
        assert (rewriter.cut is None) == (read(data[:stop])[1].cut is None)
        assert read(out)[0] == read(data[:stop])[0]


def test_packed_and_cut_short():
    data = gzip.compress(captures.pcap(RECORDS * 100))
    out, rewriter = rewrite(data[:-20])
    assert rewriter.cut is not None
    assert "gzip" in str(rewriter.cut)
    assert read(out)[1].secrets == [LOG]


# --------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("data", [b"", b"abc", b"no capture at all", b"\x0a\x0d\x0d\x0a", captures.section()[:20]])
def test_no_capture(data):
    with pytest.raises(CaptureError):
        rewrite(data)


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (8, b"\0\0\0\0", "byte-order magic at offset 0: is 00000000"),
        (4, struct.pack("<I", 30), "total length at offset 0: is 30"),
        (4, struct.pack("<I", 8), "total length at offset 0: is 8"),
        (24, struct.pack("<I", 32), "total length at offset 0: is 32 at the block's end, 28 at its start"),
        (32, struct.pack("<I", 1 << 30), "total length at offset 28: is 1073741824, at most"),
    ],
)
def test_damaged_blocks(place, value, problem):
    data = bytearray(captures.pcapng(RECORDS))
    data[place : place + len(value)] = value
    with pytest.raises(CaptureError, match=problem):
        rewrite(bytes(data))


def test_a_section_that_is_too_short():
    with pytest.raises(CaptureError, match="is 16, expected 28 or more"):
        rewrite(block(0x0A0D0D0A, struct.pack("<I", 0x1A2B3C4D)))


def test_damaged_gzip():
    data = bytearray(gzip.compress(captures.pcap(RECORDS)))
    data[14] ^= 0xFF
    with pytest.raises(CaptureError, match="gzip"):
        rewrite(bytes(data))


def test_what_is_kept_is_bounded():
    """A long capture comes out as it goes in: what waits is one block at most."""
    rewriter = Rewriter(LOG, limits=CaptureLimits(block=4096))
    packet = enhanced_packet(0, 0, bytes(1000), 1000)
    data = captures.section() + interface_description(1) + packet * 1000
    given = taken = 0
    for place in range(0, len(data), 700):
        taken += len(data[place : place + 700])
        given += sum(map(len, rewriter.feed(data[place : place + 700])))
        assert taken - given < 2000
