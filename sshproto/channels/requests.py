"""What channels are for and what can be asked about them: RFC 4254 sections 4, 5.1, 6 and 7 as values.

One class for each channel kind (the type-specific part of SSH_MSG_CHANNEL_OPEN), channel request and global request;
``type`` is its name on the wire and the annotations are its fields in wire order.  A name that is not known here
becomes an ``Unknown...`` value, which can also be sent.  Who may receive what stands in the class (``receivers``,
``session_only``, ``notice``), so that the multiplexer has no rule about a particular name that could stand here.

Commands, variables' values and payloads are ``bytes``; names, hosts and terminals are ``str``.  Decoding never gives
a value that encoding would refuse; what is out of bounds is a :class:`~sshproto.errors.WireError`, which the
multiplexer answers with failure.

Further sources: RFC 4335 (break), RFC 8160 (terminal modes), OpenSSH PROTOCOL section 2.
"""

# No "from __future__ import annotations" here: the annotations are the wire types themselves.

from enum import IntEnum
from typing import Any, ClassVar, get_args

import attrs

from sshproto.channels.fields import EnvName, EnvValue, Host, Modes, Path, Port, Strings, Term
from sshproto.errors import InvalidArgument
from sshproto.values import frozen
from sshproto.wire.codec import PLANS, Boolean, Name, String, Struct, Text, TrailingText, Uint32, is_name
from sshproto.wire.messages import ChannelOpen, ChannelRequest, GlobalRequest
from sshproto.wire.table import Role

Receivers = frozenset[Role]

AT_CLIENT: Receivers = frozenset({Role.CLIENT})
AT_SERVER: Receivers = frozenset({Role.SERVER})
AT_BOTH: Receivers = frozenset(Role)


class OpenFailure(IntEnum):
    """Reason codes of SSH_MSG_CHANNEL_OPEN_FAILURE (RFC 4254 section 5.1). On the wire any other number may come."""

    ADMINISTRATIVELY_PROHIBITED = 1
    CONNECT_FAILED = 2
    UNKNOWN_CHANNEL_TYPE = 3
    RESOURCE_SHORTAGE = 4


@frozen
class Unknown:
    """A kind or request that has no class here.

    Attributes:
        type: Its name. For sending: 1 to 64 printable US-ASCII characters, no comma (RFC 4251 section 6).
        payload: The type-specific bytes.
    """

    type: str
    payload: bytes = b""
    receivers: ClassVar[Receivers] = AT_BOTH

    def encode(self) -> bytes:
        """The type-specific bytes.

        Raises:
            InvalidArgument: The name cannot be sent, or ``payload`` is not bytes.
        """
        if not isinstance(self.type, str):
            raise InvalidArgument(f"a name must be str, not {type(self.type).__name__}")
        if not is_name(self.type):
            raise InvalidArgument(f"{self.type!r} is not a name that can be sent (RFC 4251 section 6)")
        if not isinstance(self.payload, bytes):
            raise InvalidArgument(f"{type(self).__name__}.payload must be bytes, not {type(self.payload).__name__}")
        return self.payload


# -------------------------------------------------------------------------------------------------------- channel kinds


@frozen
class Kind(Struct):
    """Base of the channel kinds.

    Attributes:
        type: The name on the wire.
        receivers: The roles at which such a channel may be opened; a peer of another role is refused.
    """

    type: ClassVar[str]
    receivers: ClassVar[Receivers] = AT_SERVER


@frozen
class Session(Kind):
    """A command, shell or subsystem (RFC 4254 section 6.1)."""

    type = "session"


SESSION = Session()
"""What all of them are: most channels are nothing else."""


@frozen
class DirectTcpip(Kind):
    """A TCP connection that the server is to make (RFC 4254 section 7.2).

    Attributes:
        host, port: Where to.
        originator_address, originator_port: Where the connection to be forwarded comes from.
    """

    type = "direct-tcpip"
    host: Host
    port: Port
    originator_address: Text = "127.0.0.1"
    originator_port: Uint32 = 0


