"""Where it was measured, in general words, and what was."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from sshproto.config import VERSION


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace"))
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def _said(*argv: str) -> str | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True)
        return (done.stdout or done.stderr).strip().splitlines()[0]
    return None


def machine() -> dict[str, Any]:
    """The processor, and how busy it is with other things before we begin."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load before": round(os.getloadavg()[0], 1),
    }


def versions() -> dict[str, str]:
    """Of all that is measured and can be asked."""
    found = {"sshproto": VERSION, "Python": platform.python_version()}
    for name in ("cryptography", "trio", "asyncssh", "paramiko"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    with contextlib.suppress(ImportError):
        from cryptography.hazmat.backends.openssl import backend

        found["cryptography's OpenSSL"] = backend.openssl_version_text().removeprefix("OpenSSL ").split(" ")[0]
    said = {
        "OpenSSH": _said("ssh", "-V"),
        "Go": _said("go", "version"),
        "node": _said("node", "--version"),
        "ssh2": _said("node", "-p", "require('ssh2/package.json').version"),
    }
    for name, words in said.items():
        number = re.search(r"\d+\.\d+[\w.]*", words) if words else None
        if number:
            found[name] = number[0]
    return found
