"""What messages tell: channels and their two numbers, replies and their requests, logins and their methods."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto import events as ev
from sshproto.auth import methods
from sshproto.channels.requests import (
    Env,
    Exec,
    ExitStatus,
    Session,
    TcpipForward,
    UnknownGlobal,
    UnknownOpen,
    UnknownRequest,
    WindowChange,
)
from sshproto.errors import PeerDisconnected
from sshproto.replay import interpret
from sshproto.replay.events import PacketOpened, Side
from sshproto.replay.interpret import Interpreter, decode
from sshproto.replay.observer import Observer
from sshproto.wire import messages as m
from tests.replay.sessions import drain, observe, record, session, told, troubles
from tests.support.seeds import USER_CERTIFICATE, USER_KEY

C, S = Side.DIALLER, Side.DIALLED


class Talk:
    """Two sides that say things."""

    def __init__(self) -> None:
        self.interpreter = Interpreter()
        self.interpreter.client = C
        self.interpreter.session_id = b"session"

    def __call__(self, side: Side, message: m.Message) -> list[ev.Event]:
        found = list(self.interpreter.events(side, message))
        self.interpreter.passed(side, message.number, message)
        return found

    def ready(self, side: Side, message: m.Message) -> bool:
        return self.interpreter.ready(side, message.encode())

    def context(self, side: Side) -> str:
        return self.interpreter.context(side, 60)


@pytest.fixture
def talk() -> Talk:
    return Talk()


def login(form: methods.Form, user: str = "alice") -> m.UserauthRequest:
    return methods.request(user, form)


# ----------------------------------------------------------------------------------------------------------- transport


def test_the_transport(talk: Talk) -> None:
    (lost,) = talk(C, m.Disconnect(11, "bye"))
    assert isinstance(lost, ev.ConnectionLost)
    assert isinstance(lost.error, PeerDisconnected)
    assert (lost.error.code, lost.error.description) == (11, "bye")
    assert talk(S, m.Unimplemented(7)) == [ev.UnimplementedReceived(7)]
    assert talk(S, m.Debug(True, "a\x1b[2J")) == [ev.DebugReceived("a\\x1b[2J", True)]
    assert talk(S, m.ExtInfo((("server-sig-algs", b"x"),))) == [ev.ExtInfoReceived((("server-sig-algs", b"x"),))]
    assert talk(S, m.Pong(b"x")) == [ev.PongReceived(b"x")]
    for message in (m.Ignore(b"x"), m.Ping(b"x"), m.ServiceRequest("ssh-userauth"), m.ChannelWindowAdjust(1, 2)):
        assert talk(C, message) == []


def test_decoding() -> None:
    assert decode(m.Unimplemented(7).encode(), "") == (m.Unimplemented(7), "")
    assert decode(m.Unimplemented(7).encode() + b"xy", "") == (
        m.Unimplemented(7), "UNIMPLEMENTED has 2 bytes too many at its end",
    )  # fmt: skip
    message, problem = decode(b"\x03\0", "")
    assert message is None
    assert problem.startswith("UNIMPLEMENTED does not decode: UNIMPLEMENTED.sequence_number at offset 1")
    assert decode(b"\xc8anything", "") == (None, "")
    assert decode(b"\x3c", "") == (None, "")


# -------------------------------------------------------------------------------------------------------------- logins


def test_a_login(talk: Talk) -> None:
    (none,) = talk(C, login(methods.NoneForm()))
    assert none == ev.NoneAuth(id=1, user="alice")
    assert talk(S, m.UserauthFailure(("password",), False)) == [ev.AuthFailed("none", ("password",), False)]
    (password,) = talk(C, login(methods.Password("secret")))
    assert isinstance(password, ev.PasswordAuth)
    assert (password.user, password.password, password.new_password) == ("alice", "secret", None)
    assert "secret" not in repr(password)
    assert talk.context(S) == "password"
    assert talk(S, m.UserauthPasswdChangereq("new\n?")) == [ev.PasswordExpired(id=1, prompt="new\\n?")]
    (change,) = talk(C, login(methods.PasswordChange("secret", "better")))
    assert isinstance(change, ev.PasswordAuth)
    assert change.new_password == "better"
    assert talk(S, m.UserauthBanner("hello\x07\nthere")) == [
        ev.BannerReceived("hello\\x07\nthere", "hello\x07\nthere", "")
    ]
    assert talk(S, m.UserauthSuccess()) == [ev.AuthSucceeded("password", False)]
    assert talk.interpreter.user == "alice"


def test_a_login_with_questions(talk: Talk) -> None:
    assert talk(C, login(methods.KeyboardInteractive(submethods="otp"))) == [
        ev.InteractiveAuth(id=1, user="alice", submethods="otp")
    ]
    assert talk.context(S) == "keyboard-interactive"
    (prompts,) = talk(S, m.UserauthInfoRequest("n", "i", "", (("Password: ", False), ("Name: ", True))))
    assert isinstance(prompts, ev.PromptsReceived)
    assert [(it.text, it.echo) for it in prompts.prompts] == [("Password: ", False), ("Name: ", True)]
    assert talk.context(C) == "keyboard-interactive"
    (answers,) = talk(C, m.UserauthInfoResponse(("a", "b")))
    assert isinstance(answers, ev.PromptsAnswered)
    assert answers.answers == ("a", "b")
    assert talk(S, m.UserauthInfoRequest("", "", "", ())) != []
    talk(C, m.UserauthInfoResponse(()))
    assert talk(S, m.UserauthSuccess()) == [ev.AuthSucceeded("keyboard-interactive", False)]


def test_a_login_for_nothing(talk: Talk) -> None:
    talk(C, login(methods.NoneForm()))
    assert talk(S, m.UserauthSuccess()) == [ev.AuthSucceeded("none", True)]


def test_a_login_with_a_key(talk: Talk) -> None:
    key = USER_KEY.public_key
    assert talk(C, login(methods.PublicKeyQuery("ssh-ed25519", key.blob))) == [
        ev.KeyProbe(id=1, user="alice", key=key, algorithm="ssh-ed25519")
    ]
    assert talk.context(S) == "publickey"
    assert talk(S, m.UserauthPkOk("ssh-ed25519", key.blob)) == []
    data = methods.signed_data(b"session", "alice", "ssh-connection", "ssh-ed25519", key.blob)
    signature = USER_KEY.sign(data, "ssh-ed25519")
    assert talk(C, login(methods.PublicKeySigned("ssh-ed25519", key.blob, signature))) == [
        ev.KeyAuth(id=2, user="alice", key=key, algorithm="ssh-ed25519")
    ]
    # Whose signature is wrong has proved nothing; what is no key that is known here can't be shown as one.
    assert (
        talk(C, login(methods.PublicKeySigned("ssh-ed25519", key.blob, signature[:-1] + bytes([signature[-1] ^ 1]))))
        == []
    )
    assert talk(C, login(methods.PublicKeyQuery("sk-ssh-ed25519@openssh.com", b"\0\0\0\2sk"))) == []
    assert talk(C, m.UserauthRequest("alice", "ssh-connection", "password", b"\7")) == []
    assert talk(C, m.UserauthRequest("alice", "ssh-connection", "hostbased", b"\7")) == []


@pytest.mark.parametrize("host_key", [None, b"a host key"], ids=["plain", "bound"])
def test_a_login_with_a_certificate(talk: Talk, host_key: bytes | None) -> None:
    name, certificate = "ssh-ed25519-cert-v01@openssh.com", USER_CERTIFICATE
    blob = certificate.blob
    expected = {"user": "alice", "key": USER_KEY.public_key, "algorithm": name, "certificate": certificate}
    assert talk(C, login(methods.key_query(name, blob, host_key))) == [ev.KeyProbe(id=1, **expected)]
    assert talk.context(S) == "publickey"
    data = methods.signed_data(b"session", "alice", "ssh-connection", name, blob, host_key)
    signature = USER_KEY.sign(data, "ssh-ed25519")
    assert talk(C, login(methods.key_signed(name, blob, host_key, signature))) == [ev.KeyAuth(id=2, **expected)]
    for other in (b"another host key", None if host_key else b"a host key"):  # signed for another host, or for none
        assert talk(C, login(methods.key_signed(name, blob, other, signature))) == []
    assert talk(C, login(methods.key_query(name, blob[:-1], host_key))) == []
    assert talk(S, m.UserauthFailure((), False)) == [ev.AuthFailed("publickey", (), False)]


def test_each_answer_is_to_one_question(talk: Talk) -> None:
    """A client need not wait: what it asks is answered in order."""
    for form in (
        methods.NoneForm(),
        methods.PublicKeyQuery("ssh-ed25519", USER_KEY.public_key.blob),
        methods.Password("x"),
    ):
        talk(C, login(form))
    assert talk(S, m.UserauthFailure((), False)) == [ev.AuthFailed("none", (), False)]
    assert talk.context(S) == "publickey"
    talk(S, m.UserauthPkOk("ssh-ed25519", b"x"))
    assert talk.context(S) == "password"
    assert talk(S, m.UserauthFailure((), False)) == [ev.AuthFailed("password", (), False)]
    assert not talk.ready(S, m.UserauthFailure((), False))
    # A dialog that the client has abandoned gets no answer of its own.
    talk(C, login(methods.KeyboardInteractive()))
    talk(S, m.UserauthInfoRequest("", "", "", ()))
    assert not talk.ready(S, m.UserauthFailure((), False))
    talk(C, login(methods.Password("x")))
    assert talk(S, m.UserauthFailure((), False)) == [ev.AuthFailed("password", (), False)]


def test_dialogs_of_gssapi(talk: Talk) -> None:
    """They don't keep to one answer for one question; what ends them does."""
    for tokens in (0, 1, 3):
        talk(C, m.UserauthRequest("alice", "ssh-connection", "gssapi-with-mic", b""))
        assert talk.ready(S, m.UserauthSuccess())
        talk.interpreter.passed(S, 60, None)
        for number in (*[61] * tokens, 66):
            talk.interpreter.passed(C, number, None)
        talk.interpreter.passed(S, 61, None)
        assert talk(S, m.UserauthFailure((), False)) == [ev.AuthFailed("gssapi-with-mic", (), False)]
        assert not talk.ready(S, m.UserauthFailure((), False))
    talk(C, login(methods.Password("x")))
    assert talk(S, m.UserauthSuccess()) == [ev.AuthSucceeded("password", False)]


