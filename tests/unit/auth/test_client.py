"""The client's login machine against a server that is written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto.auth import methods
from sshproto.auth.client import ClientAuth
from sshproto.config import ClientConfig, Limits, Preferences
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
    SignatureInvalid,
    UsageError,
    WireError,
)
from sshproto.events import (
    AuthFailed,
    AuthSucceeded,
    BannerReceived,
    CredentialNeeded,
    Event,
    PasswordExpired,
    Prompt,
    PromptsReceived,
    Question,
    SignatureNeeded,
)
from sshproto.keys.private import PrivateKey
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
from tests.support.outlet import ListOutlet

E = TypeVar("E", bound=Event)

SESSION = b"session-id"
KEY = PrivateKey.generate()
OTHER = PrivateKey.generate()
ECDSA = PrivateKey.generate("ecdsa-sha2-nistp256")
RSA = PrivateKey.generate("ssh-rsa", 2048)
MORE = UserauthFailure(("publickey", "password"), False)


class Client:
    """A machine, its outlet, and short words for both."""

    def __init__(self, **config: Any) -> None:
        self.outlet = ListOutlet()
        self.config = ClientConfig(user="me", **config)
        self.machine = ClientAuth(self.config, self.outlet, SESSION)
        self.machine.start()

    def event(self, kind: type[E]) -> E:
        """The one event since the last look."""
        (event,) = self.outlet.take_events()
        assert isinstance(event, kind), event
        return event

    def last(self, kind: type[E]) -> E:
        event = self.outlet.take_events()[-1]
        assert isinstance(event, kind), event
        return event

    def receive(self, message: Message) -> None:
        """As the connection does it: over the wire, in the machine's context."""
        decoded = decode(message.encode(), self.machine.context)
        assert decoded is not None
        self.machine.receive(decoded)

    def form(self) -> methods.Form:
        """What the one request since the last look asks for."""
        (message,) = self.outlet.take_sent()
        assert isinstance(message, UserauthRequest)
        assert (message.user, message.service) == ("me", "ssh-connection")
        form = methods.parse(message.method, message.payload)
        assert form is not None
        return form

    def snapshot(self) -> Any:
        values = {}
        for name in ClientAuth.__slots__:
            value = getattr(self.machine, name)
            if attrs.has(type(value)) and name == "_attempt":
                value = attrs.astuple(value, recurse=False)
            values[name] = list(value) if isinstance(value, list) else value
        del values["_outlet"]
        return values, list(self.outlet.sent), list(self.outlet.events)


@pytest.fixture
def client() -> Client:
    return Client()


def test_the_first_question_knows_nothing(client: Client) -> None:
    question = client.event(CredentialNeeded)
    assert (question.methods, question.partial_success, question.attempt) == ((), False, 0)
    assert client.outlet.take_sent() == []
    client.machine.start()  # a second time changes nothing
    assert client.outlet.take_events() == []


def test_none_then_the_list(client: Client) -> None:
    client.machine.none(client.event(CredentialNeeded))
    assert client.form() == methods.NoneForm()
    client.receive(UserauthFailure(("publickey", "x-unknown@example.org"), False))
    failed, question = client.outlet.take_events()
    assert failed == AuthFailed("none", ("publickey", "x-unknown@example.org"), False)
    assert isinstance(question, CredentialNeeded)
    assert (question.methods, question.attempt) == (("publickey", "x-unknown@example.org"), 1)


def test_password(client: Client) -> None:
    client.machine.password(client.event(CredentialNeeded), "pässwörd")
    assert client.form() == methods.Password("pässwörd")
    assert client.machine.context == "password"
    client.receive(UserauthSuccess())
    assert client.event(AuthSucceeded) == AuthSucceeded("password", False)
    assert client.machine.succeeded
    assert client.machine.context == ""


def test_password_change_with_two_rounds(client: Client) -> None:
    client.machine.password(client.event(CredentialNeeded), "old")
    client.form()
    client.receive(UserauthPasswdChangereq("Expired.\x1b[2J\r\nNew one?"))
    question = client.event(PasswordExpired)
    assert question.prompt == "Expired.\\x1b[2J\nNew one?"
    client.machine.new_password(question, "old", "new")
    assert client.form() == methods.PasswordChange("old", "new")
    client.receive(UserauthPasswdChangereq("too easy"))
    client.machine.new_password(client.event(PasswordExpired), "old", "better")
    client.form()
    client.receive(UserauthSuccess())
    assert client.event(AuthSucceeded) == AuthSucceeded("password", False)


