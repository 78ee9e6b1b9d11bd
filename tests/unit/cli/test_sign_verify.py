"""``sshproto sign`` and ``sshproto verify``, against ssh-keygen: files, agents, who is allowed, statuses, words."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sshproto.agent import Keyring
from sshproto.keys import FOREVER, KRL, Certificate, CertificateKind, FileSignature, PrivateKey, sshsig
from sshproto_cli.main import main
from sshproto_cli.terminal import Terminal
from sshproto_io.blocking import open_agent, serve_agent
from tests.support.authenticator import ED25519, TOUCHED, Authenticator
from tests.support.peers import need, ssh_agent

ALICE = "alice@example.org"
MESSAGE = b"a message\r\nof two lines\0\n"
KEY = PrivateKey.generate(comment="alice's")
AUTHORITY = PrivateKey.generate()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Files of tests; nobody is at a terminal, and there is no agent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Terminal, "present", False)
    monkeypatch.delenv("SSHPROTO_KEY_PASSPHRASE", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    write("id", KEY.openssh())
    write("id.pub", KEY.public_key.openssh().encode() + b"\n")
    write("message", MESSAGE)
    write("signers", f"{ALICE} {KEY.public_key.openssh()}\n".encode())
    return tmp_path


def write(name: str, data: bytes) -> None:
    Path(name).write_bytes(data)
    Path(name).chmod(0o600)


def read(name: str = "message.sig") -> FileSignature:
    return FileSignature.parse(Path(name).read_bytes())


@pytest.fixture
def run(capfd, monkeypatch):
    """Runs a verb: status, standard output, standard error."""

    def runs(*words, stdin: bytes = b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return status, out, err

    return runs


def keygen(*words, stdin: bytes = MESSAGE):
    """What ``ssh-keygen -Y`` says: status, standard output."""
    need("ssh-keygen")
    done = subprocess.run(
        ["ssh-keygen", "-Y", *map(str, words)], input=stdin, capture_output=True, check=False, timeout=60
    )
    return done.returncode, done.stdout.decode()


def certificate(key=KEY, **options) -> Certificate:
    return Certificate.issue(
        AUTHORITY, key.public_key, CertificateKind.USER, key_id="k", principals=[ALICE],
        **{"valid_before": FOREVER, **options},
    )  # fmt: skip


GOOD = f'Good "file" signature for {ALICE} with ED25519 key {KEY.public_key.fingerprint()}\n'
VERIFY = ("verify", "-f", "signers", "-I", ALICE)


# ------------------------------------------------------------------------------------------------------- there and back


def test_a_file_there_and_back(run):
    assert run("sign", "-f", "id", "message") == (0, "", "message: the signature is in message.sig\n")
    assert run(*VERIFY, "message") == (0, GOOD, "")
    assert run(*VERIFY, "-s", "message.sig", stdin=MESSAGE) == (0, GOOD, "")
    words = ("verify", "-f", "signers", "-I", ALICE, "-n", "file", "-s", "message.sig")
    assert keygen(*words) == (0, GOOD)
    status, _ = keygen("sign", "-q", "-f", "id", "-n", "file", "message", stdin=b"y\n")
    assert status == 0
    assert read() == sshsig.sign(KEY, MESSAGE, "file")
    assert run(*VERIFY, "message", "-q") == (0, "", "")
    assert run(*VERIFY, "message", "--print-key") == (0, f"{GOOD}{read().signer.openssh()}\n", "")


def test_standard_input_and_output(run):
    status, out, err = run("sign", "-f", "id", "-n", "git", "--hash", "sha256", stdin=MESSAGE)
    assert (status, err) == (0, "")
    assert FileSignature.parse(out) == sshsig.sign(KEY, MESSAGE, "git", hash_name="sha256")
    assert run("sign", "-f", "id", "-n", "git", "--hash", "sha256", "-", stdin=MESSAGE)[1] == out
    assert run("sign", "-f", "id", "-o", "made", stdin=MESSAGE) == (
        0,
        "",
        "standard input: the signature is in made\n",
    )
    assert read("made") == sshsig.sign(KEY, MESSAGE, "file")
    assert run("sign", "-f", "id", "-o", "-", "message")[1] == read("made").armoured()
    assert not Path("message.sig").exists()


def test_many_files(run):
    names = [f"file{number}" for number in range(3)]
    for name in names:
        write(name, name.encode())
    assert run("sign", "-q", "-f", "id", *names) == (0, "", "")
    for name in names:
        read(f"{name}.sig").verify(name.encode(), "file")


def test_a_long_file_is_read_in_pieces(run):
    with Path("long").open("wb") as file:
        file.write(bytes(4_000_000))
    assert run("sign", "-q", "-f", "id", "long")[0] == 0
    read("long.sig").verify(bytes(4_000_000), "file")
    assert run(*VERIFY, "long")[0] == 0


def test_a_signature_that_is_there_stays(run):
    write("message.sig", b"precious")
    assert run("sign", "-f", "id", "message") == (
        1,
        "",
        "sshproto: message.sig: it is there already; --overwrite would replace it\n",
    )
    assert Path("message.sig").read_bytes() == b"precious"
    assert run("sign", "-q", "-f", "id", "--overwrite", "message")[0] == 0
    assert read().namespace == "file"


# ----------------------------------------------------------------------------------------------------------------- keys


def test_an_encrypted_key(run, monkeypatch):
    write("id", KEY.openssh(b"xyzzy", rounds=1))
    status, _, err = run("sign", "-f", "id", "message")
    assert status == 1
    assert "there is no terminal to ask, SSHPROTO_KEY_PASSPHRASE may hold its passphrase" in err
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", "plugh")
    assert run("sign", "-f", "id", "message")[::2] == (
        1,
        "sshproto: id: the passphrase in SSHPROTO_KEY_PASSPHRASE is wrong\n",
    )
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", "xyzzy")
    assert run("sign", "-q", "-f", "id", "message")[0] == 0
    assert run(*VERIFY, "message")[0] == 0


def test_the_name_of_a_public_key_or_a_certificate_will_do(run):
    assert run("sign", "-q", "-f", "id.pub", "message")[0] == 0
    assert read().signer == KEY.public_key
    write("id-cert.pub", certificate().openssh().encode())
    assert run("sign", "-q", "--overwrite", "-f", "id-cert.pub", "message")[0] == 0
    assert read().signer == certificate() or read().certificate is not None
    assert run("sign", "-q", "--overwrite", "-f", "id", "--certificate", "id-cert.pub", "message")[0] == 0
    assert read().certificate is not None
    write("signers", f"*@example.org cert-authority {AUTHORITY.public_key.openssh()}\n".encode())
    good = GOOD.replace("ED25519", "ED25519-CERT")
    assert run(*VERIFY, "message") == (0, good, "")
    assert keygen(*VERIFY, "-n", "file", "-s", "message.sig") == (0, good)


def test_keys_that_do_not_belong_together(run):
    other = PrivateKey.generate()
    write("id.pub", other.public_key.openssh().encode())
    assert run("sign", "-f", "id.pub", "message")[::2] == (1, "sshproto: id.pub is another key than id\n")
    write("other-cert.pub", certificate(other).openssh().encode())
    status, _, err = run("sign", "-f", "id", "--certificate", "other-cert.pub", "message")
    assert status == 1
    assert f"the certificate is for the key {other.public_key.fingerprint()}; id has" in err
    Path("id").unlink()
    nobody = f"there is no private key for ssh-ed25519 {other.public_key.fingerprint()}"
    said = f"sshproto: id.pub: {nobody}, and no agent is named by SSH_AUTH_SOCK\n"
    assert run("sign", "-f", "id.pub", "message")[::2] == (1, said)


@pytest.mark.parametrize(
    ("words", "status", "problem"),
    [
        (("-f", "nothing", "message"), 1, "key nothing: No such file or directory"),
        (("-f", "message", "message"), 1, "private key message: not a private key"),
        (("-f", "id", "nothing"), 1, "nothing: No such file or directory"),
        (("-f", "id", "message", "-"), 2, "standard input is signed alone, not with files"),
        (("-f", "id", "-o", "x", "message", "id"), 2, "-o is for one signature, 2 are to be made"),
        (("-f", "id", "-n", "", "message"), 2, "not a namespace: ''"),
        (("-f", "id", "--certificate", "id.pub", "message"), 1, "certificate id.pub: not a certificate"),
        (("-f", "id", "--hash", "md5", "message"), 2, "invalid choice: 'md5'"),
        (("message",), 2, "the following arguments are required: -f/--key"),
        (("-f", "broken.pub", "message"), 1, "key broken.pub: "),
    ],
)
def test_what_cannot_be_signed(run, words, status, problem):
    write("broken.pub", b"ssh-ed25519 AAAA")
    got, out, err = run("sign", *words)
    assert (got, out) == (status, "")
    assert err.startswith("sshproto: ")
    assert problem in err
    assert err.count("\n") == 1
    assert not list(Path().glob("*.sig"))


def test_others_may_read_the_key(run):
    Path("id").chmod(0o644)
    assert "chmod 600 would help" in run("sign", "-q", "-f", "id", "message")[2]


# --------------------------------------------------------------------------------------------------------------- agents


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """An agent of ours, by a connection to it."""
    path = tmp_path / "socket"
    with serve_agent(Keyring(), path), open_agent(path) as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield agent


def test_the_agent_signs_where_there_is_no_private_key(run, agent):
    agent.add(KEY)
    rsa = PrivateKey.generate("ssh-rsa", 2048)
    agent.add(rsa)
    Path("id").unlink()
    assert run("sign", "-q", "-f", "id.pub", "message") == (0, "", "")
    assert run(*VERIFY, "message") == (0, GOOD, "")
    write("id-cert.pub", certificate().openssh().encode())
    assert run("sign", "-q", "--overwrite", "-f", "id-cert.pub", "message") == (0, "", "")
    assert read().certificate is not None
    write("rsa.pub", rsa.public_key.openssh().encode())
    for hash_name, algorithm in (("sha256", "rsa-sha2-256"), ("sha512", "rsa-sha2-512")):
        assert run("sign", "-q", "--overwrite", "-f", "rsa.pub", "--hash", hash_name, "message")[0] == 0
        assert read().algorithm == algorithm
        read().verify(MESSAGE, "file")


def test_the_agent_is_asked_before_a_passphrase(run, agent):
    write("id", KEY.openssh(b"xyzzy", rounds=1))
    assert "there is no terminal to ask" in run("sign", "-f", "id", "message")[2]
    agent.add(KEY)
    assert run("sign", "-q", "-f", "id", "message") == (0, "", "")
    read().verify(MESSAGE, "file")


def test_the_agent_alone(run, agent, monkeypatch):
    nobody = f"there is no private key for ssh-ed25519 {KEY.public_key.fingerprint()}"
    said = f"sshproto: id: {nobody}, and the agent does not have it\n"
    assert run("sign", "--agent", "-f", "id", "message")[::2] == (1, said)
    agent.add(KEY)
    assert run("sign", "-q", "--agent", "-f", "id", "message") == (0, "", "")
    agent.lock(b"x")
    assert run("sign", "-q", "--agent", "-f", "id", "--overwrite", "message")[0] == 1
    monkeypatch.setenv("SSH_AUTH_SOCK", "nowhere")
    assert "sshproto: the agent: " in run("sign", "--agent", "-f", "id", "--overwrite", "message")[2]
    assert run("sign", "-q", "-f", "id", "--overwrite", "message")[0] == 0


def test_our_agent_signs_for_ssh_keygen(run, agent):
    certified = certificate()
    agent.add(KEY, certified)
    agent.add(KEY)
    write("id-cert.pub", certified.openssh().encode())
    Path("id").unlink()
    for name, signer in (("id.pub", KEY.public_key), ("id-cert.pub", certified)):
        status, out = keygen("sign", "-q", "-f", name, "-n", "file")
        assert status == 0
        signature = FileSignature.parse(out)
        assert signature.signer == signer
        signature.verify(MESSAGE, "file")


def test_an_agent_of_openssh_signs(run, tmp_path, monkeypatch):
    with ssh_agent(tmp_path / "theirs") as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run(["ssh-add", "-q", "id"], check=True, timeout=30, stdin=subprocess.DEVNULL)
        shutil.move("id", "elsewhere")
        assert run("sign", "-q", "-f", "id.pub", "message") == (0, "", "")
        assert run(*VERIFY, "message") == (0, GOOD, "")


# ----------------------------------------------------------------------------------------------------- what is not good


@pytest.fixture
def signed(run):
    """A signature over the message."""
    Path("message.sig").write_text(sshsig.sign(KEY, MESSAGE, "file").armoured())


NOT = "Could not verify signature.\n"


@pytest.mark.parametrize(
    ("words", "stdin", "problem"),
    [
        (("-I", ALICE), b"another", "the ssh-ed25519 signature does not verify"),
        (("-I", ALICE, "-n", "git"), MESSAGE, "is for the namespace 'file', not for 'git'"),
        (("-I", "eve@example.org"), MESSAGE, "not an allowed signer: 'eve@example.org' with the ssh-ed25519 key"),
        (("-I", ALICE, "-s", "message"), MESSAGE, "not a signature: it starts with"),
        (("-I", ALICE, "-r", "id.pub"), MESSAGE, "the signer's key is revoked: the key ssh-ed25519 SHA256:"),
        (("-I", ALICE, "-r", "krl"), MESSAGE, "the signer's key is revoked: the key ssh-ed25519 SHA256:"),
        (("-I", "late", "--time", "20190101"), MESSAGE, "line 3: the key is not valid before 2020-01-01"),
        (("-I", "git"), MESSAGE, "line 4: the key may sign for the namespaces git, not for 'file'"),
    ],
)
def test_what_is_not_good(run, signed, words, stdin, problem):
    write("krl", KRL().revoke(KEY.public_key).encode())
    line = KEY.public_key.openssh()
    more = f'\nlate valid-after="20200101Z" {line}\ngit namespaces="git" {line}\n'
    write("signers", Path("signers").read_bytes() + more.encode())
    words = words if "-s" in words else (*words, "-s", "message.sig")
    status, out, err = run("verify", "-f", "signers", *words, stdin=stdin)
    assert (status, out) == (1, NOT)
    assert problem in err
    assert err.count("\n") == 1
    assert run("verify", "-q", "-f", "signers", *words, stdin=stdin)[1] == ""
    theirs = ["verify", "-f", "signers", *words]
    if "--time" in theirs:
        at = theirs.index("--time")
        theirs[at : at + 2] = ["-O", f"verify-time={theirs[at + 1]}"]
    if "-n" not in theirs:
        theirs += ["-n", "file"]
    assert keygen(*theirs, stdin=stdin) == (255, NOT)


def test_lines_that_cannot_be_read_are_told_if_it_is_not_good(run, signed):
    write("signers", f"bob nonsense {KEY.public_key.openssh()}\n{ALICE} {KEY.public_key.openssh()}\n".encode())
    assert run(*VERIFY, "message") == (0, GOOD, "")
    status, out, err = run("verify", "-f", "signers", "-I", "bob", "message")
    assert (status, out) == (1, NOT)
    assert "\nsshproto: signers line 1: not an option: 'nonsense'; there are" in err
    write("signers", b"x\n" * 20)
    assert "signers: 12 lines more can't be read" in run("verify", "-f", "signers", "-I", "bob", "message")[2]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("-I", ALICE, "message"), "who may sign is not said: --allowed-signers SIGNERS"),
        (("-f", "signers", "message"), "who is to have signed is not said: --identity IDENTITY"),
        (("-f", "signers", "-I", ALICE), "which signature is not said: --signature SIG"),
        (("-f", "signers", "-I", ALICE, "-"), "which signature is not said: --signature SIG"),
        (("-f", "signers", "-I", "", "message"), "not a signer: ''"),
        (("-f", "signers", "--check-novalidate", "message"), "--check-novalidate asks for nobody"),
        (("-f", "signers", "--find-principals", "-r", "id.pub", "message"), "--revoked is about a signature"),
        (("-f", "signers", "--match-principals"), "who is to have signed is not said"),
        (("-f", "signers", "-I", ALICE, "--time", "noon", "message"), "--time: not a time: 'noon'"),
        (("-f", "nothing", "-I", ALICE, "message"), "allowed signers nothing: No such file or directory"),
        (
            ("-f", "signers", "-I", ALICE, "-r", "message", "message"),
            "revoked keys message: list of revoked keys, line",
        ),
        (("-f", "signers", "-I", ALICE, "-r", "nothing", "message"), "revoked keys nothing: No such file"),
        (("-f", "signers", "-I", ALICE, "id"), "signature id.sig: No such file"),
        (("-f", "signers", "-I", ALICE, "-s", "message.sig", "nothing"), "nothing: No such file"),
        (("--find-principals", "--check-novalidate", "message"), "not allowed with argument"),
    ],
)
def test_what_cannot_be_found_out(run, signed, words, problem):
    status, out, err = run("verify", *words)
    assert (status, out) == (2, "")
    assert problem in err
    assert err.count("\n") == 1


# -------------------------------------------------------------------------------------------------- the other questions


def test_a_signature_by_whomever(run, signed):
    good = f'Good "file" signature with ED25519 key {KEY.public_key.fingerprint()}\n'
    assert run("verify", "--check-novalidate", "message") == (0, good, "")
    assert keygen("check-novalidate", "-n", "file", "-s", "message.sig") == (0, good)
    assert run("verify", "--check-novalidate", "-s", "message.sig", stdin=b"x")[:2] == (1, NOT)
    assert "the key is revoked" in run("verify", "--check-novalidate", "-r", "id.pub", "message")[2]


def test_principals(run, signed):
    line = KEY.public_key.openssh()
    write("signers", f"bob,*@example.org {line}\n{ALICE} {line}\nx\n".encode())
    assert run("verify", "-f", "signers", "--find-principals", "message") == (0, "bob\n*@example.org\n", "")
    assert keygen("find-principals", "-f", "signers", "-s", "message.sig") == (0, "bob\n*@example.org\n")
    found = f"bob,*@example.org\n{ALICE}\n"
    assert run("verify", "-f", "signers", "-I", ALICE, "--match-principals") == (0, found, "")
    assert keygen("match-principals", "-f", "signers", "-I", ALICE) == (0, found)
    status, out, err = run("verify", "-f", "signers", "-I", "eve", "--match-principals")
    assert (status, out) == (1, "")
    assert err.startswith("sshproto: no principal matched\nsshproto: signers line 3: the key is missing")
    write("signers", b"")
    assert run("verify", "-f", "signers", "--find-principals", "message")[::2] == (
        1,
        "sshproto: no principal matched\n",
    )
    write("signers", f"{ALICE} nonsense {line}\n".encode())
    assert "line 1, which may be about" in run("verify", "-f", "signers", "-I", ALICE, "--match-principals")[2]
    assert run("verify", "-f", "signers", "--find-principals", "-s", "message")[0] == 1


def test_the_time_is_local(run, signed, monkeypatch):
    line = KEY.public_key.openssh()
    write("signers", f'{ALICE} valid-before="202001011200" {line}\n'.encode())
    for zone, when, status in (
        ("UTC0", "20200101120000", 0),
        ("UTC0", "20200101120001Z", 1),
        ("XXX-2", "202001011001Z", 1),
    ):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert run(*VERIFY, "--time", when, "message")[0] == status, (zone, when)
    monkeypatch.undo()
    time.tzset()


def test_security_keys(run):
    token = Authenticator(ED25519)
    write("signers", f"{ALICE} {token.public_key.openssh()}\n".encode())
    request = sshsig.request(token.public_key, MESSAGE, "file")
    for flags, words, status in (
        (TOUCHED, (), 0),
        (0, (), 1),
        (0, ("--no-touch-required",), 0),
        (TOUCHED, ("--verify-required",), 1),
    ):
        Path("message.sig").write_text(request.finish(token.sign(request.data, flags)).armoured())
        assert run(*VERIFY, *words, "message")[0] == status, (flags, words)
    assert "ED25519-SK key" in run(*VERIFY, "--no-touch-required", "message")[1]


def test_words_of_others_are_harmless(run, signed):
    name = "x\x1b[2J"
    write("signers", f"{name} {KEY.public_key.openssh()}\n".encode())
    for words in (("--find-principals", "message"), ("-I", name, "message"), ("-I", f"{name}y", "message")):
        _, out, err = run("verify", "-f", "signers", *words)
        assert "\x1b" not in out + err
        assert "\\x1b[2J" in out + err
