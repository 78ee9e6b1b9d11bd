"""Commands, shells and subsystems, from both sides."""

from __future__ import annotations

import pytest

from sshproto.channels.requests import (
    Break,
    Env,
    Exec,
    ExitSignal,
    ExitStatus,
    PtyRequest,
    Session,
    Shell,
    Signal,
    Subsystem,
    WindowChange,
)
from sshproto.errors import (
    ChannelEnded,
    InvalidArgument,
    OpenRefused,
    PeerDisconnected,
    RequestRefused,
    UnexpectedEof,
)
from sshproto.operations.session import CommandFailed, Completed, octets, resize, run, send_signal, start
from sshproto.operations.steps import Sleep
from tests.support.running import Host, Scene

LONG = bytes(index % 253 for index in range(100_000))


def by_hand(scene, *, granted=True):
    """Accept the client's session and its requests until it has a program: the server's channel."""
    scene.settle()
    channel = scene.server.perform(scene.server.hub.accept_channel(scene.server.hub.take_question()))
    channel.serving = True
    while True:
        question = scene.server.perform(channel.next_request())
        (scene.server.conn.succeed if granted else scene.server.conn.fail)(question)
        scene.settle()
        if question.request.starts:
            return channel


# ------------------------------------------------------------------------------------------------------------- commands


def test_a_command_runs(scene):
    completed = scene.client.perform(run(scene.client.hub, "echo hello"))
    assert completed == Completed(command=b"echo hello", stdout=b"hello\n", stderr=b"", exit_status=0)
    completed.check()
    assert scene.client.conn.channels == ()


def test_a_command_reads_and_writes_more_than_any_window(make):
    scene = make(window=3000, window_floor=3000)
    completed = scene.client.perform(run(scene.client.hub, b"cat", input=LONG))
    assert completed.stdout == LONG
    completed = scene.client.perform(run(scene.client.hub, f"flood {len(LONG)}"))
    assert (len(completed.stdout), completed.stderr) == (len(LONG), b"that was all")
    assert scene.client.perform(run(scene.client.hub, "count", input=bytearray(LONG))).stdout == b"100000"


def test_a_command_may_end_without_reading_its_input(scene):
    completed = scene.client.perform(run(scene.client.hub, "status 3", input=bytes(10_000_000)))
    assert (completed.exit_status, completed.stdout) == (3, b"")


def test_a_command_gets_its_terminal_and_its_variables(scene):
    completed = scene.client.perform(
        run(scene.client.hub, "env", pty=PtyRequest("vt220"), env={"LANG": "C.UTF-8", "RAW": b"\xff"})
    )
    assert completed.stdout == b"LANG=C.UTF-8\nRAW=\xff\nterminal vt220"


def test_a_variable_that_the_server_does_not_take_is_missing():
    class Picky(Host):
        def allow_env(self, session, name, value):
            return name.startswith("LC_")

    scene = Scene().serve(Picky()).login()
    completed = scene.client.perform(run(scene.client.hub, "env", env={"LD_PRELOAD": "x", "LC_ALL": "C"}))
    assert completed.stdout == b"LC_ALL=C\nterminal none"


@pytest.mark.parametrize(
    ("command", "status", "signal", "words"),
    [
        ("status 7", 7, None, "ended with status 7"),
        ("killed", None, "KILL", "ended by signal KILL"),
        ("broken", 255, None, "ended with status 255"),
    ],
)
def test_a_command_that_fails_says_how(scene, host, command, status, signal, words):
    completed = scene.client.perform(run(scene.client.hub, command))
    assert completed.exit_status == status
    assert (completed.exit_signal.name if completed.exit_signal else None) == signal
    with pytest.raises(CommandFailed, match=words) as caught:
        scene.client.perform(run(scene.client.hub, command, check=True))
    assert caught.value.completed == completed
    assert scene.client.conn.channels == ()


@pytest.mark.covers("V70", "R106")
def test_the_name_of_a_signal_is_the_peers_word():
    failed = CommandFailed(Completed(command=b"", exit_signal=ExitSignal("\x1b[2J")))
    assert str(failed) == r"the command was ended by signal \x1b[2J"


