"""Sockets of agents, for every face: where the user's agent is, and a socket for one of our own.

A socket of ours is for its owner alone: it is made in a directory of mode 0700 (unless a path is given) with mode 0600,
who connects to it has to be the same user or root where the system tells who that is (``SO_PEERCRED``: Linux), and it
is removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sshproto.agent.framing import AgentUnavailable
from sshproto.operations.agents import Agent
from sshproto.text import printable
from sshproto_io.sockets import SocketListener, dial

if TYPE_CHECKING:
    from sshproto.operations.steps import Operation

VARIABLE = "SSH_AUTH_SOCK"
"""The environment variable that says where the user's agent is."""

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_BACKLOG = 128
_umask = threading.Lock()


def agent_path(path: str | os.PathLike[str] | None = None) -> str:
    """Where the agent is.

    Args:
        path: As it was given; None for what the environment says.

    Raises:
        AgentUnavailable: The environment says nothing.
    """
    found = os.environ.get(VARIABLE, "") if path is None else os.fspath(path)
    if not found:
        raise AgentUnavailable(f"there is no agent: {VARIABLE} is not set" if path is None else "an agent has a path")
    return found


def reach(path: str | os.PathLike[str] | None = None) -> Operation[Agent]:
    """Connect to an agent.

    Args:
        path: Its socket; None for what the environment says.

    Raises:
        AgentUnavailable: There is none.
    """
    place = agent_path(path)
    try:
        stream = yield from dial(place)
    except (OSError, ValueError) as error:  # the latter from a path with a NUL
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise AgentUnavailable(f"cannot reach the agent at {printable(place)}: {reason}") from error
    return Agent(stream)


def steady_clock() -> Callable[[], float]:
    """A clock that starts with the system's, in seconds since 1970, and then goes on steadily, also while the machine
    sleeps where it can: what somebody sets the system's clock to does not make keys live longer."""
    kind = getattr(time, "CLOCK_BOOTTIME", None)

    def steady() -> float:
        return time.monotonic() if kind is None else time.clock_gettime(kind)

    ahead = time.time() - steady()
    return lambda: steady() + ahead


class AgentListener(SocketListener):
    """The socket of an agent; see the module.

    Attributes:
        path: Where it is.
    """

    def __init__(self, sock: socket.socket, path: str, directory: str | None) -> None:
        super().__init__([sock])
        self.path = path
        self._directory = directory
        self._mark = _identity(path)
        self._process = os.getpid()

    def accept_socket(self) -> Operation[socket.socket]:
        """The socket of the next connection by the same user, or by root; others are closed.

        Raises:
            OSError: The listener is closed.
        """
        while True:
            sock = yield from super().accept_socket()
            if is_own(sock):
                return sock
            sock.close()

    def _close(self) -> None:
        super()._close()
        if os.getpid() != self._process:  # a fork's copy
            return
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._mark:  # and not another one's meanwhile
                os.unlink(self.path)  # noqa: PTH108  any path that sockets take
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def is_own(sock: socket.socket) -> bool:
    """Whether who is at the other end of a Unix-domain socket is the same user, or root; True if nobody can tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    try:
        _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    except (OSError, struct.error):
        return False
    return uid in (os.geteuid(), 0)


def agent_socket(path: str | os.PathLike[str] | None = None) -> AgentListener:
    """Make the socket of an agent.

    Args:
        path: Where, in a directory that nobody else may write to; None makes a directory for it.

    Raises:
        OSError: It can't be had: there may be something of that name.
    """
    if path is not None:
        place = os.fspath(path)
        return AgentListener(_bound(place), place, None)
    directory = tempfile.mkdtemp(prefix="sshproto-")
    try:
        place = f"{directory}/agent.{os.getpid()}"
        return AgentListener(_bound(place), place, directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _bound(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        with _umask:  # it is the whole process's
            before = os.umask(0o177)
            try:
                sock.bind(path)
            finally:
                os.umask(before)
        try:
            if stat.S_IMODE(os.lstat(path).st_mode) & 0o077:  # some systems do not look at the umask here
                os.chmod(path, 0o600)  # noqa: PTH101
            sock.listen(_BACKLOG)
        except BaseException:
            os.unlink(path)  # noqa: PTH108
            raise
    except BaseException:
        sock.close()
        raise
    return sock
