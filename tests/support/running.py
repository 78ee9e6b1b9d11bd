"""Operations of both ends of a connection, run step by step in memory, under a virtual clock.

A :class:`Scene` is a client and a server joined in memory, each with a hub, and a scheduler that resumes one operation
at a time.  Nothing is random and nothing waits, so a failing case replays.  What is to happen to an operation at one of
its yields is said by a :class:`Blow`: that is how the tests cancel operations, and lose the connection, at every yield.
"""

from __future__ import annotations

import errno
import heapq
import os
from collections import deque
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any

import attrs

from sshproto.channels.requests import Exec, ExitSignal, Shell, Subsystem
from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, Preferences, ServerConfig
from sshproto.events import HostKeyOffered
from sshproto.operations.hub import Hub
from sshproto.operations.login import Credentials, LoginPlan, log_in
from sshproto.operations.serving import Handler, World, serve
from sshproto.operations.steps import Call, Operation, Ready, Sleep, Spawn, Step, Together, Wait
from sshproto.server import ServerConnection
from tests.support.pair import HOST_KEY, USER_KEY

QUICK = Preferences(kex=("curve25519-sha256",), cipher=("aes128-gcm@openssh.com",))
"""Algorithms that cost little."""

PATIENCE = 3600.0
"""Virtual seconds after which an operation is taken to hang."""

_TURNS = 200_000


# ----------------------------------------------------------------------------------------------------------- operations


class Moment(Enum):
    """When a blow falls, seen from the yield that it is meant for."""

    YIELDED = "yielded"
    """At once: nothing was done of the step. Only for what ends the operation: it would miss what happens now."""
    BEGUN = "begun"
    """The step has been begun, and what was sent has left."""
    DONE = "done"
    """The step is done, and the operation has not heard of it yet; or nothing moves any more, and it never was."""


@attrs.define
class Blow:
    """What happens to an operation at its ``number``-th yield, those of the operations inside it counted.

    Attributes:
        number: From 1 on.
        moment: When.
        action: Called once, with the task.
        fallen: It has been called.
    """

    number: int
    moment: Moment
    action: Callable[[Task], None]
    fallen: bool = False


class Cancelled(Exception):
    """The operation was cancelled."""


