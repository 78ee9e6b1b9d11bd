"""The same bytes in other pieces give the same events and the same output, in every state, on both sides.

The first byte of an input chooses the role and the pieces, the second the state; what the steps say is one stream.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from typing import Any

from fuzz import conversation
from fuzz.clear import ciphers_off, framed
from fuzz.running import main
from fuzz.steps import HEAD, Do, mutate, script, steps
from sshproto import events as ev
from sshproto.errors import UsageError
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.support.pair import client_answers, server_answers
from tests.support.puppet import CHANNEL
from tests.support.samples import SAMPLES

STATES = ("C", "I", "K0", "T", "A", "C0", "A-", "t")
MODULES = ("sshproto.transport.packets", "sshproto.transport.link", "sshproto.engine", "sshproto.channels.inbound")
_ROLES = tuple(Role)
_ANSWERS = {Role.CLIENT: client_answers, Role.SERVER: server_answers}
_LONGEST_BYTEWISE = 600


def _run(role: Role, state: str, pieces: Iterable[bytes]) -> tuple[Any, ...]:
    puppet = conversation.bring(role, state)
    conn = puppet.conn
    conn._engine._trace.trusted = True
    seen: list[str] = []
    sent = bytearray()

    def pump() -> None:
        while True:
            while (event := conn.next_event()) is not None:
                seen.append(ev.show(event))
                if isinstance(event, ev.DataReceived):
                    conn.credit(event.channel, len(event.data))
                elif isinstance(event, ev.Question):
                    try:
                        _ANSWERS[role](conn, event)
                    except UsageError as error:
                        seen.append(str(error))
            data = conn.data_to_send()
            if not data:
                return
            sent.extend(data)

    for piece in pieces:
        conn.receive_data(piece, 0.0)
        pump()
    conn.receive_eof(0.0)
    pump()
    return seen, bytes(sent), conn.phase, conn.channels, str(conn.error)


def fuzz(data: bytes) -> None:
    """Run the stream whole and in pieces."""
    data = data.ljust(HEAD, b"\0")
    role, state = _ROLES[data[0] & 1], STATES[data[1] % len(STATES)]
    talk = (content if what in (Do.RAW, Do.END) else framed(content) for what, content in steps(data))
    stream = b"".join(talk)
    rng = random.Random(hashlib.sha256(data).digest())
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.choice((1, 4, 20))))
    if data[0] & 2 and len(stream) < _LONGEST_BYTEWISE:
        cuts = list(range(1, len(stream)))
    with ciphers_off():
        whole = _run(role, state, [stream])
        if _run(role, state, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]) != whole:
            raise AssertionError("cut in pieces it is another")


def seeds() -> list[bytes]:
    """Every message where it belongs, and several in a row."""
    found: list[bytes] = []
    data = (Do.SAY, m.ChannelData(CHANNEL, bytes(900)).encode())
    row = (data, (Do.SAY, m.ChannelEof(CHANNEL).encode()), (Do.SAY, m.ChannelClose(CHANNEL).encode()))
    for number, role in enumerate(_ROLES):
        found += [bytes((number | 2,)) + each[1:] for each in conversation.seeds(role, STATES, SAMPLES)]
        found.append(script((number, 0), *row, *row))
        found.append(script((number, 1), (Do.RAW, b"hello\r\nSSH-2.0-x\r\n" if number else b"SSH-2.0-x\r\n"), *row))
    return found


if __name__ == "__main__":
    main("chunking", fuzz, seeds, mutate, MODULES)
