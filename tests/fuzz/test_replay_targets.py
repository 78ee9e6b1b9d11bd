"""The fuzz targets hold for their seeds, and for a sample of what comes of them; what they once found stays found."""

from __future__ import annotations

import random
from importlib import import_module
from pathlib import Path
from types import ModuleType

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz
from fuzz import capture, observer, running
from sshproto.replay.analysis import Analysis, Conversation
from sshproto.replay.events import Missing, Observed
from tests.bench.synthetic import Traffic
from tests.replay.sessions import told
from tests.support import captures as c

TARGETS = [import_module(f"fuzz.{name}") for name in fuzz.TARGETS]
SLOW = {capture, observer}
"""What takes milliseconds for each input, and has tests of its own besides."""

NO_CORPUS = {
    "packets": "what reaches more than its seeds is longer than what is kept",
}
"""Targets without inputs of a run's, and why."""

each = pytest.mark.parametrize("target", TARGETS, ids=fuzz.TARGETS)


def name_of(target: ModuleType) -> str:
    return target.__name__.rpartition(".")[2]


def test_every_target_is_listed() -> None:
    """A module that has a ``fuzz`` and a ``seeds``, and no other, is a target."""
    folder = Path(fuzz.__file__).parent
    found = {
        path.stem for path in folder.glob("*.py") if "__main__" in (text := path.read_text()) and "seeds()" in text
    }
    assert found - {"running", "with_atheris"} == set(fuzz.TARGETS)


@each
def test_seeds(target: ModuleType) -> None:
    seeds = target.seeds()
    assert len(seeds) >= 4
    for seed in seeds if target in SLOW else seeds[:: max(1, len(seeds) // 80)]:
        target.fuzz(seed)


@each
def test_the_corpus(target: ModuleType) -> None:
    """What a run has kept of inputs that reach what the seeds do not."""
    inputs = running.corpus(name_of(target))
    assert bool(inputs) != (name_of(target) in NO_CORPUS)
    for data in inputs:
        target.fuzz(data)


@each
def test_what_it_failed_for_once(target: ModuleType) -> None:
    """Each has a line in NOTES.txt that says what it was."""
    for path in running.files("crashes", name_of(target)):
        assert path.name in (path.parent / "NOTES.txt").read_text()
        target.fuzz(path.read_bytes())


def test_no_input_of_no_target() -> None:
    folder = Path(fuzz.__file__).parent
    kept = {path.name for kind in ("corpus", "crashes") for path in (folder / kind).glob("*")}
    assert kept <= set(fuzz.TARGETS)
    assert sum(path.stat().st_size for path in (folder / "corpus").rglob("*")) < 15_000 * len(fuzz.TARGETS)


@each
def test_a_sample(target: ModuleType) -> None:
    seeds, rng = target.seeds(), random.Random(7)
    mutator = getattr(target, "mutate", running.mutate)
    for _ in range(100):
        target.fuzz(mutator(rng.choice(seeds), seeds, rng))


@each
def test_any_bytes(target: ModuleType) -> None:
    """As hypothesis finds them: bytes, and seeds of which some bytes are others."""
    seeds = [seed for seed in target.seeds() if len(seed) < 3000] or [b""]

    @settings(max_examples=100, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=200), st.sampled_from(seeds), st.integers(0, 3000), st.booleans())
    def run(data: bytes, seed: bytes, place: int, alone: bool) -> None:
        target.fuzz(data if alone else seed[:place] + data + seed[place + len(data) :])

    run()


def test_seeds_open() -> None:
    """They reach what they are for: connections whose keys are known, and all of whose packets open."""
    opened = [capture._outcome([seed]) for seed in capture.seeds()[:9]]
    for compression, frames, error, found in opened:
        assert (compression in ("", "gzip"), error) == (True, "")
        assert frames >= 40
        assert any(values["decrypted"] or values["hassh"] for _, values, _, _ in found)
    assert sum(bool(values["decrypted"]) for *_, found in opened for _, values, _, _ in found) >= 10


# ------------------------------------------------------------------------------------------------- what was found once


def test_connections_are_told_in_the_order_of_the_capture() -> None:
    """Not one after the other, as far as a chunk of the file goes: what comes twice would be found in either."""
    data = b"".join(Traffic.make(keys=1, transfer=1000, suites=(("aes128-ctr", "hmac-sha2-256"),)).pcap(60_000))
    told_of = [codes for _, _, codes, _ in capture._outcome([data])[3]]
    for size in (50, 1000, 20_000):
        pieces = [data[place : place + size] for place in range(0, len(data), size)]
        assert [codes for _, _, codes, _ in capture._outcome(pieces)[3]] == told_of
    whole = order([data])
    assert len({number for number, _ in whole}) > 5
    assert order([data[place : place + 999] for place in range(0, len(data), 999)]) == whole


@attrs.frozen
class Listener:
    number: int
    found: list[tuple[int, str]]

    def add(self, seen: Observed, /) -> None:
        self.found.append((self.number, type(seen.event).__name__))


def order(chunks: list[bytes]) -> list[tuple[int, str]]:
    """Of which connection the events are, and what, as they are told."""
    found: list[tuple[int, str]] = []

    def listen(conversation: Conversation) -> None:
        conversation.sinks.append(Listener(conversation.connection.number, found))

    list(Analysis(ask=listen).read(chunks))
    return found


def test_what_shows_at_the_end_has_no_frame() -> None:
    """Frames count from 1: there is no frame 0, which a gap at the end of a capture was said to be in."""
    talk = c.Talk().dial()
    talk.send(0, b"SSH-2.0-x\r\n")
    talk.send(1, b"SSH-2.0-y\r\n")
    talk.segments.remove(talk.send(0, bytes(100)))
    talk.send(0, bytes(50))
    analysis = Analysis(keep=True)
    (found,) = [*analysis.read([c.pcap(talk.records())]), *analysis.finish()]
    (missing,) = [seen for seen in found.events if isinstance(seen.event, Missing)]
    assert missing.frames == ()
    assert all(frame > 0 for seen in found.events for frame in seen.frames)
    assert len(told(found.events, Missing)) == 1
