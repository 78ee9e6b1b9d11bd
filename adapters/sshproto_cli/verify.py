"""``sshproto verify``: whether a signature over a file is good, and whose it is."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from sshproto_cli.options import Failure, Misuse, Parser, carry_out, complain, local_time, put, read_file
from sshproto_cli.sign import NAMESPACE, STDIO, feed

if TYPE_CHECKING:
    from sshproto.config import SecurityKeyPolicy
    from sshproto.keys import KRL, AllowedSigners
    from sshproto.keys.sshsig import FileSignature

NOT_GOOD = 1
"""The status when the signature is not good, its signer not allowed, or nobody found."""
TROUBLE = 2
"""The status when that could not be found out."""

_LARGEST = 16 * 1024 * 1024
_MOST = 8  # lines that can't be read, of which is told


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "verify",
        help="check signatures of files",
        description="Check a signature of OpenSSH's over FILE, or over what comes on standard input: that IDENTITY has"
        " made it with a key that the file of allowed signers has for IDENTITY, the namespace and the time.",
        epilog=f"The exit status is 0 if the signature is good (or somebody was found), {NOT_GOOD} if not, and"
        f" {TROUBLE} if that could not be found out: a file can't be read, or the options make no sense.",
    )
    if isinstance(parser, Parser):
        parser.failure = TROUBLE
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help=f'what was signed; standard input if not given, or "{STDIO}"'
    )
    parser.add_argument("-s", "--signature", metavar="SIG", help="the signature; FILE.sig if not given")
    parser.add_argument("-f", "--allowed-signers", metavar="SIGNERS", help="who may sign, and with which keys")
    parser.add_argument("-I", "--identity", metavar="IDENTITY", help="who is to have signed")
    parser.add_argument(
        "-n", "--namespace", metavar="NAME", default=NAMESPACE, help="what it has to be for; %(default)s if not given"
    )
    parser.add_argument(
        "-r", "--revoked", metavar="REVOKED", help="keys that are no longer good: a revocation list or a list of keys"
    )
    parser.add_argument(
        "--time",
        metavar="TIME",
        help="when it has to be good; now if not given. YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with Z of UTC",
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--find-principals",
        action="store_true",
        help="only show for whom SIGNERS has the signature's key; not whether it is good",
    )
    modes.add_argument(
        "--match-principals", action="store_true", help="only show the principals of the lines about IDENTITY"
    )
    modes.add_argument("--check-novalidate", action="store_true", help="only check the signature, whoever has made it")
    parser.add_argument(
        "--no-touch-required", action="store_true", help="take signatures of security keys that nobody has touched"
    )
    parser.add_argument(
        "--verify-required",
        action="store_true",
        help="take only those of security keys that asked for a PIN or the like",
    )
    parser.add_argument("--print-key", action="store_true", help="show the key, too, if it is good")
    parser.add_argument("-q", "--quiet", action="store_true", help="show nothing, but errors")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_verify, args, TROUBLE)


def _verify(args: argparse.Namespace) -> int:
    from sshproto.errors import InvalidArgument

    _check(args)
    try:
        if args.match_principals:
            return _match(args)
        if args.find_principals:
            return _find(args)
        return _judge(args)
    except InvalidArgument as error:
        raise Misuse(str(error)) from None


def _check(args: argparse.Namespace) -> None:
    """See that the options go together."""
    if args.allowed_signers is None and not args.check_novalidate:
        raise Misuse("who may sign is not said: --allowed-signers SIGNERS; --check-novalidate does without")
    if args.identity is None and not (args.check_novalidate or args.find_principals):
        raise Misuse(
            "who is to have signed is not said: --identity IDENTITY; --find-principals tells for whom the key is there"
        )
    if args.check_novalidate and (args.allowed_signers or args.identity):
        raise Misuse("--check-novalidate asks for nobody: without --allowed-signers and --identity")
    if args.revoked is not None and (args.find_principals or args.match_principals):
        raise Misuse("--revoked is about a signature that is verified")
    if args.signature is None and not args.match_principals and args.file in (None, STDIO):
        raise Misuse("which signature is not said: --signature SIG")


# ---------------------------------------------------------------------------------------------------------------- verbs


def _judge(args: argparse.Namespace) -> int:
    from sshproto.errors import KeyFormatError, SignatureInvalid

    revoked = _revoked(args)
    signers = None if args.check_novalidate else _signers(args)
    policy, now = _policy(args), _now(args)
    try:
        signature = _signature(args)
        hashed = feed(args.file or STDIO, signature.hash())
        if signers is not None:
            signers.verify(signature, hashed, args.identity, args.namespace, now=now, revoked=revoked, policy=policy)
        else:
            signature.verify(hashed, args.namespace, policy=policy)
            if revoked is not None and (why := revoked.why(signature.signer)):
                raise KeyFormatError(f"the key is revoked: {why}")
    except (SignatureInvalid, KeyFormatError) as error:
        complain(str(error))
        if signers is not None:
            _tell_problems(args, signers)
        if not args.quiet:
            put("Could not verify signature.\n")
        return NOT_GOOD
    _tell_good(args, signature)
    return 0


def _tell_good(args: argparse.Namespace, signature: FileSignature) -> None:
    """As ssh-keygen tells it."""
    from sshproto.keys.listing import short_name
    from sshproto.text import printable

    signer, certified = signature.signer, signature.certificate is not None
    whose = "" if args.identity is None else f" for {printable(args.identity)}"
    name = f"{short_name(signature.key.type, certified=certified)} key {signer.fingerprint()}"
    if not args.quiet:
        put(f'Good "{printable(args.namespace)}" signature{whose} with {name}\n')
    if args.print_key:
        put(f"{signer.openssh()}\n")


def _find(args: argparse.Namespace) -> int:
    from sshproto.errors import KeyFormatError

    signers, now = _signers(args), _now(args)
    try:
        signature = _signature(args)
    except KeyFormatError as error:
        complain(str(error))
        return NOT_GOOD
    return _show(args, signers, signers.find_principals(signature.signer, now=now))


def _match(args: argparse.Namespace) -> int:
    from sshproto.errors import KeyFormatError

    signers = _signers(args)
    try:
        found = signers.match_principals(args.identity)
    except KeyFormatError as error:
        complain(f"{args.allowed_signers}: {error}")
        return NOT_GOOD
    return _show(args, signers, found)


def _show(args: argparse.Namespace, signers: AllowedSigners, found: tuple[str, ...]) -> int:
    from sshproto.text import printable

    if not found:
        complain("no principal matched")
        _tell_problems(args, signers)
        return NOT_GOOD
    if not args.quiet:
        put("".join(f"{printable(each, 4096)}\n" for each in found))
    return 0


def _tell_problems(args: argparse.Namespace, signers: AllowedSigners) -> None:
    """Which lines of the file of allowed signers can't be read: the one that is missed may be among them."""
    for line, problem in signers.problems[:_MOST]:
        complain(f"{args.allowed_signers} line {line}: {problem}")
    if len(signers.problems) > _MOST:
        complain(f"{args.allowed_signers}: {len(signers.problems) - _MOST} lines more can't be read")


