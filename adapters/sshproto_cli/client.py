"""What the verbs that connect have in common: where to, and through what; whom to believe, and who we are."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
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
from sshproto_cli.settings import add_config

if TYPE_CHECKING:
    from signal import Signals

    from sshproto.client import ClientConnection
    from sshproto.config import ClientConfig, Record
    from sshproto.errors import ConnectionLoss
    from sshproto.events import Event, HostKeyOffered
    from sshproto.operations.hub import Hub
    from sshproto.operations.steps import Operation
    from sshproto.ssh_config import HostConfig
    from sshproto_cli.hosts import HostPolicy
    from sshproto_cli.login import Login, Opened
    from sshproto_cli.settings import Settings
    from sshproto_cli.terminal import Interrupts, Terminal

FAILED = 255
"""The status of failures that are not the remote command's."""
DEFAULT_PORT = 22
_WEAKEST_RSA, _STRONGEST_RSA = 1024, 16384
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
    parser.add_argument("-p", dest="port", metavar="PORT", type=port)
    parser.add_argument("-l", dest="user", metavar="USER", help="whom to log in as")
    parser.add_argument(
        "-J",
        dest="jump",
        metavar="[USER@]HOST[:PORT][,...]",
        help="connect through these hosts, the nearest first; each has its own configuration, and these options",
    )
    parser.add_argument(
        "-i",
        dest="identities",
        metavar="KEYFILE",
        action="append",
        help="a private key; several are tried in turn, before those of the configuration",
    )
    hosts = parser.add_mutually_exclusive_group()
    parser.add_argument("--known-hosts", metavar="FILE", help="instead of ~/.ssh/known_hosts")
    hosts.add_argument(
        "--accept-new", action="store_true", help="trust hosts that are not known yet, and remember them"
    )
    hosts.add_argument(
        "--insecure-accept-any", action="store_true", help="trust whoever answers: for tests on one's own machine"
    )
    add_config(parser)
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
    """The connections to make, each through the one before: to the hosts to jump through, and to the destination.

    Raises:
        Failure: The arguments or the configuration make no sense, or name files that can't be used.
    """
    from sshproto_cli.terminal import Terminal

    way = configurations(args)
    terminal = Terminal(interrupts)
    opened: Opened = {}
    record, keys = recording(args), key_log(args)
    legs: list[Leg] = []
    for config in way:
        via = legs[-1].host if legs else ""
        legs.append(Leg(args, config, terminal, opened, via=via, last=config is way[-1], record=record, key_log=keys))
    return legs


def configurations(args: argparse.Namespace) -> list[HostConfig]:
    """What holds for each host on the way, and for the destination, which is the last.

    Raises:
        Failure: The arguments or the configuration make no sense.
    """
    from sshproto_cli.settings import Settings, quoted

    user, host = destination(args)
    lines: list[str] = []
    if args.jump is not None:
        from sshproto_cli.specs import hops

        hops(args.jump)  # what is wrong with it is then said of the option
        lines.append(f"ProxyJump={args.jump}")
        if args.jump.lower() != "none":
            lines.append("ProxyCommand=none")
    if args.port is not None:
        lines.append(f"Port={args.port}")
    if user is not None:
        lines.append(f"User={quoted(user)}")
    return _way(Settings(args.config, args.options), host, user, lines, ())


def _way(
    settings: Settings, host: str, user: str | None, lines: Sequence[str], above: tuple[HostConfig, ...]
) -> list[HostConfig]:
    """The configurations of the hosts on the way to a host, and of that itself.

    Args:
        settings: What files say.
        host, user: As they were typed.
        lines: Lines that come before those of files.
        above: The hosts that this one is on the way to.
    """
    from sshproto_cli.settings import quoted

    _check_name("host", host, _NOT_IN_HOSTS)
    if user is not None:
        _check_name("user", user, _NOT_IN_USERS)
    config = settings.of(host, lines, last=not above)
    # By the names that were typed: localhost of one host is not that of the next.
    mine = (config.host.lower(), config.port, config.user)
    if any((other.host.lower(), other.port, other.user) == mine for other in above):
        raise Failure(f"ProxyJump goes round in a circle: {config.host} is on the way to itself")
    if len(above) == _MOST_HOPS:
        raise Failure(f"ProxyJump: more than {_MOST_HOPS} hosts, each on the way to the one before")
    way: list[HostConfig] = []
    for jump in config.jumps():
        more = ["ProxyJump=none", "ProxyCommand=none"] if way else []  # the others are reached through the first
        if jump.user is not None:
            more.append(f"User={quoted(jump.user)}")
        if jump.port is not None:
            more.append(f"Port={jump.port}")
        way += _way(settings, jump.host, jump.user, more, (*above, config))
    if len(way) >= _MOST_HOPS:
        raise Failure(f"ProxyJump: more than {_MOST_HOPS} hosts on the way")
    return [*way, config]


