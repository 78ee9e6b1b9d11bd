"""Agent forwarding, both roles, in memory: by which name it is asked for, what the agent is told, what is passed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from sshproto.agent import Keyring
from sshproto.channels.forwarding import AGENT_FORWARD
from sshproto.channels.requests import (
    AgentConnect,
    AgentRequest,
    AuthAgent,
    AuthAgentRequest,
    Exec,
    OpenFailure,
    Session,
)
from sshproto.errors import InvalidArgument, OpenRefused, RequestRefused
from sshproto.operations.agent_forwarding import AgentForwarding, served
from sshproto.operations.agents import Agent as RemoteAgent
from sshproto.operations.agents import AgentService
from sshproto.operations.pipes import ROOM, pipe
from sshproto.operations.session import start
from sshproto.operations.steps import Operation
from sshproto.wire import messages as m
from sshproto.wire.codec import Reader, string, text
from tests.support.pair import HOST_KEY, USER_KEY
from tests.support.rogue import inject
from tests.support.running import Blow, Host, MemoryListener, MemoryStream, Moment, Scene, Task

AGENT = "/run/agent"
SUCCESS = string(b"\x06")
FAILURE = string(b"\x05")


class Agents(Host):
    """Gives agents to whoever asks."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Any] = []

    def allow_agent(self, session: Any) -> Any:
        self.sessions.append(session)
        return True


@attrs.define
class Desk:
    """A scene with an agent at the client's side.

    Attributes:
        scene: The connection.
        forwarding: What sessions are given.
        warnings: What the client was told.
        listener: The agent's.
    """

    scene: Any
    forwarding: AgentForwarding
    warnings: list[str]
    listener: MemoryListener

    def start(self, **changes: Any) -> Any:
        agent = attrs.evolve(self.forwarding, **changes)
        return self.scene.client.perform(start(self.scene.client.hub, Exec(b"wait"), agent=agent))

    def settle(self) -> None:
        self.scene.pass_time(0.1)

    def program(self, session: int = 0) -> MemoryStream:
        """A program connects; its end."""
        path = self.scene.handler.sessions[session].provided["SSH_AUTH_SOCK"]
        stream: MemoryStream = self.scene.net.listeners[path].connect("program", room=100_000)
        self.settle()
        return stream

    def agent(self) -> MemoryStream:
        """The agent's end of the next connection to it."""
        stream: MemoryStream = self.scene.client.perform(self.listener.accept())
        return stream

    def read(self, stream: MemoryStream, limit: int = 10_000) -> bytes:
        data: bytes = self.scene.client.perform(stream.receive(limit))
        return data

    def write(self, stream: MemoryStream, data: bytes) -> None:
        self.scene.client.perform(stream.send(data))
        self.settle()

    def bound(self, reply: bytes = SUCCESS) -> tuple[MemoryStream, MemoryStream]:
        """A program and an agent that talk to each other."""
        program = self.program()
        agent = self.agent()
        self.read(agent)
        self.write(agent, reply)
        return program, agent


@pytest.fixture
def make_desk(make: Callable[..., Scene]) -> Callable[..., Desk]:
    def build(handler: Host | None = None, **limits: int) -> Desk:
        scene = make(handler or Agents(), **limits)
        warnings: list[str] = []
        listener = scene.net.listener(AGENT)
        forwarding = AgentForwarding(source=AGENT, dial=lambda: scene.net.dial(AGENT), warn=warnings.append)
        return Desk(scene, forwarding, warnings, listener)

    return build


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()


def asked(desk: Desk) -> list[str]:
    """The names of the channels that the server has opened towards us."""
    return [channel.kind.type for channel in desk.scene.client.hub.channels.values() if channel.kind != Session()]


