"""The usual messages about channels as payloads: ours are written, and the peer's read, without making them values.

A message of ours is read by the peer alone, so it becomes a value only where it waits for a key exchange or is traced,
see :meth:`~sshproto.outlet.Outlet.send_payload`.  One of the peer's would be taken apart at once.  What is not here,
most of all failures to open and global requests, is rare.

The fields, and the numbers that begin each message, are those of :mod:`sshproto.wire.messages`, and so is whatever is
to be said about a message that is not regular: what is read here is read there once more, if it is malformed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import takewhile

from sshproto.channels.requests import ChannelOpenData, ChannelRequestData
from sshproto.wire.codec import Buffer, boolean, name
from sshproto.wire.messages import (
    ChannelClose,
    ChannelEof,
    ChannelFailure,
    ChannelOpen,
    ChannelOpenConfirmation,
    ChannelRequest,
    ChannelSuccess,
    ChannelWindowAdjust,
    Message,
)
from sshproto.wire.shapes import IRREGULAR

_name = lru_cache(64)(name)  # few are ever sent
_FALSE, _TRUE = boolean(False), boolean(True)

_OPEN_HEAD = struct.Struct(">BI")  # of SSH_MSG_CHANNEL_OPEN: message number, length of the type
_OPEN_TYPE = _OPEN_HEAD.size  # where that begins
_OPEN_SIZES = struct.Struct(">III")  # what follows it: sender, window, packet
_CONFIRMATION = struct.Struct(">BIIII")  # SSH_MSG_CHANNEL_OPEN_CONFIRMATION, all that the standard has of it
_CONFIRMED = _CONFIRMATION.size
_REQUEST_HEAD = struct.Struct(">BII")  # of SSH_MSG_CHANNEL_REQUEST: message number, recipient, length of the type
_REQUEST_TYPE = _REQUEST_HEAD.size

_IRREGULAR = (*IRREGULAR, IndexError)  # an index, too, may be larger than a machine of 32 bits can take

# ------------------------------------------------------------------------------------------------------------- written


def _numbers(message: type[Message]) -> Callable[..., bytes]:
    """What encodes ``message`` up to the last of the numbers that it begins with."""
    forms = [getattr(codec, "form", "") for _, codec in message.codecs()]
    head = struct.Struct(">B" + "".join(takewhile("I".__eq__, forms)))
    return partial(head.pack, message.number)


adjust = _numbers(ChannelWindowAdjust)
eof = _numbers(ChannelEof)
close = _numbers(ChannelClose)
success = _numbers(ChannelSuccess)
failure = _numbers(ChannelFailure)
confirmation = _numbers(ChannelOpenConfirmation)
"""Without anything behind the standard's fields."""

_OPEN = _numbers(ChannelOpen)()
_request = _numbers(ChannelRequest)


def opening(kind: ChannelOpenData, sender: int, window: int, packet: int) -> bytes:
    """SSH_MSG_CHANNEL_OPEN.

    Raises:
        InvalidArgument: A value of ``kind`` cannot be sent.
    """
    particulars = kind.encode()
    return b"".join((_OPEN, _name(kind.type), _OPEN_SIZES.pack(sender, window, packet), particulars))


def request(recipient: int, request: ChannelRequestData, *, want_reply: bool) -> bytes:
    """SSH_MSG_CHANNEL_REQUEST.

    Raises:
        InvalidArgument: A value of ``request`` cannot be sent.
    """
    particulars = request.encode()
    return b"".join((_request(recipient), _name(request.type), _TRUE if want_reply else _FALSE, particulars))


# ---------------------------------------------------------------------------------------------------------------- read


def read_open(payload: Buffer) -> tuple[str, int, int, int, bytes]:
    """The fields of SSH_MSG_CHANNEL_OPEN.

    Raises:
        WireError: It is malformed.
    """
    if type(payload) is bytes:
        try:
            _, size = _OPEN_HEAD.unpack_from(payload)
            end: int = _OPEN_TYPE + size
            channel_type = payload[_OPEN_TYPE:end].decode("ascii")
            sender, window, packet = _OPEN_SIZES.unpack_from(payload, end)
        except _IRREGULAR:
            pass
        else:
            if "\0" not in channel_type:
                return channel_type, sender, window, packet, payload[end + _OPEN_SIZES.size :]
    it = ChannelOpen.parse(payload)
    return it.channel_type, it.sender_channel, it.initial_window_size, it.maximum_packet_size, it.payload


def read_confirmation(payload: Buffer) -> tuple[int, int, int, int, bytes]:
    """The fields of SSH_MSG_CHANNEL_OPEN_CONFIRMATION.

    Raises:
        WireError: It is malformed.
    """
    if type(payload) is bytes and len(payload) >= _CONFIRMED:
        _, recipient, sender, window, packet = _CONFIRMATION.unpack_from(payload)
        return recipient, sender, window, packet, payload[_CONFIRMED:]
    it = ChannelOpenConfirmation.parse(payload)
    return it.recipient_channel, it.sender_channel, it.initial_window_size, it.maximum_packet_size, it.payload


def read_request(payload: Buffer) -> tuple[int, str, bool, bytes]:
    """The fields of SSH_MSG_CHANNEL_REQUEST.

    Raises:
        WireError: It is malformed.
    """
    if type(payload) is bytes:
        try:
            _, recipient, size = _REQUEST_HEAD.unpack_from(payload)
            end: int = _REQUEST_TYPE + size
            request_type = payload[_REQUEST_TYPE:end].decode("ascii")
            want_reply = payload[end] != 0
        except _IRREGULAR:
            pass
        else:
            if "\0" not in request_type:
                return recipient, request_type, want_reply, payload[end + 1 :]
    it = ChannelRequest.parse(payload)
    return it.recipient_channel, it.request_type, it.want_reply, it.payload
