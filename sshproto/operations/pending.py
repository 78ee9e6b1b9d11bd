"""What a connection's operations wait for: replies, channels, room to write; and how much of what the peer asks may
wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from sshproto.operations.steps import Wait

if TYPE_CHECKING:
    from sshproto.events import ChannelOpenRequested, ChannelRequested, GlobalRequested

UNASKED = 1024 * 1024
"""Bytes of requests that want no reply, waiting for who answers them; the core bounds the others."""
_LEAST = 64  # what any request counts for


def unasked(question: ChannelRequested | GlobalRequested) -> int:
    """What a request that wants no reply counts for; 0 if it wants one."""
    return 0 if question.want_reply else _LEAST + len(question.request.encode())


class Reply:
    """The reply to a request of ours, when it comes.

    Attributes:
        granted: None until then.
        data: What it carried.
    """

    __slots__ = ("came", "data", "granted", "on_success")

    def __init__(self, on_success: Callable[[bytes], None] | None = None) -> None:
        self.came = Wait()
        self.granted: bool | None = None
        self.data = b""
        self.on_success = on_success

    def settle(self, granted: bool, data: bytes = b"") -> None:
        """It has come."""
        self.granted = granted
        self.data = data
        if granted and self.on_success is not None:
            self.on_success(data)
        self.came.fire()


class Offer:
    """Channels that the peer may bring us.

    Attributes:
        came: Fires when there is one more, or when it is over.
        waiting: Those that nobody has decided on; the connection bounds them.
        closed: No more are wanted.
    """

    def __init__(self) -> None:
        self.came = Wait()
        self.closed = False
        self.waiting: deque[ChannelOpenRequested] = deque()

    def bring(self, question: ChannelOpenRequested) -> None:
        """One has come."""
        self.waiting.append(question)
        self.came.fire()


class Invitation(Offer):
    """Connections that the peer brings us, since we asked it to listen.

    Attributes:
        kind: What we asked for: an address and a port, or a path.
        granted: The peer listens.
    """

    def __init__(self, kind: tuple[str, int] | str) -> None:
        super().__init__()
        self.kind = kind
        self.granted = False


class Writers:
    """Those who write on a channel, from when not all of it could be sent at once.

    Attributes:
        queue: Who writes, and behind it who waits to.
        turn: Fires when one of them is done.
        room: What the first waits for: that there is room, or never will be; one channel after the other.
        watched: What those wait for who only look whether there is room: it fires for all at once.
        called: That ``room`` has fired, and who writes has not had its turn yet.
        missed: It had, but found no room.
    """

    __slots__ = ("called", "missed", "queue", "room", "turn", "watched")

    def __init__(self) -> None:
        self.queue: list[object] = []
        self.turn = Wait()
        self.room = Wait()
        self.watched = Wait()
        self.called = False
        self.missed = False

    def end(self) -> None:
        """There never will be room."""
        self.watched.fire()
        self.room.fire()
        self.turn.fire()
