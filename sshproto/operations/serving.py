"""A server's side of a connection: who may in, what runs for them, what is forwarded (RFC 4252, RFC 4254).

A :class:`Handler` says what is allowed and does it; :func:`serve` asks it.  All its methods may be ordinary functions,
operations, or asynchronous where functions may be.  What it does not allow is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from sshproto.channels.requests import (
    AgentRequest,
    AuthAgentRequest,
    DirectStreamlocal,
    DirectTcpip,
    Env,
    Exec,
    ExitSignal,
    ExitStatus,
    PtyRequest,
    Session,
    Shell,
    Subsystem,
    X11Request,
)
from sshproto.errors import ChannelEnded, ConnectionLoss, SSHError, UsageError
from sshproto.events import (
    AuthQuestion,
    ChannelOpenRequested,
    ChannelRequested,
    GlobalRequested,
    InteractiveAuth,
    KeyAuth,
    KeyProbe,
    NoneAuth,
    PasswordAuth,
    Prompt,
    PromptsAnswered,
    Question,
)
from sshproto.operations.forwarding import Address, ByteStream, Listener, connect_channel
from sshproto.operations.listening import Listening
from sshproto.operations.steps import Call, Operation, Together, call, hand_over, is_operation
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelRequestData
    from sshproto.keys.public import PublicKey
    from sshproto.operations.channel import Channel
    from sshproto.operations.granting import GrantedDisplay
    from sshproto.operations.hub import Hub
    from sshproto.server import ServerConnection

_VARIABLES = 256
_VARIABLE_BYTES = 128 * 1024
_BUG_STATUS = 255


@frozen
class Partial:
    """A login step that was good, but is not enough (RFC 4252 section 5.1).

    Attributes:
        methods: What the user may go on with; None for what is left.
    """

    methods: tuple[str, ...] | None = None


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


Verdict = bool | Partial
"""Whether a user may in."""


class ServedSession:
    """A session at the server: what the client wants to run, and its streams.

    Attributes:
        channel: The channel. Data from the client is its stream 0.
        user: Who is logged in.
        program: What to run; ``Exec``, ``Shell`` or ``Subsystem``.
        env: The variables that the client sent. Use only those known to be harmless.
        provided: Variables for the program that come from this side: ``SSH_AUTH_SOCK`` for an agent that the client
            forwards, ``DISPLAY`` for a display.
        display: The display that was granted, or None. The program has to know its cookie.
        pty: The pseudo-terminal that was granted, or None. New sizes come as notices.
        at_end: What is to be undone when the session ends, however it does: for a handler that gets something ready
            when it allows a pseudo-terminal or a program. Its callbacks are called when the channel is closed.
    """

    def __init__(self, channel: Channel, user: str) -> None:
        self._at_end: contextlib.ExitStack | None = None
        self.channel = channel
        self.user = user
        self.program: Exec | Shell | Subsystem = Shell()
        self.env: dict[str, bytes] = {}
        self.provided: dict[str, str] = {}
        self.display: GrantedDisplay | None = None
        self.pty: PtyRequest | None = None

    def __repr__(self) -> str:
        return f"<ServedSession on channel {self.channel.number}, {type(self.program).__name__}>"

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


_DEFAULTS = frozenset(method for method in vars(Handler).values() if callable(method))
"""What a handler leaves as it is. That takes no time, and so it takes no thread either."""


@frozen
class World:
    """What serving needs of the world.

    Attributes:
        dial: Connects to an address; raises an ``OSError``.
        listen: Listens at an address; raises an ``OSError``.
        session: Makes what :meth:`Handler.session` gets.
        stream: Makes what a function gets that serves a channel itself.
        listen_privately: Listens at a new path that only this user gets to, and that is gone when the listener is
            closed; raises an ``OSError``. None where that can't be had.
        bug: Told of what the handler's methods raise, unless the handler has a method ``bug`` of its own.
    """

    dial: Callable[[Address], Operation[ByteStream]]
    listen: Callable[[Address], Operation[Listener]]
    session: Callable[[ServedSession], Any]
    stream: Callable[[Channel], Any]
    listen_privately: Callable[[], Operation[Listener]] | None = None
    bug: Callable[[Exception], object] = attrs.field(default=lambda _: None)


def serve(hub: Hub[ServerConnection], handler: Handler, world: World) -> Operation[ConnectionLoss]:
    """Serve one connection until it ends, and say why it did.

    Args:
        hub: The connection's.
        handler: What is allowed, and done.
        world: Sockets and streams.
    """
    return _Service(hub, handler, world).run()


class _Answered(Exception):
    """The handler has answered."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer


