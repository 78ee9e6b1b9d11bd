"""Every message: its number and name, both ways, cut short, too long, and with numbers that lie.

The strategies are made from the schema (``codecs()``), so a new message is tested as soon as it exists; what is
optional at the end of a message, and what the standards call it, is written here by hand.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto.errors import InvalidArgument, WireError
from sshproto.wire import codec
from sshproto.wire import messages as m
from sshproto.wire.codec import Codec, Fixed, Reader, Trailing

each_message = pytest.mark.parametrize("cls", m.ALL, ids=lambda cls: cls.__name__)

# RFC 4250 section 4.1.2; RFC 4252 sections 7, 8; RFC 4253 section 8; RFC 4256 section 5; RFC 4419 section 5; RFC 5656
# section 7.1; RFC 8308 section 2.3, 3.2; OpenSSH PROTOCOL section 1.8.
NUMBERS = [
    (m.Disconnect, 1, "", "SSH_MSG_DISCONNECT"),
    (m.Ignore, 2, "", "SSH_MSG_IGNORE"),
    (m.Unimplemented, 3, "", "SSH_MSG_UNIMPLEMENTED"),
    (m.Debug, 4, "", "SSH_MSG_DEBUG"),
    (m.ServiceRequest, 5, "", "SSH_MSG_SERVICE_REQUEST"),
    (m.ServiceAccept, 6, "", "SSH_MSG_SERVICE_ACCEPT"),
    (m.ExtInfo, 7, "", "SSH_MSG_EXT_INFO"),
    (m.NewCompress, 8, "", "SSH_MSG_NEWCOMPRESS"),
    (m.KexInit, 20, "", "SSH_MSG_KEXINIT"),
    (m.NewKeys, 21, "", "SSH_MSG_NEWKEYS"),
    (m.KexDhInit, 30, "dh", "SSH_MSG_KEXDH_INIT"),
    (m.KexDhReply, 31, "dh", "SSH_MSG_KEXDH_REPLY"),
    (m.KexEcdhInit, 30, "ecdh", "SSH_MSG_KEX_ECDH_INIT"),
    (m.KexEcdhReply, 31, "ecdh", "SSH_MSG_KEX_ECDH_REPLY"),
    (m.KexDhGexRequestOld, 30, "gex", "SSH_MSG_KEX_DH_GEX_REQUEST_OLD"),
    (m.KexDhGexGroup, 31, "gex", "SSH_MSG_KEX_DH_GEX_GROUP"),
    (m.KexDhGexInit, 32, "gex", "SSH_MSG_KEX_DH_GEX_INIT"),
    (m.KexDhGexReply, 33, "gex", "SSH_MSG_KEX_DH_GEX_REPLY"),
    (m.KexDhGexRequest, 34, "gex", "SSH_MSG_KEX_DH_GEX_REQUEST"),
    (m.UserauthRequest, 50, "", "SSH_MSG_USERAUTH_REQUEST"),
    (m.UserauthFailure, 51, "", "SSH_MSG_USERAUTH_FAILURE"),
    (m.UserauthSuccess, 52, "", "SSH_MSG_USERAUTH_SUCCESS"),
    (m.UserauthBanner, 53, "", "SSH_MSG_USERAUTH_BANNER"),
    (m.UserauthPkOk, 60, "publickey", "SSH_MSG_USERAUTH_PK_OK"),
    (m.UserauthPasswdChangereq, 60, "password", "SSH_MSG_USERAUTH_PASSWD_CHANGEREQ"),
    (m.UserauthInfoRequest, 60, "keyboard-interactive", "SSH_MSG_USERAUTH_INFO_REQUEST"),
    (m.UserauthInfoResponse, 61, "keyboard-interactive", "SSH_MSG_USERAUTH_INFO_RESPONSE"),
    (m.GlobalRequest, 80, "", "SSH_MSG_GLOBAL_REQUEST"),
    (m.RequestSuccess, 81, "", "SSH_MSG_REQUEST_SUCCESS"),
    (m.RequestFailure, 82, "", "SSH_MSG_REQUEST_FAILURE"),
    (m.ChannelOpen, 90, "", "SSH_MSG_CHANNEL_OPEN"),
    (m.ChannelOpenConfirmation, 91, "", "SSH_MSG_CHANNEL_OPEN_CONFIRMATION"),
    (m.ChannelOpenFailure, 92, "", "SSH_MSG_CHANNEL_OPEN_FAILURE"),
    (m.ChannelWindowAdjust, 93, "", "SSH_MSG_CHANNEL_WINDOW_ADJUST"),
    (m.ChannelData, 94, "", "SSH_MSG_CHANNEL_DATA"),
    (m.ChannelExtendedData, 95, "", "SSH_MSG_CHANNEL_EXTENDED_DATA"),
    (m.ChannelEof, 96, "", "SSH_MSG_CHANNEL_EOF"),
    (m.ChannelClose, 97, "", "SSH_MSG_CHANNEL_CLOSE"),
    (m.ChannelRequest, 98, "", "SSH_MSG_CHANNEL_REQUEST"),
    (m.ChannelSuccess, 99, "", "SSH_MSG_CHANNEL_SUCCESS"),
    (m.ChannelFailure, 100, "", "SSH_MSG_CHANNEL_FAILURE"),
    (m.Ping, 192, "", "SSH2_MSG_PING"),
    (m.Pong, 193, "", "SSH2_MSG_PONG"),
]

# Fields that some peers leave out at the end of the message, with what they then are.
TRAILING: dict[type[m.Message], dict[str, Any]] = {
    m.Disconnect: {"language": ""},
    m.Ignore: {"data": b""},
    m.Debug: {"message": "", "language": ""},
    m.UserauthBanner: {"language": ""},
    m.UserauthPasswdChangereq: {"language": ""},
    m.ChannelOpenFailure: {"description": "", "language": ""},
}
# Messages whose last field is all that is left; what it means is decided by a name before it.
REST = {
    m.UserauthRequest,
    m.GlobalRequest,
    m.RequestSuccess,
    m.ChannelOpen,
    m.ChannelOpenConfirmation,
    m.ChannelRequest,
}

# -------------------------------------------------------------------------------------------------- values from schemas

ASCII = st.characters(min_codepoint=1, max_codepoint=127)
NAME = st.text(ASCII, max_size=20)
NAME_LIST = st.lists(
    st.text(st.characters(min_codepoint=1, max_codepoint=127, exclude_characters=","), min_size=1, max_size=8),
    max_size=4,
).map(tuple)
TEXT = st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape"))
U32 = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1])
BLOB = st.binary(max_size=20)
BY_READER: dict[Any, st.SearchStrategy[Any]] = {
    Reader.byte: st.integers(0, 255),
    Reader.boolean: st.booleans(),
    Reader.uint32: U32,
    Reader.uint64: st.integers(0, 2**64 - 1),
    Reader.string: BLOB,
    Reader.text: TEXT,
    Reader.name: NAME,
    Reader.mpint: st.integers(-(2**100), 2**100) | st.just(2**2000 - 1),
    Reader.name_list: NAME_LIST,
    codec._read_rest: BLOB,
    m._read_extensions: st.lists(st.tuples(NAME, BLOB), max_size=4).map(tuple),
    m._read_prompts: st.lists(st.tuples(TEXT, st.booleans()), max_size=4).map(tuple),
    m._read_responses: st.lists(TEXT, max_size=4).map(tuple),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """What a field of this wire type may hold."""
    if isinstance(kind, Trailing):
        return values(kind.inner)
    if isinstance(kind, Fixed):
        return st.binary(min_size=kind.length, max_size=kind.length)
    assert isinstance(kind, Codec)
    return BY_READER[kind.read]


def instances(cls: type[m.Message]) -> st.SearchStrategy[m.Message]:
    return st.builds(cls, **{name: values(kind) for name, kind in cls.codecs()})


def fields(message: m.Message) -> list[tuple[str, Any, int, int]]:
    """Name, wire type, start and end of each field in the payload."""
    found, position = [], 1
    for name, kind in message.codecs():
        end = position + len(kind.write(getattr(message, name)))
        found.append((name, kind, position, end))
        position = end
    return found


def refusal(cls: type[m.Message], payload: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        cls.parse(payload)
    error = caught.value
    assert error.where == cls.__name__
    assert 0 <= error.offset <= len(payload)
    assert error.problem
    return error


def peak(action: Callable[[], object]) -> int:
    """The most memory that ``action`` held at once, in bytes."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------------------------------------------- numbers and names


