"""Floods against what stands above a connection: hubs, channels, the operation that serves.

What a connection itself keeps is in test_bounds.py.  Here a client that is logged in floods a server that serves it and
runs a program for it, and a server floods a client that has started one; and neither holds more after it than before.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from sshproto.channels.requests import Exec
from sshproto.operations.agent_forwarding import AgentForwarding
from sshproto.operations.displays import Display
from sshproto.operations.session import start
from sshproto.operations.steps import Operation, Sleep
from sshproto.operations.x11 import STRANGERS, X11Forwarding
from sshproto.wire import messages as m
from sshproto.wire.codec import string, text, uint32
from tests.support.rogue import inject
from tests.support.running import End, Host, Scene

pytestmark = pytest.mark.slow

WINDOW = 1 << 20
CHANNEL = 0
ROUNDS = 60

Round = Callable[[End, int], None]
"""What ``End``, the one who floods, says in a round; the other has heard it when the next round begins."""


def say(*messages: m.Message | Callable[[int], m.Message]) -> Round:
    def speak(end: End, index: int) -> None:
        for message in messages:
            inject(end, message(index) if callable(message) else message)

    return speak


def asks(kind: str, payload: bytes = b"", *, reply: bool = False, channel: int = CHANNEL) -> m.Message:
    return m.ChannelRequest(channel, kind, reply, payload)


def globally(kind: str, payload: Callable[[int], bytes], *, reply: bool) -> Callable[[int], m.Message]:
    return lambda index: m.GlobalRequest(kind, reply, payload(index))


def port(index: int) -> bytes:
    return text("forbidden") + uint32(1 + index)


def visit(kind: str, payload: bytes = b"", *requests: tuple[str, bytes]) -> Round:
    """Open a channel, ask for something on it if it is granted, and close it."""

    def speak(end: End, index: int) -> None:
        inject(end, m.ChannelOpen(kind, 1000 + index, WINDOW, 32768, payload))
        end.scene.settle()
        for number, channel in list(end.peer.conn._engine.mux._channels.items()):
            if channel.peer_number == 1000 + index:
                for name, content in requests:
                    inject(end, asks(name, content, reply=True, channel=number))
                inject(end, m.ChannelClose(number))

    return speak


TARGET = text("forbidden") + uint32(22) + text("") + uint32(0)
DISPLAY = b"\0" + text("MIT-MAGIC-COOKIE-1") + text("00" * 16) + uint32(0)
TO_SERVER: dict[str, Round] = {
    "signal": say(asks("signal", text("TERM"))),
    "window-change": say(asks("window-change", uint32(80) * 4)),
    "env": say(asks("env", text("A") + string(bytes(100)))),
    "env with reply": say(asks("env", text("A") + string(bytes(100)), reply=True)),
    "request of no kind": say(asks("x@example.org", bytes(100))),
    "request of no kind with reply": say(asks("x@example.org", bytes(100), reply=True)),
    "break": say(asks("break", uint32(500), reply=True)),
    "data": say(m.ChannelData(CHANNEL, bytes(100))),
    "extended data": say(m.ChannelExtendedData(CHANNEL, 1, bytes(100))),
    "global request": say(globally("x@example.org", lambda index: bytes(100), reply=True)),
    "global request without reply": say(globally("x@example.org", lambda index: bytes(100), reply=False)),
    "tcpip-forward": say(globally("tcpip-forward", port, reply=True)),
    "tcpip-forward and its cancel without replies": say(
        globally("tcpip-forward", port, reply=False), globally("cancel-tcpip-forward", port, reply=False)
    ),
    "cancel-tcpip-forward": say(globally("cancel-tcpip-forward", port, reply=True)),
    "hostkeys-prove": say(globally("hostkeys-prove-00@openssh.com", lambda index: string(bytes(100)), reply=True)),
    "direct-tcpip": visit("direct-tcpip", TARGET),
    "channel of no kind": visit("x@example.org", bytes(100)),
    "session": visit("session"),
    "session with env": visit("session", b"", ("env", text("A") + string(bytes(100)))),
    "session with exec": visit("session", b"", ("exec", string(b"cat"))),
    "session with a refused exec": visit("session", b"", ("exec", string(b"forbidden"))),
    "session with a display": visit("session", b"", ("x11-req", DISPLAY), ("shell", b"")),
    "session with an agent": visit("session", b"", ("agent-req", b""), ("shell", b"")),
    "session with a terminal": visit("session", b"", ("pty-req", text("x") + bytes(16) + string(b"")), ("shell", b"")),
}
TO_CLIENT: dict[str, Round] = {
    "exit-status": say(asks("exit-status", uint32(1))),
    "exit-signal": say(asks("exit-signal", text("TERM") + b"\0" + text("x" * 100) + text(""))),
    "eow": say(asks("eow@openssh.com")),
    "xon-xoff": say(asks("xon-xoff", b"\1")),
    "keepalive": say(asks("keepalive@openssh.com", reply=True)),
    "data": say(m.ChannelExtendedData(CHANNEL, 1, b"")),
    "hostkeys": say(globally("hostkeys-00@openssh.com", lambda index: string(bytes(100)), reply=False)),
    "global request": say(globally("x@example.org", lambda index: bytes(100), reply=True)),
    "forwarded-tcpip": visit("forwarded-tcpip", TARGET),
    "x11": visit("x11", text("host") + uint32(1)),
    "agent-connect": visit("agent-connect"),
    "auth-agent": visit("auth-agent@openssh.com"),
    "session": visit("session"),
}


def objects() -> int:
    """All that Python keeps account of: whatever is kept of a message is in something that it does."""
    gc.collect()
    return len(gc.get_objects())


class Quiet(Host):
    """Runs a program that reads what comes, and keeps no notes."""

    def allow_agent(self, session: Any) -> bool:
        return True

    def allow_x11(self, session: Any, request: Any) -> bool:
        return True

    def session(self, session: Any) -> Operation[int]:
        while (yield from session.channel.read()):
            pass
        return 0


def deafen(end: End) -> None:
    """Who floods hears nothing, least of all what is wrong with it."""
    engine = end.conn._engine
    engine._handlers = (lambda engine, payload: None,) * 256
    engine._look_up = lambda: None


@pytest.mark.covers("B28", "V35", "P21")
@pytest.mark.parametrize(
    ("role", "title"),
    [*(("server", title) for title in TO_SERVER), *(("client", title) for title in TO_CLIENT)],
    ids=str,
)
def test_a_flood_leaves_nothing_behind(role: str, title: str) -> None:
    scene = Scene().serve(Quiet()).login()
    scene.client.begin(start(scene.client.hub, Exec(b"cat")))
    scene.settle()
    end, speak = (scene.client, TO_SERVER[title]) if role == "server" else (scene.server, TO_CLIENT[title])
    deafen(end)
    said = 0

    def flood(rounds: int) -> None:
        nonlocal said
        for _ in range(rounds):
            speak(end, said)
            said += 1
            scene.settle()
            for each in scene.ends:
                each.spawned = [task for task in each.spawned if not task.done]  # the scene's own notes

    flood(2 * ROUNDS)  # what is kept of the last few is full
    before = objects()
    flood(ROUNDS)
    after = objects()
    assert scene.client.hub.lost is None
    assert scene.server.hub.lost is None
    assert after - before < ROUNDS // 2
    for each in scene.ends:
        each.conn.disconnect()
    scene.settle()


MANY = 10_000
BROUGHT = {"x11": text("host") + uint32(1), "agent-connect": b"", "auth-agent@openssh.com": b""}


@pytest.mark.covers("V75", "B13", "P21")
@pytest.mark.parametrize("asked", [True, False], ids=["asked", "unasked"])
@pytest.mark.parametrize("kind", BROUGHT)
def test_channels_that_a_server_brings_are_bounded(kind: str, asked: bool) -> None:
    """Whoever has an agent and a display connects to nothing for a server that nobody asked, nor often otherwise."""
    scene = Scene().serve(Quiet()).login()
    dialled = 0

    def dial(address: object = None) -> Operation[Any]:
        nonlocal dialled
        dialled += 1
        yield Sleep(1e6)  # an agent or a display that does not answer

    agent = AgentForwarding(source="agent", dial=dial)
    x11 = X11Forwarding(display=Display("host", 0), cookie=None, dial=dial, entropy=bytes)
    offers: Any = {"agent": agent, "x11": x11} if asked else {}
    begun = scene.client.begin(start(scene.client.hub, Exec(b"cat"), **offers))
    scene.pass_time(1.0)
    assert begun.done
    session = begun.value()
    running = len(scene.client.running())
    deafen(scene.server)
    limits = scene.client.hub.limits
    for number in range(MANY):
        inject(scene.server, m.ChannelOpen(kind, 1000 + number, WINDOW, 32768, BROUGHT[kind]))
        if number % 100 == 0:
            scene.settle()
            undecided = len(scene.client.conn.questions)
            assert undecided <= limits.opens_pending
            assert len(scene.client.conn.channels) <= limits.channels_from_peer + 1
            assert len(scene.client.running()) - running <= limits.channels_from_peer
            scene.client.spawned = scene.client.running()
    scene.settle()
    assert scene.client.hub.lost is None
    brought = {
        "x11": STRANGERS,
        "agent-connect": limits.channels_from_peer,
        "auth-agent@openssh.com": limits.channels_from_peer,
    }
    assert len(scene.client.conn.channels) - 1 == (brought[kind] if asked else 0)
    assert dialled == (len(scene.client.conn.channels) - 1 if kind != "x11" else 0)
    session.close()
    for end in scene.ends:
        end.conn.disconnect()
    scene.settle()
