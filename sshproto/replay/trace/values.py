"""How a trace writes values: what calls are given, what events hold, a connection's configuration.

Two ways.  :func:`exact` loses nothing, so that :class:`Decoder` can make the same value again; it is for traces that
can be replayed.  :func:`shown` writes what a level of privacy below that lets be seen; nobody reads it back.  In both,
what JSON has stands for itself, and an object with a key that begins with ``$`` stands for something else:

====================  ==================================================================================================
``$bytes``            bytes, in hexadecimal; with ``length`` and ``sha256`` only the first of them
``$class``            a value of that class; the other keys are its fields
``$question``         the question of that number, which the connection has asked
``$public_key``       a key: its blob in hexadecimal, with ``comment``; ``$private_key`` has the public half, too
``$certificate``      a certificate: its blob in hexadecimal, with ``comment``
``$error``            an exception: its class, with ``text`` and what else it tells
``$float``            a number that JSON does not have
``$opaque``           a value of that class, which cannot be written: such a step cannot be replayed
``$hidden``           what the trace does not tell; with ``length`` where it is bytes or text
====================  ==================================================================================================
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NoReturn

import attrs

from sshproto import errors, events
from sshproto.channels.requests import (
    CHANNEL_REQUESTS,
    GLOBAL_REQUESTS,
    KINDS,
    UnknownGlobal,
    UnknownOpen,
    UnknownRequest,
)
from sshproto.config import ClientConfig, Config, Limits, Preferences, SecurityKeyPolicy, ServerConfig, Timeouts
from sshproto.errors import ConnectionLoss, InternalError, SSHError, UsageError
from sshproto.events import Prompt, Question
from sshproto.keys.certificates import Certificate
from sshproto.keys.private import PrivateKey
from sshproto.keys.public import LOWEST_RSA_BITS, PublicKey
from sshproto.keys.security_keys import Assertion
from sshproto.keys.signatures import SIGNATURES
from sshproto.replay.trace.file import Privacy, TraceError, as_list, as_object
from sshproto.text import printable
from sshproto.wire.table import Role

DIGEST_ABOVE = 256
"""Bytes of an output from which on a trace has only the first of them, and their digest."""

PUBLIC_TEXT = frozenset(
    "address algorithm cipher cipher_client_to_server cipher_server_to_client comments compression"
    " compression_client_to_server compression_server_to_client host host_key kex language limit line mac"
    " mac_client_to_server mac_server_to_client method methods name originator_address path preamble protocol purpose"
    " received signature software submethods term timer type user where auth_methods category ours theirs tried".split()
)
"""Fields and arguments whose text is no content; any other text is."""
PUBLIC_BYTES = frozenset({"session_id", "extensions"})
"""The same for bytes."""
SECRET = frozenset({"password", "new_password", "answers", "old", "new", "cookie"})
"""What no level tells but the one that can be replayed; and so with all fields that do not show in a ``repr``."""

_DEEPEST = 16  # of what is written; each level here can be two of JSON's
_LARGEST_INTEGER = 2**64

_CLASSES: Mapping[str, Any] = {
    cls.__name__: cls
    for cls in (
        *KINDS.values(),
        *CHANNEL_REQUESTS.values(),
        *GLOBAL_REQUESTS.values(),
        UnknownOpen,
        UnknownRequest,
        UnknownGlobal,
        Prompt,
        Assertion,
        *(
            kind
            for kind in vars(events).values()
            if isinstance(kind, type) and issubclass(kind, Question) and kind is not Question
        ),
    )
}
"""What a call can be given that has fields."""

_PARTS: Mapping[str, Any] = {
    "preferences": Preferences,
    "limits": Limits,
    "timeouts": Timeouts,
    "security_keys": SecurityKeyPolicy,
}
_FUNCTIONS = frozenset({"entropy", "oracle", "trace", "key_log", "record"})
_ROLES: Mapping[Role, Any] = {Role.CLIENT: ClientConfig, Role.SERVER: ServerConfig}


def fields(value: Any) -> tuple[attrs.Attribute[Any], ...]:
    """The fields of a value of a class of attrs."""
    kind = value.__class__
    found: tuple[attrs.Attribute[Any], ...] = attrs.fields(kind)
    return found


# -------------------------------------------------------------------------------------------------------------- writing


def digest(data: bytes) -> dict[str, Any]:
    """Bytes of an output: all of them, or the first and a digest."""
    if len(data) <= DIGEST_ABOVE:
        return {"$bytes": data.hex()}
    return {"$bytes": data[:32].hex(), "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def raw(data: bytes, *, output: bool = False) -> dict[str, Any]:
    """Bytes as qlog's RawInfo: ``length`` and ``data``, the latter cut short where a ``sha256`` stands beside it."""
    if output and len(data) > DIGEST_ABOVE:
        return {"length": len(data), "data": data[:32].hex(), "sha256": hashlib.sha256(data).hexdigest()}
    return {"length": len(data), "data": data.hex()}


