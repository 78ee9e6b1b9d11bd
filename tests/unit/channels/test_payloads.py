"""What is encoded without a value is what the value is encoded to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sshproto.channels import payloads
from sshproto.channels.requests import DirectTcpip, Env, Exec, Session, UnknownOpen, UnknownRequest, WindowChange
from sshproto.errors import InvalidArgument
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
