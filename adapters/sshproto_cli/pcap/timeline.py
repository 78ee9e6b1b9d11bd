"""``sshproto pcap timeline``: the picture of a connection, as SVG or as a page to look around in; its steps as JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sshproto_cli.options import Failure, carry_out, complain
from sshproto_cli.output import STDOUT, Output
from sshproto_cli.pcap.opening import FAILED, add_options, conversations

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sshproto.replay.analysis import Conversation
    from sshproto.replay.events import Side
    from sshproto.replay.picture.steps import Chart
    from sshproto.replay.picture.timeline import Timeline

FORMS = {".svg": "svg", ".html": "html", ".htm": "html", ".json": "json", ".jsonl": "json"}
"""What an output's name ends in, and the form that it asks for."""

_CONNECTIONS = {"svg": 10, "html": 200, "json": 1000}
"""So many connections there are in one picture, on one page, or in one list of steps."""

_DRAWN = 20_000
_SHORTEST = 5


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "timeline",
        help="the picture of a connection",
        description="Draw what client and server said to each other, message by message: as a picture (SVG), or as one"
        " HTML page that needs no network, with filters, zoom, and details on a click. What passwords were, and what"
        " was sent on channels, is not in it.",
        epilog=f"The exit status is 0, or {FAILED} if a file can't be read, or not to its end; what could be read is"
        " drawn.",
    )
    add_options(parser)
    parser.add_argument(
        "-o", dest="output", metavar="FILE", default=STDOUT, help="write to FILE, not standard output; .html is a page"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--format", choices=("svg", "html", "json"), help="by default what the end of FILE's name says, else svg"
    )
    form.add_argument(
        "--json", dest="format", action="store_const", const="json", help="one JSON object a line for each step"
    )
    parser.add_argument(
        "--scale",
        choices=("even", "time"),
        default="even",
        help="the room between arrows: the same everywhere, or in proportion to time; a page can change it later",
    )
    parser.add_argument(
        "--fold",
        metavar="N",
        type=_count,
        default=_SHORTEST,
        help=f"draw N or more packets of data in a row as one; 0 for never; {_SHORTEST} if not given",
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=_count,
        help="keep at most N packets one by one, and count the rest; 100000 for a page if not given",
    )
    parser.add_argument(
        "--show-data",
        action="store_true",
        help="show how the data of channels begins, which may be what somebody typed, passwords included",
    )
    parser.set_defaults(run=run)
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"not a number from 0 on: {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_timeline, args)


def _timeline(args: argparse.Namespace) -> int:
    form: str = args.format or FORMS.get(Path(args.output).suffix.lower(), "svg")
    if args.output == STDOUT and form != "json" and sys.stdout is not None and sys.stdout.isatty():  # pyright: ignore[reportUnnecessaryComparison]
        raise Failure(f"{'a page' if form == 'html' else 'a picture'} is no text for a terminal: name a file with -o")
    with Output(args.output, inputs=[*args.files, *args.keylog, *args.session_keys]) as output:
        charts, left_out, problem = _charts(args, form)
        if not charts:
            raise problem or Failure("no SSH connection is in it")
        if left_out:
            complain(f"{left_out:,} more connections are left out; -n chooses others")
        for piece in _pieces(charts, args, form, left_out):
            output.text(piece)
    if problem is not None:
        raise problem
    return 0


def _charts(args: argparse.Namespace, form: str) -> tuple[list[Chart], int, Failure | None]:
    """What is to be drawn, how many connections are too many, and what went wrong on the way."""
    from sshproto.replay.picture.timeline import STEPS, Budget, Timeline, chart
    from sshproto_cli.describe import Describer

    limit = args.limit if args.limit is not None else STEPS if form == "html" else _DRAWN
    budget = Budget(limit)
    living: dict[int, Timeline] = {}
    begun = 0

    def ask(conversation: Conversation) -> None:
        nonlocal begun
        begun += 1
        if begun > _CONNECTIONS[form]:
            return
        timeline = Timeline(Describer(), budget=budget, contents=args.show_data)
        living[id(conversation)] = timeline
        conversation.sinks.append(timeline)

    charts: list[Chart] = []
    problem: Failure | None = None
    try:
        for conversation in conversations(args, ask=ask):
            timeline = living.pop(id(conversation), None)
            if timeline is not None:
                charts.append(chart(conversation, timeline))
    except Failure as failure:
        problem = failure
    return sorted(charts, key=lambda each: each.number), max(0, begun - _CONNECTIONS[form]), problem


def _pieces(charts: list[Chart], args: argparse.Namespace, form: str, left_out: int) -> Iterable[str]:
    if form == "html":
        from sshproto_cli.pcap.page import page

        return page(charts, scale=args.scale, shortest=args.fold, left_out=left_out)
    if form == "json":
        return (line for each in charts for line in _steps(each, args.fold))
    from sshproto.replay.picture.svg import draw

    return [draw(charts, scale=args.scale, shortest=args.fold)]


def _steps(chart: Chart, shortest: int) -> Iterable[str]:
    """What a picture shows, a line for each step."""
    import json

    from sshproto.replay.picture.steps import Run, folded

    def role(side: Side | None) -> str | None:
        return None if side is None else chart.role(side).value

    for item in folded(chart.items, shortest=shortest):
        found: dict[str, Any] = {
            "connection": chart.number,
            "kind": "run" if isinstance(item, Run) else item.kind.value,
            "phase": item.phase.title,
            "time": item.time,
            "frames": list(item.frames),
            "encrypted": item.encrypted,
        }
        if isinstance(item, Run):
            found["until"] = item.until
            found["counts"] = [
                {"sender": role(side), "message": name, "channel": channel, "packets": packets, "bytes": size}
                for (side, name, channel), (packets, size) in item.counts.items()
            ]
        else:
            found |= {
                "sender": role(item.side),
                "message": item.name,
                "number": item.number,
                "sequence_number": item.sequence_number,
                "summary": item.summary,
                "size": item.size,
                "epoch": item.epoch,
                "integrity": None if item.integrity is None else item.integrity.value,
                "channel": item.channel,
                "findings": [chart.findings[mark].code for mark in item.marks],
            }
        yield json.dumps(found) + "\n"
