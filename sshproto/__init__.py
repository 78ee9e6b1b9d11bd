"""SSH-2 as a pure state machine: bytes in, events out. No socket, no thread, no clock, no file.

The connection objects are :class:`ClientConnection` and :class:`ServerConnection`.  What they are given is in
:mod:`sshproto.config`, what they return in :mod:`sshproto.events`, what can go wrong in :mod:`sshproto.errors`, what
can be asked of a channel in :mod:`sshproto.requests`, and keys are in :mod:`sshproto.keys`.
"""

from __future__ import annotations

from sshproto import algorithms, errors, events, requests
from sshproto.client import ClientConnection
from sshproto.config import (
    VERSION as __version__,
)
from sshproto.config import (
    ClientConfig,
    Limits,
    Preferences,
    ServerConfig,
    Timeouts,
)
from sshproto.keys import PrivateKey, PublicKey
from sshproto.server import ServerConnection
from sshproto.transport.link import Phase
from sshproto.transport.negotiation import Negotiated

__all__ = [
    "ClientConfig",
    "ClientConnection",
    "Limits",
    "Negotiated",
    "Phase",
    "Preferences",
    "PrivateKey",
    "PublicKey",
    "ServerConfig",
    "ServerConnection",
    "Timeouts",
    "__version__",
    "algorithms",
    "errors",
    "events",
    "requests",
]
