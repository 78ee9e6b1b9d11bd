"""A TCP proxy that cuts the connection after so many bytes."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from types import TracebackType
from typing import Self

from tests.support.seeds import HOST

_LONGEST = 30.0


class Cutter:
    """Takes connections to a port of this machine, one after the other, and cuts them as told.

    Args:
        target: The port.

    Attributes:
        port: Where to connect to.
        passed: How many bytes have passed in the last connection: from the client, from the server.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.passed = [0, 0]
        self._limits: list[int | None] = [None, None]
        self._reset = False
        self._thread = threading.Thread(target=self._run, name="cutter", daemon=True)
        self._stop, self._stopped = socket.socketpair()

    def plan(self, *, client: int | None = None, server: int | None = None, reset: bool = False) -> None:
        """What to do with the next connection.

        Args:
            client, server: Cut when so many bytes have come from there.
            reset: By RST; else by FIN, in both directions.
        """
        self._limits = [client, server]
        self._reset = reset

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.close()
        self._thread.join(_LONGEST)
        self._stop.close()
        self._listener.close()

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._stop], [], [])
            if self._stop in ready:
                return
            with contextlib.suppress(OSError):
                client = self._listener.accept()[0]
                self.passed = [0, 0]
                with client, socket.create_connection((HOST, self._target)) as server:
                    for sock in (client, server):
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        sock.settimeout(_LONGEST)
                    with contextlib.suppress(OSError):
                        self._pass(client, server)
                    if self._reset:
                        for sock in (client, server):
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        ends = {client: (0, server), server: (1, client)}
        while 0 not in (self._left(0), self._left(1)):
            ready, _, _ = select.select([*ends, self._stop], [], [], _LONGEST)
            if not ready or self._stop in ready:
                return
            for sock in ready:
                number, other = ends[sock]
                data = sock.recv(min(65536, self._left(number)))
                if not data:
                    return
                self.passed[number] += len(data)
                other.sendall(data)
                if not self._left(number):
                    return

    def _left(self, number: int) -> int:
        limit = self._limits[number]
        return 65536 if limit is None else limit - self.passed[number]
