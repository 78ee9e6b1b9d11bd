"""The way out: what waits, what leaves, and what is remembered of it. More of it is held in test_link."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sshproto.config import Config, Limits, Trace
from sshproto.errors import InvalidArgument, LimitReached
from sshproto.transport.outbox import Outbox
from sshproto.transport.suites import DirectionKeys
from sshproto.wire import messages as m


class _Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def key_worn(self) -> None:
        self.told.append("worn")

    def output_full(self) -> None:
        self.told.append("full")


def make(
    limits: Limits | None = None, trace: Callable[[Trace], None] | None = None
) -> tuple[Outbox, list[m.Message], list[str]]:
    sealed: list[m.Message] = []
    owner = _Owner()
    config = Config(limits=limits or Limits(), entropy=lambda count, label: bytes(count), trace=trace)
    outbox = Outbox(config, owner)
    outbox.sealed = sealed.append
    return outbox, sealed, owner.told


def switch(outbox: Outbox, *, reset_sequence: bool = True) -> None:
    keys = DirectionKeys(bytes(12), bytes(16), b"")
    outbox.switch("aes128-gcm@openssh.com", None, keys, reset_sequence=reset_sequence)


def test_what_may_not_leave_waits_in_order_and_what_may_passes_it() -> None:
    outbox, sealed, _ = make()
    outbox.hold()
    first, second, urgent = m.Ignore(b"1"), m.Ignore(b"2"), m.Unimplemented(0)
    outbox.send(first)
    outbox.send(second)
    outbox.send_now(urgent)
    outbox.release()
    assert sealed == [urgent]
    switch(outbox)
    outbox.release()
    assert sealed == [urgent, first, second]


@pytest.mark.covers("R53", "V17")
def test_a_tag_belongs_to_one_packet_and_not_to_the_next_of_its_number() -> None:
    """After a strict key exchange the numbers come again; UNIMPLEMENTED must not hit an old request."""
    outbox, _, _ = make()
    outbox.send(m.GlobalRequest("x@y", True), tag=7)
    outbox.sealer.sequence_number = 0
    outbox.send(m.Ignore(b""))
    assert outbox.tag(0) is None
    outbox.send(m.GlobalRequest("x@y", True), tag=8)
    assert outbox.tag(1) == 8
    assert outbox.tag(1) is None  # once


@pytest.mark.covers("B11")
def test_limits_at_and_past() -> None:
    outbox, _, _ = make(Limits(deferred_packets=2))
    outbox.hold()
    outbox.send(m.Ignore(b""))
    outbox.send(m.Ignore(b""))
    with pytest.raises(LimitReached):
        outbox.send(m.Ignore(b""))
    most = m.LARGEST_PAYLOAD - 5
    outbox, sealed, _ = make()
    outbox.send(m.Ignore(bytes(most)))
    with pytest.raises(InvalidArgument):
        outbox.send(m.Ignore(bytes(most + 1)))
    assert len(sealed) == 1


@pytest.mark.covers("R53", "V17")
@pytest.mark.parametrize("reset", [False, True])
def test_an_encoded_message_takes_over_a_number_too(reset: bool) -> None:
    outbox, _, _ = make()
    outbox.send_payload(m.ChannelEof(1).encode())
    outbox.send(m.GlobalRequest("x@y", True), tag=7)
    switch(outbox, reset_sequence=reset)
    for _ in range(2):
        outbox.send_payload(m.ChannelEof(1).encode())
    assert outbox.tag(1) == (None if reset else 7)


@pytest.mark.covers("B11")
def test_an_encoded_message_waits_and_is_told_of_like_others() -> None:
    traces: list[Trace] = []
    outbox, sealed, _ = make(trace=traces.append)
    outbox.hold()
    message = m.ChannelEof(1)
    outbox.send_payload(message.encode())
    assert not outbox.size
    switch(outbox)
    outbox.release()
    outbox.send_payload(message.encode())
    assert sealed == [trace.message for trace in traces] == [message, message]
    with pytest.raises(InvalidArgument, match="a ChannelRequest of "):
        outbox.send_payload(m.ChannelRequest(1, "x", False, bytes(m.LARGEST_PAYLOAD)).encode())


@pytest.mark.covers("B13", "R114")
@pytest.mark.parametrize("packets", [1, 2, 3, 40])
def test_a_worn_key_is_reported(packets: int) -> None:
    """By the packet that reaches the limit and by each that follows, until there is a new one."""
    for limits in (Limits(rekey_packets=packets), Limits(rekey_bytes=packets * 16)):
        outbox, _, reached = make(limits)
        outbox.raw(bytes(1000))
        for size in (16, 36):  # without protection, and with
            for sent in range(1, packets + 3):
                outbox.send(m.Ignore(b""))
                assert outbox.served == sent * size
                assert bool(reached) == (sent >= limits.rekey_packets or sent * size >= limits.rekey_bytes)
                reached.clear()
                if sent % 3:
                    outbox.take()
            switch(outbox)


def test_a_worn_key_is_reported_by_data() -> None:
    outbox, _, reached = make(Limits(rekey_packets=2))
    outbox.send(m.Ignore(b""))
    assert not reached
    outbox.send_data(b"\x5e\0\0\0\0\0\0\0\1", b"x")
    assert reached


@pytest.mark.covers("B6", "B7")
def test_what_waits_is_reported_when_it_is_too_much() -> None:
    outbox, _, reached = make(Limits(output_hard=48))
    for _ in range(5):
        for _ in range(3):
            outbox.send(m.Ignore(b""))
            assert not reached
        outbox.send(m.Ignore(b""))
        assert reached == ["full"]
        assert len(outbox.take()) == 64
        reached.clear()


def test_taking_takes_all_once() -> None:
    outbox, _, _ = make()
    outbox.raw(b"SSH-2.0-x\r\n")
    outbox.send(m.Ignore(b"x"))
    size = outbox.size
    assert len(outbox.take()) == size
    assert outbox.take() == b""
    assert outbox.size == 0
