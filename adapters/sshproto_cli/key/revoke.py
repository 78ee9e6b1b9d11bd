"""``sshproto key revoke``: make, update and ask revocation lists."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sshproto_cli.key.common import STDIO, add_overwrite, contents, named, only, read
from sshproto_cli.options import Failure, Misuse, Parser, carry_out, put, say

if TYPE_CHECKING:
    from sshproto.keys import KRL, Content, PublicKey

REVOKED = 1
"""The status when a key that is asked about is revoked."""

TROUBLE = 2
"""The status when something can't be read or written: no answer."""

_DIRECTIVE = re.compile(rb"^[ \t]*(?:serial|id|key|sha1|sha256|hash):", re.IGNORECASE | re.MULTILINE)
_VERSION = re.compile("[0-9]{1,20}")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "revoke",
        help="make, update and ask revocation lists",
        description="Make a revocation list (KRL) of keys, certificates and specifications, add to one with -u, or ask"
        " one with -Q whether it revokes keys or certificates. A key is revoked with all its certificates, and all that"
        " it has signed; a certificate by its serial number, or its identity if it has none.",
        epilog="A specification has lines serial: N, serial: FIRST-LAST, id: WORDS (these two take -s), key: KEY,"
        " sha1: KEY, sha256: KEY, hash: FINGERPRINT, and keys and certificates as they are. The exit status is 0,"
        f" {REVOKED} if -Q finds something revoked, {TROUBLE} if something can't be read or written.",
    )
    if isinstance(parser, Parser):
        parser.failure = TROUBLE
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help=f'keys, certificates, specifications, other revocation lists; "{STDIO}" is standard input',
    )
    parser.add_argument("-f", "--list", metavar="LIST", required=True, help="the revocation list")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-k", "--make", action="store_true", help="make a list, which is done if nothing else is said")
    what.add_argument("-Q", "--query", action="store_true", help="ask the list about each FILE")
    parser.add_argument("-u", "--update", action="store_true", help="add to the list, which is there")
    parser.add_argument("-l", "--listing", action="store_true", help="with -Q: show what is in the list")
    parser.add_argument(
        "-s",
        "--authority",
        metavar="FILE",
        action="append",
        default=[],
        help="whose certificates serial: and id: mean: the authority's public key, or none for everybody's",
    )
    parser.add_argument(
        "-z",
        "--version",
        dest="number",
        metavar="N",
        help="the list's version; if not given 0, or with -u one more than it was",
    )
    parser.add_argument("--comment", metavar="WORDS", help="to be kept in the list")
    add_overwrite(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but what is asked for")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_revoke, args, TROUBLE)


def _revoke(args: argparse.Namespace) -> int:
    if args.query:
        for option, given in (("-u", args.update), ("-s", args.authority), ("-z", args.number)):
            if given:
                raise Misuse(f"{option} is for making a list, not for -Q")
        if not args.files and not args.listing:
            raise Misuse("-Q takes the keys to ask about, or -l")
        return _query(args)
    if args.listing:
        raise Misuse("-l goes with -Q")
    return _make(args)


def _load(path: str) -> KRL:
    entry = only(path, read(path))
    if entry.krl is None:
        raise Failure(f"{named(path)}: it is a {entry.kind.value}; a revocation list is expected")
    return entry.krl


# --------------------------------------------------------------------------------------------------------------- asking


def _query(args: argparse.Namespace) -> int:
    from sshproto.keys.listing import krl_text
    from sshproto.text import printable

    krl = _load(args.list)
    if args.listing:
        put(f"{krl_text(krl, clock=datetime.fromtimestamp)}\n")
    status = 0
    for path in args.files:
        found = contents(path, read(path))
        for number, problem in found.problems:
            raise Failure(f"{named(path)} line {number}: {problem}")
        for entry in found.entries:
            why = _why(krl, path, entry)
            if why:
                status = REVOKED
            comment = f" ({printable(entry.comment)})" if entry.comment else ""
            where = f" line {entry.line}" if len(found.entries) > 1 else ""
            verdict = "ok" if not why else "REVOKED" if args.quiet else f"REVOKED: {printable(why, 1024)}"
            put(f"{printable(named(path), 4096)}{where}{comment}: {verdict}\n")
    return status


def _why(krl: KRL, path: str, entry: Content) -> str:
    """Why something is revoked; ``""`` if it is not."""
    if entry.certificate is not None:
        return krl.why(entry.certificate)
    if entry.key is not None:
        return krl.why(entry.key)
    if not entry.blob:
        raise Failure(f"{named(path)}: the public half of the key doesn't show; ask about its .pub file")
    return krl.why_blob(entry.blob)


# --------------------------------------------------------------------------------------------------------------- making


def _make(args: argparse.Namespace) -> int:
    import attrs

    from sshproto.errors import InvalidArgument
    from sshproto.keys import KRL
    from sshproto_cli.key.saving import refuse_existing, save

    if args.update and args.overwrite:
        raise Misuse("-u adds to a list, --overwrite makes it anew")
    if args.number is not None and (not _VERSION.fullmatch(args.number) or int(args.number) >= 2**64):
        raise Misuse(f"-z: a version is from 0 to 2^64 - 1, not {args.number!r}")
    if args.update and not os.path.lexists(args.list):
        raise Failure(f"{args.list}: there is no such list; without -u it is made")
    if not args.update and os.path.lexists(args.list) and not args.overwrite:
        raise Failure(f"{args.list}: it is there already; -u adds to it, --overwrite makes it anew")
    refuse_existing(args.list, overwrite=True)
    if args.overwrite and os.path.lexists(args.list):
        _load(args.list)  # another file than a revocation list would be lost
    everybody = [path for path in args.authority if path.lower() == "none"]
    authorities = [_authority(path) for path in args.authority if path not in everybody]
    new = KRL()
    for path in args.files:
        new = _added(new, path, authorities, bool(everybody))
    with _alone(args.list):
        old = _load(args.list) if args.update else KRL()
        number = int(args.number) if args.number is not None else old.version + 1 if args.update else 0
        krl = attrs.evolve(
            _both(old, new),
            version=min(number, 2**64 - 1),
            generated=int(time.time()),
            comment=old.comment if args.comment is None else args.comment,
        )
        try:
            data = krl.encode()
        except InvalidArgument as error:
            raise Failure(f"{args.list}: {error}") from None
        save(args.list, data, private=False, overwrite=args.update or args.overwrite)
    if not args.quiet:
        say(f"{args.list}: {_counted(krl)}")
    return 0


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """While nobody else who asks for this changes a list in the same directory: of two that add to one, both do."""
    import fcntl

    try:
        descriptor = os.open(Path(os.path.realpath(path)).parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _both(one: KRL, other: KRL) -> KRL:
    """The first list, with what the other revokes."""
    import attrs

    return attrs.evolve(
        one,
        certificates=(*one.certificates, *other.certificates),
        keys=one.keys | other.keys,
        sha1=one.sha1 | other.sha1,
        sha256=one.sha256 | other.sha256,
        signers=(),
    )


def _authority(path: str) -> PublicKey:
    entry = only(path, read(path))
    if entry.key is None or entry.certificate is not None:
        raise Failure(f"{named(path)}: it is a {entry.kind.value}; the authority's public key is expected")
    return entry.key


def _added(krl: KRL, path: str, authorities: list[PublicKey], everybody: bool) -> KRL:
    """The list with what a file has."""
    from sshproto.errors import InvalidArgument, KeyFormatError
    from sshproto.keys import KRL, revoke_specified
    from sshproto.keys.krl import MAGIC

    data = read(path)
    try:
        if data.startswith(MAGIC):
            return _both(krl, KRL.parse(data))
        if _DIRECTIVE.search(data) or (b"-----" not in data and b"---- " not in data and b"PuTTY-" not in data):
            return revoke_specified(krl, data, authorities=authorities, everybody=everybody)
        entry = only(path, data)
        if entry.key is None:
            raise Failure(f"{named(path)}: the public half of the key doesn't show; name its .pub file")
        return krl.revoke(entry.key)
    except (KeyFormatError, InvalidArgument) as error:
        raise Failure(f"{named(path)}: {error}") from None


def _counted(krl: KRL) -> str:
    counts = (
        (len(krl.keys), "key", "keys"),
        (len(krl.sha1) + len(krl.sha256), "key by its digest", "keys by their digests"),
        (
            sum(high - low + 1 for part in krl.certificates for low, high in part.serials),
            "serial number",
            "serial numbers",
        ),
        (sum(len(part.key_ids) for part in krl.certificates), "identity", "identities"),
    )
    shown = ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts if count)
    return f"version {krl.version} revokes {shown or 'nothing'}"
