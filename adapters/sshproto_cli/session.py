"""One session of ``sshproto serve --exec``: a command or a shell, with or without a terminal (RFC 4254 section 6).

The program runs in a session and process group of its own.  It is started by ``posix_spawn``, which is safe with
threads where ``fork`` is not; the spawned process opens its terminal itself, which makes it the controlling one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import termios
import threading
from typing import TYPE_CHECKING, Any

from sshproto.channels.requests import (
    Break,
    ChannelRequestData,
    EndOfWrite,
    Env,
    Exec,
    ExitSignal,
    ExitStatus,
    PtyRequest,
    Shell,
    Signal,
    WindowChange,
)
from sshproto.errors import UsageError
from sshproto_cli.terminal import apply_modes, set_size
from sshproto_io.relays import Sink, Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from sshproto.events import ChannelRequested
    from sshproto.server import ServerConnection
    from sshproto_io.driver import Driver

_PATH = "/usr/local/bin:/usr/bin:/bin"
_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SIGNALS = ("ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2")
"""Signals of RFC 4254 section 6.9, which a client may send."""
_RESET = {getattr(signal, f"SIG{name}") for name in ("HUP", "INT", "QUIT", "TERM", "PIPE", "CHLD", "XFSZ")}


def _welcome(name: str) -> bool:
    """Whether a client may set this environment variable."""
    return name == "LANG" or (name.startswith("LC_") and name.isascii() and name.replace("_", "").isalnum())


_EOF_PATIENCE = 0.25
"""Seconds between the end of a program's output and EOF, if the program itself does not end."""


