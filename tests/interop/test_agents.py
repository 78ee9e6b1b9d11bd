"""Agents: stock ssh-add, ssh and ssh-keygen with ours, ours with stock ssh-agent, and both in the same situations."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto.agent import AgentRefused, ExtensionUnsupported, Keyring, destination
from sshproto.agent.messages import SessionBind
from sshproto.config import ClientConfig
from sshproto.errors import AuthExhausted
from sshproto.keys import FOREVER, Certificate, CertificateKind, PrivateKey, PublicKey
from sshproto.keys.known_hosts import parse as parse_known_hosts
from sshproto.wire.codec import boolean, byte, string, text
from sshproto_io import LoginPlan, blocking
from tests.support import peers
from tests.support.peers import HOST, Key, Ran, Server

TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


@attrs.frozen
class Place:
    """An agent at a socket.

    Attributes:
        path: The socket.
        events: What ours has told.
        asked: What ours has asked to be confirmed; it is refused unless :attr:`answers` holds True.
        answers: What is answered.
    """

    path: str
    events: list[Any] = attrs.field(factory=list)
    asked: list[str] = attrs.field(factory=list)
    answers: list[bool] = attrs.field(factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {"SSH_AUTH_SOCK": self.path}


@contextlib.contextmanager
def stock(home: Path) -> Iterator[Place]:
    """OpenSSH's agent. What needs confirmation is refused: there is no program that asks."""
    path = home / "stock"
    with peers.ssh_agent(path, SSH_ASKPASS="/bin/false", SSH_ASKPASS_REQUIRE="force"):
        yield Place(str(path))


@contextlib.contextmanager
def ours(home: Path) -> Iterator[Place]:
    place = Place("")

    def confirm(question: Any) -> bool:
        place.asked.append(str(question))
        return place.answers == [True]

    with blocking.serve_agent(Keyring(), home / "ours", confirm=confirm, on_event=place.events.append) as served:
        yield attrs.evolve(place, path=served.path)


AGENTS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Place]]] = {"stock": stock, "ours": ours}


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


@pytest.fixture(params=AGENTS)
def place(request: pytest.FixtureRequest, home: Path) -> Iterator[Place]:
    with AGENTS[request.param](home) as place:
        yield place


@pytest.fixture
def mine(home: Path) -> Iterator[Place]:
    with ours(home) as place:
        yield place


@pytest.fixture
def client(place: Place) -> Iterator[blocking.Agent]:
    with blocking.open_agent(place.path, timeout=20) as agent:
        yield agent


def add(place: Place, home: Path, *words: str | Path) -> Ran:
    return peers.run([peers.need("ssh-add"), *map(str, words)], peers.environment(home, **place.env))


def certified(key: PrivateKey, user: str | None = None) -> Certificate:
    return Certificate.issue(
        AUTHORITY,
        key.public_key,
        CertificateKind.USER,
        key_id="id",
        principals=[user or peers.current_user()],
        valid_before=FOREVER,
    )


AUTHORITY = PrivateKey.generate()
KEYS = {name: PrivateKey.generate(name, 2048 if name == "ssh-rsa" else None, comment=name) for name in TYPES}
KEY = KEYS["ssh-ed25519"]


# ----------------------------------------------------------------------------------------------------------- our client


