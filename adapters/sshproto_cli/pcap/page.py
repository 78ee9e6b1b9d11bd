"""A connection's timeline as one HTML page that needs nothing else: no network, no other file.

The page's policy (CSP) allows just its own script and style, by their hashes.  The connections are data, in JSON, of
which no character can end the element that they stand in; the script puts all text into the page as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from sshproto.replay.events import Side
    from sshproto.replay.picture.steps import Chart, Item, Step

_HEX = 2048
_FIELD = 2000

_BODY = """
<header>
<h1 id="title"></h1><select id="connection" aria-label="connection"></select><span id="facts"></span>
<details id="troubles"><summary></summary><ul></ul></details>
</header>
<nav aria-label="filters">
<span class="chips" id="phases"></span>
<input type="search" id="text" placeholder="search  ( / )" aria-label="search">
<select id="name" aria-label="message"></select>
<select id="channel" aria-label="channel"></select>
<select id="side" aria-label="sender"><option value="">both sides</option><option value="0">client</option>
<option value="1">server</option></select>
<button type="button" id="found" aria-pressed="false">findings only</button>
<label><input type="checkbox" id="folding" checked> fold</label>
<button type="button" id="reset">reset</button>
<span class="pair"><button type="button" id="even">even</button><button type="button" id="time">to scale</button></span>
<label>zoom <input type="range" id="zoom" min="-6" max="10" step="0.5" value="0"></label>
<span id="count" role="status"></span>
</nav>
<canvas id="overview" aria-hidden="true"></canvas>
<div id="content"><div id="left">
<div id="heads"><div>
<div class="card client" id="card-client"></div><div class="card server" id="card-server"></div>
</div></div>
<main id="view" tabindex="0" role="listbox" aria-label="what was sent"><div id="space"></div>
<p class="empty" id="empty" hidden>Nothing is left: the filters are too narrow.</p></main>
</div><aside id="detail" aria-label="details" hidden></aside></div>
<footer><span id="remarks"></span><span id="more" class="limit"></span>
<span><kbd>↑</kbd> <kbd>↓</kbd> step, <kbd>Enter</kbd> open a run, <kbd>n</kbd> <kbd>p</kbd> findings,
<kbd>t</kbd> time to scale, <kbd>+</kbd> <kbd>-</kbd> or Ctrl and wheel zoom, <kbd>/</kbd> search,
<kbd>Esc</kbd> close</span>
<noscript>This page needs JavaScript; sshproto pcap timeline --format svg makes a picture that does not.</noscript>
</footer>
"""


def page(charts: Sequence[Chart], *, scale: str = "even", shortest: int = 5, left_out: int = 0) -> Iterator[str]:
    """The page, in pieces.

    Args:
        charts: The connections; there is one at least.
        scale: ``"even"`` or ``"time"``: how rows are spaced at first.
        shortest: So many packets of data in a row are folded; 0 for never.
        left_out: How many connections of the capture are not among them.
    """
    from sshproto.replay.events import Integrity
    from sshproto.replay.picture.steps import PIECES, Phase

    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; base-uri 'none';"
        " form-action 'none'"
    )
    meta = {
        "scale": scale,
        "shortest": shortest or 1 << 40,
        "left_out": left_out,
        "pieces": PIECES,
        "phases": [{"title": phase.title, "reference": phase.reference} for phase in Phase],
        "integrity": [each.value for each in Integrity],
        "connections": [_named(chart) for chart in charts],
    }
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield '<meta name="referrer" content="no-referrer">\n'
    yield f"<title>{escape(_named(charts[0]))}</title>\n<style>{style}</style>\n</head>\n<body>{_BODY}"
    yield f'<script type="application/json" id="meta">{_json(meta)}</script>\n'
    for place, chart in enumerate(charts):
        yield f'<script type="application/json" id="connection-{place}">{_json(_connection(chart))}</script>\n'
    yield f"<script>{script}</script>\n</body>\n</html>\n"


def _asset(name: str) -> str:
    return resources.files("sshproto_cli.pcap").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> str:
    """JSON without what could end a script element, or begin a comment in it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _named(chart: Chart) -> str:
    client, server = (chart.addresses[side] for side in (chart.client, chart.client.other))
    return f"SSH connection {chart.number}: {client} to {server}"


