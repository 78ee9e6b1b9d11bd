"""Every operation, cancelled at every one of its yields; and struck there by the end of the connection, or by a rekey.

Whatever happens to an operation, nothing of it stays behind: no channel, no question, no listener, no stream, nobody
who waits.  Where the connection lives, the next command works; where it does not, nothing hangs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from sshproto.channels.requests import Break, Env, Exec, PtyRequest, Session, Shell, Signal
from sshproto.config import ClientConfig, Limits, ServerConfig
from sshproto.errors import ConnectionLoss
from sshproto.operations.channel import Channel
from sshproto.operations.forwarding import Invited, forward_local, forward_remote, listen, open_to, relay
from sshproto.operations.login import LoginPlan, log_in
from sshproto.operations.serving import serve
from sshproto.operations.session import Completed, resize, run, start
from sshproto.operations.socks import Pushback, SocksRequest, forward_dynamic, requested
from sshproto.operations.steps import Operation, Together
from sshproto.transport.link import Phase
from tests.support.pair import HOST_KEY, USER_KEY
from tests.support.running import QUICK, Blow, Cancelled, Host, Moment, Scene, Task, joined, trust

WINDOW = 2048
"""A small one, so that whoever sends has to wait."""

ALL = bytes(index % 251 for index in range(3 * WINDOW))
FLOOD = f"flood {len(ALL)}"
HERE = ("127.0.0.1", 8022)
THERE = ("db.example", 5432)
ENOUGH = 60.0


def scene(*, deferred: int | None = None, login: bool = True, chunk: int = 0) -> Scene:
    """A connection whose windows are small.

    Args:
        deferred: How many messages of the client may wait for the end of a key exchange; None for the usual number.
        login: Log in.
        chunk: See :class:`Scene`.
    """
    limits = Limits(window=WINDOW, window_floor=WINDOW)
    ours = limits if deferred is None else attrs.evolve(limits, deferred_packets=deferred)
    client = ClientConfig(user="alice", debug_raise=True, preferences=QUICK, limits=ours)
    server = ServerConfig(host_keys=(HOST_KEY,), debug_raise=True, preferences=QUICK, limits=limits)
    found = Scene(client, server, chunk=chunk)
    found.net.slow = 0.5
    if login:
        found.serve().login()
    return found


# ---------------------------------------------------------------------------------------------------------------- cases


def nothing(scene: Scene, state: Any) -> None:
    pass


@attrs.frozen(kw_only=True)
class Case:
    """An operation to be struck.

    Attributes:
        make: Makes it.
        prepare: What has to be there before.
        during: What the world does while it runs.
        after: Looks at what a cancelled one has left, and ends what was there before.
        spawned: It is not the operation itself that is struck but the first that it, or serving, has spawned.
        at_server: It runs at the server.
        login: It runs on a connection that is logged in.
        endless: It does not end by itself as long as the connection lives.
        runs_on: Not even then: it is cancelled with its connection.
        ends_well: What it returns when the connection is lost is no error.
    """

    make: Callable[[Scene, Any], Operation[Any]]
    prepare: Callable[[Scene, Any], None] = nothing
    during: Callable[[Scene, Any], None] = nothing
    after: Callable[[Scene, Any], None] = nothing
    spawned: bool = False
    at_server: bool = False
    login: bool = True
    endless: bool = False
    runs_on: bool = False
    ends_well: bool = False


def program(command: bytes) -> Callable[[Scene, Any], None]:
    """There is a channel on which ``command`` runs."""

    def prepare(scene: Scene, state: Any) -> None:
        state.channel = scene.client.perform(start(scene.client.hub, Exec(command)))
        scene.settle()

    return prepare


def session(scene: Scene, state: Any) -> None:
    """There is a session on which nothing runs yet."""
    state.channel = scene.client.perform(scene.client.hub.open_channel(Session()))


def hang_up(scene: Scene, state: Any) -> None:
    state.channel.close()


def rest_is_there(scene: Scene, state: Any) -> None:
    """Cancelling who reads loses nothing."""
    got = bytes(getattr(state, "got", state.task.result or b""))
    assert got + scene.client.perform(state.channel.read_all()) == ALL
    assert scene.client.perform(state.channel.read_all(1)) == b"that was all"
    scene.client.perform(state.channel.until_closed())


def reads(read: Callable[[Channel], Operation[bytes]]) -> Callable[[Scene, Any], Operation[Any]]:
    """Read all that there is, piece by piece."""

    def operation(scene: Scene, state: Any) -> Operation[None]:
        state.got = bytearray()
        while data := (yield from read(state.channel)):
            state.got += data

    return operation


def writable_again(scene: Scene, state: Any) -> None:
    """Cancelling who writes leaves the channel to others."""
    scene.client.perform(state.channel.write(b"more"))
    scene.client.perform(state.channel.send_eof())
    assert int(scene.client.perform(state.channel.read_all())) >= len(b"more")
    scene.client.perform(state.channel.until_closed())


def two_writers(scene: Scene, state: Any) -> Operation[Any]:
    yield Together(state.channel.write(ALL), state.channel.write(ALL))


def eof_arrives(scene: Scene, state: Any) -> None:
    """Whether or not EOF was sent when it was cancelled, it can be."""
    scene.client.perform(state.channel.send_eof())
    assert scene.client.perform(state.channel.read_all()) == b"0"
    scene.client.perform(state.channel.until_closed())


def requests(scene: Scene, state: Any) -> Operation[Any]:
    granted = yield from state.channel.request(Env("LANG", b"C"))
    assert granted
    yield from state.channel.require(PtyRequest("vt100"))
    yield from state.channel.notify(Env("LC_ALL", b"C"))


def starts_still(scene: Scene, state: Any) -> None:
    scene.client.perform(state.channel.require(Exec(b"env")))
    assert scene.client.perform(state.channel.read_all())
    scene.client.perform(state.channel.until_closed())


def notices(scene: Scene, state: Any) -> Operation[Any]:
    yield from state.channel.notify(Signal("USR1"))
    yield from resize(state.channel, 100, 50)
    yield from state.channel.request(Break(700))


def server_listens(scene: Scene, state: Any) -> None:
    state.invited = scene.client.perform(listen(scene.client.hub, HERE))
    scene.settle()


def somebody_calls(scene: Scene, state: Any) -> None:
    """Somebody connects to where the server or the client listens, says something, and ends."""
    scene.run(lambda: HERE in scene.net.listeners, ENOUGH)
    if HERE in scene.net.listeners:
        state.caller = scene.net.listeners[HERE].connect()
        state.talk = scene.server.begin(talk(state.caller, getattr(state, "says", b"")))


def talk(stream: Any, first: bytes = b"") -> Operation[bytes]:
    """Say ``first`` and then all, and hear all."""
    heard = bytearray()

    def hear() -> Operation[None]:
        while data := (yield from stream.receive(700)):
            heard.extend(data)

    def say() -> Operation[None]:
        yield from stream.send(first + ALL)
        yield from stream.send_eof()

    try:
        yield Together(say(), hear())
    except OSError:  # cut off
        pass
    finally:
        stream.close()
    return bytes(heard)


def answering(scene: Scene, state: Any) -> None:
    """There is a service that says back what it is told."""
    listener = scene.net.listener(THERE)

    def answer() -> Operation[None]:
        while True:
            stream = yield from listener.accept()
            try:
                while data := (yield from stream.receive(900)):
                    yield from stream.send(data)
                yield from stream.send_eof()
            except OSError:  # cut off
                pass
            finally:
                stream.close()

    state.service = scene.server.begin(answer())


def listens(scene: Scene, state: Any) -> None:
    """The client listens, and there is something to connect to."""
    answering(scene, state)
    state.listener = scene.net.listener(HERE)


def not_listening(scene: Scene, state: Any) -> None:
    """Who was cancelled listens no more; what was connected before goes on, and ends."""
    assert HERE not in scene.net.listeners
    scene.run(lambda: "talk" not in vars(state) or state.talk.done, ENOUGH)


def let_go(scene: Scene, state: Any) -> None:
    """Of several that were spawned one was cancelled: it alone has ended."""
    scene.run(lambda: "talk" not in vars(state) or state.talk.done, ENOUGH)
    for name in ("operation", "service"):
        if name in vars(state):
            getattr(state, name).cancel()
    for listener in list(scene.net.listeners.values()):
        listener.close()


def no_invitation(scene: Scene, state: Any) -> None:
    assert not scene.client.hub.invitations
    assert scene.net.listeners == {}


def listen_again(kind: Any) -> Callable[[Scene, Any], None]:
    """Nobody listens; and if somebody wants to, he can."""

    def after(scene: Scene, state: Any) -> None:
        no_invitation(scene, state)
        scene.client.perform(listen(scene.client.hub, kind)).close()
        scene.settle()
        no_invitation(scene, state)

    return after


def accepts(scene: Scene, state: Any) -> Operation[bytes]:
    channel = yield from state.invited.accept()
    try:
        return (yield from channel.read_exactly(10))
    finally:
        channel.close()


def not_invited(scene: Scene, state: Any) -> None:
    let_go(scene, state)
    no_invitation(scene, state)


def still_invited(scene: Scene, state: Any) -> None:
    """Who waited for a connection and was cancelled has not taken it from the next one."""
    assert [each.kind for each in scene.client.hub.invitations] == [HERE]
    waiting = len(scene.client.hub.invitations[0].waiting)
    caller = scene.net.listeners[HERE].connect()
    for _ in range(waiting + 1):
        channel = scene.client.perform(state.invited.accept())
        channel.close()
    caller.close()
    state.invited.close()
    scene.settle()
    no_invitation(scene, state)


def relays(scene: Scene, state: Any) -> Operation[None]:
    near, far = joined("relayed", room=1000)
    scene.net.streams.append(near)
    state.talk = scene.server.begin(talk(far))
    return relay(state.channel, near)


def to_the_service(scene: Scene, state: Any) -> None:
    answering(scene, state)
    state.channel = scene.client.perform(open_to(scene.client.hub, THERE))
    scene.settle()


def remote(scene: Scene, state: Any) -> Operation[None]:
    yield from forward_remote(scene.client.hub, state.invited, lambda kind: scene.net.dial(THERE))


def remote_prepared(scene: Scene, state: Any) -> None:
    answering(scene, state)
    server_listens(scene, state)


def socks(scene: Scene, state: Any) -> None:
    name = THERE[0].encode()
    state.says = b"\5\1\0" + b"\5\1\0\3" + bytes([len(name)]) + name + THERE[1].to_bytes(2, "big")


def listens_socks(scene: Scene, state: Any) -> None:
    listens(scene, state)
    socks(scene, state)


def client_of_socks(scene: Scene, state: Any) -> Operation[Any]:
    near, far = joined("socks")
    scene.net.streams.append(near)
    state.talk = scene.server.begin(talk(far, state.says))

    def ask() -> Operation[Any]:
        stream = Pushback(near)
        try:
            return (yield from requested(stream, 30.0))
        finally:
            stream.close()

    return ask()


def at_server(scene: Scene, state: Any) -> Operation[Any]:
    return serve(scene.server.hub, Host(), scene.net.world())


def visit(scene: Scene, state: Any) -> None:
    """A client logs in and uses all that there is."""

    def visitor() -> Operation[None]:
        hub = scene.client.hub
        yield from log_in(hub, trust, LoginPlan([USER_KEY]))
        completed = yield from run(hub, "env", pty=PtyRequest("vt100"), env={"LANG": "C"})
        assert completed.exit_status == 0
        invited = yield from listen(hub, HERE)
        state.caller = scene.net.listeners[HERE].connect()
        channel = yield from invited.accept()
        channel.close()
        invited.close()
        channel = yield from open_to(hub, THERE)
        channel.close()

    answering(scene, state)
    state.visitor = scene.client.begin(visitor())


def visited(command: str) -> Callable[[Scene, Any], None]:
    """A client runs something."""

    def during(scene: Scene, state: Any) -> None:
        state.visitor = scene.client.begin(run(scene.client.hub, command, input=ALL))

    return during


def listener_is_visited(scene: Scene, state: Any) -> None:
    """A client has the server listen, and somebody calls."""
    state.visitor = scene.client.begin(listen(scene.client.hub, HERE))
    somebody_calls(scene, state)


def visitor_leaves(scene: Scene, state: Any) -> None:
    """The server has given up serving: the client gives up, too."""
    if not scene.server.running():
        assert scene.server.hub.channels == {}
        assert [stream for stream in scene.net.left_open() if stream.name == "caller, far end"] == []
    state.visitor.cancel()
    if isinstance(state.visitor.result, Invited):
        state.visitor.result.close()
    if "caller" in vars(state):
        state.caller.close()
    scene.settle()
    if scene.service is None:
        scene.serve()
    scene.settle()


CASES: dict[str, Case] = {
    "log in": Case(
        make=lambda s, _: log_in(s.client.hub, trust, LoginPlan([USER_KEY])),
        prepare=lambda s, _: nothing(s.serve(), None),
        login=False,
    ),
    "open": Case(make=lambda s, _: s.client.hub.open_channel(Session()), after=nothing),
    "start": Case(
        make=lambda s, _: start(
            s.client.hub, Exec(b"wait"), pty=PtyRequest("xterm"), env={"LANG": "C.UTF-8", "EDITOR": "ed"}
        )
    ),
    "shell": Case(make=lambda s, _: start(s.client.hub, Shell())),
    "run": Case(make=lambda s, _: run(s.client.hub, "echo hello")),
    "run, refused": Case(make=lambda s, _: run(s.client.hub, "forbidden")),
    "run, much input": Case(make=lambda s, _: run(s.client.hub, "count", input=ALL)),
    "run, much output": Case(make=lambda s, _: run(s.client.hub, FLOOD)),
    "run, both": Case(make=lambda s, _: run(s.client.hub, "cat", input=ALL[:WINDOW])),
    "read": Case(make=reads(lambda c: c.read(999)), prepare=program(FLOOD.encode()), after=rest_is_there),
    "read all": Case(make=lambda s, t: t.channel.read_all(), prepare=program(FLOOD.encode()), after=rest_is_there),
    "read exactly": Case(
        make=reads(lambda c: c.read_exactly(WINDOW + 99)), prepare=program(FLOOD.encode()), after=rest_is_there
    ),
    "read until": Case(
        make=reads(lambda c: c.read_until(b"\0\1")), prepare=program(FLOOD.encode()), after=rest_is_there
    ),
    "write": Case(make=lambda s, t: t.channel.write(ALL), prepare=program(b"count"), after=writable_again),
    "write, two": Case(make=two_writers, prepare=program(b"count"), after=writable_again),
    "request": Case(make=requests, prepare=session, after=starts_still),
    "notify": Case(make=notices, prepare=program(b"wait"), after=hang_up),
    "send EOF": Case(make=lambda s, t: t.channel.send_eof(), prepare=program(b"count"), after=eof_arrives),
    "wait for the exit": Case(
        make=lambda s, t: t.channel.until_exit(), prepare=program(b"sleep 2"), after=hang_up, ends_well=False
    ),
    "rekey": Case(make=lambda s, _: s.client.hub.rekey()),
    "rekey, server": Case(make=lambda s, _: s.server.hub.rekey(), at_server=True),
    "listen": Case(make=lambda s, _: listen(s.client.hub, HERE), after=listen_again(HERE)),
    "listen, any port": Case(make=lambda s, _: listen(s.client.hub, ("", 0)), after=listen_again(("", 0))),
    "listen, path": Case(make=lambda s, _: listen(s.client.hub, "/run/it"), after=listen_again("/run/it")),
    "accept": Case(make=accepts, prepare=server_listens, during=somebody_calls, after=still_invited),
    "open to": Case(make=lambda s, _: open_to(s.client.hub, THERE), prepare=answering, after=let_go),
    "relay": Case(make=relays, prepare=to_the_service, after=let_go, ends_well=True),
    "forward local": Case(
        make=lambda s, t: forward_local(s.client.hub, t.listener, THERE),
        prepare=listens,
        during=somebody_calls,
        after=not_listening,
        runs_on=True,
    ),
    "forward local, one": Case(
        make=lambda s, t: forward_local(s.client.hub, t.listener, THERE),
        prepare=listens,
        during=somebody_calls,
        after=let_go,
        spawned=True,
        ends_well=True,
    ),
    "forward remote": Case(
        make=remote,
        prepare=remote_prepared,
        during=somebody_calls,
        after=not_invited,
        endless=True,
        ends_well=True,
    ),
    "forward remote, one": Case(
        make=remote,
        prepare=remote_prepared,
        during=somebody_calls,
        after=let_go,
        spawned=True,
        ends_well=True,
    ),
    "forward dynamic": Case(
        make=lambda s, t: forward_dynamic(s.client.hub, t.listener),
        prepare=listens_socks,
        during=somebody_calls,
        after=not_listening,
        runs_on=True,
    ),
    "forward dynamic, one": Case(
        make=lambda s, t: forward_dynamic(s.client.hub, t.listener),
        prepare=listens_socks,
        during=somebody_calls,
        after=let_go,
        spawned=True,
        ends_well=True,
    ),
    "socks": Case(make=client_of_socks, prepare=socks, after=let_go),
    "serve": Case(
        make=at_server,
        during=visit,
        after=visitor_leaves,
        at_server=True,
        login=False,
        endless=True,
        ends_well=True,
    ),
    "serve, a session": Case(
        make=lambda s, _: s.server.hub.until_ended(),
        during=visited("cat"),
        after=visitor_leaves,
        at_server=True,
        spawned=True,
        ends_well=True,
    ),
    "serve, a listener": Case(
        make=lambda s, _: s.server.hub.until_ended(),
        during=listener_is_visited,
        after=visitor_leaves,
        at_server=True,
        spawned=True,
        endless=True,
        ends_well=True,
    ),
}

CONDITIONS: dict[str, dict[str, Any]] = {
    "quiet": {},
    "our rekey": {"rekey": "client"},
    "their rekey": {"rekey": "server"},
    "nothing can wait": {"rekey": "client", "deferred": 0},
    "in small pieces": {"chunk": 50},
}
"""What goes on besides: a key exchange has just begun, and in it the client can send nothing at all; or all comes in
pieces, so that no two messages are handed out at once."""


# ------------------------------------------------------------------------------------------------------------- the play


def play(
    case: Case, blow: Blow | None = None, *, rekey: str = "", place: Scene | None = None, **conditions: Any
) -> tuple[Scene, Any]:
    """Run ``case`` until it has ended, or was struck, or nothing moves any more.

    Args:
        case: What.
        blow: What happens to it, and when.
        rekey: "client" or "server": who starts a key exchange just before.
        place: Where; a connection of its own if None.
        conditions: See :func:`scene`.
    """
    place = place or scene(login=case.login, **conditions)
    state = SimpleNamespace()
    case.prepare(place, state)
    place.settle()
    end = place.server if case.at_server else place.client
    if rekey and case.login:
        (place.client if rekey == "client" else place.server).conn.rekey()
    if case.spawned:
        end.next_blow = blow
    else_struck = None if case.spawned else blow
    state.operation = state.task = end.begin(case.make(place, state), else_struck)
    first = len(end.spawned)
    case.during(place, state)
    if case.spawned:
        place.run(lambda: len(end.spawned) > first, ENOUGH)
        state.task = end.spawned[first]
    task: Task = state.task
    place.run(lambda: task.done or (blow is not None and blow.fallen), ENOUGH)
    if blow is not None and not blow.fallen and not task.done and task.yields >= blow.number:
        task.strike()
    place.settle()
    return place, state


class Place:
    """Where a case is played again and again: on a connection that was there before, for some times in a row.

    Args:
        case: What is played.
        conditions: See :func:`scene`.
    """

    TIMES = 12

    def __init__(self, case: Case, **conditions: Any) -> None:
        self._case = case
        self._conditions = conditions
        self._scene: Scene | None = None
        self._times = 0

    def __call__(self) -> Scene:
        left = self._scene is not None and self._scene.net.listeners  # some cases have services of their own
        if self._scene is None or left or self._times == self.TIMES or not self._case.login:
            self._scene = scene(login=self._case.login, **self._conditions)
            self._times = 0
        for end in self._scene.ends:
            assert end.hub.lost is None
            end.spawned = [task for task in end.spawned if not task.done]
        self._times += 1
        return self._scene


def undisturbed(name: str, **conditions: Any) -> int:
    """How many yields the case has; sees that it does what it should."""
    place, state = play(CASES[name], **conditions)
    task: Task = state.task
    assert task.done != (CASES[name].endless or CASES[name].runs_on), f"{task!r} hangs"
    assert task.error is None or name == "run, refused", task.error
    release(place, state)
    CASES[name].after(place, state)
    leave_nothing(place, state)
    usable(place)
    return task.yields


def release(place: Scene, state: Any) -> None:
    """End what does not end by itself, and close what the operation has returned, as its caller would."""
    state.operation.cancel()
    if isinstance(state.task.result, (Channel, Invited)):
        state.task.result.close()
    place.settle()


def leave_nothing(place: Scene, state: Any) -> None:
    """Nothing is left of what was done on the connection, on either side."""
    release(place, state)
    for held in (getattr(state, "channel", None), getattr(state, "invited", None)):
        if held is not None:
            held.close()
    place.run(lambda: not any(end.conn.channels or end.running() for end in place.ends), ENOUGH)
    place.settle()
    assert place.net.left_open() == []
    for end in place.ends:
        assert end.conn.channels == (), end
        assert end.hub.channels == {}, end
        assert end.conn.questions == (), end
        assert end.hub.take_question() is None, end
        assert not end.hub._replies, end
        assert not end.hub._late, end
        assert not end.hub.invitations, end
        assert end.running() == [], end
    assert place.bugs == []
    assert [each for each in place.waiting() if each != "server: asked"] == []


def usable(place: Scene) -> None:
    """The next command works."""
    completed = place.client.perform(run(place.client.hub, "echo still here"))
    assert (completed.stdout, completed.exit_status) == (b"still here\n", 0)


def cancelled(case: Case, number: int, moment: Moment, where: Place, rekey: str) -> bool:
    """Cancel at one yield and see that nothing is left. False if there is no such yield."""
    blow = Blow(number, moment, Task.cancel)
    place, state = play(case, blow, rekey=rekey, place=where())
    if not blow.fallen:
        return False
    task: Task = state.task
    assert task.done
    assert isinstance(task.error, Cancelled)
    place.pass_time(1.0)  # who connects or listens slowly has done so
    lost = [end.hub.lost for end in place.ends if end.hub.lost is not None]
    if not case.login:
        # A login that was given up in the midst of a question has ended the connection. Else it can be gone on with.
        case.after(place, state)
        if not lost and not place.service:
            place.serve()
        place.settle()
        if any(end.hub.lost for end in place.ends):
            assert all(end.conn.questions == () for end in place.ends)
            assert place.waiting() == []
            return True
        place.login()
    else:
        assert lost == []
        case.after(place, state)
    leave_nothing(place, state)
    usable(place)
    return True


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", CASES)
def test_cancelled(name: str, condition: str) -> None:
    conditions = CONDITIONS[condition]
    count = undisturbed(name, **conditions)
    rekey, others = conditions.get("rekey", ""), {key: value for key, value in conditions.items() if key != "rekey"}
    for moment in Moment:
        where = Place(CASES[name], **others)
        number = 1
        while cancelled(CASES[name], number, moment, where, rekey):
            number += 1
        assert number > count


def cut(task: Task) -> None:
    task.scene.cut()


def peer_disconnects(task: Task) -> None:
    task.end.peer.conn.disconnect("enough")
    task.end.peer.pump()


def we_disconnect(task: Task) -> None:
    task.end.conn.disconnect("enough")
    task.end.pump()


LOSSES = (cut, peer_disconnects, we_disconnect)


def lost(case: Case, number: int, moment: Moment, action: Callable[[Task], None], wanted: object) -> bool:
    """Lose the connection at one yield and see that nothing hangs. False if there is no such yield."""
    blow = Blow(number, moment, action)
    place, state = play(case, blow)
    if not blow.fallen:
        return False
    task: Task = state.task
    place.run(lambda: task.done, ENOUGH)
    if case.runs_on:
        state.operation.cancel()
    assert task.done, f"{task!r} hangs"
    if not case.ends_well and not case.runs_on and outcome(task) != wanted:
        assert isinstance(task.error, ConnectionLoss), repr(task.error)
    state.operation.cancel()
    if place.service is not None:
        assert place.service.done
    place.run(lambda: not any(end.running() for end in place.ends), ENOUGH)
    for end in place.ends:
        assert end.running() == [], end
        assert end.hub.lost is not None
        assert end.conn.questions == ()
        assert not end.hub._late
    if "visitor" in vars(state):
        assert state.visitor.done
    if "caller" in vars(state):
        state.caller.close()
    if "service" in vars(state):
        state.service.cancel()
    for kind in list(place.net.listeners):
        if kind == THERE:
            place.net.listeners[kind].close()
    assert place.net.listeners == {}
    place.settle()
    assert place.net.left_open() == []
    assert place.bugs == []
    assert place.waiting() == []
    return True


@pytest.mark.parametrize("action", LOSSES, ids=lambda action: action.__name__)
@pytest.mark.parametrize("name", CASES)
def test_lost(name: str, action: Callable[[Task], None]) -> None:
    _, calm = play(CASES[name])
    wanted = outcome(calm.task)
    for moment in (Moment.BEGUN, Moment.DONE):
        number = 1
        while lost(CASES[name], number, moment, action, wanted):
            number += 1
        assert number > 1 or not calm.task.yields


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("name", CASES)
def test_rekeyed(name: str, who: str) -> None:
    """A key exchange at whatever yield changes nothing."""
    case = CASES[name]
    place, state = play(case)
    wanted = outcome(state.task)

    def rekey(task: Task) -> None:
        end = task.scene.client if who == "client" else task.scene.server
        if all(each.conn.phase is Phase.OPEN for each in task.scene.ends):
            end.conn.rekey()
            end.pump()

    where = Place(case)
    number = 1
    while True:
        blow = Blow(number, Moment.BEGUN, rekey)
        place, state = play(case, blow, place=where())
        if not blow.fallen:
            break
        place.run(ended(state.task), ENOUGH)
        assert outcome(state.task) == wanted
        release(place, state)
        case.after(place, state)
        leave_nothing(place, state)
        usable(place)
        number += 1
    assert number > 1 or wanted == (True, None)


def ended(task: Task) -> Callable[[], bool]:
    return lambda: task.done


def outcome(task: Task) -> object:
    """How an operation has ended, as far as it is comparable."""
    if task.error is not None:
        return type(task.error), str(task.error)
    if task.result is None or isinstance(task.result, (bytes, Completed, SocksRequest)):
        return task.done, task.result
    return task.done, type(task.result)
