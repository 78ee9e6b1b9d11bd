"""Many captures to rows: the same in any number of processes, in order; what happens to one does not stop the rest."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sshproto.errors import InvalidArgument
from sshproto.replay.analysis import Conversation
from sshproto.replay.events import Observed
from sshproto.replay.rows import CONNECTION_COLUMNS, EVENT_COLUMNS, rows_of
from sshproto.replay.secrets import Secrets
from sshproto_io import scanning
from sshproto_io.scanning import ScanFailed, Scanned, scan
from tests.replay.files import capture, damaged, talk, with_key_log
from tests.replay.sessions import Recording, session
from tests.support.captures import CLIENT, SERVER, pcap


@pytest.fixture(scope="module")
def recording() -> Recording:
    return session()


@pytest.fixture
def folder(recording: Recording, tmp_path: Path) -> Path:
    """Captures of all sorts."""
    here, there = CLIENT + SERVER + bytes((80, 1, 0, 22)), SERVER + CLIENT + bytes((0, 22, 80, 1))
    data = capture(talk(recording), talk(recording, flows=(here, there)))
    files = {
        "a": data,
        "b": b"no capture",
        "c": damaged(data),
        "d": data[:-7],
        "e": b"",
        "f": with_key_log(talk(recording).records(), [*recording.key_log, "nonsense"]),
        "g": data,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


@contextlib.contextmanager
def stuck(path: Path) -> Iterator[Path]:
    """A file that nothing comes of: who opens it waits, and so does the test's other thread for the opening."""
    os.mkfifo(path)
    yield path


def in_short(found: Scanned) -> tuple[str, int, tuple[str, ...]]:
    return Path(found.names[0]).name, len(found.connections), found.problems


def test_rows(recording: Recording, folder: Path) -> None:
    (found,) = scan([folder / "a"], secrets=recording.secrets)
    name = str(folder / "a")
    expected = rows_of((folder / "a").read_bytes(), name=name, secrets=recording.secrets)
    assert found == Scanned((name,), tuple(expected.connections))
    assert [list(row) for row in found.connections] == [[column.name for column in CONNECTION_COLUMNS]] * 2
    (found,) = scan([name], secrets=recording.secrets, events=True)
    expected = rows_of((folder / "a").read_bytes(), name=name, secrets=recording.secrets, events=True)
    assert found == Scanned((name,), tuple(expected.connections), tuple(expected.events))
    assert list(found.events[0]) == [column.name for column in EVENT_COLUMNS]


def test_one_bad_file_does_not_stop_the_rest(recording: Recording, folder: Path) -> None:
    names = [folder / name for name in "abcdefg"]
    names.insert(3, folder / "absent")
    found = list(scan(names, secrets=recording.secrets))
    assert [Path(each.names[0]).name for each in found] == ["a", "b", "c", "absent", "d", "e", "f", "g"]
    assert [len(each.connections) for each in found] == [2, 0, 2, 0, 2, 0, 1, 2]
    problems = {Path(each.names[0]).name: each.problems for each in found if each.problems}
    assert list(problems) == ["b", "c", "absent", "d", "e", "f"]
    assert problems["absent"] == (f"{folder / 'absent'}: No such file or directory",)
    assert "key log, line 2" in problems["f"][0]
    assert all(len(texts) == 1 and texts[0].startswith(str(folder)) for texts in problems.values())


def test_any_number_of_processes(recording: Recording, folder: Path) -> None:
    names: list[Any] = [folder / name for name in "abcdefg"]
    names.insert(5, [folder / "a", folder / "g"])
    options: dict[str, Any] = {"secrets": recording.secrets, "events": True}
    expected = list(scan(names, **options))
    assert list(scan(names, jobs=2, **options)) == expected
    assert len(list(scan(names[:1], jobs=50))) == 1  # no more than there is to do
    assert scanning._processors() >= 1
    assert len(list(scan(names[:1], jobs=None))) == 1


def test_files_of_one_capture_are_named_together(recording: Recording, tmp_path: Path) -> None:
    records = talk(recording).records()
    paths = [tmp_path / "1", tmp_path / "2"]
    for path, part in zip(paths, (records[:12], records[12:]), strict=True):
        path.write_bytes(pcap(part))
    (found,) = scan([paths], secrets=recording.secrets)
    assert found.names == tuple(map(str, paths))
    (row,) = found.connections
    assert (row["capture"], row["decrypted"], row["complete"]) == (str(paths[0]), True, True)
    apart = list(scan(paths, secrets=recording.secrets))
    assert [row["start"] for each in apart for row in each.connections] == ["syn", "middle"]


