"""From packets to TCP segments: every layer on the way, fragments, and what is cut, malformed or no TCP."""

from __future__ import annotations

import copy
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto.replay.capture.network import Network, NetworkLimits
from tests.support import captures as c
from tests.support.captures import ACK, SYN, ethernet, ipv4, ipv6, tcp

DATA = b"SSH-2.0-test\r\n"
TCP = tcp(7, 9, ACK, DATA)
V4, V6 = ipv4(TCP), ipv6(TCP)
PORTS = struct.pack(">HH", 40000, 22)
FLOW4 = c.CLIENT + c.SERVER + PORTS
FLOW6 = c.CLIENT6 + c.SERVER6 + PORTS


def feed(network: Network, packet: bytes, link_type: int = 1, *, captured: int | None = None, time: int = 5):
    """The segments of one packet, which stands at the end of the data or, with the same effect, among other bytes."""
    stop = 3 + (len(packet) if captured is None else captured)
    data = b"abc" + packet
    other = copy.deepcopy(network)
    alone = other.segments([(1, time, link_type, data[:stop], 3, stop, len(packet))])
    found = network.segments([(1, time, link_type, data + b"\xff" * 80, 3, stop, len(packet))])
    assert [s[6][s[7] : s[8]] for s in alone] == [s[6][s[7] : s[8]] for s in found]
    assert network.skipped == other.skipped
    return found


def one(packet: bytes, link_type: int = 1, **options):
    network = Network()
    (segment,) = feed(network, packet, link_type, **options)
    frame, time, flow, seq, ack, flags, data, start, stop, missing = segment
    assert (frame, time) == (1, 5)
    assert (network.packets, network.segments_found, network.skipped) == (1, 1, {})
    assert network.cut == bool(missing)
    return flow, seq, ack, flags, data[start:stop], missing


def reason(packet: bytes, link_type: int = 1, **options) -> str:
    network = Network()
    assert feed(network, packet, link_type, **options) == []
    ((why, count),) = network.skipped.items()
    assert count == 1
    return why


WHOLE4 = (FLOW4, 7, 9, ACK, DATA, 0)
WHOLE6 = (FLOW6, 7, 9, ACK, DATA, 0)


# ---------------------------------------------------------------------------------------------------------------- links


def vlan(payload: bytes, kind: int, tag: int = 0x8100) -> bytes:
    return ethernet(struct.pack(">HH", 5, kind) + payload, tag)


def nflog(payload: bytes, order: str) -> bytes:
    attributes = struct.pack(order + "HH", 7, 10) + b"abc" + b"\0" + struct.pack(order + "HH", 4 + len(payload), 9)
    return bytes((2, 0, 0, 5)) + attributes + payload


LINKS = {
    "Ethernet": (1, ethernet(V4)),
    "raw": (101, V4),
    "raw, BSD": (12, V4),
    "raw, OpenBSD": (14, V4),
    "IPv4": (228, V4),
    "null, little": (0, b"\2\0\0\0" + V4),
    "null, big": (0, b"\0\0\0\2" + V4),
    "loop": (108, b"\0\0\0\2" + V4),
    "cooked": (113, bytes(14) + b"\x08\0" + V4),
    "cooked 2": (276, b"\x08\0" + bytes(18) + V4),
    "PPP": (9, b"\0\x21" + V4),
    "PPP, HDLC": (50, b"\xff\3\0\x21" + V4),
    "PPP, short": (9, b"\x21" + V4),
    "PPP, direction": (204, b"\1\xff\3\0\x21" + V4),
    "PPPoE": (51, b"\x11\0\0\5\0\0" + b"\0\x21" + V4),
    "Cisco": (104, b"\x0f\0\x08\0" + V4),
    "IPsec": (109, bytes(12) + V4),
    "pflog": (117, bytes((61,)) + bytes(63) + V4),
    "nflog, little": (239, nflog(V4, "<")),
    "nflog, big": (239, nflog(V4, ">")),
    "pktap": (258, struct.pack("<III", 20, 1, 1) + bytes(8) + ethernet(V4)),
    "padded": (1, ethernet(V4) + bytes(9)),
}

