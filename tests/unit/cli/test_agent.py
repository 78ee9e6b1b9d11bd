"""``sshproto agent``: what ssh-add and ssh-agent do, by our own words."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sshproto import ServerConfig
from sshproto.agent import Keyring
from sshproto.keys import FOREVER, Certificate, CertificateKind, PrivateKey
from sshproto_cli.main import main
from sshproto_cli.options import FACES
from sshproto_io import blocking

KEY = PrivateKey.generate(comment="a key")
OTHER = PrivateKey.generate("ecdsa-sha2-nistp256")
CERTIFICATE = Certificate.issue(
    OTHER, KEY.public_key, CertificateKind.USER, key_id="the id", principals=["root"], valid_before=FOREVER
)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def keyring():
    return Keyring()


@pytest.fixture
def served(keyring, tmp_path, monkeypatch):
    """An agent that the environment knows, and key files in the folder where the test is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, content in {
        "key": KEY.openssh(),
        "key.pub": KEY.public_key.openssh(),
        "key-cert.pub": CERTIFICATE.openssh(),
        "other": OTHER.openssh(b"pass", rounds=1),
        "hosts": f"host {OTHER.public_key.openssh()}\n@cert-authority *.org {OTHER.public_key.openssh()}\n",
    }.items():
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(0o600)
    with blocking.serve_agent(keyring, tmp_path / "socket") as served:
        monkeypatch.setenv("SSH_AUTH_SOCK", served.path)
        yield served


@pytest.fixture
def agent(capfd):
    """Runs a verb: status, standard output, standard error."""

    def run(*words):
        status = main(["agent", *map(str, words)])
        out, err = capfd.readouterr()
        return status, out, err

    return run


def test_add_list_remove(agent, served):
    assert agent("list") == (1, "", "The agent has no identities.\n")
    status, out, err = agent("add", "key")
    assert (status, out) == (0, "")
    assert err == "Identity added: key (a key)\nCertificate added: key-cert.pub (the id)\n"
    line = f"256 {KEY.public_key.fingerprint()} a key (ED25519"
    assert agent("list") == (0, f"{line})\n{line}-CERT)\n", "")
    assert agent("list", "-L")[1].splitlines()[0] == KEY.public_key.openssh()
    shown = [json.loads(text) for text in agent("list", "--json", "-E", "md5")[1].splitlines()]
    assert shown[0]["fingerprint"] == KEY.public_key.fingerprint("md5")
    assert shown[1]["type"] == CERTIFICATE.type
    assert agent("remove", "key") == (0, "", "Identity removed: key.pub\nIdentity removed: key-cert.pub\n")
    status, _, err = agent("remove", "key.pub")
    assert (status, err) == (1, "sshproto: key.pub: the agent refused to remove the key: perhaps it has none such\n")
    agent("add", "-q", "key")
    assert agent("remove", "-D") == (0, "", "All identities removed.\n")
    assert agent("list")[0] == 1


def test_which_of_key_and_certificate(agent, served, keyring):
    agent("add", "-k", "key")
    assert [held.certificate for held in keyring.keys(0)] == [None]
    agent("remove", "-D")
    agent("add", "-C", "key")
    assert [held.certificate for held in keyring.keys(0)] == [CERTIFICATE]
    assert agent("remove", "-k", "key")[0] == 1
    assert agent("remove", "key-cert.pub")[0] == 0
    assert agent("add", "-k", "-C", "key") == (2, "", "sshproto: -k and -C leave nothing to add\n")
    assert agent("remove", "-D", "key")[0] == 2


def test_constraints(agent, served, keyring):
    now = time.time()
    status, _, err = agent("add", "-k", "-t", "1h1m", "-c", "-h", "root@host", "-h", "host>a.org", "-H", "hosts", "key")
    assert status == 0
    assert err.endswith("Lifetime set to 3660 seconds\nThe user must confirm each use of the key\n")
    [held] = keyring.keys(now)
    assert held.confirm
    assert 3600 < held.until - now <= 3661
    assert [str(each) for each in held.destinations] == ["root@host", "host>a.org"]
    assert [spec.authority for spec in held.destinations[1].end.keys] == [True]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("add", "-h", "nowhere", "-H", "hosts", "key"), 1, "no key of the host nowhere is known"),
        (("add", "-h", "a>b>c", "-H", "hosts", "key"), 1, "is no destination"),
        (("add", "-h", "host", "key"), 1, "no key of the host host is known"),
        (("add", "-h", "host", "-H", "no", "key"), 1, "known_hosts no: No such file"),
        (("add", "-t", "1y", "key"), 2, "'1y' is no time"),
        (("add", "-t", "0", "key"), 2, "is not from 1 to"),
        (("add", "-t", "999999999w", "key"), 2, "is not from 1 to"),
        (("add", "no"), 1, "private key no: No such file"),
        (("add", "hosts"), 1, "hosts: not a private key"),
        (("add", "other"), 1, "it is encrypted"),
        (("add", "-C", "other"), 1, "it is encrypted"),
        (("add",), 1, "name a file: none of id_rsa"),
        (("remove", "no"), 1, "No such file"),
        (("list", "-a", "/nowhere"), 2, "cannot reach the agent at /nowhere: No such file"),
        (("lock",), 1, "there is no terminal to ask"),
    ],
)
def test_what_can_go_wrong(agent, served, words, status, said):
    found, out, err = agent(*words)
    assert (found, out) == (status, "")
    assert said in err
    assert err.startswith("sshproto: ")


