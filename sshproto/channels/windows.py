"""How much the peers of all channels may send: receive windows, which share a pool and grow on long lines.

A peer that may send ``W`` bytes before it hears from us sends no more than ``W`` in a round trip, however fast the
line.  So a window grows when it is what holds the peer up, and the reader is not:

* **A window that is used up in less than three round trips doubles.**  A peer that is held up by its window uses it up
  in each round trip or, since up to half of what was read may not have been given back yet, in every second.  One that
  is held up by the line takes longer as the window grows, which then stops.
* Used up means read: what counts is what the application has given credit for, and no more than a quarter of the window
  may wait to be read.  A reader that is slow does not make a window grow.
* No window grows past ``Limits.window_max``, or past :data:`SHARE` times what is left of ``Limits.window_pool``.  One
  that is larger than that, since others have come or grown, is given back less than was read, until it is not.  So
  channels that are all busy end up with the same window, whoever came first: below ``Limits.window``, which each may
  have, one that is used up and read grows at any speed.  The pool is the bound for all, as if nothing grew.
* A window that the application names stays as it is.

**What a round trip is**: the shortest time between something that we sent and what cannot have been sent before it
came: from our CHANNEL_OPEN to its confirmation, from our confirmation to the first thing on that channel, from a
request to its reply.  The times are those of inputs, and whatever came in between (the application's thinking, or the
peer's) only makes them longer; then a window grows that need not, within the same bounds.  Nothing is sent to measure
it.  PuTTY does send something, a request with each adjust whose reply shows exactly what the peer had left then; and it
needs a list of the servers that break on that.

**Room is given back** when half of a window is consumed, or :data:`STEP` if that is less: often enough that a peer that
sends without pause does not run dry while the application keeps up, and seldom enough to cost nothing.

RFC 4254 section 5.2 lets any adjust make a window larger, up to 2^32 - 1.
"""

from __future__ import annotations

import math

from sshproto.channels.channel import ENVELOPE, MAX_WINDOW, Channel
from sshproto.config import Limits
from sshproto.errors import InvalidArgument

STEP = 1024 * 1024
"""Bytes consumed that are given back at the latest."""

SHARE = 8
"""How many times what is free in the pool a window may be: a single one gets eight ninths of the pool."""

ROUNDS = 3
"""Round trips that a window must last."""


class Windows:
    """The receive windows of one connection.

    Attributes:
        promised: The sum of all windows: what the peer can make the application hold.
        round_trip: To the peer and back, in seconds, at most.
    """

    __slots__ = ("_give_back_at", "_limits", "_packet", "_window", "promised", "round_trip")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # What was offered last: most are alike, and then the same numbers do for them all.
        self._window: int | None = None
        self._packet: int | None = None
        self._give_back_at = 0
        self.promised = 0
        self.round_trip = math.inf

    def sizes(self, window: int | None, packet: int | None) -> tuple[int, int]:
        """The window and the largest packet to offer on a channel, whose opener may have named either.

        Raises:
            InvalidArgument: There is no such window, or packets of that size are not accepted.
        """
        limits = self._limits
        if window is None:  # what is left of the pool, within bounds
            window = limits.window
            if window > (left := limits.window_pool - self.promised):
                window = min(window, max(limits.window_floor, left))
        if packet is None:
            packet = limits.channel_packet
        if window is not self._window or packet is not self._packet:  # else they were looked at when they were offered
            if not (isinstance(window, int) and 0 <= window <= MAX_WINDOW):
                raise InvalidArgument(f"a window of {window!r} bytes: it is 0 to {MAX_WINDOW}")
            largest = limits.packet - ENVELOPE
            if not (isinstance(packet, int) and 1 <= packet <= largest):
                raise InvalidArgument(f"channel packets of {packet!r} bytes: they are 1 to {largest} (Limits.packet)")
        return window, packet

    def offer(self, channel: Channel, window: int, packet: int, now: float, *, elastic: bool) -> None:
        """Let the peer send on ``channel``, which has no window yet.

        Args:
            channel: Which.
            window, packet: What :meth:`sizes` has found.
            now: The time.
            elastic: Whether the window may change.
        """
        self.promised += window
        channel.offered = channel.receive_window = window
        channel.receive_packet = packet
        channel.elastic = elastic
        channel.counted_from = channel.asked_at = now
        if window is not self._window:
            self._window = window
            self._give_back_at = _give_back_at(window)
        self._packet = packet
        channel.give_back_at = self._give_back_at

    def answered(self, channel: Channel, now: float) -> None:
        """The peer has sent what it could not before it had what we sent at ``channel.asked_at``."""
        passed = now - channel.asked_at
        if passed < self.round_trip:  # noqa: PLR1730
            self.round_trip = passed

    def change(self, channel: Channel, now: float) -> int:
        """How many bytes more, or fewer, than it consumed ``channel`` should be given back now."""
        if not channel.elastic:
            return 0
        limits = self._limits
        # What is added here is missing from the rest of the pool, hence one more than SHARE.
        change = (SHARE * (limits.window_pool - self.promised) - channel.offered) // (SHARE + 1)
        if change < 0:
            return max(change, -(channel.consumed // 2), min(0, limits.window_floor - channel.offered))
        if channel.counted + channel.consumed < channel.offered or channel.unread > channel.offered // 4:
            return 0
        if channel.offered < limits.window:
            most = limits.window
        elif now - channel.counted_from < ROUNDS * self.round_trip:
            most = limits.window_max
        else:
            return 0
        return max(0, min(change, channel.offered, most - channel.offered))

    def given_back(self, channel: Channel, change: int, now: float) -> None:
        """What ``channel`` consumed was given back, and ``change`` with it."""
        channel.counted += channel.consumed
        if channel.counted >= channel.offered:
            channel.counted = 0
            channel.counted_from = now
        channel.receive_window += channel.consumed + change
        channel.consumed = 0
        if change:
            self.promised += change
            channel.offered += change
            channel.give_back_at = _give_back_at(channel.offered)


def _give_back_at(window: int) -> int:
    """At how many consumed bytes room is given back."""
    return max(1, min(STEP, (window + 1) // 2))
