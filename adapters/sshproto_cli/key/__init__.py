"""``sshproto key``: make, show and change keys, certificates and revocation lists.

Each verb is a module, imported only when it is used.
"""

from __future__ import annotations

import argparse

VERBS = {
    "generate": "make a key",
    "show": "what is in a file: keys, certificates, revocation lists",
    "convert": "another format, passphrase or comment; the public half",
    "certify": "sign certificates for users and hosts",
    "revoke": "make, update and ask revocation lists",
}
"""The verbs and what they do. Each is a module ``sshproto_cli.key.<verb>`` with ``add_parser(subparsers)``, as those
of :data:`sshproto_cli.main.VERBS`."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line, without its own verbs.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    return subparsers.add_parser(
        "key",
        help="make, show and change keys, certificates and revocation lists",
        description="Make, show and change keys, certificates and revocation lists: what ssh-keygen makes, and what it"
        " reads. No passphrase is taken from the command line, where every user of the machine could see it.",
    )
