"""Reads an asciicast v3 by its specification, docs.asciinema.org/manual/asciicast/v3, and takes nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

Line = tuple[float, str, str]

_HEAD: dict[str, Any] = {
    "version": int,
    "term": dict,
    "timestamp": int,
    "idle_time_limit": (int, float),
    "command": str,
    "title": str,
    "env": dict,
    "tags": list,
}
_TERM: dict[str, Any] = {"cols": int, "rows": int, "type": str, "version": str, "theme": dict}
_NUMBER = re.compile(r"\[(\d+(?:\.\d+)?), ")


def read(data: bytes) -> tuple[dict[str, Any], list[Line]]:
    """The header and the events of a recording.

    Raises:
        AssertionError: It is none.
    """
    text = data.decode("utf-8")
    assert text.endswith("\n")
    first, *rest = text[:-1].split("\n")
    head = json.loads(first)
    _check(head, _HEAD)
    assert head["version"] == 3
    _check(head["term"], _TERM)
    assert head["term"]["cols"] > 0
    assert head["term"]["rows"] > 0
    assert all(isinstance(each, str) for pair in head.get("env", {}).items() for each in pair)
    assert all(isinstance(tag, str) for tag in head.get("tags", []))
    lines = [_event(line) for line in rest if not line.startswith("#")]
    assert "x" not in [code for _, code, _ in lines[:-1]], "the exit status comes last"
    return head, lines


def _check(found: Any, expected: dict[str, Any]) -> None:
    assert isinstance(found, dict)
    for name, value in found.items():
        assert name in expected, name
        assert isinstance(value, expected[name]), name
        assert not isinstance(value, bool), name
    assert {"version", "term"} <= found.keys() or {"cols", "rows"} <= found.keys()


def _event(line: str) -> Line:
    assert _NUMBER.match(line), line
    interval, code, data = json.loads(line)
    assert code in "oirmx"
    assert len(code) == 1
    assert isinstance(data, str)
    data.encode("utf-8")
    if code == "r":
        assert re.fullmatch(r"[1-9]\d*x[1-9]\d*", data)
    elif code == "x":
        assert re.fullmatch(r"\d+", data)
    return interval, code, data


def at(lines: list[Line]) -> list[Line]:
    """The same with times since the beginning, in place of intervals."""
    now = 0.0
    found: list[Line] = []
    for interval, code, data in lines:
        now += interval
        found.append((round(now, 6), code, data))
    return found
