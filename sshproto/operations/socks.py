"""The server's side of SOCKS 4, 4a and 5, for dynamic forwarding (RFC 1928; the SOCKS 4 and 4a memos).

Of SOCKS 5 there is the method "no authentication", of all versions the command CONNECT: what ``ssh -D`` offers.  Names
are passed on as they came, for the SSH server to look up.

What a client may send before it has an answer is bounded by the protocol's own lengths (names and user ids have at most
255 bytes) and by time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.channels.requests import OpenFailure
from sshproto.errors import ConnectionLoss, OpenRefused, SSHError, UsageError
from sshproto.operations.forwarding import open_to, relay, take_all
from sshproto.operations.steps import Operation, within
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.client import ClientConnection
    from sshproto.operations.forwarding import Address, ByteStream, Listener
    from sshproto.operations.hub import Hub

PATIENCE = 30.0
"""Seconds that a client has to say where it wants to go."""

_LONGEST = 255
_PIECE = 4096
_CONNECT = 1

_V4_GRANTED = 0x5A
_V4_REFUSED = 0x5B

_V5_NO_AUTHENTICATION = 0
_V5_NO_METHOD = 0xFF
_V5_ADDRESS4, _V5_NAME, _V5_ADDRESS6 = 1, 3, 4
_V5_GRANTED = 0
_V5_FAILURE = 1
_V5_NOT_ALLOWED = 2
_V5_NETWORK_UNREACHABLE = 3
_V5_HOST_UNREACHABLE = 4
_V5_REFUSED = 5
_V5_COMMAND = 7
_V5_ADDRESS_TYPE = 8


class SocksError(SSHError):
    """A SOCKS client has sent what is no request, or one that is not served here.

    Attributes:
        reply: What its version of SOCKS has to say to that; ``b""`` for nothing.
    """

    def __init__(self, problem: str, reply: bytes = b"") -> None:
        super().__init__(problem)
        self.reply = reply


class Pushback:
    """A byte stream whose first bytes can be looked at: what is not used of them is received later.

    Args:
        stream: Where the bytes come from and go to.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._held = b""

    @property
    def origin(self) -> Address:
        return self._stream.origin

    def receive(self, limit: int) -> Operation[bytes]:
        if self._held and limit > 0:
            data, self._held = self._held[:limit], self._held[limit:]
            return data
        return (yield from self._stream.receive(limit))

    def send(self, data: bytes) -> Operation[None]:
        return self._stream.send(data)

    def send_eof(self) -> Operation[None]:
        return self._stream.send_eof()

    def close(self) -> None:
        self._held = b""
        self._stream.close()

    def take(self, count: int) -> Operation[bytes]:
        """Exactly ``count`` bytes.

        Raises:
            SocksError: The stream has ended before.
        """
        while len(self._held) < count:
            yield from self._more()
        data, self._held = self._held[:count], self._held[count:]
        return data

    def take_string(self, limit: int) -> Operation[bytes | None]:
        """Everything up to the next NUL, without it; None if there is none among the first ``limit + 1`` bytes.

        Raises:
            SocksError: The stream has ended before.
        """
        while (end := self._held.find(b"\0", 0, limit + 1)) < 0:
            if len(self._held) > limit:
                return None
            yield from self._more()
        data, self._held = self._held[:end], self._held[end + 1 :]
        return data

    def _more(self) -> Operation[None]:
        data = yield from self._stream.receive(_PIECE)
        if not data:
            raise SocksError("the SOCKS client has left in the midst of its request")
        self._held += data


@frozen
class SocksRequest:
    """Where a SOCKS client wants to go.

    Attributes:
        version: 4 or 5.
        host: A name, or an address as text; printable US-ASCII.
        port: 0 to 65535.
    """

    version: int
    host: str
    port: int

    @property
    def granted(self) -> bytes:
        """The reply that the client is connected. Which address it has at the far end is not known, and not said."""
        return _reply(self.version, _V5_GRANTED)

    def refused(self, error: Exception | None = None) -> bytes:
        """The reply that it is not.

        Args:
            error: Why: what an ``OpenRefused`` says is told as far as SOCKS 5 has codes for it.
        """
        return _reply(self.version, _code(error))


def _reply(version: int, code: int) -> bytes:
    """A reply of either version; ``code`` is one of SOCKS 5."""
    if version == 4:
        return bytes((0, _V4_REFUSED if code else _V4_GRANTED)) + bytes(6)
    return bytes((5, code, 0, _V5_ADDRESS4)) + bytes(6)


def _code(error: Exception | None) -> int:
    if not isinstance(error, OpenRefused):
        return _V5_FAILURE
    match error.reason:
        case OpenFailure.ADMINISTRATIVELY_PROHIBITED:
            return _V5_NOT_ALLOWED
        case OpenFailure.CONNECT_FAILED:
            # SSH has one code for all that can go wrong here. Servers add the system's words for it.
            words = error.description.lower()
            if "refused" in words:
                return _V5_REFUSED
            return _V5_NETWORK_UNREACHABLE if "network" in words else _V5_HOST_UNREACHABLE
        case _:
            return _V5_FAILURE


