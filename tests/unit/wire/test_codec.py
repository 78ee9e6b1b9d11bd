"""The data types of RFC 4251 section 5, both ways, and what is refused."""

# No "from __future__ import annotations": the structures below are built from their annotations.

import tracemalloc
from typing import Annotated, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument, WireError
from sshproto.wire import codec
from sshproto.wire.codec import (
    MAX_MPINT_BITS,
    Boolean,
    Byte,
    Fixed,
    Mpint,
    Name,
    NameList,
    Reader,
    Rest,
    String,
    Struct,
    Text,
    TrailingString,
    TrailingText,
    Uint32,
    Uint64,
)

# RFC 4251 section 5, "mpint": the examples of the text.
MPINTS = {
    0: "00 00 00 00",
    0x9A378F9B2E332A7: "00 00 00 08 09 a3 78 f9 b2 e3 32 a7",
    0x80: "00 00 00 02 00 80",
    -0x1234: "00 00 00 02 ed cc",
    -0xDEADBEEF: "00 00 00 05 ff 21 52 41 11",
}
# RFC 4251 section 5, "name-list": the examples of the text.
NAME_LISTS = {
    (): "00 00 00 00",
    ("zlib",): "00 00 00 04 7a 6c 69 62",
    ("zlib", "none"): "00 00 00 09 7a 6c 69 62 2c 6e 6f 6e 65",
}
NAMES = st.text(st.characters(min_codepoint=1, max_codepoint=127, exclude_characters=","), min_size=1, max_size=70)
TEXTS = st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))


def counted(data: bytes) -> bytes:
    """A string as RFC 4251 writes it, by hand."""
    return len(data).to_bytes(4, "big") + data


def refusal(read: Any, data: bytes, *args: Any) -> WireError:
    with pytest.raises(WireError) as caught:
        read(Reader(data, "Thing"), "field", *args)
    assert caught.value.where == "Thing"
    assert caught.value.field == "field"
    return caught.value


# --------------------------------------------------------------------------------------------------- the RFC's examples


@pytest.mark.covers("R3")
@pytest.mark.parametrize(("value", "encoded"), MPINTS.items(), ids=[hex(value) for value in MPINTS])
def test_mpint_examples_of_rfc_4251(value: int, encoded: str) -> None:
    assert codec.mpint(value).hex(" ") == encoded
    assert Reader(bytes.fromhex(encoded), "x").mpint() == value


@pytest.mark.covers("R5")
@pytest.mark.parametrize(("names", "encoded"), NAME_LISTS.items(), ids=["none", "one", "two"])
def test_name_list_examples_of_rfc_4251(names: tuple[str, ...], encoded: str) -> None:
    assert codec.name_list(names).hex(" ") == encoded
    assert Reader(bytes.fromhex(encoded), "x").name_list() == names


@pytest.mark.covers("R2")
def test_string_and_uint32_examples_of_rfc_4251() -> None:
    assert codec.string(b"testing") == b"\0\0\0\x07testing"
    assert codec.uint32(699921578) == bytes.fromhex("29b7f4aa")
    assert Reader(bytes.fromhex("29b7f4aa"), "x").uint32() == 699921578


# ------------------------------------------------------------------------------------------------------------ both ways


@pytest.mark.parametrize(
    ("write", "read", "values"),
    [
        (codec.byte, Reader.byte, st.integers(0, 0xFF)),
        (codec.boolean, Reader.boolean, st.booleans()),
        (codec.uint32, Reader.uint32, st.integers(0, 0xFFFFFFFF)),
        (codec.uint64, Reader.uint64, st.integers(0, 0xFFFFFFFFFFFFFFFF)),
        (codec.string, Reader.string, st.binary(max_size=100)),
        (codec.text, Reader.text, TEXTS),
        (codec.text, Reader.text, st.text(st.characters(exclude_categories=["Cs"]), max_size=40)),
        (codec.name, Reader.name, NAMES),
        (codec.mpint, Reader.mpint, st.integers(-(2**300), 2**300)),
        (codec.name_list, Reader.name_list, st.lists(NAMES, max_size=5).map(tuple)),
    ],
    ids=["byte", "boolean", "uint32", "uint64", "string", "text", "clean text", "name", "mpint", "name_list"],
)
@given(data=st.data())
def test_reading_undoes_writing_and_stops_where_the_value_ends(write: Any, read: Any, values: Any, data: Any) -> None:
    value = data.draw(values)
    encoded = write(value)
    for kind in (bytes, bytearray, lambda raw: memoryview(bytearray(raw))):
        reader = Reader(kind(b"ab" + encoded + b"more"), "x", 2)
        assert read(reader, "f") == value
        assert (reader.offset, reader.remaining) == (2 + len(encoded), 4)
        assert reader.rest() == b"more"
        reader.end()
    for cut in range(len(encoded)):
        error = refusal(read, encoded[:cut])
        assert 0 <= error.offset <= cut


