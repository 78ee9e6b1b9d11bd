"""``sshproto config``: what the files of ssh_config(5) say about a host."""

from __future__ import annotations

import argparse

from sshproto_cli.client import DEFAULT_PORT, FAILED, configurations, guarded
from sshproto_cli.options import Parser, complain, port, put
from sshproto_cli.settings import add_config


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "config",
        help="show what the configuration says about a host",
        usage="sshproto config [OPTIONS] [USER@]HOST",
        description="Show what would hold for HOST, in the lines of ssh -G, and on standard error what of it has no"
        " effect here. Nothing is connected to. Lists of algorithms are those that sshproto would offer.",
    )
    if isinstance(parser, Parser):
        parser.failure = FAILED
    add_config(parser)
    parser.add_argument("-p", dest="port", metavar="PORT", type=port, help=f"{DEFAULT_PORT} if nothing is said")
    parser.add_argument("-l", dest="user", metavar="USER", help="whom to log in as")
    parser.add_argument("-J", dest="jump", metavar="[USER@]HOST[:PORT][,...]", help="connect through these hosts")
    parser.add_argument("host", metavar="[USER@]HOST")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """

    def show(_: object) -> int:
        from sshproto.ssh_config import OURS
        from sshproto.text import printable
        from sshproto_cli.settings import rest

        found = configurations(args)[-1]
        put("".join(f"{printable(line, 65536)}\n" for line in found.shown(OURS)))
        for line in rest(found):
            complain(line)
        return 0

    return guarded(show)
