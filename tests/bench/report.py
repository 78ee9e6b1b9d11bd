"""Medians, ranges, ratios, and tables of them in Markdown, which are also straight in a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from tests.bench import imports, pairs, works
from tests.bench.works import HEADS, Work

Figures = Mapping[str, Sequence[float]]
"""What was measured, by figure, one for each run."""

Samples = Mapping[str, Figures]
"""Those of one work, by pair."""

ORDER = ["python", "sshproto", *(each for name in pairs.BY_NAME for each in (name, f"{name}-loaded"))]


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
        if self.least == self.most:
            return figure(self.median)
        return f"{figure(self.median)} [{figure(self.least)}–{figure(self.most)}]"


def figure(value: float) -> str:
    """With three digits that count, and not more."""
    size = abs(value)
    return f"{value:.0f}" if size >= 99.5 else f"{value:.1f}" if size >= 9.95 else f"{value:.2f}"


def ratio(values: Sequence[float], others: Sequence[float]) -> Spread | None:
    """How many times as much, run by run, as they were interleaved; None if there is nothing to compare."""
    both = [(value, other) for value, other in zip(values, others, strict=False) if other > 0]
    return Spread.of([value / other for value, other in both]) if both else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; the first column is words."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        done = (
            f"{cell:<{width}}" if not place else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(done)} |"

    rule = ("-" * width if not place else "-" * (width - 1) + ":" for place, width in enumerate(widths))
    return "\n".join((line(head), line(list(rule)), *map(line, rows)))


def shown(name: str) -> str:
    return {**pairs.SHOWN, **imports.SHOWN}.get(name, name)


def _beside(name: str) -> str:
    pair = pairs.BY_NAME.get(name.removesuffix("-loaded"))
    found = pair.beside if pair is not None else "asyncssh"
    return f"{found}-loaded" if name.endswith("-loaded") and found in imports.FACES else found


def _floor(name: str) -> str:
    pair = pairs.BY_NAME.get(name.removesuffix("-loaded"))
    return pair.floor if pair is not None else "floor"


def _ratio(samples: Samples, name: str, other: str, which: str) -> Spread | None:
    if other == name or other not in samples or name not in samples:
        return None
    return ratio(samples[name][which], samples[other][which])


def of_work(work: Work, samples: Samples) -> str:
    """The table of one work."""
    first = work.figures[0]
    rows = []
    for name in sorted(samples, key=ORDER.index):
        figures = samples[name]
        beside = _ratio(samples, name, _beside(name), first)
        above = _ratio(samples, name, _floor(name), first)
        rows.append(
            [
                shown(name),
                *(str(Spread.of(figures[each])) for each in work.figures),
                f"{beside} of {_beside(name)}" if beside else "",
                figure(above.median) if above and not name.startswith("floor") else "",
            ]
        )
    return table([work.unit, *(HEADS[each] for each in work.figures), "ratio", "× floor"], rows)


_SUMMARY = ("floor", "script", "asyncio", "asyncssh", "openssh", "go", "node")
_FACES = (("blocking", "paramiko", 0.50), ("trio", "asyncio", 1.25))
"""A face, whom it is compared with, and what it may be as a ratio to them."""


def summary(found: Mapping[str, Samples]) -> str:
    """The asyncio face beside asyncssh and the goals, a line for each work; then the other faces."""
    goals = {name: works.BY_NAME[name].goal for name in found}
    whose = [who for who in _SUMMARY if any(who in samples for samples in found.values())]
    parts = [_goals(found, "asyncio", "asyncssh", whose, goals)]
    parts += [_goals(found, face, other, (face, other), dict.fromkeys(found, goal)) for face, other, goal in _FACES]
    return "\n\n".join(filter(None, parts))


def _goals(
    found: Mapping[str, Samples], face: str, other: str, whose: Sequence[str], goals: Mapping[str, float]
) -> str:
    """A face, and whether it has reached its goals, in medians; empty if it was not measured beside the other."""
    rows = []
    for name, samples in found.items():
        work = works.BY_NAME[name]
        first = work.figures[0]
        got = _ratio(samples, face, other, first)
        if got is None:
            continue
        above = _ratio(samples, face, _floor(face), first)
        medians = [figure(Spread.of(samples[who][first]).median) if who in samples else "" for who in whose]
        met = "yes" if got.median <= goals[name] else "**no**"
        cells = [*medians, str(got), f"{goals[name]:.2f}", met, figure(above.median) if above else ""]
        rows.append([f"{work.title}, {work.unit}", *cells])
    head = ["", *whose, f"{face} to {other}", "goal", "met", "× floor"]
    return table(head, rows) if rows else ""


def compared(old: Mapping[str, Samples], new: Mapping[str, Samples]) -> str:
    """What has changed between two runs of the bench, in medians and in the ratio to whom each is compared with."""
    rows = []
    for name, samples in new.items():
        work = works.BY_NAME[name]
        first = work.figures[0]
        for who in sorted(set(samples) & set(old.get(name, {})), key=ORDER.index):
            before, after = (Spread.of(each[who][first]) for each in (old[name], samples))
            change = f"{(after.median / before.median - 1) * 100:+.0f} %" if before.median else ""
            apart = "" if after.least <= before.most and before.least <= after.most else "apart"
            ratios = [_ratio(each, who, _beside(who), first) for each in (old[name], samples)]
            both = " → ".join(figure(each.median) for each in ratios if each)
            rows.append([f"{work.title}, {work.unit}: {who}", str(before), str(after), change, apart, both])
    return table(["", "before", "now", "change", "ranges", "ratio"], rows)


def setting(found: Mapping[str, Any]) -> str:
    """Where and with what it was measured."""
    machine, versions = found["machine"], found["versions"]
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, "
        f"with a load of {machine['load before']} before it began.\n"
        f"{named}.\n"
        f"{found['runs']} runs of each, in turn; medians [least–most]. CPU is user and system time of both processes."
    )