class _Service:
    """One connection that is served."""

    def __init__(self, hub: Hub[ServerConnection], handler: Handler, world: World) -> None:
        self._hub = hub
        self._handler = handler
        self._world = world
        self._user = ""
        self._listening = Listening(hub, partial(self._ask, handler.allow_listen), world.listen)

    def run(self) -> Operation[ConnectionLoss]:
        try:
            while True:
                question = yield from self._hub.next_question()
                match question:
                    case AuthQuestion():
                        try:
                            yield from self._authenticate(question)
                        finally:
                            self._hub.refuse(question)  # if this was cancelled
                    case ChannelOpenRequested(kind=Session()):
                        yield from self._start_session(question)
                    case ChannelOpenRequested():
                        yield from self._start(question, self._open(question))
                    case GlobalRequested():
                        yield from self._start(question, self._listening.answer(question))
                    case _:
                        self._hub.conn.refuse(question)
        except ConnectionLoss as loss:
            return loss
        finally:
            self._listening.close()

    def _bug(self, error: Exception) -> Operation[None]:
        """Tell of an error that the application has to know of."""
        own = type(self._handler).bug is not Handler.bug
        with contextlib.suppress(Exception):  # who is told of errors has nobody to tell of its own
            yield from call(self._handler.bug if own else self._world.bug, error)

    def _ask(self, function: Callable[..., Any], *args: Any) -> Operation[Any]:
        """Ask the handler; False if it fails."""
        if getattr(function, "__func__", None) in _DEFAULTS:
            return function(*args)
        try:
            answer: Any = yield Call(function, *args)
            if is_operation(answer):
                answer = yield from self._while_connected(answer)
            return answer
        except ConnectionLoss:
            raise
        except Exception as error:  # noqa: BLE001  a bug of the application's, which must not become a yes
            yield from self._bug(error)
            return False

    def _while_connected(self, operation: Operation[Any]) -> Operation[Any]:
        """Run an operation of the handler's; it is cancelled if the connection ends, for nobody waits for it then."""

        def run() -> Operation[None]:
            raise _Answered((yield from operation))

        def watch() -> Operation[None]:
            yield from self._hub.until_ended()
            self._hub.check()

        try:
            yield Together(run(), watch())
        except _Answered as answered:
            return answered.answer

    def _start(self, question: Question, answer: Operation[None]) -> Operation[None]:
        yield from hand_over(self._guarded(question, answer), partial(self._hub.refuse, question))

    def _guarded(self, question: Question, answer: Operation[None]) -> Operation[None]:
        try:
            yield from answer
        except (ConnectionLoss, ChannelEnded):
            pass
        except SSHError as error:
            yield from self._bug(error)
        finally:
            if question in self._hub.conn.questions or not getattr(question, "want_reply", True):
                self._hub.refuse(question)

    # ------------------------------------------------------------------------------------------------------------ login

    def _authenticate(self, question: AuthQuestion) -> Operation[None]:
        handler, user = self._handler, question.user
        match question:
            case NoneAuth():
                verdict = yield from self._ask(handler.none, user)
            case PasswordAuth(password=password, new_password=new):
                verdict = yield from self._ask(handler.password, user, password, new)
            case KeyProbe(key=key) | KeyAuth(key=key):
                verdict = yield from self._ask(handler.public_key, user, key)
            case InteractiveAuth():
                verdict = yield from self._ask(handler.keyboard_interactive, user, None)
            case PromptsAnswered(answers=answers):
                verdict = yield from self._ask(handler.keyboard_interactive, user, answers)
            case _:
                verdict = False
        try:
            yield from self._answer(question, verdict)
        except ConnectionLoss:
            raise
        except Exception as error:  # noqa: BLE001  a verdict that can't be told to the client
            self._hub.refuse(question)
            yield from self._bug(error)

    def _answer(self, question: AuthQuestion, verdict: object) -> Operation[None]:
        conn = self._hub.conn
        if question not in conn.questions:
            return  # the connection has ended meanwhile
        match verdict:
            case True if isinstance(question, KeyProbe):
                conn.offer_key(question)
            case True:
                conn.accept_auth(question)
                self._user = question.user
                yield from self._ask(self._handler.logged_in, question.user)
            case Partial() if isinstance(question, KeyProbe):
                conn.offer_key(question)
            case Partial(methods=methods):
                conn.reject_auth(question, partial=True, methods=methods)
            case Challenge(prompts, name, instruction) if isinstance(question, (InteractiveAuth, PromptsAnswered)):
                asked = [Prompt(text=text, echo=echo) for text, echo in prompts]
                conn.prompt(question, asked, name=name, instruction=instruction)
            case ChangePassword(prompt) if isinstance(question, PasswordAuth):
                conn.change_password(question, prompt)
            case _:
                conn.reject_auth(question)

    # --------------------------------------------------------------------------------------------------------- channels

    def _open(self, question: ChannelOpenRequested) -> Operation[None]:
        match question.kind:
            case DirectTcpip(host, port, address, number):
                yield from self._connect(question, (host, port), (address, number))
            case DirectStreamlocal(path):
                yield from self._connect(question, path, ("", 0))
            case _:
                server = yield from self._ask(self._handler.other_channel, question)
                if callable(server):
                    yield from self._serve_channel(question, server)

    def _connect(self, question: ChannelOpenRequested, target: Address, origin: Address) -> Operation[None]:
        verdict = yield from self._ask(self._handler.allow_connect, target, origin)
        if verdict is True:
            yield from connect_channel(self._hub, question, lambda _: self._world.dial(target))
        elif callable(verdict):
            yield from self._serve_channel(question, verdict)

    def _serve_channel(self, question: ChannelOpenRequested, server: Callable[..., Any]) -> Operation[None]:
        channel = yield from self._hub.accept_channel(question)
        try:
            yield from call(server, self._world.stream(channel))
        except (ConnectionLoss, ChannelEnded):  # its peer has gone: that ends it
            pass
        except Exception as error:  # noqa: BLE001  a bug of the application's, which must not take others with it
            yield from self._bug(error)
        finally:
            channel.close()

    # --------------------------------------------------------------------------------------------------------- sessions

    def _start_session(self, question: ChannelOpenRequested) -> Operation[None]:
        try:
            channel = yield from self._hub.accept_channel(question)
        except ChannelEnded:
            return
        channel.serving = True
        session = self._session(ServedSession(channel, self._user))
        channel.on_end = yield from hand_over(session, channel.close)
        if channel.closed:
            channel.on_end()

    def _session(self, session: ServedSession) -> Operation[None]:
        channel = session.channel
        try:
            if (yield from self._prepare(session)):
                channel.breaks = session.pty is not None
                channel.stop_serving()
                status = yield from self._run(session)
                yield from finish(channel, status)
        except (ConnectionLoss, ChannelEnded):
            pass
        except UsageError as error:  # what the program has returned can't be told to the client
            yield from self._bug(error)
        finally:
            channel.close()
            session.ended()

    def _prepare(self, session: ServedSession) -> Operation[bool]:
        """Grant what the session asks for, until it has its program; False if it never has."""
        handler = self._handler
        while (question := (yield from session.channel.next_request())) is not None:
            granted = False
            match question.request:
                case PtyRequest() as request if session.pty is None:
                    granted = (yield from self._ask(handler.allow_pty, session, request)) is True
                    if granted:
                        session.pty = request
                case Env(name, value) if _has_room(session.env, name, value):
                    granted = (yield from self._ask(handler.allow_env, session, name, value)) is True
                    if granted:
                        session.env[name] = value
                case X11Request() | AuthAgentRequest() | AgentRequest() as request:
                    granted = yield from self._grant(session, request)
                case Exec() | Shell() | Subsystem() as program:
                    session.program = program
                    granted = (yield from self._ask(handler.allow_program, session)) is True
                case _:
                    pass
            yield from self._decide(question, granted)
            if granted and question.request.starts:
                return True
        return False

    def _grant(self, session: ServedSession, request: X11Request | AuthAgentRequest | AgentRequest) -> Operation[bool]:
        from sshproto.operations.granting import Granting  # few ask for that

        return (yield from Granting(self._hub, self._ask, self._handler, self._world).grant(session, request))

    def _decide(self, question: ChannelRequested, granted: object) -> Operation[None]:
        conn = self._hub.conn
        yield from self._hub.command(lambda: conn.succeed(question) if granted else conn.fail(question))

    def _run(self, session: ServedSession) -> Operation[Any]:
        try:
            return _notice((yield from call(self._handler.session, self._world.session(session))))
        except (ConnectionLoss, ChannelEnded):
            raise
        except Exception as error:  # noqa: BLE001  a bug of the application's, which must not take others with it
            yield from self._bug(error)
            return _BUG_STATUS


def finish(channel: Channel, status: object) -> Operation[None]:
    """End a session: say how its program ended, and close.

    The status goes before the EOF: some clients close a channel that has had EOF both ways, and miss what follows.

    Args:
        channel: The session's.
        status: A number, an ``ExitSignal``, or None for 0.
    """
    try:
        yield from channel.notify(_notice(status))
        yield from channel.send_eof()
    except (ChannelEnded, ConnectionLoss):
        pass
    finally:
        channel.close()


def _notice(status: Any) -> ExitSignal | ExitStatus:
    return status if isinstance(status, (ExitSignal, ExitStatus)) else ExitStatus(int(status or 0) & 0xFFFFFFFF)


def _has_room(env: dict[str, bytes], name: str, value: bytes) -> bool:
    size = sum(len(key) + len(content) for key, content in env.items())
    return len(env) < _VARIABLES and size + len(name) + len(value) <= _VARIABLE_BYTES
