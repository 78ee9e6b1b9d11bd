"""What a client under any face does with a server under any face, or of any make. Each is written once.

``face`` is what differs between the worlds (:class:`tests.support.faces.Face`), ``client`` the face's client, ``place``
the server's words and what can be reached from it (:class:`tests.support.places.Place`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from sshproto.agent import Keyring
from sshproto.errors import (
    ChannelEnded,
    ChannelStateError,
    InvalidArgument,
    LimitReached,
    OpenRefused,
    RequestRefused,
)
from sshproto.operations.displays import BASE_PORT, MAGIC_COOKIE, Cookie, Display
from sshproto.operations.x11 import X11Forwarding
from sshproto.operations.x11_setup import read_setup
from sshproto.requests import PtyRequest
from sshproto_io import CommandFailed, ConnectFailed, TimeoutExpired
from tests.support.faces import PATIENCE, Face, Moment, commands, login
from tests.support.pattern import PIECE, digest, pattern, pieces
from tests.support.places import Place, browse, dial, half_close, socks4, socks5
from tests.support.seeds import HOST, USER_CERTIFICATE, USER_KEY

Scenario = Callable[[Face, Any, Place], Awaitable[None]]

MEBIBYTE = 1024 * 1024
HERE = (HOST, 0)

OURS: list[Scenario] = []
"""For the suite's own servers."""
STOCK: list[Scenario] = []
"""For other people's servers."""


def everywhere(scenario: Scenario) -> Scenario:
    return stock(ours(scenario))


def ours(scenario: Scenario) -> Scenario:
    OURS.append(scenario)
    return scenario


def stock(scenario: Scenario) -> Scenario:
    STOCK.append(scenario)
    return scenario


# ------------------------------------------------------------------------------------------------------------- commands


@everywhere
async def a_command_gets_its_input_and_gives_its_output(face: Face, client: Any, place: Place) -> None:
    for data in (b"", b"hello", pattern(3 * MEBIBYTE + 1)):
        completed = await client.run(place.say("cat"), input=data)
        assert completed.stdout == data
        assert (completed.stderr, completed.exit_status, completed.exit_signal) == (b"", 0, None)
    completed = await client.run(place.say("echo", "gr\u00fc\u00df").encode())
    assert completed.stdout.decode() == "gr\u00fc\u00df\n"


@everywhere
async def a_status_tells_how_it_ended(face: Face, client: Any, place: Place) -> None:
    for status in (0, 1, 255):
        assert (await client.run(place.say("exit", status))).exit_status == status
    with pytest.raises(CommandFailed, match="status 7") as caught:
        await client.run(place.say("exit", 7), check=True)
    assert caught.value.completed.exit_status == 7
    assert (await client.run(place.say("true"), check=True)).exit_status == 0


@everywhere
async def standard_error_comes_apart(face: Face, client: Any, place: Place) -> None:
    completed = await client.run(place.say("stderr", "oh dear"))
    assert (completed.stdout, completed.stderr, completed.exit_status) == (b"out\n", b"oh dear\n", 3)
    async with client.start(place.say("stderr", "again")) as process:
        assert await process.stderr.read() == b"again\n"
        assert await process.stdout.read() == b"out\n"
        assert await process.wait() == 3


@everywhere
async def a_signal_tells_how_it_ended(face: Face, client: Any, place: Place) -> None:
    completed = await client.run(place.say("signal", "TERM"))
    assert completed.stdout == b"before\n"
    assert completed.exit_status is None
    assert completed.exit_signal is not None
    assert completed.exit_signal.name == "TERM"
    with pytest.raises(CommandFailed, match="signal KILL"):
        await client.run(place.say("signal", "KILL"), check=True)


@everywhere
async def a_terminal_is_had_when_asked_for(face: Face, client: Any, place: Place) -> None:
    assert (await client.run(place.say("pty"))).stdout == b"none\n"
    completed = await client.run(place.say("pty"), pty=PtyRequest("vt100", 132, 50))
    assert completed.stdout.split() in ([b"vt100", b"132", b"50"], [b"vt100", b"50", b"132"])


