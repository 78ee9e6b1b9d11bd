"""Hands a connection's events to those who wait for them.

A :class:`Hub` stands between a connection and the operations on it.  A face gives it what comes from the network and
takes from it what is to be sent; operations give their commands and wait for what follows.  An event wakes only the
operations that wait for it, so its cost does not depend on how many there are.

Questions that nobody is there to answer get their safe answer at once, which is no.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from sshproto.channels.forwarding import ANY_ADDRESS
from sshproto.channels.requests import ForwardedStreamlocal, ForwardedTcpip, HostKeysAnnounced
from sshproto.errors import ChannelEnded, InvalidArgument, LimitReached, RequestRefused, UsageError
from sshproto.events import (
    Authenticated,
    AuthSucceeded,
    ChannelOpenRequested,
    ChannelRequested,
    ConnectionLost,
    CredentialNeeded,
    DataReceived,
    Event,
    GlobalFailed,
    GlobalRequested,
    GlobalSucceeded,
    HostKeyOffered,
    InteractiveAuth,
    KeyAuth,
    KeyProbe,
    KeysExchanged,
    NoneAuth,
    PasswordAuth,
    PasswordExpired,
    PromptsAnswered,
    PromptsReceived,
    Question,
    SignatureNeeded,
)
from sshproto.operations.channel import Channel
from sshproto.operations.pending import UNASKED, Invitation, Offer, Reply, unasked
from sshproto.operations.steps import Operation, Wait
from sshproto.transport.link import Phase
from sshproto.wire.table import Role

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelOpenData, GlobalRequestData
    from sshproto.connection import Connection
    from sshproto.engine import Engine
    from sshproto.errors import ConnectionLoss
    from sshproto.operations.pending import Writers

C = TypeVar("C", bound="Connection[Any]")
T = TypeVar("T")

_OF_CHANNELS = Channel.ROUTES  # a global is looked up faster than a class attribute
_NO_OFFERS: Mapping[type, Offer] = MappingProxyType({})
_SHARE = 32 * 1024  # bytes that one who waits to send is expected to have, one with another


class Hub(Generic[C]):
    """The events of one connection, and who waits for them.

    Args:
        conn: The connection. From now on only the hub takes its events.
        on_event: Sees every event before it is handed out. It gives no commands and answers no questions.

    Attributes:
        conn: The connection; operations give it their commands, and should see :meth:`command`.
        wire: What takes its input and gives its output, a call nearer to it; the connection itself, if it is recorded.
        face: What runs its operations, where that has to be known: a face's connection.
        limits: Its bounds, for what operations keep for the peer.
        on_event: As above; may be replaced.
        channels: The channels that exist, by their number.
        lost: Why the connection has ended, or None.
        ended: Fires when the connection ends.
        opened: Fires when we are logged in (client) or the client is (server).
        asked: Fires when there is a question to answer, or never will be, and at a client's login.
        rekeyed: Fires after each key exchange.
        invitations: What we have asked the peer to listen for.
        announced: The blobs of the host keys that the server has told us of, last, which proves nothing; or None.
        announcement: Fires when it has.
        offers: What sessions of ours have offered to the server, by the class of the channels that it brings for that.
    """

    # An idle connection should take little memory: what is seldom needed is made when it is.
    __slots__ = (
        "_announcement",
        "_called",
        "_engine",
        "_late",
        "_line",
        "_questions",
        "_rekeyed",
        "_replies",
        "_routes",
        "_unasked",
        "announced",
        "asked",
        "channels",
        "conn",
        "ended",
        "face",
        "invitations",
        "limits",
        "lost",
        "offers",
        "on_event",
        "opened",
        "wire",
    )

    def __init__(self, conn: C, on_event: Callable[[Event], None] | None = None) -> None:
        self.conn = conn
        self.face: Any = None
        self.limits = conn._engine.config.limits
        self.channels: dict[int, Channel] = {}
        self.lost: ConnectionLoss | None = None
        self.ended = Wait()
        self.opened = Wait()
        self.asked = Wait()
        self._rekeyed: Wait | None = None
        self.invitations: tuple[Invitation, ...] = ()
        self.offers: Mapping[type, Offer] = _NO_OFFERS
        self.announced: tuple[bytes, ...] | None = None
        self._announcement: Wait | None = None
        self.on_event = on_event
        self._questions: list[Question] | None = None
        self._unasked = 0
        self._replies: dict[int, Reply] | None = None
        self._late: list[Callable[[], None]] | None = None
        # Those that want to send and have not been called yet; before them, those that have, but others were faster.
        self._line: tuple[deque[Writers], deque[Writers]] | None = None
        self._called = 0  # those that have, and have not had their turn yet
        self._routes = _ROUTES[conn.role]
        self._engine = engine = conn._engine
        self.wire: Connection[Any] | Engine[Any] = engine if engine.config.record is None else conn

    @property
    def rekeyed(self) -> Wait:
        if self._rekeyed is None:
            self._rekeyed = Wait()
        return self._rekeyed

    @property
    def announcement(self) -> Wait:
        if self._announcement is None:
            self._announcement = Wait()
        return self._announcement

    # ---------------------------------------------------------------------------------------------------- for the faces

    @property
    def behind(self) -> bool:
        """Whether :meth:`drain` may find events."""
        return bool(self._engine.events) or not self._engine.idle

    def drain(self) -> None:
        """Hand out all events.

        To be called after every input, every step of an operation, and ``data_to_send``, which may make room for more.
        """
        engine = self._engine
        while not engine.idle or engine.events:
            event = self.wire.next_event()
            if event is None:
                break
            try:
                if self.on_event is not None:
                    self.on_event(event)
            finally:  # who only looks may fail; it has happened all the same
                take = _OF_CHANNELS.get(type(event))
                if take is not None:
                    try:
                        channel = self.channels[event.channel]  # type: ignore[attr-defined]  # which all of these have
                    except KeyError:
                        self._unclaimed(event)
                    else:
                        take(channel, event)
                elif (take := self._routes.get(type(event))) is not None:
                    take(self, event)
                elif isinstance(event, Question):
                    self.refuse(event)
        if self._line is not None:
            self._call()

    # ------------------------------------------------------------------------------------------------------- operations

    def check(self) -> None:
        """See that the connection lives.

        Raises:
            ConnectionLoss: It does not.
        """
        if self.lost is not None:
            # A copy, since each raise leaves its traceback in the exception.
            raise copy.copy(self.lost) from self.lost.__cause__

    def command(self, command: Callable[[], T]) -> Operation[T]:
        """Give a command that may have to wait for the end of a key exchange.

        Raises:
            ConnectionLoss: The connection has ended.
            UsageError: What the command raises.
        """
        while True:
            self.check()
            try:
                return command()
            except LimitReached:
                if not self.conn.rekeying:
                    raise
            yield self.rekeyed

    def next_question(self) -> Operation[Question]:
        """The next question that the application has to answer.

        Raises:
            ConnectionLoss: There will be none, the connection has ended.
        """
        while (question := self.take_question()) is None:
            self.check()
            yield self.asked
        return question

    def owes(self, question: Question) -> bool:
        """Whether ``question`` waits for an answer."""
        owes: bool = self._engine.questions.owes(question)
        return owes

    def take_question(self) -> Question | None:
        """The next question that the application has to answer, or None if there is none now."""
        questions = self._questions
        if questions is None:
            return None
        question = questions.pop(0)
        if not questions:
            self._questions = None
        if self._unasked and type(question) is GlobalRequested:
            self._unasked -= unasked(question)
        return question

    def until_open(self) -> Operation[None]:
        """Wait until the login is complete."""
        while self.conn.phase is not Phase.OPEN:
            self.check()
            yield self.opened

    def until_ended(self) -> Operation[ConnectionLoss]:
        """Wait for the end of the connection, and say why it came."""
        while self.lost is None:
            yield self.ended
        return self.lost

    def rekey(self) -> Operation[None]:
        """Exchange keys (RFC 4253 section 9), and wait until that is done.

        Raises:
            ConnectionLoss: The connection ended before.
            WrongPhase: Nobody is logged in yet.
        """
        self.check()
        self.conn.rekey()
        while self.conn.rekeying:
            yield self.rekeyed
            self.check()

    def request(
        self, request: GlobalRequestData, on_success: Callable[[bytes], None] | None = None
    ) -> Operation[bytes]:
        """Ask something of the peer itself (RFC 4254 section 4).

        Args:
            request: What.
            on_success: Called with the reply's data as it comes, before any event that follows it.

        Returns:
            The reply's data.

        Raises:
            RequestRefused: The peer will not.
            ConnectionLoss: The connection has ended.
            UsageError: The request cannot be sent.
        """
        number = yield from self.command(lambda: self.conn.global_request(request))
        if self._replies is None:
            self._replies = {}
        reply = self._replies[number] = Reply(on_success)
        while reply.granted is None:  # an answer that nobody waits for any more is taken note of all the same
            yield reply.came
            if reply.granted is None:
                self.check()
        if not reply.granted:
            raise RequestRefused(f"the peer refused {request.type!r}")
        return reply.data

    def tell(self, request: GlobalRequestData) -> None:
        """Ask something of the peer whose answer nobody waits for: now, or as soon as a key exchange lets us."""
        try:
            self.conn.global_request(request)
        except LimitReached:
            self._later(lambda: self.tell(request))
        except UsageError:  # the connection has ended
            pass

    def open_channel(
        self, kind: ChannelOpenData, *, window: int | None = None, max_packet: int | None = None
    ) -> Operation[Channel]:
        """Open a channel (RFC 4254 section 5.1).

        Args:
            kind, window, max_packet: See ``Connection.open_channel``.

        Raises:
            OpenRefused: The peer will not.
            ConnectionLoss: The connection has ended.
            UsageError: It cannot be asked for.
        """
        try:
            number = self.conn.open_channel(kind, window=window, max_packet=max_packet)
        except LimitReached:
            again = partial(self.conn.open_channel, kind, window=window, max_packet=max_packet)
            number = yield from self.command(again)
        except UsageError:
            self.check()  # what has become of the connection is the better error
            raise
        channel = self.channels[number] = Channel(self, number, kind)
        try:
            while True:
                yield channel.changed
                if channel.opened:
                    return channel
                channel.check()
        except BaseException:
            channel.close()
            raise

    def reject_channel(self, question: ChannelOpenRequested, reason: int, description: str) -> None:
        """Do not let the peer have its channel, if it still wants it."""
        try:
            self.conn.reject_channel(question, reason, description)
        except LimitReached:
            self._later(lambda: self.reject_channel(question, reason, description))
        except InvalidArgument:  # these words cannot be sent
            self.refuse(question)
        except UsageError:  # it is decided on
            pass

    def accept_channel(self, question: ChannelOpenRequested) -> Operation[Channel]:
        """Let the peer have its channel.

        Raises:
            ChannelEnded: The peer does not want it any more.
            ConnectionLoss: The connection has ended.
        """
        try:
            return self._accept(question)
        except LimitReached:
            return (yield from self.command(partial(self._accept, question)))

    def _accept(self, question: ChannelOpenRequested) -> Channel:
        if not self._engine.questions.owes(question):
            self.check()
            raise ChannelEnded("the peer has given up the channel that it asked for")
        self.conn.accept_channel(question)
        channel = self.channels[question.channel] = Channel(self, question.channel, question.kind)
        channel.opened = True
        return channel

    def grant(self, question: ChannelRequested) -> None:
        """Grant a request, if it still waits for an answer."""
        try:
            self.conn.succeed(question)
        except LimitReached:
            self._later(lambda: self.grant(question))
        except UsageError:  # it was answered
            pass

    def refuse(self, question: Question) -> None:
        """Give a question its safe answer, if it still waits for one."""
        try:
            self.conn.refuse(question)
        except LimitReached:
            self._later(lambda: self.refuse(question))
        except UsageError:  # it was answered
            pass

    def close_channel(self, number: int) -> None:
        """Close a channel now, or as soon as a key exchange lets us. Nothing happens if it is closed."""
        try:
            self.conn.close_channel(number)
        except LimitReached:  # too much waits for the end of the key exchange
            self._later(lambda: self.close_channel(number))
        except UsageError:  # it is closing already, or the connection has ended
            pass

    # ---------------------------------------------------------------------------------------------------- for channels

    def stand_in_line(self, writers: Writers) -> None:
        """These want to send, and their channel has room."""
        if self._line is None:
            self._line = deque(), deque()
        self._line[not writers.missed].append(writers)

    def _call(self) -> None:
        """Call as many of those that wait to send as there may be room for: of a thousand, most would find none."""
        room = self.limits.output_high - self.conn.output_size
        for line in self._line or ():
            while line and self._called * _SHARE < room:
                writers = line.popleft()
                if writers.room.wanted:
                    self._called += 1
                    writers.called = True
                    writers.room.fire()
        if self._line is not None and not any(self._line):
            self._line = None

    def had_turn(self) -> None:
        """One that was called has sent something, or found no room, or does not want to any more."""
        self._called -= 1
        if self._line is not None:
            self._call()

    # ---------------------------------------------------------------------------------------------------------- routing

    def _unclaimed(self, event: Any) -> None:
        """An event of a channel that nobody has."""
        if type(event) is DataReceived:
            self.conn.credit(event.channel, len(event.data))
        elif type(event) is ChannelRequested:
            self.refuse(event)

    def _global_succeeded(self, event: GlobalSucceeded) -> None:
        reply = self._reply_to(event.request_id)
        if reply is not None:
            reply.settle(True, event.data)
        self._catch_up()

    def _global_failed(self, event: GlobalFailed) -> None:
        reply = self._reply_to(event.request_id)
        if reply is not None:
            reply.settle(False)
        self._catch_up()

    def _logged_in(self, event: Event) -> None:
        self.opened.fire()
        self.asked.fire()

    def _keys(self, event: KeysExchanged) -> None:
        self._catch_up()
        if self._rekeyed is not None:
            self._rekeyed.fire()

    def _reply_to(self, number: int) -> Reply | None:
        return None if self._replies is None else self._replies.pop(number, None)

    def _later(self, command: Callable[[], None]) -> None:
        """Do ``command`` when a key exchange lets us."""
        if self._late is None:
            self._late = []
        self._late.append(command)

    def _catch_up(self) -> None:
        if self._late is not None:
            late, self._late = self._late, None
            for command in late:
                command()

    def _ask(self, question: Question) -> None:
        if self._questions is None:
            self._questions = [question]
        else:
            self._questions.append(question)
        self.asked.fire()

    def _ask_of_us(self, question: GlobalRequested) -> None:
        """The client asks something of the server itself."""
        size = unasked(question)
        if size and self._unasked + size > UNASKED:
            self.refuse(question)  # as in Channel._asked: what wants no reply can be refused in silence
        else:
            self._unasked += size
            self._ask(question)

    def _told(self, question: GlobalRequested) -> None:
        """The server tells something, for what it asks of a client is refused."""
        if isinstance(question.request, HostKeysAnnounced):
            self.announced = question.request.keys
            if self._announcement is not None:
                self._announcement.fire()
        self.refuse(question)

    def _brought(self, question: ChannelOpenRequested) -> None:
        """The server brings a channel."""
        if not self._invited(question):
            self.refuse(question)

    def _invited(self, question: ChannelOpenRequested) -> bool:
        """Whether somebody takes a channel that the peer brings to a client."""
        match question.kind:
            case ForwardedTcpip(address=address, port=port):
                wanted: tuple[Any, ...] = ((address, port), *((other, port) for other in self._addresses(port)))
            case ForwardedStreamlocal(path=path):
                wanted = (path,)
            case _:
                offer = self.offers.get(type(question.kind))
                if offer is None:
                    return False
                offer.bring(question)
                return True
        for kind in wanted:
            for invitation in self.invitations:
                if invitation.kind == kind:
                    invitation.bring(question)
                    return True
        return False

    def _addresses(self, port: int) -> list[str]:
        """Addresses that we asked for with this port: servers may name the one they chose instead."""
        kinds = [one.kind for one in self.invitations]
        return [kind[0] for kind in kinds if isinstance(kind, tuple) and kind[1] == port and kind[0] in ANY_ADDRESS]

    def _lost(self, event: ConnectionLost) -> None:
        self.lost = event.error
        for channel in tuple(self.channels.values()):
            channel.cut_off()
        self.channels.clear()
        for reply in (self._replies or {}).values():
            reply.came.fire()
        self._replies = None
        self._questions = None  # nobody is to be bothered with them any more
        self._unasked = 0
        self._late = None
        for offer in (*self.invitations, *self.offers.values()):
            offer.came.fire()
        for wait in (self.asked, self.opened, self._rekeyed, self._announcement, self.ended):
            if wait is not None:
                wait.fire()

    _COMMON: ClassVar[dict[type[Event], Callable[[Any, Any], None]]] = {
        SignatureNeeded: _ask,
        GlobalSucceeded: _global_succeeded,
        GlobalFailed: _global_failed,
        KeysExchanged: _keys,
        ConnectionLost: _lost,
    }
    _ROUTES: ClassVar[dict[Role, dict[type[Event], Callable[[Any, Any], None]]]] = {
        Role.CLIENT: {
            **_COMMON,
            **dict.fromkeys((HostKeyOffered, CredentialNeeded, PromptsReceived, PasswordExpired), _ask),
            AuthSucceeded: _logged_in,
            GlobalRequested: _told,
            ChannelOpenRequested: _brought,
        },
        Role.SERVER: {
            **_COMMON,
            **dict.fromkeys((NoneAuth, PasswordAuth, KeyProbe, KeyAuth, InteractiveAuth, PromptsAnswered), _ask),
            Authenticated: _logged_in,
            GlobalRequested: _ask_of_us,
            ChannelOpenRequested: _ask,
        },
    }


_ROUTES = Hub._ROUTES  # what takes each event of the connection itself, by our role