@pytest.mark.covers("R67")
@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(KEY, "ssh-ed25519"), (ECDSA, "ecdsa-sha2-nistp256"), (RSA, "rsa-sha2-512")],
    ids=["ed25519", "ecdsa", "rsa"],
)
def test_a_private_key_signs_at_once(client: Client, key: PrivateKey, algorithm: str) -> None:
    client.machine.public_key(client.event(CredentialNeeded), key)
    form = client.form()
    assert isinstance(form, methods.PublicKeySigned)
    assert (form.algorithm, form.key) == (algorithm, key.public_key.blob)
    data = methods.signed_data(SESSION, "me", "ssh-connection", algorithm, form.key)
    key.public_key.verify(form.signature, data, algorithm)
    with pytest.raises(SignatureInvalid):
        key.public_key.verify(form.signature, data + b"\0", algorithm)
    client.receive(UserauthSuccess())
    assert client.event(AuthSucceeded) == AuthSucceeded("publickey", False)


@pytest.mark.covers("R67", "R70")
def test_a_private_key_with_probe(client: Client) -> None:
    client.machine.public_key(client.event(CredentialNeeded), KEY, probe=True)
    assert client.form() == methods.PublicKeyQuery("ssh-ed25519", KEY.public_key.blob)
    client.receive(UserauthPkOk("ssh-ed25519", KEY.public_key.blob))
    assert isinstance(client.form(), methods.PublicKeySigned)
    client.receive(MORE)
    assert client.last(CredentialNeeded).attempt == 1  # query and proof are one attempt


def test_an_outside_signer(client: Client) -> None:
    client.machine.public_key(client.event(CredentialNeeded), KEY.public_key)
    assert isinstance(client.form(), methods.PublicKeyQuery)
    client.receive(UserauthPkOk("ssh-ed25519", KEY.public_key.blob))
    question = client.event(SignatureNeeded)
    assert (question.key, question.algorithm, question.purpose) == (KEY.public_key, "ssh-ed25519", "login")
    assert question.data == methods.signed_data(SESSION, "me", "ssh-connection", "ssh-ed25519", KEY.public_key.blob)
    before = client.snapshot()
    for bad in (OTHER.sign(question.data), KEY.sign(b"else"), b"", b"\0\0\0\1"):
        with pytest.raises(InvalidArgument, match="not a ssh-ed25519 signature by"):
            client.machine.sign(question, bad)
    assert client.snapshot() == before
    signature = KEY.sign(question.data)
    client.machine.sign(question, signature)
    assert client.form() == methods.PublicKeySigned("ssh-ed25519", KEY.public_key.blob, signature)
    client.receive(UserauthSuccess())
    assert client.event(AuthSucceeded) == AuthSucceeded("publickey", False)


def test_an_agent_that_signs_with_sha1_is_found_out(client: Client) -> None:
    client.machine.public_key(client.event(CredentialNeeded), RSA.public_key, probe=False)
    question = client.event(SignatureNeeded)
    with pytest.raises(InvalidArgument, match="rsa-sha2-512"):
        client.machine.sign(question, RSA.sign(question.data, "ssh-rsa"))


def test_an_outside_signer_without_probe_declines(client: Client) -> None:
    client.machine.public_key(client.event(CredentialNeeded), KEY.public_key, probe=False)
    assert client.outlet.take_sent() == []
    client.machine.decline_sign(client.event(SignatureNeeded))
    client.machine.password(client.event(CredentialNeeded), "x")
    client.form()
    client.receive(UserauthSuccess())
    assert client.event(AuthSucceeded).method == "password"


def test_declined_after_pk_ok_keeps_the_list(client: Client) -> None:
    client.machine.none(client.event(CredentialNeeded))
    client.receive(MORE)
    client.machine.public_key(client.last(CredentialNeeded), KEY.public_key)
    client.receive(UserauthPkOk("ssh-ed25519", KEY.public_key.blob))
    client.machine.decline_sign(client.event(SignatureNeeded))
    question = client.event(CredentialNeeded)
    assert (question.methods, question.attempt) == (MORE.methods, 2)


