"""``sshproto exec`` and ``sshproto serve`` as their users meet them: streams, statuses, prompts, files, signals.

Which algorithms work with which peer is for the interop tests.
"""

from __future__ import annotations

import hashlib
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sshproto.algorithms import SIGNATURE_DEFAULT
from sshproto.channels.requests import HostKeysAnnounced
from sshproto.errors import LocalClose
from sshproto.events import ConnectionLost, GlobalRequested, PongReceived, Prompt, PromptsReceived
from sshproto.keys import LoginRefused, PublicKey
from sshproto.keys.known_hosts import Trust, parse
from sshproto.keys.private import PrivateKey
from sshproto_cli import main as command
from sshproto_cli.gate import Gate, KeyFiles, read_passwords
from sshproto_cli.hosts import HostPolicy, Unknown, append_line
from sshproto_cli.login import Login
from sshproto_cli.options import FACES, Failure, reporter, unlock
from sshproto_cli.terminal import Terminal
from tests.support import ours, peers, processes
from tests.support.peers import HOST, Key, Server

ROOT = Path(__file__).resolve().parents[2]
CODE = os.pathsep.join((str(ROOT), str(ROOT / "adapters")))
PASSPHRASE = "not a word"


def one_line(stderr: bytes) -> str:
    """The only line that was said, ours."""
    lines = stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("sshproto: ")
    return lines[0]


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with peers.scratch() as directory:
        yield peers.make_key(directory)


@pytest.fixture(scope="module")
def locked(key: Key) -> Path:
    path = key.path.with_name("locked")
    path.touch(mode=0o600)
    path.write_bytes(PrivateKey.load(key.path.read_bytes()).openssh(PASSPHRASE.encode(), rounds=1))
    return path


@pytest.fixture(scope="module")
def server(key: Key) -> Iterator[Server]:
    with ours.serve(authorized_keys=[key.public], password=True) as found:
        yield found


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


@pytest.fixture(params=FACES)
def io(request: pytest.FixtureRequest) -> list[str]:
    """Options that choose a face."""
    return ["--io", request.param]


def arguments(server: Server, home: Path, key: Key | None, *options: str) -> list[str]:
    (home / "known_hosts").write_text(server.known_hosts)
    argv = [*ours.PROGRAM, "exec", "-p", str(server.port), "-l", server.user, "--known-hosts", f"{home}/known_hosts"]
    return [*argv, *(["-i", str(key.path)] if key else []), *options, HOST]


def environment(home: Path, **more: str) -> dict[str, str]:
    return peers.environment(home, PYTHONPATH=CODE, **more)


# -------------------------------------------------------------------------------------------------------- exec: streams


def test_streams_and_status_pass_through(server, key, io):
    ran = ours.execute(server, "cat; echo oops >&2; exit 7", key=key, stdin=bytes(range(256)) * 1000, options=io)
    assert ran == peers.Ran(7, bytes(range(256)) * 1000, b"oops\n")


def test_words_of_the_command_are_joined(server, key):
    assert ours.execute(server, "echo", "-n", "'a  b'", "-v", "--", "c", key=key).stdout == b"a  b -v -- c"
    assert ours.execute(server, "--", "echo", "x", key=key).stdout == b"x\n"


def test_megabytes_both_ways_at_once(server, key, io):
    data = os.urandom(1 << 20) * 16
    ran = ours.execute(server, "cat", key=key, stdin=data, options=io)
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(data).digest()


def test_a_signal_is_the_status_a_shell_would_give(server, key, io):
    ran = ours.execute(server, "kill -TERM $$", key=key, options=io)
    assert (ran.returncode, ran.stdout) == (128 + signal.SIGTERM, b"")
    assert "signal TERM" in one_line(ran.stderr)


def test_the_end_of_input_may_come_before_that_of_output(server, key, io):
    ran = ours.execute(
        server, "cat >/dev/null; echo late; exec >&-; sleep 0.1; exit 3", key=key, stdin=b"x", options=io
    )
    assert ran == peers.Ran(3, b"late\n", b"")


