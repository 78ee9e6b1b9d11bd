"""What a server allows and does, for one connection: the class that applications derive from (RFC 4252, RFC 4254).

:func:`sshproto.operations.serving.serve` asks it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sshproto.channels.requests import Exec, PtyRequest, Shell, Subsystem, X11Request
from sshproto.keys.permits import Permit
from sshproto.operations.forwarding import Address
from sshproto.operations.steps import Operation
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelRequestData
    from sshproto.events import ChannelOpenRequested
    from sshproto.keys.certificates import Certificate
    from sshproto.keys.public import PublicKey
    from sshproto.operations.channel import Channel
    from sshproto.operations.granting import GrantedDisplay


@frozen
class Partial:
    """A login step that was good, but is not enough (RFC 4252 section 5.1).

    A key counts once: if another is wanted on top, neither it nor a certificate of it is asked about again.

    Attributes:
        methods: What the user may go on with; None for what is left.
        permit: What this step leaves of all that the login may do, once it has succeeded; None: it takes nothing away.
    """

    methods: tuple[str, ...] | None = None
    permit: Permit | None = None


@frozen
class Challenge:
    """What to ask the user next (RFC 4256 section 3.2).

    Attributes:
        prompts: Pairs of a text and whether the answer may be seen while it is typed.
        name, instruction: What the client shows first.
    """

    prompts: Sequence[tuple[str, bool]]
    name: str = ""
    instruction: str = ""


@frozen
class ChangePassword:
    """The password is right but has expired: a new one is wanted (RFC 4252 section 8).

    Attributes:
        prompt: What to show the user.
    """

    prompt: str = "Your password has expired."


Verdict = bool | Partial | Permit
"""Whether a user may in. A :class:`~sshproto.keys.permits.Permit` is a yes that says what the login may do, which the
server sees to; True allows everything. If several steps say it, what all of them allow."""


_SHELL = Shell()


class ServedSession:
    """A session at the server: what the client wants to run, and its streams.

    Attributes:
        channel: The channel. Data from the client is its stream 0.
        user: Who is logged in.
        program: What to run; ``Exec``, ``Shell`` or ``Subsystem``.
        env: The variables that the client sent. Use only those known to be harmless.
        permit: What the login may do. It is seen to that nothing else is granted; but what is granted by the handler
            itself (``~/.ssh/rc``, a ``tun`` device) is for the handler to look up.
        provided: Variables for the program that come from this side: ``SSH_AUTH_SOCK`` for an agent that the client
            forwards, ``DISPLAY`` for a display, those of the permit, and where the permit forces a command
            ``SSH_ORIGINAL_COMMAND`` with what the client has asked for. They go before those of the client.
        display: The display that was granted, or None. The program has to know its cookie.
        pty: The pseudo-terminal that was granted, or None. New sizes come as notices.
        at_end: What is to be undone when the session ends, however it does: for a handler that gets something ready
            when it allows a pseudo-terminal or a program. Its callbacks are called when the channel is closed.
    """

    # There may be many that are idle: what is seldom looked at is made when it is.
    __slots__ = ("_at_end", "_env", "_provided", "channel", "display", "permit", "program", "pty", "user")

    def __init__(self, channel: Channel, user: str, permit: Permit) -> None:
        self._at_end: contextlib.ExitStack | None = None
        self._env: dict[str, bytes] | None = None
        self._provided: dict[str, str] | None = None
        self.channel = channel
        self.user = user
        self.permit = permit
        self.program: Exec | Shell | Subsystem = _SHELL
        self.display: GrantedDisplay | None = None
        self.pty: PtyRequest | None = None

    def __repr__(self) -> str:
        return f"<ServedSession on channel {self.channel.number}, {type(self.program).__name__}>"

    @property
    def env(self) -> dict[str, bytes]:
        if self._env is None:
            self._env = {}
        return self._env

    @property
    def provided(self) -> dict[str, str]:
        if self._provided is None:
            self._provided = dict(self.permit.environment)
        return self._provided

    @property
    def at_end(self) -> contextlib.ExitStack:
        if self._at_end is None:
            self._at_end = contextlib.ExitStack()
        return self._at_end

    def next_notice(self) -> Operation[ChannelRequestData | None]:
        """The next ``WindowChange``, ``Signal`` or ``Break`` of the client; None when the channel is closed."""
        return self.channel.next_notice()

    def ended(self) -> None:
        """Undo what is to be undone."""
        if self._at_end is not None:
            self._at_end.close()


class Handler:
    """What a server allows and does, for one connection. Refuses everything; override what you want.

    Methods may be asynchronous where functions may be, or operations.
    """

    # ------------------------------------------------------------------------------------------------------------ login

    def none(self, user: str) -> Any:
        """Whether the user may in without any proof: a :data:`Verdict`. Asked only with ``ServerConfig.ask_none``."""
        return False

    def password(self, user: str, password: str, new_password: str | None) -> Any:
        """Whether the password is right: a :data:`Verdict`, or a :class:`ChangePassword`.

        Args:
            user, password: What came.
            new_password: After a :class:`ChangePassword`, what to change it to.
        """
        return False

    def public_key(self, user: str, key: PublicKey) -> Any:
        """Whether the user may in with this key: a :data:`Verdict`.

        Asked before the user has signed, and again when the signature has been verified: it is to have no effect.
        :meth:`AuthorizedKeys.authorize <sshproto.keys.authorized_keys.AuthorizedKeys.authorize>` gives such a verdict.
        """
        return False

    def certificate(self, user: str, certificate: Certificate) -> Any:
        """Whether the user may in with this certificate: a :data:`Verdict`, asked as :meth:`public_key` is.

        It is a user's certificate, and its authority has signed it; who that is, and all else, has to be looked at:
        :meth:`AuthorizedKeys.authorize <sshproto.keys.authorized_keys.AuthorizedKeys.authorize>` does that.
        """
        return False

    def keyboard_interactive(self, user: str, answers: Sequence[str] | None) -> Any:
        """The next step of a login by questions: a :class:`Challenge` or a :data:`Verdict`.

        Args:
            user: Who.
            answers: To the last challenge; None before the first.
        """
        return False

    def logged_in(self, user: str) -> Any:
        """The user is in."""

    # --------------------------------------------------------------------------------------------------------- sessions

    def allow_pty(self, session: ServedSession, request: PtyRequest) -> Any:
        """Whether the session gets a pseudo-terminal. The client's user then sees what you write as a terminal shows
        it, and what is typed comes raw."""
        return False

    def allow_env(self, session: ServedSession, name: str, value: bytes) -> Any:
        """Whether to take a variable: to put it into ``session.env``.

        There are variables that make programs do anything (``LD_PRELOAD``, ``GIT_SSH_COMMAND``, ``PYTHONSTARTUP``): say
        yes to those that are known to be harmless.
        """
        return False

    def allow_agent(self, session: ServedSession) -> Any:
        """Whether the session gets the client's agent: a socket, which ``session.provided`` names, leads to it."""
        return False

    def allow_x11(self, session: ServedSession, request: X11Request) -> Any:
        """Whether the session gets the client's display: ``session.display`` then says which one it is here, and with
        what cookie the program has to come."""
        return False

    def allow_program(self, session: ServedSession) -> Any:
        """Whether to run ``session.program``. Unless overridden: if there is a :meth:`session` that runs it."""
        return type(self).session is not Handler.session

    def session(self, session: Any) -> Any:
        """Run ``session.program``: the status, an ``ExitSignal``, or None for 0.

        It is cancelled when the channel closes.

        Args:
            session: The face's own, with streams of its kind. An operation reads, writes and hears of notices through
                ``session.channel`` instead, which is the same in all faces.
        """
        return 1

    # ------------------------------------------------------------------------------------------------------- forwarding

    def allow_connect(self, target: Address, origin: Address) -> Any:
        """Whether to connect the client to ``target``: True, False, or a function that serves the channel itself.

        Args:
            target: A host and a port, or a path.
            origin: Where the connection comes from, by the client's word.
        """
        return False

    def allow_listen(self, address: Address) -> Any:
        """Whether to listen for the client: True, False, or the address to listen at instead.

        Args:
            address: An address (``""`` for all) and a port (0 for any), or a path.
        """
        return False

    # ------------------------------------------------------------------------------------------------------------- rest

    def other_channel(self, question: ChannelOpenRequested) -> Any:
        """A channel of another kind is wanted: False, or a function that serves it."""
        return False

    def bug(self, error: Exception) -> Any:
        """A method raised ``error``. What it was asked has been refused. Unless overridden, the server's ``on_bug`` is
        told."""


DEFAULTS = frozenset(method for method in vars(Handler).values() if callable(method))
"""What a handler leaves as it is. That takes no time, and so it takes no thread either."""
