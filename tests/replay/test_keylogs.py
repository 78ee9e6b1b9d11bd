"""``sshproto keylog`` on the lab's recordings: what opens them, converted and put inside."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from sshproto_cli.main import main

NAMES = """
    authfail_dropbear2026_94
    kex_curve25519_sha256
    kex_diffie_hellman_group14_sha256
    kex_diffie_hellman_group_exchange_sha256
    kex_ecdh_sha2_nistp256
    kex_mlkem768x25519_sha256
    openssh_pair_sntrup761
    rekey_chacha
""".split()

CLASSICAL = ("kex_curve25519_sha256", "kex_diffie_hellman_group14_sha256", "rekey_chacha")
"""Those whose private values are whole; of hybrids, the lab has only the curve's half."""


@pytest.fixture
def lab(shared: Path) -> Path:
    path = shared / "captures" / "lab"
    if not path.is_dir():
        pytest.skip("no recordings of the lab")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_each_line_opens_what_it_is_of(lab, capsys, name):
    words = ["keylog", "check", lab / f"{name}.keylog", "--capture", lab / f"{name}.pcap", "--json"]
    assert main([*map(str, words)]) == 0
    found = json.loads(capsys.readouterr().out)
    truth = json.loads((lab / f"{name}.truth.json").read_text())
    assert [each["key_exchanges"] for each in found["connections"]] == [each["kex_epochs"] for each in truth]
    assert all(each["whole"] for each in found["connections"])
    assert set(found["use"].values()) == {"opens"}


@pytest.mark.parametrize("name", CLASSICAL)
def test_private_values_become_the_shared_secrets(lab, capsys, name):
    words = ["keylog", "convert", lab / f"{name}.privkeylog", "--to", "shared", "--capture", lab / f"{name}.pcap"]
    assert main([*map(str, words)]) == 0
    made = [line.split() for line in capsys.readouterr().out.splitlines()]
    known = [line.split() for line in (lab / f"{name}.keylog").read_text().splitlines()]
    assert [(cookie, int(value, 16)) for cookie, _, value in made] == [
        (cookie, int(value, 16)) for cookie, _, value in known
    ]


def test_half_of_a_private_value_is_none(lab, capsys):
    name = "kex_mlkem768x25519_sha256"
    words = ["keylog", "convert", lab / f"{name}.privkeylog", "--to", "shared", "--capture", lab / f"{name}.pcap"]
    assert main([*map(str, words)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "does not open the key exchange" in err
    assert "1 left out" in err


@pytest.mark.parametrize("name", NAMES)
def test_session_keys_have_the_same_lines(lab, capsys, name):
    path = lab / f"{name}.secrets.json"
    if not path.is_file():
        pytest.skip("there are no session keys of it")
    assert main(["keylog", "convert", str(path)]) == 0
    made = set(capsys.readouterr().out.splitlines())
    assert {line.split()[0] for line in (lab / f"{name}.keylog").read_text().splitlines()} <= {
        line.split()[0] for line in made
    }


@pytest.mark.parametrize("name", NAMES)
def test_put_inside(lab, capsys, tmp_path, name):
    target = tmp_path / "out.pcapng"
    words = ["keylog", "inject", lab / f"{name}.pcap", lab / f"{name}.keylog", "-o", target]
    assert main([*map(str, words)]) == 0
    shown = []
    for path in (target, lab / f"{name}.dsb.pcapng"):
        assert main(["pcap", "info", "--json", str(path)]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert all(row["decrypted"] for row in rows)
        shown.append([(row["session_id"], row["decrypted"]) for row in rows])
    assert shown[0] == shown[1]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="there is no tshark")
def test_tshark_opens_it(lab, tmp_path):
    """With lines of two fields, which all versions take."""
    name = "cipher_aes128_ctr__hmac_sha2_256"
    target = tmp_path / "out.pcapng"
    words = ["keylog", "inject", lab / f"{name}.pcap", lab / f"{name}.privkeylog", "-o", target]
    assert main([*map(str, words)]) == 0
    field = "ssh.userauth_user_name"
    command = ["tshark", "-r", str(target), "-Y", field, "-T", "fields", "-e", field]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "tester" in out.split()
