"""What a connection's operations wait for the peer to bring, replies and channels; and how much of what it brings may
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
