"""Programs that people use, through ``sshproto serve`` and the stock ``ssh``: git, rsync, scp, forwards, terminals."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from sshproto_cli.options import FACES
from tests.support import ours, pattern, peers, places, processes
from tests.support.peers import HOST, Key, Ran, Server
from tests.support.places import Site

LINES = 10_000
SIZE = 3_000_000
PROMPT = r"^\$ *$"


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with peers.scratch() as directory:
        yield peers.make_key(directory)


@pytest.fixture(scope="module", params=FACES)
def server(request, key: Key) -> Iterator[Server]:
    with ours.serve(["--io", request.param, "--forward"], authorized_keys=[key.public]) as found:
        yield found


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with peers.scratch() as directory, places.site(directory) as found:
        yield found


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


def ssh_words(server: Server, home: Path, key: Key) -> list[str]:
    """The stock ssh and its options, without a host."""
    return [peers.need("ssh"), *peers.ssh_options(server, home, key), "-oBatchMode=yes"]


def good(ran: Ran) -> Ran:
    assert ran.returncode == 0, ran
    return ran


def until(condition: Callable[[], object], what: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that nobody tells; ``what`` is shown if it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------------------------ git


def test_git_clones_and_pushes(server: Server, key: Key, home: Path) -> None:
    git = peers.need("git")
    env = peers.environment(
        home,
        GIT_SSH_COMMAND=shlex.join(ssh_words(server, home, key)),
        GIT_CONFIG_GLOBAL="/dev/null",
        GIT_CONFIG_NOSYSTEM="1",
        GIT_AUTHOR_NAME="a",
        GIT_AUTHOR_EMAIL="a@example.com",
        GIT_COMMITTER_NAME="a",
        GIT_COMMITTER_EMAIL="a@example.com",
    )
    there, first, second = home / "there.git", home / "first", home / "second"
    url = f"ssh://{HOST}{there}"

    def run(*words: object) -> str:
        return good(peers.run([git, *map(str, words)], env)).stdout.decode()

    run("init", "-q", "--bare", "-b", "main", there)
    run("clone", "-q", url, first)
    for number in range(20):
        (first / f"file{number}").write_bytes(os.urandom(200_000))
    run("-C", first, "add", ".")
    run("-C", first, "commit", "-q", "-m", "one")
    run("-C", first, "push", "-q", "origin", "HEAD:main")
    run("clone", "-q", url, second)
    assert run("-C", second, "rev-parse", "HEAD") == run("-C", first, "rev-parse", "HEAD")
    same_trees(first, second, ignore=[".git"])
    (second / "file0").write_text("changed\n")
    run("-C", second, "commit", "-q", "-a", "-m", "two")
    run("-C", second, "push", "-q", "origin", "HEAD:main")
    run("-C", first, "pull", "-q", "--ff-only", "origin", "main")
    assert (first / "file0").read_text() == "changed\n"
    run("-C", there, "fsck", "--strict")


def same_trees(first: Path, second: Path, ignore: Sequence[str] = ()) -> None:
    compared = filecmp.dircmp(first, second, ignore=list(ignore))
    assert not compared.left_only
    assert not compared.right_only
    assert filecmp.cmpfiles(first, second, compared.common_files, shallow=False) == (compared.common_files, [], [])
    for name in compared.common_dirs:
        same_trees(first / name, second / name, ignore)


# ----------------------------------------------------------------------------------------------------------------- pssh


def test_parallel_ssh_runs_a_command_everywhere(server: Server, key: Key, home: Path) -> None:
    """It starts stock ssh for each host, and takes input, output and status of each apart."""
    _, *options = ssh_words(server, home, key)
    argv = [peers.need("parallel-ssh"), "--inline", "--timeout", "20"]
    for _ in range(4):
        argv += ["--host", HOST]
    argv += ["--extra-args", shlex.join(options)]
    ran = good(peers.run([*argv, "echo got; echo err >&2"], peers.environment(home)))
    assert ran.stdout.count(b"[SUCCESS]") == 4
    assert ran.stdout.count(b"\ngot\n") == 4
    assert ran.stdout.count(b"err\n") == 4
    failed = peers.run([*argv, "exit 3"], peers.environment(home))
    assert failed.stdout.count(b"Exited with error code 3") == 4


# -------------------------------------------------------------------------------------------------------- rsync and scp


def make_tree(top: Path) -> None:
    (top / "deep" / "er").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "nothing").touch()
    (top / "big").write_bytes(os.urandom(SIZE))
    for number in range(50):
        (top / "deep" / f"small {number}").write_text(f"{number}\n" * number)
    (top / "deep" / "er" / "program").write_text("#!/bin/sh\n")
    (top / "deep" / "er" / "program").chmod(0o755)


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_rsync(server: Server, key: Key, home: Path, *, up: bool) -> None:
    rsync = peers.need("rsync")
    source, target = home / "source", home / "target"
    make_tree(source)
    command = [rsync, "-a", "--checksum", "--delete", "-e", shlex.join(ssh_words(server, home, key))]
    command += [f"{source}/", f"{HOST}:{target}"] if up else [f"{HOST}:{source}/", str(target)]
    good(peers.run(command, peers.environment(home)))
    same_trees(source, target)
    assert os.access(target / "deep" / "er" / "program", os.X_OK)
    # Again: this time only what has changed goes over, as differences.
    with (source / "big").open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"changed")
    (source / "nothing").unlink()
    said = good(peers.run([*command, "--stats"], peers.environment(home))).stdout.decode()
    same_trees(source, target)
    found = re.search(r"Literal data: ([\d,]+) bytes", said)
    assert found
    assert int(found[1].replace(",", "")) < SIZE // 10


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_scp_of_old(server: Server, key: Key, home: Path, *, up: bool) -> None:
    scp = peers.need("scp")
    source, target = home / "source", home / "target"
    make_tree(source)
    command = [scp, "-O", "-q", "-r", *peers.ssh_options(server, home, key), "-oBatchMode=yes"]
    command += [str(source), f"{HOST}:{target}"] if up else [f"{HOST}:{source}", str(target)]
    good(peers.run(command, peers.environment(home)))
    same_trees(source, target)


# ------------------------------------------------------------------------------------------------------------- forwards


@contextlib.contextmanager
def ssh_in_background(argv: Sequence[str], home: Path) -> Iterator[Callable[[], str]]:
    """Run ssh while the block runs; gives what reads its standard error."""
    log = home / "ssh.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=peers.environment(home),
            start_new_session=True,
        )
    try:
        yield lambda: log.read_text(errors="replace")
        assert process.poll() is None, log.read_text(errors="replace")
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End ssh. A signal that comes just before it begins to wait is heard when it wakes up, so it may take another."""
    for _ in range(10):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
            return
    process.kill()
    process.wait()
    raise AssertionError("ssh does not end")


