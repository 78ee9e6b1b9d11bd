"""``sshproto pcap follow``: the bytes of a channel, or which channels there are."""

from __future__ import annotations

import argparse
import base64
import codecs
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from sshproto_cli.options import Failure, carry_out, complain
from sshproto_cli.output import STDOUT, Output
from sshproto_cli.pcap.opening import FAILED, add_options, conversations
from sshproto_cli.pcap.picking import Picker, add_channel, live, named, role, why_sealed

if TYPE_CHECKING:
    from sshproto.replay.analysis import Conversation
    from sshproto.replay.channels import Channel, Channels
    from sshproto.replay.events import Observed

_COLOURS = {"client": "\x1b[36m", "server": "\x1b[33m", "stderr": "\x1b[31m"}
_PLAIN = "\x1b[0m"
_MARK = max(map(len, _COLOURS)) + 1
_ROW = 16
_SHOWN = 60  # characters of a command


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "follow",
        help="the bytes of a channel",
        description="Show what a channel carried, both ways, each line marked with who sent it; without --channel, show"
        " which channels there are. With --raw, the bytes as they were sent.",
        epilog=f"The exit status is 0, or {FAILED} if a connection could not be opened, a channel is not there, or"
        " something of it is missing.",
    )
    add_options(parser)
    add_channel(parser, "without it, the channels are listed")
    which = parser.add_argument_group("what of a channel", "All of it if none of these is given.")
    which.add_argument("--client", action="store_true", help="what the client sent")
    which.add_argument("--server", action="store_true", help="what the server sent, but for standard error")
    which.add_argument("--stderr", action="store_true", help="standard error, and other extended data")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="the bytes and nothing else, in the order in which they came")
    form.add_argument("--hex", action="store_true", help="in hexadecimal")
    form.add_argument(
        "--json", action="store_true", help="one JSON object a line: a channel, or with --channel a message"
    )
    parser.add_argument("-o", dest="output", metavar="FILE", default=STDOUT, help="write to FILE, not standard output")
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: on a terminal, unless NO_COLOR is set",
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_follow, args)


def _follow(args: argparse.Namespace) -> int:
    inputs = [*args.files, *args.keylog, *args.session_keys]
    with Output(args.output, inputs=inputs) as output:
        if args.channel is None:
            return _list(args, output)
        form: Any = _Raw if args.raw else _Json if args.json else _Hex if args.hex else _Text
        shown = form(output, _colour(args))
        wanted = {name for name in _COLOURS if getattr(args, name)} or set(_COLOURS)

        def take(channels: Channels, channel: Channel, seen: Observed) -> None:
            from sshproto.events import DataReceived

            event = seen.event
            if type(event) is DataReceived:
                who = role(seen.side, channels.client)
                name = "stderr" if event.stream else who
                if name in wanted:
                    shown.take(name, who, seen, event)

        picker = Picker(
            args,
            take,
            chosen=lambda channel: channel.number == args.channel,
            which=f"channel {args.channel}",
            output=output,
        )
        try:
            return picker.go()
        finally:
            shown.finish()


def _colour(args: argparse.Namespace) -> bool:
    if args.color != "auto":
        return bool(args.color == "always")
    terminal = args.output == STDOUT and sys.stdout.isatty()
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


# ---------------------------------------------------------------------------------------------------------------- forms


class _Raw:
    """The bytes."""

    def __init__(self, output: Output, colour: bool) -> None:
        self._output = output

    def take(self, name: str, who: str, seen: Observed, event: Any) -> None:
        self._output.write(event.data)

    def finish(self) -> None:
        """There is no more."""


class _Json(_Raw):
    """A line for each message."""

    def take(self, name: str, who: str, seen: Observed, event: Any) -> None:
        from sshproto.replay.channels import stream_name

        row = {
            "time": seen.time,
            "frames": list(seen.frames),
            "from": who,
            "stream": stream_name(event.stream),
            "bytes": len(event.data),
            "data": base64.b64encode(event.data).decode("ascii"),
        }
        self._output.text(json.dumps(row) + "\n")


class _Marked(_Raw):
    """For people: each line begins with who has sent it."""

    def __init__(self, output: Output, colour: bool) -> None:
        super().__init__(output, colour)
        self._colour = colour

    def _line(self, name: str, text: str, *, begun: bool = False) -> str:
        mark = "" if begun else f"{name + '>':{_MARK}} "
        return f"{_COLOURS[name]}{mark}{text}{_PLAIN}" if self._colour else mark + text


class _Hex(_Marked):
    """Bytes in hexadecimal, beside them those that are letters; each sender and stream counts by itself."""

    def __init__(self, output: Output, colour: bool) -> None:
        super().__init__(output, colour)
        self._places: dict[tuple[str, str], int] = {}

    def take(self, name: str, who: str, seen: Observed, event: Any) -> None:
        place = self._places.get((name, who), 0)
        data: bytes = event.data
        for start in range(0, len(data), _ROW):
            row = data[start : start + _ROW]
            letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            text = f"{place + start:08x}  {row.hex(' '):{3 * _ROW}} {letters}"
            self._output.text(self._line(name, text) + "\n")
        self._places[name, who] = place + len(data)


