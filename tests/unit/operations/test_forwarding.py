"""Forwarding: relays, and who listens and connects for whom, in memory."""

from __future__ import annotations

import errno

import pytest

from sshproto.channels.requests import (
    AuthAgent,
    CancelStreamlocalForward,
    CancelTcpipForward,
    DirectStreamlocal,
    DirectTcpip,
    ForwardedStreamlocal,
    ForwardedTcpip,
    OpenFailure,
    Session,
    StreamlocalForward,
    TcpipForward,
    UnknownGlobal,
)
from sshproto.errors import ChannelEnded, InternalError, InvalidArgument, OpenRefused, RequestRefused, UnexpectedEof
from sshproto.operations.forwarding import (
    connect_channel,
    forward_local,
    forward_remote,
    listen,
    open_to,
    origin_of,
    relay,
    show,
    take_all,
)
from sshproto.operations.steps import Sleep, Together, Wait
from sshproto.wire.messages import GlobalRequest
from tests.support.running import Host, Scene, joined

LONG = bytes(index % 253 for index in range(50_000))
HERE = ("127.0.0.1", 8022)
THERE = ("db.example", 5432)
PATH = "/run/db.sock"


def everything(stream):
    """Operation: all that comes from a stream."""
    found = bytearray()
    while data := (yield from stream.receive(1000)):
        found += data
    return bytes(found)


def exchange(stream, data):
    """Operation: say ``data`` and end; hear all."""

    def say():
        yield from stream.send(data)
        yield from stream.send_eof()

    results = yield Together(say(), everything(stream))
    return results[1]


def pause(seconds=1.0):
    """Time for listeners to be made."""
    yield Sleep(seconds)


def answering(scene, address, prefix=b""):
    """There is a service that says ``prefix``, then what it is told, once it was told all."""
    listener = scene.net.listener(address)

    def answer():
        while True:
            stream = yield from listener.accept()
            data = yield from everything(stream)
            yield from stream.send(prefix + data)
            stream.close()

    return scene.server.begin(answer())


@pytest.fixture
def relayed(bare):
    """A relay at the client: the scene, its task, the server's channel, and the far end of its stream."""
    opening = bare.client.begin(open_to(bare.client.hub, THERE))
    bare.settle()
    theirs = bare.server.perform(bare.server.hub.accept_channel(bare.server.hub.take_question()))
    bare.settle()
    near, far = joined("relayed", room=1000)
    return bare, bare.client.begin(relay(opening.value(), near)), theirs, far


# --------------------------------------------------------------------------------------------------------------- relays


def test_bytes_pass_both_ways(relayed):
    scene, task, theirs, far = relayed
    scene.client.perform(far.send(b"ping"))
    assert scene.server.perform(theirs.read()) == b"ping"
    scene.server.perform(theirs.write(b"pong"))
    assert scene.client.perform(far.receive(100)) == b"pong"
    assert not task.done


def test_what_one_side_has_ended_the_other_may_still_answer(relayed):
    scene, task, theirs, far = relayed
    scene.client.perform(far.send(b"question"))
    scene.client.perform(far.send_eof())
    assert scene.server.perform(theirs.read_all()) == b"question"
    assert not task.done
    scene.server.begin(theirs.write(LONG))
    scene.server.begin(theirs.send_eof())
    assert scene.client.perform(everything(far)) == LONG
    scene.settle()
    assert task.value() is None
    assert (theirs.closed, far.far.closed) == (True, True)


def test_what_the_other_side_has_ended_the_one_may_still_answer(relayed):
    scene, task, theirs, far = relayed
    scene.server.perform(theirs.write(b"question"))
    scene.server.perform(theirs.send_eof())
    assert scene.client.perform(everything(far)) == b"question"
    assert not task.done
    saying = scene.client.begin(far.send(LONG))
    scene.settle()
    assert saying.done
    scene.client.perform(far.send_eof())
    assert scene.server.perform(theirs.read_all()) == LONG
    assert task.value() is None


