"""OpenSSH's key revocation lists: read, written, asked (OpenSSH's PROTOCOL.krl).

A list names certificates by serial number and key id, each for one authority or for all of them, and keys by their
blobs or digests.  A key that is revoked takes with it every certificate for it, and every one that it has signed.

Reading is bounded, and strict where something would otherwise go unheeded: a section that is not known, or an extension
that is critical, makes the whole list unreadable, and who cannot read a list should let nobody in.  Serial numbers are
kept as ranges, so that neither a range of 2^64 nor a bitmap costs memory by what it says.

Writing is canonical: the same content gives the same bytes, with the serials cut into lists, ranges and bitmaps so that
they take little room.  Bitmaps are kept to the 16384 bits that OpenSSH reads; it also writes longer ones.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, Self

import attrs

from sshproto.errors import InvalidArgument, KeyFormatError, SignatureInvalid, WireError
from sshproto.keys.certificates import Certificate, signed_with
from sshproto.keys.grants import read_plain
from sshproto.keys.public import KEY_TYPES, LOWEST_RSA_BITS, PublicKey, blob_type, fingerprint_of
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Buffer, Reader, byte, mpint, string, text, uint32, uint64

MAGIC = b"SSHKRL\n\0"
FORMAT_VERSION = 1

MAXIMUM_SIZE = 16 * 1024 * 1024
"""Longest list that is looked at, in bytes."""

MAXIMUM_ENTRIES = 500_000
"""Most entries of a list: ranges of serials (one that stands alone is one, too), key ids, keys and digests."""

MAXIMUM_BITMAP = 2**24
"""Longest bitmap that is read, in bits, as OpenSSH's own limit is."""

WRITTEN_BITMAP = 16384
"""Longest bitmap that is written, in bits: OpenSSH reads no longer number."""

MAXIMUM_SIGNATURES = 16

_CERTIFICATES, _KEYS, _SHA1, _SIGNATURE, _SHA256, _EXTENSION = 1, 2, 3, 4, 5, 255
_SERIALS, _RANGE, _BITMAP, _KEY_IDS, _CERTIFICATE_EXTENSION = 0x20, 0x21, 0x22, 0x23, 0x39

_LAST = 2**64 - 1
_ONES = re.compile("1+")

Ranges = tuple[tuple[int, int], ...]


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges in order, without overlaps, and as one where they touch."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            if high > found[-1][1]:
                found[-1] = (found[-1][0], high)
        else:
            found.append((low, high))
    return tuple(found)


@frozen
class RevokedCertificates:
    """What is revoked of one authority's certificates, or of everybody's.

    Attributes:
        authority: The blob of the authority's key; ``b""`` for all authorities.
        serials: Ranges of serial numbers, first and last, in order and apart from each other.
        key_ids: Key ids.
    """

    authority: bytes = b""
    serials: Ranges = attrs.field(default=(), converter=_merged)
    key_ids: frozenset[str] = frozenset()

    def covers(self, serial: int) -> bool:
        """Whether a serial number is revoked; 0 stands for none, and is not."""
        at = bisect.bisect_right(self.serials, (serial, _LAST)) - 1
        return serial != 0 and at >= 0 and serial <= self.serials[at][1]


def _joined(parts: Iterable[RevokedCertificates]) -> tuple[RevokedCertificates, ...]:
    """Authorities in order, each once, without those of whose certificates none is revoked."""
    ranges: dict[bytes, list[tuple[int, int]]] = {}
    key_ids: dict[bytes, set[str]] = {}
    for part in parts:
        ranges.setdefault(part.authority, []).extend(part.serials)
        key_ids.setdefault(part.authority, set()).update(part.key_ids)
    return tuple(
        RevokedCertificates(authority, ranges[authority], frozenset(key_ids[authority]))
        for authority in sorted(ranges)
        if ranges[authority] or key_ids[authority]
    )


