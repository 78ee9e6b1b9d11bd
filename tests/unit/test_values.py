"""Classes made by sshproto.values are those that attrs would have made."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

from sshproto import values


def make(frozen: Any, define: Any) -> dict[str, Any]:
    """The same classes, by one pair of decorators."""

    @frozen
    class Point:
        x: int
        y: int = 0

    @frozen
    class Empty:
        pass

    @frozen
    class Deeper(Point):
        z: int = attrs.field(default=1, kw_only=True)

    @frozen(kw_only=True)
    class Parts:
        shown: str
        secret: str = attrs.field(repr=False)
        short: bytes = attrs.field(repr=lambda value: f"<{len(value)} bytes>")
        beside: int = attrs.field(default=0, eq=False)
        unhashed: Any = attrs.field(factory=list, hash=False)

    @frozen(eq=False)
    class Same:
        x: int

    @frozen(cache_hash=True)
    class Cached:
        x: int

    @frozen(repr=False)
    class Silent:
        x: int

    @frozen
    class Own:
        x: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own)

        def __hash__(self) -> int:
            return 7

        def __repr__(self) -> str:
            return "own"

    @define
    class Changing:
        x: Any

    @define(eq=False)
    class ChangingSame:
        x: int

    return {name: value for name, value in locals().items() if isinstance(value, type)}


OURS = make(values.frozen, values.define)
THEIRS = make(attrs.frozen, attrs.define)

PARTS = {"shown": "a", "secret": "hunter2", "short": b"abc"}
SAMPLES: list[tuple[str, dict[str, Any]]] = [
    ("Point", {"x": 1}),
    ("Point", {"x": 1, "y": 2}),
    ("Empty", {}),
    ("Deeper", {"x": 1}),
    ("Deeper", {"x": 1, "z": 2}),
    ("Parts", PARTS),
    ("Parts", PARTS | {"beside": 5}),
    ("Parts", PARTS | {"secret": "hunter3"}),
    ("Parts", PARTS | {"unhashed": [1]}),
    ("Same", {"x": 1}),
    ("Cached", {"x": 1}),
    ("Cached", {"x": 2}),
    ("Own", {"x": 1}),
    ("Own", {"x": 2}),
    ("Changing", {"x": 1}),
    ("Changing", {"x": 2}),
    ("ChangingSame", {"x": 1}),
]


def test_equality_is_that_of_attrs() -> None:
    def table(classes: dict[str, Any]) -> list[tuple[bool, bool]]:
        left = [classes[name](**fields) for name, fields in SAMPLES]
        right = [classes[name](**fields) for name, fields in SAMPLES]
        return [(a == b, a != b) for a in left for b in right]

    assert table(OURS) == table(THEIRS)
    assert any(equal for equal, _ in table(OURS))


def test_hashes_go_with_equality() -> None:
    for name, fields in SAMPLES:
        ours, theirs = OURS[name](**fields), THEIRS[name](**fields)
        if type(theirs).__hash__ is None:
            with pytest.raises(TypeError, match="unhashable"):
                hash(ours)
        elif OURS[name](**fields) == ours:
            assert hash(ours) == hash(OURS[name](**fields))
    assert hash(OURS["Point"](x=1)) != hash(OURS["Point"](x=2))
    assert hash(OURS["Parts"](**PARTS, unhashed=[1])) == hash(OURS["Parts"](**PARTS, beside=1))


def test_a_value_that_cannot_be_hashed_makes_none_that_can() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(OURS["Point"](x=[]))


@pytest.mark.parametrize(("name", "fields"), [(name, fields) for name, fields in SAMPLES if name != "Silent"])
def test_representations_are_those_of_attrs(name: str, fields: dict[str, Any]) -> None:
    shown = repr(OURS[name](**fields))
    assert shown == repr(THEIRS[name](**fields))
    assert "hunter" not in shown


def test_no_representation_is_made_where_none_is_wanted() -> None:
    value = OURS["Silent"](1)
    assert repr(value) == object.__repr__(value)


def test_what_holds_itself_can_be_shown() -> None:
    value = OURS["Changing"](None)
    value.x = [value]
    assert repr(value) == "Changing(x=[...])"


@pytest.mark.parametrize("name", OURS)
def test_the_rest_is_the_work_of_attrs(name: str) -> None:
    ours, theirs = OURS[name], THEIRS[name]
    assert ours.__slots__ == theirs.__slots__
    assert ours.__match_args__ == theirs.__match_args__
    assert [field.name for field in attrs.fields(ours)] == [field.name for field in attrs.fields(theirs)]
    assert not hasattr(ours, "__dict__") or "__dict__" not in dir(ours)


def test_frozen_values_are_frozen_and_copied() -> None:
    point = OURS["Point"](1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        point.x = 2
    assert copy.copy(point) == copy.deepcopy(point) == attrs.evolve(point) == point
    assert attrs.evolve(point, y=3).y == 3


def test_values_of_the_project_are_pickled() -> None:
    from sshproto.events import ChannelOpened

    event = ChannelOpened(3, b"x")
    assert pickle.loads(pickle.dumps(event)) == event
