"""Sockets under Trio, used without waiting: what carries most connections."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from sshproto.wire.codec import Buffer

Carrier = trio.abc.Stream | socket.socket
"""What carries a connection."""


def taken(stream: trio.SocketStream) -> socket.socket:
    """The socket of a stream, which is left without one: an idle connection should take little memory."""
    sock = stream.socket
    return socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())


def socket_of(carrier: Carrier) -> socket.socket | None:
    """The socket that a connection is carried by, to be used without waiting; None if it is carried otherwise.

    Of a stream that somebody else may know, it is another name of the same socket.
    """
    if isinstance(carrier, socket.socket):
        sock = carrier
    elif isinstance(carrier, trio.SocketStream) and carrier.socket.fileno() >= 0:
        known = carrier.socket
        sock = socket.socket(known.family, known.type, known.proto, fileno=known.fileno())
    else:
        return None
    sock.setblocking(False)  # it does not know, and waits if there is a default timeout
    # Trio has the system take 16 KiB more than can leave now, so that what goes next is decided late. Packets are in
    # order already, and would go bit by bit.
    with contextlib.suppress(AttributeError, OSError):  # not every system has that, nor every kind of socket
        sock.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, 0)
    return sock


async def send_all(sock: socket.socket, data: Buffer) -> None:
    """Send all of ``data``, as fast as the peer takes it.

    Raises:
        BrokenResourceError: There is no peer any more.
    """
    rest = memoryview(data)
    try:
        while rest:
            await trio.lowlevel.wait_writable(sock)
            with contextlib.suppress(BlockingIOError, InterruptedError):
                rest = rest[sock.send(rest) :]
    except OSError as error:
        raise trio.BrokenResourceError(str(error)) from error


def close(sock: socket.socket, carrier: Carrier) -> None:
    """Close the socket of a carrier."""
    if sock is not carrier:
        sock.detach()
    if isinstance(carrier, trio.SocketStream):
        carrier.socket.close()
    elif isinstance(carrier, socket.socket) and carrier.fileno() >= 0:
        trio.lowlevel.notify_closing(carrier)
        carrier.close()


async def drop(carrier: Carrier) -> None:
    """Close a carrier that nothing uses."""
    if isinstance(carrier, socket.socket):
        carrier.close()
    else:
        await trio.aclose_forcefully(carrier)
