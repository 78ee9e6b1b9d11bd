"""One connection to ``sshproto serve``: whether it may in, and its sessions."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sshproto.channels import requests
from sshproto.events import (
    Authenticated,
    AuthQuestion,
    ChannelClosed,
    ChannelNotified,
    ChannelOpenRequested,
    ChannelRequested,
    ChannelWritable,
    DataReceived,
    EofReceived,
    Event,
    InteractiveAuth,
    KeyAuth,
    KeyProbe,
    PasswordAuth,
    Prompt,
    PromptsAnswered,
    Question,
)
from sshproto.keys.authorized_keys import parse
from sshproto.text import printable
from sshproto_cli.options import Failure, complain, read_file, reporter, say
from sshproto_cli.session import Session

if TYPE_CHECKING:
    from sshproto.keys.public import PublicKey
    from sshproto.server import ServerConnection
    from sshproto_io.driver import Driver


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


class Visitor:
    """The handler of one connection.

    Args:
        driver: The connection's driver.
        address: The client's, as ``accept`` gave it.
        gate: Who may in.
        execute: Whether commands are run.
        verbose: Whether events are shown.
    """

    def __init__(
        self, driver: Driver[ServerConnection], address: Any, gate: Gate, *, execute: bool, verbose: bool
    ) -> None:
        self._driver = driver
        self._conn = driver.conn
        self._gate = gate
        self._execute = execute
        self._verbose = verbose
        self._prefix = f"{address[0]} port {address[1]}: "
        self._report = reporter(self._prefix) if verbose else None
        self._login: dict[str, str] = {}
        self._sessions: dict[int, Session] = {}
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            KeyProbe: self._key_probe,
            KeyAuth: self._key,
            PasswordAuth: self._password,
            InteractiveAuth: self._interactive,
            PromptsAnswered: self._answers,
            Authenticated: self._authenticated,
            ChannelOpenRequested: self._open,
            ChannelRequested: self._request,
            ChannelNotified: lambda event: self._session(event.channel, lambda found: found.notified(event.notice)),
            ChannelWritable: lambda event: self._session(event.channel, Session.writable),
            DataReceived: self._data,
            EofReceived: lambda event: self._session(event.channel, Session.eof),
            ChannelClosed: self._channel_closed,
        }

    def on_event(self, event: Event) -> None:
        """See :class:`~sshproto_io.blocking.Handler`."""
        if self._report is not None:
            self._report(event)
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        elif isinstance(event, Question):
            self._conn.refuse(event)

    def closed(self) -> None:
        """See :class:`~sshproto_io.blocking.Handler`."""
        for session in self._sessions.values():
            session.end()
        self._sessions.clear()

    # ------------------------------------------------------------------------------------------------------------ login

    def _key_probe(self, question: KeyProbe) -> None:
        problem = self._gate.against_key(question.key)
        if problem:
            self._refuse(question, problem)
        else:
            self._conn.offer_key(question)

    def _key(self, question: KeyAuth) -> None:
        self._decide(question, self._gate.against_key(question.key))

    def _password(self, question: PasswordAuth) -> None:
        self._decide(question, self._gate.against_password(question.user, question.password))

    def _interactive(self, question: InteractiveAuth) -> None:
        self._conn.prompt(question, [Prompt(text="Password: ", echo=False)])

    def _answers(self, question: PromptsAnswered) -> None:
        self._decide(question, self._gate.against_password(question.user, question.answers[0]))

    def _decide(self, question: KeyAuth | PasswordAuth | PromptsAnswered, problem: str) -> None:
        if problem:
            self._refuse(question, problem)
        else:
            self._conn.accept_auth(question)

    def _refuse(self, question: AuthQuestion, problem: str) -> None:
        if self._verbose:
            say(f"{self._prefix}login as {printable(question.user)} refused: {printable(problem, 4096)}")
        self._conn.reject_auth(question)

    def _authenticated(self, event: Authenticated) -> None:
        client, server = self._driver.addresses()
        if client and server:
            self._login = {
                "SSH_CLIENT": f"{client[0]} {client[1]} {server[1]}",
                "SSH_CONNECTION": f"{client[0]} {client[1]} {server[0]} {server[1]}",
            }

    # --------------------------------------------------------------------------------------------------------- channels

    def _open(self, question: ChannelOpenRequested) -> None:
        if isinstance(question.kind, requests.Session):
            self._conn.accept_channel(question)
            self._sessions[question.channel] = Session(self._driver, question.channel, self._login)
        else:
            self._conn.reject_channel(question)

    def _request(self, question: ChannelRequested) -> None:
        if self._execute:
            self._sessions[question.channel].requested(question)
        else:
            self._conn.fail(question)

    def _data(self, event: DataReceived) -> None:
        self._sessions[event.channel].data(event.data)

    def _channel_closed(self, event: ChannelClosed) -> None:
        session = self._sessions.pop(event.channel, None)
        if session is not None:
            session.end()

    def _session(self, channel: int, action: Callable[[Session], None]) -> None:
        session = self._sessions.get(channel)
        if session is not None:
            action(session)
