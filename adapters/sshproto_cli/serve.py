"""``sshproto serve``: be a server, for tests and for the user who starts it.

Everything runs as that user; there is no change of identity, whatever name a client logs in with.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sshproto_cli.options import (
    Failure,
    add_algorithms,
    add_face,
    add_record,
    complain,
    describe,
    key_log,
    preferences,
    put,
    read_file,
    recording,
)

if TYPE_CHECKING:
    from sshproto.config import Preferences, ServerConfig
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.private import PrivateKey
    from sshproto.operations.forwarding import Address
    from sshproto_cli.gate import Gate
    from sshproto_cli.terminal import Interrupts
    from sshproto_cli.visitor import Visitor

FAILED = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "serve",
        help="be a server",
        description="Serve SSH until SIGTERM or SIGINT. When it is ready, 'listening on HOST:PORT' is printed. Without"
        " --exec and --forward clients may log in, but nothing is done for them.",
        epilog="Everything runs as the user who starts the server, whatever name a client gives: a key in"
        " --authorized-keys is good for every name, a certificate for those that it names, a password for the name on"
        " its line. Files of keys are read anew for each login.",
    )
    parser.add_argument("--listen", metavar="HOST:PORT", required=True, help="port 0 chooses one; [::1]:22 is IPv6")
    parser.add_argument("--host-key", metavar="FILE", action="append", required=True, help="a private key; one a type")
    parser.add_argument(
        "--host-certificate",
        metavar="FILE",
        action="append",
        default=[],
        help="a certificate of one of the host keys, for clients that ask for it",
    )
    parser.add_argument(
        "--authorized-keys", metavar="FILE", help="keys that may log in, with all the options of OpenSSH's format"
    )
    parser.add_argument(
        "--trusted-user-ca", metavar="FILE", help="keys of authorities whose certificates let their users in"
    )
    parser.add_argument(
        "--authorized-principals",
        metavar="FILE",
        help="with --trusted-user-ca: for whom the certificates have to be, in place of the user",
    )
    parser.add_argument(
        "--revoked-keys", metavar="FILE", help="keys and certificates that let nobody in: a KRL, or a list of keys"
    )
    parser.add_argument(
        "--touch-required", action="store_true", help="security keys have to be touched, even with no-touch-required"
    )
    parser.add_argument(
        "--verify-required", action="store_true", help="security keys have to verify their owners, by a PIN or the like"
    )
    parser.add_argument("--password-file", metavar="FILE", help="lines of the form user:password")
    parser.add_argument("--exec", dest="execute", action="store_true", help="run commands and shells, as yourself")
    parser.add_argument(
        "--agent-forwarding",
        action="store_true",
        help="with --exec: give programs the agent that their client forwards (ssh -A)",
    )
    parser.add_argument(
        "--x11", action="store_true", help="with --exec: give programs the display that their client forwards (ssh -X)"
    )
    parser.add_argument(
        "--forward",
        action="store_true",
        help="make connections for clients (ssh -L, -D, -J, -W) and listen for them (ssh -R), as yourself",
    )
    parser.add_argument(
        "--gateway-ports",
        action="store_true",
        help="with --forward: listen where the client says; otherwise only this machine gets to what it listens for",
    )
    add_face(parser)
    add_algorithms(parser)
    add_record(parser, many=True)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    from sshproto.errors import SSHError
    from sshproto_cli.terminal import Interrupted, Interrupts, fill_standard_descriptors

    fill_standard_descriptors()
    try:
        with Interrupts().installed() as interrupts:
            _address(args.listen)
            if args.gateway_ports and not args.forward:
                raise Failure("--gateway-ports goes with --forward")
            if (args.agent_forwarding or args.x11) and not args.execute:
                raise Failure("--agent-forwarding and --x11 go with --exec")
            config, welcome = _config(args), _welcome(args)
            if args.execute or args.forward:
                _settle()
            with interrupts.deferred():
                _FACES[args.io](args.listen, config, welcome, interrupts)
    except Interrupted:
        return 0
    except (Failure, SSHError, OSError) as error:
        complain(describe(error))
        return FAILED
    return 0


def _welcome(args: argparse.Namespace) -> Callable[[Any], Visitor]:
    """What makes the handler of a connection that has come."""
    from sshproto_cli.visitor import Services, Visitor

    gate = _gate(args)
    services = Services(
        execute=args.execute,
        forward=args.forward,
        anywhere=args.gateway_ports,
        agent=args.agent_forwarding,
        x11=args.x11,
    )

    def welcome(incoming: Any) -> Visitor:
        visitor = Visitor(incoming.peer, incoming.local, gate, services, verbose=args.verbose)
        incoming.hub.on_event = visitor.watcher()
        return visitor

    return welcome


def _config(args: argparse.Namespace) -> ServerConfig:
    from sshproto.config import SecurityKeyPolicy, ServerConfig

    chosen = preferences(args)
    keys = _host_keys(args, chosen)
    methods: list[str] = []
    if args.authorized_keys is not None or args.trusted_user_ca is not None:
        methods.append("publickey")
    if args.password_file is not None:
        methods += ("password", "keyboard-interactive")
    if not methods:
        raise Failure("nobody could log in: give --authorized-keys, --trusted-user-ca or --password-file")
    return ServerConfig(
        host_keys=tuple(keys),
        host_certificates=tuple(_host_certificate(path) for path in args.host_certificate),
        auth_methods=tuple(methods),
        # What a line or a certificate asks of a security key is in its permit.
        security_keys=SecurityKeyPolicy(user_presence=args.touch_required, user_verification=args.verify_required),
        preferences=chosen,
        record=recording(args, many=True),
        key_log=key_log(args),
    )


def _host_keys(args: argparse.Namespace, chosen: Preferences) -> list[PrivateKey]:
    keys: dict[str, PrivateKey] = {}
    for path in args.host_key:
        key = _host_key(path)
        if keys.setdefault(key.public_key.type, key) is not key:
            raise Failure(f"host key {path}: there is another key of type {key.public_key.type}")
    able = {name for key in keys.values() for name in key.public_key.signature_algorithms}
    if able.isdisjoint(chosen.host_key):
        raise Failure(
            f"no client could connect: of {', '.join(keys)} host keys, none can sign with {', '.join(chosen.host_key)}"
        )
    return list(keys.values())


def _host_key(path: str) -> PrivateKey:
    from sshproto.errors import KeyFormatError
    from sshproto.keys.private import PassphraseNeeded, PrivateKey
    from sshproto_cli.options import unlock, warn_of_readers
    from sshproto_cli.terminal import Terminal

    data = read_file(path, "host key", 1024 * 1024)
    try:
        key = PrivateKey.load(data)
        warn_of_readers(path)
        return key
    except PassphraseNeeded as locked:
        warn_of_readers(path)
        opened = unlock(data, path, Terminal())
        if opened is None:
            raise Failure(f"host key {path}: {locked}") from None
        return opened
    except KeyFormatError as error:
        raise Failure(f"host key {path}: {error}") from None


def _host_certificate(path: str) -> Certificate:
    from sshproto.errors import KeyFormatError
    from sshproto.keys.certificates import Certificate

    try:
        return Certificate.parse(read_file(path, "host certificate", 1024 * 1024))
    except KeyFormatError as error:
        raise Failure(f"host certificate {path}: {error}") from None


def _gate(args: argparse.Namespace) -> Gate:
    from pathlib import Path

    from sshproto_cli.gate import Gate, KeyFiles, read_passwords

    if args.authorized_principals is not None and args.trusted_user_ca is None:
        raise Failure("--authorized-principals goes with --trusted-user-ca")
    if args.revoked_keys is not None and args.authorized_keys is None and args.trusted_user_ca is None:
        raise Failure("--revoked-keys goes with --authorized-keys or --trusted-user-ca")
    files = {
        "keys": args.authorized_keys,
        "authorities": args.trusted_user_ca,
        "principals": args.authorized_principals,
        "revoked": args.revoked_keys,
    }
    # The working directory will be another one.
    keys = KeyFiles(**{name: Path(path).absolute() for name, path in files.items() if path is not None})
    usable = keys.check()
    passwords = None if args.password_file is None else read_passwords(args.password_file)
    if not usable and not passwords:
        given = (args.authorized_keys, args.trusted_user_ca, args.authorized_principals, args.password_file)
        where = " and ".join(path for path in given if path is not None)
        raise Failure(f"nobody could log in: there is no line in {where} that can be used")
    return Gate(keys, passwords)


def _address(text: str) -> tuple[str | None, int]:
    """Host and port of ``--listen``."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise Failure(f"--listen {text}: an IPv6 address stands in brackets: [::1]:22")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Failure(f"--listen {text}: expected HOST:PORT")
    return None if host in ("", "*") else host, int(port)


