"""What shares a socket between the threads that wait. What runs their operations has tests of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sshproto.channels.requests import Session
from sshproto.config import ClientConfig, Limits, Timeouts
from sshproto.errors import ConnectionLoss, LocalClose, TimedOut, UnexpectedEof, UsageError
from sshproto.events import DataReceived, Event
from sshproto.operations.hub import Hub
from sshproto.operations.steps import Call, Operation, Ready, Sleep, Spawn, Together, Wait
from sshproto_io import TimeoutExpired
from sshproto_io.blocking import Client
from tests.support.seeds import QUICK, USER
from tests.support.talk import BLOCK, Talk, settled, talking, wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def talk() -> Iterator[Talk]:
    with talking() as talk:
        yield talk


@pytest.fixture
def client(talk) -> Iterator[Client]:
    with talk.connect() as client:
        yield client


def in_threads(*functions: Callable[[], object], seconds: float = 40.0) -> None:
    """Do all of these at once; the first error is raised."""
    errors: list[BaseException] = []

    def do(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=do, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def kind_of_error(function: Callable[[], object], kinds: list[type]) -> Callable[[], None]:
    def do() -> None:
        try:
            function()
        except Exception as error:
            kinds.append(type(error))

    return do


# ---------------------------------------------------------------------------------------------------- leader, followers


def test_many_threads_share_a_connection(client):
    def work(number: int) -> Callable[[], None]:
        def do() -> None:
            for turn in range(250):
                text = f"{number} {turn}"
                completed = client.run(f"say {text}", timeout=30)
                assert (completed.stdout, completed.exit_status) == (text.encode(), 0)

        return do

    in_threads(*map(work, range(8)), seconds=55)
    settled(client)


def test_the_lead_passes_on(client):
    """The first who waits leads; when it leaves, one of those who wait still takes over."""
    with client.start("stall") as first, client.start("stall") as second, client.start("stall") as third:
        waiting: list[threading.Thread] = []
        for process in (first, second, third):
            process.stdout.read(8)
            waiting.append(in_thread(process.wait))
            wait_for(lambda: len(client.driver._followers) == len(waiting) - 1 and client.driver._leader is not None)
        leader = client.driver._leader
        for process, thread in zip((first, second, third), waiting, strict=True):
            process.send_signal("HUP")
            thread.join(10)
            assert not thread.is_alive()
        assert client.driver._leader is not leader
    settled(client)


def test_a_command_of_another_thread_leaves_while_the_leader_sleeps(client):
    with client.start("stall") as process:
        process.stdout.read(8)
        leader = in_thread(process.wait)
        wait_for(lambda: client.driver._leader is not None)
        started = time.monotonic()
        assert client.run("say quick").stdout == b"quick"
        assert time.monotonic() - started < 5
        process.close()  # not an operation, and yet it is sent, and ends the wait
        leader.join(10)
        assert not leader.is_alive()
    settled(client)


def test_what_the_socket_does_not_take_is_left_to_the_leader(talk):
    """Megabytes are queued by a thread that does not wait; the leader, who waited for reading only, sends them."""
    config = ClientConfig(user=USER, preferences=QUICK, limits=Limits(output_high=8 << 20))
    with talk.connect(config=config) as client, client.start("stall") as process:
        client.driver._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        process.stdout.read(8)
        waiter = in_thread(process.wait)
        wait_for(lambda: client.driver._leader is not None)
        taken = client.apply(lambda: client.conn.send(process.channel.number, bytes(2_000_000)))
        assert taken == 2_000_000
        wait_for(lambda: not client.driver._unsent and not client.conn.output_size)
        process.send_signal("HUP")
        waiter.join(10)
        assert not waiter.is_alive()


def test_an_earlier_deadline_wakes_the_leader(talk):
    """The leader sleeps without a deadline; then somebody starts a key exchange that the server does not answer."""
    config = ClientConfig(user=USER, preferences=QUICK, timeouts=Timeouts(kex=0.3, rekey=None))
    with talk.connect(config=config) as client:
        process = client.start("deaf")
        kinds: list[type] = []
        leader = in_thread(kind_of_error(process.wait, kinds))
        wait_for(lambda: client.driver._leader is not None)
        time.sleep(0.2)
        client.apply(client.conn.rekey)
        leader.join(10)
        assert kinds == [TimedOut]


def test_functions_of_an_operation_run_while_others_go_on(client):
    """An operation of the leader's calls a function: the lead passes on meanwhile."""
    inside, release = threading.Event(), threading.Event()

    def block() -> None:
        inside.set()
        assert release.wait(20)

    def ask() -> Operation[str]:
        yield Sleep(0.05)
        yield Call(block)
        return "done"

    results: list[Any] = []
    asking = in_thread(lambda: results.append(client.perform(ask())))
    wait_for(lambda: client.driver._leader is not None)
    answers: list[Any] = []
    other = in_thread(lambda: answers.append(client.run("pause 0.3").exit_status))
    assert inside.wait(10)
    other.join(10)
    assert answers == [0]
    release.set()
    asking.join(10)
    assert results == ["done"]
    settled(client)