def forwarding(server: Server, home: Path, key: Key, *options: str) -> list[str]:
    return [*ssh_words(server, home, key), "-oExitOnForwardFailure=yes", "-N", *options, HOST]


def listens(address: tuple[str, int] | str) -> bool:
    try:
        places.dial(address).close()
    except OSError:
        return False
    return True


def fetch(url: str, home: Path, *options: str) -> bytes:
    curl = peers.need("curl")
    return good(peers.run([curl, "-sS", "--fail", "--max-time", "20", *options, url], peers.environment(home))).stdout


def check_page(content: bytes) -> None:
    assert len(content) == SIZE
    assert hashlib.sha256(content).hexdigest() == pattern.digest(SIZE)


@pytest.mark.parametrize("far", ["tcp", "unix"])
@pytest.mark.parametrize("near", ["tcp", "unix"])
def test_local_forwards(server: Server, key: Key, home: Path, site: Site, near: str, far: str) -> None:
    here: tuple[str, int] | str = (HOST, peers.free_port()) if near == "tcp" else str(home / "here")
    target = f"{HOST}:{site.port}" if far == "tcp" else site.path
    option = f"{here if isinstance(here, str) else here[1]}:{target}"
    with ssh_in_background(forwarding(server, home, key, "-L", option), home) as said:
        until(lambda: listens(here), said)
        if isinstance(here, str):
            check_page(fetch(f"http://site/{SIZE}", home, "--unix-socket", here))
        else:
            check_page(fetch(f"http://{HOST}:{here[1]}/{SIZE}", home))
        places.browse(places.dial(here), SIZE)


def test_end_of_input_passes_through_a_local_forward(server: Server, key: Key, home: Path, site: Site) -> None:
    here = (HOST, peers.free_port())
    option = f"{here[1]}:{HOST}:{site.late_port}"
    with ssh_in_background(forwarding(server, home, key, "-L", option), home) as said:
        until(lambda: listens(here), said)
        places.half_close(places.dial(here), SIZE)


