"""``sshproto pcap check``: what is wrong with the connections of a capture.

With ``--json`` each connection is one JSON object on a line of its own: the columns of
:data:`sshproto.replay.rows.CONNECTION_COLUMNS`, but ``findings`` is a list of objects, the worst first:

=============  ======================================================================================================
``code``       what kind of thing; ``docs/reference/findings.md`` has all of them
``severity``   ``"info"``, ``"low"``, ``"medium"``, ``"high"`` or ``"critical"``
``words``      what exactly, for people
``reference``  the section of the standard, the advisory, or the policy's key
``frames``     the numbers of the first frames that show it
``side``       whose doing it is, ``"dialler"`` or ``"dialled"``; null if it concerns both
``role``       the same as ``"client"`` or ``"server"``; null if nobody knows
=============  ======================================================================================================
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import TYPE_CHECKING

from sshproto_cli.options import Failure, Misuse, carry_out, complain, describe, put
from sshproto_cli.output import STDOUT, Output
from sshproto_cli.pcap import opening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sshproto.replay.analysis import Conversation
    from sshproto.replay.findings import Finding, Severity
    from sshproto_cli.pcap.sarif import Report

FOUND = 1
FAILED = 2
SEVERITIES = ("info", "low", "medium", "high", "critical")
NEVER = "never"

_LONGEST = 2048


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "check",
        help="what is wrong: attacks, weak algorithms, breaches of a policy",
        description="Show what is wrong with the SSH connections of captures: traces of attacks, weak algorithms and"
        " keys, what a policy does not allow; each with its severity, the standard or advisory, and the frames.",
        epilog=f"The exit status is 0 if nothing was found that is as bad as --fail-on says, {FOUND} if something was,"
        f" {FAILED} if a capture could not be read, or not to its end, or the options make no sense.",
    )
    opening.add_options(parser)
    parser.add_argument("--policy", metavar="FILE", help="what is expected of connections, in TOML")
    parser.add_argument(
        "--fail-on",
        metavar="SEVERITY",
        choices=(*SEVERITIES, NEVER),
        default="high",
        help=f"end with status {FOUND} if something is this bad or worse: {', '.join(SEVERITIES)}, or {NEVER};"
        " %(default)s if not given",
    )
    parser.add_argument(
        "--show",
        metavar="SEVERITY",
        choices=SEVERITIES,
        default=SEVERITIES[0],
        help="show what is this bad or worse; %(default)s, which is all, if not given",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a connection, for programs")
    parser.add_argument("--sarif", metavar="OUT", help='write SARIF 2.1.0 to a file, or to standard output for "-"')
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_check, args, FAILED)


def _check(args: argparse.Namespace) -> int:
    from sshproto.replay.findings import Severity
    from sshproto_cli.pcap import policy, sarif

    if args.json and args.sarif == STDOUT:
        raise Misuse("--json and --sarif both want standard output")
    expected = policy.load(args.policy) if args.policy is not None else None
    report = sarif.Report() if args.sarif is not None else None
    order = list(Severity)
    least = order.index(Severity(args.show))
    tally = _Tally()
    problem: Failure | OSError | None = None
    living: set[int] = set()

    def begin(conversation: Conversation) -> None:
        living.add(conversation.connection.number)

    with opening.LineOutput() as output:
        queue = opening.Queue(output.line, at_once=opening.STDIN in args.files)
        try:
            for conversation in opening.conversations(args, ask=begin, policy=expected, output=output):
                number = conversation.connection.number
                living.discard(number)
                shown = [finding for finding in conversation.findings if order.index(finding.severity) >= least]
                tally.add(conversation)
                if report is not None:
                    report.add(conversation, shown)
                if args.json:
                    queue.add(number, as_json(conversation, shown), living)
                elif args.sarif != STDOUT:
                    queue.add(number, "\n".join(as_text(conversation, shown)), living)
        except BrokenPipeError:
            raise
        except (Failure, OSError) as failure:
            problem = failure
        queue.end()
        if report is not None:
            _write(args, report, problem)
        if not args.json and args.sarif != STDOUT and tally.connections:
            output.line(tally.words())
    if problem is not None:
        raise problem
    if not tally.connections:
        complain("there is no SSH connection in it")
    bad = args.fail_on != NEVER and any(
        order.index(severity) >= order.index(Severity(args.fail_on)) for severity in tally.found
    )
    return FOUND if bad else 0


def _write(args: argparse.Namespace, report: Report, problem: Failure | OSError | None) -> None:
    problems: list[str] = []
    if isinstance(problem, opening.Damaged):
        problems += problem.problems
    elif problem is not None:
        problems.append(describe(problem))
    text = json.dumps(report.as_dict(problems), indent=2) + "\n"
    if args.sarif == STDOUT:
        put(text)
        return
    inputs = [*args.files, *args.keylog, *args.session_keys, *([args.policy] if args.policy else [])]
    with Output(args.sarif, inputs=inputs) as output:
        output.text(text)


def unseen(conversation: Conversation) -> str:
    """Why nobody knows what was negotiated; ``""`` if that was seen."""
    summary = conversation.summary
    if summary.negotiated is not None or any(finding.code == "ssh-1" for finding in conversation.findings):
        return ""
    return summary.problems[0] if summary.problems else "the recording has no key exchange"


# ----------------------------------------------------------------------------------------------------------------- text


def as_text(conversation: Conversation, shown: list[Finding]) -> Iterator[str]:
    """A connection and what was found, for people."""
    from sshproto.text import printable
    from sshproto_cli.pcap import views

    yield views.heading(conversation)
    if why := unseen(conversation):
        yield f"  what was negotiated is not known: {printable(why, _LONGEST)}"
    for finding in shown:
        role = _role(conversation, finding)
        whose = f", the {role or finding.side.value}" if finding.side is not None else ""
        frames = f", frame{'s' * (len(finding.frames) > 1)} {', '.join(map(str, finding.frames))}"
        where = frames if finding.frames else ""
        yield f"  {finding.severity.value:<8}  {finding.code}{whose}{where} ({finding.reference})"
        yield f"{'':12}{printable(finding.words, _LONGEST)}"
    if not shown:
        yield "  nothing was found"
    yield ""


class _Tally:
    """Counts.

    Attributes:
        connections: How many there were.
        found: How many findings of each severity.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.found: Counter[Severity] = Counter()
        self._unseen = 0

    def add(self, conversation: Conversation) -> None:
        """Count one."""
        self.connections += 1
        self.found.update(finding.severity for finding in conversation.findings)
        self._unseen += bool(unseen(conversation))

    def words(self) -> str:
        """All of it on a line."""
        from sshproto_cli.pcap import views

        found = views.counted(self.found) or "nothing was found"
        dark = f"; of {self._unseen} it is not known what was negotiated" if self._unseen else ""
        return f"{views.count(self.connections, 'connection')}: {found}{dark}"


# ----------------------------------------------------------------------------------------------------------------- JSON


def as_json(conversation: Conversation, shown: list[Finding]) -> str:
    """A connection and what was found, for programs."""
    from sshproto.replay.rows import connection_row

    findings = [
        {
            "code": finding.code,
            "severity": finding.severity.value,
            "words": finding.words,
            "reference": finding.reference,
            "frames": list(finding.frames),
            "side": None if finding.side is None else finding.side.value,
            "role": _role(conversation, finding),
        }
        for finding in shown
    ]
    return json.dumps(connection_row(conversation) | {"findings": findings})


def _role(conversation: Conversation, finding: Finding) -> str | None:
    from sshproto.replay.events import role_of

    role = None if finding.side is None else role_of(finding.side, conversation.summary.client)
    return None if role is None else role.value