def test_pk_ok_spelled_by_the_key_type_is_taken(client: Client) -> None:
    client.machine.public_key(client.event(CredentialNeeded), RSA, probe=True)
    client.form()
    client.receive(UserauthPkOk("ssh-rsa", RSA.public_key.blob))
    form = client.form()
    assert isinstance(form, methods.PublicKeySigned)
    assert form.algorithm == "rsa-sha2-512"  # never what PK_OK said


@pytest.mark.covers("V12", "R70")
@pytest.mark.parametrize(
    "answer",
    [
        UserauthPkOk("ssh-ed25519", OTHER.public_key.blob),
        UserauthPkOk("rsa-sha2-256", KEY.public_key.blob),
        UserauthPkOk("ssh-ed25519", KEY.public_key.blob + b"\0"),
        UserauthPkOk("", b""),
        UserauthSuccess(),  # V09: a query proves nothing
    ],
)
def test_wrong_answers_to_a_query(client: Client, answer: Message) -> None:
    client.machine.public_key(client.event(CredentialNeeded), KEY, probe=True)
    client.form()
    with pytest.raises(ProtocolViolation) as caught:
        client.receive(answer)
    assert caught.value.code == DisconnectCode.PROTOCOL_ERROR
    assert client.outlet.take_sent() == []
    assert not client.machine.succeeded


@pytest.mark.covers("V12")
def test_pk_ok_to_a_proof_is_a_violation(client: Client) -> None:
    client.machine.public_key(client.event(CredentialNeeded), KEY)
    with pytest.raises(ProtocolViolation, match="no key query"):
        client.receive(UserauthPkOk("ssh-ed25519", KEY.public_key.blob))


@pytest.mark.covers("V12")
def test_a_second_pk_ok_is_a_violation(client: Client) -> None:
    client.machine.public_key(client.event(CredentialNeeded), KEY, probe=True)
    client.receive(UserauthPkOk("ssh-ed25519", KEY.public_key.blob))
    with pytest.raises(ProtocolViolation):
        client.receive(UserauthPkOk("ssh-ed25519", KEY.public_key.blob))


@pytest.mark.covers("R133")
def test_server_signature_algorithms_are_obeyed(client: Client) -> None:
    question = client.event(CredentialNeeded)
    client.machine.server_signature_algorithms = ("ssh-rsa",)
    before = client.snapshot()
    with pytest.raises(InvalidArgument, match="the server takes ssh-rsa"):
        client.machine.public_key(question, RSA)
    assert client.snapshot() == before
    client.machine.server_signature_algorithms = ("rsa-sha2-256",)
    client.machine.public_key(question, RSA)
    form = client.form()
    assert isinstance(form, methods.PublicKeySigned)
    assert form.algorithm == "rsa-sha2-256"


def test_an_algorithm_can_be_named() -> None:
    client = Client(preferences=Preferences(signature=("rsa-sha2-512", "ssh-rsa")))
    question = client.event(CredentialNeeded)
    with pytest.raises(InvalidArgument, match="cannot sign with 'ssh-ed25519'"):
        client.machine.public_key(question, RSA, algorithm="ssh-ed25519")
    client.machine.public_key(question, RSA, algorithm="rsa-sha2-256")
    form = client.form()
    assert isinstance(form, methods.PublicKeySigned)
    assert form.algorithm == "rsa-sha2-256"


@pytest.mark.covers("R76", "R77")
def test_keyboard_interactive_with_many_rounds(client: Client) -> None:
    client.machine.keyboard_interactive(client.event(CredentialNeeded), "otp")
    assert client.form() == methods.KeyboardInteractive("", "otp")
    client.receive(
        UserauthInfoRequest("Na\x07me", "First\r\nthen \x1b[31mred", "", (("Password: ", False), ("Code:", True)))
    )
    question = client.event(PromptsReceived)
    assert question.name == "Na\\x07me"
    assert question.instruction == "First\nthen \\x1b[31mred"
    assert question.prompts == (Prompt(text="Password: ", echo=False), Prompt(text="Code:", echo=True))
    client.receive(UserauthBanner("in the middle"))  # legal at any time before success
    assert client.event(BannerReceived).text == "in the middle"
    before = client.snapshot()
    for bad in ((), ("a",), ("a", "b", "c"), "ab", ("a", b"b"), ("a", "\udcff")):
        with pytest.raises(InvalidArgument):
            client.machine.answer_prompts(question, bad)  # type: ignore[arg-type]
    assert client.snapshot() == before
    client.machine.answer_prompts(question, ["hemligt", ""])
    assert client.outlet.take_sent() == [UserauthInfoResponse(("hemligt", ""))]
    client.receive(UserauthInfoRequest("", "Thank you", "", ()))
    question = client.event(PromptsReceived)
    assert (question.instruction, question.prompts) == ("Thank you", ())
    client.machine.answer_prompts(question, ())
    assert client.outlet.take_sent() == [UserauthInfoResponse(())]
    client.receive(UserauthSuccess())
    assert client.event(AuthSucceeded) == AuthSucceeded("keyboard-interactive", False)


