"""What an application sees: it is there, it is documented, and every question has a safe answer."""

from __future__ import annotations

import gc
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

import sshproto
from sshproto import events
from sshproto.channels.requests import Exec, Session
from sshproto.client import ClientConnection
from sshproto.connection import Connection
from sshproto.errors import UsageError
from sshproto.events import Event, Question
from sshproto.server import ServerConnection
from tests.support.pair import HOST_KEY, Pair

MODULES = (
    "sshproto",
    "sshproto.agent",
    "sshproto.agent.bindings",
    "sshproto.agent.constraints",
    "sshproto.agent.framing",
    "sshproto.agent.keyring",
    "sshproto.agent.messages",
    "sshproto.agent.replies",
    "sshproto.agent.server",
    "sshproto.agent.signing",
    "sshproto.algorithms",
    "sshproto.channels.requests",
    "sshproto.config",
    "sshproto.errors",
    "sshproto.events",
    "sshproto.keys",
    "sshproto.keys.allowed_signers",
    "sshproto.keys.authorized_keys",
    "sshproto.keys.known_hosts",
    "sshproto.keys.private",
    "sshproto.keys.public",
    "sshproto.keys.revocation",
    "sshproto.keys.signatures",
    "sshproto.keys.sshsig",
    "sshproto.keys.timestamps",
    "sshproto.text",
    "sshproto.transport.negotiation",
    "sshproto.wire.messages",
)
"""Public modules: what ``sshproto``'s docstring names, and what its values and messages are made of."""

CLASSES = (Connection, ClientConnection, ServerConnection, sshproto.Phase)
"""Public classes that live beside private ones."""

# Which connection asks which question; the bases are never asked themselves.
BOTH = {"SignatureNeeded", "ChannelOpenRequested", "ChannelRequested", "GlobalRequested"}
CLIENT = {"HostKeyOffered", "CredentialNeeded", "PromptsReceived", "PasswordExpired"}
SERVER = {"NoneAuth", "PasswordAuth", "KeyProbe", "KeyAuth", "InteractiveAuth", "PromptsAnswered"}
BASES = {"Question", "AuthQuestion"}


def all_subclasses(kind: type[Any]) -> set[type[Any]]:
    found = {kind}
    for child in kind.__subclasses__():
        found |= all_subclasses(child)
    return found


gc.collect()  # attrs makes each class twice, and one of them lingers

QUESTIONS = sorted(
    (kind for kind in all_subclasses(Question) if kind.__module__ == "sshproto.events"), key=lambda kind: kind.__name__
)


def own(module: Any) -> Iterator[tuple[str, Any]]:
    """The public classes and functions that a module defines itself."""
    for name, value in vars(module).items():
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__:
            yield name, value


def undocumented(kind: type[Any]) -> list[str]:
    """What a class has without saying what it is."""
    missing = [] if kind.__dict__.get("__doc__") else [kind.__name__]
    for name, value in vars(kind).items():
        if name.startswith("_"):
            continue
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        inherited = any(getattr(getattr(base, name, None), "__doc__", None) for base in kind.__mro__[1:])
        if inspect.isfunction(function) and not function.__doc__ and not inherited:
            missing.append(f"{kind.__name__}.{name}")
    return missing


# ---------------------------------------------------------------------------------------------------------------- names


def test_every_public_name_is_there_and_once() -> None:
    assert [name for name in sshproto.__all__ if not hasattr(sshproto, name)] == []
    assert len(sshproto.__all__) == len(set(sshproto.__all__))
    names: dict[str, Any] = {}
    exec("from sshproto import *", names)
    assert set(sshproto.__all__) <= set(names)


@pytest.mark.parametrize("name", MODULES)
def test_every_all_resolves(name: str) -> None:
    module = importlib.import_module(name)
    assert [entry for entry in getattr(module, "__all__", ()) if not hasattr(module, entry)] == []


def test_what_the_package_says_is_what_it_has() -> None:
    assert sshproto.__version__ == sshproto.config.VERSION  # type: ignore[attr-defined]
    assert sshproto.ClientConnection is ClientConnection
    assert sshproto.ServerConnection is ServerConnection


# ----------------------------------------------------------------------------------------------------------- docstrings


@pytest.mark.parametrize("name", MODULES)
def test_every_public_thing_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    missing = [entry for entry, value in own(module) if inspect.isfunction(value) and not value.__doc__]
    for _, value in own(module):
        if inspect.isclass(value):
            missing += undocumented(value)
    assert not missing


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_public_method_says_what_it_does(kind: type[Any]) -> None:
    assert undocumented(kind) == []


@pytest.mark.parametrize(
    "kind", [kind for kind in QUESTIONS if kind.__name__ not in BASES], ids=lambda kind: kind.__name__
)
def test_every_question_says_how_it_is_answered(kind: type[Question]) -> None:
    """With methods of the connection that asks; a kind that says nothing is answered as its base says."""
    docs = [base.__doc__ or "" for base in kind.__mro__]
    told = next(doc for doc in docs if "Answer " in doc).partition("Answer ")[2]
    answers = re.findall(r"``(\w+)", told.partition("Attributes:")[0])
    assert answers
    connections = (ClientConnection, ServerConnection) if kind.__name__ in BOTH else ()
    for connection in connections or ((ClientConnection,) if kind.__name__ in CLIENT else (ServerConnection,)):
        assert [name for name in answers if not callable(getattr(connection, name, None))] == []


