"""``sshproto demo``: a whole SSH connection, client and server in one process, as a timeline.

There is no socket: two connections hand each other their bytes.  What is shown is what their trace hooks saw; the
client logs in with a key made for the occasion, runs a command, and changes the keys in the middle of the data.

With ``--json`` each step is one JSON object on a line of its own:

===================  ================================================================================================
``step``             counts from 1
``phase``            versions, negotiation, key exchange, new keys, service, authentication, channel, command, data,
                     rekey, close, disconnection, result
``direction``        ``"client to server"`` or ``"server to client"``; null for a note that concerns both
``number``           the message number; null for an identification line or a note
``message``          the message's name in the standards without SSH_MSG\\_; ``"identification"``; null for a note
``encrypted``        whether it was encrypted on its way
``sequence_number``  the packet's, counted for each direction; null where there is no packet
``length``           bytes of the payload before compression, padding and encryption, or of the identification line
``summary``          what it carries, in short words
``fields``           the message's fields by name: long binary values by their size, keys by their fingerprint
===================  ================================================================================================

The exit status is 0 if everything went as it should, 1 if not, 2 for options that make no sense.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sshproto.client import ClientConnection
    from sshproto.config import Preferences, Trace
    from sshproto.events import Event
    from sshproto.keys.private import PrivateKey
    from sshproto.server import ServerConnection
    from sshproto.wire.table import Role
    from sshproto_cli.timeline import Sent, Step

TITLE = "sshproto demo: one SSH connection, from its first byte to its last, no socket"

USER = "alice"
COMMAND = b"tr a-z A-Z"
LINES = (b"what is said here, nobody reads\n", b"and now it has fresh keys\n")
WINDOW = 64
"""The client's window, so small that it has to be adjusted on the way."""

_NOW = 0.0  # no time passes: nothing here waits
_MOST_ROUNDS = 1000


