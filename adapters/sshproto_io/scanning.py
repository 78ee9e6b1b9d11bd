"""Many captures to rows, in several processes.

:func:`scan` reads each capture by itself and gives what :mod:`sshproto.replay.rows` makes of it, in the order in which
the captures were named, however many processes there are.  What is wrong with one does not stop the rest, not even
that its process dies.

Each process has a pipe, and reads what it is given in order: so it is known which capture a process dies of, and a
caller who stops listening stops them all at once.  A pool of :mod:`concurrent.futures` knows neither.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import attrs

from sshproto.errors import InvalidArgument, SSHError
from sshproto.replay.analysis import PORTS, AnalysisLimits, Conversation
from sshproto.replay.rows import EventRows, Row, connection_row
from sshproto.replay.secrets import Secrets
from sshproto.text import printable
from sshproto.values import define, frozen
from sshproto_io.captures import STANDARD_INPUT, conversations

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from sshproto.replay.events import Observed
    from sshproto.replay.findings import Policy

_Path: TypeAlias = "str | os.PathLike[str]"

_AHEAD = 32
"""So many captures for each process are read before the turn of their rows comes."""

_DEPTH = 16
_ENOUGH = 1 << 20
"""A process that has so many captures before it, or such long ones in bytes, is given no more: small ones don't make it
wait for who listens, and a long one is not waited for by those that another process could read."""

_PATIENCE = 5
"""Seconds that a process has to end when it is told to."""


class View(Protocol):
    """What a connection comes to, if that is not to be its row: one of the conversation's sinks."""

    def add(self, seen: Observed, /) -> None: ...

    def row(self) -> Row:
        """What it has come to: plain values by names, the connection's number among them as ``"connection"``."""
        ...


class ScanFailed(SSHError):
    """The processes can't do their work, whatever the capture."""


@frozen
class Scanned:
    """What one capture comes to.

    Attributes:
        names: Its file, or files if it was rotated.
        connections: A row for each connection, in the order of their numbers; see
            :data:`~sshproto.replay.rows.CONNECTION_COLUMNS`. Its ``capture`` is the file that it begins in. If there
            is a view, they are what that makes of connections.
        events: A row for each event, if they were asked for; see :data:`~sshproto.replay.rows.EVENT_COLUMNS`.
        problems: What went wrong, in words that begin with a file's name. The rows are those of what stands before.
    """

    names: tuple[str, ...]
    connections: tuple[Row, ...] = ()
    events: tuple[Row, ...] = ()
    problems: tuple[str, ...] = ()


@frozen(kw_only=True)
class _Setup:
    secrets: Secrets | None
    events: bool
    policy: Policy | None
    ports: frozenset[int]
    limits: AnalysisLimits | None
    view: Callable[[Conversation], View] | None = None


def scan(
    captures: Iterable[_Path | Iterable[_Path]],
    *,
    jobs: int | None = 1,
    secrets: Secrets | None = None,
    events: bool = False,
    view: Callable[[Conversation], View] | None = None,
    policy: Policy | None = None,
    ports: Collection[int] = PORTS,
    limits: AnalysisLimits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Scanned]:
    """The rows of many captures, in the order of the captures.

    Captures know nothing of each other: connections do not go on from one to the next, and what comes twice is found
    within one only. Files of one capture that was rotated are named together, as a list.

    With more than one job, the caller's main module is imported in each process, as :mod:`multiprocessing` does it: a
    script that calls this needs its ``if __name__ == "__main__":``. Closing the iterator ends all processes at once; so
    does an exception in the caller, such as Ctrl-C.

    Args:
        captures: The files. For each capture its name, or a list of names in the order of time.
        jobs: How many processes; 1 reads in this one, None takes one for each processor that there is.
        secrets: What opens the connections; key logs that stand in a capture are added, for it alone.
        events: Make the rows of events, too. A capture's are held in memory, all of them.
        view: Called with each conversation that begins: makes something else of it than its row. With more than one job
            it is a class or function that has a name in its module.
        policy: What is expected of the connections.
        ports: Where SSH is expected of what began before the recording.
        limits: Bounds, for each capture.
        progress: Called with the bytes of the captures that are done, and of all.

    Raises:
        InvalidArgument: ``jobs`` is less than 1; ``captures`` is a single name; ``secrets`` or ``view`` can't go to
            another process, as a function without a name.
        ScanFailed: The processes do not start. (Raised by the iterator.)
    """
    if isinstance(captures, str | bytes):  # its letters would be taken for names
        raise InvalidArgument(f"captures is a list of names, not {captures!r}")
    if jobs is None:
        jobs = _processors()
    if jobs < 1:
        raise InvalidArgument(f"jobs is 1 or more, not {jobs}")
    groups = [_names(capture) for capture in captures]
    setup = _Setup(secrets=secrets, events=events, view=view, policy=policy, ports=frozenset(ports), limits=limits)
    jobs = min(jobs, len(groups))
    if jobs > 1:
        try:
            pickle.dumps(setup)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InvalidArgument(f"the secrets or the view can't go to other processes: {error}") from error
    found = _in_processes(groups, jobs, setup) if jobs > 1 else (_read(names, setup) for names in groups)
    return _with_progress(found, groups, progress) if progress is not None else found


