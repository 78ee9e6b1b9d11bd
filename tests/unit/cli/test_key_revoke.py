"""``sshproto key revoke``: lists made, updated and asked as by ssh-keygen -k, -u and -Q."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, PrivateKey
from sshproto_cli.main import main
from tests.unit.keys.conftest import SSH_KEYGEN

KEY = PrivateKey.generate(comment="me@here")
PUBLIC = KEY.public_key
AUTHORITY = PrivateKey.generate("ecdsa-sha2-nistp256", comment="authority")
OTHER = PrivateKey.generate(comment="other").public_key


def issue(**values):
    return Certificate.issue(
        AUTHORITY, PUBLIC, CertificateKind.USER, principals=["me"], valid_before=FOREVER, **({"key_id": "id"} | values)
    )


CERTIFICATE = issue(serial=7)
FILES = {
    "k.pub": PUBLIC.openssh(),
    "k-cert.pub": CERTIFICATE.openssh(),
    "other.pub": OTHER.openssh(),
    "ca.pub": AUTHORITY.public_key.openssh(),
    "spec": "serial: 5-9\nid: id\n",
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Tests are in a folder of their own, with these files."""
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).write_text(content)


@pytest.fixture
def revoke(capfd):
    """Runs the verb: status, lines of output, errors."""

    def run(*words):
        status = main(["key", "revoke", "-f", "krl", *map(str, words)])
        out, err = capfd.readouterr()
        return status, out.splitlines(), err

    return run


def read():
    return KRL.parse(Path("krl").read_bytes())


def test_made_and_updated(revoke):
    now = int(time.time())
    status, out, err = revoke("k.pub", "-z", 5, "--comment", "ours")
    assert (status, out) == (0, [])
    assert err == "krl: version 5 revokes 1 key\n"
    first = read()
    assert (first.version, first.comment, first.keys) == (5, "ours", {PUBLIC.blob})
    assert now <= first.generated <= time.time()
    assert revoke("-u", "-q", "-s", "ca.pub", "spec", "k-cert.pub") == (0, [], "")
    second = read()
    assert (second.version, second.comment, second.keys) == (6, "ours", {PUBLIC.blob})
    assert second.certificates[0].serials == ((5, 9),)
    assert second.certificates[0].key_ids == {"id"}
    assert revoke("-u", "-z", 3)[0] == 0
    assert (read().version, read().certificates) == (3, second.certificates)


def test_a_list_is_never_made_anew_unasked(revoke):
    assert revoke("-k", "k.pub")[0] == 0
    before = Path("krl").read_bytes()
    status, _, err = revoke("other.pub")
    assert (status, err) == (2, "sshproto: krl: it is there already; -u adds to it, --overwrite makes it anew\n")
    assert Path("krl").read_bytes() == before
    assert revoke("--overwrite", "other.pub")[0] == 0
    assert read().keys == {OTHER.blob}
    Path("krl").unlink()
    status, _, err = revoke("-u", "k.pub")
    assert (status, err) == (2, "sshproto: krl: there is no such list; without -u it is made\n")


def test_nothing_but_a_list_is_replaced(revoke):
    Path("krl").write_text(PUBLIC.openssh())
    assert "it is a public key; a revocation list is expected" in revoke("--overwrite", "k.pub")[2]
    assert Path("krl").read_text() == PUBLIC.openssh()


def test_all_kinds_of_files(revoke, monkeypatch):
    Path("p").write_bytes(KEY.openssh(b"word", rounds=1))
    Path("r").write_text(OTHER.rfc4716())
    Path("l").write_bytes(KRL().revoke_serials(None, 99).encode())
    hashed = f"sha256: {AUTHORITY.public_key.openssh()}\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(hashed.encode())))
    assert revoke("p", "r", "l", "-", "spec", "-s", "none")[0] == 0
    made = read()
    assert made.keys == {PUBLIC.blob, OTHER.blob}
    assert len(made.sha256) == 1
    [everybody] = made.certificates
    assert (everybody.authority, everybody.serials) == (b"", ((5, 9), (99, 99)))


def test_authorities(revoke):
    assert revoke("-s", "ca.pub", "-s", "other.pub", "spec")[0] == 0
    assert {part.authority for part in read().certificates} == {AUTHORITY.public_key.blob, OTHER.blob}
    for words, said in (
        (("spec",), "spec: line 1: serial: a certificate's authority has to be named"),
        (("spec", "-s", "k-cert.pub"), "k-cert.pub: it is a certificate; the authority's public key is expected"),
    ):
        status, _, err = revoke("--overwrite", *words)
        assert status == 2
        assert said in err