class _Strings:
    """A table of texts, each once."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def place(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))


def _connection(chart: Chart) -> dict[str, Any]:
    """A connection as the script wants it: a column for each attribute of the steps."""
    from sshproto.replay.events import Side
    from sshproto.replay.picture.steps import Kind

    origin = next((item.time for item in chart.items if item.time is not None), chart.start)
    names, words = _Strings(), _Strings()
    columns = _Columns(chart, names, words, origin)
    for item in chart.items:
        columns.add(item)
    dialled = {side: side is Side.DIALLER for side in Side}
    return {
        "number": chart.number,
        "sure": chart.sure,
        "start": origin,
        "until": round(max(chart.until - origin, 0.0), 6),
        "packets": chart.packets,
        "bytes": chart.size,
        "opened": list(chart.opened),
        "limit": chart.limit,
        "dropped": chart.dropped,
        "channels": {str(number): kind for number, kind in chart.channels.items()},
        "findings": [
            {
                "severity": finding.severity.value,
                "words": finding.words,
                "reference": finding.reference,
                "frames": list(finding.frames),
            }
            for finding in chart.findings
        ],
        **{
            chart.role(side).value: {
                "version": chart.versions.get(side, "no identification was recorded"),
                "address": chart.addresses[side],
                "dialled": dialled[side],
            }
            for side in Side
        },
        "kinds": [kind.value for kind in Kind],
        "names": list(names.places),
        "words": list(words.places),
        **columns.columns,
        "marks": columns.marks,
        "more": columns.more,
        "runs": columns.runs,
    }


class _Columns:
    """Steps, turned by ninety degrees."""

    def __init__(self, chart: Chart, names: _Strings, words: _Strings, origin: float) -> None:
        from sshproto.replay.events import Integrity
        from sshproto.replay.picture.steps import Kind, Phase

        self.columns: dict[str, list[Any]] = {
            name: []
            for name in (
                "kind phase side time name word size encrypted epoch channel first last_ sequence number_ integrity "
                "bulk"
            ).split()
        }
        self.marks: dict[int, list[int]] = {}
        self.more: dict[int, dict[str, Any]] = {}
        self.runs: dict[int, dict[str, Any]] = {}
        self._appends = [column.append for column in self.columns.values()]
        self._kinds = {kind: place for place, kind in enumerate(Kind)}
        self._phases = {phase: place for place, phase in enumerate(Phase)}
        self._integrity = {each: place for place, each in enumerate(Integrity)}
        self._sides: dict[Side | None, int] = {None: -1, chart.client: 0, chart.client.other: 1}
        self._names = names.place
        self._words = words.place
        self._origin = origin
        self._size = 0

    def add(self, item: Item) -> None:
        from sshproto.replay.picture.steps import Run

        place = self._size
        self._size += 1
        time = None if item.time is None else round(max(item.time - self._origin, 0.0), 6)
        first, last = (item.frames[0], item.frames[-1]) if item.frames else (-1, -1)
        phase = self._phases[item.phase]
        row: tuple[Any, ...]
        if isinstance(item, Run):
            row = (
                len(self._kinds), phase, -1, time, self._names("only counted"), self._words(""), 0,
                int(item.encrypted), 0, -1, first, last, -1, -1, -1, 0,
            )  # fmt: skip
            self.runs[place] = {
                "until": time if item.until is None else round(max(item.until - self._origin, 0.0), 6),
                "packets": item.packets,
                "counts": [
                    [self._sides[side], self._names(name), -1 if channel is None else channel, packets, size]
                    for (side, name, channel), (packets, size) in item.counts.items()
                ],
            }
        else:
            row = (
                self._kinds[item.kind], phase, self._sides[item.side], time, self._names(item.name),
                self._words(item.summary[:_FIELD]), item.size, int(item.encrypted), item.epoch,
                -1 if item.channel is None else item.channel, first, last,
                -1 if item.sequence_number is None else item.sequence_number,
                -1 if item.number is None else item.number,
                -1 if item.integrity is None else self._integrity[item.integrity], int(item.bulk),
            )  # fmt: skip
            if item.marks:
                self.marks[place] = list(item.marks)
            if not item.bulk and (item.details or item.fields or item.public):
                self.more[place] = _more(item)
        for append, value in zip(self._appends, row, strict=True):
            append(value)


def _more(step: Step) -> dict[str, Any]:
    """What is shown of a step when it is chosen."""
    found: dict[str, Any] = {}
    if step.details:
        found["details"] = [
            [label, list(value) if isinstance(value, tuple) else value[:_FIELD]] for label, value in step.details
        ]
    if step.fields:
        found["fields"] = {name: _plain(value) for name, value in step.fields.items()}
    if step.public:
        found["hex"] = step.public[:_HEX].hex()
        found["length"] = step.length
    return found


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return str(value).lower() if isinstance(value, bool) else value
    if isinstance(value, str):
        return value[:_FIELD]
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("Sequence[Any]", value)[:200]]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in list(cast("Mapping[Any, Any]", value).items())[:200]}
    return str(value)[:_FIELD]
