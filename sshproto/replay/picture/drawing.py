"""What pictures are drawn with: a canvas for text and shapes in SVG, colours, a legend, and numbers in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Literal, TypeAlias

from sshproto.replay.findings import Severity
from sshproto.replay.picture.lettering import FONTS, escaped, fit, known, safe, width
from sshproto.replay.picture.steps import Phase

Scale: TypeAlias = Literal["even", "time"]
"""How rows are spaced."""

WIDTH = 1160
"""Of a picture; all lengths are in points."""
EDGE = 12
LEFT, RIGHT = 172, 960
"""Where the lifelines are."""
SIZES, BADGES = RIGHT + 20, RIGHT + 104
"""Where sizes and the numbers of findings stand."""
TEXT, SMALL, HEAD = 13.0, 11.5, 15.0
"""Sizes of the font."""
LINE = 16
"""From one small line to the next."""

INKS: dict[Phase, tuple[str, str]] = {
    Phase.VERSIONS: ("#e9eef3", "#52616f"),
    Phase.EXCHANGE: ("#fcefd6", "#b06a00"),
    Phase.AUTHENTICATION: ("#f1e6f8", "#7a3b9e"),
    Phase.CONNECTION: ("#e1eefa", "#0b5fa5"),
    Phase.REKEY: ("#fae3d9", "#ad3f17"),
    Phase.SEALED: ("#e6e9e6", "#46514a"),
}
"""A phase's band and its edge; dark text is readable on each band, and the bands have titles."""

SEVERITIES: dict[Severity, str] = {
    Severity.CRITICAL: "#8b0018",
    Severity.HIGH: "#b3261e",
    Severity.MEDIUM: "#9a5200",
    Severity.LOW: "#52616f",
    Severity.INFO: "#52616f",
}

_STYLE = (
    f"text{{font-family:{FONTS};font-size:{TEXT}px;fill:#16202b}}"
    "tspan{unicode-bidi:isolate}"
    f".s{{font-size:{SMALL}px}}.h{{font-size:{HEAD}px}}.b{{font-weight:bold}}.t{{font-size:20px;font-weight:bold}}"
    ".q{fill:#445260}.w{fill:#fff}"
    ".clear{stroke:#9a5200;stroke-width:1.5;fill:none}.crypt{stroke:#0b6b4b;stroke-width:2.5;fill:none}"
    ".clearhead{fill:#9a5200}.crypthead{fill:#0b6b4b}.bad{stroke:#8b0018;stroke-width:1.5;fill:none}"
    ".badtext{fill:#8b0018}"
)


class Canvas:
    """Shapes and text; things behind are drawn first."""

    def __init__(self) -> None:
        self.behind: list[str] = []
        self.front: list[str] = []
        self.y = 16.0

    def text(
        self, x: float, y: float, spans: Sequence[tuple[str, str]], *, size: float = TEXT, end: bool = False
    ) -> None:
        """A line of text that was fitted before.

        Args:
            x, y: Where it begins, or ends, on its base line.
            spans: Texts and their classes.
            size: Of the font.
            end: It ends at ``x``.
        """
        whole = "".join(text for text, _ in spans)
        if not whole:
            return
        at = f'x="{number(x)}" y="{number(y)}"'
        at += ' text-anchor="end"' if end else ""
        if size != TEXT:
            at += f' class="{"s" if size == SMALL else "h" if size == HEAD else "t"}"'
        if not known(whole):  # nobody knows the font that will have these
            at += f' textLength="{number(measure(spans, size))}" lengthAdjust="spacingAndGlyphs"'
        inner = "".join(
            f'<tspan class="{style}">{escaped(text)}</tspan>' if style else f"<tspan>{escaped(text)}</tspan>"
            for text, style in spans
            if text
        )
        self.front.append(f'<text {at} xml:space="preserve">{inner}</text>')

    def shape(self, markup: str, *, behind: bool = False) -> None:
        (self.behind if behind else self.front).append(markup)

    def lock(self, x: float, y: float, fill: str = "#0b6b4b") -> None:
        """A padlock, 10 wide and 13 high, whose bottom is at ``y``."""
        self.front.append(
            f'<path transform="translate({number(x)} {number(y)})" fill="{fill}" fill-rule="evenodd"'
            ' d="M-5 -8h1.6v-1.6a3.4 3.4 0 0 1 6.8 0v1.6h1.6v8h-10zM-1.7 -8h3.4v-1.6a1.7 1.7 0 0 0 -3.4 0z"/>'
        )

    def document(self, title: str, description: str) -> str:
        height = int(self.y + 12)
        size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">',
            f'<title id="title">{escaped(safe(title))}</title>',
            f'<desc id="desc">{escaped(safe(description))}</desc>',
            f"<style>{_STYLE}</style>",
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
            *self.behind,
            *self.front,
            "</svg>",
            "",
        ])  # fmt: skip


