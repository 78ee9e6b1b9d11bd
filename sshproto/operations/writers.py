"""Who writes on a channel, while not all of it can be sent at once."""

from __future__ import annotations

from sshproto.operations.steps import Wait


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
