"""Exchange hash and key derivation: against RFC 4253 read aloud, and against recordings of real programs."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.config import compute_now
from sshproto.transport import kex
from sshproto.transport.keyschedule import derive, direction_keys, exchange_hash
from sshproto.transport.negotiation import guess_is_right, negotiate, strict_agreed
from sshproto.wire.codec import Reader
from sshproto.wire.messages import KexInit, Message
from sshproto.wire.table import Role

HASHES = ("sha1", "sha256", "sha384", "sha512")


@pytest.mark.covers("R37")
@given(
    st.sampled_from(HASHES),
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.sampled_from(b"ABCDEF"),
    st.integers(0, 200),
)
def test_derive(hash_name: str, k: bytes, h: bytes, session_id: bytes, letter: int, size: int) -> None:
    def new(data: bytes) -> bytes:
        return hashlib.new(hash_name, data).digest()

    x = bytes([letter])
    key = new(k + h + x + session_id)  # K1
    while len(key) < size:
        key += new(k + h + key)  # K2 and so on
    assert derive(hash_name, k, h, session_id, x, size) == key[:size]


@pytest.mark.covers("R37")
def test_letters() -> None:
    sizes = (12, 32, 64)
    for sender, letters in ((Role.CLIENT, b"ACE"), (Role.SERVER, b"BDF")):
        keys = direction_keys("sha256", b"k", b"h", b"s", sender=sender, sizes=sizes)
        made = [derive("sha256", b"k", b"h", b"s", bytes([x]), n) for x, n in zip(letters, sizes, strict=True)]
        assert [keys.iv, keys.key, keys.mac_key] == made
        assert made[1].hex() not in repr(keys)
    assert direction_keys("sha256", b"k", b"h", b"s", sender=Role.CLIENT, sizes=(0, 0, 0)).iv == b""


@pytest.mark.covers("R18")
def test_exchange_hash() -> None:
    def s(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    h = exchange_hash(
        "sha512",
        client_ident=b"SSH-2.0-c",
        server_ident=b"SSH-2.0-s",
        client_kexinit=b"\x14c",
        server_kexinit=b"\x14s",
        host_key=b"blob",
        fields=b"fields",
        secret=b"secret",
    )
    whole = s(b"SSH-2.0-c") + s(b"SSH-2.0-s") + s(b"\x14c") + s(b"\x14s") + s(b"blob") + b"fieldssecret"
    assert h == hashlib.sha512(whole).digest()


# ----------------------------------------------------------------------------------------------------------- recordings

SHARED = Path(os.environ.get("SSHPROTO_SHARED", Path(__file__).resolve().parents[4] / "shared"))
LAB = SHARED / "captures" / "lab"
RECORDINGS = (
    "kex_curve25519_sha256",
    "kex_ecdh_sha2_nistp256",
    "kex_diffie_hellman_group14_sha256",
    "kex_diffie_hellman_group_exchange_sha256",
    "kex_mlkem768x25519_sha256",
    "client_dbclient2026",
    "client_plink0_85",
)


def streams(pcap: bytes) -> tuple[bytes, bytes]:
    """The client's and the server's bytes of the only connection in an Ethernet pcap without loss."""
    sides: dict[bytes, dict[int, bytes]] = {}
    client = b""
    place = 24
    while place < len(pcap):
        captured = struct.unpack_from("<I", pcap, place + 8)[0]
        ip = pcap[place + 16 + 14 : place + 16 + captured]
        place += 16 + captured
        ip = ip[: int.from_bytes(ip[2:4], "big")]
        tcp = ip[(ip[0] & 15) * 4 :]
        side, flags, seq = ip[12:16] + tcp[:2], tcp[13], int.from_bytes(tcp[4:8], "big")
        if flags & 2 and not flags & 16:  # SYN without ACK
            client = side
        data = tcp[(tcp[12] >> 4) * 4 :]
        if data:
            sides.setdefault(side, {}).setdefault(seq, data)
    joined = {side: b"".join(parts[seq] for seq in sorted(parts)) for side, parts in sides.items()}
    (server,) = joined.keys() - {client}
    return joined[client], joined[server]


def plaintext(stream: bytes) -> Iterator[bytes]:
    """The identification, then the payloads up to NEWKEYS."""
    line, _, rest = stream.partition(b"\n")
    yield line.rstrip(b"\r")
    while True:
        length, padding = struct.unpack_from(">IB", rest)
        payload = rest[5 : 4 + length - padding]
        rest = rest[4 + length :]
        if payload[0] == 21:
            return
        yield payload


@pytest.mark.covers("R18", "R37", "R139")
@pytest.mark.parametrize("name", RECORDINGS)
def test_recordings(name: str) -> None:
    path = LAB / f"{name}.pcap"
    if not path.exists():
        pytest.skip(f"needs the recordings in {LAB}; say where with SSHPROTO_SHARED")
    (truth,) = json.loads((LAB / f"{name}.secrets.json").read_text())
    (summary,) = json.loads((LAB / f"{name}.truth.json").read_text())
    sides = [list(plaintext(stream)) for stream in streams(path.read_bytes())]
    idents = [side.pop(0) for side in sides]
    inits = [side.pop(0) for side in sides]
    client_init, server_init = (KexInit.parse(payload) for payload in inits)
    assert strict_agreed(client_init, server_init) is summary["strict_kex"]
    chosen = negotiate(client_init, server_init, us=Role.CLIENT, preferences=None, strict=True)
    assert chosen.kex == truth["kex"] == summary["negotiated"][0]["kex"]
    assert chosen.host_key == summary["negotiated"][0]["hostkey"]
    assert chosen.cipher_client_to_server == summary["negotiated"][0]["enc_cs"]

    method = kex.METHODS[chosen.kex]
    assert method.hash_name == truth["hash"]
    if client_init.first_kex_packet_follows and not guess_is_right(client_init, server_init):
        sides[0].pop(0)  # dbclient guesses sntrup761
    transcript: list[Message] = []
    for index, kind in enumerate(method.family.messages):
        transcript.append(kind.parse(sides[index % 2].pop(0)))
    assert sides == [[], []]
    host_key: bytes = transcript[-1].host_key  # type: ignore[attr-defined]
    k, session_id = bytes.fromhex(truth["K_encoded"]), bytes.fromhex(truth["session_id"])
    h = exchange_hash(
        method.hash_name,
        client_ident=idents[0],
        server_ident=idents[1],
        client_kexinit=inits[0],
        server_kexinit=inits[1],
        host_key=host_key,
        fields=method.family.hash_fields(transcript),
        secret=k,
    )
    assert h.hex() == truth["H"]
    for sender, way in ((Role.CLIENT, "cs"), (Role.SERVER, "sc")):
        keys = direction_keys(method.hash_name, k, h, session_id, sender=sender, sizes=(64, 64, 64))
        assert keys.iv.hex() == truth[f"iv_{way}"]
        assert keys.key.hex() == truth[f"key_{way}"]
        assert keys.mac_key.hex() == truth[f"mackey_{way}"]


def test_a_recorded_exchange_runs_again() -> None:
    """The recorded client's private value gives its recorded public value and the recorded secret."""
    name = "kex_curve25519_sha256"
    if not (LAB / f"{name}.pcap").exists():
        pytest.skip(f"needs the recordings in {LAB}; say where with SSHPROTO_SHARED")
    private = bytes.fromhex((LAB / f"{name}.privkeylog").read_text().split()[1])
    (truth,) = json.loads((LAB / f"{name}.secrets.json").read_text())
    client, server = (list(plaintext(stream)) for stream in streams((LAB / f"{name}.pcap").read_bytes()))
    method = kex.METHODS["curve25519-sha256"]
    exchange = kex.client_exchange(
        method, entropy=lambda count, label: private, oracle=compute_now, gex_bits=(2048, 3072, 8192)
    )
    assert exchange.start().encode() == client[2]
    assert exchange.receive(method.family.messages[1].parse(server[2])) is None
    assert exchange.secret is not None
    assert exchange.secret.hex() == truth["K_encoded"]
    Reader(exchange.secret, "K").mpint()
