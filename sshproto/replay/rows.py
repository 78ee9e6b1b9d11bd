"""Connections and events as flat rows, for tables: one row a connection, or one row an event.

:data:`CONNECTION_COLUMNS` and :data:`EVENT_COLUMNS` say what stands in them.  Columns are only ever added, at the end;
their names, types and meanings stay.  A row is a dict with all of its table's columns, in their order, of plain values:
``str``, ``int``, ``bool``, lists of these, and None where nobody knows.  Text is what the recording has: whoever shows
it to people makes it :func:`~sshproto.text.printable` first.

Rows hold no secrets, and of what was said on channels only its size; but commands, names of users and the like are
there, if the connection was opened.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import attrs

from sshproto import events as ev
from sshproto.channels import requests as rq
from sshproto.replay import events as seen_events
from sshproto.replay.analysis import PORTS, Analysis, AnalysisLimits, Conversation
from sshproto.replay.capture.reader import CaptureError, Sliceable
from sshproto.replay.events import Observed, PacketOpened, RolesSeen, Side, Ssh1Packet, role_of
from sshproto.replay.findings import Severity
from sshproto.replay.secrets import KeyLogError, Secrets
from sshproto.values import define, frozen
from sshproto.wire.table import message_name

if TYPE_CHECKING:
    from sshproto.replay.findings import Policy

Row: TypeAlias = dict[str, Any]

_TCP = 6
_TEXT = 4096
"""So much of what a peer has chosen stands in one value, in characters."""


class Kind(Enum):
    """The type of a column's values."""

    TEXT = "text"
    INTEGER = "integer"
    """A whole number that 64 bits hold, with a sign."""
    BOOLEAN = "boolean"
    TIME = "time"
    """Nanoseconds since 1970, UTC, as an integer."""
    TEXTS = "list of text"
    INTEGERS = "list of integer"


@frozen
class Column:
    """A column of a table.

    Attributes:
        name: Its name.
        kind: The type of its values, which may all be None unless :attr:`needed`.
        words: What it means.
        unit: Of numbers; ``""`` for numbers of things.
        needed: It is never None.
    """

    name: str
    kind: Kind
    words: str
    unit: str = ""
    needed: bool = False


