"""Displays of this machine for programs at a server: what the environment and ``~/.Xauthority`` say of them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from sshproto.errors import InvalidArgument
from sshproto.operations.displays import (
    MAGIC_COOKIE,
    MAXIMUM_FILE,
    Cookie,
    Display,
    XauthorityError,
    find_cookie,
    read_authorities,
)
from sshproto.operations.x11 import X11Forwarding
from sshproto.text import printable

_XAUTH_SECONDS = 10.0
_SLACK = 60
"""Seconds that a cookie which ends is good for after the time in which it can be asked for."""


def display(
    name: str | None = None,
    *,
    trusted: bool,
    timeout: float | None = None,
    single: bool = False,
    authority: str | Path | None = None,
    xauth: str | Path = "xauth",
    optional: bool = False,
    warn: Callable[[str], object] | None = None,
) -> X11Forwarding:
    """A display of this machine, to be given to sessions as ``x11=``.

    Args:
        name: Which; what the environment variable ``DISPLAY`` says if None.
        trusted: Programs at the server may do with it whatever programs here may: read what is typed elsewhere, for
            example. Otherwise ``xauth`` makes a cookie with which they may not; not every X server can.
        timeout: Seconds after which no new connections are taken; None for never.
        single: For one connection only.
        authority: The file with the cookies; ``$XAUTHORITY`` or ``~/.Xauthority`` if None.
        xauth: The program that makes cookies for what is not trusted.
        optional: The session goes on without a display if the server refuses.
        warn: Told of what was turned away, and of a display that has no cookie.

    Raises:
        InvalidArgument: There is no display of that name.
        XauthorityError: The file is malformed.
        OSError: It can't be read, or there is no cookie for what is not trusted.
    """
    if name is None:
        name = os.environ.get("DISPLAY", "")
        if not name:
            raise InvalidArgument("there is no display to forward: DISPLAY is not set")
    found = Display.parse(name)
    cookie = _cookie(found, authority) if trusted else _limited(name, found, authority, timeout, str(xauth))
    if cookie is None and warn is not None:
        warn(f"display {name} has no cookie: who connects to it will show none")
    return X11Forwarding(
        display=found,
        cookie=cookie,
        entropy=os.urandom,
        single=single,
        timeout=timeout,
        optional=optional,
        warn=warn,
    )


def authority_file(authority: str | Path | None = None) -> Path:
    """The file with the cookies of displays.

    Raises:
        OSError: Nobody knows where it is.
    """
    if authority is None:
        authority = os.environ.get("XAUTHORITY") or None
    if authority is not None:
        return Path(authority)
    try:
        return Path.home() / ".Xauthority"
    except RuntimeError as error:
        raise OSError(str(error)) from None


def _cookie(display: Display, authority: str | Path | None) -> Cookie | None:
    """What opens a display; None if there is nothing.

    Raises:
        XauthorityError, OSError: See :func:`display`.
    """
    try:
        with authority_file(authority).open("rb") as file:
            content = file.read(MAXIMUM_FILE + 1)
    except FileNotFoundError:
        return None
    return find_cookie(read_authorities(content), display, socket.gethostname(), _addresses(display))


def _addresses(display: Display) -> list[str]:
    """The addresses of a display's machine, if it is another one and goes by a name."""
    if display.local:
        return []
    try:
        return [str(one[4][0]) for one in socket.getaddrinfo(display.host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return []


def _limited(name: str, display: Display, authority: str | Path | None, timeout: float | None, xauth: str) -> Cookie:
    """A cookie with which a program may not do everything; the X server makes it, for who has the true one.

    Raises:
        OSError: It can't be had.
    """
    path = shutil.which(xauth)
    if path is None:
        raise OSError(f"no cookie for programs that are not trusted: there is no program {xauth}")
    seconds = () if timeout is None else ("timeout", str(int(timeout) + _SLACK))
    with tempfile.TemporaryDirectory(prefix="sshproto-") as directory:  # mode 0700
        made = Path(directory) / "xauthority"
        environment = dict(os.environ)
        if authority is not None:  # it reads the true cookie where all programs do
            environment["XAUTHORITY"] = str(authority)
        words = [path, "-f", str(made), "generate", name, MAGIC_COOKIE, "untrusted", *seconds]
        try:
            done = subprocess.run(  # noqa: S603  a program of the user's own, with words of ours
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=environment,
                timeout=_XAUTH_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"no cookie for programs that are not trusted: {xauth} does not end") from None
        try:
            found = find_cookie(read_authorities(made.read_bytes()), display, socket.gethostname(), _addresses(display))
        except (FileNotFoundError, XauthorityError):
            found = None
    if found is None:
        said = printable(done.stderr.strip().rpartition(b"\n")[2], 500) or "the X server makes none"
        raise OSError(f"no cookie for programs that are not trusted: {said}")
    return found
