"""asyncssh with processes: a coroutine with files, its most comfortable interface, and the likest to ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

from tests.bench.ends import Job, Setting, peer_asyncssh, pieces, whole

_CHUNK = 256 * 1024


async def _command(process: Any) -> None:
    word, _, amount = process.command.partition(" ")
    match word:
        case "download":
            for block in pieces(int(amount)):
                process.stdout.write(block)
                await process.stdout.drain()
        case "upload":
            while await process.stdin.read(_CHUNK):
                pass
        case "hold":
            await process.stdin.read(1)
    process.exit(0)


def serve(setting: Setting) -> None:
    peer_asyncssh.serve(setting, peer_asyncssh.Server, process_factory=_command)


def drive(setting: Setting, jobs: Iterable[Job]) -> None:
    peer_asyncssh.drive(setting, jobs, JOBS)


async def _channels(job: Job, log_in: Any, stack: AsyncExitStack) -> None:
    connection = await stack.enter_async_context(log_in())

    async def some(count: int) -> None:
        for _ in range(count):
            process = await connection.create_process("hold", encoding=None)
            stack.push_async_callback(process.wait_closed)
            stack.callback(process.close)

    await some(job.already)
    with job.timed():
        await some(job.amount - job.already)


async def _download(connection: Any, amount: int) -> None:
    count = 0
    async with connection.create_process(f"download {amount}", encoding=None) as process:
        while data := await process.stdout.read(_CHUNK):
            count += len(data)
        await process.wait()
    whole(count, amount)


async def _upload(connection: Any, amount: int) -> None:
    async with connection.create_process("upload", encoding=None) as process:
        for block in pieces(amount):
            process.stdin.write(block)
            await process.stdin.drain()
        process.stdin.write_eof()
        await process.wait()


async def _exec(connection: Any, count: int) -> None:
    for _ in range(count):
        await connection.run("true")


async def _exec50(connection: Any, count: int) -> None:
    for _ in range(max(1, count // 50)):
        await asyncio.gather(*(connection.run("true") for _ in range(50)))


JOBS = {
    **peer_asyncssh.JOBS,
    "download": peer_asyncssh.over_one(_download),
    "upload": peer_asyncssh.over_one(_upload),
    "exec": peer_asyncssh.over_one(_exec),
    "exec50": peer_asyncssh.over_one(_exec50),
    "channels": _channels,
}
