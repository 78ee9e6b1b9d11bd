"""The escape sequences of an interactive session (ssh(1), ESCAPE CHARACTERS)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sshproto_cli.escape import DEFAULT, Command, Escapes, help_text, read_character, show
from sshproto_cli.options import Failure

D, S, H, R, B = Command.DISCONNECT, Command.SUSPEND, Command.HELP, Command.REKEY, Command.BREAK


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (b"", []),
        (b"ls ~\r", [b"ls ~\r"]),
        (b"~.", [D]),
        (b"ls\r~.", [b"ls\r", D]),
        (b"ls\n~.", [b"ls\n", D]),
        (b"ls\r\n~.", [b"ls\r\n", D]),
        (b"ls ~.", [b"ls ~."]),
        (b"\r ~.", [b"\r ~."]),
        (b"~\x1a", [S]),
        (b"~?", [H]),
        (b"~R", [R]),
        (b"~B", [B]),
        (b"~~", [b"~"]),
        (b"~~.", [b"~."]),
        (b"\r~~~.", [b"\r~~."]),
        (b"~x", [b"~x"]),
        (b"~x~.", [b"~x~."]),
        (b"~r~b", [b"~r~b"]),
        (b"~\r~.", [b"~\r", D]),
        (b"~", []),
        (b"a\r~", [b"a\r"]),
        (b"~?~R~\x1aecho\r~B~.", [H, R, S, b"echo\r", B, D]),  # behind a sequence the line is still at its start
        (b"~?x~.", [H, b"x~."]),
        (b"\r\r~?", [b"\r\r", H]),
        (b"x\r~.all the rest\r~R", [b"x\r", D]),
        (bytes(range(256)), [bytes(range(256))]),
    ],
)
def test_sequences(typed, expected):
    assert Escapes().feed(typed) == expected


def joined(pieces):
    """Data that came in several pieces as one."""
    found = []
    for piece in pieces:
        if found and isinstance(piece, bytes) and isinstance(found[-1], bytes):
            found[-1] += piece
        else:
            found.append(piece)
    return found


def slowly(typed, character):
    """The rules, one byte at a time, in the plainest way."""
    found, before = [], b"\n"
    typed = list(typed)
    while typed:
        byte = typed.pop(0)
        if byte == character and before in (b"\r", b"\n"):
            if not typed:
                return found, bytes([byte])
            second = typed.pop(0)
            if second in [command.value for command in Command]:
                found.append(Command(second))
                if found[-1] is D:
                    return found, b""
                continue
            found.append(bytes([byte] if second == byte else [byte, second]))
            before = bytes([second])
        else:
            found.append(bytes([byte]))
            before = bytes([byte])
    return found, b""


PIECE = st.text("~.\x1a?RBx\r\n", max_size=8).map(str.encode) | st.binary(max_size=8)


@given(st.lists(PIECE, max_size=8))
@example([b"~", b"."])
@example([b"\r", b"~", b"", b"~", b"~."])
@example([b"a~", b"\r~"])
def test_how_the_input_is_cut_makes_no_difference(pieces):
    machine = Escapes()
    found = []
    for piece in pieces:
        given = machine.feed(piece)
        assert all(not (isinstance(a, bytes) and isinstance(b, bytes)) for a, b in pairwise(given))
        assert b"" not in given
        found += given
    expected, held = slowly(b"".join(pieces), DEFAULT)
    assert joined(found) == joined(expected)
    assert machine.ended == (D in found)
    assert machine.finish() == held
    assert machine.finish() == b""


@given(st.binary())
def test_without_an_escape_character_all_passes(typed):
    machine = Escapes(None)
    assert b"".join(machine.feed(typed)) == typed
    assert machine.finish() == b""
    assert not machine.ended


def test_another_character():
    machine = Escapes(read_character("^]"))
    assert machine.feed(b"~.\r\x1d.") == [b"~.\r", D]
    for sign in (b"+", b"(", b"\\"):  # characters that mean something in a pattern
        assert Escapes(sign[0]).feed(sign * 3 + b".\r" + sign + b"?") == [sign * 2 + b".\r", H]


@pytest.mark.parametrize(
    ("text", "character"),
    [("none", None), ("~", 126), ("%", 37), ("^]", 29), ("^a", 1), ("^", 94), ("^_", 31), (" ", 32)],
)
def test_characters(text, character):
    assert read_character(text) == character


@pytest.mark.parametrize("text", ["", "~~", "None", "é", "^é", "^1", "\n", "\r", "^J", "^M", ".", "?", "R", "B", "^Z"])
def test_no_characters(text):
    with pytest.raises(Failure, match=r"^escape character "):
        read_character(text)


@pytest.mark.parametrize(
    ("byte", "shown"), [(0, "^@"), (26, "^Z"), (29, "^]"), (126, "~"), (127, "^?"), (200, "\\xc8")]
)
def test_bytes_are_shown_as_people_write_them(byte, shown):
    assert show(byte) == shown


def test_help_is_for_a_raw_terminal_and_complete():
    text = help_text(read_character("^]"))
    lines = text.split("\r\n")
    assert "\n" not in text.replace("\r\n", "")
    assert lines[-1] == ""
    for word in (".", "^Z", "?", "R", "B", "^]"):
        assert any(line.startswith(f"  ^]{word} ") for line in lines), word