def test_a_request_that_does_not_decode(talk: Talk) -> None:
    talk(C, login(methods.Password("x")))
    talk.interpreter.passed(C, 50, None)
    talk(S, m.UserauthFailure((), False))
    assert talk(S, m.UserauthFailure((), False)) == [ev.AuthFailed("", (), False)]


def test_answers_to_nothing(talk: Talk) -> None:
    assert not talk.ready(S, m.UserauthSuccess())
    assert talk(S, m.UserauthFailure(("x",), True)) == [ev.AuthFailed("", ("x",), True)]
    assert talk(S, m.UserauthSuccess()) == [ev.AuthSucceeded("", False)]
    assert talk.ready(C, m.UserauthInfoResponse(()))


def test_many_requests_without_an_answer(talk: Talk) -> None:
    for _ in range(5000):
        talk(C, login(methods.NoneForm()))
    assert len(talk.interpreter._logins._asked) == 1024


# ------------------------------------------------------------------------------------------------------------ channels


def opened(talk: Talk, mine: int, theirs: int, *, opener: Side = C) -> int:
    (request,) = talk(opener, m.ChannelOpen("session", mine, 1, 2))
    assert isinstance(request, ev.ChannelOpenRequested)
    assert talk(opener.other, m.ChannelOpenConfirmation(mine, theirs, 1, 2, b"more")) == [
        ev.ChannelOpened(request.channel, b"more")
    ]
    return request.channel