_MOST_HOPS = 16
_NOT_IN_HOSTS = frozenset("'`\"$\\;&<>|(){}")
_NOT_IN_USERS = frozenset("'`\";&<>|(){}")
_SPACE = re.compile(r"\s")
_MORE_IN_USERS = re.compile(r"\s-|\\\Z")  # what a command would take for an option, or joins what follows


def _check_name(what: str, name: str, not_in: frozenset[str]) -> None:
    """See that a name can't be taken for something else by a shell, which may get it in a ProxyCommand."""
    odd = name.startswith("-") or (not_in & set(name)) or not name.isprintable()  # a line end begins a new command
    more = _MORE_IN_USERS if what == "user" else _SPACE
    if odd or more.search(name):
        raise Failure(f"not a {what}: {name!r}")


def destination(args: argparse.Namespace) -> tuple[str | None, str]:
    """The user, if one was given, and the host."""
    user, at, host = args.host.rpartition("@")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or (at and not user):
        raise Failure(f"not a host: {args.host!r}")
    return args.user or user or None, host  # -l goes before USER@, as ssh has it


class Leg:
    """One connection on the way, to a host to jump through or to the destination.

    Args:
        args: Parsed arguments.
        settings: What holds for the host.
        terminal: Who to ask.
        opened: Encrypted keys that were opened for other legs.
        via: The host that this goes through, or "".
        last: It leads to the destination.
        record: What records the connection, or None.
        key_log: What takes its keys, or None.

    Attributes:
        host, port, user: Where to, and as whom.
        settings: What holds for the host.
        config: The client's decisions.
        credentials: Who we are.
        reach: How it is reached, if through no other host.
        verbose: Events are shown.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        settings: HostConfig,
        terminal: Terminal,
        opened: Opened,
        *,
        via: str,
        last: bool,
        record: Record | None = None,
        key_log: Callable[[str], None] | None = None,
    ) -> None:
        from sshproto_cli.reach import Reach
        from sshproto_cli.settings import tell_rest

        self.settings = settings
        self.host = settings.hostname
        self.port = settings.port
        self.user = settings.user
        self.verbose = bool(args.verbose) or settings.log_level.startswith("DEBUG")
        if settings.batch_mode:
            terminal = _nobody()
        self._via = via
        self._name = "" if last and not via else f"{settings.host}: "
        if self.verbose:
            tell_rest(settings)
        self.reach = Reach(settings)
        self._policy = _host_policy(args, settings, terminal, dialled=not via and settings.proxy_command is None)
        self.config = self._config(args, record, key_log)
        self.credentials = _login(args, settings, terminal, opened, last=last, verbose=self.verbose)
        self._report = reporter(self._name) if self.verbose else None

    def host_key(self, question: HostKeyOffered) -> bool:
        """Whether a key is the host's."""
        return self._policy(question)

    def after_login(self, hub: Hub[ClientConnection]) -> Operation[None]:
        """What is to be done in the background once we are logged in."""
        return self._policy.after_login(hub)

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

    def close(self) -> None:
        """End what has led to the host, when the connection has ended."""
        self.reach.end()

    def _config(
        self, args: argparse.Namespace, record: Record | None, key_log: Callable[[str], None] | None
    ) -> ClientConfig:
        from sshproto.config import ClientConfig, Limits, Timeouts

        settings = self.settings
        times: dict[str, float | None] = {"auth": _LOGIN_SECONDS, "keepalive": _KEEPALIVE_SECONDS}
        if "serveraliveinterval" in settings.said:
            times["keepalive"] = settings.server_alive_interval or None
        if settings.rekey_interval:
            times["rekey"] = float(settings.rekey_interval)
        if settings.connect_timeout:
            times["handshake"] = float(settings.connect_timeout)
        sizes: dict[str, int] = {}
        if settings.rekey_limit:
            sizes["rekey_bytes"] = settings.rekey_limit
        if "requiredrsasize" in settings.said:
            sizes["minimum_rsa_bits"] = min(max(settings.required_rsa_size, _WEAKEST_RSA), _STRONGEST_RSA)
        return ClientConfig(
            user=self.user,
            preferences=preferences(args, self._policy.order, settings, verbose=self.verbose),
            timeouts=Timeouts(keepalive_count=max(1, settings.server_alive_count_max), **times),
            limits=Limits(**sizes),
            record=record,
            key_log=key_log,
        )

    def _why(self, loss: ConnectionLoss) -> str:
        """Why the login failed: what happened on this side explains more than what became of the connection."""
        from sshproto.errors import UnexpectedEof

        own = self._policy.problem or self.credentials.problem
        if not own and isinstance(loss, UnexpectedEof):
            own = self.reach.problem
        if own:
            return own
        hints = "; ".join(self.credentials.hints)
        return f"{reason(loss)} ({hints})" if hints else reason(loss)