def test_a_command_whose_end_nobody_tells(bare):
    task = bare.client.begin(run(bare.client.hub, "anything", check=True))
    theirs = by_hand(bare)
    bare.server.perform(theirs.write(b"some"))
    theirs.close()
    bare.settle()
    with pytest.raises(CommandFailed, match="did not say how") as caught:
        task.value()
    assert caught.value.completed.stdout == b"some"


def test_a_command_is_over_when_its_output_and_its_status_have_come(bare):
    """Some servers do not close the channel before the client does."""
    task = bare.client.begin(run(bare.client.hub, "anything"))
    theirs = by_hand(bare)
    bare.server.perform(theirs.notify(ExitStatus(0)))
    bare.settle()
    assert not task.done
    bare.server.perform(theirs.send_eof())
    bare.settle()
    assert task.value().exit_status == 0
    assert theirs.closed


def test_the_status_may_come_after_the_output(bare):
    task = bare.client.begin(run(bare.client.hub, "anything"))
    theirs = by_hand(bare)
    bare.server.perform(theirs.send_eof())
    bare.settle()
    assert not task.done
    bare.server.perform(theirs.notify(ExitStatus(5)))
    bare.settle()
    assert task.value().exit_status == 5


@pytest.mark.parametrize("told", ["nothing", "EOF", "status"])
def test_a_command_that_may_still_run_when_the_connection_is_lost_is_lost(bare, told):
    task = bare.client.begin(run(bare.client.hub, "anything"))
    theirs = by_hand(bare)
    if told == "EOF":
        bare.server.perform(theirs.send_eof())
    elif told == "status":
        bare.server.perform(theirs.notify(ExitStatus(0)))
    bare.settle()
    bare.cut()
    bare.settle()
    with pytest.raises(UnexpectedEof):
        task.value()


def test_a_command_that_has_ended_has_ended_though_the_connection_goes_with_it(bare):
    """All of it comes at once: the reply, the output, the status, the close and the goodbye."""
    task = bare.client.begin(run(bare.client.hub, "reboot", input=b"yes"))
    bare.settle()
    theirs = bare.server.perform(bare.server.hub.accept_channel(bare.server.hub.take_question()))
    theirs.serving = True
    bare.settle()
    bare.server.answers = False
    bare.server.conn.succeed(bare.server.perform(theirs.next_request()))
    bare.server.perform(theirs.write(b"bye"))
    bare.server.perform(theirs.notify(ExitStatus(0)))
    theirs.close()
    bare.server.conn.disconnect("rebooting")
    bare.server.answers = True
    bare.settle()
    assert isinstance(bare.client.hub.lost, PeerDisconnected)
    completed = task.value()
    assert (completed.stdout, completed.exit_status) == (b"bye", 0)


def test_what_the_server_refuses_is_told(scene, make):
    with pytest.raises(RequestRefused, match="exec"):
        scene.client.perform(run(scene.client.hub, "forbidden"))

    class NoTerminal(Host):
        def allow_pty(self, session, request):
            return False

    other = make(NoTerminal(), server_sessions=0)
    with pytest.raises(OpenRefused, match="too many sessions"):
        other.client.perform(run(other.client.hub, "echo"))
    other = make(NoTerminal())
    with pytest.raises(RequestRefused, match="pty-req"):
        other.client.perform(run(other.client.hub, "echo", pty=PtyRequest("vt100")))
    for each in (scene, other):
        each.settle()
        assert each.client.conn.channels == each.server.conn.channels == ()


@pytest.mark.parametrize(
    "arguments",
    [
        {"command": "\ud800"},
        {"command": None},
        {"command": "cat", "input": "text"},
        {"command": "cat", "env": {"A=B": "x"}},
        {"command": "cat", "env": {"A": "\ud800"}},
        {"command": "cat", "pty": PtyRequest("x" * 1000)},
    ],
)
def test_what_cannot_be_asked_for_is_said_before_anything_runs(scene, host, arguments):
    with pytest.raises(InvalidArgument):
        scene.client.perform(run(scene.client.hub, **arguments))
    scene.settle()
    assert host.ran == []
    assert scene.client.conn.channels == scene.server.conn.channels == ()


