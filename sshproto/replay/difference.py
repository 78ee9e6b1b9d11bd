"""The first protocol difference between two connections, and then the others.

Why does one client get in, and the other does not?  What did somebody in the middle change?  :func:`compare` lays the
portraits of two connections side by side, each side's messages beside the same side's of the other connection.

What came encrypted is compared only if it could be opened in both.  Two connections with the same cookies are the two
legs of one that somebody relays: there the sizes of what is encrypted can be compared as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from math import inf
from typing import Any, cast

import attrs

from sshproto.replay import portrait
from sshproto.replay.portrait import CHANNEL, Portrait, Step
from sshproto.transport.negotiation import Negotiated
from sshproto.values import frozen
from sshproto.wire.table import Role

__all__ = ["STAGES", "Comparison", "Difference", "Portrait", "compare"]

STAGES = ("identification", "offer", "negotiation", "key exchange", "host key", "encrypted", "messages", "ending")
"""What is compared, in the order of the protocol."""
_LISTS = {
    "kex_algorithms": "key exchange",
    "server_host_key_algorithms": "host key",
    "encryption_algorithms_client_to_server": "cipher, client to server",
    "encryption_algorithms_server_to_client": "cipher, server to client",
    "mac_algorithms_client_to_server": "MAC, client to server",
    "mac_algorithms_server_to_client": "MAC, server to client",
    "compression_algorithms_client_to_server": "compression, client to server",
    "compression_algorithms_server_to_client": "compression, server to client",
    "languages_client_to_server": "languages, client to server",
    "languages_server_to_client": "languages, server to client",
}


@frozen(kw_only=True)
class Difference:
    """One difference.

    Attributes:
        stage: One of :data:`STAGES`.
        role: Whose doing it is; None if it concerns both.
        what: What is different.
        a, b: How it is in the one and in the other: text, names in their order, a number; None if it is not there.
        frames_a, frames_b: Where, as far as known.
        lone: It is a message that only one of them has.
    """

    stage: str
    role: Role | None
    what: str
    a: Any
    b: Any
    frames_a: tuple[int, ...] = ()
    frames_b: tuple[int, ...] = ()
    lone: bool = False

    @property
    def words(self) -> str:
        """The difference on one line, not yet fit for a terminal."""
        whose = f"the {self.role.value}'s " if self.role is not None else ""
        if self.lone:
            said = self.a if self.b is None else self.b
            return f"{whose}{self.what}: only in {'B' if self.a is None else 'A'}{f' ({said})' if said else ''}"
        return f"{whose}{self.what}: {_contrast(self.a, self.b)}"

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        values = attrs.asdict(self)
        values["role"] = self.role.value if self.role is not None else None
        return values


@frozen(kw_only=True)
class Comparison:
    """What :func:`compare` has found.

    Attributes:
        differences: In the order of the protocol: the first is the first.
        relayed: Both are legs of one connection: somebody in the middle has passed on their cookies.
        notes: What could not be compared, and why.
    """

    differences: tuple[Difference, ...]
    relayed: bool
    notes: tuple[str, ...]


def compare(a: Portrait, b: Portrait) -> Comparison:
    """What is different between two connections.

    Args:
        a, b: Portraits that nothing more is added to.
    """
    found: list[Difference] = []
    notes: list[str] = []
    relayed = a is not b and bool(a.cookies & b.cookies)
    found += _versions(a, b)
    found += _offers(a, b)
    found += _chosen(a, b)
    found += _aligned("key exchange", a, b, "clear")
    if a.host_key != b.host_key and (a.host_key is not None and b.host_key is not None):
        found.append(
            Difference(
                stage="host key",
                role=Role.SERVER,
                what="host key",
                a=" ".join(a.host_key),
                b=" ".join(b.host_key),
                frames_a=a.kex_frames,
                frames_b=b.kex_frames,
            )
        )
    if not a.sealed and not b.sealed:
        found += _aligned("messages", a, b, "opened")
    elif a.sealed and b.sealed:
        exact = all(each.side(role).exact for each in (a, b) for role in Role)
        if relayed:
            found += _aligned("encrypted", a, b, "sealed")
        notes.append(
            "neither could be opened: of what came encrypted only the sizes were compared"
            if relayed
            else "neither could be opened: what came encrypted was not compared"
        )
        if relayed and not exact:
            notes.append("these are sizes of what came at once, which need not be one packet")
    else:
        notes.append(f"only {'B' if a.sealed else 'A'} could be opened: what came encrypted was not compared")
    if any(each.side(role).more for each in (a, b) for role in Role):
        notes.append(f"of each side the first {portrait.STEPS} messages were compared")
    found += _endings(a, b)
    return Comparison(differences=tuple(found), relayed=relayed, notes=tuple(notes))


def _versions(a: Portrait, b: Portrait) -> Iterable[Difference]:
    for role in Role:
        one, other = a.side(role), b.side(role)
        if one.version != other.version:
            yield Difference(
                stage="identification",
                role=role,
                what="identification",
                a=one.version,
                b=other.version,
                frames_a=one.version_frames,
                frames_b=other.version_frames,
            )


def _offers(a: Portrait, b: Portrait) -> Iterable[Difference]:
    for role in Role:
        one, other = a.side(role), b.side(role)
        if one.offer is None or other.offer is None:
            continue  # that it is not there is seen from the messages
        for field, what in {**_LISTS, "first_kex_packet_follows": "guess that follows"}.items():
            values = getattr(one.offer, field), getattr(other.offer, field)
            if values[0] != values[1]:
                yield Difference(
                    stage="offer",
                    role=role,
                    what=f"KEXINIT, {what}",
                    a=values[0],
                    b=values[1],
                    frames_a=one.offer_frames,
                    frames_b=other.offer_frames,
                )


def _chosen(a: Portrait, b: Portrait) -> Iterable[Difference]:
    one, other = a.negotiated, b.negotiated
    if one is None and other is None:
        return
    names = [field.name for field in attrs.fields(Negotiated)]
    values = [attrs.asdict(each) if each is not None else dict.fromkeys(names) for each in (one, other)]
    if one is None or other is None:
        names = ["kex"]
    for name in names:
        if values[0][name] != values[1][name]:
            yield Difference(
                stage="negotiation",
                role=None,
                what=f"negotiated {name.replace('_', ' ')}",
                a=values[0][name],
                b=values[1][name],
                frames_a=a.kex_frames,
                frames_b=b.kex_frames,
            )


def _endings(a: Portrait, b: Portrait) -> Iterable[Difference]:
    if a.exchanges != b.exchanges:
        yield Difference(stage="ending", role=None, what="key exchanges in all", a=a.exchanges, b=b.exchanges)
    for role in Role:
        one, other = a.side(role).ending, b.side(role).ending
        if one != other:
            yield Difference(stage="ending", role=role, what="end", a=one, b=other)


def _aligned(stage: str, a: Portrait, b: Portrait, which: str) -> list[Difference]:
    """Both sides' messages laid side by side; the differences in the order of time."""
    placed: list[tuple[float, Difference]] = []
    for role in Role:
        one: list[Step] = getattr(a.side(role), which)
        other: list[Step] = getattr(b.side(role), which)
        placed += _beside(stage, role, one, other)
    return [difference for _, difference in sorted(placed, key=lambda each: each[0])]


