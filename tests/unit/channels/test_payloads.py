"""What is written without a value is what the value is written as; what is read without one is what it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.channels import payloads
from sshproto.channels.requests import DirectTcpip, Env, Exec, Session, UnknownOpen, UnknownRequest, WindowChange
from sshproto.errors import InvalidArgument, WireError
from sshproto.wire import messages
from sshproto.wire.messages import ChannelOpen, ChannelOpenConfirmation, ChannelRequest, ChannelWindowAdjust, Message

NUMBERS = (0, 1, 2**31, 2**32 - 1)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (payloads.eof, messages.ChannelEof),
        (payloads.close, messages.ChannelClose),
        (payloads.success, messages.ChannelSuccess),
        (payloads.failure, messages.ChannelFailure),
    ],
)
@pytest.mark.parametrize("number", NUMBERS)
def test_messages_of_one_number(encode: Callable[[int], bytes], message: type[Any], number: int) -> None:
    assert encode(number) == message(number).encode()


@pytest.mark.parametrize("number", NUMBERS)
def test_messages_of_more_numbers(number: int) -> None:
    assert payloads.adjust(number, 7) == ChannelWindowAdjust(number, 7).encode()
    assert payloads.confirmation(1, 2, number, 3) == ChannelOpenConfirmation(1, 2, number, 3).encode()


@pytest.mark.parametrize("kind", [Session(), DirectTcpip("host", 22), UnknownOpen("some@example.com", b"\0x")])
def test_opening(kind: Any) -> None:
    message: Message = ChannelOpen(kind.type, 1, 2, 3, kind.encode())
    assert payloads.opening(kind, 1, 2, 3) == message.encode()


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("value", [Exec(b"true"), WindowChange(80, 24), UnknownRequest("some@example.com", b"\0x")])
def test_requests(value: Any, wanted: bool) -> None:
    message: Message = ChannelRequest(9, value.type, wanted, value.encode())
    assert payloads.request(9, value, want_reply=wanted) == message.encode()


def test_what_cannot_be_sent() -> None:
    with pytest.raises(InvalidArgument, match=r"^Env\.name cannot be sent"):
        payloads.request(0, Env("\0", b""), want_reply=False)
    with pytest.raises(InvalidArgument, match="is not a name that can be sent"):
        payloads.opening(UnknownOpen("a,b"), 0, 0, 0)


READ = (
    (payloads.read_open, ChannelOpen("session", 1, 2, 2**32 - 1)),
    (payloads.read_open, ChannelOpen("", 1, 2, 3, b"more")),
    (payloads.read_confirmation, ChannelOpenConfirmation(1, 2, 3, 2**32 - 1, b"more")),
    (payloads.read_confirmation, ChannelOpenConfirmation(1, 2, 3, 4)),
    (payloads.read_request, ChannelRequest(2**32 - 1, "exec", True, b"\0\0\0\4true")),
    (payloads.read_request, ChannelRequest(1, "", False)),
)
each_read = pytest.mark.parametrize(("read", "message"), READ)


def held(message: type[Message], data: Any) -> Any:
    """The fields of the value, or the error's words."""
    try:
        return attrs.astuple(message.parse(data))
    except WireError as error:
        return str(error)


def handed(read: Callable[[Any], Any], data: Any) -> Any:
    try:
        return read(data)
    except WireError as error:
        return str(error)


@each_read
def test_what_is_read_is_what_the_value_holds(read: Callable[[Any], Any], message: Message) -> None:
    data = message.encode()
    assert read(data) == read(memoryview(data)) == read(bytearray(data)) == attrs.astuple(message)  # type: ignore[arg-type]
    assert [type(field) for field in read(data)] == [type(field) for field in attrs.astuple(message)]  # type: ignore[arg-type]
    for size in range(1, len(data)):
        assert handed(read, data[:size]) == held(type(message), data[:size])
    for place in range(1, len(data)):
        for octet in (0, 1, 2, 0x7F, 0x80, 0xFF):
            changed = data[:place] + bytes((octet,)) + data[place + 1 :]
            assert handed(read, changed) == held(type(message), changed)


@each_read
@given(fields=st.binary(max_size=40))
def test_arbitrary_bytes_are_read_alike(read: Callable[[Any], Any], message: Message, fields: bytes) -> None:
    data = bytes((message.number,)) + fields
    assert handed(read, data) == held(type(message), data)


def test_a_length_that_is_no_index_on_a_machine_of_32_bits(monkeypatch: Any) -> None:
    class Sizes:
        def unpack_from(self, data: bytes, offset: int) -> Any:
            raise OverflowError("Python int too large to convert to C ssize_t")

    monkeypatch.setattr(payloads, "_OPEN_SIZES", Sizes())
    with pytest.raises(WireError, match="declares a string of 4294967295 bytes"):
        payloads.read_open(b"\x5a" + b"\xff" * 4 + b"session")