@pytest.mark.covers("R76")
def test_a_second_info_request_before_the_answer_is_a_violation(client: Client) -> None:
    client.machine.keyboard_interactive(client.event(CredentialNeeded))
    client.receive(UserauthInfoRequest("", "", "", ()))
    with pytest.raises(ProtocolViolation):
        client.receive(UserauthInfoRequest("", "", "", ()))


@pytest.mark.parametrize("answer", [UserauthSuccess(), MORE])
def test_nothing_is_decided_while_prompts_are_open(client: Client, answer: Message) -> None:
    client.machine.keyboard_interactive(client.event(CredentialNeeded))
    client.receive(UserauthInfoRequest("", "", "", (("?", True),)))
    with pytest.raises(ProtocolViolation):
        client.receive(answer)


@pytest.mark.covers("R61")
def test_partial_success_and_several_methods(client: Client) -> None:
    client.machine.public_key(client.event(CredentialNeeded), KEY)
    client.receive(UserauthFailure(("keyboard-interactive",), True))
    failed, question = client.outlet.take_events()
    assert failed == AuthFailed("publickey", ("keyboard-interactive",), True)
    assert isinstance(question, CredentialNeeded)
    assert question.partial_success
    client.machine.keyboard_interactive(question)
    client.receive(UserauthInfoRequest("", "Push sent", "", ()))
    client.machine.answer_prompts(client.event(PromptsReceived), [])
    client.receive(UserauthSuccess())
    assert client.event(AuthSucceeded) == AuthSucceeded("keyboard-interactive", False)  # the key was a proof


def _none(client: Client) -> None:
    client.machine.none(client.event(CredentialNeeded))


def _no_prompts(client: Client) -> None:
    client.machine.keyboard_interactive(client.event(CredentialNeeded))


def _empty_prompts(client: Client) -> None:
    client.machine.keyboard_interactive(client.event(CredentialNeeded))
    client.receive(UserauthInfoRequest("", "", "", ()))
    client.machine.answer_prompts(client.event(PromptsReceived), ())


def _refused_proof(client: Client) -> None:
    client.machine.password(client.event(CredentialNeeded), "x")
    client.receive(MORE)
    client.machine.none(client.last(CredentialNeeded))


def _partial_without_proof(client: Client) -> None:
    client.machine.none(client.event(CredentialNeeded))
    client.receive(UserauthFailure(("none",), True))
    client.machine.none(client.last(CredentialNeeded))


TRIVIAL = [_none, _no_prompts, _empty_prompts, _refused_proof, _partial_without_proof]


@pytest.mark.covers("V09")
@pytest.mark.parametrize("path", TRIVIAL)
def test_trivial_logins(path: Callable[[Client], None]) -> None:
    client = Client()
    path(client)
    client.receive(UserauthSuccess())
    assert client.event(AuthSucceeded).trivial
    client = Client(allow_trivial_auth=False)
    path(client)
    with pytest.raises(ProtocolViolation, match="allow_trivial_auth") as caught:
        client.receive(UserauthSuccess())
    assert caught.value.code == DisconnectCode.AUTH_CANCELLED_BY_USER
    assert not client.machine.succeeded
    assert client.outlet.take_events() == []


@pytest.mark.covers("V09")
def test_a_proven_login_passes_without_trivial() -> None:
    client = Client(allow_trivial_auth=False)
    client.machine.public_key(client.event(CredentialNeeded), KEY)
    client.receive(UserauthSuccess())
    assert client.machine.succeeded


