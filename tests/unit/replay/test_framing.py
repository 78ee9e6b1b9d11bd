"""Packet sizes in ciphertext, keys that fit or not, initialization vectors that are searched for, late compression."""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.config import Preferences, system_entropy
from sshproto.replay import framing as room
from sshproto.replay.events import Integrity, KeysMissing, PacketOpened, SecretFound, Side
from sshproto.replay.framing import Framing, LateInflater, Lock, Marks, framing, words
from sshproto.replay.observer import Observer
from sshproto.replay.secrets import DerivedKeys, Secrets
from sshproto.transport.compression import Deflater
from sshproto.transport.keyschedule import direction_keys
from sshproto.transport.packets import Sealer
from sshproto.transport.suites import DirectionKeys, key_sizes
from sshproto.wire.messages import ChannelData, Debug, ExtInfo, ServiceRequest
from sshproto.wire.table import Role
from tests.replay.sessions import Recording, data_of, drain, observe, packets, session, told, troubles

FIRST = ExtInfo((("server-sig-algs", b"ssh-ed25519"),)).encode()
PAYLOADS = [
    FIRST,
    ServiceRequest("ssh-userauth").encode(),
    ChannelData(0, bytes(5000)).encode(),
    Debug(True, "x").encode(),
]


def random_keys(cipher: str, mac: str | None) -> DirectionKeys:
    return DirectionKeys(*(os.urandom(size) for size in key_sizes(cipher, mac)))


def sealed(cipher: str, mac: str | None, keys: DirectionKeys, *, sequence: int = 0) -> list[bytes]:
    sealer = Sealer(entropy=system_entropy)
    sealer.switch(cipher, mac, keys, reset_sequence=True)
    sealer.sequence_number = sequence
    return [bytes(sealer.seal(payload)) for payload in PAYLOADS]


def lock(cipher: str, mac: str | None, *, sequence: int = 0, compression: str = "none") -> Lock:
    return Lock(cipher=cipher, mac=mac, compression=compression, sequence_number=sequence)


# ---------------------------------------------------------------------------------------------------------------- sizes


@given(cuts=st.lists(st.integers(0, 6000), max_size=6))
@pytest.mark.parametrize(
    ("cipher", "mac"),
    [
        ("aes256-gcm@openssh.com", None),
        ("aes128-gcm@openssh.com", "hmac-md5"),
        ("aes128-ctr", "hmac-sha2-512-etm@openssh.com"),
        ("3des-cbc", "hmac-sha1-96-etm@openssh.com"),
    ],
)
def test_exact_sizes(cipher: str, mac: str | None, cuts: list[int]) -> None:
    parts = sealed(cipher, mac, random_keys(cipher, mac))
    data = b"".join(parts) + b"\0\0"
    frames = framing(cipher, mac)
    assert frames.exact
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    sizes = [size for start, stop in itertools.pairwise(places) for size in frames.feed(data[start:stop])]
    assert sizes == [(len(part), True) for part in parts]
    assert frames.left == 2


@pytest.mark.parametrize(
    ("cipher", "mac"),
    [
        ("chacha20-poly1305@openssh.com", "hmac-sha2-256-etm@openssh.com"),
        ("aes128-ctr", "hmac-sha2-256"),
        ("aes128-ctr", "mac@example.org"),
        ("cipher@example.org", "hmac-sha2-256"),
        (None, None),
    ],
)
def test_sizes_as_they_come(cipher: str | None, mac: str | None) -> None:
    frames = framing(cipher, mac)
    assert not frames.exact
    assert frames.feed(b"") == []
    assert frames.feed(bytes(7)) == [(7, False)]
    assert frames.feed(b"\xff" * 70_000) == [(70_000, False)]
    assert frames.left == 0


