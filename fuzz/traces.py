"""Trace files, whatever is in them: a TraceError, or records that are written as they were read; and they replay."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from fuzz.clear import fit_to_show
from fuzz.running import main
from sshproto.replay.trace import file
from sshproto.replay.trace.file import Privacy, TraceError, TraceReader
from sshproto.replay.trace.verify import verify
from tests.support import traces

MODULES = ("sshproto.replay.trace.file", "sshproto.replay.trace.verify", "sshproto.replay.trace.values")


def _read(pieces: list[bytes]) -> tuple[Any, ...]:
    reader = TraceReader()
    found: list[Any] = []
    try:
        for piece in pieces:
            found += reader.feed(piece)
        found += reader.finish()
    except TraceError as error:
        fit_to_show(error)
        return "error", error.offset  # its words show what had come
    return reader.header, tuple(found), reader.cut


def fuzz(data: bytes) -> None:
    """Read, cut in pieces and whole; write again; replay."""
    whole = _read([data])
    rng = random.Random(hashlib.sha256(data).digest())
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(6))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    if _read(pieces) != whole:
        raise AssertionError("cut in pieces it is another")
    if whole[0] == "error":
        return
    trace = file.read(data)
    if trace.header is not None:
        again = file.read(trace.encode())
        if again.header != trace.header or len(again.records) != len(trace.records):
            raise AssertionError("written it is another")
    if rng.randrange(4):
        return
    try:
        str(verify(data).divergence)
    except TraceError as error:
        fit_to_show(error)


def seeds() -> list[bytes]:
    """Small sessions of both sides, at all levels of privacy, whole and cut off."""
    found: list[bytes] = []
    for privacy in Privacy:
        for trace in traces.confide(privacy).both():
            found += [trace, trace[: len(trace) // 2], trace[: len(trace) // 9]]
            records = trace.split(b"\x1e")
            found.append(b"\x1e".join(records[:4]))
    return found


if __name__ == "__main__":
    main("traces", fuzz, seeds, modules=MODULES)