def _beside(stage: str, role: Role, one: Sequence[Step], other: Sequence[Step]) -> list[tuple[float, Difference]]:
    """The differences of one side, each with its place in A; what A does not have where it would stand."""
    matcher = SequenceMatcher(None, [step.name for step in one], [step.name for step in other], autojunk=False)
    placed: list[tuple[float, Difference]] = []
    lone_a: list[tuple[float, int]] = []
    lone_b: list[tuple[float, int]] = []
    shift = 0.0
    for kind, start, stop, start_b, stop_b in matcher.get_opcodes():
        if kind == "equal":
            for mine, theirs in zip(one[start:stop], other[start_b:stop_b], strict=True):
                shift = mine.place - theirs.place
                if _said(mine) != _said(theirs):
                    placed += ((mine.place, each) for each in _details(stage, role, mine, theirs))
        elif not 0 < _size(one[start:stop]) == _size(other[start_b:stop_b]):  # the same bytes, cut elsewhere
            lone_a += ((one[index].place, index) for index in range(start, stop))
            latest = one[stop].place - 0.5 if stop < len(one) else inf
            lone_b += ((min(other[index].place + shift + 0.5, latest), index) for index in range(start_b, stop_b))
    for place, index in lone_a:
        mine = one[index]
        moved = next((each for each in lone_b if _same(other[each[1]], mine)), None)
        if moved is None:
            placed.append((place, _lone(stage, role, mine, in_a=True)))
        else:
            lone_b.remove(moved)
            placed.append((min(place, moved[0]), _moved(stage, role, one, index, other, moved[1])))
    placed += ((place, _lone(stage, role, other[index], in_a=False)) for place, index in lone_b)
    return placed


