"""Terminals: asking the user, the standard descriptors, signals, and what a client says about its terminal.

Questions go to ``/dev/tty``, never to standard input or output, which belong to the remote command.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from sshproto.text import multiline

TTY = "/dev/tty"
_LONGEST = 4096


class Terminal:
    """The user.

    Args:
        interrupts: What may interrupt a question.
    """

    def __init__(self, interrupts: Interrupts | None = None) -> None:
        self._interrupts = interrupts

    @property
    def present(self) -> bool:
        """Whether there is somebody to ask."""
        try:
            os.close(os.open(TTY, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def ask(self, text: str, *, echo: bool = False) -> str | None:
        """Ask the user.

        Args:
            text: What to show; control characters are made harmless.
            echo: Whether the answer may be seen while it is typed.

        Returns:
            The answer, or None if there is no terminal, or nobody answers (end of file).
        """
        with contextlib.nullcontext() if self._interrupts is None else self._interrupts.immediate():
            return _ask(multiline(text), echo=echo)

    def confirm(self, text: str) -> bool:
        """Ask until the user says yes or no. No, if there is nobody to ask."""
        answer = self.ask(text, echo=True)
        while answer is not None:
            if answer.strip().lower() in ("yes", "no"):
                return answer.strip().lower() == "yes"
            answer = self.ask("Please type 'yes' or 'no': ", echo=True)
        return False


def _ask(text: str, *, echo: bool) -> str | None:
    try:
        tty = os.open(TTY, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        before = termios.tcgetattr(tty)
        if not echo:
            hidden = list(before)
            hidden[3] = (hidden[3] & ~termios.ECHO) | termios.ICANON | termios.ISIG
            termios.tcsetattr(tty, termios.TCSAFLUSH, hidden)
        try:
            os.write(tty, text.encode("utf-8", "replace"))
            return _line(tty)
        finally:
            if not echo:
                termios.tcsetattr(tty, termios.TCSAFLUSH, before)
                os.write(tty, b"\n")
    except (OSError, termios.error):
        return None
    finally:
        os.close(tty)


def _line(tty: int) -> str | None:
    typed = bytearray()
    while len(typed) < _LONGEST:
        byte = os.read(tty, 1)
        if byte == b"\n":
            break
        if not byte:
            if not typed:
                return None
            break
        typed += byte
    return typed.decode("utf-8", "surrogateescape")


def fill_standard_descriptors() -> None:
    """Open ``/dev/null`` where the process was started without standard input, output or error.

    Otherwise a socket would get that number, and be taken for it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


class Bell:
    """A descriptor that can be read from once something has happened: so that operations can wait for that.

    Attributes:
        descriptor: Which; -1 once it is closed.
    """

    def __init__(self) -> None:
        self.descriptor, self._far = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._far, False)

    def ring(self) -> None:
        """It has happened. A signal handler may say so."""
        with contextlib.suppress(BlockingIOError):  # it is full: that is heard as well
            os.write(self._far, b"!")

    def clear(self) -> bool:
        """Forget it, until it happens again.

        Returns:
            Whether it had happened.
        """
        happened = False
        with contextlib.suppress(BlockingIOError):
            while os.read(self.descriptor, 4096):
                happened = True
        return happened

    def close(self) -> None:
        """Close it. It can't be rung any more."""
        for descriptor in (self.descriptor, self._far):
            os.close(descriptor)
        self.descriptor = self._far = -1


