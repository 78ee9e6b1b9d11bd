"""The ``authorized_keys`` file: which keys may log in as a user, and under which restrictions (sshd(8)).

A line is ``[options] type base64 [comment]``.  Beside it there are files of principals (``AuthorizedPrincipalsFile`` of
sshd_config(5)), with lines ``[options] name``: the names for which a certificate of a trusted authority is to be.

:meth:`AuthorizedKeys.authorize` answers the one question that counts: may whoever shows this key, or this certificate,
log in, and what may they do then?  It is a function of its arguments; that who shows a key holds it is for the
connection to find out, which has.  Lines that cannot be read, or whose options are not understood, grant nothing and
are listed in ``problems``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid, SSHError
from sshproto.keys.key_options import options_field, read_options, source_allowed, split_options
from sshproto.keys.permits import Permit
from sshproto.keys.public import (
    KEY_TYPES,
    MINIMUM_RSA_BITS,
    PublicKey,
    decode_text,
    describe,
    split_words,
    unsupported_type,
)
from sshproto.keys.timestamps import LocalTime, utc
from sshproto.text import printable
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.grants import CertificateGrant
    from sshproto.keys.krl import KRL
    from sshproto.keys.security_keys import Assertion

_ENFORCED = ("force-command", "verify-required")
"""Critical options that a :class:`Permit` holds, which is to be enforced."""


class LoginRefused(SSHError):
    """A key or a certificate does not let a user in. Why is for the server's log: the client is not to know."""


def _names(options: Mapping[str, tuple[str, ...]]) -> str:
    return f"<{', '.join(options)}>"  # values of environment may be secrets


def _no_options() -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({})


@frozen
class AuthorizedKey:
    """One line.

    Attributes:
        line: Its number, from 1.
        key: The key, with the line's comment.
        options: The values by lower-case name, none for a flag: ``{"no-pty": (), "permitopen": ("a:1", "b:2")}``.
        permit: What the options leave of all that a login may do.
        sources: The patterns of ``from``; None: from anywhere.
        principals: The names of ``principals``, of an authority's line; None: the user's.
        authority: Whether the key is that of a certificate authority; it does not log in by itself.
    """

    line: int
    key: PublicKey
    options: Mapping[str, tuple[str, ...]] = attrs.field(factory=_no_options, hash=False, repr=_names)
    permit: Permit = Permit()
    sources: str | None = None
    principals: tuple[str, ...] | None = None
    authority: bool = False


@frozen
class AuthorizedPrincipal:
    """One line of a file of principals.

    Attributes:
        line: Its number, from 1.
        name: The principal, letter for letter.
        permit: What the options leave of all that a login may do.
        sources: The patterns of ``from``; None: from anywhere.
    """

    line: int
    name: str
    permit: Permit = Permit()
    sources: str | None = None


@frozen
class AuthorizedPrincipals:
    """The content of a file of principals: for whom a certificate has to be to let a user in.

    Attributes:
        entries: The lines that could be read, in order.
        problems: The number of each line that could not, and why.
    """

    entries: tuple[AuthorizedPrincipal, ...] = ()
    problems: tuple[tuple[int, str], ...] = ()

    def find(self, certificate: Certificate) -> AuthorizedPrincipal | None:
        """The first line with a name that is among the certificate's principals, or None."""
        return next((entry for entry in self.entries if entry.name in certificate.principals), None)


