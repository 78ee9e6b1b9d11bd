"""How clients log in: keys in their order, then passwords and what else the server wants to ask.

Nothing is asked of the user before the server has said that it wants it: for an encrypted key the server is asked first
whether the key would do, and only then the user for its passphrase.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sshproto.errors import InvalidArgument, KeyFormatError
from sshproto.events import (
    BannerReceived,
    CredentialNeeded,
    PasswordExpired,
    PromptsReceived,
    SignatureNeeded,
)
from sshproto.keys.private import PassphraseNeeded, PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.text import printable
from sshproto_cli.options import (
    PASSPHRASE_VARIABLE,
    Failure,
    check_openable,
    complain,
    read_file,
    say,
    unlock,
    warn_of_readers,
)

if TYPE_CHECKING:
    from sshproto.client import ClientConnection
    from sshproto.events import Event, Question
    from sshproto_cli.terminal import Terminal

PASSWORD_VARIABLE = "SSHPROTO_PASSWORD"

_TRIES = 3
_LARGEST_KEY = 1024 * 1024

Opened = dict[Path, PrivateKey]
"""Encrypted keys that have been opened: so that a passphrase is asked for once, on however many hosts it logs in."""


class Login:
    """Answers the questions of a login.

    Args:
        user, host: For prompts.
        identities: Key files to try, in order.
        terminal: Who to ask.
        required: Whether a file that cannot be used is an error; else it is passed over.
        verbose: Say what is passed over.
        on_the_way: The host is only one to jump through: what the environment has for a password is not meant for it.
        opened: Keys that other logins have opened, and this one opens.

    Attributes:
        hints: Why this or that could not be tried, and what the user could do about it, for a login that failed.
        problem: What went wrong here and ended the login.
    """

    def __init__(
        self,
        user: str,
        host: str,
        identities: Iterable[Path],
        terminal: Terminal,
        *,
        required: bool = False,
        verbose: bool = False,
        on_the_way: bool = False,
        opened: Opened | None = None,
    ) -> None:
        self._who = f"{printable(user)}@{printable(host)}"
        self._identities = deque(identities)
        if required:  # a file that is not there should be heard of at once, even where another key would do
            for path in self._identities:
                read_file(str(path), "private key", _LARGEST_KEY)
        self._terminal = terminal
        self._required = required
        self._verbose = verbose
        self._password = None if on_the_way else os.environ.get(PASSWORD_VARIABLE)
        self._on_the_way = on_the_way
        self._opened: Opened = {} if opened is None else opened
        self._last = ""  # the password last sent, which a change of it needs
        self._tries: Counter[str] = Counter()
        self._locked: dict[bytes, tuple[Path, bytes]] = {}
        self._prompted = False
        self._asked = False  # the user for a password or the like, since the server last said no
        self._hints: dict[str, None] = {}  # each once, in their order
        self.problem = ""

    @property
    def hints(self) -> tuple[str, ...]:
        return tuple(self._hints)

    def _hint(self, text: str) -> None:
        self._hints[text] = None

    def __call__(self, conn: ClientConnection, question: Question) -> None:
        """Answer ``question``."""
        try:
            if isinstance(question, CredentialNeeded):
                self._credential(conn, question)
            elif isinstance(question, PromptsReceived):
                self._prompts(conn, question)
            elif isinstance(question, SignatureNeeded):
                self._sign(conn, question)
            elif isinstance(question, PasswordExpired):
                self._change(conn, question)
            else:
                conn.refuse(question)
        except Failure as failure:
            self.problem = str(failure)
            conn.disconnect("the login was given up")

    def show(self, event: Event) -> None:
        """What the server wants shown."""
        if isinstance(event, BannerReceived):
            say(event.text.rstrip("\n"))

    # ------------------------------------------------------------------------------------------------------ credentials

    def _credential(self, conn: ClientConnection, question: CredentialNeeded) -> None:
        methods = question.methods
        refused, self._asked = self._asked and not question.partial_success, False
        while self._identities and (not methods or "publickey" in methods):
            key = self._load(self._identities.popleft())
            if key is None:
                continue
            try:
                conn.auth_public_key(question, key)
            except InvalidArgument as error:
                self._passed_over(str(error))
                continue
            return
        if not methods and not self._tries["none"]:
            self._tries["none"] += 1
            conn.auth_none(question)  # to learn the methods
            return
        order = ("keyboard-interactive", "password")
        for method in order if self._password is None else reversed(order):
            if method in methods and self._try(conn, question, method, again=refused):
                return
        conn.give_up(question)

    def _try(self, conn: ClientConnection, question: CredentialNeeded, method: str, *, again: bool) -> bool:
        """Log in with ``method``, if that has not been done often enough.

        Args:
            conn: The connection.
            question: What to answer.
            method: ``"password"`` or ``"keyboard-interactive"``.
            again: The server has just refused what the user typed.
        """
        if self._tries[method] >= (_TRIES if self._password is None else 1):
            return False
        if self._password is None and not self._terminal.present:
            advice = "" if self._on_the_way else f"; {PASSWORD_VARIABLE} may hold one"
            self._hint(f"there is no terminal to ask for a password{advice}")
            return False
        if again:
            say("The server did not accept that; please try again.")
        if method == "password":
            password = self._password
            if password is None:
                password = self._terminal.ask(f"{self._who}'s password: ")
                self._asked = True
            if password is None:
                return False
            self._last = password
            try:
                conn.auth_password(question, password)
            except InvalidArgument as error:
                raise Failure(str(error)) from None
        else:
            self._prompted = False
            conn.auth_keyboard_interactive(question)
        self._tries[method] += 1
        return True

    def _prompts(self, conn: ClientConnection, question: PromptsReceived) -> None:
        prompts = question.prompts
        if self._password is not None and len(prompts) == 1 and not prompts[0].echo and not self._prompted:
            self._prompted = True
            self._last = self._password
            conn.answer_prompts(question, [self._password])
            return
        answers: list[str] = []
        if prompts and self._terminal.present:
            for line in (question.name, question.instruction):
                if line:
                    say(line)
        for prompt in prompts:
            answer = self._terminal.ask(f"({self._who}) {prompt.text}", echo=prompt.echo)
            if answer is None:
                # Not an empty one, which the server would count. Other methods come first where nobody can be asked.
                self._hint(f"the server asks {printable(prompt.text.strip())!r} and there is nobody to answer")
                conn.give_up(question)
                return
            self._asked = True
            answers.append(answer)
        conn.answer_prompts(question, answers)

    def _change(self, conn: ClientConnection, question: PasswordExpired) -> None:
        say(question.prompt.rstrip("\n"))
        if self._tries["change"] < _TRIES and self._terminal.present:
            self._tries["change"] += 1
            new = self._terminal.ask(f"New password for {self._who}: ")
            if new and self._terminal.ask("The same again: ") == new:
                conn.new_password(question, self._last, new)
                return
        raise Failure(f"the password of {self._who} has expired")

    # ------------------------------------------------------------------------------------------------------------- keys

    def _load(self, path: Path) -> PrivateKey | PublicKey | None:
        """The key in a file; its public half if it is encrypted, which is enough to ask the server about it."""
        if not self._required and not path.exists():
            return None
        if path in self._opened:
            return self._opened[path]
        try:
            data = read_file(str(path), "private key", _LARGEST_KEY)
            try:
                key = PrivateKey.load(data)
                warn_of_readers(str(path))
                return key
            except PassphraseNeeded as locked:
                check_openable(data, str(path))
                warn_of_readers(str(path))
                public = locked.public_key or _beside(path)
                if public is None:
                    opened = unlock(data, str(path), self._terminal)
                    if opened is None:
                        self._hint(self._no_passphrase(path))
                    else:
                        self._opened[path] = opened
                    return opened
                self._locked[public.blob] = (path, data)
                return public
            except KeyFormatError as error:
                raise Failure(f"private key {path}: {error}") from None
        except Failure as failure:
            if self._required:
                raise
            self._hint(str(failure))
            self._passed_over(str(failure))
            return None

    def _no_passphrase(self, path: Path) -> str:
        if self._terminal.present:
            return f"there is no passphrase for {path}"
        return f"there is no terminal to ask for the passphrase of {path}; {PASSPHRASE_VARIABLE} may hold it"

    def _sign(self, conn: ClientConnection, question: SignatureNeeded) -> None:
        path, data = self._locked[question.key.blob]
        try:
            key = unlock(data, str(path), self._terminal)
        except Failure as failure:
            self._hint(str(failure))
            if self._terminal.present:
                complain(str(failure))
            else:
                self._passed_over(str(failure))
            conn.decline_sign(question)
            return
        if key is None:
            self._hint(self._no_passphrase(path))
            conn.decline_sign(question)
        elif key.public_key != question.key:
            self._hint(f"{path}.pub is another key than {path}")
            conn.decline_sign(question)
        else:
            self._opened[path] = key
            conn.sign(question, key.sign(question.data, question.algorithm))

    def _passed_over(self, why: str) -> None:
        if self._verbose:
            complain(f"passed over: {why}")


def _beside(path: Path) -> PublicKey | None:
    """The public key in the file ``path.pub``."""
    try:
        return PublicKey.parse(path.with_name(path.name + ".pub").read_bytes())
    except (OSError, KeyFormatError):
        return None
