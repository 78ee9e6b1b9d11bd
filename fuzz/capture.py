"""Capture files, whatever is in them: an analysis raises CaptureError and nothing else, however they are cut."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

from fuzz.running import main
from sshproto.replay.analysis import Analysis, AnalysisLimits
from sshproto.replay.capture.inflate import InflateLimits
from sshproto.replay.capture.ordering import ReassemblyLimits
from sshproto.replay.capture.reader import CaptureError, CaptureLimits
from tests.bench.synthetic import Traffic
from tests.support import captures as c

_LIMITS = AnalysisLimits(
    capture=CaptureLimits(inflate=InflateLimits(free=1 << 22, total=1 << 24)),
    reassembly=ReassemblyLimits(held=1 << 18, held_total=1 << 20, connections=64),
    hold_total=1 << 21,
)
_TRAFFIC = Traffic.make(keys=2, transfer=4000)


def _outcome(chunks: list[bytes]) -> tuple[Any, ...]:
    """All that there is to say of a capture, as values that compare."""
    analysis = Analysis(limits=_LIMITS)
    analysis.secrets.add_key_log(_TRAFFIC.key_log)
    found: list[Any] = []
    error = ""
    conversations: list[Any] = []
    try:
        conversations.extend(analysis.read(chunks))
    except CaptureError as problem:
        error = str(problem)
    conversations.extend(analysis.finish())
    for it in sorted(conversations, key=lambda it: it.connection.number):
        values = it.summary.as_dict()
        json.dumps(values)
        frames = [frame for finding in it.findings for frame in finding.frames]
        if any(not 1 <= frame <= analysis.reader.frames for frame in frames):
            raise AssertionError(f"frames that are not there: {frames}")
        found.append((it.connection.number, values, [finding.code for finding in it.findings], it.summary.problems))
    return analysis.reader.compression, analysis.reader.frames, error, found


def fuzz(data: bytes) -> None:
    """Analyse ``data`` as a capture, whole and in pieces.

    Raises:
        AssertionError: The two differ. Whatever else is raised is wrong as well.
    """
    whole = _outcome([data])
    digest = hashlib.sha256(data).digest()
    # The other way takes as long; and of what is compressed and damaged, the pieces decide how much comes out.
    if digest[0] & 3 or (whole[0] and whole[2]):
        return
    rng = random.Random(digest)
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 12)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    if _outcome(pieces) != whole:
        raise AssertionError("cut in pieces it is another")


def seeds() -> list[bytes]:
    """Small captures of all forms, and the recordings of the lab if they are there."""
    records = _records()
    tagged = [(time, data[:12] + b"\x81\0\0\7" + data[12:]) for time, data in records[:60]]
    fragments = [
        (time + n, c.ethernet(part))
        for time, data in records[:40]
        for n, part in enumerate(c.fragments4(data[34:], (24, 48), ident=time & 0xFFFF))
    ]
    sixes = [(time, c.ethernet(c.ipv6(data[34:]), 0x86DD)) for time, data in records[:60]]
    blocks = [
        c.section(),
        c.interface(options=c.option(2, b"lo") + c.option(9, b"\x09") + c.option(14, bytes(8))),
        c.secrets(_TRAFFIC.key_log.encode()),
        *(c.enhanced(time, data) for time, data in records[:40]),
        *(c.simple(data) for _, data in records[40:50]),
        *(c.obsolete(time, data) for time, data in records[50:60]),
        c.statistics(3),
        c.section(order=">"),
        c.interface(order=">"),
        *(c.enhanced(time, data, order=">") for time, data in records[60:]),
    ]
    found = [
        c.pcap(records),
        c.pcap(records, order=">", nano=False),
        c.pcap(records[:60], longer=True),
        c.pcapng(records),
        c.pcap(tagged),
        c.pcap(fragments),
        c.pcap(sixes),
        b"".join(blocks),
        gzip.compress(c.pcap(records), mtime=0),
    ]
    shared = Path(os.environ.get("SSHPROTO_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "captures"
    return found + [path.read_bytes() for path in sorted(shared.rglob("*.pcap*")) if path.stat().st_size < 40_000]


def _records() -> list[c.Record]:
    """One small session of each suite, as packets."""
    from sshproto.replay.capture.reader import CaptureReader

    data = b"".join(_TRAFFIC.pcap(60_000, together=2))
    packets = [packet for part in CaptureReader().read([data]) for packet in part]
    return [(time, raw[start:stop]) for _, time, _, raw, start, stop, _ in packets]


if __name__ == "__main__":
    main("capture", fuzz, seeds, modules=("sshproto.replay.capture", "sshproto.replay.analysis"))