TAGS = {
    "VLAN": vlan(V4, 0x0800),
    "QinQ": ethernet(struct.pack(">HHHH", 5, 0x8100, 6, 0x0800) + V4, 0x88A8),
    "SNAP": ethernet(b"\xaa\xaa\3\0\0\0\x08\0" + V4, len(V4) + 8),
    "MPLS": ethernet(b"\0\0\x10\xff" + b"\0\0\x11\xff" + V4, 0x8847),
    "PPPoE": ethernet(b"\x11\0\0\5\0\0" + b"\0\x21" + V4, 0x8864),
    "VLAN, PPPoE": vlan(b"\x11\0\0\5\0\0" + b"\0\x21" + V4, 0x8864),
}

TUNNELS = {
    "IP in IP": ipv4(V4, protocol=4),
    "IPv4 in IPv6": ipv6(V4, protocol=4),
    "GRE": ipv4(b"\0\0\x08\0" + V4, protocol=47),
    "GRE with everything": ipv4(b"\xb0\0\x08\0" + bytes(12) + V4, protocol=47),
    "GRE, bridged": ipv4(b"\0\0\x65\x58" + ethernet(V4), protocol=47),
    "ERSPAN 1": ipv4(b"\0\0\x88\xbe" + ethernet(V4), protocol=47),
    "ERSPAN 2": ipv4(b"\x10\0\x88\xbe" + bytes(4) + bytes(8) + ethernet(V4), protocol=47),
    "ERSPAN 3": ipv4(b"\x10\0\x22\xeb" + bytes(4) + bytes(11) + b"\1" + bytes(8) + ethernet(V4), protocol=47),
    "VXLAN": ipv4(c.udp(b"\x08" + bytes(7) + ethernet(V4), ports=(9, 4789)), protocol=17),
    "GENEVE": ipv4(c.udp(b"\x02\0\x65\x58" + bytes(4) + bytes(8) + ethernet(V4), ports=(9, 6081)), protocol=17),
    "thrice": ipv4(ipv6(ipv4(V4, protocol=4), protocol=4), protocol=41),
}


@pytest.mark.parametrize("name", LINKS)
def test_links(name):
    link_type, packet = LINKS[name]
    assert one(packet, link_type) == WHOLE4


@pytest.mark.parametrize("name", TAGS)
def test_tags(name):
    assert one(TAGS[name]) == WHOLE4


@pytest.mark.parametrize("name", TUNNELS)
def test_tunnels(name):
    assert one(ethernet(TUNNELS[name], 0x86DD if "in IPv6" in name else 0x0800)) == WHOLE4


@pytest.mark.parametrize(
    ("link_type", "packet"),
    [
        (1, ethernet(V6, 0x86DD)),
        (1, vlan(V6, 0x86DD)),
        (113, bytes(14) + b"\x86\xdd" + V6),
        (276, b"\x86\xdd" + bytes(18) + V6),
        (101, V6),
        (229, V6),
        (9, b"\0\x57" + V6),
        *((0, bytes((family, 0, 0, 0)) + V6) for family in (10, 24, 28, 30)),
        (1, ethernet(ipv4(V6, protocol=41))),
    ],
)
def test_ipv6(link_type, packet):
    assert one(packet, link_type) == WHOLE6


def test_the_short_way_and_the_long_way_agree():
    # The short way wants no options, no tags and Ethernet; these take the one or the other.
    for data in (b"", b"x", bytes(1400)):
        for options in (b"", b"\1\1\1\0", bytes(40)):
            segment = tcp(2**32 - 1, 5, 0x18, data, options=options)
            expected = (FLOW4, 2**32 - 1, 5, 0x18, data, 0)
            for packet in (ipv4(segment), ipv4(segment, options=bytes(8))):
                assert one(ethernet(packet)) == expected
                assert one(packet, 101) == expected
            extended = ipv6(struct.pack(">BBHI", 6, 0, 0, 0) + segment, protocol=60)
            for packet6 in (ipv6(segment), extended):
                assert one(ethernet(packet6, 0x86DD)) == (FLOW6, *expected[1:])


