"""Ciphers and MACs: the tables, and packets assembled by other means."""

from __future__ import annotations

import hashlib
import hmac
import os
import pickle
import struct
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

from sshproto import algorithms as names
from sshproto.errors import InvalidArgument, MacError
from sshproto.transport.ciphers import opening, sealing
from sshproto.transport.macs import MACS, Mac
from sshproto.transport.packets import Opener, Sealer
from sshproto.transport.suites import CIPHERS, DirectionKeys, key_sizes

SUITES: list[tuple[str, str | None]] = [
    (cipher, mac)
    for cipher, spec in CIPHERS.items()
    for mac in ((None,) if spec.aead else tuple(MACS))  # type: ignore[attr-defined]
]


def random_keys(cipher: str, mac: str | None) -> DirectionKeys:
    return DirectionKeys(*(os.urandom(size) for size in key_sizes(cipher, mac)))


def ids(suite: tuple[str, str | None]) -> str:
    return f"{suite[0]}+{suite[1]}"


# --------------------------------------------------------------------------------------------------------------- tables


def test_tables_are_the_names_of_algorithms() -> None:
    assert set(CIPHERS) == names.KNOWN["cipher"]
    assert set(MACS) == names.KNOWN["mac"]
    assert all(name == spec.name for name, spec in (*CIPHERS.items(), *MACS.items()))


def test_key_sizes() -> None:
    assert key_sizes("chacha20-poly1305@openssh.com", None) == (0, 64, 0)
    assert key_sizes("aes256-gcm@openssh.com", None) == (12, 32, 0)
    assert key_sizes("aes128-gcm@openssh.com", "hmac-sha1") == (12, 16, 0)  # the MAC is void
    assert key_sizes("aes256-ctr", "hmac-sha2-512-etm@openssh.com") == (16, 32, 64)
    assert key_sizes("aes192-cbc", "hmac-sha1-96") == (16, 24, 20)
    assert key_sizes("3des-cbc", "hmac-md5") == (8, 24, 16)
    for cipher, mac in (("aes256-ctr", None), ("aes256-ctr", "none"), ("none", None), ("arcfour", "hmac-md5")):
        with pytest.raises(InvalidArgument):
            key_sizes(cipher, mac)


@pytest.mark.covers("R169")
def test_keys_are_not_shown() -> None:
    keys = DirectionKeys(b"IVIVIVIV", b"KEYKEYKEY", b"MACMACMAC")
    assert repr(keys) == "DirectionKeys()"
    with pytest.raises(InvalidArgument) as caught:
        sealing("aes128-ctr", "hmac-sha1", keys)
    assert "KEYKEY" not in str(caught.value)


