"""Which channel of which connection is meant, and why it can't be shown; for verbs that look at one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from sshproto_cli.options import Failure, Misuse, complain
from sshproto_cli.pcap.opening import FAILED, conversations

if TYPE_CHECKING:
    from sshproto.replay.analysis import Conversation
    from sshproto.replay.channels import Channel, Channels
    from sshproto.replay.events import Observed, Side
    from sshproto_cli.output import Output

_CONSEQUENCE = ": this can't be read, nor would a key exchange in it show"

Taker = Callable[["Channels", "Channel", "Observed"], None]


def add_channel(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Add the option that says which channel.

    Args:
        parser: A verb's.
        otherwise: What is done if it is not given.
    """
    parser.add_argument(
        "--channel",
        metavar="M",
        type=_number,
        help=f"the channel, numbered in the order of opening from 0; {otherwise}",
    )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"not the number of a channel: {text!r}")
    return int(text)


class Picker:
    """Goes through captures and hands on what belongs to one channel.

    Args:
        args: Parsed arguments. Without ``-n`` it is the first connection.
        take: Called with the connection's channels, the channel, and each event of it.
        chosen: Whether this channel is meant; asked at each event until one is.
        which: What is meant, in words.
        output: What ``take`` writes to.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        take: Taker,
        *,
        chosen: Callable[[Channel], bool],
        which: str,
        output: Output,
    ) -> None:
        if len(args.connection) > 1:
            raise Misuse("-n was given more than once, but only one connection can be looked at")
        self._args = args
        self._take = take
        self._chosen = chosen
        self._which = which
        self._output = output
        self._connection: Conversation | None = None
        self._channels: Channels | None = None
        self._channel: Channel | None = None
        self._others = False
        self._late = False

    def go(self) -> int:
        """Do it.

        Returns:
            The exit status.

        Raises:
            Failure: A capture can't be read, or the channel is not there, or can't be opened.
        """
        from sshproto.replay.capture.flows import Ending

        problem = None
        try:
            for conversation in conversations(self._args, ask=self._begin, output=live(self._output)):
                over = conversation.connection.ending is not Ending.CAPTURE
                if conversation is self._connection and self._channel is not None and over:
                    break  # a live capture may go on for ever
        except Failure as failure:
            problem = failure
        if self._connection is None or self._channels is None:
            raise problem or Failure("there is no SSH connection in it")
        if self._others:
            number = self._connection.connection.number
            complain(f"this is connection {number}, there are more: -n says which")
        if self._channel is None:
            if problem is not None:
                complain(f"{problem}")
            raise Failure(self._why_not(self._connection, self._channels))
        status = self._report(self._channels, self._channel)
        if problem is not None:  # what there was has been handed on
            complain(f"{problem}")
            return FAILED
        return status

    def _begin(self, conversation: Conversation) -> None:
        from sshproto.replay.channels import Channels

        if self._connection is not None:
            self._others = True
            return
        self._connection = conversation
        self._channels = channels = Channels(tell=self._tell)
        conversation.sinks.append(channels)

    def _tell(self, channel: Channel, seen: Observed) -> None:
        if self._channel is None and self._chosen(channel):
            self._channel = channel
        if channel is self._channel and self._channels is not None:
            if self._channels.late and not self._late:
                self._late = True
                complain(
                    "the key stands behind what it opens: each side is shown in order, but not beside the other;"
                    ' "sshproto keylog inject" puts it in front'
                )
            self._take(self._channels, channel, seen)

    def _why_not(self, conversation: Conversation, channels: Channels) -> str:
        number = conversation.connection.number
        if (sealed := why_sealed(conversation, channels)) is not None:
            return f"connection {number} could not be opened: {sealed}"
        if not len(channels):
            return f"connection {number} has no channel"
        there = f"{len(channels)} channels, from 0 on" if len(channels) > 1 else "one channel, which is 0"
        return f"connection {number} has no {self._which}; it has {there}"

    @staticmethod
    def _report(channels: Channels, channel: Channel) -> int:
        """Say what is not there."""
        for side, problem in channel.gaps.items():
            complain(f"what the {role(side, channels.client)} sent is not whole: {problem}")
        if not channel.gaps and not channel.complete:
            complain(f"the recording lacks {' and '.join(channel.missing)} (channel {channel.number})")
        return FAILED if channel.gaps else 0


def live(output: Output) -> Output | None:
    """What is to be flushed before more of a capture is waited for; None for a file."""
    return output if output.standard else None


def role(side: Side, client: Side | None) -> str:
    """``"client"`` or ``"server"``; if nobody knows, whoever dialled is the client."""
    from sshproto.replay.events import Side

    return "client" if side is (client or Side.DIALLER) else "server"


def why_sealed(conversation: Conversation, channels: Channels) -> str | None:
    """Why nothing of a connection could be opened, in words; None if something was."""
    if channels.opened:
        return None
    summary, client = conversation.summary, channels.client
    reasons = [problem.removesuffix(_CONSEQUENCE) for problem in channels.obstacles.values()]
    reasons = list(dict.fromkeys(reasons))
    reasons += [named(each, client) for each in summary.problems if not any(each.endswith(known) for known in reasons)]
    if not reasons:
        return "its key exchange did not come to an end" if summary.negotiated is None else "nothing of it is encrypted"
    if summary.negotiated is not None:
        if not len(conversation.observer.kex.secrets):
            reasons.append("no key log was given (--keylog)")
        elif not summary.problems:
            reasons.append("of the secrets that were given none is of this connection")
    return "; ".join(reasons)


def named(problem: str, client: Side | None) -> str:
    """A problem that begins with a side, with its role instead."""
    from sshproto.replay.events import Side

    who, colon, what = problem.partition(": ")
    sides = {side.value: role(side, client) for side in Side}
    return f"{sides.get(who, who)}{colon}{what}"
