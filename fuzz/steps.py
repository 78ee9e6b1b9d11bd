"""What all conversations are made of: an input is two bytes, and steps of a byte, two bytes of length, and content.

Any bytes are an input.  Mutations keep the form mostly, and change what is said by the schema of the messages.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from enum import IntEnum

from fuzz import schema
from fuzz.running import mutate as mutate_bytes

HEAD = 2


class Do(IntEnum):
    """What a step does."""

    SAY = 0
    """Say the content as a packet."""
    ACT = 1
    """Let the application act: the first byte says how."""
    RAW = 2
    """Send the content as it is."""
    FRAME = 3
    """Say the content with a padding of as many bytes as the first one says."""
    WAIT = 4
    """Let seconds pass: two bytes."""
    TAKE = 5
    """Take the output."""
    SAY_MORE = 6
    """Say the content as a packet, and let nothing look at it before the next step."""
    END = 7
    """The peer has closed its side."""


def steps(data: bytes) -> Iterator[tuple[Do, bytes]]:
    """The steps of an input."""
    place = HEAD
    while place + 3 <= len(data):
        what, size = data[place], int.from_bytes(data[place + 1 : place + 3], "big")
        place += 3
        yield Do(what % len(Do)), data[place : place + size]
        place += size


def script(head: Sequence[int], *given: tuple[Do, bytes]) -> bytes:
    """An input of these steps."""
    return bytes(head) + b"".join(bytes((what,)) + len(it).to_bytes(2, "big") + it for what, it in given)


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """An input of which some steps are others, or say other things."""
    if not rng.randrange(12):
        return mutate_bytes(data, others, rng)[:20000]
    head = bytearray(data[:HEAD].ljust(HEAD, b"\0"))
    if not rng.randrange(8):
        head[rng.randrange(HEAD)] = rng.randrange(256)
    row = list(steps(data))[:60]
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(row) + 1)
        match rng.randrange(10):
            case 0 if row:
                del row[place - 1]
            case 1 if row:
                row.insert(place, rng.choice(row))
            case 2 if row:
                row.insert(place, row.pop(rng.randrange(len(row))))
            case 3:
                theirs = list(steps(rng.choice(others)))
                start = rng.randrange(len(theirs) + 1)
                row[place:place] = theirs[start : start + rng.randrange(1, 6)]
            case 4 | 5:
                row.insert(place, (rng.choice((Do.SAY, Do.SAY, Do.SAY_MORE)), schema.message(rng)))
            case 6:
                row.insert(place, (Do.ACT, rng.randbytes(rng.randrange(1, 6))))
            case 7:
                row.insert(place, (rng.choice(list(Do)), rng.randbytes(rng.randrange(4))))
            case _ if row:
                what, content = row[place - 1]
                if what in (Do.SAY, Do.SAY_MORE) and rng.randrange(4):
                    content = schema.changed(content, rng)
                else:
                    content = mutate_bytes(content, [it for _, it in row], rng)
                row[place - 1] = what, content[:65535]
            case _:
                pass
    return script(head, *[(what, content[:65535]) for what, content in row])
