"""What ``sshproto serve`` does for who is let in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sshproto.channels.requests import ExitSignal, PtyRequest, Subsystem, X11Request
from sshproto.events import Event
from sshproto.keys.authorized_keys import LoginRefused
from sshproto.operations.channel import Channel
from sshproto.operations.forwarding import Address
from sshproto.operations.serving import Challenge, Handler, ServedSession
from sshproto.operations.steps import Operation
from sshproto.text import printable
from sshproto.values import frozen
from sshproto_cli.child import Program, welcome, write_authority
from sshproto_cli.options import complain, describe, reporter, say

if TYPE_CHECKING:
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.permits import Permit
    from sshproto.keys.public import PublicKey
    from sshproto_cli.gate import Gate

_LOOPBACK = "localhost"


@frozen(kw_only=True)
class Services:
    """What is done for who is in.

    Attributes:
        execute: Commands and shells are run.
        forward: Connections are made for the client, and listened for.
        anywhere: What the client wants listened for may come from other machines.
        agent: Programs get the agent that the client forwards.
        x11: Programs get the display that the client forwards.
    """

    execute: bool = False
    forward: bool = False
    anywhere: bool = False
    agent: bool = False
    x11: bool = False


class Visitor(Handler):
    """The handler of one connection. Nothing here waits but operations, so that it works in every face.

    Args:
        peer: The client's address, as the system gives it: a tuple that begins with host and port.
        local: Ours.
        gate: Who may in.
        services: What is done for them.
        verbose: Say which logins are refused, and why.
    """

    def __init__(self, peer: Any, local: Any, gate: Gate, services: Services, *, verbose: bool) -> None:
        self._gate = gate
        self._services = services
        self._verbose = verbose
        self._prefix = ""
        self._address: str | None = None
        self._login: dict[str, str] = {}
        if peer and local:
            self._address = peer[0]
            self._prefix = f"{peer[0]} port {peer[1]}: "
            self._login = {
                "SSH_CLIENT": f"{peer[0]} {peer[1]} {local[1]}",
                "SSH_CONNECTION": f"{peer[0]} {peer[1]} {local[0]} {local[1]}",
            }
        self._programs: dict[Channel, Program] = {}

    def watcher(self) -> Callable[[Event], None] | None:
        """What is to see the connection's events: it shows them, if that is wanted."""
        return reporter(self._prefix) if self._verbose else None

    # ------------------------------------------------------------------------------------------------------------ login

    def public_key(self, user: str, key: PublicKey) -> Permit | bool:
        """See the base class."""
        return self._by_key(user, key)

    def certificate(self, user: str, certificate: Certificate) -> Permit | bool:
        """See the base class."""
        return self._by_key(user, certificate)

    def _by_key(self, user: str, shown: PublicKey | Certificate) -> Permit | bool:
        try:
            return self._gate.by_key(shown, user, self._address)
        except LoginRefused as refusal:
            return self._decide(user, str(refusal))

    def password(self, user: str, password: str, new_password: str | None) -> bool:
        """See the base class."""
        if new_password is not None:
            return self._decide(user, "passwords are not changed here")
        return self._decide(user, self._gate.against_password(user, password))

    def keyboard_interactive(self, user: str, answers: Sequence[str] | None) -> bool | Challenge:
        """See the base class."""
        if answers is None:
            return Challenge([("Password: ", False)])
        return self._decide(user, self._gate.against_password(user, answers[0]))

    def _decide(self, user: str, problem: str) -> bool:
        if problem and self._verbose:
            say(f"{self._prefix}login as {printable(user)} refused: {printable(problem, 4096)}")
        return not problem

    # --------------------------------------------------------------------------------------------------------- sessions

    def allow_env(self, session: ServedSession, name: str, value: bytes) -> bool:
        """See the base class."""
        return self._services.execute and welcome(name)

    def allow_pty(self, session: ServedSession, request: PtyRequest) -> Operation[bool]:
        """See the base class. An operation, so that the session can't end before it knows of the terminal."""
        yield from ()
        return self._services.execute and self._program(session).open_terminal(request)

    def allow_agent(self, session: ServedSession) -> bool:
        """See the base class."""
        return self._services.agent

    def allow_x11(self, session: ServedSession, request: X11Request) -> bool:
        """See the base class."""
        return self._services.x11

    def allow_program(self, session: ServedSession) -> Operation[bool]:
        """See the base class. The program is started here, as long as the client can still be told that it can't be."""
        yield from ()
        if not self._services.execute or isinstance(session.program, Subsystem):
            return False
        return self._program(session).start(session.program, {**session.env, **_provided(session)})

    def session(self, session: ServedSession) -> Operation[int | ExitSignal]:
        """See the base class."""
        return self._program(session).run(session.channel)

    def _program(self, session: ServedSession) -> Program:
        """The program of a session. ``session`` may be the face's own, once there is a program."""
        program = self._programs.get(session.channel)
        if program is None:
            program = self._programs[session.channel] = Program(self._login)
            session.at_end.callback(self._ended, session.channel)
        return program

    def _ended(self, channel: Channel) -> None:
        self._programs.pop(channel).hang_up()

    # ------------------------------------------------------------------------------------------------------- forwarding

    def allow_connect(self, target: Address, origin: Address) -> bool:
        """See the base class."""
        return self._services.forward

    def allow_listen(self, address: Address) -> bool | Address:
        """See the base class."""
        if isinstance(address, str) or not self._services.forward or self._services.anywhere:
            return self._services.forward
        return _LOOPBACK, address[1]

    # ------------------------------------------------------------------------------------------------------------- rest

    def bug(self, error: Exception) -> None:
        """See the base class."""
        report_bug(error)


def _provided(session: ServedSession) -> dict[str, bytes]:
    """Variables for a program that come from this side; with a display, the file that its cookie is in."""
    variables = dict(session.provided)
    if session.display is not None:
        try:
            variables["XAUTHORITY"] = write_authority(session.display, session.at_end)
        except OSError as error:
            complain(f"no file for the cookie of display {session.display.name}: {describe(error)}")
            del variables["DISPLAY"]
    return {name: os.fsencode(value) for name, value in variables.items()}


def report_bug(error: BaseException) -> None:
    """Say that something went wrong that is nobody's fault but ours."""
    complain(f"a bug: {type(error).__name__}: {error}")
