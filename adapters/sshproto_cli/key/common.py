"""What the verbs of ``sshproto key`` share: files in, passphrases, and what is written."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sshproto_cli.options import (
    PASSPHRASE_VARIABLE,
    Failure,
    Misuse,
    check_openable,
    say,
    warn_of_readers,
)

if TYPE_CHECKING:
    from sshproto.keys import Content, Contents, PrivateKey, PublicKey
    from sshproto_cli.terminal import Terminal

STDIO = "-"
"""Standard input, or output."""

NEW_PASSPHRASE_VARIABLE = "SSHPROTO_NEW_PASSPHRASE"

TROUBLE = 1
"""The status when something can't be read or written."""

FORMATS = ("openssh", "pkcs8")
"""The formats in which private keys are written."""

_TRIES = 3


def read(path: str) -> bytes:
    """The content of a file, or of standard input.

    Args:
        path: Its name, or ``"-"``.

    Raises:
        Failure: It can't be read.
    """
    from sshproto.keys.krl import MAXIMUM_SIZE  # the largest of the files

    if path != STDIO:
        return _read(path, MAXIMUM_SIZE)
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  what Python makes of a closed one
        raise Failure("standard input is closed")
    data = sys.stdin.buffer.read(MAXIMUM_SIZE + 1)
    if len(data) > MAXIMUM_SIZE:
        raise Failure(f"standard input: more than {MAXIMUM_SIZE} bytes")
    return data


def _read(path: str, limit: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}") from None
    if len(data) > limit:
        raise Failure(f"{path}: more than {limit} bytes")
    return data


def named(path: str) -> str:
    """The name of a file, for people."""
    return "standard input" if path == STDIO else path


def contents(path: str, data: bytes) -> Contents:
    """What is in a file.

    Raises:
        Failure: It is no file of keys.
    """
    from sshproto.errors import KeyFormatError
    from sshproto.keys import identify

    try:
        return identify(data)
    except KeyFormatError as error:
        raise Failure(f"{named(path)}: {error}") from None


def only(path: str, data: bytes) -> Content:
    """The one thing in a file that should have one.

    Raises:
        Failure: There are several, or it can't be read or used.
    """
    found = contents(path, data)
    for number, problem in found.problems:
        raise Failure(f"{named(path)} line {number}: {problem}")
    if len(found.entries) != 1:
        raise Failure(f"{named(path)}: {len(found.entries)} keys are in it, one is expected")
    [entry] = found.entries
    if entry.problem:
        raise Failure(f"{named(path)}: {entry.problem}")
    return entry


def beside(path: str) -> PublicKey | None:
    """The public key in the file ``path.pub``."""
    from sshproto.errors import KeyFormatError
    from sshproto.keys.public import LOWEST_RSA_BITS, PublicKey

    if path == STDIO:
        return None
    try:
        return PublicKey.parse(_read(f"{path}.pub", 64 * 1024), minimum_rsa_bits=LOWEST_RSA_BITS)
    except (Failure, KeyFormatError):
        return None


# ---------------------------------------------------------------------------------------------------------- passphrases


def load_private(path: str, data: bytes, terminal: Terminal, *, minimum: int) -> tuple[PrivateKey, bytes | None]:
    """A private key, and the passphrase that opened it: of the environment, or asked for.

    Args:
        path: The file's name.
        data: What is in it.
        terminal: Who to ask.
        minimum: The smallest RSA key that will do, in bits.

    Raises:
        Failure: It is no private key, or nothing opens it.
    """
    from sshproto.errors import KeyFormatError
    from sshproto.keys.private import PassphraseNeeded, PassphraseWrong, PrivateKey

    name = named(path)
    if path != STDIO:
        warn_of_readers(path)
    try:
        return PrivateKey.load(data, minimum_rsa_bits=minimum), None
    except PassphraseNeeded:
        check_openable(data, name)
    except KeyFormatError as error:
        raise Failure(f"{name}: {error}") from None
    given = os.environ.get(PASSPHRASE_VARIABLE)
    for _ in range(_TRIES):
        passphrase = terminal.ask(f"Passphrase for key {name}: ") if given is None else given
        if not passphrase:
            break
        secret = passphrase.encode("utf-8", "surrogateescape")
        try:
            return PrivateKey.load(data, secret, minimum_rsa_bits=minimum), secret
        except PassphraseWrong:
            if given is not None:
                raise Failure(f"{name}: the passphrase in {PASSPHRASE_VARIABLE} is wrong") from None
            say("That is not the passphrase.")
        except KeyFormatError as error:
            raise Failure(f"{name}: {error}") from None
    else:
        raise Failure(f"{name}: wrong passphrase")
    if terminal.present:
        raise Failure(f"{name}: it is encrypted, and there is no passphrase")
    raise Failure(
        f"{name}: it is encrypted; there is no terminal to ask, {PASSPHRASE_VARIABLE} may hold its passphrase"
    )


