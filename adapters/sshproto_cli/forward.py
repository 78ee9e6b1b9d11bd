"""``sshproto forward``: connections through a server, from here, from there, or wherever a SOCKS client wants to go."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from sshproto_cli.client import EPILOG, FAILED, add_options, guarded, route
from sshproto_cli.options import Failure, complain, put

if TYPE_CHECKING:
    from sshproto.client import ClientConnection
    from sshproto.operations.forwarding import Address, ByteStream
    from sshproto.operations.hub import Hub
    from sshproto.operations.steps import Operation
    from sshproto.ssh_config import HostConfig
    from sshproto_cli.faces import Link
    from sshproto_cli.specs import DynamicForward, LocalForward, RemoteForward
    from sshproto_cli.terminal import Interrupts
    from sshproto_io.sockets import SocketListener

    Spec = LocalForward | RemoteForward | DynamicForward


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "forward",
        help="take connections through another machine",
        usage="sshproto forward [OPTIONS] {-L SPEC | -R SPEC | -D SPEC}... [USER@]HOST",
        description="Take connections through HOST. When all is set up there is a line on standard output for each"
        " forward; a forward that can't be set up ends it all. It goes on until SIGINT or SIGTERM, with status 0, or"
        f" until the connection ends, with {FAILED}. A part of SPEC with a slash is the path of a socket.",
        epilog=EPILOG,
    )
    for option, spec, purpose in (
        ("-L", "[BIND:]PORT:HOST:PORT", "listen here, connect from there"),
        ("-R", "[BIND:]PORT:HOST:PORT", "listen there, connect from here; port 0 lets the server choose one"),
        ("-D", "[BIND:]PORT", "listen here as a SOCKS proxy, connect from there"),
    ):
        parser.add_argument(
            option, dest="forwards", metavar=spec, action="append", type=_Option(option), default=[], help=purpose
        )
    add_options(parser)
    parser.set_defaults(run=run)
    return parser


class _Option:
    """Keeps together which option it was, and its argument: the order of all of them counts."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, text: str) -> tuple[str, str]:
        return self._name, text


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    import signal

    def forward(interrupts: Interrupts) -> int:
        from sshproto_cli.terminal import Interrupted

        _read(args.forwards)  # what is wrong with them is said before anything else
        legs = route(args, interrupts)
        settings = legs[-1].settings
        job = _Forwarding([*_read(args.forwards, everywhere=settings.gateway_ports), *configured(settings)])

        from sshproto_cli import faces

        try:
            faces.carry_out(args.io, legs, job.run, interrupts)
        except Interrupted as interrupted:
            if not job.ready or interrupted.signal not in (signal.SIGINT, signal.SIGTERM):
                raise
        return 0

    return guarded(forward)


def _read(wanted: list[tuple[str, str]], *, everywhere: bool = False) -> list[Spec]:
    """What options and their arguments ask for.

    Args:
        wanted: Options and their arguments.
        everywhere: Where nothing else is said, listen on this side for other machines, too.

    Raises:
        Failure: They make no sense.
    """
    from sshproto_cli.specs import EVERYWHERE, LOOPBACK, dynamic_forward, local_forward, remote_forward

    usual = EVERYWHERE if everywhere else LOOPBACK
    read: dict[str, Callable[[str], Spec]] = {
        "-L": lambda text: local_forward(text, usual),
        "-R": remote_forward,
        "-D": lambda text: dynamic_forward(text, usual),
    }
    return [read[name](text) for name, text in wanted]


def configured(settings: HostConfig) -> list[Spec]:
    """The forwards of a configuration.

    Raises:
        Failure: One can't be had here.
    """
    from sshproto_cli.specs import EVERYWHERE, LOOPBACK, DynamicForward, LocalForward, RemoteForward

    def listening(listen: str | tuple[str | None, int], usual: str) -> Address:
        if isinstance(listen, str):
            return listen
        host, number = listen
        return usual if host is None else EVERYWHERE if host == "*" else host, number

    here = EVERYWHERE if settings.gateway_ports else LOOPBACK
    found: list[Spec] = [
        LocalForward(listening(one.listen, here), one.target)
        for one in settings.local_forwards
        if one.target is not None  # it always has one
    ]
    for one in settings.remote_forwards:
        if one.target is None:
            raise Failure(f"RemoteForward {one.shown()}: a SOCKS proxy at the server's side is not supported")
        found.append(RemoteForward(listening(one.listen, LOOPBACK), one.target))
    found += [DynamicForward(listening(one.listen, here)) for one in settings.dynamic_forwards]
    return found


