"""The server's login machine against clients that are written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto.auth import methods
from sshproto.auth.server import ServerAuth
from sshproto.config import Limits, Preferences, SecurityKeyPolicy, ServerConfig
from sshproto.errors import (
    AlreadyAnswered,
    AuthExhausted,
    ConnectionLoss,
    DisconnectCode,
    InternalError,
    InvalidArgument,
    LimitExceeded,
    LimitReached,
    ProtocolViolation,
    UsageError,
    WireError,
)
from sshproto.events import (
    Authenticated,
    AuthQuestion,
    Event,
    InteractiveAuth,
    KeyAuth,
    KeyProbe,
    NoneAuth,
    PasswordAuth,
    Prompt,
    PromptsAnswered,
)
from sshproto.keys.private import PrivateKey
from sshproto.wire import codec
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
    decode,
)
from tests.support.authenticator import ECDSA as SK_ECDSA
from tests.support.authenticator import ED25519 as SK_ED25519
from tests.support.authenticator import TOUCHED, VERIFIED, WEBAUTHN, Authenticator
from tests.support.outlet import ListOutlet

E = TypeVar("E", bound=Event)

SESSION = b"session-id"
HOST_KEY = b"the host key as it was shown"
HOST = PrivateKey.generate()
KEY = PrivateKey.generate()
OTHER = PrivateKey.generate()
RSA = PrivateKey.generate("ssh-rsa", 2048)
ALL = ("publickey", "password", "keyboard-interactive")
NO = UserauthFailure(ALL, False)
OK = UserauthSuccess()
ASK = Prompt(text="Password: ", echo=False)


def query(key: PrivateKey = KEY, algorithm: str = "ssh-ed25519") -> methods.Form:
    return methods.PublicKeyQuery(algorithm, key.public_key.blob)


def signed(
    key: PrivateKey = KEY, algorithm: str = "ssh-ed25519", user: str = "me", session: bytes = SESSION
) -> methods.Form:
    blob = key.public_key.blob
    data = methods.signed_data(session, user, "ssh-connection", algorithm, blob)
    return methods.PublicKeySigned(algorithm, blob, key.sign(data, algorithm))


class Server:
    """A machine, its outlet, and short words for both."""

    def __init__(self, **config: Any) -> None:
        self.outlet = ListOutlet()
        self.config = ServerConfig(**{"host_keys": (HOST,), "auth_methods": ALL, **config})
        self.machine = ServerAuth(self.config, self.outlet, SESSION, HOST_KEY)
        self.machine.start()

    def event(self, kind: type[E]) -> E:
        """The one event since the last look."""
        (event,) = self.outlet.take_events()
        assert isinstance(event, kind), event
        assert "hunter2" not in repr(event)
        return event

    def receive(self, message: Message) -> None:
        """As the connection does it: over the wire, in the machine's context, not while blocked."""
        assert not self.machine.blocked
        decoded = decode(message.encode(), self.machine.context)
        assert decoded is not None
        self.machine.receive(decoded)

    def request(self, form: methods.Form, user: str = "me") -> None:
        self.receive(methods.request(user, form))

    def ask(self, form: methods.Form, kind: type[E], user: str = "me") -> E:
        """A request that becomes a question."""
        self.request(form, user)
        question = self.event(kind)
        assert self.machine.blocked
        assert self.outlet.take_sent() == []
        return question

    def refused(self, message: Message | methods.Form, answer: Message = NO, user: str = "me") -> None:
        """A request that fails without a question."""
        self.receive(methods.request(user, message) if isinstance(message, methods.Form) else message)
        assert self.outlet.take_sent() == [answer]
        assert self.outlet.take_events() == []
        assert not self.machine.blocked

    def says(self, message: Message) -> None:
        assert self.outlet.take_sent() == [message]
        assert not self.machine.blocked

    def snapshot(self) -> Any:
        values = {name: getattr(self.machine, name) for name in ServerAuth.__slots__ if name != "_outlet"}
        values["_tried"] = list(values["_tried"])
        return values, list(self.outlet.sent), list(self.outlet.events)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.mark.covers("R65")
def test_banner_is_sent_once_with_crlf() -> None:
    server = Server(banner="hello\nworld\r\n")
    server.machine.start()
    server.says(UserauthBanner("hello\r\nworld\r\n"))
    assert Server().outlet.take_sent() == []


def test_what_openssh_does(server: Server) -> None:
    """none, a query of each key, the proof with the one that would do."""
    server.refused(methods.NoneForm())
    probe = server.ask(query(OTHER), KeyProbe)
    server.machine.reject(probe)
    server.says(NO)
    probe = server.ask(query(), KeyProbe)
    assert (probe.user, probe.key, probe.algorithm) == ("me", KEY.public_key, "ssh-ed25519")
    server.machine.offer_key(probe)
    server.says(UserauthPkOk("ssh-ed25519", KEY.public_key.blob))
    proof = server.ask(signed(), KeyAuth)
    assert (proof.user, proof.key, proof.algorithm) == ("me", KEY.public_key, "ssh-ed25519")
    server.machine.accept(proof)
    server.says(OK)
    assert server.event(Authenticated) == Authenticated(user="me", method="publickey", key=KEY.public_key)
    assert server.machine.succeeded
    assert server.machine.context == ""
    server.machine.receive(methods.request("root", methods.NoneForm()))  # SUCCESS only once, later requests ignored
    assert server.outlet.take_sent() == []


