"""Logins: a server and a client that says anything at any time; a client and a server that does.

The application of each decides anything, too.  What must hold is small: nobody is in without a yes to the right
question, nothing is answered twice, nothing is counted for ever, and every fault ends the connection once.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from sshproto import events as ev
from sshproto.auth import methods
from sshproto.config import Limits
from sshproto.errors import AuthExhausted, LimitExceeded, ProtocolViolation, ServiceRefused, UsageError
from sshproto.transport.link import Phase
from sshproto.wire import messages as m
from sshproto.wire.codec import boolean, string, text
from tests.support.joined import PATIENCE, Joined, budget
from tests.support.pair import End
from tests.support.rogue import inject
from tests.support.seeds import USER_KEY, key

METHODS = ("publickey", "password", "keyboard-interactive")
STRANGER = key("stranger")
LIMITS = Limits(
    peer_rekeys=10_000,
    rekeys_before_auth=10_000,
    auth_failures=4,
    auth_requests=30,
    info_rounds=5,
    client_auth_attempts=12,
)
FAULTS = (ProtocolViolation, LimitExceeded, AuthExhausted, ServiceRefused)

FORMS = (
    *("none", "empty", "change", "bad query", "hostbased", "cut"),
    *("password", "query", "proof", "bad proof", "prompts") * 5,
)


def form(name: str, session_id: bytes, user: str, service: str) -> tuple[str, bytes]:
    """A method and its part of a request."""
    blob = USER_KEY.public_key.blob
    algorithm = "ssh-ed25519"
    if name in {"proof", "bad proof"}:
        data = methods.signed_data(session_id, user, service, algorithm, blob)
        signer = USER_KEY if name == "proof" else STRANGER
        return "publickey", boolean(True) + text(algorithm) + string(blob) + string(signer.sign(data))
    return {
        "none": ("none", b""),
        "password": ("password", boolean(False) + text("secret")),
        "empty": ("password", boolean(False) + text("")),
        "change": ("password", boolean(True) + text("secret") + text("better")),
        "query": ("publickey", boolean(False) + text(algorithm) + string(blob)),
        "bad query": ("publickey", boolean(False) + text(algorithm) + string(b"no key")),
        "prompts": ("keyboard-interactive", text("") + text("")),
        "hostbased": ("hostbased", b"anything"),
        "cut": ("password", b""),
    }[name]


REQUESTS = st.tuples(
    st.sampled_from(["alice"] * 12 + ["bob"] * 2 + ["", "a\0b"]),
    st.sampled_from(["ssh-connection"] * 15 + ["other"]),
    st.sampled_from(FORMS),
)
DECISIONS = st.tuples(
    st.booleans(),
    st.sampled_from([*["plain"] * 5, "partial", "narrow", "prompt", "prompt", "change"]),
)


class Servers(RuleBasedStateMachine):
    """A server, its application, and a client that has a transport and no manners."""

    @initialize(
        ask_none=st.booleans(),
        offered=st.sampled_from([METHODS, METHODS, METHODS[:1], METHODS[1:]]),
        service=st.sampled_from([True, True, True, False]),
    )
    def start(self, ask_none: bool, offered: tuple[str, ...], service: bool) -> None:
        self.joined = Joined(
            self.observe,
            client={"limits": LIMITS},
            server={"limits": LIMITS, "ask_none": ask_none, "auth_methods": offered},
            rogue=0,
        )
        client, server = self.joined.sides
        self.engine = client.conn._engine
        self.server: Any = server.conn
        self.end = End("client", client.conn, None)
        self.question: Any = None
        self.prompts = 0
        self.granted: list[Any] = []
        self.proved: list[str] = []
        self.let_in: list[Any] = []
        self.error: Any = None
        self.joined.settle()
        assert self.server.phase is Phase.AUTH
        if service:
            inject(self.end, m.ServiceRequest("ssh-userauth"))
            self.go()

    def observe(self, side: int, event: Any) -> None:
        if isinstance(event, ev.HostKeyOffered):
            self.joined.sides[side].monitor.trusted = True
            self.joined.sides[side].conn.accept_host_key(event)
        if side == 0:
            return
        if isinstance(event, ev.AuthQuestion):
            assert self.question is None, "one question at a time"
            assert event.user in {"alice", "bob", ""}
            self.question = event
        elif isinstance(event, ev.Authenticated):
            self.let_in.append(event)
        elif isinstance(event, ev.ConnectionLost):
            assert self.error is None
            self.error = event.error
            self.question = None

    def go(self) -> None:
        self.joined.pump(0)
        self.joined.settle()

    @precondition(lambda self: self.error is None)
    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=3))
    def knock(self, requests: list[tuple[str, str, str]]) -> None:
        """One request or several at once: they are answered one after the other."""
        for user, service, name in requests:
            method, payload = form(name, self.server.session_id, user, service)
            inject(self.end, m.UserauthRequest(user, service, method, payload))
        self.go()

    @precondition(lambda self: self.error is None)
    @rule(wrong=st.sampled_from([0] * 8 + [-1, 1]), hasty=st.sampled_from([False] * 9 + [True]))
    def respond(self, wrong: int, hasty: bool) -> None:
        """As many answers as were asked for, or not; when something was asked, or not."""
        if not (hasty or self.joined.sides[1].monitor.prompting):
            return
        count = max(0, self.prompts + wrong)
        inject(self.end, m.UserauthInfoResponse(("x",) * count))
        self.go()

    @precondition(lambda self: self.error is None)
    @rule(
        what=st.sampled_from(
            [
                *(m.Ignore(b""), m.Debug(False, ""), m.Unimplemented(0), b"\x1d", b"\x3e", b"\x4f"),
                *[m.ServiceRequest("ssh-userauth")] * 2,
                m.ServiceRequest("ssh-connection"),
                *[None] * 3,
            ]
        )
    )
    def say_something_else(self, what: Any) -> None:
        """Chatter, services, and keys exchanged anew before login (P5)."""
        if what is not None:
            inject(self.end, what)
        elif not self.let_in and not self.engine.kex.active:
            self.engine._start_rekey()
        self.go()

    @precondition(lambda self: self.question is not None)
    @rule(decisions=st.lists(DECISIONS, min_size=1, max_size=3))
    def decide(self, decisions: list[tuple[bool, str]]) -> None:
        """One answer, and more if there are more questions behind it."""
        for yes, how in decisions:
            if self.question is not None:
                self.answer(yes, how)

    def answer(self, yes: bool, how: str) -> None:
        question, self.question = self.question, None
        conn = self.server
        try:
            interactive = isinstance(question, ev.InteractiveAuth)
            if how == "prompt" or (interactive and not yes):
                conn.prompt(question, [ev.Prompt(text="?", echo=True)] * (1 + yes))
                self.prompts = 1 + yes
            elif how == "change":
                conn.change_password(question, "another")
            elif how == "partial":
                conn.reject_auth(question, partial=True)
            elif how == "narrow":
                conn.reject_auth(question, methods=("password",))
            elif isinstance(question, ev.KeyProbe) and yes:
                conn.offer_key(question)
            elif yes:
                conn.accept_auth(question)
                self.granted.append(question)
            else:
                conn.reject_auth(question)
        except UsageError:
            conn.reject_auth(question)
        self.go()

    @precondition(lambda self: self.error is not None)
    @rule(noise=st.binary(min_size=1, max_size=40))
    def late(self, noise: bytes) -> None:
        """After the end, silence (P1), whatever comes."""
        self.joined.sides[0].flight += noise
        self.joined.settle()
        assert not self.server.data_to_send()

    def teardown(self) -> None:
        if not hasattr(self, "joined"):
            return
        self.joined.settle()
        while self.question is not None:
            self.answer(False, "plain")
        server = self.joined.sides[1].monitor
        assert len(self.let_in) == len(self.granted) <= 1
        for event, question in zip(self.let_in, self.granted, strict=True):
            assert event.user == question.user
            assert not isinstance(question, ev.KeyProbe)
            assert event.key == getattr(question, "key", None)
        if self.error is None:
            server.at_rest()
        else:
            assert isinstance(self.error, FAULTS), self.error
        assert server.sent[51] <= LIMITS.auth_requests
        assert server.received[50] <= LIMITS.auth_requests + LIMITS.ignored_messages + 1


ANSWERS = st.sampled_from(
    [
        *[m.UserauthFailure(METHODS, False)] * 4,
        *[m.UserauthFailure(METHODS, True)] * 2,
        m.UserauthFailure((), False),
        *[m.UserauthSuccess()] * 5,
        m.UserauthBanner("hello"),
        m.UserauthPkOk("ssh-ed25519", USER_KEY.public_key.blob),
        m.UserauthPkOk("ssh-ed25519", STRANGER.public_key.blob),
        m.UserauthInfoRequest("", "", "", (("?", False),)),
        m.UserauthInfoRequest("", "", "", ()),
        m.UserauthPasswdChangereq("better"),
        m.ServiceAccept("ssh-userauth"),
        m.Ignore(b""),
        b"\x3e",
    ]
)


class Clients(RuleBasedStateMachine):
    """A client, its application, and a server that has a transport and says what it likes."""

    @initialize(allow=st.booleans())
    def start(self, allow: bool) -> None:
        self.allow = allow
        self.question: Any = None
        self.error: Any = None
        self.outcome: list[Any] = []
        self.outstanding = ""  # what the server owes an answer: a method, "query", or nothing
        self.proof = False
        self.proved = False
        self.joined = Joined(
            self.observe, client={"limits": LIMITS, "allow_trivial_auth": allow}, server={"limits": LIMITS}, rogue=1
        )
        client, server = self.joined.sides
        self.client: Any = client.conn
        self.end = End("server", server.conn, None)
        self.joined.settle()
        inject(self.end, m.ServiceAccept("ssh-userauth"))
        self.joined.settle()
        assert isinstance(self.question, ev.CredentialNeeded)

    def observe(self, side: int, event: Any) -> None:
        if side == 1:
            return
        if isinstance(event, ev.HostKeyOffered):
            self.joined.sides[0].monitor.trusted = True
            self.joined.sides[0].conn.accept_host_key(event)
        elif isinstance(event, ev.Question):
            assert self.question is None
            self.question = event
        elif isinstance(event, ev.AuthSucceeded):
            self.outcome.append(event)
        elif isinstance(event, ev.ConnectionLost):
            self.error = event.error
            self.question = None

    def go(self) -> None:
        self.joined.pump(0)
        self.joined.settle()

    @precondition(lambda self: self.error is None and not self.outcome)
    @rule(turns=st.lists(st.tuples(st.sampled_from(range(8)), ANSWERS), min_size=1, max_size=4))
    def converse(self, turns: list[tuple[int, Any]]) -> None:
        """The application answers what it is asked, and the server answers that."""
        for how, message in turns:
            if self.question is not None:
                self.decide(how)
            if self.error is None and not self.outcome:
                self.say(message, hasty=False)

    @precondition(lambda self: self.error is None and not self.outcome)
    @rule(message=ANSWERS)
    def interrupt(self, message: Any) -> None:
        """The server speaks whoever's turn it is."""
        self.say(message, hasty=True)

    def decide(self, how: int) -> None:
        question, self.question = self.question, None
        conn = self.client
        match question:
            case ev.CredentialNeeded():
                self.proof = how in {1, 2, 3}
                calls = (
                    lambda: conn.auth_none(question),
                    lambda: conn.auth_password(question, "secret"),
                    lambda: conn.auth_public_key(question, USER_KEY),
                    lambda: conn.auth_public_key(question, USER_KEY.public_key, probe=False),
                    lambda: conn.auth_public_key(question, USER_KEY, probe=True),
                    lambda: conn.auth_public_key(question, USER_KEY.public_key, probe=True),
                    lambda: conn.auth_keyboard_interactive(question),
                    lambda: conn.auth_keyboard_interactive(question),
                )
                self.outstanding = ("none", "password", "publickey", "", "query", "query", "prompts", "prompts")[how]
                calls[how]()
            case ev.PromptsReceived():
                conn.answer_prompts(question, ["x"] * len(question.prompts))
                self.proof = self.proof or bool(question.prompts)
                self.outstanding = "prompts"
            case ev.PasswordExpired():
                conn.new_password(question, "secret", "better")
                self.outstanding, self.proof = "password", True
            case ev.SignatureNeeded() if how % 2:
                conn.sign(question, USER_KEY.sign(question.data, question.algorithm))
                self.outstanding, self.proof = "publickey", True
            case ev.SignatureNeeded():
                conn.decline_sign(question)
                self.outstanding = ""
            case _:
                raise AssertionError(f"what is {question}?")
        self.go()

    def say(self, message: Any, *, hasty: bool) -> None:
        harmless = isinstance(message, (bytes, m.Ignore, m.UserauthBanner))
        if not (self.outstanding or harmless or hasty):
            return
        expected, proof = self.outstanding, self.proof
        if isinstance(message, m.UserauthFailure):
            self.proved = self.proved or (proof and message.partial_success)
        if not harmless:
            self.outstanding = ""
        inject(self.end, message)
        self.go()
        if isinstance(message, m.UserauthPkOk) and self.error is None and self.question is None:
            self.outstanding, self.proof = "publickey", True  # it has signed at once
        if isinstance(message, m.UserauthSuccess):
            allowed = expected not in {"", "query"} and (self.allow or proof or self.proved)
            assert bool(self.outcome) is allowed
            assert (self.error is None) is allowed
            if allowed:
                assert self.outcome[0].trivial is not (proof or self.proved)

    @precondition(lambda self: self.error is None and not self.outcome and self.question is None)
    @rule()
    def rekey(self) -> None:
        engine = self.joined.sides[1].conn._engine
        if not engine.kex.active:
            engine._start_rekey()
            self.joined.pump(1)
            self.go()

    @precondition(lambda self: self.error is not None or self.outcome)
    @rule(noise=st.binary(min_size=1, max_size=40))
    def late(self, noise: bytes) -> None:
        """After the end, silence (P1), whatever comes."""
        if self.error is not None:
            self.joined.sides[1].flight += noise
            self.joined.settle()
            assert not self.client.data_to_send()

    def teardown(self) -> None:
        if not hasattr(self, "joined"):
            return
        monitor = self.joined.sides[0].monitor
        assert len(self.outcome) <= 1
        if self.error is not None:
            assert isinstance(self.error, FAULTS), self.error
        # Each attempt has at most two requests, and each round one answer.
        assert monitor.sent[50] <= 2 * LIMITS.client_auth_attempts
        assert monitor.sent[61] <= LIMITS.client_auth_attempts * LIMITS.info_rounds
        with contextlib.suppress(UsageError):
            self.client.disconnect("enough")
        self.joined.settle()


TestServers = Servers.TestCase
TestServers.settings = budget(1.0)
TestServers.pytestmark = [
    PATIENCE,
    pytest.mark.slow,
    pytest.mark.covers(
        "V11", "V12", "V61", "R57", "R60", "R61", "R62", "R63", "R76", "P3", "P5", "P9", "P10", "P11", "P12", "P17"
    ),
]
TestClients = Clients.TestCase
TestClients.settings = budget(1.0)
TestClients.pytestmark = [
    PATIENCE,
    pytest.mark.slow,
    pytest.mark.covers("V07", "V09", "V10", "R70", "R76", "R129", "P5", "P18", "P21"),
]
