"""What the transport does for an observer only: others' ciphers, tags that nobody can verify, keys that are given."""

from __future__ import annotations

import itertools
import os
import struct

import pytest
from cryptography.hazmat.decrepit.ciphers import algorithms as decrepit
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sshproto import algorithms as names
from sshproto.config import system_entropy
from sshproto.errors import InvalidArgument, MacError, ProtocolViolation
from sshproto.transport.ciphers import opening, sealing
from sshproto.transport.compression import Deflater, Inflater
from sshproto.transport.kex.ecdh import CURVE448, CURVE25519, NISTP256, NISTP384, NISTP521, Curve
from sshproto.transport.macs import MACS, OBSERVED_MACS, Mac, MacSpec
from sshproto.transport.packets import Opener, Sealer
from sshproto.transport.suites import CIPHERS, OBSERVED_CIPHERS, DirectionKeys, key_sizes, verifies

ENCRYPTORS = {
    "rijndael-cbc@lysator.liu.se": lambda key, iv: Cipher(algorithms.AES(key), modes.CBC(iv)),
    "blowfish-cbc": lambda key, iv: Cipher(decrepit.Blowfish(key), modes.CBC(iv)),
    "cast128-cbc": lambda key, iv: Cipher(decrepit.CAST5(key), modes.CBC(iv)),
    "idea-cbc": lambda key, iv: Cipher(decrepit.IDEA(key), modes.CBC(iv)),
    "seed-cbc@ssh.com": lambda key, iv: Cipher(decrepit.SEED(key), modes.CBC(iv)),
    "camellia256-cbc": lambda key, iv: Cipher(decrepit.Camellia(key), modes.CBC(iv)),
    "camellia192-cbc": lambda key, iv: Cipher(decrepit.Camellia(key), modes.CBC(iv)),
    "camellia128-cbc": lambda key, iv: Cipher(decrepit.Camellia(key), modes.CBC(iv)),
    "arcfour256": lambda key, iv: Cipher(decrepit.ARC4(key), None),
    "arcfour128": lambda key, iv: Cipher(decrepit.ARC4(key), None),
    "arcfour": lambda key, iv: Cipher(decrepit.ARC4(key), None),
}


def random_keys(cipher: str, mac: str | None) -> DirectionKeys:
    return DirectionKeys(*(os.urandom(size) for size in key_sizes(cipher, mac, passive=True)))


def framed(payload: bytes, block: int) -> bytes:
    padding = 4 + -(len(payload) + 9) % block
    return struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)


def watching(cipher: str, mac: str | None, keys: DirectionKeys) -> Opener:
    opener = Opener(packet_limit=100_000, passive=True)
    opener.switch(cipher, mac, keys, reset_sequence=True, passive=True)
    return opener


def test_nobody_can_negotiate_them() -> None:
    assert not names.KNOWN["cipher"] & set(OBSERVED_CIPHERS)
    assert not names.KNOWN["mac"] & set(OBSERVED_MACS)
    keys = DirectionKeys(bytes(16), bytes(16), bytes(16))
    for cipher, mac in [(name, "hmac-md5") for name in OBSERVED_CIPHERS] + [
        ("aes128-ctr", name) for name in OBSERVED_MACS
    ]:
        for act in (key_sizes, lambda c, m: opening(c, m, keys), lambda c, m: sealing(c, m, keys)):
            with pytest.raises(InvalidArgument):
                act(cipher, mac)
        with pytest.raises(InvalidArgument):
            Opener(packet_limit=1000).switch(cipher, mac, keys, reset_sequence=False)


