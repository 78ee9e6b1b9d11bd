"""A program that ``sshproto serve --exec`` runs for a client: a command or a shell, with or without a terminal.

It runs in a session and process group of its own.  It is started by ``posix_spawn``, which is safe with threads where
``fork`` is not; the spawned process opens its terminal itself, which makes it the controlling one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import tempfile
import termios
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sshproto.channels.requests import (
    Break,
    ChannelRequestData,
    EndOfWrite,
    Exec,
    ExitSignal,
    PtyRequest,
    Shell,
    Signal,
    WindowChange,
)
from sshproto.errors import ChannelEnded
from sshproto.operations.channel import Channel
from sshproto.operations.displays import authorities_for, write_authorities
from sshproto.operations.steps import Operation, Ready, Sleep, Together, Wait
from sshproto_cli.terminal import apply_modes, set_size
from sshproto_io.descriptors import Descriptor

if TYPE_CHECKING:
    from sshproto.operations.granting import GrantedDisplay

_PATH = "/usr/local/bin:/usr/bin:/bin"
_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SIGNALS = ("ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2")
"""Signals of RFC 4254 section 6.9, which a client may send."""
_RESET = {getattr(signal, f"SIG{name}") for name in ("HUP", "INT", "QUIT", "TERM", "PIPE", "CHLD", "XFSZ")}

_EOF_PATIENCE = 0.25
"""Seconds between the end of a program's output and EOF, if the program itself does not end."""

_PIECE = 64 * 1024
_UNKNOWN = 255 << 8
"""The status of a program whose end somebody else was told."""


def welcome(name: str) -> bool:
    """Whether a client may set this environment variable."""
    return name == "LANG" or (name.startswith("LC_") and name.isascii() and name.replace("_", "").isalnum())


def write_authority(display: GrantedDisplay, at_end: contextlib.ExitStack) -> str:
    """Write the cookie of a display into a file of its own, in a directory that only this user may enter.

    Args:
        display: Which.
        at_end: Removes both.

    Returns:
        The file's path, for ``XAUTHORITY``.

    Raises:
        OSError: It can't be written.
    """
    content = write_authorities(authorities_for(display.number, display.cookie, socket.gethostname()))
    directory = tempfile.mkdtemp(prefix="ssh-")  # mode 0700
    at_end.callback(shutil.rmtree, directory, ignore_errors=True)
    path = os.path.join(directory, "xauthority")  # noqa: PTH118
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
        file.write(content)
    return path


class _Over(Exception):
    """The program has ended, and all that it wrote is sent."""


