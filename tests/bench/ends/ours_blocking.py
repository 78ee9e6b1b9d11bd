"""Our blocking face."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from sshproto_io.blocking import Client, Handler, connect, listen
from tests.bench.ends import HOST, Job, Setting, obey, ours, pieces, whole


class Commands(Handler):
    def __init__(self, user_key: Any) -> None:
        self.user_key = user_key

    def public_key(self, user: str, key: Any) -> bool:
        return bool(key == self.user_key)

    def session(self, session: Any) -> int:
        word, _, amount = session.command.partition(b" ")
        match word:
            case b"download":
                for block in pieces(int(amount)):
                    session.stdout.write(block)
            case b"upload":
                room = bytearray(ours.CHUNK)
                while session.stdin.readinto1(room):
                    pass
            case b"hold":
                session.stdin.read(1)
        return 0


def serve(setting: Setting) -> None:
    user_key = ours.key(setting, "user_key").public_key
    with listen(HOST, 0, ours.server_config(setting), lambda incoming: Commands(user_key)) as server:
        obey(server.port)
        threading.Event().wait()


def drive(setting: Setting, jobs: Iterable[Job]) -> None:
    host_key, user_key = ours.key(setting, "host_key").public_key, ours.key(setting, "user_key")
    config = ours.client_config(setting)

    def log_in() -> Client:
        return connect(HOST, setting.port, host_key=host_key, keys=[user_key], config=config)

    for job in jobs:
        with ExitStack() as stack:
            JOBS[job.work](job, log_in, stack)


def _connects(job: Job, log_in: Any, stack: ExitStack) -> None:
    def some(count: int) -> None:
        for _ in range(count):
            with log_in():
                pass

    some(job.warming)
    with job.timed():
        some(job.amount)


def _connections(job: Job, log_in: Any, stack: ExitStack) -> None:
    for _ in range(job.already):
        stack.enter_context(log_in())
    with job.timed():
        for _ in range(job.amount - job.already):
            stack.enter_context(log_in())


def _channels(job: Job, log_in: Any, stack: ExitStack) -> None:
    client = stack.enter_context(log_in())
    for _ in range(job.already):
        stack.enter_context(client.start("hold"))
    with job.timed():
        for _ in range(job.amount - job.already):
            stack.enter_context(client.start("hold"))


def _over_one(some: Any) -> Any:
    def work(job: Job, log_in: Any, stack: ExitStack) -> None:
        client = stack.enter_context(log_in())
        some(client, job.warming)
        with job.timed():
            some(client, job.amount)

    return work


def _download(client: Client, amount: int) -> None:
    count, room = 0, bytearray(ours.CHUNK)
    with client.start(f"download {amount}") as process:
        while size := process.stdout.readinto1(room):
            count += size
        process.wait()
    whole(count, amount)


def _upload(client: Client, amount: int) -> None:
    with client.start("upload") as process:
        for block in pieces(amount):
            process.stdin.write(block)
        process.stdin.close()
        process.wait()


def _exec(client: Client, count: int) -> None:
    for _ in range(count):
        client.run("true")


def _exec50(job: Job, log_in: Any, stack: ExitStack) -> None:
    client = stack.enter_context(log_in())
    pool = stack.enter_context(ThreadPoolExecutor(50))

    def some(count: int) -> None:
        for _ in pool.map(client.run, ["true"] * count):
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