@ours
async def variables_arrive(face: Face, client: Any, place: Place) -> None:
    completed = await client.run("env", env={"LANG": "C.UTF-8", "LC_NAME": b"\xff\xfe", "EMPTY": ""})
    assert completed.stdout == b"EMPTY=\nLANG=C.UTF-8\nLC_NAME=\xff\xfe\n"


@ours
async def what_is_refused_is_said_and_the_connection_goes_on(face: Face, client: Any, place: Place) -> None:
    with pytest.raises(RequestRefused):
        await client.run("refused")
    with pytest.raises(RequestRefused):
        async with client.subsystem("no such"):
            pass
    with pytest.raises(OpenRefused):
        async with client.open_tcp("refused.example", 1):
            pass
    with pytest.raises(RequestRefused):
        async with client.forward_remote(("refused.example", 0), HERE):
            pass
    assert (await client.run("exit 4")).exit_status == 4


@ours
async def a_bug_of_the_handler_is_a_status_of_255(face: Face, client: Any, place: Place) -> None:
    assert (await client.run("bug")).exit_status == 255
    assert (await client.run("exit 2")).exit_status == 2


@ours
async def a_shell_and_a_subsystem(face: Face, client: Any, place: Place) -> None:
    async with client.shell(pty=PtyRequest("xterm", 80, 24)) as process:
        for word in (b"one\n", b"two\n"):
            await process.stdin.write(word)
            assert await process.stdout.read_line() == b"you said: " + word
        await process.stdin.write(b"exit 9\n")
        assert await process.wait() == 9
    async with client.subsystem("echo") as process:
        await process.stdin.write(b"packet")
        assert await process.stdout.read_exactly(6) == b"packet"
        await process.stdin.send_eof()
        assert await process.stdout.read() == b""
        assert await process.wait() == 0


@ours
async def a_handler_uses_the_streams_of_its_own_face(face: Face, client: Any, place: Place) -> None:
    data = b"".join(b"line %d\n" % number for number in range(300))
    completed = await client.run("native", input=data)
    assert completed.stdout == data.upper()
    assert (completed.stderr, completed.exit_status) == (b"300 lines", 5)


@everywhere
async def a_command_that_takes_too_long_is_given_up(face: Face, client: Any, place: Place) -> None:
    with pytest.raises(TimeoutExpired) as caught:
        await client.run(place.say("hang"), timeout=0.05)
    assert caught.value.seconds == 0.05
    assert (await client.run(place.say("exit", 6), timeout=10)).exit_status == 6


# -------------------------------------------------------------------------------------------------------------- streams


@everywhere
async def lines_come_one_by_one(face: Face, client: Any, place: Place) -> None:
    async with client.start(place.say("numbers", 2000)) as process:
        lines = [line async for line in process.stdout.lines()]
        assert lines == [b"%d\n" % number for number in range(1, 2001)]
        assert await process.wait() == 0


@everywhere
async def a_stream_is_read_as_one_likes(face: Face, client: Any, place: Place) -> None:
    async with client.start(place.say("cat")) as process:
        await process.stdin.write(b"one two\nthree\nfour five")
        assert await process.stdout.read_exactly(5) == b"one t"
        assert await process.stdout.read_line() == b"wo\n"
        assert await process.stdout.read_line() == b"three\n"
        assert await process.stdout.read(2) == b"fo"
        await process.stdin.send_eof()
        assert await process.stdout.read_exactly(3) == b"ur "
        assert await process.stdout.read_exactly(10) == b"five"
        assert await process.stdout.read_line() == b""
        assert await process.stdout.read(100) == b""
        assert await process.stdout.read() == b""
        assert await process.stderr.read() == b""
        assert await process.wait() == 0
        assert (process.exit_status, process.exit_signal) == (0, None)