def test_descriptors_of_leaders_and_followers(client):
    """Two threads wait for pipes on one connection, one of them as its leader; a third thread runs commands."""
    pipes = [os.pipe() for _ in range(2)]

    def take(descriptor: int) -> Operation[bytes]:
        data = b""
        while len(data) < 3:
            yield Ready(descriptor)
            data += os.read(descriptor, 1)
        return data

    results: list[bytes] = []
    threads = [in_thread(lambda end=read: results.append(client.perform(take(end)))) for read, _ in pipes]
    wait_for(lambda: client.driver._leader is not None and len(client.driver._followers) == 1)
    for character in b"abc":
        assert client.run("say hello").stdout == b"hello"
        for _, write in pipes:
            os.write(write, bytes([character]))
    for thread in threads:
        thread.join(10)
    assert results == [b"abc", b"abc"]
    for descriptor in (end for pipe in pipes for end in pipe):
        os.close(descriptor)
    settled(client)


def test_who_is_told_of_events_must_not_wait(talk, monkeypatch):
    """It would wait for itself: that is an error, and not the end of the connection."""
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_value))
    clients: list[Client] = []

    def watch(event: Event) -> None:
        if isinstance(event, DataReceived):
            clients[0].run("say no")

    with talk.connect(on_event=watch) as client:
        clients.append(client)
        assert client.run("say yes").stdout == b"yes"
        assert isinstance(told[0], UsageError)

        def careless() -> Operation[None]:
            for job in (client.rekey, client.close, client.abort, client.start_thread):
                with pytest.raises(UsageError):
                    job()
            yield Sleep(0)

        client.perform(careless())
        assert client.run("say yes").stdout == b"yes"


# ------------------------------------------------------------------------------------------------- time and interrupts


def test_timeouts_leave_the_connection_and_no_channel(client):
    for _ in range(5):
        with pytest.raises(TimeoutExpired, match=r"'stall' took longer than 0\.03 seconds"):
            client.run("stall", timeout=0.03)
        with client.start("stall") as process:
            with pytest.raises(TimeoutExpired):
                process.wait(0.02)
            with pytest.raises(TimeoutExpired):
                client.perform(process.channel.read_exactly(1000), 0.02)
            with pytest.raises(TimeoutExpired):
                client.perform(process.channel.write(bytes(10_000_000)), 0.05)
    settled(client)


def test_what_is_given_up_is_given_up_at_the_server_as_well(talk):
    with talk.connect() as client:
        there = talk.handlers[-1].incoming.hub
        with pytest.raises(TimeoutExpired):
            client.run("stall", timeout=0.1)
        wait_for(lambda: not there.channels)
        process = client.start("stall")
        assert there.channels
        process.close()
        wait_for(lambda: not there.channels)


def test_what_a_command_sends_last_leaves_by_itself(talk):
    """It may wait for what is sent next, but not for ever; and the end of all brings it at once."""
    with talk.connect() as client:
        there = talk.handlers[-1].incoming.hub
        for _ in range(3):
            assert client.run("say hello").stdout == b"hello"
        wait_for(lambda: not there.channels)
        assert client.run("say hello").stdout == b"hello"
    wait_for(lambda: not there.channels)


