"""Two streams in memory, each of which is what the other is connected to: for what is served where it is used."""

from __future__ import annotations

import errno

from sshproto.operations.forwarding import Address
from sshproto.operations.steps import Operation, Wait

ROOM = 64 * 1024
"""Bytes that may wait in each direction."""


class Pipe:
    """One end, as a :class:`~sshproto.operations.forwarding.ByteStream`. :func:`pipe` makes two."""

    origin: Address = ("", 0)

    def __init__(self) -> None:
        self.closed = False
        self._far: Pipe = self
        self._waiting = bytearray()  # what has come and was not received
        self._ended = False
        self._changed = Wait()

    def __repr__(self) -> str:
        return f"<Pipe{', closed' if self.closed else ''}>"

    def join(self, far: Pipe) -> None:
        """Be the other end of ``far``."""
        self._far, far._far = far, self

    def receive(self, limit: int) -> Operation[bytes]:
        """At least one byte and at most ``limit``; ``b""`` at the end.

        Raises:
            OSError: It was closed at this end.
        """
        while not self._waiting:
            self._check()
            if self._ended:
                return b""
            yield self._changed
        self._check()
        data = bytes(self._waiting[:limit])
        del self._waiting[:limit]
        self._far._changed.fire()
        return data

    def send(self, data: bytes) -> Operation[None]:
        """Send all of ``data``.

        Raises:
            OSError: It was closed, at either end.
        """
        far, sent = self._far, 0
        while sent < len(data):
            self._check()
            if far.closed:
                raise BrokenPipeError(errno.EPIPE, "the other end is closed")
            count = min(len(data) - sent, ROOM - len(far._waiting))
            if count:
                far._waiting += data[sent : sent + count]
                sent += count
                far._changed.fire()
            else:
                yield self._changed

    def send_eof(self) -> Operation[None]:
        """Send no more."""
        self._far._ended = True
        self._far._changed.fire()
        yield from ()

    def close(self) -> None:
        """Close it at once, both directions. Repeated calls do nothing."""
        if not self.closed:
            self.closed = self._far._ended = True
            self._waiting.clear()
            self._changed.fire()
            self._far._changed.fire()

    def _check(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "closed on this side")


def pipe() -> tuple[Pipe, Pipe]:
    """Both ends of a new one."""
    near, far = Pipe(), Pipe()
    near.join(far)
    return near, far
