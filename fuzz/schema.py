"""Messages made and changed by their schema, so that what is wrong with them is in a field and not in their lengths."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, cast

from fuzz.words import ALGORITHMS, EXTENSIONS, METHODS, NAMES, NUMBERS, SERVICES, WORDS
from sshproto.auth import methods
from sshproto.channels import requests as r
from sshproto.errors import SSHError
from sshproto.wire import messages as m
from sshproto.wire.codec import Boolean, Byte, Fixed, Mpint, Name, NameList, Rest, String, Struct, Text, Uint32

_OURS, _THEIRS = 0, 5  # the channel that the states of tests/support/puppet.py have
_CONTEXTS = sorted({cls.context for cls in m.ALL})
_MOST = 40000


def _bytes(rng: random.Random, old: bytes = b"") -> bytes:
    match rng.randrange(6):
        case 0:
            return rng.choice(WORDS)
        case 1:
            return rng.randbytes(1 << rng.randrange(8))
        case 2:
            return (old or b"x") * rng.choice((0, 2, 3, 100))
        case 3:
            return old[: rng.randrange(len(old) + 1)]
        case 4 if old:
            place = rng.randrange(len(old))
            return old[:place] + bytes((old[place] ^ 1 << rng.randrange(8),)) + old[place + 1 :]
        case _:
            return b"x" * rng.choice((0, 1, 255, 256, 1000, 32768, 35000))


def _number(rng: random.Random, old: int = 0) -> int:
    return rng.choice((_OURS, _THEIRS, *NUMBERS, old ^ 1 << rng.randrange(32), (old + 1) & 0xFFFFFFFF, max(old - 1, 0)))


def _name(rng: random.Random, old: str = "") -> str:
    return rng.choice((*NAMES, old[:-1], old.upper(), (old or "x") * 20, old + "\x1b[2J"))


def _names(rng: random.Random, old: tuple[str, ...] = ()) -> tuple[str, ...]:
    names = [name for name in old if name]
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(names) + 1)
        match rng.randrange(4):
            case 0:
                names.insert(place, rng.choice(ALGORITHMS))
            case 1:
                del names[place : place + 1]
            case 2:
                rng.shuffle(names)
            case _:
                names[place:place] = names[: rng.choice((1, 300))]
    return tuple(names)


def _mpint(rng: random.Random, old: int = 5) -> int:
    size = rng.choice((1, 8, 64, 255, 256, 1023, 2048, 4096, 16384))
    return rng.choice((0, 1, 2, -1, old - 1, old + 1, -old, 2**size - 1, 2 ** (size - 1), rng.getrandbits(size)))


def _text(rng: random.Random, old: str = "") -> str:
    return _bytes(rng, old.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _codec(annotation: Any) -> Any:
    return annotation.__metadata__[0]


_MADE: dict[int, Callable[..., Any]] = {
    id(_codec(Byte)): lambda rng, old=0: rng.randrange(256),
    id(_codec(Boolean)): lambda rng, old=False: not old,
    id(_codec(Uint32)): _number,
    id(_codec(String)): _bytes,
    id(_codec(Rest)): _bytes,
    id(_codec(Text)): _text,
    id(_codec(Name)): _name,
    id(_codec(NameList)): _names,
    id(_codec(Mpint)): _mpint,
}
"""How a field of each type is made, of nothing or of what it was."""

_SPECIAL: dict[str, Callable[[random.Random], Any]] = {
    "recipient_channel": lambda rng: rng.choice((_OURS, _OURS, _OURS, _THEIRS, 1, _number(rng))),
    "sender_channel": lambda rng: rng.choice((_THEIRS, 6, 7, 8, _number(rng))),
    "user": lambda rng: rng.choice(("alice", "alice", "bob", "", "\x1b[2J", "x" * 300)),
    "service": lambda rng: rng.choice((*SERVICES, *SERVICES, _name(rng))),
    "method": lambda rng: rng.choice((*METHODS, _name(rng))),
    "extensions": lambda rng: tuple((rng.choice(EXTENSIONS), _bytes(rng)) for _ in range(rng.choice((0, 1, 2, 1024)))),
    "prompts": lambda rng: tuple((_text(rng), rng.random() < 0.5) for _ in range(rng.choice((0, 1, 2, 100)))),
    "responses": lambda rng: tuple(_text(rng) for _ in range(rng.choice((0, 1, 2, 100)))),
    "keys": lambda rng: tuple(_bytes(rng) for _ in range(rng.randrange(4))),
    "modes": lambda rng: tuple((rng.randrange(256), _number(rng)) for _ in range(rng.randrange(4))),
}
"""Fields that have a better chance to mean something."""


def _field(name: str, codec: Any, rng: random.Random, *old: Any) -> Any:
    special = _SPECIAL.get(name)
    if special is not None and (not old or rng.randrange(2)):
        return special(rng)
    if isinstance(codec, Fixed):
        return rng.randbytes(codec.length)
    made = _MADE.get(id(codec)) or _MADE.get(id(getattr(codec, "inner", None)))
    if made is not None:
        return made(rng, *old)
    if old and isinstance(old[0], (bytes, str, bool, int)):
        value = old[0]
        kinds = {bytes: _bytes, str: _text, int: _number}
        return not value if isinstance(value, bool) else kinds[type(value)](rng, value)
    return old[0] if old else b""


def made(cls: type[Struct], rng: random.Random) -> Struct:
    """A structure with fields made of nothing."""
    return cls(*[_field(name, codec, rng) for name, codec in cls.codecs()])


def _inner(message: m.Message, rng: random.Random) -> m.Message:
    """The same message with the part that its kind, request or method asks for."""
    tables: dict[type[m.Message], Sequence[Any]] = {
        m.ChannelOpen: list(r.KINDS.values()),
        m.ChannelRequest: list(r.CHANNEL_REQUESTS.values()),
        m.GlobalRequest: list(r.GLOBAL_REQUESTS.values()),
        m.UserauthRequest: [form for forms in methods.FORMS.values() for form in forms],
    }
    table = tables.get(type(message))
    if table is None or not rng.randrange(8):
        return message
    part = made(rng.choice(table), rng)
    if isinstance(part, methods.Form):
        return methods.request(rng.choice(("alice", "alice", "bob")), part)
    values = {name: getattr(message, name) for name, _ in message.codecs()}
    kind = "channel_type" if isinstance(message, m.ChannelOpen) else "request_type"
    return type(message)(**{**values, kind: part.type, "payload": part.encode()})


def message(rng: random.Random) -> bytes:
    """A payload made of nothing: any message there is."""
    while True:
        try:
            found = made(rng.choice(m.ALL), rng)
            return _inner(cast(m.Message, found), rng).encode()[:_MOST]
        except (SSHError, ValueError, TypeError, AttributeError, StopIteration):
            continue


def changed(payload: bytes, rng: random.Random) -> bytes:
    """A payload of which a field or two are others; as it was if it is no message."""
    for context in rng.sample(_CONTEXTS, len(_CONTEXTS)):
        try:
            found = m.decode(payload, context)
            if found is None or not found.codecs():
                continue
            values = {name: getattr(found, name) for name, _ in found.codecs()}
            for name, codec in rng.sample(found.codecs(), min(len(values), rng.choice((1, 1, 2)))):
                values[name] = _field(name, codec, rng, values[name])
            return type(found)(**values).encode()[:_MOST]
        except (SSHError, ValueError, TypeError, AttributeError):
            continue
    return payload
