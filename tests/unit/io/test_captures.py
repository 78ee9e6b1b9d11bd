"""Capture files and key-log files, opened: their order, standard input and pipes, progress, damage, errors."""

from __future__ import annotations

import gzip
import io
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sshproto.errors import InvalidArgument
from sshproto.replay.analysis import AnalysisLimits
from sshproto.replay.capture.reader import CHUNK, CaptureError, CaptureLimits
from sshproto.replay.findings import Policy
from sshproto.replay.secrets import KeyLogError, Secrets
from sshproto_io.captures import KeyFileError, add_key_logs, add_session_keys, conversations
from tests.replay.files import capture, damaged, talk, with_key_log
from tests.replay.sessions import Recording, session
from tests.support.captures import Record, Talk, ethernet, ipv4, pcap, pcapng, udp


@pytest.fixture(scope="module")
def recording() -> Recording:
    return session()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def noise(count: int, time: int = 2_000_000_000) -> list[Record]:
    """Packets that are no TCP, each a kilobyte and more."""
    packet = ethernet(ipv4(udp(bytes(1200)), protocol=17))
    return [(time + place * 1000, packet) for place in range(count)]


def test_a_file(recording: Recording, tmp_path: Path) -> None:
    path = written(tmp_path / "a.pcap", capture(talk(recording)))
    for name in (path, str(path)):
        (one,) = conversations([name], secrets=recording.secrets)
        assert one.summary.opened
        assert one.capture == str(path)
        assert one.events == []
    started: list[Any] = []
    (one,) = conversations([path], keep=True, ask=started.append, policy=Policy(cipher=()), limits=AnalysisLimits())
    assert one.events
    assert started == [one]
    assert {finding.code for finding in one.findings} == {"policy"}
    assert len(list(conversations([written(path, pcap(talk(recording).records()[20:]))]))) == 1
    assert list(conversations([path], ports=())) == []


def test_links_that_are_not_known(recording: Recording, tmp_path: Path) -> None:
    """Nothing of them shows, which is not the same as that there is no SSH."""
    records = talk(recording).records()
    strange = written(tmp_path / "a", pcap(records, link_type=147))
    known = written(tmp_path / "b", capture(talk(recording)))
    problem = "pcap.link type at offset 0: 147 is not known here, nothing of its packets shows"
    for names in ([strange, known], [known, strange]):
        for rotated in (False, True):
            told: dict[str, CaptureError] = {}
            assert len(list(conversations(names, rotated=rotated, on_damage=told.__setitem__))) == 1
            assert {name: f"{error}" for name, error in told.items()} == {str(strange): problem}
    with pytest.raises(CaptureError, match="147 is not known"):
        list(conversations([strange]))
    assert list(conversations([written(strange, pcap([], link_type=147))])) == []


def test_no_file_at_all() -> None:
    assert list(conversations([])) == []


def test_a_rotated_capture_in_other_formats(recording: Recording, tmp_path: Path) -> None:
    records = talk(recording).records()
    paths = [
        written(tmp_path / "z", pcap(records[:10])),
        written(tmp_path / "b", gzip.compress(pcapng(records[10:20]))),
        written(tmp_path / "c", with_key_log(records[20:], recording.key_log)),
    ]
    (one,) = conversations(paths, rotated=True)
    assert one.summary.opened
    assert one.summary.complete
    assert one.capture == str(paths[0])


def test_captures_that_know_nothing_of_each_other(recording: Recording, tmp_path: Path) -> None:
    """The same packets in two files are two connections; each file has its own frames, all have one row of numbers."""
    records = talk(recording).records()
    plain = written(tmp_path / "plain", pcap(records))
    opened = written(tmp_path / "opened", with_key_log(records, recording.key_log))
    found = list(conversations([plain, opened, plain], keep=True))
    assert [(one.capture, one.connection.number, one.connection.frame) for one in found] == [
        (str(plain), 1, 1), (str(opened), 2, 1), (str(plain), 3, 1),
    ]  # fmt: skip
    assert all(one.summary.complete for one in found)
    assert [one.summary.opened for one in found][:2] == [False, True]
    (whole,) = conversations([plain, opened], rotated=True)
    assert whole.capture == str(plain)


