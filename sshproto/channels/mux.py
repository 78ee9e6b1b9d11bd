"""All channels of a connection, for either role: RFC 4254 from section 4 on.

The multiplexer takes the connection protocol's messages from the peer and the channel commands from the application,
and reaches the outside only through its :class:`~sshproto.outlet.Outlet`.

Invariants:

* A command that raises has changed nothing.  So whatever may raise, the outlet's ``send`` included, comes first.
* The cost of an input or command does not depend on the number of channels.
* A number is never used twice in a connection; a channel that both sides have closed is forgotten altogether.
* Data never waits here: ``send`` takes what can leave at once and says how much that was.  The few small messages that
  the outlet would not take (replies, window adjusts) are tried again by :meth:`Mux.writable`.

CHANNEL_DATA and the peer's CHANNEL_WINDOW_ADJUST are most of all traffic: :meth:`Mux.data`, :meth:`Mux.adjust`,
:meth:`Mux.send`.  Our own window adjusts are few, one for half a window or less; see :mod:`sshproto.channels.windows`.
Like these, most other messages do without values, see :mod:`sshproto.channels.payloads`.

What the commands mean to an application is told in :class:`~sshproto.connection.Connection`, which has them under the
same names.

Where the standard leaves a choice: data past the window, or in packets larger than we offered, ends the connection, as
does every message that :data:`~sshproto.channels.channel.CHANNEL_MESSAGES` does not allow; opens that we do not want
are refused, requests that make no sense fail (``CHANNEL_FAILURE``) or, if no reply is wanted, are ignored.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sshproto.channels import payloads
from sshproto.channels.channel import (
    ASKED,
    CLOSE_OUT,
    EXTENDED_HEAD,
    HEAD,
    OPEN,
    OPENING,
    STDERR,
    Channel,
    Command,
    allowing,
    decide,
    handling,
)
from sshproto.channels.global_requests import GlobalRequests
from sshproto.channels.inbound import Inbound
from sshproto.channels.registry import OPENED_AT, REQUESTED_OF, Registry, within
from sshproto.channels.requests import (
    ChannelOpenData,
    ChannelRequestData,
    GlobalRequestData,
    Session,
)
from sshproto.config import Config
from sshproto.errors import (
    AlreadyAnswered,
    ChannelStateError,
    InvalidArgument,
    LimitReached,
    UsageError,
    WireError,
)
from sshproto.events import (
    ChannelOpenRequested,
    ChannelRequested,
    ChannelWritable,
    DataReceived,
    GlobalRequested,
)
from sshproto.wire.codec import Buffer
from sshproto.wire.messages import (
    ChannelData,
    ChannelExtendedData,
    ChannelOpenFailure,
    ChannelWindowAdjust,
)
from sshproto.wire.table import Role

if TYPE_CHECKING:
    from sshproto.outlet import Outlet

_TWO_NUMBERS = struct.Struct(">II")
_DATA = ChannelData.number
_EXTENDED_DATA = ChannelExtendedData.number

_ADJUSTABLE = handling(ChannelWindowAdjust)
_CLOSABLE = allowing(Command.CLOSE)
_REQUESTABLE = allowing(Command.REQUEST)


class Mux:
    """The channels and global requests of one connection.

    Commands raise a :class:`~sshproto.errors.UsageError` and then have changed nothing.  Inputs raise a
    :class:`~sshproto.errors.ConnectionLoss` or :class:`~sshproto.errors.WireError` for what the peer did wrong.

    Attributes:
        inbound: What takes the peer's messages other than data and window adjusts.
    """

    __slots__ = (
        "_channels",
        "_config",
        "_global",
        "_globals_late",
        "_next_request",
        "_openable",
        "_outlet",
        "_registry",
        "_requestable",
        "_role",
        "inbound",
    )

    def __init__(self, role: Role, config: Config, outlet: Outlet) -> None:
        self._role = role
        self._config = config
        self._outlet = outlet
        self._registry = Registry(role, config, outlet)
        self._channels = self._registry.channels
        self._global = GlobalRequests(role, config, outlet, self._registry.invitations)
        self.inbound = Inbound(self._registry, self._global)
        self._openable = OPENED_AT[role.peer]
        self._requestable = REQUESTED_OF[role.peer]
        self._next_request = 1
        self._globals_late = False

    # ---------------------------------------------------------------------------------------------------------- getters

    @property
    def channels(self) -> tuple[int, ...]:
        """The numbers of the channels that exist in whatever state, oldest first."""
        return tuple(self._channels)

    @property
    def awaits_reply(self) -> bool:
        """Whether the peer owes the reply to a global request."""
        return self._global.awaits_reply

    def sendable(self, channel: int) -> int:
        """How many bytes ``send`` would take now. See ``Connection.sendable``."""
        found = self._channels.get(channel)
        if found is None:
            raise self._registry.unknown(channel)
        return min(found.send_window, self._outlet.room()) if found.sending else 0

    # --------------------------------------------------------------------------------------------- commands: life cycle

    def open_channel(self, kind: ChannelOpenData, *, window: int | None = None, max_packet: int | None = None) -> int:
        """Ask the peer for a channel. See ``Connection.open_channel``."""
        if type(kind) not in self._openable:
            if not isinstance(kind, ChannelOpenData):
                raise InvalidArgument(f"{kind!r} is not a kind of channel")
            if self._role.peer not in kind.receivers:
                raise InvalidArgument(f"a {self._role.value} does not open {kind.type!r} channels")
        registry = self._registry
        size, packet = registry.windows.sizes(window, max_packet)
        if registry.by_us >= self._config.limits.channels_from_us:
            raise LimitReached(f"we have opened {registry.by_us} channels (Limits.channels_from_us)")
        number = registry.next_channel
        self._outlet.send_payload(payloads.opening(kind, number, size, packet))
        channel = registry.add(kind, ours=True)
        registry.windows.offer(channel, size, packet, self._outlet.timers.now, elastic=window is None)
        return number

    def accept_channel(
        self, question: ChannelOpenRequested, window: int | None = None, max_packet: int | None = None
    ) -> None:
        """Let the peer have its channel. See ``Connection.accept_channel``.

        Raises:
            AlreadyAnswered: The channel is decided on.
        """
        registry = self._registry
        size, packet = registry.windows.sizes(window, max_packet)
        channel = self._undecided(question)
        self._outlet.send_payload(payloads.confirmation(channel.peer_number, channel.number, size, packet))
        registry.decided(channel)
        registry.windows.offer(channel, size, packet, self._outlet.timers.now, elastic=window is None)
        channel.move(OPEN)

    def reject_channel(self, question: ChannelOpenRequested, reason: int, description: str) -> None:
        """Do not let the peer have its channel. See ``Connection.reject_channel``.

        Raises:
            AlreadyAnswered: The channel is decided on.
        """
        channel = self._undecided(question)
        self._outlet.send(ChannelOpenFailure(channel.peer_number, reason, description))
        self._registry.forget(channel)

    def close_channel(self, channel: int) -> None:
        """Close a channel at once: what still comes on it is thrown away. See ``Connection.close_channel``.

        A channel that the peer has not confirmed yet is closed as soon as it is, without ``ChannelOpened``.
        """
        found = self._channels.get(channel)
        if found is None or found.state not in _CLOSABLE or found.abandoned:
            raise self._refusal(channel, Command.CLOSE)
        if found.state is OPENING:
            found.abandoned = True
            return
        self._outlet.send_payload(payloads.close(found.peer_number))
        self._registry.closing(found)

    def send_eof(self, channel: int) -> None:
        """Say that no more data will be sent. See ``Connection.send_eof``."""
        found = self._channels.get(channel)
        if found is None or not found.sending:
            raise self._refusal(channel, Command.SEND_EOF)
        self._outlet.send_payload(payloads.eof(found.peer_number))
        found.eof_sent = True
        found.sending = False
        found.waiting = False
        if self._registry.blocked:
            self._registry.blocked.pop(channel, None)

    # --------------------------------------------------------------------------------------------------- commands: data

    def send(self, channel: int, data: Buffer, stream: int = 0) -> int:
        """Send data, as much of it as can leave now. See ``Connection.send``."""
        found = self._channels.get(channel)
        if found is None or not found.sending:
            raise self._refusal(channel, Command.SEND)
        if stream != 0:
            self._check_stream(found, stream)
        if type(data) is not bytes:
            data = _octets(data)
        size = len(data)
        outlet = self._outlet
        window = found.send_window
        packet = found.send_packet
        if size <= packet and size <= window and size <= outlet.room():
            if not size:
                return 0
            if stream:
                head = EXTENDED_HEAD.pack(_EXTENDED_DATA, found.peer_number, stream, size)
            else:
                head = (
                    (found.full_head or found.head()) if size == packet else HEAD.pack(_DATA, found.peer_number, size)
                )
            outlet.send_data(head, data)
            found.send_window = window - size
            return size
        view = memoryview(data)
        taken = 0
        while taken < size:
            # Asked for each packet: the one before may have made a key exchange due.
            count = min(size - taken, packet, window, outlet.room())
            if count <= 0:
                found.waiting = True
                if window:  # else it is the peer's adjust that it waits for
                    self._registry.block(found)
                break
            if stream:
                head = EXTENDED_HEAD.pack(_EXTENDED_DATA, found.peer_number, stream, count)
            else:
                head = (
                    (found.full_head or found.head()) if count == packet else HEAD.pack(_DATA, found.peer_number, count)
                )
            outlet.send_data(head, view[taken : taken + count])
            taken += count
            window -= count
            found.send_window = window
        return taken

    def credit(self, channel: int, count: int) -> None:
        """Give the peer room for ``count`` bytes that were used or thrown away. See ``Connection.credit``.

        It is possible in every state, being bounded by what was received; only an adjust that nobody needs any more
        (after the peer's EOF, or our CLOSE) is not sent.
        """
        found = self._channels.get(channel)
        if found is None:
            if not within(channel, 0, self._registry.next_channel - 1):
                raise self._registry.unknown(channel)
            return
        if not within(count, 0, found.unread):
            raise InvalidArgument(
                f"channel {channel} cannot be credited {count!r} bytes: {found.unread} are received and not credited",
            )
        found.unread -= count
        found.consumed += count
        if found.receiving and found.consumed >= found.give_back_at:
            self._registry.give_back(found)

    # ----------------------------------------------------------------------------------------------- commands: requests

    def request(self, channel: int, request: ChannelRequestData, *, want_reply: bool = True) -> int:
        """Ask or tell something about a channel. See ``Connection.request``.

        The number that it returns is unique among the connection's channel requests.
        """
        found = self._channels.get(channel)
        if found is None or found.state not in _REQUESTABLE:
            raise self._refusal(channel, Command.REQUEST)
        if type(request) not in self._requestable:
            if not isinstance(request, ChannelRequestData):
                raise InvalidArgument(f"{request!r} is not a channel request")
            if self._role.peer not in request.receivers:
                raise InvalidArgument(f"a {self._role.value} does not send {request.type!r}")
        if request.session_only and type(found.kind) is not Session and not found.session_like:
            raise InvalidArgument(f"{request.type!r} belongs to sessions, channel {channel} is {found.kind.type!r}")
        want_reply = not request.notice and bool(want_reply)
        if want_reply and len(found.requested) >= self._config.limits.requests_pending:
            count = len(found.requested)
            raise LimitReached(f"{count} requests on channel {channel} wait for a reply (Limits.requests_pending)")
        self._outlet.send_payload(payloads.request(found.peer_number, request, want_reply=want_reply))
        number = self._next_request
        self._next_request = number + 1
        if request.invites:
            self._registry.invitations.asked_on(channel, request)
        if want_reply:
            if found.ours and not found.requested:  # a reply to one before would come too soon
                found.asked_at = self._outlet.timers.now
            found.requested += ((number, request),)
        return number

    def global_request(self, request: GlobalRequestData, *, want_reply: bool = True) -> int:
        """Ask or tell something about the connection as a whole. See ``Connection.global_request``.

        The number that it returns is unique among the connection's global requests, and the tag of its message.
        """
        return self._global.request(request, want_reply=bool(want_reply))

    def succeed(self, question: ChannelRequested | GlobalRequested, data: bytes = b"") -> None:
        """Grant a request. See ``Connection.succeed``. Nothing happens if no reply is owed (any more).

        Raises:
            InvalidArgument: ``data`` is not what the reply to this request carries.
        """
        if isinstance(question, GlobalRequested):
            self._global.check_reply(question.request, data)
            self._globals_late |= self._global.answer(question, True, data)
        elif data:
            raise InvalidArgument("the reply to a channel request carries no data (RFC 4254 section 5.4)")
        else:
            self._answer(question, True)

    def fail(self, question: ChannelRequested | GlobalRequested) -> None:
        """Refuse a request. See ``Connection.fail``. Nothing happens if no reply is owed (any more)."""
        if isinstance(question, GlobalRequested):
            self._globals_late |= self._global.answer(question, False)
        else:
            self._answer(question, False)

    # -------------------------------------------------------------------------------------------------- input: hot path

    def data(self, payload: Buffer) -> DataReceived | None:
        """CHANNEL_DATA came.

        Args:
            payload: The whole payload, message number included. It is copied.

        Returns:
            The event, or None if there is nothing to tell.
        """
        size = len(payload)
        if size < 9:
            raise WireError("ChannelData", "", 0, f"is {size} bytes long, at least 9 are needed")
        number, length = _TWO_NUMBERS.unpack_from(payload, 1)
        if length != size - 9:
            raise WireError("ChannelData", "data", 5, f"declares a string of {length} bytes, {size - 9} are left")
        channel = self._channels.get(number)
        if channel is None or not channel.receiving:
            self._registry.unreceivable(ChannelData, number, length)
            return None
        if not 0 < length <= channel.receive_window or length > channel.receive_packet:
            self._registry.unusual(channel, length)
            return None
        channel.receive_window -= length
        channel.unread += length
        return DataReceived(number, bytes(payload[9:]), 0)

    def adjust(self, payload: Buffer) -> None:
        """CHANNEL_WINDOW_ADJUST came; ``payload`` is all of it, message number included."""
        if len(payload) != 9:
            raise WireError("ChannelWindowAdjust", "", 0, f"is {len(payload)} bytes long, expected 9")
        number, count = _TWO_NUMBERS.unpack_from(payload, 1)
        channel = self._channels.get(number)
        if channel is None or channel.state not in _ADJUSTABLE:
            self._registry.admit(ChannelWindowAdjust, number)
            return
        if not count:
            self._registry.empty(channel)
            return
        channel.widen(count)
        if channel.waiting and not (self._registry.blocked and number in self._registry.blocked):
            if self._outlet.room() > 0:
                channel.waiting = False
                self._outlet.emit(ChannelWritable(number))
            else:
                self._registry.block(channel)

    # ------------------------------------------------------------------------------------------------------ input: rest

    def writable(self) -> None:
        """The outlet may have room again: send what had to wait, and tell the channels that wait to send."""
        if self._globals_late:
            self._globals_late = self._global.flush()
        if self._registry.late:
            late, self._registry.late = self._registry.late, None
            for channel in late.values():
                self._registry.flush(channel)
                if channel.receiving and channel.consumed >= channel.give_back_at:
                    self._registry.give_back(channel)
        if self._registry.blocked and self._outlet.room() > 0:
            blocked, self._registry.blocked = self._registry.blocked, None
            # Who was the first to find no room has had the last of it, and is told last: so all have their turn.
            first = next(iter(blocked))
            blocked[first] = blocked.pop(first)
            for number, channel in blocked.items():
                channel.waiting = False
                self._outlet.emit(ChannelWritable(number))

    def unimplemented(self, tag: int) -> None:
        """The peer does not know the message that carried global request ``tag``: it has failed."""
        self._global.unimplemented(tag)

    def lost(self) -> None:
        """The connection has ended: everything is forgotten, and nothing is told."""
        self._registry.clear()
        self._globals_late = False
        self._global.lost()

    def _refusal(self, number: int, command: Command) -> UsageError:
        channel = self._channels.get(number)
        if channel is None:
            return self._registry.unknown(number)
        state = channel.state.name
        if channel.abandoned or (channel.eof_sent and channel.state is not CLOSE_OUT):
            state += ", and closed by us" if channel.abandoned else ", and EOF was sent"
        return ChannelStateError(f"cannot {command.value} on channel {number}: it is {state}")

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _check_stream(self, channel: Channel, stream: int) -> None:
        if stream != STDERR:
            raise InvalidArgument(f"there is no stream {stream!r}: 0 is data, {STDERR} is standard error")
        if self._role is Role.CLIENT and isinstance(channel.kind, Session):
            raise InvalidArgument("a client has no standard error to send on a session (RFC 4254 section 5.2)")

    def _undecided(self, question: ChannelOpenRequested) -> Channel:
        channel = self._channels.get(question.channel)
        if channel is None or channel.state is not ASKED:
            raise AlreadyAnswered(f"channel {question.channel} waits for no decision by question {question.id}")
        return channel

    def _answer(self, question: ChannelRequested, granted: bool) -> None:
        channel = self._channels.get(question.channel)
        if channel is None or not decide(channel.owed, question.id, granted):
            return
        if not granted and question.request.starts:
            channel.started = False
        self._registry.flush(channel)


def _octets(data: Buffer) -> Buffer:
    """``data`` as a flat buffer of bytes, which it is already but for some memoryviews."""
    if isinstance(data, (bytes, bytearray)):
        return data
    try:
        view = memoryview(data)
        return view if view.itemsize == 1 and view.ndim == 1 and view.contiguous else view.cast("B")
    except TypeError as error:
        raise InvalidArgument(f"data to send must be bytes or like bytes, not {type(data).__name__}: {error}") from None