class _Text(_Marked):
    """Text, as far as it is that; whatever could move a cursor is escaped."""

    def __init__(self, output: Output, colour: bool) -> None:
        super().__init__(output, colour)
        self._decoders: dict[tuple[str, str], Any] = {}
        self._held: dict[tuple[str, str], str] = {}
        self._open: str | None = None  # whose line has no end yet

    def take(self, name: str, who: str, seen: Observed, event: Any) -> None:
        key = name, who
        decoder = self._decoders.get(key)
        if decoder is None:
            decoder = self._decoders[key] = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        text = self._held.pop(key, "") + decoder.decode(event.data)
        if text.endswith("\r"):  # there may be a line feed to come
            text, self._held[key] = text[:-1], "\r"
        self._show(name, text)

    def finish(self) -> None:
        for key, decoder in self._decoders.items():
            self._show(key[0], self._held.pop(key, "") + decoder.decode(b"", final=True))
        if self._open is not None:
            self._output.text("\n")

    def _show(self, name: str, text: str) -> None:
        from sshproto.text import multiline

        parts: list[str] = []
        for line in multiline(text, len(text)).splitlines(keepends=True):
            if self._open not in (None, name):
                parts.append("\n")
                self._open = None
            parts.append(self._line(name, line.rstrip("\n"), begun=self._open == name))
            ended = line.endswith("\n")
            parts.append("\n" if ended else "")
            self._open = None if ended else name
        self._output.text("".join(parts))


# ----------------------------------------------------------------------------------------------------------------- list


def _list(args: argparse.Namespace, output: Output) -> int:
    from sshproto.replay.channels import Channels

    collected: dict[int, Channels] = {}

    def begin(conversation: Conversation) -> None:
        collected[conversation.connection.number] = channels = Channels()
        conversation.sinks.append(channels)

    status, any_seen = 0, False
    found = conversations(args, ask=begin, output=live(output))
    while True:
        try:
            conversation = next(found, None)
        except Failure as failure:  # what there was has been shown
            complain(f"{failure}")
            return FAILED
        if conversation is None:
            break
        any_seen = True
        number = conversation.connection.number
        channels = collected.pop(number)
        sealed = why_sealed(conversation, channels)
        if sealed is not None:
            complain(f"connection {number} could not be opened: {sealed}")
            status = FAILED
        if args.json:
            for channel in channels:
                output.text(json.dumps({"connection": number, **channel.as_dict(channels.client)}) + "\n")
            continue
        ends = conversation.connection
        output.text(f"connection {number}, {ends.dialler} to {ends.dialled}\n")
        for channel in channels:
            output.text("".join(f"{line}\n" for line in _describe(channel, channels)))
        if channels.more:
            output.text(f"  and {channels.more} channels more\n")
        if not len(channels):
            output.text("  no channel is known\n" if sealed is not None else "  no channel\n")
    if not any_seen:
        complain("there is no SSH connection in it")
        return FAILED
    return status


def _describe(channel: Channel, channels: Channels) -> list[str]:
    """A channel on a line or two."""
    from sshproto.channels.requests import ExitSignal, ExitStatus
    from sshproto.replay.channels import plain, stream_name
    from sshproto.text import printable

    kind = printable(channel.kind.type) if channel.kind is not None else "never seen opened"
    if channel.kind is not None:
        target = " ".join(f"{name}={value}" for name, value in plain(channel.kind).items() if value not in ("", 0))
        kind = f"{kind} {printable(target)}".rstrip()
    what = [kind]
    if channel.opener is not None and role(channel.opener, channels.client) == "server":
        what.append("opened by the server")
    if (program := channel.program) is not None:
        of = next(iter(plain(program).values()), "")
        what.append(f'{program.type} "{printable(of, _SHOWN)}"' if of else program.type)
    if (terminal := channel.terminal) is not None:
        what.append(f"terminal {printable(terminal.term)} {terminal.columns}x{terminal.rows}")
    counts: list[str] = []
    carried_by = [(stream, role(side, channels.client), each) for (side, stream), each in channel.streams.items()]
    for stream, who, carried in sorted(carried_by, key=lambda each: each[:2]):
        name = who if not stream else f"{who}'s {stream_name(stream)}"
        counts.append(f"{name} {carried.size:,} {'byte' if carried.size == 1 else 'bytes'}")
    match channel.exit:
        case ExitStatus(status=code):
            counts.append(f"exit status {code}")
        case ExitSignal(name=signal):
            counts.append(f"ended by signal {printable(signal)}")
        case None:
            pass
    if channel.failure is not None:
        counts.append(f"refused: {channel.failure[1] or f'reason {channel.failure[0]}'}")
    counts += [f"missing: {named(each, channels.client)}" for each in channel.missing]
    return [f"{channel.number:>5}  {', '.join(what)}", *([f"       {', '.join(counts)}"] if counts else [])]
