"""The Trio face: its streams are Trio's, its nurseries behave, cancelling does no harm. Both ends are ours.

Where it does not matter what is underneath, connections go over memory streams, and time is Trio's mock clock.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.lowlevel import checkpoint, checkpoint_if_cancelled
from trio.testing import MockClock, check_half_closeable_stream, memory_stream_pair, wait_all_tasks_blocked

from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig, Timeouts
from sshproto.errors import (
    AuthExhausted,
    ChannelEnded,
    ConnectionLoss,
    HostKeyChanged,
    HostKeyUnknown,
    Incompatible,
    InvalidArgument,
    OpenRefused,
    PeerDisconnected,
    TimedOut,
    UnexpectedEof,
)
from sshproto.events import DataReceived
from sshproto.keys.known_hosts import parse
from sshproto.keys.private import PrivateKey
from sshproto.operations.steps import Call, Operation, Ready, Sleep, Spawn, Together, Wait
from sshproto_io import LINGER, CommandFailed, ConnectFailed, TimeoutExpired
from sshproto_io.trio import Client, Handler, Incoming, Server, ServerSession, Stream, connect, listen

pytestmark = pytest.mark.timeout(60)

HOST = "127.0.0.1"
HOST_KEY = PrivateKey.generate("ssh-ed25519")
USER_KEY = PrivateKey.generate("ssh-ed25519")
LOGIN: dict[str, Any] = {"user": "me", "host_key": HOST_KEY.public_key, "keys": [USER_KEY]}
WINDOW = Limits(window=64 * 1024)
NEVER = Timeouts(handshake=None, auth=None, kex=None, rekey=None)
ROOT = Path(__file__).resolve().parents[2]


def run(function: Callable[..., Awaitable[None]], *args: Any, clock: MockClock | None = None) -> None:
    """``trio.run``, and what hangs is told where."""

    async def bounded() -> None:
        with trio.fail_after(40 if clock is None else 10_000):
            await function(*args)

    trio.run(bounded, clock=clock)


class Words(Handler):
    """A server whose commands are words, and that hands the channels to ``("me", 1)`` to the test."""

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self.bugs: list[Exception] = []
        self.put, self.taken = trio.open_memory_channel[Stream](math.inf)

    def public_key(self, user: str, key: Any) -> bool:
        return key == USER_KEY.public_key

    async def session(self, session: ServerSession) -> int:
        match session.command:
            case b"cat":
                async for data in session.stdin:
                    await session.stdout.send_all(data)
            case b"pour":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pour, session.stdout)
                    nursery.start_soon(pour, session.stderr)
            case b"stay":
                await trio.sleep_forever()
            case b"lines":
                await session.stdout.write(b"".join(b"%d\n" % number for number in range(1000)))
            case b"fail":
                return 3
            case b"bug":
                raise ZeroDivisionError
            case _:
                await session.stdout.write(b"done\n")
        return 0

    def allow_connect(self, target: Any, origin: Any) -> Any:
        return self.take if target == ("me", 1) else target[0] == HOST

    def allow_listen(self, address: Any) -> bool:
        return True

    async def take(self, stream: Stream) -> None:
        self.put.send_nowait(stream)
        await trio.sleep_forever()

    def bug(self, error: Exception) -> None:
        self.bugs.append(error)


async def pour(stream: trio.abc.SendStream) -> None:
    while True:
        await stream.send_all(bytes(100_000))


class Pair:
    """A client and a server over memory streams."""

    def __init__(self, window: int = WINDOW.window, **options: Any) -> None:
        self.config = ServerConfig(host_keys=[HOST_KEY], limits=Limits(window=window), timeouts=NEVER)
        self.handlers: list[Words] = []
        self.bugs: list[Exception] = []
        self.options = {**LOGIN, "config": ClientConfig(user="me", limits=WINDOW, timeouts=NEVER), **options}
        self.server = Server(self.config, self._handler, 512, 64, self.bugs.append, [])
        self.client: Client

    def _handler(self, incoming: Incoming) -> Words:
        self.handlers.append(Words(incoming))
        return self.handlers[-1]

    @property
    def handler(self) -> Words:
        return self.handlers[0]

    async def streams(self) -> tuple[Stream, Stream]:
        """Both ends of a channel."""
        return await self.client.open_tcp("me", 1), await self.handler.taken.receive()

    async def settle(self) -> None:
        """See that nothing is left of what has been."""
        await wait_all_tasks_blocked()
        assert self.client.conn.channels == ()
        assert self.client.hub.channels == {}
        for connection in self.server.connections:
            assert connection.conn.channels == ()
            assert connection.hub.channels == {}
        assert not self.handler.bugs
        assert not self.bugs


@contextlib.asynccontextmanager
async def connected(
    wrap: Callable[[trio.abc.Stream], trio.abc.Stream] = lambda stream: stream,
    *,
    pair: Pair | None = None,
    **options: Any,
) -> AsyncIterator[Pair]:
    pair = pair or Pair(**options)
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.server.serve, theirs)
        async with connect("memory", stream=wrap(ours), **pair.options) as pair.client:
            yield pair
            await pair.settle()  # not reached after an error


@contextlib.asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[Server]:
    config = options.pop("config", ServerConfig(host_keys=[HOST_KEY], limits=Limits(sessions=200)))
    async with listen(HOST, 0, config, options.pop("handler", Words), **options) as server:
        yield server


class Wrapped(trio.abc.HalfCloseableStream):
    """A stream that can be hindered."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.deaf = False
        self.blocked: trio.Event | None = None
        self.longest = 0
        self.received = 0
        self.busy = False

    async def send_all(self, data: Any) -> None:
        assert not self.busy
        self.busy = True
        self.longest = max(self.longest, len(data))
        try:
            if self.blocked is not None:
                await self.blocked.wait()
            await self.inner.send_all(data)
        finally:
            self.busy = False

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data: bytes = await self.inner.receive_some(max_bytes)
        self.received += len(data)
        if self.deaf:
            await trio.sleep_forever()
        return data

    async def send_eof(self) -> None:
        if self.blocked is not None:
            await self.blocked.wait()
        await self.inner.send_eof()

    def unblock(self) -> None:
        assert self.blocked is not None
        self.blocked.set()
        self.blocked = None

    async def aclose(self) -> None:
        await self.inner.aclose()


# -------------------------------------------------------------------------------------------------------------- streams


@pytest.mark.skipif(not __debug__, reason="what checks, Trio, does it in assert statements")
def test_a_channel_is_a_half_closeable_stream_of_trios() -> None:
    async def main() -> None:
        async with connected() as pair:

            async def clogged() -> tuple[Stream, Stream]:
                both = await pair.streams()
                for stream in both:
                    channel = stream.channel
                    conn = channel.hub.conn
                    while count := conn.sendable(channel.number):
                        conn.send(channel.number, bytes(count))
                await pair.client.run("all has left now")
                return both

            await check_half_closeable_stream(pair.streams, clogged)

    run(main)


