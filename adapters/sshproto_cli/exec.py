"""``sshproto exec``: run a command on another machine, with its input, output, errors and exit status as one's own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sshproto_cli.options import Failure, Parser, add_algorithms, complain, describe, preferences, reason, reporter

if TYPE_CHECKING:
    from pathlib import Path

    from sshproto.config import ClientConfig
    from sshproto.errors import ConnectionLoss
    from sshproto.events import Event
    from sshproto_cli.hosts import HostPolicy
    from sshproto_cli.login import Login
    from sshproto_cli.terminal import Interrupts
    from sshproto_io.blocking import Completed

FAILED = 255
"""The status of failures that are not the remote command's."""
DEFAULT_PORT = 22
_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")
_LOGIN_SECONDS = 600.0  # people type slowly, and the server has a limit of its own
_SIGPIPE = 13


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb to the command line.

    Args:
        subparsers: What ``add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "exec",
        help="run a command on another machine",
        usage="sshproto exec [OPTIONS] [USER@]HOST COMMAND...",
        description="Run COMMAND on HOST. Standard input, output and error are passed through; the exit status is the"
        f" command's, 128 and the signal's number if one ended it, or {FAILED} if something else went wrong.",
        epilog="A password is taken from the environment variable SSHPROTO_PASSWORD or asked for on the terminal, a"
        " key's passphrase from SSHPROTO_KEY_PASSPHRASE or the terminal.",
    )
    if isinstance(parser, Parser):
        parser.failure = FAILED
    parser.add_argument("-p", dest="port", metavar="PORT", type=_port, default=DEFAULT_PORT)
    parser.add_argument("-l", dest="user", metavar="USER", help="whom to log in as")
    parser.add_argument(
        "-i",
        dest="identities",
        metavar="KEYFILE",
        action="append",
        help=f"a private key; several are tried in turn; by default ~/.ssh/{', '.join(_IDENTITIES)}",
    )
    hosts = parser.add_mutually_exclusive_group()
    parser.add_argument("--known-hosts", metavar="FILE", help="instead of ~/.ssh/known_hosts")
    hosts.add_argument(
        "--accept-new", action="store_true", help="trust hosts that are not known yet, and remember them"
    )
    hosts.add_argument(
        "--insecure-accept-any", action="store_true", help="trust whoever answers: for tests on one's own machine"
    )
    add_algorithms(parser)
    parser.add_argument("host", metavar="[USER@]HOST")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="for the user's shell at HOST")
    parser.set_defaults(run=run)
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"not a port number: {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Carry out the verb.

    Args:
        args: Parsed arguments.

    Returns:
        The exit status.
    """
    from sshproto.errors import SSHError
    from sshproto_cli.terminal import Interrupted, Interrupts, fill_standard_descriptors

    fill_standard_descriptors()
    try:
        with Interrupts().installed() as interrupts:
            return _Execution(args, interrupts).run()
    except Interrupted as interrupted:
        return 128 + interrupted.signal
    except (Failure, SSHError, OSError) as error:
        complain(describe(error))
        return FAILED


def _destination(args: argparse.Namespace) -> tuple[str, str]:
    """The user and the host."""
    user, at, host = args.host.rpartition("@")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or (at and not user):
        raise Failure(f"not a host: {args.host!r}")
    if args.user is not None:  # as ssh has it
        user = args.user
    if not user:
        import getpass

        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            raise Failure("it is not known who you are; say whom to log in as with -l USER") from None
    return user, host


class _Execution:
    """One run of the verb."""

    def __init__(self, args: argparse.Namespace, interrupts: Interrupts) -> None:
        from sshproto_cli.terminal import Terminal

        self._args = args
        self._interrupts = interrupts
        self._user, self._host = _destination(args)
        words: list[str] = args.command[1:] if args.command[:1] == ["--"] else args.command
        if words and words[0].startswith("-") and "--" not in args.words[: len(args.words) - len(words)]:
            raise Failure(f"options stand before the host; if {words[0]!r} begins the command, put -- before it")
        if not words:
            raise Failure("there is no command to run; shells are not supported yet")
        self._command = " ".join(words)
        self._report = reporter() if args.verbose else None
        self._terminal = Terminal(interrupts)
        self._policy = self._host_policy()
        self._login = self._plan()

    def run(self) -> int:
        """The exit status."""
        from sshproto.errors import ConnectionLoss
        from sshproto_io.blocking import Client, dial

        config = self._config()
        client = Client(
            dial(self._host, self._args.port),
            config,
            host_key=self._policy,
            credentials=self._login,
            on_event=self._on_event,
        )
        check = self._interrupts.check
        # A signal must not tear the connection in the middle of what it does: it is looked at between two steps.
        with client, self._interrupts.deferred(lambda: client.driver.call(_nothing)):
            try:
                client.login(check)
            except ConnectionLoss as loss:
                raise Failure(self._why(loss)) from loss
            done = client.run(self._command, input=0, stdout=1, stderr=2, check=check)
        return _status(done)

    def _config(self) -> ClientConfig:
        from sshproto.config import ClientConfig, Timeouts

        return ClientConfig(
            user=self._user,
            preferences=preferences(self._args, self._policy.order),
            timeouts=Timeouts(auth=_LOGIN_SECONDS, keepalive=60.0),
        )

    def _host_policy(self) -> HostPolicy:
        from pathlib import Path

        from sshproto_cli.hosts import HostPolicy, Unknown

        given = self._args.known_hosts
        if self._args.insecure_accept_any:
            if given is not None:
                raise Failure("--known-hosts and --insecure-accept-any exclude each other")
            unknown = Unknown.ANY
        else:
            unknown = Unknown.ACCEPT if self._args.accept_new else Unknown.ASK
        path = _home() / ".ssh" / "known_hosts" if given is None else Path(given)
        return HostPolicy(self._host, self._args.port, path, unknown, self._terminal, make_directory=given is None)

    def _plan(self) -> Login:
        from pathlib import Path

        from sshproto_cli.login import Login

        given = self._args.identities
        paths = [_home() / ".ssh" / name for name in _IDENTITIES] if given is None else [Path(name) for name in given]
        return Login(
            self._user,
            self._host,
            paths,
            self._terminal,
            required=given is not None,
            verbose=self._args.verbose,
        )

    def _on_event(self, event: Event) -> None:
        if self._report is not None:
            self._report(event)
        self._login.show(event)

    def _why(self, loss: ConnectionLoss) -> str:
        """Why the login failed: what happened on this side explains more than what became of the connection."""
        own = self._policy.problem or self._login.problem
        if own:
            return own
        hints = "; ".join(self._login.hints)
        return f"{reason(loss)} ({hints})" if hints else reason(loss)


def _status(done: Completed) -> int:
    import signal

    if done.exit_status is not None:
        return done.exit_status & 0xFF
    if done.reader_left and (done.exit_signal is None or done.exit_signal.name == "PIPE"):
        return 128 + _SIGPIPE  # our own reader has seen enough: nothing to tell
    if done.exit_signal is not None:
        name = done.exit_signal.name
        known = getattr(signal, f"SIG{name}", None)
        core = ", and dumped core" if done.exit_signal.core_dumped else ""
        complain(f"the command was ended by signal {name}{core}")
        return 128 + int(known) if isinstance(known, signal.Signals) else FAILED
    complain("the server did not say how the command ended")
    return FAILED


def _nothing() -> None:
    pass


def _home() -> Path:
    from pathlib import Path

    try:
        return Path.home()
    except RuntimeError as error:
        raise Failure(str(error)) from None
