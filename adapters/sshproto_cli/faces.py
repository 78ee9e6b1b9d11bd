"""Operations on a connection, under the face that the user has chosen.

A face is imported when it is wanted, and its framework with it. All of them do the same here: connect leg by leg, run
an operation on the last connection, and close them all, the last one first. A signal ends whichever of this goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sshproto.operations.steps import Call, Operation, Ready, Spawn, Together
from sshproto.values import frozen
from sshproto_cli.options import Failure
from sshproto_cli.terminal import Interrupted, Interrupts

if TYPE_CHECKING:
    import socket

    from sshproto.client import ClientConnection
    from sshproto.operations.hub import Hub
    from sshproto_cli.client import Leg
    from sshproto_io.sockets import Resolve

T = TypeVar("T")


@frozen
class Link:
    """A connection to a server, logged in, as an operation meets it.

    Attributes:
        hub: Its events.
        resolve: Looks names up, in the way of the face.
    """

    hub: Hub[ClientConnection]
    resolve: Resolve


Job = Callable[[Link], Operation[T]]
"""Makes the operation to run, of the connection that it runs on."""


def carry_out(face: str, legs: Sequence[Leg], job: Job[T], interrupts: Interrupts) -> T:
    """Connect, run an operation, and close everything.

    Args:
        face: One of :data:`~sshproto_cli.options.FACES`.
        legs: What to connect to, each through the one before it; at least one.
        job: The operation.
        interrupts: Installed; a signal that comes cancels all.

    Raises:
        Interrupted: A signal came; everything is closed.
        Failure: The face is not there, or something cannot be connected to.
        Exception: What the operation raises.
    """
    # A signal must not tear a connection in the midst of what it does: somebody waits for it instead.
    with interrupts.deferred():
        try:
            result: T = _FACES[face](legs, job, interrupts)
        except Exception:
            interrupts.check()  # whatever else went wrong then comes of it
            raise
        finally:
            for leg in legs:
                leg.close()
    return result


def _connect(leg: Leg, connect: Callable[..., Any], **more: Any) -> Any:
    """What a face's ``connect`` or ``jump`` returns."""
    return connect(
        leg.host,
        leg.port,
        host_key=leg.host_key,
        credentials=leg.credentials,
        config=leg.config,
        timeout=None,  # people type slowly, and each step of the login has its own deadline
        on_event=leg.on_event,
        **more,
    )


def _job(leg: Leg, job: Job[T], link: Link) -> Operation[T]:
    """The operation to run, and in the background what comes of the login."""
    yield Spawn(leg.after_login(link.hub))
    return (yield from job(link))


def _reached(leg: Leg, resolve: Resolve) -> Operation[socket.socket]:
    """A socket that leads to where a leg goes, if no other leads there."""
    from sshproto_io import ConnectFailed

    try:
        stream = yield from leg.reach.stream(resolve)
    except OSError as error:
        raise ConnectFailed.to(leg.host, leg.port, error) from error
    return stream.detach()


# -------------------------------------------------------------------------------------------------------------- signals


class _Signal(Exception):
    """A signal has come."""


class _Done(Exception):
    """The operation has ended."""


@contextlib.contextmanager
def alarm_bell() -> Iterator[int]:
    """A descriptor that can be read from when any signal came that somebody handles.

    The handlers themselves are run by the main thread, when it runs: not while it sleeps because another thread had the
    signal, or because the signal came just before it fell asleep. This is written to at once, and wakes it.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def signal_came(alarm: int, interrupts: Interrupts) -> bool:
    """Whether it is time to end; otherwise the alarm is quiet again."""
    with contextlib.suppress(BlockingIOError):
        os.read(alarm, 4096)
    try:
        interrupts.check()
    except Interrupted:
        return True
    return False


def _until_signal(alarm: int, interrupts: Interrupts, operation: Operation[T]) -> Operation[T]:
    """Run an operation, unless a signal comes."""
    results: list[T] = []
    with contextlib.suppress(_Done):
        yield Together(_finish(operation, results), _watch(alarm, interrupts))
    return results[0]


def _finish(operation: Operation[T], results: list[T]) -> Operation[None]:
    results.append((yield from operation))
    raise _Done


def _watch(alarm: int, interrupts: Interrupts) -> Operation[None]:
    while not signal_came(alarm, interrupts):
        yield Ready(alarm)
    raise _Signal


# ------------------------------------------------------------------------------------------------------------- blocking


def _blocking(legs: Sequence[Leg], job: Job[T], interrupts: Interrupts) -> T:
    """Connecting is not left to the face, whose ``connect`` only an exception from a signal's handler could end."""
    import socket

    from sshproto.operations.login import log_in
    from sshproto_io.blocking import Client

    with alarm_bell() as alarm, contextlib.ExitStack() as stack:
        client: Any = None
        for leg in legs:
            with leg.explained():
                sock = _reach(leg, client, alarm, interrupts)
                client = stack.enter_context(Client(sock, leg.config, leg.on_event, client))
                login = _here(log_in(client.hub, leg.host_key, leg.credentials))
                client.perform(_until_signal(alarm, interrupts, login))
        work = _job(legs[-1], job, Link(client.hub, socket.getaddrinfo))
        result: T = client.perform(_until_signal(alarm, interrupts, work))
    return result