def test_nobody_is_read_faster_than_the_other_side_takes(make):
    window = 2000
    scene = make(window=window, window_floor=window)
    scene.service.cancel()
    opening = scene.client.begin(open_to(scene.client.hub, THERE))
    scene.settle()
    theirs = scene.server.perform(scene.server.hub.accept_channel(scene.server.hub.take_question()))
    scene.settle()
    ours = opening.value()
    near, far = joined(room=1000)
    scene.client.begin(relay(ours, near))
    talking = scene.server.begin(theirs.write(LONG))
    scene.settle()
    assert not talking.done
    assert scene.server.conn.sendable(theirs.number) == 0
    assert ours.inbox(0).size <= window
    saying = scene.client.begin(far.send(LONG))
    scene.settle()
    assert not saying.done
    assert theirs.inbox(0).size == window
    assert scene.client.perform(far.receive(10_000)) == LONG[:1000]
    scene.settle()
    assert len(scene.server.perform(theirs.read_exactly(len(LONG)))) == len(LONG)
    assert saying.done


def test_when_the_channel_closes_the_stream_does_with_all_that_came(relayed):
    scene, task, theirs, far = relayed
    scene.server.perform(theirs.write(b"last words"))
    theirs.close()
    scene.settle()
    assert task.value() is None
    assert scene.client.perform(everything(far)) == b"last words"


@pytest.mark.parametrize("ended", ["before", "after"])
def test_when_the_stream_closes_the_channel_does(relayed, ended):
    """It is seen by who wants to write to it, if not by who reads."""
    scene, task, theirs, far = relayed
    if ended == "before":
        scene.server.perform(theirs.send_eof())
        scene.settle()
    far.close()
    scene.settle()
    if ended == "after":
        assert not task.done
        scene.server.perform(theirs.write(b"anybody?"))
        scene.settle()
    assert task.value() is None
    assert theirs.closed


def test_a_relay_ends_with_its_connection(relayed):
    scene, task, _, far = relayed
    scene.cut()
    scene.settle()
    assert task.value() is None
    assert scene.client.perform(far.receive(10)) == b""


def test_a_stream_that_breaks_ends_its_relay(relayed):
    scene, task, theirs, far = relayed

    def broken(limit):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
        yield

    far.far.receive = broken
    scene.client.perform(far.send(b"x" * 100))
    scene.settle()
    assert scene.server.perform(theirs.read_all()) == b"x" * 100
    scene.settle()
    assert task.value() is None
    assert theirs.closed


def test_a_bug_in_a_stream_is_not_hidden_and_closes_both(relayed):
    scene, task, theirs, far = relayed

    def broken(data):
        raise ZeroDivisionError
        yield

    far.far.send = broken
    scene.server.perform(theirs.write(b"x"))
    scene.settle()
    with pytest.raises(ZeroDivisionError):
        task.value()
    assert (theirs.closed, far.far.closed) == (True, True)


# -------------------------------------------------------------------------------------------- towards the server's side


@pytest.mark.parametrize("target", [THERE, PATH])
def test_the_server_connects_us_to_what_it_can_reach(scene, target):
    answering(scene, target, b"you said: ")
    channel = scene.client.perform(open_to(scene.client.hub, target))
    scene.client.perform(channel.write(b"hello"))
    scene.client.perform(channel.send_eof())
    assert scene.client.perform(channel.read_all()) == b"you said: hello"
    scene.settle()
    assert channel.closed
    assert scene.net.left_open() == []


@pytest.mark.covers("V77")
def test_what_the_server_does_not_allow_or_reach_is_told(scene):
    with pytest.raises(OpenRefused) as caught:
        scene.client.perform(open_to(scene.client.hub, ("forbidden", 1)))
    assert caught.value.reason == OpenFailure.ADMINISTRATIVELY_PROHIBITED
    with pytest.raises(OpenRefused) as caught:
        scene.client.perform(open_to(scene.client.hub, ("nobody", 1)))
    assert caught.value.reason == OpenFailure.CONNECT_FAILED
    assert caught.value.description == "Connection refused"


@pytest.mark.parametrize("target", [("host\0", 1), ("host", 65536), ("host", -1), "", "/run/" + "x" * 200, "/a\0b"])
def test_what_cannot_be_asked_for_is_said(scene, target):
    if target == "":
        with pytest.raises(OpenRefused):
            scene.client.perform(open_to(scene.client.hub, target))
        return
    with pytest.raises(InvalidArgument):
        scene.client.perform(open_to(scene.client.hub, target))