@contextmanager
def _listening(text: str) -> Iterator[None]:
    """Says it in our words if it cannot listen."""
    import os
    import socket

    try:
        yield
    except (OSError, UnicodeError) as error:
        # Python repeats the address behind the system's words.
        system = isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno
        problem = os.strerror(system) if system else describe(error)
        raise Failure(f"cannot listen on {text}: {problem}") from error


def _announce(addresses: Iterable[Address]) -> None:
    import sys

    from sshproto.operations.forwarding import show

    for address in addresses:
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]  closed: nobody wants to know
            try:
                put(f"listening on {show(address)}\n")
            except BrokenPipeError:
                raise Failure("standard output: nobody reads it") from None


def _settle() -> None:
    """Programs start in the user's home, and paths of sockets are meant from there; the server has no other use for a
    working directory. And it has to hear how programs end, even if whoever started it did not want to."""
    import os
    import signal

    from sshproto_cli.child import home

    try:
        os.chdir(home())
    except OSError:
        os.chdir("/")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


# ------------------------------------------------------------------------------------------------------------ the faces

Welcome = Callable[[Any], "Visitor"]


def _blocking(where: str, config: ServerConfig, welcome: Welcome, interrupts: Interrupts) -> None:
    import select
    import threading

    from sshproto_cli.faces import alarm_bell, signal_came
    from sshproto_cli.visitor import report_bug
    from sshproto_io import blocking

    threading.excepthook = lambda args: report_bug(args.exc_value or args.exc_type())
    with _listening(where):
        server = blocking.listen(*_address(where), config, welcome, on_bug=report_bug)
    # Another thread may have the signal: the interrupts' own descriptor is served by this one, when it runs.
    with alarm_bell() as alarm, server:
        _announce(server.addresses)
        while not signal_came(alarm, interrupts):
            select.select([alarm], [], [])


