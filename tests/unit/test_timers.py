"""The table of deadlines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.timers import Timer, TimerTable

TIMES = st.integers(0, 20).map(float)


def table(deadlines: dict[Timer, float]) -> TimerTable:
    timers = TimerTable()
    for timer, deadline in deadlines.items():
        timers.set(timer, deadline)
    return timers


def test_nothing_is_due_at_first() -> None:
    assert TimerTable().next() is None
    assert TimerTable().expired(float("inf")) == []


@given(deadlines=st.dictionaries(st.sampled_from(Timer), TIMES), now=TIMES)
def test_what_is_due_comes_out_once_earliest_first_and_the_rest_stays(
    deadlines: dict[Timer, float], now: float
) -> None:
    timers = table(deadlines)
    assert timers.next() == (min(deadlines.values()) if deadlines else None)
    due = timers.expired(now)
    assert set(due) == {timer for timer, deadline in deadlines.items() if deadline <= now}
    assert [deadlines[timer] for timer in due] == sorted(deadlines[timer] for timer in due)
    assert timers.expired(now) == []
    left = {timer: deadline for timer, deadline in deadlines.items() if deadline > now}
    assert timers.next() == (min(left.values()) if left else None)
    assert set(timers.expired(float("inf"))) == set(left)


def test_a_timer_is_due_at_its_deadline_and_not_before() -> None:
    timers = table({Timer.KEX: 5.0})
    assert timers.expired(4.999) == []
    assert timers.expired(5.0) == [Timer.KEX]


def test_of_the_same_time_the_order_is_always_the_same() -> None:
    some = [Timer.REKEY, Timer.AUTH, Timer.KEX]
    for order in (some, some[::-1]):
        assert table(dict.fromkeys(order, 1.0)).expired(1.0) == [Timer.AUTH, Timer.KEX, Timer.REKEY]


def test_setting_again_replaces() -> None:
    timers = table({Timer.KEX: 5.0})
    timers.set(Timer.KEX, 9.0)
    assert timers.next() == 9.0
    timers.set(Timer.KEX, 2.0)
    assert timers.expired(2.0) == [Timer.KEX]
    assert timers.next() is None


def test_stop_and_clear() -> None:
    timers = table({Timer.KEX: 5.0, Timer.AUTH: 6.0, Timer.REKEY: 7.0})
    timers.stop(Timer.KEX)
    timers.stop(Timer.KEX)  # twice is fine
    assert timers.next() == 6.0
    timers.clear()
    assert timers.next() is None
    assert timers.expired(10.0) == []


@pytest.mark.parametrize("timer", Timer)
def test_the_names_that_timed_out_shows(timer: Timer) -> None:
    assert timer.value == timer.value.lower()
    assert timer.value.isprintable()