@pytest.mark.parametrize(
    ("origin", "told"), [(("192.0.2.7", 55), ("192.0.2.7", 55)), ("/run/x", ("127.0.0.1", 0)), (None, ("127.0.0.1", 0))]
)
def test_the_server_is_told_where_it_comes_from(origin, told):
    seen = []

    class Curious(Host):
        def allow_connect(self, target, origin):
            seen.append((target, origin))
            return False

    scene = Scene().serve(Curious()).login()
    arguments = (THERE,) if origin is None else (THERE, origin)
    with pytest.raises(OpenRefused):
        scene.client.perform(open_to(scene.client.hub, *arguments))
    assert seen == [(THERE, told)]


def test_the_server_may_serve_a_connection_itself():
    class Serving(Host):
        def allow_connect(self, target, origin):
            def serve(channel):
                yield from channel.write(repr(target).encode())
                yield from channel.send_eof()

            return serve

    scene = Scene().serve(Serving()).login()
    channel = scene.client.perform(open_to(scene.client.hub, THERE))
    assert scene.client.perform(channel.read_all()) == repr(THERE).encode()
    scene.settle()
    assert channel.closed


def test_that_a_client_leaves_is_no_bug_of_who_serves_it():
    class Pouring(Host):
        def allow_connect(self, target, origin):
            def serve(channel):
                while True:
                    yield from channel.write(LONG)

            return serve

        def bug(self, error):
            bugs.append(error)

    bugs = []
    scene = Scene().serve(Pouring()).login()
    channel = scene.client.perform(open_to(scene.client.hub, THERE))
    assert scene.client.perform(channel.read_exactly(10)) == LONG[:10]
    channel.close()
    scene.settle()
    assert bugs == []
    assert scene.server.hub.channels == {}


def test_who_connects_here_is_connected_there(scene):
    answering(scene, THERE)
    listener = scene.net.listener(HERE)
    forward = scene.client.begin(forward_local(scene.client.hub, listener, THERE))
    tasks = [scene.client.begin(exchange(listener.connect(), LONG + bytes([number]))) for number in range(5)]
    scene.pass_time(1.0)
    assert [task.value() for task in tasks] == [LONG + bytes([number]) for number in range(5)]
    assert not forward.done
    listener.close()
    scene.settle()
    assert forward.value() is None
    assert scene.client.running() == []
    assert scene.net.left_open() == []


def test_who_cannot_be_connected_is_hung_up_on(scene):
    listener = scene.net.listener(HERE)
    scene.client.begin(forward_local(scene.client.hub, listener, ("nobody", 1)))
    assert scene.client.perform(everything(listener.connect())) == b""
    assert scene.client.perform(everything(listener.connect())) == b""
    assert scene.bugs == []


def test_who_connects_after_the_connection_was_lost_is_hung_up_on(scene):
    listener = scene.net.listener(HERE)
    forward = scene.client.begin(forward_local(scene.client.hub, listener, THERE))
    scene.cut()
    assert scene.client.perform(everything(listener.connect())) == b""
    forward.cancel()
    assert listener.closed


def test_closing_the_listener_leaves_those_that_came_before(scene):
    answering(scene, THERE)
    listener = scene.net.listener(HERE)
    forward = scene.client.begin(forward_local(scene.client.hub, listener, THERE))
    caller = listener.connect()
    scene.settle()
    forward.cancel()
    assert listener.closed
    assert scene.client.perform(exchange(caller, b"still")) == b"still"


def test_what_is_carried_is_closed_whatever_happens(scene):
    listener = scene.net.listener(HERE)
    errors = [OSError("x"), InvalidArgument("x"), ChannelEnded("x"), UnexpectedEof("x", "packet")]
    bugs = [InternalError("x"), ZeroDivisionError()]
    waiting = iter(errors + bugs)

    def carry(stream):
        yield Sleep(1.0)
        raise next(waiting)

    scene.client.begin(take_all(listener, carry))
    for number in range(len(errors + bugs)):
        assert scene.client.perform(everything(listener.connect(str(number)))) == b""
    assert scene.bugs == bugs
    assert scene.net.left_open() == []


def test_what_is_carried_is_closed_when_that_is_cancelled(scene):
    listener = scene.net.listener(HERE)

    def carry(stream):
        yield Wait()

    scene.client.begin(take_all(listener, carry))
    listener.connect()
    scene.settle()
    assert len(scene.net.left_open()) == 1
    (running,) = scene.client.running()
    running.cancel()
    assert scene.net.left_open() == []


# -------------------------------------------------------------------------------------------- towards the client's side


