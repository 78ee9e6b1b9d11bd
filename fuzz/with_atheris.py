"""Runs a target under atheris, which is no dependency of ours: ``python -m fuzz.with_atheris NAME [ARG...]``.

What follows the name is libFuzzer's: folders of inputs, ``-max_total_time=600``, ``-runs=...``.
"""

from __future__ import annotations

import random
import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """The program."""
    atheris: Any = import_module("atheris")
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["sshproto", "sshproto_cli"]):
        target = import_module(f"fuzz.{name}")
    from fuzz.running import LARGEST, corpus, mutate

    begin = [*target.seeds(), *corpus(name)]
    mutator = getattr(target, "mutate", mutate)

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        # Atheris begins with nothing, or with what a folder holds: the seeds come in here.
        source = rng.choice(begin) if not rng.randrange(4) else data
        changed: bytes = mutator(source, begin, rng)
        return changed[: min(longest, LARGEST)]

    atheris.Setup(sys.argv, target.fuzz, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
