"""``sshproto trace``: its verbs, what they print, and how they end."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sshproto.channels.mux import Mux
from sshproto.replay.trace.file import Privacy, read
from sshproto.replay.trace.seeds import play
from sshproto_cli import main
from tests.support import traces


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("traces")
    recorded = traces.lively()
    (found / "client.sqlog").write_bytes(recorded.client)
    (found / "server.sqlog").write_bytes(recorded.server)
    (found / "again.sqlog").write_bytes(traces.lively().client)
    (found / "secret.sqlog").write_bytes(traces.confide(Privacy.REPLAY).client)
    (found / "metadata.sqlog").write_bytes(traces.confide(Privacy.METADATA).client)
    (found / "cut.sqlog").write_bytes(recorded.client[:-5])
    (found / "none.sqlog").write_bytes(b"SSH-2.0-x\r\n")
    return found


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(folder)

    def run(*words: str) -> tuple[int, str, str]:
        status = main.main(["trace", *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


# --------------------------------------------------------------------------------------------------------------- verify


def test_verify(run: Any) -> None:
    status, out, err = run("verify", "client.sqlog")
    assert (status, err) == (0, "")
    assert out.startswith("client.sqlog: a client, ")
    assert out.endswith(" steps, all as recorded\n")
    told = json.loads(run("verify", "--json", "server.sqlog")[1])
    assert told["exact"] is True
    assert told["role"] == "server"
    assert told["divergence"] is None


def test_verify_of_a_core_that_has_changed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mux, "credit", lambda self, channel, count: None)
    status, out, _ = run("verify", "client.sqlog")
    assert status == 1
    first, second, expected, got = out.splitlines()[:4]
    assert first.endswith("steps as recorded, it differs at")
    assert second.endswith("credit:")
    assert "ChannelWindowAdjust" in expected
    assert "api_result" in got
    told = json.loads(run("verify", "--json", "client.sqlog")[1])
    assert told["exact"] is False
    assert told["divergence"]["call"] == "credit"
    assert told["divergence"]["expected"]["data"]["msg_name"] == "ChannelWindowAdjust"
    assert told["divergence"]["got"]["name"] == "ssh:api_result"


def test_verify_of_what_was_cut(run: Any) -> None:
    status, out, err = run("verify", "cut.sqlog")
    assert status == 0
    assert "all as recorded" in out
    assert "cut in a record that starts at byte" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["verify", "none.sqlog"], "none.sqlog: trace at offset 0: a record begins with byte 1e"),
        (["verify", "metadata.sqlog"], "not 'metadata'"),
        (["verify", "missing.sqlog"], "missing.sqlog: No such file"),
        (["show", "none.sqlog"], "a record begins with"),
        (["diff", "client.sqlog", "none.sqlog"], "a record begins with"),
        (["diff", "-", "-"], "only one of the two"),
        (["minimise", "metadata.sqlog", "-o", "out"], "'metadata'"),
        (["minimise", "client.sqlog", "-o", "client.sqlog"], "client.sqlog: File exists"),
        (["minimise", "client.sqlog", "-o", "out", "--until", "noon"], "--until"),
        (["minimise", "client.sqlog", "-o", "out", "--until", "event="], "--until"),
        (["minimise", "client.sqlog", "-o", "out", "--until", "event=MacError"], "does not show"),
        (["minimise", "client.sqlog", "-o", "out", "--tries", "0"], "--tries"),
        (["verify"], "FILE"),
        ([], "VERB"),
    ],
)
def test_trouble_is_told_in_one_line(run: Any, words: list[str], told: str) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_standard_input(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "client.sqlog").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert run("verify", "-")[0] == 0


# ----------------------------------------------------------------------------------------------------------------- show


def test_show(run: Any) -> None:
    status, out, err = run("show", "client.sqlog")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "a client, recorded by sshproto 0.1.0, level replay"
    for words in (
        "identification         VersionReceived line=SSH-2.0-sshproto_0.1.0",
        "call accept_host_key   question=question 1",
        "packet_sent            raw=<1 bytes> seq=2 msg=21 msg_name=NewKeys",
        "auth_result            AuthSucceeded method=publickey trivial=False",
        "call disconnect        description=all done",
        "disconnected           ConnectionLost error=LocalClose: closed by this side: all done",
    ):
        assert any(words in line for line in lines), words
    assert not any(" entropy " in line or " idle" in line for line in lines)
    assert len(run("show", "--all", "client.sqlog")[1].splitlines()) > len(lines)


def test_show_shows_no_secret(run: Any) -> None:
    out = run("show", "--all", "secret.sqlog")[1]
    for canary in traces.CANARIES:
        assert canary.decode() not in out
        assert canary.hex() not in out
    assert "call auth_password     question=question 2 password=…" in out


def test_show_as_json_is_the_file(run: Any, folder: Path) -> None:
    lines = run("show", "--json", "client.sqlog")[1].splitlines()
    trace = read((folder / "client.sqlog").read_bytes())
    assert trace.header is not None
    assert [json.loads(line) for line in lines] == [
        trace.header.as_dict(),
        *(record.as_dict() for record in trace.records),
    ]


def test_show_makes_control_characters_harmless(run: Any, folder: Path) -> None:
    trace = read((folder / "metadata.sqlog").read_bytes())
    assert trace.header is not None
    evil = {
        "time": 1,
        "name": "ssh:\x1b[2J",
        "data": {"\x1b]0;x": "\x1b[31m", "step": "\x1b", "event": {"$class": "\x07"}},
    }
    header = json.dumps({**trace.header.as_dict(), "title": "\x1b[2J"})
    (folder / "evil.sqlog").write_bytes(f"\x1e{header}\n\x1e{json.dumps(evil)}\n".encode())
    out = run("show", "evil.sqlog")[1]
    assert "\x1b" not in out
    assert "\x07" not in out
    assert out.count("\n") == 2


# ----------------------------------------------------------------------------------------------------------------- diff


def test_diff(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, _ = run("diff", "client.sqlog", "client.sqlog")
    assert status == 0
    assert out.endswith("records, no difference\n")
    status, out, _ = run("diff", "client.sqlog", "again.sqlog")
    assert status == 0, out
    assert json.loads(run("diff", "--json", "client.sqlog", "again.sqlog")[1])["equal"] is True
    status, out, _ = run("diff", "--exact", "client.sqlog", "again.sqlog")
    assert status == 1
    assert "entropy" in out
    status, out, _ = run("diff", "client.sqlog", "server.sqlog")
    assert status == 1
    first, mine, other = out.splitlines()
    assert first == "record 1 of those compared differs"
    assert "role=client" in mine
    assert "role=server" in other
    told = json.loads(run("diff", "--json", "client.sqlog", "server.sqlog")[1])
    assert told["equal"] is False
    assert told["expected"]["data"]["role"] == "client"


def test_diff_with_a_shorter_one(run: Any, folder: Path) -> None:
    trace = read((folder / "client.sqlog").read_bytes())
    short = type(trace)(trace.header, trace.records[:60], None)
    (folder / "short.sqlog").write_bytes(short.encode())
    status, out, _ = run("diff", "client.sqlog", "short.sqlog")
    assert status == 1
    assert out.splitlines()[-1] == "  short.sqlog: nothing more"


# ------------------------------------------------------------------------------------------------------------- minimise


def test_minimise(run: Any, folder: Path) -> None:
    status, out, err = run("minimise", "client.sqlog", "-o", "least.sqlog", "--seed", "least.seed", "--tries", "200")
    assert (status, err) == (0, "")
    assert out.startswith("least.sqlog: 1 of ")
    assert (folder / "least.sqlog").stat().st_mode & 0o777 == 0o600
    assert run("verify", "least.sqlog")[0] == 0
    found = play((folder / "least.seed").read_bytes())
    assert found is not None
    assert type(found.loss).__name__ == "LocalClose"


def test_minimise_until_an_event(run: Any, folder: Path) -> None:
    words = ("minimise", "client.sqlog", "--until", "event=VersionReceived", "-o", "ident.sqlog")
    assert run(*words)[0] == 0
    names = [record.name for record in read((folder / "ident.sqlog").read_bytes()).records]
    assert names.count("ssh:bytes_in") == 1
    assert "ssh:identification" in names


def test_progress_is_for_terminals(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert run("minimise", "client.sqlog", "-o", "shown.sqlog", "--tries", "20")[0] == 0
    assert " of 20 tries" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
