"""What an observer tells that is no message, in few words; messages are for :mod:`sshproto_cli.describe`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs

from sshproto.events import Event, VersionReceived
from sshproto.replay import events
from sshproto_cli.describe import SECRETS, Words, chosen, fields_of


def event(it: Event, *, secrets: bool = False) -> Words:
    """What an observer tells, as far as it is no message: those are for a Describer.

    Args:
        it: The event.
        secrets: Show passwords and prompts' answers, too.
    """
    fields = fields_of(it, SECRETS if secrets else frozenset())
    words = _EVENTS.get(type(it))
    if words is not None:
        return attrs.evolve(words(it), fields=fields)
    return Words(_flat(fields), (), fields)


def _flat(value: Any) -> str:
    """Fields on a line."""
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        shown = [(name, each) for name, each in items if each not in (None, "", [])]
        return ", ".join(
            _flat(each) if name == "type" else f"{name.replace('_', ' ')} {_flat(each)}" for name, each in shown
        )
    if isinstance(value, list):
        return "/".join(_flat(each) for each in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _version(it: VersionReceived) -> Words:
    return Words(it.line, tuple(("before that", line) for line in it.preamble))


def _agreed(it: events.KexSeen) -> Words:
    words = chosen(it.negotiated)
    shown = [("fingerprint", it.fingerprint)] if it.fingerprint else []
    return attrs.evolve(words, summary=f"agreed: {words.summary}", details=(*words.details, *shown))


def _roles(it: events.RolesSeen) -> Words:
    how = "the key exchange shows it" if it.sure else "it is taken for the client, since it has dialled"
    return Words(f"the {it.client.value} is the client: {how}")


def _secret(it: events.SecretFound) -> Words:
    sure = "; the server's signature confirms it" if it.verified else ""
    return Words(f"the key exchange is opened with {_SOURCES[it.source]}{sure}")


def _reopened(it: events.Reopened) -> Words:
    return Words("a key has come late: all that was sealed since the last NEWKEYS follows again, opened")


def _sealed(it: events.PacketSealed) -> Words:
    return Words("encrypted" if it.exact else "encrypted; as it came, which may be several packets, or a part of one")


def _problem(it: events.Problem) -> Words:
    return Words(f"{it.problem}; nothing more is read of this side" if it.fatal else it.problem)


def _ssh1(it: events.Ssh1Packet) -> Words:
    fields = {} if it.message is None else fields_of(it.message)
    return Words(", ".join(f"{name} {value}" for name, value in fields.items()))


_SOURCES = {"shared secret": "its shared secret", "private value": "a private value", "derived keys": "derived keys"}

_EVENTS: dict[type[Event], Callable[[Any], Words]] = {
    VersionReceived: _version,
    events.OfferSeen: lambda _: Words("an offer"),
    events.KexSeen: _agreed,
    events.RolesSeen: _roles,
    events.SecretFound: _secret,
    events.KeysMissing: lambda it: Words(f"encrypted from here on: {it.problem}"),
    events.Reopened: _reopened,
    events.PacketSealed: _sealed,
    events.Missing: lambda it: Words(it.problem),
    events.Problem: _problem,
    events.Ended: lambda _: Words("it sends nothing more"),
    events.Ssh1Packet: _ssh1,
}