@frozen
class AuthorizedKeys:
    """The content of a file.

    Attributes:
        entries: The lines that could be read, in order.
        problems: The number of each line that could not, and why.
    """

    entries: tuple[AuthorizedKey, ...] = ()
    problems: tuple[tuple[int, str], ...] = ()

    def matches(self, key: PublicKey) -> tuple[AuthorizedKey, ...]:
        """All lines with this key, those of certificate authorities left out.

        A line may restrict the key: see ``AuthorizedKey.permit`` and ``sources``, or ask :meth:`authorize`.
        """
        return tuple(entry for entry in self.entries if entry.key == key and not entry.authority)

    def authorize(
        self,
        shown: PublicKey | Certificate,
        user: str,
        *,
        now: float,
        address: str | None = None,
        hostnames: Iterable[str] = (),
        authorities: Collection[PublicKey] = (),
        principals: AuthorizedPrincipals | None = None,
        revoked: KRL | None = None,
        assertion: Assertion | None = None,
    ) -> Permit:
        """Whether a key or a certificate lets a user in, and what the login may do then.

        A key lets in by a line that has it. A certificate does by an authority that is trusted for all users, or by a
        line with ``cert-authority``. The first of several ways that leads in counts.

        Args:
            shown: What was shown, see ``KeyProbe`` and ``KeyAuth``.
            user: Who wants in.
            now: Seconds since 1970.
            address: The client's, numeric; None if it is not known, and then who is restricted to some is refused.
            hostnames: Names of the client's that have been verified, for ``from``.
            authorities: Keys of those whose certificates are good for every user: ``TrustedUserCAKeys`` of sshd.
            principals: For whom one of *their* certificates has to be; None: for the user.
            revoked: What has been revoked: keys, certificates, authorities.
            assertion: What a security key has said besides its signature, if that has come already. Else the permit
                says what it will have to.

        Returns:
            What the login may do. Who lets it in has to enforce that.

        Raises:
            LoginRefused: It may not, and why: words for a log.
        """
        origin = _Origin(now, address, tuple(hostnames), revoked, assertion)
        if isinstance(shown, PublicKey):
            return self._by_key(shown, origin)
        return self._by_certificate(shown, user, origin, authorities, principals)

    def _by_key(self, key: PublicKey, origin: _Origin) -> Permit:
        what = f"{key.type} {key.fingerprint()}"
        if origin.revoked is not None and (why := origin.revoked.why(key)):
            raise LoginRefused(f"{what} is revoked: {why}")
        ways = _Ways()
        for entry in self.matches(key):
            with ways.tried(f"line {entry.line}"):
                return origin.permit(entry.permit, entry.sources, f"line {entry.line}")
        raise ways.refusal(what, "no line has it")

    def _by_certificate(
        self,
        certificate: Certificate,
        user: str,
        origin: _Origin,
        authorities: Collection[PublicKey],
        principals: AuthorizedPrincipals | None,
    ) -> Permit:
        by = f"{certificate.authority.type} {certificate.authority.fingerprint()}"
        ways = _Ways()
        if certificate.authority in authorities:
            with ways.tried("by an authority that is trusted for all users"):
                return _by_trusted(certificate, user, origin, principals)
        for entry in self.entries:
            if entry.authority and entry.key == certificate.authority:
                with ways.tried(f"line {entry.line}"):
                    names = (user,) if entry.principals is None else entry.principals
                    grant = origin.check(certificate, names)
                    permit = entry.permit.narrowed(Permit.of(grant))
                    return origin.permit(permit, entry.sources, f"line {entry.line}, principal {grant.principal}")
        what = f"{certificate.type} {printable(certificate.key_id, 128)!r} (serial {certificate.serial})"
        raise ways.refusal(what, f"it is signed by {by}, which is not trusted")


def _by_trusted(
    certificate: Certificate, user: str, origin: _Origin, principals: AuthorizedPrincipals | None
) -> Permit:
    """What a certificate permits that an authority for all users has signed.

    Raises:
        KeyFormatError, InvalidArgument, SignatureInvalid: It does not let the user in.
    """
    if principals is None:
        # Nobody but the authority has a say here, so that it alone may waive the touch.
        grant = origin.check(certificate, (user,))
        return origin.permit(Permit.of(grant), None, f"principal {grant.principal}")
    entry = principals.find(certificate)
    if entry is None:
        have = ", ".join(printable(name, 64) for name in certificate.principals[:8]) or "nobody"
        raise KeyFormatError(f"it is for {have}; none of the names that are authorized is among them")
    grant = origin.check(certificate, (entry.name,))
    where = f"line {entry.line} of the principals, principal {grant.principal}"
    return origin.permit(entry.permit.narrowed(Permit.of(grant)), entry.sources, where)


@frozen
class _Origin:
    """When and from where somebody comes, and what must not have been revoked."""

    now: float
    address: str | None
    hostnames: tuple[str, ...]
    revoked: KRL | None
    assertion: Assertion | None

    def check(self, certificate: Certificate, names: Iterable[str]) -> CertificateGrant:
        """Whether a certificate is good: its authority is the one that is asked for.

        Raises:
            CertificateRefused: It is not.
        """
        from sshproto.keys.grants import CertificateKind

        return certificate.check(
            CertificateKind.USER,
            names,
            authorities=(certificate.authority,),
            now=self.now,
            address=self.address,
            enforced=_ENFORCED,
            revoked=self.revoked,
        )

    def permit(self, permit: Permit, sources: str | None, grounds: str) -> Permit:
        """``permit``, if it is one here and now.

        Raises:
            InvalidArgument, SignatureInvalid: It is not.
        """
        if permit.expired(self.now):
            raise InvalidArgument("it has expired")
        if sources is not None and not source_allowed(sources, self.address, self.hostnames):
            came = printable(", ".join((self.address or "nowhere that is known", *self.hostnames)), 256)
            raise InvalidArgument(f"it may be used from {printable(sources, 256)}, not from {came}")
        if self.assertion is not None:
            permit.check_assertion(self.assertion)
        return attrs.evolve(permit, grounds=printable(grounds, 256))


