"""Conversations with agents as operations: whose reply is whose, what is cancelled, and an agent's many connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from sshproto.agent import AgentMessageError, AgentRefused, AgentUnavailable, ExtensionUnsupported, Identity, Keyring
from sshproto.agent import messages as m
from sshproto.agent.framing import Framer, frame
from sshproto.agent.replies import encode_extension, encode_identities, encode_signature
from sshproto.errors import InvalidArgument
from sshproto.keys import PrivateKey
from sshproto.operations.agent_login import AgentKey, AgentKeys
from sshproto.operations.agents import Agent, AgentService
from sshproto.operations.steps import Call, Operation, Sleep, Spawn, Step, Together, Wait
from sshproto.wire.codec import byte, text
from tests.support.agents import CERTIFICATES, KEY, KEYS, NOW

LISTED = encode_identities((Identity(KEY.public_key.blob, "here"),))


class Stream:
    """What leads to an agent: gives what is put into it, and takes as much as it may.

    Attributes:
        sent: What was sent.
        room: How many bytes may be sent before there is need to wait.
    """

    origin = ""

    def __init__(self, *replies: bytes) -> None:
        self.arrived = Wait()
        self.drained = Wait()
        self.sent = bytearray()
        self.room = 10**9
        self.closed = False
        self.fault: OSError | None = None
        self._waiting = [frame(reply) for reply in replies]

    def put(self, data: bytes) -> None:
        self._waiting.append(data)
        self.arrived.fire()

    def receive(self, limit: int) -> Operation[bytes]:
        while not self._waiting:
            yield self.arrived
            if self.fault is not None:
                raise self.fault
        return self._waiting.pop(0)

    def send(self, data: bytes) -> Operation[None]:
        while data:
            self.sent += data[: self.room]
            self.room, data = self.room - len(data[: self.room]), data[self.room :]
            if data:
                yield self.drained

    def send_eof(self) -> Operation[None]:
        yield from ()

    def close(self) -> None:
        self.closed = True

    @property
    def requests(self) -> list[int]:
        """The numbers of what was asked."""
        framer = Framer("request")
        framer.feed(bytes(self.sent))
        return [payload[0] for payload in iter(framer.next, None) if payload]


class Run:
    """An operation, taken as far as it goes.

    Attributes:
        value, error: How it ended.
        step: What it waits for.
    """

    def __init__(self, operation: Operation[Any]) -> None:
        self.operation = operation
        self.value: Any = None
        self.error: Exception | None = None
        self.step: Step | None = None
        self.over = False
        self.spawned: list[Run] = []
        self.go()

    def go(self, value: Any = None) -> Run:
        error: Exception | None = None
        try:
            while True:
                self.step = self.operation.send(value) if error is None else self.operation.throw(error)
                value = error = None
                match self.step:
                    case Call(function=function, args=args):
                        try:
                            value = function(*args)
                        except Exception as problem:
                            error = problem
                    case Spawn(operation=operation):
                        self.spawned.append(Run(operation))
                        value = lambda: None  # noqa: E731
                    case _:
                        return self
        except StopIteration as end:
            self.over, self.value = True, end.value
        except Exception as problem:
            self.over, self.error = True, problem
        return self

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        assert self.over
        return self.value


def test_replies_in_pieces() -> None:
    stream = Stream()
    run = Run(Agent(stream).identities())
    for octet in frame(LISTED):
        assert not run.over
        stream.put(bytes([octet]))
        run.go()
    assert [identity.comment for identity in run.result()] == ["here"]


def test_everybody_in_turn() -> None:
    stream = Stream()
    agent = Agent(stream)
    first, second, third = Run(agent.identities()), Run(agent.lock(b"x")), Run(agent.sign(KEY.public_key, b"data"))
    assert stream.requests == [11]
    stream.put(frame(LISTED))
    assert len(first.go().result()) == 1
    third.go()  # it was woken, too, and it is not its turn
    second.go()
    stream.put(frame(byte(6)))
    assert second.go().result() is None
    stream.put(frame(encode_signature(KEY.sign(b"data"))))
    KEY.public_key.verify(third.go().result(), b"data", "ssh-ed25519")
    assert stream.requests == [11, 22, 13]


def test_who_waits_for_its_turn_and_gives_up_leaves_nothing() -> None:
    stream = Stream()
    agent = Agent(stream)
    first, second, third = Run(agent.identities()), Run(agent.lock(b"x")), Run(agent.identities())
    second.operation.close()
    stream.put(frame(LISTED))
    first.go()
    stream.put(frame(LISTED))
    third.go()
    assert len(third.result()) == 1
    assert stream.requests == [11, 11]


def test_a_reply_that_nobody_waits_for_is_nobody_elses() -> None:
    stream = Stream()
    agent = Agent(stream)
    Run(agent.sign(KEY.public_key, b"data")).operation.close()
    again = Run(agent.identities())
    assert stream.requests == [13]  # the other's reply first
    again.operation.close()  # who clears away may give up as well
    last = Run(agent.identities())
    stream.put(frame(encode_signature(b"late")))
    last.go()
    stream.put(frame(LISTED))
    assert len(last.go().result()) == 1
    assert stream.requests == [13, 11]


def test_a_request_that_was_torn_ends_it() -> None:
    stream = Stream()
    stream.room = 10
    agent = Agent(stream)
    Run(agent.sign(KEY.public_key, b"data")).operation.close()
    assert stream.closed
    with pytest.raises(AgentUnavailable, match="given up while it was sent"):
        Run(agent.identities()).result()


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (b"", AgentUnavailable, "has closed the connection"),
        (b"\0\0\0\2\6", None, ""),
        (b"\0\0\0\0", AgentMessageError, "0 bytes is announced"),
        (frame(byte(6)), AgentMessageError, "no answer"),
    ],
)
def test_what_ends_it(data: bytes, error: type[Exception] | None, said: str) -> None:
    stream = Stream()
    agent = Agent(stream)
    run = Run(agent.identities())
    stream.put(data)
    run.go()
    if error is None:
        stream.put(b"")
        run.go()
        error, said = AgentMessageError, "ended within an agent reply"
    with pytest.raises(error, match=said):
        run.result()
    assert stream.closed
    assert agent.closed
    assert repr(agent) == "<Agent, closed>"


def test_what_nobody_has_asked_for_is_no_reply() -> None:
    stream = Stream()
    agent = Agent(stream)
    first = Run(agent.identities())
    stream.put(frame(LISTED) * 2)
    assert len(first.go().result()) == 1
    with pytest.raises(AgentMessageError, match="nobody has asked for"):
        Run(agent.identities()).result()
    assert stream.requests == [11]
    assert stream.closed


def test_a_stream_that_fails() -> None:
    stream = Stream()
    agent = Agent(stream)
    run = Run(agent.identities())
    stream.fault = ConnectionResetError(104, "Connection reset by peer")
    run.go()
    with pytest.raises(AgentUnavailable, match="has failed: Connection reset by peer") as caught:
        run.result()
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_what_can_not_be_asked_disturbs_nobody() -> None:
    stream = Stream(LISTED)
    agent = Agent(stream)
    for job in (
        lambda: agent.add(PrivateKey.generate(), CERTIFICATES["ssh-rsa"]),
        lambda: agent.add(KEY, lifetime=0),
        lambda: agent.sign(KEY.public_key, b"", "rsa-sha2-512"),
        lambda: agent.sign(b"no key", b""),
    ):
        with pytest.raises(InvalidArgument):
            Run(job()).result()
    with pytest.raises(AgentMessageError, match="can be sent"):
        Run(agent.sign(KEY.public_key, bytes(256 * 1024))).result()
    assert len(Run(agent.identities()).result()) == 1
    assert stream.requests == [11]


def test_extensions_and_tokens() -> None:
    stream = Stream(encode_extension("query", text("a") + text("b")), byte(5), byte(28), byte(6), byte(5), byte(6))
    agent = Agent(stream)
    assert Run(agent.query()).result() == ("a", "b")
    with pytest.raises(ExtensionUnsupported):
        Run(agent.extension("x")).result()
    with pytest.raises(AgentRefused):
        Run(agent.bind(b"", b"", b"")).result()
    Run(agent.add_token("reader", b"pin")).result()
    with pytest.raises(AgentRefused, match="to remove the keys of the token"):
        Run(agent.remove_token("reader", b"pin")).result()
    Run(agent.remove(Identity(b"blob"))).result()
    assert stream.requests == [27, 27, 27, 20, 21, 18]


# ---------------------------------------------------------------------------------------------------------- the service


@attrs.define
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


def test_there_are_so_many_connections() -> None:
    service = AgentService(Keyring(), Clock(), max_connections=2)
    streams = [Stream() for _ in range(3)]
    runs = [Run(service.serve(stream)) for stream in streams]
    assert [(run.over, stream.closed) for run, stream in zip(runs, streams, strict=True)] == [
        (False, False),
        (False, False),
        (True, True),
    ]
    runs[0].operation.close()
    assert streams[0].closed
    assert not Run(service.serve(Stream())).over


def test_who_is_too_slow_holds_up_nobody_else() -> None:
    service = AgentService(Keyring(), Clock())
    slow, quick = Stream(), Stream()
    slow.room = 3
    runs = [Run(service.serve(stream)) for stream in (slow, quick)]
    for stream, run in zip((slow, quick), runs, strict=True):
        stream.put(frame(m.RequestIdentities().encode()))
        run.go()
    assert (len(slow.sent), len(quick.sent)) == (3, 9)


def test_passphrases_wait() -> None:
    clock = Clock()
    service = AgentService(Keyring(), clock)
    service.keyring.lock(b"x")
    assert not service.keyring.unlock(b"y", NOW)
    stream = Stream()
    run = Run(service.serve(stream))
    stream.put(frame(m.Unlock(b"x").encode()))
    run.go()
    assert isinstance(run.step, Sleep)
    assert 0 < run.step.seconds <= 0.1
    clock.now += 0.05  # too early
    run.go()
    assert isinstance(run.step, Sleep)
    clock.now += 0.06
    run.go()
    assert bytes(stream.sent) == frame(byte(6))


class Listening:
    """A listener that brings what it is given."""

    address = ""

    def __init__(self, *streams: Stream) -> None:
        self._streams = list(streams)
        self.came = Wait()
        self.closed = False

    def accept(self) -> Operation[Any]:
        while not self._streams:
            if self.closed:
                raise OSError("closed")
            yield self.came
        return self._streams.pop(0)

    def close(self) -> None:
        self.closed = True


def test_keys_are_forgotten_though_nobody_asks() -> None:
    clock = Clock()
    keyring = Keyring()
    service = AgentService(keyring, clock)
    listening = Run(service.listen(Listening()))
    assert isinstance(listening.step, Together)
    _, forgets = (Run(operation) for operation in listening.step.operations)
    assert forgets.step is service.changed
    keyring.add(KEY, now=NOW, lifetime=10)
    forgets.go()
    assert isinstance(forgets.step, Sleep)
    assert (forgets.step.seconds, forgets.step.until) == (10, service.changed)
    clock.now += 10
    forgets.go()
    assert keyring._keys == {}
    assert forgets.step is service.changed


def test_it_ends_with_its_listener() -> None:
    listener = Listening(Stream())
    service = AgentService(Keyring(), Clock())
    listening = Run(service.listen(listener))
    assert isinstance(listening.step, Together)
    accepts, forgets = (Run(operation) for operation in listening.step.operations)
    assert len(accepts.spawned) == 1
    listener.close()
    accepts.go()
    forgets.go()
    assert (accepts.over, forgets.over) == (True, True)


def test_a_bug_in_what_asks_ends_that_connection() -> None:
    def confirm(question: Any) -> bool:
        raise ZeroDivisionError

    service = AgentService(Keyring(), Clock(), confirm=confirm)
    service.keyring.add(KEY, now=NOW, confirm=True)
    stream = Stream()
    run = Run(service.serve(stream))
    stream.put(frame(m.SignRequest(KEY.public_key.blob, b"").encode()))
    run.go()
    assert isinstance(run.error, ZeroDivisionError)
    assert stream.closed
    assert bytes(stream.sent) == b""


# ------------------------------------------------------------------------------------------------------- a login's keys


@attrs.define
class Conn:
    """What a login's keys need of a connection."""

    host_key_blob: bytes | None = b"host key"
    session_id: bytes | None = b"session"
    host_key_signature: bytes | None = b"signature"
    shown: list[Any] = attrs.field(factory=list)

    def auth_public_key(self, question: Any, key: Any, *, certificate: Any = None) -> None:
        self.shown.append((key, certificate))


