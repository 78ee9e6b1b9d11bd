"""X servers without a screen, and who shows something on them."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from sshproto.operations.displays import (
    FAMILY_WILD,
    MAGIC_COOKIE,
    Authority,
    Cookie,
    authorities_for,
    write_authorities,
)
from tests.support.peers import SECONDS, environment, need, run


@attrs.frozen
class Screen:
    """A display that nobody sees.

    Attributes:
        name: What ``DISPLAY`` is to say.
        authority: The file with its cookie.
        cookie: In hexadecimal.
        home: A home for programs.
    """

    name: str
    authority: Path
    cookie: str = attrs.field(repr=False)
    home: Path

    @property
    def variables(self) -> dict[str, str]:
        """What a program here needs in order to show something on it."""
        return {"DISPLAY": self.name, "XAUTHORITY": str(self.authority)}

    def windows(self) -> str:
        """The names of all windows that there are."""
        argv = [need("xwininfo"), "-root", "-tree", "-display", self.name]
        return run(argv, environment(self.home, **self.variables)).stdout.decode(errors="replace")

    def until_shown(self, title: str, process: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until there is a window with this title."""
        deadline = time.monotonic() + SECONDS
        while f'"{title}"' not in (windows := self.windows()):
            assert process is None or process.poll() is None, f"ended with {process.poll()}"
            assert time.monotonic() < deadline, windows
            time.sleep(0.05)

    def until_gone(self, title: str) -> None:
        """Wait until there is none."""
        deadline = time.monotonic() + SECONDS
        while f'"{title}"' in self.windows():
            assert time.monotonic() < deadline, f"{title} is still there"
            time.sleep(0.05)


@contextlib.contextmanager
def screen(directory: Path) -> Iterator[Screen]:
    """An X server that lets in who has its cookie. It chooses the display's number itself."""
    program = need("Xvfb")
    for other in ("xauth", "xclock", "xwininfo", "xdpyinfo"):
        need(other)
    cookie = secrets.token_bytes(16)
    authority = directory / "screen-authority"
    authority.touch(mode=0o600)
    authority.write_bytes(write_authorities([Authority(FAMILY_WILD, b"", b"", MAGIC_COOKIE.encode(), cookie)]))
    read, write = os.pipe()
    argv = [program, "-displayfd", str(write), "-auth", str(authority), "-nolisten", "tcp", "-noreset"]
    with (
        os.fdopen(read, "rb") as numbers,
        (directory / "screen-log").open("wb") as log,
        subprocess.Popen(
            [*argv, "-screen", "0", "320x240x8"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(write,),
            env=environment(directory),
            start_new_session=True,
        ) as process,
    ):
        os.close(write)
        try:
            number = numbers.readline().strip().decode()
            assert number, (directory / "screen-log").read_text(errors="replace")
            # What the server itself has read said nothing of a number, nor of a machine; some clients insist on both.
            entries = authorities_for(int(number), Cookie(MAGIC_COOKIE, cookie), socket.gethostname())
            authority.write_bytes(write_authorities(entries))
            yield Screen(f":{number}", authority, cookie.hex(), directory)
        finally:
            process.terminate()
            process.wait(SECONDS)