def test_none_is_asked_only_on_demand() -> None:
    server = Server(ask_none=True)
    question = server.ask(methods.NoneForm(), NoneAuth)
    server.machine.reject(question)
    server.says(NO)
    server.machine.accept(server.ask(methods.NoneForm(), NoneAuth))
    server.says(OK)
    assert server.event(Authenticated) == Authenticated(user="me", method="none")


@pytest.mark.covers("R73")
def test_password(server: Server) -> None:
    question = server.ask(methods.Password("hunter2"), PasswordAuth)
    assert (question.user, question.password, question.new_password) == ("me", "hunter2", None)
    server.machine.accept(question)
    server.says(OK)
    assert server.event(Authenticated) == Authenticated(user="me", method="password")


@pytest.mark.covers("V63", "R72")
def test_password_change(server: Server) -> None:
    server.machine.change_password(server.ask(methods.Password("hunter2"), PasswordAuth), "Expired")
    server.says(UserauthPasswdChangereq("Expired"))
    question = server.ask(methods.PasswordChange("hunter2", "x"), PasswordAuth)
    assert (question.password, question.new_password) == ("hunter2", "x")
    server.machine.change_password(question, "Too short")
    server.says(UserauthPasswdChangereq("Too short"))
    server.machine.accept(server.ask(methods.PasswordChange("hunter2", "hunter22"), PasswordAuth))
    server.says(OK)


@pytest.mark.covers("V11", "V63")
def test_a_password_change_is_asked_of_one_user(server: Server) -> None:
    server.machine.change_password(server.ask(methods.Password("hunter2"), PasswordAuth), "Expired")
    server.outlet.take_sent()
    server.refused(methods.PasswordChange("hunter2", "new"), user="root")
    server.refused(methods.PasswordChange("hunter2", "new"))


def _after_another_method(server: Server) -> None:
    server.machine.reject(server.ask(query(), KeyProbe))


def _after_a_plain_password(server: Server) -> None:
    server.machine.reject(server.ask(methods.Password("a"), PasswordAuth))


def _after_another_user(server: Server) -> None:
    server.machine.reject(server.ask(methods.Password("a"), PasswordAuth, user="other"))


@pytest.mark.covers("V63")
@pytest.mark.parametrize("between", [_after_another_method, _after_a_plain_password, _after_another_user])
def test_an_unasked_password_change_fails(server: Server, between: Callable[[Server], None]) -> None:
    """A right old password with a change that nobody asked for must not become a login."""
    server.refused(methods.PasswordChange("hunter2", "new"))
    server.machine.change_password(server.ask(methods.Password("hunter2"), PasswordAuth), "Expired")
    server.outlet.take_sent()
    between(server)
    server.outlet.take_sent()
    server.refused(methods.PasswordChange("hunter2", "new"))


@pytest.mark.covers("V62", "R73", "B18")
@pytest.mark.parametrize("bad", ["", "a\0", "x" * 1025, "\udcff", "é" * 513], ids=lambda bad: repr(bad)[:12])
def test_bad_passwords(server: Server, bad: str) -> None:
    server.refused(methods.Password(bad))
    server.machine.change_password(server.ask(methods.Password("a"), PasswordAuth), "")
    server.outlet.take_sent()
    server.refused(methods.PasswordChange("a", bad))
    server.machine.prompt(server.ask(methods.KeyboardInteractive(), InteractiveAuth), "", "", [ASK])
    server.outlet.take_sent()
    if bad:
        server.refused(UserauthInfoResponse((bad,)))
    else:
        server.receive(UserauthInfoResponse((bad,)))
        assert server.event(PromptsAnswered).answers == ("",)  # RFC 4256 section 3.3


@pytest.mark.covers("V62", "B18")
def test_the_longest_password(server: Server) -> None:
    assert server.ask(methods.Password("é" * 512), PasswordAuth).password == "é" * 512


@pytest.mark.covers("V62", "B18")
@pytest.mark.parametrize("bad", ["a\0b", "a\x1b", "a\n", "\x9b", "\udc80", "x" * 1025], ids=lambda bad: repr(bad)[:12])
def test_bad_user_names(bad: str) -> None:
    for form in (query(), methods.Password("hunter2"), methods.KeyboardInteractive(), signed(user=bad)):
        Server().refused(form, user=bad)
    Server(ask_none=True).refused(methods.NoneForm(), user=bad)


@pytest.mark.covers("V62", "B18")
def test_the_longest_user_name(server: Server) -> None:
    assert server.ask(methods.Password("x"), PasswordAuth, user="u" * 1024).user == "u" * 1024


@pytest.mark.covers("R58")
@pytest.mark.parametrize("service", ["foo", "", "ssh-userauth", "ssh-connection "])
def test_other_services_fail(service: str) -> None:
    server = Server(ask_none=True)
    for form in (methods.NoneForm(), methods.Password("x"), signed(), query(), methods.KeyboardInteractive()):
        server.refused(UserauthRequest("me", service, form.method, form.encode()))


