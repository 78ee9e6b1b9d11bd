"""Who may in at ``sshproto serve``, and what is done for who is."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sshproto.channels.requests import ExitSignal, PtyRequest, Subsystem, X11Request
from sshproto.events import Event
from sshproto.keys.authorized_keys import parse
from sshproto.keys.public import PublicKey
from sshproto.operations.channel import Channel
from sshproto.operations.forwarding import Address
from sshproto.operations.serving import Challenge, Handler, ServedSession
from sshproto.operations.steps import Operation
from sshproto.text import printable
from sshproto.values import frozen
from sshproto_cli.child import Program, welcome, write_authority
from sshproto_cli.options import Failure, complain, describe, read_file, reporter, say

_LOOPBACK = "localhost"


def read_passwords(path: str) -> dict[str, str]:
    """The passwords in a file with lines ``user:password``. Empty lines and those with ``#`` in front are passed over.

    Raises:
        Failure: It cannot be read, or a line has another form.
    """
    data = read_file(path, "password file")
    if stat.S_IMODE(Path(path).stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        complain(f"password file {path}: others than its owner may read or write it; chmod 600 would help")
    passwords: dict[str, str] = {}
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.rstrip(b"\r").decode("utf-8", "surrogateescape")
        if not line or line.startswith("#"):
            continue
        user, colon, password = line.partition(":")
        if not colon or not user or not password:
            raise Failure(f"password file {path} line {number}: expected user:password")
        if passwords.setdefault(user, password) != password:
            raise Failure(f"password file {path} line {number}: a second password for the same user")
    return passwords


def check_authorized_keys(path: str) -> bool:
    """Say of each line of an ``authorized_keys`` file that cannot be used why that is.

    Returns:
        Whether there is one that can.

    Raises:
        Failure: It cannot be read.
    """
    found = parse(read_file(path, "authorized keys file"))
    useless = dict(found.problems)
    usable = False
    for entry in found.entries:
        unsupported = entry.unsupported()
        if unsupported:
            useless[entry.line] = _not_obeyed(unsupported)
        usable = usable or not unsupported
    for line in sorted(useless):
        complain(f"{path}:{line}: this line is not used: {useless[line]}")
    return usable


def _not_obeyed(options: tuple[str, ...]) -> str:
    return f"options that are not obeyed here: {', '.join(options)}"


class Gate:
    """Who may in.

    Args:
        keys: The ``authorized_keys`` file, read for each login; None if keys are not wanted.
        passwords: By user; None if passwords are not wanted.
    """

    def __init__(self, keys: Path | None, passwords: Mapping[str, str] | None) -> None:
        self._keys = keys
        self._salt = os.urandom(32)  # digests are compared: lengths do not show
        self._passwords = {user: self._digest(password) for user, password in (passwords or {}).items()}
        self._nobody = os.urandom(32)  # no password has this digest

    def against_key(self, key: PublicKey) -> str:
        """What speaks against this key; ``""`` if it may in."""
        what = f"{key.type} {key.fingerprint()}"
        if self._keys is None:
            return f"{what}: keys are not wanted"
        try:
            found = parse(read_file(str(self._keys), "authorized keys file"))
        except Failure as failure:
            complain(str(failure))
            return str(failure)
        problem = f"{what} is not in {self._keys}"
        for entry in found.matches(key):
            unsupported = entry.unsupported()
            if not unsupported:
                return ""
            problem = f"{what}: {self._keys}:{entry.line}: {_not_obeyed(unsupported)}"
        return problem

    def against_password(self, user: str, password: str) -> str:
        """What speaks against this password of this user; ``""`` if they may in. It takes the same time for users that
        there are not."""
        good = hmac.compare_digest(self._digest(password), self._passwords.get(user, self._nobody))
        if good:
            return ""
        return "wrong password" if user in self._passwords else "no password is set for this user"

    def _digest(self, password: str) -> bytes:
        return hashlib.blake2b(password.encode("utf-8", "surrogateescape"), key=self._salt, digest_size=32).digest()


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
        self._login: dict[str, str] = {}
        if peer and local:
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

    def public_key(self, user: str, key: PublicKey) -> bool:
        """See the base class."""
        return self._decide(user, self._gate.against_key(key))

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