def test_standard_input(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        buffer = io.BytesIO(capture(talk(recording)))

    monkeypatch.setattr(sys, "stdin", Input)
    told: list[tuple[int, int | None]] = []
    (one,) = conversations(["-"], progress=lambda *it: told.append(it))
    assert one.capture == "-"
    assert told == [(len(Input.buffer.getvalue()), None)]
    assert not Input.buffer.closed
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(OSError, match="no standard input") as caught:
        list(conversations(["-"]))
    assert caught.value.filename == "-"


def test_standard_input_that_is_a_file(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = capture(talk(recording))
    with written(tmp_path / "a", data).open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        told: list[tuple[int, int | None]] = []
        assert len(list(conversations(["-"], progress=lambda *it: told.append(it)))) == 1
        assert told == [(len(data), len(data))]


def test_a_pipe_is_read_as_it_comes(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    records = talk(recording).records()
    begun = threading.Event()

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            file.write(pcap(records[:10]))
            assert begun.wait(30)  # nothing more comes until it was seen that it is SSH
            file.write(pcap(records[10:])[24:])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        (one,) = conversations([path], secrets=recording.secrets, ask=lambda _: begun.set())
    finally:
        begun.set()
        thread.join()
    assert one.summary.opened


def test_progress(recording: Recording, tmp_path: Path) -> None:
    first = written(tmp_path / "1", pcap(noise(700)))
    second = written(tmp_path / "2", capture(talk(recording)))
    total = first.stat().st_size + second.stat().st_size
    told: list[tuple[int, int | None]] = []
    assert len(list(conversations([first, second], progress=lambda *it: told.append(it)))) == 1
    steps = [CHUNK * count for count in range(1, first.stat().st_size // CHUNK + 1)]
    assert len(steps) > 2
    assert told == [(done, total) for done in (*steps, first.stat().st_size, total)]


def test_a_file_that_grows(recording: Recording, tmp_path: Path) -> None:
    """What comes while it is read is read, and there is never more than all."""
    path = written(tmp_path / "a", pcap(noise(700)))
    told: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        if not told:
            with path.open("ab") as file:
                file.write(capture(talk(recording))[24:])
        told.append((done, total))

    assert len(list(conversations([path], progress=progress))) == 1
    assert told[-1] == (path.stat().st_size, path.stat().st_size)


def test_damage(recording: Recording, tmp_path: Path) -> None:
    records = talk(recording).records()
    bad = written(tmp_path / "bad", damaged(pcap(records[:15])))
    none = written(tmp_path / "none", b"no capture")
    good = written(tmp_path / "good", pcap(records[15:]))
    told: list[tuple[str, CaptureError]] = []
    (one,) = conversations(
        [bad, none, good], rotated=True, secrets=recording.secrets, on_damage=lambda *it: told.append(it)
    )
    assert one.summary.opened
    assert one.summary.complete
    assert [name for name, _ in told] == [str(bad), str(none)]
    assert "record" in told[0][1].where or "packet" in told[0][1].where
    iterator = conversations([bad, none, good], rotated=True, secrets=recording.secrets)
    assert next(iterator).summary.opened
    with pytest.raises(CaptureError, match=str(bad)) as caught:  # the first that was
        next(iterator)
    assert (caught.value.offset, caught.value.problem) == (told[0][1].offset, told[0][1].problem)


@pytest.mark.parametrize("stop", [-1, -20, 24, 30, 3, 0])
def test_a_file_that_stops_in_the_middle(recording: Recording, tmp_path: Path, stop: int) -> None:
    data = capture(talk(recording))
    path = written(tmp_path / "a", data[: len(data) + stop if stop < 0 else stop])
    told: list[tuple[str, CaptureError]] = []
    count = len(list(conversations([path], on_damage=lambda *it: told.append(it))))
    assert count == int(stop < 0)
    assert [name for name, _ in told] == [str(path)] * (stop != 24)
    if stop in (3, 0):  # it is none
        with pytest.raises(CaptureError, match=str(path)):
            list(conversations([path]))
    else:
        assert len(list(conversations([path]))) == count


def test_a_bad_key_log_inside(recording: Recording, tmp_path: Path) -> None:
    path = written(tmp_path / "a", with_key_log(talk(recording).records(), [*recording.key_log, "nonsense"]))
    told: list[tuple[str, KeyLogError]] = []
    (one,) = conversations([path], on_key_log_error=lambda *it: told.append(it))
    assert one.summary.opened
    ((name, error),) = told
    assert (name, error.line) == (str(path), len(recording.key_log) + 1)
    assert len(list(conversations([path]))) == 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("shift", range(0, 16, 4))
def test_a_key_log_at_the_end_of_a_long_file(recording: Recording, tmp_path: Path, order: Any, shift: int) -> None:
    """The connection is over long before the key log comes."""
    from tests.support.captures import enhanced, interface, option, secrets, section

    records = [*talk(recording).records(), *noise(250)]
    parts = [section(order=order), interface(options=option(9, b"\x09", order=order), order=order)]
    parts += [enhanced(time, data, order=order) for time, data in records]
    body = b"".join(parts)
    # The mark stands across the border of what is read at once, or beside it.
    fill = -(len(body) + 8 - shift) % CHUNK
    body += enhanced(3_000_000_000, bytes(fill - 32), order=order)
    inside = secrets("\n".join(recording.key_log).encode(), order=order)
    path = written(tmp_path / "a", body + inside)
    known = Secrets()
    (one,) = conversations([path], secrets=known)
    assert one.summary.opened
    assert len(known) == len(recording.key_log)
    (one,) = conversations([written(path, body)])
    assert not one.summary.opened


def test_a_long_file_that_is_damaged_has_its_key_log_taken_as_far_as_it_goes(
    recording: Recording, tmp_path: Path
) -> None:
    data = with_key_log([*talk(recording).records(), *noise(500)], recording.key_log, last=True)
    path = written(tmp_path / "a", damaged(data))
    told: list[Any] = []
    (one,) = conversations([path], on_damage=lambda *it: told.append(it))
    assert one.summary.opened
    assert len(told) == 1
    limits = AnalysisLimits(capture=CaptureLimits(secrets=10))
    told.clear()
    (one,) = conversations([path], limits=limits, on_damage=lambda *it: told.append(it))
    assert not one.summary.opened


def test_errors_name_the_file(recording: Recording, tmp_path: Path) -> None:
    good = written(tmp_path / "good", capture(talk(recording)))
    for bad, kind in ((tmp_path / "absent", FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(kind) as caught:
            list(conversations([good, bad]))
        assert caught.value.filename == str(bad)
    with pytest.raises(FileNotFoundError):  # before any work is done
        next(conversations([good, tmp_path / "absent"]))
    for paths in (str(good), bytes(good)):
        with pytest.raises(InvalidArgument, match="a list of names"):
            next(conversations(paths))  # type: ignore[arg-type]


def test_an_error_while_reading(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        class buffer:  # noqa: N801
            @staticmethod
            def fileno() -> int:
                raise io.UnsupportedOperation

            @staticmethod
            def read(count: int) -> bytes:
                raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdin", Input)
    with pytest.raises(OSError, match="Input/output error") as caught:
        list(conversations(["-"]))
    assert (caught.value.errno, caught.value.filename) == (5, "-")


def test_files_are_closed_when_nobody_wants_more(recording: Recording, tmp_path: Path) -> None:
    paths = [written(tmp_path / str(number), capture(talk(recording))) for number in range(2)]
    iterator = conversations(paths)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]  an unclosed file would be a warning, which is an error


# ------------------------------------------------------------------------------------------------------------- key logs


def test_key_logs(recording: Recording, tmp_path: Path) -> None:
    line = recording.key_log[0]
    paths = [
        written(tmp_path / "1", f"# a comment\n{line}\n".encode()),
        written(tmp_path / "2", f"{'00' * 16} PRIVATE_KEY 0102\n{'01' * 16} 0102\n".encode()),
        written(tmp_path / "3", b""),
    ]
    known = Secrets()
    assert add_key_logs(known, paths) == 3
    (one,) = conversations([written(tmp_path / "a", capture(talk(recording)))], secrets=known)
    assert one.summary.opened
    keys = written(tmp_path / "keys", b'{"cipher_name": "aes128-ctr", "key": "%s", "iv": ""}' % (b"00" * 16))
    assert add_session_keys(known, [keys, keys]) == 2


@pytest.mark.parametrize(
    ("add", "text", "problem"),
    [
        (add_key_logs, b"# fine\nnonsense", "key log, line 2: has 1 fields, expected a cookie, a kind and a value"),
        (add_session_keys, b"[{}]", "session keys, entry 1: has neither a cookie nor a key"),
        (add_session_keys, b"{}{", "session keys, line 1: is not JSON"),
    ],
)
def test_bad_key_logs(tmp_path: Path, add: Any, text: bytes, problem: str) -> None:
    path = written(tmp_path / "keys", text)
    with pytest.raises(KeyFileError) as caught:
        add(Secrets(), [path])
    assert str(caught.value) == f"{path}: {problem}"
    assert caught.value.path == str(path)
    assert isinstance(caught.value, KeyLogError)
    with pytest.raises(FileNotFoundError, match="absent"):
        add(Secrets(), [tmp_path / "absent"])


@pytest.mark.parametrize(("text", "line"), [("{}\nnonsense", 2), ("nonsense\n{}", 1)])
def test_what_stands_around_an_error_is_taken(recording: Recording, tmp_path: Path, text: str, line: int) -> None:
    known = Secrets()
    with pytest.raises(KeyFileError, match=f"line {line}") as caught:
        add_key_logs(known, [written(tmp_path / "keys", text.format(recording.key_log[0]).encode())])
    assert caught.value.taken == len(known) == 1


def test_a_key_log_that_grows(recording: Recording, tmp_path: Path) -> None:
    """Its lines come after what they open, in pieces, one of them nonsense."""
    records = talk(recording, hang_up=False).records()
    line = recording.key_log[0].encode()
    log = written(tmp_path / "log", b"# begun\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    opened: list[bool] = []
    steps = [b"", b"nonsense\n" + line[:50], line[50:], b"\n"]

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            file.write(pcap(records))
            for step in steps:
                assert wait.acquire(timeout=30)
                with log.open("ab") as lines:
                    lines.write(step)
                file.write(pcap(noise(1))[24:])

    wait = threading.Semaphore(0)
    started: list[Any] = []
    errors: list[tuple[str, KeyLogError]] = []

    def progress(done: int, total: int | None) -> None:
        opened.append(started[0].summary.opened)
        wait.release()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        (one,) = conversations(
            [pipe],
            key_logs=[log],
            ask=started.append,
            progress=progress,
            on_key_log_error=lambda *it: errors.append(it),
        )
    finally:
        for _ in steps:
            wait.release()
        thread.join()
    assert opened == [False, False, False, False, True]
    assert one.summary.opened
    ((name, error),) = errors
    assert name == str(log)
    assert str(error).startswith("key log, line 2: ")
    assert error.line == 2


def test_the_last_line_of_a_key_log_may_lack_its_end(recording: Recording, tmp_path: Path) -> None:
    path = written(tmp_path / "a", capture(talk(recording, hang_up=False)))
    log = written(tmp_path / "log", recording.key_log[0].encode())
    for logs in ([log], [str(log)]):
        (one,) = conversations([path], key_logs=logs)
        assert one.summary.opened
    errors: dict[str, KeyLogError] = {}
    written(log, f"nonsense\n{recording.key_log[0]}".encode())
    (one,) = conversations([path], key_logs=[log], on_key_log_error=errors.__setitem__)
    assert one.summary.opened
    assert errors[str(log)].line == 1
    written(log, b"nonsense\n")
    with pytest.raises(KeyFileError, match=f"{log}: key log, line 1"):
        list(conversations([path], key_logs=[log]))
    with pytest.raises(FileNotFoundError):
        list(conversations([path], key_logs=[tmp_path / "absent"]))


def test_a_key_log_that_goes_away(recording: Recording, tmp_path: Path) -> None:
    path = written(tmp_path / "a", pcap([*talk(recording, hang_up=False).records(), *noise(500)]))
    log = written(tmp_path / "log", f"{recording.key_log[0]}".encode())
    (one,) = conversations([path], key_logs=[log], progress=lambda *_: log.unlink(missing_ok=True))
    assert one.summary.opened


def test_a_key_log_that_is_begun_anew(recording: Recording, tmp_path: Path) -> None:
    path = written(tmp_path / "a", pcap([*talk(recording, hang_up=False).records(), *noise(500)]))
    log = written(tmp_path / "log", b"# a long comment, which is longer than all that comes later\n" * 20)

    def progress(done: int, total: int | None) -> None:
        written(log, f"{recording.key_log[0]}\n".encode())

    (one,) = conversations([path], key_logs=[log], progress=progress)
    assert one.summary.opened


def test_many_connections(recording: Recording, tmp_path: Path) -> None:
    """Each is given when it is over, before the rest of the file is read."""
    path = written(tmp_path / "a", pcap([*talk(recording).records(), *noise(700)]))
    told: list[int] = []
    iterator = conversations([path], progress=lambda done, _: told.append(done))
    next(iterator)
    assert told == []
    assert list(iterator) == []
    assert told[-1] == path.stat().st_size
    it = Talk().dial()
    assert list(conversations([written(tmp_path / "b", capture(it))])) == []
