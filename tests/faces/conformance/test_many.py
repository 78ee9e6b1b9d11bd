"""Many at once: threads that share a connection, connections that share a server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import faceclient, faces
from tests.support.faces import Face, commands
from tests.support.faceserver import serving

pytestmark = [pytest.mark.timeout(100), pytest.mark.slow]


async def _two_thousand(face: Face, client: Any) -> None:
    """Of all sizes, some refused, some given up on."""
    outcomes: list[bytes] = []

    async def one(number: int) -> None:
        for turn in range(250):
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
    assert len(set(outcomes)) == 2000


@pytest.mark.parametrize("server", faces.NAMES, ids=lambda name: f"to_{name}")
@pytest.mark.parametrize("client", faces.NAMES, ids=lambda name: f"from_{name}")
def test_eight_share_a_connection_for_two_thousand_commands(client: str, server: str) -> None:
    """Eight threads, or tasks."""
    with serving(server) as served:
        faces.get(client).visit(_two_thousand, served.port, config=faces.client_config(rekey_bytes=2**20))
        served.settle()


@pytest.mark.parametrize(("client", "server"), [("asyncio", "asyncio")])
def test_a_thousand_connections_at_once(client: str, server: str) -> None:
    with serving(server) as served:
        used = faceclient.run(
            client, served.port, "tests.faces.conformance.bulk:a_thousand", options=("--bare",), seconds=90
        )
        served.settle(20)
    assert used.result == 1000
