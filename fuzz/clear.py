"""No ciphers: for the harness only, and under no name that anybody could negotiate.

Behind the keys every changed bit is the same MacError.  So that mutated packets get past them, whatever was agreed on
protects nothing while :func:`ciphers_off` is entered; all else of a key exchange is as it always is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from sshproto.text import printable
from sshproto.transport import packets
from sshproto.transport.ciphers import PlainOpening, PlainSealing
from tests.support.rogue import frame


@contextmanager
def ciphers_off() -> Iterator[None]:
    """Packets are in clear, whatever their keys."""
    kept = packets.opening, packets.sealing
    packets.opening = lambda *names, **options: PlainOpening()
    packets.sealing = lambda *names, **options: PlainSealing()
    try:
        yield
    finally:
        packets.opening, packets.sealing = kept


def constant(count: int, label: str) -> bytes:
    """Entropy without state: the same bytes for the same purpose, so that what is copied stays the same."""
    return hashlib.shake_256(label.encode()).digest(count)


def cut(data: bytes) -> list[bytes] | None:
    """Plain packets one by one, an identification line before them, and what is left over at the end."""
    found: list[bytes] = []
    place = 0
    if data.startswith(b"SSH-"):
        place = data.find(b"\n") + 1
        if not place:
            return None
        found.append(data[:place])
    while place + 5 <= len(data):
        size = 4 + int.from_bytes(data[place : place + 4], "big")
        if not 5 < size <= len(data) - place:
            break
        found.append(data[place : place + size])
        place += size
    if place < len(data):
        found.append(data[place:])
    return found


def payload(packet: bytes) -> bytes:
    """What is in a plain packet."""
    return packet[5 : max(len(packet) - packet[4], 6)]


def framed(content: bytes) -> bytes:
    """A plain packet around a payload."""
    return frame(content or b"\0")


def fit_to_show(error: object, most: int = 8000) -> None:
    """Check that words have no control characters of a peer's in them, and an end."""
    words = str(error)
    if printable(words, len(words)) != words or len(words) > most:
        raise AssertionError(f"not fit to show: {words[:most]!r}")
