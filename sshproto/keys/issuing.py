"""What an authority signs, and what it should not (OpenSSH's PROTOCOL.certkeys).

Whatever OpenSSH would refuse, or would understand otherwise than it was meant, is refused before it is signed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from sshproto.config import Entropy
from sshproto.errors import InvalidArgument
from sshproto.keys.grants import CRITICAL_OPTIONS, EXTENSIONS, FOREVER, PERMISSIONS, CertificateKind, address_allowed
from sshproto.keys.public import PublicKey
from sshproto.text import printable
from sshproto.wire.codec import Buffer, Reader, is_name, name, string, text, uint32, uint64

MAXIMUM_PRINCIPALS = 256
"""Most principals of a certificate, as in OpenSSH."""

NONCE_SIZE = 32


class Signer(Protocol):
    """Who signs for an authority: a :class:`~sshproto.keys.private.PrivateKey`, or what has one sign elsewhere."""

    @property
    def public_key(self) -> PublicKey:
        """The authority's key."""
        ...

    def sign(self, data: Buffer, algorithm: str | None = None) -> bytes:
        """Sign ``data`` with a signature algorithm of that key; the result is ``string name, string body``."""
        ...


def to_be_signed(
    certificate_type: str,
    authority: PublicKey,
    key: PublicKey,
    kind: CertificateKind,
    key_id: str,
    principals: Iterable[str],
    valid_after: int,
    valid_before: int,
    serial: int,
    critical_options: Mapping[str, str] | None,
    extensions: Mapping[str, str] | None,
    entropy: Entropy,
) -> bytes:
    """A certificate up to its signature; see :meth:`sshproto.keys.certificates.Certificate.issue`.

    Raises:
        InvalidArgument: Something does not fit a certificate.
    """
    user = kind is CertificateKind.USER
    names = _checked_principals(principals, kind)
    options = critical_options or {}
    if extensions is None:
        extensions = PERMISSIONS if user else {}
    _check_names(options, CRITICAL_OPTIONS if user else (), "a critical option", kind)
    _check_names(extensions, EXTENSIONS if user else (), "an extension", kind)
    _check_values(options, extensions, key)
    if not 0 <= valid_after < valid_before <= FOREVER:
        raise InvalidArgument(f"a certificate valid from {valid_after} until {valid_before} is never valid")
    if not 0 <= serial < 2**64:
        raise InvalidArgument(f"a serial number is from 0 to 2^64 - 1, not {serial}")
    if "\0" in key_id:
        raise InvalidArgument("a key id holds no NUL")
    reader = Reader(key.blob, "key")
    reader.string("type")
    return b"".join(
        (
            name(certificate_type),
            string(entropy(NONCE_SIZE, "certificate nonce")),
            reader.rest(),
            uint64(serial),
            uint32(kind),
            text(key_id),
            string(b"".join(map(text, names))),
            uint64(valid_after),
            uint64(valid_before),
            string(_written(options)),
            string(_written(extensions)),
            string(b""),
            string(authority.blob),
        )
    )


def _checked_principals(principals: Iterable[str], kind: CertificateKind) -> tuple[str, ...]:
    """The principals of a certificate to be issued."""
    if isinstance(principals, str):
        raise InvalidArgument(f"a sequence of principals is needed, not one string: {principals!r}")
    names = tuple(principals)
    if not 0 < len(names) <= MAXIMUM_PRINCIPALS:
        raise InvalidArgument(f"a certificate names 1 to {MAXIMUM_PRINCIPALS} principals, not {len(names)}")
    for each in names:
        if not each or "," in each or "\0" in each:
            raise InvalidArgument(
                f"not a principal: {printable(each, 64)!r}; it is not empty and holds no comma and NUL"
            )
        if kind is CertificateKind.USER and ("*" in each or "?" in each):
            raise InvalidArgument(f"not a user: {printable(each, 64)!r}; there are no wildcards in users' names")
    return names


def _check_names(options: Mapping[str, str], known: Collection[str], what: str, kind: CertificateKind) -> None:
    for option in options:
        custom = "@" in option and (kind is CertificateKind.USER or what == "an extension")
        if not is_name(option) or not (option in known or custom):
            have = f"there are {', '.join(known)}" if known else f"{kind.name.lower()} certificates have none"
            raise InvalidArgument(f"not {what}: {printable(option, 64)!r}; {have}, and one's own, name@domain")


def _check_values(options: Mapping[str, str], extensions: Mapping[str, str], key: PublicKey) -> None:
    command = options.get("force-command")
    if command is not None and (not command or "\0" in command):
        raise InvalidArgument("force-command is a command, not empty and without NUL")
    if "source-address" in options:
        address_allowed("", options["source-address"])
    if options.get("verify-required"):
        raise InvalidArgument("verify-required has no value")
    if "verify-required" in options and not key.type.startswith("sk-"):
        raise InvalidArgument(f"verify-required asks for a security key, the key is of type {key.type}")
    for extension, value in extensions.items():
        if value and extension in EXTENSIONS:
            raise InvalidArgument(f"{extension} has no value")


def _written(options: Mapping[str, str]) -> bytes:
    """Options in order, a flag without data."""
    return b"".join(name(option) + string(text(value) if value else b"") for option, value in sorted(options.items()))
