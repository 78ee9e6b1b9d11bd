"""Key logs line by line: what is in them, what is wrong, and what each line is good for in captures."""

from __future__ import annotations

import pytest

from sshproto.config import Preferences
from sshproto.replay import keylogs
from sshproto.replay.analysis import Analysis
from sshproto.replay.events import Side
from sshproto.replay.keylogs import Fit, Line, Uses
from sshproto.replay.secrets import PRIVATE_KEY, SHARED_SECRET, KeyLogLine
from tests.replay.sessions import session
from tests.support.tapes import Show, command, tape

COOKIE = "00112233445566778899aabbccddeeff"
ENTRY = KeyLogLine(bytes.fromhex(COOKIE), SHARED_SECRET, b"\x01\x02")


def test_lines():
    text = f"# a comment\n\n{COOKIE} SHARED_SECRET 0102\n{COOKIE} 03\nnonsense\n{COOKIE} PRIVATE_KEY 0g\n"
    assert list(keylogs.read(text)) == [
        Line(1, text="# a comment"),
        Line(3, ENTRY),
        Line(4, KeyLogLine(bytes.fromhex(COOKIE), PRIVATE_KEY, b"\x03"), old=True),
        Line(5, problem="has 1 fields, expected a cookie, a kind and a value"),
        Line(6, problem="is not hexadecimal"),
    ]


def test_bytes_and_what_fills_up_a_block():
    assert list(keylogs.read(f"{COOKIE} SHARED_SECRET 0102\n\0\0".encode())) == [Line(1, ENTRY)]
    [wrong] = keylogs.read(b"\xff\xfa")
    assert wrong.problem


def test_so_many_lines(monkeypatch):
    monkeypatch.setattr(keylogs, "LINES", 3)
    assert len(list(keylogs.read("x\n" * 10))) == 3


def test_a_line_shows_no_secret():
    assert "0102" not in repr(Line(1, ENTRY))
    assert "hush" not in repr(Line(1, text="# hush"))


def test_contents():
    text = (
        f"{COOKIE} SHARED_SECRET 0102\n{COOKIE} SHARED_SECRET 0102\n{COOKIE} SHARED_SECRET 09\n{COOKIE} 0102\n"
        f"# said\nwrong\n{'11' * 16} SHARED_SECRET 0000\n"
    )
    found = keylogs.contents(keylogs.read(text))
    assert found.counts == {SHARED_SECRET: 4, PRIVATE_KEY: 1, "comment": 1}
    assert found.old == 1
    assert [line.number for line in found.wrong] == [6]
    assert [(line.number, earlier.number) for line, earlier in found.repeated] == [(2, 1)]
    assert [(line.number, earlier.number) for line, earlier in found.disagreeing] == [(3, 1)]
    assert [line.number for line in found.empty] == [7]


# ---------------------------------------------------------------------------------------------------------- in captures


def watch(lines, data):
    uses = Uses()
    for line in lines:
        uses.secrets.add(line)
    analysis = Analysis(uses.secrets, ask=uses.begin)
    list(analysis.read([data]))
    list(analysis.finish())
    return uses


def lines_of(show):
    return [line.entry for line in keylogs.read(show.key_log) if line.entry is not None]


def test_what_a_line_opens():
    show, other = command(), Show()
    [right] = lines_of(show)
    wrong = KeyLogLine(right.cookie, SHARED_SECRET, bytes(32) + b"\1")
    uses = watch([wrong, right, ENTRY], tape(show, key_log=False))
    assert [uses.fit(line) for line in (right, wrong, ENTRY)] == [Fit.OPENS, Fit.WRONG, Fit.UNSEEN]
    [use] = uses.all
    assert use.whole
    assert use.opened == 1
    assert uses.shared(right) == right
    assert other.key_log != show.key_log


def test_a_leading_zero_makes_no_difference():
    show = command(preferences=Preferences(kex=("curve25519-sha256",)))
    [right] = lines_of(show)
    longer = KeyLogLine(right.cookie, SHARED_SECRET, b"\0" + right.value)
    uses = watch([longer], tape(show, key_log=False))
    assert uses.all[0].whole
    assert uses.fit(longer) is uses.fit(right) is Fit.OPENS


def test_key_logs_inside_the_capture_do_not_count():
    show = command()
    uses = watch([], tape(show, key_log=True))
    assert not uses.all[0].whole
    assert uses.fit(lines_of(show)[0]) is Fit.WRONG


def test_each_key_exchange_has_its_line():
    recording = session(rekeys="cs")
    show = command()
    show.recording.wire[:] = recording.wire
    show.times[:] = [0.0] * len(recording.wire)
    show.recording.key_log[:] = recording.key_log
    lines = lines_of(show)
    assert len(lines) == 3
    uses = watch(lines, tape(show, key_log=False))
    assert [uses.fit(line) for line in lines] == [Fit.OPENS] * 3
    assert (uses.all[0].opened, uses.all[0].whole) == (3, True)
    part = watch(lines[:2], tape(show, key_log=False))
    assert [part.fit(line) for line in lines] == [Fit.OPENS, Fit.OPENS, Fit.WRONG]
    assert (part.all[0].opened, part.all[0].whole) == (2, False)
    first = watch(lines[2:], tape(show, key_log=False))
    assert first.fit(lines[2]) is Fit.UNSEEN, "the third is only seen by those who have opened the first two"
    assert first.all[0].opened == 0


@pytest.mark.parametrize("side", list(Side))
def test_a_private_value_becomes_a_shared_secret(side):
    show = command(preferences=Preferences(kex=("curve25519-sha256",)))
    [right] = lines_of(show)
    [value] = show.recording.drawn_for(side, "kex")
    private = KeyLogLine(right.cookie, PRIVATE_KEY, value)
    uses = watch([private], tape(show, key_log=False))
    assert uses.all[0].whole
    assert uses.fit(private) is Fit.OPENS
    made = uses.shared(private)
    assert made is not None
    assert (made.cookie, made.kind) == (right.cookie, SHARED_SECRET)
    assert watch([made], tape(show, key_log=False)).all[0].whole


def test_a_private_value_that_leads_to_nothing():
    show = command()
    [right] = lines_of(show)
    private = KeyLogLine(right.cookie, PRIVATE_KEY, b"\1\2\3")
    uses = watch([private], tape(show, key_log=False))
    assert uses.fit(private) is Fit.WRONG
    assert uses.why(private)
    assert uses.shared(private) is None
    both = watch([private, right], tape(show, key_log=False))
    assert both.fit(private) is Fit.SPARE
    assert both.shared(private) == right


def test_a_key_exchange_that_is_not_whole():
    show = command()
    [right] = lines_of(show)
    uses = watch([right], tape(show, key_log=False, lost={4}))
    assert uses.fit(right) is Fit.UNTRIED
