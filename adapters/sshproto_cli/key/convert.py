"""``sshproto key convert``: keys in another format, with another passphrase or comment; the public half alone."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sshproto_cli.key.common import (
    FORMATS,
    STDIO,
    TROUBLE,
    add_overwrite,
    add_writing,
    beside,
    check_comment,
    check_writing,
    emit,
    load_private,
    named,
    new_passphrase,
    only,
    read,
    written,
)
from sshproto_cli.options import Failure, Misuse, carry_out, complain, say
from sshproto_cli.terminal import Terminal

if TYPE_CHECKING:
    from sshproto.keys import PrivateKey, PublicKey

_PUBLIC = ("openssh", "rfc4716", "pkcs8", "pkcs1")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "convert",
        help="another format, passphrase or comment; the public half",
        description="Write a key in another format, with another passphrase or another comment, or its public half"
        " alone. Private keys are read in OpenSSH's format, PKCS#8, PKCS#1, SEC 1 and PuTTY's, and written in the first"
        " two; public keys are written as one line, in RFC 4716, PKCS#8 or PKCS#1. Without -p, --no-passphrase and"
        " --to the new file has the passphrase and the format of the old one.",
        epilog="Passphrases are asked for, or taken from the environment: SSHPROTO_KEY_PASSPHRASE opens the key,"
        " SSHPROTO_NEW_PASSPHRASE is the new one.",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help=f'the key; "{STDIO}" is standard input')
    parser.add_argument("-f", dest="named", metavar="FILE", help="the same")
    parser.add_argument(
        "--to",
        "-m",
        choices=_PUBLIC,
        metavar="FORMAT",
        help="openssh or pkcs8 for private keys; openssh, rfc4716, pkcs8 or pkcs1 for public ones",
    )
    parser.add_argument("-y", "--public", action="store_true", help="the public half only; of a certificate, its key")
    parser.add_argument("-p", "--new-passphrase", action="store_true", help="encrypt it with a new passphrase")
    parser.add_argument("-C", "--comment", metavar="WORDS", help="the new comment")
    add_writing(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-i", "--in-place", action="store_true", help="replace FILE, and change the comment in FILE.pub, too"
    )
    where.add_argument(
        "-o",
        dest="output",
        metavar="FILE",
        help=f'write to FILE, a private key for its owner alone; "{STDIO}" is standard output, which it is for public'
        " keys if nothing is said",
    )
    add_overwrite(parser)
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
    from sshproto.keys import ContentKind

    if (args.file is None) == (args.named is None):
        raise Misuse("name one file")
    path: str = args.named if args.file is None else args.file
    if args.comment is not None:
        check_comment(args.comment)
    if args.in_place and (path == STDIO or args.public):
        raise Misuse(f"-i replaces FILE, which can't be {'-' if path == STDIO else 'with -y'}")
    if args.new_passphrase and args.no_passphrase:
        raise Misuse("-p asks for a new passphrase, --no-passphrase wants none")
    entry = only(path, data := read(path))
    if entry.kind is ContentKind.REVOKED:
        raise Failure(f"{named(path)}: it is a revocation list; a key is expected")
    if entry.kind is ContentKind.PRIVATE and not args.public:
        return _private(args, path, data, "openssh" if entry.form.startswith("PPK") else entry.form)
    key = entry.key
    if entry.kind is ContentKind.CERTIFICATE and not args.public:
        raise Failure(f"{named(path)}: it is a certificate, which has one form only; -y gives the key that it is for")
    if entry.kind is ContentKind.PRIVATE:
        key = _public_half(path, data, key)
    if key is None:  # pragma: no cover  whatever has no key has a problem
        raise Failure(f"{named(path)}: there is no key in it")
    for option, given in (("-p", args.new_passphrase), ("--no-passphrase", args.no_passphrase)):
        if given:
            raise Misuse(f"{option}: a public key has no passphrase")
    comment = key.comment or entry.comment
    return _write_public(args, path, _with_comment(key, comment if args.comment is None else args.comment))


def _public_half(path: str, data: bytes, key: PublicKey | None) -> PublicKey:
    """Of a private key, with its comment if that can be known without its passphrase."""
    from sshproto.keys.public import LOWEST_RSA_BITS

    lies = beside(path)
    if key is None:
        key = load_private(path, data, Terminal(), minimum=LOWEST_RSA_BITS)[0].public_key
    return lies if lies is not None and lies == key and not key.comment else key


def _with_comment(key: PublicKey, comment: str) -> PublicKey:
    from sshproto.keys.public import LOWEST_RSA_BITS, PublicKey

    return PublicKey.from_blob(key.blob, comment, minimum_rsa_bits=LOWEST_RSA_BITS)


# -------------------------------------------------------------------------------------------------------------- private


def _private(args: argparse.Namespace, path: str, data: bytes, form: str) -> int:
    """Write a private key."""
    from sshproto.keys import PrivateKey
    from sshproto.keys.public import LOWEST_RSA_BITS
    from sshproto_cli.key.saving import refuse_existing

    to = _form(args, form)
    output = path if args.in_place else args.output
    if output is None:
        raise Misuse("a private key is written with -i in place, or with -o to a file")
    if output == STDIO and sys.stdout is not None and sys.stdout.isatty():
        raise Misuse("a private key is not shown on a terminal; name a file with -o")
    if output != STDIO:
        refuse_existing(output, args.overwrite or args.in_place)
    if args.new_passphrase or args.rounds is not None or args.encryption is not None:
        check_writing(args, to)
    terminal = Terminal()
    key, passphrase = load_private(path, data, terminal, minimum=LOWEST_RSA_BITS)
    lies = beside(path)
    had = key.comment or (lies.comment if lies is not None and lies == key.public_key else "")
    comment = had if args.comment is None else args.comment
    if comment != key.comment:
        key = PrivateKey.load(data, passphrase, comment, minimum_rsa_bits=LOWEST_RSA_BITS)
    if args.new_passphrase or args.no_passphrase:
        passphrase = new_passphrase(args, output, terminal)
    content = written(key, to, passphrase, args)
    if args.in_place and read(path) != data:
        raise Failure(f"{path}: somebody has changed it meanwhile; nothing is written")
    if output == STDIO:
        emit(content)
    else:
        _save(args, output, content, key, renew=lies is not None and lies == key.public_key)
    if to == "pkcs8" and comment and args.comment is not None:
        complain(f"{named(output)}: PKCS#8 has no place for a comment; it is left out")
    return 0


def _form(args: argparse.Namespace, form: str) -> str:
    """The format to write.

    Raises:
        Misuse: There is none such for private keys.
    """
    if args.to is None:
        return "pkcs8" if form in ("PKCS#8", "PKCS#1", "SEC 1") else FORMATS[0]
    if args.to not in FORMATS:
        raise Misuse(
            f"--to {args.to} is for public keys (-y writes the public half); private ones: {', '.join(FORMATS)}"
        )
    to: str = args.to
    return to


def _save(args: argparse.Namespace, output: str, content: bytes, key: PrivateKey, *, renew: bool) -> None:
    """Write a private key, and in place the comment of the public one beside it."""
    from sshproto_cli.key.saving import Saved, save

    replaced = args.overwrite or args.in_place
    if not (args.in_place and renew and args.comment is not None):
        save(output, content, private=True, overwrite=replaced)
    else:
        public = f"{key.public_key.openssh()}\n".encode("utf-8", "surrogateescape")
        with (
            Saved(output, content, private=True, overwrite=True) as first,
            Saved(f"{output}.pub", public, private=False, overwrite=True) as second,
        ):
            first.commit()
            second.commit()
    say(f"written: {output}")


# --------------------------------------------------------------------------------------------------------------- public


def _write_public(args: argparse.Namespace, path: str, key: PublicKey) -> int:
    from sshproto.errors import InvalidArgument
    from sshproto_cli.key.saving import save

    for option, given in (("-a", args.rounds), ("-Z", args.encryption)):
        if given is not None:
            raise Misuse(f"{option}: a public key is not encrypted")
    try:
        text: str = getattr(key, args.to or "openssh")()
    except InvalidArgument as error:
        raise Failure(f"{named(path)}: {error}") from None
    content = (text if text.endswith("\n") else f"{text}\n").encode("utf-8", "surrogateescape")
    output = path if args.in_place else args.output or STDIO
    if output == STDIO:
        emit(content)
    else:
        save(output, content, private=False, overwrite=args.overwrite or args.in_place)
    return 0