def test_a_reader_who_has_seen_enough(server, key, home, io):
    argv = [*arguments(server, home, key, *io), "yes"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(home)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait(10) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


@pytest.mark.parametrize("redirection", ["<&-", "</dev/null", f"<{__file__}", "2>&- </dev/null", ">&- </dev/null"])
def test_any_kind_of_standard_descriptor(server, key, home, redirection, io):
    words = " ".join([*arguments(server, home, key, *io), "'cat >/dev/null; echo out; exit 4'"])
    ran = peers.run(["sh", "-c", f"{words} {redirection}"], environment(home))
    assert (ran.returncode, ran.stdout) == (4, b"" if ">&- " in redirection and "2>" not in redirection else b"out\n")


def test_a_full_disk(server, key, home, io):
    with Path("/dev/full").open("wb") as full:
        argv = [*arguments(server, home, key, *io), "echo x"]
        ran = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, env=environment(home), check=False, timeout=30)
    assert ran.returncode == 255
    assert "standard output: No space left on device" in one_line(ran.stderr)


def test_inherited_pipes_are_blocking_again(server, key, home, io):
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    argv = [*arguments(server, home, key, *io), "echo x"]
    subprocess.run(argv, stdin=in_read, stdout=out_write, env=environment(home), timeout=30, check=True)
    assert os.get_blocking(in_read)
    assert os.get_blocking(out_write)
    assert os.read(out_read, 10) == b"x\n"
    for descriptor in (in_read, in_write, out_read, out_write):
        os.close(descriptor)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_good_bye(server, key, home, number, io):
    argv = [*arguments(server, home, key, *io), "echo $$; exec sleep 100"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(home)) as process:
        assert process.stdout is not None
        remote = int(process.stdout.readline())
        process.send_signal(number)
        _, stderr = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert stderr == b""
    processes.until_gone(remote)


def test_sshd_is_served_as_well(key, io):
    with peers.sshd(["RekeyLimit 1M"], authorized_keys=[key.public]) as server:
        data = os.urandom(1 << 20) * 8
        ran = ours.execute(server, "cat; echo oops >&2; exit 7", key=key, stdin=data, options=io)
        assert (ran.returncode, hashlib.sha256(ran.stdout).digest()) == (7, hashlib.sha256(data).digest())
        assert ours.execute(server, "kill -KILL $$", key=key, options=io).returncode == 128 + signal.SIGKILL


# ----------------------------------------------------------------------------------------------- exec: its own failures


def test_nobody_listens(key, home, io):
    argv = [*ours.PROGRAM, "exec", *io, "-p", str(peers.free_port()), "--insecure-accept-any", HOST, "true"]
    ran = peers.run(argv, environment(home))
    assert ran.returncode == 255
    assert f"cannot connect to {HOST} port " in one_line(ran.stderr)
    assert re.search("Connection refused|Connect call failed", one_line(ran.stderr))  # the latter is asyncio's


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--kex", "foo"], "--kex: unknown algorithm 'foo'; known are curve25519-sha256"),
        (["--cipher", ""], "--cipher: unknown algorithm ''"),
        (["-p", "0"], "not a port number"),
        (["-i", "/nonexistent"], "private key /nonexistent: No such file or directory"),
        (["--insecure-accept-any", "--known-hosts", "x"], "exclude each other"),
        (["--insecure-accept-any", "--accept-new"], "not allowed with"),
    ],
)
def test_options_that_make_no_sense(server, key, options, says):
    ran = ours.execute(server, "true", key=key, options=options)
    assert ran.returncode == 255
    assert says in one_line(ran.stderr)


def test_a_key_file_that_is_none(server):
    ran = ours.execute(server, "true", options=["-i", "/dev/null"])
    assert ran.returncode == 255
    assert "private key /dev/null: " in one_line(ran.stderr)


def test_no_command(server, key):
    ran = ours.execute(server, key=key)
    assert ran.returncode == 255
    assert "no command" in one_line(ran.stderr)


def test_options_behind_the_host(server, key):
    ran = ours.execute(server, "-v", "true", key=key)
    assert ran.returncode == 255
    assert "options stand before the host" in one_line(ran.stderr)
    assert "sshproto" not in ours.execute(server, "--", "-v", key=key).stderr.decode()  # the shell's own words


def test_main_returns_the_status(capsys):
    assert command.main(["exec"]) == 255
    assert command.main(["serve"]) == 2
    assert command.main(["nonsense"]) == 2
    assert command.main(["--help"]) == 0
    assert command.main(["--version"]) == 0
    assert "sshproto 0" in capsys.readouterr().out


def test_the_command_without_a_script():
    run = [sys.executable, "-m", "sshproto_cli"]
    done = subprocess.run([*run, "--version"], capture_output=True, text=True, env={"PYTHONPATH": CODE}, check=True)
    assert done.stdout.startswith("sshproto 0")
    done = subprocess.run([*run, "exec"], capture_output=True, text=True, env={"PYTHONPATH": CODE}, check=False)
    assert done.returncode == 255
    assert done.stderr.endswith("(see sshproto exec --help)\n")


