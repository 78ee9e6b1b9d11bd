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
        untimed: The timers set since then, and their seconds.
    """

    __slots__ = ("_due", "now", "settled", "untimed")

    def __init__(self, now: float) -> None:
        self.now = now
        self.settled = False
        # The earliest first.  They are few, and asked for far more often than set.
        self._due: tuple[tuple[float, Timer], ...] = ()
        self.untimed: tuple[tuple[float, Timer], ...] = ()

    def advance(self, now: float) -> None:
        """An input has come, at ``now``."""
        self.now = max(self.now, now)
        self.settled = False
        if self.untimed:
            self.retime()

    def retime(self) -> None:
        """Those that were set since the last input count from this one."""
        for seconds, timer in self.untimed:
            self._due = _with(self._due, self.now + seconds, timer)
        self.untimed = ()

    def arm(self, timer: Timer, seconds: float | None) -> None:
        """Set a deadline ``seconds`` from now, or none if that is None."""
        if seconds is None:
            self.stop(timer)
            return
        self._due = _with(self._due, self.now + seconds, timer)
        if self.settled:
            self.untimed = _with(self.untimed, seconds, timer)
        elif self.untimed:
            self.untimed = _without(self.untimed, timer)

    def arm_at(self, timer: Timer, deadline: float) -> None:
        """Set a deadline to a moment that is known."""
        self._due = _with(self._due, deadline, timer)
        self.untimed = _without(self.untimed, timer)

    def stop(self, timer: Timer) -> None:
        if self._due:
            self._due = _without(self._due, timer)
        if self.untimed:
            self.untimed = _without(self.untimed, timer)

    def clear(self) -> None:
        self._due = self.untimed = ()

    def next(self) -> float | None:
        """The earliest deadline, or None. One that waits for the next input may lie in the past."""
        return self._due[0][0] if self._due else None

    def expired(self) -> list[Timer]:
        """The timers that are due now, earliest first; they are stopped."""
        due = sorted((deadline, timer.name, timer) for deadline, timer in self._due if deadline <= self.now)
        for _, _, timer in due:
            self.stop(timer)
        return [timer for _, _, timer in due]


def _without(due: tuple[tuple[float, Timer], ...], timer: Timer) -> tuple[tuple[float, Timer], ...]:
    for place, (_, one) in enumerate(due):
        if one is timer:
            return due[:place] + due[place + 1 :]
    return due


def _with(due: tuple[tuple[float, Timer], ...], when: float, timer: Timer) -> tuple[tuple[float, Timer], ...]:
    if not due:
        return ((when, timer),)
    others = _without(due, timer)
    place = len(others)
    while place and when < others[place - 1][0]:
        place -= 1
    return (*others[:place], (when, timer), *others[place:])