def _asyncio(where: str, config: ServerConfig, welcome: Welcome, interrupts: Interrupts) -> None:
    import asyncio

    from sshproto_io import asyncio as face

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_asyncio_bug)
        with _listening(where):
            server = await face.listen(*_address(where), config, welcome)
        async with server:
            _announce(server.addresses)
            came = asyncio.Event()
            loop.add_reader(interrupts.descriptor, came.set)
            await came.wait()
            loop.remove_reader(interrupts.descriptor)

    asyncio.run(main())


def _asyncio_bug(loop: object, context: dict[str, Any]) -> None:
    from sshproto_cli.visitor import report_bug

    report_bug(context.get("exception") or RuntimeError(context["message"]))


def _trio(where: str, config: ServerConfig, welcome: Welcome, interrupts: Interrupts) -> None:
    from contextlib import AsyncExitStack

    try:
        import trio
    except ImportError as error:
        raise Failure(
            f"--io trio: the package trio cannot be imported ({error}); pip install 'sshproto[trio]'"
        ) from None

    from sshproto_cli.visitor import report_bug
    from sshproto_io import trio as face

    async def main() -> None:
        async with AsyncExitStack() as stack:
            with _listening(where):
                server = await stack.enter_async_context(
                    face.listen(*_address(where), config, welcome, on_bug=report_bug)
                )
            _announce(server.addresses)
            await trio.lowlevel.wait_readable(interrupts.descriptor)

    trio.run(main)


_FACES = {"blocking": _blocking, "asyncio": _asyncio, "trio": _trio}
