"""``sshproto key generate``: what is made, where, and that nothing is lost or seen."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from sshproto.keys import PrivateKey, PublicKey, identify
from sshproto_cli.key import saving
from sshproto_cli.main import main
from sshproto_cli.options import Failure
from sshproto_cli.terminal import Terminal
from tests.support import ours
from tests.support.console import console
from tests.support.postquantum import needs_mldsa44


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Tests are in a folder of their own, where nobody is at a terminal, and umask hides nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(Terminal, "present", False)
    for name in ("SSHPROTO_NEW_PASSPHRASE", "SSHPROTO_KEY_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    before = os.umask(0)
    yield tmp_path
    os.umask(before)


@pytest.fixture
def generate(capfd):
    """Runs the verb: status, standard output, standard error."""

    def run(*words):
        status = main(["key", "generate", *map(str, words)])
        out, err = capfd.readouterr()
        return status, out, err

    return run


def mode(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


def names():
    """What is in the folder."""
    return sorted(path.name for path in Path().iterdir())


@pytest.mark.parametrize(
    ("words", "kind", "bits"),
    [
        ((), "ssh-ed25519", 256),
        (("-t", "ed25519"), "ssh-ed25519", 256),
        (("-t", "ECDSA"), "ecdsa-sha2-nistp256", 256),
        (("-t", "ecdsa", "-b", "521"), "ecdsa-sha2-nistp521", 521),
        (("-t", "ecdsa-sha2-nistp384"), "ecdsa-sha2-nistp384", 384),
        (("-t", "rsa", "-b", "2048"), "ssh-rsa", 2048),
        pytest.param(("-t", "mldsa44-ed25519"), "ssh-mldsa44-ed25519@openssh.com", 256, marks=needs_mldsa44),
    ],
)
def test_types(generate, words, kind, bits):
    status, out, err = generate("id", "--no-passphrase", "-C", "me@here", *words)
    assert (status, err) == (0, "")
    key = PrivateKey.load(Path("id").read_bytes())
    assert (key.public_key.type, key.public_key.bits, key.comment) == (kind, bits, "me@here")
    assert Path("id.pub").read_text() == key.public_key.openssh() + "\n"
    assert (mode("id"), mode("id.pub")) == (0o600, 0o644)
    lines = out.splitlines()
    assert lines[:2] == ["private key: id (not encrypted)", "public key:  id.pub"]
    assert lines[2].startswith(f"{bits} {key.public_key.fingerprint()} me@here (")
    assert "\n".join(lines[3:]) == key.public_key.randomart()
    assert names() == ["home", "id", "id.pub"]


def test_the_usual_place(generate):
    for words, name in (((), "id_ed25519"), (("-t", "ecdsa"), "id_ecdsa")):
        status, out, _ = generate("--no-passphrase", "-q", *words)
        assert (status, out) == (0, "")
        assert PrivateKey.load(Path("home/.ssh", name).read_bytes()).comment.count("@") == 1
    assert mode("home/.ssh") == 0o700


@pytest.mark.parametrize("form", ["openssh", "pkcs8"])
def test_passphrases_from_the_environment(generate, monkeypatch, form):
    monkeypatch.setenv("SSHPROTO_NEW_PASSPHRASE", "canary")
    cost = {"openssh": ("-a", 1, "-Z", "aes128-gcm@openssh.com"), "pkcs8": ("-a", 1000)}[form]
    status, out, err = generate("-f", "id", "-m", form, *cost, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    key = PrivateKey.load(Path("id").read_bytes(), b"canary")
    assert told == {
        "private_key": "id", "public_key": "id.pub", "type": "ssh-ed25519", "bits": 256,
        "comment": told["comment"], "sha256": key.public_key.fingerprint(), "encrypted": True,
    }  # fmt: skip
    [found] = identify(Path("id").read_bytes()).entries
    how = {
        "openssh": "aes128-gcm@openssh.com, bcrypt with 1 round",
        "pkcs8": "AES-256-CBC, PBKDF2 with 1000 iterations",
    }
    assert found.encryption == how[form]


def test_without_a_passphrase_nothing_is_made(generate, monkeypatch):
    status, _, err = generate("id")
    assert status == 1
    assert err == (
        "sshproto: there is no terminal to ask for a passphrase; SSHPROTO_NEW_PASSPHRASE may hold one,"
        " and --no-passphrase does without\n"
    )
    monkeypatch.setenv("SSHPROTO_NEW_PASSPHRASE", "")
    assert generate("id")[0] == 1
    assert names() == ["home"]


def test_passphrases_are_typed_twice(generate, monkeypatch):
    typed = ["canary", "kanary", "canary", "canary"]
    asked = []
    monkeypatch.setattr(Terminal, "present", True)
    monkeypatch.setattr(Terminal, "ask", lambda self, text, echo=False: (asked.append((text, echo)), typed.pop(0))[1])
    status, out, err = generate("id", "-a", 1)
    assert (status, err) == (0, "These differ; please try again.\n")
    assert asked == [("New passphrase for id (empty for none): ", False), ("The same again: ", False)] * 2
    assert PrivateKey.load(Path("id").read_bytes(), b"canary")
    assert "canary" not in out
    typed[:] = ["", ""]
    assert "(not encrypted)" in generate("plain")[1]
    for answers, said in ((["a", "b"] * 3, "no passphrase was typed twice"), ([None], "no passphrase was typed")):
        typed[:] = answers
        assert generate("none")[2].splitlines()[-1] == f"sshproto: {said}"
    assert not Path("none").exists()


def test_on_a_terminal(place):
    argv = [sys.executable, "-m", "sshproto_cli", "key", "generate", "id", "-a", "1", "-C", "me"]
    with console(argv, ours._environment(place), columns=100, rows=30) as terminal:
        terminal.expect(r"New passphrase for id \(empty for none\): ")
        terminal.type("canary\n")
        terminal.expect("The same again: ")
        terminal.type("canary\n")
        terminal.expect(r"\+----\[SHA256\]-----\+")
        assert terminal.process.wait(30) == 0
        assert b"canary" not in terminal.seen
    assert PrivateKey.load(Path("id").read_bytes(), b"canary").comment == "me"


def test_given_up_on_a_terminal(place):
    argv = [sys.executable, "-m", "sshproto_cli", "key", "generate", "id"]
    with console(argv, ours._environment(place), columns=100, rows=30) as terminal:
        terminal.expect("New passphrase")
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert terminal.modes() == terminal.before
    assert names() == ["home"]


@pytest.mark.parametrize("there", ["id", "id.pub"])
def test_nothing_is_overwritten_unasked(generate, monkeypatch, there):
    monkeypatch.setattr(Terminal, "ask", lambda *_, **__: pytest.fail("asked for what could not be saved"))
    Path(there).write_text("mine")
    status, _, err = generate("id", "--no-passphrase")
    assert (status, err) == (1, f"sshproto: {there}: it is there already; --overwrite would replace it\n")
    assert Path(there).read_text() == "mine"
    assert names() == sorted(["home", there])


@pytest.mark.covers("V82")
def test_overwritten_when_asked(generate):
    Path("id").write_text("mine")
    Path("id").chmod(0o666)
    Path("real.pub").write_text("mine")
    Path("id.pub").symlink_to("real.pub")
    assert generate("id", "--no-passphrase", "--overwrite")[0] == 0
    assert mode("id") == 0o600
    assert PublicKey.parse(Path("real.pub").read_text()) == PrivateKey.load(Path("id").read_bytes()).public_key
    assert Path("id.pub").is_symlink()


@pytest.mark.covers("V82")
def test_who_comes_between_keeps_the_name(generate, monkeypatch):
    """The name is free when it is looked at, and taken when it is to be given."""
    made = PrivateKey.generate.__func__

    def between(cls, *words, **values):
        Path("id.pub").write_text("theirs")
        return made(cls, *words, **values)

    monkeypatch.setattr(PrivateKey, "generate", classmethod(between))
    monkeypatch.setattr(saving, "refuse_existing", lambda path, overwrite: None)
    status, _, err = generate("id", "--no-passphrase")
    assert (status, err) == (1, "sshproto: id.pub: it is there already; --overwrite would replace it\n")
    assert Path("id.pub").read_text() == "theirs"
    assert names() == ["home", "id.pub"]  # and no private key that belongs to nothing


def test_where_there_are_no_links(generate, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert generate("id", "--no-passphrase")[0] == 0
    assert (mode("id"), mode("id.pub")) == (0o600, 0o644)
    assert PrivateKey.load(Path("id").read_bytes())
    with pytest.raises(Failure, match="there already"):
        saving.save("id", b"x", private=True)
    assert names() == ["home", "id", "id.pub"]


@pytest.mark.covers("V82")
def test_never_readable_by_others(monkeypatch):
    """From the first moment on, and whatever the mode of what is replaced."""
    seen = []
    write = os.write
    monkeypatch.setattr(
        os, "write", lambda d, data: (seen.append(stat.S_IMODE(os.fstat(d).st_mode)), write(d, data))[1]
    )
    Path("old").write_text("x")
    Path("old").chmod(0o644)
    saving.save("new", b"secret", private=True)
    saving.save("old", b"secret", private=True, overwrite=True)
    assert seen == [0o600, 0o600]
    assert Path("old").read_bytes() == b"secret"
    Path("new").chmod(0o400)
    saving.save("new", b"secret", private=True, overwrite=True)
    assert mode("new") == 0o400


def test_what_cannot_be_written_leaves_nothing(monkeypatch):
    Path("old").write_text("x")

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    for name, overwrite in (("new", False), ("old", True)):
        with pytest.raises(Failure, match=f"{name}: No space left on device"):
            saving.save(name, b"secret", private=True, overwrite=overwrite)
    assert names() == ["home", "old"]
    assert Path("old").read_text() == "x"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-t", "dsa"), "DSA is too weak"),
        (("-t", "ed25519-sk"), "is made by ssh-keygen"),
        (("-t", "ed448"), "there is no type 'ed448'; there are ed25519, ecdsa, rsa"),
        (("-t", "ecdsa", "-b", "255"), "256, 384 or 521 bits, not 255"),
        (("-t", "rsa", "-b", "1024"), "an RSA key has 2048 to 16384 bits, not 1024"),
        (("-b", "512"), "a key of type ssh-ed25519 has 256 bits, not 512"),
        (("-C", "a\nb"), "a comment is one line"),
        (("-C", "x" * 2000), "at most 1024 bytes"),
        (("-Z", "rot13"), "there is no cipher 'rot13'; there are aes256-ctr"),
        (("-N", ""), "a passphrase is not taken from the command line"),
        (("-f", "other"), "two files are named, 'id' and 'other'"),
    ],
)
def test_misuse(generate, words, said):
    status, _, err = generate("id", "--no-passphrase", *words)
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
    assert names() == ["home"]


def test_costs_that_are_none(generate, monkeypatch):
    monkeypatch.setenv("SSHPROTO_NEW_PASSPHRASE", "canary")
    for words, said in (
        (("-a", 2**31), "1 to 2048 rounds of bcrypt can be done, not 2147483648"),
        (("-m", "pkcs8", "-a", 0), "1 to 10000000 iterations of PBKDF2 can be done, not 0"),
        (("-m", "pkcs8", "-Z", "aes256-ctr"), "-Z is for OpenSSH's format"),
    ):
        status, _, err = generate("id", *words)
        assert status in (1, 2)
        assert said in err
        assert "canary" not in err
    assert names() == ["home"]


def test_directories_and_places_that_are_not_there(generate):
    assert generate("home", "--no-passphrase")[2] == "sshproto: home: it is a directory\n"
    assert generate("nowhere/id", "--no-passphrase")[2] == "sshproto: nowhere/id: No such file or directory\n"
    assert generate("-", "--no-passphrase")[0] == 2
