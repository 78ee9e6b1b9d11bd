"""Runs of our command line that do not begin with the start of an interpreter.

A process has imported the command line, and forks for each run: descriptors, environment, directory, session and end
are the run's own, as if a process had been started for it, at a fifth of the cost.  How such a process starts is for
the tests that start :data:`tests.support.ours.PROGRAM` themselves.

As a program it takes runs from the Unix socket that is its argument, until its standard input ends.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PIECE = 65536
_LENGTH = 4


# -------------------------------------------------------------------------------------------------------- for the tests


class _Server:
    """The process that forks; it ends when this one does."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sshproto-")
        self._path = f"{self._folder.name}/runs"
        code = os.pathsep.join((str(_ROOT), str(_ROOT / "adapters")))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forking", self._path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "PYTHONPATH": code},
            start_new_session=True,
        )
        atexit.register(self._close)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def _close(self) -> None:
        with self._process:  # which closes its input
            pass
        self._folder.cleanup()

    def begin(self, words: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int]) -> socket.socket:
        """Have one run begin. The socket says its process id, and when it has ended its status, a line each."""
        order = json.dumps({"words": list(words), "env": dict(env), "directory": str(Path.cwd())}).encode()
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(self._path)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            sock.sendmsg([len(order).to_bytes(_LENGTH, "big")], rights)
            sock.sendall(order)
        except BaseException:
            sock.close()
            raise
        return sock


@functools.cache
def _server() -> _Server:
    return _Server()


def run(words: Sequence[str], env: Mapping[str, str], stdin: bytes, seconds: float) -> tuple[int, bytes, bytes]:
    """Run the command line with ``words``: its status, as :mod:`subprocess` has it, its output and its errors.

    Raises:
        TimeoutExpired: It has taken longer, and was killed.
    """
    with contextlib.ExitStack() as stack:
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = (os.pipe() for _ in range(3))
        for descriptor in (ours_out, ours_err):
            stack.callback(os.close, descriptor)
        feed = stack.enter_context(os.fdopen(ours_in, "wb", 0))
        try:
            sock = stack.enter_context(_server().begin(words, env, (theirs_in, theirs_out, theirs_err)))
        finally:
            for descriptor in (theirs_in, theirs_out, theirs_err):
                os.close(descriptor)
        said = stack.enter_context(sock.makefile("r"))
        pid = int(said.readline())
        end = time.monotonic() + seconds
        out, err = bytearray(), bytearray()
        try:
            _exchange(feed, stdin, {ours_out: out, ours_err: err}, end)
            if not select.select([sock], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(words), seconds, bytes(out), bytes(err)) from None
        return int(said.readline()), bytes(out), bytes(err)


def _exchange(feed: io.RawIOBase, data: bytes, outputs: Mapping[int, bytearray], end: float) -> None:
    """Write all input, and read all output."""
    os.set_blocking(feed.fileno(), False)
    rest = memoryview(data)
    with selectors.DefaultSelector() as selector:
        selector.register(feed, selectors.EVENT_WRITE)
        for descriptor in outputs:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(end - time.monotonic(), 0))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.fileobj is not feed:
                    piece = os.read(key.fd, _PIECE)
                    outputs[key.fd].extend(piece)
                    if not piece:
                        selector.unregister(key.fd)
                    continue
                try:
                    rest = rest[feed.write(rest[:_PIECE]) or 0 :]
                except BrokenPipeError:
                    rest = rest[:0]
                if not rest:
                    selector.unregister(feed)
                    feed.close()


# ---------------------------------------------------------------------------------------------------------- the program


def main() -> int:
    """Fork until standard input ends; in a run's own process, run it."""
    command = importlib.import_module("sshproto_cli.main")
    clients = [f"sshproto_io._{face}_client" for face in ("blocking", "asyncio", "trio")]
    servers = ["sshproto_io.server", *(f"sshproto_io._{face}_server" for face in ("asyncio", "trio"))]
    for module in ("sshproto_cli.exec", *clients, *servers):
        with contextlib.suppress(ImportError):  # whoever asks for what is missing is told so
            importlib.import_module(module)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(64)
        print("ready", flush=True)
        while True:
            if sys.stdin in select.select([sys.stdin, listener], [], [])[0]:
                return 0
            with listener.accept()[0] as sock:
                if os.fork() == 0:
                    listener.close()
                    words = _begin(sock)
                    return int(command.main(words))


def _begin(sock: socket.socket) -> list[str]:
    """Become the process of a run: its words. Another, which never returns, waits for it and says how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, rights, _, _ = sock.recvmsg(_LENGTH, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    descriptors = array.array("i", rights[0][2])
    with sock.makefile("rb") as reader:
        order = json.loads(reader.read(int.from_bytes(length, "big")))
    pid = os.fork()
    if pid:
        try:
            for descriptor in (0, 1, 2, *descriptors):
                os.close(descriptor)
            sock.sendall(b"%d\n" % pid)
            sock.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        finally:
            os._exit(0)
    sock.close()
    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["directory"])
    sys.argv = ["sshproto", *order["words"]]
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, buffering, encoding="utf-8", errors=errors, closefd=False)
        for number, mode, buffering, errors in (
            (0, "r", -1, "strict"),
            (1, "w", -1, "strict"),
            (2, "w", 1, "backslashreplace"),
        )
    )
    return list(order["words"])


if __name__ == "__main__":
    sys.exit(main())