def negotiate(stream: Pushback) -> Operation[SocksRequest]:
    """Find out where a SOCKS client wants to go. It waits for the reply then.

    Args:
        stream: The client. What it sends after its request stays there to be received.

    Raises:
        SocksError: It wants something else, and was told that it can't have it.
        OSError: The stream has failed.
    """
    version = (yield from stream.take(1))[0]
    if version not in (4, 5):
        raise SocksError(f"a SOCKS request begins with its version, 4 or 5, not with the byte {version:02x}")
    try:
        return (yield from (_negotiate_4(stream) if version == 4 else _negotiate_5(stream)))
    except SocksError as error:
        if error.reply:
            yield from stream.send(error.reply)
        raise


def _negotiate_4(stream: Pushback) -> Operation[SocksRequest]:
    head = yield from stream.take(7)
    command, port, address = head[0], int.from_bytes(head[1:3], "big"), head[3:]
    if command != _CONNECT:
        raise SocksError(f"the SOCKS 4 command {command} is not served, only CONNECT", _reply(4, _V5_COMMAND))
    if (yield from stream.take_string(_LONGEST)) is None:
        raise SocksError(f"the SOCKS 4 user id has more than {_LONGEST} bytes", _reply(4, _V5_FAILURE))
    if address[:3] != bytes(3) or not address[3]:
        return SocksRequest(4, _dotted(address), port)
    name = yield from stream.take_string(_LONGEST)  # SOCKS 4a
    if name is None:
        raise SocksError(f"the SOCKS 4a name has more than {_LONGEST} bytes", _reply(4, _V5_FAILURE))
    return SocksRequest(4, _name(4, name), port)


def _negotiate_5(stream: Pushback) -> Operation[SocksRequest]:
    count = (yield from stream.take(1))[0]
    methods = yield from stream.take(count)
    if _V5_NO_AUTHENTICATION not in methods:
        offered = ", ".join(map(str, methods)) or "none"
        raise SocksError(
            f"the SOCKS 5 client offers the methods {offered}, not {_V5_NO_AUTHENTICATION}, which is no authentication",
            bytes((5, _V5_NO_METHOD)),
        )
    yield from stream.send(bytes((5, _V5_NO_AUTHENTICATION)))
    version, command, _, kind = yield from stream.take(4)
    if version != 5:
        raise SocksError(f"the SOCKS 5 request is of version {version}", _reply(5, _V5_FAILURE))
    if command != _CONNECT:
        raise SocksError(f"the SOCKS 5 command {command} is not served, only CONNECT", _reply(5, _V5_COMMAND))
    if kind == _V5_ADDRESS4:
        host = _dotted((yield from stream.take(4)))
    elif kind == _V5_ADDRESS6:
        from ipaddress import IPv6Address

        host = str(IPv6Address((yield from stream.take(16))))
    elif kind == _V5_NAME:
        length = (yield from stream.take(1))[0]
        host = _name(5, (yield from stream.take(length)))
    else:
        raise SocksError(f"{kind} is no type of SOCKS 5 addresses: 1, 3 and 4 are", _reply(5, _V5_ADDRESS_TYPE))
    return SocksRequest(5, host, int.from_bytes((yield from stream.take(2)), "big"))


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))


def _name(version: int, name: bytes) -> str:
    """A name that can be passed on. Those of other alphabets have an ASCII form (RFC 5890), which clients make."""
    if not name or not all(0x21 <= octet <= 0x7E for octet in name):
        problem = f"the SOCKS {version} client asks for {name!r}, which is no host's name"
        raise SocksError(problem, _reply(version, _V5_FAILURE))
    return name.decode("ascii")


def requested(stream: Pushback, patience: float) -> Operation[SocksRequest]:
    """What a client wants, if it says so in time; see :func:`negotiate`.

    Raises:
        SocksError: It does not.
    """
    late = SocksError(f"the SOCKS client has not said in {patience:g} seconds where it wants to go")
    return (yield from within(negotiate(stream), patience, late))


def forward_dynamic(hub: Hub[ClientConnection], listener: Listener, *, patience: float = PATIENCE) -> Operation[None]:
    """Take what comes to ``listener`` to where it asks for, as seen from the server, until the listener is closed.

    Args:
        hub: The connection's.
        listener: Where SOCKS clients connect.
        patience: Seconds that each of them has for its request.
    """

    def carry(stream: ByteStream) -> Operation[None]:
        client = Pushback(stream)
        request = yield from requested(client, patience)
        try:
            channel = yield from open_to(hub, (request.host, request.port), client.origin)
        except (OpenRefused, ConnectionLoss, UsageError) as error:
            yield from client.send(request.refused(error))
            raise
        try:
            yield from client.send(request.granted)
        except BaseException:
            channel.close()
            raise
        yield from relay(channel, client)

    yield from take_all(listener, carry)
