"""Every message, and what is in it: what decodes encodes to something that decodes to the same.

An input is a byte that chooses what the numbers mean that are used twice, and a payload.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from fuzz import schema
from fuzz.clear import fit_to_show
from fuzz.running import main
from fuzz.running import mutate as mutate_bytes
from sshproto.auth import methods
from sshproto.channels import requests as r
from sshproto.errors import WireError
from sshproto.wire import messages as m
from tests.support.samples import SAMPLES

CONTEXTS = tuple(sorted({cls.context for cls in m.ALL}))
MODULES = ("sshproto.wire", "sshproto.auth.methods", "sshproto.channels.requests", "sshproto.channels.fields")
_INNER: dict[type[Any], Any] = {
    m.ChannelOpen: r.decode_open,
    m.ChannelRequest: r.decode_request,
    m.GlobalRequest: r.decode_global,
}


def fuzz(data: bytes) -> None:
    """Decode and encode."""
    context = CONTEXTS[(data[0] if data else 0) % len(CONTEXTS)]
    try:
        message = m.decode(data[1:], context)
    except WireError as error:
        fit_to_show(error)
        return
    if message is None:
        return
    _again(message, message.encode(), lambda payload: m.decode(payload, context))
    if len(repr(message)) > 10 * len(data) + 10_000:
        raise AssertionError("its repr is longer than anybody wants")
    try:
        if isinstance(message, m.UserauthRequest):
            form = methods.parse(message.method, message.payload)
            if form is not None:
                _again(form, form.encode(), lambda payload: methods.parse(message.method, payload))
        elif type(message) in _INNER:
            inner = _INNER[type(message)](message)
            value = getattr(inner, "data", None) if isinstance(inner, r.Unknown) else inner.encode()
            field = message.payload if value is None else value
            _again(inner, field, lambda payload: type(inner).parse(payload) if hasattr(inner, "parse") else inner)
    except WireError:
        pass


def _again(value: Any, encoded: bytes, decode: Any) -> None:
    if decode(encoded) != value:
        raise AssertionError(f"encoded it is another: {value!r}")


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change fields, or bytes, or make another one."""
    match rng.randrange(4):
        case 0:
            return bytes((rng.randrange(256),)) + schema.message(rng)
        case 1:
            return data[:1] + schema.changed(data[1:], rng)
        case _:
            return mutate_bytes(data, others, rng)


def seeds() -> list[bytes]:
    """A sample of each, in every context."""
    payloads = [it.message.encode() for it in SAMPLES if isinstance(it.message, m.Message)]
    rng = random.Random(0)
    payloads += [schema.message(rng) for _ in range(100)]
    return [bytes((n,)) + it for it in dict.fromkeys(payloads) for n in range(len(CONTEXTS) if 30 <= it[0] < 80 else 1)]


if __name__ == "__main__":
    main("messages", fuzz, seeds, mutate, MODULES)
