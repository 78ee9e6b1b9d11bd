"""The file of a trace: what one connection of ours was given and what it gave, one record after the other.

It is a qlog file in its sequential form (draft-ietf-quic-qlog-main-schema-14 section 5): JSON texts, each between a
record separator and a line feed (RFC 7464).  The first is the header; each of the others is an event of the schema
:data:`SCHEMA`, whose events :data:`EVENTS` lists and ``docs/reference/trace-schema.md`` describes.

Records are only ever appended, so a file that was cut short is whole up to its last record: a :class:`TraceReader`
gives those, and says where the rest was cut.  Anything else that is wrong is a :class:`TraceError`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, cast

import attrs

from sshproto.config import VERSION
from sshproto.errors import WireError
from sshproto.text import printable
from sshproto.values import frozen
from sshproto.wire.codec import Buffer
from sshproto.wire.table import Role

FILE_SCHEMA = "urn:ietf:params:qlog:file:sequential"
SERIALIZATION = "application/qlog+json-seq"
SCHEMA = "urn:x-sshproto:qlog:events:ssh-1"
"""The URI of the event schema."""
FORMAT = 1
"""The version of all that the schema leaves to us: how values and configurations are written."""
SUFFIX = ".sqlog"

LONGEST_RECORD = 64 * 1024 * 1024
"""Bytes of one record; what one ``receive_data`` got is in one, two characters for a byte."""

DEEPEST = 64
"""How deep the values of a record are nested at most."""

_SEPARATOR = b"\x1e"
_SHOWN = 80  # characters of a record that makes no sense

_WARNING = (
    "This trace can be replayed: it holds all random numbers of the connection, and with them its keys, and whatever"
    " was typed or sent, passwords included. Keep it as secret as the session itself."
)


class Privacy(Enum):
    """How much a trace tells. Each level tells what the one before does, and more."""

    LENGTHS = "lengths"
    """Directions, sizes and times."""
    METADATA = "metadata"
    """What is not content: names of users, algorithms, messages, kinds of channels and requests, hosts and ports."""
    PAYLOAD = "payload"
    """Content: data of channels, commands, words for people. No password, no answer to a prompt, no key."""
    REPLAY = "replay"
    """Everything, so that the connection can be replayed: random numbers and passwords as well. Never a private key."""

    def covers(self, other: Privacy) -> bool:
        """Whether a trace of this level tells what one of the other does."""
        order = list(Privacy)
        return order.index(self) >= order.index(other)


class Importance(Enum):
    """How much an event matters, as qlog has it (section 9.3 of its main schema)."""

    CORE = "core"
    BASE = "base"
    EXTRA = "extra"


@frozen
class EventType:
    """An event of the schema.

    Attributes:
        importance: How much it matters.
        level: The lowest level at which it is written.
        what: What it tells.
    """

    importance: Importance
    level: Privacy
    what: str


_CORE, _BASE, _EXTRA = Importance.CORE, Importance.BASE, Importance.EXTRA
_LENGTHS, _METADATA, _REPLAY = Privacy.LENGTHS, Privacy.METADATA, Privacy.REPLAY

EVENTS: Mapping[str, EventType] = {
    "ssh:connection_started": EventType(_CORE, _LENGTHS, "the connection was made, with this configuration"),
    "ssh:bytes_in": EventType(_EXTRA, _LENGTHS, "the application gave what the peer sent: one chunk"),
    "ssh:eof_in": EventType(_EXTRA, _LENGTHS, "the application said that the peer will send no more"),
    "ssh:clock": EventType(_EXTRA, _LENGTHS, "the application said that a deadline has come"),
    "ssh:api_call": EventType(_EXTRA, _METADATA, "the application gave a command, or answered a question"),
    "ssh:api_result": EventType(_EXTRA, _METADATA, "what an input, a command or an answer returned or raised"),
    "ssh:idle": EventType(_EXTRA, _REPLAY, "the application asked for the next event, and there was none"),
    "ssh:bytes_out": EventType(_EXTRA, _LENGTHS, "the application took what was to be sent"),
    "ssh:entropy": EventType(_EXTRA, _REPLAY, "random bytes were drawn"),
    "ssh:oracle": EventType(_EXTRA, _REPLAY, "what a crypto backend randomised, or a private key signed"),
    "ssh:packet_sent": EventType(_CORE, _LENGTHS, "a packet was sealed"),
    "ssh:packet_received": EventType(_CORE, _LENGTHS, "a packet was opened"),
    "ssh:identification": EventType(_CORE, _METADATA, "VersionReceived"),
    "ssh:host_key_offered": EventType(_BASE, _METADATA, "HostKeyOffered"),
    "ssh:signature_needed": EventType(_BASE, _METADATA, "SignatureNeeded"),
    "ssh:kex_completed": EventType(_CORE, _METADATA, "KeysExchanged"),
    "ssh:ext_info": EventType(_BASE, _METADATA, "ExtInfoReceived"),
    "ssh:debug": EventType(_EXTRA, _METADATA, "DebugReceived"),
    "ssh:unimplemented": EventType(_EXTRA, _METADATA, "UnimplementedReceived"),
    "ssh:pong": EventType(_EXTRA, _METADATA, "PongReceived"),
    "ssh:credential_needed": EventType(_BASE, _METADATA, "CredentialNeeded"),
    "ssh:auth_banner": EventType(_BASE, _METADATA, "BannerReceived"),
    "ssh:auth_result": EventType(_CORE, _METADATA, "AuthFailed, AuthSucceeded or Authenticated"),
    "ssh:prompts": EventType(_BASE, _METADATA, "PromptsReceived"),
    "ssh:password_expired": EventType(_BASE, _METADATA, "PasswordExpired"),
    "ssh:auth_attempted": EventType(
        _CORE, _METADATA, "NoneAuth, PasswordAuth, KeyProbe, KeyAuth, InteractiveAuth or PromptsAnswered"
    ),
    "ssh:global_request": EventType(_BASE, _METADATA, "GlobalRequested"),
    "ssh:global_reply": EventType(_BASE, _METADATA, "GlobalSucceeded or GlobalFailed"),
    "ssh:channel_open_requested": EventType(_CORE, _METADATA, "ChannelOpenRequested"),
    "ssh:channel_opened": EventType(_CORE, _METADATA, "ChannelOpened"),
    "ssh:channel_open_failed": EventType(_CORE, _METADATA, "ChannelOpenFailed"),
    "ssh:channel_data": EventType(_BASE, _METADATA, "DataReceived"),
    "ssh:channel_writable": EventType(_BASE, _METADATA, "ChannelWritable"),
    "ssh:channel_eof": EventType(_BASE, _METADATA, "EofReceived"),
    "ssh:channel_closed": EventType(_CORE, _METADATA, "ChannelClosed"),
    "ssh:channel_request": EventType(_CORE, _METADATA, "ChannelRequested or ChannelNotified"),
    "ssh:channel_reply": EventType(_BASE, _METADATA, "RequestSucceeded or RequestFailed"),
    "ssh:disconnected": EventType(_CORE, _METADATA, "ConnectionLost"),
}
"""The events of the schema by their name. Those whose words are names of classes of :mod:`sshproto.events` are what
``next_event`` returned."""

NAMES: Mapping[str, str] = {
    name: event
    for event, kind in EVENTS.items()
    if kind.what[0].isupper()
    for name in kind.what.replace(" or ", ", ").split(", ")
}
"""The event of the schema for each class of :mod:`sshproto.events`."""


class TraceError(WireError):
    """A file that is no trace, or one that is damaged, or that cannot be replayed.

    Attributes:
        where: The record.
        field: The field of it, or ``""``.
        offset: Where in the file the record starts, in bytes.
        problem: What came, and what was expected.
    """


@frozen
class Record:
    """One event of a trace.

    Attributes:
        time: Milliseconds, of the application's clock.
        name: Its name, see :data:`EVENTS`.
        data: What it tells.
        offset: Where it starts in the file, in bytes; -1 if it never was in one.
    """

    time: float
    name: str
    data: Mapping[str, Any]
    offset: int = attrs.field(default=-1, eq=False)

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return {"time": self.time, "name": self.name, "data": self.data}


@frozen(kw_only=True)
class Header:
    """The first record.

    Attributes:
        role: Whose side was recorded.
        privacy: How much the trace tells.
        software: What wrote it.
        title: What it is about; often empty.
    """

    role: Role
    privacy: Privacy
    software: str = f"sshproto {VERSION}"
    title: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The header as JSON has it."""
        named = {"title": self.title} if self.title else {}
        warned = {"description": _WARNING} if self.privacy is Privacy.REPLAY else {}
        return {
            "file_schema": FILE_SCHEMA,
            "serialization_format": SERIALIZATION,
            **named,
            **warned,
            "trace": {
                "event_schemas": [SCHEMA],
                "vantage_point": {"type": self.role.value, "name": self.software},
                "common_fields": {
                    "time_format": "relative_to_epoch",
                    "reference_time": {"clock_type": "monotonic", "epoch": "unknown"},
                    "ssh_format": FORMAT,
                    "privacy": self.privacy.value,
                },
            },
        }


