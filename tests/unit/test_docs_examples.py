"""The code in the documentation runs, and prints what the page says.

Every fenced block of Python in ``README.md`` and under ``docs/`` is executed, in order, one namespace a page:

* A block that can't run here (it needs a network, a server, a terminal) has the comment ``<!-- not run: why -->`` on
  a line before it.
* A fenced block after the comment ``<!-- prints -->`` is what the Python block before it prints. Fingerprints of keys
  are not compared.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.is_file()]

_BLOCK = re.compile(
    r"(?:^[ ]*<!--[ ]*(?P<mark>not run|prints)\b(?P<rest>[^\n]*?)-->[ ]*\n\s*)?"
    r"^(?P<indent>[ ]*)(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<body>.*?)^[ ]*(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_VARYING = ((re.compile(r"SHA256:[A-Za-z0-9+/]{43}"), "SHA256:..."),)


@attrs.frozen
class Block:
    """A fenced block of a page; ``line`` is the number of its first line, ``mark`` the comment before it."""

    language: str
    body: str
    line: int
    mark: str
    reason: str

    @property
    def is_python(self) -> bool:
        return self.language.split(" ")[0] in {"python", "py", "python3"}


def blocks(text: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(text):
        yield Block(
            language=found["language"].strip(),
            body=textwrap.dedent(found["body"]),
            line=text.count("\n", 0, found.start("body")) + 1,
            mark=found["mark"] or "",
            reason=(found["rest"] or "").lstrip(":").strip(),
        )


def without_varying(text: str) -> list[str]:
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return [line.rstrip() for line in text.strip().splitlines()]


def run_page(name: str, text: str, output: pytest.CaptureFixture[str]) -> int:
    """Run the blocks of a page; the result is how many ran."""
    namespace: dict[str, Any] = {"__name__": f"page {name}"}
    ran = 0
    printed: str | None = None
    for block in blocks(text):
        where = f"{name}:{block.line}"
        if block.mark == "not run":
            assert block.is_python, f"{where}: only Python blocks run, this one needs no 'not run'"
            assert block.reason, f"{where}: 'not run' needs a reason"
        elif block.mark == "prints":
            assert printed is not None, f"{where}: no Python block has run whose output this could be"
            assert without_varying(printed) == without_varying(block.body), where
            printed = None
        elif block.is_python:
            # With its place in the page, a traceback shows the line of the page.
            code = compile("\n" * (block.line - 1) + block.body, str(ROOT / name), "exec")
            output.readouterr()
            exec(code, namespace)
            printed = output.readouterr().out
            ran += 1
    return ran


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)  # what a page writes does not stay
    run_page(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"), capsys)


def test_the_tutorial_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "tutorial" / "in-memory.md"
    assert run_page("in-memory.md", page.read_text(encoding="utf-8"), capsys) >= 10


# ------------------------------------------------------------------------------------------------- the test's own rules


def test_one_namespace_for_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    text = "```python\nx = 1\n```\n\ntext\n\n```python\nprint(x + 1)\n```\n\n<!-- prints -->\n```text\n2\n```\n"
    assert run_page("page.md", text, capsys) == 2


def test_wrong_output_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:7"):
        run_page("page.md", "```python\nprint(1)\n```\n\n<!-- prints -->\n```text\n2\n```\n", capsys)


def test_an_error_names_the_line_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_page("page.md", "# A page\n\n```python\nx = 0\n1 / x\n```\n", capsys)
    assert caught.traceback[-1].lineno + 1 == 5


def test_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = "<!-- not run: needs a network -->\n\n```python\nraise OSError\n```\n"
    assert run_page("page.md", text, capsys) == 0
    assert run_page("page.md", text + "\n```python\npass\n```\n", capsys) == 1


def test_not_run_needs_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="reason"):
        run_page("page.md", "<!-- not run -->\n```python\npass\n```\n", capsys)


def test_other_languages_and_indented_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    text = "```console\n$ sshproto demo\n```\n\n1. A list\n\n   ```python\n   if True:\n       y = 2\n   ```\n"
    assert run_page("page.md", text, capsys) == 1
    assert [block.language for block in blocks(text)] == ["console", "python"]
