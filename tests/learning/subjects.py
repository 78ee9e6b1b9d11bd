"""A server and a client as they are learnt: the words that can be said to them, and what they are heard to answer.

The applications behind them decide everything at once and always in the same way.  A word is a message of the peer's,
or, when it begins with ``APP``, something that the application does.  An answer is what the connection sends, in the
order in which it leaves, and behind that in brackets what its application is told; a connection that ends says why.
``-`` is an answer of the learner itself: it does not say that now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from sshproto import events as ev
from sshproto.auth import methods
from sshproto.channels.requests import Exec, Session
from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, ServerConfig, Timeouts
from sshproto.errors import UsageError
from sshproto.server import ServerConnection
from sshproto.transport.link import Phase
from sshproto.wire import codec
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.learning.peer import LIMITS, PREFERENCES, Peer, entropy, summary
from tests.support.seeds import HOST_KEY, USER_CERTIFICATE, USER_KEY, key

Word = Callable[[Any], object]

GUARD = "-"
"""The learner does not say that now."""
SILENT = "."
"""Nothing is sent, and nothing is told."""

STRANGER_KEY = key("stranger")
ALGORITHM = "ssh-ed25519"
CERTIFIED = "ssh-ed25519-cert-v01@openssh.com"
USER, STRANGER, PASSWORD = "alice", "mallory", "xyzzy"
NEVER = Timeouts(handshake=None, auth=None, kex=None, rekey=None, linger=None)
CONFIG = {"preferences": PREFERENCES, "limits": LIMITS, "timeouts": NEVER, "debug_raise": True}
WINDOW = 2**31


def _says(message: m.Message | bytes) -> Word:
    return lambda subject: subject.peer.say(message)


BOTH: dict[str, Word] = {
    "VERSION": lambda subject: None if subject.peer.version() else GUARD,
    "GARBAGE": lambda subject: subject.peer.garbage(),
    "KEXINIT": lambda subject: subject.peer.kexinit(),
    "KEXINIT_NOT_STRICT": lambda subject: subject.peer.kexinit(strict=False),
    "NEWKEYS": lambda subject: subject.peer.new_keys(),
    "DISCONNECT": _says(m.Disconnect(11, "")),
    "IGNORE": _says(m.Ignore(b"")),
    "DEBUG": _says(m.Debug(False, "")),
    "UNIMPLEMENTED": _says(m.Unimplemented(2**32 - 1)),
    "UNKNOWN_15": _says(bytes((15,))),
    "UNKNOWN_200": _says(bytes((200,))),
    "PING": _says(m.Ping(b"")),
    "GLOBAL_REQUEST": _says(m.GlobalRequest("learner@example.org", True)),
    "REQUEST_SUCCESS": _says(m.RequestSuccess()),
    "CHANNEL_WINDOW_ADJUST": lambda subject: subject.peer.say(m.ChannelWindowAdjust(subject.channel, 1)),
    "CHANNEL_DATA": lambda subject: subject.peer.say(m.ChannelData(subject.channel, b"x")),
    "CHANNEL_EXTENDED_DATA": lambda subject: subject.peer.say(m.ChannelExtendedData(subject.channel, 1, b"x")),
    "CHANNEL_EOF": lambda subject: subject.peer.say(m.ChannelEof(subject.channel)),
    "CHANNEL_CLOSE": lambda subject: subject.peer.say(m.ChannelClose(subject.channel)),
    "CHANNEL_SUCCESS": lambda subject: subject.peer.say(m.ChannelSuccess(subject.channel)),
    "APP_CLOSE": lambda subject: subject.conn.close_channel(subject.channel),
    "APP_REKEY": lambda subject: subject.conn.rekey(),
}


PASSING = frozenset(
    """IGNORE DEBUG UNIMPLEMENTED UNKNOWN_15 UNKNOWN_200 PING GLOBAL_REQUEST REQUEST_SUCCESS CHANNEL_SUCCESS
    CHANNEL_WINDOW_ADJUST""".split()
)
"""Words that are not meant to lead anywhere. That they don't is tried in every state, but not what comes of two."""


