"""A client's login: whose key is this, and who are we (RFC 4253 section 8, RFC 4252)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from sshproto.client import ClientConnection
from sshproto.errors import (
    HostKeyChanged,
    HostKeyRevoked,
    HostKeyUnknown,
    InvalidArgument,
)
from sshproto.events import (
    CredentialNeeded,
    HostKeyOffered,
    PasswordExpired,
    PromptsReceived,
    Question,
    SignatureNeeded,
)
from sshproto.keys.known_hosts import KnownHosts, Trust
from sshproto.keys.public import PublicKey
from sshproto.keys.signatures import signature_algorithms
from sshproto.operations.steps import Operation, call
from sshproto.transport.link import Phase

if TYPE_CHECKING:
    from sshproto.config import ClientConfig
    from sshproto.keys.private import PrivateKey
    from sshproto.operations.hub import Hub

HostKeyCheck = Callable[[HostKeyOffered], Any]
"""Whether the key that the server has proved to hold is the server's: True or False. May be asynchronous where
functions may be, or an operation; may raise a :class:`~sshproto.errors.HostKeyRejected` that says more."""

Credentials = Callable[[ClientConnection, Question], Any]
"""Who answers the questions of a login: ``CredentialNeeded``, ``PromptsReceived``, ``PasswordExpired`` and
``SignatureNeeded``, by the methods of the connection. What it leaves unanswered is refused. May be asynchronous where
functions may be, or an operation."""


class LoginPlan:
    """Credentials in the order in which they are tried: keys, a password, prompts.

    Each is tried once.  A server that wants several methods gets them one after the other.

    Args:
        keys: Private keys, which sign; and public keys, for which ``signer`` does.
        signer: Signs for the public keys: takes a :class:`~sshproto.events.SignatureNeeded` and returns the signature
            in SSH form (RFC 4253 section 6.6), or None if it can't.
        password: The password, or what returns it when it is needed, or None. Also the answer to a
            ``keyboard-interactive`` login with a single prompt that does not echo, unless there is ``prompts``.
        prompts: Answers the prompts of a ``keyboard-interactive`` login: takes a
            :class:`~sshproto.events.PromptsReceived` and returns as many answers as there are prompts, or None.
        new_password: What to do when the server wants a new password: takes a
            :class:`~sshproto.events.PasswordExpired` and returns the new one, or None.

    All functions may be asynchronous where functions may be.
    """

    def __init__(
        self,
        keys: Iterable[PrivateKey | PublicKey] = (),
        *,
        signer: Callable[[SignatureNeeded], Any] | None = None,
        password: str | Callable[[], Any] | None = None,
        prompts: Callable[[PromptsReceived], Any] | None = None,
        new_password: Callable[[PasswordExpired], Any] | None = None,
    ) -> None:
        self._keys = list(keys)
        self._signer = signer
        self._password = password
        self._prompts = prompts
        self._new_password = new_password
        self._untried = ["password"] if password is not None else []
        if password is not None or prompts is not None:
            self._untried.append("keyboard-interactive")
        self._typed: str | None = password if isinstance(password, str) else None
        self._changed: str | None = None  # the new password that was offered last
        self._asked = False  # what the server takes
        self._blind: PrivateKey | PublicKey | None = None  # the key that was tried before that was known

    def __repr__(self) -> str:
        return f"<LoginPlan, {len(self._keys)} keys and {', '.join(self._untried) or 'nothing else'} left>"

    def __call__(self, conn: ClientConnection, question: Question) -> Operation[None]:
        match question:
            case CredentialNeeded():
                return self._credential(conn, question)
            case PromptsReceived():
                return self._answer_prompts(conn, question)
            case PasswordExpired():
                return self._change_password(conn, question)
            case SignatureNeeded():
                return self._sign(conn, question)
            case _:
                raise InvalidArgument(f"a {type(question).__name__} is not a question of a login")

    def _credential(self, conn: ClientConnection, question: CredentialNeeded) -> Operation[None]:
        if self._changed is not None and question.partial_success:
            self._typed = self._changed
        self._changed = None
        if self._blind is not None and question.methods:
            if "publickey" not in question.methods and not question.partial_success:
                self._keys.insert(0, self._blind)  # it was not its turn
            self._blind = None
        while self._keys and (not question.methods or "publickey" in question.methods):
            key = self._keys.pop(0)
            if isinstance(key, PublicKey) and self._signer is None:
                continue
            try:
                conn.auth_public_key(question, key)
            except InvalidArgument:  # it makes no signature that the server takes
                continue
            self._blind = None if question.methods else key
            return
        if not question.methods and not self._asked:
            self._asked = True
            conn.auth_none(question)  # to learn what the server takes, if it is only for the error's sake
            return
        for method in [name for name in self._untried if name in question.methods]:
            self._untried.remove(method)
            if method == "password":
                password = yield from self._get_password()
                if password is not None:
                    conn.auth_password(question, password)
                    return
            elif self._prompts is not None or self._password is not None:
                conn.auth_keyboard_interactive(question)
                return
        conn.give_up(question)

    def _get_password(self) -> Operation[str | None]:
        if self._typed is None and callable(self._password):
            self._typed = yield from call(self._password)
            if self._typed is None:
                self._password = None  # who has none is not asked again
        return self._typed

    def _answer_prompts(self, conn: ClientConnection, question: PromptsReceived) -> Operation[None]:
        answers: Sequence[str] | None = None
        if self._prompts is not None:
            answers = yield from call(self._prompts, question)
        elif not question.prompts:
            answers = ()
        elif len(question.prompts) == 1 and not question.prompts[0].echo:
            password = yield from self._get_password()
            answers = None if password is None else (password,)
        if answers is None:
            conn.give_up(question)
        else:
            conn.answer_prompts(question, answers)

    def _change_password(self, conn: ClientConnection, question: PasswordExpired) -> Operation[None]:
        new = (yield from call(self._new_password, question)) if self._new_password is not None else None
        if new is None or self._typed is None:
            conn.give_up(question)
        else:
            conn.new_password(question, self._typed, new)
            self._changed = new  # the server may want another one yet, in place of the same old one

    def _sign(self, conn: ClientConnection, question: SignatureNeeded) -> Operation[None]:
        signature = (yield from call(self._signer, question)) if self._signer is not None else None
        if signature is not None:
            try:
                conn.sign(question, signature)
                return
            except InvalidArgument:  # as of an agent that does not know the algorithm
                pass
        conn.decline_sign(question)


def host_key_check(trusted: KnownHosts | PublicKey | HostKeyCheck, host: str, port: int) -> HostKeyCheck:
    """What decides whether a server's key is good.

    Args:
        trusted: Keys that are known, the one key that is good, or a function that decides.
        host, port: Where we dial, as the user wrote it: what it is looked up as.
    """
    if isinstance(trusted, KnownHosts):
        known = trusted
        return lambda question: _look_up(known, host, port, question.key)
    if isinstance(trusted, PublicKey):
        pinned = trusted
        return lambda question: _compare(pinned, question.key)
    if not callable(trusted):
        raise InvalidArgument(f"host_key must be KnownHosts, a PublicKey or a function, not {trusted!r}")
    return trusted


def _look_up(known: KnownHosts, host: str, port: int, key: PublicKey) -> bool:
    match = known.lookup(host, port, key)
    came = f"{key.type} {key.fingerprint()}"
    match match.trust:
        case Trust.MATCH:
            return True
        case Trust.REVOKED:
            raise HostKeyRevoked(f"the host key of {host} port {port} ({came}) is revoked")
        case Trust.CHANGED:
            raise HostKeyChanged(f"the host key of {host} port {port} has changed: {came} is not the one that is known")
        case _:
            others = ", ".join(dict.fromkeys(entry.key_type for entry in match.known))
            known_as = f"; known are keys of the types {others}" if others else ""
            raise HostKeyUnknown(f"the host key of {host} port {port} is not known: {came}{known_as}")


def _compare(pinned: PublicKey, key: PublicKey) -> bool:
    if key == pinned:
        return True
    raise HostKeyChanged(
        f"the host key is {key.type} {key.fingerprint()}, expected {pinned.type} {pinned.fingerprint()}"
    )


def prefer_known(config: ClientConfig, known: KnownHosts, host: str, port: int) -> ClientConfig:
    """``config``, asking first for a host key of a type that is known.

    So a host is not taken for a new one because it has other keys beside the one that is known.
    """
    types = known.algorithms_for(host, port)
    wanted = {name for key_type in types for name in signature_algorithms(key_type)}
    names = tuple(sorted(config.preferences.host_key, key=lambda name: name not in wanted))
    return attrs.evolve(config, preferences=attrs.evolve(config.preferences, host_key=names))


def log_in(hub: Hub[ClientConnection], host_key: HostKeyCheck, credentials: Credentials) -> Operation[None]:
    """Answer the questions of a client's login until it has succeeded.

    What is given up in the midst of a question has refused it, which ends the connection.

    Args:
        hub: The connection's.
        host_key: Whether the server's key is good.
        credentials: Who we are.

    Raises:
        HostKeyRejected: The key is not good; a subclass says more.
        AuthExhausted: The server does not let us in.
        ConnectionLoss: The connection ended otherwise.
    """
    conn = hub.conn
    while conn.phase is not Phase.OPEN:
        question = yield from _question_or_login(hub)
        if question is None:
            return
        try:
            if not isinstance(question, HostKeyOffered):
                yield from call(credentials, conn, question)
            elif (yield from call(host_key, question)) is True:
                conn.accept_host_key(question)
        finally:
            hub.refuse(question)  # unless it was answered


def _question_or_login(hub: Hub[ClientConnection]) -> Operation[Question | None]:
    while True:
        question = hub.take_question()
        if question is not None:
            return question
        if hub.conn.phase is Phase.OPEN:
            return None
        hub.check()
        yield hub.asked
