"""SSH-2 as a pure state machine: bytes in, events out. No socket, no thread, no clock, no file.

The connection objects are :class:`ClientConnection` and :class:`ServerConnection`.  What they are given is in
:mod:`sshproto.config`, what they return in :mod:`sshproto.events`, what can go wrong in :mod:`sshproto.errors`, what
can be asked of a channel in :mod:`sshproto.requests`, and keys are in :mod:`sshproto.keys`.

A name is loaded when it is first asked for: a program that only may connect does not pay for it at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.lazy import lazily

if TYPE_CHECKING:
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

_HOMES = {
    "ClientConfig": "sshproto.config",
    "ClientConnection": "sshproto.client",
    "Limits": "sshproto.config",
    "Negotiated": "sshproto.transport.negotiation",
    "Phase": "sshproto.transport.link",
    "Preferences": "sshproto.config",
    "PrivateKey": "sshproto.keys.private",
    "PublicKey": "sshproto.keys.public",
    "ServerConfig": "sshproto.config",
    "ServerConnection": "sshproto.server",
    "Timeouts": "sshproto.config",
    "__version__": "sshproto.config:VERSION",
    "algorithms": "sshproto.algorithms",
    "config": "sshproto.config",
    "errors": "sshproto.errors",
    "events": "sshproto.events",
    "keys": "sshproto.keys",
    "requests": "sshproto.requests",
}

__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
