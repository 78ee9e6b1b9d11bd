"""``sshproto keylog``: check and convert key logs.  Each verb is a module, imported only when it is used."""

from __future__ import annotations

import argparse

VERBS = {
    "check": "what is in a key log, and what it opens",
    "convert": "from one form to another",
    "inject": "into a capture, or out of it",
}
"""The verbs and what they do. Each is a module ``sshproto_cli.keylog.<verb>`` with ``add_parser(subparsers)``, as those
of :data:`sshproto_cli.main.VERBS`."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line, without its own verbs.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    return subparsers.add_parser(
        "keylog",
        help="check and convert key logs",
        description="Check and convert key logs: the files, as Wireshark has them, with a line for each key exchange of"
        " SSH that opens what it protects. Whoever has such a file can read those connections.",
    )
