"""Who a server is, between OpenSSH and us, both ways: host certificates, and host keys that are learned after login."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto import events as ev
from sshproto.config import ClientConfig, Limits, Preferences, ServerConfig
from sshproto.errors import HostKeyRejected, HostKeyRevoked, HostKeyUnknown
from sshproto.keys import FOREVER, Certificate, CertificateKind, KnownHosts, PrivateKey, known_hosts
from sshproto.keys.known_hosts import line_for
from sshproto.operations.host_key_update import HostKeyUpdate, update_host_keys
from sshproto_io import blocking
from tests.support import peers
from tests.support.peers import HOST, Key, Ran, Server

pytestmark = pytest.mark.timeout(90)

AUTHORITY = PrivateKey.generate("ecdsa-sha2-nistp256")
KEYS = {kind: PrivateKey.generate(kind) for kind in ("ssh-ed25519", "ecdsa-sha2-nistp384", "ssh-rsa")}
HOST_KEY = KEYS["ssh-ed25519"]
USER_KEY = PrivateKey.generate()


def issue(key: PrivateKey = HOST_KEY, **changes: Any) -> Certificate:
    told: dict[str, Any] = {"principals": ("elsewhere", HOST), "valid_before": FOREVER, **changes}
    return Certificate.issue(AUTHORITY, key.public_key, CertificateKind.HOST, key_id="a host", **told)


EXPIRED = {"valid_before": int(time.time()) - 10}
ELSEWHERE = {"principals": ("elsewhere",)}


class Host(blocking.Handler):
    """Lets the user in, and runs nothing but this."""

    def __init__(self, until: Any = None) -> None:
        self._until = until

    def public_key(self, user: str, key: Any) -> bool:
        return bool(key == USER_KEY.public_key)

    def session(self, session: Any) -> int:
        session.stdout.write(b"here\n")
        deadline = time.monotonic() + 10
        while self._until is not None and not self._until() and time.monotonic() < deadline:
            time.sleep(0.02)
        return 0


@contextlib.contextmanager
def serving(until: Any = None, **config: Any) -> Iterator[Server]:
    told = {"host_keys": (HOST_KEY,), "debug_raise": True, **config}
    with blocking.listen(HOST, 0, ServerConfig(**told), lambda incoming: Host(until)) as server:
        yield Server(port=server.port, user=peers.current_user(), host_keys=())


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


@pytest.fixture(scope="module")
def user(folder: Path) -> Key:
    path = folder / "id"
    path.touch(mode=0o600)
    path.write_bytes(USER_KEY.openssh())
    return Key(path, USER_KEY.public_key.openssh())


def ssh(server: Server, user: Key, hosts: Path, *options: str) -> Ran:
    words = (f"-oUserKnownHostsFile={hosts}", "-oConnectionAttempts=1", *options)
    return peers.ssh(server, "here", key=user, options=words)


def authority(port: int, marker: str = "@cert-authority") -> str:
    return f"{marker} [{HOST}]:{port} {AUTHORITY.public_key.openssh()}\n"


# --------------------------------------------------------------------------------------------------------- certificates

REFUSED = [
    pytest.param(ELSEWHERE, "", b"name is not a listed principal", id="principal"),
    pytest.param(EXPIRED, "", b"Certificate invalid: expired", id="expired"),
    pytest.param({}, "@revoked", b"REVOKED HOST KEY", id="authority revoked"),
]


@pytest.mark.parametrize("kind", KEYS)
def test_ssh_believes_our_certificate(user: Key, tmp_path: Path, kind: str) -> None:
    hosts = tmp_path / "known_hosts"
    with serving(host_keys=tuple(KEYS.values()), host_certificates=(issue(KEYS[kind]),)) as server:
        hosts.write_text(authority(server.port))
        ran = ssh(server, user, hosts, "-v")
    assert ran.stdout == b"here\n", ran.stderr
    assert b"Server host certificate: " + issue(KEYS[kind]).type.encode() in ran.stderr
    assert b"is known and matches the " in ran.stderr


@pytest.mark.parametrize(("changes", "marker", "said"), REFUSED)
def test_ssh_refuses_what_is_no_good(
    user: Key, tmp_path: Path, changes: dict[str, Any], marker: str, said: bytes
) -> None:
    hosts = tmp_path / "known_hosts"
    with serving(host_certificates=(issue(**changes),)) as server:
        hosts.write_text(authority(server.port) + (authority(server.port, marker) if marker else ""))
        ran = ssh(server, user, hosts)
        assert (ran.returncode, ran.stdout) == (255, b"")
        assert said in ran.stderr
        # The key is looked up as if it had come alone, unless it is revoked; ours does the same.
        with hosts.open("a") as more:
            more.write(line_for(HOST, server.port, HOST_KEY.public_key))
        ran = ssh(server, user, hosts)
        assert ran.returncode == (255 if marker else 0), ran.stderr


@contextlib.contextmanager
def sshd(folder: Path, certificate: Certificate, user: Key) -> Iterator[Server]:
    path = folder / "host"
    path.touch(mode=0o600)
    path.write_bytes(HOST_KEY.openssh())
    (folder / "host-cert.pub").write_text(certificate.openssh() + "\n")
    config = (f"HostKey {path}", f"HostCertificate {folder}/host-cert.pub")
    with peers.sshd(config, authorized_keys=[user.public], host_keys=()) as server:
        yield server


def connect(server: Server, hosts: str | KnownHosts, **more: Any) -> blocking.Client:
    trusted = known_hosts.parse(hosts, "hosts") if isinstance(hosts, str) else hosts
    config = ClientConfig(user=server.user, limits=Limits(), **more)
    return blocking.connect(HOST, server.port, host_key=trusted, keys=[USER_KEY], config=config)


def test_we_believe_sshd_s_certificate(folder: Path, user: Key) -> None:
    with sshd(folder, issue(), user) as server:
        with connect(server, authority(server.port)) as client:
            assert client.run("echo here").stdout == b"here\n"
            assert client.conn.negotiated.host_key == "ssh-ed25519-cert-v01@openssh.com"
            assert client.conn.host_key == HOST_KEY.public_key
            assert Certificate.from_blob(client.conn.host_key_blob).authority == AUTHORITY.public_key
            client.conn.rekey()
            assert client.run("echo there").stdout == b"there\n"
        # Who does not trust the authority does not ask for the certificate, and knows the key.
        with connect(server, line_for(HOST, server.port, HOST_KEY.public_key)) as client:
            assert client.conn.negotiated.host_key == "ssh-ed25519"
        # Who asks for certificates only gets one, and finds no authority for it.
        preferences = Preferences(host_key=("ssh-ed25519-cert-v01@openssh.com",))
        with pytest.raises(HostKeyUnknown, match="which no @cert-authority line for the host has"):
            connect(server, "", preferences=preferences)


@pytest.mark.covers("V08", "V51")
@pytest.mark.parametrize(("changes", "marker", "said"), REFUSED)
def test_we_refuse_what_is_no_good(folder: Path, user: Key, changes: dict[str, Any], marker: str, said: bytes) -> None:
    ours = {"principal": "is for elsewhere, not for 127.0.0.1", "expired": "has expired", "revoked": r"line 2 of hosts"}
    words = ours["revoked" if marker else "principal" if changes is ELSEWHERE else "expired"]
    with sshd(folder, issue(**changes), user) as server:
        hosts = authority(server.port) + (authority(server.port, marker) if marker else "")
        # A revoked authority is not asked for certificates; who asks all the same gets to know why.
        named = Preferences(host_key=("ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519"))
        with pytest.raises(HostKeyRejected, match=words) as caught:
            connect(server, hosts, preferences=named)
        assert isinstance(caught.value, HostKeyRevoked if marker else HostKeyUnknown)
        with pytest.raises(HostKeyUnknown):
            connect(server, authority(server.port, marker) if marker else hosts)
        plain = line_for(HOST, server.port, HOST_KEY.public_key)
        if marker:
            certified = Preferences(host_key=("ssh-ed25519-cert-v01@openssh.com",))
            with pytest.raises(HostKeyRevoked):
                connect(server, hosts + plain, preferences=certified)
        with connect(server, hosts + plain) as client:
            assert client.run("echo here").stdout == b"here\n"


# ------------------------------------------------------------------------------------------ keys that are learned later


def test_ssh_learns_our_keys_and_forgets_old_ones(user: Key, tmp_path: Path) -> None:
    hosts = tmp_path / "known_hosts"
    old = PrivateKey.generate("ecdsa-sha2-nistp256").public_key

    def learned() -> bool:
        return hosts.read_text().count("\n") == len(KEYS)

    with serving(learned, host_keys=tuple(KEYS.values())) as server:
        hosts.write_text("".join(line_for(HOST, server.port, key) for key in (HOST_KEY.public_key, old)))
        ran = ssh(server, user, hosts, "-oUpdateHostKeys=yes", "-v")
        found = known_hosts.parse(hosts.read_bytes()).find(HOST, server.port)
    assert ran.returncode == 0, ran.stderr
    assert {entry.blob for entry in found} == {key.public_key.blob for key in KEYS.values()}, ran.stderr


@pytest.mark.parametrize("rsa", ["rsa-sha2-256", "rsa-sha2-512"])
def test_ssh_has_our_rsa_key_prove_itself_as_it_was_agreed(user: Key, tmp_path: Path, rsa: str) -> None:
    hosts = tmp_path / "known_hosts"

    def learned() -> bool:
        return hosts.read_text().count("\n") == len(KEYS)

    with serving(learned, host_keys=tuple(KEYS.values())) as server:
        hosts.write_text(line_for(HOST, server.port, KEYS["ssh-rsa"].public_key))
        ran = ssh(
            server, user, hosts, "-oUpdateHostKeys=yes", f"-oHostKeyAlgorithms={rsa},ssh-ed25519,ecdsa-sha2-nistp384"
        )
        assert learned(), ran.stderr


def test_ssh_is_told_nothing_if_we_will_not(user: Key, tmp_path: Path) -> None:
    hosts = tmp_path / "known_hosts"
    with serving(host_keys=tuple(KEYS.values()), announce_host_keys=False) as server:
        hosts.write_text(line_for(HOST, server.port, HOST_KEY.public_key))
        ran = ssh(server, user, hosts, "-oUpdateHostKeys=yes", "-v")
    assert ran.returncode == 0
    assert b"hostkeys-00@openssh.com" not in ran.stderr


@pytest.fixture(scope="module")
def rich(user: Key) -> Iterator[Server]:
    with peers.sshd(authorized_keys=[user.public], host_keys=("ed25519", "nistp256", "rsa")) as server:
        yield server


def told(server: Server, hosts: str, seconds: float = 10.0) -> HostKeyUpdate:
    known = known_hosts.parse(hosts)
    with connect(server, known) as client:
        update: HostKeyUpdate = client.perform(update_host_keys(client.hub, known, HOST, server.port, seconds=seconds))
        assert client.run("echo here").stdout == b"here\n"
        return update


def test_we_learn_sshd_s_keys_and_forget_old_ones(rich: Server) -> None:
    old = f"[{HOST}]:{rich.port} {PrivateKey.generate('ecdsa-sha2-nistp384').public_key.openssh()}\n"
    for known in (0, 1, 2):
        line = rich.known_hosts.splitlines(keepends=True)[known]
        update = told(rich, line + old)
        assert not update.problem
        assert {key.openssh() for key in update.added} == set(rich.host_keys) - {rich.host_keys[known]}
        assert [entry.line for entry in update.removed] == [2]
    assert told(rich, rich.known_hosts) == HostKeyUpdate()


def test_we_leave_alone_what_a_person_has_written(rich: Server) -> None:
    line = rich.known_hosts.splitlines(keepends=True)[0]
    for text, problem in (
        (line.replace("[127", "*,[127"), "has a pattern or several names"),
        (line + f"other {rich.host_keys[1]}\n", "has one of the keys under another name"),
        (line + f"@revoked * {USER_KEY.public_key.openssh()}", "has the marker @revoked"),
    ):
        update = told(rich, text)
        assert not update.changes
        assert problem in update.problem


def test_who_is_told_nothing_waits_no_longer_than_asked() -> None:
    with serving(host_keys=tuple(KEYS.values()), announce_host_keys=False) as server:
        start = time.monotonic()
        assert (
            told(attrs.evolve(server, user="somebody"), line_for(HOST, server.port, HOST_KEY.public_key), 0.2)
            == HostKeyUpdate()
        )
        assert time.monotonic() - start < 5


def test_the_announcement_is_an_event(rich: Server) -> None:
    seen: list[ev.Event] = []
    known = known_hosts.parse(rich.known_hosts)
    with blocking.connect(
        HOST, rich.port, user=rich.user, host_key=known, keys=[USER_KEY], on_event=seen.append
    ) as client:
        client.perform(update_host_keys(client.hub, known, HOST, rich.port))
    (event,) = [event for event in seen if isinstance(event, ev.GlobalRequested)]
    assert len(event.request.keys) == 3  # type: ignore[union-attr]
