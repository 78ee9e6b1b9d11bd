"""``sshproto agent``: use an agent, and be one.  Each verb is a module, imported only when it is used."""

from __future__ import annotations

import argparse

VERBS = {
    "list": "the keys that an agent holds",
    "add": "have keys held",
    "remove": "have keys forgotten",
    "lock": "have an agent do nothing until it is unlocked",
    "unlock": "unlock an agent",
    "serve": "be an agent",
}
"""The verbs and what they do. Each is a module ``sshproto_cli.agent.<verb>`` with ``add_parser(subparsers)``, as those
of :data:`sshproto_cli.main.VERBS`."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line, without its own verbs.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    return subparsers.add_parser(
        "agent",
        help="use an agent, and be one",
        description="Use the agent whose socket SSH_AUTH_SOCK names, as ssh-add does; and be one, as ssh-agent is. An"
        " agent holds private keys and signs with them for who is connected to it, and gives none of them away.",
    )
