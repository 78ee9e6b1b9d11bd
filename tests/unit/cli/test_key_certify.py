"""``sshproto key certify``: certificates as ssh-keygen -s issues them."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sshproto.agent import Keyring
from sshproto.keys import FOREVER, Certificate, CertificateKind, PrivateKey, PublicKey
from sshproto.wire.codec import string, text
from sshproto_cli.main import main
from sshproto_cli.terminal import Terminal
from sshproto_io.blocking import open_agent, serve_agent
from tests.support import peers

KEY = PrivateKey.generate(comment="me@here")
AUTHORITY = PrivateKey.generate("ecdsa-sha2-nistp256", comment="authority")
TOKEN = PublicKey.from_blob(text("sk-ssh-ed25519@openssh.com") + string(KEY.public_key.blob[-32:]) + text("ssh:"))
ALL = ["permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc"]
USUAL = ("-s", "ca", "-I", "an id", "-n", "alice", "-V", "+1h")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Tests are in a folder of their own, with an authority and keys, and nobody is at a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Terminal, "present", False)
    monkeypatch.setattr(Terminal, "ask", lambda *_, **__: None)
    monkeypatch.delenv("SSHPROTO_KEY_PASSPHRASE", raising=False)
    write("ca", AUTHORITY.openssh())
    write("k.pub", KEY.public_key.openssh())


def write(name, content):
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """An agent of ours without keys, at SSH_AUTH_SOCK."""
    path = tmp_path / "socket"
    with serve_agent(Keyring(), path), open_agent(path) as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield agent


@pytest.fixture
def certify(capfd):
    """Runs the verb: status, output, errors."""

    def run(*words):
        status = main(["key", "certify", *map(str, words)])
        out, err = capfd.readouterr()
        return status, out, err

    return run


def issued(name="k-cert.pub"):
    return Certificate.parse(Path(name).read_text())


def test_users(certify):
    now = int(time.time())
    status, out, err = certify(*USUAL[:5], "alice,bob", *USUAL[6:], "-z", "0x10", "k.pub")
    assert (status, out) == (0, "")
    certificate = issued()
    assert err.startswith('user certificate k-cert.pub: "an id", serial 16, for alice,bob, valid from ')
    assert (certificate.key, certificate.authority) == (KEY.public_key, AUTHORITY.public_key)
    assert (certificate.kind, certificate.key_id, certificate.serial) == (CertificateKind.USER, "an id", 16)
    assert certificate.principals == ("alice", "bob")
    assert certificate.comment == "me@here"
    assert 0 <= certificate.valid_before - now - 3600 <= 60
    assert now - 130 <= certificate.valid_after <= now - 59 + 60
    assert list(certificate.extensions) == ALL
    assert Path("k-cert.pub").stat().st_mode & 0o777 == 0o644
    assert certify(*USUAL, "-q", "k.pub") == (0, "", "")  # and it is renewed
    assert issued().principals == ("alice",)


@pytest.mark.parametrize("words", [("-V", "-1d:+12h"), ("-V-1d:+12h",), ("--validity", "-1d:+12h")])
def test_validity_that_begins_with_a_dash(certify, words):
    assert certify(*USUAL[:-2], *words, "k.pub")[0] == 0
    certificate = issued()
    assert certificate.valid_before - certificate.valid_after == 36 * 3600


@pytest.mark.parametrize("zone", ["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3"])
def test_a_day_begins_when_it_does_for_ssh_keygen(certify, zone):
    """In summer, too, where that takes the standard time."""
    days, found = "20260101:20260701", []
    keygen = (peers.need("ssh-keygen"), "-q", "-s", "ca", "-I", "id", "-n", "alice", "-V", days, "k.pub")
    with pytest.MonkeyPatch.context() as zoned:
        zoned.setenv("TZ", zone)
        time.tzset()
        assert certify(*USUAL[:-1], days, "k.pub")[0] == 0
        found.append(issued())
        subprocess.run(keygen, check=True)
        found.append(issued())
    time.tzset()
    ours, theirs = found
    assert (ours.valid_after, ours.valid_before) == (theirs.valid_after, theirs.valid_before)


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help(certify, word):
    status, out, _ = certify(word)
    assert status == 0
    assert out.startswith("usage: sshproto key certify")


def test_a_host_as_of_ssh_keygen(certify):
    assert certify(*USUAL, "-h", "k.pub")[0] == 0
    assert issued().kind is CertificateKind.HOST


def test_hosts(certify):
    assert certify("-s", "ca", "-I", "h", "-n", "h,*.example.org", "-V", "always:forever", "--host", "k.pub")[0] == 0
    certificate = issued()
    assert (certificate.kind, dict(certificate.extensions)) == (CertificateKind.HOST, {})
    assert (certificate.valid_after, certificate.valid_before) == (0, FOREVER)


@pytest.mark.parametrize(
    ("options", "critical", "extensions"),
    [
        ([], {}, ALL),
        (["clear"], {}, []),
        (["clear", "permit-pty", "PERMIT-x11-forwarding"], {}, ["permit-X11-forwarding", "permit-pty"]),
        (["no-x11-forwarding", "no-agent-forwarding", "no-port-forwarding", "no-user-rc"], {}, ["permit-pty"]),
        (["no-pty", "permit-pty", "permit-pty"], {}, ALL),
        (["force-command=ls -l=x", "source-address=10.0.0.0/8,::1"],
         {"force-command": "ls -l=x", "source-address": "10.0.0.0/8,::1"}, ALL),
        (["clear", "critical:a@b=c=d", "critical:e@f", "extension:g@h=i", "extension:j@k"],
         {"a@b": "c=d", "e@f": ""}, ["g@h", "j@k"]),
        (["extension:permit-pty", "clear"], {}, ["permit-pty"]),
    ],
)  # fmt: skip
def test_options(certify, ssh_keygen, options, critical, extensions):
    """And ssh-keygen makes the same of these."""
    words = [word for option in options for word in ("-O", option)]
    assert certify(*USUAL, *words, "k.pub")[0] == 0
    ours = issued()
    assert {name: text(value) if value else b"" for name, value in critical.items()} == {
        name: data[4:] and data for name, data in ours.critical_options.items()
    }
    assert list(ours.extensions) == extensions
    ssh_keygen("-q", "-s", "ca", "-I", "x", "-n", "a", *words, "k.pub")
    theirs = issued()
    assert (ours.critical_options, ours.extensions) == (theirs.critical_options, theirs.extensions)


def test_options_of_security_keys(certify):
    write("k.pub", TOKEN.openssh())
    assert certify(*USUAL, "-O", "clear", "-O", "verify-required", "-O", "no-touch-required", "k.pub")[0] == 0
    assert (list(issued().critical_options), list(issued().extensions)) == (["verify-required"], ["no-touch-required"])


def test_several_keys(certify):
    write("b.pub", AUTHORITY.public_key.openssh())
    for given, serials in (("+7", (7, 8)), ("7", (7, 7)), ("+0", (0, 1))):
        assert certify(*USUAL, "-z", given, "k.pub", "b.pub")[0] == 0
        assert (issued().serial, issued("b-cert.pub").serial) == serials
    before = Path("k-cert.pub").read_text()
    write("b.pub", "oops")
    assert certify(*USUAL, "k.pub", "b.pub")[0] == 1  # all, or none
    assert Path("k-cert.pub").read_text() == before


def test_authorities(certify, monkeypatch, keys):
    write("ca", keys["ssh-rsa"].pkcs8(b"canary", iterations=10))
    status, _, err = certify(*USUAL, "k.pub")
    assert (status, err) == (
        1,
        "sshproto: ca: it is encrypted; there is no terminal to ask, SSHPROTO_KEY_PASSPHRASE may hold its passphrase\n",
    )
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", "canary")
    for words, algorithm in (((), "rsa-sha2-512"), (("-t", "rsa-sha2-256"), "rsa-sha2-256")):
        status, _, err = certify(*USUAL, *words, "k.pub")
        assert status == 0
        assert "canary" not in err
        assert issued().authority_algorithm == algorithm
    assert (
        "signs certificates as rsa-sha2-512, rsa-sha2-256, not as ssh-rsa"
        in certify(*USUAL, "-t", "ssh-rsa", "k.pub")[2]
    )


def test_an_authority_in_the_agent(certify, agent):
    """Of which only the public half is in a file."""
    write("ca.pub", AUTHORITY.public_key.openssh())
    usual = ("-U", "-s", "ca.pub", *USUAL[2:], "k.pub")
    said = f"the agent does not have the key ecdsa-sha2-nistp256 {AUTHORITY.public_key.fingerprint()} of ca.pub"
    assert certify(*usual)[::2] == (1, f"sshproto: {said}\n")
    agent.add(AUTHORITY)
    assert certify(*usual)[0] == 0
    assert (issued().authority, issued().key) == (AUTHORITY.public_key, KEY.public_key)
    agent.remove_all()
    agent.add(AUTHORITY, confirm=True)  # nobody is there to be asked
    assert certify(*usual)[::2] == (1, "sshproto: the agent: the agent refused to sign\n")


def test_no_agent(certify, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert certify("-U", *USUAL, "k.pub")[2] == "sshproto: -U: no agent is named by SSH_AUTH_SOCK\n"
    monkeypatch.setenv("SSH_AUTH_SOCK", "nowhere")
    assert certify("-U", *USUAL, "k.pub")[2].startswith("sshproto: the agent: ")


def test_where_it_goes(certify, monkeypatch):
    assert certify(*USUAL, "-o", "out", "k.pub")[0] == 0
    assert issued("out").key == KEY.public_key
    _, out, err = certify(*USUAL, "-o", "-", "k.pub")
    assert Certificate.parse(out).key == KEY.public_key
    assert err.startswith('user certificate "an id"')
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(KEY.public_key.rfc4716().encode())))
    assert Certificate.parse(certify(*USUAL, "-q", "-")[1]).comment == "me@here"
    write("id", KEY.openssh(b"word", rounds=1))  # its public half shows
    assert certify(*USUAL, "id")[0] == 0
    assert issued("id-cert.pub").key == KEY.public_key
    assert certify(*USUAL, "-o", "out", "k.pub", "id")[0] == 2


def test_nothing_but_a_certificate_is_replaced(certify):
    before = Path("ca").read_bytes()
    said = "sshproto: {}: it is there already, and is no certificate\n"
    assert certify(*USUAL, "-o", "ca", "k.pub")[::2] == (1, said.format("ca"))
    assert Path("ca").read_bytes() == before
    write("k-cert.pub", "mine")
    assert certify(*USUAL, "k.pub")[::2] == (1, said.format("k-cert.pub"))


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("-V", "tomorrow"), 2, "-V: not a time: 'tomorrow'"),
        (("-V", "-1d"), 2, "ends before it has begun"),
        (("-z", "x"), 2, "-z: a serial number is from 0"),
        (("-z", 2**64), 2, "-z: a serial number is from 0"),
        (("-O", "force-command"), 2, "-O force-command takes a value"),
        (("-O", "permit-pty=1"), 2, "-O permit-pty takes no value"),
        (("-O", "permit-all"), 2, "there is no option 'permit-all'"),
        (("-O", "force-command=a", "-O", "force-command=b"), 2, "is given twice"),
        (("-O", "source-address=x"), 1, "k.pub: not a list of addresses"),
        (("-O", "critical:x=y"), 1, "not a critical option: 'x'"),
        (("-O", "verify-required"), 1, "asks for a security key"),
        (("-n", ""), 1, "not a principal: ''"),
        (("-n", "a*"), 1, "no wildcards in users' names"),
        (("--host", "-O", "force-command=x"), 1, "host certificates have none"),
        (("-s", "k.pub"), 1, "k.pub: it is a public key, the authority's private key is expected; with -U the agent"),
        (("-s", "no"), 1, "no: No such file or directory"),
        (("no.pub",), 1, "no.pub: No such file or directory"),
    ],
)
def test_what_goes_wrong(certify, words, status, said):
    got, out, err = certify(*USUAL, *words, "k.pub")
    assert (got, out) == (status, "")
    assert said in err
    assert err.count("\n") == 1
    assert not Path("k-cert.pub").exists()


def test_what_is_not_certified(certify, openssl):
    assert certify(*USUAL, "-q", "k.pub")[0] == 0
    assert "it is a certificate already" in certify(*USUAL, "k-cert.pub")[2]
    write("e", KEY.pkcs8(b"word", iterations=10))
    assert "a public key is expected" in certify(*USUAL, "e")[2]
    openssl("genrsa", "-out", "weak", "1024")
    weak = openssl("rsa", "-in", "weak", "-pubout")
    write("w.pub", weak)
    assert "RSA key of 1024 bits" in certify(*USUAL, "w.pub")[2]
    for missing in ("-s", "-I", "-n", "-V"):
        at = USUAL.index(missing)
        assert certify(*USUAL[:at], *USUAL[at + 2 :], "k.pub")[0] == 2
