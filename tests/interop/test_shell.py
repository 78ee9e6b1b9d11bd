"""``sshproto shell`` in a real terminal, into the stock OpenSSH server: what people do all day, and all its ends."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from sshproto_cli.options import FACES
from tests.support import ours, peers, processes
from tests.support.console import Console, console
from tests.support.peers import HOST, Key, Server

CANONICAL = termios.ICANON | termios.ECHO | termios.ISIG
PROMPT = "[$#] $"

Open = Callable[..., contextlib.AbstractContextManager[Console]]


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with peers.scratch() as directory:
        yield peers.make_key(directory)


@pytest.fixture(scope="module")
def house(key: Key) -> Iterator[Path]:
    """What the shells at the server take for their home."""
    with peers.scratch() as directory:
        (directory / ".exrc").write_text("")
        yield directory


@pytest.fixture(scope="module")
def server(key: Key, house: Path) -> Iterator[Server]:
    lines = [f"SetEnv HOME={house} HISTFILE=/dev/null", "AcceptEnv LANG LC_*"]
    with peers.sshd(lines, authorized_keys=[key.public]) as found:
        yield found


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


def arguments(server: Server, home: Path, key: Key, *options: str) -> list[str]:
    (home / "known_hosts").write_text(server.known_hosts)
    argv = [*ours.PROGRAM, "shell", "-p", str(server.port), "-l", server.user, "-i", str(key.path)]
    return [*argv, "--known-hosts", str(home / "known_hosts"), *options, HOST]


@pytest.fixture
def shell(server: Server, home: Path, key: Key) -> Open:
    """Opens a console with ``sshproto shell`` on it: options first, then the words of a command."""

    def start(*options: str, words: Sequence[str] = ()) -> contextlib.AbstractContextManager[Console]:
        return console([*arguments(server, home, key, *options), *words], ours._environment(home, TERM="vt100"))

    return start


@pytest.fixture(params=FACES)
def io(request: pytest.FixtureRequest) -> tuple[str, str]:
    return "--io", request.param


def program(name: str) -> str:
    if shutil.which(name) is None:
        peers.unavailable(f"{name} is not installed")
    return name


def as_before(terminal: Console) -> None:
    assert terminal.modes() == terminal.before


def is_raw(terminal: Console) -> bool:
    return not terminal.modes()[3] & CANONICAL


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + peers.SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


# -------------------------------------------------------------------------------------------------------------- at work


def test_a_day_in_the_shell(server: Server, home: Path, key: Key, io: tuple[str, str]) -> None:
    env = ours._environment(home, TERM="vt220", LC_TIME="C", LC_X="yes")
    with console(arguments(server, home, key, *io), env, columns=91, rows=33) as terminal:
        terminal.expect(PROMPT)
        assert is_raw(terminal)
        terminal.type("echo $((6*7)) $TERM $LC_TIME $LC_X; tty; stty size\r")
        terminal.expect(r"\r42 vt220 C yes\r\n/dev/pts/\d+\r\n33 91\r\n")
        terminal.resize(100, 40)
        terminal.type("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.05; done; stty size\r")
        terminal.expect(r"\r40 100\r\n")
        terminal.type("exit 3\r")
        assert terminal.wait() == 3
        assert terminal.text.endswith(f"\nConnection to {HOST} closed.\r\n")
        as_before(terminal)


def test_the_modes_of_the_terminal_are_those_of_this_side(server: Server, home: Path, key: Key) -> None:
    argv = [*arguments(server, home, key), "stty -a"]
    with console(argv, ours._environment(home), stty=["intr", "^G", "erase", "^H", "-ixon"]) as terminal:
        assert terminal.wait() == 0
        as_before(terminal)
    assert "intr = ^G" in terminal.text
    assert "erase = ^H" in terminal.text
    assert "eof = ^D" in terminal.text
    assert " -ixon" in terminal.text


def test_a_size_change_while_a_program_runs(shell: Open, io: tuple[str, str]) -> None:
    words = ["trap 'stty size; exit 9' WINCH; echo ready; while :; do sleep 0.05; done"]
    with shell(*io, words=words) as terminal:
        terminal.expect("ready")
        terminal.resize(132, 50)
        terminal.expect("50 132")
        assert terminal.wait() == 9
        as_before(terminal)


def test_vi(shell: Open, house: Path) -> None:
    path = house / "letter"
    path.write_text("first\nsecond\n")
    with shell(words=[program("vi"), "-u", "NONE", str(path)]) as terminal:
        terminal.expect("second")
        terminal.type("Gothird, typed\x1b")
        terminal.expect("typed")
        terminal.resize(60, 15)
        terminal.type("ggdd:wq\r")
        assert terminal.wait() == 0
        as_before(terminal)
    assert path.read_text() == "second\nthird, typed\n"


def test_top(shell: Open) -> None:
    with shell(words=[program("top"), "-d", "0.3"]) as terminal:
        terminal.expect("load average")
        terminal.expect("load average")  # it has drawn itself anew
        terminal.resize(120, 30)
        terminal.type("q")
        assert terminal.wait() == 0
        as_before(terminal)


def running(command: str) -> str:
    """What to type for a command that says when it is the one which the terminal's characters concern."""
    return f"sh -c 'echo run$((1))ning; exec {command}'\r"