class DemoError(Exception):
    """The exchange did not go as it should."""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage]
) -> argparse.ArgumentParser:
    """Add the ``demo`` verb.

    Args:
        subparsers: What :meth:`argparse.ArgumentParser.add_subparsers` returned.

    Returns:
        The verb's parser. Its result's ``run`` is :func:`run`.
    """
    parser = subparsers.add_parser(
        "demo",
        help="show a whole SSH connection, step by step",
        description="A client and a server in one process, no socket: every message of an SSH connection, what it"
        " carries, and where encryption begins.",
        epilog="Any algorithm will do: sshproto demo --kex diffie-hellman-group14-sha256 --cipher aes256-ctr",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: on a terminal, unless NO_COLOR is set",
    )
    for option, what in (("kex", "key exchange"), ("cipher", "cipher"), ("mac", "MAC")):
        parser.add_argument(f"--{option}", metavar="NAME", help=f"have the client offer this {what} and no other")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out ``sshproto demo``.

    Args:
        args: What the parser of :func:`add_parser` made of the command line.

    Returns:
        The exit status.
    """
    from sshproto.errors import InvalidArgument
    from sshproto_cli import timeline
    from sshproto_cli.options import Failure, put, say

    try:
        conversation = Conversation(_preferences(args))
    except InvalidArgument as error:
        say(f"sshproto demo: {error}")
        return 2
    problem = ""
    result: Step | None = None
    try:
        result = conversation.hold()
    except DemoError as error:
        problem = str(error)
    steps = list(timeline.steps(conversation.arrived()))
    if result is not None:
        import attrs

        steps.append(attrs.evolve(result, step=len(steps) + 1))
    lines = (step.json() for step in steps) if args.json else _drawn(steps, args.color)
    try:
        put("".join(f"{line}\n" for line in lines))
    except BrokenPipeError:  # the reader has seen enough
        pass
    except Failure as failure:
        problem = problem or str(failure)
    if problem:
        say(f"sshproto demo: {problem}")
        return 1
    return 0


def _preferences(args: argparse.Namespace) -> Preferences:
    import attrs

    from sshproto.config import Preferences

    names: dict[str, Any] = {option: getattr(args, option, None) for option in ("kex", "cipher", "mac")}
    wanted: dict[str, Any] = {option: (name,) for option, name in names.items() if name is not None}
    return attrs.evolve(Preferences(), **wanted)


def _drawn(steps: list[Step], color: str) -> Iterator[str]:
    from sshproto_cli.timeline import Drawing

    drawing = Drawing(
        width=shutil.get_terminal_size((80, 24)).columns,
        colour=_colour(color),
        encoding=getattr(sys.stdout, "encoding", None) or "utf-8",
    )
    yield from drawing.title(TITLE)
    for step in steps:
        yield from drawing.step(step)


def _colour(choice: str) -> bool:
    if choice != "auto":
        return choice == "always"
    # No standard output at all is for who writes to find out.
    terminal = sys.stdout is not None and sys.stdout.isatty()  # pyright: ignore[reportUnnecessaryComparison]
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Conversation:
    """A client, a server, and the wire between them.

    Args:
        preferences: The client's. The server takes whatever is implemented.

    Raises:
        InvalidArgument: The preferences name an algorithm that there is not.

    Attributes:
        sent: What was sent so far, in order, as the sender saw it.
    """

    def __init__(self, preferences: Preferences) -> None:
        from sshproto import algorithms
        from sshproto.client import ClientConnection
        from sshproto.config import ClientConfig, Preferences, ServerConfig
        from sshproto.keys.private import PrivateKey
        from sshproto.server import ServerConnection
        from sshproto.wire.table import Role

        self.sent: list[Sent] = []
        self._received: dict[Role, list[Trace]] = {role: [] for role in Role}
        self._wire: dict[Role, bytearray] = {role: bytearray() for role in Role}
        host_key, user_key = PrivateKey.generate(), PrivateKey.generate()
        everything = Preferences(
            kex=algorithms.KEX_DEFAULT + algorithms.KEX_EXTRA + algorithms.KEX_LEGACY,
            cipher=algorithms.CIPHER_DEFAULT + algorithms.CIPHER_LEGACY,
            mac=algorithms.MAC_DEFAULT + algorithms.MAC_LEGACY,
        )
        host_keys: Any = (host_key,)  # mypy can't see through the attribute's converter
        plain = preferences == Preferences()
        # Not eager: the client waits for the server's identification, so that the phases come one after the other.
        self.client = ClientConnection(
            ClientConfig(user=USER, preferences=preferences, eager=False, trace=self._tracer(Role.CLIENT)), now=_NOW
        )
        self.server = ServerConnection(
            ServerConfig(
                host_keys=host_keys,
                preferences=preferences if plain else everything,
                trace=self._tracer(Role.SERVER),
            ),
            now=_NOW,
        )
        self._at_client = ClientApplication(self.client, host_key, user_key)
        self._at_server = ServerApplication(self.server, user_key)

    def _tracer(self, role: Role) -> Callable[[Trace], None]:
        from sshproto_cli.timeline import Sent

        def trace(packet: Trace) -> None:
            if packet.sent:
                self.sent.append(Sent(role, packet))
            else:
                self._received[role].append(packet)

        return trace

    def arrived(self) -> Iterator[Sent]:
        """What was sent, in order, as its receiver decrypted and understood it; as sent, if it has not arrived."""
        from sshproto_cli.timeline import Sent

        received = {role: iter(self._received[role]) for role in self._received}
        for item in self.sent:
            packet = item.what if isinstance(item.what, str) else next(received[item.sender.peer], item.what)
            yield Sent(item.sender, packet)

    def hold(self) -> Step:
        """Let the two talk until both have ended.

        Returns:
            What came of it, as the last step of the timeline.

        Raises:
            DemoError: It did not go as it should.
        """
        try:
            self._pump()
        except DemoError:
            raise
        except Exception as error:  # misuse by this module, or a bug below it: either way the reader wants one line
            raise DemoError(f"a bug in sshproto: {type(error).__name__}: {error}") from error
        return self._check()

    def _pump(self) -> None:
        """The pump rule, for two connections: events, then output, then the other side's input, and again."""
        from sshproto.wire.table import Role

        ends: tuple[tuple[Role, ClientConnection | ServerConnection, Callable[[Event], None]], ...] = (
            (Role.CLIENT, self.client, self._at_client.react),
            (Role.SERVER, self.server, self._at_server.react),
        )
        for _ in range(_MOST_ROUNDS):
            under_way: dict[Role, bytes] = {}
            for role, connection, react in ends:
                while (event := connection.next_event()) is not None:
                    react(event)
                under_way[role] = self._carry(role, connection.data_to_send())
            if not any(under_way.values()):
                return
            for role, connection, _ in ends:
                connection.receive_data(under_way[role.peer], _NOW)
        raise DemoError(f"the exchange did not end in {_MOST_ROUNDS} rounds")

    def _carry(self, sender: Role, data: bytes) -> bytes:
        """The wire: ``data`` of ``sender``, on its way."""
        from sshproto_cli.timeline import Sent

        if data and not self._wire[sender]:
            line = data.partition(b"\r\n")[0]
            self.sent.append(Sent(sender, line.decode("ascii")))
        self._wire[sender] += data
        return data

    def _check(self) -> Step:
        """Whether all is as it should be, seen from both sides and from the wire."""
        from sshproto.errors import LocalClose, PeerDisconnected
        from sshproto.wire.table import Role
        from sshproto_cli.describe import quoted
        from sshproto_cli.timeline import Step

        client, server = self.client, self.server
        if not isinstance(client.error, LocalClose):
            raise DemoError(_ended("client", client, self._at_client.waits_for))
        if not isinstance(server.error, PeerDisconnected):
            raise DemoError(_ended("server", server, self._at_client.waits_for))
        if bytes(self._at_client.output) != b"".join(LINES).upper():
            raise DemoError(f"the command answered {quoted(bytes(self._at_client.output))}")
        if self._at_client.status != 0:
            raise DemoError(f"the exit status is {self._at_client.status}")
        if client.negotiated != server.negotiated or client.session_id != server.session_id:
            raise DemoError("client and server do not agree about their keys")
        packets: dict[Role, list[Trace]] = {role: [] for role in Role}
        for item in self.sent:
            if not isinstance(item.what, str):
                packets[item.sender].append(item.what)
        for role in Role:
            there = self._received[role.peer]
            if len(packets[role]) != len(there) or not all(map(_same, packets[role], there)):
                raise DemoError(f"what the {role.value} sent is not what the {role.peer.value} received")
        hidden = (USER.encode(), COMMAND, *LINES, *(line.upper() for line in LINES))
        for role, wire in self._wire.items():
            if any(each in wire for each in hidden):
                raise DemoError(f"what should be secret can be read in the bytes that the {role.value} sent")
        sizes = {role: (len(packets[role]), len(self._wire[role])) for role in Role}
        details = [
            (role.value, f"sent {sizes[role][0]} packets, {sizes[role][1]:,} bytes on the wire") for role in Role
        ]
        details += [
            ("both", f"agree on every packet and on {self._at_client.exchanges} key exchanges"),
            ("a listener", "finds neither the user, nor the command, nor the data in those bytes"),
        ]
        fields: dict[str, Any] = {
            f"{role.value}_{what}": value
            for role in Role
            for what, value in zip(("packets", "bytes"), sizes[role], strict=True)
        }
        fields["key_exchanges"] = self._at_client.exchanges
        fields["exit_status"] = self._at_client.status
        return Step(
            step=0,
            phase="result",
            summary="all went well: both sides saw the same",
            details=tuple(details),
            fields=fields,
        )


