"""``sshproto key certify``: certificates for users and hosts."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sshproto_cli.key.common import STDIO, TROUBLE, emit, load_private, named, only, read, refuse_passphrases
from sshproto_cli.options import AGENT_PATIENCE, Failure, Misuse, carry_out, local_time, say
from sshproto_cli.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sshproto.keys import Certificate, PublicKey
    from sshproto.keys.issuing import Signer
    from sshproto.wire.codec import Buffer
    from sshproto_io.blocking import Agent

_PERMISSIONS = {
    f"no-{name.lower().removeprefix('permit-')}": name
    for name in (
        *("permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty"),
        "permit-user-rc",
    )
}
"""What takes a permission away, and which."""

_EXTENSIONS = {name.lower(): name for name in (*_PERMISSIONS.values(), "no-touch-required")}
_SERIAL = re.compile(r"(\+?)(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})", re.ASCII)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "certify",
        add_help=False,  # -h is ssh-keygen's for hosts
        help="sign certificates for users and hosts",
        description="Certify public keys: a file KEY.pub gets a certificate KEY-cert.pub, which replaces an older one."
        " The passphrase of the authority's key is asked for, or taken from the environment variable"
        " SSHPROTO_KEY_PASSPHRASE.",
        epilog="VALIDITY is FROM:TO, or TO alone: +52w, -1d:+12h, 20260101:20270101 (dates are of the zone where this"
        " is, with Z behind them of UTC), 0x and seconds in hexadecimal; always and forever stand for no beginning and"
        " no end. OPTION is one of clear (permit nothing that isn't asked for after it), force-command=COMMAND,"
        " source-address=LIST, verify-required, no-touch-required; permit-X11-forwarding, permit-agent-forwarding,"
        " permit-port-forwarding, permit-pty, permit-user-rc and the same with no- in place of permit-;"
        " critical:NAME[=TEXT] and extension:NAME[=TEXT] for one's own, NAME being name@domain.",
    )
    parser.add_argument("files", metavar="KEY", nargs="+", help=f'a public key; "{STDIO}" is standard input')
    parser.add_argument(
        "-s",
        "--authority",
        metavar="FILE",
        required=True,
        help="the authority's private key, or with -U its public key",
    )
    parser.add_argument(
        "-U", "--agent", action="store_true", help="the agent at SSH_AUTH_SOCK has the authority's private key"
    )
    parser.add_argument("-I", "--identity", metavar="WORDS", required=True, help="for whom it is, for logs")
    parser.add_argument("-h", "--host", action="store_true", help="for hosts; otherwise it is for users")
    parser.add_argument(
        "-n",
        "--principals",
        metavar="NAMES",
        required=True,
        help="the users, or hosts, that it is good for, separated by commas",
    )
    parser.add_argument("-V", "--validity", metavar="VALIDITY", required=True, help="when it is valid")
    parser.add_argument(
        "-z",
        "--serial",
        metavar="N",
        default="0",
        help="its number, by which it can be revoked; 0, if not given, is none. With + before it each of several keys"
        " gets the next number",
    )
    parser.add_argument("-O", "--option", metavar="OPTION", action="append", default=[], help="may be given more often")
    parser.add_argument("-t", "--algorithm", metavar="NAME", help="how an RSA key signs: rsa-sha2-512 or rsa-sha2-256")
    parser.add_argument(
        "-o", dest="output", metavar="FILE", help=f'write to FILE, of one key; "{STDIO}" is standard output'
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing")
    parser.add_argument("--help", action="help", help="show this help message and exit")
    refuse_passphrases(parser)
    parser.set_defaults(run=run)
    _take_dashes(parser)
    return parser


def _take_dashes(parser: argparse.ArgumentParser) -> None:
    """Let the value of -V begin with a dash, as in ``-V -1d:+12h``, which argparse would take for an option; and -h
    alone be a call for help.
    """
    parse: Callable[..., Any] = parser.parse_known_args

    def joined(words: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> Any:
        left = list(sys.argv[1:] if words is None else words)
        if left == ["-h"]:
            left = ["--help"]
        for at in range(len(left) - 2, -1, -1):
            if left[at] in ("-V", "--validity") and re.match("-[0-9]", left[at + 1]):
                left[at : at + 2] = [f"--validity={left[at + 1]}"]
        return parse(left, namespace)

    parser.parse_known_args = joined  # type: ignore[assignment, method-assign]


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_certify, args, TROUBLE)


def _certify(args: argparse.Namespace) -> int:
    from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid
    from sshproto.keys import Certificate, CertificateKind, parse_validity
    from sshproto_cli.key.saving import save

    kind = CertificateKind.HOST if args.host else CertificateKind.USER
    if args.output is not None and len(args.files) > 1:
        raise Misuse("-o is for one key; of several each certificate gets a name of its own")
    step, serial = _serial(args.serial, len(args.files))
    options, extensions = _options(args.option, user=not args.host)
    try:
        after, before = parse_validity(args.validity, int(time.time()), local=local_time)
    except InvalidArgument as error:
        raise Misuse(f"-V: {error}") from None
    keys = [(path, _key(path)) for path in args.files]
    for path in args.files:
        _check_replaced(_output(args, path))
    made: list[tuple[str, Certificate]] = []
    with _authority(args) as authority:
        for number, (path, key) in enumerate(keys):
            try:
                certificate = Certificate.issue(
                    authority,
                    key,
                    kind,
                    key_id=args.identity,
                    principals=args.principals.split(","),
                    valid_after=after,
                    valid_before=before,
                    serial=serial + step * number,
                    critical_options=options,
                    extensions=extensions,
                    algorithm=args.algorithm,
                )
            except (InvalidArgument, KeyFormatError, SignatureInvalid) as error:
                raise Failure(f"{named(path)}: {error}") from None
            made.append((_output(args, path), certificate))
    for output, certificate in made:  # all, or if one can't be issued none
        line = f"{certificate.openssh()}\n".encode("utf-8", "surrogateescape")
        if output == STDIO:
            emit(line)
        else:
            save(output, line, private=False, overwrite=True)
        if not args.quiet:
            _tell(output, certificate)
    return 0


@contextlib.contextmanager
def _authority(args: argparse.Namespace) -> Iterator[Signer]:
    """Who signs: a key in a file, or one that the agent has."""
    from sshproto.keys.public import MINIMUM_RSA_BITS

    data = read(args.authority)
    if not args.agent:
        entry = only(args.authority, data)
        if entry.kind.value != "private key":
            raise Failure(
                f"{named(args.authority)}: it is a {entry.kind.value}, the authority's private key is expected; with -U"
                " the agent signs"
            )
        yield load_private(args.authority, data, Terminal(), minimum=MINIMUM_RSA_BITS)[0]
        return
    from sshproto.agent import AgentError
    from sshproto_io.blocking import open_agent

    if not os.environ.get("SSH_AUTH_SOCK"):
        raise Failure("-U: no agent is named by SSH_AUTH_SOCK")
    public = _key(args.authority)
    try:
        with open_agent(timeout=AGENT_PATIENCE) as agent:
            if public.blob not in {identity.blob for identity in agent.identities()}:
                raise Failure(
                    f"the agent does not have the key {public.type} {public.fingerprint()} of {args.authority}"
                )
            yield _InAgent(public, agent)
    except AgentError as error:
        raise Failure(f"the agent: {error}") from None


class _InAgent:
    """An authority whose key an agent has."""

    def __init__(self, public_key: PublicKey, agent: Agent) -> None:
        self.public_key = public_key
        self._agent = agent

    def sign(self, data: Buffer, algorithm: str | None = None) -> bytes:
        return self._agent.sign(self.public_key, bytes(data), algorithm)


def _key(path: str) -> PublicKey:
    """The key to be certified.

    Raises:
        Failure: There is none in the file, it is weak, or it has been certified before.
    """
    from sshproto.errors import KeyFormatError
    from sshproto.keys import ContentKind, PublicKey

    entry = only(path, read(path))
    if entry.kind is ContentKind.CERTIFICATE:
        raise Failure(f"{named(path)}: it is a certificate already; the key itself is certified")
    if entry.key is None:
        raise Failure(f"{named(path)}: a public key is expected; 'sshproto key convert -y' makes it of a private one")
    try:
        return PublicKey.from_blob(entry.blob, entry.comment)
    except KeyFormatError as error:
        raise Failure(f"{named(path)}: {error}") from None


def _output(args: argparse.Namespace, path: str) -> str:
    """Where the certificate for a key goes."""
    if args.output is not None or path == STDIO:
        return args.output or STDIO
    return f"{path.removesuffix('.pub')}-cert.pub"


def _check_replaced(path: str) -> None:
    """See that what stands where a certificate is to go is an older one: that and nothing else is replaced.

    Raises:
        Failure: It is something else, which would be lost.
    """
    if path == STDIO or not os.path.lexists(path):
        return
    if re.match(rb"[!-~]+-cert-v01@openssh\.com ", read(path)) is None:
        raise Failure(f"{path}: it is there already, and is no certificate")


def _serial(given: str, count: int) -> tuple[int, int]:
    """How it grows, and the first."""
    found = _SERIAL.fullmatch(given)
    number = -1 if found is None else int(found[2], 16 if found[2][:2] in ("0x", "0X") else 10)
    step = int(found is not None and bool(found[1]))
    if not 0 <= number <= number + step * (count - 1) < 2**64:
        raise Misuse(f"-z: a serial number is from 0 to 2^64 - 1, with or without + before it, not {given!r}")
    return step, number


def _options(given: Iterable[str], *, user: bool) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Critical options and extensions.

    Raises:
        Misuse: There is no such option, or it lacks a value, or has one too many.
    """
    options: dict[str, str] = {}
    extensions: dict[str, str] = dict.fromkeys(_PERMISSIONS.values(), "") if user else {}
    own: dict[str, str] = {}  # what was named in full is nothing for "clear"
    for option in given:
        name, equals, value = option.partition("=")
        lower = name.lower()
        if lower in ("force-command", "source-address"):
            if not value:
                raise Misuse(f"-O {name} takes a value: {name}={'COMMAND' if lower[0] == 'f' else 'LIST'}")
            if options.get(lower, value) != value:
                raise Misuse(f"-O {name} is given twice")
            options[lower] = value
            continue
        what, _, its_name = name.partition(":")
        if what.lower() in ("critical", "extension"):
            (options if what.lower() == "critical" else own)[its_name] = value
            continue
        if equals:
            raise Misuse(f"-O {name} takes no value")
        if lower == "clear":
            extensions.clear()
        elif lower == "verify-required":
            options[lower] = ""
        elif lower in _EXTENSIONS:
            extensions[_EXTENSIONS[lower]] = ""
        elif lower in _PERMISSIONS:
            extensions.pop(_PERMISSIONS[lower], None)
        else:
            raise Misuse(f"-O: there is no option {option!r}; see --help")
    return options, extensions | own


def _tell(output: str, certificate: Certificate) -> None:
    from sshproto.keys.listing import show_validity
    from sshproto.text import printable

    what = f"{certificate.kind.name.lower()} certificate"
    to = "" if output == STDIO else f" {printable(output, 4096)}:"
    say(
        f'{what}{to} "{printable(certificate.key_id)}", serial {certificate.serial},'
        f" for {printable(','.join(certificate.principals), 1024)},"
        f" valid {show_validity(certificate, clock=datetime.fromtimestamp)}"
    )
