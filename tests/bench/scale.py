"""Many connections and channels: ``python -m tests.bench.scale``, with ``PYTHONPATH=.:adapters`` (``--quick``: less).

One server process of our asyncio face, and clients in processes of their own: who is idle and who is busy in one, who
probes in another.  All limits but those of how many there may be are the defaults.

* **Connections**: as more and more idle ones come, the memory that each takes, the server's processor time for a
  login, and for an echo of 64 bytes on one connection while the others are silent.
* **Channels**: the same on one connection, with more and more idle channels.
* **Busy**: many connections that all download at once, or upload, as fast as they can, while the rest are idle; then
  many channels of one connection.  How much was moved, and how evenly: Jain's index of the bytes that each had is 1 if
  all had the same, and 1/n if one had all.  Meanwhile a client of its own measures how long an echo takes, and the
  server the processor time of the longest turn of its loop, which is what all who come meanwhile must wait for.

Processor times are the operating system's.  What is told in seconds of the clock depends on how many cores there are,
and on what else they do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import selectors
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs

from sshproto_io.asyncio import Client, Handler, connect, listen
from tests.bench import pairs, plots, report
from tests.bench.ends import BLOCK, HOST, Setting, ours, say, state

_ECHO = bytes(64)
_MANY = 20_000
_PATIENCE = 60.0


# --------------------------------------------------------------------------------------------------------------- server


class Commands(Handler):
    """``hold`` does nothing, ``echo`` sends back, ``source`` sends without end, ``sink`` reads."""

    def __init__(self, user_key: Any) -> None:
        self.user_key = user_key

    def public_key(self, user: str, key: Any) -> bool:
        return bool(key == self.user_key)

    async def session(self, session: Any) -> int:
        match session.command:
            case b"echo":
                while data := await session.stdin.read(ours.CHUNK):
                    await session.stdout.write(data)
            case b"source":
                while True:
                    await session.stdout.write(BLOCK)
            case b"sink":
                while await session.stdin.read(ours.CHUNK):
                    pass
            case _:
                await session.stdin.read(1)
        return 0


class Watched(selectors.DefaultSelector):
    """A selector that knows how long the loop's turns take.

    Attributes:
        longest: Processor seconds of the longest turn: what all who come meanwhile must wait for.
    """

    longest = 0.0
    _since = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if self._since:
            self.longest = max(self.longest, time.process_time() - self._since)
        found = super().select(timeout)
        self._since = time.process_time()
        return found


def _answer(port: int, watched: Watched) -> None:
    """A state for each line, and the longest turn since the last.

    No garbage is collected first: with thousands of connections that costs more than what is measured here.
    """

    def answer() -> None:
        for _ in sys.stdin:
            say(**state(), longest=watched.longest)
            watched.longest = 0.0
        os._exit(0)  # thousands of goodbyes measure nothing

    threading.Thread(target=answer, daemon=True).start()
    say(port=port)


def serve(setting: Setting, limits: dict[str, int]) -> None:
    config = ours.server_config(setting)
    many = {"sessions": _MANY, "channels_from_peer": _MANY, "opens_pending": _MANY}
    config = attrs.evolve(config, limits=attrs.evolve(config.limits, **many, **limits))

    async def main() -> None:
        user_key = ours.key(setting, "user_key").public_key
        more: Any = {"max_connections": _MANY, "max_strangers": _MANY, "backlog": 1024}
        async with listen(HOST, 0, config, lambda incoming: Commands(user_key), **more) as server:
            _answer(server.port, watched)
            await server.serve_forever()

    watched = Watched()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watched)) as runner:
        runner.run(main())


# --------------------------------------------------------------------------------------------------------------- client


class Crowd:
    """Connections of one process, and what they are told to do by lines of JSON."""

    def __init__(self, setting: Setting, stack: AsyncExitStack) -> None:
        self._setting = setting
        self._stack = stack
        self._clients: list[Client] = []
        limits = ours.client_config(setting).limits
        self._config = attrs.evolve(ours.client_config(setting), limits=attrs.evolve(limits, channels_from_us=_MANY))
        self._keys = ours.key(setting, "host_key").public_key, ours.key(setting, "user_key")

    async def _one(self) -> Client:
        host_key, user_key = self._keys
        return await connect(
            HOST, self._setting.port, host_key=host_key, keys=[user_key], config=self._config, timeout=120.0
        )

    async def connections(self, count: int) -> dict[str, Any]:
        """Have so many more, some at a time."""
        left = count
        while left:
            some = min(left, 20)
            self._clients += await asyncio.gather(*(self._one() for _ in range(some)))
            left -= some
        return {}

    async def channels(self, count: int) -> dict[str, Any]:
        """Have so many more idle ones on the first connection."""
        for _ in range(count):
            await self._stack.enter_async_context(self._clients[0].start("hold"))
        return {}

    async def echo(self, count: int, seconds: float = 3600.0, pause: float = 0.0) -> dict[str, Any]:
        """Have so many echoes on the first connection, one after the other; what each took."""
        took: list[float] = []
        async with self._clients[0].start("echo") as process:
            until = time.monotonic() + seconds
            while not took or (len(took) < count and time.monotonic() < until):
                before = time.monotonic()
                await process.stdin.write(_ECHO)
                await process.stdout.read_exactly(len(_ECHO))
                took.append(time.monotonic() - before)
                if pause:
                    await asyncio.sleep(pause)
            await process.stdin.send_eof()
            await process.wait()
        return {"took": took}

    async def busy(self, work: str, connections: int, channels: int, seconds: float) -> dict[str, Any]:
        """Move as much as possible, on the last connections with so many channels each; what each channel moved."""
        users = self._clients[-connections:]
        moved = [0] * (connections * channels)

        waiting, begun = set(range(len(moved))), asyncio.Event()

        async def one(place: int, stack: AsyncExitStack) -> None:
            process = await stack.enter_async_context(users[place // channels].start(work))

            async def step() -> int:
                if work == "source":
                    return len(await process.stdout.read(ours.CHUNK))
                await process.stdin.write(BLOCK)
                return len(BLOCK)

            moved[place] += await step()
            waiting.discard(place)
            if not waiting:
                begun.set()
            while True:
                moved[place] += await step()

        async with AsyncExitStack() as stack:
            tasks = [asyncio.create_task(one(place, stack)) for place in range(len(moved))]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await begun.wait()
            await asyncio.sleep(seconds / 3)  # the buffers are full then
            say(begun=True)
            before, began = list(moved), time.monotonic()
            await asyncio.sleep(seconds)
            after, ended = list(moved), time.monotonic()
            for task in tasks:
                if task.done():
                    task.result()  # it has failed
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return {
            "moved": [most - least for least, most in zip(before, after, strict=True)],
            "seconds": ended - began,
        }


def drive(setting: Setting) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            crowd = Crowd(setting, stack)
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                words = json.loads(line)
                before = state()
                found = await getattr(crowd, words.pop("do"))(**words)
                after = state()
                say(**found, cpu=after["cpu"] - before["cpu"], memory=after["memory"])
            os._exit(0)

    asyncio.run(main())


# -------------------------------------------------------------------------------------------------------------- figures


def jain(values: Sequence[float]) -> float:
    """How evenly that is shared: 1 if all have the same, 1/n if one has all."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0


