"""What is measured: an SSH client or server of some library, in a process of its own, that does as it is told by lines.

``python -m tests.bench.ends NAME ROLE SETTING`` is one; the programs in ``tests/bench/peers`` for other languages speak
the same.  ``SETTING`` is JSON, a :class:`Setting`.

A server prints a line of JSON with its ``port``.  At each line that it reads it prints a :func:`state`; it ends with
its input.  Its commands are ``download N``, which writes so many bytes in pieces of 32 KiB, ``upload``, which reads and
drops, ``true``, and ``hold``, which neither reads nor writes until its channel is closed.

A client reads a line for each job: ``{"work": ..., "amount": ...}``.  It gets ready (connects, and does a little of the
same, so that what is measured is warm), prints a line and waits for one; does the work; prints what that took and
waits for a line; tidies up, and prints a line again.  So whoever is in charge can look at the server in between.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

HOST = "127.0.0.1"
USER = "bench"
BLOCK = bytes(32 * 1024)
"""What is written at once, by everybody."""

CIPHERS = {
    "aes128-gcm": ("aes128-gcm@openssh.com", None),
    "chacha20": ("chacha20-poly1305@openssh.com", None),
    "aes256-ctr+etm": ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
}
"""Short name: cipher, and MAC where the cipher has none of its own."""

KEX = "curve25519-sha256"


@attrs.frozen(kw_only=True)
class Setting:
    """What both ends know.

    Attributes:
        cipher: One of :data:`CIPHERS`.
        keys: A directory with ``host_key`` and ``user_key``, ed25519 keys in OpenSSH's format, and their ``.pub``.
        port: Where the server listens; a client's.
        user: Whom to log in as, where the server is no program of ours.
    """

    cipher: str
    keys: str
    port: int = 0
    user: str = USER

    @property
    def algorithms(self) -> tuple[str, str | None]:
        return CIPHERS[self.cipher]

    def key(self, name: str) -> bytes:
        return Path(self.keys, name).read_bytes()


def resident() -> int:
    """Bytes of memory that this process has."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


def state() -> dict[str, Any]:
    """Processor seconds of this process, those of its ended threads included; time; memory."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu": used.ru_utime + used.ru_stime, "wall": time.monotonic(), "memory": resident()}


def say(**words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def obey(port: int) -> None:
    """Tell where we listen, and answer each line with a :func:`state`; from a thread, until the input ends."""

    def answer() -> None:
        for _ in sys.stdin:
            gc.collect()  # garbage that waits for its collector is not memory of anything
            found = state()
            found["cpu"] -= time.thread_time()  # what this took is outside of what is measured
            say(**found)
        os._exit(0)  # whatever else still runs

    threading.Thread(target=answer, daemon=True).start()
    say(port=port)


@attrs.define
class Job:
    """Something that a client is told to do.

    Attributes:
        work: ``download`` or ``upload`` (bytes), ``connect``, ``exec`` or ``exec50`` (how many), ``connections`` or
            ``channels`` (how many there are to be in the end, idle ones).
        amount: How much of it.
        warming: How much of the same to do before.
        already: How many idle ones there are to be before it is measured.
        shell: The server is no program of ours, but has a shell.
    """

    work: str
    amount: int
    warming: int = 0
    already: int = 0
    shell: bool = False

    def command(self, word: str, amount: int = 0) -> str:
        """What the server is asked to run."""
        if self.shell:
            return {"download": f"head -c {amount} /dev/zero", "upload": "cat >/dev/null", "true": "true"}[word]
        return f"download {amount}" if word == "download" else word

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Around the work itself."""
        say(ready=True)
        gc.collect()
        sys.stdin.readline()
        before = state()
        yield
        after = state()
        if self.already:
            gc.collect()
            after = state()
        say(**{name: after[name] - before[name] for name in before})
        sys.stdin.readline()


def jobs() -> Iterator[Job]:
    """What this client is told to do, one after the other."""
    while line := sys.stdin.readline():
        yield Job(**json.loads(line))
        say(over=True)


def whole(count: int, amount: int) -> None:
    """See that everything has come."""
    if count != amount:
        raise AssertionError(f"{count} bytes of {amount} have come")


def pieces(amount: int) -> Iterator[bytes]:
    """So many bytes, in pieces of 32 KiB."""
    for _ in range(amount // len(BLOCK)):
        yield BLOCK
    if amount % len(BLOCK):
        yield BLOCK[: amount % len(BLOCK)]
