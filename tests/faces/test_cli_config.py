"""``sshproto exec``, ``shell`` and ``forward`` obey a person's ssh_config file, under every face."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshproto.keys.private import PrivateKey
from sshproto_cli.options import FACES
from tests.support import ours, peers, places, processes
from tests.support.console import console
from tests.support.peers import HOST, Key, Server


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with peers.scratch() as directory:
        yield peers.make_key(directory)


@pytest.fixture(scope="module")
def server(key: Key) -> Iterator[Server]:
    with ours.serve(["--forward", "-v"], authorized_keys=[key.public], password=True) as found:
        yield found


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        (directory / ".ssh").mkdir(mode=0o700)
        yield directory


@pytest.fixture(params=FACES)
def io(request: pytest.FixtureRequest) -> list[str]:
    """Options that choose a face."""
    return ["--io", request.param]


@pytest.fixture
def some(request: pytest.FixtureRequest) -> list[str]:
    """Options that choose one of the faces: another for each test that asks."""
    return ["--io", FACES[len(request.node.name) % len(FACES)]]


def configure(home: Path, server: Server, key: Key | None, text: str = "") -> None:
    """Write ``~/.ssh/config`` with a host ``box`` that is the server, and what else is wanted before it."""
    (home / ".ssh" / "known_hosts").write_text(server.known_hosts)
    identity = f"IdentityFile {key.path}" if key else "IdentityFile none"
    box = f"Host box\nHostName {HOST}\nPort {server.port}\nUser {server.user}\n{identity}\n"
    (home / ".ssh" / "config").write_text(f"{text}\n{box}")


def run(home: Path, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> peers.Ran:
    return ours.run(words, ours._environment(home, **{"SSHPROTO_CONFIG": "", **(env or {})}), stdin)


def said(ran: peers.Ran) -> str:
    return ran.stderr.decode()


# ------------------------------------------------------------------------------------------------------ where, and who


def test_a_name_is_all_that_is_needed(server: Server, home: Path, key: Key, io: list[str]) -> None:
    configure(home, server, key)
    ran = run(home, "exec", *io, "box", "echo $((6*7))")
    assert (ran.returncode, ran.stdout) == (0, b"42\n"), said(ran)


def test_options_win(server: Server, home: Path, key: Key) -> None:
    configure(home, server, key, "Host box\nPort 1\nUser nobody\nIdentityFile /nowhere\nUserKnownHostsFile /nowhere")
    words = ["-p", str(server.port), "-l", server.user, "--known-hosts", str(home / ".ssh/known_hosts")]
    ran = run(home, "exec", *words, "-i", str(key.path), "box", "echo x")
    assert (ran.returncode, ran.stdout) == (0, b"x\n"), said(ran)
    lines = (f"-oPort={server.port}", f"-oUser={server.user}", f"-oUserKnownHostsFile={home}/.ssh/known_hosts")
    assert run(home, "exec", *lines, "-i", str(key.path), "box", "echo x").stdout == b"x\n"


def test_another_file_or_none(server: Server, home: Path, key: Key) -> None:
    configure(home, server, key, "Nonsense")
    ran = run(home, "exec", "box", "true")
    assert ran.returncode == 255
    assert f"{home}/.ssh/config line 1: no argument after keyword" in said(ran)
    good = home / "good"
    good.write_text("Include nothing*\nInclude ours\n")
    (home / ".ssh" / "ours").write_text((home / ".ssh" / "config").read_text().removeprefix("Nonsense"))
    for where in (["-F", str(good)], []):
        more = {} if where else {"SSHPROTO_CONFIG": str(good)}
        assert run(home, "exec", *where, "box", "echo x", env=more).stdout == b"x\n"
    ran = run(home, "exec", "-F", "none", "-oConnectTimeout=1", "box", "true")
    assert ran.returncode == 255
    assert "box" in said(ran)
    assert "Nonsense" not in said(ran)
    assert "/nowhere" in said(run(home, "exec", "-F", "/nowhere", "box", "true"))


def test_all_that_is_wrong_is_told_with_its_place(home: Path) -> None:
    (home / "bad").write_text("Port x\nHost *\n  Ciphers nosuch\n  Nonsense yes\n")
    ran = run(home, "config", "-F", str(home / "bad"), "box")
    assert ran.returncode == 255
    lines = said(ran).splitlines()
    assert [re.findall(r"bad line (\d+): ", line) for line in lines] == [["1"], ["3"], ["4"]]


def test_a_file_that_others_may_write_is_not_obeyed(server: Server, home: Path, key: Key) -> None:
    configure(home, server, key)
    (home / ".ssh" / "config").chmod(0o666)
    ran = run(home, "exec", "box", "true")
    assert ran.returncode == 255
    assert "bad owner or permissions" in said(ran)


def test_commands_of_match_are_run(server: Server, home: Path, key: Key) -> None:
    configure(home, server, key, 'Match exec "test %n = box"\nRemoteCommand echo yes %p\nMatch all')
    assert run(home, "exec", "box").stdout == f"yes {server.port}\n".encode()


def test_names_that_a_shell_would_not_take_for_names(home: Path) -> None:
    for name in ("$(touch x)", "-oProxyCommand=x", "a;b", "`x`"):
        ran = run(home, "exec", "-oProxyCommand=echo %h", "--", name, "true")
        assert ran.returncode == 255
        assert "not a host" in said(ran)
    (home / "config").write_text(f'Match exec "echo %r > {home}/made"\nPort 99\n')
    for name in ("$(touch x)", "-x", "a;b", "`x`", "a\ntouch x", "a\rb", "a -oProxyCommand=x", "a\t-x", "a\\"):
        ran = run(home, "exec", "-F", str(home / "config"), f"-l{name}", "box", "true")
        assert ran.returncode == 255
        assert "not a user" in said(ran), name
    assert not (home / "made").exists()
    ran = run(home, "exec", "-F", "none", "-J", "ssh://a%0Atouch@gate", "box", "true")
    assert "not a user" in said(ran)


def test_the_configuration_is_shown(server: Server, home: Path, key: Key) -> None:
    configure(home, server, key, "Host box\nControlMaster auto\nRSAAuthentication yes")
    ran = run(home, "config", "-p", "99", "box")
    lines = ran.stdout.decode().splitlines()
    assert {f"hostname {HOST}", "port 99", f"user {server.user}", f"identityfile {key.path}"} <= set(lines)
    assert re.search(r"this has no effect here: .*\bControlMaster\b", said(ran))
    assert "line 3: RSAAuthentication has no meaning any more" in said(ran)


# ------------------------------------------------------------------------------------------------------- by which way


def test_a_way_through_another_host_with_a_configuration_of_its_own(
    server: Server, home: Path, key: Key, io: list[str]
) -> None:
    gate = f"Host gate\nHostName localhost\nPort {server.port}\nUser {server.user}\nIdentityFile {key.path}"
    configure(home, server, key, f"Host box\nProxyJump gate\n{gate}\nStrictHostKeyChecking accept-new")
    before = server.log.count("AuthSucceeded") + server.log.count("Authenticated")
    assert run(home, "exec", *io, "box", "echo x").stdout == b"x\n"
    assert server.log.count("AuthSucceeded") + server.log.count("Authenticated") >= before + 2
    assert run(home, "exec", *io, "-J", "none", "box", "echo x").stdout == b"x\n"


def test_hosts_of_a_way_may_have_the_same_address(server: Server, home: Path, key: Key, some: list[str]) -> None:
    inner = f"HostName {HOST}\nPort {server.port}\nUser {server.user}\nIdentityFile {key.path}\nProxyJump box"
    configure(home, server, key, f"Host inner\n{inner}")  # as localhost here isn't localhost there
    ran = run(home, "exec", *some, "inner", "echo x")
    assert (ran.returncode, ran.stdout) == (0, b"x\n"), said(ran)


def test_ways_that_lead_nowhere(home: Path) -> None:
    for text, says in (
        ("Host a\nProxyJump b\nHost b\nProxyJump a", "goes round in a circle"),
        ("ProxyJump a,,b", "invalid ProxyJump"),
        ("ProxyCommand x\nProxyUseFdpass yes", "ProxyUseFdpass is not supported"),
        ("ProxyCommand -", "ProxyCommand - is not supported"),
        ("Match originalhost h*\nProxyJump h%n", "more than 16 hosts"),
    ):
        (home / "config").write_text(text + "\n")
        ran = run(home, "exec", "-F", str(home / "config"), "h" if "h%n" in text else "a", "true")
        assert ran.returncode == 255
        assert says in said(ran), text


CONNECT = """
import os, socket, sys, threading
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def send():
    for data in iter(lambda: os.read(0, 65536), b""):
        sock.sendall(data)