class Subject:
    """A connection in memory, its peer and its application.

    Attributes:
        channel: The connection's number of the channel that is talked about: the latest, or 0.
    """

    role: ClassVar[Role]
    words: ClassVar[dict[str, Word]]

    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.peer = Peer(self.role.peer, conn)
        self.channel = 0
        self.over = False
        self._opened = -1
        self.peer.hear()

    def step(self, word: str) -> str:
        """Say a word. The answer."""
        if self.over:
            return SILENT
        if self.conn.blocked_on is not None and not word.startswith("APP"):
            return GUARD  # input waits for the application, and every order of it would be a state
        try:
            if self.words[word](self) == GUARD:
                return GUARD
        except UsageError as error:
            assert not self.peer.hear()
            return f"raises {type(error).__name__}"
        events, sent = self._settle()
        if events and events[-1].startswith("!"):
            self._check_silence()
        return " ".join([*summary(sent), *([f"[{' '.join(events)}]"] if events else [])]) or SILENT

    def _settle(self) -> tuple[list[str], list[str]]:
        """Let the application do what it does, until all is quiet."""
        events: list[str] = []
        sent: list[str] = []
        while True:
            before = len(events) + len(sent)
            while (event := self.conn.next_event()) is not None:
                if isinstance(event, ev.ConnectionLost):
                    self.over = True
                    events.append(f"!{type(event.error).__name__}")
                else:
                    events.append(self._told(event))
            sent += self.peer.hear()
            if len(events) + len(sent) == before:
                return events, sent

    def _check_silence(self) -> None:
        """What has ended stays so, whatever is said to it."""
        self.peer.say(m.Ignore(b""))
        self.peer.say(m.Ping(b""))
        assert self._settle() == ([], [])

    def _told(self, event: ev.Event) -> str:
        self.react(event)
        return type(event).__name__

    def react(self, event: ev.Event) -> None:
        """The application's part."""
        raise NotImplementedError

    def situation(self) -> str:
        """Where the connection is, in its own words; for people who read the machine."""
        phase = self.conn.phase
        rekeying = self.conn.rekeying and phase in {Phase.AUTH, Phase.OPEN}
        return f"{phase.value}, rekeying" if rekeying else phase.value


# --------------------------------------------------------------------------------------------------------------- server


def _login(form: methods.Form, user: str = USER) -> Word:
    return _asks(methods.request(user, form))


def _asks(message: m.UserauthRequest) -> Word:
    def word(subject: Server) -> None:
        subject.abandon()
        subject.peer.say(message)

    return word


def _signs(secret: Any, *, good: bool = True) -> Word:
    """A login with a key; a bad one signs for another session."""

    def word(subject: Server) -> None:
        blob = secret.public_key.blob
        session = subject.peer.session_id if good else bytes(32)
        data = methods.signed_data(session, USER, methods.SERVICE, ALGORITHM, blob)
        _login(methods.PublicKeySigned(ALGORITHM, blob, secret.sign(data, ALGORITHM)))(subject)

    return word


def _signs_bound(host_key: bytes) -> Word:
    """A login with a certificate that is bound to a host key."""

    def word(subject: Server) -> None:
        data = methods.signed_data(
            subject.peer.session_id, USER, methods.SERVICE, CERTIFIED, USER_CERTIFICATE.blob, host_key
        )
        signature = USER_KEY.sign(data, ALGORITHM)
        _login(methods.HostBoundSigned(CERTIFIED, USER_CERTIFICATE.blob, host_key, signature))(subject)

    return word


def _interactive(subject: Server) -> None:
    subject.abandon()
    subject.peer.say(methods.request(USER, methods.KeyboardInteractive()))


