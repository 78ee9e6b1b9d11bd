"""What ``next_event()`` returns, in the order of the protocol.

Events are values: they hold no reference to the connection, compare by content, and their ``repr`` shows no secret.
A :class:`Question` is an event that the application owes an answer to; the answers are methods of the connection, and
``refuse(question)`` gives any question its safe answer, which is no.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import attrs

from sshproto.text import printable
from sshproto.values import Unpicklable, define, frozen

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelOpenData, ChannelRequestData, GlobalRequestData
    from sshproto.errors import ConnectionLoss
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.public import PublicKey
    from sshproto.keys.security_keys import Assertion
    from sshproto.transport.negotiation import Negotiated


class Event:
    """Base of all events."""

    __slots__ = ()


@frozen(kw_only=True)
class Question(Event):
    """An event that waits for an answer.

    Attributes:
        id: Its number within the connection; answers are matched by it.
    """

    id: int


class _Secretive(Unpicklable):
    """What secrets are in: never pickled, and its own copy."""

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


# ------------------------------------------------------------------------------------------------------------ transport


@frozen
class VersionReceived(Event):
    """The peer has identified itself (RFC 4253 section 4.2).

    Attributes:
        line: The identification as it came, without its line ending, printable.
        protocol: ``"2.0"``, or ``"1.99"``; anything else is followed by the end of the connection.
        software: What it says it is.
        comments: The rest of the line.
        preamble: The lines that a server sent before it, printable.
    """

    line: str
    protocol: str
    software: str
    comments: str = ""
    preamble: tuple[str, ...] = ()


@frozen(kw_only=True)
class HostKeyOffered(Question):
    """Is this the server's key? Its owner has already proved to hold it.

    Asked once: a later key exchange with the same key goes on by itself, one with another key ends the connection.
    Answer with ``accept_host_key`` or ``reject_host_key``. Until then no input is processed.

    Attributes:
        key: The key. It alone says nothing of a certificate: who knows the key need not look at that.
        algorithm: The signature algorithm or certificate algorithm that was negotiated.
        certificate: The certificate that came with the key, if one was asked for and the server has one. Its signature
            has been verified, and nothing else: see :meth:`Certificate.check
            <sshproto.keys.certificates.Certificate.check>` and :meth:`KnownHosts.lookup
            <sshproto.keys.known_hosts.KnownHosts.lookup>`.
    """

    key: PublicKey
    algorithm: str
    certificate: Certificate | None = None


@frozen(kw_only=True)
class SignatureNeeded(Question):
    """Sign this with a key that only the application can use (an agent, a token, a HSM).

    Answer with ``sign(question, signature)``, the signature in SSH form (RFC 4253 section 6.6), or ``decline_sign``.

    Attributes:
        key: Whose signature.
        algorithm: The signature algorithm to use.
        data: What to sign.
        purpose: ``"login"`` or ``"host key"``.
        certificate: The key's, if the login shows it; an agent may know the key by it. The signature is the key's, by
            ``algorithm``, all the same.
    """

    key: PublicKey
    algorithm: str
    data: bytes = attrs.field(repr=False)
    purpose: str
    certificate: Certificate | None = None


@frozen(kw_only=True)
class KeysExchanged(Event):
    """A key exchange is complete: both directions use the new keys.

    Attributes:
        negotiated: The algorithms.
        session_id: The exchange hash of the first key exchange.
        host_key: The server's key; of a certificate the one that is certified.
        first: False for a rekeying.
    """

    negotiated: Negotiated
    session_id: bytes
    host_key: PublicKey
    first: bool


@frozen
class ExtInfoReceived(Event):
    """Extensions of the peer (RFC 8308); those we know have already been obeyed.

    Attributes:
        extensions: Pairs of name and value, in the peer's order.
    """

    extensions: tuple[tuple[str, bytes], ...]


@frozen
class DebugReceived(Event):
    """SSH_MSG_DEBUG.

    Attributes:
        message: The peer's words, printable.
        always_display: Whether the peer wants them shown.
    """

    message: str
    always_display: bool


@frozen
class UnimplementedReceived(Event):
    """The peer does not know the message that we sent with this sequence number."""

    sequence_number: int


@frozen
class PongReceived(Event):
    """The answer to ``ping()``."""

    data: bytes


# ----------------------------------------------------------------------------------------------- authentication: client


@frozen(kw_only=True)
class CredentialNeeded(Question):
    """How shall we log in?

    Answer with one of ``auth_none``, ``auth_password``, ``auth_public_key``, ``auth_keyboard_interactive``, or
    ``give_up``.

    Attributes:
        methods: What the server would go on with; empty before the first attempt, when nobody knows.
        partial_success: True if the last attempt succeeded and another method is wanted on top.
        attempt: How many attempts were made before.
    """

    methods: tuple[str, ...] = ()
    partial_success: bool = False
    attempt: int = 0


@frozen
class BannerReceived(Event):
    """Text that the server wants shown before login (RFC 4252 section 5.4).

    Attributes:
        text: Its words, with control characters escaped; lines end with LF.
        raw: Its words as they came. Do not print them.
        language: A language tag, often empty.
    """

    text: str
    raw: str = attrs.field(repr=False)
    language: str = ""


@frozen
class AuthFailed(Event):
    """A login attempt did not log us in.

    Attributes:
        method: The method that was tried.
        methods: What the server would go on with.
        partial_success: True if the attempt itself was good but is not enough.
    """

    method: str
    methods: tuple[str, ...]
    partial_success: bool


@frozen(kw_only=True)
class Prompt:
    """One thing to ask the user for.

    Attributes:
        text: The prompt, printable.
        echo: Whether the answer may be seen while it is typed.
    """

    text: str
    echo: bool


@frozen(kw_only=True)
class PromptsReceived(Question):
    """The server asks (RFC 4256). Answer with ``answer_prompts``, one answer for each prompt, or ``give_up``.

    Attributes:
        name, instruction: What to show first, printable; often empty.
        prompts: May be empty; the answer is then empty too.
    """

    name: str
    instruction: str
    prompts: tuple[Prompt, ...]


@frozen(kw_only=True)
class PasswordExpired(Question):
    """The server wants a new password (RFC 4252 section 8). Answer with ``new_password`` or ``give_up``.

    Attributes:
        prompt: Its words, printable.
    """

    prompt: str


@frozen
class AuthSucceeded(Event):
    """We are logged in.

    Attributes:
        method: The method that did it.
        trivial: True if no proof of ours was accepted: the server let us in for nothing (CVE-2021-36368).
    """

    method: str
    trivial: bool


# ----------------------------------------------------------------------------------------------- authentication: server


@frozen(kw_only=True)
class AuthQuestion(Question):
    """May this user in? Answer with ``accept_auth`` or ``reject_auth``; until then no input is processed.

    Attributes:
        user: The name, at most 1024 bytes, without control characters.
    """

    user: str


@frozen(kw_only=True)
class NoneAuth(AuthQuestion):
    """The user offers nothing. Asked only with ``ServerConfig.ask_none``."""


@frozen(kw_only=True)
class PasswordAuth(_Secretive, AuthQuestion):
    """The user offers a password, and after ``change_password`` a replacement for it (RFC 4252 section 8).

    Answer ``change_password(question, prompt)`` to ask for a replacement.
    """

    password: str = attrs.field(repr=False)
    new_password: str | None = attrs.field(default=None, repr=False)


@frozen(kw_only=True)
class KeyProbe(AuthQuestion):
    """Would this key do? Answer with ``offer_key`` or ``reject_auth``. Nothing has been proved.

    Attributes:
        key: The key; of a certificate the one that is certified.
        algorithm: The algorithm's name as in the request: the signature algorithm, or the certificate algorithm.
        certificate: The user certificate that is shown for the key, or None. Its authority's signature has been
            verified, and nothing else: see :meth:`Certificate.check <sshproto.keys.certificates.Certificate.check>`.
    """

    key: PublicKey
    algorithm: str
    certificate: Certificate | None = None


@frozen(kw_only=True)
class KeyAuth(AuthQuestion):
    """The user has proved to hold this key: its signature has been verified.

    Attributes:
        key: The key; of a certificate the one that is certified, and that has signed.
        algorithm: The algorithm's name as in the request: the signature algorithm, or the certificate algorithm.
        assertion: Of a security key: whether it was touched, whether it knows by whom, and its counter. None of others.
            What ``ServerConfig.security_keys`` asks for has been checked.
        certificate: The user certificate that was shown for the key, or None. It is a certificate, and its key has
            signed; whether it is good is for :meth:`Certificate.check <sshproto.keys.certificates.Certificate.check>`.
    """

    key: PublicKey
    algorithm: str
    assertion: Assertion | None = None
    certificate: Certificate | None = None


@frozen(kw_only=True)
class InteractiveAuth(AuthQuestion):
    """The user wants to be asked (RFC 4256). Answer with ``prompt``, ``accept_auth`` or ``reject_auth``.

    Attributes:
        submethods: Hints of the client, often empty.
    """

    submethods: str = ""


@frozen(kw_only=True)
class PromptsAnswered(_Secretive, AuthQuestion):
    """The user's answers to ``prompt``. Answer with ``prompt`` again, ``accept_auth`` or ``reject_auth``."""

    answers: tuple[str, ...] = attrs.field(repr=False)