def background(
    link: Link, wanted: list[Spec], stack: contextlib.ExitStack, *, strict: bool
) -> Operation[list[Operation[None]]]:
    """Set forwards up that go on beside something else.

    Args:
        link: The connection.
        wanted: Which.
        stack: What is to be closed in the end.
        strict: All of them have to be had. Otherwise one that can't is told, and the others go on without it.

    Returns:
        The operations that do it.

    Raises:
        Failure: One can't be set up.
    """
    jobs: list[Operation[None]] = []
    for spec in wanted:
        try:
            _, job = yield from _set_up(link, spec, stack)
        except Failure as failure:
            if strict:
                raise
            complain(str(failure))
        else:
            jobs.append(job)
    return jobs


class _Forwarding:
    """All that is to be forwarded.

    Args:
        specs: Which.

    Attributes:
        ready: It is set up.

    Raises:
        Failure: There is nothing.
    """

    def __init__(self, specs: list[Spec]) -> None:
        if not specs:
            raise Failure("nothing to forward: give -L, -R or -D")
        self._specs = specs
        self.ready = False

    def run(self, link: Link) -> Operation[None]:
        """Forward until the connection ends.

        Raises:
            Failure: One can't be set up, or listens no more.
            ConnectionLoss: The connection has ended.
        """
        from sshproto.operations.steps import Together

        with contextlib.ExitStack() as stack:
            lines: list[str] = []
            jobs: list[Operation[None]] = []
            for spec in self._specs:
                line, job = yield from _set_up(link, spec, stack)
                lines.append(f"forwarding {line}\n")
                jobs.append(_lasting(link.hub, job, line))
            put("".join(lines))
            self.ready = True
            yield Together(_until_ended(link.hub), *jobs)


def _until_ended(hub: Hub[ClientConnection]) -> Operation[None]:
    yield from hub.until_ended()
    hub.check()


def _lasting(hub: Hub[ClientConnection], job: Operation[None], line: str) -> Operation[None]:
    """A job that is to last as long as the connection."""
    yield from job
    if hub.lost is None:
        raise Failure(f"forwarding {line} has ended: nobody listens any more")


def _set_up(link: Link, spec: Spec, stack: contextlib.ExitStack) -> Operation[tuple[str, Operation[None]]]:
    """Set up one forward.

    Args:
        link: The connection.
        spec: Which.
        stack: What is to be closed in the end.

    Returns:
        What it is, in words, and the operation that does it.
    """
    from sshproto.operations.forwarding import forward_remote, listen, show, take_all
    from sshproto.operations.socks import forward_dynamic
    from sshproto_cli.specs import LocalForward, RemoteForward

    if isinstance(spec, RemoteForward):
        from sshproto.errors import RequestRefused

        target = spec.target
        try:
            invited = yield from listen(link.hub, spec.listen)
        except RequestRefused as refusal:
            raise Failure(f"the server refuses to listen at {_named(spec.listen)}") from refusal
        stack.callback(invited.close)
        line = f"{_named(invited.address)} of the server to {show(target)}"
        return line, forward_remote(link.hub, invited, lambda _: _dial(link, target))
    listener = yield from _listen(link, spec.listen)
    stack.callback(listener.close)
    here = " and ".join(map(show, listener.addresses))
    if isinstance(spec, LocalForward):
        return f"{here} to {show(spec.target)}", take_all(listener, _carrier(link, spec.target))
    return f"{here} as a SOCKS proxy", forward_dynamic(link.hub, listener)


def _named(address: Address) -> str:
    from sshproto.operations.forwarding import show

    return show(address if isinstance(address, str) else (address[0] or "*", address[1]))


def _listen(link: Link, address: Address) -> Operation[SocketListener]:
    from sshproto_io.sockets import listen_at

    try:
        return (yield from listen_at(address, link.resolve))
    except OSError as error:
        words = (error.strerror or str(error)).partition(" (while")[0]  # the rest says at length what it was doing
        raise Failure(f"cannot listen at {_named(address)}: {words}") from error


def _carrier(link: Link, target: Address) -> Callable[[ByteStream], Operation[None]]:
    """Takes connections to ``target``, as seen from the server."""
    from sshproto.errors import OpenRefused
    from sshproto.operations.forwarding import open_to, relay, show

    def carry(stream: ByteStream) -> Operation[None]:
        try:
            channel = yield from open_to(link.hub, target, stream.origin)
        except OpenRefused as refusal:
            complain(f"the server cannot connect to {show(target)}: {refusal.description or refusal}")
            raise
        yield from relay(channel, stream)

    return carry


def _dial(link: Link, target: Address) -> Operation[ByteStream]:
    from sshproto.operations.forwarding import show
    from sshproto_io.sockets import dial

    try:
        return (yield from dial(target, link.resolve))
    except OSError as error:
        complain(f"cannot connect to {show(target)}: {error.strerror or error}")
        raise
