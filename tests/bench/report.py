"""Medians, ranges, ratios, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import attrs


@attrs.frozen
class Spread:
    """Several measurements of one thing."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{figure(self.median)} [{figure(self.least)}–{figure(self.most)}]"


def figure(value: float) -> str:
    """With three digits that count."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def ratio(values: Sequence[float], others: Sequence[float]) -> Spread | None:
    """How many times as much, run by run; None if there are no runs to compare."""
    pairs = [(value, other) for value, other in zip(values, others, strict=False) if other > 0]
    return Spread.of([value / other for value, other in pairs]) if pairs else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, with columns that are also straight in a terminal."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        done = [
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(done)} |"

    rule = ["-" * width if not place else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join((line(head), line(rule), *map(line, rows)))


Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""Of one work: by pair, by figure, one for each run."""