def test_control_characters_are_for_the_other_side(shell: Open, io: tuple[str, str]) -> None:
    with shell(*io) as terminal:
        terminal.expect(PROMPT)
        terminal.type(running("sleep 100"))
        terminal.expect("run1ning\r\n")
        terminal.type("\x03")
        terminal.expect(PROMPT)
        terminal.type("echo status $?\r")
        terminal.expect("status 130")
        terminal.type(running("sleep 100"))
        terminal.expect("run1ning\r\n")
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.type(f"kill %1; {running('cat')}")
        terminal.expect("run1ning\r\n")
        terminal.type("\x04exit 4\r")
        assert terminal.wait() == 4
        as_before(terminal)


def test_a_paste_of_ten_thousand_lines(shell: Open, house: Path, io: tuple[str, str]) -> None:
    text = "".join(
        f"{number:5} ~.~~ the quick brown fox jumps over the lazy dog, says {number}\n" for number in range(10_000)
    )
    path = house / f"paste-{io[1]}"
    with shell(*io, words=[f"echo go; cat > {path}; echo $? done"]) as terminal:
        terminal.expect("go\r\n")
        terminal.type(text.replace("\n", "\r"))
        terminal.type("\x04")
        terminal.expect("0 done", seconds=90)
        assert terminal.wait() == 0
        as_before(terminal)
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(text.encode()).digest()


def test_much_output(shell: Open, io: tuple[str, str]) -> None:
    with shell(*io, words=["seq 1 100000; exit 6"]) as terminal:
        assert terminal.wait() == 6
        as_before(terminal)
    lines = terminal.text.split("\r\n")
    assert lines[:100_000] == [str(number) for number in range(1, 100_001)]


def test_a_command_gets_a_terminal(shell: Open) -> None:
    with shell(words=["tty", "&&", "exit 5"]) as terminal:
        assert terminal.wait() == 5
        assert re.fullmatch(rf"/dev/pts/\d+\r\nConnection to {HOST} closed\.\r\n", terminal.text)


def test_no_terminal_on_standard_input(server: Server, home: Path, key: Key, io: tuple[str, str]) -> None:
    argv = arguments(server, home, key, *io)
    ran = peers.run(argv, ours._environment(home), b"echo out; echo err >&2; tty; exit 8\n")
    assert ran.returncode == 8
    assert ran.stdout.endswith(b"out\nnot a tty\n")
    lines = ran.stderr.decode().splitlines()
    assert lines[0].startswith("sshproto: standard input is no terminal")
    assert lines[-1] == "err"
    ran = peers.run([*argv, "tty; exit 7"], ours._environment(home))
    assert (ran.returncode, ran.stdout) == (7, b"not a tty\n")


def test_a_server_without_terminals(key: Key, home: Path) -> None:
    with (
        peers.sshd(["PermitTTY no"], authorized_keys=[key.public]) as server,
        console(arguments(server, home, key), ours._environment(home)) as terminal,
    ):
        assert terminal.wait() == 255
        assert "sshproto: the server refused: the peer refused the request 'pty-req'\r\n" in terminal.text
        as_before(terminal)


# ----------------------------------------------------------------------------------------------------- escape sequences


def test_the_end_that_the_user_asks_for(shell: Open, io: tuple[str, str]) -> None:
    with shell(*io, words=["echo $$; cat"]) as terminal:
        remote = int(terminal.expect(r"(\d+)\r\n")[1])
        terminal.type("no escape ~.\r")
        terminal.expect(r"no escape ~\.\r\nno escape ~\.\r\n")
        terminal.type("~.")
        assert terminal.wait() == 255
        assert terminal.text.endswith(f"~.\r\nConnection to {HOST} closed.\r\n")
        as_before(terminal)
    processes.until_gone(remote)


def test_the_end_of_a_connection_that_hangs(shell: Open, io: tuple[str, str]) -> None:
    with shell(*io) as terminal:
        terminal.expect(PROMPT)
        terminal.type("echo pid=$PPID\r")
        sshd = int(terminal.expect(r"pid=(\d+)\r\n")[1])
        terminal.expect(PROMPT)
        os.kill(sshd, signal.SIGSTOP)
        try:
            terminal.type("is anybody there\r")
            terminal.silent(0.5)
            terminal.type("~.")
            assert terminal.wait(15) == 255
            as_before(terminal)
        finally:
            os.kill(sshd, signal.SIGCONT)


