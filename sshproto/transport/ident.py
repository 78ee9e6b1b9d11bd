"""The identification strings that both sides send before anything else (RFC 4253 sections 4.2 and 5.1).

A server may send other lines first; a client may not.  The line is kept as it came, without its CR LF, because it goes
into the exchange hash.  What is decided depends on the bytes alone, never on how they were cut into reads, and nothing
is kept beyond the limits.

Stricter than some: the protocol version is compared whole (``2.01`` is not ``2.0``), a NUL ends the connection as soon
as it is seen, a CR belongs to a line's end only.  More lenient than the RFC: a line may end in LF alone, and it may
hold bytes outside US-ASCII, which are escaped wherever they are shown.
"""

from __future__ import annotations

from functools import lru_cache

import attrs

from sshproto.config import Limits
from sshproto.errors import ConnectionLoss, InvalidArgument, LimitExceeded, ProtocolViolation, VersionUnsupported
from sshproto.events import VersionReceived
from sshproto.text import printable
from sshproto.wire.codec import Buffer
from sshproto.wire.table import Role

_MARK = b"SSH-"
_VERSIONS = ("2.0", "1.99")
"""What is SSH-2. 1.99 is a server that also speaks SSH-1 (section 5.1); OpenSSH takes it from a client as well."""

MAX_LINE = 255
"""Bytes of an identification line with its CR LF."""

_REMEMBERED = 64  # lines, so that connections that have the same one share it and what is read from it


@lru_cache(_REMEMBERED)
def our_line(software: str, comments: str) -> bytes:
    """This side's identification, without CR LF.

    Args:
        software: Name and version, printable US-ASCII without space or ``-``.
        comments: Anything more, printable US-ASCII; ``""`` for none.

    Raises:
        InvalidArgument: The line would be longer than 255 bytes with its CR LF, or is not US-ASCII.
    """
    text = f"SSH-2.0-{software}{' ' if comments else ''}{comments}"
    if not text.isascii() or not text.isprintable():
        raise InvalidArgument(f"an identification is printable US-ASCII (RFC 4253 section 4.2), not {text!r}")
    if len(text) > MAX_LINE - 2:
        raise InvalidArgument(
            f"the identification is {len(text)} bytes long; {MAX_LINE - 2} fit (RFC 4253 section 4.2)"
        )
    return text.encode("ascii")


