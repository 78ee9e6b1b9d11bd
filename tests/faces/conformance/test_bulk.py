"""Much data: it arrives as it was sent, and neither end keeps it in memory, whoever is slow."""

from __future__ import annotations

import pytest

from tests.support import faceclient, faces
from tests.support.faceserver import serving

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

MOST = 64 * 1024 * 1024


@pytest.mark.parametrize("client", faces.NAMES, ids=lambda name: f"from_{name}")
@pytest.mark.parametrize("server", faces.NAMES, ids=lambda name: f"to_{name}")
def test_256_mebibytes_each_way(client: str, server: str) -> None:
    """With keys that change after every 48 MiB, and a second for which nobody reads."""
    with serving(server) as served:
        options = ("--rekey-bytes", str(48 * 1024 * 1024))
        used = faceclient.run(client, served.port, "tests.faces.conformance.bulk:all_ways", options=options)
        state = served.settle()
    print(f"{client} to {server}: client +{used.growth / 2**20:.1f} MiB, server +{state.growth / 2**20:.1f} MiB")
    assert used.growth < MOST
    assert state.growth < MOST
