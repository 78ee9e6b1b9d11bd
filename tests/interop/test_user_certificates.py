"""We log in to the stock OpenSSH server with user certificates, and bound to its host key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sshproto.errors import AuthExhausted
from sshproto.keys import FOREVER, Certificate, CertificateKind, PrivateKey, PublicKey
from sshproto.operations.login import LoginPlan
from sshproto_io import blocking
from tests.support import ours, peers
from tests.support.authenticator import ECDSA, ED25519, TOUCHED, Authenticator
from tests.support.peers import HOST, Server

AUTHORITY = PrivateKey.generate()
KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with peers.scratch() as directory:
        trusted = directory / "trusted"
        trusted.write_text(AUTHORITY.public_key.openssh() + "\n")
        with peers.sshd([f"TrustedUserCAKeys {trusted}", "LogLevel DEBUG1"]) as found:
            yield found


def certify(key: PublicKey, **values) -> Certificate:
    told = {"key_id": "an id", "principals": [peers.current_user()], "valid_before": FOREVER, **values}
    return Certificate.issue(AUTHORITY, key, CertificateKind.USER, **told)


def command(server: Server, plan: LoginPlan) -> bytes:
    host_key = PublicKey.parse(server.host_keys[0])
    with blocking.connect(HOST, server.port, user=server.user, host_key=host_key, credentials=plan) as client:
        return client.run("echo in").stdout


@pytest.mark.covers("R155")
@pytest.mark.parametrize("kind", KINDS)
def test_sshd_lets_us_in_with_a_certificate(server: Server, kind: str) -> None:
    key = PrivateKey.generate(kind, 2048 if kind == "ssh-rsa" else None)
    certificate = certify(key.public_key)
    before = len(server.log)
    assert command(server, LoginPlan([(key, certificate)])) == b"in\n"
    said = server.log[before:]
    assert "(serial 0) CA" in said
    assert "publickey-hostbound-v00@openssh.com" in said
    signer = LoginPlan(
        [(key.public_key, certificate)], signer=lambda question: key.sign(question.data, question.algorithm)
    )
    assert command(server, signer) == b"in\n"
    with pytest.raises(AuthExhausted):
        command(server, LoginPlan([key]))


def test_sshproto_exec_shows_the_certificate_beside_its_key(server: Server) -> None:
    with peers.scratch() as directory:
        key = peers.make_key(directory)
        certificate = key.path.with_name(key.path.name + "-cert.pub")
        certificate.write_text(certify(PublicKey.parse(key.public)).openssh() + "\n")
        ran = ours.execute(server, "echo in", key=key)
        assert (ran.returncode, ran.stdout) == (0, b"in\n"), ran.stderr
        certificate.unlink()
        assert ours.execute(server, "echo in", key=key).returncode == 255


def test_ssh_and_our_server_believe_one_authority() -> None:
    """A certificate each way: the server's, which ssh checks, and the user's, which it shows."""
    with peers.scratch() as directory:
        host, user = peers.make_key(directory, name="host"), peers.make_key(directory)
        for key, kind, name in ((host, CertificateKind.HOST, HOST), (user, CertificateKind.USER, "alice")):
            told = {"key_id": name, "principals": [name], "valid_before": FOREVER}
            extensions = {} if kind is CertificateKind.HOST else None
            made = Certificate.issue(AUTHORITY, PublicKey.parse(key.public), kind, **told, extensions=extensions)
            key.path.with_name(key.path.name + "-cert.pub").write_text(made.openssh() + "\n")
        trusted = directory / "authority"
        trusted.write_text(AUTHORITY.public_key.openssh() + "\n")
        argv = [*ours.PROGRAM, "serve", "--listen", f"{HOST}:0", "--exec", "--host-key", str(host.path)]
        argv += ["--host-certificate", f"{host.path}-cert.pub", "--trusted-user-ca", str(trusted)]
        log = directory / "log"
        with peers.listening(argv, log, "listening on ", ours._environment(directory)):
            port = int(log.read_text().rpartition(":")[2])
            server = Server(port=port, user="alice", host_keys=(), log_file=log)
            hosts = directory / "hosts"
            options = [f"-oUserKnownHostsFile={hosts}", "-v"]
            hosts.write_text(f"@cert-authority [{HOST}]:{port} {AUTHORITY.public_key.openssh()}\n")
            ran = peers.ssh(server, "echo in", key=user, options=options)
            assert (ran.returncode, ran.stdout) == (0, b"in\n"), ran.stderr
            assert b"ED25519-CERT" in ran.stderr
            assert peers.ssh(server, "echo in", key=user, options=["-lbob", *options]).returncode == 255
            hosts.write_text(f"@cert-authority [{HOST}]:{port} {PrivateKey.generate().public_key.openssh()}\n")
            assert peers.ssh(server, "echo in", key=user, options=options).returncode == 255


def test_what_a_certificate_says_counts(server: Server) -> None:
    key = PrivateKey.generate()
    forcing = certify(key.public_key, critical_options={"force-command": "echo forced"})
    assert command(server, LoginPlan([(key, forcing)])) == b"forced\n"
    for values in ({"principals": ["nobody"]}, {"valid_before": 1_600_000_000}):
        with pytest.raises(AuthExhausted):
            command(server, LoginPlan([(key, certify(key.public_key, **values))]))
    # What does not do is followed by what does.
    plan = LoginPlan([(key, certify(key.public_key, principals=["nobody"])), (key, certify(key.public_key))])
    assert command(server, plan) == b"in\n"


@pytest.mark.parametrize("kind", [ED25519, ECDSA])
def test_certificates_of_security_keys(server: Server, kind: str) -> None:
    token = Authenticator(kind)
    for flags, extensions, good in ((TOUCHED, {}, True), (0, {}, False), (0, {"no-touch-required": ""}, True)):
        certificate = certify(token.public_key, extensions=extensions)
        plan = LoginPlan([(token.public_key, certificate)], signer=lambda it, flags=flags: token.sign(it.data, flags))
        if good:
            assert command(server, plan) == b"in\n"
        else:
            with pytest.raises(AuthExhausted):
                command(server, plan)
