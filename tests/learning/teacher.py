"""Who answers the learner: a tree of all that was ever asked, and a connection for what was not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from aalpy import SUL

from sshproto.wire.table import Role
from tests.learning.subjects import GUARD, SILENT, SUBJECTS


@attrs.define
class _Node:
    """What was asked up to here.

    Attributes:
        answers: What was answered to each next word, and where that leads.
        over: The connection has ended.
        situation: Where the connection is.
    """

    answers: dict[str, tuple[str, _Node]] = attrs.field(factory=dict, repr=False)
    over: bool = False
    situation: str = ""


class Teacher(SUL):
    """A connection of ``role``, made anew for every question; what is known is not asked twice.

    Args:
        role: Whose.
        words: Those that may be said; all if None.

    Attributes:
        alphabet: They.
        runs: Connections that were made.
        said: Words that were said to them.
    """

    def __init__(self, role: Role, words: Iterable[str] | None = None) -> None:
        super().__init__()
        self._make = SUBJECTS[role]
        self.alphabet = list(self._make.words if words is None else words)
        self._root = _Node(situation=self._make().situation())
        self._node = self._root
        self._path: list[str] = []
        self._live: Any = None
        self.runs = 0
        self.said = 0

    def pre(self) -> None:
        """Begin at the beginning."""
        self._node = self._root
        self._path = []
        self._live = None

    def post(self) -> None:
        """Nothing is left open."""

    def step(self, letter: str | None) -> str:
        """Say a word after those that were said since the beginning. The answer."""
        word = letter or ""
        node = self._node
        if node.over:
            return SILENT  # each end was asked once whether it is one
        if word not in node.answers:
            if self._live is None:
                self._replay()
            answer = self._live.step(word)
            self.said += 1
            if answer == GUARD:
                node.answers[word] = answer, node  # nothing was said, nothing has changed
                return answer
            node.answers[word] = answer, _Node(over=self._live.over, situation=self._live.situation())
        elif node.answers[word][0] == GUARD:
            return GUARD
        elif self._live is not None:
            self._live.step(word)
            self.said += 1
        answer, self._node = node.answers[word]
        self._path.append(word)
        return answer

    def _replay(self) -> None:
        self._live = self._make()
        self.runs += 1
        for word in self._path:
            self._live.step(word)
            self.said += 1

    def ends(self, words: Sequence[str]) -> bool:
        """Whether the connection has ended after some words."""
        self.pre()
        for word in words:
            self.step(word)
        return self._node.over

    def situation(self, words: Sequence[str]) -> str:
        """Where the connection is after some words."""
        self.pre()
        for word in words:
            self.step(word)
        return "closed" if self._node.over else self._node.situation
