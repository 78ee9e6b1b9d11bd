"""``known_hosts`` files on disk: read, appended to, rewritten; while others may be doing the same."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sshproto_cli.options import Failure, describe

if TYPE_CHECKING:
    from sshproto.keys.host_lines import Edited

_MOST = 16 * 1024 * 1024  # bytes of a file
_TRIES = 100  # how often a file may be replaced while its lock is waited for


def append_line(path: Path, line: str) -> None:
    """Append a line to a file that others may be appending to: whole, and on a line of its own.

    Args:
        path: The file; made with mode 600 if it is not there.
        line: The line with its line feed.

    Raises:
        OSError: It cannot be written.
    """
    with _locked(path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as descriptor:
        data = line.encode("utf-8", "surrogateescape")
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        written = os.write(descriptor, data)
        if written != len(data):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, "no room for a whole line", str(path))


def rewrite(path: Path, edit: Callable[[bytes], Edited[bytes]]) -> Edited[bytes]:
    """Replace a file by what ``edit`` makes of it, all at once, if that changes anything.

    What it was is kept beside it, in a file whose name ends in ``.old``. Mode and owner stay. Who waits to append to
    the file meanwhile, as :func:`append_line` does, appends to the new one. A symbolic link stays one.

    Args:
        path: The file.
        edit: What to do with its content.

    Returns:
        What ``edit`` returned.

    Raises:
        OSError: It cannot be read or written; it is as it was.
        Failure: It is too large.
    """
    target = Path(os.path.realpath(path))
    with _locked(target, os.O_RDONLY | os.O_NONBLOCK) as descriptor:  # a pipe would have us wait
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = _read(descriptor, path)
        edited = edit(content)
        if edited.text == content:
            return edited
        new, name = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)
        try:
            with os.fdopen(new, "wb") as file:
                os.fchmod(new, stat.S_IMODE(before.st_mode))
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    with contextlib.suppress(PermissionError):  # only root can, and then it has to
                        os.fchown(new, before.st_uid, before.st_gid)
                file.write(edited.text)
                file.flush()
                os.fsync(new)
            old = backup(target)
            old.unlink(missing_ok=True)
            old.hardlink_to(target)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return edited


def backup(path: Path) -> Path:
    """Where :func:`rewrite` keeps what a file was."""
    target = Path(os.path.realpath(path))
    return target.with_name(target.name + ".old")


def read(path: Path) -> bytes | None:
    """The content of a file; None if there is none.

    Raises:
        Failure: It cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"known hosts file {describe(error)}") from None
    try:
        return _read(descriptor, path)
    except OSError as error:
        raise Failure(f"known hosts file {path}: {error.strerror or error}") from None
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: Path) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        content = file.read(_MOST + 1)
    if len(content) > _MOST:
        raise Failure(f"known hosts file {path}: more than {_MOST} bytes")
    return content


@contextlib.contextmanager
def _locked(path: Path, flags: int) -> Iterator[int]:
    """The file, locked, and still the one that has that name."""
    import fcntl

    for _ in range(_TRIES):
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(descriptor, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)
    raise OSError(errno.EBUSY, "others replace it all the time", str(path))


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
