"""Fixtures: the real ssh-keygen, and one key of each type."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

from sshproto.keys import PrivateKey

SSH_KEYGEN = shutil.which("ssh-keygen")
PUTTYGEN = shutil.which("puttygen")
OPENSSL = shutil.which("openssl")


def _run(*arguments: object, stdin: bytes = b"", check: bool = True, program: str | None = SSH_KEYGEN) -> str:
    done = subprocess.run(
        [str(program), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": "/dev/null"},
    )
    if check and done.returncode:
        raise AssertionError(f"{program} {arguments}: {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode()


def _need(program: str | None, name: str, package: str) -> Callable[..., str]:
    if program is None:
        message = f"{name} is not installed (Debian: apt install {package})"
        if os.environ.get("SSHPROTO_REQUIRE_PEERS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return functools.partial(_run, program=program)


@pytest.fixture(scope="session")
def ssh_keygen() -> Callable[..., str]:
    """Runs ssh-keygen, returns its standard output."""
    return _need(SSH_KEYGEN, "ssh-keygen", "openssh-client")


@pytest.fixture(scope="session")
def puttygen() -> Callable[..., str]:
    """Runs puttygen, returns its standard output."""
    return _need(PUTTYGEN, "puttygen", "putty-tools")


@pytest.fixture(scope="session")
def openssl() -> Callable[..., str]:
    """Runs openssl, returns its standard output."""
    return _need(OPENSSL, "openssl", "openssl")


@pytest.fixture(scope="session")
def keys() -> dict[str, PrivateKey]:
    """One of our own keys of each type."""
    made = {
        kind: PrivateKey.generate(kind, comment=f"{kind} key")
        for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
    }
    made["ssh-rsa"] = PrivateKey.generate("ssh-rsa", 2048, comment="ssh-rsa key")
    return made
