"""What is made of what is known of a host: who is believed, and what is asked for first."""

from __future__ import annotations

from typing import Any

import pytest

from sshproto.algorithms import SIGNATURE_DEFAULT
from sshproto.config import ClientConfig
from sshproto.errors import HostKeyChanged, HostKeyRejected, HostKeyRevoked, HostKeyUnknown, InvalidArgument
from sshproto.events import HostKeyOffered
from sshproto.keys import Certificate, CertificateKind, KnownHosts, PrivateKey, known_hosts
from sshproto.keys.known_hosts import line_for, marked_line
from sshproto.operations.host_keys import host_key_check, prefer_known

NOW = 1_800_000_000
KEY, OTHER = PrivateKey.generate().public_key, PrivateKey.generate().public_key
AUTHORITY = PrivateKey.generate()
CERTIFICATE = Certificate.issue(
    AUTHORITY,
    KEY,
    CertificateKind.HOST,
    key_id="x",
    principals=("*.example.org",),
    valid_after=NOW - 10,
    valid_before=NOW + 10,
)
TRUSTED = marked_line("@cert-authority", "*.example.org", AUTHORITY.public_key)
HOST = "a.example.org"


def known(*lines: str) -> KnownHosts:
    return known_hosts.parse("".join(lines), "hosts")


def ask(trusted: Any, certificate: Certificate | None = None, now: float | None = NOW, key: Any = KEY) -> Any:
    check = host_key_check(trusted, HOST, 22, clock=None if now is None else lambda: now)
    return check(HostKeyOffered(id=1, key=key, algorithm="x", certificate=certificate))


def test_a_certificate_counts_for_who_knows_the_time() -> None:
    assert ask(known(TRUSTED), CERTIFICATE) is True
    with pytest.raises(HostKeyUnknown, match="is not known: ssh-ed25519"):
        ask(known(TRUSTED), CERTIFICATE, None)
    with pytest.raises(HostKeyUnknown, match=r"is not known: .*; the certificate .* has expired"):
        ask(known(TRUSTED), CERTIFICATE, NOW + 10)
    assert ask(known(TRUSTED, line_for(HOST, 22, KEY)), CERTIFICATE, NOW + 10) is True
    assert ask(KEY, CERTIFICATE) is True  # the one key that is good, whoever says so
    with pytest.raises(HostKeyChanged):
        ask(OTHER, CERTIFICATE)


@pytest.mark.parametrize(
    ("lines", "error", "words"),
    [
        (line_for(HOST, 22, OTHER), HostKeyChanged, r"is not the one that is known \(line 1 of hosts\)"),
        ("# x\n" + marked_line("@revoked", "*", KEY), HostKeyRevoked, r"is revoked \(line 2 of hosts\)"),
        (marked_line("@revoked", "*", AUTHORITY.public_key) + TRUSTED, HostKeyRevoked, r"line 1 of hosts"),
        ("", HostKeyUnknown, "which no @cert-authority line for the host has"),
    ],
    ids=lambda _: "",  # keys in names would be others in each process
)
def test_an_error_names_the_line(lines: str, error: type[HostKeyRejected], words: str) -> None:
    with pytest.raises(HostKeyRejected, match=words) as caught:
        ask(known(lines), CERTIFICATE)
    assert type(caught.value) is error


def test_what_is_asked_for_first() -> None:
    config = ClientConfig(user="alice")
    order = prefer_known(config, known(TRUSTED), HOST, 22).preferences.host_key
    assert order[0] == "ssh-ed25519-cert-v01@openssh.com"
    assert prefer_known(config, known(TRUSTED), HOST, 22, certificates=False).preferences.host_key == SIGNATURE_DEFAULT
    assert prefer_known(config, known(TRUSTED), "b", 22) == config
    with pytest.raises(InvalidArgument, match="not a host name"):
        prefer_known(config, known(TRUSTED), "*", 22)
