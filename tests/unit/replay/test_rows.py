"""Rows: each column, what it says, and that all tables have what their columns promise."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import attrs
import pytest

from sshproto import events as ev
from sshproto.config import Preferences, ServerConfig
from sshproto.replay import rows
from sshproto.replay.analysis import analyze
from sshproto.replay.capture.reader import CaptureError
from sshproto.replay.events import Side
from sshproto.replay.findings import Policy, Severity
from sshproto.replay.rows import CONNECTION_COLUMNS, EVENT_COLUMNS, Column, Kind, Row, community_id, rows_of
from sshproto.replay.secrets import KeyLogError, Secrets
from tests.replay.files import FLOWS, capture, damaged, talk
from tests.replay.sessions import Recording, session
from tests.support import captures as made
from tests.support.captures import SECOND, Talk, pcap, pcapng
from tests.support.pair import HOST_KEY, client_answers, server_answers

PASSWORD = "correct horse battery"
KINDS: dict[Kind, Any] = {
    Kind.TEXT: str, Kind.INTEGER: int, Kind.BOOLEAN: bool, Kind.TIME: int, Kind.TEXTS: str, Kind.INTEGERS: int,
}  # fmt: skip


def with_password(conn: Any, question: ev.Question) -> None:
    if isinstance(question, ev.CredentialNeeded):
        conn.auth_password(question, PASSWORD)
    else:
        client_answers(conn, question)


def let_in(conn: Any, question: ev.Question) -> None:
    if isinstance(question, ev.PasswordAuth):
        conn.accept_auth(question)
    else:
        server_answers(conn, question)


@pytest.fixture(scope="module")
def recording() -> Recording:
    server = ServerConfig(host_keys=(HOST_KEY,), auth_methods=("password",), debug_raise=True)
    return session(rekeys="c", server=server, client_answer=with_password, server_answer=let_in)


def check(row: Row, columns: tuple[Column, ...]) -> None:
    """A row has its table's columns, each with values of its kind."""
    assert list(row) == [column.name for column in columns]
    for column in columns:
        value = row[column.name]
        if value is None:
            assert not column.needed, column.name
            continue
        many = column.kind in (Kind.TEXTS, Kind.INTEGERS)
        assert isinstance(value, list) is many, column.name
        for each in value if many else [value]:
            assert type(each) is KINDS[column.kind], column.name
            if isinstance(each, str):
                each.encode()
            elif type(each) is int:
                assert -(2**63) <= each < 2**63
    assert json.loads(json.dumps(row)) == row


# The vectors of the specification of Community ID for TCP, with the seed 0, in both directions.
@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (("128.232.110.120", 34855, "66.35.250.204", 80), "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        (
            ("2001:470:e5bf:dead:4957:2174:e82c:4887", 63943, "2607:f8b0:400c:c03::1a", 25),
            "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
        ),
    ],
)
def test_community_id(ends: tuple[str, int, str, int], expected: str) -> None:
    from ipaddress import ip_address

    first, second = (ip_address(ends[0]).packed, ends[1]), (ip_address(ends[2]).packed, ends[3])
    for (a, p), (b, q) in ((first, second), (second, first)):
        assert community_id(a + b + p.to_bytes(2, "big") + q.to_bytes(2, "big")) == expected


def test_community_id_between_two_ports_of_one_address() -> None:
    address = bytes((10, 0, 0, 1))
    one, other = (address * 2 + p.to_bytes(2, "big") + q.to_bytes(2, "big") for p, q in ((22, 4022), (4022, 22)))
    assert community_id(one) == community_id(other)


def test_names_are_unique_and_told() -> None:
    for columns in (CONNECTION_COLUMNS, EVENT_COLUMNS):
        assert len({column.name for column in columns}) == len(columns)
        assert all(column.words and not column.words.endswith(".") for column in columns)


