"""Learning a machine: KV asks what it needs for a guess, and the oracle looks for what is wrong with the guess."""

from __future__ import annotations

from collections.abc import Iterable

from aalpy.learning_algs import run_KV

from sshproto.wire.table import Role
from tests.learning.conversations import conversations, rekeys
from tests.learning.machine import Machine
from tests.learning.oracle import Systematic
from tests.learning.teacher import Teacher


def learn(role: Role, depth: int, walks: int, words: Iterable[str] | None = None) -> tuple[Machine, Teacher]:
    """The machine of ``role``, and who was asked.

    Args:
        role: Whose.
        depth, walks: See :class:`~tests.learning.oracle.Systematic`.
        words: Those to learn with; all if None.
    """
    teacher = Teacher(role, words)
    said = set(teacher.alphabet)
    known = [words for words in conversations(role) if set(words) <= said]
    hypothesis = run_KV(
        teacher.alphabet,
        teacher,
        Systematic(teacher, depth, walks, known, [detour for detour in rekeys(role) if set(detour) <= said]),
        automaton_type="mealy",
        cache_and_non_det_check=False,  # the teacher keeps what it has heard
        print_level=0,
    )
    return Machine.learnt(role, hypothesis, teacher), teacher
