"""What the verbs of ``sshproto agent`` share."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sshproto_cli.options import AGENT_PATIENCE, Failure, Parser

if TYPE_CHECKING:
    from sshproto.keys import Certificate, PublicKey
    from sshproto_cli.terminal import Terminal
    from sshproto_io.blocking import Agent

REFUSED = 1
"""The status when the agent refuses, or has no keys."""

TROUBLE = 2
"""The status when there is no agent, or it is out of order."""

STATUS = (
    f"The exit status is 0, {REFUSED} if the agent refuses something or a file can't be used, {TROUBLE} if there is no"
    " agent."
)

PASSPHRASE_VARIABLE = "SSHPROTO_LOCK_PASSPHRASE"

DEFAULTS = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
"""The files of keys that people have in ``~/.ssh``, in the order of ssh-add."""

_LONGEST = 2**32 - 1
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_TIME = re.compile(r"([0-9]{1,10})([smhdw]?)", re.ASCII | re.IGNORECASE)


class NoAgent(Failure):
    """There is no agent, or it is out of order."""


def add_socket(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which agent."""
    if isinstance(parser, Parser):
        parser.failure = TROUBLE
    parser.add_argument("-a", "--socket", metavar="PATH", help="the agent's; what SSH_AUTH_SOCK says if not given")


def carry_out(work: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a verb; see :func:`sshproto_cli.options.carry_out`."""
    from sshproto_cli import options

    def guarded(args: argparse.Namespace) -> int:
        try:
            return work(args)
        except NoAgent as failure:
            options.complain(str(failure))
            return TROUBLE

    return options.carry_out(guarded, args, REFUSED)


@contextlib.contextmanager
def opened(args: argparse.Namespace, patience: float = AGENT_PATIENCE) -> Iterator[Agent]:
    """The agent.

    Args:
        args: Parsed arguments.
        patience: Seconds for each answer.

    Raises:
        NoAgent: There is none, or it has gone, or says nothing.
        Failure: It refused.
    """
    from sshproto.agent import AgentError, AgentRefused
    from sshproto_io import TimeoutExpired
    from sshproto_io.blocking import open_agent

    try:
        with open_agent(args.socket, timeout=patience) as agent:
            yield agent
    except AgentRefused as error:
        raise Failure(str(error)) from None
    except (AgentError, TimeoutExpired) as error:
        raise NoAgent(str(error)) from None


def home(name: str) -> Path:
    """A file in the user's ``.ssh``.

    Raises:
        Failure: Nobody knows where that is.
    """
    try:
        return Path.home() / ".ssh" / name
    except RuntimeError as error:
        raise Failure(str(error)) from None


def defaults() -> list[str]:
    """The key files that there are, of those that people usually have.

    Raises:
        Failure: There is none.
    """
    found = [str(path) for path in map(home, DEFAULTS) if path.exists()]
    if not found:
        raise Failure(f"name a file: none of {', '.join(DEFAULTS)} is in {home('').parent / '.ssh'}")
    return found


def public(path: str) -> PublicKey | Certificate | None:
    """The public key, or the certificate, in a file; None if it is something else.

    Raises:
        Failure: It can't be read, or the key is no good.
    """
    from sshproto.errors import KeyFormatError
    from sshproto.keys import ContentKind, identify
    from sshproto_cli.options import read_file

    try:
        found = identify(read_file(path, "key", 64 * 1024)).entries
    except KeyFormatError as error:
        raise Failure(f"{path}: {error}") from None
    for entry in found:
        if entry.kind is not ContentKind.PRIVATE and not entry.problem:
            return entry.certificate or entry.key
    return None


def certificate_beside(path: str) -> Certificate | None:
    """The certificate in the file ``path-cert.pub``, if there is one.

    Raises:
        Failure: It can't be used.
    """
    from sshproto.errors import KeyFormatError
    from sshproto.keys import Certificate
    from sshproto_cli.options import read_file

    name = f"{path.removesuffix('.pub')}-cert.pub"
    if not os.path.exists(name):  # noqa: PTH110  it is a name that was made, not a path
        return None
    try:
        return Certificate.parse(read_file(name, "certificate", 64 * 1024))
    except KeyFormatError as error:
        raise Failure(f"{name}: {error}") from None


def duration(text: str) -> int:
    """Seconds, of words as ``90``, ``10m`` or ``1h30m`` (sshd_config(5), "TIME FORMATS").

    Raises:
        argparse.ArgumentTypeError: They are others, or too many.
    """
    parts = _TIME.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 90, 10m and 1h30m are, with s, m, h, d and w")
    seconds = sum(int(number) * _UNITS[unit.lower()] for number, unit in parts)
    if not 0 < seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 1 to {_LONGEST} seconds")
    return seconds


def passphrase(terminal: Terminal, *, twice: bool) -> bytes:
    """The passphrase of a lock: of the environment, or asked for.

    Args:
        terminal: Who to ask.
        twice: Ask for it again.

    Raises:
        Failure: There is none, or what was typed differs.
    """
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is None:
        if not terminal.present:
            raise Failure(f"there is no terminal to ask for a passphrase; {PASSPHRASE_VARIABLE} may hold it")
        given = terminal.ask("Passphrase of the lock: ")
        if given is not None and twice and terminal.ask("The same again: ") != given:
            raise Failure("these differ")
    if not given:
        raise Failure("there is no passphrase")
    return given.encode("utf-8", "surrogateescape")