def test_what_one_operation_did_the_next_one_knows(client):
    """Even if both go on in the same moment."""

    def end() -> Operation[None]:
        yield Sleep(0.01)
        client.conn.disconnect()

    def go_on() -> Operation[type]:
        yield Sleep(0.01)
        try:
            yield from client.hub.open_channel(Session())
        except ConnectionLoss as error:
            return type(error)
        return type(None)

    def both() -> Operation[Any]:
        return (yield Together(end(), go_on()))

    assert client.perform(both()) == (None, LocalClose)


def test_what_came_in_time_is_not_late(talk):
    """A deadline passes while nobody waits, and what it is for has come: that is seen first."""
    timeouts = Timeouts(kex=0.2)
    with talk.connect(config=ClientConfig(user=USER, preferences=QUICK, timeouts=timeouts)) as client:

        def until_begun() -> Operation[None]:
            while not client.conn.rekeying:
                yield Sleep(0)

        with client.start("rekey") as process:
            client.perform(until_begun())
            time.sleep(0.4)
            assert process.wait() == 0
        settled(client)


def test_timeouts_of_many_threads(client):
    def hurry() -> None:
        for number in range(30):
            with contextlib.suppress(TimeoutExpired):
                client.run("say hello", timeout=number * 0.0005)

    in_threads(*[hurry] * 6)
    settled(client)