class IdentReader:
    """Reads the peer's identification.

    Args:
        receiver: Our role: only a client accepts lines before the identification.
        limits: ``ident_line``, ``preamble_lines`` and ``preamble_bytes`` are obeyed.

    Attributes:
        line: The identification as received, without its line ending; ``b""`` until it is there.
        rest: What followed it.
        version: The event for the line; set as soon as a whole line that starts with ``SSH-`` is there, even when
            :meth:`feed` then refuses it.
    """

    __slots__ = (
        "_buffer",
        "_error",
        "_limits",
        "_preamble",
        "_preamble_bytes",
        "_receiver",
        "_scanned",
        "line",
        "rest",
        "version",
    )

    def __init__(self, *, receiver: Role, limits: Limits) -> None:
        self._receiver = receiver
        self._limits = limits
        self._buffer = bytearray()
        self._scanned = 0  # bytes of _buffer known to hold neither LF nor NUL
        self._preamble: list[str] = []
        self._preamble_bytes = 0
        self._error: ConnectionLoss | None = None
        self.line = b""
        self.rest = b""
        self.version: VersionReceived | None = None

    def feed(self, data: Buffer) -> VersionReceived | None:
        """Take bytes of the peer.

        Returns:
            The identification when it is complete; None while more is needed.

        Raises:
            VersionUnsupported: The peer speaks another version of SSH, or something that is not SSH.
            LimitExceeded: A line is too long, or there are too many before the identification.
            ProtocolViolation: The line is malformed.
        """
        if self._error is not None:
            raise self._error
        if self.version is not None:
            self.rest += data
            return self.version
        self._buffer += data
        try:
            return self._read()
        except ConnectionLoss as error:
            self._error = error
            self._buffer.clear()
            raise

    @property
    def words(self) -> str:
        """What came instead of an identification: the first line of it, printable; ``""`` if nothing did."""
        return self._preamble[0] if self._preamble else printable(bytes(self._buffer))

    def _read(self) -> VersionReceived | None:
        buffer = self._buffer
        while True:
            end = buffer.find(b"\n", self._scanned)
            stop = len(buffer) if end < 0 else end
            nul = buffer.find(b"\0", self._scanned, stop)
            self._check_length(stop if nul < 0 else nul)
            if nul >= 0:
                raise ProtocolViolation(
                    f"a NUL at offset {nul} of the line '{printable(bytes(buffer[:nul]))}' (RFC 4253 section 4.2)"
                )
            if end < 0:
                self._scanned = stop
                return None
            line = bytes(buffer[: end - 1 if buffer[end - 1 : end] == b"\r" else end])
            del buffer[: end + 1]
            self._scanned = 0
            if line.startswith(_MARK):
                self.rest = bytes(buffer)
                buffer.clear()
                return self._identified(line)
            self._add_to_preamble(line, end + 1)

    def _check_length(self, stop: int) -> None:
        """Refuse a line whose first ``stop`` bytes are not its end, if it can't be short enough any more."""
        limits = self._limits
        buffer = self._buffer
        # A line of which less than the mark is there may still become an identification.
        if self._receiver is Role.CLIENT and not _MARK.startswith(buffer[: len(_MARK)]):
            if stop >= limits.preamble_bytes - self._preamble_bytes:
                raise LimitExceeded(
                    f"the server sent more than {limits.preamble_bytes} bytes before its identification",
                    "preamble_bytes",
                )
        elif stop >= limits.ident_line:
            start = bytes(buffer[: limits.ident_line])
            if not start.startswith(_MARK):
                raise self._not_ssh(start)
            raise LimitExceeded(
                f"the identification is longer than {limits.ident_line} bytes: it starts '{printable(start, 64)}'",
                "ident_line",
            )

    def _add_to_preamble(self, line: bytes, size: int) -> None:
        if self._receiver is Role.SERVER:
            raise self._not_ssh(line)
        if len(self._preamble) >= self._limits.preamble_lines:
            raise LimitExceeded(
                f"the server sent more than {self._limits.preamble_lines} lines before its identification",
                "preamble_lines",
            )
        self._preamble_bytes += size
        self._preamble.append(printable(line, len(line)))

    def _not_ssh(self, line: bytes) -> VersionUnsupported:
        shown = printable(line)
        return VersionUnsupported(f"the client does not speak SSH: its first line is '{shown}'", shown)

    def _identified(self, line: bytes) -> VersionReceived:
        line, version, named = _parsed(line)
        self.line = line
        shown = version.line
        if self._preamble:
            version = attrs.evolve(version, preamble=tuple(self._preamble))
        self.version = version
        if version.protocol not in _VERSIONS:
            raise VersionUnsupported(
                f"the {self._receiver.peer.value} speaks version '{version.protocol}' of SSH, not 2.0: '{shown}'", shown
            )
        if not named:
            raise ProtocolViolation(f"the identification '{shown}' names no software (RFC 4253 section 4.2)")
        if b"\r" in line:
            raise ProtocolViolation(f"the identification '{shown}' has a CR inside (RFC 4253 section 4.2)")
        return version


@lru_cache(_REMEMBERED)
def _parsed(line: bytes) -> tuple[bytes, VersionReceived, bool]:
    """An identification, which many peers have in common: its line, what is in it, and whether it names software."""
    protocol, dash, rest = line[len(_MARK) :].partition(b"-")
    software, _, comments = rest.partition(b" ")
    version = VersionReceived(
        line=printable(line),
        protocol=printable(protocol),
        software=printable(software),
        comments=printable(comments),
        preamble=(),
    )
    return line, version, bool(dash and software)