UNASKED = [
    UserauthSuccess(),
    MORE,
    UserauthPkOk("a", b"b"),
    UserauthPasswdChangereq(""),
    UserauthInfoRequest("", "", "", ()),
]


@pytest.mark.covers("V07", "P17")
@pytest.mark.parametrize("message", UNASKED, ids=lambda message: type(message).__name__)
def test_unasked_messages(client: Client, message: Message) -> None:
    with pytest.raises(ProtocolViolation):
        client.machine.receive(message)
    early = ClientAuth(client.config, ListOutlet(), SESSION)
    for banner_too in (message, UserauthBanner("x")):
        with pytest.raises(ProtocolViolation, match="before the login began"):
            early.receive(banner_too)


@pytest.mark.covers("V07")
@pytest.mark.parametrize("message", UNASKED[2:], ids=lambda message: type(message).__name__)
def test_another_methods_message(client: Client, message: Message) -> None:
    client.machine.none(client.event(CredentialNeeded))
    with pytest.raises(ProtocolViolation, match="none login"):
        client.machine.receive(message)
    assert client.outlet.take_events() == []


@pytest.mark.covers("V06")
@pytest.mark.parametrize("message", [UserauthRequest("a", "b", "c"), UserauthInfoResponse(())])
def test_a_clients_message_from_the_server(client: Client, message: Message) -> None:
    client.machine.keyboard_interactive(client.event(CredentialNeeded))
    with pytest.raises(ProtocolViolation):
        client.machine.receive(message)


@pytest.mark.covers("R63", "P11")
def test_after_success(client: Client) -> None:
    client.machine.password(client.event(CredentialNeeded), "x")
    client.receive(UserauthSuccess())
    client.outlet.take_events()
    client.machine.receive(UserauthBanner("late"))
    assert client.outlet.take_events() == []
    with pytest.raises(ProtocolViolation):
        client.machine.receive(UserauthSuccess())


def test_give_up(client: Client) -> None:
    client.machine.none(client.event(CredentialNeeded))
    client.receive(MORE)
    client.machine.give_up(client.last(CredentialNeeded))
    lost = client.machine.lost
    assert isinstance(lost, AuthExhausted)
    assert lost.code == DisconnectCode.NO_MORE_AUTH_METHODS_AVAILABLE
    assert (lost.methods, lost.tried) == (("publickey", "password"), ("none",))
    assert "nothing is left to try (tried: none; the server would go on with: publickey, password)" in str(lost)
    client.machine.receive(UserauthSuccess())
    assert not client.machine.succeeded


@pytest.mark.parametrize("answer", ["answer_prompts", "new_password", "sign", "decline_sign"])
def test_an_answer_of_the_wrong_kind_changes_nothing(client: Client, answer: str) -> None:
    question: Any = client.event(CredentialNeeded)
    before = client.snapshot()
    extra = {"answer_prompts": ((),), "new_password": ("a", "b"), "sign": (b"",), "decline_sign": ()}[answer]
    with pytest.raises(UsageError, match="does not answer a CredentialNeeded"):
        getattr(client.machine, answer)(question, *extra)
    assert client.snapshot() == before


@pytest.mark.covers("R62")
def test_one_request_in_flight(client: Client) -> None:
    question = client.event(CredentialNeeded)
    client.machine.none(question)
    before = client.snapshot()
    for answer in (client.machine.none, client.machine.give_up, client.machine.keyboard_interactive):
        with pytest.raises(AlreadyAnswered):
            answer(question)
    assert client.snapshot() == before


@pytest.mark.covers("R73", "R168")
@pytest.mark.parametrize("bad", [b"bytes", None, "\udcff", "x" * 40_000], ids=lambda bad: repr(bad)[:20])
def test_bad_passwords_change_nothing(client: Client, bad: Any) -> None:
    question = client.event(CredentialNeeded)
    before = client.snapshot()
    with pytest.raises(InvalidArgument):
        client.machine.password(question, bad)
    with pytest.raises(InvalidArgument):
        client.machine.keyboard_interactive(question, bad)
    with pytest.raises(InvalidArgument):
        client.machine.public_key(question, bad)
    assert client.snapshot() == before
    client.machine.password(question, "")  # an empty password is a password
    assert client.form() == methods.Password("")