def new_passphrase(args: argparse.Namespace, path: str, terminal: Terminal) -> bytes | None:
    """The passphrase for a key that is to be written: of the environment, or asked for twice; None for none.

    Raises:
        Failure: There is nobody to ask, or what was typed differs.
    """
    if args.no_passphrase:
        return None
    given = os.environ.get(NEW_PASSPHRASE_VARIABLE)
    if given is not None:
        if not given:
            raise Failure(f"{NEW_PASSPHRASE_VARIABLE} is empty; --no-passphrase writes a key that is not encrypted")
        return given.encode("utf-8", "surrogateescape")
    if not terminal.present:
        raise Failure(
            f"there is no terminal to ask for a passphrase; {NEW_PASSPHRASE_VARIABLE} may hold one, and --no-passphrase"
            " does without"
        )
    for _ in range(_TRIES):
        first = terminal.ask(f"New passphrase for {path} (empty for none): ")
        again = terminal.ask("The same again: ") if first is not None else None
        if first is None or again is None:
            raise Failure("no passphrase was typed")
        if first == again:
            return first.encode("utf-8", "surrogateescape") or None
        say("These differ; please try again.")
    raise Failure("no passphrase was typed twice")


# -------------------------------------------------------------------------------------------------------------- writing


class _NotHere(argparse.Action):
    """What ssh-keygen takes a passphrase with, and nobody should."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(
            "a passphrase is not taken from the command line, where every user could see it; it is asked for, or in the"
            f" environment: {PASSPHRASE_VARIABLE} opens a key, {NEW_PASSPHRASE_VARIABLE} is a new one, and"
            " --no-passphrase writes without"
        )


def refuse_passphrases(parser: argparse.ArgumentParser) -> None:
    """Say what to do instead to who gives a passphrase as to ssh-keygen."""
    for option in ("-N", "-P"):
        parser.add_argument(option, action=_NotHere, dest=argparse.SUPPRESS, help=argparse.SUPPRESS)


def add_writing(parser: argparse.ArgumentParser) -> None:
    """Add the options about how a private key is encrypted."""
    refuse_passphrases(parser)
    parser.add_argument(
        "--no-passphrase", action="store_true", help="write the private key without encryption, and ask for nothing"
    )
    parser.add_argument(
        "-a",
        "--rounds",
        metavar="N",
        type=int,
        help="how often a passphrase is hashed: rounds of bcrypt, 24 if not given, or in PKCS#8 iterations of PBKDF2,"
        " 600000 if not given",
    )
    parser.add_argument(
        "-Z", "--encryption", metavar="CIPHER", help="the cipher, in OpenSSH's format; aes256-ctr if not given"
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add the option that lets files be replaced."""
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there already")


def check_writing(args: argparse.Namespace, form: str) -> None:
    """See that what :func:`add_writing` added makes sense, before anybody types a passphrase.

    Raises:
        Misuse: It does not.
        Failure: A package is missing.
    """
    from sshproto.keys import openssh, pem

    if form == "pkcs8":
        if args.encryption is not None:
            raise Misuse("-Z is for OpenSSH's format; PKCS#8 is encrypted with AES-256-CBC")
        most, what = pem.MAXIMUM_ITERATIONS, "iterations of PBKDF2"
    else:
        if args.encryption is not None and args.encryption not in openssh.CIPHERS:
            raise Misuse(f"-Z: there is no cipher {args.encryption!r}; there are {', '.join(openssh.CIPHERS)}")
        most, what = openssh.MAXIMUM_ROUNDS, "rounds of bcrypt"
        if not args.no_passphrase and importlib.util.find_spec("bcrypt") is None:
            raise Failure(
                "the package bcrypt, with which OpenSSH's format is encrypted, is not installed;"
                " pip install 'sshproto[encrypted-keys]', or -m pkcs8 or --no-passphrase do without"
            )
    if args.rounds is not None and not 1 <= args.rounds <= most:
        raise Misuse(f"-a: 1 to {most} {what} can be done, not {args.rounds}")


def written(key: PrivateKey, form: str, passphrase: bytes | None, args: argparse.Namespace) -> bytes:
    """The content of a file for a private key, as :func:`check_writing` has found it to make sense.

    Raises:
        Failure: It can't be encrypted.
    """
    from sshproto.errors import KeyFormatError

    options: dict[str, int | str] = {}
    if args.rounds is not None:
        options["iterations" if form == "pkcs8" else "rounds"] = args.rounds
    if args.encryption is not None:
        options["cipher"] = args.encryption
    try:
        return getattr(key, form)(passphrase, **options)  # type: ignore[no-any-return]
    except KeyFormatError as error:
        raise Failure(str(error)) from None


def emit(data: bytes) -> None:
    """Write the content of a file to standard output, as it is.

    Raises:
        BrokenPipeError: Nobody reads it any more.
        Failure: It can't be written.
    """
    from sshproto_cli.output import STDOUT, Output

    with Output(STDOUT) as output:
        output.write(data)


def check_comment(comment: str) -> None:
    """See that a comment is one line.

    Raises:
        Misuse: It is not.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in comment):
        raise Misuse("a comment is one line, without control characters")
    if len(comment.encode("utf-8", "surrogateescape")) > 1024:
        raise Misuse("a comment has at most 1024 bytes")
