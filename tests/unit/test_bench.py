"""What the bench makes of its measurements: medians, ratios, tables, plots. Nothing is measured here."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.bench import core, pairs, plots, report, works
from tests.bench.ends import BLOCK, pieces
from tests.bench.ends.floor import CIPHERS, DATA, LARGE, Wire
from tests.bench.report import Spread, compared, figure, of_work, ratio, summary, table

DOWNLOAD = works.BY_NAME["download-aes128-gcm"]


def figures(*both):
    return {"both": list(both), "client": list(both), "server": list(both), "rate": [100.0] * len(both)}


SAMPLES = {"asyncio": figures(1.0, 2.0, 6.0), "asyncssh": figures(4.0, 4.0, 4.0), "floor": figures(0.5, 0.5, 0.5)}
FOUND = {
    "machine": {"processor": "a processor", "cores": 2, "system": "a system", "load before": 0.1},
    "versions": {"sshproto": "1", "Python": "3"},
    "runs": 3,
    "works": {DOWNLOAD.name: SAMPLES},
    "core": {
        "packets": {"aes128-gcm, 64 B": {n: [1.0] for n in ("sent", "received", "floor, sent", "floor, received")}}
    },
}


def test_figures_have_three_digits_that_count():
    assert [figure(value) for value in (0.123, 1.239, 9.96, 99.6, 1234.5)] == ["0.12", "1.24", "10.0", "100", "1234"]


def test_a_spread_is_the_median_and_the_range():
    assert str(Spread.of([3.0, 1.0, 2.0])) == "2.00 [1.00–3.00]"
    assert str(Spread.of([3.0])) == "3.00"


def test_ratios_are_taken_run_by_run():
    assert ratio([1, 10, 3], [2, 5, 3]) == Spread(1.0, 0.5, 2.0)
    assert ratio([1, 10], [0, 5]) == Spread(2.0, 2.0, 2.0)
    assert ratio([1], [0]) is None


def test_a_table_is_straight():
    lines = table(["", "a"], [["one", "1"], ["two", "22"]]).splitlines()
    assert lines == ["|     |  a |", "| --- | -: |", "| one |  1 |", "| two | 22 |"]


def test_the_table_of_a_work():
    text = of_work(DOWNLOAD, SAMPLES)
    line = next(line for line in text.splitlines() if "sshproto_io.asyncio" in line)
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[1] == "2.00 [1.00–6.00]"
    assert cells[-2:] == ["0.50 [0.25–1.50] of asyncssh", "4.00"]


def test_the_summary_knows_the_goals():
    assert "| yes |" in summary({DOWNLOAD.name: SAMPLES})
    slow = {**SAMPLES, "asyncio": figures(3.0, 3.0, 3.0)}
    assert "**no**" in summary({DOWNLOAD.name: slow})
    assert summary({DOWNLOAD.name: {"asyncio": figures(1.0)}}) == ""


def test_two_runs_are_compared():
    new = {DOWNLOAD.name: {**SAMPLES, "asyncio": figures(0.5, 0.5, 0.5)}}
    (line,) = [line for line in compared(FOUND["works"], new).splitlines() if ": asyncio" in line]
    assert "-75 %" in line
    assert "apart" in line
    assert "0.50 → 0.12" in line


def test_plots_are_xml_and_have_all_pairs():
    drawings = plots.draw(FOUND)
    assert set(drawings) == {"bulk", "core"}
    for drawing in drawings.values():
        ET.fromstring(drawing)
    assert all(name in drawings["bulk"] for name in ("sshproto_io.asyncio", "asyncssh", "the floor"))


def test_tables_of_the_core():
    ((title, text),) = core.tables(FOUND["core"])
    assert "microseconds" in title
    assert "aes128-gcm, 64 B" in text


def test_a_work_is_chosen_by_its_name_its_group_or_its_job():
    assert works.chosen([]) == list(works.WORKS)
    assert len(works.chosen(["bulk"])) == 6
    assert [work.name for work in works.chosen(["download-chacha20"])] == ["download-chacha20"]
    assert {work.job for work in works.chosen(["upload", "exec"])} == {"upload", "exec"}


def test_everybody_named_exists():
    for pair in pairs.PAIRS:
        assert {pair.client, pair.server} <= set(pairs.KINDS)
        assert {pair.beside, pair.floor} <= set(pairs.BY_NAME)
    assert set(pairs.SHOWN) <= set(pairs.BY_NAME)
    assert set(report.ORDER) >= set(pairs.BY_NAME)


def test_pieces_are_as_long_as_they_should_be():
    assert [len(piece) for piece in pieces(2 * len(BLOCK) + 5)] == [len(BLOCK), len(BLOCK), 5]


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("cut", [3, 1000, 1 << 20])
def test_the_floor_opens_what_it_seals(cipher, cut):
    here, there = Wire(cipher), Wire(cipher)
    wire = bytes(here.packets(b"D", 40, 3) + here.packets(DATA, LARGE))
    kinds = []
    for start in range(0, len(wire), cut):
        piece = wire[start : start + cut]
        there.space()[: len(piece)] = piece
        kinds += [bytes(packet[:1]) for packet in there.took(len(piece))]
    assert kinds == [b"D"] * 4
