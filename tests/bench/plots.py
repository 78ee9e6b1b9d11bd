"""Plots of what was measured: bars, as SVG. Text is measured by a table of widths, so that nothing overlaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from sshproto.replay.picture.lettering import FONTS, escaped, width
from tests.bench import core, report, works
from tests.bench.report import Spread, figure

_TEXT, _SMALL, _HEAD = 12, 11, 14
_BAR, _STEP = 15, 23
_EDGE, _WIDE = 14, 540
_OURS = ("#0b5394", "#6fa8dc")
_FLOOR = ("#7f7f7f", "#bdbdbd")
_OTHERS = ("#8a5a00", "#e0b060")
_STYLE = f"text{{font-family:{FONTS};font-size:{_TEXT}px;fill:#222}}.s{{font-size:{_SMALL}px}}.h{{font-size:{_HEAD}px}}"


@attrs.frozen
class Bar:
    """One bar of a panel.

    Attributes:
        label: What it is.
        parts: What it is made of, from the left.
        most: How far it may go: the range is drawn as a line from ``least``.
        ink: The colours of its parts.
    """

    label: str
    parts: Sequence[float]
    least: float
    most: float
    ink: tuple[str, str]


@attrs.frozen
class Panel:
    """Bars that can be compared."""

    title: str
    unit: str
    bars: Sequence[Bar]

    @property
    def height(self) -> float:
        return 46 + _STEP * len(self.bars)


def _text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escaped(words)}</text>'


def _panel(panel: Panel, left: float, top: float) -> list[str]:
    labels = max(width(bar.label, _TEXT) for bar in panel.bars) + 8
    values = max(width(figure(sum(bar.parts)), _SMALL) for bar in panel.bars) + 8
    room = _WIDE - labels - values - 8
    scale = room / (max(max(bar.most, sum(bar.parts)) for bar in panel.bars) or 1)
    done = [
        _text(left, top + 16, panel.title, "h"),
        _text(left + _WIDE, top + 16, panel.unit, "s", "end"),
    ]
    y = top + 30
    for bar in panel.bars:
        middle = y + _BAR / 2
        done.append(_text(left + labels - 8, middle + 4, bar.label, "", "end"))
        x = left + labels
        for part, ink in zip(bar.parts, bar.ink, strict=False):
            done.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(part * scale, 0):.1f}" height="{_BAR}" fill="{ink}"/>'
            )
            x += part * scale
        if bar.most > bar.least:
            start, stop = (left + labels + each * scale for each in (bar.least, bar.most))
            done.append(
                f'<path d="M{start:.1f} {middle:.1f}H{stop:.1f}m0 -4v8M{start:.1f} {middle - 4:.1f}v8" stroke="#222"/>'
            )
            x = max(x, stop)
        done.append(_text(x + 6, middle + 4, figure(sum(bar.parts)), "s"))
        y += _STEP
    return done


def bars(title: str, legend: str, panels: Sequence[Panel]) -> str:
    """A whole drawing: panels in two columns."""
    columns = min(2, len(panels))
    total = 2 * _EDGE + columns * _WIDE + (columns - 1) * 2 * _EDGE
    done, y = [], 44.0
    for start in range(0, len(panels), columns):
        row = panels[start : start + columns]
        for place, panel in enumerate(row):
            done += _panel(panel, _EDGE + place * (_WIDE + 2 * _EDGE), y)
        y += max(panel.height for panel in row)
    size = f'width="{total}" height="{y:.0f}" viewBox="0 0 {total} {y:.0f}"'
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escaped(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{total}" height="{y:.0f}" fill="#fff"/>',
        _text(_EDGE, 26, legend, "s"),
        *done,
        "</svg>",
        "",
    ))  # fmt: skip


def _ink(name: str) -> tuple[str, str]:
    if name.startswith(("floor", "script", "python")):
        return _FLOOR
    name = name.removesuffix("-loaded")
    return (
        _OURS if name in {"sshproto", "asyncio", "blocking", "trio", "asyncio-openssh", "openssh-asyncio"} else _OTHERS
    )


def _bar(name: str, figures: Mapping[str, Sequence[float]], first: str) -> Bar:
    spread = Spread.of(figures[first])
    label = report.shown(name).replace("*", "")
    if first != "both":
        return Bar(label, [spread.median], spread.least, spread.most, _ink(name))
    client, server = (Spread.of(figures[side]).median for side in ("client", "server"))
    share = spread.median / ((client + server) or 1)  # medians of parts do not add up to that of the whole
    return Bar(label, [client * share, server * share], spread.least, spread.most, _ink(name))


_ENDS = "Less is better. The dark part is the client's, the light part the server's; lines are from least to most."
_ONE = "Less is better; lines are from least to most."
_DRAWINGS = {
    "bulk": ("Bulk data", _ENDS),
    "connect": ("Connections", _ENDS),
    "exec": ("Commands", _ENDS),
    "memory": ("Memory", _ONE),
    "import": ("Import", _ONE),
}


def draw(found: dict[str, Any]) -> dict[str, str]:
    """All plots, by name."""
    panels: dict[str, list[Panel]] = {}
    for name, samples in found["works"].items():
        work = works.BY_NAME[name]
        first = work.figures[0]
        lines = [_bar(each, samples[each], first) for each in sorted(samples, key=report.ORDER.index)]
        unit = f"{first}, {work.unit}" if work.group == "import" else work.unit
        panels.setdefault(work.group.removesuffix("50"), []).append(Panel(work.title, unit, lines))
    done = {group: bars(*_DRAWINGS[group], each) for group, each in panels.items()}
    if "core" in found:
        done["core"] = bars(
            "The core alone",
            "Microseconds a packet, less is better; below each the floor: one AEAD call, and the framing.",
            list(_packets(found["core"]["packets"])),
        )
    return done


def _packets(rows: Mapping[str, core.Figures]) -> list[Panel]:
    found = []
    for way in ("sent", "received"):
        lines = []
        for row, figures in rows.items():
            for name, label, ink in ((way, row, _OURS), (f"floor, {way}", "floor", _FLOOR)):
                spread = Spread.of(figures[name])
                lines.append(Bar(label, [spread.median], spread.least, spread.most, ink))
        found.append(Panel(f"A packet {way}", "µs", lines))
    return found