@everywhere
async def a_stream_is_read_up_to_what_one_likes(face: Face, client: Any, place: Place) -> None:
    line = b"x" * (3 * MEBIBYTE) + b"\n"  # more than a window
    async with client.start(place.say("cat")) as process:
        stdout = face.plain(client, process.stdout)
        await process.stdin.write(b"one two\nthree\r\nfour;five,")
        assert await stdout.read_until(b" ") == b"one "
        assert await stdout.read_until(b"\r\n") == b"two\nthree\r\n"
        with pytest.raises(LimitReached):
            await stdout.read_until(b";", limit=3)
        assert await stdout.read_until(b";", limit=5) == b"four;"
        assert await stdout.read_until(b",", limit=1000) == b"five,"
        await face.gather(
            lambda: process.stdin.write(line + b"rest"),
            lambda: _expect(stdout.read_until(b"\n", limit=4 * MEBIBYTE), line),
        )
        await process.stdin.send_eof()
        assert await stdout.read_until(b"\n") == b"rest"
        assert await stdout.read_until(b"\n") == b""


async def _expect(awaitable: Awaitable[bytes], data: bytes) -> None:
    assert await awaitable == data


@everywhere
async def both_directions_at_once(face: Face, client: Any, place: Place) -> None:
    size = 4 * MEBIBYTE
    async with client.start(place.say("cat")) as process:

        async def send() -> None:
            for piece in pieces(size):
                await process.stdin.write(piece)
            await process.stdin.send_eof()

        _, data = await face.gather(send, process.stdout.read)
        assert hashlib.sha256(data).hexdigest() == digest(size)
        assert await process.wait() == 0


@everywhere
async def writers_take_turns(face: Face, client: Any, place: Place) -> None:
    """What one writes is in one piece."""
    size = 300_000
    async with client.start(place.say("cat")) as process:

        async def write(number: int) -> None:
            await process.stdin.write(bytes((number,)) * size)

        async def take() -> bytes:
            return bytes(await process.stdout.read_exactly(8 * size))

        data, *_ = await face.gather(take, *commands(8, write))
        runs = [data[start : start + size] for start in range(0, len(data), size)]
        assert sorted(runs) == [bytes((number,)) * size for number in range(8)]


# ----------------------------------------------------------------------------------------------------- ends and notices


@everywhere
async def output_comes_after_the_input_has_ended(face: Face, client: Any, place: Place) -> None:
    size = 700_000
    async with client.start(place.say("late", size)) as process:
        await process.stdin.write(b"abc")
        await process.stdin.send_eof()
        await process.stdin.send_eof()  # repeated calls do nothing
        with pytest.raises((ChannelStateError, ValueError)):  # the latter from a file that is closed
            await process.stdin.write(b"more")
        assert await process.stdout.read_line() == b"3\n"
        assert hashlib.sha256(await process.stdout.read()).hexdigest() == digest(size)
        assert await process.wait() == 0


@everywhere
async def input_goes_on_after_the_output_has_ended(face: Face, client: Any, place: Place) -> None:
    async with client.start(place.say("early")) as process:
        assert await process.stdout.read() == b"early\n"
        for _ in range(10):
            await process.stdin.write(bytes(10_001))
        await process.stdin.send_eof()
        assert await process.wait() == 100_010 % 200


@everywhere
async def a_command_need_not_read_its_input(face: Face, client: Any, place: Place) -> None:
    completed = await client.run(place.say("deaf"), input=bytes(5 * MEBIBYTE))
    assert (completed.stdout, completed.exit_status) == (b"deaf\n", 4)
    async with client.start(place.say("deaf")) as process:
        assert await process.wait() == 4
        with pytest.raises(ChannelEnded):
            for _ in range(1000):
                await process.stdin.write(bytes(PIECE))
    assert (await client.run(place.say("true"))).exit_status == 0


