"""An outlet made of lists, and two multiplexers joined through two of them."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from sshproto.channels.mux import Mux
from sshproto.channels.requests import Session
from sshproto.config import Config, Limits
from sshproto.engine import Engine
from sshproto.errors import LimitReached
from sshproto.events import ChannelOpened, ChannelOpenRequested, Question
from sshproto.questions import Questions
from sshproto.timers import Timers
from sshproto.wire import messages
from sshproto.wire.table import Role

SERVER_CHANNEL = 0


class Asked(Questions):
    """What was asked, until a test takes it out, and what was withdrawn."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, Question] = {}
        self.withdrawn: list[int] = []

    def add(self, question: Question, size: int = 0) -> None:
        self.asked[question.id] = question

    def withdraw(self, question_id: int) -> None:
        del self.asked[question_id]
        self.withdrawn.append(question_id)


class ListOutlet:
    """What a multiplexer did: payloads in ``sent``, events (questions too) in ``events``."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: deque[bytes] = deque()
        self.tags: list[int] = []
        self.events: list[Any] = []
        self.questions = Asked()
        self.free = 1 << 30  # what room() says
        self.full = False  # send() raises

    def send(self, message: messages.Message, tag: int | None = None, payload: bytes | None = None) -> None:
        if self.full:
            raise LimitReached("the test's outlet is full")
        self.sent.append(message.encode())
        if tag is not None:
            self.tags.append(tag)

    def send_payload(self, payload: bytes) -> None:
        if self.full:
            raise LimitReached("the test's outlet is full")
        self.sent.append(payload)

    def send_data(self, head: bytes, body: Any) -> None:
        if self.free <= 0:
            raise RuntimeError("send_data without room")
        self.sent.append(head + bytes(body))
        self.free -= len(body)

    def room(self) -> int:
        return self.free

    @property
    def timers(self) -> Timers:
        return Timers(self.now)

    def emit(self, event: Any) -> None:
        self.events.append(event)

    def ask(self, question: Question, *, hold: bool = False, size: int = 0) -> None:
        self.questions.add(question)
        self.events.append(question)

    @property
    def owed(self) -> dict[int, Question]:
        return self.questions.asked

    @property
    def withdrawn(self) -> list[int]:
        return self.questions.withdrawn

    # for the tests

    def take(self) -> list[messages.Message]:
        """The messages sent since the last call, decoded."""
        found = [messages.decode(payload) for payload in self.sent]
        self.sent.clear()
        return [message for message in found if message is not None]

    def told(self) -> list[Any]:
        """The events since the last call."""
        events, self.events = self.events, []
        return events


def feed(mux: Mux, outlet: ListOutlet, payload: bytes | messages.Message) -> None:
    """Give a payload to ``mux`` as the connection would."""
    if isinstance(payload, messages.Message):
        payload = payload.encode()
    event = Engine._HANDLERS[payload[0]](SimpleNamespace(mux=mux), memoryview(payload))
    if event is not None:
        outlet.emit(event)


def snapshot(thing: Any, seen: dict[int, int] | None = None) -> Any:
    """All state that is reachable from ``thing``, as a value that compares."""
    seen = {} if seen is None else seen
    if isinstance(thing, (int, str, bytes, float, type(None), type)) or attrs.has(type(thing)):
        return thing
    if callable(thing):
        return "callable"
    if id(thing) in seen:
        return f"<{seen[id(thing)]}>"
    seen[id(thing)] = len(seen)
    if isinstance(thing, dict):
        return [(key, snapshot(value, seen)) for key, value in thing.items()]
    if isinstance(thing, (set, frozenset)):
        return sorted(thing, key=str)
    if isinstance(thing, (list, tuple, deque)):
        return [snapshot(value, seen) for value in thing]
    names = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())]
    names += list(getattr(thing, "__dict__", ()))
    return (type(thing).__name__, [(name, snapshot(getattr(thing, name, None), seen)) for name in sorted(names)])


class Side:
    """One multiplexer and its outlet."""

    def __init__(self, role: Role, limits: Limits) -> None:
        self.role = role
        self.outlet = ListOutlet()
        self.mux = Mux(role, Config(limits=limits), self.outlet)

    def state(self) -> Any:
        return snapshot(self.mux)

    def feed(self, payload: bytes | messages.Message) -> None:
        feed(self.mux, self.outlet, payload)

    def take(self) -> list[messages.Message]:
        return self.outlet.take()

    def told(self) -> list[Any]:
        return self.outlet.told()


class Pair:
    """A client and a server joined in memory."""

    def __init__(self, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.client = Side(Role.CLIENT, limits)
        self.server = Side(Role.SERVER, limits)

    def settle(self) -> None:
        """Deliver everything until nothing moves."""
        while self.client.outlet.sent or self.server.outlet.sent:
            for sender, receiver in ((self.client, self.server), (self.server, self.client)):
                while sender.outlet.sent:
                    receiver.feed(sender.outlet.sent.popleft())

    def open(self, kind: Any = None, **options: Any) -> tuple[int, int]:
        """An open channel: the client's number and the server's."""
        number = self.client.mux.open_channel(kind or Session(), **options)
        self.settle()
        question = next(event for event in self.server.told() if isinstance(event, ChannelOpenRequested))
        self.server.outlet.owed.pop(question.id)
        self.server.mux.accept_channel(question, **options)
        self.settle()
        assert self.client.told() == [ChannelOpened(number)]
        return number, question.channel


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
def make_pair() -> type[Pair]:
    return Pair


@pytest.fixture
def make_side() -> type[Side]:
    return Side
