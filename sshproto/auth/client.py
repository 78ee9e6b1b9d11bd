"""The client's side of user authentication (RFC 4252, RFC 4256).

The application is asked how to log in (``CredentialNeeded``), its answer becomes one request, the server's reply an
event and, as long as that was not success, the next question.  Whose turn it is decides what is legal:

* the application's turn, a question is open: the server may send banners and nothing else;
* the server's turn, a request or a response is on its way: the server answers it, in the terms of its method.

So there is never more than one request in flight (RFC 4252 section 5.1), success cannot come before anything was asked
for, and it cannot be the answer to a mere key query.  A login that the server grants without having accepted any proof
is called trivial (CVE-2021-36368).  The server's words are made printable before they become events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs

from sshproto.auth import methods
from sshproto.config import UNATTENDED
from sshproto.errors import (
    AlreadyAnswered,
    AuthExhausted,
    ConnectionLoss,
    DisconnectCode,
    InternalError,
    InvalidArgument,
    LimitExceeded,
    ProtocolViolation,
    SignatureInvalid,
    SSHError,
)
from sshproto.events import (
    AuthFailed,
    AuthSucceeded,
    BannerReceived,
    CredentialNeeded,
    PasswordExpired,
    Prompt,
    PromptsReceived,
    Question,
    SignatureNeeded,
)
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.text import multiline, printable
from sshproto.values import define
from sshproto.wire.messages import (
    SAFE_PAYLOAD,
    Message,
    UserauthBanner,
    UserauthFailure,
    UserauthInfoRequest,
    UserauthInfoResponse,
    UserauthPasswdChangereq,
    UserauthPkOk,
    UserauthSuccess,
    check_size,
)
from sshproto.wire.table import name_of

if TYPE_CHECKING:
    from sshproto.config import ClientConfig
    from sshproto.keys.certificates import Certificate
    from sshproto.outlet import Outlet

_Q = TypeVar("_Q", bound=Question)


@define(eq=False)
class _Attempt:
    """One login attempt, from its first request to the server's last word on it.

    Attributes:
        method: Its method's name.
        key, algorithm: What a public-key login signs with.
        certificate: The key's, if the login shows one.
        host_key: The host key that the login is bound to, if it is.
        signer: The key that signs here; None where the application does it.
        querying: True while the server has been asked only whether the key would do.
        rounds: INFO_REQUESTs received.
        proof: True once something was sent that the server can check.
    """

    method: str
    key: PublicKey | None = None
    algorithm: str = ""
    certificate: Certificate | None = None
    host_key: bytes | None = None
    signer: PrivateKey | None = attrs.field(default=None, repr=False)
    querying: bool = False
    rounds: int = 0
    proof: bool = False

    @property
    def shown(self) -> tuple[str, bytes]:
        """The algorithm's name and the blob in a public-key request: of the certificate, if there is one."""
        if self.certificate is not None:
            return methods.shown_as(self.certificate, self.algorithm), self.certificate.blob
        return self.algorithm, self.key.blob if self.key is not None else b""


