"""``docs/reference/replay.md`` says what the code says: every name is there, and every default is the code's."""

from __future__ import annotations

import inspect
import re
from typing import Any

import attrs
import pytest

from sshproto.events import Event
from sshproto.replay import events
from sshproto.replay.analysis import Analysis, AnalysisLimits, Conversation
from sshproto.replay.capture.inflate import InflateLimits
from sshproto.replay.capture.network import NetworkLimits
from sshproto.replay.capture.ordering import ReassemblyLimits
from sshproto.replay.capture.reader import CaptureLimits
from sshproto.replay.observer import Observer
from sshproto.replay.secrets import Secrets
from sshproto.replay.summary import Summary
from tests.unit.test_docs_reference import names_in, quantity, read, rows, sections

PAGE = read("replay.md")
SECTIONS = sections(PAGE, 2)


def told(title: str) -> dict[str, str]:
    """The names in the first cells of a table, each with its arguments, if it has any."""
    cells = [row[0] for row in rows(SECTIONS[title])]
    return {name: arguments for cell in cells for name, arguments in re.findall(r"`(\w+)(\([^`]*\))?`", cell)}


def public(it: Any) -> set[str]:
    """All that an object has for others."""
    return {name for name in dir(it) if not name.startswith("_")}


@pytest.mark.parametrize("kind", [Analysis, Observer, Secrets])
def test_every_name_is_told_with_its_arguments(kind: Any) -> None:
    title, it = kind.__name__, kind()
    found = told(title)
    internal = {"Analysis": {"secrets"}, "Observer": set[str](), "Secrets": {"candidates", "derived"}}[title]
    assert set(found) == public(it) - internal
    for name, arguments in found.items():
        member = getattr(it, name)
        if callable(member) and name != "kex":
            names = [re.split("[:=]", part)[0].strip() for part in arguments.strip("()").split(",") if part.strip()]
            assert [each for each in names if each != "*"] == list(inspect.signature(member).parameters), name


def test_conversations() -> None:
    assert set(told("Conversation")) == {name for name in Conversation.__slots__ if not name.startswith("_")}


def test_events() -> None:
    found = {cells[0].strip("`"): names_in(cells[1]) for cells in rows(SECTIONS["What is told"])}
    kinds = {
        name: [field.name for field in attrs.fields(kind)]
        for name, kind in vars(events).items()
        if inspect.isclass(kind) and issubclass(kind, Event) and kind.__module__ == events.__name__
    }
    assert found == kinds
    first = ", ".join(field.name for field in attrs.fields(events.Observed))
    assert f"`Observed({first})`" in SECTIONS["What is told"]
    for member in events.Integrity:
        assert member.name in SECTIONS["What is told"]


def test_summaries() -> None:
    assert list(told("Summary")) == list(Summary().as_dict())
    head = SECTIONS["Summary"].partition("| key |")[0]
    for name in public(Summary()):
        assert f"`{name}" in head, name


def test_limits() -> None:
    found = {cells[0].strip("`"): quantity(cells[1]) for cells in rows(SECTIONS["Limits"])}
    classes = (AnalysisLimits, CaptureLimits, NetworkLimits, ReassemblyLimits, InflateLimits)
    expected = {
        f"{limits.__name__}.{field.name}": field.default
        for limits in classes
        for field in attrs.fields(limits)
        if isinstance(field.default, int) and "patience" not in field.name
    }
    assert found == expected
    assert "`ReassemblyLimits.patience` and `lone_patience`" in SECTIONS["Limits"]


@pytest.mark.parametrize("kind", [Analysis, Observer, Secrets])
def test_constructors(kind: Any) -> None:
    arguments = re.search(rf"`{kind.__name__}\(([^`]*)\)`", SECTIONS[kind.__name__])
    assert arguments is not None
    parts = [part.strip() for part in arguments[1].split(",") if part.strip() != "*"]
    parameters = inspect.signature(kind).parameters
    assert [part.partition("=")[0] for part in parts] == list(parameters)
    for part, parameter in zip(parts, parameters.values(), strict=True):
        told_default = part.partition("=")[2]
        assert told_default in (
            str(parameter.default),
            repr(set(parameter.default or ())) if told_default[0] == "{" else "",
        )
