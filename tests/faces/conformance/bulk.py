"""What clients in processes of their own do: see :mod:`tests.support.faceclient`."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.support.faces import Face, commands, login
from tests.support.pattern import PIECE, digest, pieces
from tests.support.places import Place
from tests.support.seeds import HOST

MEBIBYTE = 1024 * 1024
STOCK_SIZE = 256 * MEBIBYTE
SIZE = 96 * MEBIBYTE
"""Half as much again as the memory that either end may take for it."""
OURS = Place(port=0, ours=True, site=None, folder=None)  # type: ignore[arg-type]
STOCK = Place(port=0, ours=False, site=None, folder=None)  # type: ignore[arg-type]
PATIENT = 1.0  # seconds that nobody reads


async def down(face: Face, client: Any, size: int, place: Place = OURS) -> None:
    """Much comes, and is not read at first."""
    async with client.start(place.say("produce", size)) as process:
        await face.sleep(PATIENT)
        hasher = hashlib.sha256()
        while data := await process.stdout.read(PIECE):
            hasher.update(data)
        assert await process.wait() == 0
    assert hasher.hexdigest() == digest(size)


async def up(face: Face, client: Any, size: int, place: Place = OURS) -> None:
    """Much goes, and is not read at first."""
    stall, begin = place.stall()
    async with client.start(stall) as process:

        async def send() -> None:
            for piece in pieces(size):
                await process.stdin.write(piece)
            await process.stdin.send_eof()

        async def later() -> None:
            await face.sleep(PATIENT)
            await begin(process)

        await face.gather(send, later)
        assert (await process.stdout.read()).decode().strip() == digest(size)


async def both(face: Face, client: Any, size: int) -> None:
    """Both directions of one channel at once."""
    async with client.start(f"both {size}") as process:

        async def send() -> None:
            for piece in pieces(size):
                await process.stdin.write(piece)
            await process.stdin.send_eof()

        async def take() -> None:
            hasher = hashlib.sha256()
            while data := await process.stdout.read(PIECE):
                hasher.update(data)
            assert hasher.hexdigest() == digest(size)

        await face.gather(send, take)
        assert (await process.stderr.read()).decode() == digest(size)


async def stock_both_ways(face: Face, client: Any) -> None:
    """The first two with a server that runs programs."""
    await down(face, client, STOCK_SIZE, STOCK)
    await up(face, client, STOCK_SIZE, STOCK)


async def all_ways(face: Face, client: Any) -> None:
    await down(face, client, SIZE)
    await up(face, client, SIZE)
    await both(face, client, SIZE // 4)


async def a_thousand(face: Face, port: int) -> int:
    """A thousand connections at once, each with a command of its own."""
    clients: list[Any] = []

    async def begin(number: int) -> None:
        clients.extend([await face.connect(HOST, port, **login()) for _ in range(50)])

    await face.gather(*commands(20, begin))
    assert len(clients) == 1000

    async def speak(number: int) -> None:
        completed = await clients[number].run("cat", input=b"%d" % number * 1000)
        assert completed.stdout == b"%d" % number * 1000
        assert clients[number].hub.lost is None

    await face.gather(*commands(1000, speak))
    await face.gather(*(client.aclose for client in clients))
    return len(clients)