@frozen(repr=False)
class KRL:
    """A key revocation list. What changes one gives another.

    Attributes:
        version: A number that grows with each change.
        generated: When it was made, in seconds since 1970.
        comment: Words that came with it, unverified; show them through :func:`sshproto.text.printable`.
        certificates: What is revoked of each authority's certificates, each authority once, in order.
        keys: The blobs of revoked keys.
        sha1: SHA-1 digests of the blobs of revoked keys.
        sha256: The same with SHA-256.
        signers: The keys that have signed the list that was read. Nothing that is written is signed: OpenSSH wants
            signatures of files for that (SSHSIG).
    """

    version: int = 0
    generated: int = 0
    comment: str = ""
    certificates: tuple[RevokedCertificates, ...] = attrs.field(default=(), converter=_joined)
    keys: frozenset[bytes] = frozenset()
    sha1: frozenset[bytes] = frozenset()
    sha256: frozenset[bytes] = frozenset()
    signers: tuple[PublicKey, ...] = ()

    # ---------------------------------------------------------------------------------------------------------- reading

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read the content of a file, all of it.

        Raises:
            KeyFormatError: It is none, is malformed, needs something that is not known here, or is too large.
        """
        if len(data) > MAXIMUM_SIZE:
            raise KeyFormatError(f"a revocation list of {len(data)} bytes came, at most {MAXIMUM_SIZE} are accepted")
        content = bytes(data)
        if not content.startswith(MAGIC):
            raise KeyFormatError(f"not a revocation list: it starts with {content[:8]!r}, expected {MAGIC!r}")
        reader = Reader(content, "revocation list", len(MAGIC))
        try:
            return cls(**_Reading().read(reader, content))
        except WireError as error:
            raise KeyFormatError(f"malformed {error}") from None

    # ----------------------------------------------------------------------------------------------------------- asking

    def revokes(self, item: PublicKey | Certificate) -> bool:
        """Whether a key or a certificate is revoked: see :meth:`why`."""
        return bool(self.why(item))

    def why(self, item: PublicKey | Certificate) -> str:
        """What makes a key or a certificate revoked, for an error message; ``""`` if it is not.

        A certificate is revoked by its serial number or key id, with the key that it is for, and with the authority's.
        """
        if isinstance(item, PublicKey):
            return self.why_blob(item.blob)
        if why := self.why_blob(item.key.blob):
            return why
        if why := self.why_blob(item.authority.blob):
            return f"its authority is: {why}"
        for revoked in self.certificates:
            if revoked.authority in (b"", item.authority.blob):
                whose = "its authority's" if revoked.authority else "anybody's"
                if item.key_id in revoked.key_ids:
                    return f"{whose} certificates with the key id {printable(item.key_id, 128)!r} are listed"
                if revoked.covers(item.serial):
                    return f"{whose} certificates with the serial number {item.serial} are listed"
        return ""

    def why_blob(self, blob: bytes) -> str:
        """What makes the key with this blob revoked, whatever type it is of; ``""`` if it is not."""
        digest = hashlib.sha256(blob).digest()
        how = ""
        if blob not in self.keys:
            if digest in self.sha256:
                how = " by its SHA-256 digest"
            elif self.sha1 and hashlib.sha1(blob, usedforsecurity=False).digest() in self.sha1:
                how = " by its SHA-1 digest"
            else:
                return ""
        return f"the key {printable(blob_type(blob), 64)} {fingerprint_of(blob)} is listed{how}"

    # --------------------------------------------------------------------------------------------------------- changing

    def revoke(self, *items: PublicKey | Certificate) -> Self:
        """The list with keys and certificates added, as ``ssh-keygen -k`` does.

        A key is revoked with everything that certifies it, or that it certifies. A certificate is revoked by its serial
        number, or its key id if it has none: its key stays good with another certificate.
        """
        keys = {item.blob for item in items if isinstance(item, PublicKey)}
        result = attrs.evolve(self, keys=self.keys | keys, signers=())
        return result._with(
            RevokedCertificates(
                item.authority.blob,
                [(item.serial, item.serial)] if item.serial else (),
                frozenset() if item.serial else frozenset({item.key_id}),
            )
            for item in items
            if isinstance(item, Certificate)
        )

    def revoke_serials(self, authority: PublicKey | None, *serials: int | tuple[int, int]) -> Self:
        """The list with certificates added by serial number.

        Args:
            authority: Whose certificates; None for everybody's.
            serials: Numbers from 1 on, or ranges: the first and the last.

        Raises:
            InvalidArgument: Something is no serial number, or no range.
        """
        ranges = [(each, each) if isinstance(each, int) else each for each in serials]
        for low, high in ranges:
            if not 1 <= low <= high <= _LAST:
                raise InvalidArgument(f"not serial numbers: {low} to {high}; they go from 1 up to 2^64 - 1")
        return self._with([RevokedCertificates(b"" if authority is None else authority.blob, ranges)])

    def revoke_key_ids(self, authority: PublicKey | None, *key_ids: str) -> Self:
        """The list with certificates added by key id.

        Args:
            authority: Whose certificates; None for everybody's.
            key_ids: The ids.

        Raises:
            InvalidArgument: An id has a NUL in it.
        """
        if any("\0" in each for each in key_ids):
            raise InvalidArgument("a key id holds no NUL")
        return self._with([RevokedCertificates(b"" if authority is None else authority.blob, (), frozenset(key_ids))])

    def revoke_fingerprints(self, *fingerprints: str) -> Self:
        """The list with keys added by their fingerprints, ``SHA256:`` or ``SHA1:`` and base64.

        Raises:
            InvalidArgument: One is something else.
        """
        found: dict[str, set[bytes]] = {"SHA256": set(), "SHA1": set()}
        for each in fingerprints:
            kind, _, encoded = each.partition(":")
            size = {"SHA256": 32, "SHA1": 20}.get(kind)
            try:
                digest = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
            except (binascii.Error, ValueError):
                digest = b""
            if len(digest) != size:
                raise InvalidArgument(f"not a fingerprint: {printable(each, 80)!r}; SHA256: or SHA1: and base64 is one")
            found[kind].add(digest)
        return attrs.evolve(self, sha1=self.sha1 | found["SHA1"], sha256=self.sha256 | found["SHA256"], signers=())

    def _with(self, parts: Iterable[RevokedCertificates]) -> Self:
        return attrs.evolve(self, certificates=(*self.certificates, *parts), signers=())

    # ---------------------------------------------------------------------------------------------------------- writing

    def encode(self) -> bytes:
        """The content of a file: authorities, key ids, keys and digests in order, without signatures.

        Raises:
            InvalidArgument: Something does not fit a list.
        """
        entries = len(self.keys) + len(self.sha1) + len(self.sha256)
        entries += sum(len(each.serials) + len(each.key_ids) for each in self.certificates)
        if entries > MAXIMUM_ENTRIES:
            raise InvalidArgument(f"a revocation list of {entries} entries is too long: {MAXIMUM_ENTRIES} are read")
        if not 0 <= self.version <= _LAST or not 0 <= self.generated <= _LAST or "\0" in self.comment:
            raise InvalidArgument(
                "version and time of a revocation list are from 0 to 2^64 - 1, its comment has no NUL"
            )
        parts = [MAGIC, uint32(FORMAT_VERSION), uint64(self.version), uint64(self.generated), uint64(0), string(b"")]
        parts.append(text(self.comment))
        for revoked in self.certificates:
            body = [_section(kind, data) for kind, data in _serial_sections(revoked.serials)]
            if revoked.key_ids:
                ids = sorted(each.encode("utf-8", "surrogateescape") for each in revoked.key_ids)
                body.append(_section(_KEY_IDS, b"".join(map(string, ids))))
            parts.append(_section(_CERTIFICATES, string(revoked.authority) + string(b"") + b"".join(body)))
        for kind, blobs in ((_KEYS, self.keys), (_SHA1, self.sha1), (_SHA256, self.sha256)):
            if blobs:
                parts.append(_section(kind, b"".join(map(string, sorted(blobs)))))
        return b"".join(parts)

    def __repr__(self) -> str:
        ranges = sum(len(each.serials) for each in self.certificates)
        key_ids = sum(len(each.key_ids) for each in self.certificates)
        digests = len(self.sha1) + len(self.sha256)
        return (
            f"<KRL version {self.version}: {ranges} ranges of serials and {key_ids} key ids of "
            f"{len(self.certificates)} authorities, {len(self.keys)} keys, {digests} digests>"
        )


# -------------------------------------------------------------------------------------------------------------- reading


class _Reading:
    """A list while it is read."""

    def __init__(self) -> None:
        self.serials: dict[bytes, list[tuple[int, int]]] = {}
        self.key_ids: dict[bytes, set[str]] = {}
        self.blobs: dict[int, set[bytes]] = {_KEYS: set(), _SHA1: set(), _SHA256: set()}
        self.signers: list[PublicKey] = []
        self.entries = 0

    def count(self, reader: Reader) -> None:
        """One more entry."""
        self.entries += 1
        if self.entries > MAXIMUM_ENTRIES:
            raise reader.error("", f"the list has more than {MAXIMUM_ENTRIES} entries")

    def read(self, reader: Reader, content: bytes) -> dict[str, Any]:
        """All from the format version on, as the fields of a :class:`KRL`."""
        version = reader.uint32("format version")
        if version != FORMAT_VERSION:
            raise KeyFormatError(f"unsupported revocation list: of format {version}, there is {FORMAT_VERSION}")
        number, generated = reader.uint64("version"), reader.uint64("date")
        reader.uint64("flags")
        reader.string("reserved")
        comment = read_plain(reader, "comment")
        while reader.remaining:
            kind = reader.byte("section type")
            data = reader.string("section")
            if kind == _SIGNATURE:
                self.signature(reader, content[: reader.offset], data)
                continue
            if self.signers:
                raise reader.error("", f"a section of type {kind} follows a signature")
            inner = Reader(data, f"revocation list section {kind}")
            if kind == _CERTIFICATES:
                self.certificates(inner)
            elif kind in self.blobs:
                self.digests(inner, kind)
            elif kind == _EXTENSION:
                _extension(inner)
            else:
                raise KeyFormatError(f"unsupported revocation list: it has a section of type {kind}")
        return {
            "version": number,
            "generated": generated,
            "comment": comment,
            "certificates": tuple(
                RevokedCertificates(authority, ranges, frozenset(self.key_ids[authority]))
                for authority, ranges in self.serials.items()
            ),
            "keys": frozenset(self.blobs[_KEYS]),
            "sha1": frozenset(self.blobs[_SHA1]),
            "sha256": frozenset(self.blobs[_SHA256]),
            "signers": tuple(self.signers),
        }

    def signature(self, reader: Reader, signed: bytes, blob: bytes) -> None:
        """A signature over everything before it, the key included."""
        if len(self.signers) == MAXIMUM_SIGNATURES:
            raise reader.error("", f"more than {MAXIMUM_SIGNATURES} signatures")
        key = PublicKey.from_blob(blob)
        signature = reader.string("signature")
        try:
            algorithm = signed_with(signature)
            if algorithm == "ssh-rsa":
                raise SignatureInvalid("it is made with SHA-1")
            key.verify(signature, signed, algorithm)
        except SignatureInvalid as error:
            raise KeyFormatError(f"the revocation list's signature is no good: {error}") from None
        self.signers.append(key)

    def certificates(self, reader: Reader) -> None:
        """A section about certificates."""
        authority = reader.string("authority")
        if authority:
            _check_key(authority, "authority")
        reader.string("reserved")
        ranges = self.serials.setdefault(authority, [])
        key_ids = self.key_ids.setdefault(authority, set())
        while reader.remaining:
            kind = reader.byte("certificate section type")
            data = reader.string("certificate section")
            inner = Reader(data, f"revocation list certificate section {kind:#x}")
            if kind == _KEY_IDS:
                while inner.remaining:
                    self.count(inner)
                    key_ids.add(read_plain(inner, "key id"))
            elif kind == _CERTIFICATE_EXTENSION:
                _extension(inner)
            elif kind in _SERIAL_READERS:
                for low, high in _SERIAL_READERS[kind](inner):
                    if not 1 <= low <= high <= _LAST:
                        raise inner.error("", f"serial numbers {low} to {high}: they go from 1 up to 2^64 - 1")
                    self.count(inner)
                    ranges.append((low, high))
            else:
                raise KeyFormatError(f"unsupported revocation list: it has a certificate section of type {kind:#x}")
            inner.end()

    def digests(self, reader: Reader, kind: int) -> None:
        """A section of keys, or of digests. They should be in order; OpenSSH does not insist, nor does this."""
        size = {_SHA1: 20, _SHA256: 32}.get(kind)
        while reader.remaining:
            self.count(reader)
            start = reader.offset
            blob = reader.string("entry")
            if size is None:
                _check_key(blob, "key")
            elif len(blob) != size:
                raise reader.error("entry", f"is a digest of {len(blob)} bytes, it has {size}", start)
            self.blobs[kind].add(blob)


def _check_key(blob: bytes, what: str) -> None:
    """Refuse what could never match: a certificate, or a key that is not in its one form. Types may be unknown."""
    kind = blob_type(blob)
    if "-cert-v0" in kind:
        raise KeyFormatError(f"malformed revocation list: a certificate as {what}, where a plain key is expected")
    if what == "authority" and kind in KEY_TYPES:
        PublicKey.from_blob(blob, minimum_rsa_bits=LOWEST_RSA_BITS)


def _extension(reader: Reader) -> None:
    """There is none that is known."""
    name, critical = reader.text("name"), reader.boolean("critical")
    reader.string("contents")
    reader.end()
    if critical:
        raise KeyFormatError(f"unsupported revocation list: it has the critical extension {printable(name, 64)!r}")


def _read_list(reader: Reader) -> Iterator[tuple[int, int]]:
    while reader.remaining:
        serial = reader.uint64("serial")
        yield serial, serial


def _read_range(reader: Reader) -> Iterator[tuple[int, int]]:
    yield reader.uint64("first"), reader.uint64("last")


def _read_bitmap(reader: Reader) -> Iterator[tuple[int, int]]:
    offset = reader.uint64("offset")
    start = reader.offset
    data = reader.string("bitmap", MAXIMUM_BITMAP // 8 + 1)
    if data and data[0] & 0x80:
        raise reader.error("bitmap", "is a negative number", start)
    bits = f"{int.from_bytes(data, 'big'):b}"[::-1]  # the bit of the first serial first
    for run in _ONES.finditer(bits):
        yield offset + run.start(), offset + run.end() - 1


_SERIAL_READERS = {_SERIALS: _read_list, _RANGE: _read_range, _BITMAP: _read_bitmap}


# -------------------------------------------------------------------------------------------------------------- writing


def _section(kind: int, data: bytes) -> bytes:
    return byte(kind) + string(data)


# What sections of serials cost, in bits.
_HEAD = 8 * 5
_START = {_SERIALS: _HEAD, _RANGE: _HEAD, _BITMAP: _HEAD + 8 * (8 + 4 + 1)}


def _chosen(serials: Ranges) -> list[tuple[int, bool]]:
    """For each range in which kind of section it goes, and whether a new one starts with it.

    The cheapest way to end in each of the three kinds is carried from range to range: to go on with a section costs
    little, to start another costs its head.  A bitmap ends where bits would be too far from its first; that one range
    were too long for it cannot be, as a section of its own costs far less.
    """
    # By kind: the cost so far, and the first serial of the section (which only a bitmap asks for).
    best: dict[int, tuple[int, int]] = {}
    came: list[dict[int, tuple[int, bool]]] = []
    last = 0
    for low, high in serials:
        count = high - low + 1
        before, previous = min(((cost, kind) for kind, (cost, _) in best.items()), default=(0, 0))
        now: dict[int, tuple[int, int]] = {}
        back: dict[int, tuple[int, bool]] = {}
        for kind, more in ((_RANGE, 128), (_SERIALS, 64 * count), (_BITMAP, count)):
            now[kind] = before + _START[kind] + more, low
            back[kind] = previous, True
            if kind in best and kind != _RANGE:
                cost, start = best[kind]
                cost += more if kind == _SERIALS else high - last
                if cost <= now[kind][0] and (kind == _SERIALS or high - start < WRITTEN_BITMAP):
                    now[kind] = cost, start
                    back[kind] = kind, False
        best = now
        came.append(back)
        last = high
    kind = min(best, key=lambda each: best[each][0], default=0)
    chosen: list[tuple[int, bool]] = []
    for back in reversed(came):
        previous, starts = back[kind]
        chosen.append((kind, starts))
        kind = previous
    return chosen[::-1]


def _serial_sections(serials: Ranges) -> Iterator[tuple[int, bytes]]:
    """The sections for some ranges of serials: kind and content."""
    chosen = _chosen(serials)
    groups = itertools.accumulate(starts for _, starts in chosen)
    numbered = zip(groups, chosen, serials, strict=True)
    for _, members in itertools.groupby(numbered, key=lambda each: each[0]):
        (_, (kind, _), first), *rest = members
        ranges = [first, *(each for _, _, each in rest)]
        if kind == _BITMAP:
            bits = 0
            for low, high in ranges:
                bits |= ((1 << (high - low + 1)) - 1) << (low - first[0])
            yield kind, uint64(first[0]) + mpint(bits)
        elif kind == _RANGE:
            yield kind, uint64(first[0]) + uint64(first[1])
        else:
            yield kind, b"".join(uint64(serial) for low, high in ranges for serial in range(low, high + 1))
