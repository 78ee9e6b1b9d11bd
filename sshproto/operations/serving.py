"""A server's side of a connection: who may in, what runs for them, what is forwarded (RFC 4252, RFC 4254).

A :class:`Handler` says what is allowed and does it; :func:`serve` asks it.  All its methods may be ordinary functions,
operations, or asynchronous where functions may be.  What it does not allow is refused.

What a login may do at all, its :class:`~sshproto.keys.permits.Permit` says, and the handler is not even asked for more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
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
    HostKeysProve,
    PtyRequest,
    Session,
    Shell,
    Subsystem,
    X11Request,
)
from sshproto.errors import (
    ChannelEnded,
    ConnectionLoss,
    InvalidArgument,
    SignatureInvalid,
    SSHError,
    UsageError,
)
from sshproto.events import (
    AuthQuestion,
    ChannelOpenRequested,
    GlobalRequested,
    InteractiveAuth,
    KeyAuth,
    KeyProbe,
    NoneAuth,
    PasswordAuth,
    Prompt,
    PromptsAnswered,
    Question,
    SignatureNeeded,
)
from sshproto.keys.permits import Permit
from sshproto.operations.forwarding import Address, ByteStream, Listener, connect_channel
from sshproto.operations.handler import (
    DEFAULTS,
    Challenge,
    ChangePassword,
    Handler,
    Partial,
    ServedSession,
    Verdict,
)
from sshproto.operations.listening import Listening
from sshproto.operations.steps import Call, Operation, Spawn, Together, call, hand_over, is_operation
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.channels.requests import ChannelRequestData
    from sshproto.operations.channel import Channel
    from sshproto.operations.hub import Hub
    from sshproto.server import ServerConnection

__all__ = [
    "Challenge",
    "ChangePassword",
    "Handler",
    "Partial",
    "Permit",
    "ServedSession",
    "Verdict",
    "World",
    "serve",
]

_VARIABLES = 256
_VARIABLE_BYTES = 128 * 1024
_BUG = ExitStatus(255)
_ORIGINAL = "SSH_ORIGINAL_COMMAND"
_NOTICES = (ExitSignal, ExitStatus)
_PROGRAMS = (Exec, Shell, Subsystem)
_PROOFS = 16  # requests for proofs of host keys that one client is answered; it needs one, and each costs signatures


@frozen
class World:
    """What serving needs of the world.

    Attributes:
        dial: Connects to an address; raises an ``OSError``.
        listen: Listens at an address; raises an ``OSError``.
        session: Makes what :meth:`Handler.session` gets.
        stream: Makes what a function gets that serves a channel itself.
        now: Tells the seconds since 1970.
        listen_privately: Listens at a new path that only this user gets to, and that is gone when the listener is
            closed; raises an ``OSError``. None where that can't be had.
        bug: Told of what the handler's methods raise, unless the handler has a method ``bug`` of its own.
    """

    dial: Callable[[Address], Operation[ByteStream]]
    listen: Callable[[Address], Operation[Listener]]
    session: Callable[[ServedSession], Any]
    stream: Callable[[Channel], Any]
    now: Callable[[], float]
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


_EVERYTHING = Permit()


class _Service:
    """One connection that is served."""

    # As small as can be, and so is the frame of run(): there may be thousands that are idle.
    __slots__ = ("_handler", "_hub", "_listening", "_permit", "_proofs", "_user", "_world")

    def __init__(self, hub: Hub[ServerConnection], handler: Handler, world: World) -> None:
        self._hub = hub
        self._handler = handler
        self._world = world
        self._user = ""
        self._permit = _EVERYTHING
        self._proofs = 0
        self._listening: Listening | None = None  # few clients have a server listen

    def run(self) -> Operation[ConnectionLoss]:
        hub = self._hub
        try:
            while True:
                question = hub.take_question()  # while none waits, the last one is not kept either
                if question is None:
                    hub.check()
                    yield hub.asked
                    continue
                yield from _ANSWERS[type(question)](self, question)
        except ConnectionLoss as loss:
            return loss
        finally:
            if self._listening is not None:
                self._listening.close()

    def _bug(self, error: Exception) -> Operation[None]:
        """Tell of an error that the application has to know of."""
        own = type(self._handler).bug is not Handler.bug
        with contextlib.suppress(Exception):  # who is told of errors has nobody to tell of its own
            yield from call(self._handler.bug if own else self._world.bug, error)

    def _ask(self, function: Callable[..., Any], *args: Any) -> Operation[Any]:
        """Ask the handler; False if it fails."""
        if getattr(function, "__func__", None) in DEFAULTS:
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
            if self._hub.owes(question) or not getattr(question, "want_reply", True):
                self._hub.refuse(question)

    # ------------------------------------------------------------------------------------------------------------ login

    def _authenticate(self, question: AuthQuestion) -> Operation[None]:
        handler, user = self._handler, question.user
        try:
            match question:
                case NoneAuth():
                    verdict = yield from self._ask(handler.none, user)
                case PasswordAuth(password=password, new_password=new):
                    verdict = yield from self._ask(handler.password, user, password, new)
                case KeyProbe(key=key, certificate=None) | KeyAuth(key=key, certificate=None):
                    verdict = yield from self._ask(handler.public_key, user, key)
                case KeyProbe(certificate=certificate) | KeyAuth(certificate=certificate):
                    verdict = yield from self._ask(handler.certificate, user, certificate)
                case InteractiveAuth():
                    verdict = yield from self._ask(handler.keyboard_interactive, user, None)
                case PromptsAnswered(answers=answers):
                    verdict = yield from self._ask(handler.keyboard_interactive, user, answers)
                case _:
                    verdict = False
            yield from self._answer(question, verdict)
        except ConnectionLoss:
            raise
        except Exception as error:  # noqa: BLE001  a verdict that can't be told to the client
            self._hub.refuse(question)
            yield from self._bug(error)
        finally:
            if self._hub.owes(question):  # this was cancelled
                self._hub.refuse(question)

    def _answer(self, question: AuthQuestion, verdict: object) -> Operation[None]:
        conn = self._hub.conn
        if not self._hub.owes(question):
            return  # the connection has ended meanwhile
        permit = self._permitted(question, verdict)
        match verdict:
            case True | Permit() | Partial() if permit is None:
                conn.reject_auth(question)
            case True | Permit() | Partial() if isinstance(question, KeyProbe):
                conn.offer_key(question)
            case True | Permit():
                conn.accept_auth(question)
                self._user, self._permit = question.user, permit or self._permit
                yield from self._announce()
                yield from self._ask(self._handler.logged_in, question.user)
            case Partial(methods=methods):
                conn.reject_auth(question, partial=True, methods=methods)
                self._permit = permit or self._permit
            case Challenge(prompts, name, instruction) if isinstance(question, (InteractiveAuth, PromptsAnswered)):
                asked = [Prompt(text=text, echo=echo) for text, echo in prompts]
                conn.prompt(question, asked, name=name, instruction=instruction)
            case ChangePassword(prompt) if isinstance(question, PasswordAuth):
                conn.change_password(question, prompt)
            case _:
                conn.reject_auth(question)

    def _permitted(self, question: AuthQuestion, verdict: object) -> Permit | None:
        """What this step of the login, and those before it, leave of all that it may do; None: not even to log in."""
        permit = verdict if isinstance(verdict, Permit) else verdict.permit if isinstance(verdict, Partial) else None
        if permit is None:
            return self._permit
        assertion = question.assertion if isinstance(question, KeyAuth) else None
        try:
            if permit.expired(self._world.now()):
                return None
            if assertion is not None:
                permit.check_assertion(assertion)
            return self._permit.narrowed(permit)
        except (SignatureInvalid, InvalidArgument):  # a token that nobody touched; or two steps force two commands
            return None

    # -------------------------------------------------------------------------------------------------------- host keys

    def _announce(self) -> Operation[None]:
        """Tell a client that has just been let in of all host keys."""
        if self._hub.conn._engine.config.announce_host_keys:
            yield from self._hub.until_open()
            yield from self._hub.command(self._hub.conn.announce_host_keys)

    def _answer_request(self, question: GlobalRequested) -> Operation[None]:
        """Answer what the client asks of the server itself."""
        if isinstance(question.request, HostKeysProve):
            return self._start(question, self._prove(question))
        if self._listening is None:
            self._listening = Listening(self._hub, self._allow_listen, self._world.listen)
        return self._start(question, self._listening.answer(question))

    def _decline(self, question: SignatureNeeded) -> Operation[None]:
        """The host keys of a server that runs here sign by themselves."""
        self._hub.refuse(question)
        yield from ()

    def _prove(self, question: GlobalRequested) -> Operation[None]:
        conn = self._hub.conn
        self._proofs += question.want_reply
        if question.want_reply and self._proofs <= _PROOFS and conn._engine.config.announce_host_keys:
            yield from self._hub.command(lambda: conn.prove_host_keys(question))

    # --------------------------------------------------------------------------------------------------------- channels

    def _open(self, question: ChannelOpenRequested) -> Operation[None]:
        if type(question.kind) is Session:
            return self._start_session(question)
        return self._start(question, self._open_other(question))

    def _open_other(self, question: ChannelOpenRequested) -> Operation[None]:
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
        if not self._permit.connects(target):
            return
        verdict = yield from self._ask(self._handler.allow_connect, target, origin)
        if verdict is True:
            yield from connect_channel(self._hub, question, lambda _: self._world.dial(target))
        elif callable(verdict):
            yield from self._serve_channel(question, verdict)

    def _allow_listen(self, address: Address) -> Operation[Any]:
        if not self._permit.listens(address):
            return False
        return (yield from self._ask(self._handler.allow_listen, address))

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
        session = self._session(ServedSession(channel, self._user, self._permit))
        try:
            cancel: Callable[[], object] = yield Spawn(session)
        except BaseException:
            channel.close()
            raise
        channel.on_end = cancel
        if channel.closed:
            cancel()

    def _session(self, session: ServedSession) -> Operation[None]:
        channel = session.channel
        try:
            if (yield from self._prepare(session)):
                channel.breaks = session.pty is not None
                channel.stop_serving()
                try:
                    status: Any = yield Call(self._handler.session, self._world.session(session))
                    if is_operation(status):
                        status = yield from status
                    status = _notice(status)
                except (ConnectionLoss, ChannelEnded):
                    raise
                except Exception as error:  # noqa: BLE001  a bug of the application's, which must not take others with it
                    yield from self._bug(error)
                    status = _BUG
                # Before the EOF: some clients close a channel that has had EOF both ways, and miss what follows.
                yield from channel.notify(status)
                yield from channel.send_eof()
        except (ConnectionLoss, ChannelEnded):
            pass
        except UsageError as error:  # what the program has returned can't be told to the client
            channel.close()
            yield from self._bug(error)
        finally:
            channel.close()
            session.ended()

    def _prepare(self, session: ServedSession) -> Operation[bool]:
        """Grant what the session asks for, until it has its program; False if it never has."""
        hub = self._hub
        while (question := (yield from session.channel.next_request())) is not None:
            request = question.request
            if isinstance(request, _PROGRAMS):
                session.program = _forced(session, request)
                granted = (yield from self._ask(self._handler.allow_program, session)) is True
            else:
                granted = yield from self._equip(session, request)
            hub.check()
            if not granted:
                hub.refuse(question)
                continue
            hub.grant(question)
            if request.starts:
                return True
        return False

    def _equip(self, session: ServedSession, request: ChannelRequestData) -> Operation[bool]:
        """Let the session have something for its program; False if it does not get it."""
        handler, permit = self._handler, session.permit
        granted = False
        match request:
            case PtyRequest() if session.pty is None and permit.pty:
                granted = (yield from self._ask(handler.allow_pty, session, request)) is True
                if granted:
                    session.pty = request
            case Env(name, value) if _has_room(session.env, name, value) and not _ours(permit, name):
                granted = (yield from self._ask(handler.allow_env, session, name, value)) is True
                if granted:
                    session.env[name] = value
            case X11Request() if permit.x11_forwarding:
                granted = yield from self._grant(session, request)
            case AuthAgentRequest() | AgentRequest() if permit.agent_forwarding:
                granted = yield from self._grant(session, request)
            case _:
                pass
        return granted

    def _grant(self, session: ServedSession, request: X11Request | AuthAgentRequest | AgentRequest) -> Operation[bool]:
        from sshproto.operations.granting import Granting  # few ask for that

        return (yield from Granting(self._hub, self._ask, self._handler, self._world).grant(session, request))


_LOGIN = (NoneAuth, PasswordAuth, KeyProbe, KeyAuth, InteractiveAuth, PromptsAnswered)
_ANSWERS: dict[type[Question], Callable[[_Service, Any], Operation[None]]] = {
    **dict.fromkeys(_LOGIN, _Service._authenticate),
    SignatureNeeded: _Service._decline,
    ChannelOpenRequested: _Service._open,
    GlobalRequested: _Service._answer_request,
}


def _forced(session: ServedSession, program: Exec | Shell | Subsystem) -> Exec | Shell | Subsystem:
    """What is run for a session that has asked for ``program``: the command that its permit forces, or that."""
    command = session.permit.force_command
    if command is None:
        return program
    session.provided.pop(_ORIGINAL, None)
    match program:
        case Exec(original):
            session.provided[_ORIGINAL] = original.decode("utf-8", "surrogateescape")
        case Subsystem(name):
            session.provided[_ORIGINAL] = name
        case Shell():
            pass
    return Exec(command.encode("utf-8", "surrogateescape"))


def _ours(permit: Permit, name: str) -> bool:
    """Whether a variable is one that the client has no say in."""
    return name in dict(permit.environment) or (permit.force_command is not None and name == _ORIGINAL)


def _notice(status: Any) -> ExitSignal | ExitStatus:
    """How a program ended: a number, an ``ExitSignal``, or None for 0."""
    return status if isinstance(status, _NOTICES) else ExitStatus(int(status or 0) & 0xFFFFFFFF)


def _has_room(env: dict[str, bytes], name: str, value: bytes) -> bool:
    size = sum(len(key) + len(content) for key, content in env.items())
    return len(env) < _VARIABLES and size + len(name) + len(value) <= _VARIABLE_BYTES