@pytest.mark.covers("V18")
@pytest.mark.parametrize("method", ["", "hostbased", "gssapi-with-mic", "publickey-hostbound@openssh.com", "x" * 500])
def test_unknown_methods_fail(server: Server, method: str) -> None:
    server.refused(UserauthRequest("me", "ssh-connection", method, b"\xff\xff\xff\xff"))


@pytest.mark.covers("V64")
@pytest.mark.parametrize("offered", ALL)
def test_a_method_that_is_not_configured_fails_without_a_question(offered: str) -> None:
    server = Server(auth_methods=(offered,))  # R56, V64
    answer = UserauthFailure((offered,), False)
    forms = {
        "publickey": (query(), signed()),
        "password": (methods.Password("x"),),
        "keyboard-interactive": (methods.KeyboardInteractive(),),
    }
    del forms[offered]
    for form in (methods.NoneForm(), *(form for pair in forms.values() for form in pair)):
        server.refused(form, answer)
    Server(auth_methods=(), ask_none=True).refused(methods.Password("x"), UserauthFailure((), False))


@pytest.mark.parametrize("names", [("hostbased",), ("none",), ("password", "PASSWORD"), ()])
def test_what_cannot_be_done_is_not_configured(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument):
        Server(auth_methods=names)


# ---------------------------------------------------------------------------------------------------------- public keys


@pytest.mark.covers("R135", "V46", "R67")
def test_rsa(server: Server) -> None:
    for algorithm in ("rsa-sha2-256", "rsa-sha2-512"):
        server.machine.offer_key(server.ask(query(RSA, algorithm), KeyProbe))
        server.says(UserauthPkOk(algorithm, RSA.public_key.blob))
        server.machine.reject(server.ask(signed(RSA, algorithm), KeyAuth))
        server.says(NO)
    server.refused(signed(RSA, "ssh-rsa"))
    legacy = Server(preferences=Preferences(signature=("ssh-rsa",)))
    legacy.ask(signed(RSA, "ssh-rsa"), KeyAuth)
    Server(preferences=Preferences(signature=("rsa-sha2-256",))).refused(query(RSA, "rsa-sha2-512"))


def blob(*parts: bytes) -> bytes:
    return b"".join(codec.string(part) for part in parts)


GARBAGE = [
    b"",
    b"junk",
    b"\xff\xff\xff\xff",
    blob(b"ssh-ed25519"),
    blob(b"ssh-ed25519", b"x" * 31),
    blob(b"ssh-ed25519", bytes(32)),  # small order
    blob(b"ssh-ed25519", b"\x01" + bytes(31)),
    KEY.public_key.blob + b"\0",
    RSA.public_key.blob,  # another type than the algorithm's
    blob(b"ssh-ed25519", b"x" * 20_000),
    blob(b"ssh-unknown", b"x"),
]


@pytest.mark.covers("V66", "R71", "R69")
@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda garbage: garbage.hex()[:24])
def test_a_key_that_is_none_fails_the_login_only(server: Server, garbage: bytes) -> None:
    server.refused(methods.PublicKeyQuery("ssh-ed25519", garbage))
    server.refused(methods.PublicKeySigned("ssh-ed25519", garbage, KEY.sign(b"")))
    server.ask(query(), KeyProbe)


@pytest.mark.covers("R68", "V12")
def test_every_signed_field_counts(server: Server) -> None:
    server = Server(limits=Limits(auth_failures=50))
    good = signed()
    assert isinstance(good, methods.PublicKeySigned)
    data = methods.signed_data(SESSION, "me", "ssh-connection", "ssh-ed25519", good.key)
    for index in range(len(data)):
        if index % 7 == 0:
            other = bytearray(data)
            other[index] ^= 1
            server.refused(methods.PublicKeySigned("ssh-ed25519", good.key, KEY.sign(bytes(other))))
    for wrong in (signed(user="root"), signed(session=b"other"), methods.PublicKeySigned("ssh-ed25519", good.key, b"")):
        server.refused(wrong)
    server.refused(methods.PublicKeySigned("ssh-ed25519", OTHER.public_key.blob, good.signature))
    server.refused(methods.PublicKeySigned("ssh-ed25519", good.key, good.signature + b"\0"))
    server.refused(methods.PublicKeySigned("ssh-ed25519", good.key, good.signature + bytes(5000)))
    server.refused(signed(), user="root")
    server.ask(good, KeyAuth)


@pytest.mark.covers("V12", "R70")
def test_the_key_that_signed_is_the_key_that_counts(server: Server) -> None:
    """Query one, sign with another, in every order."""
    server.machine.offer_key(server.ask(query(OTHER), KeyProbe))
    server.outlet.take_sent()
    server.machine.offer_key(server.ask(query(RSA, "rsa-sha2-512"), KeyProbe))
    server.outlet.take_sent()
    proof = server.ask(signed(KEY), KeyAuth)
    assert proof.key == KEY.public_key
    # What comes back from the application is not what counts.
    forged = KeyAuth(id=proof.id, user="root", key=OTHER.public_key, algorithm="ssh-ed25519")
    server.outlet.take_sent()
    server.machine.accept(forged)
    assert server.event(Authenticated) == Authenticated(user="me", method="publickey", key=KEY.public_key)


