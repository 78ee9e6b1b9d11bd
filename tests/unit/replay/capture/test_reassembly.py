"""TCP streams out of segments: in order, once, cause before effect, and with everything stated that can't be had."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections import Counter
from collections.abc import Iterable

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto.replay.capture.flows import (
    Cause,
    Closed,
    Conflict,
    Connection,
    Ending,
    Finished,
    Gap,
    Opened,
    Piece,
    Reset,
    Start,
    Stream,
)
from sshproto.replay.capture.network import Network
from sshproto.replay.capture.reader import CaptureError, CaptureReader
from sshproto.replay.capture.reassembly import Reassembler, ReassemblyLimits
from sshproto.replay.events import Side
from tests.support import captures as c
from tests.support.captures import ACK, FIN, RST, SECOND, SYN, Segment, Talk


def run(segments: Iterable[Segment], *, limits: ReassemblyLimits | None = None, finish: bool = True):
    """All items, the segments fed one by one."""
    tcp = Reassembler(limits)
    items = [item for segment in segments for item in tcp.feed([segment])]
    return items + (tcp.finish() if finish else [])


def of(items, kind):
    return [item for item in items if isinstance(item, kind)]


def text(items, side: int) -> bytes:
    """The bytes of a side; what is missing is shown as dots."""
    found = b""
    for item in items:
        if isinstance(item, Piece | Gap) and item.stream.side is (Side.DIALLER, Side.DIALLED)[side]:
            assert item.offset == len(found)
            found += item.data if isinstance(item, Piece) else b"." * item.length
    return found


def gaps(items):
    return [(gap.stream.side is Side.DIALLED, gap.offset, gap.length, gap.cause) for gap in of(items, Gap)]


def frames(items):
    return [piece.frame for piece in of(items, Piece)]


def streams(items) -> tuple[Stream, Stream]:
    (opened,) = of(items, Opened)
    return opened.connection.streams


def ending(items) -> Ending:
    (closed,) = of(items, Closed)
    assert closed.connection.ending is not None
    return closed.connection.ending


def hello() -> Talk:
    """A dialled connection that has begun."""
    talk = Talk().dial()
    talk.send(1, b"SSH-2.0-server\r\n")
    talk.send(0, b"SSH-2.0-client\r\n")
    return talk


# ------------------------------------------------------------------------------------------------------------- in order


def test_a_conversation():
    talk = hello()
    talk.ack(1)
    talk.hang_up()
    items = run(talk)
    assert [type(item) for item in items] == [Opened, Piece, Piece, Finished, Finished, Closed]
    opened, first, second, *_, closed = items
    connection = opened.connection
    assert connection is closed.connection is first.stream.connection
    assert (connection.number, connection.start, connection.ending) == (1, Start.SYN, Ending.FINISHED)
    assert str(connection.dialler) == "10.0.0.1:40000"
    assert (connection.dialled.address, connection.dialled.port) == ("10.0.0.2", 22)
    assert (first.frame, first.time, first.offset, first.data) == (4, 4_000_000, 0, b"SSH-2.0-server\r\n")
    assert (second.frame, second.stream.side, second.data) == (5, Side.DIALLER, b"SSH-2.0-client\r\n")
    assert all(stream.whole and stream.finished and stream.offset == 16 for stream in connection.streams)
    assert "40000 to 10.0.0.2:22" in repr(connection)
    assert "dialler of connection 1" in repr(second.stream)


def test_addresses_of_ipv6():
    flow = c.CLIENT6 + c.SERVER6 + struct.pack(">HH", 1, 22)
    (opened, *_) = run(Talk(flows=(flow, b"")).dial().segments[:1])
    assert str(opened.connection.dialled) == "[::2]:22"


def test_out_of_order():
    talk = hello()
    segments = talk.segments[:]
    for part in (b"one", b"two", b"three", b"four"):
        segments.append(talk.send(0, part))
    segments[-4:] = [segments[-1], segments[-3], segments[-4], segments[-2]]
    items = run(segments)
    assert text(items, 0) == bytes(talk.sent[0])
    assert frames(items) == [4, 5, 6, 7, 8, 9]
    assert streams(items)[0].repeated == 0


@pytest.mark.parametrize("isn", [2**32 - 1, 2**32 - 2, 2**32 - 17, 2**32 - 20, 2**31 - 5, 0])
def test_sequence_numbers_wrap(isn):
    talk = Talk(isns=(isn, isn)).dial()
    for part in (b"one", b"two", b"three", b"four") * 3:
        talk.send(0, part)
        talk.send(1, part[::-1])
    talk.hang_up()
    items = run(talk)
    assert (text(items, 0), text(items, 1)) == tuple(map(bytes, talk.sent))
    assert ending(items) is Ending.FINISHED


def test_more_than_fits_in_32_bits():
    talk = hello()
    tcp = Reassembler()
    tcp.feed(talk.segments)
    stream = tcp._streams[c.FLOW]
    place = 16
    while place < 3 << 32:
        seq, ack = (talk.isns[0] + 1 + place) & 0xFFFFFFFF, talk.isns[1] + 17
        tcp.feed([(9, 0, c.FLOW, seq, ack, ACK, b"", 0, 0, 1 << 24)])
        place += 1 << 24
        assert stream.offset == place
    piece, repeated = (
        tcp.feed([(10, 0, c.FLOW, (seq + (1 << 24)) & 0xFFFFFFFF, ack, ACK, b"end", 0, 3, 0)]),
        stream.repeated,
    )
    assert [(p.offset, p.data) for p in piece] == [(place, b"end")]
    assert repeated == 0


def test_data_in_the_syn():
    talk = Talk()
    talk.add(0, SYN, b"early", seq=-1)
    talk.sent[0] += b"early"
    talk.add(1, SYN | ACK, seq=-1)
    talk.add(0, ACK)
    talk.send(0, b" late")
    assert text(run(talk), 0) == b"early late"
    talk.segments.insert(1, talk.segments[0])  # sent again
    assert text(run(talk), 0) == b"early late"


# ------------------------------------------------------------------------------------------------------------ once only


def test_everything_twice():
    talk = hello().hang_up()
    items = run(segment for segment in talk for _ in range(2))
    assert (text(items, 0), text(items, 1)) == tuple(map(bytes, talk.sent))
    assert ending(items) is Ending.FINISHED
    assert [(s.repeated, s.unchecked, s.conflicts) for s in streams(items)] == [(16, 0, 0)] * 2


def test_other_bytes_for_the_same_place():
    talk = hello()
    talk.send(0, b"ls -l\n")
    talk.add(0, ACK, b"rm -rf /\n", seq=16)
    items = run(talk)
    (conflict,) = of(items, Conflict)
    assert (conflict.offset, conflict.kept, conflict.other) == (16, b"ls -l\n", b"rm -rf")
    assert (conflict.kept_frame, conflict.frame, conflict.time) == (6, 7, 7_000_000)
    assert text(items, 0) == b"SSH-2.0-client\r\nls -l\n /\n"
    assert streams(items)[0].conflicts == 1


def test_other_bytes_while_the_first_wait():
    talk = hello()
    talk.add(0, ACK, b"cde", seq=18)
    talk.add(0, ACK, b"xxCDExxfg", seq=16)  # around what is held; its own middle does not count
    talk.add(0, ACK, b"ij", seq=25)
    talk.add(0, ACK, b"hij", seq=26)
    items = run(talk)
    assert text(items, 0) == b"SSH-2.0-client\r\nxxcdexxfgijj"[:27] + b"ij"
    assert [(x.offset, x.kept, x.other) for x in of(items, Conflict)] == [(18, b"cde", b"CDE"), (26, b"j", b"h")]


def test_repetitions_long_ago_are_not_compared():
    talk = hello()
    talk.send(0, bytes(1000))
    early = talk.segments[-1]
    for n in range(10):
        talk.send(0, bytes([n]) * 1000)
    changed = (*early[:6], b"\1" * 1000, 0, 1000, 0)
    items = run([*talk, changed], limits=ReassemblyLimits(history=2000))
    assert of(items, Conflict) == []
    assert streams(items)[0].unchecked == streams(items)[0].repeated == 1000
    assert [x.other for x in of(run([*talk, changed]), Conflict)] == [b"\1" * 1000]


def test_probes_are_no_data():
    talk = hello()
    talk.add(0, ACK, b"", seq=15)
    talk.add(0, ACK, b"\0", seq=15)
    talk.send(0, b"more")
    items = run(talk)
    assert text(items, 0) == b"SSH-2.0-client\r\nmore"
    stream = streams(items)[0]
    assert (stream.probes, stream.conflicts, stream.repeated) == (1, 0, 0)


def test_a_probe_of_a_closed_window_is_data():
    talk = hello()
    talk.add(0, ACK, b"m", seq=16)  # one byte more than the window, and the receiver has no room for it
    talk.ack(1)
    talk.send(0, b"more")
    items = run(talk)
    assert text(items, 0) == b"SSH-2.0-client\r\nmore"
    assert of(items, Conflict) == []


# -------------------------------------------------------------------------------------------------- cause before effect


def test_an_answer_waits_for_what_it_answers():
    talk = hello()
    talk.send(0, b"question")
    talk.send(1, b"answer")
    segments = talk.segments
    segments[-2:] = segments[:-3:-1]  # the capture has the answer first
    items = run(segments)
    assert frames(items) == [4, 5, 6, 7]


def test_both_sides_out_of_order():
    talk = hello()
    for n in range(10):
        talk.send(n % 2, b"%d" % n * 5)
    segments = talk.segments[:5] + talk.segments[:4:-1]
    assert frames(run(segments)) == list(range(4, 16))
    assert gaps(run(segments)) == []


def test_who_waits_for_each_other():
    """Two segments that each acknowledge the other: no honest capture has them. What came first is given first."""
    talk = hello()
    talk.add(0, ACK, b"a", ack=17)
    talk.add(1, ACK, b"b", ack=17)
    items = run(talk)
    assert frames(items) == [4, 5, 6, 7]
    assert gaps(items) == []


# ----------------------------------------------------------------------------------------------------------------- gaps


def lossy() -> Talk:
    """The client's "lost" was not captured, but the server has it."""
    talk = hello()
    talk.sent[0] += b"lost"
    talk.send(0, b"next")
    return talk