class _Ways:
    """The ways in that were tried."""

    def __init__(self) -> None:
        self._problems: list[str] = []

    @contextlib.contextmanager
    def tried(self, where: str) -> Iterator[None]:
        """Around one way: what is raised there says why it leads nowhere, and the next may be tried."""
        try:
            yield
        except (KeyFormatError, InvalidArgument, SignatureInvalid) as error:
            self._problems.append(f"{where}: {error}")

    def refusal(self, what: str, nothing: str) -> LoginRefused:
        """Why none of them leads in."""
        shown, more = "; ".join(self._problems[:4]) or nothing, len(self._problems) - 4
        return LoginRefused(f"{what}: {shown}{f'; and {more} more' if more > 0 else ''}")


# -------------------------------------------------------------------------------------------------------------- reading


def parse(content: str | bytes, *, minimum_rsa_bits: int = MINIMUM_RSA_BITS, local: LocalTime = utc) -> AuthorizedKeys:
    """Read the content of a file. Never raises for what is in it: see ``AuthorizedKeys.problems``.

    Args:
        content: The file's.
        minimum_rsa_bits: Smallest RSA modulus to accept; 1024 at least.
        local: What time it is where ``expiry-time`` names no zone, as :meth:`datetime.datetime.timestamp` tells it for
            the system's; UTC if nothing else is said.
    """
    entries: list[AuthorizedKey] = []
    problems: list[tuple[int, str]] = []
    # Not splitlines(): it also splits at characters that are ordinary ones inside a quoted command.
    for number, line in enumerate(decode_text(content).split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        try:
            entries.append(_parse_line(number, line, minimum_rsa_bits, local))
        except KeyFormatError as error:
            problems.append((number, str(error)))
    return AuthorizedKeys(tuple(entries), tuple(problems))


def _parse_line(number: int, line: str, minimum: int, local: LocalTime) -> AuthorizedKey:
    words = split_words(line)
    field = ""
    if words[0] not in KEY_TYPES:
        expected = "expected '[options] type base64 [comment]'"
        if line.startswith("-"):
            raise KeyFormatError(f"this is {describe(line) or 'no key'}; {expected}")
        field = options_field(line)
        if _looks_like_type(field):
            raise unsupported_type(field)
        words = split_words(line[len(field) :])
        if len(words) < 2:
            raise KeyFormatError(f"{len(words)} words after {printable(field, 40)!r}; {expected}")
    if len(words) < 2:
        raise KeyFormatError(f"nothing follows the key type {words[0]}; expected '[options] type base64 [comment]'")
    comment = words[2] if len(words) > 2 else ""
    key = PublicKey.from_words(words[0], words[1], comment, minimum_rsa_bits=minimum)
    pairs = split_options(field) if field else []
    options = read_options(pairs, local)
    values: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        values[name] = values.get(name, ()) if value is None else (*values.get(name, ()), value)
    return AuthorizedKey(
        number, key, MappingProxyType(values), options.permit, options.sources, options.principals, options.authority
    )


def _looks_like_type(word: str) -> bool:
    return word.startswith(("ssh-", "ecdsa-", "sk-")) and "=" not in word


def parse_principals(content: str | bytes, *, local: LocalTime = utc) -> AuthorizedPrincipals:
    """Read the content of a file of principals. Never raises for what is in it: see ``AuthorizedPrincipals.problems``.

    Lines are ``[options] name``; from a ``#`` on, wherever it is, a line is a comment.

    Args:
        content: The file's.
        local: What time it is where ``expiry-time`` names no zone.
    """
    entries: list[AuthorizedPrincipal] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(decode_text(content).split("\n"), 1):
        line = line.partition("#")[0].strip(" \t\r")
        if not line:
            continue
        try:
            entries.append(_parse_principal(number, line, local))
        except KeyFormatError as error:
            problems.append((number, str(error)))
    return AuthorizedPrincipals(tuple(entries), tuple(problems))


def _parse_principal(number: int, line: str, local: LocalTime) -> AuthorizedPrincipal:
    at = max(line.rfind(" "), line.rfind("\t")) + 1
    field, name = line[:at].rstrip(" \t"), line[at:]
    if not field:
        return AuthorizedPrincipal(number, name)
    if options_field(field) != field:
        raise KeyFormatError(f"more than options before the name {printable(name, 64)!r}; expected '[options] name'")
    options = read_options(split_options(field), local)
    if options.authority:
        raise KeyFormatError("option cert-authority goes with a key; this is the name of a principal")
    return AuthorizedPrincipal(number, name, options.permit, options.sources)