def _responds(text: str) -> Word:
    def word(subject: Server) -> str | None:
        if subject.abandoned:
            return GUARD  # a few late ones are ignored, and each of them would be a state
        subject.peer.say(m.UserauthInfoResponse((text,)))
        return None

    return word


def _opens(subject: Server) -> str | None:
    if subject.conn.channels:
        return GUARD  # one at a time
    subject.peer.say(m.ChannelOpen("session", 5, WINDOW, 32768))
    return None


class Server(Subject):
    """A server whose application knows one user, her key and her password, and echoes what comes in a channel.

    Attributes:
        prompted: Answers to its questions are awaited.
        abandoned: Questions of its were passed over.
    """

    role = Role.SERVER
    words: ClassVar[dict[str, Word]] = {
        **BOTH,
        "KEXINIT_WRONG_GUESS": lambda subject: subject.peer.kexinit(guess=True),
        "KEX30": lambda subject: subject.peer.init(),
        "KEX30_BAD": lambda subject: subject.peer.init(bad=True),
        "KEX31": lambda subject: subject.peer.reply(),
        "EXT_INFO": _says(m.ExtInfo(())),
        "SERVICE_REQUEST": _says(m.ServiceRequest("ssh-userauth")),
        "SERVICE_REQUEST_CONNECTION": _says(m.ServiceRequest("ssh-connection")),
        "SERVICE_ACCEPT": _says(m.ServiceAccept("ssh-userauth")),
        "NONE": _login(methods.NoneForm()),
        "PASSWORD": _login(methods.Password(PASSWORD)),
        "PASSWORD_WRONG": _login(methods.Password("wrong")),
        "PASSWORD_STRANGER": _login(methods.Password(PASSWORD), STRANGER),
        "QUERY": _login(methods.PublicKeyQuery(ALGORITHM, USER_KEY.public_key.blob)),
        "QUERY_WRONG": _login(methods.PublicKeyQuery(ALGORITHM, STRANGER_KEY.public_key.blob)),
        "QUERY_STRANGER": _login(methods.PublicKeyQuery(ALGORITHM, USER_KEY.public_key.blob), STRANGER),
        "SIGNED": _signs(USER_KEY),
        "SIGNED_WRONG_SESSION": _signs(USER_KEY, good=False),
        "SIGNED_WRONG_KEY": _signs(STRANGER_KEY),
        "SIGNED_BOUND": _signs_bound(HOST_KEY.public_key.blob),
        "SIGNED_BOUND_ELSEWHERE": _signs_bound(STRANGER_KEY.public_key.blob),
        "INTERACTIVE": _interactive,
        "RESPONSE": _responds(PASSWORD),
        "RESPONSE_WRONG": _responds("wrong"),
        "USERAUTH_FAILURE": _says(m.UserauthFailure((), False)),
        "USERAUTH_SUCCESS": _says(m.UserauthSuccess()),
        "CHANNEL_OPEN": _opens,
        "CHANNEL_OPEN_CONFIRMATION": lambda subject: subject.peer.say(
            m.ChannelOpenConfirmation(subject.channel, 5, WINDOW, 32768)
        ),
        "CHANNEL_REQUEST": lambda subject: subject.peer.say(
            m.ChannelRequest(subject.channel, "exec", True, codec.string(b"true"))
        ),
    }

    def __init__(self) -> None:
        self._echo = b""
        self.prompted = False
        self.abandoned = False
        super().__init__(
            ServerConnection(
                ServerConfig(
                    **CONFIG,
                    entropy=entropy(),
                    host_keys=(HOST_KEY,),
                    auth_methods=("publickey", "password", "keyboard-interactive"),
                    ask_none=True,
                ),
                0.0,
            )
        )

    def abandon(self) -> None:
        """A login request passes questions over that were not answered."""
        self.abandoned = self.abandoned or self.prompted
        self.prompted = False

    def react(self, event: ev.Event) -> None:
        conn = self.conn
        good = False
        match event:
            case ev.InteractiveAuth():
                conn.prompt(event, [ev.Prompt(text="Word: ", echo=False)])
                self.prompted = True
                return
            case ev.KeyProbe() if event.user == USER and event.key.blob == USER_KEY.public_key.blob:
                conn.offer_key(event)
                return
            case ev.PasswordAuth():
                good = event.password == PASSWORD
            case ev.KeyAuth():
                good = event.key.blob == USER_KEY.public_key.blob
            case ev.PromptsAnswered():
                self.prompted = False
                good = event.answers == (PASSWORD,)
            case ev.Authenticated():
                self.abandoned = False  # what comes too late is ignored from now on, and nobody counts
            case ev.ChannelOpenRequested():
                self.channel = event.channel
                self._echo = b""
                conn.accept_channel(event, window=WINDOW)
            case ev.ChannelRequested() | ev.GlobalRequested():
                conn.succeed(event)
            case ev.DataReceived():
                conn.credit(event.channel, len(event.data))
                if event.stream == 0:
                    self._echo += event.data
                    self._flush()
            case ev.ChannelWritable():
                self._flush()
            case _:
                pass
        if isinstance(event, ev.AuthQuestion):
            if good and event.user == USER:
                conn.accept_auth(event)
            else:
                conn.reject_auth(event)

    def _flush(self) -> None:
        try:
            self._echo = self._echo[self.conn.send(self.channel, self._echo) :]
        except UsageError:  # we have closed it
            self._echo = b""


