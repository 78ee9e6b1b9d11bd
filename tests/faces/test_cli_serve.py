"""``sshproto serve`` over each face: programs and what is left of them, forwards, and the end of it all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from sshproto.channels.requests import (
    DirectTcpip,
    EndOfWrite,
    Env,
    Exec,
    PtyRequest,
    Session,
    Shell,
    Subsystem,
)
from sshproto.errors import ChannelEnded, OpenRefused, RequestRefused
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto_cli import main as command
from sshproto_cli.gate import Gate, KeyFiles
from sshproto_cli.options import FACES
from sshproto_cli.visitor import Services, Visitor
from sshproto_io import asyncio as face
from tests.support import ours, peers, processes
from tests.support.peers import HOST, Key, Server

ALL = pytest.mark.parametrize("io", FACES)
PTY = PtyRequest("vt100", 90, 30)
ANYWHERE = ("00000000", "0" * 32)
LOOPBACK = ("0100007F", "00000000000000000000000001000000")
"""Addresses as Linux's /proc/net/tcp and tcp6 show them."""


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with peers.scratch() as directory:
        yield peers.make_key(directory)


@pytest.fixture(scope="module", params=FACES)
def server(request, key: Key) -> Iterator[Server]:
    """One that does all it can, over each face."""
    with ours.serve(["--io", request.param, "--forward"], authorized_keys=[key.public], password=True) as found:
        yield found


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


def talk(server: Server, key: Key, conversation: Callable[[face.Client], Coroutine[Any, Any, Any]]) -> Any:
    """Connect, and hand the connection to ``conversation``; its result."""

    async def main() -> Any:
        host_key, private = PublicKey.parse(server.host_keys[0]), PrivateKey.load(key.path.read_bytes())
        async with (
            asyncio.timeout(30),
            face.connect(HOST, server.port, user=server.user, host_key=host_key, keys=[private]) as client,
        ):
            return await conversation(client)

    return asyncio.run(main())


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def pid_of(server: Server) -> int:
    if not processes.TOLD:
        pytest.skip("needs /proc")
    pid, *_ = processes.writing_to(server.log_file, b"serve")
    return pid


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


# ------------------------------------------------------------------------------------------------------------- programs


def test_streams_and_status(server, key):
    ran = peers.ssh(server, "cat; echo oops >&2; exit 7", key=key, stdin=bytes(range(256)) * 4000)
    assert ran == peers.Ran(7, bytes(range(256)) * 4000, b"oops\n")


@pytest.mark.parametrize("method", ["publickey", "password", "keyboard-interactive"])
def test_every_way_to_log_in(server, key, method):
    options = [f"-oPreferredAuthentications={method}"]
    right = {"key": key} if method == "publickey" else {"password": ours.PASSWORD}
    assert peers.ssh(server, "echo in", options=options, **right).stdout == b"in\n"
    if method != "publickey":
        wrong = peers.ssh(server, "echo in", options=options, password="wrong")
        assert (wrong.returncode, wrong.stdout) == (255, b"")


def test_many_programs_at_once(server, key):
    async def conversation(client):
        async def one(number):
            done = await client.run(f"head -c {number * 50_000} /dev/zero; exit {number}")
            assert (len(done.stdout), done.exit_status) == (number * 50_000, number)

        for _ in range(3):
            await asyncio.gather(*(one(number) for number in range(10)))

    talk(server, key, conversation)


def test_signals_reach_the_program(server, key):
    async def conversation(client):
        said = []
        for pty in (None, PTY):
            process = await client.start("trap 'echo heard' USR1; echo up; while :; do :; done", pty=pty)
            said.append((await process.stdout.read_line()).strip())
            await process.send_signal("NONSENSE")
            await process.send_signal("USR1")
            said.append((await process.stdout.read_line()).strip())
            await process.send_signal("TERM")
            assert await process.wait() is None
            said.append(process.exit_signal.name)
        return said

    assert talk(server, key, conversation) == [b"up", b"heard", "TERM"] * 2


def test_terminals_have_the_size_of_the_client(server, key):
    async def conversation(client):
        process = await client.start("trap 'stty size; exit 9' WINCH; stty size; while :; do sleep 0.05; done", pty=PTY)
        first = await process.stdout.read_line()
        await process.resize(101, 41)
        second = await process.stdout.read_line()
        return first.strip(), second.strip(), await process.wait()

    assert talk(server, key, conversation) == (b"30 90", b"41 101", 9)


