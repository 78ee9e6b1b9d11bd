"""What a machine may do to the connection that owns it.

Authentication and the channel multiplexer are machines of their own, driven by messages and by the application's
answers.  They reach the outside only through an :class:`Outlet`; the connection is one, and a unit test's list is
another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sshproto.events import Event, Question
    from sshproto.questions import Questions
    from sshproto.timers import Timers
    from sshproto.wire.codec import Buffer
    from sshproto.wire.messages import Message


class Outlet(Protocol):
    """The owner of a machine.

    Attributes:
        timers: They tell when the last input came, for one.
        questions: They have a number for a new question, and know what the application owes.
    """

    @property
    def timers(self) -> Timers: ...

    @property
    def questions(self) -> Questions: ...

    def send(self, message: Message, tag: int | None = None, payload: bytes | None = None) -> None:
        """Queue ``message``. While a key exchange is under way it waits, in order.

        Args:
            message: What to send.
            tag: If given and the peer answers UNIMPLEMENTED, the machine is told with this tag.
            payload: What it is encoded, if that is known.

        Raises:
            LimitReached: Too much waits already; nothing was queued.
        """

    def send_payload(self, payload: bytes) -> None:
        """Queue a message of the connection protocol that is encoded already, in order with the others.

        Raises:
            LimitReached: Too much waits already; nothing was queued.
        """

    def send_data(self, head: bytes, body: Buffer) -> None:
        """Queue the payload ``head + body`` at once. Only when :meth:`room` is not 0."""

    def room(self) -> int:
        """How many bytes of data may be queued now; 0 while a key exchange is under way or the output is full."""
        ...

    def emit(self, event: Event) -> None:
        """Hand ``event`` to the application."""

    def ask(self, question: Question, *, hold: bool = False, size: int = 0) -> None:
        """Hand ``question`` to the application and note that an answer is owed.

        Args:
            question: What to ask.
            hold: Process no input until it is answered.
            size: Bytes of the peer's choosing in it; ``Limits.undecided_bytes`` bounds those of all.
        """
