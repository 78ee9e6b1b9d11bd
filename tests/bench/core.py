"""The core alone: two connections joined in memory, and nothing between them.

All figures are processor time of this process; each is measured ``runs`` times, in turn with the others of its table.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator

from tests.bench import budget, memory
from tests.bench.ends import CIPHERS, floor
from tests.bench.memory import Flow
from tests.bench.report import Spread, table
from tests.support.pair import Pair

SIZES = (64, 1024, 32768)
CHANNELS = (1, 100, 1000)
FEEDS = (1, 16, 256, 4096, 65536, 1 << 20)

Figures = dict[str, list[float]]


def _runs(count: int) -> Iterator[None]:
    """Each with no garbage of the one before."""
    for _ in range(count):
        gc.collect()
        yield


def _clocked(function: Callable[[], object]) -> float:
    before = time.process_time()
    function()
    return time.process_time() - before


def _batch(size: int) -> int:
    """How many packets go together: 128 KiB, or 64 of them."""
    return min(64, (128 << 10) // size)


def _both_ways(
    send: Callable[[], bytes | bytearray], receive: Callable[[bytes | bytearray], object], settle: Callable[[], object]
) -> tuple[float, float]:
    """Seconds that eight batches take, one way and the other; the window has room for so many."""
    wires: list[bytes | bytearray] = []

    def sends() -> None:
        for _ in range(8):
            wires.append(send())  # noqa: PERF401  nothing but the calls

    def receives() -> None:
        for wire in wires:
            receive(wire)

    took = _clocked(sends), _clocked(receives)
    settle()
    return took


def _core(cipher: str, size: int) -> Callable[[], tuple[float, float]]:
    flow, count, block = Flow.make(cipher, chance=True), _batch(size), bytes(size)
    return lambda: _both_ways(lambda: flow.send(flow.there[0], block, count), flow.receive, flow.settle)


def _floor(cipher: str, size: int) -> Callable[[], tuple[float, float]]:
    here, there, count = floor.Wire(cipher), floor.Wire(cipher), _batch(size)

    def receive(wire: bytes | bytearray) -> None:
        there.space()[: len(wire)] = wire
        for _ in there.took(len(wire)):
            pass

    return lambda: _both_ways(lambda: here.packets(floor.DATA, 9 + size, count), receive, lambda: None)


def packets(runs: int, amount: int) -> dict[str, Figures]:
    """Microseconds that a packet takes: sent, received, and the floor of each."""
    found: dict[str, Figures] = {}
    kinds = {(cipher, size): (_core(cipher, size), _floor(cipher, size)) for cipher in CIPHERS for size in SIZES}
    for _ in _runs(runs):
        for (cipher, size), (core, bottom) in kinds.items():
            rounds = max(1, amount // (8 * _batch(size)))
            figures = found.setdefault(f"{cipher}, {size} B", {})
            for names, way in ((("sent", "received"), core), (("floor, sent", "floor, received"), bottom)):
                way()  # warm
                took = [way() for _ in range(rounds)]
                for name, each in zip(names, zip(*took, strict=True), strict=True):
                    figures.setdefault(name, []).append(sum(each) / (rounds * 8 * _batch(size)) * 1e6)
    return found


def channels(runs: int, amount: int) -> dict[str, Figures]:
    """Packets of 64 bytes that go over in a second of one processor, sent and received, with so many channels open."""
    found: dict[str, Figures] = {}
    flows = {count: Flow.make("aes128-gcm", count, chance=True) for count in CHANNELS}
    block = bytes(64)
    for _ in _runs(runs):
        for count, flow in flows.items():

            def go(flow: Flow = flow) -> None:
                there = flow.there
                for start in range(0, amount, 50):
                    for number in range(start, start + 50):
                        flow.sender.send(there[number % len(there)], block)
                    flow.receive(flow.sender.data_to_send())
                    flow.settle()

            rate = amount / _clocked(go)
            found.setdefault(f"{count} open", {}).setdefault("packets a second", []).append(rate)
    return found


def feeds(runs: int, amount: int) -> dict[str, Figures]:
    """Nanoseconds that a byte of packets of 32 KiB takes to be received, however they are cut.

    A window must hold ``amount`` of them, and what is consumed of those before and not given back yet.
    """
    found: dict[str, Figures] = {}
    flow = Flow.make("aes128-gcm", chance=True)
    block = bytes(32768)
    for _ in _runs(runs):
        for size in FEEDS:
            count = amount if size > 1 else max(1, amount // 8)
            data = b"".join(flow.send(flow.there[0], block) for _ in range(count))
            view = [data[start : start + size] for start in range(0, len(data), size)]
            took = _clocked(lambda view=view: [flow.receive(each) for each in view])  # type: ignore[misc]
            flow.settle()
            found.setdefault(f"{size} B", {}).setdefault("ns a byte", []).append(took / len(data) * 1e9)
    return found


def handshake(runs: int, amount: int) -> dict[str, Figures]:
    """Microseconds of both ends: by parts, and the public-key operations among them."""
    found: dict[str, Figures] = {}

    def note(name: str, seconds: float) -> None:
        found.setdefault(name, {}).setdefault("µs", []).append(seconds / amount * 1e6)

    keys = floor.Keys()
    for _ in _runs(runs):
        parts = dict.fromkeys(("two configurations", "identification and KEXINIT", "key exchange", "login"), 0.0)
        for _ in range(amount):
            _login(parts)
        for name, seconds in parts.items():
            note(name, seconds)
        note("all", sum(parts.values()))

        def crypto(name: str, *operations: Callable[[], None]) -> float:
            took = _clocked(lambda: [each() for _ in range(amount) for each in operations])
            note(name, took)
            return took

        took = crypto("crypto of the key exchange", keys.agree, keys.agree, keys.sign, keys.verify)
        took += crypto("crypto of the login", keys.sign, keys.verify)
        note("own work", sum(parts.values()) - took)
    return found


def _login(parts: dict[str, float]) -> None:
    clock = time.process_time
    at = clock()
    configs = memory.configs("aes128-gcm", chance=True)
    parts["two configurations"] += clock() - at
    at = clock()
    both = Pair.make(*configs)
    ends = (both.client, both.server)
    flight = {end.name: end.drain() for end in ends}
    parts["identification and KEXINIT"] += clock() - at
    while any(flight.values()):
        for end, peer in (ends, ends[::-1]):
            data, flight[peer.name] = flight[peer.name], b""
            if not data:
                continue
            part = "login" if all(each.conn.negotiated for each in ends) else "key exchange"
            at = clock()
            end.conn.receive_data(data, 0.0)
            flight[end.name] += end.drain()
            parts[part] += clock() - at


def spent() -> dict[str, Figures]:
    """What the budget counts."""
    found = {}
    for name, measure in budget.MEASURED.items():
        one = measure()
        found[name] = {"calls": [one.calls], "calls of C": [one.builtins], "peak bytes": [float(one.peak)]}
    return found


TABLES: dict[str, tuple[str, Callable[[int, bool], dict[str, Figures]]]] = {
    "packets": ("microseconds a packet, and its floor", lambda runs, quick: packets(runs, 600 if quick else 4000)),
    "channels": (
        "packets of 64 B in a processor's second, both ends, by open channels",
        lambda runs, quick: channels(runs, 1000 if quick else 10000),
    ),
    "feeds": (
        "receiving packets of 32 KiB, by the size of what is fed",
        lambda runs, quick: feeds(runs, 16 if quick else 24),
    ),
    "handshake": ("a login by parts, both ends", lambda runs, quick: handshake(runs, 20 if quick else 100)),
    "spent": ("calls, and memory at the highest moment", lambda runs, quick: spent()),
}


def measure(runs: int, quick: bool, log: Callable[[str], None]) -> dict[str, dict[str, Figures]]:
    """All tables, by name."""
    found = {}
    for name, (title, make) in TABLES.items():
        log(f"The core alone: {title}")
        found[name] = make(runs, quick)
    return found


def tables(found: dict[str, dict[str, Figures]]) -> Iterator[tuple[str, str]]:
    """What each is, and it in Markdown."""
    for name, rows in found.items():
        heads = list(next(iter(rows.values())))
        lines = [[row, *(str(Spread.of(values)) for values in figures.values())] for row, figures in rows.items()]
        yield TABLES[name][0], table(["", *heads], lines)
