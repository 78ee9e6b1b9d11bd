"""The hub: who is woken by what, what waits for a key exchange, and what is answered when nobody is there."""

from __future__ import annotations

import pytest

from sshproto.channels.requests import (
    Env,
    Exec,
    ForwardedTcpip,
    HostKeysAnnounced,
    OpenFailure,
    Session,
    Shell,
    TcpipForward,
    UnknownGlobal,
    UnknownOpen,
)
from sshproto.config import ClientConfig, Timeouts
from sshproto.errors import (
    ChannelEnded,
    ConnectionLoss,
    InvalidArgument,
    LimitReached,
    LocalClose,
    OpenRefused,
    PeerDisconnected,
    RequestRefused,
    UnexpectedEof,
    UsageError,
    WrongPhase,
)
from sshproto.events import ChannelOpenRequested, ConnectionLost, GlobalRequested, KeysExchanged, Question
from sshproto.operations.channel import Channel
from sshproto.operations.forwarding import listen
from sshproto.operations.hub import _ROUTES, Hub
from sshproto.operations.serving import _ANSWERS
from sshproto.operations.session import run
from sshproto.operations.steps import Operation
from sshproto.wire.table import Role
from tests.support.running import QUICK, Host, Scene

HERE = ("127.0.0.1", 8022)


def opened(scene, number=0):
    """A channel, accepted by the server by hand: the client's and the server's."""
    task = scene.client.begin(scene.client.hub.open_channel(Session()))
    scene.settle()
    question = scene.server.hub.take_question()
    theirs = scene.server.perform(scene.server.hub.accept_channel(question))
    scene.settle()
    return task.value(), theirs


def fill(end):
    """Let so much wait for the end of a key exchange that nothing more can."""
    end.conn.rekey()
    with pytest.raises(LimitReached):
        for _ in range(end.conn._engine.config.limits.deferred_packets + 1):
            end.conn.ignore(b"")


# --------------------------------------------------------------------------------------------------------------- events


def test_every_event_is_seen_before_it_is_handed_out(bare):
    seen = []
    bare.client.hub.on_event = seen.append
    bare.client.perform(bare.client.hub.rekey())
    assert [type(event) for event in seen] == [KeysExchanged]


def test_an_event_wakes_only_who_waits_for_it(bare):
    ours, theirs = opened(bare)
    others = [opened(bare)[0] for _ in range(5)]
    tasks = [bare.client.begin(channel.read()) for channel in (ours, *others)]
    before = [task.yields for task in tasks]
    bare.server.perform(theirs.write(b"for one"))
    bare.settle()
    assert [task.done for task in tasks] == [True, False, False, False, False, False]
    assert [task.yields for task in tasks] == before


def test_data_for_a_channel_that_nobody_has_gives_credit_back(bare):
    ours, theirs = opened(bare)
    window = bare.server.conn.sendable(theirs.number)
    del bare.client.hub.channels[ours.number]
    for _ in range(3):
        bare.server.perform(theirs.write(b"x" * window))
    bare.settle()
    assert bare.server.conn.sendable(theirs.number) > window // 2


# ------------------------------------------------------------------------------------------------- the connection's end


def test_the_end_is_told_to_everybody(bare):
    ours, theirs = opened(bare)
    theirs.serving = True
    hub = bare.client.hub
    waiting = [
        bare.client.begin(operation)
        for operation in (
            hub.next_question(),
            hub.request(UnknownGlobal("x@example.org")),
            hub.open_channel(Session()),
            ours.read(),
            ours.request(Env("A", b"")),
        )
    ]
    ending = bare.client.begin(hub.until_ended())
    bare.settle()
    bare.server.conn.disconnect("that is all")
    bare.settle()
    for task in waiting:
        with pytest.raises(PeerDisconnected, match="that is all"):
            task.value()
    assert ending.value() is hub.lost
    assert hub.channels == {}
    assert bare.waiting() == []


