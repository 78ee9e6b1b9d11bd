"""The binary packet protocol: framing, chunking, lengths, padding, tags, sequence numbers."""

from __future__ import annotations

import itertools
import struct
import time
import traceback
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto.errors import CompressionError, ConnectionLoss, InvalidArgument, MacError, ProtocolViolation
from sshproto.transport.ciphers import SMALL_OPEN, SMALL_SEAL, sealing
from sshproto.transport.compression import COMPRESSIONS
from sshproto.transport.macs import MACS
from sshproto.transport.packets import Opener, Sealer
from sshproto.transport.suites import CIPHERS, DirectionKeys, key_sizes

LIMIT = 35_000
SUITES: list[tuple[str, str | None]] = [
    (cipher, mac)
    for cipher, spec in CIPHERS.items()
    for mac in ((None,) if spec.aead else tuple(MACS))  # type: ignore[attr-defined]
]
FEW: list[tuple[str, str | None]] = [
    ("chacha20-poly1305@openssh.com", None),
    ("aes128-gcm@openssh.com", None),
    ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes256-ctr", "hmac-sha2-256"),
    ("aes128-cbc", "hmac-sha1-96-etm@openssh.com"),
    ("aes128-cbc", "hmac-sha1-96"),
    ("3des-cbc", "hmac-md5"),
]
CONCEALING = [suite for suite in SUITES if suite[1] and not MACS[suite[1]].etm]
FEW_CONCEALING = [suite for suite in FEW if suite in CONCEALING]
OPEN = [suite for suite in FEW if suite not in CONCEALING]


def ids(suite: tuple[str, str | None]) -> str:
    return f"{suite[0]}+{suite[1]}"


def entropy(count: int, label: str) -> bytes:
    assert label == "padding"
    return (b"\xa5\x5a\xc3" * count)[:count]


def keys_for(cipher: str, mac: str | None, salt: int = 0) -> DirectionKeys:
    source = itertools.count(salt)
    iv, key, mac_key = (bytes(next(source) * 7 % 251 for _ in range(size)) for size in key_sizes(cipher, mac))
    return DirectionKeys(iv, key, mac_key)


def pair(
    cipher: str | None = None, mac: str | None = None, *, limit: int = LIMIT, compression: str = "none"
) -> tuple[Sealer, Opener]:
    sealer, opener = Sealer(entropy=entropy), Opener(packet_limit=limit)
    for half in (sealer, opener):
        if cipher is not None:
            half.switch(cipher, mac, keys_for(cipher, mac), reset_sequence=False)
        half.set_compression(compression, authenticated=True)
    return sealer, opener


def raw(length: int, content: bytes, cipher: str | None, mac: str | None, sequence: int = 0) -> bytes:
    """A packet whose declared length and content are what the test says, sealed under the right keys.

    ``content[0]`` is the padding_length; the sealing half writes it from the padding's size, so the padding is made of
    that size and the rest goes before it."""
    if cipher is None:
        return struct.pack(">I", length) + content
    half = sealing(cipher, mac, keys_for(cipher, mac))
    if hasattr(half, "_stream"):
        half._stream = False  # seals in pieces: the content need not have the declared length

    class Padding(bytes):
        def __len__(self) -> int:  # seen by seal(), not by join()
            return content[0]

    return bytes(half.seal(length, b"", content[1:], Padding(), sequence))


def drain(opener: Opener) -> list[bytes]:
    payloads = []
    while (payload := opener.next_packet()) is not None:
        payloads.append(bytes(payload))
    return payloads


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    pieces = []
    for size in itertools.cycle(sizes):
        if not data:
            return pieces
        pieces.append(data[:size])
        data = data[size:]
    return pieces


# ----------------------------------------------------------------------------------------------------------- round trip

