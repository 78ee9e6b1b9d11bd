"""The client's side: its host-key answer, its login, and the connection object that applications hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sshproto.auth.client import ClientAuth
from sshproto.config import ClientConfig
from sshproto.connection import Connection
from sshproto.engine import GRANTED_PAYLOAD, USERAUTH, WANTED, WANTED_PAYLOAD, Engine
from sshproto.errors import HostKeyRejected, InternalError, InvalidArgument, ProtocolViolation, discreet
from sshproto.events import (
    CredentialNeeded,
    HostKeyOffered,
    PasswordExpired,
    PromptsReceived,
    Question,
    SignatureNeeded,
)
from sshproto.text import printable
from sshproto.timers import Timer
from sshproto.transport.extensions import EXT_INFO_IN_AUTH, HOST_BOUND, PING, SERVER_SIG_ALGS, Announced
from sshproto.transport.link import Phase
from sshproto.wire.messages import ServiceAccept
from sshproto.wire.table import Role, State

if TYPE_CHECKING:
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.private import PrivateKey
    from sshproto.keys.public import PublicKey
    from sshproto.wire.codec import Buffer


class ClientEngine(Engine[ClientAuth]):
    """The engine of a client."""

    __slots__ = ()

    role = Role.CLIENT
    config: ClientConfig

    def __init__(self, config: ClientConfig, now: float) -> None:
        super().__init__(config, now)
        if config.eager:
            self.kex.start()

    def _our_extensions(self) -> Announced:
        return ((EXT_INFO_IN_AUTH, b"0"), (PING, b"0"))

    def _transport_ready(self) -> None:
        super()._transport_ready()
        self.outbox.send(WANTED, payload=WANTED_PAYLOAD)

    def _dispatch_service(self, payload: Buffer) -> None:
        if payload != GRANTED_PAYLOAD:  # it is malformed, or of another service
            service = ServiceAccept.parse(payload).service
            raise ProtocolViolation(f"SERVICE_ACCEPT for {printable(service)!r} came, expected {USERAUTH!r}")
        session_id = self.kex.session_id
        if session_id is None:
            raise InternalError("SERVICE_ACCEPT was let through before the first key exchange")
        self._enter(State.AUTH)
        self.auth = ClientAuth(self.config, self, session_id)
        self._extensions_changed()
        self.auth.start()

    def _extensions_changed(self) -> None:
        if self.auth is None:
            return
        names = self.extensions.peer.get(SERVER_SIG_ALGS)
        if names is not None:
            self.auth.server_signature_algorithms = tuple(names.decode("ascii", "replace").split(","))
        if self.extensions.peer.get(HOST_BOUND) == b"0":
            self.auth.host_key = self.kex.host_key_blob

    def ask(self, question: Question, *, hold: bool = False, size: int = 0) -> None:
        # A deadline is for the server. While a person reads a fingerprint or types a password, none runs.
        if isinstance(question, HostKeyOffered):
            self.timers.stop(Timer.HANDSHAKE)
        elif self.phase is Phase.AUTH:
            self.timers.stop(Timer.AUTH)
        super().ask(question, hold=hold, size=size)

    def login_step(self) -> None:
        """The login has moved, by a message or by an answer."""
        auth = self.auth
        if auth is not None and auth.succeeded and self._state is State.AUTH:
            self._logged_in()
        super().login_step()

    def answer_login(self, question: Question, answer: Callable[[ClientAuth], None]) -> None:
        """Carry out an answer to a question of the login."""
        if self.auth is not None:
            answer(self.auth)
            self.answered(question)

    def answered(self, question: Question) -> None:
        """The application has answered a question of the login: it is the server's turn, or there is another one."""
        self.login_step()
        if self.phase is Phase.AUTH and all(other.id <= question.id for other in self.questions.owed):
            self.timers.arm(Timer.AUTH, self.config.timeouts.auth)

    def accept_host_key(self, question: HostKeyOffered) -> None:
        self.timers.arm(Timer.HANDSHAKE, self.config.timeouts.handshake)
        self.kex.accept_host_key(question)
        self.kex_moved()

    def reject_host_key(self, question: HostKeyOffered) -> None:
        self.lose(HostKeyRejected(f"the host key {question.key.fingerprint()} was not accepted"))

    def sign(self, question: SignatureNeeded, signature: bytes) -> None:
        if self.auth is not None:
            self.auth.sign(question, signature)
            self.answered(question)

    def decline_sign(self, question: SignatureNeeded) -> None:
        if self.auth is not None:
            self.auth.decline_sign(question)
            self.answered(question)


