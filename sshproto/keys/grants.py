"""What a certificate permits, and why one is refused (OpenSSH's PROTOCOL.certkeys, sshd(8), ssh-keygen(1)).

Options restrict, extensions permit.  So an option that is not known, or that nobody enforces, refuses the certificate,
and an extension that is not known permits nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sshproto.config import SecurityKeyPolicy
from sshproto.errors import InvalidArgument, KeyFormatError, WireError
from sshproto.keys.known_hosts import match_pattern
from sshproto.keys.timestamps import show_time
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Reader

if TYPE_CHECKING:
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.krl import KRL
    from sshproto.keys.public import PublicKey

FOREVER = 2**64 - 1
"""As the end of validity: it has none."""

PERMISSIONS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        (
            "permit-X11-forwarding",
            "permit-agent-forwarding",
            "permit-port-forwarding",
            "permit-pty",
            "permit-user-rc",
        ),
        "",
    )
)
"""The extensions that a user certificate gets if nothing is said, as from ssh-keygen: everything is permitted."""


class CertificateKind(enum.IntEnum):
    """Whom a certificate is for."""

    USER = 1
    """Somebody who logs in."""
    HOST = 2
    """A server."""


class CertificateRefused(KeyFormatError):
    """A certificate that is one, but is not good for this, here, now.

    Attributes:
        cause: What it failed on: ``"kind"``, ``"authority"``, ``"revoked"``, ``"time"``, ``"principal"``,
            ``"option"`` or ``"address"``.
    """

    def __init__(self, problem: str, cause: str) -> None:
        super().__init__(problem)
        self.cause = cause


@frozen
class CertificateGrant:
    """The answer of :meth:`Certificate.check`: the certificate is good, and this is what it permits.

    For a host certificate there is nothing to permit; all fields from ``force_command`` on have their defaults.

    Attributes:
        certificate: The certificate.
        principal: The principal in it that matched.
        force_command: What is to be run, whatever the user asks for; None leaves it to the user.
        source_address: The networks from which it may be used, in CIDR form; none: from anywhere.
        verify_required: The security key must have verified its owner for the signature of the login.
        touch_required: The security key must have been touched for the signature of the login.
        x11_forwarding: ``permit-X11-forwarding``: without it X11 is not forwarded; and so on.
        agent_forwarding: ``permit-agent-forwarding``.
        port_forwarding: ``permit-port-forwarding``.
        pty: ``permit-pty``.
        user_rc: ``permit-user-rc``.
        unknown: Extensions that mean nothing here.
    """

    certificate: Certificate
    principal: str
    force_command: str | None = None
    source_address: tuple[str, ...] = ()
    verify_required: bool = False
    touch_required: bool = True
    x11_forwarding: bool = False
    agent_forwarding: bool = False
    port_forwarding: bool = False
    pty: bool = False
    user_rc: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def policy(self) -> SecurityKeyPolicy:
        """What the signature of the login has to show, if the key is a security key."""
        return SecurityKeyPolicy(user_presence=self.touch_required, user_verification=self.verify_required)


EXTENSIONS: dict[str, tuple[str, bool]] = {
    "no-touch-required": ("touch_required", False),
    "permit-X11-forwarding": ("x11_forwarding", True),
    "permit-agent-forwarding": ("agent_forwarding", True),
    "permit-port-forwarding": ("port_forwarding", True),
    "permit-pty": ("pty", True),
    "permit-user-rc": ("user_rc", True),
}

CRITICAL_OPTIONS = ("force-command", "source-address", "verify-required")
"""The critical options that there are, for users; for hosts there is none."""


# ------------------------------------------------------------------------------------------------------------ addresses

_CIDR_CHARACTERS = frozenset("0123456789abcdefABCDEF.:/")


def _networks(addresses: str) -> list[Any]:
    """The networks of a ``source-address`` list; ValueError says what is wrong with one."""
    import ipaddress

    found: list[Any] = []
    for entry in addresses.split(","):
        address, slash, bits = entry.partition("/")
        if not address or not _CIDR_CHARACTERS.issuperset(entry) or (slash and not bits.isdigit()):
            raise ValueError(
                f"{printable(entry, 64)!r} is no address and no network like 192.0.2.0/24 or 2001:db8::/32"
            )
        found.append(ipaddress.ip_network(entry))
    return found


def address_allowed(address: str, addresses: str) -> bool:
    """Whether a ``source-address`` list allows a client's address.

    An IPv4 address that a socket shows as one of IPv6 (``::ffff:192.0.2.1``) counts as the former. What is no address,
    or has a zone (``fe80::1%eth0``), is not allowed.

    Args:
        address: The client's, numeric.
        addresses: Addresses and networks separated by commas: ``192.0.2.0/24,2001:db8::1``.

    Raises:
        InvalidArgument: The list is not one: something in it is no network, or has bits set outside its mask.
    """
    import ipaddress

    try:
        networks = _networks(addresses)
    except ValueError as error:
        raise InvalidArgument(f"not a list of addresses: {error}") from None
    try:
        came: Any = ipaddress.ip_address(address)
    except ValueError:
        return False
    if came.version == 6:
        if came.scope_id is not None:
            return False
        came = came.ipv4_mapped or came
    return any(came in network for network in networks)


# ------------------------------------------------------------------------------------------------------------- checking


def read_plain(reader: Reader, field: str) -> str:
    """Text without NUL, at which some would stop reading."""
    start = reader.offset
    value = reader.text(field)
    if "\0" in value:
        raise reader.error(field, "has a NUL in it", start)
    return value


def _said(certificate: Certificate) -> str:
    return f"the certificate {printable(certificate.key_id, 128)!r} (serial {certificate.serial})"


def grant(
    certificate: Certificate,
    kind: CertificateKind,
    names: str | Iterable[str],
    authorities: Collection[PublicKey],
    now: float,
    address: str | None,
    enforced: Collection[str],
    revoked: KRL | None,
) -> CertificateGrant:
    """See :meth:`sshproto.keys.certificates.Certificate.check`."""

    def refused(problem: str, cause: str) -> CertificateRefused:
        return CertificateRefused(f"{_said(certificate)} {problem}", cause)

    if certificate.kind is not kind:
        raise refused(f"is for a {certificate.kind.name.lower()}; one for a {kind.name.lower()} is needed", "kind")
    authority = certificate.authority
    if authority not in authorities:
        raise refused(
            f"is signed by {authority.type} {authority.fingerprint()}, "
            f"which is none of the {len(authorities)} authorities that are trusted for this",
            "authority",
        )
    if revoked is not None and (why := revoked.why(certificate)):
        raise refused(f"is revoked: {why}", "revoked")
    if not certificate.valid_after <= now < certificate.valid_before:
        raise refused(
            f"{'is not valid yet' if now < certificate.valid_after else 'has expired'}: it is valid from "
            f"{show_time(certificate.valid_after)} to {show_time(certificate.valid_before)}, now is {show_time(now)}",
            "time",
        )
    wanted = (names,) if isinstance(names, str) else tuple(names)
    principal = _principal(certificate, wanted)
    if principal is None:
        have = certificate.principals
        raise refused(
            f"is for {_listed(have) or 'nobody: it names no principals'}, not for {_listed(wanted) or 'nobody'}",
            "principal",
        )
    if kind is CertificateKind.HOST:
        if certificate.critical_options:
            raise refused(f"has the critical option {_listed(certificate.critical_options)}; hosts have none", "option")
        return CertificateGrant(certificate, principal, unknown=tuple(certificate.extensions))
    try:
        return CertificateGrant(certificate, principal, **_user_values(certificate, address, enforced))
    except _AddressRefused as error:
        raise refused(str(error), "address") from None
    except (WireError, InvalidArgument) as error:
        raise refused(f"has an option that cannot be obeyed: {error}", "option") from None


def _listed(names: Iterable[str]) -> str:
    shown = [printable(each, 64) for each in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _principal(certificate: Certificate, names: tuple[str, ...]) -> str | None:
    """The principal that covers one of ``names``."""
    for each in filter(None, names):
        for principal in certificate.principals:
            if principal == each:
                return principal
            if certificate.kind is CertificateKind.HOST and match_pattern(each.lower(), principal.lower()):
                return principal
    return None


class _AddressRefused(InvalidArgument):
    """The client comes from elsewhere."""


def _user_values(certificate: Certificate, address: str | None, enforced: Collection[str]) -> dict[str, Any]:
    """The fields of a grant that options and extensions decide on.

    Raises:
        WireError, InvalidArgument: There is an option that is malformed, not known, or not enforced.
    """
    values: dict[str, Any] = {}
    for option, data in certificate.critical_options.items():
        if option not in CRITICAL_OPTIONS:
            raise InvalidArgument(f"{printable(option, 64)} is not known; there are {', '.join(CRITICAL_OPTIONS)}")
        if option == "source-address":
            allowed = _sealed(data, option)
            _check_address(address, allowed)
            values["source_address"] = tuple(allowed.split(","))
            continue
        if option == "force-command":
            values["force_command"] = _sealed(data, option)
        else:
            _check_empty(option, data)
            if not certificate.key.type.startswith("sk-"):
                raise InvalidArgument(f"{option} needs a security key, this is one of type {certificate.key.type}")
            values["verify_required"] = True
        if option not in enforced:
            raise InvalidArgument(f"{option} is not enforced by whoever checks it")
    unknown: list[str] = []
    for extension, data in certificate.extensions.items():
        if extension in EXTENSIONS:
            _check_empty(extension, data)
            field, value = EXTENSIONS[extension]
            values[field] = value
        else:
            unknown.append(extension)
    return {**values, "unknown": tuple(unknown)}


def _sealed(data: bytes, option: str) -> str:
    """The text inside the data of an option: one, not empty, and all of the data."""
    reader = Reader(data, option)
    value = read_plain(reader, "value")
    reader.end()
    if not value:
        raise reader.error("value", "is empty", 0)
    return value


def _check_empty(option: str, data: bytes) -> None:
    if data:
        raise InvalidArgument(f"{option} has {len(data)} bytes of data; it has none")


def _check_address(address: str | None, allowed: str) -> None:
    try:
        good = address_allowed(address or "", allowed)
    except InvalidArgument as error:
        raise InvalidArgument(f"source-address is {error}") from None
    if not good:
        came = "the client's address is not told" if address is None else f"not from {printable(address, 64)}"
        raise _AddressRefused(f"may be used from {printable(allowed, 128)}, {came}")
