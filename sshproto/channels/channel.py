"""One channel: where its two halves stand, its windows, and the replies that each side owes the other.

A channel decides nothing about the connection and sends nothing; :mod:`sshproto.channels.mux` does.  What may come and
what may be asked for in which state stands in two tables here, :data:`CHANNEL_MESSAGES` and :data:`COMMANDS`; the rest
of the package looks it up.

Invariants:

* ``receive_window + unread + consumed`` is the size of the window, from the first byte to the peer's EOF: every byte
  that the peer may send, has sent, or has been given back for is counted once.
* Neither window is ever negative or above 2^32 - 1.
* Replies leave in the order in which their requests came (RFC 4254 sections 4 and 5.4); answers may come in any order.

RFC 4254 sections 5.1 to 5.4.
"""

from __future__ import annotations

import struct
from enum import Enum, IntEnum

from sshproto.channels.requests import ChannelOpenData, ChannelRequestData, Session, UnknownOpen
from sshproto.errors import ProtocolViolation
from sshproto.values import frozen
from sshproto.wire.messages import (
    ChannelClose,
    ChannelData,
    ChannelEof,
    ChannelExtendedData,
    ChannelFailure,
    ChannelOpenConfirmation,
    ChannelOpenFailure,
    ChannelRequest,
    ChannelSuccess,
    ChannelWindowAdjust,
    Message,
)

MAX_WINDOW = 2**32 - 1
"""The largest window there is (RFC 4254 section 5.2)."""

STDERR = 1
"""SSH_EXTENDED_DATA_STDERR (RFC 4254 section 5.2)."""

ENVELOPE = 64
"""Bytes of a packet that are not a channel's data, at most."""

HEAD = struct.Struct(">BII")
"""Of SSH_MSG_CHANNEL_DATA: message number, channel, length."""
EXTENDED_HEAD = struct.Struct(">BIII")
"""Of SSH_MSG_CHANNEL_EXTENDED_DATA: message number, channel, type, length."""


class ChannelState(IntEnum):
    """How far a channel is. A close by the peer is answered at once, so there is no state for one that is not."""

    FREE = 0
    """No such channel: there never was, or both sides have closed it."""
    OPENING = 1
    """We have asked for it; the peer has not answered."""
    ASKED = 2
    """The peer has asked for it; the application has not answered."""
    OPEN = 3
    EOF_IN = 4
    """The peer has sent EOF; we may still send."""
    CLOSE_OUT = 5
    """We have sent CLOSE; the peer's is still to come."""


FREE, OPENING, ASKED, OPEN, EOF_IN, CLOSE_OUT = ChannelState
"""The states as globals, which are found faster than members."""


class ChannelVerdict(Enum):
    """What is done with a message for a channel."""

    HANDLE = "h"
    IGNORE = "i"
    COUNT = "c"
    """Throw the data away, but hold the peer to its window."""
    DISCONNECT = "D"


@frozen
class ChannelRow:
    """What is done with a ``message`` in each :class:`ChannelState`, one letter a state."""

    message: type[Message]
    letters: str


CHANNEL_MESSAGES: tuple[ChannelRow, ...] = (
    #                                   FREE, OPENING, ASKED, OPEN, EOF_IN, CLOSE_OUT
    ChannelRow(ChannelOpenConfirmation, "DhDDDD"),
    ChannelRow(ChannelOpenFailure, "DhDDDD"),
    ChannelRow(ChannelWindowAdjust, "DDDhhi"),
    ChannelRow(ChannelData, "DDDhDc"),
    ChannelRow(ChannelExtendedData, "DDDhDc"),
    ChannelRow(ChannelEof, "DDDhDi"),
    ChannelRow(ChannelClose, "DDDhhh"),
    ChannelRow(ChannelRequest, "DDDhhi"),
    ChannelRow(ChannelSuccess, "DDDhhi"),
    ChannelRow(ChannelFailure, "DDDhhi"),
)
"""What the peer may send when.

Nothing is tolerated for a channel that is not there: a number is free only after both sides have closed it, so no
message for it can still be on its way."""

CHANNEL_VERDICTS: dict[type[Message], tuple[ChannelVerdict, ...]] = {
    row.message: tuple(map(ChannelVerdict, row.letters)) for row in CHANNEL_MESSAGES
}
"""``CHANNEL_VERDICTS[message][state]``: the table as it is looked up."""


class Command(Enum):
    """What the application may do to a channel. ``credit`` is not among them: it is bounded by what was received."""

    SEND = "send"
    SEND_EOF = "send EOF"
    CLOSE = "close"
    REQUEST = "request"


COMMANDS: dict[Command, str] = {
    #                  FREE, OPENING, ASKED, OPEN, EOF_IN, CLOSE_OUT: y may, n may not, s unless we have sent EOF
    Command.SEND: "nnnssn",
    Command.SEND_EOF: "nnnssn",
    Command.CLOSE: "nynyyn",  # OPENING: it is closed as soon as the peer has confirmed it
    Command.REQUEST: "nnnyyn",
}
"""What the application may do when."""


# For the hot path.
_RECEIVING = tuple(CHANNEL_VERDICTS[ChannelData][state] is ChannelVerdict.HANDLE for state in ChannelState)
_SENDING = tuple(letter != "n" for letter in COMMANDS[Command.SEND])


def handling(message: type[Message]) -> frozenset[ChannelState]:
    """The states in which a ``message`` is handled."""
    verdicts = CHANNEL_VERDICTS[message]
    return frozenset(state for state in ChannelState if verdicts[state] is ChannelVerdict.HANDLE)


