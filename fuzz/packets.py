"""Packets in clear and under each kind of cipher: nothing comes out that was not put in, and not in another order.

The first byte of an input chooses the suite; steps follow (see fuzz/steps.py): a payload to seal and hand over, the
same with a byte of the sealed packet changed, and bytes that nobody has sealed.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

import attrs

from fuzz.clear import constant
from fuzz.running import main
from fuzz.steps import Do, mutate, script, steps
from sshproto.errors import ConnectionLoss
from sshproto.transport.packets import Opener, Sealer
from sshproto.transport.suites import DirectionKeys, key_sizes

SUITES: tuple[tuple[str, str | None, str], ...] = (
    ("", None, "none"),
    ("", None, "zlib"),
    ("chacha20-poly1305@openssh.com", None, "none"),
    ("aes128-gcm@openssh.com", None, "none"),
    ("aes256-gcm@openssh.com", None, "zlib"),
    ("aes128-ctr", "hmac-sha2-256-etm@openssh.com", "none"),
    ("aes256-ctr", "hmac-sha2-512", "none"),
    ("aes128-ctr", "hmac-sha1", "zlib"),
    ("aes128-cbc", "hmac-sha2-256", "none"),
    ("aes256-cbc", "hmac-sha2-512-etm@openssh.com", "none"),
    ("3des-cbc", "hmac-sha1", "none"),
)
LIMIT = 35000
MODULES = ("sshproto.transport.packets", "sshproto.transport.ciphers", "sshproto.transport.macs",
           "sshproto.transport.compression")  # fmt: skip


@attrs.define
class _Wire:
    """What passes.

    Attributes:
        data: All of it.
        sealed: The payloads that were sealed, with the place where each ends, up to the first damage.
        sound: Nothing was damaged so far.
    """

    data: bytearray = attrs.Factory(bytearray)
    sealed: list[bytes] = attrs.Factory(list[bytes])
    sound: bool = True


def _keys(cipher: str, mac: str | None) -> DirectionKeys:
    return DirectionKeys(*(constant(size, name) for size, name in zip(key_sizes(cipher, mac), "abc", strict=True)))


def _write(suite: tuple[str, str | None, str], data: bytes) -> _Wire:
    cipher, mac, compression = suite
    sealer = Sealer(entropy=constant)
    if cipher:
        sealer.switch(cipher, mac, _keys(cipher, mac), reset_sequence=True)
    sealer.set_compression(compression, authenticated=True)
    wire = _Wire()
    for what, content in steps(data):
        if what in (Do.SAY, Do.SAY_MORE, Do.TAKE, Do.END):
            packet = bytearray(sealer.seal(content or b"\2", conceal=what is Do.TAKE))
            if wire.sound:
                wire.sealed.append(content or b"\2")
            wire.data += packet
        elif what is Do.FRAME:  # what the peer sends is not what was sealed
            packet = bytearray(sealer.seal(content or b"\2"))
            place = int.from_bytes(content[:2], "big") % len(packet)
            packet[place] ^= content[-1] or 1 if content else 1
            wire.sound = False
            wire.data += packet
        elif what is Do.RAW and content:
            wire.sound = False
            wire.data += content
    return wire


def _read(suite: tuple[str, str | None, str], pieces: list[bytes]) -> tuple[list[bytes], str, int]:
    cipher, mac, compression = suite
    opener = Opener(packet_limit=LIMIT)
    if cipher:
        opener.switch(cipher, mac, _keys(cipher, mac), reset_sequence=True)
    opener.set_compression(compression, authenticated=True)
    found: list[bytes] = []
    error = ""
    for piece in pieces:
        opener.feed(piece)
        try:
            while (payload := opener.next_packet()) is not None:
                found.append(bytes(payload))
        except ConnectionLoss as problem:
            error = str(problem)
            if opener.buffered:
                raise AssertionError(f"a dead opener keeps {opener.buffered} bytes") from None
    return found, error, opener.buffered


def _same(found: tuple[list[bytes], str, int], other: tuple[Any, ...]) -> bool:
    # What is held is the same, unless there was an error: it may come in the middle of a piece.
    return found[:2] == other[:2] and (bool(found[1]) or found[2] == other[2])


def fuzz(data: bytes) -> None:
    """Seal, damage and open, whole and in pieces."""
    suite = SUITES[(data[0] if data else 0) % len(SUITES)]
    wire = _write(suite, data)
    stream = bytes(wire.data)
    whole = found, error, held = _read(suite, [stream])
    if any(len(payload) > LIMIT for payload in found) or held > LIMIT + 100:
        raise AssertionError("more than the limit")
    large = any(len(payload) > LIMIT - 300 for payload in wire.sealed)
    if wire.sound and not large and (found != wire.sealed or error):
        raise AssertionError(f"what was sealed does not come out: {error}")
    if suite[0] and not large and found[: len(wire.sealed)] != wire.sealed[: len(found)]:
        raise AssertionError("what comes out was not sealed, or not in this order")
    if suite[0] and not wire.sound and len(found) > len(wire.sealed):
        raise AssertionError("what was damaged is believed")
    rng = random.Random(hashlib.sha256(data).digest())
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.choice((1, 3, 30))))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    if not _same(whole, _read(suite, pieces)):
        raise AssertionError("cut in pieces it is another")
    if len(stream) < 400 and not _same(whole, _read(suite, [stream[n : n + 1] for n in range(len(stream))])):
        raise AssertionError("byte by byte it is another")


def seeds() -> list[bytes]:
    """All suites with good packets, and with each kind of damage."""
    good = [(Do.SAY, bytes((2,)) * size) for size in (1, 7, 8, 100, 1020, 1030, 9000, 34000)]
    found: list[bytes] = []
    for number in range(len(SUITES)):
        head = number, 0
        found += [
            script(head, *good),
            script(head, good[0], (Do.TAKE, b"\x32password"), good[2]),
            script(head, good[3], (Do.RAW, b"\0\0\0\x0c\x0a\x14" + bytes(30)), good[0]),
            script(head, (Do.RAW, bytes(40000)), good[0]),
            *(script(head, good[0], (Do.FRAME, place.to_bytes(2, "big") + b"\x80"), *good[:2]) for place in range(24)),
        ]
    lengths = (0, 1, 4, 5, 11, 12, 13, 34996, 35001, 0xFFFFFFFF)
    found += [
        script((0, 0), (Do.RAW, size.to_bytes(4, "big") + bytes((p,)) + bytes(20)))
        for size in lengths
        for p in (0, 4, 255)
    ]
    return found


if __name__ == "__main__":
    main("packets", fuzz, seeds, mutate, MODULES)
