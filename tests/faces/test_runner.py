"""What runs operations in a thread, without a connection: steps, errors, timeouts."""

from __future__ import annotations

import contextlib
import contextvars
import os
import select
import socket
import threading
import time
from typing import Any

import pytest

from sshproto.errors import ConnectionLoss, InvalidArgument
from sshproto.operations.steps import Call, Operation, Ready, Sleep, Spawn, Together, Wait, call
from sshproto_io import TimeoutExpired, sockets
from sshproto_io.calls import Calls
from sshproto_io.runner import Runner, Task
from sshproto_io.workers import Watch, watch
from tests.support.talk import wait_for

pytestmark = pytest.mark.timeout(60)


def perform(operation: Operation[Any], timeout: float | None = None, **options: Any) -> Any:
    return Runner().run(operation, timeout, **options)


def test_results_and_errors_come_back():
    def add(a: int, b: int) -> Operation[int]:
        yield Sleep(0)
        return a + b

    def fail() -> Operation[None]:
        yield Sleep(0)
        raise ZeroDivisionError

    assert perform(add(1, 2)) == 3
    with pytest.raises(ZeroDivisionError):
        perform(fail())


def test_sleeping_takes_its_time_and_ends_early():
    wait = Wait()
    started = time.monotonic()

    def sleep() -> Operation[None]:
        yield Sleep(0.05)

    def sleep_long() -> Operation[None]:
        yield Sleep(30, wait)

    def fire() -> Operation[None]:
        yield Sleep(0.05)
        wait.fire()

    perform(sleep())
    assert 0.045 < time.monotonic() - started < 5

    def both() -> Operation[None]:
        yield Together(sleep_long(), fire())

    perform(both())
    assert time.monotonic() - started < 5
    assert not wait.wanted


def test_descriptors_are_waited_for():
    read, write = os.pipe()

    def take() -> Operation[bytes]:
        yield Ready(read)
        return os.read(read, 10)

    def give() -> Operation[None]:
        yield Sleep(0.05)
        yield Ready(write, writing=True)
        os.write(write, b"x")

    def both() -> Operation[Any]:
        return (yield Together(take(), give()))

    assert perform(both()) == (b"x", None)
    os.close(read)
    os.close(write)


def test_both_directions_of_one_descriptor():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def take() -> Operation[bytes]:
        yield Ready(ours.fileno())
        return ours.recv(10)

    def give() -> Operation[None]:
        for _ in range(3):
            yield Ready(ours.fileno(), writing=True)
        theirs.send(b"y")

    def both() -> Operation[Any]:
        return (yield Together(take(), give()))

    assert perform(both()) == (b"y", None)
    ours.close()
    theirs.close()


def test_what_cannot_be_waited_for_is_ready(tmp_path):
    (tmp_path / "file").write_bytes(b"content")

    def take(number: int) -> Operation[bytes]:
        yield Ready(number)
        return os.read(number, 10)

    with (tmp_path / "file").open("rb") as file:
        assert perform(take(file.fileno())) == b"content"
    with pytest.raises(OSError, match="Bad file"):
        perform(take(-1))
    with pytest.raises(OSError, match="Bad file"):
        perform(take(999))


def test_waiting_for_a_descriptor_can_end_early():
    read, write = os.pipe()
    wait = Wait()

    def take() -> Operation[str]:
        yield Ready(read, until=wait)
        return "early"

    def fire() -> Operation[None]:
        yield Sleep(0.02)
        wait.fire()

    def both() -> Operation[Any]:
        return (yield Together(take(), fire()))

    assert perform(both())[0] == "early"
    os.close(read)
    os.close(write)


def test_functions_are_called_here_or_in_a_thread():
    here = threading.get_ident()

    def ask() -> Operation[int]:
        return (yield Call(threading.get_ident))

    def nothing() -> Operation[None]:
        yield Sleep(1)

    def beside() -> Operation[Any]:
        with contextlib.suppress(ZeroDivisionError):
            yield Together(fail(), nothing())
        return (yield Together(ask(), nothing()))

    def fail() -> Operation[None]:
        yield Call(lambda: 1 / 0)

    assert perform(ask()) == here
    assert perform(ask(), 10) != here
    assert perform(ask(), 10, inline=True) == here
    assert perform(beside())[0] != here
    for timeout in (None, 10):
        with pytest.raises(ZeroDivisionError):
            perform(fail(), timeout)


def test_a_slow_function_holds_up_nobody_else():
    order: list[str] = []

    def slow() -> Operation[None]:
        yield Call(time.sleep, 0.3)
        order.append("slow")

    def quick() -> Operation[None]:
        for _ in range(3):
            yield Sleep(0.01)
        order.append("quick")

    def both() -> Operation[None]:
        yield Together(slow(), quick())

    perform(both())
    assert order == ["quick", "slow"]


def test_a_watch_tells_of_late_calls_and_rests():
    watch = Watch()
    late: list[str] = []
    watch.begin("slow", lambda: late.append("slow"))
    for _ in range(100):
        watch.begin("quick", lambda: late.append("quick"))
        watch.end("quick")
    wait_for(lambda: late)
    watch.end("slow")
    wait_for(lambda: not watch._running)
    assert late == ["slow"]
    watch.begin("again", lambda: late.append("again"))
    wait_for(lambda: len(late) == 2)


def test_a_call_is_not_late_with_the_one_before_it(monkeypatch):
    begun: list[object] = []
    ended: list[object] = []
    monkeypatch.setattr(watch, "begin", lambda call, late: begun.append(call))
    monkeypatch.setattr(watch, "end", ended.append)
    runner = Runner()
    task, calls = Task(runner, iter(())), Calls(runner)
    for _ in range(2):
        calls.make_briefly(task, Call(threading.get_ident))
    assert begun == ended
    assert begun[0] != begun[1]


