"""Captures, whole: the bytes of files in, SSH connections out.

:class:`Analysis` joins what the other rooms do: it reads packets, puts streams together, finds those that are SSH on
whatever port, and gives each to an observer, a summary and the findings.  :func:`analyze` is all that most need.

What begins an SSH connection is the identification (RFC 4253 section 4.2): a side's first bytes, or a line after
others which a server sends while its client has sent nothing else.  A recording that begins in the middle has none, and
is taken for SSH if one of its ports is said to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol

import attrs

from sshproto.replay.capture import flows
from sshproto.replay.capture.network import Network, NetworkLimits
from sshproto.replay.capture.reader import CaptureError, CaptureLimits, CaptureReader, Sliceable
from sshproto.replay.capture.reassembly import Reassembler, ReassemblyLimits
from sshproto.replay.events import Observed, Side
from sshproto.replay.findings import Finding, Findings, Memory, Policy
from sshproto.replay.observer import HOLD, Observer
from sshproto.replay.secrets import KeyLogError, Secrets
from sshproto.replay.summary import Summary
from sshproto.values import frozen

__all__ = ["PORTS", "Analysis", "AnalysisLimits", "Conversation", "Sink", "analyze"]

PORTS = frozenset({22})
"""Where SSH is expected by default, of what began before the recording."""

_NANO = 1_000_000_000

_FIRST = re.compile(rb"SSH-\d{1,3}\.\d{1,3}-")
_LATER = re.compile(rb"\nSSH-\d{1,3}\.\d{1,3}-")

_OVERLAP = 16

_OWN_SINKS = 2
"""The summary and the findings want no sizes of what is sealed."""

_ITEM = 256
"""What an item costs that is kept, in bytes, besides its data."""


class Sink(Protocol):
    """What wants to be told of a conversation's events, in their order."""

    def add(self, seen: Observed, /) -> None: ...


@frozen
class AnalysisLimits:
    """Bounds on what captures may make an analysis keep.

    Attributes:
        undecided: Bytes of each side of a connection in which an identification is looked for.
        undecided_total: What is kept of all connections in which it is looked for, in bytes with what keeping them
            costs; beyond that, those that began first are given up: they are taken for something else than SSH.
        hold: Bytes of each side that are kept while they can't be read, since a key may come later.
        hold_total: The same of all connections; beyond that, those that began first are given up.
        capture, network, reassembly: Those of the rooms below.
    """

    undecided: int = attrs.field(default=64 * 1024, validator=attrs.validators.ge(256))
    undecided_total: int = attrs.field(default=64 << 20, validator=attrs.validators.ge(0))
    hold: int = attrs.field(default=HOLD, validator=attrs.validators.ge(0))
    hold_total: int = attrs.field(default=256 << 20, validator=attrs.validators.ge(0))
    capture: CaptureLimits = attrs.field(factory=CaptureLimits)
    network: NetworkLimits = attrs.field(factory=NetworkLimits)
    reassembly: ReassemblyLimits = attrs.field(factory=ReassemblyLimits)


