"""All channels of a connection, for either role: RFC 4254 from section 4 on.

The multiplexer takes the connection protocol's messages from the peer and the channel commands from the application,
and reaches the outside only through its :class:`~sshproto.outlet.Outlet`.

Invariants:

* A command that raises has changed nothing.  So whatever may raise, the outlet's ``send`` included, comes first.
* The cost of an input or command does not depend on the number of channels.
* A number is never used twice in a connection; a channel that both sides have closed is forgotten altogether.
* Data never waits here: ``send`` takes what can leave at once and says how much that was.  The few small messages that
  the outlet would not take (replies, window adjusts) are tried again by :meth:`Mux.writable`.

CHANNEL_DATA and CHANNEL_WINDOW_ADJUST are most of all traffic and do without typed messages: :meth:`Mux.data`,
:meth:`Mux.adjust`, :meth:`Mux.send`, :meth:`Mux.credit`.

Where the standard leaves a choice: data past the window, or in packets larger than we offered, ends the connection, as
does every message that :data:`~sshproto.channels.channel.MESSAGES` does not allow; opens that we do not want are
refused, requests that make no sense fail (``CHANNEL_FAILURE``) or, if no reply is wanted, are ignored.
"""

from __future__ import annotations

import struct

from sshproto.channels.channel import (
    ENVELOPE,
    EXTENDED_HEAD,
    HEAD,
    MAX_WINDOW,
    STDERR,
    VERDICTS,
    Channel,
    ChannelState,
    Command,
    Verdict,
)
from sshproto.channels.global_requests import GlobalRequests
from sshproto.channels.inbound import Inbound
from sshproto.channels.registry import Registry, within
from sshproto.channels.requests import ChannelOpenData, ChannelRequestData, GlobalRequestData, OpenFailure, Session
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
from sshproto.outlet import Outlet
from sshproto.wire.codec import Buffer
from sshproto.wire.messages import (
    ChannelClose,
    ChannelEof,
    ChannelOpen,
    ChannelOpenConfirmation,
    ChannelOpenFailure,
    ChannelRequest,
    ChannelWindowAdjust,
    Message,
)
from sshproto.wire.table import Role

_TWO_NUMBERS = struct.Struct(">II")


