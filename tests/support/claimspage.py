"""``docs/security-claims.md``: every claim of :mod:`tests.support.claims`, and the tests that show it.

``python -m tests.support.claimspage`` writes the page.  A test holds it to the suite, and ``pytest --claims``, which
sees the tests as they are collected, holds this reading of the suite to that one.

The tests are found by importing the files that claim something and looking at the marks in them, which takes seconds;
collecting the whole suite takes many.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.claims import CLAIMS, MARKER, Claim, table
from tests.support.flaws import FLAWS_TOLD

TOP = Path(__file__).resolve().parents[2]
PAGE = TOP / "docs" / "security-claims.md"
COMMAND = "python -m tests.support.claimspage"

Tests = dict[str, list[str]]
"""For each claim the tests that show it, ``file.py::test``, in the order of the files."""


# ------------------------------------------------------------------------------------------------------------ the suite


def claiming_files() -> list[Path]:
    """The test files that claim something."""
    return [path for path in sorted((TOP / "tests").rglob("test_*.py")) if f"{MARKER}(" in path.read_text("utf-8")]


def shown_by() -> Tests:
    """What the suite shows."""
    rows: Tests = {name: [] for name in CLAIMS}
    for path in claiming_files():
        file = path.relative_to(TOP)
        module = importlib.import_module(".".join(file.with_suffix("").parts))
        for test, ids in tests_of(module):
            for name in dict.fromkeys(ids):
                rows[name].append(f"{file.as_posix()}::{test}")
    return rows


def tests_of(module: ModuleType) -> Iterator[tuple[str, list[str]]]:
    """The tests of a module that claim something, and what."""
    common = list(_ids(_marks(module)))
    for name, thing in vars(module).items():
        if inspect.isfunction(thing) and name.startswith("test_"):
            ids = common + list(_ids(_marks(thing)))
        elif inspect.isclass(thing) and name.startswith("Test"):
            ids = common + list(_ids(_marks(thing)))
            for inner in vars(thing).values():
                ids += _ids(_marks(inner))
        else:
            continue
        if ids:
            yield name, ids


def _marks(thing: Any) -> list[pytest.Mark]:
    marks = getattr(thing, "pytestmark", [])
    return [getattr(mark, "mark", mark) for mark in (marks if isinstance(marks, list) else [marks])]


def _ids(marks: Iterable[pytest.Mark]) -> Iterator[str]:
    for mark in marks:
        if mark.name == MARKER:
            yield from mark.args
        elif mark.name == "parametrize":  # single parameters can have marks as well
            for parameter in mark.args[1]:
                yield from _ids(getattr(inner, "mark", inner) for inner in getattr(parameter, "marks", ()))


def short(nodeid: str) -> str:
    """The name of a test as it stands on the page: of a class only the class."""
    file, _, test = nodeid.partition("[")[0].partition("::")
    return f"{file}::{test.partition('::')[0]}"


# ------------------------------------------------------------------------------------------------------------- the page

HEAD = f"""\
# Claims and their tests

What [Security](security.md) promises, claim by claim, each with the tests that show it. This page is written by
`{COMMAND}` from the marks in the tests. A test fails when it is out of date, and
`pytest --claims` fails when a claim has neither a test nor a reason why it has none.

"""

FLAWS_HEAD = """\
## Flaws

What has gone wrong in implementations of SSH, and what happens here instead. The numbers are those of published
vulnerabilities of that kind, in whatever implementation; classes without a number come from bug reports, release notes
and papers.

"""

KINDS = {
    "R": ("Requirements", "What the standards ask for, in their order."),
    "B": ("Bounds", "What a peer can make grow, tried at its bound and past it: [the values](reference/limits.md)."),
    "P": ("Properties", "What holds in every run, watched while machines make up runs by themselves."),
}


def page(tests: Tests) -> str:
    """The page in full."""
    parts = [HEAD, *_sums(tests), FLAWS_HEAD]
    parts += [_flaw(claim, tests[claim.id]) for claim in _kind("V")]
    for letter, (title, words) in KINDS.items():
        parts += [f"## {title}\n\n{words}\n\n| | claim | shown by |\n|---|---|---|\n"]
        parts += [
            f"| {claim.id} | {claim.words} | {'; '.join(_files(tests[claim.id])) or _no_test(claim)} |\n"
            for claim in _kind(letter)
        ]
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def _kind(letter: str) -> list[Claim]:
    return [claim for claim in CLAIMS.values() if claim.id[0] == letter]


def _sums(tests: Tests) -> Iterator[str]:
    yield "| | in all | shown by tests | left out, with a reason |\n|---|---|---|---|\n"
    for letter, title in (("V", "Flaws"), *((letter, title) for letter, (title, _) in KINDS.items())):
        claims = _kind(letter)
        shown = sum(bool(tests[claim.id]) for claim in claims)
        left = sum(bool(claim.left_out) and not tests[claim.id] for claim in claims)
        yield f"| [{title}](#{title.lower()}) | {len(claims)} | {shown} | {left} |\n"
    yield "\n"


def _flaw(claim: Claim, tests: list[str]) -> str:
    told = FLAWS_TOLD[claim.id]
    title = claim.words[0].upper() + claim.words[1:]
    about = f"**{claim.id}. {title}.** {told.here or claim.left_out}"
    seen = f"\\\n*Seen as {', '.join(told.seen)}.*" if told.seen else ""
    return f"{about}{seen}\n\n" + "".join(f"- {line}\n" for line in _files(tests) or [_no_test(claim)]) + "\n"


def _files(tests: list[str]) -> list[str]:
    """The tests, those of a file together behind a link to it."""
    files: dict[str, list[str]] = {}
    for test in tests:
        file, _, name = test.partition("::")
        files.setdefault(file, []).append(f"`{name}`")
    return [f"[{file.removeprefix('tests/')}](../{file}): {', '.join(names)}" for file, names in files.items()]


def _no_test(claim: Claim) -> str:
    return "no test" if claim.id in FLAWS_TOLD else f"no test: {claim.left_out}"


def differences(items: Iterable[pytest.Item]) -> Iterator[str]:
    """What the tests as they were collected show otherwise than the page's reading of the files."""
    collected = {name: {short(test) for test in tests} for name, tests in table(items).items()}
    for name, tests in shown_by().items():
        for test in sorted(collected[name] ^ set(tests)):
            yield f"{name}: {test} is " + ("not on the page" if test in collected[name] else "not collected")


if __name__ == "__main__":
    PAGE.write_text(page(shown_by()), encoding="utf-8")
    print(f"{PAGE.relative_to(TOP)} is written")
