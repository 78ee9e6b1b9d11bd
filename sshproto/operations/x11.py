"""X11 forwarding from the client's side: a display of ours for programs at a server (RFC 4254 section 6.3).

Who has a display's cookie may read what is typed there and see what is shown.  So the server is told another one, made
up for the session, and a program that connects from there has to show that; here it is replaced by the true one, which
never leaves this side.  Whoever shows another, or none, is turned away.  The made-up cookie also tells to which session
a connection belongs, which nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from sshproto.channels.requests import X11, OpenFailure, X11Request
from sshproto.errors import InvalidArgument, RequestRefused
from sshproto.operations.displays import COOKIE_SIZE, MAGIC_COOKIE, Cookie, Display
from sshproto.operations.forwarding import Address, ByteStream, relay
from sshproto.operations.steps import Operation
from sshproto.operations.visits import Host, Visits, visits_of
from sshproto.operations.x11_setup import SetupRefused, read_setup
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.events import ChannelOpenRequested
    from sshproto.operations.channel import Channel
    from sshproto.operations.x11_setup import Setup

STRANGERS = 32
"""Connections that may be there without having shown a cookie yet."""

_PIECE = 64 * 1024

Dial = Callable[[Address], Operation[ByteStream]]
"""Connects to an address; raises an ``OSError``."""


def _seconds(instance: object, attribute: attrs.Attribute[float | None], value: float | None) -> None:
    if value is not None and not value > 0:
        raise InvalidArgument(f"X11Forwarding.timeout must be more than 0 seconds, or None, not {value!r}")


@frozen(kw_only=True)
class X11Forwarding:
    """A display for the programs of a session. A face makes one with what it needs of the world.

    Attributes:
        display: Which.
        cookie: What opens it; None if it asks for nothing, since it knows who may by other means.
        entropy: Gives so many unpredictable bytes.
        dial: Connects to an address; raises an ``OSError``. If None, the face does it.
        single: For one connection only.
        timeout: Seconds after which no new connections are taken; None for never. Displays that are not to be trusted
            with everything get a cookie that ends, too.
        optional: The session goes on without it if the server refuses.
        warn: Told of what was turned away, and why; None if nobody wants to know.
    """

    display: Display
    cookie: Cookie | None
    entropy: Callable[[int], bytes] = attrs.field(repr=False)
    dial: Dial | None = attrs.field(default=None, repr=False)
    single: bool = False
    timeout: float | None = attrs.field(default=None, validator=_seconds)
    optional: bool = False
    warn: Callable[[str], object] | None = attrs.field(default=None, repr=False)

    def dialled(self, dial: Dial) -> X11Forwarding:
        """The same, connected to in this way if in no other."""
        return attrs.evolve(self, dial=dial) if self.dial is None else self

    def offer(self, channel: Channel) -> Operation[None]:
        """Offer it to a session's program, before that is started.

        Raises:
            InvalidArgument: Nobody could connect to it: there is no ``dial``.
            RequestRefused: The server will not, and it is not ``optional``.
            ChannelEnded, ConnectionLoss: See :meth:`Channel.request`.
        """
        if self.dial is None:
            raise InvalidArgument("X11Forwarding.dial is None: nobody would connect to the display")
        fake = Cookie(MAGIC_COOKIE, self.entropy(COOKIE_SIZE))
        visits: Visits[_Session] = visits_of(channel.hub, (X11,), _carry)
        session = _Session(channel, self, fake, self.dial)
        yield from visits.join(session, self.timeout)
        granted = False
        try:
            request = X11Request(self.single, fake.protocol, fake.hex, self.display.screen)
            granted = yield from channel.request(request)
        finally:
            if not granted:
                visits.leave(session)
        if not granted:
            if not self.optional:
                raise RequestRefused(f"the peer refused the request {X11Request.type!r}")
            session.tell("the server refuses to forward X11")


class _Session(Host):
    """A session whose programs have a display.

    Attributes:
        forwarding: Which.
        fake: The cookie that the server was told.
    """

    def __init__(self, channel: Channel, forwarding: X11Forwarding, fake: Cookie, dial: Dial) -> None:
        super().__init__(channel, forwarding.warn)
        self.forwarding = forwarding
        self.fake = fake
        self._dial = dial

    def connect(self) -> Operation[ByteStream]:
        """Connect to the display.

        Raises:
            OSError: It can't be reached.
        """
        *others, last = self.forwarding.display.addresses
        for address in others:
            try:
                return (yield from self._dial(address))
            except OSError:
                continue
        return (yield from self._dial(last))


def _carry(visits: Visits[_Session], question: ChannelOpenRequested) -> Operation[None]:
    """Serve one connection of a program."""
    hub = visits.hub
    first = next((session for session in visits.hosts if not session.over), None)
    if first is None:
        for session in visits.hosts:
            session.tell("a connection to the display came too late, and was refused")
        hub.reject_channel(question, OpenFailure.ADMINISTRATIVELY_PROHIBITED, "no more connections are wanted")
        return
    if visits.strangers >= STRANGERS:
        hub.reject_channel(question, OpenFailure.RESOURCE_SHORTAGE, "too many connections without a cookie")
        return
    visits.strangers += 1
    try:
        channel = yield from hub.accept_channel(question)
        try:
            setup, rest = yield from _greeting(channel)
            session = _owner(visits, setup)
        except SetupRefused as refusal:
            first.tell(f"a connection to the display was refused: {refusal}")
            channel.close()
            return
        except BaseException:
            channel.close()
            raise
    finally:
        visits.strangers -= 1
    try:
        yield from _connect(channel, session, setup, rest)
    finally:
        channel.close()


def _greeting(channel: Channel) -> Operation[tuple[Setup, bytes]]:
    """How a connection begins, and what has come behind that."""
    data = b""
    while (setup := read_setup(data)) is None:
        more = yield from channel.read(_PIECE)
        if not more:
            raise SetupRefused(f"it ended after {len(data)} bytes, within the setup of the connection")
        data += more
    return setup, data[setup.size :]


def _owner(visits: Visits[_Session], setup: Setup) -> _Session:
    """The session whose cookie was shown."""
    shown = [session for session in visits.hosts if setup.shows(session.fake)]
    if not shown:
        raise SetupRefused("it has a wrong cookie" if setup.data else "it has no cookie")
    session = shown[0]
    if session.over:
        raise SetupRefused("it came too late" if not session.forwarding.single else "there was one before it")
    session.over = session.forwarding.single
    return session


def _connect(channel: Channel, session: _Session, setup: Setup, rest: bytes) -> Operation[None]:
    forwarding = session.forwarding
    try:
        stream = yield from session.connect()
    except OSError as error:
        session.tell(f"cannot connect to display {forwarding.display}: {error.strerror or error}")
        yield from channel.write(setup.failure("the display that this one stands for cannot be reached"))
        return
    try:
        yield from stream.send(setup.encode(forwarding.cookie) + rest)
        yield from relay(channel, stream)
    finally:
        stream.close()
