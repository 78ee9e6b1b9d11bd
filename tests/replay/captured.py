"""Captures, from the file to what an observer, a summary and findings tell of each connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from sshproto.replay.capture import flows
from sshproto.replay.capture.network import Network
from sshproto.replay.capture.reader import CaptureReader
from sshproto.replay.capture.reassembly import Reassembler
from sshproto.replay.events import Observed, Side
from sshproto.replay.findings import Finding, Findings, Memory
from sshproto.replay.observer import Observer
from sshproto.replay.secrets import Secrets
from sshproto.replay.summary import Summary
from tests.replay.sessions import drain

_NANO = 1_000_000_000


@attrs.define(eq=False)
class Captured:
    """One connection of a capture."""

    connection: flows.Connection
    events: list[Observed]
    summary: Summary
    findings: list[Finding]


def items_of(path: Path, reader: CaptureReader) -> list[flows.Item]:
    """All that the reassembler tells of a capture."""
    network, tcp = Network(), Reassembler()
    items: list[flows.Item] = []
    for packets in reader.read([path.read_bytes()]):
        items += tcp.feed(network.segments(packets))
    return items + tcp.finish()


def captured(
    path: Path,
    secrets: Secrets | Callable[[CaptureReader], Secrets] | None = None,
    *,
    memory: Memory | None = None,
    **options: Any,
) -> list[Captured]:
    """All connections of a capture.

    Args:
        path: The file.
        secrets: What opens them; a function is asked when the whole file was read.
        memory: Shared by the findings of all.
        options: For the observers.
    """
    reader = CaptureReader()
    items = items_of(path, reader)
    found = secrets(reader) if callable(secrets) else secrets
    observers: dict[flows.Connection, Observer] = {}
    for item in items:
        match item:
            case flows.Opened(connection=connection):
                observers[connection] = Observer(found, **options)
            case flows.Piece(stream=stream, data=data, frame=frame, time=time):
                observers[stream.connection].feed(stream.side, data, time=time / _NANO, frame=frame)
            case flows.Gap(stream=stream, length=length, frame=frame, time=time):
                observers[stream.connection].gap(stream.side, length, time=time / _NANO, frame=frame or None)
            case flows.Finished(stream=stream, frame=frame, time=time):
                observers[stream.connection].end(stream.side, time=time / _NANO, frame=frame or None)
            case flows.Reset(stream=stream, frame=frame, time=time):
                for side in Side:
                    observers[stream.connection].end(side, time=time / _NANO, frame=frame)
            case flows.Closed(connection=connection):
                observers[connection].finish()
            case _:
                pass
    results: list[Captured] = []
    for connection, observer in observers.items():
        summary, findings = Summary(), Findings(memory=memory)
        events = drain(observer)
        for seen in events:
            summary.add(seen)
            findings.add(seen)
        results.append(Captured(connection, events, summary, findings.finish()))
    return results
