"""What the documentation says about the code is so."""

from __future__ import annotations

import re

import pytest

from sshproto import algorithms

SECTIONS = {
    "Key exchange": "KEX",
    "Signatures": "SIGNATURE",
    "Certificates": "CERTIFICATE",
    "Ciphers": "CIPHER",
    "MACs": "MAC",
    "Compression": "COMPRESSION",
}


def rows(text, section):
    """Name and standing of each row of the table under the heading ``section``."""
    part = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \| (\w+) \|", part, re.MULTILINE)


@pytest.mark.parametrize(("section", "prefix"), SECTIONS.items())
def test_algorithms_are_listed_with_their_standing_in_order(checkout, section, prefix):
    text = (checkout / "docs/reference/algorithms.md").read_text()
    expected = [
        (name, standing.lower())
        for standing in ("DEFAULT", "EXTRA", "LEGACY")
        for name in getattr(algorithms, f"{prefix}_{standing}", ())
    ]
    assert rows(text, section) == expected


def test_every_category_has_a_table():
    assert len(SECTIONS) == len(algorithms.KNOWN)


def test_links_lead_somewhere(checkout):
    pages = [checkout / "README.md", *(checkout / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(checkout)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_readme_begins_with_the_two_commands(checkout):
    blocks = re.findall(r"```sh\n(.*?)```", (checkout / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    assert blocks[0].strip().endswith("sshproto demo")
    assert blocks[1].strip().endswith("-m pytest")