# --------------------------------------------------------------------------------------------------------------- client


def _answers(kind: type[ev.Question], answer: Callable[[Any, Any], object]) -> Word:
    """The application answers a question, if it was asked."""

    def word(subject: Client) -> str | None:
        for question in subject.conn.questions:
            if isinstance(question, kind):
                answer(subject.conn, question)
                return None
        return GUARD

    return word


def _answers_either(subject: Client) -> str | None:
    for question in subject.conn.questions:
        if isinstance(question, ev.PromptsReceived):
            subject.conn.answer_prompts(question, [PASSWORD] * len(question.prompts))
            return None
        if isinstance(question, ev.PasswordExpired):
            subject.conn.new_password(question, PASSWORD, "plugh")
            return None
    return GUARD


def _ext_info(subject: Client) -> str | None:
    if subject.serving:
        return GUARD  # it is counted
    subject.peer.say(m.ExtInfo(()))
    return None


def _accepts(service: str) -> Word:
    def word(subject: Client) -> None:
        subject.serving = True
        subject.peer.say(m.ServiceAccept(service))

    return word


def _app_opens(subject: Client) -> str | None:
    if subject.conn.channels:
        return GUARD  # one at a time
    subject.channel = subject.conn.open_channel(Session(), window=WINDOW)
    return None


def _app_requests(subject: Client) -> str | None:
    if subject.requesting:
        return GUARD  # one at a time
    subject.conn.request(subject.channel, Exec(b"true"))
    subject.requesting = True
    return None


