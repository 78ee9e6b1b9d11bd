"""Long fat links: ``python -m tests.bench.links``, with ``PYTHONPATH=.:adapters`` (``--quick``: less, and only ours).

One channel moves bulk data over a line with a delay and a rate of its own, by default 100 ms there and back and
1 Gbit/s, so that 12.5 MB have to be under way to fill it.  The line is a relay on loopback, a process of its own: what
it reads leaves it at the line's rate and arrives half of the delay later; it holds what is under way and 1 MiB before
that, and reads no more until there is room.  So what is measured is what SSH's own windows, and the buffers of both
ends, let through.  It is not what TCP does with such a line: on a real one the system's buffers have to hold as much as
is under way, too.

For each pair and direction:

* **all of it**: megabytes a second from the request for the command to its end, windows that grow included;
* **the second half**: the same, as the line has seen it, for the second half of the bytes alone: how fast it gets;
* **share of the line** that the second half has;
* **late**: how long after its time the relay has passed something on, at most.  Where that is tens of milliseconds, the
  machine had other things to do; then try the same bytes under way with less of them a second (``--delay 0.4 --rate
  250``).
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import getpass
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.bench import pairs, report
from tests.bench.ends import HOST, Setting, ours, ours_asyncio

MIB = 1 << 20
_BEFORE = MIB
"""Bytes that may wait for the line."""


# ---------------------------------------------------------------------------------------------------------------- relay


@attrs.define(eq=False)
class Way(asyncio.Protocol):
    """One end of the line, as it is seen from the other: what is read here leaves there, later.

    Attributes:
        delay: Seconds that everything takes.
        rate: Bytes a second.
    """

    delay: float
    rate: float
    other: Way | None = None
    transport: Any = None
    queue: collections.deque[tuple[float, bytes]] = attrs.field(factory=collections.deque)
    held: int = 0
    free_at: float = 0.0
    waits: bool = False
    blocked: bool = False
    ended: bool = False
    passed: int = 0
    seen: list[tuple[float, int]] = attrs.field(factory=list)
    late: float = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.free_at = max(self.free_at, loop.time()) + len(data) / self.rate
        self.queue.append((self.free_at + self.delay, data))
        self.held += len(data)
        if self.held >= self.rate * self.delay + _BEFORE:
            self.transport.pause_reading()
        self.forward()

    def forward(self) -> None:
        """Pass on what is due, and wait for the rest."""
        loop, other = asyncio.get_running_loop(), self.other
        assert other is not None
        now = loop.time()
        while self.queue and self.queue[0][0] <= now and not self.blocked:
            due, data = self.queue.popleft()
            self.late = max(self.late, now - due)
            self.held -= len(data)
            self.passed += len(data)
            self.seen.append((now, self.passed))
            if other.transport is not None:
                other.transport.write(data)
        if self.held < self.rate * self.delay + _BEFORE // 2 and self.transport is not None:
            self.transport.resume_reading()
        if self.queue and not self.blocked and not self.waits:
            self.waits = True
            loop.call_at(self.queue[0][0], self._due)
        if self.ended and not self.queue and other.transport is not None:
            with contextlib.suppress(OSError):
                other.transport.write_eof()

    def _due(self) -> None:
        self.waits = False
        self.forward()

    def eof_received(self) -> bool:
        self.ended = True
        self.forward()
        return True

    def pause_writing(self) -> None:
        assert self.other is not None
        self.other.blocked = True

    def resume_writing(self) -> None:
        assert self.other is not None
        self.other.blocked = False
        self.other.forward()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


def relay(port: int, delay: float, rate: float) -> None:
    """Listen, and take everyone to ``port``; print a line for each that is read, with what was seen of the last."""
    ways: list[tuple[Way, Way]] = []

    async def come(loop: asyncio.AbstractEventLoop, way: Way) -> None:
        back = Way(delay / 2, rate, other=way)
        way.other = back
        await loop.create_connection(lambda: back, HOST, port)
        ways.append((way, back))
        way.transport.resume_reading()

    class First(Way):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()
            task = loop.create_task(come(loop, self))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    tasks: set[Any] = set()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: First(delay / 2, rate), HOST, 0))

    def answer() -> None:
        for _ in sys.stdin:
            both = ways[-1] if ways else ()
            print(json.dumps([{"seen": way.seen, "late": way.late} for way in both]), flush=True)
        loop.call_soon_threadsafe(loop.stop)

    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    threading.Thread(target=answer, daemon=True).start()
    loop.run_forever()


# ----------------------------------------------------------------------------------------------------------------- ends


def end(role: str, setting: Setting, limits: dict[str, int]) -> None:
    """An end of ours whose limits are others."""

    def other(make: Any) -> Any:
        def made(setting: Setting) -> Any:
            config = make(setting)
            return attrs.evolve(config, limits=attrs.evolve(config.limits, **limits))

        return made

    ours.client_config = other(ours.client_config)
    ours.server_config = other(ours.server_config)
    if role == "server":
        ours_asyncio.serve(setting)
    else:
        from tests.bench.ends import jobs

        ours_asyncio.drive(setting, jobs())


@attrs.frozen
class Case:
    """Something that is measured.

    Attributes:
        client, server: Kinds of :data:`tests.bench.pairs.KINDS`.
        work: ``"download"`` or ``"upload"``.
        amount: Bytes.
        limits: Those of our ends that are not the default.
    """

    client: str
    server: str
    work: str
    amount: int
    limits: dict[str, int] = attrs.field(factory=dict)

    @property
    def name(self) -> str:
        names = {"asyncio": "sshproto", "openssh": "OpenSSH"}
        sender, receiver = (self.server, self.client) if self.work == "download" else (self.client, self.server)
        words = f"{self.work}: {names.get(sender, sender)} sends, {names.get(receiver, receiver)} reads"
        return words + "".join(f", `{name}={value}`" for name, value in self.limits.items())


def cases(quick: bool) -> list[Case]:
    """What is measured: amounts are what a few seconds take."""
    fast, slow = (160 * MIB, 32 * MIB) if quick else (400 * MIB, 64 * MIB)
    mine = [
        Case("asyncio", "asyncio", "download", fast),
        Case("asyncio", "asyncio", "upload", fast),
        Case("asyncio", "asyncio", "download", slow, {"window_max": 0}),
    ]
    if quick:
        return mine
    return [
        *mine,
        Case("asyncio", "openssh", "download", fast),
        Case("openssh", "asyncio", "upload", fast),
        Case("asyncssh", "asyncio", "upload", fast),
        Case("go", "asyncio", "upload", fast),
        Case("asyncio", "openssh", "upload", slow),
        Case("openssh", "asyncio", "download", slow),
        Case("asyncssh", "asyncssh", "download", slow),
        Case("asyncssh", "asyncssh", "upload", slow),
        Case("openssh", "openssh", "download", slow),
        Case("paramiko", "paramiko", "download", slow),
    ]


@attrs.frozen
class Line:
    """The line that is tried: seconds there and back, and bytes a second."""

    delay: float
    rate: float

    def __str__(self) -> str:
        return f"{self.delay * 1000:.0f} ms, {self.rate * 8 / 1e6:.0f} Mbit/s"


def measure(case: Case, line: Line, setting: Setting, tools: pairs.Toolbox) -> dict[str, float]:
    """Do it once."""
    with contextlib.ExitStack() as stack:
        if case.server == "openssh":
            setting = attrs.evolve(setting, user=getpass.getuser())

        def start(role: str, setting: Setting) -> pairs.End:
            kind = case.server if role == "server" else case.client
            words = [role, pairs._setting(pairs.KINDS[kind], setting)]
            argv = tools.argv(kind)
            if kind == "asyncio" and case.limits:
                argv, words = [sys.executable, "-m", "tests.bench.links"], ["--end", *words, json.dumps(case.limits)]
            found = pairs.End([*argv, *words], f"the {role} {kind}")
            stack.callback(found.close)
            return found

        server = start("server", setting)
        port = server.hear()["port"]
        argv = [sys.executable, "-m", "tests.bench.links", "--relay", str(port), str(line.delay), str(line.rate)]
        between = pairs.End(argv, "the line")
        stack.callback(between.close)
        client = start("client", attrs.evolve(setting, port=between.hear()["port"]))
        client.tell(work=case.work, amount=case.amount, shell=case.server == "openssh")
        client.hear()
        took = client.ask()
        ways: Any = between.ask()
        client.tell()
        client.hear()
        way = ways[1 if case.work == "download" else 0]
        half = next((when, bytes_) for when, bytes_ in way["seen"] if bytes_ >= case.amount / 2)
        last = next((when, bytes_) for when, bytes_ in way["seen"] if bytes_ >= case.amount)
        steady = (last[1] - half[1]) / max(last[0] - half[0], 1e-9)
        return {
            "all of it": case.amount / took["wall"] / 1e6,
            "second half": steady / 1e6,
            "share": steady / line.rate,
            "late": max(way["late"] for way in ways) * 1000,
        }


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.links", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less of it, once, and only ours")
    parser.add_argument("--runs", type=int, help="how often each (default: 3, with --quick 1)")
    parser.add_argument("--delay", type=float, default=0.1, help="seconds there and back (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1000.0, help="Mbit/s (default: %(default)s)")
    parser.add_argument("--only", default="", help="cases in whose names this is")
    parser.add_argument("--json", type=Path, help="where to keep what was measured")
    arguments = parser.parse_args(words)
    line = Line(arguments.delay, arguments.rate * 1e6 / 8)
    runs = arguments.runs or (1 if arguments.quick else 3)
    kept: dict[str, dict[str, list[float]]] = {}
    print(f"One channel over {line}: {line.delay * line.rate / 1e6:.1f} MB are under way when it is full\n")
    with tempfile.TemporaryDirectory() as directory:
        from tests.bench.__main__ import _make_keys  # here, since that module is a program

        _make_keys(Path(directory))
        setting = Setting(cipher="aes128-gcm", keys=directory)
        tools = pairs.Toolbox(Path(directory))
        for _ in range(runs):
            for case in cases(arguments.quick):
                if arguments.only not in case.name:
                    continue
                began = time.monotonic()
                try:
                    tools.check(pairs.Pair(case.name, case.client, case.server))
                    found = measure(case, line, setting, tools)
                except pairs.Lacking as lack:
                    print(f"{case.name}: {lack}", file=sys.stderr)
                    continue
                for figure, value in found.items():
                    kept.setdefault(case.name, {}).setdefault(figure, []).append(value)
                print(f"{case.name}: {found} ({time.monotonic() - began:.1f} s)", file=sys.stderr)
    rows = [
        [
            name,
            *(str(report.Spread.of(figures[each])) for each in ("all of it", "second half")),
            f"{report.Spread.of(figures['share']).median:.0%}",
            report.figure(max(figures["late"])),
        ]
        for name, figures in kept.items()
    ]
    print(report.table(["MB/s", "all of it", "the second half", "share of the line", "late, ms"], rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"line": attrs.asdict(line), "cases": kept}, indent=1), encoding="ascii")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--relay", port, delay, rate]:
            relay(int(port), float(delay), float(rate))
        case ["--end", role, setting, limits]:
            end(role, Setting(**json.loads(setting)), json.loads(limits))
        case words:
            main(words)
