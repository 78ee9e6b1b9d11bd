"""``sshproto pcap decode``: all that was said, event by event.

With ``--json`` each event is one JSON object on a line of its own: the columns of
:data:`sshproto.replay.rows.EVENT_COLUMNS` (``kind`` is the event's class, of ``sshproto.replay.events``, or of
``sshproto.events`` for what a live connection at the receiver would tell; ``words`` is it in short, for people), and

===================  ================================================================================================
``fields``           the event's attributes by their names, of a packet those of its message: text as it is (4096
                     characters at most, control characters escaped), keys by their fingerprint, other binary values
                     by their size. Passwords and answers are left out unless ``--secrets`` is given
===================  ================================================================================================

An opened packet (``PacketOpened``) has these, too:

===================  ================================================================================================
``sequence_number``  its number
``epoch``            how many NEWKEYS its sender has sent before; 0 is in clear
``offset``           where in its sender's stream it begins
``length``           bytes of the payload; ``size`` is that of the packet on the wire
``integrity``        ``"verified"``, ``"unchecked"`` for a MAC that is not known here, ``"none"`` before keys are in use
``guessed``          it was sent on a wrong guess, and its receiver ignores it
``context``          what gives a number of more than one meaning its meaning
``payload``          with ``--payload``, in hexadecimal; null where it has a password or answers and there is no
                     ``--secrets``
===================  ================================================================================================
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sshproto_cli.options import Misuse, carry_out
from sshproto_cli.pcap import opening

if TYPE_CHECKING:
    from collections.abc import Callable

    from sshproto.replay.analysis import Conversation
    from sshproto.replay.events import Observed, PacketOpened, Side
    from sshproto_cli.describe import Words

LEVELS = ("packets", "events", "all")

_HELD = 64
"""So many events of a connection are kept back until it is known who is the client."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "decode",
        help="all that was said, event by event",
        description="Show what was said on the SSH connections of captures, as it was captured: each packet with its"
        " time, its frames, who sent it, whether its MAC was right, and what it says; what could be opened, what is"
        " missing, and what is wrong.",
        epilog="The exit status is 0 if the captures could be read to their ends, 1 if not, 2 for options that make no"
        " sense.",
    )
    opening.add_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object an event, for programs")
    parser.add_argument(
        "--level",
        choices=LEVELS,
        help="packets: what was sent (the default); events: what a live connection would have told its application;"
        " all: both (the default with --json). Notes and problems are always shown",
    )
    parser.add_argument("--details", action="store_true", help="what does not fit on a line, on lines below it")
    parser.add_argument("--payload", action="store_true", help="with --json: the payloads of packets, in hexadecimal")
    parser.add_argument("--secrets", action="store_true", help="show passwords and answers to prompts, too")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_decode, args)


def _decode(args: argparse.Namespace) -> int:
    if args.payload and not args.json:
        raise Misuse("--payload goes with --json")
    kind: type[_Show] = _Json if args.json else _Lines
    with opening.LineOutput() as output:

        def begin(conversation: Conversation) -> None:
            shown = kind(conversation, output.line, args)
            conversation.sinks.append(shown)
            shows[conversation.connection.number] = shown

        shows: dict[int, _Show] = {}
        for conversation in opening.conversations(args, ask=begin, output=output):
            shows.pop(conversation.connection.number).end()
    return 0


class _Show:
    """Shows one connection's events; the first are kept back until it is known who has sent them."""

    def __init__(self, conversation: Conversation, line: Callable[[str], None], args: argparse.Namespace) -> None:
        from sshproto.replay.rows import EventRows
        from sshproto_cli.describe import Describer

        self.conversation = conversation
        self.number = conversation.connection.number
        self.line = line
        self.secrets: bool = args.secrets
        self.details: bool = args.details
        self.payload: bool = args.payload
        self.level: str = args.level or ("all" if args.json else "packets")
        self.row: dict[str, Any] = {}
        self._describer = Describer(fields=args.json)
        self._rows = EventRows(conversation, self._set_row)
        self._held: list[Observed] | None = []

    def add(self, seen: Observed, /) -> None:
        """Take an event."""
        if self._held is None:
            self._take(seen)
            return
        self._held.append(seen)
        if self.conversation.summary.client is not None or len(self._held) >= _HELD:
            self._release()

    def end(self) -> None:
        """There are no more."""
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        for seen in held or ():
            self._take(seen)

    def _set_row(self, row: dict[str, Any]) -> None:
        self.row = row

    def role(self, side: Side) -> str | None:
        """Who that is."""
        from sshproto.replay.events import role_of

        role = role_of(side, self.conversation.summary.client)
        return None if role is None else role.value

    def _take(self, seen: Observed) -> None:
        from sshproto.replay.events import PacketOpened, Side
        from sshproto.wire.table import Role
        from sshproto_cli import notes
        from sshproto_cli.describe import Words

        event = seen.event
        self._rows.add(seen)  # it counts
        if not self._wanted(event):
            return
        self.row["role"] = self.role(seen.side)
        if not isinstance(event, PacketOpened):
            self.show(seen, notes.event(event, secrets=self.secrets))
        elif event.message is None:
            self.show(seen, Words(f"{len(event.payload):,} bytes that mean nothing here"))
        else:
            client = self.conversation.summary.client or Side.DIALLER
            role = Role.CLIENT if seen.side is client else Role.SERVER
            self.show(seen, self._describer.describe(role, event.message, secrets=self.secrets))

    def _wanted(self, event: Any) -> bool:
        from sshproto.events import VersionReceived
        from sshproto.replay import events

        if isinstance(event, events.PacketOpened | events.PacketSealed | events.Ssh1Packet):
            return self.level != "events"
        if isinstance(event, events.OfferSeen):  # which the packet has told already
            return self.level == "all"
        if isinstance(event, VersionReceived) or type(event).__module__ == events.__name__:
            return True
        return self.level != "packets"

    def show(self, seen: Observed, words: Words) -> None:
        """Write it."""
        raise NotImplementedError


