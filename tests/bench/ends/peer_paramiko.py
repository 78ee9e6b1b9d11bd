"""paramiko, with TCP_NODELAY: without it, a command waits 40 ms for a delayed ACK, and that is all one sees."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import paramiko

from tests.bench.ends import HOST, KEX, USER, Job, Setting, obey, pieces, whole

_CHUNK = 256 * 1024


class Answering(paramiko.Transport):
    """Starts what a request asks for after the reply to it: else a short command closes its channel before that."""

    asked: threading.Thread | None = None

    def _send_user_message(self, data: Any) -> None:
        super()._send_user_message(data)
        if self.asked is not None and threading.current_thread() is self:
            program, self.asked = self.asked, None
            program.start()


def _transport(sock: socket.socket, setting: Setting) -> Answering:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = Answering(sock)
    options = transport.get_security_options()
    cipher, mac = setting.algorithms
    options.kex = (f"{KEX}@libssh.org",)  # the same under its older name
    options.ciphers = (cipher,)
    if mac:
        options.digests = (mac,)
    return transport


class Server(paramiko.ServerInterface):
    def __init__(self, user_key: Any) -> None:
        self.user_key = user_key

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: Any) -> int:
        return paramiko.AUTH_SUCCESSFUL if key == self.user_key else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        word, _, amount = command.partition(b" ")
        channel.get_transport().asked = threading.Thread(
            target=_run, args=(channel, word, int(amount or 0)), daemon=True
        )
        return True


def _run(channel: Any, word: bytes, amount: int) -> None:
    if word == b"download":
        for block in pieces(amount):
            channel.sendall(block)
    elif word == b"upload":
        while channel.recv(_CHUNK):
            pass
    elif word == b"hold":
        channel.recv(1)
    channel.send_exit_status(0)
    channel.close()


def serve(setting: Setting) -> None:
    host_key = paramiko.Ed25519Key(filename=f"{setting.keys}/host_key")
    user_key = paramiko.Ed25519Key(filename=f"{setting.keys}/user_key")
    listener = socket.create_server((HOST, 0), backlog=128)
    obey(listener.getsockname()[1])
    kept = []
    while True:
        transport = _transport(listener.accept()[0], setting)
        transport.add_server_key(host_key)
        transport.start_server(event=threading.Event(), server=Server(user_key))
        kept = [each for each in kept if each.is_active()]
        kept.append(transport)


def drive(setting: Setting, jobs: Iterable[Job]) -> None:
    host_key = paramiko.Ed25519Key(filename=f"{setting.keys}/host_key")
    user_key = paramiko.Ed25519Key(filename=f"{setting.keys}/user_key")

    def log_in() -> paramiko.Transport:
        transport = _transport(socket.create_connection((HOST, setting.port)), setting)
        transport.connect(host_key, USER, pkey=user_key)
        return transport

    for job in jobs:
        with ExitStack() as stack:
            JOBS[job.work](job, log_in, stack)


def _connects(job: Job, log_in: Any, stack: ExitStack) -> None:
    def some(count: int) -> None:
        for _ in range(count):
            log_in().close()

    some(job.warming)
    with job.timed():
        some(job.amount)


def _connections(job: Job, log_in: Any, stack: ExitStack) -> None:
    def some(count: int) -> None:
        for _ in range(count):
            stack.callback(log_in().close)

    some(job.already)
    with job.timed():
        some(job.amount - job.already)


def _start(transport: paramiko.Transport, command: str) -> Any:
    channel = transport.open_session()
    channel.exec_command(command)
    return channel


def _channels(job: Job, log_in: Any, stack: ExitStack) -> None:
    transport = log_in()
    stack.callback(transport.close)
    held = [_start(transport, "hold") for _ in range(job.already)]
    with job.timed():
        held += [_start(transport, "hold") for _ in range(job.amount - job.already)]


def _over_one(some: Any) -> Any:
    def work(job: Job, log_in: Any, stack: ExitStack) -> None:
        transport = log_in()
        stack.callback(transport.close)
        some(transport, job.warming)
        with job.timed():
            some(transport, job.amount)

    return work


def _end(channel: Any) -> None:
    channel.recv_exit_status()
    channel.close()


def _download(transport: paramiko.Transport, amount: int) -> None:
    count = 0
    channel = _start(transport, f"download {amount}")
    while data := channel.recv(_CHUNK):
        count += len(data)
    _end(channel)
    whole(count, amount)


def _upload(transport: paramiko.Transport, amount: int) -> None:
    channel = _start(transport, "upload")
    for block in pieces(amount):
        channel.sendall(block)
    channel.shutdown_write()
    _end(channel)


def _true(transport: paramiko.Transport) -> None:
    _end(_start(transport, "true"))


def _exec(transport: paramiko.Transport, count: int) -> None:
    for _ in range(count):
        _true(transport)


def _exec50(job: Job, log_in: Any, stack: ExitStack) -> None:
    transport = log_in()
    stack.callback(transport.close)
    pool = stack.enter_context(ThreadPoolExecutor(50))

    def some(count: int) -> None:
        for _ in pool.map(_true, [transport] * count):
            pass

    some(job.warming)
    with job.timed():
        some(job.amount)


JOBS = {
    "download": _over_one(_download),
    "upload": _over_one(_upload),
    "connect": _connects,
    "exec": _over_one(_exec),
    "exec50": _exec50,
    "connections": _connections,
    "channels": _channels,
}
