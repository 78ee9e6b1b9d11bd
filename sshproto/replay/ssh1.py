"""What version 1 of the protocol says in clear, as it is seen from outside (draft-ylonen-ssh-protocol-00).

Only its beginning is public: the server's keys, and the client's choice of a cipher with the session key, encrypted.
All that follows is encrypted, but for the length of each packet.  Nothing here opens that, and no side of a live
connection speaks version 1.

A packet is its length (uint32), padding (1 to 8 bytes, so that with it the length is a multiple of 8), a type, data,
and a checksum over all but the length.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import ClassVar

import attrs

from sshproto.errors import WireError
from sshproto.events import Event
from sshproto.replay.events import PacketSealed, Problem, Side, Ssh1Packet
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Reader
from sshproto.wire.table import Role

_LONGEST = 256 * 1024
"""The longest packet (draft section "Packet Protocol"), in bytes."""

NAMES: dict[int, str] = {
    number: name
    for number, name in enumerate(
        (
            "MSG_NONE MSG_DISCONNECT SMSG_PUBLIC_KEY CMSG_SESSION_KEY CMSG_USER CMSG_AUTH_RHOSTS CMSG_AUTH_RSA "
            "SMSG_AUTH_RSA_CHALLENGE CMSG_AUTH_RSA_RESPONSE CMSG_AUTH_PASSWORD CMSG_REQUEST_PTY CMSG_WINDOW_SIZE "
            "CMSG_EXEC_SHELL CMSG_EXEC_CMD SMSG_SUCCESS SMSG_FAILURE CMSG_STDIN_DATA SMSG_STDOUT_DATA SMSG_STDERR_DATA "
            "CMSG_EOF SMSG_EXITSTATUS MSG_CHANNEL_OPEN_CONFIRMATION MSG_CHANNEL_OPEN_FAILURE MSG_CHANNEL_DATA "
            "MSG_CHANNEL_CLOSE MSG_CHANNEL_CLOSE_CONFIRMATION . SMSG_X11_OPEN CMSG_PORT_FORWARD_REQUEST MSG_PORT_OPEN "
            "CMSG_AGENT_REQUEST_FORWARDING SMSG_AGENT_OPEN MSG_IGNORE CMSG_EXIT_CONFIRMATION "
            "CMSG_X11_REQUEST_FORWARDING CMSG_AUTH_RHOSTS_RSA MSG_DEBUG CMSG_REQUEST_COMPRESSION CMSG_MAX_PACKET_SIZE "
            "CMSG_AUTH_TIS SMSG_AUTH_TIS_CHALLENGE CMSG_AUTH_TIS_RESPONSE CMSG_AUTH_KERBEROS "
            "SMSG_AUTH_KERBEROS_RESPONSE CMSG_HAVE_KERBEROS_TGT"
        ).split()
    )
    if name != "."
}
"""The types of packets, by number."""

CIPHERS: dict[int, str] = {0: "none", 1: "idea", 2: "des", 3: "3des", 4: "tss", 5: "rc4", 6: "blowfish"}
"""The ciphers, by number."""

AUTHENTICATIONS: dict[int, str] = {
    1: "rhosts", 2: "rsa", 3: "password", 4: "rhosts-rsa", 5: "tis", 6: "kerberos", 7: "kerberos-tgt",
}  # fmt: skip
"""The ways to log in, by number."""

_DISCONNECT, _PUBLIC_KEY, _SESSION_KEY = 1, 2, 3

SENDERS: dict[int, Role] = {_PUBLIC_KEY: Role.SERVER, _SESSION_KEY: Role.CLIENT}
"""Packets that tell who has sent them."""


class Ssh1Message:
    """Base of the messages that are decoded.

    Attributes:
        number: The packet's type.
    """

    number: ClassVar[int]


@frozen
class Ssh1Disconnect(Ssh1Message):
    """SSH_MSG_DISCONNECT.

    Attributes:
        reason: The peer's words, printable.
    """

    number = _DISCONNECT
    reason: str


@frozen
class Ssh1Key:
    """An RSA public key.

    Attributes:
        bits: How long it is said to be.
        exponent, modulus: Its numbers.
    """

    bits: int
    exponent: int
    modulus: int = attrs.field(repr=lambda value: f"<{value.bit_length()} bits>")

    @property
    def fingerprint(self) -> str:
        """The MD5 of modulus and exponent, in hex with colons, as programs of that time show it."""
        numbers = _unsigned(self.modulus) + _unsigned(self.exponent)
        return hashlib.md5(numbers, usedforsecurity=False).digest().hex(":")


@frozen
class Ssh1PublicKey(Ssh1Message):
    """SSH_SMSG_PUBLIC_KEY: what the server offers.

    Attributes:
        cookie: 8 random bytes.
        server_key: A key for some time.
        host_key: The server's.
        flags: Of the protocol.
        ciphers: Names of the ciphers, unknown ones as numbers.
        authentications: Names of the ways to log in, unknown ones as numbers.
    """

    number = _PUBLIC_KEY
    cookie: bytes
    server_key: Ssh1Key
    host_key: Ssh1Key
    flags: int
    ciphers: tuple[str, ...]
    authentications: tuple[str, ...]

    @property
    def session_id(self) -> bytes:
        """The session identifier, which here is public: 16 bytes."""
        numbers = _unsigned(self.host_key.modulus) + _unsigned(self.server_key.modulus)
        return hashlib.md5(numbers + self.cookie, usedforsecurity=False).digest()


@frozen
class Ssh1SessionKey(Ssh1Message):
    """SSH_CMSG_SESSION_KEY: what the client chooses.

    Attributes:
        cipher: The cipher's name, or its number if it has none.
        cookie: The server's.
        encrypted_key: The session key under both of the server's keys.
        flags: Of the protocol.
    """

    number = _SESSION_KEY
    cipher: str
    cookie: bytes
    encrypted_key: int = attrs.field(repr=lambda value: f"<{value.bit_length()} bits>")
    flags: int


def _unsigned(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _mpint(reader: Reader, field: str) -> int:
    """A number: its length in bits (uint16), then as many bytes as these take."""
    bits = int.from_bytes(reader.raw(2, field), "big")
    return int.from_bytes(reader.raw((bits + 7) // 8, field), "big")


def _key(reader: Reader, field: str) -> Ssh1Key:
    return Ssh1Key(reader.uint32(field), _mpint(reader, field), _mpint(reader, field))


def _names(mask: int, names: dict[int, str]) -> tuple[str, ...]:
    return tuple(names.get(bit, str(bit)) for bit in range(32) if mask >> bit & 1)


def decode(number: int, payload: bytes) -> Ssh1Message | None:
    """A message.

    Args:
        number: Its type.
        payload: Its data, without type and checksum.

    Returns:
        The message; None if it is of a type that is only named here.

    Raises:
        WireError: A field is malformed, or bytes are left over.
    """
    reader = Reader(payload, NAMES.get(number, f"packet of type {number}"))
    message: Ssh1Message
    if number == _DISCONNECT:
        message = Ssh1Disconnect(printable(reader.string("reason")))
    elif number == _PUBLIC_KEY:
        cookie, server_key, host_key = reader.raw(8, "cookie"), _key(reader, "server_key"), _key(reader, "host_key")
        flags, ciphers, authentications = (reader.uint32(name) for name in ("flags", "ciphers", "authentications"))
        message = Ssh1PublicKey(
            cookie, server_key, host_key, flags, _names(ciphers, CIPHERS), _names(authentications, AUTHENTICATIONS)
        )
    elif number == _SESSION_KEY:
        cipher = reader.byte("cipher")
        cookie, encrypted, flags = reader.raw(8, "cookie"), _mpint(reader, "key"), reader.uint32("flags")
        message = Ssh1SessionKey(CIPHERS.get(cipher, str(cipher)), cookie, encrypted, flags)
    else:
        return None
    reader.end()
    return message


def is_version_1(protocol: str | None) -> bool:
    """Whether a side that says this in its identification speaks version 1 and nothing else."""
    return protocol is not None and protocol.startswith("1.") and protocol != "1.99"


def versions_agree(mine: str, theirs: str | None) -> bool:
    """Whether two sides have a version of the protocol in common; a side that has said nothing is no obstacle."""
    if theirs is None:
        return True
    return is_version_1(mine) == is_version_1(theirs) or "1.99" in (mine, theirs)


def begins(data: bytes) -> bool:
    """Whether ``data`` begins with a packet of version 1: its checksum tells."""
    length = int.from_bytes(data[:4], "big")
    size = 12 - length % 8 + length
    return 5 <= length <= _LONGEST and len(data) >= size and _checksum_is_right(data[4:size])


def _checksum_is_right(packet: bytes) -> bool:
    # The draft's CRC-32 begins with 0 and is not inverted at the end.
    return zlib.crc32(packet[:-4], 0xFFFFFFFF) ^ 0xFFFFFFFF == int.from_bytes(packet[-4:], "big")


class Ssh1Reader:
    """One side of a connection that speaks version 1.

    Args:
        side: Whose.
        offset: Where in its stream the first packet begins.

    Attributes:
        cipher: What the client has chosen; None while that is not known, or if this is the server.
        sealed: All that follows is encrypted.
    """

    def __init__(self, side: Side, offset: int) -> None:
        self.side = side
        self.cipher: str | None = None
        self.sealed = False
        self._offset = offset
        self._data = bytearray()
        self._asks = False  # it has sent its keys; the answer tells whether it goes on in clear
        self._broken = False

    @property
    def left(self) -> int:
        """Bytes of a packet that is not complete."""
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Take bytes."""
        if not self._broken:
            self._data += data

    def next_packet(self, other: Ssh1Reader | None, *, alone: bool) -> tuple[int, int, Event] | None:
        """The next packet.

        Args:
            other: The other side, once it has identified itself.
            alone: That will say nothing more.

        Returns:
            Where in the stream it begins, how many bytes it has, and what it is; None if more bytes are needed, or the
            other side's next packet.
        """
        data = self._data
        if len(data) < 4 or self._broken:
            return None
        length = int.from_bytes(data[:4], "big")
        if not 5 <= length <= _LONGEST:
            self._broken = True
            data.clear()
            problem = f"a packet of {length} bytes; 5 to {_LONGEST} are legal in version 1 of SSH"
            return self._offset, 0, Problem(problem=problem, fatal=True)
        padding = 8 - length % 8
        size = 4 + padding + length
        if len(data) < size:
            return None
        if self._asks and not self.sealed:
            if (other is None or other.cipher is None) and not alone:
                return None
            self.sealed = other is None or other.cipher != "none"
            self._asks = False
        offset = self._offset
        self._offset += size
        packet = bytes(data[4:size])
        del data[:size]
        if self.sealed:
            return offset, size, PacketSealed(offset=offset, size=size, exact=True)
        return offset, size, self._clear(packet, padding, offset, size)

    def _clear(self, packet: bytes, padding: int, offset: int, size: int) -> Event:
        number, payload = packet[padding], packet[padding + 1 : -4]
        if not _checksum_is_right(packet):
            self.sealed = True
            problem = "the checksum of a packet is wrong, so what follows is taken for encrypted"
            return Problem(problem=problem, fatal=False)
        try:
            message = decode(number, payload)
        except WireError:
            message = None
        name = NAMES.get(number, f"type {number}")
        if number == _PUBLIC_KEY:
            self._asks = True
        elif isinstance(message, Ssh1SessionKey):
            self.cipher = message.cipher
            self.sealed = message.cipher != "none"
        elif number == _SESSION_KEY:
            self.sealed = True
        return Ssh1Packet(number=number, name=name, message=message, payload=payload, offset=offset, size=size)