class ClientAuth:
    """The machine of a client's login.

    Args:
        config: The client's decisions.
        outlet: The connection.
        session_id: The exchange hash of the first key exchange.

    Attributes:
        server_signature_algorithms: What the server takes, set by the connection from EXT_INFO; None if never said.
        host_key: The server's host key as it came in the first key exchange, if the server has said in EXT_INFO that a
            login can be bound to it; set by the connection.
        succeeded: True after USERAUTH_SUCCESS.
        lost: Why the connection must end, or None. To be looked at after every call.
    """

    __slots__ = (
        "_attempt",
        "_attempts",
        "_banner_bytes",
        "_banners",
        "_config",
        "_methods",
        "_outlet",
        "_partial",
        "_proved",
        "_question",
        "_session_id",
        "_started",
        "_tried",
        "host_key",
        "lost",
        "server_signature_algorithms",
        "succeeded",
    )

    def __init__(self, config: ClientConfig, outlet: Outlet, session_id: bytes) -> None:
        self._config = config
        self._outlet = outlet
        self._session_id = session_id
        self.server_signature_algorithms: tuple[str, ...] | None = None
        self.host_key: bytes | None = None
        self.succeeded = False
        self.lost: ConnectionLoss | None = None
        self._started = False
        self._question: Question | None = None
        self._attempt: _Attempt | None = None
        self._attempts = 0
        self._tried: list[str] = []
        self._methods: tuple[str, ...] = ()
        self._partial = False
        self._proved = False  # a proof was accepted in an earlier, partially successful attempt
        self._banners = 0
        self._banner_bytes = 0

    @property
    def context(self) -> str:
        """The method under which messages 60 to 79 are to be decoded; ``""`` if they mean nothing now."""
        return self._attempt.method if self._attempt is not None and not self.succeeded else ""

    def start(self) -> None:
        """The server has accepted the service ``ssh-userauth``: ask for the first credential."""
        if not self._started:
            self._started = True
            self._ask_credential()

    # -------------------------------------------------------------------------------------------- what the server sends

    def receive(self, message: Message) -> None:
        """Take one message of the server.

        Raises:
            ConnectionLoss: It must not come now, or goes past a limit.
        """
        if self.lost is not None:
            return
        if not self._started:
            raise ProtocolViolation(f"{name_of(message)} came before the login began")
        if isinstance(message, UserauthBanner):
            self._banner(message)
            return
        attempt = self._attempt
        if self.succeeded or attempt is None or self._question is not None:
            raise ProtocolViolation(
                f"{name_of(message)} came while no login request or response of ours was waiting for an answer"
            )
        handler = _HANDLERS.get(type(message))
        if handler is None or message.context not in ("", attempt.method):
            raise ProtocolViolation(f"{name_of(message)} came as the answer to a {attempt.method} login")
        handler(self, message, attempt)

    def _banner(self, message: UserauthBanner) -> None:
        if self.succeeded:
            return  # RFC 4252 section 5.3; the connection counts what is ignored
        limits = self._config.limits
        self._banners += 1
        self._banner_bytes += len(message.message.encode("utf-8", "surrogateescape"))
        if self._banners > limits.banners:
            raise LimitExceeded(f"the server sent more than {limits.banners} banners", "banners")
        if self._banner_bytes > limits.banner_bytes:
            raise LimitExceeded(f"the server sent more than {limits.banner_bytes} bytes of banners", "banner_bytes")
        shown = multiline(message.message, limits.banner_bytes)
        self._outlet.emit(BannerReceived(shown, message.message, printable(message.language)))

    def _failure(self, message: UserauthFailure, attempt: _Attempt) -> None:
        self._attempt = None
        self._methods = message.methods
        self._partial = message.partial_success
        if message.partial_success and attempt.proof:
            self._proved = True
        self._outlet.emit(AuthFailed(attempt.method, message.methods, message.partial_success))
        self._ask_credential()

    def _success(self, message: UserauthSuccess, attempt: _Attempt) -> None:
        if attempt.querying:
            raise ProtocolViolation("USERAUTH_SUCCESS came as the answer to a key query, which proves nothing")
        trivial = not (attempt.proof or self._proved)
        if trivial and not self._config.allow_trivial_auth:
            raise ProtocolViolation(
                f"the server granted the {attempt.method} login without proof, which allow_trivial_auth=False forbids",
                DisconnectCode.AUTH_CANCELLED_BY_USER,
            )
        self._attempt = None
        self.succeeded = True
        self._outlet.emit(AuthSucceeded(attempt.method, trivial))

    def _pk_ok(self, message: UserauthPkOk, attempt: _Attempt) -> None:
        key = attempt.key
        if not attempt.querying or key is None:
            raise ProtocolViolation("USERAUTH_PK_OK came although no key query was waiting for an answer")
        # Some servers echo the key's type for an RSA key that was asked about under a signature algorithm's name
        # (RFC 8332 section 3). What will be signed with is what we asked for, so this widens nothing.
        name, blob = attempt.shown
        if message.key != blob or message.algorithm not in (name, (attempt.certificate or key).type):
            raise ProtocolViolation(
                f"USERAUTH_PK_OK is about another key or algorithm ({printable(message.algorithm)}) "
                f"than the query ({name}, {key.fingerprint()})"
            )
        attempt.querying = False
        data = self._signed_data(attempt)
        if attempt.signer is None:
            self._ask_signature(attempt, key, data)
            return
        try:
            signature = attempt.signer.sign(data, attempt.algorithm)
        except SSHError as error:
            raise InternalError(f"signing with {key.type} key {key.fingerprint()} failed: {error}") from error
        self._send_signed(attempt, signature)

    def _change_requested(self, message: UserauthPasswdChangereq, attempt: _Attempt) -> None:
        if self._attempts >= self._config.limits.client_auth_attempts:
            self._exhausted(f"the server wants yet another password after {self._attempts} attempts")
            return
        prompt = multiline(message.prompt, SAFE_PAYLOAD)
        self._ask(PasswordExpired(id=self._outlet.questions.new_id(), prompt=prompt))

    def _info_request(self, message: UserauthInfoRequest, attempt: _Attempt) -> None:
        limits = self._config.limits
        attempt.rounds += 1
        if attempt.rounds > limits.info_rounds:
            raise LimitExceeded(
                f"the server asked more than {limits.info_rounds} times in one keyboard-interactive login",
                "info_rounds",
                DisconnectCode.NO_MORE_AUTH_METHODS_AVAILABLE,
            )
        if len(message.prompts) > limits.prompts:
            count = len(message.prompts)
            raise LimitExceeded(
                f"USERAUTH_INFO_REQUEST has {count} prompts, at most {limits.prompts} are accepted", "prompts"
            )
        self._ask(
            PromptsReceived(
                id=self._outlet.questions.new_id(),
                name=printable(message.name),
                # Embedded newlines must be handled, and the instruction not be cut (RFC 4256 section 3.3).
                instruction=multiline(message.instruction, SAFE_PAYLOAD),
                prompts=tuple(Prompt(text=multiline(text), echo=echo) for text, echo in message.prompts),
            )
        )

    # ------------------------------------------------------------------------------------- what the application answers

    def none(self, question: CredentialNeeded) -> None:
        """Ask to be let in as we are; what usually comes back is the list of methods (RFC 4252 section 5.2)."""
        self._pending(question, CredentialNeeded)
        self._send_request(methods.NoneForm(), _Attempt(methods.NONE))

    def password(self, question: CredentialNeeded, password: str) -> None:
        """Log in with a password.

        Raises:
            InvalidArgument: It is not text, or too long to send.
        """
        self._pending(question, CredentialNeeded)
        form = methods.Password(methods.check_text(password, "a password"))
        self._send_request(form, _Attempt(methods.PASSWORD, proof=True))

    def public_key(
        self,
        question: CredentialNeeded,
        key: PrivateKey | PublicKey,
        *,
        probe: bool | None = None,
        algorithm: str | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        """Log in with a key.

        Args:
            question: What is answered.
            key: A private key signs here; for a public key a ``SignatureNeeded`` question follows.
            probe: Ask the server first whether the key would do. None: only where someone else signs, who may have to
                be bothered for it (RFC 4252 section 7).
            algorithm: The signature algorithm, a plain one; None chooses by preference and what the server said.
            certificate: The key's, to be shown in its place.

        Raises:
            InvalidArgument: The key, the certificate and the algorithms don't fit together.
        """
        self._pending(question, CredentialNeeded)
        signer = key if isinstance(key, PrivateKey) else None
        public = key.public_key if isinstance(key, PrivateKey) else key
        if not isinstance(public, PublicKey):
            raise InvalidArgument(f"key must be a PrivateKey or a PublicKey, not {type(key).__name__}")
        if certificate is not None and certificate.key != public:
            raise InvalidArgument(
                f"the certificate is for {certificate.key.type} {certificate.key.fingerprint()}, "
                f"not for {public.type} {public.fingerprint()}"
            )
        if algorithm is None:
            willing = self._config.preferences.signature
            algorithm = methods.choose_algorithm(public, willing, self.server_signature_algorithms)
        elif algorithm not in public.signature_algorithms:
            can = ", ".join(public.signature_algorithms)
            raise InvalidArgument(f"a key of type {public.type} cannot sign with {algorithm!r}, only with {can}")
        attempt = _Attempt(methods.PUBLIC_KEY, public, algorithm, certificate, self.host_key, signer)
        if probe or (probe is None and signer is None):
            attempt.querying = True
            self._send_request(methods.key_query(*attempt.shown, attempt.host_key), attempt)
            return
        data = self._signed_data(attempt)
        if signer is not None:
            attempt.proof = True
            signature = signer.sign(data, algorithm)
            self._send_request(methods.key_signed(*attempt.shown, attempt.host_key, signature), attempt)
            return
        self._count(attempt)
        self._ask_signature(attempt, public, data)

    def keyboard_interactive(self, question: CredentialNeeded, submethods: str = "") -> None:
        """Let the server ask.

        Args:
            question: What is answered.
            submethods: Hints at what to be asked, separated by commas; usually empty (RFC 4256 section 3.1).

        Raises:
            InvalidArgument: The hints are not text, or too long to send.
        """
        self._pending(question, CredentialNeeded)
        form = methods.KeyboardInteractive("", methods.check_text(submethods, "submethods"))
        self._send_request(form, _Attempt(methods.KEYBOARD_INTERACTIVE))

    def give_up(self, question: Question) -> None:
        """End the connection: there is nothing to answer. Good for every question of this machine."""
        self._pending(question, Question)
        self._question = None
        self._exhausted("nothing is left to try")

    def answer_prompts(self, question: PromptsReceived, answers: Sequence[str]) -> None:
        """Answer the server's prompts.

        Args:
            question: What is answered.
            answers: One for each prompt, in order; none for no prompts.

        Raises:
            InvalidArgument: The number of answers is wrong, or one is not text.
        """
        asked = self._pending(question, PromptsReceived)
        if isinstance(answers, str):
            raise InvalidArgument("answers must be a sequence of str, not one str")
        given = tuple(methods.check_text(answer, "an answer") for answer in answers)
        if len(given) != len(asked.prompts):
            raise InvalidArgument(f"{len(asked.prompts)} prompts need as many answers, not {len(given)}")
        attempt = self._current()
        message = UserauthInfoResponse(given)
        self._outlet.send(message, payload=check_size(message))
        self._question = None
        attempt.proof = attempt.proof or bool(given)

    def new_password(self, question: PasswordExpired, old: str, new: str) -> None:
        """Replace an expired password and log in with it (RFC 4252 section 8).

        Raises:
            InvalidArgument: A password is not text, or too long to send.
        """
        self._pending(question, PasswordExpired)
        form = methods.PasswordChange(methods.check_text(old, "a password"), methods.check_text(new, "a password"))
        self._send_request(form, _Attempt(methods.PASSWORD, proof=True))

    def sign(self, question: SignatureNeeded, signature: bytes) -> None:
        """Hand in a signature.

        Args:
            question: What is answered.
            signature: In SSH form: string name, string signature (RFC 4253 section 6.6).

        Raises:
            InvalidArgument: It is not the signature that was asked for. An agent that knows only SHA-1 shows up here.
        """
        asked = self._pending(question, SignatureNeeded)
        if not isinstance(signature, bytes | bytearray | memoryview):
            raise InvalidArgument(f"a signature must be bytes, not {type(signature).__name__}")
        signature = bytes(signature)
        try:
            asked.key.verify(signature, asked.data, asked.algorithm, policy=UNATTENDED)
        except SignatureInvalid as error:
            raise InvalidArgument(
                f"this is not a {asked.algorithm} signature by {asked.key.type} key {asked.key.fingerprint()}: {error}"
            ) from error
        self._send_signed(self._current(), signature)

    def decline_sign(self, question: SignatureNeeded) -> None:
        """There will be no signature: another credential is asked for."""
        self._pending(question, SignatureNeeded)
        self._question = None
        self._attempt = None  # nothing is owed: the query was answered, and a request may be left at that
        self._ask_credential()

    # --------------------------------------------------------------------------------------------------------- the rest

    def _pending(self, question: Question, kind: type[_Q]) -> _Q:
        """The open question, if ``question`` is it and is a ``kind``. What was asked counts, not what comes back."""
        pending = self._question
        if pending is None or pending.id != question.id:
            raise AlreadyAnswered(f"{type(question).__name__} {question.id} is not waiting for an answer")
        if not isinstance(pending, kind):
            raise InvalidArgument(f"this does not answer a {type(pending).__name__}")
        return pending

    def _current(self) -> _Attempt:
        if self._attempt is None:
            raise InternalError("a question about a login attempt is open, but no attempt is")
        return self._attempt

    def _ask(self, question: Question) -> None:
        self._question = question
        self._outlet.ask(question)

    def _ask_credential(self) -> None:
        if self._attempts >= self._config.limits.client_auth_attempts:
            self._exhausted(f"{self._attempts} login attempts are all that limits.client_auth_attempts allows")
            return
        self._ask(
            CredentialNeeded(
                id=self._outlet.questions.new_id(),
                methods=self._methods,
                partial_success=self._partial,
                attempt=self._attempts,
            )
        )

    def _ask_signature(self, attempt: _Attempt, key: PublicKey, data: bytes) -> None:
        number = self._outlet.questions.new_id()
        self._ask(
            SignatureNeeded(
                id=number,
                key=key,
                algorithm=attempt.algorithm,
                data=data,
                purpose="login",
                certificate=attempt.certificate,
            )
        )

    def _signed_data(self, attempt: _Attempt) -> bytes:
        user, (name, blob) = self._config.user, attempt.shown
        return methods.signed_data(self._session_id, user, methods.SERVICE, name, blob, attempt.host_key)

    def _send(self, form: methods.Form) -> None:
        message = methods.request(self._config.user, form)
        self._outlet.send(message, payload=check_size(message))

    def _send_request(self, form: methods.Form, attempt: _Attempt) -> None:
        self._send(form)  # may refuse; nothing has changed until it did not
        self._question = None
        self._count(attempt)

    def _send_signed(self, attempt: _Attempt, signature: bytes) -> None:
        """The second request of an attempt; the number of attempts stays."""
        self._send(methods.key_signed(*attempt.shown, attempt.host_key, signature))
        self._question = None
        attempt.proof = True

    def _count(self, attempt: _Attempt) -> None:
        self._attempt = attempt
        self._attempts += 1
        self._tried.append(attempt.method)

    def _exhausted(self, why: str) -> None:
        tried = ", ".join(dict.fromkeys(self._tried)) or "nothing"
        theirs = printable(", ".join(self._methods), 1024) or "not known"
        self._attempt = None
        self.lost = AuthExhausted(
            f"login as {printable(self._config.user)} failed: {why} "
            f"(tried: {tried}; the server would go on with: {theirs})",
            self._methods,
            self._tried,
        )


_HANDLERS: dict[type[Message], Callable[..., None]] = {
    UserauthFailure: ClientAuth._failure,
    UserauthSuccess: ClientAuth._success,
    UserauthPkOk: ClientAuth._pk_ok,
    UserauthPasswdChangereq: ClientAuth._change_requested,
    UserauthInfoRequest: ClientAuth._info_request,
}