def test_missing_bytes_are_waited_for_until_the_end():
    talk = lossy()
    for _ in range(2000):
        talk.add(1, ACK, ack=16)  # not received, either: they will be sent again
    items = run(talk, finish=False)
    assert text(items, 0) == b"SSH-2.0-client\r\n"
    items = run(talk)
    assert text(items, 0) == b"SSH-2.0-client\r\n....next"
    assert gaps(items) == [(0, 16, 4, Cause.UNSEEN)]
    talk.add(0, ACK, b"lost", seq=16)
    assert text(run(talk), 0) == b"SSH-2.0-client\r\nlostnext"


def test_acknowledged_bytes_are_waited_for_for_a_moment():
    talk = lossy()
    talk.ack(1)
    for _ in range(499):
        talk.ack(1)  # a millisecond each
    assert text(run(talk, finish=False), 0) == b"SSH-2.0-client\r\n"
    talk.ack(1)
    items = run(talk, finish=False)
    assert text(items, 0) == b"SSH-2.0-client\r\n....next"
    assert gaps(items) == [(0, 16, 4, Cause.ACKNOWLEDGED)]
    assert streams(items)[0].missing == 4
    # Within the moment it may still come, and then it was the capture that was out of order.
    del talk.segments[100:]
    talk.add(0, ACK, b"lost", seq=16)
    items = run(talk)
    assert text(items, 0) == b"SSH-2.0-client\r\nlostnext"
    assert gaps(items) == []


