"""A learnt machine: what it answers to which word in which state. It is written as a graph, read back, and compared."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from sshproto.wire.table import Role

if TYPE_CHECKING:
    from tests.learning.teacher import Teacher

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "machines"
COMMAND = "python -m tests.learning"
"""What renews the files."""

_NODE = re.compile(r'  (\w+) \[label="([^"]*)"\];')
_EDGE = re.compile(r'  (\w+) -> (\w+) \[label="([^"]*)"\];')

HEAD = """\
// What a {role} of sshproto is, as it was learnt from outside by saying {count} words to it in every order
// An arrow's label is words that are said, and behind the slash what is answered to each of them.
// This file is written by "{command}", and compared with what the {role} does by tests/learning.
digraph {role} {{
"""


@attrs.frozen
class Machine:
    """A machine.

    Attributes:
        role: Whose it is.
        situations: Each state's name, the first one first, and where the connection is in it.
        steps: For each state and word the answer and the next state.
    """

    role: Role
    situations: Mapping[str, str]
    steps: Mapping[str, Mapping[str, tuple[str, str]]]

    @property
    def start(self) -> str:
        return next(iter(self.situations))

    @property
    def end(self) -> str:
        """The state in which the connection has ended."""
        (name,) = (name for name, situation in self.situations.items() if situation == "closed")
        return name

    def run(self, words: Sequence[str], state: str | None = None) -> tuple[list[str], str]:
        """The answers to some words, and the state that they lead to."""
        state = state or self.start
        answers = []
        for word in words:
            answer, state = self.steps[state][word]
            answers.append(answer)
        return answers, state

    def transitions(self) -> Iterator[tuple[str, str, str, str]]:
        """Everything: state, word, answer, next state."""
        for state, steps in self.steps.items():
            for word, (answer, following) in steps.items():
                yield state, word, answer, following

    def ways(self) -> dict[str, tuple[str, ...]]:
        """The shortest way to each state."""
        found: dict[str, tuple[str, ...]] = {self.start: ()}
        queue = deque([self.start])
        while queue:
            state = queue.popleft()
            for word, (_, following) in self.steps[state].items():
                if following not in found:
                    found[following] = (*found[state], word)
                    queue.append(following)
        return found

    def restricted(self, words: Sequence[str]) -> Machine:
        """The part of it that some words lead to."""
        steps = {state: {word: steps[word] for word in words} for state, steps in self.steps.items()}
        machine = Machine(self.role, self.situations, steps)
        ways = machine.ways()
        return Machine(
            self.role,
            {name: situation for name, situation in self.situations.items() if name in ways},
            {name: steps for name, steps in steps.items() if name in ways},
        )

    # ------------------------------------------------------------------------------------------------------------ files

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.role.value}.dot"

    def to_dot(self) -> str:
        """The graph, always in the same order."""
        lines = [HEAD.format(role=self.role.value, count=len(self.steps[self.start]), command=COMMAND)]
        lines += [f'  {name} [label="{situation}"];\n' for name, situation in self.situations.items()]
        for state, steps in self.steps.items():
            edges: dict[tuple[str, str], list[str]] = {}
            for word, (answer, following) in steps.items():
                edges.setdefault((following, answer), []).append(word)
            for (following, answer), words in edges.items():
                lines.append(f'  {state} -> {following} [label="{", ".join(words)} / {answer}"];\n')
        return "".join([*lines, "}\n"])

    @classmethod
    def from_dot(cls, role: Role, text: str) -> Machine:
        situations: dict[str, str] = {}
        steps: dict[str, dict[str, tuple[str, str]]] = {}
        for line in text.splitlines():
            if node := _NODE.fullmatch(line):
                situations[node[1]] = node[2]
                steps[node[1]] = {}
            elif edge := _EDGE.fullmatch(line):
                words, answer = edge[3].split(" / ")
                steps[edge[1]] |= dict.fromkeys(words.split(", "), (answer, edge[2]))
        return cls(role, situations, steps)

    @classmethod
    def committed(cls, role: Role) -> Machine:
        return cls.from_dot(role, (FOLDER / f"{role.value}.dot").read_text())

    @classmethod
    def learnt(cls, role: Role, hypothesis: Any, teacher: Teacher) -> Machine:
        """What AALpy has learnt, with states named in the order in which one comes to them."""
        names = {hypothesis.initial_state: "s0"}
        queue = deque([((), hypothesis.initial_state)])
        situations: dict[str, str] = {}
        steps: dict[str, dict[str, tuple[str, str]]] = {}
        while queue:
            way, state = queue.popleft()
            situations[names[state]] = teacher.situation(way)
            steps[names[state]] = {}
            for word in teacher.alphabet:
                following = state.transitions[word]
                if following not in names:
                    names[following] = f"s{len(names)}"
                    queue.append(((*way, word), following))
                steps[names[state]][word] = state.output_fun[word], names[following]
        return cls(role, situations, steps)


def differences(old: Machine, new: Machine, most: int = 20) -> list[str]:
    """Shortest conversations that two machines answer differently, in lines; none if they are the same machine."""
    found = []
    seen = {(old.start, new.start)}
    queue: deque[tuple[tuple[str, ...], str, str]] = deque([((), old.start, new.start)])
    while queue and len(found) < most:
        way, left, right = queue.popleft()
        words = dict.fromkeys([*old.steps[left], *new.steps[right]])
        for word in words:
            before, after = old.steps[left].get(word), new.steps[right].get(word)
            if before is None or after is None:
                if not way:
                    found.append(f"the word {word} is {'new' if before is None else 'gone'}")
            elif before[0] != after[0]:
                found.append(f"{' '.join((*way, word))}: was {before[0]}, is {after[0]}")
            elif (before[1], after[1]) not in seen:
                seen.add((before[1], after[1]))
                queue.append(((*way, word), before[1], after[1]))
    return found


def as_hypothesis(machine: Machine) -> Any:
    """The machine as AALpy has them."""
    from aalpy import MealyMachine, MealyState

    states = {name: MealyState(name) for name in machine.situations}
    for state, word, answer, following in machine.transitions():
        states[state].transitions[word] = states[following]
        states[state].output_fun[word] = answer
    for name, way in machine.ways().items():
        states[name].prefix = way
    return MealyMachine(states[machine.start], list(states.values()))