@frozen
class Cut:
    """Where a file ends in the middle of a record.

    Attributes:
        offset: Where that record starts, in bytes: up to there the file is whole.
        length: How many bytes of it there are; 0 if the file ends before its first record.
    """

    offset: int
    length: int


def encode(value: Mapping[str, Any]) -> bytes:
    """A record as it stands in a file.

    Raises:
        ValueError: Something in it is nothing for JSON.
    """
    return b"\x1e" + json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


class TraceReader:
    """Reads a trace, piece by piece.

    Attributes:
        header: The header, once read.
        cut: Where the file was cut; None if it is whole, and before :meth:`finish`.
    """

    def __init__(self) -> None:
        self.header: Header | None = None
        self.cut: Cut | None = None
        self._buffer = bytearray()
        self._searched = 1
        self._offset = 0

    def feed(self, data: Buffer) -> list[Record]:
        """The records that are complete with ``data``.

        Raises:
            TraceError: This is no trace, or it is damaged.
        """
        buffer = self._buffer
        buffer += data
        if buffer and buffer[0] != _SEPARATOR[0]:
            came = bytes(buffer[:16])
            raise TraceError("trace", "", self._offset, f"a record begins with byte 1e, {came!r} came")
        found: list[Record] = []
        start = 0
        while (end := buffer.find(_SEPARATOR, max(start + 1, self._searched))) >= 0:
            self._take(bytes(buffer[start + 1 : end]), found)
            self._offset += end - start
            start = end
        del buffer[:start]
        self._searched = max(1, len(buffer))
        if len(buffer) > LONGEST_RECORD:
            raise TraceError("trace", "", self._offset, f"a record of more than {LONGEST_RECORD} bytes")
        return found

    def finish(self) -> list[Record]:
        """The last record, if it is whole; if not, :attr:`cut` says where it starts.

        Raises:
            TraceError: It is damaged.
        """
        found: list[Record] = []
        last = bytes(self._buffer)
        self._buffer.clear()
        if last.endswith(b"\n"):
            self._take(last[1:], found)
            self._offset += len(last)
        elif last or self.header is None:
            self.cut = Cut(self._offset, len(last))
        return found

    def _take(self, text: bytes, found: list[Record]) -> None:
        if not text.endswith(b"\n"):
            raise self._wrong("", f"a record ends with a line feed, this one with {text[-8:]!r}")
        try:
            read: Any = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            shown = printable(text[:_SHOWN], _SHOWN)
            raise self._wrong("", f"not JSON ({printable(str(error))}): {shown}") from None
        if text.count(b"[") + text.count(b"{") > DEEPEST and _depth(read) > DEEPEST:
            raise self._wrong("", f"values are nested more than {DEEPEST} deep")
        value = as_object(read)
        if value is None:
            raise self._wrong("", f"an object was expected, {_kind(read)} came")
        if self.header is None:
            self.header = self._read_header(value)
            return
        time, name, data = value.get("time"), value.get("name"), as_object(value.get("data"))
        if isinstance(time, bool) or not isinstance(time, (int, float)):
            raise self._wrong("time", f"milliseconds were expected, {_kind(time)} came")
        if not isinstance(name, str) or ":" not in name:
            raise self._wrong("name", f"a name was expected, {_kind(name)} came")
        if data is None:
            raise self._wrong("data", f"an object was expected, {_kind(value.get('data'))} came")
        found.append(Record(time, name, data, self._offset))

    def _read_header(self, value: Mapping[str, Any]) -> Header:
        for field, expected in (("file_schema", FILE_SCHEMA), ("serialization_format", SERIALIZATION)):
            if value.get(field) != expected:
                came = _kind(value.get(field))
                raise self._wrong(field, f"{expected!r} was expected, {came} came: this is no sequential qlog file")
        trace = _object(value.get("trace"))
        schemas, fields = as_list(trace.get("event_schemas")), _object(trace.get("common_fields"))
        if schemas is None or SCHEMA not in schemas:
            raise self._wrong("event_schemas", f"{SCHEMA!r} is not among them: its events are others than ours")
        if fields.get("ssh_format") != FORMAT:
            raise self._wrong("ssh_format", f"{FORMAT} was expected, {_kind(fields.get('ssh_format'))} came")
        point = _object(trace.get("vantage_point"))
        software, title = point.get("name", ""), value.get("title", "")
        try:
            role, privacy = Role(point.get("type")), Privacy(fields.get("privacy"))
        except ValueError as error:
            raise self._wrong("trace", printable(str(error))) from None
        if not isinstance(software, str) or not isinstance(title, str):
            raise self._wrong("title", "names are text")
        return Header(role=role, privacy=privacy, software=software, title=title)

    def _wrong(self, field: str, problem: str) -> TraceError:
        return TraceError("trace record", field, self._offset, problem)


