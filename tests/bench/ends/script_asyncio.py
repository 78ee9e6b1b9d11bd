"""The script over asyncio's sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tests.bench.ends import HOST, Job, Setting, obey, script


class Moved(script.End, asyncio.Protocol):
    """Whose bytes asyncio moves."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connected(transport.write)


class Server(Moved, script.Server):
    pass


class Client(Moved, script.Client):
    ready: asyncio.Future[None]
    channels: dict[int, asyncio.Future[None]]

    def logged_in(self) -> None:
        self.ready.set_result(None)

    def ended(self, channel: int) -> None:
        self.channels.pop(channel).set_result(None)

    async def run(self) -> None:
        done = asyncio.get_running_loop().create_future()
        self.channels[self.open()] = done
        await done


def serve(setting: Setting) -> None:
    keys = script.keys(setting, "host_key", "user_key")

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Server(*keys), HOST, 0, backlog=128)
        obey(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def drive(setting: Setting, jobs: Iterable[Job]) -> None:
    keys = script.keys(setting, "user_key", "host_key")

    async def log_in() -> Client:
        loop = asyncio.get_running_loop()
        client = Client(*keys)
        client.ready, client.channels = loop.create_future(), {}
        await loop.create_connection(lambda: client, HOST, setting.port)
        await client.ready
        return client

    async def connects(count: int) -> None:
        for _ in range(count):
            (await log_in()).transport.close()

    async def commands(client: Client, count: int, at_once: int = 1) -> None:
        for _ in range(max(1, count // at_once)):
            if at_once == 1:
                await client.run()
            else:
                await asyncio.gather(*(client.run() for _ in range(at_once)))

    async def main() -> None:
        for job in jobs:
            if job.work == "connect":
                await connects(job.warming)
                with job.timed():
                    await connects(job.amount)
            else:
                client, at_once = await log_in(), 50 if job.work == "exec50" else 1
                await commands(client, job.warming, at_once)
                with job.timed():
                    await commands(client, job.amount, at_once)
                client.transport.close()

    asyncio.run(main())