@pytest.mark.parametrize("verb", ["exec", "shell", "forward"])
def test_help_imports_no_protocol(verb):
    code = f"import sys; from sshproto_cli.main import main; main(['{verb}', '--help']); print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": CODE}, check=True
    )
    assert f"'sshproto_cli.{verb}'" in done.stdout
    assert "'sshproto'" not in done.stdout
    assert "'attr'" not in done.stdout


# ------------------------------------------------------------------------------------------------------ exec: host keys


@pytest.mark.covers("V08")
def test_an_unknown_host_is_refused_without_a_terminal(server, key, home, io):
    argv = arguments(server, home, key, *io)
    (home / "known_hosts").write_text("")
    ran = peers.run([*argv, "true"], environment(home))
    assert ran.returncode == 255
    assert "is not known" in one_line(ran.stderr)
    assert (home / "known_hosts").read_text() == ""


def test_new_hosts_can_be_remembered(server, key, home, io):
    argv = arguments(server, home, key, *io)
    at = argv.index("--known-hosts")
    argv[at : at + 2] = ["--accept-new"]
    path = home / ".ssh" / "known_hosts"
    ran = peers.run([*argv, "echo x"], environment(home))
    assert (ran.returncode, ran.stdout) == (0, b"x\n")
    assert "remembered" in one_line(ran.stderr)
    assert path.read_text() == server.known_hosts
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    ran = peers.run([*argv, "echo x"], environment(home))
    assert ran == peers.Ran(0, b"x\n", b"")


def test_no_directories_are_made_for_other_files(server, key, home):
    argv = arguments(server, home, key, "--accept-new")
    argv[argv.index("--known-hosts") + 1] = str(home / "new" / "known_hosts")
    ran = peers.run([*argv, "echo x"], environment(home))
    assert (ran.returncode, ran.stdout) == (0, b"x\n")
    assert f"cannot be remembered: {home}/new/known_hosts: No such file or directory" in one_line(ran.stderr)
    assert not (home / "new").exists()
    argv[argv.index("--known-hosts") : argv.index("--known-hosts") + 2] = []
    ran = peers.run([*argv, "echo x"], environment(home, HOME=str(home / "gone")))
    assert "cannot be remembered" in one_line(ran.stderr)
    assert not (home / "gone").exists()


@pytest.mark.covers("V08")
@pytest.mark.parametrize("option", [[], ["--accept-new"]])
def test_a_changed_host_is_refused_with_file_and_line(server, key, home, option):
    argv = arguments(server, home, key)
    argv[-1:-1] = option
    (home / "known_hosts").write_text(f"# mine\n[{HOST}]:{server.port} {key.public}\n")
    ran = peers.run([*argv, "true"], environment(home))
    assert ran.returncode == 255
    said = ran.stderr.decode()
    assert all(line.startswith("sshproto: ") for line in said.splitlines())
    assert f"has CHANGED: {home}/known_hosts line 2 has another ssh-ed25519 key" in said.splitlines()[-1]
    for fingerprint in (key.fingerprint, peers.fingerprint(server.host_keys[0])):
        assert fingerprint in said
    assert "a man in the middle" in said
    [advice] = re.findall(r"forget the host, and connect again: (sshproto .*)", said)
    assert shlex.split(advice)[1:] == [
        "known-hosts",
        "remove",
        "--file",
        f"{home}/known_hosts",
        f"[{HOST}]:{server.port}",
    ]


def test_a_host_known_by_another_type_of_key_is_not_new(server, key, home):
    argv = arguments(server, home, key, "--accept-new")
    other = peers.make_key(home, "nistp256")
    (home / "known_hosts").write_text(f"[{HOST}]:{server.port} {other.public}\n")
    ran = peers.run([*argv, "true"], environment(home))
    assert ran.returncode == 255
    said = ran.stderr.decode()
    assert f"another type of key (ecdsa-sha2-nistp256, {home}/known_hosts line 1)" in said.splitlines()[-1]
    assert "sshproto known-hosts remove" in said


def test_a_known_type_of_key_is_asked_for_first(key, home):
    with ours.serve(authorized_keys=[key.public], host_keys=("ed25519", "nistp256", "rsa")) as server:
        argv = arguments(server, home, key)
        for public in server.host_keys:
            (home / "known_hosts").write_text(f"[{HOST}]:{server.port} {public}\n")
            assert peers.run([*argv, "true"], environment(home)) == peers.Ran(0, b"", b"")


