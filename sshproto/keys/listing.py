"""Keys, certificates and revocation lists in words, as ``ssh-keygen -l``, ``-L`` and ``-Q -l`` show them.

All that came from outside is fit to be shown: control characters are escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from sshproto.errors import KeyFormatError, WireError
from sshproto.keys.certificates import Certificate
from sshproto.keys.grants import CRITICAL_OPTIONS, EXTENSIONS, FOREVER
from sshproto.keys.krl import KRL, RevokedCertificates
from sshproto.keys.public import SHORT_NAMES, PublicKey, blob_type, fingerprint_of
from sshproto.text import printable
from sshproto.wire.codec import Reader

Clock = Callable[[int], datetime]
"""Gives date and time of day of a second since 1970; one without a zone is shown without."""

_INDENT = " " * 8
_LONGEST = 4096  # of a key id, or a command


def utc(seconds: int) -> datetime:
    """Date and time of day in UTC; a :data:`Clock`."""
    return datetime.fromtimestamp(seconds, UTC)


def show_moment(seconds: int, clock: Clock = utc) -> str:
    """``2026-01-31T12:00:00``, with ``Z`` if the clock says that it is UTC; what no clock reaches is a number."""
    try:
        return clock(seconds).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"


def show_validity(certificate: Certificate, *, clock: Clock = utc) -> str:
    """``from 2026-01-01T00:00:00Z to 2027-01-01T00:00:00Z``, ``before ...``, ``after ...`` or ``forever``."""
    start, end = (show_moment(each, clock) for each in (certificate.valid_after, certificate.valid_before))
    if certificate.valid_before == FOREVER:
        return f"after {start}" if certificate.valid_after else "forever"
    return f"from {start} to {end}" if certificate.valid_after else f"before {end}"


def short_name(kind: str, *, certified: bool = False) -> str:
    """What ``ssh-keygen -l`` calls a type of key, ``"ED25519"``; a type that is not known is called as it is."""
    return SHORT_NAMES.get(kind, printable(kind, 64)) + ("-CERT" if certified else "")


def fingerprint_line(key: PublicKey, comment: str, hash_name: str = "sha256", *, certified: bool = False) -> str:
    """A line as of ``ssh-keygen -l``: size, fingerprint, comment, type.

    Args:
        key: The key.
        comment: To be shown with it.
        hash_name: ``"sha256"`` or ``"md5"``.
        certified: It is that of a certificate.

    Raises:
        InvalidArgument: Another hash was named.
    """
    shown = printable(comment, _LONGEST) or "no comment"
    return f"{key.bits} {key.fingerprint(hash_name)} {shown} ({short_name(key.type, certified=certified)})"


# --------------------------------------------------------------------------------------------------------- certificates


def certificate_text(certificate: Certificate, *, now: float | None = None, clock: Clock = utc) -> str:
    """What is in a certificate, in lines as of ``ssh-keygen -L``, without a line end after the last.

    Args:
        certificate: The certificate.
        now: Seconds since 1970: then it is said of one that has expired, or is not valid yet. None says nothing.
        clock: In which zone times are shown; UTC if nothing else is said.
    """
    key, authority = certificate.key, certificate.authority
    validity = show_validity(certificate, clock=clock)
    if now is not None and now < certificate.valid_after:
        validity += " (not yet valid)"
    elif now is not None and now >= certificate.valid_before:
        validity += " (expired)"
    principals = (printable(each, _LONGEST) for each in certificate.principals)
    lines = [
        f"Type: {certificate.type} {certificate.kind.name.lower()} certificate",
        f"Public key: {short_name(key.type, certified=True)} {key.fingerprint()}",
        f"Signing CA: {short_name(authority.type)} {authority.fingerprint()} (using {certificate.authority_algorithm})",
        f'Key ID: "{printable(certificate.key_id, _LONGEST)}"',
        f"Serial: {certificate.serial}",
        f"Valid: {validity}",
        *_section("Principals", principals),
        *_section("Critical Options", _options(certificate.critical_options, CRITICAL_OPTIONS)),
        *_section("Extensions", _options(certificate.extensions, EXTENSIONS)),
    ]
    return "\n".join(_INDENT + line for line in lines)


def _section(title: str, entries: Iterable[str]) -> list[str]:
    shown = [f"{_INDENT}{each}" for each in entries]
    return [f"{title}:", *shown] if shown else [f"{title}: (none)"]


def option_text(data: bytes) -> str | None:
    """The text that the data of an option holds; ``""`` for a flag, None if it is something else."""
    if not data:
        return ""
    reader = Reader(data, "option")
    try:
        value = reader.text("value")
        reader.end()
    except WireError:
        return None
    return value


def _options(options: Mapping[str, bytes], known: Iterable[str]) -> Iterator[str]:
    names = frozenset(known)
    for name, data in options.items():
        value = option_text(data)
        shown = f"{data[:256].hex()} (len {len(data)})" if value is None else printable(value, _LONGEST)
        if name in names:
            yield f"{name} {shown}".rstrip()
        else:
            yield f"{printable(name)} UNKNOWN {f'OPTION: {shown}' if data else 'FLAG OPTION'}"


# ----------------------------------------------------------------------------------------------------- revocation lists


def krl_text(krl: KRL, *, clock: Clock = utc) -> str:
    """What is in a revocation list, in lines as of ``ssh-keygen -Q -l``, without a line end after the last.

    The lines about one authority, or about keys, are a specification for a list that revokes the same
    (:func:`sshproto.keys.specification.revoke_specified`), unless a line that begins with ``#`` says otherwise.
    """
    lines = [f"# KRL version {krl.version}", f"# Generated at {show_moment(krl.generated, clock)}"]
    if krl.comment:
        lines.append(f"# Comment: {printable(krl.comment, _LONGEST)}")
    lines += (f"# Signed by {key.type} {key.fingerprint()}" for key in krl.signers)
    keys = [f"hash: {fingerprint_of(blob)} # {_type(blob)}" for blob in sorted(krl.keys)]
    keys += (f"hash: {_digest('SHA256', digest)}" for digest in sorted(krl.sha256))
    keys += (f"hash: {_digest('SHA1', digest)}" for digest in sorted(krl.sha1))
    if keys:
        lines += "", *keys
    for revoked in krl.certificates:
        lines += "", *_revoked(revoked)
    return "\n".join(lines)


def _type(blob: bytes) -> str:
    try:
        return printable(blob_type(blob), 64)
    except KeyFormatError:
        return "unknown type"


def _digest(name: str, digest: bytes) -> str:
    import base64

    return f"{name}:{base64.b64encode(digest).decode('ascii').rstrip('=')}"


def _revoked(revoked: RevokedCertificates) -> Iterator[str]:
    if revoked.authority:
        yield f"# CA key {_type(revoked.authority)} {fingerprint_of(revoked.authority)}"
    else:
        yield "# Wildcard CA"
    for low, high in revoked.serials:
        yield f"serial: {low}" if low == high else f"serial: {low}-{high}"
    for key_id in sorted(revoked.key_ids):
        shown = printable(key_id, _LONGEST)
        if shown == key_id and key_id and key_id == key_id.strip(" \t") and "#" not in key_id:
            yield f"id: {key_id}"
        else:
            yield f"# id, which no specification can hold: {shown!r}"
