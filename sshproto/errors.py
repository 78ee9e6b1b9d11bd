"""What can go wrong, in four families that never mix.

* :class:`UsageError`: the application's mistake.  *Raised* by the call that made it, which then changed nothing.
* :class:`ConnectionLoss`: why a connection ended.  *Carried* by the last event, ``ConnectionLost.error``; the core
  never raises one out of an input or an output.  Adapters may raise them to their callers.
* :class:`WireError`, :class:`KeyFormatError` and :class:`SignatureInvalid`: bytes that do not decode, or do not verify.
  Raised by codecs, key parsers and keys when an application calls them itself; inside a connection they become a loss,
  or a failed login.
* :class:`Refusal` and :class:`ChannelEnded`: the peer said no, or has closed a channel, and the connection goes on.
  Raised by operations and the faces that run them.

Messages say what came, what was expected and where.  Words that a peer chose are made printable first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, ParamSpec, TypeVar

from sshproto.text import printable

P = ParamSpec("P")
T = TypeVar("T")


class DisconnectCode(IntEnum):
    """Reason codes of SSH_MSG_DISCONNECT (RFC 4253 section 11.1). On the wire any other number may come, too."""

    HOST_NOT_ALLOWED_TO_CONNECT = 1
    PROTOCOL_ERROR = 2
    KEY_EXCHANGE_FAILED = 3
    RESERVED = 4
    MAC_ERROR = 5
    COMPRESSION_ERROR = 6
    SERVICE_NOT_AVAILABLE = 7
    PROTOCOL_VERSION_NOT_SUPPORTED = 8
    HOST_KEY_NOT_VERIFIABLE = 9
    CONNECTION_LOST = 10
    BY_APPLICATION = 11
    TOO_MANY_CONNECTIONS = 12
    AUTH_CANCELLED_BY_USER = 13
    NO_MORE_AUTH_METHODS_AVAILABLE = 14
    ILLEGAL_USER_NAME = 15


class SSHError(Exception):
    """Base of everything that sshproto raises or carries. Copies and pickles whole."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[SSHError], args: tuple[Any, ...], state: dict[str, Any]) -> SSHError:
    """An error as it was, past its ``__init__``, whose arguments are not those of :class:`Exception`."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def forget_frames(error: BaseException) -> None:
    """Take from ``error``, and from what caused it, the frames that it came through.

    Frames keep their variables: whole payloads, passwords, keys.  Who logs exceptions with all that belongs to them, as
    error reporting services do, must not log those.
    """
    shown: BaseException | None = error
    while shown is not None:
        shown.__traceback__ = None
        shown.__context__ = None
        shown = shown.__cause__


def is_panic(error: BaseException) -> bool:
    """Whether ``error`` is how PyO3 tells that Rust code, the crypto backend's, has given up.

    It is no :class:`Exception`, but as much a fault of the code below as one of those.  All else that is no
    :class:`Exception` (Ctrl-C, the end of the program, a cancellation) is none of ours and must pass.
    """
    return type(error).__module__ == "pyo3_runtime"


def discreet(call: Callable[P, T]) -> Callable[P, T]:
    """For calls that are given secrets: an :class:`SSHError` leaves them without the frames in which those are.

    The frames of the caller, which had the secrets first, are the caller's.
    """

    @functools.wraps(call)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except SSHError as error:
            failure = error
        del args, kwargs
        forget_frames(failure)
        try:
            raise failure
        finally:
            del failure

    return called


# ------------------------------------------------------------------------------------------------------- misuse: raised


class UsageError(SSHError):
    """The application asked for something that cannot be; the connection is as it was before the call."""


class WrongPhase(UsageError):
    """The command does not fit the phase that the connection is in."""


class UnknownChannel(UsageError):
    """There never was a channel of that number, or it has closed for good."""


class ChannelStateError(UsageError):
    """The channel exists, but its state forbids the command (data after EOF, a second close, ...)."""


class AlreadyAnswered(UsageError):
    """The question was answered before, or is not one of this connection's."""


