"""Who is measured, and how a pair of processes is made to work."""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import attrs

from tests.bench.ends import KEX, Setting
from tests.bench.works import Work

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0

_PEERS = Path(__file__).parent / "peers"

ONE_CORE = hasattr(os, "sched_setaffinity")
"""Whether processes can be kept to one core here."""


class Failed(Exception):
    """An end does not do what it is told."""


class Lacking(Exception):
    """This machine lacks something that a pair needs."""


@attrs.frozen
class Kind:
    """A kind of end.

    Attributes:
        module: In ``tests.bench.ends``; or a file in ``tests/bench/peers``.
        needs: Modules of Python, or programs with a ``$`` before the name, without which it cannot run.
        whole: It costs processes whose processor time is known when they have ended.
        works: What it can do; all if empty.
        ciphers: Under what; all if empty.
    """

    module: str
    needs: tuple[str, ...] = ()
    whole: bool = False
    works: frozenset[str] = frozenset()
    ciphers: frozenset[str] = frozenset()


_BULK = frozenset({"download", "upload"})
_SMALL = frozenset({"connect", "exec", "exec50"})
_BUSY = _BULK | _SMALL

KINDS = {
    "asyncio": Kind("ours_asyncio"),
    "blocking": Kind("ours_blocking"),
    "trio": Kind("ours_trio", ("trio",)),
    "floor": Kind("floor_asyncio", works=_BUSY),
    "floor-blocking": Kind("floor_blocking", works=_BUSY),
    "floor-trio": Kind("floor_trio", ("trio",), works=_BUSY),
    "script": Kind("script_asyncio", works=_SMALL, ciphers=frozenset({"aes128-gcm"})),
    "script-blocking": Kind("script_blocking", works=_SMALL, ciphers=frozenset({"aes128-gcm"})),
    "asyncssh": Kind("peer_asyncssh", ("asyncssh",)),
    "asyncssh-stream": Kind("peer_asyncssh_stream", ("asyncssh",)),
    "paramiko": Kind("peer_paramiko", ("paramiko",), ciphers=frozenset({"aes128-gcm", "aes256-ctr+etm"})),
    "openssh": Kind("peer_openssh", ("$ssh", "$sshd"), whole=True, works=_BULK | {"connect", "exec"}),
    "go": Kind("peer.go", ("$go",)),
    "node": Kind("peer.js", ("$node",)),
}


@attrs.frozen
class Pair:
    """A client and a server.

    Attributes:
        name: What ``--peers`` calls it.
        client, server: Their kinds.
        works: What it is measured at; all if empty.
        beside: Whom it is compared with.
        floor: The floor under it.
    """

    name: str
    client: str
    server: str
    works: frozenset[str] = frozenset()
    beside: str = "asyncssh"
    floor: str = "floor"

    @property
    def kinds(self) -> tuple[Kind, Kind]:
        return KINDS[self.client], KINDS[self.server]

    def does(self, work: Work) -> bool:
        """Whether that is measured of it."""
        jobs = (self.works, *(kind.works for kind in self.kinds))
        ciphers = [kind.ciphers for kind in self.kinds]
        return all(not each or work.job in each for each in jobs) and all(
            not each or work.cipher in each for each in ciphers
        )


PAIRS = (
    Pair("floor", "floor", "floor"),
    Pair("floor-blocking", "floor-blocking", "floor-blocking"),
    Pair("floor-trio", "floor-trio", "floor-trio"),
    Pair("script", "script", "script"),
    Pair("script-blocking", "script-blocking", "script-blocking", beside="paramiko", floor="floor-blocking"),
    Pair("asyncio", "asyncio", "asyncio"),
    Pair("blocking", "blocking", "blocking", beside="paramiko", floor="floor-blocking"),
    Pair("trio", "trio", "trio", beside="asyncio", floor="floor-trio"),
    Pair("asyncssh", "asyncssh", "asyncssh"),
    Pair("asyncssh-stream", "asyncssh-stream", "asyncssh-stream"),
    Pair("paramiko", "paramiko", "paramiko", floor="floor-blocking"),
    Pair("openssh", "openssh", "openssh"),
    Pair("asyncio-openssh", "asyncio", "openssh", _BULK, beside="openssh"),
    Pair("openssh-asyncio", "openssh", "asyncio", _BULK, beside="openssh"),
    Pair("go", "go", "go"),
    Pair("node", "node", "node"),
)

BY_NAME = {pair.name: pair for pair in PAIRS}

SHOWN = {
    "floor": "the floor, asyncio's sockets",
    "floor-blocking": "the floor, blocking sockets",
    "floor-trio": "the floor, Trio's sockets",
    "script": "SSH by a script, asyncio's sockets",
    "script-blocking": "SSH by a script, blocking sockets",
    "asyncio": "**sshproto_io.asyncio**",
    "blocking": "**sshproto_io.blocking**",
    "trio": "**sshproto_io.trio**",
    "asyncssh-stream": "asyncssh, streams",
    "openssh": "OpenSSH",
    "asyncio-openssh": "sshproto_io.asyncio → OpenSSH",
    "openssh-asyncio": "OpenSSH → sshproto_io.asyncio",
    "go": "Go x/crypto/ssh",
    "node": "node ssh2",
}
"""What tables call them, where it is not the name."""


