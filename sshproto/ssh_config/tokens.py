"""``%h`` and its like, ``${VARIABLE}`` and ``~``: what stands for something else in a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sshproto.ssh_config.problems import LineError
from sshproto.text import printable

ALL = "CdhikLlnpru"
"""The tokens that most keywords take, beside ``%%``."""
PROXY = "hknpr"
"""Those that ``ProxyCommand`` and ``ProxyJump`` take."""

_TOKEN = re.compile(r"%(.?)|\$\{([^}]*)(\}?)", re.DOTALL)


def expand(text: str, tokens: Mapping[str, str], environment: Mapping[str, str] | None = None) -> str:
    """Put in what tokens and variables stand for.

    Args:
        text: The value.
        tokens: What each letter stands for; ``%%`` need not be there. If it is empty, ``%`` means itself.
        environment: The variables; None if ``${...}`` means itself.

    Raises:
        LineError: A token is not known here, a variable is not set, or a brace not closed.
    """

    def put(match: re.Match[str]) -> str:
        letter, name, brace = match.groups()
        if letter is not None:
            if not tokens:
                return match.group()
            if letter == "%":
                return "%"
            if letter not in tokens:
                raise LineError(
                    f"%{printable(letter)} in {printable(text)!r} is no token here; there are %%{_listed(tokens)}"
                )
            return tokens[letter]
        if environment is None:
            return match.group()
        if not name or not brace:
            raise LineError(f"${{ in {printable(text)!r} is not followed by a name and a closing brace")
        if name not in environment:
            raise LineError(f"the environment variable {printable(name, 80)} in {printable(text)!r} is not set")
        return environment[name]

    return _TOKEN.sub(put, text)


def _listed(tokens: Mapping[str, str]) -> str:
    return "".join(f" %{letter}" for letter in sorted(tokens))


def expand_home(text: str, homes: Callable[[str], str | None]) -> str:
    """Put in the home directory that ``~`` or ``~USER`` at the beginning stands for.

    Args:
        text: A path.
        homes: The home directory of a user, of oneself for ``""``; None if there is no such user.

    Raises:
        LineError: There is no such user.
    """
    if not text.startswith("~"):
        return text
    name, slash, rest = text[1:].partition("/")
    home = homes(name)
    if home is None:
        raise LineError(f"there is no user {printable(name, 80)!r}, of {printable(text)!r}")
    return f"{home.rstrip('/')}/{rest.lstrip('/')}" if slash else home
