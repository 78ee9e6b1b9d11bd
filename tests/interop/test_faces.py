"""The faces against OpenSSH, both ways: the conformance suite's scenarios with sshd as the server, and ssh as a client
of each face's server."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sshproto.config import Preferences
from sshproto.keys.public import PublicKey
from tests.faces.conformance.scenarios import STOCK, Scenario
from tests.support import faceclient, faces, peers
from tests.support.faces import Face, client_config
from tests.support.faceserver import Served, serving
from tests.support.pattern import PIECE, digest, pattern, pieces
from tests.support.peers import HOST, Key, Ran, Server
from tests.support.places import Place, Site, browse, dial, half_close, site, socks4, socks5
from tests.support.seeds import HOST_KEY, USER, USER_KEY

pytestmark = pytest.mark.timeout(90)

MOST = 64 * 1024 * 1024
SIZE = 256 * 1024 * 1024


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with peers.scratch() as folder:
        yield folder


@pytest.fixture(scope="module")
def website(folder: Path) -> Iterator[Site]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (hard, hard)
    )  # for many connections at once, both ends of which are here
    with site(folder) as it:
        yield it
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def user_key(folder: Path) -> Key:
    """The suite's key, in a file."""
    path = folder / "id"
    path.touch(mode=0o600)
    path.write_bytes(USER_KEY.openssh())
    return Key(path, USER_KEY.public_key.openssh())


@pytest.fixture(params=faces.NAMES)
def face(request: pytest.FixtureRequest) -> Face:
    return faces.get(request.param)


@pytest.fixture(scope="module", params=faces.NAMES)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(request.param, debug=True) as server:
        yield server


# ------------------------------------------------------------------------------------------------------- faces to sshd


@pytest.fixture(scope="module")
def sshd(user_key: Key) -> Iterator[Server]:
    with peers.sshd(["MaxSessions 100", "AcceptEnv LANG"], authorized_keys=[user_key.public]) as server:
        yield server


@pytest.fixture(scope="module")
def login(sshd: Server) -> dict[str, Any]:
    config = client_config(user=sshd.user, preferences=Preferences(), rekey_bytes=256 * 1024)
    return {"config": config, "keys": [USER_KEY], "host_key": PublicKey.parse(sshd.host_keys[0])}


@pytest.fixture(scope="module")
def place(sshd: Server, website: Site, folder: Path, login: dict[str, Any]) -> Iterator[Place]:
    with serving("asyncio") as second:
        yield Place(port=sshd.port, ours=False, site=website, folder=folder, login=login, second=second.port)


@pytest.mark.parametrize("scenario", STOCK, ids=lambda scenario: scenario.__name__)
def test_a_face_and_sshd(face: Face, place: Place, scenario: Scenario) -> None:
    face.visit(scenario, place.port, place, debug=True, stock=True, **place.login)


@pytest.mark.slow
@pytest.mark.parametrize("name", faces.NAMES)
def test_256_mebibytes_to_sshd_and_back(name: str, sshd: Server) -> None:
    """With keys that change after every 48 MiB."""
    options = ("--rekey-bytes", str(48 * 1024 * 1024), "--user", sshd.user, "--host-key", sshd.host_keys[0])
    used = faceclient.run(name, sshd.port, "tests.faces.conformance.bulk:stock_both_ways", options=options)
    print(f"{name}: +{used.growth / 2**20:.1f} MiB")
    assert used.growth < MOST


# --------------------------------------------------------------------------------------------------------- ssh to faces


def _described(served: Served) -> Server:
    return Server(port=served.port, user=USER, host_keys=(HOST_KEY.public_key.openssh(),))


def _ssh(served: Served, key: Key, *command: str, options: tuple[str, ...] = (), stdin: bytes = b"") -> Ran:
    return peers.ssh(_described(served), *command, key=key, options=options, stdin=stdin)


