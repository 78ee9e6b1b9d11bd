"""What a key may be used for, as it is said when it is added (RFC 9987 section 5.2; OpenSSH's PROTOCOL.agent).

A *destination constraint* is one hop: from the machine with the agent, or from a host that is known by its keys, to a
host that is known by its keys.  A key with such constraints is good for the ways that they allow and for nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from sshproto.errors import InvalidArgument
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Reader, boolean, byte, string, text, uint32

if TYPE_CHECKING:
    from sshproto.keys.known_hosts import KnownHosts

LIFETIME = 1
CONFIRM = 2
EXTENSION = 255

RESTRICT_DESTINATION = "restrict-destination-v00@openssh.com"
ASSOCIATED_CERTIFICATES = "associated-certs-v00@openssh.com"

MAXIMUM_DESTINATIONS = 1024
"""Most destination constraints of a key, as in OpenSSH."""

MAXIMUM_HOST_KEYS = 1024
"""Most keys of one hop."""

MAXIMUM_CERTIFICATES = 1024
"""Most certificates that come with a token's keys, as in OpenSSH."""

_MAXIMUM_NAME = 1024


@frozen
class HostKeySpec:
    """A key by which a host is known.

    Attributes:
        blob: The key.
        authority: It is that of an authority which certifies the host's.
    """

    blob: bytes = attrs.field(repr=False)
    authority: bool = False


@frozen
class Hop:
    """One end of a hop.

    Attributes:
        host: Its name: for people, and what a host certificate has to say. ``""`` is the machine with the agent.
        keys: Its keys; none for the machine with the agent.
        user: Of a destination, who may be logged in there, a pattern with ``*`` and ``?``; ``""`` for anybody.
    """

    host: str = ""
    keys: tuple[HostKeySpec, ...] = ()
    user: str = ""


@frozen
class DestinationConstraint:
    """A hop that a key may be used for.

    Attributes:
        start: Where it begins.
        end: Where it leads.
    """

    start: Hop
    end: Hop

    def __str__(self) -> str:
        """As ``ssh-add -h`` is told it."""
        who = f"{printable(self.end.user)}@" if self.end.user else ""
        start = f"{printable(self.start.host)}>" if self.start.host else ""
        return f"{start}{who}{printable(self.end.host)}"

    def check(self) -> None:
        """See that it makes sense.

        Raises:
            InvalidArgument: It does not, and why.
        """
        if self.start.user:
            raise InvalidArgument(f"destination constraint {self}: who is logged in where it begins does not matter")
        if bool(self.start.host) != bool(self.start.keys):
            what = "has no keys" if self.start.host else "has keys and no name"
            raise InvalidArgument(f"destination constraint {self}: the host where it begins {what}")
        if not self.end.host or not self.end.keys:
            what = "keys" if self.end.host else "name"
            raise InvalidArgument(f"destination constraint {self}: the host where it leads has no {what}")

    def encode(self) -> bytes:
        """As it travels, without its length."""
        return string(_encode_hop(self.start)) + string(_encode_hop(self.end)) + string(b"")

    @classmethod
    def read(cls, reader: Reader) -> DestinationConstraint:
        """Read one, and see that it makes sense.

        Raises:
            WireError: It is malformed, or makes no sense.
        """
        start = _read_hop(Reader(reader.string("from"), "destination constraint.from"))
        end = _read_hop(Reader(reader.string("to"), "destination constraint.to"))
        reader.string("reserved")
        constraint = cls(start, end)
        try:
            constraint.check()
        except InvalidArgument as error:
            raise reader.error("", str(error)) from None
        return constraint


def _encode_hop(hop: Hop) -> bytes:
    keys = b"".join(string(key.blob) + boolean(key.authority) for key in hop.keys)
    return text(hop.user) + text(hop.host) + string(b"") + keys


def _name(reader: Reader, field: str) -> str:
    name = reader.text(field, _MAXIMUM_NAME)
    if "\0" in name:
        raise reader.error(field, "holds a NUL")
    return name


def _read_hop(reader: Reader) -> Hop:
    user, host = _name(reader, "username"), _name(reader, "hostname")
    reader.string("reserved")
    keys: list[HostKeySpec] = []
    while reader.remaining:
        if len(keys) == MAXIMUM_HOST_KEYS:
            raise reader.error("hostkeys", f"more than {MAXIMUM_HOST_KEYS}")
        keys.append(HostKeySpec(reader.string("keyblob"), reader.boolean("is_ca")))
    return Hop(host, tuple(keys), user)


@frozen
class AssociatedCertificates:
    """Certificates for the keys of a token. Only requests to add a token may have such.

    Attributes:
        blobs: The certificates.
        only: The keys are to be used with their certificates alone.
    """

    blobs: tuple[bytes, ...] = attrs.field(repr=False)
    only: bool = False


