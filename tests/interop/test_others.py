"""Dropbear, PuTTY, asyncssh and paramiko against us, each as client and as server where it is one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sshproto import algorithms
from tests.support import ours, peers
from tests.support.ours import INPUT, KINDS, PROBE, check
from tests.support.peers import Key, Ran, Server

# asyncssh and paramiko run in this process, where cryptography warns of their finite-field Diffie-Hellman. We do not.
pytestmark = pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")

CLIENTS: dict[str, Callable[..., Ran]] = {
    "dbclient": peers.dbclient,
    "plink": peers.plink,
    "asyncssh": peers.asyncssh_run,
    "paramiko": peers.paramiko_run,
}
SERVERS: dict[str, Callable[..., Any]] = {
    "dropbear": peers.dropbear,
    "asyncssh": peers.asyncssh_server,
    "paramiko": peers.paramiko_server,
}
PASSWORD = "correct horse"

# What only asyncssh has of the key exchanges that OpenSSH 9.2 lacks; the rest is in test_openssh.
WITH_ASYNCSSH = (
    "mlkem768x25519-sha256",
    "mlkem768nistp256-sha256",
    "mlkem1024nistp384-sha384",
    "curve448-sha512",
    "diffie-hellman-group15-sha512",
    "diffie-hellman-group17-sha512",
)


# ------------------------------------------------------------------------------------------------------ clients of ours


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_logs_in_to_us_with_a_key(serving: Server, keys: dict[str, Key], name: str, kind: str) -> None:
    check(CLIENTS[name](serving, PROBE, key=keys[kind], stdin=INPUT))


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_logs_in_to_us_with_a_password(serving: Server, name: str) -> None:
    check(CLIENTS[name](serving, PROBE, password=ours.PASSWORD, stdin=INPUT))


@pytest.fixture(scope="module")
def serving_with(keys: dict[str, Key]) -> Iterator[Callable[[str], Server]]:
    """A server of ours by the kind of its only host key, started when it is first asked for."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def get(kind: str) -> Server:
            return stack.enter_context(ours.serve(authorized_keys=[keys["ed25519"].public], host_keys=[kind]))

        yield get


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_knows_our_host_key(
    serving_with: Callable[[str], Server], keys: dict[str, Key], name: str, kind: str
) -> None:
    check(CLIENTS[name](serving_with(kind), PROBE, key=keys["ed25519"], stdin=INPUT))


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_moves_a_megabyte_each_way(serving: Server, keys: dict[str, Key], name: str) -> None:
    data = os.urandom(1_000_000)
    ran = CLIENTS[name](serving, "cat", key=keys["ed25519"], stdin=data)
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(data).digest()
    assert ran.returncode == 0


@pytest.mark.parametrize("kex", WITH_ASYNCSSH)
def test_asyncssh_to_us_by_key_exchange(serving: Server, keys: dict[str, Key], kex: str) -> None:
    asyncssh = peers.need_module("asyncssh")

    async def main() -> bytes:
        options = peers.asyncssh_options(serving, key=keys["ed25519"])
        async with asyncssh.connect(**options, kex_algs=[kex], rekey_bytes=100_000) as connection:
            done = await connection.run("cat", input=INPUT * 100, encoding=None)
            return bytes(done.stdout)

    assert asyncio.run(asyncio.wait_for(main(), peers.SECONDS)) == INPUT * 100


# --------------------------------------------------------------------------------------------------- we as their client


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("kind", KINDS)
def test_we_log_in_with_a_key(keys: dict[str, Key], name: str, kind: str) -> None:
    with SERVERS[name](authorized_keys=[keys[kind].public]) as server:
        check(ours.execute(server, PROBE, key=keys[kind], stdin=INPUT))


@pytest.mark.parametrize("name", SERVERS)
def test_we_log_in_with_a_password(name: str) -> None:
    with SERVERS[name](password=True if name == "dropbear" else PASSWORD) as server:
        check(ours.execute(server, PROBE, password=server.password, stdin=INPUT))
        refused = ours.execute(server, PROBE, password="wrong")
        assert refused.returncode == 255
        assert len(refused.stderr.splitlines()) == 1, refused.stderr


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("kind", KINDS)
def test_we_check_its_host_key(keys: dict[str, Key], name: str, kind: str) -> None:
    with SERVERS[name](authorized_keys=[keys["ed25519"].public], host_keys=[kind]) as server:
        check(ours.execute(server, PROBE, key=keys["ed25519"], stdin=INPUT))


@pytest.mark.parametrize("name", SERVERS)
def test_we_move_a_megabyte_each_way(keys: dict[str, Key], name: str) -> None:
    data = os.urandom(1_000_000)
    with SERVERS[name](authorized_keys=[keys["ed25519"].public]) as server:
        ran = ours.execute(server, "cat", key=keys["ed25519"], stdin=data)
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(data).digest()
    assert ran.returncode == 0


@pytest.mark.parametrize("cipher", algorithms.CIPHER_DEFAULT)
def test_we_to_asyncssh_by_cipher_with_rekeys(keys: dict[str, Key], cipher: str) -> None:
    options = {"encryption_algs": [cipher], "rekey_bytes": 100_000}
    with peers.asyncssh_server(authorized_keys=[keys["ed25519"].public], **options) as server:
        ran = ours.execute(server, "cat", key=keys["ed25519"], stdin=INPUT * 200)
    assert ran.stdout == INPUT * 200


@pytest.mark.parametrize("kex", WITH_ASYNCSSH)
def test_we_to_asyncssh_by_key_exchange(keys: dict[str, Key], kex: str) -> None:
    with peers.asyncssh_server(authorized_keys=[keys["ed25519"].public], kex_algs=[kex]) as server:
        check(ours.execute(server, PROBE, key=keys["ed25519"], options=["--kex", kex], stdin=INPUT))


@pytest.mark.parametrize("compression", ["zlib", "zlib@openssh.com"])
def test_we_to_asyncssh_by_compression(keys: dict[str, Key], compression: str) -> None:
    with peers.asyncssh_server(authorized_keys=[keys["ed25519"].public], compression_algs=[compression]) as server:
        options = ["--compression", compression]
        check(ours.execute(server, PROBE, key=keys["ed25519"], options=options, stdin=INPUT))