def test_asked(revoke, ssh_keygen):
    """The status, and who is revoked, are ssh-keygen's."""
    assert revoke("-s", "ca.pub", "spec", "other.pub")[0] == 0
    why = "its authority's certificates with the key id 'id' are listed"
    assert revoke("-Q", "k.pub") == (0, ["k.pub (me@here): ok"], "")
    assert revoke("-Q", "k.pub", "k-cert.pub")[:2] == (
        1,
        ["k.pub (me@here): ok", f"k-cert.pub (me@here): REVOKED: {why}"],
    )
    assert revoke("-Q", "-q", "k.pub", "k-cert.pub")[1][1] == "k-cert.pub (me@here): REVOKED"
    for name in FILES.keys() - {"spec"}:
        done = subprocess.run([SSH_KEYGEN, "-Q", "-f", "krl", name], capture_output=True, check=False, timeout=60)
        status, out, _ = revoke("-Q", "-q", name)
        assert (status, out) == (done.returncode, done.stdout.decode().splitlines())


def test_every_key_of_a_file_is_asked_about(revoke):
    assert revoke("other.pub")[0] == 0
    Path("many").write_text(f"{PUBLIC.openssh()}\nhost {OTHER.openssh()}\nno-pty {PUBLIC.openssh()}\n")
    status, out, _ = revoke("-Q", "-q", "many")
    assert (status, out) == (
        1,
        ["many line 1 (me@here): ok", "many line 2 (other): REVOKED", "many line 3 (me@here): ok"],
    )


def test_no_answer_is_not_ok(revoke):
    """What can't be asked about has the status 2, whatever else is ok."""
    assert revoke("other.pub")[0] == 0
    Path("bad").write_text(f"{PUBLIC.openssh()}\noops\n")
    Path("e").write_bytes(KEY.pkcs8(b"word", iterations=10))
    for words, said in (
        (("no",), "no: No such file or directory"),
        (("bad",), "bad line 2: not a key"),
        (("e",), "e: the public half of the key doesn't show"),
    ):
        status, out, err = revoke("-Q", *words)
        assert (status, out) == (2, [])
        assert said in err
    Path("krl").write_text("x")
    assert revoke("-Q", "k.pub")[0] == 2
    Path("krl").write_text(PUBLIC.openssh())
    assert "it is a public key; a revocation list is expected" in revoke("-Q", "k.pub")[2]
    Path("krl").unlink()
    assert revoke("-Q", "k.pub")[0] == 2


def test_keys_of_unknown_types(revoke):
    weak = "ssh-dss AAAAB3NzaC1kc3MAAAABBQ== old"
    Path("weak").write_text(weak)
    assert revoke("weak")[0] == 0
    assert revoke("-Q", "-q", "weak", "k.pub")[:2] == (1, ["weak (old): REVOKED", "k.pub (me@here): ok"])


def test_listed(revoke):
    assert revoke("-s", "ca.pub", "-z", 2, "spec")[0] == 0
    status, out, _ = revoke("-Q", "-l", "k.pub")
    assert status == 0
    assert out[0] == "# KRL version 2"
    assert out[2:] == [
        "",
        f"# CA key ecdsa-sha2-nistp256 {AUTHORITY.public_key.fingerprint()}",
        "serial: 5-9",
        "id: id",
        "k.pub (me@here): ok",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-Q",), "-Q takes the keys to ask about, or -l"),
        (("-l",), "-l goes with -Q"),
        (("-Q", "-u", "k.pub"), "-u is for making a list"),
        (("-Q", "-s", "ca.pub", "k.pub"), "-s is for making a list"),
        (("-Q", "-z", "1", "k.pub"), "-z is for making a list"),
        (("-u", "--overwrite"), "-u adds to a list, --overwrite makes it anew"),
        (("-z", "x"), "-z: a version is from 0"),
        (("-z", 2**64), "-z: a version is from 0"),
        (("-k", "-Q"), "not allowed with"),
        (("--comment", "a\0b"), "its comment has no NUL"),
    ],
)
def test_misuse(revoke, words, said):
    status, out, err = revoke(*words)
    assert (status, out) == (2, [])
    assert said in err
    assert err.count("\n") == 1
    assert not Path("krl").exists()


def test_of_two_who_add_both_do(monkeypatch):
    """What one adds while another one has read the list, and not yet written it, is not lost."""
    from sshproto_cli.key import revoke as verb

    def run(*words):
        args = SimpleNamespace(
            list="krl",
            files=list(words),
            update=True,
            overwrite=False,
            number=None,
            authority=[],
            comment=None,
            quiet=True,
        )
        verb._make(args)

    Path("krl").write_bytes(KRL().encode())
    load, entered, go_on = verb._load, threading.Event(), threading.Event()

    def slow(path):
        found = load(path)
        if threading.current_thread() is first:
            entered.set()
            go_on.wait(10)
        return found

    monkeypatch.setattr(verb, "_load", slow)
    first = threading.Thread(target=run, args=["k.pub"])
    second = threading.Thread(target=run, args=["other.pub"])
    first.start()
    assert entered.wait(10)
    second.start()
    second.join(0.1)
    assert second.is_alive()  # it waits
    go_on.set()
    first.join(10)
    second.join(10)
    assert read().keys == {PUBLIC.blob, OTHER.blob}
    assert read().version == 2
