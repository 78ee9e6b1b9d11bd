"""Stock OpenSSH on both ends, watched while it runs and without keys: through a relay, and by tcpdump."""

from __future__ import annotations

import asyncio
import contextlib
import io
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto import events as ev
from sshproto.config import ClientConfig
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.replay.analysis import Analysis, Conversation
from sshproto.replay.events import (
    KexSeen,
    KeysMissing,
    Observed,
    OfferSeen,
    PacketOpened,
    PacketSealed,
    RolesSeen,
    Side,
)
from sshproto.replay.secrets import Secrets
from sshproto.replay.summary import Summary
from sshproto_io import blocking
from tests.replay.sessions import told, troubles
from tests.support import ours, peers
from tests.support.peers import HOST, Key, Server
from tests.support.sniffing import tcpdump_to_a_pipe
from tests.unit.test_docs_examples import blocks

HASSH = "472b5de333ad665af5cbf10ff892c4df"
"""Of OpenSSH 9.2p1's client with its own settings, as other programs compute it."""

EXACT = [("aes128-gcm@openssh.com", "hmac-sha2-256"), ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
         ("aes128-ctr", "umac-64-etm@openssh.com")]  # fmt: skip
CONCEALED = [("chacha20-poly1305@openssh.com", "hmac-sha2-256"), ("aes256-ctr", "hmac-sha2-512")]


@attrs.define
class Watched:
    """What was told of one connection, and when: ``sent`` counts the bytes that the relay had passed on by then."""

    events: list[tuple[Observed, dict[Side, int]]] = attrs.Factory(list[tuple[Observed, dict[Side, int]]])

    @property
    def seen(self) -> list[Observed]:
        return [event for event, _ in self.events]


def tap_of_the_page(checkout: Path) -> Any:
    """The class that the page shows: what is there is what is tested."""
    page = (checkout / "docs/how-to/watch-a-connection.md").read_text()
    namespace: dict[str, Any] = {}
    exec(next(block.body for block in blocks(page) if block.is_python), namespace)
    return namespace["Tap"]


@contextlib.contextmanager
def tapped(checkout: Path, server: Server) -> Iterator[tuple[Server, Watched]]:
    """The tap before a server, in a thread."""
    watched = Watched()
    passed = dict.fromkeys(Side, 0)

    running: set[Any] = set()

    class Tap(tap_of_the_page(checkout)):  # type: ignore[misc]
        async def __call__(self, reader: Any, writer: Any) -> None:
            running.add(task := asyncio.current_task())
            try:
                await super().__call__(reader, writer)
            finally:
                running.discard(task)

        async def copy(self, observer: Any, side: Side, source: Any, sink: Any) -> None:
            write = sink.write

            def counted(data: bytes) -> None:
                passed[side] += len(data)
                write(data)

            sink.write = counted
            await super().copy(observer, side, source, sink)

    def tell(observer: Any, seen: Observed) -> None:
        watched.events.append((seen, dict(passed)))

    started: list[Any] = []
    ready = threading.Event()

    async def main() -> None:
        stop = asyncio.Event()
        tap = await asyncio.start_server(Tap(HOST, server.port, tell), HOST, 0)
        async with tap:
            started.extend((asyncio.get_running_loop(), stop, tap.sockets[0].getsockname()[1]))
            ready.set()
            await stop.wait()
            if running:  # the ends of a connection may be on their way
                await asyncio.wait(running, timeout=peers.SECONDS)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(peers.SECONDS)
    loop, stop, port = started
    try:
        yield attrs.evolve(server, port=port), watched
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(peers.SECONDS)


@pytest.fixture(scope="module")
def sshd(keys: dict[str, Key]) -> Iterator[Server]:
    with peers.sshd(authorized_keys=[keys["ed25519"].public]) as server:
        yield server


@pytest.mark.parametrize(("cipher", "mac"), EXACT + CONCEALED)
def test_through_a_relay(checkout: Path, sshd: Server, keys: dict[str, Key], cipher: str, mac: str) -> None:
    options = [f"-oCiphers={cipher}", f"-oMACs={mac}"]
    with tapped(checkout, sshd) as (server, watched):
        ran = peers.ssh(server, ours.PROBE, key=keys["ed25519"], options=options, stdin=ours.INPUT)
        ours.check(ran)
    events = watched.seen
    assert troubles(events) == []
    summary = Summary()
    for seen in events:
        summary.add(seen)
        if isinstance(seen.event, PacketOpened) and seen.event.number == 21:
            break  # what is known when the first NEWKEYS is seen
    known = summary.as_dict()
    assert known["client_version"].startswith("SSH-2.0-OpenSSH_")
    assert known["server_version"].startswith("SSH-2.0-OpenSSH_")
    assert (summary.client, summary.sure) == (Side.DIALLER, True)
    assert (known["cipher_c2s"], known["cipher_s2c"]) == (cipher, cipher)
    assert (known["mac_c2s"], known["mac_s2c"]) == (mac, mac)
    assert known["host_key_alg"] == "ssh-ed25519"
    assert known["host_key_sha256"] == peers.fingerprint(sshd.host_keys[0])
    assert len(known["hassh"]) == len(known["hassh_server"]) == 32
    assert known["strict_kex"] is True
    for seen in events[events.index(next(it for it in events if isinstance(it.event, KeysMissing))) :]:
        summary.add(seen)
    known = summary.as_dict()
    # What nobody can know without keys is not claimed.
    assert (known["auth_success"], known["decrypted"], known["session_id"]) == (None, None, None)
    assert known["complete"]
    exact = (cipher, mac) in EXACT
    assert {it.exact for it in told(events, KeysMissing)} == {exact}
    for side in Side:
        sealed = told(events, PacketSealed, side)
        assert len(sealed) > 5
        assert {it.exact for it in sealed} == {exact}
        opened = told(events, PacketOpened, side)
        start = opened[-1].offset + opened[-1].size
        assert [it.offset for it in sealed] == [start + sum(it.size for it in sealed[:n]) for n in range(len(sealed))]
        assert start + sum(it.size for it in sealed) == watched.events[-1][1][side]
    kinds = {type(seen.event) for seen in events}
    assert not kinds & {ev.AuthSucceeded, ev.AuthFailed, ev.ChannelOpened, ev.DataReceived}