@frozen
class Trace:
    """A trace as a whole.

    Attributes:
        header: Its header; None if it was cut before the end of that.
        records: All that is whole.
        cut: Where it was cut, or None.
    """

    header: Header | None
    records: tuple[Record, ...]
    cut: Cut | None

    def encode(self) -> bytes:
        """The file, as far as it is whole."""
        if self.header is None:
            return b""
        return b"".join([encode(self.header.as_dict()), *(encode(record.as_dict()) for record in self.records)])


def read(chunks: Buffer | Iterable[Buffer]) -> Trace:
    """Read a whole trace.

    Args:
        chunks: The file, in one piece or several.

    Raises:
        TraceError: This is no trace, or it is damaged. To be cut short is no damage.
    """
    reader = TraceReader()
    records: list[Record] = []
    for chunk in whole(chunks):
        records += reader.feed(chunk)
    records += reader.finish()
    return Trace(reader.header, tuple(records), reader.cut)


def milliseconds(now: Any) -> float:
    """A moment of the application's clock as the time of a record; 0 if it is none that JSON knows."""
    try:
        return round(now * 1000, 3) if math.isfinite(now) else 0
    except (TypeError, OverflowError):
        return 0


def whole(chunks: Buffer | Iterable[Buffer]) -> Iterable[Buffer]:
    """The pieces of a file that came in one piece or in several."""
    given: Any = chunks
    return [given] if isinstance(chunks, (bytes, bytearray, memoryview)) else given


def as_object(value: Any) -> dict[str, Any] | None:
    """``value`` if it is an object of JSON's, else None."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def as_list(value: Any) -> list[Any] | None:
    """``value`` if it is an array of JSON's, else None."""
    found: Any = value
    return found if isinstance(value, list) else None


def _depth(value: Any) -> int:
    """How deep a value is nested, told without recursion; a little more than :data:`DEEPEST` is enough to know."""
    level: list[Any] = [value]
    depth = 0
    while level and depth <= DEEPEST:
        depth += 1
        inner: list[Any] = []
        for item in level:
            inner += as_list(item) or (as_object(item) or {}).values()
        level = [item for item in inner if isinstance(item, (list, dict))]
    return depth


def _object(value: Any) -> Mapping[str, Any]:
    return as_object(value) or {}


def _kind(value: Any) -> str:
    """What came, for errors."""
    if value is None:
        return "nothing"
    return repr(printable(value, _SHOWN)) if isinstance(value, str) else printable(repr(value), _SHOWN)


def _finite(text: str) -> float:
    """A number that can be written again: 1e999 reads as infinity, which JSON has no word for."""
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")