class Task:
    """One operation that runs at one end.

    Attributes:
        yields: How many steps it has asked for, with those of the operations inside it.
        done: It has ended.
        result, error: How; the error is :class:`Cancelled` if it was cancelled.
        owner: The task whose ``Together`` it is part of, or None.
    """

    def __init__(self, end: End, operation: Operation[Any], owner: Task | None = None) -> None:
        self.end = end
        self.scene = end.scene
        self.operation = operation
        self.owner = owner
        self.root: Task = owner.root if owner is not None else self
        self.blow: Blow | None = None
        self.yields = 0
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.on_done: Callable[[Task], None] | None = None
        self._waits: list[tuple[Wait, Callable[[], object]]] = []
        self._children: list[Task] = []
        self._sleep: object | None = None
        self._due: tuple[bool, Any] | None = None

    def __repr__(self) -> str:
        return f"<Task {getattr(self.operation, '__qualname__', self.operation)} of the {self.end.name}>"

    def value(self) -> Any:
        """The result; raises the error."""
        if not self.done:
            raise AssertionError(f"{self!r} has not ended")
        if self.error is not None:
            raise self.error
        return self.result

    # ------------------------------------------------------------------------------------------------------- the runner

    def start(self) -> None:
        """Run it up to its first step."""
        self._advance(lambda: self.operation.send(None))

    def resume(self) -> None:
        """Run it up to its next step, if something has come for it."""
        due, self._due = self._due, None
        if self.done or due is None:
            return
        good, value = due
        self._advance(lambda: self.operation.send(value) if good else self.operation.throw(value))

    def cancel(self) -> None:
        """Close it, whatever it is at."""
        if self.done:
            return
        self._detach()
        self.operation.close()
        self._end(None, Cancelled())

    def come(self, value: Any = None, *, good: bool = True) -> None:
        """The step is done: have the operation resumed."""
        if self.done or self._due is not None:
            return
        self._forget_waits()
        self._due = (good, value)
        blow = self.root.blow
        if blow is not None and not blow.fallen and blow.moment is Moment.DONE and self.root.yields >= blow.number:
            self.scene.strikes.append(self.root)
        self.scene.ready.append(self)

    def strike(self) -> None:
        """The time of the blow has come."""
        blow = self.blow
        if blow is not None and not blow.fallen:
            blow.fallen = True
            blow.action(self)

    def _advance(self, go: Callable[[], Step]) -> None:
        try:
            step = go()
        except StopIteration as stop:
            self._end(stop.value, None)
            return
        except Exception as error:
            self._end(None, error)
            return
        self.root.yields += 1
        blow = self.root.blow
        due = blow is not None and not blow.fallen and self.root.yields >= blow.number
        if due and blow is not None and blow.moment is Moment.YIELDED:
            self.root.strike()
        if self.done:
            return
        self._do(step)
        if due and blow is not None and blow.moment is Moment.BEGUN:
            self.scene.strikes.append(self.root)

    def _do(self, step: Step) -> None:
        match step:
            case Wait():
                self._wait(step)
            case Sleep(seconds, until):
                self._sleep = self.scene.sleep(seconds, self)
                if until is not None:
                    self._wait(until)
            case Call(function, args):
                try:
                    self.come(function(*args))
                except Exception as error:
                    self.come(error, good=False)
            case Together(operations):
                self._together(operations)
            case Spawn(operation):
                self.come(self.end.spawn(operation).cancel)
            case Ready():
                raise AssertionError("there are no descriptors here")
            case _:
                raise AssertionError(f"{step!r} is no step")

    def _wait(self, wait: Wait) -> None:
        def wake() -> None:
            self.come()

        wait.subscribe(wake)
        self._waits.append((wait, wake))

    def _together(self, operations: tuple[Operation[Any], ...]) -> None:
        self._children = children = [Task(self.end, operation, self) for operation in operations]
        for child in children:
            child.on_done = self._child_done
        for child in children:
            if not self._children:  # one that was started before has failed
                child.operation.close()
            else:
                child.start()
        if self._children and all(child.done for child in children):
            self._all_done()

    def _child_done(self, child: Task) -> None:
        children = self._children
        if child not in children:
            return
        if child.error is not None:
            self._children = []
            for other in children:
                other.cancel()
            self.come(child.error, good=False)
        elif self._due is None and all(other.done for other in children):
            self._all_done()

    def _all_done(self) -> None:
        children, self._children = self._children, []
        self.come(tuple(child.result for child in children))

    def _forget_waits(self) -> None:
        for wait, wake in self._waits:
            wait.unsubscribe(wake)
        self._waits.clear()
        if self._sleep is not None:
            self.scene.forget(self._sleep)
            self._sleep = None

    def _detach(self) -> None:
        self._forget_waits()
        children, self._children = self._children, []
        for child in children:
            child.on_done = None
            child.cancel()

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._forget_waits()
        self.done = True
        self.result = result
        self.error = error
        if self.on_done is not None:
            self.on_done(self)


# ------------------------------------------------------------------------------------------------------------ both ends