def test_a_terminal_has_an_end_of_input(server, key):
    async def conversation(client):
        process = await client.start("stty -echo; echo go; cat; echo over", pty=PTY)
        await process.stdout.read_line()
        await process.stdin.write(b"typed\n")
        await process.stdin.send_eof()
        return await process.stdout.read()

    assert talk(server, key, conversation) == b"typed\r\nover\r\n"


def test_what_runs_on_holds_a_pipe_but_not_a_terminal(server, key):
    async def conversation(client):
        began = time.monotonic()
        first = await client.run("seq 1 20000; sleep 30 & exit 2", pty=PTY)
        assert time.monotonic() - began < 10
        second = await client.run("{ sleep 0.5; echo late; } & echo early; exit 3")
        return len(first.stdout.split()), first.exit_status, second.stdout, second.exit_status

    assert talk(server, key, conversation) == (20_000, 2, b"early\nlate\n", 3)


LETS_GO = """
import fcntl, signal, subprocess, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_IGN)
fcntl.ioctl(0, termios.TIOCNOTTY)
subprocess.Popen(["sleep", "20"])
print("over", flush=True)
sys.exit(3)
"""


def test_what_holds_a_terminal_that_is_not_its_own(server, key, home):
    """A terminal is hung up when its shell ends, unless the shell has let go of it before."""
    (home / "program").write_text(LETS_GO)

    async def conversation(client):
        began = time.monotonic()
        done = await client.run(f"exec {sys.executable} {home / 'program'}", pty=PTY)
        return done.stdout, done.exit_status, time.monotonic() - began < 10

    assert talk(server, key, conversation) == (b"over\r\n", 3, True)


def test_a_program_that_has_closed_its_output(server, key):
    """Its end of file does not wait for it."""

    async def conversation(client):
        began = time.monotonic()
        process = await client.start("echo x; exec >&- 2>&-; sleep 1.5; exit 3")
        data = await process.stdout.read()
        end = time.monotonic() - began
        return data, end < 1.2, await process.wait(), time.monotonic() - began >= 1.5

    assert talk(server, key, conversation) == (b"x\n", True, 3, True)


def test_a_program_that_reads_no_more(server, key, home):
    async def conversation(client):
        process = await client.start(
            "exec <&-; echo shut; while [ ! -e %s ]; do sleep 0.05; done; exit 4" % (home / "go")
        )
        await process.stdout.read_line()
        with pytest.raises(ChannelEnded, match="does not read"):
            while True:
                await process.stdin.write(bytes(100_000))
        (home / "go").touch()
        return await process.wait()

    assert talk(server, key, conversation) == 4


def test_a_client_that_reads_no_more(server, key):
    """The program gets SIGPIPE, and may still complain."""

    async def conversation(client):
        process = await client.start("yes; echo ended by $? >&2; exit 5")
        assert await process.stdout.read(4)
        await client.perform(process.channel.notify(EndOfWrite()))
        await process.stdout.aclose()
        return await process.stderr.read(), await process.wait()

    complaint, status = talk(server, key, conversation)
    assert complaint.endswith(f"ended by {128 + signal.SIGPIPE}\n".encode())
    assert status == 5


def test_what_cannot_be_started_is_refused(server, key):
    """And something else may be started instead."""

    async def conversation(client):
        said = []
        for pty in (None, PTY):
            channel = await client.perform(client.hub.open_channel(Session()))
            if pty is not None:
                said.append(await client.perform(channel.request(pty)))
                said.append(await client.perform(channel.request(pty)))
            said.append(await client.perform(channel.request(Exec(b"echo \0"))))
            said.append(await client.perform(channel.request(Subsystem("sftp"))))
            said.append(await client.perform(channel.request(Exec(b"tty; exit 6"))))
            said.append((await client.perform(channel.read_all()))[:5])
            await client.perform(channel.until_exit())
            said.append(channel.exit_status)
            channel.close()
        return said

    without = [False, False, True, b"not a", 6]
    assert talk(server, key, conversation) == [*without, True, False, False, False, True, b"/dev/", 6]


