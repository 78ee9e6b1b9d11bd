"""``sshproto exec``: run a command on another machine, with its input, output, errors and exit status as one's own."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from sshproto_cli.client import EPILOG, FAILED, add_command, add_options, command, guarded, route
from sshproto_cli.offers import add_offers
from sshproto_cli.options import Failure, complain

if TYPE_CHECKING:
    from sshproto.operations.steps import Operation
    from sshproto_cli.faces import Link
    from sshproto_cli.session import Session
    from sshproto_cli.terminal import Interrupts


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "exec",
        help="run a command on another machine",
        usage="sshproto exec [OPTIONS] [USER@]HOST [COMMAND...]",
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
        legs = route(args, interrupts)

        from sshproto_cli import faces
        from sshproto_cli.session import Session, idle

        session = Session(args, legs[-1], words)
        if session.none:
            return faces.carry_out(args.io, legs, lambda link: session.with_forwards(link, idle), interrupts)
        if not session.command:
            raise Failure("there is no command to run; sshproto shell is for shells")
        tty = legs[-1].settings.request_tty
        if tty in ("yes", "force"):
            if os.isatty(0):
                from sshproto_cli.shell import interactive, read_escape

                escape = read_escape(legs[-1].settings.escape_char)
                return interactive(args.io, legs, session, escape, interrupts)
            if tty == "force":
                complain("RequestTTY force: standard input is no terminal, so there is none at the other side either")
        return faces.carry_out(
            args.io, legs, lambda link: session.with_forwards(link, lambda link: _execute(link, session)), interrupts
        )

    return guarded(execute)


def _execute(link: Link, session: Session) -> Operation[int]:
    from sshproto.errors import RequestRefused
    from sshproto_cli.remote import Remote

    try:
        channel = yield from session.start(link)
    except RequestRefused:
        raise Failure("the server refused to run the command") from None
    try:
        program = Remote(channel)
        yield from program.attend()
        return program.status()
    finally:
        channel.close()
