"""What the tests against other implementations share: keys of all kinds, and a server of ours that allows all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import ours, peers
from tests.support.peers import Key, Server


@pytest.fixture(scope="module")
def keys() -> Iterator[dict[str, Key]]:
    """A key of each kind."""
    with peers.scratch() as directory:
        yield {kind: peers.make_key(directory, kind) for kind in ours.KINDS}


@pytest.fixture(scope="module")
def serving(keys: dict[str, Key]) -> Iterator[Server]:
    """``sshproto serve`` with every algorithm, host key and way to log in."""
    publics = [key.public for key in keys.values()]
    with ours.serve(ours.EVERYTHING, authorized_keys=publics, host_keys=ours.KINDS, password=True) as server:
        yield server
