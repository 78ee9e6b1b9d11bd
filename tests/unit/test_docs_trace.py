"""``docs/reference/trace-schema.md`` says what the code writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sshproto.client import ClientConnection
from sshproto.replay.trace import file as trace
from sshproto.replay.trace import seeds, values
from sshproto.replay.trace.file import EVENTS, FORMAT, SCHEMA, Header, Privacy
from sshproto.replay.trace.recording import methods
from sshproto.server import ServerConnection
from sshproto.wire.table import Role
from tests.support import traces

PAGE = (Path(__file__).resolve().parents[2] / "docs/reference/trace-schema.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the table in a section, its head left out."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[1:] if not line.startswith("|--")
    ]


def test_events() -> None:
    told = [
        (name.strip("`"), kind, level.strip("`"), what.replace("`", "")) for name, kind, level, what in rows("Events")
    ]
    assert told == [(name, kind.importance.value, kind.level.value, kind.what) for name, kind in EVENTS.items()]


def test_levels() -> None:
    assert [name.strip("`") for name, _ in rows("Levels")] == [level.value for level in Privacy]


def test_header() -> None:
    written = Header(role=Role.CLIENT, privacy=Privacy.REPLAY, title="a title").as_dict()
    told = {name.strip("`"): words for name, words in rows("Header")}

    def leaves(prefix: str, value: object) -> list[str]:
        if prefix in told or not isinstance(value, dict):
            return [prefix]
        return [leaf for key, inner in value.items() for leaf in leaves(f"{prefix}.{key}".lstrip("."), inner)]

    assert sorted(leaves("", written)) == sorted(told)
    assert told["file_schema"] == f"`{trace.FILE_SCHEMA}`"
    assert told["serialization_format"] == f"`{trace.SERIALIZATION}`"
    assert told["trace.common_fields.ssh_format"].startswith(f"{FORMAT},")
    assert f"\n{SCHEMA}\n" in PAGE
    assert f"`{trace.SUFFIX}`" in PAGE


def test_values() -> None:
    told = [name.strip("`") for name, _ in rows("Values")]
    assert set(values.Decoder._KINDS) <= set(told)
    assert set(told) - set(values.Decoder._KINDS) == {"$error", "$hidden"}
    documented = re.findall(r"^``(\$\w+)``", values.__doc__ or "", re.MULTILINE)
    assert set(documented) | {"$private_key"} == set(told)


def test_seeds() -> None:
    kinds = {int(number): name.strip("`") for number, name, _ in rows("Seeds")}
    assert kinds == {kind.value: kind.name.lower() for kind in seeds.Kind}


@pytest.mark.parametrize("level", list(Privacy))
def test_data(level: Privacy) -> None:
    """Each field that is written is named where the page says what the event's data are."""
    told = {name: words for names, words in rows("Data") for name in re.findall(r"`([\w:]+)`", names)}
    other = next(words for names, words in rows("Data") if names.startswith("all others"))
    recorded = traces.confide(level)
    for record in (*trace.read(bytes(recorded.client)).records, *trace.read(bytes(recorded.server)).records):
        words = told.get(record.name, "" if record.name == "ssh:idle" else other)
        for field in set(record.data) - {"step", "deadline"}:
            assert f"`{field}`" in words, (record.name, field)


def test_every_event_has_its_data_described() -> None:
    told = {name for names, _ in rows("Data") for name in re.findall(r"`(ssh:\w+)`", names)}
    assert told <= set(EVENTS)
    assert {name for name, kind in EVENTS.items() if not kind.what[0].isupper()} == told | {"ssh:idle"}


def test_the_methods_that_a_trace_can_call_are_those_of_the_connections() -> None:
    """What a trace names is looked up among these alone."""
    assert "_engine" not in methods(ClientConnection)
    assert set(methods(ClientConnection)) & set(methods(ServerConnection)) >= {"receive_data", "send", "disconnect"}


def test_the_size_from_which_an_output_is_a_digest() -> None:
    assert f"more than {values.DIGEST_ABOVE} bytes" in PAGE
    assert "sha256" in values.raw(bytes(values.DIGEST_ABOVE + 1), output=True)
    assert "sha256" not in values.raw(bytes(values.DIGEST_ABOVE), output=True)
    assert len(json.loads(json.dumps(values.raw(bytes(1000), output=True)))["data"]) == 64
