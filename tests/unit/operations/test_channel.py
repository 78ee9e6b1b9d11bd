"""Channels as operations see them: reading, writing, asking, closing."""

from __future__ import annotations

import array

import pytest

from sshproto.channels.requests import (
    Break,
    EndOfWrite,
    Env,
    Exec,
    ExitSignal,
    ExitStatus,
    PtyRequest,
    Session,
    Shell,
    Signal,
    UnknownRequest,
    WindowChange,
)
from sshproto.errors import (
    ChannelEnded,
    ChannelStateError,
    InvalidArgument,
    LimitReached,
    OpenRefused,
    PeerDisconnected,
    RequestRefused,
    UnexpectedEof,
)
from sshproto.operations.steps import Together

WINDOW = 2048
LONG = bytes(index % 253 for index in range(3 * WINDOW))


@pytest.fixture
def pair(make):
    """A scene with small windows that nobody serves, and the two ends of a session in it."""
    scene = make(window=WINDOW, window_floor=WINDOW)
    scene.service.cancel()
    task = scene.client.begin(scene.client.hub.open_channel(Session()))
    scene.settle()
    theirs = scene.server.perform(scene.server.hub.accept_channel(scene.server.hub.take_question()))
    theirs.serving = True
    scene.settle()
    return scene, task.value(), theirs


def say(scene, channel, *pieces, stream=0):
    """Have the server send pieces, each of which has to have room."""
    for piece in pieces:
        task = scene.server.begin(channel.write(piece, stream))
        scene.settle()
        assert task.done


# -------------------------------------------------------------------------------------------------------------- reading


def test_reading_gives_what_is_there_and_no_more_than_was_asked_for(pair):
    scene, ours, theirs = pair
    say(scene, theirs, b"hello", b"world")
    assert scene.client.perform(ours.read(7)) == b"hellowo"
    assert scene.client.perform(ours.read()) == b"rld"
    assert scene.client.perform(ours.read(0)) == b""


def test_reading_waits_for_data_or_the_end(pair):
    scene, ours, theirs = pair
    task = scene.client.begin(ours.read())
    scene.settle()
    assert not task.done
    say(scene, theirs, b"now")
    assert task.value() == b"now"
    task = scene.client.begin(ours.read())
    scene.server.perform(theirs.send_eof())
    scene.settle()
    assert task.value() == b""
    assert ours.eof_received


def test_a_channel_on_which_nothing_comes_has_nothing_to_keep_it_in(pair):
    scene, ours, theirs = pair
    scene.server.perform(theirs.send_eof())
    scene.settle()
    ours.close()
    scene.settle()
    assert theirs.closed
    assert (ours.data, ours.errors, theirs.data, theirs.errors) == (None, None, None, None)


@pytest.mark.parametrize("stream", [0, 1])
@pytest.mark.parametrize("ended", ["by EOF", "by CLOSE", "by nobody", "by us", "with the connection"])
def test_a_stream_that_nobody_has_looked_at_has_ended_as_it_has(pair, ended, stream):
    scene, ours, theirs = pair
    if ended == "by EOF":
        scene.server.perform(theirs.send_eof())
    elif ended == "by CLOSE":
        theirs.close()
    elif ended == "by us":
        ours.close()
    elif ended == "with the connection":
        scene.cut()
    scene.settle()
    task = scene.client.begin(ours.read(stream=stream))
    if ended == "by nobody":
        say(scene, theirs, b"now", stream=stream)
        assert task.value() == b"now"
    elif ended == "with the connection":
        with pytest.raises(UnexpectedEof):
            task.value()
    else:
        assert task.value() == b""


