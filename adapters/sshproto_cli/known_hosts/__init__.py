"""``sshproto known-hosts``: look into files of host keys, and edit them.

Each verb is a module, imported only when it is used.
"""

from __future__ import annotations

import argparse

VERBS = {
    "find": "the lines about a host",
    "add": "trust a host's keys, or an authority for hosts",
    "remove": "forget a host",
    "hash": "hide the names of hosts",
    "check": "whether a host has the key that is known",
}
"""The verbs and what they do. Each is a module ``sshproto_cli.known_hosts.<verb>`` with ``add_parser(subparsers)``, as
those of :data:`sshproto_cli.main.VERBS`."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line, without its own verbs.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    return subparsers.add_parser(
        "known-hosts",
        help="look into files of host keys, and edit them",
        description="Look into known_hosts, which says whose keys are whose, and edit it, as ssh-keygen -F, -R and -H"
        " do.",
    )
