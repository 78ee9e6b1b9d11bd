"""Compressed captures, inflated piece by piece: gzip (RFC 1952) and zstd (RFC 8878).

What comes out at once is bounded whatever goes in, so a small file that inflates to terabytes costs no memory; how much
comes out in all is bounded, too, by :class:`InflateLimits`.  gzip is in the standard library; zstd is from Python 3.14
on, and before that comes with ``pip install sshproto[zstd]``.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import attrs

from sshproto.values import frozen

PIECE = 256 * 1024
"""Most bytes that come out at once."""

SLICE = 16 * 1024
"""Most bytes that go in at once: what follows a short member is copied for each of them."""

MAGIC_SIZE = 4
"""So many bytes tell :func:`compression_of` the format."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte 50 to 5f

_WINDOW_LOG_MAX = 27
"""Largest zstd window that is accepted, as a power of two: 128 MiB, as ``zstd -d`` does."""


@frozen
class InflateLimits:
    """Bounds on what a compressed capture may inflate to.

    Attributes:
        ratio: Most bytes out for each byte in, on the whole; captures are rarely packed tighter than 50 to 1.
        free: So many bytes may come out before ``ratio`` counts.
        total: Most bytes out in all.
    """

    ratio: int = attrs.field(default=400, validator=attrs.validators.ge(1))
    free: int = attrs.field(default=64 << 20, validator=attrs.validators.ge(0))
    total: int = attrs.field(default=1 << 40, validator=attrs.validators.ge(1))


class InflateError(Exception):
    """Compressed data that are damaged or go past a limit; :mod:`~sshproto.replay.capture.reader` says where."""


def compression_of(start: bytes) -> str:
    """The compression that the first :data:`MAGIC_SIZE` bytes of a file show: ``"gzip"``, ``"zstd"`` or ``""``."""
    if start.startswith(_GZIP):
        return "gzip"
    if start[:4] == _ZSTD or (start[1:4] == _ZSTD_SKIPPABLE and start[0] >> 4 == 5):
        return "zstd"
    return ""


class _Decompressor(Protocol):
    """What :mod:`compression.zstd` offers, and what :mod:`zlib` is made to offer, too."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """A member of a gzip file; keeps the input that it has not looked at yet."""

    __slots__ = ("_full", "_inner")

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._full = False

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            result = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        except zlib.error as error:
            raise InflateError(str(error)) from None
        self._full = len(result) == max_length  # zlib may hold back some more, with all its input taken
        return result

    @property
    def needs_input(self) -> bool:
        return not self._full and not self._inner.unconsumed_tail and not self._inner.eof

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


class _Zstd:
    """A frame of a zstd file."""

    __slots__ = ("_error", "_inner")

    def __init__(self) -> None:
        zstd = _zstd_module()
        window = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
        self._inner: _Decompressor = zstd.ZstdDecompressor(options=window)
        self._error: type[Exception] = zstd.ZstdError

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return self._inner.decompress(data, max_length)
        except self._error as error:
            raise InflateError(str(error)) from None

    @property
    def needs_input(self) -> bool:
        return self._inner.needs_input

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


def _zstd_module() -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise InflateError("Python knows zstd from 3.14 on; before that: pip install 'sshproto[zstd]'") from None
    return zstd  # pyright: ignore[reportUnknownVariableType]


class Inflater:
    """Inflates one file, whatever the number of its members.

    Attributes:
        name: ``"gzip"`` or ``"zstd"``.
        taken: Bytes that went in.
        given: Bytes that came out.
    """

    __slots__ = ("_decompressor", "_limits", "_pending", "given", "name", "taken")

    def __init__(self, name: str, limits: InflateLimits) -> None:
        self.name = name
        self.taken = 0
        self.given = 0
        self._limits = limits
        self._decompressor: _Decompressor | None = None
        self._pending = b""  # between two members: too few bytes to tell what they begin

    @property
    def unfinished(self) -> bool:
        """Whether the data so far end within a member."""
        return self._decompressor is not None or bool(self._pending)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What ``data`` inflate to, in pieces of at most :data:`PIECE` bytes. All of it is to be taken.

        Raises:
            InflateError: The data are damaged, or go past a limit. What came out before is likely good, but of a gzip
                member only its end tells; up to :data:`PIECE` bytes before the damage may not have come out.
        """
        for place in range(0, len(data), SLICE):
            part = data[place : place + SLICE]
            self.taken += len(part)
            yield from self._inflate(part)

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._decompressor is None:
                data = self._begin(data)
            decompressor = self._decompressor
            if decompressor is None:
                return
            result = decompressor.decompress(data, PIECE)
            data = b""
            if result:
                self._count(len(result))
                yield result
            if decompressor.eof:
                self._decompressor = None
                data = decompressor.unused_data
            elif decompressor.needs_input:
                return

    def _begin(self, data: bytes) -> bytes:
        """Between two members: begin the next, if there is one. The data for it."""
        data = self._pending + data
        self._pending = b""
        if self.name == "gzip":
            data = data.lstrip(b"\0")  # tapes and some downloads pad with zeros (gzip does the same)
        if len(data) < MAGIC_SIZE:
            self._pending = data
            return b""
        if compression_of(data) != self.name:
            raise InflateError(f"what follows the last member begins with {data[:4].hex()}, expected another member")
        self._decompressor = _Gzip() if self.name == "gzip" else _Zstd()
        return data

    def _count(self, count: int) -> None:
        limits = self._limits
        self.given += count
        if self.given > limits.total:
            raise InflateError(f"inflates to more than {limits.total} bytes")
        if self.given > limits.free and self.given > limits.ratio * self.taken:
            raise InflateError(
                f"{self.taken} bytes inflate to {self.given}; at most {limits.ratio} for one are accepted"
            )
