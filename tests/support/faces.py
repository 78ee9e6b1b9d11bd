"""The three faces as one: what a scenario of the conformance suite, written once, may use.

A scenario is ``async def scenario(face, client, place)``.  Under asyncio and trio ``client`` is the face's own client;
under the blocking face it is wrapped so that awaiting a method calls it there and then, and the coroutine never
suspends.  What the worlds do differently, several things at once, sleeping, cancelling, is a method of :class:`Face`.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import attrs

from sshproto.config import ClientConfig, Limits, Timeouts
from sshproto_io import TimeoutExpired
from tests.support.faceserver import descriptors, server_config, threads, trio_tasks
from tests.support.seeds import HOST, HOST_KEY, QUICK, USER, USER_KEY

T = TypeVar("T")

Thunk = Callable[[], Awaitable[T]]

NAMES = ("blocking", "asyncio", "trio")
"""The faces."""

PATIENCE = 20.0
"""Seconds that nothing here takes."""

_LONGEST = 110.0
"""Seconds for a scenario as a whole; less than pytest's limit, so that what hangs is shown from inside."""


def client_config(
    *,
    rekey_bytes: int = 2**30,
    keepalive: float | None = None,
    channels: int = 3000,
    **more: Any,
) -> ClientConfig:
    """A client that costs little, and may have many channels."""
    limits = Limits(channels_from_us=channels, rekey_bytes=rekey_bytes, peer_rekeys=10**6)
    timeouts = Timeouts(keepalive=keepalive, keepalive_count=2)
    return ClientConfig(
        **{"user": USER, "preferences": QUICK, "limits": limits, "timeouts": timeouts, "debug_raise": True, **more}
    )


def login(**more: Any) -> dict[str, Any]:
    """Arguments of ``connect`` for the suite's own servers."""
    arguments = {"config": client_config(), "keys": [USER_KEY], "host_key": HOST_KEY.public_key, "timeout": PATIENCE}
    return arguments | more


@attrs.frozen
class Moment:
    """When something is cancelled: after so many turns of the scheduler, or after some seconds, whichever is set."""

    turns: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.seconds}s" if self.seconds else f"turn {self.turns}"


