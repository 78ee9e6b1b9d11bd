"""The peers against each other: what fails here is a launcher's fault, or the machine's, and never sshproto's."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support import peers

SERVERS = {
    "sshd": peers.sshd,
    "dropbear": peers.dropbear,
    "asyncssh": peers.asyncssh_server,
    "paramiko": peers.paramiko_server,
}
CLIENTS = {
    "ssh": peers.ssh,
    "dbclient": peers.dbclient,
    "plink": peers.plink,
    "asyncssh": peers.asyncssh_run,
    "paramiko": peers.paramiko_run,
}

# Dropbear 2022.83 guesses the key exchange. RFC 4253 section 7 calls a guess wrong unless both lists begin alike, so it
# sends its packet again; asyncssh 2.24 and paramiko 5.1 take the first one as good and refuse the second.
BROKEN = {("dbclient", "asyncssh"), ("dbclient", "paramiko")}


def clients_of(server_kind):
    return [(name, client) for name, client in CLIENTS.items() if (name, server_kind) not in BROKEN]


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return peers.make_key(tmp_path_factory.mktemp("keys"))


@pytest.mark.parametrize("kind", SERVERS)
def test_every_client_runs_a_command(kind, key):
    with SERVERS[kind](authorized_keys=[key.public]) as server:
        for name, client in clients_of(kind):
            done = client(server, "cat; echo oops >&2; exit 3", key=key, stdin=b"in\0out\n")
            assert (done.returncode, done.stdout) == (3, b"in\0out\n"), f"{name}: {done}"
            assert done.stderr.endswith(b"oops\n"), f"{name}: {done}"


@pytest.mark.parametrize("kind", SERVERS)
def test_a_wrong_key_is_refused(kind, key, tmp_path):
    stranger = peers.make_key(tmp_path)
    with SERVERS[kind](authorized_keys=[key.public]) as server:
        done = peers.ssh(server, "true", key=stranger)
        assert done.returncode == 255
        assert b"Permission denied" in done.stderr


@pytest.mark.parametrize("kind", ["ssh", "dbclient", "plink"])
def test_a_wrong_host_key_is_refused(kind, key, tmp_path):
    with peers.sshd(authorized_keys=[key.public]) as server:
        impostor = peers.Server(port=server.port, user=server.user, host_keys=(peers.make_key(tmp_path).public,))
        done = CLIENTS[kind](impostor, "true", key=key)
        assert done.returncode != 0
        assert b"host key" in done.stderr.lower()


@pytest.mark.parametrize("host_kind", ["rsa", "nistp256", "nistp521"])
@pytest.mark.parametrize("kind", SERVERS)
def test_every_kind_of_host_key(kind, host_kind, key):
    with SERVERS[kind](authorized_keys=[key.public], host_keys=[host_kind]) as server:
        for name, client in clients_of(kind):
            done = client(server, "echo yes", key=key)
            assert done.stdout == b"yes\n", f"{name}: {done}"


@pytest.mark.parametrize("client_kind", ["rsa", "nistp256", "nistp384"])
def test_every_kind_of_user_key(client_kind, tmp_path):
    key = peers.make_key(tmp_path, client_kind)
    with peers.sshd(authorized_keys=[key.public]) as server:
        for name, client in CLIENTS.items():
            done = client(server, "echo yes", key=key)
            assert done.stdout == b"yes\n", f"{name}: {done}"


@pytest.mark.parametrize("kind", SERVERS)
def test_passwords(kind):
    with SERVERS[kind](password=True if kind in {"sshd", "dropbear"} else "correct horse") as server:
        for name, client in clients_of(kind):
            done = client(server, "echo yes", password=server.password)
            assert done.stdout == b"yes\n", f"{name}: {done}"


def test_keyboard_interactive():
    with peers.sshd(password=True) as server:
        done = peers.ssh(
            server, "id -un", password=server.password, options=["-oPreferredAuthentications=keyboard-interactive"]
        )
        assert done.stdout.decode() == f"{server.user}\n", done
        assert "Accepted keyboard-interactive/pam" in server.log


def test_a_wrong_password_is_refused():
    with peers.sshd(password=True) as server:
        done = peers.ssh(server, "true", password="not it")
        assert done.returncode == 255
        assert b"Permission denied" in done.stderr


def test_sftp(key, tmp_path):
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(os.urandom(100_000))
    with peers.sshd(authorized_keys=[key.public]) as server:
        done = peers.sftp(server, f"get {there} {back}\n", key=key)
        assert done.returncode == 0, done
    assert back.read_bytes() == there.read_bytes()


def test_config_lines_win(key):
    with peers.sshd(["ForceCommand echo forced"], authorized_keys=[key.public]) as server:
        assert peers.ssh(server, "true", key=key).stdout == b"forced\n"


def test_nothing_is_left_running(key):
    with peers.sshd(authorized_keys=[key.public]) as server:
        idle = socket.create_connection((peers.HOST, server.port))
        assert idle.recv(8) == b"SSH-2.0-"
    with idle:
        idle.settimeout(peers.SECONDS)
        while idle.recv(4096):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((peers.HOST, server.port))
    assert server.log_file is not None
    assert not server.log_file.parent.exists()


def test_a_missing_peer_skips_or_fails_with_its_name(monkeypatch):
    monkeypatch.setattr(peers.shutil, "which", lambda *_, **__: None)
    monkeypatch.delenv("SSHPROTO_REQUIRE_PEERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="plink is not installed: apt-get install putty-tools"):
        peers.need("plink")
    monkeypatch.setenv("SSHPROTO_REQUIRE_PEERS", "1")
    with pytest.raises(pytest.fail.Exception, match="plink is not installed"):
        peers.need("plink")


def test_a_server_that_does_not_start_says_why():
    with pytest.raises(pytest.fail.Exception, match="Bad configuration option"), peers.sshd(["Nonsense yes"]):
        pass


def test_no_file_of_the_user_is_touched():
    """The launchers give every program a home of its own; this is the list of those that would write."""
    home = Path(peers.environment(Path("/nowhere"))["HOME"])
    assert home == Path("/nowhere")
    assert "SSH_AUTH_SOCK" not in peers.environment(home)
