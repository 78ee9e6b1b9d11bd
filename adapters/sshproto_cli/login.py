"""How clients log in: keys in their order, then passwords and what else the server wants to ask.

Keys are tried in the order of ``ssh``: certificates that were named; the keys of the agent that are among the files, in
its order; its others, unless ``IdentitiesOnly`` is set; then the other files, each with the certificate beside it.

Nothing is asked of the user before the server has said that it wants it: for an encrypted key the server is asked first
whether the key would do, and only then the user for its passphrase.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sshproto.errors import InvalidArgument, KeyFormatError, SSHError
from sshproto.events import (
    AuthSucceeded,
    BannerReceived,
    ConnectionLost,
    CredentialNeeded,
    PasswordExpired,
    PromptsReceived,
    SignatureNeeded,
)
from sshproto.keys.private import PassphraseNeeded, PrivateKey
from sshproto.keys.public import PublicKey
from sshproto.text import printable
from sshproto.values import frozen
from sshproto_cli.options import (
    AGENT_PATIENCE,
    LISTING_PATIENCE,
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
    from sshproto.keys.certificates import Certificate
    from sshproto.operations.agent_login import AgentKey, AgentKeys
    from sshproto.operations.agents import Agent
    from sshproto.operations.steps import Operation
    from sshproto.ssh_config import HostConfig
    from sshproto_cli.terminal import Terminal

T = TypeVar("T")

PASSWORD_VARIABLE = "SSHPROTO_PASSWORD"

_TRIES = 3
_LARGEST_KEY = 1024 * 1024

Opened = dict[Path, PrivateKey]
"""Encrypted keys that have been opened: so that a passphrase is asked for once, on however many hosts it logs in."""


_METHODS = ("publickey", "keyboard-interactive", "password")


@frozen
class _Try:
    """What to log in with: the key in a file, or of the agent.

    Attributes:
        path: The file.
        agent: The key of the agent.
        certificate: What is shown in place of the key in the file.
    """

    path: Path | None = None
    agent: AgentKey | None = None
    certificate: Certificate | None = None


class Login:
    """Answers the questions of a login.

    Args:
        user, host: For prompts.
        identities: Key files to try, in order.
        terminal: Who to ask.
        required: The files that have to be usable, or whether all have to; the others are passed over if they are not.
        verbose: Say what is passed over.
        on_the_way: The host is only one to jump through: what the environment has for a password is not meant for it.
        opened: Keys that other logins have opened, and this one opens.
        settings: What else the configuration says; None for what holds if it says nothing, without an agent.

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
        required: bool | Collection[Path] = False,
        verbose: bool = False,
        on_the_way: bool = False,
        opened: Opened | None = None,
        settings: HostConfig | None = None,
    ) -> None:
        self._who = f"{printable(user)}@{printable(host)}"
        self._identities = tuple(identities)
        self._required = frozenset((self._identities if required else ()) if isinstance(required, bool) else required)
        for path in self._identities:  # a file that is not there should be heard of at once, even where another does
            if path in self._required:
                read_file(str(path), "private key", _LARGEST_KEY)
        self._settings = settings
        self._allowed, self._most = _methods(settings)
        self._tries_left: deque[_Try] | None = None
        self._agent: Agent | None = None
        self._agent_keys: AgentKeys | None = None
        self._terminal = terminal
        self._verbose = verbose
        self._password = None if on_the_way else os.environ.get(PASSWORD_VARIABLE)
        self._on_the_way = on_the_way
        self._opened: Opened = {} if opened is None else opened
        self._last = ""  # the password last sent, which a change of it needs
        self._tries: Counter[str] = Counter()
        self._locked: dict[bytes, tuple[Path, bytes]] = {}
        self._ready: dict[bytes, tuple[Path, PrivateKey]] = {}
        self._prompted = False
        self._asked = False  # the user for a password or the like, since the server last said no
        self._hints: dict[str, None] = {}  # each once, in their order
        self.problem = ""

    @property
    def hints(self) -> tuple[str, ...]:
        return tuple(self._hints)

    def _hint(self, text: str) -> None:
        self._hints[text] = None

    def __call__(self, conn: ClientConnection, question: Question) -> Operation[None] | None:
        """Answer ``question``, at once or by the operation that is returned."""
        if isinstance(question, CredentialNeeded):
            return self._guarded(conn, self._credential(conn, question))
        if isinstance(question, SignatureNeeded):
            return self._guarded(conn, self._sign(conn, question))
        try:
            if isinstance(question, PromptsReceived):
                self._prompts(conn, question)
            elif isinstance(question, PasswordExpired):
                self._change(conn, question)
            else:
                conn.refuse(question)
        except Failure as failure:
            self._give_up(conn, failure)
        return None

    def _guarded(self, conn: ClientConnection, operation: Operation[None]) -> Operation[None]:
        try:
            yield from operation
        except Failure as failure:
            self._give_up(conn, failure)

    def _give_up(self, conn: ClientConnection, failure: Failure) -> None:
        self.problem = str(failure)
        conn.disconnect("the login was given up")

    def show(self, event: Event) -> None:
        """What the server wants shown."""
        quiet = self._settings is not None and self._settings.quiet
        if isinstance(event, BannerReceived) and not quiet:
            say(event.text.rstrip("\n"))
        if isinstance(event, (AuthSucceeded, ConnectionLost)):
            self.close()

    def close(self) -> None:
        """Let go of the agent. Repeated calls do nothing."""
        if self._agent is not None:
            self._agent.close()

    # ------------------------------------------------------------------------------------------------------ credentials

    def _credential(self, conn: ClientConnection, question: CredentialNeeded) -> Operation[None]:
        methods = question.methods
        refused, self._asked = self._asked and not question.partial_success, False
        if not methods and (self._allowed[:1] != ("publickey",)) and not self._tries["none"]:
            self._learn_methods(conn, question)
            return
        for method in self._allowed:
            if method == "publickey":
                if (not methods or method in methods) and (yield from self._try_keys(conn, question)):
                    return
            elif method in methods and self._try(conn, question, method, again=refused):
                return
        if not methods and not self._tries["none"]:
            self._learn_methods(conn, question)
        else:
            conn.give_up(question)

    def _learn_methods(self, conn: ClientConnection, question: CredentialNeeded) -> None:
        self._tries["none"] += 1
        conn.auth_none(question)

    def _try(self, conn: ClientConnection, question: CredentialNeeded, method: str, *, again: bool) -> bool:
        """Log in with ``method``, if that has not been done often enough.

        Args:
            conn: The connection.
            question: What to answer.
            method: ``"password"`` or ``"keyboard-interactive"``.
            again: The server has just refused what the user typed.
        """
        if self._tries[method] >= (self._most if self._password is None else 1):
            return False
        if self._password is None and not self._terminal.present:
            advice = "" if self._on_the_way else f"; {PASSWORD_VARIABLE} may hold one"
            self._hint(f"{self._nobody()} for a password{advice}")
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

    def _try_keys(self, conn: ClientConnection, question: CredentialNeeded) -> Operation[bool]:
        """Try the next key that is fit for it; False if there is none left."""
        if self._tries_left is None:
            self._tries_left = deque((yield from self._order(conn)))
        while self._tries_left:
            one = self._tries_left.popleft()
            try:
                if one.agent is not None and self._agent_keys is not None:
                    self._agent_keys.offer(conn, question, one.agent)
                    return True
                key = None if one.path is None else self._load(one.path)
                if key is None:
                    continue
                if self._agent_keys is not None:
                    self._agent_keys.offered = None
                conn.auth_public_key(question, key, certificate=one.certificate)
            except InvalidArgument as error:
                self._passed_over(str(error))
                continue
            return True
        return False

    def _order(self, conn: ClientConnection) -> Operation[list[_Try]]:
        """What there is to try, in its order."""
        settings = self._settings
        if settings is None:
            return [_Try(path) for path in self._identities]
        publics = {path: _public(path) for path in self._identities}
        blobs = {public.blob: path for path, public in reversed(publics.items()) if public is not None}
        certificates = [self._certificate(Path(name)) for name in settings.certificate_paths()]
        files: list[_Try] = []
        for path in self._identities:
            files.append(_Try(path))
            beside = None if certificates else _certificate_beside(path)
            if beside is not None:
                files.append(_Try(path, certificate=beside))
        found: tuple[AgentKey, ...] = ()
        socket = settings.agent_path()
        if socket is not None:
            found = yield from self._ask_agent(conn, socket, [*blobs, *(one.blob for one in certificates if one)])
        first: list[_Try] = []
        for certificate in certificates:
            if certificate is None or any(key.blob == certificate.blob for key in found):
                continue
            lent = None if self._agent_keys is None else self._agent_keys.lend(certificate.key, certificate)
            if lent is not None:
                first.append(_Try(agent=lent))
            elif certificate.key.blob in blobs:
                first.append(_Try(blobs[certificate.key.blob], certificate=certificate))
            else:
                self._passed_over(f"a certificate for {certificate.key.fingerprint()}, of which nobody has the key")
        have = {key.blob for key in found}
        rest = [one for one in files if one.certificate is not None or _blob(publics, one.path) not in have]
        return [*first, *(_Try(agent=key) for key in found), *rest]

    def _ask_agent(self, conn: ClientConnection, path: str, blobs: list[bytes]) -> Operation[tuple[AgentKey, ...]]:
        """The keys that the agent has for this login. That there is no agent is no reason to stop."""
        from sshproto.agent.framing import AgentError
        from sshproto.operations.agent_login import AgentKeys
        from sshproto_io.agents import reach

        try:
            self._agent = yield from reach(path)
        except AgentError as error:
            self._passed_over(str(error))
            return ()
        self._agent_keys = AgentKeys(self._agent)
        only = self._settings is not None and self._settings.identities_only
        try:
            found = yield from _in_time(LISTING_PATIENCE, self._agent_keys.fetch(conn, blobs, only=only))
        except AgentError as error:  # it took so long that people wonder
            complain(str(error))
            self._agent.close()
            self._agent = self._agent_keys = None
            return ()
        if self._agent_keys.problem is not None:
            self._passed_over(str(self._agent_keys.problem))
        return found

    def _certificate(self, path: Path) -> Certificate | None:
        from sshproto.keys.certificates import Certificate

        try:
            return Certificate.parse(read_file(str(path), "certificate", _LARGEST_KEY))
        except (Failure, KeyFormatError) as error:
            self._hint(str(error))
            self._passed_over(str(error))
            return None

    def _load(self, path: Path) -> PrivateKey | PublicKey | None:
        """The key in a file; its public half if it is encrypted, which is enough to ask the server about it."""
        required = path in self._required
        if not required and not path.exists():
            return None
        if path in self._opened:
            return self._to_add(path, self._opened[path])
        try:
            data = read_file(str(path), "private key", _LARGEST_KEY)
            try:
                key = PrivateKey.load(data)
                warn_of_readers(str(path))
                return self._to_add(path, key)
            except PassphraseNeeded as locked:
                check_openable(data, str(path))
                warn_of_readers(str(path))
                public = locked.public_key or _beside(path)
                if public is None:
                    opened = unlock(data, str(path), self._terminal)
                    if opened is None:
                        self._hint(self._no_passphrase(path))
                        return None
                    self._opened[path] = opened
                    return self._to_add(path, opened)
                self._locked[public.blob] = (path, data)
                return public
            except KeyFormatError as error:
                raise Failure(f"private key {path}: {error}") from None
        except Failure as failure:
            if required and not _is_public(path):
                raise
            self._hint(str(failure))
            self._passed_over(str(failure))
            return None

    def _to_add(self, path: Path, key: PrivateKey) -> PrivateKey | PublicKey:
        """A key that is open: itself, or its public half if the agent is to have it when the server would take it."""
        if self._agent is None or self._settings is None or self._settings.add_keys_to_agent[0] == "no":
            return key
        self._ready[key.public_key.blob] = (path, key)
        return key.public_key

    def _no_passphrase(self, path: Path) -> str:
        if self._terminal.present:
            return f"there is no passphrase for {path}"
        return f"{self._nobody()} for the passphrase of {path}; {PASSPHRASE_VARIABLE} may hold it"

    def _nobody(self) -> str:
        batch = self._settings is not None and self._settings.batch_mode
        return "BatchMode lets nobody be asked" if batch else "there is no terminal to ask"

    def _sign(self, conn: ClientConnection, question: SignatureNeeded) -> Operation[None]:
        if self._agent_keys is not None and self._agent_keys.offered is not None:
            from sshproto.agent.framing import AgentError

            try:
                signature = yield from _in_time(AGENT_PATIENCE, self._agent_keys.sign(question))
            except AgentError as error:
                self._agent_keys.problem, signature = error, None
            if signature is None:
                if self._agent_keys.problem is not None:
                    self._hint(str(self._agent_keys.problem))
                conn.decline_sign(question)
            else:
                conn.sign(question, signature)
            return
        blob = question.key.blob
        if blob in self._ready:
            path, key = self._ready[blob]
        else:
            path, data = self._locked[blob]
            opened = self._open(path, data, question.key)
            if opened is None:
                conn.decline_sign(question)
                return
            self._opened[path] = key = opened
        yield from self._add(path, key, question.certificate)
        conn.sign(question, key.sign(question.data, question.algorithm))

    def _open(self, path: Path, data: bytes, public: PublicKey) -> PrivateKey | None:
        """An encrypted key, with its passphrase; None if that can't be had."""
        try:
            key = unlock(data, str(path), self._terminal)
        except Failure as failure:
            self._hint(str(failure))
            if self._terminal.present:
                complain(str(failure))
            else:
                self._passed_over(str(failure))
            return None
        if key is None:
            self._hint(self._no_passphrase(path))
        elif key.public_key != public:
            self._hint(f"{path}.pub is another key than {path}")
        else:
            return key
        return None

    def _add(self, path: Path, key: PrivateKey, certificate: Certificate | None) -> Operation[None]:
        """Give a key to the agent, if that is wanted. That it does not take it is no reason to stop."""
        if self._agent is None or self._settings is None:
            return
        wanted, lifetime = self._settings.add_keys_to_agent
        if wanted == "no":
            return
        if wanted == "ask" and not self._terminal.confirm(f"Add key {path} to the agent (yes/no)? "):
            return
        confirm = wanted == "confirm"
        adding = self._agent.add(key, certificate, comment=str(path), lifetime=lifetime or None, confirm=confirm)
        try:
            yield from _in_time(LISTING_PATIENCE, adding)
        except SSHError as error:
            complain(f"the agent does not take {path}: {error}")

    def _passed_over(self, why: str) -> None:
        if self._verbose:
            complain(f"passed over: {why}")