def test_a_call_that_cannot_be_watched_leaves_the_thread_its_name(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(watch, "begin", fail)
    runner = Runner()
    name = threading.current_thread().name
    with pytest.raises(RuntimeError):
        Calls(runner).make_briefly(Task(runner, iter(())), Call(threading.get_ident))
    assert threading.current_thread().name == name


def test_who_is_cancelled_as_an_address_answers_keeps_no_socket():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address)] * 2
        job = sockets.connect(("a name", address[1]), lambda *_, **__: found)
        look_up = next(job)
        assert isinstance(look_up, Call)
        race = job.send(look_up.function(*look_up.args))
        assert isinstance(race, Together)
        with pytest.raises(sockets._Won):
            for ready in race.operations[0]:
                assert isinstance(ready, Ready)
                select.select([], [ready.descriptor], [], 10)
        winner = job.gi_frame.f_locals["race"].result()
        job.close()
        assert winner.fileno() < 0


def test_asynchronous_functions_are_refused():
    async def yes() -> bool:
        return True

    def ask() -> Operation[Any]:
        return (yield Call(yes))

    for timeout in (None, 10):
        with pytest.raises(InvalidArgument, match="asynchronous"):
            perform(ask(), timeout)


def test_together():
    closed: list[str] = []

    def one(name: str, seconds: float, error: type[Exception] | None = None) -> Operation[str]:
        try:
            yield Sleep(seconds)
            if error is not None:
                raise error(name)
            return name
        finally:
            closed.append(name)

    def good() -> Operation[Any]:
        return (yield Together(one("a", 0.02), one("b", 0.0), inner()))

    def inner() -> Operation[Any]:
        none = yield Together()
        return (yield Together(one("c", 0.0), one("d", 0.01))), none

    assert perform(good()) == ("a", "b", (("c", "d"), ()))

    def bad() -> Operation[Any]:
        try:
            yield Together(one("e", 30), one("f", 0.0, KeyError), deep(), one("h", 0.0, ValueError))
        except KeyError as error:
            assert closed[-3:] != []
            return error.args[0], sorted(closed)

    def deep() -> Operation[Any]:
        yield Together(one("g", 30))

    closed.clear()
    assert perform(bad()) == ("f", ["e", "f", "g", "h"])


def test_what_is_spawned_ends_with_the_runner(capsys):
    seen: list[str] = []

    def beside() -> Operation[None]:
        seen.append("started")
        try:
            yield Sleep(30)
        finally:
            seen.append("ended")

    def main() -> Operation[str]:
        yield Spawn(beside())
        assert seen == ["started"]
        cancel = yield Spawn(beside())
        cancel()
        cancel()
        assert seen == ["started", "started", "ended"]
        yield Sleep(0)
        return "done"

    assert perform(main()) == "done"
    assert seen[3:] == ["ended"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_is_spawned_may_fail_by_itself(monkeypatch):
    told: list[type] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))

    def beside(error: type[Exception]) -> Operation[None]:
        yield Sleep(0)
        raise error("beside")

    def main() -> Operation[str]:
        yield Spawn(beside(ZeroDivisionError))
        yield Spawn(beside(ConnectionLoss))  # nobody has to be told of that
        yield Sleep(0.05)
        return "done"

    assert perform(main()) == "done"
    assert told == [ZeroDivisionError]


def test_only_steps_are_steps():
    def wrong() -> Operation[None]:
        yield "a string"  # type: ignore[misc]

    with pytest.raises(TypeError, match="'a string'"):
        perform(wrong())


def test_when_time_is_up_the_operation_is_cancelled():
    closed: list[str] = []

    def one(step: Any, name: str) -> Operation[None]:
        try:
            yield step
        finally:
            closed.append(name)

    read, write = os.pipe()
    release = threading.Event()
    steps = [
        (lambda: Sleep(30)),
        Wait,
        (lambda: Ready(read)),
        (lambda: Call(release.wait, 30)),
        (lambda: Together(one(Sleep(30), "inner"))),
    ]
    for number, step in enumerate(steps):
        started = time.monotonic()
        with pytest.raises(TimeoutExpired, match=r"it took longer than 0\.05 seconds") as caught:
            perform(one(step(), str(number)), 0.05, what="it")
        assert 0.045 < time.monotonic() - started < 5
        assert caught.value.seconds == 0.05
        assert isinstance(caught.value, TimeoutError)
    assert closed == ["0", "1", "2", "3", "inner", "4"]
    release.set()
    os.close(read)
    os.close(write)


def test_the_clock_stands_still_while_a_function_is_called_here():
    def ask() -> Operation[str]:
        yield Call(time.sleep, 0.3)
        yield Sleep(0.05)
        return "answered"

    assert perform(ask(), 0.2, inline=True) == "answered"


def test_errors_of_an_operation_leave_nothing():
    def nest(depth: int) -> Operation[None]:
        if depth:
            yield Together(nest(depth - 1), nest(depth - 1))
        else:
            yield Sleep(0)
            raise KeyError

    before = threading.active_count()
    for _ in range(20):
        with pytest.raises(KeyError):
            perform(nest(4))
    assert threading.active_count() == before


def test_threads_of_calls_are_used_again_and_carry_nothing_over():
    told: contextvars.ContextVar[str] = contextvars.ContextVar("told", default="nothing")
    threads: list[threading.Thread] = []
    found: list[str] = []

    def function() -> None:
        threads.append(threading.current_thread())
        found.append(told.get())
        told.set("something")

    def calling() -> Operation[None]:
        yield Together(call(function), call(time.sleep, 0.01))

    for _ in range(5):
        perform(calling())
    assert found == ["nothing"] * 5
    assert len(set(threads)) <= 2
