"""X programs show their windows through us: our client with sshd, ssh with our server, and ours with ours.

The X server has no screen, and lets in only who has its cookie.  A window that is listed there has come the whole way,
and its cookie was replaced on it: the server is told another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshproto.operations.displays import read_authorities
from sshproto_cli.options import FACES
from tests.support import ours, peers, screens
from tests.support.peers import HOST, Key, Server
from tests.support.screens import Screen

pytestmark = [pytest.mark.covers("R101", "R102"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def screen() -> Iterator[Screen]:
    with peers.scratch() as directory, screens.screen(directory) as found:
        yield found


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with peers.scratch() as directory:
        yield peers.make_key(directory)


@pytest.fixture(scope="module")
def sshd(key: Key) -> Iterator[Server]:
    """Its xauth and its programs use a file of the test's in the place of the user's."""
    with peers.scratch() as directory:
        lines = [
            f"SetEnv SHLVL=1 XAUTHORITY={directory}/xauthority",
            "X11Forwarding yes",
            "X11UseLocalhost yes",
            f"XAuthLocation {peers.need('xauth')}",
        ]
        with peers.sshd(lines, authorized_keys=[key.public]) as server:
            yield server


@pytest.fixture(scope="module", params=FACES)
def served(request: pytest.FixtureRequest, key: Key) -> Iterator[Server]:
    with ours.serve(["--x11", "--io", request.param], authorized_keys=[key.public]) as server:
        yield server


@pytest.fixture(scope="module")
def any_served(key: Key) -> Iterator[Server]:
    with ours.serve(["--x11"], authorized_keys=[key.public]) as server:
        yield server


@pytest.fixture
def home() -> Iterator[Path]:
    with peers.scratch() as directory:
        yield directory


def by_ssh(server: Server, home: Path, key: Key, *options: str) -> list[str]:
    return [peers.need("ssh"), *options, *peers.ssh_options(server, home, key), "-oBatchMode=yes", HOST, "--"]


def by_us(server: Server, home: Path, key: Key, *options: str) -> list[str]:
    (home / "known_hosts").write_text(server.known_hosts)
    where = ["-p", str(server.port), "-l", server.user, "--known-hosts", str(home / "known_hosts")]
    return [*ours.PROGRAM, "exec", *where, "-i", str(key.path), *options, HOST]


Client = Callable[..., list[str]]


def environment(home: Path, screen: Screen) -> dict[str, str]:
    return ours._environment(home, **screen.variables)


@contextlib.contextmanager
def running(argv: list[str], home: Path, screen: Screen) -> Iterator[subprocess.Popen[bytes]]:
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(home, screen),
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(peers.SECONDS)


def run(argv: list[str], home: Path, screen: Screen) -> peers.Ran:
    return peers.run(argv, environment(home, screen))


def show(argv: list[str], home: Path, screen: Screen) -> None:
    """A clock is shown, and goes with its connection."""
    title = f"clock of {home.name}"
    with running([*argv, "exec", "xclock", "-title", f"'{title}'"], home, screen) as process:
        screen.until_shown(title, process)
    screen.until_gone(title)


def test_a_clock_from_sshd(sshd: Server, home: Path, key: Key, screen: Screen) -> None:
    show(by_us(sshd, home, key, "-Y"), home, screen)


def test_a_clock_from_our_server(served: Server, home: Path, key: Key, screen: Screen) -> None:
    show(by_ssh(served, home, key, "-Y"), home, screen)


@pytest.mark.parametrize("io", FACES)
def test_a_clock_from_ours_to_ours(any_served: Server, home: Path, key: Key, screen: Screen, io: str) -> None:
    show(by_us(any_served, home, key, "-Y", "--io", io), home, screen)


@pytest.mark.parametrize("client", [by_ssh, by_us], ids=["ssh", "sshproto"])
def test_what_is_not_trusted_gets_a_cookie_of_its_own(
    client: Client, any_served: Server, home: Path, key: Key, screen: Screen
) -> None:
    """By the X server's Security extension: it may show windows, and is not told of all that there is."""
    stock = ["-oForwardX11Trusted=no"] if client is by_ssh else []  # Debian's ssh trusts whom it should not
    argv = client(any_served, home, key, "-X", *stock)
    show(argv, home, screen)
    ran = run([*argv, "xdpyinfo -queryExtensions"], home, screen)
    assert b"dimensions:" in ran.stdout, ran.stderr
    assert b"SECURITY" not in ran.stdout
    assert b"XTEST" not in ran.stdout
    trusted = run([*client(any_served, home, key, "-Y"), "xdpyinfo -queryExtensions"], home, screen)
    assert b"XTEST" in trusted.stdout


