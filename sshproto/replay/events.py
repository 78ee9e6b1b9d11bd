"""What an observer tells that no side of a live connection would be told."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

from sshproto.events import Event
from sshproto.keys.public import fingerprint_of
from sshproto.values import frozen
from sshproto.wire.table import Role

if TYPE_CHECKING:
    from sshproto.keys.public import PublicKey
    from sshproto.replay.ssh1 import Ssh1Message
    from sshproto.transport.negotiation import Negotiated
    from sshproto.wire.messages import KexInit, Message


class Side(Enum):
    """Who sent something. Which of the two is the client shows only in the key exchange."""

    DIALLER = "dialler"
    DIALLED = "dialled"

    __hash__ = object.__hash__  # in C: tables are looked up by side for each packet

    @property
    def other(self) -> Side:
        return Side.DIALLED if self is Side.DIALLER else Side.DIALLER


class Integrity(Enum):
    """What is known about a packet's integrity."""

    NONE = "none"
    """It has no MAC: keys were not in use yet."""
    VERIFIED = "verified"
    UNCHECKED = "unchecked"
    """It has a MAC that is not known here."""


@frozen(kw_only=True)
class Observed:
    """Something that was seen.

    Attributes:
        side: Who sent what it was seen in.
        time: When, in seconds, as it was told with the bytes; None if it was not.
        frames: The numbers of the frames that brought it.
        event: What: one of :mod:`sshproto.replay.events`, or what a live connection at the receiver would tell.
    """

    side: Side
    time: float | None
    frames: tuple[int, ...]
    event: Event


@frozen(kw_only=True)
class PacketOpened(Event):
    """A packet whose payload is known.

    Attributes:
        sequence_number: Its number (RFC 4253 section 6.4).
        epoch: How many NEWKEYS its sender has sent before.
        number: The message number.
        context: What gives the numbers 30 to 49 and 60 to 79 their meaning: a family of key-exchange methods, or an
            authentication method; ``""`` if that is not known, and for all other numbers.
        message: The message; None if its number means nothing here, or it does not decode.
        payload: Decrypted and inflated.
        offset: Where in its sender's stream it begins, in bytes.
        size: Bytes on the wire.
        integrity: Whether its MAC was verified.
        guessed: It was sent along with a KEXINIT on a guess that turned out wrong, so that its receiver ignores it
            (RFC 4253 section 7.1).
    """

    sequence_number: int
    epoch: int
    number: int
    context: str = ""
    message: Message | None
    payload: bytes = attrs.field(repr=False)
    offset: int
    size: int
    integrity: Integrity
    guessed: bool = False


@frozen(kw_only=True)
class PacketSealed(Event):
    """Encrypted bytes that no key is known for.

    Attributes:
        offset: Where in their sender's stream they begin, in bytes.
        size: How many.
        exact: They are one packet, since the framing shows its length; otherwise they are what came at once.
    """

    offset: int
    size: int
    exact: bool


@frozen(kw_only=True)
class KeysMissing(Event):
    """From here on a side can't be read.

    Key exchanges in what follows would not show, so even later keys are of no use unless these are found.

    Attributes:
        epoch: How many NEWKEYS it has sent, this one included.
        exact: The framing shows packets: each :class:`PacketSealed` is one, unless it says otherwise.
        problem: Why no key is known.
    """

    epoch: int
    exact: bool
    problem: str


@frozen(kw_only=True)
class Reopened(Event):
    """A key has come late: all that was told of a side since its last :class:`KeysMissing` is told again, opened.

    Attributes:
        epoch: That of :class:`KeysMissing`.
    """

    epoch: int


@frozen(kw_only=True)
class SecretFound(Event):
    """What opens a key exchange is known.

    Attributes:
        epoch: How many key exchanges there were before.
        source: What it was found by: ``"shared secret"``, ``"private value"`` or ``"derived keys"``.
        session_id: The exchange hash of the first key exchange; None if only derived keys are known.
        verified: The server has signed the exchange hash that the secret leads to. Otherwise nobody can tell but the
            packets: these have opened.
    """

    epoch: int
    source: str
    session_id: bytes | None
    verified: bool


@frozen(kw_only=True)
class OfferSeen(Event):
    """A KEXINIT (RFC 4253 section 7.1).

    Attributes:
        kexinit: The lists.
        epoch: How many key exchanges its sender has begun before.
    """

    kexinit: KexInit
    epoch: int


@frozen(kw_only=True)
class KexSeen(Event):
    """The public part of a key exchange is complete.

    Attributes:
        negotiated: What the two KEXINITs add up to.
        host_key: The server's key, or the one that its certificate is for; None if it is of a type that is not known
            here.
        host_key_blob: The same as it was sent: a key or a certificate.
        epoch: How many key exchanges there were before.
        opened: Whether its secret is known.
    """

    negotiated: Negotiated
    host_key: PublicKey | None
    host_key_blob: bytes = attrs.field(repr=False)
    epoch: int
    opened: bool

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the server's key; ``""`` if none was seen."""
        if self.host_key is not None:
            return self.host_key.fingerprint()
        return fingerprint_of(self.host_key_blob) if self.host_key_blob else ""


@frozen(kw_only=True)
class RolesSeen(Event):
    """It is known who is the client.

    Attributes:
        client: Who.
        sure: The key exchange shows it; otherwise it is taken from who dialled.
    """

    client: Side
    sure: bool


@frozen(kw_only=True)
class Missing(Event):
    """Bytes that are not in the recording.

    Attributes:
        size: How many; None if nobody knows.
        problem: What is missing, and what that means.
    """

    size: int | None
    problem: str


@frozen(kw_only=True)
class Ended(Event):
    """The transport of a side has ended: it sends no more, and nothing before that is missing."""


@frozen(kw_only=True)
class Ssh1Packet(Event):
    """A packet of version 1 of the protocol that was sent in clear.

    Attributes:
        number: Its type.
        message: What it says; None if it is of a type that is only named here, or does not decode.
        name: Its type's name, without ``SSH_``.
        payload: Its data, without type and checksum.
        offset: Where in its sender's stream it begins, in bytes.
        size: Bytes on the wire.
    """

    number: int
    name: str
    message: Ssh1Message | None
    payload: bytes = attrs.field(repr=False)
    offset: int
    size: int


@frozen(kw_only=True)
class Problem(Event):
    """Something that can't be, or that can't be followed.

    Attributes:
        problem: What.
        fatal: Nothing more is read of this side.
    """

    problem: str
    fatal: bool


def role_of(side: Side, client: Side | None) -> Role | None:
    """The role of a side, if it is known who is the client."""
    if client is None:
        return None
    return Role.CLIENT if side is client else Role.SERVER
