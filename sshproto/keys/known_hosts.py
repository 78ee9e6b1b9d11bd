"""The ``known_hosts`` file: which host keys are expected of which host (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").

A line is ``[@marker] names type base64 [comment]``; names are patterns with ``*`` and ``?`` and negation by ``!``, or
one hashed name.  A host on another port than 22 is looked up as ``[host]:port``.  Lines that cannot be read are left
out and listed in ``problems``: one bad line must not hide the others, nor be taken for a key.

Only text is dealt with here; who uses it reads and writes the file.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac

import attrs

from sshproto.config import Entropy, system_entropy
from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys.public import MINIMUM_RSA_BITS, PublicKey, blob_type, decode_base64, decode_text, split_words
from sshproto.text import printable
from sshproto.values import frozen

DEFAULT_PORT = 22

_MARKERS = ("@revoked", "@cert-authority")


class Trust(enum.Enum):
    """What a file says about a host and its key."""

    MATCH = "match"
    """The key is known to be the host's."""
    UNKNOWN = "unknown"
    """No key of this type is known for the host."""
    CHANGED = "changed"
    """Another key of this type is known for the host."""
    REVOKED = "revoked"
    """The key is marked as not to be trusted."""


@frozen
class HostEntry:
    """One line.

    Attributes:
        line: Its number, from 1.
        marker: ``""``, ``"@revoked"`` or ``"@cert-authority"``.
        names: The patterns, or the one hashed name, as written.
        key_type: The type of the key, supported or not.
        blob: The key.
        comment: What follows it.
    """

    line: int
    marker: str
    names: str
    key_type: str
    blob: bytes = attrs.field(repr=False)
    comment: str = ""

    def key(self, *, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> PublicKey:
        """The key.

        Raises:
            KeyFormatError: It is of a type that is not supported, malformed or too weak.
        """
        return PublicKey.from_blob(self.blob, self.comment, minimum_rsa_bits=minimum_rsa_bits)

    def covers(self, name: str) -> bool:
        """Whether the line is about ``name``, which :func:`lookup_name` made."""
        if self.names.startswith("|"):
            return _hash_matches(self.names, name)
        return match_patterns(name, self.names.lower())


@frozen
class Match:
    """The answer of :meth:`KnownHosts.lookup`.

    Attributes:
        trust: The verdict.
        line: The number of the line that decided, None for ``UNKNOWN``.
        entry: That line.
        known: All keys known for the host, of any type. If the verdict is ``UNKNOWN`` and this is not empty, the host
            has shown a type of key that it did not have before: people should be told so.
    """

    trust: Trust
    line: int | None
    entry: HostEntry | None
    known: tuple[HostEntry, ...] = ()


def lookup_name(host: str, port: int = DEFAULT_PORT) -> str:
    """The name under which a host stands in the file: ``host``, or ``[host]:port`` for a port other than 22.

    Raises:
        InvalidArgument: The host is empty or holds characters that mean something else in the file.
    """
    if not host or any(c in '*?!,|#@[]"\\' or c.isspace() or not c.isprintable() for c in host):
        raise InvalidArgument(f"not a host name or address that known_hosts can hold: {printable(host)!r}")
    if not 0 < port < 65536:
        raise InvalidArgument(f"not a port number: {port}")
    host = host.lower()
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def match_pattern(name: str, pattern: str) -> bool:
    """Whether ``pattern``, in which ``*`` is any number of characters and ``?`` is one, matches all of ``name``."""
    at = place = 0
    star, resume = -1, 0  # the last star, and where in the name it is tried to end
    while at < len(name):
        if place < len(pattern) and pattern[place] == "*":
            star, resume = place, at
            place += 1
        elif place < len(pattern) and pattern[place] in ("?", name[at]):
            at, place = at + 1, place + 1
        elif star >= 0:
            resume += 1
            at, place = resume, star + 1
        else:
            return False
    return not pattern[place:].strip("*")


def match_patterns(name: str, patterns: str) -> bool:
    """Whether a comma-separated list matches: some pattern does, and none that is negated by ``!``."""
    found = False
    for pattern in patterns.split(","):
        if pattern.startswith("!"):
            if match_pattern(name, pattern[1:]):
                return False
        elif not found and pattern:
            found = match_pattern(name, pattern)
    return found


def hash_name(name: str, salt: bytes) -> str:
    """``name`` hashed, so that a file does not tell which hosts its owner visits: ``|1|salt|HMAC-SHA1``."""
    digest = hmac.digest(salt, name.encode("utf-8", "surrogateescape"), "sha1")
    return "|1|" + "|".join(base64.b64encode(part).decode("ascii") for part in (salt, digest))


def _split_hash(names: str) -> tuple[bytes, bytes]:
    """Salt and digest of a hashed name; ValueError if it is not one."""
    parts = names.split("|")
    if len(parts) != 4 or parts[:2] != ["", "1"]:
        raise ValueError("a hashed name has the form |1|salt|hash")
    salt, digest = (base64.b64decode(part, validate=True) for part in parts[2:])
    if len(salt) != hashlib.sha1().digest_size or len(digest) != len(salt):
        raise ValueError(f"salt and hash of a hashed name have 20 bytes each, these {len(salt)} and {len(digest)}")
    return salt, digest


def _hash_matches(names: str, name: str) -> bool:
    salt, digest = _split_hash(names)
    return hmac.compare_digest(hmac.digest(salt, name.encode("utf-8", "surrogateescape"), "sha1"), digest)


@frozen
class KnownHosts:
    """The content of one or several files.

    Attributes:
        entries: The lines that could be read, in order.
        problems: The number of each line that could not, and why.
    """

    entries: tuple[HostEntry, ...] = ()
    problems: tuple[tuple[int, str], ...] = ()

    def find(self, host: str, port: int = DEFAULT_PORT) -> tuple[HostEntry, ...]:
        """All lines about a host, those with markers too: what ``ssh-keygen -F`` shows.

        Raises:
            InvalidArgument: See :func:`lookup_name`.
        """
        name = lookup_name(host, port)
        return tuple(entry for entry in self.entries if entry.covers(name))

    def lookup(self, host: str, port: int, key: PublicKey) -> Match:
        """What is known about ``key`` being the key of ``host``.

        A revocation wins over everything, a match over a change: a host may have several keys of a type. Lines of
        certificate authorities say nothing about a plain key.

        Args:
            host: As the user wrote it; letters of either case.
            port: The port connected to.
            key: The key that the host has proved to hold.

        Raises:
            InvalidArgument: See :func:`lookup_name`.
        """
        entries = self.find(host, port)
        known = tuple(entry for entry in entries if not entry.marker)
        for entry in entries:
            if entry.marker == "@revoked" and entry.blob == key.blob:
                return Match(Trust.REVOKED, entry.line, entry, known)
        for entry in known:
            if entry.blob == key.blob:
                return Match(Trust.MATCH, entry.line, entry, known)
        for entry in known:
            if entry.key_type == key.type:
                return Match(Trust.CHANGED, entry.line, entry, known)
        return Match(Trust.UNKNOWN, None, None, known)

    def algorithms_for(self, host: str, port: int = DEFAULT_PORT) -> tuple[str, ...]:
        """The types of the keys known for a host, each once, in the order of the file.

        They are key types; :func:`sshproto.keys.signatures.signature_algorithms` says what each can sign with. A client
        asks for those first, so that a host is not taken for a new one because it offers another key.
        """
        entries = self.find(host, port)
        revoked = {entry.blob for entry in entries if entry.marker == "@revoked"}
        usable = (entry.key_type for entry in entries if not entry.marker and entry.blob not in revoked)
        return tuple(dict.fromkeys(usable))


def parse(content: str | bytes) -> KnownHosts:
    """Read the content of a file. Never raises: see ``KnownHosts.problems``."""
    entries: list[HostEntry] = []
    problems: list[tuple[int, str]] = []
    # Not splitlines(): it also splits at characters that are ordinary ones here.
    for number, line in enumerate(decode_text(content).split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        try:
            entries.append(_parse_line(number, line))
        except (KeyFormatError, ValueError) as error:
            problems.append((number, str(error)))
    return KnownHosts(tuple(entries), tuple(problems))


def _parse_line(number: int, line: str) -> HostEntry:
    words = split_words(line, 5)
    marker = ""
    if words[0].startswith("@"):
        marker = words.pop(0)
        if marker not in _MARKERS:
            raise KeyFormatError(f"unknown marker {printable(marker, 40)}; there are {', '.join(_MARKERS)}")
    if len(words) < 3:
        raise KeyFormatError(f"{len(words)} words, expected: names, key type, base64")
    names, kind, encoded = words[:3]
    if kind.isdigit() and encoded.isdigit():
        raise KeyFormatError("an SSH-1 key (bits, exponent, modulus); only SSH-2 keys are supported")
    blob = decode_base64(encoded, f"{printable(kind, 64)} key")
    inner = blob_type(blob)
    if inner != kind:
        raise KeyFormatError(f"the line says {printable(kind, 64)}, the key in it is of type {printable(inner, 64)}")
    if names.startswith("|"):
        try:
            _split_hash(names)
        except (binascii.Error, ValueError) as error:
            raise KeyFormatError(f"malformed hashed name {printable(names, 80)}: {error}") from None
    return HostEntry(number, marker, names, kind, blob, " ".join(words[3:]))


def line_for(host: str, port: int, key: PublicKey, *, hashed: bool = False, entropy: Entropy = system_entropy) -> str:
    """The line to append for a host whose key was accepted, with its line feed and without the key's comment.

    The caller sees to it that what is in the file already ends with a line feed.

    Args:
        host: As for :meth:`KnownHosts.lookup`.
        port: The port connected to.
        key: The key.
        hashed: Hide the name, as OpenSSH's ``HashKnownHosts``.
        entropy: Source of the salt.

    Raises:
        InvalidArgument: See :func:`lookup_name`.
    """
    name = lookup_name(host, port)
    if hashed:
        name = hash_name(name, entropy(20, "known_hosts salt"))
    return f"{name} {key.type} {base64.b64encode(key.blob).decode('ascii')}\n"