def test_the_order_of_lines_does_not_matter(tmp_path):
    rsa, ed25519 = (PrivateKey.generate(kind).public_key for kind in ("ssh-rsa", "ssh-ed25519"))
    path = tmp_path / "known_hosts"
    for keys in ((rsa, ed25519), (ed25519, rsa)):
        path.write_text("".join(f"h {key.openssh()}\n" for key in keys))
        policy = HostPolicy("h", 22, [path], Unknown.ASK, Terminal())
        first = ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")
        assert policy.order(SIGNATURE_DEFAULT)[:3] == first
        assert sorted(policy.order(SIGNATURE_DEFAULT)) == sorted(SIGNATURE_DEFAULT)
        assert policy.order(("ecdsa-sha2-nistp256", "rsa-sha2-256", "ssh-ed25519"))[:2] == first[:0:-2] + first[:1]


def test_lines_are_appended_whole(tmp_path):
    path = tmp_path / "known_hosts"
    path.write_text("no line feed")
    threads = [threading.Thread(target=append_line, args=(path, f"line {number}\n")) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_text().split("\n")
    assert lines[0] == "no line feed"
    assert sorted(lines[1:]) == sorted(["", *(f"line {number}" for number in range(20))])


# ---------------------------------------------------------------------------------------------------------- exec: login


def test_a_password_from_the_environment(server, key, io):
    assert ours.execute(server, "echo x", password=ours.PASSWORD, options=io) == peers.Ran(0, b"x\n", b"")


def test_a_wrong_password(server, io):
    ran = ours.execute(server, "echo x", password="wrong", options=io)
    assert ran.returncode == 255
    assert re.search(r"login as \w+ failed.*tried: none, password, keyboard-interactive", one_line(ran.stderr))


def test_no_password_and_nobody_to_ask(server, io):
    ran = ours.execute(server, "echo x", options=io)
    assert ran.returncode == 255
    assert "SSHPROTO_PASSWORD" in one_line(ran.stderr)


def test_an_encrypted_key(server, key, locked, home, io):
    argv = arguments(server, home, Key(locked, key.public), *io)
    ran = peers.run([*argv, "echo x"], environment(home, SSHPROTO_KEY_PASSPHRASE=PASSPHRASE))
    assert ran == peers.Ran(0, b"x\n", b"")
    ran = peers.run([*argv, "echo x"], environment(home, SSHPROTO_KEY_PASSPHRASE="wrong"))
    assert ran.returncode == 255
    assert b"the passphrase in SSHPROTO_KEY_PASSPHRASE is wrong" in ran.stderr


def test_default_identities(server, key, home):
    argv = arguments(server, home, None)
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "id_ecdsa").write_bytes(peers.make_key(home, "nistp256").path.read_bytes())
    (home / ".ssh" / "id_rsa").write_bytes(key.path.read_bytes())
    (home / ".ssh" / "id_ed25519").write_text("rubbish")
    for name in ("id_ecdsa", "id_rsa"):
        (home / ".ssh" / name).chmod(0o600)
    assert peers.run([*argv, "echo x"], environment(home)) == peers.Ran(0, b"x\n", b"")
    (home / ".ssh" / "id_rsa").chmod(0o640)
    ran = peers.run([*argv, "echo x"], environment(home))
    assert (ran.returncode, ran.stdout) == (0, b"x\n")
    assert f"{home}/.ssh/id_rsa: others than its owner" in one_line(ran.stderr)


def test_a_passphrase_and_nobody_to_ask(server, key, locked, home):
    ran = peers.run([*arguments(server, home, Key(locked, key.public)), "true"], environment(home))
    assert ran.returncode == 255
    line = one_line(ran.stderr)
    assert f"no terminal to ask for the passphrase of {locked}; SSHPROTO_KEY_PASSPHRASE may hold it" in line
    assert "SSHPROTO_PASSWORD" in line


def test_a_passphrase_is_not_asked_for_in_vain(locked, monkeypatch):
    class Nobody(Terminal):
        def ask(self, text, *, echo=False):
            pytest.fail("asked for a passphrase that is of no use")

    monkeypatch.setitem(sys.modules, "bcrypt", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Failure, match=r"pip install 'sshproto\[encrypted-keys\]'") as raised:
        unlock(locked.read_bytes(), str(locked), Nobody())
    assert str(locked) in str(raised.value)
    with pytest.raises(Failure, match="encrypted-keys"):
        Login("u", "h", [locked], Nobody(), required=True)._load(locked)


