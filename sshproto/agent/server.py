"""One connection to an agent: requests in, replies out (RFC 9987; OpenSSH's PROTOCOL.agent).

The rule is that of :class:`sshproto.connection.Connection`: after any input or answer drain ``next_event``, send all
that ``data_to_send`` has, and arm ``next_deadline``.  Whatever the peer sends, nothing is raised: what is malformed is
refused, and what can't be read any further ends the connection.

One request is dealt with at a time, and none while a reply waits that nobody takes, so what a peer can make us keep is
bounded by two messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import attrs

from sshproto.agent import messages as m
from sshproto.agent import replies as r
from sshproto.agent.bindings import Binding, Bindings, NotPermitted
from sshproto.agent.framing import MAXIMUM_MESSAGE, AgentMessageError, Framer, frame
from sshproto.agent.keyring import HeldKey, Keyring
from sshproto.agent.signing import SignPurpose, fits, parse_login, purpose_of
from sshproto.errors import AlreadyAnswered, InvalidArgument, LimitReached, SignatureInvalid, WireError
from sshproto.keys.public import fingerprint_of
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Buffer, byte, text

EXTENSIONS = (m.QUERY, m.SESSION_BIND)
"""The extensions that are known."""

_EVENTS = 64  # the newest that nobody has taken
_BACKLOG = 64 * 1024  # bytes of replies beyond which no request is dealt with


@frozen
class ConfirmNeeded:
    """A key is to be used that was added so that somebody is asked. Answer with ``AgentServer.confirm``.

    Attributes:
        id: Its number, in this connection.
        key: Which.
        purpose: What for, as far as what is to be signed says it.
        path: The servers that the request comes through, and at its end the one that it is for, as far as is known.
    """

    id: int
    key: r.Identity
    purpose: SignPurpose
    path: tuple[Binding, ...] = ()

    def __str__(self) -> str:
        """A question for a person."""
        where = ""
        hops = [binding for binding in self.path if binding.forwarding]
        if len(hops) < len(self.path):
            where += f" at the server with the key {self.path[-1].key.fingerprint()}"
        if hops:
            where += f", asked for from the server with the key {hops[-1].key.fingerprint()}"
        return (
            f"Allow use of the key {printable(self.key.comment) or self.key.type}, {self.key.fingerprint()}, "
            f"for {self.purpose}{where}?"
        )


@frozen
class KeyUsed:
    """Something was signed.

    Attributes:
        key: With which.
        algorithm: As what.
        purpose: What for, as far as it says.
    """

    key: r.Identity
    algorithm: str
    purpose: SignPurpose


@frozen
class RequestRefused:
    """Something was refused.

    Attributes:
        request: What RFC 9987 calls it.
        why: The reason, which the protocol has no place for.
    """

    request: str
    why: str


AgentEvent = ConfirmNeeded | KeyUsed | RequestRefused


class _Refused(Exception):
    """A request is refused; why is its text."""


@frozen
class _Asked:
    """What waits for somebody's confirmation."""

    question: ConfirmNeeded
    held: HeldKey
    algorithm: str
    data: bytes = attrs.field(repr=False)


