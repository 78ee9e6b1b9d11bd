"""What the channels of an observed connection carried.

:class:`Channels` is a sink: it takes an observer's events and has for each channel who opened it and what for, what was
asked of it, how many bytes went each way and when, how it ended, and what of it is missing.  Of the bytes themselves it
keeps as many as its caller says, which may be none; ``tell`` hands on all of them as they come, so that memory stays
flat however much a channel carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, cast

import attrs

from sshproto.channels.requests import (
    ChannelOpenData,
    ChannelRequestData,
    Env,
    Exec,
    ExitSignal,
    ExitStatus,
    OpenFailure,
    PtyRequest,
    Shell,
    Subsystem,
)
from sshproto.events import (
    ChannelNotified,
    ChannelOpened,
    ChannelOpenFailed,
    ChannelOpenRequested,
    ChannelRequested,
    ConnectionLost,
    DataReceived,
    EofReceived,
    Event,
    RequestFailed,
    RequestSucceeded,
)
from sshproto.replay.events import (
    Ended,
    KeysMissing,
    Missing,
    Observed,
    PacketOpened,
    Problem,
    Reopened,
    RolesSeen,
    Side,
    role_of,
)
from sshproto.values import define
from sshproto.wire import messages as m
from sshproto.wire.table import Role

STDERR = 1
"""SSH_EXTENDED_DATA_STDERR (RFC 4254 section 5.2)."""

_CHANNELS = 1 << 16
"""So many channels are kept; those that are opened later are only counted."""

_REQUESTS = 1 << 14
"""So many requests of all channels are kept; the rest is counted."""

_TEXT = 1 << 22
"""So many bytes of commands, variables and the like are kept, of all channels."""

_OVERHEAD = 64


class Opening(Enum):
    """What came of the wish for a channel."""

    UNANSWERED = "unanswered"
    OPENED = "opened"
    REFUSED = "refused"


@define(eq=False)
class Asked:
    """A request on a channel, or a notice.

    Attributes:
        side: Who sent it.
        time: When, in seconds; None if that is not known.
        frames: What brought it.
        request: What.
        want_reply: Whether a reply was wanted.
        granted: What the reply says; None if none was seen.
    """

    side: Side
    time: float | None
    frames: tuple[int, ...]
    request: ChannelRequestData
    want_reply: bool = False
    granted: bool | None = None


@define(eq=False)
class Carried:
    """The bytes of one kind that one side has sent on a channel.

    Attributes:
        side: Who sent them.
        stream: 0 for data, 1 for standard error, or another type of extended data.
        size: How many there were.
        pieces: In how many messages.
        first, last: When the first and the last came, in seconds; None if that is not known.
        data: The first of them, as far as they are kept.
    """

    side: Side
    stream: int
    size: int = 0
    pieces: int = 0
    first: float | None = None
    last: float | None = None
    data: bytearray = attrs.field(factory=bytearray, repr=False)

    @property
    def whole(self) -> bool:
        """Whether all of them were kept."""
        return len(self.data) == self.size


@define(eq=False)
class Channel:
    """One channel.

    Attributes:
        number: In the order in which channels were asked for, from 0; -1 for all that names a channel which was never
            seen opened.
        opener: Who asked for it; None if that is not known.
        kind: What for, forwarding addresses included; None if that is not known.
        numbers: The number that each side gave it.
        opening: What came of the wish.
        failure: Why it was refused: the code, and the words, printable.
        time, frames: When it was asked for, and where.
        requests: What was asked and told about it, in order.
        more_requests: How many more there were than are kept.
        streams: The bytes that it carried, by sender and stream.
        eof, closed: Who has sent CHANNEL_EOF, and CHANNEL_CLOSE.
        ended: When the last of it was seen.
        gaps: Why a side's part of it is not whole.
    """

    number: int
    opener: Side | None = None
    kind: ChannelOpenData | None = None
    time: float | None = None
    frames: tuple[int, ...] = ()
    numbers: dict[Side, int] = attrs.field(factory=dict[Side, int])
    opening: Opening = Opening.UNANSWERED
    failure: tuple[int, str] | None = None
    requests: list[Asked] = attrs.field(factory=list[Asked])
    more_requests: int = 0
    streams: dict[tuple[Side, int], Carried] = attrs.field(factory=dict[tuple[Side, int], Carried])
    eof: set[Side] = attrs.field(factory=set[Side])
    closed: set[Side] = attrs.field(factory=set[Side])
    ended: float | None = None
    gaps: dict[Side, str] = attrs.field(factory=dict[Side, str])
    _over: set[Side] = attrs.field(factory=set[Side], repr=False, alias="over")

    def wanted(self, kind: type[Any]) -> Iterable[Any]:
        """The requests of a kind that were not refused, in order."""
        return (asked.request for asked in self.requests if type(asked.request) is kind and asked.granted is not False)

    @property
    def terminal(self) -> PtyRequest | None:
        """The pseudo-terminal that it has."""
        return next(iter(self.wanted(PtyRequest)), None)

    @property
    def program(self) -> Exec | Shell | Subsystem | None:
        """What runs in it."""
        starts = (asked for asked in self.requests if isinstance(asked.request, Exec | Shell | Subsystem))
        started = next((asked.request for asked in starts if asked.granted is not False), None)
        return cast("Exec | Shell | Subsystem | None", started)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that were set, as text."""
        return {env.name: env.value.decode("utf-8", "backslashreplace") for env in self.wanted(Env)}

    @property
    def exit(self) -> ExitStatus | ExitSignal | None:
        """How the program has ended."""
        ends = [asked.request for asked in self.requests if isinstance(asked.request, ExitStatus | ExitSignal)]
        return ends[-1] if ends else None

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not in the recording, in words; nothing if all of it is there."""
        found = [f"{side.value}: {self.gaps[side]}" for side in Side if side in self.gaps]
        if self.number < 0:
            found.append("its beginning")
        elif self.opening is Opening.UNANSWERED:
            found.append("whether it was opened")
        if self.opening is not Opening.REFUSED and len(self.closed | self._over) < len(Side):
            found.append("its end")
        return tuple(found)

    @property
    def complete(self) -> bool:
        """Nothing is missing."""
        return not self.missing

    def size(self, side: Side, stream: int | None = None) -> int:
        """How many bytes a side has sent, of one stream or of all."""
        return sum(
            each.size for (sender, which), each in self.streams.items() if sender is side and stream in (None, which)
        )

    def data(self, side: Side, stream: int = 0) -> bytes:
        """What is kept of a stream."""
        found = self.streams.get((side, stream))
        return bytes(found.data) if found is not None else b""

    def as_dict(self, client: Side | None = None) -> dict[str, Any]:
        """All of it but the bytes as plain values, for JSON.

        Sides are ``"client"`` and ``"server"``. Times are in seconds. What is not known is None.

        Args:
            client: Who is the client; the dialler if that is not known.
        """
        names = {side: (role_of(side, client or Side.DIALLER) or Role.CLIENT).name.lower() for side in Side}
        by_role = sorted(Side, key=lambda side: names[side])
        how = self.exit
        return {
            "channel": self.number,
            "type": self.kind.type if self.kind is not None else None,
            "opened_by": names[self.opener] if self.opener is not None else None,
            "numbers": {names[side]: self.numbers.get(side) for side in by_role},
            "opening": self.opening.value,
            "failure": _failure(self.failure),
            "target": plain(self.kind) if self.kind is not None else {},
            "time": self.time,
            "ended": self.ended,
            "program": _program(self.program),
            "terminal": plain(self.terminal) if self.terminal is not None else None,
            "requests": [
                {
                    "time": asked.time,
                    "frames": list(asked.frames),
                    "from": names[asked.side],
                    "type": asked.request.type,
                    "granted": asked.granted,
                    **plain(asked.request),
                }
                for asked in self.requests
            ],
            "more_requests": self.more_requests,
            "exit_status": how.status if isinstance(how, ExitStatus) else None,
            "exit_signal": how.name if isinstance(how, ExitSignal) else None,
            "streams": [
                {
                    "from": names[each.side],
                    "stream": stream_name(each.stream),
                    "bytes": each.size,
                    "messages": each.pieces,
                    "first": each.first,
                    "last": each.last,
                }
                for each in sorted(self.streams.values(), key=lambda each: (names[each.side], each.stream))
            ],
            "eof": [names[side] for side in by_role if side in self.eof],
            "closed": [names[side] for side in by_role if side in self.closed],
            "complete": self.complete,
            "missing": list(self.missing),
        }


def stream_name(stream: int) -> str:
    """What a stream is called."""
    return {0: "data", STDERR: "stderr"}.get(stream, f"extended data {stream}")


def plain(value: object) -> dict[str, Any]:
    """The fields of a request or a channel's kind, for JSON: bytes as text, what is secret by its length."""
    fields: dict[str, Any] = {}
    for field in attrs.fields(cast(Any, type(value))):
        each = getattr(value, field.name)
        if field.name == "type":
            continue
        if not field.repr or field.name == "payload":
            each = f"<{len(each)} bytes>"
        elif isinstance(each, bytes):
            each = each.decode("utf-8", "backslashreplace")
        elif isinstance(each, str):
            each = each.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        elif isinstance(each, tuple):
            each = [list(cast(Iterable[Any], pair)) for pair in cast(Iterable[Any], each)]
        fields[field.name] = each
    return fields


