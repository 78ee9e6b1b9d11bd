"""Many who send on one connection have the room one after the other, and none is woken to find that there is none."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from sshproto.operations.channel import Channel
from sshproto.operations.hub import Hub
from sshproto.operations.steps import Operation, Wait
from tests.bench.memory import Flow

PIECE = bytes(32 * 1024)
MIB = 1 << 20


class Writers:
    """Operations that write, and a receiver that takes all.

    Attributes:
        woken: How often one of them was, since it was asked last.
    """

    def __init__(self, count: int) -> None:
        self.flow = Flow.make("aes128-gcm", count)
        self.hub: Hub[Any] = Hub(self.flow.sender)
        self.channels = [Channel(self.hub, number, None) for number in self.flow.there]  # type: ignore[arg-type]
        for channel in self.channels:
            channel.opened = True
            self.hub.channels[channel.number] = channel
        self.due: deque[Operation[None]] = deque()
        self.waits: dict[int, tuple[Wait, Any]] = {}
        self.sent = [0] * count
        self.woken = 0

    def start(self, number: int, pieces: int = 10**9) -> Operation[None]:
        operation = self._write(number, pieces)
        self.due.append(operation)
        return operation

    def _write(self, number: int, pieces: int) -> Operation[None]:
        for _ in range(pieces):
            yield from self.channels[number].write(PIECE)
            self.sent[number] += 1

    def run(self) -> None:
        """Until all wait or have ended."""
        while self.due:
            operation = self.due.popleft()
            self.woken += 1
            try:
                step = operation.send(None)
            except StopIteration:
                continue
            assert isinstance(step, Wait)
            self._wait(operation, step)

    def _wait(self, operation: Operation[None], step: Wait) -> None:
        def wake() -> None:
            del self.waits[id(operation)]
            self.due.append(operation)

        self.waits[id(operation)] = step, wake
        step.subscribe(wake)

    def cancel(self, operation: Operation[None]) -> None:
        step, wake = self.waits.pop(id(operation))
        step.unsubscribe(wake)
        operation.close()

    def room(self) -> int:
        """All that is queued leaves and is taken: how often somebody was woken for that."""
        self.leave()
        before = self.woken
        self.run()
        return self.woken - before

    def leave(self) -> None:
        self.flow.receive(self.flow.sender.data_to_send())
        self.flow.sender.receive_data(self.flow.receiver.data_to_send(), 0.0)
        self.hub.drain()


@pytest.mark.parametrize("count", [20, 60, 400])
def test_as_many_are_woken_as_have_room(count: int) -> None:
    writers = Writers(count)
    for number in range(count):
        writers.start(number)
    writers.run()
    before = sum(writers.sent)
    woken = sum(writers.room() for _ in range(60))
    sent = sum(writers.sent) - before
    assert sent > 60 * 20
    assert woken < 1.5 * sent
    assert min(writers.sent) > 0


def test_who_does_not_want_to_any_more_lets_the_next_have_the_turn():
    """Also in the moment between: it was called, and is cancelled before it comes to it."""
    writers = Writers(200)
    operations = [writers.start(number) for number in range(200)]
    writers.run()
    writers.leave()
    called = [number for number, channel in enumerate(writers.channels) if channel.writers.called]
    assert 0 < len(called) < 100
    while called:
        for number in called:
            writers.due.remove(operations[number])
            operations[number].close()
        before, called = called, [number for number, channel in enumerate(writers.channels) if channel.writers.called]
        assert not set(before) & set(called)
    assert writers.hub._called == 0
    assert writers.hub._line is None
    assert not writers.waits


def test_who_is_done_lets_the_next_have_the_turn():
    """What few want, nobody else has to wait for."""
    writers = Writers(150)
    for number in range(150):
        writers.start(number, pieces=2)
    writers.run()
    for _ in range(60):
        writers.room()
    assert writers.sent == [2] * 150
    assert writers.hub._called == 0


def test_the_end_of_the_connection_wakes_all():
    writers = Writers(100)
    for number in range(100):
        writers.start(number)
    writers.run()
    assert len(writers.waits) == 100
    writers.hub.conn.disconnect()
    writers.hub.drain()
    assert not writers.waits
