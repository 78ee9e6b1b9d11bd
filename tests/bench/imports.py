"""What a process takes that imports something and ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.bench.pairs import environment

_CRYPTO = (
    "from cryptography.hazmat.primitives.ciphers.aead import AESGCM;"
    "from cryptography.hazmat.primitives.asymmetric import ed25519, x25519"
)

FACES = ("asyncio", "blocking", "trio")

PROGRAMS = {
    "python": "pass",
    "floor": f"import asyncio;{_CRYPTO}",
    "floor-blocking": f"import socket;{_CRYPTO}",
    "floor-trio": f"import trio;{_CRYPTO}",
    "sshproto": "import sshproto",
    "asyncio": "import sshproto_io.asyncio",
    "blocking": "import sshproto_io.blocking",
    "trio": "import sshproto_io.trio",
    **{f"{face}-loaded": f"import sshproto_io.{face} as face;face.Client;face.Handler" for face in FACES},
    "asyncssh": "import asyncssh",
    "paramiko": "import paramiko",
}
"""What is run, by the name of the pair that it belongs to, or its own.

A face loads what a connection is made of when one is first asked for: ``-loaded`` has it all, as others do."""

SHOWN = {
    "python": "Python alone",
    "sshproto": "**sshproto**",
    **{f"{face}-loaded": f"**sshproto_io.{face}**, with what connects" for face in FACES},
}
"""What tables call those that are no pairs."""


def measure(name: str) -> dict[str, float]:
    """Milliseconds, by the clock and of the processor."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", PROGRAMS[name]], env=environment(), stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    took = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ImportError(name)
    return {"wall": took * 1e3, "cpu": (used.ru_utime + used.ru_stime) * 1e3}