@contextlib.contextmanager
def _running(
    served: Served, key: Key, *command: str, options: tuple[str, ...] = (), **pipes: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """ssh, until the block is left."""
    program = peers.need("ssh")
    with peers.scratch() as home:
        argv = [program, *options, *peers.ssh_options(_described(served), home, key), "-oBatchMode=yes", HOST, *command]
        with subprocess.Popen(argv, env=peers.environment(home), start_new_session=True, **pipes) as process:
            try:
                yield process
            finally:
                process.kill()


def test_ssh_runs_commands(served: Served, user_key: Key) -> None:
    data = pattern(3_000_001)
    assert _ssh(served, user_key, "cat", stdin=data) == Ran(0, data, b"")
    assert _ssh(served, user_key, "stderr", "oh", "dear") == Ran(3, b"out\n", b"oh dear\n")
    assert _ssh(served, user_key, "exit", "77").returncode == 77
    assert _ssh(served, user_key, "late", "1000", stdin=b"12345") == Ran(0, b"5\n" + pattern(1000), b"")
    assert _ssh(served, user_key, "deaf", stdin=data) == Ran(4, b"deaf\n", b"")
    early = _ssh(served, user_key, "early", stdin=bytes(10_001))
    assert (early.stdout, early.returncode) == (b"early\n", 10_001 % 200)
    ended = _ssh(served, user_key, "signal", "TERM")
    assert (ended.stdout, ended.returncode) == (b"before\n", 255)
    assert _ssh(served, user_key, "refused").returncode == 255
    served.settle()


def test_ssh_gets_a_terminal_and_sends_variables(served: Served, user_key: Key) -> None:
    assert _ssh(served, user_key, "pty").stdout == b"none\n"
    assert _ssh(served, user_key, "pty", options=("-tt",)).stdout.split()[-2:] == [b"0", b"0"]  # it has none itself
    assert b"LC_TEST=\xc3\xa4\n" in _ssh(served, user_key, "env", options=("-oSetEnv=LC_TEST=ä",)).stdout
    shell = _ssh(served, user_key, options=("-T",), stdin=b"hello\nexit 9\n")
    assert (shell.stdout, shell.returncode) == (b"you said: hello\n", 9)
    assert _ssh(served, user_key, "echo", options=("-s",), stdin=b"packet") == Ran(0, b"packet", b"")
    served.settle()


def test_ssh_while_keys_change(served: Served, user_key: Key) -> None:
    data = pattern(8_000_000)
    ran = _ssh(served, user_key, "cat", options=("-oRekeyLimit=300K",), stdin=data)
    assert ran == Ran(0, data, b"")
    served.settle()


def test_ssh_asks_whether_we_are_there(served: Served, user_key: Key) -> None:
    options = ("-oServerAliveInterval=1", "-oServerAliveCountMax=1")
    assert _ssh(served, user_key, "sleep", "2.5", options=options) == Ran(0, b"", b"")
    served.settle()


def _until_listening(address: Any, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while True:
        assert process.poll() is None, "ssh has ended"
        with contextlib.suppress(OSError), dial(address):
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ssh_forwards(served: Served, user_key: Key, website: Site, folder: Path) -> None:
    """-L, -R and -D, by TCP and by Unix sockets."""
    ports = [peers.free_port() for _ in range(5)]
    paths = [str(folder / f"{served.face}-{name}") for name in ("here", "there")]
    options = [
        *("-L", f"{HOST}:{ports[0]}:{HOST}:{website.port}"),
        *("-L", f"{HOST}:{ports[1]}:{website.path}"),
        *("-L", f"{paths[0]}:{HOST}:{website.late_port}"),
        *("-R", f"{HOST}:{ports[2]}:{HOST}:{website.port}"),
        *("-R", f"{HOST}:{ports[3]}:{website.path}"),
        *("-R", f"{paths[1]}:{HOST}:{website.late_port}"),
        *("-D", f"{HOST}:{ports[4]}"),
        *("-N", "-oExitOnForwardFailure=yes"),
    ]
    with _running(served, user_key, options=tuple(options)) as process:
        for address in (*((HOST, port) for port in ports), *paths):
            _until_listening(address, process)
        for port in ports[:4]:
            browse(dial((HOST, port)), 1_000_000)
        for path in paths:
            half_close(dial(path), 500_000)
        proxy = (HOST, ports[4])
        browse(socks5(proxy, "localhost", website.port, name=True), 100_000)
        browse(socks4(proxy, HOST, website.port), 100_000)
        with pytest.raises((ConnectionError, OSError)):
            browse(socks5(proxy, HOST, website.closed_port), 1)
    served.settle()


def test_ssh_forwards_five_hundred_connections_at_once(served: Served, user_key: Key, website: Site) -> None:
    port = peers.free_port()
    with _running(served, user_key, options=("-N", "-L", f"{HOST}:{port}:{HOST}:{website.late_port}")) as process:
        _until_listening((HOST, port), process)
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(dial((HOST, port))) for _ in range(500)]
            deadline = time.monotonic() + 20
            while served.state().channels < 500:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            for number, sock in enumerate(socks):
                sock.sendall(bytes(number))
                sock.shutdown(socket.SHUT_WR)
            for number, sock in enumerate(socks):
                assert sock.recv(100) == b"%d bytes" % number
    served.settle()


def test_ssh_jumps_over_two_hosts(served: Served, user_key: Key) -> None:
    with peers.scratch() as home:
        jump = " ".join([peers.need("ssh"), *peers.ssh_options(_described(served), home, user_key), "-oBatchMode=yes"])
        options = (f"-oProxyCommand={jump} -oProxyCommand='{jump} -W %h:%p {HOST}' -W %h:%p {HOST}",)
        data = pattern(500_000)
        assert _ssh(served, user_key, "cat", options=options, stdin=data) == Ran(0, data, b"")
    served.settle()


@pytest.mark.slow
@pytest.mark.parametrize("name", faces.NAMES)
def test_256_mebibytes_from_ssh_and_back(name: str, user_key: Key) -> None:
    """It does not read for a second, and changes its keys after every 48 MiB."""
    options, pipes = ("-oRekeyLimit=48M",), {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with serving(name) as served:
        with _running(served, user_key, "produce", str(SIZE), options=options, **pipes) as process:
            time.sleep(1.0)
            hasher = hashlib.sha256()
            while data := process.stdout.read1(PIECE):  # type: ignore[union-attr]
                hasher.update(data)
            assert (hasher.hexdigest(), process.wait(10)) == (digest(SIZE), 0)
        with _running(served, user_key, "digest", options=options, **pipes) as process:
            for piece in pieces(SIZE):
                process.stdin.write(piece)  # type: ignore[union-attr]
            process.stdin.close()  # type: ignore[union-attr]
            assert process.stdout.read().decode().strip() == digest(SIZE)  # type: ignore[union-attr]
        state = served.settle()
    print(f"{name}: +{state.growth / 2**20:.1f} MiB")
    assert state.growth < MOST
