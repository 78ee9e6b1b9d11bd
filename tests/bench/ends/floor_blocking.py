"""The floor over blocking sockets: a thread for each connection, and not a word of a loop."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable

from tests.bench.ends import BLOCK, HOST, Job, Setting, floor, obey


class Link:
    """A socket and its wire."""

    def __init__(self, sock: socket.socket, setting: Setting) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.wire = floor.Wire(setting.cipher)

    def until(self, count: int) -> None:
        """Until so many packets have come."""
        while count > 0:
            size = self.sock.recv_into(self.wire.space())
            if not size:
                raise EOFError
            for _ in self.wire.took(size):
                count -= 1

    def ask(self, kind: bytes, size: int, times: int = 1) -> None:
        self.sock.sendall(self.wire.packets(kind, size, times))
        self.until(times * floor.SIZES[kind][1])


def _serve(link: Link, keys: floor.Keys) -> None:
    while size := link.sock.recv_into(link.wire.space()):
        answers = []
        for packet in link.wire.took(size):
            kind = bytes(packet[:1])
            if kind == floor.DATA:
                continue
            if kind == floor.FETCH:
                for batch in floor.batches(link.wire, int(bytes(packet[1:16]).rstrip(b"\0"))):
                    link.sock.sendall(batch)
            elif kind == floor.DONE:
                answers.append(link.wire.packets(floor.DONE, floor.SMALL))
            elif (said := floor.answer(link.wire, keys, kind)) is not None:
                answers.append(said)
        if answers:
            link.sock.sendall(b"".join(answers))
    link.sock.close()


def serve(setting: Setting) -> None:
    keys = floor.Keys()
    listener = socket.create_server((HOST, 0), backlog=128)
    obey(listener.getsockname()[1])
    while True:
        link = Link(listener.accept()[0], setting)
        threading.Thread(target=_serve, args=(link, keys), daemon=True).start()


def drive(setting: Setting, jobs: Iterable[Job]) -> None:
    keys = floor.Keys()

    def dial() -> Link:
        return Link(socket.create_connection((HOST, setting.port)), setting)

    def connects(link: Link, count: int) -> None:
        for _ in range(count):
            one = dial()
            one.ask(floor.KEXINIT, 1000)
            keys.agree()
            one.ask(floor.EXCHANGE, 40)
            keys.verify()
            one.ask(floor.SERVICE, 20)
            keys.sign()
            one.ask(floor.LOGIN, 250)
            one.sock.close()

    works = {**WORKS, "connect": connects}
    for job in jobs:
        with contextlib.closing(dial().sock) as sock:
            link = Link(sock, setting)
            works[job.work](link, job.warming)
            with job.timed():
                works[job.work](link, job.amount)


def _download(link: Link, amount: int) -> None:
    link.sock.sendall(link.wire.packets(floor.FETCH, floor.SMALL, 1, b"%d" % amount))
    link.until(amount // len(BLOCK))


def _upload(link: Link, amount: int) -> None:
    for batch in floor.batches(link.wire, amount):
        link.sock.sendall(batch)
    link.sock.sendall(link.wire.packets(floor.DONE, floor.SMALL))
    link.until(1)


def _exec(link: Link, count: int, at_once: int = 1) -> None:
    for _ in range(max(1, count // at_once)):
        link.ask(floor.OPEN, 24, at_once)
        link.ask(floor.PROGRAM, 28, at_once)
        link.sock.sendall(link.wire.packets(floor.CLOSE, 5, at_once))


def _exec50(link: Link, count: int) -> None:
    _exec(link, count, 50)


WORKS = {"download": _download, "upload": _upload, "exec": _exec, "exec50": _exec50}