def test_no_empty_answers_without_a_terminal(monkeypatch):
    class Nobody(Terminal):
        present = False

        def ask(self, text, *, echo=False):
            return None

    class Connection:
        given_up = 0

        def give_up(self, question):
            self.given_up += 1

    monkeypatch.setenv("SSHPROTO_PASSWORD", "x")
    login, conn = Login("u", "h", [], Nobody()), Connection()
    question = PromptsReceived(id=1, name="", instruction="", prompts=(Prompt(text="Token: ", echo=True),))
    login(conn, question)  # an answer would be an AttributeError
    assert conn.given_up == 1
    assert "'Token:'" in login.hints[0]


@pytest.mark.covers("R169")
def test_events_are_shown_and_secrets_are_not(server, key, home, io):
    ran = ours.execute(server, "cat", password=ours.PASSWORD, options=[*io, "-v"], stdin=b"hush")
    said = ran.stderr.decode()
    assert ran.stdout == b"hush"
    assert "KeysExchanged" in said
    assert "AuthSucceeded method=password" in said
    assert "DataReceived channel=0 data=<4 bytes>" in said
    assert "hush" not in said
    assert re.search(r"host_key=ssh-ed25519 SHA256:[\w+/]{43}( |$)", said, re.MULTILINE)
    assert re.search(r"session_id=[0-9a-f]{16}…", said)
    assert re.search(r"closed by this side$", said, re.MULTILINE)
    assert "PublicKey" not in said
    assert ours.PASSWORD not in said