def _in_time(seconds: float, operation: Operation[T]) -> Operation[T]:
    """The result of ``operation``, which asks an agent.

    Raises:
        AgentUnavailable: It does not come in time.
    """
    from sshproto.agent.framing import AgentUnavailable
    from sshproto.operations.steps import within

    return within(operation, seconds, AgentUnavailable(f"the agent has not answered in {seconds:g} seconds"))


def _methods(settings: HostConfig | None) -> tuple[tuple[str, ...], int]:
    """The methods to log in with, in order, and how often to ask for a password."""
    if settings is None:
        return _in_usual_order(_METHODS), _TRIES
    allowed = {
        "publickey": settings.pubkey_authentication != "no",
        "password": settings.password_authentication,
        "keyboard-interactive": settings.kbd_interactive_authentication,
    }
    preferred = settings.preferred_authentications
    order = _in_usual_order(_METHODS) if preferred is None else tuple(dict.fromkeys(preferred.split(",")))
    return tuple(name for name in order if allowed.get(name, False)), settings.number_of_password_prompts


def _in_usual_order(methods: tuple[str, ...]) -> tuple[str, ...]:
    """A password in the environment is an answer to a question for a password, and to others perhaps."""
    return methods if os.environ.get(PASSWORD_VARIABLE) is None else (methods[0], *methods[:0:-1])


