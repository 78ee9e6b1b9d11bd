"""Our faces and other SSH libraries side by side: ``python -m tests.bench`` (``--help`` says more)."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.bench import pairs, report, works
from tests.bench.ends import Setting


def make_keys(directory: Path) -> None:
    for name in ("host_key", "user_key"):
        handle = Ed25519PrivateKey.generate()
        path = directory / name
        path.write_bytes(
            handle.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
        )
        path.chmod(0o600)
        public = handle.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        (directory / f"{name}.pub").write_bytes(public + b"\n")


def log(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--peers", type=lambda text: text.split(","), default=[])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs = arguments.runs or (3 if arguments.quick else 5)
    todo = works.chosen(arguments.only)
    who = [pair for pair in pairs.PAIRS if not arguments.peers or pair.name in arguments.peers]
    kept: dict[str, dict[str, dict[str, list[float]]]] = {}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        make_keys(Path(directory))
        for cipher in dict.fromkeys(work.cipher for work in todo):
            setting = Setting(cipher=cipher, keys=directory)
            running = []
            for pair in who:
                lack = pair.lacks()
                if lack:
                    log(f"{pair.name}: {lack} is not installed")
                    continue
                running.append(one := pairs.Running(pair, setting))
                stack.callback(one.stop)
            for work in todo:
                if work.cipher != cipher:
                    continue
                samples = kept.setdefault(work.name, {})
                began = time.monotonic()
                for _ in range(runs):
                    for one in running:
                        if not one.pair.does(work):
                            continue
                        done = one.measure(work, work.quick if arguments.quick else work.amount)
                        for figure, value in done.items():
                            samples.setdefault(one.pair.name, {}).setdefault(figure, []).append(value)
                show(work, samples)
                log(f"({time.monotonic() - began:.1f} s)")
            stack.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(kept, indent=1))


def show(work, samples) -> None:
    print(f"\n{work.title}, {work.unit}\n")
    rows = []
    for name, figures in samples.items():
        row = [name, *(str(report.Spread.of(figures[each])) for each in work.figures)]
        first = work.figures[0]
        other = samples.get("asyncssh")
        row.append(str(report.ratio(figures[first], other[first])) if other else "")
        rows.append(row)
    print(report.table(["", *work.figures, "ratio"], rows), flush=True)


main()
