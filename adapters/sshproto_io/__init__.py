"""sshproto over real I/O: blocking sockets.

What goes wrong is one of three, all of them :class:`~sshproto.errors.SSHError`:

* :class:`ConnectFailed`: there is no connection at all.
* a :class:`~sshproto.errors.ConnectionLoss`: the connection has ended; its class says why.
* :class:`OpenRefused` and :class:`RequestRefused`: the peer said no, and the connection goes on.
"""

from __future__ import annotations

from sshproto.errors import SSHError


class ConnectFailed(SSHError):
    """The peer cannot be reached. The ``OSError`` that says why is chained."""


class OpenRefused(SSHError):
    """The peer refused a channel.

    Attributes:
        reason: The reason code (RFC 4254 section 5.1).
    """

    def __init__(self, what: str, reason: int, description: str) -> None:
        super().__init__(f"the peer refused {what} (code {reason}): {description or 'no reason given'}")
        self.reason = reason


class RequestRefused(SSHError):
    """The peer refused a request on a channel, or does not know it."""


__all__ = ["ConnectFailed", "OpenRefused", "RequestRefused"]