@pytest.mark.parametrize("kind", [HERE, ("", 8022), ("localhost", 8022), PATH])
def test_who_connects_there_comes_to_us(scene, kind):
    invited = scene.client.perform(listen(scene.client.hub, kind))
    assert invited.address == kind
    accepting = scene.client.begin(invited.accept())
    caller = scene.net.listeners[kind].connect()
    scene.settle()
    channel = accepting.value()
    if isinstance(kind, str):
        assert channel.kind == ForwardedStreamlocal(kind)
    else:
        assert channel.kind == ForwardedTcpip(*kind, "192.0.2.1", 50_000)
        assert origin_of(channel.kind) == ("192.0.2.1", 50_000)
    scene.client.perform(channel.write(b"welcome"))
    scene.client.perform(channel.send_eof())
    assert scene.client.perform(exchange(caller, b"thanks")) == b"welcome"
    assert scene.client.perform(channel.read_all()) == b"thanks"
    invited.close()
    invited.close()
    scene.settle()
    assert scene.net.listeners == {}
    assert not scene.client.hub.invitations


def test_the_server_may_choose_the_port(scene):
    invited = scene.client.perform(listen(scene.client.hub, ("", 0)))
    assert invited.address == ("", 40_001)
    caller = scene.net.listeners["", 40_001].connect()
    channel = scene.client.perform(invited.accept())
    assert channel.kind.port == 40_001
    invited.close()
    caller.close()
    scene.settle()
    assert scene.net.listeners == {}


def test_the_server_may_listen_elsewhere():
    class Moving(Host):
        def allow_listen(self, address):
            return ("10.0.0.1", address[1])

    scene = Scene().serve(Moving()).login()
    invited = scene.client.perform(listen(scene.client.hub, ("", 8022)))
    caller = scene.net.listeners["10.0.0.1", 8022].connect()
    assert scene.client.perform(invited.accept()).kind.address == ""
    caller.close()
    invited.close()
    scene.settle()
    assert scene.net.listeners == {}


def test_what_the_server_does_not_listen_to_is_told(scene):
    for kind in (("forbidden", 1), HERE):
        if kind == HERE:
            scene.net.listener(HERE)
        with pytest.raises(RequestRefused):
            scene.client.perform(listen(scene.client.hub, kind))
        assert not scene.client.hub.invitations
    with pytest.raises(InvalidArgument):
        scene.client.perform(listen(scene.client.hub, ("", 70_000)))
    assert not scene.client.hub.invitations


def test_the_same_is_not_listened_to_twice(scene):
    invited = scene.client.perform(listen(scene.client.hub, HERE))
    with pytest.raises(RequestRefused):
        scene.client.perform(listen(scene.client.hub, HERE))
    caller = scene.net.listeners[HERE].connect()
    assert scene.client.perform(invited.accept()).opened
    caller.close()


def test_it_can_be_listened_to_again_at_once(scene):
    """The one that was closed does not take the new one with it."""
    invited = scene.client.perform(listen(scene.client.hub, HERE))
    invited.close()
    again = scene.client.perform(listen(scene.client.hub, HERE))
    scene.settle()
    scene.net.listeners[HERE].connect().close()
    assert scene.client.perform(again.accept()).opened
    again.close()
    scene.settle()
    assert scene.net.listeners == {}


@pytest.mark.covers("B31", "V77")
def test_no_listener_for_nobody(make):
    """With port 0 and no reply wanted, nobody would hear where, and a cancel of "port 0" would close nothing."""
    scene = make(server_forwards=3)
    conn = scene.client.conn
    asked = TcpipForward("", 0)
    for _ in range(10):
        # Our client does not ask for this.
        conn._engine.send(GlobalRequest(asked.type, want_reply=False, payload=asked.encode()))
        conn.global_request(CancelTcpipForward("", 0), want_reply=False)
        scene.client.perform(pause())
    assert scene.net.listeners == {}


@pytest.mark.covers("B31")
@pytest.mark.parametrize("why", ["not allowed", "not possible", "a bug"])
def test_a_forward_that_is_refused_without_a_word_has_no_place(make, why):
    class Deciding(Host):
        def allow_listen(self, address):
            return 1 // 0 if why == "a bug" else why != "not allowed"

    scene = make(Deciding(), server_forwards=2)
    scene.net.listener(HERE)
    for _ in range(5):
        scene.client.conn.global_request(TcpipForward(*HERE), want_reply=False)
        scene.client.perform(pause())
    assert scene.server.conn._engine.mux._global.forwards == 0
    assert list(scene.net.listeners) == [HERE]


