"""Forwarding: bytes between channels and whatever is at their other end (RFC 4254 section 7; OpenSSH PROTOCOL 2.4).

What is at the other end, a socket mostly, is a :class:`ByteStream`, and it comes out of a :class:`Listener`; both are
made of operations, so that everything here runs wherever operations run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from sshproto.channels.requests import (
    CancelStreamlocalForward,
    CancelTcpipForward,
    DirectStreamlocal,
    DirectTcpip,
    ForwardedStreamlocal,
    ForwardedTcpip,
    OpenFailure,
    StreamlocalForward,
    TcpipForward,
)
from sshproto.errors import ChannelEnded, ConnectionLoss, InternalError, SSHError
from sshproto.operations.pending import Invitation
from sshproto.operations.steps import Operation, Sleep, Together, Wait, hand_over

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelOpenData
    from sshproto.client import ClientConnection
    from sshproto.events import ChannelOpenRequested
    from sshproto.operations.channel import Channel
    from sshproto.operations.hub import Hub

_PIECE = 64 * 1024

Dial = Callable[["ChannelOpenData"], Operation["ByteStream"]]
"""Makes a connection for a channel of some kind; may raise an ``OSError``."""

Address = tuple[str, int] | str
"""A host and a port, or the path of a Unix-domain socket."""


class ByteStream(Protocol):
    """Bytes both ways, such as a socket. What fails raises an ``OSError``."""

    @property
    def origin(self) -> Address:
        """Where the other end is, as far as that is known."""
        ...

    def receive(self, limit: int) -> Operation[bytes]:
        """At least one byte and at most ``limit``; ``b""`` at the end."""
        ...

    def send(self, data: bytes) -> Operation[None]:
        """Send all of ``data``."""
        ...

    def send_eof(self) -> Operation[None]:
        """Send no more. What the stream can't say is left unsaid."""
        ...

    def close(self) -> None:
        """Close it at once, both directions. Repeated calls do nothing."""


class Listener(Protocol):
    """What brings streams."""

    @property
    def address(self) -> Address:
        """Where it listens."""
        ...

    def accept(self) -> Operation[ByteStream]:
        """The next one. Raises an ``OSError`` when it is closed."""
        ...

    def close(self) -> None:
        """Listen no more. Repeated calls do nothing."""


class _Over(Exception):
    """One direction of a relay has seen that there is no need for the other."""


def relay(channel: Channel, stream: ByteStream, patience: float | None = None) -> Operation[None]:
    """Pass bytes both ways until both are at their end, or one side is gone. Then both are closed.

    EOF passes through: what one side has ended, the other may still answer.  Nobody is read faster than the other side
    takes.  That a side is gone is no error here.

    Args:
        channel, stream: The two sides.
        patience: Seconds that the channel may go on after the end of the stream; None for as many as it takes.
    """
    finished = _Finished()
    try:
        yield Together(_inward(channel, stream, finished, patience), _outward(channel, stream, finished))
    except (_Over, OSError, ChannelEnded, ConnectionLoss):
        pass
    finally:
        stream.close()
        channel.close()


class _Finished:
    """Which directions are at their end: from the stream to the channel, and to the stream, which also fires."""

    def __init__(self) -> None:
        self.inward = False
        self.outward = False
        self.answered = Wait()


def _inward(channel: Channel, stream: ByteStream, finished: _Finished, patience: float | None) -> Operation[None]:
    while data := (yield from stream.receive(_PIECE)):
        yield from channel.write(data)
    yield from channel.send_eof()
    finished.inward = True
    channel.changed.fire()
    if patience is not None and not finished.outward:
        yield Sleep(patience, finished.answered)
        if not finished.outward:
            raise _Over


def _outward(channel: Channel, stream: ByteStream, finished: _Finished) -> Operation[None]:
    while data := (yield from channel.read(_PIECE)):
        yield from stream.send(data)
    if not channel.closed or channel.eof_received:
        yield from stream.send_eof()
    finished.outward = True
    finished.answered.fire()
    while not finished.inward:
        if channel.closed:
            raise _Over
        yield channel.changed


# -------------------------------------------------------------------------------------------- towards the server's side


def open_to(hub: Hub[ClientConnection], target: Address, origin: Address = ("127.0.0.1", 0)) -> Operation[Channel]:
    """A channel to something that the server is to connect to.

    Args:
        hub: The connection's.
        target: Where to, as seen from the server.
        origin: Where what is forwarded comes from.

    Raises:
        OpenRefused: The server will not, or can't reach it.
        ConnectionLoss: The connection has ended.
        InvalidArgument: The target can't be asked for.
    """
    if isinstance(target, str):
        return (yield from hub.open_channel(DirectStreamlocal(target)))
    host, port = target
    source = ("127.0.0.1", 0) if isinstance(origin, str) else origin
    return (yield from hub.open_channel(DirectTcpip(host, port, *source)))


def forward_local(hub: Hub[ClientConnection], listener: Listener, target: Address) -> Operation[None]:
    """Take what comes to ``listener`` to ``target``, as seen from the server, until the listener is closed."""

    def carry(stream: ByteStream) -> Operation[None]:
        channel = yield from open_to(hub, target, stream.origin)
        yield from relay(channel, stream)

    yield from take_all(listener, carry)


def take_all(listener: Listener, carry: Callable[[ByteStream], Operation[None]]) -> Operation[None]:
    """Start ``carry`` for each stream that comes, until the listener is closed.

    A stream that can't be carried on is closed; so is one whose carrying is cancelled.
    """
    try:
        while True:
            try:
                stream = yield from listener.accept()
            except OSError:
                return
            yield from hand_over(_carried(carry, stream), stream.close)
    finally:
        listener.close()


