"""The lab's recordings of real programs: from each form of secret, all of it, as the truth beside them says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sshproto import events as ev
from sshproto.channels.requests import ExitStatus
from sshproto.replay.capture import flows
from sshproto.replay.capture.reader import CaptureReader
from sshproto.replay.events import Integrity, KeysMissing, PacketOpened, PacketSealed, SecretFound, Side
from sshproto.replay.observer import Observer
from sshproto.replay.secrets import Secrets
from sshproto.replay.summary import Summary
from tests.replay.captured import Captured, captured, items_of
from tests.replay.sessions import drain, told, troubles

NAMES = """
    authfail_dropbear2026_94
    cipher_aes128_ctr__hmac_sha2_256
    cipher_aes128_ctr__umac_64_openssh_com
    cipher_aes128_gcm_openssh_com
    cipher_aes256_ctr__hmac_sha2_256_etm_openssh_com
    cipher_chacha20_poly1305_openssh_com
    client_dbclient2026
    client_plink0_85
    forward_openssh10_6
    kex_curve25519_sha256
    kex_diffie_hellman_group14_sha256
    kex_diffie_hellman_group_exchange_sha256
    kex_ecdh_sha2_nistp256
    kex_mlkem768x25519_sha256
    multichannel_openssh9_2
    openssh_pair_compress
    openssh_pair_plain_keystrokes
    openssh_pair_sntrup761
    pubkey_openssh10_6
    rekey_chacha
    sftp_openssh9_2
    shell_openssh10_6
    zlib_openssh