def _same(sent: Trace, received: Trace) -> bool:
    same = (sent.sequence_number, sent.number, sent.length) == (
        received.sequence_number,
        received.number,
        received.length,
    )
    return same and (sent.message is None or sent.message == received.message)


def _ended(who: str, connection: ClientConnection | ServerConnection, waits_for: str) -> str:
    from sshproto.text import printable

    if connection.error is None:
        return f"the exchange came to a standstill: the client waits for {waits_for}"
    return f"the {who}'s connection ended, waiting for {waits_for}: {printable(str(connection.error))}"


class ClientApplication:
    """The client's application: trusts the one host key, logs in, runs the command, rekeys between two lines.

    Attributes:
        output: What the command has written.
        status: Its exit status.
        exchanges: Key exchanges so far.
        waits_for: What should happen next, for an error message.
    """

    def __init__(self, connection: ClientConnection, host_key: PrivateKey, user_key: PrivateKey) -> None:
        self.output = bytearray()
        self.status: int | None = None
        self.exchanges = 0
        self.waits_for = "the key exchange"
        self._connection = connection
        self._host_key = host_key.public_key
        self._user_key = user_key
        self._channel = -1

    def react(self, event: Event) -> None:
        """Do what ``event`` calls for."""
        from sshproto import events as ev
        from sshproto.channels.requests import Exec, ExitStatus, Session

        connection = self._connection
        match event:
            case ev.HostKeyOffered(key=key) if key == self._host_key:
                connection.accept_host_key(event)
            case ev.KeysExchanged():
                self.exchanges += 1
                if not event.first:
                    self._send(LINES[1])
            case ev.CredentialNeeded(attempt=0):
                self.waits_for = "the login"
                # probe: ask first whether the key would do, as clients do whose key an agent holds
                connection.auth_public_key(event, self._user_key, probe=True)
            case ev.AuthSucceeded():
                self.waits_for = "a channel"
                self._channel = connection.open_channel(Session(), window=WINDOW)
            case ev.ChannelOpened():
                self.waits_for = "the start of the command"
                connection.request(self._channel, Exec(COMMAND))
            case ev.RequestSucceeded():
                self._send(LINES[0])
            case ev.DataReceived(data=data):
                self.output += data
                connection.credit(self._channel, len(data))
                if bytes(self.output) == LINES[0].upper():
                    self.waits_for = "the key re-exchange"
                    connection.rekey()
                elif len(self.output) == sum(map(len, LINES)):
                    self.waits_for = "the end of the command"
                    connection.send_eof(self._channel)
            case ev.ChannelNotified(notice=ExitStatus(status=status)):
                self.status = status
            case ev.ChannelClosed():
                connection.disconnect("that was all")
            case ev.Question():
                connection.refuse(event)
            case _:
                pass

    def _send(self, line: bytes) -> None:
        self.waits_for = "the command's answer"
        taken = self._connection.send(self._channel, line)
        if taken != len(line):
            raise DemoError(f"only {taken} of {len(line)} bytes could be sent")


class ServerApplication:
    """The server's application: knows one user with one key, and one command, which it carries out itself."""

    def __init__(self, connection: ServerConnection, user_key: PrivateKey) -> None:
        self._connection = connection
        self._user_key = user_key.public_key

    def react(self, event: Event) -> None:
        """Do what ``event`` calls for."""
        from sshproto import events as ev
        from sshproto.channels.requests import Exec, ExitStatus, Session

        connection = self._connection
        match event:
            case ev.KeyProbe(user=user, key=key) if user == USER and key == self._user_key:
                connection.offer_key(event)
            case ev.KeyAuth(user=user, key=key) if user == USER and key == self._user_key:
                connection.accept_auth(event)
            case ev.ChannelOpenRequested(kind=Session()):
                connection.accept_channel(event)
            case ev.ChannelRequested(request=Exec(command=command)) if command == COMMAND:
                connection.succeed(event)
            case ev.DataReceived(channel=channel, data=data):
                connection.send(channel, data.upper())
                connection.credit(channel, len(data))
            case ev.EofReceived(channel=channel):
                connection.request(channel, ExitStatus(0), want_reply=False)
                connection.send_eof(channel)
                connection.close_channel(channel)
            case ev.Question():
                connection.refuse(event)
            case _:
                pass