def test_without_an_agent(agent, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert agent("list") == (2, "", "sshproto: there is no agent: SSH_AUTH_SOCK is not set\n")


def test_standard_input_and_passphrases(agent, served, monkeypatch, keyring):
    monkeypatch.setenv("SSHPROTO_KEY_PASSPHRASE", "pass")
    assert agent("add", "other")[0] == 0
    assert [held.comment for held in keyring.keys(0)] == ["other"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(KEY.openssh())))
    assert agent("add", "-")[:2] == (0, "")
    assert len(keyring.keys(0)) == 2


def test_the_usual_files(agent, served, tmp_path, keyring):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / "key").rename(tmp_path / ".ssh" / "id_ed25519")
    (tmp_path / "key.pub").rename(tmp_path / ".ssh" / "id_ed25519.pub")
    assert agent("add", "-q") == (0, "", "")
    assert len(keyring.keys(0)) == 1
    assert agent("remove", "-q") == (0, "", "")


def test_lock_and_unlock(agent, served, monkeypatch, keyring):
    agent("add", "-k", "key")
    monkeypatch.setenv("SSHPROTO_LOCK_PASSPHRASE", "secret")
    assert agent("lock") == (0, "", "Agent locked.\n")
    assert keyring.locked
    assert agent("list")[0] == 1
    assert agent("lock")[0] == 1
    monkeypatch.setenv("SSHPROTO_LOCK_PASSPHRASE", "other")
    assert agent("unlock")[0] == 1
    monkeypatch.setenv("SSHPROTO_LOCK_PASSPHRASE", "secret")
    assert agent("unlock") == (0, "", "Agent unlocked.\n")
    assert agent("list")[0] == 0


# ---------------------------------------------------------------------------------------------------------------- serve


def sshproto(*words, **env):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "SHELL"))}
    path = f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"
    return subprocess.Popen(
        [sys.executable, "-m", "sshproto_cli", "agent", *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**clean, "PYTHONPATH": path, **env},
        text=True,
        start_new_session=True,
    )


def finished(process):
    with process:
        out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_serve_with_a_command(tmp_path):
    code = "import os,sys; print(os.path.exists(os.environ['SSH_AUTH_SOCK']), os.environ['SSH_AUTH_SOCK'], "
    code += "os.environ['SSH_AGENT_PID'] == str(os.getppid())); sys.exit(7)"
    status, out, err = finished(sshproto("serve", "--", sys.executable, "-c", code, TMPDIR=str(tmp_path)))
    there, path, same = out.split()
    assert (status, there, same, err) == (7, "True", "True", "")
    assert Path(path).parent.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_serve_until_a_signal(tmp_path):
    process = sshproto("serve", "-v", "-a", tmp_path / "socket", "-t", "1m")
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines == [
            f"SSH_AUTH_SOCK={tmp_path}/socket; export SSH_AUTH_SOCK;\n",
            f"SSH_AGENT_PID={process.pid}; export SSH_AGENT_PID;\n",
            f"echo Agent pid {process.pid};\n",
        ]
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600
        with blocking.open_agent(tmp_path / "socket", timeout=20) as agent:
            agent.add(KEY, confirm=True)
            with pytest.raises(Exception, match="refused to sign"):  # there is nobody to ask
                agent.sign(KEY.public_key, b"data")
    finally:
        process.send_signal(signal.SIGTERM)
        status, _, err = finished(process)
    assert status == 128 + signal.SIGTERM
    assert "refused SSH_AGENTC_SIGN_REQUEST: it was not confirmed" in err
    assert not (tmp_path / "socket").exists()


