"""A peer's words made safe to show (RFC 4251 section 9.2)."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sshproto.text import multiline, printable

# Unicode's Bidi_Control property, written out.
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ANYTHING = (
    st.text(st.characters(exclude_categories=[]))
    | st.binary()
    | st.text(st.sampled_from([*BIDI, *map(chr, range(160))]))
)


def unsafe(character: str) -> bool:
    """Controls, lone surrogates, line and paragraph separators, bidirectional controls, the byte order mark."""
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or character in BIDI or character == "\ufeff"


@pytest.mark.covers("R8", "V70")
def test_every_unsafe_character_of_unicode_is_escaped_and_no_other() -> None:
    everything = [chr(point) for point in range(sys.maxunicode + 1)]
    shown = multiline("|".join(everything), limit=3 * len(everything)).split("|")
    del shown[ord("|") : ord("|") + 2]  # the separator itself came out as two empty pieces
    wrong = [
        hex(ord(character))
        for character, text in zip((c for c in everything if c != "|"), shown, strict=True)
        if (text == character) == (unsafe(character) and character not in "\t\n")
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;evil\x07", "\\x1b]0;evil\\x07"),
        ("a\x9bB", "a\\x9bB"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\ud800", "\\ud800"),
        ("\udc80", "\\x80"),
        ("\x7f\x00", "\\x7f\\x00"),
        ("日本語 ✓", "日本語 ✓"),
        ("\r", "\\x0d"),
        ("", ""),
        (b"", ""),
    ],
)
def test_examples(text: str | bytes, shown: str) -> None:
    assert printable(text) == multiline(text) == shown


def test_lines_and_tabs() -> None:
    assert multiline("one\r\ntwo\n\tthree\rfour") == "one\ntwo\n\tthree\\x0dfour"
    assert printable("one\r\ntwo\n\tthree\rfour") == "one\\ntwo\\n\\tthree\\x0dfour"


@given(text=ANYTHING, limit=st.integers(0, 40))
def test_whatever_comes_in_one_safe_short_line_comes_out(text: str | bytes, limit: int) -> None:
    shown = printable(text, limit)
    assert not any(unsafe(character) for character in shown)
    assert len(shown.splitlines()) <= 1
    assert len(shown) <= 6 * limit + 1
    shown.encode("utf-8")
    lines = multiline(text, limit)
    assert not any(unsafe(character) for character in lines if character not in "\t\n")
    assert lines.replace("\t", "\\t").replace("\n", "\\n") == shown


@given(
    st.text(
        st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters=BIDI + "\ufeff"), max_size=256
    )
)
def test_safe_text_is_left_alone(text: str) -> None:
    assert printable(text) == multiline(text) == text


def test_what_is_too_long_ends_in_an_ellipsis() -> None:
    assert printable("x" * 256) == "x" * 256
    assert printable("x" * 257) == "x" * 256 + "…"
    assert multiline("x" * 4096) == "x" * 4096
    assert multiline("x" * 4097) == "x" * 4096 + "…"
    assert printable("\x1b" * 300, 2) == "\\x1b\\x1b…"
