"""Much data: it arrives as it was sent, and neither end keeps it in memory, whoever is slow.

Each face's client and each face's server carry 256 MiB each way in tests/interop/test_faces.py, where the other end is
OpenSSH's; nine pairs of them need no more here than shows that what is kept does not grow with what is carried.
"""

from __future__ import annotations

import pytest

from tests.faces.conformance.bulk import MEBIBYTE, SIZE
from tests.support import faceclient, faces
from tests.support.faceserver import serving

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

MOST = 64 * MEBIBYTE


@pytest.mark.parametrize("client", faces.NAMES, ids=lambda name: f"from_{name}")
@pytest.mark.parametrize("server", faces.NAMES, ids=lambda name: f"to_{name}")
def test_more_than_fits_each_way(client: str, server: str) -> None:
    """With keys that change after every 20 MiB, and a second for which nobody reads."""
    assert SIZE > MOST
    with serving(server) as served:
        options = ("--rekey-bytes", str(20 * MEBIBYTE))
        used = faceclient.run(client, served.port, "tests.faces.conformance.bulk:all_ways", options=options)
        state = served.settle()
    print(f"{client} to {server}: client +{used.growth / 2**20:.1f} MiB, server +{state.growth / 2**20:.1f} MiB")
    assert used.growth < MOST
    assert state.growth < MOST