# -------------------------------------------------------------------------------------------------------- security keys


def by_token(token: Authenticator, algorithm: str, flags: int) -> methods.Form:
    blob = token.public_key.blob
    data = methods.signed_data(SESSION, "me", "ssh-connection", algorithm, blob)
    signature = token.browse(data, flags) if algorithm == WEBAUTHN else token.sign(data, flags)
    return methods.PublicKeySigned(algorithm, blob, signature)


@pytest.mark.parametrize(("kind", "algorithm"), [(SK_ED25519, SK_ED25519), (SK_ECDSA, SK_ECDSA), (SK_ECDSA, WEBAUTHN)])
@pytest.mark.covers("V52")
def test_security_keys_log_in_when_they_were_touched(kind: str, algorithm: str) -> None:
    token = Authenticator(kind)
    for flags in (TOUCHED, TOUCHED | VERIFIED):
        server = Server()
        probe = server.ask(methods.PublicKeyQuery(algorithm, token.public_key.blob), KeyProbe)
        assert (probe.key, probe.algorithm) == (token.public_key, algorithm)
        server.machine.offer_key(probe)
        server.outlet.take_sent()
        proof = server.ask(by_token(token, algorithm, flags), KeyAuth)
        assert (proof.key, proof.algorithm) == (token.public_key, algorithm)
        assert proof.assertion is not None
        assert proof.assertion.user_verified == bool(flags & VERIFIED)
        assert proof.assertion.counter == token.counter
        server.machine.accept(proof)
        assert server.event(Authenticated).key == token.public_key
    server = Server()
    for flags in (0, VERIFIED, 0xFA):
        server.request(by_token(token, algorithm, flags))
        assert not server.outlet.take_events()
        assert server.outlet.take_sent() == [NO]


def test_what_a_server_asks_of_security_keys() -> None:
    token = Authenticator()
    strict = Server(security_keys=SecurityKeyPolicy(user_verification=True))
    strict.request(by_token(token, SK_ED25519, TOUCHED))
    assert strict.outlet.take_sent() == [NO]
    assert strict.ask(by_token(token, SK_ED25519, TOUCHED | VERIFIED), KeyAuth).assertion is not None
    lax = Server(security_keys=SecurityKeyPolicy(user_presence=False))
    proof = lax.ask(by_token(token, SK_ED25519, 0), KeyAuth)
    assert proof.assertion is not None
    assert not proof.assertion.user_present
    assert Server().ask(signed(), KeyAuth).assertion is None
    none = Server(preferences=Preferences(signature=("ssh-ed25519",)))
    none.request(by_token(token, SK_ED25519, TOUCHED))
    assert none.outlet.take_sent() == [NO]


@pytest.mark.covers("V12", "V65")
def test_a_probe_cannot_be_accepted(server: Server) -> None:
    question = server.ask(query(), KeyProbe)
    before = server.snapshot()
    forged = KeyAuth(id=question.id, user="me", key=KEY.public_key, algorithm="ssh-ed25519")
    for probe in (question, forged):
        with pytest.raises(InvalidArgument, match="proves nothing"):
            server.machine.accept(probe)
        with pytest.raises(InvalidArgument, match="proves nothing"):
            server.machine.reject(probe, partial=True)
    assert server.snapshot() == before


# ------------------------------------------------------------------------------------------------- keyboard-interactive


@pytest.mark.covers("R75", "R76", "R77")
def test_keyboard_interactive(server: Server) -> None:
    question = server.ask(methods.KeyboardInteractive("", "otp,pam"), InteractiveAuth)
    assert (question.user, question.submethods) == ("me", "otp,pam")
    server.machine.prompt(question, "Name", "Do it", [ASK, Prompt(text="Code", echo=True)])
    server.says(UserauthInfoRequest("Name", "Do it", "", (("Password: ", False), ("Code", True))))
    server.receive(UserauthInfoResponse(("hunter2", "")))
    answers = server.event(PromptsAnswered)
    assert (answers.user, answers.answers) == ("me", ("hunter2", ""))
    server.machine.prompt(answers, "", "Bye", [])
    server.says(UserauthInfoRequest("", "Bye", "", ()))
    server.receive(UserauthInfoResponse(()))
    server.machine.accept(server.event(PromptsAnswered))
    server.says(OK)
    assert server.event(Authenticated) == Authenticated(user="me", method="keyboard-interactive")


@pytest.mark.parametrize("hints", ["a\x1b[m", "\udcff", "x" * 1025])
def test_odd_submethods_are_dropped(server: Server, hints: str) -> None:
    assert server.ask(methods.KeyboardInteractive("", hints), InteractiveAuth).submethods == ""


@pytest.mark.covers("R78", "V25")
@pytest.mark.parametrize("count", [0, 1, 3, 33, 100])
def test_a_wrong_number_of_answers_fails(server: Server, count: int) -> None:
    server.machine.prompt(server.ask(methods.KeyboardInteractive(), InteractiveAuth), "", "", [ASK, ASK])
    server.outlet.take_sent()
    server.refused(UserauthInfoResponse(("x",) * count))
    with pytest.raises(ProtocolViolation, match="nothing was asked"):  # the attempt is over
        server.receive(UserauthInfoResponse(("x", "x")))


