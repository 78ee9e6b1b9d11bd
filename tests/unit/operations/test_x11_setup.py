"""How an X11 connection begins: in either byte order, in any pieces, with any cookie, or with nonsense."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sshproto.operations.displays import MAGIC_COOKIE, MAXIMUM_COOKIE, MAXIMUM_PROTOCOL, Cookie
from sshproto.operations.x11_setup import MAXIMUM_SETUP, Setup, SetupRefused, read_setup

FAKE = Cookie(MAGIC_COOKIE, bytes(range(16)))
TRUE = Cookie(MAGIC_COOKIE, bytes(range(16, 32)))


def setup(order: str, protocol: bytes = MAGIC_COOKIE.encode(), data: bytes = FAKE.data, version: int = 11) -> bytes:
    """Written once more, by the X protocol's own table."""
    form = {"B": ">", "l": "<"}[order]
    head = struct.pack(f"{form}BxHHHHxx", ord(order), version, 0, len(protocol), len(data))
    return head + protocol + bytes(-len(protocol) % 4) + data + bytes(-len(data) % 4)


@pytest.mark.parametrize("order", ["B", "l"])
@pytest.mark.parametrize("rest", [b"", b"what follows"])
def test_in_any_pieces(order: str, rest: bytes) -> None:
    whole = setup(order)
    assert len(whole) == 48
    for end in range(len(whole)):
        assert read_setup(whole[:end]) is None
    found = read_setup(whole + rest)
    assert found is not None
    assert (found.major, found.minor, found.protocol, found.data) == (11, 0, MAGIC_COOKIE.encode(), FAKE.data)
    assert found.size == len(whole)
    assert found.shows(FAKE)
    assert not found.shows(TRUE)
    assert found.encode(FAKE) == whole
    assert found.encode(TRUE) == setup(order, data=TRUE.data)
    assert found.encode(None) == setup(order, b"", b"")
    assert FAKE.data not in found.encode(TRUE) + found.encode(None)


@pytest.mark.parametrize(
    ("protocol", "data"),
    [(b"", b""), (b"", FAKE.data), (MAGIC_COOKIE.encode(), b""), (b"OTHER", FAKE.data),
     (MAGIC_COOKIE.encode(), FAKE.data[:-1]), (MAGIC_COOKIE.encode(), FAKE.data + b"\0"),
     (MAGIC_COOKIE.encode() + b"\0", FAKE.data), (MAGIC_COOKIE.lower().encode(), FAKE.data)],
)  # fmt: skip
def test_only_the_very_cookie_is_one(protocol: bytes, data: bytes) -> None:
    found = read_setup(setup("l", protocol, data))
    assert found is not None
    assert not found.shows(FAKE)


@pytest.mark.parametrize("order", ["B", "l"])
def test_too_much_is_refused_at_once(order: str) -> None:
    """By the twelve bytes that say how much it is to be; at the limit and one past it."""
    largest = setup(order, bytes(MAXIMUM_PROTOCOL), bytes(MAXIMUM_COOKIE))
    assert len(largest) == MAXIMUM_SETUP
    assert read_setup(largest[:-1]) is None
    assert read_setup(largest) is not None
    for protocol, data in ((MAXIMUM_PROTOCOL + 1, 0), (0, MAXIMUM_COOKIE + 1), (65535, 65535)):
        head = setup(order, bytes(protocol), bytes(data))[:12]
        assert read_setup(head[:11]) is None
        with pytest.raises(SetupRefused, match="at most 64 and 256"):
            read_setup(head)


@pytest.mark.parametrize("first", [0, 1, 0x41, 0x62, 0x4C, 0xFF])
def test_the_first_byte_tells(first: int) -> None:
    with pytest.raises(SetupRefused, match="0x42 or 0x6c"):
        read_setup(bytes((first,)))


@pytest.mark.parametrize("order", ["B", "l"])
def test_a_display_says_why_it_lets_nobody_in(order: str) -> None:
    found = read_setup(setup(order))
    assert found is not None
    for words in ("no", "no way", "no \u2603", "x" * 300):
        answer = found.failure(words)
        form = {"B": ">", "l": "<"}[order]
        status, size, major, minor, length = struct.unpack_from(f"{form}BBHHH", answer)
        assert (status, size, major, minor) == (0, min(len(words), 255), 11, 0)
        assert len(answer) == 8 + 4 * length
        assert answer[8 : 8 + size] == words.encode("ascii", "replace")[:255]


@given(
    st.binary(max_size=400)
    | st.builds(lambda order, rest: order + rest, st.sampled_from([b"B", b"l"]), st.binary(max_size=60)),
    st.integers(0, 400),
)
@example(setup("B") + b"x", 12)
@example(setup("l"), 47)
def test_any_bytes_are_read_or_refused(data: bytes, cut: int) -> None:
    """And if they are read in two pieces, alike."""

    def outcome(data: bytes) -> Setup | str | None:
        try:
            return read_setup(data)
        except SetupRefused as refusal:
            assert str(refusal).isprintable()
            return str(refusal)

    first, whole = outcome(data[:cut]), outcome(data)
    assert first is None or first == whole
    assert read_setup(memoryview(b"")) is None
    if isinstance(whole, Setup):
        assert whole.size <= min(len(data), MAXIMUM_SETUP)
        again = read_setup(whole.encode(Cookie(MAGIC_COOKIE, FAKE.data)))
        assert again is not None
        assert again.shows(FAKE)
        assert (again.order, again.major, again.minor) == (whole.order, whole.major, whole.minor)
        assert repr(whole.data) not in repr(whole) or not whole.data
