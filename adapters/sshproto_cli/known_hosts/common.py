"""What the verbs of ``sshproto known-hosts`` share: which file, which host."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sshproto_cli.options import Failure, Misuse, port, seconds

if TYPE_CHECKING:
    from sshproto.keys.public import PublicKey

NOT_SO = 1
"""The status when nothing was found, or a host has not the key that is known."""
FAILED = 255
"""The status when a file or a host could not be read."""
DEFAULT_PORT = 22

_SYSTEM = Path("/etc/ssh/ssh_known_hosts")
_BRACKETS = re.compile(r"\[([^\[\]]+)\](?::([0-9]+))?")
_LONGEST_TIMEOUT = 3600.0
_DEFAULT_TIMEOUT = 10.0

STATUS = f"{NOT_SO} {{}}, and {FAILED} if a file can't be read or written."


def add_file(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the option that says which file."""
    if several:
        parser.add_argument(
            *("-f", "--file"),
            metavar="FILE",
            action="append",
            help=f"instead of ~/.ssh/known_hosts and {_SYSTEM}; may be given more than once",
        )
    else:
        parser.add_argument("-f", "--file", metavar="FILE", help="instead of ~/.ssh/known_hosts")


def add_host(parser: argparse.ArgumentParser) -> None:
    """Add what says which host."""
    parser.add_argument("-p", dest="port", metavar="PORT", type=port)
    parser.add_argument(
        "host", metavar="HOST", help="its name or address; [HOST]:PORT, as in the file, is HOST -p PORT"
    )


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """Add the option for those who ask a server."""
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds(_LONGEST_TIMEOUT),
        default=_DEFAULT_TIMEOUT,
        help="how long to wait for a connection, and then for the server's part of it; %(default)g if not given",
    )


def where(args: argparse.Namespace) -> tuple[str, int]:
    """The host and the port.

    Raises:
        Misuse: They are none.
    """
    from sshproto.errors import InvalidArgument
    from sshproto.keys.known_hosts import lookup_name

    host, number = str(args.host), args.port
    if found := _BRACKETS.fullmatch(host):
        host = found[1]
        given = int(found[2]) if found[2] else None
        if None not in (given, number) and given != number:
            raise Misuse(f"two ports for {host}: {given} and {number}")
        number = number or given
    try:
        lookup_name(host, number or DEFAULT_PORT)
    except InvalidArgument as error:
        raise Misuse(str(error)) from None
    return host, number or DEFAULT_PORT


def file(args: argparse.Namespace) -> Path:
    """The file that is to be edited."""
    return Path(args.file) if args.file is not None else _own()


def files(args: argparse.Namespace) -> tuple[Path, ...]:
    """The files that are to be read.

    Raises:
        Failure: One that was named is not there.
    """
    if args.file is None:
        return _own(), _SYSTEM
    paths = tuple(map(Path, args.file))
    for path in paths:
        if not path.exists():
            raise Failure(f"{path}: No such file or directory")
    return paths


def _own() -> Path:
    try:
        return Path.home() / ".ssh" / "known_hosts"
    except RuntimeError as error:
        raise Failure(str(error)) from None


def show(key: PublicKey) -> str:
    """A key in a few words."""
    return f"{key.type} {key.fingerprint()}"