class Session:
    """A session channel and the program that runs on it.

    Args:
        driver: The connection's driver.
        channel: The channel's number.
        login: Environment variables that tell about the connection.
    """

    def __init__(self, driver: Driver[ServerConnection], channel: int, login: dict[str, str]) -> None:
        self._driver = driver
        self._channel = channel
        self._environment = dict(login)
        self._pty: PtyRequest | None = None
        self._master = -1
        self._slave = -1
        self._pid = 0  # 0 when there is none, or it was waited for
        self._status: int | None = None
        self._outputs: list[Source] = []
        self._input: Sink | None = None
        self._descriptors: set[int] = set()
        self._eof_due = False
        self._eof_sent = False
        self._ended = False
        self._requests: dict[type[ChannelRequestData], Callable[[Any], bool]] = {
            PtyRequest: self._want_pty,
            Env: self._set_variable,
            Shell: self._shell,
            Exec: self._exec,
            Break: self._break,
        }
        self._notices: dict[type[ChannelRequestData], Callable[[Any], None]] = {
            WindowChange: self._resize,
            Signal: self._signal,
            EndOfWrite: self._nobody_reads,
        }

    # -------------------------------------------------------------------------------------------- what the client wants

    def requested(self, question: ChannelRequested) -> None:
        """Grant or refuse a request."""
        handler = self._requests.get(type(question.request))
        if handler is not None and handler(question.request):
            self._driver.conn.succeed(question)
            if isinstance(question.request, (Shell, Exec)):
                self._started()
        else:
            self._driver.conn.fail(question)

    def notified(self, notice: ChannelRequestData) -> None:
        """The client tells something."""
        handler = self._notices.get(type(notice))
        if handler is not None:
            handler(notice)

    def data(self, data: bytes) -> None:
        """Input for the program."""
        if self._input is None:
            self._driver.conn.credit(self._channel, len(data))
        else:
            self._input.feed(data)

    def eof(self) -> None:
        """There will be no more input."""
        if self._input is None:
            return
        self._input.finish()

    def writable(self) -> None:
        """The channel has room."""
        for output in self._outputs:
            output.resume()

    def end(self) -> None:
        """The channel is gone, or the connection: hang up."""
        self._ended = True
        for output in self._outputs:
            output.stop()
        if self._input is not None:
            self._input.stop()
        if self._pid:
            for number in (signal.SIGHUP, signal.SIGCONT):
                self._kill(number)
        for descriptor in tuple(self._descriptors):
            self._close(descriptor)

    def _want_pty(self, request: PtyRequest) -> bool:
        if self._pty is not None or self._pid:
            return False
        try:
            self._master, self._slave = os.openpty()
        except OSError:
            return False
        self._descriptors |= {self._master, self._slave}
        self._pty = request
        with contextlib.suppress(termios.error, OSError):
            apply_modes(self._slave, request.modes)
        self._resize(request)
        return True

    def _resize(self, size: PtyRequest | WindowChange) -> None:
        if self._master >= 0:
            with contextlib.suppress(OSError):
                set_size(self._master, size.rows, size.columns, size.width, size.height)

    def _set_variable(self, request: Env) -> bool:
        if not _welcome(request.name) or self._pid:
            return False
        self._environment[request.name] = request.value.decode("utf-8", "surrogateescape")
        return True

    def _break(self, request: Break) -> bool:
        if self._master < 0:
            return False
        try:
            termios.tcsendbreak(self._master, 0)
        except termios.error:
            return False
        return True

    def _signal(self, notice: Signal) -> None:
        if notice.name in _SIGNALS:
            self._kill(getattr(signal, f"SIG{notice.name}"))

    def _nobody_reads(self, notice: EndOfWrite) -> None:
        """The program is to get SIGPIPE; a terminal has no such thing."""
        if self._master < 0 and self._outputs:
            self._outputs[0].stop()
            self._close(self._outputs[0].descriptor)
            self._finish_if_done()

    def _kill(self, number: int) -> None:
        if self._pid:  # not waited for, so the number is still this program's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, number)

    # ------------------------------------------------------------------------------------------------------ the program

    def _shell(self, request: Shell) -> bool:
        shell = _shell_of_user()
        return self._spawn(shell, [f"-{os.path.basename(shell)}"])  # noqa: PTH119  a dash says: a login shell

    def _exec(self, request: Exec) -> bool:
        shell = _shell_of_user()
        return self._spawn(shell, [os.path.basename(shell), "-c", request.command])  # noqa: PTH119

    def _spawn(self, path: str, arguments: list[str | bytes]) -> bool:
        """Start a program; False if that cannot be."""
        try:
            actions, ours = self._plumb() if self._pty is None else self._plumb_pty()
        except OSError:
            return False
        environment = {**_environment(path), **self._environment}
        if self._pty is not None:
            environment |= {"TERM": self._pty.term or "dumb", "SSH_TTY": os.ttyname(self._slave)}
        try:
            self._pid = os.posix_spawn(
                path, arguments, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_RESET
            )
        except (OSError, ValueError):  # the latter from zero bytes, which no program can be given
            self._input, self._outputs = None, []
            ours = []
            return False
        finally:
            for descriptor in self._descriptors - {self._master, *ours}:
                self._close(descriptor)
        return True

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._descriptors |= set(ends)
        return ends

    def _plumb(self) -> tuple[list[tuple[int, int, int]], list[int]]:
        """Three pipes: what the program is to do with its ends, and our ends."""
        (stdin, feed), (read_out, stdout), (read_err, stderr) = self._pipe(), self._pipe(), self._pipe()
        ours = [feed, read_out, read_err]
        self._connect(feed, [read_out, read_err])
        return [(os.POSIX_SPAWN_DUP2, theirs, number) for number, theirs in enumerate((stdin, stdout, stderr))], ours

    def _plumb_pty(self) -> tuple[list[Any], list[int]]:
        """The same with a terminal; it is opened anew because only opening makes it the controlling one."""
        feed = os.dup(self._master)  # a number of its own, as it is watched for another reason
        self._descriptors.add(feed)
        self._connect(feed, [self._master])
        name = os.ttyname(self._slave)
        actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, name, os.O_RDWR, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, 0, number) for number in (1, 2)]
        return actions, [feed]

    def _connect(self, feed: int, outputs: list[int]) -> None:
        for descriptor in (feed, *outputs):
            os.set_blocking(descriptor, False)
        self._input = Sink(
            self._driver,
            self._channel,
            feed,
            self._input_broken,
            on_end=lambda: self._input_written(feed),
        )
        self._outputs = [
            Source(self._driver, self._channel, descriptor, lambda _: self._output_ended(), stream=stream)
            for stream, descriptor in enumerate(outputs)
        ]

    def _started(self) -> None:
        threading.Thread(target=self._wait, args=(self._pid,), name=f"wait for {self._pid}", daemon=True).start()
        for output in self._outputs:
            output.resume()

    def _wait(self, pid: int) -> None:
        """In a thread of its own. The process is only looked at, so that its number stays its own until the session has
        heard of its end."""
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if not self._driver.call(self._exited):
            self._exited()

    def _exited(self) -> None:
        pid, self._pid = self._pid, 0
        if not pid:
            return
        with contextlib.suppress(ChildProcessError):
            _, self._status = os.waitpid(pid, 0)
        if self._ended:
            return
        if self._master >= 0:
            # What runs on in the background may hold the terminal for ever. Pipes are read to their end all the same.
            for output in self._outputs:
                output.drain()
        self._finish_if_done()

    def _input_broken(self, problem: OSError) -> None:
        """The program reads no more."""
        with contextlib.suppress(UsageError):
            self._driver.conn.request(self._channel, EndOfWrite(), want_reply=False)

    def _input_written(self, feed: int) -> None:
        if self._master >= 0:  # a terminal has no end of file but this character
            with contextlib.suppress(termios.error, OSError):
                character = termios.tcgetattr(feed)[6][termios.VEOF]
                if character != b"\0":
                    os.write(feed, character)
        self._close(feed)

    def _output_ended(self) -> None:
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        conn = self._driver.conn
        with contextlib.suppress(UsageError):  # the client has closed the channel just now
            if not all(output.ended for output in self._outputs):
                return
            if self._status is not None:
                # The status before the EOF: some clients close a channel that has had EOF both ways, and miss it.
                conn.request(self._channel, _exit_notice(self._status), want_reply=False)
                self._send_eof()
                conn.close_channel(self._channel)
            elif not self._eof_due:
                # The program is about to end, mostly. One that has closed its output and runs on is not waited for.
                self._eof_due = True
                alarm = threading.Timer(_EOF_PATIENCE, self._driver.call, [self._send_eof])
                alarm.daemon = True
                alarm.start()

    def _send_eof(self) -> None:
        if not self._eof_sent and not self._ended:
            self._eof_sent = True
            with contextlib.suppress(UsageError):  # the client has closed the channel just now
                self._driver.conn.send_eof(self._channel)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._descriptors:
            self._descriptors.discard(descriptor)
            os.close(descriptor)
            if descriptor == self._master:
                self._master = -1


def _exit_notice(status: int) -> ExitStatus | ExitSignal:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = (
            signal.Signals(number).name.removeprefix("SIG") if number in set(signal.Signals) else f"{number}@sshproto"
        )
        return ExitSignal(name, os.WCOREDUMP(status), "", "")
    return ExitStatus(os.waitstatus_to_exitcode(status))


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
    return environment | {name: value for name, value in os.environ.items() if name == "TZ" or _welcome(name)}
