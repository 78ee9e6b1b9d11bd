"""``sshproto key generate``: a new key, in two files."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sshproto_cli.key.common import (
    FORMATS,
    TROUBLE,
    add_overwrite,
    add_writing,
    check_comment,
    check_writing,
    new_passphrase,
    written,
)
from sshproto_cli.options import Failure, Misuse, carry_out, put
from sshproto_cli.terminal import Terminal

if TYPE_CHECKING:
    from sshproto.keys import PrivateKey

_ECDSA = {256: "ecdsa-sha2-nistp256", 384: "ecdsa-sha2-nistp384", 521: "ecdsa-sha2-nistp521"}
_COMPOSITE = "ssh-mldsa44-ed25519@openssh.com"
_TYPES = {"ed25519": "ssh-ed25519", "ecdsa": "", "rsa": "ssh-rsa", "mldsa44-ed25519": _COMPOSITE}
_FULL = ("ssh-ed25519", *_ECDSA.values(), "ssh-rsa", _COMPOSITE)
_FILES = {
    "ssh-ed25519": "id_ed25519",
    "ssh-rsa": "id_rsa",
    _COMPOSITE: "id_mldsa44_ed25519",
    **dict.fromkeys(_ECDSA.values(), "id_ecdsa"),
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "generate",
        help="make a key",
        description="Make a key: the private half in FILE, which only its owner may read, the public one in FILE.pub."
        " The passphrase is asked for twice, or taken from the environment variable SSHPROTO_NEW_PASSPHRASE.",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="~/.ssh/id_ed25519, id_ecdsa or id_rsa if not given")
    parser.add_argument("-f", dest="named", metavar="FILE", help="the same")
    parser.add_argument(
        "-t",
        "--type",
        metavar="TYPE",
        default="ed25519",
        help="ed25519, which it is if not given, ecdsa, rsa or mldsa44-ed25519 (experimental)",
    )
    parser.add_argument(
        "-b", "--bits", metavar="N", type=int, help="of ecdsa 256, 384 or 521; of rsa 2048 to 16384, 3072 if not given"
    )
    parser.add_argument("-C", "--comment", metavar="WORDS", help="to go with the key; user@host if not given")
    parser.add_argument("-m", "--format", choices=FORMATS, default=FORMATS[0], help="%(default)s if not given")
    add_writing(parser)
    add_overwrite(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing")
    parser.add_argument("--json", action="store_true", help="say it as a JSON object")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_generate, args, TROUBLE)


def _generate(args: argparse.Namespace) -> int:
    from sshproto.errors import InvalidArgument, KeyFormatError
    from sshproto.keys import PrivateKey
    from sshproto_cli.key.saving import Saved, refuse_existing

    kind = _kind(args.type, args.bits)
    check_writing(args, args.format)
    comment = _usual_comment() if args.comment is None else args.comment
    check_comment(comment)
    path = _path(args, kind)
    for each in (path, f"{path}.pub"):
        refuse_existing(each, args.overwrite)
    passphrase = new_passphrase(args, path, Terminal())
    try:
        key = PrivateKey.generate(kind, args.bits if kind == "ssh-rsa" else None, comment)
    except InvalidArgument as error:
        raise Misuse(str(error)) from None
    except KeyFormatError as error:
        raise Failure(str(error)) from None
    private = written(key, args.format, passphrase, args)
    public = f"{key.public_key.openssh()}\n".encode("utf-8", "surrogateescape")
    with (
        Saved(path, private, private=True, overwrite=args.overwrite) as first,
        Saved(f"{path}.pub", public, private=False, overwrite=args.overwrite) as second,
    ):
        first.commit()
        try:
            second.commit()
        except BaseException:
            first.undo()
            raise
    if not args.quiet:
        _tell(args, key, path, passphrase is not None)
    return 0


def _kind(name: str, bits: int | None) -> str:
    """The type of key.

    Raises:
        Misuse: There is none, or not of that size.
    """
    name = name.lower()
    if name in ("ed25519-sk", "ecdsa-sk") or name.startswith("sk-"):
        raise Misuse(f"-t: a key in a security token, {name}, is made by ssh-keygen; sshproto knows its public half")
    if name in ("dsa", "ssh-dss"):
        raise Misuse("-t: DSA is too weak (1024 bits, SHA-1)")
    if name not in _TYPES and name not in _FULL:
        raise Misuse(f"-t: there is no type {name!r}; there are {', '.join(_TYPES)}")
    kind = _TYPES.get(name, name)
    if not kind:
        if bits is not None and bits not in _ECDSA:
            raise Misuse(f"-b: an ECDSA key has 256, 384 or 521 bits, not {bits}")
        return _ECDSA[bits or 256]
    sizes = {"ssh-ed25519": 256, _COMPOSITE: 256} | {each: size for size, each in _ECDSA.items()}
    if bits is not None and kind in sizes and bits != sizes[kind]:
        raise Misuse(f"-b: a key of type {kind} has {sizes[kind]} bits, not {bits}")
    return kind


def _usual_comment() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # an id without a name
        user = str(os.getuid())
    comment = f"{user}@{socket.gethostname()}"
    return "".join(character for character in comment if character.isprintable())


def _path(args: argparse.Namespace, kind: str) -> str:
    """Where the private half goes. ``~/.ssh`` is made if it is not there; no other directory is."""
    if args.file is not None and args.named is not None:
        raise Misuse(f"two files are named, {args.file!r} and {args.named!r}")
    given: str | None = args.named if args.file is None else args.file
    if given is not None:
        if given in ("", "-"):
            raise Misuse("a key is written to a file; name one")
        return given
    try:
        directory = Path.home() / ".ssh"
    except RuntimeError:
        raise Failure("your home directory is not known; name a file") from None
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Failure(f"{directory}: {error.strerror or error}") from None
    return str(directory / _FILES[kind])


def _tell(args: argparse.Namespace, key: PrivateKey, path: str, encrypted: bool) -> None:
    from sshproto.keys.listing import fingerprint_line
    from sshproto.text import printable

    public = key.public_key
    if args.json:
        told: dict[str, Any] = {
            "private_key": path,
            "public_key": f"{path}.pub",
            "type": public.type,
            "bits": public.bits,
            "comment": public.comment,
            "sha256": public.fingerprint(),
            "encrypted": encrypted,
        }
        put(json.dumps(told) + "\n")
        return
    put(
        f"private key: {printable(path, 4096)}{'' if encrypted else ' (not encrypted)'}\n"
        f"public key:  {printable(path, 4096)}.pub\n"
        f"{fingerprint_line(public, public.comment)}\n{public.randomart()}\n"
    )
