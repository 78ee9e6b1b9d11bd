"""Agents: conversations with one, over two connections, from somebody who may be anybody; and both codecs.

The first byte of an input chooses what the rest is. A conversation is a row of steps, each a byte that says what is
done, and a length of two bytes before what it is done with.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fuzz.clear import constant, fit_to_show
from fuzz.running import main
from fuzz.running import mutate as mutate_bytes
from sshproto.agent import (
    AgentError,
    AgentServer,
    ConfirmNeeded,
    Constraints,
    DestinationConstraint,
    Hop,
    HostKeySpec,
    Identity,
    Keyring,
)
from sshproto.agent import messages as m
from sshproto.agent import replies as r
from sshproto.agent.framing import MAXIMUM_MESSAGE, Framer, frame
from sshproto.agent.signing import parse_login, purpose_of
from sshproto.errors import KeyFormatError
from sshproto.keys import FOREVER, Certificate, CertificateKind, PrivateKey
from sshproto.wire.codec import Reader, byte, string, text, uint32
from tests.support.seeds import HOST_KEY, USER_KEY

MODULES = (
    "sshproto.agent.bindings",
    "sshproto.agent.constraints",
    "sshproto.agent.framing",
    "sshproto.agent.keyring",
    "sshproto.agent.messages",
    "sshproto.agent.replies",
    "sshproto.agent.server",
    "sshproto.agent.signing",
)
_NOW = 1_800_000_000.0
_SESSION = b"session".ljust(32, b".")
_PHRASE = b"phrase"


def _key(label: str) -> PrivateKey:
    handle = Ed25519PrivateKey.from_private_bytes(constant(32, label))
    return PrivateKey.load(handle.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), comment=label)


_PLAIN, _BOUND, _ASKED, _HELD_BACK = USER_KEY, _key("bound"), _key("asked"), _key("new")
_CERTIFICATE = Certificate.issue(
    HOST_KEY,
    _HELD_BACK.public_key,
    CertificateKind.USER,
    key_id="id",
    principals=("alice",),
    valid_before=FOREVER,
    entropy=constant,
)
_KEYS = {
    **{key.public_key.blob: key for key in (_PLAIN, _BOUND, _ASKED, _HELD_BACK)},
    _CERTIFICATE.blob: _HELD_BACK,
}
_WAY = DestinationConstraint(Hop(), Hop("host", (HostKeySpec(HOST_KEY.public_key.blob),), "alice"))


class _Agent:
    """An agent with three keys: any use, logins as alice at one host, and after asking."""

    def __init__(self) -> None:
        self.now = _NOW
        self.keyring = Keyring(entropy=constant)
        self.keyring.add(_PLAIN, now=_NOW)
        self.keyring.add(_BOUND, now=_NOW, destinations=[_WAY])
        self.keyring.add(_ASKED, now=_NOW, confirm=True, lifetime=1000)
        self.peers = [_Peer(self), _Peer(self)]

    def step(self, action: int, content: bytes) -> None:
        peer = self.peers[action & 1]
        match (action >> 1) % 6:
            case 0:
                peer.give(frame(content) if content else b"")
            case 1:
                peer.give(content)
            case 2:
                self.now += int.from_bytes(content[:2], "big") / 8
                for each in self.peers:
                    each.server.handle_timeout(self.now)
                    each.look()
            case 3:
                peer.answer(allowed=True)
            case 4:
                peer.answer(allowed=False)
            case _:
                peer.server.receive_eof(self.now)
                peer.look()
        if len(self.keyring.keys(self.now)) > 1024:
            raise AssertionError("too many keys are held")


class _Peer:
    """One connection, and what is known of what was asked."""

    def __init__(self, agent: _Agent) -> None:
        self.agent = agent
        self.server = AgentServer(agent.keyring, agent.now)
        self._asked = Framer("request")
        self._said = Framer("reply")
        self._requests: list[bytes] = []
        self._question: ConfirmNeeded | None = None
        self._confirmed = False
        self._single = True  # one request is dealt with at a time

    def give(self, data: bytes) -> None:
        if not self.server.want_read:
            return
        self._asked.feed(data)
        before = len(self._requests)
        try:
            while (request := self._asked.next()) is not None:
                self._requests.append(request)
        except AgentError:
            self._asked.discard()
        self._single = not before and len(self._requests) == 1
        self.server.receive_data(data, self.agent.now)
        self.look()

    def answer(self, *, allowed: bool) -> None:
        if self._question is not None and self.server.question is self._question:
            self._confirmed = allowed
            self.server.confirm(self._question, allowed, self.agent.now)
            self.look()
            self._confirmed = False

    def look(self) -> None:
        """Take what there is, and hold each reply against its request."""
        fit_to_show(self.server.error or "")
        while (event := self.server.next_event()) is not None:
            fit_to_show(repr(event), 60_000)
            if isinstance(event, ConfirmNeeded):
                self._question = event
        while data := self.server.data_to_send():
            if len(data) > 2 * MAXIMUM_MESSAGE:
                raise AssertionError("more is kept than two messages")
            self._said.feed(data)
            while (reply := self._said.next()) is not None:
                if not self._requests:
                    raise AssertionError("a reply to nothing")
                self._check(self._requests.pop(0), reply)
        if self.server.should_close:
            self._requests.clear()

    def _check(self, request: bytes, reply: bytes) -> None:
        if reply[0] not in (5, 6, 12, 14, 28, 29):
            raise AssertionError(f"message {reply[0]} is no reply")
        if reply[0] != r.SIGN_RESPONSE:
            return
        asked = m.parse_request(request)
        signature: bytes = r.parse_reply(reply, asked)  # which raises if it was no request to sign
        if not isinstance(asked, m.SignRequest) or asked.key not in _KEYS:
            return
        _KEYS[asked.key].public_key.verify(signature, asked.data, Reader(signature, "signature").name())
        held = self.agent.keyring.find(asked.key, self.agent.now)
        if held is None or not self._single:  # else it may have been another one when it signed
            return
        if held.destinations == (_WAY,):
            login, last = parse_login(asked.data), self.server.bindings[-1]
            if (login.user, last.key, login.session_id) != ("alice", HOST_KEY.public_key, last.session_id):
                raise AssertionError(f"a key is used where it must not be: {login!r}")
        if held.confirm and not self._confirmed:
            raise AssertionError("a key is used though nobody was asked")


def _conversation(data: bytes) -> None:
    agent = _Agent()
    place = 0
    while place + 3 <= len(data):
        size = int.from_bytes(data[place + 1 : place + 3], "big")
        agent.step(data[place], data[place + 3 : place + 3 + size])
        place += 3 + size


def _request(data: bytes) -> None:
    request = m.parse_request(data)
    fit_to_show(repr(request), 60_000)
    if isinstance(request, m.AddIdentity):
        request.key.public_key.verify(request.key.sign(b""), b"", request.key.public_key.signature_algorithms[0])
        for destination in request.constraints.destinations:
            fit_to_show(destination, 5000)
    again = m.parse_request(request.encode())
    if again.encode() != request.encode():
        raise AssertionError(f"written and read it is another: {request!r}")


def _reply(data: bytes) -> None:
    if not data:
        return
    request = _ASKS[data[0] % len(_ASKS)]
    value = r.parse_reply(data[1:], request)
    for identity in value if isinstance(value, tuple) else ():
        fit_to_show(repr(identity))
        identity.fingerprint()
        try:
            identity.load()
        except KeyFormatError as error:
            fit_to_show(error)
    if isinstance(request, m.SignRequest):
        r.check_signature(value, "ssh-ed25519")
    if isinstance(request, m.Extension):
        r.parse_query(value)


def _purpose(data: bytes) -> None:
    fit_to_show(purpose_of(data), 2000)


_ASKS: tuple[m.Request, ...] = (
    m.RequestIdentities(),
    m.SignRequest(b"", b""),
    m.RemoveAllIdentities(),
    m.Extension("query"),
)
_WHAT: tuple[Callable[[bytes], None], ...] = (_conversation, _request, _reply, _purpose)


def fuzz(data: bytes) -> None:
    """Read ``data`` as what its first byte says."""
    try:
        _WHAT[(data[0] if data else 0) % len(_WHAT)](data[1:])
    except AgentError as error:
        fit_to_show(error)


def _steps(data: bytes) -> list[bytes]:
    found: list[bytes] = []
    place = 0
    while place + 3 <= len(data):
        end = place + 3 + int.from_bytes(data[place + 1 : place + 3], "big")
        found.append(data[place:end])
        place = end
    return found


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change the row of steps, or what is in one of them."""
    if data[:1] != b"\0":
        return mutate_bytes(data, others, rng)
    steps = _steps(data[1:])
    more = _steps(rng.choice([other for other in others if other[:1] == b"\0"] or [data])[1:])
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(steps) + 1)
        choice = rng.randrange(5)
        if choice == 0 and more:
            steps.insert(place, rng.choice(more))
        elif place == len(steps):
            continue
        elif choice == 1:
            del steps[place]
        elif choice == 2:
            steps.insert(rng.randrange(len(steps) + 1), steps.pop(place))
        elif choice == 3:
            steps[place] = byte(rng.randrange(256)) + steps[place][1:]
        else:
            content = mutate_bytes(steps[place][3:], [each[3:] for each in more or steps], rng)[:0xFFFF]
            steps[place] = _step(steps[place][0], content)
    return b"\0" + b"".join(steps)


