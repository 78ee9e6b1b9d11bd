"""Fingerprints for eyes and ears: bubble babble, and the picture that ``ssh-keygen -lv`` draws.

Bubble babble (Antti Huima, *The Bubble Babble Binary Data Encoding*) makes words that can be spoken.  The picture is
the way of a drunken bishop over a board of 17 by 9 squares (Loss, Limmer and von Gernler, 2009); its marks tell how
often each square was visited.  Both are as OpenSSH shows them, to be compared with what it shows.

The plain forms, ``SHA256:...`` and ``MD5:...``, are :func:`sshproto.keys.public.fingerprint_of`'s.
"""

from __future__ import annotations

import hashlib

from sshproto.errors import InvalidArgument

_VOWELS = "aeiouy"
_CONSONANTS = "bcdfghklmnprstvzx"

WIDTH = 17
HEIGHT = 9
_MARKS = " .o+=*BOX@%&#/^"


def bubblebabble(data: bytes) -> str:
    """``data`` in words of five letters; OpenSSH's fingerprint of this form is that of a key blob's SHA-1."""
    letters = ["x"]
    checksum = 1
    for at in range(0, len(data) + 1, 2):
        pair = data[at : at + 2]
        if not pair:
            letters += _VOWELS[checksum % 6], "x", _VOWELS[checksum // 6]
            continue
        first = pair[0]
        letters += _VOWELS[((first >> 6) + checksum) % 6], _CONSONANTS[first >> 2 & 15]
        letters += _VOWELS[((first & 3) + checksum // 6) % 6]
        if len(pair) == 2:
            second = pair[1]
            letters += _CONSONANTS[second >> 4], "-", _CONSONANTS[second & 15]
            checksum = (checksum * 5 + first * 7 + second) % 36
    return "".join((*letters, "x"))


def bubblebabble_of(blob: bytes) -> str:
    """The fingerprint of a key blob in this form, as ``ssh-keygen -B`` shows it."""
    return bubblebabble(hashlib.sha1(blob, usedforsecurity=False).digest())


def bishop(digest: bytes) -> list[str]:
    """The rows of the picture of ``digest``, without the frame."""
    visits = [[0] * WIDTH for _ in range(HEIGHT)]
    x, y = WIDTH // 2, HEIGHT // 2
    for octet in digest:
        for shift in (0, 2, 4, 6):
            step = octet >> shift
            x = min(max(x + (1 if step & 1 else -1), 0), WIDTH - 1)
            y = min(max(y + (1 if step & 2 else -1), 0), HEIGHT - 1)
            visits[y][x] += 1
    rows = [[_MARKS[min(count, len(_MARKS) - 1)] for count in row] for row in visits]
    rows[HEIGHT // 2][WIDTH // 2] = "S"
    rows[y][x] = "E"
    return ["".join(row) for row in rows]


def randomart_of(blob: bytes, name: str, bits: int, hash_name: str = "sha256") -> str:
    """The picture of a key blob, framed, in lines without a line end after the last.

    Args:
        blob: The key.
        name: What OpenSSH calls the type: ``"ED25519"`` and so on.
        bits: The key's size.
        hash_name: ``"sha256"`` or ``"md5"``.

    Raises:
        InvalidArgument: Another hash was named.
    """
    if hash_name not in ("sha256", "md5"):
        raise InvalidArgument(f"a picture is made of sha256 or md5, not of {hash_name!r}")
    digest = hashlib.new(hash_name, blob, usedforsecurity=False).digest()
    title = f"[{name} {bits}]"
    if len(title) > WIDTH:
        title = f"[{name}]"
    rows = (f"|{row}|" for row in bishop(digest))
    return "\n".join((_edge(title), *rows, _edge(f"[{hash_name.upper()}]")))


def _edge(title: str) -> str:
    left = (WIDTH - len(title)) // 2
    return f"+{'-' * left}{title}".ljust(WIDTH + 1, "-") + "+"