@contextlib.contextmanager
def interrupted(after: float, condition: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C in the main thread, some time after ``condition`` holds."""
    assert threading.current_thread() is threading.main_thread()

    def strike() -> None:
        wait_for(condition)
        time.sleep(after)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    striker = in_thread(strike)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        striker.join(10)
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_of_the_leader(client):
    with interrupted(0.02, lambda: client.driver._leader is not None):
        client.run("stall")
    settled(client)


def test_ctrl_c_of_the_leader_passes_the_lead_on(client):
    results: list[Any] = []
    with interrupted(0.1, lambda: client.driver._leader is not None and client.driver._followers):
        other = in_thread(lambda: (time.sleep(0.05), results.append(client.run("pause 0.5").exit_status)))
        client.run("stall")
    other.join(10)
    assert results == [0]
    settled(client)


def test_ctrl_c_of_a_follower(client):
    with client.start("stall") as process:
        leader = in_thread(process.wait)
        wait_for(lambda: client.driver._leader is not None)
        with interrupted(0.02, lambda: client.driver._followers):
            client.run("stall")
        assert client.run("say on").stdout == b"on"
        process.send_signal("HUP")
        leader.join(10)
        assert not leader.is_alive()
    settled(client)


def test_ctrl_c_in_the_midst_of_the_connection_ends_it(client, monkeypatch):
    """What it interrupted there is lost: better no connection than one that has forgotten something."""
    kinds: list[type] = []
    with client.start("stall") as process:
        process.stdout.read(8)
        other = in_thread(kind_of_error(lambda: process.stdout.read(1), kinds))
        wait_for(lambda: client.driver._leader is not None)
        drain = Hub.drain

        def interrupt(hub: Hub[Any]) -> None:
            if hub is not client.hub:
                drain(hub)
                return
            monkeypatch.setattr(Hub, "drain", drain)
            raise KeyboardInterrupt

        monkeypatch.setattr(Hub, "drain", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.run("say hello")
        other.join(10)
        assert kinds == [LocalClose]
        with pytest.raises(ConnectionLoss):
            client.run("say hello")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_errors_of_operations_and_functions_leave_the_connection(client, kind):
    def strike() -> None:
        raise kind

    def own() -> Operation[None]:
        channel = yield from client.hub.open_channel(Session())
        try:
            yield Sleep(0.01)
            strike()
        finally:
            channel.close()

    def called() -> Operation[None]:
        yield Call(strike)

    def together() -> Operation[None]:
        yield Together(own(), called())

    for operation in (own, called, together):
        with pytest.raises(kind):
            client.perform(operation())
    settled(client)


# ------------------------------------------------------------------------------------------------------------- the ends


@pytest.mark.parametrize("end", [Client.close, Client.abort])
def test_closing_wakes_everybody(talk, end):
    client = talk.connect()
    process, other = client.start("stall"), client.start("stall")
    process.stdout.read(8)
    jobs = [
        process.wait,
        lambda: process.stdout.read(1),
        lambda: process.stderr.read(1),
        lambda: process.stdin.write(bytes(10_000_000)),
        lambda: other.stdin.write(bytes(10_000_000)),
        lambda: client.run("stall"),
        lambda: client.run("stall", timeout=30),
        lambda: client.perform(client.hub.next_question()),
    ]
    kinds: list[type] = []
    threads = [in_thread(kind_of_error(job, kinds)) for job in jobs]
    wait_for(lambda: len(client.driver._followers) == len(jobs) - 1)
    started = time.monotonic()
    end(client)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert time.monotonic() - started < 5
    assert kinds == [LocalClose] * len(jobs)
    for again in (end, Client.close, Client.abort):
        again(client)
    assert client.driver.closed
    for job in (
        lambda: client.run("say no"),
        process.stdout.read,
        lambda: client.forward_local(("127.0.0.1", 0), ("127.0.0.1", 1)),
        client.rekey,
    ):
        with pytest.raises(LocalClose):
            job()
    process.close()
    client.start_thread()
    assert "ssh connection" not in names()


def test_closing_is_quick_when_the_peer_closes(talk):
    started = time.monotonic()
    for threaded in (False, True, False, True):
        client = talk.connect()
        if threaded:
            client.start_thread()
        client.close()
    assert time.monotonic() - started < 1.0  # not half a second each


def test_a_leader_that_has_nothing_to_do_with_it_does_not_keep_the_socket(talk):
    """While somebody polls a socket, closing it has no effect."""
    client = talk.connect()
    handler = talk.handlers[-1]
    read, write = os.pipe()

    def take() -> Operation[bytes]:
        yield Ready(read)
        return os.read(read, 1)

    results: list[bytes] = []
    leader = in_thread(lambda: results.append(client.perform(take())))
    wait_for(lambda: client.driver._leader is not None)
    client.abort()
    wait_for(lambda: handler.incoming.driver.closed, 5)
    os.write(write, b"x")
    leader.join(10)
    assert results == [b"x"]
    os.close(read)
    os.close(write)


def test_closing_while_others_close(talk):
    client = talk.connect()
    client.start_thread()
    in_threads(*[client.close] * 4, client.abort, *[client.close] * 4)
    assert client.driver.closed


def test_a_peer_that_does_not_read_cannot_hold_up_the_end():
    ours, theirs = socket.socketpair()
    config = ClientConfig(user=USER, timeouts=Timeouts(linger=0.3))
    client = Client(ours, config)
    client.driver._unsent = memoryview(bytes(50_000_000))
    started = time.monotonic()
    client.close()
    assert 0.25 < time.monotonic() - started < 5
    theirs.close()


def test_a_peer_that_does_not_close_is_waited_for_half_a_second():
    ours, theirs = socket.socketpair()
    client = Client(ours, ClientConfig(user=USER))
    theirs.sendall(b"SSH-2.0-x\r\n")
    started = time.monotonic()
    client.close("enough")
    assert 0.4 < time.monotonic() - started < 5
    theirs.close()


def test_the_end_of_the_peer_is_noticed(talk):
    with talk.connect() as client:
        with pytest.raises(UnexpectedEof):
            client.run("vanish")
        with pytest.raises(UnexpectedEof):
            client.run("say no")
        client.close()
        client.close()


def test_one_may_wait_for_the_end(talk):
    with talk.connect() as client:
        with pytest.raises(TimeoutExpired):
            client.until_ended(0.02)
        threading.Timer(0.05, talk.handlers[-1].incoming.close, ["enough"]).start()
        assert str(client.until_ended(10)).endswith("enough")


def test_a_reset_is_an_end():
    ours, theirs = socket.socketpair()
    with Client(ours, ClientConfig(user=USER)) as client:
        theirs.close()
        with pytest.raises(UnexpectedEof):
            client.perform(client.hub.until_open())


# ----------------------------------------------------------------------------------------------------------- the thread


def test_a_client_has_no_thread_unless_it_wants_one(client):
    assert client.run("say hello").stdout == b"hello"
    assert "ssh connection" not in names()
    client.start_thread()
    client.start_thread()
    assert names().count("ssh connection") == 1
    assert client.run("say hello").stdout == b"hello"
    client.close()
    assert "ssh connection" not in names()


def test_the_thread_keeps_a_connection_alive(talk):
    """A server that wants to hear something twice in a while hangs up on who does not answer."""
    timeouts = Timeouts(keepalive=0.15, keepalive_count=2)
    with talking(config={"timeouts": timeouts}) as strict, strict.connect() as quiet, strict.connect() as answering:
        answering.start_thread()
        time.sleep(1.2)
        assert answering.run("say here").stdout == b"here"
        with pytest.raises(ConnectionLoss):
            quiet.run("say here")


def test_the_thread_notices_a_dead_peer(talk):
    config = ClientConfig(user=USER, preferences=QUICK, timeouts=Timeouts(keepalive=0.1, keepalive_count=2))
    with talk.connect(config=config) as client:
        client.start_thread()
        process = client.start("deaf")
        wait_for(lambda: client.hub.lost is not None, 5)
        assert isinstance(client.hub.lost, TimedOut)
        with pytest.raises(TimedOut):
            process.wait()
    assert "ssh connection" not in names()


def test_the_thread_takes_what_comes_up_to_the_windows(client):
    with client.start("flood") as process:
        client.start_thread()
        window = client.conn._engine.config.limits.window
        wait_for(lambda: process.channel.inbox(0).size == window)
        assert process.stdout.read(len(BLOCK)) == BLOCK
    settled(client)


def test_threads_run_commands_beside_the_thread(client):
    client.start_thread()

    def work() -> None:
        for _ in range(60):
            assert client.run("say hello", timeout=20).stdout == b"hello"

    in_threads(*[work] * 6)
    settled(client)


def test_what_is_spawned_goes_on_in_the_thread(client):
    seen: list[Any] = []

    def beside() -> Operation[None]:
        try:
            for _ in range(3):
                yield Sleep(0.02)
                seen.append(threading.current_thread().name)
            yield Wait()
        finally:
            seen.append("ended")

    def main() -> Operation[None]:
        yield Spawn(beside())

    client.perform(main())
    wait_for(lambda: len(seen) == 3)
    assert seen == ["ssh connection"] * 3
    client.close()
    assert seen[3:] == ["ended"]
    with pytest.raises(LocalClose):
        client.perform(client.hub.rekey())
    client.perform(main())  # it takes its first step, and is cancelled: nothing is left that it began
    wait_for(lambda: seen[4:] == ["ended"])


# --------------------------------------------------------------------------------------------------------------- misuse


def test_a_client_that_is_dropped_is_complained_about(talk):
    for threaded in (False, True):
        client = talk.connect()
        if threaded:
            client.start_thread()
        handler = talk.handlers[-1]
        sock = client.driver._sock
        with pytest.warns(ResourceWarning, match="unclosed Client"):
            del client
        wait_for(lambda sock=sock: sock.fileno() == -1)
        wait_for(lambda handler=handler: handler.incoming.driver.closed)
        wait_for(lambda: "ssh connection" not in names())


def test_a_client_that_is_dropped_when_its_thread_has_ended_leaves_no_descriptor(talk):
    client = talk.connect()
    client.start_thread()
    talk.handlers[-1].incoming.close()
    wait_for(lambda: "ssh connection" not in names())
    sock, pollers = client.driver._sock, client.driver._pollers
    assert pollers
    with pytest.warns(ResourceWarning, match="unclosed Client"):
        del client
    assert sock.fileno() == -1
    assert not pollers


def test_streams_keep_their_connection(talk):
    process = talk.connect().start("cat")
    process.stdin.write(b"still here")
    assert process.stdout.read(10) == b"still here"
    process._link.close()


def test_an_unclosed_client_does_not_hang_the_interpreter(talk):
    import subprocess

    code = f"""if True:
        from tests.support.talk import connect, HOST, HOST_KEY, USER, USER_KEY
        import threading
        login = dict(user=USER, host_key=HOST_KEY.public_key, keys=[USER_KEY])
        clients = [connect(HOST, {talk.server.port}, **login) for _ in "ab"]
        clients[1].start_thread()
        threading.Thread(target=clients[0].run, args=("stall",), daemon=True).start()
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        timeout=30,
        check=False,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert "Traceback" not in done.stderr
