"""asyncssh on both ends, with what only an observer knows: it offers far more than is negotiated here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sshproto.replay import Observer, Secrets, Side, Summary
from sshproto.replay.events import Integrity, PacketOpened
from sshproto.replay.methods import OBSERVED
from sshproto.transport.kex import METHODS
from sshproto.transport.macs import OBSERVED_MACS
from sshproto.transport.suites import OBSERVED_CIPHERS
from tests.support.peers import HOST, need_module

ABSENT = {
    "curve448-sha512@libssh.org", "diffie-hellman-group15-sha256", "diffie-hellman-group16-sha256",
    "sntrup4591761x25519-sha512@tinyssh.org", "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com",
    "AEAD_AES_128_GCM", "AEAD_AES_256_GCM", "camellia128-cbc", "camellia192-cbc", "camellia256-cbc", "idea-cbc",
    "rijndael-cbc@lysator.liu.se", "hmac-ripemd160", "hmac-ripemd160-etm@openssh.com", "hmac-ripemd160@openssh.com",
    "none",
}  # fmt: skip
"""What asyncssh has not, or only where more is installed."""
TEXT = "hello\n" * 700
REKEY = 9000
"""Bytes after which asyncssh exchanges keys anew."""

pytestmark = pytest.mark.filterwarnings("ignore")  # of cryptography, about what is asked of it here


async def _converse(monkeypatch: pytest.MonkeyPatch, **algorithms: list[str]) -> tuple[str, list[tuple[Side, bytes]]]:
    """Commands through a relay: the key log, and what went over the wire."""
    asyncssh = need_module("asyncssh")
    key_log: list[str] = []
    wire: list[tuple[Side, bytes]] = []
    connections = need_module("asyncssh.connection").SSHConnection  # of both ends
    original = connections.send_newkeys

    def send_newkeys(connection: Any, secret: bytes, exchange_hash: bytes) -> None:
        """Note the secret; it stands there as it is hashed, with its length before it."""
        if connection.is_client():
            key_log.append(f"{connection._client_kexinit[1:17].hex()} SHARED_SECRET {secret[4:].hex()}")
        original(connection, secret, exchange_hash)

    monkeypatch.setattr(connections, "send_newkeys", send_newkeys)

    class Open(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    async def shout(process: Any) -> None:
        process.stdout.write((await process.stdin.read()).upper())
        process.exit(0)

    async def copy(side: Side, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            wire.append((side, data))
            sink.write(data)
        sink.close()

    key = asyncssh.generate_private_key("ssh-rsa", 2048)
    server = await asyncssh.listen(
        HOST, 0, server_host_keys=[key], server_factory=Open, process_factory=shout, **algorithms
    )

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(HOST, server.get_port())
        await asyncio.gather(copy(Side.DIALLER, reader, other_writer), copy(Side.DIALLED, other_reader, writer))
        over.set()

    over = asyncio.Event()
    async with server, await asyncio.start_server(relay, HOST, 0) as tap:
        async with asyncssh.connect(
            HOST, tap.sockets[0].getsockname()[1], known_hosts=None, username="alice", client_keys=None, config=None,
            rekey_bytes=REKEY, **algorithms,
        ) as client:  # fmt: skip
            for _ in range(3):
                assert (await client.run("shout", input=TEXT)).stdout == TEXT.upper()
        await over.wait()
    return "\n".join(key_log), wire


def _opened(monkeypatch: pytest.MonkeyPatch, **algorithms: list[str]) -> set[Integrity]:
    """Have such a connection and open it: the integrity of its encrypted packets."""
    key_log, wire = asyncio.run(asyncio.wait_for(_converse(monkeypatch, **algorithms), 60))
    secrets, summary, found = Secrets(), Summary(), set[Integrity]()
    secrets.add_key_log(key_log)
    observer = Observer(secrets)

    def look() -> None:
        while (seen := observer.next_event()) is not None:
            summary.add(seen)
            if isinstance(seen.event, PacketOpened) and seen.event.epoch:
                found.add(seen.event.integrity)

    for side, data in wire:
        observer.feed(side, data)
        look()
    for side in Side:
        observer.end(side)
    observer.finish()
    look()
    assert summary.problems == []
    row = summary.as_dict()
    assert row["decrypted"] is not None
    assert row["auth_success"]
    assert row["kex_epochs"] == len(key_log.splitlines()) > 1
    return found


def _offered(module: str, function: str, name: str) -> list[str]:
    known = getattr(need_module(module), function)()
    if name.encode() not in known:
        pytest.skip(f"asyncssh does not know {name}")
    return [name]


@pytest.mark.parametrize("name", sorted(OBSERVED.keys() - METHODS.keys() - ABSENT))
def test_key_exchange(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    kex = _offered("asyncssh.kex", "get_kex_algs", name)
    assert _opened(monkeypatch, kex_algs=kex, encryption_algs=["aes128-gcm@openssh.com"]) == {Integrity.VERIFIED}


@pytest.mark.parametrize("name", sorted(OBSERVED_CIPHERS.keys() - ABSENT))
def test_cipher(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    cipher = _offered("asyncssh.encryption", "get_encryption_algs", name)
    assert _opened(monkeypatch, encryption_algs=cipher, mac_algs=["hmac-sha1"]) == {Integrity.VERIFIED}


@pytest.mark.parametrize("name", sorted(OBSERVED_MACS.keys() - ABSENT))
def test_mac(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    mac = _offered("asyncssh.mac", "get_mac_algs", name)
    integrity = Integrity.VERIFIED if OBSERVED_MACS[name].hash else Integrity.UNCHECKED
    assert _opened(monkeypatch, encryption_algs=["aes128-cbc"], mac_algs=mac) == {integrity}
