"""A connection's events as the steps of a timeline: what each side sent, when, and what it meant.

:class:`Timeline` is a sink of a :class:`~sshproto.replay.analysis.Conversation` and keeps a step for each packet up to
a limit, so that its memory is bounded; packets beyond are only counted.  :func:`chart` gives what pictures are drawn
from: the steps in the order of time, with the findings that they show.

Nothing secret is in a step: passwords never, and what was sent on channels only if it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from sshproto.events import VersionReceived
from sshproto.replay.analysis import Conversation
from sshproto.replay.events import (
    Ended,
    KeysMissing,
    Missing,
    Observed,
    PacketOpened,
    PacketSealed,
    Problem,
    Reopened,
    RolesSeen,
    SecretFound,
    Side,
    Ssh1Packet,
    role_of,
)
from sshproto.replay.picture.steps import PIECES, SEALED, Chart, Detail, Item, Kind, Phase, Run, Step, in_order, mark
from sshproto.text import printable
from sshproto.transport.negotiation import Negotiated
from sshproto.values import define
from sshproto.wire import messages as m
from sshproto.wire.table import Role, message_name

STEPS = 100_000
"""So many steps are kept by default; what comes after is counted."""

_EARLY = 64
"""Events that wait until it is known who is the client."""

_LEAST = 500
"""Steps that every connection may keep, whatever others have used."""

_AHEAD = 4
"""So many encrypted pieces may come of one side before the other's NEWKEYS and belong to the key exchange still."""

_CHANNELS = 1 << 16
_HEX = 4096
_LONGEST = 1024

_KEXINIT, _NEWKEYS = 20, 21


class Wording(Protocol):
    """What a message carries, in words; ``sshproto_cli.describe`` has such."""

    @property
    def summary(self) -> str: ...
    @property
    def details(self) -> tuple[Detail, ...]: ...
    @property
    def fields(self) -> Mapping[str, Any]: ...


class Describer(Protocol):
    """Follows one connection and puts its messages into words."""

    @property
    def negotiated(self) -> Negotiated | None: ...
    def describe(self, sender: Role, message: m.Message, /) -> Wording: ...
    def chosen(self, negotiated: Negotiated, /) -> Wording: ...
    def protection(self, negotiated: Negotiated, sender: Role, /) -> Wording: ...


@define
class Budget:
    """How many steps may be kept, by all timelines that share it.

    Attributes:
        limit: In all.
        left: Of these.
    """

    limit: int = STEPS
    left: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.left = self.limit


_PHASE_OF: tuple[tuple[int, int, Phase], ...] = (
    (5, 6, Phase.AUTHENTICATION),
    (50, 79, Phase.AUTHENTICATION),
    (80, 191, Phase.CONNECTION),
)
"""The phase that messages of certain numbers belong to; all others belong to the phase that they come in."""

_BULK = frozenset((2, 4, 93, 94, 95, 192, 193))
"""IGNORE, DEBUG, CHANNEL_WINDOW_ADJUST, CHANNEL_DATA, CHANNEL_EXTENDED_DATA, PING and PONG: what runs are made of."""

_REPLIES = frozenset((81, 82, 99, 100))
_STDERR = 1


