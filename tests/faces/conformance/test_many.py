"""Many at once: threads that share a connection, connections that share a server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import faceclient, faces
from tests.support.faces import Face, commands
from tests.support.faceserver import serving

pytestmark = [pytest.mark.timeout(100), pytest.mark.slow]


async def _commands(face: Face, client: Any, turns: int) -> None:
    """Of all sizes, some refused, some given up on: eight times ``turns``."""
    outcomes: list[bytes] = []

    async def one(number: int) -> None:
        for turn in range(turns):
            mine = b"%d of %d " % (turn, number)
            match turn % 10:
                case 3:
                    data = mine * 3000
                    assert (await client.run("cat", input=data)).stdout == data
                case 5:
                    completed = await client.run(f"exit {turn}")
                    assert completed.exit_status == turn
                case 7:
                    async with client.start("cat") as process:
                        await process.stdin.write(mine + b"\n")
                        assert await process.stdout.read_line() == mine + b"\n"
                case 8 if turn % 50 == 8:
                    with pytest.raises(TimeoutError):
                        await client.run("hang", timeout=0.001)
                case _:
                    assert (await client.run("echo " + mine.decode())).stdout.split() == mine.split()
            outcomes.append(mine)

    await face.gather(*commands(8, one))
    assert len(set(outcomes)) == 8 * turns


@pytest.mark.parametrize("server", faces.NAMES, ids=lambda name: f"to_{name}")
@pytest.mark.parametrize("client", faces.NAMES, ids=lambda name: f"from_{name}")
def test_eight_share_a_connection(client: str, server: str) -> None:
    """Eight threads, or tasks: two thousand commands to a server of their own face, some hundreds to the others."""
    turns, rekey_bytes = (250, 2**20) if client == server else (30, 2**18)
    with serving(server) as served:
        faces.get(client).visit(_commands, served.port, turns, config=faces.client_config(rekey_bytes=rekey_bytes))
        served.settle()


@pytest.mark.parametrize(("client", "server"), [("asyncio", "asyncio")])
def test_a_thousand_connections_at_once(client: str, server: str) -> None:
    with serving(server) as served:
        used = faceclient.run(
            client, served.port, "tests.faces.conformance.bulk:a_thousand", options=("--bare",), seconds=90
        )
        served.settle(20)
    assert used.result == 1000