def test_unasked_answers(server: Server) -> None:
    with pytest.raises(ProtocolViolation, match="nothing was asked"):
        server.receive(UserauthInfoResponse(()))
    server = Server()
    server.machine.reject(server.ask(methods.KeyboardInteractive(), InteractiveAuth))
    with pytest.raises(ProtocolViolation, match="nothing was asked"):
        server.receive(UserauthInfoResponse(()))


@pytest.mark.covers("R60")
def test_a_new_request_abandons_the_prompts(server: Server) -> None:
    """No FAILURE for what was aborted; late answers are ignored, four of them."""
    server.machine.prompt(server.ask(methods.KeyboardInteractive(), InteractiveAuth), "", "", [ASK])
    server.outlet.take_sent()
    question = server.ask(methods.Password("x"), PasswordAuth)
    server.machine.reject(question)
    server.says(NO)
    for _ in range(4):
        server.receive(UserauthInfoResponse(("hunter2",)))
        assert server.outlet.take_events() == []
        assert server.outlet.take_sent() == []
    with pytest.raises(ProtocolViolation, match="abandoned"):
        server.receive(UserauthInfoResponse(("hunter2",)))


@pytest.mark.covers("B19", "R77")
def test_prompts_that_cannot_be_sent(server: Server) -> None:
    question = server.ask(methods.KeyboardInteractive(), InteractiveAuth)
    before = server.snapshot()
    empty = Prompt(text="", echo=True)
    for name, instruction, prompts, error in (
        ("", "", [ASK] * 33, LimitReached),
        ("", "", [empty], InvalidArgument),
        ("\udcff", "", [], InvalidArgument),
        ("", "\ud800", [], InvalidArgument),
        ("", "x" * 40_000, [], InvalidArgument),
        (b"", "", [], InvalidArgument),
    ):
        with pytest.raises(error):
            server.machine.prompt(question, name, instruction, prompts)  # type: ignore[arg-type]
    assert server.snapshot() == before
    server.machine.prompt(question, "", "", [ASK] * 32)


@pytest.mark.covers("B17", "R76")
def test_rounds(server: Server) -> None:
    question: Any = server.ask(methods.KeyboardInteractive(), InteractiveAuth)
    for _ in range(32):
        server.machine.prompt(question, "", "", [])
        server.receive(UserauthInfoResponse(()))
        question = server.event(PromptsAnswered)
    with pytest.raises(LimitReached, match="33th"):
        server.machine.prompt(question, "", "", [])
    server.outlet.take_sent()
    server.machine.reject(question)
    server.says(NO)
    server.machine.prompt(
        server.ask(methods.KeyboardInteractive(), InteractiveAuth), "", "", []
    )  # a new login, a new count


# ------------------------------------------------------------------------------------------------------ several methods


@pytest.mark.covers("R61")
def test_partial_success(server: Server) -> None:
    server.machine.reject(server.ask(signed(), KeyAuth), partial=True)
    rest = ("password", "keyboard-interactive")
    server.says(UserauthFailure(rest, True))
    after = UserauthFailure(rest, False)
    for form in (query(), signed(), methods.NoneForm()):  # what is done is done
        server.refused(form, after)
    server.machine.reject(server.ask(methods.Password("x"), PasswordAuth), partial=True)
    server.says(UserauthFailure(("keyboard-interactive",), True))
    server.machine.accept(server.ask(methods.KeyboardInteractive(), InteractiveAuth))
    server.says(OK)


@pytest.mark.covers("V64")
def test_none_is_no_second_method() -> None:
    server = Server(ask_none=True)
    server.machine.reject(server.ask(signed(), KeyAuth), partial=True, methods=["password"])
    server.says(UserauthFailure(("password",), True))
    server.refused(methods.NoneForm(), UserauthFailure(("password",), False))


@pytest.mark.covers("R61")
def test_methods_can_be_narrowed(server: Server) -> None:
    server.machine.reject(server.ask(methods.Password("x"), PasswordAuth), methods=["publickey"])
    only = UserauthFailure(("publickey",), False)
    server.says(only)
    server.refused(methods.Password("x"), only)
    server.machine.reject(server.ask(signed(), KeyAuth), partial=True, methods=["publickey"])  # a second key
    server.says(UserauthFailure(("publickey",), True))
    server.machine.accept(server.ask(signed(OTHER), KeyAuth))
    server.says(OK)


def test_a_key_counts_once(server: Server) -> None:
    """Where two keys are wanted, one that is shown twice is one, under whatever name."""
    after = UserauthFailure(("publickey",), False)
    server.machine.reject(server.ask(signed(RSA, "rsa-sha2-512"), KeyAuth), partial=True, methods=["publickey"])
    server.says(UserauthFailure(("publickey",), True))
    for algorithm in ("rsa-sha2-512", "rsa-sha2-256"):
        server.refused(query(RSA, algorithm), after)
        server.refused(signed(RSA, algorithm), after)
    server.machine.reject(server.ask(signed(), KeyAuth), partial=True, methods=["publickey"])
    server.says(UserauthFailure(("publickey",), True))
    server.refused(query(), after)
    server.refused(methods.HostBoundQuery("rsa-sha2-512", RSA.public_key.blob, HOST_KEY), after)
    server.machine.accept(server.ask(signed(OTHER), KeyAuth))
    server.says(OK)


