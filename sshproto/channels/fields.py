"""Types of the fields that channel and global requests have beyond RFC 4251's: bounded strings, ports, terminal modes.

Each checks in both directions, so that what we decode we could also send.
"""

# No "from __future__ import annotations" here: the annotations are wire types.

from typing import Annotated

from sshproto.values import frozen
from sshproto.wire.codec import Codec, Reader, string, uint32

MAX_TERM = 256
"""Bytes of a terminal's name."""
MAX_MODES = 1024
"""Bytes of encoded terminal modes."""
MAX_ENV_NAME = 256
MAX_ENV_VALUE = 32 * 1024
MAX_SOCKET_PATH = 108
"""Bytes of the path of a Unix-domain socket, as in Linux' ``sun_path``."""

TTY_OP_END = 0
FIRST_UNDEFINED_MODE = 160
"""Opcodes from here on have arguments of unknown length: parsing stops (RFC 4254 section 8)."""


@frozen
class Bounded:
    """A string of at most ``limit`` bytes, none of which is in ``forbidden``."""

    limit: int
    forbidden: bytes = b"\0"

    def _problem(self, value: bytes) -> str:
        if len(value) > self.limit:
            return f"is {len(value)} bytes long, at most {self.limit} are accepted"
        for octet in self.forbidden:
            if octet in value:
                return f"holds the byte {octet:02x}"
        return ""

    def read(self, reader: Reader, field: str) -> bytes:
        start = reader.offset
        value = reader.string(field, self.limit)
        problem = self._problem(value)
        if problem:
            raise reader.error(field, problem, start)
        return value

    def write(self, value: bytes) -> bytes:
        problem = self._problem(value)
        if problem:
            raise ValueError(problem)
        return string(value)


@frozen
class BoundedText:
    """The same as text, counted in bytes of UTF-8."""

    inner: Bounded

    def read(self, reader: Reader, field: str) -> str:
        return self.inner.read(reader, field).decode("utf-8", "surrogateescape")

    def write(self, value: str) -> bytes:
        return self.inner.write(value.encode("utf-8", "surrogateescape"))


def _read_port(reader: Reader, field: str) -> int:
    port = reader.uint32(field)
    if port > 65535:
        raise reader.error(field, f"is {port}, which is no port", reader.offset - 4)
    return port


def _write_port(value: int) -> bytes:
    if value > 65535:
        raise ValueError(f"{value} is no port")
    return uint32(value)


def _read_modes(reader: Reader, field: str) -> tuple[tuple[int, int], ...]:
    inner = Reader(reader.string(field, MAX_MODES), f"{reader.where}.{field}")
    modes: list[tuple[int, int]] = []
    while inner.remaining:  # OpenSSH, too, takes the end of the string for a missing TTY_OP_END
        opcode = inner.byte("opcode")
        if opcode == TTY_OP_END or opcode >= FIRST_UNDEFINED_MODE:
            break
        modes.append((opcode, inner.uint32(f"mode {opcode}")))
    return tuple(modes)


def _write_modes(value: tuple[tuple[int, int], ...]) -> bytes:
    parts: list[bytes] = []
    for opcode, argument in value:
        if not TTY_OP_END < opcode < FIRST_UNDEFINED_MODE:
            raise ValueError(f"{opcode} is no opcode of a terminal mode (RFC 4254 section 8)")
        parts.append(bytes((opcode,)) + uint32(argument))
    modes = b"".join(parts) + bytes((TTY_OP_END,))
    if len(modes) > MAX_MODES:
        raise ValueError(f"terminal modes of {len(modes)} bytes, at most {MAX_MODES} are sent")
    return string(modes)


def _read_strings(reader: Reader, field: str) -> tuple[bytes, ...]:
    values: list[bytes] = []
    while reader.remaining:
        values.append(reader.string(f"{field}[{len(values)}]"))
    return tuple(values)


def _write_strings(value: tuple[bytes, ...]) -> bytes:
    return b"".join(map(string, value))


Port = Annotated[int, Codec(_read_port, _write_port)]
Modes = Annotated[tuple[tuple[int, int], ...], Codec(_read_modes, _write_modes)]
Strings = Annotated[tuple[bytes, ...], Codec(_read_strings, _write_strings)]
Host = Annotated[str, BoundedText(Bounded(64 * 1024))]  # Limits.host_name is what counts
Term = Annotated[str, BoundedText(Bounded(MAX_TERM))]
EnvName = Annotated[str, BoundedText(Bounded(MAX_ENV_NAME, b"\0="))]
EnvValue = Annotated[bytes, Bounded(MAX_ENV_VALUE)]
Path = Annotated[str, BoundedText(Bounded(MAX_SOCKET_PATH))]
