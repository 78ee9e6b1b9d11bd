"""What a session at a host is to be, by the command line and the configuration: for ``exec`` and ``shell``."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from sshproto.channels.requests import Exec, Shell, Subsystem
from sshproto.operations.session import octets, start
from sshproto.operations.steps import Operation, Together
from sshproto_cli.forward import background, configured
from sshproto_cli.offers import LIMITED, TRUSTED, offers
from sshproto_cli.options import Failure

if TYPE_CHECKING:
    from sshproto.channels.requests import PtyRequest
    from sshproto.operations.channel import Channel
    from sshproto_cli.client import Leg
    from sshproto_cli.faces import Link

T = TypeVar("T")


class Session:
    """A session that is to be.

    Args:
        args: Parsed arguments.
        leg: What leads to the host.
        words: The command that was given; "" if none was.
        env: Variables for it, beside those of the configuration.

    Attributes:
        command: The command to run; "" for a shell, and for what is no command.
        none: There is to be none: only forwards.

    Raises:
        Failure: What was asked for does not go together.
    """

    def __init__(self, args: argparse.Namespace, leg: Leg, words: str, env: Mapping[str, str] | None = None) -> None:
        settings = leg.settings
        if words and settings.remote_command is not None:
            raise Failure(f"there is a command, and a RemoteCommand of {settings.host} as well: only one can be run")
        self.command = words or settings.remote_command or ""
        self.none = settings.session_type == "none"
        self._subsystem = settings.session_type == "subsystem"
        if self._subsystem and not self.command:
            raise Failure("SessionType subsystem: the name of the subsystem stands in the place of a command")
        self._env = {**(env or {}), **settings.sent(os.environ)}
        self._forwards = configured(settings)
        self._strict = settings.exit_on_forward_failure
        self._offered = offers(
            _agent(args, leg),
            _display(args, leg),
            seconds=settings.forward_x11_timeout or None,
            xauth=settings.xauth_location if "xauthlocation" in settings.said else "xauth",
        )
        if settings.stdin_null:
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.close(null)

    def start(self, link: Link, pty: PtyRequest | None = None) -> Operation[Channel]:
        """Start it.

        Args:
            link: The connection.
            pty: The terminal that it is to have.

        Raises:
            RequestRefused: The server will not.
        """
        program: Exec | Shell | Subsystem
        if self._subsystem:
            program = Subsystem(self.command)
        else:
            program = Exec(octets(self.command)) if self.command else Shell()
        agent, x11 = self._offered.agent, self._offered.display(link.resolve)
        return (yield from start(link.hub, program, pty=pty, env=self._env, agent=agent, x11=x11))

    def with_forwards(self, link: Link, work: Callable[[Link], Operation[T]]) -> Operation[T]:
        """Run an operation, with what the configuration forwards beside it.

        Args:
            link: The connection.
            work: Makes the operation; with it the forwards end.
        """
        if not self._forwards:
            return (yield from work(link))
        results: list[T] = []

        def finish() -> Operation[None]:
            results.append((yield from work(link)))
            raise _Done

        with contextlib.ExitStack() as stack, contextlib.suppress(_Done):
            jobs = yield from background(link, self._forwards, stack, strict=self._strict)
            yield Together(finish(), *jobs)
        return results[0]


class _Done(Exception):
    """The session has ended."""


def idle(link: Link) -> Operation[int]:
    """In the place of a session where there is to be none: wait for the end of the connection."""
    yield from link.hub.until_ended()
    link.hub.check()
    return 0


def _agent(args: argparse.Namespace, leg: Leg) -> str | bool | None:
    """The agent to forward: that of ``-A``, or of ForwardAgent."""
    settings = leg.settings
    if args.agent is None:
        return settings.forwarded_agent_path()
    return (settings.agent_path() or True) if args.agent else None


def _display(args: argparse.Namespace, leg: Leg) -> str | None:
    """What may be done with the display: by ``-X`` and ``-Y``, or ForwardX11, if there is one."""
    settings = leg.settings
    if args.x11 is not None or not settings.forward_x11 or not os.environ.get("DISPLAY"):
        chosen: str | None = args.x11
        return chosen
    return TRUSTED if settings.forward_x11_trusted else LIMITED