def test_streams_of_a_process_are_trios() -> None:
    async def main() -> None:
        async with connected() as pair, pair.client.start("cat") as process:
            assert isinstance(process.stdin, trio.abc.SendStream)
            assert isinstance(process.stdout, trio.abc.ReceiveStream)
            assert isinstance(process.stderr, trio.abc.ReceiveStream)
            await process.stdin.wait_send_all_might_not_block()
            async with process.stdin as stdin:
                await stdin.send_all(b"a\nb")
            with pytest.raises(trio.ClosedResourceError):
                await process.stdin.send_all(b"c")
            with pytest.raises(trio.ClosedResourceError):
                await process.stdin.send_eof()
            assert b"".join([piece async for piece in process.stdout]) == b"a\nb"
            assert await process.wait() == 0
            await process.stderr.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await process.stderr.receive_some()

    run(main)


def test_the_end_of_what_is_closed_leaves_at_once() -> None:
    async def main() -> None:
        async with connected() as pair, pair.client.start("cat") as process:
            await process.stdin.aclose()
            await trio.sleep(1)
            assert process.exit_status == 0

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_lines_and_stopping_in_the_midst_of_them() -> None:
    async def main() -> None:
        async with connected() as pair, pair.client.start("lines") as process:
            async for line in process.stdout.lines():
                if line == b"3\n":
                    break
            assert await process.stdout.read_line() == b"4\n"
            assert await process.stdout.read_exactly(4) == b"5\n6\n"
            assert len([line async for line in process.stdout.lines()]) == 993
        async with connected() as pair, pair.client.start("lines") as process:
            lines = [line async for line in process.stdout.lines(3)]
            assert lines[:11] == [*(b"%d\n" % number for number in range(11))]
            assert lines[100:104] == [b"100", b"\n", b"101", b"\n"]

    run(main)


def test_a_peer_that_is_gone_breaks_the_stream_and_the_reason_is_chained() -> None:
    async def main() -> None:
        async with connected() as pair:
            ours, theirs = await pair.streams()
            await theirs.aclose()
            assert await ours.receive_some() == b""
            with pytest.raises(trio.BrokenResourceError) as caught:
                await ours.send_all(b"x")
            assert isinstance(caught.value.__cause__, ChannelEnded)
            with pytest.raises(ChannelEnded):
                await ours.write(b"x")
            ours, theirs = await pair.streams()
            await pair.handler.incoming.aclose("enough")
            with pytest.raises(trio.BrokenResourceError) as caught:
                await ours.receive_some()
            assert isinstance(caught.value.__cause__, PeerDisconnected)
            with pytest.raises(PeerDisconnected, match="enough"):
                await ours.read()
            with pytest.raises(trio.BrokenResourceError):
                await ours.send_eof()
            assert isinstance(await pair.client.until_ended(), PeerDisconnected)

    run(main)


def test_a_handler_whose_client_goes_has_no_bug() -> None:
    """It gets Trio's errors, maybe from several tasks at once; that is no bug of its own."""

    async def main() -> None:
        async with connected() as pair:
            for _ in range(20):
                async with pair.client.start("pour") as process:
                    await process.stderr.aclose()
                    await process.stdout.receive_some()
            await pair.settle()
            await pair.client.start("pour")
            await wait_all_tasks_blocked()
            await pair.client.aclose()
        assert not pair.handler.bugs

    run(main)


def test_every_call_is_a_checkpoint_even_if_it_need_not_wait() -> None:
    async def main() -> None:
        async with connected() as pair:
            async with pair.client.start("lines") as process:
                await process.wait()
                await wait_all_tasks_blocked()
                for call in (
                    process.wait,
                    lambda: process.stdout.receive_some(1),
                    lambda: process.stdout.read(1),
                    process.stdout.read_line,
                    lambda: process.stdout.lines().__anext__(),
                    process.stdin.aclose,
                    process.stdin.aclose,
                    process.stderr.aclose,
                    process.aclose,
                    process.aclose,
                ):
                    with trio.testing.assert_checkpoints():
                        await call()
            stream = await pair.client.open_tcp("me", 1)
            with trio.testing.assert_checkpoints():
                await stream.send_all(b"x")
            with trio.testing.assert_checkpoints():
                await stream.send_eof()
            with trio.testing.assert_checkpoints():
                await stream.aclose()

    run(main)


# ----------------------------------------------------------------------------------------------------------- cancelling


async def after(turns: int, scope: trio.CancelScope) -> None:
    for _ in range(turns):
        await checkpoint()
    scope.cancel()


CALLS: dict[str, Callable[[Pair], Awaitable[object]]] = {
    "run": lambda pair: pair.client.run("cat", input=bytes(300_000)),
    "start": lambda pair: used(pair.client.start("cat")),
    "subsystem": lambda pair: used(pair.client.subsystem("stay")),
    "open": lambda pair: used(pair.client.open_tcp("me", 1)),
    "refused": lambda pair: used(pair.client.open_tcp("elsewhere", 1)),
    "forward_local": lambda pair: used(pair.client.forward_local((HOST, 0), ("me", 1))),
    "forward_remote": lambda pair: used(pair.client.forward_remote((HOST, 0), (HOST, 1))),
    "rekey": lambda pair: pair.client.rekey(),
    "lines": lambda pair: pair.client.perform(Reading(pair).run()),
}


async def used(opening: Any) -> None:
    with contextlib.suppress(OpenRefused):
        async with opening:
            await checkpoint()


