"""Every message of SSH-2 as a typed value.

RFC 4253 (transport), 4252 and 4256 (authentication), 4254 (connection), 4419 and 5656 (key exchange), 8308 (EXT_INFO)
and OpenSSH's PING and PONG.  A class is the message: its docstring's first line is the name in the standard, its
annotations are the fields in wire order.  What is legal when is :mod:`sshproto.wire.table`'s business, not this
module's.

The numbers 30 to 49 and 60 to 79 mean different messages under different key-exchange and authentication methods;
:func:`decode` takes that context as an argument.
"""

# No "from __future__ import annotations" here: the annotations are the wire types themselves.

from typing import Annotated, ClassVar

import attrs

from sshproto.errors import InvalidArgument, WireError
from sshproto.values import frozen
from sshproto.wire.codec import (
    PLANS,
    Boolean,
    Buffer,
    Codec,
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
    boolean,
    string,
    text,
    uint32,
)

MAX_EXTENSIONS = 1024
"""Extensions in one EXT_INFO, as many as OpenSSH reads."""

SAFE_PAYLOAD = 32768
"""What every peer accepts in one packet (RFC 4253 section 6.1)."""

LARGEST_PAYLOAD = 256 * 1024 - 1024
"""What may be sent in one packet besides channel data: what OpenSSH accepts, with room for framing."""

MAX_PROMPTS = 100
"""Prompts in one INFO_REQUEST that decode; :class:`~sshproto.config.Limits` allows fewer."""


@frozen
class Message(Struct):
    """Base of all messages.

    Attributes:
        number: The message number, the first byte of the payload.
        context: For the numbers that are used more than once, the method under which this class is meant.
        conceal: There may be a password in it, whose length the size of the packet must not tell.
    """

    number: ClassVar[int]
    context: ClassVar[str] = ""
    conceal: ClassVar[bool] = False

    @classmethod
    def prefix(cls) -> bytes:
        """The message number."""
        return bytes((cls.number,))

    @classmethod
    def read_prefix(cls, reader: Reader) -> None:
        found = reader.byte("message number")
        if found != cls.number:
            raise reader.error("message number", f"is {found}, expected {cls.number}", 0)


# ------------------------------------------------------------------------------------------------- transport (RFC 4253)


@frozen
class Disconnect(Message):
    """SSH_MSG_DISCONNECT (RFC 4253 section 11.1)."""

    number = 1
    reason: Uint32
    description: Text = ""
    language: TrailingText = ""


@frozen
class Ignore(Message):
    """SSH_MSG_IGNORE (RFC 4253 section 11.2). Some peers leave the field out."""

    number = 2
    data: TrailingString = b""


@frozen
class Unimplemented(Message):
    """SSH_MSG_UNIMPLEMENTED (RFC 4253 section 11.4)."""

    number = 3
    sequence_number: Uint32


@frozen
class Debug(Message):
    """SSH_MSG_DEBUG (RFC 4253 section 11.3)."""

    number = 4
    always_display: Boolean
    message: TrailingText = ""
    language: TrailingText = ""


@frozen
class ServiceRequest(Message):
    """SSH_MSG_SERVICE_REQUEST (RFC 4253 section 10)."""

    number = 5
    service: Name


@frozen
class ServiceAccept(Message):
    """SSH_MSG_SERVICE_ACCEPT (RFC 4253 section 10)."""

    number = 6
    service: Name


