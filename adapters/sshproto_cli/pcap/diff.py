"""``sshproto pcap diff``: the first difference between two connections, and then the others."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sshproto_cli.options import Failure, Parser, carry_out, complain
from sshproto_cli.output import STDOUT, Output
from sshproto_cli.pcap.opening import STDIN, add_options, conversations
from sshproto_cli.pcap.picking import live

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sshproto.replay.analysis import Conversation
    from sshproto.replay.difference import Comparison, Difference, Portrait

DIFFERENT = 1
"""The status when there is a difference."""
TROUBLE = 2
"""The status when it can't be told."""

_SHOWN = 12  # differences of one kind
_WIDEST = 2000
_NUMBERED = re.compile(r"(.+):(\d{1,9})", re.DOTALL)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "diff",
        help="the first difference between two connections",
        description="Lay two connections side by side and show the first difference of the protocol, then the others."
        " What is made by chance is none: cookies, ephemeral keys, padding, numbers of channels, sizes of windows; data"
        " is not compared. Two legs of a connection that somebody relays may stand in one capture: A:1 A:2.",
        epilog=f"The exit status is 0 if nothing is different, {DIFFERENT} if something is, {TROUBLE} if that can't be"
        " told. Without keys, what is public is compared.",
    )
    if isinstance(parser, Parser):
        parser.failure = TROUBLE
    for name in "AB":
        parser.add_argument(
            name.lower(),
            metavar=f"{name}[:N]",
            help=f"a capture, and the number of a connection in it if there are several ({name})",
        )
    add_options(parser, files=False, connection=False)
    parser.add_argument("--all", action="store_true", help=f"show all differences, not {_SHOWN} of each kind")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_diff, args, TROUBLE)


class _Operand:
    """One of the two connections."""

    def __init__(self, text: str) -> None:
        numbered = _NUMBERED.fullmatch(text)
        self.path, self.number = text, 0
        if numbered is not None and not Path(text).exists():
            self.path, self.number = numbered[1], int(numbered[2])
        self.name = text
        self.found: tuple[Conversation, Portrait] | None = None
        self.others: list[int] = []

    def wants(self, conversation: Conversation) -> bool:
        return self.number in (0, conversation.connection.number)

    def take(self, conversation: Conversation, portrait: Portrait) -> None:
        if self.found is None:
            self.found = conversation, portrait
        else:
            self.others.append(conversation.connection.number)

    @property
    def portrait(self) -> Portrait:
        """What was collected.

        Raises:
            Failure: It is not there, or there are several.
        """
        if self.found is None:
            raise Failure(f"{self.name}: there is no SSH connection in it")
        if self.others:
            numbers = sorted([self.found[0].connection.number, *self.others])
            shown = ", ".join(map(str, numbers[:_SHOWN])) + (" and more" if len(numbers) > _SHOWN else "")
            raise Failure(f"{self.name}: it has several connections ({shown}); say which: {self.path}:{numbers[0]}")
        return self.found[1]

    def as_dict(self) -> dict[str, Any]:
        """What it is, for JSON."""
        conversation = self.found[0] if self.found is not None else None
        ends = conversation.connection if conversation is not None else None
        return {
            "file": self.path,
            "connection": ends.number if ends is not None else None,
            "dialler": f"{ends.dialler}" if ends is not None else None,
            "dialled": f"{ends.dialled}" if ends is not None else None,
        }


def _diff(args: argparse.Namespace) -> int:
    from sshproto.replay.difference import compare

    operands = [_Operand(args.a), _Operand(args.b)]
    _collect(args, operands)
    a, b = operands
    comparison = compare(a.portrait, b.portrait)
    with Output(STDOUT) as output:
        if args.json:
            output.text(json.dumps(_as_dict(comparison, a, b)) + "\n")
        else:
            output.text("".join(f"{line}\n" for line in _as_text(comparison, a, b, all_of_them=args.all)))
    return DIFFERENT if comparison.differences else 0


def _collect(args: argparse.Namespace, operands: list[_Operand]) -> None:
    """Read each capture once."""
    from sshproto.replay.difference import Portrait

    for path in dict.fromkeys(operand.path for operand in operands):
        mine = [operand for operand in operands if operand.path == path]

        def begin(conversation: Conversation, mine: list[_Operand] = mine) -> None:
            if wanted := [operand for operand in mine if operand.wants(conversation)]:
                portrait = Portrait()
                conversation.sinks.append(portrait)
                for operand in wanted:
                    operand.take(conversation, portrait)

        numbers = [] if any(not operand.number for operand in mine) else [operand.number for operand in mine]
        given = argparse.Namespace(**{**vars(args), "files": [path], "connection": numbers})
        try:
            for _ in conversations(given, ask=begin, output=live(Output(STDOUT)) if path == STDIN else None):
                pass
        except Failure as failure:
            if any(operand.found is None for operand in mine):
                raise
            complain(f"{failure}")  # what there is of it can be compared


# ---------------------------------------------------------------------------------------------------------------- shown


def _as_dict(comparison: Comparison, a: _Operand, b: _Operand) -> dict[str, Any]:
    return {
        "a": a.as_dict(),
        "b": b.as_dict(),
        "same": not comparison.differences,
        "relayed": comparison.relayed,
        "notes": list(comparison.notes),
        "differences": [each.as_dict() for each in comparison.differences],
    }


def _as_text(comparison: Comparison, a: _Operand, b: _Operand, *, all_of_them: bool) -> Iterable[str]:
    from sshproto.text import printable

    for name, operand in (("A", a), ("B", b)):
        about = operand.as_dict()
        yield printable(
            f"{name}  {about['file']}, connection {about['connection']}, {about['dialler']} to {about['dialled']}",
            _WIDEST,
        )
    if comparison.relayed:
        yield "Both have the same cookies: they are legs of one connection, which somebody relays."
    for note in comparison.notes:
        yield f"Note: {note}."
    differences = comparison.differences
    if not differences:
        yield "No difference." if not comparison.notes else "No difference in what could be compared."
        return
    yield f"The first difference: {differences[0].stage}"
    yield f"  {_line(differences[0])}"
    stage, shown, left = "", 0, 0
    for difference in differences[1:]:
        if difference.stage != stage:
            if left:
                yield f"  and {left} more (--all shows them)"
            stage, shown, left = difference.stage, 0, 0
            yield f"Then: {stage}"
        if shown < _SHOWN or all_of_them:
            shown += 1
            yield f"  {_line(difference)}"
        else:
            left += 1
    if left:
        yield f"  and {left} more (--all shows them)"


def _line(difference: Difference) -> str:
    from sshproto.text import printable

    where = [
        f"{name}: {'frame' if len(frames) == 1 else 'frames'} {', '.join(map(str, frames))}"
        for name, frames in (("A", difference.frames_a[:4]), ("B", difference.frames_b[:4]))
        if frames
    ]
    return printable(difference.words, _WIDEST) + (f"  [{'; '.join(where)}]" if where else "")
