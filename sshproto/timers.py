"""Time: the moment that the last input brought, and one deadline for each purpose. No clock.

The core asks for no time; it is told, with every input.  Commands and answers bring none.  So once the events of an
input have been drained, "now" may be long ago, and the seconds of a deadline that a command sets count from the next
input on.
"""

from __future__ import annotations

from enum import Enum


class Timer(Enum):
    """What a deadline is for. The value names it in :class:`~sshproto.errors.TimedOut`."""

    __hash__ = object.__hash__  # a member equals only itself; Enum's own is written in Python

    HANDSHAKE = "handshake"
    """From the start to the end of the first key exchange."""
    AUTH = "authentication"
    """On a server, from the end of the first key exchange to a successful login; on a client, each answer."""
    REKEY = "rekey"
    """Time to start a key exchange of our own."""
    KEX = "key exchange"
    """A rekeying, from its first KEXINIT to the peer's NEWKEYS."""
    KEEPALIVE = "keepalive"
    """Time to ask whether the peer is still there."""
    LINGER = "linger"
    """Time to stop waiting for a closing peer."""


class Timers:
    """The time, and at most one deadline for each :class:`Timer`.

    Args:
        now: The time in seconds, of any monotonic clock; the same one ever after.

    Attributes:
        now: The latest time that was told; it never goes back.
        settled: The events of the last input have been drained: from here on ``now`` is of the past.
    """

    __slots__ = ("_deadlines", "_next", "_untimed", "now", "settled")

    def __init__(self, now: float) -> None:
        self.now = now
        self.settled = False
        self._deadlines: dict[Timer, float] = {}
        self._untimed: dict[Timer, float] = {}
        self._next: float | None = None  # the earliest deadline; None: it is to be looked for

    def advance(self, now: float) -> None:
        """An input has come, at ``now``."""
        self.now = max(self.now, now)
        self.settled = False
        if self._untimed:
            for timer, seconds in self._untimed.items():
                self._deadlines[timer] = self.now + seconds
            self._untimed.clear()
            self._next = None

    def arm(self, timer: Timer, seconds: float | None) -> None:
        """Set a deadline ``seconds`` from now, or none if that is None."""
        if seconds is None:
            self.stop(timer)
            return
        self._next = None
        self._deadlines[timer] = self.now + seconds
        if self.settled:
            self._untimed[timer] = seconds
        elif self._untimed:
            self._untimed.pop(timer, None)

    def arm_at(self, timer: Timer, deadline: float) -> None:
        """Set a deadline to a moment that is known."""
        self.stop(timer)
        self._deadlines[timer] = deadline
        self._next = None

    def stop(self, timer: Timer) -> None:
        if self._deadlines.pop(timer, None) is not None:
            self._untimed.pop(timer, None)
            self._next = None

    def clear(self) -> None:
        self._deadlines.clear()
        self._untimed.clear()
        self._next = None

    def next(self) -> float | None:
        """The earliest deadline, or None. One that waits for the next input may lie in the past."""
        if self._next is None and self._deadlines:
            self._next = min(self._deadlines.values())
        return self._next

    def expired(self) -> list[Timer]:
        """The timers that are due now, earliest first; they are stopped."""
        due = sorted(
            (deadline, timer.name, timer) for timer, deadline in self._deadlines.items() if deadline <= self.now
        )
        for _, _, timer in due:
            self.stop(timer)
        return [timer for _, _, timer in due]
