"""``sshproto agent lock``: have an agent do nothing until it is unlocked."""

from __future__ import annotations

import argparse

from sshproto_cli.agent.common import PASSPHRASE_VARIABLE, STATUS, add_socket, carry_out, opened, passphrase
from sshproto_cli.options import say
from sshproto_cli.terminal import Terminal


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "lock",
        help="have an agent do nothing until it is unlocked",
        description="Lock an agent with a passphrase: until it is unlocked with the same one, it shows no keys and"
        " signs nothing.",
        epilog=f"The passphrase is asked for, or taken from {PASSPHRASE_VARIABLE}. {STATUS}",
    )
    add_socket(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_lock, args)


def _lock(args: argparse.Namespace) -> int:
    with opened(args) as agent:
        agent.lock(passphrase(Terminal(), twice=True))
    say("Agent locked.")
    return 0
