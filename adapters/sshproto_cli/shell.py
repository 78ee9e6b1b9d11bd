"""``sshproto shell``: work on another machine, in a terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING

from sshproto_cli.client import EPILOG, FAILED, add_command, add_options, command, guarded, route
from sshproto_cli.offers import add_offers
from sshproto_cli.options import Failure, complain, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from sshproto.channels.requests import PtyRequest
    from sshproto.operations.channel import Channel
    from sshproto.operations.steps import Operation
    from sshproto_cli.client import Leg
    from sshproto_cli.escape import Command
    from sshproto_cli.faces import Link
    from sshproto_cli.rawmode import RawMode
    from sshproto_cli.session import Session
    from sshproto_cli.terminal import Bell, Interrupts

_AHEAD = 64 * 1024  # bytes that may be typed, or pasted, before the server takes them


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "shell",
        help="work on another machine, in a terminal",
        usage="sshproto shell [OPTIONS] [USER@]HOST [COMMAND...]",
        description="Log in to HOST for a shell, or COMMAND, in a terminal. Without a terminal on standard input there"
        " is none at HOST either. At the start of a line, ~? lists what can be asked of sshproto itself; ~. ends the"
        f" connection. The exit status is the shell's, 128 and the signal's number if one ended it, or {FAILED} if"
        " something else went wrong.",
        epilog=EPILOG,
    )
    parser.add_argument("-e", dest="escape", metavar="CHAR", help="in the place of ~; ^X is control-X, none is none")
    add_options(parser)
    add_offers(parser)
    add_command(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    import signal

    def shell(interrupts: Interrupts) -> int:
        words = command(args)
        if args.escape is not None:
            read_escape(args.escape)  # what is wrong with it is said before anything else
        legs = route(args, interrupts)

        from sshproto_cli import faces
        from sshproto_cli.session import Session, idle

        settings = legs[-1].settings
        session = Session(args, legs[-1], words, _locale())
        if session.none:
            return faces.carry_out(args.io, legs, lambda link: session.with_forwards(link, idle), interrupts)
        if os.isatty(0) and settings.request_tty != "no":
            escape = read_escape(settings.escape_char if args.escape is None else args.escape)
            return interactive(args.io, legs, session, escape, interrupts)
        if not os.isatty(0):
            complain("standard input is no terminal, so there is none at the other side either")
        return _plain(args.io, legs, session, interrupts)

    # The terminal has to be restored before SIGQUIT ends the process, too.
    return guarded(shell, also=(signal.SIGQUIT,))


def read_escape(text: str) -> int | None:
    """The escape character of an option, or of a configuration, which may hold a control character itself.

    Raises:
        Failure: It is none.
    """
    from sshproto_cli.escape import read_character, show

    return read_character(show(ord(text)) if len(text) == 1 and text.isascii() else text)


def _plain(face: str, legs: list[Leg], session: Session, interrupts: Interrupts) -> int:
    """Without a terminal."""
    from sshproto_cli import faces
    from sshproto_cli.remote import Remote

    def work(link: Link) -> Operation[int]:
        channel = yield from _start(link, session, None)
        try:
            remote = Remote(channel)
            yield from remote.attend()
            return remote.status()
        finally:
            channel.close()

    return faces.carry_out(face, legs, lambda link: session.with_forwards(link, work), interrupts)


def interactive(face: str, legs: list[Leg], session: Session, escape: int | None, interrupts: Interrupts) -> int:
    """Run a session in a terminal.

    Args:
        face: What moves the bytes.
        legs: What leads to the host.
        session: The session.
        escape: What begins that which is for this side; None for nothing.
        interrupts: Installed.

    Returns:
        The exit status.
    """
    from sshproto_cli import faces
    from sshproto_cli.rawmode import RawMode, pty_request, resizes

    raw = RawMode(0)
    # What the terminal is like has to be known before it is raw, and that its size changes from then on.
    with resizes() as bell:
        pty = pty_request(0)

        def work(link: Link) -> Operation[int]:
            return _session(link, session, pty, raw, bell, escape)

        try:
            status = faces.carry_out(face, legs, lambda link: session.with_forwards(link, work), interrupts)
        finally:
            raw.leave()
    if not legs[-1].settings.quiet:
        say(f"Connection to {legs[-1].host} closed.")
    return status


def _session(
    link: Link, session: Session, pty: PtyRequest, raw: RawMode, bell: Bell, escape: int | None
) -> Operation[int]:
    from sshproto_cli.remote import Remote

    channel = yield from _start(link, session, pty)
    keyboard = _Keyboard(channel, raw, escape, link.hub.conn.rekey)
    try:
        raw.enter()
        remote = Remote(channel, keyboard.typed)
        yield from remote.attend(keyboard.send(), _resize(channel, bell))
    except _Disconnected:
        return FAILED
    finally:
        raw.leave()
        channel.close()
    return remote.status()


def _start(link: Link, session: Session, pty: PtyRequest | None) -> Operation[Channel]:
    from sshproto.errors import RequestRefused

    try:
        return (yield from session.start(link, pty))
    except RequestRefused as refusal:
        raise Failure(f"the server refused: {refusal}") from refusal


def _locale() -> dict[str, str]:
    """The variables that servers take, as a rule: which language it is, and which characters."""
    return {
        name: value for name, value in os.environ.items() if name.isascii() and (name == "LANG" or name[:3] == "LC_")
    }


def _resize(channel: Channel, bell: Bell) -> Operation[None]:
    """Tell the other side of each new size of the terminal."""
    from sshproto.errors import ChannelEnded, ConnectionLoss
    from sshproto.operations.steps import Ready
    from sshproto_cli.rawmode import window_change

    with contextlib.suppress(ChannelEnded, ConnectionLoss, OSError):
        while not channel.closed:
            yield Ready(bell.descriptor, until=channel.changed)
            if bell.clear():
                yield from channel.notify(window_change(0))


class _Disconnected(Exception):
    """The user has asked for the end of the connection."""


class _Keyboard:
    """What is typed: for the other side, or for this one.

    It is read on while the other side does not take it: whoever types ``~.`` has reason to.

    Args:
        channel: The session.
        raw: The terminal.
        escape: What begins that which is for this side; None for nothing.
        rekey: Starts a key exchange.
    """

    def __init__(self, channel: Channel, raw: RawMode, escape: int | None, rekey: Callable[[], None]) -> None:
        from sshproto.operations.steps import Wait
        from sshproto_cli.escape import Escapes, show

        self._channel = channel
        self._raw = raw
        self._escapes = Escapes(escape)
        self._sign = "" if escape is None else show(escape)
        self._escape = escape
        self._rekey = rekey
        self._waiting = bytearray()
        self._deaf = False
        self._changed = Wait()

    def typed(self, data: bytes) -> Operation[None]:
        """Data came; ``b""`` is the end, and waits for all of it to be sent."""
        for item in self._escapes.feed(data) if data else [self._escapes.finish()]:
            if isinstance(item, bytes):
                self._waiting += item
                self._channel.changed.fire()
            else:
                yield from self._obey(item)
        while len(self._waiting) > (_AHEAD if data else 0) and not self._deaf:
            yield self._changed

    def send(self) -> Operation[None]:
        """Send what was typed, until the channel is closed."""
        from sshproto.errors import ChannelEnded, ConnectionLoss

        channel = self._channel
        with contextlib.suppress(ChannelEnded, ConnectionLoss):
            while not channel.closed:
                if self._waiting:
                    data = bytes(self._waiting)
                    self._waiting.clear()
                    yield from channel.write(data)
                    self._changed.fire()
                else:
                    yield channel.changed
        self._deaf = True
        self._changed.fire()

    def _obey(self, wanted: Command) -> Operation[None]:
        from sshproto.channels.requests import Break
        from sshproto.errors import ChannelEnded, UsageError
        from sshproto_cli.escape import Command, help_text

        with contextlib.suppress(ChannelEnded, UsageError):  # the channel has ended just now
            match wanted:
                case Command.DISCONNECT:
                    self._show(".\r\n")
                    raise _Disconnected
                case Command.SUSPEND:
                    self._show("^Z [suspended]\r\n")
                    yield from self._channel.notify(self._raw.suspend())
                case Command.HELP:
                    self._show(f"?\r\n{help_text(self._escape or 0)}")
                case Command.REKEY:
                    self._rekey()
                case Command.BREAK:
                    yield from self._channel.notify(Break(_BREAK))

    def _show(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"{self._sign}{text}".encode())


_BREAK = 1000  # milliseconds, as ssh asks for