def test_macs_and_ciphers_that_only_an_observer_knows() -> None:
    assert framing("aes128-ctr", "umac-64-etm@openssh.com").exact
    assert framing("blowfish-cbc", "hmac-md5-96-etm@openssh.com").exact
    assert framing("cipher@example.org", "hmac-md5-etm@openssh.com").exact  # the length is clear whatever the cipher
    assert framing("AEAD_AES_128_GCM", "AEAD_AES_128_GCM").exact


@pytest.mark.parametrize("length", [0, 4, 17, 0x100010, 0xFFFFFFFF])
def test_lengths_that_are_none(length: int) -> None:
    good = (32).to_bytes(4, "big") + bytes(48)
    frames = framing("aes128-gcm@openssh.com", None)
    assert frames.feed(good + good[:5]) == [(52, True)]
    assert frames.feed(good[5:] + length.to_bytes(4, "big") + bytes(9)) == [(52, True), (13, False)]
    assert not frames.exact
    assert frames.left == 0
    assert frames.feed(good) == [(52, False)]


def test_what_waits_is_bounded() -> None:
    frames = Framing(20, 16)
    assert frames.feed((room.PACKET_LIMIT).to_bytes(4, "big") + bytes(room.PACKET_LIMIT)) == []
    assert frames.feed(bytes(16)) == [(room.PACKET_LIMIT + 20, True)]


# -------------------------------------------------------------------------------------------------------------- marks


def test_marks() -> None:
    marks = Marks()
    for frame, size in ((1, 10), (2, 5), (2, 5), (4, 10)):
        marks.add(size, frame / 2, frame)
    assert marks.size == 30
    assert marks.where(0, 10) == (0.5, (1,))
    assert marks.where(0, 11) == (1.0, (1, 2))
    assert marks.where(9, 20) == (1.0, (1, 2))
    assert marks.where(10, 30) == (2.0, (2, 4))
    assert marks.where(30, 31) == (None, ())
    assert [len(piece) for piece in marks.pieces(0, bytes(30))] == [10, 5, 5, 10]
    assert [len(piece) for piece in marks.pieces(3, bytes(14))] == [7, 5, 2]
    assert marks.pieces(12, b"x") == [b"x"]
    assert marks.pieces(12, b"") == []
    marks.forget(20)
    assert marks.where(20, 30) == (2.0, (4,))
    marks.forget(30)
    assert marks.where(0, 30) == (None, ())
    marks.add(1, None, None)
    assert marks.where(30, 31) == (None, ())


def test_words() -> None:
    assert words(b"Protocol mismatch.\r\nmore") == "; the bytes read 'Protocol mismatch.'"
    assert words(b"\x00\x00\x01\x02") == words(b"abc") == words(b"caf\xc3\xa9 open") == words(b"") == ""


# -------------------------------------------------------------------------------------------------------- compression


@given(before=st.lists(st.sampled_from(PAYLOADS), max_size=3), after=st.lists(st.sampled_from(PAYLOADS), max_size=3))
def test_compression_begins_when_it_begins(before: list[bytes], after: list[bytes]) -> None:
    inflater, deflater = LateInflater(), Deflater()
    for payload in before:
        assert inflater.inflate(payload, 10_000) == payload
    for payload in after:
        assert inflater.inflate(deflater.deflate(payload, b""), 10_000) == payload


def test_every_level_of_zlib_and_no_message_looks_like_its_header() -> None:
    import zlib

    for level in range(10):
        for bits in range(9, 16):
            stream = zlib.compressobj(level, zlib.DEFLATED, bits)
            data = stream.compress(FIRST) + stream.flush(zlib.Z_PARTIAL_FLUSH)
            assert LateInflater().inflate(data, 1000) == FIRST
    from sshproto.wire import messages

    for kind in messages.ALL:
        for second in range(256):
            data = bytes((kind.number, second))
            assert LateInflater().inflate(data, 1000) == data
    assert LateInflater().inflate(b"\x78", 1000) == b"\x78"


# ----------------------------------------------------------------------------------------------------------------- keys