def _processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _names(capture: _Path | Iterable[_Path]) -> tuple[str, ...]:
    if isinstance(capture, str | os.PathLike):
        return (os.fspath(capture),)
    return tuple(os.fspath(path) for path in capture)


def _with_progress(
    found: Iterator[Scanned], groups: list[tuple[str, ...]], progress: Callable[[int, int], None]
) -> Iterator[Scanned]:
    sizes = [sum(map(_size, names)) for names in groups]
    done, total = 0, sum(sizes)
    for size, scanned in zip(sizes, found, strict=True):
        done += size
        progress(done, total)
        yield scanned


def _size(name: str) -> int:
    """The size of a file; 0 if it has none."""
    try:
        about = Path(name).stat()
    except OSError:  # told when its turn comes
        return 0
    return about.st_size if stat.S_ISREG(about.st_mode) else 0


# ---------------------------------------------------------------------------------------------------------- one capture


def _read(names: tuple[str, ...], setup: _Setup) -> Scanned:
    """One capture; everything that is wrong with it is among its problems."""
    rows: list[Row] = []
    events: list[Row] = []
    problems: list[str] = []
    views: dict[int, View] = {}

    def ask(conversation: Conversation) -> None:
        if setup.events:
            conversation.sinks.append(EventRows(conversation, events.append))
        if setup.view is not None:
            view = views[conversation.connection.number] = setup.view(conversation)
            conversation.sinks.append(view)

    def damaged(name: str, error: SSHError) -> None:
        problems.append(f"{printable(name)}: {error}")

    try:
        for conversation in conversations(
            names,
            rotated=True,
            secrets=None if setup.secrets is None else setup.secrets.copy(),
            ask=ask,
            policy=setup.policy,
            ports=setup.ports,
            limits=setup.limits,
            on_damage=damaged,
            on_key_log_error=damaged,
        ):
            view = views.pop(conversation.connection.number, None)
            rows.append(connection_row(conversation) if view is None else view.row())
    except OSError as error:
        problems.append(f"{printable(str(error.filename or names[0]))}: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001  the other captures are as good as ever
        problems.append(f"{printable(names[0])}: internal error, {type(error).__name__}: {printable(str(error))}")
    rows.sort(key=lambda row: row["connection"])
    return Scanned(names, tuple(rows), tuple(events), tuple(problems))


# ------------------------------------------------------------------------------------------------------------ processes


def _work(pipe: Connection, setup: _Setup) -> None:
    """What a process does: captures in, rows out, until there are no more or nobody listens."""
    with contextlib.suppress(EOFError, ConnectionError):
        pipe.send(None)
        while (names := pipe.recv()) is not None:
            pipe.send(_read(names, setup))


@define(eq=False)
class _Worker:
    """A process.

    Attributes:
        given: The captures that it has before it, in order, each with what counts as its length.
        load: These lengths together.
        started: It has said that it is there.
    """

    process: SpawnProcess
    pipe: Connection
    given: deque[tuple[int, int]] = attrs.Factory(deque[tuple[int, int]])
    load: int = 0
    started: bool = False

    def give(self, index: int, names: tuple[str, ...], length: int) -> None:
        self.pipe.send(names)
        self.given.append((index, length))
        self.load += length

    def take(self) -> int:
        """The capture that it has finished with."""
        index, length = self.given.popleft()
        self.load -= length
        return index


def _start(setup: _Setup) -> _Worker:
    context = multiprocessing.get_context("spawn")  # threads of the caller do not survive a fork
    mine, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, setup), daemon=True, name="scan")
    try:
        if os.name == "posix":
            resource_tracker.ensure_running()  # start() does, and lets Ctrl-C through again when it has
        with _uninterrupted():
            process.start()
    except BaseException:
        mine.close()
        raise
    finally:
        theirs.close()
    return _Worker(process, mine)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that start here are not sent the terminal's Ctrl-C: who started them ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _length(names: tuple[str, ...]) -> int:
    """What counts as the length of a capture: of what has no size, or many names, nobody knows how long it takes."""
    sizes = list(map(_size, names[:_DEPTH]))
    return sum(sizes) if len(sizes) == len(names) and all(sizes) else _ENOUGH


