"""The channels that there are, how many of each sort, and what is done to one from more than one side.

The registry is what :mod:`sshproto.channels.mux` (the application's side) and :mod:`sshproto.channels.inbound` (the
peer's side) have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from sshproto.channels import payloads
from sshproto.channels.channel import (
    ASKED,
    CHANNEL_VERDICTS,
    CLOSE_OUT,
    ENVELOPE,
    FREE,
    OPENING,
    Channel,
    ChannelVerdict,
)
from sshproto.channels.forwarding import Invitations
from sshproto.channels.requests import ChannelOpenData, ChannelRequestData, Session, UnknownOpen
from sshproto.channels.windows import Windows
from sshproto.config import Config
from sshproto.errors import LimitExceeded, LimitReached, ProtocolViolation, UnknownChannel
from sshproto.wire.messages import SAFE_PAYLOAD, Message
from sshproto.wire.table import Role, message_name

if TYPE_CHECKING:
    from sshproto.outlet import Outlet


def _for_role(union: Any) -> dict[Role, frozenset[type]]:
    return {role: frozenset(cls for cls in get_args(union) if role in cls.receivers) for role in Role}


OPENED_AT: dict[Role, frozenset[type]] = _for_role(ChannelOpenData)
"""The channel kinds that may be opened at each role."""
REQUESTED_OF: dict[Role, frozenset[type]] = _for_role(ChannelRequestData)
"""The channel requests that make sense to each role."""


def within(value: object, lowest: int, highest: int) -> bool:
    """Whether ``value`` is an integer from ``lowest`` to ``highest``: annotations do not hold a caller to anything."""
    return isinstance(value, int) and lowest <= value <= highest


class Registry:
    """The channels of one connection.

    Attributes:
        role, config, outlet: The connection's.
        channels: By number, oldest first.
        peer_numbers: The peer's numbers of those whose number is known.
        next_channel: The next number.
        by_us: Channels that we opened.
        asked: Channels that the peer has asked for and the application has not decided on.
        sessions: Sessions that the peer opened.
        blocked: Channels whose ``send`` waits for the outlet to have room.
        late: Channels with small messages that the outlet would not take.
        windows: What the peer may send on all of them.
        invitations: What the peer may open because we asked for it.
    """

    __slots__ = (
        "_sizes",
        "asked",
        "blocked",
        "by_us",
        "channels",
        "config",
        "invitations",
        "late",
        "next_channel",
        "outlet",
        "peer_numbers",
        "role",
        "sessions",
        "windows",
    )

    def __init__(self, role: Role, config: Config, outlet: Outlet) -> None:
        self.role = role
        self.config = config
        self.outlet = outlet
        self.channels: dict[int, Channel] = {}
        self.peer_numbers: dict[int, None] = {}  # a set that takes less memory while it is empty
        self.next_channel = 0
        self.by_us = 0
        self.asked = 0
        self.sessions = 0
        self.windows = Windows(config.limits)
        self.blocked: dict[int, Channel] | None = None
        self.late: dict[int, Channel] | None = None
        self.invitations = Invitations()
        self._sizes = (0, 0)  # the window and the packet that the peer has named last

    def add(self, kind: ChannelOpenData, *, ours: bool) -> Channel:
        """A new channel: OPENING if it is ours, else ASKED."""
        number = self.next_channel
        self.next_channel = number + 1
        channel = self.channels[number] = Channel(number, kind, ours)
        if ours:
            self.by_us += 1
        else:
            self.asked += 1
            if isinstance(kind, Session):
                self.sessions += 1
        return channel

    def named(self, channel: Channel, peer_number: int, window: int, packet: int) -> None:
        """The peer has told its number of the channel, and what we may send."""
        sizes = window, packet
        if sizes != self._sizes:
            self._sizes = sizes
        window, packet = self._sizes  # mostly alike, and then the same numbers do for all channels
        channel.peer_number = peer_number
        channel.send_window = window
        # Some promise packets of 2^31 bytes and more, and cannot mean it: then what the standard requires is safe.
        channel.send_packet = packet if packet <= self.config.limits.packet - ENVELOPE else SAFE_PAYLOAD
        self.peer_numbers[peer_number] = None

    def decided(self, channel: Channel) -> None:
        """The peer's channel was asked about, and is accepted, refused or lost now."""
        self.asked -= 1
        if isinstance(channel.kind, UnknownOpen):  # its particulars, which may be a packet long, were for who decided
            channel.kind = UnknownOpen(channel.kind.type)

    def has_room(self, payload: bytes) -> bool:
        """Whether a question with ``payload`` in it may be asked: those that are open hold on to theirs."""
        return self.outlet.questions.size + len(payload) <= self.config.limits.undecided_bytes

    def admit(self, message: type[Message], recipient: int) -> Channel | None:
        """The channel that a ``message`` is for, or None if it is to be ignored."""
        channel = self.channels.get(recipient)
        verdict = CHANNEL_VERDICTS[message][FREE if channel is None else channel.state]
        if verdict is ChannelVerdict.HANDLE:
            return channel
        if verdict is ChannelVerdict.DISCONNECT:
            raise self.violation(message, recipient)
        return None

    def violation(self, message: type[Message], recipient: int) -> ProtocolViolation:
        """A ``message`` is not allowed for that channel."""
        channel = self.channels.get(recipient)
        if channel is not None:
            where = f"which is {channel.state.name}"
        else:
            where = "which is closed" if recipient < self.next_channel else "which never was"
        return ProtocolViolation(f"{message_name(message.number)} for channel {recipient}, {where}")

    def unreceivable(self, message: type[Message], recipient: int, length: int) -> None:
        """Data that nobody will read: a violation, or late for a channel that we have closed."""
        channel = self.channels.get(recipient)
        if channel is None or CHANNEL_VERDICTS[message][channel.state] is not ChannelVerdict.COUNT:
            raise self.violation(message, recipient)
        channel.take(length)

    def unusual(self, channel: Channel, length: int) -> None:
        """CHANNEL_DATA of no bytes, or of too many."""
        if not length:
            self.empty(channel)
        channel.take(length)

    def empty(self, channel: Channel) -> None:
        """A message that moves no data where it could have: legal, but not without end."""
        channel.empties += 1
        if channel.empties > self.config.limits.empty_adjusts:
            raise LimitExceeded(
                f"{channel.empties} messages about no bytes on channel {channel.number} (Limits.empty_adjusts)",
                "empty_adjusts",
            )

    def unknown(self, number: int) -> UnknownChannel:
        """The application speaks of a channel that is not there."""
        known = within(number, 0, self.next_channel - 1)
        return UnknownChannel(f"channel {number} is closed" if known else f"there never was a channel {number!r}")

    def flush(self, channel: Channel) -> bool:
        """Send the replies whose turn it is. False if some must wait because the outlet takes no more."""
        while channel.owed and (reply := channel.owed[0]).granted is not None:
            try:
                self.outlet.send_payload((payloads.success if reply.granted else payloads.failure)(channel.peer_number))
            except LimitReached:
                self.postpone(channel)
                return False
            channel.owed = channel.owed[1:]
        return True

    def postpone(self, channel: Channel) -> None:
        """The outlet would not take a small message of the channel's."""
        if self.late is None:
            self.late = {}
        self.late[channel.number] = channel

    def block(self, channel: Channel) -> None:
        """A ``send`` on the channel waits for the outlet to have room."""
        if self.blocked is None:
            self.blocked = {}
        self.blocked[channel.number] = channel

    def give_back(self, channel: Channel) -> None:
        """Give the peer room for what was consumed, and maybe more."""
        now = self.outlet.timers.now
        if not channel.ours:
            self.windows.answered(channel, now)
        change = self.windows.change(channel, now)
        try:
            self.outlet.send_payload(payloads.adjust(channel.peer_number, channel.consumed + change))
        except LimitReached:
            self.postpone(channel)
            return
        self.windows.given_back(channel, change, now)

    def tell(self, payload: bytes) -> None:
        """Send what the peer's message makes necessary.

        Raises:
            LimitExceeded: The outlet takes no more: the peer makes us answer too much.
        """
        try:
            self.outlet.send_payload(payload)
        except LimitReached as error:
            raise LimitExceeded(f"too many answers wait to be sent: {error}", "deferred_packets") from None

    def closing(self, channel: Channel) -> None:
        """We have sent CLOSE: no reply can follow, and none is waited for."""
        owed, channel.owed = channel.owed, ()
        for reply in owed:
            if reply.question is not None and reply.granted is None:
                self.outlet.questions.withdraw(reply.question)
        channel.requested = ()
        channel.waiting = False
        if self.blocked:
            self.blocked.pop(channel.number, None)
        if self.late:
            self.late.pop(channel.number, None)
        channel.state = CLOSE_OUT
        channel.sending = channel.receiving = False

    def forget(self, channel: Channel) -> None:
        """The channel is gone, and nobody looks at it any more."""
        number, state = channel.number, channel.state
        del self.channels[number]
        self.windows.promised -= channel.offered
        if state is not OPENING:
            self.peer_numbers.pop(channel.peer_number, None)
        if state is ASKED:
            self.decided(channel)
        if channel.ours:
            self.by_us -= 1
        elif isinstance(channel.kind, Session):
            self.sessions -= 1
        invitations = self.invitations
        if invitations.x11 or invitations.agents:
            invitations.closed(number)

    def clear(self) -> None:
        """The connection has ended."""
        for channel in self.channels.values():
            channel.move(FREE)
        self.channels.clear()
        self.peer_numbers.clear()
        self.blocked = self.late = None
        self.by_us = self.asked = self.sessions = self.windows.promised = 0
