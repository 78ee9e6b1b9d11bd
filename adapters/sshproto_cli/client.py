"""What the verbs that connect have in common: where to, and through what; whom to believe, and who we are."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sshproto_cli.options import (
    Failure,
    Parser,
    add_algorithms,
    add_face,
    add_record,
    complain,
    describe,
    key_log,
    port,
    preferences,
    reason,
    recording,
    reporter,
)

if TYPE_CHECKING:
    from pathlib import Path
    from signal import Signals

    from sshproto.config import ClientConfig, Record
    from sshproto.errors import ConnectionLoss
    from sshproto.events import Event, HostKeyOffered
    from sshproto_cli.hosts import HostPolicy
    from sshproto_cli.login import Login, Opened
    from sshproto_cli.specs import Hop
    from sshproto_cli.terminal import Interrupts, Terminal

FAILED = 255
"""The status of failures that are not the remote command's."""
DEFAULT_PORT = 22
_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")
_LOGIN_SECONDS = 600.0  # people type slowly, and the server has a limit of its own
_KEEPALIVE_SECONDS = 60.0

EPILOG = (
    "A password is taken from the environment variable SSHPROTO_PASSWORD (not for the hosts of -J) or asked for on the"
    " terminal, a key's passphrase from SSHPROTO_KEY_PASSPHRASE or the terminal."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where to, through what, whom to believe and who we are; and the destination."""
    if isinstance(parser, Parser):
        parser.failure = FAILED
    parser.add_argument("-p", dest="port", metavar="PORT", type=port, default=DEFAULT_PORT)
    parser.add_argument("-l", dest="user", metavar="USER", help="whom to log in as")
    parser.add_argument(
        "-J",
        dest="jump",
        metavar="[USER@]HOST[:PORT][,...]",
        help="connect through these hosts, the nearest first; with known hosts, keys and options as for the last one",
    )
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
    add_face(parser)
    add_algorithms(parser)
    add_record(parser)
    parser.add_argument("host", metavar="[USER@]HOST")


def add_command(parser: argparse.ArgumentParser) -> None:
    """Add the words of a command, which end the options."""
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="for the user's shell at HOST")


def command(args: argparse.Namespace) -> str:
    """The command that was given; "" if none was.

    Raises:
        Failure: It begins with what may be meant as an option.
    """
    words: list[str] = args.command[1:] if args.command[:1] == ["--"] else args.command
    if words and words[0].startswith("-") and "--" not in args.words[: len(args.words) - len(words)]:
        raise Failure(f"options stand before the host; if {words[0]!r} begins the command, put -- before it")
    return " ".join(words)


def guarded(verb: Callable[[Interrupts], int], also: tuple[Signals, ...] = ()) -> int:
    """Carry out a verb with signals handled, and tell what goes wrong in one line.

    Args:
        verb: What to do; returns the exit status.
        also: Signals to be handled beside the usual ones.

    Returns:
        The exit status.
    """
    from sshproto.errors import SSHError
    from sshproto_cli.terminal import Interrupted, Interrupts, fill_standard_descriptors

    fill_standard_descriptors()
    try:
        interrupts = Interrupts()
        interrupts.NUMBERS = (*interrupts.NUMBERS, *also)
        with interrupts.installed():
            return verb(interrupts)
    except Interrupted as interrupted:
        return 128 + interrupted.signal
    except (Failure, SSHError, OSError) as error:
        complain(describe(error))
        return FAILED


def route(args: argparse.Namespace, interrupts: Interrupts) -> list[Leg]:
    """The connections to make, each through the one before: to the hosts of ``-J``, and to the destination.

    Raises:
        Failure: The arguments make no sense, or name files that can't be used.
    """
    from sshproto_cli.specs import Hop, hops
    from sshproto_cli.terminal import Terminal

    user, host = destination(args)
    way = (*(() if args.jump is None else hops(args.jump)), Hop(user, host, args.port))
    terminal = Terminal(interrupts)
    opened: Opened = {}
    record, keys = recording(args), key_log(args)
    legs: list[Leg] = []
    for hop in way:
        via = legs[-1].host if legs else ""
        legs.append(Leg(args, hop, terminal, opened, via=via, last=hop is way[-1], record=record, key_log=keys))
    return legs


def destination(args: argparse.Namespace) -> tuple[str | None, str]:
    """The user, if one was given, and the host."""
    user, at, host = args.host.rpartition("@")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or (at and not user):
        raise Failure(f"not a host: {args.host!r}")
    return args.user or user or None, host  # -l goes before USER@, as ssh has it


def _whoami() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise Failure("it is not known who you are; say whom to log in as with -l USER") from None


class Leg:
    """One connection on the way, to a host to jump through or to the destination.

    Args:
        args: Parsed arguments.
        hop: Where to, and as whom.
        terminal: Who to ask.
        opened: Encrypted keys that were opened for other legs.
        via: The host that this goes through, or "".
        last: It leads to the destination.
        record: What records the connection, or None.
        key_log: What takes its keys, or None.

    Attributes:
        host, port, user: Where to, and as whom.
        config: The client's decisions.
        credentials: Who we are.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        hop: Hop,
        terminal: Terminal,
        opened: Opened,
        *,
        via: str,
        last: bool,
        record: Record | None = None,
        key_log: Callable[[str], None] | None = None,
    ) -> None:
        self.host = hop.host
        self.port = hop.port
        self.user = hop.user or _whoami()
        self._via = via
        self._name = "" if last and not via else f"{hop.host}: "
        self._policy = _host_policy(args, self.host, self.port, terminal)
        self.config = self._config(args, record, key_log)
        self.credentials = _login(args, self.user, self.host, terminal, opened, last=last)
        self._report = reporter(self._name) if args.verbose else None

    def host_key(self, question: HostKeyOffered) -> bool:
        """Whether a key is the host's."""
        return self._policy(question)

    def on_event(self, event: Event) -> None:
        """Show what the user wants to see of what happens."""
        if self._report is not None:
            self._report(event)
        self.credentials.show(event)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Makes what goes wrong while it is connected a failure that says so."""
        from sshproto.errors import ConnectionLoss, OpenRefused
        from sshproto_io import ConnectFailed

        try:
            yield
        except ConnectionLoss as loss:
            raise Failure(self._name + self._why(loss)) from loss
        except (ConnectFailed, OpenRefused) as error:
            refusal = error if isinstance(error, OpenRefused) else error.__cause__
            if not isinstance(refusal, OpenRefused):
                raise
            where = f"{self.host} port {self.port}"
            raise Failure(f"{self._via} cannot connect to {where}: {refusal.description or refusal}") from error

    def _config(
        self, args: argparse.Namespace, record: Record | None, key_log: Callable[[str], None] | None
    ) -> ClientConfig:
        from sshproto.config import ClientConfig, Timeouts

        return ClientConfig(
            user=self.user,
            preferences=preferences(args, self._policy.order),
            timeouts=Timeouts(auth=_LOGIN_SECONDS, keepalive=_KEEPALIVE_SECONDS),
            record=record,
            key_log=key_log,
        )

    def _why(self, loss: ConnectionLoss) -> str:
        """Why the login failed: what happened on this side explains more than what became of the connection."""
        own = self._policy.problem or self.credentials.problem
        if own:
            return own
        hints = "; ".join(self.credentials.hints)
        return f"{reason(loss)} ({hints})" if hints else reason(loss)


def _host_policy(args: argparse.Namespace, host: str, number: int, terminal: Terminal) -> HostPolicy:
    from pathlib import Path

    from sshproto_cli.hosts import HostPolicy, Unknown

    given = args.known_hosts
    if args.insecure_accept_any:
        if given is not None:
            raise Failure("--known-hosts and --insecure-accept-any exclude each other")
        unknown = Unknown.ANY
    else:
        unknown = Unknown.ACCEPT if args.accept_new else Unknown.ASK
    path = _home() / ".ssh" / "known_hosts" if given is None else Path(given)
    return HostPolicy(host, number, [path], unknown, terminal, make_directory=given is None)


def _login(args: argparse.Namespace, user: str, host: str, terminal: Terminal, opened: Opened, *, last: bool) -> Login:
    from pathlib import Path

    from sshproto_cli.login import Login

    given = args.identities
    paths = [_home() / ".ssh" / name for name in _IDENTITIES] if given is None else [Path(name) for name in given]
    return Login(
        user,
        host,
        paths,
        terminal,
        required=given is not None,
        verbose=args.verbose,
        on_the_way=not last,
        opened=opened,
    )


def _home() -> Path:
    from pathlib import Path

    try:
        return Path.home()
    except RuntimeError as error:
        raise Failure(str(error)) from None
