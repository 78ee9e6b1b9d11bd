"""A server under one of the faces, in a process of its own: what the conformance suite's clients talk to.

The handler is written once, as operations, so it is the same under every face; only :meth:`Commands.do_native` speaks
the face's own language.  As a program it prints its port, obeys the lines of its standard input (see :func:`_obey`) and
ends when that does.  What it writes to standard error is a failure: warnings are errors there, and ``bug`` reports.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import hashlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import attrs

from sshproto.channels.requests import ExitSignal, Shell, Signal, WindowChange
from sshproto.config import Limits, ServerConfig, Timeouts
from sshproto.keys import Permit, authorized_keys
from sshproto.keys.public import PublicKey
from sshproto.operations.agents import Agent
from sshproto.operations.serving import Handler
from sshproto.operations.steps import Operation, Sleep, Together
from sshproto.operations.x11_setup import Setup
from sshproto_io.sockets import dial
from tests.support.pattern import pieces
from tests.support.seeds import AUTHORITY_KEY, HOST, HOST_KEY, QUICK, USER_KEY

SECONDS = 30.0
"""The longest wait for the process to start, to answer, to end."""

FOREVER = 3600.0
PIECE = 64 * 1024
_MANY: Any = {"max_connections": 3000, "max_strangers": 3000, "backlog": 1024}
DELIBERATE = "a bug, on purpose"

_ROOT = Path(__file__).resolve().parents[2]


# ---------------------------------------------------------------------------------------------------------- the handler


RESTRICTED = authorized_keys.parse(
    'cert-authority,principals="alice",command="permitted",environment="FROM=a line",no-pty,no-agent-forwarding,'
    f'permitopen="served.example:*",permitlisten="localhost:*" {AUTHORITY_KEY.public_key.openssh()}'
)
"""What who logs in with a certificate may do."""


class Commands(Handler):
    """What the server does: a command's first word is the name of a method below."""

    def password(self, user: str, password: str, new_password: str | None) -> Any:
        return _undecided() if password == "undecided" else False

    def public_key(self, user: str, key: Any) -> bool:
        return bool(key == USER_KEY.public_key)

    def certificate(self, user: str, certificate: Any) -> Permit:
        return RESTRICTED.authorize(certificate, user, now=time.time())

    def allow_pty(self, session: Any, request: Any) -> bool:
        return True

    def allow_env(self, session: Any, name: str, value: bytes) -> bool:
        return True

    def allow_agent(self, session: Any) -> bool:
        return True

    def allow_x11(self, session: Any, request: Any) -> bool:
        return True

    def allow_program(self, session: Any) -> Any:
        command = getattr(session.program, "command", b"")
        if command == b"undecided":
            return _undecided()
        return command != b"refused" and getattr(session.program, "name", "echo") == "echo"

    def allow_connect(self, target: Any, origin: Any) -> Any:
        match target:
            case ("undecided.example", _):
                return _undecided()
            case ("refused.example", _):
                return False
            case ("served.example", _):
                return lambda stream: self.do_cat(stream.channel, None)
            case _:
                return True

    def allow_listen(self, address: Any) -> Any:
        match address:
            case ("undecided.example", _):
                return _undecided()
            case ("refused.example", _):
                return False
            case _:
                return True

    def bug(self, error: Exception) -> None:
        if str(error) != DELIBERATE:
            print(f"bug: {error!r}", file=sys.stderr, flush=True)

    def session(self, session: Any) -> Any:
        if session.subsystem is not None:
            return self.do_cat(session.channel, session)
        if isinstance(session.program, Shell):
            return self.do_shell(session.channel, session)
        name, *words = (session.command or b"").decode().split()
        return getattr(self, "do_" + name.replace("-", "_"))(session.channel, session, *words)

    # --------------------------------------------------------------------------------------------------- output, status

    def do_permitted(self, channel: Any, session: Any) -> Operation[int]:
        """What is run for who logs in with a certificate."""
        told = {"forced": session.permit.force_command, "provided": session.provided, "env": list(session.env)}
        yield from channel.write(json.dumps(told).encode())
        return 0

    def do_cat(self, channel: Any, session: Any) -> Operation[int]:
        """What came goes back."""
        while data := (yield from channel.read(PIECE)):
            yield from channel.write(data)
        return 0

    def do_true(self, channel: Any, session: Any) -> Operation[int]:
        yield from ()
        return 0

    def do_echo(self, channel: Any, session: Any, *words: str) -> Operation[int]:
        yield from channel.write((" ".join(words) + "\n").encode())
        return 0

    def do_exit(self, channel: Any, session: Any, status: str) -> Operation[int]:
        yield from ()
        return int(status)

    def do_signal(self, channel: Any, session: Any, name: str) -> Operation[ExitSignal]:
        yield from channel.write(b"before\n")
        return ExitSignal(name, False, "as you wished", "en")

    def do_stderr(self, channel: Any, session: Any, *words: str) -> Operation[int]:
        yield from channel.write(b"out\n")
        yield from channel.write((" ".join(words) + "\n").encode(), 1)
        return 3

    def do_env(self, channel: Any, session: Any) -> Operation[int]:
        lines = [b"%s=%s\n" % (name.encode(), value) for name, value in sorted(session.env.items())]
        yield from channel.write(b"".join(lines))
        return 0

    def do_pty(self, channel: Any, session: Any) -> Operation[int]:
        pty = session.pty
        text = "none\n" if pty is None else f"{pty.term} {pty.columns} {pty.rows}\n"
        yield from channel.write(text.encode())
        return 0

    def do_agent(self, channel: Any, session: Any) -> Operation[int]:
        """Lists the keys of the agent that the client has forwarded, and has each sign."""
        path = session.provided.get("SSH_AUTH_SOCK")
        if path is None:
            return 1
        agent = Agent((yield from dial(path)))
        try:
            for identity in (yield from agent.identities()):
                signature = yield from agent.sign(identity, b"what is signed")
                PublicKey.from_blob(identity.blob).verify(signature, b"what is signed", "ssh-ed25519")
                yield from channel.write(identity.comment.encode() + b"\n")
        finally:
            agent.close()
        return 0

    def do_x11(self, channel: Any, session: Any, count: str) -> Operation[int]:
        """Connects to the display that the client has forwarded, so often, and writes what it is told there."""
        display, cookie = session.display, session.display.cookie
        setup = Setup("little", 11, 0, b"", b"", 12).encode(cookie)
        for host in ("127.0.0.1", "::1", *["127.0.0.1"] * (int(count) - 2)):
            stream = yield from dial((host, 6000 + display.number))
            try:
                for start in range(0, len(setup), 10):
                    yield from stream.send(setup[start : start + 10])
                while data := (yield from stream.receive(100)):
                    yield from channel.write(data)
            finally:
                stream.close()
        return 0

    def do_bug(self, channel: Any, session: Any) -> Operation[int]:
        yield from ()
        raise RuntimeError(DELIBERATE)

    # ---------------------------------------------------------------------------------------------------------- amounts

    def do_produce(self, channel: Any, session: Any, size: str) -> Operation[int]:
        for piece in pieces(int(size)):
            yield from channel.write(piece)
        return 0

    def do_digest(self, channel: Any, session: Any) -> Operation[int]:
        """Reads all, writes its SHA-256."""
        hasher = hashlib.sha256()
        while data := (yield from channel.read(PIECE)):
            hasher.update(data)
        yield from channel.write(hasher.hexdigest().encode() + b"\n")
        return 0

    def do_both(self, channel: Any, session: Any, size: str) -> Operation[int]:
        """Reads all and produces at the same time; the SHA-256 goes to standard error."""
        hasher = hashlib.sha256()

        def take() -> Operation[None]:
            while data := (yield from channel.read(PIECE)):
                hasher.update(data)

        def give() -> Operation[None]:
            for piece in pieces(int(size)):
                yield from channel.write(piece)

        yield Together(take(), give())
        yield from channel.write(hasher.hexdigest().encode(), 1)
        return 0

    def do_slow(self, channel: Any, session: Any, size: str, seconds: str) -> Operation[int]:
        """Reads slowly, ``size`` bytes after every ``seconds``; writes how many bytes came in all."""
        count = 0
        while data := (yield from channel.read(int(size))):
            count += len(data)
            yield Sleep(float(seconds))
        yield from channel.write(f"{count}\n".encode())
        return 0

    def do_stall(self, channel: Any, session: Any) -> Operation[int]:
        """Reads nothing before a signal comes; then as ``digest``."""
        yield from channel.next_notice()
        return (yield from self.do_digest(channel, session))

    def do_flood(self, channel: Any, session: Any) -> Operation[int]:
        """Writes for ever, to both streams."""
        while True:
            for piece in pieces(64 * PIECE):
                yield from channel.write(piece)
                yield from channel.write(piece, 1)

    def do_numbers(self, channel: Any, session: Any, count: str) -> Operation[int]:
        """Lines with the numbers from 1 on."""
        yield from channel.write(b"".join(b"%d\n" % number for number in range(1, int(count) + 1)))
        return 0

    # ------------------------------------------------------------------------------------------------- ends and notices

    def do_late(self, channel: Any, session: Any, size: str) -> Operation[int]:
        """When all input has come, writes how much it was, and then produces."""
        data = yield from channel.read_all()
        yield from channel.write(f"{len(data)}\n".encode())
        return (yield from self.do_produce(channel, session, size))

    def do_early(self, channel: Any, session: Any) -> Operation[int]:
        """Ends its output first and reads then; the status is how much it was, modulo 200."""
        yield from channel.write(b"early\n")
        yield from channel.send_eof()
        count = 0
        while data := (yield from channel.read(PIECE)):
            count += len(data)
        return count % 200

    def do_deaf(self, channel: Any, session: Any) -> Operation[int]:
        """Ends without having read anything."""
        yield from channel.write(b"deaf\n")
        return 4

    def do_notices(self, channel: Any, session: Any) -> Operation[Any]:
        """Writes what it is told, a line for each, until a signal TERM comes, and ends by that."""
        yield from channel.write(b"ready\n")
        while (notice := (yield from channel.next_notice())) is not None:
            match notice:
                case Signal(name="TERM"):
                    return ExitSignal("TERM")
                case Signal(name=name):
                    yield from channel.write(f"signal {name}\n".encode())
                case WindowChange():
                    yield from channel.write(f"size {notice.columns} {notice.rows}\n".encode())
                case _:
                    yield from channel.write(f"{notice.type}\n".encode())
        return 0

    def do_sleep(self, channel: Any, session: Any, seconds: str) -> Operation[int]:
        yield Sleep(float(seconds))
        return 0

    def do_hang(self, channel: Any, session: Any) -> Operation[int]:
        """Says something, and then nothing, for ever."""
        yield from channel.write(b"hanging")
        yield Sleep(FOREVER)
        return 0

    def do_shell(self, channel: Any, session: Any) -> Operation[int]:
        """Answers lines, until ``exit STATUS``."""
        while line := (yield from channel.read_line()):
            word, *rest = line.split()
            if word == b"exit":
                return int(rest[0])
            yield from channel.write(b"you said: " + line)
        return 0

    def do_native(self, channel: Any, session: Any) -> Any:
        """Echoes lines through the face's own streams, in capitals, and says to standard error how many there were."""
        return _native_async(session) if hasattr(session.stdin, "read_line") else _native(session)


