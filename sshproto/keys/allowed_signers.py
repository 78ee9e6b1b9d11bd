"""The ``allowed_signers`` file: whose signatures over files count, and with which keys they are made (ssh-keygen(1)).

A line is ``principals [options] type base64 [comment]``.  Principals are patterns, ``*@example.org,!bob@*``, in quotes
if there are spaces in them; whoever is to have signed has to match.  Options restrict the key: to namespaces, a time,
or to certificates that it has signed (``cert-authority``), in which the signer has to be a principal, too.

The first line that allows a signature counts.  Lines that cannot be read allow nothing and are listed in ``problems``.
The answers are those of ``ssh-keygen -Y verify``, ``find-principals`` and ``match-principals``, but stricter where that
passes over what a certificate demands: :meth:`AllowedSigners.check` says where.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs

from sshproto.config import SecurityKeyPolicy
from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS, SOUND_ALGORITHMS, Certificate
from sshproto.keys.grants import CRITICAL_OPTIONS, CertificateKind
from sshproto.keys.known_hosts import match_pattern, match_patterns
from sshproto.keys.public import (
    KEY_TYPES,
    MINIMUM_RSA_BITS,
    PublicKey,
    blob_type,
    decode_base64,
    decode_text,
    split_words,
    unsupported_type,
)
from sshproto.keys.sshsig import FileSignature, Message
from sshproto.keys.timestamps import LocalTime, read_timestamp, show_time, utc
from sshproto.text import printable
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.keys.krl import KRL
    from sshproto.keys.security_keys import Assertion

MAXIMUM_LINE = 64 * 1024
"""Longest line that is looked at, in characters."""

MAXIMUM_PATTERN = 1022
"""Longest pattern in a list that is matched, in bytes, as in OpenSSH."""

_EXPECTED = "expected 'principals [options] type base64 [comment]'"
_OPTION = re.compile(
    r'(?P<flag>cert-authority)|(?P<name>namespaces|valid-after|valid-before)="(?P<value>(?:\\"|[^"\\]|\\(?!"))*)"',
    re.IGNORECASE,
)
_OPTIONS_FIELD = re.compile(r'(?:\\"|"(?:\\"|[^"\\]|\\(?!"))*"|[^ \t"\\]|\\(?!"))*')
_SPACE = " \t\r\n"
_LINE = re.compile("[^\n]*\n|[^\n]+")
_PRINCIPALS_END = re.compile('[ \t\r\n"]')
_CERTIFICATE_TYPES = frozenset(algorithm.type for algorithm in CERTIFICATE_ALGORITHMS.values())


class SignerRefused(KeyFormatError):
    """A signer who is not allowed to sign this, now, with this key.

    Attributes:
        cause: ``"revoked"``; ``"unknown"`` if no line has the signer with the key; or of the last line that does, what
            it failed on: ``"namespace"``, ``"time"`` or ``"certificate"``.
    """

    def __init__(self, problem: str, cause: str) -> None:
        super().__init__(problem)
        self.cause = cause


class _Passed(Exception):
    """A line with the key that does not allow it: why, and the cause."""


def _octets(text: str) -> str:
    """``text`` with a character for each byte of it: in patterns ``?`` is a byte."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _listed(name: str, patterns: str) -> bool:
    """Whether a list of patterns has a name in it. In one with a pattern that is too long there is nobody."""
    octets = _octets(patterns)
    if any(len(pattern.removeprefix("!")) > MAXIMUM_PATTERN for pattern in octets.split(",")):
        return False
    return match_patterns(_octets(name), octets)


@frozen
class AllowedSigner:
    """One line.

    Attributes:
        line: Its number, from 1.
        principals: The patterns as written, without the quotes around them.
        key: The key, or the certificate, with the line's comment.
        authority: The key is that of an authority: what counts are certificates that it has signed.
        namespaces: Patterns for the namespaces that it may sign for; None: for all.
        valid_after: From this second since 1970 on it may sign; None: from the beginning.
        valid_before: Until this second, which is the last; None: without an end.
    """

    line: int
    principals: str
    key: PublicKey | Certificate
    authority: bool = False
    namespaces: str | None = None
    valid_after: int | None = None
    valid_before: int | None = None

    def covers(self, identity: str) -> bool:
        """Whether the line is about a signer."""
        return _listed(identity, self.principals)

    def _has(self, signer: PublicKey | Certificate) -> bool:
        """Whether the line is about the key, or about the authority of a certificate."""
        if self.authority:
            return isinstance(signer, Certificate) and signer.authority == self.key
        return signer == self.key

    def _restrict(self, namespace: str | None, now: int) -> None:
        """Hold the options of the line against a signature; ``namespace`` None is any."""
        if self.namespaces is not None and namespace is not None and not _listed(namespace, self.namespaces):
            may, asked = printable(self.namespaces, 64), printable(namespace, 64)
            raise _Passed(f"the key may sign for the namespaces {may}, not for {asked!r}", "namespace")
        if self.valid_after is not None and now < self.valid_after:
            raise _Passed(f"the key is not valid before {show_time(self.valid_after)}, now is {show_time(now)}", "time")
        if self.valid_before is not None and now > self.valid_before:
            raise _Passed(f"the key was valid until {show_time(self.valid_before)}, now is {show_time(now)}", "time")