class Conversation:
    """One SSH connection of a capture.

    Attributes:
        connection: What TCP shows of it: addresses and ports, first frame, when, how it ended.
        observer: Opens it; ``observer.client`` is who is the client.
        summary: What can be said in a few words.
        findings: What is wrong with it; empty while it is not :attr:`over`.
        events: All that the observer told, if they were asked for.
        sinks: Are told of each further event.
        capture: The name of the capture that it begins in, as :meth:`Analysis.read` was given it.
        packets: How many frames have brought bytes of each side.
        bytes: How many bytes each side has sent, without those that are missing.
        ended: When the last of it was captured, in nanoseconds since 1970.
        over: Nothing more comes.
    """

    __slots__ = (
        "_findings", "_held", "bytes", "capture", "connection", "ended", "events", "findings", "observer", "over",
        "packets", "sinks", "summary",
    )  # fmt: skip

    def __init__(
        self, connection: flows.Connection, observer: Observer, findings: Findings, *, keep: bool, capture: str = ""
    ) -> None:
        self.connection = connection
        self.capture = capture
        self.observer = observer
        self.summary = Summary()
        self.findings: list[Finding] = []
        self.events: list[Observed] = []
        self.sinks: list[Sink] = [self.summary, findings]
        self.packets = dict.fromkeys(Side, 0)
        self.bytes = dict.fromkeys(Side, 0)
        self.ended = connection.time
        self.over = False
        self._findings = findings
        self._held = 0
        if keep:
            self.sinks.append(_Keep(self.events))

    def __repr__(self) -> str:
        return f"<Conversation {self.connection.number}, {self.connection.dialler} to {self.connection.dialled}>"

    def _take(self, item: flows.Item) -> None:
        """What TCP has to tell."""
        observer = self.observer
        if type(item) is flows.Piece:  # by far the most
            stream, _, data, frame, time = item
            side = stream.side
            self.packets[side] += 1
            self.bytes[side] += len(data)
            self.ended = max(self.ended, time)
            observer.feed(side, data, time=time / _NANO, frame=frame)
            return
        time = self.ended
        match item:
            case flows.Gap(stream=stream, length=length, frame=frame, time=time):
                observer.gap(stream.side, length, time=time / _NANO, frame=frame or None)
            case flows.Finished(stream=stream, frame=frame, time=time):
                observer.end(stream.side, time=time / _NANO, frame=frame or None)
            case flows.Reset(frame=frame, time=time):
                for side in Side:
                    observer.end(side, time=time / _NANO, frame=frame)
            case flows.Closed():
                observer.finish()
            case flows.Opened(time=time) | flows.Conflict(time=time):
                pass
            case _:
                pass
        self.ended = max(self.ended, time)

    def _tell(self) -> None:
        """Hand on what the observer has to tell."""
        take, sinks = self.observer.next_event, self.sinks
        self.observer.sizes = len(sinks) > _OWN_SINKS
        while (seen := take()) is not None:
            for sink in sinks:
                sink.add(seen)

    def _close(self) -> None:
        self.observer.finish()
        self._tell()
        self.over = True
        self.findings = self._findings.finish()


@frozen
class _Keep:
    events: list[Observed]

    def add(self, seen: Observed, /) -> None:
        self.events.append(seen)


class _Suspect:
    """A connection that may be SSH: what has come of it so far."""

    def __init__(self, connection: flows.Connection, ports: Collection[int], capture: str) -> None:
        self.connection = connection
        self.items: list[flows.Item] = []
        self.capture = capture
        self.cost = 0
        self._ports = ports
        self._ends = {connection.dialler.port, connection.dialled.port}
        self._starts = {side: bytearray() for side in Side}
        self._whole = dict.fromkeys(Side, True)

    def take(self, item: flows.Item, limit: int) -> bool | None:
        """Whether it is SSH; None while nobody can tell."""
        self.items.append(item)
        self.cost += _ITEM + (len(item.data) if isinstance(item, flows.Piece) else 0)
        if isinstance(item, flows.Gap) and not self._starts[item.stream.side]:
            self._whole[item.stream.side] = False
        if not isinstance(item, flows.Piece):
            return None
        side, stream = item.stream.side, item.stream
        mine, other = self._starts[side], self._starts[side.other]
        before = len(mine)
        if not before and not stream.whole:
            self._whole[side] = False
        mine += item.data[: max(0, limit - before)]
        if not all(self._whole.values()) and not self._ends.isdisjoint(self._ports):
            return True
        if _FIRST.match(mine) or (_LATER.search(mine, max(0, before - _OVERLAP)) and not other):
            return True
        if self._hopeless(side, limit) and (self._hopeless(side.other, limit) or len(mine) >= limit):
            return False
        return None

    def _hopeless(self, side: Side, limit: int) -> bool:
        """Nothing of an identification can come of this side any more, as far as a client's goes."""
        start = self._starts[side]
        return len(start) >= min(limit, _OVERLAP) and not _FIRST.match(start)