@attrs.define
class Keeper:
    """An agent whose methods return at once."""

    held: list[Identity]
    calls: list[tuple[Any, ...]] = attrs.field(factory=list)
    refuses: Callable[[], None] = lambda: None

    def identities(self) -> list[Identity]:
        self.calls.append(("identities",))
        return self.held

    def bind(self, host_key: bytes, session_id: bytes, signature: bytes, *, forwarding: bool = False) -> None:
        self.calls.append(("bind", host_key, session_id, signature))
        self.refuses()

    def sign(self, key: bytes, data: bytes, algorithm: str | None = None) -> bytes:
        self.calls.append(("sign", key, data, algorithm))
        self.refuses()
        return b"signed"


def fetched(keys: AgentKeys, conn: Any, *given: bytes, only: bool = False) -> tuple[AgentKey, ...]:
    found: tuple[AgentKey, ...] = Run(keys.fetch(conn, given, only=only)).result()
    return found


def test_it_is_bound_before_it_lists() -> None:
    keeper = Keeper([Identity(KEY.public_key.blob), Identity(b"no key"), Identity(CERTIFICATES["ssh-rsa"].blob)])
    keys = AgentKeys(keeper)
    found = fetched(keys, Conn())
    assert keeper.calls == [("bind", b"host key", b"session", b"signature"), ("identities",)]
    assert found == (AgentKey(KEY.public_key), AgentKey(KEYS["ssh-rsa"].public_key, CERTIFICATES["ssh-rsa"]))
    assert keys.problem is None
    assert fetched(keys, Conn(), CERTIFICATES["ssh-rsa"].blob, only=True) == found[1:]
    assert fetched(keys, Conn(), CERTIFICATES["ssh-rsa"].blob) == found[::-1]
    keeper.calls.clear()
    fetched(keys, Conn(host_key_signature=None))
    assert keeper.calls == [("identities",)]