@frozen
class ForwardedTcpip(Kind):
    """A TCP connection that came to a port which we asked the server to listen on (RFC 4254 section 7.2).

    Attributes:
        address, port: Where it came to.
        originator_address, originator_port: Where it came from.
    """

    type = "forwarded-tcpip"
    receivers = AT_CLIENT
    address: Host
    port: Port
    originator_address: Text = "127.0.0.1"
    originator_port: Uint32 = 0


@frozen
class DirectStreamlocal(Kind):
    """A connection to a Unix-domain socket that the server is to make (OpenSSH PROTOCOL section 2.4)."""

    type = "direct-streamlocal@openssh.com"
    path: Path
    reserved: Text = ""
    reserved_number: Uint32 = 0


@frozen
class ForwardedStreamlocal(Kind):
    """A connection that came to a Unix-domain socket which the server listens on for us (OpenSSH PROTOCOL 2.4)."""

    type = "forwarded-streamlocal@openssh.com"
    receivers = AT_CLIENT
    path: Path
    reserved: Text = ""


@frozen
class X11(Kind):
    """An X11 connection (RFC 4254 section 6.3.2)."""

    type = "x11"
    receivers = AT_CLIENT
    originator_address: Text
    originator_port: Uint32


@frozen
class AuthAgent(Kind):
    """A connection to the client's agent (OpenSSH's agent forwarding)."""

    type = "auth-agent@openssh.com"
    receivers = AT_CLIENT


@frozen
class AgentConnect(Kind):
    """A connection to the client's agent, by its standard name (RFC 9987 section 4)."""

    type = "agent-connect"
    receivers = AT_CLIENT


@frozen
class UnknownOpen(Unknown):
    """Any other kind of channel."""


# ----------------------------------------------------------------------------------------------------- channel requests


@frozen
class Request(Struct):
    """Base of the channel requests.

    Attributes:
        type: The name on the wire.
        receivers: The roles that such a request makes sense to.
        session_only: It belongs to sessions (and to channels of kinds that we know nothing about).
        notice: It has no reply (RFC 4254 sections 6.7 to 6.10): it is sent without wanting one.
        starts: It starts the session's program; only one such request can succeed (RFC 4254 section 6.5).
        invites: The peer may open channels because of it.
    """

    type: ClassVar[str]
    receivers: ClassVar[Receivers] = AT_SERVER
    session_only: ClassVar[bool] = True
    notice: ClassVar[bool] = False
    starts: ClassVar[bool] = False
    invites: ClassVar[bool] = False


@frozen
class PtyRequest(Request):
    """A pseudo-terminal is wanted (RFC 4254 section 6.2).

    Attributes:
        term: The value of TERM.
        columns, rows: Size in characters; 0 means that nothing is said.
        width, height: Size in pixels; they count only where ``columns`` and ``rows`` are 0.
        modes: Pairs of opcode (1 to 159) and argument, in order (RFC 4254 section 8, RFC 8160).
    """

    type = "pty-req"
    term: Term
    columns: Uint32 = 80
    rows: Uint32 = 24
    width: Uint32 = 0
    height: Uint32 = 0
    modes: Modes = ()


@frozen
class X11Request(Request):
    """X11 forwarding is wanted (RFC 4254 section 6.3.1).

    Attributes:
        single_connection: Forward one connection only.
        protocol: ``"MIT-MAGIC-COOKIE-1"``.
        cookie: In hexadecimal; made up for this purpose, never the display's own.
        screen: The screen's number.
    """

    type = "x11-req"
    invites = True
    single_connection: Boolean
    protocol: Text
    cookie: Text = attrs.field(repr=False)
    screen: Uint32 = 0


@frozen
class AuthAgentRequest(Request):
    """Agent forwarding is wanted (OpenSSH)."""

    type = "auth-agent-req@openssh.com"
    invites = True


@frozen
class AgentRequest(Request):
    """Agent forwarding is wanted, by its standard name (RFC 9987 section 4): for servers that announce
    ``agent-forward``."""

    type = "agent-req"
    invites = True


@frozen
class Env(Request):
    """An environment variable (RFC 4254 section 6.4). Accept only names that are known to be harmless."""

    type = "env"
    name: EnvName
    value: EnvValue