def test_text_goes_as_it_came():
    assert octets("ä\udcff") == b"\xc3\xa4\xff"
    assert octets(b"\xff") == b"\xff"


# ------------------------------------------------------------------------------------------------ shells and subsystems


@pytest.mark.parametrize("program", [Shell(), Subsystem("cat"), Exec(b"cat")])
def test_a_program_is_talked_to(scene, program):
    channel = scene.client.perform(start(scene.client.hub, program))
    for text in (b"hello\n", b"again\n"):
        scene.client.perform(channel.write(text))
        assert scene.client.perform(channel.read_line()) == text
    scene.client.perform(channel.send_eof())
    assert scene.client.perform(channel.read()) == b""
    scene.client.perform(channel.until_exit())
    assert channel.exit_status == 0


def test_a_program_hears_of_signals_sizes_and_breaks(scene):
    channel = scene.client.perform(start(scene.client.hub, Exec(b"notices 3"), pty=PtyRequest("vt100")))
    scene.client.perform(send_signal(channel, "INT"))
    scene.client.perform(resize(channel, 132, 43, 1000, 500))
    assert scene.client.perform(channel.request(Break(800))) is True
    lines = scene.client.perform(channel.read_all()).decode().splitlines()
    assert lines == [repr(Signal("INT")), repr(WindowChange(132, 43, 1000, 500)), repr(Break(800))]


def test_there_are_no_breaks_without_a_terminal(scene):
    channel = scene.client.perform(start(scene.client.hub, Exec(b"wait")))
    assert scene.client.perform(channel.request(Break(800))) is False


def test_nothing_else_is_granted_to_a_program_that_runs(scene):
    channel = scene.client.perform(start(scene.client.hub, Exec(b"wait")))
    for request in (PtyRequest("vt100"), Env("A", b"B"), Shell()):
        assert scene.client.perform(channel.request(request)) is False


def test_a_second_terminal_is_refused(scene):
    channel = scene.client.perform(scene.client.hub.open_channel(Session()))
    assert scene.client.perform(channel.request(PtyRequest("vt100"))) is True
    assert scene.client.perform(channel.request(PtyRequest("vt100"))) is False


@pytest.mark.covers("V76", "B30")
def test_a_client_that_sends_too_many_variables_keeps_the_first(scene):
    channel = scene.client.perform(scene.client.hub.open_channel(Session()))
    value = b"v" * 30_000
    granted = [scene.client.perform(channel.request(Env(f"V{number}", value))) for number in range(6)]
    assert granted == [True] * 4 + [False] * 2


# ------------------------------------------------------------------------------------------------ the server's programs


def test_a_program_is_hung_up_on_when_its_channel_closes(scene, host):
    channel = scene.client.perform(start(scene.client.hub, Exec(b"wait")))
    scene.settle()
    assert host.ran == [""]
    channel.close()
    scene.settle()
    assert host.ran in (["cancelled"], ["ended"])
    channel = scene.client.perform(start(scene.client.hub, Exec(b"sleep 1000")))
    channel.close()
    scene.settle()
    assert host.ran[1] == "cancelled"
    assert scene.server.running() == []


def test_a_program_is_hung_up_on_when_the_connection_is_lost(scene, host):
    scene.client.perform(start(scene.client.hub, Exec(b"sleep 1000")))
    scene.cut()
    scene.settle()
    assert host.ran == ["cancelled"]
    assert scene.server.running() == []
    assert isinstance(scene.service.value(), UnexpectedEof)


def test_a_bug_of_a_program_is_told_to_the_server(scene, host):
    completed = scene.client.perform(run(scene.client.hub, "broken"))
    assert completed.exit_status == 255
    assert [type(error) for error in host.errors] == [ZeroDivisionError]
    assert scene.bugs == []


