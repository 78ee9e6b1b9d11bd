"""Traces in files: :func:`record_to` for one connection, :func:`record_in` for all of a server.

Both make what a configuration takes as ``record``, under whatever face the connection then runs::

    config = ClientConfig(user="alice", record=record_to("login.sqlog"))

What a trace tells depends on its level (:class:`~sshproto.replay.trace.Privacy`).  **One that can be replayed holds the
keys of the session and its passwords**; each file is readable by its owner only, all the same.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sshproto.replay.trace.file import SUFFIX, Privacy
from sshproto.replay.trace.recording import Recorder

if TYPE_CHECKING:
    from sshproto.config import Record

_NUMBERS = itertools.count(1)


class TraceFile:
    """A file that records are appended to. It is open only while it must be.

    A record that does not go in whole, since the disk is full, is taken out again.

    Args:
        path: Its name. There must be no file of that name.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        self._size = 0

    def write(self, record: bytes) -> None:
        """Append a record.

        Raises:
            OSError: It cannot be written.
        """
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | _FLAGS)
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # then the reader will see that the last record is not whole
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(record)

    def close(self) -> None:
        """No more is expected. If a record comes all the same, the file is opened again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.close()


_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def record_to(
    path: str | Path, privacy: Privacy = Privacy.METADATA, *, on_problem: Callable[[OSError], object] | None = None
) -> Record:
    """Record into a file, which is made when the connection is.

    A further connection with the same configuration gets a file of its own, with a number before the suffix.

    Args:
        path: Its name; ``.sqlog`` is the usual suffix. A file that exists is left alone.
        privacy: What the trace is to tell.
        on_problem: Called when a file cannot be made or written. The connection goes on without being recorded.

    Raises:
        OSError: The file exists, or its directory does not.
    """
    given = Path(path).absolute()  # the process may go elsewhere
    _check(given)
    used = itertools.count(1)

    def name(role: str) -> Path:
        number = next(used)
        return given if number == 1 else given.with_name(f"{given.stem}-{number}{given.suffix}")

    return _recorded(name, privacy, on_problem)


def record_in(
    folder: str | Path, privacy: Privacy = Privacy.METADATA, *, on_problem: Callable[[OSError], object] | None = None
) -> Record:
    """Record each connection into a file of its own, whose name has the time, the process and a number.

    Args:
        folder: Where; made if it is not there, for its owner only.
        privacy: What the traces are to tell.
        on_problem: See :func:`record_to`.

    Raises:
        OSError: It cannot be made.
    """
    place = Path(folder).absolute()  # the process may go elsewhere
    place.mkdir(mode=0o700, parents=True, exist_ok=True)

    def name(role: str) -> Path:
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return place / f"{moment}-{os.getpid()}-{next(_NUMBERS)}-{role}{SUFFIX}"

    return _recorded(name, privacy, on_problem)


def _check(path: Path) -> None:
    """See that a file can be made, before there is a connection."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    os.close(descriptor)
    path.unlink()


def _recorded(name: Callable[[str], Path], privacy: Privacy, on_problem: Callable[[OSError], object] | None) -> Record:
    def tell(error: OSError) -> None:
        if on_problem is not None:
            on_problem(error)

    def record(conn: Any, make: Any, config: Any, now: float) -> Any:
        try:
            file = TraceFile(name(make.role.value))
        except OSError as error:
            tell(error)
            return make(config, now)

        def write(data: bytes) -> None:
            try:
                file.write(data)
            except OSError as error:
                tell(error)
                raise

        return Recorder(write, privacy, on_end=file.close)(conn, make, config, now)

    return record
