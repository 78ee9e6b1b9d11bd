"""Two live connections and the bytes between them, for state machines that act and deliver in any order.

Unlike :class:`~tests.support.pair.Pair` nothing moves by itself: what an end has sent stays in flight until somebody
delivers so many bytes of it.  Each end is watched by a :class:`~tests.support.monitors.Monitor`.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import hypothesis
import pytest

from sshproto import events as ev
from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, Preferences, ServerConfig
from sshproto.errors import UsageError
from sshproto.server import ServerConnection
from sshproto.wire.table import Role
from tests.support.monitors import Monitor, bounded
from tests.support.pair import seeded
from tests.support.seeds import HOST_KEY, USER_KEY

SIDES = (0, 1)
_KEX = range(20, 50)
QUICK = Preferences(kex=("curve25519-sha256",), cipher=("aes128-gcm@openssh.com",))


def _nothing(engine: Any, payload: Any) -> None:
    """What one does who does not listen."""


PATIENCE = pytest.mark.timeout(3600)
"""For the long profile, and for making a failure small."""


def budget(share: float) -> hypothesis.settings:
    """Settings of a machine that gets so large a share of the examples of the profile in force."""
    profile = hypothesis.settings()
    return hypothesis.settings(
        max_examples=max(5, int(profile.max_examples * share)),
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


class Recorder:
    """A connection, and a record of all that it was told and has told.

    Args:
        make: Makes the connection, the same each time but for its argument: who is told of its packets.
        trace: That, for the one that is recorded.
    """

    _ASIDE = frozenset(("next_deadline", "sendable"))

    def __init__(self, make: Callable[[Any], Any], trace: Any) -> None:
        self._make = make
        self._conn = make(trace)
        self._log: list[tuple[Any, ...]] = []
        self._out = bytearray()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._conn, name)
        if name.startswith("_") or name in self._ASIDE or not callable(value):
            return value

        def call(*arguments: Any, **more: Any) -> Any:
            self._log.append((name, arguments, more))
            return value(*arguments, **more)

        return call

    def next_event(self) -> Any:
        event = self._conn.next_event()
        self._log.append(("next_event", event))
        return event

    def data_to_send(self) -> bytes:
        data: bytes = self._conn.data_to_send()
        self._out += data
        return data

    def replay_bytewise(self) -> None:
        """R163: told the same, byte by byte, a connection tells the same, and sends the same."""
        conn = self._make(None)
        waiting: deque[tuple[int, float]] = deque()
        out = bytearray()

        def next_event() -> Any:
            while True:
                event = conn.next_event()
                out.extend(conn.data_to_send())
                if event is not None or not waiting:
                    return event
                byte, now = waiting.popleft()
                conn.receive_data(bytes((byte,)), now)

        for name, *told in self._log:
            if name == "next_event":
                shown = [None if event is None else ev.show(event) for event in (next_event(), told[0])]
                assert shown[0] == shown[1], f"byte by byte {shown[0]}, else {shown[1]}"
            elif name == "receive_data":
                waiting.extend((byte, told[0][1]) for byte in told[0][0])
            else:
                with contextlib.suppress(UsageError):
                    getattr(conn, name)(*told[0], **told[1])
        out.extend(conn.data_to_send())
        assert out == self._out


@attrs.define(eq=False)
class Side:
    """One end: the connection, what watches it, and what it has sent that has not arrived."""

    conn: Any
    monitor: Monitor
    flight: bytearray = attrs.field(factory=bytearray)


class Joined:
    """A client (0) and a server (1).

    Args:
        observe: Called with the side and each event.
        client, server: Changes of the configurations.
        rogue: An end that has a transport and no more: it exchanges keys, and listens to nothing else. Nobody watches
            it; what it says, somebody puts into its mouth (:func:`~tests.support.rogue.inject`).

    Attributes:
        sides: The two ends.
        now: The virtual time.
    """

    def __init__(
        self,
        observe: Callable[[int, Any], None],
        *,
        client: dict[str, Any] | None = None,
        server: dict[str, Any] | None = None,
        rogue: int | None = None,
    ) -> None:
        self._observe = observe
        self.now = 0.0
        watching = Monitor(Role.CLIENT), Monitor(Role.SERVER)
        traces = [None if side == rogue else watching[side] for side in SIDES]
        common = {"preferences": QUICK, "debug_raise": True}

        def make_client(trace: Any) -> ClientConnection:
            options = {"user": "alice", "entropy": seeded("c"), "trace": trace, **(client or {})}
            return ClientConnection(ClientConfig(**{**common, **options}), 0.0)

        def make_server(trace: Any) -> ServerConnection:
            options = {"host_keys": (HOST_KEY,), "entropy": seeded("s"), "trace": trace, **(server or {})}
            return ServerConnection(ServerConfig(**{**common, **options}), 0.0)

        self.sides = (
            Side(Recorder(make_client, traces[0]), watching[0]),
            Side(Recorder(make_server, traces[1]), watching[1]),
        )
        if rogue is not None:
            self._stupefy(self.sides[rogue].conn._engine)

    @staticmethod
    def _stupefy(engine: Any) -> None:
        look_up = engine._look_up

        def look_away() -> None:
            look_up()
            engine._handlers = tuple(
                handler if number in _KEX else _nothing for number, handler in enumerate(engine._handlers)
            )

        engine._look_up = look_away
        look_away()
        engine._transport_ready = lambda: None
        engine.timers.clear()

    def pump(self, side: int) -> None:
        """Take all events and all output of an end."""
        here = self.sides[side]
        while True:
            while (event := here.conn.next_event()) is not None:
                here.monitor.told(event)
                self._observe(side, event)
            data = here.conn.data_to_send()
            if not data:
                bounded(here.conn)
                return
            here.flight += data

    def deliver(self, side: int, count: int) -> bool:
        """So many bytes of ``side`` reach the other; False if there were none."""
        here = self.sides[side]
        data = bytes(here.flight[:count])
        del here.flight[:count]
        if data:
            self.sides[1 - side].conn.receive_data(data, self.now)
            self.pump(1 - side)
        return bool(data)

    def settle(self) -> None:
        """Deliver everything, and what comes of it."""
        for side in SIDES:
            self.pump(side)
        for _ in range(10_000):
            moved = [self.deliver(side, 1 << 20) for side in SIDES]
            if not any(moved):
                return
        raise AssertionError("it does not come to rest")

    def at_rest(self) -> None:
        """See that everything that was due has come; to be called after :meth:`settle`, with no question open."""
        for side in self.sides:
            side.monitor.at_rest()

    def sleep(self, side: int) -> None:
        """Time passes until the next deadline of ``side``."""
        conn = self.sides[side].conn
        deadline = conn.next_deadline()
        if deadline is not None:
            self.now = max(self.now, deadline)
            conn.handle_timeout(self.now)
            self.pump(side)


def log_in(joined: Joined) -> Callable[[int, Any], bool]:
    """Answers that log in with :data:`~tests.support.seeds.USER_KEY`; True for the events that it has dealt with."""

    def answer(side: int, event: Any) -> bool:
        conn = joined.sides[side].conn
        if isinstance(event, ev.HostKeyOffered):
            joined.sides[side].monitor.trusted = True
            conn.accept_host_key(event)
        elif isinstance(event, ev.CredentialNeeded):
            conn.auth_public_key(event, USER_KEY)
        elif isinstance(event, ev.KeyAuth):
            conn.accept_auth(event)
        else:
            return False
        return True

    return answer
