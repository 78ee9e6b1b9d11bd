"""The ``known_hosts`` file: which host keys are expected of which host (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").

A line is ``[@marker] names type base64 [comment]``; names are patterns with ``*`` and ``?`` and negation by ``!``, or
one hashed name.  A host on another port than 22 is looked up as ``[host]:port``.  Lines that cannot be read are left
out and listed in ``problems``: one bad line must not hide the others, nor be taken for a key.

Only text is dealt with here; who uses it reads and writes the file. Editing it is :mod:`sshproto.keys.host_lines`'s.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

import attrs

from sshproto.config import Entropy, system_entropy
from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys.public import MINIMUM_RSA_BITS, PublicKey, blob_type, decode_base64, decode_text, split_words
from sshproto.text import printable
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.krl import KRL

DEFAULT_PORT = 22

MARKERS = ("@revoked", "@cert-authority")
"""What a line may begin with."""


class Trust(enum.Enum):
    """What a file says about a host and its key."""

    MATCH = "match"
    """The key is known to be the host's, or an authority that is trusted says so."""
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
        file: The name of its file, as :func:`parse` was told.
    """

    line: int
    marker: str
    names: str
    key_type: str
    blob: bytes = attrs.field(repr=False)
    comment: str = ""
    file: str = ""

    def key(self, *, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> PublicKey:
        """The key.

        Raises:
            KeyFormatError: It is of a type that is not supported, malformed or too weak.
        """
        return PublicKey.from_blob(self.blob, self.comment, minimum_rsa_bits=minimum_rsa_bits)

    def covers(self, name: str) -> bool:
        """Whether the line is about ``name``, which :func:`lookup_name` made."""
        if self.names.startswith("|"):
            return hash_matches(self.names, name)
        return match_patterns(name, lower(self.names))


@frozen
class Match:
    """The answer of :meth:`KnownHosts.lookup`.

    Attributes:
        trust: The verdict.
        line: The number of the line that decided, None for ``UNKNOWN``, and for what a revocation list revokes.
        entry: That line; it knows its file.
        known: All keys known for the host, of any type. If the verdict is ``UNKNOWN`` and this is not empty, the host
            has shown a type of key that it did not have before: people should be told so.
        certificate: The certificate that was relied on; None if the key itself is known, or nothing is.
        problem: What was wrong with the certificate that came, so that only the key counted; or why the list revokes
            it; ``""`` if nothing is to be said.
    """

    trust: Trust
    line: int | None
    entry: HostEntry | None
    known: tuple[HostEntry, ...] = ()
    certificate: Certificate | None = None
    problem: str = ""


def lookup_name(host: str, port: int = DEFAULT_PORT) -> str:
    """The name under which a host stands in the file: ``host``, or ``[host]:port`` for a port other than 22.

    Raises:
        InvalidArgument: The host is empty or holds characters that mean something else in the file.
    """
    if not host or any(c in '*?!,|#@[]"\\' or c.isspace() or not c.isprintable() for c in host):
        raise InvalidArgument(f"not a host name or address that known_hosts can hold: {printable(host)!r}")
    if not 0 < port < 65536:
        raise InvalidArgument(f"not a port number: {port}")
    host = lower(host)
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def lower(text: str) -> str:
    """``text`` in lower case, as far as ASCII goes: nobody folds more in the names of hosts."""
    return text.translate(_LOWER)


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


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


def split_hash(names: str) -> tuple[bytes, bytes]:
    """Salt and digest of a hashed name; ValueError if it is not one."""
    parts = names.split("|")
    if len(parts) != 4 or parts[:2] != ["", "1"]:
        raise ValueError("a hashed name has the form |1|salt|hash")
    salt, digest = (base64.b64decode(part, validate=True) for part in parts[2:])
    if len(salt) != hashlib.sha1().digest_size or len(digest) != len(salt):
        raise ValueError(f"salt and hash of a hashed name have 20 bytes each, these {len(salt)} and {len(digest)}")
    return salt, digest


def hash_matches(names: str, name: str) -> bool:
    """Whether the hashed name ``names`` is that of ``name``; ValueError if it is not one."""
    salt, digest = split_hash(names)
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

    @classmethod
    def joined(cls, files: Iterable[KnownHosts]) -> Self:
        """Several files as one, the first of them first. Whose a problem was is not to be seen any more."""
        parts = tuple(files)
        return cls(
            tuple(entry for part in parts for entry in part.entries),
            tuple(problem for part in parts for problem in part.problems),
        )

    def find(self, host: str, port: int = DEFAULT_PORT) -> tuple[HostEntry, ...]:
        """All lines about a host, those with markers too: what ``ssh-keygen -F`` shows.

        Raises:
            InvalidArgument: See :func:`lookup_name`.
        """
        name = lookup_name(host, port)
        return tuple(entry for entry in self.entries if entry.covers(name))

    def lookup(
        self,
        host: str,
        port: int,
        key: PublicKey,
        certificate: Certificate | None = None,
        *,
        now: float | None = None,
        revoked: KRL | None = None,
    ) -> Match:
        """What is known about ``key`` being the key of ``host``.

        A revocation wins over everything, also one of the authority; a match over a change: a host may have several
        keys of a type. A certificate counts if a line ``@cert-authority`` for the host has the key that signed it, and
        it is good for this host now; if not, the key is looked up as if it had come alone. Lines of certificate
        authorities say nothing about a plain key.

        Args:
            host: As the user wrote it; letters of either case.
            port: The port connected to.
            key: The key that the host has proved to hold.
            certificate: What came with it, see ``HostKeyOffered``.
            now: Seconds since 1970; needed for a certificate.
            revoked: What else is revoked: keys, certificates, authorities (OpenSSH's ``RevokedHostKeys``).

        Raises:
            InvalidArgument: See :func:`lookup_name`; or a certificate is for another key, or came without a time.
        """
        if certificate is not None and (certificate.key != key or now is None):
            wrong = "is for another key than the host's" if certificate.key != key else "is looked up without a time"
            raise InvalidArgument(f"the certificate {wrong}")
        entries = self.find(host, port)
        known = tuple(entry for entry in entries if not entry.marker)
        shown = {key.blob} if certificate is None else {key.blob, certificate.authority.blob}
        for entry in entries:
            if entry.marker == "@revoked" and entry.blob in shown:
                return Match(Trust.REVOKED, entry.line, entry, known)
        if revoked is not None and (why := revoked.why(certificate or key)):
            return Match(Trust.REVOKED, None, None, known, problem=why)
        problem = ""
        if certificate is not None and now is not None:
            authority, problem = _vouching(entries, certificate, host, now)
            if authority is not None:
                return Match(Trust.MATCH, authority.line, authority, known, certificate)
        for entry in known:
            if entry.blob == key.blob:
                return Match(Trust.MATCH, entry.line, entry, known, problem=problem)
        for entry in known:
            if entry.key_type == key.type:
                return Match(Trust.CHANGED, entry.line, entry, known, problem=problem)
        return Match(Trust.UNKNOWN, None, None, known, problem=problem)

    def authorities(self, host: str, port: int = DEFAULT_PORT) -> tuple[HostEntry, ...]:
        """The lines ``@cert-authority`` for a host, without those whose key is revoked for it.

        Raises:
            InvalidArgument: See :func:`lookup_name`.
        """
        return tuple(entry for entry in self._usable(host, port) if entry.marker)

    def algorithms_for(self, host: str, port: int = DEFAULT_PORT) -> tuple[str, ...]:
        """The types of the keys known for a host, each once, in the order of the file.

        They are key types; :func:`sshproto.keys.signatures.signature_algorithms` says what each can sign with. A client
        asks for those first, so that a host is not taken for a new one because it offers another key.
        """
        return tuple(dict.fromkeys(entry.key_type for entry in self._usable(host, port) if not entry.marker))

    def host_key_order(
        self, host: str, port: int, wanted: Iterable[str], *, certificates: bool = True
    ) -> tuple[str, ...]:
        """In which order to ask a host for its key, as ``Preferences.host_key``.

        First the certificate algorithms, if an authority is trusted to vouch for the host; then those of keys that are
        known, so that a host is not taken for a new one because it has others besides; then the rest. Of each part the
        order stays as it was.

        Args:
            host: As for :meth:`lookup`.
            port: The port connected to.
            wanted: The algorithms in the order of preference. Only certificate algorithms are added to them, and only
                such as go with a signature algorithm among them.
            certificates: Whether to add any. Who looks keys up without a time needs none.

        Raises:
            InvalidArgument: See :func:`lookup_name`.
        """
        from sshproto.keys.signatures import SIGNATURES

        names = tuple(wanted)
        first: list[str] = []
        if certificates and self.authorities(host, port):
            from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS

            by_plain = {algorithm.signature: name for name, algorithm in CERTIFICATE_ALGORITHMS.items()}
            certified = (name if name in CERTIFICATE_ALGORITHMS else by_plain.get(name) for name in names)
            first = [name for name in dict.fromkeys(certified) if name is not None]
        types = self.algorithms_for(host, port)
        rest = [name for name in names if name not in first]
        rest.sort(key=lambda name: name not in SIGNATURES or SIGNATURES[name].key_type not in types)
        return (*first, *rest)

    def _usable(self, host: str, port: int) -> list[HostEntry]:
        entries = self.find(host, port)
        revoked = {entry.blob for entry in entries if entry.marker == "@revoked"}
        return [entry for entry in entries if entry.marker != "@revoked" and entry.blob not in revoked]


def _vouching(
    entries: Iterable[HostEntry], certificate: Certificate, host: str, now: float
) -> tuple[HostEntry | None, str]:
    """The line of the authority that vouches for the host by ``certificate``; else None, and why there is none."""
    from sshproto.keys.grants import CertificateKind, CertificateRefused

    authority = certificate.authority
    for entry in entries:
        if entry.marker == "@cert-authority" and entry.blob == authority.blob:
            try:
                certificate.check(CertificateKind.HOST, lower(host), authorities=(authority,), now=now)
            except CertificateRefused as error:
                return None, str(error)
            return entry, ""
    shown = f"{authority.type} {authority.fingerprint()}"
    return None, f"the certificate is signed by {shown}, which no @cert-authority line for the host has"


def parse(content: str | bytes, file: str = "") -> KnownHosts:
    """Read the content of a file. Never raises: see ``KnownHosts.problems``.

    Args:
        content: The content.
        file: Its name, for :attr:`HostEntry.file`.
    """
    entries: list[HostEntry] = []
    problems: list[tuple[int, str]] = []
    # Not splitlines(): it also splits at characters that are ordinary ones here.
    for number, line in enumerate(decode_text(content).split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        try:
            entries.append(_parse_line(number, line, file))
        except (KeyFormatError, ValueError) as error:
            problems.append((number, str(error)))
    return KnownHosts(tuple(entries), tuple(problems))


def _parse_line(number: int, line: str, file: str) -> HostEntry:
    words = split_words(line, 5)
    marker = ""
    if words[0].startswith("@"):
        marker = words.pop(0)
        if marker not in MARKERS:
            raise KeyFormatError(f"unknown marker {printable(marker, 40)}; there are {', '.join(MARKERS)}")
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
            split_hash(names)
        except (binascii.Error, ValueError) as error:
            raise KeyFormatError(f"malformed hashed name {printable(names, 80)}: {error}") from None
    return HostEntry(number, marker, names, kind, blob, " ".join(words[3:]), file)


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


def marked_line(marker: str, patterns: str, key: PublicKey) -> str:
    """The line for an authority or a revoked key, with its line feed and the key's comment.

    Args:
        marker: ``"@cert-authority"`` or ``"@revoked"``.
        patterns: Names, or patterns as :func:`match_patterns` has them, separated by commas; a host on another port
            than 22 is ``[host]:port``.
        key: The key.

    Raises:
        InvalidArgument: It is another marker, or the patterns can't stand in a line.
    """
    if marker not in MARKERS:
        raise InvalidArgument(f"unknown marker {printable(marker, 40)}; there are {', '.join(MARKERS)}")
    if not patterns or patterns[0] in "|@#" or not patterns.isprintable() or " " in patterns or '"' in patterns:
        raise InvalidArgument(f"not patterns that known_hosts can hold: {printable(patterns)!r}")
    return f"{marker} {patterns} {key.openssh()}\n"
