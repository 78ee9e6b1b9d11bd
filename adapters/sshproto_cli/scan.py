"""``sshproto scan``: what a server offers, and what of that is weak, found out without logging in."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

from sshproto_cli.options import Failure, Parser, carry_out, port, put, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sshproto.weaknesses import Verdict
    from sshproto_cli.survey import HostKey, Offer, Report

FAILED = 255
"""The status when there is nothing to be shown."""
WEAK = 1
"""The status of ``--fail-on-weak`` when something is weak."""
DEFAULT_PORT = 22
DEFAULT_TIMEOUT = 10.0

_LONGEST_TIMEOUT = 3600.0
_MOST_LINES = 10  # of what a server says before its identification
_WIDEST = 64  # characters of a name, as RFC 4251 section 6 has it

_TITLES = {
    "kex": "key exchange",
    "host_key": "host key algorithms",
    "cipher": "ciphers",
    "mac": "MACs",
    "compression": "compression",
    "languages": "languages",
}
_WAYS = {"_client_to_server": "client to server", "_server_to_client": "server to client"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "scan",
        help="show what a server offers",
        description="Show what the server at HOST offers, its identification, its algorithms and its host keys, and"
        " what of that is weak. Nobody is logged in. Each type of host key takes a connection of its own.",
        epilog=f"The exit status is 0 if the server could be asked, {WEAK} if something is weak and --fail-on-weak was"
        f" given, and {FAILED} if there was nothing to show.",
    )
    if isinstance(parser, Parser):
        parser.failure = FAILED
    parser.add_argument("-p", dest="port", metavar="PORT", type=port, default=DEFAULT_PORT)
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds(_LONGEST_TIMEOUT),
        default=DEFAULT_TIMEOUT,
        help="how long to wait for a connection, and then for the server's part of it; %(default)g if not given",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--fail-on-weak", action="store_true", help=f"end with status {WEAK} if something is weak")
    parser.add_argument("host", metavar="HOST")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_scan, args, FAILED)


def _scan(args: argparse.Namespace) -> int:
    from sshproto_cli.survey import survey

    host: str = args.host
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or "@" in host:
        raise Failure(f"not a host: {args.host!r}; nobody is logged in, so that there is no user")
    report = survey(host, args.port, args.timeout)
    with contextlib.suppress(BrokenPipeError):  # the reader has seen enough
        put(as_json(report) if args.json else as_text(report))
    return WEAK if args.fail_on_weak and report.weak else 0


# ----------------------------------------------------------------------------------------------------------------- text


def as_text(report: Report) -> str:
    """A report for people."""
    from sshproto.text import printable

    version = report.version
    sections: list[tuple[str, list[tuple[str, str]]]] = [
        (title, [(printable(offer.name, _WIDEST), _remark(offer.verdict)) for offer in offers])
        for title, offers in _lists(report)
    ]
    if report.keys:
        sections.append(("host keys", list(_keys(report.keys))))
    width = max(len(name) for _, rows in sections for name, _ in rows)
    said = [f"before that, it said   {line}" for line in version.preamble[:_MOST_LINES]]
    if len(version.preamble) > _MOST_LINES:
        said.append(f"                       and {len(version.preamble) - _MOST_LINES} lines more")
    strict = "yes" if report.strict else ", ".join(filter(None, ("no", _remark(report.strictness))))
    lines = [
        f"server                 {printable(report.host)} port {report.port}",
        f"identification         {version.line}",
        *said,
        f"strict key exchange    {strict}",
    ]
    for title, rows in sections:
        lines += ["", title]
        lines += [f"  {name:{width}}  {remark}".rstrip() for name, remark in rows]
    lines.append("")
    if report.problem:
        lines.append(f"no host key was shown: {report.problem}")
    count = len(report.weak)
    lines.append(f"{count or 'no'} weak choice{'' if count == 1 else 's'}")
    return "".join(f"{line}\n" for line in lines)


def _lists(report: Report) -> Iterator[tuple[str, tuple[Offer, ...]]]:
    """The lists that are not empty, with a title; one for both directions where they are the same."""
    for name, title in _TITLES.items():
        if name in report.lists:
            both = {title: report.lists[name]}
        else:
            both = {f"{title}, {way}": report.lists[name + suffix] for suffix, way in _WAYS.items()}
            if len(set(both.values())) == 1:
                both = {title: next(iter(both.values()))}
        yield from ((title, offers) for title, offers in both.items() if offers or not title.startswith("languages"))


def _remark(verdict: Verdict) -> str:
    from sshproto.weaknesses import Standing

    match verdict.standing:
        case Standing.SOUND:
            return ""
        case Standing.MARKER:
            return f"no algorithm: {verdict.reason}"
        case Standing.UNKNOWN:
            return "unknown"
        case Standing.WEAK:
            return f"weak: {verdict.reason}"


def _keys(keys: Iterable[HostKey]) -> Iterator[tuple[str, str]]:
    for key in keys:
        words = [f"{key.bits or '?':>5}", key.fingerprint] if key.fingerprint else []
        words += [remark for remark in (_remark(key.verdict), key.problem) if remark]
        yield key.type, "  ".join(words)


# ----------------------------------------------------------------------------------------------------------------- JSON


def as_json(report: Report) -> str:
    """A report for programs: an object whose form stays, see ``docs/how-to/command-line.md``."""
    import json

    version = report.version
    shown = {
        "host": report.host,
        "port": report.port,
        "identification": {
            "line": version.line,
            "protocol": version.protocol,
            "software": version.software,
            "comments": version.comments,
            "preamble": list(version.preamble),
        },
        "strict_kex": {"offered": report.strict, **_judged(report.strictness)},
        "kexinit": {
            name: [{"name": offer.name, **_judged(offer.verdict)} for offer in offers]
            for name, offers in report.lists.items()
        },
        "host_keys": [
            {
                "type": key.type,
                "bits": key.bits,
                "fingerprint": key.fingerprint or None,
                "public_key": key.public or None,
                **_judged(key.verdict),
                "problem": key.problem or None,
            }
            for key in report.keys
        ],
        "problem": report.problem or None,
        "weak": [{"what": finding.what, "name": finding.name, "reason": finding.reason} for finding in report.weak],
    }
    return json.dumps(shown, indent=2) + "\n"


def _judged(verdict: Verdict) -> dict[str, Any]:
    return {"standing": verdict.standing.value, "reason": verdict.reason or None}