def test_all_operations(place: Place, client: blocking.Agent) -> None:
    assert client.identities() == ()
    for key in KEYS.values():
        client.add(key)
        client.add(key, certified(key), comment="certified")
    listed = client.identities()
    assert [identity.type for identity in listed] == [
        name for kind in TYPES for name in (kind, f"{kind}-cert-v01@openssh.com")
    ]
    assert [identity.comment for identity in listed] == [name for kind in TYPES for name in (kind, "certified")]
    for identity in listed:
        loaded = identity.load()
        key = loaded.key if isinstance(loaded, Certificate) else loaded
        for algorithm in [None, *(name for name in loaded.signature_algorithms if not name.startswith("ssh-rsa"))]:
            signature = client.sign(identity, b"data", algorithm)
            plain = (algorithm or key.signature_algorithms[0]).replace("-cert-v01", "").removesuffix("@openssh.com")
            key.verify(signature, b"data", plain)
    client.remove(listed[1])
    client.remove(KEYS["ssh-rsa"].public_key)
    assert client.identities() == (listed[0], *listed[2:8], listed[9])
    with pytest.raises(AgentRefused, match="perhaps it has none such"):
        client.remove(listed[1])
    with pytest.raises(AgentRefused, match="refused to sign"):
        client.sign(listed[1], b"data")
    client.lock(b"open")
    assert client.identities() == ()
    with pytest.raises(AgentRefused, match="to sign"):
        client.sign(listed[0], b"data")
    with pytest.raises(AgentRefused, match="perhaps it is"):
        client.lock(b"open")
    with pytest.raises(AgentRefused, match="the passphrase is another"):
        client.unlock(b"close")
    client.unlock(b"open")
    with pytest.raises(AgentRefused, match="it is not locked"):
        client.unlock(b"open")
    client.remove_all()
    assert client.identities() == ()


def test_constraints(place: Place, client: blocking.Agent) -> None:
    client.add(KEY, confirm=True)
    with pytest.raises(AgentRefused):
        client.sign(KEY.public_key, b"data")
    client.add(KEYS["ssh-rsa"], lifetime=1)
    deadline = time.monotonic() + peers.SECONDS
    while len(client.identities()) > 1:
        assert time.monotonic() < deadline, "the key is not forgotten"
        time.sleep(0.1)
    assert client.identities()[0].comment == "ssh-ed25519"


def test_what_agents_do_not_know(place: Place, client: blocking.Agent) -> None:
    with pytest.raises(ExtensionUnsupported, match=r"no@example\.org"):
        client.extension("no@example.org", b"contents")
    if "ours" in place.path:
        assert client.query() == ("query", "session-bind@openssh.com")
        with pytest.raises(AgentRefused):
            client.extension("session-bind@openssh.com", b"")


# ------------------------------------------------------------------------------------------------------------ our agent


@pytest.mark.parametrize("kind", ["ed25519", "nistp384", "rsa"])
def test_ssh_add(mine: Place, home: Path, kind: str) -> None:
    key = peers.make_key(home, kind)
    Path(f"{key.path}-cert.pub").write_text(certified(PrivateKey.load(key.path.read_bytes())).openssh() + "\n")
    assert add(mine, home, "-l").stdout == b"The agent has no identities.\n"
    ran = add(mine, home, key.path)
    assert ran.returncode == 0, ran.stderr
    shown = add(mine, home, "-l").stdout.decode().splitlines()
    assert [key.fingerprint in line for line in shown] == [True, True]
    assert shown[1].endswith("-CERT)")
    assert key.public.split()[1] in add(mine, home, "-L").stdout.decode()
    if kind != "rsa":  # for which ssh-add asks for SHA-1
        assert add(mine, home, "-T", f"{key.path}.pub").returncode == 0
    assert add(mine, home, "-d", key.path).returncode == 0
    assert add(mine, home, "-l").returncode == 1
    assert add(mine, home, "-t", "100", "-c", key.path).returncode == 0
    assert add(mine, home, "-T", f"{key.path}.pub").returncode == 1
    mine.answers.append(True)
    if kind != "rsa":
        assert len(mine.asked) == 1
        assert key.fingerprint in mine.asked[0]
        assert add(mine, home, "-T", f"{key.path}.pub").returncode == 0
    assert add(mine, home, "-D").returncode == 0
    assert add(mine, home, "-l").returncode == 1


def test_sha1_is_for_who_wants_it(home: Path) -> None:
    key = peers.make_key(home, "rsa")
    for sha1 in (False, True):
        with blocking.serve_agent(Keyring(sha1=sha1), home / f"agent{sha1}") as served:
            place = Place(served.path)
            assert add(place, home, key.path).returncode == 0
            assert add(place, home, "-T", f"{key.path}.pub").returncode == (0 if sha1 else 1)


