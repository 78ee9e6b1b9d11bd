"""A client's login: whose key is this, and who are we (RFC 4253 section 8, RFC 4252)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Union

from sshproto.client import ClientConnection
from sshproto.errors import InvalidArgument
from sshproto.events import (
    CredentialNeeded,
    HostKeyOffered,
    PasswordExpired,
    PromptsReceived,
    Question,
    SignatureNeeded,
)
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.operations.steps import Operation, call
from sshproto.transport.link import Phase

if TYPE_CHECKING:
    from sshproto.agent.framing import AgentError
    from sshproto.keys.certificates import Certificate
    from sshproto.operations.agent_login import AgentKey, AgentKeys, AgentLike
    from sshproto.operations.host_keys import HostKeyCheck
    from sshproto.operations.hub import Hub

Credentials = Callable[[ClientConnection, Question], Any]
"""Who answers the questions of a login: ``CredentialNeeded``, ``PromptsReceived``, ``PasswordExpired`` and
``SignatureNeeded``, by the methods of the connection. What it leaves unanswered is refused. May be asynchronous where
functions may be, or an operation."""


LoginKey = PrivateKey | PublicKey | tuple[PrivateKey | PublicKey, "Certificate"]
"""What a login may be given to try: a key, or a key and a certificate to be shown in its place."""

_Offer = Union[LoginKey, "AgentKey"]
"""What it may be tried with."""


def _blob(key: _Offer) -> bytes:
    """What an agent would know a key by."""
    whole: Any = key[1] if isinstance(key, tuple) else key
    blob: bytes = getattr(whole, "public_key", whole).blob
    return blob


def _checked(key: Any) -> LoginKey:
    """What may be tried. Its type alone is told if it is something else, which may be a secret."""
    if isinstance(key, PrivateKey | PublicKey):
        return key
    from sshproto.keys.certificates import Certificate  # who has none does not pay for it

    match key:
        case (PrivateKey() | PublicKey() as mine, Certificate() as certificate):
            public = mine.public_key if isinstance(mine, PrivateKey) else mine
            if certificate.key != public:
                theirs = certificate.key.fingerprint()
                raise InvalidArgument(f"the certificate is for the key {theirs}, not for {public.fingerprint()}")
            return mine, certificate
        case _ if isinstance(key, str | bytes) or hasattr(key, "__fspath__"):
            hint = "; PrivateKey.load() makes one of a file's content"
        case Certificate():
            hint = "; a certificate goes in a pair with its key"
        case _:
            hint = ""
    raise InvalidArgument(
        "a key to log in with must be a PrivateKey, a PublicKey, or a pair of one of these and its Certificate,"
        f" not a {type(key).__name__}{hint}"
    )


def _agent_keys(agent: AgentLike | None) -> AgentKeys | None:
    if agent is None:
        return None
    if not all(callable(getattr(agent, name, None)) for name in ("identities", "sign", "bind")):
        raise InvalidArgument(f"agent must be a connection to one, as open_agent() makes, not a {type(agent).__name__}")
    from sshproto.operations.agent_login import AgentKeys  # who has no agent does not pay for it

    return AgentKeys(agent)


class LoginPlan:
    """Credentials in the order in which they are tried: keys, a password, prompts.

    Each is tried once.  A server that wants several methods gets them one after the other.

    Args:
        keys: Private keys, which sign; and public keys, for which ``signer`` does. In the place of one may be a pair
            of it and a certificate that is shown in its place.
        signer: Signs for the public keys: takes a :class:`~sshproto.events.SignatureNeeded` and returns the signature
            in SSH form (RFC 4253 section 6.6), or None if it can't.
        password: The password, or what returns it when it is needed, or None. Also the answer to a
            ``keyboard-interactive`` login with a single prompt that does not echo, unless there is ``prompts``.
        prompts: Answers the prompts of a ``keyboard-interactive`` login: takes a
            :class:`~sshproto.events.PromptsReceived` and returns as many answers as there are prompts, or None.
        new_password: What to do when the server wants a new password: takes a
            :class:`~sshproto.events.PasswordExpired` and returns the new one, or None.
        agent: A connection to an agent, for this login alone: it is bound to it. Its keys and certificates are tried in
            OpenSSH's order, see :mod:`sshproto.operations.agent_login`: those among ``keys`` first, then its others,
            then the rest of ``keys``.
        identities_only: Of the agent's keys, try only those among ``keys``.

    All functions may be asynchronous where functions may be.

    Raises:
        InvalidArgument: Something of ``keys`` or ``agent`` is no such thing, or a certificate is for another key.
    """

    def __init__(
        self,
        keys: Iterable[LoginKey] = (),
        *,
        signer: Callable[[SignatureNeeded], Any] | None = None,
        password: str | Callable[[], Any] | None = None,
        prompts: Callable[[PromptsReceived], Any] | None = None,
        new_password: Callable[[PasswordExpired], Any] | None = None,
        agent: AgentLike | None = None,
        identities_only: bool = False,
    ) -> None:
        self._keys: list[_Offer] = [_checked(key) for key in keys]
        self._agent = _agent_keys(agent)
        self._only = identities_only
        self._fetched = agent is None
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
        self._blind: _Offer | None = None  # the key that was tried before that was known

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
        if not self._fetched and (not question.methods or "publickey" in question.methods):
            yield from self._fetch(conn)
        while self._keys and (not question.methods or "publickey" in question.methods):
            key = self._keys.pop(0)
            if isinstance(key[0] if isinstance(key, tuple) else key, PublicKey) and self._signer is None:
                continue
            try:
                self._offer(conn, question, key)
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

    def _offer(self, conn: ClientConnection, question: CredentialNeeded, key: _Offer) -> None:
        if self._agent is not None and self._agent.offer(conn, question, key):
            return
        pair: Any = key if isinstance(key, tuple) else (key, None)
        conn.auth_public_key(question, pair[0], certificate=pair[1])

    def _fetch(self, conn: ClientConnection) -> Operation[None]:
        """Put the agent's keys in front of the others, and in the place of those that it has."""
        self._fetched = True
        if self._agent is None:
            return
        given = [_blob(key) for key in self._keys]
        found = yield from self._agent.fetch(conn, given, only=self._only)
        have = {key.blob for key in found}
        rest = [key for key in self._keys if _blob(key) not in have]
        self._keys = [*found, *((self._agent.lend(*key) or key) if isinstance(key, tuple) else key for key in rest)]

    @property
    def agent_problem(self) -> AgentError | None:
        """What went wrong with the agent; None if nothing has."""
        return None if self._agent is None else self._agent.problem

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
        signature: bytes | None = None
        if self._agent is not None and self._agent.offered:
            signature = yield from self._agent.sign(question)
        elif self._signer is not None:
            signature = yield from call(self._signer, question)
        if signature is not None:
            try:
                conn.sign(question, signature)
                return
            except InvalidArgument:  # as of an agent that does not know the algorithm
                pass
        conn.decline_sign(question)


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
    planned = type(credentials) is LoginPlan  # which is an operation, and calls the application where it has to
    while conn.phase is not Phase.OPEN:
        question = hub.take_question()
        if question is None:
            hub.check()
            yield hub.asked
            continue
        try:
            if not isinstance(question, HostKeyOffered):
                yield from credentials(conn, question) if planned else call(credentials, conn, question)
            elif (yield from call(host_key, question)) is True:
                conn.accept_host_key(question)
        finally:
            if hub.owes(question):
                hub.refuse(question)
