"""The conditions of ``Match``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshproto.keys.known_hosts import match_patterns
from sshproto.ssh_config.problems import LineError
from sshproto.ssh_config.tokens import expand
from sshproto.ssh_config.words import next_word
from sshproto.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sshproto.ssh_config.reader import Reader

CRITERIA = ("all", "canonical", "final", "exec", "host", "originalhost", "user", "localuser", "tagged")
"""All that can be asked for."""


class Conditions:
    """Says whether a condition is met by what has been read so far.

    Args:
        reader: That.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def met(self, text: str) -> bool:
        """Whether all criteria of a line hold.

        Raises:
            LineError: They are malformed, or a command may not be run.
        """
        found, count = True, 0
        rest: str | None = text
        while True:
            written, rest = next_word(rest)
            if not written:
                if rest:
                    raise LineError(f"keyword match extra arguments at end of line: {printable(rest, 80)}")
                break
            if written.startswith("#"):
                break
            name = written.removeprefix("!").lower()
            wanted = not written.startswith("!")
            if name == "all":
                argument, _ = next_word(rest)
                if count > 1 or (argument and not argument.startswith("#")):
                    raise LineError(
                        f"bad Match condition: '{printable(written, 80)}' stands alone, or behind canonical or final"
                    )
                return found and wanted
            count += 1
            if name in ("canonical", "final"):
                self._reader.final_wanted |= name == "final"
                found &= self._reader.final is wanted
                continue
            if name not in CRITERIA:
                raise LineError(f"bad Match condition: {printable(written, 80)!r}; there are {', '.join(CRITERIA)}")
            argument, rest = next_word(rest)
            if not argument or argument.startswith("#"):
                raise LineError(f"bad Match condition: nothing follows {printable(written, 80)!r}")
            if name == "exec":
                if found:  # as ssh: no command is run where it makes no difference
                    found = self._run(argument) is wanted
            else:
                found &= self._compare(name, argument) is wanted
        if not count:
            raise LineError("bad Match condition: there is none")
        return found

    def _compare(self, name: str, patterns: str) -> bool:
        reader = self._reader
        if name == "host":
            return match_patterns(self.host().lower(), patterns.lower())
        if name == "originalhost":
            return match_patterns(reader.typed.lower(), patterns.lower())
        if name == "user":
            return match_patterns(self._user(), patterns)
        if name == "localuser":
            return match_patterns(reader.world.user, patterns)
        return match_patterns(reader.values.get("tag", ""), patterns)

    def host(self) -> str:
        """The host as far as it is known."""
        name: str | None = self._reader.values.get("hostname")
        if name is None:
            return self._reader.typed
        return name if self._reader.final else expand(name, {"h": self._reader.typed})

    def _user(self) -> str:
        user: str = self._reader.values.get("user", self._reader.world.user)
        return user

    def _run(self, command: str) -> bool:
        reader = self._reader
        whole = expand(command, self._tokens())
        if reader.world.run is None:
            raise LineError("bad Match condition: exec, and commands are not run here")
        return reader.world.run(whole) == 0

    def _tokens(self) -> Mapping[str, str]:
        from sshproto.ssh_config.finish import tokens_of

        reader = self._reader
        return tokens_of(
            reader.world,
            typed=reader.typed,
            host=self.host(),
            port=reader.values.get("port", 22),
            user=self._user(),
            alias=reader.values.get("host_key_alias"),
        )