@pytest.mark.parametrize(
    ("says", "good"), [("exit 0", True), ("echo yes", True), ("echo no", False), ("exit 1", False)]
)
def test_keys_are_confirmed_by_a_program(tmp_path, says, good):
    program = tmp_path / "askpass"
    program.write_text(f'#!/bin/sh\necho "$SSH_ASKPASS_PROMPT: $1" > {tmp_path}/asked\n{says}\n')
    program.chmod(0o700)
    process = sshproto("serve", "-c", "-a", tmp_path / "socket", SSH_ASKPASS=str(program))
    try:
        assert process.stdout.readline() == f"setenv SSH_AUTH_SOCK {tmp_path}/socket;\n"
        with blocking.open_agent(tmp_path / "socket", timeout=20) as agent:
            agent.add(KEY, confirm=True)
            with contextlib.nullcontext() if good else pytest.raises(Exception, match="refused to sign"):
                agent.sign(KEY.public_key, b"data")
    finally:
        process.terminate()
        finished(process)
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith(f"confirm: Allow use of the key a key, {KEY.public_key.fingerprint()}, for ")


def test_serve_says_what_goes_wrong(tmp_path):
    (tmp_path / "socket").touch()
    status, out, err = finished(sshproto("serve", "-a", tmp_path / "socket"))
    assert (status, out) == (1, "")
    assert "can't be had: Address already in use" in err
    status, out, err = finished(sshproto("serve", "--", tmp_path / "no"))
    assert (status, out) == (127, "")
    assert "no: No such file or directory" in err


# ------------------------------------------------------------------------------------------- an agent that says nothing


@pytest.fixture
def silent(served, tmp_path, monkeypatch):
    """An agent that takes connections and says nothing, which is not waited for as long as usual."""
    monkeypatch.setattr("sshproto_cli.agent.list.LISTING_PATIENCE", 0.3)
    monkeypatch.setattr("sshproto_cli.login.LISTING_PATIENCE", 0.3)
    monkeypatch.setattr("sshproto_cli.sign.AGENT_PATIENCE", 0.3)
    monkeypatch.setattr("sshproto_cli.key.certify.AGENT_PATIENCE", 0.3)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "silent"))
        yield


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("agent list", 2),
        ("sign --agent -f key.pub -o - key.pub", 1),
        ("key certify -U -s key.pub -I id -n me -V +1d other.pub", 1),
    ],
)
def test_an_agent_that_says_nothing(silent, tmp_path, capfd, words, status):
    (tmp_path / "other.pub").write_text(OTHER.public_key.openssh())
    assert main(words.split()) == status
    assert capfd.readouterr() == ("", "sshproto: the agent took longer than 0.3 seconds\n")


@contextlib.contextmanager
def hosting(tmp_path):
    """A server that ``KEY`` opens, and the arguments that log in to it."""

    class Host(blocking.Handler):
        def public_key(self, user, key):
            return key == KEY.public_key

        def session(self, session):
            session.stdout.write(b"in\n")

    config = ServerConfig(host_keys=[OTHER])
    with blocking.listen("127.0.0.1", 0, config, lambda incoming: Host()) as server:
        (tmp_path / "known").write_text(f"* {OTHER.public_key.openssh()}\n")
        yield f"-F none --known-hosts known -i key -p {server.port} me@127.0.0.1 x".split()


@pytest.mark.parametrize("io", FACES)
def test_a_login_goes_on_without_an_agent_that_says_nothing(silent, tmp_path, capfd, io):
    with hosting(tmp_path) as words:
        assert main(["exec", "--io", io, *words]) == 0
    out, err = capfd.readouterr()
    assert out == "in\n"
    assert err == "sshproto: the agent has not answered in 0.3 seconds\n"


@pytest.mark.parametrize("io", FACES)
def test_a_login_goes_on_when_an_agent_takes_a_key_and_says_nothing(silent, tmp_path, capfd, monkeypatch, io):
    over = threading.Event()

    def asked(connection):
        """The type of the next request."""
        size = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
        return connection.recv(size, socket.MSG_WAITALL)[0]

    def list_only():
        connection, _ = listener.accept()
        with connection:
            while answer := {27: b"\x05", 11: b"\x0c\x00\x00\x00\x00"}.get(asked(connection)):  # it holds no keys
                connection.sendall(len(answer).to_bytes(4, "big") + answer)
            over.wait(30)

    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "forgetful"))
    with socket.socket(socket.AF_UNIX) as listener, hosting(tmp_path) as words:
        listener.bind(str(tmp_path / "forgetful"))
        listener.listen()
        agent = threading.Thread(target=list_only)
        agent.start()
        try:
            assert main(["exec", "--io", io, "-oAddKeysToAgent=yes", *words]) == 0
        finally:
            over.set()
            agent.join()
    out, err = capfd.readouterr()
    assert out == "in\n"
    assert err == "sshproto: the agent does not take key: the agent has not answered in 0.3 seconds\n"
