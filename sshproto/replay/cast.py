"""Terminal sessions as asciicast v3 (docs.asciinema.org/manual/asciicast/v3), which asciinema's players show.

The first line is an object: the terminal's size and type, when it began.  Each further line is an event: seconds since
the event before, a code, text.  ``o`` is output, ``i`` input, ``r`` a new size, ``m`` a mark, ``x`` the exit status.
Lines are ASCII, whatever the text: nothing in such a file moves a cursor when somebody looks at it as it is.
"""

from __future__ import annotations

import codecs
import json
from typing import Any

from sshproto.channels.requests import Exec, ExitSignal, ExitStatus, Subsystem, WindowChange
from sshproto.events import ChannelNotified, DataReceived
from sshproto.replay.channels import Channel
from sshproto.replay.events import Observed, Side

COLUMNS, ROWS = 80, 24
"""The size of a terminal that nobody says anything about."""

_LARGEST = 0xFFFF
_MICRO = 1_000_000

_SIGNALS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12,
    "PIPE": 13, "ALRM": 14, "TERM": 15,
}  # fmt: skip
"""The numbers that these signals have nearly everywhere; a shell's status is 128 and the number."""

_ENDED_BY_SIGNAL = 128


class Cast:
    """Makes the lines of a recording from the events of one channel, as they come.

    Args:
        server: Whose output it is.
        keys: Record what was typed, too. That includes what no terminal shows: passwords.
        idle: Seconds that players shall wait at most, whatever the events say; None for no bound.
        title: What it is called; ``""`` for nothing.

    Attributes:
        assumed: The terminal's size is not known: it was assumed.
    """

    def __init__(self, server: Side, *, keys: bool = False, idle: float | None = None, title: str = "") -> None:
        self.assumed = False
        self._server = server
        self._keys = keys
        self._idle = idle
        self._title = title
        self._size: tuple[int, int] | None = None
        self._terminal = False
        self._begun = False
        self._start = 0.0
        self._now = 0  # microseconds since the start, as far as is known
        self._owed = 0  # of these, what no line has told yet
        self._decoders: dict[tuple[str, int], codecs.IncrementalDecoder] = {}
        self._returned: dict[tuple[str, int], bool] = {}  # the last character was a carriage return
        self._end: ExitStatus | ExitSignal | None = None

    def add(self, channel: Channel, seen: Observed) -> str:
        """Take one event.

        Args:
            channel: The channel, which has taken it in already.
            seen: The event.

        Returns:
            The lines that come of it, each with its end; often none.
        """
        match seen.event:
            case DataReceived(data=data, stream=stream):
                if seen.side is self._server:
                    return self._text(channel, seen, "o", stream, data)
                return self._text(channel, seen, "i", stream, data) if self._keys else ""
            case ChannelNotified(notice=WindowChange(columns=columns, rows=rows)):
                if not _is_size(columns, rows):
                    return ""
                self._size = columns, rows
                return self._event(seen, "r", f"{columns}x{rows}") if self._begun else ""
            case ChannelNotified(notice=ExitStatus() | ExitSignal() as end):
                self._end = self._end or end
                head = "" if self._begun else self._head(channel)
                return head + self._event(seen)
            case _:
                return ""

    def finish(self, channel: Channel) -> str:
        """There is no more: the last lines."""
        lines = [] if self._begun else [self._head(channel)]
        for (code, _), decoder in self._decoders.items():
            if rest := decoder.decode(b"", final=True):
                lines.append(_line(0, code, rest))
        match self._end:
            case ExitStatus(status=status):
                lines.append(_line(self._pause(), "x", f"{status}"))
            case ExitSignal(name=name):
                lines.append(_line(self._pause(), "m", f"ended by signal {_clean(name)}"))
                lines.append(_line(0, "x", f"{_ENDED_BY_SIGNAL + _SIGNALS.get(name, 0)}"))
            case None:
                pass
        return "".join(lines)

    # ------------------------------------------------------------------------------------------------------------ lines

    def _head(self, channel: Channel) -> str:
        """The first line."""
        self._begun = True
        terminal, program = channel.terminal, channel.program
        self._terminal = terminal is not None
        if self._size is None and terminal is not None and _is_size(terminal.columns, terminal.rows):
            self._size = terminal.columns, terminal.rows
        self.assumed = self._size is None
        columns, rows = self._size or (COLUMNS, ROWS)
        begun = [asked.time for asked in channel.requests if asked.request is program and asked.time is not None]
        self._start = begun[0] if begun else channel.time or 0.0
        term: dict[str, Any] = {"cols": columns, "rows": rows}
        if terminal is not None and terminal.term:
            term["type"] = _clean(terminal.term)
        head: dict[str, Any] = {"version": 3, "term": term}
        if self._start > 0:
            head["timestamp"] = int(self._start)
        if self._idle is not None:
            head["idle_time_limit"] = self._idle
        if isinstance(program, Exec):
            head["command"] = program.command.decode("utf-8", "replace")
        elif isinstance(program, Subsystem):
            head["command"] = _clean(program.name)
        if self._title:
            head["title"] = _clean(self._title)
        if environment := channel.environment:
            head["env"] = {_clean(name): value for name, value in environment.items()}
        return json.dumps(head) + "\n"

    def _text(self, channel: Channel, seen: Observed, code: str, stream: int, data: bytes) -> str:
        key = code, stream
        decoder = self._decoders.get(key)
        if decoder is None:
            decoder = self._decoders[key] = codecs.getincrementaldecoder("utf-8")("replace")
        head = "" if self._begun else self._head(channel)
        text = decoder.decode(data)
        if not text:
            return head
        if code == "o" and not self._terminal:
            text = self._as_terminal(key, text)
        return head + self._event(seen, code, text)

    def _as_terminal(self, key: tuple[str, int], text: str) -> str:
        """A line feed alone, as a program writes it that has no terminal, goes to the line's beginning, too."""
        returned = self._returned.get(key, False)
        self._returned[key] = text.endswith("\r")
        if returned and text.startswith("\n"):
            return "\n" + text[1:].replace("\r\n", "\n").replace("\n", "\r\n")
        return text.replace("\r\n", "\n").replace("\n", "\r\n")

    def _event(self, seen: Observed, code: str = "", text: str = "") -> str:
        """One more line; without a code only time goes on."""
        now = self._now if seen.time is None else round((seen.time - self._start) * _MICRO)
        pause = max(0, now - self._now)  # clocks go back, and captures are not always in order
        self._now += pause
        if not code:
            self._owed += pause
            return ""
        return _line(self._pause() + pause, code, text)

    def _pause(self) -> int:
        """Time that no event has told yet."""
        owed, self._owed = self._owed, 0
        return owed


def _line(micro: int, code: str, text: str) -> str:
    # Some readers take numbers apart at the point, and know no exponents.
    seconds, rest = divmod(micro, _MICRO)
    return f'[{seconds}.{rest:06}, "{code}", {json.dumps(text)}]\n'


def _is_size(columns: int, rows: int) -> bool:
    """Whether a terminal has this size; 0 means that nothing is said (RFC 4254 section 6.2)."""
    return 0 < columns <= _LARGEST and 0 < rows <= _LARGEST


def _clean(text: str) -> str:
    """Text without what was not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
