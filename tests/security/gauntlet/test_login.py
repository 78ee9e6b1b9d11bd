"""The gauntlet, D: flaws of login, on live servers and clients.

The machines by themselves are in tests/unit/auth; here a rogue client knocks in every way that others were entered by,
and what it gets is looked at as it could: messages, their number and their sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from sshproto import events as ev
from sshproto.auth import methods
from sshproto.config import Limits, ServerConfig, Trace
from sshproto.errors import AuthExhausted, LimitExceeded, ProtocolViolation
from sshproto.wire import messages as m
from sshproto.wire.codec import boolean, string, text, uint32
from tests.support.middle import Middle
from tests.support.pair import Pair, server_answers
from tests.support.rogue import inject, loss
from tests.support.seeds import HOST_KEY, USER_CERTIFICATE, USER_KEY, key

ALL = ("publickey", "password", "keyboard-interactive")
ACCOUNTS = {"alice": "correct horse"}


def only_the_host_key(conn: Any, question: ev.Question) -> None:
    if isinstance(question, ev.HostKeyOffered):
        conn.accept_host_key(question)


def doorkeeper(conn: Any, question: ev.Question) -> None:
    """An application that knows one user, by password, key or prompt; and that treats all others as the others."""
    user = getattr(question, "user", "")
    known = user in ACCOUNTS
    if isinstance(question, ev.PasswordAuth):
        good = known and question.password == ACCOUNTS[user]
    elif isinstance(question, ev.KeyProbe):
        if known and question.key == USER_KEY.public_key:
            conn.offer_key(question)
            return
        good = False
    elif isinstance(question, ev.KeyAuth):
        good = known and question.key == USER_KEY.public_key
    elif isinstance(question, ev.InteractiveAuth):
        conn.prompt(question, [ev.Prompt(text="Password: ", echo=False)])
        return
    elif isinstance(question, ev.PromptsAnswered):
        good = known and question.answers == (ACCOUNTS[user],)
    else:
        server_answers(conn, question)
        return
    if good:
        conn.accept_auth(question)
    else:
        conn.reject_auth(question)


@attrs.define
class Knocker:
    """A client that says what it likes, at a server that waits for a login.

    Attributes:
        middle: Both.
        sent: What the server has sent since the last knock.
    """

    middle: Middle
    sent: list[m.Message]

    @classmethod
    def at(cls, **server: Any) -> Knocker:
        sent: list[m.Message] = []

        def note(trace: Trace) -> None:
            if trace.sent and trace.message is not None:
                sent.append(trace.message)

        options = {"auth_methods": ALL, "trace": note, **server}
        middle = Middle(server=options, client_answer=only_the_host_key, server_answer=doorkeeper).run()
        return cls(middle, sent)

    @property
    def server(self) -> Any:
        return self.middle.server

    @property
    def session_id(self) -> bytes:
        found: bytes = self.server.conn.session_id
        return found

    def knock(self, *messages: m.Message | bytes) -> list[m.Message]:
        """What the server answers to all of them at once."""
        self.sent.clear()
        for message in messages:
            inject(self.middle.client, message)
        self.server.conn.receive_data(self.middle.client.drain(), 0.0)
        self.server.drain()
        return list(self.sent)

    def ask(self, method: str, payload: bytes = b"", user: str = "alice") -> list[m.Message]:
        return self.knock(m.UserauthRequest(user, "ssh-connection", method, payload))

    @property
    def inside(self) -> bool:
        return bool(self.server.of(ev.Authenticated))


def password(words: str) -> bytes:
    return boolean(False) + text(words)


def query(blob: bytes = USER_KEY.public_key.blob, algorithm: str = "ssh-ed25519") -> bytes:
    return boolean(False) + text(algorithm) + string(blob)


def proof(session_id: bytes, user: str = "alice", who: Any = USER_KEY) -> bytes:
    blob = who.public_key.blob
    data = methods.signed_data(session_id, user, methods.SERVICE, "ssh-ed25519", blob)
    return boolean(True) + text("ssh-ed25519") + string(blob) + string(who.sign(data))


def bound(session_id: bytes, user: str = "alice", host_key: bytes | None = None, who: Any = USER_KEY) -> bytes:
    """A proof by a certificate, bound to a host key or to none."""
    name, blob = "ssh-ed25519-cert-v01@openssh.com", USER_CERTIFICATE.blob
    data = methods.signed_data(session_id, user, methods.SERVICE, name, blob, host_key)
    return methods.key_signed(name, blob, host_key, who.sign(data)).encode()


def test_the_door_opens_for_who_may_enter() -> None:
    """So the tests below fail for the reason that they give."""
    for method, form in {
        "password": lambda door: password(ACCOUNTS["alice"]),
        "publickey": lambda door: proof(door.session_id),
    }.items():
        door = Knocker.at()
        assert door.ask(method, form(door)) == [m.UserauthSuccess()]
        assert door.inside


# ----------------------------------------------------------------------------- V60 users that can be told from no users

STRANGER = key("stranger")
VISITS: dict[str, Callable[[bytes, str], list[tuple[str, bytes]]]] = {
    "none": lambda sid, user: [("none", b"")],
    "wrong password": lambda sid, user: [("password", password("wrong"))] * 3,
    "empty password": lambda sid, user: [("password", password(""))],
    "long password": lambda sid, user: [("password", password("x" * 1025))],
    "change of password": lambda sid, user: [("password", boolean(True) + text("a") + text("b"))],
    "unknown key": lambda sid, user: [("publickey", query(STRANGER.public_key.blob))] * 3,
    "unknown algorithm": lambda sid, user: [("publickey", query(algorithm="x@y"))],
    "no key": lambda sid, user: [("publickey", query(b"\0\0\0\1"))],
    "a stranger's proof": lambda sid, user: [("publickey", proof(sid, user, STRANGER))],
    "a bad proof": lambda sid, user: [("publickey", proof(bytes(32), user))],
    "a certificate of somebody else's": lambda sid, user: [("publickey", bound(sid, user, who=STRANGER))],
    "a certificate for elsewhere": lambda sid, user: [(methods.HOST_BOUND, bound(sid, user, b"another host"))],
    "prompts": lambda sid, user: [("keyboard-interactive", text("") + text(""))] * 2,
    "unknown method": lambda sid, user: [("gssapi-with-mic", uint32(0))] * 2,
    "malformed password": lambda sid, user: [("password", b"\0\0\0")],
    "malformed query": lambda sid, user: [("publickey", b"\0" + uint32(2**31))],
    "cut proof": lambda sid, user: [("publickey", proof(sid, user)[:-70])],
    "trailing": lambda sid, user: [("none", b"!")],
    "too many": lambda sid, user: [("password", password("wrong"))] * 8,
}


@pytest.mark.covers("V60", "R59", "R79", "P19")
@pytest.mark.parametrize("visit", VISITS.values(), ids=VISITS)
def test_users_and_strangers_are_answered_alike(visit: Callable[[bytes, str], list[tuple[str, bytes]]]) -> None:
    """CVE-2018-15473, CVE-2016-6210: the same messages, as many of them, of the same sizes, until the same end."""
    seen: list[Any] = []
    for user in ("alice", "bobby"):
        door = Knocker.at()
        answers = []
        for method, payload in visit(door.session_id, user):
            size = len(door.server.sent)
            said = [repr(message).replace(user, "USER") for message in door.ask(method, payload, user)]
            answers.append((said, len(door.server.sent) - size))
        error = door.server.conn.error
        seen.append((answers, type(error), str(error).replace(user, "USER")))
        assert not door.inside
    assert seen[0] == seen[1]


# --------------------------------------------------------------------------------------------------------- V61 attempts

FAILING: dict[str, Callable[[Knocker], m.Message]] = {
    "password": lambda door: m.UserauthRequest("alice", "ssh-connection", "password", password("wrong")),
    "stranger": lambda door: m.UserauthRequest("bobby", "ssh-connection", "password", password("wrong")),
    "unknown method": lambda door: m.UserauthRequest("alice", "ssh-connection", "hostbased"),
    "unknown service": lambda door: m.UserauthRequest("alice", "foo", "password", password(ACCOUNTS["alice"])),
    "bad key": lambda door: m.UserauthRequest("alice", "ssh-connection", "publickey", query(b"")),
    "unknown key": lambda door: m.UserauthRequest(
        "alice", "ssh-connection", "publickey", query(STRANGER.public_key.blob)
    ),
    "bad proof": lambda door: m.UserauthRequest("alice", "ssh-connection", "publickey", proof(bytes(32))),
    "abandoned prompts": lambda door: m.UserauthRequest(
        "alice", "ssh-connection", "keyboard-interactive", text("") + text("")
    ),
}


@pytest.mark.covers("V61", "B17", "R55", "R56")
@pytest.mark.parametrize("failing", FAILING.values(), ids=FAILING)
@pytest.mark.parametrize("together", [False, True])
def test_six_failures_and_no_more(failing: Callable[[Knocker], m.Message], together: bool) -> None:
    """CVE-2015-5600: however they fail, one by one or all in one packet of the network; the right one is too late."""
    door = Knocker.at()
    right = m.UserauthRequest("alice", "ssh-connection", "password", password(ACCOUNTS["alice"]))
    messages = [failing(door)] * 9 + [right]
    if together:
        door.knock(*messages)
    else:
        for message in messages:
            door.knock(message)
    error = loss(door.server.events)
    assert isinstance(error, AuthExhausted)
    assert error.code == 14
    assert not door.inside


@pytest.mark.covers("V61", "B17")
def test_mixed_failures_are_counted_together() -> None:
    door = Knocker.at()
    failures = [failing(door) for name, failing in FAILING.items() if name != "abandoned prompts"]
    for message in failures[:6]:
        door.knock(message)
    assert door.server.lost is None
    door.knock(failures[6])
    assert loss(door.server.events).code == 14


@pytest.mark.covers("V61", "B17", "B23")
def test_questions_about_a_good_key_are_counted() -> None:
    """They fail nobody, so there is no other end to them."""
    door = Knocker.at()
    for _ in range(Limits().auth_requests):
        assert door.ask("publickey", query()) == [m.UserauthPkOk("ssh-ed25519", USER_KEY.public_key.blob)]
    door.ask("publickey", query())
    error = loss(door.server.events)
    assert isinstance(error, LimitExceeded)
    assert error.limit == "auth_requests"
    assert error.code == 14


@pytest.mark.covers("V61", "V64")
def test_none_is_free_once() -> None:
    door = Knocker.at()
    for _ in range(7):
        assert door.ask("none") == [m.UserauthFailure(ALL, False)]
    door.ask("none")
    assert loss(door.server.events).code == 14
    assert not door.server.of(ev.AuthQuestion)


# ----------------------------------------------------------------------------- V11, V12 principals and keys that change


@pytest.mark.covers("V11", "R57")
@pytest.mark.parametrize(("user", "service"), [("root", "ssh-connection"), ("alice", "other")])
def test_another_principal_after_a_partial_success(user: str, service: str) -> None:
    """CVE-2026-46705."""

    def half(conn: Any, question: ev.Question) -> None:
        if isinstance(question, ev.PasswordAuth):
            conn.reject_auth(question, partial=True, methods=("publickey",))
        else:
            conn.accept_auth(question)

    door = Knocker.at()
    door.server.answer = half
    assert door.ask("password", password("x")) == [m.UserauthFailure(("publickey",), True)]
    door.knock(m.UserauthRequest(user, service, "publickey", proof(door.session_id, user)))
    assert loss(door.server.events).code == 2
    assert not door.inside


@pytest.mark.covers("V11", "R57", "R60")
def test_prompts_of_one_user_are_not_answered_by_another() -> None:
    door = Knocker.at()
    door.ask("keyboard-interactive", text("") + text(""), user="bobby")
    door.ask("none", user="alice")
    assert door.knock(m.UserauthInfoResponse((ACCOUNTS["alice"],))) == []
    assert not door.inside
    assert not door.server.of(ev.PromptsAnswered)


@pytest.mark.covers("V12", "R70")
def test_the_key_that_was_asked_about_is_not_the_key_that_signed() -> None:
    """CVE-2024-45337: asked about alice's, signed with the stranger's."""
    door = Knocker.at()
    assert door.ask("publickey", query()) == [m.UserauthPkOk("ssh-ed25519", USER_KEY.public_key.blob)]
    assert door.ask("publickey", proof(door.session_id, who=STRANGER)) == [m.UserauthFailure(ALL, False)]
    (question,) = door.server.of(ev.KeyAuth)
    assert question.key == STRANGER.public_key
    door.ask("publickey", query(STRANGER.public_key.blob))
    assert door.ask("publickey", proof(door.session_id)) == [m.UserauthSuccess()]
    (event,) = door.server.of(ev.Authenticated)
    assert event.key == USER_KEY.public_key


# ------------------------------------------------------------------------- V62 - V64, V66, V67, and what SSHamble tries

ODD: dict[str, tuple[str, str, bytes]] = {
    "password of 1025 bytes": ("alice", "password", password("x" * 1025)),
    "password of 30000 bytes": ("alice", "password", password("x" * 30_000)),
    "password with NUL": ("alice", "password", password(ACCOUNTS["alice"] + "\0")),
    "password that is no text": ("alice", "password", boolean(False) + string(b"\xff\xfe")),
    "empty password": ("alice", "password", password("")),
    "NUL password": ("alice", "password", password("\0")),
    "user of 1025 bytes": ("x" * 1025, "password", password(ACCOUNTS["alice"])),
    "user with NUL": ("alice\0", "password", password(ACCOUNTS["alice"])),
    "user with a line feed": ("alice\n", "password", password(ACCOUNTS["alice"])),
    "user that is no text": ("alice\udcff", "password", password(ACCOUNTS["alice"])),
    "another user": ("alice ", "password", password(ACCOUNTS["alice"])),
    "no user": ("", "password", password(ACCOUNTS["alice"])),
    "unasked change": ("alice", "password", boolean(True) + text(ACCOUNTS["alice"]) + text("new")),
    "change to nothing": ("alice", "password", boolean(True) + text("") + text("")),
    "no method": ("alice", "", b""),
    "method of 64": ("alice", "x" * 64, b""),
    "method of 65": ("alice", "x" * 65, b""),
    "none": ("alice", "none", b""),
    "PASSWORD": ("alice", "PASSWORD", password(ACCOUNTS["alice"])),
    "hostbased": ("alice", "hostbased", text("ssh-ed25519") + string(b"") + text("h") + text("alice") + string(b"")),
    "gssapi": ("alice", "gssapi-with-mic", uint32(2**31)),
    "gssapi-keyex": ("alice", "gssapi-keyex", string(b"mic")),
    "host-bound": (
        "alice",
        "publickey-hostbound-v00@openssh.com",
        boolean(True) + text("ssh-ed25519") + string(USER_KEY.public_key.blob) + string(b"") + string(b"host key"),
    ),
    "proof without a signature": ("alice", "publickey", query().replace(b"\0", b"\1", 1) + string(b"")),
    "garbage for a key": ("alice", "publickey", query(b"garbage")),
    "garbage for a certificate": ("alice", "publickey", query(b"garbage", "ssh-ed25519-cert-v01@openssh.com")),
    "a certificate as a key": ("alice", "publickey", query(USER_CERTIFICATE.blob)),
    "a key as a certificate": ("alice", "publickey", query(algorithm="ssh-ed25519-cert-v01@openssh.com")),
    "a broken certificate": (
        "alice",
        "publickey",
        query(USER_CERTIFICATE.blob[:-1] + b"\0", "ssh-ed25519-cert-v01@openssh.com"),
    ),
    "host-bound to nothing": ("alice", methods.HOST_BOUND, query() + string(b"")),
    "host-bound to the user": ("alice", methods.HOST_BOUND, query() + string(USER_KEY.public_key.blob)),
}


@pytest.mark.covers("V62", "V63", "V64", "V66", "V67", "R58", "R69", "R72", "R73", "R74", "R155", "B18")
@pytest.mark.parametrize(("user", "method", "payload"), ODD.values(), ids=ODD)
def test_odd_logins_fail_without_a_question(user: str, method: str, payload: bytes) -> None:
    """Nobody is asked, and the connection goes on: the right password still opens the door."""
    door = Knocker.at()
    answer = door.ask(method, payload, user)
    assert [type(message) for message in answer] == [m.UserauthFailure]
    if user in {"alice ", ""}:
        assert door.server.of(ev.PasswordAuth), "odd, but somebody's name"
    else:
        assert not door.server.of(ev.AuthQuestion)
    assert door.ask("password", password(ACCOUNTS["alice"])) == [m.UserauthSuccess()]


@pytest.mark.covers("V67", "V51", "R155")
def test_a_proof_that_was_made_for_another_host_opens_nothing() -> None:
    """What a server that is not ours gets signed, it cannot use here; nor can it write our host key over its own."""
    ours = HOST_KEY.public_key.blob
    for host_key in (STRANGER.public_key.blob, b"", None):
        door = Knocker.at()
        elsewhere = bound(door.session_id, host_key=host_key)
        form = methods.parse(methods.PUBLIC_KEY if host_key is None else methods.HOST_BOUND, elsewhere)
        assert isinstance(form, methods.PublicKeySigned | methods.HostBoundSigned)
        here = methods.HostBoundSigned(form.algorithm, form.key, ours, form.signature)
        refused = [m.UserauthFailure(ALL, False)]
        if host_key is not None:
            assert door.ask(methods.HOST_BOUND, elsewhere) == refused
        assert door.ask(methods.HOST_BOUND, here.encode()) == refused
        assert not door.server.of(ev.AuthQuestion)
        door.ask(methods.HOST_BOUND, bound(door.session_id, host_key=ours))
        assert door.server.of(ev.KeyAuth)  # so it was that


@pytest.mark.covers("V64", "R56")
@pytest.mark.parametrize(
    ("offered", "method"), [(offered, method) for offered in ALL for method in ("none", *ALL) if method != offered]
)
def test_a_method_that_is_not_offered_has_nobody_behind_it(offered: str, method: str) -> None:
    """CVE-2026-39835: no check is not a check that passes."""
    door = Knocker.at(auth_methods=(offered,))
    payload = {
        "none": b"",
        "publickey": proof(door.session_id),
        "password": password(ACCOUNTS["alice"]),
        "keyboard-interactive": text("") + text(""),
    }[method]
    assert door.ask(method, payload) == [m.UserauthFailure((offered,), False)]
    assert not door.server.of(ev.AuthQuestion)


@pytest.mark.covers("V65")
@pytest.mark.parametrize("answer", [None, 1, "yes", object(), ...])
def test_nothing_but_the_answer_to_the_question_lets_anyone_in(answer: Any) -> None:
    """What looks like a yes is none: a question is answered by itself, through its own method, or not at all."""
    door = Knocker.at()
    door.server.answer = None
    door.ask("password", password(ACCOUNTS["alice"]))
    (question,) = door.server.conn.questions
    with pytest.raises(Exception):  # noqa: B017  of whatever kind
        door.server.conn.accept_auth(answer)
    for other in (
        attrs.evolve(question, id=question.id + 1),
        attrs.evolve(question, user="root"),
        ev.KeyProbe(id=question.id, user="alice", key=USER_KEY.public_key, algorithm="ssh-ed25519"),
    ):
        with pytest.raises(Exception):  # noqa: B017
            door.server.conn.accept_auth(other)
    assert door.server.conn.data_to_send() == b""
    assert door.server.conn.questions == (question,)
    assert not door.inside


@pytest.mark.covers("V63", "R72")
def test_an_expired_password_lets_nobody_in() -> None:
    """Its change does, once it was asked for; and the old one again is as expired as before."""

    def expire(conn: Any, question: ev.Question) -> None:
        if question.new_password is None:
            conn.change_password(question, "expired")
        elif question.new_password == "new":
            conn.accept_auth(question)
        else:
            conn.reject_auth(question)

    door = Knocker.at()
    door.server.answer = expire
    for _ in range(2):
        assert door.ask("password", password("old")) == [m.UserauthPasswdChangereq("expired")]
        assert not door.inside
    assert door.ask("password", boolean(True) + text("old") + text("worse")) == [m.UserauthFailure(ALL, False)]
    assert door.ask("password", boolean(True) + text("old") + text("new")) == [m.UserauthFailure(ALL, False)]
    door.ask("password", password("old"))
    assert door.ask("password", boolean(True) + text("old") + text("new")) == [m.UserauthSuccess()]


# ---------------------------------------------------------------------------------------------------------- V68 banners


@pytest.mark.covers("V68", "B20")
@pytest.mark.parametrize(
    ("banners", "ends"),
    [
        ([m.UserauthBanner("x")] * 16, False),
        ([m.UserauthBanner("x")] * 17, True),
        ([m.UserauthBanner("x" * 32_000)] * 2, False),
        ([m.UserauthBanner("x" * 32_000)] * 3, True),
    ],
    ids=["16", "17", "62 KiB", "93 KiB"],
)
def test_a_flood_of_banners(banners: list[m.Message], ends: bool) -> None:
    middle = Middle(client_answer=only_the_host_key).run()
    for banner in banners:
        inject(middle.server, banner)
    middle.run()
    if ends:
        assert isinstance(loss(middle.client.events), LimitExceeded)
    else:
        assert middle.client.lost is None
        assert len(middle.client.of(ev.BannerReceived)) == len(banners)


@pytest.mark.covers("V68", "R65")
def test_banners_too_early_and_too_late() -> None:
    """Before the service is accepted it ends the connection; after login it is nobody's business."""
    middle = Middle(client_answer=only_the_host_key)
    middle.server.conn._engine._dispatch_service = lambda payload: inject(middle.server, m.UserauthBanner("early"))
    middle.run()
    error = loss(middle.client.events)
    assert isinstance(error, ProtocolViolation)
    pair = Pair.make().login()
    inject(pair.server, m.UserauthBanner("late"))
    pair.run()
    assert pair.client.lost is None
    assert not pair.client.of(ev.BannerReceived)