def test_a_forward_to_where_nobody_listens(server: Server, key: Key, site: Site) -> None:
    ran = peers.ssh(server, key=key, options=["-W", f"{HOST}:{site.closed_port}"])
    assert ran.returncode == 255
    assert b"Connection refused" in ran.stderr


@pytest.mark.parametrize("near", ["tcp", "unix"])
@pytest.mark.parametrize("far", ["tcp", "unix"])
def test_remote_forwards(server: Server, key: Key, home: Path, site: Site, near: str, far: str) -> None:
    target = f"{HOST}:{site.port}" if near == "tcp" else site.path
    there = "0" if far == "tcp" else str(home / "there")
    with ssh_in_background(forwarding(server, home, key, "-R", f"{there}:{target}"), home) as said:
        if far == "unix":
            until(lambda: listens(there), said)
            assert Path(there).stat().st_mode & 0o777 == 0o600
            check_page(fetch(f"http://site/{SIZE}", home, "--unix-socket", there))
            places.browse(places.dial(there), SIZE)
        else:
            until(lambda: "Allocated port" in said(), said)
            found = re.search(r"Allocated port (\d+)", said())
            assert found
            check_page(fetch(f"http://{HOST}:{found[1]}/{SIZE}", home))
            places.browse(places.dial((HOST, int(found[1]))), SIZE)
    if far == "unix":
        until(lambda: not Path(there).exists(), lambda: "the socket is left")


def test_a_proxy(server: Server, key: Key, home: Path, site: Site) -> None:
    port = peers.free_port()
    with ssh_in_background(forwarding(server, home, key, "-D", str(port)), home) as said:
        until(lambda: listens((HOST, port)), said)
        check_page(
            fetch(f"http://localhost:{site.port}/{SIZE}", home, "--socks5-hostname", f"{HOST}:{port}", "--noproxy", "")
        )
        places.browse(places.socks5((HOST, port), "localhost", site.port, name=True), SIZE)


def test_jumping_through_it(server: Server, key: Key, home: Path) -> None:
    with ours.serve(authorized_keys=[key.public]) as second:
        (home / "known_hosts").write_text(server.known_hosts + second.known_hosts)
        (home / "config").write_text(
            f"Host jump\n HostName {HOST}\n Port {server.port}\nHost target\n HostName {HOST}\n Port {second.port}\n"
            f"Host *\n User {server.user}\n UserKnownHostsFile {home}/known_hosts\n GlobalKnownHostsFile none\n"
            f" StrictHostKeyChecking yes\n IdentitiesOnly yes\n IdentityAgent none\n IdentityFile {key.path}\n"
            " BatchMode yes\n ConnectTimeout 10\n"
        )
        data = os.urandom(SIZE)
        argv = [peers.need("ssh"), "-F", str(home / "config"), "-J", "jump", "target", "cat; exit 5"]
        ran = peers.run(argv, peers.environment(home), data)
    assert (ran.returncode, hashlib.sha256(ran.stdout).digest()) == (5, hashlib.sha256(data).digest()), ran.stderr


# ------------------------------------------------------------------------------------------------------------ terminals


