"""A client and a server joined in memory: virtual clock, latency, chunking, scripted answers, a transcript.

Nothing here waits and nothing is random that was not given a seed, so a failing case replays.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from sshproto import events as ev
from sshproto.client import ClientConnection
from sshproto.config import ClientConfig, ServerConfig
from sshproto.keys.private import PrivateKey

Chunker = Callable[[bytes], Iterable[bytes]]
USER_KEY = PrivateKey.generate("ssh-ed25519")
HOST_KEY = PrivateKey.generate("ssh-ed25519")


def whole(data: bytes) -> Iterator[bytes]:
    """All at once."""
    yield data


def bytewise(data: bytes) -> Iterator[bytes]:
    """One byte after the other."""
    for index in range(len(data)):
        yield data[index : index + 1]


def pieces(sizes: Iterable[int]) -> Chunker:
    """Chunks of the given sizes, over and over."""
    cycle = [max(1, size) for size in sizes] or [1]

    def cut(data: bytes) -> Iterator[bytes]:
        start = turn = 0
        while start < len(data):
            size = cycle[turn % len(cycle)]
            yield data[start : start + size]
            start += size
            turn += 1

    return cut


def seeded(seed: str) -> Callable[[int, str], bytes]:
    """An entropy source that gives the same bytes for the same seed and the same sequence of calls."""
    count = 0

    def entropy(size: int, label: str) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed}/{count}/{label}".encode()).digest(size)

    return entropy


@attrs.define(eq=False, repr=False)
class End:
    """One end of a pair.

    Attributes:
        conn: The connection.
        events: Everything that ``next_event`` returned, in order.
        sent: All bytes that left, in order.
        answer: Called with each question; None leaves them all open.
        react: Called with every event after it was recorded.
        auto_credit: Give window credit back for all data received.
        chunker: How this end's *input* is cut.
    """

    name: str
    conn: Any
    answer: Callable[[Any, ev.Question], None] | None
    react: Callable[[Any, ev.Event], None] | None = None
    auto_credit: bool = True
    chunker: Chunker = whole
    events: list[ev.Event] = attrs.field(factory=list)
    sent: bytearray = attrs.field(factory=bytearray)
    data: dict[tuple[int, int], bytearray] = attrs.field(factory=dict)
    flight: deque[tuple[float, bytes]] = attrs.field(factory=deque)

    def drain(self) -> bytes:
        """Pump rule: events, then output, until there is neither."""
        out = bytearray()
        while True:
            while (event := self.conn.next_event()) is not None:
                self.events.append(event)
                if isinstance(event, ev.DataReceived):
                    self.data.setdefault((event.channel, event.stream), bytearray()).extend(event.data)
                    if self.auto_credit:
                        self.conn.credit(event.channel, len(event.data))
                if isinstance(event, ev.Question) and self.answer is not None:
                    self.answer(self.conn, event)
                if self.react is not None:
                    self.react(self.conn, event)
            data = self.conn.data_to_send()
            if not data:
                self.sent += out
                return bytes(out)
            out += data

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def lost(self) -> ev.ConnectionLost | None:
        found = self.of(ev.ConnectionLost)
        return found[0] if found else None


def client_answers(conn: ClientConnection, question: ev.Question) -> None:
    """Trust every host key, log in with :data:`USER_KEY`, refuse all else."""
    if isinstance(question, ev.HostKeyOffered):
        conn.accept_host_key(question)
    elif isinstance(question, ev.CredentialNeeded) and question.attempt == 0:
        conn.auth_public_key(question, USER_KEY)
    else:
        conn.refuse(question)


def server_answers(conn: Any, question: ev.Question) -> None:
    """Let :data:`USER_KEY` in, accept all channels and requests."""
    if isinstance(question, (ev.KeyProbe, ev.KeyAuth)):
        if question.key != USER_KEY.public_key:
            conn.reject_auth(question)
        elif isinstance(question, ev.KeyProbe):
            conn.offer_key(question)
        else:
            conn.accept_auth(question)
    elif isinstance(question, ev.ChannelOpenRequested):
        conn.accept_channel(question)
    elif isinstance(question, (ev.ChannelRequested, ev.GlobalRequested)):
        conn.succeed(question)
    else:
        conn.refuse(question)


@attrs.define(eq=False, repr=False)
class Pair:
    """Two ends and the wire between them.

    Attributes:
        now: The virtual time, in seconds.
        latency: How long bytes are under way, one way.
    """

    client: End
    server: End
    now: float = 0.0
    latency: float = 0.0

    @classmethod
    def make(
        cls,
        client: ClientConfig | None = None,
        server: ServerConfig | None = None,
        *,
        latency: float = 0.0,
        chunker: Chunker = whole,
        client_answer: Callable[[Any, ev.Question], None] | None = client_answers,
        server_answer: Callable[[Any, ev.Question], None] | None = server_answers,
    ) -> Pair:
        """A pair that has not started.

        Args:
            client, server: Configurations; a default one that works with the other if None.
            latency: See the class.
            chunker: How both ends' input is cut.
            client_answer, server_answer: See :class:`End`.
        """
        from sshproto.server import ServerConnection

        client = client or ClientConfig(user="alice", debug_raise=True)
        server = server or ServerConfig(host_keys=(HOST_KEY,), debug_raise=True)
        return cls(
            End("client", ClientConnection(client, now=0.0), client_answer, chunker=chunker),
            End("server", ServerConnection(server, now=0.0), server_answer, chunker=chunker),
            latency=latency,
        )

    def _ends(self) -> tuple[tuple[End, End], tuple[End, End]]:
        return (self.client, self.server), (self.server, self.client)

    def run(self, steps: int = 100_000) -> Pair:
        """Go on until nothing moves at this virtual time or, with latency, at any later one before a timer."""
        for _ in range(steps):
            moved = False
            for end, peer in self._ends():
                data = end.drain()
                if data:
                    peer.flight.append((self.now + self.latency, data))
                    moved = True
            for end, _ in self._ends():
                while end.flight and end.flight[0][0] <= self.now:
                    _, data = end.flight.popleft()
                    moved = True
                    for chunk in end.chunker(data):
                        end.conn.receive_data(chunk, self.now)
                        out = end.drain()
                        if out:
                            self._peer(end).flight.append((self.now + self.latency, out))
            if not moved:
                due = [end.flight[0][0] for end, _ in self._ends() if end.flight]
                if not due:
                    return self
                self.now = min(due)
        raise AssertionError(f"the pair did not come to rest in {steps} steps")

    def _peer(self, end: End) -> End:
        return self.server if end is self.client else self.client

    def sleep(self, seconds: float) -> Pair:
        """Let virtual time pass; timers fire when they are due."""
        until = self.now + seconds
        while True:
            self.run()
            due = [deadline for end, _ in self._ends() if (deadline := end.conn.next_deadline()) is not None]
            coming = min(due, default=math.inf)
            if coming > until:
                self.now = until
                return self
            self.now = max(self.now, coming)
            for end, _ in self._ends():
                deadline = end.conn.next_deadline()
                if deadline is not None and deadline <= self.now:
                    end.conn.handle_timeout(self.now)

    def login(self) -> Pair:
        """Run until both sides are in the connection protocol."""
        from sshproto.transport.link import Phase

        self.run()
        for end, _ in self._ends():
            if end.conn.phase is not Phase.OPEN:
                raise AssertionError(f"{end.name} is in the phase of {end.conn.phase.value}: {end.events[-3:]}")
        return self

    def lose(self) -> None:
        """Cut the wire both ways."""
        for end, _ in self._ends():
            end.flight.clear()
            end.conn.receive_eof(self.now)
            end.drain()