@pytest.mark.parametrize(("title", "columns"), [("Connections", CONNECTION_COLUMNS), ("Events", EVENT_COLUMNS)])
def test_the_page_of_columns_is_the_code(checkout: Path, title: str, columns: tuple[Column, ...]) -> None:
    page = (checkout / "docs" / "reference" / "rows.md").read_text(encoding="utf-8")
    body = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    told = [tuple(line.strip("| ").split(" | ")) for line in body.splitlines() if line.startswith("| `")]
    units = {"bytes": ", bytes"}  # that of times is their type's
    assert told == [
        (
            f"`{column.name}`",
            (f"**{column.kind.value}**" if column.needed else column.kind.value) + units.get(column.unit, ""),
            column.words,
        )
        for column in columns
    ]
    types = page.partition("\n## ")[0]
    for kind in {column.kind for column in columns}:
        assert f"\n| {kind.value} | `" in types


def test_a_connection(recording: Recording) -> None:
    data = capture(talk(recording))
    found = rows_of(data, name="office.pcap", secrets=recording.secrets)
    assert not found.problems
    assert not found.events
    (row,) = found.connections
    check(row, CONNECTION_COLUMNS)
    (conversation,) = analyze(data, secrets=recording.secrets)
    summary = conversation.summary.as_dict()
    decrypted = summary.pop("decrypted")
    assert {name: row[name] for name in summary} == summary
    sent = {side: len(data) for side, data in recording.sides.items()}
    frames = {side: sum(sender is side for sender, _ in recording.wire) for side in Side}
    assert {name: value for name, value in row.items() if name not in summary} == {
        "capture": "office.pcap",
        "connection": 1,
        "community_id": community_id(FLOWS[0]),
        "dialler_address": "10.0.0.1",
        "dialler_port": 40000,
        "dialled_address": "10.0.0.2",
        "dialled_port": 22,
        "client": "dialler",
        "client_sure": True,
        "start": "syn",
        "ending": "finished",
        "frame": 1,
        "began": 1_000_000,
        "ended": (3 + len(recording.wire) + 2) * 1_000_000,
        "packets_dialler": frames[Side.DIALLER],
        "packets_dialled": frames[Side.DIALLED],
        "bytes_dialler": sent[Side.DIALLER],
        "bytes_dialled": sent[Side.DIALLED],
        "missing_dialler": 0,
        "missing_dialled": 0,
        "decrypted": True,
        "messages_client": len(decrypted["client"]["messages"]),
        "messages_server": len(decrypted["server"]["messages"]),
        "payload_sha256_client": decrypted["client"]["payload_sha256"],
        "payload_sha256_server": decrypted["server"]["payload_sha256"],
        "problems": [],
        "problem_count": 0,
        "findings": [],
        "finding_count": 0,
        "severity": None,
    }


def test_without_keys(recording: Recording) -> None:
    (row,) = rows_of(capture(talk(recording))).connections
    check(row, CONNECTION_COLUMNS)
    assert row["decrypted"] is False
    assert row["auth_success"] is row["messages_client"] is row["payload_sha256_server"] is row["session_id"] is None
    assert row["kex"] and row["hassh"] and row["host_key_sha256"]


def test_findings_and_problems(recording: Recording) -> None:
    made_up = talk(recording)
    lost = made_up.segments[-8]
    made_up.segments.remove(lost)
    policy = Policy(cipher=("3des-cbc",), kex=("none",))
    (row,) = rows_of(capture(made_up), secrets=recording.secrets, policy=policy).connections
    check(row, CONNECTION_COLUMNS)
    assert row["missing_dialler"] + row["missing_dialled"] == lost[8] - lost[7]
    assert row["problem_count"] == len(row["problems"]) == 1
    assert "missing" in row["problems"][0]
    assert row["findings"] == ["policy"]  # three, of one kind
    assert row["finding_count"] == 3
    assert row["severity"] == "high"
    assert row["complete"] is False
    weak = session(preferences=Preferences(kex=("ecdh-sha2-nistp256",), cipher=("aes128-cbc",), mac=("hmac-sha1",)))
    (row,) = rows_of(capture(talk(weak)), policy=policy).connections
    severities = {finding.severity for finding in analyze(capture(talk(weak)), policy=policy)[0].findings}
    assert {Severity.HIGH, Severity.INFO} < severities
    assert row["severity"] == "high"
    assert row["findings"][0] == "policy"