@ours
async def signals_and_sizes_arrive_in_order(face: Face, client: Any, place: Place) -> None:
    async with client.start("notices", pty=PtyRequest("xterm", 80, 24)) as process:
        assert await process.stdout.read_line() == b"ready\n"
        for name in ("INT", "USR1", "HUP"):
            await process.send_signal(name)
            assert await process.stdout.read_line() == b"signal %s\n" % name.encode()
        for columns, rows in ((100, 40), (1, 1)):
            await process.resize(columns, rows)
            assert await process.stdout.read_line() == b"size %d %d\n" % (columns, rows)
        await process.send_signal("TERM")
        assert await process.wait() is None
        assert process.exit_signal.name == "TERM"
        with pytest.raises(ChannelEnded):
            for _ in range(100):
                await process.send_signal("INT")
                await face.sleep(0.01)


@everywhere
async def leaving_a_process_hangs_up_on_it(face: Face, client: Any, place: Place) -> None:
    for job in ("hang", "cat", "flood", "sleep 30"):
        async with client.start(place.say(*job.split())) as process:
            if job in {"hang", "flood"}:
                assert await process.stdout.read_exactly(7)
        with pytest.raises(ChannelEnded):
            await process.stdin.write(b"x")
    with pytest.raises(ZeroDivisionError):
        async with client.start(place.say("cat")):
            raise ZeroDivisionError
    assert (await client.run(place.say("true"))).exit_status == 0


# ----------------------------------------------------------------------------------------------------------------- many


@everywhere
async def commands_run_side_by_side(face: Face, client: Any, place: Place) -> None:
    async def one(number: int) -> None:
        data = str(number).encode() * 1000 * number
        completed = await client.run(place.say("cat"), input=data)
        assert completed.stdout == data

    # No more than a stock server has sessions for.
    await face.gather(*commands(10, one))


@ours
async def five_hundred_channels_at_once(face: Face, client: Any, place: Place) -> None:
    processes: list[Any] = []
    async with contextlib.AsyncExitStack() as stack:

        async def begin(number: int) -> None:
            processes.extend([await stack.enter_async_context(client.start("cat")) for _ in range(50)])

        await face.gather(*commands(10, begin))
        assert len(client.hub.channels) == 500

        async def speak(number: int) -> None:
            for process in processes[number::10]:
                await process.stdin.write(b"%d" % process.channel.number * 1000)

        async def listen(number: int) -> None:
            for process in processes[number::10]:
                expected = b"%d" % process.channel.number * 1000
                assert await process.stdout.read_exactly(len(expected)) == expected

        await face.gather(*commands(10, speak), *commands(10, listen))

        async def end(number: int) -> None:
            for process in processes[number::10]:
                await process.stdin.send_eof()
                assert await process.stdout.read() == b""
                assert await process.wait() == 0

        await face.gather(*commands(10, end))


@stock
async def five_hundred_connections_at_once(face: Face, client: Any, place: Place) -> None:
    """Not sessions, which would be as many processes there."""
    streams: list[Any] = []
    async with contextlib.AsyncExitStack() as stack:

        async def begin(number: int) -> None:
            target = HOST, place.site.late_port
            streams.extend([await stack.enter_async_context(client.open_tcp(*target)) for _ in range(50)])

        await face.gather(*commands(10, begin))
        assert len(client.hub.channels) == 500

        async def speak(number: int) -> None:
            for stream in streams[number::10]:
                await stream.write(bytes(stream.channel.number))
                await stream.send_eof()

        async def listen(number: int) -> None:
            for stream in streams[number::10]:
                assert await stream.read() == b"%d bytes" % stream.channel.number

        await face.gather(*commands(10, speak), *commands(10, listen))


# --------------------------------------------------------------------------------------------------------- backpressure


@everywhere
async def a_reader_that_does_not_read_holds_up_nobody_else(face: Face, client: Any, place: Place) -> None:
    size = 8 * MEBIBYTE
    async with client.start(place.say("produce", size)) as process:
        inbox = process.channel.inbox(0)
        window = client.conn._engine.config.limits.window
        for _ in range(5):
            assert (await client.run(place.say("cat"), input=b"meanwhile")).stdout == b"meanwhile"
            assert inbox.size <= window
        await face.until(lambda: inbox.size or face.name == "blocking", "something to read")
        hasher = hashlib.sha256()
        for _ in range(200):  # slowly at first
            hasher.update(await process.stdout.read(1000))
            assert inbox.size <= window
        while data := await process.stdout.read(PIECE):
            hasher.update(data)
        assert hasher.hexdigest() == digest(size)