threading.Thread(target=send, daemon=True).start()
for data in iter(lambda: sock.recv(65536), b""):
    os.write(1, data)
"""


def test_a_command_leads_to_the_host(server: Server, home: Path, key: Key, io: list[str]) -> None:
    script = home / "connect.py"
    told = f"import os, time\nos.close(2)\nopen({str(home / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    script.write_text(f"{told}{CONNECT}time.sleep(100)\n")  # it does not end of itself
    configure(home, server, key, f"Host box\nProxyCommand python3 {script} %h %p # for %r")
    ran = run(home, "exec", *io, "box", "cat", stdin=bytes(300_000))
    assert (ran.returncode, ran.stdout) == (0, bytes(300_000)), said(ran)
    processes.until_gone(int((home / "pid").read_text()))


def test_a_command_that_leads_nowhere(server: Server, home: Path, key: Key, some: list[str]) -> None:
    configure(home, server, key, "Host box\nProxyCommand sh -c 'exit 3'")
    ran = run(home, "exec", *some, "box", "true")
    assert ran.returncode == 255
    assert "ProxyCommand ended with 3" in said(ran)


def test_how_long_and_how_often_to_dial(home: Path, some: list[str]) -> None:
    with socket.create_server((HOST, 0), backlog=0) as full:
        number = full.getsockname()[1]
        with socket.create_connection((HOST, number)), socket.socket() as waiting:
            waiting.setblocking(False)
            waiting.connect_ex((HOST, number))
            began = time.monotonic()
            words = ["-F", "none", "-oConnectTimeout=1", "-oConnectionAttempts=2", "-p", str(number)]
            ran = run(home, "exec", *some, *words, HOST, "true")
            assert ran.returncode == 255
            assert 2.5 < time.monotonic() - began < 20
            assert "timed out" in said(ran)


def test_families_and_addresses_to_connect_from(server: Server, home: Path, key: Key, io: list[str]) -> None:
    configure(home, server, key, "Host box\nHostName localhost\nHostKeyAlias there\nBindAddress 127.0.0.9")
    known = (home / ".ssh" / "known_hosts").read_text()
    (home / ".ssh" / "known_hosts").write_text("there " + known.split(" ", 1)[1])
    ran = run(home, "exec", *io, "-oAddressFamily=inet", "box", "echo $SSH_CLIENT")
    assert ran.returncode == 0, said(ran)
    assert "127.0.0.9 port " in server.log
    ran = run(home, "exec", *io, "-oAddressFamily=inet6", f"-oHostName={HOST}", "box", "true")
    assert ran.returncode == 255


# --------------------------------------------------------------------------------------------------------- host keys


def test_hosts_that_are_not_known(server: Server, home: Path, key: Key) -> None:
    configure(home, server, key, "Host box\nHashKnownHosts yes\nUserKnownHostsFile ~/.ssh/a ~/.ssh/b")
    ran = run(home, "exec", "-oStrictHostKeyChecking=yes", "box", "true")
    assert ran.returncode == 255
    assert "is not known" in said(ran)
    (home / ".ssh" / "b").write_text(server.known_hosts)
    assert run(home, "exec", "-oStrictHostKeyChecking=yes", "box", "echo x").stdout == b"x\n"
    (home / ".ssh" / "b").unlink()
    assert run(home, "exec", "-oStrictHostKeyChecking=accept-new", "box", "echo x").stdout == b"x\n"
    assert (home / ".ssh" / "a").read_text().startswith("|1|")
    assert run(home, "exec", "-oRevokedHostKeys=/nowhere", "box", "true").returncode == 255
    assert run(home, "exec", "-oUserKnownHostsFile=none", "-oBatchMode=yes", "box", "true").returncode == 255
    words = ["-oUserKnownHostsFile=none", "-oNoHostAuthenticationForLocalhost=yes"]
    assert run(home, "exec", *words, "box", "echo x").stdout == b"x\n"


def test_nobody_is_asked_in_a_batch(server: Server, home: Path, key: Key) -> None:
    configure(home, server, None, "Host box\nBatchMode yes")
    ran = run(home, "exec", "box", "true")
    assert ran.returncode == 255
    assert "BatchMode lets nobody be asked for a password" in said(ran)


def test_only_what_is_dialled_here_is_this_machine(server: Server, home: Path, key: Key) -> None:
    script = home / "connect.py"
    script.write_text(CONNECT)
    gate = f"HostName localhost\nPort {server.port}\nUser {server.user}\nIdentityFile {key.path}\n"
    configure(home, server, key, f"Host gate\nHostKeyAlias gate\n{gate}")
    (home / ".ssh" / "known_hosts").write_text("gate " + server.known_hosts.split(" ", 1)[1])
    words = ["-oNoHostAuthenticationForLocalhost=yes", "-oStrictHostKeyChecking=yes"]
    assert run(home, "exec", *words, "box", "echo x").stdout == b"x\n"
    for more in (["-J", "gate"], [f"-oProxyCommand=python3 {script} %h %p"], ["-oHostKeyAlias=other"]):
        ran = run(home, "exec", *words, *more, "box", "echo x")
        assert (ran.returncode, ran.stdout) == (255, b""), more
        assert "is not known" in said(ran)


def test_algorithms(server: Server, home: Path, key: Key) -> None:
    configure(
        home, server, key, "Host box\nCiphers -*ctr,*gcm*\nKexAlgorithms ^sntrup761x25519-sha512,ecdh-sha2-nistp384"
    )
    ran = run(home, "exec", "-v", "box", "true")
    assert "chacha20-poly1305@openssh.com" in said(ran)
    assert "ecdh-sha2-nistp384" in said(ran)
    assert "no such thing here: sntrup761x25519-sha512" in said(ran)
    assert "ecdh-sha2-nistp521" in said(run(home, "exec", "-v", "--kex", "ecdh-sha2-nistp521", "box", "true"))
    ran = run(home, "exec", "-oMACs=umac-64@openssh.com", "box", "true")
    assert ran.returncode == 255
    assert "umac-64@openssh.com" in said(ran)
    assert "zlib" in said(run(home, "exec", "-v", "-oCompression=yes", "box", "true"))
    assert run(home, "exec", "-oCiphers=nosuch", "box", "true").returncode == 255


# ----------------------------------------------------------------------------------------------------------- who we are


@pytest.fixture
def agent(home: Path, key: Key) -> Iterator[str]:
    """A stock agent that has the key."""
    with peers.ssh_agent(home / "agent.sock") as path:
        add = ["ssh-add", "-q", str(key.path)]
        env = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run(add, env=env, check=True, timeout=peers.SECONDS)
        yield str(path)


def listed(agent: str) -> str:
    ran = subprocess.run(
        ["ssh-add", "-L"], env={**os.environ, "SSH_AUTH_SOCK": agent}, check=False, capture_output=True, text=True
    )
    return ran.stdout


def test_keys_of_the_agent(server: Server, home: Path, key: Key, io: list[str], agent: str) -> None:
    configure(home, server, None)
    assert run(home, "exec", *io, "box", "echo x", env={"SSH_AUTH_SOCK": agent}).stdout == b"x\n"
    assert run(home, "exec", *io, f"-oIdentityAgent={agent}", "box", "echo x").stdout == b"x\n"
    assert run(home, "exec", *io, "-oIdentitiesOnly=yes", "box", "true", env={"SSH_AUTH_SOCK": agent}).returncode == 255
    (home / "key.pub").write_text(key.public + "\n")
    words = ["-oIdentitiesOnly=yes", f"-oIdentityFile={home}/key.pub"]
    assert run(home, "exec", *io, *words, "box", "echo x", env={"SSH_AUTH_SOCK": agent}).stdout == b"x\n"
    ran = run(home, "exec", *io, "-oIdentityAgent=none", "box", "true", env={"SSH_AUTH_SOCK": agent})
    assert ran.returncode == 255


def test_keys_are_given_to_the_agent(home: Path, some: list[str], agent: str) -> None:
    other = peers.make_key(home, "nistp256")
    locked = home / "locked"
    locked.touch(mode=0o600)
    locked.write_bytes(PrivateKey.load(other.path.read_bytes()).openssh(b"not a word", rounds=1))
    with ours.serve(authorized_keys=[other.public]) as server:
        configure(home, server, Key(locked, other.public), "Host box\nAddKeysToAgent yes")
        env = {"SSH_AUTH_SOCK": agent, "SSHPROTO_KEY_PASSPHRASE": "not a word"}
        assert run(home, "exec", *some, "box", "echo x", env=env).stdout == b"x\n"
        assert other.public.split()[1] in listed(agent)
        del env["SSHPROTO_KEY_PASSPHRASE"]
        assert run(home, "exec", *some, "box", "echo x", env=env).stdout == b"x\n"


def test_methods(server: Server, home: Path, key: Key) -> None:
    configure(home, server, key)
    password = {"SSHPROTO_PASSWORD": ours.PASSWORD}
    ran = run(home, "exec", "-v", "-oPreferredAuthentications=password", "box", "true", env=password)
    assert "method=password" in said(ran)
    ran = run(home, "exec", "-v", "-oPubkeyAuthentication=no", "box", "true", env=password)
    assert "method=p" in said(ran) or "keyboard" in said(ran)
    assert "method=publickey" not in said(ran)
    none = ["-oPasswordAuthentication=no", "-oKbdInteractiveAuthentication=no", "-oPubkeyAuthentication=no"]
    assert run(home, "exec", *none, "box", "true", env=password).returncode == 255


# --------------------------------------------------------------------------------------------------------- the session


def test_commands_and_variables(server: Server, home: Path, key: Key, some: list[str]) -> None:
    configure(home, server, key, "Host box\nSendEnv LC_A* LC_B\nSetEnv LC_C=%n")
    ran = run(home, "exec", *some, "box", "echo $LC_A1 $LC_B $LC_C", env={"LC_A1": "1", "LC_B": "2"})
    assert ran.stdout == b"1 2 %n\n"
    ran = run(home, "exec", *some, "-oRemoteCommand=echo %r at %h", "box")
    assert ran.stdout == f"{server.user} at {HOST}\n".encode()
    ran = run(home, "exec", *some, "-oRemoteCommand=true", "box", "false")
    assert ran.returncode == 255
    assert "only one can be run" in said(ran)
    assert run(home, "exec", *some, "-oStdinNull=yes", "box", "cat", stdin=b"x").stdout == b""
    assert b"refused" in run(home, "exec", *some, "-oSessionType=subsystem", "box", "sftp").stderr


def test_terminals(server: Server, home: Path, key: Key) -> None:
    configure(home, server, key, "Host box\nEscapeChar ^]")
    env = ours._environment(home, SSHPROTO_CONFIG="")
    with console([*ours.PROGRAM, "exec", "-oRequestTTY=yes", "box", "tty; read x; exit 3"], env) as terminal:
        terminal.expect("/dev/pts")
        terminal.type("\x1d?")
        terminal.expect("lists these|this list|\\^]")
        terminal.type("\r")
        assert terminal.wait() == 3
    with console([*ours.PROGRAM, "shell", "-oRequestTTY=no", "box", "tty"], env) as terminal:
        terminal.expect("not a tty")
        terminal.wait()


def test_forwards_beside_a_session(server: Server, home: Path, key: Key, io: list[str]) -> None:
    local, dynamic = peers.free_port(), peers.free_port()
    with places.site(home) as site:
        configure(
            home, server, key, f"Host box\nLocalForward {local} {HOST}:{site.port}\nDynamicForward {HOST}:{dynamic}"
        )
        env = ours._environment(home, SSHPROTO_CONFIG="")
        argv = [*ours.PROGRAM, "exec", *io, "box", "echo up; read x; exit 5"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"up\n"
                places.browse(places.dial((HOST, local)), 50_000)
                places.browse(places.socks5((HOST, dynamic), HOST, site.port), 50_000)
                process.communicate(b"\n", timeout=peers.SECONDS)
            finally:
                process.kill()
            assert process.returncode == 5
        with socket.create_server((HOST, local)):
            ran = run(home, "exec", *io, f"-oLocalForward={HOST}:{local} a:1", "box", "echo x")
            assert ran.stdout == b"x\n"
            assert "cannot listen" in said(ran)
            ran = run(
                home, "exec", *io, "-oExitOnForwardFailure=yes", f"-oLocalForward={HOST}:{local} a:1", "box", "true"
            )
            assert ran.returncode == 255
            ran = run(home, "exec", *io, "-oClearAllForwardings=yes", "-oExitOnForwardFailure=yes", "box", "echo x")
            assert ran.stdout == b"x\n"


def test_the_forwards_of_a_host(server: Server, home: Path, key: Key) -> None:
    local = peers.free_port()
    with places.site(home) as site:
        configure(home, server, key, f"Host box\nLocalForward {local} {HOST}:{site.port}")
        env = ours._environment(home, SSHPROTO_CONFIG="")
        with subprocess.Popen([*ours.PROGRAM, "forward", "box"], stdout=subprocess.PIPE, env=env) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().startswith(b"forwarding ")
                places.browse(places.dial((HOST, local)), 50_000)
            finally:
                process.terminate()
            assert process.wait(peers.SECONDS) == 0
        argv = [*ours.PROGRAM, "shell", "-oSessionType=none", "box"]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env) as process:
            try:
                for _ in range(100):
                    with contextlib.suppress(OSError):
                        places.browse(places.dial((HOST, local)), 50_000)
                        break
                    time.sleep(0.1)
                else:
                    pytest.fail("it does not forward")
            finally:
                process.terminate()
            assert process.communicate(timeout=peers.SECONDS)[0] == b""
            assert process.returncode == 128 + signal.SIGTERM
    argv = [*ours.PROGRAM, "forward", "-oGatewayPorts=yes", "-D", str(peers.free_port()), "box"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=env) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().decode() for _ in range(2)]
            assert all(re.match(r"forwarding (\*|0\.0\.0\.0|\[?::\]?):", line) for line in lines), lines
        finally:
            process.terminate()
    ran = run(home, "forward", "-oClearAllForwardings=yes", "box")
    assert "nothing to forward" in said(ran)


# ------------------------------------------------------------------------------------- certificates, agents, stock sshd


def certify(authority: Key, public: Path, user: str) -> Path:
    """A certificate beside a public key's file."""
    argv = ["ssh-keygen", "-q", "-s", str(authority.path), "-I", "test", "-n", user, str(public)]
    subprocess.run(argv, check=True, timeout=peers.SECONDS, capture_output=True)
    return public.with_name(public.name.removesuffix(".pub") + "-cert.pub")


