"""Requests about the connection as a whole, both ways (RFC 4254 section 4; OpenSSH PROTOCOL section 2).

Replies carry no number: the oldest request that wanted one is the one that is answered.  So requests of ours are kept
in order, and replies of ours leave in order, whatever the order in which the application decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.channels.channel import Replies, Reply, decide
from sshproto.channels.forwarding import Invitations, without
from sshproto.channels.requests import (
    CancelStreamlocalForward,
    CancelTcpipForward,
    GlobalRequestData,
    HostKeysAnnounced,
    HostKeysProve,
    Keepalive,
    NoMoreSessions,
    StreamlocalForward,
    TcpipForward,
    UnknownGlobal,
    decode_global,
)
from sshproto.config import Config
from sshproto.errors import InvalidArgument, LimitExceeded, LimitReached, ProtocolViolation, WireError
from sshproto.events import GlobalFailed, GlobalRequested, GlobalSucceeded
from sshproto.wire.codec import is_name
from sshproto.wire.messages import GlobalRequest, RequestFailure, RequestSuccess
from sshproto.wire.table import Role

if TYPE_CHECKING:
    from sshproto.outlet import Outlet

_Listener = tuple[str, int] | str


class GlobalRequests:
    """Global requests of both sides.

    Attributes:
        no_more_sessions: The client has said so (OpenSSH PROTOCOL section 2.2).
        unsolicited: Replies that came though none was due, global and on channels.
    """

    __slots__ = (
        "_config",
        "_forwards_asked",
        "_invitations",
        "_listeners",
        "_next",
        "_outlet",
        "_owed",
        "_requested",
        "_role",
        "_silent",
        "no_more_sessions",
        "unsolicited",
    )

    def __init__(self, role: Role, config: Config, outlet: Outlet, invitations: Invitations) -> None:
        self._role = role
        self._config = config
        self._outlet = outlet
        self._invitations = invitations
        self._owed: Replies = ()
        # Few connections have any of these: tuples, since the empty one takes no memory.
        self._requested: tuple[tuple[int, GlobalRequestData], ...] = ()
        self._forwards_asked = 0
        self._listeners: tuple[_Listener, ...] = ()
        self._silent: tuple[tuple[int, _Listener], ...] = ()  # asked for without a reply, by question
        self._next = 1
        self.no_more_sessions = False
        self.unsolicited = 0

    @property
    def awaits_reply(self) -> bool:
        """Whether the peer owes a reply."""
        return bool(self._requested)

    @property
    def forwards(self) -> int:
        """Listeners that the peer has asked for, and that were not refused or cancelled."""
        return self._forwards_asked + len(self._listeners) + len(self._silent)

    # --------------------------------------------------------------------------------------------------------- commands

    def request(self, request: GlobalRequestData, *, want_reply: bool) -> int:
        """See :meth:`Mux.global_request <sshproto.channels.mux.Mux.global_request>`."""
        if not isinstance(request, GlobalRequestData):
            raise InvalidArgument(f"{request!r} is not a global request")
        if self._role.peer not in request.receivers:
            raise InvalidArgument(f"a {self._role.value} does not send {request.type!r}")
        if isinstance(request, TcpipForward) and not (request.port or want_reply):
            raise InvalidArgument("a forward of port 0 wants a reply: only that tells the port (RFC 4254 section 7.1)")
        if want_reply and len(self._requested) >= self._config.limits.requests_pending:
            raise LimitReached(f"{len(self._requested)} global requests wait for a reply (Limits.requests_pending)")
        number = self._next
        self._outlet.send(GlobalRequest(request.type, want_reply, request.encode()), number if want_reply else None)
        self._next = number + 1
        self._invitations.asked(request)
        if want_reply:
            self._requested += ((number, request),)
        else:
            self._invitations.answered(request, granted=True)
        return number

    def check_reply(self, request: GlobalRequestData, data: bytes) -> None:
        """Raise InvalidArgument if ``data`` cannot be the reply to ``request`` (RFC 4254 section 7.1)."""
        if not isinstance(data, bytes):
            raise InvalidArgument(f"the data of a reply must be bytes, not {type(data).__name__}")
        if isinstance(request, (HostKeysProve, UnknownGlobal)):
            return
        length = 4 if isinstance(request, TcpipForward) and request.port == 0 else 0
        if len(data) != length or (length and not 0 < int.from_bytes(data, "big") <= 65535):
            what = "the port that was chosen, as a uint32" if length else "no data"
            raise InvalidArgument(f"the reply to {request.type!r} carries {what}, not {data!r}")

    def answer(self, question: GlobalRequested, granted: bool, data: bytes = b"") -> bool:
        """Decide on a reply. True if replies wait because the outlet takes no more."""
        if decide(self._owed, question.id, granted, data):
            self._count(question.request, granted, data)
        elif not granted:
            self._silent = tuple(one for one in self._silent if one[0] != question.id)
        return self.flush()

    def _count(self, request: GlobalRequestData, granted: bool, data: bytes = b"") -> None:
        """``request`` of the peer is decided on: take note of a listener that there is, or is no more."""
        match request:
            case TcpipForward() | StreamlocalForward():
                self._forwards_asked -= 1
                if granted:
                    self._listeners += (_listener(request, int.from_bytes(data, "big")),)
            case CancelTcpipForward() | CancelStreamlocalForward() if granted:
                listener = _listener(request)
                if listener in self._listeners:
                    self._listeners = without(self._listeners, listener)
                else:
                    silent = (one for one in self._silent if one[1] == listener)
                    self._silent = without(self._silent, next(silent, (0, "")))
            case _:
                pass

    def _assume(self, question: GlobalRequested) -> None:
        """What wants no reply is taken as granted, as long as the application does not say no.

        OpenSSH's clients cancel forwards in this way.
        """
        request = question.request
        if isinstance(request, (TcpipForward, StreamlocalForward)):
            self._forwards_asked -= 1
            self._silent += ((question.id, _listener(request)),)
        else:
            self._count(request, granted=True)

    def flush(self) -> bool:
        """Send the replies whose turn it is. True if some must wait because the outlet takes no more."""
        while self._owed and (reply := self._owed[0]).granted is not None:
            try:
                self._outlet.send(RequestSuccess(reply.data) if reply.granted else RequestFailure())
            except LimitReached:
                return True
            self._owed = self._owed[1:]
        return False

    def unimplemented(self, number: int) -> None:
        """The peer does not know GLOBAL_REQUEST: request ``number`` has failed."""
        for entry in self._requested:
            if entry[0] == number:
                self._requested = without(self._requested, entry)
                self._invitations.answered(entry[1], granted=False)
                self._outlet.emit(GlobalFailed(number))
                return

    def lost(self) -> None:
        """The connection has ended."""
        self._owed = ()
        self._requested = ()

    # ------------------------------------------------------------------------------------------------------------ input

    def requested(self, message: GlobalRequest) -> None:
        """GLOBAL_REQUEST came.

        Raises:
            LimitExceeded: Too many are undecided.
        """
        want_reply = message.want_reply
        if want_reply and len(self._owed) >= self._config.limits.requests_pending:
            raise LimitExceeded(
                f"{len(self._owed)} global requests are unanswered (Limits.requests_pending)",
                "requests_pending",
            )
        granted, request = self._judge(message)
        if granted is None and request is not None:
            number = self._outlet.questions.new_id()
            question = GlobalRequested(id=number, request=request, want_reply=want_reply)
            if want_reply:
                self._owed += (Reply(number, None),)
                self._outlet.ask(question, size=len(message.payload))
            else:
                self._assume(question)
                self._outlet.emit(question)
        elif want_reply:
            self._owed += (Reply(None, bool(granted)),)
            if self.flush():
                raise LimitExceeded("too many replies wait for the end of a key exchange", "deferred_packets")

    def _judge(self, message: GlobalRequest) -> tuple[bool | None, GlobalRequestData | None]:
        """The answer, None if it is the application's; and the request."""
        try:
            request = decode_global(message)
        except WireError:
            return False, None
        limits = self._config.limits
        if not is_name(request.type) or self._role not in request.receivers:
            return False, request
        if message.want_reply and self._outlet.questions.size + len(message.payload) > limits.undecided_bytes:
            return False, request
        match request:
            case Keepalive():
                return False, request  # what OpenSSH answers; any reply will do
            case NoMoreSessions():
                self.no_more_sessions = True
                return True, request
            case TcpipForward() | CancelTcpipForward() if _size(request.address) > limits.host_name:
                return False, request
            case TcpipForward(port=0) if not message.want_reply:
                return False, request  # the client could not learn the port, and its cancel would name none
            case TcpipForward() | StreamlocalForward():
                if self.forwards >= limits.forwards:
                    return False, request
                self._forwards_asked += 1
            case HostKeysAnnounced() | HostKeysProve():
                if len(request.keys) > limits.host_keys_announced:
                    return False, request
            case _:
                pass
        return None, request

    def replied(self, granted: bool, data: bytes) -> None:
        """REQUEST_SUCCESS or REQUEST_FAILURE came.

        Raises:
            ProtocolViolation: The reply to a ``tcpip-forward`` is not a port (RFC 4254 section 7.1).
            LimitExceeded: Too many replies that nothing was asked for.
        """
        if not self._requested:
            self.count_unsolicited()
            return
        number, request = self._requested[0]
        port = 0
        if granted and isinstance(request, TcpipForward):
            # Some servers tell the port even where it was given. Bytes that are no port are a fault in any case.
            port = int.from_bytes(data, "big")
            if len(data) != 4 and (data or request.port == 0):
                raise ProtocolViolation(f"the reply to 'tcpip-forward' has {len(data)} bytes, expected a uint32 port")
            if request.port == 0 and not 0 < port <= 65535:
                raise ProtocolViolation(f"the reply to 'tcpip-forward' says port {port}, which is no port")
        self._requested = self._requested[1:]
        self._invitations.answered(request, granted, port)
        self._outlet.emit(GlobalSucceeded(number, data) if granted else GlobalFailed(number))

    def count_unsolicited(self) -> None:
        """A reply came that nothing was asked for.

        Raises:
            LimitExceeded: One too many.
        """
        self.unsolicited += 1
        if self.unsolicited > self._config.limits.unsolicited_replies:
            raise LimitExceeded(
                f"{self.unsolicited} replies to requests that were never made (Limits.unsolicited_replies)",
                "unsolicited_replies",
            )


def _listener(
    request: TcpipForward | CancelTcpipForward | StreamlocalForward | CancelStreamlocalForward, chosen: int = 0
) -> _Listener:
    """What ``request`` is about; ``chosen`` is the port if it left that open."""
    if isinstance(request, (TcpipForward, CancelTcpipForward)):
        return request.address, request.port or chosen
    return request.path


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