@frozen(kw_only=True)
class Authenticated(Event):
    """A user has logged in.

    Attributes:
        user: Who.
        method: With what.
        key: The key that signed, for ``"publickey"``.
        certificate: The certificate that it was shown by, if it was.
    """

    user: str
    method: str
    key: PublicKey | None = None
    certificate: Certificate | None = None


# ----------------------------------------------------------------------------------------------------------- connection


@frozen(kw_only=True)
class GlobalRequested(Question):
    """A request about the connection as a whole. Answer with ``succeed`` or ``fail``.

    Attributes:
        request: What is asked, see :mod:`sshproto.channels.requests`.
        want_reply: False if the peer wants no answer; then none is owed, and an answer sends nothing.
    """

    request: GlobalRequestData
    want_reply: bool


@frozen
class GlobalSucceeded(Event):
    """The peer granted our global request.

    Attributes:
        request_id: What ``global_request`` returned.
        data: What the reply carried (the port, for a ``tcpip-forward`` of port 0).
    """

    request_id: int
    data: bytes = b""


@frozen
class GlobalFailed(Event):
    """The peer refused our global request, or does not know it."""

    request_id: int


@frozen(kw_only=True)
class ChannelOpenRequested(Question):
    """The peer wants a channel. Answer with ``accept_channel`` or ``reject_channel``.

    Attributes:
        channel: The number it will have.
        kind: What for, see :mod:`sshproto.channels.requests`.
    """

    channel: int
    kind: ChannelOpenData


