"""Capture files of sessions of our own."""

from __future__ import annotations

from collections.abc import Iterable

from sshproto.replay.events import Side
from tests.replay.sessions import Recording
from tests.support.captures import FLOW, REVERSE, Record, Talk, enhanced, interface, option, pcap, secrets, section

FLOWS = FLOW, REVERSE
_SIDES = list(Side)


def talk(recording: Recording, *, flows: tuple[bytes, bytes] = FLOWS, hang_up: bool = True) -> Talk:
    """The TCP conversation of a session, from SYN to FIN."""
    it = Talk(flows=flows).dial()
    for side, data in recording.wire:
        it.send(_SIDES.index(side), data)
    return it.hang_up() if hang_up else it


def capture(*talks: Talk, key_log: Iterable[str] = (), last: bool = False) -> bytes:
    """A file with conversations one after the other.

    Args:
        talks: The conversations.
        key_log: Lines that stand inside; the file is a pcapng then.
        last: They stand at the end, behind all packets.
    """
    records = [record for each in talks for record in each.records()]
    return with_key_log(records, key_log, last=last) if key_log else pcap(records)


def with_key_log(records: Iterable[Record], key_log: Iterable[str], *, last: bool = False) -> bytes:
    """A pcapng with a key log inside."""
    head = section() + interface(options=option(9, b"\x09"))
    body = b"".join(enhanced(time, data) for time, data in records)
    inside = secrets("\n".join(key_log).encode())
    return head + (body + inside if last else inside + body)


def damaged(data: bytes) -> bytes:
    """A pcap with something behind it that is no packet."""
    return data + b"\xff" * 32
