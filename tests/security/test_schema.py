"""Every message damaged in every way that its schema knows, put before a connection that was waiting for it.

Cut at every byte; one byte more; every declared length, count and number at its edges.  Nothing may come of it but what
the samples name: the codec says whether the damaged message still is one, and the samples say what has to happen
then.  What the codecs themselves make of such bytes is tests/unit/wire/test_messages.py's.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from sshproto.auth import methods
from sshproto.channels import requests as r
from sshproto.wire import messages as m
from sshproto.wire.codec import uint32
from tests.support.puppet import Puppet
from tests.support.samples import SAMPLES, Sample, Spot

EDGES = (0, 1, 2**31 - 1, 2**31, 2**32 - 1)

each = pytest.mark.parametrize("sample", SAMPLES, ids=[f"{s.role.value}-{s.name.replace(' ', '-')}" for s in SAMPLES])


def test_every_message_has_a_sample() -> None:
    made = {type(sample.made(sample.ready())) for sample in SAMPLES}
    assert made == set(m.ALL) - {m.NewCompress}
    assert {type(sample.inner) for sample in SAMPLES if isinstance(sample.inner, methods.Form)} == {
        form for forms in methods.FORMS.values() for form in forms
    }
    kinds = {getattr(sample.inner, "type", None) for sample in SAMPLES} - {None}
    assert kinds == {*r.KINDS, *r.CHANNEL_REQUESTS, *r.GLOBAL_REQUESTS}


def held(puppet: Puppet) -> dict[str, int]:
    """What a connection keeps of its peer's."""
    engine = puppet.conn._engine
    return {
        "input": engine.opener.buffered,
        "output": puppet.conn.output_size,
        "channels": len(puppet.conn.channels),
        "questions": len(puppet.conn.questions),
        "numbers": len(engine.mux._registry.peer_numbers),
        "events": len(engine.events),
    }


QUIET = {".", "51", "82", "92", "100", "193", "U"}
"""Outcomes after which nothing may be left of the message."""


def check(sample: Sample, payload: bytes, message: m.Message, allowed: frozenset[str] | None = None) -> str:
    """Put a damaged payload before a fresh connection."""
    puppet = sample.ready()
    before = held(puppet)
    found = puppet.outcome(payload)
    allowed = sample.expected(payload, message) if allowed is None else allowed
    assert found in allowed, f"{found} came of {payload.hex()}, expected one of {sorted(allowed)}"
    after = held(puppet)
    if found in QUIET:
        assert after == before
    elif found.split("/")[-1].startswith("D") and puppet.conn.should_close:
        assert not any(after.values()), after
    return found


@each
def test_without_damage(sample: Sample) -> None:
    """The sample is good for something: the first of what may come of it does, or else what is a matter of role."""
    puppet = sample.ready()
    message = sample.made(puppet)
    assert puppet.outcome(message) in sample.good


@pytest.mark.covers("R158", "R2", "V26", "V33", "R71")
@each
def test_cut_at_every_byte(sample: Sample) -> None:
    message = sample.made(sample.ready())
    payload = message.encode()
    for size in range(1, len(payload)):
        check(sample, payload[:size], message)


@pytest.mark.covers("R159", "V27")
@each
def test_a_byte_more(sample: Sample) -> None:
    message = sample.made(sample.ready())
    found = check(sample, message.encode() + b"\0", message)
    rest = [codec for _, codec in message.codecs()][-1:]
    if not rest or "rest" not in repr(rest[0]):
        assert found == "D"


def damaged(payload: bytes, spot: Spot) -> Iterator[bytes]:
    """The payload with other numbers at a spot: edges, and one more and one less than what is there."""
    stated = int.from_bytes(payload[spot.offset : spot.offset + 4], "big")
    for number in dict.fromkeys((*EDGES, stated + 1, max(stated - 1, 0))):
        if number != stated:
            yield payload[: spot.offset] + uint32(number & 0xFFFFFFFF) + payload[spot.offset + 4 :]


@pytest.mark.covers("R160", "R161", "V25", "V26", "V29", "V66", "R71", "P21")
@each
def test_every_number_at_its_edges(sample: Sample) -> None:
    """And none of them makes the connection take memory for what is not there."""
    message = sample.made(sample.ready())
    payload = message.encode()
    check(sample, payload, message)  # so that what is built once is not counted
    for spot, in_blob in sample.spots(message):
        for changed in damaged(payload, spot):
            allowed = frozenset({sample.bad_blob}) if in_blob else None
            tracemalloc.start()
            try:
                check(sample, changed, message, allowed)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 1_000_000, f"{peak} bytes for {spot}"
