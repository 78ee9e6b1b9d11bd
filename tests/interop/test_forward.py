"""``sshproto forward`` through the stock OpenSSH server, with a web site behind, and ``-J`` over two of them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshproto_cli.options import FACES
from tests.support import ours, pattern, peers, places
from tests.support.console import console
from tests.support.peers import HOST, Key, Server
from tests.support.places import Site

SIZE = 300_000


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with peers.scratch() as directory:
        yield peers.make_key(directory)


@pytest.fixture(scope="module")
def server(key: Key) -> Iterator[Server]:
    with peers.sshd(authorized_keys=[key.public]) as found:
        yield found


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with peers.scratch() as directory, places.site(directory) as found:
        yield found


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


@pytest.fixture(params=FACES)
def io(request: pytest.FixtureRequest) -> tuple[str, str]:
    return "--io", request.param


def arguments(verb: str, server: Server, home: Path, key: Key, *options: str) -> list[str]:
    with (home / "known_hosts").open("a") as known:
        known.write(server.known_hosts)
    argv = [*ours.PROGRAM, verb, "-p", str(server.port), "-l", server.user, "-i", str(key.path)]
    return [*argv, "--known-hosts", str(home / "known_hosts"), *options, HOST]


class Forwarding:
    """``sshproto forward`` while it runs.

    Attributes:
        lines: What it says on standard output, once it is ready.
    """

    def __init__(self, process: subprocess.Popen[bytes], count: int) -> None:
        self.process = process
        timer = threading.Timer(peers.SECONDS, process.kill)
        timer.start()
        assert process.stdout is not None
        self.lines = [process.stdout.readline().decode().rstrip("\n") for _ in range(count)]
        timer.cancel()
        assert all(self.lines), (process.stderr and process.stderr.read()).decode()

    def port(self, line: int = 0) -> int:
        """The first port that a line names."""
        found = re.search(r":(\d+) ", self.lines[line])
        assert found
        return int(found[1])

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """End it by a signal: the status, and what else it has said."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str, str]:
        stdout, stderr = self.process.communicate(timeout=peers.SECONDS)
        return self.process.returncode, stdout.decode(), stderr.decode()


Start = Callable[..., contextlib.AbstractContextManager[Forwarding]]


@pytest.fixture
def forward(server: Server, home: Path, key: Key) -> Start:
    """Starts ``sshproto forward`` with some options, and waits until it is ready."""

    @contextlib.contextmanager
    def start(*options: str, to: Server = server) -> Iterator[Forwarding]:
        argv = arguments("forward", to, home, key, *options)
        count = sum(option in {"-L", "-R", "-D"} for option in options)
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ours._environment(home),
            start_new_session=True,
        ) as process:
            try:
                yield Forwarding(process, count)
            finally:
                process.kill()

    return start


