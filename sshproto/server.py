"""The server's side: its services, its login questions, and the connection object that applications hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from sshproto.auth.server import ServerAuth
from sshproto.channels.forwarding import AGENT_FORWARD
from sshproto.channels.requests import HostKeysAnnounced, HostKeysProve
from sshproto.config import ServerConfig
from sshproto.connection import Connection
from sshproto.engine import GRANTED, GRANTED_PAYLOAD, USERAUTH, WANTED_PAYLOAD, Engine
from sshproto.errors import (
    InternalError,
    InvalidArgument,
    KeyExchangeFailed,
    LimitExceeded,
    ServiceRefused,
    SignatureInvalid,
)
from sshproto.events import (
    AuthQuestion,
    GlobalRequested,
    InteractiveAuth,
    KeyProbe,
    PasswordAuth,
    PromptsAnswered,
    Question,
    SignatureNeeded,
)
from sshproto.keys.private import PrivateKey
from sshproto.text import printable
from sshproto.transport.extensions import HOST_BOUND, PING, SERVER_SIG_ALGS, Announced
from sshproto.wire.messages import ServiceRequest, UserauthSuccess
from sshproto.wire.table import Role, State

if TYPE_CHECKING:
    from sshproto.events import Prompt
    from sshproto.wire.codec import Buffer
    from sshproto.wire.messages import Message


@lru_cache(64)
def _extensions(signature: tuple[str, ...]) -> Announced:
    names = ",".join(signature).encode("ascii")
    return ((SERVER_SIG_ALGS, names), (HOST_BOUND, b"0"), (PING, b"0"), (AGENT_FORWARD, b"0"))


class ServerEngine(Engine[ServerAuth]):
    """The engine of a server."""

    __slots__ = ("_services",)

    role = Role.SERVER
    config: ServerConfig

    def __init__(self, config: ServerConfig, now: float) -> None:
        super().__init__(config, now)
        self._services = 0
        self.outbox.sealed = self._message_sealed

    def _our_extensions(self) -> Announced:
        return _extensions(self.config.preferences.signature)

    def _dispatch_service(self, payload: Buffer) -> None:
        if payload != WANTED_PAYLOAD:  # it is malformed, or for another service
            service = ServiceRequest.parse(payload).service
            raise ServiceRefused(f"the service {printable(service)!r} is not available before login")
        self._services += 1
        if self._services > self.config.limits.service_requests:
            raise LimitExceeded(f"{self._services} requests for the service {USERAUTH}", "service_requests")
        session_id, host_key = self.kex.session_id, self.kex.host_key_blob
        if session_id is None or host_key is None:
            raise InternalError("SERVICE_REQUEST was let through before the first key exchange")
        self.outbox.send(GRANTED, payload=GRANTED_PAYLOAD)
        if self.auth is None:
            self._enter(State.AUTH)
            self.auth = ServerAuth(self.config, self, session_id, host_key)
            self.auth.start()

    def _message_sealed(self, message: Message) -> None:
        """``message`` has left for the output, under the keys and compression of now."""
        if message.number == UserauthSuccess.number:
            self.outbox.sealed = None  # no other message matters
            self._logged_in()

    def answer_login(self, answer: Callable[[ServerAuth], None]) -> None:
        """Carry out an answer to a question of the login."""
        if self.auth is not None:
            answer(self.auth)
            self.login_step()

    def sign(self, question: SignatureNeeded, signature: bytes) -> None:
        self.kex.sign(question, signature)
        self.kex_moved()

    def decline_sign(self, question: SignatureNeeded) -> None:
        self.lose(KeyExchangeFailed("the host key's signature was declined"))


class ServerConnection(Connection[ServerEngine]):
    """An SSH server's end of one connection: bytes in, events out.

    Args:
        config: What the application has decided.
        now: The time, in seconds of any monotonic clock; the same clock for all later inputs.
    """

    def __init__(self, config: ServerConfig, now: float) -> None:
        if not isinstance(config, ServerConfig):
            raise InvalidArgument(f"a server needs a ServerConfig, not {config!r}")
        super().__init__(ServerEngine, config, now)

    def accept_auth(self, question: AuthQuestion) -> None:
        """Let the user in.

        Raises:
            InvalidArgument: The question is a ``KeyProbe``: nothing has been proved yet.
        """
        self._login(question, (AuthQuestion,), lambda auth: auth.accept(question))

    def reject_auth(
        self, question: AuthQuestion, *, partial: bool = False, methods: Sequence[str] | None = None
    ) -> None:
        """Do not let the user in, or not yet.

        Args:
            question: Which.
            partial: The proof was good, but another method is wanted on top (RFC 4252 section 5.1).
            methods: What the user may go on with, of ``ServerConfig.auth_methods``. None: what was possible before,
                without a method that has done its part. It holds as long as the client keeps to the same user.

        Raises:
            InvalidArgument: A method is not among ``ServerConfig.auth_methods``, or nothing would be left after a
                partial success.
        """
        chosen = None if methods is None else tuple(methods)
        self._login(question, (AuthQuestion,), lambda auth: auth.reject(question, partial=partial, methods=chosen))

    def offer_key(self, question: KeyProbe) -> None:
        """The key would do: the user may sign with it."""
        self._login(question, (KeyProbe,), lambda auth: auth.offer_key(question))

    def prompt(
        self,
        question: InteractiveAuth | PromptsAnswered,
        prompts: Sequence[Prompt],
        *,
        name: str = "",
        instruction: str = "",
    ) -> None:
        """Ask the user (RFC 4256 section 3.2). ``PromptsAnswered`` follows.

        Args:
            question: Which.
            prompts: What to ask; may be empty.
            name, instruction: What the client shows first.

        Raises:
            InvalidArgument: More than ``Limits.prompts``, or a text that cannot be sent.
        """
        self._login(
            question,
            (InteractiveAuth, PromptsAnswered),
            lambda auth: auth.prompt(question, name, instruction, prompts),
        )

    def change_password(self, question: PasswordAuth, prompt: str) -> None:
        """Ask for a new password (RFC 4252 section 8). A ``PasswordAuth`` with ``new_password`` may follow."""
        self._login(question, (PasswordAuth,), lambda auth: auth.change_password(question, prompt))

    def announce_host_keys(self) -> None:
        """Tell the client of all host keys (OpenSSH PROTOCOL section 2.5), so that it may learn new ones in time.

        It may ask for proofs: a ``GlobalRequested`` for :meth:`prove_host_keys`.

        Raises:
            WrongPhase: Nobody is logged in, or the connection has ended.
            LimitReached: Too much waits for the end of a key exchange.
        """
        keys = (key.public_key if isinstance(key, PrivateKey) else key for key in self._engine.config.host_keys)
        self.global_request(HostKeysAnnounced(tuple(key.blob for key in keys)), want_reply=False)

    def prove_host_keys(self, question: GlobalRequested) -> None:
        """Prove the host keys that the client asks about, bound to this session; refuse if one is none of ours.

        A host key of which the configuration has only the public half is not proved here. Who can sign with it answers
        by ``succeed``, see :func:`sshproto.keys.host_proofs.proof_input`.

        Raises:
            InvalidArgument: The question is another one than ``HostKeysProve``.
        """
        from sshproto.keys.host_proofs import prove

        request, session_id = question.request, self.session_id
        if not isinstance(request, HostKeysProve) or session_id is None:
            raise InvalidArgument(f"not a request for proofs of host keys: {request!r}")
        config, agreed = self._engine.config, self.negotiated
        # An RSA key signs as in the key exchange, if it was one: some clients insist.
        algorithms = (*(() if agreed is None else (agreed.host_key,)), *config.preferences.host_key)
        try:
            proofs = prove(config.host_keys, request.keys, session_id, algorithms)
        except SignatureInvalid:  # which would give a key away
            proofs = None
        if proofs is None:
            self.fail(question)
        else:
            self.succeed(question, proofs)

    def _login(
        self, question: Question, kinds: tuple[type[Question], ...], answer: Callable[[ServerAuth], None]
    ) -> None:
        self._engine.answer(question, kinds, self._engine.answer_login, answer)

    _REFUSALS: ClassVar[dict[type[Question], Callable[[Any, Any], None]]] = {
        **Connection._REFUSALS,
        AuthQuestion: reject_auth,
    }
