"""``known_hosts`` as text: what ``ssh-keygen -F``, ``-R`` and ``-H`` do, and appending, as functions from text to text.

A line is taken here for what it seems to be: marker, names, a word for the type, something behind it. Whether that is a
key is :mod:`sshproto.keys.known_hosts`'s to say; here also what is no key any more can be found, and removed.

Whoever edits keeps all other lines as they are, byte for byte, also those that nobody can read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sshproto.config import Entropy, system_entropy
from sshproto.keys.known_hosts import (
    DEFAULT_PORT,
    MARKERS,
    hash_matches,
    hash_name,
    lookup_name,
    lower,
    match_patterns,
    split_hash,
)
from sshproto.keys.public import decode_text
from sshproto.text import printable
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.keys.public import PublicKey

Content = TypeVar("Content", str, bytes)
"""What is in a file: what comes as bytes goes as bytes, also those that are no UTF-8."""

_BLANKS = " \t"
_SALT = 20  # bytes


@frozen
class HostLine:
    """A line about some host.

    Attributes:
        line: Its number, from 1.
        marker: ``""``, ``"@revoked"`` or ``"@cert-authority"``.
        names: The patterns, or the hashed name.
        key: The rest: type, base64, comment.
        text: All of it, without its line feed.
    """

    line: int
    marker: str
    names: str
    key: str
    text: str

    @property
    def blob(self) -> bytes | None:
        """The key; None if there is none."""
        try:
            return base64.b64decode(_word(_word(self.key)[1])[0], validate=True)
        except (binascii.Error, ValueError):
            return None

    def covers(self, name: str) -> bool:
        """Whether it is about ``name``, which :func:`lookup_name <sshproto.keys.known_hosts.lookup_name>` made."""
        if self.names.startswith("|"):
            return hash_matches(self.names, name)
        return match_patterns(name, lower(self.names))


@frozen
class Edited(Generic[Content]):
    """Text that was edited.

    Attributes:
        text: What it is now.
        lines: The lines that were removed or replaced, as they were; none: nothing has changed.
        passed_over: The number of each line that was left as it is although it might have been meant, and why.
    """

    text: Content
    lines: tuple[HostLine, ...]
    passed_over: tuple[tuple[int, str], ...] = ()


def find(text: str | bytes, host: str, port: int = DEFAULT_PORT) -> tuple[HostLine, ...]:
    """The lines about a host, those with markers too, as ``ssh-keygen -F`` shows them.

    Raises:
        InvalidArgument: The host or the port is none.
    """
    name = lookup_name(host, port)
    return tuple(line for line in _scan(text) if isinstance(line, HostLine) and line.covers(name))


def append(text: Content, lines: str | Iterable[str]) -> Content:
    """``text`` with lines at its end, each on a line of its own whether or not the text ends with a line feed."""
    old = decode_text(text)
    more = [lines] if isinstance(lines, str) else list(lines)
    start = "\n" if old and more and not old.endswith("\n") else ""
    return _as(text, old + start + "".join(line if line.endswith("\n") else line + "\n" for line in more))


def remove(
    text: Content, host: str, port: int = DEFAULT_PORT, *, keys: Collection[PublicKey | bytes] | None = None
) -> Edited[Content]:
    """Remove the lines about a host but for those with markers, as ``ssh-keygen -R`` does.

    A file in which a line cannot be read, which ``ssh-keygen`` leaves alone, is edited all the same: the line stays.

    Args:
        text: The content of the file.
        host: Whose lines.
        port: The port; the same host has other lines for another one.
        keys: Only lines with one of these keys; None for all.

    Raises:
        InvalidArgument: The host or the port is none.
    """
    name = lookup_name(host, port)
    blobs = None if keys is None else {key if isinstance(key, bytes) else key.blob for key in keys}
    gone: dict[int, HostLine] = {}
    unread: list[tuple[int, str]] = []
    for line in _scan(text):
        if not isinstance(line, HostLine):
            unread.append(line)
        elif not line.marker and (blobs is None or line.blob in blobs) and line.covers(name):
            gone[line.line] = line
    kept = (line for number, line in enumerate(_lines(text), 1) if number not in gone)
    return Edited(_as(text, "".join(kept)), tuple(gone.values()), tuple(unread))


def hash_names(text: Content, *, entropy: Entropy = system_entropy) -> Edited[Content]:
    """Hide the names of hosts, as ``ssh-keygen -H`` does: a line for each name.

    Lines with markers or patterns stay as they are, since hashing would make others of them.

    Args:
        text: The content of the file.
        entropy: Source of the salts.
    """
    done: dict[int, HostLine] = {}
    made: dict[int, str] = {}
    passed_over: list[tuple[int, str]] = []
    for line in _scan(text):
        if not isinstance(line, HostLine):
            passed_over.append(line)
            continue
        if line.marker or line.names.startswith("|"):
            continue
        names = [lower(name) for name in line.names.split(",") if name]
        if any(mark in line.names for mark in "*?!") or not names:
            passed_over.append((line.line, f"{printable(line.names, 64)!r} is a pattern"))
            continue
        hashed = (hash_name(name, entropy(_SALT, "known_hosts salt")) for name in names)
        made[line.line] = "".join(f"{name} {line.key}\n" for name in hashed)
        done[line.line] = line
    out = "".join(made.get(number, old) for number, old in enumerate(_lines(text), 1))
    return Edited(_as(text, out), tuple(done.values()), tuple(passed_over))


def _as(like: Content, text: str) -> Content:
    made: Any = text if isinstance(like, str) else text.encode("utf-8", "surrogateescape")
    kind: Content = made
    return kind


def _lines(text: str | bytes) -> list[str]:
    """The lines with their line feeds; nothing else ends one."""
    lines = decode_text(text).split("\n")
    last = lines.pop()
    return [f"{line}\n" for line in lines] + ([last] if last else [])


def _scan(text: str | bytes) -> Iterator[HostLine | tuple[int, str]]:
    """The lines that are about hosts; of those that are nothing, the number, and why."""
    for number, line in enumerate(_lines(text), 1):
        bare = line.removesuffix("\n")
        rest = bare.lstrip(_BLANKS)
        if not rest.strip(_BLANKS + "\r") or rest.startswith("#"):
            continue
        marker = ""
        if rest.startswith("@"):
            marker, rest = _word(rest)
            if marker not in MARKERS:
                yield number, f"unknown marker {printable(marker, 40)}"
                continue
        names, key = _word(rest)
        kind, blob = _word(key)
        if kind.startswith("#") or not blob.strip(_BLANKS + "\r") or blob.startswith("#"):
            yield number, "it ends before the key"
        elif names.startswith("@"):
            yield number, "it has two markers"
        elif kind.isdigit():
            yield number, "an SSH-1 key"
        elif names.startswith("|") and not _is_hash(names):
            yield number, f"malformed hashed name {printable(names, 80)}"
        else:
            yield HostLine(number, marker, names, key, bare)


def _word(text: str) -> tuple[str, str]:
    """The first word of ``text``, and what follows it."""
    ends = [place for place in map(text.find, _BLANKS) if place >= 0]
    return (text[: min(ends)], text[min(ends) :].lstrip(_BLANKS)) if ends else (text, "")


def _is_hash(names: str) -> bool:
    try:
        split_hash(names)
    except (binascii.Error, ValueError):
        return False
    return True
