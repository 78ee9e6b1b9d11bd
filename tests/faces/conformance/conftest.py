"""Servers of all faces, which live as long as the tests do, and what is behind their forwards."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import faces, peers
from tests.support.faces import Face
from tests.support.faceserver import Served, serving
from tests.support.places import Place, Site, site
from tests.support.seeds import HOST


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    with peers.scratch() as folder:
        yield folder


@pytest.fixture(scope="session")
def website(folder: Path) -> Iterator[Site]:
    with site(folder) as it:
        yield it


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], Served]]:
    """A server by its face's name, started when it is first asked for."""
    with contextlib.ExitStack() as stack:
        running: dict[str, Served] = {}

        def get(name: str) -> Served:
            if name not in running:
                running[name] = stack.enter_context(serving(name, debug=True))
            return running[name]

        yield get


@pytest.fixture(params=faces.NAMES, ids=lambda name: f"from_{name}")
def face(request: pytest.FixtureRequest) -> Face:
    """The client's face."""
    return faces.get(request.param)


@pytest.fixture(params=faces.NAMES, ids=lambda name: f"to_{name}")
def served(request: pytest.FixtureRequest, servers: Callable[[str], Served]) -> Iterator[Served]:
    """A server, which has nothing left when the test is over."""
    server = servers(request.param)
    yield server
    server.settle()


@pytest.fixture
def place(served: Served, servers: Callable[[str], Served], website: Site, folder: Path) -> Place:
    second = faces.NAMES[faces.NAMES.index(served.face) - 1]
    return Place(port=served.port, ours=True, site=website, folder=folder, second=servers(second).port)


@pytest.fixture(scope="session")
def silent() -> Iterator[int]:
    """A port where connections are taken, and nothing is said."""
    with socket.create_server((HOST, 0), backlog=512) as listener:
        yield listener.getsockname()[1]