class Timeline:
    """Collects the steps of one connection.

    Args:
        describer: Puts messages into words.
        budget: How many steps may be kept.
        contents: Say also what was sent on channels, which may hold what somebody typed.
    """

    def __init__(self, describer: Describer, *, budget: Budget | None = None, contents: bool = False) -> None:
        self.items: list[Item] = []
        self.channels: dict[int, str] = {}
        self.versions: dict[Side, str] = {}
        self.opened: dict[str, None] = {}
        self.dropped = 0
        self.budget = budget or Budget()
        self._describer = describer
        self._contents = contents
        self._client: Side | None = None
        self._early: list[Observed] | None = []
        self._phase = Phase.VERSIONS
        self._usual = Phase.AUTHENTICATION  # what goes on after a key exchange
        self._offers = 0
        self._kept = 0
        self._epochs = dict.fromkeys(Side, 0)
        self._last: Step | None = None
        self._message: m.Message | None = None
        self._ids: dict[tuple[Side, int], int] = {}
        self._alive = dict.fromkeys(Side, 0)
        self._waits = dict.fromkeys(Side, 0)
        self._missing: dict[Side, int] = {}
        self._protected: dict[Side, Step] = {}
        self._handlers: dict[type, Callable[[Observed, Any], None]] = {
            VersionReceived: self._version,
            PacketOpened: self._packet,
            PacketSealed: self._sealed,
            KeysMissing: self._keys_missing,
            Reopened: self._reopened,
            SecretFound: self._secret,
            Missing: self._gap,
            Problem: self._problem,
            Ended: self._ended,
            Ssh1Packet: self._ssh1,
        }

    def add(self, seen: Observed, /) -> None:
        """Take one of the observer's events, in their order."""
        early = self._early
        if early is None:
            self._take(seen)
            return
        early.append(seen)
        if isinstance(seen.event, RolesSeen):
            self._client = seen.event.client
        if isinstance(seen.event, (RolesSeen, PacketSealed)) or len(early) >= _EARLY:
            self.settle()

    def settle(self) -> None:
        """Wait no longer for who is the client. Repeated calls do nothing."""
        early, self._early = self._early, None
        for seen in early or ():
            self._take(seen)

    def _take(self, seen: Observed) -> None:
        event = seen.event
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(seen, event)
            return
        channel: int | None = getattr(event, "channel", None)
        if channel is not None and channel >= 0:
            self._channel(seen.side, channel)

    # ------------------------------------------------------------------------------------------------------------ steps

    def _keep(self, step: Step) -> None:
        """Keep a step, or count it."""
        self._last = step
        if self._room():
            self._kept += 1
            self.budget.left -= 1
            self.items.append(step)
        elif step.kind in (Kind.PACKET, Kind.SEALED):
            self._count(step.side, step.name, step.channel, step)

    def _room(self) -> bool:
        return self.budget.left > 0 or self._kept < _LEAST

    def _count(self, side: Side | None, name: str, channel: int | None, what: Step) -> None:
        self.dropped += 1
        last = self.items[-1] if self.items else None
        if not isinstance(last, Run) or last.phase is not what.phase:
            last = Run(phase=what.phase, time=what.time, until=what.time, frames=what.frames, encrypted=what.encrypted)
            self.items.append(last)
        last.count((side, name, channel), 1, what.size)
        last.extend(what.time, what.frames)

    def _step(self, seen: Observed, kind: Kind, name: str, summary: str = "", **values: Any) -> Step:
        step = Step(
            kind=kind,
            phase=values.pop("phase", self._phase),
            side=values.pop("side", seen.side),
            time=seen.time,
            frames=seen.frames,
            name=name,
            summary=summary,
            **values,
        )
        self._keep(step)
        return step

    def _version(self, seen: Observed, event: VersionReceived) -> None:
        self.versions[seen.side] = event.line
        before = tuple(printable(line) for line in event.preamble)
        self._step(
            seen,
            Kind.LINE,
            "identification",
            event.line,
            phase=Phase.VERSIONS,
            size=len(event.line) + 2,
            details=tuple(("before it", line) for line in before[:4]),
            fields={"line": event.line, "preamble": list(before[:100])},
        )

    def _packet(self, seen: Observed, packet: PacketOpened) -> None:
        number, message, side = packet.number, packet.message, seen.side
        self._phase = phase = self._phase_of(packet)
        bulk = number in _BULK and packet.epoch > 0
        recipient: int | None = getattr(message, "recipient_channel", None)
        channel = None if recipient is None else self._ids.get((side, recipient))
        if number in _REPLIES:
            bulk = self._alive[side.other] > 0
            self._alive[side.other] -= bulk
        elif number in (80, 98):
            kind: str = getattr(message, "request_type", "")
            bulk = kind.startswith("keepalive@") or kind == "window-change"
            if bulk and getattr(message, "want_reply", False):
                self._alive[side] += 1
        step = Step(
            kind=Kind.PACKET,
            phase=phase,
            side=side,
            time=seen.time,
            frames=seen.frames,
            name=message_name(number, packet.context),
            number=number,
            sequence_number=packet.sequence_number,
            size=packet.size,
            length=len(packet.payload),
            epoch=packet.epoch,
            encrypted=packet.epoch > 0,
            integrity=packet.integrity,
            channel=channel,
            guessed=packet.guessed,
            bulk=bulk,
        )
        self._message = message
        if not bulk or self._room():
            self._describe(step, packet, message)
        self._keep(step)
        if number == _NEWKEYS:
            self._epochs[side] = packet.epoch + 1
        if number in (_KEXINIT, _NEWKEYS):
            self._changes(seen, packet)

    def _phase_of(self, packet: PacketOpened) -> Phase:
        number = packet.number
        if 20 <= number < 50:
            return Phase.REKEY if packet.epoch else Phase.EXCHANGE
        if not packet.epoch:  # whatever it is, it came in the middle of that
            return Phase.EXCHANGE
        for first, last, phase in _PHASE_OF:
            if first <= number <= last:
                self._usual = phase
                return phase
        return self._phase

    def _describe(self, step: Step, packet: PacketOpened, message: m.Message | None) -> None:
        """Say what a message carries."""
        if message is None:
            step.summary = "sent on a wrong guess: to be ignored" if packet.guessed else "not understood"
        elif not self._contents and isinstance(data := getattr(message, "data", None), bytes):
            self._mute(step, message, len(data))
        else:
            words = self._describer.describe(self._role(step.side), message)
            step.summary, step.details, step.fields = words.summary, words.details, words.fields
        if 20 <= packet.number < 50 or (not packet.epoch and not 50 <= packet.number < 80):
            step.public = packet.payload[:_HEX]

    def _mute(self, step: Step, message: m.Message, size: int) -> None:
        """A message that carries data, without it."""
        step.summary = f"{size:,} byte{'' if size == 1 else 's'}"
        fields: dict[str, Any] = {"bytes": size}
        stream: int | None = getattr(message, "data_type", None)
        if stream is not None:
            step.summary += " of standard error" if stream == _STDERR else f" of type {stream}"
            fields["data_type"] = stream
        recipient: int | None = getattr(message, "recipient_channel", None)
        if recipient is not None:
            fields["recipient_channel"] = recipient
        step.fields = fields

    def _role(self, side: Side | None) -> Role:
        return role_of(side or Side.DIALLER, self._client or Side.DIALLER) or Role.CLIENT

    def _changes(self, seen: Observed, packet: PacketOpened) -> None:
        """A note on what a KEXINIT or a NEWKEYS has changed."""
        negotiated = self._describer.negotiated
        if packet.number == _KEXINIT:
            self._offers += 1
            if self._offers == len(Side) and negotiated is not None:  # later ones end in the same, or NEWKEYS tells
                words = self._describer.chosen(negotiated)
                self._note(seen, f"agreed: {words.summary}", words, side=None)
            return
        if negotiated is not None:
            self._protect(seen, packet, negotiated)
        if self._epochs[seen.side] == self._epochs[seen.side.other]:
            self._phase = self._usual

    def _protect(self, seen: Observed, packet: PacketOpened, negotiated: Negotiated) -> None:
        role = self._role(seen.side)
        words = self._describer.protection(negotiated, role)
        before = self._protected.get(seen.side)
        same = before is not None and before.fields == words.fields
        summary = "new keys, the same algorithms" if same else f"encrypted from here on: {words.summary}"
        note = self._note(seen, summary, words, encrypted=True, epoch=packet.epoch + 1)
        if same:
            note.details = ()
        self._protected[seen.side] = note

    def _note(self, seen: Observed, summary: str, words: Wording, **values: Any) -> Step:
        return self._step(seen, Kind.NOTE, "note", summary, details=words.details, fields=words.fields, **values)

    def _sealed(self, seen: Observed, event: PacketSealed) -> None:
        if self._phase is not Phase.EXCHANGE or self._epochs[seen.side.other] or self._waits[seen.side] >= _AHEAD:
            self._phase = Phase.SEALED
        self._waits[seen.side] += 1  # who goes first has to wait for the other's NEWKEYS
        name = f"{SEALED}packet" if event.exact else PIECES
        summary = f"{event.size:,} bytes" + ("" if event.exact else ", packets can't be told apart")
        self._step(
            seen, Kind.SEALED, name, summary, size=event.size, epoch=self._epochs[seen.side],
            encrypted=True, bulk=True,
        )  # fmt: skip

    def _keys_missing(self, seen: Observed, event: KeysMissing) -> None:
        last = self.items[-1:]
        self._missing[seen.side] = len(self.items) - (bool(last) and isinstance(last[0], Run))
        note = self._protected.get(seen.side)
        why: Detail = ("not opened", event.problem)
        if note is not None and note.epoch == event.epoch:
            note.details = (*note.details, why)
        else:
            self._step(seen, Kind.NOTE, "note", "from here on not opened", details=(why,), encrypted=True)

    def _reopened(self, seen: Observed, event: Reopened) -> None:
        """What could not be read is told again: forget it."""
        start = self._missing.pop(seen.side, len(self.items))
        kept: list[Item] = []
        for item in self.items[start:]:
            if isinstance(item, Run):
                for kind in [kind for kind in item.counts if kind[0] is seen.side and kind[1].startswith(SEALED)]:
                    self.dropped -= item.counts.pop(kind)[0]
                if item.counts:
                    kept.append(item)
            elif item.kind is Kind.SEALED and item.side is seen.side:
                self.budget.left += 1
            else:
                kept.append(item)
        self.items[start:] = kept
        note = self._protected.get(seen.side)
        if note is not None:
            note.details = tuple(detail for detail in note.details if detail[0] != "not opened")

    def _secret(self, seen: Observed, event: SecretFound) -> None:
        if len(self.opened) < _CHANNELS:
            sure = "the server's signature proves it" if event.verified else "proved by the packets alone"
            self.opened[f"{event.source}, {sure}"] = None

    def _gap(self, seen: Observed, event: Missing) -> None:
        self._step(seen, Kind.GAP, "not recorded", event.problem, size=event.size or 0)

    def _problem(self, seen: Observed, event: Problem) -> None:
        summary = printable(event.problem, _LONGEST)
        self._step(seen, Kind.PROBLEM, "problem", summary, fields={"fatal": event.fatal})

    def _ended(self, seen: Observed, event: Ended) -> None:
        self._step(seen, Kind.END, "end of stream", "sends no more (TCP)")

    def _ssh1(self, seen: Observed, event: Ssh1Packet) -> None:
        self._phase = Phase.EXCHANGE
        fields = attrs.asdict(event.message) if event.message is not None else {}  # type: ignore[arg-type]
        words = {name: plain for name, value in fields.items() if (plain := _plain(value)) is not None}
        self._step(
            seen, Kind.PACKET, event.name, f"{len(event.payload):,} bytes of data", number=event.number,
            size=event.size, fields=words, details=tuple((name.replace("_", " "), it) for name, it in words.items()),
        )  # fmt: skip

    def _channel(self, side: Side, number: int) -> None:
        """It is known which channel the last message was about."""
        step, message = self._last, self._message
        if step is None or step.kind is not Kind.PACKET or step.side is not side:
            return
        step.channel = number
        sender: int | None = getattr(message, "sender_channel", None)
        if sender is not None and len(self._ids) < _CHANNELS:
            self._ids[side.other, sender] = number
        if isinstance(message, m.ChannelOpen) and len(self.channels) < _CHANNELS:
            self.channels[number] = printable(message.channel_type, 64)


