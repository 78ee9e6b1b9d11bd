"""The script over blocking sockets: a thread for each connection of a server, none for a client's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable

from tests.bench.ends import HOST, Job, Setting, obey, script

_RECEIVE = 256 * 1024


class Server(script.Server):
    def serve(self, sock: socket.socket) -> None:
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connected(sock.sendall)
            while data := sock.recv(_RECEIVE):
                self.data_received(data)


class Client(script.Client):
    inside = False
    done = 0

    def logged_in(self) -> None:
        self.inside = True

    def ended(self, channel: int) -> None:
        self.done += 1

    def dial(self, port: int) -> None:
        self.sock = socket.create_connection((HOST, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connected(self.sock.sendall)
        while not self.inside:
            self.data_received(self.sock.recv(_RECEIVE))

    def run(self, at_once: int = 1) -> None:
        """Run commands, at the same time, to their ends."""
        for _ in range(at_once):
            self.open()
        while self.done < self.count:
            self.data_received(self.sock.recv(_RECEIVE))


def serve(setting: Setting) -> None:
    keys = script.keys(setting, "host_key", "user_key")
    listener = socket.create_server((HOST, 0), backlog=128)
    obey(listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=Server(*keys).serve, args=(sock,), daemon=True).start()


def drive(setting: Setting, jobs: Iterable[Job]) -> None:
    keys = script.keys(setting, "user_key", "host_key")

    def log_in() -> Client:
        client = Client(*keys)
        client.dial(setting.port)
        return client

    def connects(count: int) -> None:
        for _ in range(count):
            log_in().sock.close()

    def commands(client: Client, count: int, at_once: int) -> None:
        for _ in range(max(1, count // at_once)):
            client.run(at_once)

    for job in jobs:
        if job.work == "connect":
            connects(job.warming)
            with job.timed():
                connects(job.amount)
        else:
            client, at_once = log_in(), 50 if job.work == "exec50" else 1
            commands(client, job.warming, at_once)
            with job.timed():
                commands(client, job.amount, at_once)
            client.sock.close()
