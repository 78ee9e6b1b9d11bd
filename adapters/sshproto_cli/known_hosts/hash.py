"""``sshproto known-hosts hash``: hide the names of hosts."""

from __future__ import annotations

import argparse

from sshproto_cli.known_hosts.common import FAILED, add_file, file
from sshproto_cli.options import carry_out, complain, put


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "hash",
        help="hide the names of hosts",
        description="Hash the names of hosts, so that the file does not tell where its owner goes, as ssh-keygen -H"
        " does. Patterns, and lines of authorities and of revoked keys, stay as they are. What the file was stays"
        " beside it, in FILE.old.",
        epilog=f"The exit status is 0, also if there was nothing to hash, and {FAILED} if the file can't be read or"
        " written.",
    )
    add_file(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_hash, args, FAILED)


def _hash(args: argparse.Namespace) -> int:
    from sshproto.keys.host_lines import hash_names
    from sshproto_cli.host_files import backup, rewrite

    path = file(args)
    edited = rewrite(path, hash_names)
    for line, why in edited.passed_over:
        complain(f"{path} line {line} stays as it is: {why}")
    count = len(edited.lines)
    if not count:
        put(f"{path}: there is nothing to hash\n")
        return 0
    put(f"{path}: {count} {'line' if count == 1 else 'lines'} hashed\n")
    complain(f"{backup(path)} still has the names; delete it when you have seen that all is well")
    return 0
