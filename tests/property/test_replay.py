"""Any session that is recorded replays exactly: whatever is called, in whatever order, however the bytes are cut."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto import events as ev
from sshproto.channels.requests import DirectTcpip, Env, Exec, Keepalive, PtyRequest, Session, Signal, UnknownRequest
from sshproto.replay.trace.file import Privacy, read
from sshproto.replay.trace.verify import verify
from tests.support import traces
from tests.support.pair import pieces

KINDS = st.sampled_from([Session(), DirectTcpip("host", 80), "session"])
REQUESTS = st.sampled_from(
    [Exec(b"ls"), Env("A", b"1"), PtyRequest("vt100"), Signal("TERM"), UnknownRequest("x@y", b"z"), Exec(5)]  # type: ignore[arg-type]
)
CHANNELS = st.integers(0, 3)

CALLS = st.one_of(
    st.tuples(st.just("open_channel"), st.tuples(KINDS)),
    st.tuples(st.just("request"), st.tuples(CHANNELS, REQUESTS)),
    st.tuples(
        st.just("send"), st.tuples(CHANNELS, st.sampled_from([b"", b"x", b"y" * 40_000]), st.sampled_from([0, 1, 2]))
    ),
    st.tuples(st.just("send_eof"), st.tuples(CHANNELS)),
    st.tuples(st.just("close_channel"), st.tuples(CHANNELS)),
    st.tuples(st.just("credit"), st.tuples(CHANNELS, st.integers(-1, 50_000))),
    st.tuples(st.just("global_request"), st.tuples(st.just(Keepalive()))),
    st.tuples(st.just("rekey"), st.just(())),
    st.tuples(st.just("ping"), st.tuples(st.binary(max_size=5))),
    st.tuples(st.just("ignore"), st.tuples(st.binary(max_size=5))),
    st.tuples(st.just("debug"), st.tuples(st.text(max_size=5))),
    st.tuples(st.just("handle_timeout"), st.tuples(st.floats(0, 10_000))),
    st.tuples(st.just("next_event"), st.just(())),
    st.tuples(st.just("data_to_send"), st.just(())),
    st.tuples(st.just("receive_eof"), st.tuples(st.floats(0, 10_000))),
    st.tuples(st.just("disconnect"), st.tuples(st.text(max_size=5))),
)
STEPS = st.lists(st.tuples(st.sampled_from(["client", "server"]), CALLS, st.booleans()), max_size=25)


@settings(max_examples=35)
@given(
    steps=STEPS,
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    early=st.integers(0, 4),
    credit=st.booleans(),
)
def test_any_session_replays_exactly(steps: Any, sizes: list[int], early: int, credit: bool) -> None:
    """Calls before and after the login, legal and not; some without letting the other side answer."""
    recorded = traces.make(chunker=pieces(sizes))
    pair = recorded.pair
    pair.client.auto_credit = pair.server.auto_credit = credit
    for number, (side, (name, given_to_it), let) in enumerate(steps):
        if number == early:
            pair.run()
        conn = getattr(pair, side).conn
        with contextlib.suppress(Exception):
            getattr(conn, name)(*given_to_it)
        if let:
            pair.run()
    pair.run()
    for trace in recorded.both():
        verdict = verify(trace)
        assert verdict.exact, str(verdict.divergence)


@settings(max_examples=25)
@given(data=st.data())
def test_a_damaged_stream_replays_exactly(data: st.DataObject) -> None:
    """Whatever the peer does wrong, it is done again."""
    recorded = traces.make()
    conn = recorded.pair.client.conn
    stream = bytearray(traces.lively().pair.server.sent[:3000])
    for _ in range(data.draw(st.integers(0, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    size = data.draw(st.integers(1, 700))
    for start in range(0, len(stream), size):
        conn.receive_data(bytes(stream[start : start + size]), start / 100)
        recorded.pair.client.drain()
    verdict = verify(bytes(recorded.client))
    assert verdict.exact, str(verdict.divergence)


@settings(max_examples=8)
@given(sizes=st.lists(st.integers(100, 3000), min_size=1, max_size=5), latency=st.sampled_from([0.0, 0.1]))
def test_a_whole_session_replays_exactly_and_ends(sizes: list[int], latency: float) -> None:
    recorded = traces.lively(chunker=pieces(sizes), latency=latency)
    for trace in recorded.both():
        verdict = verify(trace)
        assert verdict.exact, str(verdict.divergence)
        assert read(trace).records[-1].data["step"] == verdict.steps - 1


@settings(max_examples=10)
@given(level=st.sampled_from([Privacy.LENGTHS, Privacy.METADATA, Privacy.PAYLOAD]))
def test_a_level_does_not_change_the_session(level: Privacy) -> None:
    recorded = traces.lively(level)
    assert isinstance(recorded.pair.client.events[-1], ev.ConnectionLost)