class Reading:
    """An operation with all kinds of steps."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def run(self) -> Operation[None]:
        from sshproto.operations import session

        never = Wait()
        yield Together(self.sleep(), session.run(self.pair.client.hub, "lines"), self.sleep())
        cancel = yield Spawn(self.forever(never))
        yield Call(checkpoint)
        cancel()

    def sleep(self) -> Operation[None]:
        yield Sleep(0.001)

    def forever(self, never: Wait) -> Operation[None]:
        yield never


@pytest.mark.parametrize("name", CALLS)
def test_cancelled_anywhere_it_leaves_nothing_behind(name: str) -> None:
    async def main() -> None:
        async with connected() as pair:
            for turns in (*range(40), *range(40, 200, 13)):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(after, turns, scope)
                        await CALLS[name](pair)
                        nursery.cancel_scope.cancel()
                assert (await pair.client.run("ok")).stdout == b"done\n"
                while True:
                    try:
                        pair.handler.taken.receive_nowait()
                    except trio.WouldBlock:
                        break
                await pair.settle()

    run(main)


def test_cancelled_while_blocked_it_leaves_nothing_behind() -> None:
    """Every wait that lasts, ended by a cancel scope."""

    async def main() -> None:
        async with connected() as pair:
            for command in ("stay", "cat"):
                async with pair.client.start(command) as process:
                    for call in (
                        process.wait,
                        process.stdout.receive_some,
                        process.stdout.read,
                        process.stderr.read_line,
                        lambda: process.stdout.lines().__anext__(),
                        lambda: process.stdin.send_all(bytes(1_000_000)),
                        process.stdin.wait_send_all_might_not_block,
                        lambda: process.stdin.write(b"x"),
                    ):
                        if command == "cat" and call == process.stdin.wait_send_all_might_not_block:
                            continue
                        with trio.move_on_after(1) as scope:
                            await call()
                        assert scope.cancelled_caught
                    channel = process.channel
                    for stream in (0, 1):
                        assert not channel.inbox(stream).arrived.wanted
                    assert not channel.writable.wanted
                    assert not channel.changed.wanted
            await pair.settle()

    run(main, clock=MockClock(autojump_threshold=0.001))


# ----------------------------------------------------------------------------------------------------------- operations


def test_a_descriptor_is_waited_for_until_something_else_happens() -> None:
    def wait(descriptor: int, until: Wait | None = None, *, writing: bool = False) -> Operation[str]:
        yield Ready(descriptor, writing, until)
        return "ready"

    def fire(until: Wait) -> Operation[None]:
        yield Sleep(0.01)
        until.fire()

    async def main() -> None:
        left, right = socket.socketpair()
        with left, right, Path(os.devnull).open("rb") as null, Path(__file__).open("rb") as regular:  # noqa: ASYNC230
            async with connected() as pair:
                client = pair.client
                assert await client.perform(wait(left.fileno(), writing=True)) == "ready"
                until = Wait()
                await client.perform(both(wait(left.fileno(), until), fire(until)))
                await client.perform(both(wait(left.fileno()), wait(right.fileno(), writing=True), send(right)))
                with trio.testing.assert_checkpoints():
                    assert await client.perform(wait(regular.fileno())) == "ready"
                await client.perform(wait(null.fileno()))
                with pytest.raises(OSError, match="Bad file"):
                    await client.perform(wait(10_000))

    def send(sock: socket.socket) -> Operation[None]:
        yield Sleep(0)
        sock.send(b"x")

    def both(*operations: Operation[Any]) -> Operation[Any]:
        return (yield Together(*operations))

    run(main)


def test_of_several_operations_the_first_error_counts_and_comes_alone() -> None:
    ends: list[str] = []

    def fail(error: Exception, name: str, *, late: bool = False) -> Operation[None]:
        try:
            yield Sleep(math.inf if late else 0.01)
        except GeneratorExit:
            ends.append(name)
            raise
        raise error

    def all_of(*operations: Operation[Any]) -> Operation[str]:
        try:
            yield Together(*operations)
        except ZeroDivisionError:
            return "caught"
        return "none"

    def calling(function: Callable[[], object], *operations: Operation[Any]) -> Operation[None]:
        yield Call(function)
        yield Together(*operations)

    async def main() -> None:
        async with connected() as pair:
            job = all_of(fail(ZeroDivisionError(), "a"), fail(KeyError(), "b", late=True), all_of())
            assert await pair.client.perform(job) == "caught"
            assert ends == ["b"]
            with pytest.raises(KeyError):
                await pair.client.perform(all_of(all_of(fail(KeyError(), "c"))))
            with trio.move_on_after(0.1) as scope:
                await pair.client.perform(all_of(fail(KeyError(), "d", late=True), fail(KeyError(), "e", late=True)))
            assert scope.cancelled_caught
            assert sorted(ends) == ["b", "d", "e"]
            with trio.CancelScope() as scope:
                await pair.client.perform(calling(scope.cancel, fail(KeyError(), "f"), fail(KeyError(), "g")))
            assert sorted(ends) == ["b", "d", "e", "f", "g"]  # they began all the same, and could clean up

    run(main, clock=MockClock(autojump_threshold=0.001))


def test_what_a_function_of_ours_meets_beside_being_cancelled_is_told_alone() -> None:
    met: list[BaseException] = []

    async def messy() -> None:
        async with trio.open_nursery() as nursery:
            for error in (ZeroDivisionError(), None):
                nursery.start_soon(late, error)

    async def late(error: Exception | None) -> None:
        try:
            await trio.sleep_forever()
        finally:
            if error is not None:
                raise error

    def calling() -> Operation[None]:
        try:
            yield Call(messy)
        except BaseException as error:
            met.append(error)
            raise

    async def main() -> None:
        async with connected() as pair:
            with trio.move_on_after(0.1):
                with pytest.raises(ExceptionGroup) as caught:
                    await pair.client.perform(calling())
                assert caught.group_contains(ZeroDivisionError)
                assert not caught.group_contains(trio.Cancelled)
            assert met == [caught.value]

    run(main, clock=MockClock(autojump_threshold=0.001))


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
        done.append("spawned")
        wait.fire()  # nobody has had a turn in between, and yet it is not missed
        return cancel

    async def main() -> None:
        async with connected() as pair:
            cancel = await pair.client.perform(spawn("a", Wait()))
            await wait_all_tasks_blocked()
            cancel()
            await wait_all_tasks_blocked()
            (await pair.client.perform(spawn("b", Wait())))()
            await wait_all_tasks_blocked()
            await pair.client.perform(spawn("c", Wait()))
            await wait_all_tasks_blocked()
            await pair.client.aclose()
            await wait_all_tasks_blocked()
            assert done[-1] == "c ends"
            await pair.client.perform(spawn("d", Wait()))

    run(main)
    assert done == [
        *("a begins", "spawned", "a goes on", "a ends"),
        *("b begins", "spawned", "b goes on", "b ends"),
        *("c begins", "spawned", "c goes on", "c ends"),
        *("d begins", "d ends", "spawned"),
    ]


# What an operation of the background may do: its function, and then itself.
KINDS = [
    (),
    ("wait",),
    ("fail",),
    ("wait", "fail"),
    ("cancelled",),  # before it begins
    ("cancelled", "wait"),
    ("cancel",),
    ("cancel", "wait"),
    ("wait", "cancel", "wait"),
    ("later",),
    ("fail", "later"),
    ("cancel", "later"),
    ("again",),
    ("wait", "again"),
    ("later", "again"),
]
NAMES: contextvars.ContextVar[str] = contextvars.ContextVar("NAMES", default="nobody")


async def together(kinds: list[tuple[str, ...]]) -> list[list[str]]:
    """Begin as many operations of the background in one turn, and tell what each has met."""
    told: list[list[str]] = [[] for _ in kinds]
    cancels: dict[int, Callable[[], object]] = {}

    async def again(say: Callable[[str], None]) -> None:
        say(f"again after {NAMES.get()}")
        await checkpoint()

    async def function(number: int, does: tuple[str, ...]) -> None:
        say = told[number].append
        try:
            say(f"after {NAMES.get()}")
            NAMES.set(str(number))
            for word in does:
                match word:
                    case "cancel":
                        cancels[number]()
                    case "cancel the first":
                        cancels[0]()
                    case "wait":
                        await checkpoint()
                    case "fail":
                        raise ZeroDivisionError
            say("me" if NAMES.get() == str(number) else NAMES.get())
        except trio.Cancelled:
            say("cancelled")
            raise

    def operation(number: int, does: tuple[str, ...]) -> Operation[None]:
        say = told[number].append
        try:
            try:
                yield Call(function, number, does)
            except ZeroDivisionError:
                say("failed")
            if "later" in does:
                yield Sleep(0.001)
            if "again" in does:
                yield Call(again, say)
            say("done")
        finally:
            say("over")

    def all_of_them() -> Operation[None]:
        for number, does in enumerate(kinds):
            cancels[number] = yield Spawn(operation(number, does))
            if "cancelled" in does:
                cancels[number]()

    async with connected() as pair:
        await pair.client.perform(all_of_them())
        await wait_all_tasks_blocked(0.01)
        assert not pair.client._adopted
        assert not pair.client._awake
        for cancel in cancels.values():  # they are over, and so it does nothing
            cancel()
        assert (await pair.client.run("ok")).stdout == b"done\n"
    return told


@given(st.lists(st.sampled_from(KINDS), min_size=2, max_size=8))
@settings(max_examples=60, deadline=None)
def test_operations_of_the_background_share_a_task_and_nothing_else(kinds: list[tuple[str, ...]]) -> None:
    """What each of several meets that begin at once is what it meets alone."""

    async def main() -> None:
        assert await together(kinds) == [
            [word.replace("0", str(number)) for word in (await together([kind]))[0]]
            for number, kind in enumerate(kinds)
        ]

    run(main)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ((), ["after nobody", "me", "done", "over"]),
        (("wait", "fail"), ["after nobody", "failed", "done", "over"]),
        (("cancel",), ["after nobody", "me", "done", "over"]),
        (("cancel", "wait"), ["after nobody", "cancelled", "over"]),
        (("cancel", "later"), ["after nobody", "me", "over"]),
        (("cancelled", "wait"), ["after nobody", "cancelled", "over"]),
    ],
)
def test_what_an_operation_of_the_background_meets(kind: tuple[str, ...], expected: list[str]) -> None:
    async def main() -> None:
        assert await together([kind]) == [expected]

    run(main)


def test_each_operation_of_the_background_has_the_context_of_who_began_it() -> None:
    seen: list[tuple[str, str]] = []

    async def note(name: str, *, waits: bool) -> None:
        if waits:
            await checkpoint()
        seen.append((name, NAMES.get()))

    def operation(name: str, *, waits: bool) -> Operation[None]:
        yield Call(functools.partial(note, name, waits=waits))

    async def begin(client: Client, name: str, *, waits: bool) -> None:
        NAMES.set(name)
        client.spawn(operation(name, waits=waits))

    async def main() -> None:
        async with connected() as pair:
            async with trio.open_nursery() as nursery:
                for number in range(9):
                    nursery.start_soon(functools.partial(begin, pair.client, str(number), waits=number in {2, 5}))
            await wait_all_tasks_blocked()
        assert sorted(seen) == [(str(number), str(number)) for number in range(9)]

    run(main)


def test_who_is_about_to_wait_is_not_woken_before_trio_knows() -> None:
    """Sending makes room, and so would wake a writer that has just begun to wait for some."""
    limits = Limits(window=8 << 20)
    amount = limits.output_high + (limits.output_high >> 1)

    class Large(Words):
        async def session(self, session: ServerSession) -> int:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                if session.command == b"large":
                    await session.stdout.write(bytes(amount))
                nursery.cancel_scope.cancel()
            return 0

    async def one(client: Client, command: str) -> None:
        assert len((await client.run(command)).stdout) == (amount if command == "large" else 0)

    async def main() -> None:
        config = ServerConfig(host_keys=[HOST_KEY], limits=limits)
        login = {**LOGIN, "config": ClientConfig(user="me", limits=limits)}
        async with listening(handler=Large, config=config) as server, connect(HOST, server.port, **login) as client:
            for _ in range(3):
                async with trio.open_nursery() as nursery:
                    for command in ("small", "large", "large", "small"):
                        nursery.start_soon(one, client, command)

    run(main)


def test_the_end_is_told_whoever_else_is_woken_with_who_brings_it() -> None:
    """A stream's reader and an operation that disconnects, woken by the same data, in either order."""

    async def main() -> None:
        def leaves() -> Operation[None]:
            yield ours.channel.inbox(0).arrived
            pair.client.conn.disconnect("enough")
            yield pair.client.hub.ended
            told.append("told")

        made, wrap = hindered()
        told: list[str] = []
        async with over_sockets(Pair(), wrap) as pair:
            ours, theirs = await pair.streams()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.client.perform, leaves())
                await wait_all_tasks_blocked()
                nursery.start_soon(ours.receive_some, 10)
                await wait_all_tasks_blocked()
                made[0].deaf = True
                await theirs.send_all(b"data")
                await wait_all_tasks_blocked(0.01)
                assert told == ["told"]

    for _ in range(6):  # Trio has them go on in any order
        run(main)


