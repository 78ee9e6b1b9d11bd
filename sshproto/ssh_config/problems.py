"""Where a line stands, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable

from sshproto.errors import SSHError
from sshproto.text import printable
from sshproto.values import frozen

COMMAND_LINE = "command-line"
"""The name of the place where options of a command line stand, which has no lines."""


@frozen
class Place:
    """A line of a file.

    Attributes:
        file: The name of the file, or :data:`COMMAND_LINE`.
        line: Its number, from 1; 0 where there are none.
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{printable(self.file)} line {self.line}" if self.line else printable(self.file)


@frozen
class Problem:
    """What is wrong with a line, or worth being told.

    Attributes:
        place: The line.
        words: What came, and what was expected.
    """

    place: Place
    words: str

    def __str__(self) -> str:
        return f"{self.place}: {self.words}"


class ConfigError(SSHError, ValueError):
    """A configuration that ``ssh`` would not go on with either.

    Attributes:
        problems: All that is wrong in the file at which reading has stopped.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first, more = self.problems[0], len(self.problems) - 1
        super().__init__(f"{first}; and {more} more" if more else str(first))


class LineError(ValueError):
    """What is wrong with the line that is being read; whoever reads it knows which that is."""