class Mux:
    """The channels and global requests of one connection.

    Commands raise a :class:`~sshproto.errors.UsageError` and then have changed nothing.  Inputs raise a
    :class:`~sshproto.errors.ConnectionLoss` or :class:`~sshproto.errors.WireError` for what the peer did wrong.
    """

    __slots__ = (
        "_channels",
        "_config",
        "_global",
        "_globals_late",
        "_inbound",
        "_next_request",
        "_outlet",
        "_registry",
        "_role",
    )

    def __init__(self, role: Role, config: Config, outlet: Outlet) -> None:
        self._role = role
        self._config = config
        self._outlet = outlet
        self._registry = Registry(role, config, outlet)
        self._channels = self._registry.channels
        self._global = GlobalRequests(role, config, outlet, self._registry.invitations)
        self._inbound = Inbound(self._registry, self._global)
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

    def window(self, channel: int) -> int:
        """How many bytes ``send`` would take now.

        Raises:
            UnknownChannel: There is no such channel.
        """
        found = self._channels.get(channel)
        if found is None:
            raise self._registry.unknown(channel)
        return min(found.send_window, self._outlet.room()) if found.sending else 0

    # --------------------------------------------------------------------------------------------- commands: life cycle

    def open_channel(self, kind: ChannelOpenData, *, window: int | None = None, packet: int | None = None) -> int:
        """Ask the peer for a channel (RFC 4254 section 5.1).

        Args:
            kind: What for.
            window: Bytes that the peer may send before it must wait for credit; None for ``Limits.window``, or less
                when ``Limits.window_pool`` is used up.
            packet: Bytes of data that it may send in one packet; None for ``Limits.channel_packet``.

        Returns:
            The channel's number. ``ChannelOpened`` or ``ChannelOpenFailed`` follows.

        Raises:
            InvalidArgument: ``kind`` cannot be sent, or not by this role; a size is out of range.
            LimitReached: ``Limits.channels_from_us``, or too much waits for the end of a key exchange.
        """
        if not isinstance(kind, ChannelOpenData):
            raise InvalidArgument(f"{kind!r} is not a kind of channel")
        if self._role.peer not in kind.receivers:
            raise InvalidArgument(f"a {self._role.value} does not open {kind.type!r} channels")
        window, packet = self._sizes(window, packet)
        if self._registry.by_us >= self._config.limits.channels_from_us:
            raise LimitReached(f"we have opened {self._registry.by_us} channels (Limits.channels_from_us)")
        number = self._registry.next_channel
        self._outlet.send(ChannelOpen(kind.type, number, window, packet, kind.encode()))
        self._registry.offer(self._registry.add(kind, ours=True), window, packet)
        return number

    def accept_channel(
        self,
        question: ChannelOpenRequested,
        *,
        window: int | None = None,
        packet: int | None = None,
        data: bytes = b"",
    ) -> None:
        """Let the peer have its channel.

        Args:
            question: Its question.
            window, packet: See :meth:`open_channel`.
            data: Kind-specific data for the confirmation; no kind of the standards has any.

        Raises:
            InvalidArgument: A size is out of range.
            AlreadyAnswered: The channel is decided on.
            LimitReached: Too much waits for the end of a key exchange.
        """
        window, packet = self._sizes(window, packet)
        if not isinstance(data, bytes):
            raise InvalidArgument(f"data must be bytes, not {type(data).__name__}")
        channel = self._undecided(question)
        self._outlet.send(ChannelOpenConfirmation(channel.peer_number, channel.number, window, packet, data))
        channel.question = None
        self._registry.offer(channel, window, packet)
        channel.move(ChannelState.OPEN)
        self._registry.asked -= 1

    def reject_channel(
        self,
        question: ChannelOpenRequested,
        reason: int = OpenFailure.ADMINISTRATIVELY_PROHIBITED,
        description: str = "",
    ) -> None:
        """Do not let the peer have its channel.

        Args:
            question: Its question.
            reason: A reason code (RFC 4254 section 5.1).
            description: Words for the peer's user.

        Raises:
            InvalidArgument: ``reason`` or ``description`` cannot be sent.
            AlreadyAnswered: The channel is decided on.
            LimitReached: Too much waits for the end of a key exchange.
        """
        channel = self._undecided(question)
        message = ChannelOpenFailure(channel.peer_number, reason, description)
        message.encode()  # the outlet may encode later
        self._outlet.send(message)
        self._registry.forget(channel)

    def close_channel(self, channel: int) -> None:
        """Close a channel at once (RFC 4254 section 5.3): what still comes on it is thrown away.

        ``ChannelClosed`` follows when the peer has closed it, too. A channel that the peer has not confirmed yet is
        closed as soon as it is, without ``ChannelOpened``.

        Raises:
            UnknownChannel: There is no such channel.
            ChannelStateError: It is closed already, or is the peer's and waits for ``accept_channel`` or
                ``reject_channel``.
            LimitReached: Too much waits for the end of a key exchange.
        """
        found = self._get(channel, Command.CLOSE)
        if found.state is ChannelState.OPENING:
            found.abandoned = True
            return
        self._outlet.send(ChannelClose(found.peer_number))
        self._registry.closing(found)

    def send_eof(self, channel: int) -> None:
        """Say that no more data will be sent (RFC 4254 section 5.3). The peer may still send.

        Raises:
            UnknownChannel: There is no such channel.
            ChannelStateError: It is not open, or EOF was sent.
            LimitReached: Too much waits for the end of a key exchange.
        """
        found = self._get(channel, Command.SEND_EOF)
        self._outlet.send(ChannelEof(found.peer_number))
        found.eof_sent = True
        found.sending = False
        found.waiting = False
        self._registry.blocked.pop(channel, None)

    # --------------------------------------------------------------------------------------------------- commands: data

    def send(self, channel: int, data: Buffer, stream: int = 0) -> int:
        """Send data, as much of it as can leave now.

        Args:
            channel: The channel's number.
            data: Any number of bytes.
            stream: 0 for data, 1 for standard error (of a server's session).

        Returns:
            How many bytes were taken. If that is not all, ``ChannelWritable`` tells when to go on.

        Raises:
            UnknownChannel: There is no such channel.
            ChannelStateError: It is not open, or EOF was sent.
            InvalidArgument: ``data`` is not bytes, or there is no such stream.
        """
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
                head = EXTENDED_HEAD.pack(95, found.peer_number, stream, size)
            else:
                head = found.full_head if size == packet else HEAD.pack(94, found.peer_number, size)
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
                    self._registry.blocked[channel] = found
                break
            if stream:
                head = EXTENDED_HEAD.pack(95, found.peer_number, stream, count)
            else:
                head = found.full_head if count == packet else HEAD.pack(94, found.peer_number, count)
            outlet.send_data(head, view[taken : taken + count])
            taken += count
            window -= count
            found.send_window = window
        return taken

    def credit(self, channel: int, count: int) -> None:
        """Give the peer room for ``count`` bytes that were used or thrown away.

        On a channel that has closed meanwhile it does nothing.

        Raises:
            UnknownChannel: There never was such a channel.
            InvalidArgument: More bytes than were received and not yet credited.
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
        if found.consumed >= found.give_back_at and found.receiving:
            self._registry.give_back(found)

    # ----------------------------------------------------------------------------------------------- commands: requests

    def request(self, channel: int, data: ChannelRequestData, want_reply: bool = True) -> int:
        """Ask or tell something about a channel (RFC 4254 section 5.4).

        Args:
            channel: The channel's number.
            data: What.
            want_reply: Whether ``RequestSucceeded`` or ``RequestFailed`` is to follow. Notices (window-change,
                signal, exit-status ...) have no reply, whatever is said here.

        Returns:
            A number for the request, unique among the connection's channel requests.

        Raises:
            UnknownChannel: There is no such channel.
            ChannelStateError: It is not open.
            InvalidArgument: ``data`` cannot be sent, or not by this role or on this kind of channel.
            LimitReached: ``Limits.requests_pending``, or too much waits for the end of a key exchange.
        """
        found = self._get(channel, Command.REQUEST)
        if not isinstance(data, ChannelRequestData):
            raise InvalidArgument(f"{data!r} is not a channel request")
        if self._role.peer not in data.receivers:
            raise InvalidArgument(f"a {self._role.value} does not send {data.type!r}")
        if data.session_only and not found.session_like:
            raise InvalidArgument(f"{data.type!r} belongs to sessions, channel {channel} is {found.kind.type!r}")
        want_reply = bool(want_reply) and not data.notice
        if want_reply and len(found.requested) >= self._config.limits.requests_pending:
            count = len(found.requested)
            raise LimitReached(f"{count} requests on channel {channel} wait for a reply (Limits.requests_pending)")
        self._outlet.send(ChannelRequest(found.peer_number, data.type, want_reply, data.encode()))
        number = self._next_request
        self._next_request = number + 1
        self._registry.invitations.asked_on(channel, data)
        if want_reply:
            found.requested.append((number, data))
        return number

    def global_request(self, data: GlobalRequestData, want_reply: bool = True) -> int:
        """Ask or tell something about the connection as a whole (RFC 4254 section 4).

        Returns:
            A number for the request, unique among the connection's global requests. ``GlobalSucceeded`` or
            ``GlobalFailed`` follows if a reply is wanted.

        Raises:
            InvalidArgument: ``data`` cannot be sent, or not by this role.
            LimitReached: ``Limits.requests_pending``, or too much waits for the end of a key exchange.
        """
        return self._global.request(data, bool(want_reply))

    def succeed(self, question: ChannelRequested | GlobalRequested, data: bytes = b"") -> None:
        """Grant a request. Replies leave in the order of the requests; nothing happens if none is owed (any more).

        Args:
            question: The request's.
            data: What the reply carries: of a ``tcpip-forward`` of port 0 the port, as a uint32; of most none.

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
        """Refuse a request. Replies leave in the order of the requests; nothing happens if none is owed (any more)."""
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
            self._registry.unreceivable(94, number, length)
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
            self._registry.admit(93, number)
            return
        if not count:
            self._registry.empty(channel)
            return
        channel.widen(count)
        if channel.waiting and number not in self._registry.blocked:
            if self._outlet.room() > 0:
                channel.waiting = False
                self._outlet.emit(ChannelWritable(number))
            else:
                self._registry.blocked[number] = channel

    # ------------------------------------------------------------------------------------------------------ input: rest

    def receive(self, message: Message) -> None:
        """One of GLOBAL_REQUEST to REQUEST_FAILURE, CHANNEL_OPEN to CHANNEL_OPEN_FAILURE and
        CHANNEL_EXTENDED_DATA to CHANNEL_FAILURE came.
        """
        self._inbound.receive(message)

    def writable(self) -> None:
        """The outlet may have room again: send what had to wait, and tell the channels that wait to send."""
        if self._globals_late:
            self._globals_late = self._global.flush()
        if self._registry.late:
            late, self._registry.late = self._registry.late, {}
            for channel in late.values():
                self._registry.flush(channel)
                if channel.receiving and channel.consumed >= channel.give_back_at:
                    self._registry.give_back(channel)
        if self._registry.blocked and self._outlet.room() > 0:
            blocked, self._registry.blocked = self._registry.blocked, {}
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

    def _get(self, number: int, command: Command) -> Channel:
        """The channel, if ``command`` may be given to it."""
        channel = self._channels.get(number)
        if channel is None or not channel.may(command) or (command is Command.CLOSE and channel.abandoned):
            raise self._refusal(number, command)
        return channel

    def _refusal(self, number: int, command: Command) -> UsageError:
        channel = self._channels.get(number)
        if channel is None:
            return self._registry.unknown(number)
        state = channel.state.name
        if channel.abandoned or (channel.eof_sent and channel.state is not ChannelState.CLOSE_OUT):
            state += ", and closed by us" if channel.abandoned else ", and EOF was sent"
        return ChannelStateError(f"cannot {command.value} on channel {number}: it is {state}")

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _sizes(self, window: int | None, packet: int | None) -> tuple[int, int]:
        """Check what is to be offered to the peer."""
        limits = self._config.limits
        window = self._registry.default_window() if window is None else window
        packet = limits.channel_packet if packet is None else packet
        if not within(window, 0, MAX_WINDOW):
            raise InvalidArgument(f"a window of {window!r} bytes: it is 0 to {MAX_WINDOW}")
        largest = limits.packet - ENVELOPE
        if not within(packet, 1, largest):
            raise InvalidArgument(f"channel packets of {packet!r} bytes: they are 1 to {largest} (Limits.packet)")
        return window, packet

    def _check_stream(self, channel: Channel, stream: int) -> None:
        if stream != STDERR:
            raise InvalidArgument(f"there is no stream {stream!r}: 0 is data, {STDERR} is standard error")
        if self._role is Role.CLIENT and isinstance(channel.kind, Session):
            raise InvalidArgument("a client has no standard error to send on a session (RFC 4254 section 5.2)")

    def _undecided(self, question: ChannelOpenRequested) -> Channel:
        channel = self._channels.get(question.channel)
        if channel is None or channel.question != question.id:
            raise AlreadyAnswered(f"channel {question.channel} waits for no decision by question {question.id}")
        return channel

    def _answer(self, question: ChannelRequested, granted: bool) -> None:
        channel = self._channels.get(question.channel)
        if channel is None or not channel.owed.answer(question.id, granted):
            return
        if not granted and channel.started_by == question.id:
            channel.started = False
        self._registry.flush(channel)


_ADJUSTABLE = frozenset(
    state for state in ChannelState if VERDICTS[ChannelWindowAdjust.number][state] is Verdict.HANDLE
)


def _octets(data: Buffer) -> Buffer:
    """``data`` as a flat buffer of bytes, which it is already but for some memoryviews."""
    if isinstance(data, (bytes, bytearray)):
        return data
    try:
        view = memoryview(data)
        return view if view.itemsize == 1 and view.ndim == 1 and view.contiguous else view.cast("B")
    except TypeError as error:
        raise InvalidArgument(f"data to send must be bytes or like bytes, not {type(data).__name__}: {error}") from None
