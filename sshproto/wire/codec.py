"""The data types of RFC 4251 section 5, and structures made of them.

A :class:`Reader` walks over a payload and never past its end: nothing is allocated from a declared length, every
error names structure, field and offset, and :meth:`Reader.end` makes trailing bytes an error.  Structures are attrs
classes derived from :class:`Struct` whose annotations are the wire types below; one generic codec serves them all, so
that a message is written down once, as the RFC writes it.

Names are ``str`` (RFC 4251 section 6 makes them US-ASCII), free text is ``str`` in which bytes that are not UTF-8
survive as surrogates (so that decode and encode are inverse), everything else is ``bytes``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import attrgetter
from typing import Annotated, Any, Protocol, Self

import attrs

from sshproto.errors import InvalidArgument, WireError
from sshproto.values import frozen
from sshproto.wire.shapes import IRREGULAR, Decode, Encode, shaped

Buffer = bytes | bytearray | memoryview

_UINT32 = struct.Struct(">I")
_UINT64 = struct.Struct(">Q")

MAX_MPINT_BITS = 16384
"""Longest mpint accepted: an RSA modulus of 16384 bits; nothing in SSH needs more."""

MAX_NAME_LENGTH = 64
"""Longest name that may be sent (RFC 4251 section 6)."""


def is_name(value: str) -> bool:
    """Whether ``value`` can be a name: 1 to 64 printable US-ASCII characters, no comma (RFC 4251 section 6)."""
    return 0 < len(value) <= MAX_NAME_LENGTH and value.isascii() and value.isprintable() and not set(value) & {" ", ","}


class Reader:
    """Reads the RFC 4251 types one after the other from ``data``.

    Args:
        data: The whole structure. A memoryview is copied piece by piece, never kept.
        where: The name of the structure, for errors.
        offset: Where to start.
    """

    __slots__ = ("_data", "_end", "offset", "where")

    def __init__(self, data: Buffer, where: str, offset: int = 0) -> None:
        self._data = data
        self._end = len(data)
        self.offset = offset
        self.where = where

    def error(self, field: str, problem: str, offset: int | None = None) -> WireError:
        """A :class:`WireError` at the current place, to be raised by the caller."""
        return WireError(self.where, field, self.offset if offset is None else offset, problem)

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return self._end - self.offset

    def raw(self, count: int, field: str = "") -> bytes:
        """The next ``count`` bytes as they are."""
        start = self.offset
        stop = start + count
        if stop > self._end:
            raise self.error(field, f"needs {count} bytes, {self._end - start} are left")
        self.offset = stop
        return bytes(self._data[start:stop])

    def byte(self, field: str = "") -> int:
        start = self.offset
        if start >= self._end:
            raise self.error(field, "needs 1 bytes, 0 are left")
        self.offset = start + 1
        return self._data[start]

    def boolean(self, field: str = "") -> bool:
        """All non-zero values are TRUE."""
        return self.byte(field) != 0

    def uint32(self, field: str = "") -> int:
        start = self.offset
        if start + 4 > self._end:
            raise self.error(field, f"needs 4 bytes, {self._end - start} are left")
        self.offset = start + 4
        value: int = _UINT32.unpack_from(self._data, start)[0]
        return value

    def uint64(self, field: str = "") -> int:
        return int.from_bytes(self.raw(8, field), "big")

    def string(self, field: str = "", limit: int | None = None) -> bytes:
        """A string: uint32 length, then that many bytes.

        Args:
            field: The field's name, for errors.
            limit: The longest that is accepted, in bytes.
        """
        start = self.offset
        begin = start + 4
        if begin > self._end:
            raise self.error(field, f"needs 4 bytes, {self._end - start} are left")
        length = _UINT32.unpack_from(self._data, start)[0]
        stop = begin + length
        if stop > self._end:
            raise self.error(field, f"declares a string of {length} bytes, {self._end - begin} are left")
        if limit is not None and length > limit:
            raise self.error(field, f"is {length} bytes long, at most {limit} are accepted")
        self.offset = stop
        return bytes(self._data[begin:stop])

    def text(self, field: str = "", limit: int | None = None) -> str:
        """A string of UTF-8 text; bytes that are not UTF-8 become surrogates, so that nothing is lost."""
        return self.string(field, limit).decode("utf-8", "surrogateescape")

    def name(self, field: str = "") -> str:
        """A string that should be a name: non-empty printable US-ASCII without comma or space is not enforced here,
        only that it is US-ASCII without NUL, so that unknown names can be answered rather than punished."""
        start = self.offset
        value = self.string(field)
        if not value.isascii() or b"\0" in value:
            raise self.error(field, "is not a name: bytes outside US-ASCII, or NUL", start)
        return value.decode("ascii")

    def mpint(self, field: str = "") -> int:
        """A non-negative or negative integer in its shortest form, at most :data:`MAX_MPINT_BITS` bits."""
        start = self.offset
        data = self.string(field, MAX_MPINT_BITS // 8 + 1)
        if not data:
            return 0
        if data[0] == 0 and (len(data) == 1 or data[1] < 0x80):
            raise self.error(field, "is an mpint with a superfluous leading 00", start)
        if data[0] == 0xFF and len(data) > 1 and data[1] >= 0x80:
            raise self.error(field, "is an mpint with a superfluous leading ff", start)
        value = int.from_bytes(data, "big", signed=True)
        if value.bit_length() > MAX_MPINT_BITS:
            raise self.error(field, f"is an mpint of {value.bit_length()} bits, at most {MAX_MPINT_BITS} can be", start)
        return value

    def name_list(self, field: str = "") -> tuple[str, ...]:
        """Names separated by commas; an empty string is an empty list."""
        start = self.offset
        data = self.string(field)
        if not data:
            return ()
        if not data.isascii() or b"\0" in data:
            raise self.error(field, "is not a name-list: bytes outside US-ASCII, or NUL", start)
        names = tuple(data.decode("ascii").split(","))
        if "" in names:
            raise self.error(field, "is a name-list with an empty name", start)
        return names

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.raw(self.remaining)

    def end(self) -> None:
        """Check that everything was read."""
        if self.offset != self._end:
            raise self.error("", f"{self.remaining} bytes too many at the end")


def byte(value: int) -> bytes:
    return bytes((value,))


def boolean(value: bool) -> bytes:
    return b"\1" if value else b"\0"


uint32: Callable[[int], bytes] = _UINT32.pack
uint64: Callable[[int], bytes] = _UINT64.pack


def string(value: Buffer) -> bytes:
    if type(value) is bytes:  # nearly always
        return _UINT32.pack(len(value)) + value
    if isinstance(value, str):
        raise InvalidArgument("a string of bytes is needed, not text; encode it first")
    if isinstance(value, memoryview):
        value = value.cast("B")  # its length is in items, which may be wider than bytes
    return b"".join((_UINT32.pack(len(value)), value))


def text(value: str) -> bytes:
    return string(value.encode("utf-8", "surrogateescape"))


def name(value: str) -> bytes:
    if "\0" in value:
        raise InvalidArgument("a name holds no NUL")
    data = value.encode("ascii")
    return _UINT32.pack(len(data)) + data


def mpint(value: int) -> bytes:
    """Two's complement, shortest form; zero is the empty string (RFC 4251 section 5)."""
    if value == 0:
        return b"\0\0\0\0"
    length = (value if value > 0 else ~value).bit_length() // 8 + 1
    return string(value.to_bytes(length, "big", signed=True))


