"""Signatures over files, and files of who may sign and of revoked keys.

The first byte of an input chooses what the rest is.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence

from fuzz.clear import fit_to_show
from fuzz.running import main
from fuzz.running import mutate as mutate_bytes
from sshproto.errors import KeyFormatError, SignatureInvalid
from sshproto.keys import allowed_signers, sshsig
from sshproto.keys.certificates import Certificate
from sshproto.keys.grants import FOREVER, CertificateKind
from sshproto.keys.krl import KRL
from sshproto.keys.revocation import read_revoked
from sshproto.keys.sshsig import BEGIN, END, FileSignature
from sshproto.keys.timestamps import read_timestamp
from tests.support.seeds import HOST_KEY, USER_KEY

MODULES = ("sshproto.keys.sshsig", "sshproto.keys.allowed_signers", "sshproto.keys.revocation",
           "sshproto.keys.timestamps")  # fmt: skip
_MESSAGE = b"what was signed"
_NOW = 1_700_000_000
_WHO = "alice@example.org"
_CERTIFICATE = Certificate.issue(
    HOST_KEY, USER_KEY.public_key, CertificateKind.USER, key_id="k", principals=[_WHO], valid_before=FOREVER,
    entropy=lambda count, label: bytes(range(count)),
)  # fmt: skip
_GOOD = tuple(sshsig.sign(USER_KEY, _MESSAGE, "file", certificate=each) for each in (None, _CERTIFICATE))
_MINE = {USER_KEY.public_key, HOST_KEY.public_key, _CERTIFICATE}
_REVOKED = KRL().revoke(USER_KEY.public_key)


def _signature(data: bytes) -> None:
    signature = FileSignature.parse(data)
    if FileSignature.parse(signature.encode()) != signature or FileSignature.parse(signature.armoured()) != signature:
        raise AssertionError(f"written it is another: {signature!r}")
    fit_to_show(repr(signature), 12_000)
    for message, namespace in ((_MESSAGE, "file"), (b"another", signature.namespace)):
        try:
            signature.verify(message, namespace)
        except SignatureInvalid as error:
            fit_to_show(error)
        else:
            if message != _MESSAGE or signature.signature != _GOOD[0].signature or signature.signer not in _MINE:
                raise AssertionError("a forgery")


def _armoured(data: bytes) -> None:
    _signature(f"{BEGIN}\n{base64.b64encode(data).decode()}\n{END}\n".encode())


def _signers(content: bytes) -> None:
    signers = allowed_signers.parse(content)
    for number, words in signers.problems:
        fit_to_show(words)
        if not 1 <= number <= content.count(b"\n") + 1:
            raise AssertionError(f"there is no line {number}")
    for signature in _GOOD:
        for revoked in (None, _REVOKED):
            try:
                verified = signers.verify(signature, _MESSAGE, _WHO, "file", now=_NOW, revoked=revoked)
            except KeyFormatError as error:
                fit_to_show(error, 12_000)
                continue
            entry = verified.allowed
            mine = HOST_KEY.public_key if entry.authority and signature.certificate else signature.signer
            if revoked is not None or entry not in signers.entries or entry.key != mine or not entry.covers(_WHO):
                raise AssertionError(f"allowed by {entry!r}")
        signers.find_principals(signature.signer, now=_NOW)
    signers.match_principals(_WHO)


def _revoked(content: bytes) -> None:
    found = read_revoked(content)
    if read_revoked(found.encode()).keys != found.keys:
        raise AssertionError("written it is another")
    found.revokes(_CERTIFICATE)


def _time(text: bytes) -> None:
    if read_timestamp(text.decode("latin-1")) <= 0:
        raise AssertionError("a time before 1970")


_WHAT: tuple[Callable[[bytes], None], ...] = (_signature, _armoured, _signers, _revoked, _time)


def fuzz(data: bytes) -> None:
    """Read ``data`` as what its first byte says."""
    try:
        _WHAT[(data[0] if data else 0) % len(_WHAT)](data[1:])
    except KeyFormatError as error:
        fit_to_show(error, 12_000)


_WORDS = (b'"', b",", b" ", b"\\", b"\n", b"\r", b"=", b"!", b"*", b"\0", b"#", b"cert-authority", b'namespaces="file"',
          b'valid-after="20200101Z"', b'valid-before="20301231"', _WHO.encode(), b"file")  # fmt: skip


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change bytes; in files of lines, words too."""
    if data[:1] in (b"\2", b"\3") and rng.randrange(2):
        content = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(1, len(content) + 1)
            content[at : at + rng.randrange(3)] = rng.choice(_WORDS)
        return bytes(content)
    return mutate_bytes(data, others, rng)


def seeds() -> list[bytes]:
    """Signatures in both forms, lines with each option, lists of both kinds."""
    key, authority = USER_KEY.public_key.openssh(), HOST_KEY.public_key.openssh()
    lines = (
        f"{_WHO} {key} comment\n",
        f'*@example.org,!bob@*  namespaces="file,git" {key}\r\n',
        f'"{_WHO},a b" valid-after="20200101Z",valid-before="20301231235959" {key}\n',
        f"* cert-authority {authority}\n",
        f'* Cert-Authority,NameSpaces="a\\"b,file" {authority}\n',
        f"{_WHO} {_CERTIFICATE.openssh()}\n",
        f"{_WHO} {authority}\n",
        f"# comment\n\n{_WHO} nonsense {key}\n",
    )  # fmt: skip
    revoked = (f"# lost\n{key} x\n\n{authority}\n", _CERTIFICATE.openssh(), "")
    return [
        *(b"\0" + form for each in _GOOD for form in (each.encode(), each.armoured().encode())),
        *(b"\1" + each.encode() for each in _GOOD),
        *(b"\2" + line.encode() for line in lines),
        b"\2" + "".join(lines).encode(),
        *(b"\3" + content.encode() for content in revoked),
        b"\3" + _REVOKED.encode(),
        *(b"\4" + time for time in (b"20200101", b"202001010203Z", b"20200131235961UTC")),
    ]


if __name__ == "__main__":
    main("signatures", fuzz, seeds, mutate, MODULES)
