"""The captures of others through the command line: what is known of them comes out, and nothing is raised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sshproto_cli.pcap.catalogue import RULES
from tests.replay.test_lab import NAMES
from tests.replay.test_public import ROWS
from tests.support.verbs import Run, runner

FOUND = {
    "ext_downgrade_cbc_ping": {1: ["terrapin"], 2: ["terrapin"]},
    "ext_downgrade_cbc_unknown": {1: ["terrapin"], 2: ["terrapin"]},
    "ext_downgrade_chacha20-poly1305": {1: ["terrapin"]},
    "rogue_extension_negotiation_attack": {1: ["rogue-extension", "terrapin"]},
    "rogue_session_attack": {2: ["rogue-session", "terrapin"]},
}
"""What is critical in the recordings of attacks, by connection: at the legs that have the attacker's messages."""


@pytest.fixture
def lab(shared: Path) -> Path:
    path = shared / "captures" / "lab"
    if not path.is_dir():
        pytest.skip("no lab captures")
    return path


@pytest.fixture
def public(shared: Path) -> Path:
    path = shared / "captures" / "public"
    if not path.is_dir():
        pytest.skip("no public captures")
    return path


@pytest.fixture
def info(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner("info", capfd, tmp_path)


@pytest.fixture
def decode(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner("decode", capfd, tmp_path)


@pytest.fixture
def check(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner("check", capfd, tmp_path)


def truth(found: dict[str, Any], told: dict[str, Any]) -> None:
    """What ``info`` says is what the truth says."""
    for role in ("client", "server"):
        assert found[f"{role}_version"] == told[role]["version"]
        for key in ("messages", "payload_sha256"):
            assert found["decrypted"][role][key] == told[role][key]
    for key in ("session_id", "kex_epochs", "strict_kex", "auth_success"):
        assert found[key] == told[key], key
    assert found["complete"] is True


@pytest.mark.parametrize("name", NAMES)
def test_lab(lab: Path, info: Run, check: Run, name: str) -> None:
    told = json.loads((lab / f"{name}.truth.json").read_text())
    for words in ([lab / f"{name}.dsb.pcapng"], ["--keylog", lab / f"{name}.keylog", lab / f"{name}.pcap"]):
        ran = info("--json", *words)
        assert (ran.status, ran.err) == (0, [])
        for found, each in zip(ran.objects, told, strict=True):
            truth(found, each)
    assert [it["connection"] for it in ran.objects] == list(range(1, len(told) + 1))
    ran = check("--json", lab / f"{name}.dsb.pcapng")
    assert ran.status == 0
    assert {each["severity"] for it in ran.objects for each in it["findings"]} <= {"info", "low"}


@pytest.mark.parametrize("name", ["authfail_dropbear2026_94", "rekey_chacha", "sftp_openssh9_2"])
def test_the_messages_of_the_truth(lab: Path, decode: Run, name: str) -> None:
    told = json.loads((lab / f"{name}.truth.json").read_text())
    ran = decode("--json", "--level", "packets", lab / f"{name}.dsb.pcapng")
    for number, each in enumerate(told, 1):
        for role in ("client", "server"):
            sent = [
                it["number"]
                for it in ran.objects
                if (it["connection"], it["role"], it["kind"]) == (number, role, "PacketOpened")
            ]
            assert sent == each[role]["messages"]


def test_the_password_of_the_lab_stays_hidden(lab: Path, decode: Run) -> None:
    path = lab / "shell_openssh10_6.dsb.pcapng"
    (shown,) = {
        it["fields"]["password"] for it in decode("--json", "--secrets", path).objects if it["kind"] == "PasswordAuth"
    }
    assert len(shown) > 4
    for options in ([], ["--json", "--payload"]):
        text = "\n".join(decode(*options, path).out)
        assert shown not in text
        assert shown.encode().hex() not in text


@pytest.mark.parametrize("name", ROWS)
def test_public(public: Path, info: Run, decode: Run, check: Run, name: str) -> None:
    expected = len(ROWS[name]) - (name == "zeek/ssh.pcap")  # one of its connections is something else
    ran = info("--json", public / name)
    assert ran.status == (0 if not ran.err or "no SSH connection" in ran.err[0] else 1)
    assert len(ran.objects) == expected
    assert [it["connection"] for it in ran.objects] == sorted(it["connection"] for it in ran.objects)
    status = ran.status
    assert sum(line.startswith("connection ") for line in info(public / name).out) == expected
    ran = decode("--json", "--payload", public / name)
    assert ran.status == status
    assert len({it["connection"] for it in ran.objects}) == expected
    assert len(decode("--details", public / name).out) >= expected
    ran = check("--json", "--fail-on", "never", public / name)
    assert ran.status == (2 if status else 0)
    codes = [each["code"] for it in ran.objects for each in it["findings"]]
    assert set(codes) <= set(RULES)
    for it in ran.objects:
        for each in it["findings"]:
            assert each["severity"] in [severity.value for severity in RULES[each["code"]].severities]


@pytest.mark.parametrize("name", FOUND)
def test_attacks(public: Path, check: Run, name: str) -> None:
    path = public / "terrapin" / f"{name}.pcapng"
    ran = check("--json", path)
    assert ran.status == 1
    critical = {
        it["connection"]: sorted(each["code"] for each in it["findings"] if each["severity"] == "critical")
        for it in ran.objects
    }
    assert {number: codes for number, codes in critical.items() if codes} == FOUND[name]
    assert all(
        each["frames"] and "CVE-2023-" in each["reference"]
        for it in ran.objects
        for each in it["findings"]
        if each["severity"] == "critical"
    )
