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

import attrs

from sshproto.config import ClientConfig
from sshproto.errors import (
    ChannelEnded,
    ConnectionLoss,
    InvalidArgument,
    OpenRefused,
    RequestRefused,
    SSHError,
    UsageError,
    discreet,
)
from sshproto.keys.known_hosts import KnownHosts
from sshproto.operations.login import Credentials, HostKeyCheck, LoginPlan, host_key_check, prefer_known
from sshproto.operations.session import CommandFailed, Completed
from sshproto.values import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sshproto.keys.private import PrivateKey
    from sshproto.keys.public import PublicKey

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

LINGER = 0.5
"""Seconds that a closing connection waits for the peer to close as well. Closing a socket with input unread takes away
from the peer what it has not read yet (RFC 1122 section 4.2.2.13), the reason for the end included."""


class ConnectFailed(SSHError):
    """The peer cannot be reached. The ``OSError`` that says why is chained."""

    @classmethod
    def to(cls, host: str, port: int, error: OSError | UnicodeError) -> ConnectFailed:
        """With the words for it; a name that no resolver can take is a ``UnicodeError``."""
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


@frozen(kw_only=True)
class Setup:
    """What ``connect`` was asked for.

    Attributes:
        host, port: Where to.
        config: The client's decisions.
        host_key: Whether a key is the server's.
        credentials: Who we are.
    """

    host: str
    port: int
    config: ClientConfig
    host_key: HostKeyCheck
    credentials: Credentials

    @classmethod
    @discreet
    def of(
        cls,
        host: str,
        port: int,
        *,
        user: str | None,
        host_key: KnownHosts | PublicKey | HostKeyCheck,
        keys: Iterable[PrivateKey | PublicKey],
        password: str | None,
        credentials: Credentials | None,
        config: ClientConfig | None,
    ) -> Setup:
        """From the arguments of ``connect``.

        Raises:
            InvalidArgument: They do not go together.
        """
        if config is None:
            if user is None:
                raise InvalidArgument("nobody to log in as: give user or config")
            config = ClientConfig(user=user)
        elif user is not None:
            config = attrs.evolve(config, user=user)
        keys = tuple(keys)
        if credentials is None:
            credentials = LoginPlan(keys, password=password)
        elif keys or password is not None:
            raise InvalidArgument("credentials stands in the place of keys and password")
        if isinstance(host_key, KnownHosts):
            config = prefer_known(config, host_key, host, port)
        return cls(
            host=host,
            port=port,
            config=config,
            host_key=host_key_check(host_key, host, port),
            credentials=credentials,
        )
