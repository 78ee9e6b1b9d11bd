"""Fixtures: the real ssh-keygen, and one key of each type."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

from sshproto.keys import PrivateKey

SSH_KEYGEN = shutil.which("ssh-keygen")


def _run(*arguments: object, stdin: bytes = b"", check: bool = True) -> str:
    done = subprocess.run(
        [str(SSH_KEYGEN), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": "/nonexistent"},
    )
    if check and done.returncode:
        raise AssertionError(f"ssh-keygen {arguments}: {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode()


@pytest.fixture(scope="session")
def ssh_keygen() -> Callable[..., str]:
    """Runs ssh-keygen, returns its standard output."""
    if SSH_KEYGEN is None:
        message = "ssh-keygen is not installed (Debian: apt install openssh-client)"
        if os.environ.get("SSHPROTO_REQUIRE_PEERS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return _run


@pytest.fixture(scope="session")
def keys() -> dict[str, PrivateKey]:
    """One of our own keys of each type."""
    made = {
        kind: PrivateKey.generate(kind, comment=f"{kind} key")
        for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
    }
    made["ssh-rsa"] = PrivateKey.generate("ssh-rsa", 2048, comment="ssh-rsa key")
    return made
