"""What the core spends on a packet, a command and a login stays within a budget of calls and memory, not of time."""

from __future__ import annotations

import pytest

from tests.bench import budget


@pytest.mark.parametrize("name", budget.MEASURED)
def test_within_the_budget(name):
    room = budget.SOCKETS if "asyncio" in name else 1.03
    beyond = budget.MEASURED[name]().beyond(budget.budgets()[name], room)
    assert not beyond, (
        f"one {name} takes {'; '.join(beyond)}. If that is meant, renew the budget with Python 3.11 by "
        "`PYTHONPATH=.:adapters python -m tests.bench.budget --renew`, and say why in the commit."
    )


def test_the_same_on_every_run():
    name = "command"
    first, second = budget.MEASURED[name](), budget.MEASURED[name]()
    assert (first.calls, first.builtins) == (second.calls, second.builtins)


def test_more_than_the_budget_is_told():
    allowed = budget.Spent(100, 10, 10_000)
    assert not budget.Spent(103, 10.5, 11_000).beyond(allowed)
    assert budget.Spent(104, 10, 0).beyond(allowed) == ["104 calls, and the budget is 100"]
    assert len(budget.Spent(200, 20, 20_000).beyond(allowed)) == 3