class InvalidArgument(UsageError, ValueError):
    """A value that the protocol cannot carry or that the configuration does not know."""


class LimitReached(UsageError):
    """One of our own :class:`~sshproto.config.Limits` stands in the way (too many channels, requests, ...)."""


# -------------------------------------------------------------------------------------------------- undecodable: raised


class WireError(SSHError, ValueError):
    """Bytes that are not what they should be.

    Attributes:
        where: The message or structure being decoded.
        field: The field of it, or ``""``.
        offset: Where in the payload the field starts, in bytes.
        problem: What is wrong.
    """

    def __init__(self, where: str, field: str, offset: int, problem: str) -> None:
        super().__init__(f"{where}{'.' if field else ''}{field} at offset {offset}: {problem}")
        self.where = where
        self.field = field
        self.offset = offset
        self.problem = problem


class KeyFormatError(SSHError, ValueError):
    """A key, certificate or signature that cannot be read, or that is too weak or malformed to be used."""


class SignatureInvalid(SSHError):
    """A signature does not verify, for whatever reason."""


# ------------------------------------------------------------------------------- a channel's ends: raised by operations


class Refusal(SSHError):
    """The peer refused something."""


class OpenRefused(Refusal):
    """The peer refused a channel.

    Attributes:
        reason: The reason code (RFC 4254 section 5.1).
        description: The peer's words, printable; may be empty.
    """

    def __init__(self, what: str, reason: int, description: str) -> None:
        super().__init__(f"the peer refused {what} (code {reason}): {description or 'no reason given'}")
        self.reason = reason
        self.description = description


class RequestRefused(Refusal):
    """The peer refused a request, or does not know it."""


class ChannelEnded(SSHError):
    """The channel is closed: there is nobody to write to, or to ask."""


# -------------------------------------------------------------------------------------- why a connection ended: carried


class ConnectionLoss(SSHError):
    """Why a connection ended.

    Attributes:
        code: The disconnect code (RFC 4253 section 11.1) that was sent or received; None if no DISCONNECT was due.
    """

    code: int | None = DisconnectCode.PROTOCOL_ERROR


class ProtocolViolation(ConnectionLoss):
    """The peer broke a rule of the protocol."""

    def __init__(self, problem: str, code: int = DisconnectCode.PROTOCOL_ERROR) -> None:
        super().__init__(problem)
        self.code = code


class VersionUnsupported(ConnectionLoss):
    """The peer does not speak SSH-2, or does not speak SSH.

    Attributes:
        received: The line that came, printable; ``""`` if none did.
    """

    code = DisconnectCode.PROTOCOL_VERSION_NOT_SUPPORTED

    def __init__(self, problem: str, received: str = "") -> None:
        super().__init__(problem)
        self.received = received


class Incompatible(ConnectionLoss):
    """No algorithm of some kind is common to both sides (RFC 4253 section 7.1).

    Attributes:
        category: The kind: ``"kex"``, ``"host key"``, ``"cipher client to server"`` and so on.
        ours: What this side offered, in order.
        theirs: What the peer offered, in order.
    """

    code = DisconnectCode.KEY_EXCHANGE_FAILED

    def __init__(self, category: str, ours: Iterable[str], theirs: Iterable[str]) -> None:
        self.category = category
        self.ours = tuple(ours)
        self.theirs = tuple(theirs)
        mine, other = ", ".join(self.ours) or "nothing", printable(", ".join(self.theirs), 1024) or "nothing"
        super().__init__(f"no common {category} algorithm: we offer {mine}; the peer offers {other}")


class KeyExchangeFailed(ConnectionLoss):
    """The peer's part of a key exchange is wrong: a bad public value, group, host key or signature."""

    code = DisconnectCode.KEY_EXCHANGE_FAILED


class HostKeySignatureInvalid(KeyExchangeFailed):
    """The server could not prove that it holds its host key."""


class HostKeyRejected(ConnectionLoss):
    """The application did not accept the server's host key."""

    code = DisconnectCode.HOST_KEY_NOT_VERIFIABLE