def test_after_the_end_every_operation_says_so(bare):
    ours, _ = opened(bare)
    bare.cut()
    hub = bare.client.hub
    for operation in (
        hub.next_question(),
        hub.request(UnknownGlobal("x@example.org")),
        hub.open_channel(Session()),
        hub.rekey(),
        ours.read(),
        ours.write(b"x"),
        ours.send_eof(),
        ours.request(Env("A", b"")),
        ours.notify(Env("A", b"")),
        ours.until_exit(),
        listen(hub, HERE),
    ):
        with pytest.raises(UnexpectedEof):
            bare.client.perform(operation)
    assert bare.client.perform(hub.until_ended()) is hub.lost
    hub.tell(UnknownGlobal("x@example.org"))
    hub.close_channel(ours.number)
    ours.close()
    assert not hub._late


def test_each_who_is_told_gets_an_error_of_his_own(bare):
    bare.cut()
    errors = []
    for _ in range(2):
        with pytest.raises(ConnectionLoss) as caught:
            bare.client.hub.check()
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert [type(error) for error in errors] == [UnexpectedEof, UnexpectedEof]
    assert errors[0].args == errors[1].args


def test_a_bug_stays_chained_to_the_error():
    scene = Scene()
    loss = LocalClose("because of")
    loss.__cause__ = ZeroDivisionError()
    scene.client.hub._lost(ConnectionLost(loss))
    with pytest.raises(LocalClose) as caught:
        scene.client.hub.check()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def kinds(base: type) -> set[type]:
    """The classes of all questions that there are."""
    return {kind for cls in base.__subclasses__() for kind in kinds(cls) or {cls}}


def test_every_question_finds_somebody():
    client, server = (kinds(Question) & set(_ROUTES[role]) for role in (Role.CLIENT, Role.SERVER))
    assert client | server | set(Channel.ROUTES) >= kinds(Question)
    assert set(_ANSWERS) == server


def test_questions_end_with_the_connection(bare):
    bare.client.begin(bare.client.hub.open_channel(Session()))
    bare.settle()
    bare.cut()
    assert bare.server.hub.take_question() is None
    with pytest.raises(ConnectionLoss):
        bare.server.perform(bare.server.hub.next_question())


@pytest.mark.parametrize("nothing", ["timeout", "data"])
def test_an_input_that_brings_nothing_dates_no_command(nothing):
    """Nobody asks for events then, but what is told much later has its time all the same."""
    timeouts = Timeouts(linger=5.0, kex=30.0, rekey=None)
    config = ClientConfig(user="alice", debug_raise=True, preferences=QUICK, timeouts=timeouts)
    scene = Scene(config).serve().login()
    hub, conn = scene.client.hub, scene.client.conn

    def hear(now):
        if nothing == "timeout":
            conn.handle_timeout(now)
        else:
            conn.receive_data(b"", now)
        hub.drain()

    hear(100.0)
    conn.rekey()
    hear(200.0)
    assert hub.lost is None
    assert conn.next_deadline() == 230.0
    hear(210.0)  # only once
    assert conn.next_deadline() == 230.0
    conn.disconnect("over")
    hear(225.0)
    assert conn.output_size
    assert conn.next_deadline() == 230.0


# -------------------------------------------------------------------------------------------------------- key exchanges


def test_rekeying_waits_for_its_end(bare):
    before = bare.client.conn.session_id
    bare.client.perform(bare.client.hub.rekey())
    assert not bare.client.conn.rekeying
    assert bare.client.conn.session_id == before


def test_rekeying_twice_at_once_is_once(bare):
    seen = []
    bare.client.hub.on_event = seen.append
    tasks = [bare.client.begin(bare.client.hub.rekey()) for _ in range(2)]
    bare.settle()
    assert [task.value() for task in tasks] == [None, None]
    assert len(seen) == 1


def test_nobody_rekeys_before_the_login():
    scene = Scene()
    with pytest.raises(WrongPhase):
        scene.client.perform(scene.client.hub.rekey())


def test_a_command_waits_for_the_end_of_a_key_exchange_if_it_has_to(bare):
    fill(bare.client)
    task = bare.client.begin(bare.client.hub.open_channel(Session()))
    assert bare.client.conn.channels == ()
    bare.settle()
    assert len(bare.client.conn.channels) == 1
    assert not task.done
    assert not bare.client.conn.rekeying