class Screen:
    """A terminal of tmux's, where ssh runs; what stands on it is what a person would see."""

    def __init__(self, home: Path, argv: Sequence[str]) -> None:
        self._home = home
        self._tmux = [peers.need("tmux"), "-f", "/dev/null", "-S", str(home / "tmux")]
        self._env = peers.environment(home, TERM="xterm-256color", SHELL="/bin/sh", PS1="$ ")
        # The pane stays when ssh has ended, so that its last words can be read.
        self("new-session", "-d", "-x", "80", "-y", "24", f"{shlex.join(argv)}; echo ssh ended: $?; exec sleep 1000")
        self("set", "-g", "status", "off")
        self("resize-window", "-x", "80", "-y", "24")

    def __call__(self, *words: str) -> str:
        return good(peers.run([*self._tmux, *words], self._env)).stdout.decode()

    def text(self) -> str:
        return self("capture-pane", "-p")

    def type(self, text: str) -> None:
        self("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        self("send-keys", *keys)

    def enter(self, line: str) -> None:
        self.type(line)
        self.press("Enter")

    def paste(self, path: Path) -> None:
        self("load-buffer", str(path))
        self("paste-buffer")

    def until(self, pattern: str, seconds: float = 20.0) -> str:
        """Wait until something stands on the screen."""
        until(lambda: re.search(pattern, self.text(), re.MULTILINE), lambda: f"no {pattern!r}:\n{self.text()}", seconds)
        return self.text()

    def kill(self) -> None:
        with contextlib.suppress(AssertionError):
            self("kill-server")


@pytest.fixture
def screen(server: Server, key: Key, home: Path) -> Iterator[Screen]:
    argv = [*ssh_words(server, home, key), "-tt", HOST, "PS1='$ ' exec sh -i"]
    found = Screen(home, argv)
    try:
        found.until(PROMPT)
        yield found
    finally:
        found.kill()


def test_resize_and_ctrl_c(screen: Screen) -> None:
    screen.enter("stty size; echo $TERM")
    screen.until(r"^24 80\n(tmux|screen)")
    # One more shell, without job control: it is in the foreground itself.
    screen.enter("clear; sh -c 'trap \"stty size\" WINCH; echo begun; while :; do sleep 0.1; done'")
    screen.until(r"^begun$")
    screen("resize-window", "-x", "100", "-y", "30")
    screen.until(r"^30 100$")
    screen.press("C-c")
    screen.until(PROMPT)
    screen.enter("clear; echo asleep; sleep 1000; echo status $?")  # another word: the one above stands there still
    screen.until(r"^asleep$")
    screen.press("C-c")
    screen.until(PROMPT)
    screen.enter("echo $((20 + 1))")
    assert "status 0" not in screen.until(r"^21$")
    screen.press("C-d")
    screen.until(r"^ssh ended: 130$|^ssh ended: 0$")


def test_vi(screen: Screen, home: Path) -> None:
    peers.need("vi")
    path = home / "written"
    screen.enter(f"vi {path}")
    screen.until(r"^~ *$")
    screen.type("ifirst line")
    screen.press("Enter")
    screen.type("second")
    screen.press("Escape")
    screen.until(r"^second$")
    screen("resize-window", "-x", "60", "-y", "12")

    def knows() -> bool:
        screen.enter(":set lines?")
        return re.search(r"^ *lines=12 ", screen.text(), re.MULTILINE) is not None

    until(knows, screen.text)
    screen.type("ggdwG")  # the cursor moves, a word goes
    screen.until(r"^line$")
    screen.enter(":wq")
    screen.until(PROMPT)
    assert path.read_text() == "line\nsecond\n"
    screen.enter("stty size")
    screen.until(r"^12 60$")


def test_top(screen: Screen) -> None:
    peers.need("top")
    screen.enter("top -d 0.5")
    assert "PID" in screen.until(r"^top - .*load average")
    screen("resize-window", "-x", "120", "-y", "40")
    time.sleep(0.2)
    before = screen.until(r"^top - .*load average").splitlines()[0]
    until(lambda: screen.text().splitlines()[0] != before, screen.text)  # it goes on: the clock does
    screen.press("q")
    screen.until(PROMPT)


def test_a_long_paste(screen: Screen, home: Path) -> None:
    source, target = home / "pasted", home / "got"
    source.write_text("".join(f"{number:05} {'x' * (number % 70)}\n" for number in range(LINES)))
    screen.enter(f"clear; cat > {target}; echo done")
    screen.paste(source)
    last = source.read_text().splitlines()[-1]
    until(lambda: target.exists() and target.stat().st_size == source.stat().st_size, screen.text, 40)
    screen.press("C-d")
    assert last in screen.until(r"^done$")
    assert target.read_bytes() == source.read_bytes()


def test_a_terminal_that_goes_away(screen: Screen) -> None:
    screen.enter("clear; echo pid $$; exec sleep 1000")
    found = re.search(r"^pid (\d+)$", screen.until(r"^pid \d+$"), re.MULTILINE)
    assert found
    screen.kill()
    processes.until_gone(int(found[1]))


def test_the_server_ends_in_order_with_a_terminal_open(key: Key, home: Path) -> None:
    for face in FACES:
        with ours.serve(["--io", face], authorized_keys=[key.public]) as server:
            argv = [*ssh_words(server, home, key), "-tt", HOST, "echo pid $$; exec sleep 1000"]
            with subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=peers.environment(home),
            ) as process:
                assert process.stdout is not None
                remote = int(process.stdout.readline().split()[1])
                [pid] = processes.writing_to(server.log_file)
                os.kill(pid, signal.SIGTERM)
                _, said = process.communicate(timeout=20)
            assert process.returncode == 255, said
            assert b"the server is stopping" in said or b"closed by remote host" in said
            processes.until_gone(remote)
            assert len(server.log.splitlines()) == 1, server.log
