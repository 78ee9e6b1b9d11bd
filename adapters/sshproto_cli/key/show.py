"""``sshproto key show``: what is in files of keys, whatever kind of file it is."""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sshproto_cli.key.common import STDIO, TROUBLE, beside, contents, load_private, named, read
from sshproto_cli.options import Misuse, carry_out, complain, put
from sshproto_cli.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sshproto.keys import KRL, Certificate, Content

_INDENT = "    "
_NAMED = 20  # lines that can't be read


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "show",
        help="what is in a file: keys, certificates, revocation lists",
        description="Show what is in files: private keys (OpenSSH, PKCS#8, PKCS#1, SEC 1, PuTTY's) without what is"
        " private, public keys (one line, RFC 4716, PEM), certificates, authorized_keys, known_hosts, revocation lists."
        " A key is a line as from ssh-keygen -l, a certificate as from ssh-keygen -L, a revocation list as from"
        " ssh-keygen -Q -l.",
        epilog="The exit status is 0, or 1 if a file or a line of it can't be read.",
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help=f'a file; "{STDIO}" is standard input')
    parser.add_argument("-f", dest="named", metavar="FILE", action="append", default=[], help="the same")
    parser.add_argument("-l", "--line", action="store_true", help="a line for a certificate, too")
    parser.add_argument(
        "-E", "--hash", choices=("sha256", "md5"), default="sha256", help="of the fingerprint; %(default)s if not given"
    )
    parser.add_argument("-B", "--bubblebabble", action="store_true", help="the fingerprint in words that can be spoken")
    parser.add_argument("-v", "--randomart", action="store_true", help="the picture of the fingerprint, too")
    parser.add_argument(
        "-A",
        "--all",
        action="store_true",
        help="fingerprints of all kinds, and the key itself as a line of a .pub file",
    )
    parser.add_argument("--utc", action="store_true", help="times in UTC, not in the zone where this is")
    parser.add_argument("--json", action="store_true", help="a JSON object a line, for each key")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_show, args, TROUBLE)


def _show(args: argparse.Namespace) -> int:
    from sshproto_cli.options import Failure

    files = [*args.files, *args.named]
    if not files:
        raise Misuse("name a file")
    status = 0
    for path in files:
        try:
            found = contents(path, data := read(path))
            for entry in found.entries:
                entry = _unlocked(path, data, entry)
                several = len(files) > 1 or len(found.entries) + len(found.problems) > 1
                shown = json.dumps(_object(path, entry)) if args.json else _words(path, entry, args, several)
                put(f"{shown}\n")
                if entry.problem:
                    complain(f"{_where(path, entry)}: {entry.problem}")
                    status = TROUBLE
            for number, problem in found.problems[:_NAMED]:
                complain(f"{named(path)} line {number}: {problem}")
                status = TROUBLE
            if len(found.problems) > _NAMED:
                complain(f"{named(path)}: {len(found.problems) - _NAMED} more lines can't be read")
        except Failure as failure:
            complain(str(failure))
            status = TROUBLE
    return status


def _where(path: str, entry: Content) -> str:
    return f"{named(path)} line {entry.line}" if entry.line else named(path)


def _unlocked(path: str, data: bytes, entry: Content) -> Content:
    """What shows of a private key with what lies beside it, or with its passphrase."""
    import attrs

    from sshproto.keys import ContentKind
    from sshproto.keys.public import LOWEST_RSA_BITS

    if entry.kind is not ContentKind.PRIVATE or entry.problem or not entry.encryption:
        return entry
    public = beside(path)
    if entry.key is not None:
        same = public is not None and public == entry.key
        return attrs.evolve(entry, comment=entry.comment or (public.comment if public is not None and same else ""))
    if public is None:
        public = load_private(path, data, Terminal(), minimum=LOWEST_RSA_BITS)[0].public_key
    return attrs.evolve(entry, key=public, type=public.type, blob=public.blob, comment=public.comment)


# ------------------------------------------------------------------------------------------------------------- in words


def _words(path: str, entry: Content, args: argparse.Namespace, several: bool) -> str:
    from sshproto.keys.listing import certificate_text, krl_text, utc

    clock = utc if args.utc else datetime.fromtimestamp
    if entry.krl is not None:
        return "\n".join(([f"{named(path)}:"] if several else []) + [krl_text(entry.krl, clock=clock)])
    if entry.certificate is not None and not (args.line or args.all):
        text = certificate_text(entry.certificate, now=time.time(), clock=clock)
        return "\n".join((f"{_where(path, entry) if several else named(path)}:", text))
    return "\n".join(_lines(path, entry, args))


