"""``sshproto pcap``: look into captures.  Each verb is a module, imported only when it is used."""

from __future__ import annotations

import argparse

VERBS = {
    "info": "the connections of a capture, each in short",
    "decode": "all that was said, event by event",
    "follow": "the bytes of a channel",
    "cast": "a terminal session, for asciinema to play",
    "check": "what is wrong: attacks, weak algorithms, breaches of a policy",
    "diff": "the first difference between two connections",
    "timeline": "the picture of a connection",
}
"""The verbs and what they do. Each is a module ``sshproto_cli.pcap.<verb>`` with ``add_parser(subparsers)``, as those
of :data:`sshproto_cli.main.VERBS`."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line, without its own verbs.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    return subparsers.add_parser(
        "pcap",
        help="look into captures",
        description="Look into captures (pcap and pcapng, also compressed with gzip or zstd): find the SSH connections"
        " on whatever port, say all that is public of them, and with a key log open them.",
    )
