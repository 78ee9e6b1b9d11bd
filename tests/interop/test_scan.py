"""``sshproto scan`` and other people's servers, and ours: it shows what they were told to offer, and logs nobody in."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sshproto import algorithms
from sshproto_cli import main
from tests.support import ours, peers
from tests.support.ours import KINDS
from tests.support.peers import HOST, Server

# asyncssh and paramiko run in this process, where cryptography warns of their finite-field Diffie-Hellman. We do not.
pytestmark = pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")

SERVERS: dict[str, Callable[..., Any]] = {
    "ours": lambda **more: ours.serve(password=True, **more),
    "sshd": peers.sshd,
    "dropbear": peers.dropbear,
    "asyncssh": peers.asyncssh_server,
    "paramiko": peers.paramiko_server,
}
SOFTWARE = {
    "ours": "sshproto_",
    "sshd": "OpenSSH_",
    "dropbear": "dropbear_",
    "asyncssh": "AsyncSSH_",
    "paramiko": "paramiko_",
}
BITS = {"ssh-ed25519": 256, "ecdsa-sha2-nistp256": 256, "ecdsa-sha2-nistp384": 384, "ecdsa-sha2-nistp521": 521}


def scan(server: Server, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """What the scan of a server found; it went well."""
    assert main.main(["scan", "-p", str(server.port), "--timeout", "20", "--json", *options, HOST]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


def names(found: dict[str, Any], which: str) -> list[str]:
    return [offer["name"] for offer in found["kexinit"][which] if offer["standing"] != "marker"]


def weak(found: dict[str, Any], what: str) -> list[str]:
    return [finding["name"] for finding in found["weak"] if finding["what"] == what]


@pytest.mark.parametrize("name", SERVERS)
def test_host_keys_and_software(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with SERVERS[name](host_keys=KINDS if name != "dropbear" else ("ed25519", "nistp256", "rsa")) as server:
        found = scan(server, capsys)
        publics = {public.split()[0]: public for public in server.host_keys}
        assert found["identification"]["software"].startswith(SOFTWARE[name])
        assert {key["type"]: key["public_key"] for key in found["host_keys"]} == publics
        for key in found["host_keys"]:
            assert key["fingerprint"] == peers.fingerprint(publics[key["type"]])
            assert key["bits"] == BITS.get(key["type"], 2048)
            assert key["reason"] == ("under 3072 bits" if key["type"] == "ssh-rsa" else None)
            assert key["problem"] is None
        assert found["strict_kex"] == {"offered": True, "standing": "sound", "reason": None}
        assert not [offer for offers in found["kexinit"].values() for offer in offers if offer["standing"] == "unknown"]


@pytest.mark.parametrize("name", ["ours", "sshd", "dropbear"])
def test_nobody_is_logged_in(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with SERVERS[name](**({"options": ["-v"]} if name == "ours" else {})) as server:
        scan(server, capsys)
        deadline = time.monotonic() + peers.SECONDS
        while "disconnect" not in (log := server.log.lower()):  # it is written when we have gone already
            assert time.monotonic() < deadline, log
            time.sleep(0.01)
    # What these three write about a login, whether it succeeds or fails; of ours it would be an event.
    for word in ("accepted p", "failed p", "failed none", "invalid user", "auth succeeded", "auth attempt", "login"):
        assert word not in log, log


CONFIG = {
    "KexAlgorithms": ("kex", ["diffie-hellman-group1-sha1", "curve25519-sha256", "diffie-hellman-group-exchange-sha1"]),
    "Ciphers": ("cipher", ["3des-cbc", "aes256-ctr", "aes128-cbc"]),
    "MACs": ("mac", ["hmac-md5", "umac-64@openssh.com", "hmac-sha2-256", "hmac-sha1-96"]),
}
ALSO_WEAK = {"kex": 2, "cipher": 2, "mac": 3}


def test_every_list_is_shown_in_order_and_weak_names_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{option} {','.join(chosen)}" for option, (_, chosen) in CONFIG.items()]
    with peers.sshd([*lines, "HostKeyAlgorithms ssh-rsa,rsa-sha2-256", "Compression no"], host_keys=["rsa"]) as server:
        found = scan(server, capsys)
        assert main.main(["scan", "-p", str(server.port), "--fail-on-weak", HOST]) == 1
        shown = capsys.readouterr().out
    assert names(found, "kex") == CONFIG["KexAlgorithms"][1]
    for what in ("cipher", "mac"):
        chosen = next(chosen for which, chosen in CONFIG.values() if which == what)
        for way in ("client_to_server", "server_to_client"):
            assert names(found, f"{what}_{way}") == chosen
    assert sorted(names(found, "host_key")) == ["rsa-sha2-256", "ssh-rsa"]
    assert names(found, "compression_client_to_server") == ["none"]
    for what, count in ALSO_WEAK.items():
        assert len(weak(found, what)) == count
    assert weak(found, "host_key_algorithm") == ["ssh-rsa"]
    assert weak(found, "host_key") == ["ssh-rsa"]
    for name in weak(found, "kex") + weak(found, "cipher") + weak(found, "mac"):
        assert any(line.split()[:2] == [name, "weak:"] for line in shown.splitlines()), name
    assert shown.endswith(f"\n{len(found['weak'])} weak choices\n")


@pytest.mark.parametrize(
    "lines",
    [
        ["Ciphers aes128-cbc", "MACs umac-128@openssh.com", "KexAlgorithms sntrup761x25519-sha512@openssh.com"],
        ["Ciphers aes128-ctr", "MACs umac-128@openssh.com"],
        ["KexAlgorithms sntrup761x25519-sha512@openssh.com"],
    ],
)
def test_a_server_with_nothing_that_we_have(lines: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with peers.sshd(lines) as server:
        found = scan(server, capsys)
    assert found["problem"].startswith("there is no ")
    assert found["host_keys"] == []
    assert names(found, "host_key") == ["ssh-ed25519"]


def test_a_short_rsa_key(capsys: pytest.CaptureFixture[str]) -> None:
    with peers.scratch() as directory:
        path = directory / "short"
        argv = [peers.need("ssh-keygen"), "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", str(path)]
        subprocess.run(argv, check=True, timeout=60)
        with peers.sshd(["RequiredRSASize 1024", f"HostKey {path}"], host_keys=["ed25519"]) as server:
            found = scan(server, capsys)
        public = path.with_name("short.pub").read_text()
    key = next(key for key in found["host_keys"] if key["type"] == "ssh-rsa")
    assert (key["bits"], key["reason"], key["fingerprint"]) == (1024, "under 2048 bits", peers.fingerprint(public))
    assert key["public_key"].split() == public.split()[:2]
    assert key["problem"] is None


def test_every_algorithm_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    with ours.serve(ours.EVERYTHING, host_keys=["ed25519", "rsa"], password=True) as server:
        found = scan(server, capsys)
    assert names(found, "kex") == [*algorithms.KEX_DEFAULT, *algorithms.KEX_EXTRA, *algorithms.KEX_LEGACY]
    for what, category in (("kex", "KEX"), ("cipher", "CIPHER"), ("mac", "MAC"), ("host_key_algorithm", "SIGNATURE")):
        assert weak(found, what) == list(getattr(algorithms, f"{category}_LEGACY"))
