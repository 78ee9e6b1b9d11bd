"""The floor over Trio's sockets: a task for each connection."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from tests.bench.ends import BLOCK, HOST, Job, Setting, floor, obey


class Link:
    """A stream and its wire."""

    def __init__(self, stream: trio.SocketStream, setting: Setting) -> None:
        self.stream = stream
        self.wire = floor.Wire(setting.cipher)

    async def until(self, count: int) -> None:
        """Until so many packets have come."""
        while count > 0:
            size = await self.stream.socket.recv_into(self.wire.space())
            if not size:
                raise EOFError
            for _ in self.wire.took(size):
                count -= 1

    async def ask(self, kind: bytes, size: int, times: int = 1) -> None:
        await self.stream.send_all(self.wire.packets(kind, size, times))
        await self.until(times * floor.SIZES[kind][1])


async def _serve(link: Link, keys: floor.Keys) -> None:
    while size := await link.stream.socket.recv_into(link.wire.space()):
        answers = []
        for packet in link.wire.took(size):
            kind = bytes(packet[:1])
            if kind == floor.DATA:
                continue
            if kind == floor.FETCH:
                for batch in floor.batches(link.wire, int(bytes(packet[1:16]).rstrip(b"\0"))):
                    await link.stream.send_all(batch)
            elif kind == floor.DONE:
                answers.append(link.wire.packets(floor.DONE, floor.SMALL))
            elif (said := floor.answer(link.wire, keys, kind)) is not None:
                answers.append(said)
        if answers:
            await link.stream.send_all(b"".join(answers))
    await link.stream.aclose()


def serve(setting: Setting) -> None:
    keys = floor.Keys()

    async def attend(stream: trio.SocketStream) -> None:
        await _serve(Link(stream, setting), keys)

    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host=HOST, backlog=128)
        obey(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(attend, listeners)

    trio.run(main)


def drive(setting: Setting, jobs: Iterable[Job]) -> None:
    keys = floor.Keys()

    async def dial() -> Link:
        return Link(await trio.open_tcp_stream(HOST, setting.port), setting)

    async def connects(link: Link, count: int) -> None:
        for _ in range(count):
            one = await dial()
            await one.ask(floor.KEXINIT, 1000)
            keys.agree()
            await one.ask(floor.EXCHANGE, 40)
            keys.verify()
            await one.ask(floor.SERVICE, 20)
            keys.sign()
            await one.ask(floor.LOGIN, 250)
            await one.stream.aclose()

    async def main() -> None:
        works = {**WORKS, "connect": connects}
        for job in jobs:
            link = await dial()
            async with link.stream:
                await works[job.work](link, job.warming)
                with job.timed():
                    await works[job.work](link, job.amount)

    trio.run(main)


async def _download(link: Link, amount: int) -> None:
    await link.stream.send_all(link.wire.packets(floor.FETCH, floor.SMALL, 1, b"%d" % amount))
    await link.until(amount // len(BLOCK))


async def _upload(link: Link, amount: int) -> None:
    for batch in floor.batches(link.wire, amount):
        await link.stream.send_all(batch)
    await link.stream.send_all(link.wire.packets(floor.DONE, floor.SMALL))
    await link.until(1)


async def _exec(link: Link, count: int, at_once: int = 1) -> None:
    for _ in range(max(1, count // at_once)):
        await link.ask(floor.OPEN, 24, at_once)
        await link.ask(floor.PROGRAM, 28, at_once)
        await link.stream.send_all(link.wire.packets(floor.CLOSE, 5, at_once))


async def _exec50(link: Link, count: int) -> None:
    await _exec(link, count, 50)


WORKS = {"download": _download, "upload": _upload, "exec": _exec, "exec50": _exec50}
