"""X11 and agent forwarding from the server's side: what listens for a session's program, and brings to the client what
comes there (RFC 4254 section 6.3, RFC 9987 section 4).

It listens for as long as the session lasts.  Connections that were made until then go on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sshproto.channels.requests import X11, AgentConnect, AgentRequest, AuthAgent, AuthAgentRequest, X11Request
from sshproto.errors import InternalError, InvalidArgument, SSHError
from sshproto.operations.displays import BASE_PORT, Cookie, asked_cookie
from sshproto.operations.forwarding import ByteStream, Listener, relay
from sshproto.operations.steps import Operation, Wait, hand_over
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelOpenData
    from sshproto.operations.hub import Hub
    from sshproto.operations.serving import Handler, ServedSession, World
    from sshproto.server import ServerConnection

FIRST_DISPLAY = 10
"""Displays with lower numbers may be those of real screens."""
DISPLAYS = 1000
"""How many numbers are tried."""

_LOOPBACK = ("127.0.0.1", "::1")
_NO_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@frozen
class GrantedDisplay:
    """A display for a session's program.

    Attributes:
        number: Its number at this machine.
        screen: The screen that the client has named.
        cookie: What the program has to show; the client will know it.
    """

    number: int
    screen: int
    cookie: Cookie

    @property
    def name(self) -> str:
        """What ``DISPLAY`` is to say."""
        return f"localhost:{self.number}.{self.screen}"


Ask = Callable[..., Operation[Any]]


class Granting:
    """What sessions of one connection are granted beside their programs.

    Args:
        hub: The connection's.
        ask: Asks the application; what fails is a no.
        handler: Who is asked.
        world: Listens.
    """

    def __init__(self, hub: Hub[ServerConnection], ask: Ask, handler: Handler, world: World) -> None:
        self._hub = hub
        self._ask = ask
        self._handler = handler
        self._world = world

    def grant(self, session: ServedSession, request: X11Request | AuthAgentRequest | AgentRequest) -> Operation[bool]:
        """Do what a client asks for its session; False if that is not to be, or can't be."""
        try:
            if isinstance(request, X11Request):
                return (yield from self._grant_display(session, request))
            return (yield from self._grant_agent(session, request))
        except OSError:
            return False

    def _grant_display(self, session: ServedSession, request: X11Request) -> Operation[bool]:
        if session.display is not None:
            return False
        try:
            cookie = asked_cookie(request)
        except InvalidArgument:
            return False
        if (yield from self._ask(self._handler.allow_x11, session, request)) is not True:
            return False
        number, listeners = yield from self._find_display()
        display = GrantedDisplay(number, request.screen, cookie)
        yield from self._bring(session, listeners, _x11, single=request.single_connection)
        session.display = display
        session.provided["DISPLAY"] = display.name
        return True

    def _find_display(self) -> Operation[tuple[int, list[Listener]]]:
        """Listen as the first display that is free at the loopback addresses.

        Raises:
            OSError: None is, or nobody can listen.
        """
        for number in range(FIRST_DISPLAY, FIRST_DISPLAY + DISPLAYS):
            listeners = yield from self._listen_as(number)
            if listeners:
                return number, listeners
        raise OSError(errno.EADDRINUSE, f"displays {FIRST_DISPLAY} to {FIRST_DISPLAY + DISPLAYS - 1} are in use")

    def _listen_as(self, number: int) -> Operation[list[Listener]]:
        """Listen as a display; no listeners if somebody else does."""
        listeners: list[Listener] = []
        complete = False
        try:
            for host in _LOOPBACK:
                try:
                    listeners.append((yield from self._world.listen((host, BASE_PORT + number))))
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        return []
                    if error.errno not in _NO_ADDRESS:  # a machine has one of the two at least
                        raise
            if not listeners:
                raise OSError(errno.EADDRNOTAVAIL, "there is no loopback address")
            complete = True
            return listeners
        finally:
            if not complete:
                for listener in listeners:
                    listener.close()

    def _grant_agent(self, session: ServedSession, request: AuthAgentRequest | AgentRequest) -> Operation[bool]:
        listen = self._world.listen_privately
        if "SSH_AUTH_SOCK" in session.provided or listen is None:
            return False
        if (yield from self._ask(self._handler.allow_agent, session)) is not True:
            return False
        listener = yield from listen()
        path = listener.address
        kind = AgentConnect() if isinstance(request, AgentRequest) else AuthAgent()
        yield from self._bring(session, [listener], lambda _: kind)
        session.provided["SSH_AUTH_SOCK"] = str(path)
        return True

    def _bring(
        self,
        session: ServedSession,
        listeners: list[Listener],
        kind: Callable[[ByteStream], ChannelOpenData],
        *,
        single: bool = False,
    ) -> Operation[None]:
        """Bring to the client what comes to some listeners, until the session ends."""
        bringing = _Bringing(self._hub, listeners, kind, single=single)
        session.at_end.callback(bringing.close)
        if session.channel.closed:  # it has ended meanwhile
            bringing.close()
            raise OSError(errno.ECANCELED, "the session has ended")
        for listener in listeners:
            yield from hand_over(bringing.take(listener), bringing.close)


class _Bringing:
    """Takes what comes to some listeners to the client."""

    def __init__(
        self,
        hub: Hub[ServerConnection],
        listeners: list[Listener],
        kind: Callable[[ByteStream], ChannelOpenData],
        *,
        single: bool,
    ) -> None:
        self._hub = hub
        self._listeners = listeners
        self._kind = kind
        self._single = single
        self._undecided = 0
        self._decided = Wait()
        self._closed = False

    def close(self) -> None:
        """Take no more. Repeated calls do nothing."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
        self._decided.fire()

    def take(self, listener: Listener) -> Operation[None]:
        """Take what comes to one of them, until it is closed."""
        try:
            while not self._closed:
                if self._undecided >= self._hub.limits.forwarded_pending:
                    yield self._decided
                    continue
                stream = yield from listener.accept()
                if self._single:
                    self.close()
                yield from hand_over(self._carry(stream), stream.close)
        except OSError:  # it is closed
            pass
        finally:
            listener.close()

    def _carry(self, stream: ByteStream) -> Operation[None]:
        try:
            self._undecided += 1
            try:
                channel = yield from self._hub.open_channel(self._kind(stream))
            finally:
                self._undecided -= 1
                self._decided.fire()
            yield from relay(channel, stream)
        except InternalError:
            raise
        except (SSHError, OSError):  # there is nobody to tell
            pass
        finally:
            stream.close()


def _x11(stream: ByteStream) -> X11:
    origin = stream.origin
    return X11(*origin) if isinstance(origin, tuple) else X11("", 0)