CONNECTION_COLUMNS: tuple[Column, ...] = (
    Column("capture", Kind.TEXT, "the capture that it begins in, as its reader calls it", needed=True),
    Column("connection", Kind.INTEGER, "its number among all TCP connections of the capture, from 1", needed=True),
    Column("community_id", Kind.TEXT, "Community ID, version 1, seed 0, as other tools compute it", needed=True),
    Column("dialler_address", Kind.TEXT, "who dialled; if that was not captured, who was seen first", needed=True),
    Column("dialler_port", Kind.INTEGER, "its port", needed=True),
    Column("dialled_address", Kind.TEXT, "who was dialled", needed=True),
    Column("dialled_port", Kind.INTEGER, "its port", needed=True),
    Column("client", Kind.TEXT, "who is the SSH client: `dialler` or `dialled`; null if nobody knows"),
    Column("client_sure", Kind.BOOLEAN, "the key exchange shows who is the client", needed=True),
    Column("start", Kind.TEXT, "how it begins in the capture: `syn`, `syn-ack` or `middle`", needed=True),
    Column(
        "ending", Kind.TEXT, "how it ends: `finished`, `reset`, `reused`, `evicted` or `capture`, the capture's end"
    ),
    Column("frame", Kind.INTEGER, "its first frame", needed=True),
    Column("began", Kind.TIME, "when that was captured", "ns since 1970, UTC"),
    Column("ended", Kind.TIME, "when the last of it was captured", "ns since 1970, UTC"),
    Column("packets_dialler", Kind.INTEGER, "frames that brought bytes of the dialler", needed=True),
    Column("packets_dialled", Kind.INTEGER, "the same of the dialled", needed=True),
    Column("bytes_dialler", Kind.INTEGER, "what the dialler has sent, as far as it was captured", "bytes", needed=True),
    Column("bytes_dialled", Kind.INTEGER, "the same of the dialled", "bytes", needed=True),
    Column("missing_dialler", Kind.INTEGER, "what the capture lacks of the dialler", "bytes", needed=True),
    Column("missing_dialled", Kind.INTEGER, "the same of the dialled", "bytes", needed=True),
    Column("client_version", Kind.TEXT, "the client's identification line"),
    Column("server_version", Kind.TEXT, "the server's"),
    Column("kex", Kind.TEXT, "the method of the first key exchange"),
    Column("host_key_alg", Kind.TEXT, "the algorithm of the server's signature"),
    Column("host_key_sha256", Kind.TEXT, "the fingerprint of the host key"),
    Column("cipher_c2s", Kind.TEXT, "the cipher, client to server"),
    Column("cipher_s2c", Kind.TEXT, "the same, server to client"),
    Column(
        "mac_c2s",
        Kind.TEXT,
        "the MAC, client to server; what the lists add up to, also where the cipher brings its own",
    ),
    Column("mac_s2c", Kind.TEXT, "the same, server to client"),
    Column("compression_c2s", Kind.TEXT, "the compression, client to server"),
    Column("compression_s2c", Kind.TEXT, "the same, server to client"),
    Column("strict_kex", Kind.BOOLEAN, "the strict key exchange is agreed"),
    Column("hassh", Kind.TEXT, "the HASSH of what the client offers"),
    Column("hassh_server", Kind.TEXT, "the same of the server"),
    Column("session_id", Kind.TEXT, "the exchange hash of the first key exchange, in hexadecimal"),
    Column("kex_epochs", Kind.INTEGER, "key exchanges that were seen", needed=True),
    Column("auth_success", Kind.BOOLEAN, "a login has succeeded; null if nobody knows"),
    Column("complete", Kind.BOOLEAN, "nothing is missing, from the identifications to the end", needed=True),
    Column("decrypted", Kind.BOOLEAN, "it was encrypted, and all of it could be read", needed=True),
    Column("messages_client", Kind.INTEGER, "messages of the client; null unless `decrypted`"),
    Column("messages_server", Kind.INTEGER, "messages of the server; null unless `decrypted`"),
    Column("payload_sha256_client", Kind.TEXT, "SHA-256 of all payloads of the client; null unless `decrypted`"),
    Column("payload_sha256_server", Kind.TEXT, "the same of the server"),
    Column("problems", Kind.TEXTS, "what could not be followed, in words; at most a hundred", needed=True),
    Column("problem_count", Kind.INTEGER, "how many there were", needed=True),
    Column("findings", Kind.TEXTS, "the codes of what is wrong with it, the worst first, each once", needed=True),
    Column("finding_count", Kind.INTEGER, "how many findings there were", needed=True),
    Column("severity", Kind.TEXT, "the worst: `info`, `low`, `medium`, `high` or `critical`; null if there are none"),
)
"""What stands in the row of a connection."""

EVENT_COLUMNS: tuple[Column, ...] = (
    Column("capture", Kind.TEXT, "the capture that its connection begins in", needed=True),
    Column("connection", Kind.INTEGER, "the number of its connection", needed=True),
    Column("community_id", Kind.TEXT, "that of its connection", needed=True),
    Column("event", Kind.INTEGER, "its number in the connection, from 1", needed=True),
    Column("time", Kind.TIME, "when what it was seen in was captured, to the microsecond", "ns since 1970, UTC"),
    Column("frames", Kind.INTEGERS, "the frames that brought what it was seen in", needed=True),
    Column("side", Kind.TEXT, "who sent that: `dialler` or `dialled`", needed=True),
    Column("role", Kind.TEXT, "the same as `client` or `server`; null if nobody knows yet"),
    Column("kind", Kind.TEXT, "the name of the event's class", needed=True),
    Column("number", Kind.INTEGER, "the number of the message, if it is one"),
    Column("message", Kind.TEXT, "the name of the message"),
    Column("channel", Kind.INTEGER, "the number of the channel, in the order in which they were opened"),
    Column("size", Kind.INTEGER, "of a packet on the wire, of data, of what is missing", "bytes"),
    Column("words", Kind.TEXT, "what else there is to say, short", needed=True),
)
"""What stands in the row of an event."""

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_SEVERITIES = tuple(Severity)


def community_id(flow: bytes) -> str:
    """The Community ID of a TCP connection: version 1, with the seed 0.

    Args:
        flow: Addresses and ports, :attr:`~sshproto.replay.capture.flows.Connection.flow`; the direction makes no
            difference.
    """
    size = (len(flow) - 4) // 2
    ends = sorted(
        (flow[which * size : (which + 1) * size], flow[2 * size + 2 * which : 2 * size + 2 * which + 2])
        for which in range(2)
    )
    (first, first_port), (second, second_port) = ends
    hashed = b"".join((bytes(2), first, second, bytes((_TCP, 0)), first_port, second_port))
    return f"1:{base64.b64encode(hashlib.sha1(hashed, usedforsecurity=False).digest()).decode('ascii')}"