@frozen
class Shell(Request):
    """Start the user's shell (RFC 4254 section 6.5)."""

    type = "shell"
    starts = True


@frozen
class Exec(Request):
    """Start a command (RFC 4254 section 6.5)."""

    type = "exec"
    starts = True
    command: String


@frozen
class Subsystem(Request):
    """Start a subsystem, such as ``sftp`` (RFC 4254 section 6.5)."""

    type = "subsystem"
    starts = True
    name: Text


@frozen
class WindowChange(Request):
    """The terminal's size has changed (RFC 4254 section 6.7); the fields are :class:`PtyRequest`'s."""

    type = "window-change"
    notice = True
    columns: Uint32
    rows: Uint32
    width: Uint32 = 0
    height: Uint32 = 0


@frozen
class XonXoff(Request):
    """Whether the client may do flow control with control-S and control-Q itself (RFC 4254 section 6.8)."""

    type = "xon-xoff"
    receivers = AT_CLIENT
    notice = True
    client_can_do: Boolean


@frozen
class Signal(Request):
    """A signal for the program (RFC 4254 section 6.9): ``"TERM"``, without ``SIG``; OpenSSH adds
    ``"INFO@openssh.com"``. Names that are not known are ignored.
    """

    type = "signal"
    notice = True
    name: Name


@frozen
class Break(Request):
    """A break on the terminal line (RFC 4335).

    Attributes:
        length: As requested, in milliseconds.
    """

    type = "break"
    length: Uint32 = 0

    @property
    def milliseconds(self) -> int:
        """How long to break: 500 if nothing is said, and never outside 500 to 3000 (RFC 4335 section 3)."""
        return min(max(self.length, 500), 3000)


@frozen
class ExitStatus(Request):
    """The program has ended (RFC 4254 section 6.10)."""

    type = "exit-status"
    receivers = AT_CLIENT
    notice = True
    status: Uint32


@frozen
class ExitSignal(Request):
    """A signal has ended the program (RFC 4254 section 6.10).

    Attributes:
        name: The signal, without ``SIG``.
        core_dumped: Whether it left a core dump.
        message: The server's words. Not printable as they are.
        language: A language tag, often empty.
    """

    type = "exit-signal"
    receivers = AT_CLIENT
    notice = True
    name: Name
    core_dumped: Boolean = False
    message: Text = ""
    language: TrailingText = ""


@frozen
class EndOfWrite(Request):
    """The peer reads no more; what we send is thrown away (OpenSSH PROTOCOL section 2.1)."""

    type = "eow@openssh.com"
    receivers = AT_BOTH
    session_only = False
    notice = True


@frozen
class KeepaliveChannel(Request):
    """Are you there? Any reply will do (OpenSSH)."""

    type = "keepalive@openssh.com"
    receivers = AT_BOTH
    session_only = False


@frozen
class UnknownRequest(Unknown):
    """Any other channel request."""

    session_only: ClassVar[bool] = False
    notice: ClassVar[bool] = False
    starts: ClassVar[bool] = False
    invites: ClassVar[bool] = False


# ------------------------------------------------------------------------------------------------------ global requests


@frozen
class Global(Struct):
    """Base of the global requests.

    Attributes:
        type: The name on the wire.
        receivers: The roles that such a request makes sense to.
    """

    type: ClassVar[str]
    receivers: ClassVar[Receivers] = AT_SERVER


@frozen
class TcpipForward(Global):
    """Listen for TCP connections (RFC 4254 section 7.1).

    Attributes:
        address: ``""`` for all addresses, ``"localhost"``, or one of the server's.
        port: 0 lets the server choose; then the reply's data is the port as a uint32.
    """

    type = "tcpip-forward"
    address: Host
    port: Port = 0


@frozen
class CancelTcpipForward(Global):
    """Stop listening (RFC 4254 section 7.1). ``port`` is the one that was chosen, if it was."""

    type = "cancel-tcpip-forward"
    address: Host
    port: Port


@frozen
class StreamlocalForward(Global):
    """Listen on a Unix-domain socket (OpenSSH PROTOCOL section 2.4)."""

    type = "streamlocal-forward@openssh.com"
    path: Path


