"""``sshproto agent remove``: have keys forgotten."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sshproto_cli.agent.common import (
    REFUSED,
    STATUS,
    add_socket,
    carry_out,
    certificate_beside,
    defaults,
    opened,
    public,
)
from sshproto_cli.options import Failure, Misuse, complain, say

if TYPE_CHECKING:
    from sshproto.keys import Certificate, PublicKey


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "remove",
        help="have keys forgotten",
        description="Have an agent forget keys, and the certificates that lie beside them.",
        epilog=STATUS,
    )
    add_socket(parser)
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="a public key, a certificate, or a private key with its public key beside it (FILE.pub); the usual ones in"
        " ~/.ssh if not given",
    )
    parser.add_argument("-D", "--all", action="store_true", help="all that it holds")
    parser.add_argument("-k", "--plain", action="store_true", help="no certificates")
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
    return carry_out(_remove, args)


def _remove(args: argparse.Namespace) -> int:
    from sshproto.agent import AgentRefused

    if args.all and args.files:
        raise Misuse("--all and files do not go together")
    status = 0
    with opened(args) as agent:
        if args.all:
            agent.remove_all()
            if not args.quiet:
                say("All identities removed.")
            return 0
        for path in args.files or defaults():
            try:
                for name, key in _found(path, plain=args.plain):
                    agent.remove(key)
                    if not args.quiet:
                        say(f"Identity removed: {name}")
            except (Failure, AgentRefused) as failure:
                complain(f"{path}: {failure}" if isinstance(failure, AgentRefused) else str(failure))
                status = REFUSED
    return status


def _found(path: str, *, plain: bool) -> list[tuple[str, PublicKey | Certificate]]:
    """The key that a file names, and its certificate."""
    from sshproto.keys import Certificate

    name = path
    found = public(path)
    if found is None:
        name = f"{path}.pub"
        found = public(name)
    if found is None:
        raise Failure(f"{path}: there is no public key in it, nor in {name}")
    certificate = None if plain or isinstance(found, Certificate) else certificate_beside(path)
    return [(name, found)] + ([] if certificate is None else [(f"{path.removesuffix('.pub')}-cert.pub", certificate)])
