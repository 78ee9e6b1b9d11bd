"""What a user types to the client itself in an interactive session: ``~.`` and its like.

An escape character counts only as the first one of a line, which is to say of all that is typed, or behind CR, LF or
another escape sequence. It is held back until the next character says what it means; how the input is cut into pieces
makes no difference. The sequences are ssh's.
"""

from __future__ import annotations

import re
from enum import Enum

from sshproto_cli.options import Failure

DEFAULT = ord("~")

_NEWLINES = b"\r\n"


class Command(Enum):
    """What an escape sequence asks for; the value is the byte behind the escape character."""

    DISCONNECT = ord(".")
    """End the connection at once."""
    SUSPEND = ord("Z") - 64
    """Stop this process, as a shell's control-Z does."""
    HELP = ord("?")
    """Show :func:`help_text`."""
    REKEY = ord("R")
    """Start a key exchange."""
    BREAK = ord("B")
    """Send BREAK (RFC 4335)."""


_COMMANDS = {command.value: command for command in Command}
_PURPOSES = {
    Command.DISCONNECT: "end the connection",
    Command.SUSPEND: "suspend sshproto",
    Command.REKEY: "exchange keys anew",
    Command.BREAK: "send a BREAK",
    Command.HELP: "this message",
}


class Escapes:
    """Takes the escape sequences out of what is typed.

    Args:
        character: The escape character, a byte; None if there is none.

    Attributes:
        ended: ``DISCONNECT`` was typed: what follows is dropped.
    """

    def __init__(self, character: int | None = DEFAULT) -> None:
        self._character = character
        self._pattern = re.compile(rb"(?<=[\r\n])" + re.escape(b"" if character is None else bytes([character])))
        self._fresh = True  # an escape character would count now
        self._held = False  # ... and came
        self.ended = False

    def feed(self, data: bytes) -> list[bytes | Command]:
        """What was typed.

        Returns:
            What to send and what to do, in its order; never two pieces of data in a row.
        """
        if self._character is None:
            return [data] if data else []
        found: list[bytes | Command] = []
        passed = bytearray()
        at = 0
        while at < len(data) and not self.ended:
            byte = data[at]
            if self._held:
                self._held = False
                at += 1
                command = _COMMANDS.get(byte)
                if command is None:
                    passed.append(self._character)
                    if byte != self._character:
                        passed.append(byte)
                    self._fresh = byte in _NEWLINES
                    continue
                if passed:
                    found.append(bytes(passed))
                    passed.clear()
                found.append(command)
                self.ended = command is Command.DISCONNECT
            elif self._fresh and byte == self._character:
                self._held = True
                at += 1
            else:
                following = self._pattern.search(data, at + 1)
                end = len(data) if following is None else following.start()
                passed += data[at:end]
                self._fresh = data[end - 1] in _NEWLINES
                at = end
        if passed:
            found.append(bytes(passed))
        return found

    def finish(self) -> bytes:
        """There is no more: an escape character that was held back, or ``b""``."""
        held, self._held = self._held, False
        return bytes([self._character]) if held and self._character is not None else b""


def read_character(text: str) -> int | None:
    """The escape character that an option names: itself, ``^X`` for control-X, or ``none``.

    Raises:
        Failure: It is something else, or has another meaning.
    """
    if text == "none":
        return None
    if len(text) == 2 and text[0] == "^" and 64 <= ord(text[1]) < 128:
        character = ord(text[1]) & 31
    elif len(text) == 1 and text.isascii():
        character = ord(text)
    else:
        raise Failure(f"escape character {text!r}: expected one ASCII character, ^X for control-X, or none")
    if character in _COMMANDS or character in _NEWLINES:
        taken = ", ".join(show(byte) for byte in (*_COMMANDS, *_NEWLINES))
        raise Failure(f"escape character {text!r}: {taken} have other meanings behind or before one")
    return character


def show(character: int) -> str:
    """A byte as people write it: ``~``, ``^Z``."""
    if character < 32 or character == 127:
        return f"^{chr(character ^ 64)}"
    return chr(character) if character < 127 else f"\\x{character:02x}"


def help_text(character: int = DEFAULT) -> str:
    """What can be typed, for a terminal in raw mode: lines end with CR LF."""
    sign = show(character)
    sequences = [(show(command.value), purpose) for command, purpose in _PURPOSES.items()]
    sequences.append((sign, f"send {sign} itself"))
    lines = [f"  {sign}{word:4}{purpose}" for word, purpose in sequences]
    return "\r\n".join(("Escape sequences, at the start of a line:", *lines, ""))