""".split()

HASSH: dict[str, tuple[str, str]] = {
    "openssh_pair_plain_keystrokes": ("eeca2460550b9ded084ecf2f70a75356", "ead7eda7437d8738fe29fd4fc307fa4c"),
    "shell_openssh10_6": ("145c9b4a731681b644dcc5a3e3b3eb4a", "ead7eda7437d8738fe29fd4fc307fa4c"),
    "authfail_dropbear2026_94": ("145c9b4a731681b644dcc5a3e3b3eb4a", "223440d715dad2172ff5f50e87dc537a"),
    "client_dbclient2026": ("86deebba947efa46686aa1f4c26b334c", ""),
    "client_plink0_85": ("4a3e3c55af41b23589ff4c9d6aee4404", ""),
}
"""What independent programs compute for those that offer what they usually do; "" where they were not asked."""


@pytest.fixture
def lab(shared: Path) -> Path:
    path = shared / "captures" / "lab"
    if not path.is_dir():
        pytest.skip("no recordings of the lab")
    return path


def add(text: str | bytes, how: str = "add_key_log") -> Secrets:
    secrets = Secrets()
    getattr(secrets, how)(text)
    return secrets


def file(folder: Path, name: str) -> str:
    path = folder / name
    if not path.is_file():
        pytest.skip(f"there is no {name}")
    return path.read_text()


def session_keys(folder: Path, name: str, *left_out: str) -> Secrets:
    entries = json.loads(file(folder, f"{name}.secrets.json"))
    kept = [{key: value for key, value in it.items() if key not in left_out} for it in entries]
    return add(json.dumps(kept), "add_session_keys")


def block(reader: CaptureReader) -> Secrets:
    assert reader.secrets
    return add(b"\n".join(reader.secrets))


FORMS: dict[str, Callable[[Path, str], tuple[str, Any]]] = {
    "key log": lambda lab, name: (".pcap", add(file(lab, f"{name}.keylog"))),
    "block": lambda lab, name: (".dsb.pcapng", block),
    "session keys": lambda lab, name: (".pcap", session_keys(lab, name)),
    "derived keys": lambda lab, name: (".pcap", session_keys(lab, name, "K_encoded")),
    "derived keys alone": lambda lab, name: (".pcap", session_keys(lab, name, "K_encoded", "H", "session_id")),
    "without MAC keys": lambda lab, name: (
        ".pcap", session_keys(lab, name, "K_encoded", "H", "session_id", "mackey_cs", "mackey_sc"),
    ),
    "function": lambda lab, name: (".pcap", asked(file(lab, f"{name}.keylog"))),
}  # fmt: skip


def asked(text: str) -> Secrets:
    values = {bytes.fromhex(words[0]): bytes.fromhex(words[2]) for words in map(str.split, text.splitlines())}
    return Secrets(lambda client, server: values.get(client) or values.get(server))


def check(found: Captured, truth: dict[str, Any], *, session_id: bool = True, unchecked: bool = False) -> None:
    """A connection is as the truth says."""
    assert troubles(found.events) == []
    values = found.summary.as_dict()
    (first, *_) = truth["negotiated"]
    assert values["decrypted"] == {
        role: {key: truth[role][key] for key in ("messages", "payload_sha256")} for role in ("client", "server")
    }
    for key, expected in (
        ("client_version", truth["client"]["version"]),
        ("server_version", truth["server"]["version"]),
        ("kex", first["kex"]),
        ("host_key_alg", first["hostkey"]),
        *((f"{mine}_{way}2{other}", first[f"{theirs}_{way}{other}"]) for way, other in ("cs", "sc")
          for mine, theirs in (("cipher", "enc"), ("mac", "mac"), ("compression", "comp"))),
        ("strict_kex", truth["strict_kex"]),
        ("session_id", truth["session_id"] if session_id else None),
        ("kex_epochs", truth["kex_epochs"]),
        ("auth_success", truth["auth_success"]),
        ("complete", True),
    ):  # fmt: skip
        assert values[key] == expected, key
    assert not told(found.events, PacketSealed)
    assert not told(found.events, KeysMissing)
    sealed = {it.integrity for it in told(found.events, PacketOpened) if it.epoch}
    assert sealed == {Integrity.UNCHECKED if unchecked else Integrity.VERIFIED}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (name, form)
        for name in NAMES
        for form in FORMS
        if not (name.startswith("openssh_pair") and ("keys" in form or "MAC" in form))  # nobody had them
    ],
)
def test_all_of_it_opens(lab: Path, name: str, form: str) -> None:
    truth = json.loads(file(lab, f"{name}.truth.json"))
    ending, secrets = FORMS[form](lab, name)
    connections = captured(lab / f"{name}{ending}", secrets)
    assert len(connections) == len(truth)
    for found, expected in zip(connections, truth, strict=True):
        first = expected["negotiated"][0]
        aead = "gcm" in first["enc_cs"] or "chacha" in first["enc_cs"]
        unchecked = not aead and (form == "without MAC keys" or first["mac_cs"].startswith("umac"))
        check(found, expected, session_id=form not in ("derived keys alone", "without MAC keys"), unchecked=unchecked)
        proved = form not in ("derived keys alone", "without MAC keys")
        assert {it.verified for it in told(found.events, SecretFound)} == {proved}


@pytest.mark.parametrize("name", [it for it in NAMES if not it.startswith("openssh_pair") and "nistp" not in it])
def test_private_values(lab: Path, name: str) -> None:
    """Of a hybrid with ML-KEM the lab has the classical half, from which nobody can compute the rest."""
    truth = json.loads(file(lab, f"{name}.truth.json"))
    secrets = add(file(lab, f"{name}.privkeylog"))
    for found, expected in zip(captured(lab / f"{name}.pcap", secrets), truth, strict=True):
        if expected["negotiated"][0]["kex"].startswith("mlkem"):
            (problem,) = troubles(found.events)
            assert "it is the private value of X25519 alone" in problem
            assert found.summary.as_dict()["decrypted"] is None
        else:
            umac = (
                expected["negotiated"][0]["mac_cs"].startswith("umac") and "ctr" in expected["negotiated"][0]["enc_cs"]
            )
            check(found, expected, unchecked=umac)


@pytest.mark.parametrize("name", ["rekey_chacha", "zlib_openssh", "openssh_pair_compress", "client_dbclient2026"])
def test_in_other_orders(lab: Path, name: str) -> None:
    """One side's whole dump after the other's; the key after the end."""
    (truth,) = json.loads(file(lab, f"{name}.truth.json"))
    (found,) = captured(lab / f"{name}.pcap", add(file(lab, f"{name}.keylog")))
    pieces: dict[Side, list[tuple[bytes, int]]] = {side: [] for side in Side}
    for item in items_of(lab / f"{name}.pcap", CaptureReader()):
        if isinstance(item, flows.Piece):
            pieces[item.stream.side].append((item.data, item.frame))
    for first in Side:
        for late in (False, True):
            observer = Observer(None if late else add(file(lab, f"{name}.keylog")), ordered=False)
            summary = Summary()
            for side in (first, first.other):
                for data, frame in pieces[side]:
                    observer.feed(side, data, frame=frame)
            for side in Side:
                observer.end(side)
            events = drain(observer)
            if late:
                observer.kex.secrets.add_key_log(file(lab, f"{name}.keylog"))
                observer.add_secrets()
                events += drain(observer)
            for seen in events:
                summary.add(seen)
            assert summary.as_dict() == found.summary.as_dict()
            assert summary.as_dict()["decrypted"]["client"]["payload_sha256"] == truth["client"]["payload_sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_without_keys(lab: Path, name: str) -> None:
    """All that is public is the same as with them."""
    with_keys = captured(lab / f"{name}.pcap", add(file(lab, f"{name}.keylog")))
    hidden = {"session_id", "kex_epochs", "auth_success", "decrypted"}
    for opened, sealed in zip(with_keys, captured(lab / f"{name}.pcap"), strict=True):
        whole, public = opened.summary.as_dict(), sealed.summary.as_dict()
        assert {key for key in whole if whole[key] != public[key]} <= hidden
        assert public["complete"]
        assert (public["decrypted"], public["session_id"], public["kex_epochs"]) == (None, None, 1)
        exact = any(word in public["cipher_c2s"] + public["mac_c2s"] for word in ("gcm", "etm"))
        exact = exact and "chacha" not in public["cipher_c2s"]
        assert {it.exact for it in told(sealed.events, KeysMissing)} == {exact}
        if exact:
            for side in Side:
                sizes = [it.size for it in told(opened.events, PacketOpened, side) if it.epoch]
                assert [it.size for it in told(sealed.events, PacketSealed, side)] == sizes


@pytest.mark.parametrize("name", HASSH)
def test_fingerprints(lab: Path, name: str) -> None:
    for found in captured(lab / f"{name}.pcap"):
        values = found.summary.as_dict()
        assert values["hassh"] == HASSH[name][0]
        assert values["hassh_server"] == HASSH[name][1] or not HASSH[name][1]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_bad_is_found(lab: Path, name: str) -> None:
    """Honest programs: what there is to say is about a small key, or a short tag."""
    for found in captured(lab / f"{name}.pcap", add(file(lab, f"{name}.keylog"))):
        codes = {finding.code for finding in found.findings if finding.severity.value != "info"}
        assert codes <= {"weak-host-key", "weak-mac"}
        assert {finding.severity.value for finding in found.findings} <= {"info", "low"}


def test_what_was_done(lab: Path) -> None:
    """Commands, their output, their end."""
    (found,) = captured(lab / "rekey_chacha.pcap", add(file(lab, "rekey_chacha.keylog")))
    commands = [it.request for it in told(found.events, ev.ChannelRequested) if it.request.type == "exec"]
    assert len(commands) == 3
    statuses = [it.notice for it in told(found.events, ev.ChannelNotified) if isinstance(it.notice, ExitStatus)]
    assert statuses == [ExitStatus(0)] * 3
    closed = [it.channel for it in told(found.events, ev.ChannelClosed)]
    assert closed == [0, 1, 2]
    digest = hashlib.sha256(b"".join(it.data for it in told(found.events, ev.DataReceived))).hexdigest()
    assert digest
    for seen in found.events:
        assert seen.frames, seen
        assert seen.time is not None


@pytest.mark.parametrize(
    ("name", "cipher", "steps"),
    [
        ("cipher_aes128_gcm_openssh_com", "aes128-gcm@openssh.com", 9),
        ("cipher_aes128_ctr__hmac_sha2_256", "aes128-ctr", 300),
    ],
)
def test_what_a_memory_holds(lab: Path, name: str, cipher: str, steps: int) -> None:
    """Keys as they are found in a process: no secret, no MAC key, and a vector that has counted packets, or blocks."""
    truth = json.loads(file(lab, f"{name}.truth.json"))
    entries = json.loads(file(lab, f"{name}.secrets.json"))
    kept: list[dict[str, str]] = []
    for entry in entries:
        for way in ("cs", "sc"):
            iv, key = (bytes.fromhex(entry[f"{kind}_{way}"]) for kind in ("iv", "key"))
            fixed = 4 if "gcm" in cipher else 0  # the rest counts (RFC 5647 section 7.1, RFC 4344 section 4)
            iv = iv[: fixed + 8] if fixed else iv[:16]
            later = int.from_bytes(iv[fixed:], "big") + steps
            vector = iv[:fixed] + later.to_bytes(len(iv) - fixed, "big")
            kept.append({"task_name": "sshd", "cipher_name": cipher, "key": key[:16].hex(), "iv": vector.hex()})
    (found,) = captured(lab / f"{name}.pcap", add(json.dumps(kept), "add_session_keys"))
    check(found, truth[0], session_id=False, unchecked="gcm" not in cipher)
    assert {it.source for it in told(found.events, SecretFound)} == {"derived keys"}
