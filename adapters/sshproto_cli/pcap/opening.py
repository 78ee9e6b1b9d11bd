"""What the verbs of ``sshproto pcap`` share: options for captures and secrets, the connections in them."""

from __future__ import annotations

import argparse
import codecs
import errno
import heapq
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from sshproto_cli.options import Failure, complain, describe, port, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sshproto.replay.analysis import Conversation
    from sshproto.replay.events import Observed
    from sshproto.replay.findings import Policy
    from sshproto.replay.secrets import KeyLogError, Secrets

FAILED = 1
"""The status when a capture or a key log can't be read, or not to its end."""
STDIN = "-"

_MOST_NAMED = 20
_GATHERED = 1 << 16


class Damaged(Failure):
    """Something of what was to be read can't be; the words are those of the last problem.

    Attributes:
        problems: All of them, in words.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems[-1])
        self.problems = problems


def add_options(parser: argparse.ArgumentParser, *, files: bool = True, connection: bool = True) -> None:
    """Add what says which captures are read, how, and what opens them.

    Args:
        parser: A verb's.
        files: Add ``FILE...``, too.
        connection: Add ``-n``, too.
    """
    if files:
        parser.add_argument(
            "files",
            metavar="FILE",
            nargs="+",
            help=f'a capture (pcap, pcapng, gzip, zstd); "{STDIN}" is standard input',
        )
        parser.add_argument(
            "--rotated",
            action="store_true",
            help="the files are one capture that was cut into several, in the order of time: connections go on from one"
            " to the next",
        )
    parser.add_argument(
        "--keylog",
        metavar="FILE",
        action="append",
        default=[],
        help="a key log as Wireshark has it; may be given more than once. What stands in a capture itself is used, too",
    )
    parser.add_argument(
        "--session-keys",
        metavar="FILE",
        action="append",
        default=[],
        help="session keys in JSON, as tools find them in a process's memory; may be given more than once",
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=port,
        action="append",
        default=[],
        help="where SSH is expected of what began before the recording; 22 if not given. What began within it is found"
        " on any port",
    )
    if connection:
        parser.add_argument(
            "-n",
            "--connection",
            metavar="N",
            type=_number,
            action="append",
            default=[],
            help='only this connection, by its number as "sshproto pcap info" has it; may be given more than once',
        )
    parser.add_argument("--no-progress", action="store_true", help="don't show how far it is, on a terminal")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not int(text):
        raise argparse.ArgumentTypeError(f"not the number of a connection: {text!r}")
    return int(text)


class Flushable(Protocol):
    """What gathers what is to be written."""

    def flush(self) -> None: ...


class LineOutput:
    """Standard output for long work: lines are gathered until there are many, or nothing more is at hand.

    As a context it writes what is left when it ends.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        self._encoding = None if codecs.lookup(encoding).name.startswith("utf") else encoding

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not issubclass(kind, BrokenPipeError):
            self.flush()

    def line(self, text: str) -> None:
        """A line, without its end; characters that standard output has no place for are escaped.

        Raises:
            BrokenPipeError, Failure: See :func:`~sshproto_cli.options.put`.
        """
        self._lines.append(text)
        self._size += len(text)
        if self._size > _GATHERED:
            self.flush()

    def flush(self) -> None:
        """Write what there is.

        Raises:
            BrokenPipeError, Failure: See :func:`~sshproto_cli.options.put`.
        """
        if self._lines:
            text = "\n".join([*self._lines, ""])
            self._lines.clear()
            self._size = 0
            if self._encoding is not None:
                text = text.encode(self._encoding, "backslashreplace").decode(self._encoding)
            put(text)


def wants_progress(args: argparse.Namespace, output: Flushable | None) -> bool:
    """Whether to show how far it is: on a terminal, if ``output`` does not go to one, too."""
    from sshproto_cli.pcap.progress import Progress

    return not args.no_progress and Progress.wanted() and not (output is not None and sys.stdout.isatty())


class Queue:
    """Gives what connections come to in the order of their numbers: which is not the order in which they end.

    Args:
        take: Given each.
        at_once: Don't wait for others.
    """

    def __init__(self, take: Callable[[Any], object], *, at_once: bool) -> None:
        self._take = take
        self._at_once = at_once
        self._waiting: list[tuple[int, Any]] = []

    def add(self, number: int, item: Any, living: Iterable[int]) -> None:
        """Take one, and give those that come before all living ones."""
        heapq.heappush(self._waiting, (number, item))
        first = min(living, default=number)
        while self._waiting and (self._at_once or self._waiting[0][0] <= first):
            self._take(heapq.heappop(self._waiting)[1])

    def end(self) -> None:
        """There are no more."""
        while self._waiting:
            self._take(heapq.heappop(self._waiting)[1])


