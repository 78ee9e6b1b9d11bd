"""What is to be revoked, as text: ssh-keygen(1), "KEY REVOCATION LISTS".

A line is a directive, ``serial:``, ``id:``, ``key:``, ``sha1:``, ``sha256:`` or ``hash:``, or a public key or a
certificate as in a ``.pub`` file.  What is not understood is never passed over: somebody would believe that it is
revoked.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator

import attrs

from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys.certificates import Certificate
from sshproto.keys.contents import Content, read_line
from sshproto.keys.krl import KRL, MAXIMUM_ENTRIES, MAXIMUM_SIZE
from sshproto.keys.public import PublicKey, decode_text
from sshproto.text import printable

_DIRECTIVE = re.compile("(serial|id|key|sha1|sha256|hash):[ \t]*", re.IGNORECASE)
_NUMBER = "(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,22})"
_SERIALS = re.compile(f"{_NUMBER}(?:-{_NUMBER})?")
_AUTHORITY = "a certificate's authority has to be named, or that it is to be everybody's"


def revoke_specified(
    krl: KRL, content: str | bytes, *, authorities: Iterable[PublicKey] = (), everybody: bool = False
) -> KRL:
    """A revocation list with what a text says added.

    Args:
        krl: The list.
        content: The text; empty lines, and what follows a ``#`` at the start of a word, do not count.
        authorities: Whose certificates are meant by ``serial:`` and ``id:``; each of them.
        everybody: All authorities' certificates are meant.

    Raises:
        KeyFormatError: A line is something else, with its number; or there are more than a list can hold.
    """
    if len(content) > MAXIMUM_SIZE:
        raise KeyFormatError(f"a specification of {len(content)} bytes came, at most {MAXIMUM_SIZE} are accepted")
    meant: list[PublicKey | None] = [None] if everybody else list(authorities)
    gathered = _Gathered()
    for number, line in _lines(content):
        try:
            gathered.take(line, bool(meant))
        except (KeyFormatError, InvalidArgument) as error:
            raise KeyFormatError(f"line {number}: {error}") from None
    return gathered.add_to(krl, meant)


def _lines(content: str | bytes) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(decode_text(content).split("\n"), 1):
        words = _without_comment(line.strip(" \t\r"))
        if words:
            yield number, words


def _without_comment(line: str) -> str:
    """What stands before a ``#`` at the start of a word."""
    at = line.find("#")
    while at > 0 and line[at - 1] not in " \t":
        at = line.find("#", at + 1)
    return line if at < 0 else line[:at].rstrip(" \t")


class _Gathered:
    """What the lines say, kept until all are read: a list is not made anew for each."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.certificates: list[Certificate] = []
        self.serials: list[tuple[int, int]] = []
        self.key_ids: list[str] = []
        self.fingerprints: list[str] = []
        self.count = 0

    def take(self, line: str, authority: bool) -> None:
        """Understand a line.

        Raises:
            KeyFormatError, InvalidArgument: It is none.
        """
        self.count += 1
        if self.count > MAXIMUM_ENTRIES:
            raise KeyFormatError(f"more than {MAXIMUM_ENTRIES} entries are not accepted")
        found = _DIRECTIVE.match(line)
        if found is None:
            item = _one(line)
            if item.certificate is None:
                self.keys.append(item.blob)
            else:
                self.certificates.append(item.certificate)
            return
        directive, value = found[1].lower(), line[found.end() :]
        if directive in ("serial", "id") and not authority:
            raise KeyFormatError(f"{directive}: {_AUTHORITY}")
        if directive == "serial":
            self.serials.append(_serials(value))
        elif directive == "id":
            self.key_ids.append(_key_id(value))
        elif directive == "hash":
            KRL().revoke_fingerprints(value)  # raises for what is none
            self.fingerprints.append(value)
        else:
            blob = _one(value).blob
            if directive == "key":
                self.keys.append(blob)
            else:
                digest = hashlib.new(directive, blob, usedforsecurity=False).digest()
                self.fingerprints.append(f"{directive.upper()}:{base64.b64encode(digest).decode('ascii')}")

    def add_to(self, krl: KRL, authorities: Iterable[PublicKey | None]) -> KRL:
        """The list with all of it."""
        krl = attrs.evolve(krl, keys=krl.keys.union(self.keys)).revoke(*self.certificates)
        if self.fingerprints:
            krl = krl.revoke_fingerprints(*self.fingerprints)
        for authority in authorities:
            if self.serials:
                krl = krl.revoke_serials(authority, *self.serials)
            if self.key_ids:
                krl = krl.revoke_key_ids(authority, *self.key_ids)
        return krl


def _number(digits: str) -> int:
    """A number as C has it: hexadecimal after 0x, octal after 0."""
    try:
        return int(digits, 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10)
    except ValueError:
        raise KeyFormatError(f"not a serial number: {digits!r} begins with 0, so it would be octal") from None


def _serials(value: str) -> tuple[int, int]:
    found = _SERIALS.fullmatch(value)
    if found is None:
        raise KeyFormatError(f"not a serial number, and no range of two: {printable(value, 64)!r}")
    low = _number(found[1])
    high = low if found[2] is None else _number(found[2])
    if not 1 <= low <= high < 2**64:
        raise KeyFormatError(f"not serial numbers: {printable(value, 64)}; they go from 1 up to 2^64 - 1")
    return low, high


def _key_id(value: str) -> str:
    if not value:
        raise KeyFormatError("id: there is no key id")
    if "#" in value:
        raise KeyFormatError(
            f"id: {printable(value, 64)!r} has a # inside a word; for ssh-keygen the id would end there"
        )
    if "\0" in value:
        raise KeyFormatError("id: a key id holds no NUL")
    return value


def _one(line: str) -> Content:
    """The key or the certificate of a line as in a ``.pub`` file; also one that is too weak, or of an unknown type."""
    found = read_line(line)
    if found.form != "line":
        raise KeyFormatError(
            f"expected a directive or 'type base64 [comment]', there is {printable(found.where, 64)!r}"
        )
    return found
