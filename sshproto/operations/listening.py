"""What a client has its server listen for (RFC 4254 section 7.1; OpenSSH PROTOCOL section 2.4).

There are never more listeners than ``Limits.forwards``, those in the making included: the connection counts what the
client has asked for and not cancelled, but a handler may think, and an address may take its time, long after that.
What is cancelled in the making is closed when it is made.

Nor are there many connections that the client has not decided on: what comes to a listener meanwhile stays in the
system's backlog, before anybody has accepted it.  How long the client may think has no bound, as in OpenSSH: nobody but
who connects to its listener waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sshproto.channels.requests import (
    CancelStreamlocalForward,
    CancelTcpipForward,
    ForwardedStreamlocal,
    ForwardedTcpip,
    StreamlocalForward,
    TcpipForward,
)
from sshproto.errors import SSHError
from sshproto.operations.forwarding import Address, ByteStream, Listener, relay
from sshproto.operations.steps import Operation, Wait, hand_over

if TYPE_CHECKING:
    from sshproto.events import GlobalRequested
    from sshproto.operations.hub import Hub
    from sshproto.server import ServerConnection

_LISTENERS_WORTH = 4
"""Connections of all listeners may be undecided, as many as these would have."""


class _Undecided:
    """Connections to one listener that the client has not decided on."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Listening:
    """The listeners of one connection.

    Args:
        hub: The connection's.
        allow: Asks the application: True, False, or the address to listen at instead.
        listen: Listens at an address; raises an ``OSError``.
    """

    def __init__(
        self,
        hub: Hub[ServerConnection],
        allow: Callable[[Address], Operation[Any]],
        listen: Callable[[Address], Operation[Listener]],
    ) -> None:
        self._hub = hub
        self._allow = allow
        self._listen = listen
        self._listeners: dict[Address, Listener] = {}
        self._making: dict[object, object] = {}  # what is in the making, by address
        self._count = 0
        self._undecided = 0
        self._decided = Wait()  # fires when there may be room for another connection, or no need for it
        self._over = False

    def answer(self, question: GlobalRequested) -> Operation[None]:
        """Do what the client asks, as long as it lasts. What is not answered is to be refused."""
        match question.request:
            case TcpipForward(address=address, port=port):
                yield from self._forward(question, (address, port))
            case StreamlocalForward(path=path):
                yield from self._forward(question, path)
            case CancelTcpipForward(address=address, port=port):
                yield from self._cancel(question, (address, port))
            case CancelStreamlocalForward(path=path):
                yield from self._cancel(question, path)
            case _:
                pass

    def close(self) -> None:
        """The connection has ended."""
        self._over = True
        for listener in self._listeners.values():
            listener.close()
        self._decided.fire()

    def _forward(self, question: GlobalRequested, address: Address) -> Operation[None]:
        # Of port 0 there can be many: no cancel means one of them before its port is known.
        key = object() if isinstance(address, tuple) and not address[1] else address
        if address in self._listeners or key in self._making or self._count >= self._hub.limits.forwards:
            return
        self._count += 1
        try:
            listener = yield from self._make(key, address)
            if listener is not None:
                yield from self._serve(question, address, listener)
        finally:
            self._count -= 1

    def _make(self, key: object, address: Address) -> Operation[Listener | None]:
        mark = self._making[key] = object()
        try:
            verdict = yield from self._allow(address)
            if not verdict:
                return None
            try:
                listener = yield from self._listen(address if verdict is True else verdict)
            except OSError:
                return None
            if self._over or self._making.get(key) is not mark:
                listener.close()
                return None
            return listener
        finally:
            if self._making.get(key) is mark:  # else it was cancelled, and maybe asked for anew
                del self._making[key]

    def _serve(self, question: GlobalRequested, address: Address, listener: Listener) -> Operation[None]:
        wanted, data = address, b""
        if isinstance(address, tuple) and isinstance(listener.address, tuple):
            wanted = (address[0], listener.address[1])
            if address[1] == 0:
                data = listener.address[1].to_bytes(4, "big")
        self._listeners[wanted] = listener
        undecided = _Undecided()
        try:
            yield from self._hub.command(lambda: self._hub.conn.succeed(question, data))
            while True:
                while self._full(undecided) and self._listeners.get(wanted) is listener and not self._over:
                    yield self._decided
                try:
                    stream = yield from listener.accept()
                except OSError:
                    return
                yield from hand_over(self._bring(wanted, stream, undecided), stream.close)
        finally:
            if self._listeners.get(wanted) is listener:  # else it was cancelled, and maybe asked for anew
                del self._listeners[wanted]
            listener.close()

    def _full(self, undecided: _Undecided) -> bool:
        most: int = self._hub.limits.forwarded_pending
        return undecided.count >= most or self._undecided >= _LISTENERS_WORTH * most

    def _cancel(self, question: GlobalRequested, address: Address) -> Operation[None]:
        self._making.pop(address, None)
        listener = self._listeners.pop(address, None)
        if listener is not None:
            listener.close()
            self._decided.fire()
            yield from self._hub.command(lambda: self._hub.conn.succeed(question))

    def _bring(self, address: Address, stream: ByteStream, undecided: _Undecided) -> Operation[None]:
        try:
            if isinstance(address, str):
                kind: Any = ForwardedStreamlocal(address)
            else:
                origin = stream.origin if isinstance(stream.origin, tuple) else ("", 0)
                kind = ForwardedTcpip(*address, *origin)
            undecided.count += 1
            self._undecided += 1
            try:
                channel = yield from self._hub.open_channel(kind)
            finally:
                undecided.count -= 1
                self._undecided -= 1
                self._decided.fire()
            yield from relay(channel, stream)
        except (SSHError, OSError):
            pass
        finally:
            stream.close()