def test_what_is_cancelled_at_the_end_wakes_who_waits_for_it() -> None:
    async def main() -> None:
        def lasting() -> Operation[None]:
            try:
                yield Call(trio.sleep_forever)
            finally:
                ended.append(True)
                wait.fire()

        def until_ended() -> Operation[str]:
            while not ended:
                yield wait
            return "told"

        def idle() -> Operation[None]:
            yield Wait()

        async def ask() -> None:
            assert await client.complete(until_ended()) == "told"

        wait = Wait()
        ended: list[bool] = []
        async with listening() as server, connect(HOST, server.port, **LOGIN) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(client.run, "ok")  # so many that the writer is needed
            client.spawn(lasting())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await wait_all_tasks_blocked(0.01)
                assert client._writer is not None
                client.spawn(idle())()  # which is due now
                client.abort()

    for _ in range(6):
        run(main)


@pytest.mark.parametrize(
    "steps", [[Call(trio.sleep_forever)], [Call(checkpoint_if_cancelled), Wait()], [Sleep(math.inf)]]
)
def test_nobody_waits_for_who_would_share_its_task(steps: list[Any]) -> None:
    def first() -> Operation[None]:
        yield from steps

    def second() -> Operation[None]:
        yield Call(checkpoint_if_cancelled)
        begun.set()

    def both() -> Operation[None]:
        yield Spawn(first())
        yield Spawn(second())

    async def main() -> None:
        nonlocal begun
        begun = trio.Event()
        async with connected() as pair:
            await pair.client.perform(both())
            await begun.wait()

    begun: Any = None
    run(main)


def test_who_is_over_is_not_cancelled_with_who_shares_its_task() -> None:
    async def main() -> None:
        told = await together([(), ("cancel the first", "wait")])
        assert told[1] == ["after nobody", "me", "done", "over"]

    run(main)


def test_sessions_that_do_not_wait_share_a_task() -> None:
    tasks: list[trio.lowlevel.Task] = []

    class Silent(Words):
        async def session(self, session: ServerSession) -> int:
            if session.command != b"true":
                return await super().session(session)
            tasks.append(trio.lowlevel.current_task())
            return 0

    async def some(client: Client, *others: str) -> None:
        tasks.clear()
        async with trio.open_nursery() as nursery:
            for other in others:
                nursery.start_soon(client.run, other)
            async with trio.open_nursery() as inner:
                for _ in range(40):
                    inner.start_soon(client.run, "true")
            nursery.cancel_scope.cancel()
        assert len(tasks) == 40

    async def main() -> None:
        async with listening(handler=Silent) as server, connect(HOST, server.port, **LOGIN) as client:
            await some(client)
            assert len(set(tasks)) < 20  # they come in a few pieces
            await some(client, "stay", "word", "stay")  # and whoever comes after those does not wait for them

    run(main)


