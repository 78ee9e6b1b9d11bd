"""Forwards and jumps as ``ssh`` spells them: the arguments of ``-L``, ``-R``, ``-D`` and ``-J``.

A specification is cut at its colons; a part in brackets is taken as it is, and a backslash takes away the meaning of
what follows it. A part with a slash in it is the path of a Unix-domain socket. As in ssh, nothing is looked up here:
names of hosts stay names.

An address to listen at is one of RFC 4254 section 7.1 on either side: ``""`` is everywhere, and ``localhost``, which is
also what no address means, is the loopback of both families.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, NoReturn

from sshproto.values import frozen
from sshproto_cli.options import Failure, port

if TYPE_CHECKING:
    from sshproto.operations.forwarding import Address

DEFAULT_PORT = 22

LOOPBACK = "localhost"
"""Where a forward listens if nothing else is said."""
EVERYWHERE = ""
"""What ``*`` and the empty address mean."""

_FORWARDS = (
    "[bind_address:]port:host:hostport, [bind_address:]port:{far}, {near}:host:hostport or {near}:{far}"
    " (sockets are paths with a slash)"
)
_EXPECTED = {
    "-L": _FORWARDS.format(near="local_socket", far="remote_socket"),
    "-R": _FORWARDS.format(near="remote_socket", far="local_socket"),
    "-D": "[bind_address:]port",
    "-J": "[user@]host[:port] or ssh://[user@]host[:port], several separated by commas",
}
_PART = re.compile(r"(?:\[([^]]*)\]|((?!\[)(?:[^:\\]|\\.)*))(:|\Z)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_HOST = re.compile(r"(?!-)[^\s\0-\x1f\x7f@/\[\]]+")
_URI = "ssh://"


@frozen
class LocalForward:
    """``-L``: what comes to this side goes out from the server.

    Attributes:
        listen: Where to listen on this side.
        target: Where to connect to, as seen from the server.
    """

    listen: Address
    target: Address


@frozen
class RemoteForward:
    """``-R``: what comes to the server goes out from this side.

    Attributes:
        listen: Where the server is to listen; port 0 lets it choose one.
        target: Where to connect to from this side.
    """

    listen: Address
    target: Address


@frozen
class DynamicForward:
    """``-D``: a SOCKS proxy on this side whose connections go out from the server.

    Attributes:
        listen: Where to listen on this side.
    """

    listen: Address


@frozen
class Hop:
    """A server to jump through.

    Attributes:
        user: Whom to log in as; None if that is not said.
        host: Its name or address.
        port: Its port.
    """

    user: str | None
    host: str
    port: int = DEFAULT_PORT


def local_forward(text: str, usual: str = LOOPBACK) -> LocalForward:
    """Read the argument of ``-L``.

    Args:
        text: It.
        usual: Where to listen if it has no address.

    Raises:
        Failure: It is malformed; what came and what was expected.
    """
    return LocalForward(*_Spec("-L", text, usual).forward())


def remote_forward(text: str) -> RemoteForward:
    """Read the argument of ``-R``.

    Raises:
        Failure: It is malformed, or has no target, which asks for a SOCKS proxy at the server's side.
    """
    return RemoteForward(*_Spec("-R", text).forward())


def dynamic_forward(text: str, usual: str = LOOPBACK) -> DynamicForward:
    """Read the argument of ``-D``.

    Args:
        text: It.
        usual: Where to listen if it has no address.

    Raises:
        Failure: It is malformed.
    """
    spec = _Spec("-D", text, usual)
    return DynamicForward(spec.listening(spec.parts))


def hops(text: str) -> tuple[Hop, ...]:
    """Read the argument of ``-J``: the servers to jump through, nearest first; ``none`` is none.

    Raises:
        Failure: It is malformed.
    """
    if text.lower() == "none":
        return ()
    return tuple(hop(part, text) for part in text.split(","))


def hop(text: str, whole: str | None = None) -> Hop:
    """Read one server: ``[user@]host[:port]`` or ``ssh://[user@]host[:port]``.

    Args:
        text: Which.
        whole: What it is a part of, to be shown in an error.

    Raises:
        Failure: It is malformed.
    """

    def fail(problem: str) -> NoReturn:
        _fail("-J", text if whole is None else whole, problem)

    if text.startswith(_URI):
        from urllib.parse import unquote

        rest, _, path = text.removeprefix(_URI).partition("/")
        if path:
            fail(f"there is no use for the path '/{path}'")
        user, at, rest = rest.partition("@") if "@" in rest else ("", "", rest)
        user = unquote(user.partition(";")[0])  # what stands behind it are parameters, which ssh passes over as well
    else:
        user, at, rest = text.rpartition("@")
    if at and not user:
        fail("there is no user before '@'")
    host, colon, number = rest.rpartition(":") if _has_port(rest) else (rest, "", "")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        fail(f"{host!r} is no host; an IPv6 address stands in brackets")
    if not _HOST.fullmatch(host):
        fail(f"{host!r} is no host" if host else "there is no host")
    try:
        return Hop(user or None, host, port(number) if colon else DEFAULT_PORT)
    except argparse.ArgumentTypeError as error:
        fail(str(error))


def _has_port(text: str) -> bool:
    return ":" in text.rpartition("]")[2]


def _fail(option: str, text: str, problem: str) -> NoReturn:
    raise Failure(f"{option} {text}: {problem}; expected {_EXPECTED[option]}")


@frozen
class _Part:
    """What stands between two colons.

    Attributes:
        text: Itself, without brackets and backslashes.
        path: Whether it is the path of a socket.
    """

    text: str
    path: bool


class _Spec:
    """The argument of an option that asks for a forward.

    Attributes:
        parts: The argument in its parts.
    """

    def __init__(self, option: str, text: str, usual: str = LOOPBACK) -> None:
        self._usual = usual
        self._option = option
        self._text = text
        self.parts = self._cut()

    def forward(self) -> tuple[Address, Address]:
        """Where to listen and where to connect to."""
        parts = self.parts
        if parts[-1].path and len(parts) > 1:
            return self.listening(parts[:-1]), parts[-1].text
        if len(parts) < 3 and self._option == "-R" and not parts[0].path:
            raise Failure(f"-R {self._text}: there is no target; a SOCKS proxy at the server's side is not supported")
        if len(parts) < 3:
            self._fail("there is nothing to connect to")
        host, number = parts[-2:]
        if not host.text or host.path:
            self._fail(f"{host.text!r} is no host" if host.text else "the host to connect to is empty")
        return self.listening(parts[:-2]), (host.text, self._port(number, 1))

    def listening(self, parts: list[_Part]) -> Address:
        """Where ``parts`` say to listen."""
        number = parts[-1]
        if len(parts) == 1 and number.path:
            return number.text
        if len(parts) > 2:
            self._fail("there are too many colons; an IPv6 address stands in brackets")
        bind = parts[0] if len(parts) == 2 else None
        if bind is not None and bind.path:
            self._fail(f"{bind.text!r} is no address")
        listen = self._port(number, 0)
        if not listen and self._option != "-R":
            self._fail("port 0, which leaves the choice to the server, is for -R only")
        if bind is None:
            return self._usual, listen
        return EVERYWHERE if bind.text == "*" else bind.text, listen

    def _fail(self, problem: str) -> NoReturn:
        _fail(self._option, self._text, problem)

    def _port(self, part: _Part, least: int) -> int:
        try:
            return port(part.text, least)
        except argparse.ArgumentTypeError as error:
            self._fail(f"{error}; an IPv6 address stands in brackets" if "::" in self._text else str(error))

    def _cut(self) -> list[_Part]:
        parts: list[_Part] = []
        at = 0
        while True:
            match = _PART.match(self._text, at)
            if match is None:
                self._fail("a bracket is not closed, or something else than ':' follows it, or '\\' ends it")
            literal, plain, colon = match.groups()
            if literal is not None:
                parts.append(_Part(literal, "/" in literal))
            else:
                parts.append(_Part(_ESCAPED.sub(r"\1", plain), "/" in _ESCAPED.sub("", plain)))
            if not colon:
                return parts
            at = match.end()
