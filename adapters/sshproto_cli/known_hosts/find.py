"""``sshproto known-hosts find``: the lines about a host."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from sshproto_cli.known_hosts.common import FAILED, NOT_SO, STATUS, add_file, add_host, files, where
from sshproto_cli.options import carry_out, complain, put

if TYPE_CHECKING:
    from pathlib import Path

    from sshproto.keys.host_lines import HostLine

_MARKERS = {"": "", "@cert-authority": ": an authority", "@revoked": ": revoked"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "find",
        help="the lines about a host",
        description="Show the lines about HOST, also those where its name is hashed or a pattern covers it: what"
        " ssh-keygen -F shows.",
        epilog="The exit status is 0 if there are any, " + STATUS.format("if there are none"),
    )
    add_file(parser, several=True)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-l", "--fingerprints", action="store_true", help="fingerprints instead of the lines")
    how.add_argument("--json", action="store_true", help="a JSON object a line")
    add_host(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_find, args, FAILED)


def _find(args: argparse.Namespace) -> int:
    from sshproto.keys import host_lines
    from sshproto_cli.host_files import read

    host, number = where(args)
    found = 0
    for path in files(args):
        for line in host_lines.find(read(path) or b"", host, number):
            found += 1
            put(_shown(path, line, args))
    if not found:
        complain(f"there is no line about {args.host}")
    return 0 if found else NOT_SO


def _shown(path: Path, line: HostLine, args: argparse.Namespace) -> str:
    from sshproto.keys.public import fingerprint_of
    from sshproto.text import printable

    kind = printable(line.key.split()[0], 64)
    blob = line.blob
    if args.json:
        told: dict[str, Any] = {
            "file": str(path),
            "line": line.line,
            "marker": line.marker or None,
            "names": line.names,
            "type": kind,
            "fingerprint": None if blob is None else fingerprint_of(blob),
        }
        return json.dumps(told) + "\n"
    head = f"{path} line {line.line}{_MARKERS[line.marker]}"
    if args.fingerprints:
        return f"{head}: {kind} {'which is no key' if blob is None else fingerprint_of(blob)}\n"
    return f"# {head}\n{printable(line.text, 64 * 1024)}\n"
