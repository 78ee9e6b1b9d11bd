"""What ``connect`` is asked for."""

from __future__ import annotations

import asyncio

import pytest

from sshproto.errors import InvalidArgument
from sshproto_io import asyncio as face
from sshproto_io import blocking

PORTS = pytest.mark.parametrize("port", [0, -1, 65_536, 70_000])


@PORTS
def test_there_is_no_such_port(port: int) -> None:
    with pytest.raises(InvalidArgument, match=f"there is no port {port}: they are 1 to 65535"):
        blocking.connect("127.0.0.1", port, user="me", host_key=lambda key: False)


async def _connect(port: int) -> None:
    async with face.connect("127.0.0.1", port, user="me", host_key=lambda key: False):
        pass


@PORTS
def test_nor_under_asyncio(port: int) -> None:
    with pytest.raises(InvalidArgument, match="there is no port"):
        asyncio.run(_connect(port))
