"""Where a verb writes what it makes: standard output, or a file that has its name only when it is whole."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from sshproto_cli.options import Failure, describe

if TYPE_CHECKING:
    from types import TracebackType

STDOUT = "-"
_ROOM = 64 * 1024


class Output:
    """Takes bytes, in a ``with`` statement.

    A file is written under another name beside it and renamed at the end: a reader never sees half of it, and if
    something goes wrong whatever stood there before stays. What is no regular file (a pipe, a terminal) is written to
    as it is.

    Args:
        path: The file; ``"-"`` for standard output.
        inputs: What must not be overwritten: files that are read meanwhile.
        private: Nobody but the owner may read it.

    Raises:
        Failure: It can't be written, or is one of the inputs.
    """

    def __init__(self, path: str, *, inputs: Iterable[str] = (), private: bool = False) -> None:
        self._path = path
        self._inputs = tuple(inputs)
        self._private = private
        self._temporary: Path | None = None
        self._target = Path()
        self._file: BinaryIO | None = None

    @property
    def standard(self) -> bool:
        """Whether it goes to standard output."""
        return self._path == STDOUT

    def __enter__(self) -> Self:
        if self._path == STDOUT:
            if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  what Python makes of a closed one
                raise Failure("standard output is closed")
            return self
        self._refuse_inputs()
        self._target = target = Path(os.path.realpath(self._path))
        try:
            if target.exists() and not stat.S_ISREG(target.stat().st_mode):
                if target.is_dir():
                    raise Failure(f"{self._path}: it is a directory")
                self._file = target.open("wb")
            else:
                self._temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
                mode = 0o600 if self._private else 0o666
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
                self._file = os.fdopen(os.open(self._temporary, flags, mode), "wb", _ROOM)
        except OSError as error:
            self._temporary = None  # somebody else's, if it is there
            raise Failure(f"{self._path}: {error.strerror or error}") from None
        except BaseException:  # interrupted, with the file made or not
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is None:
            if kind is None or not issubclass(kind, BrokenPipeError):
                self.flush()
            return
        try:
            try:
                self._file.close()
                if kind is None and self._temporary is not None:
                    self._temporary.replace(self._target)
                    self._temporary = None
            except OSError as problem:
                if kind is None:
                    raise Failure(f"{self._path}: {problem.strerror or problem}") from None
        finally:
            self._discard()

    def _discard(self) -> None:
        """Leave nothing of a file that has not got its name."""
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write some bytes.

        Raises:
            BrokenPipeError: Nobody reads standard output any more.
            Failure: They can't be written.
        """
        if self._file is None:
            self._guard(sys.stdout.buffer.write, data)
            return
        try:
            self._file.write(data)
        except OSError as error:
            raise Failure(f"{self._path}: {error.strerror or error}") from None

    def text(self, text: str) -> None:
        """Write text, in UTF-8."""
        self.write(text.encode("utf-8", "backslashreplace"))

    def _refuse_inputs(self) -> None:
        for name in self._inputs:
            try:
                same = Path(self._path).samefile(name)
            except OSError:  # one of them does not exist
                same = False
            if same:
                raise Failure(f"{self._path}: it is what is read; the output needs a name of its own")

    def flush(self) -> None:
        """Write to standard output what is gathered, since somebody may wait for it.

        Raises:
            BrokenPipeError, Failure: See :meth:`write`.
        """
        if self._file is None:
            self._guard(sys.stdout.buffer.flush)

    @staticmethod
    def _guard(action: Any, *arguments: Any) -> None:
        try:
            action(*arguments)
        except OSError as error:
            # What is left in the buffer must not meet the same error at the interpreter's exit.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise Failure(f"standard output: {describe(error)}") from None
