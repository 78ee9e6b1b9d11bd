"""Which channels the peer may open back to us: those that a request of ours invited.

A server could otherwise reach a client's network, display or agent that was never offered to it.  RFC 4254 sections
6.3.2 and 7.2 say that such opens MUST be refused.  A request that is not answered yet counts as granted: the reply
and the open may be made by different parts of a server.
"""

from __future__ import annotations

from typing import TypeVar

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

T = TypeVar("T")

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
        # Few connections invite anything, and what is empty takes no memory.
        self._ports: tuple[tuple[int, str], ...] = ()  # port (0: not known yet) and address of each request
        self._sockets: tuple[str, ...] = ()
        self.x11: dict[int, tuple[int, bool]] | None = None
        self.agents: dict[int, int] | None = None

    def asked(self, request: GlobalRequestData) -> None:
        """We sent ``request``."""
        if isinstance(request, TcpipForward):
            self._ports += ((request.port, request.address),)
        elif isinstance(request, StreamlocalForward):
            self._sockets += (request.path,)

    def answered(self, request: GlobalRequestData, granted: bool, port: int = 0) -> None:
        """The peer has answered ``request``, or will not.

        Args:
            request: Ours.
            granted: The answer.
            port: For a TcpipForward of port 0, the one that was chosen.
        """
        if isinstance(request, TcpipForward):
            if granted and request.port == 0:
                self._ports += ((port, request.address),)
            if not granted or request.port == 0:
                self._ports = without(self._ports, (request.port, request.address))
        elif isinstance(request, StreamlocalForward):
            if not granted:
                self._sockets = without(self._sockets, request.path)
        elif granted and isinstance(request, CancelTcpipForward):
            self._ports = without(self._ports, (request.port, request.address))
        elif granted and isinstance(request, CancelStreamlocalForward):
            self._sockets = without(self._sockets, request.path)

    def asked_on(self, channel: int, request: ChannelRequestData) -> None:
        """We sent ``request`` on ``channel``."""
        if isinstance(request, X11Request):
            self.x11 = self.x11 or {}
            count, single = self.x11.get(channel, (0, True))
            self.x11[channel] = (count + 1, single and request.single_connection)
        elif isinstance(request, (AuthAgentRequest, AgentRequest)):
            self.agents = self.agents or {}
            self.agents[channel] = self.agents.get(channel, 0) + 1

    def refused_on(self, channel: int, request: ChannelRequestData) -> None:
        """The peer has refused ``request`` on ``channel``."""
        if isinstance(request, X11Request) and self.x11 and channel in self.x11:
            count, single = self.x11.pop(channel)
            if count > 1:
                self.x11[channel] = (count - 1, single)
        elif isinstance(request, (AuthAgentRequest, AgentRequest)) and self.agents and channel in self.agents:
            count = self.agents.pop(channel)
            if count > 1:
                self.agents[channel] = count - 1

    def closed(self, channel: int) -> None:
        """``channel`` is gone, and what was asked on it."""
        if self.x11:
            self.x11.pop(channel, None)
        if self.agents:
            self.agents.pop(channel, None)

    def covers(self, kind: ChannelOpenData) -> bool:
        """Whether the peer may open ``kind``. Kinds that need no invitation are covered."""
        if isinstance(kind, ForwardedTcpip):
            return any(
                port in (kind.port, 0) and (address == kind.address or address in ANY_ADDRESS)
                for port, address in self._ports
            )
        if isinstance(kind, ForwardedStreamlocal):
            return kind.path in self._sockets
        if isinstance(kind, X11):
            return bool(self.x11)
        return not isinstance(kind, (AuthAgent, AgentConnect)) or bool(self.agents)

    def used(self, kind: ChannelOpenData) -> None:
        """The peer has opened ``kind``: an invitation for a single connection is used up."""
        if isinstance(kind, X11) and self.x11 and all(single for _, single in self.x11.values()):
            # Which session it belongs to is not said; the oldest invitation is as good a guess as any.
            del self.x11[next(iter(self.x11))]


def without(things: tuple[T, ...], thing: T) -> tuple[T, ...]:
    """``things`` but for the first that equals ``thing``, if any does."""
    if thing not in things:
        return things
    place = things.index(thing)
    return things[:place] + things[place + 1 :]
