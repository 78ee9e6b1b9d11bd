"""``sshproto agent serve``: be an agent."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sshproto_cli.agent.common import REFUSED, carry_out, duration
from sshproto_cli.options import Failure, complain, describe, put
from sshproto_cli.terminal import Bell, Interrupted, Terminal

if TYPE_CHECKING:
    from sshproto.agent import AgentEvent, ConfirmNeeded
    from sshproto_io.blocking import ServedAgent

_PROCESS_VARIABLE = "SSH_AGENT_PID"
_ASKPASS_VARIABLE = "SSH_ASKPASS"
_NOT_DUMPABLE = 4  # Linux's PR_SET_DUMPABLE
_ASK_SECONDS = 300.0
_NOT_FOUND = 127


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "serve",
        help="be an agent",
        description="Be an agent, at a socket for this user alone: until a signal ends it, or until COMMAND ends, which"
        " is run with SSH_AUTH_SOCK set. Its address is printed as ssh-agent does, for a shell to read. The socket is"
        " removed at the end, and the keys are nowhere but in memory.",
        epilog="Keys that are to be confirmed are asked about by the program that SSH_ASKPASS names, or else on the"
        " terminal, if no COMMAND runs there; if nobody can be asked, they are refused. The exit status is that of"
        f" COMMAND, and {REFUSED} if the socket can't be had.",
    )
    parser.add_argument("-a", "--socket", metavar="PATH", help="the socket; one in a directory of its own if not given")
    parser.add_argument(
        "-t", "--lifetime", metavar="TIME", type=duration, help="of keys that are added without one: 90, 10m, 1h30m"
    )
    parser.add_argument("-c", "--csh", action="store_true", help="print for csh, whatever SHELL says")
    parser.add_argument("-s", "--sh", action="store_true", help="print for the Bourne shell, whatever SHELL says")
    parser.add_argument("--sha1", action="store_true", help="sign with SHA-1 for who asks for nothing better")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell of what is signed and refused")
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="to run, after --, with its arguments")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    return carry_out(_serve, args)


def _serve(args: argparse.Namespace) -> int:
    from sshproto.agent import Keyring
    from sshproto_cli.faces import alarm_bell
    from sshproto_io.blocking import serve_agent

    keyring = Keyring(sha1=args.sha1, lifetime=args.lifetime)
    asker = _Asker(terminal=not args.command)
    try:
        served = serve_agent(keyring, args.socket, confirm=asker.confirm, on_event=_tell if args.verbose else None)
    except (OSError, ValueError) as error:
        raise Failure(f"the socket {args.socket or ''} can't be had: {describe(error)}") from None
    with served, alarm_bell() as alarm:
        if args.command:
            return _run(args.command, served, alarm)
        _harden()
        put(_announcement(served, csh=args.csh or (not args.sh and os.environ.get("SHELL", "").endswith("csh"))))
        while True:
            _listen(alarm)


def _announcement(served: ServedAgent, *, csh: bool) -> str:
    values = {"SSH_AUTH_SOCK": served.path, _PROCESS_VARIABLE: str(os.getpid())}
    form = "setenv {name} {value};\n" if csh else "{name}={value}; export {name};\n"
    lines = [form.format(name=name, value=shlex.quote(value)) for name, value in values.items()]
    return "".join([*lines, f"echo Agent pid {os.getpid()};\n"])


def _listen(*descriptors: int) -> None:
    """Wait for a signal, or whatever else can be read. A signal's handler may raise :class:`Interrupted`."""
    select.select(descriptors, [], [])
    for descriptor in descriptors:
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, 4096)


def _harden() -> None:
    """Keep other processes of the user out of the memory where the keys are, as far as the system does that."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_NOT_DUMPABLE, 0, 0, 0, 0)


def _tell(event: AgentEvent) -> None:
    from sshproto.agent import KeyUsed, RequestRefused
    from sshproto.text import printable

    match event:
        case KeyUsed(key=key, algorithm=algorithm, purpose=purpose):
            complain(f"signed by {printable(key.comment) or key.type} {key.fingerprint()} as {algorithm}: {purpose}")
        case RequestRefused(request=request, why=why):
            complain(f"refused {request}: {why}")
        case _:
            complain(str(event))


# ---------------------------------------------------------------------------------------------------------- the command


def _run(command: list[str], served: ServedAgent, alarm: int) -> int:
    env = {**os.environ, "SSH_AUTH_SOCK": served.path, _PROCESS_VARIABLE: str(os.getpid())}
    try:
        process = subprocess.Popen(command, env=env)  # noqa: S603  it is what the user wants
    except OSError as error:
        complain(f"{command[0]}: {error.strerror or error}")
        return _NOT_FOUND
    _harden()
    with _ends(process) as ended:
        while process.returncode is None:
            try:
                _listen(alarm, ended)
            except Interrupted as interrupted:  # Ctrl-C is the command's, which has it already
                if interrupted.signal != signal.SIGINT:
                    process.send_signal(interrupted.signal)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


@contextlib.contextmanager
def _ends(process: subprocess.Popen[Any]) -> Iterator[int]:
    """A descriptor that can be read from when the process has ended."""
    bell = Bell()

    def wait() -> None:
        process.wait()
        bell.ring()

    thread = threading.Thread(target=wait, name="command", daemon=True)
    thread.start()
    try:
        yield bell.descriptor
    finally:
        if process.returncode is not None:
            thread.join()
            bell.close()


class _Asker:
    """Asks the user about keys that are to be confirmed, one after the other.

    Args:
        terminal: The terminal is ours to ask on.
    """

    def __init__(self, *, terminal: bool) -> None:
        self._terminal = Terminal() if terminal else None
        self._lock = threading.Lock()

    def confirm(self, question: ConfirmNeeded) -> bool:
        """Whether the key may be used."""
        program = os.environ.get(_ASKPASS_VARIABLE, "")
        with self._lock:
            if program:
                return _ask(program, str(question))
            return self._terminal is not None and self._terminal.confirm(f"{question} (yes/no) ")


def _ask(program: str, words: str) -> bool:
    """By a program, as ssh-agent does: its status counts, and that it says nothing or yes."""
    env = {**os.environ, "SSH_ASKPASS_PROMPT": "confirm"}
    try:
        done = subprocess.run(  # noqa: S603  the user's own program
            [program, words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=env,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        complain(f"{program}: {error}")
        return False
    return done.returncode == 0 and done.stdout.strip().lower() in (b"", b"yes")
