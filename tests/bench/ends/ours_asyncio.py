"""Our asyncio face."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

from sshproto_io.asyncio import Client, Handler, connect, listen
from tests.bench.ends import HOST, Job, Setting, obey, ours, pieces, whole


class Commands(Handler):
    def __init__(self, user_key: Any) -> None:
        self.user_key = user_key

    def public_key(self, user: str, key: Any) -> bool:
        return bool(key == self.user_key)

    async def session(self, session: Any) -> int:
        word, _, amount = session.command.partition(b" ")
        match word:
            case b"download":
                for block in pieces(int(amount)):
                    await session.stdout.write(block)
            case b"upload":
                while await session.stdin.read(ours.CHUNK):
                    pass
            case b"hold":
                await session.stdin.read(1)
        return 0


def serve(setting: Setting) -> None:
    async def main() -> None:
        user_key = ours.key(setting, "user_key").public_key
        async with listen(HOST, 0, ours.server_config(setting), lambda incoming: Commands(user_key)) as server:
            obey(server.port)
            await server.serve_forever()

    asyncio.run(main())


def drive(setting: Setting, jobs: Iterable[Job]) -> None:
    host_key, user_key = ours.key(setting, "host_key").public_key, ours.key(setting, "user_key")
    config = ours.client_config(setting)

    def log_in() -> Any:
        return connect(HOST, setting.port, host_key=host_key, keys=[user_key], config=config)

    async def main() -> None:
        for job in jobs:
            async with AsyncExitStack() as stack:
                await JOBS[job.work](job, log_in, stack)

    asyncio.run(main())


async def _connects(job: Job, log_in: Any, stack: AsyncExitStack) -> None:
    async def some(count: int) -> None:
        for _ in range(count):
            async with log_in():
                pass

    await some(job.warming)
    with job.timed():
        await some(job.amount)


async def _connections(job: Job, log_in: Any, stack: AsyncExitStack) -> None:
    for _ in range(job.already):
        await stack.enter_async_context(log_in())
    with job.timed():
        for _ in range(job.amount - job.already):
            await stack.enter_async_context(log_in())


async def _channels(job: Job, log_in: Any, stack: AsyncExitStack) -> None:
    client = await stack.enter_async_context(log_in())
    for _ in range(job.already):
        await stack.enter_async_context(client.start("hold"))
    with job.timed():
        for _ in range(job.amount - job.already):
            await stack.enter_async_context(client.start("hold"))


def _over_one(some: Any) -> Any:
    async def work(job: Job, log_in: Any, stack: AsyncExitStack) -> None:
        client = await stack.enter_async_context(log_in())
        await some(client, job, job.warming)
        with job.timed():
            await some(client, job, job.amount)

    return work


async def _download(client: Client, job: Job, amount: int) -> None:
    count = 0
    async with client.start(job.command("download", amount)) as process:
        while data := await process.stdout.read(ours.CHUNK):
            count += len(data)
        await process.wait()
    whole(count, amount)


async def _upload(client: Client, job: Job, amount: int) -> None:
    async with client.start(job.command("upload")) as process:
        for block in pieces(amount):
            await process.stdin.write(block)
        await process.stdin.send_eof()
        await process.wait()


async def _exec(client: Client, job: Job, count: int) -> None:
    for _ in range(count):
        await client.run("true")


async def _exec50(client: Client, job: Job, count: int) -> None:
    for _ in range(max(1, count // 50)):
        await asyncio.gather(*(client.run("true") for _ in range(50)))


WORKS = {"download": _download, "upload": _upload, "exec": _exec, "exec50": _exec50}

JOBS = {
    **{name: _over_one(some) for name, some in WORKS.items()},
    "connect": _connects,
    "connections": _connections,
    "channels": _channels,
}