def test_a_channel_has_two_numbers(talk: Talk) -> None:
    first = opened(talk, 7, 9)
    second = opened(talk, 11, 5, opener=S)
    third = opened(talk, 8, 8)
    assert (first, second, third) == (0, 1, 2)
    assert talk(C, m.ChannelData(9, b"to nine")) == [ev.DataReceived(first, b"to nine")]
    assert talk(S, m.ChannelData(7, b"to seven")) == [ev.DataReceived(first, b"to seven")]
    assert talk(S, m.ChannelExtendedData(8, 1, b"oops")) == [ev.DataReceived(third, b"oops", 1)]
    assert talk(C, m.ChannelEof(8)) == [ev.EofReceived(third)]
    assert talk(C, m.ChannelData(77, b"?")) == [ev.DataReceived(-1, b"?")]
    assert talk(C, m.ChannelData(11, b"")) == [ev.DataReceived(second, b"")]
    assert talk(S, m.ChannelData(5, b"five")) == [ev.DataReceived(second, b"five")]


def test_numbers_are_used_again(talk: Talk) -> None:
    first = opened(talk, 7, 9)
    assert talk(C, m.ChannelClose(9)) == []
    assert talk(C, m.ChannelClose(9)) == []  # twice by one side is still once
    assert talk(S, m.ChannelData(7, b"late")) == [ev.DataReceived(first, b"late")]
    assert talk(S, m.ChannelClose(7)) == [ev.ChannelClosed(first)]
    assert talk(S, m.ChannelClose(7)) == []
    assert talk(S, m.ChannelData(7, b"too late")) == [ev.DataReceived(-1, b"too late")]
    second = opened(talk, 7, 9)
    assert second == 1
    assert talk(C, m.ChannelData(9, b"again")) == [ev.DataReceived(second, b"again")]
    third = opened(talk, 7, 10)  # without closing it: wrong, but it is the newer one
    assert talk(S, m.ChannelData(7, b"new")) == [ev.DataReceived(third, b"new")]
    assert talk(C, m.ChannelData(9, b"old")) == [ev.DataReceived(second, b"old")]