def test_certificates(home: Path, some: list[str], agent: str) -> None:
    authority, other = peers.make_key(home, "ed25519", "authority"), peers.make_key(home, "nistp256", "other")
    public = home / "other.pub"
    public.write_text(other.public + "\n")
    env = {"SSH_AUTH_SOCK": agent}
    with ours.serve(["-v"], authorized_keys=[f"cert-authority {authority.public}"]) as server:
        configure(home, server, other)
        assert run(home, "exec", *some, "box", "true").returncode == 255
        beside = certify(authority, public, server.user)
        assert run(home, "exec", *some, "box", "echo x").stdout == b"x\n"
        elsewhere = beside.rename(home / "elsewhere")
        assert run(home, "exec", *some, "box", "true").returncode == 255
        named = f"-oCertificateFile={elsewhere}"
        assert run(home, "exec", *some, named, "box", "echo x").stdout == b"x\n"
        subprocess.run(["ssh-add", "-q", str(other.path)], env={**os.environ, **env}, check=True, timeout=peers.SECONDS)
        other.path.unlink()
        ran = run(home, "exec", *some, named, "box", "echo x", env=env)
        assert ran.stdout == b"x\n", said(ran)
        ran = run(home, "exec", "-v", "-oCertificateFile=/nowhere", "box", "true")
        assert ran.returncode == 255
        assert "certificate /nowhere" in said(ran)


