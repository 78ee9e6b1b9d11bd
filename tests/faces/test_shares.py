"""Many connections of one loop that send bulk data do so a few in each turn, and whoever has little to send at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest

from sshproto.config import ClientConfig, ServerConfig
from sshproto_io import _asyncio_pump
from sshproto_io.asyncio import Handler, connect, listen
from tests.support.pair import HOST_KEY, USER_KEY
from tests.support.seeds import QUICK, USER

pytestmark = pytest.mark.timeout(60)

MIB = 1 << 20
PIECE = bytes(32 * 1024)


class Counting:
    """A transport, and how much it has been given in each turn."""

    def __init__(self, transport: Any, sent: Counter[Any], turns: list[int]) -> None:
        self._transport, self._sent, self._turns = transport, sent, turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Any) -> None:
        self._sent[self._turns[0]] += len(data)
        self._transport.write(data)


class Sender(Handler):
    """Writes megabytes, or as little as it can."""

    def __init__(self, incoming: Any, sent: Counter[Any], turns: list[int]) -> None:
        self.incoming, self.sent, self.turns = incoming, sent, turns

    def public_key(self, user: str, key: Any) -> bool:
        return True

    async def session(self, session: Any) -> None:
        self.incoming._transport = Counting(self.incoming._transport, self.sent, self.turns)
        for _ in range(int(session.command) * MIB // len(PIECE)):
            await session.stdout.write(PIECE)
        await session.stdout.write(b"end")


async def _together(count: int, size: int) -> Counter[Any]:
    sent: Counter[Any] = Counter()
    turns = [0]
    loop = asyncio.get_running_loop()

    def turn() -> None:
        turns[0] += 1
        ticking[0] = loop.call_soon(turn)

    ticking = [loop.call_soon(turn)]
    config = ClientConfig(user=USER, preferences=QUICK)
    async with (
        await listen("127.0.0.1", 0, ServerConfig(host_keys=(HOST_KEY,), preferences=QUICK), sender(sent, turns)) as it,
        contextlib.AsyncExitStack() as stack,
    ):
        login: dict[str, Any] = {"host_key": HOST_KEY.public_key, "keys": [USER_KEY], "config": config}
        clients = [await stack.enter_async_context(connect("127.0.0.1", it.port, **login)) for _ in range(count)]
        done = await asyncio.gather(*(client.run(str(size)) for client in clients))
        assert [len(each.stdout) for each in done] == [size * MIB + 3] * count
        ticking[0].cancel()
    return sent


def sender(sent: Counter[Any], turns: list[int]) -> Any:
    return lambda incoming: Sender(incoming, sent, turns)


def test_no_turn_of_the_loop_sends_more_than_its_share():
    sent = asyncio.run(_together(24, 3))
    assert sum(sent.values()) > 24 * 3 * MIB
    assert max(sent.values()) < 6.5 * MIB  # four, one that was begun, and what is little


def test_without_the_bound_a_turn_sends_a_megabyte_of_each(monkeypatch):
    """Which is what the one above is about."""
    monkeypatch.setattr(_asyncio_pump, "_TURN", 1 << 40)
    assert max(asyncio.run(_together(24, 3)).values()) > 10 * MIB


def test_all_have_their_turn():
    """In a line; who comes meanwhile is behind the others."""
    share = _asyncio_pump.Share()
    told: list[str] = []

    class Loop:
        def __init__(self) -> None:
            self.soon: list[Any] = []

        def call_soon(self, function: Any, *args: Any) -> None:
            self.soon.append((function, args))

        def run(self) -> None:
            soon, self.soon = self.soon, []
            for function, args in soon:
                function(*args)

    class Peer:
        def __init__(self, name: str) -> None:
            self.name = name

        def flush(self) -> None:
            loop.call_soon(self.pump)

        def pump(self) -> None:
            assert share.take(self, MIB, loop)  # type: ignore[arg-type]
            told.append(self.name)

    loop = Loop()
    peers = [Peer(name) for name in "abcdefghijkl"]
    taken = [share.take(peer, MIB, loop) for peer in peers]  # type: ignore[arg-type]
    assert taken == [True] * 4 + [False] * 8
    assert not share.take(peers[5], MIB, loop)  # type: ignore[arg-type]  it waits already
    loop.run()
    assert not share.take(peers[0], MIB, loop)  # type: ignore[arg-type]
    loop.run()
    assert "".join(told) == "efgh"
    for _ in range(4):
        loop.run()
    assert "".join(told) == "efghijkla"
    assert share.take(peers[0], MIB, loop)  # type: ignore[arg-type]
    for _ in range(4):
        loop.run()
    assert not loop.soon