@pytest.mark.covers("R12", "V75")
@pytest.mark.parametrize(
    ("announced", "name"),
    [(b"0", "agent-connect"), (b"1", "auth-agent@openssh.com"), (None, "auth-agent@openssh.com")],
)
def test_bytes_pass_as_they_are(desk: Desk, announced: bytes | None, name: str) -> None:
    engine = desk.scene.client.conn._engine
    extensions = dict(engine.extensions.peer)
    assert extensions.pop(AGENT_FORWARD) == b"0"
    if announced is not None:
        extensions[AGENT_FORWARD] = announced
    engine.extensions.peer = extensions
    desk.start()
    program, agent = desk.bound()
    assert asked(desk) == [name]
    desk.write(program, b"\0\0\0\1\x0b and anything else")
    assert desk.read(agent) == b"\0\0\0\1\x0b and anything else"
    desk.write(agent, bytes(50_000))
    assert len(desk.read(program, 100_000)) == 50_000
    agent.close()
    desk.settle()
    assert desk.read(program) == b""
    desk.scene.server.perform(program.send_eof())
    desk.settle()
    assert asked(desk) == []


@pytest.mark.covers("V74")
def test_the_agent_hears_first_for_whom_it_is(desk: Desk) -> None:
    """By a signature that it can verify."""
    desk.start()
    program = desk.program()
    desk.scene.server.begin(program.send(b"too early"))
    agent = desk.agent()
    said = Reader(desk.read(agent), "request")
    body = Reader(said.string("body"), "body")
    said.end()
    assert body.byte("type") == 27
    assert body.string("name") == b"session-bind@openssh.com"
    host_key, session_id, signature = (body.string(part) for part in ("key", "session", "signature"))
    assert body.byte("forwarding") == 1
    body.end()
    assert host_key == HOST_KEY.public_key.blob
    assert session_id == desk.scene.client.conn.session_id == desk.scene.server.conn.session_id
    HOST_KEY.public_key.verify(signature, session_id, "ssh-ed25519")
    assert asked(desk) == []  # until the agent has answered
    desk.write(agent, SUCCESS)
    assert asked(desk) == ["agent-connect"]
    desk.settle()
    assert desk.read(agent) == b"too early"


@pytest.mark.parametrize("reply", [SUCCESS, FAILURE, string(b"\x1c")])
def test_an_agent_that_knows_no_binding_serves_all_the_same(desk: Desk, reply: bytes) -> None:
    desk.start()
    program, agent = desk.bound(reply)
    desk.write(program, b"question")
    assert desk.read(agent) == b"question"
    assert desk.warnings == []


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"", "the agent has closed the connection"),
        (b"\0\0", "the stream ended within an agent reply: 2 bytes of it came"),
        (b"\0\0\0\5\6", "the stream ended within an agent reply: 5 bytes of it came"),
        (bytes(4), "an agent reply of 0 bytes is announced: 1 to 262144 are accepted"),
        (b"\0\4\0\1", "an agent reply of 262145 bytes is announced: 1 to 262144 are accepted"),
        (string(b"\0"), "the agent answered SSH_AGENTC_EXTENSION with message 0"),
    ],
)
def test_an_agent_that_does_not_answer_as_agents_do_is_none(desk: Desk, reply: bytes, words: str) -> None:
    desk.start()
    program = desk.program()
    agent = desk.agent()
    desk.read(agent)
    desk.write(agent, reply)
    agent.close()
    desk.settle()
    assert desk.read(program) == b""
    assert desk.warnings[0].startswith(f"the agent can't be told for whom it is: {words}")
    assert agent.far.closed


def test_an_agent_that_is_not_there(desk: Desk) -> None:
    desk.start()
    desk.listener.close()
    assert desk.read(desk.program()) == b""
    assert desk.warnings == ["cannot connect to the agent: Connection refused"]
    with pytest.raises(OpenRefused) as caught:
        desk.scene.server.perform(desk.scene.server.hub.open_channel(AgentConnect()))
    assert caught.value.reason == OpenFailure.CONNECT_FAILED


