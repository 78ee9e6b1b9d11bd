"""``sshproto known-hosts add``: trust a host's keys, or an authority for hosts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sshproto_cli.known_hosts.common import (
    FAILED,
    NOT_SO,
    STATUS,
    add_file,
    add_host,
    add_timeout,
    file,
    show,
    where,
)
from sshproto_cli.options import Failure, Misuse, carry_out, complain, put, read_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sshproto.keys.public import PublicKey


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "add",
        help="trust a host's keys, or an authority for hosts",
        description="Add the keys of HOST: those in a file, or those that it shows when it is asked, after you have"
        " compared their fingerprints with what its owner says.",
        epilog="The exit status is 0 if the keys are in the file now, "
        + STATUS.format("if a key is not the one that is known, or was not accepted"),
    )
    add_file(parser)
    parser.add_argument(
        "-k", "--key", metavar="KEYFILE", action="append", default=[], help="a file of public keys; don't ask the host"
    )
    parser.add_argument("-H", "--hash", action="store_true", help="hide the name")
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask you: whoever answers there is believed")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--cert-authority",
        dest="marker",
        action="store_const",
        const="@cert-authority",
        default="",
        help="the keys are those of authorities, whose certificates are believed; HOST can be patterns, separated by"
        " commas: *.example.org,!old.example.org",
    )
    kind.add_argument(
        "--revoked", dest="marker", action="store_const", const="@revoked", help="the keys are never to be believed"
    )
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
    return carry_out(_add, args, FAILED)


def _add(args: argparse.Namespace) -> int:
    if args.marker:
        return _add_marked(args)
    host, number = where(args)
    path = file(args)
    keys = _read(args.key) if args.key else _ask(host, number, args)
    return _add_host(path, host, number, keys, args)


# ----------------------------------------------------------------------------------------------------------------- keys


def _read(names: Sequence[str]) -> list[PublicKey]:
    """The public keys in files."""
    from sshproto.errors import KeyFormatError
    from sshproto.keys.public import PublicKey, decode_text

    found: list[PublicKey] = []
    for name in names:
        text = decode_text(read_file(name, "public key"))
        lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
        single = len(lines) == 1 or any(line.startswith("-") for line in lines[:1])  # else RFC 4716 or PEM
        try:
            found += [PublicKey.parse(line) for line in ([text] if single else lines)]
        except KeyFormatError as error:
            raise Failure(f"public key {name}: {error}") from None
    if not found:
        raise Failure("there is no public key in " + ", ".join(names))
    return found


def _ask(host: str, number: int, args: argparse.Namespace) -> list[PublicKey]:
    """The keys that the host shows."""
    from sshproto.errors import KeyFormatError
    from sshproto.keys.public import PublicKey
    from sshproto_cli.survey import survey

    report = survey(host, number, args.timeout)
    found: list[PublicKey] = []
    for key in report.keys:
        if key.problem or not key.public:
            complain(f"{host} has not shown its {key.type} key: {key.problem}")
            continue
        try:
            found.append(PublicKey.parse(key.public))
        except KeyFormatError as error:
            complain(f"a key of {host} is not added: {error}")
    if not found:
        raise Failure(report.problem or f"{host} port {number} has shown no key that could be added")
    return found


# --------------------------------------------------------------------------------------------------------------- adding


def _add_host(path: Path, host: str, number: int, keys: Sequence[PublicKey], args: argparse.Namespace) -> int:
    from sshproto.keys.known_hosts import Trust, line_for
    from sshproto_cli.host_files import append_line
    from sshproto_cli.hosts import load

    known = load(path)
    new: list[PublicKey] = []
    there = [entry for entry in known.find(host, number) if not entry.marker]
    blobs = {entry.blob for entry in there}
    for key in keys:
        match = known.lookup(host, number, key)
        place = f"{path} line {match.line}"
        if match.trust is Trust.MATCH:
            put(f"{show(key)} is known already, by {place}\n")
        elif match.trust is Trust.REVOKED:
            complain(f"{show(key)} is revoked, by {place}")
            return NOT_SO
        elif match.trust is Trust.CHANGED and not args.key:
            complain(
                f"{host} shows {show(key)}, but {place} has another {key.type} key: somebody may be listening in; if it"
                " was set up anew, remove it first"
            )
            return NOT_SO
        else:
            new.append(key)
    if new and there and not args.key and all(key.blob not in blobs for key in keys):
        complain(
            f"{host} is known by other keys ({path} line {there[0].line}, {there[0].key_type}), and shows none of them:"
            " somebody may be listening in; if it was set up anew, remove them first"
        )
        return NOT_SO
    if new and not (args.key or args.yes):
        from sshproto_cli.terminal import Terminal

        terminal = Terminal()
        if not terminal.present:
            raise Misuse(f"there is no terminal to ask whether {host} has these keys; --yes believes it unseen")
        shown = "".join(f"    {show(key)}\n" for key in new)
        if not terminal.confirm(f"{host} port {number} shows\n{shown}Are these its keys (yes/no)? "):
            complain("nothing is added")
            return NOT_SO
    for key in new:
        append_line(path, line_for(host, number, key, hashed=args.hash))
        put(f"{show(key)} is added to {path}\n")
    return 0


def _add_marked(args: argparse.Namespace) -> int:
    """Add a line with a marker, for which a person has chosen the names."""
    from sshproto.errors import InvalidArgument
    from sshproto.keys.known_hosts import marked_line
    from sshproto_cli.host_files import append_line
    from sshproto_cli.hosts import load

    if not args.key or args.hash or args.port is not None:
        raise Misuse(
            f"{args.marker} goes with --key, and without -p and --hash: patterns are written as [HOST]:PORT for a port"
        )
    path = file(args)
    there = {(entry.marker, entry.names, entry.blob) for entry in load(path).entries}
    for key in _read(args.key):
        if (args.marker, args.host, key.blob) in there:
            put(f"{show(key)} is in {path} already\n")
            continue
        try:
            append_line(path, marked_line(args.marker, args.host, key))
        except InvalidArgument as error:
            raise Misuse(str(error)) from None
        put(f"{args.marker} {show(key)} is added to {path}\n")
    return 0