@pytest.mark.covers("B31")
def test_forwards_that_find_no_room_to_wait_have_no_place(bare):
    """They are refused without a word, so that other requests are not kept out by them."""
    conn = bare.client.conn
    conn.global_request(StreamlocalForward(PATH), want_reply=False)
    for size in (20_000, 1000, 0):
        for _ in range(60):
            conn.global_request(UnknownGlobal("x@example.org", bytes(size)), want_reply=False)
        bare.settle()
    for _ in range(5):
        conn.global_request(StreamlocalForward(PATH), want_reply=False)
    bare.settle()
    (waiting,) = [one for one in bare.server.hub._questions if isinstance(one.request, StreamlocalForward)]
    assert waiting is bare.server.hub._questions[0]
    assert bare.server.conn._engine.mux._global.forwards == 1


@pytest.mark.covers("B31", "P21")
def test_listeners_that_were_cancelled_while_a_handler_thinks_are_counted(make):
    class Thinking(Host):
        asked = 0
        decided = Wait()

        def allow_listen(self, address):
            self.asked += 1
            yield self.decided
            return True

    handler = Thinking()
    scene = make(handler, server_forwards=3)
    conn = scene.client.conn
    for port in range(1, 11):
        conn.global_request(TcpipForward("here", port), want_reply=False)
        conn.global_request(CancelTcpipForward("here", port), want_reply=False)
        scene.settle()
    assert handler.asked == 3
    handler.decided.fire()
    scene.client.perform(pause())
    assert scene.net.listeners == {}
    listening = scene.client.begin(listen(scene.client.hub, HERE))  # there is room again
    scene.settle()
    handler.decided.fire()
    scene.client.perform(pause())
    assert list(scene.net.listeners) == [HERE]
    listening.value().close()
    scene.settle()
    assert scene.net.listeners == {}


def forwarded(scene):
    """The connections that the server has brought and the client has not decided on."""
    return [question for question in scene.client.conn.questions if isinstance(question.kind, ForwardedTcpip)]


def come(scene, address, count):
    """So many connect to a listener of the server's; their ends."""
    callers = [scene.net.listeners[address].connect() for _ in range(count)]
    scene.settle()
    return callers


@pytest.mark.covers("B31", "V16", "P21")
def test_connections_that_the_client_does_not_decide_on_wait_at_the_listener(make):
    """One more is taken when one is accepted, and when one is refused; what is accepted is no matter any more."""
    scene = make(server_forwarded_pending=3)
    invited = scene.client.perform(listen(scene.client.hub, HERE))
    come(scene, HERE, 9)
    assert len(forwarded(scene)) == 3
    scene.client.perform(invited.accept())
    scene.settle()
    assert len(forwarded(scene)) == 3
    scene.client.hub.refuse(scene.client.perform(invited.next_question()))
    scene.settle()
    assert len(forwarded(scene)) == 3
    for _ in range(7):
        assert scene.client.perform(invited.accept()).opened
    scene.settle()
    assert forwarded(scene) == []
    assert len(scene.server.conn.channels) == 8


@pytest.mark.covers("B31", "V16", "P21")
def test_listeners_share_what_may_be_undecided(make):
    """Five that nobody decides on leave no more than four of them would; then a decision is anybody's chance."""
    scene = make(server_forwarded_pending=2)
    places = [("here", port) for port in range(1, 6)]
    invited = [scene.client.perform(listen(scene.client.hub, place)) for place in places]
    for place in places:
        come(scene, place, 5)
    brought = [len(one._invitation.waiting) for one in invited]
    assert brought == [2, 2, 2, 2, 1]  # that it already listened when there was no more room is why the last has one
    scene.client.perform(invited[0].accept())
    scene.client.perform(invited[0].accept())
    scene.settle()
    assert len(forwarded(scene)) == 8


@pytest.mark.parametrize("end", ["cancelled", "lost"])
def test_a_listener_that_has_no_room_can_be_closed(make, end):
    scene = make(server_forwarded_pending=2, server_forwards=1)
    scene.client.perform(listen(scene.client.hub, HERE))
    come(scene, HERE, 5)
    if end == "lost":
        scene.cut()
        scene.settle()
        assert scene.server.running() == []
    else:
        scene.client.conn.global_request(CancelTcpipForward(*HERE), want_reply=False)
        scene.settle()
        assert scene.net.listeners == {}
        assert len(forwarded(scene)) == 2
        again = scene.client.perform(listen(scene.client.hub, THERE))  # its place is free, too
        assert list(scene.net.listeners) == [THERE]
        again.close()
        scene.settle()
    assert scene.net.listeners == {}