def message_of(event: Any) -> str:
    """The name of a packet's message."""
    from sshproto.replay.events import PacketOpened
    from sshproto.wire.table import message_name

    return message_name(event.number, event.context) if isinstance(event, PacketOpened) else event.name


def _channel(event: PacketOpened) -> int | None:
    """The recipient's number of the channel that a packet belongs to."""
    return getattr(event.message, "recipient_channel", None)


# --------------------------------------------------------------------------------------------------------------- people


class _Lines(_Show):
    """For people: a line an event."""

    _begun = False

    def show(self, seen: Observed, words: Words) -> None:
        from sshproto.events import VersionReceived
        from sshproto.replay import events
        from sshproto.text import printable
        from sshproto_cli.pcap import views

        if not self._begun:
            self._begun = True
            began = views.moment(self.conversation.connection.time)
            self.line(f"{views.heading(self.conversation)}, {began}")
        event = seen.event
        number, state, size, channel = "", "", "", ""
        match event:
            case events.PacketOpened():
                number, size = str(event.sequence_number), f"{event.size:,}"
                state = _STATES[event.integrity.value]
                if (recipient := _channel(event)) is not None:
                    channel = f"c{recipient}"
                what = message_of(event) + (" (a wrong guess, ignored)" if event.guessed else "")
            case events.Ssh1Packet():
                state, size, what = _STATES["none"], f"{event.size:,}", event.name
            case events.PacketSealed():
                state, size, what = "sealed", f"{event.size:,}", ""
            case VersionReceived():
                state, what = _STATES["none"], ""
            case _:
                what = _NOTES.get(type(event).__name__, type(event).__name__)
        text = f"{what}{'  ' if what and words.summary else ''}{words.summary}"
        columns = (
            f"{self.number:>3}", f"{self._time(seen):>12}", f"{_frames(seen.frames):<9}",
            f"{self.row['role'] or seen.side.value:<7}", f"{number:>5}", f"{state:<9}", f"{size:>7}",
            f"{channel:<3}", text,
        )  # fmt: skip
        self.line(printable(" ".join(columns), 4096).rstrip())
        if self.details:
            for label, value in words.details:
                shown = value if isinstance(value, str) else ", ".join(value)
                self.line(printable(f"{'':64}{label}: {shown}", 16 * 1024))

    def _time(self, seen: Observed) -> str:
        if seen.time is None:
            return "?"
        return f"{seen.time - self.conversation.connection.time / 1e9:.6f}"


_STATES = {"none": "clear", "verified": "MAC right", "unchecked": "unchecked"}
_NOTES = {
    "RolesSeen": "--",
    "KexSeen": "--",
    "SecretFound": "--",
    "KeysMissing": "--",
    "Reopened": "--",
    "Missing": "missing:",
    "Problem": "problem:",
    "Ended": "--",
}
"""What notes begin with, which are no packets."""


def _frames(frames: tuple[int, ...]) -> str:
    if not frames:
        return ""
    first, last = frames[0], frames[-1]
    if len(frames) == 1:
        return str(first)
    mark = "-" if last - first + 1 == len(frames) else "," if len(frames) == 2 else ".."
    return f"{first}{mark}{last}"


# ----------------------------------------------------------------------------------------------------------------- JSON


class _Json(_Show):
    """For programs."""

    def show(self, seen: Observed, words: Words) -> None:
        import json

        from sshproto.replay.events import PacketOpened

        event = seen.event
        found = self.row | {"words": words.summary, "fields": dict(words.fields)}
        if isinstance(event, PacketOpened):
            found |= {
                "sequence_number": event.sequence_number,
                "epoch": event.epoch,
                "offset": event.offset,
                "length": len(event.payload),
                "integrity": event.integrity.value,
                "guessed": event.guessed,
                "context": event.context,
            }
            if self.payload:
                found["payload"] = event.payload.hex() if self.secrets or not _secret(event) else None
        self.line(json.dumps(found))


def _secret(event: PacketOpened) -> bool:
    """Whether a packet's payload has a password, or answers."""
    from sshproto.wire import messages as m

    # What did not decode may have one, too.
    match event.message:
        case m.UserauthRequest(method=method):
            return method not in ("none", "publickey", "hostbased")
        case None:
            return 50 <= event.number < 80
        case message:
            return isinstance(message, m.UserauthInfoResponse)
