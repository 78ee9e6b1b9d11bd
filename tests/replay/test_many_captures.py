"""The recipes of docs/how-to/many-captures.md, run as a reader would: as scripts, beside a folder of captures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sshproto.replay.rows import CONNECTION_COLUMNS, EVENT_COLUMNS, rows_of
from tests.replay.files import capture, damaged, talk, with_key_log
from tests.replay.sessions import Recording, session
from tests.support.peers import need_module

_SCRIPT = re.compile(
    r"<!-- not run: it needs a folder of captures;[^\n]*-->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return session()


@pytest.fixture
def folder(recording: Recording, tmp_path: Path) -> Path:
    """Captures in folders of folders, one of them damaged, and keys."""
    plain = capture(talk(recording))
    (tmp_path / "captures" / "old").mkdir(parents=True)
    for name in ("a.pcap", "b.pcap", "c.pcap", "old/d.pcap"):
        (tmp_path / "captures" / name).write_bytes(plain)
    (tmp_path / "captures" / "e.pcap").write_bytes(damaged(plain))
    (tmp_path / "captures" / "f.pcapng").write_bytes(with_key_log(talk(recording).records(), recording.key_log))
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "all.keylog").write_text("\n".join(recording.key_log), encoding="ascii")
    return tmp_path


def run(checkout: Path, folder: Path, word: str, **changes: str) -> str:
    """Run the script of the page that has ``word``; what it printed."""
    page = (checkout / "docs" / "how-to" / "many-captures.md").read_text(encoding="utf-8")
    (script,) = (each for each in _SCRIPT.findall(page) if word in each)
    for old, new in changes.items():
        assert old in script
        script = script.replace(old, new)
    (folder / "script.py").write_text(script, encoding="utf-8")
    strict = [] if "dask" in script else ["-W", "error"]  # what others warn of is theirs
    done = subprocess.run(
        [sys.executable, *strict, "script.py"], cwd=folder, text=True, capture_output=True, timeout=110,
        check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (checkout, checkout / "adapters")))},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expected(recording: Recording, folder: Path, name: str) -> Any:
    data = (folder / "captures" / name).read_bytes()
    return rows_of(data, name=f"captures/{name}", secrets=recording.secrets, events=True)


def check(table: list[dict[str, Any]], recording: Recording, folder: Path, names: list[str]) -> None:
    rows = [row for name in names for row in expected(recording, folder, name).connections]
    assert len(rows) == len(names)
    for row in rows:
        assert row["decrypted"]
        for column in ("began", "ended"):
            del row[column]
    for row in table:
        for column in ("began", "ended"):
            del row[column]
    assert table == rows


NAMES = ["a.pcap", "b.pcap", "c.pcap", "e.pcap", "f.pcapng", "old/d.pcap"]


def test_from_the_command_line(checkout: Path, recording: Recording, folder: Path) -> None:
    parquet = need_module("pyarrow.parquet")
    page = (checkout / "docs" / "how-to" / "many-captures.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^```sh\n(sshproto .*?)\n```$", page, re.MULTILINE)
    command = command.replace("sshproto", f"'{sys.executable}' -m sshproto_cli.main", 1)
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, text=True, capture_output=True, timeout=110, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (checkout, checkout / "adapters")))},
    )  # fmt: skip
    assert done.returncode == 1  # for the one that is damaged
    assert "captures/e.pcap: " in done.stderr
    check(parquet.read_table(folder / "connections.parquet").to_pylist(), recording, folder, NAMES[:-1])


def test_on_one_machine(checkout: Path, recording: Recording, folder: Path) -> None:
    parquet = need_module("pyarrow.parquet")
    printed = run(checkout, folder, "def main() -> None", **{"jobs=None": "jobs=2"})
    assert printed.startswith("captures/e.pcap: ")
    assert printed.count("\n") == 1
    table = parquet.read_table(folder / "connections.parquet")
    assert table.column_names == [column.name for column in CONNECTION_COLUMNS]
    check(table.to_pylist(), recording, folder, NAMES)


def test_events(checkout: Path, recording: Recording, folder: Path) -> None:
    parquet = need_module("pyarrow.parquet")
    assert run(checkout, folder, "EventRows").startswith("captures/e.pcap ")
    table = parquet.read_table(folder / "events.parquet")
    assert table.column_names == [column.name for column in EVENT_COLUMNS]
    # Without keys there is less to tell; only f.pcapng has its own.
    kinds = table.filter(need_module("pyarrow.compute").equal(table["capture"], "captures/f.pcapng"))[
        "kind"
    ].to_pylist()
    assert kinds == [row["kind"] for row in expected(recording, folder, "f.pcapng").events]
    assert set(table["capture"].to_pylist()) == {f"captures/{name}" for name in NAMES}


def test_with_dask(checkout: Path, recording: Recording, folder: Path) -> None:
    dataset = need_module("pyarrow.dataset")
    need_module("dask.distributed")
    printed = run(checkout, folder, "dask.distributed", **{"BATCH = 100": "BATCH = 2"})
    assert printed.startswith("captures/e.pcap: ")
    assert printed.count("\n") == 1
    parts = sorted(path.name for path in (folder / "table").iterdir())
    assert parts == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    check(dataset.dataset(folder / "table").to_table().to_pylist(), recording, folder, NAMES)
