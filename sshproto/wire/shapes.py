"""The usual shapes of structures, each read and written as a whole.

To do a structure field by field, each by a call, tells exactly what is wrong with it, and is far dearer than the work
itself.  Nearly all that comes and goes in a login and with a command has one of five shapes:

- nothing: SSH_MSG_NEWKEYS, what a session's SSH_MSG_CHANNEL_OPEN holds;
- numbers: SSH_MSG_CHANNEL_CLOSE, "exit-status"; also with a rest: SSH_MSG_CHANNEL_OPEN_CONFIRMATION;
- one string of bytes: SSH_MSG_KEX_ECDH_INIT, "exec";
- strings, perhaps with a rest: SSH_MSG_USERAUTH_REQUEST, SSH_MSG_KEX_ECDH_REPLY; also behind numbers:
  SSH_MSG_DISCONNECT;
- an envelope, which is a name among numbers, and the rest: SSH_MSG_CHANNEL_REQUEST, SSH_MSG_GLOBAL_REQUEST.

The functions made here do what is regular, and nothing else.  Whatever is malformed, or legal and rare, is left to
:class:`~sshproto.wire.codec.Plan`, whose ``read_all`` and ``write_all`` do it over from the beginning and know every
error: these are faster, and not more lenient.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import dropwhile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sshproto.wire.codec import Buffer, Plan

IRREGULAR = (struct.error, ValueError, TypeError, OverflowError, AttributeError)
"""What is raised where a value does not fit its field; also if bytes are too few, or not ASCII."""

_LENGTH = struct.Struct(">I")

_NUMBERS = frozenset("B?IQ")  # forms of fields that struct knows
_AS_IT_IS: tuple[str, ...] = ()
_AS_TEXT = ("utf-8", "surrogateescape")
_AS_NAME = ("ascii",)
_DECODED = {"string": _AS_IT_IS, "text": _AS_TEXT, "name": _AS_NAME}  # with what bytes are decoded to be the value
_REST = "rest"

Decode = Callable[["Buffer"], Any]
Encode = Callable[[Any], bytes]


def shaped(plan: Plan) -> tuple[Decode, Encode] | None:
    """What does the same as ``plan.read_all`` and ``plan.write_all``; None if the class has no such shape."""
    forms = [getattr(codec, "form", "") for _, codec in plan.codecs]
    rest = forms[-1:] == [_REST]
    before = forms[:-1] if rest else forms
    if not forms:
        return _nothing(plan)
    if _NUMBERS.issuperset(before):
        return _numbers(plan, before, rest)
    if forms == ["string"]:
        return _string(plan)
    texts = list(dropwhile(_NUMBERS.__contains__, before))
    if _DECODED.keys() >= set(texts):
        return _strings(plan, before[: -len(texts)], texts, rest)
    if rest and before.count("name") == 1 and _NUMBERS.issuperset(set(before) - {"name"}):
        return _envelope(plan, before)
    return None


def _nothing(plan: Plan) -> tuple[Decode, Encode]:
    only, prefix, read_all = plan.cls(), plan.prefix, plan.read_all  # one instance is as good as another
    return lambda data: only if data == prefix else read_all(data), lambda _value: prefix


def _numbers(plan: Plan, forms: list[str], rest: bool) -> tuple[Decode, Encode]:
    cls, prefix, read_all, write_all, values = plan.cls, plan.prefix, plan.read_all, plan.write_all, plan.values
    count, begin, numbers = len(forms), len(prefix), struct.Struct(">" + "".join(forms))
    unpack, pack, end = numbers.unpack_from, numbers.pack, begin + numbers.size

    def decode(data: Buffer) -> Any:
        if data[:begin] == prefix:
            if len(data) == end and not rest:
                return cls(*unpack(data, begin))
            if len(data) >= end and rest and type(data) is bytes:
                return cls(*unpack(data, begin), data[end:])
        return read_all(data)

    def encode(value: Any) -> bytes:
        try:
            fields = values(value)
            if not rest:
                return prefix + pack(*fields[:count])
            behind = fields[count]
            if type(behind) is bytes:
                return prefix + pack(*fields[:count]) + behind
        except IRREGULAR:
            pass
        return write_all(value)

    return decode, encode


def _string(plan: Plan) -> tuple[Decode, Encode]:
    cls, prefix, read_all, write_all, values = plan.cls, plan.prefix, plan.read_all, plan.write_all, plan.values
    begin, unpack, pack = len(prefix), _LENGTH.unpack_from, _LENGTH.pack
    start = begin + _LENGTH.size

    def decode(data: Buffer) -> Any:
        if type(data) is bytes and data[:begin] == prefix:
            size = len(data) - start
            if size >= 0 and unpack(data, begin)[0] == size:
                return cls(data[start:])
        return read_all(data)

    def encode(value: Any) -> bytes:
        field = values(value)[0]
        try:
            if type(field) is bytes:
                return prefix + pack(len(field)) + field
        except struct.error:  # of 4 GiB and more
            pass
        return write_all(value)

    return decode, encode


def _envelope(plan: Plan, forms: list[str]) -> tuple[Decode, Encode]:
    cls, prefix, read_all, write_all, values = plan.cls, plan.prefix, plan.read_all, plan.write_all, plan.values
    place, begin, last = forms.index("name"), len(prefix), len(forms)
    ahead = struct.Struct(f">{begin}s{''.join(forms[:place])}I")  # all before the name, and its length
    behind = struct.Struct(">" + "".join(forms[place + 1 :]))
    unpack_before, pack_before, start = ahead.unpack_from, ahead.pack, ahead.size
    unpack_behind, pack_behind, size_behind = behind.unpack_from, behind.pack, behind.size

    def decode(data: Buffer) -> Any:
        if type(data) is bytes:
            try:
                lead, *numbers, size = unpack_before(data)
                end = start + size
                name = data[start:end].decode("ascii")
                more = unpack_behind(data, end)
            except IRREGULAR:
                return read_all(data)
            if lead == prefix and "\0" not in name:
                return cls(*numbers, name, *more, data[end + size_behind :])
        return read_all(data)

    def encode(value: Any) -> bytes:
        try:
            fields = values(value)
            name, rest = fields[place], fields[last]
            data = name.encode("ascii")
            if "\0" not in name and type(rest) is bytes:
                before = pack_before(prefix, *fields[:place], len(data))
                return b"".join((before, data, pack_behind(*fields[place + 1 : last]), rest))
        except IRREGULAR:
            pass
        return write_all(value)

    return decode, encode


def _strings(plan: Plan, before: list[str], forms: list[str], rest: bool) -> tuple[Decode, Encode]:
    cls, prefix, read_all, write_all, values = plan.cls, plan.prefix, plan.read_all, plan.write_all, plan.values
    begin, unpack, pack = len(prefix), _LENGTH.unpack_from, _LENGTH.pack
    kinds, numbers = [_DECODED[form] for form in forms], struct.Struct(">" + "".join(before))
    first, last, behind = len(before), len(before) + len(forms), begin + numbers.size
    unpack_numbers, pack_numbers = numbers.unpack_from, numbers.pack

    def decode(data: Buffer) -> Any:
        if type(data) is not bytes or data[:begin] != prefix:
            return read_all(data)
        try:
            fields: list[Any] = [*unpack_numbers(data, begin)] if first else []
            end = behind
            for kind in kinds:
                start = end + 4
                end = start + unpack(data, end)[0]
                piece: Any = data[start:end]
                if kind:
                    piece = piece.decode(*kind)
                    if kind is _AS_NAME and "\0" in piece:
                        return read_all(data)
                fields.append(piece)
        except IRREGULAR:
            return read_all(data)
        if rest and end <= len(data):
            return cls(*fields, data[end:])
        return cls(*fields) if end == len(data) else read_all(data)

    def encode(value: Any) -> bytes:
        try:
            fields = values(value)
            pieces = [prefix, pack_numbers(*fields[:first])] if first else [prefix]
            for kind, field in zip(kinds, fields[first:] if first else fields, strict=False):  # not the rest
                if kind:
                    if kind is _AS_NAME and "\0" in field:
                        return write_all(value)
                    field = field.encode(*kind)
                elif type(field) is not bytes:
                    return write_all(value)
                pieces += pack(len(field)), field
            if rest:
                piece = fields[last]
                if type(piece) is not bytes:
                    return write_all(value)
                pieces.append(piece)
            return b"".join(pieces)
        except IRREGULAR:
            return write_all(value)

    return decode, encode