class Program:
    """What runs on a session's channel. At most one is started.

    Args:
        login: Environment variables that tell about the connection.
    """

    def __init__(self, login: Mapping[str, str]) -> None:
        self._login = login
        self._pty: PtyRequest | None = None
        self._terminal = ""  # its name
        self._master = -1
        self._pid = 0  # 0 when there is none, or it was waited for
        self._status: int | None = None
        self._end_of_it = -1  # can be read from when the program has ended
        self._input: Descriptor | None = None
        self._outputs: list[Descriptor] = []
        self._descriptors: set[int] = set()  # those that nothing else here closes
        self._exited = Wait()
        self._silent = Wait()

    # ------------------------------------------------------------------------------------------------------ preparation

    def open_terminal(self, request: PtyRequest) -> bool:
        """Have a terminal for the program; False if that cannot be."""
        try:
            self._master, slave = os.openpty()
            self._descriptors |= {self._master, slave}  # the latter to be open until the program has it
            self._terminal = os.ttyname(slave)
        except OSError:
            return False
        self._pty = request
        with contextlib.suppress(termios.error, OSError):
            apply_modes(slave, request.modes)
        self._resize(request)
        return True

    def start(self, what: Exec | Shell, variables: Mapping[str, bytes]) -> bool:
        """Start the program; False if that cannot be.

        Args:
            what: Which.
            variables: Environment variables of the client.
        """
        shell = _shell_of_user()
        name = os.path.basename(shell)  # noqa: PTH119
        # A dash says: a login shell.
        arguments: list[str | bytes] = [name, "-c", what.command] if isinstance(what, Exec) else [f"-{name}"]
        environment: dict[str, str | bytes] = {**_environment(shell), **self._login, **variables}
        if self._pty is not None:
            environment |= {"TERM": self._pty.term or "dumb", "SSH_TTY": self._terminal}
        try:
            actions = self._plumb() if self._pty is None else self._plumb_terminal()
            self._pid = os.posix_spawn(
                shell, arguments, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_RESET
            )
            self._end_of_it = self._watch(self._pid)
        except (OSError, ValueError, RuntimeError):  # from zero bytes, which no program can be given; no more threads
            self._undo()
            return False
        finally:
            for descriptor in self._descriptors - {self._master, self._end_of_it}:
                self._close(descriptor)
        return True

    def _undo(self) -> None:
        """The start has failed, at whatever step."""
        self._kill(signal.SIGKILL)
        self._let_go()
        pid, self._pid = self._pid, 0
        if pid:
            _reap(pid)

    def _let_go(self) -> None:
        """Close our ends of the program's streams."""
        for end in (self._input, *self._outputs):
            if end is not None:
                end.close()
        self._input, self._outputs = None, []

    def _plumb(self) -> list[Any]:
        """Three pipes; what the program is to do with its ends."""
        (stdin, feed), (read_out, stdout), (read_err, stderr) = (self._pipe() for _ in range(3))
        self._connect(feed, [read_out, read_err])
        return [(os.POSIX_SPAWN_DUP2, theirs, number) for number, theirs in enumerate((stdin, stdout, stderr))]

    def _plumb_terminal(self) -> list[Any]:
        """The same with a terminal; it is opened anew because only opening makes it the controlling one."""
        # Numbers of their own, so that each can be closed when it is done with.
        self._connect(self._copy(self._master), [self._copy(self._master)])
        return [
            (os.POSIX_SPAWN_OPEN, 0, self._terminal, os.O_RDWR, 0),
            *((os.POSIX_SPAWN_DUP2, 0, number) for number in (1, 2)),
        ]

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._descriptors |= set(ends)
        return ends

    def _copy(self, descriptor: int) -> int:
        copy = os.dup(descriptor)
        self._descriptors.add(copy)
        return copy

    def _connect(self, feed: int, outputs: list[int]) -> None:
        """Take our ends out of the descriptors that are closed after the start."""
        for descriptor in (feed, *outputs):
            os.set_blocking(descriptor, False)
            self._descriptors.discard(descriptor)
        self._input = Descriptor(feed, owned=True)
        self._outputs = [Descriptor(output, owned=True) for output in outputs]

    def _watch(self, pid: int) -> int:
        """A descriptor that can be read from when a process has ended."""
        with contextlib.suppress(AttributeError, OSError):  # not Linux; or an old one, or one that forbids it
            descriptor = os.pidfd_open(pid)
            self._descriptors.add(descriptor)
            return descriptor
        descriptor, far = self._pipe()
        threading.Thread(target=_tell_end, args=(pid, far), name=f"wait for {pid}", daemon=True).start()
        self._descriptors.discard(far)
        return descriptor

    # ---------------------------------------------------------------------------------------------------- while it runs

    def run(self, channel: Channel) -> Operation[int | ExitSignal]:
        """Pass bytes, signals and sizes between the program and the channel, until both are done. How it ended.

        Raises:
            ChannelEnded: The client has closed the channel.
            ConnectionLoss: The connection has ended.
        """
        outputs = [self._relay(channel, output, stream) for stream, output in enumerate(self._outputs)]
        with contextlib.suppress(_Over):
            yield Together(
                self._feed(channel), *outputs, self._obey(channel), self._notice_end(channel), self._end(channel)
            )
        return _outcome(_UNKNOWN if self._status is None else self._status)

    def _feed(self, channel: Channel) -> Operation[None]:
        """From the channel to the program's input."""
        feed = self._input
        if feed is None:
            return
        try:
            while data := (yield from channel.read(_PIECE)):
                yield from feed.write(data)
            if self._pty is not None:  # a terminal has no end of file but this character
                with contextlib.suppress(termios.error):
                    character = termios.tcgetattr(feed.number)[6][termios.VEOF]
                    if character != b"\0":
                        yield from feed.write(character)
        except OSError:  # the program reads no more
            channel.inbox(0).discard()
            yield from channel.notify(EndOfWrite())
        finally:
            feed.close()

    def _relay(self, channel: Channel, output: Descriptor, stream: int) -> Operation[None]:
        """From one of the program's outputs to the channel."""
        try:
            # A program whose output nobody reads is to get SIGPIPE; a terminal has no such thing.
            while self._pty is not None or stream or channel.peer_reads:
                data = output.read_now(_PIECE)
                if data is None:
                    # What runs on in the background may hold the terminal for ever. Pipes are read to their end.
                    if self._pty is not None and self._status is not None:
                        break
                    yield Ready(output.number, until=channel.changed)
                elif not data:
                    break
                else:
                    yield from _send(channel, data, stream)
        except OSError:  # it can't be read: there will be no more
            pass
        finally:
            output.close()
            self._silent.fire()

    def _obey(self, channel: Channel) -> Operation[None]:
        """What the client tells."""
        while (notice := (yield from channel.next_notice())) is not None:
            self._heed(notice)

    def _heed(self, notice: ChannelRequestData) -> None:
        match notice:
            case WindowChange():
                self._resize(notice)
            case Signal(name=name) if name in _SIGNALS:
                self._kill(getattr(signal, f"SIG{name}"))
            case Break() if self._master >= 0:
                with contextlib.suppress(termios.error):
                    termios.tcsendbreak(self._master, 0)
            case _:
                pass

    def _notice_end(self, channel: Channel) -> Operation[None]:
        """Wait for the end of the program."""
        yield Ready(self._end_of_it)
        pid, self._pid = self._pid, 0
        self._status = _UNKNOWN
        with contextlib.suppress(ChildProcessError):
            _, self._status = os.waitpid(pid, 0)
        self._exited.fire()
        channel.changed.fire()  # its outputs are waited for with that

    def _end(self, channel: Channel) -> Operation[None]:
        """Wait for the end of everything, which ends :meth:`run`."""
        while not all(output.closed for output in self._outputs):
            yield self._silent
        if self._status is None:
            # The program is about to end, mostly. One that has closed its output and runs on is not waited for.
            yield Sleep(_EOF_PATIENCE, self._exited)
        if self._status is None:
            yield from channel.send_eof()
        while self._status is None:
            yield self._exited
        raise _Over

    def _resize(self, size: PtyRequest | WindowChange) -> None:
        if self._master >= 0:
            with contextlib.suppress(OSError):
                set_size(self._master, size.rows, size.columns, size.width, size.height)

    def _kill(self, number: int) -> None:
        if self._pid:  # not waited for, so the number is still this program's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, number)

    # -------------------------------------------------------------------------------------------------------------- end

    def hang_up(self) -> None:
        """The session is over; so is the program, if it still runs and minds. To be called when nothing else is."""
        for number in (signal.SIGHUP, signal.SIGCONT):
            self._kill(number)
        self._let_go()
        for descriptor in tuple(self._descriptors):
            self._close(descriptor)
        pid, self._pid = self._pid, 0
        if pid:
            with contextlib.suppress(RuntimeError):  # there are no threads left
                threading.Thread(target=_reap, args=(pid,), name=f"wait for {pid}", daemon=True).start()

    def _close(self, descriptor: int) -> None:
        self._descriptors.discard(descriptor)
        os.close(descriptor)
        if descriptor == self._master:
            self._master = -1


