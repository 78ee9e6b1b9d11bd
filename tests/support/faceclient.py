"""A client under one of the faces, in a process of its own: to measure its memory, or to be killed.

As a program it runs one scenario, given as ``module:function``, with ``(face, client, *words)``, or ``(face, port,
*words)`` with ``--bare``, and prints what it needed as JSON.  What it writes to standard error is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import attrs

from sshproto.config import Preferences
from sshproto.keys.public import PublicKey
from tests.support import faces
from tests.support.faceserver import memory, reset_peak, strict


@attrs.frozen
class Used:
    """What a client has needed.

    Attributes:
        growth: By how much the peak of its memory was above that before it had connected, in bytes.
        result: What the scenario returned.
    """

    growth: int
    result: Any = None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--face", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rekey-bytes", type=int, default=2**30)
    parser.add_argument("--keepalive", type=float)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--user")
    parser.add_argument("--host-key")
    parser.add_argument("scenario")
    parser.add_argument("words", nargs="*")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    face = faces.get(arguments.face)
    module, _, name = arguments.scenario.partition(":")
    scenario = getattr(importlib.import_module(module), name)
    more: dict[str, Any] = {} if arguments.user is None else {"user": arguments.user, "preferences": Preferences()}
    options: dict[str, Any] = {
        "config": faces.client_config(rekey_bytes=arguments.rekey_bytes, keepalive=arguments.keepalive, **more)
    }
    if arguments.host_key is not None:
        options["host_key"] = PublicKey.parse(arguments.host_key)
    gc.collect()
    reset_peak()
    base = memory("VmRSS")
    if arguments.bare:
        result = face.play(scenario, arguments.port, *arguments.words)
    else:
        result = face.visit(scenario, arguments.port, *arguments.words, **options)
    print(json.dumps({"growth": memory("VmHWM") - base, "result": result}))


@contextlib.contextmanager
def starting(face: str, port: int, scenario: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A client until the block is left."""
    argv, environment = strict(["tests.support.faceclient", "--face", face, "--port", str(port), scenario, *words])
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(face: str, port: int, scenario: str, *words: str, options: tuple[str, ...] = (), seconds: float = 100) -> Used:
    """Run a client to its end."""
    argv, environment = strict(
        ["tests.support.faceclient", "--face", face, "--port", str(port), *options, scenario, *words]
    )
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=errors, env=environment, timeout=seconds, check=False
        )
        errors.seek(0)
        complaints = errors.read().decode(errors="replace")
    assert (done.returncode, complaints) == (0, ""), complaints[-6000:]
    return Used(**json.loads(done.stdout))


if __name__ == "__main__":
    main()
