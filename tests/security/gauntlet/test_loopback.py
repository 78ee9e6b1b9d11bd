"""The gauntlet, over TCP: the proxies that were published with the Terrapin attack, between programs of this machine.

Ours to ours, ours to OpenSSH and asyncssh, OpenSSH to ours. The proxies are our own, after the paper's descriptions:
one slips a packet in before NEWKEYS and loses what comes first after it, the others slip in extensions and logins
(CVE-2023-48795, CVE-2023-46445, CVE-2023-46446).
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

import attrs
import pytest

from sshproto.wire import messages as m
from tests.support import ours, peers
from tests.support.peers import Key, Server
from tests.support.rogue import frame
from tests.support.seeds import HOST

CHACHA = "chacha20-poly1305@openssh.com"

ATTACKS: dict[str, tuple[tuple[m.Message, ...], tuple[m.Message, ...]]] = {
    "terrapin to the client": ((), (m.Ignore(b""),)),
    "terrapin to the server": ((m.Ignore(b""),), ()),
    "rogue extensions": ((), (m.ExtInfo((("server-sig-algs", b"ssh-rsa"),)),)),
    "rogue session": (
        (
            m.ServiceRequest("ssh-userauth"),
            m.UserauthRequest("attacker", "ssh-connection", "password", b"\0\0\0\0\x06secret"),
        ),
        (),
    ),
}
"""What is slipped in before NEWKEYS, on the way to the server and on the way to the client."""


PAIRINGS = {"ours-ours": "serving", "ours-openssh": "stock", "ours-asyncssh": "asyncssh", "openssh-ours": "serving"}
"""Client and server, and the fixture that has the server."""


class Stream:
    """One direction: packets in clear are seen, changed and passed on, what comes after them is just bytes.

    Args:
        slipped: What to slip in before NEWKEYS.
        lose: How many pieces of what comes after NEWKEYS are lost.
    """

    def __init__(self, slipped: tuple[m.Message, ...], *, lose: int) -> None:
        self._slipped = slipped
        self._lose = lose
        self._data = b""
        self._identified = False
        self._encrypted = False

    def pass_on(self, data: bytes) -> bytes:
        """What comes out for what went in."""
        self._data += data
        out = b""
        while self._data and not self._encrypted:
            if not self._identified:
                line, end, rest = self._data.partition(b"\n")
                size = len(line) + 1 if end else 0
                self._identified = line.startswith(b"SSH-") and bool(end)
            else:
                size = 4 + int.from_bytes(self._data[:4], "big") if len(self._data) >= 6 else 0
                if 0 < size <= len(self._data) and self._data[5] == m.NewKeys.number:
                    out += b"".join(frame(message.encode()) for message in self._slipped)
                    self._encrypted = True
            if not 0 < size <= len(self._data):
                return out
            out += self._data[:size]
            self._data = self._data[size:]
        rest, self._data = self._data, b""
        if rest and self._lose:
            self._lose -= 1
            return out
        return out + rest


@contextlib.contextmanager
def proxy(target: int, attack: str) -> Iterator[int]:
    """The attack on one connection to a port of this machine; the port to connect to instead."""
    to_server, to_client = ATTACKS[attack]
    stop, stopped = socket.socketpair()
    with socket.create_server((HOST, 0)) as listener, stop, stopped:

        def run() -> None:
            ready, _, _ = select.select([listener, stopped], [], [], 30)
            if listener not in ready:
                return
            with listener.accept()[0] as client, socket.create_connection((HOST, target)) as server:
                ways = {
                    client: (server, Stream(to_server, lose=len(to_server) > 0)),
                    server: (client, Stream(to_client, lose=len(to_client) > 0)),
                }
                while True:
                    ready, _, _ = select.select([client, server, stopped], [], [], 30)
                    if not ready or stopped in ready:
                        return
                    for source in ready:
                        sink, stream = ways[source]
                        data = source.recv(65536)
                        if not data:
                            return
                        sink.sendall(stream.pass_on(data))

        def guarded() -> None:
            with contextlib.suppress(OSError):
                run()

        thread = threading.Thread(target=guarded)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.sendall(b"x")
            thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with peers.scratch() as directory:
        yield peers.make_key(directory)


@pytest.fixture(scope="module")
def serving(key: Key) -> Iterator[Server]:
    with ours.serve(authorized_keys=[key.public]) as server:
        yield server


@pytest.fixture(scope="module")
def stock(key: Key) -> Iterator[Server]:
    with peers.sshd(authorized_keys=[key.public]) as server:
        yield server


@pytest.fixture(scope="module")
def asyncssh(key: Key) -> Iterator[Server]:
    with peers.asyncssh_server(authorized_keys=[key.public]) as server:
        yield server


def at(server: Server, port: int) -> Server:
    """The same server, somewhere else."""
    return attrs.evolve(server, port=port)


@pytest.mark.covers("V01", "V03", "V04")
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_published_proxies_end_the_connection(
    pairing: str, attack: str, key: Key, request: pytest.FixtureRequest
) -> None:
    """No command runs, and nobody is logged in; with the cipher that the attack is made for."""
    server: Server = request.getfixturevalue(PAIRINGS[pairing])
    with proxy(server.port, attack) as port:
        if pairing == "openssh-ours":
            ran = peers.ssh(at(server, port), "echo", "reached", key=key, options=[f"-oCiphers={CHACHA}"])
        else:
            ran = ours.execute(at(server, port), "echo", "reached", key=key, options=["--cipher", CHACHA])
    assert ran.returncode == 255
    assert ran.stdout == b""
    client, _, other = pairing.partition("-")
    if (client if ATTACKS[attack][1] else other) == "ours":  # who is attacked says why, and the other hears it
        assert b"during a strict first key exchange" in ran.stderr


@pytest.mark.covers("V01")
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_proxy_by_itself_does_no_harm(
    pairing: str, key: Key, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above fails for the reason that it gives."""
    monkeypatch.setitem(ATTACKS, "none", ((), ()))
    server: Server = request.getfixturevalue(PAIRINGS[pairing])
    with proxy(server.port, "none") as port:
        if pairing == "openssh-ours":
            ran = peers.ssh(at(server, port), "echo", "reached", key=key, options=[f"-oCiphers={CHACHA}"])
        else:
            ran = ours.execute(at(server, port), "echo", "reached", key=key, options=["--cipher", CHACHA])
    assert ran.stdout == b"reached\n", ran.stderr