async def _native_async(session: Any) -> int:
    count = 0
    async for line in session.stdin.lines():
        await session.stdout.write(line.upper())
        count += 1
    await session.stderr.write(b"%d lines" % count)
    await session.stdout.send_eof()
    return 5


def _native(session: Any) -> int:
    count = 0
    for line in session.stdin:
        session.stdout.write(line.upper())
        count += 1
    session.stderr.write(b"%d lines" % count)
    session.stdout.close()
    return 5


def _undecided() -> Operation[bool]:
    """An answer that does not come, and is no."""
    yield Sleep(FOREVER)
    return False


# ---------------------------------------------------------------------------------------------------------- the program


@attrs.frozen
class State:
    """What a process has, and what it has used. Memory is in bytes.

    Attributes:
        connections, channels: Of the server.
        descriptors, threads, tasks: Of the process; tasks are 0 where there are none.
        base: Memory at the start, when everything was loaded.
        peak: The most since the last ``mark``, or since the start.
    """

    connections: int
    channels: int
    descriptors: int
    threads: int
    tasks: int
    base: int
    peak: int

    @property
    def growth(self) -> int:
        """By how much the peak is above the start."""
        return self.peak - self.base

    def within(self, idle: State) -> bool:
        """Whether there is no more than there was: what is done has left nothing."""
        return (
            self.connections <= idle.connections
            and self.channels <= idle.channels
            and self.descriptors <= idle.descriptors
            and self.threads <= idle.threads
            and self.tasks <= idle.tasks
        )


