"""``sshproto pcap cast``: a terminal session as a recording that asciinema plays."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sshproto_cli.options import carry_out, complain, seconds
from sshproto_cli.output import STDOUT, Output
from sshproto_cli.pcap.opening import FAILED, add_options
from sshproto_cli.pcap.picking import Picker, add_channel

if TYPE_CHECKING:
    from sshproto.replay.cast import Cast
    from sshproto.replay.channels import Channel, Channels
    from sshproto.replay.events import Observed

_LONGEST = 86400.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "cast",
        help="a terminal session, for asciinema to play",
        description="Write what a terminal showed as an asciicast (version 3), which asciinema plays: output with its"
        " times, changes of the size, the exit status.",
        epilog="What was typed is left out unless --input is given: that has passwords in it, which no terminal shows."
        f" The exit status is 0, or {FAILED} if the connection could not be opened, or something is missing.",
    )
    add_options(parser)
    add_channel(parser, "the first that has a terminal if this is not given")
    parser.add_argument("-o", dest="output", metavar="FILE", default=STDOUT, help="write to FILE, not standard output")
    parser.add_argument("--input", action="store_true", help="what was typed, too: this shows passwords")
    parser.add_argument(
        "--idle",
        metavar="SECONDS",
        type=seconds(_LONGEST),
        help="players wait no longer than this where nothing happens; the times stay as they were",
    )
    parser.add_argument("--title", metavar="TEXT", default="", help="what it is called")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_cast, args)


def _cast(args: argparse.Namespace) -> int:
    inputs = [*args.files, *args.keylog, *args.session_keys]
    with Output(args.output, inputs=inputs) as output:
        recorder = _Recorder(args, output)
        picker = Picker(
            args,
            recorder.take,
            chosen=recorder.wants,
            which="channel with a terminal" if args.channel is None else f"channel {args.channel}",
            output=output,
        )
        status = picker.go()
        recorder.finish()
        return status


class _Recorder:
    def __init__(self, args: argparse.Namespace, output: Output) -> None:
        self._args = args
        self._output = output
        self._cast: Cast | None = None
        self._channel: Channel | None = None

    def wants(self, channel: Channel) -> bool:
        number: int | None = self._args.channel
        return channel.terminal is not None if number is None else channel.number == number

    def take(self, channels: Channels, channel: Channel, seen: Observed) -> None:
        if self._cast is None:
            self._begin(channels, channel)
        if self._cast is not None and (lines := self._cast.add(channel, seen)):
            self._output.text(lines)

    def _begin(self, channels: Channels, channel: Channel) -> None:
        from sshproto.replay.cast import Cast
        from sshproto.replay.events import Side

        server = (channels.client or Side.DIALLER).other
        self._channel = channel
        self._cast = Cast(server, keys=self._args.input, idle=self._args.idle, title=self._args.title)

    def finish(self) -> None:
        """There is no more."""
        from sshproto.replay.cast import COLUMNS, ROWS

        if self._cast is None or self._channel is None:
            return
        self._output.text(self._cast.finish(self._channel))
        if self._channel.terminal is None:
            complain(f"channel {self._channel.number} has no terminal; one of {COLUMNS}x{ROWS} was assumed")
        elif self._cast.assumed:
            complain(f"nothing is said of the terminal's size; {COLUMNS}x{ROWS} was assumed")
