"""What operations are made of, and the runner of the tests, by which all others are judged."""

from __future__ import annotations

import pytest

from sshproto.operations.steps import Call, Ready, Sleep, Spawn, Together, Wait, call, hand_over
from tests.support.running import Blow, Cancelled, Moment, Scene, Task


@pytest.fixture
def end():
    return Scene().client


# ---------------------------------------------------------------------------------------------------------------- waits


def test_all_who_wait_are_woken_once_and_in_order():
    wait, woken = Wait(), []
    wait.subscribe(lambda: woken.append(1))
    wait.subscribe(lambda: woken.append(2))
    assert wait.wanted
    wait.fire()
    wait.fire()
    assert woken == [1, 2]
    assert not wait.wanted


def test_who_has_left_is_not_woken():
    wait, woken = Wait(), []

    def first() -> None:
        woken.append(1)

    wait.subscribe(first)
    wait.subscribe(lambda: woken.append(2))
    wait.unsubscribe(first)
    wait.fire()
    wait.unsubscribe(first)
    assert woken == [2]


def test_who_comes_while_it_fires_waits_for_the_next_time():
    wait, woken = Wait(), []
    wait.subscribe(lambda: wait.subscribe(lambda: woken.append(1)))
    wait.fire()
    assert (woken, wait.wanted) == ([], True)
    wait.fire()
    assert woken == [1]


def test_its_repr_says_how_many_wait():
    wait = Wait()
    wait.subscribe(print)
    assert repr(wait) == "<Wait, 1 wait>"


# ---------------------------------------------------------------------------------------------------------------- calls


def test_a_call_gives_the_result(end):
    def operation():
        return (yield Call(divmod, 17, 5))

    assert end.perform(operation()) == (3, 2)


def test_an_error_of_a_call_is_raised_in_the_operation(end):
    def operation():
        try:
            yield Call(divmod, 17, 0)
        except ZeroDivisionError:
            return "caught"

    assert end.perform(operation()) == "caught"


def test_what_is_called_may_be_an_operation_itself(end):
    def slow(number):
        yield Sleep(5.0)
        return number + 1

    assert end.perform(call(slow, 41)) == 42
    assert end.scene.now == 5.0
    assert end.perform(call(lambda: "plain")) == "plain"


# ---------------------------------------------------------------------------------------------------- several at a time


def test_operations_run_together(end):
    def sleeper(seconds):
        yield Sleep(seconds)
        return seconds

    def operation():
        return (yield Together(sleeper(3.0), sleeper(1.0), call(lambda: 0.0)))

    assert end.perform(operation()) == (3.0, 1.0, 0.0)
    assert end.scene.now == 3.0


def test_of_those_that_run_together_one_error_cancels_the_others_first(end):
    ended = []

    def patient():
        try:
            yield Wait()
        finally:
            ended.append("patient")

    def failing():
        yield Sleep(1.0)
        raise ValueError("no")

    def operation():
        try:
            yield Together(patient(), failing(), patient())
        except ValueError:
            ended.append("told")

    end.perform(operation())
    assert ended == ["patient", "patient", "told"]


def test_an_operation_that_was_not_begun_when_another_failed_never_is(end):
    begun = []

    def failing():
        raise ValueError("no")
        yield

    def late():
        begun.append(True)
        yield Sleep(0)

    def operation():
        yield Together(failing(), late())

    with pytest.raises(ValueError, match="no"):
        end.perform(operation())
    assert begun == []


def test_cancelling_cancels_what_is_inside(end):
    ended = []

    def inner():
        try:
            yield Wait()
        finally:
            ended.append("inner")

    def outer():
        try:
            yield Together(inner(), inner())
        finally:
            ended.append("outer")

    task = end.begin(outer())
    task.cancel()
    assert ended == ["inner", "inner", "outer"]
    assert isinstance(task.error, Cancelled)


# --------------------------------------------------------------------------------------------------------------- others


def test_a_sleep_ends_early_when_something_fires(end):
    wait = Wait()

    def operation():
        yield Sleep(1000.0, wait)

    task = end.begin(operation())
    end.scene.pass_time(10.0)
    assert not task.done
    wait.fire()
    end.scene.settle()
    assert task.done
    assert not wait.wanted


def test_a_spawned_operation_has_begun_when_its_operation_goes_on(end):
    seen = []

    def beside():
        seen.append("beside")
        yield Sleep(5.0)
        seen.append("beside, later")

    def operation():
        yield Spawn(beside())
        seen.append("operation")

    end.perform(operation())
    assert seen == ["beside", "operation"]
    end.scene.pass_time(10.0)
    assert seen[2:] == ["beside, later"]


def test_a_spawned_operation_can_be_cancelled(end):
    seen = []

    def beside():
        try:
            yield Wait()
        finally:
            seen.append("cancelled")

    def operation():
        cancel = yield Spawn(beside())
        cancel()
        cancel()

    end.perform(operation())
    assert seen == ["cancelled"]
    assert end.running() == []


def test_there_are_no_descriptors_in_memory(end):
    def operation():
        yield Ready(0)

    with pytest.raises(AssertionError, match="no descriptors"):
        end.perform(operation())


# --------------------------------------------------------------------------------------------------------- handing over


def test_what_was_handed_over_is_not_undone(end):
    undone = []

    def beside():
        yield Wait()

    cancel = end.perform(hand_over(beside(), lambda: undone.append(True)))
    assert undone == []
    assert len(end.running()) == 1
    cancel()
    assert end.running() == []


def test_what_could_not_be_handed_over_is_undone(end):
    undone = []

    def beside():
        yield Wait()

    operation = hand_over(beside(), lambda: undone.append("closed"))
    assert isinstance(next(operation), Spawn)
    operation.close()
    operation = hand_over(beside(), lambda: undone.append("failed"))
    next(operation)
    with pytest.raises(MemoryError):
        operation.throw(MemoryError())
    assert undone == ["closed", "failed"]


# ---------------------------------------------------------------------------------------------------------------- blows


@pytest.mark.parametrize(("moment", "seen"), [(Moment.YIELDED, [0]), (Moment.BEGUN, [0, 1]), (Moment.DONE, [0, 1])])
def test_a_blow_falls_at_its_yield(end, moment, seen):
    calls = []

    def operation():
        for number in range(3):
            yield Call(calls.append, number)

    blow = Blow(2, moment, Task.cancel)
    task = end.begin(operation(), blow)
    end.scene.settle()
    assert blow.fallen
    assert (task.yields, calls) == (2, seen)
    assert isinstance(task.error, Cancelled)


def test_a_blow_counts_the_yields_inside(end):
    def inner():
        yield Sleep(1.0)
        yield Sleep(1.0)

    def operation():
        yield Together(inner(), inner())
        yield Sleep(5.0)

    task = end.begin(operation())
    end.scene.pass_time(10.0)
    assert (task.done, task.yields) == (True, 6)
    blow = Blow(5, Moment.DONE, Task.cancel)
    task = end.begin(operation(), blow)
    end.scene.pass_time(1.5)
    assert not blow.fallen
    end.scene.pass_time(10.0)
    assert blow.fallen


def test_an_operation_that_waits_for_ever_is_said_to_hang(end):
    def operation():
        yield Wait()

    with pytest.raises(AssertionError, match="hangs"):
        end.perform(operation())
