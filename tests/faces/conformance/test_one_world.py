"""A server and its clients in one process, and one event loop if there is one: of neither is anything left."""

from __future__ import annotations

from typing import Any

import pytest

from sshproto.errors import ClosedEarly, PeerDisconnected
from sshproto_io import ConnectionLoss
from tests.support.faces import Face, commands, login
from tests.support.faceserver import Commands
from tests.support.places import Site
from tests.support.seeds import HOST

pytestmark = pytest.mark.timeout(60)


def _handler(incoming: Any) -> Commands:
    return Commands()


def test_clients_and_their_server(face: Face, website: Site) -> None:
    async def scenario(face: Face) -> None:
        async with face.listen(_handler) as server:

            async def visit(number: int) -> None:
                async with face.connect(HOST, server.port, **login()) as client:
                    data = bytes((number,)) * 300_000
                    assert (await client.run("cat", input=data)).stdout == data
                    async with client.open_tcp(HOST, website.late_port) as stream:
                        await stream.write(data)
                        await stream.send_eof()
                        assert await stream.read() == b"300000 bytes"
                    async with client.forward_remote((HOST, 0), (HOST, website.late_port)) as tunnel:
                        assert tunnel.port

            await face.gather(*commands(8, visit))

    face.play(scenario, debug=True)


def test_a_server_that_closes_takes_leave_of_its_clients(face: Face) -> None:
    async def scenario(face: Face) -> None:
        reasons = []
        there = []

        async def stay(server: Any) -> None:
            async with face.connect(HOST, server.port, **login()) as client:
                there.append(client)
                with pytest.raises(ConnectionLoss) as caught:
                    await client.run("hang")
                reasons.append(caught.value)

        async with face.listen(_handler) as server:

            async def close() -> None:
                while len(there) < 5:
                    await face.sleep(0.02)
                await server.aclose()

            await face.gather(*commands(5, lambda _: stay(server)), close)
        assert len(reasons) == 5
        for reason in reasons:
            assert isinstance(reason, PeerDisconnected)
            assert "stopping" in reason.description

    face.play(scenario, debug=True)


def test_a_server_that_is_full_closes_who_comes(face: Face) -> None:
    async def scenario(face: Face) -> None:
        async with face.listen(_handler, max_connections=2) as server:

            async def connect() -> None:
                async with face.connect(HOST, server.port, **login()) as client:
                    await client.run("true")

            async with (
                face.connect(HOST, server.port, **login()) as one,
                face.connect(HOST, server.port, **login()) as other,
            ):
                for _ in range(3):
                    with pytest.raises(ClosedEarly):
                        await connect()
                for client in (one, other):
                    assert (await client.run("exit 3")).exit_status == 3

            async def again() -> bool:
                try:
                    await connect()
                except ClosedEarly:
                    return False
                return True

            for _ in range(100):  # the server may not have noticed yet
                if await again():
                    break
                await face.sleep(0.02)
            else:
                raise AssertionError("still full")

    face.play(scenario, debug=True)
