"""What carries connections under asyncio: sockets that the loop watches, listeners, and tasks that begin at once."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sshproto.config import ClientConfig, Preferences, ServerConfig
from sshproto.keys.private import PrivateKey
from sshproto_io import _asyncio_socket
from sshproto_io._asyncio_socket import Listener, SocketTransport
from sshproto_io._asyncio_tasks import begin
from sshproto_io.asyncio import Handler, connect, listen

pytestmark = pytest.mark.timeout(30)

HOST = "127.0.0.1"
HOST_KEY = PrivateKey.generate("ssh-ed25519")
USER_KEY = PrivateKey.generate("ssh-ed25519")
QUICK = Preferences(kex=("curve25519-sha256",))


class Protocol(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.told: list[Any] = []
        self.full = False
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def _note(self, what: str, *more: Any) -> None:
        self.told.append((what, *more))
        if what == self.fails:
            raise ZeroDivisionError

    def connection_made(self, transport: Any) -> None:
        self._note("made")

    def data_received(self, data: bytes) -> None:
        self._note("data", data)

    def eof_received(self) -> bool:
        self._note("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False


async def turns(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.001)


def run(main: Callable[[], Awaitable[None]]) -> list[dict[str, Any]]:
    """``asyncio.run``, and what the loop was told."""
    told: list[dict[str, Any]] = []

    async def inner() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        await main()

    asyncio.run(inner())
    return told


# -------------------------------------------------------------------------------------------------------------- sockets


def test_it_begins_in_the_same_turn_and_says_what_came_before() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.send(b"early")
            protocol = Protocol()
            transport = SocketTransport(asyncio.get_running_loop(), ours, protocol)
            assert protocol.told == [("made",)]
            assert transport.look()
            assert not transport.look()
            assert protocol.told == [("made",), ("data", b"early")]
            transport.close()
            assert await protocol.lost is None
            assert theirs.recv(1) == b""

    assert not run(main)


def test_what_does_not_fit_is_written_later_and_the_end_after_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            protocol = Protocol()
            transport = SocketTransport(loop, ours, protocol)
            pieces = [bytes([number]) * 100_000 for number in range(100)]
            for piece in pieces:
                transport.write(piece)
            transport.write_eof()
            assert protocol.full
            assert transport.get_write_buffer_size() > 1_000_000
            received = bytearray()
            while piece := await loop.sock_recv(theirs, 1 << 20):
                received += piece
            assert received == b"".join(pieces)
            assert not protocol.full
            assert not transport.get_write_buffer_size()
            theirs.send(b"and back")
            await turns(lambda: ("data", b"and back") in protocol.told)
            transport.abort()
            await protocol.lost

    assert not run(main)


@pytest.mark.parametrize("hard", [False, True])
def test_closing_writes_what_waits_and_aborting_does_not(*, hard: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            protocol = Protocol()
            transport = SocketTransport(loop, ours, protocol)
            transport.write(bytes(5_000_000))
            transport.close()
            if hard:
                transport.abort()
            size = 0
            while piece := await loop.sock_recv(theirs, 1 << 20):
                size += len(piece)
            assert (size < 5_000_000) is hard
            assert await protocol.lost is None

    assert not run(main)


@pytest.mark.parametrize("fails", ["made", "data", "eof"])
def test_a_protocol_that_fails_loses_its_connection(fails: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.send(b"data")
            theirs.shutdown(socket.SHUT_WR)
            protocol = Protocol(fails)
            SocketTransport(asyncio.get_running_loop(), ours, protocol)
            assert isinstance(await protocol.lost, ZeroDivisionError)
            assert ours.fileno() < 0

    (context,) = run(main)
    assert isinstance(context["exception"], ZeroDivisionError)


def test_a_connection_that_breaks_is_lost_with_the_reason() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server((HOST, 0)) as server:
            for writing in (False, True):
                ours = socket.create_connection(server.getsockname())
                theirs = server.accept()[0]
                protocol = Protocol()
                transport = SocketTransport(loop, ours, protocol)
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                theirs.close()  # a reset
                if writing:
                    transport.write(b"?")
                    transport.write(b"!")  # of which nobody hears
                assert isinstance(await protocol.lost, ConnectionError)

    assert not run(main)


def test_one_that_is_aborted_when_there_is_room_again_is_watched_no_more() -> None:
    class Hasty(Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def resume_writing(self) -> None:
            self.transport.abort()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            protocol = Hasty()
            descriptor = ours.fileno()
            SocketTransport(loop, ours, protocol).write(bytes(1_000_000))
            while await loop.sock_recv(theirs, 1 << 20):
                pass
            assert await protocol.lost is None
            assert not loop.remove_writer(descriptor)

    assert not run(main)


# ------------------------------------------------------------------------------------------------------------ listening


class _Poor(socket.socket):
    """A listening socket for which there is no descriptor at first."""

    lacks = 1

    def accept(self) -> Any:
        if self.lacks:
            self.lacks -= 1
            raise OSError(errno.EMFILE, "too many")
        return super().accept()


def test_who_comes_while_there_are_no_descriptors_is_accepted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_asyncio_socket, "_PAUSE", 0.01)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock = _Poor()
        sock.bind((HOST, 0))
        came: list[socket.socket] = []
        listener = Listener(loop, [sock], 8, lambda connection, _: came.append(connection))
        listener.start()
        with socket.create_connection(sock.getsockname()), socket.create_connection(sock.getsockname()):
            await turns(lambda: len(came) == 2)
        listener.close()
        for connection in came:
            connection.close()

    (context,) = run(main)
    assert context["exception"].errno == errno.EMFILE


def test_a_connection_that_nobody_takes_is_closed() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.bind((HOST, 0))

        def fails(connection: socket.socket, address: Any) -> None:
            raise ZeroDivisionError

        listener = Listener(loop, [sock], 8, fails)
        listener.start()
        with socket.create_connection(sock.getsockname()) as client:
            client.setblocking(False)
            assert await loop.sock_recv(client, 1) == b""
        listener.close()

    (context,) = run(main)
    assert isinstance(context["exception"], ZeroDivisionError)


def test_without_a_backlog_it_accepts_all_the_same() -> None:
    async def main() -> None:
        came: list[socket.socket] = []
        sock = socket.socket()
        sock.bind((HOST, 0))
        listener = Listener(asyncio.get_running_loop(), [sock], 0, lambda connection, _: came.append(connection))
        listener.start()
        with socket.create_connection(sock.getsockname()):
            await turns(lambda: came)
        listener.close()
        came[0].close()

    assert not run(main)


def test_serving_forever_ends_with_the_listener_or_ends_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for closed in (False, True):
            sock = socket.socket()
            sock.bind((HOST, 0))
            listener = Listener(loop, [sock], 8, lambda *_: None)
            listener.start()
            serving = asyncio.create_task(listener.serve_forever())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError):
                await listener.serve_forever()
            if closed:
                listener.close()
            else:
                serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert sock.fileno() < 0
            with pytest.raises(RuntimeError):
                await listener.serve_forever()

    assert not run(main)


class _Blind(asyncio.SelectorEventLoop):
    """A loop that watches no descriptors for others, as some systems' own."""

    def add_reader(self, *_: Any) -> Any:
        raise NotImplementedError

    remove_reader = add_writer = remove_writer = add_reader


