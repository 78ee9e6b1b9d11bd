"""The asyncio face: tasks, timeouts and loops, and how its errors look. Both ends are ours, over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig, Timeouts
from sshproto.errors import (
    AuthExhausted,
    ConnectionLoss,
    HostKeyChanged,
    HostKeyUnknown,
    Incompatible,
    InvalidArgument,
    OpenRefused,
    PeerDisconnected,
    UnexpectedEof,
)
from sshproto.events import ConnectionLost
from sshproto.keys.known_hosts import parse
from sshproto.keys.private import PrivateKey
from sshproto.operations.steps import Call, Operation, Ready, Sleep, Spawn, Together, Wait
from sshproto_io import LINGER, CommandFailed, ConnectFailed, TimeoutExpired
from sshproto_io.asyncio import Client, Handler, Incoming, Server, ServerSession, connect, listen

pytestmark = pytest.mark.timeout(60)

HOST = "127.0.0.1"
HOST_KEY = PrivateKey.generate("ssh-ed25519")
USER_KEY = PrivateKey.generate("ssh-ed25519")
LOGIN: dict[str, Any] = {"user": "me", "host_key": HOST_KEY.public_key, "keys": [USER_KEY]}
ROOT = Path(__file__).resolve().parents[2]


class Words(Handler):
    """A server whose commands are words."""

    def __init__(self, incoming: Incoming, bugs: list[Exception]) -> None:
        self.incoming = incoming
        self.bugs = bugs

    def public_key(self, user: str, key: Any) -> bool:
        return key == USER_KEY.public_key

    async def session(self, session: ServerSession) -> int:
        match session.command:
            case b"cat":
                while data := await session.stdin.read(65536):
                    await session.stdout.write(data)
            case b"pour":
                async with asyncio.TaskGroup() as group:
                    for writer in (session.stdout, session.stderr):
                        group.create_task(pour(writer))
            case b"stay":
                await asyncio.Event().wait()
            case b"lines":
                await session.stdout.write(b"".join(b"%d\n" % number for number in range(1000)))
            case b"fail":
                return 3
            case b"bug":
                raise ZeroDivisionError
            case _:
                await session.stdout.write(b"done\n")
        return 0

    def allow_connect(self, target: Any, origin: Any) -> bool:
        return target[0] == HOST

    def allow_listen(self, address: Any) -> bool:
        return True

    def bug(self, error: Exception) -> None:
        self.bugs.append(error)


async def pour(writer: Any) -> None:
    while True:
        await writer.write(bytes(100_000))


class Listening:
    """A server, what its handlers met, and what the loop was told."""

    def __init__(self, server: Server, bugs: list[Exception], told: list[dict[str, Any]]) -> None:
        self.server = server
        self.port = server.port
        self.bugs = bugs
        self.told = told

    async def settle(self, client: Client) -> None:
        """See that nothing is left of what has been."""
        await client.run("settle")
        for peer in (client, *self.server.connections):
            await until(lambda peer=peer: not peer.conn.channels and not peer.hub.channels)
        assert not self.bugs
        assert not self.told


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def listening(config: ServerConfig | None = None, make: Any = Words, **options: Any) -> AsyncIterator[Listening]:
    bugs: list[Exception] = []
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    config = config or ServerConfig(host_keys=[HOST_KEY], limits=Limits(sessions=200))
    async with listen(HOST, 0, config, lambda incoming: make(incoming, bugs), **options) as server:
        yield Listening(server, bugs, told)


@contextlib.asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[Client, Listening]]:
    async with listening() as it, connect(HOST, it.port, **{**LOGIN, **options}) as client:
        yield client, it


def run(function: Callable[[], Awaitable[None]], *, debug: bool = False) -> None:
    """``asyncio.run``; a task that is left over is an error."""

    async def bounded() -> None:
        asyncio.get_running_loop().slow_callback_duration = 10
        async with asyncio.timeout(40):
            await function()
        for _ in range(5):  # callbacks of what has ended
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(bounded(), debug=debug)


# --------------------------------------------------------------------------------------------------- tasks and timeouts


def test_either_wait_for_it_and_close_it_or_use_it_as_a_context() -> None:
    async def main() -> None:
        async with listening() as it:
            client = await connect(HOST, it.port, **LOGIN)
            process = await client.start("cat")
            await process.stdin.write(b"x")
            await process.stdin.aclose()
            assert await process.stdout.read() == b"x"
            await process.aclose()
            async with client.start("cat") as process:
                pass
            assert process.channel.closed
            forward = await client.forward_local((HOST, 0), (HOST, it.port))
            async with forward and await client.jump(HOST, forward.port, **LOGIN) as inner:
                assert (await inner.run("ok")).stdout == b"done\n"
            await forward.aclose()
            await it.settle(client)
            await client.aclose()
            await client.aclose()
            await it.server.aclose()
            assert it.port == it.server.port

    run(main)


def test_under_debug_the_loop_has_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with connected() as (client, it):
            assert len((await client.run("cat", input=bytes(1_000_000))).stdout) == 1_000_000
            async with client.start("lines") as process:
                async for line in process.stdout.lines():
                    if line == b"3\n":
                        break
                assert await process.stdout.read_line() == b"4\n"
            await asyncio.gather(*(client.run("ok") for _ in range(20)))
            await it.settle(client)

    with caplog.at_level(logging.WARNING):
        run(main, debug=True)
    assert not caplog.records


CALLS: dict[str, Callable[[Client, int], Awaitable[object]]] = {
    "run": lambda client, port: client.run("cat", input=bytes(300_000)),
    "start": lambda client, port: used(client.start("cat")),
    "open": lambda client, port: used(client.open_tcp(HOST, port)),
    "refused": lambda client, port: used(client.open_tcp("elsewhere", 1)),
    "forward_local": lambda client, port: used(client.forward_local((HOST, 0), (HOST, port))),
    "forward_remote": lambda client, port: used(client.forward_remote((HOST, 0), (HOST, port))),
    "jump": lambda client, port: used(client.jump(HOST, port, **LOGIN)),
    "rekey": lambda client, port: client.rekey(),
}


async def used(opening: Any) -> None:
    with contextlib.suppress(OpenRefused):
        async with opening:
            await asyncio.sleep(0)


@pytest.mark.parametrize("name", CALLS)
def test_cancelled_anywhere_it_leaves_nothing_behind(name: str) -> None:
    async def main() -> None:
        async with connected() as (client, it):
            for turns in (*range(20), *range(20, 60, 7)):
                task = asyncio.ensure_future(CALLS[name](client, it.port))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                await it.settle(client)

    run(main)


def test_a_timeout_around_whatever_waits() -> None:
    async def main() -> None:
        async with connected() as (client, it):
            async with client.start("stay") as process:
                for call in (
                    process.wait,
                    process.stdout.read,
                    process.stderr.read_line,
                    lambda: process.stdout.read_exactly(3),
                    lambda: anext(process.stdout.lines()),
                    lambda: process.stdin.write(bytes(10_000_000)),
                ):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.02):
                            await call()
            await it.settle(client)

    run(main)


def test_being_cancelled_closes_both() -> None:
    async def main() -> None:
        async def stay() -> None:
            async with connected() as (client, _):
                await client.run("stay")

        task = asyncio.create_task(stay())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_a_handler_whose_client_goes_has_no_bug() -> None:
    """Its tasks meet the end one by one; a group of such errors is no bug either."""

    async def main() -> None:
        async with connected() as (client, it):
            for _ in range(10):
                async with client.start("pour") as process:
                    await process.stderr.aclose()
                    await process.stdout.read(1)
            await it.settle(client)
            await client.start("pour")
            await asyncio.sleep(0.05)
            await client.aclose()
            await until(lambda: not it.server.connections)
            assert not it.bugs
            assert not it.told

    run(main)


# ----------------------------------------------------------------------------------------------------------- operations


def test_a_descriptor_is_waited_for_until_something_else_happens() -> None:
    def wait(descriptor: int, until: Wait | None = None, *, writing: bool = False) -> Operation[str]:
        yield Ready(descriptor, writing, until)
        return "ready"

    def fire(until: Wait) -> Operation[None]:
        yield Sleep(0.01)
        until.fire()

    def both(*operations: Operation[Any]) -> Operation[Any]:
        return (yield Together(*operations))

    async def main() -> None:
        left, right = socket.socketpair()
        with left, right, Path(os.devnull).open("rb") as null, Path(__file__).open("rb") as regular:  # noqa: ASYNC230
            async with connected() as (client, _):
                assert await client.perform(wait(left.fileno(), writing=True)) == "ready"
                never = Wait()
                await client.perform(both(wait(left.fileno(), never), fire(never)))
                assert await client.perform(wait(regular.fileno())) == "ready"
                assert await client.perform(wait(null.fileno())) == "ready"

    run(main)


def test_a_spawned_operation_begins_at_once_and_ends_with_its_connection() -> None:
    done: list[str] = []

    def background(name: str, wait: Wait) -> Operation[None]:
        done.append(f"{name} begins")
        try:
            while True:
                yield wait
                done.append(f"{name} goes on")
        finally:
            done.append(f"{name} ends")

    def spawn(name: str, wait: Wait) -> Operation[Callable[[], object]]:
        cancel: Callable[[], object] = yield Spawn(background(name, wait))
        wait.fire()  # nobody has had a turn in between, and yet it is not missed
        return cancel

    async def main() -> None:
        async with connected() as (client, _):
            cancel = await client.perform(spawn("a", Wait()))
            await asyncio.sleep(0.01)
            cancel()
            await asyncio.sleep(0.01)
            (await client.perform(spawn("b", Wait())))()
            await asyncio.sleep(0.01)
            await client.perform(spawn("c", Wait()))
            await asyncio.sleep(0.01)
            await client.aclose()
            assert done[-1] == "c ends"
            await client.perform(spawn("d", Wait()))
            await asyncio.sleep(0.01)

    run(main)
    assert done == [
        *("a begins", "a goes on", "a ends"),
        *("b begins", "b ends"),
        *("c begins", "c goes on", "c ends"),
        *("d begins", "d ends"),
    ]


def test_what_is_closed_before_its_task_has_had_a_turn_is_closed() -> None:
    async def main() -> None:
        async with connected() as (client, it):
            forward = await client.forward_local((HOST, 0), (HOST, it.port))
            forward.close()
            await forward.aclose()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, forward.port)

    run(main)


def test_a_failure_in_the_background_is_told_to_the_loop() -> None:
    def fails() -> Operation[None]:
        yield Sleep(0.01)
        raise ZeroDivisionError

    def spawning() -> Operation[None]:
        yield Spawn(fails())

    async def main() -> None:
        async with connected() as (client, it):
            await client.perform(spawning())
            await until(lambda: it.told)
            assert isinstance(it.told.pop()["exception"], ZeroDivisionError)
            assert (await client.run("ok")).exit_status == 0

    run(main)


def test_a_failure_in_one_connection_of_a_server_leaves_the_others_alone() -> None:
    made: list[Incoming] = []

    def handler(incoming: Incoming, bugs: list[Exception]) -> Words:
        made.append(incoming)
        if len(made) == 2:
            raise KeyError("no handler")
        return Words(incoming, bugs)

    async def main() -> None:
        async with listening(make=handler) as it, connect(HOST, it.port, **LOGIN) as good:
            with pytest.raises(PeerDisconnected, match="internal error"):
                await connect(HOST, it.port, **LOGIN)
            assert (await good.run("ok")).exit_status == 0
            assert [type(context["exception"]) for context in it.told] == [KeyError]

    run(main)


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def raised(kind: type[Exception], function: Callable[[], Awaitable[None]]) -> Any:
    with pytest.raises(kind) as caught:
        run(function)
    return caught.value


async def attempt(server: ServerConfig | None = None, **changes: Any) -> None:
    async with listening(server) as it, connect(HOST, it.port, **{**LOGIN, **changes}):
        pass


def test_nobody_can_be_reached(unused_port: int) -> None:
    async def dial(host: str) -> None:
        await connect(host, unused_port, **LOGIN)

    error = raised(ConnectFailed, lambda: dial(HOST))
    assert HOST in str(error)
    assert isinstance(error.__cause__, OSError)
    assert "no-such-host.invalid" in str(raised(ConnectFailed, lambda: dial("no-such-host.invalid")))
    raised(ConnectFailed, lambda: dial("x" * 70 + ".example"))


def test_a_host_key_that_is_not_good() -> None:
    other = PrivateKey.generate("ssh-ed25519").public_key
    raised(HostKeyChanged, lambda: attempt(host_key=other))
    raised(HostKeyUnknown, lambda: attempt(host_key=parse("")))

    async def no(question: Any) -> bool:
        await asyncio.sleep(0)
        return False

    assert type(raised(ConnectionLoss, lambda: attempt(host_key=no))).__name__ == "HostKeyRejected"


def test_a_login_that_fails_tells_what_was_tried() -> None:
    key = PrivateKey.generate("ssh-ed25519")
    error = raised(AuthExhausted, lambda: attempt(keys=[key], password="wrong"))
    assert error.tried
    assert set(error.tried) <= {"publickey", "password", "keyboard-interactive"}
    assert error.methods


def test_no_common_algorithm() -> None:
    server = ServerConfig(host_keys=[HOST_KEY], preferences=Preferences(cipher=("aes128-ctr",)))
    client = ClientConfig(user="me", preferences=Preferences(cipher=("aes256-ctr",)))
    assert raised(Incompatible, lambda: attempt(server, config=client)).ours == ("aes256-ctr",)


@pytest.mark.parametrize("says", [None, b"", b"SSH-2.0-slow\r\n"])
def test_a_server_that_hangs_up_or_says_little(says: bytes | None) -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                if says is not None:
                    writer.write(says)
                    await reader.read()
                    while await reader.read(100):
                        pass
            finally:
                writer.close()
                gone.set()

        async with await asyncio.start_server(serve, HOST, 0) as server:
            try:
                await connect(HOST, server.sockets[0].getsockname()[1], timeout=0.2, **LOGIN)
            finally:
                await gone.wait()

    if says is None:
        assert raised(UnexpectedEof, main).where == "identification"
    else:
        error = raised(TimeoutExpired, main)
        assert isinstance(error, TimeoutError)
        assert error.seconds == 0.2


def test_arguments_that_do_not_go_together_are_refused_at_once() -> None:
    with pytest.raises(InvalidArgument):
        connect(HOST, **{**LOGIN, "user": None})


def test_a_command_takes_too_long_or_fails() -> None:
    async def main() -> None:
        async with connected() as (client, it):
            with pytest.raises(TimeoutExpired, match=r"the command took longer than 0\.1 seconds"):
                await client.run("stay", timeout=0.1)
            with pytest.raises(CommandFailed, match="status 3"):
                await client.run("fail", check=True)
            assert (await client.run("bug")).exit_status == 255
            assert [type(error) for error in it.bugs] == [ZeroDivisionError]

    run(main)


# -------------------------------------------------------------------------------------------------------------- closing


@pytest.mark.parametrize("linger", [None, 60.0])
def test_a_peer_that_takes_its_time_has_all_of_it(linger: float | None) -> None:
    """As much as was agreed, or without a bound; what was sent before the end comes before the end."""

    async def main() -> None:
        async with connected(config=ClientConfig(user="me", timeouts=Timeouts(linger=linger))) as (client, it):
            (incoming,) = it.server.connections
            near: Any = client._transport
            far: Any = incoming._transport
            near.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            far.pause_reading()
            for _ in range(200):
                client.conn.ignore(bytes(30_000))
            closing = asyncio.ensure_future(client.aclose("enough"))
            await asyncio.wait([closing], timeout=3 * LINGER)
            assert near.get_write_buffer_size()
            assert not closing.done()
            far.resume_reading()
            assert isinstance(await incoming.perform(incoming.hub.until_ended()), PeerDisconnected)
            await asyncio.wait_for(closing, 10)

    run(main)


@pytest.mark.parametrize("hard", [False, True])
def test_a_peer_that_takes_nothing_can_not_hold_up_the_end(*, hard: bool) -> None:
    async def main() -> None:
        linger = 30.0 if hard else 1.0
        config = ClientConfig(user="me", timeouts=Timeouts(linger=linger))
        async with connected(config=config) as (client, it):
            process = await client.start("cat")
            (incoming,) = it.server.connections
            transport: Any = incoming._transport
            transport.pause_reading()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await process.stdin.write(bytes(50_000_000))
            start = time.monotonic()
            if hard:
                client.abort()
            await client.aclose()
            assert time.monotonic() - start < 10
            with pytest.raises(ConnectionLoss):
                await client.run("ok")
            transport.abort()

    run(main)


def test_closing_a_server_ends_its_connections_and_what_runs_in_them() -> None:
    async def main() -> None:
        async with connected() as (client, it):
            serving = asyncio.create_task(it.server.serve_forever())
            process = await client.start("stay")
            await it.server.aclose("maintenance")
            with pytest.raises(PeerDisconnected, match="maintenance"):
                await process.wait()
            with pytest.raises(ConnectFailed):
                await connect(HOST, it.port, **LOGIN)
            with contextlib.suppress(asyncio.CancelledError):
                await serving

    run(main)


@pytest.mark.covers("V83")
def test_a_server_has_room_for_so_many() -> None:
    async def main() -> None:
        async with listening(max_connections=3, max_strangers=2) as it:
            strangers = [await asyncio.open_connection(HOST, it.port) for _ in range(2)]
            for reader, _ in strangers:
                assert await reader.read(4) == b"SSH-"
            with pytest.raises(ConnectionLoss):
                await connect(HOST, it.port, **LOGIN)
            strangers[0][1].close()
            await until(lambda: len(it.server.connections) == 1)
            async with connect(HOST, it.port, **LOGIN), connect(HOST, it.port, **LOGIN):
                assert len(it.server.connections) == 3
                with pytest.raises(ConnectionLoss):
                    await connect(HOST, it.port, **LOGIN)
            strangers[1][1].close()

    run(main)


def test_what_belongs_together_leaves_in_one_write() -> None:
    async def main() -> None:
        async with connected() as (client, listening):
            await client.run("first")
            (incoming,) = listening.server.connections
            writes = {"client": 0, "server": 0}

            class Counting:
                def __init__(self, side: str, transport: Any) -> None:
                    self._side = side
                    self._transport = transport

                def __getattr__(self, name: str) -> Any:
                    return getattr(self._transport, name)

                def write(self, data: bytes) -> None:
                    writes[self._side] += 1
                    self._transport.write(data)

            client._transport = Counting("client", client._transport)
            incoming._transport = Counting("server", incoming._transport)
            for _ in range(10):
                await client.run("fail")
            # The channel, what to run in it, and CLOSE with the next channel; its reply, and then all the rest.
            assert writes == {"client": 20, "server": 20}

    run(main)


def test_what_need_not_wait_takes_no_task() -> None:
    async def main() -> None:
        async with connected() as (client, listening):
            (incoming,) = listening.server.connections
            assert len(asyncio.all_tasks()) == 1
            process = await client.start("stay")
            assert len(asyncio.all_tasks()) == 2  # the handler's own
            await process.aclose()
            await until(lambda: not incoming.hub.channels)
            await until(lambda: len(asyncio.all_tasks()) == 1)

    run(main)


def test_a_job_that_ends_while_its_caller_is_cancelled() -> None:
    done: list[str] = []

    def wait(until: Wait) -> Operation[None]:
        try:
            yield until
            done.append("went on")
        finally:
            done.append("ended")

    async def main() -> None:
        async with connected() as (client, _):
            for late in (False, True):
                until = Wait()
                task = asyncio.create_task(client.complete(wait(until)))
                await asyncio.sleep(0)
                if late:  # it has its result, and is cancelled before it has a turn
                    until.fire()
                    client.turn()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                until.fire()
                await asyncio.sleep(0)

    run(main)
    assert done == ["ended", "went on", "ended"]


def test_one_that_came_to_an_asynchronous_function_while_its_caller_is_cancelled() -> None:
    made: list[Any] = []

    async def function() -> None:
        await asyncio.sleep(0)

    def make() -> Any:
        made.append(function())
        return made[-1]

    def wait(until: Wait) -> Operation[None]:
        yield until
        yield Call(make)

    async def main() -> None:
        async with connected() as (client, _):
            until = Wait()
            task = asyncio.create_task(client.complete(wait(until)))
            await asyncio.sleep(0)
            until.fire()
            client.turn()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED

    run(main)


@pytest.mark.parametrize("event", [None, ConnectionLost])
def test_who_looks_at_events_and_fails_keeps_nobody_waiting(event: Any) -> None:
    def look(seen: Any) -> None:
        if event is None or isinstance(seen, event):
            raise ZeroDivisionError

    async def main() -> None:
        async with listening() as it:
            with pytest.raises(ConnectionLoss):
                async with asyncio.timeout(10), connect(HOST, it.port, on_event=look, **LOGIN) as client:
                    running = asyncio.create_task(client.run("stay"))
                    await until(lambda: client.hub.channels)
                    client.abort()
                    await running
            assert {type(context["exception"]) for context in it.told} == {ZeroDivisionError}

    run(main)


def test_commands_leave_nothing_to_the_garbage_collector() -> None:
    async def main() -> None:
        async with connected() as (client, listening):
            (incoming,) = listening.server.connections
            for _ in range(3):
                await client.run("first")
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    await client.run("second")
                await until(lambda: not client.hub.channels and not incoming.hub.channels)
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
            finally:
                gc.set_debug(0)
                gc.enable()
            kinds = {type(one) for one in gc.garbage}
            gc.garbage.clear()
            assert not [kind for kind in kinds if kind.__module__.startswith("sshproto")]

    run(main)


def test_small_packets_leave_at_once() -> None:
    async def main() -> None:
        async with connected() as (client, it):
            (incoming,) = it.server.connections
            assert incoming.peer[0] == HOST
            for peer in (client, incoming):
                transport: Any = peer._transport
                sock = transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(main)


# ------------------------------------------------------------------------------------------------------------- warnings

SCRIPT = """
import asyncio, contextlib
from sshproto.config import ServerConfig
from sshproto.keys.private import PrivateKey
from sshproto_io.asyncio import Handler, connect, listen