PAYLOADS = [
    b"\x01",
    b"\x02" * 15,
    bytes(range(256)) * 4,
    b"\x5e" + bytes(SMALL_OPEN),
    b"\x5e" + bytes(range(256)) * (SMALL_SEAL // 256 + 1),
    b"\x63",
]


@pytest.mark.covers("R25", "R26")
@pytest.mark.parametrize("suite", SUITES, ids=ids)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_round_trip_of_every_suite(suite: tuple[str, str | None], compression: str) -> None:
    sealer, opener = pair(*suite, compression=compression)
    wire = [sealer.seal(payload) for payload in PAYLOADS]
    data = b"".join(wire)
    for sizes in ([len(data)], [1000, 7, 3000], [4096]):
        _, opener = pair(*suite, compression=compression)
        received = []
        for piece in cut(data, sizes):
            opener.feed(piece)
            received += drain(opener)
        assert received == PAYLOADS
        assert (opener.packets, opener.served) == (sealer.packets, len(data)) == (len(PAYLOADS), opener.fed)
        assert opener.sequence_number == sealer.sequence_number == len(PAYLOADS)
        assert opener.buffered == 0


@pytest.mark.covers("R163")
@settings(max_examples=60, deadline=None)
@given(
    suite=st.sampled_from([(None, None), *FEW]),
    compression=st.sampled_from(list(COMPRESSIONS)),
    payloads=st.lists(st.binary(min_size=1, max_size=3000), max_size=8),
    sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=10),
    kinds=st.lists(st.sampled_from([bytes, bytearray, memoryview]), min_size=1, max_size=4),
    lazy=st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
def test_any_chunking_gives_the_same(
    suite: tuple[str | None, str | None],
    compression: str,
    payloads: list[bytes],
    sizes: list[int],
    kinds: list[type],
    lazy: list[int],
) -> None:
    sealer, opener = pair(*suite, compression=compression)
    data = b"".join(sealer.seal(payload[:3], payload[3:]) for payload in payloads)
    received: list[bytes] = []
    fed = 0
    for piece, kind, quota in zip(cut(data, sizes), itertools.cycle(kinds), itertools.cycle(lazy), strict=False):
        opener.feed(kind(piece))
        fed += len(piece)
        for _ in range(quota):  # the application is not always in a hurry
            payload = opener.next_packet()
            if payload is None:
                break
            received.append(bytes(payload))
        assert opener.served + opener.buffered == opener.fed == fed
    received += drain(opener)
    assert received == payloads
    assert opener.buffered == 0


@pytest.mark.covers("R25", "R163")
@pytest.mark.parametrize("suite", [(None, None), *FEW], ids=ids)
def test_byte_by_byte(suite: tuple[str | None, str | None]) -> None:
    sealer, opener = pair(*suite)
    data = b"".join(sealer.seal(payload) for payload in PAYLOADS)
    received = []
    for value in data:
        opener.feed(bytes((value,)))
        payload = opener.next_packet()
        if payload is not None:
            received.append(bytes(payload))
            assert opener.buffered == 0
    assert received == PAYLOADS


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_feeder_may_reuse_its_buffer(kind: type) -> None:
    sealer, opener = pair("aes128-gcm@openssh.com")
    packet = bytes(sealer.seal(b"x" * 5000))
    buffer = bytearray(packet)
    opener.feed(kind(bytes(buffer) if kind is bytes else buffer))
    buffer[:] = bytes(len(buffer))
    assert opener.next_packet() == b"x" * 5000


@pytest.mark.covers("B33")
def test_feeding_is_linear() -> None:
    sealer, opener = pair("aes128-gcm@openssh.com")
    packet_count = 12_000
    data = b"".join(sealer.seal(b"\x02" * 40) for _ in range(packet_count))
    start = time.process_time()
    opener.feed(data)
    assert len(drain(opener)) == packet_count
    at_once = time.process_time() - start

    _, opener = pair("aes128-gcm@openssh.com")
    start = time.process_time()
    opener.feed(data)
    for _ in range(100_000):  # one byte each behind a backlog of 800 kB
        opener.feed(b"\0")
    trickled = time.process_time() - start
    # A copy of the backlog for each feed would take some 10 s.
    assert at_once < 1 and trickled < 1
    assert opener.buffered == len(data) + 100_000


@pytest.mark.covers("B33")
def test_a_backlog_that_is_never_empty_costs_its_bytes() -> None:
    sealer, opener = pair("aes128-gcm@openssh.com")
    packets = [bytes(sealer.seal(b"\x02" * 40)) for _ in range(12_000)]
    opener.feed(b"".join(packets[:6000]))
    start = time.process_time()
    for packet in packets[6000:]:
        opener.feed(packet)
        assert opener.next_packet() == b"\x02" * 40
    assert time.process_time() - start < 1  # copying the backlog each time: some 2 s
    assert len(drain(opener)) == 6000


@pytest.mark.covers("R21")
def test_large_payload_at_the_limit_of_rfc_4253() -> None:
    for suite in [(None, None), *FEW]:
        sealer, opener = pair(*suite)
        payload = bytes(32768)
        opener.feed(sealer.seal(payload))
        assert opener.next_packet() == payload


@pytest.mark.parametrize("suite", [suite for suite in FEW if "cbc" in suite[0]], ids=ids)
def test_scratch_has_the_room_that_cbc_wants(suite: tuple[str, str | None]) -> None:
    sealer, opener = pair(*suite)
    for size in range(4000, 4100, 2):
        opener.feed(sealer.seal(bytes(size)))
        assert opener.next_packet() == bytes(size)


def test_empty_feeds_are_nothing() -> None:
    _, opener = pair()
    opener.feed(b"")
    opener.feed(memoryview(b""))
    assert opener.next_packet() is None
    assert opener.buffered == 0


# -------------------------------------------------------------------------------------------------------------- padding


@pytest.mark.covers("R19")
@pytest.mark.parametrize("suite", [(None, None), *FEW], ids=ids)
def test_padding_is_minimal_and_aligned(suite: tuple[str | None, str | None]) -> None:
    cipher, mac = suite
    etm = mac is not None and MACS[mac].etm
    aead = cipher is not None and CIPHERS[cipher].aead
    block = CIPHERS[cipher].block_size if cipher else 8
    tag = 16 if aead else MACS[mac].tag_size if mac else 0
    for size in range(1, 70):
        sealer, _ = pair(*suite)
        total = len(sealer.seal(bytes(size))) - tag
        assert (total - (4 if aead or etm else 0)) % block == 0
        assert 4 <= total - 5 - size < 4 + block


@pytest.mark.covers("R20")
def test_padding_comes_from_entropy_in_blocks() -> None:
    drawn = []

    def source(count: int, label: str) -> bytes:
        drawn.append((count, label))
        return bytes((len(drawn),)) * count

    sealer = Sealer(entropy=source)
    assert sealer.seal(b"abc").endswith(b"\1" * 8)
    for _ in range(1000):
        sealer.seal(b"abc")
    assert 2 <= len(drawn) < 20
    assert {label for _, label in drawn} == {"padding"}


@pytest.mark.covers("R20")
def test_padding_differs_from_packet_to_packet() -> None:
    counter = itertools.count()
    sealer = Sealer(entropy=lambda count, label: b"".join(struct.pack(">I", next(counter)) for _ in range(count // 4)))
    assert len({bytes(sealer.seal(b"abc")) for _ in range(1000)}) == 1000


@pytest.mark.covers("V23", "R19")
@pytest.mark.parametrize("suite", [(None, None), *FEW], ids=ids)
@pytest.mark.parametrize(
    ("length", "padding"),
    [
        *((60, padding) for padding in (0, 1, 2, 3, 4, "most", "len-1", "len", 255)),
        *((2044, padding) for padding in (0, 1, 2, 3, 4, 255)),  # the other way of opening
    ],
)
def test_padding_length(suite: tuple[str | None, str | None], padding: int | str, length: int) -> None:
    cipher, mac = suite
    block = CIPHERS[cipher].block_size if cipher else 8
    counted = 4 if cipher is None or suite in CONCEALING else 0
    length -= (length + counted) % block
    if isinstance(padding, str):
        padding = {"most": length - 2, "len-1": length - 1, "len": length}[padding]
    content = bytes((padding,)) + bytes(range(1, 256)) * 9
    _, opener = pair(*suite)
    opener.feed(raw(length, content[:length], cipher, mac))
    if 4 <= padding <= length - 2:
        assert opener.next_packet() == content[1 : length - padding]
    else:
        with pytest.raises(ProtocolViolation, match=f"padding_length of {padding} in a packet_length of {length}"):
            opener.next_packet()


# --------------------------------------------------------------------------------------------------------------- length


def declared(suite: tuple[str | None, str | None], length: int) -> bytes:
    """The beginning of a packet that declares ``length``: one block."""
    cipher, mac = suite
    block = max(8, CIPHERS[cipher].block_size if cipher else 8)
    content = bytes((4,)) + bytes(block)
    return raw(length, content[: 2 * block - 4], cipher, mac)[:block]


@pytest.mark.covers("V21", "V22", "V24", "R22")
@pytest.mark.parametrize("suite", [(None, None), *OPEN], ids=ids)
@pytest.mark.parametrize("length", [*range(17), LIMIT + 1, LIMIT + 8, 2**31 - 1, 2**31, 2**32 - 1])
def test_bad_lengths_are_refused_at_their_fourth_byte(suite: tuple[str | None, str | None], length: int) -> None:
    cipher, _ = suite
    block = CIPHERS[cipher].block_size if cipher else 8
    counted = 0 if cipher else 4
    _, opener = pair(*suite)
    data = declared(suite, length)
    opener.feed(data[:3])
    assert opener.next_packet() is None
    opener.feed(data[3:4])
    if length >= 5 and length <= LIMIT and (length + counted) % block == 0:
        assert opener.next_packet() is None
    else:
        with pytest.raises(ProtocolViolation, match=f"packet_length of {length}") as caught:
            opener.next_packet()
        assert caught.value.code == 2
        assert opener.buffered == 0


@pytest.mark.covers("V21", "V55")
@pytest.mark.parametrize("suite", FEW_CONCEALING, ids=ids)
@pytest.mark.parametrize("length", [*range(12), 13, 14, 15, LIMIT + 1, 2**31, 2**32 - 1])
def test_bad_lengths_look_like_bad_tags_where_all_is_encrypted(suite: tuple[str, str | None], length: int) -> None:
    _, opener = pair(*suite)
    opener.feed(declared(suite, length))
    assert opener.next_packet() is None  # nothing to see
    fed = len(declared(suite, length))
    with pytest.raises(MacError) as caught:
        while fed < LIMIT + 200:
            opener.feed(bytes(50))
            fed += 50
            assert opener.next_packet() is None
    assert LIMIT - 50 <= fed <= LIMIT + 200
    # The same words as for a wrong tag.
    sealer, opener = pair(*suite)
    packet = bytearray(sealer.seal(b"abc"))
    packet[-1] ^= 1
    opener.feed(packet)
    with pytest.raises(MacError) as other:
        opener.next_packet()
    assert str(caught.value) == str(other.value)
    assert caught.value.code == 5


@pytest.mark.covers("V21", "V55")
@pytest.mark.parametrize("limit", [1020, 4092])
def test_a_doomed_packet_fails_although_its_tag_is_right(limit: int) -> None:
    suite = ("aes256-ctr", "hmac-sha2-256")
    _, opener = pair(*suite, limit=limit)
    opener.feed(raw(limit + 16, bytes((4,)) + bytes(limit - 1), *suite))
    with pytest.raises(MacError):
        opener.next_packet()


@pytest.mark.covers("B3", "R22")
def test_packet_limit_is_exact_and_can_be_raised() -> None:
    for suite in [(None, None), *OPEN]:
        sealer, opener = pair(*suite, limit=32)
        packet = sealer.seal(bytes(100))
        length = len(packet) - (0 if suite[0] is None else 16 if suite[1] is None else MACS[suite[1]].tag_size) - 4
        opener.packet_limit = length
        opener.feed(packet)
        assert opener.next_packet() == bytes(100)
        opener.packet_limit = length - 1
        opener.feed(sealer.seal(bytes(100)))
        with pytest.raises(ProtocolViolation):
            opener.next_packet()


# ----------------------------------------------------------------------------------------------------------------- tags


@pytest.mark.covers("V40", "R26")
@pytest.mark.parametrize("suite", SUITES, ids=ids)
def test_every_bit_counts(suite: tuple[str, str | None]) -> None:
    sealer, opener = pair(*suite)
    packet = bytes(sealer.seal(b"\x5e1234567890"))
    tag = 16 if suite[1] is None else MACS[suite[1]].tag_size
    full = len(packet) < 80 and suite in FEW
    positions = range(len(packet)) if full else (*range(6), *range(len(packet) - tag, len(packet)))
    for position in positions:
        for bit in range(8) if full or position == 3 else (position % 8,):
            broken = bytearray(packet)
            broken[position] ^= 1 << bit
            _, opener = pair(*suite)
            opener.feed(broken)
            try:
                payload = opener.next_packet()
                if payload is None:  # a longer packet now: it fails when it is there
                    assert position < 4 or suite in CONCEALING
                    opener.feed(bytes(LIMIT + 100))
                    payload = opener.next_packet()
            except MacError:
                continue
            except ProtocolViolation:
                if position < 4:
                    continue
                raise
            pytest.fail(f"bit {bit} of byte {position} does not matter: {payload!r}")


def variables(error: BaseException) -> dict[str, object]:
    """The variables that ``error`` keeps alive in frames of sshproto; buffers as bytes."""
    held: dict[str, object] = {}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if "test_" not in frame.f_code.co_filename:
            for name, value in frame.f_locals.items():
                held[name] = bytes(value) if isinstance(value, memoryview) else value
    return held


@pytest.mark.covers("V40", "R169")
def test_an_error_keeps_no_plaintext() -> None:
    for suite in FEW:
        for length in (188, 1500):
            length -= (length + (4 if suite in CONCEALING else 0)) % 16
            _, opener = pair(*suite)
            opener.feed(raw(length, (b"\x02" + b"Canary" * 300)[:length], *suite))
            with pytest.raises(ProtocolViolation, match="padding_length of 2") as caught:
                opener.next_packet()
            assert b"Canary" not in repr(variables(caught.value)).encode()


@pytest.mark.covers("V40", "R169")
@pytest.mark.parametrize("suite", FEW, ids=ids)
@pytest.mark.parametrize("size", [10, 5000])
def test_nothing_is_left_after_an_error(suite: tuple[str, str | None], size: int) -> None:
    secret = b"TopSecretCanary!" * (size // 10)
    sealer, opener = pair(*suite)
    packet = bytearray(sealer.seal(secret))
    cipher = opener._cipher
    packet[-1] ^= 1
    opener.feed(packet)
    with pytest.raises(MacError) as caught:
        opener.next_packet()
    assert b"Canary" not in bytes(getattr(cipher, "_scratch", b""))
    held = variables(caught.value)
    assert "Canary" not in repr(held)
    assert "key" not in held
    # From now on the opener is dead.
    opener.feed(sealer.seal(b"abc"))
    assert opener.buffered == 0
    for _ in range(2):
        with pytest.raises(MacError) as again:
            opener.next_packet()
        assert again.value is caught.value


@pytest.mark.covers("V40")
def test_a_truncated_tag_is_waited_for() -> None:
    for suite in FEW:
        sealer, opener = pair(*suite)
        packet = bytes(sealer.seal(b"abc"))
        opener.feed(packet[:-1])
        assert opener.next_packet() is None
        assert opener.buffered == len(packet) - 1
        opener.feed(packet[-1:])
        assert opener.next_packet() == b"abc"


@pytest.mark.covers("R26", "V01", "V54")
def test_replayed_swapped_and_dropped_packets_fail() -> None:
    for suite in FEW:
        for order in ((0, 0), (1,), (0, 2)):
            sealer, opener = pair(*suite)
            packets = [bytes(sealer.seal(bytes((n + 1,)) * 30)) for n in range(3)]
            with pytest.raises((MacError, ProtocolViolation)):
                for index in order:
                    opener.feed(packets[index])
                    if opener.next_packet() is None:
                        opener.feed(bytes(LIMIT + 100))
                        opener.next_packet()


# ----------------------------------------------------------------------------------------------------- sequence numbers


@pytest.mark.covers("R26", "P16")
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("suite", FEW, ids=ids)
def test_sequence_numbers_over_a_switch(suite: tuple[str, str | None], reset: bool) -> None:
    sealer, opener = pair()
    data = bytearray()
    for _ in range(3):
        data += sealer.seal(b"\x15")
    sealer.switch(*suite, keys_for(*suite), reset_sequence=reset)
    assert sealer.packets == 0
    assert sealer.sequence_number == (0 if reset else 3)
    protected = sealer.seal(b"after") + sealer.seal(b"x" * 3000)
    sealer.switch("aes128-gcm@openssh.com", None, keys_for("aes128-gcm@openssh.com", None, 9), reset_sequence=reset)
    data += protected + sealer.seal(b"last")

    opener.feed(bytes(data))  # all at once: a switch is for what was not opened yet
    for _ in range(3):
        assert opener.next_packet() == b"\x15"
    opener.switch(*suite, keys_for(*suite), reset_sequence=reset)
    assert opener.sequence_number == (0 if reset else 3)
    assert opener.next_packet() == b"after"
    assert opener.next_packet() == b"x" * 3000
    assert opener.sequence_number == (2 if reset else 5)
    assert (opener.packets, opener.served) == (2, len(protected))
    opener.switch("aes128-gcm@openssh.com", None, keys_for("aes128-gcm@openssh.com", None, 9), reset_sequence=reset)
    assert opener.next_packet() == b"last"
    assert opener.next_packet() is None


@pytest.mark.covers("R145", "V03")
def test_sides_that_disagree_on_the_reset_fail() -> None:
    for suite in FEW:
        if "gcm" in suite[0]:
            continue  # it counts for itself, and is immune
        sealer, opener = pair()
        opener.feed(sealer.seal(b"\x15"))
        assert opener.next_packet() == b"\x15"
        sealer.switch(*suite, keys_for(*suite), reset_sequence=False)
        opener.switch(*suite, keys_for(*suite), reset_sequence=True)
        opener.feed(sealer.seal(b"after"))
        with pytest.raises((MacError, ProtocolViolation)):
            opener.next_packet()


@pytest.mark.covers("R26", "V54")
@pytest.mark.parametrize("suite", [(None, None), *FEW], ids=ids)
def test_sequence_numbers_wrap(suite: tuple[str | None, str | None]) -> None:
    sealer, opener = pair(*suite)
    sealer.sequence_number = opener.sequence_number = 2**32 - 1
    for _ in range(3):
        opener.feed(sealer.seal(b"abc"))
        assert opener.next_packet() == b"abc"
    assert sealer.sequence_number == opener.sequence_number == 2


@pytest.mark.covers("V54", "R142")
def test_gcm_counter_wraps_within_its_eight_bytes() -> None:
    keys = DirectionKeys(b"\xff" * 12, bytes(16), b"")
    sealer, opener = pair()
    for half in (sealer, opener):
        half.switch("aes128-gcm@openssh.com", None, keys, reset_sequence=False)
    for _ in range(3):
        opener.feed(sealer.seal(b"abc"))
        assert opener.next_packet() == b"abc"
    sealer.switch("aes128-gcm@openssh.com", None, keys, reset_sequence=False)
    sealer.seal(b"abc")
    second = sealer.seal(b"abc")
    other = Sealer(entropy=entropy)
    other.switch(
        "aes128-gcm@openssh.com", None, DirectionKeys(b"\xff" * 4 + bytes(8), bytes(16), b""), reset_sequence=False
    )
    assert len(second) == len(other.seal(b"abc"))
    _, opener = pair()
    opener.switch(
        "aes128-gcm@openssh.com", None, DirectionKeys(b"\xff" * 4 + bytes(8), bytes(16), b""), reset_sequence=False
    )
    opener.feed(second)
    assert opener.next_packet() == b"abc"


@pytest.mark.covers("R142")
def test_gcm_counts_packets_whichever_way_they_are_sealed_and_opened() -> None:
    sealer, opener = pair("aes128-gcm@openssh.com")
    for name in ("none", "zlib", "none"):
        for half in (sealer, opener):
            half.set_compression(name, authenticated=True)
        for payload in (b"abc", bytes(SMALL_OPEN), bytes(SMALL_SEAL), b"xyz"):
            for conceal in (False, True):
                opener.feed(bytes(sealer.seal(payload, conceal=conceal)))
                assert opener.next_packet() == payload
    assert sealer.packets == opener.packets == sealer.sequence_number == opener.sequence_number == 24
    assert opener.served == opener.fed


@pytest.mark.covers("R39")
def test_a_switch_forgets_what_the_old_keys_said_of_the_next_packet() -> None:
    new = ("aes128-gcm@openssh.com", None)
    for old in [(None, None), *FEW]:
        for kind in (bytes, bytearray):
            sealer, opener = pair(*old)
            opener.feed(sealer.seal(b"\x15"))
            assert opener.next_packet() == b"\x15"
            sealer.switch(*new, keys_for(*new), reset_sequence=True)
            rest = bytes(sealer.seal(b"abc" * 1000))
            opener.feed(kind(rest[:20]))
            try:
                assert opener.next_packet() is None  # maybe decrypted a length with the old keys
            except ConnectionLoss:
                continue
            opener.switch(*new, keys_for(*new), reset_sequence=True)
            opener.feed(kind(rest[20:]))
            assert opener.next_packet() == b"abc" * 1000


@pytest.mark.covers("R39")
def test_a_switch_between_a_straddling_packet_and_what_follows_it() -> None:
    """The packet is complete, but was not asked for before the keys changed: an observer that got its secrets late."""
    suite = ("aes128-gcm@openssh.com", None)
    # The old keys take it for longer than it is: their tag is larger.
    sealer, opener = pair("aes256-ctr", "hmac-sha2-512-etm@openssh.com")
    first = bytes(sealer.seal(b"\x15"))
    sealer.switch(*suite, keys_for(*suite, 9), reset_sequence=True)
    packet = bytes(sealer.seal(b"x" * 300))
    opener.feed(first)
    assert opener.next_packet() == b"\x15"
    opener.feed(packet[:20])
    assert opener.next_packet() is None
    opener.feed(packet[20:] + sealer.seal(b"y" * 300) + sealer.seal(b"z" * 300)[:50])
    opener.switch(*suite, keys_for(*suite, 9), reset_sequence=True)
    assert drain(opener) == [b"x" * 300, b"y" * 300]
    assert opener.buffered == 50


@pytest.mark.parametrize("half", [Sealer(entropy=entropy), Opener(packet_limit=LIMIT)], ids=["sealer", "opener"])
def test_a_refused_switch_changes_nothing(half: Sealer | Opener) -> None:
    half.sequence_number = 7
    good = keys_for("aes128-ctr", "hmac-sha1")
    for cipher, mac, keys in (
        ("none", None, DirectionKeys(b"", b"", b"")),
        ("aes128-ctr", None, good),
        ("aes128-ctr", "none", good),
        ("aes256-ctr", "hmac-sha1", good),
        ("aes128-ctr", "hmac-sha1", DirectionKeys(good.iv, good.key, b"")),
        ("aes128-gcm@openssh.com", None, good),
    ):
        with pytest.raises(InvalidArgument):
            half.switch(cipher, mac, keys, reset_sequence=True)
    with pytest.raises(InvalidArgument):
        half.set_compression("lzma", authenticated=True)
    assert half.sequence_number == 7
    assert type(half._cipher).__name__.startswith("Plain")


# ---------------------------------------------------------------------------------------------------------- compression


@pytest.mark.covers("V20", "R147")
def test_delayed_compression_starts_after_login() -> None:
    sealer, opener = pair()
    for half in (sealer, opener):
        half.set_compression("zlib@openssh.com", authenticated=False)
    packet = sealer.seal(b"a" * 1000)
    assert len(packet) > 1000
    opener.feed(packet)
    assert opener.next_packet() == b"a" * 1000
    for half in (sealer, opener):
        half.set_compression("zlib@openssh.com", authenticated=True)
    packet = sealer.seal(b"a" * 1000)
    assert len(packet) < 100
    opener.feed(packet)
    assert opener.next_packet() == b"a" * 1000


@pytest.mark.covers("V20")
def test_compression_starts_anew_when_set() -> None:
    sealer, opener = pair(compression="zlib")
    payload = bytes(range(200))
    first = len(sealer.seal(payload))
    assert len(sealer.seal(payload)) < first  # remembers
    sealer.set_compression("zlib", authenticated=False)
    assert len(sealer.seal(payload)) == first
    opener.set_compression("zlib", authenticated=False)
    sealer.set_compression("zlib", authenticated=False)
    opener.feed(sealer.seal(payload))
    assert opener.next_packet() == payload


@pytest.mark.covers("V34", "B32")
def test_an_inflated_payload_obeys_packet_limit() -> None:
    for size in (LIMIT, LIMIT + 1):
        sealer, opener = pair("aes128-gcm@openssh.com", compression="zlib")
        opener.feed(sealer.seal(bytes(size)))
        if size <= LIMIT:
            assert opener.next_packet() == bytes(size)
        else:
            with pytest.raises(CompressionError) as caught:
                opener.next_packet()
            assert caught.value.code == 6
            with pytest.raises(CompressionError):
                opener.next_packet()


# ---------------------------------------------------------------------------------------------------------------- noise


@pytest.mark.covers("R158")
@settings(max_examples=150, deadline=None)
@given(
    suite=st.sampled_from([(None, None), *FEW]),
    pieces=st.lists(st.binary(max_size=100), max_size=20),
)
def test_noise_only_ever_raises_a_loss(suite: tuple[str | None, str | None], pieces: list[bytes]) -> None:
    _, opener = pair(*suite)
    for piece in pieces:
        opener.feed(piece)
        try:
            while opener.next_packet() is not None:
                pass
        except ConnectionLoss:
            assert opener.buffered == 0


@pytest.mark.parametrize("length", range(0, 200, 7))
def test_a_concealed_packet_does_not_tell_its_length(length: int) -> None:
    sealer = Sealer(entropy=lambda count, label: bytes(count))
    packet = sealer.seal(b"\x32" + bytes(length), conceal=True)
    assert len(packet) % 128 == 0
    opener = Opener(packet_limit=35_000)
    opener.feed(bytes(packet))
    payload = opener.next_packet()
    assert payload is not None
    assert bytes(payload) == b"\x32" + bytes(length)