def test_what_is_cancelled_in_the_making_and_asked_for_anew_is_made_once(scene):
    scene.net.slow = 5.0
    conn = scene.client.conn
    for request in (TcpipForward(*HERE), CancelTcpipForward(*HERE), TcpipForward(*HERE), StreamlocalForward(PATH)):
        conn.global_request(request, want_reply=False)
    scene.settle()
    assert scene.net.listeners == {}
    scene.client.perform(pause(20.0))
    assert set(scene.net.listeners) == {HERE, PATH}
    assert not scene.bugs
    scene.net.listeners[HERE].connect().close()
    for request in (CancelTcpipForward(*HERE), CancelStreamlocalForward(PATH)):
        conn.global_request(request, want_reply=False)
    scene.settle()
    assert scene.net.listeners == {}


def test_who_waits_for_connections_hears_that_there_will_be_none(scene):
    for end in ("closed", "lost"):
        invited = scene.client.perform(listen(scene.client.hub, HERE))
        tasks = [scene.client.begin(invited.accept()), scene.client.begin(invited.next_question())]
        if end == "closed":
            invited.close()
            scene.settle()
            for task in tasks:
                with pytest.raises(ChannelEnded, match=r"127\.0\.0\.1:8022"):
                    task.value()
        else:
            scene.cut()
            scene.settle()
            for task in tasks:
                with pytest.raises(UnexpectedEof):
                    task.value()
            invited.close()
            assert not scene.client.hub.invitations


@pytest.mark.covers("V75")
def test_connections_that_nobody_took_are_refused_when_it_is_closed(scene):
    invited = scene.client.perform(listen(scene.client.hub, HERE))
    callers = [scene.net.listeners[HERE].connect() for _ in range(3)]
    scene.settle()
    assert len(scene.client.conn.questions) == 3
    invited.close()
    scene.settle()
    assert scene.client.conn.questions == ()
    assert [scene.client.perform(everything(caller)) for caller in callers] == [b""] * 3
    assert scene.net.left_open() == []


def test_connections_that_nobody_took_are_refused_even_in_a_key_exchange(make):
    scene = make(client_deferred_packets=0)
    invited = scene.client.perform(listen(scene.client.hub, HERE))
    caller = scene.net.listeners[HERE].connect()
    scene.settle()
    scene.client.conn.rekey()
    invited.close()
    assert len(scene.client.conn.questions) == 1
    scene.settle()
    assert scene.client.conn.questions == ()
    assert scene.client.perform(everything(caller)) == b""
    assert scene.net.listeners == {}


def test_a_connection_that_came_before_the_listening_was_given_up_is_refused(bare):
    """The server may bring one before it says that it listens."""
    task = bare.client.begin(listen(bare.client.hub, HERE))
    bare.settle()
    request = bare.server.hub.take_question()
    bringing = bare.server.begin(bare.server.hub.open_channel(ForwardedTcpip(*HERE)))
    bare.settle()
    task.cancel()
    bare.settle()
    with pytest.raises(OpenRefused):
        bringing.value()
    bare.server.conn.succeed(request)
    bare.settle()
    assert bare.server.hub.take_question().request.type == "cancel-tcpip-forward"


def test_an_accept_that_was_cancelled_leaves_the_connection_to_the_next(make):
    scene = make(client_deferred_packets=0)
    invited = scene.client.perform(listen(scene.client.hub, HERE))
    scene.net.listeners[HERE].connect()
    scene.settle()
    scene.client.conn.rekey()
    first, second = (scene.client.begin(invited.accept()) for _ in range(2))
    assert not first.done
    first.cancel()
    scene.settle()
    assert second.value().opened

    scene.net.listeners[HERE].connect()
    scene.settle()
    scene.client.conn.rekey()
    last = scene.client.begin(invited.accept())
    invited.close()
    last.cancel()
    scene.settle()
    assert scene.client.conn.questions == ()


def test_a_connection_whose_peer_has_left_is_passed_over(scene):
    invited = scene.client.perform(listen(scene.client.hub, HERE))
    scene.net.listeners[HERE].connect().close()
    scene.settle()
    scene.net.listeners[HERE].connect()
    scene.settle()
    assert scene.client.perform(invited.accept()).opened
    assert scene.client.perform(invited.accept()).opened