# ------------------------------------------------------------------------------------------------------------ nurseries


def test_errors_of_the_body_come_out_alone() -> None:
    async def main(error: BaseException) -> None:
        async with listening() as server, connect(HOST, server.port, **LOGIN):
            raise error

    for error in (ValueError("v"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as caught:
            run(main, error)
        assert caught.value is error
    with pytest.raises(ExceptionGroup, match="mine") as group:  # a copy, as from every nursery
        run(main, ExceptionGroup("mine", [ValueError()]))
    assert [type(error) for error in group.value.exceptions] == [ValueError]


def test_being_cancelled_closes_both_in_good_order() -> None:
    ends: list[Any] = []

    class Watching(Words):
        def __init__(self, incoming: Incoming) -> None:
            super().__init__(incoming)
            ends.append(incoming)

    async def main() -> None:
        with trio.move_on_after(0.2) as scope:
            async with listening(handler=Watching) as server, connect(HOST, server.port, **LOGIN) as client:
                ends.append(client)
                await client.run("stay")
        assert scope.cancelled_caught
        # Each has said good bye, and the one who heard it first has heard it.
        losses = [type(peer.conn.error).__name__ for peer in ends]
        assert set(losses) <= {"LocalClose", "PeerDisconnected"}

    run(main)


def test_a_failure_in_the_background_comes_out_of_the_nursery() -> None:
    def fails() -> Operation[None]:
        yield Sleep(0.01)
        raise ZeroDivisionError

    def spawning() -> Operation[None]:
        yield Spawn(fails())

    async def main() -> None:
        async with listening() as server:
            with pytest.raises(ZeroDivisionError):
                async with connect(HOST, server.port, **LOGIN) as client:
                    await client.perform(spawning())
                    await trio.sleep_forever()
            async with connect(HOST, server.port, **LOGIN) as client:
                assert (await client.run("ok")).exit_status == 0

    run(main)


def test_a_failure_in_one_connection_of_a_server_leaves_the_others_alone() -> None:
    bugs: list[Exception] = []
    made: list[Incoming] = []

    def fails(*, at_once: bool) -> Operation[None]:
        if not at_once:
            yield Sleep(0.01)
        raise ZeroDivisionError

    def spawning(*, at_once: bool) -> Operation[None]:
        yield Spawn(fails(at_once=at_once))

    def handler(incoming: Incoming) -> Words:
        made.append(incoming)
        if len(made) == 4:
            raise KeyError("no handler")
        return Words(incoming)

    async def main() -> None:
        async with listening(handler=handler, on_bug=bugs.append) as server:  # noqa: SIM117
            async with connect(HOST, server.port, **LOGIN) as good:
                for at_once in (False, True):
                    async with connect(HOST, server.port, **LOGIN) as bad:
                        await made[-1].perform(spawning(at_once=at_once))
                        loss = await bad.until_ended()
                        assert isinstance(loss, PeerDisconnected)
                        assert loss.description == "internal error"
                with pytest.raises(PeerDisconnected, match="internal error"):
                    async with connect(HOST, server.port, **LOGIN):
                        pass
                assert (await good.run("ok")).exit_status == 0
                await wait_all_tasks_blocked(0.01)
                assert len(server.connections) == 1

    run(main)
    assert [type(error) for error in bugs] == [ZeroDivisionError, ZeroDivisionError, KeyError]


def test_a_connection_that_can_not_even_be_made_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bugs: list[Exception] = []

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with listening(on_bug=bugs.append) as server, connect(HOST, server.port, **LOGIN) as good:
            with monkeypatch.context() as patch:
                patch.setattr("sshproto_io._trio_server.ServerConnection", broken)
                here, there = memory_stream_pair()
                await server.serve(there)
                assert await here.receive_some() == b""
                with pytest.raises(ConnectionLoss):
                    async with connect(HOST, server.port, **LOGIN):
                        pass
            assert (await good.run("ok")).exit_status == 0

    run(main)
    assert [type(error) for error in bugs] == [ZeroDivisionError] * 2


def test_unless_there_is_somebody_to_tell_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def handler(incoming: Incoming) -> Words:
        raise KeyError("no handler")

    async def main() -> None:
        async with listening(handler=handler) as server:
            with pytest.raises(ConnectionLoss):
                async with connect(HOST, server.port, **LOGIN):
                    pass

    with caplog.at_level(logging.ERROR):
        run(main)
    (record,) = caplog.records
    assert record.name == "sshproto_io.trio"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


# --------------------------------------------------------------------------------------------------------------- errors


def raised(kind: type[Exception], function: Callable[[], Awaitable[None]], clock: Any = None) -> Any:
    """The error that comes out, which is in no group."""
    with pytest.raises(kind) as caught:
        run(function, clock=clock)
    return caught.value


def test_nobody_can_be_reached(unused_port: int) -> None:
    async def refused() -> None:
        async with connect(HOST, unused_port, **LOGIN):
            pass

    async def unknown() -> None:
        async with connect("no-such-host.invalid", unused_port, **LOGIN):
            pass

    async def impossible() -> None:
        async with connect("x" * 70 + ".example", unused_port, **LOGIN):
            pass

    error = raised(ConnectFailed, refused)
    assert str(error) == f"cannot connect to {HOST} port {unused_port}: Connection refused"
    assert isinstance(error.__cause__, OSError)
    assert "no-such-host.invalid" in str(raised(ConnectFailed, unknown))
    raised(ConnectFailed, impossible)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


async def attempt(**changes: Any) -> None:
    async with listening() as server, connect(HOST, server.port, **{**LOGIN, **changes}):
        pass


def test_a_host_key_that_is_not_good() -> None:
    other = PrivateKey.generate("ssh-ed25519").public_key
    raised(HostKeyChanged, lambda: attempt(host_key=other))
    raised(HostKeyUnknown, lambda: attempt(host_key=parse("")))

    async def no(question: Any) -> bool:
        await checkpoint()
        return False

    assert type(raised(ConnectionLoss, lambda: attempt(host_key=no))).__name__ == "HostKeyRejected"

    async def bug(question: Any) -> bool:
        raise ZeroDivisionError

    raised(ZeroDivisionError, lambda: attempt(host_key=bug))


def test_a_login_that_fails_tells_what_was_tried() -> None:
    key = PrivateKey.generate("ssh-ed25519")
    error = raised(AuthExhausted, lambda: attempt(keys=[key], password="wrong"))
    assert error.tried
    assert set(error.tried) <= {"publickey", "password", "keyboard-interactive"}
    assert error.methods


def test_no_common_algorithm() -> None:
    preferences = Preferences(cipher=("aes256-ctr",))

    async def main() -> None:
        config = ServerConfig(host_keys=[HOST_KEY], preferences=Preferences(cipher=("aes128-ctr",)))
        async with listening(config=config) as server:
            config = ClientConfig(user="me", preferences=preferences)
            async with connect(HOST, server.port, **{**LOGIN, "config": config}):
                pass

    error = raised(Incompatible, main)
    assert error.ours == ("aes256-ctr",)


def test_closed_before_the_version() -> None:
    async def main() -> None:
        ours, theirs = memory_stream_pair()
        await theirs.aclose()
        async with connect("memory", stream=ours, **LOGIN):
            pass

    assert raised(UnexpectedEof, main).where == "identification"


def test_arguments_that_do_not_go_together_are_refused_at_once() -> None:
    with pytest.raises(InvalidArgument):
        connect(HOST, **{**LOGIN, "user": None})


@pytest.mark.parametrize("listens", [False, True])
def test_connecting_takes_too_long(*, listens: bool) -> None:
    async def main() -> None:
        ours, theirs = memory_stream_pair()
        if listens:
            await theirs.send_all(b"SSH-2.0-slow\r\n")
        start = trio.current_time()
        try:
            async with connect("memory", stream=ours, timeout=3, **LOGIN):
                pass
        finally:
            assert 3 <= trio.current_time() - start <= 3 + 2 * LINGER
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(b"x")

    error = raised(TimeoutExpired, main, MockClock(autojump_threshold=0.01))
    assert isinstance(error, TimeoutError)
    assert error.seconds == 3


def test_a_command_takes_too_long_or_fails() -> None:
    async def main() -> None:
        async with connected() as pair:
            with pytest.raises(TimeoutExpired, match="the command took longer than 3 seconds"):
                await pair.client.run("stay", timeout=3)
            with pytest.raises(TimeoutExpired):
                await pair.client.run("ok", timeout=0)
            with pytest.raises(CommandFailed, match="status 3"):
                await pair.client.run("fail", check=True)
            assert (await pair.client.run("bug")).exit_status == 255
            assert [type(error) for error in pair.handler.bugs] == [ZeroDivisionError]
            pair.handler.bugs.clear()

    run(main, clock=MockClock(autojump_threshold=0.01))


# -------------------------------------------------------------------------------------------------------------- closing


def hindered() -> tuple[list[Wrapped], Callable[[trio.abc.Stream], trio.abc.Stream]]:
    made: list[Wrapped] = []

    def wrap(stream: trio.abc.Stream) -> Wrapped:
        made.append(Wrapped(stream))
        return made[-1]

    return made, wrap


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_peer_that_takes_nothing_can_not_hold_up_the_end(*, cancelled: bool) -> None:
    async def main() -> None:
        made, wrap = hindered()
        async with connected(wrap) as pair:
            process = await pair.client.start("cat")
            made[0].blocked = trio.Event()
            with trio.move_on_after(1):
                await process.stdin.send_all(bytes(1_000_000))
            start = trio.current_time()
            linger = pair.options["config"].timeouts.linger
            if cancelled:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await pair.client.aclose()
                assert scope.cancelled_caught
                assert trio.current_time() == start
                await pair.client.aclose()
                assert trio.current_time() - start <= 2 * LINGER
            else:
                await pair.client.aclose()
                assert linger <= trio.current_time() - start <= linger + 2 * LINGER
            with pytest.raises(ConnectionLoss):
                await pair.client.run("ok")

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_a_peer_that_does_not_close_is_not_waited_for_long() -> None:
    async def main() -> None:
        made, wrap = hindered()
        async with connected(wrap) as pair:
            made[0].deaf = True
            start = trio.current_time()
            await pair.client.aclose("good bye")
            assert trio.current_time() - start == pytest.approx(LINGER)

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_a_hard_end() -> None:
    async def main() -> None:
        made, wrap = hindered()
        async with connected(wrap) as pair:
            made[0].blocked = trio.Event()
            start = trio.current_time()
            pair.client.abort()
            with pytest.raises(UnexpectedEof):
                await pair.client.run("ok")
            await pair.client.aclose()
            assert trio.current_time() == start

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_a_hard_end_while_much_is_written_is_no_error() -> None:
    async def write(stream: trio.abc.SendStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(20_000))

    async def main() -> None:
        async with listening() as server:
            for turns in range(20):
                async with connect(HOST, server.port, **LOGIN) as client, trio.open_nursery() as nursery:
                    process = await client.start("cat")
                    nursery.start_soon(write, process.stdin)
                    for _ in range(turns):
                        await checkpoint()
                    client.abort()

    run(main)


def test_a_stream_without_half_close_will_do() -> None:
    class Plain(trio.abc.Stream):
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def send_all(self, data: Any) -> None:
            await self.inner.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await self.inner.wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> Any:
            return await self.inner.receive_some(max_bytes)

        async def aclose(self) -> None:
            await self.inner.aclose()

    async def main() -> None:
        async with connected(Plain) as pair:
            assert (await pair.client.run("cat", input=b"x")).stdout == b"x"

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_a_transport_that_breaks() -> None:
    class Breaking(Wrapped):
        async def send_all(self, data: Any) -> None:
            if self.deaf:
                raise trio.BrokenResourceError("cable cut")
            await super().send_all(data)

    async def main() -> None:
        made: list[Breaking] = []

        def wrap(stream: trio.abc.Stream) -> Breaking:
            made.append(Breaking(stream))
            return made[-1]

        async with connected(wrap) as pair:
            process = await pair.client.start("stay")
            made[0].deaf = True
            with pytest.raises(UnexpectedEof):
                await pair.client.run("ok")
            with pytest.raises(UnexpectedEof):
                await process.wait()

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_a_peer_that_is_silent_for_too_long_is_given_up() -> None:
    async def main() -> None:
        made, wrap = hindered()
        timeouts = Timeouts(keepalive=10, keepalive_count=2)
        async with connected(wrap, config=ClientConfig(user="me", timeouts=timeouts)) as pair:
            await trio.sleep(100)
            assert pair.client.hub.lost is None
            process = await pair.client.start("stay")
            made[0].deaf = True
            start = trio.current_time()
            with pytest.raises(TimedOut) as caught:
                await process.stdout.read()
            assert caught.value.timer == "keepalive"
            assert trio.current_time() - start <= 40

    run(main, clock=MockClock(autojump_threshold=0.01))


# ------------------------------------------------------------------------------------------------------------- the pump


def test_a_peer_that_is_slow_to_take_is_not_sent_more_than_fits() -> None:
    async def main() -> None:
        made, wrap = hindered()
        limits = Limits(output_high=100_000)
        config = ClientConfig(user="me", limits=limits, timeouts=NEVER)
        async with connected(wrap, config=config) as pair, pair.client.start("cat") as process:
            stream = made[0]
            stream.blocked = trio.Event()
            with trio.move_on_after(1) as scope:
                await process.stdin.send_all(bytes(10_000_000))
            assert scope.cancelled_caught
            assert pair.client.conn.output_size < 200_000
            assert stream.longest < 200_000
            stream.unblock()
            await process.stderr.aclose()
            assert (await pair.client.run("ok")).exit_status == 0
            assert stream.longest < 200_000

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_who_reads_slowly_is_not_sent_more_than_the_window() -> None:
    async def main() -> None:
        async with connected() as pair, pair.client.start("pour") as process:
            await process.stderr.aclose()
            await trio.sleep(10)
            assert process.channel.inbox(0).size <= WINDOW.window
            await process.stdout.read_exactly(500_000)
            assert process.channel.inbox(0).size <= WINDOW.window

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_who_takes_no_output_is_not_listened_to() -> None:
    """Answers would have to wait here: input waits in the network instead."""

    async def main() -> None:
        made, wrap = hindered()
        limits = Limits(window=10_000_000, output_high=100_000)
        pair = Pair(config=ClientConfig(user="me", limits=limits, timeouts=NEVER), window=10_000_000)
        async with connected(wrap, pair=pair):
            ours, theirs = await pair.streams()
            stream = made[0]
            stream.blocked = trio.Event()
            with trio.move_on_after(1):
                await ours.send_all(bytes(10_000_000))
            before = stream.received
            with trio.fail_after(1):
                await theirs.send_all(bytes(8_000_000))
            await trio.sleep(10)
            assert stream.received - before < 500_000
            stream.unblock()
            with trio.fail_after(1):
                await ours.read_exactly(8_000_000)
            await ours.aclose()
            await theirs.aclose()

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_room_in_the_output_is_used_at_once() -> None:
    async def main() -> None:
        config = ClientConfig(user="me", limits=Limits(output_high=100_000), timeouts=NEVER)
        pair = Pair(config=config, window=10_000_000)
        async with connected(pair=pair), pair.client.start("stay") as process:
            with trio.fail_after(1):
                await process.stdin.send_all(bytes(5_000_000))  # there is nothing that the server would answer

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_an_alarm_that_is_set_later_rings() -> None:
    async def main() -> None:
        made, wrap = hindered()
        timeouts = Timeouts(handshake=None, auth=None, kex=5, rekey=None)
        async with connected(wrap, config=ClientConfig(user="me", timeouts=timeouts)) as pair:
            await trio.sleep(100)
            made[0].deaf = True
            start = trio.current_time()
            with pytest.raises(TimedOut):
                await pair.client.rekey()
            assert trio.current_time() - start <= 10

    run(main, clock=MockClock(autojump_threshold=0.01))


@contextlib.asynccontextmanager
async def over_sockets(pair: Pair, wrap: Callable[[trio.abc.Stream], trio.abc.Stream]) -> AsyncIterator[Pair]:
    """A connection over sockets, as far as its client can see, which is thrown away at the end."""
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socket.socketpair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.server.serve, wrap(theirs))
        async with connect("sockets", stream=ours, **pair.options) as pair.client:
            yield pair
            pair.client.abort()
            nursery.cancel_scope.cancel()


def test_an_alarm_is_no_reason_to_listen_to_who_takes_no_output() -> None:
    async def main() -> None:
        made, wrap = hindered()
        received = 0

        def count(event: Any) -> None:
            nonlocal received
            received += len(event.data) if isinstance(event, DataReceived) else 0

        limits = Limits(window=10_000_000, output_high=100_000)
        timeouts = Timeouts(handshake=None, auth=None, kex=None, rekey=None, keepalive=1, keepalive_count=1000)
        config = ClientConfig(user="me", limits=limits, timeouts=timeouts)
        async with over_sockets(Pair(config=config, window=10_000_000, on_event=count), wrap) as pair:
            ours, theirs = await pair.streams()
            made[0].deaf = True
            with trio.move_on_after(0.5):
                await ours.send_all(bytes(10_000_000))
            with trio.move_on_after(30):
                await theirs.send_all(bytes(8_000_000))
            assert received < 1_000_000
            assert pair.client.hub.lost is None

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_a_key_exchange_that_a_write_begins_has_its_time() -> None:
    async def main() -> None:
        made, wrap = hindered()
        timeouts = Timeouts(handshake=None, auth=None, kex=5, rekey=None)
        limits = Limits(window=10_000_000, rekey_bytes=100_000)
        config = ClientConfig(user="me", limits=limits, timeouts=timeouts)
        async with over_sockets(Pair(config=config, window=10_000_000), wrap) as pair:
            ours, _ = await pair.streams()
            made[0].deaf = True
            await ours.send_all(bytes(60_000))
            await ours.send_all(bytes(60_000))
            assert pair.client.conn.rekeying
            await trio.sleep(20)
            assert isinstance(pair.client.hub.lost, TimedOut)

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_a_socket_that_is_closed_already_leads_nowhere() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        await stream.aclose()
        async with connect("nowhere", stream=stream, **LOGIN):
            pass

    raised(ConnectionLoss, main)


def test_a_turn_that_fails_leaves_nobody_who_is_waited_for() -> None:
    def wait(until: Wait) -> Operation[None]:
        yield until

    async def main() -> None:
        async with connected() as pair:
            client: Any = pair.client
            until = Wait()

            def fail() -> None:
                del client.turn
                raise ZeroDivisionError

            client.turn = fail
            with pytest.raises(ZeroDivisionError):
                await client.perform(wait(until))
            until.fire()
            with trio.fail_after(10):
                assert (await client.run("ok")).exit_status == 0

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_who_is_told_of_events_and_fails_to_the_last_leaves_nobody_waiting_for_the_end() -> None:
    armed = False

    def on_event(_: Any) -> None:
        if armed:
            raise ZeroDivisionError

    async def main() -> None:
        nonlocal armed
        async with listening() as server:
            with pytest.raises(ZeroDivisionError):
                async with connect(HOST, server.port, on_event=on_event, **LOGIN) as client:
                    armed = True
                    await client.run("ok")
            with trio.fail_after(5):
                await client.aclose()

    run(main)


def test_writers_take_turns() -> None:
    async def main() -> None:
        async with connected() as pair:
            ours, theirs = await pair.streams()

            async def write(letter: bytes) -> None:
                for _ in range(3):
                    await ours.write(letter * 100_000)

            async with trio.open_nursery() as nursery:
                for letter in (b"a", b"b", b"c"):
                    nursery.start_soon(write, letter)
                    await wait_all_tasks_blocked()
                data = await theirs.read_exactly(900_000)
            assert [letter for letter, _ in itertools.groupby(data)] == list(b"abcabcabc")
            await ours.aclose()
            await theirs.aclose()

    run(main)


def test_both_streams_of_a_program_get_their_turn() -> None:
    async def main() -> None:
        counts = [0, 0]

        async def count(number: int, stream: Any, scope: trio.CancelScope) -> None:
            async for data in stream:
                counts[number] += len(data)
                if min(counts) > 1_000_000:
                    scope.cancel()

        async with connected() as pair, pair.client.start("pour") as process, trio.open_nursery() as nursery:
            nursery.start_soon(count, 0, process.stdout, nursery.cancel_scope)
            nursery.start_soon(count, 1, process.stderr, nursery.cancel_scope)

    run(main)


# -------------------------------------------------------------------------------------------------------------- servers


def test_addresses_and_small_packets_leave_at_once() -> None:
    async def main() -> None:
        async with listen("localhost", 0, ServerConfig(host_keys=[HOST_KEY]), Words) as server:
            assert server.port == server.addresses[0][1] > 0
            for host, port in server.addresses:
                async with connect(host, port, **LOGIN) as client:
                    assert await client.run("ok")
                    (incoming,) = server.connections
                    assert incoming.peer[0] == host
                    for peer in (client, incoming):
                        sock: Any = peer._sock
                        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                await wait_all_tasks_blocked(0.01)
                assert not server.connections

    run(main)


def test_a_name_that_stands_for_several_addresses() -> None:
    async def main() -> None:
        async with listening() as server, connect("localhost", server.port, **LOGIN) as client:
            assert (await client.run("ok")).exit_status == 0

    run(main)


@pytest.mark.covers("V83")
def test_a_server_has_room_for_so_many() -> None:
    async def main() -> None:
        async with listening(max_connections=3, max_strangers=2) as server:
            strangers = [await trio.open_tcp_stream(HOST, server.port) for _ in range(2)]
            for stranger in strangers:
                assert await stranger.receive_some(4) == b"SSH-"
            with pytest.raises(UnexpectedEof):
                async with connect(HOST, server.port, **LOGIN):
                    pass
            await strangers.pop().aclose()
            await wait_all_tasks_blocked(0.01)
            async with connect(HOST, server.port, **LOGIN), connect(HOST, server.port, **LOGIN):
                assert len(server.connections) == 3
                with pytest.raises(UnexpectedEof):
                    async with connect(HOST, server.port, **LOGIN):
                        pass
            await strangers.pop().aclose()

    run(main)


def test_closing_a_server_ends_its_connections_and_what_runs_in_them() -> None:
    async def main() -> None:
        async with listening() as server, trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_forever)
            async with connect(HOST, server.port, **LOGIN) as client:
                process = await client.start("stay")
                await server.aclose("maintenance")
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((HOST, server.port))
                assert not server.connections or not any(c.conn.channels for c in server.connections)
                with pytest.raises(PeerDisconnected, match="maintenance"):
                    await process.wait()
            await server.aclose()
            ours, theirs = memory_stream_pair()
            await server.serve(theirs)  # too late
            assert await ours.receive_some() == b""

    run(main)


