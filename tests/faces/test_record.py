"""Connections of every face are recorded by their configuration alone, and replay exactly."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto.client import ClientConnection
from sshproto.config import Preferences
from sshproto.keys.private import PrivateKey
from sshproto.replay.trace.file import Privacy, read
from sshproto.replay.trace.verify import verify
from sshproto_io.recording import TraceFile, record_in, record_to
from tests.support import faces, ours, peers
from tests.support.faces import Face, client_config, login
from tests.support.faceserver import Commands, descriptors, server_config
from tests.support.seeds import HOST, USER_KEY

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (ROOT, ROOT / "adapters")


@pytest.fixture(params=faces.NAMES)
def face(request: pytest.FixtureRequest) -> Face:
    return faces.get(request.param)


def _handler(incoming: Any) -> Commands:
    return Commands()


async def _session(face: Face, config: Any, keys: list[PrivateKey]) -> None:
    """Commands, data both ways, two at once, a rekey, a connection through it, and requests that fail."""
    async with (
        face.listen(_handler) as server,
        face.connect(HOST, server.port, **login(config=config, keys=keys)) as client,
    ):
        data = bytes(range(256)) * 1500
        assert (await client.run("cat", input=data)).stdout == data
        await client.rekey()

        async def work() -> None:
            assert (await client.run("echo hello")).exit_status == 0

        await face.gather(work, work)
        assert (await client.run("exit 7")).exit_status == 7
        with pytest.raises(Exception, match="refused"):
            await client.run("refused")
        async with client.open_tcp("served.example", 1) as stream:
            await stream.write(b"through")
            await stream.send_eof()
            assert await stream.read() == b"through"


@pytest.mark.parametrize("preferences", [None, Preferences()], ids=["quick", "usual"])
def test_both_ends_replay_exactly(
    face: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preferences: Preferences | None
) -> None:
    record = record_in(tmp_path / "traces", Privacy.REPLAY)
    config = attrs.evolve(server_config(), record=record)
    mine = client_config(record=record)
    if preferences is not None:
        config = attrs.evolve(config, preferences=preferences)
        mine = attrs.evolve(mine, preferences=preferences)
    monkeypatch.setattr(faces, "server_config", lambda: config)
    face.play(_session, mine, [PrivateKey.generate("ecdsa-sha2-nistp256"), USER_KEY])
    paths = sorted((tmp_path / "traces").iterdir())
    assert len(paths) == 2
    roles = set()
    for path in paths:
        verdict = verify(path.read_bytes())
        assert verdict.exact, str(verdict.divergence)
        assert verdict.cut is None
        assert verdict.steps > 50
        roles.add(verdict.header.role.value)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        events = [
            record.data["event"]["$class"] for record in read(path.read_bytes()).records if "event" in record.data
        ]
        assert events[-1] == "ConnectionLost"
        assert events.count("KeysExchanged") == 2
    assert roles == {"client", "server"}


def test_many_connections_of_a_server_have_a_file_each(
    face: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = attrs.evolve(server_config(), record=record_in(tmp_path, Privacy.REPLAY))
    monkeypatch.setattr(faces, "server_config", lambda: config)

    async def scenario(face: Face) -> None:
        async with face.listen(_handler) as server:

            async def visit() -> None:
                async with face.connect(HOST, server.port, **login()) as client:
                    assert (await client.run("echo hello")).stdout

            await face.gather(*[visit] * 5)

    face.play(scenario)  # which sees that no descriptor is left
    paths = list(tmp_path.iterdir())
    assert len(paths) == 5
    for path in paths:
        verdict = verify(path.read_bytes())
        assert verdict.exact, str(verdict.divergence)


def test_a_connection_whose_trace_cannot_be_written_goes_on(
    face: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once, and what is in the file is whole records."""
    problems: list[OSError] = []
    write = TraceFile.write

    def full(self: TraceFile, record: bytes) -> None:
        if self._size > 20_000:
            raise OSError(28, "No space left on device")
        write(self, record)

    monkeypatch.setattr(TraceFile, "write", full)
    record = record_to(tmp_path / "trace.sqlog", Privacy.REPLAY, on_problem=problems.append)
    face.play(_session, client_config(record=record), [USER_KEY])
    assert [error.errno for error in problems] == [28]
    verdict = verify((tmp_path / "trace.sqlog").read_bytes())
    assert verdict.exact
    assert verdict.cut is None