def test_host_keys_are_shown_by_their_fingerprints(capsys):
    keys = [PrivateKey.generate(kind).public_key for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256")]
    request = HostKeysAnnounced((*(key.blob for key in keys), b"rubbish"))
    reporter("x: ")(GlobalRequested(id=1, request=request, want_reply=False))
    reporter()(ConnectionLost(LocalClose("")))
    reporter()(PongReceived(bytes(17)))
    first, second, third = capsys.readouterr().err.splitlines()
    shown = ", ".join(f"{key.type} {key.fingerprint()}" for key in keys)
    assert first.startswith(f"x: GlobalRequested id=1 request=HostKeysAnnounced(keys=[{shown}, no key SHA256:")
    assert second == "ConnectionLost error=closed by this side"
    assert third == "PongReceived data=<17 bytes>"


# -------------------------------------------------------------------------------------------------------- on a terminal


def converse(argv: Sequence[str], env: dict[str, str], script: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Run a program on a terminal of its own; type each answer when its prompt has come.

    Returns:
        The exit status, and all that stood on the terminal.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(argv[0], list(argv), env)
    seen, fresh, todo = "", "", list(script)
    end = time.monotonic() + 30
    try:
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 0.5)[0]:
                continue
            try:
                data = os.read(terminal, 4096).decode()
            except OSError:  # the other side is closed
                break
            seen += data
            fresh += data
            if todo and todo[0][0] in fresh:
                fresh = ""
                time.sleep(0.1)  # the prompt is followed by a switch of modes, at times
                os.write(terminal, todo.pop(0)[1].encode())
        else:
            os.kill(pid, signal.SIGKILL)
            pytest.fail(f"it hangs after {seen!r}", pytrace=False)
    finally:
        os.close(terminal)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert not todo, f"never asked: {todo[0][0]!r} in {seen!r}"
    return status, seen


def test_questions_on_the_terminal(server, home, io):
    argv = [*arguments(server, home, None, *io), "echo so; exit 6"]
    (home / "known_hosts").write_text("")
    script = [
        ("(yes/no)? ", "perhaps\n"),
        ("type 'yes' or 'no'", "yes\n"),
        ("Password: ", "wrong\n"),
        ("Password: ", ours.PASSWORD + "\n"),
    ]
    status, seen = converse(argv, environment(home), script)
    assert status == 6
    assert "so\r\n" in seen
    assert seen.count("please try again") == 1
    assert ours.PASSWORD not in seen
    known = parse((home / "known_hosts").read_text())
    assert known.lookup(HOST, server.port, PublicKey.parse(server.host_keys[0])).trust is Trust.MATCH


def test_no_is_no(server, home, io):
    argv = [*arguments(server, home, None, *io), "true"]
    (home / "known_hosts").write_text("")
    status, seen = converse(argv, environment(home), [("(yes/no)? ", "no\n")])
    assert status == 255
    assert "was not accepted" in seen
    assert (home / "known_hosts").read_text() == ""


def test_an_interrupt_at_a_prompt(server, home, io):
    status, _ = converse([*arguments(server, home, None, *io), "true"], environment(home), [("Password: ", "\x03")])
    assert status == 130


def test_a_passphrase_on_the_terminal(server, key, locked, home, io):
    argv = [*arguments(server, home, Key(locked, key.public), *io), "echo so"]
    script = [("Passphrase", "wrong\n"), ("Passphrase", PASSPHRASE + "\n")]
    status, seen = converse(argv, environment(home), script)
    assert status == 0
    assert "so\r\n" in seen
    assert PASSPHRASE not in seen


def test_input_from_a_terminal(server, key, home, io):
    argv = [*arguments(server, home, key, *io), "echo go; cat; echo end"]
    status, seen = converse(argv, environment(home), [("go\r\n", "typed\n"), ("typed\r\ntyped\r\n", "\x04")])
    assert (status, seen) == (0, "go\r\ntyped\r\ntyped\r\nend\r\n")


# ---------------------------------------------------------------------------------------------------------------- serve


def serve_fails(home: Path, *options: str) -> str:
    ran = peers.run([*ours.PROGRAM, "serve", *options], environment(home))
    assert ran.returncode == 1
    assert ran.stdout == b""
    return one_line(ran.stderr)


def test_serving_needs_all_it_needs(home, key, locked, server):
    keys = str(home / "keys")
    Path(keys).write_text(key.public + "\n")
    common = ("--authorized-keys", keys)
    host_key = ("--host-key", str(key.path))
    listen = ("--listen", f"{HOST}:0")
    assert "nobody could log in" in serve_fails(home, *listen, *host_key)
    assert "No such file" in serve_fails(home, *listen, *host_key, "--authorized-keys", "/nonexistent")
    assert "No such file" in serve_fails(home, *listen, *common, "--host-key", "/nonexistent")
    assert "public key" in serve_fails(home, *listen, *common, "--host-key", f"{key.path}.pub")
    assert "no passphrase" in serve_fails(home, *listen, *common, "--host-key", str(locked))
    assert "another key of type" in serve_fails(home, *listen, *common, *host_key, *host_key)
    assert "unknown algorithm" in serve_fails(home, *listen, *common, *host_key, "--mac", "crc32")
    assert "in brackets" in serve_fails(home, "--listen", "::1:0", *common, *host_key)
    assert "HOST:PORT" in serve_fails(home, "--listen", "22", *common, *host_key)
    assert serve_fails(home, "--listen", f"{HOST}:{server.port}", *common, *host_key).endswith("Address already in use")
    assert "no client could connect" in serve_fails(home, *listen, *common, *host_key, "--host-key-alg", "rsa-sha2-256")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_stops_cleanly(home, key, number):
    (home / "keys").write_text(key.public + "\n")
    argv = [*ours.PROGRAM, "serve", "--listen", f"{HOST}:0", "--host-key", str(key.path), "--exec"]
    argv += ["--authorized-keys", str(home / "keys")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(home)) as process:
        assert process.stdout is not None
        found = re.fullmatch(rb"listening on 127\.0\.0\.1:(\d+)\n", process.stdout.readline())
        assert found
        server = Server(port=int(found[1]), user="x", host_keys=(key.public,))
        client = [*arguments(server, home, key), "echo up; exec sleep 100"]
        with subprocess.Popen(client, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(home)) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"up\n"
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=20)
            assert (process.returncode, stdout, stderr) == (0, b"", b"")
            _, said = running.communicate(timeout=20)
            assert running.returncode == 255
            assert "the server is stopping" in one_line(said)


@pytest.mark.covers("V64")
def test_without_exec_nothing_is_run(home, key):
    (home / "keys").write_text(key.public + "\n")
    argv = [*ours.PROGRAM, "serve", "--listen", f"{HOST}:0", "--host-key", str(key.path)]
    argv += ["--authorized-keys", str(home / "keys")]
    with peers.listening(argv, home / "log", "listening on ", environment(home)):
        port = int((home / "log").read_text().rpartition(":")[2])
        ran = ours.execute(Server(port=port, user="x", host_keys=(key.public,)), "echo x", key=key)
    assert (ran.returncode, ran.stdout) == (255, b"")
    assert "refused to run the command" in one_line(ran.stderr)


