"""Which answers the application owes.

The safe default of every question is no; a question that was answered can't be answered again; one that became void
(its channel closed, the connection ended) swallows a late answer, since an application can't win that race.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

from sshproto.errors import AlreadyAnswered, UsageError
from sshproto.events import Question


class Questions:
    """The questions of one connection."""

    __slots__ = ("_ended", "_next", "_owed", "_void")

    def __init__(self) -> None:
        self._owed: dict[int, Question] = {}
        # Those that the application still holds, and so may still answer: no more than it keeps itself.
        self._void: WeakValueDictionary[int, Question] = WeakValueDictionary()
        self._next = 0
        self._ended = False

    @property
    def owed(self) -> tuple[Question, ...]:
        """The unanswered questions, oldest first."""
        return tuple(self._owed.values())

    def new_id(self) -> int:
        self._next += 1
        return self._next

    def add(self, question: Question) -> None:
        self._owed[question.id] = question

    def withdraw(self, question_id: int) -> None:
        """The question is void from now on."""
        question = self._owed.pop(question_id, None)
        if question is not None:
            self._void[question_id] = question

    def end(self) -> None:
        """All questions, and all that were ever asked, are void."""
        self._owed.clear()
        self._void.clear()
        self._ended = True

    def check(self, question: Question, *kinds: type[Question]) -> bool:
        """Whether an answer to ``question`` should be carried out; False if it came too late, or none is wanted.

        Raises:
            UsageError: The question is of another kind than the answer.
            AlreadyAnswered: It has been answered, or this connection never asked it.
        """
        if not isinstance(question, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise UsageError(f"this answers {names}, not {type(question).__name__}")
        if not getattr(question, "want_reply", True):
            return False
        if self._ended:
            return False
        if self._owed.get(question.id) == question:
            return True
        if question.id in self._void:
            return False
        raise AlreadyAnswered(f"{type(question).__name__} {question.id} has been answered, or was never asked here")

    def settle(self, question: Question) -> None:
        """``question`` has been answered."""
        self._owed.pop(question.id, None)