# ---------------------------------------------------------------------------------------------------------------- files


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "trace.sqlog"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        record_to(path)
    assert path.read_text() == "mine"


def test_a_further_connection_has_a_file_of_its_own(tmp_path: Path) -> None:
    config = client_config(record=record_to(tmp_path / "trace.sqlog"))
    for _ in range(3):
        ClientConnection(config, 0.0).disconnect()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace-2.sqlog", "trace-3.sqlog", "trace.sqlog"]


def test_no_file_stays_open_after_the_end(tmp_path: Path) -> None:
    """Even though faces still give commands to what has ended; the connection is still there."""
    conn = ClientConnection(client_config(record=record_to(tmp_path / "trace.sqlog")), 0.0)
    before = set(descriptors())
    conn.disconnect()
    conn.next_event()
    conn.data_to_send()
    assert len(before - set(descriptors())) == 1
    conn.disconnect()
    assert len(before - set(descriptors())) == 1


def test_a_record_that_does_not_go_in_whole_is_taken_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = TraceFile(tmp_path / "trace.sqlog")
    file.write(b"\x1e{}\n")
    os_write = os.write

    def some(descriptor: int, data: Any) -> int:
        if len(data) < 10:
            raise OSError(28, "No space left on device")
        return os_write(descriptor, data[:5])

    monkeypatch.setattr(os, "write", some)
    with pytest.raises(OSError, match="No space"):
        file.write(b"\x1e" + b"x" * 30 + b"\n")
    monkeypatch.undo()
    assert (tmp_path / "trace.sqlog").read_bytes() == b"\x1e{}\n"
    file.close()
    file.write(b"\x1e[]\n")
    file.close()
    assert (tmp_path / "trace.sqlog").read_bytes() == b"\x1e{}\n\x1e[]\n"


# --------------------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize("io", faces.NAMES)
def test_exec_and_serve_record(io: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from sshproto_cli import main

    folder = tmp_path / "served"
    with peers.scratch() as scratch:
        key = peers.make_key(scratch)
        options = ["--io", io, "--record", str(folder), "--record-level", "replay"]
        with ours.serve(options, authorized_keys=[key.public]) as server:
            known = tmp_path / "known_hosts"
            known.write_text(f"[{HOST}]:{server.port} {server.host_keys[0]}\n")
            words = ["exec", "--io", io, "-p", str(server.port), "-i", str(key.path), "--known-hosts", str(known)]
            words += ["--record", str(tmp_path / "client.sqlog"), "--record-level", "replay"]
            assert main.main([*words, f"{server.user}@{HOST}", "echo hello"]) == 0
            assert main.main([*words, f"{server.user}@{HOST}", "echo hello"]) == 255
        captured = capfd.readouterr()
        assert "hello" in captured.out
        assert "--record: " in captured.err
        assert "client.sqlog: File exists" in captured.err
    traces = [tmp_path / "client.sqlog", *folder.iterdir()]
    assert len(traces) == 2
    for path in traces:
        assert main.main(["trace", "verify", str(path)]) == 0
    assert capfd.readouterr().out.count("all as recorded") == 2


def test_a_process_that_is_killed_leaves_a_trace_that_replays(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from sshproto import ClientConfig, ClientConnection\n"
        "from sshproto.replay.trace.file import Privacy\n"
        "from sshproto_io.recording import record_to\n"
        "conn = ClientConnection(ClientConfig(user='a', record=record_to(sys.argv[1], Privacy.REPLAY)), 0.0)\n"
        "conn.data_to_send()\n"
        "conn.receive_data(b'SSH-2.0-x\\r\\n', 1.0)\n"
        "conn.next_event()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "killed.sqlog"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env={"PYTHONPATH": os.pathsep.join(map(str, SOURCES))}, check=False
    )
    assert done.returncode == -9
    verdict = verify(path.read_bytes())
    assert verdict.exact
    assert verdict.steps == 4
    assert verdict.cut is None