class End:
    """One end of the connection: its hub, and what runs there.

    Attributes:
        flight: Bytes that are on their way to it.
        cut: It hears no more of the other end, nor that of it.
        spawned: What operations have started beside themselves.
        answers: Everything that it has to say is handed over; False holds it back, so that its output fills up.
        next_blow: What is to happen to the next operation that is spawned here.
    """

    def __init__(self, scene: Scene, name: str, conn: Any) -> None:
        self.scene = scene
        self.name = name
        self.conn = conn
        self.hub: Hub[Any] = Hub(conn)
        self.flight: deque[bytes] = deque()
        self.spawned: list[Task] = []
        self.cut = False
        self.answers = True
        self.next_blow: Blow | None = None

    def __repr__(self) -> str:
        return f"<End {self.name}>"

    @property
    def peer(self) -> End:
        return self.scene.server if self is self.scene.client else self.scene.client

    def begin(self, operation: Operation[Any], blow: Blow | None = None) -> Task:
        """Start an operation of the test's."""
        task = Task(self, operation)
        task.blow = blow
        task.start()
        self.pump()
        return task

    def spawn(self, operation: Operation[Any]) -> Task:
        """Start an operation that belongs to the connection."""
        task = Task(self, operation)
        task.blow, self.next_blow = self.next_blow, None
        self.spawned.append(task)
        task.start()
        return task

    def perform(self, operation: Operation[Any], patience: float = PATIENCE) -> Any:
        """Run an operation to its end and give its result."""
        task = self.begin(operation)
        self.scene.run(lambda: task.done, patience)
        if not task.done:
            raise AssertionError(f"{task!r} hangs")
        return task.value()

    def pump(self) -> None:
        """What a face does after each input and each step (see ``sshproto.connection``)."""
        while True:
            self.hub.drain()
            if not self.answers:
                return
            data = self.conn.data_to_send()
            if not data:
                return
            if not self.cut:
                self.peer.flight.append(data)

    def hear(self, data: bytes) -> None:
        """Bytes have come."""
        size = self.scene.chunk or len(data)
        for start in range(0, len(data), size):
            self.conn.receive_data(data[start : start + size], self.scene.now)
            self.pump()

    def hear_eof(self) -> None:
        """The transport has ended."""
        self.conn.receive_eof(self.scene.now)
        self.pump()

    def running(self) -> list[Task]:
        """What was spawned here and has not ended."""
        return [task for task in self.spawned if not task.done]


