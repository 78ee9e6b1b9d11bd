"""asyncssh with sessions: a class whose methods are called with what comes, its fastest interface."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import asyncssh

from tests.bench.ends import BLOCK, HOST, KEX, Job, Setting, obey, whole


class Source(asyncssh.SSHServerSession):
    """Runs all commands."""

    def connection_made(self, chan: Any) -> None:
        self.chan = chan
        self.left = 0
        self.paused = False

    def exec_requested(self, command: str) -> bool:
        self.word, _, amount = command.partition(" ")
        self.left = int(amount or 0)
        return True

    def session_started(self) -> None:
        if self.word == "download":
            self.pump()
        elif self.word == "true":
            self.chan.exit(0)

    def pump(self) -> None:
        while self.left and not self.paused:
            size = min(self.left, len(BLOCK))
            self.left -= size
            self.chan.write(BLOCK if size == len(BLOCK) else BLOCK[:size])
        if not self.left:
            self.chan.exit(0)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.left:
            self.pump()

    def data_received(self, data: bytes, datatype: Any) -> None:
        pass

    def eof_received(self) -> bool:
        self.chan.exit(0)
        return True


class Server(asyncssh.SSHServer):
    def __init__(self, user_key: Any) -> None:
        self.user_key = user_key

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: Any) -> bool:
        return bool(key == self.user_key)


class SessionServer(Server):
    def session_requested(self) -> Any:
        return Source()


def algorithms(setting: Setting) -> dict[str, Any]:
    cipher, mac = setting.algorithms
    return {
        "kex_algs": [KEX],
        "encryption_algs": [cipher],
        "mac_algs": [mac] if mac else (),
        "compression_algs": ["none"],
    }


def serve(setting: Setting, kind: type[Server] = SessionServer, **more: Any) -> None:
    async def main() -> None:
        user_key = asyncssh.import_public_key(setting.key("user_key.pub"))
        host_key = asyncssh.import_private_key(setting.key("host_key"))
        common = {"encoding": None, **algorithms(setting), **more}
        server = await asyncssh.create_server(lambda: kind(user_key), HOST, 0, server_host_keys=[host_key], **common)
        obey(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(main())


class Sink(asyncssh.SSHClientSession):
    """Takes all that comes."""

    def __init__(self) -> None:
        self.count = 0
        self.room = asyncio.Event()
        self.room.set()

    def data_received(self, data: bytes, datatype: Any) -> None:
        self.count += len(data)

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()


def drive(setting: Setting, jobs: Iterable[Job], table: Any = None) -> None:
    host_key = asyncssh.import_public_key(setting.key("host_key.pub"))
    user_key = asyncssh.import_private_key(setting.key("user_key"))
    # Options that are read once, and not for each connection: it is what asyncssh's documentation advises.
    options = asyncssh.SSHClientConnectionOptions(
        username=setting.user,
        client_keys=[user_key],
        known_hosts=([host_key], [], []),
        agent_path=None,
        config=None,
        **algorithms(setting),
    )

    def log_in() -> Any:
        return asyncssh.connect(HOST, setting.port, options=options)

    async def main() -> None:
        for job in jobs:
            async with AsyncExitStack() as stack:
                await (table or JOBS)[job.work](job, log_in, stack)

    asyncio.run(main())


async def connects(job: Job, log_in: Any, stack: AsyncExitStack) -> None:
    async def some(count: int) -> None:
        for _ in range(count):
            async with log_in():
                pass

    await some(job.warming)
    with job.timed():
        await some(job.amount)


async def connections(job: Job, log_in: Any, stack: AsyncExitStack) -> None:
    for _ in range(job.already):
        await stack.enter_async_context(log_in())
    with job.timed():
        for _ in range(job.amount - job.already):
            await stack.enter_async_context(log_in())


async def channels(job: Job, log_in: Any, stack: AsyncExitStack) -> None:
    connection = await stack.enter_async_context(log_in())

    async def some(count: int) -> list[Any]:
        return [await connection.create_session(Sink, "hold", encoding=None) for _ in range(count)]

    held = await some(job.already)
    with job.timed():
        held += await some(job.amount - job.already)
    for channel, _ in held:
        channel.close()


def over_one(some: Any) -> Any:
    async def work(job: Job, log_in: Any, stack: AsyncExitStack) -> None:
        connection = await stack.enter_async_context(log_in())
        await some(connection, job.warming)
        with job.timed():
            await some(connection, job.amount)

    return work


async def _download(connection: Any, amount: int) -> None:
    channel, session = await connection.create_session(Sink, f"download {amount}", encoding=None)
    await channel.wait_closed()
    whole(session.count, amount)


async def _upload(connection: Any, amount: int) -> None:
    channel, session = await connection.create_session(Sink, "upload", encoding=None)
    for _ in range(amount // len(BLOCK)):
        await session.room.wait()
        channel.write(BLOCK)
    channel.write_eof()
    await channel.wait_closed()


async def _true(connection: Any) -> None:
    channel, _ = await connection.create_session(Sink, "true", encoding=None)
    await channel.wait_closed()


async def _exec(connection: Any, count: int) -> None:
    for _ in range(count):
        await _true(connection)


async def _exec50(connection: Any, count: int) -> None:
    for _ in range(max(1, count // 50)):
        await asyncio.gather(*(_true(connection) for _ in range(50)))


JOBS = {
    "download": over_one(_download),
    "upload": over_one(_upload),
    "connect": connects,
    "exec": over_one(_exec),
    "exec50": over_one(_exec50),
    "connections": connections,
    "channels": channels,
}
