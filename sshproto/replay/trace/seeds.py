"""Traces as seeds for fuzzing: the same inputs in a form that a mutator can change without breaking it.

A seed is a row of items: one byte that says what it is, four bytes of length (big-endian), and so many bytes.  Every
string of bytes is a seed: a kind that is unknown is taken modulo the number of kinds, an item that is cut short is as
long as it is, and one that makes no sense is left out.

====  ==========  ==================================================================================================
kind  name        content
====  ==========  ==================================================================================================
0     start       JSON: ``role``, ``now``, ``config``, as ``ssh:connection_started`` has them
1     data        what the peer sends, in one chunk
2     time        the time from now on: seconds, a big-endian double
3     timeout     nothing; ``handle_timeout``
4     eof         nothing; ``receive_eof``
5     call        JSON: ``call`` and ``args``, as ``ssh:api_call`` has them
6     entropy     a label, a zero byte, and the bytes that the next item draws under it
7     oracle      a label, a zero byte, and what an oracle answers
8     event       nothing; ``next_event``, once
9     drain       nothing; ``next_event`` until there is none
10    take        nothing; ``data_to_send``
====  ==========  ==================================================================================================

The connection is made where the first ``start`` stands.  What an item draws stands before it.  At the end of a seed
all events and all output are taken.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from sshproto.replay.trace import values
from sshproto.replay.trace.file import Header, Privacy, Record, Trace, TraceError, as_object
from sshproto.replay.trace.minimise import Run, inputs
from sshproto.replay.trace.verify import Player, Step
from sshproto.wire.table import Role

_HEAD = struct.Struct(">BI")
_TIME = struct.Struct(">d")
_MOST_DRAINS = 1000  # rounds of events and output at the end


class Kind(IntEnum):
    """What an item is."""

    START = 0
    DATA = 1
    TIME = 2
    TIMEOUT = 3
    EOF = 4
    CALL = 5
    ENTROPY = 6
    ORACLE = 7
    EVENT = 8
    DRAIN = 9
    TAKE = 10


_INPUTS = {"receive_data": Kind.DATA, "receive_eof": Kind.EOF, "handle_timeout": Kind.TIMEOUT}
_OPENINGS = {
    Kind.DATA: ("receive_data", "ssh:bytes_in"),
    Kind.EOF: ("receive_eof", "ssh:eof_in"),
    Kind.TIMEOUT: ("handle_timeout", "ssh:clock"),
}
_OUTPUTS = {
    Kind.EVENT: ("next_event", "ssh:pong"),
    Kind.DRAIN: ("next_event", "ssh:idle"),
    Kind.TAKE: ("data_to_send", "ssh:bytes_out"),
}
"""What stands for an output in a step: the method, and a record; any event will do."""


def seed(trace: Trace) -> bytes:
    """A trace as a seed.

    Raises:
        TraceError: The trace cannot be replayed.
    """
    header = trace.header
    if header is None or header.privacy is not Privacy.REPLAY:
        raise TraceError("trace", "privacy", 0, "only a trace of the level 'replay' holds what a seed needs")
    out: list[bytes] = []
    now: Any = None
    for step in (step for given in inputs(trace) for step in given.steps):
        opening = step.opening
        moment = None if opening is None else opening.data.get("now")
        if step.call in _INPUTS and moment != now and isinstance(moment, (int, float)):
            now = moment
            out.append(_item(Kind.TIME, _TIME.pack(float(moment))))
        for record in step.records:
            if record.name in ("ssh:entropy", "ssh:oracle") and "error" not in record.data:
                kind = Kind.ENTROPY if record.name == "ssh:entropy" else Kind.ORACLE
                label = str(record.data.get("label")).encode("utf-8", "replace")
                out.append(_item(kind, label + b"\0" + _bytes(record)))
        if opening is None:
            taken = Kind.TAKE if step.call == "data_to_send" else Kind.DRAIN if step.idle else Kind.EVENT
            out.append(_item(taken, b""))
        elif opening.name == "ssh:connection_started":
            now = moment
            out.append(_item(Kind.START, _json({name: opening.data.get(name) for name in ("role", "now", "config")})))
        elif step.call in _INPUTS:
            kind = _INPUTS[step.call]
            out.append(_item(kind, _bytes(opening) if kind is Kind.DATA else b""))
        else:
            out.append(_item(Kind.CALL, _json({name: opening.data.get(name) for name in ("call", "args")})))
    return b"".join(out)


def items(data: bytes) -> Iterator[tuple[Kind, bytes]]:
    """The items of a seed; of any bytes."""
    place = 0
    while place + _HEAD.size <= len(data):
        kind, length = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        yield Kind(kind % len(Kind)), data[place : place + length]
        place += length


def play(data: bytes) -> Run | None:
    """Make a connection of a seed and give it all that is in it.

    Returns:
        What has come of it; None if it does not say what connection to make before the first input.
    """
    player: Player | None = None
    found = Run()
    waiting: list[Record] = []
    now = 0.0
    for kind, content in items(data):
        if kind is Kind.ENTROPY or kind is Kind.ORACLE:
            waiting.append(_drawn(kind, content))
        elif kind is Kind.START:
            if player is None:
                player, now = _start(content, waiting)
                if player is None:
                    return None
                found.conn = player.conn
                found.records += player.started.records
            waiting = []
        elif player is None or player.conn is None:
            return None
        elif kind is Kind.TIME:
            if len(content) == _TIME.size and math.isfinite(moment := _TIME.unpack(content)[0]):
                now = max(now, moment)
            continue
        else:
            _do(player, _step(kind, content, now, waiting), found)
            waiting = []
    if player is None:
        return None
    for _ in range(_MOST_DRAINS if player.conn is not None else 0):
        if not _do(player, _step(Kind.DRAIN, b"", now, []), found) | _do(player, _step(Kind.TAKE, b"", now, []), found):
            break
    return found


def _start(content: bytes, waiting: list[Record]) -> tuple[Player | None, float]:
    told = _object(content) or {}
    try:
        header = Header(role=Role(told.get("role")), privacy=Privacy.REPLAY)
        opening = Record(0, "ssh:connection_started", told)
        now = told.get("now")
        return Player(header, Step(0, "", opening, (opening, *waiting))), float(now or 0)
    except (TraceError, ValueError, TypeError, OverflowError):
        return None, 0.0


def _do(player: Player, step: Step | None, found: Run) -> bool:
    """Whether a step, if it is one, has done anything."""
    if step is None:
        return False
    try:
        outcome = player.play(step, again=True)
    except TraceError:
        return False
    found.events += outcome.events
    found.records += outcome.records
    if outcome.error is not None:
        found.raised.append((step.call, outcome.error))
    return any(record.name != "ssh:idle" for record in outcome.records)


def _step(kind: Kind, content: bytes, now: float, drawn: list[Record]) -> Step | None:
    if kind in _OUTPUTS:
        call, name = _OUTPUTS[kind]
        return Step(0, call, None, (*drawn, Record(0, name, {})))
    if kind is Kind.CALL:
        told = _object(content)
        if told is None:
            return None
        call, opening = str(told.get("call")), Record(0, "ssh:api_call", told)
    else:
        call, name = _OPENINGS[kind]
        data: dict[str, Any] = {"now": now}
        if kind is Kind.DATA:
            data["raw"] = values.raw(content)
        opening = Record(0, name, data)
    return Step(0, call, opening, (opening, *drawn))


def _drawn(kind: Kind, content: bytes) -> Record:
    label, _, drawn = content.partition(b"\0")
    name = "ssh:entropy" if kind is Kind.ENTROPY else "ssh:oracle"
    return Record(0, name, {"label": label.decode("utf-8", "replace"), "raw": values.raw(drawn)})


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        return as_object(json.loads(content))
    except (ValueError, RecursionError):
        return None


def _bytes(record: Record) -> bytes:
    raw = as_object(record.data.get("raw")) or {}
    return values.from_hex(raw.get("data"), record.name)


def _item(kind: Kind, content: bytes) -> bytes:
    return _HEAD.pack(kind, len(content)) + content


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
