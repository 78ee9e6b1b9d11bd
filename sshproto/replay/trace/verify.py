"""Replays a trace: the same inputs must give the same events and the same output, to the byte.

A :class:`Player` makes the connection anew and does step by step what the trace says, with the trace's own time, random
bytes and oracle.  It is recorded again meanwhile, by what recorded the trace; so what came then and what comes now are
two lists of records, and the first pair that differs is the :class:`Divergence`.

This is for traces of our own connections.  Whether somebody else's bytes can be read is another question, that of
:mod:`sshproto.replay.observer`, where nothing is sent and no key but those that are given is known.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import attrs

from sshproto.client import ClientConnection
from sshproto.errors import SignatureInvalid
from sshproto.events import Event, Question
from sshproto.keys.public import PublicKey
from sshproto.replay.trace import values
from sshproto.replay.trace.file import (
    LONGEST_RECORD,
    NAMES,
    Cut,
    Header,
    Privacy,
    Record,
    TraceError,
    TraceReader,
    as_list,
    as_object,
    whole,
)
from sshproto.replay.trace.recording import Recording, SigningKey, methods
from sshproto.server import ServerConnection
from sshproto.text import printable
from sshproto.values import define, frozen
from sshproto.wire.codec import Buffer
from sshproto.wire.table import Role

_CONNECTIONS: dict[Role, Any] = {Role.CLIENT: ClientConnection, Role.SERVER: ServerConnection}
_STARTED = "ssh:connection_started"
_INPUTS = {"ssh:bytes_in": "receive_data", "ssh:eof_in": "receive_eof", "ssh:clock": "handle_timeout"}
_OUTPUTS = {"ssh:bytes_out": "data_to_send", "ssh:idle": "next_event", **dict.fromkeys(NAMES.values(), "next_event")}
_SHOWN = 200  # characters of a value in a report


# ---------------------------------------------------------------------------------------------------------------- steps


@frozen
class Step:
    """All records of one step.

    Attributes:
        number: Its number.
        call: The method that was called; ``""`` for the making of the connection, and for a last step that was cut off
            before it is known.
        opening: The record of what was asked, if it has one.
        records: All of them, that included.
    """

    number: int
    call: str
    opening: Record | None
    records: tuple[Record, ...]

    @property
    def ended(self) -> bool:
        """Whether what came out of it is among the records."""
        last = self.records[-1].name
        return last == "ssh:api_result" or last in _OUTPUTS

    @property
    def idle(self) -> bool:
        """Whether the next event was asked for, and there was none."""
        return self.records[-1].name == "ssh:idle"


def _step(number: int, records: list[Record]) -> Step:
    first, last = records[0], records[-1]
    if first.name == _STARTED:
        return Step(number, "", first, tuple(records))
    if first.name in _INPUTS:
        return Step(number, _INPUTS[first.name], first, tuple(records))
    if first.name == "ssh:api_call":
        call = first.data.get("call")
        return Step(number, call if isinstance(call, str) else "", first, tuple(records))
    # Without a record that opens it, an event or data was asked for; if that raised, it was an event.
    call = "next_event" if last.name == "ssh:api_result" else _OUTPUTS.get(last.name, "")
    return Step(number, call, None, tuple(records))


class Steps:
    """Takes the records of a trace apart into its steps."""

    def __init__(self) -> None:
        self._number = -1
        self._records: list[Record] = []

    def feed(self, records: Iterable[Record]) -> Iterator[Step]:
        """The steps that are complete, since the next one has begun.

        Raises:
            TraceError: A record has no step, or an earlier one.
        """
        for record in records:
            if not record.name.startswith("ssh:"):
                continue  # qlog lets others say things, too
            number = record.data.get("step")
            if isinstance(number, bool) or not isinstance(number, int) or number < self._number or number < 0:
                raise TraceError(record.name, "step", record.offset, f"a step after {self._number} was expected")
            if number != self._number:
                yield from self.finish()
                self._number = number
            self._records.append(record)

    def finish(self) -> Iterator[Step]:
        """The last step, if there was any."""
        if self._records:
            yield _step(self._number, self._records)
            self._records = []


# --------------------------------------------------------------------------------------------------------------- player


class Tape:
    """Random bytes and the oracle's answers, from a trace.

    What the trace does not have, since something else is asked for than was then, is made up: always the same for
    random bytes, and computed for an oracle.
    """

    def __init__(self) -> None:
        self._entropy: dict[str, deque[bytes]] = {}
        self._answers: dict[str, deque[tuple[bytes, Any]]] = {}
        self._made_up = 0

    def load(self, records: Iterable[Record]) -> None:
        """What the next step is to have; what the one before has left is forgotten.

        Raises:
            TraceError: There are no bytes where some should be.
        """
        self._entropy.clear()
        self._answers.clear()
        for record in records:
            if record.name == "ssh:entropy":
                self._entropy.setdefault(str(record.data.get("label")), deque()).append(_raw(record))
            elif record.name == "ssh:oracle":
                error = as_object(record.data.get("error"))
                answer = (_raw(record), None) if error is None else (b"", error)
                self._answers.setdefault(str(record.data.get("label")), deque()).append(answer)

    def entropy(self, count: int, label: str) -> bytes:
        """See :data:`sshproto.config.Entropy`."""
        waiting = self._entropy.get(label)
        if waiting and len(waiting[0]) == count:
            return waiting.popleft()
        self._made_up += 1
        return hashlib.shake_256(f"{label} {self._made_up}".encode()).digest(count)

    def oracle(self, label: str, compute: Callable[[], bytes]) -> bytes:
        """See :data:`sshproto.config.Oracle`."""
        waiting = self._answers.get(label)
        if not waiting:
            return compute()
        answer, error = waiting.popleft()
        if error is not None:
            raise values.error_class(error.get("$error"))(str(error.get("text", "")))
        return answer


@define
class Outcome:
    """What a step has given.

    Attributes:
        records: As it was recorded again.
        events: What ``next_event`` has returned.
        error: What the call raised, or None.
        received: What the peer sent.
        sent: What was to be sent to it.
    """

    records: list[Record] = attrs.Factory(list[Record])
    events: list[Event] = attrs.Factory(list[Event])
    error: Exception | None = None
    received: bytes = b""
    sent: bytes = b""


class Player:
    """Makes a connection of a trace, and does with it what the trace says.

    Args:
        header: The trace's.
        start: Its first step.

    Attributes:
        conn: The connection.
        started: What making it has given.
        key_log: The lines of a key log that belong to it.

    Raises:
        TraceError: The trace cannot be replayed.
    """

    conn: Any

    def __init__(self, header: Header, start: Step) -> None:
        if header.privacy is not Privacy.REPLAY:
            level = header.privacy.value
            raise TraceError(
                "trace", "privacy", 0, f"only a trace of the level 'replay' can be replayed, not '{level}'"
            )
        opening = start.opening
        if opening is None or opening.name != _STARTED:
            raise TraceError("trace", "", start.records[0].offset, f"it begins with {_STARTED}")
        self.tape = Tape()
        self.key_log: list[str] = []
        self._outcome = Outcome()
        self._decoder = values.Decoder(self._signing_key)
        recording = Recording(self._put, Privacy.REPLAY)
        with _placed(opening):
            self.tape.load(start.records)
            config = self._decoder.config(
                header.role,
                opening.data.get("config"),
                entropy=self.tape.entropy,
                oracle=self.tape.oracle,
                record=recording,
                key_log=self.key_log.append,
            )
            # Nobody's packets are larger; and a trace is input, which must not inflate to more than memory holds.
            packet = min(config.limits.packet, LONGEST_RECORD)
            config = attrs.evolve(config, limits=attrs.evolve(config.limits, packet=packet))
            now = self._now(opening)
        kind = _CONNECTIONS[header.role]
        self._methods = frozenset(methods(kind))
        try:
            self.conn = kind(config, now)
        except Exception as error:  # noqa: BLE001  it is an outcome like others
            self._outcome.error = error
        self.started = self._outcome

    def play(self, step: Step, *, again: bool = False) -> Outcome:
        """Do one step.

        Args:
            step: Which; not the first.
            again: Ask for events until there is none, where the trace asked once and there was none.

        Raises:
            TraceError: It asks for what cannot be.
        """
        outcome = self._outcome = Outcome()
        if step.call not in self._methods or self.conn is None:
            where = step.records[-1]
            raise TraceError(where.name, "call", where.offset, f"there is no method {printable(step.call)!r}")
        with _placed(step.opening or step.records[0]):
            self.tape.load(step.records)
            given = self._given(step)
        method = getattr(self.conn, step.call)
        try:
            result = method(**given)
            while again and step.idle and result is not None:
                self._note(result, outcome)
                result = method()
        except Exception as error:  # noqa: BLE001  it is an outcome like others
            outcome.error = error
            return outcome
        if step.call == "next_event":
            self._note(result, outcome)
        elif step.call == "data_to_send":
            outcome.sent = bytes(result or b"")
        elif step.call == "receive_data":
            outcome.received = given["data"]
        return outcome

    def _put(self, record: Record) -> None:
        self._outcome.records.append(record)

    def _note(self, event: Event | None, outcome: Outcome) -> None:
        if event is not None:
            outcome.events.append(event)
        if isinstance(event, Question):
            self._decoder.questions[event.id] = event

    def _given(self, step: Step) -> dict[str, Any]:
        opening = step.opening
        if opening is None:
            return {}
        if opening.name == "ssh:api_call":
            told = as_object(opening.data.get("args"))
            if told is None:
                raise TraceError(step.call, "args", opening.offset, "an object was expected")
            return {name: self._decoder.value(value, name) for name, value in told.items()}
        given: dict[str, Any] = {"now": self._now(opening)}
        if opening.name == "ssh:bytes_in":
            given["data"] = _raw(opening)
        return given

    def _now(self, record: Record) -> Any:
        now = self._decoder.value(record.data.get("now"), "now")
        if isinstance(now, bool) or not isinstance(now, (int, float)) or math.isnan(now):
            raise TraceError(record.name, "now", record.offset, "seconds were expected")
        return now

    def _signing_key(self, key: PublicKey) -> SigningKey:
        def sign(data: Buffer, algorithm: str | None) -> bytes:
            raise SignatureInvalid("a replay has the signatures of its trace only; there is none for this")

        return SigningKey(key, self.tape.oracle, sign)


def _raw(record: Record) -> bytes:
    raw = as_object(record.data.get("raw"))
    if raw is None or "sha256" in raw:
        raise TraceError(record.name, "raw", record.offset, "an object with 'data' was expected")
    return values.from_hex(raw.get("data"), record.name)


@contextmanager
def _placed(record: Record) -> Iterator[None]:
    """Says where an error is that does not know it."""
    try:
        yield
    except TraceError as error:
        if error.offset >= 0:
            raise
        raise type(error)(f"{record.name}, {error.where}", error.field, record.offset, error.problem) from None


# --------------------------------------------------------------------------------------------------------------- verify


@frozen
class Divergence:
    """The first difference between a trace and its replay.

    Attributes:
        step: The number of the step.
        call: The method that was called; ``""`` for the making of the connection.
        expected: The record in the trace; None if it has no more for this step.
        got: The record that came now; None if there is no more.
    """

    step: int
    call: str
    expected: Record | None
    got: Record | None

    def differences(self) -> list[tuple[str, Any, Any]]:
        """What differs: the place in the records, what the trace has there, and what came."""
        mine = None if self.expected is None else self.expected.as_dict()
        other = None if self.got is None else self.got.as_dict()
        return list(_differences("", mine, other))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "step": self.step,
            "call": self.call,
            "offset": None if self.expected is None else self.expected.offset,
            "expected": None if self.expected is None else self.expected.as_dict(),
            "got": None if self.got is None else self.got.as_dict(),
            "differences": [
                {"where": where, "expected": mine, "got": other} for where, mine, other in self.differences()
            ],
        }

    def __str__(self) -> str:
        lines = [f"step {self.step}, {self.call or 'the making of the connection'}:"]
        for name, record in (("expected", self.expected), ("got", self.got)):
            lines.append(f"  {name:8}  {'nothing more' if record is None else _short(record.as_dict())}")
        if self.expected is not None and self.got is not None:
            for where, mine, other in self.differences():
                lines.append(f"  at {where}: expected {_short(mine)}, got {_short(other)}")
        return "\n".join(lines)


_ABSENT = "(absent)"


def _differences(where: str, mine: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    left, right = as_object(mine), as_object(other)
    if left is not None and right is not None:
        for key in [*left, *(key for key in right if key not in left)]:
            yield from _differences(f"{where}.{key}".lstrip("."), left.get(key, _ABSENT), right.get(key, _ABSENT))
    elif not _same(mine, other):
        yield where, mine, other


def _same(mine: Any, other: Any) -> bool:
    """Equal, and of one type: to JSON, ``true`` is not 1."""
    left, right = as_object(mine), as_object(other)
    if left is not None and right is not None:
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    first, second = as_list(mine), as_list(other)
    if first is not None and second is not None:
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(mine == other) and isinstance(mine, bool) == isinstance(other, bool)


def _short(value: Any) -> str:
    return printable(str(value), _SHOWN)


@frozen
class Verdict:
    """What a replay has shown.

    Attributes:
        header: Of the trace.
        steps: How many were replayed, and did what they did then.
        divergence: The first difference; None if there is none.
        cut: Where the file was cut; what came before is replayed all the same.
    """

    header: Header
    steps: int
    divergence: Divergence | None
    cut: Cut | None

    @property
    def exact(self) -> bool:
        """Whether all is as it was."""
        return self.divergence is None


class Verifier:
    """Replays a trace piece by piece, and stops at the first difference."""

    def __init__(self) -> None:
        self._reader = TraceReader()
        self._steps = Steps()
        self._player: Player | None = None
        self._divergence: Divergence | None = None
        self._done = 0

    def feed(self, data: Buffer) -> Divergence | None:
        """Replay what is complete with ``data``.

        Returns:
            The first difference, once there is one.

        Raises:
            TraceError: This is no trace, it is damaged, or it cannot be replayed.
        """
        if self._divergence is None:
            for step in self._steps.feed(self._reader.feed(data)):
                if not self._play(step, last=False):
                    break
        return self._divergence

    def finish(self) -> Verdict:
        """The end of the file has come.

        Raises:
            TraceError: See :meth:`feed`; or nothing is there that could be replayed.
        """
        if self._divergence is None:
            for step in (*self._steps.feed(self._reader.finish()), *self._steps.finish()):
                if self._divergence is None:
                    self._play(step, last=True)
        header = self._reader.header
        if header is None or (self._player is None and self._divergence is None):
            raise TraceError("trace", "", 0, "it ends before the connection was made")
        return Verdict(header, self._done, self._divergence, self._reader.cut)

    def _play(self, step: Step, *, last: bool) -> bool:
        """Replay a step; whether it did what it did then."""
        header = self._reader.header
        if self._player is None:
            if header is None:
                raise TraceError("trace", "", 0, "it has no header")
            self._player = Player(header, step)
            outcome = self._player.started
        elif last and not step.call:
            return True  # cut off before it is known what was asked
        else:
            outcome = self._player.play(step)
        self._divergence = _compare(step, outcome.records)
        self._done += self._divergence is None
        return self._divergence is None


def _compare(step: Step, got: list[Record]) -> Divergence | None:
    for expected, came in zip_longest(step.records, got):
        if expected is None and not step.ended:
            return None  # the recording ended in the middle of the step
        if expected is None or came is None or not _same(_output(expected), _output(came)):
            return Divergence(step.number, step.call, expected, came)
    return None


def _output(record: Record) -> dict[str, Any]:
    """A record without the configuration, which is an input, and of which another version may know more."""
    told = record.as_dict()
    if record.name == _STARTED:
        told["data"] = {name: value for name, value in record.data.items() if name != "config"}
    return told


def verify(chunks: Buffer | Iterable[Buffer]) -> Verdict:
    """Replay a whole trace.

    Args:
        chunks: The file, in one piece or several.

    Raises:
        TraceError: This is no trace, it is damaged, or it cannot be replayed.
    """
    verifier = Verifier()
    for chunk in whole(chunks):
        if verifier.feed(chunk) is not None:
            break
    return verifier.finish()