@pytest.mark.covers("V51")
def test_restricted_keys_are_refused(home, key):
    lines = [f'frob="true" {key.public}', "ssh-dss AAAA", "# a remark", peers.make_key(home, "nistp256").public]
    with ours.serve(["-v"], authorized_keys=lines) as server:
        ran = ours.execute(server, "echo x", key=key)
        assert (ran.returncode, ran.stdout) == (255, b"")
        assert "authorized_keys:1: this line is not used: option frob is not known" in server.log
        assert "authorized_keys:2: this line is not used: " in server.log
        assert "authorized_keys:3" not in server.log
        assert "authorized_keys:4" not in server.log
        assert re.search(r"login as \w+ refused: ssh-ed25519 SHA256:\S+: no line has it", server.log)


def test_refused_logins_are_told_with_their_reason(key, home):
    other = peers.make_key(home, "nistp256")
    with ours.serve(["-v"], authorized_keys=[key.public], password=True) as server:
        assert ours.execute(server, "true", key=other, password="guess-1").returncode == 255
        assert re.search(r"refused: ecdsa-sha2-nistp256 SHA256:\S+: no line has it", server.log)
        assert re.search(r"refused: wrong password", server.log)
        assert "guess-1" not in server.log


@pytest.mark.parametrize("content", ["", "# nobody\n", "ssh-dss AAAA\n"])
def test_serving_nobody_makes_no_sense(home, key, content):
    (home / "keys").write_text(content)
    options = ("--listen", f"{HOST}:0", "--host-key", str(key.path), "--authorized-keys", str(home / "keys"))
    ran = peers.run([*ours.PROGRAM, "serve", *options], environment(home))
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert f"nobody could log in: there is no line in {home}/keys" in ran.stderr.decode().splitlines()[-1]


def test_output_that_cannot_be_written(home, key):
    (home / "keys").write_text(key.public + "\n")
    serve = ["serve", "--listen", f"{HOST}:0", "--host-key", str(key.path), "--authorized-keys", str(home / "keys")]
    for words, redirection, says in (
        (["demo"], ">/dev/full", "standard output: No space left on device"),
        (["demo"], ">&-", "standard output is closed"),
        (["demo", "--json"], ">/dev/full", "standard output: No space left on device"),
        (serve, ">/dev/full", "standard output: No space left on device"),
    ):
        ran = peers.run(["sh", "-c", f"{' '.join([*ours.PROGRAM, *words])} {redirection}"], environment(home))
        lines = ran.stderr.decode().splitlines()
        assert (ran.returncode, len(lines)) == (1, 1), lines
        assert says in lines[0]


def test_passwords_in_a_file(tmp_path, capsys):
    path = tmp_path / "passwords"
    path.touch(mode=0o600)
    path.write_text("# people\nalice:with : colon\n\nbob:tschüß\n")
    assert read_passwords(str(path)) == {"alice": "with : colon", "bob": "tschüß"}
    assert capsys.readouterr().err == ""
    path.chmod(0o640)
    read_passwords(str(path))
    assert "chmod 600" in capsys.readouterr().err
    for wrong in ("secret", ":secret", "secret:", "a:secret\na:other"):
        path.write_text(wrong)
        with pytest.raises(Exception, match=r"line \d: ") as raised:
            read_passwords(str(path))
        assert "secret" not in str(raised.value)


@pytest.mark.covers("V60", "V41")
def test_the_gate(key):
    gate = Gate(KeyFiles(), {"alice": "a", "bob": "b"})
    assert gate.against_password("alice", "a") == ""
    assert gate.against_password("alice", "b") == "wrong password"
    assert gate.against_password("carol", "a")
    assert gate.against_password("carol", "")
    with pytest.raises(LoginRefused, match="keys are not wanted"):
        gate.by_key(PublicKey.parse(key.public), "alice", None)


# ---------------------------------------------------------------------------------------------- serve: OpenSSH's client


def test_ssh_runs_commands(server, key):
    data = os.urandom(1 << 20) * 8
    ran = peers.ssh(server, "cat; echo oops >&2; exit 7", key=key, stdin=data, options=["-oRekeyLimit=1M"])
    assert (ran.returncode, ran.stderr) == (7, b"oops\n")
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_ssh_logs_in_with_passwords(server, method):
    option = [f"-oPreferredAuthentications={method}"]
    assert peers.ssh(server, "echo x", password=ours.PASSWORD, options=option).stdout == b"x\n"
    assert peers.ssh(server, "echo x", password="wrong", options=option).returncode == 255