def test_extension_headers():
    chain = b"".join(
        (
            bytes((43, 1)) + bytes(14),  # hop by hop, 16 bytes
            bytes((51, 0)) + bytes(6),  # routing
            bytes((60, 2)) + bytes(14),  # authentication, which counts in units of 4
            struct.pack(">BBHI", 44, 0, 0, 0),  # destination
            struct.pack(">BBHI", 6, 0, 0, 99),  # the only fragment
        )
    )
    assert one(ipv6(chain + TCP, protocol=0), 101) == WHOLE6
    endless = ipv6((struct.pack(">BBHI", 60, 0, 0, 0)) * 40 + TCP, protocol=60)
    assert reason(endless, 101) == "malformed"
    assert reason(ipv6(bytes((6, 200)) + bytes(6) + TCP, protocol=60), 101) == "malformed"
    assert reason(ipv6(b"", protocol=59), 101) == "not TCP"


def test_authentication_headers_of_ipv4():
    header = bytes((6, 4)) + bytes(22)
    assert one(ipv4(header + TCP, protocol=51), 101) == WHOLE4
    assert reason(ipv4(bytes((6, 60)) + bytes(22) + TCP, protocol=51), 101) == "malformed"
    assert reason(ipv4(bytes((6, 0)) + bytes(6) + TCP, protocol=60), 101) == "not TCP"  # of IPv6 alone


def test_lengths_that_the_network_card_will_set():
    assert one(ethernet(ipv4(TCP, total=0))) == WHOLE4
    assert one(ethernet(ipv6(TCP, total=0), 0x86DD)) == WHOLE6


# ----------------------------------------------------------------------------------------------- what brings no segment


@pytest.mark.parametrize(
    ("link_type", "packet", "why"),
    [
        (147, V4, "link type 147"),
        (1, ethernet(V4, 0x0806), "not IP"),
        (1, ethernet(bytes(30), 40), "not IP"),
        (0, b"\5\0\0\0" + V4, "not IP"),
        (9, b"\xc0\x21" + V4, "not IP"),
        (101, b"\x50" + V4[1:], "not IP"),
        (1, ethernet(ipv4(c.udp(DATA), protocol=17)), "not TCP"),
        (1, ethernet(ipv4(b"\x08\0\0\0", protocol=1)), "not TCP"),
        (1, ethernet(ipv4(b"\x40\0\x08\0" + V4, protocol=47)), "not IP"),
        (101, b"\x44" + V4[1:], "malformed"),
        (101, ipv4(TCP, total=19), "malformed"),
        (101, ipv4(TCP, total=30), "malformed"),
        (101, ipv4(TCP[:12] + b"\x40" + TCP[13:]), "malformed"),
        (101, ipv4(TCP[:12] + b"\xf0" + TCP[13:]), "malformed"),
        (239, bytes((2, 0, 0, 5)) + b"\x03\0\x0a\0", "malformed"),
        (258, struct.pack("<III", 12, 1, 258) + V4, "malformed"),
        (258, struct.pack("<III", 11, 1, 101) + V4, "malformed"),
    ],
)
def test_what_brings_none(link_type, packet, why):
    assert reason(packet, link_type) == why


def test_nesting_is_bounded():
    packet = V4
    for _ in range(40):
        packet = ipv4(packet, protocol=4)
    assert reason(packet, 101) == "malformed"
    bridged = b"\x65\x58".join([bytes(12)] * 3000) + b"\x08\0" + V4
    assert reason(bridged) == "malformed"
    assert one(b"\x81\0\0\5".join([bytes(12), *[b""] * 3000]) + b"\x08\0" + V4) == WHOLE4


