"""``sshproto known-hosts check``: whether a host has the key that is known."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from sshproto_cli.known_hosts.common import (
    FAILED,
    NOT_SO,
    add_file,
    add_host,
    add_timeout,
    files,
    show,
    where,
)
from sshproto_cli.options import Failure, carry_out, put

if TYPE_CHECKING:
    from sshproto.keys.known_hosts import Match


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "check",
        help="whether a host has the key that is known",
        description="Ask HOST for its key, or its certificate where an authority is trusted, and say whether it is the"
        " one that is known. Nobody is logged in, and nothing is written.",
        epilog=f"The exit status is 0 if the key is known, {NOT_SO} if it is not, has changed or is revoked, and"
        f" {FAILED} if the host can't be asked or a file can't be read.",
    )
    add_file(parser, several=True)
    add_timeout(parser)
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
    return carry_out(_check, args, FAILED)


def _check(args: argparse.Namespace) -> int:
    from sshproto.algorithms import SIGNATURE_DEFAULT
    from sshproto.keys.known_hosts import KnownHosts, Trust
    from sshproto_cli.hosts import load
    from sshproto_cli.survey import look

    host, number = where(args)
    known = KnownHosts.joined(map(load, files(args)))
    glimpse = look(host, number, args.timeout, known.host_key_order(host, number, SIGNATURE_DEFAULT))
    if glimpse.key is None:
        raise Failure(f"{host} port {number}: {glimpse.problem}")
    match = known.lookup(host, number, glimpse.key, glimpse.certificate, now=time.time())
    put(f"{host} port {number}: {match.trust.value}: {show(glimpse.key)}{_why(match)}\n")
    return 0 if match.trust is Trust.MATCH else NOT_SO


def _why(match: Match) -> str:
    from sshproto.text import printable

    words: list[str] = []
    if match.certificate is not None:
        words.append(f"certificate '{printable(match.certificate.key_id, 64)}'")
    if match.entry is not None:
        words.append(f"{match.entry.file} line {match.entry.line}")
    elif match.known:
        words.append("known are " + ", ".join(dict.fromkeys(entry.key_type for entry in match.known)))
    if match.problem:
        words.append(match.problem)
    return f" ({'; '.join(words)})" if words else ""