def _size(steps: Iterable[Step]) -> int:
    return sum(step.size for step in steps)


def _same(one: Step, other: Step) -> bool:
    return one.name == other.name and _said(one) == _said(other) and not one.size


def _said(step: Step) -> dict[str, Any]:
    return {name: value for name, value in step.details if name != CHANNEL}


def _lone(stage: str, role: Role, step: Step, *, in_a: bool) -> Difference:
    """A message that only one of them has."""
    said = ", ".join(
        f"{name.replace('_', ' ')} {_shown(value)}" for name, value in step.details if value not in ("", None, (), [])
    )
    return Difference(
        stage=stage,
        role=role,
        what=step.name,
        a=said if in_a else None,
        b=None if in_a else said,
        frames_a=step.frames if in_a else (),
        frames_b=() if in_a else step.frames,
        lone=True,
    )


def _moved(stage: str, role: Role, one: Sequence[Step], at: int, other: Sequence[Step], at_b: int) -> Difference:
    """A message that both have, at different places."""
    before, before_b = (
        f"after {steps[index - 1].name}" if index else "first" for steps, index in ((one, at), (other, at_b))
    )
    return Difference(
        stage=stage,
        role=role,
        what=f"{one[at].name}, its place",
        a=before,
        b=before_b,
        frames_a=one[at].frames,
        frames_b=other[at_b].frames,
    )


def _details(stage: str, role: Role, mine: Step, theirs: Step) -> Iterable[Difference]:
    ours, others = _said(mine), _said(theirs)
    for name in dict.fromkeys([*ours, *others]):
        if ours.get(name) != others.get(name):
            yield Difference(
                stage=stage,
                role=role,
                what=f"{mine.name}, {name.replace('_', ' ')}",
                a=ours.get(name),
                b=others.get(name),
                frames_a=mine.frames,
                frames_b=theirs.frames,
            )


# --------------------------------------------------------------------------------------------------------------- words


def _contrast(a: Any, b: Any) -> str:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return _lists(a, b)  # pyright: ignore[reportUnknownArgumentType]
    return f"A {_shown(a)}; B {_shown(b)}"


def _lists(a: tuple[Any, ...], b: tuple[Any, ...]) -> str:
    """Two lists: what only one of them has, or that the order is another."""
    parts = [
        f"only {name} has {_shown(lone)}"
        for name, lone in (
            ("A", tuple(each for each in a if each not in b)),
            ("B", tuple(each for each in b if each not in a)),
        )
        if lone
    ]
    if [each for each in a if each in b] != [each for each in b if each in a]:
        parts.append(f"in another order: A {_shown(a)}; B {_shown(b)}" if not parts else "the rest in another order")
    return "; ".join(parts)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(_shown(each) for each in cast("Iterable[Any]", value)) or "nothing"
    return f"{value}" if value != "" else "nothing"
