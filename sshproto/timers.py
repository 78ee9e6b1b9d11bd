"""Deadlines: one small table, no clock.

The core asks for no time; it is told.  :meth:`TimerTable.next` is what ``Connection.next_deadline()`` returns, and the
timers whose time has come are taken out by :meth:`TimerTable.expired`.
"""

from __future__ import annotations

from enum import Enum


class Timer(Enum):
    """What a deadline is for. The value names it in :class:`~sshproto.errors.TimedOut`."""

    HANDSHAKE = "handshake"
    """From the start to the end of the first key exchange."""
    AUTH = "authentication"
    """From the end of the first key exchange to a successful login."""
    REKEY = "rekey"
    """Time to start a key exchange of our own."""
    KEX = "key exchange"
    """A rekeying, from our KEXINIT to the peer's NEWKEYS."""
    KEEPALIVE = "keepalive"
    """Time to ask whether the peer is still there."""
    LINGER = "linger"
    """Time to stop waiting for a closing peer."""


class TimerTable:
    """One optional deadline for each :class:`Timer`, in seconds of whatever monotonic clock the caller uses."""

    __slots__ = ("_deadlines",)

    def __init__(self) -> None:
        self._deadlines: dict[Timer, float] = {}

    def set(self, timer: Timer, deadline: float) -> None:
        self._deadlines[timer] = deadline

    def stop(self, timer: Timer) -> None:
        self._deadlines.pop(timer, None)

    def runs(self, timer: Timer) -> bool:
        return timer in self._deadlines

    def clear(self) -> None:
        self._deadlines.clear()

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        return min(self._deadlines.values(), default=None)

    def expired(self, now: float) -> list[Timer]:
        """The timers that are due at ``now``, earliest first; they are stopped."""
        due = sorted((deadline, timer.name, timer) for timer, deadline in self._deadlines.items() if deadline <= now)
        for _, _, timer in due:
            del self._deadlines[timer]
        return [timer for _, _, timer in due]