@pytest.mark.covers("V76")
def test_variables(server, key):
    async def conversation(client):
        channel = await client.perform(client.hub.open_channel(Session()))
        granted = []
        for name, value in (
            ("LC_X", b"1"),
            ("LANG", b"xx\xff"),
            ("PATH", b"2"),
            ("LD_PRELOAD", b"3"),
            ("LC_../x", b"4"),
        ):
            granted.append(await client.perform(channel.request(Env(name, value))))
        await client.perform(channel.request(Exec(b'echo "$LC_X:$LANG:$LD_PRELOAD"; env')))
        output = await client.perform(channel.read_all())
        channel.close()
        return granted, output

    granted, output = talk(server, key, conversation)
    assert granted == [True, True, False, False, False]
    first, *rest = output.splitlines()
    assert first == b"1:xx\xff:"
    names = {line.partition(b"=")[0] for line in rest}
    assert {b"HOME", b"SHELL", b"PATH", b"USER", b"LOGNAME", b"SSH_CLIENT", b"SSH_CONNECTION"} <= names
    assert b"PYTHONPATH" not in names
    [client] = [line for line in rest if line.startswith(b"SSH_CONNECTION=")]
    assert re.fullmatch(rb"SSH_CONNECTION=127\.0\.0\.1 \d+ 127\.0\.0\.1 %d" % server.port, client)


def at_rest(pid: int) -> tuple[int, int]:
    """How many descriptors and threads a process has when that changes no more: those of clients before may yet end."""
    found, since = (descriptors(pid), threads(pid)), time.monotonic()
    while time.monotonic() < since + 0.5:
        time.sleep(0.02)
        now = descriptors(pid), threads(pid)
        if now != found:
            found, since = now, time.monotonic()
    return found


def test_nothing_is_left_of_sessions(server, key, home):
    """No descriptor, no thread, no process that nobody has waited for."""
    pid = pid_of(server)

    async def conversation(client):
        await client.run("true")
        before = at_rest(pid)
        for pty in (None, PTY) * 3:
            await client.run("exit 3", pty=pty)
            async with client.start("exec sleep 1000", pty=pty):  # left while it runs
                pass
            with pytest.raises(RequestRefused):
                await client.start("echo \0", pty=pty)
            channel = await client.perform(client.hub.open_channel(Session()))
            await client.perform(channel.request(PTY))
            channel.close()
            channel = await client.perform(client.hub.open_channel(Session()))
            for words in (b"echo \0", b"echo \0", b"exit 3"):
                await client.perform(channel.request(Exec(words)))
            await client.perform(channel.until_exit())
        await client.run("true")
        until(lambda: (descriptors(pid), threads(pid)) == before, f"{before} {descriptors(pid), threads(pid)}")

    talk(server, key, conversation)
    until(lambda: not processes.children(pid), f"processes {processes.children(pid)}")


def test_a_program_that_minds_no_hangup(server, key):
    """It outlives its session, and is waited for all the same."""

    async def conversation(client):
        process = await client.start("trap '' HUP; echo $$; sleep 1; exit 0")
        return int(await process.stdout.read_line())

    remote = talk(server, key, conversation)
    assert processes.state(remote) in {"S", "R"}
    processes.until_gone(remote)