def test_nothing_is_told_late(checkout: Path, sshd: Server, keys: dict[str, Key]) -> None:
    """Before a side's bytes are passed on, all that they show has been told."""
    with tapped(checkout, sshd) as (server, watched):
        assert peers.ssh(server, "true", key=keys["ed25519"]).returncode == 0
    assert troubles(watched.seen) == []
    for seen, passed in watched.events:
        if isinstance(seen.event, PacketSealed | PacketOpened):
            assert passed[seen.side] < seen.event.offset + seen.event.size
    first = {type(event): place for place, event in reversed(list(enumerate(it.event for it in watched.seen)))}
    assert first[ev.VersionReceived] < first[OfferSeen] < first[RolesSeen] < first[KexSeen] < first[PacketSealed]


def test_the_usual_fingerprint(checkout: Path, sshd: Server, keys: dict[str, Key]) -> None:
    with tapped(checkout, sshd) as (server, watched):
        assert peers.ssh(server, "true", key=keys["ed25519"]).returncode == 0
    summary = Summary()
    for seen in watched.seen:
        summary.add(seen)
    if "OpenSSH_9.2p1" not in (summary.as_dict()["client_version"] or ""):
        pytest.skip("no OpenSSH 9.2p1")
    assert summary.as_dict()["hassh"] == HASSH


# ------------------------------------------------------------------------------------------------------------- tcpdump


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + peers.SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_pipe_from_tcpdump(sshd: Server, keys: dict[str, Key]) -> None:
    """Events are told while the connection goes on, with keys that come while it does."""
    secrets = Secrets()
    begun: list[Conversation] = []
    lines: list[str] = []
    analysis = Analysis(secrets, keep=True, ask=begun.append)
    config = ClientConfig(user=sshd.user, key_log=lines.append)
    key = PrivateKey.load(keys["ed25519"].path.read_bytes())

    def read(pipe: io.BufferedReader) -> None:
        def chunks() -> Iterator[bytes]:
            while data := pipe.read1(65536):
                for line in lines:
                    secrets.add_key_log(line)
                for each in begun:
                    each.observer.add_secrets()
                yield data

        for _ in analysis.read(chunks()):
            pass

    with tcpdump_to_a_pipe(sshd.port) as process:
        pipe = process.stdout
        assert isinstance(pipe, io.BufferedReader)
        assert pipe.peek(1)  # the file's header: it listens
        reader = threading.Thread(target=lambda: read(pipe), daemon=True)
        reader.start()
        host_key = PublicKey.parse(sshd.host_keys[0])
        with blocking.connect(HOST, sshd.port, host_key=host_key, keys=[key], config=config) as client:
            until(lambda: begun and told(begun[0].events, ev.AuthSucceeded))
            with client.start("cat") as cat:
                for word in (b"one", b"two", b"three"):
                    cat.stdin.write(word)
                    assert cat.stdout.read(len(word)) == word
                    until(lambda word=word: word in [it.data for it in told(begun[0].events, ev.DataReceived)])
                    assert not begun[0].over
        until(lambda: begun[0].over)
        process.terminate()
        reader.join(peers.SECONDS)
        assert not reader.is_alive()
    assert begun[0].summary.opened
    assert troubles(begun[0].events) == []


def test_tcpdump_into_the_command_line(sshd: Server, keys: dict[str, Key]) -> None:
    """``tcpdump -w - | sshproto pcap decode -``: lines appear when they have happened."""
    argv = [*ours.PROGRAM, "pcap", "decode", "--json", "-"]
    lines: list[str] = []
    with peers.scratch() as home, tcpdump_to_a_pipe(sshd.port) as process:
        environment = ours._environment(home)
        with subprocess.Popen(argv, stdin=process.stdout, stdout=subprocess.PIPE, env=environment) as decoder:
            assert decoder.stdout is not None
            output = decoder.stdout
            reader = threading.Thread(target=lambda: lines.extend(it.decode() for it in output), daemon=True)
            reader.start()
            ssh = threading.Thread(target=lambda: peers.ssh(sshd, "sleep 2", key=keys["ed25519"]), daemon=True)
            ssh.start()
            try:
                until(lambda: any("KexSeen" in line for line in lines))
                assert ssh.is_alive()
                assert decoder.poll() is None
            finally:
                process.terminate()  # which ends all of it
                reader.join(peers.SECONDS)
                ssh.join(peers.SECONDS)
        assert decoder.returncode == 0