@pytest.mark.parametrize("link_type", [1, 101])
def test_cut_by_the_snaplen(link_type):
    packet, headers = (ethernet(V4), 54) if link_type == 1 else (V4, 40)
    for captured in range(len(packet)):
        network = Network()
        found = feed(network, packet, link_type, captured=captured)
        if captured < headers - 6:
            assert found == []
            assert network.skipped == {"cut before the end of the headers": 1}
        else:
            (segment,) = found
            data, start, stop, missing = segment[6:]
            assert data[start:stop] == DATA[: max(0, captured - headers)]
            assert missing == len(DATA) - (stop - start)
            assert network.cut == 1


def test_cut_within_options():
    packet = ipv4(tcp(1, 2, SYN, b"xy", options=bytes(20)))
    assert one(packet, 101, captured=50) == (FLOW4, 1, 2, SYN, b"", 2)


ALL = [*LINKS.values(), *((1, packet) for packet in TAGS.values()), *((101, packet) for packet in TUNNELS.values())]


@pytest.mark.parametrize("index", range(len(ALL)))
def test_cut_anywhere(index):
    link_type, packet = ALL[index]
    for size in range(len(packet)):
        for segment in feed(Network(), packet, link_type, captured=size):
            data, start, stop, missing = segment[6:]
            assert DATA.startswith(data[start:stop])
            assert 3 <= start <= stop <= 3 + size
            assert missing >= 0