def secrets(args: argparse.Namespace, *, key_logs: bool = True) -> Secrets:
    """What the options of :func:`add_options` give to open connections with.

    Key logs may have lines of other kinds among them, which is said.

    Args:
        args: Parsed arguments.
        key_logs: Take the key logs, too.

    Raises:
        Failure: A file can't be read, or is none of what belongs there.
    """
    from sshproto.replay.secrets import Secrets
    from sshproto_io import captures

    known = Secrets()
    try:
        for path in args.keylog if key_logs else ():
            try:
                captures.add_key_logs(known, [path])
            except captures.KeyFileError as error:
                if not error.taken:
                    if Path(path).is_file() and Path(path).read_bytes().lstrip()[:1] in (b"{", b"["):
                        raise Failure(
                            f"{path}: this is JSON, no key log; session keys go with --session-keys"
                        ) from None
                    raise
                complain(f"{error}; lines that are none are passed over")
        captures.add_session_keys(known, args.session_keys)
    except captures.KeyFileError as error:
        raise Failure(f"{error}") from None
    return known


def conversations(
    args: argparse.Namespace,
    *,
    ask: Callable[[Conversation], None] | None = None,
    keep: bool = False,
    policy: Policy | None = None,
    output: Flushable | None = None,
) -> Iterator[Conversation]:
    """The SSH connections of the captures that the options of :func:`add_options` name, each when it has ended.

    Args:
        args: Parsed arguments.
        ask: Called with each that begins, before its first event: the place to add sinks.
        keep: Keep the events of each in :attr:`~sshproto.replay.analysis.Conversation.events`.
        policy: What is expected of them.
        output: What is written to standard output meanwhile. It is flushed when all that was read has been told, before
            more is waited for, so that a capture that is still being made is shown as it comes; and there is no
            progress if that is a terminal.

    Raises:
        Failure: A key log is none, or can't be read.
        Damaged: A file can't be read, is no capture, or is damaged; all that could be read of it and of the other files
            was given before.
        OSError: A file could not be read to its end.
    """
    from sshproto.replay.analysis import PORTS
    from sshproto_cli.pcap.progress import Progress
    from sshproto_io import captures

    live_capture = STDIN in args.files
    known = secrets(args, key_logs=not live_capture)
    wanted: frozenset[int] = frozenset(getattr(args, "connection", ()))
    numbers: list[int] = []
    damage: list[str] = []

    def begin(conversation: Conversation) -> None:
        number = conversation.connection.number
        if len(numbers) < _MOST_NAMED or number in wanted:
            numbers.append(number)
        if wanted and number not in wanted:
            return
        if keep:
            conversation.sinks.append(_Keeper(conversation.events))
        if ask is not None:
            ask(conversation)

    progress = Progress(shown=wants_progress(args, output))

    def tell(path: str, error: KeyLogError) -> None:
        progress.clear()
        complain(f"{path}: {describe(error)}")

    def read(done: int, total: int | None) -> None:
        if output is not None:
            output.flush()
        progress(done, total)

    try:
        for conversation in captures.conversations(
            [path for path in args.files if _readable(path, damage)],
            rotated=getattr(args, "rotated", False),
            secrets=known,
            key_logs=args.keylog if live_capture else (),
            ask=begin,
            policy=policy,
            ports=args.port or PORTS,
            progress=read,
            on_damage=lambda path, error: damage.append(f"{path}: {describe(error)}"),
            on_key_log_error=tell,
        ):
            if not wanted or conversation.connection.number in wanted:
                if output is None:  # nobody knows what is done with it
                    progress.clear()
                yield conversation
    except captures.KeyFileError as error:
        raise Failure(f"{error}") from None
    finally:
        progress.clear()
    if absent := sorted(wanted.difference(numbers)):
        damage.append(_absent(absent, numbers))
    for each in damage[:-1]:
        complain(each)
    if damage:
        raise Damaged(damage)


def _readable(path: str, problems: list[str]) -> bool:
    """Whether a file can be read, so far as can be known without opening it: a pipe is opened once."""
    if path == STDIN:
        return True
    try:
        kind = Path(path).stat().st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    except OSError as error:
        problems.append(describe(error))
        return False
    return True


class _Keeper:
    """Keeps events; :class:`~sshproto.replay.analysis.Analysis` would keep those of connections nobody wants."""

    def __init__(self, events: list[Observed]) -> None:
        self.add = events.append


def _absent(absent: list[int], numbers: list[int]) -> str:
    there = ", ".join(map(str, sorted(numbers)[:_MOST_NAMED]))
    more = " and more" if len(numbers) >= _MOST_NAMED else ""
    of_these = f"SSH is spoken in {there}{more}" if numbers else "SSH is spoken in none"
    return f"no SSH connection has the number {', '.join(map(str, absent))}: {of_these}"
