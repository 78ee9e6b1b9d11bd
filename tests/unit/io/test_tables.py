"""Rows as columns: the schema is the column table's, files are whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sshproto.errors import InvalidArgument
from sshproto.replay.rows import CONNECTION_COLUMNS, EVENT_COLUMNS, Row, Rows, rows_of
from sshproto_io import tables
from sshproto_io.tables import PyarrowMissing, TableFile, record_batch, schema
from tests.replay.files import capture, talk
from tests.replay.sessions import Recording, session
from tests.support.peers import need_module


@pytest.fixture
def pa() -> Any:
    return need_module("pyarrow")


@pytest.fixture(scope="module")
def recording() -> Recording:
    return session()


@pytest.fixture(scope="module")
def rows(recording: Recording) -> Rows:
    return rows_of(capture(talk(recording)), name="a", secrets=recording.secrets, events=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(path: Path) -> Any:
    if path.suffix == ".parquet":
        return need_module("pyarrow.parquet").read_table(path)
    with need_module("pyarrow").ipc.open_file(path) as file:
        return file.read_all()


def back(table: Any, columns: Any) -> list[Row]:
    """A table's rows as they were: times as integers."""
    pa = need_module("pyarrow")
    for place, column in enumerate(columns):
        if column.kind.value == "time":
            table = table.set_column(place, column.name, table.column(column.name).cast(pa.int64()))
    return table.to_pylist()


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize("which", ["connections", "events"])
def test_what_is_written_is_read(rows: Rows, tmp_path: Path, pa: Any, form: str, which: str) -> None:
    columns = CONNECTION_COLUMNS if which == "connections" else EVENT_COLUMNS
    expected = getattr(rows, which)
    path = tmp_path / f"table.{form}"
    with TableFile(path, columns, rows=7) as file:
        for row in expected:
            file.add([row])
        assert not path.exists()
        assert file.count == len(expected)
    table = read(path)
    assert table.schema.equals(schema(columns), check_metadata=True)
    assert back(table, columns) == expected
    assert names(tmp_path) == [path.name]
    assert table.num_rows == len(expected)
    file.close()  # again, which is nothing
    if form == "parquet":
        groups = need_module("pyarrow.parquet").ParquetFile(path)
        assert groups.num_row_groups == -(-len(expected) // 7)
        groups.close()


def test_the_schema(pa: Any) -> None:
    for columns in (CONNECTION_COLUMNS, EVENT_COLUMNS):
        fields = schema(columns)
        assert fields.names == [column.name for column in columns]
        for column in columns:
            field = fields.field(column.name)
            assert field.nullable is not column.needed
            assert field.metadata[b"meaning"].decode() == column.words
            assert field.metadata.get(b"unit", b"").decode() == column.unit
    assert schema().field("began").type == pa.timestamp("ns", tz="UTC")
    assert schema().field("frame").type == pa.int64()
    assert schema().field("findings").type.value_type == pa.string()


def test_a_batch(rows: Rows, pa: Any) -> None:
    batch = record_batch(rows.connections)
    assert isinstance(batch, pa.RecordBatch)
    assert back(pa.Table.from_batches([batch]), CONNECTION_COLUMNS) == rows.connections
    assert record_batch([]).num_rows == 0


def test_no_rows_are_a_table_all_the_same(tmp_path: Path, pa: Any) -> None:
    for form in tables.FORMATS:
        path = tmp_path / f"empty.{form}"
        with TableFile(path):
            pass
        assert read(path).schema.equals(schema())
        assert read(path).num_rows == 0


def test_what_fails_leaves_what_was_there(rows: Rows, tmp_path: Path, pa: Any) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"what was there")
    with pytest.raises(KeyError), TableFile(path, rows=1) as file:
        file.add(rows.connections)
        raise KeyError
    with pytest.raises(pa.ArrowInvalid), TableFile(path) as file:
        file.add([{**rows.connections[0], "connection": "one"}])
    assert path.read_bytes() == b"what was there"
    assert names(tmp_path) == ["a.parquet"]
    with TableFile(path) as file:
        file.add(rows.connections)
    assert len(read(path)) == 1


def test_errors(tmp_path: Path, pa: Any) -> None:
    with pytest.raises(InvalidArgument, match="parquet or arrow, not as 'csv'"):
        TableFile(tmp_path / "a.csv")
    with pytest.raises(InvalidArgument, match="not as ''"):
        TableFile(tmp_path / "a")
    with TableFile(tmp_path / "A.ARROW"), TableFile(tmp_path / "b", form="parquet"):
        pass
    with pytest.raises(FileNotFoundError):
        TableFile(tmp_path / "absent" / "a.parquet")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(OSError, match=r"folder\.parquet"), TableFile(tmp_path / "folder.parquet"):
        pass
    assert names(tmp_path) == ["A.ARROW", "b", "folder.parquet"]


def test_a_full_disk(rows: Rows, tmp_path: Path, pa: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), TableFile(tmp_path / "a.arrow") as file:
        file.add(rows.connections)
    assert names(tmp_path) == []


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for use in (schema, lambda: record_batch([]), lambda: TableFile(tmp_path / "a.parquet")):
        with pytest.raises(PyarrowMissing, match=r'pip install sshproto\[columns\]"'):
            use()
    assert names(tmp_path) == []


def test_only_who_writes_tables_loads_pyarrow() -> None:
    code = "import sys, sshproto_io.tables, sshproto_io.scanning; sys.exit('pyarrow' in sys.modules)"
    top = Path(tables.__file__).resolve().parents[2]
    path = os.pathsep.join(map(str, (top, top / "adapters")))
    assert (
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=False).returncode
        == 0
    )
