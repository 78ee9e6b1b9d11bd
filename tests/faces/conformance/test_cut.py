"""The connection is cut after some number of bytes: whatever was going on, it is an error at the client, soon, and at
neither end is anything left."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from sshproto.errors import ConnectionLoss
from sshproto_io import ConnectFailed
from tests.support.cutting import Cutter
from tests.support.faces import NAMES, Face, login
from tests.support.faceserver import Served
from tests.support.places import Site
from tests.support.seeds import HOST

pytestmark = pytest.mark.timeout(60)

SOON = 2.0
POINTS = 40  # for each direction; the first half of them in the login
SHARE = len(NAMES)  # the servers divide a client's points among them, and the clients a server's


async def _visit(face: Face, port: int, late: int, note: Any = None) -> None:
    """Something of everything."""
    async with face.connect(HOST, port, **login()) as client:
        if note is not None:
            note()
        assert (await client.run("cat", input=bytes(3000))).stdout == bytes(3000)
        async with client.start("cat") as process, client.open_tcp(HOST, late) as stream:
            await process.stdin.write(b"line\n")
            assert await process.stdout.read_line() == b"line\n"
            await client.rekey()
            await stream.write(b"x")
            await stream.send_eof()
            assert await stream.read() == b"1 bytes"
        async with client.forward_remote((HOST, 0), (HOST, late)):
            assert (await client.run("exit 3")).exit_status == 3


def _is_cut(face: Face, port: int, late: int) -> bool:
    """Visit, and say whether the connection was lost."""
    try:
        face.play(_visit, port, late)
    except (ConnectionLoss, ConnectFailed):
        return True
    except Exception as error:
        if isinstance(error.__cause__, ConnectionLoss):  # Trio has words of its own for a stream that can't send EOF
            return True
        raise
    return False


def _points(first: int, last: int) -> list[int]:
    """Numbers of bytes, from the very first to the last: as many in the login as after it."""
    half = POINTS // 2
    return [first * number // half for number in range(half)] + [
        first + (last - first) * number // half for number in range(half + 1)
    ]


def test_the_connection_is_cut_anywhere(face: Face, served: Served, website: Site) -> None:
    with Cutter(served.port) as cutter:
        middle: list[int] = []
        face.play(_visit, cutter.port, website.late_port, lambda: middle.extend(cutter.passed))
        end = list(cutter.passed)
        share = (NAMES.index(face.name) + NAMES.index(served.face)) % SHARE
        planned = cut = 0
        for direction, reset in itertools.product((0, 1), (False, True)):
            for count in _points(middle[direction], end[direction])[share::SHARE]:
                planned += 1
                cutter.plan(**{("client", "server")[direction]: count}, reset=reset)
                started = time.monotonic()
                cut += _is_cut(face, cutter.port, website.late_port)
                assert time.monotonic() - started < SOON, f"cut after {count} bytes"
        assert cut >= planned - 4  # the last of each round may make no difference