def test_all_messages_have_the_standards_numbers_and_names() -> None:
    found = [(cls, cls.number, cls.context, (cls.__doc__ or "").split(" ")[0].rstrip(".")) for cls in m.ALL]
    assert found == NUMBERS


@each_message
def test_a_number_and_its_context_lead_to_one_class(cls: type[m.Message]) -> None:
    assert m.lookup(cls.number, cls.context) is cls
    if cls.context:
        assert m.lookup(cls.number) is None
        assert m.lookup(cls.number, "hostbased") is None
    else:
        assert m.lookup(cls.number, "ecdh") is cls


def test_numbers_without_a_message_decode_to_none() -> None:
    contexts = {cls.context for cls in m.ALL}
    known = {(cls.number, context) for cls in m.ALL for context in ({cls.context} if cls.context else contexts)}
    for number in range(256):
        for context in contexts:
            if (number, context) not in known:
                assert m.decode(bytes((number,)) + b"junk", context) is None


@pytest.mark.covers("V22")
def test_an_empty_payload_is_no_message() -> None:
    with pytest.raises(WireError, match="no message number"):
        m.decode(b"")


@pytest.mark.covers("V46")
@each_message
def test_one_class_does_not_read_anothers_payload(cls: type[m.Message]) -> None:
    """Even where the fields would fit."""
    with pytest.raises(
        WireError, match=rf"^{cls.__name__}\.message number at offset 0: is 255, expected {cls.number}$"
    ):
        cls.parse(b"\xff" + bytes(20))