def _plain(value: Any) -> str | None:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bool | int):
        return str(value) if value.bit_length() <= 64 else f"{value.bit_length()} bits"
    if isinstance(value, (tuple, list)):
        return ", ".join(printable(str(each)) for each in value)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    if isinstance(value, dict):
        return f"{value.get('bits')} bits"  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    return None


def chart(conversation: Conversation, timeline: Timeline) -> Chart:
    """What a picture shows of a connection that is over, or of what has come of it.

    Args:
        conversation: Whose sink ``timeline`` was.
        timeline: Has all that was told.
    """
    timeline.settle()
    client = conversation.observer.client
    connection = conversation.connection
    items = in_order(timeline.items)
    findings = conversation.findings
    mark(items, findings)
    summary = {name: value for name, value in conversation.summary.as_dict().items() if name != "decrypted"}
    return Chart(
        number=connection.number,
        client=client or Side.DIALLER,
        sure=client is not None and conversation.summary.sure,
        versions=timeline.versions,
        addresses={Side.DIALLER: str(connection.dialler), Side.DIALLED: str(connection.dialled)},
        start=connection.time / 1e9,
        until=conversation.ended / 1e9,
        items=items,
        findings=findings,
        channels=timeline.channels,
        opened=tuple(timeline.opened),
        summary=summary,
        limit=timeline.budget.limit,
        dropped=timeline.dropped,
    )