def test_ssh_add_locks(mine: Place, home: Path, keys: dict[str, Key]) -> None:
    add(mine, home, keys["ed25519"].path)
    asking = home / "askpass"
    asking.write_text("#!/bin/sh\necho secret\n")
    asking.chmod(0o700)
    env = peers.environment(home, **mine.env, SSH_ASKPASS=str(asking), SSH_ASKPASS_REQUIRE="force")
    program = peers.need("ssh-add")
    assert peers.run([program, "-x"], env).returncode == 0
    assert add(mine, home, "-l").stdout == b"The agent has no identities.\n"
    assert add(mine, home, "-T", f"{keys['ed25519'].path}.pub").returncode != 0
    assert peers.run([program, "-X"], env).returncode == 0
    assert add(mine, home, "-l").returncode == 0
    assert peers.run([program, "-X"], env).returncode != 0


@pytest.mark.covers("V74")
def test_tokens_are_refused(mine: Place, home: Path) -> None:
    ran = add(mine, home, "-s", "/nowhere.so")
    assert ran.returncode != 0
    assert [event.why for event in mine.events] == ["this agent has no keys of tokens"]


def test_ssh_keygen_signs_by_it(mine: Place, home: Path, keys: dict[str, Key]) -> None:
    for kind in ("ed25519", "rsa", "nistp384"):
        add(mine, home, keys[kind].path)
        (home / "id.pub").write_text(keys[kind].public + "\n")
        env = peers.environment(home, **mine.env)
        argv = [peers.need("ssh-keygen"), "-Y", "sign", "-n", "git", "-f", str(home / "id.pub")]
        signed = peers.run(argv, env, b"content")
        assert signed.returncode == 0, signed.stderr
        (home / "sig").write_bytes(signed.stdout)
        argv = [peers.need("ssh-keygen"), "-Y", "check-novalidate", "-n", "git", "-s", str(home / "sig")]
        assert peers.run(argv, env, b"content").returncode == 0
    assert [str(event.purpose) for event in mine.events] == ["a signature for 'git'"] * 3
    assert [event.algorithm for event in mine.events] == ["ssh-ed25519", "rsa-sha2-512", "ecdsa-sha2-nistp384"]