def test_legacy_does_not_warn() -> None:
    code = (
        "from sshproto.transport.ciphers import *\n"
        "keys = DirectionKeys(bytes(8), bytes(range(24)), bytes(16))\n"
        "opening('3des-cbc', 'hmac-md5', keys); sealing('3des-cbc', 'hmac-md5', keys)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env={**os.environ, "PYTHONPATH": "."})


# ----------------------------------------------------------------------------------------- packets by independent means


def expected_packets(cipher: str, mac: str | None, keys: DirectionKeys, framed: list[bytes], first: int) -> list[bytes]:
    """``framed`` (length, padding_length, payload, padding) as packets, by the documents and by one-shot primitives."""
    packets = []
    spec = CIPHERS[cipher]
    if spec.mode == "gcm":
        counter = int.from_bytes(keys.iv[4:], "big")
        for packet in framed:
            context = Cipher(algorithms.AES(keys.key), modes.GCM(keys.iv[:4] + struct.pack(">Q", counter))).encryptor()
            context.authenticate_additional_data(packet[:4])
            sealed = context.update(packet[4:]) + context.finalize()
            packets.append(packet[:4] + sealed + context.tag)
            counter = (counter + 1) % 2**64
        return packets
    if spec.mode == "chacha20":
        k_2, k_1 = keys.key[:32], keys.key[32:]

        def chacha(key: bytes, counter: int, sequence: int, data: bytes) -> bytes:
            nonce = struct.pack("<Q", counter) + struct.pack(">Q", sequence)
            return Cipher(algorithms.ChaCha20(key, nonce), None).encryptor().update(data)

        for sequence, packet in enumerate(framed, first):
            sealed = chacha(k_1, 0, sequence, packet[:4]) + chacha(k_2, 1, sequence, packet[4:])
            packets.append(sealed + Poly1305.generate_tag(chacha(k_2, 0, sequence, bytes(32)), sealed))
        return packets
    if mac is None:
        raise AssertionError
    mac_spec = MACS[mac]
    if cipher == "3des-cbc":
        from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES

        encryptor = Cipher(TripleDES(keys.key), modes.CBC(keys.iv)).encryptor()
    else:
        mode = modes.CTR(keys.iv) if spec.mode == "ctr" else modes.CBC(keys.iv)
        encryptor = Cipher(algorithms.AES(keys.key), mode).encryptor()
    for sequence, packet in enumerate(framed, first):
        covered = packet[:4] + encryptor.update(packet[4:]) if mac_spec.etm else packet
        tag = hmac.new(keys.mac_key, struct.pack(">I", sequence) + covered, getattr(hashlib, mac_spec.hash)).digest()
        packets.append((covered if mac_spec.etm else encryptor.update(packet)) + tag[: mac_spec.tag_size])
    return packets


@pytest.mark.covers("R25", "R26", "R116", "R123", "R142", "R143", "R146")
@pytest.mark.parametrize("suite", SUITES, ids=ids)
def test_packets_are_as_the_documents_say(suite: tuple[str, str | None]) -> None:
    cipher, mac = suite
    keys = random_keys(cipher, mac)
    sealer = Sealer(entropy=lambda count, label: b"\xee" * count)
    opener = Opener(packet_limit=262144)
    for half in (sealer, opener):
        half.sequence_number = 1000
        half.switch(cipher, mac, keys, reset_sequence=False)
    concealed = mac is not None and not MACS[mac].etm
    framed, payloads = [], []
    for size in (1, 2, 9, 50, 1015, 1030, 3000, 8150, 8200, 32768):
        payload = bytes(n * size % 255 + 1 for n in range(size))
        padding = 4
        while (size + 1 + padding + (4 if concealed else 0)) % CIPHERS[cipher].block_size:
            padding += 1
        framed.append(struct.pack(">IB", size + 1 + padding, padding) + payload + b"\xee" * padding)
        payloads.append(payload)
    expected = expected_packets(cipher, mac, keys, framed, 1000)
    for payload, packet in zip(payloads, expected, strict=True):
        assert sealer.seal(payload[:5], memoryview(payload)[5:]) == packet
        opener.feed(packet)
        assert opener.next_packet() == payload


@pytest.mark.covers("R143")
def test_chacha20_poly1305_known_answer() -> None:
    """A packet with all-zero keys, worked out by hand from RFC 8439's key stream."""
    # RFC 8439 A.1, test vectors 1 and 2: key 0, nonce 0, blocks 0 and 1.
    block_0 = bytes.fromhex("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")
    block_1 = bytes.fromhex("9f07e7be5551387a98ba977c732d080d")
    plain = struct.pack(">I", 8) + bytes((6, 21)) + bytes(6)
    sealed = bytes(a ^ b for a, b in zip(plain[:4], block_0, strict=False))
    sealed += bytes(a ^ b for a, b in zip(plain[4:], block_1, strict=False))
    # Poly1305 in the open (RFC 8439 section 2.5).
    r = int.from_bytes(block_0[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s = int.from_bytes(block_0[16:], "little")
    accumulator = int.from_bytes(sealed + b"\1", "little") * r % (2**130 - 5)
    tag = ((accumulator + s) % 2**128).to_bytes(16, "little")
    sealer = Sealer(entropy=lambda count, label: bytes(count))
    sealer.switch("chacha20-poly1305@openssh.com", None, DirectionKeys(b"", bytes(64), b""), reset_sequence=True)
    assert sealer.seal(b"\x15") == sealed + tag


@pytest.mark.covers("R26", "R116", "R142", "R143")
@pytest.mark.parametrize("suite", SUITES, ids=ids)
def test_asyncssh_agrees(suite: tuple[str, str | None]) -> None:
    encryption = pytest.importorskip("asyncssh.encryption")
    cipher, mac = suite
    keys = random_keys(cipher, mac)
    if cipher.encode() not in encryption.get_encryption_algs():
        pytest.skip(f"asyncssh has no {cipher}")
    etm = mac is not None and MACS[mac].etm
    theirs = encryption.get_encryption(cipher.encode(), keys.key, keys.iv, (mac or "").encode(), keys.mac_key, etm)
    receiver = encryption.get_encryption(cipher.encode(), keys.key, keys.iv, (mac or "").encode(), keys.mac_key, etm)
    sealer = Sealer(entropy=lambda count, label: os.urandom(count))
    opener = Opener(packet_limit=262144)
    for half in (sealer, opener):
        half.switch(cipher, mac, keys, reset_sequence=True)
    tag_size = MACS[mac].tag_size if mac else 16
    concealed = mac is not None and not etm
    block = CIPHERS[cipher].block_size
    for sequence, size in enumerate((1, 11, 300, 5000, 32768)):
        payload = os.urandom(size)
        # theirs to ours
        padding = 4 + -(size + 5 + (4 if concealed else 0)) % block
        header = struct.pack(">I", size + 1 + padding)
        packet, tag = theirs.encrypt_packet(sequence, header, bytes((padding,)) + payload + os.urandom(padding))
        opener.feed(packet + tag)
        assert opener.next_packet() == payload
        # ours to theirs
        wire = bytes(sealer.seal(payload))
        first, _ = receiver.decrypt_header(sequence, wire[:block], 4)
        plain = receiver.decrypt_packet(sequence, first, wire[block:-tag_size], 4, wire[-tag_size:])
        assert plain is not None
        assert plain[1 : len(plain) - plain[0]] == payload


# ----------------------------------------------------------------------------------------------------------------- MACs


@pytest.mark.covers("R26", "R123", "V40")
@pytest.mark.parametrize("name", MACS)
def test_mac_is_hmac_over_sequence_number_and_data(name: str) -> None:
    spec = MACS[name]
    key = bytes(range(spec.key_size))
    mac = Mac(spec, key)
    for sequence in (0, 1, 2**32 - 1):
        whole = hmac.new(key, struct.pack(">I", sequence) + b"data", spec.hash).digest()
        assert mac.tag(sequence, b"data") == whole[: spec.tag_size]
        assert mac.verify(sequence, memoryview(b"data"), memoryview(whole)[: spec.tag_size])
        assert not mac.verify(sequence, b"data", whole[: spec.tag_size - 1])
        assert not mac.verify(sequence, b"data", b"")
        assert not mac.verify(sequence ^ 1, b"data", whole[: spec.tag_size])
    with pytest.raises(InvalidArgument):
        Mac(spec, key[:-1])


@pytest.mark.covers("R146")
def test_etm_forms_differ_in_etm_only() -> None:
    for name, spec in MACS.items():
        assert spec.etm == name.endswith("-etm@openssh.com")
        plain = MACS[name.removesuffix("-etm@openssh.com")]
        assert (spec.key_size, spec.tag_size, spec.hash) == (plain.key_size, plain.tag_size, plain.hash)


# -------------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.covers("R146", "V55")
def test_decryption_waits_for_the_tag() -> None:
    """Only encrypt-and-MAC touches the cipher before the tag was verified; a wrong tag leaves the others' as it was."""
    keys = random_keys("aes128-ctr", "hmac-sha2-256-etm@openssh.com")
    good = bytes(sealing("aes128-ctr", "hmac-sha2-256-etm@openssh.com", keys).seal(16, b"abc", b"", bytes(12), 0))
    half = opening("aes128-ctr", "hmac-sha2-256-etm@openssh.com", keys)
    with pytest.raises(MacError):
        half.open(memoryview(good[:-1] + bytes((good[-1] ^ 1,))), 0, 16, 0)
    assert bytes(half.open(memoryview(good), 0, 16, 0)) == b"\x0cabc" + bytes(12)


@pytest.mark.covers("R169")
def test_contexts_do_not_pickle() -> None:
    for cipher, mac in SUITES[:5]:
        for make in (opening, sealing):
            with pytest.raises(TypeError):
                pickle.dumps(make(cipher, mac, random_keys(cipher, mac)))
