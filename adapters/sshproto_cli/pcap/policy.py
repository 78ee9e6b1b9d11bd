"""The policy of ``sshproto pcap check``: what is expected of connections, as a TOML file has it."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from sshproto.replay.findings import Policy
from sshproto_cli.options import Failure, read_file

if TYPE_CHECKING:
    from collections.abc import Callable

_LARGEST = 1 << 16  # bits


def load(path: str) -> Policy:
    """The policy in a file; its keys are the attributes of :class:`~sshproto.replay.findings.Policy`.

    Raises:
        Failure: It can't be read, or is no policy; the words say where.
    """
    data = read_file(path, "policy", 1 << 20)
    try:
        content = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure(f"policy {path}: no TOML: {error}") from None
    for key in content:
        if key not in _KEYS:
            raise Failure(f"policy {path}: unknown key {key!r}; known are {', '.join(_KEYS)}")
    try:
        return Policy(**{key: _KEYS[key](value) for key, value in content.items()})
    except _Wrong as wrong:
        key = next(key for key, value in content.items() if value is wrong.value)
        raise Failure(f"policy {path}: {key}: {wrong}") from None


class _Wrong(Exception):
    """A value is not of the type that its key has.

    Attributes:
        value: The value.
    """

    def __init__(self, value: Any, expected: str, came: str = "") -> None:
        super().__init__(f"expected {expected}, not {came or _kind(value)}")
        self.value = value


_NAMES: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "a whole number",
    float: "a floating-point number",
    list: "an array",
    dict: "a table",
}


def _kind(value: object) -> str:
    return _NAMES.get(type(value), "a date or time")


def _names(value: Any) -> tuple[str, ...]:
    expected = "an array of names"
    if not isinstance(value, list):
        raise _Wrong(value, expected)
    names: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
    for name in names:
        if not isinstance(name, str):
            raise _Wrong(value, expected, f"an array with {_kind(name)} in it")
        if not name or not name.isascii() or not name.isprintable() or " " in name or "," in name:
            raise _Wrong(value, expected, f"an array with {name!r} in it, which no algorithm is called")
    return tuple(names)


def _bits(value: Any) -> int:
    expected = f"a whole number of bits from 1 to {_LARGEST}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Wrong(value, expected)
    if not 1 <= value <= _LARGEST:
        raise _Wrong(value, expected, str(value))
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(value, "true or false")
    return value


_KEYS: dict[str, Callable[[Any], Any]] = {
    "kex": _names,
    "host_key": _names,
    "cipher": _names,
    "mac": _names,
    "compression": _names,
    "minimum_rsa_bits": _bits,
    "minimum_group_bits": _bits,
    "strict_kex": _truth,
}
