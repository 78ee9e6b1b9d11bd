"""Which channels the peer may open back to us: those that a request of ours invited.

A server could otherwise reach a client's network, display or agent that was never offered to it.  RFC 4254 sections
6.3.2 and 7.2 say that such opens MUST be refused.  A request that is not answered yet counts as granted: the reply
and the open may be made by different parts of a server.
"""

from __future__ import annotations

from sshproto.channels.requests import (
    X11,
    AgentConnect,
    AgentRequest,
    AuthAgent,
    AuthAgentRequest,
    CancelStreamlocalForward,
    CancelTcpipForward,
    ChannelOpenData,
    ChannelRequestData,
    ForwardedStreamlocal,
    ForwardedTcpip,
    GlobalRequestData,
    StreamlocalForward,
    TcpipForward,
    X11Request,
)

AGENT_FORWARD = "agent-forward"
"""The extension by which a server says that it knows ``agent-req`` and ``agent-connect`` (RFC 9987 section 4)."""

ANY_ADDRESS = frozenset({"", "*", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1"})  # noqa: S104 - compared with, never bound to
"""Addresses to listen on that a server may report differently from how they were asked for (RFC 4254 section 7.1)."""


class Invitations:
    """What the peer may open, by what we have asked for and it has not refused.

    Attributes:
        x11: By channel, requests that were not refused; and whether all of them are for one connection only.
        agents: By channel, requests that were not refused. Both go when their channel goes.
    """

    __slots__ = ("_ports", "_sockets", "agents", "x11")

    def __init__(self) -> None:
        self._ports: dict[int, list[str]] = {}  # port (0: not known yet) -> addresses, one entry for each request
        self._sockets: list[str] = []
        self.x11: dict[int, tuple[int, bool]] = {}
        self.agents: dict[int, int] = {}

    def asked(self, request: GlobalRequestData) -> None:
        """We sent ``request``."""
        if isinstance(request, TcpipForward):
            self._ports.setdefault(request.port, []).append(request.address)
        elif isinstance(request, StreamlocalForward):
            self._sockets.append(request.path)

    def answered(self, request: GlobalRequestData, granted: bool, port: int = 0) -> None:
        """The peer has answered ``request``, or will not.

        Args:
            request: Ours.
            granted: The answer.
            port: For a TcpipForward of port 0, the one that was chosen.
        """
        if isinstance(request, TcpipForward):
            if granted and request.port == 0:
                self._ports.setdefault(port, []).append(request.address)
            if not granted or request.port == 0:
                self._remove(request.port, request.address)
        elif isinstance(request, StreamlocalForward):
            if not granted and request.path in self._sockets:
                self._sockets.remove(request.path)
        elif granted and isinstance(request, CancelTcpipForward):
            self._remove(request.port, request.address)
        elif granted and isinstance(request, CancelStreamlocalForward) and request.path in self._sockets:
            self._sockets.remove(request.path)

    def _remove(self, port: int, address: str) -> None:
        addresses = self._ports.get(port, [])
        if address in addresses:
            addresses.remove(address)
            if not addresses:
                del self._ports[port]

    def asked_on(self, channel: int, request: ChannelRequestData) -> None:
        """We sent ``request`` on ``channel``."""
        if isinstance(request, X11Request):
            count, single = self.x11.get(channel, (0, True))
            self.x11[channel] = (count + 1, single and request.single_connection)
        elif isinstance(request, (AuthAgentRequest, AgentRequest)):
            self.agents[channel] = self.agents.get(channel, 0) + 1

    def refused_on(self, channel: int, request: ChannelRequestData) -> None:
        """The peer has refused ``request`` on ``channel``."""
        if isinstance(request, X11Request) and channel in self.x11:
            count, single = self.x11.pop(channel)
            if count > 1:
                self.x11[channel] = (count - 1, single)
        elif isinstance(request, (AuthAgentRequest, AgentRequest)) and channel in self.agents:
            count = self.agents.pop(channel)
            if count > 1:
                self.agents[channel] = count - 1

    def closed(self, channel: int) -> None:
        """``channel`` is gone, and what was asked on it."""
        self.x11.pop(channel, None)
        self.agents.pop(channel, None)

    def covers(self, kind: ChannelOpenData) -> bool:
        """Whether the peer may open ``kind``. Kinds that need no invitation are covered."""
        if isinstance(kind, ForwardedTcpip):
            return any(
                address == kind.address or address in ANY_ADDRESS
                for port in (kind.port, 0)
                for address in self._ports.get(port, ())
            )
        if isinstance(kind, ForwardedStreamlocal):
            return kind.path in self._sockets
        if isinstance(kind, X11):
            return bool(self.x11)
        return not isinstance(kind, (AuthAgent, AgentConnect)) or bool(self.agents)

    def used(self, kind: ChannelOpenData) -> None:
        """The peer has opened ``kind``: an invitation for a single connection is used up."""
        if isinstance(kind, X11) and all(single for _, single in self.x11.values()):
            # Which session it belongs to is not said; the oldest invitation is as good a guess as any.
            del self.x11[next(iter(self.x11))]
