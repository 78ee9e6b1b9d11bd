"""``sshproto known-hosts remove``: forget a host."""

from __future__ import annotations

import argparse

from sshproto_cli.known_hosts.common import FAILED, NOT_SO, STATUS, add_file, add_host, file, where
from sshproto_cli.options import carry_out, complain, put


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "remove",
        help="forget a host",
        description="Remove all lines about HOST, also those where its name is hashed or a pattern covers it, as"
        " ssh-keygen -R does. Lines of authorities and of revoked keys stay. What the file was stays beside it, in"
        " FILE.old.",
        epilog="The exit status is 0 if the file was changed, " + STATUS.format("if there is no line about HOST"),
    )
    add_file(parser)
    add_host(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_remove, args, FAILED)


def _remove(args: argparse.Namespace) -> int:
    from sshproto.keys import host_lines
    from sshproto.keys.public import fingerprint_of
    from sshproto.text import printable
    from sshproto_cli.host_files import backup, rewrite

    host, number = where(args)
    path = file(args)
    edited = rewrite(path, lambda content: host_lines.remove(content, host, number))
    for line, why in edited.passed_over:
        complain(f"{path} line {line} cannot be read, and stays: {why}")
    for gone in edited.lines:
        shown = "no key" if gone.blob is None else fingerprint_of(gone.blob)
        put(f"{path} line {gone.line} removed: {printable(gone.key.split()[0], 64)} {shown}\n")
    if not edited.lines:
        complain(f"{path}: there is no line about {args.host} that can be removed")
        return NOT_SO
    put(f"What it was is in {backup(path)}.\n")
    return 0
