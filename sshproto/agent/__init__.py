"""The agent protocol, both ends, without I/O (RFC 9987 and OpenSSH's PROTOCOL.agent).

An agent holds private keys and signs with them for those who are connected to it.  Here are its messages
(:mod:`~sshproto.agent.messages`, :mod:`~sshproto.agent.constraints`, :mod:`~sshproto.agent.replies`), how they travel
(:mod:`~sshproto.agent.framing`), what holds the keys (:mod:`~sshproto.agent.keyring`), and one connection to that
(:mod:`~sshproto.agent.server`): bytes in, bytes out.  The client's side as operations is
:mod:`sshproto.operations.agents`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.lazy import lazily

if TYPE_CHECKING:
    from sshproto.agent.bindings import Binding
    from sshproto.agent.constraints import (
        AssociatedCertificates,
        Constraints,
        DestinationConstraint,
        Hop,
        HostKeySpec,
        destination,
    )
    from sshproto.agent.framing import (
        AgentError,
        AgentMessageError,
        AgentRefused,
        AgentUnavailable,
        ExtensionUnsupported,
    )
    from sshproto.agent.keyring import HeldKey, Keyring
    from sshproto.agent.replies import Identity
    from sshproto.agent.server import AgentEvent, AgentServer, ConfirmNeeded, KeyUsed, RequestRefused
    from sshproto.agent.signing import SignPurpose, purpose_of

__all__ = [
    "AgentError",
    "AgentEvent",
    "AgentMessageError",
    "AgentRefused",
    "AgentServer",
    "AgentUnavailable",
    "AssociatedCertificates",
    "Binding",
    "ConfirmNeeded",
    "Constraints",
    "DestinationConstraint",
    "ExtensionUnsupported",
    "HeldKey",
    "Hop",
    "HostKeySpec",
    "Identity",
    "KeyUsed",
    "Keyring",
    "RequestRefused",
    "SignPurpose",
    "destination",
    "purpose_of",
]

_HOMES = {
    "AgentError": "sshproto.agent.framing",
    "AgentEvent": "sshproto.agent.server",
    "AgentMessageError": "sshproto.agent.framing",
    "AgentRefused": "sshproto.agent.framing",
    "AgentServer": "sshproto.agent.server",
    "AgentUnavailable": "sshproto.agent.framing",
    "AssociatedCertificates": "sshproto.agent.constraints",
    "Binding": "sshproto.agent.bindings",
    "ConfirmNeeded": "sshproto.agent.server",
    "Constraints": "sshproto.agent.constraints",
    "DestinationConstraint": "sshproto.agent.constraints",
    "ExtensionUnsupported": "sshproto.agent.framing",
    "HeldKey": "sshproto.agent.keyring",
    "Hop": "sshproto.agent.constraints",
    "HostKeySpec": "sshproto.agent.constraints",
    "Identity": "sshproto.agent.replies",
    "KeyUsed": "sshproto.agent.server",
    "Keyring": "sshproto.agent.keyring",
    "RequestRefused": "sshproto.agent.server",
    "SignPurpose": "sshproto.agent.signing",
    "destination": "sshproto.agent.constraints",
    "purpose_of": "sshproto.agent.signing",
}

__getattr__, __dir__ = lazily(__name__, _HOMES, __all__)
