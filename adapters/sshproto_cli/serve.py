"""``sshproto serve``: be a server, for tests and for the user who starts it.

Everything runs as that user; there is no change of identity, whatever name a client logs in with.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sshproto_cli.options import Failure, add_algorithms, complain, describe, preferences, put, read_file

if TYPE_CHECKING:
    import socket

    from sshproto.config import Preferences, ServerConfig
    from sshproto.keys.private import PrivateKey
    from sshproto_cli.visitor import Gate

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
        " --exec clients may log in, but nothing is run for them.",
        epilog="Everything runs as the user who starts the server, whatever name a client gives: a key in"
        " --authorized-keys is good for every name, a password for the name on its line.",
    )
    parser.add_argument("--listen", metavar="HOST:PORT", required=True, help="port 0 chooses one; [::1]:22 is IPv6")
    parser.add_argument("--host-key", metavar="FILE", action="append", required=True, help="a private key; one a type")
    parser.add_argument("--authorized-keys", metavar="FILE", help="keys that may log in, in OpenSSH's format")
    parser.add_argument("--password-file", metavar="FILE", help="lines of the form user:password")
    parser.add_argument("--exec", dest="execute", action="store_true", help="run commands and shells, as yourself")
    add_algorithms(parser)
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
            from sshproto_cli.visitor import Visitor
            from sshproto_io.blocking import Server

            _address(args.listen)
            config, gate = _config(args), _gate(args)
            listener = _listen(args.listen)
            server = Server(
                listener,
                config,
                lambda driver, address: Visitor(driver, address, gate, execute=args.execute, verbose=args.verbose),
                on_bug=lambda error: complain(f"a bug: {type(error).__name__}: {error}"),
            )
            if args.execute:
                _go_home()
            with interrupts.deferred(server.stop):
                _announce(listener)
                server.serve()
    except Interrupted:
        return 0
    except (Failure, SSHError, OSError) as error:
        complain(describe(error))
        return FAILED
    return 0


def _config(args: argparse.Namespace) -> ServerConfig:
    from sshproto.config import ServerConfig

    chosen = preferences(args)
    keys = _host_keys(args, chosen)
    methods: list[str] = []
    if args.authorized_keys is not None:
        methods.append("publickey")
    if args.password_file is not None:
        methods += ("password", "keyboard-interactive")
    if not methods:
        raise Failure("nobody could log in: give --authorized-keys or --password-file")
    return ServerConfig(host_keys=tuple(keys), auth_methods=tuple(methods), preferences=chosen)


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


def _gate(args: argparse.Namespace) -> Gate:
    from pathlib import Path

    from sshproto_cli.visitor import Gate, check_authorized_keys, read_passwords

    usable = False
    keys = None
    if args.authorized_keys is not None:
        usable = check_authorized_keys(args.authorized_keys)  # it will be read again for each login
        keys = Path(args.authorized_keys).absolute()
    passwords = None if args.password_file is None else read_passwords(args.password_file)
    if not usable and not passwords:
        files = " and ".join(path for path in (args.authorized_keys, args.password_file) if path is not None)
        raise Failure(f"nobody could log in: there is no line in {files} that can be used")
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


def _listen(text: str) -> socket.socket:
    import os
    import socket

    from sshproto_io.blocking import listen

    try:
        return listen(*_address(text))
    except (OSError, UnicodeError) as error:
        # Python repeats the address behind the system's words.
        system = isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno
        problem = os.strerror(system) if system else describe(error)
        raise Failure(f"cannot listen on {text}: {problem}") from error


def _announce(listener: socket.socket) -> None:
    import sys

    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]  closed: nobody wants to know
        try:
            put(f"listening on {shown}:{port}\n")
        except BrokenPipeError:
            raise Failure("standard output: nobody reads it") from None


def _go_home() -> None:
    """Programs start in the user's home; the server has no other use for a working directory."""
    import os

    from sshproto_cli.session import home

    try:
        os.chdir(home())
    except OSError:
        os.chdir("/")
