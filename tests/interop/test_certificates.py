"""What we issue and revoke, before OpenSSH's own client and server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, CertificateRefused, PrivateKey, PublicKey
from tests.support import peers
from tests.support.peers import HOST, Key, Ran, Server

KINDS = ("ed25519", "nistp256", "nistp384", "nistp521", "rsa")
AUTHORITIES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")

# The server has a certificate for another host key than the one that the tests' known_hosts knows.
PLAIN = ("-oHostKeyAlgorithms=ssh-ed25519",)
DENIED = b"Permission denied"


@attrs.frozen
class Authority:
    """A server that trusts authorities, and has a certificate of the first of them."""

    keys: dict[str, PrivateKey]
    server: Server
    revoked: Path


@pytest.fixture(scope="module")
def trusting() -> Iterator[Authority]:
    """A server of OpenSSH's that trusts our authorities, one of each type, and reads a revocation list of ours."""
    made = {kind: PrivateKey.generate(kind, 2048 if kind == "ssh-rsa" else None) for kind in AUTHORITIES}
    with peers.scratch() as directory:
        trusted, revoked, host = directory / "trusted", directory / "revoked", directory / "host"
        trusted.write_text("".join(f"{key.public_key.openssh()}\n" for key in made.values()))
        revoked.write_bytes(KRL().encode())
        host_key = PrivateKey.generate("ecdsa-sha2-nistp256")
        host.touch(mode=0o600)
        host.write_bytes(host_key.openssh())
        certificate = issue(made["ssh-ed25519"], host_key.public_key, CertificateKind.HOST, principals=["host", HOST])
        (directory / "host-cert.pub").write_text(certificate.openssh() + "\n")
        config = (
            *(f"HostKey {host}", f"HostCertificate {directory}/host-cert.pub"),
            *(f"TrustedUserCAKeys {trusted}", f"RevokedKeys {revoked}", "MaxAuthTries 20"),
        )
        with peers.sshd(config) as server:
            yield Authority(made, server, revoked)


def issue(authority: PrivateKey, key: PublicKey, kind: CertificateKind = CertificateKind.USER, **values) -> Certificate:
    given = {"key_id": "an id", "principals": [peers.current_user()], "valid_before": FOREVER, "serial": 7} | values
    return Certificate.issue(authority, key, kind, **given)


def log_in(trusting: Authority, key: Key, certificate: Certificate, *options: str) -> Ran:
    path = key.path.with_name(key.path.name + "-cert.pub")
    path.write_text(certificate.openssh() + "\n")
    try:
        return peers.ssh(trusting.server, "echo here; tty", key=key, options=options or PLAIN)
    finally:
        path.unlink()


@pytest.mark.parametrize(("kind", "authority"), list(zip(KINDS, AUTHORITIES[2:] + AUTHORITIES[:2], strict=True)))
def test_sshd_lets_in_whom_we_certify(trusting: Authority, keys: dict[str, Key], kind: str, authority: str) -> None:
    certificate = issue(trusting.keys[authority], PublicKey.parse(keys[kind].public))
    ran = log_in(trusting, keys[kind], certificate)
    assert ran.stdout.startswith(b"here\n"), ran.stderr
    assert "ID an id (serial 7) CA" in trusting.server.log
    plain = peers.ssh(trusting.server, "echo here", key=keys[kind], options=PLAIN)
    assert (plain.returncode, plain.stdout) == (255, b"")  # so it was the certificate


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"critical_options": {"force-command": "echo forced"}}, b"forced"),
        ({"critical_options": {"source-address": f"{HOST}/32,10.0.0.0/8"}}, b"/dev/"),
        ({"critical_options": {"source-address": "10.0.0.0/8"}}, DENIED),
        ({"critical_options": {"odd@example.org": ""}}, DENIED),
        ({"extensions": {"odd@example.org": "x", "permit-pty": ""}}, b"/dev/"),
        ({"extensions": {}}, b"PTY allocation request failed"),
        ({"principals": ["somebody", "else"]}, DENIED),
        ({"valid_before": int(time.time()) - 10}, DENIED),
        ({"valid_after": int(time.time()) + 3600}, DENIED),
    ],
    ids=[
        *("command", "address", "other address", "unknown option", "unknown extension", "no extension"),
        *("principal", "expired", "not yet"),
    ],
)
def test_sshd_obeys_what_is_in_a_certificate(trusting: Authority, keys: dict[str, Key], values, said) -> None:
    """And in each of these cases we come to the same verdict."""
    authority = trusting.keys["ssh-ed25519"]
    certificate = issue(authority, PublicKey.parse(keys["ed25519"].public), **values)
    ran = log_in(trusting, keys["ed25519"], certificate, *PLAIN, "-tt")
    assert said in ran.stdout + ran.stderr
    values = {"authorities": [authority.public_key], "now": time.time(), "address": HOST, "enforced": ["force-command"]}
    try:
        grant = certificate.check(CertificateKind.USER, trusting.server.user, **values)
    except CertificateRefused:
        assert said == DENIED
    else:
        assert said != DENIED
        assert grant.force_command == ("echo forced" if said == b"forced" else None)
        assert grant.pty == (b"PTY" not in said)


@pytest.mark.parametrize("how", ["serial", "serials", "key id", "key", "digest", "authority", "another", "bitmap"])
def test_sshd_reads_our_revocation_list(trusting: Authority, keys: dict[str, Key], how: str) -> None:
    authority = trusting.keys["ssh-ed25519"].public_key
    key = PublicKey.parse(keys["ed25519"].public)
    certificate = issue(trusting.keys["ssh-ed25519"], key)
    nothing = KRL()
    revoked = {
        "serial": nothing.revoke(certificate),
        "serials": nothing.revoke_serials(authority, (1, 2**60)),
        "key id": nothing.revoke_key_ids(None, "an id"),
        "key": nothing.revoke(key),
        "digest": nothing.revoke_fingerprints(key.fingerprint()),
        "authority": nothing.revoke(authority),
        "another": nothing.revoke_serials(trusting.keys["ssh-rsa"].public_key, 7).revoke_serials(authority, 6, 8),
        "bitmap": nothing.revoke_serials(authority, *range(1, 60_000, 2)),
    }[how]
    trusting.revoked.write_bytes(revoked.encode())
    try:
        ran = log_in(trusting, keys["ed25519"], certificate)
    finally:
        trusting.revoked.write_bytes(nothing.encode())
    assert (ran.returncode == 255) == revoked.revokes(certificate) == (how != "another"), ran.stderr


def test_ssh_trusts_our_host_certificate(trusting: Authority, keys: dict[str, Key], tmp_path: Path) -> None:
    certificate = issue(trusting.keys["ssh-rsa"], PublicKey.parse(keys["ed25519"].public))
    hosts = tmp_path / "known_hosts"
    options = (f"-oUserKnownHostsFile={hosts}", "-oHostKeyAlgorithms=ecdsa-sha2-nistp256-cert-v01@openssh.com")
    for kind, trusted in (("ssh-ed25519", True), ("ssh-rsa", False)):
        line = trusting.keys[kind].public_key.openssh()
        hosts.write_text(f"@cert-authority [{HOST}]:{trusting.server.port} {line}\n")
        ran = log_in(trusting, keys["ed25519"], certificate, *options)
        assert (ran.stdout[:5] == b"here\n") is trusted, ran.stderr