def test_a_full_outlet_changes_nothing(client: Client) -> None:
    question = client.event(CredentialNeeded)
    client.outlet.full = True
    before = client.snapshot()
    for answer in (
        lambda: client.machine.none(question),
        lambda: client.machine.password(question, "x"),
        lambda: client.machine.public_key(question, KEY),
        lambda: client.machine.public_key(question, KEY, probe=True),
        lambda: client.machine.keyboard_interactive(question),
    ):
        with pytest.raises(LimitReached):
            answer()
        assert client.snapshot() == before


# --------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.covers("V10")
def test_attempts() -> None:
    client = Client(limits=Limits(client_auth_attempts=3))
    for attempt in range(3):
        assert client.machine.lost is None
        client.machine.none(client.last(CredentialNeeded))
        client.receive(UserauthFailure(("none",), True))  # V10: for ever the same
        assert client.machine.context == "" or attempt == 2
    assert client.last(AuthFailed).partial_success
    assert isinstance(client.machine.lost, AuthExhausted)
    assert client.machine.lost.tried == ("none",) * 3


def test_attempts_count_declined_signatures() -> None:
    client = Client(limits=Limits(client_auth_attempts=2))
    for _ in range(2):
        client.machine.public_key(client.last(CredentialNeeded), KEY.public_key, probe=False)
        client.machine.decline_sign(client.last(SignatureNeeded))
    assert isinstance(client.machine.lost, AuthExhausted)


@pytest.mark.covers("V10")
def test_password_changes_count_as_attempts() -> None:
    client = Client(limits=Limits(client_auth_attempts=2))
    client.machine.password(client.event(CredentialNeeded), "a")
    client.receive(UserauthPasswdChangereq("?"))
    client.machine.new_password(client.event(PasswordExpired), "a", "b")
    client.receive(UserauthPasswdChangereq("?"))
    assert isinstance(client.machine.lost, AuthExhausted)
    assert client.outlet.take_events() == []


@pytest.mark.covers("V10", "B17")
def test_info_rounds(client: Client) -> None:
    client.machine.keyboard_interactive(client.event(CredentialNeeded))
    for _ in range(32):
        client.receive(UserauthInfoRequest("", "", "", ()))
        client.machine.answer_prompts(client.event(PromptsReceived), ())
    with pytest.raises(LimitExceeded) as caught:
        client.receive(UserauthInfoRequest("", "", "", ()))
    assert (caught.value.limit, caught.value.code) == ("info_rounds", 14)


@pytest.mark.covers("B19", "V25")
def test_prompts(client: Client) -> None:
    client.machine.keyboard_interactive(client.event(CredentialNeeded))
    client.receive(UserauthInfoRequest("", "", "", (("?", True),) * 32))
    client.machine.answer_prompts(client.event(PromptsReceived), ["x"] * 32)
    with pytest.raises(LimitExceeded) as caught:
        client.receive(UserauthInfoRequest("", "", "", (("?", True),) * 33))
    assert (caught.value.limit, caught.value.code) == ("prompts", 2)


@pytest.mark.covers("B20", "V68")
def test_banners(client: Client) -> None:
    client.event(CredentialNeeded)
    for _ in range(16):
        client.receive(UserauthBanner("hello\r\n\x1b]0;owned\x07\u202e", "en\n"))
        banner = client.event(BannerReceived)
        assert banner.text == "hello\n\\x1b]0;owned\\x07\\u202e"
        assert banner.raw == "hello\r\n\x1b]0;owned\x07\u202e"
        assert banner.language == "en\\n"
    with pytest.raises(LimitExceeded) as caught:
        client.receive(UserauthBanner("x"))
    assert (caught.value.limit, caught.value.code) == ("banners", 2)


@pytest.mark.covers("B20", "V68")
def test_banner_bytes(client: Client) -> None:
    client.event(CredentialNeeded)
    client.receive(UserauthBanner("é" * 16384))
    client.receive(UserauthBanner("x" * 32768))
    assert len(client.last(BannerReceived).text) == 32768
    client.receive(UserauthBanner(""))
    with pytest.raises(LimitExceeded) as caught:
        client.receive(UserauthBanner("x"))
    assert (caught.value.limit, caught.value.code) == ("banner_bytes", 2)


@pytest.mark.covers("R169")
def test_secrets_do_not_show(client: Client) -> None:
    client.machine.public_key(client.event(CredentialNeeded), KEY, probe=True)
    assert "_Attempt" in repr(client.machine._attempt)
    assert "signer" not in repr(client.machine._attempt)


