"""Runs a target on mutated seeds, without any tool: ``python -m fuzz.NAME [--seconds N] [--seed S] [FILE...]``.

Inputs that reach lines or branches which none before has reached join the seeds, so that a run finds its way by itself.
What fails is written to ``crashes/NAME/`` beside this file, and run by itself when it is named as a file.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fuzz.reached import Reached
from fuzz.words import WORDS

SLOW = 5.0
"""Seconds after which an input counts as a failure."""
LARGEST = 1 << 16
"""What a mutation makes is cut to so many bytes, or to what its seed had."""

Mutator = Callable[[bytes, Sequence[bytes], random.Random], bytes]

_HERE = Path(__file__).parent
_EDGES = (0, 1, 2, 3, 4, 7, 8, 16, 19, 20, 21, 32, 50, 52, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000,
          0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)  # fmt: skip
_KEPT = 4096  # bytes of an input that goes into the corpus
_FRESH = 3  # of so many inputs, one comes of what was found last


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """One seed, changed in a few places."""
    buffer = bytearray(data)
    for _ in range(1 << rng.randrange(5)):
        place = rng.randrange(len(buffer) + 1)
        size = min(len(buffer) - place, 1 << rng.randrange(11))
        match rng.randrange(10):
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
            case 8:
                word = rng.choice(WORDS)
                buffer[place : place + rng.choice((0, len(word)))] = word
            case _:
                if rng.random() < 0.2:
                    del buffer[place:]
    return bytes(buffer[: max(LARGEST, len(data))])


def corpus(name: str) -> list[bytes]:
    """What is kept of a target: inputs that reach what its seeds do not."""
    return [path.read_bytes() for path in files("corpus", name)]


def crashes(name: str) -> list[bytes]:
    """What a target has failed for once."""
    return [path.read_bytes() for path in files("crashes", name)]


def files(kind: str, name: str) -> list[Path]:
    """The inputs in a folder of a target's; ``corpus`` or ``crashes``."""
    return sorted(path for path in (_HERE / kind / name).glob("*") if not path.suffix)


def main(
    name: str,
    fuzz: Callable[[bytes], None],
    seeds: Callable[[], list[bytes]],
    mutator: Mutator = mutate,
    modules: Iterable[str] = (),
) -> None:
    """The program of a target.

    Args:
        name: Its name.
        fuzz: It.
        seeds: What to begin with.
        mutator: How to change them.
        modules: The modules that it is about: how much of them is reached is told at the end.
    """
    parser = argparse.ArgumentParser(prog=f"python -m fuzz.{name}", description=f"Fuzz {name}.")
    parser.add_argument("files", nargs="*", type=Path, help="run these inputs, and no others")
    parser.add_argument("--seconds", type=float, default=60, help="of processor time: a busy machine takes longer")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same inputs")
    parser.add_argument("--runs", type=int, default=0, help="stop after so many runs")
    parser.add_argument("--corpus", type=Path, help="read inputs from this folder, and write new ones there")
    parser.add_argument("--sift", type=int, default=0, metavar="BYTES", help=(
        "run nothing new; write to corpus/ what of --corpus reaches more than the seeds, the smallest first, "
        "and no more than so many bytes"))  # fmt: skip
    parser.add_argument("--missing", action="store_true", help="tell which lines were not reached")
    arguments = parser.parse_args()
    if arguments.files:
        for path in arguments.files:
            fuzz(path.read_bytes())
        return
    given = [] if arguments.corpus is None else [path.read_bytes() for path in sorted(arguments.corpus.glob("*"))]
    run = _Run(name, fuzz, Reached(modules))
    if arguments.sift:
        _sift(run, seeds(), corpus(name) + given, arguments.sift)
        return
    begun = [*seeds(), *corpus(name), *given]
    pool = list(begun)
    fresh: list[bytes] = []
    rng = random.Random(arguments.seed)
    start = time.process_time()
    while time.process_time() - start < arguments.seconds and not 0 < arguments.runs <= run.count:
        if run.count < len(begun):
            run(begun[run.count])
            continue
        source = fresh[-64:] if fresh and not rng.randrange(_FRESH) else pool
        data = mutator(rng.choice(source), pool, rng)
        if run(data):
            pool.append(data)
            fresh.append(data)
            if arguments.corpus is not None and len(data) <= _KEPT:
                _write(arguments.corpus, data)
    taken = time.process_time() - start
    print(f"{name}: {run.count} runs in {taken:.0f} s, {len(fresh)} joined the seeds, slowest {run.slowest:.2f} s")
    print(f"{name}: {run.reached}; {run.failures} failures")
    for line in run.reached.missing() if arguments.missing else ():
        print(line)
    sys.exit(run.failures > 0)


class _Run:
    """Runs a target, one input after the other, and keeps the accounts."""

    def __init__(self, name: str, fuzz: Callable[[bytes], None], reached: Reached) -> None:
        self.name = name
        self.fuzz = fuzz
        self.reached = reached
        self.count = 0
        self.failures = 0
        self.slowest = 0.0
        self._seen: set[str] = set()

    def __call__(self, data: bytes) -> bool:
        """Whether an input has reached what none has before, and did no harm."""
        self.count += 1
        begin = time.process_time()
        try:
            with self.reached:
                self.fuzz(data)
            taken = time.process_time() - begin
            if taken > SLOW:
                raise TimeoutError(f"it took {taken:.1f} s")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is, it is what is looked for; a panic of Rust's is no Exception
            self.failures += 1
            self._failed(data, error)
            return False
        self.slowest = max(self.slowest, taken)
        return self.reached.more

    def _failed(self, data: bytes, error: BaseException) -> None:
        """Write an input down, unless another has failed in the same place."""
        first = error.__cause__ or error
        frames = traceback.extract_tb(first.__traceback__)
        place = f"{type(first).__name__} {[(frame.filename, frame.lineno) for frame in frames[-2:]]}"
        if place in self._seen:
            return
        self._seen.add(place)
        path = _write(_HERE / "crashes" / self.name, data)
        print(f"{path.name}:", "".join(traceback.format_exception(error)), file=sys.stderr)


def _sift(run: _Run, seeds: list[bytes], given: list[bytes], most: int) -> None:
    for data in seeds:
        run(data)
    folder = _HERE / "corpus" / run.name
    for path in files("corpus", run.name):
        path.unlink()
    size = count = 0
    for data in sorted(set(given), key=lambda data: (len(data), data)):
        if size + len(data) <= most and run(data):
            _write(folder, data)
            size += len(data)
            count += 1
    print(f"{run.name}: {count} of {len(given)} kept, {size} bytes; {run.reached}; {run.failures} failures")


def _write(folder: Path, data: bytes) -> Path:
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