@attrs.define
class Scale:
    """One run.

    Attributes:
        counts: Idle connections, and idle channels, at which it is measured.
        busy: Connections, and channels, that are busy.
        seconds: How long.
        echoes: How many for one figure.
    """

    setting: Setting
    counts: tuple[tuple[int, ...], tuple[int, ...]]
    busy: tuple[int, tuple[int, ...]]
    seconds: float
    echoes: int
    limits: dict[str, int]
    found: dict[str, list[dict[str, Any]]] = attrs.field(factory=dict)

    def run(self) -> dict[str, list[dict[str, Any]]]:
        for work in (self._connections, self._channels):
            with contextlib.ExitStack() as stack:
                work(stack)
        return self.found

    def _start(self, stack: contextlib.ExitStack) -> tuple[pairs.End, ...]:
        """A server, a crowd, and a prober."""

        def one(role: str, setting: Setting) -> pairs.End:
            words = [role, json.dumps(attrs.asdict(setting)), json.dumps(self.limits)]
            found = pairs.End([sys.executable, "-m", "tests.bench.scale", *words], role)
            stack.callback(found.close)
            return found

        server = one("--server", self.setting)
        setting = attrs.evolve(self.setting, port=server.hear()["port"])
        crowd, prober = one("--client", setting), one("--client", setting)
        prober.ask(do="connections", count=1)
        prober.ask(do="echo", count=200)
        return server, crowd, prober

    def _row(self, table: str, **figures: Any) -> None:
        self.found.setdefault(table, []).append(figures)
        shown = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
        print(f"{table}: {shown}", file=sys.stderr, flush=True)

    def _echo(self, server: pairs.End, end: pairs.End) -> dict[str, float]:
        """Processor microseconds of the server for an echo, the least of five: noise only adds; and its time."""
        costs, took = [], []
        for _ in range(5):
            before = server.ask()["cpu"]
            took += end.ask(do="echo", count=self.echoes)["took"]
            costs.append((server.ask()["cpu"] - before) / self.echoes * 1e6)
        return {"echo, CPU µs": min(costs), "echo, ms": statistics.median(took) * 1e3}

    def _connections(self, stack: contextlib.ExitStack) -> None:
        server, crowd, prober = self._start(stack)
        start, first = server.ask()["memory"], crowd.ask(do="connections", count=0)["memory"]
        there = 0
        self._row("connections", count=0, **self._echo(server, prober))
        for count in self.counts[0]:
            before = server.ask()["cpu"]
            client = crowd.ask(do="connections", count=count - there)
            after = server.ask()
            self._row(
                "connections",
                count=count,
                **self._echo(server, prober),
                **{
                    "KiB each, server": (after["memory"] - start) / count / 1024,
                    "KiB each, client": (client["memory"] - first) / count / 1024,
                    "login, server CPU ms": (after["cpu"] - before) / (count - there) * 1e3,
                },
            )
            there = count
        for work in ("source", "sink"):
            self._busy("busy connections", work, self.busy[0], 1, server, crowd, prober)

    def _channels(self, stack: contextlib.ExitStack) -> None:
        server, crowd, prober = self._start(stack)
        crowd.ask(do="connections", count=2)  # one with idle channels, one with busy ones
        crowd.ask(do="channels", count=1)
        start, there = server.ask()["memory"], 1
        for count in self.counts[1]:
            before = server.ask()["cpu"]
            if count > there:
                crowd.ask(do="channels", count=count - there)
            after = server.ask()
            more = {}
            if count > there:
                more["KiB each, server"] = (after["memory"] - start) / (count - 1) / 1024
                more["open, server CPU ms"] = (after["cpu"] - before) / (count - there) * 1e3
            self._row("channels", count=count, **self._echo(server, crowd), **more)
            there = count
        for count in self.busy[1]:
            for work in ("source", "sink"):
                self._busy("busy channels", work, 1, count, server, crowd, prober)

    def _busy(
        self,
        table: str,
        work: str,
        connections: int,
        channels: int,
        server: pairs.End,
        crowd: pairs.End,
        prober: pairs.End,
    ) -> None:
        quiet = prober.ask(do="echo", count=self.echoes)["took"]
        crowd.tell(do="busy", work=work, connections=connections, channels=channels, seconds=self.seconds)
        crowd.hear()
        before, began = server.ask()["cpu"], time.monotonic()
        took = prober.ask(do="echo", count=1_000_000, seconds=self.seconds * 0.9, pause=0.02)["took"]
        found = crowd.hear()
        after = server.ask()
        cpu, wall = after["cpu"] - before, time.monotonic() - began
        moved = found["moved"]
        total = sum(moved)
        self._row(
            table,
            work="download" if work == "source" else "upload",
            count=connections * channels,
            **{
                "MB/s": total / found["seconds"] / 1e6,
                "Jain": jain(moved),
                "least": min(moved) / (total / len(moved)) if total else 0.0,
                "most": max(moved) / (total / len(moved)) if total else 0.0,
                "longest turn, CPU ms": after["longest"] * 1e3,
                "echo, ms": statistics.median(took) * 1e3,
                "95 %, ms": sorted(took)[len(took) * 95 // 100] * 1e3,
                "before, ms": statistics.median(quiet) * 1e3,
                "CPU-s/GB, server": cpu / max(total, 1) * 1e9,
                "server's share of a core": cpu / wall,
            },
        )


def tables(found: dict[str, list[dict[str, Any]]]) -> str:
    """In Markdown."""
    done = []
    for name, rows in found.items():
        heads = list(dict.fromkeys(head for row in rows for head in row))
        heads.sort(key=lambda head: head not in {"work", "count"})
        cells = [[_cell(row.get(head)) for head in heads] for row in rows]
        done.append(f"{name.capitalize()}\n\n{report.table(heads, cells)}")
    return "\n\n".join(done)


def _cell(value: Any) -> str:
    return "" if value is None else report.figure(value) if isinstance(value, float) else str(value)


def draw(found: dict[str, list[dict[str, Any]]]) -> str:
    """How cost grows with number: bars of the same length are what is wanted."""
    panels = []
    for name, what in (("connections", "idle connections"), ("channels", "idle channels")):
        for figure, title in (
            ("echo, CPU µs", f"An echo beside so many {what}"),
            ("KiB each, server", f"Memory of each, with so many {what}"),
            ("login, server CPU ms", "A login, as so many come"),
            ("open, server CPU ms", "Opening one, as so many come"),
        ):
            lines = [
                plots.Bar(f"{row['count']:,}", [row[figure]], row[figure], row[figure], ("#0b5394", "#6fa8dc"))
                for row in found[name]
                if figure in row
            ]
            if lines:
                panels.append(plots.Panel(title, figure, lines))
    figure = "CPU-s/GB, server"
    for work in ("download", "upload"):
        lines = [
            plots.Bar(f"{row['count']:,}", [row[figure]], row[figure], row[figure], ("#0b5394", "#6fa8dc"))
            for row in found["busy channels"]
            if row["work"] == work
        ]
        panels.append(plots.Panel(f"{work.capitalize()} on so many busy channels of one connection", figure, lines))
    return plots.bars(
        "Cost and number", "The server's, less is better; what does not depend on number is flat.", panels
    )


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--idle", type=int, help="idle connections (default: 5000, with --quick 500)")
    parser.add_argument("--busy", type=int, help="busy connections (default: 500, with --quick 50)")
    parser.add_argument("--seconds", type=float, help="how long they are busy (default: 6, with --quick 2)")
    parser.add_argument("--limits", type=json.loads, default={}, help="the server's, JSON")
    parser.add_argument("--json", type=Path, help="where to keep what was measured")
    parser.add_argument("--plot", type=Path, help="where to draw it, SVG")
    arguments = parser.parse_args(words)
    quick = arguments.quick
    idle = arguments.idle or (500 if quick else 5000)
    with tempfile.TemporaryDirectory() as directory:
        from tests.bench.__main__ import _make_keys  # here, since that module is a program

        _make_keys(Path(directory))
        found = Scale(
            Setting(cipher="aes128-gcm", keys=directory),
            ((idle // 10, idle // 5, idle // 2, idle), (1, 10, 100) if quick else (1, 10, 100, 1000)),
            (arguments.busy or (50 if quick else 500), (1, 10) if quick else (1, 10, 100, 1000)),
            arguments.seconds or (2.0 if quick else 6.0),
            200 if quick else 500,
            arguments.limits,
        ).run()
    print(tables(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    if arguments.plot:
        arguments.plot.write_text(draw(found), encoding="utf-8")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    match sys.argv[1:]:
        case ["--server", setting, limits]:
            serve(Setting(**json.loads(setting)), json.loads(limits))
        case ["--client", setting, _]:
            drive(Setting(**json.loads(setting)))
        case words:
            main(words)
