"""git signs commits with ssh-keygen: ours are good to it, and its are good to us."""

from __future__ import annotations

import os
import subprocess

import pytest

from sshproto.errors import SignatureInvalid
from sshproto.keys import FileSignature, PrivateKey, allowed_signers, sshsig
from tests.support.peers import need

WHO = "alice@example.org"


@pytest.fixture
def repository(tmp_path):
    """A repository whose commits are signed with a key; runs git in it."""
    need("git")
    need("ssh-keygen")
    key = PrivateKey.generate()
    (tmp_path / "id").write_bytes(key.openssh())
    (tmp_path / "id").chmod(0o600)
    (tmp_path / "id.pub").write_text(key.public_key.openssh() + "\n")
    (tmp_path / "signers").write_text(f'{WHO} namespaces="git" {key.public_key.openssh()}\n')
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}

    def git(*words: str, stdin: bytes = b"", status: int = 0) -> bytes:
        done = subprocess.run(
            ["git", *words], input=stdin, capture_output=True, check=False, cwd=tmp_path / "repo", env=env, timeout=60
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    (tmp_path / "repo").mkdir()
    git("init", "-q")
    for name, value in {
        "user.name": "Alice",
        "user.email": WHO,
        "gpg.format": "ssh",
        "user.signingkey": str(tmp_path / "id"),
        "gpg.ssh.allowedSignersFile": str(tmp_path / "signers"),
    }.items():
        git("config", name, value)
    return git, key, allowed_signers.parse((tmp_path / "signers").read_bytes())


def parted(commit: bytes) -> tuple[bytes, bytes]:
    """A commit without its signature, and that."""
    before, _, rest = commit.partition(b"gpgsig ")
    lines = rest.split(b"\n")
    count = next(number for number, line in enumerate(lines[1:], 1) if not line.startswith(b" "))
    signature = b"\n".join(line.removeprefix(b" ") for line in lines[:count])
    return before + b"\n".join(lines[count:]), signature


def test_commits_that_git_has_signed(repository):
    git, _, signers = repository
    git("commit", "-q", "--allow-empty", "-S", "-m", "one")
    commit, signature = parted(git("cat-file", "commit", "HEAD"))
    read = FileSignature.parse(signature)
    assert read.namespace == "git"
    signers.verify(read, commit, WHO, "git", now=0)
    with pytest.raises(SignatureInvalid):
        read.verify(commit + b"!", "git")


def test_commits_that_we_have_signed(repository):
    git, key, _ = repository
    git("commit", "-q", "--allow-empty", "-m", "one")
    commit = git("cat-file", "commit", "HEAD")
    head, _, message = commit.partition(b"\n\n")
    for text, status in ((commit, 0), (commit + b"!", 1)):
        signature = sshsig.sign(key, text, "git").armoured().strip().encode()
        signed = head + b"\ngpgsig " + signature.replace(b"\n", b"\n ") + b"\n\n" + message
        name = git("hash-object", "-t", "commit", "-w", "--stdin", stdin=signed).decode().strip()
        said = git("verify-commit", name, status=status)
        assert (f'Good "git" signature for {WHO}'.encode() in said) == (not status)