@everywhere
async def a_writer_waits_for_who_does_not_read(face: Face, client: Any, place: Place) -> None:
    size = 8 * MEBIBYTE
    stall, begin = place.stall()
    async with client.start(stall) as process:
        written = 0

        async def write() -> None:
            nonlocal written
            for piece in pieces(size):
                await process.stdin.write(piece)
                written += len(piece)
            await process.stdin.send_eof()

        async def watch() -> None:
            for _ in range(5):
                assert (await client.run(place.say("cat"), input=b"meanwhile")).stdout == b"meanwhile"
            await face.sleep(0.1)
            assert written < 5 * MEBIBYTE  # a window, and what sockets and pipes hold
            await begin(process)

        await face.gather(write, watch)
        assert (await process.stdout.read()).decode().strip() == digest(size)


@ours
async def a_slow_server_slows_the_client(face: Face, client: Any, place: Place) -> None:
    size = 3 * MEBIBYTE
    completed = await client.run("slow 100000 0.002", input=pattern(size))
    assert completed.stdout == b"%d\n" % size


# ----------------------------------------------------------------------------------------------------------- forwarding


@everywhere
async def a_connection_made_by_the_server(face: Face, client: Any, place: Place) -> None:
    for opening in (
        lambda: client.open_tcp(HOST, place.site.late_port),
        lambda: client.open_tcp("localhost", place.site.late_port),
        lambda: client.open_unix(place.site.late_path),
    ):
        async with opening() as stream:
            await stream.write(bytes(100_000))
            await stream.send_eof()
            assert await stream.read() == b"100000 bytes"


@ours
async def a_connection_served_by_the_handler(face: Face, client: Any, place: Place) -> None:
    async with client.open_tcp("served.example", 80) as stream:
        await stream.write(b"to nowhere")
        assert await stream.read_exactly(10) == b"to nowhere"
        await stream.send_eof()
        assert await stream.read() == b""


@everywhere
async def what_cannot_be_reached_is_refused(face: Face, client: Any, place: Place) -> None:
    with pytest.raises(OpenRefused) as caught:
        async with client.open_tcp(HOST, place.site.closed_port):
            pass
    assert caught.value.reason == 2
    with pytest.raises(OpenRefused):
        async with client.open_unix(place.path()):
            pass
    await client.run(place.say("true"))


def _listen_here(place: Place, kind: str) -> tuple[str, int] | str:
    return HERE if kind == "tcp" else place.path()


async def _forward(face: Face, client: Any, place: Place, direction: str, listen: str, target: str) -> None:
    forward = getattr(client, f"forward_{direction}")
    async with forward(_listen_here(place, listen), place.site.target(target)) as tunnel:
        assert (tunnel.port > 0) == (listen == "tcp")
        for size in (0, 1, 1_500_000):
            await face.aside(lambda size=size: browse(dial(tunnel.address), size))
        await face.gather(*commands(4, lambda _: face.aside(lambda: browse(dial(tunnel.address), 100_000))))
    async with forward(_listen_here(place, listen), place.site.late(target)) as tunnel:
        await face.aside(lambda: half_close(dial(tunnel.address), 600_000))


for _direction in ("local", "remote"):
    for _listen in ("tcp", "unix"):
        for _target in ("tcp", "unix"):
            _scenario: Any = partial(_forward, direction=_direction, listen=_listen, target=_target)
            _scenario.__name__ = f"{_direction}_forwarding_from_{_listen}_to_{_target}"
            everywhere(_scenario)