def _check_certificate(certificate: Certificate, now: int, identity: str | None) -> None:
    """What has to be true of a certificate whose authority is trusted; ``identity`` None is anybody."""
    problem = ""
    if certificate.kind is not CertificateKind.USER:
        problem = "is for a host; one for a user is needed"
    elif not certificate.valid_after <= now < certificate.valid_before:
        problem = (
            f"is valid from {show_time(certificate.valid_after)} to {show_time(certificate.valid_before)}, "
            f"now is {show_time(now)}"
        )
    elif not certificate.principals:
        problem = "names no principals"
    elif identity is not None and identity not in certificate.principals:
        problem = f"is for {printable(', '.join(certificate.principals), 128)}"
    else:
        unknown = [option for option in certificate.critical_options if option not in CRITICAL_OPTIONS]
        if unknown:
            problem = f"has the critical option {printable(unknown[0], 64)!r}, which is not known"
    if problem:
        which = f"the certificate {printable(certificate.key_id, 128)!r} (serial {certificate.serial})"
        raise _Passed(f"{which} {problem}", "certificate")


@frozen
class VerifiedSignature:
    """The answer of :meth:`AllowedSigners.verify`: the signature is good, and its signer is allowed.

    Attributes:
        signature: The signature.
        identity: The signer.
        allowed: The line that allows it.
        assertion: What a security key says besides; None of other keys.
    """

    signature: FileSignature
    identity: str
    allowed: AllowedSigner
    assertion: Assertion | None = None