class Interrupted(BaseException):
    """A signal wants this process to end.

    Attributes:
        signal: Which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.signal = number


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP as :class:`Interrupted`, raised at once or, while ``deferred``, by :meth:`check`.

    Signals that the process was told to ignore stay ignored.
    """

    NUMBERS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._wake: Callable[[], object] | None = None
        self._came: int | None = None
        self._bell: Bell | None = None

    @property
    def descriptor(self) -> int:
        """What can be read from, and stays so, once a signal came; -1 outside of :meth:`installed`.

        Whoever waits for it calls :meth:`check` then.
        """
        return -1 if self._bell is None else self._bell.descriptor

    @contextlib.contextmanager
    def installed(self) -> Iterator[Interrupts]:
        """Handle the signals inside the block. Only the main thread can."""
        wanted = [number for number in self.NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
        self._bell = bell = Bell()
        before: list[tuple[signal.Signals, Any]] = [(number, signal.signal(number, self._handle)) for number in wanted]
        try:
            yield self
        finally:
            for number, handler in before:
                signal.signal(number, handler)
            self._bell = None
            bell.close()

    @contextlib.contextmanager
    def deferred(self, wake: Callable[[], object] | None = None) -> Iterator[None]:
        """Raise nothing inside the block, but call ``wake`` when a signal comes.

        Args:
            wake: Ends what this process waits for. There is no need of it if that waits for :attr:`descriptor`, too.
        """
        self._wake = _nothing if wake is None else wake
        try:
            yield
        finally:
            self._wake = None

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """Within :meth:`deferred`, raise inside the block all the same."""
        wake, self._wake = self._wake, None
        try:
            self.check()
            yield
        finally:
            self._wake = wake

    def check(self) -> None:
        """Raise what was deferred."""
        if self._came is not None:
            raise Interrupted(self._came)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._came = number
        if self._bell is not None:
            self._bell.ring()
        if self._wake is None:
            raise Interrupted(number)
        self._wake()


def _nothing() -> None:
    pass


# ------------------------------------------------------------------------------------------- terminal modes, RFC 4254 8

_CHARACTERS = {
    1: "VINTR",
    2: "VQUIT",
    3: "VERASE",
    4: "VKILL",
    5: "VEOF",
    6: "VEOL",
    7: "VEOL2",
    8: "VSTART",
    9: "VSTOP",
    10: "VSUSP",
    11: "VDSUSP",
    12: "VREPRINT",
    13: "VWERASE",
    14: "VLNEXT",
    18: "VDISCARD",
}
_IFLAG, _OFLAG, _CFLAG, _LFLAG, _ISPEED, _OSPEED, _CC = range(7)  # of what termios.tcgetattr returns
_FLAGS = {
    **{
        number: (_IFLAG, name)
        for number, name in enumerate(
            (
                "IGNPAR",
                "PARMRK",
                "INPCK",
                "ISTRIP",
                "INLCR",
                "IGNCR",
                "ICRNL",
                "IUCLC",
                "IXON",
                "IXANY",
                "IXOFF",
                "IMAXBEL",
                "IUTF8",
            ),
            30,
        )
    },
    **{
        number: (_LFLAG, name)
        for number, name in enumerate(
            (
                "ISIG",
                "ICANON",
                "XCASE",
                "ECHO",
                "ECHOE",
                "ECHOK",
                "ECHONL",
                "NOFLSH",
                "TOSTOP",
                "IEXTEN",
                "ECHOCTL",
                "ECHOKE",
                "PENDIN",
            ),
            50,
        )
    },
    **{
        number: (_OFLAG, name)
        for number, name in enumerate(("OPOST", "OLCUC", "ONLCR", "OCRNL", "ONOCR", "ONLRET"), 70)
    },
    92: (_CFLAG, "PARENB"),
    93: (_CFLAG, "PARODD"),
}
_IUTF8 = 0o40000  # Linux's; Python knows it from 3.14 on
_SIZES = {90: "CS7", 91: "CS8"}
_SPEEDS = {128: _ISPEED, 129: _OSPEED}
_DISABLED = 255
"""A character that is none."""
_BAUD = {
    code: int(name[1:])
    for name, code in vars(termios).items()
    if name[0] == "B" and name[1:].isdigit() and name != "B0"
}
"""Bits in a second, by what termios calls them."""


def read_modes(descriptor: int) -> tuple[tuple[int, int], ...]:
    """The modes of a terminal, for a server to give them to its own: for ``PtyRequest.modes``.

    Those that this system does not have are left out. Read them before the terminal is made raw.

    Raises:
        termios.error: It is no terminal.
    """
    state = termios.tcgetattr(descriptor)
    modes = [(opcode, _BAUD[state[field]]) for opcode, field in _SPEEDS.items() if state[field] in _BAUD]
    for opcode, name in _CHARACTERS.items():
        index = getattr(termios, name, None)
        if index is not None:
            value: bytes | int = state[_CC][index]
            number = value if isinstance(value, int) else value[0]
            modes.append((opcode, number or _DISABLED))  # NUL is how Linux says that there is none
    for opcode, (field, name) in _FLAGS.items():
        bit = getattr(termios, name, _IUTF8 if name == "IUTF8" else 0)
        if bit:
            modes.append((opcode, int(bool(state[field] & bit))))
    modes += [(opcode, int(state[_CFLAG] & termios.CSIZE == getattr(termios, name))) for opcode, name in _SIZES.items()]
    return tuple(sorted(modes))


def apply_modes(descriptor: int, modes: Iterable[tuple[int, int]]) -> None:
    """Set the modes of a terminal that a client asked for; what this system does not have is passed over.

    Raises:
        termios.error: It is no terminal.
    """
    state = termios.tcgetattr(descriptor)
    for opcode, value in modes:
        if opcode in _CHARACTERS:
            index = getattr(termios, _CHARACTERS[opcode], None)
            if index is not None and 0 <= value <= _DISABLED:
                state[_CC][index] = b"\0" if value == _DISABLED else bytes([value])
        elif opcode in _FLAGS:
            field, name = _FLAGS[opcode]
            bit = getattr(termios, name, _IUTF8 if name == "IUTF8" else 0)
            state[field] = state[field] | bit if value else state[field] & ~bit
        elif opcode in _SIZES and value:
            state[_CFLAG] = (state[_CFLAG] & ~termios.CSIZE) | getattr(termios, _SIZES[opcode])
        elif opcode in _SPEEDS:
            state[_SPEEDS[opcode]] = getattr(termios, f"B{value}", state[_SPEEDS[opcode]])
    termios.tcsetattr(descriptor, termios.TCSANOW, state)


def set_size(descriptor: int, rows: int, columns: int, width: int = 0, height: int = 0) -> None:
    """Set the size of a terminal, in characters and pixels; the process group in its foreground gets SIGWINCH."""
    import fcntl
    import struct

    sizes = (min(size, 0xFFFF) for size in (rows, columns, width, height))
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", *sizes))
