"""``sshproto pcap diff`` on recordings of attacks in which somebody relays a connection: what was done to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sshproto_cli.main import main


@pytest.fixture
def legs(shared: Path, capsys: pytest.CaptureFixture[str]):
    """Compares the two connections of a recording: what was put in, in clear and encrypted."""
    folder = shared / "captures" / "public" / "terrapin"
    if not folder.is_dir():
        pytest.skip("no recordings of attacks")

    def compare(name: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        path = folder / f"{name}.pcapng"
        assert main(["pcap", "diff", f"{path}:1", f"{path}:2", "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert found["relayed"]
        return tuple(
            [
                (each["role"], each["what"], "a" if each["b"] is None else "b")
                for each in found["differences"]
                if each["stage"] == stage and each["lone"]
            ]
            for stage in ("key exchange", "encrypted")
        )

    return compare


@pytest.mark.parametrize(
    ("name", "clear", "encrypted"),
    [
        ("ext_downgrade_chacha20-poly1305", [("server", "IGNORE", "a")], 340),
        (
            "ext_downgrade_cbc_unknown",
            [("server", "message 9", "a"), ("client", "UNIMPLEMENTED", "a"), ("client", "message 9", "b")],
            356,
        ),
        (
            "ext_downgrade_cbc_ping",
            [("server", "message 9", "a"), ("client", "UNIMPLEMENTED", "a"), ("client", "PING", "b")],
            356,
        ),
    ],
)
def test_terrapin(legs, name, clear, encrypted):
    """Connection 1 is the client's: something is put in before NEWKEYS, and the server's EXT_INFO behind it is gone."""
    assert legs(name) == (clear, [("server", f"{encrypted} encrypted bytes", "b")])


def test_a_message_of_the_attacker(legs):
    assert legs("rogue_extension_negotiation_attack")[0] == [("server", "EXT_INFO", "a")]
    assert legs("rogue_session_attack")[0] == [("client", "USERAUTH_REQUEST", "b")]
