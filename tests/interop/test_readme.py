"""The README's client is a client."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from sshproto import PrivateKey, PublicKey, errors
from tests.support import peers

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture
def execute():
    namespace: dict[str, object] = {}
    _, _, text = README.read_text().partition("\n## The connection itself")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "README.md", "exec"), namespace)
    return namespace["execute"]


def test_the_client_runs_a_command(execute, tmp_path):
    key = peers.make_key(tmp_path)
    with (
        peers.sshd(authorized_keys=[key.public]) as server,
        socket.create_connection((peers.HOST, server.port)) as sock,
    ):
        private, host_key = PrivateKey.load(key.path.read_bytes()), PublicKey.parse(server.host_keys[0])
        assert execute(sock, server.user, private, host_key, b"head -c 300000 /dev/zero") == bytes(300_000)


def test_the_client_refuses_another_host_key(execute, tmp_path):
    key = peers.make_key(tmp_path)
    with (
        peers.sshd(authorized_keys=[key.public]) as server,
        socket.create_connection((peers.HOST, server.port)) as sock,
        pytest.raises(errors.HostKeyRejected),
    ):
        private = PrivateKey.load(key.path.read_bytes())
        execute(sock, server.user, private, private.public_key, b"true")


def test_the_client_ends_when_the_server_runs_nothing(execute, tmp_path):
    key = peers.make_key(tmp_path)
    with (
        peers.sshd(["MaxSessions 0"], authorized_keys=[key.public]) as server,
        socket.create_connection((peers.HOST, server.port)) as sock,
    ):
        private, host_key = PrivateKey.load(key.path.read_bytes()), PublicKey.parse(server.host_keys[0])
        assert execute(sock, server.user, private, host_key, b"true") == b""


def test_the_client_survives_a_server_that_hangs_up(execute):
    with socket.create_server((peers.HOST, 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        other.close()  # a reset
        with sock, pytest.raises(errors.UnexpectedEof):
            execute(sock, "me", PrivateKey.generate(), PrivateKey.generate().public_key, b"true")
