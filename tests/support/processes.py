"""What the system tells of processes, in ``/proc``; of one that has ended meanwhile, nothing."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

_PROC = Path("/proc")

TOLD = (_PROC / "self/status").exists()
"""Whether this system tells of processes in this way."""


def state(pid: int) -> str:
    """``"S"``, ``"Z"`` ...; ``""`` if there is no such process."""
    return _stat(pid)[0]


def until_gone(pid: int, seconds: float = 10.0) -> None:
    """Wait until there is no such process, not even one that nobody has waited for."""
    deadline = time.monotonic() + seconds
    while state(pid):
        assert time.monotonic() < deadline, f"process {pid} runs on"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started, and those that were left to it."""
    return [each for each in _all() if _stat(each)[1] == pid]


def descendants(pid: int) -> list[int]:
    """The children of ``pid`` and theirs."""
    of: dict[int, list[int]] = {}
    for each in _all():
        of.setdefault(_stat(each)[1], []).append(each)
    found = list(of.get(pid, ()))
    for child in found:  # grows while it is walked
        found += of.get(child, ())
    return found


def writing_to(log: Path | None, word: bytes = b"") -> list[int]:
    """The processes whose standard output is ``log``, and whose arguments have ``word`` in them, by number."""
    found = []
    for pid in _all():
        with contextlib.suppress(OSError):
            place = _PROC / str(pid)
            if (place / "fd/1").readlink() == log and word in (place / "cmdline").read_bytes():
                found.append(pid)
    return found


def memory(pid: int) -> int:
    """What the process holds of the machine's memory, in KiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", (_PROC / str(pid) / "status").read_text())
    assert found, f"process {pid} has ended"
    return int(found[1])


def _all() -> list[int]:
    # A pattern that reached into the directories would raise where one of them goes away meanwhile.
    return sorted(int(place.name) for place in _PROC.iterdir() if place.name.isdecimal()) if TOLD else []


def _stat(pid: int) -> tuple[str, int]:
    """Its state and its parent; ``("", -1)`` if there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return "", -1
    state, parent, *_ = text.rpartition(")")[2].split()  # before it stands a name, with whatever signs
    return state, int(parent)