def test_a_key_log_inside_opens_its_own_capture_only(recording: Recording, tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(with_key_log(talk(recording).records(), recording.key_log))
    (tmp_path / "2").write_bytes(capture(talk(recording)))
    known = Secrets()
    found = list(scan([tmp_path / "1", tmp_path / "2"], secrets=known))
    assert [row["decrypted"] for each in found for row in each.connections] == [True, False]
    assert len(known) == 0
    # Nor does one capture know what the other has seen.
    assert [row["findings"] for each in found for row in each.connections] == [[], []]


class Count:
    """A view: how much a connection has told."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._count = 0

    def add(self, seen: Observed, /) -> None:
        self._count += 1

    def row(self) -> dict[str, int]:
        return {"connection": self._conversation.connection.number, "events": self._count}


def test_a_view_makes_something_else_of_a_connection(recording: Recording, folder: Path) -> None:
    (found,) = scan([folder / "a"], secrets=recording.secrets, events=True, view=Count)
    assert len(found.connections) == 2
    for row in found.connections:
        assert row["events"] == sum(event["connection"] == row["connection"] for event in found.events)


def test_progress(folder: Path) -> None:
    names = [folder / "a", folder / "absent", folder / "b", folder / "g"]
    size = (folder / "a").stat().st_size
    told: list[tuple[int, int]] = []
    assert len(list(scan(names, progress=lambda *it: told.append(it)))) == 4
    total = 2 * size + 10
    assert told == [(size, total), (size, total), (size + 10, total), (total, total)]


def test_misuse(folder: Path) -> None:
    with pytest.raises(InvalidArgument, match="1 or more"):
        scan([folder / "a"], jobs=0)
    with pytest.raises(InvalidArgument, match="a list of names"):
        scan(str(folder / "a"))
    asking = Secrets(ask=lambda *_: None)
    with pytest.raises(InvalidArgument, match="can't go to other processes"):
        scan([folder / "a"] * 2, jobs=2, secrets=asking)
    assert len(list(scan([folder / "a"], jobs=2, secrets=asking))) == 1  # there is nobody else to send it to


def test_an_internal_error_is_one_captures_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("\x1b[31moh")

    good = scanning.connection_row
    monkeypatch.setattr(scanning, "connection_row", broken)
    iterator = scan([folder / "a", folder / "g"])
    first = next(iterator)
    assert first.problems == (f"{folder / 'a'}: internal error, RuntimeError: \\x1b[31moh",)
    monkeypatch.setattr(scanning, "connection_row", good)
    assert len(next(iterator).connections) == 2


def test_standard_input_is_read_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "a").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        found = list(scan([folder / "g", "-", folder / "g"], jobs=2))
    assert [len(each.connections) for each in found] == [2, 2, 2]
    assert found[1].names == ("-",)


def waiting(path: Path) -> int:
    """The process that has come to wait for a pipe to be opened at its other end."""
    for _ in range(600):
        for child in multiprocessing.active_children():
            place = Path(f"/proc/{child.pid}/wchan")
            with contextlib.suppress(OSError):
                if "wait_for_partner" in place.read_text(encoding="ascii"):
                    return child.pid or 0
        time.sleep(0.05)
    raise TimeoutError(f"nobody opens {path}")


@pytest.mark.skipif(not Path("/proc/self/wchan").exists(), reason="no /proc tells what a process waits for")
def test_a_process_that_dies_is_the_problem_of_what_it_read(folder: Path) -> None:
    with stuck(folder / "stuck") as path:
        killer = threading.Thread(target=lambda: os.kill(waiting(path), signal.SIGKILL))
        killer.start()
        found = list(scan([folder / "a", path, *[folder / "g"] * 4], jobs=2))
        killer.join()
    assert [len(each.connections) for each in found] == [2, 0, 2, 2, 2, 2]
    assert found[1].problems == (f"{path}: the process that read it has died (signal 9)",)


def test_closing_ends_all_processes_at_once(folder: Path) -> None:
    with stuck(folder / "stuck") as path:
        iterator = scan([folder / "a", path, path], jobs=2)
        assert len(next(iterator).connections) == 2
        assert multiprocessing.active_children()
        begun = time.monotonic()
        iterator.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begun < 4
    assert not multiprocessing.active_children()


SCRIPT = """
import sys
from sshproto_io.scanning import scan
{guard}
    print("begun", flush=True)
    for found in scan(sys.argv[1:], jobs=2):
        print(len(found.connections), flush=True)
"""


def started(folder: Path, guard: str, *names: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(guard=guard), encoding="utf-8")
    top = Path(scanning.__file__).resolve().parents[2]
    path = os.pathsep.join(map(str, (top, top / "adapters")))
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(script), *names], cwd=folder, env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_ctrl_c_ends_everything_without_a_word_of_the_others(folder: Path) -> None:
    with stuck(folder / "stuck"), started(folder, 'if __name__ == "__main__":', "a", "stuck", "stuck") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert process.stdout.readline() == "2\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        _, errors = process.communicate(timeout=60)  # until nobody is left who has its standard error
        assert process.returncode == -signal.SIGINT
        assert errors.count("Traceback") == 1, errors  # none of another process
        assert "KeyboardInterrupt" in errors


def test_a_script_without_its_guard_is_told_so(folder: Path) -> None:
    with started(folder, "if True:", "a", "g", "g") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"{ScanFailed.__name__}: a process that was to read captures has ended at once (status 1)" in errors
    assert "__main__" in errors


def test_rows_wait_for_their_turn_but_not_without_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first file takes long; the others are not all read meanwhile."""
    monkeypatch.setattr(scanning, "_AHEAD", 5)
    with stuck(folder / "stuck") as path:
        groups = [(str(name),) for name in (path, *[folder / "g"] * 40)]
        pool = scanning._Pool(groups, 2, setup())
        try:
            while len(pool.done) < 9:
                pool.step(0)
            monkeypatch.setattr(scanning, "wait", lambda *_: [])  # it would wait for the first file
            pool.step(0)
            assert len(pool._waiting) == 31
            pool.step(1)  # its turn is over, so that one more is read
            assert len(pool._waiting) == 30
        finally:
            pool.close()


def setup() -> scanning._Setup:
    return scanning._Setup(secrets=None, events=False, policy=None, ports=frozenset(), limits=None)


class Pipe:
    """Stands for the pipe to a process."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, ...]] = []

    def send(self, names: tuple[str, ...]) -> None:
        self.sent.append(names)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1000] * 40, [list(range(0, 32, 2)), list(range(1, 32, 2))]),  # small ones in advance, so many
        ([2 << 20, 1, 2 << 20, 1], [[0], [1, 2]]),  # none has to wait behind a long one
        ([600_000] * 8, [[0, 2], [1, 3]]),
        ([0, 0, 1000, 1000], [[0], [1]]),  # who knows how long those take that have no size?
    ],
)
def test_who_reads_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], expected: list[list[int]]
) -> None:
    started: list[Pipe] = []

    def start(_: Any) -> Any:
        started.append(Pipe())
        return scanning._Worker(None, started[-1])  # type: ignore[arg-type]

    monkeypatch.setattr(scanning, "_start", start)
    monkeypatch.setattr(scanning, "wait", lambda *_: [])
    for number, size in enumerate(sizes):
        with (tmp_path / str(number)).open("wb") as file:
            file.truncate(size)
    scanning._Pool([(str(tmp_path / str(number)),) for number in range(len(sizes))], 2, setup()).step(0)
    assert [[int(Path(names[0]).name) for names in pipe.sent] for pipe in started] == expected


@pytest.mark.skipif(not Path("/proc/self/wchan").exists(), reason="no /proc tells what a process waits for")
def test_what_a_process_had_before_it_when_it_died_is_read_by_others(
    recording: Recording, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stuck(folder / "stuck") as path:
        monkeypatch.setattr(scanning, "_length", lambda _: 1)  # so that others are given with it
        killer = threading.Thread(target=lambda: os.kill(waiting(path), signal.SIGKILL))
        killer.start()
        found = list(scan([path, *[folder / name for name in "abcdefg"]], jobs=2, secrets=recording.secrets))
        killer.join()
    assert [len(each.connections) for each in found] == [0, 2, 0, 2, 2, 0, 1, 2]
    assert [each.names[0] for each in found] == [str(path), *(str(folder / name) for name in "abcdefg")]


def test_a_process_that_dies_while_it_has_nothing_to_do(folder: Path) -> None:
    pool = scanning._Pool([(str(folder / "a"),)] * 2, 1, setup())
    try:
        pool._waiting.pop()
        while 0 not in pool.done:
            pool.step(0)
        (worker,) = pool._workers.values()
        worker.process.kill()
        worker.process.join()
        pool._waiting.append(1)
        while 1 not in pool.done:
            pool.step(1)
    finally:
        pool.close()
    assert [len(pool.done[index].connections) for index in range(2)] == [2, 2]
