"""``sshproto agent unlock``: unlock an agent."""

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
        "unlock",
        help="unlock an agent",
        description="Unlock an agent with the passphrase that it was locked with.",
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
    return carry_out(_unlock, args)


def _unlock(args: argparse.Namespace) -> int:
    with opened(args) as agent:
        agent.unlock(passphrase(Terminal(), twice=False))
    say("Agent unlocked.")
    return 0
