"""A connection in any state there is, and a puppet for its peer that speaks plainly.

The connection is a real one and has come into its state by itself: identification, key exchange, login, channels, each
message put before it as a peer would.  Only its ciphers are taken away once the keys are agreed on, so that the puppet
can say anything and read everything without having any keys.  Key exchanges are real on the connection's side; as a
client the puppet sends a constant, as a server it signs what it must.

States without a key exchange under way are made once and copied for whoever asks; nobody but :func:`_made` ever holds
what is copied from.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import attrs

from sshproto import events as ev
from sshproto.channels.requests import Session
from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, ServerConfig, compute_now, system_entropy
from sshproto.errors import PeerDisconnected, UsageError
from sshproto.server import ServerConnection
from sshproto.transport import kex
from sshproto.transport.ciphers import PlainOpening, PlainSealing
from sshproto.transport.kex.groups import GROUP14
from sshproto.transport.keyschedule import exchange_hash
from sshproto.wire import messages as m
from sshproto.wire.table import Role
from tests.support.rogue import IDENT, frame, kexinit
from tests.support.seeds import HOST_KEY, USER_KEY

CURVE, GROUP, GEX = "curve25519-sha256", "diffie-hellman-group14-sha256", "diffie-hellman-group-exchange-sha256"
SHARE = b"\x09" + bytes(31)
"""An X25519 public value as good as any: the base point's."""

STRICT = {Role.CLIENT: "kex-strict-c-v00@openssh.com", Role.SERVER: "kex-strict-s-v00@openssh.com"}
EXTENSIONS = {Role.CLIENT: "ext-info-c", Role.SERVER: "ext-info-s"}

CHANNEL = 0
"""The connection's number of the channel that the states named C have."""
PEER_CHANNEL = 5
"""The puppet's number of it."""
WINDOW = 1000
"""The window of it, both ways."""

METHODS = ("publickey", "password", "keyboard-interactive")


def payload_of(message: m.Message | bytes) -> bytes:
    """A payload, whichever way it is given."""
    return message if isinstance(message, bytes) else message.encode()


def payloads(data: bytes) -> list[bytes]:
    """The payloads of plain packets; an identification line before them is left out."""
    position = data.index(b"\n") + 1 if data.startswith(b"SSH-") else 0
    found = []
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        found.append(data[position + 5 : position + 4 + length - data[position + 4]])
        position += 4 + length
    return found


