"""What we say about channels, as payloads.

Whoever reads a message wants a value; a message of ours is read by the peer alone.  So these are encoded as they are
asked for, and become values only where they wait for a key exchange or are traced, see
:meth:`~sshproto.outlet.Outlet.send_payload`.  Of what is not here, most of all failures to open and global requests,
there is little.

The fields, and the numbers that begin each message, are those of :mod:`sshproto.wire.messages`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import takewhile

from sshproto.channels.requests import ChannelOpenData, ChannelRequestData
from sshproto.wire.codec import boolean, name
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

_name = lru_cache(64)(name)  # few are ever sent
_FALSE, _TRUE = boolean(False), boolean(True)
_SIZES = struct.Struct(">III")


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
    return b"".join((_OPEN, _name(kind.type), _SIZES.pack(sender, window, packet), particulars))


def request(recipient: int, request: ChannelRequestData, *, want_reply: bool) -> bytes:
    """SSH_MSG_CHANNEL_REQUEST.

    Raises:
        InvalidArgument: A value of ``request`` cannot be sent.
    """
    particulars = request.encode()
    return b"".join((_request(recipient), _name(request.type), _TRUE if want_reply else _FALSE, particulars))