def test_a_command_that_waits_ends_with_the_connection(bare):
    bare.server.answers = False  # the key exchange never ends
    fill(bare.client)
    task = bare.client.begin(bare.client.hub.request(UnknownGlobal("x@example.org")))
    bare.settle()
    assert not task.done
    bare.cut()
    bare.settle()
    with pytest.raises(UnexpectedEof):
        task.value()


def test_a_limit_that_no_key_exchange_lifts_is_told_at_once(make):
    scene = make(client_channels_from_us=1)
    scene.client.perform(scene.client.hub.open_channel(Session()))
    with pytest.raises(LimitReached, match="channels_from_us"):
        scene.client.perform(scene.client.hub.open_channel(Session()))
    fill(scene.client)
    with pytest.raises(LimitReached, match="channels_from_us"):
        scene.client.perform(scene.client.hub.open_channel(Session()))


def test_what_nobody_waits_for_is_done_after_the_key_exchange(bare):
    """Closing, refusing, rejecting and telling have no time to wait."""
    ours, theirs = opened(bare)
    refused = bare.client.begin(bare.client.hub.open_channel(Session()))
    rejected = bare.client.begin(bare.client.hub.open_channel(Session()))
    told = []
    bare.settle()
    questions = [bare.server.hub.take_question() for _ in range(2)]
    fill(bare.server)
    bare.server.hub.refuse(questions[0])
    bare.server.hub.reject_channel(questions[1], OpenFailure.CONNECT_FAILED, "no such thing")
    theirs.close()
    bare.server.hub.tell(HostKeysAnnounced((b"key",)))
    assert len(bare.server.conn.questions) == 2
    bare.client.hub.on_event = told.append
    bare.settle()
    assert bare.server.conn.questions == ()
    with pytest.raises(OpenRefused, match="administratively prohibited"):
        refused.value()
    with pytest.raises(OpenRefused, match="no such thing"):
        rejected.value()
    assert ours.closed
    assert bare.server.conn.channels == bare.client.conn.channels == ()
    assert any(isinstance(event, GlobalRequested) for event in told)


def test_what_was_late_when_the_connection_ended_is_forgotten(bare):
    _, theirs = opened(bare)
    fill(bare.server)
    theirs.close()
    bare.cut()
    assert not bare.server.hub._late


# ------------------------------------------------------------------------------------------------------ global requests


def test_a_request_gets_the_data_of_its_reply(bare):
    task = bare.client.begin(bare.client.hub.request(TcpipForward("", 0)))
    bare.settle()
    bare.server.conn.succeed(bare.server.hub.take_question(), (40_001).to_bytes(4, "big"))
    bare.settle()
    assert int.from_bytes(task.value(), "big") == 40_001


def test_a_request_that_is_refused_says_so(bare):
    task = bare.client.begin(bare.client.hub.request(TcpipForward("", 0)))
    bare.settle()
    bare.server.hub.refuse(bare.server.hub.take_question())
    bare.settle()
    with pytest.raises(RequestRefused, match="tcpip-forward"):
        task.value()


def test_replies_find_their_requests(bare):
    hub = bare.client.hub
    tasks = [bare.client.begin(hub.request(TcpipForward("", port))) for port in (1, 2, 3)]
    bare.settle()
    questions = [bare.server.hub.take_question() for _ in range(3)]
    for question in reversed(questions):
        granted = question.request.port != 2
        (bare.server.conn.succeed if granted else bare.server.conn.fail)(question)
    bare.settle()
    assert tasks[0].value() == tasks[2].value() == b""
    with pytest.raises(RequestRefused):
        tasks[1].value()


def test_what_a_reply_brings_is_noted_before_what_follows_it(bare):
    """Even if the operation is cancelled: what was granted has to be taken back."""
    noted = []
    task = bare.client.begin(bare.client.hub.request(TcpipForward("", 1), noted.append))
    bare.settle()
    task.cancel()
    bare.server.conn.succeed(bare.server.hub.take_question())
    bare.settle()
    assert noted == [b""]
    assert not bare.client.hub._replies


def test_what_is_told_waits_for_its_turn(make):
    """There are only so many requests at a time."""
    scene = make(client_requests_pending=1)
    scene.service.cancel()
    first = scene.client.begin(scene.client.hub.request(TcpipForward("", 1)))
    scene.client.hub.tell(TcpipForward("", 2))
    scene.settle()
    assert scene.server.hub.take_question().request.port == 1
    assert scene.server.hub.take_question() is None
    scene.server.hub.refuse(scene.server.conn.questions[0])
    scene.settle()
    assert scene.server.hub.take_question().request.port == 2
    assert first.done