KEY = PrivateKey.generate("ssh-ed25519")

class Cat(Handler):
    def public_key(self, user, key):
        return key == KEY.public_key
    async def session(self, session):
        while data := await session.stdin.read(10_000):
            await session.stdout.write(data)
    def allow_connect(self, target, origin):
        return True
    def allow_listen(self, address):
        return True

@contextlib.asynccontextmanager
async def closing(writers):
    try:
        yield
    finally:
        for writer in writers:
            writer.close()

async def main():
    asyncio.get_running_loop().slow_callback_duration = 30
    options = {"user": "me", "host_key": KEY.public_key, "keys": [KEY]}
    async with listen("127.0.0.1", 0, ServerConfig(host_keys=[KEY]), lambda incoming: Cat()) as server:
        for way in range(4):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None) as limit, connect("127.0.0.1", server.port, **options) as client:
                    assert (await client.run("cat", input=bytes(100_000))).stdout == bytes(100_000)
                    process = await client.start("cat")
                    await process.stdin.write(b"a\\nb\\n")
                    async for line in process.stdout.lines():
                        break
                    forward = await client.forward_local(("127.0.0.1", 0), ("127.0.0.1", server.port))
                    remote = await client.forward_remote(("127.0.0.1", 0), ("127.0.0.1", server.port))
                    writers = [
                        (await asyncio.open_connection("127.0.0.1", port))[1] for port in (forward.port, remote.port)
                    ]
                    async with client.jump("127.0.0.1", server.port, **options) as inner, closing(writers):
                        assert await inner.run("cat")
                        if way == 1:
                            limit.reschedule(0)
                            await inner.run("cat")
                        if way == 2:
                            client.abort()
                    if way == 3:
                        forward.close()
                        remote.close()

asyncio.run(main())
print("done")
"""


@pytest.mark.parametrize("options", [("-X", "dev"), ("-O",)])
def test_without_a_warning(options: tuple[str, ...]) -> None:
    """However it ends, nothing is left: no socket, no task, no transport."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "adapters")))
    done = subprocess.run(
        [sys.executable, *options, "-W", "error", "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