def test_a_clock_that_stands_still_ends_the_wait_all_the_same():
    talk = lossy()
    for _ in range(1100):
        talk.ack(1)
    segments = [(frame, 0, *rest) for frame, _, *rest in talk]
    assert text(run(segments, finish=False), 0) == b"SSH-2.0-client\r\n....next"


def test_an_answer_to_what_was_not_captured():
    talk = hello()
    talk.sent[0] += b"lost"
    talk.send(1, b"answer")
    talk.send(0, b"next")
    items = run(talk)
    assert gaps(items) == [(0, 16, 4, Cause.ACKNOWLEDGED)]
    assert [type(item) for item in items[3:-1]] == [Gap, Piece, Piece]
    assert (text(items, 0), text(items, 1)) == (b"SSH-2.0-client\r\n....next", b"SSH-2.0-server\r\nanswer")


def test_a_direction_that_is_lost_from_some_place_on():
    """The wait is for each gap, not for each packet, until something of that direction comes again."""
    talk = hello()
    for _ in range(20):
        talk.sent[0] += b"lost"
        talk.send(1, b"data")
    talk.segments[-1] = (*talk.segments[-1][:1], 10 * SECOND, *talk.segments[-1][2:])
    tcp = Reassembler()
    tcp.feed(talk.segments)
    assert tcp.held == 0
    for _ in range(5):
        talk.sent[0] += b"lost"
        segment = talk.send(1, b"data")
        items = tcp.feed([(segment[0], 11 * SECOND, *segment[2:])])
        assert [type(item) for item in items] == [Gap, Piece]
    segment = talk.send(0, b"found")
    assert [item.data for item in tcp.feed([(segment[0], 11 * SECOND, *segment[2:])])] == [b"found"]
    talk.sent[0] += b"lost"
    segment = talk.send(1, b"data")
    assert tcp.feed([(segment[0], 11 * SECOND, *segment[2:])]) == []


def test_what_was_acknowledged_at_the_end_is_stated():
    talk = hello()
    talk.sent[0] += b"lost"
    talk.ack(1)
    items = run(talk)
    assert gaps(items) == [(0, 16, 4, Cause.ACKNOWLEDGED)]


def test_a_fin_that_was_not_captured():
    talk = hello()
    talk.fins[0] = 1
    talk.finish(1)
    items = run(talk)
    assert gaps(items) == []
    assert [finished.stream.side for finished in of(items, Finished)] == [Side.DIALLED, Side.DIALLER]


def test_one_direction_only():
    talk = hello()
    talk.send(1, b"question")
    talk.send(0, b"answer")
    talk.hang_up()
    for side in (0, 1):
        items = run(segment for segment in talk if segment[2] == (c.FLOW, c.REVERSE)[side])
        assert text(items, side) == bytes(talk.sent[side])
        mine, other = streams(items)[side], streams(items)[1 - side]
        assert mine.seen and mine.whole and mine.finished
        assert not other.seen
        ((other_side, offset, length, cause),) = gaps(items)
        assert (other_side, offset, cause) == (1 - side, 0, Cause.ACKNOWLEDGED)
        assert len(talk.sent[1 - side]) <= length <= len(talk.sent[1 - side]) + 1
        assert of(items, Opened)[0].connection.start is (Start.SYN, Start.SYN_ACK)[side]


def test_a_gap_in_one_direction_only():
    talk = lossy()
    segments = [segment for segment in talk if segment[2] == c.FLOW]
    assert text(run(segments, finish=False), 0) == b"SSH-2.0-client\r\n"
    frame, time, *rest = talk.add(0, ACK, seq=24)
    items = run([*segments, (frame, time + 6 * SECOND, *rest)], finish=False)
    assert text(items, 0) == b"SSH-2.0-client\r\n....next"
    assert gaps(items) == [(0, 16, 4, Cause.UNSEEN)]


def test_waking_ends_the_wait():
    talk = lossy()
    talk.ack(1)
    tcp = Reassembler()
    tcp.feed(talk.segments)
    assert tcp.wake(talk.segments[-1][1]) == []
    assert tcp.held
    assert [type(item) for item in tcp.wake(talk.segments[-1][1] + SECOND)] == [Gap, Piece]
    assert tcp.held == 0


def test_other_connections_wake_it_up():
    talk, other = lossy(), Talk(flows=(b"1" * 12, b"1" * 12)).dial()
    talk.ack(1)
    tcp = Reassembler()
    tcp.feed(talk.segments)
    for _ in range(5000):
        other.send(0, b"x")
    items = [item for segment in other for item in tcp.feed([segment])]
    assert b"next" in [piece.data for piece in of(items, Piece)]


def test_packets_that_were_cut():
    talk = Talk().dial()
    talk.add(0, ACK, b"SSH-2.0", seq=0, missing=9)
    talk.sent[0] += bytes(16)
    talk.send(0, b"whole")
    talk.add(0, ACK, b"", missing=100)
    talk.sent[0] += bytes(100)
    talk.ack(1)
    talk.hang_up()
    items = run(talk)
    assert text(items, 0) == b"SSH-2.0" + b"." * 9 + b"whole" + b"." * 100
    assert {gap[3] for gap in gaps(items)} == {Cause.CUT}
    assert ending(items) is Ending.FINISHED


def test_packets_that_were_cut_out_of_order():
    talk = hello()
    talk.add(0, ACK, b"cut", seq=20, missing=7)
    talk.add(0, ACK, b"xx", seq=26)
    talk.add(0, ACK, b"", seq=28, missing=2)
    talk.add(0, ACK, b"four", seq=16)
    items = run(talk)
    assert text(items, 0)[16:] == b"fourcut...xx.."