@pytest.mark.covers("R3", "V32")
@given(st.binary(max_size=40))
def test_every_mpint_that_reads_is_in_its_shortest_form(data: bytes) -> None:
    try:
        value = Reader(counted(data), "x").mpint()
    except WireError:
        assert data[0] in {0x00, 0xFF}
        assert len(data) == 1 or (data[0] ^ data[1]) < 0x80
    else:
        assert codec.mpint(value) == counted(data)


@given(st.binary(max_size=40))
def test_no_byte_of_text_is_lost(data: bytes) -> None:
    assert codec.text(Reader(counted(data), "x").text()) == counted(data)


@pytest.mark.covers("R1")
@pytest.mark.parametrize("value", range(256))
def test_all_but_zero_is_true_and_true_is_one(value: int) -> None:
    assert Reader(bytes((value,)), "x").boolean() is (value != 0)
    assert codec.boolean(bool(value)) == (b"\1" if value else b"\0")


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.covers("R3", "V32")
@pytest.mark.parametrize("data", ["00", "00 00", "00 7f", "00 00 80", "ff ff", "ff 80", "ff ff 7f"])
def test_mpints_that_are_too_long_for_their_value(data: str) -> None:
    raw = bytes.fromhex(data)
    assert "superfluous leading" in str(refusal(Reader.mpint, counted(raw)))


@pytest.mark.covers("R3")
@pytest.mark.parametrize("data", ["00 80", "ff", "ff 7f", "80", "7f", "ff 00"])
def test_mpints_that_need_their_first_byte(data: str) -> None:
    raw = bytes.fromhex(data)
    assert codec.mpint(Reader(counted(raw), "x").mpint()) == counted(raw)


@pytest.mark.covers("V32")
def test_the_longest_mpint() -> None:
    """16384 bits with the leading 00 that they need, and no byte more."""
    assert MAX_MPINT_BITS == 16384
    longest = (1 << MAX_MPINT_BITS) - 1
    assert Reader(codec.mpint(longest), "x").mpint() == longest
    error = refusal(Reader.mpint, codec.mpint(1 << 16392))
    assert "2050 bytes" in error.problem
    assert "2049" in error.problem


@pytest.mark.covers("V32")
@pytest.mark.parametrize("bits", [16385, 16391])
def test_an_mpint_of_a_few_bits_too_many(bits: int) -> None:
    """The plan's own case: 16385 bits."""
    refusal(Reader.mpint, codec.mpint((1 << bits) - 1))


@pytest.mark.covers("R4", "V37")
@pytest.mark.parametrize("data", [b"a,,b", b",a", b"a,", b",", b"a\0", b"\0", b"a,\xe4", b"\xff"])
def test_bad_name_lists(data: bytes) -> None:
    """Not even one comma at the end."""
    error = refusal(Reader.name_list, counted(data))
    assert error.offset == 0
    assert "name-list" in error.problem


@pytest.mark.covers("R4")
@pytest.mark.parametrize("data", [b"a\0", b"\0", b"\xe4", "é".encode()])
def test_bad_names(data: bytes) -> None:
    assert "not a name" in str(refusal(Reader.name, counted(data)))


@pytest.mark.covers("R6", "R7")
@pytest.mark.parametrize("data", [b"", b"a,b", b"x y", b"n" * 65, b"SSH-RSA", b"a@b@c"])
def test_odd_names_are_read_so_that_they_can_be_answered(data: bytes) -> None:
    """Whoever looks the name up refuses it in the way of its own protocol; nothing folds case."""
    assert Reader(counted(data), "x").name() == data.decode()