class Face(ABC):
    """One of the three.

    Attributes:
        name: ``"blocking"``, ``"asyncio"`` or ``"trio"``.
        module: The face itself.
    """

    name: str
    module: Any

    def __repr__(self) -> str:
        return self.name

    # ------------------------------------------------------------------------------------------------------- from tests

    def play(self, scenario: Callable[..., Awaitable[T]], *args: Any, debug: bool = False) -> T:
        """Run ``scenario(face, *args)`` in a world of its own, and see that nothing is left of it."""
        before = set(descriptors()), set(threads())
        result = self._play(lambda: scenario(self, *args), debug)
        gc.collect()
        deadline = time.monotonic() + 2.0
        while extra := _extra(before):
            assert time.monotonic() < deadline, f"left over: {extra}"
            time.sleep(0.01)
        return result

    def visit(
        self,
        scenario: Callable[..., Awaitable[T]],
        port: int,
        *args: Any,
        debug: bool = False,
        stock: bool = False,
        **options: Any,
    ) -> T:
        """Connect, run ``scenario(face, client, *args)``, see that the client has nothing left, and close.

        Args:
            scenario, args: What to run.
            port: Where to connect to.
            debug: Run the event loop in its debug mode, if it has one.
            stock: The server is not ours; sshd does not confirm a channel's end before its program has ended.
            options: Arguments of ``connect``.
        """

        async def visiting(face: Face) -> T:
            async with face.connect(HOST, port, **login(**options)) as client:
                result = await scenario(face, client, *args)
                await face.settled(client, stock=stock)
            return result

        return self.play(visiting, debug=debug)

    @abstractmethod
    def _play(self, thunk: Thunk[T], debug: bool) -> T:
        """Run it in a world of its own; a task that is left is a failure."""

    # --------------------------------------------------------------------------------------------------- from scenarios

    def connect(self, host: str, port: int, **options: Any) -> Any:
        """The face's ``connect``."""
        return self.module.connect(host, port, **options)

    def listen(self, handler: Callable[[Any], Any], **options: Any) -> Any:
        """The face's ``listen``, at a free port, with the suite's own keys."""
        return self.module.listen(HOST, 0, server_config(), handler, **options)

    def open_agent(self, path: Any) -> Any:
        """The face's ``open_agent``."""
        return self.module.open_agent(path)

    def serve_agent(self, keyring: Any, path: Any = None, **options: Any) -> Any:
        """The face's ``serve_agent``."""
        return self.module.serve_agent(keyring, path, **options)

    @abstractmethod
    async def gather(self, *thunks: Thunk[Any]) -> list[Any]:
        """Do all of these at once; the first error is raised when all have ended."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Sleep."""

    @abstractmethod
    async def aside(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function that blocks, without holding up anybody else."""

    @abstractmethod
    async def within(self, seconds: float, thunk: Thunk[T]) -> T:
        """Do this, and raise a ``TimeoutError`` if it takes longer, as one does in this world."""

    @abstractmethod
    async def cancelled(self, moment: Moment, thunk: Thunk[object]) -> bool:
        """Do this and cancel it at a moment. False if it had ended before."""

    async def attend(self, client: Any) -> None:  # noqa: B027  there is nothing to do for the others
        """Have the connection attended to even while nobody waits; only the blocking face needs to be asked."""

    def plain(self, client: Any, reader: Any) -> Any:
        """A reader whose reads can be cancelled, and have limits; files can't."""
        return reader

    async def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait for something that nobody tells."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: waited {seconds} seconds"
            await self.sleep(0.005)

    async def settled(self, client: Any, *, stock: bool = False) -> None:
        """Wait until the client has no channels, and nothing to answer or to be answered."""
        hub = client.hub

        def left() -> list[Any]:
            channels = [channel for channel in hub.channels.values() if not (stock and channel.closed)]
            few = [*(hub._replies or {}).values(), *(hub._late or ()), *(hub._questions or ())]
            return [*channels, *few, *hub.conn.questions]

        if hub.lost is None:
            deadline = time.monotonic() + 5.0
            while True:
                await client.run("true")  # what was sent before is answered now; and somebody attends to the connection
                if not left():
                    break
                assert time.monotonic() < deadline, f"left over: {left()}"
                await self.sleep(0.01)


def _extra(before: tuple[set[int], set[threading.Thread]]) -> list[str]:
    """Descriptors and threads that were not there before."""
    extra = [f"thread {thread.name}" for thread in set(threads()) - before[1]]
    for number in set(descriptors()) - before[0]:
        with contextlib.suppress(OSError):
            extra.append(f"descriptor {number} of {Path(f'/proc/self/fd/{number}').readlink()}")
    return extra


# -------------------------------------------------------------------------------------------------------------- asyncio


class _Complaints(logging.Handler):
    """Whatever asyncio logs is a failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


class AsyncioFace(Face):
    name = "asyncio"

    def __init__(self) -> None:
        import sshproto_io.asyncio

        self.module = sshproto_io.asyncio

    def _play(self, thunk: Thunk[T], debug: bool) -> T:
        async def main() -> T:
            asyncio.get_running_loop().slow_callback_duration = PATIENCE
            async with asyncio.timeout(_LONGEST):
                result = await thunk()
            deadline = time.monotonic() + 2.0
            while len(asyncio.all_tasks()) > 1:
                assert time.monotonic() < deadline, f"left over: {asyncio.all_tasks() - {asyncio.current_task()}}"
                await asyncio.sleep(0.005)
            return result

        logger, complaints = logging.getLogger("asyncio"), _Complaints()
        logger.addHandler(complaints)
        try:
            result = asyncio.run(main(), debug=debug or None)
            gc.collect()
        finally:
            logger.removeHandler(complaints)
        assert not complaints.texts, complaints.texts
        return result

    async def gather(self, *thunks: Thunk[Any]) -> list[Any]:
        results = await asyncio.gather(*(thunk() for thunk in thunks), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aside(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(function, *args)

    async def within(self, seconds: float, thunk: Thunk[T]) -> T:
        async with asyncio.timeout(seconds):
            return await thunk()

    async def cancelled(self, moment: Moment, thunk: Thunk[object]) -> bool:
        async def job() -> None:
            await thunk()

        task = asyncio.create_task(job())
        for _ in range(moment.turns):
            await asyncio.sleep(0)
        if moment.seconds:
            await asyncio.wait([task], timeout=moment.seconds)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.done(), "a cancelled operation does not end"
        if not task.cancelled():
            await task
        return task.cancelled()


# ----------------------------------------------------------------------------------------------------------------- trio


class TrioFace(Face):
    name = "trio"

    def __init__(self) -> None:
        import trio

        import sshproto_io.trio

        self._trio = trio
        self.module = sshproto_io.trio

    def _play(self, thunk: Thunk[T], debug: bool) -> T:
        async def main() -> T:
            before = trio_tasks()
            with self._trio.fail_after(_LONGEST):
                result = await thunk()
            deadline = time.monotonic() + 2.0
            while trio_tasks() > before:
                assert time.monotonic() < deadline, f"left over: {trio_tasks() - before} tasks"
                await self._trio.sleep(0.005)
            return result

        return self._trio.run(main, strict_exception_groups=True)  # type: ignore[no-any-return]

    async def gather(self, *thunks: Thunk[Any]) -> list[Any]:
        results: list[Any] = [None] * len(thunks)
        errors: list[BaseException] = []

        async def do(number: int, thunk: Thunk[Any]) -> None:
            try:
                results[number] = await thunk()
            except Exception as error:
                errors.append(error)

        async with self._trio.open_nursery() as nursery:
            for number, thunk in enumerate(thunks):
                nursery.start_soon(do, number, thunk)
        if errors:
            raise errors[0]
        return results

    async def sleep(self, seconds: float) -> None:
        await self._trio.sleep(seconds)

    async def aside(self, function: Callable[..., T], *args: Any) -> T:
        return await self._trio.to_thread.run_sync(function, *args)  # type: ignore[no-any-return]

    async def within(self, seconds: float, thunk: Thunk[T]) -> T:
        try:
            with self._trio.fail_after(seconds):
                return await thunk()
        except self._trio.TooSlowError as error:
            raise TimeoutError from error

    async def cancelled(self, moment: Moment, thunk: Thunk[object]) -> bool:
        ended = False
        problem: Exception | None = None

        async def strike(scope: Any) -> None:
            for _ in range(moment.turns):
                await self._trio.lowlevel.checkpoint()
            if moment.seconds:
                await self._trio.sleep(moment.seconds)
            scope.cancel()

        with self._trio.fail_after(PATIENCE):
            async with self._trio.open_nursery() as nursery:
                if moment.turns or moment.seconds:
                    nursery.start_soon(strike, nursery.cancel_scope)
                else:  # when it waits for the first time; an answer may be there before another task has had its turn
                    nursery.cancel_scope.cancel()
                try:
                    await thunk()
                    ended = True
                except Exception as error:
                    problem = error
                nursery.cancel_scope.cancel()
        if problem is not None:
            raise problem
        return not ended


# ------------------------------------------------------------------------------------------------------------- blocking


_ambient = threading.local()
"""The time limit of what a thread does, see :meth:`BlockingFace.within`."""


def _in_time(options: dict[str, Any]) -> dict[str, Any]:
    """Options of ``connect`` and ``jump``, within that limit."""
    end = getattr(_ambient, "end", None)
    return options if end is None else options | {"timeout": max(0.0, end - time.monotonic())}


def _drive(awaitable: Awaitable[T]) -> T:
    """Run a coroutine that only calls things that block."""

    async def run() -> T:
        return await awaitable

    coroutine = run()
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        coroutine.close()
    raise AssertionError("under the blocking face nothing is awaited that is not the face's")


class _Later:
    """A call of something that blocks: made when it is awaited, or entered by ``async with``."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._entered: Any = None

    def __await__(self) -> Any:
        return _wrap(self._call())
        yield

    async def __aenter__(self) -> Any:
        self._entered = self._call()
        return _wrap(self._entered.__enter__())

    async def __aexit__(self, *how: object) -> None:
        self._entered.__exit__(*how)


class _Wrapped:
    """Something of the blocking face with the manners of the others."""

    _RENAMED: ClassVar[dict[str, str]] = {"aclose": "close"}

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return repr(self.inner)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, self._RENAMED.get(name, name))
        if callable(value):
            return lambda *args, **options: _Later(lambda: value(*args, **options))
        return _wrap(value)