def test_one_byte_is_needed_and_more_are_acknowledged():
    """One acknowledged byte at the end may be a FIN; two are not."""
    talk = hello()
    talk.sent[0] += b"x"
    talk.send(1, b"answer")
    talk.sent[0] += b"y"
    talk.ack(1)
    items = run(talk)
    assert gaps(items) == [(0, 16, 1, Cause.ACKNOWLEDGED)]
    assert text(items, 1).endswith(b"answer")


# ---------------------------------------------------------------------------------------------------------- beginnings


def test_the_syn_is_missing():
    talk = hello().hang_up()
    items = run(talk.segments[1:])
    assert (text(items, 0), text(items, 1)) == tuple(map(bytes, talk.sent))
    assert of(items, Opened)[0].connection.start is Start.SYN_ACK
    assert all(stream.whole for stream in streams(items))
    assert streams(items)[0].connection.dialler.port == 40000


def test_the_answer_to_the_syn_is_missing():
    talk = hello().hang_up()
    items = run([talk.segments[0], *talk.segments[2:]])
    assert (text(items, 0), text(items, 1)) == tuple(map(bytes, talk.sent))
    assert streams(items)[0].connection.dialler.port == 40000


def test_a_start_in_the_middle():
    talk = hello()
    begin = len(talk.segments)
    talk.ack(0)
    talk.send(1, b"from the middle")
    talk.send(0, b"as well")
    items = run(talk.segments[begin:])
    assert (text(items, 0), text(items, 1)) == (b"from the middle", b"as well")  # who sent first is the dialler
    assert of(items, Opened)[0].connection.start is Start.MIDDLE
    assert not any(stream.whole for stream in streams(items))


def test_a_start_in_the_middle_with_probes():
    talk = hello()
    begin = len(talk.segments)
    talk.send(1, b"data")
    talk.add(0, ACK, seq=15)
    talk.ack(1)
    talk.send(0, b"more")
    items = run(talk.segments[begin:])
    assert (text(items, 0), text(items, 1)) == (b"data", b"more")
    assert gaps(items) == []


def test_a_start_in_the_middle_out_of_order():
    talk = hello()
    begin = len(talk.segments)
    talk.send(1, b"first")
    talk.send(1, b"second")
    segments = talk.segments[begin:][::-1]
    items = run(segments)
    assert text(items, 0) == b"second"
    assert streams(items)[0].discarded == 5


def test_strays_open_nothing():
    talk = hello()
    tcp = Reassembler()
    items = tcp.feed([talk.ack(0), talk.add(1, RST), talk.add(1, FIN | ACK)])
    assert items == []
    assert (tcp.strays, tcp.connections) == (3, 0)


# -------------------------------------------------------------------------------------------------------------- endings


def test_half_closed():
    talk = hello()
    talk.finish(0)
    talk.send(1, b"still here")
    talk.finish(1)
    items = run(talk)
    assert text(items, 1).endswith(b"still here")
    assert [finished.stream.side for finished in of(items, Finished)] == [Side.DIALLER, Side.DIALLED]


def test_a_fin_before_the_last_bytes():
    talk = hello()
    talk.send(0, b"last")
    talk.finish(0)
    talk.segments[-2:] = talk.segments[:-3:-1]
    items = run(talk)
    assert [type(item) for item in items[-3:]] == [Piece, Finished, Closed]
    assert text(items, 0).endswith(b"last")


def test_nothing_follows_the_end():
    talk = hello()
    talk.add(0, ACK, b"beyond", seq=20)
    talk.finish(0)
    talk.add(0, ACK, b"behind", seq=16)
    talk.add(0, ACK, b"behind", seq=17)
    talk.finish(1)
    talk.add(0, ACK, b"behind", seq=17)
    items = run(talk)
    assert text(items, 0) == b"SSH-2.0-client\r\n"
    assert ending(items) is Ending.FINISHED
    assert streams(items)[0].discarded == 6 * 4


def test_reset():
    talk = hello()
    talk.add(1, RST | ACK)
    items = run(talk)
    (reset,) = of(items, Reset)
    assert (reset.stream.side, reset.frame) == (Side.DIALLED, 6)
    assert ending(items) is Ending.RESET
    assert streams(items)[0].connection.reset


def test_refused():
    talk = Talk()
    talk.add(0, SYN, seq=-1)
    segment = talk.add(1, RST | ACK, ack=0)
    items = run([talk.segments[0], (*segment[:3], 0, *segment[4:])])  # RFC 9293 3.5.2: its sequence number is 0
    assert [type(item) for item in items] == [Opened, Reset, Closed]


def test_a_reset_gives_what_waits():
    talk = lossy()
    talk.add(0, RST)
    items = run(talk, finish=False)
    assert [type(item) for item in items[-3:]] == [Gap, Piece, Reset]


def test_a_forged_reset_ends_nothing():
    talk = hello()
    talk.add(1, RST)
    talk.send(0, b"goes on")
    talk.send(1, b"as does this")
    talk.add(0, RST)
    talk.hang_up()
    items = run(talk)
    assert (text(items, 0), text(items, 1)) == tuple(map(bytes, talk.sent))
    assert len(of(items, Reset)) == 1
    assert ending(items) is Ending.FINISHED


def test_a_reset_far_out_of_sequence_is_nothing():
    talk = hello()
    talk.add(1, RST, seq=1 << 30)
    items = run(talk)
    assert of(items, Reset) == []
    assert streams(items)[1].discarded == 1


# ------------------------------------------------------------------------------------------------- the same ports again


def again(first: Talk, *, isns: tuple[int, int] = (700_000_000, 800_000_000)) -> list[Segment]:
    """``first``, and a second conversation between the same ports."""
    second = Talk(isns=isns)
    second.dial()
    second.send(0, b"another")
    start = len(first.segments)
    return [*first, *((frame + start, time + start * 1_000_000, *rest) for frame, time, *rest in second)]