def test_a_connection_that_is_idle_has_one_task_at_the_server() -> None:
    def tasks() -> int:
        nurseries = list(root.child_nurseries)
        count = 0
        while nurseries:
            for task in nurseries.pop().child_tasks:
                count += 1
                nurseries += task.child_nurseries
        return count

    async def main() -> None:
        nonlocal root
        root = trio.lowlevel.current_root_task()
        async with listening() as server:
            await wait_all_tasks_blocked()
            before = tasks()
            async with connect(HOST, server.port, **LOGIN), connect(HOST, server.port, **LOGIN) as client:
                await wait_all_tasks_blocked(0.01)
                assert tasks() == before + 4  # two of them read for the clients
                async with client.start("stay"):
                    await wait_all_tasks_blocked(0.01)
                    assert tasks() == before + 5

    root: Any = None
    run(main)


@pytest.mark.parametrize("sockets", [False, True])
@pytest.mark.parametrize("command", [None, "stay"])
def test_who_serves_a_connection_and_is_cancelled_says_good_bye(*, sockets: bool, command: str | None) -> None:
    """With a nursery and without: there is one once there is a session."""

    async def main() -> None:
        pair = Pair()
        ours: trio.abc.Stream
        theirs: trio.abc.Stream
        if sockets:
            both = [trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socket.socketpair()]
            ours, theirs = both
        else:
            ours, theirs = memory_stream_pair()
        scope = trio.CancelScope()

        async def serve() -> None:
            with scope:
                await pair.server.serve(theirs)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with connect("somewhere", stream=ours, **LOGIN) as client:
                if command is not None:
                    await client.start(command)
                scope.cancel()
                loss = await client.until_ended()
                assert isinstance(loss, PeerDisconnected)
                assert loss.description == "the server is stopping"
        assert scope.cancelled_caught
        assert not pair.server.connections
        assert not pair.bugs

    run(main)