def test_paramiko_signs_by_it(mine: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    paramiko = peers.need_module("paramiko")
    monkeypatch.setenv("SSH_AUTH_SOCK", mine.path)
    with blocking.open_agent(mine.path) as agent:
        for key in (KEY, KEYS["ssh-rsa"]):
            agent.add(key)
    found = paramiko.Agent()
    try:
        for held, algorithm in zip(found.get_keys(), ("ssh-ed25519", "rsa-sha2-256"), strict=True):
            key = KEYS[held.get_name()]
            key.public_key.verify(bytes(held.sign_ssh_data(b"data", algorithm)), b"data", algorithm)
    finally:
        found.close()


def test_asyncssh_uses_it(mine: Place) -> None:
    asyncssh = peers.need_module("asyncssh")

    async def main() -> None:
        async with asyncssh.connect_agent(mine.path) as agent:
            key = asyncssh.generate_private_key("ssh-ed25519", comment="theirs")
            await agent.add_keys([key], lifetime=60)
            [held] = await agent.get_keys()
            signature = await held.sign_async(b"data")
            PublicKey.from_blob(held.public_data).verify(signature, b"data", "ssh-ed25519")
            assert held.get_comment() == "theirs"
            await agent.lock("phrase")
            assert list(await agent.get_keys()) == []
            await agent.unlock("phrase")
            await agent.remove_all()
            assert list(await agent.get_keys()) == []

    asyncio.run(main())


# --------------------------------------------------------------------------------------------------------------- logins


@pytest.fixture(scope="module")
def server(keys: dict[str, Key]) -> Iterator[Server]:
    publics = [key.public for key in keys.values()]
    authority = f"cert-authority {AUTHORITY.public_key.openssh()}"
    with peers.sshd(("LogLevel VERBOSE", "MaxAuthTries 20"), authorized_keys=[*publics, authority]) as server:
        yield server


@pytest.fixture(scope="module")
def second(keys: dict[str, Key]) -> Iterator[Server]:
    publics = [key.public for key in keys.values()]
    with peers.sshd(authorized_keys=publics, host_keys=("nistp256",)) as server:
        yield server


def agent_options(place: Place, *more: str) -> tuple[str, ...]:
    return (f"-oIdentityAgent={place.path}", "-oIdentitiesOnly=no", "-oIdentityFile=none", *more)


@pytest.mark.parametrize("kind", ["ed25519", "nistp521", "rsa"])
def test_ssh_logs_in_by_our_agent(mine: Place, home: Path, keys: dict[str, Key], server: Server, kind: str) -> None:
    add(mine, home, keys[kind].path)
    ran = peers.ssh(server, "echo here", options=agent_options(mine))
    assert ran.stdout == b"here\n", ran.stderr
    purpose = mine.events[-1].purpose
    assert str(purpose) == f"a login as {server.user}"
    assert purpose.login.host_key == PublicKey.parse(server.host_keys[0]).blob


def test_ssh_logs_in_by_a_certificate_in_our_agent(mine: Place, server: Server) -> None:
    with blocking.open_agent(mine.path) as agent:
        agent.add(KEY, certified(KEY))
    ran = peers.ssh(server, "echo here", options=agent_options(mine))
    assert ran.stdout == b"here\n", ran.stderr


def known(*servers: Server) -> str:
    return "".join(server.known_hosts for server in servers)


def name(server: Server) -> str:
    return f"[{HOST}]:{server.port}"


def log_in(server: Server, agent: Any, hosts: str = "", **options: Any) -> bytes:
    plan = LoginPlan(agent=agent, **options)
    with blocking.connect(
        HOST,
        server.port,
        config=ClientConfig(user=server.user),
        host_key=parse_known_hosts(hosts or server.known_hosts),
        credentials=plan,
    ) as client:
        return client.run("echo here").stdout


@pytest.mark.parametrize("what", ["key", "certificate", "rsa", "lent"])
def test_we_log_in_by_an_agent(place: Place, server: Server, keys: dict[str, Key], what: str) -> None:
    with blocking.open_agent(place.path, timeout=20) as agent:
        match what:
            case "certificate":
                agent.add(KEY, certified(KEY))
            case "lent":
                agent.add(KEY)
            case _:
                kind = "rsa" if what == "rsa" else "ed25519"
                agent.add(PrivateKey.load(keys[kind].path.read_bytes()))
        given = [(KEY.public_key, certified(KEY))] if what == "lent" else []
        assert log_in(server, agent, keys=given) == b"here\n"


@pytest.mark.covers("V74")
@pytest.mark.parametrize(
    ("allowed", "good"),
    [("{user}@{here}", True), ("*@{here}", True), ("nobody@{here}", False), ("{there}", False)],
)
def test_destination_constraints(
    place: Place, home: Path, keys: dict[str, Key], server: Server, second: Server, allowed: str, good: bool
) -> None:
    (home / "hosts").write_text(known(server, second))
    spec = allowed.format(user=server.user, here=name(server), there=name(second))
    ran = add(place, home, "-H", home / "hosts", "-h", spec, keys["ed25519"].path)
    assert ran.returncode == 0, ran.stderr
    ran = peers.ssh(server, "echo here", options=agent_options(place))
    assert (ran.stdout == b"here\n") is good, ran.stderr
    with blocking.open_agent(place.path, timeout=20) as agent:
        if good:
            assert log_in(server, agent) == b"here\n"
            with pytest.raises(AgentRefused, match="to sign"):
                agent.sign(PublicKey.parse(keys["ed25519"].public), b"anything else")
        else:
            with pytest.raises(AuthExhausted):
                log_in(server, agent)


@pytest.mark.parametrize("whose", ["stock", "ours"])
def test_destinations_that_we_add(
    place: Place, home: Path, keys: dict[str, Key], server: Server, second: Server, whose: str
) -> None:
    """What ``destination`` makes of words is what ssh-add makes of them, as far as either agent can tell."""
    hosts = parse_known_hosts(known(server, second))
    with blocking.open_agent(place.path, timeout=20) as agent:
        key = PrivateKey.load(keys["ed25519"].path.read_bytes())
        to = server if whose == "ours" else second
        agent.add(key, destinations=[destination(f"{server.user}@{name(to)}", hosts)])
    ran = peers.ssh(server, "echo here", options=agent_options(place))
    assert (ran.stdout == b"here\n") is (whose == "ours"), ran.stderr


@pytest.mark.covers("V74")
@pytest.mark.parametrize(
    ("constraints", "seen", "good"),
    [
        ((), True, True),
        (("{here}", "{here}>{user}@{there}"), True, True),
        (("{here}", "{here}>nobody@{there}"), True, False),
        (("{here}",), False, False),
        (("{here}", "{there}"), False, False),
    ],
)
def test_destination_constraints_of_forwarded_agents(
    place: Place,
    home: Path,
    keys: dict[str, Key],
    server: Server,
    second: Server,
    constraints: tuple[str, ...],
    seen: bool,
    good: bool,
) -> None:
    hosts = home / "hosts"
    hosts.write_text(known(server, second))
    specs = [spec.format(user=server.user, here=name(server), there=name(second)) for spec in constraints]
    words = [word for spec in specs for word in ("-h", spec)]
    assert add(place, home, "-H", hosts, *words, keys["ed25519"].path).returncode == 0
    program = f"{peers.need('ssh-add')} -l; {peers.need('ssh')} -F none -p {second.port} -oBatchMode=yes"
    program += f" -oUserKnownHostsFile={hosts} -oGlobalKnownHostsFile=none -oIdentityFile=none {HOST} echo there"
    ran = peers.ssh(server, program, options=agent_options(place, "-A"))
    assert (keys["ed25519"].fingerprint.encode() in ran.stdout) is seen, ran
    assert (b"there\n" in ran.stdout) is good, ran


LOGIN = (
    *(string(bytes(32)), byte(50), text("root"), text("ssh-connection"), text("publickey"), boolean(True)),
    *(text("ssh-ed25519"), string(KEY.public_key.blob)),
)


@pytest.fixture(scope="module")
def certified_server(keys: dict[str, Key]) -> Iterator[Server]:
    """A server that shows a certificate for its address."""
    with peers.scratch() as directory:
        host = peers.make_key(directory, "ed25519", "host")
        certificate = Certificate.issue(
            AUTHORITY,
            PublicKey.parse(host.public),
            CertificateKind.HOST,
            key_id="host",
            principals=[HOST],
            valid_before=FOREVER,
        )
        (directory / "host-cert.pub").write_text(certificate.openssh() + "\n")
        config = (f"HostKey {host.path}", f"HostCertificate {directory}/host-cert.pub")
        with peers.sshd(config, authorized_keys=[keys["ed25519"].public], host_keys=()) as server:
            yield server


@pytest.mark.parametrize("allowed", [HOST, "other"])
def test_destinations_that_are_certified(
    place: Place, home: Path, keys: dict[str, Key], certified_server: Server, allowed: str
) -> None:
    server = certified_server
    authority = AUTHORITY.public_key.openssh()
    lines = [f"@cert-authority {names} {authority}\n" for names in (f"{HOST},[{HOST}]:{server.port}", "other")]
    (home / "hosts").write_text("".join(lines))
    ran = add(place, home, "-H", home / "hosts", "-h", allowed, keys["ed25519"].path)
    assert ran.returncode == 0, ran.stderr
    trusting = (f"-oUserKnownHostsFile={home}/hosts",)
    ran = peers.ssh(server, "echo here", options=agent_options(place, *trusting))
    assert (ran.stdout == b"here\n") is (allowed == HOST), ran.stderr
    expected = contextlib.nullcontext() if allowed == HOST else pytest.raises(AuthExhausted)
    with blocking.open_agent(place.path, timeout=20) as agent, expected:
        assert log_in(server, agent, "".join(lines)) == b"here\n"


def test_a_forged_binding_makes_constrained_keys_useless(place: Place, server: Server) -> None:
    """Who is forwarded can't pass for who is here by a binding that fails."""
    hosts = parse_known_hosts(server.known_hosts)
    forged = SessionBind(PublicKey.parse(server.host_keys[0]).blob, bytes(32), KEY.sign(bytes(32)))
    with blocking.open_agent(place.path, timeout=20) as agent:
        agent.add(KEY, destinations=[destination(name(server), hosts)])
        agent.add(KEYS["ecdsa-sha2-nistp256"])
        assert len(agent.identities()) == 2
        with pytest.raises(AgentRefused):
            agent.extension("session-bind@openssh.com", forged.encode())
        with pytest.raises(AgentRefused):
            agent.sign(KEY.public_key, b"".join(LOGIN))
        if "ours" in place.path:  # OpenSSH's does so since 9.3
            assert [identity.comment for identity in agent.identities()] == ["ecdsa-sha2-nistp256"]


def test_only_the_owner_gets_in(home: Path) -> None:
    """Root may connect to any socket; who is neither root nor the owner is turned away."""
    peers.need_root("to be somebody else")
    code = "import os,socket,sys; os.setuid(65534); s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
    code += "s.settimeout(20); print(s.recv(100))"
    for path in (home / "a", home / "b"):
        with blocking.serve_agent(Keyring(), path) as served:
            assert path.stat().st_mode & 0o777 == 0o600
            if path.name == "b":
                path.chmod(0o666)
            argv = ["/usr/bin/python3", "-c", code, served.path]
            ran = subprocess.run(argv, capture_output=True, timeout=30, check=False)
            assert b"PermissionError" in ran.stderr if path.name == "a" else ran.stdout == b"b''\n", ran
        assert not path.exists()


# ----------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize("command", ["exec", "jump"])
def test_the_command_line_logs_in_by_an_agent(
    place: Place, home: Path, keys: dict[str, Key], server: Server, second: Server, command: str
) -> None:
    """With destination constraints too: each login has a connection to the agent of its own."""
    (home / "hosts").write_text(known(server, second))
    specs = [word for each in (server, second) for word in ("-h", f"{each.user}@{name(each)}")]
    add(place, home, "-H", home / "hosts", *specs, keys["ed25519"].path)
    words = ["exec", "--known-hosts", str(home / "hosts"), "-p", str(server.port)]
    if command == "jump":
        words += ["-J", f"{second.user}@{HOST}:{second.port}"]
    argv = [sys.executable, "-m", "sshproto_cli", *words, f"{server.user}@{HOST}", "echo here"]
    ran = peers.run(argv, {**peers.environment(home, **place.env), "PYTHONPATH": os.pathsep.join(sys.path)})
    assert ran.stdout == b"here\n", ran.stderr


@pytest.mark.parametrize("good", [True, False])
def test_the_command_line_forwards_agents_with_destination_constraints(
    place: Place, home: Path, keys: dict[str, Key], server: Server, second: Server, good: bool
) -> None:
    hosts = home / "hosts"
    hosts.write_text(known(server, second))
    specs = [name(server), f"{name(server)}>{name(second)}"] if good else [name(server)]
    add(place, home, "-H", hosts, *(word for spec in specs for word in ("-h", spec)), keys["ed25519"].path)
    program = f"{peers.need('ssh')} -F none -p {second.port} -oBatchMode=yes -oIdentityFile=none"
    program += f" -oUserKnownHostsFile={hosts} -oGlobalKnownHostsFile=none {HOST} echo there"
    words = ["exec", "-A", "--known-hosts", str(hosts), "-p", str(server.port), f"{server.user}@{HOST}", program]
    env = {**peers.environment(home, **place.env), "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = peers.run([sys.executable, "-m", "sshproto_cli", *words], env)
    assert (ran.stdout == b"there\n") is good, ran.stderr