@pytest.mark.parametrize("how", ["finished", "reset", "vanished", "vanished middle"])
def test_ports_are_used_again(how):
    talk = hello()
    if how == "finished":
        talk.hang_up()
    elif how == "reset":
        talk.add(0, RST)
    segments = again(talk)
    items = run(segments[3:] if how == "vanished middle" else segments)
    first, second = (opened.connection for opened in of(items, Opened))
    assert first.ending is {"finished": Ending.FINISHED}.get(how, Ending.REUSED)
    assert (second.number, second.start, second.ending) == (2, Start.SYN, Ending.CAPTURE)
    assert [piece.data for piece in of(items, Piece) if piece.stream.connection is second] == [b"another"]
    assert all(stream.whole for stream in second.streams)
    assert of(items, Gap) == []


def test_ports_are_used_again_and_one_direction_was_captured():
    segments = [segment for segment in again(hello()) if segment[2] == c.FLOW]
    items = run(segments)
    assert [len(of(items, kind)) for kind in (Opened, Closed)] == [2, 2]
    assert of(items, Piece)[-1].data == b"another"
    segments = [segment for segment in again(hello()) if segment[2] == c.REVERSE]
    assert len(of(run(segments), Opened)) == 1  # its answers alone confirm nothing


def test_ports_are_used_again_and_the_syn_is_missing():
    segments = again(hello())
    del segments[5]
    items = run(segments)
    assert [opened.connection.start for opened in of(items, Opened)] == [Start.SYN, Start.SYN_ACK]
    assert of(items, Piece)[-1].data == b"another"


def test_a_forged_syn_changes_nothing():
    talk = hello()
    talk.add(0, SYN, seq=123_456)
    talk.send(0, b"goes on")
    talk.add(1, SYN | ACK, seq=99_999)
    talk.send(1, b"as well")
    talk.hang_up()
    items = run(talk)
    assert (text(items, 0), text(items, 1)) == tuple(map(bytes, talk.sent))
    assert ending(items) is Ending.FINISHED


def test_after_the_end_another_may_begin_in_the_middle():
    talk = hello().hang_up()
    other = Talk(isns=(700_000_000, 800_000_000)).dial()
    segment = other.send(0, b"another")
    items = run([*talk, segment])
    assert [opened.connection.start for opened in of(items, Opened)] == [Start.SYN, Start.MIDDLE]
    assert of(items, Piece)[-1].data == b"another"


def test_a_connection_with_itself():
    flow = c.CLIENT + c.CLIENT + struct.pack(">HH", 22, 22)
    talk = Talk(flows=(flow, flow), isns=(1000, 1000))
    talk.add(0, SYN, seq=-1)
    talk.add(0, SYN | ACK, seq=-1, ack=0)
    talk.send(0, b"echo")
    talk.finish(0)
    assert text(run(talk), 0) == b"echo"


# -------------------------------------------------------------------------------------------------- far out of sequence


def test_forged_bytes_far_ahead_are_not_believed():
    talk = hello()
    talk.add(0, ACK, b"forged", seq=1 << 30)
    for n in range(10):
        talk.send(0, b"%d" % n)
    talk.ack(1)
    items = run(talk)
    assert text(items, 0) == bytes(talk.sent[0])
    assert streams(items)[0].discarded == 6


def test_a_forged_acknowledgement_far_ahead_is_not_believed():
    talk = hello()
    talk.add(1, ACK, b"forged", ack=1 << 30)
    talk.send(0, b"goes on")
    items = run(talk)
    assert text(items, 0) == bytes(talk.sent[0])
    assert gaps(items) == []


def test_a_pause_of_the_capture_is_a_gap():
    """Both numbers jump, and agree: then so it is."""
    talk = hello()
    talk.sent[0] += bytes(50_000_000)
    talk.sent[1] += bytes(60_000_000)
    for _ in range(3):
        talk.send(0, b"after")
        talk.send(1, b"after")
    items = run(talk)
    (first, second) = sorted(gaps(items))
    assert first == (0, 16, 50_000_000, Cause.ACKNOWLEDGED)
    assert second[:2] == (1, 16) and 60_000_000 <= second[2] <= 60_000_005
    assert of(items, Piece)[-1].data == b"after"


# --------------------------------------------------------------------------------------------------------------- bounds


def test_what_waits_is_bounded():
    limits = ReassemblyLimits(held=20_000, held_total=100_000)
    talk = lossy()
    for _ in range(100):
        talk.send(0, bytes(1000))
    tcp = Reassembler(limits)
    items = []
    for segment in talk:
        items += tcp.feed([segment])
        assert tcp.held <= 20_000
    items += tcp.finish()
    assert text(items, 0) == b"SSH-2.0-client\r\n....next" + bytes(100_000)
    assert gaps(items) == [(0, 16, 4, Cause.UNSEEN)]


def test_what_waits_in_all_is_bounded():
    tcp = Reassembler(ReassemblyLimits(held=20_000, held_total=50_000))
    given = Counter()
    for number in range(1, 31):
        flow = struct.pack(">III", number, 0, 0)
        talk = Talk(flows=(flow, struct.pack(">III", 0, number, 0)))
        talk.dial()
        talk.send(1, b"hello")
        talk.sent[0] += b"lost"
        for _ in range(10):
            talk.send(0, bytes(1000))
        for segment in talk:
            given.update(type(item) for item in tcp.feed([segment]))
            assert tcp.held <= 50_000
    assert given[Gap] >= 25
    given.update(type(item) for item in tcp.finish())
    assert (given[Gap], given[Piece], given[Closed]) == (30, 330, 30)
    assert tcp.held == 0


