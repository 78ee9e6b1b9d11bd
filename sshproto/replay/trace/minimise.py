"""Cuts a trace to the smallest that still shows something: an error, an event, whatever a function looks for.

What can be left out are *inputs*: each chunk that the peer sent, each command and answer, each moment of time, together
with the outputs that the application took before the next one.  They are left out in ever smaller groups as long as
what is left shows it still (delta debugging, Zeller and Hildebrandt 2002); then, in the same way, bytes of the chunks
that are left.  An answer to a question that is not asked any more has no effect, nor has a command that is refused.

What is left is recorded anew as it runs, so the outcome is a trace like others, which replays exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs

from sshproto.errors import ConnectionLoss, InvalidArgument, SSHError
from sshproto.events import ConnectionLost, Event
from sshproto.replay.events import Side
from sshproto.replay.findings import Findings
from sshproto.replay.observer import Observer
from sshproto.replay.secrets import Secrets
from sshproto.replay.trace import values
from sshproto.replay.trace.file import Header, Record, Trace, TraceError
from sshproto.replay.trace.values import UnknownQuestion
from sshproto.replay.trace.verify import Player, Step, Steps
from sshproto.values import define, frozen

TRIES = 2000
"""How often a trace is run at most, unless told otherwise."""

T = TypeVar("T")


@define
class Run:
    """What a trace, or a part of it, has given.

    Attributes:
        conn: The connection, as it is at the end.
        events: What ``next_event`` has returned, in order.
        raised: What calls have raised: the method, and the exception.
        records: The whole run as it was recorded again.
        traffic: What passed, in order: whether this side sent it, and the bytes.
        key_log: The lines of a key log that open it.
    """

    conn: Any = None
    events: list[Event] = attrs.Factory(list[Event])
    raised: list[tuple[str, Exception]] = attrs.Factory(list[tuple[str, Exception]])
    records: list[Record] = attrs.Factory(list[Record])
    traffic: list[tuple[bool, bytes]] = attrs.Factory(list[tuple[bool, bytes]])
    key_log: list[str] = attrs.Factory(list[str])

    @property
    def loss(self) -> ConnectionLoss | None:
        """Why the connection has ended, or None."""
        last = self.events[-1] if self.events else None
        return last.error if isinstance(last, ConnectionLost) else None


Predicate = Callable[[Run], bool]
"""Whether a run shows what is looked for."""


@frozen
class Input:
    """What is left out or kept as one: something that the application did, and what it then asked for.

    Attributes:
        steps: The first is an input, a command or an answer, or the making of the connection.
    """

    steps: tuple[Step, ...]


def inputs(trace: Trace) -> list[Input]:
    """The inputs of a trace; the first is the making of the connection.

    Raises:
        TraceError: It has none.
    """
    taken = Steps()
    groups: list[list[Step]] = []
    for step in (*taken.feed(trace.records), *taken.finish()):
        if step.opening is not None:
            groups.append([step])
        elif not groups:
            raise TraceError("trace", "", step.records[0].offset, "it begins in the middle")
        elif step.call:
            groups[-1].append(step)
    if not groups:
        raise TraceError("trace", "", 0, "it ends before the connection was made")
    return [Input(tuple(group)) for group in groups]


def run(header: Header, chosen: Sequence[Input]) -> Run:
    """Run some inputs of a trace.

    Args:
        header: The trace's.
        chosen: Which; the first has to be the making of the connection.

    Raises:
        TraceError: They cannot be run.
    """
    first, *others = (step for given in chosen for step in given.steps)
    player = Player(header, first)
    found = Run()
    found.records += player.started.records
    if player.started.error is not None:
        found.raised.append(("", player.started.error))
        return found
    found.conn, found.key_log = player.conn, player.key_log
    for step in others:
        try:
            outcome = player.play(step, again=True)
        except UnknownQuestion:
            continue
        found.records += outcome.records
        found.events += outcome.events
        found.traffic += [(mine, data) for mine, data in ((False, outcome.received), (True, outcome.sent)) if data]
        if outcome.error is not None:
            found.raised.append((step.call, outcome.error))
    return found


# ----------------------------------------------------------------------------------------------------------- predicates


def same_end(trace: Trace) -> Predicate:
    """The connection ends for the same kind of reason: the class of the error, and its limit or timer if it has one.

    Raises:
        InvalidArgument: In the trace it does not end.
    """
    header = _header(trace)
    loss = run(header, inputs(trace)).loss
    if loss is None:
        raise InvalidArgument("the connection of this trace does not end; say what to look for")
    expected = _kind(loss)

    def shows(found: Run) -> bool:
        return found.loss is not None and _kind(found.loss) == expected

    return shows


def _kind(error: SSHError) -> tuple[Any, ...]:
    cause = error.__cause__  # of an InternalError, the exception that shows the bug
    told = tuple(getattr(error, name, None) for name in ("limit", "timer", "where", "category"))
    return type(error).__name__, *told, type(cause).__name__


def raises(name: str) -> Predicate:
    """A call raises an exception of that name."""
    return lambda found: any(type(error).__name__ == name for _, error in found.raised)


def ends_with(name: str) -> Predicate:
    """The connection ends with an error of that name."""
    return lambda found: found.loss is not None and type(found.loss).__name__ == name


def gives(name: str) -> Predicate:
    """There is an event of that name."""
    return lambda found: any(type(event).__name__ == name for event in found.events)


def finds(code: str) -> Predicate:
    """An observer of the connection, who has its keys, finds what has that code (:mod:`sshproto.replay.findings`)."""

    def shows(found: Run) -> bool:
        secrets = Secrets()
        secrets.add_key_log("\n".join(found.key_log))
        observer, findings = Observer(secrets), Findings()
        for mine, data in found.traffic:
            observer.feed(Side.DIALLER if mine else Side.DIALLED, data)
        observer.finish()
        while (seen := observer.next_event()) is not None:
            findings.add(seen)
        return any(finding.code == code for finding in findings.finish())

    return shows


# --------------------------------------------------------------------------------------------------------- minimisation


class _Spent(Exception):
    """All tries are spent."""


class _Search:
    """Looks for the least that shows it, and counts how often it has looked."""

    def __init__(self, tries: int, progress: Callable[[int, int], object] | None) -> None:
        self.left = tries
        self._progress = progress

    def reduce(self, items: list[T], shows: Callable[[list[T]], bool]) -> list[T]:
        """A part of ``items`` of which nothing more can be left out; larger when the tries are spent."""
        count = 2
        try:
            while items:
                size = -(-len(items) // count)
                for start in range(0, len(items), size):
                    rest = items[:start] + items[start + size :]
                    if self._look(shows, rest):
                        items = rest
                        count = max(count - 1, 2)
                        break
                else:
                    if size == 1:
                        break
                    count = min(count * 2, len(items))
        except _Spent:
            pass
        return items

    def shorten(self, items: list[T], shows: Callable[[list[T]], bool]) -> list[T]:
        """The shortest beginning that shows it, if all longer ones do so, too."""
        low, high = 0, len(items)
        try:
            while low < high:
                middle = (low + high) // 2
                if self._look(shows, items[:middle]):
                    high = middle
                else:
                    low = middle + 1
        except _Spent:
            pass
        return items[:high]

    def _look(self, shows: Callable[[list[T]], bool], items: list[T]) -> bool:
        if not self.left:
            raise _Spent
        self.left -= 1
        if self._progress is not None:
            self._progress(self.left, len(items))
        return shows(items)


def minimise(
    trace: Trace,
    predicate: Predicate | None = None,
    *,
    tries: int = TRIES,
    progress: Callable[[int, int], object] | None = None,
) -> Trace:
    """The smallest trace that still shows something.

    Args:
        trace: What shows it.
        predicate: Whether a run shows it; None for :func:`same_end`.
        tries: How often to run parts of the trace at most; when they are spent, the smallest so far is returned.
        progress: Called before each run with the tries left and how much is tried: inputs first, then bytes.

    Raises:
        TraceError: The trace cannot be replayed.
        InvalidArgument: It does not show it.
    """
    header = _header(trace)
    predicate = predicate or same_end(trace)
    first, *rest = inputs(trace)
    if not predicate(run(header, [first, *rest])):
        raise InvalidArgument("this trace does not show what is looked for")
    search = _Search(tries, progress)

    def shows(chosen: list[Input]) -> bool:
        return predicate(run(header, [first, *chosen]))

    chosen = search.reduce(search.shorten(rest, shows), shows)
    for place, given in enumerate(chosen):
        data = _chunk(given)
        if data is not None:
            shown = functools.partial(_shows_with, shows, chosen, place)
            chosen[place] = _with(given, bytes(search.reduce(search.shorten(list(data), shown), shown)))
    found = run(header, [first, *chosen])
    return Trace(header, tuple(found.records), None)


def _shows_with(shows: Callable[[list[Input]], bool], chosen: list[Input], place: int, data: list[int]) -> bool:
    return shows([*chosen[:place], _with(chosen[place], bytes(data)), *chosen[place + 1 :]])


def _header(trace: Trace) -> Header:
    if trace.header is None:
        raise TraceError("trace", "", 0, "it ends before its header does")
    return trace.header


def _chunk(given: Input) -> bytes | None:
    """What the peer sent in an input, or None if it is another."""
    opening = given.steps[0].opening
    if opening is None or opening.name != "ssh:bytes_in":
        return None
    return values.from_hex(opening.data["raw"]["data"], opening.name)


def _with(given: Input, data: bytes) -> Input:
    """An input of the peer's with other bytes."""
    step, *others = given.steps
    opening = step.opening
    if opening is None:
        return given
    opening = attrs.evolve(opening, data={**opening.data, "raw": values.raw(data)})
    changed = attrs.evolve(step, opening=opening, records=(opening, *step.records[1:]))
    return Input((changed, *others))
