"""The page on ssh_config tells every keyword, with what is done about it, and every name."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from sshproto import ssh_config
from sshproto.ssh_config import KEYWORDS, HostConfig, Standing

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "ssh-config.md").read_text(encoding="utf-8")
TABLE = PAGE.split("\n## Keywords\n")[1].split("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")] for line in TABLE.splitlines() if line.startswith("| `")
]


def test_every_keyword_is_told_with_its_standing() -> None:
    told = {row[0].strip("` "): row[1] for row in ROWS}
    assert told == {one.name: one.standing.value for one in KEYWORDS if one.standing is not Standing.IGNORED}
    passed = re.search(r"Passed over, as by `ssh`.*?: (.*)\.\n", TABLE)
    assert passed
    names = re.findall(r"`(\w+)`", passed[1])
    assert names == [one.name for one in KEYWORDS if one.standing is Standing.IGNORED]


def test_every_default_and_alias_is_told() -> None:
    rows = {row[0].strip("` "): row for row in ROWS}
    elsewhere = {"RekeyLimit", "ForwardAgent", "UpdateHostKeys", "GSSAPIKexAlgorithms"}  # in words
    for keyword in KEYWORDS:
        if keyword.standing is Standing.IGNORED:
            continue
        row = rows[keyword.name]
        assert all(f"`{alias}`" in row[3] for alias in keyword.aliases), keyword.name
        if keyword.default not in (None, ()) and keyword.name not in elsewhere:
            shown = keyword.kind.show(keyword.default)
            assert row[2].strip("`") == {"true": "yes", "false": "no"}.get(shown, shown), keyword.name


def test_every_name_is_told() -> None:
    body = PAGE.split("\n## Names\n")[1].split("\n## ")[0]
    assert set(ssh_config.__all__) <= set(re.findall(r"\w+", body))
    fields = {field.name for field in attrs.fields(HostConfig)}
    methods = {name for name in vars(HostConfig) if not name.startswith("_")} - fields
    assert methods <= set(re.findall(r"\w+", body))