def test_single_bytes_cost_what_they_cost():
    limits = ReassemblyLimits(held=100_000)
    tcp = Reassembler(limits)
    talk = hello()
    tcp.feed(talk.segments)
    for place in range(40_000, 16, -2):
        tcp.feed([talk.add(0, ACK, b"x", seq=place)])
        talk.segments.clear()
        assert tcp.held <= 100_000


def flows(number: int) -> tuple[bytes, bytes]:
    a, b = struct.pack(">I", number), b"\1\2\3\4"
    return a + b + PORTS, b + a + PORTS[2:] + PORTS[:2]


PORTS = struct.pack(">HH", 9, 22)


def test_connections_are_bounded():
    tcp = Reassembler(ReassemblyLimits(connections=50))
    precious = Talk(flows=flows(0)).dial()
    precious.send(0, b"data")
    tcp.feed(precious.segments)
    closed = []
    for number in range(1, 1000):  # a flood
        segment = Talk(flows=flows(number)).add(0, SYN, seq=-1)
        closed += of(tcp.feed([(number + 4, 0, *segment[2:])]), Closed)
        assert len(tcp._streams) <= 100
    assert {item.connection.ending for item in closed} == {Ending.EVICTED}
    assert [item.connection.number for item in closed] == list(range(2, 2 + len(closed)))  # the oldest without data
    (piece,) = tcp.feed([precious.send(0, b"and more")])
    assert piece.offset == 4
    assert len(closed) + len(tcp.finish()) == 1000


def test_what_has_ended_is_forgotten():
    tcp = Reassembler()
    broken, ended = hello(), hello().hang_up()
    broken.add(0, RST)
    frame = 0
    for number in range(30_000):
        segments = []
        for _, time, flow, *rest in (broken, ended)[number % 2]:
            frame += 1
            segments.append((frame, time, flows(number)[flow == c.REVERSE], *rest))
        assert len(of(tcp.feed(segments), Opened)) == 1
        assert len(tcp._streams) <= 2 * 2 * 65536 / 7 + 2
    assert tcp.connections == 30_000


def test_ignored_connections_cost_nothing_more():
    talk = lossy()
    tcp = Reassembler()
    (opened,) = of(tcp.feed(talk.segments), Opened)
    opened.connection.context = "mine"
    tcp.ignore(opened.connection)
    assert tcp.held == 0
    assert tcp.feed([talk.send(0, b"x"), talk.send(1, b"y"), *talk.hang_up()]) == []
    other = again(hello())[5:]
    assert [type(item) for item in tcp.feed(other)] == [Opened, Piece]
    assert len(tcp.finish()) == 1


def test_ignored_from_the_start():
    talk = hello()
    tcp = Reassembler()
    (opened,) = tcp.feed(talk.segments[:1])
    tcp.ignore(opened.connection)
    assert tcp.feed(talk.segments[1:]) == []
    assert tcp.finish() == []


def test_memory_stays_flat():
    tcp = Reassembler(ReassemblyLimits(history=100_000))
    talk = hello()
    tcp.feed(talk.segments)
    tracemalloc.start()
    try:
        for _ in range(3000):
            talk.segments.clear()
            tcp.feed([talk.send(0, bytes(100)), talk.ack(1)])
            del talk.sent[0][16:]
            talk.isns = ((talk.isns[0] + 100) & 0xFFFFFFFF, talk.isns[1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert tcp._streams[c.FLOW].offset == 300_016


# ----------------------------------------------------------------------------------------------------------- properties

TURNS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 30)), min_size=1, max_size=30)
ISNS = st.tuples(*[st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 200, 2**32 - 1))] * 2)


def converse(turns, isns, rng: random.Random) -> Talk:
    talk = Talk(isns=isns).dial()
    for side, size in turns:
        talk.send(side, rng.randbytes(size))
        if rng.random() < 0.3:
            talk.ack(1 - side)
    return talk.hang_up()


def renumber(segments: Iterable[Segment]) -> list[Segment]:
    return [(n, n * 1_000_000, *rest) for n, (_, _, *rest) in enumerate(segments, 1)]


def check(items, talk: Talk, segments: list[Segment]) -> None:
    """What is given is what was sent, once, in order, and nothing comes before what its sender had received."""
    sent = [bytes(side) for side in talk.sent]
    given, done = [0, 0], [0, 0]
    by_frame = {segment[0]: segment for segment in segments}
    for item in items:
        if isinstance(item, Piece | Gap):
            side = int(item.stream.side is Side.DIALLED)
            assert item.offset == given[side]
            if isinstance(item, Gap):
                given[side] += item.length
                continue
            given[side] += len(item.data)
            assert item.data == sent[side][item.offset : given[side]]
            ack = by_frame[item.frame][4]
            need = (ack - talk.isns[1 - side] - 1) & 0xFFFFFFFF
            assert need <= given[1 - side] + done[1 - side] or not item.stream.peer.seen
        elif isinstance(item, Finished):
            done[int(item.stream.side is Side.DIALLED)] = 1
    for side, stream in enumerate(streams(items)):
        assert given[side] == stream.offset <= len(sent[side]) + 1  # the FIN, if it is missing with what was before it


@given(turns=TURNS, isns=ISNS, seed=st.integers(0, 2**32), jitter=st.integers(0, 20), twice=st.integers(0, 3))
@settings(max_examples=300)
def test_any_order_and_repetition_gives_the_same(turns, isns, seed, jitter, twice):
    rng = random.Random(seed)
    talk = converse(turns, isns, rng)
    head, rest = talk.segments[:3], talk.segments[3:]
    moved = [(n + rng.uniform(0, jitter), segment) for n, segment in enumerate(rest)]
    moved += [(n + rng.uniform(0, jitter), segment) for n, segment in enumerate(rest) for _ in range(twice)]
    moved.sort(key=lambda pair: pair[0])
    segments = renumber([*head, *(segment for _, segment in moved)])
    items = run(segments)
    check(items, talk, segments)
    assert (text(items, 0), text(items, 1)) == tuple(map(bytes, talk.sent))
    assert of(items, Gap) == of(items, Conflict) == []
    assert ending(items) is Ending.FINISHED