@pytest.mark.covers("V11", "R57")
def test_another_user_starts_anew(server: Server) -> None:
    server.machine.reject(server.ask(methods.Password("x"), PasswordAuth), methods=["publickey"])
    server.outlet.take_sent()
    question = server.ask(methods.Password("x"), PasswordAuth, user="other")
    server.machine.reject(question)
    server.says(NO)


@pytest.mark.covers("V11", "R57")
@pytest.mark.parametrize(("user", "service"), [("root", "ssh-connection"), ("me", "foo"), ("me ", "ssh-connection")])
def test_another_principal_after_a_partial_success(server: Server, user: str, service: str) -> None:
    server.machine.reject(server.ask(signed(), KeyAuth), partial=True)
    for form in (methods.Password("x"), methods.NoneForm()):
        with pytest.raises(ProtocolViolation, match="partially successful"):
            server.receive(UserauthRequest(user, service, form.method, form.encode()))
    assert len(server.outlet.take_sent()) == 1


def test_rejections_that_cannot_be(server: Server) -> None:
    question = server.ask(methods.Password("x"), PasswordAuth)
    before = server.snapshot()
    for partial in (False, True):
        for bad in (["none"], ["hostbased"], "password", ["pass,word"]):
            with pytest.raises(InvalidArgument):
                server.machine.reject(question, partial, bad)
    with pytest.raises(InvalidArgument, match="a method to go on with"):
        server.machine.reject(question, partial=True, methods=[])
    assert server.snapshot() == before
    lone = Server(auth_methods=("password",))
    with pytest.raises(InvalidArgument, match="a method to go on with"):
        lone.machine.reject(lone.ask(methods.Password("x"), PasswordAuth), partial=True)
    free = Server(ask_none=True)
    with pytest.raises(InvalidArgument, match="proves nothing"):
        free.machine.reject(free.ask(methods.NoneForm(), NoneAuth), partial=True)


# -------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.covers("R62", "V12")
def test_answers_are_for_the_open_question(server: Server) -> None:
    first = server.ask(methods.Password("x"), PasswordAuth)
    server.machine.reject(first)
    server.outlet.take_sent()
    for answer in (server.machine.accept, server.machine.reject):
        with pytest.raises(AlreadyAnswered):
            answer(first)
    server.ask(methods.Password("y"), PasswordAuth)
    with pytest.raises(AlreadyAnswered):
        server.machine.accept(first)
    assert not server.machine.succeeded


def test_answers_of_the_wrong_kind(server: Server) -> None:
    machine = server.machine
    password: Any = server.ask(methods.Password("x"), PasswordAuth)
    before = server.snapshot()
    with pytest.raises(InvalidArgument):
        machine.offer_key(password)
    with pytest.raises(InvalidArgument):
        machine.prompt(password, "", "", [])
    with pytest.raises(InvalidArgument):
        machine.change_password(password, "\udcff")
    assert server.snapshot() == before
    machine.reject(password)
    interactive: Any = (server.outlet.take_sent(), server.ask(methods.KeyboardInteractive(), InteractiveAuth))[1]
    with pytest.raises(InvalidArgument):
        machine.change_password(interactive, "x")
    with pytest.raises(InvalidArgument):
        machine.offer_key(interactive)


def test_a_full_outlet_changes_nothing(server: Server) -> None:
    machine = server.machine
    answers: list[tuple[methods.Form, type[AuthQuestion], Callable[[Any], None]]] = [
        (methods.Password("x"), PasswordAuth, machine.accept),
        (methods.Password("x"), PasswordAuth, machine.reject),
        (methods.Password("x"), PasswordAuth, lambda q: machine.reject(q, methods=["password"])),
        (methods.Password("x"), PasswordAuth, lambda q: machine.change_password(q, "")),
        (query(), KeyProbe, machine.offer_key),
        (methods.KeyboardInteractive(), InteractiveAuth, lambda q: machine.prompt(q, "", "", [])),
        (signed(), KeyAuth, lambda q: machine.reject(q, partial=True)),
    ]
    for form, kind, answer in answers:
        question = server.ask(form, kind)
        server.outlet.full = True
        before = server.snapshot()
        with pytest.raises(LimitReached):
            answer(question)
        assert server.snapshot() == before
        server.outlet.full = False
        machine.reject(question)
        server.outlet.take_sent()
        machine._failures = 0


@pytest.mark.covers("R62")
def test_input_while_blocked_is_a_bug(server: Server) -> None:
    server.ask(methods.Password("x"), PasswordAuth)
    with pytest.raises(InternalError):
        server.machine.receive(methods.request("me", methods.NoneForm()))


