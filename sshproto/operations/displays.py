"""Names of X11 displays, and the cookies that open them: what ``DISPLAY`` says and what ``~/.Xauthority`` holds.

All of it is values: the content of a file comes in as bytes, and whoever calls has read it.  The forms are those of the
X Window System: X(7) on display names, Xsecurity(7) on cookies, and libXau's file, whose numbers are all big-endian.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from sshproto.errors import InvalidArgument, SSHError
from sshproto.text import printable
from sshproto.values import Unpicklable, frozen

if TYPE_CHECKING:
    from sshproto.channels.requests import X11Request
    from sshproto.operations.forwarding import Address

MAGIC_COOKIE = "MIT-MAGIC-COOKIE-1"
"""The one way to prove oneself to a display that is forwarded: to know a secret of 16 bytes."""
COOKIE_SIZE = 16

BASE_PORT = 6000
"""Display 0 listens at this port, display 1 at the next."""
MAXIMUM_NUMBER = 65535 - BASE_PORT
MAXIMUM_SCREEN = 65535

MAXIMUM_FILE = 1024 * 1024
"""Longest Xauthority content that is looked at, in bytes."""
MAXIMUM_ENTRIES = 8192
MAXIMUM_PROTOCOL = 64
MAXIMUM_COOKIE = 256
"""Longest name of an authorization protocol, and longest cookie, that a client may ask for, in bytes."""

FAMILY_INTERNET = 0
FAMILY_INTERNET6 = 6
FAMILY_LOCAL = 256
FAMILY_WILD = 65535

_SOCKETS = "/tmp/.X11-unix/X"  # noqa: S108  where X servers listen, all over the world
_LOCAL_PROTOCOLS = frozenset({"unix", "local"})
_TCP_PROTOCOLS = frozenset({"tcp", "inet", "inet6"})
_NAME = re.compile(r"(?P<host>.*):(?P<number>[0-9]{1,5})(?:\.(?P<screen>[0-9]{1,5}))?", re.ASCII | re.DOTALL)
_SUFFIX = re.compile(r":[0-9]{1,5}\.(?P<screen>[0-9]{1,5})\Z", re.ASCII)
_PROTOCOL = re.compile(r"[A-Za-z0-9_.:/-]+", re.ASCII)
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+", re.ASCII)
_LONGEST_NAME = 1024


class XauthorityError(SSHError, ValueError):
    """The content of an Xauthority file is malformed, or more than is looked at."""


@frozen
class Cookie(Unpicklable):
    """What opens a display.

    Attributes:
        protocol: The name of the authorization protocol: :data:`MAGIC_COOKIE`.
        data: The secret.
    """

    protocol: str
    data: bytes = attrs.field(repr=False)

    @property
    def hex(self) -> str:
        """The secret as requests carry it (RFC 4254 section 6.3.1)."""
        return self.data.hex()


def asked_cookie(request: X11Request) -> Cookie:
    """The cookie that a client wants its programs to have.

    Raises:
        InvalidArgument: It can be none: what is no name, no hexadecimal, or too long.
    """
    if len(request.protocol) > MAXIMUM_PROTOCOL or not _PROTOCOL.fullmatch(request.protocol):
        raise InvalidArgument(
            f"an authorization protocol is 1 to {MAXIMUM_PROTOCOL} letters, digits and _.:/-,"
            f" not {printable(request.protocol, 100)}"
        )
    if len(request.cookie) > 2 * MAXIMUM_COOKIE or not _HEX.fullmatch(request.cookie):
        raise InvalidArgument(f"a cookie is 1 to {MAXIMUM_COOKIE} bytes in hexadecimal")
    return Cookie(request.protocol, bytes.fromhex(request.cookie))


@frozen
class Display:
    """Where an X server is.

    Attributes:
        host: Its machine; ``""`` for this one, by a socket in the file system.
        number: Which of the machine's displays.
        screen: Which of its screens.
        path: The path of its socket, if the name was one; ``""`` if not.
    """

    host: str
    number: int
    screen: int = 0
    path: str = ""

    @classmethod
    def parse(cls, name: str) -> Display:
        """A display by its name: ``:0``, ``unix:0.1``, ``host:10.0``, ``[::1]:10``, ``tcp/host:0``, or a path.

        Raises:
            InvalidArgument: It is no name of a display that can be reached here.
        """
        if len(name) > _LONGEST_NAME:
            raise InvalidArgument(f"the name of a display has {len(name)} characters, at most {_LONGEST_NAME} are read")
        shown = printable(name, 100)
        if "\0" in name:
            raise InvalidArgument(f"no name of a display: {shown}")
        if name.startswith("/"):
            number = _NAME.fullmatch(name)
            screen = _SUFFIX.search(name)
            return cls(
                "",
                min(int(number["number"]), MAXIMUM_NUMBER) if number else 0,
                min(int(screen["screen"]), MAXIMUM_SCREEN) if screen else 0,
                name,
            )
        found = _NAME.fullmatch(name)
        if found is None:
            raise InvalidArgument(f"no name of a display: {shown}; expected HOST:NUMBER or :NUMBER")
        host, number_, screen_ = found["host"], int(found["number"]), int(found["screen"] or 0)
        if number_ > MAXIMUM_NUMBER or screen_ > MAXIMUM_SCREEN:
            raise InvalidArgument(f"display {shown}: numbers go up to {MAXIMUM_NUMBER}, screens up to {MAXIMUM_SCREEN}")
        return cls(_host(host, shown), number_, screen_)

    def __str__(self) -> str:
        if self.path:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.number}.{self.screen}"

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where to connect to, in the order in which it is to be tried.

        A path that begins with a zero character is a socket in Linux's abstract namespace.
        """
        if self.path:
            shorter = _SUFFIX.search(self.path)
            return (self.path,) if shorter is None else (self.path, self.path[: shorter.start("screen") - 1])
        if not self.host:
            path = f"{_SOCKETS}{self.number}"
            return path, f"\0{path}"
        return ((self.host, BASE_PORT + self.number),)

    @property
    def local(self) -> bool:
        """Whether it is on this machine, as cookies are kept: by a socket, or by its loopback address."""
        if not self.host or self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _host(host: str, shown: str) -> str:
    """The machine in a display's name."""
    protocol, slash, rest = host.partition("/")
    if slash:
        if protocol in _LOCAL_PROTOCOLS:
            return ""
        if protocol not in _TCP_PROTOCOLS:
            raise InvalidArgument(f"display {shown}: only Unix-domain sockets and TCP are known")
        host = rest
    if host in _LOCAL_PROTOCOLS:
        return ""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in bare or bare != host:
        try:
            ipaddress.IPv6Address(bare)
        except ValueError:
            raise InvalidArgument(f"display {shown}: no host (and there is no DECnet here)") from None
    if (slash and not bare) or "/" in bare:
        raise InvalidArgument(f"display {shown}: no host")
    return bare