def test_times_that_nothing_can_hold(recording: Recording) -> None:
    parts = [made.section(), made.interface(options=made.option(9, b"\x00") + made.option(14, b"\x7f" * 8))]
    parts += [made.enhanced(2**60, data) for _, data in talk(recording).records()]
    found = rows_of(b"".join(parts), secrets=recording.secrets, events=True)
    (row,) = found.connections
    check(row, CONNECTION_COLUMNS)
    assert row["began"] is row["ended"] is None
    assert {event["time"] for event in found.events} == {None}


def test_what_is_not_unicode() -> None:
    it = Talk().dial()
    it.send(1, b"SSH-2.0-caf\xe9\r\n")
    it.send(0, b"SSH-2.0-ours\r\n")
    (row,) = rows_of(capture(it), name="bad\udcff.pcap").connections
    check(row, CONNECTION_COLUMNS)
    assert row["server_version"] == "SSH-2.0-caf\\xe9"
    assert row["capture"] == "bad\\xff.pcap"


def test_events(recording: Recording) -> None:
    data = capture(talk(recording))
    found = rows_of(data, name="a", secrets=recording.secrets, events=True)
    (conversation,) = analyze(data, secrets=recording.secrets)
    for row in found.events:
        check(row, EVENT_COLUMNS)
    assert [row["event"] for row in found.events] == list(range(1, len(conversation.events) + 1))
    assert [row["kind"] for row in found.events] == [type(seen.event).__name__ for seen in conversation.events]
    assert [row["side"] for row in found.events] == [seen.side.value for seen in conversation.events]
    assert [tuple(row["frames"]) for row in found.events] == [seen.frames for seen in conversation.events]
    for row, seen in zip(found.events, conversation.events, strict=True):
        assert seen.time is not None
        assert row["time"] == round(seen.time * 1000) * 1_000_000  # the packets are milliseconds apart
        assert (row["capture"], row["connection"]) == ("a", 1)
        assert row["role"] in (None, "client" if seen.side is Side.DIALLER else "server")


@pytest.mark.parametrize(
    "expected",
    [
        {"kind": "VersionReceived", "words": "SSH-2.0-sshproto_0.1.0", "role": None, "message": None},
        {"kind": "PacketOpened", "number": 20, "message": "KEXINIT", "channel": None},
        {"kind": "RolesSeen", "words": "the client is the dialler", "role": "client"},
        {"kind": "KexSeen", "role": "server"},
        {"kind": "SecretFound", "words": "shared secret"},
        {"kind": "PasswordAuth", "words": "alice with a password", "role": "client"},
        {"kind": "AuthSucceeded", "words": "password", "role": "server"},
        {"kind": "ChannelOpenRequested", "channel": 0, "words": "session"},
        {"kind": "ChannelRequested", "channel": 0, "words": "exec: cat"},
        {"kind": "ChannelRequested", "channel": 1, "words": "pty-req"},
        {"kind": "DataReceived", "channel": 0, "size": 600, "words": ""},
        {"kind": "ConnectionLost", "role": "client"},
        {"kind": "Ended", "role": "server"},
    ],
    ids=lambda expected: f"{expected['kind']} {expected.get('channel', '')}",
)
def test_what_events_say(recording: Recording, expected: Row) -> None:
    found = rows_of(capture(talk(recording)), secrets=recording.secrets, events=True)
    assert any(expected.items() <= row.items() for row in found.events)


def test_no_secret_stands_in_any_row(recording: Recording) -> None:
    data = capture(talk(recording))
    found = rows_of(data, secrets=recording.secrets, events=True)
    shown = json.dumps([found.connections, found.events])
    assert [row for row in found.events if row["kind"] == "PasswordAuth"]
    for secret in (PASSWORD, "how do you do", *(line.split()[-1] for line in recording.key_log)):
        assert secret not in shown