@frozen
class AllowedSigners:
    """The content of a file.

    Attributes:
        entries: The lines that could be read, in order.
        problems: The number of each line that could not, and why.
    """

    entries: tuple[AllowedSigner, ...] = ()
    problems: tuple[tuple[int, str], ...] = ()
    _unread: tuple[tuple[int, str | None], ...] = attrs.field(default=(), repr=False)  # whom they are about

    def check(
        self,
        signer: PublicKey | Certificate,
        identity: str,
        namespace: str,
        *,
        now: float,
        revoked: KRL | None = None,
    ) -> AllowedSigner:
        """Whether somebody may sign with a key or a certificate: the first line that allows it.

        Of a certificate by an authority in the file: it is for a user, it is valid now, and the signer is one of its
        principals, letter for letter. ``force-command`` and ``source-address`` are about logins and say nothing here;
        other critical options, to which ssh-keygen does not look, refuse it (``verify-required`` is for
        :meth:`verify`). A line that has the certificate itself stands for it as for a key.

        Args:
            signer: What the signature is made with: ``FileSignature.signer``.
            identity: Who is to have signed.
            namespace: What the signature is for.
            now: Seconds since 1970, at which the signature has to count: mostly now, perhaps when it was made.
            revoked: What has been revoked: keys, certificates, authorities.

        Raises:
            SignerRefused: No, and why not.
            InvalidArgument: There is no identity.
        """
        if not identity or "\0" in identity:
            raise InvalidArgument(f"not a signer: {identity!r}; the name is not empty and has no NUL in it")
        if revoked is not None and (why := revoked.why(signer)):
            raise SignerRefused(f"the signer's key is revoked: {why}", "revoked")
        passed: list[str] = []
        cause = "unknown"
        for entry in self._having(signer):
            if not entry.covers(identity):
                continue
            try:
                if entry.authority and isinstance(signer, Certificate):
                    _check_certificate(signer, int(now), identity)
                entry._restrict(namespace, int(now))
            except _Passed as reason:
                cause = reason.args[1]
                passed.append(f"line {entry.line}: {reason.args[0]}")
                continue
            return entry
        who = f"{printable(identity, 128)!r} with the {signer.type} key {signer.fingerprint()}"
        why = "; ".join(passed[:4]) or f"no line of {len(self.entries)} is about both"
        raise SignerRefused(f"not an allowed signer: {who}: {why}", cause)

    def verify(
        self,
        signature: FileSignature,
        message: Message,
        identity: str,
        namespace: str,
        *,
        now: float,
        revoked: KRL | None = None,
        policy: SecurityKeyPolicy | None = None,
    ) -> VerifiedSignature:
        """Check that somebody who may has signed a message.

        Args:
            signature: The signature.
            message: All of it, or what ``signature.hash()`` gave, after the message was fed to it.
            identity: Who is to have signed.
            namespace: What the signature has to be for.
            now: Seconds since 1970.
            revoked: What has been revoked.
            policy: What a security key has to have done; None: it has been touched. A certificate with
                ``verify-required`` asks for more.

        Raises:
            SignatureInvalid: The signature is none over the message.
            SignerRefused: It is, but whoever made it may not sign this.
            InvalidArgument: There is no identity, or the message has been hashed with another hash.
        """
        asked = policy or SecurityKeyPolicy()
        certificate = signature.certificate
        required = certificate is not None and "verify-required" in certificate.critical_options
        if required:
            asked = attrs.evolve(asked, user_verification=True)
        assertion = signature.verify(message, namespace, policy=asked)
        allowed = self.check(signature.signer, identity, namespace, now=now, revoked=revoked)
        if required and assertion is None:
            raise SignerRefused(
                f"the certificate has verify-required, which a {signature.key.type} key cannot fulfil", "certificate"
            )
        return VerifiedSignature(signature, identity, allowed, assertion)

    def find_principals(self, signer: PublicKey | Certificate, *, now: float) -> tuple[str, ...]:
        """The principals of the first line about a key that is valid, as ``ssh-keygen -Y find-principals`` has them.

        These are patterns. Of a certificate by an authority in the file, they are the certificate's principals that
        match the patterns of the line; those with ``!`` do not count.

        Args:
            signer: What a signature is made with: ``FileSignature.signer``. Neither is that verified, nor does the
                namespace count.
            now: Seconds since 1970.
        """
        for entry in self._having(signer):
            patterns: list[str] = []
            for pattern in entry.principals.split(","):
                if not pattern:
                    break
                patterns.append(pattern)
            try:
                entry._restrict(None, int(now))
                if not (entry.authority and isinstance(signer, Certificate)):
                    return tuple(patterns)
                _check_certificate(signer, int(now), None)
            except _Passed:
                continue
            found = [
                principal
                for pattern in patterns
                for principal in signer.principals
                if match_pattern(_octets(principal), _octets(pattern))
            ]
            if found:
                return tuple(found)
        return ()

    def match_principals(self, identity: str) -> tuple[str, ...]:
        """The principals of each line about a signer, as ``ssh-keygen -Y match-principals`` has them.

        Raises:
            KeyFormatError: A line about the signer cannot be read, at which ssh-keygen stops, too.
        """
        for line, principals in self._unread:
            if principals is None or _listed(identity, principals):
                why = dict(self.problems)[line]
                raise KeyFormatError(f"line {line}, which may be about {printable(identity, 128)!r}: {why}")
        return tuple(entry.principals for entry in self.entries if entry.covers(identity))

    def _having(self, signer: PublicKey | Certificate) -> Iterator[AllowedSigner]:
        return (entry for entry in self.entries if entry._has(signer))


# -------------------------------------------------------------------------------------------------------------- reading


def parse(content: str | bytes, *, local: LocalTime = utc, minimum_rsa_bits: int = MINIMUM_RSA_BITS) -> AllowedSigners:
    """Read the content of a file. Never raises for what is in it: see ``AllowedSigners.problems``.

    Args:
        content: The content.
        local: What time it is where ``valid-after`` or ``valid-before`` has no ``Z``; UTC if nothing else is said.
        minimum_rsa_bits: Smallest RSA modulus to accept; 1024 at least.
    """
    entries: list[AllowedSigner] = []
    problems: list[tuple[int, str]] = []
    unread: list[tuple[int, str | None]] = []
    # Each with its line end, which makes a difference where nothing follows the principals; a NUL ends a line, too.
    for number, line in enumerate(_LINE.findall(decode_text(content)), 1):
        line = line.partition("\0")[0].lstrip(_SPACE)
        if not line or line.startswith("#"):
            continue
        principals: str | None = None
        try:
            principals, rest = _principals(line)
            if not principals or principals.startswith("-----"):
                what = "that of a PEM file" if principals else "one without principals"
                raise KeyFormatError(f"not a line about a signer, but {what}; {_EXPECTED}")
            entries.append(AllowedSigner(number, principals, **_parse_rest(rest, local, minimum_rsa_bits)))
        except KeyFormatError as error:
            problems.append((number, str(error)))
            unread.append((number, principals))
    return AllowedSigners(tuple(entries), tuple(problems), tuple(unread))


