"""Our analysis of captures beside tshark's, of the same file in the same run.

``python -m tests.bench.analysis [FILE...]`` times, for each file, or for one that is made up:

* ``read``: packets are read, and TCP streams put together.
* ``public``: all that is public is told of every SSH connection (``sshproto.replay.analysis`` without keys).
* ``opened``: the same with the key log beside the file (``FILE.keylog``, or ``NAME.keylog`` for ``NAME.pcap``).
* ``tshark conv``: its statistics of TCP connections, for which it dissects all packets too.
* ``tshark ssh``: fields of the SSH frames (identification, KEXINIT lists, HASSH), in which it reassembles messages.
* ``tshark all``: one line of each frame.

Each is run in a process of its own, five times in turn; the medians of the processor's seconds (user and system, the
children's included) and of the clock's are shown, and packets and megabytes in a processor's second.  Start-up is
measured apart, with a capture of nothing, and shown, not subtracted.

``--memory`` instead shows the most memory that our analysis takes for made-up captures of 100 MB and 1 GB, which are
not written to a file.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from sshproto.replay.analysis import Analysis
from sshproto.replay.capture.network import Network
from sshproto.replay.capture.reader import CaptureReader, Sliceable
from sshproto.replay.capture.reassembly import Reassembler
from sshproto.replay.secrets import Secrets

RUNS = 5
MB = 1_000_000
FIELDS = ("frame.number", "ssh.protocol", "ssh.message_code", "ssh.kex.hassh", "ssh.kex.hasshserver",
          "ssh.kex_algorithms", "ssh.encryption_algorithms_client_to_server")  # fmt: skip
SSH = ["-Y", "ssh", "-T", "fields", *(word for field in FIELDS for word in ("-e", field))]
TSHARK = {"conv": ["-q", "-z", "conv,tcp"], "ssh": SSH, "all": []}


def read(chunks: Iterable[Sliceable]) -> str:
    reader, network, tcp, size = CaptureReader(), Network(), Reassembler(), 0
    for packets in reader.read(chunks):
        size += len(tcp.feed(network.segments(packets)))
    return f"{reader.frames} packets, {tcp.connections} connections"


def analyse(chunks: Iterable[Sliceable], key_log: bytes = b"") -> str:
    secrets = Secrets()
    secrets.add_key_log(key_log)
    analysis = Analysis(secrets)
    found = opened = 0
    for conversations in (analysis.read(chunks), analysis.finish()):
        for conversation in conversations:
            found += 1
            opened += conversation.summary.opened
    return f"{analysis.reader.frames} packets, {found} SSH connections, {opened} opened"


def chunks_of(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 18):
            yield chunk


def work(what: str, path: Path) -> None:
    """What a process of its own does."""
    match what:
        case "read":
            print(read(chunks_of(path)))
        case "public":
            print(analyse(chunks_of(path)))
        case "opened":
            print(analyse(chunks_of(path), key_log_of(path).read_bytes()))
        case _:
            from tests.bench.synthetic import Traffic

            before = peak()
            traffic = Traffic.make()
            print(analyse(traffic.pcap(int(what) * MB), traffic.key_log.encode() if "key" in path.name else b""))
            print(f"most memory: {peak() / 1024:.1f} MiB, before: {before / 1024:.1f} MiB")


def peak() -> int:
    """The most memory that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def key_log_of(path: Path) -> Path:
    return path.with_suffix(".keylog")


def measure(argv: list[str]) -> tuple[float, float]:
    """Seconds of the processor's, and of the clock's, that a program takes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after, stop = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, stop - start


def programs(path: Path) -> dict[str, list[str]]:
    ours = [sys.executable, "-m", "tests.bench.analysis", "--work"]
    found = {what: [*ours, what, str(path)] for what in ("read", "public", "opened")}
    if not key_log_of(path).is_file():
        del found["opened"]
    if tshark := shutil.which("tshark"):
        for name, options in TSHARK.items():
            found[f"tshark {name}"] = [tshark, "-n", "-r", str(path), *options]
    return found


def compare(path: Path, start_up: Path) -> None:
    packets = int(read(chunks_of(path)).split()[0])
    size = path.stat().st_size
    print(f"\n{path.name}: {packets} packets, {size / MB:.1f} MB; median of {RUNS} runs (start-up in brackets)")
    print(f"{'':14}{'processor s':>18}{'clock s':>10}{'packets/s':>12}{'MB/s':>8}")
    programs_here, empty = programs(path), programs(start_up)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs_here}
    for _ in range(RUNS):
        for name, argv in programs_here.items():
            times[name].append(measure(argv))
    for name, taken in times.items():
        used, clock = (statistics.median(column) for column in zip(*taken, strict=True))
        idle = statistics.median(measure(empty.get(name, empty["public"]))[0] for _ in range(3))
        print(f"{name:14}{used:11.2f} ({idle:.2f}){clock:10.2f}{packets / used:12,.0f}{size / MB / used:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--size", type=int, default=100, help="of the capture that is made up, in MB")
    parser.add_argument("--memory", action="store_true", help="how much memory it takes, instead")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.files[0])
        return
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    if arguments.memory:
        for name in ("public", "keys"):
            for size in (100, 1000):
                print(f"\n{size} MB, {name}:", flush=True)
                subprocess.run([sys.executable, "-m", "tests.bench.analysis", "--work", str(size), name], check=True)
        return
    from tests.bench.synthetic import Traffic
    from tests.support.captures import pcap

    with tempfile.TemporaryDirectory() as folder:
        files, empty = list(arguments.files), Path(folder, "empty.pcap")
        empty.write_bytes(pcap([]))
        if not files:
            traffic, made = Traffic.make(), Path(folder, "made-up.pcap")
            files.append(made)
            key_log_of(made).write_text(traffic.key_log)
            with made.open("wb") as file:
                file.writelines(traffic.pcap(arguments.size * MB))
        for path in files:
            compare(path, empty)


if __name__ == "__main__":
    main()
