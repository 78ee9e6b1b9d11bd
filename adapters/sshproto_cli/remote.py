"""A program at the server whose standard streams are ours.

Nobody is read faster than the other side takes: memory stays flat, whoever is slow.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sshproto.channels.requests import EndOfWrite
from sshproto.errors import ChannelEnded, ConnectionLoss
from sshproto.operations.steps import Operation, Together
from sshproto_cli.client import FAILED
from sshproto_cli.options import Failure, complain
from sshproto_io.descriptors import Descriptor, nonblocking

if TYPE_CHECKING:
    from sshproto.operations.channel import Channel

_PIECE = 64 * 1024
_EOW_PATIENCE = 1.0  # seconds that a peer has to heed eow@openssh.com
_SIGPIPE = 13

Typed = Callable[[bytes], Operation[None]]
"""Takes what came on standard input; ``b""`` is its end."""


class Remote:
    """A program in a session, between our standard descriptors.

    Args:
        channel: Its session.
        typed: What to do with standard input in the place of sending it.

    Attributes:
        reader_left: Nobody reads its standard output to the end (EPIPE).
    """

    def __init__(self, channel: Channel, typed: Typed | None = None) -> None:
        self._channel = channel
        self._typed = self._send if typed is None else typed
        self.reader_left = False

    def attend(self, *others: Operation[None]) -> Operation[None]:
        """Pass everything on until the program has ended and all that it wrote is written.

        Descriptors are used without blocking and left as they were found; they are not closed. What has come is
        written even if the connection is lost.

        Args:
            others: What goes on meanwhile. It ends with the channel.

        Raises:
            Failure: A descriptor has failed, other than by EPIPE: a reader that has left is no error.
            ConnectionLoss: The connection has ended before the program did.
        """
        channel = self._channel
        with nonblocking((0, 1, 2)):
            stdin = Descriptor(0)
            yield Together(
                self._input(stdin),
                self._until_deaf(stdin),
                self._output(Descriptor(1), 0),
                self._output(Descriptor(2), 1),
                *others,
            )
        ended = channel.exit_status is not None or channel.exit_signal is not None
        if channel.lost and not (channel.eof_received and ended):
            channel.hub.check()

    def _input(self, stdin: Descriptor) -> Operation[None]:
        try:
            try:
                while not stdin.closed:
                    data = yield from stdin.read(_PIECE)
                    yield from self._typed(data)
                    if not data:
                        break
            except ChannelEnded:
                pass
            except OSError as error:
                if not stdin.closed:
                    raise Failure(f"standard input: {error.strerror or error}") from error
            yield from self._channel.send_eof()
        except ConnectionLoss:  # will be told when all that came is written
            pass

    def _send(self, data: bytes) -> Operation[None]:
        if data:
            yield from self._channel.write(data)

    def _until_deaf(self, stdin: Descriptor) -> Operation[None]:
        """Read our input no more once nobody wants it."""
        channel = self._channel
        while channel.peer_reads and not channel.closed:
            yield channel.changed
        stdin.close()

    def _output(self, sink: Descriptor, stream: int) -> Operation[None]:
        channel = self._channel
        try:
            while data := (yield from channel.read(_PIECE, stream)):
                try:
                    yield from sink.write(data)
                except BrokenPipeError:
                    break
                except OSError as error:
                    what = "standard error" if stream else "standard output"
                    raise Failure(f"{what}: {error.strerror or error}") from error
            else:
                return
            if stream:
                channel.inbox(stream).discard()
            else:
                yield from self._refuse_output()
        except ConnectionLoss:  # will be told when all that came is written
            pass

    def _refuse_output(self) -> Operation[None]:
        """Nobody reads our standard output any more: tell the peer, and throw away what comes."""
        channel = self._channel
        self.reader_left = True
        end = time.monotonic() + _EOW_PATIENCE
        with contextlib.suppress(ChannelEnded):
            yield from channel.notify(EndOfWrite())
        while (yield from channel.read(_PIECE)):
            if time.monotonic() > end:  # the peer does not know eow, and its program would never learn of it
                channel.close()

    def status(self) -> int:
        """The exit status for how it has ended; what a status can't say is told on standard error."""
        import signal

        channel = self._channel
        if channel.exit_status is not None:
            return channel.exit_status & 0xFF
        ended = channel.exit_signal
        if self.reader_left and (ended is None or ended.name == "PIPE"):
            return 128 + _SIGPIPE  # our own reader has seen enough: nothing to tell
        if ended is not None:
            known = getattr(signal, f"SIG{ended.name}", None)
            core = ", and dumped core" if ended.core_dumped else ""
            complain(f"the command was ended by signal {ended.name}{core}")
            return 128 + int(known) if isinstance(known, signal.Signals) else FAILED
        complain("the server did not say how the command ended")
        return FAILED
