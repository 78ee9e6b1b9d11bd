"""``sshproto key convert``: formats, passphrases, comments, public halves."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, PrivateKey, PublicKey, identify
from sshproto_cli.main import main
from sshproto_cli.terminal import Terminal
from tests.support import ours, ppk

KEY = PrivateKey.generate(comment="me@here")
EC = PrivateKey.generate("ecdsa-sha2-nistp256", comment="ec")
PUBLIC = KEY.public_key
OLD, NEW = "old-canary", "new-canary"
LOCKED = KEY.openssh(OLD.encode(), rounds=1)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Tests are in a folder of their own, and nobody is at a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Terminal, "present", False)
    monkeypatch.setattr(Terminal, "ask", lambda *_, **__: None)
    for name in ("SSHPROTO_NEW_PASSPHRASE", "SSHPROTO_KEY_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def convert(capfd):
    """Writes a file ``id``, runs the verb: status, output, errors; there is no passphrase in these."""

    def run(*words, id=None, mode=0o600):
        if id is not None:
            path = Path("id")
            path.write_bytes(id if isinstance(id, bytes) else id.encode())
            path.chmod(mode)
        status = main(["key", "convert", *map(str, words)])
        out, err = capfd.readouterr()
        for secret in (OLD, NEW):
            assert secret not in out + err
        return status, out, err

    return run


def load(path, passphrase=None):
    return PrivateKey.load(Path(path).read_bytes(), None if passphrase is None else passphrase.encode())


def encryption(path):
    [entry] = identify(Path(path).read_bytes()).entries
    return entry.form, entry.encryption


@pytest.mark.parametrize(
    ("content", "locked"),
    [
        (EC.openssh(), False),
        (EC.pkcs8(), False),
        (ppk.write(EC), False),
        (EC.openssh(OLD.encode(), rounds=1), True),
        (EC.pkcs8(OLD.encode(), iterations=10), True),
        (ppk.write(EC, OLD.encode()), True),
    ],
)
@pytest.mark.parametrize("to", ["openssh", "pkcs8"])
def test_private_formats(convert, monkeypatch, content, locked, to):
    """A file that is encrypted leads to one that is encrypted, with the same passphrase."""
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", OLD)
    status, out, err = convert("id", "--to", to, "-o", "out", "-a", 1, id=content)
    assert (status, out, err) == (0, "", "written: out\n")
    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o600
    assert load("out", OLD).public_key == EC.public_key
    how = {"openssh": "aes256-ctr, bcrypt with 1 round", "pkcs8": "AES-256-CBC, PBKDF2 with 1 iterations"}
    assert encryption("out") == ({"openssh": "OpenSSH", "pkcs8": "PKCS#8"}[to], how[to] if locked else "")
    if to == "openssh" and b"PRIVATE KEY-----" not in content.replace(b"OPENSSH PRIVATE", b""):
        assert load("out", OLD).comment == "ec"


def test_the_format_stays_unless_another_is_named(convert):
    for content, form in ((KEY.openssh(), "OpenSSH"), (KEY.pkcs8(), "PKCS#8"), (ppk.write(KEY), "OpenSSH")):
        assert convert("id", "-i", id=content)[0] == 0
        assert encryption("id") == (form, "")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644])
def test_passphrases_in_place(convert, monkeypatch, mode):
    monkeypatch.setenv("SSHPROTO_NEW_PASSPHRASE", NEW)
    assert convert("-p", "-i", "-a", 2, "-Z", "3des-cbc", "id", id=KEY.openssh(), mode=mode)[0] == 0
    assert encryption("id") == ("OpenSSH", "3des-cbc, bcrypt with 2 rounds")
    assert load("id", NEW).comment == "me@here"
    assert stat.S_IMODE(Path("id").stat().st_mode) == mode & 0o600
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", NEW)
    assert convert("--no-passphrase", "-i", "-f", "id")[0] == 0
    assert load("id").public_key == PUBLIC
    assert sorted(path.name for path in Path().iterdir()) == ["id"]


def test_passphrases_are_asked_for(convert, monkeypatch):
    typed = ["wrong", OLD, NEW, NEW]
    asked = []
    monkeypatch.setattr(Terminal, "present", True)
    monkeypatch.setattr(Terminal, "ask", lambda self, text, echo=False: (asked.append(text), typed.pop(0))[1])
    status, _, err = convert("-p", "-i", "-a", 1, "id", id=LOCKED)
    assert (status, err) == (0, "That is not the passphrase.\nwritten: id\n")
    assert asked == ["Passphrase for key id: "] * 2 + ["New passphrase for id (empty for none): ", "The same again: "]
    assert load("id", NEW)
    typed[:] = ["x", "y", "z"]
    assert convert("id", "-i", "--no-passphrase")[::2] == (
        1,
        "That is not the passphrase.\n" * 3 + "sshproto: id: wrong passphrase\n",
    )
    typed[:] = [""]
    assert convert("id", "-i")[2] == "sshproto: id: it is encrypted, and there is no passphrase\n"


def test_what_goes_wrong_changes_nothing(convert, monkeypatch):
    def fails(*words):
        before = Path("id").read_bytes() if Path("id").exists() else None
        status, out, err = convert(*words)
        assert status in (1, 2)
        assert out == ""
        assert err.count("\n") == 1
        if before is not None:
            assert Path("id").read_bytes() == before
        return err

    assert "No such file" in fails("id", "-i")
    Path("id").write_bytes(LOCKED)
    Path("id").chmod(0o600)
    assert "SSHPROTO_KEY_PASSPHRASE may hold its passphrase" in fails("id", "-i")
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", "wrong")
    assert "the passphrase in SSHPROTO_KEY_PASSPHRASE is wrong" in fails("id", "-i")
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", OLD)
    assert "SSHPROTO_NEW_PASSPHRASE may hold one" in fails("id", "-i", "-p")
    assert "a private key is written with -i in place, or with -o" in fails("id")
    assert "1 to 2048 rounds" in fails("id", "-i", "-a", 2**31)
    assert "-Z is for OpenSSH's format" in fails("id", "-i", "--to", "pkcs8", "-Z", "aes256-ctr")
    assert "no cipher 'x'" in fails("id", "-i", "-Z", "x")
    assert "--to rfc4716 is for public keys" in fails("id", "-i", "--to", "rfc4716")
    assert "-p asks for a new passphrase" in fails("id", "-i", "-p", "--no-passphrase")
    assert "-i replaces FILE" in fails("id", "-i", "-y")
    assert "a passphrase is not taken from the command line" in fails("id", "-i", "-p", "-P", "x")
    assert "name one file" in fails("id", "-f", "id", "-i")
    Path("there").write_text("x")
    assert "there: it is there already" in fails("id", "-o", "there")
    assert Path("there").read_text() == "x"


def test_who_changes_the_file_meanwhile_is_not_overruled(convert, monkeypatch):
    monkeypatch.setattr(Terminal, "present", True)
    monkeypatch.setattr(Terminal, "ask", lambda *_, **__: (Path("id").write_bytes(EC.openssh()), NEW)[1])
    status, _, err = convert("id", "-i", "-p", "-a", 1, id=KEY.openssh())
    assert (status, err) == (1, "sshproto: id: somebody has changed it meanwhile; nothing is written\n")
    assert load("id").public_key == EC.public_key


def test_without_the_package_for_encryption(convert, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(Terminal, "present", True)
    monkeypatch.setattr(Terminal, "ask", lambda *_, **__: pytest.fail("asked for what can't be used"))
    assert (
        "the package bcrypt, with which OpenSSH's format is encrypted" in convert("id", "-i", "-p", id=KEY.openssh())[2]
    )
    assert "the package bcrypt, which that takes, is not installed" in convert("id", "-i", id=LOCKED)[2]
    assert convert("id", "-i", "--no-passphrase", id=KEY.openssh())[0] == 0


def test_comments(convert):
    Path("id.pub").write_text(f"{PUBLIC.openssh()}\n")
    assert convert("-i", "-C", "another", "id", id=KEY.openssh())[0] == 0
    assert load("id").comment == "another"
    assert PublicKey.parse(Path("id.pub").read_text()).comment == "another"
    assert convert("-C", "third", "id.pub")[1] == PublicKey.from_blob(PUBLIC.blob, "third").openssh() + "\n"
    assert convert("-i", "-C", "third", "id.pub")[0] == 0
    assert PublicKey.parse(Path("id.pub").read_text()).comment == "third"
    status, _, err = convert("-i", "-C", "x", "--to", "pkcs8", "id")
    assert (status, err) == (
        0,
        "written: id\nsshproto: id: PKCS#8 has no place for a comment; it is left out\n",
    )
    assert convert("-i", "--to", "openssh", "id")[0] == 0  # the comment is that of the file beside
    assert load("id").comment == "x"
    assert convert("-i", "-C", "a\nb", "id")[0] == 2


def test_public_halves(convert, monkeypatch):
    line = PUBLIC.openssh() + "\n"
    for content in (KEY.openssh(), LOCKED, ppk.write(KEY, OLD.encode())):
        status, out, err = convert("-y", "id", id=content)
        assert (status, err) == (0, "")
        assert out.split()[:2] == line.split()[:2]
        assert ("me@here" in out) == (content != LOCKED)
    Path("id.pub").write_text(line)
    assert convert("-y", "id", id=LOCKED) == (0, line, "")  # the comment is that of the file beside
    assert convert("-y", "id", "--to", "rfc4716", id=ppk.write(KEY))[1] == PUBLIC.rfc4716()
    Path("id.pub").unlink()
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", OLD)
    assert convert("-y", "id", "-o", "out.pub", id=KEY.pkcs8(OLD.encode(), iterations=10)) == (0, "", "")
    assert PublicKey.parse(Path("out.pub").read_text()) == PUBLIC


def test_public_formats(convert):
    rsa = PrivateKey.generate("ssh-rsa", 2048, comment="me").public_key
    for name in ("openssh", "rfc4716", "pkcs8", "pkcs1"):
        content = getattr(rsa, name)()
        for to in ("openssh", "rfc4716", "pkcs8", "pkcs1"):
            expected = PublicKey.from_blob(rsa.blob, "" if name.startswith("pkcs") else "me")
            status, out, err = convert("id", "-m", to, id=content)
            assert (status, err) == (0, "")
            assert out.rstrip("\n") == getattr(expected, to)().rstrip("\n")
    assert convert("id", "--to", "pkcs1", id=PUBLIC.openssh())[::2] == (
        1,
        "sshproto: id: only RSA keys have a PKCS#1 form, this is a ssh-ed25519 key\n",
    )
    for option in (("-p",), ("--no-passphrase",), ("-a", 3), ("-Z", "aes256-ctr")):
        assert convert("id", *option, id=PUBLIC.openssh())[0] == 2


def test_certificates_and_lists(convert):
    certificate = Certificate.issue(
        EC, PUBLIC, CertificateKind.USER, key_id="x", principals=["me"], valid_before=FOREVER
    )
    assert convert("-y", "id", id=certificate.openssh())[1] == PUBLIC.openssh() + "\n"
    assert "it is a certificate, which has one form only" in convert("id", id=certificate.openssh())[2]
    assert "it is a revocation list" in convert("id", id=KRL().encode())[2]
    assert "2 keys are in it" in convert("id", id=f"{PUBLIC.openssh()}\n{PUBLIC.openssh()}\n")[2]
    assert convert("id", id="oops")[2].startswith("sshproto: id: line 1: not a key")


def test_streams(convert, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(KEY.pkcs8())))
    status, out, err = convert("-", "-o", "-", "--to", "openssh", "-C", "piped")
    assert (status, err) == (0, "")
    assert PrivateKey.load(out).comment == "piped"
    assert convert("-", "-i")[0] == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    status, out, err = convert("id", "-o", "-", id=KEY.openssh())
    assert (status, out, err) == (2, "", "sshproto: a private key is not shown on a terminal; name a file with -o\n")


def test_comments_of_any_bytes_go_through():
    """What is a file is written as it is, whatever the terminal's encoding; what is shown is escaped."""
    line = PublicKey.from_blob(PUBLIC.blob, "\udcff\u2603").openssh().encode("utf-8", "surrogateescape")
    Path("id.pub").write_bytes(line)
    env = ours._environment(Path.cwd(), PYTHONIOENCODING="ascii")
    for verb, expected in (("convert", line + b"\n"), ("show", f"256 {PUBLIC.fingerprint()} ".encode())):
        argv = [sys.executable, "-m", "sshproto_cli", "key", verb, "id.pub"]
        done = subprocess.run(argv, env=env, capture_output=True, check=True, timeout=60)
        assert done.stdout == (expected if verb == "convert" else expected + rb"\xff\u2603 (ED25519)" + b"\n")


def test_weak_keys_can_still_be_converted(convert, openssl):
    openssl("genrsa", "-traditional", "-out", "weak", "1024")
    Path("weak").chmod(0o600)
    assert convert("weak", "-i", "--to", "openssh")[0] == 0
    assert encryption("weak") == ("OpenSSH", "")