@pytest.mark.parametrize(("error", "told"), [(ExtensionUnsupported("x"), False), (AgentRefused("x"), True)])
def test_an_agent_that_is_not_bound_is_used_all_the_same(error: Exception, told: bool) -> None:
    def refuse() -> None:
        raise error

    keys = AgentKeys(Keeper([Identity(KEY.public_key.blob)], refuses=refuse))
    assert len(fetched(keys, Conn())) == 1
    assert (keys.problem is error) is told


def test_what_is_offered_is_signed() -> None:
    keeper, conn = Keeper([Identity(KEYS["ssh-rsa"].public_key.blob)]), Conn()
    keys = AgentKeys(keeper)
    [key] = fetched(keys, conn)
    question: Any = attrs.make_class("Question", ["data", "algorithm"])(b"data", "rsa-sha2-256")
    assert Run(keys.sign(question)).result() is None
    assert keys.offer(conn, question, key)  # type: ignore[arg-type]
    assert conn.shown == [(key.key, None)]
    assert Run(keys.sign(question)).result() == b"signed"
    assert keeper.calls[-1] == ("sign", key.blob, b"data", "rsa-sha2-256")
    assert not keys.offer(conn, question, KEY.public_key)  # type: ignore[arg-type]
    lent = keys.lend(KEYS["ssh-rsa"].public_key, CERTIFICATES["ssh-rsa"])
    assert lent is not None
    assert keys.offer(conn, question, lent)  # type: ignore[arg-type]
    assert conn.shown[-1] == (key.key, CERTIFICATES["ssh-rsa"])
    assert Run(keys.sign(question)).result() == b"signed"
    assert keeper.calls[-1][1] == key.blob  # by the plain key
    assert keys.lend(KEY.public_key, CERTIFICATES["ssh-ed25519"]) is None
    assert keys.lend(KEYS["ssh-rsa"], CERTIFICATES["ssh-rsa"]) is None  # who has the private key needs no agent