@pytest.mark.parametrize("name", [name for name in OBSERVED_CIPHERS if OBSERVED_CIPHERS[name].mode in ("cbc", "rc4")])
def test_ciphers_of_others(name: str) -> None:
    keys = random_keys(name, "hmac-sha1")
    encryptor = ENCRYPTORS[name](keys.key, keys.iv).encryptor()
    if name in ("arcfour128", "arcfour256"):
        encryptor.update(bytes(1536))
    mac = Mac(MACS["hmac-sha1"], keys.mac_key)
    opener = watching(name, "hmac-sha1", keys)
    for sequence, payload in enumerate((b"\5short", b"\x5e" + os.urandom(5000), b"\2")):
        plain = framed(payload, OBSERVED_CIPHERS[name].block_size)
        opener.feed(encryptor.update(plain) + mac.tag(sequence, plain))
        assert bytes(opener.next_packet() or b"") == payload
    plain = framed(b"\5forged", OBSERVED_CIPHERS[name].block_size)
    opener.feed(encryptor.update(plain) + bytes(20))
    with pytest.raises(MacError):
        opener.next_packet()


def test_no_cipher_at_all() -> None:
    keys = random_keys("none", "hmac-sha2-256")
    mac = Mac(MACS["hmac-sha2-256"], keys.mac_key)
    for name, tag in (("hmac-sha2-256", lambda plain: mac.tag(0, plain)), ("none", lambda plain: b"")):
        for payload in (b"\5short", bytes(3000)):
            opener = watching("none", name, keys if name != "none" else DirectionKeys(b"", b"", b""))
            plain = framed(payload, 8)
            opener.feed(plain + tag(plain))
            assert bytes(opener.next_packet() or b"") == payload


def test_gcm_under_its_first_names() -> None:
    keys = random_keys("aes128-gcm@openssh.com", None)
    sealer = Sealer(entropy=system_entropy)
    sealer.switch("aes128-gcm@openssh.com", None, keys, reset_sequence=True)
    opener = watching("AEAD_AES_128_GCM", "AEAD_AES_128_GCM", keys)
    opener.feed(bytes(sealer.seal(b"\5one")))
    assert bytes(opener.next_packet() or b"") == b"\5one"


@pytest.mark.parametrize("name", list(OBSERVED_MACS))
@pytest.mark.parametrize("cipher", ["aes128-ctr", "aes256-cbc"])
def test_tags_are_stepped_over(cipher: str, name: str) -> None:
    spec = OBSERVED_MACS[name]
    keys = random_keys(cipher, name)
    encryptor = Cipher(
        algorithms.AES(keys.key), modes.CTR(keys.iv) if cipher == "aes128-ctr" else modes.CBC(keys.iv)
    ).encryptor()
    opener = watching(cipher, name, DirectionKeys(keys.iv, keys.key, b""))  # so that not even these are verified
    payloads = (b"\5short", b"\x5e" + os.urandom(4000), b"\2")
    for payload in payloads:
        if spec.etm:
            padding = 4 + -(len(payload) + 5) % 16
            plain = struct.pack(">B", padding) + payload + bytes(padding)
            packet = struct.pack(">I", len(plain)) + encryptor.update(plain)
        else:
            packet = encryptor.update(framed(payload, 16))
        opener.feed(packet + os.urandom(spec.tag_size))
        assert bytes(opener.next_packet() or b"") == payload
    assert not verifies(cipher, name, DirectionKeys(keys.iv, keys.key, b""))
    assert verifies(cipher, name, keys) is bool(spec.hash)


@pytest.mark.parametrize("name", [name for name, spec in OBSERVED_MACS.items() if spec.hash])
def test_tags_that_can_be_verified_are(name: str) -> None:
    spec = OBSERVED_MACS[name]
    keys = random_keys("none", name)
    mac = Mac(MacSpec("x", spec.key_size, spec.tag_size, spec.etm, spec.hash), keys.mac_key)
    plain = framed(b"\5one", 8) if not spec.etm else struct.pack(">IB", 16, 11) + b"\5one" + bytes(11)
    opener = watching("none", name, keys)
    opener.feed(plain + mac.tag(0, plain) + plain + mac.tag(7, plain))
    assert bytes(opener.next_packet() or b"") == b"\5one"
    with pytest.raises(MacError):
        opener.next_packet()


def test_keys_without_a_mac_key_do_for_nobody_else() -> None:
    keys = DirectionKeys(bytes(16), bytes(16), b"")
    with pytest.raises(InvalidArgument):
        opening("aes128-ctr", "hmac-sha2-256", keys)
    assert opening("aes128-ctr", "hmac-sha2-256", keys, passive=True).overhead == 36
    with pytest.raises(InvalidArgument):  # if there is one, it has the right size
        opening("aes128-ctr", "hmac-sha2-256", DirectionKeys(bytes(16), bytes(16), b"x"), passive=True)


