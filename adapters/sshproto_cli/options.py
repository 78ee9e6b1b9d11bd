"""What the verbs have in common: options for algorithms, errors on one line, events on standard error."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from sshproto.config import Preferences
    from sshproto.events import Event
    from sshproto.keys.private import PrivateKey
    from sshproto_cli.terminal import Terminal

PASSPHRASE_VARIABLE = "SSHPROTO_KEY_PASSPHRASE"

_LONGEST = 1000  # of a line that shows an event

_ALGORITHMS = {  # option: field of Preferences, category, what it is
    "--kex": ("kex", "kex", "key exchange methods"),
    "--cipher": ("cipher", "cipher", "ciphers"),
    "--mac": ("mac", "mac", "message authentication codes"),
    "--host-key-alg": ("host_key", "signature", "signature algorithms of host keys"),
    "--compression": ("compression", "compression", "compression methods"),
}


class Failure(Exception):
    """What ends a verb; its words are for the user, on one line."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and end with the status of the verb's own failures."""

    failure = 2

    def error(self, message: str) -> NoReturn:
        """See the base class."""
        self.exit(self.failure, f"sshproto: {message} (see {self.prog} --help)\n")


def complain(message: str) -> None:
    """One line on standard error, in one write: several threads may do so."""
    from sshproto.text import printable

    say(f"sshproto: {printable(message, 4096)}")


def say(line: str) -> None:
    """A line as it is on standard error. If nobody reads that any more, so be it."""
    if sys.stderr is not None:
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass


def describe(error: BaseException) -> str:
    """An exception in words for the user."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def add_algorithms(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose algorithms, and ``-v``."""
    group = parser.add_argument_group("algorithms", "Comma-separated names, best first; weak ones count when named.")
    for option, (_, _, what) in _ALGORITHMS.items():
        group.add_argument(option, metavar="NAMES", help=what)
    parser.add_argument("-v", dest="verbose", action="store_true", help="show events on standard error as they happen")


def preferences(args: argparse.Namespace, host_key: tuple[str, ...] | None = None) -> Preferences:
    """The algorithms that ``args`` name.

    Args:
        args: Parsed arguments.
        host_key: Signature algorithms of host keys, if ``args`` name none.

    Raises:
        Failure: A name is not known.
    """
    from sshproto.algorithms import KNOWN
    from sshproto.config import Preferences
    from sshproto.errors import InvalidArgument

    chosen: dict[str, Any] = {} if host_key is None else {"host_key": host_key}
    for option, (field, category, _) in _ALGORITHMS.items():
        given = getattr(args, option.removeprefix("--").replace("-", "_"))
        if given is None:
            continue
        names = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
        for name in names:
            if name not in KNOWN[category]:
                raise Failure(f"{option}: unknown algorithm {name!r}; known are {', '.join(sorted(KNOWN[category]))}")
        chosen[field] = names
    try:
        return Preferences(**chosen)
    except InvalidArgument as error:
        raise Failure(str(error)) from None


def reporter(prefix: str = "") -> Callable[[Event], None]:
    """What shows events on standard error. Never a secret; of channel data only how many there are."""
    from sshproto.events import DataReceived, show

    def report(event: Event) -> None:
        if isinstance(event, DataReceived):
            say(f"{prefix}DataReceived channel={event.channel} data=<{len(event.data)} bytes> stream={event.stream}")
        else:
            line = prefix + show(event)
            say(line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…")

    return report


def read_file(path: str, what: str, limit: int = 16 * 1024 * 1024) -> bytes:
    """The content of a file.

    Raises:
        Failure: It cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise Failure(f"{what} {path}: {error.strerror or error}") from None
    if len(data) > limit:
        raise Failure(f"{what} {path}: more than {limit} bytes")
    return data


def unlock(data: bytes, path: str, terminal: Terminal) -> PrivateKey | None:
    """An encrypted private key, with a passphrase from the environment or the terminal; None if there is none.

    Args:
        data: The content of the key file.
        path: Its name.
        terminal: Who to ask.

    Raises:
        Failure: The passphrase is wrong, or the key is no good.
    """
    from sshproto.errors import KeyFormatError
    from sshproto.keys.private import PassphraseWrong, PrivateKey

    given = os.environ.get(PASSPHRASE_VARIABLE)
    for _ in range(3):
        passphrase = terminal.ask(f"Passphrase for key {path}: ") if given is None else given
        if not passphrase:
            return None
        try:
            return PrivateKey.load(data, passphrase.encode("utf-8", "surrogateescape"))
        except PassphraseWrong:
            if given is not None:
                raise Failure(f"private key {path}: the passphrase in {PASSPHRASE_VARIABLE} is wrong") from None
        except KeyFormatError as error:
            raise Failure(f"private key {path}: {error}") from None
    raise Failure(f"private key {path}: wrong passphrase")