@pytest.mark.covers("V06")
def test_messages_of_a_server_from_a_client(server: Server) -> None:
    for message in (OK, NO, UserauthBanner("x"), UserauthPkOk("a", b""), UserauthPasswdChangereq("")):
        with pytest.raises(ProtocolViolation):
            server.machine.receive(message)
    early = ServerAuth(server.config, ListOutlet(), SESSION, HOST_KEY)
    with pytest.raises(ProtocolViolation, match="before the service"):
        early.receive(methods.request("me", methods.NoneForm()))


# --------------------------------------------------------------------------------------------------------------- limits


def lost(server: Server) -> AuthExhausted:
    error = server.machine.lost
    assert isinstance(error, AuthExhausted)
    assert error.code == DisconnectCode.NO_MORE_AUTH_METHODS_AVAILABLE
    assert not server.machine.blocked
    return error


def _password(server: Server) -> None:
    server.machine.reject(server.ask(methods.Password("x"), PasswordAuth))


def _probe(server: Server) -> None:
    server.machine.reject(server.ask(query(), KeyProbe))


def _bad_key(server: Server) -> None:
    server.request(methods.PublicKeyQuery("ssh-ed25519", b"x"))


def _bad_signature(server: Server) -> None:
    server.request(signed(session=b"x"))


def _unknown_method(server: Server) -> None:
    server.receive(UserauthRequest("me", "ssh-connection", "x"))


def _unknown_service(server: Server) -> None:
    server.receive(UserauthRequest("me", "x", "password", methods.Password("x").encode()))


def _bad_user(server: Server) -> None:
    server.request(methods.Password("x"), user="\0")


def _wrong_count(server: Server) -> None:
    server.machine.prompt(server.ask(methods.KeyboardInteractive(), InteractiveAuth), "", "", [])
    server.outlet.take_sent()
    server.receive(UserauthInfoResponse(("x",)))


FAILURES = [_password, _probe, _bad_key, _bad_signature, _unknown_method, _unknown_service, _bad_user, _wrong_count]


@pytest.mark.covers("V61", "B17", "R55")
@pytest.mark.parametrize("fail", FAILURES)
def test_failures(fail: Callable[[Server], None]) -> None:
    """Six failures of whatever kind are answered, with the first none for free; the seventh is the last."""
    server = Server()
    server.refused(methods.NoneForm())
    for _ in range(6):
        fail(server)
        server.says(NO)
        server.outlet.take_events()
        assert server.machine.lost is None
    fail(server)
    assert server.outlet.take_sent() == []
    assert lost(server).methods == ALL
    server.machine.receive(methods.request("me", signed()))
    assert not server.machine.blocked


@pytest.mark.covers("V61")
def test_only_the_first_none_is_free(server: Server) -> None:
    for _ in range(7):
        server.refused(methods.NoneForm())
    server.request(methods.NoneForm())
    assert lost(server).tried == ("none",)


@pytest.mark.covers("V61")
def test_abandoned_prompts_are_failures(server: Server) -> None:
    for _ in range(7):
        server.machine.prompt(server.ask(methods.KeyboardInteractive(), InteractiveAuth), "", "", [ASK])
        server.outlet.take_sent()
    server.request(methods.KeyboardInteractive())
    lost(server)
    assert server.outlet.take_events() == []


@pytest.mark.covers("V61")
def test_counters_survive_everything(server: Server) -> None:
    for attempt in range(7):
        server.machine.start()
        server.machine.reject(server.ask(methods.Password("x"), PasswordAuth, user=f"user{attempt}"))
        server.outlet.take_sent()
    lost(server)


@pytest.mark.covers("V61", "B17")
def test_requests_in_all() -> None:
    server = Server()
    for _ in range(128):
        server.machine.offer_key(server.ask(query(), KeyProbe))
        server.outlet.take_sent()
    with pytest.raises(LimitExceeded) as caught:
        server.request(signed())
    assert (caught.value.limit, caught.value.code) == ("auth_requests", 14)


# -------------------------------------------------------------------------------------------------- malformed and alike


def wire(method: str, payload: bytes, user: str = "me") -> UserauthRequest:
    return UserauthRequest(user, "ssh-connection", method, payload)


MALFORMED = [
    wire("none", b"\0"),
    wire("password", b""),
    wire("password", methods.Password("x").encode() + b"\0"),
    wire("password", b"\1" + codec.string(b"old")),
    wire("publickey", query().encode()[:-1]),
    wire("publickey", b"\1" + query().encode()[1:]),  # R71: TRUE without a signature
    wire("publickey", signed().encode() + b"\0"),
    wire("publickey", b"\0" + codec.string(b"ssh-\xff") + codec.string(b"")),
    wire("keyboard-interactive", bytes(4)),
    wire("keyboard-interactive", bytes(9)),
]


@pytest.mark.covers("V60", "R71")
@pytest.mark.parametrize("message", MALFORMED, ids=lambda message: f"{message.method} {message.payload.hex()[:16]}")
@pytest.mark.parametrize("user", ["me", "nobody", "\0", "x" * 1025])
@pytest.mark.parametrize("allowed", [ALL, ()])
def test_malformed_requests_end_the_same_for_all(message: UserauthRequest, user: str, allowed: tuple[str, ...]) -> None:
    """Decoded whole before anyone is looked up, allowed or not."""
    server = Server(auth_methods=allowed, ask_none=True)
    with pytest.raises(WireError):
        server.receive(UserauthRequest(user, message.service, message.method, message.payload))
    assert server.outlet.take_sent() == []
    assert server.outlet.take_events() == []