def _failure(failure: tuple[int, str] | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    code, words = failure
    known = {int(each): each.name.lower() for each in OpenFailure}
    return {"code": code, "reason": known.get(code), "description": words}


def _program(program: Exec | Shell | Subsystem | None) -> dict[str, Any] | None:
    return None if program is None else {"type": program.type, **plain(program)}


class Channels:
    """Collects what the channels of one connection carried.

    Args:
        keep: At most so many bytes of data are kept, of all channels.
        tell: Called with each event that belongs to a channel, after the channel has taken it in.

    Attributes:
        all: The channels by their numbers.
        more: How many more there were than are kept.
        client: Who is the client, as far as that is known.
        opened: Whether any message could be read that came encrypted.
        obstacles: Why a side can't be read to its end, as far as it can't.
        late: A key came late: what the two sides sent since is told each in order, but not beside one another.
    """

    def __init__(self, *, keep: int = 0, tell: Callable[[Channel, Observed], None] | None = None) -> None:
        self.all: dict[int, Channel] = {}
        self.more = 0
        self.client: Side | None = None
        self.opened = False
        self.late = False
        self.obstacles: dict[Side, str] = {}
        self._keep = keep
        self._tell = tell
        self._over: set[Side] = set()
        self._numbers: dict[tuple[Side, int], Channel] = {}
        self._waiting: dict[tuple[Side, int], Asked] = {}
        self._requests = 0
        self._text = 0
        self._message: dict[Side, m.Message | None] = dict.fromkeys(Side)

    def __iter__(self) -> Any:
        return iter(self.all.values())

    def __len__(self) -> int:
        return len(self.all)

    def add(self, seen: Observed, /) -> None:
        """Take one of the observer's events, in their order."""
        event = seen.event
        kind = type(event)
        if kind is PacketOpened:
            self._packet(seen, cast(PacketOpened, event))
        elif kind is DataReceived:
            self._data(seen, cast(DataReceived, event))
        elif isinstance(event, _OF_CHANNELS):
            self._of_channel(seen, event)
        else:
            self._of_connection(seen, event)

    def _channel(self, number: int) -> Channel | None:
        """The channel of that number; None if it is one of too many."""
        channel = self.all.get(number)
        if channel is None and number < 0:
            channel = self.all[number] = Channel(number, over=self._over)
        return channel

    # ----------------------------------------------------------------------------------------------------- connection

    def _packet(self, seen: Observed, packet: PacketOpened) -> None:
        """What events don't tell: the numbers that the sides give, and who has closed."""
        self.opened |= packet.epoch > 0
        message = packet.message
        self._message[seen.side] = message
        if type(message) is m.ChannelClose:
            channel = self._numbers.get((seen.side.other, message.recipient_channel))
            if channel is not None:
                channel.closed.add(seen.side)
                channel.ended = seen.time
                if len(channel.closed) == len(Side):
                    self._forget(channel)
                self._hand_on(channel, seen)

    def _of_connection(self, seen: Observed, event: Event) -> None:
        side = seen.side
        match event:
            case RolesSeen(client=client):
                self.client = client
            case Missing(problem=problem) | KeysMissing(problem=problem) | Problem(problem=problem, fatal=True):
                self.obstacles.setdefault(side, problem)
                for channel in self._living():
                    channel.gaps.setdefault(side, problem)
            case Reopened():
                self.late = True
                self.obstacles.pop(side, None)
                for channel in self.all.values():
                    channel.gaps.pop(side, None)
            case Ended():
                self._over.add(side)
            case ConnectionLost():
                self._over.update(Side)
            case _:
                pass

    def _living(self) -> list[Channel]:
        return list({id(channel): channel for channel in self._numbers.values()}.values())

    def _hand_on(self, channel: Channel, seen: Observed) -> None:
        if self._tell is not None:
            self._tell(channel, seen)

    # -------------------------------------------------------------------------------------------------------- channels

    def _data(self, seen: Observed, event: DataReceived) -> None:
        channel = self._channel(event.channel)
        if channel is None:
            return
        key = seen.side, event.stream
        carried = channel.streams.get(key)
        if carried is None:
            if len(channel.streams) >= _OVERHEAD:  # types of extended data that nobody uses
                return
            carried = channel.streams[key] = Carried(seen.side, event.stream, first=seen.time)
        data = event.data
        if self._keep > 0 and carried.whole:
            carried.data += data[: self._keep]
            self._keep -= min(self._keep, len(data))
        carried.size += len(data)
        carried.pieces += 1
        carried.last = channel.ended = seen.time
        self._hand_on(channel, seen)

    def _of_channel(self, seen: Observed, event: Any) -> None:
        side = seen.side
        if isinstance(event, ChannelOpenRequested):
            self._open(seen, event)
        channel = self._channel(event.channel)
        if channel is None:
            return
        channel.ended = seen.time
        match event:
            case ChannelOpened():
                channel.opening = Opening.OPENED
                message = self._message[side]
                if isinstance(message, m.ChannelOpenConfirmation):
                    self._name(channel, side, message.sender_channel)
            case ChannelOpenFailed(reason=reason, description=description):
                channel.opening = Opening.REFUSED
                channel.failure = reason, description
                self._forget(channel)
            case ChannelRequested(id=number, request=request, want_reply=want_reply):
                asked = self._ask(channel, seen, request, want_reply=want_reply)
                if asked is not None and want_reply:
                    self._waiting[side, number] = asked
            case ChannelNotified(notice=notice):
                self._ask(channel, seen, notice)
            case RequestSucceeded(request_id=number) | RequestFailed(request_id=number):
                asked = self._waiting.pop((side.other, number), None)
                if asked is not None:
                    asked.granted = isinstance(event, RequestSucceeded)
            case EofReceived():
                channel.eof.add(side)
            case _:
                pass
        self._hand_on(channel, seen)

    def _open(self, seen: Observed, event: ChannelOpenRequested) -> None:
        if len(self.all) >= _CHANNELS or not self._afford(event.kind):
            self.more += 1
            return
        channel = Channel(event.channel, seen.side, event.kind, seen.time, seen.frames, over=self._over)
        channel.gaps.update(self.obstacles)
        self.all[event.channel] = channel
        message = self._message[seen.side]
        if isinstance(message, m.ChannelOpen):
            self._name(channel, seen.side, message.sender_channel)

    def _name(self, channel: Channel, side: Side, number: int) -> None:
        channel.numbers[side] = number
        self._numbers[side, number] = channel

    def _forget(self, channel: Channel) -> None:
        """Its numbers may be used again."""
        for key in channel.numbers.items():
            if self._numbers.get(key) is channel:
                del self._numbers[key]

    def _ask(
        self, channel: Channel, seen: Observed, request: ChannelRequestData, *, want_reply: bool = False
    ) -> Asked | None:
        # How a program has ended is kept in any case, but once.
        last = isinstance(request, ExitStatus | ExitSignal) and channel.exit is None
        if not self._afford(request) and not last:
            channel.more_requests += 1
            return None
        asked = Asked(seen.side, seen.time, seen.frames, request, want_reply)
        channel.requests.append(asked)
        return asked

    def _afford(self, value: object) -> bool:
        """Whether something that a peer has made up can still be kept."""
        values = (getattr(value, field.name) for field in attrs.fields(cast(Any, type(value))))
        size = sum(len(cast("bytes", each)) for each in values if isinstance(each, str | bytes | tuple))
        if self._requests >= _REQUESTS or self._text + size > _TEXT:
            return False
        self._requests += 1
        self._text += size
        return True


_OF_CHANNELS = (
    ChannelOpenRequested,
    ChannelOpened,
    ChannelOpenFailed,
    ChannelRequested,
    ChannelNotified,
    RequestSucceeded,
    RequestFailed,
    EofReceived,
)
