"""Agent forwarding from the client's side: an agent of ours for programs at a server (RFC 9987 section 4; OpenSSH's
names for the same before that).

The agent is told first for whom a connection is, by the server's host key and its signature of the session
(``session-bind@openssh.com``, OpenSSH PROTOCOL.agent section 1): so it can keep a key to itself that is not for use
from there.  All that follows is passed as it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from sshproto.channels.forwarding import AGENT_FORWARD
from sshproto.channels.requests import AgentConnect, AgentRequest, AuthAgent, AuthAgentRequest, OpenFailure
from sshproto.errors import InvalidArgument, RequestRefused
from sshproto.operations.forwarding import ByteStream, relay
from sshproto.operations.steps import Operation
from sshproto.operations.visits import Host, Visits, visits_of
from sshproto.values import frozen
from sshproto.wire.codec import boolean, byte, string, text

if TYPE_CHECKING:
    from sshproto.client import ClientConnection
    from sshproto.events import ChannelOpenRequested
    from sshproto.operations.channel import Channel
    from sshproto.operations.hub import Hub

SESSION_BIND = "session-bind@openssh.com"

_EXTENSION = 27
_LONGEST_REPLY = 256 * 1024


@frozen(kw_only=True)
class AgentForwarding:
    """An agent for the programs of a session. A face makes one with what it needs of the world.

    All sessions of a connection forward the same one: a channel does not say for which session it is.

    Attributes:
        source: Which: the path of its socket, or what it is itself.
        dial: Connects to it; raises an ``OSError``.
        optional: The session goes on without it if the server refuses.
        warn: Told of what went wrong; None if nobody wants to know.
    """

    source: Any
    dial: Callable[[], Operation[ByteStream]] = attrs.field(repr=False, eq=False)
    optional: bool = False
    warn: Callable[[str], object] | None = attrs.field(default=None, repr=False, eq=False)

    def offer(self, channel: Channel) -> Operation[None]:
        """Offer it to a session's program, before that is started.

        Raises:
            RequestRefused: The server will not, and it is not ``optional``.
            InvalidArgument: Another session of the connection forwards another agent.
            ChannelEnded, ConnectionLoss: See :meth:`Channel.request`.
        """
        hub: Hub[ClientConnection] = channel.hub
        visits: Visits[_Session] = visits_of(hub, (AuthAgent, AgentConnect), _carry)
        if any(session.forwarding.source != self.source for session in visits.hosts):
            raise InvalidArgument(
                "another session forwards another agent: a connection can have one (RFC 9987 section 4)"
            )
        session = _Session(channel, self)
        yield from visits.join(session)
        granted = False
        try:
            standard = AGENT_FORWARD in hub.conn.peer_extensions
            request = AgentRequest() if standard else AuthAgentRequest()
            granted = yield from channel.request(request)
        finally:
            if not granted:
                visits.leave(session)
        if not granted:
            if not self.optional:
                raise RequestRefused(f"the peer refused the request {request.type!r}")
            self.tell("the server refuses to forward the agent")

    def tell(self, words: str) -> None:
        """Tell who wants to know."""
        if self.warn is not None:
            self.warn(words)


class _Session(Host):
    """A session whose programs have an agent.

    Attributes:
        forwarding: Which.
    """

    def __init__(self, channel: Channel, forwarding: AgentForwarding) -> None:
        super().__init__(channel)
        self.forwarding = forwarding


def _carry(visits: Visits[_Session], question: ChannelOpenRequested) -> Operation[None]:
    """Serve one connection of a program."""
    hub = visits.hub
    forwarding = visits.hosts[0].forwarding
    try:
        stream = yield from forwarding.dial()
    except OSError as error:
        forwarding.tell(f"cannot connect to the agent: {error.strerror or error}")
        hub.reject_channel(question, OpenFailure.CONNECT_FAILED, "no connection to the agent")
        return
    try:
        try:
            yield from _bind(hub.conn, stream)
        except OSError as error:
            forwarding.tell(f"the agent: {error.strerror or error}")
            hub.reject_channel(question, OpenFailure.CONNECT_FAILED, "no connection to the agent")
            return
        channel = yield from hub.accept_channel(question)
        yield from relay(channel, stream)
    finally:
        stream.close()


def _bind(conn: ClientConnection, stream: ByteStream) -> Operation[None]:
    """Tell the agent for whom the connection is.

    What it answers does not matter: one that knows of such things remembers that it was asked, and gives nothing to a
    connection that it could not bind but what is for everybody.

    Raises:
        OSError: It does not answer as agents do.
    """
    host_key, session_id, signature = conn.host_key_blob, conn.session_id, conn.host_key_signature
    if host_key is None or session_id is None or signature is None:
        raise OSError("nobody knows yet for whom a connection would be")
    content = string(host_key) + string(session_id) + string(signature) + boolean(True)
    yield from stream.send(string(byte(_EXTENSION) + text(SESSION_BIND) + content))
    length = int.from_bytes((yield from _exactly(stream, 4)), "big")
    if not 0 < length <= _LONGEST_REPLY:
        raise OSError(f"it answers with a message of {length} bytes, expected 1 to {_LONGEST_REPLY}")
    yield from _exactly(stream, length)


def _exactly(stream: ByteStream, count: int) -> Operation[bytes]:
    data = b""
    while len(data) < count:
        more = yield from stream.receive(count - len(data))
        if not more:
            raise OSError("it has closed the connection, and did not answer")
        data += more
    return data
