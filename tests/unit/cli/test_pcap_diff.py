"""``sshproto pcap diff``: what is shown of differences, which connections are meant, and the exit status."""

from __future__ import annotations

import json

import pytest

from sshproto.config import ClientConfig, Preferences
from sshproto_cli.main import main
from tests.support.tapes import Show, command, shell, tape


@pytest.fixture
def diff(capfdbinary, tmp_path, monkeypatch):
    """Runs the verb on captures by their names: status, standard output, the lines of standard error."""
    monkeypatch.chdir(tmp_path)

    def run(captures, *words):
        for name, data in captures.items():
            (tmp_path / name).write_bytes(data)
        status = main(["pcap", "diff", *map(str, words)])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode().splitlines()

    return run


def narrow(line=b"make"):
    """A client with one cipher."""
    preferences = Preferences(cipher=("aes128-gcm@openssh.com",))
    return command(line, client=ClientConfig(user="alice", preferences=preferences, debug_raise=True))


def test_the_first_and_the_others(diff):
    captures = {"a": tape(command(b"make")), "b": tape(narrow(b"make \x1b[2J"))}
    status, out, err = diff(captures, "a", "b")
    lines = out.splitlines()
    assert lines[0] == "A  a, connection 1, 10.0.0.1:40001 to 10.0.0.2:22"
    assert lines[1].startswith("B  b, connection 1, ")
    start = lines.index("The first difference: offer")
    assert lines[start + 1].startswith("  the client's KEXINIT, cipher, client to server: only A has aes256-gcm@")
    assert lines[start + 1].endswith("  [A: frame 5; B: frame 5]")
    assert lines[start + 2] == "Then: offer"
    assert [line for line in lines if line.startswith("Then")] == ["Then: offer", "Then: negotiation", "Then: messages"]
    assert lines[-1].startswith("  the client's CHANNEL_REQUEST exec, command: A make; B make \\x1b[2J  [A: frame ")
    assert (status, err) == (1, [])


def test_no_difference(diff):
    captures = {"a": tape(shell()), "b": tape(command(), shell())}
    status, out, err = diff(captures, "a", "b:2")
    assert (status, err) == (0, [])
    assert out.splitlines()[-1] == "No difference."


def test_without_keys(diff):
    status, out, _ = diff({"a": tape(shell(), key_log=False), "b": tape(command(), key_log=False)}, "a", "b")
    assert status == 1, "these have the same cookies"
    status, out, _ = diff({"a": tape(shell()), "b": tape(command(), key_log=False)}, "a", "b")
    assert status == 0
    assert out.splitlines()[-2:] == [
        "Note: only A could be opened: what came encrypted was not compared.",
        "No difference in what could be compared.",
    ]


def test_a_key_log(diff, tmp_path):
    one, two = command(b"one"), command(b"two")
    (tmp_path / "keys").write_bytes(one.key_log + two.key_log)
    captures = {"a": tape(one, key_log=False), "b": tape(two, key_log=False)}
    assert "A one; B two" in diff(captures, "a", "b", "--keylog", "keys")[1]


def test_json(diff):
    status, out, _ = diff({"a": tape(command(b"one"), command(b"two"))}, "a:1", "a:2", "--json")
    found = json.loads(out)
    assert found["a"] == {
        "file": "a",
        "connection": 1,
        "dialler": "10.0.0.1:40001",
        "dialled": "10.0.0.2:22",
    }
    assert found["b"]["connection"] == 2
    assert (found["same"], found["notes"]) == (False, [])
    [difference] = found["differences"]
    assert (difference["a"], difference["b"], difference["role"]) == ("one", "two", "client")
    assert status == 1


def test_many_differences(diff):
    show = Show()
    for _ in range(20):
        show.open()
    captures = {"a": tape(Show()), "b": tape(show)}
    out = diff(captures, "a", "b")[1].splitlines()
    assert out[-1] == "  and 27 more (--all shows them)"
    every = diff(captures, "a", "b", "--all")[1].splitlines()
    assert len(every) == len(out) - 1 + 27


def test_which_connection(diff):
    captures = {"a": tape(shell(), command()), "b:2": tape(shell()), "none": tape()}
    assert diff(captures, "a", "b:2") == (2, "", ["sshproto: a: it has several connections (1, 2); say which: a:1"])
    assert diff(captures, "a", "a") == (2, "", ["sshproto: a: it has several connections (1, 2); say which: a:1"])
    status, out, err = diff(captures, "b:2", "b:2")
    assert (status, out.splitlines()[-1], err) == (0, "No difference.", [])
    assert diff(captures, "a:7", "b:2")[0] == 2
    assert diff(captures, "a:1", "b:2")[0] == 0, "a file that is called so"
    assert diff(captures, "a:1", "none") == (2, "", ["sshproto: none: there is no SSH connection in it"])
    status, _, err = diff(captures, "a:1", "absent")
    assert (status, err) == (2, ["sshproto: absent: No such file or directory"])


def test_a_damaged_capture_is_compared_as_far_as_it_goes(diff):
    status, out, err = diff({"a": tape(shell()), "b": tape(shell())[:-701]}, "a", "b")
    assert status == 1
    assert "only in A" in out
    assert err[0].startswith("sshproto: b: ")


def test_wrong_options(diff):
    assert diff({}, "a")[0] == 2
    assert diff({}, "a", "b", "c")[0] == 2
