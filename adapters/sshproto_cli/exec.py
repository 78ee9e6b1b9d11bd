"""``sshproto exec``: run a command on another machine, with its input, output, errors and exit status as one's own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sshproto_cli.client import EPILOG, FAILED, add_command, add_options, command, guarded, route
from sshproto_cli.offers import Offers, add_offers, offers
from sshproto_cli.options import Failure

if TYPE_CHECKING:
    from sshproto.operations.steps import Operation
    from sshproto_cli.faces import Link
    from sshproto_cli.terminal import Interrupts


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "exec",
        help="run a command on another machine",
        usage="sshproto exec [OPTIONS] [USER@]HOST COMMAND...",
        description="Run COMMAND on HOST. Standard input, output and error are passed through; the exit status is the"
        f" command's, 128 and the signal's number if one ended it, or {FAILED} if something else went wrong.",
        epilog=EPILOG,
    )
    add_options(parser)
    add_offers(parser)
    add_command(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """

    def execute(interrupts: Interrupts) -> int:
        words = command(args)
        if not words:
            raise Failure("there is no command to run; sshproto shell is for shells")
        legs = route(args, interrupts)
        offered = offers(args.agent, args.x11)

        from sshproto_cli import faces

        return faces.carry_out(args.io, legs, lambda link: _execute(link, words, offered), interrupts)

    return guarded(execute)


def _execute(link: Link, words: str, offered: Offers) -> Operation[int]:
    from sshproto.channels.requests import Exec
    from sshproto.errors import RequestRefused
    from sshproto.operations.session import octets, start
    from sshproto_cli.remote import Remote

    try:
        agent, x11 = offered.agent, offered.display(link.resolve)
        channel = yield from start(link.hub, Exec(octets(words)), agent=agent, x11=x11)
    except RequestRefused:
        raise Failure("the server refused to run the command") from None
    try:
        program = Remote(channel)
        yield from program.attend()
        return program.status()
    finally:
        channel.close()