def exact(value: Any, *, output: bool = False, known: Callable[[Question], bool] | None = None) -> Any:
    """A value without loss.

    Args:
        value: Whatever it is.
        output: It came out of the connection: of many bytes their digest will do.
        known: Whether a question is one that the connection has asked.
    """
    depth = 0

    def write(value: Any) -> Any:
        nonlocal depth
        depth += 1
        try:
            return {"$opaque": type(value).__name__} if depth > _DEEPEST else form(value)
        finally:
            depth -= 1

    def form(value: Any) -> Any:
        held: Any = value  # of which a type checker believes everything
        match value:
            case None | bool():
                return value
            case Enum():
                return write(value.value)
            case int():
                return int(value)
            case float():
                return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
            case str():
                return str(value)
            case bytes() | bytearray() | memoryview():
                data = bytes(held)
                return digest(data) if output else {"$bytes": data.hex()}
            case PublicKey():
                return {"$public_key": value.blob.hex(), "comment": value.comment}
            case Certificate():
                return {"$certificate": value.blob.hex(), "comment": value.comment}
            case PrivateKey():
                return {"$private_key": value.public_key.blob.hex(), "comment": value.comment}
            case list() | tuple():
                return [write(item) for item in held]
            case BaseException():
                return describe_error(value, write)
            case Question() if known is not None and known(value):
                return {"$question": value.id}
            case _ if attrs.has(held.__class__):
                return {"$class": type(value).__name__} | {
                    field.name: write(getattr(value, field.name)) for field in fields(value)
                }
            case _:
                return {"$opaque": type(value).__name__}

    return write(value)


def describe_error(error: BaseException, write: Callable[[Any], Any]) -> dict[str, Any]:
    """An exception: its class, its words, and its attributes."""
    told = {name: write(value) for name, value in sorted(vars(error).items()) if name not in ("details", "__notes__")}
    if isinstance(error, ConnectionLoss):
        told["code"] = write(error.code)
    return {"$error": type(error).__name__, "text": str(error), **told}


def shown(value: Any, privacy: Privacy, name: str = "", depth: int = 0) -> Any:
    """What may be seen of a value.

    Args:
        value: Whatever it is.
        privacy: The level; one below that which can be replayed.
        name: Of the field or argument that holds it.
        depth: How deep it is in others.
    """
    content = privacy.covers(Privacy.PAYLOAD)
    held: Any = value  # of which a type checker believes everything
    match value:
        case _ if name in SECRET or depth > _DEEPEST:
            return {"$hidden": type(value).__name__}
        case None | bool() | float():
            return exact(value)
        case Enum():
            return shown(value.value, privacy, name)
        case int():
            return int(value)
        case str():
            return str(value) if content or name in PUBLIC_TEXT else {"$hidden": "str", "length": len(value)}
        case bytes() | bytearray() | memoryview():
            data = bytes(held)
            return digest(data) if content or name in PUBLIC_BYTES else {"$hidden": "bytes", "length": len(data)}
        case PublicKey():
            return {"type": value.type, "fingerprint": value.fingerprint()}
        case Certificate():
            told = {"type": value.type, "fingerprint": value.fingerprint(), "serial": value.serial}
            return told | {"authority": value.authority.fingerprint()}
        case PrivateKey():
            return {"type": value.public_key.type, "fingerprint": value.public_key.fingerprint()}
        case list() | tuple():
            if name == "extensions":
                return [_pair(item, privacy) for item in held]
            return [shown(item, privacy, name, depth + 1) for item in held]
        case BaseException():
            return _shown_error(value, privacy)
        case _ if attrs.has(held.__class__):
            seen = {field.name: _field(value, field, privacy, depth + 1) for field in fields(value)}
            return {"$class": type(value).__name__} | seen
        case _:
            return {"$hidden": type(value).__name__}