@pytest.mark.parametrize("kind", [HERE, PATH])
def test_what_comes_there_is_connected_here(scene, kind):
    answering(scene, THERE)
    invited = scene.client.perform(listen(scene.client.hub, kind))
    dialled = []

    def dial(asked):
        dialled.append(asked)
        return scene.net.dial(THERE)

    forward = scene.client.begin(forward_remote(scene.client.hub, invited, dial))
    callers = [scene.net.listeners[kind].connect() for _ in range(3)]
    tasks = [scene.server.begin(exchange(caller, LONG)) for caller in callers]
    scene.pass_time(1.0)
    assert [task.value() for task in tasks] == [LONG] * 3
    assert {type(asked) for asked in dialled} <= {ForwardedTcpip, ForwardedStreamlocal}
    invited.close()
    scene.settle()
    assert forward.value() is None
    assert kind not in scene.net.listeners
    assert scene.net.left_open() == []


def test_what_cannot_be_connected_here_is_told_there(scene):
    invited = scene.client.perform(listen(scene.client.hub, HERE))
    scene.client.begin(forward_remote(scene.client.hub, invited, lambda _: scene.net.dial(("nobody", 1))))
    caller = scene.net.listeners[HERE].connect()
    assert scene.client.perform(everything(caller)) == b""
    assert scene.client.conn.questions == ()
    assert scene.bugs == []


def test_a_listener_of_the_server_is_closed_with_the_connection(scene):
    scene.client.perform(listen(scene.client.hub, HERE))
    scene.client.perform(listen(scene.client.hub, PATH))
    scene.cut()
    scene.settle()
    assert scene.net.listeners == {}
    assert scene.server.running() == []


# ------------------------------------------------------------------------------------------------- answering an opening


@pytest.mark.parametrize("when", ["dialling", "accepting"])
def test_a_connection_that_is_given_up_is_refused_and_closed(make, when):
    scene = make(server_deferred_packets=0)
    scene.service.cancel()
    task = scene.client.begin(open_to(scene.client.hub, THERE))
    scene.settle()
    question = scene.server.hub.take_question()
    near, _ = joined()

    def dial(kind):
        if when == "dialling":
            yield Wait()
        return near
        yield

    if when == "accepting":
        scene.server.conn.rekey()
    connecting = scene.server.begin(connect_channel(scene.server.hub, question, dial))
    assert not connecting.done
    connecting.cancel()
    scene.settle()
    with pytest.raises(OpenRefused, match="given up") as caught:
        task.value()
    assert caught.value.reason == OpenFailure.RESOURCE_SHORTAGE
    assert near.closed == (when == "accepting")


def test_a_connection_that_nobody_wants_any_more_is_closed(bare):
    bare.client.begin(open_to(bare.client.hub, THERE))
    bare.settle()
    question = bare.server.hub.take_question()
    near, _ = joined()

    def dial(kind):
        yield Sleep(1.0)
        return near

    connecting = bare.server.begin(connect_channel(bare.server.hub, question, dial))
    bare.cut()
    bare.pass_time(2.0)
    assert connecting.value() is None
    assert near.closed


def test_a_bug_of_who_dials_is_not_hidden(bare):
    task = bare.client.begin(open_to(bare.client.hub, THERE))
    bare.settle()

    def dial(kind):
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        bare.server.perform(connect_channel(bare.server.hub, bare.server.hub.take_question(), dial))
    bare.settle()
    with pytest.raises(OpenRefused):
        task.value()


# ------------------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("kind", "origin"),
    [
        (DirectTcpip("host", 1, "192.0.2.1", 2), ("192.0.2.1", 2)),
        (ForwardedTcpip("host", 1, "192.0.2.1", 2), ("192.0.2.1", 2)),
        (DirectStreamlocal(PATH), PATH),
        (ForwardedStreamlocal(PATH), PATH),
        (Session(), ("", 0)),
        (AuthAgent(), ("", 0)),
    ],
)
def test_where_a_channel_comes_from(kind, origin):
    assert origin_of(kind) == origin


@pytest.mark.parametrize(
    ("address", "shown"),
    [(("host", 22), "host:22"), (("::1", 22), "[::1]:22"), (("", 22), ":22"), (PATH, PATH)],
)
def test_addresses_for_people(address, shown):
    assert show(address) == shown
