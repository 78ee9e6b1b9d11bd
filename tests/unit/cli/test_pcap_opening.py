"""What the verbs of ``sshproto pcap`` share: files that are none, key logs, live captures, pipes, signals, progress."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sshproto_cli import main as main_module
from sshproto_cli.main import main
from sshproto_cli.pcap import VERBS
from sshproto_cli.pcap import progress as progress_module
from sshproto_cli.pcap.progress import Progress, size
from tests.support import captures
from tests.support.tapes import command, shell, tape
from tests.support.verbs import runner

ROOT = Path(__file__).resolve().parents[3]
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "adapters"))), "PYTHONUNBUFFERED": ""}
COMMAND = [sys.executable, "-m", "sshproto_cli.main", "pcap"]
SECONDS = 60


@pytest.fixture
def info(capfd, tmp_path):
    return runner("info", capfd, tmp_path)


# ---------------------------------------------------------------------------------------------------------------- verbs


def test_help_has_every_verb(capsys):
    assert main(["pcap", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"    {name} " in shown for name in VERBS)
    assert main(["--help"]) == 0
    assert "    pcap " in capsys.readouterr().out


@pytest.mark.parametrize("words", [["pcap"], ["pcap", "dance"], ["pcap", "--json", "info", "x"]])
def test_no_verb(capsys, words):
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["info", "decode", "check"])
def test_each_verb_is_a_module(name):
    assert importlib.import_module(f"sshproto_cli.pcap.{name}").add_parser.__doc__


def test_a_verb_imports_no_other():
    code = (
        "import sys; from sshproto_cli.main import main; main(['pcap', 'info', '--help']);"
        "assert 'sshproto_cli.pcap.info' in sys.modules;"
        "assert not {'sshproto_cli.pcap.decode', 'sshproto.replay.analysis', 'cryptography'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=ENV, timeout=SECONDS, stdout=subprocess.DEVNULL)


def test_the_table_of_verbs():
    assert {"pcap", "keylog", "trace"} <= set(main_module.VERBS)


# --------------------------------------------------------------------------------------------------------------- errors


def test_no_capture(info):
    ran = info(b"what is this?")
    assert (ran.status, ran.out, len(ran.err)) == (1, [], 1)
    assert ran.err[0].endswith("not pcap, nor pcapng, nor one of them in gzip or zstd")
    assert ran.err[0].startswith("sshproto: /")


def test_no_file(info, tmp_path):
    ran = info(tmp_path / "none")
    assert (ran.status, ran.out, ran.err) == (1, [], [f"sshproto: {tmp_path / 'none'}: No such file or directory"])
    ran = info("--json", tmp_path, tmp_path / "none", tape(command()))
    assert len(ran.objects) == 1
    none = f"sshproto: {tmp_path / 'none'}: No such file or directory"
    assert (ran.status, ran.err) == (1, [f"sshproto: {tmp_path}: Is a directory", none])


def test_what_stands_before_the_damage_is_shown(info):
    data = tape(command(), shell())
    ran = info("--json", data[:-40])
    assert [it["connection"] for it in ran.objects] == [1, 2]
    assert ran.status == 1
    assert len(ran.err) == 1
    assert "the file ends" in ran.err[0]


def test_each_damaged_file_is_told(info):
    ran = info("--json", b"nothing", tape(command()), b"nor this")
    assert len(ran.objects) == 1
    assert ran.status == 1
    assert [line.split(":")[1].rpartition("/")[2] for line in ran.err] == ["1.pcap", "3.pcap"]


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--keylog", "# a comment\nabc\n", "key log, line 2: has 1 fields, expected a cookie, a kind and a value"),
        ("--keylog", '[{"key": "00"}]', "this is JSON, no key log; session keys go with --session-keys"),
        ("--session-keys", "[1]", "session keys, entry 1: is a int, expected an object"),
    ],
)
def test_no_key_log(info, tmp_path, option, text, words):
    path = tmp_path / "keys"
    path.write_text(text)
    ran = info(option, path, tape(command()))
    assert (ran.status, ran.out, ran.err) == (1, [], [f"sshproto: {path}: {words}"])
    ran = info(option, tmp_path / "none", tape(command()))
    assert (ran.status, ran.out, ran.err) == (1, [], [f"sshproto: {tmp_path / 'none'}: No such file or directory"])


def test_a_key_log_with_other_lines(info, tmp_path):
    show = command()
    path = tmp_path / "keys"
    path.write_bytes(b"CLIENT_RANDOM 00 11\n" + show.key_log + b"abc\n")
    ran = info("--json", "--keylog", path, tape(show, form="pcap"))
    assert ran.objects[0]["decrypted"] is not None
    assert ran.status == 0
    (line,) = ran.err
    assert line.startswith(f"sshproto: {path}: key log, line 1: is of the kind '00', expected SHARED_SECRET")
    assert line.endswith("; lines that are none are passed over")


def test_several_key_logs(info, tmp_path):
    shows = [command(), shell()]
    paths = [tmp_path / "first", tmp_path / "second"]
    for path, show in zip(paths, shows, strict=True):
        path.write_bytes(show.key_log)
    data = tape(*shows, form="pcap")
    ran = info("--json", "--keylog", paths[0], data)
    assert [it["decrypted"] is not None for it in ran.objects] == [True, False]
    ran = info("--json", "--keylog", paths[0], "--keylog", paths[1], data)
    assert [it["decrypted"] is not None for it in ran.objects] == [True, True]


def test_the_environment_has_no_say(info, tmp_path, monkeypatch):
    """What a live connection writes to is not read without being asked for, as with other tools."""
    show = command()
    (tmp_path / "log").write_bytes(show.key_log)
    monkeypatch.setenv("SSHKEYLOGFILE", str(tmp_path / "log"))
    assert info("--json", tape(show, form="pcap")).objects[0]["decrypted"] is None


def test_a_bad_key_log_in_a_capture(info):
    show = command()
    data = tape(show)
    bad = captures.secrets(b"not a key log\n")
    ran = info("--json", data + bad)
    assert ran.objects[0]["decrypted"] is not None
    assert ran.status == 0
    assert len(ran.err) == 1
    assert "key log, line 1" in ran.err[0]


def test_where_ssh_is_expected(info):
    """Of what began before the recording."""
    records = shell().segments()[20:]
    data = captures.pcap(records)
    assert len(info("--json", data).objects) == 1
    assert info("--json", "--port", 2222, data).objects == []
    assert len(info("--json", "--port", 2222, "--port", 22, data).objects) == 1


# ----------------------------------------------------------------------------------------------------------------- live


def test_standard_input(tmp_path):
    done = subprocess.run(
        [*COMMAND, "info", "--json", "-"],
        check=False,
        input=tape(command()),
        env=ENV,
        capture_output=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'"capture": "-", "connection": 1' in done.stdout


def test_events_are_shown_when_they_come():
    """While the capture is still being made."""
    data = tape(command())
    with subprocess.Popen([*COMMAND, "decode", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV) as process:
        process.stdin.write(data[: len(data) * 2 // 3])
        process.stdin.flush()
        first = process.stdout.readline()  # of one that waits for the end, it would never come
        assert first.startswith(b"connection 1, ")
        process.stdin.write(data[len(data) * 2 // 3 :])
        process.stdin.close()
        assert b"CHANNEL_CLOSE" in process.stdout.read()
    assert process.returncode == 0


def test_a_key_log_that_grows(tmp_path):
    """It is written while the capture is."""
    show = shell()
    packets = show.segments()
    parts = [captures.pcap(packets[:number]) for number in (20, 24, len(packets))]
    log = tmp_path / "log"
    log.write_bytes(b"")
    argv = [*COMMAND, "decode", "--keylog", str(log), "-"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV) as process:

        def give(data: bytes) -> None:
            process.stdin.write(data)
            process.stdin.flush()

        def wait_for(frame: bytes) -> list[bytes]:
            lines = [process.stdout.readline()]
            while lines[-1].split()[2:3] != [frame]:
                lines.append(process.stdout.readline())
            return lines

        give(parts[0])
        wait_for(b"20")
        log.write_bytes(show.key_log + b"half a l")
        give(parts[1][len(parts[0]) :])
        late = b"".join(wait_for(b"24"))
        give(parts[2][len(parts[1]) :])
        process.stdin.close()
        rest = process.stdout.read()
    assert b"a key has come late" in late  # before what comes with it is told
    assert b"CHANNEL_DATA" in rest
    assert process.returncode == 0


def test_connections_are_shown_when_they_end():
    """Though others go on."""
    first, both = tape(command(), form="pcap"), tape(command(), shell(), form="pcap")
    argv = [*COMMAND, "info", "--json", "-"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV) as process:
        process.stdin.write(both[: len(first) + 2000])
        process.stdin.flush()
        assert b'"connection": 1' in process.stdout.readline()
        process.stdin.write(both[len(first) + 2000 :])
        process.stdin.close()
        assert b'"connection": 2' in process.stdout.read()
    assert process.returncode == 0


@pytest.mark.parametrize("verb", ["info", "decode", "check"])
def test_nobody_reads_on(tmp_path, verb):
    """As other programs whose reader has gone."""
    path = tmp_path / "a.pcapng"
    path.write_bytes(tape(*[command() for _ in range(4)]))
    with subprocess.Popen([*COMMAND, verb, "--json", *[str(path)]], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=ENV) as process:  # fmt: skip
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_interrupted():
    data = tape(command())
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(
            [*COMMAND, "decode", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV
        ) as process:
            process.stdin.write(data[: len(data) // 2])
            process.stdin.flush()
            process.stdout.readline()
            process.send_signal(number)
            assert process.stderr.read() == b""
            assert process.wait(SECONDS) == 128 + number


def test_what_there_is_when_a_live_capture_is_interrupted():
    first, both = tape(command(), form="pcap"), tape(command(), shell(), form="pcap")
    argv = [*COMMAND, "info", "--json", "-"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV) as process:
        process.stdin.write(both[: len(first) + 2000])
        process.stdin.flush()
        assert b'"connection": 1' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(SECONDS) == 128 + signal.SIGINT
    (found,) = map(json.loads, rest.splitlines())
    assert (found["connection"], found["ending"], found["complete"]) == (2, None, False)


# ------------------------------------------------------------------------------------------------------------- progress


class Screen:
    """A terminal that keeps what is written."""

    def __init__(self, terminal=True):
        self.text = ""
        self.terminal = terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return self.terminal


def test_progress(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    now = 0.0
    progress = Progress(clock=lambda: now)
    progress(1000, 10_000_000)
    assert screen.text == ""
    progress.clear()
    assert screen.text == ""
    now = 2.0
    progress(5_000_000, 10_000_000)
    assert screen.text == "\r\x1b[K5.0 MB of 10.0 MB, 50 %, 2.5 MB/s"
    now = 2.1
    progress(5_100_000, 10_000_000)
    assert screen.text.count("\r") == 1
    now = 4.0
    progress(6_000_000)
    assert screen.text.endswith("\r\x1b[K6.0 MB, 1.5 MB/s")
    progress.clear()
    progress.clear()
    assert screen.text.endswith("MB/s\r\x1b[K")


def test_no_progress_where_nobody_sees_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Screen())
    assert Progress.wanted()
    monkeypatch.setenv("TERM", "dumb")
    assert not Progress.wanted()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Screen(terminal=False))
    assert not Progress.wanted()
    monkeypatch.setattr(sys, "stderr", None)
    assert not Progress.wanted()


def test_progress_while_a_capture_is_read(monkeypatch, tmp_path, capsys):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress_module, "_PATIENCE", 0.0)
    path = tmp_path / "a.pcapng"
    path.write_bytes(tape(command()))
    assert main(["pcap", "info", str(path)]) == 0
    assert ", 100 %, " in screen.text
    assert screen.text.endswith("\r\x1b[K")
    shown, screen.text = screen.text, ""
    assert main(["pcap", "info", "--no-progress", str(path)]) == 0
    assert screen.text == ""
    assert shown


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (99_400, "99.4 kB"),
        (99_600, "100 kB"),
        (999_900, "1.0 MB"),
        (2.5e9, "2.5 GB"),
        (1.5e15, "1,500.0 TB"),
    ],
)
def test_size(number, words):
    assert size(number) == words