# ------------------------------------------------------------------------------------------------------------ both ways


@each_message
@settings(max_examples=20)
@given(data=st.data())
def test_decode_undoes_encode(cls: type[m.Message], data: st.DataObject) -> None:
    message = data.draw(instances(cls))
    payload = message.encode()
    assert payload[0] == cls.number
    assert m.decode(payload, cls.context) == message
    assert m.decode(memoryview(bytearray(payload)), cls.context) == message


@pytest.mark.covers("R158")
@each_message
@settings(max_examples=20)
@given(data=st.data())
def test_whatever_decodes_means_the_same_when_it_is_encoded_again(cls: type[m.Message], data: st.DataObject) -> None:
    """Any bytes, and damaged real ones: a WireError or a value, never anything else."""
    payload = bytearray(data.draw(instances(cls)).encode())
    if data.draw(st.booleans()):
        payload[1:] = data.draw(st.binary(max_size=60))
    elif len(payload) > 1:
        for _ in range(data.draw(st.integers(1, 4))):
            payload[data.draw(st.integers(1, len(payload) - 1))] = data.draw(
                st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 44])
            )
    try:
        message = cls.parse(payload)
    except WireError as error:
        assert error.where == cls.__name__
        assert 0 <= error.offset <= len(payload)
    else:
        assert cls.parse(message.encode()) == message


# -------------------------------------------------------------------------------------------------- too short, too long


