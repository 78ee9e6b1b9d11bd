"""What ssh-audit says about our defaults: nothing but what docs/reference/algorithms.md argues, on either side.

Offers are held to the policy files beside this one as well, so that a change of the defaults is seen for what it is.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import ours, peers
from tests.support.peers import HOST, Server

AUDIT = (sys.executable, "-m", "ssh_audit.ssh_audit", "-n")
HERE = Path(__file__).parent
ROW = re.compile(r"\| (fail|warn) \| (.*) \| (.*) \| .* \|")

pytestmark = pytest.mark.covers("V50", "R141")


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    peers.need_module("ssh_audit")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with ours.serve(host_keys=ours.KINDS, password=True) as server:
        yield server


def audit(*options: str) -> tuple[int, str]:
    """Audit a server; status and output."""
    ran = subprocess.run(
        [*AUDIT, "--skip-rate-test", *options, HOST], capture_output=True, text=True, timeout=60, check=False
    )
    return ran.returncode, ran.stdout + ran.stderr


@contextmanager
def listening(port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """ssh-audit as a server, which reports about its first client and ends."""
    argv = [*AUDIT, "-c", "-p", str(port), *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def audit_client(*options: str) -> tuple[int, str]:
    """Have ``sshproto exec`` connect to ssh-audit; status and output of that."""
    port = peers.free_port()
    with peers.scratch() as home, listening(port, *options) as process:
        argv = [*ours.PROGRAM, "exec", "-p", str(port), "-l", "guest", "--insecure-accept-any", HOST, "true"]
        deadline = time.monotonic() + peers.SECONDS
        while time.monotonic() < deadline:
            ran = peers.run(argv, ours._environment(home))
            if b"refused" not in ran.stderr:
                break
            time.sleep(0.1)
        output, _ = process.communicate(timeout=peers.SECONDS)
        return process.returncode, output


def said(report: str) -> set[tuple[str, str, str]]:
    """All that ssh-audit finds fault with: how bad, what, and why."""
    found: dict[str, Any] = json.loads(report)
    return {
        (level, algorithm["algorithm"], note)
        for kind in ("kex", "key", "enc", "mac")
        for algorithm in found[kind]
        for level in ("fail", "warn")
        for note in algorithm.get("notes", {}).get(level, [])
    }


def argued(checkout: Path) -> set[tuple[str, str, str]]:
    """The same from the documentation's table, which has a reason for each."""
    text = (checkout / "docs" / "reference" / "algorithms.md").read_text()
    section = text.split("## What ssh-audit says", 1)[1]
    return {
        (level, name.strip("`"), note.strip("“”"))
        for level, names, note in ROW.findall(section)
        for name in names.split(", ")
    }


KEYS_OF_THE_TEST = {
    ("warn", name, "2048-bit modulus only provides 112-bits of symmetric strength")
    for name in ("rsa-sha2-256", "rsa-sha2-512")
}
"""About the key that the test has made, not about the server."""


def test_nothing_is_said_about_the_server_that_the_documentation_does_not_answer(server, checkout):
    _, report = audit("-j", "-p", str(server.port))
    # No host has a security key.
    tokens = {finding for finding in argued(checkout) if "sk-" in finding[1]}
    assert said(report) - KEYS_OF_THE_TEST == argued(checkout) - tokens


def test_nothing_is_said_about_the_client_that_the_documentation_does_not_answer(checkout):
    _, report = audit_client("-j")
    # How large a group is, is the server's choice.
    group_exchange = "diffie-hellman-group-exchange-sha256"
    servers = {finding for finding in argued(checkout) if finding[1] == group_exchange and "2048-bit" in finding[2]}
    assert said(report) == argued(checkout) - servers


def test_the_server_keeps_to_its_policy(server):
    status, output = audit("-P", str(HERE / "ssh-audit-server.policy"), "-p", str(server.port))
    assert status == 0, output
    assert "Passed" in output


def test_the_client_keeps_to_its_policy():
    status, output = audit_client("-P", str(HERE / "ssh-audit-client.policy"))
    assert status == 0, output
    assert "Passed" in output


def test_a_policy_can_fail(server, tmp_path):
    text = (HERE / "ssh-audit-server.policy").read_text()
    policy = tmp_path / "other.policy"
    policy.write_text(text.replace("aes256-gcm@openssh.com, ", ""))
    status, output = audit("-P", str(policy), "-p", str(server.port))
    assert status != 0
    assert "Failed" in output