class _Pool:
    """Processes, and what they read."""

    def __init__(self, groups: list[tuple[str, ...]], jobs: int, setup: _Setup) -> None:
        self.done: dict[int, Scanned] = {}
        self._groups = groups
        self._jobs = jobs
        self._setup = setup
        self._waiting = deque(range(len(groups)))
        self._workers: dict[Any, _Worker] = {}

    def step(self, turn: int) -> None:
        """Give out work, and take what is done; ``turn`` is that of whose rows are wanted next."""
        while self._waiting and self._waiting[0] < turn + _AHEAD * self._jobs:
            names = self._groups[self._waiting[0]]
            if STANDARD_INPUT in names:  # nobody else has it
                self.done[self._waiting.popleft()] = _read(names, self._setup)
                continue
            worker = self._free()
            if worker is None:
                break
            try:
                worker.give(self._waiting[0], names, _length(names))
            except ConnectionError:  # it has died; what it had before it is dealt with below
                if not worker.given:
                    self._forget(worker)
                break
            self._waiting.popleft()
        busy = [pipe for pipe, worker in self._workers.items() if worker.given]
        for pipe in wait(busy, 0 if turn in self.done else None) if busy else ():
            worker = self._workers[pipe]
            try:
                scanned = worker.pipe.recv()
            except (EOFError, ConnectionError):
                self._died(worker)
            else:
                if worker.started:
                    self.done[worker.take()] = scanned
                worker.started = True

    def _free(self) -> _Worker | None:
        """Who is to read the next capture; None if all have enough before them."""
        worker = min(self._workers.values(), key=lambda it: (it.load, len(it.given)), default=None)
        if worker is None or (worker.given and len(self._workers) < self._jobs):
            worker = _start(self._setup)
            self._workers[worker.pipe] = worker
        return worker if worker.load < _ENOUGH and len(worker.given) < _DEPTH else None

    def _forget(self, worker: _Worker) -> str:
        """A process has died: how."""
        del self._workers[worker.pipe]
        worker.pipe.close()
        worker.process.join(_PATIENCE)
        status = worker.process.exitcode
        how = f"status {status}" if status is None or status >= 0 else f"signal {-status}"
        if not worker.started:
            problem = f"a process that was to read captures has ended at once ({how})"
            hint = "a script that is to have several needs its 'if __name__ == \"__main__\":'"
            raise ScanFailed(f"{problem}; {hint}")
        return how

    def _died(self, worker: _Worker) -> None:
        """It has died of the first capture that it had before it; the others are given to others."""
        how = self._forget(worker)
        index = worker.take()
        names = self._groups[index]
        self.done[index] = Scanned(
            names, problems=(f"{printable(names[0])}: the process that read it has died ({how})",)
        )
        self._waiting.extendleft(reversed([index for index, _ in worker.given]))

    def close(self) -> None:
        """End all processes, whatever they do."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.join(_PATIENCE)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
            worker.process.close()


def _in_processes(groups: list[tuple[str, ...]], jobs: int, setup: _Setup) -> Iterator[Scanned]:
    pool = _Pool(groups, jobs, setup)
    try:
        for turn in range(len(groups)):
            pool.step(turn)
            while turn not in pool.done:
                pool.step(turn)
            yield pool.done.pop(turn)
    finally:
        pool.close()
