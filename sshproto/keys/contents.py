"""What is in a file of keys, whatever kind of file it is: for who shows files, or asks somebody about them.

Whoever expects one kind of file reads it with what is for that: :class:`~sshproto.keys.private.PrivateKey`,
:class:`~sshproto.keys.public.PublicKey` and so on, which refuse what is weak, or something else.  Here nothing is
refused that can be shown: weak keys, keys of types that are not known, lines that cannot be read are told of as such.
"""

from __future__ import annotations

import enum
import re
from typing import Any

import attrs

from sshproto.errors import KeyFormatError
from sshproto.keys import openssh, pem, ppk, rfc4716
from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS, Certificate
from sshproto.keys.krl import KRL, MAGIC
from sshproto.keys.private import PassphraseNeeded, PrivateKey
from sshproto.keys.public import (
    KEY_TYPES,
    LOWEST_RSA_BITS,
    PublicKey,
    blob_type,
    decode_base64,
    decode_text,
    describe,
    split_words,
)
from sshproto.keys.signatures import SIGNATURES
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Buffer

MAXIMUM_TEXT = 4 * 1024 * 1024
"""Longest file that is looked at, in bytes, unless it is a revocation list, of which four times as much is read."""

MAXIMUM_LINE = 64 * 1024
"""Longest line that is looked at, in characters."""

MAXIMUM_LINES = 50_000
"""Most lines that are looked at, but for empty ones and comments."""

_TYPE = re.compile(r"(?:ssh|ecdsa-sha2|sk-ssh|sk-ecdsa-sha2|webauthn-sk|x509v3|pgp-sign|spki-sign)-[!-~]*", re.ASCII)
_FIELD = re.compile(r'(?:[^ \t"]++|"(?:[^"\\]++|\\.)*+")++')
_NAMES = re.compile("[a-z0-9@.-]+", re.IGNORECASE)
_OPTIONS = frozenset(
    "agent-forwarding cert-authority command environment expiry-time from no-agent-forwarding no-port-forwarding no-pty"
    " no-touch-required no-user-rc no-x11-forwarding permitlisten permitopen port-forwarding principals pty restrict"
    " tunnel user-rc verify-required x11-forwarding".split()
)
_CERTIFICATES = frozenset(algorithm.type for algorithm in CERTIFICATE_ALGORITHMS.values())


class ContentKind(enum.Enum):
    """What something in a file is."""

    PRIVATE = "private key"
    PUBLIC = "public key"
    CERTIFICATE = "certificate"
    REVOKED = "revocation list"


@frozen
class Content:
    """One thing in a file.

    Attributes:
        kind: What it is, a :class:`ContentKind`.
        form: How it is written: ``"OpenSSH"``, ``"PKCS#8"``, ``"PKCS#1"``, ``"SEC 1"``, ``"PPK 2"``, ``"PPK 3"``,
            ``"RFC 4716"``, ``"line"``, ``"authorized_keys"``, ``"known_hosts"`` or ``"KRL"``.
        line: The number of its line, from 1; 0 if it is the whole file.
        type: The type of the key, of a certificate that of the certified key; ``""`` if it does not show.
        blob: The blob of the key, of a certificate that of the certified key; ``b""`` if it does not show.
        comment: Words that came with it, unverified; show them through :func:`sshproto.text.printable`.
        key: The key; of a certificate the one that is certified; None if it does not show, or cannot be read.
        certificate: The certificate.
        krl: The revocation list.
        encryption: How a private key is encrypted, in words; ``""`` if it is not.
        where: Of a line in ``known_hosts`` the marker and the names, of one in ``authorized_keys`` the options.
        problem: What is wrong with it, so that it cannot be used.
    """

    kind: ContentKind
    form: str
    line: int = 0
    type: str = ""
    blob: bytes = attrs.field(default=b"", repr=False)
    comment: str = ""
    key: PublicKey | None = None
    certificate: Certificate | None = None
    krl: KRL | None = None
    encryption: str = ""
    where: str = ""
    problem: str = ""


