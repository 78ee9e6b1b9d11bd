"""Where connections go: forwards, as ``LocalForward`` and its like write them, and hosts to jump through."""

from __future__ import annotations

import re

from sshproto.ssh_config.kinds import Arguments, Rules
from sshproto.ssh_config.problems import LineError
from sshproto.ssh_config.tokens import expand
from sshproto.text import printable
from sshproto.values import frozen

_LONGEST_HOST = 1024
_LONGEST_PATH = 107  # of a Unix-domain socket
_FIELD = re.compile(r"(?:\[([^]]*)\]|((?!\[)(?:[^:\\]|\\.)*))(:|\Z)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_URI = "ssh://"
_ENCODED = re.compile("%([0-9A-Fa-f]{2})")
_JUMP = re.compile(r"(?:(.*)@)?(\[[^]]+\]|[^\[\]:/@][^:/@]*)(?::([^/]*))?", re.DOTALL)
_IN_URI = re.compile(
    r"(?:((?:[^%@]|%[0-9A-Fa-f]{2})*)@)?((?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]*)(?::([^/]+)/?|:|/)?", re.DOTALL
)

Listen = str | tuple[str | None, int]
"""The path of a socket, or an address and a port; None where no address was written."""
Target = str | tuple[str, int] | None
"""The path of a socket, or a host and a port; None where a SOCKS client says."""


@frozen
class Forward:
    """A forward.

    Attributes:
        listen: Where it listens.
        target: Where it connects to.
    """

    listen: Listen
    target: Target = None

    def shown(self, *, dynamic: bool = False) -> str:
        """As ``ssh -G`` has it."""
        if isinstance(self.listen, str):
            listen = self.listen
        else:
            host, number = self.listen
            listen = str(number) if host is None else f"[{host}]:{number}"
        if dynamic:
            return listen
        if self.target is None:
            return f"{listen} [socks]:0"
        return (
            f"{listen} {self.target}"
            if isinstance(self.target, str)
            else f"{listen} [{self.target[0]}]:{self.target[1]}"
        )


@frozen
class Jump:
    """A host to jump through.

    Attributes:
        user: Whom to log in as; None if that is not said.
        host: Its name or address.
        port: Its port; None if that is not said.
        text: As it was written.
    """

    user: str | None
    host: str
    port: int | None
    text: str

    def shown(self) -> str:
        """As ``ssh -G`` shows the last one."""
        numeric = ":" in self.host or not self.host.strip("1234567890.")
        host = f"[{self.host}]" if numeric else self.host
        user = "" if self.user is None else f"{self.user}@"
        return f"{user}{host}" + ("" if self.port is None else f":{self.port}")


def read_forward(given: Arguments, *, remote: bool = False, dynamic: bool = False) -> Forward:
    """Read what follows ``LocalForward``, ``RemoteForward`` (``remote``) or ``DynamicForward`` (``dynamic``).

    Raises:
        LineError: It is malformed.
    """
    text = given.need()
    if not dynamic:
        target = given.next()
        if target:
            text = f"{text}:{target}"
        elif remote:
            dynamic = True
        else:
            raise LineError("missing target argument")
    found = _forward(expand(text, {}, given.rules.environment).lstrip(), given.rules, remote=remote, dynamic=dynamic)
    if found is None:
        wanted = "[address:]port" if dynamic else "[address:]port host:port, or paths of sockets"
        raise LineError(f"bad forwarding specification {printable(text)!r}; expected {wanted}")
    return found


def _forward(text: str, rules: Rules, *, remote: bool, dynamic: bool) -> Forward | None:
    fields = _fields(text)
    if fields is None or not 1 <= len(fields) <= 4:
        return None
    texts, paths = [field for field, _ in fields], [path for _, path in fields]
    target: Target = None
    if dynamic:
        if len(fields) > 2 or (len(fields) == 2 and any(paths)):
            return None
    elif len(fields) > 1 and paths[-1] and (len(fields) < 4):
        target = texts.pop()
    elif len(fields) > 2:
        number = rules.port(texts.pop())
        target = (texts.pop(), number or 0)
        if not number:
            return None
    else:
        return None
    listen: Listen
    if len(texts) == 1 and paths[0]:
        listen = texts[0]
    elif 1 <= len(texts) <= 2 and not paths[len(texts) - 1]:
        number = rules.port(texts[-1])
        if number is None or (not number and not remote):
            return None
        listen = (texts[0] if len(texts) == 2 else None, number)
    else:
        return None
    if any(_too_long(end) for end in (listen, target)):
        return None
    return Forward(listen, target)


def _too_long(end: Listen | Target) -> bool:
    if isinstance(end, str):
        return len(end) > _LONGEST_PATH
    return end is not None and end[0] is not None and len(end[0]) > _LONGEST_HOST


def _fields(text: str) -> list[tuple[str, bool]] | None:
    """Cut at colons; a part in brackets is taken as it is. With each part goes whether it is a path."""
    fields: list[tuple[str, bool]] = []
    at = 0
    while at < len(text) and len(fields) < 5:
        match = _FIELD.match(text, at)
        if match is None:
            return None
        literal, plain, _ = match.groups()
        if literal is not None:
            fields.append((literal, "/" in literal))
        else:
            fields.append((_ESCAPED.sub(r"\1", plain), "/" in _ESCAPED.sub("", plain)))
        at = match.end()
    return fields


def read_jumps(text: str, rules: Rules) -> tuple[Jump, ...]:
    """Read what follows ``ProxyJump``: hosts, nearest first; none for ``none``.

    Raises:
        LineError: It is malformed.
    """
    if text.lower() == "none":
        return ()
    text = (text.partition("#")[0].split() or [""])[0]
    return tuple(_jump(part, text, rules) for part in text.split(","))


def _jump(part: str, whole: str, rules: Rules) -> Jump:
    uri = part.startswith(_URI)
    match = (_IN_URI if uri else _JUMP).fullmatch(part.removeprefix(_URI))
    if match is not None:
        user, host, number = match.groups()
        if user is not None and uri:
            user = _ENCODED.sub(lambda byte: chr(int(byte.group(1), 16)), user.partition(";")[0])
        port = rules.port(number) if number else None
        if user != "" and (port or not number):
            host = host[1:-1] if host.startswith("[") else host.removesuffix(".") if uri else host
            return Jump(user, host, port, part)
    expected = "[user@]host[:port] or ssh://[user@]host[:port]"
    raise LineError(f'invalid ProxyJump "{printable(whole)}"; expected {expected}')
