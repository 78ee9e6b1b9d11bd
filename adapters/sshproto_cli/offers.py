"""``-A``, ``-X`` and their like: what of this machine the programs at the other side may have."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from sshproto_cli.options import complain, describe

if TYPE_CHECKING:
    from sshproto.operations.agent_forwarding import AgentForwarding
    from sshproto.operations.x11 import X11Forwarding
    from sshproto_io.sockets import Resolve

LIMITED = "limited"
TRUSTED = "trusted"
NOTHING = "nothing"
"""What programs at the other side may do with the display."""

LIMITED_SECONDS = 1200.0
"""How long they may connect to it if they are not trusted; OpenSSH's ForwardX11Timeout."""


class Offers(NamedTuple):
    """What a session's program is to have.

    Attributes:
        agent: An agent, or None.
        x11: A display, or None.
    """

    agent: AgentForwarding | None = None
    x11: X11Forwarding | None = None

    def display(self, resolve: Resolve) -> X11Forwarding | None:
        """The display, connected to with names looked up in the way of the face."""
        from sshproto_io.offers import x11_forwarding

        return x11_forwarding(self.x11, resolve)


def add_offers(parser: argparse.ArgumentParser) -> None:
    """Add the options; ``agent`` and ``x11`` are None where nothing was said."""
    group = parser.add_argument_group(
        "forwarding",
        "Whoever is root at the other side can use what is forwarded there, for as long as the session lasts.",
    )
    agents = group.add_mutually_exclusive_group()
    agents.add_argument(
        "-A", dest="agent", action="store_const", const=True, help="let programs there use the agent of SSH_AUTH_SOCK"
    )
    agents.add_argument("-a", dest="agent", action="store_const", const=False, help="do not")
    displays = group.add_mutually_exclusive_group()
    for option, chosen, purpose in (
        ("-X", LIMITED, "let programs there show windows here, and no more than that: xauth makes a cookie for them"),
        ("-Y", TRUSTED, "the same, and let them do all that programs here may"),
        ("-x", NOTHING, "do not"),
    ):
        displays.add_argument(option, dest="x11", action="store_const", const=chosen, help=purpose)


def offers(
    agent: str | bool | None, x11: str | None, *, seconds: float | None = LIMITED_SECONDS, xauth: str = "xauth"
) -> Offers:
    """What is offered. What can't be had is said, and left out, as OpenSSH does.

    Args:
        agent: True for the agent of ``SSH_AUTH_SOCK``, or the path of another one's socket; None or False for none.
        x11: :data:`LIMITED` or :data:`TRUSTED`; None or :data:`NOTHING` for no display.
        seconds: How long programs that are not trusted may connect to the display; None for as long as they like.
        xauth: The program that makes cookies for them.
    """
    from sshproto.errors import SSHError

    found_agent, found_display = None, None
    if agent:
        from sshproto_io.offers import agent_forwarding

        try:
            found_agent = agent_forwarding(agent, optional=True, warn=complain)
        except SSHError as error:
            complain(f"agent forwarding: {describe(error)}")
    if x11 in (LIMITED, TRUSTED):
        from sshproto_io.displays import display

        try:
            found_display = display(
                trusted=x11 == TRUSTED,
                timeout=None if x11 == TRUSTED else seconds,
                xauth=xauth,
                optional=True,
                warn=complain,
            )
        except (SSHError, OSError) as error:
            complain(f"X11 forwarding: {describe(error)}")
    return Offers(found_agent, found_display)
