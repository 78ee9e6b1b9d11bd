"""The file of a trace: its header, its records, what is left of it when it is cut, and what is not one at all."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto import events
from sshproto.errors import SSHError
from sshproto.replay.trace import file as trace
from sshproto.replay.trace.file import Header, Privacy, Record, Trace, TraceError, TraceReader, read
from sshproto.replay.trace.verify import verify
from sshproto.wire.table import Role
from tests.support import traces

HEADER = Header(role=Role.CLIENT, privacy=Privacy.METADATA)


def file(*values: Any, header: Any = None) -> bytes:
    return b"".join(map(trace.encode, [HEADER.as_dict() if header is None else header, *values]))


@pytest.fixture(scope="module")
def small() -> bytes:
    """A short trace that can be replayed: it ends when the server's identification is wrong."""
    recorded = traces.make()
    conn = recorded.pair.client.conn
    recorded.pair.client.drain()
    conn.receive_data(b"SSH-1.5-old\r\n", 1.5)
    recorded.pair.client.drain()
    return bytes(recorded.client)


def test_the_header_is_that_of_a_sequential_qlog_file(small: bytes) -> None:
    """draft-ietf-quic-qlog-main-schema-14 sections 5.1, 5.2, 6 and 7.1."""
    assert small[:1] == b"\x1e"
    first = json.loads(small.split(b"\x1e")[1])
    assert first["file_schema"] == "urn:ietf:params:qlog:file:sequential"
    assert first["serialization_format"] == "application/qlog+json-seq"
    assert first["trace"]["vantage_point"]["type"] == "client"
    assert first["trace"]["event_schemas"] == [trace.SCHEMA]
    assert not trace.SCHEMA.startswith("urn:ietf:params:qlog:events:")  # those are for RFCs
    assert first["trace"]["common_fields"]["time_format"] == "relative_to_epoch"
    assert first["trace"]["common_fields"]["reference_time"] == {"clock_type": "monotonic", "epoch": "unknown"}


def test_each_record_is_a_line_with_the_mandatory_fields(small: bytes) -> None:
    """RFC 7464 section 2.2; the main schema's section 7."""
    for text in small.split(b"\x1e")[2:]:
        assert text.endswith(b"\n")
        assert text.count(b"\n") == 1
        event = json.loads(text)
        assert set(event) == {"time", "name", "data"}
        assert isinstance(event["time"], (int, float))
        assert event["name"] in trace.EVENTS


def test_the_time_is_in_milliseconds(small: bytes) -> None:
    assert {record.time for record in read(small).records} == {0, 1500}


def test_only_a_trace_that_can_be_replayed_warns_of_its_secrets() -> None:
    for privacy in Privacy:
        description = Header(role=Role.SERVER, privacy=privacy).as_dict().get("description", "")
        assert ("passwords included" in description) is (privacy is Privacy.REPLAY)


def test_a_header_reads_as_it_was_written() -> None:
    for privacy in Privacy:
        for role in Role:
            header = Header(role=role, privacy=privacy, software="x 1", title="a title")
            assert read(trace.encode(header.as_dict())).header == header


def test_what_was_read_encodes_as_it_was(small: bytes) -> None:
    assert read(small).encode() == small


def test_every_class_of_event_has_a_name() -> None:
    bases = {events.Event, events.Question, events.AuthQuestion}
    classes = {
        name
        for name, kind in vars(events).items()
        if isinstance(kind, type) and issubclass(kind, events.Event) and kind not in bases
    }
    assert set(trace.NAMES) == classes
    assert all(re.fullmatch("ssh:[a-z_]+", name) for name in trace.EVENTS)


# ------------------------------------------------------------------------------------------------------------------ cut


def test_cut_at_every_byte_it_gives_what_is_whole_and_says_where(small: bytes) -> None:
    whole = read(small)
    starts = [match.start() for match in re.finditer(b"\x1e", small)] + [len(small)]
    for size in range(len(small)):
        found = read(small[:size])
        start = max(start for start in starts if start <= size)
        records = starts.index(start) - 1
        if size == start and size:
            assert found.cut is None
        else:
            assert found.cut == trace.Cut(start, size - start)
        assert found.records == whole.records[: max(0, records)]
        assert (found.header is None) == (records < 0)
        assert found.encode() == (small[:start] if records >= 0 else b"")


@pytest.mark.slow
def test_cut_at_every_byte_it_replays_as_far_as_it_goes(small: bytes) -> None:
    whole = verify(small)
    started = small.index(b"\x1e", small.index(b"connection_started"))
    for size in range(started, len(small), 3):
        verdict = verify(small[:size])
        assert verdict.exact
        assert verdict.steps <= whole.steps
    assert verify(small).exact


@settings(max_examples=50)
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=20))
def test_the_pieces_in_which_it_is_read_do_not_matter(small: bytes, sizes: list[int]) -> None:
    def pieces() -> Any:
        start = turn = 0
        while start < len(small):
            yield small[start : start + sizes[turn % len(sizes)]]
            start += sizes[turn % len(sizes)]
            turn += 1

    assert read(pieces()) == read(small)


# -------------------------------------------------------------------------------------------------------------- hostile


def changed(**changes: Any) -> dict[str, Any]:
    return HEADER.as_dict() | changes


def within(**changes: Any) -> dict[str, Any]:
    return changed(trace=HEADER.as_dict()["trace"] | changes)


RECORD = {"time": 0, "name": "ssh:idle", "data": {}}