class HostKeyUnknown(HostKeyRejected):
    """Nothing is known about this host's key."""


class HostKeyChanged(HostKeyRejected):
    """Another key of this type is known for the host: somebody may be listening in, or it was set up anew."""


class HostKeyRevoked(HostKeyRejected):
    """The key is marked as revoked."""


class MacError(ConnectionLoss):
    """A packet failed its integrity check, or its encrypted length is impossible."""

    code = DisconnectCode.MAC_ERROR


class CompressionError(ConnectionLoss):
    """A compressed payload does not inflate, or inflates past the limit."""

    code = DisconnectCode.COMPRESSION_ERROR


class ServiceRefused(ConnectionLoss):
    """A service other than those that exist was asked for (RFC 4253 section 10)."""

    code = DisconnectCode.SERVICE_NOT_AVAILABLE


class AuthExhausted(ConnectionLoss):
    """Login failed for good: no credentials or no attempts are left.

    Attributes:
        methods: The methods with which the server would still go on.
        tried: The methods that were tried, in order.
    """

    code = DisconnectCode.NO_MORE_AUTH_METHODS_AVAILABLE

    def __init__(self, problem: str, methods: Iterable[str] = (), tried: Iterable[str] = ()) -> None:
        super().__init__(problem)
        self.methods = tuple(methods)
        self.tried = tuple(tried)


_CODES = {int(member): member.name for member in DisconnectCode}


class PeerDisconnected(ConnectionLoss):
    """The peer sent SSH_MSG_DISCONNECT.

    Attributes:
        code: The peer's reason code; numbers outside :class:`DisconnectCode` are kept.
        description: The peer's words, printable.
    """

    def __init__(self, code: int, description: str) -> None:
        self.code = code
        self.description = printable(description)
        super().__init__(f"the peer disconnected: {_CODES.get(code, 'code')} ({code}): {self.description}")


class UnexpectedEof(ConnectionLoss):
    """The transport ended without SSH_MSG_DISCONNECT.

    Attributes:
        where: In the midst of what: ``"identification"``, ``"packet"``, ``"key exchange"``, ``"authentication"``
            or ``"connection"``.
    """

    code = None

    def __init__(self, problem: str, where: str) -> None:
        super().__init__(problem)
        self.where = where


class ClosedEarly(UnexpectedEof):
    """The transport ended before the peer had identified itself: it is too busy, does not want us, or is no SSH."""


class TimedOut(ConnectionLoss):
    """A deadline of :class:`~sshproto.config.Timeouts` passed.

    Attributes:
        timer: Which: the value of a :class:`~sshproto.timers.Timer`: ``"handshake"``, ``"authentication"``,
            ``"key exchange"`` or ``"keepalive"``.
    """

    code = DisconnectCode.BY_APPLICATION

    def __init__(self, problem: str, timer: str) -> None:
        super().__init__(problem)
        self.timer = timer


class LimitExceeded(ConnectionLoss):
    """The peer went past one of our :class:`~sshproto.config.Limits`.

    Attributes:
        limit: The name of the limit.
    """

    def __init__(self, problem: str, limit: str, code: int = DisconnectCode.PROTOCOL_ERROR) -> None:
        super().__init__(problem)
        self.limit = limit
        self.code = code


class LocalClose(ConnectionLoss):
    """This side ended the connection on purpose."""

    def __init__(self, description: str, code: int | None = DisconnectCode.BY_APPLICATION) -> None:
        super().__init__(f"closed by this side{': ' if description else ''}{description}")
        self.code = code


class InternalError(ConnectionLoss):
    """A bug in sshproto; the exception that shows it is chained. The connection was closed.

    Attributes:
        details: Where it happened: a traceback as text, without the values of variables, which may be secret.
    """

    code = DisconnectCode.BY_APPLICATION

    def __init__(self, problem: str, details: str = "") -> None:
        super().__init__(problem)
        self.details = details
