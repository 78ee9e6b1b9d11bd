"""tcpdump on loopback, and what tshark says of a capture: other programs' eyes for the tests of captures."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import attrs
import pytest

from sshproto.events import VersionReceived
from sshproto.replay.analysis import Conversation
from sshproto.replay.events import OfferSeen, Side
from sshproto.replay.summary import hassh
from sshproto.wire.table import Role
from tests.support.peers import SECONDS, need, unavailable

_QUIET = 0.3
"""Seconds without a packet after which nothing more will come."""


@contextlib.contextmanager
def tcpdump(path: Path, ports: Collection[int]) -> Iterator[None]:
    """Capture what goes over loopback from and to ``ports`` into a file, all of it.

    Raises:
        AssertionError: The kernel has dropped packets.
    """
    with tempfile.TemporaryFile() as log:
        process = _start(ports, ["-w", str(path)], stderr=log)
        try:
            _await(process, log)
            yield
            size, since = -1, time.monotonic()
            while time.monotonic() - since < _QUIET:
                if size != (size := path.stat().st_size):
                    since = time.monotonic()
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(SECONDS)
        log.seek(0)
        assert b"\n0 packets dropped by kernel" in log.read()


@contextlib.contextmanager
def tcpdump_to_a_pipe(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The same, as it happens: to the ``stdout`` of what is given."""
    with tempfile.TemporaryFile() as log:
        process = _start([port], ["-w", "-"], stdout=subprocess.PIPE, stderr=log)
        try:
            _await(process, log)
            yield process
        finally:
            process.terminate()
            process.wait(SECONDS)
            if process.stdout is not None:
                process.stdout.close()


def _start(
    ports: Collection[int], options: Sequence[str], *, stdout: int | None = None, stderr: Any = None
) -> subprocess.Popen[bytes]:
    """tcpdump on loopback, writing each packet at once; it may not have begun."""
    argv = [need("tcpdump"), "-i", "lo", "-n", "-U", "--immediate-mode", "-s", "0", "-B", "16384", *options]
    if os.geteuid() == 0:
        argv += ["-Z", "root"]  # otherwise it writes as a user who may not write here
    argv.append("tcp and (" + " or ".join(f"port {port}" for port in ports) + ")")
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)


def _await(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    """Until it listens."""
    deadline = time.monotonic() + SECONDS
    text = b""
    while b"listening on" not in text:
        log.seek(0)
        text = log.read()
        if process.poll() is not None:
            words = text.decode(errors="replace").strip()
            if "permi" in words:
                unavailable(f"tcpdump may not capture here: {words}")
            pytest.fail(f"tcpdump has ended: {words}", pytrace=False)
        if time.monotonic() > deadline:
            pytest.fail("tcpdump does not begin", pytrace=False)
        time.sleep(0.01)


def tshark(path: Path, fields: Iterable[str], *options: str, display: str = "ssh") -> list[list[str]]:
    """For each frame that ``display`` lets through, the values of ``fields`` in it, in order; several with ``|``."""
    argv = [need("tshark"), "-n", "-r", str(path), "-Y", display, "-T", "fields", "-E", "aggregator=|", *options]
    for field in fields:
        argv += ["-e", field]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    if done.returncode:
        pytest.fail(f"tshark: {done.stderr.decode(errors='replace')}", pytrace=False)
    return [line.split("\t") for line in done.stdout.decode(errors="replace").splitlines()]


# ------------------------------------------------------------------------------------------- what is public, by both

LISTS = (
    "kex_algorithms", "server_host_key_algorithms", "encryption_algorithms_client_to_server",
    "encryption_algorithms_server_to_client", "mac_algorithms_client_to_server", "mac_algorithms_server_to_client",
    "compression_algorithms_client_to_server", "compression_algorithms_server_to_client",
)  # fmt: skip

Way = tuple[int, str, int, str, int]
"""The number of the TCP connection, from 0; addresses and ports of who sends, and of who receives."""


@attrs.define
class Public:
    """What one side of a connection has sent in clear, as one program sees it.

    Attributes:
        version: Its identification.
        lists: Of its first KEXINIT, as :data:`LISTS`, each with commas.
        hassh: Fingerprints of its first KEXINIT: as a client's, or as a server's.
    """

    version: str = ""
    lists: tuple[str, ...] = ()
    hassh: tuple[str, str] = ("", "")


def as_tshark_sees_it(path: Path, *options: str) -> dict[Way, Public]:
    """By direction; those in which tshark finds nothing of SSH are not there."""
    fields = [
        "tcp.stream",
        "ip.src",
        "tcp.srcport",
        "ip.dst",
        "tcp.dstport",
        "ssh.protocol",
        "ssh.kex.hassh",
        "ssh.kex.hasshserver",
    ]
    found: dict[Way, Public] = {}
    for row in tshark(path, [*fields, *(f"ssh.{name}" for name in LISTS)], *options):
        stream, source, source_port, target, target_port, version, client, server, *lists = row
        if not source or "|" in source:
            continue
        public = found.setdefault((int(stream), source, int(source_port), target, int(target_port)), Public())
        public.version = public.version or version.partition("|")[0]
        if lists[0] and not public.lists:
            public.lists = tuple(value.partition("|")[0] for value in lists)
            public.hassh = client.partition("|")[0], server.partition("|")[0]
    return found


def as_we_see_it(conversations: Iterable[Conversation]) -> dict[Way, Public]:
    """The same of our analysis; both fingerprints of each side, whoever it is."""
    found: dict[Way, Public] = {}
    for conversation in conversations:
        dialler, dialled = conversation.connection.dialler, conversation.connection.dialled
        stream = conversation.connection.number - 1
        ways: dict[Side, Way] = {
            Side.DIALLER: (stream, dialler.address, dialler.port, dialled.address, dialled.port),
            Side.DIALLED: (stream, dialled.address, dialled.port, dialler.address, dialler.port),
        }
        for seen in conversation.events:
            public = found.setdefault(ways[seen.side], Public())
            match seen.event:
                case VersionReceived(line=line):
                    public.version = line
                case OfferSeen(kexinit=kexinit, epoch=0):
                    public.lists = tuple(",".join(getattr(kexinit, name)) for name in LISTS)
                    public.hassh = hassh(kexinit, Role.CLIENT), hassh(kexinit, Role.SERVER)
                case _:
                    pass
    return found