def _pair(item: Any, privacy: Privacy) -> Any:
    """An extension: its name and its value."""
    name, value = item
    return [str(name), shown(value, privacy, "extensions")]


def _field(value: Any, field: attrs.Attribute[Any], privacy: Privacy, depth: int) -> Any:
    held = getattr(value, field.name)
    return {"$hidden": type(held).__name__} if not field.repr else shown(held, privacy, field.name, depth)


def _shown_error(error: BaseException, privacy: Privacy) -> dict[str, Any]:
    """The words of a connection's end are made to be shown; those about a caller's mistake may repeat what it gave."""
    if isinstance(error, ConnectionLoss) and not isinstance(error, InternalError):
        told = describe_error(error, lambda value: value)
        return {"$error": told["$error"], "text": told["text"], "code": error.code}
    return {"$error": type(error).__name__}


# -------------------------------------------------------------------------------------------------------------- reading


class Decoder:
    """Makes values of what :func:`exact` wrote.

    Args:
        sign: What the private keys sign with, as ``sign(public_key)``; they have no private part.

    Attributes:
        questions: Those that were asked, by their number.
    """

    def __init__(self, sign: Callable[[PublicKey], PrivateKey]) -> None:
        self.questions: dict[int, Question] = {}
        self._sign = sign

    def value(self, written: Any, where: str = "value") -> Any:
        """A value.

        Raises:
            TraceError: It is none, or one that cannot be made.
        """
        match written:
            case None | bool() | float() | str():
                return written
            case int():
                if abs(written) > _LARGEST_INTEGER:
                    raise _wrong(where, "a number of more than 64 bits")
                return written
            case list():
                return tuple([self.value(item, where) for item in as_list(written) or ()])
            case dict():
                return self._special(as_object(written) or {}, where)
            case _:
                raise _wrong(where, f"nothing of JSON: {type(written).__name__}")

    def config(self, role: Role, written: Any, **functions: Any) -> Config:
        """A configuration.

        Args:
            role: Whose.
            written: What :func:`config` wrote.
            functions: The functions that it is to have.

        Raises:
            TraceError: It is none, or has something that this version does not know.
        """
        told = self._object(written, "config")
        known = {field.name for field in attrs.fields(_ROLES[role])} - _FUNCTIONS
        values: dict[str, Any] = {}
        for name, value in told.items():
            if name not in known:
                raise _wrong("config", f"it has {printable(name)!r}, which this version of sshproto does not know")
            if name in _PARTS:
                values[name] = self._make(_PARTS[name], self._object(value, name), name)
            else:
                values[name] = self.value(value, name)
        try:
            made: Config = _ROLES[role](**values, **functions)
        except (SSHError, TypeError, ValueError) as error:
            raise _wrong("config", printable(str(error))) from None
        return made

    def _special(self, written: dict[str, Any], where: str) -> Any:
        for key, make in self._KINDS.items():
            if key in written:
                return make(self, written, where)
        raise _wrong(where, f"an object without a key that is known: {printable(str(sorted(written)))}")

    def _bytes(self, written: dict[str, Any], where: str) -> bytes:
        if "sha256" in written:
            raise _wrong(where, "only the first bytes of an output are there")
        return from_hex(written["$bytes"], where)

    def _class(self, written: dict[str, Any], where: str) -> Any:
        name = written["$class"]
        cls = _CLASSES.get(name) if isinstance(name, str) else None
        if cls is None:
            raise _wrong(where, f"there is no class {printable(str(name))!r} for values that calls are given")
        return self._make(cls, {key: value for key, value in written.items() if key != "$class"}, where)

    def _make(self, cls: Any, told: Mapping[str, Any], where: str) -> Any:
        known = {field.name for field in attrs.fields(cls)}
        for name in told:
            if name not in known:
                raise _wrong(where, f"{cls.__name__} has no field {printable(name)!r} in this version of sshproto")
        try:
            return cls(**{name: self.value(value, f"{where}.{name}") for name, value in told.items()})
        except TraceError:
            raise
        except (SSHError, TypeError, ValueError) as error:
            raise _wrong(where, f"no {cls.__name__}: {printable(str(error))}") from None

    def _question(self, written: dict[str, Any], where: str) -> Question:
        number = written["$question"]
        found = self.questions.get(number) if isinstance(number, int) else None
        if found is None:
            raise UnknownQuestion(where, "", -1, f"no question {printable(str(number))} was asked")
        return found

    def _public_key(self, written: dict[str, Any], where: str) -> PublicKey:
        return self._key(written["$public_key"], written.get("comment", ""), where)

    def _private_key(self, written: dict[str, Any], where: str) -> PrivateKey:
        return self._sign(self._key(written["$private_key"], written.get("comment", ""), where))

    def _certificate(self, written: dict[str, Any], where: str) -> Certificate:
        comment = written.get("comment", "")
        if not isinstance(comment, str):
            raise _wrong(where, "a comment is text")
        try:
            return Certificate.from_blob(
                from_hex(written["$certificate"], where),
                comment,
                minimum_rsa_bits=LOWEST_RSA_BITS,
                authority_algorithms=tuple(SIGNATURES),
            )
        except errors.KeyFormatError as error:
            raise _wrong(where, printable(str(error))) from None

    def _key(self, blob: Any, comment: Any, where: str) -> PublicKey:
        if not isinstance(comment, str):
            raise _wrong(where, "a comment is text")
        try:
            return PublicKey.from_blob(from_hex(blob, where), comment, minimum_rsa_bits=LOWEST_RSA_BITS)
        except errors.KeyFormatError as error:
            raise _wrong(where, printable(str(error))) from None

    def _float(self, written: dict[str, Any], where: str) -> float:
        number = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}.get(str(written["$float"]))
        if number is None:
            raise _wrong(where, f"no number: {printable(str(written['$float']))}")
        return number

    def _opaque(self, written: dict[str, Any], where: str) -> NoReturn:
        raise _wrong(where, f"a {printable(str(written['$opaque']))} was given, which a trace cannot hold")

    def _object(self, written: Any, where: str) -> Mapping[str, Any]:
        found = as_object(written)
        if found is None:
            raise _wrong(where, f"an object was expected, {type(written).__name__} came")
        return found

    _KINDS: Mapping[str, Callable[[Any, dict[str, Any], str], Any]] = {
        "$bytes": _bytes,
        "$class": _class,
        "$question": _question,
        "$public_key": _public_key,
        "$certificate": _certificate,
        "$private_key": _private_key,
        "$float": _float,
        "$opaque": _opaque,
    }


