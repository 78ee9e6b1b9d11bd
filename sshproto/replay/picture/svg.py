"""A connection as a sequence diagram: SVG, two lifelines, and an arrow for each thing that was said.

Everything is measured before it is drawn (:mod:`~sshproto.replay.picture.lettering`), so that nothing overlaps and
nothing runs out of its room; the same connection always gives the same picture, byte for byte.  All text is escaped:
what peers say can't become markup.  Colours say nothing that is not said otherwise, too, for those who print in grey.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sshproto.replay.events import Side
from sshproto.replay.findings import Severity
from sshproto.replay.picture.drawing import (
    BADGES,
    EDGE,
    HEAD,
    INKS,
    LEFT,
    LINE,
    RIGHT,
    SEVERITIES,
    SIZES,
    SMALL,
    TEXT,
    WIDTH,
    Canvas,
    Scale,
    clock,
    count,
    date,
    framed,
    legend,
    number,
    span,
)
from sshproto.replay.picture.lettering import escaped, fit, names, safe, width, wrap
from sshproto.replay.picture.steps import SEALED, SHORTEST, Chart, Item, Kind, Phase, Run, Step, folded, joined
from sshproto.values import define

ROWS = 600
"""So many rows are drawn of one connection at most; of more the middle is left out, and counted."""

_DETAILS = 9
_BELOW = 8
_PAUSE = 1.0
"""Seconds in which nobody says anything and which are shown where rows are spaced evenly."""

_STRETCH = 220.0
"""The most room that time takes between two rows; a longer wait is cut, and says so."""


def draw(charts: Sequence[Chart], *, scale: Scale = "even", shortest: int = SHORTEST, rows: int = ROWS) -> str:
    """The picture of connections, one below the other.

    Args:
        charts: What is drawn.
        scale: ``"even"``, or ``"time"``: the room between two arrows, beyond what their words take, is proportional to
            the time between them.
        shortest: Runs of so many packets of data are drawn as one; 0 draws every packet.
        rows: So many rows at most for each.

    Returns:
        A whole SVG document.
    """
    canvas = Canvas()
    for place, chart in enumerate(charts):
        canvas.y += 40 if place else 0
        _Diagram(canvas, chart, scale, shortest, max(rows, 10)).draw()
    legend(canvas, scale)
    return canvas.document(_title(charts), _description(charts))


def _title(charts: Sequence[Chart]) -> str:
    if len(charts) != 1:
        return f"{len(charts)} SSH connections"
    chart = charts[0]
    client, server = (chart.addresses[side] for side in (chart.client, chart.client.other))
    return f"SSH connection {chart.number}: {client} to {server}"


def _description(charts: Sequence[Chart]) -> str:
    said = "; ".join(
        f"connection {chart.number}: {count(chart.packets, 'packet')}, {count(len(chart.findings), 'finding')}"
        for chart in charts
    )
    return f"A sequence diagram of what client and server sent, in the order of time. {said}"


@define
class _Row:
    """A row before it is drawn: how high it is, and what draws it at a height."""

    item: Item | None
    phase: Phase
    time: float | None
    height: float
    paint: Callable[[float], None]


class _Diagram:
    """Draws one connection."""

    def __init__(self, canvas: Canvas, chart: Chart, scale: Scale, shortest: int, rows: int) -> None:
        self.canvas = canvas
        self.chart = chart
        self._scale = scale
        self._left_out = 0
        items = folded(chart.items, shortest=shortest)
        if len(items) > rows:
            head, tail = rows * 2 // 3, rows - rows * 2 // 3 - 1
            middle = items[head : len(items) - tail]
            self._left_out = len(middle)
            items = [*items[:head], joined(middle), *items[len(items) - tail :]]
        self._items = items
        self._start = next((item.time for item in items if item.time is not None), 0.0)
        self._crypt: dict[Side, float] = {}
        self._rails: list[tuple[Side, float, float, bool]] = []

    def draw(self) -> None:
        self._heading()
        top = self.canvas.y
        rows = self._rows()
        bottom = self._place(rows)
        self._lifelines(top, bottom)
        self.canvas.y = bottom + 8
        self._remarks()
        self._findings()

    # ------------------------------------------------------------------------------------------------------------- head

    def _heading(self) -> None:
        canvas, chart = self.canvas, self.chart
        y = canvas.y + 20
        canvas.text(EDGE, y, [(f"SSH connection {chart.number}", "b")], size=20)
        facts = [
            date(chart.start),
            clock(max(chart.until - chart.start, 0)),
            count(chart.packets, "packet"),
            count(chart.size, "byte"),
        ]
        text = fit("  ·  ".join(fact for fact in facts if fact), 700, TEXT)
        canvas.text(WIDTH - EDGE, y, [(text, "q")], end=True)
        opened = f"opened with: {'; '.join(chart.opened)}" if chart.opened else ""
        if not chart.sure:
            opened = (
                f"{opened}  ·  " * bool(opened) + "who is the client is not certain: the key exchange does not show it"
            )
        y += 20 * bool(opened)
        canvas.text(EDGE, y, [(fit(opened, WIDTH - 2 * EDGE, SMALL), "q")], size=SMALL)
        y += 16
        for side in (chart.client, chart.client.other):
            self._card(side, y)
        canvas.y = y + 58

    def _card(self, side: Side, y: float) -> None:
        canvas, chart = self.canvas, self.chart
        client = side is chart.client
        wide = 450
        x = LEFT - 100 if client else RIGHT + 100 - wide
        canvas.shape(
            f'<rect x="{x}" y="{number(y)}" width="{wide}" height="50" rx="8" fill="#f5f7f9" stroke="#52616f"/>'
        )
        version = chart.versions.get(side, "no identification was recorded")
        name = "Client" if client else "Server"
        room = wide - 24 - width(f"{name}  ", HEAD, bold=True)
        canvas.text(
            x + 12 if client else x + wide - 12, y + 21,
            [(name, "b h"), ("  ", ""), (fit(version, room, TEXT), "")],
            end=not client,
        )  # fmt: skip
        address = fit(
            f"{chart.addresses[side]}, has {'dialled' if side is Side.DIALLER else 'answered'}", wide - 24, 12
        )
        canvas.text(x + 12 if client else x + wide - 12, y + 40, [(address, "q s")], end=not client, size=SMALL)

    # ------------------------------------------------------------------------------------------------------------- rows

    def _rows(self) -> list[_Row]:
        rows: list[_Row] = []
        phase: Phase | None = None
        seen: set[Phase] = set()
        before: float | None = None
        for item in self._items:
            if self._scale == "even" and before is not None and item.time is not None:
                pause = item.time - before
                if pause >= _PAUSE:
                    rows.append(self._pause(pause, phase or item.phase))
            if item.phase is not phase:
                phase = item.phase
                rows.append(self._band(phase, item.time, again=phase in seen))
                seen.add(phase)
            if isinstance(item, Run):
                rows.append(self._run(item))
                before = item.until if item.until is not None else before
            else:
                rows.append(self._step(item))
                before = item.time if item.time is not None else before
        return rows

    def _place(self, rows: list[_Row]) -> float:
        """Give every row its height; the phases' bands behind them."""
        canvas = self.canvas
        y = canvas.y
        extra = self._stretches(rows) if self._scale == "time" else [(0.0, 0.0)] * len(rows)
        start, phase = y, None
        for row, (room, cut) in zip(rows, extra, strict=True):
            if row.phase is not phase:
                y += _BELOW if phase is not None else 0
                self._fill(phase, start, y)
                start, phase = y, row.phase
            if cut:
                self._break(y + room / 2)
                self._centred(f"{clock(cut)}, cut", y + room / 2 + 4)
            y += room
            row.paint(y)
            y += row.height
        y += _BELOW
        self._fill(phase, start, y)
        return y

    def _fill(self, phase: Phase | None, start: float, stop: float) -> None:
        if phase is None:
            return
        band, edge = INKS[phase]
        at = f'y="{number(start)}" height="{number(stop - start)}"'
        wide = WIDTH - 2 * EDGE
        self.canvas.shape(f'<rect x="{EDGE}" {at} width="{wide}" fill="{band}"/>', behind=True)
        self.canvas.shape(f'<rect x="{EDGE}" {at} width="5" fill="{edge}"/>', behind=True)

    def _stretches(self, rows: list[_Row]) -> list[tuple[float, float]]:
        """Room before each row in proportion to time; and of waits that had to be cut how long they were, else 0."""
        waits: list[float] = []
        now: float | None = None
        for row in rows:
            waits.append(max(row.time - now, 0.0) if row.time is not None and now is not None else 0.0)
            until = row.item.until if isinstance(row.item, Run) else row.time
            now = until if until is not None else now
        some = sorted(wait for wait in waits if wait > 0)
        budget = max(400.0, 16.0 * len(rows))
        factor = _fair(some, budget)
        self._factor = factor
        return [(min(wait * factor, _STRETCH), wait if wait * factor > _STRETCH * 1.0001 else 0.0) for wait in waits]

    def _break(self, y: float) -> None:
        """Both lifelines are broken: time was cut out here."""
        for x in (LEFT, RIGHT):
            self.canvas.shape(
                f'<path d="M{x - 9} {number(y + 3)}l6 -8 6 8 6 -8" stroke="#16202b" stroke-width="1.5" fill="none"/>'
            )

    def _centred(self, text: str, y: float) -> None:
        middle = (LEFT + RIGHT - width(text, SMALL)) / 2
        self.canvas.text(middle, y, [(text, "q s")], size=SMALL)

    def _band(self, phase: Phase, time: float | None, *, again: bool) -> _Row:
        def paint(y: float) -> None:
            self.canvas.text(EDGE + 14, y + 19, [(phase.title, "b")])
            source = "continued" if again else phase.reference
            self.canvas.text(WIDTH - EDGE - 10, y + 19, [(source, "q s")], size=SMALL, end=True)

        return _Row(None, phase, time, 28, paint)

    def _pause(self, seconds: float, phase: Phase) -> _Row:
        def paint(y: float) -> None:
            self._break(y + 11)
            self._centred(f"{clock(seconds)} later", y + 15)

        return _Row(None, phase, None, 24, paint)

    # ------------------------------------------------------------------------------------------------------------ steps

    def _step(self, step: Step) -> _Row:
        match step.kind:
            case Kind.NOTE:
                return self._note(step)
            case Kind.GAP | Kind.PROBLEM | Kind.END:
                return self._stub(step)
            case _:
                return self._arrow(step)

    def _time(self, time: float | None, y: float) -> None:
        if time is not None:
            self.canvas.text(LEFT - 20, y, [(clock(time - self._start), "q s")], size=SMALL, end=True)

    def _marks(self, marks: Sequence[int], y: float) -> None:
        for place, mark in enumerate(marks[:4]):
            self._badge(BADGES + 21 * place, y, mark)

    def _badge(self, x: float, y: float, mark: int) -> None:
        text = str(mark + 1)
        ink = SEVERITIES[self.chart.findings[mark].severity]
        self.canvas.shape(f'<circle cx="{number(x)}" cy="{number(y)}" r="9.5" fill="{ink}"/>')
        half = width(text, SMALL, bold=True) / 2
        self.canvas.text(x - half, y + 4, [(text, "b w")], size=SMALL)

    def _details(self, step: Step, room: float) -> list[tuple[str, str]]:
        """Label and value of each line below a step."""
        done: list[tuple[str, str]] = []
        shown = step.details[:_DETAILS]
        column = max((width(safe(label[:60]), SMALL) for label, _ in shown), default=0) + 14
        for label, value in shown:
            rest = room - column
            line = names(value, rest, SMALL) if isinstance(value, tuple) else fit(value, rest, SMALL)
            done.append((fit(label, 200, SMALL), line))
        if len(step.details) > len(shown):
            done.append(("", f"and {len(step.details) - len(shown)} more"))
        return done

    def _lines(self, lines: list[tuple[str, str]], x: float, y: float) -> None:
        column = max((width(label, SMALL) for label, _ in lines), default=0) + 14
        for place, (label, value) in enumerate(lines):
            at = y + LINE * place
            self.canvas.text(x, at, [(label, "q s")], size=SMALL)
            self.canvas.text(x + column, at, [(value, "s")], size=SMALL)

    @staticmethod
    def _breadth(lines: list[tuple[str, str]]) -> float:
        if not lines:
            return 0
        column = max(width(label, SMALL) for label, _ in lines) + 14
        return column + max(width(value, SMALL) for _, value in lines)

    def _arrow(self, step: Step) -> _Row:
        lines = self._details(step, RIGHT - LEFT - 60)

        def paint(y: float) -> None:
            canvas, client = self.canvas, step.side is self.chart.client
            canvas.shape(f"<g><title>{escaped(self._tip(step))}</title>")
            line = y + 25
            self._shaft(line, client=client, encrypted=step.encrypted)
            room: float = RIGHT - LEFT - 44
            name = fit(step.name, room, TEXT, bold=True)
            channel = self._channel(step)
            room -= width(f"{name}   ", TEXT, bold=True) + width(channel, SMALL)
            rest = fit(step.summary, room, TEXT)
            style = "b badtext" if self._serious(step) else "b"
            x = LEFT + 18 if client else RIGHT - 18
            canvas.text(
                x, y + 18, [(name, style), ("  " if rest else "", ""), (rest, ""), (channel, "q s")], end=not client
            )
            self._time(step.time, line + 4)
            canvas.text(SIZES, line + 4, [(f"{step.size:,} B", "q s")], size=SMALL)
            self._marks(step.marks, line)
            at = LEFT + 18 if client else max(LEFT + 18, RIGHT - 18 - self._breadth(lines))
            self._lines(lines, at, y + 42)
            canvas.shape("</g>")

        return _Row(step, step.phase, step.time, 33 + LINE * len(lines) + 4 * bool(lines), paint)

    def _channel(self, step: Step) -> str:
        """Which channel it is about, if there are several."""
        return f"  channel {step.channel}" if step.channel is not None and len(self.chart.channels) > 1 else ""

    def _serious(self, step: Step) -> bool:
        grave = (Severity.CRITICAL, Severity.HIGH)
        return any(self.chart.findings[mark].severity in grave for mark in step.marks)

    def _shaft(self, y: float, *, client: bool, encrypted: bool) -> None:
        style = "crypt" if encrypted else "clear"
        start, stop = (LEFT + 7, RIGHT - 16) if client else (RIGHT - 7, LEFT + 16)
        self.canvas.shape(f'<path class="{style}" d="M{start} {number(y)}H{stop}"/>')
        tip = f"M{RIGHT - 6} {number(y)}l-11 -5v10z" if client else f"M{LEFT + 6} {number(y)}l11 -5v10z"
        self.canvas.shape(f'<path class="{style}head" d="{tip}"/>')

    def _tip(self, step: Step) -> str:
        """All of a step in words, for who points at it."""
        role = self.chart.role(step.side or self.chart.client)
        parts = [
            f"{step.name}, {role.value} to {role.peer.value}",
            safe(step.summary[:500]),
            framed(step.frames),
            f"message {step.number}" if step.number is not None else "",
            f"packet {step.sequence_number}" if step.sequence_number is not None else "",
            f"channel {step.channel}" if step.channel is not None else "",
            f"integrity {step.integrity.value}" if step.integrity is not None else "",
        ]
        return "\n".join(safe(part) for part in parts if part)

    def _note(self, step: Step) -> _Row:
        room = 560
        head = step.summary.partition(": ")[0] if step.details else step.summary
        title = fit(head, room - 40, TEXT, bold=True)
        lines = self._details(step, room - 28)
        wide = max(width(title, TEXT, bold=True) + (40 if step.side else 24), self._breadth(lines) + 28, 160)
        high = 28 + LINE * len(lines) + 4 * bool(lines)

        def paint(y: float) -> None:
            canvas, side = self.canvas, step.side
            if side is None:
                x = (LEFT + RIGHT - wide) / 2
            else:
                x = LEFT + 18 if side is self.chart.client else RIGHT - 18 - wide
                self._crypt.setdefault(side, y + 4)
            canvas.shape(
                f'<rect x="{number(x)}" y="{number(y + 4)}" width="{number(wide)}" height="{number(high)}" rx="5"'
                f' fill="#fff" fill-opacity="0.85" stroke="{"#0b6b4b" if side else "#52616f"}"/>'
            )
            if side is not None:
                canvas.lock(x + 16, y + 24)
            canvas.text(x + (28 if side else 12), y + 22, [(title, "b")])
            self._lines(lines, x + 14, y + 40)

        return _Row(step, step.phase, step.time, high + 10, paint)

    def _stub(self, step: Step) -> _Row:
        """What is no message: bytes that are missing, problems, the end."""
        bad = step.kind is not Kind.END
        room = RIGHT - LEFT - 110
        words = wrap(f"{step.name}: {step.summary}" if bad else step.name, room, TEXT, 3)

        def paint(y: float) -> None:
            canvas, client = self.canvas, step.side is self.chart.client
            line = y + 16
            start, stop = (LEFT, LEFT + 44) if client else (RIGHT, RIGHT - 44)
            style = "bad" if bad else "clear"
            canvas.shape(f'<path class="{style}" stroke-dasharray="5 4" d="M{start} {line:.1f}H{stop}"/>')
            x = LEFT + 56 if client else RIGHT - 56
            if bad:
                canvas.shape(f'<path class="bad" d="M{stop - 5} {line - 5:.1f}l10 10m0 -10l-10 10"/>')
            else:
                canvas.shape(f'<path class="clear" d="M{stop} {line - 6:.1f}v12"/>')
            for place, text in enumerate(words):
                canvas.text(x, line + 4 + LINE * place, [(text, "badtext" if bad else "q")], end=not client)
            self._time(step.time, line + 4)
            if step.size:
                canvas.text(SIZES, line + 4, [(f"{step.size:,} B", "q s")], size=SMALL)

        return _Row(step, step.phase, step.time, 26 + LINE * (len(words) - 1), paint)

    def _run(self, run: Run) -> _Row:
        chart = self.chart
        sides = [side for side in (chart.client, chart.client.other) if run.totals(side)[0]]
        unit = "packet" if run.exact else "piece"
        kinds = sorted(run.counts.items(), key=lambda pair: (-pair[1][1], str(pair[0][1]), str(pair[0][2])))
        lines = [self._kind(counted, *counts) for counted, counts in kinds[:6] if not counted[1].startswith(SEALED)]
        if len(kinds) > 6:
            lines.append(("", f"and {len(kinds) - 6} more kinds"))
        lasted = run.until - run.time if run.time is not None and run.until is not None else 0.0
        head = f"{count(run.packets, unit)} in {clock(lasted)}"
        high = 26 + 30 * len(sides) + LINE * len(lines) + 4

        def paint(y: float) -> None:
            canvas = self.canvas
            canvas.shape(f"<g><title>{escaped(f'{head}, {framed(run.frames)}')}</title>")
            for inset in (3, 0):
                canvas.shape(
                    f'<rect x="{LEFT + 30 + inset}" y="{number(y + 5 + inset)}" width="{RIGHT - LEFT - 60}"'
                    f' height="{number(high)}" rx="5" fill="#fff" fill-opacity="0.9" stroke="#52616f"'
                    ' stroke-dasharray="4 3"/>'
                )
            canvas.text(LEFT + 44, y + 23, [(head, "b")])
            at = y + 28
            for side in sides:
                client = side is chart.client
                packets, size = run.totals(side)
                self._shaft(at + 20, client=client, encrypted=run.encrypted)
                text = f"{count(packets, unit)}, {count(size, 'byte')}"
                canvas.text(LEFT + 44 if client else RIGHT - 44, at + 14, [(text, "")], end=not client)
                at += 30
            self._lines(lines, LEFT + 44, at + 14)
            self._time(run.time, y + 23)
            size = sum(size for _, size in run.counts.values())
            canvas.text(SIZES, y + 23, [(f"{size:,} B", "q s")], size=SMALL)
            canvas.shape("</g>")

        return _Row(run, run.phase, run.time, high + 14, paint)

    def _kind(self, counted: tuple[Side | None, str, int | None], packets: int, size: int) -> tuple[str, str]:
        side, name, channel = counted
        role = self.chart.role(side) if side is not None else None
        where = f", channel {channel}" if channel is not None else ""
        label = fit(f"{name}{where}", 300, SMALL)
        who = f"{role.value} " if role is not None else ""
        return label, f"{who}{count(packets, 'packet')}, {count(size, 'byte')}"

    # ------------------------------------------------------------------------------------------------------------- foot

    def _lifelines(self, top: float, bottom: float) -> None:
        for side in Side:
            x = LEFT if side is self.chart.client else RIGHT
            turn = self._crypt.get(side, bottom)
            line = f'<path class="clear" d="M{x} {number(top - 8)}V{number(turn)}"/>'
            self.canvas.shape(line, behind=True)
            if turn < bottom:
                self.canvas.shape(
                    f'<rect x="{x - 4}" y="{number(turn)}" width="8" height="{number(bottom - turn)}" rx="2"'
                    ' fill="#bfe0d2" stroke="#0b6b4b"/>',
                    behind=True,
                )

    def _remarks(self) -> None:
        """What is not in the picture."""
        chart, canvas = self.chart, self.canvas
        said: list[str] = []
        if self._left_out:
            said.append(f"{self._left_out:,} rows in the middle are drawn as one: a picture has no room for them.")
        if chart.dropped:
            said.append(
                f"{chart.dropped:,} packets are only counted, in runs: {chart.limit:,} are kept one by one at most."
            )
        if self._scale == "time" and self._factor > 0:
            said.append(f"Room is time: {_ruler(self._factor)}; broken lifelines are longer waits.")
        for each in said:
            canvas.y += 16
            canvas.text(EDGE, canvas.y, [(fit(each, WIDTH - 2 * EDGE, SMALL), "q s")], size=SMALL)
        canvas.y += 8 * bool(said)

    def _findings(self) -> None:
        canvas, findings = self.canvas, self.chart.findings
        if not findings:
            return
        y = canvas.y + 24
        canvas.text(EDGE, y, [("What is wrong with it", "b h")], size=HEAD)
        y += 10
        for mark, finding in enumerate(findings[:20]):
            self._badge(EDGE + 10, y + 12, mark)
            ink = finding.severity.value
            canvas.text(EDGE + 28, y + 16, [(ink, "b")])
            words = wrap(finding.words, 720, TEXT, 3)
            source = wrap(f"{finding.reference}{', ' * bool(finding.frames)}{framed(finding.frames)}", 230, SMALL, 3)
            for place, line in enumerate(words):
                canvas.text(EDGE + 110, y + 16 + 17 * place, [(line, "")])
            for place, line in enumerate(source):
                canvas.text(EDGE + 850, y + 16 + 17 * place, [(line, "q s")], size=SMALL)
            y += 8 + 17 * max(len(words), len(source))
        if len(findings) > 20:
            canvas.text(EDGE + 110, y + 16, [(f"and {len(findings) - 20} more", "q")])
            y += 24
        canvas.y = y + 6


def _fair(waits: Sequence[float], budget: float) -> float:
    """Points for a second, so that all waits, each cut to :data:`_STRETCH`, take the budget or less."""
    rest = sum(waits)
    for place in range(len(waits) - 1, -2, -1):  # so many are whole: the shortest
        cut = len(waits) - 1 - place
        left = budget - cut * _STRETCH
        if place < 0 or rest <= 0:
            break
        factor = left / rest
        if factor <= 0:
            return _STRETCH / waits[place]
        if waits[place] * factor <= _STRETCH:
            return factor
        rest -= waits[place]
    return _STRETCH / waits[0] if waits else 0.0


def _ruler(factor: float) -> str:
    """A round time, and how long it is in the picture."""
    step = 1e-6
    while step * factor < 20 and step < 1e9:
        for times in (1, 2, 5):
            if step * times * factor >= 20:
                return f"{span(step * times)} are {step * times * factor:.0f} points"
        step *= 10
    return f"{span(step)} are {step * factor:.0f} points"
