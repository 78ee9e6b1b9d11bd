"""``sshproto keylog check``: what is in a key log, what is wrong with it, and what it opens."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from sshproto_cli.keylog.common import TROUBLE, add_captures, load, use, warn_of_readers
from sshproto_cli.options import Failure, Parser, carry_out
from sshproto_cli.output import STDOUT, Output
from sshproto_cli.pcap.opening import STDIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sshproto.replay.keylogs import Contents, Line, Uses

WRONG = 1
"""The status when something is wrong with it, or it does not open everything."""

_SHOWN = 20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "check",
        help="what is in a key log, and what it opens",
        description="Say what is in a key log: how many lines of which kind, which are wrong, which say the same or"
        " contradict each other; with --capture also which connections it opens, and which lines are of no use."
        " Secrets are not shown.",
        epilog=f"The exit status is 0 if all is well, {WRONG} if a line is wrong or contradicts another or a connection"
        f" of a capture does not open, {TROUBLE} if something can't be read.",
    )
    if isinstance(parser, Parser):
        parser.failure = TROUBLE
    parser.add_argument(
        "keylog", metavar="KEYLOG", help=f'a key log, or a capture with one inside; "{STDIN}" is standard input'
    )
    add_captures(parser, "a capture that it should open; may be given more than once")
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
    return carry_out(_check, args, TROUBLE)


def _check(args: argparse.Namespace) -> int:
    from sshproto.replay import keylogs

    log = load(args.keylog)
    if log.derived:
        raise Failure(f"{args.keylog}: these are derived keys, no key log; the verbs of pcap take --session-keys")
    if args.keylog != STDIN:
        warn_of_readers(args.keylog)
    found = keylogs.contents(log.lines)
    uses = use(args, log.lines) if args.capture else None
    with Output(STDOUT) as output:
        if args.json:
            output.text(json.dumps(_as_dict(found, log.lines, uses)) + "\n")
        else:
            output.text("".join(f"{line}\n" for line in _as_text(found, log.lines, uses)))
    wrong = bool(found.wrong or found.disagreeing or found.empty)
    return WRONG if wrong or (uses is not None and not _all_open(uses)) else 0


def _all_open(uses: Uses) -> bool:
    return all(each.whole for each in uses.all if each.exchanges)


def _as_dict(found: Contents, lines: list[Line], uses: Uses | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "lines": dict(found.counts),
        "two_fields": found.old,
        "wrong": [{"line": line.number, "problem": line.problem} for line in found.wrong],
        "repeated": [{"line": line.number, "of": earlier.number} for line, earlier in found.repeated],
        "disagreeing": [{"line": line.number, "with": earlier.number} for line, earlier in found.disagreeing],
        "empty": [line.number for line in found.empty],
    }
    if uses is not None:
        result["connections"] = [
            {
                "capture": each.capture,
                "connection": each.number,
                "dialler": each.dialler,
                "dialled": each.dialled,
                "key_exchanges": len(each.exchanges),
                "opened": each.opened,
                "whole": each.whole,
            }
            for each in uses.all
        ]
        result["use"] = {line.number: uses.fit(line.entry).value for line in lines if line.entry is not None}
    return result


def _as_text(found: Contents, lines: list[Line], uses: Uses | None) -> Iterator[str]:
    from sshproto.text import printable

    for kind, count in found.counts.items():
        if count or kind != "comment":
            yield f"{count:>6} {_KINDS[kind]}"
    if found.old:
        yield f"{found.old:>6} of them with two fields, as Wireshark 4.0 has them"
    yield from _some(f"line {line.number} {line.problem}" for line in found.wrong)
    yield from _some(f"line {line.number} has a value that is 0" for line in found.empty)
    yield from _some(
        f"line {line.number} contradicts line {earlier.number}: the same cookie, another value"
        for line, earlier in found.disagreeing
    )
    yield from _some(
        f"line {line.number} says again what line {earlier.number} says" for line, earlier in found.repeated
    )
    if uses is None:
        return
    several = len({each.capture for each in uses.all}) > 1
    if not uses.all:
        yield "no SSH connection in the captures"
    for each in uses.all:
        of = f"{printable(each.capture)}, " if several else ""
        name = f"{of}connection {each.number}, {each.dialler} to {each.dialled}"
        if not each.exchanges:
            yield f"{name}: there is no key exchange in it"
        elif each.whole:
            yield f"{name}: opened ({_count(each.opened, 'key exchange')})"
        elif each.opened:
            yield f"{name}: {each.opened} of {_count(len(each.exchanges), 'key exchange')} opened, not what follows"
        else:
            yield f"{name}: not opened"
    yield from _some(
        f"line {line.number} {_FITS[fit]}"
        for line in lines
        if line.entry is not None and (fit := uses.fit(line.entry).value) in _FITS
    )


_KINDS = {
    "SHARED_SECRET": "shared secrets (SHARED_SECRET)",
    "PRIVATE_KEY": "private values (PRIVATE_KEY)",
    "comment": "comments",
}

_FITS = {
    "spare": "is not needed: its key exchange was opened by a shared secret",
    "wrong": "does not open the key exchange that it is of",
    "untried": "is of a key exchange that is not whole in the captures",
    "unseen": "is of no connection in the captures",
}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _some(lines: Iterator[str]) -> Iterator[str]:
    """The first of them, and how many more there are."""
    every = list(lines)
    yield from every[:_SHOWN]
    if len(every) > _SHOWN:
        yield f"and {len(every) - _SHOWN} lines more like this"
