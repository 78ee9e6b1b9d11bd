"""Key logs in files: what they open, and who may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sshproto.replay.secrets import parse_key_log
from sshproto_io.keylogs import key_log_to
from tests.support import ours, peers

LINES = [f"{number:032x} SHARED_SECRET {number:064x}" for number in range(1, 4)]


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    first, second = key_log_to(path), key_log_to(str(path))
    for write, line in zip((first, second, first), LINES, strict=True):
        write(line)
    assert path.read_text() == "".join(f"{line}\n" for line in LINES)
    assert len(list(parse_key_log(path.read_bytes()))) == len(LINES)


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    before = os.umask(0)
    try:
        key_log_to(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_that_was_moved_away_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write = key_log_to("keys.log")
    write(LINES[0])
    (tmp_path / "keys.log").rename(tmp_path / "keys.log.1")
    monkeypatch.chdir("/")
    write(LINES[1])
    assert (tmp_path / "keys.log").read_text() == f"{LINES[1]}\n"


def test_it_can_not_be_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        key_log_to(tmp_path / "nowhere" / "keys.log")


def test_it_can_not_be_written(tmp_path: Path) -> None:
    problems: list[OSError] = []
    folder = tmp_path / "logs"
    folder.mkdir()
    write, careless = (key_log_to(folder / "keys.log", on_problem=it) for it in (problems.append, None))
    (folder / "keys.log").unlink()
    folder.rmdir()
    write(LINES[0])
    careless(LINES[0])
    assert [type(problem) for problem in problems] == [FileNotFoundError]


def test_both_ends_of_the_command_line_write_the_same(tmp_path: Path) -> None:
    with peers.scratch() as folder:
        key = peers.make_key(folder)
        with ours.serve(["--keylog", f"{tmp_path}/server.log"], authorized_keys=[key.public]) as server:
            ran = ours.execute(server, "echo hello", key=key, options=["--keylog", f"{tmp_path}/client.log"])
            assert ran == peers.Ran(0, b"hello\n", b"")
    client, server_log = ((tmp_path / f"{role}.log").read_text() for role in ("client", "server"))
    ((cookie, kind, secret),) = (line.split() for line in client.splitlines())
    assert client == server_log
    assert (len(cookie), kind) == (32, "SHARED_SECRET")
    assert secret


def test_a_key_log_that_can_not_be_made_ends_it_before_it_begins(tmp_path: Path) -> None:
    with peers.scratch() as folder:
        key = peers.make_key(folder)
        with ours.serve(authorized_keys=[key.public]) as server:
            ran = ours.execute(server, "echo hello", key=key, options=["--keylog", f"{tmp_path}/no/where"])
    assert (ran.returncode, ran.stdout) == (255, b"")
    assert ran.stderr.startswith(b"sshproto: --keylog: ")