@pytest.mark.covers("R158", "V26")
@each_message
@settings(max_examples=8)
@given(data=st.data())
def test_cut_at_every_byte(cls: type[m.Message], data: st.DataObject) -> None:
    """The error names the message and the field that the cut went through."""
    message = data.draw(instances(cls).filter(lambda message: len(message.encode()) < 600))
    payload = message.encode()
    assert refusal(cls, b"").field == "message number"
    layout = fields(message)
    for name, _, start, end in layout:
        for cut in range(start, end):
            if name == "payload" and cls in REST:
                assert cls.parse(payload[:cut]) == attrs.evolve(message, payload=payload[start:cut])
            elif cut == start and name in TRAILING.get(cls, {}):
                missing = {late: TRAILING[cls][late] for late, _, begin, _ in layout if begin >= start}
                assert cls.parse(payload[:cut]) == attrs.evolve(message, **missing)
            else:
                error = refusal(cls, payload[:cut])
                assert error.field.split("[")[0] == name
                assert start <= error.offset <= cut


@pytest.mark.covers("V27", "R159")
@each_message
@settings(max_examples=8)
@given(data=st.data())
def test_one_byte_too_many(cls: type[m.Message], data: st.DataObject) -> None:
    message = data.draw(instances(cls))
    payload = message.encode()
    extra = data.draw(st.sampled_from([b"\0", b"!", b"\xff"]))
    if cls in REST:
        tail = getattr(message, "payload")  # noqa: B009
        assert cls.parse(payload + extra) == attrs.evolve(message, payload=tail + extra)
    else:
        error = refusal(cls, payload + extra)
        assert (error.offset, error.problem) == (len(payload), "1 bytes too many at the end")


def test_the_optional_fields_are_those_and_no_others() -> None:
    for cls in m.ALL:
        optional = {name for name, kind in cls.codecs() if isinstance(kind, Trailing)}
        assert optional == set(TRAILING.get(cls, {})), cls
        rest = [name for name, kind in cls.codecs() if isinstance(kind, Codec) and kind.read is codec._read_rest]
        assert rest == (["payload"] if cls in REST else []), cls


# ----------------------------------------------------------------------------------------------------- numbers that lie


@pytest.mark.covers("V26", "R161")
@each_message
@settings(max_examples=8)
@given(data=st.data())
def test_every_declared_length_at_its_extremes(cls: type[m.Message], data: st.DataObject) -> None:
    """One more than is there, and as much as a uint32 says."""
    message = data.draw(instances(cls).filter(lambda message: len(message.encode()) < 600))
    payload = message.encode()
    counted = {Reader.string, Reader.text, Reader.name, Reader.mpint, Reader.name_list}
    for name, kind, start, _ in fields(message):
        inner = kind.inner if isinstance(kind, Trailing) else kind
        if not isinstance(inner, Codec) or inner.read not in counted:
            continue
        for declared in (len(payload) - start - 3, 2**31 - 1, 2**31, 2**32 - 1):
            lying = payload[:start] + declared.to_bytes(4, "big") + payload[start + 4 :]
            error = refusal(cls, lying)
            assert (error.field, error.offset) == (name, start)
            assert f"declares a string of {declared} bytes" in error.problem


@pytest.mark.covers("R160")
@each_message
@settings(max_examples=3)
@given(data=st.data())
def test_every_uint32_at_its_extremes(cls: type[m.Message], data: st.DataObject) -> None:
    message = data.draw(instances(cls))
    for name in [name for name, kind in cls.codecs() if isinstance(kind, Codec) and kind.read is Reader.uint32]:
        for value in (0, 1, 2**31 - 1, 2**31, 2**32 - 1):
            assert getattr(cls.parse(attrs.evolve(message, **{name: value}).encode()), name) == value
        for value in (-1, 2**32):
            with pytest.raises(InvalidArgument, match=rf"^{cls.__name__}\.{name} cannot be sent"):
                attrs.evolve(message, **{name: value}).encode()


