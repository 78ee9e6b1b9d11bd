"""Identification lines, whatever they are, as either side reads them; however they are cut, they are read alike."""

from __future__ import annotations

from typing import Any

from fuzz.clear import fit_to_show
from fuzz.running import main
from sshproto.config import Limits
from sshproto.errors import ConnectionLoss
from sshproto.transport.ident import IdentReader
from sshproto.wire.table import Role

LIMITS = Limits(preamble_lines=8, preamble_bytes=2000)
MODULES = ("sshproto.transport.ident",)


def _outcome(role: Role, pieces: list[bytes]) -> tuple[Any, ...]:
    reader = IdentReader(receiver=role, limits=LIMITS)
    error = ""
    fed = 0
    for piece in pieces:
        fed += len(piece)
        try:
            found = reader.feed(piece)
        except ConnectionLoss as problem:
            error = str(problem)
            break
        held = len(reader._buffer)
        if held > max(LIMITS.ident_line, LIMITS.preamble_bytes):
            raise AssertionError(f"{held} bytes are held")
        for line in () if found is None else (found.line, found.software, found.comments, *found.preamble):
            fit_to_show(line)
    sent = sum(map(len, pieces)) - fed
    return error, reader.version, reader.line, b"" if error else reader.rest + b"".join(pieces)[fed : fed + sent]


def fuzz(data: bytes) -> None:
    """Read ``data`` as both roles, whole, byte by byte, and cut at its ends of lines."""
    for role in Role:
        whole = _outcome(role, [data])
        if _outcome(role, [data[place : place + 1] for place in range(len(data))]) != whole and data:
            raise AssertionError("byte by byte it is another")
        if _outcome(role, data.splitlines(keepends=True)) != whole and data:
            raise AssertionError("line by line it is another")


def seeds() -> list[bytes]:
    """Good lines and bad ones."""
    ends = (b"\r\n", b"\n", b"\r\r\n", b"")
    lines = (
        *(b"SSH-2.0-x", b"SSH-2.0-x comment more", b"SSH-1.99-x", b"SSH-1.5-x", b"SSH-2.0-", b"SSH-2.0", b"SSH-2.01-x"),
        *(b"SSH-2.0-x\0y", b"SSH-2.0-x\x1b[2J", b"SSH-2.0-\xff\xfe", b"GET / HTTP/1.1", b"", b"hello", b"SSH"),
        *(b"SSH-2.0-" + b"x" * size for size in (243, 244, 245, 246, 1000)),
    )
    rest = b"\0\0\0\x0c\x0a\x14"
    found = [line + end + rest for line in lines for end in ends]
    preambles = (b"hello\r\n", b"\r\n" * 9, b"x" * 1990 + b"\n", b"x" * 3000, b"hello\n" * 8, b"S\nSS\nSSH\n")
    return found + [before + b"SSH-2.0-x\r\n" + rest for before in preambles]


if __name__ == "__main__":
    main("ident", fuzz, seeds, modules=MODULES)