class Analysis:
    """Captures in, SSH connections out; no file is opened, and memory stays flat however long they are.

    One analysis may be given several captures, one after another: a connection goes on in the next file, as it does in
    those of a capture that was rotated.

    Args:
        secrets: What opens them. Key logs that stand in the captures are added.
        ports: Where SSH is expected of what began before the recording.
        policy: What is expected of the connections.
        keep: Keep the events of each in :attr:`Conversation.events`.
        ask: Called with each conversation that begins, before its first event: the place to add sinks.
        limits: Bounds.
        connections: Number of the connection before the first.

    Attributes:
        reader: Of the capture that was read last: its format, its interfaces, what it says was lost.
        connections: Number of the last TCP connection that was seen, SSH or not.
        problems: What was wrong with key logs in the captures.
    """

    def __init__(
        self,
        secrets: Secrets | None = None,
        *,
        ports: Collection[int] = PORTS,
        policy: Policy | None = None,
        keep: bool = False,
        ask: Callable[[Conversation], None] | None = None,
        limits: AnalysisLimits | None = None,
        connections: int = 0,
    ) -> None:
        self.secrets = Secrets() if secrets is None else secrets
        self.problems: list[KeyLogError] = []
        self._limits = limits or AnalysisLimits()
        self._ports = frozenset(ports)
        self._policy = policy
        self._keep = keep
        self._ask = ask
        self._memory = Memory()
        self._network = Network(self._limits.network)
        self._tcp = Reassembler(self._limits.reassembly, connections=connections)
        self._living: dict[int, Conversation] = {}
        self._suspects: dict[int, _Suspect] = {}
        self._doubt = 0  # what is kept of the suspects
        self.reader = CaptureReader(self._limits.capture)
        self._used = False
        self._name = ""
        self._held = 0  # by the observers of the living

    @property
    def connections(self) -> int:
        return self._tcp.connections

    @property
    def living(self) -> Collection[Conversation]:
        """The conversations that are not over."""
        return self._living.values()

    def read(self, chunks: Iterable[Sliceable], name: str = "") -> Iterator[Conversation]:
        """Read one capture; the conversations that have ended, as soon as they have.

        Args:
            chunks: The file, cut in any way; ``[data]`` for one that is at hand as a whole. A live capture is one of
                which each chunk is what has come meanwhile.
            name: What to call it, for :attr:`Conversation.capture`.

        Raises:
            CaptureError: The capture is damaged, or there is none; everything before has been looked at, and the
                analysis can go on: with :meth:`finish`, or with another capture.
        """
        if self._used:
            self.reader = CaptureReader(self._limits.capture, frames=self.reader.frames)
        self._used = True
        self._name = name
        try:
            for packets in self.reader.read(chunks):
                if self.reader.secrets:
                    self._take_secrets()
                yield from self._sort(self._tcp.feed(self._network.segments(packets)))
        finally:
            if self.reader.secrets:
                self._take_secrets()

    def finish(self) -> Iterator[Conversation]:
        """There is no more: the conversations that have not ended."""
        yield from self._sort(self._tcp.finish())
        for number in list(self._living):
            yield self._end(number)

    def look_again(self) -> None:
        """:attr:`secrets` have grown: open what could not be opened, of the conversations that are not over.

        May be called wherever the analysis waits for the next chunk.
        """
        for conversation in self._living.values():
            conversation.observer.add_secrets()
            conversation._tell()

    def _take_secrets(self) -> None:
        for block in self.reader.secrets:
            try:
                self.secrets.add_key_log(block)
            except KeyLogError as error:  # the other lines are taken
                self.problems.append(error)
        self.reader.secrets.clear()
        self.look_again()

    def _sort(self, items: Iterable[flows.Item]) -> Iterator[Conversation]:
        """Give each what is its, and tell it before another comes: so all is told in the order of the capture."""
        current: Conversation | None = None
        for item in items:
            connection = item.connection if isinstance(item, flows.Opened | flows.Closed) else item.stream.connection
            context = connection.context
            if context is False:
                continue
            if current is not None and context is not current:
                self._tell(current)
                current = None
            if type(context) is Conversation:
                current = context
                context._take(item)
                if type(item) is flows.Closed:
                    current = None
                    yield self._end(connection.number)
            else:
                current = self._suspect(connection, item)
        if current is not None:
            self._tell(current)

    def _tell(self, conversation: Conversation) -> None:
        conversation._tell()
        held = conversation.observer.held
        self._held += held - conversation._held
        conversation._held = held
        if self._held > self._limits.hold_total:
            self._let_go()

    def _let_go(self) -> None:
        """Hold less for keys that may come late."""
        for conversation in self._living.values():
            conversation.observer.let_go()
            self._held -= conversation._held - conversation.observer.held
            conversation._held = conversation.observer.held
            if self._held <= self._limits.hold_total // 2:
                break

    def _suspect(self, connection: flows.Connection, item: flows.Item) -> Conversation | None:
        """A connection that may be SSH: its conversation, if it is."""
        suspect = connection.context
        if suspect is None:
            suspect = connection.context = _Suspect(connection, self._ports, self._name)
            self._suspects[connection.number] = suspect
        before = suspect.cost
        verdict = suspect.take(item, self._limits.undecided)
        self._doubt += suspect.cost - before
        if verdict is False or type(item) is flows.Closed:
            self._drop(suspect)
        elif verdict:
            del self._suspects[connection.number]
            self._doubt -= suspect.cost
            findings = Findings(self._policy, self._memory)
            observer = Observer(self.secrets, hold=self._limits.hold)
            conversation = Conversation(connection, observer, findings, keep=self._keep, capture=suspect.capture)
            connection.context = self._living[connection.number] = conversation
            if self._ask is not None:
                self._ask(conversation)
            for each in suspect.items:
                conversation._take(each)
            return conversation
        while self._doubt > self._limits.undecided_total:
            self._drop(next(iter(self._suspects.values())))
        return None

    def _drop(self, suspect: _Suspect) -> None:
        """It is not SSH, or it ends before anybody knows."""
        connection = suspect.connection
        del self._suspects[connection.number]
        self._doubt -= suspect.cost
        connection.context = False
        self._tcp.ignore(connection)

    def _end(self, number: int) -> Conversation:
        conversation = self._living.pop(number)
        conversation._close()
        conversation.connection.context = False  # nor is it kept by what it keeps
        self._held -= conversation._held
        return conversation


def analyze(
    *captures: Sliceable,
    secrets: Secrets | None = None,
    policy: Policy | None = None,
    ports: Collection[int] = PORTS,
    limits: AnalysisLimits | None = None,
) -> list[Conversation]:
    """All SSH connections of captures that are at hand as a whole, with their events, in the order of the capture.

    Captures that stop in the middle of a packet, or are damaged somewhere, are looked at as far as they can be read.

    Args:
        captures: The files, in the order of time: ``bytes``, or a ``mmap``.
        secrets: What opens the connections.
        policy: What is expected of them.
        ports: Where SSH is expected of what began before the recording.
        limits: Bounds.

    Raises:
        CaptureError: One of them is no capture at all.
    """
    analysis = Analysis(secrets, policy=policy, ports=ports, keep=True, limits=limits)
    found: list[Conversation] = []
    for capture in captures:
        try:
            found += analysis.read([capture])
        except CaptureError:
            if not analysis.reader.form:
                raise
        if not analysis.reader.form and analysis.reader.cut is not None:  # too short for anything
            raise analysis.reader.cut
    found += analysis.finish()
    return sorted(found, key=lambda conversation: conversation.connection.number)
