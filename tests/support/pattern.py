"""Bytes that both ends can make by themselves, and what is known of them: no piece is like another.

Also a program that needs nothing but the interpreter, for servers that run programs::

    python -I -S pattern.py produce SIZE
    python -I -S pattern.py digest
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator

PIECE = 64 * 1024
_FILLING = hashlib.shake_256(b"sshproto").digest(PIECE - 8)


def pieces(size: int) -> Iterator[bytes]:
    """``size`` bytes, in pieces of :data:`PIECE`; the same whenever they are asked for."""
    for number in range(-(-size // PIECE)):
        piece = number.to_bytes(8, "big") + _FILLING
        yield piece if size - number * PIECE >= PIECE else piece[: size - number * PIECE]


def pattern(size: int) -> bytes:
    """The same in one piece."""
    return b"".join(pieces(size))


def digest(size: int) -> str:
    """Their SHA-256, in hexadecimal."""
    hasher = hashlib.sha256()
    for piece in pieces(size):
        hasher.update(piece)
    return hasher.hexdigest()


def main() -> None:
    if sys.argv[1] == "produce":
        for piece in pieces(int(sys.argv[2])):
            sys.stdout.buffer.write(piece)
    else:
        hasher = hashlib.sha256()
        while data := sys.stdin.buffer.read1(PIECE):
            hasher.update(data)
        print(hasher.hexdigest())


if __name__ == "__main__":
    main()
