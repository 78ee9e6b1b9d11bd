"""The floor over the sockets of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from tests.bench.ends import BLOCK, HOST, Job, Setting, floor, obey


class End(asyncio.BufferedProtocol):
    """What both ends have."""

    def __init__(self, setting: Setting, keys: floor.Keys) -> None:
        self.wire = floor.Wire(setting.cipher)
        self.keys = keys
        self.source: Iterator[bytearray] = iter(())
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.wire.space()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.pump()

    def pump(self) -> None:
        while not self.paused:
            batch = next(self.source, None)
            if batch is None:
                break
            self.transport.write(batch)


class Server(End):
    def buffer_updated(self, nbytes: int) -> None:
        answers = []
        for packet in self.wire.took(nbytes):
            kind = bytes(packet[:1])
            if kind == floor.DATA:
                continue
            if kind == floor.FETCH:
                self.source = floor.batches(self.wire, int(bytes(packet[1:16]).rstrip(b"\0")))
                self.pump()
            elif kind == floor.DONE:
                answers.append(self.wire.packets(floor.DONE, floor.SMALL))
            elif (said := floor.answer(self.wire, self.keys, kind)) is not None:
                answers.append(said)
        if answers:
            self.transport.write(b"".join(answers))


class Client(End):
    """Counts packets, until those have come that are waited for."""

    def __init__(self, setting: Setting, keys: floor.Keys) -> None:
        super().__init__(setting, keys)
        self.left = 0
        self.done: asyncio.Future[None] | None = None

    def buffer_updated(self, nbytes: int) -> None:
        for _ in self.wire.took(nbytes):
            self.left -= 1
        if not self.left and self.done is not None:
            self.done.set_result(None)
            self.done = None

    async def until(self, count: int) -> None:
        """Until so many packets have come."""
        self.left += count
        self.done = asyncio.get_running_loop().create_future()
        await self.done

    async def ask(self, kind: bytes, size: int, times: int = 1) -> None:
        self.transport.write(self.wire.packets(kind, size, times))
        await self.until(times * floor.SIZES[kind][1])


def serve(setting: Setting) -> None:
    async def main() -> None:
        keys = floor.Keys()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Server(setting, keys), HOST, 0, backlog=128)
        obey(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def drive(setting: Setting, jobs: Iterable[Job]) -> None:
    keys = floor.Keys()

    async def dial() -> Client:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: Client(setting, keys), HOST, setting.port)
        return client

    async def connects(count: int) -> None:
        for _ in range(count):
            client = await dial()
            await client.ask(floor.KEXINIT, 1000)
            keys.agree()
            await client.ask(floor.EXCHANGE, 40)
            keys.verify()
            await client.ask(floor.SERVICE, 20)
            keys.sign()
            await client.ask(floor.LOGIN, 250)
            client.transport.close()

    async def main() -> None:
        for job in jobs:
            client = await dial()
            if job.work == "connect":
                await connects(job.warming)
                with job.timed():
                    await connects(job.amount)
            else:
                await WORKS[job.work](client, job.warming)
                with job.timed():
                    await WORKS[job.work](client, job.amount)
            client.transport.close()

    asyncio.run(main())


async def _download(client: Client, amount: int) -> None:
    client.transport.write(client.wire.packets(floor.FETCH, floor.SMALL, 1, b"%d" % amount))
    await client.until(amount // len(BLOCK))


async def _upload(client: Client, amount: int) -> None:
    done = client.wire.packets

    def batches() -> Iterator[bytearray]:
        yield from floor.batches(client.wire, amount)
        yield done(floor.DONE, floor.SMALL)

    client.source = batches()
    client.pump()
    await client.until(1)


async def _exec(client: Client, count: int, at_once: int = 1) -> None:
    for _ in range(max(1, count // at_once)):
        await client.ask(floor.OPEN, 24, at_once)
        await client.ask(floor.PROGRAM, 28, at_once)
        client.transport.write(client.wire.packets(floor.CLOSE, 5, at_once))


async def _exec50(client: Client, count: int) -> None:
    await _exec(client, count, 50)


WORKS = {"download": _download, "upload": _upload, "exec": _exec, "exec50": _exec50}
