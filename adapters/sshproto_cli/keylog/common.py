"""What the verbs of ``sshproto keylog`` share: key logs in whatever form, and captures that show what they open."""

from __future__ import annotations

import argparse
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sshproto_cli.options import Failure, complain, describe, read_file
from sshproto_cli.pcap.opening import STDIN

if TYPE_CHECKING:
    from sshproto.replay.keylogs import Line, Uses
    from sshproto.replay.secrets import DerivedKeys

TROUBLE = 2
"""The status when something can't be read or written."""

_LARGEST = 64 * 1024 * 1024
_MAGICS = (
    b"\x0a\x0d\x0d\x0a", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d",
    b"\x1f\x8b", b"\x28\xb5\x2f\xfd",
)  # fmt: skip


def add_captures(parser: argparse.ArgumentParser, why: str) -> None:
    """Add the option that names captures.

    Args:
        parser: A verb's.
        why: What they are needed for.
    """
    parser.add_argument("--capture", metavar="FILE", action="append", default=[], help=why)
    parser.add_argument("--no-progress", action="store_true", help="don't show how far it is, on a terminal")


class KeyLog:
    """A key log, in whatever form it came.

    Attributes:
        path: Where it stands.
        lines: Its lines; of other forms than text, the lines that say the same.
        derived: Derived keys, for which there are no such lines.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: list[Line] = []
        self.derived: list[DerivedKeys] = []


def load(path: str) -> KeyLog:
    """Read a key log: text, session keys in JSON, or what stands in a capture.

    Raises:
        Failure: It can't be read.
    """
    from sshproto.replay import keylogs

    found = KeyLog(path)
    data = sys.stdin.buffer.read(_LARGEST) if path == STDIN else _start(path)
    if data.startswith(_MAGICS):
        found.lines += keylogs.read(_inside(path))
        return found
    if path != STDIN:
        data = read_file(path, "key log", _LARGEST)
    if data.lstrip()[:1] in (b"{", b"["):
        _session_keys(found, data)
    else:
        found.lines += keylogs.read(data)
    return found


def _start(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise Failure(f"key log {path}: {error.strerror or error}") from None


def _inside(path: str) -> bytes:
    """The key logs that stand in a capture."""
    from sshproto.replay.capture.reader import CHUNK, CaptureError, CaptureReader

    if path == STDIN:
        raise Failure("a capture can't come from standard input here; name the file")
    reader = CaptureReader()
    found: list[bytes] = []
    try:
        with Path(path).open("rb") as file:
            while data := file.read(CHUNK):
                for _ in reader.feed(data):
                    pass
                found += reader.secrets
                reader.secrets.clear()
        reader.finish()
    except (OSError, CaptureError) as error:
        raise Failure(f"{path}: {error}") from None
    return b"\n".join(found)


def _session_keys(found: KeyLog, data: bytes) -> None:
    from sshproto.replay.keylogs import Line
    from sshproto.replay.secrets import KeyLogError, KeyLogLine, parse_session_keys

    try:
        for entry in parse_session_keys(data):
            if isinstance(entry, KeyLogLine):
                found.lines.append(Line(len(found.lines) + 1, entry))
            elif entry.cookies.isdisjoint(line.entry.cookie for line in found.lines if line.entry is not None):
                found.derived.append(entry)  # the others follow from a line
    except KeyLogError as error:
        raise Failure(f"{found.path}: {error}") from None


def warn_of_readers(path: str) -> None:
    """Say so if others than its owner may read a key log."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) & (stat.S_IRGRP | stat.S_IROTH):
        complain(f"{path}: others than its owner may read it; chmod 600 would help")


def use(args: argparse.Namespace, lines: list[Line]) -> Uses:
    """Open the captures that ``args`` name with a key log, and with nothing else.

    Raises:
        Failure: One can't be read.
    """
    from sshproto.replay.keylogs import Uses
    from sshproto_cli.pcap.progress import Progress
    from sshproto_io import captures

    uses = Uses()
    for line in lines:
        if line.entry is not None:
            uses.secrets.add(line.entry)
    progress = Progress(shown=not args.no_progress and Progress.wanted())
    damage: list[str] = []
    try:
        for path in args.capture:  # one after the other: they need not be parts of one
            for _ in captures.conversations(
                [path],
                secrets=uses.secrets,
                ask=uses.begin,
                progress=progress,
                on_damage=lambda name, error: damage.append(f"{name}: {describe(error)}"),
            ):
                pass
    finally:
        progress.clear()
    for each in damage:
        complain(each)
    if damage and not uses.all:
        raise Failure("no connection could be read")
    return uses
