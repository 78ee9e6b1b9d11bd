"""``sshproto key show``: any file, as ssh-keygen would show it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, PrivateKey
from sshproto_cli.main import main
from sshproto_cli.terminal import Terminal
from tests.support import ppk

KEY = PrivateKey.generate(comment="me@here")
AUTHORITY = PrivateKey.generate("ecdsa-sha2-nistp384", comment="authority")
PUBLIC = KEY.public_key
LINE = f"256 {PUBLIC.fingerprint()} me@here (ED25519)"
CERTIFICATE = Certificate.issue(
    AUTHORITY,
    PUBLIC,
    CertificateKind.USER,
    key_id="an id",
    principals=["me"],
    valid_before=FOREVER,
    critical_options={"source-address": "::1", "a@b": "c"},
    extensions={"permit-pty": ""},
)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Tests are in a folder of their own, and nobody is at a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Terminal, "present", False)
    monkeypatch.setattr(Terminal, "ask", lambda *_, **__: None)
    monkeypatch.delenv("SSHPROTO_KEY_PASSPHRASE", raising=False)


@pytest.fixture
def show(capfd):
    """Writes files, runs the verb on what is named: status, lines of output, lines of errors."""

    def run(*words, **files):
        for name, content in files.items():
            path = Path(name.replace("_pub", ".pub"))
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            path.chmod(0o600)
        status = main(["key", "show", *words])
        out, err = capfd.readouterr()
        return status, out.splitlines(), err.splitlines()

    return run


@pytest.mark.parametrize(
    ("content", "how"),
    [
        (KEY.openssh(), "OpenSSH, not encrypted"),
        (KEY.pkcs8(), "PKCS#8, not encrypted"),
        (ppk.write(KEY), "PPK 3, not encrypted"),
        (ppk.write(KEY, b"word", version=2), "PPK 2, encrypted: aes256-cbc"),
    ],
    ids=["OpenSSH", "PKCS8", "PPK", "PPK encrypted"],
)
def test_private_keys(show, content, how):
    comment = "no comment" if "PKCS" in how else "me@here"
    expected = [LINE.replace("me@here", comment), f"    private key, {how}"]
    assert show("id", id=content) == (0, expected, [])


def test_public_keys(show):
    for content in (PUBLIC.openssh(), PUBLIC.rfc4716()):
        assert show("a", a=content) == (0, [LINE], [])
    assert show("-f", "a", a=PUBLIC.pkcs8()) == (0, [LINE.replace("me@here", "no comment")], [])


def test_encrypted_keys(show, monkeypatch):
    """Of OpenSSH's the public half shows; the comment does not, nor of PEM anything, but the file beside may tell."""
    content = KEY.openssh(b"word", rounds=1)
    how = "    private key, OpenSSH, encrypted: aes256-ctr, bcrypt with 1 round"
    assert show("id", id=content) == (0, [LINE.replace("me@here", "no comment"), how], [])
    assert show("id", id=content, id_pub=PUBLIC.openssh()) == (0, [LINE, how], [])
    pem = KEY.pkcs8(b"word", iterations=10)
    how = "    private key, PKCS#8, encrypted: AES-256-CBC, PBKDF2 with 10 iterations"
    assert show("id", id=pem) == (0, [LINE, how], [])
    Path("id.pub").unlink()
    said = "sshproto: id: it is encrypted; there is no terminal to ask, SSHPROTO_KEY_PASSPHRASE may hold its passphrase"
    assert show("id", id=pem) == (1, [], [said])
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", "wrong")
    assert show("id")[2] == ["sshproto: id: the passphrase in SSHPROTO_KEY_PASSPHRASE is wrong"]
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", "word")
    assert show("id") == (0, [LINE.replace("me@here", "no comment"), how], [])


def test_other_fingerprints(show):
    Path("a").write_text(PUBLIC.openssh())
    assert show("-E", "md5", "a")[1] == [LINE.replace(PUBLIC.fingerprint(), PUBLIC.fingerprint("md5"))]
    assert show("-B", "a")[1] == [LINE.replace(PUBLIC.fingerprint(), PUBLIC.bubblebabble())]
    assert show("-v", "a")[1] == [LINE, *PUBLIC.randomart().splitlines()]
    told = show("-A", "a")[1]
    words = (PUBLIC.fingerprint(), PUBLIC.fingerprint("md5"), PUBLIC.bubblebabble(), PUBLIC.openssh())
    assert told == [LINE, *(f"    {each}" for each in words), *PUBLIC.randomart().splitlines()]


def test_many_lines(show):
    lines = ["# mine", f"@revoked * {PUBLIC.openssh()}", "oops", f'no-pty,command="a b" {PUBLIC.openssh()}', ""]
    status, out, err = show("keys", keys="\n".join(lines))
    assert out == [LINE, "    line 2, for @revoked *", LINE, '    line 4, options no-pty,command="a b"']
    assert err == ["sshproto: keys line 3: not a key: 'oops'; expected 'type base64 [comment]'"]
    assert status == 1