def _blob(publics: dict[Path, PublicKey | None], path: Path | None) -> bytes:
    public = None if path is None else publics[path]
    return b"" if public is None else public.blob


def _public(path: Path) -> PublicKey | None:
    """The public half of the key in a file, as far as that can be had without asking anybody."""
    try:
        data = path.read_bytes()[:_LARGEST_KEY]
    except OSError:
        return _beside(path)
    try:
        return PublicKey.parse(data) if _looks_public(data) else PrivateKey.load(data).public_key
    except PassphraseNeeded as locked:
        return locked.public_key or _beside(path)
    except KeyFormatError:
        return _beside(path)


def _looks_public(data: bytes) -> bool:
    return b"PRIVATE KEY" not in data and not data.startswith(b"PuTTY")


def _is_public(path: Path) -> bool:
    """Whether a file has a public key only: the agent may have had the other half."""
    try:
        PublicKey.parse(path.read_bytes()[:_LARGEST_KEY])
    except (OSError, KeyFormatError):
        return False
    return True


def _certificate_beside(path: Path) -> Certificate | None:
    """The certificate in the file ``path-cert.pub``."""
    from sshproto.keys.certificates import Certificate

    try:
        return Certificate.parse(path.with_name(path.name + "-cert.pub").read_bytes()[:_LARGEST_KEY])
    except (OSError, KeyFormatError):
        return None


def _beside(path: Path) -> PublicKey | None:
    """The public key in the file ``path.pub``."""
    try:
        return PublicKey.parse(path.with_name(path.name + ".pub").read_bytes())
    except (OSError, KeyFormatError):
        return None
