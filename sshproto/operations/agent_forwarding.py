"""Agent forwarding from the client's side: an agent of ours for programs at a server (RFC 9987 section 4; OpenSSH's
names for the same before that).

The agent is told first for whom a connection is, by the server's host key and its signature of the session
(``session-bind@openssh.com``, OpenSSH PROTOCOL.agent section 1): so it can keep a key to itself that is not for use
from there.  All that follows is passed as it comes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from sshproto.agent.framing import AgentMessageError, AgentRefused, AgentUnavailable
from sshproto.channels.forwarding import AGENT_FORWARD
from sshproto.channels.requests import AgentConnect, AgentRequest, AuthAgent, AuthAgentRequest, OpenFailure
from sshproto.errors import InvalidArgument, RequestRefused
from sshproto.operations.agents import Agent
from sshproto.operations.forwarding import ByteStream, relay
from sshproto.operations.pipes import pipe
from sshproto.operations.steps import Operation, hand_over
from sshproto.operations.visits import Host, Visits, visits_of
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.client import ClientConnection
    from sshproto.events import ChannelOpenRequested
    from sshproto.operations.agents import AgentService
    from sshproto.operations.channel import Channel
    from sshproto.operations.hub import Hub


@frozen(kw_only=True)
class AgentForwarding:
    """An agent for the programs of a session. A face makes one with what it needs of the world.

    All sessions of a connection forward the same one: a channel does not say for which session it is.

    Attributes:
        source: Which: the path of its socket, or what it is itself.
        dial: Connects to it; raises an ``OSError``. See :func:`served` for an agent of one's own.
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
            standard = hub.conn.peer_extensions.get(AGENT_FORWARD) == b"0"  # of another version nothing is known
            request = AgentRequest() if standard else AuthAgentRequest()
            granted = yield from channel.request(request)
        finally:
            if not granted:
                visits.leave(session)
        if not granted:
            if not self.optional:
                raise RequestRefused(f"the peer refused the request {request.type!r}")
            session.tell("the server refuses to forward the agent")


class _Session(Host):
    """A session whose programs have an agent.

    Attributes:
        forwarding: Which.
    """

    def __init__(self, channel: Channel, forwarding: AgentForwarding) -> None:
        super().__init__(channel, forwarding.warn)
        self.forwarding = forwarding


def _carry(visits: Visits[_Session], question: ChannelOpenRequested) -> Operation[None]:
    """Serve one connection of a program."""
    hub = visits.hub
    session = visits.hosts[0]
    try:
        stream = yield from session.forwarding.dial()
    except OSError as error:
        session.tell(f"cannot connect to the agent: {error.strerror or error}")
        hub.reject_channel(question, OpenFailure.CONNECT_FAILED, "no connection to the agent")
        return
    try:
        try:
            yield from _bind(hub.conn, stream)
        except (AgentUnavailable, AgentMessageError) as error:
            session.tell(f"the agent can't be told for whom it is: {error}")
            hub.reject_channel(question, OpenFailure.CONNECT_FAILED, "no connection to the agent")
            return
        channel = yield from hub.accept_channel(question)
        yield from relay(channel, stream)
    finally:
        stream.close()


def served(service: AgentService) -> Callable[[], Operation[ByteStream]]:
    """Connects to an agent that is served here, in memory; for :attr:`AgentForwarding.dial`."""

    def serve(stream: ByteStream) -> Operation[None]:
        with contextlib.suppress(OSError):  # the other end is gone
            yield from service.serve(stream)

    def dial() -> Operation[ByteStream]:
        near, far = pipe()
        yield from hand_over(serve(far), near.close)
        return near

    return dial


def _bind(conn: ClientConnection, stream: ByteStream) -> Operation[None]:
    """Tell the agent for whom the connection is.

    What it answers does not matter: one that knows of such things remembers that it was asked, and gives nothing to a
    connection that it could not bind but what is for everybody.

    Raises:
        AgentUnavailable, AgentMessageError: It does not answer as agents do.
    """
    host_key, session_id, signature = conn.host_key_blob, conn.session_id, conn.host_key_signature
    if host_key is None or session_id is None or signature is None:
        raise AgentUnavailable("nobody knows yet for whom a connection would be")
    with contextlib.suppress(AgentRefused):
        yield from Agent(stream).bind(host_key, session_id, signature, forwarding=True)
