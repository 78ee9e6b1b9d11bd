"""The peer of a server, after login, says anything: channels, requests, data, windows, and keys anew in between."""

from __future__ import annotations

from fuzz import channels, conversation
from fuzz.channels import MODULES, STATES
from fuzz.running import main
from fuzz.steps import mutate
from sshproto.wire.table import Role


def fuzz(data: bytes) -> None:
    """Go on from a state after login."""
    conversation.fuzz(Role.SERVER, STATES, data)


def seeds() -> list[bytes]:
    """See :func:`fuzz.channels.seeds`."""
    return channels.seeds(Role.SERVER)


if __name__ == "__main__":
    main("channels_server", fuzz, seeds, mutate, MODULES)