class Greeter(Handler):
    def public_key(self, user: str, key: Any) -> bool:
        return key == USER_KEY.public_key

    async def session(self, session: Any) -> int:
        await session.stdout.write(b"hello")
        return 0


def test_where_a_loop_watches_no_descriptors_its_own_transports_serve() -> None:
    async def main() -> bytes:
        config = ServerConfig(host_keys=[HOST_KEY], preferences=QUICK)
        async with listen(HOST, 0, config, lambda _: Greeter()) as server:
            sock = socket.create_connection((HOST, server.port))
            login = ClientConfig(user="me", preferences=QUICK)
            keys: dict[str, Any] = {"host_key": HOST_KEY.public_key, "keys": [USER_KEY]}
            async with connect(HOST, server.port, config=login, sock=sock, **keys) as client:
                return (await client.run("greet")).stdout

    with asyncio.Runner(loop_factory=_Blind) as runner:
        assert runner.run(main()) == b"hello"


def test_a_socket_that_no_transport_takes_is_closed() -> None:
    class Deaf(_Blind):
        async def create_connection(self, *_: Any, **__: Any) -> Any:
            raise ZeroDivisionError

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            with pytest.raises(ZeroDivisionError):
                await connect(HOST, user="me", host_key=HOST_KEY.public_key, keys=[USER_KEY], sock=ours)
            assert ours.fileno() < 0

    with asyncio.Runner(loop_factory=Deaf) as runner:
        runner.run(main())


# ---------------------------------------------------------------------------------------------------------------- tasks

_word = contextvars.ContextVar("_word", default="nothing")


def test_a_task_that_begins_at_once_is_a_task_from_its_first_step_on() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []

        async def job() -> str:
            seen.append(asyncio.current_task())
            _word.set("its own")
            async with asyncio.timeout(10):  # which only tasks can have
                await asyncio.sleep(0)
            seen.append(asyncio.current_task())
            return _word.get()

        made: list[asyncio.Task[Any]] = []
        early: list[Any] = []

        def make() -> None:
            made.append(begin(loop, job(), "its name"))
            assert made[0] in asyncio.all_tasks(loop)
            early.extend(seen)

        loop.call_soon(make)
        await turns(lambda: made)
        (task,) = made
        assert early == [task]
        assert task.get_name() == "its name"
        assert await task == "its own"
        assert seen == [task, task]
        assert _word.get() == "nothing"

    assert not run(main)


def test_a_task_that_begins_at_once_may_end_or_be_cancelled() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def short() -> int:
            return 5

        async def long() -> None:
            await asyncio.Event().wait()

        made: list[asyncio.Task[Any]] = []
        loop.call_soon(lambda: made.extend(begin(loop, job(), None) for job in (short, long)))
        await turns(lambda: made)
        assert made[0].done()
        assert made[0].result() == 5
        made[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await made[1]

    assert not run(main)


def test_what_is_called_while_a_task_is_made_is_called_soon() -> None:
    """As a signal handler or a finalizer may have it done, which can run at any moment."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        noted: list[str] = []

        class Name:
            def __str__(self) -> str:
                loop.call_soon(noted.append, "called")
                return "its name"

        async def job() -> None:
            noted.append("begun")

        name: Any = Name()
        loop.call_soon(lambda: begin(loop, job(), name))
        await turns(lambda: len(noted) == 2)
        assert noted == ["begun", "called"]

    assert not run(main)


def test_within_a_task_or_with_a_factory_tasks_are_as_the_application_knows_them() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made: list[Any] = []

        async def job() -> Any:
            return asyncio.current_task()

        task = begin(loop, job(), None)
        assert await task is task
        assert asyncio.current_task() is not task

        def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            made.append(coroutine)
            return asyncio.Task(coroutine, loop=loop, **options)

        loop.set_task_factory(factory)
        task = begin(loop, job(), None)
        loop.set_task_factory(None)
        assert await task is task
        assert len(made) == 1

    assert not run(main)
