"""Time, and the table of deadlines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.timers import Timer, Timers

TIMES = st.integers(0, 20).map(float)


def table(deadlines: dict[Timer, float]) -> Timers:
    timers = Timers(0.0)
    for timer, deadline in deadlines.items():
        timers.arm(timer, deadline)
    return timers


def due_at(timers: Timers, now: float) -> list[Timer]:
    timers.advance(now)
    return timers.expired()


def test_nothing_is_due_at_first() -> None:
    assert Timers(0.0).earliest is None
    assert due_at(Timers(0.0), float("inf")) == []


@given(deadlines=st.dictionaries(st.sampled_from(Timer), TIMES), now=TIMES)
def test_what_is_due_comes_out_once_earliest_first_and_the_rest_stays(
    deadlines: dict[Timer, float], now: float
) -> None:
    timers = table(deadlines)
    assert timers.earliest == (min(deadlines.values()) if deadlines else None)
    due = due_at(timers, now)
    assert set(due) == {timer for timer, deadline in deadlines.items() if deadline <= now}
    assert [deadlines[timer] for timer in due] == sorted(deadlines[timer] for timer in due)
    assert due_at(timers, now) == []
    left = {timer: deadline for timer, deadline in deadlines.items() if deadline > now}
    assert timers.earliest == (min(left.values()) if left else None)
    assert set(due_at(timers, float("inf"))) == set(left)


def test_a_timer_is_due_at_its_deadline_and_not_before() -> None:
    timers = table({Timer.KEX: 5.0})
    assert due_at(timers, 4.999) == []
    assert due_at(timers, 5.0) == [Timer.KEX]


def test_of_the_same_time_the_order_is_always_the_same() -> None:
    some = [Timer.REKEY, Timer.AUTH, Timer.KEX]
    for order in (some, some[::-1]):
        assert due_at(table(dict.fromkeys(order, 1.0)), 1.0) == [Timer.AUTH, Timer.KEX, Timer.REKEY]


def test_setting_again_replaces() -> None:
    timers = table({Timer.KEX: 5.0})
    timers.arm(Timer.KEX, 9.0)
    assert timers.earliest == 9.0
    timers.arm(Timer.KEX, 2.0)
    assert due_at(timers, 2.0) == [Timer.KEX]
    assert timers.earliest is None


def test_stop_and_clear() -> None:
    timers = table({Timer.KEX: 5.0, Timer.AUTH: 6.0, Timer.REKEY: 7.0})
    timers.stop(Timer.KEX)
    timers.stop(Timer.KEX)  # twice is fine
    assert timers.earliest == 6.0
    timers.clear()
    assert timers.earliest is None
    assert due_at(timers, 10.0) == []


@pytest.mark.parametrize("timer", Timer)
def test_the_names_that_timed_out_shows(timer: Timer) -> None:
    assert timer.value == timer.value.lower()
    assert timer.value.isprintable()


def test_none_is_no_deadline() -> None:
    timers = table({Timer.KEX: 5.0})
    timers.arm(Timer.KEX, None)
    assert timers.earliest is None


def test_time_does_not_go_back() -> None:
    timers = Timers(10.0)
    timers.advance(5.0)
    assert timers.now == 10.0
    timers.arm(Timer.KEX, 1.0)
    assert timers.earliest == 11.0


def test_while_an_input_is_dealt_with_seconds_count_from_it() -> None:
    timers = Timers(0.0)
    timers.advance(100.0)
    timers.arm(Timer.KEX, 5.0)
    timers.settled = True
    timers.advance(104.0)
    assert timers.earliest == 105.0


def test_the_seconds_of_a_command_count_from_the_next_input() -> None:
    timers = Timers(0.0)
    timers.settled = True
    timers.arm(Timer.KEX, 5.0)
    timers.arm(Timer.AUTH, 9.0)
    timers.stop(Timer.AUTH)
    assert timers.earliest == 5.0  # in the past, maybe; that is what makes the caller come back
    timers.advance(100.0)
    assert timers.expired() == []
    assert timers.earliest == 105.0
    timers.settled = True
    timers.advance(101.0)  # only once
    assert timers.earliest == 105.0