def test_agents_are_forwarded(home: Path, key: Key, some: list[str], agent: str) -> None:
    with ours.serve(["--agent-forwarding"], authorized_keys=[key.public]) as server:
        configure(home, server, key, "Host box\nForwardAgent yes")
        env = {"SSH_AUTH_SOCK": agent}
        ran = run(home, "exec", *some, "box", "ssh-add -L", env=env)
        assert ran.stdout == listed(agent).encode(), said(ran)
        assert run(home, "exec", *some, "-a", "box", "echo -$SSH_AUTH_SOCK-", env=env).stdout == b"--\n"
        ran = run(home, "exec", *some, f"-oForwardAgent={agent}", "box", "ssh-add -L")
        assert ran.stdout == listed(agent).encode(), said(ran)


def test_the_stock_server_by_way_of_the_stock_client(home: Path, key: Key) -> None:
    with peers.sshd(["AcceptEnv LC_*"], authorized_keys=[key.public]) as server:
        plain = f"ssh -F none -i {key.path} -o UserKnownHostsFile={home}/.ssh/known_hosts -l {server.user}"
        configure(home, server, key, f"Host box\nProxyCommand {plain} -p {server.port} -W %h:%p {HOST}\nSetEnv LC_X=y")
        ran = run(home, "exec", "box", "echo $LC_X; cat", stdin=b"z")
        assert (ran.returncode, ran.stdout) == (0, b"y\nz"), said(ran)


def test_keys_of_the_host_are_learned(home: Path, key: Key, some: list[str]) -> None:
    with ours.serve(authorized_keys=[key.public], host_keys=("ed25519", "nistp256")) as server:
        configure(home, server, key)
        known = home / ".ssh" / "known_hosts"
        one = next(line for line in server.known_hosts.splitlines() if "ed25519" in line)
        known.write_text(one + "\n")
        assert run(home, "exec", *some, "-oUpdateHostKeys=no", "box", "sleep 0.5; echo x").stdout == b"x\n"
        assert known.read_text() == one + "\n"
        ran = run(home, "exec", *some, "box", "sleep 1; echo x")
        assert ran.stdout == b"x\n", said(ran)
        assert "ecdsa-sha2-nistp256" in known.read_text()
