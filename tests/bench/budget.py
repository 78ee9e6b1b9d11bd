"""What one packet, one command and one login may cost: counts that are the same on every run, for a test to hold.

``python -m tests.bench.budget`` measures and prints; ``--renew`` writes what was measured to ``budget.json``, which is
the budget from then on.  Whoever makes something dearer on purpose renews it, and says why in the commit.

Counted are calls in our own code: of functions of ours, and of functions in C by functions of ours; what cryptography
and attrs call inside is theirs.  Beside that stands the memory that is in use at the highest moment, above what was in
use before: it tells how often data is copied.  Pythons differ by a hundredth or two.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import platform
import statistics
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import attrs

import sshproto
import sshproto_io
from sshproto.operations.login import LoginPlan, log_in
from sshproto.operations.session import run
from sshproto_io.asyncio import connect, listen
from tests.bench.ends import BLOCK, HOST, Job, ours_asyncio
from tests.bench.memory import USER_KEY, Flow, configs
from tests.bench.report import table
from tests.support.pair import HOST_KEY
from tests.support.running import Scene, trust

BUDGET = Path(__file__).with_suffix(".json")

_OURS = (str(Path(sshproto.__file__).parent), str(Path(sshproto_io.__file__).parent), "<attrs generated")
_BATCH = 4  # packets between two looks at the output
_ROUNDS = 16


@attrs.frozen
class Spent:
    """What one of something takes.

    Attributes:
        calls: Calls of functions of ours.
        builtins: Calls of functions in C, by functions of ours.
        peak: Bytes of memory at the highest moment, above what there was before.
    """

    calls: float
    builtins: float
    peak: int

    def beyond(self, budget: Spent, room: float = 1.03) -> list[str]:
        """In what it is more than so many times the budget, in words."""
        found = []
        for name, more in SLACK.items():
            value, allowed = getattr(self, name), getattr(budget, name)
            if value > max(allowed * room, allowed + more):
                found.append(f"{value:g} {WORDS[name]}, and the budget is {allowed:g}")
        return found


WORDS = {"calls": "calls", "builtins": "calls of functions in C", "peak": "bytes of memory at the highest moment"}
SLACK = {"calls": 0.5, "builtins": 0.5, "peak": 1024}
"""How much more than the budget is always allowed."""


def _ours(code: Any) -> bool:
    return bool(code.co_filename.startswith(_OURS))


class _Counter:
    """Counts calls between ``with`` and its end."""

    def __enter__(self) -> Self:
        self.calls = self.builtins = 0
        self._before = sys.getprofile()
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _seen(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            self.calls += _ours(frame.f_code)
        elif event == "c_call":
            self.builtins += _ours(frame.f_code)


def _calls(function: Callable[[], object]) -> tuple[int, int]:
    with _Counter() as counter:
        function()
    return counter.calls, counter.builtins


def _memory(function: Callable[[], object]) -> int:
    already = tracemalloc.is_tracing()
    if not already:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        function()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not already:
            tracemalloc.stop()


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would come at any time."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _spent(some: Callable[[], object], each: int = 1, prepare: Callable[[], object] = lambda: None) -> Spent:
    """Of ``some``, which does ``each`` of what is counted; ``prepare`` is called before, and not counted."""

    def often(measure: Callable[[Callable[[], object]], Any]) -> list[Any]:
        found = []
        for _ in range(_ROUNDS):
            prepare()
            found.append(measure(some))
        return found

    with _uncollected():
        often(lambda function: function())  # whatever is made at the first time is made now
        counted = often(_calls)
        peak = statistics.median_low(often(_memory))
    calls, builtins = (sum(each) for each in zip(*counted, strict=True))
    done = _ROUNDS * each
    return Spent(round(calls / done, 2), round(builtins / done, 2), peak)


def sent(cipher: str) -> Spent:
    """A packet of 32 KiB, from ``send`` to ``data_to_send``."""
    flow = Flow.make(cipher)
    batches: list[bytes] = []

    def arrive() -> None:
        """What was sent before, so that the window opens again."""
        while batches:
            flow.receive(batches.pop())
        flow.settle()

    return _spent(lambda: batches.append(flow.send(flow.there[0], BLOCK, _BATCH)), _BATCH, arrive)


def received(cipher: str) -> Spent:
    """A packet of 32 KiB, from ``receive_data`` to ``credit``."""
    flow = Flow.make(cipher)
    batches: list[bytes] = []

    def leave() -> None:
        flow.settle()
        batches.append(flow.send(flow.there[0], BLOCK, _BATCH))

    return _spent(lambda: flow.receive(batches.pop()), _BATCH, leave)


def _scene() -> Scene:
    return Scene(*configs("aes128-gcm"))


def logged_in() -> Spent:
    """A login of both ends by public key, from two configurations to an open connection."""

    def one() -> None:
        scene = _scene().serve()
        scene.client.perform(log_in(scene.client.hub, trust, LoginPlan([USER_KEY])))

    return _spent(one)


def executed() -> Spent:
    """A command that writes a line, of both ends, from ``run`` to its result."""
    scene = _scene().serve().login()
    return _spent(lambda: scene.client.perform(run(scene.client.hub, "echo hello")))


def over_asyncio(name: str, amount: int, each: int) -> Spent:
    """A job of the bench's, of both ends, over sockets of one loop, which makes it the same on every run."""
    job = Job(name, amount)

    async def main() -> Spent:
        client_config, server_config = configs("aes128-gcm")
        key = USER_KEY.public_key
        async with (
            listen(HOST, 0, server_config, lambda incoming: ours_asyncio.Commands(key)) as server,
            connect(HOST, server.port, host_key=HOST_KEY.public_key, keys=[USER_KEY], config=client_config) as client,
        ):
            await ours_asyncio.WORKS[name](client, job, amount)
            with _Counter() as counter:
                await ours_asyncio.WORKS[name](client, job, amount)
        return Spent(round(counter.calls / each, 2), round(counter.builtins / each, 2), 0)

    with _uncollected():
        return asyncio.run(main())