@frozen
class ChannelOpened(Event):
    """The peer accepted our channel.

    Attributes:
        channel: What ``open_channel`` returned.
        data: Whatever the confirmation carried beyond the standard's fields.
    """

    channel: int
    data: bytes = b""


@frozen
class ChannelOpenFailed(Event):
    """The peer refused our channel; the number is gone.

    Attributes:
        channel: What ``open_channel`` returned.
        reason: The reason code (RFC 4254 section 5.1), see :class:`~sshproto.channels.requests.OpenFailure`.
        description: The peer's words, printable.
    """

    channel: int
    reason: int
    description: str


@define
class DataReceived(Event):
    """Data on a channel. Not frozen, for speed's sake; treat it as a value.

    Give its room back with ``credit(channel, len(data))`` when the data has been used or thrown away.

    Attributes:
        channel: The channel's number.
        data: At least one byte.
        stream: 0 for data, 1 for standard error (SSH_EXTENDED_DATA_STDERR).
    """

    channel: int
    data: bytes
    stream: int = 0


@frozen
class ChannelWritable(Event):
    """There is room again, after a ``send`` that did not take everything."""

    channel: int


@frozen
class EofReceived(Event):
    """The peer will send no more data on this channel. We still may."""

    channel: int


@frozen
class ChannelClosed(Event):
    """Both sides have closed the channel; nothing more will happen on it."""

    channel: int


@frozen(kw_only=True)
class ChannelRequested(Question):
    """A request on a channel. Answer with ``succeed`` or ``fail``.

    Attributes:
        channel: The channel's number.
        request: What is asked, see :mod:`sshproto.channels.requests`.
        want_reply: False if the peer wants no answer; then none is owed, and an answer sends nothing.
    """

    channel: int
    request: ChannelRequestData
    want_reply: bool


@frozen
class ChannelNotified(Event):
    """The peer tells something about a channel that needs no answer: window-change, signal, xon-xoff, exit-status,
    exit-signal, eow@openssh.com.

    Attributes:
        channel: The channel's number.
        notice: What, see :mod:`sshproto.channels.requests`.
    """

    channel: int
    notice: ChannelRequestData


@frozen
class RequestSucceeded(Event):
    """The peer granted our channel request.

    Attributes:
        channel: The channel's number.
        request_id: What ``request`` returned.
    """

    channel: int
    request_id: int


@frozen
class RequestFailed(Event):
    """The peer refused our channel request, or does not know it."""

    channel: int
    request_id: int


# ------------------------------------------------------------------------------------------------------------------ end


@frozen(eq=False)
class ConnectionLost(Event):
    """The end. Exactly one, always the last event.

    Attributes:
        error: Why.
    """

    error: ConnectionLoss

    @property
    def reason(self) -> str:
        """Why, in words that are safe to show."""
        return str(self.error)


def show(event: Event) -> str:
    """``event`` on one line for people: the peer's words made printable, no secret, bytes by their number."""
    parts: list[str] = []
    for field in attrs.fields(cast(Any, type(event))):  # the base alone is no attrs class
        if not field.repr:
            continue
        value = getattr(event, field.name)
        if field.name == "session_id":
            value = value.hex()[:16] + "…"
        elif isinstance(value, bytes):
            value = f"<{len(value)} bytes>"  # what was typed, maybe
        elif isinstance(value, str):
            value = printable(value)
        parts.append(f"{field.name}={value}")
    return f"{type(event).__name__} {' '.join(parts)}".rstrip()
