"""What is kept of captures is bounded, whatever their size, and however many connections go on in them."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Iterator

import pytest

from sshproto.replay.analysis import Analysis, AnalysisLimits
from sshproto.replay.capture.reassembly import ReassemblyLimits
from sshproto.replay.events import KeysMissing, Observed, PacketSealed, Reopened, Side
from sshproto.replay.observer import Observer
from sshproto.replay.secrets import Secrets
from tests.bench.synthetic import Traffic
from tests.replay.sessions import Recording, drain, observe, session, told

MB = 1_000_000


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic.make(keys=20, transfer=100_000)


@pytest.fixture(scope="module")
def plain() -> Recording:
    return session()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What only the garbage collector would free stays: it counts objects, not the megabytes in them."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def found(analysis: Analysis, chunks: Iterator[bytes]) -> int:
    """How many connections there are; none is kept."""
    return sum(1 for part in (analysis.read(chunks), analysis.finish()) for _ in part)


@pytest.mark.parametrize("keys", [False, True], ids=["without keys", "with keys"])
def test_memory_stays_flat(traffic: Traffic, keys: bool) -> None:
    """Of 6 MB hardly more is kept than of 2 MB: a little that connections leave behind, for some time."""
    peaks: list[int] = []
    secrets = Secrets()
    secrets.add_key_log(traffic.key_log if keys else "")
    for size in (2, 6):
        analysis = Analysis(secrets, limits=AnalysisLimits(reassembly=ReassemblyLimits(history=100_000)))
        tracemalloc.start()
        try:
            count = found(analysis, traffic.pcap(size * MB))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert count > 7 * size
    assert peaks[0] < 4 * MB
    assert peaks[1] - peaks[0] < 0.8 * MB


@pytest.mark.usefixtures("no_collector")
def test_an_observer_is_gone_when_nobody_wants_it(plain: Recording) -> None:
    for secrets in (None, plain.secrets):
        observer = Observer(secrets)
        for side, data in plain.wire:
            observer.feed(side, data)
        drain(observer)
        gone = weakref.ref(observer)
        del observer
        assert gone() is None


@pytest.mark.usefixtures("no_collector")
def test_a_conversation_is_gone_when_nobody_wants_it(traffic: Traffic) -> None:
    analysis = Analysis()
    gone = [weakref.ref(each.observer) for each in analysis.read(traffic.pcap(MB))]
    assert len(gone) > 4
    assert [each() for each in gone] == [None] * len(gone)


def test_what_is_held_for_late_keys_is_bounded_in_all(traffic: Traffic) -> None:
    most = 0
    chunks = traffic.pcap(2 * MB, together=12)

    def watched() -> Iterator[bytes]:
        nonlocal most
        for chunk in chunks:
            yield chunk
            most = max(most, sum(each.observer.held for each in analysis.living))

    analysis = Analysis(limits=AnalysisLimits(hold_total=300_000))
    assert found(analysis, watched()) > 10
    assert 150_000 < most < 350_000


def test_who_lets_go_shows_all_the_same(plain: Recording) -> None:
    usual = told(observe(plain.wire), PacketSealed)
    for moment in (0, 5, len(plain.wire) // 2, len(plain.wire)):
        observer = Observer()
        events: list[Observed] = []
        for place, (side, data) in enumerate([*plain.wire, (Side.DIALLER, b"")]):
            if place == moment:
                observer.let_go()
            observer.feed(side, data)
            events += drain(observer)
            assert not observer.held or place < moment
        observer.finish()
        observer.kex.secrets.add_key_log("\n".join(plain.key_log))
        observer.add_secrets()
        events += drain(observer)
        assert told(events, PacketSealed) == usual
        assert len(told(events, KeysMissing)) == 2
        assert not told(events, Reopened)


def test_what_nobody_looks_at_is_not_told_of(traffic: Traffic) -> None:
    """Sizes of what is sealed cost as much as all else; the summary is the same without."""
    data = b"".join(traffic.pcap(MB // 2))
    found: dict[bool, list[object]] = {}
    for keep in (False, True):
        conversations = list(Analysis(keep=keep).read([data]))
        assert {it.observer.sizes for it in conversations} == {keep}
        assert all(bool(told(it.events, PacketSealed)) is keep for it in conversations)
        found[keep] = [(it.summary.as_dict(), it.summary.problems, it.findings) for it in conversations]
    assert len(found[True]) > 3
    assert found[False] == found[True]
