"""``sshproto sign``: signatures over files, by a key in a file or one that an agent has."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sshproto_cli.options import AGENT_PATIENCE, Failure, Misuse, carry_out, put, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from sshproto.keys import Certificate, PrivateKey, PublicKey
    from sshproto.keys.sshsig import FileSignature, MessageHash, SignatureRequest

STDIO = "-"
"""Standard input, or output."""

NAMESPACE = "file"
"""What signatures are for if nothing else is said."""

HASHES = ("sha512", "sha256")
FAILED = 1
"""The status when something was not signed."""

_PIECE = 1024 * 1024
_LARGEST_KEY = 1024 * 1024
_SUFFIXES = ("-cert.pub", ".pub")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "sign",
        help="sign files",
        description="Sign files: FILE gets a signature FILE.sig, what comes on standard input one on standard output."
        " The signatures are OpenSSH's, which 'sshproto verify' and 'ssh-keygen -Y verify' check. The passphrase of an"
        " encrypted key is asked for, or taken from the environment variable SSHPROTO_KEY_PASSPHRASE.",
        epilog="If KEY is a public key or a certificate, the private key in the file beside it signs, whose name has no"
        " .pub or -cert.pub, or if there is none the agent at SSH_AUTH_SOCK. The agent also signs for a key that is"
        f" encrypted, if it has it. The exit status is 0, or {FAILED} if something was not signed.",
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help=f'what to sign; "{STDIO}", or none, is standard input')
    parser.add_argument("-f", "--key", metavar="KEY", required=True, help="the file of the key")
    parser.add_argument(
        "-n",
        "--namespace",
        metavar="NAME",
        default=NAMESPACE,
        help="what the signature is for: %(default)s if not given, email, git, or one's own, name@domain",
    )
    parser.add_argument("--hash", choices=HASHES, default=HASHES[0], help="%(default)s if not given")
    parser.add_argument("--certificate", metavar="CERT", help="a certificate for the key, to stand in the signature")
    parser.add_argument("--agent", action="store_true", help="have the agent sign, whatever is in the file of the key")
    parser.add_argument(
        "-o", dest="output", metavar="FILE", help=f'write to FILE, of one signature; "{STDIO}" is standard output'
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a signature that is there already")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_sign, args, FAILED)


def _sign(args: argparse.Namespace) -> int:
    from sshproto.errors import InvalidArgument, SignatureInvalid
    from sshproto.keys.sshsig import MessageHash
    from sshproto_cli.key.saving import refuse_existing, save

    files: list[str] = args.files or [STDIO]
    if STDIO in files and len(files) > 1:
        raise Misuse("standard input is signed alone, not with files")
    if args.output is not None and len(files) > 1:
        raise Misuse(f"-o is for one signature, {len(files)} are to be made")
    usual = {path: STDIO if path == STDIO else f"{path}.sig" for path in files}
    outputs = usual if args.output is None else {files[0]: args.output}
    for output in outputs.values():
        if output != STDIO:
            refuse_existing(output, args.overwrite)
    try:
        with _Signer(args) as signer:
            sign = signer.prepared()
            for path, output in outputs.items():
                armoured = sign(feed(path, MessageHash(args.hash))).armoured()
                if output == STDIO:
                    put(armoured)
                    continue
                save(output, armoured.encode(), private=False, overwrite=args.overwrite)
                if not args.quiet:
                    say(f"{'standard input' if path == STDIO else path}: the signature is in {output}")
    except InvalidArgument as error:
        raise Misuse(str(error)) from None
    except SignatureInvalid as error:
        raise Failure(str(error)) from None
    return 0


def feed(path: str, hashed: MessageHash) -> MessageHash:
    """Feed a file, or standard input, to ``hashed``, which is returned.

    Raises:
        Failure: It can't be read.
    """
    try:
        if path == STDIO:
            if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  what Python makes of a closed one
                raise Failure("standard input is closed")
            while data := sys.stdin.buffer.read(_PIECE):
                hashed.update(data)
        else:
            with Path(path).open("rb", buffering=0) as file:
                while data := file.read(_PIECE):
                    hashed.update(data)
    except OSError as error:
        raise Failure(f"{'standard input' if path == STDIO else path}: {error.strerror or error}") from None
    return hashed


# ------------------------------------------------------------------------------------------------------------ who signs


class _Signer:
    """Finds out who signs, and has them sign, in a ``with`` statement.

    Args:
        args: The verb's.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._closing = contextlib.ExitStack()
        self._path: str = args.key
        self._certificate: Certificate | None = None
        self._asked: dict[bytes, Callable[[SignatureRequest], bytes] | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def prepared(self) -> Callable[[MessageHash], FileSignature]:
        """A function that signs what was fed.

        Raises:
            Failure: There is nobody to sign.
        """
        from sshproto.keys import PublicKey

        if self._args.certificate is not None:
            self._certificate = _certificate(self._args.certificate)
        found = self._key()
        key = found if isinstance(found, PublicKey) else found.public_key
        certificate = self._certificate
        if certificate is not None and certificate.key != key:
            raise Failure(
                f"the certificate is for the key {certificate.fingerprint()}; {self._path} has {key.fingerprint()}"
            )
        if isinstance(found, PublicKey):
            ask = self._agent(key)
            if ask is None:
                where = "the agent does not have it" if _agent_named() else "no agent is named by SSH_AUTH_SOCK"
                raise Failure(f"{self._path}: there is no private key for {key.type} {key.fingerprint()}, and {where}")
            return lambda hashed: self._finish(key, hashed, ask)
        private = found
        return lambda hashed: self._finish(key, hashed, lambda asked: private.sign(asked.data, asked.algorithm))

    def _finish(self, key: PublicKey, hashed: MessageHash, sign: Callable[[SignatureRequest], bytes]) -> FileSignature:
        from sshproto.keys import sshsig

        asked = sshsig.request(self._certificate or key, hashed, self._args.namespace)
        return asked.finish(sign(asked))

    def _key(self) -> PrivateKey | PublicKey:
        """The private key, or the public one where the agent is to sign."""
        from sshproto.errors import KeyFormatError
        from sshproto.keys import PassphraseNeeded, PrivateKey
        from sshproto_cli.key.common import beside, load_private
        from sshproto_cli.options import read_file, warn_of_readers
        from sshproto_cli.terminal import Terminal

        data = read_file(self._path, "key", _LARGEST_KEY)
        public = self._public(data)
        if public is not None:
            private = _without_suffix(self._path)
            if self._args.agent or private is None or not os.path.lexists(private):
                return public
            if self._certificate is None or self._certificate.key == public:
                self._path = private
                data = read_file(private, "private key", _LARGEST_KEY)
        try:
            key = PrivateKey.load(data)
            warn_of_readers(self._path)
        except PassphraseNeeded as locked:
            half = public or locked.public_key or beside(self._path)
            if half is not None and (self._args.agent or self._agent(half) is not None):
                return half
            key = load_private(self._path, data, Terminal(), minimum=_minimum())[0]
        except KeyFormatError as error:
            half = public or beside(self._path)
            if half is None or not half.type.startswith("sk-"):  # the private half of those is nowhere else either
                raise Failure(f"private key {self._path}: {error}") from None
            return half
        if public is not None and key.public_key != public:
            raise Failure(f"{self._args.key} is another key than {self._path}")
        return key.public_key if self._args.agent else key

    def _public(self, data: bytes) -> PublicKey | None:
        """The public key in a file, which may be a certificate; None if it is something else."""
        from sshproto.errors import KeyFormatError
        from sshproto.keys import Certificate, PublicKey

        words = data[:4096].split(None, 1)
        try:
            if words and b"-cert-v0" in words[0]:
                certificate = Certificate.parse(data)
                self._certificate = self._certificate or certificate
                return certificate.key
            if words and words[0].startswith((b"ssh-", b"ecdsa-", b"sk-")):
                return PublicKey.parse(data)
        except KeyFormatError as error:
            raise Failure(f"key {self._path}: {error}") from None
        return None

    def _agent(self, key: PublicKey) -> Callable[[SignatureRequest], bytes] | None:
        """What has the agent sign with ``key``; None if it can't."""
        if key.blob not in self._asked:
            self._asked[key.blob] = self._ask_agent(key)
        return self._asked[key.blob]

    def _ask_agent(self, key: PublicKey) -> Callable[[SignatureRequest], bytes] | None:
        from sshproto.agent import AgentError, AgentUnavailable
        from sshproto_io.blocking import open_agent

        if not _agent_named():
            return None
        try:
            agent = self._closing.enter_context(open_agent(timeout=AGENT_PATIENCE))
            held = {identity.blob for identity in agent.identities()}
        except AgentUnavailable as error:
            if self._args.agent:
                raise Failure(f"the agent: {error}") from None
            return None
        except AgentError as error:
            raise Failure(f"the agent: {error}") from None
        candidates = [key.blob] + ([self._certificate.blob] if self._certificate else [])
        blob = next((each for each in candidates if each in held), None)
        if blob is None:
            return None

        def sign(asked: SignatureRequest) -> bytes:
            try:
                return agent.sign(blob, asked.data, asked.algorithm)
            except AgentError as error:
                raise Failure(f"the agent did not sign: {error}") from None

        return sign


def _agent_named() -> bool:
    return bool(os.environ.get("SSH_AUTH_SOCK"))


def _minimum() -> int:
    from sshproto.keys.public import MINIMUM_RSA_BITS

    return MINIMUM_RSA_BITS


def _without_suffix(path: str) -> str | None:
    """The name of the private key's file, for that of a public key or a certificate."""
    for suffix in _SUFFIXES:
        if path.endswith(suffix) and len(path) > len(suffix):
            return path.removesuffix(suffix)
    return None


def _certificate(path: str) -> Certificate:
    from sshproto.errors import KeyFormatError
    from sshproto.keys import Certificate
    from sshproto_cli.options import read_file

    try:
        return Certificate.parse(read_file(path, "certificate", _LARGEST_KEY))
    except KeyFormatError as error:
        raise Failure(f"certificate {path}: {error}") from None
