"""What is public of real captures, as we see it and as tshark sees it: identifications, offers, fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import attrs
import pytest

from sshproto.replay.analysis import analyze
from sshproto.replay.capture.reader import CaptureReader
from tests.support import captures as c
from tests.support.sniffing import Public, as_tshark_sees_it, as_we_see_it

ETHERNET = 1

Ends = tuple[str, int, str, int]
"""Addresses and ports of who sends, and of who receives."""

Both = dict[tuple[str, Ends], tuple[Public, Public]]
"""By capture and direction: what tshark sees, and what we see."""


@attrs.define
class Heap:
    """Captures in one, for one run of tshark: none has a connection between ports that another has."""

    records: list[c.Record] = attrs.Factory(list[c.Record])
    ours: dict[Ends, Public] = attrs.Factory(dict[Ends, Public])
    where: dict[Ends, str] = attrs.Factory(dict[Ends, str])


@pytest.fixture(scope="module")
def heaps(shared: Path) -> list[Heap]:
    """Captures, where they are of Ethernet, as all but one are."""
    found: list[Heap] = []
    for path in sorted((shared / "captures").rglob("*.pcap*")):
        if path.name.endswith(".dsb.pcapng"):
            continue
        data = path.read_bytes()
        packets = [packet for part in CaptureReader().read([data]) for packet in part]
        if {packet[2] for packet in packets} != {ETHERNET}:
            continue
        ours = {way[1:]: public for way, public in as_we_see_it(analyze(data)).items()}
        heap = next((heap for heap in found if heap.ours.keys().isdisjoint(ours)), None)
        if heap is None:
            heap = Heap()
            found.append(heap)
        heap.records += [(time, packet[start:stop]) for _, time, _, packet, start, stop, _ in packets]
        heap.ours |= ours
        heap.where |= dict.fromkeys(ours, path.name)
    return found


@pytest.fixture(scope="module")
def both(heaps: list[Heap], tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Each side of each connection in which tshark finds SSH, told where to look."""
    pairs: Both = {}
    for number, heap in enumerate(heaps):
        path = tmp_path_factory.mktemp("heaps") / f"{number}.pcap"
        path.write_bytes(c.pcap(heap.records))
        ports = {port for way in heap.ours for port in (way[1], way[3]) if port < 2300 or port == 41644}
        theirs = as_tshark_sees_it(path, *(word for port in ports for word in ("-d", f"tcp.port=={port},ssh")))
        for (_, *ends), public in theirs.items():
            way = cast(Ends, tuple(ends))
            pairs[heap.where.get(way, "?"), way] = public, heap.ours.get(way, Public())
    return pairs


UNSEEN = {"server-pre-banner-data.pcap"}
"""Where tshark finds no identification since lines come before it."""


def test_identifications(both: Both) -> None:
    assert len(both) > 150
    differ = {name for (name, _), (theirs, ours) in both.items() if theirs.version != ours.version}
    assert differ <= UNSEEN


def test_offers(both: Both) -> None:
    assert sum(bool(theirs.lists) for theirs, _ in both.values()) > 90
    for key, (theirs, ours) in both.items():
        if key[0] not in UNSEEN:
            assert theirs.lists == ours.lists, key


def test_fingerprints(both: Both) -> None:
    """tshark takes who was dialled for the server, and so has the fingerprint of the other role where that is wrong."""
    reverse = 0
    for key, (theirs, ours) in both.items():
        for mine, other in zip(ours.hassh, theirs.hassh, strict=True):
            assert other in ("", mine), key
        if theirs.lists:
            assert any(theirs.hassh), key
        reverse += key[0] == "reverse-ssh.pcap" and any(theirs.hassh)
    assert reverse == 2


def test_tshark_sees_no_more_than_we_do(heaps: list[Heap], both: Both) -> None:
    ours = {(heap.where[way], way) for heap in heaps for way, public in heap.ours.items() if public.version}
    theirs = {key for key, (public, _) in both.items() if public.version}
    assert theirs <= ours
    assert {name for name, _ in ours - theirs} <= UNSEEN
