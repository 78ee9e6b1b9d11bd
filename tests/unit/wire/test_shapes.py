"""What is read and written in one go is as the codec does it field by field: values, bytes, errors, whatever comes."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import schema
from sshproto.auth.methods import FORMS
from sshproto.channels import requests as r
from sshproto.errors import SSHError
from sshproto.wire import codec, shapes
from sshproto.wire import messages as m
from sshproto.wire.codec import Plan, Struct

STRUCTS: list[type[Struct]] = [
    *m.ALL,
    *r.KINDS.values(),
    *r.CHANNEL_REQUESTS.values(),
    *r.GLOBAL_REQUESTS.values(),
    *(form for forms in FORMS.values() for form in forms),
]
PLANS = {cls: Plan(cls) for cls in STRUCTS}

each_struct = pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)

STRANGE = (None, -1, 2**32, 2**64, 1.5, True, "", "é", "\0", "a,b", "\ud800", b"", b"\xff", bytearray(b"ab"), ("a", ""))


USUAL = frozenset(
    (
        "NewKeys KexEcdhInit KexEcdhReply ServiceRequest ServiceAccept UserauthRequest HostBoundQuery HostBoundSigned "
        "PublicKeyQuery PublicKeySigned UserauthPkOk UserauthSuccess Password GlobalRequest ChannelOpen "
        "ChannelOpenConfirmation ChannelRequest ChannelWindowAdjust ChannelEof ChannelClose ChannelSuccess "
        "ChannelFailure Session Shell Exec Subsystem ExitStatus WindowChange Signal Ping Pong Disconnect "
        "ChannelExtendedData"
    ).split()
)
"""What comes in most logins and with most commands."""


def outcome(function: Callable[[Any], Any], argument: Any) -> Any:
    """What comes of it: a value and its type, or an error and its words."""
    try:
        found = function(argument)
    except SSHError as error:
        return type(error), str(error)
    return type(found), found, repr(found)


def same(cls: type[Struct], data: Any) -> None:
    assert outcome(PLANS[cls].decode, data) == outcome(PLANS[cls].read_all, data)


def mutants(data: bytes, rng: random.Random) -> list[bytes]:
    """``data`` cut short, too long, and with bytes and lengths that are others."""
    found = [data, data + b"\0", data + b"\xff\xff\xff\xff", data[1:]]
    for place in range(0, min(len(data), 60), rng.choice((1, 3))):
        found += [data[:place], data[:place] + bytes((data[place] ^ 1 << rng.randrange(8),)) + data[place + 1 :]]
        found += [data[:place] + rng.choice((b"\0", b"\xff")) * 4 + data[place + 4 :]]
    return found


def field(name: str, kind: Any, rng: random.Random) -> Any:
    """A value that can be sent."""
    found = [*(schema._field(name, kind, rng) for _ in range(9)), "short", b"short", 22, ((1, 2), (3, 4)), ()]
    for value in found:
        try:
            if len(kind.write(value)) < 100:
                return value
        except shapes.IRREGULAR:
            continue
    raise AssertionError(f"{name} needs an example")


def made(cls: type[Struct], rng: random.Random) -> Struct:
    return cls(*[field(name, kind, rng) for name, kind in PLANS[cls].codecs])


@each_struct
def test_what_is_read_is_the_same_and_so_is_what_is_refused(cls: type[Struct]) -> None:
    rng = random.Random(cls.__name__)
    for _ in range(5):
        for data in mutants(PLANS[cls].write_all(made(cls, rng)), rng):
            same(cls, data)
            same(cls, memoryview(data))
            same(cls, bytearray(data))


@each_struct
@settings(max_examples=30)
@given(data=st.data())
def test_arbitrary_bytes_are_read_alike(cls: type[Struct], data: st.DataObject) -> None:
    lead = PLANS[cls].prefix if data.draw(st.booleans()) else b""
    pieces = st.one_of(st.binary(max_size=12), st.integers(0, 12).map(lambda size: size.to_bytes(4, "big")))
    same(cls, lead + b"".join(data.draw(st.lists(pieces, max_size=8))))


@each_struct
def test_what_is_written_is_the_same_and_so_is_what_cannot_be(cls: type[Struct]) -> None:
    rng = random.Random(cls.__name__)
    for _ in range(5):
        value = made(cls, rng)
        assert PLANS[cls].encode(value) == PLANS[cls].write_all(value)
        for field in attrs.fields(cls):
            for strange in STRANGE:
                changed = attrs.evolve(value, **{field.name: strange})
                assert outcome(PLANS[cls].encode, changed) == outcome(PLANS[cls].write_all, changed)


@each_struct
def test_what_is_read_is_complete(cls: type[Struct]) -> None:
    value = made(cls, random.Random(cls.__name__))
    found = PLANS[cls].decode(PLANS[cls].write_all(value))
    assert hash(found) == hash(PLANS[cls].read_all(PLANS[cls].write_all(value)))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        found.anything = 1


@pytest.mark.parametrize("cls", [cls for cls in STRUCTS if cls.__name__ in USUAL], ids=lambda cls: cls.__name__)
def test_the_regular_case_is_not_left_to_the_codec(cls: type[Struct]) -> None:
    rng, plan = random.Random(cls.__name__), Plan(cls)
    alone: Any = SimpleNamespace(
        cls=cls, prefix=plan.prefix, codecs=plan.codecs, values=plan.values, read_all=None, write_all=None
    )
    shape = shapes.shaped(alone)
    assert shape is not None
    decode, encode = shape
    for _ in range(5):
        value = made(cls, rng)
        data = plan.write_all(value)
        assert decode(data) == value
        assert encode(value) == data


def test_a_class_that_reads_itself_goes_on_to_do_so() -> None:
    @attrs.frozen
    class Own(Struct):
        @classmethod
        def read(cls, reader: codec.Reader) -> Own:
            reader.rest()
            return cls()

    for size in range(20):
        assert Own.parse(bytes(size)) == Own()


def test_what_checks_its_fields_goes_on_to_do_so() -> None:
    @attrs.frozen
    class Checked(Struct):
        number: codec.Uint32 = attrs.field(validator=attrs.validators.lt(5))

    # The annotations of this module are text.
    attrs.resolve_types(Checked)
    read = Plan(Checked).decode
    assert read(b"\0\0\0\4") == Checked(4)
    with pytest.raises(ValueError, match="must be < 5"):
        read(b"\0\0\0\5")