# ------------------------------------------------------------------------------------------------------------- channels


def test_a_refused_channel_says_why(bare):
    task = bare.client.begin(bare.client.hub.open_channel(Session()))
    bare.settle()
    question = bare.server.hub.take_question()
    bare.server.hub.reject_channel(question, OpenFailure.RESOURCE_SHORTAGE, "too many")
    bare.server.hub.reject_channel(question, OpenFailure.CONNECT_FAILED, "again")
    bare.settle()
    with pytest.raises(OpenRefused) as caught:
        task.value()
    assert (caught.value.reason, caught.value.description) == (4, "too many")
    assert bare.client.hub.channels == {}


def test_words_that_cannot_be_sent_do_not_keep_a_channel_from_being_refused(bare):
    task = bare.client.begin(bare.client.hub.open_channel(Session()))
    bare.settle()
    question = bare.server.hub.take_question()
    with pytest.raises(InvalidArgument):
        bare.server.conn.reject_channel(question, 2, "\ud800")
    bare.server.hub.reject_channel(question, 2, "\ud800")
    bare.settle()
    with pytest.raises(OpenRefused):
        task.value()


def test_the_sizes_that_are_offered_can_be_chosen(bare):
    task = bare.client.begin(bare.client.hub.open_channel(Session(), window=1000, max_packet=100))
    bare.settle()
    theirs = bare.server.perform(bare.server.hub.accept_channel(bare.server.hub.take_question()))
    assert bare.server.conn.sendable(theirs.number) == 1000
    bare.settle()
    assert task.value().opened


def test_a_channel_is_not_accepted_twice(bare):
    bare.client.begin(bare.client.hub.open_channel(Session()))
    bare.settle()
    question = bare.server.hub.take_question()
    bare.server.perform(bare.server.hub.accept_channel(question))
    with pytest.raises(ChannelEnded):
        bare.server.perform(bare.server.hub.accept_channel(question))
    bare.server.hub.refuse(question)  # as if nothing had happened
    assert len(bare.server.hub.channels) == 1


def test_a_channel_of_a_lost_connection_is_not_accepted(bare):
    bare.client.begin(bare.client.hub.open_channel(Session()))
    bare.settle()
    question = bare.server.hub.take_question()
    bare.cut()
    with pytest.raises(UnexpectedEof):
        bare.server.perform(bare.server.hub.accept_channel(question))


def test_requests_on_a_channel_that_does_not_serve_are_refused(bare):
    ours, theirs = opened(bare)
    assert bare.client.perform(ours.request(Shell())) is False
    theirs.serving = True
    task = bare.client.begin(ours.request(Shell()))
    bare.settle()
    assert not task.done
    bare.server.hub.grant(bare.server.perform(theirs.next_request()))
    bare.settle()
    assert task.value() is True


# ------------------------------------------------------------------------------------------------------------ questions


def test_a_client_that_invited_nobody_refuses(bare):
    """Without a question to anybody: nobody is there to answer it."""
    bare.client.conn.global_request(TcpipForward("127.0.0.1", 8022))
    bare.settle()
    bare.server.conn.succeed(bare.server.hub.take_question())
    bare.settle()
    with pytest.raises(OpenRefused, match="administratively prohibited"):
        bare.server.perform(bare.server.hub.open_channel(ForwardedTcpip(*HERE)))
    with pytest.raises(OpenRefused, match="code 3"):
        bare.server.perform(bare.server.hub.open_channel(UnknownOpen("x@example.org")))
    assert bare.client.hub.take_question() is None


@pytest.mark.parametrize(
    ("asked", "brought"),
    [("127.0.0.1", "127.0.0.1"), ("", "0.0.0.0"), ("", "127.0.0.1"), ("localhost", "127.0.0.1"), ("0.0.0.0", "::")],
)
def test_what_the_peer_brings_finds_who_invited_it(bare, asked, brought):
    task = bare.client.begin(listen(bare.client.hub, (asked, 8022)))
    bare.settle()
    bare.server.conn.succeed(bare.server.hub.take_question())
    bare.settle()
    accepting = bare.client.begin(task.value().accept())
    bare.server.perform(bare.server.hub.open_channel(ForwardedTcpip(brought, 8022)))
    assert accepting.value().kind == ForwardedTcpip(brought, 8022)