@pytest.mark.parametrize("early", [b"", b"soon "])
def test_what_is_gathered_is_gathered_from_whenever_it_comes(pair, early):
    scene, ours, theirs = pair
    for stream in (0, 1):
        say(scene, theirs, *([early] if early else []), stream=stream)
    ours.gather()
    for stream in (0, 1):
        say(scene, theirs, bytes(WINDOW // 2), bytes(WINDOW // 2), bytes(WINDOW // 2), stream=stream)  # nobody reads
        assert ours.gathered(stream) == early + bytes(WINDOW // 2 * 3)
    assert theirs.data is None


def test_standard_error_is_a_stream_of_its_own(pair):
    scene, ours, theirs = pair
    say(scene, theirs, b"bad", stream=1)
    say(scene, theirs, b"good")
    assert scene.client.perform(ours.read(stream=1)) == b"bad"
    assert scene.client.perform(ours.read()) == b"good"


def test_what_came_before_the_close_is_read(pair):
    scene, ours, theirs = pair
    say(scene, theirs, b"last words")
    theirs.close()
    scene.settle()
    assert ours.closed
    assert scene.client.perform(ours.read()) == b"last words"
    assert scene.client.perform(ours.read()) == b""


def test_what_came_before_the_connection_was_lost_is_read_and_then_told(pair):
    scene, ours, theirs = pair
    say(scene, theirs, b"last words")
    scene.cut()
    assert scene.client.perform(ours.read()) == b"last words"
    with pytest.raises(UnexpectedEof):
        scene.client.perform(ours.read())


@pytest.mark.parametrize("ended", ["by EOF", "by CLOSE"])
def test_a_stream_that_has_ended_before_the_connection_was_lost_is_whole(pair, ended):
    scene, ours, theirs = pair
    say(scene, theirs, b"all of it")
    if ended == "by EOF":
        scene.server.perform(theirs.send_eof())
    else:
        theirs.close()
    scene.settle()
    scene.cut()
    assert scene.client.perform(ours.read_all()) == b"all of it"
    assert scene.client.perform(ours.read()) == b""


def test_reading_all_takes_more_than_the_window(pair):
    scene, ours, theirs = pair
    writing = scene.server.begin(theirs.write(LONG))
    reading = scene.client.begin(ours.read_all())
    scene.settle()
    assert (writing.done, reading.done) == (True, False)
    scene.server.perform(theirs.send_eof())
    scene.settle()
    assert reading.value() == LONG
    assert scene.client.perform(ours.read_all()) == b""


def test_all_that_is_left_is_read_after_a_part(pair):
    scene, ours, theirs = pair
    say(scene, theirs, b"one\ntwo\nthree")
    assert scene.client.perform(ours.read_line()) == b"one\n"
    scene.server.perform(theirs.send_eof())
    scene.settle()
    assert scene.client.perform(ours.read_all()) == b"two\nthree"


def test_a_reader_of_all_that_was_cancelled_leaves_it_to_the_next(pair):
    scene, ours, theirs = pair
    cancelled = scene.client.begin(ours.read_all())
    next_one = scene.client.begin(ours.read(4))
    say(scene, theirs, b"hello")
    assert not next_one.done
    cancelled.cancel()
    scene.settle()
    assert next_one.value() == b"hell"
    assert scene.client.perform(ours.read()) == b"o"


def test_of_two_readers_of_all_one_gets_it(pair):
    scene, ours, theirs = pair
    tasks = [scene.client.begin(ours.read_all()) for _ in range(3)]
    say(scene, theirs, b"hello")
    tasks[0].cancel()
    say(scene, theirs, b"world")
    scene.server.perform(theirs.send_eof())
    scene.settle()
    assert [task.value() for task in tasks[1:]] == [b"helloworld", b""]


@pytest.mark.parametrize("count", [1, WINDOW, WINDOW + 1, 2 * WINDOW + 7])
def test_so_many_bytes_are_read_even_if_the_window_is_smaller(pair, count):
    scene, ours, theirs = pair
    scene.server.begin(theirs.write(LONG))
    assert scene.client.perform(ours.read_exactly(count)) == LONG[:count]
    assert scene.client.perform(ours.read_exactly(len(LONG) - count)) == LONG[count:]


def test_fewer_are_read_only_at_the_end(pair):
    scene, ours, theirs = pair
    say(scene, theirs, b"short")
    scene.server.perform(theirs.send_eof())
    assert scene.client.perform(ours.read_exactly(100)) == b"short"
    assert scene.client.perform(ours.read_exactly(0)) == b""


def test_lines_are_read_and_what_is_left_at_the_end(pair):
    scene, ours, theirs = pair
    say(scene, theirs, b"one\ntw", b"o\n\nlast")
    scene.server.perform(theirs.send_eof())
    lines = [scene.client.perform(ours.read_line()) for _ in range(5)]
    assert lines == [b"one\n", b"two\n", b"\n", b"last", b""]


def test_a_separator_may_come_in_pieces(pair):
    scene, ours, theirs = pair
    task = scene.client.begin(ours.read_until(b"\r\n\r\n"))
    say(scene, theirs, b"a\r", b"\n", b"\r", b"\nb")
    assert task.value() == b"a\r\n\r\n"
    assert scene.client.perform(ours.read()) == b"b"


def test_a_line_may_be_longer_than_the_window_but_not_than_the_limit(pair):
    scene, ours, theirs = pair
    line = b"x" * (len(LONG) - 1) + b"\n"
    scene.server.begin(theirs.write(line + line))
    assert scene.client.perform(ours.read_line(len(line))) == line
    with pytest.raises(LimitReached):
        scene.client.perform(ours.read_line(len(line) - 1))
    assert scene.client.perform(ours.read_exactly(len(line))) == line


def test_two_that_read_get_different_bytes(pair):
    """The one that searches is not led astray by what the other takes."""
    scene, ours, theirs = pair
    line = scene.client.begin(ours.read_line())
    say(scene, theirs, b"x" * 10)
    assert scene.client.perform(ours.read(5)) == b"x" * 5
    say(scene, theirs, b"y\nzzzzzzzzzz")
    assert line.value() == b"xxxxxy\n"

    line = scene.client.begin(ours.read_line())
    say(scene, theirs, b"x" * 10)

    def both():
        assert (yield from ours.read(15)) == b"z" * 10 + b"x" * 5
        yield from ours.read(1)

    scene.client.perform(both())
    say(scene, theirs, b"\n" + b"y" * 20)
    assert line.value() == b"xxxx\n"


def test_a_read_that_is_cancelled_loses_nothing(pair):
    scene, ours, theirs = pair
    for operation in (ours.read(), ours.read_exactly(100), ours.read_line(), ours.read_all()):
        task = scene.client.begin(operation)
        say(scene, theirs, b"x" * 10)
        task.cancel()
    rest = scene.client.perform(ours.read())
    assert rest == b"x" * 30  # the first has read what came for it
    assert task.error is not None


# -------------------------------------------------------------------------------------------------------------- writing


def test_writing_waits_for_room(pair):
    scene, ours, theirs = pair
    task = scene.client.begin(ours.write(LONG))
    scene.settle()
    assert not task.done
    assert scene.server.perform(theirs.read_exactly(len(LONG))) == LONG
    assert task.done


def test_what_each_writes_is_in_one_piece(pair):
    scene, ours, theirs = pair
    texts = [bytes([name]) * 3000 for name in b"abcd"]
    tasks = [scene.client.begin(ours.write(text)) for text in texts]
    eof = scene.client.begin(ours.send_eof())
    assert scene.server.perform(theirs.read_all()) == b"".join(texts)
    assert all(task.done for task in (*tasks, eof))


def test_who_was_cancelled_while_writing_leaves_the_turn_to_the_next(pair):
    scene, ours, theirs = pair
    first = scene.client.begin(ours.write(b"a" * 5000))
    waits = scene.client.begin(ours.write(b"b" * 5000))
    third = scene.client.begin(ours.write(b"c" * 100))
    scene.settle()
    waits.cancel()
    first.cancel()
    assert scene.server.perform(theirs.read_exactly(WINDOW + 100)) == b"a" * WINDOW + b"c" * 100
    assert third.done


def test_anything_like_bytes_can_be_written(pair):
    scene, ours, theirs = pair
    numbers = array.array("I", range(1000))
    task = scene.client.begin(ours.write(memoryview(numbers)))
    assert scene.server.perform(theirs.read_exactly(4000)) == numbers.tobytes()
    assert task.done
    for data in (b"", bytearray(b"x"), memoryview(b"yz")):
        scene.client.perform(ours.write(data))
    assert scene.server.perform(theirs.read_exactly(3)) == b"xyz"
    with pytest.raises(InvalidArgument):
        scene.client.perform(ours.write("text"))
    with pytest.raises(InvalidArgument):
        scene.client.perform(ours.write(b"x", 1))


def test_writing_ends_when_the_peer_closes(pair):
    scene, ours, theirs = pair
    writing, waiting = (scene.client.begin(ours.write(LONG)) for _ in range(2))
    scene.settle()
    theirs.close()
    scene.settle()
    for task in (writing, waiting):
        with pytest.raises(ChannelEnded, match="closed"):
            task.value()
    with pytest.raises(ChannelEnded):
        scene.client.perform(ours.write(b"x"))


def test_writing_ends_when_the_peer_reads_no_more(pair):
    scene, ours, theirs = pair
    task = scene.client.begin(ours.write(LONG))
    scene.settle()
    scene.server.perform(theirs.notify(EndOfWrite()))
    scene.settle()
    with pytest.raises(ChannelEnded, match="does not read"):
        task.value()
    assert not ours.peer_reads
    scene.client.perform(ours.send_eof())
    assert scene.server.perform(theirs.read_all()) == LONG[:WINDOW]


def test_standard_error_is_written_though_the_peer_reads_no_more_data(pair):
    scene, ours, theirs = pair
    scene.client.perform(ours.notify(EndOfWrite()))
    scene.settle()
    with pytest.raises(ChannelEnded):
        scene.server.perform(theirs.write(b"data"))
    scene.server.perform(theirs.write(b"oh no", 1))
    scene.settle()
    assert scene.client.perform(ours.read(stream=1)) == b"oh no"


def test_after_eof_nothing_is_written_but_much_can_be_read(pair):
    scene, ours, theirs = pair
    scene.client.perform(ours.send_eof())
    scene.client.perform(ours.send_eof())
    with pytest.raises(ChannelStateError):
        scene.client.perform(ours.write(b"x"))
    assert scene.server.perform(theirs.read()) == b""
    say(scene, theirs, b"still")
    assert scene.client.perform(ours.read()) == b"still"


def test_eof_for_nobody_is_no_error(pair):
    scene, ours, theirs = pair
    theirs.close()
    scene.settle()
    scene.client.perform(ours.send_eof())
    scene.cut()
    scene.client.perform(ours.send_eof())  # the channel ended before the connection did


def test_what_was_closed_before_the_connection_was_lost_was_closed(pair):
    scene, ours, theirs = pair
    theirs.close()
    scene.settle()
    scene.cut()
    with pytest.raises(ChannelEnded):
        scene.client.perform(ours.write(b"x"))


def test_eof_that_waits_for_a_key_exchange_can_be_cancelled_and_sent_again(make):
    scene = make(client_deferred_packets=0)
    channel = scene.client.perform(scene.client.hub.open_channel(Session()))
    scene.client.perform(channel.require(Exec(b"count")))
    scene.client.conn.rekey()
    task = scene.client.begin(channel.send_eof())
    assert not task.done
    task.cancel()
    scene.settle()
    assert not channel.eof_sent
    scene.client.perform(channel.send_eof())
    assert scene.client.perform(channel.read_all()) == b"0"


def test_nothing_is_sent_during_a_key_exchange_and_all_of_it_after(pair):
    scene, ours, theirs = pair
    scene.client.conn.rekey()
    task = scene.client.begin(ours.write(b"patience"))
    assert not task.done
    scene.settle()
    assert task.done
    assert scene.server.perform(theirs.read()) == b"patience"


# --------------------------------------------------------------------------------------------------------------- asking


def test_requests_are_answered_each_by_its_own_reply(pair):
    scene, ours, theirs = pair
    tasks = [scene.client.begin(ours.request(Env(name, b""))) for name in "ABC"]
    scene.settle()
    for granted in (True, False, True):
        question = scene.server.perform(theirs.next_request())
        (scene.server.conn.succeed if granted else scene.server.conn.fail)(question)
    scene.settle()
    assert [task.value() for task in tasks] == [True, False, True]
    assert not ours._replies


@pytest.mark.covers("V35", "B5", "P21")
def test_requests_that_want_no_reply_wait_within_bounds(pair):
    """While an application thinks about one request the peer may send others without end; and nobody waits for them."""
    scene, ours, theirs = pair
    request = UnknownRequest("x@example.org", bytes(1000))
    for _ in range(2000):
        scene.client.conn.request(ours.number, request, want_reply=False)
        scene.settle()
    kept = len(theirs._requests)
    assert kept == 1024 * 1024 // (1000 + 64)
    asked = scene.client.begin(ours.request(Env("A", b"")))  # what wants a reply is bounded by the core, and gets one
    scene.settle()
    for _ in range(kept):
        assert not scene.server.perform(theirs.next_request()).want_reply
    scene.server.conn.succeed(scene.server.perform(theirs.next_request()))
    scene.settle()
    assert asked.value() is True
    scene.client.conn.request(ours.number, request, want_reply=False)  # there is room again
    scene.settle()
    assert len(theirs._requests) == 1
    theirs.stop_serving()
    assert theirs._unasked == 0


def test_what_is_required_must_be_granted(pair):
    scene, ours, theirs = pair
    theirs.stop_serving()
    with pytest.raises(RequestRefused, match="shell"):
        scene.client.perform(ours.require(Shell()))


def test_a_reply_to_nobody_is_no_matter(pair):
    scene, ours, theirs = pair
    cancelled = scene.client.begin(ours.request(Env("A", b"")))
    kept = scene.client.begin(ours.request(Env("B", b"")))
    scene.settle()
    cancelled.cancel()
    for granted in (False, True):
        question = scene.server.perform(theirs.next_request())
        (scene.server.conn.succeed if granted else scene.server.conn.fail)(question)
    scene.settle()
    assert kept.value() is True


def test_asking_ends_when_the_peer_closes(pair):
    scene, ours, theirs = pair
    task = scene.client.begin(ours.request(Env("A", b"")))
    scene.settle()
    theirs.close()
    scene.settle()
    with pytest.raises(ChannelEnded):
        task.value()
    with pytest.raises(ChannelEnded):
        scene.client.perform(ours.notify(Env("A", b"")))


def test_a_reply_counts_though_the_channel_has_closed_since(pair):
    scene, ours, theirs = pair
    task = scene.client.begin(ours.request(Env("A", b"")))
    scene.settle()
    scene.server.conn.succeed(scene.server.perform(theirs.next_request()))
    theirs.close()
    scene.settle()
    assert task.value() is True


def test_requests_that_make_no_sense_are_refused_here(pair):
    scene, _, theirs = pair
    with pytest.raises(InvalidArgument):
        scene.server.perform(theirs.request(Shell()))


def test_who_serves_no_more_refuses_what_waits_and_what_comes(pair):
    scene, ours, theirs = pair
    tasks = [scene.client.begin(ours.request(Env(name, b""))) for name in "AB"]
    waiting = scene.server.begin(theirs.next_request())
    scene.settle()
    scene.server.conn.succeed(waiting.value())
    theirs.stop_serving()
    scene.settle()
    assert [task.value() for task in tasks] == [True, False]
    assert scene.client.perform(ours.request(Env("C", b""))) is False
    assert scene.server.perform(theirs.next_request()) is None


def test_who_waits_for_requests_goes_on_when_serving_ends(pair):
    scene, _, theirs = pair
    waiting = [scene.server.begin(theirs.next_request()) for _ in range(2)]
    theirs.stop_serving()
    scene.settle()
    assert [task.value() for task in waiting] == [None, None]


def test_there_is_no_next_request_on_a_closed_channel(pair):
    scene, ours, theirs = pair
    task = scene.server.begin(theirs.next_request())
    ours.close()
    scene.settle()
    assert task.value() is None


# -------------------------------------------------------------------------------------------------------------- notices


def test_notices_come_in_order_and_of_sizes_the_last(pair):
    scene, ours, theirs = pair
    for notice in (
        WindowChange(80, 24),
        WindowChange(81, 24),
        Signal("TERM"),
        WindowChange(82, 24),
        WindowChange(83, 24),
    ):
        scene.client.perform(ours.notify(notice))
    scene.settle()
    notices = [scene.server.perform(theirs.next_notice()) for _ in range(3)]
    assert notices == [WindowChange(81, 24), Signal("TERM"), WindowChange(83, 24)]
    task = scene.server.begin(theirs.next_notice())
    scene.settle()
    assert not task.done
    ours.close()
    scene.settle()
    assert task.value() is None


def test_of_notices_that_nobody_asks_for_the_newest_are_kept(pair):
    scene, ours, theirs = pair
    for number in range(100):
        scene.client.perform(ours.notify(Signal(f"S{number}")))
    scene.settle()
    assert scene.server.perform(theirs.next_notice()) == Signal("S36")


def test_breaks_are_notices_where_they_are_wanted(pair):
    scene, ours, theirs = pair
    theirs.stop_serving()
    assert scene.client.perform(ours.request(Break(600))) is False
    theirs.breaks = True
    assert scene.client.perform(ours.request(Break(600))) is True
    assert scene.server.perform(theirs.next_notice()) == Break(600)


@pytest.mark.parametrize("notice", [ExitStatus(3), ExitSignal("KILL")])
def test_the_end_of_the_program_is_told(pair, notice):
    scene, ours, theirs = pair
    task = scene.client.begin(ours.until_exit())
    scene.settle()
    assert not task.done
    scene.server.perform(theirs.notify(notice))
    scene.settle()
    assert task.value() is None
    assert (ours.exit_status, ours.exit_signal) in {(3, None), (None, notice)}
    scene.cut()
    assert scene.client.perform(ours.until_exit()) is None


def test_a_program_that_nobody_tells_of_has_ended_with_its_channel(pair):
    scene, ours, theirs = pair
    tasks = [scene.client.begin(ours.until_exit()), scene.client.begin(ours.until_closed())]
    theirs.close()
    scene.settle()
    assert [task.value() for task in tasks] == [None, None]
    assert (ours.exit_status, ours.exit_signal) == (None, None)


def test_a_program_that_nobody_tells_of_may_still_run_when_the_connection_is_lost(pair):
    scene, ours, _ = pair
    task = scene.client.begin(ours.until_exit())
    scene.server.conn.disconnect()
    scene.settle()
    with pytest.raises(PeerDisconnected):
        task.value()
    assert ours.lost


def test_a_channel_that_is_closed_because_the_connection_is_lost_is_lost_as_well(pair):
    scene, ours, _ = pair
    task = scene.client.begin(scene.client.hub.open_channel(Session()))
    scene.settle()
    scene.server.perform(scene.server.hub.accept_channel(scene.server.hub.take_question()))
    scene.settle()
    other = task.value()
    ours.on_end = other.close  # as who served both of them would, being cancelled
    tasks = [scene.client.begin(operation) for operation in (other.read(), other.until_exit())]
    scene.server.conn.disconnect()
    scene.settle()
    for task in tasks:
        with pytest.raises(PeerDisconnected):
            task.value()
    assert other.lost


# -------------------------------------------------------------------------------------------------------------- closing


def test_closing_throws_away_what_was_not_read(pair):
    scene, ours, theirs = pair
    say(scene, theirs, b"unread")
    reading = scene.client.begin(ours.read(stream=1))
    ours.close()
    ours.close()
    scene.settle()
    assert reading.value() == b""
    assert scene.client.perform(ours.read()) == b""
    assert theirs.closed
    assert scene.client.conn.channels == scene.server.conn.channels == ()
    assert repr(ours) == f"<Channel {ours.number}, session, closed>"


def test_a_channel_can_be_closed_before_it_is_open(bare):
    task = bare.client.begin(bare.client.hub.open_channel(Session()))
    channel = bare.client.hub.channels[0]
    channel.close()
    bare.settle()
    with pytest.raises(ChannelEnded):
        task.value()
    theirs = bare.server.perform(bare.server.hub.accept_channel(bare.server.hub.take_question()))
    bare.settle()
    assert theirs.closed
    assert bare.client.hub.channels == {}


def test_each_who_asks_a_refused_channel_gets_an_error_of_his_own(bare):
    bare.client.begin(bare.client.hub.open_channel(Session()))
    bare.settle()
    channel = bare.client.hub.channels[0]
    bare.server.hub.refuse(bare.server.hub.take_question())
    bare.settle()
    errors = []
    for _ in range(2):
        with pytest.raises(OpenRefused) as caught:
            channel.check()
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert (errors[0].args, errors[0].reason) == (errors[1].args, 1)


def test_its_end_is_told_once_unless_we_have_closed_it(pair):
    scene, ours, theirs = pair
    ends = []
    ours.on_end = lambda: ends.append("ours")
    theirs.on_end = lambda: ends.append("theirs")
    theirs.close()
    scene.settle()
    scene.cut()
    assert ends == ["ours"]


def test_the_connections_end_is_the_channels(pair):
    scene, ours, _ = pair
    ends = []
    ours.on_end = lambda: ends.append("ours")
    scene.cut()
    assert ends == ["ours"]


def test_a_channel_says_what_it_is(pair):
    scene, ours, theirs = pair
    assert repr(ours) == f"<Channel {ours.number}, session>"
    task = scene.client.begin(ours.request(PtyRequest("vt100")))
    scene.settle()
    question = scene.server.perform(theirs.next_request())
    assert question.request == PtyRequest("vt100")
    task.cancel()


def test_both_directions_are_used_at_once(pair):
    scene, ours, theirs = pair

    def echo():
        while data := (yield from theirs.read()):
            yield from theirs.write(data)
        yield from theirs.send_eof()

    def use():
        def send():
            yield from ours.write(LONG * 5)
            yield from ours.send_eof()

        results = yield Together(send(), ours.read_all())
        return results[1]

    scene.server.begin(echo())
    assert scene.client.perform(use()) == LONG * 5
