"""``sshproto agent add``: have keys held."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sshproto_cli.agent.common import (
    REFUSED,
    STATUS,
    add_socket,
    carry_out,
    certificate_beside,
    defaults,
    duration,
    home,
    opened,
)
from sshproto_cli.options import Failure, Misuse, complain, read_file, say
from sshproto_cli.terminal import Terminal

if TYPE_CHECKING:
    from sshproto.agent import DestinationConstraint
    from sshproto.keys import Certificate, PrivateKey
    from sshproto_io.blocking import Agent

_STDIN = "-"
_SYSTEM = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_USER = ("known_hosts", "known_hosts2")
_LEAST = 1024  # bits of an RSA key: what is too weak is the agent's to say
_LARGEST = 64 * 1024


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "add",
        add_help=False,
        help="have keys held",
        description="Have an agent hold private keys, and beside each the certificate in the file of the same name with"
        " -cert.pub, if there is one. Without a file these are the usual ones in ~/.ssh.",
        epilog="A DEST of -h is [USER@]HOST, or HOST>[USER@]HOST for a hop from one host to another; a host with a port"
        f" of its own is [HOST]:PORT, and its keys have to be known. {STATUS}",
    )
    parser.add_argument("--help", action="help", help="show this help message and exit")
    add_socket(parser)
    parser.add_argument("files", metavar="FILE", nargs="*", help=f'a private key; "{_STDIN}" is standard input')
    parser.add_argument(
        "-t", "--lifetime", metavar="TIME", type=duration, help="after which the agent forgets it: 90, 10m, 1h30m"
    )
    parser.add_argument("-c", "--confirm", action="store_true", help="have the agent ask each time that it is used")
    parser.add_argument(
        "-h",
        "--destination",
        metavar="DEST",
        action="append",
        default=[],
        help="good for logins there only; may be given several times",
    )
    parser.add_argument(
        "-H",
        "--known-hosts",
        metavar="FILE",
        action="append",
        default=[],
        help="where the keys of those hosts stand; may be given several times; the user's and the system's known_hosts"
        " if not given",
    )
    parser.add_argument("-k", "--plain", action="store_true", help="no certificates")
    parser.add_argument("-C", "--certificates", action="store_true", help="nothing but certificates")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing of what went well")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_add, args)


def _add(args: argparse.Namespace) -> int:
    from sshproto.agent import AgentRefused

    if args.plain and args.certificates:
        raise Misuse("-k and -C leave nothing to add")
    files = args.files or defaults()
    constraints: dict[str, Any] = {
        "lifetime": args.lifetime,
        "confirm": args.confirm,
        "destinations": _destinations(args.destination, args.known_hosts),
    }
    terminal = Terminal()
    status = 0
    with opened(args) as agent:
        for path in files:
            try:
                key = _load(path, terminal)
                certificate = None if args.plain or path == _STDIN else _certificate(path, key)
                if args.certificates and certificate is None:
                    raise Failure(f"{path}: there is no certificate beside it")
                if not args.certificates:
                    _hold(agent, path, key, None, constraints, quiet=args.quiet)
                if certificate is not None:
                    _hold(agent, path, key, certificate, constraints, quiet=args.quiet)
            except (Failure, AgentRefused) as failure:
                complain(f"{path}: {failure}" if isinstance(failure, AgentRefused) else str(failure))
                status = REFUSED
    return status


def _load(path: str, terminal: Terminal) -> PrivateKey:
    from sshproto_cli.key.common import load_private

    data = sys.stdin.buffer.read(_LARGEST) if path == _STDIN else read_file(path, "private key", _LARGEST)
    return load_private(path, data, terminal, minimum=_LEAST)[0]


def _certificate(path: str, key: PrivateKey) -> Certificate | None:
    certificate = certificate_beside(path)
    if certificate is not None and certificate.key != key.public_key:
        raise Failure(f"{path}-cert.pub is the certificate of another key")
    return certificate


def _hold(
    agent: Agent,
    path: str,
    key: PrivateKey,
    certificate: Certificate | None,
    constraints: dict[str, Any],
    *,
    quiet: bool,
) -> None:
    from sshproto.text import printable

    words = key.comment or (certificate.comment if certificate is not None else "")
    agent.add(key, certificate, comment=words or ("standard input" if path == _STDIN else path), **constraints)
    if quiet:
        return
    if certificate is not None:
        say(f"Certificate added: {path}-cert.pub ({printable(certificate.key_id)})")
    else:
        say(f"Identity added: {path} ({printable(key.comment) or 'no comment'})")
    if constraints["lifetime"] is not None:
        say(f"Lifetime set to {constraints['lifetime']} seconds")
    if constraints["confirm"]:
        say("The user must confirm each use of the key")


def _destinations(words: list[str], files: list[str]) -> tuple[DestinationConstraint, ...]:
    """What ``-h`` says.

    Raises:
        Failure: It is nothing that can be, or the hosts are not known.
    """
    if not words:
        return ()
    from sshproto.agent import destination
    from sshproto.errors import InvalidArgument
    from sshproto.keys.known_hosts import KnownHosts, parse

    places = [Path(file) for file in files] or [home(name) for name in _USER] + [Path(name) for name in _SYSTEM]
    contents = [read_file(str(place), "known_hosts") for place in places if files or place.exists()]
    entries = [entry for content in contents for entry in parse(content).entries]
    try:
        return tuple(destination(word, KnownHosts(tuple(entries))) for word in words)
    except InvalidArgument as error:
        raise Failure(str(error)) from None
