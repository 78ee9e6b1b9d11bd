"""One port for all addresses, where the system chooses one for each."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import trio

from sshproto.config import ServerConfig
from sshproto_io import asyncio as asyncio_face
from sshproto_io import blocking, sockets
from sshproto_io import trio as trio_face
from sshproto_io._async import at_one_port
from sshproto_io.runner import Runner
from tests.support.seeds import HOST_KEY

CONFIG = ServerConfig(host_keys=(HOST_KEY,))
BOTH = ("127.0.0.1", "::1")


@attrs.define(eq=False)
class World:
    """A system that chooses ports one after the other, of which some are taken at the second address.

    Attributes:
        taken: At the second address.
        open: Where somebody listens.
    """

    taken: set[int]
    open: list[Port] = attrs.field(factory=list)
    _next: Iterator[int] = attrs.field(factory=lambda: iter(range(1000, 2000)))

    def bind(self, place: tuple[str, int], **_: Any) -> Port:
        address, port = place
        port = port or next(self._next)
        if address == BOTH[1] and port in self.taken:
            raise OSError(errno.EADDRINUSE, "in use")
        found = Port(self, address, port)
        self.open.append(found)
        return found

    async def each(self, port: int) -> list[Port]:
        """As event loops do it: each address has a choice of its own."""
        found: list[Port] = []
        try:
            found += [self.bind((BOTH[0], port))]
            found += [self.bind((BOTH[1], port))]
        except OSError:
            await close(found)
            raise
        return found


@attrs.define(eq=False)
class Port:
    """As much of a socket as it takes."""

    world: World
    address: str
    number: int

    def getsockname(self) -> tuple[str, int]:
        return self.address, self.number

    def setblocking(self, blocking: bool) -> None:
        pass

    def close(self) -> None:
        self.world.open.remove(self)


async def close(ports: list[Port]) -> None:
    for port in ports:
        port.close()


def one(world: World) -> list[Port]:
    return asyncio.run(at_one_port(0, world.each, lambda found: [it.number for it in found], close))


def addresses() -> list[Any]:
    families = (socket.AF_INET, socket.AF_INET6)
    return [(family, socket.SOCK_STREAM, 6, "", (address, 0)) for family, address in zip(families, BOTH, strict=True)]


def test_event_loops_have_their_first_choice_everywhere() -> None:
    world = World(set())
    assert [it.number for it in one(world)] == [1000, 1000]
    assert len(world.open) == 2


def test_another_choice_is_made_where_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({1000, 1002})
    assert [it.number for it in one(world)] == [1004, 1004]
    assert len(world.open) == 2
    world = World({1000, 1001})
    monkeypatch.setattr(socket, "create_server", world.bind)
    assert [it.number for it in sockets._listen_all(addresses(), 0, 5)] == [1002, 1002]  # type: ignore[attr-defined]
    assert len(world.open) == 2


def test_some_day_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(set(range(10_000)))
    with pytest.raises(OSError, match="in use"):
        one(world)
    assert not world.open
    monkeypatch.setattr(socket, "create_server", world.bind)
    with pytest.raises(OSError, match="in use"):
        sockets._listen_all(addresses(), 0, 5)
    assert not world.open


@pytest.mark.parametrize("host", [None, "", "localhost"])
def test_the_faces_agree(host: str | None) -> None:
    async def of_asyncio() -> set[int]:
        async with asyncio_face.listen(host, 0, CONFIG, lambda incoming: asyncio_face.Handler()) as server:
            return {port for _, port in server.addresses}

    async def of_trio() -> set[int]:
        async with trio_face.listen(host, 0, CONFIG, lambda incoming: trio_face.Handler()) as server:
            return {port for _, port in server.addresses}

    assert len(asyncio.run(of_asyncio())) == 1
    assert len(trio.run(of_trio)) == 1
    with blocking.listen(host, 0, CONFIG, lambda incoming: blocking.Handler()) as server:
        assert len({address[1] for address in server.addresses}) == 1
    listener = Runner().run(sockets.listen_at((host or "", 0)))
    assert len({address[1] for address in listener.addresses}) == 1
    listener.close()
