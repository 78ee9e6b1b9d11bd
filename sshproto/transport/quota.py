"""What a peer may make us do for nothing, counted.

Each count belongs to one of :class:`~sshproto.config.Limits`; going past it raises
:class:`~sshproto.errors.LimitExceeded`, which ends the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.errors import LimitExceeded

if TYPE_CHECKING:
    from sshproto.config import Limits

_MINUTE = 60.0


class Quota:
    """The counts of one connection.

    Args:
        limits: The bounds.
        now: The time in seconds.

    Attributes:
        packets: Those that have come before login; the connection counts them.
    """

    __slots__ = ("_early_rekeys", "_ignored", "_limits", "_rekeys", "_rekeys_at", "_rekeys_received", "packets")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self.packets = 0
        self._ignored = 0
        self._early_rekeys = 0
        self._rekeys: float = limits.peer_rekeys
        self._rekeys_at = now
        self._rekeys_received = 0

    def too_much_before_login(self, received: int) -> None:
        """There were too many :attr:`packets` before login, or ``received`` bytes: nobody rekeys there, nothing else
        bounds it."""
        limits = self._limits
        if self.packets > limits.packets_before_auth:
            raise LimitExceeded(f"more than {limits.packets_before_auth} packets before login", "packets_before_auth")
        if received > limits.input_before_auth:
            raise LimitExceeded(f"more than {limits.input_before_auth} bytes before login", "input_before_auth")

    def ignored(self, name: str) -> None:
        """A message came that the standards want ignored."""
        self._ignored += 1
        if self._ignored > self._limits.ignored_messages:
            raise LimitExceeded(f"too many messages came too late, the last is {name}", "ignored_messages")

    def rekey_before_login(self) -> None:
        """The peer starts a key exchange although nothing is said under the keys yet (RFC 4253 section 9)."""
        self._early_rekeys += 1
        if self._early_rekeys > self._limits.rekeys_before_auth:
            raise LimitExceeded("the peer rekeys too often before login", "rekeys_before_auth")

    def peer_rekey(self, now: float, received: int) -> None:
        """The peer starts a key exchange.

        They are dear.  A peer may start them as it moves data, and some more: a bucket of ``Limits.peer_rekeys`` that
        fills up in a minute, and by one for each ``Limits.peer_rekey_bytes`` received.
        """
        limits = self._limits
        earned = (now - self._rekeys_at) / _MINUTE * limits.peer_rekeys
        earned += (received - self._rekeys_received) / limits.peer_rekey_bytes
        self._rekeys_at = now
        self._rekeys_received = received
        self._rekeys = min(self._rekeys + earned, float(limits.peer_rekeys)) - 1.0
        if self._rekeys < 0:
            raise LimitExceeded("the peer rekeys too often", "peer_rekeys")