# ----------------------------------------------------------------------------------------------------- what it is about


def _signature(args: argparse.Namespace) -> FileSignature:
    from sshproto.keys.sshsig import MAXIMUM_FILE, FileSignature

    path = f"{args.file}.sig" if args.signature is None else args.signature
    return FileSignature.parse(read_file(path, "signature", MAXIMUM_FILE))


def _signers(args: argparse.Namespace) -> AllowedSigners:
    from sshproto.keys import allowed_signers

    return allowed_signers.parse(read_file(args.allowed_signers, "allowed signers", _LARGEST), local=local_time)


def _revoked(args: argparse.Namespace) -> KRL | None:
    from sshproto.errors import KeyFormatError
    from sshproto.keys import read_revoked

    if args.revoked is None:
        return None
    try:
        return read_revoked(read_file(args.revoked, "revoked keys", _LARGEST))
    except KeyFormatError as error:
        raise Failure(f"revoked keys {args.revoked}: {error}") from None


def _now(args: argparse.Namespace) -> float:
    from sshproto.errors import KeyFormatError
    from sshproto.keys import read_timestamp

    if args.time is None:
        return time.time()
    try:
        return read_timestamp(args.time, local_time)
    except KeyFormatError as error:
        raise Misuse(f"--time: {error}") from None


def _policy(args: argparse.Namespace) -> SecurityKeyPolicy:
    from sshproto.config import SecurityKeyPolicy

    return SecurityKeyPolicy(user_presence=not args.no_touch_required, user_verification=args.verify_required)