def name_list(value: tuple[str, ...]) -> bytes:
    names = ",".join(value)
    if isinstance(value, str) or "" in value or (value and names.count(",") != len(value) - 1):
        raise InvalidArgument("a name in a name-list is not empty and holds no comma")
    return name(names)


# ------------------------------------------------------------------------------------------------ types for annotations


class WireType(Protocol):
    """How one field of a :class:`Struct` is read and written."""

    def read(self, reader: Reader, field: str) -> Any: ...

    def write(self, value: Any) -> bytes: ...


@frozen(repr=False)
class Codec:
    """A :class:`WireType` made of a reading and a writing function.

    Attributes:
        read, write: The functions.
        form: What it is to a plan: a letter of :mod:`struct`, or a word; ``""`` if it is special.
    """

    read: Callable[[Reader, str], Any]
    write: Callable[[Any], bytes]
    form: str = ""

    def __repr__(self) -> str:  # it stands in every signature that help() shows
        return self.read.__name__.removeprefix("_read_")


@frozen
class Fixed:
    """A field of a fixed number of bytes without a length (the KEXINIT cookie)."""

    length: int

    def read(self, reader: Reader, field: str) -> bytes:
        return reader.raw(self.length, field)

    def write(self, value: Buffer) -> bytes:
        if len(value) != self.length:
            raise InvalidArgument(f"a field of {self.length} bytes was given {len(value)}")
        return bytes(value)


@frozen
class Trailing:
    """A field that some peers leave out at the end of a message; then it has the default value."""

    inner: Codec
    default: Any

    @property
    def form(self) -> str:
        """That of a field that is not left out, which is the regular case."""
        return self.inner.form

    def read(self, reader: Reader, field: str) -> Any:
        return self.inner.read(reader, field) if reader.remaining else self.default

    def write(self, value: Any) -> bytes:
        return self.inner.write(value)


def _read_rest(reader: Reader, field: str) -> bytes:
    return reader.rest()


def _write_rest(value: Buffer) -> bytes:
    return bytes(memoryview(value))  # not bytes(value), which makes zeros of a number


_STRING = Codec(Reader.string, string, "string")
_TEXT = Codec(Reader.text, text, "text")