@frozen
class Contents:
    """What is in a file.

    Attributes:
        entries: In order.
        problems: The number of each line that cannot be read, and why.
    """

    entries: tuple[Content, ...] = ()
    problems: tuple[tuple[int, str], ...] = ()


def identify(content: str | Buffer) -> Contents:
    """What is in the content of a file. No passphrase is needed, and none is asked for.

    Raises:
        KeyFormatError: It is nothing that keys are kept in (and what it seems to be), malformed, or too long; or not
            one of its lines can be read.
    """
    if not isinstance(content, str) and bytes(content[: len(MAGIC)]) == MAGIC:
        return Contents((Content(ContentKind.REVOKED, "KRL", krl=KRL.parse(content)),))
    if len(content) > MAXIMUM_TEXT:
        raise KeyFormatError(f"{len(content)} bytes came; files of keys have at most {MAXIMUM_TEXT}")
    words = decode_text(content)
    if "\0" in words:
        raise KeyFormatError("there are NULs in it, so it is no text; expected keys, certificates or a revocation list")
    if ppk.is_ppk(words) or openssh.BEGIN in words or (block := pem.find(words)) is not None:
        return Contents((_private(words),))
    if rfc4716.is_rfc4716(words):
        return Contents((_public("RFC 4716", words),))
    block = pem.find_public(words)
    if block is not None:
        return Contents((_public("PKCS#1" if block.label.startswith("RSA") else "PKCS#8", words),))
    if what := describe(words):
        raise KeyFormatError(f"this is {what}; expected keys, certificates or a revocation list")
    return _lines(words)


# ----------------------------------------------------------------------------------------------------- files as a whole

_PEM_FORMS = {"RSA PRIVATE KEY": "PKCS#1", "EC PRIVATE KEY": "SEC 1"}


def _private(content: str) -> Content:
    """A private key, of which the public half may show, or not."""
    form, encryption, blob = _outside(content)
    found = Content(ContentKind.PRIVATE, form, encryption=encryption)
    if blob:
        found = attrs.evolve(found, **_key_fields(blob))
        if found.problem or found.type.startswith("sk-"):
            return found
    try:
        key = PrivateKey.load(content, minimum_rsa_bits=LOWEST_RSA_BITS).public_key
    except PassphraseNeeded as locked:
        if locked.public_key is None:
            return found
        key = locked.public_key
    return attrs.evolve(found, type=key.type, blob=key.blob, key=key, comment=key.comment)


def _outside(content: str) -> tuple[str, str, bytes]:
    """The form, the encryption, and the blob of the public key where it stands outside of what is encrypted."""
    if ppk.is_ppk(content):
        file = ppk.read(content)
        how = f"{file.cipher}, {file.kdf.flavour}" if file.kdf else file.cipher
        return f"PPK {file.version}", how if file.encrypted else "", file.public_blob
    if openssh.BEGIN in content:
        container = openssh.read(content)
        rounds = "1 round" if container.rounds == 1 else f"{container.rounds} rounds"
        how = f"{container.cipher}, bcrypt with {rounds}" if container.encrypted else ""
        return "OpenSSH", how, container.public_blob
    block = pem.find(content)
    if block is None:
        raise KeyFormatError("no private key")  # pragma: no cover  the caller has looked
    return _PEM_FORMS.get(block.label, "PKCS#8"), block.encryption, b""


def _public(form: str, content: str) -> Content:
    key = PublicKey.parse(content, minimum_rsa_bits=LOWEST_RSA_BITS)
    return Content(ContentKind.PUBLIC, form, type=key.type, blob=key.blob, comment=key.comment, key=key)