class AgentServer:
    """One connection to an agent.

    Args:
        keyring: What it holds; other connections may share it.
        now: Seconds since 1970.

    Attributes:
        keyring: What it holds.
        error: Why the connection has to end; None while it does not, or if the peer has gone.
    """

    def __init__(self, keyring: Keyring, now: float) -> None:
        self.keyring = keyring
        self.error: AgentMessageError | None = None
        self._now = now
        self._framer = Framer("request")
        self._output = bytearray()
        self._events: deque[KeyUsed | RequestRefused] = deque(maxlen=_EVENTS)
        self._bindings = Bindings()
        self._asked: _Asked | None = None
        self._told = True  # of what is asked
        self._unlocking: m.Unlock | None = None  # and when it is looked at:
        self._until = 0.0
        self._ended = False
        self._count = 0

    def __repr__(self) -> str:
        state = "ended" if self._ended else "waits for confirmation" if self._asked else "open"
        return f"<AgentServer, {len(self._bindings.all)} bindings, {state}>"

    # ----------------------------------------------------------------------------------------------------------- inputs

    def receive_data(self, data: Buffer, now: float) -> None:
        """Bytes have come. Bring no more while :attr:`want_read` is False."""
        self._now = max(now, self._now)
        if not self._ended:
            self._framer.feed(data)
            self._go_on()

    def receive_eof(self, now: float) -> None:
        """The peer sends no more, which ends the connection, and what waits for confirmation with it."""
        self._now = max(now, self._now)
        self._end()

    def handle_timeout(self, now: float) -> None:
        """The time of :meth:`next_deadline` has come, or any other."""
        self._now = max(now, self._now)
        self.keyring.expire(self._now)
        self._go_on()

    def confirm(self, question: ConfirmNeeded, allowed: bool, now: float) -> None:
        """Somebody has decided. Anything but True refuses. What comes after the end does nothing.

        Raises:
            AlreadyAnswered: It was answered before, or is another connection's.
        """
        self._now = max(now, self._now)
        asked = self._asked
        if asked is None or asked.question is not question:
            if self._ended:
                return
            raise AlreadyAnswered("the question was answered before, or is another connection's")
        self._asked = None
        try:
            if allowed is not True:
                raise _Refused("it was not confirmed")
            if self.keyring.locked or self.keyring.find(asked.held.blob, self._now) is not asked.held:
                raise _Refused("the key is not there any more, or the agent was locked")
            self._reply(self._sign(asked.held, asked.algorithm, asked.data, question.purpose))
        except _Refused as refused:
            self._refuse(m.request_name(m.SignRequest.number), str(refused))
        self._go_on()

    # ---------------------------------------------------------------------------------------------------------- outputs

    def next_event(self) -> AgentEvent | None:
        """The next thing to know; None if there is none. Of those that nobody takes, the newest are kept."""
        if self._events:
            return self._events.popleft()
        if self._asked is not None and not self._told:
            self._told = True
            return self._asked.question
        return None

    def data_to_send(self) -> bytes:
        """What to send to the peer, ``b""`` for nothing. Taking it makes room for the next request, so ask again."""
        data = bytes(self._output)
        self._output.clear()
        if data:
            self._go_on()
        return data

    def next_deadline(self) -> float | None:
        """When to call :meth:`handle_timeout`, in seconds since 1970; None for never."""
        return self._until if self._unlocking is not None else None

    @property
    def want_read(self) -> bool:
        """Whether there is room for more of what the peer sends."""
        return not self._ended and self._asked is None and self._unlocking is None and not self._framer.complete

    @property
    def should_close(self) -> bool:
        """Whether to close the connection: when all that is to be sent has left."""
        return self._ended and not self._output

    @property
    def question(self) -> ConfirmNeeded | None:
        """What waits to be confirmed."""
        return None if self._asked is None else self._asked.question

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """The SSH connections that it is bound to, in order."""
        return tuple(self._bindings.all)

    # --------------------------------------------------------------------------------------------------------- requests

    def _go_on(self) -> None:
        """Deal with what has come, one after the other, as far as there is room."""
        if self._unlocking is not None:
            self._try_unlock(self._unlocking)
        try:
            while not self._ended and self._asked is None and self._unlocking is None:
                if len(self._output) > _BACKLOG:
                    break
                payload = self._framer.next()
                if payload is None:
                    break
                self._answer(payload)
        except AgentMessageError as error:
            self.error = error
            self._end()
            return
        if not self._ended and self._framer.waiting > 2 * MAXIMUM_MESSAGE and not self.want_read:
            self.error = AgentMessageError("more requests came than are dealt with at once")
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._asked = self._unlocking = None
        self._framer.discard()

    def _answer(self, payload: bytes) -> None:
        name = m.request_name(payload[0])
        try:
            request = m.parse_request(payload, minimum_rsa_bits=self.keyring.minimum_rsa_bits)
        except AgentMessageError as error:
            del payload
            self._refuse(name, str(error))
            return
        del payload
        bind = isinstance(request, m.Extension) and request.name == m.SESSION_BIND
        if self.keyring.locked and not bind and not isinstance(request, m.Unlock | m.RequestIdentities):
            # Bindings restrict, so they are taken note of: else who comes from afar would be taken for who is here.
            self._refuse(name, "the agent is locked")
            return
        try:
            self._HANDLERS[type(request)](self, request)
        except (_Refused, NotPermitted) as refused:
            self._refuse(name, str(refused))

    def _reply(self, payload: bytes) -> None:
        self._output += frame(payload)

    def _refuse(self, name: str, why: str, number: int = r.FAILURE) -> None:
        self._reply(byte(number))
        self._events.append(RequestRefused(name, why))

    def _list(self, request: m.RequestIdentities) -> None:
        shown = () if self.keyring.locked else tuple(self._visible())
        self._reply(r.encode_identities(tuple(held.identity for held in shown)))

    def _visible(self) -> list[HeldKey]:
        found: list[HeldKey] = []
        for held in self.keyring.keys(self._now):
            try:
                self._bindings.check_visible(held.destinations, self._now)
            except NotPermitted:
                continue
            found.append(held)
        return found

    def _find(self, blob: bytes) -> HeldKey:
        held = self.keyring.find(blob, self._now)
        if held is None:
            raise _Refused(f"there is no such key: {fingerprint_of(blob)}")
        return held

    def _sign_request(self, request: m.SignRequest) -> None:
        held = self._find(request.key)
        purpose = purpose_of(request.data)
        if held.destinations:
            try:
                login = parse_login(request.data)
            except WireError as error:
                raise _Refused(f"the key has destination constraints and signs logins only: {error}") from None
            if not fits(login, held.blob, held.type):
                raise _Refused("the login that is to be signed is not by this key")
            self._bindings.check_login(held.destinations, login, self._now)
        algorithm = self._chosen(held, request.flags)
        if not held.confirm:
            self._reply(self._sign(held, algorithm, request.data, purpose))
            return
        self._count += 1
        question = ConfirmNeeded(self._count, held.identity, purpose, self.bindings)
        self._asked = _Asked(question, held, algorithm, request.data)
        self._told = False

    def _chosen(self, held: HeldKey, flags: int) -> str:
        """What to sign with, by the flags of the request, of which those that are not known have no effect."""
        possible = held.key.public_key.signature_algorithms
        if held.key.public_key.type != "ssh-rsa":
            return possible[0]
        if flags & m.RSA_SHA2_256:
            return "rsa-sha2-256"
        if flags & m.RSA_SHA2_512:
            return "rsa-sha2-512"
        if not self.keyring.sha1:
            raise _Refused("a signature with SHA-1 was asked for, which this agent does not make")
        return "ssh-rsa"

    def _sign(self, held: HeldKey, algorithm: str, data: bytes, purpose: SignPurpose) -> bytes:
        try:
            reply = r.encode_signature(held.key.sign(data, algorithm))
        except SignatureInvalid as error:
            raise _Refused(str(error)) from None
        self._events.append(KeyUsed(held.identity, algorithm, purpose))
        return reply

    def _add(self, request: m.AddIdentity) -> None:
        blob = request.key.public_key.blob if request.certificate is None else request.certificate.blob
        known = self.keyring.find(blob, self._now)
        if known is not None:
            self._bindings.check_visible(known.destinations, self._now)
        constraints = request.constraints
        try:
            self.keyring.add(
                request.key,
                request.certificate,
                request.comment,
                now=self._now,
                lifetime=constraints.lifetime,
                confirm=constraints.confirm,
                destinations=constraints.destinations,
            )
        except (InvalidArgument, LimitReached) as error:
            raise _Refused(str(error)) from None
        self._reply(byte(r.SUCCESS))

    def _remove(self, request: m.RemoveIdentity) -> None:
        held = self._find(request.key)
        self._bindings.check_visible(held.destinations, self._now)
        self.keyring.remove(held.blob)
        self._reply(byte(r.SUCCESS))

    def _remove_all(self, request: m.RemoveAllIdentities) -> None:
        self.keyring.remove_all()
        self._reply(byte(r.SUCCESS))

    def _token(self, request: m.AddSmartcardKey | m.RemoveSmartcardKey) -> None:
        raise _Refused("this agent has no keys of tokens")

    def _lock(self, request: m.Lock) -> None:
        self.keyring.lock(request.passphrase)  # it is not locked, or this would not have come here
        self._reply(byte(r.SUCCESS))

    def _unlock(self, request: m.Unlock) -> None:
        if not self.keyring.locked:
            raise _Refused("the agent is not locked")
        self._try_unlock(request)

    def _try_unlock(self, request: m.Unlock) -> None:
        """Look at a passphrase, or when its time has come."""
        self._unlocking = None
        moment = self.keyring.unlock_after(self._now)
        if self.keyring.locked and self._now < moment:
            self._unlocking, self._until = request, moment
        elif self.keyring.unlock(request.passphrase, self._now):
            self._reply(byte(r.SUCCESS))
        else:
            self._refuse(m.request_name(request.number), "it is another passphrase, or the agent is not locked")

    def _extension(self, request: m.Extension) -> None:
        if request.name == m.QUERY:
            self._reply(r.encode_extension(m.QUERY, b"".join(map(text, EXTENSIONS))))
        elif request.name == m.SESSION_BIND:
            self._bind(request)
        else:
            raise _Refused(f"the extension {printable(request.name, 64)} is unknown")

    def _bind(self, request: m.Extension) -> None:
        self._bindings.attempted = True
        try:
            self._bindings.bind(m.SessionBind.parse(request.contents), self.keyring.minimum_rsa_bits)
        except (WireError, NotPermitted) as error:
            self._refuse(m.SESSION_BIND, str(error), r.EXTENSION_FAILURE)
        else:
            self._reply(byte(r.SUCCESS))

    _HANDLERS: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        m.RequestIdentities: _list,
        m.SignRequest: _sign_request,
        m.AddIdentity: _add,
        m.RemoveIdentity: _remove,
        m.RemoveAllIdentities: _remove_all,
        m.AddSmartcardKey: _token,
        m.RemoveSmartcardKey: _token,
        m.Lock: _lock,
        m.Unlock: _unlock,
        m.Extension: _extension,
    }
