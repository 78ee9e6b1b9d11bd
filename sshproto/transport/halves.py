"""What a packet cipher is to who frames packets: a half that opens and a half that seals, each with its own keys.

:mod:`sshproto.transport.ciphers` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from sshproto.wire.codec import Buffer

View = memoryview | bytes
"""Input, as packets are read from it."""

Crypt = Callable[[bytes, Buffer, Buffer], bytes]
"""What encrypts or decrypts: from nonce, data and associated data to the result."""

Aead = tuple[Iterator[bytes], Crypt]
"""The nonces of the packets in turn, and what uses them."""


class Opening(Protocol):
    """One direction of received packets under one set of keys.

    Attributes:
        clear: packet_length is the first four bytes as they are; :meth:`length` is not called.
        prefix: Bytes that have to be there before the length can be known.
        overhead: Bytes of a packet beyond packet_length: the length itself and the tag.
        alignment: What packet_length (plus ``counted``) is a multiple of.
        counted: 4 if the length field takes part in the alignment, else 0.
        conceals: A bad length must not be told from a bad tag (RFC 4253 section 6.4 encrypts before it
            authenticates, CVE-2008-5161); :meth:`doom` is called instead.
        name: What errors call it.
        aead: Of AES-GCM, for who opens small packets without the detour of :meth:`open`; else None. What is sealed
            follows a clear length of four bytes, and is associated with it.
    """

    clear: bool
    prefix: int
    overhead: int
    alignment: int
    counted: int
    conceals: bool
    name: str

    @property
    def aead(self) -> Aead | None: ...

    def length(self, view: View, offset: int, sequence: int) -> int:
        """Decrypt the packet_length of the packet at ``offset``. Called once for each packet, before :meth:`open`."""
        ...

    def open(self, view: View, offset: int, length: int, sequence: int) -> memoryview | bytes:
        """Verify and decrypt the packet at ``offset``.

        Returns:
            Padding length, payload and padding, maybe with anything after them; ``length`` bytes count. Valid until
            the next call.

        Raises:
            MacError: The tag is wrong.
        """
        ...

    def doom(self) -> None:
        """The packet whose length was just read fails when it is opened, whatever its tag."""


class Sealing(Protocol):
    """One direction of sent packets under one set of keys; the attributes are as in :class:`Opening`."""

    alignment: int
    counted: int

    @property
    def aead(self) -> Aead | None: ...

    def seal(self, length: int, head: bytes, body: Buffer, padding: bytes, sequence: int) -> bytes | bytearray:
        """The finished packet of payload ``head + body``; ``length`` is its packet_length."""
        ...