def test_ssh1() -> None:
    it = Talk().dial()
    it.send(1, b"SSH-1.5-theirs\r\n")
    it.send(0, b"SSH-1.5-ours\r\n")
    content = b"\1\0\0\0\3bye"
    body = bytes(8 - (len(content) + 4) % 8) + content
    checksum = zlib.crc32(body, 0xFFFFFFFF) ^ 0xFFFFFFFF
    it.send(0, (len(content) + 4).to_bytes(4, "big") + body + checksum.to_bytes(4, "big"))
    found = rows_of(capture(it.hang_up()), events=True)
    for row in found.events:
        check(row, EVENT_COLUMNS)
    assert found.connections[0]["client_version"] == "SSH-1.5-ours"
    (row,) = (row for row in found.events if row["kind"] == "Ssh1Packet")
    assert (row["number"], row["message"], row["size"]) == (1, "MSG_DISCONNECT", 20)


def test_many_connections_are_in_the_order_of_their_numbers(recording: Recording) -> None:
    flows = [(made.CLIENT + made.SERVER + bytes((80, n, 0, 22)), made.SERVER + made.CLIENT + bytes((0, 22, 80, n)))
             for n in range(3)]  # fmt: skip
    first, second, third = (talk(recording, flows=pair) for pair in flows)
    # The first goes on when all others are over.
    records = [*first.records()[:3], *second.records(), *third.records(), *first.records()[3:]]
    found = rows_of(pcap(records), secrets=recording.secrets)
    assert [row["connection"] for row in found.connections] == [1, 2, 3]
    assert [row["dialler_port"] for row in found.connections] == [80 << 8, 80 << 8 | 1, 80 << 8 | 2]


def test_chunks_and_rotation(recording: Recording) -> None:
    records = talk(recording).records()
    whole = rows_of(pcap(records), name="a", secrets=recording.secrets, events=True)
    data = pcap(records)
    chunks = (data[place : place + 1000] for place in range(0, len(data), 1000))
    assert attrs.astuple(rows_of(chunks, name="a", secrets=recording.secrets, events=True)) == attrs.astuple(whole)
    parts = pcap(records[:30]), pcapng(records[30:])
    assert attrs.astuple(rows_of(*parts, name="a", secrets=recording.secrets, events=True)) == attrs.astuple(whole)


def test_a_key_log_inside_stays_with_its_capture(recording: Recording) -> None:
    data = capture(talk(recording), key_log=recording.key_log)
    known = Secrets()
    assert rows_of(data, secrets=known).connections[0]["decrypted"]
    assert len(known) == 0
    assert rows_of(data).connections[0]["decrypted"]


def test_what_is_wrong_stands_beside_what_stands_before(recording: Recording) -> None:
    found = rows_of(damaged(capture(talk(recording))), secrets=recording.secrets)
    assert len(found.connections) == 1
    (problem,) = found.problems
    assert isinstance(problem, CaptureError)
    found = rows_of(b"no capture at all")
    assert (found.connections, len(found.problems)) == ([], 1)
    found = rows_of(capture(talk(recording))[:-5])
    assert len(found.connections) == len(found.problems) == 1
    found = rows_of(capture(talk(recording), key_log=["what is this?"]))
    (problem,) = found.problems
    assert isinstance(problem, KeyLogError)


def test_a_row_of_what_is_not_over(recording: Recording) -> None:
    from sshproto.replay.analysis import Analysis

    started: list[Any] = []
    analysis = Analysis(ask=started.append)
    records = talk(recording).records()[:30]
    assert list(analysis.read([pcap(records)], "live")) == []
    row = rows.connection_row(started[0])
    check(row, CONNECTION_COLUMNS)
    assert row["ending"] is None
    assert row["capture"] == "live"
    assert rows.connection_row(started[0], "other")["capture"] == "other"
    assert row["ended"] == 30 * SECOND // 1000
