"""What pictures of a connection are drawn from: its steps, runs of them, and all that is said of the whole.

:class:`~sshproto.replay.picture.Timeline` makes steps; :func:`folded` puts long runs of data together, since nobody
wants to see a thousand packets of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeAlias

import attrs

from sshproto.replay.events import Integrity, Side
from sshproto.replay.findings import Finding
from sshproto.values import define, frozen
from sshproto.wire.table import Role

SHORTEST = 5
"""So many packets in a row make a run."""

_KINDS = 256
"""Kinds of packets that a run counts apart; all others are counted together."""

SEALED = "encrypted "
"""How the names begin of what was not opened."""

PIECES = "encrypted bytes"
"""The name of what was not opened where packets can't be told apart."""

Detail: TypeAlias = tuple[str, str | tuple[str, ...]]
"""A label and its value: words, or names in an order of preference."""


class Phase(Enum):
    """The parts of a connection, as the standards have them: a title, and where it is described."""

    VERSIONS = ("Version exchange", "RFC 4253 section 4.2")
    EXCHANGE = ("Key exchange", "RFC 4253 sections 7, 8")
    AUTHENTICATION = ("Authentication", "RFC 4252")
    CONNECTION = ("Connection", "RFC 4254")
    REKEY = ("Key re-exchange", "RFC 4253 section 9")
    SEALED = ("Encrypted", "no key is known")

    @property
    def title(self) -> str:
        return self.value[0]

    @property
    def reference(self) -> str:
        return self.value[1]


class Kind(Enum):
    """What a step is."""

    LINE = "line"
    """An identification line."""
    PACKET = "packet"
    SEALED = "sealed"
    """Encrypted bytes that were not opened."""
    NOTE = "note"
    """What changed."""
    GAP = "gap"
    """Bytes that are not in the recording."""
    PROBLEM = "problem"
    """What can't be, or can't be followed."""
    END = "end"
    """The end of a side's transport."""


@define(eq=False, kw_only=True)
class Step:
    """Something that was sent, or a note about what it changed.

    Attributes:
        kind: What it is.
        phase: Where it belongs.
        side: Who sent it; None for a note that concerns both.
        time: When, in seconds since 1970; None if that is not known.
        frames: The numbers of the frames that brought it.
        name: The message's name, or a word for what is no message.
        summary: What it carries, in short.
        details: What does not fit in it.
        fields: The message's fields by name, as JSON has them; never a secret.
        number: The message number.
        sequence_number: The packet's.
        size: Bytes on the wire.
        length: Bytes of the payload.
        epoch: How many NEWKEYS its sender has sent before.
        encrypted: Whether it was encrypted on its way.
        integrity: Whether its MAC was verified.
        channel: The channel's number, in the order in which they were opened.
        guessed: It went with a wrong guess and was ignored (RFC 4253 section 7.1).
        public: The payload, of messages that hold nothing but what all may know.
        bulk: It may be folded into a run.
        marks: The findings that it shows, by their place in :attr:`Chart.findings`.
    """

    kind: Kind
    phase: Phase
    side: Side | None
    time: float | None
    frames: tuple[int, ...]
    name: str
    summary: str = ""
    details: tuple[Detail, ...] = ()
    fields: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    number: int | None = None
    sequence_number: int | None = None
    size: int = 0
    length: int = 0
    epoch: int = 0
    encrypted: bool = False
    integrity: Integrity | None = None
    channel: int | None = None
    guessed: bool = False
    public: bytes = b""
    bulk: bool = False
    marks: tuple[int, ...] = ()


Counted: TypeAlias = tuple[Side | None, str, int | None]
"""What a run counts: who sent it, its name, its channel."""


@define(eq=False, kw_only=True)
class Run:
    """Packets in a row that are shown as one.

    Attributes:
        phase: Where they belong.
        time, until: When the first was sent, and the last.
        frames: The frames of the first, and of the last.
        encrypted: Whether they were encrypted.
        steps: Those that were kept.
        counts: How many packets and bytes on the wire there were of each kind, kept or not.
    """

    phase: Phase
    time: float | None
    until: float | None
    frames: tuple[int, ...]
    encrypted: bool
    steps: list[Step] = attrs.Factory(list[Step])
    counts: dict[Counted, tuple[int, int]] = attrs.Factory(dict[Counted, tuple[int, int]])

    def count(self, kind: Counted, packets: int, size: int) -> None:
        """There are more."""
        if kind not in self.counts and len(self.counts) >= _KINDS:
            kind = (kind[0], "others", None)
        before = self.counts.get(kind, (0, 0))
        self.counts[kind] = before[0] + packets, before[1] + size

    def extend(self, time: float | None, frames: tuple[int, ...]) -> None:
        """It goes on."""
        self.until = time if time is not None else self.until
        self.frames = (self.frames[:1] or frames[:1]) + frames[-1:]

    def totals(self, side: Side) -> tuple[int, int]:
        """Packets and bytes of one side."""
        mine = [counted for (sender, _, _), counted in self.counts.items() if sender is side]
        return sum(packets for packets, _ in mine), sum(size for _, size in mine)

    @property
    def packets(self) -> int:
        return sum(packets for packets, _ in self.counts.values())

    @property
    def exact(self) -> bool:
        """Whether what it counts are packets; else there is what came at once, of what nobody can tell apart."""
        return all(name != PIECES for _, name, _ in self.counts)

    @property
    def uncounted(self) -> int:
        """How many of its packets were not kept."""
        return self.packets - len(self.steps)


