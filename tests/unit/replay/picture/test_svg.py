"""The picture: valid XML whatever was said, nothing overlaps, nothing runs out, the same every time."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree as ET

import attrs
import pytest

from sshproto import algorithms
from sshproto.channels.requests import Exec
from sshproto.config import ClientConfig, Preferences
from sshproto.replay.events import Side
from sshproto.replay.picture import svg as picture
from sshproto.replay.picture.drawing import LEFT, RIGHT, TEXT, clock, date, span
from sshproto.replay.picture.lettering import escaped, fit, names, safe, width, wrap
from sshproto.replay.picture.steps import Kind, Run, Step
from tests.support.boxes import SVG, boxes, overlaps
from tests.support.charts import chart_of, charts
from tests.support.tapes import Show, command, shell, tape

HOSTILE = (
    "</text><script>alert(1)</script>",
    "\"'&<>]]>",
    "a" * 3000,
    "\x00\x01\x1b[31m\x7f\x9b",
    "\ud800\udfff\ufffe\uffff",
    "\u202eevil\u2066",
    "z\u0300\u0301\u0302\u0303\u0304",
    "\ufdfd" * 200,
    "漢字" * 300,
    "\r\n\t",
    "",
)


def rekeyed():
    show = Show()
    channel = show.open()
    show.ask(channel, Exec(b"cat"))
    for place in range(30):
        show.wait(0.01).type(channel, b"x" * place)
    show.client.rekey()
    return show.run().wait(3).type(channel, b"after").exit(channel).bye()


CAPTURES = {
    "command": lambda: tape(command()),
    "sealed": lambda: tape(command(), key_log=False),
    "shell": lambda: tape(shell()),
    "rekeyed": lambda: tape(rekeyed()),
    "lost": lambda: tape(command(), lost={12}),
    "weak": lambda: tape(
        command(
            preferences=Preferences(
                kex=(*algorithms.KEX_LEGACY, *algorithms.KEX_DEFAULT),
                cipher=algorithms.CIPHER_LEGACY,
                mac=algorithms.MAC_LEGACY,
            )
        )
    ),
    "two": lambda: tape(command(), shell()),
}


@pytest.fixture(scope="module", params=CAPTURES)
def drawn(request):
    return charts(CAPTURES[request.param]())


@pytest.fixture(scope="module")
def plain():
    return chart_of(tape(command()))


@pytest.mark.parametrize("scale", ["even", "time"])
@pytest.mark.parametrize("shortest", [0, 5])
def test_nothing_overlaps_or_runs_out(drawn, scale, shortest):
    svg = picture.draw(drawn, scale=scale, shortest=shortest)
    assert overlaps(svg) == []


def test_nothing_stands_on_a_lifeline(drawn):
    svg = picture.draw(drawn[:1])
    texts = boxes(svg)
    foot = next(top for _, top, _, _, text in texts if text in {"What is wrong with it", "in the clear"})
    rows = [box for box in texts if 130 < box[1] < foot]
    assert len(rows) > 50
    on = [text for left, _, right, _, text in rows if any(left < x < right for x in (LEFT, RIGHT))]
    assert on == []


def test_the_same_every_time():
    assert picture.draw(charts(tape(shell()))) == picture.draw(charts(tape(shell())))


def test_what_is_said_is_in_it(plain):
    svg = picture.draw([plain])
    text = " ".join(box[4] for box in boxes(svg))
    for word in (
        "Client", "Server", "Version exchange", "Key exchange", "Authentication", "Connection", "RFC 4254",
        "KEXINIT", "USERAUTH_SUCCESS", 'exec "make"', "encrypted from here on", "agreed", "10.0.0.1:40001",
    ):  # fmt: skip
        assert word in text
    root = ET.fromstring(svg)
    assert root.find(f"{SVG}title").text == "SSH connection 1: 10.0.0.1:40001 to 10.0.0.2:22"
    assert "packets" in root.find(f"{SVG}desc").text
    tips = [tip.text for tip in root.iter(f"{SVG}title")]
    assert any("integrity verified" in tip and "frame" in tip for tip in tips)


def test_encryption_is_drawn_from_newkeys_on(plain):
    svg = picture.draw([plain])
    bars = re.findall(r'<rect x="(\d+)" y="([\d.]+)" width="8"', svg)
    assert {int(x) + 4 for x, _ in bars} == {LEFT, RIGHT}
    newkeys = [top for _, top, _, _, text in boxes(svg) if text.startswith("NEWKEYS")]
    assert all(min(newkeys) < float(y) < max(newkeys) + 40 for _, y in bars)
    root = ET.fromstring(svg)
    assert len([path for path in root.iter(f"{SVG}path") if path.get("class") == "clearhead"]) == 2 + 2 + 2 + 2 + 1


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_words(text, plain):
    chart = plain
    items = [attrs.evolve(item) for item in chart.items if isinstance(item, Step)]
    for item in items:
        item.summary = text
        item.name = text
        item.details = ((text, text), (text, (text, text)))
    run = Run(phase=items[-1].phase, time=1.0, until=2.0, frames=(1, 2), encrypted=True)
    run.count((Side.DIALLER, text, 1), 3, 4)
    chart = attrs.evolve(
        chart,
        items=[*items, run],
        versions=dict.fromkeys(Side, text),
        addresses=dict.fromkeys(Side, text),
        findings=[attrs.evolve(finding, words=text, reference=text) for finding in chart.findings],
        opened=(text,),
    )
    for scale in ("even", "time"):
        svg = picture.draw([chart], scale=scale)
        root = ET.fromstring(svg)
        assert {node.tag for node in root.iter()} <= {
            f"{SVG}{tag}" for tag in "svg title desc style rect path circle g text tspan".split()
        }
        assert overlaps(svg) == []
        svg.encode()


def test_time_is_to_scale():
    show = Show()
    channel = show.open()
    show.ask(channel, Exec(b"cat"))
    waits = (0.1, 0.2, 0.4, 0.05, 0.3)
    for wait in waits:
        show.wait(wait).type(channel, b"x")
    svg = picture.draw([chart_of(tape(show))], scale="time", shortest=0)
    rows = [top for _, top, _, _, text in boxes(svg) if text == "CHANNEL_DATA  1 byte"]
    gaps = [after - before for before, after in itertools.pairwise(rows)]
    points = [(gap - 33) / wait for gap, wait in zip(gaps, waits[1:], strict=True)]  # 33 is the arrow's own
    assert max(points) - min(points) < 0.03 * max(points)
    assert min(points) > 0


def test_long_waits_are_cut_and_say_so():
    show = Show()
    channel = show.open()
    show.ask(channel, Exec(b"cat"))
    for wait in (0.01, 0.02, 86400.0, 0.03):
        show.wait(wait).type(channel, b"x")
    svg = picture.draw([chart_of(tape(show))], scale="time")
    assert "24:00:00, cut" in svg
    assert "broken lifelines are longer waits" in svg
    assert int(ET.fromstring(svg).get("height")) < 6000


def test_rows_are_in_the_order_of_time():
    for scale in ("even", "time"):
        svg = picture.draw([chart_of(tape(shell()))], scale=scale)
        stamps = [
            (top, float(text[:-2]))
            for left, top, right, _, text in boxes(svg)
            if right <= LEFT and re.fullmatch(r"[\d.]+ s", text)
        ]
        assert len(stamps) > 20
        assert stamps == sorted(stamps)


def test_silence_is_shown():
    assert "later" in picture.draw([chart_of(tape(shell()))], scale="even")


def test_rows_are_bounded_and_the_rest_is_counted():
    show = Show()
    for _ in range(60):
        show.exit(show.open())
    chart = chart_of(tape(show))
    svg = picture.draw([chart], rows=40)
    assert "rows in the middle are drawn as one" in svg
    assert svg.count("CHANNEL_OPEN_CONFIRMATION") < 60
    assert overlaps(svg) == []
    assert len([item for item in chart.items if isinstance(item, Step)]) > 300


def test_a_run_says_how_much_it_was():
    svg = picture.draw([chart_of(tape(rekeyed()))])
    text = " ".join(box[4] for box in boxes(svg))
    assert re.search(r"29 packets in 0\.28\d\d s", text)
    assert "CHANNEL_DATA, channel 0" in text


def test_a_limit_is_stated(plain):
    chart = attrs.evolve(plain, dropped=1234, limit=500)
    assert "1,234 packets are only counted" in picture.draw([chart])


def test_gaps_are_dashed():
    chart = chart_of(tape(command(), lost={12}))
    svg = picture.draw([chart])
    assert 'class="bad" stroke-dasharray' in svg
    assert any(item.kind is Kind.GAP for item in chart.items)


# ------------------------------------------------------------------------------------------------------------ lettering


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("room", [0, 5, 40, 500])
def test_fitted(text, room):
    line = fit(text, room, TEXT)
    assert width(line, TEXT) <= room
    ET.fromstring(f"<a b='{escaped(line)}'>{escaped(line)}</a>")
    lines = wrap(text, max(room, 40), TEXT, 3)
    assert len(lines) <= 3
    assert all(width(each, TEXT) <= max(room, 40) for each in lines)
    assert width(names((text, text), max(room, 40), TEXT), TEXT) <= max(room, 40)


def test_what_fits_stays():
    assert fit("as it is", 500, TEXT) == "as it is"
    assert wrap("as it is", 500, TEXT, 3) == ["as it is"]
    assert wrap("one two three", width("one two", TEXT), TEXT, 3) == ["one two", "three"]
    assert names(("a", "b", "c"), 500, TEXT) == "a, b, c"
    assert names(("aaaaaaaa",) * 5, width("aaaaaaaa, +4 more", TEXT), TEXT) == "aaaaaaaa, +4 more"


def test_bold_is_wider():
    assert width("KEXINIT", 13, bold=True) > width("KEXINIT", 13) > 40


def test_safe_keeps_letters():
    assert safe("Bär, 漢字 é") == "Bär, 漢字 é"
    assert safe("a\u202eb") == "a\\u202eb"


def test_times_in_words():
    assert clock(0.01234) == "0.0123 s"
    assert clock(12.345) == "12.35 s"
    assert clock(86400) == "24:00:00"
    assert date(0) == "1970-01-01 00:00:00 UTC"
    assert date(1e18) == ""
    assert [span(s) for s in (2.0, 0.05, 0.000002)] == ["2 s", "50 ms", "2 µs"]


def test_a_user_whose_name_is_markup():
    show = Show(client=ClientConfig(user="<b>&amp;", preferences=Preferences(), debug_raise=True))
    svg = picture.draw([chart_of(tape(show))])
    assert "<b>" not in svg
    assert any("<b>&amp;" in box[4] for box in boxes(svg))