def test_forwards_end_with_their_context() -> None:
    async def main() -> None:
        async with listening() as server, connect(HOST, server.port, **LOGIN) as client:
            for _ in range(3):
                async with client.forward_local((HOST, 0), (HOST, server.port)) as forward:  # noqa: SIM117
                    async with connect(HOST, forward.port, **LOGIN) as inner:
                        assert (await inner.run("ok")).exit_status == 0
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((HOST, forward.port))
            forward = await client.forward_local((HOST, 0), (HOST, 1))
            forward.close()  # before its task has had a turn

    run(main)


def test_a_connection_through_a_connection() -> None:
    async def main() -> None:
        async with listening() as first, listening() as second, connect(HOST, first.port, **LOGIN) as outer:
            async with outer.jump(HOST, second.port, **LOGIN) as inner:
                data = os.urandom(1_000_000)
                assert (await inner.run("cat", input=data)).stdout == data
                async with inner.jump(HOST, first.port, **LOGIN) as innermost:
                    assert (await innermost.run("cat", input=b"x")).stdout == b"x"
            with pytest.raises(OpenRefused):
                async with outer.jump("elsewhere", 22, **LOGIN):
                    pass
            async with outer.jump(HOST, second.port, **LOGIN) as inner:
                await outer.aclose()
                assert isinstance(await inner.until_ended(), UnexpectedEof)
                with pytest.raises(ConnectionLoss):
                    await inner.run("ok")

    run(main)


