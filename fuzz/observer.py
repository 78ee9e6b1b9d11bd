"""Bytes of both sides of a connection, whatever they are, in whatever pieces: an observer never raises, and never
believes what was forged."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from fuzz.running import main
from sshproto.config import Preferences
from sshproto.replay.events import Integrity, Observed, PacketOpened, Side
from sshproto.replay.findings import Findings
from sshproto.replay.observer import Observer
from sshproto.replay.secrets import Secrets
from sshproto.replay.summary import Summary
from tests.replay.sessions import Wire, observe, session, told

MODULES = ("sshproto.replay.observer", "sshproto.replay.framing", "sshproto.replay.kexwatch",
           "sshproto.replay.interpret", "sshproto.replay.channels", "sshproto.replay.findings")  # fmt: skip
_SUITES = (
    {"cipher": ("chacha20-poly1305@openssh.com",)},
    {"cipher": ("aes128-gcm@openssh.com",), "compression": ("zlib@openssh.com",)},
    {"cipher": ("aes128-ctr",), "mac": ("hmac-sha2-256-etm@openssh.com",), "compression": ("zlib",)},
    {"cipher": ("aes128-ctr",), "mac": ("hmac-sha2-256",)},
    {"cipher": ("aes128-cbc",), "mac": ("hmac-sha1",), "strict_kex": False, "allow_terrapin": True},
)

_RECORDINGS = [
    session(preferences=Preferences(kex=("curve25519-sha256",), **suite), rekeys="cs"[number % 2])
    for number, suite in enumerate(_SUITES)
]
_LINES = "\n".join(line for recording in _RECORDINGS for line in recording.key_log)
_HONEST = {it.payload for each in _RECORDINGS for it in told(observe(each.wire, each.secrets), PacketOpened)}

_FEED, _GAP, _END, _SECRETS, _LET_GO, _DRAIN = 0, 240, 244, 248, 250, 252
_EVENTS = 20
"""So many events may come of one input, and of each byte."""


def _steps(data: bytes) -> Iterator[tuple[int, Side, bytes]]:
    """What to do: a byte for what and whose, two for how much; bytes."""
    place = 1
    while place + 3 <= len(data):
        what, size = data[place], int.from_bytes(data[place + 1 : place + 3], "big")
        place += 3
        part = data[place : place + size] if what < _GAP else b""
        place += len(part)
        yield what & 0xFE, (Side.DIALLER, Side.DIALLED)[what & 1], part


def fuzz(data: bytes) -> None:
    """Feed an observer as ``data`` says.

    Raises:
        AssertionError: It tells of too much, keeps too much, or has verified what nobody has sent. Whatever else is
            raised is wrong as well.
    """
    flags = data[0] if data else 0
    secrets = Secrets()
    if flags & 1:
        secrets.add_key_log(_LINES)
    observer = Observer(secrets, ordered=bool(flags & 2), hold=5000 if flags & 4 else 1 << 20)
    observer.sizes = not flags & 16
    summary, findings = Summary(), Findings()
    fed = steps = 0
    events: list[Observed] = []
    for what, side, part in _steps(data):
        steps += 1
        fed += len(part)
        if what < _GAP:
            observer.feed(side, part, time=steps / 8, frame=steps)
        elif what < _END:
            observer.gap(side, steps if what & 2 else None, time=steps / 8, frame=steps)
        elif what < _SECRETS:
            observer.end(side)
        elif what < _LET_GO:
            secrets.add_key_log(_LINES)
            observer.add_secrets()
        elif what < _DRAIN:
            observer.let_go()
        if what >= _DRAIN or flags & 8:
            events += _drain(observer)
    observer.finish()
    events += _drain(observer)
    for seen in events:
        summary.add(seen)
        findings.add(seen)
    json.dumps(summary.as_dict())
    findings.finish()
    if len(events) > _EVENTS * (fed + steps + 1):
        raise AssertionError(f"{len(events)} events of {fed} bytes")
    if observer.held > fed:
        raise AssertionError(f"{observer.held} bytes are held of {fed}")
    for event in told(events, PacketOpened):
        if event.integrity is Integrity.VERIFIED and event.payload not in _HONEST:
            raise AssertionError(f"believed, and never sent: {event.payload!r}")


def _drain(observer: Observer) -> list[Observed]:
    found: list[Observed] = []
    while (seen := observer.next_event()) is not None:
        found.append(seen)
    return found


def script(wire: Wire, flags: int, cut: int = 1 << 16) -> bytes:
    """An input that feeds ``wire``, in pieces of at most ``cut`` bytes."""
    parts = [bytes((flags,))]
    for side, data in wire:
        for start in range(0, len(data), cut):
            piece = bytes(data[start : start + cut])
            parts += (bytes((_FEED + (side is Side.DIALLED),)), len(piece).to_bytes(2, "big"), piece)
    parts += (bytes((_END + each, 0, 0)) for each in (0, 1))
    return b"".join(parts)


def seeds() -> list[bytes]:
    """Whole sessions, with keys and without, cut in ways."""
    rng = random.Random(0)
    found = [script(each.wire, flags, cut) for each in _RECORDINGS for flags in range(32) for cut in (100, 1 << 15)]
    late = [script(each.wire, flags) + bytes((_SECRETS, 0, 0)) for each in _RECORDINGS for flags in (0, 2, 4)]
    lines = [
        b"SSH-1.99-x\r\n",
        b"SSH-1.5-x\r\n",
        b"SSH-2.0-x\r\n",
        b"hello\r\nSSH-2.0-x\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ]
    words = [script([(Side.DIALLER, one), (Side.DIALLED, two)], rng.randrange(16)) for one in lines for two in lines]
    return found + late + words


if __name__ == "__main__":
    main("observer", fuzz, seeds, modules=MODULES)
