"""The list of claims, its table, and the page that is made of them."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import pytest

from tests.support import claimspage
from tests.support.claims import CLAIMS, LEFT_OUT, check, report, still_open, table
from tests.support.flaws import FLAWS_TOLD


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


# ------------------------------------------------------------------------------------------------------------- the page


def test_the_page_is_that_of_the_suite() -> None:
    written = claimspage.PAGE.read_text("utf-8")
    current = written == claimspage.page(claimspage.shown_by())  # without assert's comparison of a long page
    assert current, f"docs/security-claims.md is out of date: {claimspage.COMMAND}"


def test_every_flaw_is_told() -> None:
    assert list(FLAWS_TOLD) == [name for name in CLAIMS if name[0] == "V"]
    for name, told in FLAWS_TOLD.items():
        assert bool(told.here) != bool(CLAIMS[name].left_out), name
        assert all(re.fullmatch(r"CVE-\d{4}-\d{4,7}", cve) for cve in told.seen), name


def test_marks_are_found_wherever_they_may_stand() -> None:
    @pytest.mark.covers("R1")
    @pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.covers("R2", "R3"))])
    def test_a(x: int) -> None: ...

    def test_b() -> None: ...

    def helper() -> None: ...

    @pytest.mark.covers("B1")
    class TestC:
        @pytest.mark.covers("B2")
        def test_d(self) -> None: ...

    module = ModuleType("test_x")
    vars(module).update(test_a=test_a, test_b=test_b, helper=helper, TestC=TestC)
    assert dict(claimspage.tests_of(module)) == {"test_a": ["R2", "R3", "R1"], "TestC": ["B1", "B2"]}
    module.pytestmark = pytest.mark.covers("V01")  # type: ignore[attr-defined]
    assert dict(claimspage.tests_of(module)) == {
        "test_a": ["V01", "R2", "R3", "R1"],
        "test_b": ["V01"],
        "TestC": ["V01", "B1", "B2"],
    }


def test_what_is_collected_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    read = {name: ["a.py::TestB"] if name == "V01" else [] for name in CLAIMS}
    monkeypatch.setattr(claimspage, "shown_by", lambda: read)
    assert not list(claimspage.differences(items(Item("a.py::TestB::runTest", pytest.mark.covers("V01")))))
    other = items(Item("a.py::test_c[1]", pytest.mark.covers("V01")))
    assert list(claimspage.differences(other)) == [
        "V01: a.py::TestB is not collected",
        "V01: a.py::test_c is not on the page",
    ]
