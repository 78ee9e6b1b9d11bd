"""Compression of payloads (RFC 4253 section 6.2, RFC 1950, OpenSSH PROTOCOL 1.4).

One zlib stream runs through all packets of a direction and starts anew at each NEWKEYS.  ``zlib@openssh.com`` is the
same with a later start: nothing is compressed before USERAUTH_SUCCESS, so that an unauthenticated peer never reaches
the inflater.

The inflater is bounded: it stops one byte past its limit, whatever the packet would have become, and a packet that
inflates to nothing is refused, too, as it would cost work without counting as a message.
"""

from __future__ import annotations

import zlib

from sshproto.errors import CompressionError, InvalidArgument
from sshproto.values import frozen
from sshproto.wire.codec import Buffer


@frozen
class CompressionSpec:
    """A compression method.

    Attributes:
        name: Its name on the wire.
        zlib: Whether it compresses at all.
        delayed: It starts at USERAUTH_SUCCESS, not at NEWKEYS.
    """

    name: str
    zlib: bool
    delayed: bool = False

    def active(self, authenticated: bool) -> bool:
        """Whether payloads are compressed before (or after) login."""
        return self.zlib and (authenticated or not self.delayed)


COMPRESSIONS: dict[str, CompressionSpec] = {
    spec.name: spec
    for spec in (
        CompressionSpec("none", zlib=False),
        CompressionSpec("zlib", zlib=True),
        CompressionSpec("zlib@openssh.com", zlib=True, delayed=True),
    )
}
"""Every compression method by its name."""


class Deflater:
    """Compresses the payloads of one direction."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = zlib.compressobj()

    def deflate(self, head: bytes, body: Buffer) -> bytes:
        """The payload ``head + body``, compressed and flushed so that the peer can inflate all of it at once."""
        stream = self._stream
        # RFC 4253 section 6.2: "the output is flushed with a partial flush".
        return b"".join((stream.compress(head), stream.compress(body), stream.flush(zlib.Z_PARTIAL_FLUSH)))


class Inflater:
    """Inflates the payloads of one direction."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()

    def inflate(self, payload: Buffer, limit: int) -> bytes:
        """One payload inflated.

        Args:
            payload: The compressed payload of one packet.
            limit: The most bytes that it may become.

        Raises:
            CompressionError: It is not a continuation of the stream, it becomes longer than ``limit``, it becomes
                nothing, or the peer has ended the stream.
        """
        stream = self._stream
        try:
            data = stream.decompress(payload, limit + 1)
        except zlib.error as error:
            raise CompressionError(f"a compressed payload of {len(payload)} bytes does not inflate: {error}") from None
        if len(data) > limit or stream.unconsumed_tail:
            raise CompressionError(
                f"a compressed payload of {len(payload)} bytes inflates to more than {limit} bytes, which is the limit"
            )
        if stream.eof:
            raise CompressionError("the peer ended the compressed stream, which has to last as long as its keys")
        if not data:
            raise CompressionError(f"a compressed payload of {len(payload)} bytes inflates to nothing")
        return data


def compression(name: str) -> CompressionSpec:
    """The method of that name.

    Raises:
        InvalidArgument: There is none.
    """
    try:
        return COMPRESSIONS[name]
    except KeyError:
        raise InvalidArgument(f"no such compression: {name!r}; there are {', '.join(COMPRESSIONS)}") from None


def deflater(name: str, *, authenticated: bool) -> Deflater | None:
    """A fresh compressor, or None where payloads go uncompressed."""
    return Deflater() if compression(name).active(authenticated) else None


def inflater(name: str, *, authenticated: bool) -> Inflater | None:
    """A fresh decompressor, or None where payloads come uncompressed."""
    return Inflater() if compression(name).active(authenticated) else None
