"""Stock agents through us: ssh -A to our server and on to sshd from there, our client's -A at sshd; what a key is not
for is refused, whoever forwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from sshproto_cli.options import FACES
from tests.support import ours, peers
from tests.support.peers import HOST, Key, Ran, Server

pytestmark = [pytest.mark.covers("R12", "V75"), pytest.mark.timeout(120)]


@attrs.frozen
class Agent:
    """ssh-agent, while it runs.

    Attributes:
        socket: Where it listens.
        home: A home for programs.
    """

    socket: Path
    home: Path

    def add(self, *words: str) -> Ran:
        """``ssh-add`` with these words."""
        return peers.run([peers.need("ssh-add"), *words], self.environment())

    def environment(self) -> dict[str, str]:
        return ours._environment(self.home, SSH_AUTH_SOCK=str(self.socket))


@pytest.fixture
def agent() -> Iterator[Agent]:
    with peers.scratch() as directory, peers.ssh_agent(directory / "agent") as path:
        yield Agent(path, directory)


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    """The one to get in with at the first server; it is in no agent."""
    with peers.scratch() as directory:
        yield peers.make_key(directory)


@pytest.fixture(scope="module")
def second_key() -> Iterator[Key]:
    """The one to get on with, which only the agent has."""
    with peers.scratch() as directory:
        yield peers.make_key(directory, "nistp256")


@pytest.fixture(scope="module")
def stock(key: Key, second_key: Key) -> Iterator[Server]:
    with peers.sshd(authorized_keys=[key.public, second_key.public]) as server:
        yield server


@pytest.fixture(scope="module")
def other_stock(second_key: Key) -> Iterator[Server]:
    with peers.sshd(authorized_keys=[second_key.public]) as server:
        yield server


@pytest.fixture(scope="module", params=FACES)
def served(request: pytest.FixtureRequest, key: Key) -> Iterator[Server]:
    with ours.serve(["--agent-forwarding", "--io", request.param], authorized_keys=[key.public]) as server:
        yield server


@pytest.fixture(scope="module")
def any_served(key: Key) -> Iterator[Server]:
    with ours.serve(["--agent-forwarding"], authorized_keys=[key.public]) as server:
        yield server


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


def by_ssh(server: Server, home: Path, key: Key, agent: Agent) -> list[str]:
    options = peers.ssh_options(server, home, key)
    return [peers.need("ssh"), "-A", f"-oIdentityAgent={agent.socket}", *options, "-oBatchMode=yes", HOST, "--"]


def by_us(server: Server, home: Path, key: Key, agent: Agent) -> list[str]:
    return [*by_us_without(server, home, key), "-A", HOST]


def by_us_without(server: Server, home: Path, key: Key) -> list[str]:
    (home / "known_hosts").write_text(server.known_hosts)
    where = ["-p", str(server.port), "-l", server.user, "--known-hosts", str(home / "known_hosts")]
    return [*ours.PROGRAM, "exec", *where, "-i", str(key.path)]


Client = Callable[[Server, Path, Key, Agent], list[str]]

CLIENTS = pytest.mark.parametrize("client", [by_ssh, by_us], ids=["ssh", "sshproto"])


def onward(server: Server, home: Path) -> str:
    """The way to a server by what the agent has, as it is said at the one before."""
    inner = home / f"to-{server.port}"
    inner.mkdir()
    (inner / "known_hosts").write_text(server.known_hosts)
    (inner / "config").write_text(
        f"Port {server.port}\nUser {server.user}\nUserKnownHostsFile {inner}/known_hosts\nGlobalKnownHostsFile none\n"
        "StrictHostKeyChecking yes\nUpdateHostKeys no\nBatchMode yes\nIdentityFile none\nConnectTimeout 10\n"
    )
    return f"{peers.need('ssh')} -F {inner}/config {HOST}"


def run(argv: list[str], agent: Agent) -> Ran:
    return peers.run(argv, agent.environment())


# ----------------------------------------------------------------------------------------------------------------- hops


def two_hops(argv: list[str], home: Path, agent: Agent, second: Server, second_key: Key) -> None:
    way = onward(second, home)
    assert run([*argv, f"{way} echo far"], agent).returncode != 0  # the agent has no key yet
    assert agent.add(str(second_key.path)).returncode == 0
    listed = run([*argv, "ssh-add -l"], agent)
    assert listed.stdout == agent.add("-l").stdout
    ran = run([*argv, f"{way} echo far"], agent)
    assert (ran.stdout, ran.returncode) == (b"far\n", 0), ran.stderr


def test_ssh_to_our_server_and_on_to_sshd(
    served: Server, other_stock: Server, home: Path, agent: Agent, key: Key, second_key: Key
) -> None:
    two_hops(by_ssh(served, home, key, agent), home, agent, other_stock, second_key)


def test_our_client_to_sshd_and_on_to_another(
    stock: Server, other_stock: Server, home: Path, agent: Agent, key: Key, second_key: Key
) -> None:
    two_hops(by_us(stock, home, key, agent), home, agent, other_stock, second_key)


def test_ours_to_ours_and_on_to_sshd(
    any_served: Server, other_stock: Server, home: Path, agent: Agent, key: Key, second_key: Key
) -> None:
    two_hops(by_us(any_served, home, key, agent), home, agent, other_stock, second_key)


def test_the_agent_goes_on_with_its_user(
    stock: Server, any_served: Server, home: Path, agent: Agent, key: Key, second_key: Key
) -> None:
    """Through two servers: the second one has it from the first."""
    agent.add(str(second_key.path))
    way = onward(stock, home)
    ran = run([*by_us(any_served, home, key, agent), f"{way} -A ssh-add -l"], agent)
    assert ran.stdout == agent.add("-l").stdout, ran.stderr


# -------------------------------------------------------------------------------------------------------------- bounds


def test_many_programs_ask_at_once(any_served: Server, home: Path, agent: Agent, key: Key, second_key: Key) -> None:
    agent.add(str(second_key.path))
    command = "for i in $(seq 30); do ssh-add -l & done; wait"
    ran = run([*by_us(any_served, home, key, agent), command], agent)
    assert ran.stdout == agent.add("-l").stdout * 30, ran.stderr


@CLIENTS
def test_its_socket_is_for_one_user_and_one_session(
    client: Client, any_served: Server, home: Path, agent: Agent, key: Key
) -> None:
    command = 'stat -c %a "$SSH_AUTH_SOCK" "$(dirname "$SSH_AUTH_SOCK")"; echo "$SSH_AUTH_SOCK"'
    ran = run([*client(any_served, home, key, agent), command], agent)
    socket_mode, directory_mode, path = ran.stdout.decode().splitlines()
    assert (socket_mode, directory_mode) == ("600", "700")
    assert path != str(agent.socket)
    assert not Path(path).parent.exists()


def test_who_does_not_ask_or_must_not_has_no_agent(
    stock: Server, any_served: Server, home: Path, agent: Agent, key: Key
) -> None:
    for server in (stock, any_served):
        for options in ((), ("-a",)):
            ran = run([*by_us_without(server, home, key), *options, HOST, "echo ${SSH_AUTH_SOCK-none}"], agent)
            assert (ran.stdout, ran.stderr) == (b"none\n", b"")
    with ours.serve(authorized_keys=[key.public]) as server:
        ran = run([*by_us(server, home, key, agent), "echo ${SSH_AUTH_SOCK-none}"], agent)
        assert ran.stdout == b"none\n"
        assert ran.stderr == b"sshproto: the server refuses to forward the agent\n"
        ran = run([*by_ssh(server, home, key, agent), "echo ${SSH_AUTH_SOCK-none}"], agent)
        assert ran.stdout == b"none\n"


def test_an_agent_that_is_not_there(any_served: Server, home: Path, key: Key) -> None:
    argv = [*by_us_without(any_served, home, key), "-A", HOST, "echo ${SSH_AUTH_SOCK-none}; ssh-add -l"]
    ran = peers.run(argv, ours._environment(home))
    assert ran.stdout.splitlines()[0] == b"none"
    assert b"agent forwarding: there is no agent to forward: SSH_AUTH_SOCK is not set" in ran.stderr
    ran = peers.run(argv, ours._environment(home, SSH_AUTH_SOCK=str(home / "gone")))
    assert b"cannot connect to the agent: No such file or directory" in ran.stderr
    assert ran.returncode != 0  # of a signal, mostly: ssh-add writes to a socket that is closed already


# ------------------------------------------------------------------------------------------- what a key may be used for


@pytest.mark.covers("V74")
@CLIENTS
@pytest.mark.parametrize("first", ["sshd", "ours"])
def test_a_key_goes_only_where_it_may(
    client: Client,
    first: str,
    stock: Server,
    other_stock: Server,
    any_served: Server,
    home: Path,
    agent: Agent,
    key: Key,
    second_key: Key,
) -> None:
    """The agent is told for whom each connection is, and what may be used from there it decides by that."""
    server = stock if first == "sshd" else any_served
    with peers.sshd(authorized_keys=[second_key.public]) as third:
        known = home / "all-hosts"
        known.write_text(server.known_hosts + other_stock.known_hosts + third.known_hosts)
        names = [f"[{HOST}]:{one.port}" for one in (server, other_stock)]
        added = agent.add("-H", str(known), "-h", names[0], "-h", ">".join(names), str(second_key.path))
        assert added.returncode == 0, added.stderr
        argv = client(server, home, key, agent)
        good, bad = onward(other_stock, home), onward(third, home)
        ran = run([*argv, f"{good} echo far"], agent)
        assert (ran.stdout, ran.returncode) == (b"far\n", 0), ran.stderr
        ran = run([*argv, f"{bad} echo far"], agent)
        assert ran.stdout == b"", "it has gone where it must not"
        assert b"Permission denied" in ran.stderr


@CLIENTS
def test_a_key_that_may_not_be_forwarded_is_not_seen(
    client: Client, stock: Server, any_served: Server, home: Path, agent: Agent, key: Key, second_key: Key
) -> None:
    known = home / "all-hosts"
    known.write_text(stock.known_hosts)
    name = f"[{HOST}]:{stock.port}"
    assert agent.add("-H", str(known), "-h", name, str(second_key.path)).returncode == 0
    assert agent.add("-l").stdout
    ran = run([*client(any_served, home, key, agent), "ssh-add -l"], agent)
    assert ran.stdout == b"The agent has no identities.\n", ran.stderr


# --------------------------------------------------------------------------------------------------------------- others


def test_others_forward_agents_to_our_server(any_served: Server, agent: Agent, key: Key, second_key: Key) -> None:
    """They ask by OpenSSH's name."""
    agent.add(str(second_key.path))
    listed = agent.add("-l").stdout
    variables = {"SSH_AUTH_SOCK": str(agent.socket)}
    ran = peers.dbclient(any_served, "ssh-add -l", key=key, options=["-A"], variables=variables)
    assert ran.stdout == listed, ran.stderr
    asyncssh = peers.need_module("asyncssh")

    async def main() -> bytes:
        options = peers.asyncssh_options(any_served, key=key) | {"agent_path": str(agent.socket)}
        async with asyncssh.connect(**options, agent_forwarding=True) as connection:
            done = await connection.run("ssh-add -l", encoding=None, stdin=asyncssh.DEVNULL)
            return bytes(done.stdout)

    assert asyncio.run(asyncio.wait_for(main(), peers.SECONDS)) == listed


def test_dropbear_gets_our_agent(home: Path, agent: Agent, key: Key, second_key: Key) -> None:
    agent.add(str(second_key.path))
    with peers.dropbear(authorized_keys=[key.public]) as server:
        ran = run([*by_us(server, home, key, agent), "ssh-add -l"], agent)
        assert ran.stdout == agent.add("-l").stdout, ran.stderr