def test_a_channel_that_is_refused(talk: Talk) -> None:
    talk(C, m.ChannelOpen("session", 7, 1, 2))
    assert talk(S, m.ChannelOpenFailure(7, 2, "no\x07")) == [ev.ChannelOpenFailed(0, 2, "no\\x07")]
    assert talk(S, m.ChannelOpenFailure(7, 2, "no")) == [ev.ChannelOpenFailed(-1, 2, "no")]
    assert talk(S, m.ChannelOpenConfirmation(7, 1, 1, 2)) == [ev.ChannelOpened(-1, b"")]


def test_what_channels_are_for(talk: Talk) -> None:
    (session_wanted,) = talk(C, m.ChannelOpen("session", 1, 1, 2))
    assert session_wanted == ev.ChannelOpenRequested(id=1, channel=0, kind=Session())
    (unknown,) = talk(C, m.ChannelOpen("direct-tcpip", 2, 1, 2, b"bad"))
    assert unknown == ev.ChannelOpenRequested(id=2, channel=1, kind=UnknownOpen("direct-tcpip", b"bad"))


def requested(request: Any, *, want_reply: bool = True, channel: int = 9) -> m.ChannelRequest:
    return m.ChannelRequest(channel, request.type, want_reply, request.encode())


def test_requests_and_replies(talk: Talk) -> None:
    channel = opened(talk, 7, 9)
    (command,) = talk(C, requested(Exec(b"ls")))
    assert command == ev.ChannelRequested(id=2, channel=channel, request=Exec(b"ls"), want_reply=True)
    (quiet,) = talk(C, requested(Env("A", b"b"), want_reply=False))
    assert quiet == ev.ChannelRequested(id=3, channel=channel, request=Env("A", b"b"), want_reply=False)
    (strange,) = talk(C, m.ChannelRequest(9, "exec", True, b"\xff"))
    assert strange == ev.ChannelRequested(
        id=4, channel=channel, request=UnknownRequest("exec", b"\xff"), want_reply=True
    )
    assert talk(S, m.ChannelSuccess(7)) == [ev.RequestSucceeded(channel, 2)]
    assert talk(S, m.ChannelFailure(7)) == [ev.RequestFailed(channel, 4)]
    assert talk(S, m.ChannelFailure(7)) == [ev.RequestFailed(channel, 0)]
    assert talk(S, m.ChannelFailure(70)) == [ev.RequestFailed(-1, 0)]
    assert talk(S, requested(ExitStatus(3), want_reply=False, channel=7)) == [
        ev.ChannelNotified(channel, ExitStatus(3))
    ]
    assert talk(C, requested(WindowChange(1, 2, 0, 0), want_reply=False, channel=70)) == [
        ev.ChannelNotified(-1, WindowChange(1, 2, 0, 0))
    ]
    # A notice that wants a reply gets one.
    talk(C, requested(WindowChange(1, 2, 0, 0)))
    assert talk(S, m.ChannelFailure(7)) == [ev.RequestFailed(channel, 6)]


