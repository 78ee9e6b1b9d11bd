"""A connection as a timeline: what each side sent, step by step, as JSON lines or drawn between two lifelines.

:func:`steps` turns packets, in the order in which they were sent, into :class:`Step` values: it finds the phases, says
what each packet carries (:mod:`sshproto_cli.describe`) and notes where encryption begins.  :class:`Drawing` draws them.

The phases are those of the standards: RFC 4253 (transport), RFC 4252 (authentication), RFC 4254 (connection).
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from sshproto.channels.requests import CHANNEL_REQUESTS, ExitSignal, ExitStatus
from sshproto.config import Trace
from sshproto.values import frozen
from sshproto.wire import messages as m
from sshproto.wire.table import Role, message_name
from sshproto_cli.describe import Describer, Detail, Words, chosen, protection


@frozen
class Sent:
    """Something that a side sent: its identification line, or a packet.

    Attributes:
        sender: Which side.
        what: The line as it was sent, without its CR LF, or the packet as the sender's trace hook saw it.
    """

    sender: Role
    what: str | Trace


@frozen(kw_only=True)
class Step:
    """One line of the timeline: something that was sent, or a note about what it changed.

    Attributes:
        step: Counts from 1.
        phase: A name of :data:`PHASES`.
        sender: Who sent it; None for a note that concerns both.
        number: The message number; None for an identification line and for a note.
        message: The message's name, ``"identification"`` for the line that comes first, None for a note.
        encrypted: Whether it was encrypted on its way.
        sequence_number: The packet's; None where there is no packet.
        length: Bytes of the payload, or of the identification line with its line ending; 0 for a note.
        summary: What it carries, in short.
        details: What does not fit in the summary.
        fields: The message's fields by name.
    """

    step: int
    phase: str
    sender: Role | None = None
    number: int | None = None
    message: str | None = None
    encrypted: bool = False
    sequence_number: int | None = None
    length: int = 0
    summary: str
    details: tuple[Detail, ...] = ()
    fields: Mapping[str, Any] = attrs.field(factory=dict[str, Any])

    def json(self) -> str:
        """The step as a JSON object on one line."""
        return json.dumps(
            {
                "step": self.step,
                "phase": self.phase,
                "direction": None if self.sender is None else f"{self.sender.value} to {self.sender.peer.value}",
                "number": self.number,
                "message": self.message,
                "encrypted": self.encrypted,
                "sequence_number": self.sequence_number,
                "length": self.length,
                "summary": self.summary,
                "fields": dict(self.fields),
            },
            ensure_ascii=False,
        )


PHASES: dict[str, tuple[str, str]] = {
    "versions": ("Protocol versions", "RFC 4253 section 4.2"),
    "negotiation": ("Algorithm negotiation", "RFC 4253 section 7.1"),
    "key exchange": ("Key exchange", "RFC 4253 section 8"),
    "new keys": ("Taking keys into use", "RFC 4253 section 7.3"),
    "service": ("Service request", "RFC 4253 section 10"),
    "authentication": ("User authentication", "RFC 4252 section 5"),
    "channel": ("Opening a channel", "RFC 4254 section 5.1"),
    "command": ("Starting a command", "RFC 4254 section 6.5"),
    "data": ("Data transfer", "RFC 4254 section 5.2"),
    "rekey": ("Key re-exchange", "RFC 4253 section 9"),
    "close": ("End of data, exit status, close", "RFC 4254 sections 5.3, 6.10"),
    "disconnection": ("Disconnection", "RFC 4253 section 11.1"),
    "result": ("Result", ""),
}
"""The phases: their titles, and where the standards describe them."""

_PHASE_OF: tuple[tuple[int, int, str], ...] = (
    (1, 1, "disconnection"),
    (5, 6, "service"),
    (7, 7, "new keys"),
    (20, 20, "negotiation"),
    (21, 21, "new keys"),
    (30, 49, "key exchange"),
    (50, 79, "authentication"),
    (90, 92, "channel"),
    (93, 95, "data"),
    (96, 97, "close"),
)
"""The phase that messages of certain numbers belong to; others belong to the phase that they come in."""

_ENDS = (ExitStatus.type, ExitSignal.type)


def _phase(now: str, trace: Trace, keys_taken: bool) -> str:
    """The phase of a packet that comes in the phase ``now``."""
    if isinstance(trace.message, m.ChannelRequest):
        request = trace.message.request_type
        if request in _ENDS:
            return "close"
        known = CHANNEL_REQUESTS.get(request)
        return "command" if known is not None and known.starts else now
    for first, last, name in _PHASE_OF:
        if first <= trace.number <= last:
            return "rekey" if keys_taken and 20 <= trace.number < 50 else name
    return now


def steps(sent: Iterable[Sent]) -> Iterator[Step]:
    """The timeline of a connection.

    Args:
        sent: What was sent, in order.

    Yields:
        The steps, numbered from 1.
    """
    describer = Describer()
    number = 0
    phase = "versions"
    offers = 0
    new_keys = dict.fromkeys(Role, 0)
    protected: dict[Role, Words] = {}

    def step(**values: Any) -> Step:
        nonlocal number
        number += 1
        return Step(step=number, phase=phase, **values)

    for item in sent:
        sender, trace = item.sender, item.what
        if isinstance(trace, str):
            size = len(trace) + 2
            fields = {"line": trace}
            yield step(sender=sender, message="identification", length=size, summary=trace, fields=fields)
            continue
        phase = _phase(phase, trace, all(new_keys.values()))
        message = trace.message
        words = None if message is None else describer.describe(sender, message)
        yield step(
            sender=sender,
            number=trace.number,
            message=message_name(trace.number, "" if message is None else message.context),
            encrypted=new_keys[sender] > 0,
            sequence_number=trace.sequence_number,
            length=trace.length,
            summary="not understood" if words is None else words.summary,
            details=() if words is None else words.details,
            fields={} if words is None else words.fields,
        )
        negotiated = describer.negotiated
        if isinstance(message, m.KexInit):
            offers += 1
            if offers == len(Role) and negotiated is not None:  # later exchanges end in the same, or their NEWKEYS tell
                words = chosen(negotiated)
                yield step(summary=f"agreed: {words.summary}", details=words.details, fields=words.fields)
        elif isinstance(message, m.NewKeys) and negotiated is not None:
            new_keys[sender] += 1
            words = protection(negotiated, sender)
            if protected.get(sender) == words:
                words = attrs.evolve(words, summary="new keys from here on, the same algorithms", details=())
            else:
                protected[sender] = words
                words = attrs.evolve(words, summary=f"encrypted from here on: {words.summary}")
            yield step(sender=sender, encrypted=True, summary=words.summary, details=words.details, fields=words.fields)


# -------------------------------------------------------------------------------------------------------------- drawing


@frozen
class Glyphs:
    """What lines are drawn with: clear and encrypted ones, arrow heads, headings."""

    clear: str
    encrypted: str
    clear_rail: str
    encrypted_rail: str
    left: str
    right: str
    heading: str
    note: str

    @property
    def text(self) -> str:
        """All of them, to see whether an encoding has them."""
        return "".join(str(value) for value in attrs.astuple(self))


LINES = Glyphs("─", "═", "│", "║", "◀", "▶", "━", "┄")
ASCII = Glyphs("-", "=", "|", "#", "<", ">", "*", ".")

STYLES: dict[str, str] = {
    "clear": "33",
    "encrypted": "32",
    "name": "1",
    "label": "2",
    "number": "2",
    "heading": "1;34",
    "section": "34",
    "good": "1;32",
    "title": "1",
}
"""SGR codes of ECMA-48, as terminals understand them."""

Span = tuple[str, str]
"""A text and its style, ``""`` for none."""

_MARGIN = 5  # the packet's number and a space
_INDENT = 3
_SHORTEST_ARROW = 4
_WIDEST = 110


class Drawing:
    """Draws steps between two lifelines, the client's at the left, the server's at the right.

    Args:
        width: Columns; fewer than 80 are taken for 80, more than 110 are left empty.
        colour: Whether to use colours.
        encoding: The encoding that the text must fit; where it has no line drawing characters, ASCII takes their place.
    """

    def __init__(self, *, width: int = 80, colour: bool = False, encoding: str = "utf-8") -> None:
        self._width = min(max(width, 80), _WIDEST)
        self._inner = self._width - 2 * _MARGIN
        self._colour = colour
        self._encrypted = dict.fromkeys(Role, False)
        self._phase = ""
        self._seen: set[str] = set()
        self._count = 0
        self._encoding = encoding
        try:
            LINES.text.encode(encoding)
            self._glyphs = LINES
        except (UnicodeEncodeError, LookupError):
            self._glyphs = ASCII

    def title(self, text: str) -> Iterator[str]:
        """The lines above the timeline: what this is, a legend, the names of the lifelines."""
        g = self._glyphs
        yield self._line([(text, "title")])
        clear, encrypted = f"{g.clear * 3}{g.right}", f"{g.encrypted * 3}{g.right}"
        yield self._line([
            (clear, "clear"), (" in the clear   ", ""), (encrypted, "encrypted"), (" encrypted   ", ""),
            ("at the sides: sequence numbers", "label"),
        ])  # fmt: skip
        yield ""
        gap = " " * (self._inner + 2 - len("CLIENT") - len("SERVER"))
        yield self._line([(" " * (_MARGIN - 1), ""), ("CLIENT", "title"), (gap, ""), ("SERVER", "title")])

    def step(self, step: Step) -> Iterator[str]:
        """The lines of one step."""
        if step.phase != self._phase:
            self._phase = step.phase
            yield from self._heading(step.phase)
        if step.message is None:
            if step.sender is not None:
                self._encrypted[step.sender] = True
            yield from self._note(step)
        elif step.sender is not None:
            yield from self._arrow(step, step.sender)

    def _heading(self, phase: str) -> Iterator[str]:
        g = self._glyphs
        title, section = PHASES.get(phase, (phase, ""))
        if phase in self._seen:
            title += ", continued"
        self._seen.add(phase)
        self._count += 1
        if self._count > 1:
            yield self._inside([(" " * self._inner, "")])
        start = f"{g.heading * 3} {self._count:>2}  "
        end = g.heading * 3
        dots = self._width - len(start) - len(title) - len(section) - len(end) - 3
        section_spans = [(f" {section} ", "section")] if section else [(g.heading * 2, "heading")]
        yield self._line([(f"{start}{title} {g.heading * dots}", "heading"), *section_spans, (end, "heading")])

    def _arrow(self, step: Step, sender: Role) -> Iterator[str]:
        g = self._glyphs
        stroke, style = (g.encrypted, "encrypted") if step.encrypted else (g.clear, "clear")
        name: list[Span] = [(step.message or "", "name")]
        if step.message == "identification":
            name = []
        summary = self._fit(step.summary)
        room = self._inner - 3 - _SHORTEST_ARROW - sum(len(text) for text, _ in name)
        below: list[Span] = []
        if summary and len(summary) + 2 <= room:
            name += [("  " if name else "", ""), (summary, "")]
        elif summary and not step.details:
            below = [(summary, "")]
        arrow = self._inner - 3 - sum(len(text) for text, _ in name)
        spans: list[Span]
        if sender is Role.CLIENT:
            spans = [(" ", ""), *name, (" ", ""), (stroke * arrow + g.right, style)]
        else:
            spans = [(g.left + stroke * arrow, style), (" ", ""), *name, (" ", "")]
        yield self._inside(spans, sender=sender, number=step.sequence_number)
        rows = [[span] for text, _ in below for span in self._wrapped(text)] + self._rows(step.details)
        yield from self._block(rows, right=sender is Role.SERVER)

    def _note(self, step: Step) -> Iterator[str]:
        g = self._glyphs
        title, _, rest = step.summary.partition(": ")
        if step.sender is None:
            stroke, style, arrow = g.note, "good", ""
        else:
            stroke, style = g.encrypted, "good"
            arrow = f"{step.sender.value} to {step.sender.peer.value}: "
        title = f"{arrow}{title}"
        head = f" {stroke * 3} {title} "
        yield self._inside([(head, style), (stroke * (self._inner - len(head) - 1) + " ", style)])
        rows = self._rows(step.details) or [[span] for span in self._wrapped(self._fit(rest))]
        yield from self._block(rows, right=step.sender is Role.SERVER)

    def _block(self, rows: list[list[Span]], *, right: bool) -> Iterator[str]:
        """``rows``, at the side of the lifeline that they belong to."""
        widest = max((sum(len(text) for text, _ in row) for row in rows), default=0)
        indent = max(_INDENT, self._inner - 1 - widest) if right else _INDENT
        for row in rows:
            yield self._inside([(" " * indent, ""), *row])

    def _rows(self, details: tuple[Detail, ...]) -> list[list[Span]]:
        column = max((len(label) for label, _ in details), default=0) + 2
        rows: list[list[Span]] = []
        for label, value in details:
            lines = [_shortened(value, self._inner - _INDENT - 1 - column)]
            if isinstance(value, str):
                lines = textwrap.wrap(self._fit(value), self._inner - _INDENT - 1 - column) or [""]
            rows.append([(label.ljust(column), "label"), (lines[0], "")])
            rows += [[(" " * column, ""), (line, "")] for line in lines[1:]]
        return rows

    def _wrapped(self, text: str) -> list[Span]:
        return [(line, "") for line in textwrap.wrap(text, self._inner - _INDENT - 1)]

    def _fit(self, text: str) -> str:
        """``text`` in the encoding."""
        return text.encode(self._encoding, "backslashreplace").decode(self._encoding) if self._glyphs is ASCII else text

    def _inside(self, spans: list[Span], *, sender: Role | None = None, number: int | None = None) -> str:
        """A line between the lifelines, with a packet's number at its sender's side."""
        g = self._glyphs
        rails: dict[Role, Span] = {
            role: (g.encrypted_rail, "encrypted") if encrypted else (g.clear_rail, "clear")
            for role, encrypted in self._encrypted.items()
        }
        left = str(number) if number is not None and sender is Role.CLIENT else ""
        right = str(number) if number is not None and sender is Role.SERVER else ""
        used = sum(len(text) for text, _ in spans)
        return self._line([
            (f"{left:>{_MARGIN - 2}} ", "number"), rails[Role.CLIENT],
            *spans, (" " * (self._inner - used), ""),
            rails[Role.SERVER], (f" {right}" if right else "", "number"),
        ])  # fmt: skip

    def _line(self, spans: list[Span]) -> str:
        if not self._colour:
            return "".join(text for text, _ in spans).rstrip()
        return "".join(f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and text else text for text, style in spans)


def _shortened(names: str | tuple[str, ...], width: int) -> str:
    """As many of ``names`` as fit, and how many more there are."""
    if isinstance(names, str):
        return names
    for shown in range(len(names), 0, -1):
        more = f", +{len(names) - shown} more" if shown < len(names) else ""
        line = ", ".join(names[:shown]) + more
        if len(line) <= width or shown == 1:
            return line
    return "none"