@everywhere
async def dynamic_forwarding_by_socks(face: Face, client: Any, place: Place) -> None:
    async with client.forward_dynamic(HERE) as proxy:
        address = proxy.address
        for connect in (
            lambda port: socks5(address, HOST, port),
            lambda port: socks5(address, "localhost", port, name=True),
            lambda port: socks4(address, HOST, port),
            lambda port: socks4(address, "localhost", port, name=True),
        ):
            await face.aside(lambda: browse(connect(place.site.port), 300_000))  # noqa: B023  it is called at once
            await face.aside(lambda: half_close(connect(place.site.late_port), 100_000))  # noqa: B023
            with pytest.raises(ConnectionRefusedError):
                await face.aside(connect, place.site.closed_port)
    path = place.path()
    async with client.forward_dynamic(path):
        await face.aside(lambda: browse(socks5(path, HOST, place.site.port), 1000))  # type: ignore[arg-type]


@everywhere
async def a_forward_that_is_closed_listens_no_more(face: Face, client: Any, place: Place) -> None:
    for direction in ("local", "remote"):
        for kind in ("tcp", "unix"):
            forward = getattr(client, f"forward_{direction}")
            with contextlib.ExitStack() as stack:
                async with forward(_listen_here(place, kind), place.site.late("tcp")) as tunnel:
                    before = stack.enter_context(await face.aside(dial, tunnel.address))
                    await face.aside(before.sendall, b"1234")
                    await face.until(lambda: client.hub.channels, "the connection to be taken up")
                await _refused(face, tunnel.address)
                await face.aside(before.sendall, b"5678")
                await face.aside(half_close, before, 0, 8)
                await face.until(lambda: not client.hub.channels, "the connection to end")


async def _refused(face: Face, address: Any) -> None:
    for _ in range(200):
        try:
            sock = await face.aside(dial, address)
        except OSError:
            return
        sock.close()
        await face.sleep(0.01)
    raise AssertionError(f"{address} still listens")


@everywhere
async def a_forward_to_nowhere_closes_what_comes(face: Face, client: Any, place: Place) -> None:
    for direction in ("local", "remote"):
        async with getattr(client, f"forward_{direction}")(HERE, (HOST, place.site.closed_port)) as tunnel:
            for _ in range(3):
                assert await face.aside(_first_byte, tunnel.address) == b""
        await client.run(place.say("true"))


def _first_byte(address: Any) -> bytes:
    with dial(address) as sock:
        try:
            return sock.recv(1)
        except ConnectionResetError:
            return b""


@ours
async def an_agent_for_programs_at_the_server(face: Face, client: Any, place: Place) -> None:
    keyring = Keyring()
    keyring.add(USER_KEY, comment="mine", now=0.0)
    for _ in range(2):
        completed = await client.run("agent", agent=keyring)
        assert (completed.stdout, completed.exit_status) == (b"mine\n", 0)
    async with client.start("agent", agent=keyring) as process:
        assert await process.stdout.read() == b"mine\n"
        assert await process.wait() == 0
    assert not client.hub.offers
    with pytest.raises(InvalidArgument):
        await client.run("agent", agent=7)
    assert (await client.run("agent")).exit_status == 1  # it has none


@ours
async def a_display_for_programs_at_the_server(face: Face, client: Any, place: Place) -> None:
    true = Cookie(MAGIC_COOKIE, b"the true cookie!")
    with socket.create_server((HOST, 0)) as listener:
        number = listener.getsockname()[1] - BASE_PORT
        x11 = X11Forwarding(display=Display(HOST, number), cookie=true, entropy=os.urandom)

        def show() -> None:
            for _ in range(3):
                with listener.accept()[0] as program:
                    program.settimeout(PATIENCE)
                    setup = None
                    data = b""
                    while setup is None:
                        data += program.recv(100)
                        setup = read_setup(data)
                    program.sendall(b"shown " if setup.shows(true) else b"what is that? ")

        completed, _ = await face.gather(lambda: client.run("x11 3", x11=x11), lambda: face.aside(show))
    assert (completed.stdout, completed.exit_status) == (b"shown " * 3, 0)
    assert not client.hub.offers


# -------------------------------------------------------------------------------------------------------------- permits


