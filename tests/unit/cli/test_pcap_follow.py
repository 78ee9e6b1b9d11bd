"""``sshproto pcap follow``: channels listed, their bytes as they were sent, and why they can't be shown."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sshproto.channels.requests import DirectTcpip, ExitSignal
from sshproto_cli.main import main
from tests.support.tapes import Show, command, shell, tape

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "adapters")))}


@pytest.fixture
def capture(tmp_path):
    """Writes a capture; its name."""

    def write(data, name="a.pcapng"):
        path = tmp_path / name
        path.write_bytes(data)
        return str(path)

    return write


@pytest.fixture
def follow(capfdbinary):
    """Runs the verb: status, standard output as bytes, the lines of standard error."""

    def run(*words):
        status = main(["pcap", "follow", *map(str, words)])
        out, err = capfdbinary.readouterr()
        return status, out, err.decode().splitlines()

    return run


# ------------------------------------------------------------------------------------------------------------- the list


def test_list(follow, capture):
    status, out, err = follow(capture(tape(shell(), command())))
    assert out.decode().splitlines() == [
        "connection 1, 10.0.0.1:40001 to 10.0.0.2:22",
        "    0  session, shell, terminal xterm 100x30",
        "       client 2 bytes, server 12 bytes, exit status 3",
        "connection 2, 10.0.0.1:40002 to 10.0.0.2:22",
        '    0  session, exec "make"',
        "       client 5 bytes, server 8 bytes, server's stderr 5 bytes, exit status 2",
    ]
    assert (status, err) == (0, [])


def test_list_of_one_connection(follow, capture):
    _, out, _ = follow(capture(tape(shell(), command())), "-n", 2)
    assert out.startswith(b"connection 2,")


def test_list_as_json(follow, capture):
    status, out, err = follow(capture(tape(shell(), command())), "--json")
    first, second = map(json.loads, out.splitlines())
    assert (first["connection"], first["channel"], first["exit_status"]) == (1, 0, 3)
    assert second["program"] == {"type": "exec", "command": "make"}
    assert second["complete"] is True
    assert (status, err) == (0, [])


def test_list_of_odd_channels(follow, capture):
    show = Show()
    channel = show.open(DirectTcpip("db\x1b[31m", 5432, "10.1.1.1", 4000))
    show.type(channel, b"query")
    other = show.open()
    show.exit(other, ExitSignal("KILL")).bye()
    _, out, _ = follow(capture(tape(show)))
    assert out.decode().splitlines()[1:] == [
        "    0  direct-tcpip host=db\\x1b[31m port=5432 originator_address=10.1.1.1 originator_port=4000",
        "       client 5 bytes",
        "    1  session",
        "       ended by signal KILL",
    ]


def test_list_says_what_is_missing(follow, capture):
    show = command()
    _, out, _ = follow(capture(tape(show, lost={len(show.recording.wire) - 4})))
    assert "missing: server: 52 bytes are missing here: what follows can't be read" in out.decode()


# ----------------------------------------------------------------------------------- the bytes


def test_text(follow, capture):
    status, out, err = follow(capture(tape(shell())), "--channel", 0)
    assert out.decode() == "server> $ \nclient> l\nserver> l\nclient> s\nserver> s\nserver> B\u00e4r\n"
    assert (status, err) == (0, [])


def test_text_without_marks_in_lines_that_go_on(follow, capture):
    show = Show()
    channel = show.open()
    for part in (b"one", b", two\r", b"\nthree", b"\xff\x1b[2J\r"):
        show.print(channel, part)
    show.print(channel, b"bad", 1).bye()
    _, out, _ = follow(capture(tape(show)), "--channel", 0)
    # A carriage return that nothing followed is known as one only at the end.
    assert out.decode() == "server> one, two\nserver> three\\xff\\x1b[2J\nstderr> bad\nserver> \\x0d\n"


def test_colours(follow, capture):
    _, out, _ = follow(capture(tape(command())), "--channel", 0, "--color", "always", "--stderr")
    assert out == b"\x1b[31mstderr> oops\x1b[0m\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], b"inputone\ntwo\noops\n"),
        (["--client"], b"input"),
        (["--server"], b"one\ntwo\n"),
        (["--stderr"], b"oops\n"),
        (["--server", "--stderr"], b"one\ntwo\noops\n"),
    ],
)
def test_raw(follow, capture, options, expected):
    assert follow(capture(tape(command())), "--channel", 0, "--raw", *options) == (0, expected, [])


def test_hex(follow, capture):
    show = Show()
    channel = show.open()
    show.print(channel, bytes(range(60, 80)))
    show.type(channel, b"x\n").print(channel, b"yz").bye()
    _, out, _ = follow(capture(tape(show)), "--channel", 0, "--hex")
    assert out.decode().splitlines() == [
        "server> 00000000  3c 3d 3e 3f 40 41 42 43 44 45 46 47 48 49 4a 4b  <=>?@ABCDEFGHIJK",
        "server> 00000010  4c 4d 4e 4f" + " " * 38 + "LMNO",
        "client> 00000000  78 0a" + " " * 44 + "x.",
        "server> 00000014  79 7a" + " " * 44 + "yz",
    ]


def test_json(follow, capture):
    _, out, _ = follow(capture(tape(command())), "--channel", 0, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["from"], row["stream"], base64.b64decode(row["data"])) for row in rows] == [
        ("client", "data", b"input"),
        ("server", "data", b"one\ntwo\n"),
        ("server", "stderr", b"oops\n"),
    ]
    assert [row["time"] for row in rows] == [1_700_000_001.0, 1_700_000_002.0, 1_700_000_002.0]
    assert all(len(row["frames"]) == 1 for row in rows)


def test_into_a_file(follow, capture, tmp_path):
    target = tmp_path / "out"
    assert follow(capture(tape(command())), "--channel", 0, "--raw", "--server", "-o", target) == (0, b"", [])
    assert target.read_bytes() == b"one\ntwo\n"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_key_log_opens(follow, capture, tmp_path):
    show = command()
    keys = tmp_path / "keys"
    keys.write_bytes(show.key_log)
    path = capture(tape(show, form="pcap"), "a.pcap")
    assert follow(path, "--keylog", keys, "--channel", 0, "--raw", "--stderr") == (0, b"oops\n", [])


# ------------------------------------------------------------------------------------------------ why it can't be


def test_no_key(follow, capture):
    status, out, err = follow(capture(tape(shell(), key_log=False)), "--channel", 0)
    assert (status, out) == (1, b"")
    assert err == [
        "sshproto: connection 1 could not be opened: no key is known; no key log was given (--keylog)",
    ]
    status, out, err = follow(capture(tape(shell(), key_log=False)))
    assert status == 1
    assert out.decode().splitlines()[1] == "  no channel is known"
    assert len(err) == 1


def test_keys_of_others(follow, capture, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"{'00' * 16} SHARED_SECRET 1234\n")
    status, _, err = follow(capture(tape(shell(), key_log=False)), "--keylog", keys, "--channel", 0)
    assert status == 1
    assert err == [
        (
            "sshproto: connection 1 could not be opened: no key is known;"
            " of the secrets that were given none is of this connection"
        )
    ]


def test_a_wrong_key(follow, capture, tmp_path):
    show = shell()
    keys = tmp_path / "keys"
    keys.write_bytes(show.key_log[:-3] + (b"01\n" if show.key_log.endswith(b"00\n") else b"00\n"))
    status, _, err = follow(capture(tape(show, key_log=False)), "--keylog", keys, "--channel", 0)
    assert status == 1
    assert err == [
        (
            "sshproto: connection 1 could not be opened: no key is known;"
            " client: the shared secret that is known for this key exchange does not fit it"
        )
    ]


def test_a_gap(follow, capture):
    show = command()
    path = capture(tape(show, lost={len(show.recording.wire) - 3}))
    status, out, err = follow(path, "--channel", 0, "--raw", "--server")
    assert (status, out) == (1, b"one\ntwo\n")
    assert err == [
        "sshproto: what the server sent is not whole: 124 bytes are missing here: what follows can't be read"
    ]


def test_a_gap_at_the_beginning(follow, capture):
    status, _, err = follow(capture(tape(shell(), lost={1})), "--channel", 0)
    assert status == 1
    assert "could not be opened" in err[0]
    assert "missing" in err[0]


def test_a_recording_that_stops(follow, capture):
    path = capture(tape(shell())[:-701], "cut.pcapng")
    status, out, err = follow(path, "--channel", 0)
    assert status == 1, "the file stops within a packet"
    assert out.startswith(b"server> $ ")
    assert err[0] == "sshproto: the recording lacks its end (channel 0)"
    assert "cut.pcapng" in err[1]


def test_no_such_channel(follow, capture):
    status, _, err = follow(capture(tape(shell())), "--channel", 4)
    assert (status, err) == (1, ["sshproto: connection 1 has no channel 4; it has one channel, which is 0"])
    status, _, err = follow(capture(tape(Show().bye())), "--channel", 4)
    assert (status, err) == (1, ["sshproto: connection 1 has no channel"])


def test_no_ssh(follow, capture):
    status, _, err = follow(capture(tape()))
    assert (status, err) == (1, ["sshproto: there is no SSH connection in it"])
    status, _, err = follow(capture(tape()), "--channel", 0)
    assert (status, err) == (1, ["sshproto: there is no SSH connection in it"])


def test_two_connections_make_no_sense(follow, capture):
    status, _, err = follow(capture(tape(shell())), "--channel", 0, "-n", 1, "-n", 2)
    assert status == 2
    assert "more than once" in err[0]


@pytest.mark.parametrize("name", ["a.pcapng", "link", "./a.pcapng"])
def test_the_input_is_never_overwritten(follow, capture, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    data = tape(shell())
    path = capture(data)
    (tmp_path / "link").symlink_to("a.pcapng")
    status, _, err = follow(path, "--channel", 0, "-o", name)
    assert status == 1
    assert "it is what is read" in err[0]
    assert Path(path).read_bytes() == data


def test_what_can_not_be_written(follow, capture, tmp_path):
    path = capture(tape(shell()))
    assert follow(path, "--channel", 0, "-o", tmp_path)[2] == [f"sshproto: {tmp_path}: it is a directory"]
    absent = tmp_path / "no" / "file"
    assert follow(path, "--channel", 0, "-o", absent)[2] == [f"sshproto: {absent}: No such file or directory"]


def test_a_failure_leaves_what_was_there(follow, capture, tmp_path):
    target = tmp_path / "out"
    target.write_text("before")
    assert follow(capture(tape(shell())), "--channel", 7, "-o", target)[0] == 1
    assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pcapng", "out"]


def test_what_is_no_file_is_written_to(follow, capture):
    assert follow(capture(tape(shell())), "--channel", 0, "-o", "/dev/null") == (0, b"", [])


# ------------------------------------------------------------------------------------------------------- as a process


def test_a_reader_who_has_seen_enough(capture):
    show = Show()
    channel = show.open()
    for _ in range(100):
        show.print(channel, b"x" * 10_000)
    path = capture(tape(show.bye()))
    words = [sys.executable, "-m", "sshproto_cli.main", "pcap", "follow", path, "--channel", "0", "--raw"]
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(5) == b"xxxxx"
    process.stdout.close()
    assert process.wait(20) == 128 + signal.SIGPIPE
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_live_capture_is_shown_as_it_comes_and_can_be_interrupted(tmp_path):
    data = tape(command())
    target = tmp_path / "never"
    words = [sys.executable, "-m", "sshproto_cli.main", "pcap", "follow", "-", "--channel", "0", "--raw"]
    # Without what ends it: then it would be done.
    with subprocess.Popen(words, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(data[:-600])
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 5) == b"input"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    with subprocess.Popen([*words, "-o", target], env=ENVIRONMENT, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(data[:-600])
        process.stdin.flush()
        while not any(tmp_path.iterdir()):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert list(tmp_path.iterdir()) == []
