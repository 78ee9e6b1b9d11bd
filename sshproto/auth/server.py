"""The server's side of user authentication (RFC 4252, RFC 4256).

Every request is decoded whole before anything is decided, so that a malformed one ends in the same way for every user
(CVE-2018-15473).  Then it either becomes a question to the application or is refused at once, in the same bytes for
users that exist and users that don't; the application is asked about both alike.  Only its ``accept`` of the question
that is open lets anyone in.

* One question at a time: while :attr:`ServerAuth.blocked`, the connection feeds no input, so pipelined requests are
  answered in order, each before the next is looked at (RFC 4252 section 5.1).
* A key query (``KeyProbe``) and a proof (``KeyAuth``, its signature already verified) are different questions with
  different answers; what is reported and echoed is always taken from the open question.
* A certificate stands in place of a key (OpenSSH's PROTOCOL.certkeys). It is read whole, its authority's signature
  verified, and the certified key's signature as well, before the application is asked whether it is good.
* A login can be bound to the server's host key (OpenSSH PROTOCOL section 3.1). Bound to another it fails, like one with
  a key that cannot be read: who signed it has spoken with another server.
* What was reached belongs to a pair of user and service.  Another pair starts anew; after a partial success it is a
  protocol error (RFC 4252 section 5).
* A key counts once: where two are wanted, the same one again, or its certificate, is none.
* Failures and requests are counted for the connection as a whole and never forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sshproto.auth import methods
from sshproto.errors import (
    AlreadyAnswered,
    AuthExhausted,
    ConnectionLoss,
    DisconnectCode,
    InternalError,
    InvalidArgument,
    KeyFormatError,
    LimitExceeded,
    LimitReached,
    ProtocolViolation,
    SignatureInvalid,
)
from sshproto.events import (
    Authenticated,
    AuthQuestion,
    InteractiveAuth,
    KeyAuth,
    KeyProbe,
    NoneAuth,
    PasswordAuth,
    Prompt,
    PromptsAnswered,
)
from sshproto.keys.public import PublicKey
from sshproto.text import printable
from sshproto.wire.messages import (
    Message,
    UserauthBanner,
    UserauthFailure,
    UserauthInfoRequest,
    UserauthInfoResponse,
    UserauthPasswdChangereq,
    UserauthPkOk,
    UserauthRequest,
    UserauthSuccess,
    check_size,
)
from sshproto.wire.table import name_of

if TYPE_CHECKING:
    from sshproto.config import ServerConfig
    from sshproto.keys.certificates import Certificate
    from sshproto.outlet import Outlet

_NO_KEYS: frozenset[bytes] = frozenset()
_LATE_RESPONSES = 4
"""INFO_RESPONSEs that may come after a new request has already abandoned the prompts that they answer."""


class _Shown(NamedTuple):
    """What a public-key request shows: a key, or a certificate for it, and the algorithm that is to sign."""

    key: PublicKey
    signature: str
    certificate: Certificate | None = None


class ServerAuth:
    """The machine of one connection's logins.

    Args:
        config: The server's decisions.
        outlet: The connection.
        session_id: The exchange hash of the first key exchange.
        host_key: The host key as it was sent in the first key exchange, to which a login may be bound.

    Attributes:
        succeeded: True after USERAUTH_SUCCESS was sent.
        lost: Why the connection must end, or None. To be looked at after every call.
    """

    __slots__ = (
        "_change_asked",
        "_config",
        "_failures",
        "_host_key",
        "_late_responses",
        "_method",
        "_methods",
        "_none_forgiven",
        "_outlet",
        "_partial",
        "_principal",
        "_prompts",
        "_prompts_abandoned",
        "_question",
        "_requests",
        "_rounds",
        "_session_id",
        "_spent",
        "_started",
        "_tried",
        "lost",
        "succeeded",
    )

    def __init__(self, config: ServerConfig, outlet: Outlet, session_id: bytes, host_key: bytes) -> None:
        self._config = config
        self._outlet = outlet
        self._session_id = session_id
        self._host_key = host_key
        self.succeeded = False
        self.lost: ConnectionLoss | None = None
        self._started = False
        self._question: AuthQuestion | None = None
        # For the connection; never reset.
        self._requests = 0
        self._failures = 0
        self._none_forgiven = False
        self._prompts_abandoned = False
        self._late_responses = 0
        self._tried: dict[str, None] = {}
        # For the principal; see _bind.
        self._principal: tuple[str, str] | None = None
        self._methods = self._config.auth_methods
        self._partial = False
        self._spent: frozenset[bytes] = _NO_KEYS  # with which a step of the login has been done
        # For the attempt; see _begin.
        self._method = ""
        self._prompts: int | None = None  # how many answers are awaited; None if none were asked for
        self._rounds = 0
        self._change_asked = False

    @property
    def context(self) -> str:
        """The method under which messages 60 to 79 are to be decoded; ``""`` if they mean nothing now.

        A client has only one such message, and whether it may come now is for :meth:`receive` to say.
        """
        return "" if self.succeeded else methods.KEYBOARD_INTERACTIVE

    @property
    def blocked(self) -> bool:
        """Whether a question is open: no input may be fed until it is answered."""
        return self._question is not None

    def start(self) -> None:
        """The service ``ssh-userauth`` has been accepted: show the banner, once."""
        if self._started:
            return
        self._started = True
        if self._config.banner:
            lines = self._config.banner.replace("\r\n", "\n").replace("\n", "\r\n")  # RFC 4252 section 5.4
            self._outlet.send(UserauthBanner(lines))

    # -------------------------------------------------------------------------------------------- what the client sends

    def receive(self, message: Message) -> None:
        """Take one message of the client. Not while :attr:`blocked`.

        Raises:
            WireError: The method's own part of a request is malformed.
            ConnectionLoss: The message must not come now, or goes past a limit.
        """
        if self.succeeded or self.lost is not None:
            return  # RFC 4252 section 5.3; the connection counts what is ignored
        if not self._started:
            raise ProtocolViolation(f"{name_of(message)} came before the service ssh-userauth was accepted")
        if self._question is not None:
            raise InternalError(
                f"{name_of(message)} was processed before the {type(self._question).__name__} question was answered"
            )
        if isinstance(message, UserauthRequest):
            self._request(message)
        elif isinstance(message, UserauthInfoResponse):
            self._info_response(message)
        else:
            raise ProtocolViolation(f"{name_of(message)} came from a client that is not logged in")

    def _request(self, message: UserauthRequest) -> None:
        form = methods.parse(message.method, message.payload)
        self._requests += 1
        limit = self._config.limits.auth_requests
        if self._requests > limit:
            raise LimitExceeded(
                f"more than {limit} login requests came", "auth_requests", DisconnectCode.NO_MORE_AUTH_METHODS_AVAILABLE
            )
        self._abandon()
        if self.lost is not None:
            return
        self._bind(message.user, message.service)
        self._begin(methods.listed(message.method))
        question = None if form is None else self._consider(message, form)
        if question is None:
            self._fail()
        else:
            self._ask(question)

    def _abandon(self) -> None:
        """A new request aborts unanswered prompts: no FAILURE is due for them (RFC 4252 section 5.1), but they count,
        or else asking for prompts would be free."""
        if self._prompts is not None:
            self._prompts = None
            self._prompts_abandoned = True
            self._count_failure()

    def _bind(self, user: str, service: str) -> None:
        principal = (user, service)
        if principal == self._principal:
            return
        if self._partial:
            raise ProtocolViolation("user or service name changed after a partially successful login")
        self._principal = principal
        self._methods = self._config.auth_methods
        self._change_asked = False

    def _begin(self, method: str) -> None:
        self._method = method
        self._rounds = 0
        if method != methods.PASSWORD:
            self._change_asked = False
        if method in methods.FORMS:
            self._tried[method] = None

    def _consider(self, message: UserauthRequest, form: methods.Form) -> AuthQuestion | None:
        """The question that a request is worth, or None: it fails without one."""
        user = message.user
        if message.service != methods.SERVICE or not methods.is_plain(user, self._config.limits.user_name):
            return None
        if message.method == methods.NONE:
            if not self._config.ask_none or self._partial:
                return None
        elif self._method not in self._methods:
            return None
        return _CONSIDER[type(form)](self, user, form)

    def _consider_none(self, user: str, form: methods.NoneForm) -> AuthQuestion | None:
        return NoneAuth(id=self._outlet.questions.new_id(), user=user)

    def _consider_password(self, user: str, form: methods.Password) -> AuthQuestion | None:
        self._change_asked = False
        if not self._is_password(form.password):
            return None
        return PasswordAuth(id=self._outlet.questions.new_id(), user=user, password=form.password)

    def _consider_change(self, user: str, form: methods.PasswordChange) -> AuthQuestion | None:
        # RFC 4252 section 8 lets a client send this unasked, and a server refuse it. Refused it is: an application that
        # never asks for changes and looks at the old password only must not grant a login with it.
        asked, self._change_asked = self._change_asked, False
        if not asked or not self._is_password(form.old) or not self._is_password(form.new):
            return None
        return PasswordAuth(id=self._outlet.questions.new_id(), user=user, password=form.old, new_password=form.new)

    def _is_password(self, password: str) -> bool:
        """An empty password is none: accounts without one are not to be entered from afar."""
        return password != "" and methods.is_secret(password, self._config.limits.password)

    def _consider_query(self, user: str, form: methods.KeyQuery) -> AuthQuestion | None:
        shown = self._shown(form)
        if shown is None:
            return None
        return KeyProbe(
            id=self._outlet.questions.new_id(),
            user=user,
            key=shown.key,
            algorithm=form.algorithm,
            certificate=shown.certificate,
        )

    def _consider_signed(self, user: str, form: methods.KeySigned) -> AuthQuestion | None:
        shown = self._shown(form)
        if shown is None or len(form.signature) > self._config.limits.signature:
            return None
        data = methods.signed_data(
            self._session_id, user, methods.SERVICE, form.algorithm, form.key, methods.bound_to(form)
        )
        try:
            assertion = shown.key.verify(form.signature, data, shown.signature, policy=self._config.security_keys)
        except SignatureInvalid:
            return None
        return KeyAuth(
            id=self._outlet.questions.new_id(),
            user=user,
            key=shown.key,
            algorithm=form.algorithm,
            assertion=assertion,
            certificate=shown.certificate,
        )

    def _shown(self, form: methods.KeyQuery | methods.KeySigned) -> _Shown | None:
        """The key or the certificate, if it can be read, can do the algorithm, and both are allowed here; None as well
        if it is for another server than this one, or the key has done its step of the login already."""
        algorithm, blob, host_key = form.algorithm, form.key, methods.bound_to(form)
        limits, allowed = self._config.limits, self._config.preferences.signature
        if len(blob) > limits.host_key or host_key not in (None, self._host_key):
            return None
        try:
            if algorithm in allowed:
                key = PublicKey.from_blob(blob, minimum_rsa_bits=limits.minimum_rsa_bits)
                shown = _Shown(key, algorithm) if algorithm in key.signature_algorithms else None
            else:
                shown = _certified(algorithm, blob, allowed, limits.minimum_rsa_bits)
        except KeyFormatError:
            return None  # a key that cannot be read fails the login, not the connection
        return None if shown is not None and shown.key.blob in self._spent else shown

    def _consider_interactive(self, user: str, form: methods.KeyboardInteractive) -> AuthQuestion | None:
        hints = form.submethods if methods.is_plain(form.submethods, self._config.limits.user_name) else ""
        return InteractiveAuth(id=self._outlet.questions.new_id(), user=user, submethods=hints)

    def _info_response(self, message: UserauthInfoResponse) -> None:
        if self._prompts is None:
            if not self._prompts_abandoned:
                raise ProtocolViolation("USERAUTH_INFO_RESPONSE came although nothing was asked")
            self._late_responses += 1
            if self._late_responses > _LATE_RESPONSES:
                raise ProtocolViolation(f"more than {_LATE_RESPONSES} answers came to prompts that had been abandoned")
            return
        asked, self._prompts = self._prompts, None
        limit = self._config.limits.password
        if len(message.responses) != asked or not all(methods.is_secret(text, limit) for text in message.responses):
            self._fail()  # RFC 4256 section 3.4
            return
        self._ask(PromptsAnswered(id=self._outlet.questions.new_id(), user=self._user, answers=message.responses))

    # ------------------------------------------------------------------------------------- what the application answers

    def accept(self, question: AuthQuestion) -> None:
        """Let the user in.

        Raises:
            InvalidArgument: The question is a ``KeyProbe``, which proves nothing.
        """
        asked = self._pending(question)
        if isinstance(asked, KeyProbe):
            raise InvalidArgument("a KeyProbe proves nothing and cannot be accepted; answer it with offer_key")
        self._outlet.send(UserauthSuccess())
        self._question = None
        self.succeeded = True
        key, certificate = (asked.key, asked.certificate) if isinstance(asked, KeyAuth) else (None, None)
        self._outlet.emit(Authenticated(user=asked.user, method=self._method, key=key, certificate=certificate))

    def reject(self, question: AuthQuestion, partial: bool = False, methods: Iterable[str] | None = None) -> None:
        """Don't let the user in, or not yet.

        Args:
            question: What is answered.
            partial: The attempt itself was good, and another is wanted on top.
            methods: What the client may go on with, of ``ServerConfig.auth_methods``; other methods are refused without
                a question from now on, for this user. None: as before, after a partial success without the method
                that succeeded.

        Raises:
            InvalidArgument: A method is not one of the configured ones, or a partial success leaves no method or
                follows from no proof.
        """
        asked = self._pending(question)
        if partial and isinstance(asked, KeyProbe | NoneAuth):
            raise InvalidArgument(f"a {type(asked).__name__} proves nothing, so it is no partial success")
        if methods is not None:
            left = self._check_methods(methods)
        else:
            left = tuple(name for name in self._methods if not partial or name != self._method)
        if not partial:
            before, self._methods = self._methods, left
            try:
                self._fail()
            except BaseException:
                self._methods = before
                raise
            self._question = None
            return
        if not left:
            raise InvalidArgument("a partial success needs a method to go on with")
        self._outlet.send(UserauthFailure(left, True))
        self._question = None
        self._methods = left
        self._partial = True
        if isinstance(asked, KeyAuth):
            self._spent |= {asked.key.blob}

    def prompt(
        self,
        question: InteractiveAuth | PromptsAnswered,
        name: str,
        instruction: str,
        prompts: Sequence[Prompt],
    ) -> None:
        """Ask the user (RFC 4256 section 3.2).

        Args:
            question: What is answered.
            name, instruction: What to show first; may be empty.
            prompts: What to ask; may be empty, the client then answers with nothing.

        Raises:
            InvalidArgument: A text cannot be sent, or a prompt's is empty.
            LimitReached: Too many prompts, or too many times.
        """
        asked = self._pending(question)
        if not isinstance(asked, InteractiveAuth | PromptsAnswered):
            raise InvalidArgument(f"a {type(asked).__name__} cannot be answered with prompts")
        limits = self._config.limits
        if len(prompts) > limits.prompts:
            raise LimitReached(f"{len(prompts)} prompts at once; limits.prompts allows {limits.prompts}")
        if self._rounds >= limits.info_rounds:
            raise LimitReached(
                f"prompts for the {self._rounds + 1}th time; limits.info_rounds allows {limits.info_rounds}"
            )
        items = tuple((methods.check_text(prompt.text, "a prompt"), bool(prompt.echo)) for prompt in prompts)
        if not all(text for text, _ in items):
            raise InvalidArgument("the text of a prompt must not be empty (RFC 4256 section 3.2)")
        name, instruction = methods.check_text(name, "name"), methods.check_text(instruction, "instruction")
        message = UserauthInfoRequest(name, instruction, "", items)
        self._outlet.send(message, payload=check_size(message))
        self._question = None
        self._prompts = len(items)
        self._rounds += 1

    def offer_key(self, question: KeyProbe) -> None:
        """The key would do, if the client can prove to hold it (RFC 4252 section 7).

        Raises:
            InvalidArgument: The question is not a ``KeyProbe``.
        """
        asked = self._pending(question)
        if not isinstance(asked, KeyProbe):
            raise InvalidArgument(f"offer_key does not answer a {type(asked).__name__}")
        self._outlet.send(UserauthPkOk(asked.algorithm, (asked.certificate or asked.key).blob))
        self._question = None

    def change_password(self, question: PasswordAuth, prompt: str) -> None:
        """The password has expired, or its replacement will not do: ask for a new one (RFC 4252 section 8).

        Raises:
            InvalidArgument: The question is not a ``PasswordAuth``, or the prompt cannot be sent.
        """
        asked = self._pending(question)
        if not isinstance(asked, PasswordAuth):
            raise InvalidArgument(f"change_password does not answer a {type(asked).__name__}")
        message = UserauthPasswdChangereq(methods.check_text(prompt, "a prompt"))
        self._outlet.send(message, payload=check_size(message))
        self._question = None
        self._change_asked = True

    # --------------------------------------------------------------------------------------------------------- the rest

    @property
    def _user(self) -> str:
        return self._principal[0] if self._principal is not None else ""

    def _check_methods(self, names: Iterable[str]) -> tuple[str, ...]:
        if isinstance(names, str):
            raise InvalidArgument(f"methods must be a sequence of names, not one string: {names!r}")
        found = tuple(names)
        for name in found:
            if name not in self._config.auth_methods:
                allowed = ", ".join(self._config.auth_methods) or "nothing"
                raise InvalidArgument(f"{name!r} is not one of the methods that this server allows: {allowed}")
        return found

    def _pending(self, question: AuthQuestion) -> AuthQuestion:
        """The question that is open, if ``question`` is it. What was asked counts, not what comes back."""
        pending = self._question
        if pending is None or pending.id != question.id:
            raise AlreadyAnswered(f"{type(question).__name__} {question.id} is not waiting for an answer")
        return pending

    def _ask(self, question: AuthQuestion) -> None:
        self._question = question
        self._outlet.ask(question, hold=True)

    def _fail(self) -> None:
        """Answer FAILURE, or end the connection if that was one too many."""
        if self._method == methods.NONE and not self._none_forgiven:
            self._outlet.send(UserauthFailure(self._methods, False))
            self._none_forgiven = True  # a client's way to ask for the list
            return
        if self._failures < self._config.limits.auth_failures:
            self._outlet.send(UserauthFailure(self._methods, False))
        self._count_failure()

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures > self._config.limits.auth_failures:
            self.lost = AuthExhausted(
                f"{self._failures} login attempts failed, the last as {printable(self._user)!r}",
                self._methods,
                self._tried,
            )


def _certified(algorithm: str, blob: bytes, allowed: Collection[str], minimum_rsa_bits: int) -> _Shown | None:
    """A user's certificate, if ``algorithm`` is one for certificates of its type and signs by one that is allowed.

    Raises:
        KeyFormatError: It cannot be read, or its authority's signature does not verify.
    """
    from sshproto.keys.certificates import CERTIFICATE_ALGORITHMS, Certificate
    from sshproto.keys.grants import CertificateKind

    known = CERTIFICATE_ALGORITHMS.get(algorithm)
    if known is None or known.signature not in allowed:
        return None
    certificate = Certificate.from_blob(blob, minimum_rsa_bits=minimum_rsa_bits)
    if certificate.type != known.type or certificate.kind is not CertificateKind.USER:
        return None
    return _Shown(certificate.key, known.signature, certificate)


_CONSIDER: dict[type[methods.Form], Callable[[ServerAuth, str, Any], AuthQuestion | None]] = {
    methods.NoneForm: ServerAuth._consider_none,
    methods.Password: ServerAuth._consider_password,
    methods.PasswordChange: ServerAuth._consider_change,
    methods.PublicKeyQuery: ServerAuth._consider_query,
    methods.PublicKeySigned: ServerAuth._consider_signed,
    methods.HostBoundQuery: ServerAuth._consider_query,
    methods.HostBoundSigned: ServerAuth._consider_signed,
    methods.KeyboardInteractive: ServerAuth._consider_interactive,
}