def _carried(carry: Callable[[ByteStream], Operation[None]], stream: ByteStream) -> Operation[None]:
    try:
        yield from carry(stream)
    except InternalError:
        raise
    except (SSHError, OSError):  # there is nobody to tell
        pass
    finally:
        stream.close()


# -------------------------------------------------------------------------------------------- towards the client's side


class Invited:
    """A listener at the server's side: what comes to it comes to us.

    Attributes:
        address: Where the server listens: with the port that it chose, if that was left to it.
    """

    def __init__(self, hub: Hub[ClientConnection], invitation: Invitation) -> None:
        self._hub = hub
        self._invitation = invitation

    @property
    def address(self) -> Address:
        return self._invitation.kind

    def next_question(self) -> Operation[ChannelOpenRequested]:
        """The next connection that came, to be accepted or rejected.

        Raises:
            ChannelEnded: The listener is closed.
            ConnectionLoss: The connection has ended.
        """
        invitation = self._invitation
        while not invitation.waiting:
            self._hub.check()
            if invitation.closed:
                raise ChannelEnded(f"the peer does not listen at {show(invitation.kind)} for us any more")
            yield invitation.came
        return invitation.waiting.popleft()

    def accept(self) -> Operation[Channel]:
        """The next connection that came, accepted.

        Raises:
            ChannelEnded: The listener is closed.
            ConnectionLoss: The connection has ended.
        """
        while True:
            question = yield from self.next_question()
            try:
                return (yield from self._hub.accept_channel(question))
            except ChannelEnded:  # its peer has given up meanwhile
                self._hub.check()
            except BaseException:
                self._put_back(question)
                raise

    def _put_back(self, question: ChannelOpenRequested) -> None:
        """Who wanted to accept it was cancelled: let another one."""
        if self._invitation.closed:
            self._hub.refuse(question)
        else:
            self._invitation.waiting.appendleft(question)
            self._invitation.came.fire()

    def close(self) -> None:
        """Have the server listen no more. Repeated calls do nothing."""
        _withdraw(self._hub, self._invitation)


def listen(hub: Hub[ClientConnection], address: Address) -> Operation[Invited]:
    """Have the server listen for us.

    Args:
        hub: The connection's.
        address: An address of the server (``""`` for all, ``"localhost"``) and a port, 0 to let it choose; or a path.

    Raises:
        RequestRefused: It will not.
        ConnectionLoss: The connection has ended.
        InvalidArgument: The address can't be asked for.
    """
    invitation = Invitation(address)
    hub.invitations += (invitation,)

    def granted(data: bytes) -> None:
        invitation.granted = True
        if isinstance(address, tuple) and address[1] == 0:
            invitation.kind = (address[0], int.from_bytes(data, "big"))
        if invitation.closed:  # nobody waits for it any more
            _cancel(hub, invitation)

    request = StreamlocalForward(address) if isinstance(address, str) else TcpipForward(*address)
    try:
        yield from hub.request(request, granted)
    except BaseException:
        _withdraw(hub, invitation)
        raise
    return Invited(hub, invitation)


def _withdraw(hub: Hub[ClientConnection], invitation: Invitation) -> None:
    if invitation.closed:
        return
    invitation.closed = True
    hub.invitations = tuple(one for one in hub.invitations if one is not invitation)
    if invitation.granted:  # else that is done if it still is
        _cancel(hub, invitation)
    for question in invitation.waiting:
        hub.refuse(question)
    invitation.waiting.clear()
    invitation.came.fire()


def _cancel(hub: Hub[ClientConnection], invitation: Invitation) -> None:
    kind = invitation.kind
    request = CancelStreamlocalForward(kind) if isinstance(kind, str) else CancelTcpipForward(*kind)
    hub.tell(request)


def forward_remote(hub: Hub[ClientConnection], invited: Invited, dial: Dial) -> Operation[None]:
    """Take what comes to ``invited`` to what ``dial`` connects to, until that is closed.

    Args:
        hub: The connection's.
        invited: What :func:`listen` returned.
        dial: Makes a connection on this side for what the peer brings.
    """
    try:
        while True:
            try:
                question = yield from invited.next_question()
            except (ChannelEnded, ConnectionLoss):
                return
            yield from hand_over(connect_channel(hub, question, dial), partial(hub.refuse, question))
    finally:
        invited.close()


def connect_channel(hub: Hub[Any], question: ChannelOpenRequested, dial: Dial) -> Operation[None]:
    """Connect what the peer asks a channel for, and pass bytes until either side is done.

    Args:
        hub: The connection's.
        question: What the peer asks.
        dial: Makes the connection; an ``OSError`` is told to the peer.
    """
    try:
        stream = yield from dial(question.kind)
    except OSError as error:
        hub.reject_channel(question, OpenFailure.CONNECT_FAILED, error.strerror or "cannot connect")
        return
    except BaseException:
        hub.reject_channel(question, OpenFailure.RESOURCE_SHORTAGE, "given up")
        raise
    try:
        channel = yield from hub.accept_channel(question)
    except BaseException as error:
        stream.close()
        hub.reject_channel(question, OpenFailure.RESOURCE_SHORTAGE, "given up")
        if isinstance(error, (ChannelEnded, ConnectionLoss)):
            return
        raise
    yield from relay(channel, stream)


def origin_of(kind: ChannelOpenData) -> Address:
    """Where a forwarded connection comes from, as far as the peer has said."""
    match kind:
        case ForwardedTcpip(originator_address=host, originator_port=port):
            return host, port
        case DirectTcpip(originator_address=host, originator_port=port):
            return host, port
        case ForwardedStreamlocal(path=path) | DirectStreamlocal(path=path):
            return path
        case _:
            return "", 0


def show(address: Address) -> str:
    """An address for people."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