class Client(Subject):
    """A client whose application does what the words say that begin with APP, and otherwise looks on.

    Attributes:
        serving: The learner has accepted a service.
        requesting: A channel request has no reply yet.
    """

    role = Role.CLIENT
    words: ClassVar[dict[str, Word]] = {
        **BOTH,
        "KEX30": lambda subject: subject.peer.say(m.KexEcdhInit(bytes(32))),
        "KEX31": lambda subject: subject.peer.reply(),
        "KEX31_BAD": lambda subject: subject.peer.reply(bad=True),
        "EXT_INFO": _ext_info,
        "SERVICE_ACCEPT": _accepts("ssh-userauth"),
        "SERVICE_ACCEPT_OTHER": _accepts("ssh-connection"),
        "SERVICE_REQUEST": _says(m.ServiceRequest("ssh-userauth")),
        "USERAUTH_REQUEST": _says(methods.request(USER, methods.NoneForm())),
        "USERAUTH_FAILURE": _says(m.UserauthFailure(("publickey", "password", "keyboard-interactive"), False)),
        "USERAUTH_FAILURE_PARTIAL": _says(m.UserauthFailure(("publickey", "password", "keyboard-interactive"), True)),
        "USERAUTH_SUCCESS": _says(m.UserauthSuccess()),
        "USERAUTH_BANNER": _says(m.UserauthBanner("hello")),
        "USERAUTH_PK_OK": _says(m.UserauthPkOk(ALGORITHM, USER_KEY.public_key.blob)),
        "USERAUTH_PK_OK_OTHER": _says(m.UserauthPkOk(ALGORITHM, STRANGER_KEY.public_key.blob)),
        "USERAUTH_PASSWD_CHANGEREQ": _says(m.UserauthPasswdChangereq("too old")),
        "USERAUTH_INFO_REQUEST": _says(m.UserauthInfoRequest("", "", "", (("Word: ", False),))),
        "CHANNEL_OPEN": _says(m.ChannelOpen("session", 7, WINDOW, 32768)),
        "CHANNEL_OPEN_CONFIRMATION": lambda subject: subject.peer.say(
            m.ChannelOpenConfirmation(subject.channel, 5, WINDOW, 32768)
        ),
        "CHANNEL_OPEN_FAILURE": lambda subject: subject.peer.say(m.ChannelOpenFailure(subject.channel, 1)),
        "CHANNEL_REQUEST": lambda subject: subject.peer.say(
            m.ChannelRequest(subject.channel, "exit-status", False, bytes(4))
        ),
        "CHANNEL_FAILURE": lambda subject: subject.peer.say(m.ChannelFailure(subject.channel)),
        "APP_TRUST": _answers(ev.HostKeyOffered, lambda conn, question: conn.accept_host_key(question)),
        "APP_DISTRUST": _answers(ev.HostKeyOffered, lambda conn, question: conn.reject_host_key(question)),
        "APP_NONE": _answers(ev.CredentialNeeded, lambda conn, question: conn.auth_none(question)),
        "APP_PASSWORD": _answers(ev.CredentialNeeded, lambda conn, question: conn.auth_password(question, PASSWORD)),
        "APP_QUERY": _answers(
            ev.CredentialNeeded, lambda conn, question: conn.auth_public_key(question, USER_KEY, probe=True)
        ),
        "APP_SIGN": _answers(ev.CredentialNeeded, lambda conn, question: conn.auth_public_key(question, USER_KEY)),
        "APP_INTERACTIVE": _answers(
            ev.CredentialNeeded, lambda conn, question: conn.auth_keyboard_interactive(question)
        ),
        "APP_ANSWER": _answers_either,
        "APP_OPEN": _app_opens,
        "APP_REQUEST": _app_requests,
    }

    def __init__(self) -> None:
        self.serving = False
        self.requesting = False
        super().__init__(ClientConnection(ClientConfig(**CONFIG, entropy=entropy(), user=USER), 0.0))

    def _told(self, event: ev.Event) -> str:
        words = super()._told(event)
        return f"{words}(trivial)" if isinstance(event, ev.AuthSucceeded) and event.trivial else words

    def react(self, event: ev.Event) -> None:
        match event:
            case ev.GlobalRequested():
                self.conn.succeed(event)
            case ev.ChannelRequested():
                self.conn.fail(event)
            case ev.ChannelOpenRequested():
                self.conn.refuse(event)
            case ev.DataReceived():
                self.conn.credit(event.channel, len(event.data))
            case ev.RequestSucceeded() | ev.RequestFailed() | ev.ChannelClosed() | ev.ChannelOpenFailed():
                self.requesting = False
            case _:
                pass


SUBJECTS: dict[Role, type[Any]] = {Role.SERVER: Server, Role.CLIENT: Client}