# ------------------------------------------------------------------------------------------------------------- warnings

SCRIPT = """
import trio
from sshproto.config import ServerConfig
from sshproto.keys.private import PrivateKey
from sshproto_io.trio import Handler, connect, listen

KEY = PrivateKey.generate("ssh-ed25519")

class Cat(Handler):
    def public_key(self, user, key):
        return key == KEY.public_key
    async def session(self, session):
        async for data in session.stdin:
            await session.stdout.send_all(data)
    def allow_connect(self, target, origin):
        return True
    def allow_listen(self, address):
        return True

async def main():
    options = {"user": "me", "host_key": KEY.public_key, "keys": [KEY]}
    async with listen("127.0.0.1", 0, ServerConfig(host_keys=[KEY]), lambda incoming: Cat()) as server:
        for way in range(4):
            with trio.CancelScope() as scope:
                async with connect("127.0.0.1", server.port, **options) as client:
                    assert (await client.run("cat", input=bytes(100_000))).stdout == bytes(100_000)
                    process = await client.start("cat")
                    await process.stdin.send_all(b"a\\nb\\n")
                    async for line in process.stdout.lines():
                        break
                    forward = await client.forward_local(("127.0.0.1", 0), ("127.0.0.1", server.port))
                    remote = await client.forward_remote(("127.0.0.1", 0), ("127.0.0.1", server.port))
                    first = await trio.open_tcp_stream("127.0.0.1", forward.port)
                    second = await trio.open_tcp_stream("127.0.0.1", remote.port)
                    async with first, second, client.jump("127.0.0.1", server.port, **options) as inner:
                        assert await inner.run("cat")
                        if way == 1:
                            scope.cancel()
                        if way == 2:
                            client.abort()
                    if way == 3:
                        forward.close()
                        remote.close()

trio.run(main)
print("done")
"""


@pytest.mark.parametrize("options", [("-X", "dev"), ("-O",)])
def test_without_a_warning(options: tuple[str, ...]) -> None:
    """However it ends, nothing is left: no socket, no task, no generator."""
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