@attrs.define(eq=False)
class Puppet:
    """A connection, and the peer that it believes to have.

    Attributes:
        role: The connection's; the puppet has the other one.
        conn: It.
        sequence: The sequence number of the puppet's next packet (RFC 4253 section 6.4), counted here.
        events: All that happened, in order.
        written, read: Bytes that the puppet has sent and received.
        line: The puppet's identification, as it goes into the exchange hash.
    """

    role: Role
    conn: Any
    sequence: int = 0
    events: list[ev.Event] = attrs.field(factory=list)
    written: int = 0
    read: int = 0
    line: bytes = IDENT.rstrip(b"\r\n")
    _their_line: bytes = b""
    _mine: bytes = b""
    _theirs: bytes = b""
    _init: bytes = b""

    @classmethod
    def new(cls, role: Role, **changes: Any) -> Puppet:
        """A connection that has just been made; ``changes`` are its configuration's."""
        if role is Role.CLIENT:
            return cls(role, ClientConnection(client_config(**changes), 0.0))
        return cls(role, ServerConnection(server_config(**changes), 0.0))

    def copy(self) -> Puppet:
        """Another one like it. Not while a key exchange is under way, whose secrets cannot be copied."""
        engine = self.conn._engine
        config = engine.config
        constants = (config, config.limits, config.preferences, config.timeouts, engine._handlers, engine.kex.ours)
        kept = {id(value): value for value in (*constants, engine.kex.negotiated, engine.kex.host_key, USER_KEY)}
        # Views can't be copied, and there is nothing in these: all input has been read.
        views = {id(engine.opener._view): memoryview(b""), id(engine.opener._cipher): PlainOpening()}
        return copy.deepcopy(self, {**kept, **views})

    # ------------------------------------------------------------------------------------------------------------- talk

    def write(self, data: bytes, now: float = 0.0) -> list[ev.Event]:
        """Send bytes as they are. The events that they lead to."""
        self.written += len(data)
        self.conn.receive_data(data, now)
        return self.pump()

    def say(self, *messages: m.Message | bytes, now: float = 0.0) -> list[ev.Event]:
        """Send messages, or payloads, as plain packets. The events that they lead to."""
        self.sequence += len(messages)
        return self.write(b"".join(frame(payload_of(message)) for message in messages), now)

    def pump(self) -> list[ev.Event]:
        """The events of now."""
        found: list[ev.Event] = []
        while (event := self.conn.next_event()) is not None:
            found.append(event)
        self.events += found
        return found

    def heard(self) -> list[bytes]:
        """The payloads that the connection has sent since the last time."""
        data = self.conn.data_to_send()
        self.read += len(data)
        if data.startswith(b"SSH-"):
            self._their_line = data[: data.index(b"\r\n")]
        found = payloads(data)
        for payload in found:
            if payload[0] == m.KexInit.number:
                self._theirs = payload
            elif payload[0] == m.KexEcdhInit.number:
                self._init = payload
        return found

    def asked(self, kind: type[Any]) -> Any:
        """The open question of a kind."""
        (question,) = (question for question in self.conn.questions if isinstance(question, kind))
        return question

    def outcome(self, *messages: m.Message | bytes) -> str:
        """What comes of one or more messages, in a few words; see :meth:`outcome_of`."""
        return self.outcome_of(lambda: self.say(*messages))

    def outcome_of(self, action: Callable[[], object]) -> str:
        """What comes of what ``action`` does, in a few words.

        First the numbers of the messages that are sent, then the names of the events; a dot if there are none.  ``U``
        alone: UNIMPLEMENTED with the sequence number of the puppet's latest packet.  ``bye``: the peer has ended the
        connection.  ``D`` and a number at the end: DISCONNECT with that code; ``D`` alone is code 2.  A misuse that is
        raised is the name of its class.
        """
        start, phase = len(self.events), self.conn.phase
        try:
            action()
        except UsageError as error:
            return type(error).__name__
        self.pump()
        events = self.events[start:]
        sent = self.heard()
        end = []
        if events and isinstance(events[-1], ev.ConnectionLost):
            error = events.pop().error
            if isinstance(error, PeerDisconnected):
                assert not sent
                return "bye"
            goodbye = m.Disconnect.parse(sent.pop())
            assert goodbye.reason == error.code
            assert self.say(m.Ignore(b""), m.Ping(b"")) == self.heard() == []  # and from here on, silence
            end = ["D" if goodbye.reason == 2 else f"D{goodbye.reason}"]
        elif self.sequence and sent == [m.Unimplemented(self.sequence - 1).encode()] and not events:
            return "U"
        elif not sent and not events:
            assert self.conn.phase is phase
        return "/".join([str(payload[0]) for payload in sent] + [type(event).__name__ for event in events] + end) or "."

    # ----------------------------------------------------------------------------------------------------- key exchange

    def kexinit(self, *, strict: bool = True, extensions: bool = True, first: bool = True, **changes: Any) -> bytes:
        """A KEXINIT of the puppet's, as a payload; ``changes`` are its fields."""
        peer = self.role.peer
        kex_names = changes.pop("kex_algorithms", (CURVE,))
        marks = ((STRICT[peer],) if strict and first else ()) + ((EXTENSIONS[peer],) if extensions and first else ())
        self._mine = kexinit(kex_algorithms=(*kex_names, *marks), **changes)
        return self._mine

    def exchange(self) -> None:
        """Take the method to its end, after both KEXINITs: what remains is the puppet's NEWKEYS."""
        if self.role is Role.SERVER:
            self.say(m.KexEcdhInit(SHARE))
        else:
            self.heard()
            self.say(self.reply())
            for question in self.conn.questions:
                if isinstance(question, ev.HostKeyOffered):
                    self.conn.accept_host_key(question)
        # What was sent behind the connection's NEWKEYS is encrypted; nobody here can read it.
        self.conn.data_to_send()
        self.plain()

    def reply(self) -> m.Message:
        """A server's KEX_ECDH_REPLY to what the connection has sent."""
        method = kex.METHODS[CURVE]
        exchange = kex.server_exchange(
            method, entropy=system_entropy, oracle=compute_now, host_key=HOST_KEY.public_key.blob
        )
        answer = exchange.receive(m.KexEcdhInit.parse(self._init))
        assert isinstance(answer, m.KexEcdhReply)
        digest = exchange_hash(
            method.hash_name,
            client_ident=self._their_line,
            server_ident=self.line,
            client_kexinit=self._theirs,
            server_kexinit=self._mine,
            host_key=HOST_KEY.public_key.blob,
            fields=method.family.hash_fields(exchange.transcript),
            secret=exchange.secret or b"",
        )
        return attrs.evolve(answer, signature=HOST_KEY.sign(digest, "ssh-ed25519"))

    def new_keys(self) -> None:
        """The puppet's NEWKEYS, after :meth:`exchange`."""
        self.say(m.NewKeys())
        self.heard()  # a client's SERVICE_REQUEST
        if self.conn._engine.kex.strict:
            self.sequence = 0
        self.plain()

    def plain(self) -> None:
        """Take the connection's ciphers away."""
        engine = self.conn._engine
        engine.opener._use(PlainOpening())
        engine.outbox.sealer._use(PlainSealing())


