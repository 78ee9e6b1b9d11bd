"""Operations on a connection, under the face that the user has chosen.

A face is imported when it is wanted, and its framework with it. All of them do the same here: connect leg by leg, run
an operation on the last connection, and close them all, the last one first. A signal ends whichever of this goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from sshproto.operations.steps import Operation, Ready, Spawn, Together
from sshproto_cli.options import Failure

if TYPE_CHECKING:
    import socket

    from sshproto.client import ClientConnection
    from sshproto.operations.hub import Hub
    from sshproto_cli.client import Leg
    from sshproto_cli.terminal import Interrupts
    from sshproto_io.sockets import Resolve

T = TypeVar("T")


@attrs.frozen
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
        job: The operation. It must not wait for the descriptor of ``interrupts``.
        interrupts: Installed; a signal that comes cancels all.

    Raises:
        Interrupted: A signal came; everything is closed.
        Failure: The face is not there, or something cannot be connected to.
        Exception: What the operation raises.
    """

    def guarded(link: Link) -> Operation[T]:
        return _until_signal(interrupts, job(link))

    try:
        result: T = _FACES[face](legs, guarded, interrupts)
    except Exception:
        interrupts.check()  # whatever else went wrong then comes of it
        raise
    return result


def _connect(leg: Leg, through: Any, connect: Callable[..., Any]) -> Any:
    """What a face's ``connect`` returns, or its ``jump`` if there is a connection to go through."""
    return (connect if through is None else through.jump)(
        leg.host,
        leg.port,
        host_key=leg.host_key,
        credentials=leg.credentials,
        config=leg.config,
        timeout=None,  # people type slowly, and each step of the login has its own deadline
        on_event=leg.on_event,
    )


class _Signal(Exception):
    """A signal has come."""


class _Done(Exception):
    """The operation has ended."""


def _until_signal(interrupts: Interrupts, operation: Operation[T]) -> Operation[T]:
    """Run an operation, unless a signal comes."""
    results: list[T] = []
    with contextlib.suppress(_Done):
        yield Together(_finish(operation, results), _watch(interrupts))
    return results[0]


def _finish(operation: Operation[T], results: list[T]) -> Operation[None]:
    results.append((yield from operation))
    raise _Done


def _watch(interrupts: Interrupts) -> Operation[None]:
    yield Ready(interrupts.descriptor)
    raise _Signal


# ------------------------------------------------------------------------------------------------------------ the faces


def _blocking(legs: Sequence[Leg], job: Job[T], interrupts: Interrupts) -> T:
    import socket

    from sshproto.operations.login import log_in
    from sshproto_io.blocking import Client

    going: list[socket.socket] = []

    def end() -> None:
        """Called by the handler of a signal, so it touches nothing but the socket: the login ends with it."""
        for sock in going:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    with interrupts.deferred(end), contextlib.ExitStack() as stack:
        client: Any = None
        for leg in legs:
            with leg.explained():
                sock = _reach(leg, client, interrupts)
                client = stack.enter_context(Client(sock, leg.config, leg.on_event, client))
                going.append(sock)
                interrupts.check()
                # Alone, so that what it asks of the user is asked in this thread.
                client.perform(log_in(client.hub, leg.host_key, leg.credentials))
                going.clear()
        result: T = client.perform(job(Link(client.hub, socket.getaddrinfo)))
    return result


def _reach(leg: Leg, through: Any, interrupts: Interrupts) -> socket.socket:
    """A socket that leads to where a leg goes, unless a signal comes.

    This is not left to ``connect`` and ``jump``, which nothing ends but an exception: one that a signal's handler
    raises could tear whatever goes on.
    """
    from sshproto_io import ConnectFailed
    from sshproto_io.runner import Runner
    from sshproto_io.sockets import dial

    if through is not None:
        found: socket.socket = through.perform(_until_signal(interrupts, _tunnel(through.hub, leg.host, leg.port)))
        return found
    try:
        return Runner().run(_until_signal(interrupts, dial((leg.host, leg.port)))).detach()
    except OSError as error:
        raise ConnectFailed.to(leg.host, leg.port, error) from error


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


def _asyncio(legs: Sequence[Leg], job: Job[T], interrupts: Interrupts) -> T:
    import asyncio

    from sshproto_io import asyncio as face

    async def main() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def cancel() -> None:
            loop.remove_reader(interrupts.descriptor)
            if task is not None:  # it never is
                task.cancel()

        loop.add_reader(interrupts.descriptor, cancel)
        async with contextlib.AsyncExitStack() as stack:
            client: Any = None
            for leg in legs:
                with leg.explained():
                    client = await stack.enter_async_context(_connect(leg, client, face.connect))
            loop.remove_reader(interrupts.descriptor)
            result: T = await client.perform(job(Link(client.hub, client.resolve)))
        return result

    with interrupts.deferred():
        try:
            return asyncio.run(main())
        except asyncio.CancelledError:
            raise _Signal from None


def _trio(legs: Sequence[Leg], job: Job[T], interrupts: Interrupts) -> T:
    try:
        import trio
    except ImportError as error:
        raise Failure(
            f"--io trio: the package trio cannot be imported ({error}); pip install 'sshproto[trio]'"
        ) from None

    from sshproto_cli.terminal import Interrupted
    from sshproto_io import trio as face

    async def watch(done: trio.CancelScope, everything: trio.CancelScope) -> None:
        with done:
            await trio.lowlevel.wait_readable(interrupts.descriptor)
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
                            client = await stack.enter_async_context(_connect(leg, client, face.connect))
                    connected.cancel()
                    result: T = await client.perform(job(Link(client.hub, client.resolve)))
                return result
            except (Exception, Interrupted) as error:  # noqa: BLE001  the nursery would wrap it
                problem = error
                nursery.cancel_scope.cancel()
        raise problem

    with interrupts.deferred():
        return trio.run(main)


_FACES: dict[str, Callable[..., Any]] = {"blocking": _blocking, "asyncio": _asyncio, "trio": _trio}
