"""Client and server machine against each other, message by message over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sshproto.auth.client import ClientAuth
from sshproto.auth.server import ServerAuth
from sshproto.config import ClientConfig, ServerConfig
from sshproto.errors import AuthExhausted, UsageError
from sshproto.events import (
    Authenticated,
    AuthSucceeded,
    BannerReceived,
    CredentialNeeded,
    InteractiveAuth,
    KeyAuth,
    KeyProbe,
    NoneAuth,
    PasswordAuth,
    PasswordExpired,
    Prompt,
    PromptsAnswered,
    PromptsReceived,
    Question,
    SignatureNeeded,
)
from sshproto.keys.private import PrivateKey
from sshproto.wire.messages import decode
from tests.support.outlet import ListOutlet

KEYS = {type_: PrivateKey.generate(type_) for type_ in ("ssh-ed25519", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")}
KEYS["ssh-rsa"] = PrivateKey.generate("ssh-rsa", 2048)
METHODS = ("publickey", "password", "keyboard-interactive")


class Pair:
    """Both machines; what either sends is delivered until nothing moves."""

    def __init__(self, **server: Any) -> None:
        self.outlets = ListOutlet(), ListOutlet()
        config = ServerConfig(**{"host_keys": (KEYS["ssh-ed25519"],), "auth_methods": METHODS, **server})
        self.client = ClientAuth(ClientConfig(user="jörg"), self.outlets[0], b"sid")
        self.server = ServerAuth(config, self.outlets[1], b"sid", b"host key")
        self.server.start()
        self.client.start()

    def questions(self) -> Iterator[Question]:
        """The questions of both sides as they come up, each to be answered before the next; other events are kept."""
        self.events: list[Any] = []
        while True:
            for machine, outlet in ((self.client, self.outlets[1]), (self.server, self.outlets[0])):
                for message in outlet.take_sent():
                    decoded = decode(message.encode(), machine.context)
                    assert decoded is not None
                    machine.receive(decoded)
            events = self.outlets[1].take_events() + self.outlets[0].take_events()
            if not events and not self.outlets[0].sent and not self.outlets[1].sent:
                return
            for event in events:
                if isinstance(event, Question):
                    yield event
                else:
                    self.events.append(event)


@pytest.mark.covers("R67", "R68")
@pytest.mark.parametrize("type_", KEYS)
@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("probe", [None, False, True])
def test_public_key(type_: str, outside: bool, probe: bool | None) -> None:
    pair = Pair(banner="Hi\n")
    key = KEYS[type_]
    seen = []
    for question in pair.questions():
        seen.append(type(question))
        if isinstance(question, CredentialNeeded):
            pair.client.public_key(question, key.public_key if outside else key, probe=probe)
        elif isinstance(question, KeyProbe):
            pair.server.offer_key(question)
        elif isinstance(question, SignatureNeeded):
            pair.client.sign(question, key.sign(question.data, question.algorithm))
        elif isinstance(question, KeyAuth):
            pair.server.accept(question)
    asked = probe or (outside and probe is None)
    assert seen == [CredentialNeeded, *[KeyProbe] * asked, *[SignatureNeeded] * outside, KeyAuth]
    assert pair.events == [
        BannerReceived("Hi\n", "Hi\r\n"),
        Authenticated(user="jörg", method="publickey", key=key.public_key),
        AuthSucceeded("publickey", False),
    ]


@pytest.mark.covers("R61", "R72", "R75")
def test_everything_in_turn() -> None:
    """none, a refused password, a key as the first factor, an expired password as the second, prompts as the third."""
    pair = Pair()
    plan = iter(
        [
            pair.client.none,
            lambda q: pair.client.password(q, "wrong"),
            lambda q: pair.client.public_key(q, KEYS["ssh-ed25519"]),
            lambda q: pair.client.password(q, "old"),
            pair.client.keyboard_interactive,
        ]
    )
    lists = []
    for question in pair.questions():
        if isinstance(question, CredentialNeeded):
            lists.append((question.methods, question.partial_success))
            next(plan)(question)
        elif isinstance(question, PasswordAuth) and question.password == "old" and question.new_password is None:
            pair.server.change_password(question, "Expired")
        elif isinstance(question, PasswordExpired):
            pair.client.new_password(question, "old", "new")
        elif isinstance(question, PasswordAuth):
            pair.server.reject(question, partial=question.new_password == "new")
        elif isinstance(question, KeyAuth):
            pair.server.reject(question, partial=True)
        elif isinstance(question, InteractiveAuth):
            pair.server.prompt(question, "", "", [Prompt(text="Code: ", echo=True)])
        elif isinstance(question, PromptsReceived):
            pair.client.answer_prompts(question, ["123"] * len(question.prompts))
        elif isinstance(question, PromptsAnswered) and question.answers:
            pair.server.prompt(question, "", "Welcome", [])
        elif isinstance(question, PromptsAnswered):
            pair.server.accept(question)
    assert lists == [
        ((), False),
        (METHODS, False),
        (METHODS, False),
        (METHODS[1:], True),
        (METHODS[2:], True),
    ]
    assert pair.client.succeeded
    assert pair.server.succeeded
    assert pair.events[-1] == AuthSucceeded("keyboard-interactive", False)


@pytest.mark.covers("R62", "R164")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_two_applications(data: st.DataObject) -> None:
    """Two honest machines never accuse each other, whatever the applications decide; both ends agree on the outcome."""
    pair = Pair(ask_none=data.draw(st.booleans()))
    client, server = pair.client, pair.server
    key = KEYS["ssh-ed25519"]

    def choose(*answers: Any) -> None:
        question, *calls = answers
        call = data.draw(st.sampled_from(calls))
        try:
            call(question)
        except UsageError:  # only for a partial success that cannot be
            server.reject(question)

    def no(question: Any) -> None:
        server.reject(question)

    def partly(question: Any) -> None:
        server.reject(question, partial=True)

    def ask(question: Any) -> None:
        server.prompt(question, "a", "b", [Prompt(text="?", echo=True)] * data.draw(st.integers(0, 3)))

    for count, question in enumerate(pair.questions()):
        if client.lost or server.lost:
            break
        if isinstance(question, CredentialNeeded):
            choose(
                question,
                client.none,
                client.keyboard_interactive,
                lambda q: client.password(q, "x"),
                lambda q: client.public_key(q, key, probe=data.draw(st.booleans())),
                lambda q: client.public_key(q, key.public_key, probe=data.draw(st.booleans())),
                *([client.give_up] if count > 20 else []),
            )
        elif isinstance(question, PromptsReceived):
            client.answer_prompts(question, [""] * len(question.prompts))
        elif isinstance(question, PasswordExpired):
            client.new_password(question, "x", "y")
        elif isinstance(question, SignatureNeeded):
            choose(question, client.decline_sign, lambda q: client.sign(q, key.sign(q.data, q.algorithm)))
        elif isinstance(question, KeyProbe):
            choose(question, no, server.offer_key)
        elif isinstance(question, NoneAuth):
            choose(question, no, server.accept)
        elif isinstance(question, KeyAuth):
            choose(question, no, partly, server.accept)
        elif isinstance(question, PasswordAuth):
            choose(question, no, partly, server.accept, lambda q: server.change_password(q, "new"))
        elif isinstance(question, InteractiveAuth | PromptsAnswered):
            choose(question, no, partly, ask, server.accept)
    if client.lost or server.lost:
        assert isinstance(client.lost or server.lost, AuthExhausted)
    else:
        assert client.succeeded
        assert server.succeeded
