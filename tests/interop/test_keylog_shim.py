"""The library of docs/how-to/key-logs.md: it writes the key log that OpenSSH does not, and writes it right."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ours, peers
from tests.support.peers import Key

KEX = (
    "curve25519-sha256",
    "ecdh-sha2-nistp384",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group-exchange-sha256",
)


@pytest.fixture(scope="module")
def library(checkout: Path) -> Iterator[Path]:
    page = (checkout / "docs/how-to/key-logs.md").read_text()
    found = re.search(r"^```c\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    with peers.scratch() as directory:
        (directory / "keylog.c").write_text(found[1])
        library = directory / "keylog.so"
        compiler = [peers.need("cc"), "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library)]
        subprocess.run([*compiler, str(directory / "keylog.c"), "-ldl"], check=True, timeout=60)
        yield library


def lines(path: Path) -> list[tuple[str, int]]:
    """Cookies and secrets; of numbers, the first byte may be 0."""
    entries = [line.split() for line in path.read_text().splitlines()]
    assert {kind for _, kind, _ in entries} == {"SHARED_SECRET"}
    return [(cookie, int(value, 16)) for cookie, _, value in entries]


@pytest.mark.parametrize("kex", KEX)
def test_what_openssh_knows_is_what_we_know(library: Path, keys: dict[str, Key], kex: str) -> None:
    key = keys["ed25519"]
    with peers.scratch() as home:
        offered = subprocess.run([peers.need("ssh"), "-Q", "kex"], capture_output=True, text=True, check=True).stdout
        if kex not in offered.split():
            pytest.skip(f"this ssh has no {kex}")
        mine, theirs = home / "ours", home / "theirs"
        options = ("--kex", kex, "--keylog", str(mine))
        with ours.serve(options, authorized_keys=[key.public]) as server:
            wanted = (f"-oKexAlgorithms={kex}", "-oRekeyLimit=64K")
            argv = [peers.need("ssh"), *wanted, *peers.ssh_options(server, home, key)]
            environment = peers.environment(home, LD_PRELOAD=str(library), SSHKEYLOGFILE=str(theirs))
            ran = peers.run([*argv, peers.HOST, "--", "cat"], environment, bytes(300_000))
        assert (ran.returncode, len(ran.stdout)) == (0, 300_000), ran
        assert len(lines(mine)) > 1, "keys were exchanged again"
        assert [secret for _, secret in lines(theirs)] == [secret for _, secret in lines(mine)]
        assert theirs.stat().st_mode & 0o077 == 0