@frozen
class Constraints:
    """Everything that is said about the use of a key when it is added.

    Attributes:
        lifetime: Seconds after which the agent forgets it; None for none.
        confirm: The agent asks somebody each time.
        destinations: What it may be used for; none for everything.
        certificates: Of a token's keys.
    """

    lifetime: int | None = None
    confirm: bool = False
    destinations: tuple[DestinationConstraint, ...] = ()
    certificates: AssociatedCertificates | None = None

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self != NONE

    def check(self) -> None:
        """See that they can be sent.

        Raises:
            InvalidArgument: They can't, and why.
        """
        if self.lifetime is not None and not 0 < self.lifetime < 2**32:
            raise InvalidArgument(f"a lifetime is from 1 to 2^32 - 1 seconds, not {self.lifetime}")
        if len(self.destinations) > MAXIMUM_DESTINATIONS:
            raise InvalidArgument(f"a key has at most {MAXIMUM_DESTINATIONS} destination constraints")
        for destination in self.destinations:
            destination.check()

    def encode(self) -> bytes:
        """As they travel, at the end of a request.

        Raises:
            InvalidArgument: See :meth:`check`.
        """
        self.check()
        parts: list[bytes] = []
        if self.lifetime is not None:
            parts.append(byte(LIFETIME) + uint32(self.lifetime))
        if self.confirm:
            parts.append(byte(CONFIRM))
        if self.destinations:
            content = b"".join(string(destination.encode()) for destination in self.destinations)
            parts.append(byte(EXTENSION) + text(RESTRICT_DESTINATION) + string(content))
        if self.certificates is not None:
            content = b"".join(map(string, self.certificates.blobs))
            flag = boolean(self.certificates.only)
            parts.append(byte(EXTENSION) + text(ASSOCIATED_CERTIFICATES) + flag + string(content))
        return b"".join(parts)

    @classmethod
    def read(cls, reader: Reader) -> Constraints:
        """Read all that is left of a request.

        Raises:
            WireError: It is malformed, says something twice, or something that is not known: such a key is refused.
        """
        lifetime: int | None = None
        confirm = False
        destinations: tuple[DestinationConstraint, ...] = ()
        certificates: AssociatedCertificates | None = None
        while reader.remaining:
            start = reader.offset
            kind = reader.byte("constraint")
            if kind == LIFETIME and lifetime is None:
                lifetime = reader.uint32("lifetime")
                if not lifetime:
                    raise reader.error("lifetime", "is no time at all", start)
            elif kind == CONFIRM:
                confirm = True
            elif kind == EXTENSION:
                name = reader.text("constraint extension", _MAXIMUM_NAME)
                if name == RESTRICT_DESTINATION and not destinations:
                    destinations = _read_destinations(reader)
                elif name == ASSOCIATED_CERTIFICATES and certificates is None:
                    certificates = _read_certificates(reader)
                else:
                    raise reader.error("constraint", f"{printable(name, 64)!r} is unknown or there twice", start)
            else:
                raise reader.error("constraint", f"of kind {kind}, which is unknown or there twice", start)
        return cls(lifetime, confirm, destinations, certificates)


NONE = Constraints()


def _read_destinations(reader: Reader) -> tuple[DestinationConstraint, ...]:
    inner = Reader(reader.string("destination constraints"), "destination constraints")
    found: list[DestinationConstraint] = []
    while inner.remaining:
        if len(found) == MAXIMUM_DESTINATIONS:
            raise inner.error("", f"more than {MAXIMUM_DESTINATIONS}")
        one = Reader(inner.string("constraint"), "destination constraint")
        found.append(DestinationConstraint.read(one))
        one.end()
    if not found:  # which would restrict nothing
        raise inner.error("", "are announced, and there is none")
    return tuple(found)


def _read_certificates(reader: Reader) -> AssociatedCertificates:
    only = reader.boolean("certs_only")
    inner = Reader(reader.string("certsblob"), "associated certificates")
    blobs: list[bytes] = []
    while inner.remaining:
        if len(blobs) == MAXIMUM_CERTIFICATES:
            raise inner.error("", f"more than {MAXIMUM_CERTIFICATES}")
        blobs.append(inner.string("certificate"))
    return AssociatedCertificates(tuple(blobs), only)


# -------------------------------------------------------------------------------------------------------- what is typed


def destination(spec: str, known: KnownHosts) -> DestinationConstraint:
    """A destination constraint as people write it, ``[user@]host`` or ``host>[user@]host`` (``ssh-add -h``).

    Args:
        spec: The words. A host on a port other than 22 is ``[host]:port``, as in ``known_hosts``.
        known: Where the keys of the hosts stand; lines of authorities count, those that are revoked do not.

    Raises:
        InvalidArgument: It is something else, or no key of a host is known.
    """
    first, arrow, last = spec.partition(">")
    user, at, host = (last if arrow else first).rpartition("@")
    for each in (first, host) if arrow else (host,):
        if not each or any(letter in each for letter in "@>*?!,|# \t\0") or (at and not user):
            raise InvalidArgument(f"{printable(spec)!r} is no destination: [user@]host and host>[user@]host are")
    start = Hop(first, _keys_of(first, known)) if arrow else Hop()
    return DestinationConstraint(start, Hop(host, _keys_of(host, known), user))


def _keys_of(host: str, known: KnownHosts) -> tuple[HostKeySpec, ...]:
    lines = [entry for entry in known.entries if entry.covers(host.lower())]
    revoked = {entry.blob for entry in lines if entry.marker == "@revoked"}
    keys = [
        HostKeySpec(entry.blob, entry.marker == "@cert-authority")
        for entry in lines
        if entry.marker != "@revoked" and entry.blob not in revoked
    ]
    if not keys:
        raise InvalidArgument(f"no key of the host {printable(host)} is known, so it can be no destination")
    return tuple(dict.fromkeys(keys))