def _key_fields(blob: bytes, comment: str = "") -> dict[str, Any]:
    """The fields of a :class:`Content` that follow from a blob."""
    kind = blob_type(blob)
    fields: dict[str, Any] = {"type": kind, "blob": blob}
    try:
        return fields | {"key": PublicKey.from_blob(blob, comment, minimum_rsa_bits=LOWEST_RSA_BITS)}
    except KeyFormatError as error:
        return fields | {"problem": str(error)}


# ---------------------------------------------------------------------------------------------------------------- lines


def _lines(content: str) -> Contents:
    entries: list[Content] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(content.split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        if len(entries) + len(problems) == MAXIMUM_LINES:
            raise KeyFormatError(f"more than {MAXIMUM_LINES} keys; so many are not looked at")
        try:
            entries.append(attrs.evolve(read_line(line), line=number))
        except KeyFormatError as error:
            problems.append((number, str(error)))
    if not entries and not problems:
        raise KeyFormatError("there is nothing in it but comments; expected keys, certificates or a revocation list")
    if not entries:
        (number, problem), *more = problems
        raise KeyFormatError(f"line {number}: {problem}" + (f" (and {len(more)} more such lines)" if more else ""))
    return Contents(tuple(entries), tuple(problems))


def read_line(line: str) -> Content:
    """What is in one line: of a ``.pub`` file, of ``authorized_keys`` or of ``known_hosts``.

    Raises:
        KeyFormatError: It is none of these.
    """
    if len(line) > MAXIMUM_LINE:
        raise KeyFormatError(f"not a key: a line of {len(line)} characters; at most {MAXIMUM_LINE} are looked at")
    first = split_words(line, 2)
    if first and _TYPE.fullmatch(first[0]):
        return _words(line, "line")
    where, rest = _before(line)
    if not rest:
        raise KeyFormatError(f"not a key: {printable(line, 40)!r}; expected 'type base64 [comment]'")
    return attrs.evolve(_words(rest, "known_hosts" if _is_host(where) else "authorized_keys"), where=where)


def _before(line: str) -> tuple[str, str]:
    """What stands before the type in a line, and the rest from the type on; two empty ones if there is none."""
    start = 0
    for _ in range(2 if line.startswith("@") else 1):  # a marker, and names
        field = _FIELD.match(line, start)
        if field is None:
            return "", ""
        start = field.end() + len(line[field.end() :]) - len(line[field.end() :].lstrip(" \t"))
    rest = split_words(line[start:], 2)
    if not rest or not _TYPE.fullmatch(rest[0]):
        return "", ""
    return line[:start].rstrip(" \t"), line[start:]


def _is_host(where: str) -> bool:
    names = (_NAMES.match(option) for option in where.split(",")[:1])
    return not any(name and name[0].lower() in _OPTIONS for name in names)


def _words(line: str, form: str) -> Content:
    """A line, from the type on."""
    kind, word, comment = (*split_words(line), "", "")[:3]
    if not word:
        raise KeyFormatError(f"one word came, {printable(kind, 40)!r}; expected 'type base64 [comment]'")
    blob = decode_base64(word, f"{printable(kind, 64)} key")
    inner = blob_type(blob)
    if inner != kind:
        raise KeyFormatError(f"the line says {printable(kind, 64)}, the key in it is of type {printable(inner, 64)}")
    if kind in _CERTIFICATES:
        certificate = Certificate.from_blob(
            blob, comment, minimum_rsa_bits=LOWEST_RSA_BITS, authority_algorithms=tuple(SIGNATURES)
        )
        key = certificate.key
        return Content(
            *(ContentKind.CERTIFICATE, form, 0, key.type, key.blob, comment), key=key, certificate=certificate
        )
    if "-cert-v0" in kind and kind not in KEY_TYPES:
        raise KeyFormatError(f"a certificate of type {printable(kind, 64)}, which is not known")
    return attrs.evolve(Content(ContentKind.PUBLIC, form, comment=comment), **_key_fields(blob, comment))
