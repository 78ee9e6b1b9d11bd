"""Where a blocking server's quiet connections wait: they need no thread, and come back for whatever happens."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Any

import pytest

from sshproto.config import ClientConfig, Timeouts
from sshproto.errors import PeerDisconnected, UnexpectedEof
from sshproto.operations.steps import Operation, Sleep, Spawn
from sshproto_io import lot as lots
from sshproto_io.lot import Lot, Place
from sshproto_io.workers import Workers
from tests.support.seeds import QUICK, USER
from tests.support.talk import Talk, talking, wait_for

pytestmark = pytest.mark.timeout(60)


def serving() -> list[str]:
    """The threads that serve a connection."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ssh (")]


def parked(talk: Talk, number: int = -1) -> bool:
    service = talk.handlers[number].incoming.driver._service
    return service is not None and service._parked is not None


def test_quiet_connections_have_no_thread_and_come_back():
    with talking() as talk, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(talk.connect()) for _ in range(12)]
        wait_for(lambda: not serving())
        assert sum(thread.name == "ssh connections" for thread in threading.enumerate()) == 1
        for client in (*clients, *reversed(clients)):
            assert client.run("say here").stdout == b"here"
        wait_for(lambda: not serving())
    wait_for(lambda: not any(thread.name == "ssh connections" for thread in threading.enumerate()))


def test_sessions_go_on_while_their_connection_waits_there():
    with talking() as talk, talk.connect() as client, client.start("cat") as process, client.start("stall") as other:
        assert other.stdout.read(8) == b"stalling"
        for word in (b"one", b"two", b"three"):
            wait_for(lambda: parked(talk))
            process.stdin.write(word)
            assert process.stdout.read(len(word)) == word
        wait_for(lambda: parked(talk))
        with client.start("pause 0.2") as third:
            assert third.wait() == 0


def test_operations_of_a_connection_that_sleep_keep_its_thread():
    """Their clocks run there."""
    with talking() as talk, talk.connect() as client:
        incoming = talk.handlers[-1].incoming
        seen: list[str] = []

        def beside() -> Operation[None]:
            for number in range(4):
                yield Sleep(0.05 * (number % 2))
                seen.append(threading.current_thread().name)

        def main() -> Operation[None]:
            yield Spawn(beside())

        for awake in (True, False, True):
            seen.clear()
            if awake:
                assert client.run("say here").stdout == b"here"
            else:
                wait_for(lambda: parked(talk))
            incoming.perform(main())
            wait_for(lambda: len(seen) == 4)
            assert client.run("say here").stdout == b"here"


def test_who_comes_back_soon_stays_longer():
    with talking() as talk, talk.connect() as client:
        driver = talk.handlers[-1].incoming.driver
        before = driver._patience
        wait_for(lambda: parked(talk))
        client.run("say here")
        assert driver._patience == 2 * before
        driver.unparked(Place(0, None, lambda: None))
        assert driver._patience == 4 * before
        late = Place(0, None, lambda: None)
        late.since -= 100
        driver.unparked(late)
        assert driver._patience == before


def test_deadlines_are_kept_there():
    """A server that wants to hear something twice in a while hangs up on who does not answer, and keeps who does."""
    timeouts = Timeouts(keepalive=0.15, keepalive_count=2)
    with talking(config={"timeouts": timeouts}) as talk, talk.connect() as quiet, talk.connect() as answering:
        answering.start_thread()
        wait_for(lambda: talk.handlers[0].incoming.driver.closed)
        assert answering.run("say here").stdout == b"here"
        with pytest.raises((PeerDisconnected, UnexpectedEof)):
            quiet.run("say here")


@pytest.mark.parametrize("end", ["close", "abort"])
def test_ends_from_other_threads_reach_what_waits_there(end):
    with talking() as talk, talk.connect() as client:
        wait_for(lambda: parked(talk))
        getattr(talk.handlers[-1].incoming, end)()
        wait_for(lambda: not talk.server._connections)
        with pytest.raises((PeerDisconnected, UnexpectedEof)):
            client.run("say here")


def test_a_handlers_thread_may_use_a_connection_that_waits_there():
    config = ClientConfig(user=USER, preferences=QUICK)
    with talking() as talk, talk.connect(config=config) as client:
        client.start_thread()
        wait_for(lambda: parked(talk))
        incoming = talk.handlers[-1].incoming
        incoming.perform(incoming.hub.rekey())
        assert client.run("say here").stdout == b"here"


def test_strangers_wait_there_too():
    with talking() as talk, socket.create_connection(("127.0.0.1", talk.server.port)) as stranger:
        assert stranger.recv(4) == b"SSH-"
        wait_for(lambda: parked(talk))
        stranger.close()
        wait_for(lambda: not talk.server._connections)


def test_where_there_can_be_no_more_threads_they_stay_or_try_again(monkeypatch):
    lot = Lot()
    ours, theirs = socket.socketpair()
    came = threading.Event()
    start = threading.Thread.start
    refused: list[Any] = []

    def refuse(thread: Any) -> None:
        if len(refused) < 3:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    place = Place(ours.fileno(), None, came.set)
    with pytest.raises(RuntimeError):
        lot.park(place)
    assert lot._selector is None
    refused.append(None)
    refused.append(None)
    lot.park(place)
    refused.clear()
    monkeypatch.setattr(lots, "workers", Workers())
    theirs.send(b"x")
    assert came.wait(10)
    assert len(refused) == 3
    wait_for(lambda: lot._selector is None)
    ours.close()
    theirs.close()


def test_deadlines_that_are_over_are_let_go():
    lot = Lot()
    pipes = [os.pipe() for _ in range(2)]
    reading, over = [read for read, _ in pipes], threading.Semaphore(0)
    waiting = Place(reading[0], time.monotonic() + 100, over.release)
    lot.park(waiting)
    for _ in range(300):
        place = Place(reading[1], time.monotonic() + 50, over.release)
        lot.park(place)
        lot.fetch(place)
        lot.fetch(place)  # it has left
        assert over.acquire(timeout=10)
    assert len(lot._deadlines) < 150
    soon = Place(reading[1], time.monotonic() + 0.05, over.release)
    lot.park(soon)
    assert over.acquire(timeout=10)
    lot.fetch(waiting)
    assert over.acquire(timeout=10)
    assert not over.acquire(timeout=0.05)
    for descriptor in (end for pipe in pipes for end in pipe):
        os.close(descriptor)
