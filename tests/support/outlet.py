"""An Outlet that is a list: the connection as a machine's unit test sees it."""

from __future__ import annotations

import attrs

from sshproto.errors import LimitReached
from sshproto.events import Event, Question
from sshproto.questions import Questions
from sshproto.timers import Timers
from sshproto.wire.codec import Buffer
from sshproto.wire.messages import Message, decode


@attrs.define(eq=False)
class ListOutlet:
    """Everything that a machine did, in order.

    Attributes:
        now: The time that the machine sees.
        capacity: What ``room()`` says.
        full: True makes ``send`` refuse, as a connection does whose deferred queue is full.
        sent: Messages, each checked to encode and to survive the way over the wire.
        tags: For each of ``sent`` its tag.
        data: Payloads of ``send_data``.
        events: Events, questions among them.
    """

    now: float = 0.0
    capacity: int = 1 << 20
    full: bool = False
    sent: list[Message] = attrs.field(factory=list)
    tags: list[int | None] = attrs.field(factory=list)
    data: list[bytes] = attrs.field(factory=list)
    events: list[Event] = attrs.field(factory=list)
    questions: Questions = attrs.field(factory=Questions)

    def send(self, message: Message, tag: int | None = None, payload: bytes | None = None) -> None:
        if self.full:
            raise LimitReached("too much waits already")
        if type(message).parse(message.encode()) != message:
            raise AssertionError(f"{message} is another message after the way over the wire")
        self.sent.append(message)
        self.tags.append(tag)

    def send_payload(self, payload: bytes) -> None:
        message = decode(payload)
        if message is None:
            raise AssertionError(f"{payload!r} is no message")
        self.send(message)

    def send_data(self, head: bytes, body: Buffer) -> None:
        if not self.capacity:
            raise AssertionError("send_data() although room() is 0")
        self.data.append(bytes(head) + bytes(body))

    def room(self) -> int:
        return self.capacity

    @property
    def timers(self) -> Timers:
        return Timers(self.now)

    def emit(self, event: Event) -> None:
        if isinstance(event, Question):
            raise AssertionError(f"{event} is a question and must be asked")  # noqa: TRY004
        self.events.append(event)

    def ask(self, question: Question, *, hold: bool = False, size: int = 0) -> None:
        self.events.append(question)

    @property
    def last_id(self) -> int:
        return self.questions._next

    # ---------------------------------------------------------------------------------------------------- for the tests

    def take_sent(self) -> list[Message]:
        """What was sent since the last call."""
        taken, self.sent, self.tags = self.sent, [], []
        return taken

    def take_events(self) -> list[Event]:
        """What was emitted and asked since the last call."""
        taken, self.events = self.events, []
        return taken