def test_files_of_something_else(show):
    """Which are not shown line by line."""
    for content in (b"oops\n" * 500, b"\x7fELF\0\n" * 500):
        status, out, err = show("a", a=content)
        assert (status, out, len(err)) == (1, [], 1)
    status, out, err = show("a", a=b"oops\n" * 30 + PUBLIC.openssh().encode())
    assert (status, out, len(err)) == (1, [LINE], 21)
    assert err[-1] == "sshproto: a: 10 more lines can't be read"


def test_what_cannot_be_used(show):
    weak = "ssh-dss AAAAB3NzaC1kc3MAAAABBQ== old"
    status, out, err = show("a", a=weak)
    assert out == ["? SHA256:/onY6Y42cAUXQKM5UcOVjnp2xEfLefjZFgdp6AzT9OY old (ssh-dss)"]
    assert (status, len(err)) == (1, 1)
    assert err[0].startswith("sshproto: a line 1: unsupported key type ssh-dss: DSA is too weak")


def test_certificates(show):
    status, out, err = show("--utc", "c", c=CERTIFICATE.openssh())
    assert (status, err) == (0, [])
    assert out[0] == "c:"
    assert out[1] == "        Type: ssh-ed25519-cert-v01@openssh.com user certificate"
    assert "                source-address ::1" in out
    assert show("-l", "c")[1] == [LINE.replace("ED25519", "ED25519-CERT")]
    art = show("-l", "-v", "c")[1]
    assert art[1] == "+-[ED25519-CERT]--+"
    assert show("c", c=f"{PUBLIC.openssh()}\n{CERTIFICATE.openssh()}\n")[1][:2] == [LINE, "c line 2:"]


def test_lists(show):
    status, out, err = show("--utc", "krl", krl=KRL(version=3).revoke(PUBLIC).encode())
    assert (status, err) == (0, [])
    assert out == [
        "# KRL version 3",
        "# Generated at 1970-01-01T00:00:00Z",
        "",
        f"hash: {PUBLIC.fingerprint()} # ssh-ed25519",
    ]


def test_several_files_and_standard_input(show, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(PUBLIC.openssh().encode())))
    status, out, err = show("-", "no", "krl", krl=KRL().encode())
    assert out[:3] == [LINE, "    in standard input line 1", "krl:"]
    assert (status, err) == (1, ["sshproto: no: No such file or directory"])


def test_json(show):
    files = {
        "id": KEY.openssh(b"word", rounds=1),
        "c": CERTIFICATE.openssh(),
        "krl": KRL().revoke_serials(None, 5).encode(),
    }
    status, out, err = show("--json", "id", "c", "krl", **files)
    assert (status, err) == (0, [])
    private, certificate, krl = map(json.loads, out)
    assert private == {
        "file": "id", "line": None, "kind": "private key", "form": "OpenSSH", "type": "ssh-ed25519", "bits": 256,
        "comment": "", "sha256": PUBLIC.fingerprint(), "md5": PUBLIC.fingerprint("md5"),
        "bubblebabble": PUBLIC.bubblebabble(), "public": " ".join(PUBLIC.openssh().split()[:2]),
        "encryption": "aes256-ctr, bcrypt with 1 round", "where": None, "problem": None,
    }  # fmt: skip
    assert certificate["certificate"] == {
        "type": "ssh-ed25519-cert-v01@openssh.com", "for": "user", "key_id": "an id", "serial": 0,
        "principals": ["me"], "valid_after": 0, "valid_before": None, "valid": True,
        "critical_options": {"a@b": "c", "source-address": "::1"}, "extensions": {"permit-pty": ""},
        "authority": {"type": "ecdsa-sha2-nistp384", "sha256": AUTHORITY.public_key.fingerprint()},
        "signed_with": "ecdsa-sha2-nistp384",
    }  # fmt: skip
    assert krl["certificates"] == [{"authority": None, "serials": [[5, 5]], "key_ids": []}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "this is empty"),
        (b"-----BEGIN CERTIFICATE-----", "this is an X.509 certificate"),
        (b"SSHKRL\n\0", "malformed revocation list"),
        (KEY.openssh()[:-40], "cut short"),
        (b"\x1b[2J", r"not a key: '\\x1b[2J'"),
    ],
)
def test_what_is_no_file_of_keys(show, content, said):
    status, out, err = show("a", a=content)
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].startswith("sshproto: a")
    assert said in err[0]


def test_a_file_has_to_be_named(show):
    assert show()[0] == 2


def test_it_is_what_ssh_keygen_shows(show, ssh_keygen):
    Path("many").write_text(f"{PUBLIC.openssh()}\n{AUTHORITY.public_key.openssh()}\n{CERTIFICATE.openssh()}\n")
    for options in ((), ("-E", "md5"), ("-v",)):
        assert show("-l", *options, "many")[1] == ssh_keygen("-l", *options, "-f", "many").splitlines()
    for options in (("-B",),):
        assert show("-l", *options, "many")[1] == ssh_keygen(*options, "-f", "many").splitlines()