def test_a_signer_that_fails_in_the_middle_ends_the_connection(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.machine.public_key(client.event(CredentialNeeded), KEY, probe=True)

    def fail(*args: object) -> bytes:
        raise SignatureInvalid("the signature does not verify")

    monkeypatch.setattr(PrivateKey, "sign", fail)
    with pytest.raises(InternalError, match="signing with ssh-ed25519 key SHA256:"):
        client.receive(UserauthPkOk("ssh-ed25519", KEY.public_key.blob))


# ------------------------------------------------------------------------------------------------------------- property

words = st.text(st.characters(codec="utf-8"), max_size=6)
names = st.sampled_from(["publickey", "password", "keyboard-interactive", "hostbased", "x@y", ""])
blobs = st.sampled_from([KEY.public_key.blob, RSA.public_key.blob, b"", b"junk"])
server_messages = st.one_of(
    st.builds(UserauthFailure, st.lists(names.filter(bool), max_size=3).map(tuple), st.booleans()),
    st.just(UserauthSuccess()),
    st.builds(UserauthBanner, words, words),
    st.builds(UserauthPkOk, st.sampled_from(["ssh-ed25519", "ssh-rsa", "rsa-sha2-512", "x"]), blobs),
    st.builds(UserauthPasswdChangereq, words, words),
    st.builds(
        UserauthInfoRequest, words, words, words, st.lists(st.tuples(words, st.booleans()), max_size=34).map(tuple)
    ),
    st.just(UserauthRequest("a", "ssh-connection", "none")),
    st.just(UserauthInfoResponse(("a",))),
)
raw = st.builds(lambda number, rest: bytes((number,)) + rest, st.sampled_from([51, 52, 53, 60]), st.binary(max_size=24))

CREDENTIALS: list[Callable[[ClientAuth, Any], None]] = [
    lambda machine, q: machine.none(q),
    lambda machine, q: machine.password(q, "x"),
    lambda machine, q: machine.public_key(q, KEY),
    lambda machine, q: machine.public_key(q, KEY, probe=True),
    lambda machine, q: machine.public_key(q, RSA.public_key),
    lambda machine, q: machine.public_key(q, KEY.public_key, probe=False),
    lambda machine, q: machine.keyboard_interactive(q),
    lambda machine, q: machine.give_up(q),
]


def answer(machine: ClientAuth, question: Question, choice: int) -> None:
    if isinstance(question, CredentialNeeded):
        CREDENTIALS[choice % len(CREDENTIALS)](machine, question)
    elif isinstance(question, PromptsReceived):
        machine.answer_prompts(question, ["x"] * len(question.prompts))
    elif isinstance(question, PasswordExpired):
        machine.new_password(question, "x", "y")
    elif isinstance(question, SignatureNeeded) and choice % 2:
        signer = KEY if question.key == KEY.public_key else RSA
        machine.sign(question, signer.sign(question.data, question.algorithm))
    elif isinstance(question, SignatureNeeded):
        machine.decline_sign(question)


steps = st.one_of(st.integers(0, 15), st.integers(0, 15), server_messages, server_messages, raw)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=25))
def test_arbitrary_servers_raise_nothing_but_losses(script: list[int | bytes | Message]) -> None:
    client = Client()
    machine, outlet = client.machine, client.outlet
    question: Question | None = None
    for step in script:
        for event in outlet.take_events():
            question = event if isinstance(event, Question) else question
        before = len(outlet.sent), outlet.last_id
        if isinstance(step, int):
            if question is not None:
                answer(machine, question, step)
                question = None
                assert len(outlet.sent) - before[0] <= 1
        else:
            asked = question is not None
            try:
                message = decode(step, machine.context) if isinstance(step, bytes) else step
                if message is not None:
                    machine.receive(message)
            except (ConnectionLoss, WireError):
                return
            # One word of the server makes us say one thing at most, and never while the application is being asked.
            assert len(outlet.sent) - before[0] <= (0 if asked else 1)
            assert not (machine.succeeded and asked)
        if machine.lost is not None:
            assert isinstance(machine.lost, AuthExhausted)
            return
        if machine.succeeded:
            assert any(isinstance(message, UserauthRequest) for message in outlet.sent)
            assert isinstance(outlet.events[-1], AuthSucceeded)
            return