def test_it_finds_its_own_address_before_one_that_means_any(bare):
    invited = []
    for address in ("", "127.0.0.1"):
        task = bare.client.begin(listen(bare.client.hub, (address, 8022)))
        bare.settle()
        bare.server.conn.succeed(bare.server.hub.take_question())
        bare.settle()
        invited.append(task.value())
    accepting = [bare.client.begin(each.accept()) for each in invited]
    bare.server.perform(bare.server.hub.open_channel(ForwardedTcpip(*HERE)))
    assert [task.done for task in accepting] == [False, True]


def test_another_port_finds_nobody(bare):
    task = bare.client.begin(listen(bare.client.hub, ("", 8022)))
    bare.settle()
    bare.server.conn.succeed(bare.server.hub.take_question())
    bare.settle()
    assert task.done
    with pytest.raises(OpenRefused):
        bare.server.perform(bare.server.hub.open_channel(ForwardedTcpip("", 8023)))


def test_the_questions_of_a_server_are_given_out_in_order(bare):
    for _ in range(2):
        bare.client.begin(bare.client.hub.open_channel(Session()))
    bare.client.begin(bare.client.hub.request(TcpipForward("", 1)))
    bare.settle()
    asked = [bare.server.perform(bare.server.hub.next_question()) for _ in range(3)]
    assert [type(question) for question in asked] == [ChannelOpenRequested, ChannelOpenRequested, GlobalRequested]
    assert bare.server.hub.take_question() is None


@pytest.mark.covers("B5", "V35", "P21")
def test_global_requests_that_want_no_reply_wait_within_bounds(bare):
    """While an application thinks, or a key exchange holds it up, the peer may send others without end."""
    conn, hub = bare.client.conn, bare.server.hub
    request = UnknownGlobal("x@example.org", bytes(1000))
    for _ in range(2000):
        conn.global_request(request, want_reply=False)
        bare.settle()
    kept = len(hub._questions)
    assert kept == 1024 * 1024 // (1000 + 64)
    conn.global_request(request)
    bare.settle()
    for _ in range(kept):
        assert not bare.server.perform(hub.next_question()).want_reply
    assert bare.server.perform(hub.next_question()).want_reply
    conn.global_request(request, want_reply=False)  # there is room again
    bare.settle()
    assert len(hub._questions) == 1
    conn.disconnect()
    bare.settle()
    assert hub._unasked == 0


def test_refusing_what_was_answered_does_nothing(bare):
    bare.client.begin(bare.client.hub.request(TcpipForward("", 1)))
    bare.settle()
    question = bare.server.hub.take_question()
    bare.server.conn.succeed(question)
    bare.server.hub.refuse(question)
    with pytest.raises(UsageError):
        bare.server.conn.fail(question)


def test_waiting_for_the_login_ends_with_it_or_with_the_connection():
    scene = Scene()
    waiting = [end.begin(end.hub.until_open()) for end in scene.ends]
    scene.settle()
    assert not any(task.done for task in waiting)
    scene.serve().login()
    assert all(task.done for task in waiting)
    assert scene.client.perform(scene.client.hub.until_open()) is None

    scene = Scene()
    task = scene.client.begin(scene.client.hub.until_open())
    scene.cut()
    scene.settle()
    with pytest.raises(UnexpectedEof):
        task.value()


def test_five_hundred_channels_ten_at_a_time():
    scene = Scene()
    hub: Hub = scene.client.hub

    class Crowd(Host):
        def allow_program(self, session):
            return session.program == Exec(b"echo me")

    def all_of_them() -> Operation[int]:
        return (yield from run(hub, "echo me"))

    scene.serve(Crowd()).login()
    for _ in range(50):
        tasks = [scene.client.begin(all_of_them()) for _ in range(10)]
        scene.settle()
        assert all(task.value().stdout == b"me\n" for task in tasks)
    assert hub.channels == {}
    assert scene.server.hub.channels == {}
