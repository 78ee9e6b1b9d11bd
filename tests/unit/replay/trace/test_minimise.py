"""A trace is cut to the smallest that still shows a failure, and becomes a seed for fuzzing."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto import events as ev
from sshproto.errors import InvalidArgument
from sshproto.replay.trace import seeds
from sshproto.replay.trace.file import Privacy, Trace, TraceError, read
from sshproto.replay.trace.minimise import Run, ends_with, finds, gives, inputs, minimise, raises, run, same_end
from sshproto.replay.trace.verify import verify
from sshproto.transport.link import Link
from tests.support import traces


@pytest.fixture(scope="module")
def lively() -> Trace:
    return read(traces.lively().both()[0])


def calls(trace: Trace) -> list[str]:
    return [record.data["call"] for record in trace.records if record.name == "ssh:api_call"]


def chunks(trace: Trace) -> list[bytes]:
    return [bytes.fromhex(record.data["raw"]["data"]) for record in trace.records if record.name == "ssh:bytes_in"]


def test_all_of_a_trace_runs_as_it_was_recorded(lively: Trace) -> None:
    assert lively.header is not None
    assert run(lively.header, inputs(lively)).records == list(lively.records)


def test_of_a_disconnect_the_command_alone_is_left(lively: Trace) -> None:
    least = minimise(lively)
    assert calls(least) == ["disconnect"]
    assert chunks(least) == []
    assert len(inputs(least)) == 2
    assert verify(least.encode()).exact


def test_of_a_long_session_what_leads_to_an_event_is_left(lively: Trace) -> None:
    """To be logged in takes the server's part of the key exchange, two answers, and its part of the login."""
    least = minimise(lively, gives("AuthSucceeded"), tries=150)
    assert calls(least) == ["accept_host_key", "auth_public_key"]
    assert verify(least.encode()).exact
    assert "AuthSucceeded" in [record.data["event"]["$class"] for record in least.records if "event" in record.data]


def test_bytes_that_do_not_matter_are_left_out() -> None:
    recorded = traces.make()
    client = recorded.pair.client
    for line in (b"hello\r\n", b"all the world\r\n" * 20, b"SSH-1.5-old and more\r\n", b"never read"):
        client.conn.receive_data(line, 0.0)
        client.drain()
    trace = read(bytes(recorded.client))
    least = minimise(trace)
    assert b"".join(chunks(least)) == b"SSH-\n"
    assert ends_with("VersionUnsupported")(run(least.header, inputs(least)))  # type: ignore[arg-type]
    assert verify(least.encode()).exact


