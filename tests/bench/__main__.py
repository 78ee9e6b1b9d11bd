"""Our faces and other SSH libraries side by side: ``python -m tests.bench``, with ``PYTHONPATH=.:adapters``.

Each pair of a client and a server is two processes, which talk over loopback.  All pairs do a piece of work in turn
(A B C, A B C, ...), so that what else the machine does falls on all alike.  What counts is the processor time that the
operating system says each end took for the work itself: connecting and warming up came before.  The floor is the same
bytes through the same sockets with nothing but one call of cryptography a packet.

Works: bulk (download, upload; also with a cipher, such as download-chacha20), connect, exec, exec50, memory, import,
core.  Pairs: see ``--peers list``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.bench import core, imports, machine, pairs, plots, report, works
from tests.bench.ends import Setting
from tests.bench.works import Work

Kept = dict[str, dict[str, dict[str, list[float]]]]
"""By work, by pair, by figure: one for each run."""


def _log(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _make_keys(directory: Path) -> None:
    form = serialization.PrivateFormat.OpenSSH
    for name in ("host_key", "user_key"):
        handle = Ed25519PrivateKey.generate()
        path = directory / name
        path.write_bytes(handle.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        path.chmod(0o600)
        public = handle.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        (directory / f"{name}.pub").write_bytes(public + b"\n")


class Bench:
    """One run of all that was asked for.

    Args:
        todo: The works.
        who: The pairs.
        runs: How often each.
        quick: Little of each.
        scratch: A directory.

    Attributes:
        kept: What was measured.
    """

    def __init__(self, todo: list[Work], who: list[pairs.Pair], runs: int, scratch: Path, *, quick: bool) -> None:
        self._todo = todo
        self._runs = runs
        self._quick = quick
        self._scratch = scratch
        self._tools = pairs.Toolbox(scratch)
        self._who = [pair for pair in who if any(pair.does(work) for work in todo if work.cipher) and self._can(pair)]
        self._named = {pair.name for pair in who}
        self.kept: Kept = {}

    def _can(self, pair: pairs.Pair) -> bool:
        try:
            self._tools.check(pair)
        except pairs.Lacking as lack:
            _log(f"{pair.name} is left out: {lack}")
            return False
        return True

    def run(self) -> None:
        """Measure."""
        _make_keys(self._scratch)
        for cipher in dict.fromkeys(work.cipher for work in self._todo if work.cipher):
            self._under(cipher)
        if works.IMPORT in self._todo:
            self._imports()

    def _keep(self, work: Work, name: str, sample: dict[str, float]) -> None:
        figures = self.kept.setdefault(work.name, {}).setdefault(name, {})
        for figure, value in sample.items():
            figures.setdefault(figure, []).append(value)

    def _under(self, cipher: str) -> None:
        setting = Setting(cipher=cipher, keys=str(self._scratch))
        todo = [work for work in self._todo if work.cipher == cipher and (pairs.ONE_CORE or not work.together)]
        for together in (False, True):
            lasting = [work for work in todo if work.together is together and not work.already]
            with contextlib.ExitStack() as stack:
                running = []
                for pair in self._who:
                    if any(map(pair.does, lasting)):
                        running.append(one := pairs.Running(pair, setting, self._tools, together=together))
                        stack.callback(one.close)
                for work in lasting:
                    self._often(work, running)
        # Memory that was given back is used again: each measurement of memory has new processes.
        for job in dict.fromkeys(work.job for work in todo if work.already):
            self._memory([work for work in todo if work.job == job], setting)

    def _often(self, work: Work, running: list[pairs.Running]) -> None:
        able = [one for one in running if one.pair.does(work)]
        for number in range(self._runs):
            _log(f"{work.title}: {number + 1} of {self._runs}")
            for one in tuple(able):
                try:
                    sample = one.measure(work, work.quick if self._quick else work.amount)
                except pairs.Failed as failure:
                    _log(f"{one.pair.name} has failed: {failure}")
                    able.remove(one)
                    running.remove(one)
                    self.kept.get(work.name, {}).pop(one.pair.name, None)
                else:
                    self._keep(work, one.pair.name, sample)

    def _memory(self, same: list[Work], setting: Setting) -> None:
        work = same[0]
        for number in range(self._runs):
            _log(f"{work.title.rpartition(',')[0]}: {number + 1} of {self._runs}")
            for pair in self._who:
                if not pair.does(work):
                    continue
                try:
                    with contextlib.closing(pairs.Running(pair, setting, self._tools)) as one:
                        sample = one.measure(work, work.quick if self._quick else work.amount)
                except pairs.Failed as failure:
                    _log(f"{pair.name} has failed: {failure}")
                else:
                    for each in same:
                        self._keep(each, pair.name, {name: sample[name] for name in each.figures})

    def _imports(self) -> None:
        names = [
            name
            for name in imports.PROGRAMS
            if (pair := name.removesuffix("-loaded")) not in pairs.BY_NAME or pair in self._named
        ]
        broken = set()
        for name in names:  # so that all is compiled
            try:
                imports.measure(name)
            except ImportError:
                _log(f"{name} cannot be imported")
                broken.add(name)
        for number in range(3 * self._runs):
            if not number % self._runs:
                _log(f"{works.IMPORT.title}: {number + 1} of {3 * self._runs}")
            for name in names:
                if name not in broken:
                    self._keep(works.IMPORT, name, imports.measure(name))


def _arguments() -> argparse.Namespace:
    words = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__, formatter_class=words)
    names = {"type": lambda text: text.split(","), "default": []}
    parser.add_argument("--quick", action="store_true", help="little of each, three runs, and not all peers")
    parser.add_argument("--runs", type=int, metavar="N", help="how often each (5, or 3)")
    parser.add_argument("--only", metavar="WORK,...", help="which works", **names)
    parser.add_argument("--peers", metavar="NAME,...", help="which pairs", **names)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep everything there")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing; show what is kept there")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="show what has changed since then")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw what was measured")
    parser.add_argument("--docs", action="store_true", help="with headings, as docs/performance.md has it")
    return parser.parse_args()


_QUICK = ("floor", "asyncio", "blocking", "trio", "asyncssh", "paramiko")


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    runs = arguments.runs or (3 if arguments.quick else 5)
    unknown = (
        set(arguments.only) - {"core"} - {name for each in works.WORKS for name in (each.name, each.group, each.job)}
    )
    if unknown:
        raise SystemExit(f"no such work: {', '.join(sorted(unknown))}")
    todo = works.chosen(arguments.only)
    if arguments.quick and not arguments.only:
        todo = [work for work in todo if work.group != "bulk" or work.cipher == "aes128-gcm"]
    wanted = arguments.peers or (_QUICK if arguments.quick else tuple(pairs.BY_NAME))
    if set(wanted) - set(pairs.BY_NAME):
        raise SystemExit(f"pairs are: {', '.join(pairs.BY_NAME)}")
    if os.getloadavg()[0] > (os.cpu_count() or 1) / 2:
        _log("this machine is busy with other things: figures are too high, and ratios uncertain")
    found: dict[str, Any] = {
        "machine": machine.machine(),
        "versions": machine.versions(),
        "runs": runs,
        "quick": arguments.quick,
    }
    with tempfile.TemporaryDirectory() as directory:
        who = [pair for pair in pairs.PAIRS if pair.name in wanted]
        bench = Bench(todo, who, runs, Path(directory), quick=arguments.quick)
        bench.run()
    found["works"] = {work.name: bench.kept[work.name] for work in works.WORKS if bench.kept.get(work.name)}
    _keep(found, arguments)  # if what follows fails, this took minutes
    if not arguments.only or "core" in arguments.only:
        found["core"] = core.measure(runs, arguments.quick, _log)
    return found


def _keep(found: dict[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _show(found: dict[str, Any], heading: str) -> str:
    """Everything; ``heading`` stands before the title of each table."""
    parts = [report.setting(found), report.summary(found["works"])]
    for name, samples in found["works"].items():
        work = works.BY_NAME[name]
        parts.append(f"{heading}{work.title}\n\n{report.of_work(work, samples)}")
    for title, table in core.tables(found.get("core", {})):
        parts.append(f"{heading}The core alone: {title}\n\n{table}")
    return "\n\n".join(filter(None, parts)) + "\n"


def main() -> None:
    arguments = _arguments()
    found = json.loads(arguments.read.read_text(encoding="utf-8")) if arguments.read else _measure(arguments)
    _keep(found, arguments)
    print(_show(found, "### " if arguments.docs else ""))
    if arguments.compare:
        old = json.loads(arguments.compare.read_text(encoding="utf-8"))
        print(f"Since {arguments.compare.name}:\n\n{report.compared(old['works'], found['works'])}\n")
    if arguments.plots:
        arguments.plots.mkdir(parents=True, exist_ok=True)
        for name, drawing in plots.draw(found).items():
            (arguments.plots / f"{name}.svg").write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