def connection_row(conversation: Conversation, capture: str | None = None) -> Row:
    """The row of a connection, see :data:`CONNECTION_COLUMNS`.

    Args:
        conversation: The connection; what it has come to so far, if it is not over.
        capture: What to call its capture; :attr:`Conversation.capture` if it is None.
    """
    connection, summary = conversation.connection, conversation.summary
    dialler, dialled = connection.dialler, connection.dialled
    findings = conversation.findings
    known = summary.as_dict()
    decrypted: Mapping[str, Any] | None = known.pop("decrypted")
    row: Row = {
        "capture": conversation.capture if capture is None else capture,
        "connection": connection.number,
        "community_id": community_id(connection.flow),
        "dialler_address": dialler.address,
        "dialler_port": dialler.port,
        "dialled_address": dialled.address,
        "dialled_port": dialled.port,
        "client": summary.client.value if summary.client else None,
        "client_sure": summary.sure,
        "start": connection.start.value,
        "ending": connection.ending.value if connection.ending else None,
        "frame": connection.frame,
        "began": _time(connection.time),
        "ended": _time(conversation.ended),
        **{f"packets_{side.value}": conversation.packets[side] for side in Side},
        **{f"bytes_{side.value}": conversation.bytes[side] for side in Side},
        **{f"missing_{stream.side.value}": stream.missing for stream in connection.streams},
        **known,
        "decrypted": decrypted is not None,
        **{f"messages_{role}": len(decrypted[role]["messages"]) if decrypted else None for role in _ROLES},
        **{f"payload_sha256_{role}": decrypted[role]["payload_sha256"] if decrypted else None for role in _ROLES},
        "problems": list(summary.problems),
        "problem_count": len(summary.problems) + summary.more_problems,
        "findings": list(dict.fromkeys(finding.code for finding in findings)),
        "finding_count": len(findings),
        "severity": max((each.severity for each in findings), key=_SEVERITIES.index).value if findings else None,
    }
    return {name: _plain(value) for name, value in row.items()}


_ROLES = ("client", "server")


def _time(value: int) -> int | None:
    """A time; None if the file has one that nothing can hold."""
    return value if _LOWEST <= value <= _HIGHEST else None


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    return list(map(_text, cast(list[str], value))) if isinstance(value, list) else value


def _text(text: str) -> str:
    """Text as Unicode has it: bytes that are not UTF-8 are shown as ``\\xNN``."""
    return text[:_TEXT].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# --------------------------------------------------------------------------------------------------------------- events


def _request(event: Any) -> str:
    request = getattr(event, "request", None) or event.notice
    match request:
        case rq.Exec(command=command):
            return f"exec: {command[:_TEXT].decode('utf-8', 'backslashreplace')}"
        case rq.Subsystem(name=name) | rq.Env(name=name) | rq.Signal(name=name) | rq.ExitSignal(name=name):
            return f"{request.type}: {name}"
        case rq.ExitStatus(status=status):
            return f"{request.type}: {status}"
        case _:
            return f"{request.type}"


def _shown(login: ev.KeyProbe | ev.KeyAuth) -> str:
    """What a login shows: a key, or a certificate for it."""
    fingerprint, certificate = login.key.fingerprint(), login.certificate
    return fingerprint if certificate is None else f"a certificate {certificate.key_id!r} for {fingerprint}"


_WORDS: Mapping[type[ev.Event], Callable[[Any], str]] = MappingProxyType(
    {
        ev.VersionReceived: lambda it: it.line,
        ev.DebugReceived: lambda it: it.message,
        ev.BannerReceived: lambda it: it.text,
        ev.NoneAuth: lambda it: f"{it.user} with none",
        ev.PasswordAuth: lambda it: f"{it.user} with a password",
        ev.KeyProbe: lambda it: f"{it.user}, would {_shown(it)} do?",
        ev.KeyAuth: lambda it: f"{it.user} with {_shown(it)}",
        ev.InteractiveAuth: lambda it: f"{it.user} with prompts",
        ev.AuthFailed: lambda it: f"{it.method}; may go on with {', '.join(it.methods) or 'nothing'}",
        ev.AuthSucceeded: lambda it: it.method,
        ev.GlobalRequested: _request,
        ev.ChannelOpenRequested: lambda it: it.kind.type,
        ev.ChannelOpenFailed: lambda it: it.description,
        ev.ChannelRequested: _request,
        ev.ChannelNotified: _request,
        ev.ConnectionLost: lambda it: f"{it.error}",
        seen_events.KeysMissing: lambda it: it.problem,
        seen_events.SecretFound: lambda it: it.source,
        seen_events.KexSeen: lambda it: f"{it.negotiated.kex}, {it.negotiated.host_key}",
        seen_events.RolesSeen: lambda it: f"the client is the {it.client.value}",
        seen_events.Missing: lambda it: it.problem,
        seen_events.Problem: lambda it: it.problem,
    }
)


