"""Who is measured, and how a pair of processes is made to work."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import attrs

from tests.bench.ends import Setting
from tests.bench.works import Work

_ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0


class Failed(Exception):
    """An end does not do what it is told."""


@attrs.frozen
class Kind:
    """A kind of end.

    Attributes:
        module: In ``tests.bench.ends``.
        needs: Modules of Python, or programs with a ``$`` before the name, without which it cannot run.
        whole: Its server costs a process for each connection, whose processor time is known when it has ended.
        works: What it can do; all if empty.
        ciphers: Under what; all if empty.
    """

    module: str
    needs: tuple[str, ...] = ()
    whole: bool = False
    works: frozenset[str] = frozenset()
    ciphers: frozenset[str] = frozenset()


_NO_CHANNELS = frozenset({"download", "upload", "connect", "exec", "exec50", "connections"})

KINDS = {
    "asyncio": Kind("ours_asyncio"),
    "blocking": Kind("ours_blocking"),
    "trio": Kind("ours_trio", ("trio",)),
    "floor": Kind("floor_asyncio", works=_NO_CHANNELS),
    "floor-blocking": Kind("floor_blocking", works=_NO_CHANNELS),
    "asyncssh": Kind("peer_asyncssh", ("asyncssh",)),
    "asyncssh-stream": Kind("peer_asyncssh_stream", ("asyncssh",)),
    "paramiko": Kind("peer_paramiko", ("paramiko",), ciphers=frozenset({"aes128-gcm", "aes256-ctr+etm"})),
}


@attrs.frozen
class Pair:
    """A client and a server.

    Attributes:
        name: What ``--peers`` calls it.
        client, server: Their kinds.
        works: What it is measured at; all if empty.
        beside: Who it is compared with.
    """

    name: str
    client: str
    server: str
    works: frozenset[str] = frozenset()
    beside: str = "asyncssh"

    def lacks(self) -> str | None:
        """What this machine lacks for it."""
        for kind in (KINDS[self.client], KINDS[self.server]):
            for need in kind.needs:
                if not _there(need):
                    return need.lstrip("$")
        return None

    def does(self, work: Work) -> bool:
        jobs = (self.works, KINDS[self.client].works, KINDS[self.server].works)
        ciphers = (KINDS[self.client].ciphers, KINDS[self.server].ciphers)
        return all(not each or work.job in each for each in jobs) and all(
            not each or work.cipher in each for each in ciphers
        )


def _there(need: str) -> bool:
    if need.startswith("$"):
        return shutil.which(need[1:]) is not None
    return importlib.util.find_spec(need) is not None


PAIRS = (
    Pair("floor", "floor", "floor", frozenset()),
    Pair("floor-blocking", "floor-blocking", "floor-blocking"),
    Pair("asyncio", "asyncio", "asyncio"),
    Pair("blocking", "blocking", "blocking", beside="paramiko"),
    Pair("trio", "trio", "trio", beside="asyncio"),
    Pair("asyncssh", "asyncssh", "asyncssh"),
    Pair("asyncssh-stream", "asyncssh-stream", "asyncssh-stream"),
    Pair("paramiko", "paramiko", "paramiko"),
)


class End:
    """A process of ours or of a peer."""

    def __init__(self, kind: str, role: str, setting: Setting) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in stop
        self._name = f"{kind} {role}"
        self._process = subprocess.Popen(
            _argv(kind, role, setting),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(_ROOT), str(_ROOT / "adapters")))},
        )

    def tell(self, **words: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
            self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next line of what it says; each is waited for before it is told more, so no line waits unread."""
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], PATIENCE)
        line = stdout.readline() if ready else b""
        if not line:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip()
            raise Failed(f"{self._name} {'says nothing more' if ready else 'does not answer'}: {said[-2000:]}")
        words: dict[str, Any] = json.loads(line)
        return words

    def ask(self, **words: Any) -> dict[str, Any]:
        self.tell(**words)
        return self.hear()

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._errors.close()


def _argv(kind: str, role: str, setting: Setting) -> list[str]:
    module = KINDS[kind].module
    return [sys.executable, "-m", "tests.bench.ends", module, role, json.dumps(attrs.asdict(setting))]


class Running:
    """A pair that runs under one cipher.

    Args:
        pair: Which.
        setting: Its keys and cipher.
    """

    def __init__(self, pair: Pair, setting: Setting) -> None:
        self.pair = pair
        self._whole = KINDS[pair.server].whole
        self._server = End(pair.server, "server", setting)
        self._client: End | None = None
        try:
            port = self._server.hear()["port"]
            self._client = End(pair.client, "client", attrs.evolve(setting, port=port))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for end in (self._client, self._server):
            if end is not None:
                end.stop()

    def measure(self, work: Work, amount: int) -> dict[str, float]:
        """Do it once; what it took for one of whatever is counted."""
        sample = self._do(work, amount)
        if self._whole and work.job != "connect":
            sample["server"] -= self._do(work, 0)["server"]
        count = amount - work.already
        done = {side: sample[side] / count * work.scale for side in ("client", "server")}
        if not work.already:
            done["wall"] = sample["wall"] / count * work.scale
            done["both"] = done["client"] + done["server"]
        if work.group == "bulk":
            done["rate"] = count / sample["wall"] / 1e6
        return done

    def _do(self, work: Work, amount: int) -> dict[str, float]:
        server, client = self._server, self._client
        assert client is not None
        what = work.measures
        warming = 0 if self._whole else work.warming
        first = server.ask()[what]
        client.tell(work=work.job, amount=amount, warming=warming, already=work.already)
        client.hear()
        before = server.ask()[what]
        took = client.ask()
        after = server.ask()[what]
        client.tell()
        client.hear()
        if self._whole:  # its processes have ended now
            before, after = first, server.ask()[what]
        return {"client": took[what], "server": after - before, "wall": took["wall"]}


Log = Callable[[str], None]