def _host_policy(args: argparse.Namespace, settings: HostConfig, terminal: Terminal, *, dialled: bool) -> HostPolicy:
    """What decides whether a host is the one that is meant.

    Args:
        args: Parsed arguments.
        settings: What holds for the host.
        terminal: Who to ask.
        dialled: We dial it ourselves: what others call localhost is not this machine.
    """
    from pathlib import Path

    from sshproto.ssh_config import OURS
    from sshproto_cli.hosts import HostPolicy, Unknown

    given = args.known_hosts
    if args.insecure_accept_any:
        if given is not None:
            raise Failure("--known-hosts and --insecure-accept-any exclude each other")
        unknown = Unknown.ANY
    elif (
        settings.no_host_authentication_for_localhost
        and dialled
        and settings.host_key_alias is None
        and _is_loopback(settings.hostname)
    ):
        unknown = Unknown.ANY
    elif args.accept_new:
        unknown = Unknown.ACCEPT
    else:
        unknown = {"ask": Unknown.ASK, "yes": Unknown.REFUSE}.get(settings.strict_host_key_checking, Unknown.ACCEPT)
    host, number = settings.hostname, settings.port
    if settings.host_key_alias is not None:
        host, number = settings.host_key_alias, DEFAULT_PORT
    mine = settings.user_known_hosts_files if given is None else (given,)
    revoked = settings.revoked_host_keys
    sound = None
    if settings.ca_signature_algorithms is not None:
        sound = settings.algorithms("ca_signature_algorithms", OURS)
    return HostPolicy(
        host,
        number,
        [Path(name) for name in mine],
        unknown,
        terminal,
        hashed=settings.hash_known_hosts,
        system=[Path(name) for name in settings.global_known_hosts_files],
        revoked=None if revoked is None else Path(settings.expand(revoked)),
        update=settings.update_host_keys == "yes" and given is None,
        make_directory=given is None and "userknownhostsfile" not in settings.said,
        authority_algorithms=sound,
    )


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def _nobody() -> Terminal:
    """In the place of a terminal where nobody is to be asked."""
    from sshproto_cli.terminal import Terminal

    class Nobody(Terminal):
        @property
        def present(self) -> bool:
            return False

        def ask(self, text: str, *, echo: bool = False) -> str | None:
            return None

    return Nobody()


def _login(
    args: argparse.Namespace,
    settings: HostConfig,
    terminal: Terminal,
    opened: Opened,
    *,
    last: bool,
    verbose: bool,
) -> Login:
    from pathlib import Path

    from sshproto_cli.login import Login

    given = [Path(name) for name in args.identities or ()]
    # Those of the command line come first, as with ssh; if there are any, the usual ones are not tried.
    usual = [Path(name) for name in settings.identity_paths()]
    paths = given + (usual if not given or "identityfile" in settings.said else [])
    return Login(
        settings.user,
        settings.host,
        paths,
        terminal,
        required=given,
        verbose=verbose,
        on_the_way=not last,
        opened=opened,
        settings=settings,
    )