def _step(action: int, content: bytes = b"") -> bytes:
    return byte(action) + len(content).to_bytes(2, "big") + content


def _login(user: str = "alice", key: PrivateKey = _BOUND, host: PrivateKey = HOST_KEY) -> bytes:
    method = text("publickey-hostbound-v00@openssh.com") + byte(1) + text("ssh-ed25519")
    blobs = string(key.public_key.blob) + string(host.public_key.blob)
    return string(_SESSION) + byte(50) + text(user) + text("ssh-connection") + method + blobs


def _bind(host: PrivateKey = HOST_KEY, session: bytes = _SESSION, *, forwarding: bool = False) -> m.Extension:
    bind = m.SessionBind(host.public_key.blob, session, host.sign(session), forwarding)
    return m.Extension(m.SESSION_BIND, bind.encode())


def _asks(key: PrivateKey, data: bytes) -> m.SignRequest:
    return m.SignRequest(key.public_key.blob, data)


def seeds() -> list[bytes]:
    """Conversations of all kinds, requests and replies."""
    everything = Constraints(lifetime=9, confirm=True, destinations=(_WAY,))
    adds = [
        m.AddIdentity(_HELD_BACK, None, "words"),
        m.AddIdentity(_HELD_BACK, _CERTIFICATE, "words", everything),
        m.AddIdentity(_BOUND, None, "", Constraints(destinations=(_WAY,))),
    ]
    listing: m.Request = m.RequestIdentities()
    rows: list[list[m.Request]] = [
        [listing, _asks(_PLAIN, b"data"), m.Extension("query"), m.RemoveIdentity(_PLAIN.public_key.blob), listing],
        [_bind(), listing, _asks(_BOUND, _login()), _asks(_BOUND, b"data")],
        [_bind(), _asks(_BOUND, _login("bob")), _asks(_BOUND, _login(host=_PLAIN)), _bind(_PLAIN)],
        [_bind(_PLAIN), listing, _asks(_BOUND, _login(host=_PLAIN)), _asks(_BOUND, _login())],
        [_bind(forwarding=True), listing, m.RemoveIdentity(_BOUND.public_key.blob), _bind(_PLAIN, b"other")],
        [*adds, listing, m.RemoveAllIdentities(), listing],
        [m.Lock(_PHRASE), listing, _asks(_PLAIN, b"data"), m.Unlock(b"guess"), m.Unlock(_PHRASE), listing],
        [m.AddSmartcardKey("reader", b"1234"), m.RemoveSmartcardKey("reader", b"1234"), m.Lock(b"")],
    ]
    talks = [b"".join(_step(number & 1, each.encode()) for each in row) for row in rows for number in (0, 1)]
    talks.append(b"".join(_step(2, frame(each.encode()) * 2) for each in rows[0]))
    asked = _step(0, _asks(_ASKED, _login(key=_ASKED)).encode())
    talks += [asked + _step(answer) + _step(0, listing.encode()) for answer in (6, 8, 10)]
    talks.append(asked + _step(1, m.Lock(_PHRASE).encode()) + _step(6))
    talks.append(
        b"".join((_step(0, m.Lock(_PHRASE).encode()), *(_step(0, m.Unlock(b"no").encode()), _step(4, b"\0\1")) * 4))
    )
    talks.append(asked + _step(4, b"\xff\xff") + _step(6))
    talks.append(_step(2, uint32(MAXIMUM_MESSAGE + 1)))
    requests = [each for row in rows for each in row]
    listed = r.encode_identities((Identity(_PLAIN.public_key.blob, "a"), Identity(_CERTIFICATE.blob), Identity(b"x")))
    replies = [
        b"\0" + listed,
        b"\1" + r.encode_signature(_PLAIN.sign(b"data")),
        *(bytes((which, number)) for which in range(4) for number in (5, 6, 28)),
        b"\3" + r.encode_extension("query", text("query") + text(m.SESSION_BIND)),
    ]
    return [
        *(b"\0" + talk for talk in talks),
        *(b"\1" + each.encode() for each in requests),
        *(b"\2" + reply for reply in replies),
        *(b"\3" + data for data in (_login(), _login("a\x1b[2J"), b"SSHSIG" + text("git"), b"SSHSIG")),
    ]


if __name__ == "__main__":
    main("agent", fuzz, seeds, mutate, MODULES)
