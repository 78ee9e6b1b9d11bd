"""Commands, shells and subsystems at a server, from the client's side (RFC 4254 section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from sshproto.channels.requests import (
    SESSION,
    Env,
    Exec,
    ExitSignal,
    PtyRequest,
    Shell,
    Signal,
    Subsystem,
    WindowChange,
)
from sshproto.errors import ChannelEnded, InvalidArgument, SSHError
from sshproto.operations.channel import Channel
from sshproto.operations.steps import Operation
from sshproto.text import printable
from sshproto.values import frozen

if TYPE_CHECKING:
    from sshproto.client import ClientConnection
    from sshproto.operations.agent_forwarding import AgentForwarding
    from sshproto.operations.hub import Hub
    from sshproto.operations.x11 import X11Forwarding
    from sshproto.wire.codec import Buffer

Program = Exec | Shell | Subsystem
"""What can run in a session."""


@frozen(kw_only=True)
class Completed:
    """How a command ended, and what it wrote.

    Attributes:
        command: What was run.
        stdout, stderr: What it wrote.
        exit_status: Its status, 0 to 255 in practice; None if a signal ended it or the server did not say.
        exit_signal: The signal that ended it, or None.
    """

    command: bytes = attrs.field(repr=False)
    stdout: bytes = attrs.field(default=b"", repr=False)
    stderr: bytes = attrs.field(default=b"", repr=False)
    exit_status: int | None = None
    exit_signal: ExitSignal | None = None

    def check(self) -> None:
        """See that the command has succeeded.

        Raises:
            CommandFailed: Its status is not 0.
        """
        if self.exit_status != 0:
            raise CommandFailed(self)


class CommandFailed(SSHError):
    """A command has ended with a status other than 0, by a signal, or nobody knows how.

    Attributes:
        completed: How it ended, and what it wrote.
    """

    def __init__(self, completed: Completed) -> None:
        if completed.exit_signal is not None:
            how = f"was ended by signal {printable(completed.exit_signal.name, 64)}"
        elif completed.exit_status is not None:
            how = f"ended with status {completed.exit_status}"
        else:
            how = "ended, and the server did not say how"
        super().__init__(f"the command {how}")
        self.completed = completed


def octets(text: str | bytes) -> bytes:
    """Text for the server as UTF-8; what the system could not decode goes as it came.

    Raises:
        InvalidArgument: It does not encode.
    """
    if not isinstance(text, str):
        return text
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"text for the server does not encode: {error}") from None


def start(
    hub: Hub[ClientConnection],
    program: Program,
    *,
    pty: PtyRequest | None = None,
    env: Mapping[str, str | bytes] | None = None,
    agent: AgentForwarding | None = None,
    x11: X11Forwarding | None = None,
) -> Operation[Channel]:
    """Start a program in a session of its own.

    Args:
        hub: The connection's.
        program: What.
        pty: The pseudo-terminal that it is to have.
        env: Environment variables; servers take few, and do not say which.
        agent: The agent that it is to have.
        x11: The display that it is to have.

    Raises:
        OpenRefused, RequestRefused: The server will not.
        ConnectionLoss: The connection has ended.
        UsageError: It cannot be asked for.
    """
    channel = yield from hub.open_channel(SESSION)
    try:
        if pty or env or agent or x11:
            yield from _equip(channel, pty, env, agent, x11)
        yield from channel.require(program)
    except BaseException:
        channel.close()
        raise
    return channel


def _equip(
    channel: Channel,
    pty: PtyRequest | None,
    env: Mapping[str, str | bytes] | None,
    agent: AgentForwarding | None,
    x11: X11Forwarding | None,
) -> Operation[None]:
    """Ask for what a program is to have."""
    if x11 is not None:
        yield from x11.offer(channel)
    if agent is not None:
        yield from agent.offer(channel)
    if pty is not None:
        yield from channel.require(pty)
    if env:
        for name, value in env.items():
            yield from channel.notify(Env(name, octets(value)))


def run(
    hub: Hub[ClientConnection],
    command: str | bytes,
    *,
    input: Buffer = b"",
    check: bool = False,
    pty: PtyRequest | None = None,
    env: Mapping[str, str | bytes] | None = None,
    agent: AgentForwarding | None = None,
    x11: X11Forwarding | None = None,
) -> Operation[Completed]:
    """Run a command to its end, with all it writes kept in memory.

    Args:
        hub: The connection's.
        command: For the user's shell at the server.
        input: Its standard input.
        check: Raise if its status is not 0.
        pty, env, agent, x11: See :func:`start`.

    Raises:
        CommandFailed: ``check``, and it has failed.
        OpenRefused, RequestRefused: The server will not run it.
        ConnectionLoss: The connection ended before the command did.
        UsageError: It cannot be asked for.
    """
    command = octets(command)
    if isinstance(input, str):  # said before anything runs
        raise InvalidArgument("the input of a command must be bytes, not str")
    channel = yield from hub.open_channel(SESSION)
    try:  # as start() does it, but with one end for all of it
        if pty or env or agent or x11:
            yield from _equip(channel, pty, env, agent, x11)
        yield from channel.require(Exec(command))
        channel.gather()
        try:
            if len(input):
                yield from channel.write(input)
        except ChannelEnded:  # the command did not want it all
            pass
        if not channel.closed:
            yield from channel.send_eof()
        while not (channel.closed or (channel.eof_received and channel.exited)):
            yield channel.changed
        if channel.lost and not (channel.eof_received and channel.exited):
            hub.check()
        completed = Completed(
            command=command,
            stdout=channel.gathered(0),
            stderr=channel.gathered(1),
            exit_status=channel.exit_status,
            exit_signal=channel.exit_signal,
        )
    finally:
        channel.close()
    if check:
        completed.check()
    return completed


def send_signal(channel: Channel, name: str) -> Operation[None]:
    """Send a signal to the program (RFC 4254 section 6.9).

    Args:
        channel: Its session.
        name: Without ``SIG``: ``"TERM"``.
    """
    yield from channel.notify(Signal(name))


def resize(channel: Channel, columns: int, rows: int, width: int = 0, height: int = 0) -> Operation[None]:
    """Tell the size of the terminal (RFC 4254 section 6.7)."""
    yield from channel.notify(WindowChange(columns, rows, width, height))