@given(turns=TURNS, isns=ISNS, seed=st.integers(0, 2**32), count=st.integers(1, 20))
@settings(max_examples=300)
def test_any_cuts_and_overlaps_give_the_same(turns, isns, seed, count):
    """Parts of what was sent are sent again, cut anew, before or after the rest of it came."""
    rng = random.Random(seed)
    talk = converse(turns, isns, rng)
    segments = talk.segments[:]
    for _ in range(count):
        place = rng.randrange(3, len(segments))
        frame, time, flow, *_ = segments[place]
        side = int(flow == c.REVERSE)
        sent = bytes(talk.sent[side])
        start = rng.randint(0, len(sent))
        stop = rng.randint(start, len(sent))
        # It must not claim to have received what was not sent by then.
        again = (isns[side] + 1 + start) & 0xFFFFFFFF
        segments.insert(place, (frame, time, flow, again, isns[1 - side] + 1 & 0xFFFFFFFF, ACK, sent, start, stop, 0))
    segments = renumber(segments)
    items = run(segments)
    check(items, talk, segments)
    assert (text(items, 0), text(items, 1)) == tuple(map(bytes, talk.sent))
    assert of(items, Gap) == of(items, Conflict) == []


@given(
    turns=TURNS,
    isns=ISNS,
    seed=st.integers(0, 2**32),
    share=st.floats(0.01, 0.9),
    patience=st.sampled_from([1, SECOND]),
)
@settings(max_examples=500)
def test_any_loss_is_stated(turns, isns, seed, share, patience):
    rng = random.Random(seed)
    talk = converse([(side, size + 1) for side, size in turns], isns, rng)  # a single byte may be a FIN
    kept = [segment for segment in talk.segments[3:] if rng.random() > share]
    segments = renumber([*talk.segments[:3], *kept])
    items = run(segments, limits=ReassemblyLimits(patience=patience, lone_patience=patience))
    check(items, talk, segments)
    captured = [sum(s[8] - s[7] for s in kept if s[2] == flow) for flow in (c.FLOW, c.REVERSE)]
    for side, stream in enumerate(streams(items)):
        data = sum(len(piece.data) for piece in of(items, Piece) if piece.stream is stream)
        assert data == captured[side]
        assert stream.missing == sum(gap.length for gap in of(items, Gap) if gap.stream is stream)
        assert data + stream.missing == stream.offset
    assert of(items, Conflict) == []


SEGMENTS = st.lists(
    st.tuples(
        st.integers(0, 5 * SECOND),
        st.integers(0, 1),
        st.one_of(st.integers(990, 1030), st.integers(0, 2**32 - 1)),
        st.one_of(st.integers(990, 1030), st.integers(0, 2**32 - 1)),
        st.one_of(st.just(ACK), st.sampled_from([SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 0]), st.integers(0, 255)),
        st.binary(max_size=12),
        st.one_of(st.just(0), st.integers(0, 20)),
    ),
    max_size=40,
)


def simple(item):
    """An item as something that compares."""
    if isinstance(item, Piece):
        return ("Piece", repr(item.stream)[:40], *item[1:])
    values = attrs.asdict(item, recurse=False)
    return (type(item).__name__, *(x.number if isinstance(x, Connection) else repr(x)[:40] for x in values.values()))


@given(raw=SEGMENTS, small=st.booleans())
@settings(max_examples=100)
def test_any_segments(raw, small):
    whatever(raw, small)


@pytest.mark.parametrize("small", [False, True])
def test_many_segments(small):
    """The same by chance alone, which makes far more of them in the same time."""
    rng = random.Random(1)

    def number():
        return rng.randint(990, 1030) if rng.random() < 0.7 else rng.randrange(2**32)

    def flags():
        return rng.choice((ACK, ACK, ACK, ACK, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 0, rng.randrange(256)))

    def segment():
        missing = rng.choice((0, 0, rng.randrange(21)))
        data = rng.randbytes(rng.randrange(13))
        return rng.randrange(5 * SECOND), rng.randrange(2), number(), number(), flags(), data, missing

    for _ in range(1000):
        whatever([segment() for _ in range(rng.randrange(41))], small)


def whatever(raw, small):
    """What holds of any segments."""
    segments = [
        (n, time, (c.FLOW, c.REVERSE)[side], seq, ack, flags, data, 0, len(data), missing)
        for n, (time, side, seq, ack, flags, data, missing) in enumerate(raw, 1)
    ]
    limits = ReassemblyLimits(held=600, held_total=900, connections=2, ticks=20) if small else None
    tcp = Reassembler(limits)
    items, offsets, over = [], Counter(), set()
    for segment in segments:
        items += tcp.feed([segment])
        if limits:
            assert tcp.held <= limits.held_total
    items += tcp.finish()
    assert tcp.held == 0
    for item in items:
        if isinstance(item, Opened | Closed):
            connection = item.connection
        else:
            connection = item.stream.connection
            if not isinstance(item, Reset):
                assert item.stream not in over or isinstance(item, Conflict)
        assert connection not in over
        if isinstance(item, Piece | Gap):
            assert item.offset == offsets[item.stream]
            offsets[item.stream] += item.length if isinstance(item, Gap) else len(item.data)
            assert offsets[item.stream] > item.offset
        elif isinstance(item, Finished):
            over.add(item.stream)
        elif isinstance(item, Closed):
            over.add(connection)
    opened = [item.connection for item in of(items, Opened)]
    assert [connection.number for connection in opened] == list(range(1, len(opened) + 1))
    assert {item.connection for item in of(items, Closed)} == set(opened)
    # In batches it is the same.
    tcp = Reassembler(limits)
    assert [simple(item) for item in tcp.feed(segments) + tcp.finish()] == [simple(item) for item in items]


