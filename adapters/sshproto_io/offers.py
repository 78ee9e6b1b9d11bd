"""What ``agent=`` and ``x11=`` may be, in every face: an agent, a display to be given to programs at a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sshproto.agent.keyring import Keyring
    from sshproto.operations.agent_forwarding import AgentForwarding
    from sshproto.operations.agents import AgentService
    from sshproto.operations.x11 import X11Forwarding
    from sshproto_io.sockets import Resolve

ForwardedAgent = Union["AgentForwarding", "AgentService", "Keyring", str, "Path", bool, None]
"""An agent: what ``SSH_AUTH_SOCK`` says (True), the path of its socket, one of our own (an
:class:`~sshproto.operations.agents.AgentService`, or the :class:`~sshproto.agent.Keyring` that one is to serve), or an
:class:`~sshproto.operations.agent_forwarding.AgentForwarding`; None or False for none."""


def agent_forwarding(
    agent: ForwardedAgent, *, optional: bool = False, warn: Callable[[str], object] | None = None
) -> AgentForwarding | None:
    """An agent to be given to sessions.

    Args:
        agent: Which.
        optional: The session goes on without it if the server refuses.
        warn: Told of what went wrong.

    Raises:
        InvalidArgument: There is none, or that is none.
    """
    if agent is None or agent is False:
        return None

    import functools
    import os
    from pathlib import Path

    from sshproto.agent.keyring import Keyring
    from sshproto.errors import InvalidArgument
    from sshproto.operations.agent_forwarding import AgentForwarding, served
    from sshproto.operations.agents import AgentService
    from sshproto_io.sockets import dial

    if isinstance(agent, AgentForwarding):
        return agent
    if isinstance(agent, (AgentService, Keyring)):
        from sshproto_io.agents import steady_clock

        service = agent if isinstance(agent, AgentService) else AgentService(agent, steady_clock())
        return AgentForwarding(source=service.keyring, dial=served(service), optional=optional, warn=warn)
    if agent is True:
        agent = os.environ.get("SSH_AUTH_SOCK", "")
        if not agent:
            raise InvalidArgument("there is no agent to forward: SSH_AUTH_SOCK is not set")
    elif not isinstance(agent, (str, Path)):
        raise InvalidArgument(f"an agent is True, the path of a socket, a Keyring or an AgentForwarding, not {agent!r}")
    path = str(agent)
    return AgentForwarding(source=path, dial=functools.partial(dial, path), optional=optional, warn=warn)


def x11_forwarding(x11: X11Forwarding | None, resolve: Resolve) -> X11Forwarding | None:
    """A display, connected to by sockets of this machine unless it says by what else.

    Args:
        x11: Which.
        resolve: Looks names up.

    Raises:
        InvalidArgument: It is none.
    """
    if x11 is None:
        return None

    import functools

    from sshproto.errors import InvalidArgument
    from sshproto.operations.x11 import X11Forwarding
    from sshproto_io.sockets import dial

    if not isinstance(x11, X11Forwarding):
        raise InvalidArgument(f"a display is an X11Forwarding, not {x11!r}: see sshproto_io.displays.display")
    return x11.dialled(functools.partial(dial, resolve=resolve))