@pytest.mark.parametrize("options", [[], ["-tt"]])
def test_killed_clients(server, key, home, options):
    argv = [peers.need("ssh"), *options, *peers.ssh_options(server, home, key), "-oBatchMode=yes", HOST]
    with subprocess.Popen(
        [*argv, "echo $$; exec sleep 1000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=peers.environment(home),
    ) as process:
        assert process.stdout is not None
        remote = int(process.stdout.readline())
        process.kill()
    processes.until_gone(remote)


@pytest.mark.parametrize("problem", [OSError("not here"), AttributeError("not Linux")])
def test_without_descriptors_of_processes(monkeypatch, key, problem):
    """Where the system can't wait for a process as for a file, a thread does."""

    def pidfd_open(pid):
        raise problem

    monkeypatch.setattr(os, "pidfd_open", pidfd_open, raising=False)

    async def conversation(client):
        pid = os.getpid()
        before, others = descriptors(pid), set(processes.children(pid))
        for pty in (None, PTY):
            done = await client.run("echo x; sleep 0.1; exit 3", pty=pty)
            assert (done.stdout.strip(), done.exit_status) == (b"x", 3)
            async with client.start("exec sleep 1000", pty=pty):
                pass
        deadline = time.monotonic() + 10
        while descriptors(pid) != before or set(processes.children(pid)) - others:
            assert time.monotonic() < deadline, (descriptors(pid), before, processes.children(pid))
            await asyncio.sleep(0.02)

    visit(key, Services(execute=True), conversation)


def visit(key: Key, services: Services, conversation: Callable[[face.Client], Coroutine[Any, Any, Any]]) -> None:
    """The same as :func:`talk`, with the server in this process."""
    from sshproto.config import ServerConfig

    host_key, private = PrivateKey.generate("ssh-ed25519"), PrivateKey.load(key.path.read_bytes())
    config = ServerConfig(host_keys=(host_key,), auth_methods=("publickey",))

    async def main() -> None:
        with peers.scratch() as directory:
            (directory / "keys").write_text(key.public)
            gate = Gate(KeyFiles(keys=directory / "keys"), None)
            async with (
                asyncio.timeout(30),
                face.listen(
                    HOST,
                    0,
                    config,
                    lambda incoming: Visitor(incoming.peer, incoming.local, gate, services, verbose=False),
                ) as server,
                face.connect(HOST, server.port, user="u", host_key=host_key.public_key, keys=[private]) as client,
            ):
                await conversation(client)

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------------------- forwards


@pytest.mark.covers("V77")
def test_nothing_is_forwarded_unless_told(key):
    for io in FACES:
        with ours.serve(["--io", io], authorized_keys=[key.public]) as server:
            said = talk(server, key, refused_forwards)
            assert said == ["OpenRefused", "OpenRefused", "RequestRefused", "RequestRefused"]
            ran = peers.ssh(server, key=key, options=["-W", f"{HOST}:{server.port}"])
            assert b"administratively prohibited" in ran.stderr


async def refused_forwards(client):
    said = []
    for attempt in (
        client.open_tcp(HOST, 9),
        client.open_unix("/nowhere"),
        client.forward_remote(("localhost", 0), (HOST, 9)),
        client.forward_remote("/tmp/nowhere", (HOST, 9)),
    ):
        try:
            await attempt
        except (OpenRefused, RequestRefused) as error:
            said.append(type(error).__name__)
    return said


@ALL
def test_forwards_without_programs(key, home, io):
    """Neither commands nor terminals, but connections."""
    (home / "keys").write_text(key.public + "\n")
    argv = [*ours.PROGRAM, "serve", "--listen", f"{HOST}:0", "--host-key", str(key.path), "--io", io, "--forward"]
    argv += ["--authorized-keys", str(home / "keys")]

    async def conversation(client):
        with pytest.raises(RequestRefused):
            await client.run("echo x")
        channel = await client.perform(client.hub.open_channel(Session()))
        granted = [await client.perform(channel.request(what)) for what in (PTY, Env("LANG", b"C"), Shell())]
        channel.close()
        async with client.open_tcp(HOST, server.port) as stream:
            return granted, await stream.read_line()

    with peers.listening(argv, home / "log", "listening on ", ours._environment(home)):
        port = int((home / "log").read_text().rpartition(":")[2])
        server = Server(port=port, user="x", host_keys=(key.public,))
        granted, line = talk(server, key, conversation)
    assert granted == [False, False, False]
    assert line.startswith(b"SSH-2.0-")


def test_targets_that_there_are_not(server, key):
    targets = [DirectTcpip("no.such.host.invalid", 1), DirectTcpip("", 0), DirectTcpip("a..b", 1)]
    targets += [DirectTcpip(HOST, peers.free_port()), DirectTcpip("x" * 255, 65535)]

    async def conversation(client):
        for target in targets:
            with pytest.raises(OpenRefused) as refused:
                await client.perform(client.hub.open_channel(target))
            assert refused.value.reason == 2, target
        with pytest.raises(OpenRefused):
            await client.open_unix("/nonexistent/socket")
        with pytest.raises(RequestRefused):
            await client.forward_remote("/nonexistent/socket", (HOST, 9))
        with pytest.raises(RequestRefused):
            await client.forward_remote((HOST, server.port), (HOST, 9))

    talk(server, key, conversation)
    assert "bug" not in server.log


def listening_addresses(port: int) -> set[str]:
    found = set()
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        if not path.exists():
            pytest.skip("needs /proc/net")
        for line in path.read_text().splitlines()[1:]:
            address, _, number = line.split()[1].partition(":")
            if int(number, 16) == port and line.split()[3] == "0A":
                found.add(address)
    return found


async def listened(client):
    """Where it really listens, by what was wanted."""
    found = {}
    for wanted in ("", "*", "0.0.0.0", "::", "localhost", HOST):
        async with client.forward_remote((wanted, 0), (HOST, 9)) as forward:
            assert forward.address[0] == wanted
            found[wanted] = listening_addresses(forward.port)
    return found


def test_only_this_machine_gets_to_what_it_listens_for(server, key):
    for wanted, addresses in talk(server, key, listened).items():
        assert addresses, wanted
        assert addresses <= set(LOOPBACK), wanted


@ALL
def test_gateway_ports(key, io):
    with ours.serve(["--io", io, "--forward", "--gateway-ports"], authorized_keys=[key.public]) as server:
        for wanted, addresses in talk(server, key, listened).items():
            assert addresses, wanted
            assert addresses <= set(LOOPBACK if wanted in {"localhost", HOST} else ANYWHERE), wanted


def test_listening_ends_with_the_connection(server, key, home):
    path = str(home / "socket")

    async def conversation(client):
        forward = await client.forward_remote(("", 0), (HOST, server.port))
        await client.forward_remote(path, (HOST, server.port))
        cancelled = await client.forward_remote(("", 0), (HOST, server.port))
        cancelled.close()
        reader, writer = await asyncio.open_connection(HOST, forward.port)
        assert (await reader.readline()).startswith(b"SSH-2.0-")
        writer.close()
        deadline = time.monotonic() + 10
        while listening_addresses(cancelled.port):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        again = await client.forward_remote(("", cancelled.port), (HOST, server.port))
        assert again.port == cancelled.port
        return forward.port

    port = talk(server, key, conversation)
    until(lambda: not listening_addresses(port), "it listens on")
    until(lambda: not Path(path).exists(), "the socket is left")


def test_gateway_ports_alone_make_no_sense(key, home):
    (home / "keys").write_text(key.public + "\n")
    argv = [*ours.PROGRAM, "serve", "--listen", f"{HOST}:0", "--host-key", str(key.path), "--gateway-ports"]
    ran = peers.run([*argv, "--authorized-keys", str(home / "keys")], ours._environment(home))
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr == b"sshproto: --gateway-ports goes with --forward\n"


# ----------------------------------------------------------------------------------------------------- the server's own


@ALL
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_stops_cleanly(key, home, io, number):
    """Clients are told, programs hung up on, and the status is 0."""
    (home / "keys").write_text(key.public + "\n")
    argv = [*ours.PROGRAM, "serve", "--listen", f"{HOST}:0", "--host-key", str(key.path), "--exec", "--io", io]
    argv += ["--authorized-keys", str(home / "keys")]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ours._environment(home, PYTHONWARNINGS="error")
    ) as process:
        assert process.stdout is not None
        found = re.fullmatch(rb"listening on 127\.0\.0\.1:(\d+)\n", process.stdout.readline())
        assert found
        server = Server(port=int(found[1]), user="x", host_keys=(key.public,))

        async def conversation(client):
            running = await client.start("echo $$; exec sleep 1000", pty=PTY)
            remote = int(await running.stdout.read_line())
            process.send_signal(number)
            return remote, await client.until_ended()

        remote, end = talk(server, key, conversation)
        stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout, stderr) == (0, b"", b"")
    assert "the server is stopping" in str(end)
    processes.until_gone(remote)