def test_global_requests_and_replies(talk: Talk) -> None:
    (forward,) = talk(C, m.GlobalRequest("tcpip-forward", True, TcpipForward("h", 0).encode()))
    assert forward == ev.GlobalRequested(id=1, request=TcpipForward("h", 0), want_reply=True)
    (alive,) = talk(S, m.GlobalRequest("future@example.org", True))
    assert alive == ev.GlobalRequested(id=1, request=UnknownGlobal("future@example.org", b""), want_reply=True)
    talk(C, m.GlobalRequest("tcpip-forward", False, b"bad"))
    assert talk(S, m.RequestSuccess(b"port")) == [ev.GlobalSucceeded(1, b"port")]
    assert talk(C, m.RequestFailure()) == [ev.GlobalFailed(1)]
    assert talk(C, m.RequestFailure()) == [ev.GlobalFailed(0)]


def test_what_has_to_wait(talk: Talk) -> None:
    """Whether the message that gives another its meaning was seen."""
    success, data = m.ChannelSuccess(7), m.ChannelData(7, b"x")
    assert not talk.ready(S, m.ChannelOpenConfirmation(7, 9, 1, 2))
    assert not talk.ready(S, m.RequestFailure())
    opened(talk, 7, 9)
    assert talk.ready(S, data)
    assert not talk.ready(S, success)
    assert not talk.ready(C, m.ChannelOpen("session", 7, 1, 2))  # the number is not free yet
    assert talk.ready(C, m.ChannelOpen("session", 8, 1, 2))
    assert talk.ready(S, m.ChannelOpen("session", 7, 1, 2))
    talk(C, requested(Exec(b"ls")))
    assert talk.ready(S, success)
    assert not talk.ready(C, m.ChannelSuccess(9))
    talk(C, m.GlobalRequest("x", True))
    assert talk.ready(S, m.RequestFailure())
    assert not talk.ready(C, m.RequestSuccess())
    for side in Side:
        assert talk.ready(side, m.Ignore(b""))
        assert talk.interpreter.ready(side, b"\x5e\0")
        assert talk.interpreter.ready(side, b"\x5a\0\0\0\xffx")


def test_channels_are_bounded(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpret, "_CHANNELS", 10)
    for number in range(100):
        talk(C, m.ChannelOpen("session", number, 1, 2))
    assert len(talk.interpreter._channels) == 20
    assert talk(S, m.ChannelOpenConfirmation(99, 0, 1, 2)) == [ev.ChannelOpened(-1, b"")]
    assert talk(S, m.ChannelOpenFailure(3, 1, "")) == [ev.ChannelOpenFailed(3, 1, "")]