class Toolbox:
    """What runs ends: interpreters, and a program that is built.

    Args:
        scratch: A directory for it.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._built: list[str] | None = None

    def check(self, pair: Pair) -> None:
        """See that a pair can run.

        Raises:
            Lacking: It cannot.
        """
        for name in (pair.client, pair.server):
            for need in KINDS[name].needs:
                if not _there(need):
                    raise Lacking(f"{need.lstrip('$')} is not installed")
            self.argv(name)

    def argv(self, name: str) -> list[str]:
        """How a kind of end is run; its role and setting follow."""
        module = KINDS[name].module
        if module.endswith(".go"):
            return self._go(_PEERS / module)
        if module.endswith(".js"):
            done = subprocess.run(["node", "-e", "require('ssh2')"], capture_output=True, check=False)
            if done.returncode:
                raise Lacking("its package ssh2 is not to be found (NODE_PATH says where to look)")
            return ["node", str(_PEERS / module)]
        return [sys.executable, "-m", "tests.bench.ends", module]

    def _go(self, source: Path) -> list[str]:
        if self._built is None:
            program = str(self._scratch / "peer-go")
            # As distributions package Go's libraries: sources in a common place, and no modules.
            path = os.pathsep.join(filter(None, (os.environ.get("GOPATH"), "/usr/share/gocode")))
            environment = {**os.environ, "GO111MODULE": "off", "GOPATH": path}
            argv = ["go", "build", "-o", program, str(source)]
            done = subprocess.run(argv, env=environment, capture_output=True, check=False, cwd=self._scratch)
            if done.returncode:
                raise Lacking("golang.org/x/crypto/ssh is not to be found (Debian: golang-golang-x-crypto-dev)")
            self._built = [program]
        return self._built


def _there(need: str) -> bool:
    if need.startswith("$"):
        return shutil.which(need[1:], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin") is not None
    return importlib.util.find_spec(need) is not None


def environment() -> dict[str, str]:
    """For processes that import this checkout, and keep it compiled, as what is installed is."""
    found = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "adapters")))}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


@contextlib.contextmanager
def _on_one_core() -> Iterator[None]:
    """What is started meanwhile keeps to the last core that we may use, with all that it starts itself."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


class End:
    """A process of ours or of a peer."""

    def __init__(self, argv: list[str], name: str, *, together: bool = False) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in close
        self._name = name
        with _on_one_core() if together else contextlib.nullcontext():
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd=ROOT, env=environment()
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

    def close(self) -> None:
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


def _setting(kind: Kind, setting: Setting) -> str:
    words = attrs.asdict(setting)
    if not kind.module.startswith(("ours", "floor", "script", "peer_")):  # other languages get the names themselves
        cipher, mac = setting.algorithms
        words.update(cipher=cipher, mac=mac or "", kex=KEX)
    return json.dumps(words)


class Running:
    """A pair that runs under one cipher.

    Args:
        pair: Which.
        setting: Its keys and cipher.
        tools: What runs it.
        together: Have both ends on one core.
    """

    def __init__(self, pair: Pair, setting: Setting, tools: Toolbox, *, together: bool = False) -> None:
        self.pair = pair
        self._whole = any(kind.whole for kind in pair.kinds)
        self._shell = pair.server == "openssh"
        self._ends: list[End] = []
        if self._shell:
            setting = attrs.evolve(setting, user=getpass.getuser())
        try:
            for name, role in ((pair.server, "server"), (pair.client, "client")):
                argv = [*tools.argv(name), role, _setting(KINDS[name], setting)]
                self._ends.append(End(argv, f"the {role} {name}", together=together))
                if role == "server":
                    setting = attrs.evolve(setting, port=self._ends[0].hear()["port"])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End both."""
        for end in reversed(self._ends):
            end.close()

    def measure(self, work: Work, amount: int) -> dict[str, float]:
        """Do it once; what it took for one of whatever is counted."""
        if self._whole and work.job != "connect":
            # All that it costs, without what the beginning costs: the processes, and the first bytes of all.
            beginning = self._do(work, work.warming)
            sample = self._do(work, amount + work.warming)
            sample = {name: max(value - beginning[name], 1e-9) for name, value in sample.items()}
        else:
            sample = self._do(work, amount)
        count = amount - work.already
        done = {side: sample[side] / count * work.scale for side in ("client", "server")}
        if not work.already:
            done["wall"] = sample["wall"] / count * work.scale
            done["both"] = done["client"] + done["server"]
        if work.group == "bulk":
            done["rate"] = count / sample["wall"] / 1e6
        return done

    def _do(self, work: Work, amount: int) -> dict[str, float]:
        server, client = self._ends
        what = work.measures
        warming = 0 if self._whole else work.warming
        first = server.ask()[what]
        client.tell(work=work.job, amount=amount, warming=warming, already=work.already, shell=self._shell)
        client.hear()
        before = server.ask()[what]
        took = client.ask()
        after = server.ask()[what]
        client.tell()
        client.hear()
        if self._whole:  # its processes have ended now
            before, after = first, server.ask(settled=True)[what]
        return {"client": took[what], "server": after - before, "wall": took["wall"]}
