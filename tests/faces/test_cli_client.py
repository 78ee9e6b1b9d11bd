"""What ``sshproto exec``, ``shell`` and ``forward`` have in common, against ``sshproto serve``: faces, hops, signals.

What each of them does in full, with the stock OpenSSH server at the other end, is for the interop tests.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sshproto.keys.private import PrivateKey
from sshproto_cli.options import FACES
from sshproto_cli.remote import Remote
from sshproto_io.descriptors import Descriptor
from tests.support import ours, peers, places, processes
from tests.support.console import console
from tests.support.peers import HOST, Key, Server

PASSPHRASE = "not a word"


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with peers.scratch() as directory:
        yield peers.make_key(directory)


@pytest.fixture(scope="module")
def locked(key: Key) -> Key:
    path = key.path.with_name("locked")
    path.touch(mode=0o600)
    path.write_bytes(PrivateKey.load(key.path.read_bytes()).openssh(PASSPHRASE.encode(), rounds=1))
    return Key(path, key.public)


@pytest.fixture(scope="module")
def server(key: Key) -> Iterator[Server]:
    with ours.serve(["--forward", "-v"], authorized_keys=[key.public], password=True) as found:
        yield found


@pytest.fixture(scope="module")
def hop(key: Key) -> Iterator[Server]:
    with ours.serve(["--forward", "-v"], authorized_keys=[key.public], password=True) as found:
        yield found


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


@pytest.fixture(params=FACES)
def io(request: pytest.FixtureRequest) -> list[str]:
    """Options that choose a face."""
    return ["--io", request.param]


def arguments(verb: str, server: Server, home: Path, key: Key | None, *options: str) -> list[str]:
    with (home / "known_hosts").open("a") as known:
        known.write(server.known_hosts)
    argv = [*ours.PROGRAM, verb, "-p", str(server.port), "-l", server.user, "--known-hosts", f"{home}/known_hosts"]
    return [*argv, *(["-i", str(key.path)] if key else []), *options, HOST]


def through(hop: Server, home: Path) -> list[str]:
    with (home / "known_hosts").open("a") as known:
        known.write(hop.known_hosts)
    return ["-J", f"{hop.user}@{HOST}:{hop.port}"]


def one_line(stderr: bytes) -> str:
    """The only line that was said, ours."""
    lines = stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("sshproto: ")
    return lines[0]


@contextlib.contextmanager
def started(argv: Sequence[str], home: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ours._environment(home),
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# --------------------------------------------------------------------------------------------------------------- faces


def imported(argv: Sequence[str], home: Path, *names: str) -> list[str]:
    """Which of some modules a run imports."""
    code = (
        "import sys\n"
        "from sshproto_cli.main import main\n"
        "main(sys.argv[2:])\n"
        "print([name for name in sys.argv[1].split() if name in sys.modules])\n"
    )
    ran = peers.run([sys.executable, "-c", code, " ".join(names), *argv[3:]], ours._environment(home))
    words: list[str] = re.findall(r"'([\w.]+)'", ran.stdout.decode().splitlines()[-1])
    return words


def test_no_framework_is_imported_that_was_not_asked_for(server, key, home):
    names = ("asyncio", "trio", "sshproto_io.blocking", "sshproto_io.asyncio", "sshproto_io.trio")
    for face, expected in (
        ("blocking", ["sshproto_io.blocking"]),
        ("asyncio", ["asyncio", "sshproto_io.asyncio"]),
        ("trio", ["trio", "sshproto_io.trio"]),
    ):
        argv = [*arguments("exec", server, home, key, "--io", face), "true"]
        assert imported(argv, home, *names) == expected


def test_trio_may_be_missing(server, key, home):
    (home / "trio.py").write_text("raise ImportError('there is none')\n")
    env = ours._environment(home)
    env["PYTHONPATH"] = os.pathsep.join((str(home), env["PYTHONPATH"]))
    ran = peers.run([*arguments("exec", server, home, key, "--io", "trio"), "true"], env)
    assert ran.returncode == 255
    assert "pip install 'sshproto[trio]'" in one_line(ran.stderr)


@pytest.mark.parametrize("verb", ["exec", "shell", "forward"])
def test_options_that_make_no_sense(server, key, home, verb):
    for options, says in (
        (["--io", "threads"], "invalid choice: 'threads'"),
        (["-J", "a,,b"], "-J a,,b: there is no host"),
        (["-J", "a:0"], "not a port number"),
        (["-p", "x"], "not a port number"),
    ):
        more = ["-D", "1080"] if verb == "forward" else []
        argv = [*arguments(verb, server, home, key, *more, *options), *(["true"] if verb == "exec" else [])]
        ran = peers.run(argv, ours._environment(home))
        assert ran.returncode == 255
        assert says in ran.stderr.decode()


def test_the_shell_of_our_own_server(server, key, home, io):
    argv = [*arguments("shell", server, home, key, *io), "stty size; read line; stty size; exit 6"]
    with console(argv, ours._environment(home), columns=81, rows=25) as terminal:
        terminal.expect("25 81")
        terminal.resize(60, 20)
        time.sleep(0.2)
        terminal.type("\r")
        terminal.expect("20 60")
        assert terminal.wait() == 6
        assert terminal.modes() == terminal.before


def test_the_forwards_of_our_own_server(server, key, home, io):
    local, dynamic = peers.free_port(), peers.free_port()
    with places.site(home) as site:
        options = ["-L", f"{local}:{HOST}:{site.port}", "-R", f"0:{HOST}:{site.port}", "-D", f"{HOST}:{dynamic}"]
        with started(arguments("forward", server, home, key, *io, *options), home) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline().decode() for _ in range(3)]
            assert [line.split()[0] for line in lines] == ["forwarding"] * 3
            found = re.search(r"localhost:(\d+) ", lines[1])
            assert found
            for number in (local, int(found[1])):
                places.browse(places.dial((HOST, number)), 100_000)
            places.browse(places.socks5((HOST, dynamic), HOST, site.port), 100_000)
            process.terminate()
            assert process.communicate(timeout=peers.SECONDS) == (b"", b"")
            assert process.returncode == 0


# -------------------------------------------------------------------------------------------------------------- streams


def test_output_and_errors_in_one(server, key, home, io):
    reader, writer = os.pipe()
    argv = [*arguments("exec", server, home, key, *io), "seq 1 20000; seq 1 20000 >&2"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, env=ours._environment(home)):
        data = b""
        while data.count(b"\n") < 40_000:
            data += os.read(reader, 65536)
    # A pipe that is full takes part of a line, and then one of them may be in the midst of the other.
    assert Counter(data) == Counter("".join(f"{number}\n" for number in range(1, 20_001)).encode() * 2)
    assert os.get_blocking(writer)
    os.close(reader)
    os.close(writer)


def test_a_slow_reader_does_not_fill_memory(server, key, home, io):
    if not processes.TOLD:
        pytest.skip("needs /proc")

    with started([*arguments("exec", server, home, key, *io), "cat /dev/zero"], home) as process:
        assert process.stdout is not None
        process.stdout.read(100_000)
        time.sleep(0.5)
        before = processes.memory(process.pid)
        process.stdout.read(20_000_000)
        time.sleep(0.5)
        assert processes.memory(process.pid) - before < 16 * 1024


def test_what_came_is_written_when_the_connection_is_lost(key, home, io):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ours.serve(authorized_keys=[key.public]))
        argv = [*arguments("exec", server, home, key, *io), "yes 0123456 | head -c 1000000; sleep 100"]
        with started(argv, home) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            stdout = process.stdout.read(8)
            time.sleep(0.5)
            stack.close()
            time.sleep(0.2)
            stdout += process.stdout.read()
            stderr = process.stderr.read()
            process.wait(peers.SECONDS)
    assert process.returncode == 255
    assert stdout == b"0123456\n" * (1_000_000 // 8)
    one_line(stderr)


def test_a_reader_who_leaves_a_server_that_does_not_know_of_it(key, home, io):
    with (
        peers.dropbear(authorized_keys=[key.public]) as server,
        started([*arguments("exec", server, home, key, *io), "yes"], home) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait(peers.SECONDS) == 128 + signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_program_that_has_ended_before_anybody_looked_at_the_input():
    class Ended:
        peer_reads = True
        closed = True

        def send_eof(self):
            yield from ()

    reader, writer = os.pipe()
    try:
        remote, stdin = Remote(Ended()), Descriptor(reader)  # type: ignore[arg-type]
        assert list(remote._until_deaf(stdin)) == []
        assert list(remote._input(stdin)) == []  # it waits for nothing: nobody types
    finally:
        os.close(reader)
        os.close(writer)


# -------------------------------------------------------------------------------------------------------------- signals


def silent(process: subprocess.Popen[bytes], number: int) -> None:
    """A signal ends it, without a word."""
    process.send_signal(number)
    assert process.communicate(timeout=10) == (b"", b"")
    assert process.returncode == 128 + number


def connecting(pid: int) -> bool:
    """Whether a process waits for a connection that nobody takes."""
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()]
    sent = {words[9] for words in lines if words[3] == "02"}  # SYN_SENT
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            held.add(str(descriptor.readlink()))
    return any(f"socket:[{inode}]" in held for inode in sent)


VERBS = ("exec", "shell", "forward")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SQUARE = [
    pytest.param(["--io", face], verb, number, id=f"{face}-{verb}-{number.name}")
    for row, face in enumerate(FACES)
    for verb, number in zip(VERBS, (ENDING * 2)[row:], strict=False)
]
"""Any face with any verb, any verb with any signal, any signal with any face."""


@pytest.mark.parametrize(("io", "verb", "number"), SQUARE)
def test_a_signal_while_the_server_says_nothing(home, io, verb, number):
    with socket.create_server((HOST, 0)) as listener:
        words = {"exec": ["true"], "shell": ["true"], "forward": []}[verb]
        options = [*io, "--insecure-accept-any", *(["-D", str(peers.free_port())] if verb == "forward" else [])]
        argv = [*ours.PROGRAM, verb, *options, "-p", str(listener.getsockname()[1]), HOST, *words]
        with started(argv, home) as process:
            listener.settimeout(peers.SECONDS)
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(4) == b"SSH-"
                process.send_signal(number)
                stdout, stderr = process.communicate(timeout=10)
    said = [line for line in stderr.splitlines() if b"no terminal" not in line]  # that is the shell's
    assert (process.returncode, stdout, said) == (128 + number, b"", [])


def test_a_signal_while_nobody_answers(home, io):
    with socket.create_server((HOST, 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        address = listener.getsockname()
        for _ in range(4):  # until the backlog is full
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        argv = [*ours.PROGRAM, "exec", *io, "--insecure-accept-any", "-p", str(address[1]), HOST, "true"]
        with started(argv, home) as process:
            deadline = time.monotonic() + peers.SECONDS
            while not connecting(process.pid):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            silent(process, signal.SIGTERM)


def test_a_signal_on_the_way_over_a_hop(hop, key, home, io):
    with socket.create_server((HOST, 0)) as listener:
        nowhere = Server(port=listener.getsockname()[1], user="nobody", host_keys=())
        argv = [*arguments("exec", nowhere, home, key, *io, *through(hop, home)), "true"]
        with started(argv, home) as process:
            listener.settimeout(peers.SECONDS)
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(4) == b"SSH-"
                silent(process, signal.SIGTERM)


# ----------------------------------------------------------------------------------------------------------------- hops


def test_a_command_over_hops(server, hop, key, home, io):
    option, spec = through(hop, home)
    for way in (spec, f"{spec},{spec}", "none"):
        argv = [*arguments("exec", server, home, key, *io, option, way), "cat; exit 7"]
        ran = peers.run(argv, ours._environment(home), b"x" * 1_000_000)
        assert ran == peers.Ran(7, b"x" * 1_000_000, b"")


def test_events_are_shown_with_their_host(server, hop, key, home):
    argv = [*arguments("exec", server, home, key, "-v", *through(hop, home)), "true"]
    ran = peers.run(argv, ours._environment(home))
    assert ran.returncode == 0
    assert ran.stderr.decode().count(f"{HOST}: AuthSucceeded method=publickey") == 2


def test_each_host_asks_for_its_password(server, hop, home, io):
    argv = [*arguments("exec", server, home, None, *io, *through(hop, home)), "echo so"]
    with console(argv, ours._environment(home)) as terminal:
        for _ in range(2):
            terminal.expect(r"Password: ")
            time.sleep(0.1)
            terminal.type(ours.PASSWORD + "\n")
        terminal.expect("so\r\n")
        assert terminal.wait() == 0
        assert ours.PASSWORD not in terminal.text
        assert terminal.modes() == terminal.before


def test_a_passphrase_is_asked_for_once(server, hop, locked, home, io):
    argv = [*arguments("exec", server, home, locked, *io, *through(hop, home)), "echo so"]
    with console(argv, ours._environment(home)) as terminal:
        terminal.expect("Passphrase for key ")
        time.sleep(0.1)
        terminal.type(PASSPHRASE + "\n")
        terminal.expect("so\r\n")
        assert terminal.wait() == 0
        assert terminal.text.count("Passphrase") == 1


def test_a_hop_does_not_learn_the_password_of_the_destination(server, home, io):
    with ours.serve(["--forward", "-v"], password=True) as hop:
        argv = [*arguments("exec", server, home, None, *io, *through(hop, home)), "true"]
        ran = peers.run(argv, ours._environment(home, SSHPROTO_PASSWORD=ours.PASSWORD))
        assert ran.returncode == 255
        said = one_line(ran.stderr)
        assert said.startswith(f"sshproto: {HOST}: login as {hop.user} failed")
        assert "there is no terminal to ask for a password)" in said
        assert "password" not in "".join(re.findall(r"refused: .*", hop.log))


def test_a_hop_that_does_not_forward(server, key, home, io):
    with ours.serve(authorized_keys=[key.public]) as hop:
        argv = [*arguments("exec", server, home, key, *io, *through(hop, home)), "true"]
        ran = peers.run(argv, ours._environment(home))
        assert ran.returncode == 255
        assert one_line(ran.stderr).startswith(f"sshproto: {HOST} cannot connect to {HOST} port {server.port}: ")


def test_who_is_behind_a_hop_is_checked(server, hop, key, home, io):
    argv = [*arguments("exec", server, home, key, *io, *through(hop, home)), "true"]
    (home / "known_hosts").write_text(hop.known_hosts)
    ran = peers.run(argv, ours._environment(home))
    assert ran.returncode == 255
    assert f"{HOST}: the host key of {HOST} port {server.port} is not known" in one_line(ran.stderr)