class EventRows:
    """Makes the rows of a connection's events; a sink for :attr:`Conversation.sinks`.

    Args:
        conversation: The connection.
        take: Given each row, see :data:`EVENT_COLUMNS`.
        capture: What to call its capture; :attr:`Conversation.capture` if it is None.
    """

    def __init__(
        self, conversation: Conversation, take: Callable[[Row], object], *, capture: str | None = None
    ) -> None:
        self._take = take
        self._capture = _text(conversation.capture if capture is None else capture)
        self._connection = conversation.connection.number
        self._community_id = community_id(conversation.connection.flow)
        self._client: Side | None = None
        self._count = 0

    def add(self, seen: Observed, /) -> None:
        """Take one of the observer's events, in their order."""
        event = seen.event
        self._count += 1
        if isinstance(event, RolesSeen):
            self._client = event.client
        role = role_of(seen.side, self._client)
        number = name = None
        if isinstance(event, PacketOpened):
            number, name = event.number, message_name(event.number, event.context)
        elif isinstance(event, Ssh1Packet):
            number, name = event.number, event.name
        channel = getattr(event, "channel", -1)
        size = len(event.data) if isinstance(event, ev.DataReceived) else getattr(event, "size", None)
        words = _WORDS.get(type(event))
        self._take(
            {
                "capture": self._capture,
                "connection": self._connection,
                "community_id": self._community_id,
                "event": self._count,
                # Seconds as floats are good to a fraction of a microsecond, in our time.
                "time": None if seen.time is None else _time(round(seen.time * 1_000_000) * 1000),
                "frames": list(seen.frames),
                "side": seen.side.value,
                "role": role.value if role else None,
                "kind": type(event).__name__,
                "number": number,
                "message": name,
                "channel": channel if channel >= 0 else None,
                "size": size,
                "words": _text(words(event)) if words is not None else "",
            }
        )


# ------------------------------------------------------------------------------------------------------------- captures


@define
class Rows:
    """What a capture comes to.

    Attributes:
        connections: A row for each connection, in the order of their numbers.
        events: A row for each event, in the order of the capture, if they were asked for.
        problems: What is wrong with the capture, or with a key log inside it. That it stops in the middle of a packet
            is the last, a :class:`~sshproto.replay.capture.reader.CaptureError`.
    """

    connections: list[Row] = attrs.Factory(list[Row])
    events: list[Row] = attrs.Factory(list[Row])
    problems: list[CaptureError | KeyLogError] = attrs.Factory(list[CaptureError | KeyLogError])


def rows_of(
    *captures: Sliceable | Iterator[Sliceable],
    name: str = "",
    secrets: Secrets | None = None,
    events: bool = False,
    policy: Policy | None = None,
    ports: Collection[int] = PORTS,
    limits: AnalysisLimits | None = None,
) -> Rows:
    """The rows of a capture; no file is opened, and the same bytes give the same rows.

    Args:
        captures: Its bytes, or an iterator of chunks of them; several if it was rotated, in the order of time.
        name: What to call it in the rows.
        secrets: What opens the connections; key logs inside the capture are added, here only.
        events: Make the rows of events, too. They are held in memory, all of them.
        policy: What is expected of the connections.
        ports: Where SSH is expected of what began before the recording.
        limits: Bounds.

    Returns:
        The rows. A capture that is damaged, or is none, is no error, but a problem beside the rows of what stands
        before.
    """
    found = Rows()

    def ask(conversation: Conversation) -> None:
        conversation.sinks.append(EventRows(conversation, found.events.append))

    known = None if secrets is None else secrets.copy()
    analysis = Analysis(known, ports=ports, policy=policy, ask=ask if events else None, limits=limits)
    for capture in captures:
        chunks = capture if isinstance(capture, Iterator) else [capture]
        try:
            found.connections += map(connection_row, analysis.read(chunks, name))
        except CaptureError as error:
            found.problems.append(error)
        else:
            found.problems += [analysis.reader.cut] if analysis.reader.cut else []
        found.problems += analysis.problems
        analysis.problems.clear()
    found.connections += map(connection_row, analysis.finish())
    found.connections.sort(key=lambda row: row["connection"])
    return found