# ----------------------------------------------------------------------------------------------------------- Xauthority


@frozen
class Authority(Unpicklable):
    """An entry of an Xauthority file.

    Attributes:
        family: What ``address`` is: one of the families above, or another.
        address: The machine.
        number: Of the display, in decimal digits; empty for all.
        protocol: The authorization protocol.
        data: Its secret.
    """

    family: int
    address: bytes
    number: bytes
    protocol: bytes
    data: bytes = attrs.field(repr=False)

    def encode(self) -> bytes:
        """The entry as it stands in a file.

        Raises:
            InvalidArgument: A part has more than 65535 bytes, or the family is no such number.
        """
        parts = (self.address, self.number, self.protocol, self.data)
        if not 0 <= self.family <= 0xFFFF or any(len(part) > 0xFFFF for part in parts):
            raise InvalidArgument("a part of an Xauthority entry has more than 65535 bytes, or its family no 16 bits")
        return self.family.to_bytes(2, "big") + b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def read_authorities(content: bytes) -> tuple[Authority, ...]:
    """The entries of an Xauthority file.

    Raises:
        XauthorityError: It is malformed, or has more than 1 MiB or 8192 entries.
    """
    if len(content) > MAXIMUM_FILE:
        raise XauthorityError(f"an Xauthority file of {len(content)} bytes, at most {MAXIMUM_FILE} are read")
    found: list[Authority] = []
    offset = 0
    while offset < len(content):
        if len(found) >= MAXIMUM_ENTRIES:
            raise XauthorityError(f"more than {MAXIMUM_ENTRIES} entries in an Xauthority file")
        start = offset
        parts: list[bytes] = []
        family = _number(content, offset, start)
        offset += 2
        for _ in range(4):
            length = _number(content, offset, start)
            offset += 2
            if length > len(content) - offset:
                raise XauthorityError(
                    f"the Xauthority entry at byte {start} declares {length} bytes at byte {offset},"
                    f" {len(content) - offset} are left"
                )
            parts.append(content[offset : offset + length])
            offset += length
        found.append(Authority(family, *parts))
    return tuple(found)


def _number(content: bytes, offset: int, start: int) -> int:
    if len(content) - offset < 2:
        raise XauthorityError(f"the Xauthority entry at byte {start} is cut off")
    return int.from_bytes(content[offset : offset + 2], "big")


def write_authorities(entries: Iterable[Authority]) -> bytes:
    """The content of a file with these entries.

    Raises:
        InvalidArgument: One of them can't be written.
    """
    return b"".join(entry.encode() for entry in entries)


def authorities_for(number: int, cookie: Cookie, hostname: str) -> tuple[Authority, ...]:
    """The entries by which programs on this machine open a display that is forwarded to it.

    Args:
        number: The display's.
        cookie: What opens it.
        hostname: The machine's name, by which programs look for their local displays; a second entry holds for every
            name, for those that know the machine by another one.
    """
    digits, protocol = str(number).encode(), cookie.protocol.encode()
    return (
        Authority(FAMILY_LOCAL, hostname.encode("utf-8", "surrogateescape"), digits, protocol, cookie.data),
        Authority(FAMILY_WILD, b"", digits, protocol, cookie.data),
    )


def find_cookie(
    entries: Sequence[Authority], display: Display, hostname: str, addresses: Iterable[str] = ()
) -> Cookie | None:
    """The cookie for a display: of the first entry that is good for it, as programs choose; None if there is none.

    Args:
        entries: Of an Xauthority file.
        display: Which.
        hostname: This machine's name.
        addresses: What the name of the display's host stands for, if it is another machine's.
    """
    places: set[tuple[int, bytes]] = set()
    if display.local:
        places.add((FAMILY_LOCAL, hostname.encode("utf-8", "surrogateescape")))
    for address in () if display.local else (display.host, *addresses):
        try:
            packed = ipaddress.ip_address(address).packed
        except ValueError:
            continue
        places.add((FAMILY_INTERNET if len(packed) == 4 else FAMILY_INTERNET6, packed))
    digits = str(display.number).encode()
    for entry in entries:
        here = entry.family == FAMILY_WILD or (entry.family, entry.address) in places
        if here and entry.number in (b"", digits) and entry.protocol == MAGIC_COOKIE.encode():
            return Cookie(MAGIC_COOKIE, entry.data)
    return None
