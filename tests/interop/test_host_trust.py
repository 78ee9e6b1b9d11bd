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
from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, KnownHosts, PrivateKey, known_hosts
from sshproto.keys.known_hosts import line_for
from sshproto.operations.host_key_update import HostKeyUpdate, update_host_keys
from sshproto_io import blocking
from tests.support import ours, peers
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
        assert time.monotonic() - start < 20


def test_the_announcement_is_an_event(rich: Server) -> None:
    seen: list[ev.Event] = []
    known = known_hosts.parse(rich.known_hosts)
    with blocking.connect(
        HOST, rich.port, user=rich.user, host_key=known, keys=[USER_KEY], on_event=seen.append
    ) as client:
        client.perform(update_host_keys(client.hub, known, HOST, rich.port))
    (event,) = [event for event in seen if isinstance(event, ev.GlobalRequested)]
    assert len(event.request.keys) == 3  # type: ignore[union-attr]


# ----------------------------------------------------------------------------------------------------- the command line


def configured(hosts: Path, *more: str) -> list[str]:
    words = [*more, f"UserKnownHostsFile={hosts}", "GlobalKnownHostsFile=none", "StrictHostKeyChecking=yes"]
    return ["-F", "none", *(part for word in words for part in ("-o", word))]


def execute(server: Server, user: Key, hosts: Path, *more: str) -> Ran:
    with peers.scratch() as home:
        words = ["exec", "-p", str(server.port), "-l", server.user, "-i", str(user.path), *configured(hosts, *more)]
        return ours.run([*words, HOST, "echo here; sleep 0.4"], peers.environment(home))


@pytest.mark.parametrize("changes", [{}, ELSEWHERE, EXPIRED], ids=["good", "principal", "expired"])
def test_the_command_line_believes_sshd_s_certificate(
    folder: Path, user: Key, tmp_path: Path, changes: dict[str, Any]
) -> None:
    hosts = tmp_path / "known_hosts"
    with sshd(folder, issue(**changes), user) as server:
        hosts.write_text(authority(server.port))
        ran = execute(server, user, hosts)
        if not changes:
            assert ran == Ran(0, b"here\n", b"")
            return
        assert (ran.returncode, ran.stdout) == (255, b"")
        assert b"the host certificate of 127.0.0.1 does not count, its key is looked at alone" in ran.stderr
        assert b"no host is let in that is not known" in ran.stderr
        hosts.write_text(authority(server.port) + line_for(HOST, server.port, HOST_KEY.public_key))
        assert execute(server, user, hosts).stdout == b"here\n"


@pytest.mark.parametrize("plain_list", [False, True])
def test_the_command_line_obeys_revoked_host_keys(folder: Path, user: Key, tmp_path: Path, plain_list: bool) -> None:
    hosts, revoked = tmp_path / "known_hosts", tmp_path / "revoked"
    with sshd(folder, issue(), user) as server:
        hosts.write_text(authority(server.port) + line_for(HOST, server.port, HOST_KEY.public_key))
        for key in (AUTHORITY, HOST_KEY):
            public = key.public_key
            revoked.write_bytes(public.openssh().encode() if plain_list else KRL().revoke(public).encode())
            ran = execute(server, user, hosts, f"RevokedHostKeys={revoked}")
            assert (ran.returncode, ran.stdout) == (255, b"")
            assert f"is revoked by {revoked}".encode() in ran.stderr
            theirs = ssh(server, user, hosts, f"-oRevokedHostKeys={revoked}", f"-oHostKeyAlgorithms={issue().type}")
            assert theirs.returncode == 255
            assert b"revoked by file" in theirs.stderr
        revoked.unlink()
        assert execute(server, user, hosts, f"RevokedHostKeys={revoked}").returncode == 255  # as with ssh


@pytest.mark.covers("V08")
@pytest.mark.parametrize("strict", ["ask", "accept-new", "yes"])
@pytest.mark.parametrize("known", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_a_changed_key_stops_ssh_and_us_with_file_and_line(user: Key, tmp_path: Path, known: str, strict: str) -> None:
    """Also one of another type than the one that is known."""
    hosts = tmp_path / "known_hosts"
    old = PrivateKey.generate(known).public_key
    with serving() as server:
        hosts.write_text("# mine\n" + line_for(HOST, server.port, old))
        theirs = ssh(server, user, hosts, f"-oStrictHostKeyChecking={strict}")
        mine = execute(server, user, hosts, f"StrictHostKeyChecking={strict}")
        for ran, place in ((theirs, f"{hosts}:2"), (mine, f"{hosts} line 2")):
            assert (ran.returncode, ran.stdout) == (255, b"")
            said = ran.stderr.decode()
            assert place in said
            assert HOST_KEY.public_key.fingerprint() in said
        assert old.fingerprint() in said
        assert f"sshproto known-hosts remove --file {hosts} '[{HOST}]:{server.port}'" in said
        words = ["known-hosts", "remove", "--file", str(hosts), f"[{HOST}]:{server.port}"]
        assert ours.run(words, peers.environment(tmp_path)).returncode == 0
        assert hosts.read_text() == "# mine\n"
        assert execute(server, user, hosts, "StrictHostKeyChecking=accept-new").returncode == 0


def test_the_command_line_learns_keys(rich: Server, user: Key, tmp_path: Path) -> None:
    hosts = tmp_path / "known_hosts"
    old = PrivateKey.generate("ecdsa-sha2-nistp384").public_key
    line = rich.known_hosts.splitlines(keepends=True)[0]
    text = f"# mine\n{line}other {old.openssh()}\n".replace("other ", f"[{HOST}]:{rich.port} ")
    hosts.write_text(text)
    hosts.chmod(0o640)
    assert execute(rich, user, hosts, "UpdateHostKeys=no").returncode == 0
    assert hosts.read_text() == text
    ran = execute(rich, user, hosts, "UpdateHostKeys=yes")
    assert ran == Ran(0, b"here\n", b"")
    assert hosts.read_text().splitlines(keepends=True)[:2] == ["# mine\n", line]
    found = known_hosts.parse(hosts.read_text()).find(HOST, rich.port)
    assert {f"{entry.key_type} {entry.key().openssh().split()[1]}" for entry in found} == set(rich.host_keys)
    assert hosts.stat().st_mode & 0o777 == 0o640
    assert hosts.with_name("known_hosts.old").read_text() == text
    hosts.write_text(line)
    assert execute(rich, user, hosts, "UpdateHostKeys=yes", "HashKnownHosts=yes").returncode == 0
    assert hosts.read_text().count("|1|") == 2


def test_ssh_believes_the_certificate_of_sshproto_serve(user: Key, tmp_path: Path) -> None:
    with peers.scratch() as directory:
        path = directory / "host"
        path.touch(mode=0o600)
        path.write_bytes(KEYS["ecdsa-sha2-nistp384"].openssh())
        certificate = directory / "host-cert.pub"
        certificate.write_text(issue(KEYS["ecdsa-sha2-nistp384"]).openssh() + "\n")
        options = ("--host-key", str(path), "--host-certificate", str(certificate))
        with ours.serve(options, authorized_keys=[user.public]) as server:
            hosts = tmp_path / "known_hosts"
            hosts.write_text(authority(server.port))
            ran = peers.ssh(server, "echo here", key=user, options=(f"-oUserKnownHostsFile={hosts}",))
            assert ran.stdout == b"here\n", ran.stderr
            ran = execute(server, user, hosts)
            assert ran == Ran(0, b"here\n", b"")