def allowing(command: Command) -> frozenset[ChannelState]:
    """The states in which the application may do ``command``, unless the EOF that we have sent forbids it."""
    letters = COMMANDS[command]
    return frozenset(state for state in ChannelState if letters[state] != "n")


class Reply:
    """One reply that we owe, or have decided on but cannot send yet because an earlier one is undecided."""

    __slots__ = ("data", "granted", "question")

    def __init__(self, question: int | None, granted: bool | None) -> None:
        self.question = question
        self.granted = granted
        self.data = b""


Replies = tuple[Reply, ...]
"""Replies that we owe the peer, in the order of its requests. They are few, and most channels owe none at all: a tuple,
since the empty one takes no memory."""


def decide(replies: Replies, question: int, granted: bool, data: bytes = b"") -> bool:
    """Decide on the reply to ``question``. False if no undecided one belongs to it."""
    for reply in replies:
        if reply.question == question and reply.granted is None:
            reply.granted = granted
            reply.data = data
            return True
    return False


class Channel:
    """One channel.

    The windows are 0 until they are offered, and what else belongs to them is not set before.

    Attributes:
        number: Our number of it, which is also the application's.
        peer_number: The peer's number of it, once known.
        kind: What it is for.
        ours: True if we opened it.
        state: Where it stands; changed by :meth:`move`, and where we close it.
        eof_sent: We have sent EOF.
        sending: The application may send data (from the tables, for the hot path).
        receiving: The peer may send data (the same).
        offered: The window that the peer has, in bytes.
        elastic: It may grow; see :mod:`sshproto.channels.windows`.
        counted: Bytes of it that were given back since it was used up last.
        counted_from: When that was.
        asked_at: When we sent what the peer answers with the next thing on the channel, or with the next reply.
        receive_window: What the peer may still send, in bytes.
        receive_packet: What it may send in one packet.
        unread: Bytes handed to the application and not yet credited.
        consumed: Bytes credited, but not yet given back to the peer.
        give_back_at: ``consumed`` at which they are.
        send_window: What we may still send.
        send_packet: What we may send in one packet.
        full_head: The head of a DATA packet of that size, once one was sent.
        waiting: A ``send`` did not take everything and no ChannelWritable has said that there is room again.
        abandoned: The application has closed it while it was OPENING.
        started: A shell, command or subsystem was asked for, and not refused: there is one at most.
        owed: Replies that we owe.
        requested: Requests of ours that want replies, oldest first.
        environment: ``env`` requests that came.
        empties: Adjusts by nothing and data of no bytes that came.
    """

    __slots__ = (
        "abandoned",
        "asked_at",
        "consumed",
        "counted",
        "counted_from",
        "elastic",
        "empties",
        "environment",
        "eof_sent",
        "full_head",
        "give_back_at",
        "kind",
        "number",
        "offered",
        "ours",
        "owed",
        "peer_number",
        "receive_packet",
        "receive_window",
        "receiving",
        "requested",
        "send_packet",
        "send_window",
        "sending",
        "started",
        "state",
        "unread",
        "waiting",
    )

    # Set by Registry.named:
    peer_number: int
    send_packet: int
    # Set by Windows.offer:
    elastic: bool
    counted_from: float
    asked_at: float
    receive_packet: int
    give_back_at: int

    def __init__(self, number: int, kind: ChannelOpenData, ours: bool) -> None:
        self.number = number
        self.kind = kind
        self.ours = ours
        self.state = OPENING if ours else ASKED
        self.sending = self.receiving = False  # in either
        self.eof_sent = False
        self.offered = 0
        self.counted = 0
        self.receive_window = 0
        self.unread = 0
        self.consumed = 0
        self.send_window = 0
        self.full_head = b""
        self.waiting = False
        self.abandoned = False
        self.started = False
        self.owed: Replies = ()
        self.requested: tuple[tuple[int, ChannelRequestData], ...] = ()  # see Replies
        self.environment = 0
        self.empties = 0

    def move(self, state: ChannelState) -> None:
        """Go to ``state``."""
        self.state = state
        self.receiving = _RECEIVING[state]
        self.sending = _SENDING[state] and not self.eof_sent

    @property
    def session_like(self) -> bool:
        """Whether the requests of sessions make sense on it."""
        return isinstance(self.kind, (Session, UnknownOpen))

    def head(self) -> bytes:
        """The head of a DATA packet of full size; to be kept, for whoever sends one sends more."""
        self.full_head = HEAD.pack(ChannelData.number, self.peer_number, self.send_packet)
        return self.full_head

    def take(self, length: int) -> None:
        """Count ``length`` bytes of data that came.

        Raises:
            ProtocolViolation: More than the window, or than one packet may hold (RFC 4254 section 5.2).
        """
        if length > self.receive_window:
            raise ProtocolViolation(
                f"{length} bytes of data for channel {self.number}, whose window has {self.receive_window} left",
            )
        if length > self.receive_packet:
            raise ProtocolViolation(
                f"{length} bytes of data in one packet for channel {self.number}, which takes {self.receive_packet}",
            )
        self.receive_window -= length

    def widen(self, count: int) -> None:
        """The peer lets us send ``count`` bytes more.

        Raises:
            ProtocolViolation: That would be more than a window can be (RFC 4254 section 5.2).
        """
        window = self.send_window + count
        if window > MAX_WINDOW:
            raise ProtocolViolation(
                f"CHANNEL_WINDOW_ADJUST by {count} for channel {self.number} would make its window {window} bytes, "
                f"at most {MAX_WINDOW} are possible",
            )
        self.send_window = window
