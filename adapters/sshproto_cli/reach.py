"""How a host is reached that no other leads to: by dialling it, or by a command that does."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

from sshproto.operations.steps import Operation, Sleep, within
from sshproto_cli.options import Failure, complain, describe
from sshproto_io.sockets import SocketStream, dial

if TYPE_CHECKING:
    from sshproto.ssh_config import HostConfig
    from sshproto_io.sockets import Resolve

_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
_PAUSE = 1.0  # seconds between attempts, as in ssh
_MOMENT = 0.5  # seconds in which it ends if it has closed its output because of that
_PATIENCE = 2.0  # seconds that a command has to end once it was told to


class Reach:
    """Makes the stream to a host, by ``ProxyCommand`` or what else the configuration says.

    Args:
        config: What holds for the host.

    Attributes:
        problem: What became of a command that has closed its output; "" if there is none, or if it still runs.

    Raises:
        Failure: It says what can't be done here.
    """

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._command = config.proxy_command_line()
        self._process: subprocess.Popen[bytes] | None = None
        if self._command is not None and config.proxy_use_fdpass:
            raise Failure("ProxyUseFdpass is not supported: the command has to pass the data itself")
        if self._command == "-":
            raise Failure("ProxyCommand - is not supported: standard input and output are those of the session")

    @property
    def problem(self) -> str:
        if self._process is None:
            return ""
        try:
            status = self._process.wait(_MOMENT)
        except subprocess.TimeoutExpired:
            return ""
        return (
            f"the ProxyCommand was ended by signal {-status}" if status < 0 else f"the ProxyCommand ended with {status}"
        )

    def stream(self, resolve: Resolve) -> Operation[SocketStream]:
        """Connect.

        Args:
            resolve: Looks names up.

        Raises:
            OSError: Nobody can be reached.
        """
        config = self._config
        if self._command is not None:
            return self._start(self._command)
        target = config.hostname, config.port
        family = _FAMILIES[config.address_family]
        left = config.connection_attempts
        while True:
            dialling = dial(target, resolve, family=family, source=config.bind_address)
            try:
                if seconds := config.connect_timeout:
                    late = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                    dialling = within(dialling, float(seconds), late)
                return self._alive((yield from dialling))
            except OSError:
                left -= 1
                if not left:
                    raise
            yield Sleep(_PAUSE)

    def _alive(self, stream: SocketStream) -> SocketStream:
        sock = stream.detach()
        if self._config.tcp_keep_alive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return SocketStream(sock)

    def _start(self, command: str) -> SocketStream:
        """Run the command; its standard input and output are the far end of the stream."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                shell, end = os.environ.get("SHELL") or "/bin/sh", theirs.fileno()
                self._process = subprocess.Popen([shell, "-c", f"exec {command}"], stdin=end, stdout=end)  # noqa: S603  theirs to choose
        except OSError as error:
            ours.close()
            raise Failure(f"ProxyCommand: {describe(error)}") from None
        return SocketStream(ours)

    def end(self) -> None:
        """End the command, if it still runs. Repeated calls do nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                complain("the ProxyCommand does not end, and is killed")
                process.kill()
                process.wait()