@pytest.mark.covers("V75")
@pytest.mark.parametrize("how", ["client", "server", "lost"])
def test_it_ends_with_the_session(desk: Desk, how: str) -> None:
    channel = desk.start()
    program, agent = desk.bound()
    assert len(desk.scene.net.listeners) == 2
    if how == "client":
        channel.close()
    elif how == "server":
        desk.scene.handler.sessions[0].channel.close()
    else:
        desk.scene.cut()
    desk.settle()
    assert set(desk.scene.net.listeners) == {AGENT}
    assert desk.scene.client.hub.offers == {}
    if how != "lost":
        desk.write(program, b"!")
        assert desk.read(agent) == b"!"  # what was there before goes on
        for kind in (AgentConnect(), AuthAgent()):
            with pytest.raises(OpenRefused) as caught:
                desk.scene.server.perform(desk.scene.server.hub.open_channel(kind))
            assert caught.value.reason == OpenFailure.ADMINISTRATIVELY_PROHIBITED
    assert not desk.scene.bugs


def test_sessions_share_the_agent(desk: Desk) -> None:
    first = desk.start()
    second = desk.start()
    with pytest.raises(InvalidArgument, match="another agent"):
        desk.start(source="/run/other")
    first.close()
    desk.settle()
    program = desk.program(1)
    desk.write(desk.agent(), SUCCESS)
    desk.scene.client.begin(program.send(b"x"))
    second.close()
    desk.settle()
    desk.start(source="/run/other")  # now it is the only one


def test_a_session_has_one_agent(desk: Desk) -> None:
    channel = desk.scene.client.perform(desk.scene.client.hub.open_channel(Session()))
    for request, granted in ((AgentRequest(), True), (AgentRequest(), False), (AuthAgentRequest(), False)):
        assert desk.scene.client.perform(channel.request(request)) is granted
    assert len(desk.scene.handler.sessions) == 1


