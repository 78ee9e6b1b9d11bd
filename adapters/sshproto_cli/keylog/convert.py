"""``sshproto keylog convert``: key logs from one form to another; what can't be converted is said, never dropped."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sshproto_cli.keylog.common import TROUBLE, add_captures, load, use
from sshproto_cli.options import Failure, Parser, carry_out, complain
from sshproto_cli.output import STDOUT, Output
from sshproto_cli.pcap.opening import STDIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sshproto.replay.keylogs import Line, Uses
    from sshproto.replay.secrets import KeyLogLine

LEFT_OUT = 1
"""The status when something could not be converted."""

FORMS = ("three", "two", "shared")

_NAMED = 20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "convert",
        help="a key log from one form to another",
        description="Write key logs in another form. They may be text with lines of two or three fields, session keys"
        " in JSON, or captures that have key logs inside.",
        epilog="Forms: three (cookie, kind, value: what is read today), two (cookie and private value: Wireshark 4.0,"
        " which knows no shared secrets), shared (private values become shared secrets, for which a capture with"
        f" their key exchanges is needed). The exit status is 0, {LEFT_OUT} if something could not be converted and is"
        f" left out, which is said, {TROUBLE} if something can't be read or written.",
    )
    if isinstance(parser, Parser):
        parser.failure = TROUBLE
    parser.add_argument(
        "keylogs",
        metavar="KEYLOG",
        nargs="+",
        help=f'a key log, session keys in JSON, or a capture with a key log; "{STDIN}" is standard input',
    )
    parser.add_argument("--to", choices=FORMS, default=FORMS[0], help="the form; %(default)s if not given")
    add_captures(parser, "a capture with the key exchanges, for --to shared; may be given more than once")
    parser.add_argument(
        "-o", dest="output", metavar="FILE", default=STDOUT, help="write to FILE, which only its owner may read"
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_convert, args, TROUBLE)


def _convert(args: argparse.Namespace) -> int:
    if args.to == "shared" and not args.capture:
        raise Failure("--to shared takes --capture: what a private value leads to depends on what the other side sent")
    logs = [load(path) for path in args.keylogs]
    uses = use(args, [line for log in logs for line in log.lines]) if args.capture else None
    left: list[str] = []
    written: dict[KeyLogLine, None] = {}
    with Output(args.output, inputs=[*args.keylogs, *args.capture], private=True) as output:
        for log in logs:
            for line in log.lines:
                if line.entry is None:
                    if line.problem:
                        left.append(f"{log.path}, line {line.number} {line.problem}")
                    else:
                        output.text(f"{line.text}\n")
                    continue
                entry, problem = _changed(line, line.entry, args.to, uses)
                if entry is None:
                    left.append(f"{log.path}, line {line.number} {problem}")
                elif entry not in written:  # the same comes of both sides' private values
                    written[entry] = None
                    output.text(_text(entry, args.to))
            for keys in log.derived:
                of = f" ({keys.cipher})" if keys.cipher else ""
                left.append(
                    f"{log.path}: a key{of} was derived from a shared secret that it does not show; use it as it is,"
                    " with --session-keys"
                )
    for each in _some(left):
        complain(each)
    if left:
        complain(f"{len(left)} left out")
    return LEFT_OUT if left else 0


def _changed(line: Line, entry: KeyLogLine, form: str, uses: Uses | None) -> tuple[KeyLogLine | None, str]:
    """A line in another form, or why there is none."""
    from sshproto.replay.secrets import PRIVATE_KEY

    private = entry.kind == PRIVATE_KEY
    if form == "two" and not private:
        return None, "is a shared secret, for which there is no line of two fields"
    if form != "shared" or not private or uses is None:
        return entry, ""
    shared = uses.shared(entry)
    if shared is None:
        why = uses.why(entry)
        return None, f"is a private value {_WHY[uses.fit(entry).value]}{f': {why}' if why else ''}"
    return shared, ""


_WHY = {
    "opens": "that opens its key exchange, but of several nobody can tell which does",
    "spare": "whose key exchange was opened by something else",
    "wrong": "that does not open the key exchange that it is of",
    "untried": "of a key exchange that is not whole in the captures",
    "unseen": "of no connection in the captures",
}


def _text(entry: KeyLogLine, form: str) -> str:
    kind = "" if form == "two" else f"{entry.kind} "
    return f"{entry.cookie.hex()} {kind}{entry.value.hex()}\n"


def _some(lines: list[str]) -> Iterator[str]:
    yield from lines[:_NAMED]
    if len(lines) > _NAMED:
        yield f"and {len(lines) - _NAMED} more like this"