def curl(*words: str) -> bytes:
    argv = [peers.need("curl"), "-sS", "--noproxy", "", "--max-time", "20", *words]
    done = subprocess.run(argv, capture_output=True, timeout=peers.SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def page(size: int) -> bytes:
    return b"".join(pattern.pieces(size))


# ------------------------------------------------------------------------------------------------------------ all kinds


def test_from_here(forward: Start, site: Site, io: tuple[str, str]) -> None:
    port = peers.free_port()
    with forward(*io, "-L", f"{port}:{HOST}:{site.port}") as running:
        assert re.fullmatch(
            rf"forwarding 127\.0\.0\.1:{port}( and \[::1\]:{port})? to {HOST}:{site.port}", running.lines[0]
        )
        assert curl(f"http://127.0.0.1:{port}/{SIZE}") == page(SIZE)
        if "::1" in running.lines[0]:
            assert curl(f"http://[::1]:{port}/1000") == page(1000)
        places.browse(places.dial((HOST, port)), SIZE)
        assert running.end() == (0, "", "")


def test_from_there(forward: Start, site: Site, io: tuple[str, str]) -> None:
    with forward(*io, "-R", f"0:{HOST}:{site.port}") as running:
        assert re.fullmatch(rf"forwarding localhost:[1-9]\d+ of the server to {HOST}:{site.port}", running.lines[0])
        assert curl(f"http://{HOST}:{running.port()}/{SIZE}") == page(SIZE)
        places.browse(places.dial((HOST, running.port())), SIZE)
        assert running.end(signal.SIGINT) == (0, "", "")


def test_wherever_a_client_wants(forward: Start, site: Site, io: tuple[str, str]) -> None:
    port = peers.free_port()
    with forward(*io, "-D", f"{HOST}:{port}") as running:
        assert running.lines == [f"forwarding {HOST}:{port} as a SOCKS proxy"]
        for scheme in ("socks5-hostname", "socks5", "socks4a", "socks4"):
            assert curl(f"--{scheme}", f"{HOST}:{port}", f"http://{HOST}:{site.port}/{SIZE}") == page(SIZE)
        places.browse(places.socks5((HOST, port), "localhost", site.port, name=True), SIZE)
        assert running.end() == (0, "", "")


def test_sockets(forward: Start, site: Site, home: Path) -> None:
    here, there = home / "here", home / "there"
    with forward("-L", f"{here}:{site.path}", "-R", f"{there}:{site.path}") as running:
        assert running.lines == [
            f"forwarding {here} to {site.path}",
            f"forwarding {there} of the server to {site.path}",
        ]
        assert (here.stat().st_mode & 0o777) == 0o600
        for path in (here, there):
            assert curl("--unix-socket", str(path), f"http://site/{SIZE}") == page(SIZE)
        assert running.end() == (0, "", "")
    assert not here.exists()


def test_half_close(forward: Start, site: Site, io: tuple[str, str]) -> None:
    port = peers.free_port()
    with forward(*io, "-L", f"{HOST}:{port}:{HOST}:{site.late_port}", "-R", f"0:{HOST}:{site.late_port}") as running:
        for number in (port, running.port(1)):
            places.half_close(places.dial((HOST, number)), SIZE)
        assert running.end() == (0, "", "")


def test_many_at_once(forward: Start, site: Site, io: tuple[str, str]) -> None:
    ports = [peers.free_port() for _ in range(2)]
    options = ["-L", f"{HOST}:{ports[0]}:{HOST}:{site.port}", "-R", f"0:{HOST}:{site.port}", "-D", f"{HOST}:{ports[1]}"]
    with forward(*io, *options) as running:
        assert len(running.lines) == 3
        ways = [
            lambda: places.dial((HOST, ports[0])),
            lambda: places.dial((HOST, running.port(1))),
            lambda: places.socks4((HOST, ports[1]), HOST, site.port),
        ]
        problems: list[BaseException] = []

        def browse(way: Callable[[], socket.socket]) -> None:
            try:
                places.browse(way(), SIZE)
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=browse, args=(way,)) for way in ways * 5]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(peers.SECONDS)
        assert problems == []
        assert running.end() == (0, "", "")


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_nobody_at_the_far_end(forward: Start, site: Site) -> None:
    port = peers.free_port()
    options = ["-L", f"{HOST}:{port}:{HOST}:{site.closed_port}", "-R", f"0:{HOST}:{site.closed_port}"]
    with forward(*options) as running:
        for number in (port, running.port(1)):
            with places.dial((HOST, number)) as sock:
                assert sock.recv(1) == b""
        status, _, said = running.end()
    assert status == 0
    assert f"sshproto: the server cannot connect to {HOST}:{site.closed_port}: " in said
    assert f"sshproto: cannot connect to {HOST}:{site.closed_port}: Connection refused" in said


def fails(server: Server, home: Path, key: Key, *options: str) -> str:
    ran = peers.run(arguments("forward", server, home, key, *options), ours._environment(home))
    assert (ran.returncode, ran.stdout) == (255, b"")
    lines = ran.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_what_cannot_be_set_up_ends_it_all(server: Server, home: Path, key: Key, io: tuple[str, str]) -> None:
    free = peers.free_port()
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        good = ("-L", f"{HOST}:{free}:{HOST}:1")
        for option in ("-L", "-D"):
            spec = f"{HOST}:{port}" + (f":{HOST}:1" if option == "-L" else "")
            said = fails(server, home, key, *io, *good, option, spec)
            assert said == f"sshproto: cannot listen at {HOST}:{port}: Address already in use"
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # there may be no IPv6
                stack.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6))
            said = fails(server, home, key, *io, *good, "-R", f"{port}:{HOST}:1")
        assert said == f"sshproto: the server refuses to listen at localhost:{port}"
    said = fails(server, home, key, *io, "-L", f"/nonexistent/socket:{HOST}:1")
    assert said == "sshproto: cannot listen at /nonexistent/socket: No such file or directory"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "nothing to forward: give -L, -R or -D"),
        (["-L", "8080"], "-L 8080: there is nothing to connect to"),
        (["-D", "nonsense"], "-D nonsense: "),
        (["-R", "8080"], "-R 8080: there is no target"),
        (["-J", "a:b"], "-J a:b: not a port number"),
    ],
)
def test_options_that_make_no_sense(server: Server, home: Path, key: Key, options: list[str], says: str) -> None:
    spare = [] if options[:1] != ["-J"] else ["-D", "1080"]
    assert says in fails(server, home, key, *spare, *options)


