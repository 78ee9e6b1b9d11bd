"""The peer of a client, after login, says anything: channels, requests, data, windows, and keys anew in between."""

from __future__ import annotations

from fuzz import channels, conversation
from fuzz.channels import MODULES, STATES
from fuzz.running import main
from fuzz.steps import mutate
from sshproto.wire.table import Role


def fuzz(data: bytes) -> None:
    """Go on from a state after login."""
    conversation.fuzz(Role.CLIENT, STATES, data)


def seeds() -> list[bytes]:
    """See :func:`fuzz.channels.seeds`."""
    return channels.seeds(Role.CLIENT)


if __name__ == "__main__":
    main("channels_client", fuzz, seeds, mutate, MODULES)