Item: TypeAlias = Step | Run


@frozen(kw_only=True)
class Chart:
    """All that a picture of one connection shows.

    Attributes:
        number: The connection's, in the capture.
        client: Who is the client.
        sure: The key exchange showed that.
        versions: The identification lines.
        addresses: Addresses and ports.
        start: When it began, in seconds since 1970.
        until: When the last of it was captured.
        items: The steps in the order of time, and runs of packets that were not kept.
        findings: What is wrong with it, the worst first.
        channels: What each channel is.
        opened: How keys were found, in words.
        summary: As :meth:`Summary.as_dict <sshproto.replay.summary.Summary.as_dict>` has it, without ``decrypted``.
        limit: So many steps were kept at most.
        dropped: So many packets were only counted.
    """

    number: int
    client: Side
    sure: bool
    versions: Mapping[Side, str]
    addresses: Mapping[Side, str]
    start: float
    until: float
    items: Sequence[Item]
    findings: Sequence[Finding]
    channels: Mapping[int, str]
    opened: Sequence[str]
    summary: Mapping[str, Any]
    limit: int
    dropped: int

    @property
    def packets(self) -> int:
        """How many packets there were, as far as they could be told apart."""
        return sum(
            sum(packets for (_, name, _), (packets, _) in item.counts.items() if name != PIECES)
            if isinstance(item, Run)
            else item.kind in (Kind.PACKET, Kind.SEALED) and item.name != PIECES
            for item in self.items
        )

    @property
    def size(self) -> int:
        """How many bytes were sent, those that are missing left out."""
        return sum(
            sum(size for _, size in item.counts.values())
            if isinstance(item, Run)
            else item.size * (item.kind is not Kind.GAP)
            for item in self.items
        )

    def role(self, side: Side) -> Role:
        """A side's role."""
        return Role.CLIENT if side is self.client else Role.SERVER


def folded(items: Iterable[Item], *, shortest: int = SHORTEST) -> list[Item]:
    """The same with long runs of data put together.

    What ends a run is anything but data, and a step that shows a finding.

    Args:
        items: Steps in the order of time, and runs.
        shortest: So many packets in a row make a run; fewer are left as they are. 0 folds nothing.
    """
    done: list[Item] = []
    run: list[Item] = []

    def close() -> None:
        packets = sum(item.packets if isinstance(item, Run) else 1 for item in run)
        if packets >= shortest > 0 and len(run) > 1:
            done.append(joined(run))
        else:
            done.extend(run)
        run.clear()

    for item in items:
        bulk = isinstance(item, Run) or (item.bulk and not item.marks)
        if not bulk or (run and item.phase is not run[0].phase):
            close()
        (run if bulk else done).append(item)
    close()
    return done


def joined(run: Sequence[Item]) -> Run:
    """Steps and runs, of which there is one at least, as one run; notes are left out."""
    first = run[0]
    whole = Run(phase=first.phase, time=first.time, until=first.time, frames=first.frames, encrypted=first.encrypted)
    for item in run:
        if isinstance(item, Run):
            for kind, (packets, size) in item.counts.items():
                whole.count(kind, packets, size)
            whole.steps += item.steps
            whole.extend(item.until, item.frames)
        elif item.kind is not Kind.NOTE:
            whole.count((item.side, item.name, item.channel), 1, item.size)
            whole.steps.append(item)
            whole.extend(item.time, item.frames)
    return whole


def in_order(items: list[Item]) -> list[Item]:
    """In the order of time: what was opened late was told late."""
    keys: list[float] = []
    now = float("-inf")
    for item in items:
        now = item.time if item.time is not None else now
        keys.append(now)
    if all(keys[place] <= keys[place + 1] for place in range(len(keys) - 1)):
        return list(items)
    return [item for _, item in sorted(zip(keys, items, strict=True), key=lambda pair: pair[0])]


def mark(items: Iterable[Item], findings: Sequence[Finding]) -> None:
    """Say at each step which findings it shows."""
    wanted: dict[int, list[int]] = {}
    for place, finding in enumerate(findings):
        for frame in finding.frames:
            wanted.setdefault(frame, []).append(place)
    if not wanted:
        return
    shows: dict[int, list[Step]] = {}
    for item in items:
        if isinstance(item, Step) and item.kind in (Kind.LINE, Kind.PACKET, Kind.SEALED):
            for place in {place for frame in item.frames for place in wanted.get(frame, ())}:
                if findings[place].side in (None, item.side):
                    shows.setdefault(place, []).append(item)
    for place in sorted(shows):
        for step in _meant(findings[place], shows[place]):
            step.marks = (*step.marks, place)


def _meant(finding: Finding, steps: list[Step]) -> list[Step]:
    """Which of the steps in its frames a finding is about: those that it names, else the key exchange, else all."""
    named = [step for step in steps if step.kind is Kind.PACKET and step.name in finding.words.split(" before ")[0]]
    exchange = [step for step in steps if step.number in (20, *range(30, 50))]
    return named or exchange[:1] or steps[:1]
