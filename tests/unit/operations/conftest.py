"""Connections for the tests of operations."""

from __future__ import annotations

import attrs
import pytest

from sshproto.config import ClientConfig, Limits, ServerConfig
from tests.support.pair import HOST_KEY
from tests.support.running import QUICK, Host, Scene


@pytest.fixture
def scene():
    """A connection that is logged in and served by a Host."""
    return Scene().serve().login()


@pytest.fixture
def host(scene):
    """The handler that serves ``scene``."""
    return scene.handler


@pytest.fixture
def bare():
    """A connection that is logged in; nobody serves it."""
    found = Scene().serve().login()
    found.service.cancel()
    return found


@pytest.fixture
def make():
    """Makes a connection that is logged in, with limits of the client's (``client_...``), the server's or both."""

    def build(handler: Host | None = None, **limits: int) -> Scene:
        both = {name: value for name, value in limits.items() if not name.startswith(("client_", "server_"))}
        sides = []
        for side in ("client_", "server_"):
            own = {name.removeprefix(side): value for name, value in limits.items() if name.startswith(side)}
            sides.append(attrs.evolve(Limits(), **both, **own))
        client = ClientConfig(user="alice", debug_raise=True, preferences=QUICK, limits=sides[0])
        server = ServerConfig(host_keys=(HOST_KEY,), debug_raise=True, preferences=QUICK, limits=sides[1])
        return Scene(client, server).serve(handler).login()

    return build