def test_ssh_gets_a_terminal(server, key):
    ran = peers.ssh(server, "tty; stty -a; echo $TERM; exit 5", key=key, options=["-tt"])
    assert ran.returncode == 5
    assert ran.stdout.startswith(b"/dev/")
    assert b"intr = ^C" in ran.stdout


def test_ssh_gets_a_login_shell(server, key):
    ran = peers.ssh(server, key=key, stdin=b"echo $0; tty; exit 4\n", options=["-tt"])
    assert ran.returncode == 4
    assert re.search(rb"^-\w+\r", ran.stdout, re.MULTILINE)
    assert b"/dev/" in ran.stdout
    ran = peers.ssh(server, key=key, stdin=b"echo $0; exit 4\n")
    assert ran.returncode == 4
    assert ran.stdout.startswith(b"-")


@pytest.mark.covers("V76")
def test_ssh_may_set_the_locale_and_nothing_else(server, key):
    options = ["-oSetEnv=LC_X=1 LD_PRELOAD=2 PATH=3"]
    ran = peers.ssh(server, 'echo "$LC_X:$LD_PRELOAD"; echo "$SSHPROTO_PASSWORD"; which env', key=key, options=options)
    assert ran.stdout.startswith(b"1:\n\n/")


def test_ssh_is_refused_what_there_is_not(server, key):
    ran = peers.ssh(server, "sftp", key=key, options=["-s"])
    assert ran.returncode == 255
    assert b"subsystem request failed" in ran.stderr
    ran = peers.ssh(server, key=key, options=["-W", "127.0.0.1:9"])
    assert ran.returncode == 255
    assert b"administratively prohibited" in ran.stderr


@pytest.mark.parametrize("options", [[], ["-tt"]])
def test_killed_clients_leave_nothing_behind(server, key, home, options):
    argv = [peers.need("ssh"), *options, *peers.ssh_options(server, home, key), "-oBatchMode=yes", HOST]
    argv.append("echo $$; while :; do sleep 1; done")
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(home)
    ) as process:
        assert process.stdout is not None
        remote = int(process.stdout.readline())
        process.kill()
    processes.until_gone(remote)


def test_twenty_clients_at_once(server, key):
    done: list[tuple[int, peers.Ran]] = []

    def one(number: int) -> None:
        done.append((number, peers.ssh(server, f"head -c 100000 /dev/zero; exit {number}", key=key)))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 20
    for number, ran in done:
        assert (ran.returncode, len(ran.stdout)) == (number, 100_000)


def test_a_terminal_obeys_its_client(server, key, home):
    """Size changes, signals and breaks: asyncssh sends them."""
    asyncssh = peers.need_module("asyncssh")
    import asyncio

    async def talk() -> list[object]:
        said: list[object] = []
        async with asyncssh.connect(**peers.asyncssh_options(server, key=key)) as connection:
            process = await connection.create_process(
                "trap 'stty size; exit 9' WINCH; stty size; echo $TERM; while :; do sleep 0.1; done",
                term_type="vt100",
                term_size=(90, 30),
            )
            said += [(await process.stdout.readline()).strip(), (await process.stdout.readline()).strip()]
            process.change_terminal_size(101, 41)
            ended = await process.wait()
            said += [ended.stdout.strip(), ended.exit_status]
            process = await connection.create_process("echo up; exec sleep 100")
            await process.stdout.readline()
            process.send_break(100)
            process.send_signal("NONSENSE")
            process.send_signal("USR1")
            said.append((await process.wait()).exit_signal[0])
            # What runs on in the background holds the terminal, but not the session.
            ended = await connection.run("seq 1 20000; sleep 20 & exit 2", term_type="vt100")
            said += [len(ended.stdout.split()), ended.exit_status]
        return said

    said = asyncio.run(asyncio.wait_for(talk(), 30))
    assert said == ["30 90", "vt100", "41 101", 9, "USR1", 20_000, 2]


def test_a_slow_client_does_not_fill_the_server(server, key, home):
    if not processes.TOLD:
        pytest.skip("needs /proc")
    pid, *_ = processes.writing_to(server.log_file, b"serve")
    argv = [peers.need("ssh"), *peers.ssh_options(server, home, key), "-oBatchMode=yes", HOST, "cat /dev/zero"]
    before = processes.memory(pid)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment(home)) as process:
        time.sleep(1.5)
        after = processes.memory(pid)
        process.kill()
    assert after - before < 16 * 1024