# ------------------------------------------------------------------------------------------ P11, P12 success comes once


@pytest.mark.covers("R63", "R64", "P11", "P12")
def test_after_success_requests_are_not_answered() -> None:
    """Nor do they change who is logged in."""
    door = Knocker.at()
    door.ask("publickey", proof(door.session_id))
    right = m.UserauthRequest("alice", "ssh-connection", "password", password(ACCOUNTS["alice"]))
    root = m.UserauthRequest("root", "ssh-connection", "none")
    assert door.knock(right, root, m.UserauthInfoResponse(("x",))) == []
    assert len(door.server.of(ev.Authenticated)) == 1
    assert door.server.lost is None


@pytest.mark.covers("R62", "R64", "P4")
def test_what_is_sent_behind_the_right_request_waits_for_its_answer() -> None:
    """A client that does not wait: the channel is there if the login succeeds, and never if it does not."""
    behind = m.ChannelOpen("session", 5, 1 << 20, 1 << 15)
    for words, opened in ((ACCOUNTS["alice"], True), ("wrong", False)):
        door = Knocker.at()
        door.knock(m.UserauthRequest("alice", "ssh-connection", "password", password(words)), behind)
        assert bool(door.server.of(ev.ChannelOpenRequested)) is opened
        assert (door.server.lost is None) is opened


def test_a_server_without_methods_is_not_made() -> None:
    with pytest.raises(ValueError, match="auth_methods"):
        ServerConfig(host_keys=(HOST_KEY,), auth_methods=(), limits=Limits())