@frozen
class CancelStreamlocalForward(Global):
    """Stop listening on it."""

    type = "cancel-streamlocal-forward@openssh.com"
    path: Path


@frozen
class Keepalive(Global):
    """Are you there? Any reply will do (OpenSSH)."""

    type = "keepalive@openssh.com"
    receivers = AT_BOTH


@frozen
class NoMoreSessions(Global):
    """The client will open no more sessions (OpenSSH PROTOCOL section 2.2)."""

    type = "no-more-sessions@openssh.com"


@frozen
class HostKeysAnnounced(Global):
    """All host keys of the server (OpenSSH PROTOCOL section 2.5). Nothing is proved yet, see :class:`HostKeysProve`."""

    type = "hostkeys-00@openssh.com"
    receivers = AT_CLIENT
    keys: Strings


@frozen
class HostKeysProve(Global):
    """Prove that these host keys are yours (OpenSSH PROTOCOL section 2.5): the reply's data is a string with a
    signature for each key.
    """

    type = "hostkeys-prove-00@openssh.com"
    keys: Strings


@frozen
class UnknownGlobal(Unknown):
    """Any other global request."""


# --------------------------------------------------------------------------------------------------------------- lookup

ChannelOpenData = (
    Session
    | DirectTcpip
    | ForwardedTcpip
    | DirectStreamlocal
    | ForwardedStreamlocal
    | X11
    | AuthAgent
    | AgentConnect
    | UnknownOpen
)
"""What a channel is for."""

ChannelRequestData = (
    PtyRequest
    | X11Request
    | AuthAgentRequest
    | AgentRequest
    | Env
    | Shell
    | Exec
    | Subsystem
    | WindowChange
    | XonXoff
    | Signal
    | Break
    | ExitStatus
    | ExitSignal
    | EndOfWrite
    | KeepaliveChannel
    | UnknownRequest
)
"""What is asked or told about a channel."""

GlobalRequestData = (
    TcpipForward
    | CancelTcpipForward
    | StreamlocalForward
    | CancelStreamlocalForward
    | Keepalive
    | NoMoreSessions
    | HostKeysAnnounced
    | HostKeysProve
    | UnknownGlobal
)
"""What is asked about the connection as a whole."""


def _by_name(union: Any) -> dict[str, Any]:
    return {cls.type: cls for cls in get_args(union) if not issubclass(cls, Unknown)}


KINDS: dict[str, Any] = _by_name(ChannelOpenData)
"""The class of each channel kind, by its name."""
CHANNEL_REQUESTS: dict[str, Any] = _by_name(ChannelRequestData)
"""The class of each channel request, by its name."""
GLOBAL_REQUESTS: dict[str, Any] = _by_name(GlobalRequestData)
"""The class of each global request, by its name."""


def decode_open(message: ChannelOpen) -> ChannelOpenData:
    """The kind of channel that ``message`` asks for; a WireError if that is malformed or out of bounds."""
    return kind_of(message.channel_type, message.payload)


def kind_of(name: str, payload: bytes) -> ChannelOpenData:
    """The same of the fields that tell it."""
    if name == Session.type and not payload:
        return SESSION
    cls = KINDS.get(name)
    kind: ChannelOpenData = UnknownOpen(name, payload) if cls is None else PLANS[cls].decode(payload)
    return kind


def decode_request(message: ChannelRequest) -> ChannelRequestData:
    """What ``message`` asks or tells; a WireError if that is malformed or out of bounds."""
    return request_of(message.request_type, message.payload)


def request_of(name: str, payload: bytes) -> ChannelRequestData:
    """The same of the fields that tell it."""
    cls = CHANNEL_REQUESTS.get(name)
    request: ChannelRequestData = UnknownRequest(name, payload) if cls is None else PLANS[cls].decode(payload)
    return request


def decode_global(message: GlobalRequest) -> GlobalRequestData:
    """What ``message`` asks or tells; a WireError if that is malformed or out of bounds."""
    name, payload = message.request_type, message.payload
    cls = GLOBAL_REQUESTS.get(name)
    request: GlobalRequestData = UnknownGlobal(name, payload) if cls is None else PLANS[cls].decode(payload)
    return request
