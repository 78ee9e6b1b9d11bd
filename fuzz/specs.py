"""The arguments of -L, -R, -D and -J, whatever they are: they are read or refused in a line.

The first byte of an input chooses the option.
"""

from __future__ import annotations

from typing import Any

from fuzz.running import main
from sshproto_cli import specs
from sshproto_cli.options import Failure

MODULES = ("sshproto_cli.specs",)
_OPTIONS: tuple[Any, ...] = (specs.local_forward, specs.remote_forward, specs.dynamic_forward, specs.hops)


def fuzz(data: bytes) -> None:
    """Read ``data`` as an argument."""
    text = data[1:].decode("utf-8", "surrogateescape")  # as a shell's arguments are
    option = _OPTIONS[(data[0] if data else 0) % len(_OPTIONS)]
    try:
        found = option(text)
    except Failure:
        return
    for part in found if isinstance(found, tuple) else (found,):
        if isinstance(part, specs.Hop) and not (0 < part.port < 65536 and part.host and not part.host.startswith("-")):
            raise AssertionError(f"a server that is none: {part!r}")


def seeds() -> list[bytes]:
    """Those of the manual, and odd ones."""
    texts = ("8080:host:80", "*:8080:host:80", "[::1]:8080:[::2]:80", "/run/a:/run/b", "/run/a:host:80", "8080:/run/b",
             ":0:host:80", "localhost:1:h:65535", "1:h:65536", "a\\:b:1:h:2", "1080", "[::1]:1080", "*:1080", "none",
             "", "alice@host:22,bob@[::1]:2222", "ssh://alice@host:22", "ssh://a%40b;x=y@[::1]/", "host", "-oProxy",
             "a@-h", ":::", "[", "[[]]", "\\", "0x10:h:1", "\uff11:h:1", "1:h:\xb2")  # fmt: skip
    return [bytes((option,)) + text.encode() for option in range(len(_OPTIONS)) for text in texts]


if __name__ == "__main__":
    main("specs", fuzz, seeds, modules=MODULES)