def _reach(leg: Leg, through: Any, alarm: int, interrupts: Interrupts) -> socket.socket:
    """A socket that leads to where a leg goes."""
    import socket

    from sshproto_io.runner import Runner

    if through is not None:
        tunnel = _tunnel(through.hub, leg.host, leg.port)
        found: socket.socket = through.perform(_until_signal(alarm, interrupts, tunnel))
        return found
    return Runner().run(_until_signal(alarm, interrupts, _reached(leg, socket.getaddrinfo)))


def _tunnel(hub: Hub[ClientConnection], host: str, port: int) -> Operation[socket.socket]:
    """A socket that leads to a host, by a connection that the server makes."""
    import socket

    from sshproto.operations.forwarding import open_to, relay
    from sshproto_io.sockets import SocketStream

    channel = yield from open_to(hub, (host, port))
    try:
        ours, theirs = socket.socketpair()
        stream = SocketStream(theirs)
        try:
            yield Spawn(relay(channel, stream))
        except BaseException:
            ours.close()
            stream.close()
            raise
    except BaseException:
        channel.close()
        raise
    return ours


def _here(operation: Operation[T]) -> Operation[T]:
    """Make an operation's calls in this thread, which is the one that signals interrupt: they ask the user."""
    try:
        step = next(operation)
        while True:
            try:
                result = step.function(*step.args) if isinstance(step, Call) else (yield step)
            except Exception as error:  # noqa: BLE001  it is the operation's
                step = operation.throw(error)
            else:
                step = operation.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        operation.close()


# -------------------------------------------------------------------------------------------------------------- asyncio


def _asyncio(legs: Sequence[Leg], job: Job[T], interrupts: Interrupts) -> T:
    import asyncio

    from sshproto_io import asyncio as face
    from sshproto_io._asyncio_agents import World

    async def connecting(leg: Leg, through: Any) -> Any:
        if through is not None:
            return _connect(leg, through.jump)
        world = World()
        return _connect(leg, face.connect, sock=await world.perform(_reached(leg, world.resolve)))

    async def main(alarm: int) -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def look() -> None:
            if signal_came(alarm, interrupts):
                loop.remove_reader(alarm)
                if task is not None:  # it never is
                    task.cancel()

        loop.add_reader(alarm, look)
        async with contextlib.AsyncExitStack() as stack:
            client: Any = None
            for leg in legs:
                with leg.explained():
                    client = await stack.enter_async_context(await connecting(leg, client))
            loop.remove_reader(alarm)
            work = _job(legs[-1], job, Link(client.hub, client.resolve))
            result: T = await client.perform(_until_signal(alarm, interrupts, work))
        return result

    with alarm_bell() as alarm:
        try:
            return asyncio.run(main(alarm))
        except asyncio.CancelledError:
            raise _Signal from None


# ----------------------------------------------------------------------------------------------------------------- trio


def _trio(legs: Sequence[Leg], job: Job[T], interrupts: Interrupts) -> T:
    """It has an alarm of its own, and its handlers run when they should."""
    try:
        import trio
    except ImportError as error:
        raise Failure(
            f"--io trio: the package trio cannot be imported ({error}); pip install 'sshproto[trio]'"
        ) from None

    from sshproto_io import trio as face
    from sshproto_io._trio_agents import World

    alarm = interrupts.descriptor

    async def connecting(leg: Leg, through: Any) -> Any:
        if through is not None:
            return _connect(leg, through.jump)
        world = World()
        sock = await world.perform(_reached(leg, world.resolve))
        return _connect(leg, face.connect, stream=trio.SocketStream(trio.socket.from_stdlib_socket(sock)))

    async def watch(connected: trio.CancelScope, everything: trio.CancelScope) -> None:
        with connected:
            await trio.lowlevel.wait_readable(alarm)
            everything.cancel()

    async def main() -> T:
        problem: BaseException = _Signal()
        async with trio.open_nursery() as nursery:
            connected = trio.CancelScope()
            nursery.start_soon(watch, connected, nursery.cancel_scope)
            try:
                async with contextlib.AsyncExitStack() as stack:
                    client: Any = None
                    for leg in legs:
                        with leg.explained():
                            client = await stack.enter_async_context(await connecting(leg, client))
                    connected.cancel()
                    work = _job(legs[-1], job, Link(client.hub, client.resolve))
                    result: T = await client.perform(_until_signal(alarm, interrupts, work))
                return result
            except (Exception, Interrupted) as error:  # noqa: BLE001  the nursery would wrap it
                problem = error
                nursery.cancel_scope.cancel()
        raise problem

    return trio.run(main)


_FACES: dict[str, Callable[..., Any]] = {"blocking": _blocking, "asyncio": _asyncio, "trio": _trio}