def _read_extensions(reader: Reader, field: str) -> tuple[tuple[str, bytes], ...]:
    count = reader.uint32(field)
    if count > MAX_EXTENSIONS or count * 8 > reader.remaining:
        most = min(MAX_EXTENSIONS, reader.remaining // 8)
        raise reader.error(field, f"declares {count} extensions, {most} can be here", reader.offset - 4)
    return tuple(
        (reader.name(f"{field}[{index}].name"), reader.string(f"{field}[{index}].value")) for index in range(count)
    )


def _write_extensions(value: tuple[tuple[str, bytes], ...]) -> bytes:
    return uint32(len(value)) + b"".join(string(name.encode("ascii")) + string(data) for name, data in value)


@frozen
class ExtInfo(Message):
    """SSH_MSG_EXT_INFO (RFC 8308 section 2.3): pairs of extension name and value."""

    number = 7
    extensions: Annotated[tuple[tuple[str, bytes], ...], Codec(_read_extensions, _write_extensions)]


@frozen
class NewCompress(Message):
    """SSH_MSG_NEWCOMPRESS (RFC 8308 section 3.2)."""

    number = 8


@frozen(cache_hash=True)
class KexInit(Message):
    """SSH_MSG_KEXINIT (RFC 4253 section 7.1)."""

    number = 20
    cookie: Annotated[bytes, Fixed(16)]
    kex_algorithms: NameList
    server_host_key_algorithms: NameList
    encryption_algorithms_client_to_server: NameList
    encryption_algorithms_server_to_client: NameList
    mac_algorithms_client_to_server: NameList
    mac_algorithms_server_to_client: NameList
    compression_algorithms_client_to_server: NameList
    compression_algorithms_server_to_client: NameList
    languages_client_to_server: NameList = ()
    languages_server_to_client: NameList = ()
    first_kex_packet_follows: Boolean = False
    reserved: Uint32 = 0


@frozen
class NewKeys(Message):
    """SSH_MSG_NEWKEYS (RFC 4253 section 7.3)."""

    number = 21


# ---------------------------------------------------------------------------- key exchange: numbers 30 to 49, by family


def _bits(value: int) -> str:
    """A big number in a ``repr``; Python refuses to print the biggest that are legal here."""
    return f"<{value.bit_length()} bits>"


@frozen
class KexDhInit(Message):
    """SSH_MSG_KEXDH_INIT (RFC 4253 section 8)."""

    number = 30
    context = "dh"
    e: Mpint = attrs.field(repr=_bits)


@frozen
class KexDhReply(Message):
    """SSH_MSG_KEXDH_REPLY (RFC 4253 section 8)."""

    number = 31
    context = "dh"
    host_key: String
    f: Mpint = attrs.field(repr=_bits)
    signature: String


@frozen
class KexEcdhInit(Message):
    """SSH_MSG_KEX_ECDH_INIT (RFC 5656 section 4), also the hybrid methods' KEX_HYBRID_INIT.

    ``share`` is Q_C: an EC point, or the concatenated public values of a hybrid method.
    """

    number = 30
    context = "ecdh"
    share: String


@frozen
class KexEcdhReply(Message):
    """SSH_MSG_KEX_ECDH_REPLY (RFC 5656 section 4), also the hybrid methods' KEX_HYBRID_REPLY; ``share`` is Q_S."""

    number = 31
    context = "ecdh"
    host_key: String
    share: String
    signature: String


@frozen
class KexDhGexRequestOld(Message):
    """SSH_MSG_KEX_DH_GEX_REQUEST_OLD (RFC 4419 section 5): known, so that it can be refused by name."""

    number = 30
    context = "gex"
    bits: Uint32


@frozen
class KexDhGexGroup(Message):
    """SSH_MSG_KEX_DH_GEX_GROUP (RFC 4419 section 3)."""

    number = 31
    context = "gex"
    p: Mpint = attrs.field(repr=_bits)
    g: Mpint = attrs.field(repr=_bits)


@frozen
class KexDhGexInit(Message):
    """SSH_MSG_KEX_DH_GEX_INIT (RFC 4419 section 3)."""

    number = 32
    context = "gex"
    e: Mpint = attrs.field(repr=_bits)


@frozen
class KexDhGexReply(Message):
    """SSH_MSG_KEX_DH_GEX_REPLY (RFC 4419 section 3)."""

    number = 33
    context = "gex"
    host_key: String
    f: Mpint = attrs.field(repr=_bits)
    signature: String


@frozen
class KexDhGexRequest(Message):
    """SSH_MSG_KEX_DH_GEX_REQUEST (RFC 4419 section 3): sizes in bits."""

    number = 34
    context = "gex"
    minimum: Uint32
    preferred: Uint32
    maximum: Uint32


# ---------------------------------------------------------------------------------- authentication (RFC 4252, RFC 4256)


@frozen
class UserauthRequest(Message):
    """SSH_MSG_USERAUTH_REQUEST (RFC 4252 section 5).

    ``payload`` is the method's own part (:mod:`sshproto.auth.methods`); it may hold a password and is not shown.
    """

    number = 50
    conceal = True
    user: Text
    service: Name
    method: Name
    payload: Rest = attrs.field(default=b"", repr=False)


@frozen
class UserauthFailure(Message):
    """SSH_MSG_USERAUTH_FAILURE (RFC 4252 section 5.1)."""

    number = 51
    methods: NameList
    partial_success: Boolean


@frozen
class UserauthSuccess(Message):
    """SSH_MSG_USERAUTH_SUCCESS (RFC 4252 section 5.1)."""

    number = 52


@frozen
class UserauthBanner(Message):
    """SSH_MSG_USERAUTH_BANNER (RFC 4252 section 5.4)."""

    number = 53
    message: Text
    language: TrailingText = ""


@frozen
class UserauthPkOk(Message):
    """SSH_MSG_USERAUTH_PK_OK (RFC 4252 section 7)."""

    number = 60
    context = "publickey"
    algorithm: Name
    key: String


@frozen
class UserauthPasswdChangereq(Message):
    """SSH_MSG_USERAUTH_PASSWD_CHANGEREQ (RFC 4252 section 8)."""

    number = 60
    context = "password"
    prompt: Text
    language: TrailingText = ""


def _read_prompts(reader: Reader, field: str) -> tuple[tuple[str, bool], ...]:
    count = reader.uint32(field)
    if count > MAX_PROMPTS or count * 5 > reader.remaining:
        most = min(MAX_PROMPTS, reader.remaining // 5)
        raise reader.error(field, f"declares {count} prompts, {most} can be here", reader.offset - 4)
    return tuple(
        (reader.text(f"{field}[{index}].prompt"), reader.boolean(f"{field}[{index}].echo")) for index in range(count)
    )


def _write_prompts(value: tuple[tuple[str, bool], ...]) -> bytes:
    return uint32(len(value)) + b"".join(text(prompt) + boolean(echo) for prompt, echo in value)


@frozen
class UserauthInfoRequest(Message):
    """SSH_MSG_USERAUTH_INFO_REQUEST (RFC 4256 section 3.2): pairs of prompt and whether to echo the answer."""

    number = 60
    context = "keyboard-interactive"
    name: Text
    instruction: Text
    language: Text
    prompts: Annotated[tuple[tuple[str, bool], ...], Codec(_read_prompts, _write_prompts)]


def _read_responses(reader: Reader, field: str) -> tuple[str, ...]:
    count = reader.uint32(field)
    if count > MAX_PROMPTS or count * 4 > reader.remaining:
        most = min(MAX_PROMPTS, reader.remaining // 4)
        raise reader.error(field, f"declares {count} responses, {most} can be here", reader.offset - 4)
    return tuple(reader.text(f"{field}[{index}]") for index in range(count))


def _write_responses(value: tuple[str, ...]) -> bytes:
    return uint32(len(value)) + b"".join(text(response) for response in value)


@frozen
class UserauthInfoResponse(Message):
    """SSH_MSG_USERAUTH_INFO_RESPONSE (RFC 4256 section 3.4). The responses are secrets and are not shown."""

    number = 61
    context = "keyboard-interactive"
    conceal = True
    responses: Annotated[tuple[str, ...], Codec(_read_responses, _write_responses)] = attrs.field(repr=False)


# ------------------------------------------------------------------------------------------------ connection (RFC 4254)


@frozen
class GlobalRequest(Message):
    """SSH_MSG_GLOBAL_REQUEST (RFC 4254 section 4)."""

    number = 80
    request_type: Name
    want_reply: Boolean
    payload: Rest = b""


@frozen
class RequestSuccess(Message):
    """SSH_MSG_REQUEST_SUCCESS (RFC 4254 section 4)."""

    number = 81
    payload: Rest = b""


@frozen
class RequestFailure(Message):
    """SSH_MSG_REQUEST_FAILURE (RFC 4254 section 4)."""

    number = 82


@frozen
class ChannelOpen(Message):
    """SSH_MSG_CHANNEL_OPEN (RFC 4254 section 5.1)."""

    number = 90
    channel_type: Name
    sender_channel: Uint32
    initial_window_size: Uint32
    maximum_packet_size: Uint32
    payload: Rest = b""


@frozen
class ChannelOpenConfirmation(Message):
    """SSH_MSG_CHANNEL_OPEN_CONFIRMATION (RFC 4254 section 5.1)."""

    number = 91
    recipient_channel: Uint32
    sender_channel: Uint32
    initial_window_size: Uint32
    maximum_packet_size: Uint32
    payload: Rest = b""


@frozen
class ChannelOpenFailure(Message):
    """SSH_MSG_CHANNEL_OPEN_FAILURE (RFC 4254 section 5.1)."""

    number = 92
    recipient_channel: Uint32
    reason: Uint32
    description: TrailingText = ""
    language: TrailingText = ""


@frozen
class ChannelWindowAdjust(Message):
    """SSH_MSG_CHANNEL_WINDOW_ADJUST (RFC 4254 section 5.2)."""

    number = 93
    recipient_channel: Uint32
    bytes_to_add: Uint32


@frozen
class ChannelData(Message):
    """SSH_MSG_CHANNEL_DATA (RFC 4254 section 5.2). A live connection reads and writes it without this class."""

    number = 94
    recipient_channel: Uint32
    data: String


@frozen
class ChannelExtendedData(Message):
    """SSH_MSG_CHANNEL_EXTENDED_DATA (RFC 4254 section 5.2)."""

    number = 95
    recipient_channel: Uint32
    data_type: Uint32
    data: String


@frozen
class ChannelEof(Message):
    """SSH_MSG_CHANNEL_EOF (RFC 4254 section 5.3)."""

    number = 96
    recipient_channel: Uint32


@frozen
class ChannelClose(Message):
    """SSH_MSG_CHANNEL_CLOSE (RFC 4254 section 5.3)."""

    number = 97
    recipient_channel: Uint32


@frozen
class ChannelRequest(Message):
    """SSH_MSG_CHANNEL_REQUEST (RFC 4254 section 5.4)."""

    number = 98
    recipient_channel: Uint32
    request_type: Name
    want_reply: Boolean
    payload: Rest = b""


@frozen
class ChannelSuccess(Message):
    """SSH_MSG_CHANNEL_SUCCESS (RFC 4254 section 5.4)."""

    number = 99
    recipient_channel: Uint32


@frozen
class ChannelFailure(Message):
    """SSH_MSG_CHANNEL_FAILURE (RFC 4254 section 5.4)."""

    number = 100
    recipient_channel: Uint32


# --------------------------------------------------------------------------------------- OpenSSH (PROTOCOL section 1.8)


@frozen
class Ping(Message):
    """SSH2_MSG_PING of the ping@openssh.com extension."""

    number = 192
    data: String


@frozen
class Pong(Message):
    """SSH2_MSG_PONG of the ping@openssh.com extension."""

    number = 193
    data: String


# --------------------------------------------------------------------------------------------------------------- lookup

ALL: tuple[type[Message], ...] = tuple(
    value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, Message) and value is not Message
)
"""Every message class, in the order of this module."""

_BY_NUMBER: dict[tuple[int, str], type[Message]] = {(cls.number, cls.context): cls for cls in ALL}
_PLAIN = {cls.number: cls for cls in ALL if not cls.context}


def lookup(number: int, context: str = "") -> type[Message] | None:
    """The class of message ``number``, or None.

    Args:
        number: The message number, 0 to 255.
        context: Where the number has several meanings, which is meant: a key-exchange family (``"dh"``, ``"ecdh"``,
            ``"gex"``) or an authentication method's name.
    """
    return _PLAIN.get(number) or _BY_NUMBER.get((number, context))


def check_size(message: Message) -> bytes:
    """The payload of ``message``, which every peer accepts in a packet.

    Raises:
        InvalidArgument: A field cannot be encoded, or the payload is longer than :data:`SAFE_PAYLOAD`.
    """
    payload = message.encode()
    size = len(payload)
    if size > SAFE_PAYLOAD:
        kind = type(message).__name__
        raise InvalidArgument(f"a {kind} of {size} bytes of payload: a peer need not accept more than {SAFE_PAYLOAD}")
    return payload


def decode(payload: Buffer, context: str = "") -> Message | None:
    """Decode one payload.

    Args:
        payload: Message number and fields.
        context: See :func:`lookup`.

    Returns:
        The message, or None if its number means nothing in this context.

    Raises:
        WireError: The payload is empty, a field is malformed, or bytes are left over.
    """
    if not len(payload):
        raise WireError("payload", "", 0, "is empty: it has no message number")
    cls = _PLAIN.get(payload[0]) or _BY_NUMBER.get((payload[0], context))
    if cls is None:
        return None
    message: Message = PLANS[cls].decode(payload)
    return message