def test_who_does_not_say_gives_none(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(Host())
    with pytest.raises(RequestRefused, match="agent-req"):
        desk.start()
    assert not desk.start(optional=True).closed
    assert desk.warnings == ["the server refuses to forward the agent"]
    assert desk.scene.client.hub.offers == {}
    assert set(desk.scene.net.listeners) == {AGENT}


def test_a_server_that_can_not_listen_refuses(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(address: Any) -> Operation[Any]:
        raise OSError("no room")
        yield

    monkeypatch.setattr(desk.scene.net, "listen", full)
    with pytest.raises(RequestRefused):
        desk.start()


@pytest.mark.covers("V75", "B13", "P21")
@pytest.mark.parametrize("name", ["agent-connect", "auth-agent@openssh.com"])
def test_a_server_that_opens_channels_unasked_gets_none(desk: Desk, name: str) -> None:
    for number in range(1000):
        inject(desk.scene.server, m.ChannelOpen(name, number, 1 << 20, 32768, b""))
    desk.settle()
    assert desk.scene.client.hub.channels == {}
    assert desk.scene.client.running() == []
    assert not desk.listener._waiting


@pytest.mark.covers("V75", "B13", "P21")
def test_a_server_that_opens_thousands_gets_as_many_as_there_may_be(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(client_channels_from_peer=20, client_opens_pending=10)
    desk.start()
    for number in range(2000):
        inject(desk.scene.server, m.ChannelOpen("agent-connect", 1000 + number, 1 << 20, 32768, b""))
    desk.settle()
    assert len(desk.listener._waiting) == 10
    assert len(desk.scene.client.running()) < 20


def test_what_follows_the_name_is_refused(desk: Desk) -> None:
    desk.start()
    inject(desk.scene.server, m.ChannelOpen("agent-connect", 1000, 1 << 20, 32768, text("more")))
    desk.settle()
    assert not desk.listener._waiting


@pytest.mark.parametrize("moment", list(Moment))
def test_giving_up_at_any_yield_leaves_nothing(make_desk: Callable[..., Desk], moment: Moment) -> None:
    number = 0
    while True:
        number += 1
        desk = make_desk()
        blow = Blow(number, moment, Task.cancel)
        task = desk.scene.client.begin(start(desk.scene.client.hub, Exec(b"wait"), agent=desk.forwarding), blow)
        desk.scene.run(lambda task=task: task.done, 10.0)
        if not blow.fallen or task.error is None:
            break
        desk.settle()
        assert desk.scene.client.hub.offers == {}
        assert desk.scene.client.hub.channels == {}
        assert desk.scene.client.running() == []
        assert set(desk.scene.net.listeners) == {AGENT}
        assert not desk.scene.bugs
        assert number < 50
    assert number > 3


@pytest.mark.parametrize("moment", list(Moment))
def test_a_visit_that_is_cancelled_leaves_nothing(make_desk: Callable[..., Desk], moment: Moment) -> None:
    number = 0
    while True:
        number += 1
        desk = make_desk()
        channel = desk.start()
        blow = desk.scene.client.next_blow = Blow(number, moment, Task.cancel)
        program = desk.program()
        if desk.listener._waiting:
            agent = desk.agent()
            desk.scene.client.begin(agent.send(SUCCESS))
            desk.settle()
            if number > 40:
                break
            agent.close()
        desk.scene.server.begin(program.send_eof())
        desk.settle()
        fallen = blow.fallen
        channel.close()
        desk.settle()
        for stream in desk.listener._waiting:  # nobody has come to take it
            stream.close()
        assert desk.scene.net.left_open() == []
        assert desk.scene.client.running() == []
        assert asked(desk) == []
        assert not desk.scene.bugs
        if not fallen:
            break
    assert number > 3


# ------------------------------------------------------------------------------------------------ an agent of one's own


def test_a_keyring_is_served_where_it_is_forwarded(desk: Desk) -> None:
    keyring = Keyring()
    keyring.add(USER_KEY, now=0.0, comment="mine")
    service = AgentService(keyring, lambda: desk.scene.now)
    desk.start(source=keyring, dial=served(service))
    for _ in range(2):
        agent = RemoteAgent(desk.program())
        (identity,) = desk.scene.server.perform(agent.identities())
        assert identity.blob == USER_KEY.public_key.blob
        signature = desk.scene.server.perform(agent.sign(identity, b"what is to be signed"))
        USER_KEY.public_key.verify(signature, b"what is to be signed", "ssh-ed25519")
        agent.close()
        desk.settle()
    assert asked(desk) == []
    assert len(desk.scene.client.running()) == 2  # the session's, no connection's


def test_a_pipe_holds_up_who_writes_much() -> None:
    scene = Scene()
    near, far = pipe()
    task = scene.client.begin(near.send(bytes(3 * ROOM)))
    scene.settle()
    assert not task.done
    received = 0
    while received < 3 * ROOM:
        received += len(scene.client.perform(far.receive(ROOM // 3)))
        scene.settle()
    assert task.done
    scene.client.perform(near.send_eof())
    assert scene.client.perform(far.receive(1)) == b""
    scene.client.perform(far.send(b"still"))
    assert scene.client.perform(near.receive(10)) == b"still"


@pytest.mark.parametrize("near_closes", [True, False])
def test_a_pipe_that_is_closed_lets_go_who_waits(near_closes: bool) -> None:
    scene = Scene()
    near, far = pipe()
    writing = scene.client.begin(near.send(bytes(2 * ROOM)))
    reading = scene.client.begin(near.receive(1))
    (near if near_closes else far).close()
    (near if near_closes else far).close()
    scene.settle()
    assert isinstance(writing.error, OSError)
    if near_closes:
        assert isinstance(reading.error, OSError)
        assert len(scene.client.perform(far.receive(2 * ROOM))) == ROOM
        assert scene.client.perform(far.receive(1)) == b""
    else:
        assert reading.value() == b""
