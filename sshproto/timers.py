"""Time: the moment that the last input brought, and one deadline for each purpose. No clock.

The core asks for no time; it is told, with every input.  Commands and answers bring none.  So once the events of an
input have been drained, "now" may be long ago, and the seconds of a deadline that a command sets count from the next
input on.
"""

from __future__ import annotations

from enum import Enum
from math import inf


class Timer(Enum):
    """What a deadline is for. The value names it in :class:`~sshproto.errors.TimedOut`.

    Attributes:
        place: The members are numbered.
    """

    place: int

    __hash__ = object.__hash__  # a member equals only itself; Enum's own is written in Python

    def __init__(self, name: str) -> None:
        self.place = len(type(self).__members__)

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
        earliest: The earliest deadline, or None. One that waits for the next input may lie in the past.
        settled: The events of the last input have been drained: from here on ``now`` is of the past.
        untimed: The timers set since then, and their seconds.
    """

    __slots__ = ("_due", "earliest", "now", "settled", "untimed")

    def __init__(self, now: float) -> None:
        self.now = now
        self.settled = False
        self._due = [inf] * len(Timer)  # by place; infinity is never
        self.earliest: float | None = None
        self.untimed: dict[Timer, float] | None = None

    def advance(self, now: float) -> None:
        """An input has come, at ``now``."""
        self.now = max(self.now, now)
        self.settled = False
        if self.untimed:
            self.retime()

    def retime(self) -> None:
        """Those that were set since the last input count from this one."""
        untimed, self.untimed = self.untimed, None
        for timer, seconds in (untimed or {}).items():
            self.arm_at(timer, self.now + seconds)

    def arm(self, timer: Timer, seconds: float | None) -> None:
        """Set a deadline ``seconds`` from now, or none if that is None."""
        if seconds is None:
            self.stop(timer)
            return
        self.arm_at(timer, self.now + seconds)
        if self.settled:
            if self.untimed is None:
                self.untimed = {}
            self.untimed[timer] = seconds

    def arm_at(self, timer: Timer, deadline: float) -> None:
        """Set a deadline to a moment that is known."""
        due = self._due
        due[timer.place] = deadline
        earliest = min(due)  # it is asked for far more often than it changes
        self.earliest = None if earliest == inf else earliest
        if self.untimed:
            self.untimed.pop(timer, None)

    def stop(self, timer: Timer) -> None:
        self.arm_at(timer, inf)

    def clear(self) -> None:
        self._due = [inf] * len(Timer)
        self.untimed = self.earliest = None

    def expired(self) -> list[Timer]:
        """The timers that are due now, earliest first; they are stopped."""
        due = sorted((self._due[timer.place], timer.name, timer) for timer in Timer)
        found = [timer for deadline, _, timer in due if deadline <= self.now and deadline != inf]
        for timer in found:
            self.stop(timer)
        return found
