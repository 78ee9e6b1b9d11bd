"""The container of public keys that begins ``---- BEGIN SSH2 PUBLIC KEY ----`` (RFC 4716).

Headers but the comment are passed over, as section 3.3 has it; ``\\`` at the end of a header's line continues it.
"""

from __future__ import annotations

import base64
import re

from sshproto.errors import KeyFormatError
from sshproto.text import printable

BEGIN = "---- BEGIN SSH2 PUBLIC KEY ----"
END = "---- END SSH2 PUBLIC KEY ----"

MAXIMUM_BLOCK = 32 * 1024
"""Longest block that is looked at, in characters; an RSA key of 16384 bits has some 3000."""

LINE_SIZE = 72
"""Longest line that may be written, in bytes."""

MAXIMUM_VALUE = 1024
"""Longest value of a header that may be written, in bytes."""

_BODY_SIZE = 70
_WORD = "RFC 4716 public key"
_START = re.compile(f"^{BEGIN}[ \t]*$", re.MULTILINE)
_BREAK = re.compile("\r\n?|\n")


def is_rfc4716(content: str) -> bool:
    """Whether there is such a block in ``content``."""
    return BEGIN in content and _START.search(_BREAK.sub("\n", content)) is not None


def read(content: str) -> tuple[str, str]:
    """The base64 of the key, and the comment.

    Raises:
        KeyFormatError: The block is malformed.
    """
    content = _BREAK.sub("\n", content)
    start = _START.search(content)
    at = start.end() if start else 0
    stop = content.find(f"\n{END}", at)
    if stop < 0:
        raise KeyFormatError(f"{_WORD}: the file is cut short, {END!r} is missing")
    if stop - at > MAXIMUM_BLOCK:
        raise KeyFormatError(f"{_WORD}: {stop - at} characters; at most {MAXIMUM_BLOCK} are accepted")
    lines = iter(content[at:stop].split("\n"))
    comment = ""
    body: list[str] = []
    for line in lines:
        tag, colon, value = line.partition(":")
        if not colon:
            body.append(line.strip(" \t"))
            continue
        if any(body):
            raise KeyFormatError(f"{_WORD}: the header {printable(tag, 40)!r} comes after the key has begun")
        while value.endswith("\\"):
            following = next(lines, None)
            if following is None:
                raise KeyFormatError(f"{_WORD}: the header {printable(tag, 40)!r} does not end")
            value = value[:-1] + following
        if tag.lower() == "comment":
            comment = _unquote(value.strip(" "))
    return "".join(body), comment


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return _encode(value).decode("utf-8", "surrogateescape")  # a character may have been cut in two by a line's end


def _encode(words: str) -> bytes:
    return words.encode("utf-8", "surrogateescape")


def write(blob: bytes, comment: str) -> str:
    """The text of a file; a comment that is too long for the format is cut."""
    lines = [BEGIN]
    if comment:
        comment = comment[:MAXIMUM_VALUE]
        while len(_encode(comment)) > MAXIMUM_VALUE - 2:
            comment = comment[:-1]
        comment = comment.rstrip()
        lines += _fold(f'Comment: "{comment}"')
    encoded = base64.b64encode(blob).decode("ascii")
    lines += (encoded[at : at + _BODY_SIZE] for at in range(0, len(encoded), _BODY_SIZE))
    return "\n".join((*lines, END, ""))


def _fold(header: str) -> list[str]:
    """A header, in lines of at most 72 bytes that end between two characters."""
    lines: list[str] = []
    line = ""
    for position, character in enumerate(header, 1):
        room = LINE_SIZE - (position < len(header))
        if len(_encode(line + character)) > room:
            lines.append(line + "\\")
            line = ""
        line += character
    return [*lines, line]
