"""Captures of any size, made up: many SSH connections at a time, as a network card would see them.

Their content is real: a few sessions between a client and a server of ours, each with another cipher, partly somebody
who types and partly a transfer.  Each connection of a capture repeats one of them between other addresses, in segments
of the size that Ethernet has, with acknowledgements.  So one key log opens all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import attrs

from sshproto.channels.requests import Exec, PtyRequest, Session, Shell
from sshproto.config import Preferences
from sshproto.replay.events import Side
from tests.replay.sessions import Wire, record
from tests.support.captures import ACK, FIN, PSH, SYN

SUITES = (
    ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    ("aes128-gcm@openssh.com", "hmac-sha2-256"),
    ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes128-ctr", "hmac-sha2-256"),
)
"""Ciphers and MACs of the sessions."""

SEGMENT = 1448
"""Bytes of a full segment: those of an Ethernet frame, less the headers and a timestamp."""

_HEAD = struct.Struct("<IIII")
_PACKET = struct.Struct(">12xHBBHHHBBHIIHHIIBBHHHI8x")
_FILE = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
_OPTIONS = 0x0101080A  # two of nothing, and a timestamp of 10 bytes


@attrs.frozen
class Traffic:
    """Sessions to make captures of.

    Attributes:
        sessions: Of each, the segments of one connection: flags, sequence number and acknowledgement as offsets, and
            data; of the dialler (0) or the dialled (1).
        key_log: What opens them.
    """

    sessions: list[list[tuple[int, int, int, int, bytes]]]
    key_log: str

    @classmethod
    def make(cls, *, keys: int = 150, transfer: int = 400_000, suites: tuple[tuple[str, str], ...] = SUITES) -> Traffic:
        """Hold one session for each of ``suites``.

        Args:
            keys: So many keys are typed, each comes back.
            transfer: So many bytes are fetched.
            suites: Ciphers and MACs.
        """
        wires: list[Wire] = []
        lines: list[str] = []
        for cipher, mac in suites:
            wire, log = _session(cipher, mac, keys, transfer)
            wires.append(wire)
            lines += log
        return cls([_segments(wire) for wire in wires], "\n".join(lines) + "\n")

    def pcap(self, size: int, *, together: int = 8) -> Iterator[bytes]:
        """A pcap file of at least ``size`` bytes, in pieces.

        Args:
            size: It ends with the connections that are open when it is as long as that.
            together: So many connections go on at the same time, some segments of each in turn.
        """
        yield _FILE
        done, clock, number = len(_FILE), 1_700_000_000_000_000, 0
        living: list[tuple[int, Iterator[tuple[int, int, int, int, bytes]]]] = []
        while True:
            while len(living) < together and done < size:
                living.append((number, iter(self.sessions[number % len(self.sessions)])))
                number += 1
            if not living:
                return
            parts: list[bytes] = []
            for each in list(living):
                connection, rest = each
                addresses = 0x0A000000 + connection % 60_000, 0xC0A80001
                ports = 1024 + connection * 7 % 60_000, 22
                for _, (side, flags, seq, ack, data) in zip(range(16), rest, strict=False):
                    clock += 20
                    length = 52 + len(data)
                    parts += (_HEAD.pack(*divmod(clock, 1_000_000), length + 14, length + 14), _PACKET.pack(
                        0x0800, 0x45, 0, length, connection & 0xFFFF, 0x4000, 64, 6, 0, addresses[side],
                        addresses[1 - side], ports[side], ports[1 - side], seq, ack, 0x80, flags, 1024, 0, 0, _OPTIONS,
                    ), data)  # fmt: skip
                    if flags & FIN and side:
                        living.remove(each)
            piece = b"".join(parts)
            done += len(piece)
            yield piece


def _session(cipher: str, mac: str, keys: int, transfer: int) -> tuple[Wire, list[str]]:
    recording = record(preferences=Preferences(kex=("curve25519-sha256",), cipher=(cipher,), mac=(mac,)))
    pair = recording.pair.login()
    client, server = pair.client.conn, pair.server.conn
    shell = client.open_channel(Session())
    pair.run()
    client.request(shell, PtyRequest("xterm", 80, 24, 0, 0))
    client.request(shell, Shell())
    pair.run()
    for _ in range(keys):
        client.send(shell, b"x")
        pair.run()
        server.send(0, b"x")
        pair.run()
    channel = client.open_channel(Session())
    pair.run()
    client.request(channel, Exec(b"cat file"))
    pair.run()
    left = transfer
    while left:
        left -= server.send(1, bytes(min(left, 32768)))
        pair.run()
    server.close_channel(1)
    pair.run()
    client.disconnect("bye")
    pair.run()
    return recording.wire, recording.key_log


def _segments(wire: Wire) -> list[tuple[int, int, int, int, bytes]]:
    """A TCP connection that carries ``wire``; each second segment of a row is acknowledged, and the last."""
    place = [1001, 5001]
    found = [(0, SYN, 1000, 0, b""), (1, SYN | ACK, 5000, 1001, b""), (0, ACK, 1001, 5001, b"")]
    for sender, data in wire:
        side = int(sender is Side.DIALLED)
        for count, start in enumerate(range(0, len(data), SEGMENT), 1):
            part = bytes(data[start : start + SEGMENT])
            found.append((side, ACK | PSH, place[side], place[1 - side], part))
            place[side] += len(part)
            if count % 2 == 0 or start + SEGMENT >= len(data):
                found.append((1 - side, ACK, place[1 - side], place[side], b""))
    found += [
        (0, FIN | ACK, place[0], place[1], b""),
        (1, FIN | ACK, place[1], place[0] + 1, b""),
        (0, ACK, place[0] + 1, place[1] + 1, b""),
    ]
    return found
