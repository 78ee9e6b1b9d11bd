"""A client and a server of ours, and somebody on the wire between them who does as an input says.

Ciphers are off, so that what is changed, dropped, doubled, swapped or put in arrives behind the keys as well; the key
exchange itself is as always, and nobody may take part in one that was tampered with.  Each step names a direction and
the number of a packet in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

import attrs

from fuzz.clear import ciphers_off, constant, cut, framed, payload
from fuzz.conversation import LIMITS
from fuzz.running import main
from fuzz.steps import HEAD, mutate, script, steps
from sshproto import events as ev
from sshproto.channels.requests import Exec, Session
from sshproto.config import ClientConfig, Preferences, ServerConfig
from sshproto.errors import UsageError
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.support.monitors import Monitor, bounded
from tests.support.pair import Pair, client_answers, server_answers
from tests.support.seeds import HOST_KEY

MODULES = ("sshproto.transport", "sshproto.channels", "sshproto.auth", "sshproto.engine", "sshproto.client",
           "sshproto.server")  # fmt: skip
_MOST = 400  # packets of a direction that are looked at
_ROUNDS = 600


class Deed(IntEnum):
    """What is done to a packet."""

    DROP = 0
    DOUBLE = 1
    SWAP = 2
    REPLACE = 3
    INSERT = 4
    FLIP = 5
    LATER = 6
    CUT = 7


@attrs.define
class Middle:
    """One direction of the wire.

    Attributes:
        plan: What to do to which packet.
    """

    plan: dict[int, list[tuple[Deed, bytes]]]
    number: int = 0
    cut: bool = False
    waiting: list[bytes] = attrs.Factory(list[bytes])

    def __call__(self, data: bytes) -> Iterator[bytes]:
        for packet in cut(data) or [data]:
            out = self._passed(packet)
            self.number += 1
            if self.cut or self.number > _MOST:
                return
            yield from out

    def _passed(self, packet: bytes) -> list[bytes]:
        out = [packet]
        if self.waiting:
            out += self.waiting
            self.waiting = []
        for deed, content in self.plan.get(self.number, ()):
            match deed:
                case Deed.DROP:
                    out.clear()
                case Deed.DOUBLE:
                    out += out
                case Deed.SWAP:
                    self.waiting += out
                    out.clear()
                case Deed.REPLACE:
                    out = [framed(content)]
                case Deed.INSERT:
                    out.insert(0, framed(content))
                case Deed.FLIP if out and not packet.startswith(b"SSH-"):
                    inner = bytearray(payload(packet))
                    inner[(content or b"\0")[0] % len(inner)] ^= (content[1:] or b"\1")[0]
                    out[0] = framed(bytes(inner))
                case Deed.CUT:
                    self.cut = True
                case _:
                    pass
        return out


def _client_app(conn: Any, event: ev.Event) -> None:
    match event:
        case ev.AuthSucceeded():
            conn.open_channel(Session(), window=3000)
        case ev.ChannelOpened():
            conn.request(event.channel, Exec(b"cat"))
        case ev.RequestSucceeded():
            conn.send(event.channel, b"data" * 200)
            conn.rekey()
        case ev.EofReceived():
            conn.close_channel(event.channel)
        case ev.ChannelClosed():
            conn.disconnect("done")
        case _:
            pass


def _server_app(conn: Any, event: ev.Event) -> None:
    if isinstance(event, ev.DataReceived):
        conn.send(event.channel, event.data)
        if event.data[-4:] == b"data":
            conn.send_eof(event.channel)


def _lenient(app: Any) -> Any:
    def act(conn: Any, event: Any) -> None:
        try:
            app(conn, event)
        except UsageError:
            return  # somebody in the middle has made it impossible

    return act


def fuzz(data: bytes) -> None:
    """Run a session with somebody in the middle."""
    data = data.ljust(HEAD, b"\0")
    plans: tuple[dict[int, list[tuple[Deed, bytes]]], ...] = ({}, {})
    for what, content in steps(data):
        if len(content) >= 2:
            deed = Deed((content[0] >> 1) % len(Deed)) if what % 2 else Deed(int(what))
            plans[content[0] & 1].setdefault(content[1] % 64, []).append((deed, content[2:]))
    monitors = {role: Monitor(role) for role in Role}

    def trust(conn: Any, question: ev.Question) -> None:
        monitors[Role.CLIENT].trusted |= isinstance(question, ev.HostKeyOffered)
        _lenient(client_answers)(conn, question)

    flags = data[0]
    compression = ("zlib@openssh.com", "none") if flags & 2 else ("none",)
    names: dict[str, Any] = {"kex": ("curve25519-sha256",), "cipher": ("aes128-gcm@openssh.com",),
                             "compression": compression}  # fmt: skip
    common: dict[str, Any] = {"limits": LIMITS, "entropy": constant, "debug_raise": True}
    with ciphers_off():
        pair = Pair.make(
            ClientConfig(user="alice", trace=monitors[Role.CLIENT], eager=not flags & 4,
                         preferences=Preferences(**names, strict_kex=not flags & 1), **common),
            ServerConfig(host_keys=(HOST_KEY,), trace=monitors[Role.SERVER],
                         preferences=Preferences(**names), **common),
            client_answer=trust,
            server_answer=_lenient(server_answers),
        )  # fmt: skip
        # A direction is cut where it arrives.
        pair.server.chunker, pair.client.chunker = Middle(plans[0]), Middle(plans[1])
        pair.client.react, pair.server.react = _lenient(_client_app), _lenient(_server_app)
        pair.run(_ROUNDS)
        for end in (pair.client, pair.server):
            bounded(end.conn)
        ids = pair.client.conn.session_id, pair.server.conn.session_id
        if all(ids) and ids[0] != ids[1] and pair.client.of(ev.KeysExchanged):
            raise AssertionError("the client has keys of an exchange that the server has not taken part in")
        if not any(plans) and not pair.client.of(ev.ChannelClosed):
            raise AssertionError(f"nobody is in the middle, and it comes to nothing: {pair.client.events[-3:]}")
        pair.lose()
    for end in (pair.client, pair.server):
        if len(end.of(ev.ConnectionLost)) != 1 or not isinstance(end.events[-1], ev.ConnectionLost):
            raise AssertionError(f"the {end.name} has not ended once: {end.events[-3:]}")


def _do(deed: Deed, way: int, number: int, content: bytes = b"") -> tuple[Any, bytes]:
    return deed, bytes((way | deed << 1, number)) + content


def seeds() -> list[bytes]:
    """Nothing, one thing, and a few that are known."""
    found: list[bytes] = [script((flags, 0)) for flags in range(8)]
    # In the names of a KEXINIT, in a share, in the signature.
    tampered = [
        _do(Deed.FLIP, way, number, bytes((place, 1))) for way in (0, 1) for number in (1, 2) for place in (9, 20)
    ]
    found += [script((flags, 0), it) for flags in (0, 1) for it in (*tampered, _do(Deed.FLIP, 1, 2, b"\xa0\1"))]
    for way in (0, 1):
        for number in range(0, 24, 2):
            found += [script((number % 8, 0), _do(deed, way, number, b"\3\1")) for deed in Deed]
        inserts: Sequence[m.Message] = (m.Ignore(b""), m.ExtInfo(()), m.Ping(b"x"), m.NewKeys(), m.UserauthSuccess())
        for flags in (0, 1):
            for message in inserts:
                insert = _do(Deed.INSERT, way, 2, message.encode())
                found.append(script((flags, 0), insert, _do(Deed.DROP, way, 4)))
    return found


if __name__ == "__main__":
    main("pair", fuzz, seeds, mutate, MODULES)