COUNTED = [
    (m.ExtInfo, b"\x07", 1024, bytes(8), "extensions"),
    (m.UserauthInfoRequest, b"\x3c" + bytes(12), 100, bytes(5), "prompts"),
    (m.UserauthInfoResponse, b"\x3d", 100, bytes(4), "responses"),
]
each_count = pytest.mark.parametrize(
    ("cls", "head", "limit", "item", "field"), COUNTED, ids=["EXT_INFO", "REQUEST", "RESPONSE"]
)


@pytest.mark.covers("B19", "B21")
def test_the_limits_of_counts() -> None:
    assert (m.MAX_EXTENSIONS, m.MAX_PROMPTS) == (1024, 100)


@pytest.mark.covers("V25", "B19", "B21")
@each_count
def test_counts_that_are_true(cls: Any, head: bytes, limit: int, item: bytes, field: str) -> None:
    """None, one, and as many as are accepted."""
    for count in (0, 1, limit):
        message = cls.parse(head + count.to_bytes(4, "big") + item * count)
        assert len(getattr(message, field)) == count


@pytest.mark.covers("V25")
@each_count
@pytest.mark.parametrize("beyond", [1, None, 2**31 - 1, 2**31, 2**32 - 1, 0x10000000, 0x3FFFFFFF])
def test_counts_that_are_too_high_cost_nothing(
    cls: Any, head: bytes, limit: int, item: bytes, field: str, beyond: int | None
) -> None:
    """russh CVE-2026-42189, libssh2 CVE-2026-55199, jsch #1139: refused before anything of that size is made."""
    for count, items in (
        ((limit + 1, limit + 1),) if beyond is None else ((beyond, 0), (beyond, limit if beyond > limit else 0))
    ):
        payload = head + count.to_bytes(4, "big") + item * items
        errors: list[WireError] = []
        assert peak(lambda payload=payload, errors=errors: errors.append(refusal(cls, payload))) < 32_768
        assert (errors[0].field, errors[0].offset) == (field, len(head))
        assert f"declares {count}" in errors[0].problem


@pytest.mark.covers("V25")
@each_count
def test_one_item_less_than_declared(cls: Any, head: bytes, limit: int, item: bytes, field: str) -> None:
    for count in (2, limit):
        error = refusal(cls, head + count.to_bytes(4, "big") + item * (count - 1))
        assert error.field == field
        assert f"declares {count}" in error.problem


def test_an_item_that_is_broken_is_named_by_its_index() -> None:
    payload = (
        b"\x07"
        + (2).to_bytes(4, "big")
        + codec.name("a")
        + codec.string(b"b")
        + codec.string(b"\xff")
        + codec.string(b"")
    )
    error = refusal(m.ExtInfo, payload)
    assert (error.field, error.offset) == ("extensions[1].name", 15)


@pytest.mark.covers("V37")
@pytest.mark.parametrize("names", [35_000, 100_000])
def test_a_name_list_of_commas_is_refused_in_proportion(names: int) -> None:
    """All of a packet made of commas: refused, with memory in proportion to the packet."""
    payload = b"\x33" + codec.string(b"," * names) + b"\0"
    assert peak(lambda: refusal(m.UserauthFailure, payload)) < 40 * names


# -------------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.covers("R169")
def test_no_message_shows_a_secret() -> None:
    assert "hunter2" not in repr(m.UserauthRequest("alice", "ssh-connection", "password", b"hunter2"))
    assert "hunter2" not in repr(m.UserauthInfoResponse(("hunter2",)))


@each_message
@settings(max_examples=5)
@given(data=st.data())
def test_every_message_has_a_repr_whatever_it_holds(cls: type[m.Message], data: st.DataObject) -> None:
    assert repr(data.draw(instances(cls))).startswith(f"{cls.__name__}(")


@pytest.mark.parametrize("cls", [m.KexDhInit, m.KexDhGexInit])
def test_a_huge_number_is_shown_by_its_length(cls: Any) -> None:
    """Python refuses to print integers of more than 4300 digits, and 16384 bits have 4933."""
    assert repr(cls(2**16384 - 1)) == f"{cls.__name__}(e=<16384 bits>)"
