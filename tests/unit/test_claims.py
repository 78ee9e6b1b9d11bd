"""The list of claims and its table."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.claims import CLAIMS, LEFT_OUT, check, report, still_open, table


class Item:
    """As much of a test as the table looks at."""

    def __init__(self, nodeid: str, *marks: pytest.MarkDecorator) -> None:
        self.nodeid = nodeid
        self.marks = [mark.mark for mark in marks]

    def iter_markers(self, name: str) -> Any:
        return [mark for mark in self.marks if mark.name == name]


def items(*tests: Item) -> Any:
    return tests


def test_the_claims_are_all_there() -> None:
    numbers = {letter: [int(name[1:]) for name in CLAIMS if name[0] == letter] for letter in "VRBP"}
    assert numbers["R"] == list(range(1, 171))
    assert numbers["B"] == list(range(1, 37))
    assert numbers["P"] == list(range(1, 22))
    gaps = {38, 39, 56, 57, 58, 59, 69, 78, 79}
    assert numbers["V"] == [number for number in range(1, 85) if number not in gaps]
    assert all(claim.words for claim in CLAIMS.values())


def test_what_is_left_out_is_a_claim_and_has_a_reason() -> None:
    assert set(LEFT_OUT) <= set(CLAIMS)
    assert all(LEFT_OUT.values())


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        (pytest.mark.covers("V1"), "'V1' is not"),
        (pytest.mark.covers(), "at least one"),
        (pytest.mark.covers(id="V01"), "takes ids"),
    ],
)
def test_what_cannot_be_claimed(mark: pytest.MarkDecorator, words: str) -> None:
    with pytest.raises(pytest.UsageError, match=words):
        check(items(Item("test_x", mark)))


def test_the_table() -> None:
    tests = items(
        Item("a.py::test_a[1]", pytest.mark.covers("V01", "R2")),
        Item("a.py::test_a[2]", pytest.mark.covers("V01"), pytest.mark.covers("V01", "B3")),
        Item("a.py::test_b"),
    )
    check(tests)
    rows = table(tests)
    assert {name: found for name, found in rows.items() if found} == {
        "V01": {"a.py::test_a": 2},
        "R2": {"a.py::test_a": 1},
        "B3": {"a.py::test_a": 1},
    }
    lines = list(report(tests))
    assert "    a.py::test_a (2 cases)" in lines
    assert "V02" in lines[-4]
    assert "V01" not in lines[-4]
    assert not any(name in lines[-4].split() for name in LEFT_OUT)
    assert lines[-1].startswith("0 of 21 properties have tests, 1 are left out with a reason; open: P1 P3")


def test_what_is_open() -> None:
    tests = items(Item("a.py::test_a", pytest.mark.covers(*[name for name in CLAIMS if name not in {"V01", "V72"}])))
    assert still_open(tests) == ["V01"]