SOCKETS = 1.1
"""How many times the budget is allowed where sockets are in it, of which a system may have more or less at once."""

MEASURED: dict[str, Callable[[], Spent]] = {
    "packet sent, aes128-gcm": lambda: sent("aes128-gcm"),
    "packet received, aes128-gcm": lambda: received("aes128-gcm"),
    "packet sent, chacha20": lambda: sent("chacha20"),
    "packet received, chacha20": lambda: received("chacha20"),
    "packet sent, aes256-ctr+etm": lambda: sent("aes256-ctr+etm"),
    "packet received, aes256-ctr+etm": lambda: received("aes256-ctr+etm"),
    "command": executed,
    "login": logged_in,
    "packet downloaded over asyncio": lambda: over_asyncio("download", 256 * len(BLOCK), 256),
    "packet uploaded over asyncio": lambda: over_asyncio("upload", 256 * len(BLOCK), 256),
    "command over asyncio": lambda: over_asyncio("exec", 16, 16),
    "command over asyncio, 50 at once": lambda: over_asyncio("exec50", 50, 50),
}


def budgets() -> dict[str, Spent]:
    """What is allowed."""
    return {name: Spent(**each) for name, each in json.loads(BUDGET.read_text(encoding="ascii")).items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.budget")
    parser.add_argument("--renew", action="store_true", help="make what is measured now the budget")
    arguments = parser.parse_args()
    allowed = budgets() if BUDGET.exists() else {}
    found = {name: measure() for name, measure in MEASURED.items()}
    rows = []
    for name, spent in found.items():
        before = allowed.get(name)
        cells = [f"{getattr(spent, each):g}" + (f" ({getattr(before, each):g})" if before else "") for each in SLACK]
        rows.append([name, *cells])
    print(f"One of each, in Python {platform.python_version()}, and its budget:\n")
    print(table(["", *SLACK], rows))
    if arguments.renew:
        BUDGET.write_text(json.dumps({name: attrs.asdict(spent) for name, spent in found.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