@given(
    index=st.integers(0, len(ALL) - 1), flips=st.lists(st.integers(0, 2000), min_size=1, max_size=6), cut=st.integers(0)
)
@settings(max_examples=500)
def test_flipped_bits(index, flips, cut):
    link_type, packet = ALL[index]
    changed = bytearray(packet)
    for flip in flips:
        changed[flip // 8 % len(changed)] ^= 1 << flip % 8
    size = len(packet) - cut % 3 * (cut % len(packet)) // 2
    for segment in feed(Network(), bytes(changed), link_type, captured=size):
        flow, seq, ack, flags, data, start, stop, missing = segment[2:]
        assert len(flow) in {12, 36}
        assert 0 <= seq < 2**32 and 0 <= ack < 2**32 and 0 <= flags < 256
        assert 0 <= start <= stop <= len(data)
        assert 0 <= missing <= 0x10000


@given(st.sampled_from([0, 1, 9, 51, 101, 109, 113, 117, 239, 258, 276]), st.binary(max_size=200))
def test_any_bytes(link_type, data):
    network = Network()
    feed(network, data, link_type)
    assert network.segments_found + sum(network.skipped.values()) == 1


# ------------------------------------------------------------------------------------------------------------ fragments

LONG = tcp(1, 2, ACK, bytes(range(256)) * 8)


@pytest.mark.parametrize(
    ("cut", "wrap", "flow"),
    [(c.fragments4, ipv4, FLOW4), (c.fragments6, ipv6, FLOW6)],
    ids=["IPv4", "IPv6"],
)
@given(cuts=st.lists(st.integers(0, len(LONG)), max_size=20), seed=st.integers(0, 1000), twice=st.booleans())
def test_fragments_in_any_order(cut, wrap, flow, cuts, seed, twice):
    fragments = cut(LONG, cuts) * (2 if twice else 1)
    random.Random(seed).shuffle(fragments)
    network = Network()
    found = [segment for packet in fragments for segment in feed(network, packet, 101)]
    assert found
    for segment in found:
        data, start, stop, missing = segment[6:]
        assert segment[2:6] == (flow, 1, 2, ACK)
        assert data[start:stop] == LONG[20:]
        assert missing == 0
    if not twice:
        assert network.incomplete == 0
        assert network.skipped == ({"fragment": len(fragments) - 1} if len(fragments) > 1 else {})


def test_extension_headers_in_fragments():
    """Those of the fragmentable part stand behind the fragment header, and the whole packet has them."""
    options = struct.pack(">BBHI", 43, 0, 0, 0) + struct.pack(">BBHI", 6, 0, 0, 0)
    first, *others = c.fragments6(options + LONG, [800, 1600])
    first = first[:40] + bytes((60,)) + first[41:]
    network = Network()
    found = [segment for packet in (first, *others) for segment in feed(network, packet, 101)]
    assert [(s[2], s[6][s[7] : s[8]]) for s in found] == [(FLOW6, LONG[20:])]


def test_fragments_in_fragments_are_bounded():
    network = Network()
    for ident in range(500):  # each begins with the header of the last fragment of the next
        header = struct.pack(">BBHI", 44, 0, 8, ident + 1)
        feed(network, ipv6(struct.pack(">BBHI", 44, 0, 1, ident) + header, protocol=44), 101)
    assert feed(network, ipv6(struct.pack(">BBHI", 44, 0, 8, 0) + TCP, protocol=44), 101) == []
    assert network.skipped == {"fragment": 500, "malformed": 1}


def test_fragments_that_conflict():
    first, second, last = c.fragments4(LONG, [800, 1600])
    network = Network()
    feed(network, first, 101)
    changed = first[:-1] + b"\xee"
    assert feed(network, changed, 101) == []
    assert network.skipped["malformed or conflicting fragment"] == 1
    assert network.incomplete == 1
    # Nothing of the packet that nobody can know is left over.
    assert feed(network, second, 101) == feed(network, last, 101) == []
    # Overlaps, and an end in two places.
    for wrong in (
        [first, ipv4(LONG[792:], ident=7, fragment=99)],
        [last, ipv4(LONG[1600:-8], ident=7, fragment=200)],
        [last, ipv4(LONG[1608:], ident=7, fragment=201), first, second],
    ):
        network = Network()
        assert [segment for packet in wrong for segment in feed(network, packet, 101)] == []
        assert network.incomplete or network.skipped["fragment"] == len(wrong)


def test_fragments_that_are_malformed():
    assert reason(ipv4(bytes(9), fragment=0x2000), 101) == "malformed or conflicting fragment"
    assert reason(ipv4(b"", fragment=0x2001), 101) == "malformed or conflicting fragment"
    assert reason(ipv4(bytes(80), fragment=0x1FFF), 101) == "malformed or conflicting fragment"
    assert reason(ipv4(bytes(80), fragment=0x2000), 101, captured=60) == "cut before the end of the headers"


def test_fragments_far_apart_are_of_two_packets():
    first, last = c.fragments4(LONG, [800])
    network = Network()
    assert feed(network, first, 101, time=0) == []
    assert feed(network, last, 101, time=61 * c.SECOND) == []
    assert network.incomplete == 1
    assert len(feed(network, first, 101, time=62 * c.SECOND)) == 1


def test_fragments_are_bounded():
    network = Network(NetworkLimits(datagrams=10, fragment_bytes=20_000))
    for ident in range(100):
        feed(network, c.fragments4(LONG, [800], ident=ident)[0], 101)
    assert network.incomplete == 90
    assert len(feed(network, c.fragments4(LONG, [800], ident=99)[1], 101)) == 1
    network = Network(NetworkLimits(datagrams=10, fragment_bytes=20_000))
    for offset in range(0, 8000, 2):
        feed(network, ipv4(bytes(8), ident=1, fragment=0x2000 | offset), 101)
        assert network._fragment_bytes <= 20_000
    assert network.incomplete


# ---------------------------------------------------------------------------------------------------------- recordings


@pytest.mark.parametrize(
    ("name", "segments", "others"),
    [
        ("zeek/ssh-over-udp.pcap", 0, {"not TCP": 2}),
        ("zeek/kex-quadratic-1000.pcap.gz", 11, {}),
        ("zeek/ssh.pcap", 1795, {"not TCP": 2}),
        ("suricata-verify/ssh-hassh.pcap", 24, {"not IP": 6, "not TCP": 5}),
        ("terrapin/rogue_session_attack.pcapng", 89, {}),
    ],
)
def test_recordings(shared, name, segments, others):
    from sshproto.replay.capture.reader import CaptureReader

    network = Network()
    for packets in CaptureReader().read([(shared / "captures" / "public" / name).read_bytes()]):
        network.segments(packets)
    assert (network.segments_found, network.skipped) == (segments, others)