def _send(channel: Channel, data: bytes, stream: int) -> Operation[None]:
    try:
        yield from channel.write(data, stream)
    except ChannelEnded:
        if channel.closed:
            raise
        # It is only that nobody reads this any more.


def _tell_end(pid: int, descriptor: int) -> None:
    """In a thread of its own. The process is only looked at, so that its number stays its own until the session has
    heard of its end."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.close(descriptor)


def _reap(pid: int) -> None:
    """Wait for a process whose session is over."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _outcome(status: int) -> int | ExitSignal:
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    name = signal.Signals(number).name.removeprefix("SIG") if number in set(signal.Signals) else f"{number}@sshproto"
    return ExitSignal(name, os.WCOREDUMP(status), "", "")


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        return None


def _shell_of_user() -> str:
    account = _account()
    return (account.pw_shell if account is not None else "") or "/bin/sh"


def home() -> str:
    """The home directory of the user, as this server was told it, or else as the system knows it."""
    account = _account()
    return os.environ.get("HOME") or (account.pw_dir if account is not None else "/")


def _environment(shell: str) -> dict[str, str]:
    """What a program finds: about the user and the system, and nothing of what this server was started with."""
    account = _account()
    environment = {
        "HOME": home(),
        "SHELL": shell,
        "PATH": os.environ.get("PATH") or (_ROOT_PATH if os.geteuid() == 0 else _PATH),
    }
    if account is not None:
        environment |= {"USER": account.pw_name, "LOGNAME": account.pw_name}
    return environment | {name: value for name, value in os.environ.items() if name == "TZ" or welcome(name)}