SUITES: list[tuple[str, str | None]] = [
    ("chacha20-poly1305@openssh.com", None),
    ("aes256-gcm@openssh.com", None),
    ("aes128-ctr", "hmac-sha2-256"),
    ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes128-cbc", "hmac-sha1"),
    ("3des-cbc", "hmac-md5-etm@openssh.com"),
]


@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.parametrize(("cipher", "mac"), SUITES)
def test_keys_that_fit(cipher: str, mac: str | None, verified: bool) -> None:
    keys = random_keys(cipher, mac)
    data = b"".join(sealed(cipher, mac, keys, sequence=3))
    first = len(sealed(cipher, mac, keys)[0])
    closed = lock(cipher, mac, sequence=3)
    if mac is not None and not verified:
        keys = attrs.evolve(keys, mac_key=b"")
    assert closed.verifies(keys) is (verified or mac is None)
    for size in (0, 3, 20, first - 1):
        assert closed.fits(keys, data[:size]) is None
    assert closed.fits(keys, data[:first]) is True
    assert closed.fits(keys, data) is True
    wrong = [attrs.evolve(keys, key=os.urandom(len(keys.key))) for _ in range(50)]
    # Where no tag tells, one wrong key in some 20,000 makes messages without a flaw by chance.
    assert sum(closed.fits(each, data) is True for each in wrong) <= (mac is not None)
    if mac is None and cipher.startswith("chacha"):
        assert lock(cipher, mac, sequence=4).fits(keys, data) is False
    # What is longer than needed is cut off; what is shorter can't be it.
    derived = DerivedKeys(key=keys.key + b"more", iv=keys.iv + b"more", mac_key=keys.mac_key and keys.mac_key + b"more")
    assert closed.search(derived, data) == keys
    assert closed.search(attrs.evolve(derived, key=keys.key[1:]), data) is False
    if keys.iv:
        assert closed.search(attrs.evolve(derived, iv=keys.iv[1:]), data) is False


