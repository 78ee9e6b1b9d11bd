"""What may follow a keyword, by kind: how it is read, and how ``ssh -G`` shows it.

A kind reads the words of a line and returns the value, or raises :class:`~sshproto.ssh_config.problems.LineError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sshproto.ssh_config.algorithms import AlgorithmList, Catalogue
from sshproto.ssh_config.problems import LineError
from sshproto.text import printable
from sshproto.values import frozen

_LARGEST = 2**31 - 1
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NUMBER = re.compile(r"[ \t-\r]*\+?([0-9]+)")
_TIME = re.compile(r"[ \t-\r]*\+?([0-9]+)([smhdw]?)", re.IGNORECASE)
_SIZE = re.compile(r"([0-9]*)(\.[0-9]*)?(?:([BKMGTPE])(?:[^0-9A-Za-z].*)?)?", re.IGNORECASE | re.DOTALL)
_SCALE = "BKMGTPE"
_OCTAL = re.compile("[0-7]+")
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^\[:/][^:/]*)(?::(.*))?", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_0-9]+")


class Arguments:
    """What follows a keyword.

    Args:
        keyword: In lower case.
        raw: All of it as it stands there.
        words: All of it, cut.
        rules: What names mean where the configuration is read.
    """

    def __init__(self, keyword: str, raw: str, words: list[str], rules: Rules) -> None:
        self.keyword = keyword
        self.raw = raw
        self.rules = rules
        self._words = words[::-1]

    def __len__(self) -> int:
        return len(self._words)

    def next(self) -> str | None:
        """The next word; None if there is none left."""
        return self._words.pop() if self._words else None

    def need(self, what: str = "argument") -> str:
        """The next word.

        Raises:
            LineError: There is none, or it is empty.
        """
        word = self.next()
        if not word:
            raise LineError(f"missing {what}")
        return word

    def all(self) -> list[str]:
        """All that are left, of which none may be empty.

        Raises:
            LineError: One is.
        """
        words = [*iter(self.next, None)]
        if not all(words):
            raise LineError(f"keyword {self.keyword} empty argument")
        return words

    def drop(self) -> None:
        """What is left is no matter."""
        self._words.clear()

    def check_end(self) -> None:
        """See that nothing is left.

        Raises:
            LineError: Something is.
        """
        if self._words:
            raise LineError(f"keyword {self.keyword} extra arguments at end of line: {printable(self._words[-1], 80)}")


@frozen
class Rules:
    """What names mean where a configuration is read.

    Attributes:
        algorithms: Which there are.
        environment: The variables of the process.
        service: The TCP port that a name stands for; None if there is none.
    """

    algorithms: Catalogue
    environment: Mapping[str, str]
    service: Callable[[str], int | None]

    def port(self, text: str) -> int | None:
        """The number of a port, from 0 on, by number or name; None if it is none."""
        number = whole_number(text)
        return self.service(text) if number is None else number if number < 65536 else None


def whole_number(text: str) -> int | None:
    """A number from 0 on, as C reads it: white space and a plus may stand before it. None if it is none."""
    match = _NUMBER.fullmatch(text)
    return None if match is None else int(match.group(1)[-20:]) if len(match.group(1).lstrip("0")) < 20 else 10**20


Read = Callable[[Arguments], Any]
Show = Callable[[Any], str]


@frozen
class Kind:
    """What may follow a keyword.

    Attributes:
        read: Makes the value.
        show: Makes what ``ssh -G`` shows of it.
    """

    read: Read
    show: Show = str


# --------------------------------------------------------------------------------------------------------------- simple


def text_of(value: object) -> str:
    """A value of which nothing need be said."""
    return str(value)


def shown_flag(value: bool) -> str:
    """As ``ssh -G`` has it."""
    return "yes" if value else "no"


def _choice(table: Mapping[str, Any], word: str | None) -> Any:
    if not word:
        raise LineError("missing argument")
    found = table.get(word.lower())
    if found is None:
        raise LineError(f'unsupported option "{printable(word, 80)}"; there are {", ".join(table)}')
    return found


_YES_NO = {"yes": True, "no": False, "true": True, "false": False}


def choice(table: Mapping[str, Any], shown: Mapping[Any, str] | None = None) -> Kind:
    """One of some words, of either case; several may mean the same.

    Args:
        table: What each word means.
        shown: How that is shown, where it is not shown as itself.
    """
    words: Mapping[Any, str] = {} if shown is None else shown
    return Kind(lambda given: _choice(table, given.next()), lambda value: words.get(value, str(value)))


def one_of(*words: str) -> Kind:
    """One of some words that mean themselves."""
    return choice({word: word for word in words})


def _either(*more: str, yes: str = "yes", no: str = "no") -> dict[str, str]:
    return {"yes": yes, "true": yes, "no": no, "false": no} | {word: word for word in more}


FLAG = Kind(lambda given: _choice(_YES_NO, given.next()), shown_flag)
"""Yes or no."""
COMPRESSION = choice({"yes": True, "no": False}, {True: "yes", False: "no"})
_SHOWN_YES = {"yes": "true", "no": "false"}


def flag_or(*more: str) -> Kind:
    """Yes, no, or one of other words. ``ssh -G`` shows the former as true and false."""
    return choice(_either(*more), _SHOWN_YES)


STRICT = choice(_either("ask", "accept-new") | {"off": "no"}, _SHOWN_YES)
TUNNEL = choice(_either("ethernet", "point-to-point", yes="point-to-point"), {"no": "false"})


def _integer(given: Arguments) -> int:
    word = given.need("integer value")
    number = whole_number(word)
    if number is None:
        raise LineError(f"integer value invalid: {printable(word, 80)!r}")
    if number > _LARGEST:
        raise LineError(f"integer value too large: {printable(word, 80)!r}")
    return number


INTEGER = Kind(_integer)


def seconds(text: str) -> int | None:
    """A time of sshd_config(5), "TIME FORMATS", such as ``90`` or ``1h30m``; None if it is none."""
    at = total = 0
    while at < len(text):
        match = _TIME.match(text, at)
        if match is None or (match.end() < len(text) and not match.group(2)):
            return None
        total += int(match.group(1)[:12]) * _UNITS[match.group(2).lower()]
        if total > _LARGEST:
            return None
        at = match.end()
    return total if text else None


def read_time(given: Arguments) -> int | None:
    """Seconds; None for ``none``, which is as if nothing had been said."""
    word = given.need("time value")
    if word == "none":
        return None
    found = seconds(word)
    if found is None:
        raise LineError(f"invalid time value: {printable(word, 80)!r}")
    return found


TIME = Kind(read_time)
"""Seconds."""
STRING = Kind(lambda given: given.need())
"""A word."""


def _command(given: Arguments) -> str:
    given.drop()
    return given.raw.lstrip(" \t\r\n=")


COMMAND = Kind(_command)
"""The rest of the line as it stands there."""


def _port(given: Arguments) -> int:
    word = given.need()
    number = given.rules.port(word)
    if not number:
        raise LineError(f"bad port: {printable(word, 80)!r}")
    return number


PORT = Kind(_port)

# ---------------------------------------------------------------------------------------------------------------- lists


def words_of(value: tuple[str, ...]) -> str:
    """Several words on a line; ``none`` if there are none."""
    return " ".join(value) or "none"


def several(most: int, alone: tuple[str, ...] = ("none",), check: Callable[[str], str] = str) -> Kind:
    """Words.

    Args:
        most: So many at most.
        alone: Words that must be the only one.
        check: Takes each word, and returns what is kept of it.
    """

    def read(given: Arguments) -> tuple[str, ...]:
        words = given.all()
        for word in words:
            if word.lower() in alone and len(words) > 1:
                raise LineError(f'keyword {given.keyword} "{word}" argument must appear alone')
        if len(words) > most:
            raise LineError(f"too many {given.keyword} entries; there can be {most}")
        return tuple(check(word) for word in words)

    return Kind(read, words_of)


def is_domain(text: str) -> bool:
    """Whether this is the name of a domain: letters, digits, hyphens and underscores, with dots between them."""
    return _LABEL.fullmatch(text) is not None and ".." not in text


def _domain(text: str) -> str:
    if not is_domain(text):
        raise LineError(f"no domain name: {printable(text, 80)!r}")
    return text.lower().removesuffix(".")


DOMAINS = several(32, check=_domain)
FILES = several(32)


def _cnames(given: Arguments) -> tuple[tuple[str, str], ...]:
    words = given.all()
    rules: list[tuple[str, str]] = []
    for word in words:
        if word.lower() == "none":
            if len(words) > 1:
                raise LineError(f'keyword {given.keyword} "none" argument must appear alone')
            rules.append((word, ""))
            continue
        source, _, target = (word, "", word) if word == "*" else word.lower().partition(":")
        if not target:
            raise LineError(f"invalid permitted CNAME {printable(word, 80)!r}; expected SOURCES:TARGETS")
        rules.append((source, target))
    if len(rules) > 32:
        raise LineError("too many permitted CNAMEs; there can be 32")
    return tuple(rules)


CNAMES = Kind(_cnames, lambda rules: " ".join(f"{source}:{target}" for source, target in rules) or "none")


def _remote_opens(given: Arguments) -> tuple[str, ...]:
    words = given.all()
    if not words:
        raise LineError(f"missing {given.keyword} specification")
    if words[0] in ("any", "none"):
        given.drop()
        return (words[0],)
    for word in words:
        match = _HOST_AND_PORT.fullmatch(word)
        if match is None or match.group(1) == "[]":
            raise LineError(f"missing host in {given.keyword}: {printable(word, 80)!r}")
        number = match.group(2) or ""
        if number != "*" and not given.rules.port(number):
            raise LineError(f"bad port number in {given.keyword}: {printable(word, 80)!r}")
    return tuple(words)


REMOTE_OPENS = Kind(_remote_opens, words_of)


def algorithms(category: str, what: str) -> Kind:
    """A list of algorithms of a category."""

    def read(given: Arguments) -> AlgorithmList:
        return given.rules.algorithms.check(category, given.need(), what)

    return Kind(read, lambda value: value.text)


# -------------------------------------------------------------------------------------------------------------- others


def _escape(given: Arguments) -> str:
    word = given.need()
    if word == "none" or len(word.encode("utf-8", "surrogateescape")) == 1:
        return word
    if len(word) == 2 and word[0] == "^" and 64 <= ord(word[1]) < 128:
        return chr(ord(word[1]) & 31)
    raise LineError(f"bad escape character {printable(word, 80)!r}; expected a character, ^ and a letter, or none")


def _shown_escape(value: str) -> str:
    if value == "none":
        return value
    if value == "\\":
        return "\\\\"
    return f"\\^{chr(ord(value) ^ 64)}" if ord(value) < 32 or ord(value) == 127 else value


ESCAPE = Kind(_escape, _shown_escape)


def scaled(text: str) -> int:
    """A number of bytes, with ``K``, ``M``, ``G`` and so on behind it.

    Raises:
        LineError: It is none.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise LineError(f"bad number {printable(text, 80)!r}; expected bytes, perhaps with K, M or G behind them")
    whole, part, unit = match.groups()
    scale: int = 1024 ** _SCALE.index((unit or "B").upper())
    digits = (part or ".")[1:10]
    found = int(whole[:20] or "0") * scale + (int(digits) * scale // 10 ** len(digits) if digits else 0)
    if found >= 2**63:
        raise LineError(f"bad number {printable(text, 80)!r}: it is too large")
    return found


def _rekey_limit(given: Arguments) -> tuple[int, int | None]:
    word = given.need()
    limit = 0 if word == "default" else scaled(word)
    if 0 < limit < 16:
        raise LineError(f"RekeyLimit too small: {limit} bytes")
    return limit, read_time(given) if len(given) else None


REKEY_LIMIT = Kind(_rekey_limit)

_DSCP = {
    **{f"af{family}{drop}": family << 5 | drop << 3 for family in (1, 2, 3, 4) for drop in (1, 2, 3)},
    **{f"cs{number}": number << 5 for number in range(8)},
    "ef": 0xB8,
    "le": 0x04,
    "lowdelay": 0x10,
    "throughput": 0x08,
    "reliability": 0x04,
}
_DSCP_NAMES = {value: name for name, value in reversed(_DSCP.items())}


def _qos(word: str) -> int:
    found = _DSCP.get(word.lower())
    if word.lower() == "none":
        return -1
    if found is None:
        try:
            found = int(word, 8 if re.fullmatch("0[0-7]+", word) else 0)
        except ValueError:
            found = 256
    if not 0 <= found < 256:
        raise LineError(f"bad IPQoS value: {printable(word, 80)!r}")
    return found


def _ip_qos(given: Arguments) -> tuple[int, int]:
    first = _qos(given.need())
    second = given.next()
    return first, first if second is None else _qos(second)


def _shown_qos(value: int) -> str:
    return "none" if value == -1 else _DSCP_NAMES.get(value, f"0x{value:02x}")


IP_QOS = Kind(_ip_qos, lambda value: " ".join(map(_shown_qos, value)))

_LEVELS = ("QUIET", "FATAL", "ERROR", "INFO", "VERBOSE", "DEBUG", "DEBUG2", "DEBUG3")
_FACILITIES = ("DAEMON", "USER", "AUTH", "AUTHPRIV", *(f"LOCAL{number}" for number in range(8)))
LOG_LEVEL = choice(
    {name.lower(): name for name in _LEVELS} | {"silent": "QUIET", "debug1": "DEBUG"}, {"QUIET": "SILENT"}
)
_GSS = frozenset(
    f"gss-{name}-"
    for name in (
        *("gex-sha1", "group1-sha1", "group14-sha1", "group14-sha256", "group16-sha512", "nistp256-sha256"),
        "curve25519-sha256",
    )
)


def _gss_kex(given: Arguments) -> str:
    text = given.need()
    for name in text.split(","):
        if name not in _GSS:
            raise LineError(f"bad GSSAPI KexAlgorithms: nobody knows {printable(name, 80)!r} in {printable(text)!r}")
    return text


GSS_KEX = Kind(_gss_kex)
FACILITY = choice({name.lower(): name for name in _FACILITIES})
HASH = choice({"md5": "MD5", "sha256": "SHA256"})


def _agent_path(word: str, given: Arguments) -> str:
    """A path, or a variable that has it."""
    from sshproto.ssh_config.tokens import expand

    expand(word, {}, given.rules.environment)
    if word.startswith("$") and word[1:2] != "{" and not _VARIABLE.fullmatch(word[1:]):
        raise LineError(f"invalid environment name {printable(word, 80)!r}")
    return word


IDENTITY_AGENT = Kind(lambda given: _agent_path(given.need(), given))


def _forward_agent(given: Arguments) -> tuple[bool, str | None]:
    word = given.need()
    found = _YES_NO.get(word.lower())
    return (True, _agent_path(word, given)) if found is None else (found, None)


FORWARD_AGENT = Kind(_forward_agent)


def _add_keys(given: Arguments) -> tuple[str, int]:
    table = _either("ask", "confirm")
    word, extra = given.need(), given.next()
    value = table.get(word.lower())
    if value is None and extra is None:
        found = seconds(word)
        if found is not None:
            return "yes", found
    elif value == "confirm" and extra is not None:
        found = seconds(extra)
        if found is None:
            raise LineError(f"invalid time value: {printable(extra, 80)!r}")
        return value, found
    if value is None or extra is not None:
        raise LineError(f"unsupported option {printable(word, 80)!r}; expected {', '.join(table)} or a time")
    return value, 0


def _shown_add_keys(value: tuple[str, int]) -> str:
    word, lifetime = value
    if lifetime <= 0:
        return _SHOWN_YES.get(word, word)
    return f"confirm {lifetime}" if word == "confirm" else str(lifetime)


ADD_KEYS = Kind(_add_keys, _shown_add_keys)


def _persist(given: Arguments) -> str:
    word = given.need("ControlPersist argument")
    if word in _YES_NO:
        return shown_flag(_YES_NO[word])
    found = seconds(word)
    if found is None:
        raise LineError(f"bad ControlPersist argument: {printable(word, 80)!r}")
    return str(found) if found else "yes"


PERSIST = Kind(_persist)


def _tunnel_device(given: Arguments) -> str:
    word = given.need()
    numbers = word.lower().split(":")
    if len(numbers) > 2 or not all(each == "any" or (each.isascii() and each.isdigit()) for each in numbers):
        raise LineError(f"bad tun device {printable(word, 80)!r}; expected LOCAL[:REMOTE], numbers or any")
    return ":".join(each if each == "any" else str(int(each[:9])) for each in (*numbers, "any")[:2])


TUNNEL_DEVICE = Kind(_tunnel_device)


def _mask(given: Arguments) -> int:
    word = given.need("StreamLocalBindMask argument")
    match = _OCTAL.match(word)  # as ssh, which does not look at what follows
    found = int(match.group()[:40], 8) if match else -1
    if not 0 <= found <= 0o777:
        raise LineError(f"bad mask {printable(word, 80)!r}; expected octal digits up to 0777")
    return found


MASK = Kind(_mask, lambda value: f"0{value:o}")
