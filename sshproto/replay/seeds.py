"""Traces as seeds for fuzzing: the same inputs in a form that a mutator can change without breaking it.

A seed is a row of items: one byte that says what it is, four bytes of length (big-endian), and so many bytes.  Every
string of bytes is a seed: a kind that is unknown is taken modulo the number of kinds, an item that is cut short is as
long as it is, and one that makes no sense is left out.

====  ==========  ==================================================================================================
kind  name        content
====  ==========  ==================================================================================================
0     start       JSON: ``role``, ``now``, ``config``, as ``ssh:connection_started`` has them; the first item
1     data        what the peer sends, in one chunk
2     time        the time from now on: seconds, a big-endian double
3     timeout     nothing; ``handle_timeout``
4     eof         nothing; ``receive_eof``
5     call        JSON: ``call`` and ``args``, as ``ssh:api_call`` has them
6     entropy     a label, a zero byte, and the bytes that the next inputs draw under it
7     oracle      a label, a zero byte, and what an oracle answers
====  ==========  ==================================================================================================

A connection made of a seed (:func:`play`) follows the pump rule: after each input all events are taken, and all output.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from sshproto.replay import values
from sshproto.replay.minimise import Run, inputs
from sshproto.replay.trace import Header, Privacy, Record, Trace, TraceError, as_object
from sshproto.replay.verify import Player, Step
from sshproto.wire.table import Role

_HEAD = struct.Struct(">BI")
_TIME = struct.Struct(">d")
_MOST_DRAINS = 1000  # rounds of events and output after one input


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


_INPUTS = {"ssh:bytes_in": Kind.DATA, "ssh:eof_in": Kind.EOF, "ssh:clock": Kind.TIMEOUT}
_OPENINGS = {kind: name for name, kind in _INPUTS.items()}


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
    for given in inputs(trace):
        for step in given.steps:
            for record in step.records:
                if record.name in ("ssh:entropy", "ssh:oracle") and "error" not in record.data:
                    kind = Kind.ENTROPY if record.name == "ssh:entropy" else Kind.ORACLE
                    label = str(record.data.get("label")).encode("utf-8", "replace")
                    out.append(_item(kind, label + b"\0" + _bytes(record)))
        opening = given.steps[0].opening
        if opening is None:
            continue
        moment = opening.data.get("now")
        if opening.name in _INPUTS and isinstance(moment, (int, float)) and moment != now:
            now = moment
            out.append(_item(Kind.TIME, _TIME.pack(float(now))))
        if opening.name == "ssh:connection_started":
            now = moment
            told = {name: opening.data.get(name) for name in ("role", "now", "config")}
            out.insert(0, _item(Kind.START, _json(told)))
        elif opening.name in _INPUTS:
            out.append(_item(_INPUTS[opening.name], _bytes(opening) if opening.name == "ssh:bytes_in" else b""))
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
        What has come of it; None if the first item does not say what connection to make.
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
        elif player is None or player.conn is None:
            return None
        elif kind is Kind.TIME:
            if len(content) == _TIME.size and math.isfinite(moment := _TIME.unpack(content)[0]):
                now = max(now, moment)
            continue
        else:
            opening = _opening(kind, content, now)
            if opening is not None:
                _do(player, opening, waiting, found)
            waiting = []
    return None if player is None else found


def _start(content: bytes, waiting: list[Record]) -> tuple[Player | None, float]:
    told = _object(content) or {}
    try:
        header = Header(role=Role(told.get("role")), privacy=Privacy.REPLAY)
        opening = Record(0, "ssh:connection_started", told)
        now = told.get("now")
        return Player(header, Step(0, "", opening, (opening, *waiting))), float(now or 0)
    except (TraceError, ValueError, TypeError, OverflowError):
        return None, 0.0


def _do(player: Player, opening: Record, waiting: list[Record], found: Run) -> None:
    """One input, and all that is to be taken after it."""
    call = {"ssh:bytes_in": "receive_data", "ssh:eof_in": "receive_eof", "ssh:clock": "handle_timeout"}
    name = call.get(opening.name, str(opening.data.get("call")))
    try:
        outcome = player.play(Step(0, name, opening, (opening, *waiting)))
    except TraceError:
        return
    found.events += outcome.events
    if outcome.error is not None:
        found.raised.append((name, outcome.error))
    asked = Record(0, "ssh:idle", {})
    taken = Record(0, "ssh:bytes_out", {})
    for _ in range(_MOST_DRAINS):
        for name, record in (("next_event", asked), ("data_to_send", taken)):
            outcome = player.play(Step(0, name, None, (record,)), again=True, load=False)
            found.events += outcome.events
            if outcome.error is not None:
                found.raised.append((name, outcome.error))
        if not outcome.records:
            return


def _opening(kind: Kind, content: bytes, now: float) -> Record | None:
    if kind is Kind.CALL:
        told = _object(content)
        return None if told is None else Record(0, "ssh:api_call", told)
    data: dict[str, Any] = {"now": now}
    if kind is Kind.DATA:
        data["raw"] = values.raw(content)
    return Record(0, _OPENINGS[kind], data)


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