NUMBERS = [*range(1, 8), *range(50, 54), *range(60, 67), *range(80, 83), *range(90, 101)]
PAYLOADS = st.one_of(
    st.tuples(st.sampled_from(NUMBERS), st.binary(max_size=60)).map(lambda it: bytes((it[0],)) + it[1]),
    st.builds(
        m.ChannelOpen, st.sampled_from(["session", "direct-tcpip", "x"]), st.integers(0, 3), st.just(1), st.just(2),
        st.binary(max_size=20),
    ).map(m.Message.encode),
    st.builds(
        m.ChannelRequest, st.integers(0, 3), st.sampled_from(["exec", "env", "pty-req", "exit-signal"]), st.booleans(),
        st.binary(max_size=30),
    ).map(m.Message.encode),
    st.builds(
        m.UserauthRequest, st.text(max_size=5), st.just("ssh-connection"),
        st.sampled_from(["none", "password", "publickey", "keyboard-interactive", "gssapi-with-mic"]),
        st.binary(max_size=40),
    ).map(m.Message.encode),
)  # fmt: skip


@given(said=st.lists(st.tuples(st.sampled_from(list(Side)), PAYLOADS), max_size=30))
def test_anything_at_all(said: list[tuple[Side, bytes]]) -> None:
    talk = Talk()
    for side, payload in said:
        talk.interpreter.ready(side, payload)
        message, _ = decode(payload, talk.interpreter.context(side, payload[0]))
        if message is not None:
            for event in talk.interpreter.events(side, message):
                repr(event)
        talk.interpreter.passed(side, payload[0], message)


def test_replies_are_bounded(talk: Talk) -> None:
    channel = opened(talk, 7, 9)
    for _ in range(3000):
        talk(C, requested(Exec(b"ls")))
        talk(C, m.GlobalRequest("x", True))
    (answer,) = talk(S, m.ChannelSuccess(7))
    assert isinstance(answer, ev.RequestSucceeded)
    assert answer.channel == channel
    assert len(talk.interpreter._globals[C]) == 1024


# ------------------------------------------------------------------------------------------------------ whole sessions


def test_what_both_ends_were_told() -> None:
    """The events of a recording are those of the ends, but for numbers of channels and questions."""
    recording = session(rekeys="c")
    events = observe(recording.wire, recording.secrets)

    def essence(event: ev.Event) -> Any:
        fields = {field.name for field in attrs.fields(type(event))} - {"id", "channel", "request_id", "error"}  # type: ignore[arg-type]
        return type(event).__name__, [(name, getattr(event, name)) for name in sorted(fields)]

    kinds = (
        ev.KeyProbe, ev.KeyAuth, ev.AuthFailed, ev.AuthSucceeded, ev.ExtInfoReceived, ev.ChannelOpenRequested,
        ev.ChannelOpened, ev.ChannelRequested, ev.RequestSucceeded, ev.ChannelNotified, ev.EofReceived, ev.DataReceived,
        ev.GlobalRequested, ev.BannerReceived,
    )  # fmt: skip
    for side, end in ((C, recording.pair.server), (S, recording.pair.client)):
        mine = [essence(event) for event in told(events, ev.Event, side) if isinstance(event, kinds)]
        theirs = [essence(event) for event in end.events if isinstance(event, kinds)]
        assert mine == theirs
        assert len(mine) > 3


def test_messages_of_the_wrong_side() -> None:
    """Nobody is logged in because he says so himself."""
    recording = record()
    pair = recording.pair
    pair.run()
    observer = Observer(recording.secrets)
    for side, data in recording.wire:
        observer.feed(side, data)
    drain(observer)
    # Sealed by the client's own sealer, as no command of ours would do it.
    sealer = pair.client.conn._engine.outbox.sealer
    observer.feed(
        C, bytes(sealer.seal(m.UserauthSuccess().encode())) + bytes(sealer.seal(m.UserauthBanner("x").encode()))
    )
    sealer = pair.server.conn._engine.outbox.sealer
    observer.feed(S, bytes(sealer.seal(login(methods.NoneForm()).encode())))
    observer.finish()
    events = drain(observer)
    assert [it.number for it in told(events, PacketOpened)] == [52, 53, 50]
    assert troubles(events) == [
        "dialler: USERAUTH_SUCCESS is not for this side to send",
        "dialler: USERAUTH_BANNER is not for this side to send",
        "dialled: USERAUTH_REQUEST is not for this side to send",
    ]
    assert not told(events, ev.AuthSucceeded)