def number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def measure(spans: Sequence[tuple[str, str]], size: float) -> float:
    """How wide texts with classes are, one after the other."""
    return sum(
        width(text, SMALL if "s" in style.split() else size, bold="b" in style.split() or size > HEAD)
        for text, style in spans
    )


def count(number: int, one: str) -> str:
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """Time since the beginning, for people."""
    if seconds < 10:
        return f"{seconds:.4f} s"
    if seconds < 1000:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def date(seconds: float) -> str:
    """When something was, in UTC; ``""`` for what no calendar has."""
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return ""


def span(seconds: float) -> str:
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size * 0.999:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:g} s"


def framed(frames: tuple[int, ...]) -> str:
    if not frames:
        return ""
    if len(frames) == 1:
        return f"frame {frames[0]}"
    return f"frames {frames[0]} to {frames[-1]}"


def legend(canvas: Canvas, scale: Scale) -> None:
    """What lines and colours mean."""
    canvas.y += 22
    y, x = canvas.y, float(EDGE)
    for encrypted, text in ((False, "in the clear"), (True, "encrypted")):
        style = "crypt" if encrypted else "clear"
        canvas.shape(f'<path class="{style}" d="M{x} {number(y)}h34"/>')
        canvas.shape(f'<path class="{style}head" d="M{x + 44} {number(y)}l-11 -5v10z"/>')
        canvas.text(x + 52, y + 4, [(text, "s")], size=SMALL)
        x += 66 + width(text, SMALL)
    canvas.lock(x + 6, y + 6)
    text = "from here on its sender encrypts"
    canvas.text(x + 18, y + 4, [(text, "s")], size=SMALL)
    x += 36 + width(text, SMALL)
    canvas.shape(f'<circle cx="{number(x + 6)}" cy="{number(y)}" r="7" fill="{SEVERITIES[Severity.HIGH]}"/>')
    text = "a finding"
    canvas.text(x + 18, y + 4, [(text, "s")], size=SMALL)
    x += 36 + width(text, SMALL)
    how = "room in proportion to time" if scale == "time" else "evenly spaced"
    text = fit(f"left: time since the first step, {how}; right: bytes on the wire", WIDTH - EDGE - x, SMALL)
    canvas.text(x, y + 4, [(text, "q s")], size=SMALL)
    canvas.y += 26
    x = float(EDGE)
    for phase in Phase:
        band, edge = INKS[phase]
        wide = width(phase.title, SMALL) + 28
        if x + wide > WIDTH - EDGE:
            x, canvas.y = float(EDGE), canvas.y + 26
        y = canvas.y
        canvas.shape(f'<rect x="{number(x)}" y="{number(y - 10)}" width="{number(wide)}" height="20" fill="{band}"/>')
        canvas.shape(f'<rect x="{number(x)}" y="{number(y - 10)}" width="5" height="20" fill="{edge}"/>')
        canvas.text(x + 14, y + 4, [(phase.title, "s")], size=SMALL)
        x += wide + 8
    canvas.y += 10
