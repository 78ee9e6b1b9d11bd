"""Every kind of wait of a client, for who wants to see how it ends."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

from sshproto.errors import SSHError
from tests.support.faces import Face, Thunk, login
from tests.support.places import dial
from tests.support.seeds import HOST

MUCH = bytes(8 * 1024 * 1024)
"""More than windows and sockets hold."""


@contextlib.asynccontextmanager
async def waits(face: Face, client: Any, port: int, silent: int) -> AsyncIterator[dict[str, Thunk[object]]]:
    """What waits for a server that says nothing, by name.

    Args:
        face, client: The client's.
        port: Where the server listens, which is reached through itself as well.
        silent: Where somebody listens and says nothing.
    """
    undecided = {"host_key": login()["host_key"], "config": login()["config"], "password": "undecided"}
    async with contextlib.AsyncExitStack() as stack:

        async def hanging() -> Any:
            process = await stack.enter_async_context(client.start("hang"))
            assert await process.stdout.read_exactly(7) == b"hanging"
            return process

        async def behind_a_write(what: Any) -> None:
            await face.sleep(0.1)
            await client.perform(what)

        read, read_all, exactly, line, wait, write, more = [await hanging() for _ in range(7)]
        stream = await stack.enter_async_context(client.open_tcp(HOST, silent))
        yield {
            "read": lambda: face.plain(client, read.stdout).read(1),
            "read errors": lambda: face.plain(client, read.stderr).read(1),
            "read all": lambda: face.plain(client, read_all.stdout).read(),
            "read exactly": lambda: face.plain(client, exactly.stdout).read_exactly(2),
            "read line": lambda: face.plain(client, line.stdout).read_line(),
            "wait": wait.wait,
            "notice": lambda: client.perform(_notice(wait.channel)),
            "write": lambda: client.perform(write.channel.write(MUCH)),
            "write behind a write": lambda: behind_a_write(write.channel.write(b"x")),
            "end behind a write": lambda: behind_a_write(write.channel.send_eof()),
            "write in pieces": lambda: _in_pieces(more.stdin),
            "run": lambda: client.run("hang"),
            "run with input": lambda: client.run("hang", input=MUCH),
            "start": lambda: _enter(client.start("undecided")),
            "open": lambda: _enter(client.open_tcp("undecided.example", 1)),
            "stream": lambda: stream.read(1),
            "ask to listen": lambda: _enter(client.forward_remote(("undecided.example", 0), (HOST, 1))),
            "jump": lambda: _enter(client.jump("undecided.example", 22, **login())),
            "jump to silence": lambda: _enter(client.jump(HOST, silent, **login())),
            "log in": lambda: _enter(client.jump(HOST, port, **undecided)),
            "ended": lambda: _until_ended(client),
        }


@contextlib.asynccontextmanager
async def plain_waits(face: Face, client: Any, silent: int) -> AsyncIterator[dict[str, Thunk[object]]]:
    """Plain connections that wait at forwards of all kinds, by name; they end with a ``ConnectionError``."""
    async with contextlib.AsyncExitStack() as stack:
        target = HOST, silent
        local = await stack.enter_async_context(client.forward_local((HOST, 0), target))
        remote = await stack.enter_async_context(client.forward_remote((HOST, 0), target))
        dynamic = await stack.enter_async_context(client.forward_dynamic((HOST, 0)))
        yield {
            "forwarded from here": lambda: face.aside(_wait_at, local.address),
            "forwarded from there": lambda: face.aside(_wait_at, remote.address),
            "forwarded by the proxy": lambda: face.aside(_wait_at, dynamic.address),
        }


def _wait_at(address: Any) -> None:
    with dial(address) as sock:
        sock.recv(1)
        raise ConnectionError("closed")


async def _enter(opening: Any) -> None:
    async with opening:
        pass


async def _in_pieces(writer: Any) -> None:
    while True:
        await writer.write(MUCH[: 64 * 1024])


def _notice(channel: Any) -> Any:
    """Wait for a notice; the end of the connection is told as an error, as elsewhere."""
    if (yield from channel.next_notice()) is None:
        channel.hub.check()


async def _until_ended(client: Any) -> None:
    raise await client.perform(client.hub.until_ended())


async def wait_for_ever(face: Face, client: Any, port: str, silent: str) -> None:
    """All waits at once, until somebody ends it."""
    async with waits(face, client, int(port), int(silent)) as some, plain_waits(face, client, int(silent)) as others:

        async def wait(thunk: Thunk[object]) -> None:
            with contextlib.suppress(SSHError, ConnectionError):
                await thunk()

        async def tell() -> None:
            await face.sleep(0.2)
            print("waiting", flush=True)
            sys.stdout.flush()

        thunks = [*some.values(), *others.values()]
        await face.gather(tell, *(lambda thunk=thunk: wait(thunk) for thunk in thunks))