class _WrappedReader(_Wrapped):
    """A binary file, and what the other faces call its methods."""

    _RENAMED: ClassVar[dict[str, str]] = {"aclose": "close", "read_exactly": "read", "read_line": "readline"}

    def read(self, limit: int = -1) -> Any:
        return _Later(self.inner.read if limit < 0 else lambda: self.inner.read1(limit))

    async def lines(self) -> AsyncIterator[bytes]:
        for line in self.inner:
            yield line


class _WrappedStream(_Wrapped):
    """The blocking face's has what sockets have."""

    def read_exactly(self, count: int) -> Any:
        link, channel = self.inner._link, self.inner.channel
        return _Later(lambda: link.perform(channel.read_exactly(count)))


class _WrappedWriter(_Wrapped):
    _RENAMED: ClassVar[dict[str, str]] = {"aclose": "close", "send_eof": "close"}


class _Plain:
    """A channel's stream read by operations: the blocking face's files know no limits of time or size."""

    def __init__(self, client: _Wrapped, channel: Any, stream: int) -> None:
        self._client = client
        self._channel = channel
        self._stream = stream

    def read(self, limit: int = -1) -> Any:
        channel = self._channel
        return self._client.perform(channel.read_all(self._stream) if limit < 0 else channel.read(limit, self._stream))

    def read_exactly(self, count: int) -> Any:
        return self._client.perform(self._channel.read_exactly(count, self._stream))

    def read_until(self, separator: bytes, limit: int = 65536) -> Any:
        return self._client.perform(self._channel.read_until(separator, limit, self._stream))

    def read_line(self, limit: int = 65536) -> Any:
        return self.read_until(b"\n", limit)


