"""The fuzz targets hold for their seeds, and for a sample of what comes of them; what they once found stays found."""

from __future__ import annotations

import random
from types import ModuleType

import attrs
import pytest

from fuzz import capture, observer
from fuzz.running import mutate
from sshproto.replay.analysis import Analysis, Conversation
from sshproto.replay.events import Missing, Observed
from tests.bench.synthetic import Traffic
from tests.replay.sessions import told
from tests.support import captures as c


@pytest.mark.parametrize("target", [capture, observer], ids=lambda target: target.__name__)
def test_seeds(target: ModuleType) -> None:
    seeds = target.seeds()
    assert len(seeds) >= 9
    for seed in seeds:
        target.fuzz(seed)


@pytest.mark.parametrize("target", [capture, observer], ids=lambda target: target.__name__)
def test_a_sample(target: ModuleType) -> None:
    seeds, rng = target.seeds(), random.Random(7)
    for _ in range(150):
        target.fuzz(mutate(rng.choice(seeds), seeds, rng))


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
