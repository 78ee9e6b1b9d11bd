"""Capture files and key-log files, opened for :mod:`sshproto.replay`.

:func:`conversations` is :class:`~sshproto.replay.analysis.Analysis` over files: in the order of time, standard input
among them, with a word on how far it is and on files that are damaged.

Files are read, not mapped: that is no slower, since packets are copied out anyway, and a file that another program cuts
short while it is mapped ends the process.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sshproto.errors import InvalidArgument, SSHError
from sshproto.replay.analysis import PORTS, Analysis, AnalysisLimits, Conversation
from sshproto.replay.capture.network import LINK_TYPES
from sshproto.replay.capture.reader import CHUNK, SECRETS_SSH, CaptureError, CaptureReader
from sshproto.replay.secrets import KeyLogError, Secrets

if TYPE_CHECKING:
    from sshproto.replay.findings import Policy

STANDARD_INPUT = "-"
"""The name that stands for standard input."""

_NAP = 0.2  # seconds


def conversations(
    paths: Iterable[str | os.PathLike[str]],
    *,
    rotated: bool = False,
    secrets: Secrets | None = None,
    key_logs: Iterable[str | os.PathLike[str]] = (),
    ask: Callable[[Conversation], None] | None = None,
    keep: bool = False,
    policy: Policy | None = None,
    ports: Collection[int] = PORTS,
    limits: AnalysisLimits | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    on_damage: Callable[[str, CaptureError], None] | None = None,
    on_key_log_error: Callable[[str, KeyLogError], None] | None = None,
) -> Iterator[Conversation]:
    """The SSH connections of capture files, each when it is over.

    Connections are numbered through; :attr:`Conversation.capture` is the file that a connection begins in. ``"-"`` is
    standard input, which is read as it comes: ``tcpdump -U -w - | ...`` is analysed live. So are pipes with a name.

    A key log inside a file opens what stands before it there, too; but of the files before, of compressed ones and of
    standard input, only the connections that are not over.

    Args:
        paths: The files.
        rotated: They are one capture that was cut into several, in the order of time, as ``tcpdump -C`` does:
            connections go on from one to the next, and frames are numbered through.
        secrets: What opens the connections; key logs that stand in the captures are added.
        key_logs: Files that are added, too, and go on being read: lines that are written to them meanwhile open what
            comes then, and what could not be opened before. They are looked at with each piece of a capture that
            comes, and at the end.
        ask: Called with each conversation that begins, before its first event: the place to add sinks.
        keep: Keep the events of each.
        policy: What is expected of them.
        ports: Where SSH is expected of what began before the recording.
        limits: Bounds.
        progress: Called now and then with how many bytes were read, and how many there are in all; None if nobody
            knows. Files count as they are, compressed ones too.
        on_damage: Called with the name of a file and what is wrong with it: it is damaged, it is none, none of its
            links is known, or it stops in the middle of a packet. What stands before has been analysed, and the next
            file is read.
        on_key_log_error: Called with the name of a file that has a key log inside and what is wrong with that, or of
            one of ``key_logs`` and what is wrong with a line that was added.

    Raises:
        InvalidArgument: ``paths`` is a single name.
        OSError: A file can't be opened or read; :attr:`OSError.filename` is its name.
        KeyFileError: One of ``key_logs`` is none: something else stands in it from the beginning, and no line of one.
        CaptureError: A file is damaged, is no capture, or is one of links that are not known, and there is no
            ``on_damage``: raised after all that could be read. (That it stops in the middle of a packet is common, and
            is no error.)
    """
    if isinstance(paths, str | bytes):  # its letters would be taken for names
        raise InvalidArgument(f"paths is a list of names, not {paths!r}")
    names = [os.fspath(path) for path in paths]
    known = Secrets() if secrets is None else secrets
    logs = [_GrowingLog(os.fspath(path), known) for path in key_logs]
    for log in logs:
        try:
            log.begin()
        except KeyLogError as wrong:
            if not wrong.taken:
                raise KeyFileError(log.name, wrong) from None
            if on_key_log_error is not None:
                on_key_log_error(log.name, wrong)

    def begin(connections: int = 0) -> Analysis:
        return Analysis(known, ports=ports, policy=policy, keep=keep, ask=ask, limits=limits, connections=connections)

    analysis = begin()

    def look(*, last: bool = False) -> None:
        """Take what was added to key logs."""
        for log in logs:
            try:
                found = log.more(last=last)
            except OSError:  # it may come back
                found = False
            except KeyLogError as error:
                found = True
                if on_key_log_error is not None:
                    on_key_log_error(log.name, error)
            if found:
                analysis.look_again()

    reading = _Reading(progress, _size(names), look)
    damage: CaptureError | None = None
    for name in names:
        error = None
        frames = analysis.reader.frames if rotated else 0
        if analysis.reader.form and not rotated:
            yield from analysis.finish()
            analysis = begin(analysis.connections)
        _look_ahead(name, known, limits)
        try:
            yield from analysis.read(reading.chunks(name), name)
        except CaptureError as found:
            error = found
        else:
            error = analysis.reader.cut or _unknown_links(analysis.reader, frames)
        for problem in analysis.problems:
            if on_key_log_error is not None:
                on_key_log_error(name, problem)
        analysis.problems.clear()
        if error is None:
            continue
        if on_damage is not None:
            on_damage(name, error)
        elif damage is None and (error is not analysis.reader.cut or not analysis.reader.form):
            damage = CaptureError(f"{name}: {error.where}", error.field, error.offset, error.problem)
    look(last=True)
    yield from analysis.finish()
    if damage is not None:
        raise damage


def _unknown_links(reader: CaptureReader, frames: int) -> CaptureError | None:
    """Why nothing shows of a capture, if none of its link types is known; ``frames`` is how many there were before."""
    links = sorted({each.link_type for each in reader.interfaces})
    if reader.frames == frames or not links or not LINK_TYPES.isdisjoint(links):
        return None
    problem = f"{', '.join(map(str, links))} is not known here, nothing of its packets shows"
    return CaptureError(reader.form, "link type", 0, problem)


def _look_ahead(name: str, secrets: Secrets, limits: AnalysisLimits | None) -> None:
    """Take the key logs that stand in a file behind connections that are over when they come.

    Next to all files with key logs have them in front, most have none. So what is looked for is their mark, which is a
    matter of moments, and only if it is there the file is read twice.
    """
    if name == STANDARD_INPUT or not stat.S_ISREG(Path(name).stat().st_mode):
        return
    with _opened(name) as file:
        head = _some(file, name)
        mark = _MARKS.get((head[:4], head[8:12]))
        if mark is None or not _stands(mark, file, name, head):
            return
        file.seek(0)
        reader = CaptureReader(limits.capture if limits is not None else None)
        with contextlib.suppress(CaptureError):  # told when the file is read
            for _ in reader.read(iter(lambda: _some(file, name), b"")):
                pass
    for text in reader.secrets:
        with contextlib.suppress(KeyLogError):
            secrets.add_key_log(text)


_MARKS = {
    (b"\x0a\x0d\x0d\x0a", (0x1A2B3C4D).to_bytes(4, order)): SECRETS_SSH.to_bytes(4, order)
    for order in ("little", "big")
}
"""What a pcapng with a key log has somewhere, by how it begins."""


def _stands(mark: bytes, file: Any, name: str, end: bytes) -> bool:
    """Whether ``mark`` stands behind ``end``, what was read of a file so far."""
    end = end[-len(mark) :]
    while data := _some(file, name):
        if mark in data or mark in end + data[: len(mark)]:
            return True
        end = data[-len(mark) :]
    return False


class _Reading:
    """Reads files one after another, and says how far it is."""

    def __init__(
        self, progress: Callable[[int, int | None], None] | None, total: int | None, look: Callable[[], None]
    ) -> None:
        self._progress = progress
        self._look = look
        self._done = 0
        self._total = total

    def chunks(self, name: str) -> Iterator[bytes]:
        """What stands in a file, in pieces; of a pipe each as soon as it comes."""
        with _opened(name) as file:
            while data := _some(file, name):
                self._look()
                yield data
                self._done += len(data)
                if self._progress is not None:
                    # A file may have grown meanwhile.
                    self._progress(self._done, None if self._total is None else max(self._done, self._total))


def _opened(name: str) -> contextlib.AbstractContextManager[Any]:
    if name == STANDARD_INPUT:
        return contextlib.nullcontext(_standard_input())
    return Path(name).open("rb", buffering=0)


def _standard_input() -> Any:
    if sys.stdin is None:  # a program without a terminal
        raise OSError(None, "there is no standard input", STANDARD_INPUT)
    return sys.stdin.buffer


def _some(file: Any, name: str) -> bytes:
    """What has come, ``b""`` at the end."""
    try:
        if name == STANDARD_INPUT:
            _wait_for(file)
        data: bytes | None = getattr(file, "read1", file.read)(CHUNK)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error
    return data or b""


def _wait_for(file: Any) -> None:
    """Until there is something to read, in naps: a signal that comes right before one is seen to after it."""
    try:
        descriptor = file.fileno()
    except (AttributeError, OSError):  # something else has been put in its place
        return
    while os.name == "posix" and not select.select([descriptor], [], [], _NAP)[0]:
        pass


def _size(names: Iterable[str]) -> int | None:
    """Of all files together, in bytes; None if there is one that has none.

    Raises:
        OSError: There is no such file.
    """
    total = 0
    known = True
    for name in names:
        try:
            about = os.fstat(_standard_input().fileno()) if name == STANDARD_INPUT else Path(name).stat()
        except io.UnsupportedOperation:  # something else stands in for standard input
            known = False
            continue
        known &= stat.S_ISREG(about.st_mode)
        total += about.st_size
    return total if known else None


class _GrowingLog:
    """A key log that is written to while it is read."""

    def __init__(self, name: str, secrets: Secrets) -> None:
        self.name = name
        self._secrets = secrets
        self._offset = 0
        self._lines = 0

    def begin(self) -> None:
        """Take what is there.

        Raises:
            OSError: It can't be opened or read.
            KeyLogError: A line is something else; all others are taken.
        """
        data = Path(self.name).read_bytes()
        self._offset = data.rfind(b"\n") + 1
        self._lines = data.count(b"\n")
        try:
            self._secrets.add_key_log(data)
        except KeyLogError as error:
            if error.line <= self._lines:  # otherwise its end is still to come
                raise

    def more(self, *, last: bool = False) -> bool:
        """Take what was added; whether there was anything.

        Args:
            last: Also take a line that has no end yet.

        Raises:
            OSError: It can't be read.
            KeyLogError: A line is something else; all others are taken.
        """
        size = Path(self.name).stat().st_size
        if size < self._offset:  # it was begun anew
            self._offset = self._lines = 0
        if size == self._offset:
            return False
        with _opened(self.name) as file:
            file.seek(self._offset)
            data = file.read(size - self._offset)
        text = data if last else data[: data.rfind(b"\n") + 1]
        self._offset += len(text)
        bad = b""
        for line in text.splitlines():
            self._lines += 1
            try:
                self._secrets.add_key_log(line)
            except KeyLogError:
                bad = bad or b"\n" * (self._lines - 1) + line
        self._secrets.add_key_log(bad)  # once more, with its number
        return bool(text)


class KeyFileError(KeyLogError):
    """A file that is no key log, or has no session keys.

    Attributes:
        path: Its name.
        line: The number of the line or entry, from 1.
        taken: How many other lines of it were taken.
    """

    def __init__(self, path: str, error: KeyLogError) -> None:
        SSHError.__init__(self, f"{path}: {error}")
        self.path = path
        self.line = error.line
        self.taken = error.taken


def add_key_logs(secrets: Secrets, paths: Iterable[str | os.PathLike[str]]) -> int:
    """Take the lines of key-log files; how many there were.

    Raises:
        OSError: A file can't be opened or read.
        KeyFileError: A line is something else, the first of such; all others of that file are taken.
    """
    return _add(secrets.add_key_log, paths)


def add_session_keys(secrets: Secrets, paths: Iterable[str | os.PathLike[str]]) -> int:
    """Take files of session keys (JSON), see :func:`~sshproto.replay.secrets.parse_session_keys`; how many there were.

    Raises:
        OSError: A file can't be opened or read.
        KeyFileError: An entry is something else; those before it are taken.
    """
    return _add(secrets.add_session_keys, paths)


def _add(add: Callable[[bytes], int], paths: Iterable[str | os.PathLike[str]]) -> int:
    count = 0
    for path in paths:
        name = os.fspath(path)
        data = Path(name).read_bytes()
        try:
            count += add(data)
        except KeyLogError as error:
            raise KeyFileError(name, error) from None
    return count
