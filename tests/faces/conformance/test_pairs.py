"""Clients of all faces with servers of all faces: nine pairs, the same scenarios; and all of it while keys change.

For the latter a scenario has three pairs, with each face as client once and as server once; the next one has others.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.faces.conformance.scenarios import OURS, Scenario
from tests.support import faces
from tests.support.faces import Face, client_config
from tests.support.faceserver import Served
from tests.support.places import Place

pytestmark = pytest.mark.timeout(60)

SCENARIOS = pytest.mark.parametrize("scenario", OURS, ids=lambda scenario: scenario.__name__)


@SCENARIOS
def test_scenario(face: Face, served: Served, place: Place, scenario: Scenario) -> None:
    face.visit(scenario, served.port, place, debug=True)


async def _while_keys_change(face: Face, client: Any, place: Place, scenario: Scenario) -> None:
    count = 0
    done = False

    async def exchange() -> None:
        nonlocal count
        while not (done and count):
            await client.rekey()
            count += 1
            await face.sleep(0.002)

    async def work() -> None:
        nonlocal done
        try:
            await scenario(face, client, place)
        finally:
            done = True

    await face.gather(work, exchange)


THREE_PAIRS = pytest.mark.parametrize(
    ("face", "served", "scenario"),
    [
        pytest.param(client, server, scenario, id=f"from_{client}-to_{server}-{scenario.__name__}")
        for turn, scenario in enumerate(OURS)
        for client, server in zip(faces.NAMES, (faces.NAMES * 2)[turn % 3 :], strict=False)
    ],
    indirect=["face", "served"],
)


@THREE_PAIRS
def test_scenario_while_keys_change(face: Face, served: Served, place: Place, scenario: Scenario) -> None:
    """Keys change all the time, and after every 256 KiB of data in either direction."""
    config = client_config(rekey_bytes=256 * 1024)
    face.visit(_while_keys_change, served.port, place, scenario, config=config)
