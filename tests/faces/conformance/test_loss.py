"""The peer dies, falls silent, or hangs up, while somebody waits: each wait ends at once with the reason, and at
neither end is anything left."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sshproto.errors import ConnectionLoss, LocalClose, PeerDisconnected, TimedOut, UnexpectedEof
from sshproto_io import ConnectFailed, UsageError
from tests.faces.conformance.waits import plain_waits, waits
from tests.support import faceclient, faces
from tests.support.faces import Face, Thunk
from tests.support.faceserver import Served, serving
from tests.support.seeds import HOST

pytestmark = pytest.mark.timeout(60)

SOON = 2.0
"""Seconds within which all must have ended."""


async def _see_the_end(
    face: Face, client: Any, port: int, silent: int, end: Thunk[object], more: dict[str, Thunk[object]], reason: Any
) -> None:
    """Wait for everything at once, have it end, and look how: all waits end soon, and for the reason."""
    ends: dict[str, tuple[float, BaseException | None]] = {}

    async def wait(name: str, thunk: Thunk[object]) -> None:
        try:
            await thunk()
        except Exception as error:
            ends[name] = time.monotonic(), error
        else:
            ends[name] = time.monotonic(), None

    started = 0.0

    async def strike() -> None:
        nonlocal started
        try:
            await face.sleep(0.3)  # by now all of them wait
            assert not ends, ends
            started = time.monotonic()
            await end()
        except BaseException:
            await _abort(client)  # so that this is what is heard of
            raise

    async with waits(face, client, port, silent) as all_waits, plain_waits(face, client, silent) as plain:
        if reason is TimedOut:
            del plain["forwarded from there"]  # its listener is at the server, which has to live for that
        all_waits |= more | plain
        await face.gather(strike, *(lambda pair=pair: wait(*pair) for pair in all_waits.items()))
        for name, (moment, error) in ends.items():
            assert moment - started < SOON, (name, moment - started, error)
            kinds = reason
            if name in {"jump", "jump to silence", "log in"}:
                kinds = (ConnectionLoss, ConnectFailed)
            elif name in plain:
                kinds = ConnectionError
            assert isinstance(error, kinds), (name, error)
        for again in plain.values():
            await _until_refused(face, again)
    for again in (
        lambda: client.run("true"),
        lambda: _enter(client.start("cat")),
        lambda: _enter(client.open_tcp(HOST, 1)),
        lambda: _enter(client.forward_remote((HOST, 0), (HOST, 1))),
        lambda: _enter(client.forward_local((HOST, 0), (HOST, 1))),
        lambda: _enter(client.forward_dynamic((HOST, 0))),
        lambda: _enter(client.jump(HOST, 1, **faces.login())),
        client.rekey,
    ):
        with pytest.raises((ConnectionLoss, UsageError)) as caught:
            await face.within(1.0, again)
        assert isinstance(caught.value, reason)
    started = time.monotonic()
    await client.aclose()
    await client.aclose()
    assert time.monotonic() - started < 1.0


async def _until_refused(face: Face, connect: Thunk[object]) -> None:
    """Nobody listens there any more, at the server as soon as that has noticed."""
    deadline = time.monotonic() + SOON
    while True:
        try:
            await connect()
        except ConnectionRefusedError:
            return
        except ConnectionError:
            assert time.monotonic() < deadline
        await face.sleep(0.02)


async def _abort(client: Any) -> None:
    result = client.abort()
    if result is not None:
        await result


async def _enter(opening: Any) -> None:
    async with opening:
        pass


def test_every_wait_ends_when_the_server_is_killed(face: Face, silent: int) -> None:
    async def scenario(face: Face, client: Any, mortal: Served) -> None:
        paused = False

        async def rekey() -> None:
            await face.until(lambda: paused, "the server to stand still")
            await client.rekey()

        async def end() -> None:
            nonlocal paused
            mortal.pause()
            paused = True
            await face.sleep(0.1)
            mortal.kill()

        await _see_the_end(face, client, mortal.port, silent, end, {"rekey": rekey}, UnexpectedEof)

    with serving(face.name) as mortal:
        face.visit(scenario, mortal.port, mortal)


@pytest.mark.parametrize("server", faces.NAMES, ids=lambda name: f"to_{name}")
def test_every_wait_ends_when_the_server_hangs_up(face: Face, server: str, silent: int) -> None:
    async def scenario(face: Face, client: Any, mortal: Served) -> None:
        async def end() -> None:
            await face.aside(mortal.stop)

        await _see_the_end(face, client, mortal.port, silent, end, {}, PeerDisconnected)

    with serving(server) as mortal:
        face.visit(scenario, mortal.port, mortal)


@pytest.mark.parametrize("how", ["aclose", "abort"])
def test_every_wait_ends_when_we_close(face: Face, served: Served, silent: int, how: str) -> None:
    async def scenario(face: Face, client: Any) -> None:
        async def end() -> None:
            await (_abort(client) if how == "abort" else client.aclose())

        await _see_the_end(face, client, served.port, silent, end, {}, (LocalClose, UnexpectedEof))

    face.visit(scenario, served.port)


def _waiting(process: Any) -> None:
    ready, _, _ = select.select([process.stdout], [], [], 20)
    assert ready
    assert process.stdout.readline() == "waiting\n"


@pytest.mark.parametrize("client", faces.NAMES, ids=lambda name: f"from_{name}")
def test_a_server_has_nothing_left_of_a_client_that_was_killed(client: str, served: Served, silent: int) -> None:
    words = (str(served.port), str(silent))
    scenario = "tests.faces.conformance.waits:wait_for_ever"
    with faceclient.starting(client, served.port, scenario, *words) as process:
        _waiting(process)
        assert served.state().channels > 10
    served.settle()


# ------------------------------------------------------------------------------------------------------------ keepalive


@pytest.fixture
def stopping(face: Face, servers: Callable[[str], Served]) -> Iterator[Served]:
    """A server that can be made to stand still; afterwards it goes on and has nothing left."""
    server = servers(face.name)
    yield server
    server.go_on()
    server.settle()


def test_a_client_notices_a_server_that_is_dead(face: Face, stopping: Served, silent: int) -> None:
    async def scenario(face: Face, client: Any) -> None:
        async def end() -> None:
            stopping.pause()

        await _see_the_end(face, client, stopping.port, silent, end, {}, TimedOut)

    face.visit(scenario, stopping.port, config=faces.client_config(keepalive=0.2))


def test_a_client_that_does_nothing_notices_a_server_that_is_dead(face: Face, stopping: Served) -> None:
    """The blocking face only if asked for a thread."""

    async def scenario(face: Face, client: Any) -> None:
        await face.attend(client)
        await face.sleep(1.0)
        assert client.hub.lost is None
        stopping.pause()
        await face.until(lambda: client.hub.lost, "the loss to be noticed", SOON)
        assert isinstance(client.hub.lost, TimedOut)

    face.visit(scenario, stopping.port, config=faces.client_config(keepalive=0.2))


@pytest.mark.parametrize("server", faces.NAMES, ids=lambda name: f"to_{name}")
def test_a_server_notices_clients_that_are_dead(server: str, silent: int) -> None:
    with serving(server, "--keepalive", "0.2") as served:
        scenario, words = "tests.faces.conformance.waits:wait_for_ever", (str(served.port), str(silent))
        with faceclient.starting("asyncio", served.port, scenario, *words) as process:
            _waiting(process)
            time.sleep(1.0)
            assert served.state().connections >= 1
            os.kill(process.pid, signal.SIGSTOP)
            served.settle(SOON)
