"""Certificates and revocation lists in words: those of ssh-keygen."""

from __future__ import annotations

import os
import subprocess

import pytest

from sshproto.keys import (
    FOREVER,
    KRL,
    Certificate,
    CertificateKind,
    PrivateKey,
    PublicKey,
    certificate_text,
    krl_text,
    revoke_specified,
)
from sshproto.keys.listing import fingerprint_line, show_moment
from sshproto.wire.codec import string, text
from tests.unit.keys.conftest import SSH_KEYGEN

NOW = 1_700_000_000
KEY = PrivateKey.generate(comment="me@here").public_key
AUTHORITY = PrivateKey.generate("ecdsa-sha2-nistp256")
TOKEN = PublicKey.from_blob(text("sk-ssh-ed25519@openssh.com") + string(KEY.blob[-32:]) + text("ssh:"))


def issue(**values):
    given = {"key_id": "an id", "principals": ["alice", "bob"], "valid_before": FOREVER, "key": KEY} | values
    kind = given.pop("kind", CertificateKind.USER)
    return Certificate.issue(AUTHORITY, given.pop("key"), kind, **given)


CERTIFICATES = {
    "plain": issue(),
    "host": issue(kind=CertificateKind.HOST, serial=2**64 - 1),
    "between": issue(valid_after=NOW, valid_before=NOW + 3600),
    "before": issue(valid_before=NOW),
    "after": issue(valid_after=NOW),
    "options": issue(critical_options={"force-command": 'ls "x"', "source-address": "10.0.0.0/8,::1"}, extensions={}),
    "token": issue(key=TOKEN, critical_options={"verify-required": ""}, extensions={"no-touch-required": ""}),
}


@pytest.fixture
def listed(ssh_keygen, tmp_path):
    """The lines of ssh-keygen -L, in UTC, without the name of the file."""

    def run(certificate):
        path = tmp_path / "cert.pub"
        path.write_text(certificate.openssh())
        env = {"PATH": os.environ["PATH"], "TZ": "UTC", "LC_ALL": "C", "HOME": "/dev/null"}
        done = subprocess.run([SSH_KEYGEN, "-L", "-f", path], env=env, capture_output=True, check=True, timeout=60)
        return [line.rstrip() for line in done.stdout.decode().splitlines()[1:]]

    return run


@pytest.mark.parametrize("which", CERTIFICATES)
def test_certificates_as_ssh_keygen_shows_them(listed, which):
    certificate = CERTIFICATES[which]
    ours = certificate_text(certificate).replace("00Z", "00").replace("20Z", "20")
    assert ours.splitlines() == listed(certificate)


def test_options_that_are_not_known():
    certificate = issue(critical_options={"a@b": "xyz"}, extensions={"c@d": "", "permit-pty": ""})
    lines = certificate_text(certificate).splitlines()
    assert lines[-5:] == [
        "        Critical Options:",
        "                a@b UNKNOWN OPTION: xyz",
        "        Extensions:",
        "                c@d UNKNOWN FLAG OPTION",
        "                permit-pty",
    ]


def test_time_is_told_if_it_is_known():
    certificate = CERTIFICATES["between"]
    for now, said in ((NOW - 1, " (not yet valid)"), (NOW, ""), (NOW + 3599, ""), (NOW + 3600, " (expired)")):
        assert f"to 2023-11-14T23:13:20Z{said}\n" in certificate_text(certificate, now=now)
    assert show_moment(2**63) == f"second {2**63}"


def test_words_of_others_are_made_harmless():
    certificate = issue(key_id="\x1b[2J\n", principals=["a\nb"], extensions={"permit-pty": ""})
    shown = certificate_text(certificate)
    assert 'Key ID: "\\x1b[2J\\n"' in shown
    assert "                a\\nb\n" in shown
    assert fingerprint_line(KEY, "\x1b") == f"256 {KEY.fingerprint()} \\x1b (ED25519)"
    assert fingerprint_line(KEY, "", "md5", certified=True) == f"256 {KEY.fingerprint('md5')} no comment (ED25519-CERT)"
    evil = KRL(comment="\x1b").revoke_key_ids(None, "a\nid: b", "x#y", " c", "d")
    lines = krl_text(evil).splitlines()
    assert "# Comment: \\x1b" in lines
    assert [line for line in lines if line.startswith("id: ")] == ["id: d"]
    assert "# id, which no specification can hold: 'a\\\\nid: b'" in lines


def test_lists_as_ssh_keygen_shows_them(ssh_keygen, tmp_path):
    authority = AUTHORITY.public_key
    revoked = KRL(version=7, generated=NOW).revoke(KEY).revoke_serials(authority, 3, (5, 9)).revoke_serials(None, 8)
    revoked = revoked.revoke_key_ids(authority, "some id", "another")
    path = tmp_path / "krl"
    path.write_bytes(revoked.encode())
    theirs = ssh_keygen("-Q", "-l", "-f", path).splitlines()
    ours = krl_text(revoked).splitlines()
    assert ours[:2] == ["# KRL version 7", "# Generated at 2023-11-14T22:13:20Z"]
    assert theirs[0] == ours[0]
    assert sorted(filter(None, ours[2:])) == sorted(filter(None, theirs[2:]))


def test_a_listing_is_a_specification():
    authority = AUTHORITY.public_key
    revoked = KRL().revoke_serials(authority, 3, (5, 2**64 - 1)).revoke_key_ids(authority, "some id")
    assert revoke_specified(KRL(), krl_text(revoked), authorities=[authority]) == revoked
    keys = KRL().revoke(KEY).revoke_fingerprints(TOKEN.fingerprint(), "SHA1:" + "A" * 27)
    again = revoke_specified(KRL(), krl_text(keys))
    assert again.revokes(KEY)
    assert again.revokes(TOKEN)
    assert again.sha1 == keys.sha1
