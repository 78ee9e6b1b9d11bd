"""Compression: streams over packets, bombs and other misuse."""

from __future__ import annotations

import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto import algorithms
from sshproto.errors import CompressionError, InvalidArgument
from sshproto.transport.compression import COMPRESSIONS, Deflater, Inflater, deflater, inflater

LIMIT = 256 * 1024


def test_table_is_the_names_of_algorithms() -> None:
    assert set(COMPRESSIONS) == algorithms.KNOWN["compression"]
    assert [name for name, spec in COMPRESSIONS.items() if spec.delayed] == ["zlib@openssh.com"]


@pytest.mark.covers("V20", "R147")
@pytest.mark.parametrize(
    ("name", "authenticated", "active"),
    [
        ("none", False, False),
        ("none", True, False),
        ("zlib", False, True),
        ("zlib", True, True),
        ("zlib@openssh.com", False, False),
        ("zlib@openssh.com", True, True),
    ],
)
def test_when_it_is_active(name: str, authenticated: bool, active: bool) -> None:
    assert (deflater(name, authenticated=authenticated) is not None) == active
    assert (inflater(name, authenticated=authenticated) is not None) == active


def test_unknown_names() -> None:
    with pytest.raises(InvalidArgument, match=r"zlib@openssh\.com"):
        inflater("lz4", authenticated=True)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=500), st.binary(max_size=2000)), max_size=10))
def test_each_packet_inflates_at_once(payloads: list[tuple[bytes, bytes]]) -> None:
    out, back = Deflater(), Inflater()
    for head, body in payloads:
        assert back.inflate(memoryview(out.deflate(head, memoryview(body))), LIMIT) == head + body


@pytest.mark.covers("R23")
def test_packets_share_one_stream() -> None:
    out = Deflater()
    payload = bytes(range(256))
    assert len(out.deflate(payload, b"")) > 200
    assert len(out.deflate(payload, b"")) < 50


def test_a_peer_may_flush_as_it_likes() -> None:
    stream, back = zlib.compressobj(9), Inflater()
    for flush in (zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH):
        assert back.inflate(stream.compress(b"abc") + stream.flush(flush), LIMIT) == b"abc"


@pytest.mark.covers("V34", "B32")
@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1, LIMIT + 2])
def test_limit_is_exact(size: int) -> None:
    packet = Deflater().deflate(b"x", bytes(size - 1))
    if size <= LIMIT:
        assert len(Inflater().inflate(packet, LIMIT)) == size
    else:
        with pytest.raises(CompressionError, match="more than 262144"):
            Inflater().inflate(packet, LIMIT)


@pytest.mark.covers("V34", "B32")
def test_bomb_costs_no_more_than_the_limit() -> None:
    stream = zlib.compressobj(9)
    bomb = b"".join(stream.compress(bytes(1 << 20)) for _ in range(64)) + stream.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 70_000
    start = time.process_time()
    with pytest.raises(CompressionError):
        Inflater().inflate(bomb, LIMIT)
    assert time.process_time() - start < 0.05


def preset() -> bytes:
    stream = zlib.compressobj(zdict=b"dictionary")
    return stream.compress(b"dictionary") + stream.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.covers("V34")
@pytest.mark.parametrize(
    "packet",
    [
        b"\xff" * 20,
        b"plain payload",
        b"\x78\x9d",
        zlib.compress(b"abc"),  # the stream ends
        zlib.compress(b"abc") + b"more",
        zlib.compress(b""),
        b"\x78\x9c",  # a header and nothing else
        b"\x78\x9c" + b"\x00\x00\x00\xff\xff" * 100,  # flushes and nothing else
        preset(),
    ],
    ids=["ff", "plain", "bad check", "ended", "ended early", "empty", "header", "flushes", "dictionary"],
)
def test_misuse_is_refused(packet: bytes) -> None:
    with pytest.raises(CompressionError):
        Inflater().inflate(packet, LIMIT)


@pytest.mark.covers("V34")
@given(st.binary(min_size=1, max_size=200))
def test_noise_only_ever_raises_compression_error(data: bytes) -> None:
    back = Inflater()
    for _ in range(2):
        try:
            assert len(back.inflate(data, 100)) <= 100
        except CompressionError:
            return
