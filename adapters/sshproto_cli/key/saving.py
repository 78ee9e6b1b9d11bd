"""Files of keys: there only when they are whole, from the beginning nobody else's to read, and never lost.

A file is written under another name beside its own, which nobody else can have made, with the mode that it is to have,
and brought to the disk. Then it gets its name: as a second one that must not be there yet (``link``), or in place of
what has that name now (``rename``). So there is no moment in which half of a file, or a private key that others may
read, stands there, and of two who make the same file one is told so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sshproto_cli.options import Failure

if TYPE_CHECKING:
    from types import TracebackType

PRIVATE = 0o600
PUBLIC = 0o644

_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def refuse_existing(path: str, overwrite: bool) -> None:
    """Say at once that something is there already, before anybody types a passphrase for what could not be saved.

    Raises:
        Failure: It is there and must not be overwritten, or is something that never can be.
    """
    there = Path(path)
    if there.is_dir():
        raise Failure(f"{path}: it is a directory")
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise Failure(f"{path}: it is there already; --overwrite would replace it")
    if there.exists() and not there.is_file():
        raise Failure(f"{path}: it is no regular file")


class Saved:
    """A file to be, in a ``with`` statement: written when that begins, and named by :meth:`commit`.

    Args:
        path: Its name.
        data: Its content.
        private: Nobody but its owner may read it, whoever might read what stood there before. Else what is replaced
            passes its mode on. An owner is passed on in both cases.
        overwrite: It may replace what has that name.

    Raises:
        Failure: It can't be written.
    """

    def __init__(self, path: str, data: bytes, *, private: bool, overwrite: bool) -> None:
        self._path = path
        self._data = data
        self._private = private
        self._overwrite = overwrite
        self._target = Path(os.path.realpath(path) if overwrite else path)
        self._temporary: Path | None = None
        self._new = False

    def __enter__(self) -> Self:
        refuse_existing(self._path, self._overwrite)
        name = f".{self._target.name[:200]}.{secrets.token_hex(8)}.tmp"
        self._temporary = temporary = self._target.with_name(name)  # who is interrupted may have made it already
        try:
            descriptor = os.open(temporary, _FLAGS, PRIVATE if self._private else PUBLIC)
            try:
                self._take_over(descriptor)
                _write(descriptor, self._data)
            finally:
                os.close(descriptor)
        except BaseException as error:
            self._discard()
            if isinstance(error, OSError):
                raise self._failure(error) from None
            raise
        return self

    def _take_over(self, descriptor: int) -> None:
        """Mode and owner, before there is anything to read."""
        before = self._before()
        if self._private:
            os.fchmod(
                descriptor, PRIVATE if before is None else (stat.S_IMODE(before.st_mode) & PRIVATE) | stat.S_IRUSR
            )
        elif before is not None:
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode) & 0o777)
        mine = os.fstat(descriptor)
        if before is not None and before.st_uid != mine.st_uid:
            os.fchown(descriptor, before.st_uid, before.st_gid)
        elif before is not None and before.st_gid != mine.st_gid:
            with contextlib.suppress(PermissionError):  # a group that one is no member of
                os.fchown(descriptor, -1, before.st_gid)

    def _before(self) -> os.stat_result | None:
        try:
            return self._target.stat() if self._overwrite else None
        except FileNotFoundError:
            return None

    def commit(self) -> None:
        """Give the file its name.

        Raises:
            Failure: Somebody else has made one meanwhile, or it can't be done.
        """
        if self._temporary is None:
            raise RuntimeError("a file is committed inside of its with statement, once")
        try:
            if self._overwrite:
                self._temporary.replace(self._target)
                self._temporary = None
            else:
                self._name(self._temporary)
            _sync_directory(self._target.parent)
        except FileExistsError:
            raise Failure(f"{self._path}: it is there already; --overwrite would replace it") from None
        except OSError as error:
            raise self._failure(error) from None

    def _name(self, temporary: Path) -> None:
        """Name the file if nothing has that name; where there are no links, make it anew with that name."""
        try:
            self._target.hardlink_to(temporary)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            descriptor = os.open(self._target, _FLAGS, PRIVATE if self._private else PUBLIC)
            self._new = True
            try:
                _write(descriptor, self._data)
            except BaseException:
                self.undo()
                raise
            finally:
                os.close(descriptor)
        self._new = True

    def undo(self) -> None:
        """Take a file away again that was not there before; one that was replaced is gone."""
        if self._new:
            self._new = False
            with contextlib.suppress(OSError):
                self._target.unlink()

    def _failure(self, error: OSError) -> Failure:
        return Failure(f"{self._path}: {error.strerror or error}")

    def _discard(self) -> None:
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink()
            self._temporary = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._discard()


def save(path: str, data: bytes, *, private: bool, overwrite: bool = False) -> None:
    """Write a file whole or not at all; see :class:`Saved`.

    Raises:
        Failure: It is there and must not be overwritten, or can't be written.
    """
    with Saved(path, data, private=private, overwrite=overwrite) as file:
        file.commit()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    """Bring the new name to the disk, where the system can do that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:  # a directory that may be written, but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
