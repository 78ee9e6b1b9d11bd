"""Which answers the application owes.

The safe default of every question is no; a question that was answered can't be answered again; one that became void
(its channel closed, the connection ended) swallows a late answer, since an application can't win that race.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

from sshproto.errors import AlreadyAnswered, UsageError
from sshproto.events import Question


class Questions:
    """The questions of one connection.

    Attributes:
        size: Bytes of the peer's choosing in the channels and requests that are undecided.
    """

    __slots__ = ("_ended", "_next", "_owed", "_void", "size")

    def __init__(self) -> None:
        self._owed: dict[int, tuple[Question, int]] = {}  # with what each adds to the size
        self.size = 0
        # Those that the application still holds, and so may still answer: no more than it keeps itself.
        self._void: WeakValueDictionary[int, Question] | None = None
        self._next = 0
        self._ended = False

    @property
    def owed(self) -> tuple[Question, ...]:
        """The unanswered questions, oldest first."""
        return tuple(question for question, _ in self._owed.values())

    def owes(self, question: Question) -> bool:
        """Whether an answer to ``question`` is owed."""
        owed = self._owed.get(question.id)
        return owed is not None and (owed[0] is question or owed[0] == question)

    def new_id(self) -> int:
        """A number for a new question."""
        self._next += 1
        return self._next

    def add(self, question: Question, size: int = 0) -> None:
        """An answer is owed; ``size`` is what the question adds to :attr:`size` until it comes."""
        self._owed[question.id] = (question, size)
        self.size += size

    def settle(self, question: Question) -> None:
        """``question`` has been answered."""
        owed = self._owed
        self.size -= owed.pop(question.id, (question, 0))[1]
        if not owed:
            owed.clear()  # else it keeps the memory of what was in it

    def withdraw(self, question_id: int) -> None:
        """The question is void from now on."""
        if question_id in self._owed:
            question, _ = self._owed[question_id]
            self.settle(question)
            if self._void is None:
                self._void = WeakValueDictionary()
            self._void[question_id] = question

    def end(self) -> None:
        """All questions, and all that were ever asked, are void."""
        self._owed.clear()
        self.size = 0
        self._void = None
        self._ended = True

    def check(self, question: Question, kinds: tuple[type[Question], ...]) -> bool:
        """Whether an answer to ``question`` should be carried out; False if it came too late, or none is wanted.

        Raises:
            UsageError: The question is of another kind than the answer.
            AlreadyAnswered: It has been answered, or this connection never asked it.
        """
        if not isinstance(question, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise UsageError(f"this answers {names}, not {type(question).__name__}")
        owed = self._owed.get(question.id)
        if owed is not None and (owed[0] is question or owed[0] == question):
            return True
        if self._ended or not getattr(question, "want_reply", True):
            return False
        if self._void is not None and question.id in self._void:
            return False
        raise AlreadyAnswered(f"{type(question).__name__} {question.id} has been answered, or was never asked here")