Byte = Annotated[int, Codec(Reader.byte, byte, "B")]
Boolean = Annotated[bool, Codec(Reader.boolean, boolean, "?")]
Uint32 = Annotated[int, Codec(Reader.uint32, uint32, "I")]
Uint64 = Annotated[int, Codec(Reader.uint64, uint64, "Q")]
String = Annotated[bytes, _STRING]
Text = Annotated[str, _TEXT]
Name = Annotated[str, Codec(Reader.name, name, "name")]
Mpint = Annotated[int, Codec(Reader.mpint, mpint)]
NameList = Annotated[tuple[str, ...], Codec(Reader.name_list, name_list)]
Rest = Annotated[bytes, Codec(_read_rest, _write_rest, "rest")]
TrailingString = Annotated[bytes, Trailing(_STRING, b"")]
TrailingText = Annotated[str, Trailing(_TEXT, "")]


class Plan:
    """How a class is read and written, found out once.

    Attributes:
        cls: The class.
        prefix: What stands before the fields.
        codecs: The fields in wire order, each with its type's codec.
        reads: For each field, its name and what reads it.
        values: The fields' values of an instance, and perhaps more.
        writes: What writes each.
        decode: :meth:`read_all`, or what is as good and faster.
        encode: :meth:`write_all`, or what is as good and faster.
    """

    __slots__ = ("cls", "codecs", "decode", "encode", "prefix", "reads", "values", "writes")

    def __init__(self, cls: type[Struct]) -> None:
        self.cls: Any = cls
        self.prefix = cls.prefix()
        self.codecs: tuple[tuple[str, WireType], ...] = tuple(
            (field.name, field.type.__metadata__[0]) for field in attrs.fields(cls)
        )
        names = [name for name, _ in self.codecs]
        self.reads = tuple((name, codec.read) for name, codec in self.codecs)
        # Of one name, attrgetter would give the value itself.
        self.values: Callable[[Any], tuple[Any, ...]] = attrgetter(*names, names[0]) if names else _no_values
        self.writes = tuple(codec.write for _, codec in self.codecs)
        usual = getattr(cls.read, "__func__", None) is getattr(Struct.read, "__func__", None)
        shape = shaped(self) if usual else None
        self.decode: Decode
        self.encode: Encode
        self.decode, self.encode = shape or (self.read_all, self.write_all)

    def read_all(self, data: Buffer) -> Any:
        """Decode ``data``, all of it, field by field."""
        cls = self.cls
        reader = Reader(data, cls.__name__)
        if self.prefix:
            cls.read_prefix(reader)
        value = cls.read(reader)
        reader.end()
        return value

    def write_all(self, value: Struct) -> bytes:
        """Encode ``value`` field by field."""
        try:
            fields = [write(field) for write, field in zip(self.writes, self.values(value), strict=False)]
        except IRREGULAR:
            raise value._unwritable() from None
        return b"".join((self.prefix, *fields))


def _no_values(value: object) -> tuple[Any, ...]:
    return ()


class _Plans(dict["type[Struct]", Plan]):
    def __missing__(self, cls: type[Struct]) -> Plan:
        return self.setdefault(cls, Plan(cls))


PLANS = _Plans()
"""The plan of each class, made when it is asked for."""


@frozen
class Struct:
    """A sequence of fields whose annotations are wire types.

    Subclasses are ``attrs.frozen``; they must be defined in a module that does *not* import ``annotations`` from
    ``__future__``, so that the annotations are the types themselves.
    """

    @classmethod
    def codecs(cls) -> tuple[tuple[str, WireType], ...]:
        """The fields in wire order, each with its type's codec."""
        return PLANS[cls].codecs

    @classmethod
    def prefix(cls) -> bytes:
        """What stands before the fields."""
        return b""

    @classmethod
    def read_prefix(cls, reader: Reader) -> None:
        """Read what stands before the fields, if that is anything, and check it."""

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read the fields; what follows them is left in ``reader``."""
        return cls(*[read(reader, field) for field, read in PLANS[cls].reads])

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Decode ``data``, all of it.

        Raises:
            WireError: A field is malformed, or bytes are left over.
        """
        value: Self = PLANS[cls].decode(data)
        return value

    def encode(self) -> bytes:
        """The fields as bytes, and what stands before them.

        Raises:
            InvalidArgument: A value does not fit its field.
        """
        return PLANS[type(self)].encode(self)

    def _unwritable(self) -> InvalidArgument:
        """Which field has a value that does not fit, and why."""
        for field, codec in self.codecs():
            try:
                codec.write(getattr(self, field))
            except IRREGULAR as error:
                problem = str(error) if isinstance(error, InvalidArgument) else f"{type(error).__name__}: {error}"
                return InvalidArgument(f"{type(self).__name__}.{field} cannot be sent: {problem}")
        return InvalidArgument(f"a {type(self).__name__} cannot be sent")