def _principals(line: str) -> tuple[str, str]:
    """The principals and the rest of the line. What is in quotes, from wherever they begin, belongs to the former."""
    if len(line) > MAXIMUM_LINE:
        raise KeyFormatError(f"a line of {len(line)} characters; at most {MAXIMUM_LINE} are read")
    end = _PRINCIPALS_END.search(line)
    if end is None:
        raise KeyFormatError(f"nothing follows {printable(line, 40)!r}, not even a line end; {_EXPECTED}")
    at = end.start()
    principals, rest = line[:at], line[at + 1 :]
    if end[0] == '"':
        quoted, ends, rest = rest.partition('"')
        if not ends:
            raise KeyFormatError("a quote in the principals does not end")
        principals += quoted
    return principals, rest.strip(_SPACE)


def _parse_rest(rest: str, local: LocalTime, minimum: int) -> dict[str, Any]:
    """What follows the principals, as the other fields of an :class:`AllowedSigner`."""
    words = split_words(rest)
    options: dict[str, Any] = {}
    if words and not _is_type(words[0]):
        found = _OPTIONS_FIELD.match(rest)
        field = found[0] if found else ""
        if rest[len(field) : len(field) + 1] not in ("", " ", "\t"):
            raise KeyFormatError("a quote in the options does not end")
        words = split_words(rest[len(field) :])
        if field.startswith(("ssh-", "ecdsa-", "sk-")) and "=" not in field:
            raise unsupported_type(field)
        options = _options(field, local)
    if len(words) < 2:
        raise KeyFormatError(f"the key is missing behind the principals; {_EXPECTED}")
    kind, word, *comment = words
    if not _is_type(kind):
        raise unsupported_type(kind)
    blob = decode_base64(word, f"{kind} key")
    inner = blob_type(blob)
    if inner != kind:
        raise KeyFormatError(f"the line says {printable(kind)}, the key in it is of type {printable(inner)}")
    key: PublicKey | Certificate
    if kind in KEY_TYPES:
        key = PublicKey.from_blob(blob, "".join(comment), minimum_rsa_bits=minimum)
    else:
        key = Certificate.from_blob(
            blob, "".join(comment), minimum_rsa_bits=minimum, authority_algorithms=SOUND_ALGORITHMS
        )
    if "authority" in options and isinstance(key, Certificate):
        key = attrs.evolve(key.key, comment=key.comment)  # which is how ssh-keygen takes it
    return {"key": key, **options}


def _is_type(word: str) -> bool:
    return word in KEY_TYPES or word in _CERTIFICATE_TYPES


def _options(field: str, local: LocalTime) -> dict[str, Any]:
    """The options of a line. Like ssh-keygen's, it passes over commas at the beginning and in a row."""
    options: dict[str, Any] = {}
    at = 0
    while at < len(field):
        found = _OPTION.match(field, at)
        if found is not None:
            at = found.end()
            if found["flag"]:
                options["authority"] = True
            else:
                name = found["name"].lower()
                attribute = name.replace("-", "_")
                if attribute in options:
                    raise KeyFormatError(f"the option {name} stands there twice")
                value = found["value"].replace('\\"', '"')
                options[attribute] = value if name == "namespaces" else _time(name, value, local)
            if at == len(field):
                break
        if field[at] != ",":
            raise KeyFormatError(
                f'not an option: {printable(field[at:], 40)!r}; there are cert-authority, namespaces="...", '
                'valid-after="..." and valid-before="..."'
            )
        at += 1
        if at == len(field):
            raise KeyFormatError("the options end with a comma")
    after, before = options.get("valid_after"), options.get("valid_before")
    if after is not None and before is not None and before <= after:
        raise KeyFormatError(f"valid-before ({show_time(before)}) is not after valid-after ({show_time(after)})")
    return options


def _time(name: str, value: str, local: LocalTime) -> int:
    try:
        return read_timestamp(value, local)
    except KeyFormatError as error:
        raise KeyFormatError(f"{name}: {error}") from None
