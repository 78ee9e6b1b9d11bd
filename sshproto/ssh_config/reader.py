"""Reads the lines that are for one host, from the command line and from files, once or twice.

What comes first counts.  Every line is checked, those that are for other hosts as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sshproto.keys.known_hosts import match_pattern, match_patterns
from sshproto.ssh_config.conditions import Conditions
from sshproto.ssh_config.keywords import BY_NAME, Keyword, Rule, Standing
from sshproto.ssh_config.kinds import Arguments, Rules
from sshproto.ssh_config.places import Jump, read_jumps
from sshproto.ssh_config.problems import COMMAND_LINE, ConfigError, LineError, Place, Problem
from sshproto.ssh_config.words import keyword_of, split_words
from sshproto.ssh_config.world import Source, World
from sshproto.text import printable
from sshproto.values import frozen

DEPTH = 16
"""How deep includes may be."""
FILE_BYTES = 1024 * 1024
"""How long a file may be."""
LINE_BYTES = 64 * 1024
"""How long a line may be."""
FILES = 1000
"""How many files may be included in a pass."""
PROBLEMS = 100
"""How many problems of a file are kept."""
_BLOCKS = ("host", "match", "include")
_MOST_IDENTITIES = 100
_MOST_OF_A_LIST = 1000


@frozen
class Unknown:
    """A line with a keyword that nobody knows, and that ``IgnoreUnknown`` has let pass.

    Attributes:
        place: Where it stands.
        keyword: In lower case.
        value: What follows it, as it stands there.
    """

    place: Place
    keyword: str
    value: str


class Reader:
    """What has been read so far for a host.

    Args:
        typed: The host as it was typed.
        world: What is outside.
        rules: What names mean.

    Attributes:
        host: What ``Host`` is compared with: in the second pass the name that was found meanwhile.
        values: What has been read, by :attr:`~sshproto.ssh_config.keywords.Keyword.slot`.
        final: This is the second pass.
        conditions: Those of ``Match``.
        final_wanted: Some line asks for a second pass.
        notes: What is worth being told.
        unknown: Lines with keywords that nobody knows.
        said: Keywords that something was said about.
    """

    def __init__(self, typed: str, world: World, rules: Rules) -> None:
        self.typed = typed
        self.host = typed
        self.world = world
        self.rules = rules
        self.values: dict[str, Any] = {}
        self.final = False
        self.final_wanted = False
        self.notes: list[Problem] = []
        self.unknown: list[Unknown] = []
        self.said: set[str] = set()
        self.conditions = Conditions(self)
        self._included = 0

    def options(self, lines: Iterable[str]) -> None:
        """Read options of a command line.

        Raises:
            ConfigError: One is malformed.
        """
        place = Place(COMMAND_LINE, 0)
        for line in lines:
            try:
                _File(self, Source(COMMAND_LINE, b""), 0, never=False).read(line, place)
            except LineError as error:
                raise ConfigError([Problem(place, str(error))]) from None

    def files(self, sources: Iterable[Source]) -> None:
        """Read files.

        Raises:
            ConfigError: One can't be used.
        """
        self._included = 0
        for source in sources:
            _File(self, source, 0, never=False).read_all()

    def include(self, pattern: str) -> list[tuple[str, bytes]]:
        """The files that a pattern stands for.

        Raises:
            LineError: They can't be read, or are too many.
        """
        try:
            found = list(self.world.include(pattern))
        except OSError as error:
            raise LineError(f"include {printable(pattern)}: {printable(error.strerror or str(error))}") from None
        self._included += len(found)
        if self._included > FILES:
            raise LineError(f"too many files are included; there can be {FILES}")
        return found

    def set(self, slot: str, value: Any) -> None:
        """Keep a value, unless there is one."""
        if value is not None:
            self.values.setdefault(slot, value)

    def add(self, slot: str, items: Iterable[Any], most: int = _MOST_OF_A_LIST) -> None:
        """Add to a list.

        Raises:
            LineError: It gets too long.
        """
        whole = (*self.values.get(slot, ()), *items)
        if len(whole) > most:
            raise LineError(f"too many {slot.replace('_', ' ')}; there can be {most}")
        self.values[slot] = whole


class _File:
    """A file, or the options of a command line.

    Args:
        reader: What has been read.
        source: The file.
        depth: How deep it is included.
        never: The line that includes it is for other hosts: so are all in it.
    """

    def __init__(self, reader: Reader, source: Source, depth: int, *, never: bool) -> None:
        self._reader = reader
        self._source = source
        self._depth = depth
        self._never = never
        self._active = not never
        self._place = Place(source.name, 0)

    def read_all(self) -> None:
        """Read all lines.

        Raises:
            ConfigError: Something in it is wrong: everything of it that is.
        """
        content = self._source.content
        problems: list[Problem] = []
        if len(content) > FILE_BYTES:
            raise ConfigError([Problem(self._place, f"the file has {len(content)} bytes, more than {FILE_BYTES}")])
        for number, line in enumerate(content.split(b"\n"), 1):
            place = Place(self._source.name, number)
            try:
                if len(line) > LINE_BYTES:
                    raise LineError(f"the line has {len(line)} bytes, more than {LINE_BYTES}")
                self.read(line.partition(b"\0")[0].decode("utf-8", "surrogateescape"), place)
            except ConfigError as error:  # of a file that it includes, at which all ends
                raise ConfigError((*problems, *error.problems)) from None
            except LineError as error:
                problems.append(Problem(place, str(error)))
                if len(problems) == PROBLEMS:
                    break
        if problems:
            raise ConfigError(problems)

    def read(self, line: str, place: Place) -> None:
        """Read a line.

        Raises:
            LineError: It is malformed.
            ConfigError: A file that it includes is.
        """
        name, raw = keyword_of(line)
        if not name:
            return
        self._place = place
        keyword = BY_NAME.get(name)
        if keyword is None:
            self._meet_unknown(name, raw)
            return
        given = Arguments(name, raw, split_words(raw), self._reader.rules)
        if keyword.rule is Rule.SPECIAL:
            getattr(self, f"_{keyword.key}")(keyword, given)
        else:
            self._keep(keyword, given)
        given.check_end()
        if self._active and keyword.key not in _BLOCKS:
            self._reader.said.add(keyword.key)

    def _meet_unknown(self, name: str, raw: str) -> None:
        ignored = self._reader.values.get("ignore_unknown", "")
        if not ignored or not match_patterns(name, ignored.lower()):
            raise LineError(f"bad configuration option: {printable(name, 80)}")
        split_words(raw)
        self._reader.unknown.append(Unknown(self._place, name, raw))

    def _keep(self, keyword: Keyword, given: Arguments) -> None:
        value = keyword.kind.read(given)
        if keyword.standing is Standing.IGNORED:
            self._reader.notes.append(Problem(self._place, f"{keyword.name} has no meaning any more"))
        if not self._active or value is None:
            return
        if keyword.rule is Rule.FIRST:
            # An empty list is as if nothing had been said.
            if value != ():
                self._reader.set(keyword.slot, value)
            return
        if value not in self._reader.values.get(keyword.slot, ()):
            files = keyword.slot in ("identity_files", "certificate_files")
            self._reader.add(keyword.slot, (value,), _MOST_IDENTITIES if files else _MOST_OF_A_LIST)

    # ------------------------------------------------------------------------------------- keywords that are not alike

    def _only_in_files(self, what: str) -> None:
        if not self._place.line:
            raise LineError(f"{what} is not supported as a command-line option")

    def _host(self, keyword: Keyword, given: Arguments) -> None:
        self._only_in_files("Host")
        self._active = False
        found = False
        for pattern in iter(given.next, None):
            if not pattern:
                raise LineError("keyword host empty argument")
            if self._never:
                given.drop()
                return
            if match_pattern(self._reader.host, pattern.removeprefix("!")):
                if pattern.startswith("!"):
                    given.drop()
                    return
                found = True
        self._active = found

    def _match(self, keyword: Keyword, given: Arguments) -> None:
        self._only_in_files("Match")
        found = self._reader.conditions.met(given.raw)
        self._active = found and not self._never
        given.drop()

    def _include(self, keyword: Keyword, given: Arguments) -> None:
        self._only_in_files("Include")
        user = not self._source.system
        for pattern in given.all():
            if pattern.startswith("~") and not user:
                raise LineError(f"bad include path {printable(pattern)}: the system's files have no home directory")
            if not pattern.startswith(("/", "~")):
                pattern = ("~/.ssh/" if user else "/etc/ssh/") + pattern
            for name, content in self._reader.include(pattern):
                if self._depth == DEPTH:
                    raise ConfigError([Problem(self._place, f"too many recursive includes; there can be {DEPTH}")])
                source = Source(name, content, self._source.system)
                _File(self._reader, source, self._depth + 1, never=not self._active).read_all()

    def _proxycommand(self, keyword: Keyword, given: Arguments) -> None:
        command = keyword.kind.read(given)
        if self._active and not self._reader.values.get("proxy_jump"):
            self._reader.set("proxy_command", command)

    def _proxyjump(self, keyword: Keyword, given: Arguments) -> None:
        jumps: tuple[Jump, ...] = read_jumps(keyword.kind.read(given), self._reader.rules)
        values = self._reader.values
        if self._active and "proxy_command" not in values and "proxy_jump" not in values:
            values["proxy_jump"] = jumps
            if jumps:
                values["proxy_command"] = "none"

    def _rekeylimit(self, keyword: Keyword, given: Arguments) -> None:
        limit, interval = keyword.kind.read(given)
        if self._active:
            self._reader.set("rekey_limit", limit)
            self._reader.set("rekey_interval", interval)

    def _forwardagent(self, keyword: Keyword, given: Arguments) -> None:
        wanted, path = keyword.kind.read(given)
        if self._active:
            self._reader.set("forward_agent", wanted)
            self._reader.set("forward_agent_path", path)

    def _sendenv(self, keyword: Keyword, given: Arguments) -> None:
        for name in keyword.kind.read(given):
            if not self._active:
                continue
            if name.startswith("-"):
                kept = self._reader.values.get("send_env", ())
                self._reader.values["send_env"] = tuple(one for one in kept if not match_pattern(one, name[1:]))
            else:
                self._reader.add("send_env", (name,))
