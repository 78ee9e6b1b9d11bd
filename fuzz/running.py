"""Runs a target on mutated seeds, without any tool: ``python -m fuzz.NAME [--seconds N] [--seed S] [FILE...]``.

What fails is written to ``crashes/NAME/`` beside this file, and run by itself when it is named as a file.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

SLOW = 5.0
"""Seconds after which an input counts as a failure."""

_EDGES = (0, 1, 2, 3, 4, 7, 8, 16, 19, 20, 21, 32, 50, 52, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000,
          0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)  # fmt: skip


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """One seed, changed in a few places."""
    buffer = bytearray(data)
    for _ in range(1 << rng.randrange(5)):
        place = rng.randrange(len(buffer) + 1)
        size = min(len(buffer) - place, 1 << rng.randrange(11))
        match rng.randrange(9):
            case 0 | 1:
                if place < len(buffer):
                    buffer[place] ^= 1 << rng.randrange(8)
            case 2:
                del buffer[place : place + size]
            case 3:
                buffer[place:place] = buffer[place : place + size]
            case 4:
                width = rng.choice((1, 2, 4))
                value = rng.choice(_EDGES) & (256**width - 1)
                buffer[place : place + width] = value.to_bytes(width, rng.choice(("little", "big")))
            case 5:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                buffer[place : place + rng.choice((0, size))] = other[start : start + size]
            case 6:
                buffer[place : place + size] = rng.randbytes(min(size, 64))
            case 7:
                to = rng.randrange(len(buffer) + 1)
                part = buffer[place : place + size]
                del buffer[place : place + size]
                buffer[to:to] = part
            case _:
                if rng.random() < 0.2:
                    del buffer[place:]
    return bytes(buffer)


def main(name: str, fuzz: Callable[[bytes], None], seeds: Callable[[], list[bytes]]) -> None:
    """The program of a target."""
    parser = argparse.ArgumentParser(description=f"Fuzz {name}.")
    parser.add_argument("files", nargs="*", type=Path, help="run these inputs, and no others")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.files:
        for path in arguments.files:
            fuzz(path.read_bytes())
        return
    rng = random.Random(arguments.seed)
    corpus = seeds()
    start = time.monotonic()
    count = failures = 0
    slowest = 0.0
    while time.monotonic() - start < arguments.seconds:
        data = corpus[count] if count < len(corpus) else mutate(rng.choice(corpus), corpus, rng)
        count += 1
        begin = time.process_time()
        try:
            fuzz(data)
            taken = time.process_time() - begin
            if taken > SLOW:
                raise TimeoutError(f"it took {taken:.1f} s")
            slowest = max(slowest, taken)
        except Exception:  # whatever it is, it is what is looked for
            failures += 1
            path = Path(__file__).parent / "crashes" / name / hashlib.sha256(data).hexdigest()[:16]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"{path.name}:", traceback.format_exc(), file=sys.stderr)
    print(f"{name}: {count} runs in {arguments.seconds:.0f} s, the slowest {slowest:.2f} s; {failures} failures")
    sys.exit(failures > 0)
