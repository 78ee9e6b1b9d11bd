"""``sshproto known-hosts``, beside ssh-keygen, and with servers of ours that are asked."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from sshproto.config import ServerConfig
from sshproto.keys import FOREVER, Certificate, CertificateKind, PrivateKey, known_hosts
from sshproto.keys.known_hosts import line_for
from sshproto_cli import host_files
from sshproto_cli.main import main
from sshproto_cli.terminal import Terminal
from sshproto_io import blocking
from tests.support.verbs import Ran

HOST = "127.0.0.1"
KEYS = [PrivateKey.generate(kind) for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256")]
KEY, ECDSA = (key.public_key for key in KEYS)
OTHER = PrivateKey.generate(comment="other's own").public_key
AUTHORITY = PrivateKey.generate(comment="the authority")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are at home in a folder of their own, and nobody is at a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Terminal, "present", False)
    (tmp_path / ".ssh").mkdir(mode=0o700)


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    return tmp_path / ".ssh" / "known_hosts"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def ran(*words: Any) -> Ran:
        capsys.readouterr()
        status = main(["known-hosts", *map(str, words)])
        out, err = capsys.readouterr()
        return Ran(status, out.splitlines(), err.splitlines())

    return ran


@pytest.fixture(scope="module")
def server() -> Any:
    """A server with two host keys, and a certificate for one of them."""
    certificate = Certificate.issue(
        AUTHORITY, KEY, CertificateKind.HOST, key_id="our host", principals=(HOST,), valid_before=FOREVER
    )
    config = ServerConfig(host_keys=KEYS, host_certificates=(certificate,))  # type: ignore[arg-type]
    with blocking.listen(HOST, 0, config, lambda incoming: blocking.Handler()) as found:
        yield found


def lines(*given: str) -> str:
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in given)


FILE = lines(
    "# mine",
    line_for("alpha", 22, KEY),
    line_for("alpha", 22, ECDSA, hashed=True),
    line_for("alpha", 2222, KEY),
    f"*,!beta {OTHER.openssh()}",
    f"@revoked * {OTHER.openssh()}",
    "alpha",
    line_for("beta", 22, KEY),
)


# ---------------------------------------------------------------------------------------------------------------- find


def test_find(run: Any, hosts: Path) -> None:
    hosts.write_text(FILE)
    ran = run("find", "ALPHA")
    assert ran.status == 0
    assert ran.out[::2] == [f"# {hosts} line {n}{more}" for n, more in ((2, ""), (3, ""), (5, ""), (6, ": revoked"))]
    assert ran.out[1::2] == [FILE.split("\n")[number - 1] for number in (2, 3, 5, 6)]
    assert run("find", "alpha", "-p", 2222).out[0] == f"# {hosts} line 4"
    assert run("find", "[alpha]:2222").out == run("find", "alpha", "-p", 2222).out
    ran = run("find", "-l", "beta", "-f", hosts)
    assert ran.out == [
        f"{hosts} line 6: revoked: ssh-ed25519 {OTHER.fingerprint()}",
        f"{hosts} line 8: ssh-ed25519 {KEY.fingerprint()}",
    ]
    told = [json.loads(line) for line in run("find", "--json", "beta").out]
    assert told[0] == {
        "file": str(hosts), "line": 6, "marker": "@revoked", "names": "*", "type": "ssh-ed25519",
        "fingerprint": OTHER.fingerprint(),
    }  # fmt: skip
    hosts.write_text("alpha ssh-rsa !!!\x1b\n")
    assert run("find", "-l", "alpha").out == [f"{hosts} line 1: ssh-rsa which is no key"]
    assert run("find", "alpha").out[1] == "alpha ssh-rsa !!!\\x1b"


def test_nothing_is_found(run: Any, hosts: Path) -> None:
    ran = run("find", "alpha")  # no file at all
    assert (ran.status, ran.out, ran.err) == (1, [], ["sshproto: there is no line about alpha"])


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("find", "a b"), 2, "not a host name"),
        (("find", "[a]:1", "-p", "2"), 2, "two ports for a: 1 and 2"),
        (("find", "-f", "nowhere", "a"), 255, "nowhere: No such file or directory"),
        (("find", "-f", ".", "a"), 255, "Is a directory"),
        (("remove", "a"), 255, "known_hosts: No such file or directory"),
        (("hash", "-f", "nowhere"), 255, "nowhere: No such file or directory"),
        (("add", "--cert-authority", "*"), 2, "goes with --key"),
        (("add", "--revoked", "-p", "22", "*"), 2, "goes with --key"),
        (("add", "-k", "nowhere", "a"), 255, "nowhere: No such file or directory"),
        (("add", "-k", "/dev/null", "a"), 255, "there is no public key in /dev/null"),
        (("check", "--timeout", "1", "-p", "1", HOST), 255, f"cannot connect to {HOST} port 1"),
    ],
)
def test_what_goes_wrong_is_said_in_a_line(run: Any, words: tuple[str, ...], status: int, said: str) -> None:
    ran = run(*words)
    assert (ran.status, ran.out, len(ran.err)) == (status, [], 1)
    assert said in ran.err[0]


# ---------------------------------------------------------------------------------------------------- remove and hash


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_remove(run: Any, hosts: Path, mode: int) -> None:
    hosts.write_text(FILE)
    hosts.chmod(mode)
    ran = run("remove", "alpha")
    assert ran.status == 0
    assert ran.out == [
        f"{hosts} line 2 removed: ssh-ed25519 {KEY.fingerprint()}",
        f"{hosts} line 3 removed: ecdsa-sha2-nistp256 {ECDSA.fingerprint()}",
        f"{hosts} line 5 removed: ssh-ed25519 {OTHER.fingerprint()}",
        f"What it was is in {hosts}.old.",
    ]
    assert ran.err == [f"sshproto: {hosts} line 7 cannot be read, and stays: it ends before the key"]
    assert hosts.read_text() == "".join(FILE.splitlines(True)[n - 1] for n in (1, 4, 6, 7, 8))
    assert hosts.with_name("known_hosts.old").read_text() == FILE
    assert hosts.stat().st_mode & 0o777 == mode
    assert sorted(path.name for path in hosts.parent.iterdir()) == ["known_hosts", "known_hosts.old"]
    before = hosts.stat()
    ran = run("remove", "[alpha]")
    assert ran.status == 1
    assert "there is no line about [alpha] that can be removed" in ran.err[-1]
    assert hosts.stat() == before


def test_a_link_stays_one(run: Any, hosts: Path, tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    real = tmp_path / "dotfiles" / "hosts"
    real.write_text(line_for("alpha", 22, KEY))
    hosts.symlink_to(real)
    assert run("remove", "alpha").status == 0
    assert hosts.is_symlink()
    assert (real.read_text(), real.with_name("hosts.old").exists()) == ("", True)


def test_hash(run: Any, hosts: Path, ssh_keygen: Any) -> None:
    hosts.write_text(FILE)
    ran = run("hash")
    assert (ran.status, ran.out) == (0, [f"{hosts}: 3 lines hashed"])
    assert ran.err == [
        f"sshproto: {hosts} line 5 stays as it is: '*,!beta' is a pattern",
        f"sshproto: {hosts} line 7 stays as it is: it ends before the key",
        f"sshproto: {hosts}.old still has the names; delete it when you have seen that all is well",
    ]
    assert "alpha ssh" not in hosts.read_text()
    assert "found: line 2" in ssh_keygen("-F", "alpha", "-f", hosts)
    assert run("hash").out == [f"{hosts}: there is nothing to hash"]


@pytest.fixture
def ssh_keygen() -> Any:
    from tests.unit.keys.conftest import SSH_KEYGEN, _need

    return _need(SSH_KEYGEN, "ssh-keygen", "openssh-client")


# --------------------------------------------------------------------------------------------------------------- add


def test_add_from_files(run: Any, hosts: Path, tmp_path: Path) -> None:
    pub = tmp_path / "keys.pub"
    pub.write_text(f"# two\n{KEY.openssh()}\n{ECDSA.openssh()}\n")
    (tmp_path / "rfc").write_text(OTHER.rfc4716())
    ran = run("add", "-k", pub, "Alpha")
    assert ran.status == 0, ran
    assert hosts.read_text() == line_for("alpha", 22, KEY) + line_for("alpha", 22, ECDSA)
    assert hosts.stat().st_mode & 0o777 == 0o600
    ran = run("add", "-k", pub, "-k", tmp_path / "rfc", "alpha")
    assert ran.out == [
        f"ssh-ed25519 {KEY.fingerprint()} is known already, by {hosts} line 1",
        f"ecdsa-sha2-nistp256 {ECDSA.fingerprint()} is known already, by {hosts} line 2",
        f"ssh-ed25519 {OTHER.fingerprint()} is added to {hosts}",
    ]
    ran = run("add", "-k", pub, "-H", "-p", 2222, "alpha")
    assert hosts.read_text().count("|1|") == 2
    assert known_hosts.parse(hosts.read_text()).lookup("alpha", 2222, KEY).trust is known_hosts.Trust.MATCH


def test_add_authorities_and_revoked_keys(run: Any, hosts: Path, tmp_path: Path) -> None:
    (tmp_path / "ca.pub").write_text(AUTHORITY.public_key.openssh())
    ran = run("add", "--cert-authority", "-k", "ca.pub", "*.example.org,!x")
    assert (ran.status, hosts.read_text()) == (
        0,
        f"@cert-authority *.example.org,!x {AUTHORITY.public_key.openssh()}\n",
    )
    assert "the authority" in hosts.read_text()
    assert "already" in run("add", "--cert-authority", "-k", "ca.pub", "*.example.org,!x").out[0]
    (tmp_path / "bad.pub").write_text(KEY.openssh())
    assert run("add", "--revoked", "-k", "bad.pub", "*").status == 0
    ran = run("add", "-k", "bad.pub", "alpha")
    assert ran.status == 1
    assert f"is revoked, by {hosts} line 2" in ran.err[0]
    assert run("add", "--revoked", "-k", "bad.pub", "a b").status == 2
    assert hosts.read_text().count("\n") == 2


def test_add_what_a_host_shows(run: Any, hosts: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ("-p", server.port, HOST)
    ran = run("add", *where)
    assert ran.status == 2
    assert "--yes believes it unseen" in ran.err[0]
    asked: list[str] = []
    monkeypatch.setattr(Terminal, "present", True)
    monkeypatch.setattr(Terminal, "confirm", lambda self, text: asked.append(text))
    ran = run("add", *where)
    assert (ran.status, ran.err) == (1, ["sshproto: nothing is added"])
    assert KEY.fingerprint() in asked[0]
    assert ECDSA.fingerprint() in asked[0]
    assert not hosts.exists()
    monkeypatch.setattr(Terminal, "confirm", lambda self, text: True)
    assert run("add", *where).status == 0
    found = known_hosts.parse(hosts.read_text()).find(HOST, server.port)
    assert {entry.blob for entry in found} == {KEY.blob, ECDSA.blob}
    hosts.write_text(line_for(HOST, server.port, OTHER))
    ran = run("add", "-y", *where)
    assert ran.status == 1
    assert f"{hosts} line 1 has another ssh-ed25519 key" in ran.err[0]
    assert hosts.read_text() == line_for(HOST, server.port, OTHER)


# ------------------------------------------------------------------------------------------------------------- check


def test_a_host_that_shows_none_of_the_keys_that_are_known(run: Any, hosts: Path, server: Any) -> None:
    """Whoever stands in its place shows another type of key than the one that is known, and is not to be added."""
    rsa = PrivateKey.generate("ssh-rsa").public_key
    before = line_for(HOST, server.port, rsa)
    hosts.write_text(before)
    ran = run("add", "-p", server.port, "--yes", HOST)
    assert ran.status == 1
    assert f"is known by other keys ({hosts} line 1, ssh-rsa), and shows none of them" in ran.err[0]
    assert hosts.read_text() == before
    hosts.write_text(before + line_for(HOST, server.port, ECDSA))  # one that is known vouches for the others
    assert run("add", "-p", server.port, "--yes", HOST).status == 0
    assert known_hosts.parse(hosts.read_bytes()).lookup(HOST, server.port, KEY).trust is known_hosts.Trust.MATCH


def test_check(run: Any, hosts: Path, server: Any) -> None:
    where = ("-p", server.port, HOST)
    start = f"{HOST} port {server.port}"
    shown = f"ssh-ed25519 {KEY.fingerprint()}"
    hosts.write_text("")
    assert run("check", *where) == Ran(1, [f"{start}: unknown: {shown}"], [])
    hosts.write_text(line_for(HOST, server.port, ECDSA))
    ecdsa = f"ecdsa-sha2-nistp256 {ECDSA.fingerprint()}"
    assert run("check", *where) == Ran(0, [f"{start}: match: {ecdsa} ({hosts} line 1)"], [])
    hosts.write_text(line_for(HOST, server.port, OTHER))
    assert run("check", *where) == Ran(1, [f"{start}: changed: {shown} ({hosts} line 1)"], [])
    hosts.write_text("@revoked * " + KEY.openssh())
    assert run("check", *where) == Ran(1, [f"{start}: revoked: {shown} ({hosts} line 1)"], [])
    ca = f"[{HOST}]:* {AUTHORITY.public_key.openssh()}\n"
    hosts.write_text("@cert-authority " + ca)
    said = f"{start}: match: {shown} (certificate 'our host'; {hosts} line 1)"
    assert run("check", *where) == Ran(0, [said], [])
    hosts.write_text("@cert-authority [*]:* " + OTHER.openssh())
    ran = run("check", *where)
    assert ran.status == 1
    assert "unknown" in ran.out[0]
    assert "no @cert-authority line for the host has" in ran.out[0]
    assert run("check", "-f", "/dev/null", *where).status == 1


# -------------------------------------------------------------------------------------------------------------- files


def test_nothing_is_lost_between_who_appends_and_who_rewrites(hosts: Path) -> None:
    hosts.write_text("")

    def append(number: int) -> None:
        for each in range(20):
            host_files.append_line(hosts, line_for(f"h{number}-{each}", 22, KEY))

    from sshproto.keys.host_lines import remove

    threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        hosts_there = host_files.rewrite(hosts, lambda content: remove(content + b"# again\n", "nobody"))
        assert hosts_there.text.endswith(b"# again\n"), number
    for thread in threads:
        thread.join()
    found = hosts.read_text().splitlines()
    assert sorted(line.split()[0] for line in found if not line.startswith("#")) == sorted(
        f"h{number}-{each}" for number in range(4) for each in range(20)
    )
    assert found.count("# again") == 20


def test_a_file_that_cannot_be_replaced_stays(hosts: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    hosts.write_text(FILE)

    def full(self: Any, target: Any) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "hardlink_to", full)
    ran = run("remove", "alpha")
    assert (ran.status, hosts.read_text()) == (255, FILE)
    assert "No space left on device" in ran.err[-1]
    assert [path.name for path in hosts.parent.iterdir()] == ["known_hosts"]


def test_what_is_no_file_is_left_alone(tmp_path: Path, run: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    ran = run("hash", "-f", tmp_path / "pipe")  # and nobody waits for who would write into it
    assert ran.status == 255
    assert "not a regular file" in ran.err[0]