def test_help_and_the_character_itself(shell: Open) -> None:
    with shell("-e", "^G", words=["cat"]) as terminal:
        until(lambda: is_raw(terminal), "the terminal is not raw")
        terminal.type("\x07?")
        terminal.expect(r"\^G\.\s+end the connection")
        terminal.type("\x07\x07 ~.\r")
        terminal.expect(r"\^G ~\.\r\n")
        terminal.type("\x07.")
        assert terminal.wait() == 255
        as_before(terminal)
    with shell("-e", "none", words=["cat"]) as terminal:
        until(lambda: is_raw(terminal), "the terminal is not raw")
        terminal.type("~.\r\x04")
        assert terminal.wait() == 0
        assert "~.\r\n~.\r\n" in terminal.text


def test_an_escape_character_that_is_none(server: Server, home: Path, key: Key) -> None:
    ran = peers.run(arguments(server, home, key, "-e", "xy"), ours._environment(home))
    assert ran.returncode == 255
    assert "escape character 'xy'" in ran.stderr.decode()


def test_keys_are_exchanged_and_breaks_are_sent(shell: Open, io: tuple[str, str]) -> None:
    with shell(*io, "-v", words=["cat"]) as terminal:
        terminal.expect("KeysExchanged")
        until(lambda: is_raw(terminal), "the terminal is not raw")
        terminal.type("~R")
        terminal.expect("KeysExchanged")
        terminal.type("~Bstill there\r")
        terminal.expect(r"still there\r\n.*still there\r\n")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_it_can_be_suspended(server: Server, home: Path, key: Key, io: tuple[str, str]) -> None:
    """By the job control of a shell on this side, which is what waits for it."""
    env = ours._environment(home, TERM="vt100", PS1="here> ", HISTFILE="/dev/null")
    with console([program("bash"), "--norc", "--noprofile", "--noediting", "-i"], env) as terminal:
        terminal.expect("here> ")
        terminal.type(" ".join(arguments(server, home, key, *io)) + " 'echo $((6*7)); cat; stty size'\r")
        terminal.expect(r"\n42\r\n")
        until(lambda: is_raw(terminal), "the terminal is not raw")
        terminal.type("~\x1a")
        terminal.expect(r"\^Z \[suspended\]")
        terminal.expect("Stopped.*here> ")
        assert not is_raw(terminal)
        terminal.type("stty -a\r")
        terminal.expect(r" icanon ")
        terminal.expect("here> ")
        terminal.resize(70, 20)
        terminal.type("fg\r")
        until(lambda: is_raw(terminal), "the terminal is not raw again")
        terminal.type("back again\r")
        terminal.expect(r"back again\r\nback again\r\n")
        terminal.type("\x04")
        terminal.expect(rf"20 70\r\nConnection to {HOST} closed\.\r\n.*here> ")
        assert not is_raw(terminal)
        terminal.type("exit\r")
        terminal.wait()


# ----------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal(shell: Open, io: tuple[str, str], number: signal.Signals) -> None:
    with shell(*io, words=["echo $$; exec sleep 1000"]) as terminal:
        remote = int(terminal.expect(r"(\d+)\r\n")[1])
        until(lambda: is_raw(terminal), "the terminal is not raw")
        os.kill(terminal.process.pid, number)
        assert terminal.wait() == 128 + number
        as_before(terminal)
    processes.until_gone(remote)


def test_a_lost_connection(shell: Open, io: tuple[str, str]) -> None:
    with shell(*io) as terminal:
        terminal.expect(PROMPT)
        terminal.type("kill -KILL $PPID\r")
        assert terminal.wait() == 255
        assert re.search(r"sshproto: [^\r\n]+\r\n$", terminal.text), terminal.text
        as_before(terminal)


@pytest.mark.parametrize("face", FACES)
def test_a_bug(server: Server, home: Path, key: Key, face: str) -> None:
    code = (
        "import sys\n"
        "from sshproto.client import ClientConnection\n"
        "from sshproto_cli.main import main\n"
        "def rekey(self):\n"
        "    raise ZeroDivisionError('a bug')\n"
        "ClientConnection.rekey = rekey\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    argv = [sys.executable, "-c", code, *arguments(server, home, key, "--io", face)[3:]]
    with console(argv, ours._environment(home)) as terminal:
        until(lambda: is_raw(terminal), "the terminal is not raw")
        terminal.type("~R")
        assert terminal.wait() == 1
        assert "ZeroDivisionError" in terminal.text  # in colours, from Python 3.13 on
        as_before(terminal)