@pytest.mark.parametrize(
    "kind", sorted(all_subclasses(Event), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__
)
def test_every_event_says_what_it_is(kind: type[Event]) -> None:
    assert kind.__dict__["__doc__"].split("\n")[0].rstrip(".?").strip()


# ------------------------------------------------------------------------------------------------------------- refusals


def test_the_questions_are_those_of_this_test() -> None:
    assert {kind.__name__ for kind in QUESTIONS} == BOTH | CLIENT | SERVER | BASES


@pytest.mark.parametrize("kind", QUESTIONS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("connection", "asks"), [(ClientConnection, CLIENT), (ServerConnection, SERVER)])
def test_every_question_has_a_refusal_where_it_is_asked(kind: type[Question], connection: Any, asks: set[str]) -> None:
    refusals = connection._REFUSALS
    found = [base for base in refusals if issubclass(kind, base)]
    if kind.__name__ in BOTH | asks:
        assert len(found) == 1, "one way to say no, whatever the order of the table"
        assert callable(refusals[found[0]])
    elif kind.__name__ not in BASES:
        assert not found


@pytest.mark.parametrize("connection", [Connection, ClientConnection, ServerConnection])
def test_only_questions_can_be_refused(connection: Any) -> None:
    assert all(issubclass(kind, Question) for kind in connection._REFUSALS)
    assert Connection._REFUSALS.items() <= connection._REFUSALS.items()


def test_refusing_what_is_never_asked_here_is_misuse() -> None:
    pair = Pair.make().login()
    with pytest.raises(UsageError, match="a NoneAuth is not a question of this connection"):
        pair.client.conn.refuse(events.NoneAuth(id=1, user="alice"))
    with pytest.raises(UsageError, match="a CredentialNeeded is not a question of this connection"):
        pair.server.conn.refuse(events.CredentialNeeded(id=1))


@pytest.mark.covers("V08")
def test_refuse_says_no_to_a_host_key_and_ends_the_connection_with_code_9() -> None:
    pair = Pair.make(client_answer=lambda conn, question: conn.refuse(question)).run()
    assert pair.client.of(events.HostKeyOffered)
    assert pair.client.lost.error.code == 9
    assert pair.server.lost.error.code == 9
    assert not pair.server.of(events.AuthQuestion)


@pytest.mark.covers("V64")
def test_refuse_says_no_to_every_user() -> None:
    """Default deny."""
    pair = Pair.make(server_answer=lambda conn, question: conn.refuse(question)).run()
    assert pair.server.of(events.AuthQuestion)
    assert not pair.server.of(events.Authenticated)
    assert not pair.client.of(events.AuthSucceeded)
    assert pair.client.lost is not None


def test_refuse_says_no_to_channels_and_requests() -> None:
    kinds: list[str] = []

    def refuse(conn: Any, question: Question) -> None:
        kinds.append(type(question).__name__)
        conn.refuse(question)

    pair = Pair.make().login()
    accept = pair.server.answer
    pair.server.answer = refuse
    refused = pair.client.conn.open_channel(Session())
    pair.run()
    assert [event.channel for event in pair.client.of(events.ChannelOpenFailed)] == [refused]
    pair.server.answer = accept
    channel = pair.client.conn.open_channel(Session())
    pair.run()
    pair.server.answer = refuse
    request = pair.client.conn.request(channel, Exec(b"id"))
    pair.run()
    assert pair.client.of(events.RequestFailed) == [events.RequestFailed(channel, request)]
    assert kinds == ["ChannelOpenRequested", "ChannelRequested"]


def test_refuse_says_no_to_a_signature_for_the_host() -> None:
    server = sshproto.ServerConfig(host_keys=(HOST_KEY.public_key,), debug_raise=True)
    pair = Pair.make(server=server, server_answer=lambda conn, question: conn.refuse(question)).run()
    assert len(pair.server.of(events.SignatureNeeded)) == 1
    assert pair.server.lost.error.code == pair.client.lost.error.code == 3


# --------------------------------------------------------------------------------------------------------------- events


@pytest.mark.parametrize(
    "kind", sorted(all_subclasses(Event) - {Event}, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__
)
def test_events_are_values(kind: type[Any]) -> None:
    """Frozen and compared by content, but for the one of the hot path and the one that holds an exception."""
    assert attrs.has(kind)
    if kind is not events.DataReceived:
        assert kind.__setattr__ is not object.__setattr__
    if kind is not events.ConnectionLost:
        assert "__eq__" in kind.__dict__
    assert "_session" not in kind.__dict__


@pytest.mark.covers("V70", "R169")
def test_show_is_one_safe_line_without_secrets() -> None:
    shown = events.show(events.PasswordAuth(id=1, user="eve\x1b[2J\n", password="hunter2", new_password="hunter3"))
    assert shown == "PasswordAuth id=1 user=eve\\x1b[2J\\n"
    assert events.show(events.DataReceived(3, b"x" * 33)) == "DataReceived channel=3 data=<33 bytes> stream=0"
    assert events.show(events.DebugReceived("\u202e", True)) == "DebugReceived message=\\u202e always_display=True"
    assert "hunter" not in repr(events.PromptsAnswered(id=1, user="a", answers=("hunter2",)))