@ours
async def a_login_that_may_do_little(face: Face, client: Any, place: Place) -> None:
    async with face.connect(HOST, place.port, **login(keys=[(USER_KEY, USER_CERTIFICATE)])) as guest:
        done = await guest.run("exit 9", env={"FROM": "the client", "SSH_ORIGINAL_COMMAND": "x", "LC_A": "b"})
        provided = {"FROM": "a line", "SSH_ORIGINAL_COMMAND": "exit 9"}
        assert json.loads(done.stdout) == {"forced": "permitted", "provided": provided, "env": ["LC_A"]}
        with pytest.raises(RequestRefused):
            await guest.run("cat", pty=PtyRequest("vt100"))
        async with guest.open_tcp("served.example", 1) as stream:
            await stream.write(b"here")
            assert await stream.read_exactly(4) == b"here"
        for target in ((HOST, place.site.port), ("served.examples", 1)):
            with pytest.raises(OpenRefused):
                async with guest.open_tcp(*target):
                    pass
        with pytest.raises(RequestRefused):
            async with guest.forward_remote(HERE, (HOST, place.site.port)):
                pass
        async with guest.forward_remote(("localhost", 0), (HOST, place.site.port)):
            pass


# ---------------------------------------------------------------------------------------------------------------- jumps


@everywhere
async def a_jump_over_two_hosts(face: Face, client: Any, place: Place) -> None:
    size = MEBIBYTE
    async with client.jump(HOST, place.second, **login()) as middle:
        async with middle.jump("localhost", place.port, **login(**place.login)) as far:
            assert (await far.run(place.say("exit", 3))).exit_status == 3
            assert (await far.run(place.say("cat"), input=pattern(size))).stdout == pattern(size)
            await face.gather(*commands(5, lambda number: far.run(place.say("echo", number), check=True)))
            with pytest.raises((OpenRefused, ConnectFailed)):
                async with far.jump(HOST, place.site.closed_port, **login()):
                    pass
            assert (await middle.run("exit 4")).exit_status == 4
        assert (await middle.run("exit 5")).exit_status == 5
    assert (await client.run(place.say("exit", 6))).exit_status == 6


# ---------------------------------------------------------------------------------------------------------------- rekey


@everywhere
async def keys_are_exchanged_when_asked_for(face: Face, client: Any, place: Place) -> None:
    for _ in range(3):
        await client.rekey()
        assert (await client.run(place.say("echo", "on"))).stdout == b"on\n"
    async with client.start(place.say("cat")) as process:
        await process.stdin.write(b"across")
        await client.rekey()
        await process.stdin.send_eof()
        assert await process.stdout.read() == b"across"


# ----------------------------------------------------------------------------------------------------------- cancelling


@everywhere
async def giving_up_on_a_read_loses_nothing(face: Face, client: Any, place: Place) -> None:
    async with client.start(place.say("cat")) as process:
        stdout = face.plain(client, process.stdout)
        for read in (lambda: stdout.read_exactly(100), lambda: stdout.read_until(b"\n"), stdout.read):
            await process.stdin.write(b"some")
            assert await face.cancelled(Moment(seconds=0.03), read)
            assert await stdout.read_exactly(4) == b"some"
        assert await face.cancelled(Moment(seconds=0.03), lambda: stdout.read(100))
        await process.stdin.write(b"more")
        assert await stdout.read(100) == b"more"


@everywhere
async def time_is_up_as_this_world_says_it(face: Face, client: Any, place: Place) -> None:
    async with client.start(place.say("hang")) as process:
        assert await process.stdout.read_exactly(7) == b"hanging"
        stdout, stderr = (face.plain(client, stream) for stream in (process.stdout, process.stderr))
        for wait in (
            lambda: stdout.read(1),
            stdout.read,
            stdout.read_line,
            lambda: stdout.read_exactly(1),
            lambda: stderr.read(1),
            process.wait,
            lambda: process.stdin.write(bytes(8 * MEBIBYTE)),
            lambda: client.run(place.say("hang")),
        ):
            with pytest.raises(TimeoutError):
                await face.within(0.02, wait)
    assert (await client.run(place.say("true"))).exit_status == 0
