"""``sshproto pcap info``: the connections of a capture, each in short.

With ``--json`` each connection is one JSON object on a line of its own: the columns of
:data:`sshproto.replay.rows.CONNECTION_COLUMNS`, but ``decrypted`` is null, or if all of the connection could be read
``{"client": {"messages": [...], "payload_sha256": "..."}, "server": {...}}``: the numbers of the messages in their
order, and the SHA-256 of all payloads.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sshproto_cli.options import complain
from sshproto_cli.pcap import opening

if TYPE_CHECKING:
    from sshproto.replay.analysis import Conversation
    from sshproto_cli.pcap.views import JsonView, TextView


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "info",
        help="the connections of a capture, each in short",
        description="Show the SSH connections of captures: who, which versions and algorithms, the host key, how long"
        " and how much, whether it is all there, whether it could be opened, and what is wrong with it.",
        epilog="The exit status is 0 if the captures could be read to their ends, 1 if not, 2 for options that make no"
        " sense.",
    )
    opening.add_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a connection, for programs")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return opening.carry_out(_info, args)


def _info(args: argparse.Namespace) -> int:
    from sshproto_cli.pcap.views import JsonView, TextView

    form: type[JsonView | TextView] = JsonView if args.json else TextView
    views: dict[int, JsonView | TextView] = {}

    def begin(conversation: Conversation) -> None:
        view = views[conversation.connection.number] = form(conversation)
        conversation.sinks.append(view)

    with opening.LineOutput() as output:
        found = False
        queue = opening.Queue(output.line, at_once=opening.STDIN in args.files)
        for conversation in opening.conversations(args, ask=begin, output=output):
            found = True
            number = conversation.connection.number
            queue.add(number, views.pop(number).text(), views)
        queue.end()
    if not found:
        complain("there is no SSH connection in it")
    return 0
