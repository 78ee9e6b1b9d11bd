"""Whole sessions from recorded ones: inputs, answers, commands, time and entropy of a trace, changed in any way.

What an input is says sshproto/replay/trace/seeds.py.  Ciphers are off, so that a changed packet is looked at.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from fuzz import schema
from fuzz.clear import ciphers_off, constant, cut, fit_to_show, framed, payload
from fuzz.running import main
from fuzz.running import mutate as mutate_bytes
from sshproto import events as ev
from sshproto.channels import requests as r
from sshproto.errors import SSHError
from sshproto.replay.trace import file
from sshproto.replay.trace.file import Privacy
from sshproto.replay.trace.seeds import Kind, items, play, seed
from tests.support import traces
from tests.support.pair import client_answers, server_answers

MODULES = ("sshproto.replay.trace.seeds", "sshproto.connection", "sshproto.client", "sshproto.server",
           "sshproto.transport.link", "sshproto.channels", "sshproto.auth")  # fmt: skip
_HEAD = struct.Struct(">BI")
_INPUTS = {"receive_data", "receive_eof", "handle_timeout", "next_event", "data_to_send"}


def fuzz(data: bytes) -> None:
    """Play ``data`` as a seed."""
    with ciphers_off():
        run = play(data)
    if run is None:
        return
    for call, error in run.raised:
        # A command that is called with what it does not take is Python's business.
        if call in _INPUTS or not isinstance(error, (SSHError, TypeError)):
            raise AssertionError(f"{call} has raised {error!r}") from error
        fit_to_show(error, 100_000)
    ends = [number for number, event in enumerate(run.events) if isinstance(event, ev.ConnectionLost)]
    if ends and ends != [len(run.events) - 1]:
        raise AssertionError(f"the end is not the last of {len(run.events)} events: {ends}")
    if len(run.events) > len(data) + 100:
        raise AssertionError(f"{len(run.events)} events of {len(data)} bytes")


def _joined(row: Iterable[tuple[Kind, bytes]]) -> bytes:
    return b"".join(_HEAD.pack(kind, len(content)) + content for kind, content in row)


def _packets(data: bytes, rng: random.Random) -> bytes:
    """A chunk of which a packet is another, or gone, or twice there."""
    row = cut(data) or [data]
    place = rng.randrange(len(row)) if row else 0
    match rng.randrange(6):
        case 0:
            row.insert(place, framed(schema.message(rng)))
        case 1 if row:
            del row[place]
        case 2 if row:
            row.insert(place, rng.choice(row))
        case 3 | 4 if row and len(row[place]) > 6 and not row[place].startswith(b"SSH-"):
            row[place] = framed(schema.changed(payload(row[place]), rng))
        case _ if row:
            row[place] = mutate_bytes(row[place], row, rng)
    return b"".join(row)


def _called(content: bytes, rng: random.Random) -> bytes:
    """A call of which an argument is another."""
    try:
        told = json.loads(content)
        args = told["args"]
        name = rng.choice(sorted(args))
    except (ValueError, TypeError, KeyError, IndexError):
        return content
    args[name] = rng.choice((0, 1, -1, 2**31, 2**32, 2**70, "", "x", "\0", "\udcff", True, "x" * 40000, args[name]))
    if not rng.randrange(4):
        del args[name]
    return json.dumps(told).encode()


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change items, and packets in them."""
    if not rng.randrange(20):
        return mutate_bytes(data, others, rng)
    row = list(items(data))
    chunks = [place for place, (kind, _) in enumerate(row) if kind is Kind.DATA]
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(row) + 1)
        match rng.randrange(10):
            case 0 if row:
                del row[place - 1]
            case 1 if row:
                row.insert(place, rng.choice(row))
            case 2:
                theirs = list(items(rng.choice(others)))
                start = rng.randrange(len(theirs) + 1)
                row[place:place] = theirs[start : start + rng.randrange(1, 5)]
            case 3:
                row.insert(place, (Kind.TIME, struct.pack(">d", rng.choice((0.0, 1e3, 1e9, 59.0, -1.0, 1e308)))))
            case 4:
                row.insert(place, (rng.choice((Kind.TIMEOUT, Kind.TIMEOUT, Kind.EOF, Kind.DRAIN, Kind.TAKE)), b""))
            case 5 if row:
                kind, content = row[place - 1]
                if kind is Kind.CALL and rng.randrange(4):
                    row[place - 1] = kind, _called(content, rng)
                else:
                    row[place - 1] = kind, mutate_bytes(content, [it for _, it in row], rng)
            case _ if chunks:
                chosen = rng.choice(chunks)
                if chosen < len(row):
                    kind, content = row[chosen]
                    row[chosen] = kind, _packets(content, rng) if kind is Kind.DATA else content
            case _:
                pass
    return _joined(row)[:60000]


def _obliging(conn: Any, question: ev.Question) -> None:
    (server_answers if isinstance(question, ev.ChannelOpenRequested) else client_answers)(conn, question)


def seeds() -> list[bytes]:
    """Sessions of both sides: one with secrets of all kinds, and one with a key exchange in the middle."""
    with ciphers_off():
        pieces = [traces.confide(Privacy.REPLAY)]
        recorded = traces.make(client={"entropy": constant}, server={"entropy": constant})
        conn = recorded.pair.login().client.conn
        conn.rekey()
        recorded.pair.run()
        conn.disconnect()
        recorded.pair.run()
        pieces.append(recorded)
        recorded = traces.make(client_answer=_obliging)
        pair = recorded.pair.login()
        client, server = pair.client.conn, pair.server.conn
        client.global_request(r.TcpipForward("", 2222))
        shell = client.open_channel(r.Session())
        pair.run()
        client.request(shell, r.PtyRequest("vt100", modes=((53, 1),)))
        client.request(shell, r.Shell())
        pair.run()
        server.send(0, b"word: ", 1)
        back = server.open_channel(r.ForwardedTcpip("", 2222, "::1", 1))
        pair.run()
        server.send(back, b"data")
        server.send_eof(back)
        client.request(shell, r.WindowChange(80, 24))
        pair.run()
        server.request(0, r.ExitStatus(1))
        server.close_channel(0)
        client.receive_eof(0.0)
        pair.run()
        pieces.append(recorded)
    return [seed(file.read(trace)) for piece in pieces for trace in piece.both()]


if __name__ == "__main__":
    main("session", fuzz, seeds, mutate, MODULES)