@pytest.mark.parametrize(
    ("data", "field", "problem"),
    [
        (b"{}", "", "begins with byte 1e"),
        (b"\x1e{}", None, None),
        (b"\x1e{}\n", "file_schema", "nothing came"),
        (b"\x1e[]\n", "", "an object was expected"),
        (b"\x1e{\n", "", "not JSON"),
        (b"\x1e" + b"[" * 100_000 + b"\n", "", "not JSON"),
        (b'\x1e{"a": 1' + b"0" * 5000 + b"}\n", "", "not JSON"),
        (b'\x1e{"a": NaN}\n', "", "not JSON"),
        (b'\x1e{"a": -1e999}\n', "", "-1e999 is no number"),  # infinity, which cannot be written again
        (b"\x1e\xff\n", "", "not JSON"),
        (b"\x1e{}\x1e{}\n", "", "ends with a line feed"),
        (file(header=changed(file_schema="urn:ietf:params:qlog:file:contained")), "file_schema", "contained"),
        (file(header=changed(serialization_format="application/qlog+json")), "serialization_format", "qlog"),
        (file(header=changed(title=1)), "title", "text"),
        (file(header=changed(trace=[])), "event_schemas", "ours"),
        (file(header=within(event_schemas=["urn:ietf:params:qlog:events:quic"])), "event_schemas", "ours"),
        (file(header=within(common_fields={"ssh_format": 2, "privacy": "replay"})), "ssh_format", "2 came"),
        (file(header=within(common_fields={"ssh_format": 1, "privacy": "none"})), "trace", "'none'"),
        (file(header=within(vantage_point={"type": "network"})), "trace", "'network'"),
        (file([]), "", "an object was expected"),
        (file(RECORD | {"time": "now"}), "time", "milliseconds"),
        (file(RECORD | {"time": True}), "time", "milliseconds"),
        (file(RECORD | {"name": 1}), "name", "a name"),
        (file(RECORD | {"name": "idle"}), "name", "a name"),
        (file(RECORD | {"data": []}), "data", "an object"),
    ],
)
def test_what_is_no_trace_is_refused(data: bytes, field: str | None, problem: str | None) -> None:
    if problem is None:
        assert read(data) == Trace(None, (), trace.Cut(0, len(data)))
        return
    with pytest.raises(TraceError, match=re.escape(problem)) as caught:
        read(data)
    assert caught.value.field == field


@pytest.mark.parametrize("depth", [65, 300, 900])
def test_what_is_nested_too_deep_is_refused(small: bytes, depth: int) -> None:
    """However deep the interpreter can go, and whatever is made of it later."""
    for opening, closing in (("[", "]"), ('{"$class":', "}"), ('{"a":[', "]}")):
        nested = f'{{"time":0,"name":"ssh:api_call","data":{{"step":20,"args":{opening * depth}0{closing * depth}}}}}'
        with pytest.raises(TraceError, match=r"nested more than 64 deep|not JSON"):
            verify(small + b"\x1e" + nested.encode() + b"\n")


def test_what_is_nested_as_deep_as_may_be_is_read(small: bytes) -> None:
    nested = "[" * 62 + "]" * 62
    data = file() + f'\x1e{{"time":0,"name":"ssh:idle","data":{{"x":{nested}}}}}\n'.encode()
    assert len(read(data).records) == 1
    assert not verify(small + b'\x1e{"time":0,"name":"ssh:idle","data":{"step":20,"x":%s}}\n' % nested.encode()).exact


def test_an_error_says_where_in_the_file_it_is() -> None:
    data = file(RECORD, RECORD, {"time": 1})
    with pytest.raises(TraceError) as caught:
        read(data)
    assert data[caught.value.offset :] == trace.encode({"time": 1})


def test_a_record_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "LONGEST_RECORD", 1000)
    reader = TraceReader()
    with pytest.raises(TraceError, match="more than 1000 bytes"):
        for _ in range(20):
            reader.feed(b"\x1e" if not reader._buffer else b"x" * 100)


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_trace_gives_documented_errors_only(small: bytes, data: st.DataObject) -> None:
    damaged = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        if data.draw(st.booleans()):
            damaged[place] = data.draw(st.integers(0, 255))
        else:
            del damaged[place : place + data.draw(st.integers(1, 50))]
    try:
        verify(bytes(damaged))
    except SSHError as error:
        assert isinstance(error, TraceError)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["$bytes", "$class", "Exec", "00", "client", "receive_data", "auth_password", "disconnect"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "$bytes $class $question $public_key $private_key $float $opaque length sha256 comment command term"
                " user preferences limits host_keys now raw data call args question channel description".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    name=st.sampled_from(sorted(trace.EVENTS)),
    key=st.sampled_from(["now", "raw", "call", "args", "config", "label"]),
    value=VALUES,
    last=st.integers(0, 12),
)
def test_a_trace_with_other_values_gives_documented_errors_only(
    small: bytes, name: str, key: str, value: Any, last: int
) -> None:
    whole = read(small)
    assert whole.header is not None
    records = list(whole.records)
    place = min(last, len(records) - 1)
    step = records[place].data["step"]
    records[place] = Record(0, records[place].name, {**records[place].data, key: value})
    records.insert(place + 1, Record(0, name, {"step": step, key: value}))
    records.insert(place + 2, Record(0, "ssh:api_call", {"step": step + 1, "call": str(value), "args": value}))
    try:
        verify(Trace(whole.header, tuple(records), None).encode())
    except SSHError as error:
        assert isinstance(error, TraceError)