def memory(field: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {field}")


def reset_peak() -> None:
    """Have ``VmHWM`` start anew."""
    Path("/proc/self/clear_refs").write_text("5")


def descriptors() -> list[int]:
    """Those that are open."""
    numbers = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    return [number for number in numbers if _is_open(number)]  # not the one that listed them


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def threads() -> list[threading.Thread]:
    """Those that run, without what the event loops keep to look up names."""
    pools = ("asyncio_", "Trio ")
    return [thread for thread in threading.enumerate() if not thread.name.startswith(pools)]


def trio_tasks() -> int:
    """How many tasks there are, the system's included."""
    import trio

    waiting, count = [trio.lowlevel.current_root_task()], 0
    while waiting:
        task = waiting.pop()
        if task is not None:
            count += 1
            waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return count


def _state(connections: Sequence[Any], base: int, tasks: int = 0) -> State:
    return State(
        connections=len(connections),
        channels=sum(len(connection.hub.channels) for connection in connections),
        descriptors=len(descriptors()),
        threads=len(threads()),
        tasks=tasks,
        base=base,
        peak=memory("VmHWM"),
    )


def _obey(report: Callable[[], State]) -> None:
    """Do what the lines of standard input say, to their end: ``state`` prints the :class:`State` as JSON, ``mark`` has
    the peak of the memory start anew and prints it as well."""
    for line in sys.stdin:
        if line.strip() == "mark":
            gc.collect()
            reset_peak()
        print(json.dumps(attrs.asdict(report())), flush=True)


def _ready(server: Any) -> int:
    print(server.port, flush=True)
    gc.collect()
    reset_peak()
    return memory("VmRSS")


def _serve_asyncio(config: ServerConfig) -> None:
    from sshproto_io.asyncio import listen

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = SECONDS
        async with listen(HOST, 0, config, lambda incoming: Commands(), **_MANY) as it:
            base = _ready(it)

            async def state() -> State:
                return _state(tuple(it.connections), base, len(asyncio.all_tasks()))

            await asyncio.to_thread(_obey, lambda: asyncio.run_coroutine_threadsafe(state(), loop).result(SECONDS))

    asyncio.run(main())


def _serve_blocking(config: ServerConfig) -> None:
    from sshproto_io.blocking import listen

    with listen(HOST, 0, config, lambda incoming: Commands(), **_MANY) as it:
        base = _ready(it)
        _obey(lambda: _state(tuple(it._connections), base))


def _serve_trio(config: ServerConfig) -> None:
    import trio

    from sshproto_io.trio import listen

    async def main() -> None:
        async with listen(HOST, 0, config, lambda incoming: Commands(), **_MANY) as it:
            base = _ready(it)

            def state() -> State:
                return _state(tuple(it.connections), base, trio_tasks())

            await trio.to_thread.run_sync(_obey, lambda: trio.from_thread.run_sync(state))

    trio.run(main, strict_exception_groups=True)


def server_config(*, rekey_bytes: int = 2**30, keepalive: float | None = None) -> ServerConfig:
    """A server that costs little, and lets a client do much."""
    return ServerConfig(
        host_keys=(HOST_KEY,),
        auth_methods=("publickey", "password"),
        preferences=QUICK,
        limits=Limits(
            sessions=3000, channels_from_peer=3000, opens_pending=3000, peer_rekeys=10**6, rekey_bytes=rekey_bytes
        ),
        timeouts=Timeouts(keepalive=keepalive, keepalive_count=2),
        debug_raise=True,
    )


_SERVE = {"asyncio": _serve_asyncio, "blocking": _serve_blocking, "trio": _serve_trio}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--face", choices=sorted(_SERVE), required=True)
    parser.add_argument("--rekey-bytes", type=int, default=2**30)
    parser.add_argument("--keepalive", type=float)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    _SERVE[arguments.face](server_config(rekey_bytes=arguments.rekey_bytes, keepalive=arguments.keepalive))


# ------------------------------------------------------------------------------------------------------- for the tests


class Served:
    """A server that runs.

    Attributes:
        face: Its name.
        port: Where it listens.
    """

    def __init__(self, face: str, process: subprocess.Popen[str], errors: IO[bytes]) -> None:
        self.face = face
        self._process = process
        self._errors = errors
        self._reader: IO[str] = process.stdout  # type: ignore[assignment]
        self._writer: IO[str] = process.stdin  # type: ignore[assignment]
        self.port = int(self._line())
        self.idle = self._at_rest()

    def __repr__(self) -> str:
        return f"<Served by {self.face}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    def state(self, *, mark: bool = False) -> State:
        """What it has; ``mark`` has the peak of its memory start anew."""
        self._writer.write("mark\n" if mark else "state\n")
        self._writer.flush()
        return State(**json.loads(self._line()))

    def settle(self, seconds: float = 5.0) -> State:
        """Wait until nothing is left of what was done: as few threads, descriptors and so on as at first."""
        deadline = time.monotonic() + seconds
        while not (state := self.state()).within(self.idle):
            assert time.monotonic() < deadline, f"left over at the server: {state}, was {self.idle}"
            time.sleep(0.02)
        return state

    def pause(self) -> None:
        """Have it stand still."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait(SECONDS)

    def stop(self) -> None:
        """Have it end, as it should."""
        with contextlib.suppress(BrokenPipeError):
            self._writer.close()
        self._process.wait(SECONDS)

    def end(self) -> None:
        """The same, unless it has ended; and see that it has not complained."""
        killed = self._process.poll() == -signal.SIGKILL
        try:
            self.stop()
            status = self._process.returncode
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # faulthandler says where it hangs
            self._process.wait(SECONDS)
            status = -signal.SIGABRT
        self._errors.seek(0)
        complaints = self._errors.read().decode(errors="replace")
        assert not complaints, f"the {self.face} server says:\n{complaints[-6000:]}"
        assert killed or status == 0, f"the {self.face} server ended with status {status}"

    def _at_rest(self) -> State:
        """What it has when it has started, all its threads included."""
        before, state = None, self.state()
        while before is None or not (before.within(state) and state.within(before)):
            time.sleep(0.02)
            before, state = state, self.state()
        return state

    def _line(self) -> str:
        ready, _, _ = select.select([self._reader], [], [], SECONDS)
        line = self._reader.readline() if ready else ""
        if not line:
            self._errors.seek(0)
            complaints = self._errors.read().decode(errors="replace")
            raise AssertionError(f"the {self.face} server does not answer:\n{complaints[-6000:]}")
        return line


def strict(argv: Sequence[str], *, debug: bool = False) -> tuple[list[str], dict[str, str]]:
    """A command line and an environment that run a module of ours with warnings as errors."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    environment["PYTHONPATH"] = os.pathsep.join((str(_ROOT), str(_ROOT / "adapters")))
    environment["PYTHONFAULTHANDLER"] = "1"
    if debug:
        environment["PYTHONASYNCIODEBUG"] = "1"
    return [sys.executable, "-W", "error", "-m", *argv], environment


@contextlib.contextmanager
def serving(face: str, *options: str, debug: bool = False) -> Iterator[Served]:
    """A server of that face until the block is left; ``options`` are the program's."""
    argv, environment = strict(["tests.support.faceserver", "--face", face, *options], debug=debug)
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=_ROOT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            served = Served(face, process, errors)
            try:
                yield served
            finally:
                served.end()
        finally:
            process.kill()


if __name__ == "__main__":
    main()