@pytest.mark.covers("V26", "R161")
@pytest.mark.parametrize("left", [0, 1, 5])
@pytest.mark.parametrize("declared", [6, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("read", [Reader.string, Reader.text, Reader.name, Reader.mpint, Reader.name_list])
def test_a_declared_length_is_never_believed(read: Any, declared: int, left: int) -> None:
    """The error says what was declared and what is there; nothing of that size is made."""
    data = declared.to_bytes(4, "big") + bytes(left)
    tracemalloc.start()
    try:
        error = refusal(read, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(error) == f"Thing.field at offset 0: declares a string of {declared} bytes, {left} are left"
    assert peak < 16_384


@pytest.mark.covers("R161")
@pytest.mark.parametrize("read", [Reader.string, Reader.text])
def test_a_string_limit_at_and_past_it(read: Any) -> None:
    assert len(read(Reader(counted(b"x" * 10), "x"), "f", 10)) == 10
    assert "is 11 bytes long, at most 10 are accepted" in str(refusal(read, counted(b"x" * 11), 10))


def test_errors_say_where() -> None:
    reader = Reader(b"\1\0\0\0\2ab\0\0", "Packet")
    reader.byte("kind")
    reader.string("name")
    with pytest.raises(WireError) as caught:
        reader.uint32("size")
    error = caught.value
    assert (error.where, error.field, error.offset) == ("Packet", "size", 7)
    assert str(error) == "Packet.size at offset 7: needs 4 bytes, 2 are left"
    assert reader.offset == 7  # a failed read of fixed size takes nothing
    with pytest.raises(WireError, match=r"^Packet at offset 7: 2 bytes too many at the end$"):
        reader.end()


def test_what_is_read_does_not_alias_the_input() -> None:
    data = bytearray(counted(b"secret"))
    value = Reader(memoryview(data), "x").string()
    data[:] = bytes(len(data))
    assert value == b"secret"
    assert type(value) is bytes


# ----------------------------------------------------------------------------------------------------------- structures


@attrs.frozen
class Every(Struct):
    """One field of each type."""

    byte: Byte
    flag: Boolean
    small: Uint32
    large: Uint64
    data: String
    words: Text
    word: Name
    number: Mpint
    words_list: NameList
    cookie: Annotated[bytes, Fixed(4)]
    late: TrailingString = b""
    later: TrailingText = ""


@attrs.frozen
class Open(Struct):
    """Ends with whatever is left."""

    kind: Byte
    tail: Rest = b""


@attrs.frozen
class Derived(Open):
    """Fields are inherited, and a table of codecs is not."""

    more: Rest = b""


EXAMPLE = Every(1, True, 2, 3, b"d", "w\udcff", "n", -4, ("a", "b"), b"abcd", b"l", "x")
ENCODED = bytes.fromhex(
    "01 01 00000002 0000000000000003 0000000164 0000000277ff 000000016e 00000001fc 00000003612c62 61626364"
    "000000016c 0000000178"
)


def test_a_structure_is_its_fields_one_after_the_other() -> None:
    assert EXAMPLE.encode() == ENCODED
    assert Every.parse(ENCODED) == EXAMPLE
    assert [name for name, _ in Every.codecs()] == [field.name for field in attrs.fields(Every)]
    assert Every.codecs() is Every.codecs()


def test_trailing_fields_may_be_missing_but_not_broken() -> None:
    assert Every.parse(ENCODED[:-5]) == attrs.evolve(EXAMPLE, later="")
    assert Every.parse(ENCODED[:-10]) == attrs.evolve(EXAMPLE, late=b"", later="")
    for cut in (*range(1, 5), *range(6, 10)):
        with pytest.raises(WireError, match=r"^Every\.late"):
            Every.parse(ENCODED[:-cut])


@pytest.mark.covers("V27", "R159")
def test_a_structure_ends_where_it_ends() -> None:
    with pytest.raises(WireError, match=rf"^Every at offset {len(ENCODED)}: 1 bytes too many at the end$"):
        Every.parse(ENCODED + b"!")
    reader = Reader(ENCODED + b"!", "Outer")
    assert Every.read(reader) == EXAMPLE  # within a larger structure, what follows is left
    assert reader.rest() == b"!"


def test_rest_takes_all() -> None:
    assert Open.parse(b"\x05") == Open(5, b"")
    assert Open.parse(b"\x05ab") == Open(5, b"ab")
    assert Open(5, b"ab").encode() == b"\x05ab"
    Open.codecs()
    assert [name for name, _ in Derived.codecs()] == ["kind", "tail", "more"]


@pytest.mark.covers("R168")
@pytest.mark.parametrize(
    "change",
    [
        {"byte": 256},
        {"byte": -1},
        {"small": 2**32},
        {"small": -1},
        {"small": 1.5},
        {"small": None},
        {"large": 2**64},
        {"data": "text"},
        {"data": None},
        {"data": 5},
        {"words": b"bytes"},
        {"words": "\ud800"},
        {"word": "é"},
        {"word": 7},
        {"number": "1"},
        {"words_list": ("é",)},
        {"words_list": (1,)},
        {"words_list": None},
        {"cookie": b"abc"},
        {"cookie": b"abcde"},
        {"cookie": "abcd"},
        {"late": "text"},
        {"later": b"bytes"},
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_the_callers_fault_and_named(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=rf"^Every\.{next(iter(change))} cannot be sent: "):
        attrs.evolve(EXAMPLE, **change).encode()


@pytest.mark.covers("R4", "R168")
@pytest.mark.parametrize(
    "change", [{"word": "a\0b"}, {"words_list": ("a,b",)}, {"words_list": ("",)}, {"words_list": "ab"}]
)
def test_names_that_would_not_survive_the_way_are_not_sent(change: dict[str, Any]) -> None:
    value = attrs.evolve(EXAMPLE, **change)
    with pytest.raises(InvalidArgument):
        value.encode()


def test_a_memoryview_of_wider_items_is_refused_or_written_with_its_true_length() -> None:
    view = memoryview(bytes(8)).cast("I")
    assert codec.string(view) == b"\0\0\0\x08" + bytes(8)


def test_a_number_is_not_the_rest() -> None:
    with pytest.raises(InvalidArgument):
        Open(1, 5).encode()  # type: ignore[arg-type]
