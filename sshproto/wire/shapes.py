"""The shapes that most structures have, each read and written in one go.

The codec does a structure field by field, each by a call: that tells exactly what is wrong with it, and is far dearer
than the work itself.  Nearly all that comes and goes in a login and with a command has one of four shapes:

- nothing: SSH_MSG_NEWKEYS, a session's SSH_MSG_CHANNEL_OPEN;
- numbers: SSH_MSG_CHANNEL_CLOSE, ``exit-status``; also with a rest: SSH_MSG_CHANNEL_OPEN_CONFIRMATION;
- strings, perhaps with a rest: SSH_MSG_USERAUTH_REQUEST, SSH_MSG_KEX_ECDH_REPLY, ``exec``;
- an envelope, which is a name among numbers, and the rest: SSH_MSG_CHANNEL_REQUEST, SSH_MSG_GLOBAL_REQUEST.

The functions made here do what is regular, and nothing else.  Whatever is malformed, or legal and rare, is left to
``reference``, the codec's own function, which does it over from the beginning and knows every error: they are faster,
and not more lenient.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sshproto.wire.codec import Buffer, Plan

Decode = Callable[["Buffer"], Any]
Encode = Callable[[Any], bytes]

IRREGULAR = (struct.error, ValueError, TypeError, OverflowError, AttributeError)
"""What is raised where a value does not fit its field; also if bytes are too few, or not ASCII."""

_NUMBERS = frozenset("B?IQ")  # forms of fields that struct knows
_STRING: tuple[str, ...] = ()
_TEXT = ("utf-8", "surrogateescape")
_NAME = ("ascii",)
_DECODED = {"string": _STRING, "text": _TEXT, "name": _NAME}  # with what bytes are decoded to be the value
_REST = "rest"
_LENGTH = struct.Struct(">I")


def shaped(plan: Plan) -> tuple[Decode, Encode] | None:
    """What does the same as ``plan.read_all`` and ``plan.write_all``; None if the class has no such shape."""
    forms = [getattr(codec, "form", "") for _, codec in plan.codecs]
    rest = forms[-1:] == [_REST]
    before = forms[:-1] if rest else forms
    if not forms:
        return _nothing(plan)
    if _NUMBERS.issuperset(before):
        return _numbers_and_rest(plan, before) if rest else _numbers(plan, before)
    if _DECODED.keys() >= set(before):
        return _strings(plan, before, rest)
    if rest and before.count("name") == 1 and _NUMBERS.issuperset(set(before) - {"name"}):
        return _envelope(plan, before)
    return None


def _nothing(plan: Plan) -> tuple[Decode, Encode]:
    only, prefix, reference = plan.cls(), plan.prefix, plan.read_all  # one instance is as good as another
    return lambda data: only if data == prefix else reference(data), lambda _value: prefix


def _numbers(plan: Plan, forms: list[str]) -> tuple[Decode, Encode]:
    cls, prefix, read_all, write_all, values = plan.cls, plan.prefix, plan.read_all, plan.write_all, plan.values
    count, begin, numbers = len(forms), len(prefix), struct.Struct(">" + "".join(forms))
    unpack, pack, end = numbers.unpack_from, numbers.pack, begin + numbers.size

    def decode(data: Buffer) -> Any:
        if len(data) == end and data[:begin] == prefix:
            return cls(*unpack(data, begin))
        return read_all(data)

    def encode(value: Any) -> bytes:
        try:
            return prefix + pack(*values(value)[:count])
        except IRREGULAR:
            return write_all(value)

    return decode, encode


def _numbers_and_rest(plan: Plan, forms: list[str]) -> tuple[Decode, Encode]:
    cls, prefix, read_all, write_all, values = plan.cls, plan.prefix, plan.read_all, plan.write_all, plan.values
    count, begin, numbers = len(forms), len(prefix), struct.Struct(">" + "".join(forms))
    unpack, pack, end = numbers.unpack_from, numbers.pack, begin + numbers.size

    def decode(data: Buffer) -> Any:
        if type(data) is bytes and len(data) >= end and data[:begin] == prefix:
            return cls(*unpack(data, begin), data[end:])
        return read_all(data)

    def encode(value: Any) -> bytes:
        try:
            fields = values(value)
            rest = fields[count]
            if type(rest) is bytes:
                return prefix + pack(*fields[:count]) + rest
        except IRREGULAR:
            pass
        return write_all(value)

    return decode, encode


def _envelope(plan: Plan, forms: list[str]) -> tuple[Decode, Encode]:
    cls, prefix, read_all, write_all, values = plan.cls, plan.prefix, plan.read_all, plan.write_all, plan.values
    place, begin, last = forms.index("name"), len(prefix), len(forms)
    before = struct.Struct(">" + "".join(forms[:place]) + "I")  # the numbers before the name, and its length
    behind = struct.Struct(">" + "".join(forms[place + 1 :]))
    unpack_before, pack_before, start = before.unpack_from, before.pack, begin + before.size
    unpack_behind, pack_behind, size_behind = behind.unpack_from, behind.pack, behind.size

    def decode(data: Buffer) -> Any:
        if type(data) is bytes and data[:begin] == prefix:
            try:
                *numbers, size = unpack_before(data, begin)
                end = start + size
                name = data[start:end].decode("ascii")
                more = unpack_behind(data, end)
            except IRREGULAR:
                return read_all(data)
            if "\0" not in name:
                return cls(*numbers, name, *more, data[end + size_behind :])
        return read_all(data)

    def encode(value: Any) -> bytes:
        try:
            fields = values(value)
            name, rest = fields[place], fields[last]
            data = name.encode("ascii")
            if "\0" not in name and type(rest) is bytes:
                numbers = pack_before(*fields[:place], len(data))
                return b"".join((prefix, numbers, data, pack_behind(*fields[place + 1 : last]), rest))
        except IRREGULAR:
            pass
        return write_all(value)

    return decode, encode


def _strings(plan: Plan, forms: list[str], rest: bool) -> tuple[Decode, Encode]:
    cls, prefix, read_all, write_all, values = plan.cls, plan.prefix, plan.read_all, plan.write_all, plan.values
    begin, unpack, pack = len(prefix), _LENGTH.unpack_from, _LENGTH.pack
    count, kinds = len(forms), [_DECODED[form] for form in forms]

    def decode(data: Buffer) -> Any:
        if type(data) is not bytes or data[:begin] != prefix:
            return read_all(data)
        fields: list[Any] = []
        end = begin
        try:
            for kind in kinds:
                start = end + 4
                end = start + unpack(data, end)[0]
                piece = data[start:end]
                if kind is _NAME and b"\0" in piece:
                    return read_all(data)
                fields.append(piece.decode(*kind) if kind else piece)
        except IRREGULAR:
            return read_all(data)
        if rest and end <= len(data):
            return cls(*fields, data[end:])
        return cls(*fields) if end == len(data) else read_all(data)

    def encode(value: Any) -> bytes:
        pieces = [prefix]
        try:
            fields = values(value)
            for kind, field in zip(kinds, fields, strict=False):  # not the rest
                if kind is _NAME and "\0" in field:
                    return write_all(value)
                piece = field.encode(*kind) if kind else field
                if type(piece) is not bytes:
                    return write_all(value)
                pieces += pack(len(piece)), piece
            if rest:
                piece = fields[count]
                if type(piece) is not bytes:
                    return write_all(value)
                pieces.append(piece)
        except IRREGULAR:
            return write_all(value)
        return b"".join(pieces)

    return decode, encode
