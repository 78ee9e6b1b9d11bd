"""OpenSSH's programs: ``ssh`` as they are, and ``sshd -i`` for each connection.

Both are processes that come and go, so their processor time is known when they have ended: a transfer's is that of the
whole process, of which whoever is in charge takes away what a small one takes.  What ``sshd`` starts (a shell,
``head``, ``cat``) is in its figure.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.ends import HOST, KEX, Job, Setting, pieces, say

_PATIENCE = 10.0


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _lines(setting: Setting) -> list[str]:
    """Algorithms, in the words of both configuration files."""
    cipher, mac = setting.algorithms
    return [f"KexAlgorithms {KEX}", f"Ciphers {cipher}", *([f"MACs {mac}"] if mac else []), "Compression no"]


# --------------------------------------------------------------------------------------------------------------- server


def serve(setting: Setting) -> None:
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd jails itself
    keys = Path(setting.keys)
    config = keys / f"sshd_config-{os.getpid()}"
    lines = [
        *_lines(setting),
        f"HostKey {keys}/host_key",
        f"AuthorizedKeysFile {keys}/user_key.pub",
        "StrictModes no",
        "PermitRootLogin yes",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PrintMotd no",
        "PrintLastLog no",
        "UseDNS no",
        "PidFile none",
        "LogLevel QUIET",
        "MaxSessions 200",
        "SetEnv SHLVL=1",  # or bash reads the user's .bashrc before each command that comes from sshd
    ]
    config.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    listener = socket.create_server((HOST, 0), backlog=128)
    running: set[subprocess.Popen[bytes]] = set()

    def wait(process: subprocess.Popen[bytes]) -> None:
        process.wait()
        running.discard(process)

    def accept() -> None:
        while True:
            with listener.accept()[0] as sock:
                argv = [program, "-i", "-f", str(config)]
                process = subprocess.Popen(argv, stdin=sock, stdout=sock, stderr=subprocess.DEVNULL)
            running.add(process)
            threading.Thread(target=wait, args=(process,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    say(port=listener.getsockname()[1])
    for line in sys.stdin:
        if '"settled"' in line:
            deadline = time.monotonic() + _PATIENCE
            while running and time.monotonic() < deadline:
                time.sleep(0.01)
        say(cpu=_children(), wall=time.monotonic(), memory=0)


# --------------------------------------------------------------------------------------------------------------- client


class Ssh:
    """``ssh``, with what it needs.

    Args:
        setting: Keys and algorithms.
    """

    def __init__(self, setting: Setting) -> None:
        keys = Path(setting.keys)
        config = keys / f"ssh_config-{os.getpid()}"
        known = keys / f"known_hosts-{os.getpid()}"
        known.write_text(f"bench {setting.key('host_key.pub').decode()}", encoding="ascii")
        lines = [
            *_lines(setting),
            f"HostName {HOST}",
            f"Port {setting.port}",
            f"User {setting.user}",
            f"IdentityFile {keys}/user_key",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {known}",
            "GlobalKnownHostsFile /dev/null",
            "HostKeyAlias bench",
            "StrictHostKeyChecking yes",
            "UpdateHostKeys no",
            "BatchMode yes",
            "LogLevel ERROR",
        ]
        config.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        self.argv = ["ssh", "-F", str(config)]

    def __call__(self, *words: str, feed: int = 0, check: bool = True, **more: Any) -> None:
        """Run it, with so many bytes to read from a pipe, which is filled here."""
        given = {"stdin": subprocess.PIPE if feed else subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **more}
        with subprocess.Popen([*self.argv, *words], **given) as process:
            if process.stdin is not None:
                for piece in pieces(feed):
                    process.stdin.write(piece)
                process.stdin.close()
            try:
                process.wait(100)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        if check and process.returncode:
            raise AssertionError(f"ssh ended with status {process.returncode}")


@contextlib.contextmanager
def _timed(job: Job, master: int = 0) -> Iterator[None]:
    """As a job's own ``timed``, with the processor time of what was started, and of a process that runs on."""
    say(ready=True)
    sys.stdin.readline()
    cpu, wall = _children() + _of(master), time.monotonic()
    yield
    cpu, wall = _children() + _of(master) - cpu, time.monotonic() - wall
    say(cpu=cpu, wall=wall, memory=0)
    sys.stdin.readline()


def _of(pid: int) -> float:
    """Processor seconds of a process that runs; 0 is none."""
    if not pid:
        return 0.0
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    return 0.0


def drive(setting: Setting, jobs: Iterable[Job]) -> None:
    ssh = Ssh(setting)
    for job in jobs:
        match job.work:
            case "connect":
                # A subsystem that there is not: the shortest thing that ssh does after a login.
                with _timed(job):
                    for _ in range(job.amount):
                        ssh("-s", "bench", "nothing", check=False, stderr=subprocess.DEVNULL)
            case "exec":
                _execs(ssh, job)
            case _:
                _transfer(ssh, job)


def _transfer(ssh: Ssh, job: Job) -> None:
    command = job.command(job.work, job.amount)
    with _timed(job):
        ssh("bench", command, feed=job.amount if job.work == "upload" else 0)


def _execs(ssh: Ssh, job: Job) -> None:
    """Over a master, which has the connection; each command is a process of its own."""
    with tempfile.TemporaryDirectory(prefix="ssh") as directory:  # a short path, as sockets want it
        path = f"{directory}/master"
        argv = [*ssh.argv, "-M", "-N", "-S", path, "bench"]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as master:
            try:
                deadline = time.monotonic() + _PATIENCE
                while not Path(path).exists() and time.monotonic() < deadline:
                    time.sleep(0.01)
                with _timed(job, master.pid):
                    for _ in range(job.amount):
                        ssh("-S", path, "bench", job.command("true"))
            finally:
                master.terminate()
                try:
                    master.wait(2)
                except subprocess.TimeoutExpired:  # it does not always hear
                    master.kill()