def _lines(path: str, entry: Content, args: argparse.Namespace) -> Iterator[str]:
    from sshproto.keys import ContentKind
    from sshproto.keys.fingerprints import bubblebabble_of, randomart_of
    from sshproto.keys.listing import short_name
    from sshproto.keys.public import fingerprint_of
    from sshproto.text import printable

    name = short_name(entry.type, certified=entry.certificate is not None)
    bits = "?" if entry.key is None else entry.key.bits
    told = bubblebabble_of(entry.blob) if args.bubblebabble else fingerprint_of(entry.blob, args.hash)
    yield f"{bits} {told} {printable(entry.comment, 1024) or 'no comment'} ({name})"
    if len(args.files) + len(args.named) > 1:
        yield f"{_INDENT}in {_where(path, entry)}"
    if entry.kind is ContentKind.PRIVATE:
        how = f"encrypted: {entry.encryption}" if entry.encryption else "not encrypted"
        yield f"{_INDENT}private key, {entry.form}, {how}"
    if entry.where:
        what = "for" if entry.form == "known_hosts" else "options"
        yield f"{_INDENT}line {entry.line}, {what} {printable(entry.where, 1024)}"
    if entry.key is not None and entry.key.application is not None:
        yield f"{_INDENT}in a security token, for {printable(entry.key.application)}"
    if args.all:
        yield from (f"{_INDENT}{fingerprint_of(entry.blob, each)}" for each in ("sha256", "md5"))
        yield f"{_INDENT}{bubblebabble_of(entry.blob)}"
        if entry.key is not None:
            yield f"{_INDENT}{entry.key.openssh()}"
    if args.randomart or args.all:
        size = 0 if entry.key is None else entry.key.bits
        yield randomart_of(entry.blob, name, size, args.hash)


# -------------------------------------------------------------------------------------------------------------- in JSON


def _object(path: str, entry: Content) -> dict[str, Any]:
    from sshproto.keys.fingerprints import bubblebabble_of
    from sshproto.keys.public import fingerprint_of

    told: dict[str, Any] = {"file": path, "line": entry.line or None, "kind": entry.kind.value, "form": entry.form}
    if entry.krl is not None:
        return told | _list_object(entry.krl)
    told |= {
        "type": entry.type,
        "bits": None if entry.key is None else entry.key.bits,
        "comment": entry.comment,
        "sha256": fingerprint_of(entry.blob),
        "md5": fingerprint_of(entry.blob, "md5"),
        "bubblebabble": bubblebabble_of(entry.blob),
        "public": None if entry.key is None else " ".join(entry.key.openssh().split(" ")[:2]),
        "encryption": entry.encryption or None,
        "where": entry.where or None,
        "problem": entry.problem or None,
    }
    if entry.certificate is not None:
        told["certificate"] = _certificate_object(entry.certificate)
    return told


def _certificate_object(certificate: Certificate) -> dict[str, Any]:
    from sshproto.keys.grants import FOREVER
    from sshproto.keys.listing import option_text

    def options(given: Any) -> dict[str, Any]:
        texts = {name: (option_text(data), data) for name, data in given.items()}
        return {name: {"hex": data.hex()} if text is None else text for name, (text, data) in texts.items()}

    now = time.time()
    return {
        "type": certificate.type,
        "for": certificate.kind.name.lower(),
        "key_id": certificate.key_id,
        "serial": certificate.serial,
        "principals": list(certificate.principals),
        "valid_after": certificate.valid_after,
        "valid_before": None if certificate.valid_before == FOREVER else certificate.valid_before,
        "valid": certificate.valid_after <= now < certificate.valid_before,
        "critical_options": options(certificate.critical_options),
        "extensions": options(certificate.extensions),
        "authority": {"type": certificate.authority.type, "sha256": certificate.authority.fingerprint()},
        "signed_with": certificate.authority_algorithm,
    }


def _list_object(krl: KRL) -> dict[str, Any]:
    from sshproto.keys.public import fingerprint_of

    return {
        "version": krl.version,
        "generated": datetime.fromtimestamp(min(krl.generated, 2**37), UTC).isoformat().replace("+00:00", "Z"),
        "comment": krl.comment,
        "keys": sorted(map(fingerprint_of, krl.keys)),
        "sha256": sorted(digest.hex() for digest in krl.sha256),
        "sha1": sorted(digest.hex() for digest in krl.sha1),
        "certificates": [
            {
                "authority": fingerprint_of(each.authority) if each.authority else None,
                "serials": [list(span) for span in each.serials],
                "key_ids": sorted(each.key_ids),
            }
            for each in krl.certificates
        ],
    }