class UnknownQuestion(TraceError):
    """An answer to a question that was not asked."""


def _wrong(where: str, problem: str) -> TraceError:
    """An error that does not know yet where in the file it is."""
    return TraceError(where, "", -1, problem)


def from_hex(written: Any, where: str) -> bytes:
    """Bytes that stand in hexadecimal.

    Raises:
        TraceError: They do not.
    """
    try:
        return bytes.fromhex(written)
    except (TypeError, ValueError):
        raise _wrong(where, "not hexadecimal") from None


def config(value: Config, privacy: Privacy) -> dict[str, Any]:
    """A configuration, without its functions. Of its private keys there is the public half only."""
    told: dict[str, Any] = {}
    for field in fields(value):
        if field.name in _FUNCTIONS:
            continue
        held = getattr(value, field.name)
        written = exact(held) if privacy is Privacy.REPLAY else shown(held, privacy, field.name)
        if field.name in _PARTS:
            del written["$class"]
        told[field.name] = written
    return told


def error_class(name: Any) -> type[SSHError]:
    """The class of an exception that a signature or a crypto backend raised; the base of all if it is not ours."""
    found: Any = vars(errors).get(name) if isinstance(name, str) else None
    if isinstance(found, type) and issubclass(found, (UsageError, errors.SignatureInvalid, errors.KeyFormatError)):
        return found
    return SSHError