def client_config(**changes: Any) -> ClientConfig:
    return ClientConfig(**{"user": "alice", "debug_raise": True, **changes})


def server_config(**changes: Any) -> ServerConfig:
    fields = {"host_keys": (HOST_KEY,), "auth_methods": METHODS, "ask_none": True, "debug_raise": True}
    return ServerConfig(**{**fields, **changes})


# --------------------------------------------------------------------------------------------------------------- states

Step = Callable[[Puppet], object]


def _ident(puppet: Puppet) -> None:
    puppet.write(IDENT)
    puppet.heard()


def _kexinit(**fields: Any) -> Step:
    def step(puppet: Puppet) -> None:
        puppet.say(puppet.kexinit(first=puppet.conn.session_id is None, **fields))
        puppet.heard()

    return step


def _wrong_guess(*, strict: bool) -> Step:
    names = ("ecdh-sha2-nistp521", CURVE)
    # Ours is in front here, so that it is chosen: the puppet's guess was about its own first name.
    return _kexinit(kex_algorithms=names, first_kex_packet_follows=True, strict=strict)


def _host_key_asked(puppet: Puppet) -> None:
    puppet.say(puppet.reply())
    assert puppet.conn.blocked_on is not None


def _gex_second(puppet: Puppet) -> None:
    if puppet.role is Role.SERVER:
        puppet.say(m.KexDhGexRequest(2048, 2048, 8192))
    else:
        puppet.say(m.KexDhGexGroup(GROUP14.prime, 2))
    assert [payload[0] for payload in puppet.heard()] == [31 if puppet.role is Role.SERVER else 32]


def _ignored(puppet: Puppet) -> None:
    puppet.say(m.Ignore(b""))


def _service(puppet: Puppet) -> None:
    puppet.say(m.ServiceRequest("ssh-userauth") if puppet.role is Role.SERVER else m.ServiceAccept("ssh-userauth"))
    puppet.heard()


def request(method: str, payload: bytes = b"") -> m.UserauthRequest:
    """A login request of alice's."""
    return m.UserauthRequest("alice", "ssh-connection", method, payload)


INTERACTIVE = request("keyboard-interactive", bytes(8))


def _none_asked(puppet: Puppet) -> None:
    puppet.say(request("none"))
    assert isinstance(puppet.conn.blocked_on, ev.NoneAuth)


def _prompted(puppet: Puppet) -> None:
    puppet.say(INTERACTIVE)
    puppet.conn.prompt(puppet.asked(ev.InteractiveAuth), [ev.Prompt(text="Word: ", echo=False)])
    puppet.heard()


def _abandoned(puppet: Puppet) -> None:
    puppet.say(request("unknown@example.org"))
    puppet.heard()


def _credential(answer: Callable[[Any, Any], object]) -> Step:
    def step(puppet: Puppet) -> None:
        answer(puppet.conn, puppet.asked(ev.CredentialNeeded))
        assert [payload[0] for payload in puppet.heard()] == [50]

    return step


def _prompts_shown(puppet: Puppet) -> None:
    puppet.say(m.UserauthInfoRequest("", "", "", (("Word: ", False),)))


def _prompts_answered(puppet: Puppet) -> None:
    puppet.conn.answer_prompts(puppet.asked(ev.PromptsReceived), ["xyzzy"])
    puppet.heard()


def _login(puppet: Puppet) -> None:
    if puppet.role is Role.SERVER:
        _none_asked(puppet)
        puppet.conn.accept_auth(puppet.asked(ev.NoneAuth))
        puppet.pump()
    else:
        _credential(lambda conn, question: conn.auth_password(question, "xyzzy"))(puppet)
        puppet.say(m.UserauthSuccess())
    puppet.heard()


def _channel(puppet: Puppet) -> None:
    if puppet.role is Role.SERVER:
        puppet.say(m.ChannelOpen("session", PEER_CHANNEL, WINDOW, 32768))
        puppet.conn.accept_channel(puppet.asked(ev.ChannelOpenRequested), window=WINDOW)
    else:
        puppet.conn.open_channel(Session(), window=WINDOW)
        puppet.say(m.ChannelOpenConfirmation(CHANNEL, PEER_CHANNEL, WINDOW, 32768))
    puppet.pump()
    puppet.heard()
    assert puppet.conn.channels == (CHANNEL,)


def _rekey(puppet: Puppet) -> None:
    puppet.conn.rekey()
    assert [payload[0] for payload in puppet.heard()] == [20]


def _lost(puppet: Puppet) -> None:
    puppet.say(b"\0")
    puppet.heard()
    assert puppet.conn.should_close