# ---------------------------------------------------------------------------------------------------------- from files


def streams_of(data: bytes):
    network, tcp = Network(), Reassembler()
    items = []
    for packets in CaptureReader().read([data]):
        items += tcp.feed(network.segments(packets))
    return items + tcp.finish()


V6 = c.CLIENT6 + c.SERVER6 + struct.pack(">HH", 40000, 22)
V6_BACK = c.SERVER6 + c.CLIENT6 + struct.pack(">HH", 22, 40000)


@pytest.mark.parametrize("flows", [(c.FLOW, c.REVERSE), (V6, V6_BACK)], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("write", [c.pcap, c.pcapng])
def test_from_file_to_streams(flows, write):
    talk = converse([(n % 2, n * 37 % 1400 + 1) for n in range(100)], (5, 2**32 - 5), random.Random(1))
    talk.segments = [(*segment[:2], flows[segment[2] == c.REVERSE], *segment[3:]) for segment in talk]
    items = streams_of(write(talk.records()))
    assert (text(items, 0), text(items, 1)) == tuple(map(bytes, talk.sent))
    assert frames(items) == [segment[0] for segment in talk if segment[8] > segment[7]]
    assert [piece.time for piece in of(items, Piece)] == [frame * 1_000_000 for frame in frames(items)]


@given(flips=st.lists(st.integers(0, 10**6), min_size=1, max_size=30), cut=st.integers(0, 10**6), ng=st.booleans())
@settings(max_examples=300)
def test_damaged_files(flips, cut, ng):
    data = bytearray((c.pcapng if ng else c.pcap)(DAMAGED))
    for flip in flips:
        data[flip // 8 % len(data)] ^= 1 << flip % 8
    try:
        items = streams_of(bytes(data[: len(data) - cut % len(data) // 4]))
    except CaptureError:
        return
    assert sum(len(piece.data) for piece in of(items, Piece)) <= len(data)


DAMAGED = converse([(n % 2, n * 7 % 30 + 1) for n in range(30)], (1, 2), random.Random(1)).records()


# ---------------------------------------------------------------------------------------------------------- recordings


def recorded(path):
    return streams_of(path.read_bytes())


def by_connection(items):
    """For each connection what each side sent."""
    found = {opened.connection: ([], []) for opened in of(items, Opened)}
    for piece in of(items, Piece):
        found[piece.stream.connection][piece.stream.side is Side.DIALLED].append(piece.data)
    return {connection: tuple(map(b"".join, sides)) for connection, sides in found.items()}


def test_the_lab(shared):
    import json

    for path in sorted((shared / "captures" / "lab").glob("*.pcap")):
        items = recorded(path)
        truth = json.loads(path.with_suffix(".truth.json").read_text())
        connections = by_connection(items)
        assert len(connections) == len(truth)
        assert of(items, Gap) == of(items, Conflict) == []
        for (connection, (client, server)), expected in zip(connections.items(), truth, strict=True):
            assert connection.start is Start.SYN
            assert connection.ending is Ending.FINISHED
            assert client.startswith(expected["client"]["version"].encode())
            assert server.startswith(expected["server"]["version"].encode())
        assert list(by_connection(recorded(path.with_suffix(".dsb.pcapng"))).values()) == list(connections.values())


def test_duplicates_of_everything(shared):
    items = recorded(shared / "captures" / "public" / "zeek" / "ssh-dups.pcap")
    assert [(s.offset, s.repeated, s.unchecked, s.conflicts) for s in streams(items)] == [
        (3705, 11115, 0, 0),
        (4273, 12819, 0, 0),
    ]
    assert of(items, Gap) == []
    assert ending(items) is Ending.FINISHED


def test_half_of_it_is_half_of_it(shared):
    public = shared / "captures" / "public" / "zeek"
    both = {connection.flow: sides for connection, sides in by_connection(recorded(public / "ssh.pcap")).items()}
    items = recorded(public / "ssh.client-side-half-duplex.pcap")
    half = by_connection(items)
    assert len(half) == 20
    for connection, (client, server) in half.items():
        assert server == b""
        assert client == both[connection.flow][0]
        missing = connection.streams[1].missing
        assert len(both[connection.flow][1]) <= missing <= len(both[connection.flow][1]) + 1  # or a FIN
        assert connection.streams[0].finished and not connection.streams[1].seen


@pytest.mark.parametrize(
    ("name", "starts", "lengths"),
    [
        ("flowcontainer/ssh.pcap", [Start.MIDDLE], [(154152, 6840)]),
        ("suricata-verify/ssh-hassh-incomplete.pcap", [Start.SYN], [(2009, 39)]),
        ("zeek/kex-quadratic-1000.pcap.gz", [Start.SYN], [(40577, 40577)]),
        ("zeek/reverse-ssh.pcap", [Start.SYN], [(2802, 3464)]),
        ("terrapin/rogue_session_attack.pcapng", [Start.SYN, Start.SYN], [(2741, 3925), (2753, 3925)]),
    ],
)
def test_public_captures(shared, name, starts, lengths):
    items = recorded(shared / "captures" / "public" / name)
    assert [opened.connection.start for opened in of(items, Opened)] == starts
    assert [tuple(map(len, sides)) for sides in by_connection(items).values()] == lengths
    assert of(items, Gap) == []


def test_isolated_packets(shared):
    items = recorded(shared / "captures" / "public" / "pcapplusplus" / "ssh_packets.pcap")
    assert len(of(items, Opened)) == 2
    assert len(of(items, Piece)) == 5
    assert {gap.cause for gap in of(items, Gap)} == {Cause.ACKNOWLEDGED, Cause.UNSEEN}