@ALL
def test_a_second_signal_does_no_harm(key, home, io):
    with ours.serve(["--io", io], authorized_keys=[key.public]) as server:
        pid = pid_of(server)
        with peers.socket.create_connection((HOST, server.port)) as stranger:
            assert stranger.recv(8) == b"SSH-2.0-"
            for _ in range(3):
                os.kill(pid, signal.SIGTERM)
                time.sleep(0.05)
            until(lambda: processes.state(pid) in {"", "Z"}, "it runs on")
        assert "Traceback" not in server.log
        assert len(server.log.splitlines()) == 1, server.log


@ALL
def test_events_are_told_with_the_client(key, home, io):
    with ours.serve(["-v", "--io", io], authorized_keys=[key.public], password=True) as server:
        assert peers.ssh(server, "echo x", key=key).returncode == 0
        assert peers.ssh(server, "echo x", password="guess").returncode == 255
        lines = server.log.splitlines()[1:]
        assert all(re.match(r"127\.0\.0\.1 port \d+: ", line) for line in lines), lines
        assert any("Authenticated" in line for line in lines)
        assert any("ConnectionLost" in line for line in lines)
        assert any(line.endswith("refused: wrong password") for line in lines)
        assert "guess" not in server.log
        assert len({line.split(": ")[0] for line in lines}) == 2