@pytest.mark.parametrize("client", [by_ssh, by_us], ids=["ssh", "sshproto"])
def test_what_a_program_finds_is_of_this_session_alone(
    client: Client, any_served: Server, home: Path, key: Key, screen: Screen
) -> None:
    said = run(
        [*client(any_served, home, key, "-Y"), 'echo "$DISPLAY"; echo "$XAUTHORITY"; cat "$XAUTHORITY"'], home, screen
    )
    name, path, content = said.stdout.split(b"\n", 2)
    host, number = name.split(b":")
    assert host == b"localhost"
    assert int(number.split(b".")[0]) >= 10
    entries = read_authorities(content)
    assert {entry.number for entry in entries} == {number.split(b".")[0]}
    assert screen.cookie not in {entry.data.hex() for entry in entries}
    assert len({entry.data for entry in entries}) == 1
    assert not Path(os.fsdecode(path)).parent.exists()
    listed = run([*client(any_served, home, key, "-Y"), "xauth list $DISPLAY"], home, screen)
    assert b"MIT-MAGIC-COOKIE-1" in listed.stdout, listed.stderr


@pytest.mark.covers("V75")
@pytest.mark.parametrize("where", ["sshd", "ours"])
def test_who_has_no_cookie_is_turned_away(
    where: str, sshd: Server, any_served: Server, home: Path, key: Key, screen: Screen
) -> None:
    argv = by_us(sshd if where == "sshd" else any_served, home, key, "-Y")
    ran = run([*argv, "xdpyinfo >/dev/null && XAUTHORITY=/dev/null xdpyinfo"], home, screen)
    assert ran.returncode != 0
    assert b"unable to open display" in ran.stderr
    assert b"a connection to the display was refused: it has no cookie" in ran.stderr
    assert screen.cookie.encode() not in ran.stderr + ran.stdout


def test_who_does_not_ask_or_must_not_has_no_display(
    sshd: Server, any_served: Server, home: Path, key: Key, screen: Screen
) -> None:
    for server in (sshd, any_served):
        for options in ((), ("-x",)):
            ran = run([*by_us(server, home, key, *options), "echo ${DISPLAY-none}"], home, screen)
            assert (ran.stdout, ran.stderr) == (b"none\n", b"")
    with ours.serve(authorized_keys=[key.public]) as server:
        ran = run([*by_us(server, home, key, "-Y"), "echo ${DISPLAY-none}"], home, screen)
        assert ran.stdout == b"none\n"
        assert ran.stderr == b"sshproto: the server refuses to forward X11\n"
        ran = run([*by_ssh(server, home, key, "-Y"), "echo ${DISPLAY-none}"], home, screen)
        assert ran.stdout == b"none\n"
        assert b"X11 forwarding request failed" in ran.stderr


def test_a_display_that_is_not_there_is_said_to_be_unreachable(
    any_served: Server, home: Path, key: Key, screen: Screen
) -> None:
    argv = by_us(any_served, home, key, "-Y")
    gone = ours._environment(home, DISPLAY=":54321", XAUTHORITY=str(screen.authority))
    ran = peers.run([*argv, "xdpyinfo"], gone)
    assert ran.returncode == 1
    assert b"cannot connect to display :54321.0" in ran.stderr
    ran = peers.run([*argv, "echo ${DISPLAY-none}"], ours._environment(home))
    assert ran.stdout == b"none\n"
    assert ran.stderr == b"sshproto: X11 forwarding: there is no display to forward: DISPLAY is not set\n"


def test_a_display_goes_on_through_two_servers(
    sshd: Server, any_served: Server, home: Path, key: Key, screen: Screen
) -> None:
    """From the second one to the first, which has it from here."""
    first = by_us(any_served, home, key, "-Y")
    inner = home / "inner"
    inner.mkdir()
    second = " ".join(by_ssh(sshd, inner, key, "-Y"))
    ran = run([*first, f"{second} 'echo $DISPLAY; xdpyinfo' | head -n 3"], home, screen)
    lines = ran.stdout.decode().splitlines()
    assert lines[0].startswith("localhost:"), ran.stderr
    assert lines[1].startswith("name of display:"), ran.stderr


def test_others_forward_displays_to_our_server(any_served: Server, key: Key, screen: Screen) -> None:
    ran = peers.plink(any_served, "xdpyinfo", key=key, options=["-X"], variables=screen.variables)
    assert b"name of display:    localhost:1" in ran.stdout, ran.stderr
    asyncssh = peers.need_module("asyncssh")
    display = {"x11_forwarding": True, "x11_display": screen.name, "x11_auth_path": str(screen.authority)}

    async def main() -> bytes:
        async with asyncssh.connect(**peers.asyncssh_options(any_served, key=key)) as connection:
            done = await connection.run("xdpyinfo", encoding=None, stdin=asyncssh.DEVNULL, **display)
            return bytes(done.stdout)

    assert b"name of display:    localhost:1" in asyncio.run(asyncio.wait_for(main(), peers.SECONDS))
