"""Rows as columns: Arrow record batches, and files in Parquet and in Arrow's own format.

The schema is that of the column tables in :mod:`sshproto.replay.rows`: text is ``string``, whole numbers are ``int64``,
times are ``timestamp[ns, UTC]``, and each field has its meaning and unit as metadata.  All of it needs pyarrow, which
comes with ``pip install sshproto[columns]``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sshproto.errors import InvalidArgument, SSHError
from sshproto.replay.rows import CONNECTION_COLUMNS, Column, Kind, Row

ROWS = 1 << 14
"""So many rows are written at once: a record batch, a row group of Parquet."""

FORMATS = ("parquet", "arrow")
"""What can be written. Arrow's is its file format, also known as Feather version 2."""


class PyarrowMissing(SSHError, ImportError):
    """pyarrow is not installed, or can't be loaded; the ``ImportError`` that says why is chained."""


def _pyarrow(module: str = "") -> Any:
    try:
        return importlib.import_module(f"pyarrow{module}")
    except ImportError as error:
        text = 'Parquet and Arrow need pyarrow, which comes with "pip install sshproto[columns]"'
        raise PyarrowMissing(f"{text} ({error})") from error


def _types() -> dict[Kind, Any]:
    pa = _pyarrow()
    return {
        Kind.TEXT: pa.string(),
        Kind.INTEGER: pa.int64(),
        Kind.BOOLEAN: pa.bool_(),
        Kind.TIME: pa.timestamp("ns", tz="UTC"),
        Kind.TEXTS: pa.list_(pa.field("element", pa.string())),  # as Parquet calls it
        Kind.INTEGERS: pa.list_(pa.field("element", pa.int64())),
    }


def schema(columns: Sequence[Column] = CONNECTION_COLUMNS) -> Any:
    """The ``pyarrow.Schema`` of a table.

    Args:
        columns: :data:`~sshproto.replay.rows.CONNECTION_COLUMNS` or :data:`~sshproto.replay.rows.EVENT_COLUMNS`.

    Raises:
        PyarrowMissing: It is not installed.
    """
    pa, types = _pyarrow(), _types()
    return pa.schema(
        [
            pa.field(
                column.name,
                types[column.kind],
                nullable=not column.needed,
                metadata={"meaning": column.words} | ({"unit": column.unit} if column.unit else {}),
            )
            for column in columns
        ]
    )


def record_batch(rows: Iterable[Row], columns: Sequence[Column] = CONNECTION_COLUMNS) -> Any:
    """Rows as a ``pyarrow.RecordBatch``.

    Args:
        rows: Of one table.
        columns: That table's.

    Raises:
        PyarrowMissing: It is not installed.
    """
    return _pyarrow().RecordBatch.from_pylist(list(rows), schema=schema(columns))


class TableFile:
    """A file that rows are written to, as they come.

    It has another name until it is complete: there is no half a table, and what was there before stays until then. Use
    it with ``with``: an exception leaves nothing behind.

    Args:
        path: The file; one that exists is replaced.
        columns: The table's: :data:`~sshproto.replay.rows.CONNECTION_COLUMNS` or
            :data:`~sshproto.replay.rows.EVENT_COLUMNS`.
        form: ``"parquet"`` or ``"arrow"``; None goes by the ending of ``path``.
        rows: So many are held and written at once.

    Attributes:
        count: How many rows were added.

    Raises:
        PyarrowMissing: It is not installed.
        InvalidArgument: The format is none of these.
        OSError: The file can't be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: Sequence[Column] = CONNECTION_COLUMNS,
        *,
        form: str | None = None,
        rows: int = ROWS,
    ) -> None:
        self._path = Path(path)
        form = form or self._path.suffix.removeprefix(".").lower()
        if form not in FORMATS:
            raise InvalidArgument(f"a table is written as {' or '.join(FORMATS)}, not as {form!r}")
        self.count = 0
        self._rows: list[Row] = []
        self._most = rows
        self._columns = columns
        fields = schema(columns)
        pa = _pyarrow()
        parquet = _pyarrow(".parquet") if form == "parquet" else None
        self._part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.part")
        self._file = self._part.open("xb")
        self._writer: Any
        if parquet is not None:
            self._writer = parquet.ParquetWriter(self._file, fields, compression="zstd")
        else:
            self._writer = pa.ipc.new_file(self._file, fields, options=pa.ipc.IpcWriteOptions(compression="zstd"))

    def add(self, rows: Iterable[Row]) -> None:
        """Take more rows.

        Raises:
            OSError: They can't be written.
        """
        for row in rows:
            self._rows.append(row)
            self.count += 1
            if len(self._rows) >= self._most:
                self._write()

    def _write(self) -> None:
        if self._rows:
            self._writer.write_batch(record_batch(self._rows, self._columns))
            self._rows.clear()

    def close(self) -> None:
        """Write what is left, and give the file its name. Repeated calls do nothing.

        Raises:
            OSError: It can't be written; nothing is left of it.
        """
        if self._file.closed:
            return
        try:
            self._write()
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self._path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Write no more, and leave nothing behind."""
        with contextlib.suppress(Exception):  # it may be what has failed
            self._writer.close()
        self._file.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