def later(keys: DirectionKeys, mode: str, count: int) -> bytes:
    if mode == "gcm":
        return keys.iv[:4] + ((int.from_bytes(keys.iv[4:], "big") + count) % 2**64).to_bytes(8, "big")
    return ((int.from_bytes(keys.iv, "big") + count) % 2**128).to_bytes(16, "big")


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.parametrize(
    ("cipher", "mac", "mode"),
    [
        ("aes128-gcm@openssh.com", None, "gcm"),
        ("aes128-ctr", "hmac-sha2-256", "ctr"),
        ("aes192-ctr", "hmac-sha2-256-etm@openssh.com", "ctr"),
    ],
)
def test_later_initialization_vectors(
    cipher: str, mac: str | None, mode: str, verified: bool, wraps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are found in the memory of a process that has been running for a while."""
    keys = random_keys(cipher, mac)
    if wraps:
        keys = attrs.evolve(keys, iv=keys.iv[:4] + b"\xff" * 8 if mode == "gcm" else b"\xff" * 15 + b"\xfe")
    data = b"".join(sealed(cipher, mac, keys))
    wanted = keys if verified and mac else attrs.evolve(keys, mac_key=b"")
    monkeypatch.setattr(room, "SEARCH_PACKETS", 1 << 12)
    limit = room.SEARCH_PACKETS if mode == "gcm" else room.SEARCH_BLOCKS
    for count in (0, 1, 4, 333, limit // 2, limit - 1):
        derived = DerivedKeys(key=keys.key, iv=later(keys, mode, count), mac_key=wanted.mac_key)
        assert lock(cipher, mac).search(derived, data) == wanted
    for count in (-1, limit + 1):
        derived = DerivedKeys(key=keys.key, iv=later(keys, mode, count), mac_key=wanted.mac_key)
        assert isinstance(lock(cipher, mac).search(derived, data), bool)  # True: more might tell
    derived = DerivedKeys(key=keys.key, iv=later(keys, mode, 7), mac_key=wanted.mac_key)
    assert lock(cipher, mac).search(derived, data[:20]) is True
    # Keys whose place is known are the first ones, or none.
    assert lock(cipher, mac).search(attrs.evolve(derived, cookies=frozenset((b"x",))), data) is False


def test_no_later_vector_for_cbc() -> None:
    keys = random_keys("aes128-cbc", "hmac-sha1")
    data = b"".join(sealed("aes128-cbc", "hmac-sha1", keys))
    derived = DerivedKeys(key=keys.key, iv=data[-36:-20])
    assert lock("aes128-cbc", "hmac-sha1").search(derived, data) is False


def test_what_is_not_known() -> None:
    assert lock("aes128-ctr", "hmac-md5").unknown == ""
    assert lock("aes128-gcm@openssh.com", "anything").unknown == ""
    assert lock("twofish-cbc", "hmac-md5").unknown == "the cipher 'twofish-cbc' is not known here"
    assert lock("aes128-ctr", "x").unknown == "the MAC 'x' is not known here"
    assert lock("none", "none", compression="lz4").unknown == "the compression 'lz4' is not known here"


# ------------------------------------------------------------------------------------------------------ whole sessions


def derived_keys(recording: Recording, epoch: int = 0) -> dict[Role, tuple[DirectionKeys, str]]:
    """The keys of both directions after a key exchange, and their ciphers."""
    observer = Observer(recording.secrets)
    for side, data in recording.wire:
        observer.feed(side, data)
        drain(observer)
        found = observer.kex.rounds.get(epoch)
        if found is not None and len(found.opened) == 2:
            break
    (solution,) = observer.kex.rounds[epoch].solutions
    method, chosen = observer.kex.rounds[epoch].method, observer.kex.rounds[epoch].chosen
    assert method is not None
    assert chosen is not None
    assert observer.kex.session_id is not None
    result = {}
    for role, cipher, mac in (
        (Role.CLIENT, chosen.cipher_client_to_server, chosen.mac_client_to_server),
        (Role.SERVER, chosen.cipher_server_to_client, chosen.mac_server_to_client),
    ):
        keys = direction_keys(
            method.hash_name, solution.secret, solution.hash, observer.kex.session_id, sender=role,
            sizes=key_sizes(cipher, mac),
        )  # fmt: skip
        result[role] = keys, cipher
    return result


@pytest.mark.parametrize("with_mac", [True, False])
@pytest.mark.parametrize(("cipher", "mac"), SUITES)
@pytest.mark.parametrize("compression", ["none", "zlib", "zlib@openssh.com"])
def test_sessions_open_by_derived_keys(cipher: str, mac: str | None, with_mac: bool, compression: str) -> None:
    preferences = Preferences(
        cipher=(cipher,), mac=(mac or "hmac-sha2-256",), compression=(compression,), allow_terrapin=True
    )
    recording = session(preferences=preferences)
    expected = observe(recording.wire, recording.secrets)
    secrets = Secrets()
    for keys, _ in derived_keys(recording).values():
        secrets.add_derived(DerivedKeys(key=keys.key, iv=keys.iv, mac_key=keys.mac_key if with_mac else b""))
    for wire in (recording.wire, [(side, recording.sides[side]) for side in Side]):
        events = observe(wire, secrets)
        assert troubles(events) == []
        for side in Side:
            mine, other = packets(events, side, meaning=False), packets(expected, side, meaning=False)
            assert [it[:6] for it in mine] == [it[:6] for it in other]
        verified = Integrity.VERIFIED if with_mac or mac is None else Integrity.UNCHECKED
        assert {it.integrity for it in told(events, PacketOpened) if it.epoch} == {verified}
        assert [(it.source, it.session_id, it.verified) for it in told(events, SecretFound)] == [
            ("derived keys", None, False)
        ]


@pytest.mark.parametrize(("cipher", "mode"), [("aes128-gcm@openssh.com", "gcm"), ("aes256-ctr", "ctr")])
def test_sessions_open_by_what_a_memory_holds(cipher: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SEARCH_BLOCKS", 1 << 12)
    monkeypatch.setattr(room, "SEARCH_PACKETS", 1 << 8)
    recording = session(preferences=Preferences(cipher=(cipher,), mac=("hmac-sha2-256",)))
    entries = [
        {"task_name": "sshd", "cipher_name": name, "key": keys.key.hex(), "iv": later(keys, mode, 4).hex()}
        for keys, name in derived_keys(recording).values()
    ]
    secrets = Secrets()
    secrets.add_session_keys("\n".join(map(json.dumps, entries)))
    events = observe(recording.wire, secrets)
    assert troubles(events) == []
    assert data_of(events, Side.DIALLER)[0, 0] == b"how do you do? " * 40
    bytewise = [(side, data[place : place + 1]) for side, data in recording.wire for place in range(len(data))]
    assert data_of(observe(bytewise, secrets), Side.DIALLER)[0, 0] == b"how do you do? " * 40


def test_keys_of_one_direction() -> None:
    """The other stays sealed; who waits for it is let go at the end."""
    recording = session(rekeys="c")
    keys = derived_keys(recording)
    for role, side in ((Role.CLIENT, Side.DIALLER), (Role.SERVER, Side.DIALLED)):
        secrets = Secrets()
        secrets.add_derived(DerivedKeys(key=keys[role][0].key, iv=keys[role][0].iv))
        events = observe(recording.wire, secrets)
        assert troubles(events) == []
        assert {it.epoch for it in told(events, PacketOpened, side)} == {0, 1}
        assert {it.epoch for it in told(events, PacketOpened, side.other)} == {0}
        assert told(events, KeysMissing, side.other)
        assert [it.problem for it in told(events, KeysMissing, side)] == ["one side of the key exchange is missing"]


def test_keys_with_their_place() -> None:
    """With the exchange hash the server's signature proves them; with the session identifier the next secret helps."""
    recording = session(rekeys="c")
    expected = observe(recording.wire, recording.secrets)
    session_id = recording.pair.client.conn.session_id
    assert session_id is not None
    cookie = frozenset((bytes.fromhex(recording.key_log[0].split()[0]),))
    for proved, exchange_hash in ((True, session_id), (False, b"x"), (False, b"")):
        secrets = Secrets()
        secrets.add_key_log(recording.key_log[1])
        for role, (keys, cipher) in derived_keys(recording).items():
            secrets.add_derived(
                DerivedKeys(
                    key=keys.key, iv=keys.iv, mac_key=keys.mac_key, cipher=cipher, cookies=cookie, sender=role,
                    session_id=session_id, exchange_hash=exchange_hash,
                )
            )  # fmt: skip
        events = observe(recording.wire, secrets)
        assert troubles(events) == []
        found = [(it.epoch, it.source, it.session_id, it.verified) for it in told(events, SecretFound)]
        assert found == [(0, "derived keys", session_id, proved), (1, "shared secret", session_id, True)]
        for side in Side:
            assert packets(events, side) == packets(expected, side)


def test_keys_that_fit_nothing_are_tried_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = session(preferences=Preferences(cipher=("aes128-gcm@openssh.com",)))
    tried: list[Any] = []
    search = Lock.search

    def counted(self: Lock, derived: DerivedKeys, data: bytes) -> Any:
        tried.append(len(data))
        return search(self, derived, data)

    monkeypatch.setattr(Lock, "search", counted)
    monkeypatch.setattr(room, "SEARCH_PACKETS", 10)
    secrets = Secrets()
    for number in range(5):
        secrets.add_derived(DerivedKeys(key=bytes((number,)) * 16, iv=bytes(12)))
    bytewise = [(side, data[place : place + 1]) for side, data in recording.wire for place in range(len(data))]
    events = observe(bytewise, secrets)
    assert len(told(events, KeysMissing)) == 2
    assert len(tried) < 5 * 2 * 8