@pytest.mark.covers("V60", "R59", "R79", "P19")
def test_same_bytes_for_known_and_unknown_users() -> None:
    """Whoever does not exist is asked about and refused as whoever does."""
    forms = [
        methods.NoneForm(),
        query(),
        methods.PublicKeyQuery("ssh-ed25519", b"x"),
        signed(session=b"x"),
        methods.Password("wrong"),
        methods.KeyboardInteractive(),
    ]
    traces = []
    for user in ("known", "unknown"):
        server = Server()
        kinds: list[type[Event]] = []
        for form in forms:
            server.request(form, user)
            for event in server.outlet.take_events():
                kinds.append(type(event))
                assert isinstance(event, AuthQuestion)
                server.machine.reject(event)
        traces.append(([message.encode() for message in server.outlet.sent], kinds))
    assert traces[0] == traces[1]


# ------------------------------------------------------------------------------------------------------------- property

users = st.sampled_from(["me", "root", "", "a\0", "x" * 1025])
services = st.sampled_from(["ssh-connection", "ssh-connection", "ssh-connection", "foo"])
SIGNED = {
    (user, right): signed(user=user, session=SESSION if right else b"x")
    for user in ("me", "root")
    for right in (True, False)
}
forms = st.one_of(
    st.just(methods.NoneForm()),
    st.sampled_from([query(), query(OTHER), query(RSA, "rsa-sha2-512"), query(RSA, "ssh-rsa")]),
    st.sampled_from(list(SIGNED.values())),
    st.builds(
        methods.PublicKeySigned, st.sampled_from(["ssh-ed25519", "x"]), st.binary(max_size=8), st.binary(max_size=8)
    ),
    st.builds(methods.Password, st.sampled_from(["hunter2", "", "x" * 1025])),
    st.builds(methods.PasswordChange, st.just("old"), st.just("new")),
    st.builds(methods.KeyboardInteractive),
)
requests = st.builds(
    lambda user, service, form: UserauthRequest(user, service, form.method, form.encode()), users, services, forms
)
junk = st.builds(UserauthRequest, users, services, st.sampled_from([*methods.FORMS, "x"]), st.binary(max_size=20))
client_messages = st.one_of(
    requests,
    requests,
    requests,
    junk,
    st.builds(UserauthInfoResponse, st.lists(st.just("x"), max_size=3).map(tuple)),
    st.sampled_from([OK, NO, UserauthBanner("x")]),
)
raw = st.builds(lambda number, rest: bytes((number,)) + rest, st.sampled_from([50, 61]), st.binary(max_size=24))
ANSWERS: list[Callable[[ServerAuth, Any], None]] = [
    lambda machine, q: machine.reject(q),
    lambda machine, q: machine.reject(q, partial=True),
    lambda machine, q: machine.prompt(q, "", "", [ASK]),
    lambda machine, q: machine.prompt(q, "", "", []),
    lambda machine, q: machine.offer_key(q),
    lambda machine, q: machine.change_password(q, "new"),
    lambda machine, q: machine.accept(q),
]


@settings(max_examples=250, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(client_messages, client_messages, raw), st.integers(0, len(ANSWERS) - 1)), max_size=20)
)
def test_arbitrary_clients(script: list[tuple[Message | bytes, int]]) -> None:
    """Nothing but losses is raised; success only by accepting the open question, which was no query."""
    server = Server(ask_none=True)
    machine, outlet = server.machine, server.outlet
    for step, choice in script:
        try:
            message = decode(step, machine.context) if isinstance(step, bytes) else step
            if message is None:
                continue
            machine.receive(message)
        except (ConnectionLoss, WireError):
            assert not machine.succeeded
            return
        assert not machine.succeeded
        sent, events = outlet.take_sent(), outlet.take_events()
        assert len(sent) + len(events) <= 1
        assert OK not in sent
        if machine.lost is not None:
            assert isinstance(machine.lost, AuthExhausted)
            return
        assert machine.blocked == bool(events)
        if not events:
            continue
        (question,) = events
        assert isinstance(question, AuthQuestion)
        assert question.user in ("me", "root", "")
        if isinstance(question, KeyAuth):
            assert message == methods.request(question.user, SIGNED[question.user, True])
        before = server.snapshot()
        try:
            ANSWERS[choice](machine, question)
        except UsageError:
            assert server.snapshot() == before
            assert machine.blocked
            machine.reject(question)
            choice = 0
        assert not machine.blocked
        assert machine.succeeded == (choice == len(ANSWERS) - 1)
        if machine.succeeded:
            assert not isinstance(question, KeyProbe)
            assert outlet.sent == [OK]
            assert isinstance(outlet.events[-1], Authenticated)
            assert outlet.events[-1].user == question.user
            return
        if machine.lost is not None:
            return
        assert len(outlet.take_sent()) == 1
