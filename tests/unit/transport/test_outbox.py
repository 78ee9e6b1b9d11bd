"""The way out: what waits, what leaves, and what is remembered of it. More of it is held in test_link."""

from __future__ import annotations

import pytest

from sshproto.config import Config, Limits
from sshproto.errors import InvalidArgument, LimitReached
from sshproto.transport.outbox import Outbox
from sshproto.wire import messages as m


def make(limits: Limits | None = None) -> tuple[Outbox, list[m.Message], list[None]]:
    sealed: list[m.Message] = []
    worn: list[None] = []
    config = Config(limits=limits or Limits(), entropy=lambda count, label: bytes(count))
    outbox = Outbox(config, worn=lambda: worn.append(None))
    outbox.sealed = sealed.append
    return outbox, sealed, worn


def test_what_may_not_leave_waits_in_order_and_what_may_passes_it() -> None:
    outbox, sealed, _ = make()
    outbox.held = True
    first, second, urgent = m.Ignore(b"1"), m.Ignore(b"2"), m.Unimplemented(0)
    outbox.send(first)
    outbox.send(second)
    outbox.send_now(urgent)
    outbox.release()
    assert sealed == [urgent]
    outbox.held = False
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
    outbox.held = True
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


def test_a_worn_key_is_reported() -> None:
    outbox, _, worn = make(Limits(rekey_packets=2))
    outbox.send(m.Ignore(b""))
    assert not worn
    outbox.send_data(b"\x5e\0\0\0\0\0\0\0\1", b"x")
    assert worn


def test_taking_takes_all_once() -> None:
    outbox, _, _ = make()
    outbox.raw(b"SSH-2.0-x\r\n")
    outbox.send(m.Ignore(b"x"))
    size = outbox.size
    assert len(outbox.take()) == size
    assert outbox.take() == b""
    assert outbox.size == 0
