"""Captures as a whole: which connections are SSH, what is told of each and when, and what is kept meanwhile."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import attrs
import pytest

from sshproto.events import VersionReceived
from sshproto.replay.analysis import Analysis, AnalysisLimits, Conversation, analyze
from sshproto.replay.capture import flows
from sshproto.replay.capture.reader import CaptureError
from sshproto.replay.capture.reassembly import ReassemblyLimits
from sshproto.replay.events import Ended, KeysMissing, Missing, Observed, Problem, Reopened, Side
from sshproto.replay.findings import Policy
from sshproto.replay.secrets import Secrets
from tests.replay.files import capture, damaged, talk, with_key_log
from tests.replay.sessions import Recording, session, told
from tests.support.captures import CLIENT, SERVER, Record, Talk, enhanced, interface, pcap, pcapng, secrets, section

C, S = Side.DIALLER, Side.DIALLED
OURS, THEIRS = b"SSH-2.0-ours\r\n", b"SSH-2.0-theirs\r\n"


def ends(port: int = 80, number: int = 0) -> tuple[bytes, bytes]:
    """A flow to any port, and back."""
    here, there = (40000 + number).to_bytes(2, "big"), port.to_bytes(2, "big")
    return CLIENT + SERVER + here + there, SERVER + CLIENT + there + here


@pytest.fixture(scope="module")
def recording() -> Recording:
    return session()


def said(*lines: tuple[int, bytes], port: int = 80, number: int = 0) -> Talk:
    it = Talk(flows=ends(port, number)).dial()
    for side, data in lines:
        for place in range(0, len(data), 1400):
            it.send(side, data[place : place + 1400])
    return it


def found(*talks: Talk, **options: Any) -> list[Conversation]:
    return analyze(capture(*talks), **options)


def versions(conversation: Conversation) -> tuple[str | None, str | None]:
    summary = conversation.summary.as_dict()
    return summary["client_version"], summary["server_version"]


# ------------------------------------------------------------------------------------------------------------ which


@pytest.mark.parametrize("port", [22, 80, 65535])
def test_any_port(port: int) -> None:
    (one,) = found(said((1, THEIRS), (0, OURS), port=port))
    assert versions(one) == ("SSH-2.0-ours", "SSH-2.0-theirs")
    assert one.connection.dialled.port == port


@pytest.mark.parametrize(
    "lines",
    [
        [(0, OURS)],
        [(1, THEIRS)],
        [(1, b"SSH-1.99-old\r\n")],
        [(0, b"SS"), (0, b"H-2."), (0, b"0-slow\r\n")],
        [(1, b"Welcome.\r\nSSH-2.0-theirs\r\n")],
        [(1, b"Welcome"), (1, b".\r\nSSH"), (1, b"-2.0-theirs\r\n")],
        [(1, (b"Welcome " * 60 + b"\r\n") * 120), (1, THEIRS)],
        [(1, b"Welcome.\r\n"), (0, OURS)],  # the client does not wait
        [(0, OURS), (1, b"Welcome.\r\n"), (1, THEIRS)],
        [(0, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (1, THEIRS)],
        [(1, THEIRS), (0, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (1, b"Invalid SSH identification string.\r\n")],
    ],
)
def test_what_is_ssh(lines: list[tuple[int, bytes]]) -> None:
    (one,) = found(said(*lines))
    sent = {side: sum(len(data) for which, data in lines if which == index) for index, side in enumerate(Side)}
    assert one.bytes == sent  # nothing is lost of what came before it was known
    count = len({side for side, data in lines if b"SSH-" in data or data == b"SS"})
    assert len(told(one.events, VersionReceived)) == max(1, count)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [(0, b"GET / HTTP/1.1\r\n\r\n"), (1, b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-is described here\r\n")],
        [(1, b"220 mail.example.org ESMTP\r\n"), (0, b"EHLO me.example.org\r\n"), (1, b"250 fine\r\n" * 9000)],
        [(0, b"\x16\x03\x01" + bytes(200)), (1, b"\x16\x03\x03" + bytes(9000))],
        [(1, b"SSH is what we speak.\r\n"), (0, b"SSH? Never heard of it.\r\n")],
        [(1, b"x" * 100_000)],
        [(1, b"Welcome.\r\n" * 7000), (1, THEIRS)],  # too late
        [(1, b"what is that supposed to be?\r\n"), (0, b"\r\nSSH-2.0-a client sends no other lines\r\n" * 2)],
    ],
)
def test_what_is_not(lines: list[tuple[int, bytes]]) -> None:
    assert found(said(*lines)) == []
    if len(lines) > 1 or lines == []:
        assert found(said(*lines, port=22)) == []


def test_nothing_is_kept_of_what_is_not() -> None:
    analysis = Analysis()
    it = said((0, b"GET / HTTP/1.1\r\n\r\n"), (1, b"HTTP/1.1 200 OK\r\n\r\n"))
    list(analysis.read([capture(it)]))
    (connection,) = {stream.connection for stream in analysis._tcp._streams.values()}
    assert connection.context is False
    assert (analysis._doubt, analysis._suspects) == (0, {})
    assert analysis.connections == 1
    told_before = len(analysis._tcp._ordering.history.items)
    for _ in range(50):
        it.send(1, b"body" * 300)
    list(analysis.read([pcap(it.records()[5:])]))
    assert len(analysis._tcp._ordering.history.items) == told_before  # not even put together


def test_what_is_kept_of_connections_that_may_be_ssh_is_bounded() -> None:
    """Each of them sends much that may still become an identification."""
    talks = [said(*[(1, b"Welcome.\r\n" * 100)] * 20, number=number) for number in range(30)]
    late = said((1, b"Welcome.\r\n"), number=99)
    late.send(1, THEIRS)
    limits = AnalysisLimits(undecided_total=100_000)
    analysis = Analysis(limits=limits)
    list(analysis.read([capture(*talks)]))
    assert 0 < analysis._doubt <= 100_000
    assert analysis._doubt == sum(suspect.cost for suspect in analysis._suspects.values())
    assert list(analysis._suspects) == list(range(31 - len(analysis._suspects), 31))
    assert 2 < len(analysis._suspects) < 6
    list(analysis.read([capture(late)]))
    assert len(analysis.living) == 1
    list(analysis.finish())
    assert analysis._doubt == 0


def test_begun_before_the_recording(recording: Recording) -> None:
    for port, expected in ((22, 1), (2222, 0)):
        records = talk(recording, flows=ends(port)).records()[20:]
        assert len(analyze(pcap(records))) == expected
        assert len(analyze(pcap(records), ports={port})) == 1
        assert len(analyze(pcap(records), ports=())) == 0
    (one,) = analyze(pcap(talk(recording).records()[20:]), secrets=recording.secrets)
    assert one.connection.start is flows.Start.MIDDLE
    assert versions(one) == (None, None)
    assert not one.summary.complete
    assert told(one.events, Problem)


def test_the_first_bytes_are_missing() -> None:
    it = Talk(flows=ends(22)).dial()
    it.add(1, 16, b"2.0-theirs\r\n", seq=4)
    it.sent[1] += THEIRS
    it.ack(0)
    it.send(0, OURS)
    (one,) = found(it)
    assert told(one.events, Missing, S)


@pytest.mark.parametrize("side", [0, 1])
def test_one_side_only(recording: Recording, side: int) -> None:
    it = talk(recording)
    it.segments = [segment for segment in it.segments if segment[2] == it.flows[side]]
    (one,) = found(it, secrets=recording.secrets)
    assert sum(version is not None for version in versions(one)) == 1
    silent = list(Side)[1 - side]
    assert one.bytes[silent] == one.packets[silent] == 0
    assert told(one.events, Missing, silent)
    assert not one.summary.complete
    assert one.summary.as_dict()["decrypted"] is None


# ------------------------------------------------------------------------------------------------------------- what


def test_a_conversation(recording: Recording) -> None:
    it = talk(recording)
    (one,) = found(it, secrets=recording.secrets)
    assert one.summary.opened
    assert one.summary.complete
    assert one.over
    assert one.findings == []
    assert (one.connection.number, one.connection.frame, one.connection.time) == (1, 1, 1_000_000)
    assert one.connection.ending is flows.Ending.FINISHED
    assert one.ended == len(it.segments) * 1_000_000 - 1_000_000  # the last acknowledgement tells nothing
    assert one.bytes == {side: len(data) for side, data in recording.sides.items()}
    assert sum(one.packets.values()) == len(recording.wire)
    assert one.observer.client is C
    assert told(one.events, Ended, C)
    assert told(one.events, Ended, S)
    assert repr(one) == "<Conversation 1, 10.0.0.1:40000 to 10.0.0.2:22>"
    frames = {frame for seen in one.events for frame in seen.frames}
    assert frames <= set(range(1, len(it.segments) + 1))
    assert all(seen.time is not None for seen in one.events)


def test_findings_know_all_connections(recording: Recording) -> None:
    talks = [talk(recording, flows=ends(22, number)) for number in range(2)]
    first, second = found(*talks)
    assert first.findings == []
    assert {finding.code for finding in second.findings} == {"repeated-cookie", "repeated-value"}
    (one,) = found(talk(recording), policy=Policy(cipher=("none",)))
    assert {finding.code for finding in one.findings} == {"policy"}


def test_reset_and_the_end_of_the_capture(recording: Recording) -> None:
    it = talk(recording, hang_up=False)
    (one,) = found(it, secrets=recording.secrets)
    assert one.connection.ending is flows.Ending.CAPTURE
    assert one.over
    it.add(0, 4)
    (one,) = found(it, secrets=recording.secrets)
    assert one.connection.reset
    assert told(one.events, Ended, S)


class Sink:
    def __init__(self) -> None:
        self.seen: list[Observed] = []

    def add(self, seen: Observed, /) -> None:
        self.seen.append(seen)


def test_sinks_are_told_everything_and_events_are_kept_on_demand(recording: Recording) -> None:
    started: list[tuple[Conversation, Sink]] = []

    def ask(conversation: Conversation) -> None:
        assert not conversation.over
        assert conversation.bytes == dict.fromkeys(Side, 0)  # it is at its beginning
        sink = Sink()
        conversation.sinks.append(sink)
        started.append((conversation, sink))

    for keep in (True, False):
        started.clear()
        analysis = Analysis(recording.secrets, ask=ask, keep=keep)
        (one,) = [*analysis.read([capture(talk(recording))]), *analysis.finish()]
        ((same, sink),) = started
        assert same is one
        assert sink.seen
        assert one.events == (sink.seen if keep else [])


def test_a_sink_may_be_added_later(recording: Recording) -> None:
    records = talk(recording).records()
    analysis = Analysis(recording.secrets, keep=True)
    assert list(analysis.read([pcap(records[:20])])) == []
    (one,) = analysis.living
    before = len(one.events)
    sink = Sink()
    one.sinks.append(sink)
    list(analysis.read([pcap(records[20:])]))
    assert one.events[before:] == sink.seen


# ------------------------------------------------------------------------------------------------- files and streams


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_chunks(recording: Recording, size: int) -> None:
    data = capture(talk(recording), key_log=recording.key_log)
    (expected,) = analyze(data)
    analysis = Analysis(keep=True)
    (one,) = analysis.read(data[place : place + size] for place in range(0, len(data), size))
    assert repr(one.events) == repr(expected.events)  # errors are equal to themselves only
    assert one.summary.as_dict() == expected.summary.as_dict()
    assert one.summary.opened


def test_live(recording: Recording) -> None:
    """All that a chunk shows is told before the next comes, and a connection is given when it is over."""
    records = talk(recording).records()
    sink = Sink()
    sizes: list[int] = []
    analysis = Analysis(recording.secrets, ask=lambda conversation: conversation.sinks.append(sink))

    def chunks() -> Iterator[bytes]:
        yield pcap([])
        for place, each in enumerate(records):
            assert (len(over) == 1) is (place == len(records) - 1)  # that only acknowledges the end
            yield pcap([each])[24:]
            sizes.append(len(sink.seen))

    over: list[Conversation] = []
    over += analysis.read(chunks())
    # What a frame shows has its number, and is told with it; a packet may have begun earlier.
    for frame, (before, after) in enumerate(zip([0, *sizes], sizes, strict=False), 1):
        assert all(max(seen.frames) <= frame for seen in sink.seen[before:after])
    assert max(b - a for a, b in pairwise(sizes)) < len(sink.seen) / 3
    assert len(over) == 1


def test_a_rotated_capture(recording: Recording) -> None:
    it = talk(recording)
    (expected,) = found(it, secrets=recording.secrets)
    records = it.records()
    other = said((1, THEIRS), number=7)
    analysis = Analysis(recording.secrets, keep=True)
    assert list(analysis.read([pcap(records[:10])], "first")) == []
    assert list(analysis.read([pcapng(records[10:20])], "second")) == []
    (one,) = analysis.read([pcap([*records[20:], *other.records()])], "third")
    assert repr(one.events) == repr(expected.events)  # frames are numbered through
    assert one.capture == "first"
    (two,) = analysis.finish()
    assert (two.capture, two.connection.number, two.connection.frame) == ("third", 2, len(records) + 1)


def test_what_is_not_known_to_be_ssh_yet_began_where_it_began() -> None:
    analysis = Analysis()
    records = said((1, b"Welcome.\r\n"), (1, THEIRS)).records()
    list(analysis.read([pcap(records[:4])], "first"))
    list(analysis.read([pcap(records[4:])], "second"))
    (one,) = analysis.finish()
    assert one.capture == "first"


def test_damage_ends_a_file_but_not_the_analysis(recording: Recording) -> None:
    records = talk(recording).records()
    analysis = Analysis(recording.secrets)
    with pytest.raises(CaptureError):
        list(analysis.read([damaged(pcap(records[:15]))]))
    (one,) = analysis.read([pcap(records[15:])])
    assert one.summary.opened
    assert one.summary.complete


def test_analyze_raises_only_for_what_is_no_capture(recording: Recording) -> None:
    with pytest.raises(CaptureError, match="not pcap, nor pcapng"):
        analyze(b"something else")
    for start in (b"", b"\xd4", b"\x1f\x8b"):
        with pytest.raises(CaptureError, match="the file ends"):
            analyze(start)
    assert len(analyze(damaged(capture(talk(recording))))) == 1
    assert len(analyze(capture(talk(recording))[:-3])) == 1
    assert len(analyze(memoryview(capture(talk(recording))))) == 1


def test_connections_are_in_the_order_of_their_numbers(recording: Recording) -> None:
    first, second = talk(recording, flows=ends(22, 1)).records(), talk(recording, flows=ends(22, 2)).records()
    data = pcap([*first[:3], *second, *first[3:]])
    assert [one.connection.number for one in analyze(data)] == [1, 2]
    assert [one.connection.number for one in Analysis().read([data])] == [2, 1]  # as they end


# ----------------------------------------------------------------------------------------------- secrets that come late


@pytest.mark.parametrize("place", [0, 5, 10, 20, 27])
def test_a_key_log_inside_opens_what_came_before(recording: Recording, place: int) -> None:
    records = talk(recording).records()
    head, tail = pcapng(records[:place]), pcapng(records[place:])[len(pcapng([])) :]
    inside = secrets("\n".join(recording.key_log).encode())
    analysis = Analysis(keep=True)
    (one,) = analysis.read([head, inside, tail])
    assert one.summary.opened
    assert one.summary.complete
    (expected,) = found(talk(recording), secrets=recording.secrets)
    assert one.summary.as_dict() == expected.summary.as_dict()
    assert bool(told(one.events, Reopened)) is (place >= 10)


def test_a_key_log_at_the_end_of_the_same_chunk(recording: Recording) -> None:
    (one,) = analyze(with_key_log(talk(recording).records(), recording.key_log, last=True))
    assert one.summary.opened
    assert not told(one.events, KeysMissing)


def test_a_key_log_with_nothing_behind(recording: Recording) -> None:
    """What it opens is told at once, not with the next packet."""
    records = talk(recording, hang_up=False).records()
    analysis = Analysis(keep=True)
    assert list(analysis.read([pcapng(records), secrets("\n".join(recording.key_log).encode())])) == []
    (one,) = analysis.living
    assert one.summary.opened


def test_a_key_log_in_front_of_damage(recording: Recording) -> None:
    records = talk(recording, hang_up=False).records()
    analysis = Analysis(keep=True)
    inside = secrets("\n".join(recording.key_log).encode())
    with pytest.raises(CaptureError):
        list(analysis.read([pcapng(records), inside + b"\xff" * 32]))
    (one,) = analysis.finish()
    assert one.summary.opened


def test_a_key_log_in_the_second_file(recording: Recording) -> None:
    records = talk(recording).records()
    analysis = Analysis()
    list(analysis.read([pcap(records[:-4])]))
    (one,) = analysis.read([with_key_log(records[-4:], recording.key_log)])
    assert one.summary.opened


def test_two_logs_disagree_about_a_cookie(recording: Recording) -> None:
    """A value comes for a cookie that is known already."""
    wrong = [f"{line.rsplit(' ', 1)[0]} {'ab' * 32}" for line in recording.key_log]
    records = talk(recording).records()
    head, tail = with_key_log(records[:-4], wrong), pcapng(records[-4:])[len(pcapng([])) :]
    (one,) = Analysis().read([head, secrets("\n".join(recording.key_log).encode()), tail])
    assert one.summary.opened


def test_a_bad_key_log_inside_is_a_problem(recording: Recording) -> None:
    analysis = Analysis()
    data = with_key_log(talk(recording).records(), [*recording.key_log, "nonsense"])
    (one,) = analysis.read([data])
    assert one.summary.opened  # the lines before are good
    (problem,) = analysis.problems
    assert problem.line == len(recording.key_log) + 1


# --------------------------------------------------------------------------------------------------------- what is kept


def test_nothing_is_kept_of_what_is_over(recording: Recording) -> None:
    analysis = Analysis(recording.secrets)
    gone: list[weakref.ref[Conversation]] = []
    for number in range(5):
        data = capture(talk(recording, flows=ends(22, number)))
        gone += [weakref.ref(one.observer) for one in analysis.read([data])]
    gc.collect()
    assert len(gone) == 5
    assert [reference for reference in gone if reference() is not None] == []
    assert not analysis.living


@pytest.mark.parametrize("keys", [True, False], ids=["opened", "sealed"])
def test_memory_is_flat(recording: Recording, keys: bool) -> None:
    """Of a long connection as little is kept as of a short one, and of many as little as of one."""
    limits = AnalysisLimits(reassembly=ReassemblyLimits(history=1000))
    analysis = Analysis(recording.secrets if keys else None, limits=limits)
    records = talk(recording).records()

    def chunks() -> Iterator[bytes]:
        yield pcap([])
        for number in range(60):
            here = ends(22, number)
            yield b"".join(pcap([moved(each, here)])[24:] for each in records)
            if number % 20 == 19:
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])

    sizes: list[int] = []
    tracemalloc.start()
    try:
        count = sum(1 for _ in analysis.read(chunks()))
    finally:
        tracemalloc.stop()
    assert count == 60
    # The reassembler remembers connections for a while, about 2 KiB each; nothing else grows.
    assert sizes[-1] - sizes[0] < 40 * 3000, sizes


def moved(record: Record, here: tuple[bytes, bytes]) -> Record:
    """A packet, of another connection."""
    time, data = record
    back = data[26:30] == SERVER
    flow = here[back]
    return time, data[:26] + flow[:8] + flow[8:] + data[38:]


def test_what_is_held_for_late_keys_is_bounded(recording: Recording) -> None:
    talks = [talk(recording, flows=ends(22, number), hang_up=False) for number in range(8)]
    one = sum(map(len, recording.sides.values()))
    analysis = Analysis(limits=AnalysisLimits(hold_total=3 * one))
    for each in talks:
        list(analysis.read([capture(each)]))
        assert sum(it.observer.held for it in analysis.living) <= 3 * one
    inside = section() + interface() + secrets("\n".join(recording.key_log).encode()) + enhanced(0, b"")
    list(analysis.read([inside]))
    opened = [it.summary.opened for it in analysis.living]
    assert opened[-1]  # the last was held, the first were given up
    assert not opened[0]


def test_limits_are_checked() -> None:
    for name in (field.name for field in attrs.fields(AnalysisLimits) if field.type == "int"):
        with pytest.raises(ValueError, match=name):
            AnalysisLimits(**{name: -1})


def test_secrets_are_taken_as_they_are() -> None:
    known = Secrets()
    assert Analysis(known).secrets is known