class Scene:
    """A client and a server joined in memory.

    Args:
        client, server: Configurations.
        chunk: Bytes that are handed over at a time; 0 for all that there are.

    Attributes:
        now: The virtual time, in seconds.
        bugs: Errors of spawned operations, which should have dealt with them.
        service, handler: The operation that serves the connection, if :meth:`serve` was called, and what for.
        net: What can be connected to, and where somebody listens.
    """

    def __init__(
        self, client: ClientConfig | None = None, server: ServerConfig | None = None, *, chunk: int = 0
    ) -> None:
        client = client or ClientConfig(user="alice", debug_raise=True, preferences=QUICK)
        server = server or ServerConfig(host_keys=(HOST_KEY,), debug_raise=True, preferences=QUICK)
        self.now = 0.0
        self.chunk = chunk
        self.ready: deque[Task] = deque()
        self.strikes: deque[Task] = deque()
        self._sleepers: list[tuple[float, int, Task]] = []
        self._sleeps = 0
        self._forgotten: set[int] = set()
        self.net = Net()
        self.service: Task | None = None
        self.handler: Any = None
        self.client = End(self, "client", ClientConnection(client, now=0.0))
        self.server = End(self, "server", ServerConnection(server, now=0.0))
        self.ends = (self.client, self.server)

    @property
    def bugs(self) -> list[BaseException]:
        found = [task.error for end in self.ends for task in end.spawned]
        return [error for error in found if error is not None and not isinstance(error, Cancelled)]

    def serve(self, handler: Handler | None = None) -> Scene:
        """Have the server serve."""
        self.handler = handler or Host()
        self.service = self.server.begin(serve(self.server.hub, self.handler, self.net.world()))
        return self

    def login(self, credentials: Credentials | None = None) -> Scene:
        """Log in, and let all come to rest."""
        plan = credentials or LoginPlan([USER_KEY])
        self.client.perform(log_in(self.client.hub, trust, plan))
        self.settle()
        return self

    # ---------------------------------------------------------------------------------------------------- the scheduler

    def sleep(self, seconds: float, task: Task) -> object:
        """``task`` sleeps; the result is what :meth:`forget` takes."""
        self._sleeps += 1
        heapq.heappush(self._sleepers, (self.now + seconds, self._sleeps, task))
        return self._sleeps

    def forget(self, sleep: Any) -> None:
        """A sleeper was woken otherwise."""
        self._forgotten.add(sleep)

    def turn(self) -> bool:
        """Do one thing: resume an operation, or hand over some bytes. False if there was nothing to do."""
        if self.strikes:
            self.strikes.popleft().strike()
            self._pump()
            return True
        if self.ready:
            task = self.ready.popleft()
            task.resume()
            task.end.pump()
            return True
        for end in self.ends:
            if end.flight and not end.cut:
                end.hear(end.flight.popleft())
                return True
        return False

    def settle(self) -> None:
        """Go on until nothing moves at this virtual time."""
        self._pump()
        for _ in range(_TURNS):
            if not self.turn():
                return
        raise AssertionError(f"this does not come to rest in {_TURNS} turns")

    def run(self, until: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Go on until ``until()``, or until nothing moves; the clock goes on for at most ``patience`` seconds."""
        end = self.now + patience
        self._pump()
        for _ in range(_TURNS):
            if until():
                return
            if not self.turn() and not self._tick(end):
                return
        raise AssertionError(f"this does not come to rest in {_TURNS} turns")

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on."""
        end = self.now + seconds
        self.run(lambda: False, seconds)
        self.now = end

    def _pump(self) -> None:
        for end in self.ends:
            end.pump()

    def _tick(self, end: float) -> bool:
        """Go to the next moment at which something is due, if that is before ``end``."""
        while self._sleepers and self._sleepers[0][1] in self._forgotten:
            self._forgotten.discard(heapq.heappop(self._sleepers)[1])
        times = [each.conn.next_deadline() for each in self.ends]
        due = [time for time in times if time is not None] + [time for time, _, _ in self._sleepers[:1]]
        if not due or max(self.now, min(due)) > end:
            return False
        self.now = max(self.now, min(due))
        for each in self.ends:
            deadline = each.conn.next_deadline()
            if deadline is not None and deadline <= self.now:
                each.conn.handle_timeout(self.now)
                each.pump()
        while self._sleepers and self._sleepers[0][0] <= self.now:
            _, number, task = heapq.heappop(self._sleepers)
            if number in self._forgotten:
                self._forgotten.discard(number)
            else:
                task._sleep = None
                task.come()
        return True

    # ------------------------------------------------------------------------------------------------ what can go wrong

    def cut(self) -> None:
        """The wire breaks."""
        for end in self.ends:
            end.cut = True
            end.flight.clear()
        for end in self.ends:
            end.hear_eof()

    def waiting(self) -> list[str]:
        """The waits of both ends' hubs and channels that somebody has subscribed to."""
        found = []
        for end in self.ends:
            hub = end.hub
            waits = {name: getattr(hub, name) for name in ("ended", "opened", "asked", "rekeyed")}
            for number, reply in (hub._replies or {}).items():
                waits[f"reply {number}"] = reply.came
            for invitation in hub.invitations:
                waits[f"invitation to {invitation.kind}"] = invitation.came
            for channel in hub.channels.values():
                waits[f"channel {channel.number} writable"] = channel.writable
                waits[f"channel {channel.number} changed"] = channel.changed
                if channel.writers is not None:
                    waits[f"channel {channel.number} turn"] = channel.writers.turn
                    waits[f"channel {channel.number} room"] = channel.writers.room
                for stream in (0, 1):
                    waits[f"channel {channel.number} inbox {stream}"] = channel.inbox(stream).arrived
            found += [f"{end.name}: {name}" for name, wait in waits.items() if wait.wanted]
        return found


def trust(question: HostKeyOffered) -> bool:
    """A host-key check for which the test's key is good."""
    return question.key == HOST_KEY.public_key


# --------------------------------------------------------------------------------------------------------- the far ends


class MemoryStream:
    """A byte stream in memory; :func:`joined` makes two that are each other's far end.

    Attributes:
        room: Bytes that may wait at this end, unread.
        closed: It was closed here.
    """

    def __init__(self, name: str = "", origin: Any = ("192.0.2.1", 50_000), room: int = 4096) -> None:
        self.name = name
        self.origin = origin
        self.room = room
        self.closed = False
        self.far: MemoryStream = self
        self._waiting = bytearray()
        self._ended = False
        self._changed = Wait()

    def __repr__(self) -> str:
        return f"<MemoryStream {self.name}{', closed' if self.closed else ''}>"

    def receive(self, limit: int) -> Operation[bytes]:
        while True:
            self._check()
            if self._waiting:
                data = bytes(self._waiting[:limit])
                del self._waiting[:limit]
                self.far._changed.fire()
                return data
            if self._ended:
                return b""
            yield self._changed

    def send(self, data: bytes) -> Operation[None]:
        while data:
            self._check()
            far = self.far
            if far.closed:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            count = min(len(data), far.room - len(far._waiting))
            if count > 0:
                far._waiting += data[:count]
                far._changed.fire()
                data = data[count:]
            else:
                yield self._changed

    def send_eof(self) -> Operation[None]:
        self._check()
        self.far._ended = True
        self.far._changed.fire()
        return
        yield  # an operation that never has to wait

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.far._ended = True
            self._changed.fire()
            self.far._changed.fire()

    def _check(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def joined(name: str = "", room: int = 4096, origin: Any = ("192.0.2.1", 50_000)) -> tuple[MemoryStream, MemoryStream]:
    """Two streams, each of which is what the other is connected to."""
    near, far = MemoryStream(name, origin, room), MemoryStream(f"{name}, far end", origin, room)
    near.far, far.far = far, near
    return near, far


class MemoryListener:
    """Where streams come in, by :meth:`connect`."""

    def __init__(self, address: Any, net: Net) -> None:
        self.address = address
        self.closed = False
        self._net = net
        self._waiting: deque[MemoryStream] = deque()
        self._changed = Wait()

    def __repr__(self) -> str:
        return f"<MemoryListener at {self.address}{', closed' if self.closed else ''}>"

    def connect(self, name: str = "caller", room: int = 4096) -> MemoryStream:
        """Connect to it; the result is the caller's end."""
        if self.closed:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        near, far = joined(name, room)
        self._net.streams.append(far)
        self._waiting.append(far)
        self._changed.fire()
        return near

    def accept(self) -> Operation[MemoryStream]:
        while True:
            if self.closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            if self._waiting:
                return self._waiting.popleft()
            yield self._changed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for stream in self._waiting:
                stream.close()
            self._waiting.clear()
            self._net.listeners.pop(self.address, None)
            self._changed.fire()


class Net:
    """A network in memory.

    Attributes:
        listeners: Who listens, by address.
        streams: All ends of streams that operations were given: what has to be closed by them.
        slow: Seconds that each connection takes to be made.
        today: Seconds since 1970.
    """

    def __init__(self) -> None:
        self.listeners: dict[Any, MemoryListener] = {}
        self.streams: list[MemoryStream] = []
        self.slow = 0.0
        self.today = 1_800_000_000.0
        self._port = 40_000

    def world(self) -> World:
        """What ``serve`` needs: sessions and streams are given to handlers as they are."""
        return World(
            dial=self.dial,
            listen=self.listen,
            session=lambda session: session,
            stream=lambda channel: channel,
            now=lambda: self.today,
            listen_privately=self.listen_privately,
        )

    def listener(self, address: Any) -> MemoryListener:
        """Listen, now."""
        if isinstance(address, tuple) and address[1] == 0:
            self._port += 1
            address = (address[0], self._port)
        if address in self.listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        found = self.listeners[address] = MemoryListener(address, self)
        return found

    def listen(self, address: Any) -> Operation[MemoryListener]:
        yield Sleep(self.slow)
        return self.listener(address)

    def listen_privately(self) -> Operation[MemoryListener]:
        self._port += 1
        return (yield from self.listen(f"/private/{self._port}"))

    def dial(self, address: Any) -> Operation[MemoryStream]:
        yield Sleep(self.slow)
        if address not in self.listeners:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        stream = self.listeners[address].connect(f"dialled to {address}")
        self.streams.append(stream)
        return stream

    def left_open(self) -> list[MemoryStream]:
        """Streams that operations were given and have not closed."""
        return [stream for stream in self.streams if not stream.closed]


# --------------------------------------------------------------------------------------------------------------- a host


class Host(Handler):
    """A handler that lets alice in and does what the tests need.

    Attributes:
        errors: What ``bug`` was told.
        ran: The programs that were started, and whether they have ended: "ended", "cancelled" or "".
    """

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.ran: list[str] = []

    def public_key(self, user: str, key: Any) -> bool:
        return user == "alice" and key == USER_KEY.public_key

    def allow_pty(self, session: Any, request: Any) -> bool:
        return True

    def allow_env(self, session: Any, name: str, value: bytes) -> bool:
        return True

    def allow_program(self, session: Any) -> bool:
        return not (isinstance(session.program, Exec) and session.program.command == b"forbidden")

    def allow_connect(self, target: Any, origin: Any) -> bool:
        return bool(target[0] != "forbidden")

    def allow_listen(self, address: Any) -> bool:
        return bool(address[0] != "forbidden")

    def bug(self, error: Exception) -> None:
        self.errors.append(error)

    def session(self, session: Any) -> Operation[Any]:
        match session.program:
            case Exec(command):
                words = command.split()
            case Shell():
                words = [b"cat"]
            case Subsystem(name):
                words = [name.encode()]
        number = len(self.ran)
        self.ran.append("")
        try:
            result = yield from PROGRAMS[words[0]](session, *words[1:])
        except GeneratorExit:
            self.ran[number] = "cancelled"
            raise
        self.ran[number] = "ended"
        return result


def _echo(session: Any, *words: bytes) -> Operation[int]:
    yield from session.channel.write(b" ".join(words) + b"\n")
    return 0


def _cat(session: Any) -> Operation[int]:
    while data := (yield from session.channel.read()):
        yield from session.channel.write(data)
    return 0


def _count(session: Any) -> Operation[int]:
    data = yield from session.channel.read_all()
    yield from session.channel.write(b"%d" % len(data))
    return 0


def _flood(session: Any, count: bytes) -> Operation[int]:
    yield from session.channel.write(bytes(index % 251 for index in range(int(count))))
    yield from session.channel.write(b"that was all", 1)
    return 0


def _status(session: Any, status: bytes) -> Operation[Any]:
    return int(status)
    yield  # an operation that never has to wait


def _killed(session: Any) -> Operation[Any]:
    return ExitSignal("KILL", core_dumped=False, message="out of patience")
    yield  # an operation that never has to wait


def _wait(session: Any) -> Operation[int]:
    while (yield from session.next_notice()) is not None:
        pass
    return 0


def _sleep(session: Any, seconds: bytes) -> Operation[int]:
    yield Sleep(float(seconds))
    return 0


def _env(session: Any) -> Operation[int]:
    lines = b"".join(b"%s=%s\n" % (name.encode(), value) for name, value in session.env.items())
    terminal = session.pty.term.encode() if session.pty is not None else b"none"
    yield from session.channel.write(lines + b"terminal " + terminal)
    return 0


def _notices(session: Any, count: bytes) -> Operation[int]:
    for _ in range(int(count)):
        notice = yield from session.next_notice()
        yield from session.channel.write(repr(notice).encode() + b"\n")
    return 0


def _deaf(session: Any) -> Operation[int]:
    """Reads nothing until it is told to end."""
    yield from session.next_notice()
    return 0


def _broken(session: Any) -> Operation[int]:
    raise ZeroDivisionError("a bug of the application's")
    yield  # an operation that never has to wait


PROGRAMS: dict[bytes, Callable[..., Generator[Step, Any, Any]]] = {
    b"echo": _echo,
    b"cat": _cat,
    b"count": _count,
    b"flood": _flood,
    b"status": _status,
    b"killed": _killed,
    b"wait": _wait,
    b"sleep": _sleep,
    b"env": _env,
    b"notices": _notices,
    b"deaf": _deaf,
    b"broken": _broken,
}
"""What :class:`Host` can run, by the first word of the command."""