def test_a_bug_that_takes_three_of_many_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known smallest: one bad DEBUG after one bad IGNORE and a time of more than 5."""

    def ignore(self: Any, data: bytes) -> None:
        self.fatal = getattr(self, "fatal", 0) + (data == b"bad")

    def debug(self: Any, message: str, *, always_display: bool) -> None:
        if message == "bad" and getattr(self, "fatal", 0) and self.timers.now > 5:
            raise ZeroDivisionError

    monkeypatch.setattr(Link, "ignore", ignore)
    monkeypatch.setattr(Link, "debug", debug)
    recorded = traces.make()
    conn = recorded.pair.client.conn
    for turn in range(40):
        conn.handle_timeout(float(turn))
        conn.ignore(b"bad" if turn % 10 == 3 else b"good")
        conn.next_event()
        if turn == 35:
            with pytest.raises(ZeroDivisionError):
                conn.debug("bad")
        else:
            conn.debug("bad" if turn == 1 else "good")
    trace = read(bytes(recorded.client))
    tried: list[int] = []
    least = minimise(trace, raises("ZeroDivisionError"), progress=lambda left, size: tried.append(size))
    assert [step.steps[0].call for step in inputs(least)] == ["", "handle_timeout", "ignore", "debug"]
    assert calls(least) == ["ignore", "debug"]
    assert len(tried) < 400
    assert verify(least.encode()).exact


def test_a_function_of_the_callers_says_what_to_look_for(lively: Trace) -> None:
    def shows(found: Run) -> bool:
        return any(isinstance(event, ev.VersionReceived) and event.protocol == "2.0" for event in found.events)

    least = minimise(lively, shows)
    assert b"".join(chunks(least)) == b"SSH-2.0-0\n"


def test_a_finding_of_an_observer_who_has_the_keys() -> None:
    """The observer sees a login without proof in what is encrypted."""

    def answer(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.CredentialNeeded):
            conn.auth_none(question)
        elif isinstance(question, ev.HostKeyOffered):
            conn.accept_host_key(question)

    def admit(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.NoneAuth):
            conn.accept_auth(question)

    recorded = traces.make(server={"ask_none": True}, client_answer=answer, server_answer=admit)
    pair = recorded.pair.login()
    for _ in range(5):
        pair.client.conn.ignore(b"more")
        pair.run()
    trace = read(bytes(recorded.client))
    shows = finds("no-proof")
    assert shows(run(trace.header, inputs(trace)))  # type: ignore[arg-type]
    assert not finds("ssh-1")(run(trace.header, inputs(trace)))  # type: ignore[arg-type]
    least = minimise(trace, shows, tries=120)
    assert calls(least) == ["accept_host_key", "auth_none"]
    assert verify(least.encode()).exact


def test_tries_are_bounded(lively: Trace) -> None:
    tried: list[int] = []
    least = minimise(lively, gives("AuthSucceeded"), tries=7, progress=lambda left, size: tried.append(left))
    assert tried == [6, 5, 4, 3, 2, 1, 0]
    assert verify(least.encode()).exact
    assert gives("AuthSucceeded")(run(least.header, inputs(least)))  # type: ignore[arg-type]


def test_what_a_trace_does_not_show_is_refused(lively: Trace) -> None:
    with pytest.raises(InvalidArgument, match="does not show"):
        minimise(lively, ends_with("MacError"))
    started = Trace(lively.header, lively.records[:6], None)
    with pytest.raises(InvalidArgument, match="does not end"):
        same_end(started)


def test_what_cannot_be_replayed_is_refused(lively: Trace) -> None:
    with pytest.raises(TraceError, match="'metadata'"):
        minimise(read(traces.lively(Privacy.METADATA).both()[0]))
    for trace in (
        Trace(None, (), None),
        Trace(lively.header, (), None),
        Trace(lively.header, lively.records[20:], None),
    ):
        with pytest.raises(TraceError):
            minimise(trace)


# ---------------------------------------------------------------------------------------------------------------- seeds


def test_a_seed_does_what_the_trace_did(lively: Trace) -> None:
    found = seeds.play(seeds.seed(lively))
    assert found is not None
    expected = run(lively.header, inputs(lively))  # type: ignore[arg-type]
    assert [type(event) for event in found.events] == [type(event) for event in expected.events]
    assert found.raised == []
    sent = [record.data for record in lively.records if record.name == "ssh:packet_sent"]
    assert [record.data["sha256"] for record in found.records if record.name == "ssh:packet_sent"] == [
        data["sha256"] for data in sent
    ]


def test_the_form_of_a_seed(lively: Trace) -> None:
    """As the module describes it, read by hand."""
    data = seeds.seed(lively)
    place, kinds = 0, []
    while place < len(data):
        kind, length = struct.unpack_from(">BI", data, place)
        content = data[place + 5 : place + 5 + length]
        kinds.append(kind)
        if kind == 0:
            assert json.loads(content)["role"] == "client"
        if kind == 5:
            assert set(json.loads(content)) == {"call", "args"}
        place += 5 + length
    assert place == len(data)
    assert kinds.count(0) == 1
    assert kinds.count(1) == len(chunks(lively))
    assert kinds.count(5) == len(calls(lively))
    assert kinds[:3] == [6, 6, 0]


def test_time_is_in_a_seed() -> None:
    recorded = traces.make()
    recorded.pair.client.drain()
    recorded.pair.client.conn.handle_timeout(59.0)
    recorded.pair.client.conn.handle_timeout(61.5)
    recorded.pair.client.drain()
    found = seeds.play(seeds.seed(read(bytes(recorded.client))))
    assert found is not None
    assert type(found.loss).__name__ == "TimedOut"


@settings(max_examples=200)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_seed(data: bytes) -> None:
    found = seeds.play(data)
    assert found is None or found.conn is not None


@settings(max_examples=60)
@given(data=st.data())
def test_a_mutated_seed_raises_nothing(lively: Trace, data: st.DataObject) -> None:
    seed = bytearray(seeds.seed(lively)[:60_000])
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(seed) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "double"]))
        if how == "set":
            seed[place] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del seed[place : place + data.draw(st.integers(1, 40))]
        else:
            seed[place:place] = seed[place : place + 40]
    found = seeds.play(bytes(seed))
    assert found is None or found.loss is None or isinstance(found.events[-1], ev.ConnectionLost)


def test_what_cannot_be_replayed_is_no_seed() -> None:
    with pytest.raises(TraceError, match="level 'replay'"):
        seeds.seed(read(traces.lively(Privacy.METADATA).both()[0]))