@ALL
@pytest.mark.parametrize("where", ["[::1]:0", "localhost:0", ":0"])
def test_where_it_listens(key, home, io, where):
    (home / "keys").write_text(key.public + "\n")
    argv = [*ours.PROGRAM, "serve", "--listen", where, "--host-key", str(key.path), "--io", io]
    argv += ["--authorized-keys", str(home / "keys")]
    with peers.listening(argv, home / "log", "listening on ", ours._environment(home)):
        lines = (home / "log").read_text().splitlines()
        for line in lines:
            host, _, port = line.removeprefix("listening on ").rpartition(":")
            assert listening_addresses(int(port))
            with peers.socket.create_connection((host.strip("[]"), int(port)), 10) as sock:
                assert sock.recv(8) == b"SSH-2.0-"


@ALL
def test_an_address_that_is_taken(key, home, io):
    (home / "keys").write_text(key.public + "\n")
    with peers.socket.create_server((HOST, 0)) as taken:
        where = f"{HOST}:{taken.getsockname()[1]}"
        argv = [*ours.PROGRAM, "serve", "--listen", where, "--host-key", str(key.path), "--io", io]
        ran = peers.run([*argv, "--authorized-keys", str(home / "keys")], ours._environment(home))
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr.decode() == f"sshproto: cannot listen on {where}: Address already in use\n"


def test_trio_that_is_not_there(key, home, monkeypatch, capsys):
    (home / "keys").write_text(key.public + "\n")
    monkeypatch.setitem(sys.modules, "trio", None)
    monkeypatch.delitem(sys.modules, "sshproto_io.trio", raising=False)
    argv = ["serve", "--listen", f"{HOST}:0", "--host-key", str(key.path), "--io", "trio"]
    assert command.main([*argv, "--authorized-keys", str(home / "keys")]) == 1
    assert "pip install 'sshproto[trio]'" in capsys.readouterr().err


def test_a_slow_reader_does_not_fill_the_server(server, key, home):
    pid = pid_of(server)

    async def conversation(client):
        before = processes.memory(pid)
        for pty in (None, PTY):
            process = await client.start("cat /dev/zero", pty=pty)
            await process.stdout.read(1)
            await asyncio.sleep(1)
            await process.aclose()
        # And the other way round: a program that does not read.
        process = await client.start("sleep 1; wc -c")
        data = bytes(1_000_000)
        for _ in range(20):
            await process.stdin.write(data)
        after = processes.memory(pid)
        await process.stdin.send_eof()
        assert int(await process.stdout.read()) == 20_000_000
        return after - before

    assert talk(server, key, conversation) < 24 * 1024


def test_megabytes_both_ways(server, key):
    data = os.urandom(1 << 20) * 16
    ran = peers.ssh(server, "cat", key=key, stdin=data, options=["-oRekeyLimit=1M"])
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(data).digest()


def test_passwords_are_not_changed_here(capsys):
    visitor = Visitor(("h", 1), ("l", 2), Gate(KeyFiles(), {"alice": "a"}), Services(), verbose=True)
    assert visitor.password("alice", "a", None) is True
    assert visitor.password("alice", "a", "new") is False
    assert visitor.password("alice", "b", None) is False
    assert capsys.readouterr().err.splitlines() == [
        "h port 1: login as alice refused: passwords are not changed here",
        "h port 1: login as alice refused: wrong password",
    ]
