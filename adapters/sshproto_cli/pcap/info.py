"""``sshproto pcap info``: the connections of a capture, each in short.

With ``--json``, or ``--format jsonl``, each connection is one JSON object on a line of its own: the columns of
:data:`sshproto.replay.rows.CONNECTION_COLUMNS`, but ``decrypted`` is null, or if all of the connection could be read
``{"client": {"messages": [...], "payload_sha256": "..."}, "server": {...}}``: the numbers of the messages in their
order, and the SHA-256 of all payloads.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any, cast

from sshproto_cli.options import Failure, Misuse, carry_out, complain
from sshproto_cli.output import STDOUT, Output
from sshproto_cli.pcap import opening

if TYPE_CHECKING:
    from collections.abc import Callable

    from sshproto.replay.analysis import Conversation
    from sshproto_cli.pcap.views import JsonView, RowView, TextView

TABLES = ("parquet", "arrow")
FORMS = ("text", "jsonl", *TABLES)

_MOST_JOBS = 1024


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
    parser.add_argument("--json", action="store_true", help="the same as --format jsonl")
    parser.add_argument(
        "--format",
        choices=FORMS,
        default=FORMS[0],
        help="text for people (the default); jsonl: one JSON object a connection; parquet, arrow: a table, for which"
        " sshproto[columns] is needed",
    )
    parser.add_argument("-o", dest="output", metavar="OUT", default=STDOUT, help="write to a file")
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=_jobs,
        help="take each FILE for a capture of its own, and read so many at once; 0 is one for each processor",
    )
    parser.set_defaults(run=run)
    return parser


def _jobs(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > _MOST_JOBS:
        raise argparse.ArgumentTypeError(f"not a number of processes up to {_MOST_JOBS}: {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_info, args)


def _info(args: argparse.Namespace) -> int:
    if args.json:
        args.format = "jsonl"
    if args.format in TABLES and args.output == STDOUT:
        raise Misuse(f"--format {args.format} takes a file: -o says which")
    if args.jobs is not None and args.connection:
        raise Misuse("-n does not go with --jobs, with which each file has its own numbers")
    with contextlib.ExitStack() as stack:
        take, output = _target(args, stack)
        read = _together if args.jobs is None else _apart
        count, problems = read(args, take, output)
    for problem in problems[:-1]:
        complain(problem)
    if problems:
        raise opening.Damaged(problems)
    if not count:
        complain("there is no SSH connection in it")
    return 0


def _target(
    args: argparse.Namespace, stack: contextlib.ExitStack
) -> tuple[Callable[[Any], object], opening.LineOutput | None]:
    """Where rows of tables, or texts, go; and what that is if it is standard output."""
    if args.format in TABLES:
        from sshproto.errors import SSHError
        from sshproto_io.tables import TableFile

        try:
            table = stack.enter_context(TableFile(args.output, form=args.format))
        except SSHError as error:
            raise Failure(f"{error}") from None
        return (lambda row: table.add([row])), None
    if args.output == STDOUT:
        lines = stack.enter_context(opening.LineOutput())
        return lines.line, lines
    inputs = [*args.files, *args.keylog, *args.session_keys]
    file = stack.enter_context(Output(args.output, inputs=inputs))
    return (lambda text: file.text(f"{text}\n")), None


def _view(args: argparse.Namespace) -> type[JsonView | TextView | RowView]:
    from sshproto_cli.pcap.views import JsonView, RowView, TextView

    return RowView if args.format in TABLES else JsonView if args.format == "jsonl" else TextView


def _item(args: argparse.Namespace, row: dict[str, Any]) -> Any:
    return row if args.format in TABLES else row["text"]


def _together(
    args: argparse.Namespace, take: Callable[[Any], object], output: opening.LineOutput | None
) -> tuple[int, list[str]]:
    """All files in this process; how many connections there were, and what is wrong."""
    from sshproto_cli.terminal import Interrupted

    form = _view(args)
    views: dict[int, JsonView | TextView | RowView] = {}

    def begin(conversation: Conversation) -> None:
        view = views[conversation.connection.number] = form(conversation)
        conversation.sinks.append(view)

    count = 0
    problems: list[str] = []
    queue = opening.Queue(take, at_once=opening.STDIN in args.files)
    try:
        for conversation in opening.conversations(args, ask=begin, output=output):
            count += 1
            number = conversation.connection.number
            queue.add(number, _item(args, views.pop(number).row()), views)
    except opening.Damaged as damaged:
        problems = damaged.problems[-1:]  # the others have been told
    except Interrupted:  # a live capture ends so
        if opening.STDIN in args.files:
            for number in sorted(views):
                take(_item(args, views[number].row()))
        raise
    queue.end()
    return count, problems


def _apart(
    args: argparse.Namespace, take: Callable[[Any], object], output: opening.LineOutput | None
) -> tuple[int, list[str]]:
    """Each file as a capture of its own, in several processes."""
    from sshproto.errors import SSHError
    from sshproto.replay.analysis import PORTS
    from sshproto_cli.pcap.progress import Progress
    from sshproto_io.scanning import scan

    count = 0
    problems: list[str] = []
    progress = Progress(shown=opening.wants_progress(args, output))
    try:
        found = scan(
            [args.files] if args.rotated else args.files,
            jobs=args.jobs or None,
            secrets=opening.secrets(args),
            view=_view(args),
            ports=args.port or PORTS,
            progress=progress,
        )
        with contextlib.closing(cast(Any, found)):
            for scanned in found:
                for row in scanned.connections:
                    take(_item(args, row))
                    count += 1
                problems += scanned.problems
                if output is not None:
                    output.flush()
    except SSHError as error:
        raise Failure(f"{error}") from None
    finally:
        progress.clear()
    return count, problems
