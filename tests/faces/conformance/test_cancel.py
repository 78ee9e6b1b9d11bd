"""Every kind of operation, given up on at many moments: the connection goes on, and at neither end is anything left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sshproto_io import ConnectionLoss, OpenRefused, RequestRefused
from tests.faces.conformance.waits import waits
from tests.support.faces import Face, Moment, login
from tests.support.faceserver import Served
from tests.support.places import Place
from tests.support.seeds import HOST

pytestmark = pytest.mark.timeout(60)

MOMENTS = [Moment(turns=turns) for turns in range(13)] + [
    Moment(seconds=seconds) for seconds in (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01)
]

Job = Callable[[Face, Any, Place], Awaitable[object]]
JOBS: list[Job] = []


def job(function: Job) -> Job:
    JOBS.append(function)
    return function


@job
async def running(face: Face, client: Any, place: Place) -> None:
    assert (await client.run("cat", input=b"some")).stdout == b"some"


@job
async def running_with_much_input(face: Face, client: Any, place: Place) -> None:
    await client.run("slow 65536 0.0005", input=bytes(3_000_000))


@job
async def running_with_much_output(face: Face, client: Any, place: Place) -> None:
    assert len((await client.run("produce 3000000")).stdout) == 3_000_000


@job
async def starting(face: Face, client: Any, place: Place) -> None:
    async with client.start("cat", env={"LANG": "C"}):
        pass


@job
async def starting_what_is_refused(face: Face, client: Any, place: Place) -> None:
    with pytest.raises(RequestRefused):
        await client.run("refused")


@job
async def talking(face: Face, client: Any, place: Place) -> None:
    async with client.start("cat") as process:
        stdout = face.plain(client, process.stdout)
        for _ in range(3):
            await process.stdin.write(b"words\n")
            assert await stdout.read_line() == b"words\n"
        await process.resize(10, 10)
        await process.send_signal("INT")
        await process.stdin.send_eof()
        assert await stdout.read() == b""
        await process.wait()


@job
async def opening_a_connection(face: Face, client: Any, place: Place) -> None:
    async with client.open_tcp(HOST, place.site.late_port) as stream:
        await stream.write(b"four")
        await stream.send_eof()
        assert await stream.read() == b"4 bytes"


@job
async def opening_what_is_refused(face: Face, client: Any, place: Place) -> None:
    with pytest.raises(OpenRefused):
        async with client.open_tcp(HOST, place.site.closed_port):
            pass


@job
async def forwarding_from_here(face: Face, client: Any, place: Place) -> None:
    async with client.forward_local((HOST, 0), (HOST, 1)):
        pass


@job
async def forwarding_from_there(face: Face, client: Any, place: Place) -> None:
    async with client.forward_remote((HOST, 0), (HOST, 1)):
        pass


@job
async def forwarding_dynamically(face: Face, client: Any, place: Place) -> None:
    async with client.forward_dynamic(("localhost", 0)):
        pass


@job
async def jumping(face: Face, client: Any, place: Place) -> None:
    async with client.jump(HOST, place.second, **login()) as far:
        assert (await far.run("exit 3")).exit_status == 3


@job
async def exchanging_keys(face: Face, client: Any, place: Place) -> None:
    await client.rekey()


@job
async def several_at_once(face: Face, client: Any, place: Place) -> None:
    """While keys are being exchanged, too."""

    async def one() -> None:
        await client.run("cat", input=bytes(100_000))

    await face.gather(one, client.rekey, one, lambda: exchanging_keys(face, client, place))


@pytest.mark.parametrize("what", JOBS, ids=lambda what: what.__name__)
def test_what_is_cancelled_leaves_nothing(face: Face, served: Served, place: Place, what: Job) -> None:
    async def scenario(face: Face, client: Any) -> None:
        cancelled = 0
        for moment in MOMENTS:
            try:
                cancelled += await face.cancelled(moment, lambda: what(face, client, place))
                assert (await client.run("exit 5")).exit_status == 5
            except Exception as error:
                error.add_note(f"cancelled at {moment}")
                raise
        assert cancelled > 0
        await face.settled(client)

    face.visit(scenario, served.port)


@pytest.mark.parametrize("what", ["connect", "close"])
def test_a_connection_that_is_cancelled_is_gone(face: Face, served: Served, what: str) -> None:
    """While it is made, and while it is closed."""

    async def connecting(face: Face, host: str) -> None:
        async with face.connect(host, served.port, **login()):
            pass

    async def closing(face: Face, moment: Moment) -> None:
        async with face.connect(HOST, served.port, **login()) as client, client.start("cat"):
            await face.cancelled(moment, client.aclose)
            with pytest.raises(ConnectionLoss):
                await client.run("true")

    async def scenario(face: Face) -> None:
        for moment in (*MOMENTS[1:], Moment(seconds=0.02)):  # the first one is over before it has begun
            if what == "connect":
                for host in (HOST, "localhost"):
                    await face.cancelled(moment, lambda host=host: connecting(face, host))
            else:
                await closing(face, moment)

    face.play(scenario)


def test_time_is_up_at_every_wait(face: Face, served: Served, silent: int) -> None:
    async def scenario(face: Face, client: Any) -> None:
        async with waits(face, client, served.port, silent) as all_waits:
            writers = [all_waits.pop(name) for name in ("write", "write behind a write", "end behind a write")]
            all_waits["several that write"] = lambda: face.gather(*writers)
            for name, wait in all_waits.items():
                try:
                    with pytest.raises(TimeoutError):
                        await face.within(0.15, wait)
                    assert (await client.run("exit 5")).exit_status == 5
                except BaseException as error:
                    error.add_note(f"waiting for {name}")
                    raise
        # The server is still undecided on some, and has not confirmed their end.
        channels = client.hub.channels
        await face.until(lambda: all(channel.closed for channel in channels.values()), f"{channels} to be closed", 2.0)
        await client.aclose()

    face.visit(scenario, served.port)