_SERVER_ONLY = {
    "A?": ("A", _none_asked),
    "Akbd": ("A", _prompted),
    "Alate": ("Akbd", _abandoned),
}
_CLIENT_ONLY = {
    "K?": ("K1", _host_key_asked),
    "Anone": ("A", _credential(lambda conn, question: conn.auth_none(question))),
    "Apassword": ("A", _credential(lambda conn, question: conn.auth_password(question, "xyzzy"))),
    "Aquery": ("A", _credential(lambda conn, question: conn.auth_public_key(question, USER_KEY, probe=True))),
    "Asigned": ("A", _credential(lambda conn, question: conn.auth_public_key(question, USER_KEY))),
    "Akbd": ("A", _credential(lambda conn, question: conn.auth_keyboard_interactive(question))),
    "Akbd?": ("Akbd", _prompts_shown),
    "Akbd!": ("Akbd?", _prompts_answered),
}
_BOTH = {
    "I": (None, lambda puppet: puppet.heard()),
    "K0": ("I", _ident),
    "K1": ("K0", _kexinit(extensions=False)),
    "k1": ("K0", _kexinit(extensions=False, strict=False)),
    "K1x": ("K0", _wrong_guess(strict=True)),
    "k1x": ("K0", _wrong_guess(strict=False)),
    "Kg1": ("K0", _kexinit(kex_algorithms=(GEX,), extensions=False)),
    "Kg2": ("Kg1", _gex_second),
    "kg1": ("K0", _kexinit(kex_algorithms=(GEX,), extensions=False, strict=False)),
    "Kd1": ("K0", _kexinit(kex_algorithms=(GROUP,), extensions=False)),
    "K+": ("K0", _kexinit()),
    "k+": ("K0", _kexinit(strict=False)),
    "K2": ("K+", Puppet.exchange),
    "k2": ("k+", Puppet.exchange),
    "T": ("K2", Puppet.new_keys),
    "t": ("k2", Puppet.new_keys),
    "T2": ("T", _ignored),
    "A": ("T", _service),
    "C0": ("A", _login),
    "C": ("C0", _channel),
    "CR1": ("C", _rekey),
    "TR2": ("T", _kexinit()),
    "AR2": ("A", _kexinit()),
    "CR2": ("C", _kexinit()),
    "CR12": ("CR1", _kexinit()),
    "CR3": ("CR2", Puppet.exchange),
    "K-": ("K0", _kexinit(extensions=False)),
    "K2-": ("K-", Puppet.exchange),
    "T-": ("K2-", Puppet.new_keys),
    "A-": ("T-", _service),
    "C-": ("A-", _login),
    "END": ("C", _lost),
}
STATES: dict[Role, dict[str, tuple[str | None, Step]]] = {
    Role.SERVER: {**_BOTH, **_SERVER_ONLY},
    Role.CLIENT: {**_BOTH, **_CLIENT_ONLY},
}
"""How each state is reached: from which other one, by what.

I: identification.  K and k: the first key exchange, strict and not; 0: before the peer's KEXINIT, 1: after it,
x: with a wrong guess to come, g: by group exchange, d: in a fixed group, 2: the peer's NEWKEYS is all that is missing.
T: keys; T2: not the first packet any more.  A: login, and whose turn it is.  C: channels, and one is open; C0: none
yet.  R1: our KEXINIT is sent, R2: the peer's has come, R12: both, R3: the peer's NEWKEYS is all that is missing.
?: the application is asked.  -: the peer has not said that it reads EXT_INFO.
"""

_COPIED = {"I", "K0", "T", "T2", "t", "T-", "A", "A?", "Akbd", "Alate", "Akbd?", "Akbd!", "C0", "C", "C-", "END"}


def _step(puppet: Puppet, name: str) -> Puppet:
    STATES[puppet.role][name][1](puppet)
    puppet.events.clear()
    return puppet


@functools.cache
def _made(role: Role, name: str) -> Puppet:
    return _fresh(role, name)


def _fresh(role: Role, name: str) -> Puppet:
    before = STATES[role][name][0]
    return _step(bring(role, before) if before else Puppet.new(role), name)


def bring(role: Role, name: str) -> Puppet:
    """A connection of ``role`` in the state ``name`` of :data:`STATES`, and its puppet."""
    return _made(role, name).copy() if name in _COPIED else _fresh(role, name)


def bring_with(role: Role, name: str, **changes: Any) -> Puppet:
    """The same with another configuration; made anew, step by step."""
    chain = [name]
    while (before := STATES[role][chain[-1]][0]) is not None:
        chain.append(before)
    puppet = Puppet.new(role, **changes)
    for step in reversed(chain):
        _step(puppet, step)
    return puppet
