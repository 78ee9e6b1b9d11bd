"""sshproto over real I/O, under three roofs with the same names: :mod:`~sshproto_io.blocking` sockets and threads,
:mod:`~sshproto_io.asyncio`, and :mod:`~sshproto_io.trio`.

What goes wrong is an :class:`~sshproto.errors.SSHError`, one of few:

* :class:`ConnectFailed`: there is no connection at all.
* a :class:`~sshproto.errors.ConnectionLoss`: the connection has ended, and its class says why.
* :class:`~sshproto.errors.OpenRefused` and :class:`~sshproto.errors.RequestRefused`: the peer said no, and the
  connection goes on.
* :class:`~sshproto.errors.ChannelEnded`: the other end of a channel is gone, and the connection goes on.
* :class:`CommandFailed`: a command has failed, if you asked for that to be an error.
* :class:`TimeoutExpired`: you have waited long enough, and the connection goes on.
* a :class:`~sshproto.errors.UsageError`: what you asked for cannot be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.errors import ChannelEnded, ConnectionLoss, OpenRefused, RequestRefused, SSHError, UsageError
from sshproto.lazy import lazily

if TYPE_CHECKING:
    from sshproto.operations.login import LoginPlan
    from sshproto.operations.session import CommandFailed, Completed
    from sshproto_io._setup import Setup as Setup

__all__ = [
    "ChannelEnded",
    "CommandFailed",
    "Completed",
    "ConnectFailed",
    "ConnectionLoss",
    "LoginPlan",
    "OpenRefused",
    "RequestRefused",
    "SSHError",
    "TimeoutExpired",
    "UsageError",
]

_HOMES = {
    "CommandFailed": "sshproto.operations.session",
    "Completed": "sshproto.operations.session",
    "LoginPlan": "sshproto.operations.login",
    "Setup": "sshproto_io._setup",
}

__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)

LINGER = 0.5
"""Seconds that a closing connection waits for the peer to close as well. Closing a socket with input unread takes away
from the peer what it has not read yet (RFC 1122 section 4.2.2.13), the reason for the end included."""


class ConnectFailed(SSHError):
    """The peer cannot be reached. The ``OSError`` that says why is chained."""

    @classmethod
    def to(cls, host: str, port: int, error: OSError | UnicodeError) -> ConnectFailed:
        """With the words for it. A name that no resolver takes is a ``UnicodeError``."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return cls(f"cannot connect to {host} port {port}: {reason}")


class TimeoutExpired(SSHError, TimeoutError):
    """The time that the caller gave is over. What was waited for is cancelled; a connection that there is goes on.

    Attributes:
        seconds: How long it was.
    """

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what} took longer than {seconds:g} seconds")
        self.seconds = seconds