def test_who_watches_conceals_nothing() -> None:
    """A live side answers a bad length as late as a bad tag; an observer says at once that it is none."""
    keys = random_keys("aes128-ctr", "hmac-sha2-256")
    for passive in (False, True):
        opener = Opener(packet_limit=10_000)
        opener.switch("aes128-ctr", "hmac-sha2-256", keys, reset_sequence=True, passive=passive)
        opener.feed(Cipher(algorithms.AES(keys.key), modes.CTR(keys.iv)).encryptor().update(b"\xff" * 64))
        if passive:
            with pytest.raises(ProtocolViolation, match="packet_length of 4294967295"):
                opener.next_packet()
        else:
            assert opener.next_packet() is None


def test_packets_in_clear_of_any_size() -> None:
    odd = struct.pack(">IB", 13, 4) + b"\2\0\0\0\3abc" + bytes(4)
    assert len(odd) % 8
    opener = Opener(packet_limit=10_000, passive=True)
    opener.feed(odd)
    assert bytes(opener.next_packet() or b"") == b"\2\0\0\0\3abc"
    strict = Opener(packet_limit=10_000)
    strict.feed(odd)
    with pytest.raises(ProtocolViolation):
        strict.next_packet()


@pytest.mark.parametrize("cuts", [(), (5,), (30,), (3, 17, 40)])
def test_the_rest(cuts: tuple[int, ...]) -> None:
    """What was fed and not opened comes back whole, however it was fed."""
    sealer = Sealer(entropy=system_entropy)
    first, second = bytes(sealer.seal(b"\2one")), bytes(sealer.seal(b"\2two"))
    data = first + second + b"tail"
    opener = Opener(packet_limit=10_000)
    places = (0, *cuts, len(data))
    for start, stop in itertools.pairwise(places):
        opener.feed(data[start:stop])
    assert bytes(opener.next_packet() or b"") == b"\2one"
    assert opener.rest() == second + b"tail"
    assert opener.buffered == 0
    assert opener.rest() == b""
    opener.feed(second)
    assert bytes(opener.next_packet() or b"") == b"\2two"


def test_another_inflater() -> None:
    deflater = Deflater()
    sealer = Sealer(entropy=system_entropy)
    opener = Opener(packet_limit=10_000)
    opener.inflate_with(Inflater())
    opener.feed(bytes(sealer.seal(deflater.deflate(b"\2one", b""))))
    assert bytes(opener.next_packet() or b"") == b"\2one"


@pytest.mark.parametrize("curve", [CURVE25519, CURVE448, NISTP256, NISTP384, NISTP521], ids=lambda curve: curve.name)
def test_private_values_are_taken_back(curve: Curve) -> None:
    drawn: list[bytes] = []

    def entropy(count: int, label: str) -> bytes:
        drawn.append(os.urandom(count))
        return drawn[-1]

    mine, other = curve.ephemeral(entropy), curve.ephemeral(system_entropy)
    private = drawn[0]
    order: int | None = getattr(curve, "order", None)
    if order is not None:
        private = (int.from_bytes(private, "big") % (order - 1) + 1).to_bytes(curve.size, "big")
        assert curve.restore(bytes(curve.size)) is None
        assert curve.restore(order.to_bytes(curve.size, "big")) is None
    else:
        assert curve.restore(private[1:]) is None
    again = curve.restore(private)
    assert again is not None
    assert again.share == mine.share
    assert again.agree(other.share) == mine.agree(other.share) == other.agree(mine.share)


def test_every_spec_has_its_sizes() -> None:
    for cipher, spec in {**CIPHERS, **OBSERVED_CIPHERS}.items():
        assert spec.name == cipher
        for mac in (None,) if spec.aead else {**MACS, **OBSERVED_MACS}:
            keys = random_keys(cipher, mac)
            assert opening(cipher, mac, keys, passive=True).alignment == spec.block_size