def test_the_end_of_the_connection(key: Key, home: Path, forward: Start, site: Site, io: tuple[str, str]) -> None:
    port = peers.free_port()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(peers.sshd(authorized_keys=[key.public]))
        with (
            forward(*io, "-L", f"{HOST}:{port}:{HOST}:{site.port}", to=server) as running,
            places.dial((HOST, port)) as sock,
        ):
            sock.sendall(b"GET /100000000 HTTP/1.1\r\nHost: site\r\n\r\n")
            assert sock.recv(100)
            stack.close()  # ends sshd, and its sessions
            status, _, said = running.wait()
            with contextlib.suppress(ConnectionError):
                while sock.recv(1 << 20):
                    pass
    assert status == 255
    assert re.fullmatch(r"sshproto: [^\n]+\n", said)


# ------------------------------------------------------------------------------------------------------------ over hops


@pytest.fixture(scope="module")
def hop(key: Key) -> Iterator[Server]:
    with peers.sshd(authorized_keys=[key.public]) as found:
        yield found


def through(hop: Server, home: Path) -> tuple[str, str]:
    with (home / "known_hosts").open("a") as known:
        known.write(hop.known_hosts)
    return "-J", f"{hop.user}@{HOST}:{hop.port}"


def test_a_command_over_a_hop(server: Server, hop: Server, home: Path, key: Key, io: tuple[str, str]) -> None:
    argv = arguments("exec", server, home, key, *io, *through(hop, home))
    data = os.urandom(3_000_000)
    ran = peers.run([*argv, "cat; echo $SSH_CONNECTION >&2; exit 7"], ours._environment(home), data)
    assert (ran.returncode, ran.stdout) == (7, data)
    assert ran.stderr.decode().split()[3] == str(server.port)
    assert "Accepted publickey" in hop.log
    assert "Accepted publickey" in server.log


def test_two_hops(server: Server, hop: Server, home: Path, key: Key, io: tuple[str, str]) -> None:
    option, first = through(hop, home)
    argv = arguments("exec", server, home, key, *io, option, f"{first},{first}")
    ran = peers.run([*argv, "cat; exit 3"], ours._environment(home), b"x" * 100_000)
    assert ran == peers.Ran(3, b"x" * 100_000, b"")


def test_a_shell_over_a_hop(server: Server, hop: Server, home: Path, key: Key, io: tuple[str, str]) -> None:
    argv = [*arguments("shell", server, home, key, *io, *through(hop, home)), "stty size; cat"]
    with console(argv, ours._environment(home), columns=70, rows=20) as terminal:
        terminal.expect("20 70")
        terminal.type("there and back\r")
        terminal.expect(r"there and back\r\nthere and back\r\n")
        terminal.type("~.")
        assert terminal.wait() == 255
        assert terminal.modes() == terminal.before


def test_forwards_over_a_hop(forward: Start, hop: Server, home: Path, site: Site, io: tuple[str, str]) -> None:
    port = peers.free_port()
    options = ["-L", f"{HOST}:{port}:{HOST}:{site.port}", "-R", f"0:{HOST}:{site.port}"]
    with forward(*io, *through(hop, home), *options) as running:
        for number in (port, running.port(1)):
            places.browse(places.dial((HOST, number)), SIZE)
        assert running.end() == (0, "", "")


def test_the_hop_goes_away(server: Server, key: Key, home: Path, io: tuple[str, str]) -> None:
    with contextlib.ExitStack() as stack:
        hop = stack.enter_context(peers.sshd(authorized_keys=[key.public]))
        argv = [*arguments("exec", server, home, key, *io, *through(hop, home)), "echo $$; exec sleep 1000"]
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ours._environment(home),
            start_new_session=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().strip().isdigit()
                stack.close()
                _, said = process.communicate(timeout=peers.SECONDS)
            finally:
                process.kill()
    assert process.returncode == 255
    assert re.fullmatch(rb"sshproto: [^\n]+\n", said)


def test_hops_are_checked_and_named(server: Server, hop: Server, home: Path, key: Key, io: tuple[str, str]) -> None:
    def fails(*options: str, port: int | None = None) -> str:
        argv = arguments("exec", server, home, key, *io, *options)
        if port is not None:
            argv[argv.index("-p") + 1] = str(port)
        ran = peers.run([*argv, "true"], ours._environment(home))
        assert ran.returncode == 255
        lines = ran.stderr.decode().splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    spec = f"{HOST}:{hop.port}"
    assert f"the host key of {HOST} port {hop.port} is not known" in fails("-J", spec)
    through(hop, home)
    closed = peers.free_port()
    assert fails("-J", spec, port=closed).startswith(f"sshproto: {HOST} cannot connect to {HOST} port {closed}: ")
    assert f"cannot connect to {HOST} port {closed}: Conn" in fails("-J", f"{HOST}:{closed}")
    other = peers.make_key(home, "nistp256")
    argv = arguments("exec", server, home, other, *io, "-J", spec)
    ran = peers.run([*argv, "true"], ours._environment(home, SSHPROTO_PASSWORD="not for hops"))
    assert ran.returncode == 255
    assert ran.stderr.decode().startswith(f"sshproto: {HOST}: login as {hop.user} failed")
