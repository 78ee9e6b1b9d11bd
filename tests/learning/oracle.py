"""Whether a machine that was learnt is the whole truth, asked systematically.

The W-method in its frugal form (Wp): to every state, by its shortest way; from there every word, or every two or three
words one after the other; and then whatever tells the state that should have been reached from all others.  If the
connection has no more than ``depth`` states beyond those of the machine, a wrong machine does not pass; but behind
words that are not meant to lead anywhere (``PASSING``), and don't, no second one is tried.  Nothing is asked of a
connection that has ended, which is why this can be afforded.  Beyond that depth come walks of two to five words from
each state, chosen by lot, always the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from aalpy.base import Oracle

from tests.learning.subjects import GUARD, PASSING
from tests.learning.teacher import Teacher

Words = tuple[str, ...]


class Systematic(Oracle):
    """The oracle.

    Args:
        teacher: Who is asked.
        depth: How many words more than one are tried from each state.
        walks: How many walks are made from each state.
        known: Conversations to begin with; they find at once what else would take long to find.
        detours: Conversations that are tried in every state, with each word behind and in the middle of them: too long
            ones for ``depth``.
    """

    def __init__(
        self, teacher: Teacher, depth: int, walks: int = 0, known: Iterable[Words] = (), detours: Iterable[Words] = ()
    ) -> None:
        super().__init__(teacher.alphabet, teacher)
        self._teacher = teacher
        self._depth = depth
        self._walks = walks
        self._heard = ""
        self._known = list(known)
        self._detours = list(detours)

    def find_cex(self, hypothesis: Any) -> Words | None:
        """A conversation in which the connection answers otherwise than the machine."""
        for words in self._known:
            if found := self._differs(hypothesis, words):
                return found
        tails = identifiers(hypothesis)
        for words in self._detoured(hypothesis):
            for tail in tails[self._state(hypothesis, words).state_id]:
                if found := self._differs(hypothesis, words + tail):
                    return found
        for length in range(1, self._depth + 2):
            for state in hypothesis.states:
                for words in self._continued(hypothesis, tuple(state.prefix or ()), length):
                    reached = self._state(hypothesis, words)
                    for tail in tails[reached.state_id]:
                        if found := self._differs(hypothesis, words + tail):
                            return found
        for words in self._walked(hypothesis):
            for tail in tails[self._state(hypothesis, words).state_id]:
                if found := self._differs(hypothesis, words + tail):
                    return found
        return None

    def _detoured(self, hypothesis: Any) -> Iterator[Words]:
        """The detours from every state in which they are possible, with a word behind or in the middle."""
        for state in hypothesis.states:
            way = tuple(state.prefix or ())
            for detour in self._detours:
                if self._teacher.ends(way + detour[:1]):
                    continue
                for place in range(1, len(detour) + 1):
                    for word in self.alphabet:
                        yield (*way, *detour[:place], word, *detour[place:])

    def _walked(self, hypothesis: Any) -> Iterator[Words]:
        """Walks that don't end the connection as far as is known."""
        chance = random.Random(0)
        (end,) = {state.state_id for state in hypothesis.states if self._teacher.ends(state.prefix or ())} or {None}
        for state in hypothesis.states:
            for _ in range(self._walks if state.state_id != end else 0):
                words, at = tuple(state.prefix or ()), state
                for _ in range(chance.randint(2, 5)):
                    going = [
                        word
                        for word, following in at.transitions.items()
                        if following.state_id != end and at.output_fun[word] != GUARD
                    ]
                    if not going:
                        break
                    word = chance.choice(going)
                    words, at = (*words, word), at.transitions[word]
                yield words

    def _continued(self, hypothesis: Any, words: Words, length: int) -> Iterator[Words]:
        """All continuations of ``words`` that don't end the connection."""
        for word in self.alphabet:
            longer = (*words, word)
            if self._differs(hypothesis, longer):
                yield longer  # which is then found again, by whoever asks
            elif self._heard != GUARD and not self._teacher.ends(longer):
                if length == 1:
                    yield longer
                elif not self._passes(hypothesis, words, word):
                    yield from self._continued(hypothesis, longer, length - 1)

    def _passes(self, hypothesis: Any, words: Words, word: str) -> bool:
        """Whether a word, said behind others, is one of those that lead nowhere, and does not."""
        if word not in PASSING and not self._heard.startswith("raises "):
            return False
        state = self._state(hypothesis, words)
        return state.transitions[word] is state

    def _differs(self, hypothesis: Any, words: Words) -> Words | None:
        self.num_queries += 1
        hypothesis.reset_to_initial()
        self._teacher.pre()
        for position, word in enumerate(words):
            self._heard = self._teacher.step(word)
            if hypothesis.step(word) != self._heard:
                return words[: position + 1]
        return None

    @staticmethod
    def _state(hypothesis: Any, words: Words) -> Any:
        hypothesis.reset_to_initial()
        for word in words:
            hypothesis.step(word)
        return hypothesis.current_state


def identifiers(hypothesis: Any) -> dict[str, list[Words]]:
    """For each state a few conversations whose answers tell it from all others."""
    states = {state.state_id: state for state in hypothesis.states}
    words = list(hypothesis.get_input_alphabet())
    first = [(word,) for word in words]
    answers = {name: {tail: _answers(state, tail) for tail in first} for name, state in states.items()}
    tails: list[Words] = list(first)
    # Longer ones where one word is not enough: those of the states that they lead to, found as in a minimisation.
    while True:
        groups: dict[Any, list[str]] = {}
        for name in states:
            groups.setdefault(tuple(answers[name].values()), []).append(name)
        alike = [names for names in groups.values() if len(names) > 1]
        if not alike:
            break
        tail = _split(states, alike, answers, words, tails)
        if tail is None:
            break  # a guess may have a state twice, for reasons that it has forgotten
        tails.append(tail)
        for name, state in states.items():
            answers[name][tail] = _answers(state, tail)
    found: dict[str, list[Words]] = {}
    for name in states:
        others = set(states) - {name}
        chosen: list[Words] = []
        while others:
            best = max(tails, key=lambda tail: (_told_apart(answers, name, others, tail), -len(tail)))
            if not _told_apart(answers, name, others, best):
                break
            others = {other for other in others if answers[other][best] == answers[name][best]}
            chosen.append(best)
        found[name] = chosen or [()]
    return found


def _told_apart(answers: Any, name: str, others: set[str], tail: Words) -> int:
    return sum(answers[other][tail] != answers[name][tail] for other in others)


def _split(states: Any, alike: Any, answers: Any, words: Sequence[str], tails: Sequence[Words]) -> Words | None:
    for names in alike:
        for word in words:
            after = [states[name].transitions[word].state_id for name in names]
            for tail in tails:
                if len({answers[name][tail] for name in after}) > 1:
                    return (word, *tail)
    return None


def _answers(state: Any, words: Words) -> tuple[str, ...]:
    found = []
    for word in words:
        found.append(state.output_fun[word])
        state = state.transitions[word]
    return tuple(found)