def _wrap(value: Any) -> Any:
    import sshproto_io.blocking as module

    kinds: list[tuple[type, type[_Wrapped]]] = [
        (module.Client, _WrappedClient),
        (module.Server, _Wrapped),
        (module.Process, _Wrapped),
        (module.Stream, _WrappedStream),
        (module.Forward, _Wrapped),
        (module.Reader, _WrappedReader),
        (module.Writer, _WrappedWriter),
        (module.Agent, _WrappedAgent),
        (module.ServedAgent, _Wrapped),
    ]
    for kind, wrapper in kinds:
        if isinstance(value, kind):
            return wrapper(value)
    return value


class _WrappedClient(_Wrapped):
    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        perform = type(inner).perform.__get__(inner)

        def limited(operation: Any, timeout: float | None = None, *what: Any, **how: Any) -> Any:
            end = getattr(_ambient, "end", None)
            if end is not None and timeout is None:
                timeout = max(0.0, end - time.monotonic())
            return perform(operation, timeout, *what, **how)

        inner.perform = limited

    def jump(self, *args: Any, **options: Any) -> Any:
        return _Later(lambda: self.inner.jump(*args, **_in_time(options)))


class _WrappedAgent(_Wrapped):
    """Its calls have the time that their thread has."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        run = type(inner)._run.__get__(inner)

        def limited(operation: Any) -> Any:
            end = getattr(_ambient, "end", None)
            return run(operation) if end is None else run(operation, max(0.0, end - time.monotonic()))

        inner._run = limited


class BlockingFace(Face):
    name = "blocking"

    def __init__(self) -> None:
        import sshproto_io.blocking

        self.module = sshproto_io.blocking

    def _play(self, thunk: Thunk[T], debug: bool) -> T:
        return _drive(thunk())

    def connect(self, host: str, port: int, **options: Any) -> Any:
        return _Later(lambda: self.module.connect(host, port, **_in_time(options)))

    async def attend(self, client: Any) -> None:
        await client.start_thread()

    def listen(self, handler: Callable[[Any], Any], **options: Any) -> Any:
        return _Later(lambda: self.module.listen(HOST, 0, server_config(), handler, **options))

    def open_agent(self, path: Any) -> Any:
        return _Later(lambda: self.module.open_agent(path, **_in_time({})))

    def serve_agent(self, keyring: Any, path: Any = None, **options: Any) -> Any:
        return _Later(lambda: self.module.serve_agent(keyring, path, **options))

    def plain(self, client: Any, reader: Any) -> Any:
        raw = reader.inner.raw
        return _Plain(client, raw._channel, raw._stream)

    async def gather(self, *thunks: Thunk[Any]) -> list[Any]:
        results: list[Any] = [None] * len(thunks)
        errors: list[BaseException] = []

        end = getattr(_ambient, "end", None)

        def do(number: int, thunk: Thunk[Any]) -> None:
            _ambient.end = end
            try:
                results[number] = _drive(thunk())
            except BaseException as error:
                errors.append(error)

        running = [threading.Thread(target=do, args=pair, daemon=True) for pair in enumerate(thunks)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(_LONGEST)
            if thread.is_alive():
                faulthandler.dump_traceback(all_threads=True)
                raise AssertionError("a thread hangs")
        if errors:
            raise errors[0]
        return results

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  there is no loop

    async def aside(self, function: Callable[..., T], *args: Any) -> T:
        return function(*args)

    async def within(self, seconds: float, thunk: Thunk[T]) -> T:
        _ambient.end = time.monotonic() + seconds
        try:
            return await thunk()
        finally:
            _ambient.end = None

    async def cancelled(self, moment: Moment, thunk: Thunk[object]) -> bool:
        """By the time limit that it has: what takes some turns elsewhere takes some 0.1 ms here."""
        try:
            await self.within(moment.seconds or moment.turns * 0.0001, thunk)
        except TimeoutExpired:
            return True
        return False


def get(name: str) -> Face:
    """A face by its name."""
    return {"blocking": BlockingFace, "asyncio": AsyncioFace, "trio": TrioFace}[name]()


def commands(count: int, run: Callable[[int], Awaitable[T]]) -> Sequence[Thunk[T]]:
    """``count`` things to do at once."""
    return [lambda number=number: run(number) for number in range(count)]  # type: ignore[misc]