class Returning(Host):
    """Programs that return what their handler says."""

    def __init__(self, status):
        super().__init__()
        self.status = status

    def session(self, session):
        return self.status


@pytest.mark.parametrize(
    ("status", "wanted"), [(None, 0), (True, 1), (0, 0), (255, 255), (-1, 0xFFFFFFFF), (2**32, 0), (ExitStatus(9), 9)]
)
def test_what_a_program_returns_is_its_status(status, wanted):
    scene = Scene().serve(Returning(status)).login()
    assert scene.client.perform(run(scene.client.hub, "x")).exit_status == wanted


@pytest.mark.parametrize("status", ["fine", object(), [1]])
def test_what_is_no_status_is_a_bug(status):
    scene = Scene().serve(Returning(status)).login()
    assert scene.client.perform(run(scene.client.hub, "x")).exit_status == 255
    assert len(scene.handler.errors) == 1
    assert scene.bugs == []


def test_a_signal_that_cannot_be_told_is_a_bug():
    scene = Scene().serve(Returning(ExitSignal("\ud800"))).login()
    completed = scene.client.perform(run(scene.client.hub, "x"))
    assert (completed.exit_status, completed.exit_signal) == (None, None)
    assert [type(error) for error in scene.handler.errors] == [InvalidArgument]
    assert scene.bugs == []


@pytest.mark.covers("V65", "V76")
@pytest.mark.parametrize("verdict", [1, "yes", object(), None])
@pytest.mark.parametrize("question", ["allow_pty", "allow_env", "allow_program"])
def test_only_true_is_a_yes(question, verdict):
    """An answer that nobody has awaited, above all, is none."""
    handler = Host()
    setattr(handler, question, lambda *_: verdict)
    scene = Scene().serve(handler).login()
    channel = scene.client.perform(scene.client.hub.open_channel(Session()))
    request = {"allow_pty": PtyRequest("vt100"), "allow_env": Env("A", b""), "allow_program": Shell()}[question]
    assert scene.client.perform(channel.request(request)) is False


@pytest.mark.covers("V64")
def test_a_bug_in_an_answer_is_a_no():
    class Broken(Host):
        def allow_program(self, session):
            raise ZeroDivisionError

    scene = Scene().serve(Broken()).login()
    with pytest.raises(RequestRefused):
        scene.client.perform(run(scene.client.hub, "x"))
    assert [type(error) for error in scene.handler.errors] == [ZeroDivisionError]


def test_what_was_got_ready_is_undone_when_the_session_ends():
    undone = []

    class Ready(Host):
        def allow_pty(self, session, request):
            session.at_end.callback(undone.append, request.term)
            return True

    scene = Scene().serve(Ready()).login()
    scene.client.perform(run(scene.client.hub, "echo", pty=PtyRequest("one")))
    channel = scene.client.perform(start(scene.client.hub, Exec(b"sleep 99"), pty=PtyRequest("two")))
    assert undone == ["one"]
    channel.close()
    scene.settle()
    assert undone == ["one", "two"]


def test_a_slow_answer_is_in_time_or_for_nobody():
    class Slow(Host):
        def allow_program(self, session):
            yield Sleep(5.0)
            return True

    scene = Scene().serve(Slow()).login()
    assert scene.client.perform(run(scene.client.hub, "echo hi")).stdout == b"hi\n"
    task = scene.client.begin(run(scene.client.hub, "echo hi"))
    scene.settle()
    task.cancel()
    scene.settle()
    scene.pass_time(10.0)
    assert scene.handler.ran == ["ended"]
    assert scene.server.running() == []


def test_a_program_that_writes_to_nobody_ends(scene, host):
    channel = scene.client.perform(start(scene.client.hub, Exec(b"flood 10000000")))
    scene.settle()
    channel.close()
    scene.settle()
    assert host.ran == ["cancelled"]
    with pytest.raises(ChannelEnded):
        scene.client.perform(channel.write(b"x"))