class ClientConnection(Connection[ClientEngine]):
    """An SSH client: bytes in, events out.

    Args:
        config: What the application has decided.
        now: The time, in seconds of any monotonic clock; the same clock for all later inputs.
    """

    def __init__(self, config: ClientConfig, now: float) -> None:
        if not isinstance(config, ClientConfig):
            raise InvalidArgument(f"a client needs a ClientConfig, not {config!r}")
        super().__init__(ClientEngine, config, now)

    def accept_host_key(self, question: HostKeyOffered) -> None:
        """It is the server's key: go on."""
        self._engine.answer(question, (HostKeyOffered,), self._engine.accept_host_key, question)

    def reject_host_key(self, question: HostKeyOffered) -> None:
        """It is not: disconnect with code 9."""
        self._engine.answer(question, (HostKeyOffered,), self._engine.reject_host_key, question)

    def auth_none(self, question: CredentialNeeded) -> None:
        """Log in without proof, which mostly serves to learn the server's methods (RFC 4252 section 5.2)."""
        self._login(question, (CredentialNeeded,), lambda auth: auth.none(question))

    @discreet
    def auth_password(self, question: CredentialNeeded, password: str) -> None:
        """Log in with a password (RFC 4252 section 8).

        Raises:
            InvalidArgument: It does not encode, or is longer than 32 KiB.
        """
        self._login(question, (CredentialNeeded,), lambda auth: auth.password(question, password))

    def auth_public_key(
        self,
        question: CredentialNeeded,
        key: PrivateKey | PublicKey,
        *,
        probe: bool | None = None,
        algorithm: str | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        """Log in with a key (RFC 4252 section 7).

        The login is bound to the server's host key where the server offers it (OpenSSH PROTOCOL section 3.1).

        Args:
            question: Which.
            key: A private key signs at once. For a public key the server is asked first whether it would do, and then
                the application is asked to sign (``SignatureNeeded``).
            probe: Ask first or not, whatever the kind of key.
            algorithm: The signature algorithm; None chooses by ``server-sig-algs`` and our preferences.
            certificate: The key's, to be shown in its place; the key signs all the same.

        Raises:
            InvalidArgument: The key makes no signature that both sides allow, or is not the certificate's.
        """
        self._login(
            question,
            (CredentialNeeded,),
            lambda auth: auth.public_key(question, key, probe=probe, algorithm=algorithm, certificate=certificate),
        )

    def auth_keyboard_interactive(self, question: CredentialNeeded, submethods: str = "") -> None:
        """Log in by answering the server's questions (RFC 4256). ``PromptsReceived`` follows.

        Args:
            question: Which.
            submethods: Hints for the server, comma-separated; mostly empty.

        Raises:
            InvalidArgument: The hints cannot be sent.
        """
        self._login(question, (CredentialNeeded,), lambda auth: auth.keyboard_interactive(question, submethods))

    @discreet
    def answer_prompts(self, question: PromptsReceived, answers: Sequence[str]) -> None:
        """What the user typed, one answer for each prompt.

        Raises:
            InvalidArgument: There are more or fewer answers than prompts.
        """
        self._login(question, (PromptsReceived,), lambda auth: auth.answer_prompts(question, answers))

    @discreet
    def new_password(self, question: PasswordExpired, old: str, new: str) -> None:
        """Change the password (RFC 4252 section 8).

        Raises:
            InvalidArgument: One of them does not encode, or is longer than 32 KiB.
        """
        self._login(question, (PasswordExpired,), lambda auth: auth.new_password(question, old, new))

    def give_up(self, question: CredentialNeeded | PromptsReceived | PasswordExpired) -> None:
        """No credentials are left: disconnect."""
        self._login(question, (CredentialNeeded, PromptsReceived, PasswordExpired), lambda auth: auth.give_up(question))

    def _login(
        self, question: Question, kinds: tuple[type[Question], ...], answer: Callable[[ClientAuth], None]
    ) -> None:
        self._engine.answer(question, kinds, self._engine.answer_login, question, answer)

    _REFUSALS: ClassVar[dict[type[Question], Callable[[Any, Any], None]]] = {
        **Connection._REFUSALS,
        HostKeyOffered: reject_host_key,
        CredentialNeeded: give_up,
        PromptsReceived: give_up,
        PasswordExpired: give_up,
    }
